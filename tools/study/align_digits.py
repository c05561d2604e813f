r"""Phones of spoken digits, by forced alignment with pocketsphinx; run in its own environment.

Errors of 20 to 30 ms are common, so the times are no ground truth. Clips that cannot be aligned are
left out and counted::

    uv run --no-project --with pocketsphinx==5.1.1 --with soundfile --with soxr \
        python tools/study/align_digits.py FSDD OUT --every 3
"""

import argparse
import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pocketsphinx
import soundfile
import soxr

WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
RATE, FRAME = 16_000, 0.01
_PAD = 0.2
_SILENCES = {"SIL", "+NSN+", "+SPN+"}


def align(decoder: pocketsphinx.Decoder, samples: np.ndarray, word: str) -> list[tuple]:
    """Return (start, end, phone) in seconds of a clip of one word; empty if it does not fit."""
    pad = np.zeros(int(_PAD * RATE), np.int16)
    data = np.concatenate([pad, samples, pad]).tobytes()

    def decode() -> None:
        decoder.start_utt()
        decoder.process_raw(data, full_utt=True)
        decoder.end_utt()

    try:
        decoder.set_align_text(word)
        decode()
        decoder.set_alignment()
        decode()
        words = decoder.get_alignment()
    except RuntimeError:
        return []
    phones = [] if words is None else [phone for one in words for phone in one]
    length, found = len(samples) / RATE, []
    for phone in phones:
        start = max(0.0, phone.start * FRAME - _PAD)
        end = min(length, (phone.start + phone.duration) * FRAME - _PAD)
        if phone.name not in _SILENCES and end > start:
            found.append((start, end, phone.name))
    return found


def main() -> None:
    """Copy a share of the clips into `sounds`, and write `align.csv` and `groups.csv`."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("fsdd", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--every", type=int, default=1, help="use one of so many clips")
    arguments = parser.parse_args()
    decoder = pocketsphinx.Decoder(lm=None, loglevel="FATAL")
    rows: list[tuple] = [("key", "start", "end", "label")]
    groups: list[tuple] = [("key", "group")]
    clips = sorted(arguments.fsdd.glob("*/?/*.wav"))[:: arguments.every]
    for clip in clips:
        digit, speaker, _ = clip.stem.split("_")
        samples, rate = soundfile.read(clip, dtype="int16")
        heard = soxr.resample(samples, rate, RATE).astype(np.int16)
        phones = align(decoder, heard, WORDS[int(digit)])
        if not phones:
            continue
        key = f"{digit}/{clip.name}"
        target = arguments.out / "sounds" / key
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(clip, target)
        rows += [(key, f"{start:.3f}", f"{end:.3f}", phone) for start, end, phone in phones]
        groups.append((key, speaker))
    for name, table in (("groups.csv", groups), ("align.csv", rows)):
        with (arguments.out / name).open("w", newline="") as file:
            csv.writer(file).writerows(table)
    print(json.dumps({"clips": len(clips), "aligned": len(groups) - 1, "phones": len(rows) - 1}))


if __name__ == "__main__":
    main()
