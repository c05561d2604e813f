"""Training of TokenAdapt for a store, on tokens of images before and after a warp.

Legend: B batch.
"""

import logging
import math
import shutil
import time
from collections import defaultdict
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import override

from seit.augment import Geometry, SampleRandom
from seit.devices import choose_device
from seit.documents import as_record
from seit.errors import UsageError
from seit.files import check_new_file
from seit.ingest import Instance, PixelReader, kept_splits, list_corpus, recorded
from seit.models import TokenAdapt, save_tokenadapt
from seit.progress import Progress
from seit.shards import Store, as_store
from seit.tokenizer_training.base import BaseConfig, BaseLoop, entered
from seit.tokenizer_training.pairs import (
    Images,
    make_pairs,
    measure_pairs,
    read_batches,
    shuffled,
)
from seit.tokenizers import ImageTokenizer
from seit.training import Run, TrainState, set_learning_rate

_LOG = logging.getLogger(__name__)
_TRAINING_EPOCH, _EVALUATION_EPOCH = 0, 1
_RUN_SUFFIX = ".run"


@dataclass(frozen=True, kw_only=True)
class TokenAdaptConfig(BaseConfig):
    """Settings in addition to `BaseConfig`; the paper specifies the widths alone.

    Attributes:
        dim: model dim of both networks, a multiple of 4 and of `num_heads`.
        num_heads: attention heads.
        geometry: warps to learn.
        weight_decay: decoupled weight decay of matrices.
        train_split: split for training.
        val_split: split for evaluation.
        val_images: maximum number of images for evaluation.

    Raises:
        UsageError: a value is out of range.
    """

    batch_size: int = 64
    warmup_steps: int = 500
    dim: int = 384
    num_heads: int = 6
    geometry: Geometry = field(default_factory=Geometry)
    weight_decay: float = 0.05
    train_split: str = "train"
    val_split: str = "val"
    val_images: int = 512

    def __post_init__(self) -> None:
        for name in ("batch_size", "steps", "val_images", "checkpoint_every", "log_every"):
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
    """Result of a training, on held-out images.

    The copy baseline warps the grid itself: each cell has the token of the nearest one, or that of
    black outside the image.

    Attributes:
        loss: mean cross-entropy of a token, in nats.
        accuracy: share of tokens equal to the tokenizer's own of the warped image, 0–1.
        copy_accuracy: accuracy of copying.
        psnr_db: PSNR of the decoded tokens to the warped image, mean over images, in dB.
        copy_psnr_db: PSNR of copying.
        best_psnr_db: PSNR of the tokenizer's own tokens of the warped image.
        images: number of evaluated images.
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


def train_tokenadapt(
    store: Store | str | Path,
    source: str | Path,
    config: TokenAdaptConfig,
    out: str | Path,
    *,
    root: Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> TokenAdaptResult:
    """Train TokenAdapt on the images that a store was made from, and save it.

    Each image is tokenized twice, original and warped in pixels, and the network learns by
    cross-entropy to predict the second grid from the first and the warp. The paper's training code
    was never published; pairs and loss follow its description. Equal arguments give equal weights
    on the same CPU, even after an interruption. The run folder is next to ``out``, with the suffix
    `.run`.

    Args:
        store: store, open or by path.
        source: SRC, the images that it was made from.
        config: settings.
        out: output file, for ``augment.token_adapt``.
        root: base folder of a manifest's relative paths; None for the manifest's own.
        resume: resume an existing training, if any; returns the result of a finished one.
        overwrite: replace ``out`` and its run if they exist.
        progress: callback after each step.

    Raises:
        UsageError: settings, store and SRC do not fit together; nothing was written.
        SeitError: the loss became non-finite, or the file cannot be written.
        KeyboardInterrupt: on SIGINT or SIGTERM, after the current step and a checkpoint.
    """
    started = time.perf_counter()
    out = Path(out)
    folder = out.with_name(out.name + _RUN_SUFFIX)
    store = as_store(store)
    if not (resume and Run.exists(folder)):
        check_new_file(out, overwrite=overwrite)
    device = choose_device(config.device)
    tokenizer = store.load_tokenizer().to(device)
    if not isinstance(tokenizer, ImageTokenizer):
        raise UsageError(f"{store.folder} was made of audio; TokenAdapt learns from images")
    torch.manual_seed(config.seed)
    network = TokenAdapt(tokenizer.codebook, dim=config.dim, num_heads=config.num_heads).to(device)
    _LOG.info("listing %s", source)
    fingerprint, training, held_out = _list(store, source, config, root=root)
    with entered(
        folder,
        config,
        store,
        resume=resume,
        begins={"source": fingerprint},
        prepare=lambda: _clear(folder) if overwrite and not resume else None,
    ) as run:
        if run.info["status"] != "finished" or not out.is_file():
            limit = int(recorded(store.card, "max_pixels"))
            loop = TokenAdaptLoop(
                network, tokenizer, training, config, device, run, progress, max_pixels=limit
            )
            loop.finish()
            figures = loop.measure(held_out)
            loop.check_figures(figures)
            save_tokenadapt(network, out, fingerprint=tokenizer.fingerprint)
            loop.leave(figures, title="Training of TokenAdapt")
        result = {**run.info["result"], "seconds": time.perf_counter() - started}
    return as_record(result, TokenAdaptResult, origin=f"the result in {folder}")


def _list(
    store: Store, source: str | Path, config: TokenAdaptConfig, *, root: Path | None
) -> tuple[str, Sequence[Instance], Sequence[Instance]]:
    """Return the fingerprint of the inputs, and the shuffled instances of both splits."""
    corpus = list_corpus(
        source,
        val_fraction=recorded(store.card, "val_fraction"),
        root=root,
        kept_splits=kept_splits(store),
    )
    splits = corpus.by_split()
    for split in (config.train_split, config.val_split):
        if split not in splits:
            raise UsageError(
                f"{source} has no split {split!r}; it has {', '.join(splits)}: name one of them"
            )
    held_out = splits[config.val_split][: config.val_images]
    return corpus.fingerprint, splits[config.train_split], held_out


def _clear(folder: Path) -> None:
    """Remove an earlier run."""
    if Run.exists(folder):
        shutil.rmtree(folder)


class TokenAdaptLoop(BaseLoop[Images]):
    """One call of :func:`train_tokenadapt`; network and tokenizer are on ``device``."""

    def __init__(
        self,
        network: TokenAdapt,
        tokenizer: ImageTokenizer,
        training: Sequence[Instance],
        config: TokenAdaptConfig,
        device: torch.device,
        run: Run,
        progress: Progress | None,
        *,
        max_pixels: int,
    ) -> None:
        super().__init__(config, run, device, progress)
        self.config = config
        self.network = network
        self.tokenizer = tokenizer
        self.training = training
        matrices = [one for one in network.parameters() if one.ndim > 1]
        vectors = [one for one in network.parameters() if one.ndim <= 1]
        groups: list[dict[str, Any]] = [
            {"params": matrices},
            {"params": vectors, "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(groups, lr=config.lr, weight_decay=config.weight_decay)
        self.state = TrainState(network, None, self.optimizer, also=(self.journal,))
        self.max_pixels = max_pixels

    @override
    def begin(self, *, resumed: bool) -> None:
        _LOG.info(
            "training TokenAdapt on %s images: %s steps of %d on %s",
            f"{len(self.training):,}",
            f"{self.total:,}",
            self.batch_size,
            self.device,
        )
        self.network.train()

    @override
    def batches(self, step: int) -> Generator[Images]:
        with self._reader() as reader:
            instances = shuffled(self.training, self.config.seed)
            yield from read_batches(reader, instances, self.batch_size, start=step)

    @override
    def take(self, step: int, batch: Images) -> Tensor:
        set_learning_rate(self.optimizer, self.rate(step))
        random = SampleRandom(self.config.seed, _TRAINING_EPOCH, batch.positions)
        pairs = make_pairs(batch.pixels, random, self.tokenizer, self.config.geometry)
        device = self.device.type
        with torch.autocast(device, dtype=torch.bfloat16, enabled=device == "cuda"):
            logits = self.network(pairs.tokens, pairs.warps, self.tokenizer.grid)
        loss = F.cross_entropy(logits.float(), pairs.targets)
        self.update.backward(loss)
        self.update.take(self.network, self.optimizer)
        return loss.detach()[None]

    @override
    def inputs(self, step: int) -> tuple[Mapping[str, Tensor], Sequence[str]]:
        batch = next(self.batches(step))
        return {"inputs": batch.pixels, "positions": batch.positions}, batch.keys

    @override
    def networks(self) -> Sequence[nn.Module | None]:
        return (self.network,)

    @torch.no_grad()
    def measure(self, held_out: Sequence[Instance]) -> dict[str, float]:
        """Return the figures of a result by name, with ``images``, the number of images.

        Raises:
            SeitError: no image is readable.
        """
        self.network.eval()
        sums: defaultdict[str, float] = defaultdict(float)
        images = 0
        with self._reader() as reader:
            for batch in read_batches(reader, held_out, self.batch_size, skips_empty=True):
                random = SampleRandom(self.config.seed, _EVALUATION_EPOCH, batch.positions)
                pairs = make_pairs(batch.pixels, random, self.tokenizer, self.config.geometry)
                for name, value in measure_pairs(self.network, pairs, self.tokenizer).items():
                    sums[name] += len(pairs.tokens) * value
                images += len(pairs.tokens)
        return {name: total / images for name, total in sums.items()} | {"images": images}

    def _reader(self) -> PixelReader:
        return PixelReader(size=self.tokenizer.image_size, max_pixels=self.max_pixels)
