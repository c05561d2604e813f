"""Subjects by the name that a command takes."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from seit.analysis.subjects.base import Subject
from seit.analysis.subjects.mel import MelSubject
from seit.analysis.subjects.pictures import read_pictures
from seit.analysis.subjects.runs import RunSubject
from seit.analysis.subjects.speech import SpeechSubject
from seit.analysis.subjects.vision import PixelSubject, VisionSubject
from seit.devices import choose_device
from seit.errors import UsageError
from seit.models import check_runs, load_vision
from seit.shards import open_store
from seit.stream import read_sounds
from seit.tokenizers import load_speech
from seit.training import Run

SPEECH, VISION = "hf:", "timm:"
"""Before the folder or hub name of a speech model, and before the name of a network of timm."""
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Opened:
    """A subject, and the baselines on the same inputs.

    Attributes:
        subject: the network with its inputs.
        baselines: subjects without its weights that show what its input holds.
    """

    subject: Subject
    baselines: tuple[Subject, ...]


@dataclass(frozen=True, kw_only=True)
class _Request:
    """The network's name, its data, and how to read them."""

    name: str
    data: str
    split: str | None
    device: torch.device
    download: bool
    layers: Sequence[str] | None


def open_subject(
    name: str | Path,
    data: str | Path,
    *,
    split: str | None = None,
    device: str = "auto",
    download: bool = False,
    layers: Sequence[str] | None = None,
) -> Opened:
    """Open a network with the inputs to read it on.

    Args:
        name: a run's folder; ``hf:`` and the folder of a speech model; or ``timm:`` and a folder,
            an architecture and a file of weights (``timm:NAME:FILE``), or an architecture alone,
            whose weights are random.
        data: a store of the run's tokenizer; for a speech model a corpus of sounds; for a network
            of timm one of pictures.
        split: the split to read; by default `val` of a store, and all of a corpus.
        device: device of the network.
        download: whether a name on the hub may be downloaded.
        layers: paths of the modules to read, for a network of timm; None for its blocks or stages.

    Raises:
        UsageError: there is no such network, or it does not fit the data.
    """
    request = _Request(
        name=str(name),
        data=str(data),
        split=split,
        device=choose_device(device),
        download=download,
        layers=layers,
    )
    opener = next((one for mark, one in _OPENERS.items() if request.name.startswith(mark)), None)
    if layers is not None and opener is not _open_vision:
        raise UsageError("--layers is for networks of timm; leave it out to read all layers")
    return _open_run(request) if opener is None else opener(request)


def _open_run(request: _Request) -> Opened:
    run, store = Run.open(request.name), open_store(request.data)
    return Opened(RunSubject(run, store, request.split or "val", device=request.device), ())


def _open_speech(request: _Request) -> Opened:
    path = request.name.removeprefix(SPEECH)
    network = load_speech(path, download=request.download)
    sounds = read_sounds(request.data, split=request.split)
    _say_unreadable(sounds.unreadable)
    subject = SpeechSubject(
        network, sounds.clips, classes=sounds.classes, name=Path(path).name, device=request.device
    )
    return Opened(subject, (MelSubject(sounds.clips, classes=sounds.classes),))


def _open_vision(request: _Request) -> Opened:
    network = load_vision(request.name.removeprefix(VISION), download=request.download)
    check_runs(network)
    if network.is_random:
        _LOG.warning(
            "timm:%s gets random weights; give timm:%s:FILE, a folder, or --download for others",
            network.name,
            network.name,
        )
    pictures = read_pictures(request.data, network.inputs.transform(), split=request.split)
    _say_unreadable(pictures.unreadable)
    subject = VisionSubject(network, pictures, device=request.device, layers=request.layers)
    return Opened(subject, (PixelSubject(pictures),))


def _say_unreadable(unreadable: Mapping[str, str]) -> None:
    if unreadable:
        key, reason = next(iter(unreadable.items()))
        _LOG.warning("%d files cannot be read (the first, %s: %s)", len(unreadable), key, reason)


_OPENERS: dict[str, Callable[[_Request], Opened]] = {SPEECH: _open_speech, VISION: _open_vision}
