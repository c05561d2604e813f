"""Waveforms of a corpus of sounds: pieces of long files, and their rest."""

import io

import numpy as np
import pytest
import soundfile

from seit.errors import UnreadableError
from seit.ingest import decode_audio
from seit.stream import cut_sounds, read_sounds

RATE = 16_000


def wave(seconds, rate=RATE):
    data = io.BytesIO()
    noise = 0.1 * np.random.default_rng(0).normal(size=round(seconds * rate))
    soundfile.write(data, noise, rate, format="WAV")
    return data.getvalue()


@pytest.mark.parametrize(
    ("seconds", "pieces"),
    [(0.3, [0.3]), (20.0, [20.0]), (21.9, [20.0, 1.9]), (40.5, [20.0, 20.0, 0.5]), (20.4, [20.0])],
)
def test_the_rest_of_a_file_is_kept_from_half_a_second_on(seconds, pieces):
    found = cut_sounds(wave(seconds))
    assert [len(samples) / RATE for samples in found] == pieces


def test_padded_pieces_are_kept_from_a_tenth_on():
    assert [len(one) for one in cut_sounds(wave(4.3), seconds=2.0)] == [32_000] * 3
    assert [len(one) for one in cut_sounds(wave(4.1), seconds=2.0)] == [32_000] * 2


def test_files_of_more_than_ten_minutes_are_cut(tmp_path):
    data, folder = wave(605, rate=1000), tmp_path / "a"
    folder.mkdir()
    (folder / "story.wav").write_bytes(data)
    clips = read_sounds(str(tmp_path)).clips
    assert [clip.start for clip in clips] == [20.0 * number for number in range(31)]
    assert [round(clip.seconds, 2) for clip in clips] == [20.0] * 30 + [5.0]
    with pytest.raises(UnreadableError, match=r"605 seconds .* limit of 600; split it$"):
        decode_audio(data, sample_rate=RATE, window=RATE)
