"""Published tokenizers: read once from their checkpoints, then saved like any other tokenizer.

Nothing here trains, and only names that start with ``hf://`` are downloaded.
"""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from seit.errors import UsageError
from seit.tokenizers.base import Tokenizer
from seit.tokenizers.published.base import DEFAULT_SIZE, PublishedTokenizer
from seit.tokenizers.published.checkpoints import (
    HUB_PREFIX,
    StateDict,
    fetch,
    find_weights,
    read_checkpoint,
    read_codes,
)
from seit.tokenizers.published.codecs import (
    CodecTokenizer,
    DacTokenizer,
    EncodecTokenizer,
    MimiTokenizer,
)
from seit.tokenizers.published.layouts import check_kind, unwrapped
from seit.tokenizers.published.magvit2 import Magvit2Tokenizer
from seit.tokenizers.published.references import ReferableTokenizer
from seit.tokenizers.published.taesd import TaesdTokenizer
from seit.tokenizers.published.vitvqgan import VitVqganTokenizer
from seit.tokenizers.published.vqgan import LlamaGenTokenizer, VqganTokenizer

_IMAGE_KINDS = (VitVqganTokenizer, VqganTokenizer, LlamaGenTokenizer, Magvit2Tokenizer)
_AUDIO_KINDS = (EncodecTokenizer, DacTokenizer, MimiTokenizer)
KINDS: Mapping[str, type[ReferableTokenizer]] = {
    kind.name: kind for kind in (*_IMAGE_KINDS, TaesdTokenizer, *_AUDIO_KINDS)
}
"""Published kinds, by name."""


def load_published(
    kind: str,
    path: str | Path,
    *,
    size: int | None = None,
    remap: str | Path | None = None,
    images: Tensor | None = None,
    num_codes: int = 1024,
    seed: int = 0,
    seconds: float | None = None,
    levels: int | None = None,
) -> Tokenizer:
    """Build a tokenizer from a published checkpoint.

    Args:
        kind: one of :data:`KINDS`.
        path: a checkpoint, the folder that holds it, or ``hf://owner/name[/file]``.
        size: image side in pixels; by default the side that the weights fix, or 256.
        remap: file of the codes to keep, or of their numbers (`vitvqgan`, `vqgan`, `llamagen`).
        images: uint8 (B, S, S, 3), on whose latents the codebook of a `taesd` is fitted.
        num_codes: number of codes of that fit.
        seed: seed of that fit.
        seconds: length of an audio codec's window; by default 5 s, 1 s of `dac`, 10 s of `mimi`.
        levels: levels that an audio codec keeps; by default 2, all of `dac`, 8 of `mimi`.

    Raises:
        UsageError: there is no such kind or checkpoint, or an option does not apply to this kind.
    """
    if kind not in KINDS:
        raise UsageError(f"no published tokenizer is called {kind!r}; there are {', '.join(KINDS)}")
    is_audio = issubclass(KINDS[kind], CodecTokenizer)
    _refuse_options(
        kind,
        size=size if is_audio else None,
        remap=remap if is_audio or kind == TaesdTokenizer.name else None,
        images=images if kind != TaesdTokenizer.name else None,
        seconds=None if is_audio else seconds,
        levels=None if is_audio else levels,
    )
    for codec in _AUDIO_KINDS:
        if codec.name == kind:
            return codec.from_checkpoint(path, seconds=seconds, levels=levels)
    if kind == TaesdTokenizer.name:
        if images is None:
            raise UsageError(f"{kind} has no codes of its own; give images to fit a codebook on")
        if size not in (None, images.shape[1]):
            raise UsageError(f"size is {size}, but the images are of {images.shape[1]} px")
        return TaesdTokenizer.fit(_read_taesd(path), images, num_codes=num_codes, seed=seed)
    weights = unwrapped(read_checkpoint(path, kind=kind))
    check_kind(weights)
    (found,) = (candidate for candidate in _IMAGE_KINDS if candidate.name == kind)
    tokenizer: PublishedTokenizer = found.from_checkpoint(weights, size=size)
    return tokenizer if remap is None else tokenizer.restricted(read_codes(remap))


def _refuse_options(kind: str, **options: object) -> None:
    for name, value in options.items():
        if value is not None:
            raise UsageError(f"{name} is not an option of {kind}; leave it out")


def _read_taesd(path: str | Path) -> StateDict:
    """Read one file with both halves, or taesd's own pair of files in a folder."""
    folder = fetch(path)
    names = [entry.name for entry in folder.iterdir()] if folder.is_dir() else []
    if not all(any(half in name for name in names) for half in ("encoder", "decoder")):
        weights = unwrapped(read_checkpoint(path, kind=TaesdTokenizer.name))
        check_kind(weights)
        return weights
    halves = {
        half: read_checkpoint(find_weights(folder, contains=half), kind=TaesdTokenizer.name)
        for half in ("encoder", "decoder")
    }
    tensors = {f"{half}.{key}": x for half, found in halves.items() for key, x in found.items()}
    return StateDict(tensors, origin=str(folder), kind=TaesdTokenizer.name)


__all__ = [
    "DEFAULT_SIZE",
    "HUB_PREFIX",
    "KINDS",
    "CodecTokenizer",
    "DacTokenizer",
    "EncodecTokenizer",
    "LlamaGenTokenizer",
    "Magvit2Tokenizer",
    "MimiTokenizer",
    "PublishedTokenizer",
    "ReferableTokenizer",
    "TaesdTokenizer",
    "VitVqganTokenizer",
    "VqganTokenizer",
    "load_published",
]
