"""`seit tune SOUNDS --backbone`: a classification run that tunes few weights of a speech model.

Legend: B batch, P parts of the loss.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn
from typing_extensions import override

from seit.config import to_mapping
from seit.documents import as_record
from seit.errors import UsageError
from seit.models import SpeechClassifier
from seit.progress import Progress
from seit.stream import SoundLoader
from seit.tokenizers import StemCache, load_speech
from seit.training.classify import CLASSIFIER_FILES
from seit.training.config import require_defaults
from seit.training.feeds import Feed, training_rows
from seit.training.launch import run_objective
from seit.training.objective import LoopFigures
from seit.training.ranks import Ranks
from seit.training.report import write_run_report
from seit.training.run import WEIGHTS_NAME, Run
from seit.training.speech.config import SpeechTuneConfig
from seit.training.speech.data import SoundData, SoundInputs
from seit.training.tuning.start import ADAPTER_NAME, TunedClassification, TuneResult

EVAL_CLIPS = 32
_FILES = (*(name for name in CLASSIFIER_FILES if name != WEIGHTS_NAME), ADAPTER_NAME)


@dataclass(frozen=True, kw_only=True, repr=False)
class SpeechTuneResult(TuneResult):
    """Result of a run that tunes a speech model.

    Attributes:
        waveform_bytes: bytes of all clips in memory.
        token_bytes: bytes of the same clips as packed tokens of `mel-vq-1s`.
    """

    waveform_bytes: int
    token_bytes: int


def tune_speech(
    config: SpeechTuneConfig,
    data: SoundData,
    *,
    out: str | Path,
    download: bool = False,
    resume: bool = False,
    progress: Progress | None = None,
) -> SpeechTuneResult:
    """Tune a speech model on sounds and write a run folder to ``out``.

    Its `adapter.safetensors` holds the trained weights and the classifier; the folder holds no
    weights of the speech model, which is named again to use the run.

    Args:
        config: settings.
        data: sounds of `open_sounds`, of the length ``config.speech.seconds``.
        out: a new folder, or with ``resume`` that of an interrupted run with the same settings.
        download: whether a speech model's name on the hub may be downloaded.
        resume: see :func:`seit.training.train`.
        progress: called after each step, on the main rank.

    Raises:
        UsageError: there is no such speech model, the method does not fit it, or see
            :func:`seit.training.train`.
    """
    if not config.speech.backbone:
        raise UsageError("--backbone is missing; name the folder of a speech model, as hf:PATH")
    found = run_objective(
        lambda ranks, _: TunedSpeech(config, data, ranks, download=download),
        config,
        data,
        out=Path(out),
        resume=resume,
        files=_FILES,
        recorded=lambda figures: as_record(
            figures, SpeechTuneResult, origin=f"the result in {out}"
        ),
        progress=progress,
    )
    assert isinstance(found, SpeechTuneResult), "of this objective"
    return found


def speech_classifier(
    config: SpeechTuneConfig, *, num_classes: int, download: bool = False
) -> SpeechClassifier:
    """Load a run's speech model, with a new classifier.

    Raises:
        UsageError: there is no such speech model.
    """
    model = make_classifier(config, config.speech.backbone, num_classes, download=download)
    if config.speech.stem_cache_bytes:
        model.network.stem_cache = StemCache(config.speech.stem_cache_bytes)
    return model


def make_classifier(
    config: SpeechTuneConfig, backbone: str | Path, num_classes: int, *, download: bool
) -> SpeechClassifier:
    """Load a speech model up to the layer of the settings, with a new classifier.

    Raises:
        UsageError: there is no such speech model, or it has no such layer.
    """
    network = load_speech(backbone, download=download)
    if config.num_blocks is not None:
        network.keep_blocks(config.num_blocks)
    return SpeechClassifier(network, num_classes=num_classes, projector=config.speech.projector)


class TunedSpeech(TunedClassification):
    """Classification of sounds in which a tuning method decides what is trained."""

    config: SpeechTuneConfig
    store: SoundData

    def __init__(
        self, config: SpeechTuneConfig, data: SoundData, ranks: Ranks, *, download: bool
    ) -> None:
        self._download = download
        super().__init__(config, data, ranks, init_from=None)

    @override
    def build(self, config: Any, store: Any, ranks: Ranks) -> tuple[Feed, nn.Module]:
        feed = sound_feed(store, config, ranks)
        model = speech_classifier(config, num_classes=len(store.classes), download=self._download)
        return feed, model

    @override
    def result(self, figures: LoopFigures) -> SpeechTuneResult:
        return SpeechTuneResult(
            **vars(super().result(figures)),
            waveform_bytes=self.store.bytes,
            token_bytes=self.store.token_bytes,
        )

    @override
    def save_weights(self, run: Run, model: nn.Module) -> None:
        return None

    @override
    def footprint(self, run: Run, model: nn.Module) -> dict[str, Any]:
        return {}

    @override
    def report(self, run: Run, model: nn.Module, info: Mapping[str, Any]) -> None:
        write_run_report(run, info=info, sections=self.sections())


def sound_feed(data: SoundData, config: SpeechTuneConfig, ranks: Ranks) -> Feed:
    """Return batches of both splits of a run.

    Raises:
        UsageError: a split is missing, too small or not labeled, or a setting has no effect on
            sounds.
    """
    names = ("data.sampling", "data.order", "data.window_blocks")
    require_defaults(config, *names, reason="clips of sounds are drawn alike from all of the split")
    groups = {"model": config.model, "augment": config.augment}
    unused = [f"{group}.{name}" for group in groups for name in to_mapping(groups[group])]
    unused += ["pretrained", "pretrained_head", "layer"]
    unused.remove("model.name")  # the kind of the speech model, for lists of runs
    reason = "a speech model has a network of its own, and takes sounds as they are"
    require_defaults(config, *unused, reason=reason)
    if config.data.mode == "streaming":
        raise UsageError(
            "data.mode is 'streaming', but sounds are held in memory; set it to 'auto'"
        )
    settings, seed = config.data, config.run.seed
    train, val = data[settings.train_split], data[settings.val_split]
    labels = train.labels
    if not data.classes or labels.min(initial=0) < 0 or not (val.labels >= 0).any():
        raise UsageError(
            f"{data.folder} has sounds without a class; pass a class-per-folder tree or a manifest "
            "with labels"
        )
    inputs: Any = SoundInputs()  # called like an augmentation of tokens
    return Feed(
        SoundLoader(
            train.clips,
            batch_size=settings.batch_size,
            shuffle=True,
            seed=seed,
            device=ranks.device,
            subset=training_rows(train, config),
            rank=ranks.part,
        ),
        SoundLoader(
            val.clips,
            batch_size=EVAL_CLIPS * ranks.world_size,
            shuffle=False,
            seed=seed,
            device=ranks.device,
            rank=ranks.part,
        ),
        inputs,
        data.classes,
        seed,
    )
