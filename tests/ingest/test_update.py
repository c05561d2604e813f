"""Stores that follow their source: updated, killed meanwhile, refused; and views of images."""

import fcntl
import io
import json
import os
import shutil
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import soundfile
from PIL import Image
from support.files import plant
from support.pictures import pictures, png
from support.processes import audited
from support.stores import build_store

import seit
from seit.errors import SeitError, UsageError
from seit.ingest import TokenizeConfig, kept_splits, tokenize, update_store
from seit.ingest.inputs.views import Crop
from seit.ingest.sources import list_corpus
from seit.stores import (
    delete_samples,
    filter_store,
    merge_stores,
    replace as replacing,
    verify_store,
)

CONFIG = TokenizeConfig(size=32, codes=16, codec="packed", val_fraction=0.3, workers=1)


@pytest.fixture
def corpus(tmp_path):
    return plant(tmp_path / "corpus", {**pictures(0, 30), "a/broken.png": b"\x89PNG"})


def samples_of(path):
    """(split, key) → (class name, ids) of all samples of an intact store."""
    verification = verify_store(path)
    assert verification.ok, verification.damage
    store = seit.open(path)
    return {
        (name, sample.key): (store.classes[sample.label], sample.tokens.tobytes())
        for name, split in store.items()
        for sample in split
    }


def tree(folder):
    return {
        path.relative_to(folder): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file()
    }


def whole(corpus, store, target, config):
    """The samples of a new store of the corpus as it is now, by the store's own tokenizer."""
    from seit.tokenizers import save_tokenizer

    file = target.with_name("tokenizer.safetensors")
    save_tokenizer(seit.open(store).load_tokenizer(), file)
    given = replace(config, tokenizer=str(file), codec="packed", container="wds", codes=None)
    tokenize(corpus, target, given)
    return samples_of(target)


def counts(result):
    return result.added, result.changed, result.removed, result.kept


def change(corpus):
    """One file added to a class, two of a new class, one changed, one moved, one gone."""
    plant(corpus, {**pictures(40, 41), "0new/1.png": png(50), "0new/2.png": png(51)})
    (corpus / "a/2.png").write_bytes(png(99, 64))
    (corpus / "a/4.png").unlink()
    (corpus / "b/5.png").rename(corpus / "a/5.png")


@pytest.mark.parametrize("container", ["wds", "zarr"])
def test_an_updated_store_holds_what_a_new_one_would(corpus, tmp_path, container):
    store = tmp_path / "store"
    config = replace(CONFIG, container=container)
    tokenize(corpus, store, config)
    change(corpus)
    result = update_store(corpus, store, config)
    assert counts(result) == (4, 1, 2, 28)
    card = seit.open(store).card
    assert (result.samples, result.skipped, card.skipped) == (32, 1, 1)
    assert (card.codec, card.container) == ("packed", container)
    assert card.classes == ("a", "b", "0new")  # labels stay what they were
    assert samples_of(store) == whole(corpus, store, tmp_path / "again", config)
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith(".")) == []

    before = tree(store)
    assert counts(update_store(corpus, store)) == (0, 0, 0, 33)
    assert tree(store) == before
    plant(corpus, {"b/60.png": b"no image", "b/61.png": png(61)})
    assert counts(update_store(corpus, store)) == (2, 0, 0, 33)
    assert seit.open(store).card.skipped == 2
    plant(corpus, {"b/60.png": png(60)})
    assert counts(update_store(corpus, store)) == (0, 1, 0, 34)
    assert samples_of(store) == whole(corpus, store, tmp_path / "third", config)
    with pytest.raises(UsageError, match="was updated, merged, filtered or had samples deleted"):
        tokenize(corpus, store, config)


def test_only_unreadable_files_are_new_or_some_are_gone(corpus, tmp_path):
    store = tmp_path / "store"
    tokenize(corpus, store, CONFIG)
    before = samples_of(store)
    plant(corpus, {"a/new.png": b"no image"})
    (corpus / "a/broken.png").unlink()
    assert counts(update_store(corpus, store)) == (1, 0, 1, 30)
    assert samples_of(store) == before
    assert json.loads((store / "skipped.jsonl").read_text())["key"] == "a/new.png"
    (corpus / "a/new.png").unlink()
    assert counts(update_store(corpus, store)) == (0, 0, 1, 30)
    assert (store / "skipped.jsonl").read_bytes() == b""


