"""Pages of one sample: its picture, sound, tokens, metadata, augmentations and neighbors."""

import json
from collections.abc import Sequence

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from seit.analysis.browser.answers import data_response, html, picture_response, row_of
from seit.analysis.browser.augmented import SLIDERS, augment_ids, config_of
from seit.analysis.browser.cells import Cell, read_cells
from seit.analysis.browser.pictures import LARGE, encode
from seit.analysis.browser.query import Query
from seit.analysis.browser.selection import Selection
from seit.analysis.browser.site import Site
from seit.analysis.browser.sounds import decode_wave, wav_file
from seit.errors import DamagedError, UsageError

_MAX_GRID = 1 << 14
"""Most tokens of a grid that a page shows one by one."""
_LONG = 2000


class SamplePages:
    """Pages of one sample of a store."""

    def __init__(self, site: Site) -> None:
        self.site = site

    def routes(self) -> list[Route]:
        """Return the addresses of these pages."""
        return [
            Route("/sample/{split}/{row}", self.sample),
            Route("/neighbors/{split}/{row}", self.neighbors),
            Route("/augmented/{split}/{row}", self.augmented),
            Route("/sound/{split}/{row}", self.sound),
        ]

    def sample(self, request: Request) -> Response:
        """Answer with everything about a sample."""
        site = self.site
        site.check_store()
        split, row = row_of(site, request)
        judge = Query.of_address(request.query_params).run
        selection = site.selection(split, judge)
        cell = self._read(split, row)
        assert cell.tokens is not None
        height, width = cell.tokens.shape
        levels = site.store.levels
        predicted = None if selection.predicted is None else int(selection.predicted[row])
        classes = site.store.classes
        clip = site.clip_rows(selection.catalog, row, cell.key)
        return html(
            site,
            "sample.html.j2",
            {
                "split": split,
                "cell": cell,
                "predicted": classes[predicted] if predicted is not None and predicted >= 0 else "",
                "judge": selection.judge,
                "judged_by": "" if judge is None else f"?run={judge}",
                "likeliest": likeliest_of(selection, row, classes),
                "is_audio": site.modality == "audio",
                "is_heard": site.is_heard,
                "seconds": self._seconds(),
                "metadata": [(name, _shown(value)) for name, value in cell.metadata.items()],
                "bytes": self._stored_bytes(split, row),
                "clip": clip if len(clip) > 1 else [],
                "total": len(selection.catalog),
                "height": height,
                "width": width,
                "levels": levels,
                "tokens": cell.tokens.tolist() if height * width <= _MAX_GRID else [],
                "colors": site.painter.colors.colors,
                "sliders": SLIDERS,
                "remark": site.painter.remark,
            },
        )

    def neighbors(self, request: Request) -> Response:
        """Answer with the nearest samples."""
        split, row = row_of(self.site, request)
        found = self.site.code_search.nearest(split, row)
        cells = [read_cells(self.site.catalog(one.split), [one.row])[0] for one in found.neighbors]
        pairs = list(zip(found.neighbors, cells, strict=True))
        return html(self.site, "neighbors.html.j2", {"found": found, "pairs": pairs})

    def augmented(self, request: Request) -> Response:
        """Answer with the picture of an augmented sample."""
        split, row = row_of(self.site, request)
        rows, columns = self.site.store.card.tokenizer.grid
        grid = (rows // self.site.store.levels, columns)
        config, seed = config_of(request.query_params, grid)
        cell = self._read(split, row)
        other = self._read(split, (row + 1) % len(self.site.store[split]))
        assert cell.tokens is not None
        assert other.tokens is not None
        ids = augment_ids(self.site.store, cell.tokens, other.tokens, config, seed=seed)
        picture = encode(self.site.painter.draw(ids[None])[0], longest=LARGE)
        return picture_response(picture, is_kept=False)

    def sound(self, request: Request) -> Response:
        """Answer with the sound of a sample, as a WAV file."""
        from seit.tokenizers import AudioTokenizer

        split, row = row_of(self.site, request)
        tokenizer = self.site.painter.tokenizer
        if not isinstance(tokenizer, AudioTokenizer):
            reason = self.site.painter.remark or "its samples are images"
            raise UsageError(f"this store cannot be heard: {reason}")
        cell = self._read(split, row)
        assert cell.tokens is not None
        wave = decode_wave(tokenizer, cell.tokens)
        return data_response(wav_file(wave, tokenizer.sample_rate), "audio/wav")

    def _read(self, split: str, row: int) -> Cell:
        (cell,) = read_cells(self.site.catalog(split), [row])
        if cell.tokens is None:
            raise DamagedError(cell.damage)
        return cell

    def _seconds(self) -> float | None:
        from seit.tokenizers import AudioTokenizer

        tokenizer = self.site.painter.tokenizer
        return tokenizer.inputs.seconds if isinstance(tokenizer, AudioTokenizer) else None

    def _stored_bytes(self, split: str, row: int) -> int:
        catalog = self.site.catalog(split)
        shard, block = catalog.split.block_at(catalog.block_of(row))
        return int(shard.open_stored_bytes(block)[row - shard.rows_of(block).start])


def likeliest_of(selection: Selection, row: int, classes: Sequence[str]) -> list[tuple[str, float]]:
    """Return the likeliest classes of a sample and their probabilities, if a run kept them."""
    found = None if selection.predictions is None else selection.predictions.likeliest
    if found is None:
        return []
    pairs = zip(found.classes[row].tolist(), found.probabilities[row].tolist(), strict=True)
    return [(classes[label], share) for label, share in pairs]


def _shown(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _LONG else f"{text[:_LONG]}…"
