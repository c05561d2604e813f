"""Subjects by the name that a command takes."""

from dataclasses import dataclass
from pathlib import Path

from seit.analysis.subjects.base import Subject
from seit.analysis.subjects.mel import MelSubject
from seit.analysis.subjects.runs import RunSubject
from seit.analysis.subjects.speech import SpeechSubject
from seit.devices import choose_device
from seit.shards import open_store
from seit.stream import read_sounds
from seit.tokenizers import load_speech
from seit.training import Run

SPEECH = "hf:"
"""Before the folder or hub name of a speech model."""


@dataclass(frozen=True)
class Opened:
    """A subject, and the baselines on the same inputs.

    Attributes:
        subject: the network with its inputs.
        baselines: subjects without its weights that show what its input holds.
    """

    subject: Subject
    baselines: tuple[Subject, ...]


def open_subject(
    name: str | Path,
    data: str | Path,
    *,
    split: str | None = None,
    device: str = "auto",
    download: bool = False,
) -> Opened:
    """Open a network with the inputs to read it on.

    Args:
        name: a run's folder, or ``hf:`` and the folder of a speech model.
        data: a store of the run's tokenizer; for a speech model a corpus of sounds.
        split: the split to read; by default `val` of a store, and all of a corpus.
        device: device of the network.
        download: whether a speech model's name on the hub may be downloaded.

    Raises:
        UsageError: there is no such network, or it does not fit the data.
    """
    target = choose_device(device)
    if not str(name).startswith(SPEECH):
        run, store = Run.open(name), open_store(data)
        return Opened(RunSubject(run, store, split or "val", device=target), ())
    network = load_speech(str(name).removeprefix(SPEECH), download=download)
    sounds = read_sounds(str(data), split=split)
    subject = SpeechSubject(
        network,
        sounds.clips,
        classes=sounds.classes,
        name=Path(str(name).removeprefix(SPEECH)).name,
        device=target,
    )
    return Opened(subject, (MelSubject(sounds.clips, classes=sounds.classes),))