def test_changes_of_one_size_are_found_by_date(corpus, tmp_path):
    store = tmp_path / "store"
    tokenize(corpus, store, CONFIG)
    for path in corpus.rglob("*.png"):
        os.utime(path, (1_000_000_000,) * 2)
    first, second = sorted((corpus / "a").glob("1*.png"))[:2]
    longer = second.read_bytes()
    first.write_bytes(longer[: first.stat().st_size].ljust(first.stat().st_size, b"\0"))
    os.utime(first, (1_500_000_000,) * 2)
    assert counts(update_store(corpus, store, changed_since="2020-01-01")) == (0, 0, 0, 31)
    assert counts(update_store(corpus, store, changed_since="2015-01-01T00:00+00:00")) == (
        0,
        1,
        0,
        30,
    )
    with pytest.raises(UsageError, match="is not a date"):
        update_store(corpus, store, changed_since="yesterday")


def test_samples_that_were_taken_out_stay_out(corpus, tmp_path):
    store = tmp_path / "store"
    tokenize(corpus, store, CONFIG)
    delete_samples(store, ["a/2.png"])
    plant(corpus, {"a/70.png": png(70)})
    result = update_store(corpus, store)
    assert counts(result) == (1, 0, 0, 30)
    assert "left out as before: 1 file of" in result.warnings[-1]
    assert all(key != "a/2.png" for _, key in samples_of(store))
    plant(corpus, {"a/2.png": png(71, 50)})  # another picture
    assert counts(update_store(corpus, store)) == (1, 0, 0, 31)

    filter_store(store, tmp_path / "some", patterns=["a/*"])
    plant(corpus, {"b/72.png": png(72)})
    assert update_store(corpus, tmp_path / "some").added == 1


