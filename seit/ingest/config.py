"""Settings of a tokenize job."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from seit.errors import UsageError
from seit.ingest.inputs.views import MAX_VIEWS
from seit.modality import Modality
from seit.shards import BLOCK_SAMPLES
from seit.tokenizers import (
    Inputs,
)

DEFAULT_SIZE, DEFAULT_CODES = 256, 1024
MAX_SECONDS = 86_400
_PART = re.compile(r"([0-9]{1,6})/([0-9]{1,6})")
MIN_FIT_SAMPLES, MAX_FIT_SAMPLES = 16, 1 << 20


AUTO = "auto"
"""Placeholder name that lets the package choose a tokenizer."""


@dataclass(frozen=True, kw_only=True)
class TokenizeConfig:
    """Settings of a tokenize job.

    Attributes:
        tokenizer: name of a shipped tokenizer or of one fitted on the corpus (`seit tokenizer
            list`), or path of a tokenizer file. `auto` picks the shipped `conv-vq-f8-1024-lite` if
            it supports ``size`` and ``codes``, else the fitted `patch-pca-vq`.
        size: pixels to which images are resized (shorter side) and center-cropped; None for 256, or
            the size of a tokenizer file. Not for audio.
        codes: codebook size K of a fitted tokenizer, 1,024 if None; others have their own.
        codec: coding of grids: entropy coded, or fixed width. A store with more than 4,096 codes,
            or that entropy coding would not shrink, is packed.
        container: WebDataset tars, or groups of Zarr v3 arrays.
        val_fraction: share of instances assigned to `val` if SRC has no splits of its own.
        shard_samples: inputs per shard, a multiple of the block size (1,024).
        max_pixels: limit (width × height) above which images are skipped as decompression bombs.
        max_seconds: limit above which audio is skipped.
        views: samples per image of the training split: the image itself, then random crops.
        plan: list the whole corpus first, or work in pieces: one tar, Parquet row group, range
            of a table or share of some folders at a time, with no listing in memory.
        classes: file with the classes, one a line, in the order of their labels; for pieces.
        fit_samples: inputs that the codec is fitted to before a job in pieces begins; None for as
            many as have 2^23 tokens, such as 8,192 images of 32×32.
        mixed_processors: whether a job in pieces may run on different kinds of processors, which
            may round differently.
        part: share of the pieces that this process makes, such as 3/100, counted from 0, so that
            many processes on many machines can share a job; None for all.
        strict: stop at the first unreadable input instead of skipping it.
        workers: inputs decoded in parallel; None for one per core. On a cluster, the number of
            actors; None for as many as fit.
        decoders: threads or processes as workers; auto uses processes from 5 workers on.
        device: device of the tokenizer: cpu, cuda, cuda:1, mps or auto.
        compile: run the tokenizer through torch.compile, which may round differently and so change
            the ids of a few patches and the bytes of the store.
        engine: make shards in this process or in actors of a Ray cluster.
        ray_address: address of the cluster ("auto", "host:port", "ray://…"); None to start one.
        ray_cpus: cores per actor.
        ray_encoders: actors that only encode, each on a GPU if the cluster has any; the others
            then need none. 0 to encode where inputs are decoded.
        seed: seed of the tokenizer's fit.
        label_separator: text between the labels of an instance, in a table's column ``labels`` or
            ``label``; None for ``|`` in ``labels``, and single labels in ``label``.
        workdir: local build folder if STORE is a URL; on a cluster, shared by all nodes.
        root: base folder of a manifest's relative paths; None for the manifest's own.
        overwrite: replace a finished store, or an unfinished job with other settings, at STORE; an
            unfinished job with the same settings resumes. A finished store in a folder stays until
            the new one is whole.
        embed_tokenizer: copy the weights of a shipped tokenizer into the store instead of referring
            to it by name and fingerprint.
        backbone: folder of the speech model of a tokenizer of units, such as `hf:models/hubert`.
        download: whether a name on the hub may be downloaded as ``backbone``.
        inputs: format of the tokenizer's inputs; set by `resolve_tokenizer`, not by callers.
    """

    tokenizer: str = AUTO
    size: int | None = None
    codes: int | None = None
    codec: Literal["context", "packed"] = "context"
    container: Literal["wds", "zarr"] = "wds"
    val_fraction: float = 0.1
    shard_samples: int = 8 * BLOCK_SAMPLES
    max_pixels: int = 178_956_970
    max_seconds: float = 600.0
    views: int = 1
    plan: Literal["listing", "pieces"] = "listing"
    classes: Path | None = None
    fit_samples: int | None = None
    mixed_processors: bool = False
    part: str | None = None
    strict: bool = False
    workers: int | None = None
    decoders: Literal["auto", "threads", "processes"] = "auto"
    device: str = "cpu"
    compile: bool = False
    engine: Literal["local", "ray"] = "local"
    ray_address: str | None = None
    ray_cpus: int = 1
    ray_encoders: int = 0
    seed: int = 0
    label_separator: str | None = None
    workdir: Path | None = None
    root: Path | None = None
    overwrite: bool = False
    embed_tokenizer: bool = False
    backbone: str | None = None
    download: bool = False
    inputs: Inputs | None = None

    def __post_init__(self) -> None:
        if self.size is not None and not 8 <= self.size <= 4096:
            raise UsageError(f"size is {self.size}; expected 8 to 4096 pixels")
        if self.codes is not None and not 2 <= self.codes <= 65_536:
            raise UsageError(f"codes is {self.codes}; expected 2 to 65,536")
        if self.shard_samples < 1 or self.shard_samples % BLOCK_SAMPLES:
            raise UsageError(
                f"shard_samples is {self.shard_samples}; it must be a multiple of {BLOCK_SAMPLES}"
            )
        if not 0 <= self.val_fraction < 1:
            raise UsageError(f"val_fraction is {self.val_fraction}; expected 0 to below 1")
        if self.max_pixels < 1:
            raise UsageError(f"max_pixels is {self.max_pixels}; expected at least 1")
        if not 0 < self.max_seconds <= MAX_SECONDS:
            raise UsageError(
                f"max_seconds is {self.max_seconds}; expected above 0, to {MAX_SECONDS}"
            )
        if not 1 <= self.views <= MAX_VIEWS:
            raise UsageError(f"views is {self.views}; expected 1 to {MAX_VIEWS}")
        if self.label_separator == "":
            raise UsageError(
                "label_separator is empty; expected the text between labels, such as |"
            )
        if not 0 <= self.seed < 1 << 63:
            raise UsageError(f"seed is {self.seed}; expected 0 to 2^63 - 1")
        if self.workers is not None and self.workers < 1:
            raise UsageError(f"workers is {self.workers}; expected at least 1")
        count = MIN_FIT_SAMPLES if self.fit_samples is None else self.fit_samples
        if not MIN_FIT_SAMPLES <= count <= MAX_FIT_SAMPLES:
            raise UsageError(
                f"fit_samples is {self.fit_samples}; expected {MIN_FIT_SAMPLES} to "
                f"{MAX_FIT_SAMPLES:,}"
            )
        if self.plan == "pieces":
            self._check_pieces()
        for name in ("classes", "mixed_processors", "part", "fit_samples"):
            if getattr(self, name) and self.plan != "pieces":
                raise UsageError(f"{name} is set; it needs --plan pieces")
        if self.ray_cpus < 1:
            raise UsageError(f"ray_cpus is {self.ray_cpus}; expected at least 1")
        if self.ray_encoders < 0:
            raise UsageError(f"ray_encoders is {self.ray_encoders}; expected 0 or more")
        for name in ("ray_address", "ray_cpus", "ray_encoders"):
            is_set = getattr(self, name) != getattr(type(self), name)
            if is_set and self.engine != "ray":
                raise UsageError(f"{name} is set; it needs --engine ray")
        if self.engine == "ray" and self.device not in ("cpu", "cuda", "auto"):
            raise UsageError(f"device is {self.device!r}; actors of Ray take cpu, cuda or auto")

    def _check_pieces(self) -> None:
        if self.container != "wds":
            raise UsageError(
                f"container is {self.container!r}; pieces are written as wds: convert the store "
                "afterwards with `seit convert --container zarr`"
            )
        if self.views > 1:
            raise UsageError(f"views is {self.views}; pieces have one: leave --plan pieces out")
        if self.workdir is not None:
            raise UsageError(
                "workdir is set; pieces are written to STORE directly, so leave it out"
            )
        if self.part is not None:
            self._check_part(self.part)

    def _check_part(self, part: str) -> None:
        found = _PART.fullmatch(part)
        if found is None or int(found[1]) >= int(found[2]):
            raise UsageError(
                f"part is {part!r}; expected a number and a count, from 0/100 to 99/100"
            )
        if self.overwrite or self.engine != "local":
            other = "overwrite" if self.overwrite else "engine ray"
            raise UsageError(f"part is set with {other}; leave one of them out")

    @property
    def share(self) -> tuple[int, int]:
        """Number of this process's part of the pieces, and count of parts."""
        number, _, count = (self.part or "0/1").partition("/")
        return int(number), int(count)

    @property
    def fitted_codes(self) -> int:
        """Codebook size K of a tokenizer that is fitted."""
        return DEFAULT_CODES if self.codes is None else self.codes

    @property
    def modality(self) -> Modality:
        """Modality of the resolved tokenizer."""
        assert self.inputs is not None, "resolve_tokenizer settles the inputs"
        return self.inputs.modality
