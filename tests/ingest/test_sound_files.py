"""Sounds as their common writers leave them: read whole, or refused by name."""

import io
import json
import struct
from dataclasses import replace

import numpy as np
import pytest
import soundfile

from seit.errors import SeitError, UnreadableError
from seit.ingest import TokenizeConfig, tokenize
from seit.ingest.inputs import audio, audio_bytes, mpeg, riff
from seit.ingest.inputs.audio import AudioDecoder, LongSamples, decode_audio
from seit.ingest.inputs.remarks import InputRemarks
from seit.ingest.sources import Instance

RATE = 16_000
TONE = 0.5 * np.sin(2 * np.pi * 440 * np.arange(2 * RATE) / RATE)
PCM = (TONE * 32767).astype("<i2").tobytes()


def wav(riff_size=None, size=None, *, before=b"", after=b""):
    form = b"WAVEfmt " + struct.pack("<IHHIIHH", 16, 1, 1, RATE, 2 * RATE, 2, 16)
    stated = len(PCM) if size is None else size
    body = form + before + b"data" + struct.pack("<I", stated) + PCM + after
    return b"RIFF" + struct.pack("<I", len(body) if riff_size is None else riff_size) + body


def encoded(values, kind="WAV", *, rate=RATE, subtype=None):
    buffer = io.BytesIO()
    soundfile.write(buffer, values, rate, format=kind, subtype=subtype)
    return buffer.getvalue()


def decoded(data, **options):
    """The valid samples of a clip, and the remarks on it."""
    remarks = InputRemarks()
    windows = decode_audio(data, sample_rate=RATE, window=RATE, remark=remarks, **options)
    return np.concatenate([part.values[: part.num_valid] for part in windows]), remarks.sentences


LIST = b"LIST" + struct.pack("<I", 5) + b"INFOa"


@pytest.mark.parametrize(
    "data",
    [
        wav(),
        wav(riff_size=len(wav())),  # 8 too large
        wav(riff_size=len(wav()) + 8, size=len(PCM) + 16),
        wav(riff_size=0),
        wav(riff_size=0, size=0),
        wav(riff_size=0xFFFFFFFF, size=0xFFFFFFFF),
        wav(size=0x7FFFFFFF - 36),
        wav(before=LIST + b"\0"),
        wav(before=LIST),  # without the padding of an odd chunk
        wav(after=b"TAG" + bytes(125)),
        b"ID3\4\0\0" + bytes([0, 0, 2, 44]) + bytes(300) + wav(),
    ],
)
def test_a_whole_wav_is_read_whatever_its_header_states(data):
    values, remarks = decoded(data)
    assert np.array_equal(values, np.frombuffer(PCM, "<i2").astype(np.float32) / 32768)
    assert remarks == ()


@pytest.mark.parametrize("kind", ["WAV", "RF64", "AIFF", "AU", "W64", "CAF", "NIST", "FLAC"])
def test_what_ends_early_is_truncated(kind):
    data = encoded(TONE, kind)
    assert len(decoded(data)[0]) == 2 * RATE
    with pytest.raises(UnreadableError, match=r"truncated|lost sync"):
        decoded(data[: len(data) // 2])


def test_what_lies_behind_the_stated_end_is_remarked_on():
    values, remarks = decoded(wav(size=16_000))
    assert (len(values), remarks) == (8_000, (riff.LEFTOVER,))
    first = encoded(TONE, "OGG", subtype="VORBIS")
    values, remarks = decoded(first + first)
    assert (len(values), remarks) == (2 * RATE, (audio_bytes.CHAINED,))


def test_broadcast_wave_of_64_bits_is_read():
    assert len(decoded(b"BW64" + encoded(TONE, "RF64")[4:])[0]) == 2 * RATE


def test_a_flac_stream_without_a_length_is_read():
    data = bytearray(encoded(TONE, "FLAC"))
    data[21] &= 0xF0
    data[22:26] = bytes(4)
    assert np.array_equal(decoded(bytes(data))[0], decoded(encoded(TONE, "FLAC"))[0])


def test_mp3_frames_are_found_behind_zeros_and_tags():
    plain = encoded(TONE, "MP3")
    expected = decoded(plain)[0]
    ape = b"APETAGEX" + struct.pack("<IIII", 2000, 32, 0, 0xA0000000) + bytes(8)
    id3 = b"ID3\4\0\0" + bytes([0, 0, 2, 44]) + bytes(300)
    for before in (bytes(417), ape, id3, id3 + bytes(3000)):
        assert np.array_equal(decoded(before + plain)[0], expected)
    with pytest.raises(UnreadableError, match=r"no MPEG frames|unknown format"):
        decoded(id3 + bytes(3000))


@pytest.mark.parametrize("stated", [5, 100_000])
def test_a_wrong_count_of_mp3_frames_costs_nothing(stated):
    data = encoded(TONE, "MP3")
    place = data.index(b"Xing") + 8
    found = int.from_bytes(data[place : place + 4], "big")
    values, _ = decoded(data[:place] + struct.pack(">I", stated) + data[place + 4 :])
    assert len(values) >= 2 * RATE
    assert found > 50
    assert mpeg.settle_frames(data) == data


def test_channels_that_cancel_give_the_loudest():
    both = np.stack([0.9 * TONE, -TONE], 1)
    values, remarks = decoded(encoded(both))
    assert remarks == (audio.CANCELS,)
    assert np.abs(values + TONE).max() < 1e-4
    values, remarks = decoded(encoded(np.stack([TONE, 0 * TONE], 1)))
    assert remarks == ()
    assert np.abs(values - TONE / 2).max() < 1e-4
    noise = np.random.default_rng(0).normal(0, 0.1, (RATE, 8))
    assert decoded(encoded(noise))[1] == ()
    assert decoded(encoded(0 * both))[1] == (audio.SILENT,)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\0\0\0\x20ftypM4A \0\0\0\0" + bytes(99), "an M4A or AAC sound .*ffmpeg"),
        (b"\xff\xf1\x50\x80" + bytes(99), "an M4A or AAC sound"),
        (b"#!AMR\n" + bytes(99), "an AMR sound .*convert it to WAV or FLAC"),
        (b"\x1aE\xdf\xa3" + bytes(99), "a Matroska or WebM file"),
        (b"\xff\xd8\xff\xe0" + bytes(99), "not audio .a JPEG image"),
    ],
)
def test_other_formats_are_named_with_what_to_do(data, reason):
    with pytest.raises(UnreadableError, match=reason):
        decoded(data)


