"""Audio as a corpus: decoding into windows, and a job from files to predictions."""

import io
import json
import math
import shutil
import struct
import subprocess
import sys
import tarfile
import time
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import soundfile
import soxr
import torch
from hypothesis import given, settings, strategies as st
from support.files import plant, tree
from support.stores import edit_card

import seit
from seit.cli import main
from seit.errors import SeitError, UnreadableError, UsageError
from seit.ingest import TokenizeConfig, estimate_job, sample_inputs, tokenize
from seit.ingest.inputs import audio as audio_module
from seit.ingest.inputs.audio import AudioDecoder, AudioReader, decode_audio
from seit.ingest.sources import Instance, list_corpus
from seit.stores import verify_store
from seit.tokenizers import save_tokenizer

RATE = 16_000
CONFIG = TokenizeConfig(tokenizer="mel-vq-1s", codes=16, val_fraction=0.3, workers=1)
CLASSES = ("high", "low", "noise")


def clip(kind, number, seconds=1.0, rate=RATE):
    """A sound of one of the three classes: float64 (N,)."""
    random = np.random.default_rng([CLASSES.index(kind), number])
    times = np.arange(round(seconds * rate)) / rate
    if kind == "noise":
        return random.normal(0, 0.1, len(times))
    pitch = random.uniform(1800, 2600) if kind == "high" else random.uniform(150, 300)
    swell = 0.5 + 0.5 * np.sin(2 * math.pi * (random.uniform(1, 3) * times + random.uniform()))
    return 0.5 * swell * np.sin(2 * math.pi * pitch * times) + random.normal(0, 0.002, len(times))


def test_a_sample_of_windows_comes_from_all_clips_alike(tmp_path):
    files = {f"a/{n}.wav": encoded(np.full(4 * RATE, 0.1 * n + 0.1)) for n in range(3)}
    corpus = list_corpus(plant(tmp_path, files), modality="audio", val_fraction=0.0)
    with AudioReader(sample_rate=RATE, window=RATE) as reader:
        for count, shares in ((2, [1, 1]), (4, [1, 1, 2]), (6, [2, 2, 2]), (11, [3, 4, 4])):
            values = sample_inputs(corpus, reader, count=count, split="train")
            assert sorted(Counter((10 * values[:, 0]).round().tolist()).values()) == shares


def test_clips_are_taken_only_as_far_ahead_as_they_are_decoded():
    data = encoded(np.full(RATE, 0.1))
    taken = []

    def clips(num_bytes):
        for n in range(2000):
            taken.append(n)
            yield Instance(f"{n}.wav", "train", -1, data, (), num_bytes)

    with AudioReader(sample_rate=RATE, window=RATE, workers=1) as reader:
        for num_bytes, ahead, most in ((len(data), 4, 8), (64 << 20, 128, 8)):
            taken.clear()
            decoded = reader.read(clips(num_bytes), ahead=ahead)
            found = [next(decoded).instance.key for _ in range(2)]
            assert found == ["0.wav", "1.wav"]
            assert len(taken) <= most
            decoded.close()


def encoded(values, kind="WAV", *, rate=RATE, subtype=None):
    buffer = io.BytesIO()
    soundfile.write(buffer, values, rate, format=kind, subtype=subtype)
    return buffer.getvalue()


def decoded(data, window=RATE, **options):
    return decode_audio(data, sample_rate=RATE, window=window, **options)


def whole(data, **options):
    """All windows together, as far as they are valid."""
    return np.concatenate([part.values[: part.num_valid] for part in decoded(data, **options)])


