"""Speech of synthetic voices with exact times of its phones, by espeak-ng's library.

The library is called as it is installed on the machine; nothing of it is part of seit.
"""

import csv
import ctypes
import ctypes.util
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

VOICES = ("en-us", "en-us+m1", "en-us+m3", "en-us+m7", "en-us+f1", "en-us+f4")
_TEXT = """
the of and to in is you that it he was for on are as with his they at be this have from or one
had by word but not what all were we when your can said there use an each which she do how their
if will up other about out many then them these so some her would make like him into time has
look two more write go see number no way could people my than first water been call who oil its
now find long down day did get come made may part over new sound take only little work know
place year live me back give most very after thing our just name good sentence man think say
great where help through much before line right too mean old any same tell boy follow came want
show also around form three small set put end does another well large must big even such because
turn here why ask went men read need land different home us move try kind hand picture again
change off play spell air away animal house point page letter mother answer found study still
learn should world high every near add food between own below country plant last school father
keep tree never start city earth eye light thought head under
"""
WORDS = tuple(_TEXT.split())
_PHONEME, _LIST_END = 7, 0
_SYNCHRONOUS, _PHONEME_EVENTS = 2, 1
_UTF8 = 1


class _Id(ctypes.Union):
    _fields_ = (("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8))


class _Event(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _Id),
    )


_CALLBACK = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event)
)


@dataclass(frozen=True)
class Spoken:
    """An utterance: int16 samples, their rate, and (start, end, phone) in seconds."""

    samples: np.ndarray
    rate: int
    phones: list[tuple[float, float, str]]


class Speaker:
    """The library, initialized once."""

    def __init__(self) -> None:
        name = ctypes.util.find_library("espeak-ng")
        if name is None:
            raise SystemExit("install espeak-ng: its library is missing")
        self._library = ctypes.CDLL(name)
        self.rate = self._library.espeak_Initialize(_SYNCHRONOUS, 0, None, _PHONEME_EVENTS)
        self._callback = _CALLBACK(self._receive)
        self._library.espeak_SetSynthCallback(self._callback)
        self._parts: list[np.ndarray] = []
        self._events: list[tuple[int, str]] = []

    def _receive(self, wave, count, events) -> int:
        if wave and count:
            self._parts.append(np.ctypeslib.as_array(wave, (count,)).copy())
        place = 0
        while events[place].type != _LIST_END:
            if events[place].type == _PHONEME:
                name = events[place].id.string.decode("utf-8", "replace")
                self._events.append((events[place].sample, name))
            place += 1
        return 0

    def say(self, text: str, voice: str) -> Spoken:
        """Return an utterance by a voice."""
        self._parts, self._events = [], []
        self._library.espeak_SetVoiceByName(voice.encode())
        data = text.encode()
        self._library.espeak_Synth(data, len(data) + 1, 0, 1, 0, _UTF8, None, None)
        samples = np.concatenate(self._parts)
        starts = [sample for sample, _ in self._events] + [len(samples)]
        phones = [
            (start / self.rate, end / self.rate, name)
            for (start, name), end in zip(self._events, starts[1:], strict=True)
            if name.strip() and end > start
        ]
        return Spoken(samples, self.rate, phones)


def make_corpus(folder: Path, *, seconds: float, seed: int = 0) -> None:
    """Write `sounds/VOICE/NUMBER.wav`, `align.csv` and `groups.csv` of random words.

    Args:
        folder: new folder.
        seconds: least duration of all sounds.
        seed: seed of the words.
    """
    speaker, spoken = Speaker(), 0.0
    rows: list[Sequence[object]] = []
    groups: list[Sequence[object]] = []
    for number, (text, voice) in enumerate(_utterances(seed)):
        if spoken >= seconds:
            break
        found = speaker.say(text, voice)
        key = f"{voice.replace('+', '-')}/{number:04}.wav"
        path = folder / "sounds" / key
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, found.samples, found.rate)
        rows += [(key, f"{start:.5f}", f"{end:.5f}", name) for start, end, name in found.phones]
        groups.append((key, voice))
        spoken += len(found.samples) / found.rate
    _write(folder / "align.csv", ("key", "start", "end", "label"), rows)
    _write(folder / "groups.csv", ("key", "group"), groups)


def _utterances(seed: int) -> Iterator[tuple[str, str]]:
    generator = random.Random(seed)
    while True:
        for voice in VOICES:
            yield " ".join(generator.choices(WORDS, k=8)), voice


def _write(path: Path, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)
