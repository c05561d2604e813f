"""Training pairs of TokenAdapt: tokens of images, and of the same images warped.

Legend: B batch, S image side, H W token grid.
"""

from collections.abc import Generator, Iterable, Iterator, Sequence
from itertools import count, islice
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from seit.augment import Geometry, SampleRandom, random_warps, warp
from seit.errors import SeitError
from seit.ingest import Instance, PixelReader
from seit.models import TokenAdapt
from seit.tokenizers import Tokenizer


class Images(NamedTuple):
    """Decoded images."""

    pixels: Tensor
    """Pixels (B, 3, S, S) uint8."""
    positions: Tensor
    """Positions (B,) int64 of the images in reading order."""
    keys: list[str]
    """Keys of the images."""


class Pairs(NamedTuple):
    """Token grids before and after a warp."""

    tokens: Tensor
    """Tokens of the images, (B, H, W) int64."""
    warps: Tensor
    """(B, 2, 3)."""
    targets: Tensor
    """Tokens of the warped images, (B, H, W) int64."""
    warped: Tensor
    """Warped images, (B, S, S, 3) uint8."""


def shuffled(instances: Sequence[Instance], seed: int) -> Iterator[Instance]:
    """Yield the instances repeatedly, each time in another order."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        for index in torch.randperm(len(instances), generator=generator).tolist():
            yield instances[index]


def read_batches(
    reader: PixelReader,
    instances: Iterable[Instance],
    batch_size: int,
    *,
    start: int = 0,
    skips_empty: bool = False,
) -> Generator[Images]:
    """Decode images from batch number ``start`` on.

    Unreadable ones keep their position but make a batch smaller.

    Args:
        reader: reader of the images.
        instances: the images.
        batch_size: images per batch, readable or not.
        start: number of the first batch.
        skips_empty: leave out batches without a readable image, if any other batch has one.

    Raises:
        SeitError: no image of a batch is readable; with ``skips_empty``, of all batches.
    """
    first = start * batch_size
    numbered = zip(count(first), reader.read(islice(instances, first, None)))
    num_unreadable, reason, is_empty = 0, "", True
    while batch := list(islice(numbered, batch_size)):
        read = [(number, one) for number, one in batch if one.pixels is not None]
        if not read:
            num_unreadable += len(batch)
            reason = reason or f"{batch[0][1].instance.key}: {batch[0][1].reason}"
            if skips_empty:
                continue
            break
        is_empty = False
        pixels = [torch.from_numpy(one.pixels).permute(2, 0, 1) for _, one in read]
        yield Images(
            torch.stack(pixels),
            torch.tensor([number for number, _ in read]),
            [one.instance.key for _, one in read],
        )
    if num_unreadable and (is_empty or not skips_empty):
        raise SeitError(
            f"none of {num_unreadable} images can be read ({reason}); pass the SRC that the store "
            "was made from"
        )


@torch.no_grad()
def make_pairs(
    pixels: Tensor, random: SampleRandom, tokenizer: Tokenizer, geometry: Geometry
) -> Pairs:
    """Tokenize images uint8 (B, 3, S, S), both original and warped."""
    B, S = len(pixels), pixels.shape[-1]
    H, W = tokenizer.grid
    device = tokenizer.codebook.device
    warps = random_warps(random, (2 * H, 2 * W), geometry).to(device)
    pixels = pixels.to(device)
    warped = warp(pixels.float(), warps, (S, S)).round_().clamp_(0, 255).to(torch.uint8)
    both = torch.cat((pixels, warped)).permute(0, 2, 3, 1)
    tokens = tokenizer.encode(both)
    return Pairs(tokens[:B], warps, tokens[B:], both[B:])


def measure_pairs(network: TokenAdapt, pairs: Pairs, tokenizer: Tokenizer) -> dict[str, float]:
    """Compare a network's predicted tokens with copied ones and the tokenizer's own."""
    logits = network(pairs.tokens, pairs.warps, tokenizer.grid)
    adapted = logits.argmax(dim=1)
    black = int(tokenizer.encode(torch.zeros_like(pairs.warped[:1]))[0, 0, 0])
    copied = copy_tokens(pairs.tokens, pairs.warps, tokenizer.grid, outside=black)

    def psnr(tokens: Tensor) -> float:
        error = (tokenizer.decode(tokens).double() - pairs.warped.double()) / 255
        return float(-10 * error.square().flatten(1).mean(1).clamp(min=1e-12).log10().mean())

    return {
        "loss": float(F.cross_entropy(logits, pairs.targets)),
        "accuracy": float((adapted == pairs.targets).double().mean()),
        "copy_accuracy": float((copied == pairs.targets).double().mean()),
        "psnr_db": psnr(adapted),
        "copy_psnr_db": psnr(copied),
        "best_psnr_db": psnr(pairs.targets),
    }


def copy_tokens(
    tokens: Tensor, warps: Tensor, size: tuple[int, int], *, outside: int = 0
) -> Tensor:
    """Warp the grid itself, as a baseline for TokenAdapt.

    Args:
        tokens: (B, H, W) int64.
        warps: (B, 2, 3), from :func:`seit.augment.random_warps`.
        size: (h, w).
        outside: token for cells outside the image.

    Returns:
        (B, h, w) int64, each the token of the nearest cell.
    """
    # Offset by 1, as the warp fills with 0; exact in float32, as ids are below 2**24.
    places = (tokens[:, None] + 1).to(torch.float32)
    copied = warp(places, warps, size, mode="nearest")[:, 0].round().to(torch.int64) - 1
    return copied.where(copied >= 0, outside)
