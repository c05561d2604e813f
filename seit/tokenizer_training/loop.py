"""The loop that trains a learned tokenizer."""

import logging
import math
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from typing_extensions import override

from seit.devices import choose_device
from seit.errors import DamagedError, SeitError, UsageError
from seit.ingest import Corpus, Instance, list_corpus
from seit.locks import locked_folder
from seit.modality import Modality
from seit.models import count_parameters
from seit.progress import Progress
from seit.tokenizer_training.adversary import Adversary
from seit.tokenizer_training.config import TokenizerConfig
from seit.tokenizer_training.domains import Batch, Domain, make_domain
from seit.tokenizer_training.folder import TrainingFolder
from seit.tokenizer_training.losses import reconstruction
from seit.tokenizer_training.model import Model
from seit.tokenizers import (
    Autoencoder,
    ConvTokenizer,
    LearnedTokenizer,
    MelConvTokenizer,
    load_tokenizer,
    open_tokenizer,
    save_tokenizer,
    unfold,
)
from seit.training import (
    TrainState,
    describe_figures,
    describe_ruin,
    list_checkpoints,
    load_checkpoint,
    save_checkpoint,
)

_LOG = logging.getLogger(__name__)
_START_BATCHES = 64
_START_PATCHES = 131_072
_LOG_EVERY = 50
_CLIP_GRAD = 1.0
_ADVERSARY = "adversary."


@dataclass(frozen=True)
class TokenizerResult:
    """What a training came to.

    Attributes:
        file: the tokenizer.
        fingerprint: of it.
        steps: in all.
        psnr_db: on held-out images, in dB; of audio, of its log-mel levels.
        ssim: on held-out images; None for audio.
        codebook_usage: fraction of the codes that occur there, 0–1.
        seconds: duration of this call.
        warnings: about the corpus, one line each.
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
    """Train a `conv-vq` or, of audio, a `mel-conv` tokenizer and leave it in the folder ``out``.

    Args:
        source: what `seit tokenize` takes; several are joined.
        config: the settings.
        out: a new folder, or with ``resume`` that of an interrupted or finished training.
        resume: go on with what is there.
        init_from: a learned tokenizer, by name or file, whose network and codes to start from
            instead of principal components and k-means centres.
        progress: called after each step.

    Equal arguments give equal weights on the same CPU with the same number of threads, also when
    the training was interrupted and resumed. A finished one is not repeated: its result is
    returned. The codes of the file are numbered by how often inputs use them.

    Raises:
        UsageError: settings, corpora and folder do not fit together; nothing was changed.
        SeitError: the loss is not finite any more, or a file cannot be written.
    """
    started = time.perf_counter()
    sources = [source] if isinstance(source, str | Path) else list(source)
    modality: Modality = "image" if config.mel is None else "audio"
    _LOG.info("listing %s", ", ".join(map(str, sources)))
    corpora = [list_corpus(one, modality=modality) for one in sources]
    _, num_classes = _join(corpora)
    if config.classes and not num_classes:
        raise UsageError(f"classes is above 0 but no {modality} has a label; set it to 0")
    origin = _open_origin(init_from, config) if init_from is not None else None
    begins: dict[str, Any] = {"corpora": [corpus.fingerprint for corpus in corpora]}
    if origin is not None:
        begins |= {"init_from": origin.fingerprint, "init_from_name": str(init_from)}
    with locked_folder(Path(out)):
        is_new = not TrainingFolder.exists(out)
        folder = TrainingFolder.enter(out, config, begins, resume=resume)
        try:
            if folder.evaluation is None:
                _train(corpora, config, folder, progress, origin)
        except UsageError:
            if is_new:
                folder.withdraw()
            raise
    warnings = tuple(text for corpus in corpora for text in corpus.warnings)
    return _result(folder, time.perf_counter() - started, warnings)


def _train(
    corpora: Sequence[Corpus],
    config: TokenizerConfig,
    folder: TrainingFolder,
    progress: Progress | None,
    origin: LearnedTokenizer | None,
) -> None:
    """Take the steps that are left, write the tokenizer and measure it."""
    device = choose_device(config.device)
    instances, num_classes = _join(corpora)
    train = instances.get("train") or next(iter(instances.values()))
    torch.manual_seed(config.seed)
    domain = make_domain(train, config, folder)
    training = _Training(config, domain, num_classes, device, folder, progress, origin)
    tokenizer = training.finish().to(device)
    held_out = instances.get("val") or train
    _LOG.info("measuring the tokenizer on %s held-out files", f"{len(held_out):,}")
    figures = domain.measure(tokenizer, held_out)
    what = describe_figures({key: one for key, one in figures.items() if one is not None})
    if what is not None:
        raise SeitError(f"{what}; lower lr and start again")
    folder.write_evaluation(
        {
            "fingerprint": tokenizer.fingerprint,
            "steps": config.steps,
            "split": "val" if "val" in instances else "train",
            **figures,
        }
    )


def _open_origin(name: str | Path, config: TokenizerConfig) -> LearnedTokenizer:
    """The tokenizer to start from.

    Raises:
        UsageError: it is not what a training with this config makes.
    """
    found = open_tokenizer(str(name))
    kind = ConvTokenizer if config.mel is None else MelConvTokenizer
    if not isinstance(found, kind):
        raise UsageError(
            f"{name} is a {found.name} tokenizer; a training with these settings starts from a "
            f"{kind.name} one"
        )
    model = Model(config, num_classes=0)
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
    """The instances of all corpora by split, their classes numbered on, and how many those are."""
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


def _result(folder: TrainingFolder, seconds: float, warnings: tuple[str, ...]) -> TokenizerResult:
    evaluation = folder.evaluation
    assert evaluation is not None, "the training has finished"
    fingerprint = load_tokenizer(folder.weights).fingerprint
    if evaluation.get("fingerprint") != fingerprint:
        raise DamagedError(f"{folder.weights} is not what {folder.path} came to; train it again")
    return TokenizerResult(
        file=str(folder.weights),
        fingerprint=fingerprint,
        steps=evaluation["steps"],
        psnr_db=evaluation["psnr_db"],
        ssim=evaluation.get("ssim"),
        codebook_usage=evaluation["codebook_usage"],
        seconds=seconds,
        warnings=warnings,
    )


@dataclass(frozen=True)
class _State(TrainState):
    """Also the adversary's, where there is one."""

    adversary: Adversary | None

    @override
    def tensors(self) -> dict[str, Tensor]:
        tensors = super().tensors()
        for key, value in (self.adversary.tensors() if self.adversary else {}).items():
            tensors[f"{_ADVERSARY}{key}"] = value.detach().cpu().contiguous()
        return tensors

    @override
    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        super().restore(tensors)
        if self.adversary:
            self.adversary.restore(
                {
                    key.removeprefix(_ADVERSARY): value
                    for key, value in tensors.items()
                    if key.startswith(_ADVERSARY)
                }
            )


