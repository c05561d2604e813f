"""Jobs whose corpus, settings or store are wrong: one line says so, and nothing is left."""

from dataclasses import replace
from pathlib import Path

import pytest
from support.files import plant, tree
from support.jobs import CONFIG, interrupt, message, small

import seit
from seit.errors import SeitError, UsageError
from seit.ingest import TokenizeConfig, tokenize
from seit.stores import verify_store
from seit.tokenizers import save_tokenizer


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
    assert "lacks 1 input that" in message(SeitError, tmp_path / "src", tmp_path / "store", strict)
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
    other = replace(config, codes=CONFIG.codes + 1)
    assert f"has {CONFIG.codes} codes but" in message(UsageError, tmp_path / "src", store, other)
    assert "no store was made" in message(SeitError, tmp_path / "duds", store, config)
    assert not store.exists()


def test_settings_without_effect_are_refused(tmp_path):
    source, store = small(tmp_path / "src", 4), tmp_path / "store"
    local = replace(CONFIG, workdir=tmp_path / "work")
    assert "leave --workdir out" in message(UsageError, source, store, local)
    for how in ("dry_run", "update"):
        with pytest.raises(UsageError, match="leave --workdir out"):
            seit.tokenize(source, out=store, config=local, **{how: True})
    sounds = TokenizeConfig(tokenizer="mel-vq-1s", max_pixels=1 << 20)
    assert "takes audio but max_pixels is 1,048,576" in message(UsageError, source, store, sounds)
    assert [path.name for path in tmp_path.iterdir()] == ["src"]


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
