"""The tokenize job in process: what lands in the store, and that it is always the same bytes."""

import io
import json
import struct
import tarfile
import zlib
from dataclasses import replace

import numpy as np
import pytest
import torch
from support.files import plant, tree
from support.jobs import CONFIG, message, small
from support.pictures import encoded, picture, png

import seit
from seit.errors import UsageError
from seit.ingest import TokenizeConfig, tokenize
from seit.ingest.inputs.images import decode_image
from seit.ingest.sources.splits import hash_fraction
from seit.stores import verify_store
from seit.tokenizers import load_tokenizer, measure_quality, save_tokenizer

CLASSES = ("ant", "bee", "cat")
NUM_IMAGES = 2400


def bomb():
    """A PNG of 60,000 × 60,000 pixels, as its header says, in a few hundred bytes."""

    def chunk(name, data):
        body = name + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    parts = chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(bytes(9999))), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


BROKEN = {
    "ant/empty.png": b"",
    "ant/cut.png": png(1, 90)[:400],
    "bee/notes.txt": b"milk, eggs",
    "bee/bomb.png": bomb(),
    "cat/page.jpg": b"<!DOCTYPE html><html></html>",
}


@pytest.fixture(scope="module")
def images():
    """Key → PNG or JPEG bytes of the readable files."""
    files = {f"{CLASSES[n % 3]}/{n:04d}.png": png(n, 20) for n in range(NUM_IMAGES - 4)}
    for number in range(4):
        photo = encoded(picture(number, 200), "JPEG", quality=80)
        files[f"bee/photo {number} ü.jpg"] = photo
    return files


@pytest.fixture(scope="module")
def corpus(images, tmp_path_factory):
    return plant(tmp_path_factory.mktemp("corpus"), {**images, **BROKEN})


@pytest.fixture(scope="module")
def made(corpus, tmp_path_factory):
    """The store of the corpus and the job's result."""
    path = tmp_path_factory.mktemp("made") / "store"
    result = tokenize(corpus, path, CONFIG)
    return seit.open(path), result


# ----------------------------------------------------------------------------- what is in a store


def test_every_sample_is_the_encoding_of_its_own_file(made, images):
    store, _ = made
    tokenizer = store.load_tokenizer()
    samples = {sample.key: sample for split in store.values() for sample in split}
    assert samples.keys() == images.keys()
    assert store.classes == CLASSES
    keys = sorted(samples)
    pixels = np.stack([decode_image(images[key], size=64) for key in keys])
    expected = torch.cat([tokenizer.encode(part) for part in torch.from_numpy(pixels).split(100)])
    for key, tokens in zip(keys, expected.numpy(), strict=True):
        assert samples[key].tokens.shape == (8, 8)
        assert np.array_equal(samples[key].tokens, tokens), key
        assert CLASSES[samples[key].label] == key.split("/")[0]


def test_val_split_is_by_hash_of_the_key(made, images):
    store, _ = made
    assert set(store) == {"train", "val"}
    assert set(store["val"].keys) == {key for key in images if hash_fraction(key) < 0.1}
    assert 0.05 < len(store["val"]) / len(images) < 0.15


def test_unreadable_files_are_listed_with_their_reasons(made):
    store, result = made
    entries = [json.loads(line) for line in (store.path / "skipped.jsonl").read_text().splitlines()]
    reasons = {entry["key"]: entry["reason"] for entry in entries}
    assert reasons.keys() == BROKEN.keys()
    assert "empty" in reasons["ant/empty.png"]
    assert "3,600,000,000" in reasons["bee/bomb.png"] or "60000" in reasons["bee/bomb.png"]
    assert "web page" in reasons["cat/page.jpg"]
    assert all(reason and "\n" not in reason for reason in reasons.values())
    assert {entry["split"] for entry in entries} <= {"train", "val"}
    assert result.skipped == store.card.skipped == len(BROKEN)


def test_store_verifies_and_its_figures_agree(made, images):
    store, result = made
    verification = verify_store(store.path)
    assert verification.ok, verification.damage
    assert verification.blocks == 3 + 1
    assert len(store.card.splits["train"]) == 3
    assert result.samples == len(images) == sum(result.splits.values())
    assert result.splits == {split: len(store[split]) for split in store}
    files = tree(store.path)
    assert result.bytes == sum(map(len, files.values()))
    assert result.bytes_per_sample == result.bytes / len(images)
    assert result.payload_bytes_per_sample == store.card.payload_bytes / len(images)
    assert store.card.payload_bytes < len(images) * 8 * 8 * 6 / 8 + 20_000
    assert result.source_bytes_per_sample == sum(map(len, images.values())) / len(images)
    assert result.samples_per_second > 0
    assert not any(name.startswith(".") or name.endswith(".partial") for name in files)


def test_codebook_card_and_tokenizer_agree(made):
    store, _ = made
    tokenizer, info = store.load_tokenizer(), store.card.tokenizer
    assert info.fingerprint == tokenizer.fingerprint
    assert (info.codebook_size, info.codebook_dim) == store.codebook.shape == (64, 16)
    assert np.array_equal(store.codebook, tokenizer.codebook.numpy())
    assert info.grid == tokenizer.grid == (8, 8)
    assert info.preprocessing["size"] == 64


