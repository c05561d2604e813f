"""The tokenize job in process: what lands in the store, and that it is always the same bytes."""

import io
import json
import struct
import tarfile
import zlib
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import seit
from seit.errors import DamagedError, SeitError, UsageError
from seit.ingest import TokenizeConfig, settle, tokenize
from seit.ingest.inputs.images import decode_image
from seit.ingest.sources.splits import hash_fraction
from seit.stores import verify_store
from seit.tokenizers import load_tokenizer, measure_quality, save_tokenizer

CONFIG = TokenizeConfig(size=64, codes=64, shard_samples=1024)
CLASSES = ("ant", "bee", "cat")
NUM_IMAGES = 2400


def picture(number, side=20):
    random = np.random.default_rng(number)
    coarse = random.integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((side, side + number % 5), Image.Resampling.BICUBIC)


def png(number, side=20):
    buffer = io.BytesIO()
    picture(number, side).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


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


def plant(root, files):
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


def small(root, count=40):
    """A folder of a few images of two classes."""
    return plant(root, {f"{'ab'[n % 2]}/{n}.png": png(n) for n in range(count)})


def tree(folder):
    """Relative path → bytes of every file, hidden ones included."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def message(kind, source, store, config=CONFIG):
    """The one-line message with which a job is refused, or fails."""
    with pytest.raises(kind) as caught:
        tokenize(source, store, config)
    assert type(caught.value) is kind
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture(scope="module")
def images():
    """Key → PNG or JPEG bytes of the readable files."""
    files = {f"{CLASSES[n % 3]}/{n:04d}.png": png(n) for n in range(NUM_IMAGES - 4)}
    for number in range(4):
        buffer = io.BytesIO()
        picture(number, 200).save(buffer, "JPEG", quality=80)
        files[f"bee/photo {number} ü.jpg"] = buffer.getvalue()
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


@pytest.mark.parametrize("workers", [1, 3])
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


# ------------------------------------------------------------------------------------- bad input


def test_class_without_a_readable_image_is_warned_of_by_name(tmp_path):
    small(tmp_path / "src")
    plant(tmp_path / "src", {"dud/1.png": b"", "dud/2.png": b"no image"})
    result = tokenize(tmp_path / "src", tmp_path / "store", CONFIG)
    named = [line for line in result.warnings if "dud" in line]
    assert len(named) == 1
    assert "no readable image" in named[0]
    assert seit.open(tmp_path / "store").classes == ("a", "b", "dud")
    assert verify_store(tmp_path / "store").ok


def test_strict_stops_and_names_the_file(tmp_path):
    small(tmp_path / "src")
    plant(tmp_path / "src", {"a/broken.png": b"?"})
    strict = replace(CONFIG, strict=True)
    text = message(SeitError, tmp_path / "src", tmp_path / "store", strict)
    assert "a/broken.png" in text
    assert "--strict" in text
    tokenize(tmp_path / "src", tmp_path / "store", CONFIG)  # the same job goes on
    assert seit.open(tmp_path / "store").card.skipped == 1
    assert "1 inputs" in message(SeitError, tmp_path / "src", tmp_path / "store", strict)
    (tmp_path / "src" / "a" / "broken.png").unlink()
    tokenize(tmp_path / "src", tmp_path / "store", replace(strict, overwrite=True))
    assert seit.open(tmp_path / "store").card.skipped == 0


def test_strict_also_refuses_what_an_earlier_call_skipped(tmp_path, monkeypatch):
    small(tmp_path / "src")
    plant(tmp_path / "src", {"a/broken.png": b"?"})
    monkeypatch.setattr("seit.ingest.job._Run._seal", interrupt)
    with pytest.raises(KeyboardInterrupt):
        tokenize(tmp_path / "src", tmp_path / "store", CONFIG)
    text = message(SeitError, tmp_path / "src", tmp_path / "store", replace(CONFIG, strict=True))
    assert "a/broken.png" in text


def test_wrong_input_leaves_no_trace(tmp_path):
    small(tmp_path / "src")
    plant(tmp_path / "duds", {"a/1.png": b"", "b/2.png": b"no"})
    store = tmp_path / "new" / "store"
    (tmp_path / "empty").mkdir()
    few = replace(CONFIG, codes=4096)
    assert "does not exist" in message(UsageError, tmp_path / "scr", store)
    assert "no files" in message(UsageError, tmp_path / "empty", store)
    assert "fewer --codes" in message(UsageError, tmp_path / "src", store, few)
    assert "--size" in message(UsageError, tmp_path / "src", store, replace(CONFIG, size=63))
    assert "device" in message(UsageError, tmp_path / "src", store, replace(CONFIG, device="tpu9"))
    assert "none of the 2 files" in message(SeitError, tmp_path / "duds", store)
    assert not store.exists()
    tokenize(tmp_path / "src", tmp_path / "fitted", CONFIG)
    given = str(tmp_path / "fitted" / "given.safetensors")
    save_tokenizer(seit.open(tmp_path / "fitted").load_tokenizer(), Path(given))
    config = TokenizeConfig(tokenizer=given)
    assert "no store was made" in message(SeitError, tmp_path / "duds", store, config)
    assert not store.exists()


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("file", "is a file"),
        ("folder", "already holds something"),
        ("other card", "already holds something"),
        ("inside", "lies inside SRC"),
        ("same", "lies inside SRC"),
        ("linked inside", "lies inside SRC"),
        ("around", "lies inside STORE"),
        ("below a file", "cannot be"),
        ("broken link", "leads nowhere"),
        ("link loop", "cannot be used"),
        ("long name", "cannot be used"),
        ("url", "--workdir"),
    ],
)
@pytest.mark.parametrize("overwrite", [False, True])
def test_store_paths_that_are_refused(tmp_path, case, words, overwrite):
    source = small(tmp_path / "data" / "src", 4)
    store = tmp_path / "store"
    match case:
        case "file":
            store.write_text("mine")
        case "folder":
            plant(store, {"thesis.tex": b"mine"})
        case "other card":
            plant(store, {"store.json": b'{"shop": "mine"}'})
        case "inside":
            store = source / "a" / "store"
        case "same":
            store = source
        case "linked inside":
            store.symlink_to(source / "a")
        case "around":
            store = tmp_path / "data"
        case "below a file":
            store = source / ".." / "file" / "store"
            (source / ".." / "file").write_text("mine")
        case "broken link":
            store.symlink_to(tmp_path / "nowhere")
        case "link loop":
            store.symlink_to(store)
        case "long name":
            store = tmp_path / ("x" * 300)
        case "url":
            store = "s3://bucket/store"
    before = tree(tmp_path)
    assert words in message(UsageError, source, store, replace(CONFIG, overwrite=overwrite))
    assert tree(tmp_path) == before


# --------------------------------------------------------------- resuming, replacing, other jobs


def interrupt(*_, **__):
    raise KeyboardInterrupt


def stop_at_once(*_):
    raise KeyboardInterrupt


def stop_after(inputs):
    """A progress callback that interrupts the job after so many inputs."""

    def progress(done, total, skipped):
        if done >= inputs:
            raise KeyboardInterrupt

    return progress


@pytest.mark.parametrize("inputs", [1, 1024, 1500, 2400])
def test_an_interrupted_job_goes_on_and_ends_with_the_same_bytes(made, corpus, tmp_path, inputs):
    store, _ = made
    target = tmp_path / "store"
    with pytest.raises(KeyboardInterrupt):
        tokenize(corpus, target, CONFIG, progress=stop_after(inputs))
    assert not list(target.rglob("*.partial"))
    seen = []
    tokenize(corpus, target, CONFIG, progress=lambda done, *_: seen.append(done))
    assert seen == sorted(seen)
    assert seen[-1] == NUM_IMAGES + len(BROKEN)
    assert seen[0] == (1 if inputs <= 1024 else 1024)
    assert tree(target) == tree(store.path)


def begun(source, store, config=CONFIG):
    with pytest.raises(KeyboardInterrupt):
        tokenize(source, store, config, progress=stop_after(1))


def test_other_settings_are_refused_by_name(tmp_path):
    source, store = small(tmp_path / "src"), tmp_path / "store"
    begun(source, store)
    for finished in (False, True):
        for changes in ({"size": 32}, {"codes": 32}, {"val_fraction": 0.2}, {"seed": 1}):
            text = message(UsageError, source, store, replace(CONFIG, **changes))
            ((name, value),) = changes.items()
            assert f"({name} was {getattr(CONFIG, name)!r} and is {value!r})" in text
        text = message(UsageError, source, store, replace(CONFIG, size=32, shard_samples=2048))
        assert "size was 64 and is 32, shard_samples was 1024 and is 2048" in text
        if not finished:
            tokenize(source, store, CONFIG)


def test_a_changed_source_is_refused(tmp_path):
    source, store = small(tmp_path / "src"), tmp_path / "store"
    begun(source, store)
    plant(source, {"a/one more.png": png(99)})
    assert "SRC have changed" in message(UsageError, source, store)
    (source / "a" / "one more.png").unlink()
    tokenize(source, store, CONFIG)
    (source / "a" / "0.png").unlink()
    assert "SRC have changed" in message(UsageError, source, store)
    tokenize(source, store, replace(CONFIG, overwrite=True))
    tokenize(source, tmp_path / "fresh", CONFIG)
    assert tree(store) == tree(tmp_path / "fresh")


def test_overwrite_replaces_all_of_another_store(made, corpus, tmp_path):
    store = tmp_path / "store"
    tokenize(corpus, store, CONFIG)
    source = small(tmp_path / "src")
    config = replace(CONFIG, overwrite=True)
    tokenize(source, store, config)
    tokenize(source, tmp_path / "fresh", CONFIG)
    assert tree(store) == tree(tmp_path / "fresh")


def test_overwrite_goes_on_with_the_same_unfinished_job(made, corpus, tmp_path):
    store, config = tmp_path / "store", replace(CONFIG, overwrite=True)
    tokenize(small(tmp_path / "src"), store, CONFIG)
    with pytest.raises(KeyboardInterrupt):
        tokenize(corpus, store, config, progress=stop_after(1500))
    seen = []
    tokenize(corpus, store, config, progress=lambda done, *_: seen.append(done))
    assert seen[0] == 1024
    assert tree(store) == tree(made[0].path)


def test_overwrite_keeps_the_old_store_until_the_new_job_can_begin(tmp_path):
    source, store = small(tmp_path / "src"), tmp_path / "store"
    plant(tmp_path / "duds", {"a/1.png": b""})
    tokenize(source, store, CONFIG)
    before = tree(store)
    config = replace(CONFIG, overwrite=True)
    message(UsageError, tmp_path / "missing", store, config)
    message(UsageError, source, store, replace(config, codes=4096))
    message(SeitError, tmp_path / "duds", store, config)
    assert tree(store) == before


@pytest.mark.parametrize("moment", range(8))
def test_an_interrupted_replacement_leaves_one_store_or_none(tmp_path, monkeypatch, moment):
    """Stop at each removal of an old file in turn: whoever comes next, no mixture is left."""
    store, config = tmp_path / "store", replace(CONFIG, overwrite=True)
    one, two = small(tmp_path / "one"), small(tmp_path / "two", 60)
    tokenize(two, tmp_path / "fresh", CONFIG)
    tokenize(one, store, CONFIG)
    before = tree(store)
    with monkeypatch.context() as patch:
        removals = []
        original = Path.unlink

        def unlink(self, *arguments, **options):
            if len(removals) == moment:
                raise KeyboardInterrupt
            removals.append(self)
            return original(self, *arguments, **options)

        patch.setattr(Path, "unlink", unlink)
        with suppress(KeyboardInterrupt):
            tokenize(two, store, config)
    if (store / "store.json").exists():
        whole = {name: data for name, data in tree(store).items() if not name.startswith(".")}
        assert whole in (before, tree(tmp_path / "fresh"))
    tokenize(two, store, config)
    assert tree(store) == tree(tmp_path / "fresh")


def test_a_second_job_says_that_the_first_is_running(tmp_path):
    source, store = small(tmp_path / "src"), tmp_path / "store"
    other = small(tmp_path / "other", 20)
    told = []

    def progress(done, *_):
        if done == 5:
            for config in (CONFIG, replace(CONFIG, overwrite=True)):
                told.append(message(SeitError, source, store, config))
                told.append(message(SeitError, other, store, config))

    tokenize(source, store, CONFIG, progress=progress)
    assert len(told) == 4
    assert all("another job is writing" in text for text in told)
    tokenize(source, tmp_path / "fresh", CONFIG)
    assert tree(store) == tree(tmp_path / "fresh")


def test_a_job_that_waited_while_another_finished_finds_its_store(tmp_path, monkeypatch):
    """The second job looked before there was a card, and gets the lock after there is one."""
    source, store = small(tmp_path / "src"), tmp_path / "store"
    original = settle.list_corpus
    results = []

    def list_corpus(*arguments, **options):
        corpus = original(*arguments, **options)
        if not results:
            results.append(None)
            results.append(tokenize(source, store, CONFIG))
        return corpus

    monkeypatch.setattr(settle, "list_corpus", list_corpus)
    late = tokenize(source, store, CONFIG)
    assert late.samples_per_second == 0
    assert late.bytes == results[1].bytes
    assert not (store / ".tokenize").exists()


def test_a_job_killed_after_the_card_is_complete_and_gets_cleaned_up(tmp_path, monkeypatch):
    source, store = small(tmp_path / "src"), tmp_path / "store"
    with monkeypatch.context() as patch:
        patch.setattr("seit.ingest.workspace.Workspace.remove", interrupt)
        with pytest.raises(KeyboardInterrupt):
            tokenize(source, store, CONFIG)
    assert (store / ".tokenize" / "job.json").is_file()
    assert verify_store(store).ok
    assert tokenize(source, store, CONFIG).samples_per_second == 0
    assert not (store / ".tokenize").exists()


def test_a_lost_shard_of_an_unfinished_job_is_made_again(made, corpus, tmp_path):
    target = tmp_path / "store"
    with pytest.raises(KeyboardInterrupt):
        tokenize(corpus, target, CONFIG, progress=stop_after(2100))
    shards = target / ".tokenize" / "packed" / "train"
    (shards / "00000.tar").unlink()
    (shards / "00001.tar").write_bytes(b"short")
    (shards / "00002.tar.partial").write_bytes(b"left by a kill")
    tokenize(corpus, target, CONFIG)
    assert tree(target) == tree(made[0].path)


@pytest.mark.parametrize(
    ("codec", "container"),
    [
        ("packed", "wds"),
        pytest.param("packed", "zarr", marks=pytest.mark.slow),
        ("context", "zarr"),
    ],
)
def test_other_codecs_and_containers_resume_to_the_same_bytes(
    codec, container, made, corpus, tmp_path
):
    config = replace(CONFIG, codec=codec, container=container)
    tokenize(corpus, tmp_path / "whole", config)
    with pytest.raises(KeyboardInterrupt):
        tokenize(corpus, tmp_path / "stopped", config, progress=stop_after(2100))
    tokenize(corpus, tmp_path / "stopped", config)
    assert tree(tmp_path / "stopped") == tree(tmp_path / "whole")
    store = seit.open(tmp_path / "whole")
    assert (store.card.codec, store.card.container) == (codec, container)
    assert verify_store(store.path).ok
    for split in store:
        np.testing.assert_array_equal(store[split].tokens[:], made[0][split].tokens[:])
        assert store[split].keys == made[0][split].keys
        np.testing.assert_array_equal(store[split].labels, made[0][split].labels)


def test_a_kill_between_coding_and_the_card_is_mended(made, corpus, tmp_path, monkeypatch):
    target = tmp_path / "store"
    monkeypatch.setattr("seit.stores.recode.write_index", stop_at_once)
    with pytest.raises(KeyboardInterrupt):
        tokenize(corpus, target, CONFIG)
    assert (target / "train" / "00000.tar").exists()
    monkeypatch.undo()
    tokenize(corpus, target, CONFIG)
    assert tree(target) == tree(made[0].path)


def test_a_finished_store_that_lost_a_shard_is_not_called_complete(tmp_path):
    source, store = small(tmp_path / "src"), tmp_path / "store"
    tokenize(source, store, CONFIG)
    before = tree(store)
    (store / "train" / "00000.tar").unlink()
    text = message(DamagedError, source, store)
    assert "train/00000.tar" in text
    assert "seit verify" in text
    tokenize(source, store, replace(CONFIG, overwrite=True))
    assert tree(store) == before


def test_damaged_job_records_are_refused_and_replaced(tmp_path):
    source, store = small(tmp_path / "src"), tmp_path / "store"
    begun(source, store)
    for damage in (b"", b"[1]", b"\xff", b"7"):
        (store / ".tokenize" / "job.json").write_bytes(damage)
        assert "record is damaged" in message(UsageError, source, store)
    tokenize(source, store, replace(CONFIG, overwrite=True))
    assert verify_store(store).ok
