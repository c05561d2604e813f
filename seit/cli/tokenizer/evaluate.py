"""`seit tokenizer eval NAME|FILE… SRC`."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from seit.cli.integers import Integer
from seit.cli.output import columns, print_json, print_lines, say, warn
from seit.errors import UsageError

_COLUMNS = {
    "images": ("images", "{:,}"),
    "windows": ("windows", "{:,}"),
    "psnr_db": ("PSNR dB", "{:.2f}"),
    "explained_variance": ("variance explained", "{:.1%}"),
    "ssim": ("SSIM", "{:.4f}"),
    "ms_ssim": ("MS-SSIM", "{:.4f}"),
    "codebook_usage": ("codes used", "{:.1%}"),
    "perplexity": ("perplexity", "{:.1f}"),
    "entropy_bits": ("bits/token", "{:.2f}"),
    "images_per_second": ("images/s", "{:.1f}"),
}


def evaluate(
    *tokenizers_and_src: str,
    tile: bool = False,
    images: Integer = 256,
    fit_on: str | None = None,
    size: Integer = 256,
    codes: Integer | None = None,
    seed: Integer = 0,
    sheet: Path | None = None,
    backbone: str | None = None,
    download: bool = False,
    json: bool = False,
) -> None:
    """Compare what tokenizers keep of the images of SRC: `seit tokenizer eval NAME|FILE… SRC`.

    Uses the val split of SRC if it has one, else all of it. A fitted kind is first fitted on the
    train split; if SRC has no splits, a tenth is held out. Audio is always split in this way.

    Args:
        tokenizers_and_src: Names or files of tokenizers, then the input, as for `seit tokenize`.
        tile: Cut images at their own resolution into tiles of the tokenizer's size, not resized.
        images: Number of files, evenly spread.
        fit_on: Input to fit on instead.
        size: Image side of fitted tokenizers, in pixels.
        codes: Codebook size of fitted tokenizers, 1,024 by default.
        seed: Seed of the fit.
        sheet: A new PNG file of originals next to reconstructions.
        backbone: hf: and the folder of the speech model of units.
        download: Allow a speech model's name on the hub to be downloaded; no code of it is run.
        json: Print one JSON object.
    """
    if len(tokenizers_and_src) < 2:
        raise UsageError("name at least one tokenizer, then the SRC to measure it on")
    from seit.tokenizer_training import CompareConfig, compare_tokenizers

    *names, src = tokenizers_and_src
    config = CompareConfig(
        images=images,
        tile=tile,
        fit_on=fit_on,
        size=size,
        codes=codes,
        seed=seed,
        sheet=sheet,
        backbone=backbone,
        download=download,
    )
    result = compare_tokenizers(names, src, config)
    warn(result.warnings)
    rows = {name: asdict(row) for name, row in result.rows.items()}
    if json:
        return print_json({"images": result.images, "rows": rows})
    print_lines(_table(rows))
    return say(f"the sheet is at {sheet}") if sheet else None


def _table(rows: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return right-aligned columns, one line per tokenizer."""
    shown = [key for key in _COLUMNS if any(key in row for row in rows.values())]
    lines = [["", *(_COLUMNS[key][0] for key in shown)]]
    lines += [
        [name, *(_COLUMNS[key][1].format(row[key]) for key in shown)] for name, row in rows.items()
    ]
    return columns(lines)
