"""Make sounds for training audio tokenizers: spoken phrases, and clips joined to longer ones.

    uv run python tools/make_sounds.py speak OUT --text docs/start.md docs/faq.md
    uv run python tools/make_sounds.py join CLIPS OUT --clips 2 --rounds 3

`speak` has espeak-ng say numbers and passages of the texts, in ten languages, with many voices,
speeds and pitches; every second phrase gets the echo and the noise of a room. `join` joins clips of
CLIPS/SPLIT/CLASS in random order, for windows longer than a clip. OUT gets SPLIT/CLASS/NUMBER.flac
of 16 kHz.
"""

import argparse
import io
import random
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile
import soxr

RATE = 16_000
LANGUAGES = ("en-us", "en-gb", "de", "fr-fr", "es", "it", "pt", "nl", "sv", "pl")
VOICES = ("", "+m1", "+m3", "+m5", "+m7", "+f1", "+f2", "+f3", "+f4", "+f5", "+croak")
NUMBERS = [
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"),
    *("twenty", "hundred", "thousand", "yes", "no", "up", "down", "left", "right", "stop"),
    *("go", "on", "off"),
]
LENGTHS = (6, 10, 14, 30)
"""Words of a passage."""

Wave = npt.NDArray[np.float64]


def speak(out: Path, texts: Sequence[Path], counts: dict[str, int]) -> None:
    """Write spoken phrases."""
    draw = random.Random(0)
    text = " ".join(re.sub(r"```.*?```", "", path.read_text(), flags=re.S) for path in texts)
    words = re.findall(r"[A-Za-z]{2,}", text)
    least = 2 * max(LENGTHS) + 1
    if len(words) < least:
        raise SystemExit(f"the texts have {len(words)} words; at least {least} are needed")
    for split, count in counts.items():
        for number in range(count):
            start, length = draw.randrange(len(words) - 2 * max(LENGTHS)), draw.choice(LENGTHS)
            phrase = words[start : start + length] if number % 4 else draw.choices(NUMBERS, k=10)
            wave = spoken(" ".join(phrase), draw)
            wave = wave * draw.uniform(0.2, 1)
            if number % 2:
                wave = in_a_room(wave, draw, seed=number)
            write(out / split / "speech" / f"{number:04d}.flac", wave)


def spoken(text: str, draw: random.Random) -> Wave:
    """Return what espeak-ng says, in a random voice."""
    voice = draw.choice(LANGUAGES) + draw.choice(VOICES)
    speed, pitch = str(draw.randint(110, 220)), str(draw.randint(20, 80))
    command = ["espeak-ng", "-v", voice, "-s", speed, "-p", pitch, "--stdout", text]
    sound = subprocess.run(command, capture_output=True, check=True).stdout
    return as_mono(soundfile.read(io.BytesIO(sound), dtype="float32", always_2d=True))


def as_mono(sound: tuple[Wave, int]) -> Wave:
    """Return channels (n, channels) at some rate as their mean at 16 kHz."""
    channels, rate = sound
    wave: Wave = channels.mean(axis=1)
    return wave if rate == RATE else soxr.resample(wave, rate, RATE)


def in_a_room(wave: Wave, draw: random.Random, *, seed: int) -> Wave:
    """Add an exponentially decaying echo and white noise."""
    echo = np.exp(-np.arange(4000) / draw.uniform(300, 1200))
    echo *= np.random.default_rng(seed).normal(size=len(echo))
    echo[0] = 3
    echo /= 2 * np.sqrt(np.abs(echo).sum())
    heard = np.convolve(wave, echo)[: len(wave)]
    heard /= max(1.0, float(np.abs(heard).max()))
    loudness = 10 ** draw.uniform(-4, -2)
    return heard + loudness * np.random.default_rng(seed).normal(size=len(heard))


def join(clips: Path, out: Path, *, together: int, rounds: int) -> None:
    """Write clips of each split joined in random order; more rounds only for train."""
    draw = random.Random(0)
    for split in sorted(path for path in clips.iterdir() if path.is_dir()):
        files = sorted(split.glob("*/*"))
        for turn in range(rounds if split.name == "train" else 1):
            draw.shuffle(files)
            for number in range(len(files) // together):
                own = files[number * together : (number + 1) * together]
                parts = [as_mono(soundfile.read(file, always_2d=True)) for file in own]
                wave = np.concatenate(parts)
                write(out / split.name / "joined" / f"{turn}-{number:04d}.flac", wave)


def write(path: Path, wave: Wave) -> None:
    """Write a sound."""
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.clip(wave, -1, 1), RATE)


def main() -> None:
    """Make the sounds."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parts = parser.add_subparsers(dest="part", required=True)
    spoken_part = parts.add_parser("speak")
    spoken_part.add_argument("out", type=Path)
    spoken_part.add_argument("--text", type=Path, nargs="+", required=True)
    spoken_part.add_argument("--train", type=int, default=480, help="phrases")
    spoken_part.add_argument("--val", type=int, default=60, help="phrases")
    joined_part = parts.add_parser("join")
    joined_part.add_argument("clips", type=Path)
    joined_part.add_argument("out", type=Path)
    joined_part.add_argument("--clips", type=int, default=2, dest="together", help="of each sound")
    joined_part.add_argument("--rounds", type=int, default=3, help="random orders of train")
    options = parser.parse_args()
    if options.part == "speak":
        speak(options.out, options.text, {"train": options.train, "val": options.val})
    else:
        join(options.clips, options.out, together=options.together, rounds=options.rounds)


if __name__ == "__main__":
    main()