def test_quality_is_measured_on_images_of_the_val_split(made, images):
    store, result = made
    quality = result.quality
    assert quality == dict(store.card.quality)
    assert quality.keys() == {"images", "psnr_db", "codebook_usage", "perplexity"}
    assert quality["images"] == 128
    keys = store["val"].keys
    pixels = torch.from_numpy(np.stack([decode_image(images[key], size=64) for key in keys]))
    whole = measure_quality(store.load_tokenizer(), pixels)
    assert quality["psnr_db"] == pytest.approx(whole.psnr_db, abs=1.0)
    assert 0.5 < quality["codebook_usage"] <= 1
    assert 1 < quality["perplexity"] <= 64


# --------------------------------------------------------------------------- always the same bytes


@pytest.mark.parametrize("workers", [pytest.param(1, marks=pytest.mark.slow), 3])
def test_fresh_runs_and_any_number_of_workers_make_the_same_bytes(made, corpus, tmp_path, workers):
    store, _ = made
    tokenize(corpus, tmp_path / "store", replace(CONFIG, workers=workers))
    assert tree(tmp_path / "store") == tree(store.path)


def test_a_moved_corpus_makes_the_same_bytes(tmp_path):
    small(tmp_path / "here")
    tokenize(tmp_path / "here", tmp_path / "one", CONFIG)
    (tmp_path / "here").rename(tmp_path / "there")
    tokenize(tmp_path / "there", tmp_path / "two", CONFIG)
    assert tree(tmp_path / "one") == tree(tmp_path / "two")


def test_rerun_of_a_finished_job_changes_nothing(made, corpus):
    store, first = made
    times = {path: path.stat().st_mtime_ns for path in store.path.rglob("*")}
    again = tokenize(corpus, store.path, CONFIG)
    assert again.samples_per_second == 0
    assert again.bytes == first.bytes
    assert again.quality == first.quality
    assert {path: path.stat().st_mtime_ns for path in store.path.rglob("*")} == times


def test_a_given_tokenizer_file_is_used_as_it_is(made, tmp_path):
    store, _ = made
    save_tokenizer(store.load_tokenizer(), tmp_path / "tokenizer.safetensors")
    small(tmp_path / "src")
    config = TokenizeConfig(tokenizer=str(tmp_path / "tokenizer.safetensors"))
    tokenize(tmp_path / "src", tmp_path / "store", config)
    other = seit.open(tmp_path / "store")
    assert other.card.tokenizer.fingerprint == store.card.tokenizer.fingerprint
    text = message(UsageError, tmp_path / "src", tmp_path / "x", replace(config, size=32))
    assert "--size 64" in text
    assert load_tokenizer(tmp_path / "tokenizer.safetensors").grid == (8, 8)


# ------------------------------------------------------------------------------ manifests and tars


def test_manifest_keeps_its_columns_splits_and_labels(tmp_path):
    rows = ["path,label,split,photographer,year"]
    for number in range(30):
        plant(tmp_path, {f"files/{number}.png": png(number)})
        split = "test" if number >= 24 else "val" if number >= 20 else "train"
        rows.append(f"files/{number}.png,{'xy'[number % 2]},{split},p{number % 3},{1990 + number}")
    (tmp_path / "list.csv").write_text("\n".join(rows))
    tokenize(tmp_path / "list.csv", tmp_path / "store", CONFIG)
    store = seit.open(tmp_path / "store")
    assert {split: len(store[split]) for split in store} == {"train": 20, "val": 4, "test": 6}
    for sample in (sample for split in store.values() for sample in split):
        number = int(sample.key.split("/")[1].removesuffix(".png"))
        assert store.classes[sample.label] == "xy"[number % 2]
        assert sample.metadata == {"photographer": f"p{number % 3}", "year": str(1990 + number)}


def test_tars_keep_their_order_labels_and_fields(tmp_path):
    with tarfile.open(tmp_path / "train-0.tar", "w") as tar:
        for number in reversed(range(40)):
            members = {
                "png": png(number),
                "cls": str(number % 4).encode(),
                "json": json.dumps({"caption": f"no. {number}"}).encode(),
            }
            for extension, data in members.items():
                member = tarfile.TarInfo(f"{number:03d}.{extension}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    tokenize(tmp_path / "train-0.tar", tmp_path / "store", CONFIG)
    store = seit.open(tmp_path / "store")
    split = store["train"]
    assert split.keys == tuple(f"train-0.tar/{number:03d}" for number in reversed(range(40)))
    assert [store.classes[label] for label in split.labels] == [
        str(number % 4) for number in reversed(range(40))
    ]
    assert split[3].metadata == {"caption": "no. 36"}
    image = torch.from_numpy(decode_image(png(36), size=64))[None]
    assert np.array_equal(split[3].tokens, store.load_tokenizer().encode(image)[0].numpy())


def test_unlabelled_images_have_no_classes(tmp_path):
    plant(tmp_path / "src", {f"{number}.png": png(number) for number in range(20)})
    result = tokenize(tmp_path / "src", tmp_path / "store", CONFIG)
    assert result.classes == 0
    assert set(seit.open(tmp_path / "store")["train"].labels.tolist()) == {-1}
