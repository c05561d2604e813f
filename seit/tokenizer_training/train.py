"""Training of a tokenizer: corpora, initialization, run folder and result."""

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from seit.config import build
from seit.devices import choose_device
from seit.documents import as_record, read_json
from seit.errors import DamagedError, UsageError
from seit.ingest import Corpus, Instance, list_corpus
from seit.modality import Modality
from seit.progress import Progress
from seit.tokenizer_training.base import entered
from seit.tokenizer_training.config import TokenizerConfig
from seit.tokenizer_training.domains import make_domain
from seit.tokenizer_training.loop import TokenizerLoop
from seit.tokenizer_training.model import Model
from seit.tokenizers import (
    ConvTokenizer,
    LearnedTokenizer,
    MelConvTokenizer,
    load_tokenizer,
    open_tokenizer,
    save_tokenizer,
)
from seit.training import MAX_RECORD_BYTES, TOKENIZER_NAME, Inputs, Run

_LOG = logging.getLogger(__name__)
_EARLIER_CONFIG, _EARLIER_RESULT = "config.json", "eval.json"
"""Files of a training by an earlier version, instead of `config.yaml` and `run.json`."""
_ENCODER_SIZE = ("encoder_width", "encoder_blocks")


@dataclass(frozen=True)
class TokenizerResult:
    """Result of a training.

    Attributes:
        file: file of the tokenizer.
        fingerprint: its fingerprint.
        steps: total number of steps.
        psnr_db: PSNR on held-out images, in dB; for audio, of log-mel levels.
        ssim: SSIM on held-out images; None for audio.
        codebook_usage: fraction of the codes used on held-out data, 0–1.
        seconds: duration of this call.
        warnings: warnings about the corpus, one line each.
    """

    file: str
    fingerprint: str
    steps: int
    psnr_db: float
    ssim: float | None
    codebook_usage: float
    seconds: float
    warnings: tuple[str, ...] = ()


def train_tokenizer(
    source: str | Path | Sequence[str | Path],
    config: TokenizerConfig,
    out: str | Path,
    *,
    resume: bool = False,
    init_from: str | Path | None = None,
    progress: Progress | None = None,
) -> TokenizerResult:
    """Train a `conv-vq` tokenizer, or `mel-conv` for audio, and write a run folder to ``out``.

    Args:
        source: source as in `seit tokenize`; several are joined.
        config: settings.
        out: new folder, which gets `tokenizer.safetensors`; or with ``resume`` that of an
            interrupted or finished training.
        resume: resume an existing training.
        init_from: learned tokenizer, by name or file, with the initial network and codes, instead
            of principal components and k-means centers. With ``config.distill_steps`` its encoder
            may be of another size.
        progress: callback after each step.

    Equal arguments give equal weights on the same CPU with the same number of threads, even after
    an interruption. A finished training is not repeated: its result is returned. Codes are numbered
    by frequency in the inputs.

    Raises:
        UsageError: settings, corpora and folder do not fit together; nothing was changed.
        SeitError: the loss became non-finite, or a file cannot be written.
        KeyboardInterrupt: on SIGINT or SIGTERM, after the current step and a checkpoint.
    """
    started = time.perf_counter()
    out = Path(out)
    sources = [source] if isinstance(source, str | Path) else list(source)
    modality: Modality = "image" if config.mel is None else "audio"
    names = ", ".join(map(str, sources))
    _LOG.info("listing %s", names)
    corpora = [list_corpus(one, modality=modality) for one in sources]
    _, num_classes = _join(corpora)
    if config.classes and not num_classes:
        raise UsageError(f"classes is above 0 but no {modality} has a label; set it to 0")
    if config.distill_steps and init_from is None:
        raise UsageError("distill_steps is above 0; name a tokenizer to learn from by --init-from")
    origin = _open_origin(init_from, config) if init_from is not None else None
    inputs = Inputs(names, _identity([corpus.fingerprint for corpus in corpora]), ())
    begins = {"init_from": None if origin is None else origin.fingerprint}
    with entered(
        out, config, inputs, resume=resume, begins=begins, prepare=lambda: _adopt(out, resume)
    ) as run:
        if run.info["status"] != "finished" or not (out / TOKENIZER_NAME).is_file():
            _train(corpora, config, run, progress, origin)
    warnings = tuple(text for corpus in corpora for text in corpus.warnings)
    return _result(run, time.perf_counter() - started, warnings)