def refusal(function, *arguments, kind=UsageError, **options):
    with pytest.raises(kind) as caught:
        function(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# ------------------------------------------------------------------------------------- decoding


@pytest.mark.parametrize(
    ("kind", "subtype", "tolerance"),
    [
        ("WAV", "PCM_16", 2**-15),
        ("WAV", "PCM_24", 2**-23),
        ("WAV", "FLOAT", 1e-7),
        ("FLAC", "PCM_16", 2**-15),
        ("AIFF", "PCM_16", 2**-15),
        ("RF64", "PCM_16", 2**-15),
        ("OGG", "VORBIS", 0.05),
        ("MP3", None, 0.05),
    ],
)
def test_formats(kind, subtype, tolerance):
    sound = clip("low", 1, seconds=0.9)
    found = whole(encoded(sound, kind, subtype=subtype))
    assert found.dtype == np.float32
    assert abs(len(found) - len(sound)) <= (0 if kind != "MP3" else 2400)
    if kind != "MP3":  # its encoder shifts the sound
        assert np.abs(found - sound).max() <= tolerance
    assert np.sqrt(np.mean(found**2)) == pytest.approx(np.sqrt(np.mean(sound**2)), rel=0.05)


def test_channels_are_averaged():
    left, right = clip("low", 1), clip("high", 2)
    found = whole(encoded(np.stack([left, right], 1), subtype="DOUBLE"))
    assert np.abs(found - (left + right) / 2).max() < 1e-6


@pytest.mark.parametrize("rate", [8_000, 22_050, 44_100, 48_000])
def test_resampling_is_soxrs(rate, monkeypatch):
    sound = clip("low", 3, seconds=0.8, rate=rate).astype(np.float32)
    monkeypatch.setattr(audio_module, "_BLOCK_VALUES", 1000)
    found = whole(encoded(sound, subtype="FLOAT", rate=rate))
    expected = soxr.resample(sound, rate, RATE, quality="HQ")
    assert abs(len(found) - 0.8 * RATE) <= 1
    length = min(len(found), len(expected))
    assert np.abs(found[:length] - expected[:length]).max() < 1e-5


def test_windows_lie_next_to_each_other():
    sound = np.linspace(-1, 1, 2 * RATE + 4000).astype(np.float32)
    first, second, last = decoded(encoded(sound, subtype="FLOAT"))
    assert np.array_equal(np.concatenate([first.values, second.values]), sound[: 2 * RATE])
    assert (first.num_valid, second.num_valid, last.num_valid) == (RATE, RATE, 4000)
    assert np.array_equal(last.values[:4000], sound[2 * RATE :])
    assert not last.values[4000:].any()


@pytest.mark.parametrize(
    ("samples", "valid"),
    [
        (1, [1]),
        (RATE - 1, [RATE - 1]),
        (RATE, [RATE]),
        (RATE + 1599, [RATE]),
        (RATE + 1600, [RATE, 1600]),
        (2 * RATE, [RATE, RATE]),
    ],
)
def test_a_last_window_of_less_than_a_tenth_is_left_out(samples, valid):
    windows = decoded(encoded(np.full(samples, 0.1)))
    assert [part.num_valid for part in windows] == valid
    assert all(part.values.shape == (RATE,) for part in windows)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "the file is empty"),
        (b"\x89PNG\r\n\x1a\n" + bytes(99), r"not audio \(a PNG image\)"),
        (b"<!DOCTYPE html><html></html>", r"not audio \(a web page\)"),
        (b"hello, world", r"not audio \(unknown format\)"),
        (b"RIFF\x24\0\0\0WAVEfmt ", r"truncated \(16 of 44 bytes\)"),
        (b"RIFF\x24\0\0\0WAVEfmt " + bytes(40), "bad audio data|holds no samples"),
        (b"fLaC" + bytes(40), "bad audio data"),
        (b"OggS" + bytes(60), "bad audio data"),
        (encoded(clip("low", 1))[:5000], r"truncated \(5,000 of 32,044 bytes\)"),
        (encoded(clip("low", 1), "FLAC")[:5000], "truncated|bad audio data"),
        (encoded(np.zeros(0)), "holds no samples"),
        (encoded(np.zeros(100), rate=500), "500 samples a second; expected 1,000 to 384,000"),
        (encoded(np.zeros(100), rate=1_000_000), "1,000,000 samples a second"),
        (encoded(np.full(50, np.nan), subtype="FLOAT"), "not finite"),
        (encoded(np.full((50, 2), (np.inf, -np.inf)), subtype="FLOAT"), "not finite"),
        (encoded(np.full((50, 2), 3e38), subtype="FLOAT"), r"values reach 3e\+38"),
        (encoded(np.full(50, 3e4), subtype="FLOAT"), "values reach 3e.04; expected −1 to 1"),
    ],
)
def test_unreadable_bytes_say_why(data, reason):
    with pytest.raises(UnreadableError, match=reason):
        decoded(data)


