"""Report of a comparison: the chart as a file, and a page with all figures."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from markupsafe import Markup

from seit.analysis.frontier.config import FrontierConfig
from seit.analysis.frontier.corpora import read_squares
from seit.analysis.frontier.points import FAMILIES
from seit.analysis.frontier.rows import Row
from seit.config import flatten, to_mapping
from seit.ingest import spread_evenly
from seit.numbers import human_bytes
from seit.report import (
    Family,
    Figure,
    Mark,
    Section,
    element,
    figures,
    image_grid,
    scatter_chart,
    scatter_svg,
    table,
)
from seit.shards import Split, Store
from seit.training import write_report

if TYPE_CHECKING:
    from seit.analysis.frontier.run import FrontierResult

NUM_PICTURES = 6
_TITLE = "Top-1 against bytes of training data"
_X_LABEL = "bytes of the training data"
_Y_LABEL = "top-1"

_BYTES_TEXT = (
    "Bytes are those of the training split: file sizes for pixels; for tokens the shards and their "
    "index, codebook, codec tables and tokenizer in full, and the split's share of the card. The "
    "fixed part does not grow with the number of pictures."
)
_CAPTION = (
    "● no other point is as accurate in fewer bytes. PSNR of what the network is given against the "
    "original, on validation pictures; samples/s: training."
)
_METHOD_TEXT = (
    "Every run has the same backbone, recipe, steps, batch size and seeds; only what it reads "
    "differs. It is validated on the validation pictures stored in the same way as those that it "
    "was trained on: a JPEG run on JPEG of that quality, a token run on tokens. Subsets are "
    "validated on the original files."
)


def draw_chart(rows: Sequence[Row]) -> str:
    """Return the chart as SVG text."""
    return scatter_svg(
        _families(rows),
        title=_TITLE,
        x_label=_X_LABEL,
        y_label=_Y_LABEL,
        y_format="percent",
        note=_error_note(rows),
    )


def write_frontier_report(
    result: "FrontierResult",
    config: FrontierConfig,
    *,
    title: str,
    split: Split,
    pictures: Mapping[str, str | Store],
) -> None:
    """Write the page.

    Args:
        result: the result to show.
        config: settings of the comparison.
        title: name of the corpus.
        split: split with the example pictures.
        pictures: by point, the corpus or store of its pictures.
    """
    chart = scatter_chart(
        _families(result.rows),
        title=_TITLE,
        x_label=_X_LABEL,
        y_label=_Y_LABEL,
        y_format="percent",
        note=_error_note(result.rows),
    )
    settings = {"recipe": config.recipe, "seeds": config.seeds, **flatten(to_mapping(config.base))}
    write_report(
        result.report.parent,
        title=f"Accuracy against bytes: {title}",
        lead=f"{result.train_samples:,} training pictures, stored in {len(result.rows)} ways; "
        f"{config.base.model.name} trained from each for {result.steps:,} steps of "
        f"{config.base.data.batch_size}, {_seeds(result.seeds)}, and validated on "
        f"{result.val_samples:,} pictures.",
        sections=[
            Section("In short", figures(_tiles(result.rows))),
            Section("Frontier", chart, _METHOD_TEXT),
            Section("All points", _table(result.rows), _BYTES_TEXT),
            Section(
                "What is kept",
                _pictures(result.rows, split, pictures),
                "Validation pictures at the size that the network is given. A network on tokens "
                "reads the tokens' vectors, not these reconstructions.",
            ),
        ],
        settings=settings,
        settings_text="Input, share of the pictures and seed are set by each run.",
        environment=result.environment,
    )


def _families(rows: Sequence[Row]) -> list[Family]:
    families = []
    for family, name in FAMILIES.items():
        members = sorted(
            (row for row in rows if row.family == family), key=lambda row: (row.bytes, row.name)
        )
        marks = [
            Mark(row.name, row.bytes, row.top1, row.top1_std or 0.0, row.is_on_front)
            for row in members
        ]
        # Tokenizers are unordered; qualities, sides and shares are steps of one scale.
        families.append(Family(name, marks, is_joined=family != "tokens"))
    return families


def _error_note(rows: Sequence[Row]) -> str:
    counts = sorted({len(row.top1_by_seed) for row in rows}) or [1]
    if counts[-1] == 1:
        return "one seed, no error bars; ringed and dashed: fewest bytes for their top-1"
    number = "–".join(map(str, dict.fromkeys((counts[0], counts[-1]))))
    return (
        f"mean and standard deviation of {number} seeds; ringed and dashed: fewest bytes for "
        "their top-1"
    )


def _tiles(rows: Sequence[Row]) -> list[Figure]:
    best = max(rows, key=lambda row: (row.top1, -row.bytes))
    tiles = [Figure("highest top-1", f"{best.top1:.1%}", f"{best.name}, {human_bytes(best.bytes)}")]
    pixels = next((row for row in rows if row.family == "pixels"), None)
    tokens = [row for row in rows if row.family == "tokens"]
    if pixels:
        note = f"{human_bytes(pixels.bytes)}, {human_bytes(pixels.bytes_per_sample)} a picture"
        tiles.append(Figure("top-1 from original files", f"{pixels.top1:.1%}", note))
    if tokens:
        chosen = max(tokens, key=lambda row: (row.top1, -row.bytes))
        note = f"{chosen.name}, {human_bytes(chosen.bytes_per_sample)} a picture"
        tiles.append(Figure("top-1 from tokens", f"{chosen.top1:.1%}", note))
    if pixels:
        cheapest = min((row for row in rows if row.top1 >= pixels.top1), key=lambda row: row.bytes)
        ratio = pixels.bytes / cheapest.bytes
        note = f"{cheapest.name}: fewest bytes for the top-1 of original files"
        tiles.append(Figure("smaller", f"{ratio:.1f}×", note))
    return tiles


def _table(rows: Sequence[Row]) -> Markup:
    header = [
        "point",
        "pictures",
        "bytes",
        "fixed",
        "a picture",
        "top-1",
        "std",
        "PSNR",
        "samples/s",
    ]
    body = [
        [
            element("span", f"{row.name}{' ●' * row.is_on_front}", style="white-space:nowrap"),
            row.samples,
            human_bytes(row.bytes),
            human_bytes(row.fixed_bytes) if row.fixed_bytes else None,
            human_bytes(row.bytes_per_sample),
            f"{row.top1:.1%}",
            None if row.top1_std is None else f"{row.top1_std:.1%}",
            None if row.psnr_db is None else f"{row.psnr_db:.1f} dB",
            round(row.samples_per_second),
        ]
        for row in rows
    ]
    return table(body, header=header, caption=_CAPTION)


def _pictures(rows: Sequence[Row], split: Split, places: Mapping[str, str | Store]) -> Markup:
    chosen = np.array(spread_evenly(range(len(split)), NUM_PICTURES), dtype=np.int64)
    shown: list[tuple[str, list[npt.NDArray[np.uint8]]]] = []
    for row in rows:
        if row.name in places:
            place = places[row.name]
            if isinstance(place, Store):
                tokens = torch.from_numpy(place[split.name].tokens[chosen].astype(np.int64))
                squares = place.load_tokenizer().decode(tokens).numpy()
            else:
                squares = read_squares(split, place, chosen)
            label = f"{row.name}, {human_bytes(row.bytes_per_sample)}, top-1 {row.top1:.1%}"
            shown.append((label, list(squares)))
    return image_grid(shown, title="The same pictures from every point")


def _seeds(count: int) -> str:
    return "one seed" if count == 1 else f"{count} seeds each"