def _train(
    corpora: Sequence[Corpus],
    config: TokenizerConfig,
    run: Run,
    progress: Progress | None,
    origin: LearnedTokenizer | None,
) -> None:
    """Take the remaining steps, write the tokenizer and measure it."""
    device = choose_device(config.device)
    instances, num_classes = _join(corpora)
    train = instances.get("train") or next(iter(instances.values()))
    torch.manual_seed(config.seed)
    domain = make_domain(train, config, run.path)
    loop = TokenizerLoop(config, domain, num_classes, device, run, progress, origin)
    loop.finish()
    tokenizer = loop.tokenizer()
    save_tokenizer(tokenizer, run.path / TOKENIZER_NAME)
    held_out = instances.get("val") or train
    _LOG.info("measuring the tokenizer on %s held-out files", f"{len(held_out):,}")
    figures = domain.measure(tokenizer.to(device), held_out)
    result = {
        "fingerprint": tokenizer.fingerprint,
        "steps": config.steps,
        "split": "val" if "val" in instances else "train",
        **figures,
    }
    loop.leave(result, title=f"Training of a {tokenizer.name} tokenizer")


def _open_origin(name: str | Path, config: TokenizerConfig) -> LearnedTokenizer:
    """Open the initial tokenizer; raise UsageError if its kind or shape differs from the config."""
    found = open_tokenizer(str(name))
    kind = ConvTokenizer if config.mel is None else MelConvTokenizer
    if not isinstance(found, kind):
        raise UsageError(
            f"{name} is a {found.name} tokenizer; a training with these settings starts from a "
            f"{kind.name} one"
        )
    model = Model(replace(config, classes=0.0), num_classes=0)
    wanted = {
        **model.network.config.to_json(),
        **model.quantizer.bound.to_json(),
        "codebook": list(model.quantizer.codebook().shape),
    }
    settings = found.settings()
    given = {
        **settings.pop("network"),
        **{key: settings[key] for key in model.quantizer.bound.to_json() if key in settings},
        "codebook": list(found.codebook.shape),
    }
    if config.distill_steps:
        wanted = {name: value for name, value in wanted.items() if name not in _ENCODER_SIZE}
    differences = [
        f"its {key} is {given.get(key)!r}, not {value!r}"
        for key, value in wanted.items()
        if given.get(key) != value
    ]
    if differences:
        raise UsageError(
            f"{name} does not fit the settings: {'; '.join(differences)}; change them to its own"
        )
    return found


def _join(corpora: Sequence[Corpus]) -> tuple[dict[str, list[Instance]], int]:
    """Join the instances of all corpora by split, renumbering classes, and count the classes."""
    joined: dict[str, list[Instance]] = {}
    num_classes = 0
    for corpus in corpora:
        for split, instances in corpus.by_split().items():
            joined.setdefault(split, []).extend(
                replace(one, label=one.label + num_classes) if one.label >= 0 else one
                for one in instances
            )
        num_classes += len(corpus.classes)
    return joined, num_classes


def _identity(fingerprints: Sequence[str]) -> str:
    return "+".join(fingerprints)


def _adopt(path: Path, resume: bool) -> None:
    """Convert an earlier version's folder to a run folder; raise DamagedError if damaged."""
    if not resume or Run.exists(path) or not (path / _EARLIER_CONFIG).is_file():
        return

    def read(name: str) -> Mapping[str, Any]:
        found: dict[str, Any] = read_json(path / name, dict, max_bytes=MAX_RECORD_BYTES)
        return found

    begun, run = read(_EARLIER_CONFIG), Run(path)
    origin = f"the settings in {path / _EARLIER_CONFIG}"
    saved = as_record(begun.get("settings"), dict[str, Any], origin=origin)
    corpora = as_record(begun.get("corpora"), list[str], origin=origin)
    info = {
        "status": "started",
        "kind": "tokenizer",
        "identity": {"store": _identity(corpora), "classes": []},
        "init_from": begun.get("init_from"),
    }
    if (path / _EARLIER_RESULT).is_file():
        info |= {"status": "finished", "result": read(_EARLIER_RESULT)}
    run.write_info(info)
    run.write_config(build(TokenizerConfig, saved, origin=origin))
    for name in (_EARLIER_CONFIG, _EARLIER_RESULT):
        (path / name).unlink(missing_ok=True)


def _result(run: Run, seconds: float, warnings: tuple[str, ...]) -> TokenizerResult:
    """Read the result of a finished training; raise DamagedError if its tokenizer differs."""
    path = run.path / TOKENIZER_NAME
    figures = run.info["result"]
    if figures.get("fingerprint") != load_tokenizer(path).fingerprint:
        raise DamagedError(f"{path} is not what {run.path} came to; train it again")
    shared = {"file": str(path), "seconds": seconds, "warnings": warnings, "ssim": None}
    names = ("fingerprint", "steps", "psnr_db", "ssim", "codebook_usage")
    found = {name: figures[name] for name in names if name in figures}
    return as_record(shared | found, TokenizerResult, origin=f"the result in {run.path}")