def test_long_clips_and_many_channels_are_refused_before_decoding():
    with pytest.raises(UnreadableError, match="11 seconds is more than the limit of 10"):
        decoded(encoded(np.zeros(11 * RATE), "FLAC"), max_seconds=10)
    assert len(decoded(encoded(np.zeros(10 * RATE), "FLAC"), max_seconds=10)) == 10
    # A header of 1,024 channels and 10 minutes at 384 kHz, and hardly any data behind it.
    frames, channels, rate = 384_000 * 600, 1024, 384_000
    data = struct.pack("<4sI4s", b"RIFF", 0xFFFFFFFF, b"WAVE")
    data += struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, channels, rate, 2**31, 2 * channels, 16)
    data += struct.pack("<4sI", b"data", (frames * channels * 2) & 0xFFFFFFFF) + bytes(10_000)
    started = time.perf_counter()
    with pytest.raises(UnreadableError):
        decoded(data)
    assert time.perf_counter() - started < 1


def test_a_header_that_promises_too_little_is_not_believed(monkeypatch):
    """The limit holds while decoding too."""
    monkeypatch.setattr(audio_module, "_check_header", lambda *_: None)
    with pytest.raises(UnreadableError, match="lasts longer than the limit of 2 seconds"):
        decoded(encoded(np.zeros(5 * RATE)), max_seconds=2)


SEEDS = [
    encoded(clip("low", 1, 0.2), kind, subtype=subtype)
    for kind, subtype in (("WAV", "PCM_16"), ("FLAC", "PCM_16"), ("OGG", "VORBIS"), ("MP3", None))
]


@settings(max_examples=120, deadline=5000)
@given(data=st.data())
def test_no_bytes_but_unreadable_error(data):
    """Whatever a file is damaged to, it is decoded to sound windows or is unreadable."""
    damaged = bytearray(data.draw(st.sampled_from(SEEDS)))
    for _ in range(data.draw(st.integers(0, 8))):
        # Most in the headers, which are where the harm is.
        end = data.draw(st.sampled_from([60, 300, len(damaged)]))
        place = data.draw(st.integers(0, end - 1))
        damaged[place] = data.draw(st.sampled_from([0, 1, 0x7F, 0x80, 0xFF]))
    damaged = damaged[: data.draw(st.one_of(st.none(), st.integers(1, len(damaged))))]
    try:
        windows = decode_audio(bytes(damaged), sample_rate=8000, window=4000, max_seconds=30)
    except UnreadableError:
        return
    assert all(part.values.shape == (4000,) for part in windows)
    assert all(np.isfinite(part.values).all() for part in windows)


@settings(max_examples=60, deadline=5000)
@given(
    head=st.sampled_from([b"", b"RIFF....WAVE", b"fLaC", b"OggS", b"ID3\x04", b"\xff\xfb"]),
    tail=st.binary(max_size=300),
)
def test_arbitrary_bytes_are_unreadable_or_sound(head, tail):
    try:
        windows = decode_audio(head + tail, sample_rate=8000, window=4000, max_seconds=30)
    except UnreadableError:
        return
    assert all(np.isfinite(part.values).all() for part in windows)


def test_without_the_library_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "soundfile", None)
    assert "pip install 'soundfile>=0.13' 'soxr>=0.5'" in refusal(decoded, encoded(np.zeros(9)))
    assert "pip install 'soundfile" in refusal(AudioReader, sample_rate=RATE, window=RATE)


