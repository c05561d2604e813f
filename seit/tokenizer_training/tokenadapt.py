"""Training TokenAdapt for a store: warped images teach what the warped tokens would have been.

Legend: B batch, S image side, H W token grid, K codes.
"""

import logging
import math
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count, islice
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from seit.augment import Geometry, SampleRandom, random_warps, warp
from seit.devices import choose_device
from seit.errors import SeitError, UsageError
from seit.files import check_new_file
from seit.ingest import Instance, PixelReader, kept_splits, list_corpus
from seit.models import TokenAdapt, save_tokenadapt
from seit.progress import Progress
from seit.shards import Store, open_store
from seit.tokenizers import ImageTokenizer, Tokenizer
from seit.training import describe_figures, describe_ruin

_LOG = logging.getLogger(__name__)
_TRAINING_EPOCH, _EVALUATION_EPOCH = 0, 1
_CLIP_GRAD = 1.0


@dataclass(frozen=True, kw_only=True)
class TokenAdaptConfig:
    """How TokenAdapt is trained; the widths are the paper's, which does not tell the rest.

    Raises:
        UsageError: for a value outside its range.
    """

    dim: int = 384
    """Model dim of both networks, a multiple of 4 and of `num_heads`."""
    num_heads: int = 6
    """Attention heads."""
    geometry: Geometry = field(default_factory=Geometry)
    """The warps to learn."""
    batch_size: int = 64
    """Images per step."""
    steps: int = 20_000
    """Steps of AdamW."""
    warmup_steps: int = 500
    """Steps of linear warm-up; a cosine to 0 follows."""
    lr: float = 1e-3
    """Peak learning rate."""
    weight_decay: float = 0.05
    """Decoupled weight decay of matrices."""
    train_split: str = "train"
    """The split that is trained on."""
    val_split: str = "val"
    """The split that is evaluated."""
    val_images: int = 512
    """Images that are evaluated, or all where the split has fewer."""
    seed: int = 0
    """Of weights, order and warps."""
    device: str = "auto"
    """Where to train: auto, cpu, cuda, cuda:1, mps."""

    def __post_init__(self) -> None:
        for name in ("batch_size", "steps", "val_images"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} is {getattr(self, name)}; expected at least 1: raise it")
        if self.warmup_steps < 0:
            raise UsageError(f"warmup_steps is {self.warmup_steps}; expected 0 or more: raise it")
        if not 0 < self.lr < math.inf:
            raise UsageError(f"lr is {self.lr}; expected above 0 and finite: 1e-3 is usual")
        if not 0 <= self.weight_decay < math.inf:
            raise UsageError(f"weight_decay is {self.weight_decay}; expected 0 or more: raise it")


@dataclass(frozen=True)
class TokenAdaptResult:
    """What a training came to, on images that were not trained on.

    Copying, for comparison, warps the grid itself: each cell has the token of the nearest one, or
    that of black where nothing is.

    Attributes:
        loss: mean cross-entropy of a token, in nats.
        accuracy: share of tokens that are the tokenizer's own of the warped image, 0–1.
        copy_accuracy: the same of copying.
        psnr_db: how near the decoded tokens come to the warped image, mean over images, in dB.
        copy_psnr_db: the same of copying.
        best_psnr_db: the same of the tokenizer's own tokens of the warped image.
        images: how many images were evaluated.
        seconds: duration of the whole call.
    """

    loss: float
    accuracy: float
    copy_accuracy: float
    psnr_db: float
    copy_psnr_db: float
    best_psnr_db: float
    images: int
    seconds: float


class _Images(NamedTuple):
    pixels: Tensor
    """(B, 3, S, S) uint8."""
    positions: Tensor
    """(B,) int64: the number of each image in the order in which they are asked for."""


class _Pairs(NamedTuple):
    tokens: Tensor
    """(B, H, W) int64, of the images."""
    warps: Tensor
    """(B, 2, 3)."""
    targets: Tensor
    """(B, H, W) int64, of the warped images."""
    warped: Tensor
    """(B, S, S, 3) uint8, those images."""