class _Training:
    """The state of one call of :func:`train_tokenizer`."""

    def __init__(
        self,
        config: TokenizerConfig,
        domain: Domain,
        num_classes: int,
        device: torch.device,
        folder: TrainingFolder,
        progress: Progress | None,
        origin: LearnedTokenizer | None,
    ) -> None:
        self.config = config
        self.origin = origin
        self.domain = domain
        self.device = device
        self.folder = folder
        self.progress = progress
        self.model = Model(config, num_classes=num_classes).to(device)
        planes = self.model.network.config.planes
        self.adversary = Adversary(config, planes, device) if config.adversarial else None
        self.figures: dict[str, float] = {}

    def finish(self) -> LearnedTokenizer:
        """Take the steps that are left, and write the tokenizer's file."""
        found = list_checkpoints(self.folder.checkpoints)
        if not found:
            self._start()
        config, model = self.config, self.model
        self.average = AveragedModel(model.network, multi_avg_fn=get_ema_multi_avg_fn(config.ema))
        self.optimizer = torch.optim.AdamW(
            model.parameters(), lr=config.lr, betas=(0.9, 0.99), weight_decay=0.0
        )
        state = _State(model, self.average, self.optimizer, self.adversary)
        step = load_checkpoint(found[-1], state) if found else 0
        self.folder.rewind_metrics(step)
        if step:
            _LOG.info("resuming after step %s of %s", f"{step:,}", f"{config.steps:,}")
        _LOG.info(
            "training a tokenizer of %s codes, %s parameters: %s steps of %d crops on %s",
            f"{config.num_codes:,}",
            f"{count_parameters(model):,}",
            f"{config.steps:,}",
            config.batch_size,
            self.device,
        )
        model.train()
        self._run(step, state)
        return self._export()

    @torch.no_grad()
    def _start(self) -> None:
        """Set network and codes to the origin's, or to components and centres of patches."""
        if self.origin is not None:
            self.model.network.load_state_dict(self.origin.network_weights())
            self.model.quantizer.restore(self.origin.codebook)
            return
        _LOG.info("fitting the first codes to patches of %d batches", _START_BATCHES)
        batches, cpu = self.domain.batches, torch.device("cpu")
        planes = [batches.batch(-1 - i & 0xFFFFFFFF).planes(cpu) for i in range(_START_BATCHES)]
        network = self.model.network
        patches = unfold(torch.cat(planes), *network.config.patch)
        patches_ND = patches.permute(0, 2, 3, 1).flatten(0, 2)[:_START_PATCHES]
        latents_NC = network.cpu().start_from_patches(patches_ND, whitening=self.config.whitening)
        self.model.quantizer.cpu().start(latents_NC, seed=self.config.seed)
        self.model.to(self.device)

    def _run(self, step: int, state: _State) -> None:
        config = self.config
        mark, since = time.perf_counter(), step
        sums: defaultdict[str, float] = defaultdict(float)
        for batch in self.domain.batches.batches(step, config.steps):
            for name, figure in self._step(step, batch).items():
                sums[name] += figure
            step += 1
            saves = step % config.checkpoint_every == 0 or step == config.steps
            if saves or not step % _LOG_EVERY:
                _check_finite(sums["loss"], step)
            if step % _LOG_EVERY == 0 or step == config.steps:
                seconds, count = time.perf_counter() - mark, step - since
                self.figures = {name: total / count for name, total in sums.items()}
                self.figures["crops_per_second"] = count * config.batch_size / seconds
                self.folder.append_metrics({"step": step, **self.figures})
                sums.clear()
                mark, since = time.perf_counter(), step
            if saves:
                self._check_weights(step)
                save_checkpoint(self.folder.checkpoints, step, state)
            if self.progress:
                self.progress(step, config.steps, self.figures)

    def _check_weights(self, step: int) -> None:
        what = describe_ruin(self.model, self.average)
        if what is not None:
            raise SeitError(f"{what} after step {step}; lower lr and start again")

    def _step(self, step: int, batch: Batch) -> dict[str, float]:
        """Take one step; returns its figures."""
        lr = _learning_rate(step, self.config)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        planes = batch.planes(self.device)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            rebuilt = self.model(planes)
        distance = reconstruction(rebuilt.planes, planes, self.config)
        losses = self.model.semantic_losses(rebuilt, planes, batch.labels.to(self.device))
        adversary = self.adversary
        if adversary is not None and adversary.has_begun(step):
            losses["adversarial_loss"] = adversary.loss(rebuilt.planes)
        loss = distance.loss + rebuilt.quantized.loss
        loss = sum(losses.values(), start=loss)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), _CLIP_GRAD)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.average.update_parameters(self.model.network)
        if adversary is not None and adversary.has_begun(step):
            losses["discriminator_loss"] = adversary.learn(planes, rebuilt.planes, lr=lr)
        levels = rebuilt.quantized.ids.unbind(1)
        used = sum(ids.unique().numel() for ids in levels) / len(levels)
        return {
            "loss": float(loss.detach()),
            "psnr_db": float(distance.psnr_db),
            "ms_ssim": float(distance.ms_ssim),
            "codes_used_a_batch": used / self.config.num_codes,
            **{name: float(value.detach()) for name, value in losses.items()},
        }

    def _export(self) -> LearnedTokenizer:
        self._check_weights(self.config.steps)
        quantizer = self.model.quantizer
        network = cast(Autoencoder, self.average.module).cpu()
        tokenizer = self.domain.tokenizer(quantizer.codebook().cpu(), network, quantizer.bound)
        save_tokenizer(tokenizer, self.folder.weights)
        return tokenizer


def _check_finite(loss: float, step: int) -> None:
    if not math.isfinite(loss):
        raise SeitError(f"the loss became {loss} before step {step}; lower lr and start again")


def _learning_rate(step: int, config: TokenizerConfig) -> float:
    """Linear warm-up, then a cosine to 0."""
    warmup = min(config.warmup_steps, config.steps - 1)
    if step < warmup:
        return config.lr * (step + 1) / warmup
    return config.lr * (1 + math.cos(math.pi * (step - warmup) / (config.steps - warmup))) / 2