def write_labels(folder, labels, column):
    """Write a table of pictures with these labels."""
    lines = [
        {"path": f"{number}.png", "split": "train", column: label}
        for number, label in enumerate(labels)
    ]
    (folder / "table.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))


@pytest.mark.parametrize("column", ["label", "labels"])
@pytest.mark.parametrize(
    ("first", "then", "classes", "again"),
    [  # 1.0 is class 1 as in the store, and 004 is new
        (["001", "002", "003", "1.0"], ["lion", "004"], ["1", "2", "3", "4", "lion"], "1231"),
        (["01", "lion", "1.0", "x"], [], ["01", "1.0", "lion", "x"], ["01", "lion", "1.0", "x"]),
    ],
    ids=["a-name-comes", "numbers-beside-names"],
)
def test_labels_keep_their_classes_if_names_come(tmp_path, column, first, then, classes, again):
    plant(tmp_path, {f"{number}.png": png(number) for number in range(7)})
    given = [[label] if column == "labels" else label for label in [*first, *then]]
    store, table = tmp_path / "store", tmp_path / "table.jsonl"
    write_labels(tmp_path, given[: len(first)], column)
    tokenize(table, store, CONFIG)
    before = labels_of(store)
    write_labels(tmp_path, given, column)
    assert counts(update_store(table, store)) == (len(then), 0, 0, len(first))
    after = labels_of(store)
    assert before.items() <= after.items()
    assert sorted(seit.open(store).classes) == classes
    assert [after[f"{number}.png"] for number in range(len(first))] == [*again]
    assert counts(update_store(table, store)) == (0, 0, 0, len(given)), "nothing has changed"


@pytest.mark.parametrize("column", ["label", "labels"])
def test_labels_keep_their_classes_if_the_last_name_is_gone(tmp_path, column):
    plant(tmp_path, {f"{number}.png": png(number) for number in range(4)})
    given = ["001", "1.0", "002", "lion"]
    given = [[label] if column == "labels" else label for label in given]
    store, table = tmp_path / "store", tmp_path / "table.jsonl"
    write_labels(tmp_path, given, column)
    tokenize(table, store, CONFIG)
    write_labels(tmp_path, given[:3], column)
    assert counts(update_store(table, store)) == (0, 0, 1, 3)
    assert labels_of(store) == {"0.png": "001", "1.png": "1.0", "2.png": "002"}
    assert seit.open(store).classes == ("001", "002", "1.0", "lion")


def labels_of(path):
    """Key → class of the samples of a store; of several labels, the only one of each."""
    store = seit.open(path)
    return {
        sample.key: store.classes[sample.label]
        if sample.label >= 0
        else "".join(sample.metadata["labels"])
        for split in store.values()
        for sample in split
    }


def test_stores_that_say_nothing_of_files_are_told_by_keys(corpus, tmp_path):
    store = tmp_path / "store"
    tokenize(corpus, store, CONFIG)
    card = seit.open(store).card
    files = tuple(record for record in card.files if record.file != "inputs.bin")
    replace(card, files=files).write(store)
    (store / "inputs.bin").unlink()
    change(corpus)
    result = update_store(corpus, store)
    assert counts(result) == (4, 0, 2, 29)
    assert "not checked for changes" in result.warnings[-1]
    (corpus / "a/6.png").write_bytes(png(98, 64))
    assert counts(update_store(corpus, store)) == (0, 1, 0, 32)


def test_refusals(corpus, tmp_path):
    store = tmp_path / "store"
    tokenize(corpus, store, CONFIG)
    plant(corpus, pictures(30, 32))
    before = tree(store)
    for config, message in [
        (replace(CONFIG, codes=32), "codes is 32 and the store was made with 16"),
        (replace(CONFIG, size=64), "size is 64 and the store was made with 32"),
        (replace(CONFIG, views=3), "views is 3 and the store was made with 1"),
        (replace(CONFIG, val_fraction=0.2), "leave --val-fraction out"),
        (replace(CONFIG, tokenizer="mel-vq-1s", size=None), "tokenizer is 'mel-vq-1s'"),
        (replace(CONFIG, overwrite=True), "choose one of them"),
    ]:
        with pytest.raises(UsageError, match=message):
            update_store(corpus, store, config)
    other = plant(tmp_path / "other", {"x/1.png": png(1), "y/2.png": png(2)})
    with pytest.raises(UsageError, match="this is another source"):
        update_store(other, store)
    with pytest.raises(UsageError, match="no store at"):
        update_store(corpus, tmp_path / "none")
    with pytest.raises(UsageError, match="is remote"):
        update_store(corpus, "s3://bucket/store")
    tokenize(other, tmp_path / "others", replace(CONFIG, size=None, tokenizer=str(tokens(store))))
    merge_stores(tmp_path / "merged", [store, tmp_path / "others"])
    with pytest.raises(UsageError, match="merged of others"):
        update_store(corpus, tmp_path / "merged")
    lock = store / ".tokenize" / "lock"
    lock.parent.mkdir()
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(SeitError, match="a job is writing"):
            update_store(corpus, store)
    shutil.rmtree(lock.parent)
    assert tree(store) == before
    (store / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"holds 'notes.txt'"):
        update_store(corpus, store)


def tokens(store):
    """A tokenizer file of a store's tokenizer."""
    from seit.tokenizers import save_tokenizer

    file = store.with_name("given.safetensors")
    save_tokenizer(seit.open(store).load_tokenizer(), file)
    return file


@pytest.mark.parametrize("exchanges", ["yes", pytest.param("no", marks=pytest.mark.slow)])
def test_killed_at_any_moment_the_store_is_old_or_new(corpus, tmp_path, monkeypatch, exchanges):
    """Ends the process before one of its renames; then calls again."""
    original, path = tmp_path / "original", tmp_path / "folder" / "store"
    tokenize(corpus, original, CONFIG)
    change(corpus)
    path.parent.mkdir()
    if exchanges == "no":
        monkeypatch.setattr(replacing, "exchange_folders", lambda one, other: False)
    update = partial(update_store, corpus, path, TokenizeConfig(workers=1))
    events = ("os.rename", "shutil.rmtree")

    def state():
        if not path.exists():
            return "none"
        keys = {key for _, key in samples_of(path)}
        return "new" if "0new/1.png" in keys else "old"

    shutil.copytree(original, path)
    total, _ = audited(update, events=events)
    shutil.rmtree(path)
    states = []
    for moment in (total // 3, *range(total - 8, total)):
        shutil.copytree(original, path)
        assert audited(update, events=events, dies_before=moment) == (moment, True)
        states.append(state())
        update()
        assert state() == "new", moment
        assert [entry.name for entry in path.parent.iterdir()] == ["store"], moment
        shutil.rmtree(path)
    assert set(states) >= {"old", "new"}
    assert "none" not in states or exchanges == "no"


def test_windows_belong_to_their_clip(tmp_path):
    def clip(seconds, seed):
        buffer = io.BytesIO()
        values = np.random.default_rng(seed).normal(0, 0.1, round(seconds * 16_000))
        soundfile.write(buffer, values, 16_000, format="WAV")
        return buffer.getvalue()

    corpus = plant(tmp_path / "clips", {f"{'ab'[n % 2]}/{n}.wav": clip(2.5, n) for n in range(12)})
    store = tmp_path / "store"
    config = TokenizeConfig(tokenizer="mel-vq-1s", codes=16, codec="packed", workers=1)
    tokenize(corpus, store, config)
    assert seit.open(store).card.samples == 36
    (corpus / "a/0.wav").unlink()
    plant(corpus, {"a/2.wav": clip(1.5, 2), "b/20.wav": clip(0.5, 3)})
    assert counts(update_store(corpus, store)) == (1, 1, 1, 10)
    keys = {key for _, key in samples_of(store)}
    assert len(keys) == 33
    assert not any(key.startswith("a/0.wav") for key in keys)
    assert {"a/2.wav#0", "a/2.wav#1", "b/20.wav", "b/3.wav#2"} <= keys
    assert "a/2.wav#2" not in keys
    with pytest.raises(UsageError, match="only images have views"):
        tokenize(corpus, tmp_path / "other", replace(config, views=2))


def test_a_limit_of_seconds_is_for_sounds(corpus, tmp_path):
    with pytest.raises(UsageError, match="takes images but max_seconds is 5; leave --max-seconds"):
        tokenize(corpus, tmp_path / "store", replace(CONFIG, max_seconds=5.0))
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("first", ["train", "val"])
def test_a_file_named_like_a_view_keeps_its_own_split(tmp_path, first):
    keys = {"train": "c/2.png", "val": "c/2.png#v1"}
    second = "val" if first == "train" else "train"
    shards = {first: (1,), second: (1,)}
    build_store(tmp_path / "store", shards=shards, key_of=lambda split, _: keys[split])
    kept = kept_splits(seit.open(tmp_path / "store"))
    assert kept.items() >= {"c/2.png": "train", "c/2.png#v1": "val"}.items()


def test_views(corpus, tmp_path):
    """Training images make more samples, always the same; view 0 is what it is without them."""
    config = replace(CONFIG, views=3)
    tokenize(corpus, tmp_path / "plain", CONFIG)
    file = str(tokens(tmp_path / "plain"))
    given = {"tokenizer": file, "codes": None}
    result = tokenize(corpus, tmp_path / "one", replace(config, **given))
    tokenize(corpus, tmp_path / "two", replace(config, **given, decoders="processes"))
    first, plain = samples_of(tmp_path / "one"), samples_of(tmp_path / "plain")
    assert first == samples_of(tmp_path / "two")
    assert plain.items() <= first.items()
    train = [key for split, key in plain if split == "train"]
    assert set(first) - set(plain) == {("train", f"{key}#v{v}") for key in train for v in (1, 2)}
    assert result.splits["val"] == len(plain) - len(train)
    assert len({value for _, value in first.values()}) > len(plain) + 1.5 * len(train)
    other = tokenize(corpus, tmp_path / "seed", replace(config, **given, seed=1))
    assert other.samples == result.samples
    assert samples_of(tmp_path / "seed") != first
    assert plain.items() <= samples_of(tmp_path / "seed").items()
    with pytest.raises(UsageError, match="views was 3 and is 2"):
        tokenize(corpus, tmp_path / "one", replace(config, **given, views=2))

    change(corpus)
    (corpus / train[0]).write_bytes(png(97, 64))
    assert update_store(corpus, tmp_path / "one").changed in (1, 2)
    assert samples_of(tmp_path / "one") == whole(corpus, tmp_path / "one", tmp_path / "x", config)
    plant(corpus, {f"{train[1]}#v1": png(1)})
    with pytest.raises(UsageError, match="has the name of a view of"):
        list_checked(corpus, tmp_path, config)


def list_checked(corpus, tmp_path, config):
    assert any("#v1" in entry.key for entry in list_corpus(corpus).instances)
    tokenize(corpus, tmp_path / "refused", config)


def test_views_show_a_part_of_the_image(tmp_path):
    """A picture of its own coordinates tells where a view lies: as its crop says."""
    from seit.ingest.inputs.images import decode_crops

    side = 256
    ramp = np.arange(side, dtype=np.uint8)
    pixels = np.stack(np.broadcast_arrays(ramp[None, :], ramp[:, None], np.uint8(0)), axis=-1)
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, "PNG")
    crops = [Crop.draw(seed=0, key="a.png", view=view) for view in range(1, 64)]
    assert 0 < sum(crop.flips for crop in crops) < 63
    for crop, view in zip(crops, decode_crops(buffer.getvalue(), crops, size=32), strict=True):
        left, top, right, bottom = crop.box(side, side)
        assert 0.3 < (right - left) * (bottom - top) / side**2 <= 1
        across, down = view[..., 0].astype(float).mean(0), view[..., 1].astype(float).mean(1)
        if crop.flips:
            across = across[::-1]
        middles = (np.arange(32) + 0.5) / 32
        np.testing.assert_allclose(across, left + middles * (right - left) - 0.5, atol=4)
        np.testing.assert_allclose(down, top + middles * (bottom - top) - 0.5, atol=4)


def test_the_command(corpus, tmp_path, call):
    def told(*arguments):
        code, out, err = call("tokenize", corpus, tmp_path / "store", "--json", *arguments)
        return code, json.loads(out) if out else None, err

    assert told("--size", "32", "--codes", "16", "--views", "2")[0] == 0
    change(corpus)
    code, answer, err = told("--update")
    assert code == 0
    assert "4 files added, 1 changed, 2 removed, 28 kept" in err
    assert answer["samples"] == seit.open(tmp_path / "store").card.samples
    assert [answer[name] for name in ("added", "changed", "removed", "kept")] == [4, 1, 2, 28]
    code, answer, err = told("--update", "--update-changed-since", "2100-01-01")
    assert code == 0
    assert "is up to date already; nothing was changed" in err
    assert answer["kept"] == 33
    assert told("--update-changed-since", "2100-01-01")[0] == 2
    assert told("--update", "--dry-run")[0] == 2


def test_files_stay_in_their_split_and_counts_add_up(tmp_path):
    """The hash split mends classes; what was in train or val stays there when files are added."""
    names = [f"{'abcdef'[n % 6]}/{n}.png" for n in range(18)]
    corpus = plant(tmp_path / "corpus", {name: png(n) for n, name in enumerate(names)})
    store, config = tmp_path / "store", replace(CONFIG, val_fraction=0.1)
    tokenize(corpus, store, config)
    first = {key: split for split, key in samples_of(store)}
    for name in "abcdef":
        sides = {split for key, split in first.items() if key.startswith(name)}
        assert sides == {"train", "val"}
    new = {f"{'abcdef'[n % 6]}/{n}.png": png(n) for n in range(18, 54)}
    plant(corpus, {**new, "a/bad.png": b"no image"})
    (corpus / "b/1.png").unlink()
    delete_samples(store, ["c/2.png"])
    result = update_store(corpus, store, config)
    assert counts(result) == (37, 0, 1, 16)
    assert (result.unreadable, result.left_out) == (1, 1)
    assert sum(counts(result)) - result.removed + result.left_out == 54
    second = {key: split for split, key in samples_of(store)}
    assert second.items() >= {(key, split) for key, split in first.items()
                              if key not in ("b/1.png", "c/2.png")}  # fmt: skip
    plain = {entry.key: entry.split for entry in list_corpus(corpus).instances}
    assert any(plain[key] != split for key, split in second.items())
    again = update_store(corpus, store, config)
    assert (counts(again), again.unreadable) == ((0, 0, 0, 53), 0)