def test_a_long_recording_is_not_held(tmp_path, monkeypatch):
    monkeypatch.setattr(audio, "HELD_SECONDS", 3.0)
    both = np.stack([TONE, -TONE], 1)
    path = tmp_path / "long.flac"
    path.write_bytes(encoded(np.concatenate([both, both, both[:8000]]), "FLAC"))
    item = Instance("long.flac", "train", 0, str(path), num_bytes=path.stat().st_size)
    decoder = AudioDecoder(RATE, RATE, 600.0)
    found = decoder(item, exclusive=audio.nullcontext())
    assert isinstance(found.samples, LongSamples)
    assert found.remarks == (audio.CANCELS,)
    expected = decode_audio(path.read_bytes(), sample_rate=RATE, window=RATE)
    for _ in range(2):
        samples = list(found.samples)
        assert [sample.instance.key for sample in samples] == [f"long.flac#{n}" for n in range(5)]
        for sample, part in zip(samples, expected, strict=True):
            assert np.array_equal(sample.values, part.values)
    assert len(found.samples) == 5
    path.unlink()
    with pytest.raises(SeitError, match="cannot be read again"):
        list(found.samples)


def test_remarks_are_counted_and_reasons_named(tmp_path, monkeypatch):
    """In the result of a job, one line each; long recordings make the same store."""
    config = TokenizeConfig(
        tokenizer="dmel-1s", codec="packed", val_fraction=0, workers=1, max_seconds=5
    )
    folder = tmp_path / "corpus" / "a"
    folder.mkdir(parents=True)
    (folder / "0.wav").write_bytes(encoded(np.stack([TONE, -TONE], 1)))
    (folder / "1.wav").write_bytes(encoded(np.stack([TONE, -TONE], 1)))
    (folder / "2.flac").write_bytes(encoded(np.tile(TONE, 3), "FLAC"))
    result = tokenize(folder.parent, tmp_path / "store", config)
    assert result.remarks == {audio.CANCELS: 2}
    assert result.warnings == (f"2 files, such as 'a/0.wav': {audio.CANCELS}",)
    (line,) = (tmp_path / "store" / "skipped.jsonl").read_text().splitlines()
    assert "`seit tokenize --max-seconds` takes more" in json.loads(line)["reason"]
    held = tokenize(folder.parent, tmp_path / "held", replace(config, max_seconds=9))
    monkeypatch.setattr(audio, "HELD_SECONDS", 3.0)
    tokenize(folder.parent, tmp_path / "long", replace(config, max_seconds=9))
    assert held.samples == 10
    for name in ("store.json", "train/00000.tar"):
        assert (tmp_path / "held" / name).read_bytes() == (tmp_path / "long" / name).read_bytes()
    (folder / "0.wav").write_bytes(b"\0\0\0\x20ftypM4A \0\0\0\0" + bytes(99))
    (folder / "1.wav").unlink()
    (folder / "2.flac").unlink()
    with pytest.raises(SeitError, match=r"no store was made \(a/0.wav: an M4A or AAC sound is not"):
        tokenize(folder.parent, tmp_path / "none", config)
