"""What a tokenize job does, and the tokenizer that it names."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from seit.errors import UsageError
from seit.shards import BLOCK_SAMPLES
from seit.tokenizers import TOKENIZERS, PatchTokenizer, Tokenizer, load_tokenizer

DEFAULT_SIZE = 256


@dataclass(frozen=True, kw_only=True)
class TokenizeConfig:
    """What a job does.

    Attributes:
        tokenizer: a name (`seit tokenizer list`) that is fitted on the corpus, or a file's path.
        size: images are resized (shorter side) and centre-cropped to this many pixels; None for
            256, or what a tokenizer file was made for.
        codes: codebook size K of a tokenizer that is fitted.
        codec: how grids are coded: entropy coded, or at a fixed width. A store of more than 4,096
            codes, or that would not become smaller, is packed.
        container: what the shards are: WebDataset tars, or groups of Zarr v3 arrays.
        val_fraction: share of instances that go to `val` where SRC has no splits of its own.
        shard_samples: inputs per shard, a multiple of the 1,024 of a block.
        max_pixels: larger images are skipped as decompression bombs (width × height).
        strict: stop at the first unreadable input instead of skipping it.
        workers: decoding threads; None for one a core.
        device: where the tokenizer runs: cpu, cuda, cuda:1, mps or auto.
        seed: of the tokenizer's fit.
        root: folder that a manifest's relative paths start from; None for the manifest's own.
        overwrite: replace a finished store, or an unfinished job of other settings, at STORE; an
            unfinished job of the same settings goes on.
    """

    tokenizer: str = PatchTokenizer.name
    size: int | None = None
    codes: int = 1024
    codec: Literal["context", "packed"] = "context"
    container: Literal["wds", "zarr"] = "wds"
    val_fraction: float = 0.1
    shard_samples: int = 8 * BLOCK_SAMPLES
    max_pixels: int = 178_956_970
    strict: bool = False
    workers: int | None = None
    device: str = "cpu"
    seed: int = 0
    root: Path | None = None
    overwrite: bool = False

    def __post_init__(self) -> None:
        if self.size is not None and not 8 <= self.size <= 4096:
            raise UsageError(f"size is {self.size}; images are made 8 to 4096 pixels wide")
        if not 2 <= self.codes <= 65_536:
            raise UsageError(f"codes is {self.codes}; a codebook has 2 to 65,536")
        if self.shard_samples < 1 or self.shard_samples % BLOCK_SAMPLES:
            raise UsageError(
                f"shard_samples is {self.shard_samples}; it must be a multiple of {BLOCK_SAMPLES}"
            )
        if not 0 <= self.val_fraction < 1:
            raise UsageError(f"val_fraction is {self.val_fraction}; it goes from 0 to below 1")
        if self.max_pixels < 1:
            raise UsageError(f"max_pixels is {self.max_pixels}; images have at least one")
        if not 0 <= self.seed < 1 << 63:
            raise UsageError(f"seed is {self.seed}; it goes from 0 to 2^63 - 1")
        if self.workers is not None and self.workers < 1:
            raise UsageError(f"workers is {self.workers}; at least one is needed")


def resolve_tokenizer(config: TokenizeConfig) -> tuple[TokenizeConfig, Tokenizer | None]:
    """Load a tokenizer that is named by its file, and settle the image size.

    Raises:
        UsageError: there is no such tokenizer, or it takes another image size.
    """
    if config.tokenizer in TOKENIZERS:
        return replace(config, size=config.size or DEFAULT_SIZE), None
    if not Path(config.tokenizer).is_file():
        raise UsageError(
            f"no tokenizer is named {config.tokenizer!r} and no such file exists; pass a file or "
            f"one of {', '.join(TOKENIZERS)}"
        )
    tokenizer = load_tokenizer(config.tokenizer)
    if config.size not in (None, tokenizer.image_size):
        raise UsageError(
            f"{config.tokenizer} takes images of {tokenizer.image_size} px but size is "
            f"{config.size}; pass --size {tokenizer.image_size} or leave it out"
        )
    return replace(config, size=tokenizer.image_size), tokenizer