def test_decoding_needs_no_torch():
    """Processes that only decode start quickly."""
    code = "import sys, seit.ingest.inputs.audio; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# ------------------------------------------------------------------------------------ the corpus


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """45 clips of one second and one of 2.5 s, in three formats, and three broken files."""
    root = tmp_path_factory.mktemp("corpus")
    kinds = (("WAV", "wav"), ("FLAC", "flac"), ("OGG", "ogg"))
    files = {}
    for number in range(45):
        name = CLASSES[number % 3]
        kind, suffix = kinds[number // 3 % 3]
        files[f"{name}/{number:03d}.{suffix}"] = encoded(clip(name, number), kind)
    files["low/long.flac"] = encoded(clip("low", 99, seconds=2.5), "FLAC")
    files["noise/empty.wav"] = b""
    files["noise/notes.txt"] = b"milk, eggs"
    files["high/cut.wav"] = files["high/000.wav"][:50]
    return plant(root, files)


@pytest.fixture(scope="module")
def made(corpus, tmp_path_factory):
    store = tmp_path_factory.mktemp("made") / "store"
    return store, tokenize(corpus, store, CONFIG)


def samples_of(store):
    return {entry.key: entry for split in store.values() for entry in split}


def test_every_sample_is_the_encoding_of_its_window(corpus, made):
    path, result = made
    assert (result.samples, result.skipped) == (48, 3)
    store = seit.open(path)
    tokenizer, samples = store.load_tokenizer(), samples_of(store)
    keys = {str(file.relative_to(corpus)) for file in corpus.rglob("*.*")}
    keys -= {"noise/empty.wav", "noise/notes.txt", "high/cut.wav", "low/long.flac"}
    assert samples.keys() == keys | {f"low/long.flac#{number}" for number in range(3)}
    for key in ("high/000.wav", "noise/008.ogg", "low/long.flac#0", "low/long.flac#2"):
        name, _, number = key.partition("#")
        window = decoded((corpus / name).read_bytes())[int(number or 0)]
        ids = tokenizer.encode(torch.from_numpy(window.values)[None])[0].numpy()
        assert np.array_equal(samples[key].tokens, ids), key
        assert store.classes[samples[key].label] == key.split("/")[0]
        assert samples[key].metadata == {"valid_seconds": window.num_valid / RATE}
    assert samples["low/long.flac#2"].metadata == {"valid_seconds": 0.5}
    card = store.card.tokenizer
    assert (card.modality, card.grid, card.codebook_size) == ("audio", (32, 32), 16)
    assert card.preprocessing["sample_rate"] == card.preprocessing["window"] == RATE
    assert store.card.source_bytes == sum(
        (corpus / key).stat().st_size for key in {*keys, "low/long.flac"}
    )


def test_quality_is_on_the_card(made):
    path, result = made
    quality = seit.open(path).card.quality
    assert set(quality) == {"windows", "psnr_db", "codebook_usage", "perplexity"}
    assert result.quality == quality
    assert quality["psnr_db"] > 20
    assert 0 < quality["codebook_usage"] <= 1
    assert 1 <= quality["perplexity"] <= 16


def test_info_and_verify(made, capsys):
    path, _ = made
    assert verify_store(path).ok
    main(["info", str(path), "--json"])
    found = json.loads(capsys.readouterr().out)
    assert (found["grid"], found["tokenizer"], found["samples"]) == ([32, 32], "mel-vq", 48)
    main(["info", str(path)])
    assert "mel-vq" in capsys.readouterr().out


def test_a_killed_job_goes_on_to_the_same_bytes(corpus, made, tmp_path, monkeypatch):
    path, _ = made
    from seit.ingest.workspace import Workspace

    def die(*_):
        raise KeyboardInterrupt

    store = tmp_path / "store"
    with monkeypatch.context() as patch:
        patch.setattr(Workspace, "write_done", die)
        with pytest.raises(KeyboardInterrupt):
            tokenize(corpus, store, CONFIG)
    assert not (store / "store.json").exists()
    tokenize(corpus, store, replace(CONFIG, workers=3))
    assert tree(store) == tree(path)
    with pytest.raises(UsageError, match=r"max_seconds was 600\.0 and is 9\.0"):
        tokenize(corpus, store, replace(CONFIG, max_seconds=9.0))


def test_a_pixel_limit_of_an_earlier_version_is_no_other_job(corpus, made, tmp_path):
    """Earlier versions took it for sounds too, without effect."""
    store = shutil.copytree(made[0], tmp_path / "store")
    edit_card(store, lambda body: body["job"].update(max_pixels=1_000_000))
    with pytest.raises(UsageError, match="leave --max-pixels out"):
        tokenize(corpus, store, replace(CONFIG, max_pixels=1_000_000))
    assert tokenize(corpus, store, CONFIG).samples_per_second == 0
    with pytest.raises(UsageError, match=r"other job \(seed was 0 and is 1\)"):
        tokenize(corpus, store, replace(CONFIG, seed=1))


@pytest.fixture(scope="module")
def fitted(made, tmp_path_factory):
    """The settings of a job with the same tokenizer, by its file."""
    file = tmp_path_factory.mktemp("fitted") / "tokenizer.safetensors"
    save_tokenizer(seit.open(made[0]).load_tokenizer(), file)
    return replace(CONFIG, tokenizer=str(file))


def test_decoding_processes_make_the_same_samples(corpus, made, fitted, tmp_path):
    tokenize(corpus, tmp_path / "store", replace(fitted, decoders="processes"))
    first, second = samples_of(seit.open(made[0])), samples_of(seit.open(tmp_path / "store"))
    assert first.keys() == second.keys()
    assert all(np.array_equal(first[key].tokens, second[key].tokens) for key in first)


def test_an_estimate_counts_windows(corpus, fitted, tmp_path):
    found = estimate_job(corpus, tmp_path / "store", fitted)
    assert found.samples == pytest.approx(51, abs=1)
    assert found.unreadable_fraction == pytest.approx(3 / 49)
    assert not (tmp_path / "store").exists()


def test_long_clips_are_skipped(corpus, fitted, tmp_path):
    result = tokenize(corpus, tmp_path / "store", replace(fitted, max_seconds=2.0))
    assert (result.samples, result.skipped) == (45, 4)
    lines = (tmp_path / "store" / "skipped.jsonl").read_text()
    assert "2 seconds is more than the limit of 2" in lines


def test_tars_of_audio(corpus, tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    with tarfile.open(source / "train-0.tar", "w") as tar:
        for number, file in enumerate(sorted((corpus / "low").glob("*.flac"))):
            for name, data in (
                (f"{number:04d}.flac", file.read_bytes()),
                (f"{number:04d}.cls", b"low"),
            ):
                member = tarfile.TarInfo(name)
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    found = list_corpus(source, modality="audio")
    assert len(found.instances) == len(list((corpus / "low").glob("*.flac")))
    said = refusal(list_corpus, source)
    assert "audio files and no images" in said
    assert "--tokenizer mel-vq-5s" in said


def test_the_wrong_kind_of_tokenizer_is_refused_with_the_right_one(corpus, tmp_path, capsys):
    with pytest.raises(SystemExit) as left:
        main(["tokenize", str(corpus), str(tmp_path / "store")])
    assert left.value.code == 2
    said = capsys.readouterr().err
    assert "holds 48 audio files and no images; pass an audio tokenizer" in said
    assert "--tokenizer mel-vq-5s" in said
    images = plant(tmp_path, {"images/a.jpg": b"", "images/b.png": b""}) / "images"
    said = refusal(tokenize, images, tmp_path / "store", CONFIG)
    assert "holds 2 images and no audio; pass an image tokenizer" in said
    assert "--tokenizer patch-pca-vq" in said
    assert not (tmp_path / "store").exists()


def test_other_wrong_requests(corpus, tmp_path):
    said = refusal(tokenize, corpus, tmp_path / "store", replace(CONFIG, size=64))
    assert "takes audio but size is 64; leave --size out" in said
    assert "expected above 0" in refusal(replace, CONFIG, max_seconds=0.0)
    few = plant(tmp_path, {"few/a.wav": b"", "few/b.txt": b"x"}) / "few"
    said = refusal(tokenize, few, tmp_path / "store", CONFIG, kind=SeitError)
    assert "can be read as audio" in said
    clashing = plant(tmp_path, {"clash/a.wav": b"", "clash/a.wav#0": b""}) / "clash"
    said = refusal(tokenize, clashing, tmp_path / "store", CONFIG)
    assert "a.wav#0 has the name of a window of" in said
    one = next((corpus / "low").glob("*.flac"))
    assert "is one clip; give the folder it is in" in refusal(tokenize, one, tmp_path / "s", CONFIG)


def test_windows_decode_alike_whatever_reads_them(corpus):
    found = list_corpus(corpus, modality="audio")
    with AudioReader(sample_rate=RATE, window=RATE, workers=3) as reader:
        together = {entry.instance.key: entry for entry in reader.read(found.instances)}
    assert list(together) == [entry.key for entry in found.instances]
    decoder = AudioDecoder(RATE, RATE, 600.0)
    from contextlib import nullcontext

    for instance in found.instances[::10]:
        alone, entry = decoder(instance, exclusive=nullcontext()), together[instance.key]
        assert (alone.reason, alone.num_bytes) == (entry.reason, entry.num_bytes)
        for one, other in zip(alone.samples, entry.samples, strict=True):
            assert one.instance == other.instance
            assert np.array_equal(one.values, other.values)


# ---------------------------------------------------------------------------- training from them

SMALL = (
    *("--recipe", "audio-small-cpu", "--steps", "40", "--batch-size", "12", "--device", "cpu"),
    *("--model.embed_dim", "32", "--model.depth", "1", "--model.num_heads", "2"),
    *("--model.stem", "8/8/0", "--schedule.warmup_steps", "5", "--ema.decay", "0"),
    *("--optim.lr", "5e-3", "--optim.lr_batch_size", "12"),
    *("--augment.mixup_prob", "0", "--augment.synonym_prob", "0", "--augment.noise_prob", "0"),
    *("--run.eval_every", "40"),
)


@pytest.fixture(scope="module", params=["mel-vq-1s", "mel-rvq-1s"])
def trained(request, corpus, made, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    store = folder / "store"
    if request.param == CONFIG.tokenizer:
        shutil.copytree(made[0], store)
    else:
        tokenize(corpus, store, replace(CONFIG, tokenizer=request.param))
    main(["train", str(store), "--out", str(folder / "run"), *SMALL])
    return store, folder / "run"


def test_sounds_are_told_apart_from_tokens(trained, capsys):
    store, run = trained
    assert seit.open(store).codebook.ndim == (3 if "rvq" in run.parent.name else 2)
    main(["eval", str(run), str(store), "--json"])
    assert json.loads(capsys.readouterr().out)["top1"] > 0.8
    assert (run / "report.html").is_file()


def test_predictions_of_files_are_means_over_their_windows(trained, corpus, tmp_path, capsys):
    _, run = trained
    long = corpus / "low/long.flac"
    parts = []
    for number, part in enumerate(decoded(long.read_bytes())):
        parts.append(tmp_path / f"{number}.wav")
        parts[-1].write_bytes(encoded(part.values, subtype="FLOAT"))
    files = [corpus / "high/003.flac", long, *parts]
    main(["predict", str(run), *map(str, files), "--device", "cpu", "--json"])
    found = json.loads(capsys.readouterr().out)["predictions"]
    assert [entry["file"] for entry in found] == [str(file) for file in files]
    assert found[0]["classes"][0]["class"] == "high"
    by_class = [
        {entry["class"]: entry["probability"] for entry in part["classes"]} for part in found
    ]
    for name in CLASSES:
        mean = sum(part[name] for part in by_class[2:]) / len(parts)
        assert by_class[1][name] == pytest.approx(mean, abs=1e-6)


def test_unreadable_files_are_named_by_predict(trained, corpus, tmp_path):
    from seit.training import predict

    _, run = trained
    broken = corpus / "noise/notes.txt"
    found = predict(run, [broken, corpus / "high/003.flac"])
    assert (found[0].classes, found[0].error) == ((), "not audio (unknown format)")
    assert found[1].classes[0][0] == "high"
    assert "pass audio files" in refusal(predict, run, [tmp_path / "none.wav"])
