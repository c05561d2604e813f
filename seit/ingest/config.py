"""Settings of a tokenize job."""

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

DEFAULT_SIZE = 256
MAX_SECONDS = 86_400


AUTO = "auto"
"""The name of no tokenizer: let the package choose one."""


@dataclass(frozen=True, kw_only=True)
class TokenizeConfig:
    """What a job does.

    Attributes:
        tokenizer: a name (`seit tokenizer list`), one that is shipped or is fitted on the corpus,
            or a file's path. `auto` is `conv-vq-f8-1024`, which is shipped, where that serves
            ``size`` and ``codes``, else `patch-pca-vq`, which is fitted.
        size: images are resized (shorter side) and centre-cropped to this many pixels; None for
            256, or what a tokenizer file was made for. Audio has none.
        codes: codebook size K of a tokenizer that is fitted.
        codec: how grids are coded: entropy coded, or at a fixed width. A store of more than 4,096
            codes, or that would not become smaller, is packed.
        container: what the shards are: WebDataset tars, or groups of Zarr v3 arrays.
        val_fraction: share of instances that go to `val` where SRC has no splits of its own.
        shard_samples: inputs per shard, a multiple of the 1,024 of a block.
        max_pixels: larger images are skipped as decompression bombs (width × height).
        max_seconds: longer audio is skipped.
        views: samples that an image of the training split makes: itself, and random crops of it.
        strict: stop at the first unreadable input instead of skipping it.
        workers: inputs that are decoded at a time; None for one a core. On a cluster, the actors;
            None for as many as it has room for.
        decoders: whether workers are threads or processes; auto takes processes from 5 on.
        device: where the tokenizer runs: cpu, cuda, cuda:1, mps or auto.
        compile: run the tokenizer through torch.compile, which may round differently: the ids of
            a few patches, and so the bytes of the store, may be others.
        engine: where shards are made: here, or in actors of a Ray cluster.
        ray_address: of the cluster ("auto", "host:port", "ray://…"); None for a cluster of this
            machine alone, which ends with the job.
        ray_cpus: cores of each actor.
        seed: of the tokenizer's fit.
        workdir: local folder in which a store is made that is then uploaded, for a STORE that is a
            URL; on a cluster, one that all nodes share.
        root: folder that a manifest's relative paths start from; None for the manifest's own.
        overwrite: replace a finished store, or an unfinished job of other settings, at STORE; an
            unfinished job of the same settings goes on.
        embed_tokenizer: copy the weights of a shipped tokenizer into the store, which otherwise
            refers to it by name and fingerprint.
        inputs: what files are made into; not for callers, `resolve_tokenizer` settles it.
    """

    tokenizer: str = AUTO
    size: int | None = None
    codes: int = 1024
    codec: Literal["context", "packed"] = "context"
    container: Literal["wds", "zarr"] = "wds"
    val_fraction: float = 0.1
    shard_samples: int = 8 * BLOCK_SAMPLES
    max_pixels: int = 178_956_970
    max_seconds: float = 600.0
    views: int = 1
    strict: bool = False
    workers: int | None = None
    decoders: Literal["auto", "threads", "processes"] = "auto"
    device: str = "cpu"
    compile: bool = False
    engine: Literal["local", "ray"] = "local"
    ray_address: str | None = None
    ray_cpus: int = 1
    seed: int = 0
    workdir: Path | None = None
    root: Path | None = None
    overwrite: bool = False
    embed_tokenizer: bool = False
    inputs: Inputs | None = None

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
        if not 0 < self.max_seconds <= MAX_SECONDS:
            raise UsageError(
                f"max_seconds is {self.max_seconds}; expected above 0, to {MAX_SECONDS}"
            )
        if not 1 <= self.views <= MAX_VIEWS:
            raise UsageError(f"views is {self.views}; expected 1 to {MAX_VIEWS}")
        if not 0 <= self.seed < 1 << 63:
            raise UsageError(f"seed is {self.seed}; it goes from 0 to 2^63 - 1")
        if self.workers is not None and self.workers < 1:
            raise UsageError(f"workers is {self.workers}; at least one is needed")
        if self.ray_cpus < 1:
            raise UsageError(f"ray_cpus is {self.ray_cpus}; an actor has at least one core")
        if self.ray_address is not None and self.engine != "ray":
            raise UsageError("a ray_address was given; it goes with --engine ray")
        if self.engine == "ray" and self.device not in ("cpu", "cuda", "auto"):
            raise UsageError(f"device is {self.device!r}; actors of Ray take cpu, cuda or auto")

    @property
    def modality(self) -> Modality:
        """Of the tokenizer, once that is settled."""
        assert self.inputs is not None, "resolve_tokenizer settles the inputs"
        return self.inputs.modality