def train_tokenadapt(
    store: Store | str | Path,
    source: str | Path,
    config: TokenAdaptConfig,
    out: str | Path,
    *,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> TokenAdaptResult:
    """Train TokenAdapt on the images that a store was made from, and save it.

    Each image is tokenized twice, as it is and warped in pixels, and the network learns to tell the
    second grid from the first and the warp, by cross-entropy. The paper's training code was never
    published; pairs and loss are as it describes them. Equal arguments give equal weights on the
    same CPU.

    Args:
        store: the store, opened or by path.
        source: SRC, the images that it was made from.
        config: what to do.
        out: the file to write, for ``augment.token_adapt``.
        overwrite: replace ``out`` if it exists.
        progress: called after each step.

    Raises:
        UsageError: settings, store and SRC do not fit together; nothing was written.
        SeitError: the loss is not finite any more, or the file cannot be written.
    """
    started = time.perf_counter()
    out = Path(out)
    check_new_file(out, overwrite=overwrite)
    store = store if isinstance(store, Store) else open_store(store)
    device = choose_device(config.device)
    tokenizer = store.load_tokenizer().to(device)
    if not isinstance(tokenizer, ImageTokenizer):
        raise UsageError(f"{store.folder} was made of audio; TokenAdapt learns from images")
    torch.manual_seed(config.seed)
    _LOG.info("listing %s", source)
    network = TokenAdapt(tokenizer.codebook, dim=config.dim, num_heads=config.num_heads).to(device)
    with PixelReader(
        size=tokenizer.image_size, max_pixels=int(store.card.job["max_pixels"])
    ) as reader:
        training = _instances(store, source, config.train_split)
        held_out = _instances(store, source, config.val_split)[: config.val_images]
        _LOG.info(
            "training TokenAdapt on %s images: %s steps of %d on %s",
            f"{len(training):,}",
            f"{config.steps:,}",
            config.batch_size,
            device,
        )
        images = _batches(reader, _shuffled(training, config.seed), config.batch_size)
        _fit(network, _training_pairs(images, tokenizer, config), config, progress)
        images = _batches(reader, held_out, config.batch_size)
        figures, num_images = _evaluate(network, images, tokenizer, config)
    what = describe_figures(figures)
    if what is not None:
        raise SeitError(f"{what}; lower lr and start again")
    save_tokenadapt(network, out, fingerprint=tokenizer.fingerprint)
    seconds = time.perf_counter() - started
    return TokenAdaptResult(**figures, images=num_images, seconds=seconds)


def _instances(store: Store, source: str | Path, split: str) -> Sequence[Instance]:
    """The inputs of a split, in an order that depends on the corpus alone."""
    corpus = list_corpus(
        source,
        val_fraction=float(store.card.job["val_fraction"]),
        kept_splits=kept_splits(store),
    )
    splits = corpus.by_split()
    if split not in splits:
        raise UsageError(
            f"{source} has no split {split!r}; it has {', '.join(splits)}: name one of them"
        )
    return splits[split]


def _shuffled(instances: Sequence[Instance], seed: int) -> Iterator[Instance]:
    """Yield the instances again and again, in another order each time."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        for index in torch.randperm(len(instances), generator=generator).tolist():
            yield instances[index]


def _batches(
    reader: PixelReader, instances: Iterable[Instance], batch_size: int
) -> Iterator[_Images]:
    """Decode images; those that cannot be read keep their position but make a batch smaller."""
    numbered = zip(count(), reader.read(instances))
    while batch := list(islice(numbered, batch_size)):
        read = [(number, entry.pixels) for number, entry in batch if entry.pixels is not None]
        if not read:
            first = batch[0][1]
            raise SeitError(
                f"none of {len(batch)} images can be read ({first.instance.key}: {first.reason}); "
                "pass the SRC that the store was made from"
            )
        pixels = torch.stack([torch.from_numpy(pixels).permute(2, 0, 1) for _, pixels in read])
        yield _Images(pixels, torch.tensor([number for number, _ in read]))


def _training_pairs(
    batches: Iterable[_Images], tokenizer: Tokenizer, config: TokenAdaptConfig
) -> Iterator[_Pairs]:
    for batch in batches:
        random = SampleRandom(config.seed, _TRAINING_EPOCH, batch.positions)
        yield _make_pairs(batch.pixels, random, tokenizer, config.geometry)


@torch.no_grad()
def _make_pairs(
    pixels: Tensor, random: SampleRandom, tokenizer: Tokenizer, geometry: Geometry
) -> _Pairs:
    """Tokenize images uint8 (B, 3, S, S), as they are and warped."""
    B, S = len(pixels), pixels.shape[-1]
    H, W = tokenizer.grid
    device = tokenizer.codebook.device
    warps = random_warps(random, (2 * H, 2 * W), geometry).to(device)
    pixels = pixels.to(device)
    warped = warp(pixels.float(), warps, (S, S)).round_().clamp_(0, 255).to(torch.uint8)
    both = torch.cat((pixels, warped)).permute(0, 2, 3, 1)
    tokens = tokenizer.encode(both)
    return _Pairs(tokens[:B], warps, tokens[B:], both[B:])


def _fit(
    network: TokenAdapt,
    pairs: Iterator[_Pairs],
    config: TokenAdaptConfig,
    progress: Progress | None,
) -> None:
    matrices = [entry for entry in network.parameters() if entry.ndim > 1]
    vectors = [entry for entry in network.parameters() if entry.ndim <= 1]
    groups: list[dict[str, Any]] = [
        {"params": matrices},
        {"params": vectors, "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=config.lr, weight_decay=config.weight_decay)
    network.train()
    for step in range(config.steps):
        for group in optimizer.param_groups:
            group["lr"] = _learning_rate(step, config)
        loss = _loss(network, next(pairs))
        latest = float(loss.detach())
        if not math.isfinite(latest):
            raise SeitError(
                f"the loss of TokenAdapt became {latest} at step {step}; lower lr and start again"
            )
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), _CLIP_GRAD)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if progress:
            progress(step + 1, config.steps, {"loss": latest})
    what = describe_ruin(network)
    if what is not None:
        raise SeitError(f"{what} after step {config.steps}; lower lr and start again")


def _learning_rate(step: int, config: TokenAdaptConfig) -> float:
    """Linear warm-up, then a cosine to 0."""
    warmup = min(config.warmup_steps, config.steps - 1)
    if step < warmup:
        return config.lr * (step + 1) / warmup
    return config.lr * (1 + math.cos(math.pi * (step - warmup) / (config.steps - warmup))) / 2


def _loss(network: TokenAdapt, pairs: _Pairs) -> Tensor:
    H, W = pairs.targets.shape[1:]
    device = pairs.targets.device.type
    with torch.autocast(device, dtype=torch.bfloat16, enabled=device == "cuda"):
        logits = network(pairs.tokens, pairs.warps, (H, W))
    return F.cross_entropy(logits.float(), pairs.targets)


@torch.no_grad()
def _evaluate(
    network: TokenAdapt, batches: Iterable[_Images], tokenizer: Tokenizer, config: TokenAdaptConfig
) -> tuple[dict[str, float], int]:
    """The figures of a result by name, and the number of images."""
    network.eval()
    sums: defaultdict[str, float] = defaultdict(float)
    images = 0
    for batch in batches:
        random = SampleRandom(config.seed, _EVALUATION_EPOCH, batch.positions)
        pairs = _make_pairs(batch.pixels, random, tokenizer, config.geometry)
        for name, value in _measure(network, pairs, tokenizer).items():
            sums[name] += len(pairs.tokens) * value
        images += len(pairs.tokens)
    return {name: total / images for name, total in sums.items()}, images


def _measure(network: TokenAdapt, pairs: _Pairs, tokenizer: Tokenizer) -> dict[str, float]:
    """The figures of one batch."""
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
    """The grid itself, warped: what TokenAdapt is measured against.

    Args:
        tokens: (B, H, W) int64.
        warps: (B, 2, 3), from :func:`seit.augment.random_warps`.
        size: (h, w).
        outside: the token where nothing is.

    Returns:
        (B, h, w) int64, each the token of the nearest cell.
    """
    # From 1 on, as a warp puts 0 outside; exact, as ids are below 2**24.
    places = (tokens[:, None] + 1).to(torch.float32)
    copied = warp(places, warps, size, mode="nearest")[:, 0].round().to(torch.int64) - 1
    return copied.where(copied >= 0, outside)
