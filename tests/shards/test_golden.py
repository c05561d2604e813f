"""The golden stores hold what they say, for seit and for a reader of nothing but the text."""

import ast
import hashlib
import importlib
import json
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from support import minimal_reader

import seit
from seit.errors import DamagedError, UsageError
from seit.shards.frames import Kind
from seit.stores import verify_store

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "shards" / "golden"
STORES = sorted(path.parent.name for path in GOLDEN.glob("*/expected.json"))
VARIANTS = json.loads((GOLDEN / "damaged.json").read_text())["variants"]
RULES = {"refused", "1", "2", "3", "4", "5", "6", "zarr", "verifier"}


def expected(name):
    return json.loads((GOLDEN / name / "expected.json").read_text())


def read_all(store):
    """Read everything of a store, as a reader that goes through an epoch does."""
    contents = {}
    assert store.codebook.shape == (store.card.layout.num_codes, store.card.tokenizer.codebook_dim)
    for name, split in store.items():
        contents[name] = {
            "tokens": split.tokens[:].tolist(),
            "labels": split.labels.tolist(),
            "keys": list(split.keys),
            "metadata": [sample.metadata for sample in split],
        }
        assert len(split.packed()) == len(split)
    return contents


def test_there_is_a_store_of_every_form():
    forms = [(card.codec, card.container) for card in map(card_of, STORES)]
    assert set(forms) == {(a, b) for a in ("packed", "context") for b in ("wds", "zarr")}
    assert {card_of(name).layout.num_codes for name in STORES} == {2, 40, 70_000}
    assert len(forms) == 6


def card_of(name):
    return seit.open(GOLDEN / name / "store").card


@pytest.mark.parametrize("name", STORES)
def test_stores_hold_what_they_should(name):
    path = GOLDEN / name / "store"
    content = expected(name)
    store = seit.open(path)
    assert verify_store(path).ok
    assert read_all(store) == content["splits"]
    assert (store.card.layout.num_codes, [*store.card.tokenizer.grid], [*store.classes]) == (
        content["num_codes"],
        content["grid"],
        content["classes"],
    )
    labels = [label for split in content["splits"].values() for label in split["labels"]]
    keys = [key for split in content["splits"].values() for key in split["keys"]]
    assert -1 in labels
    assert any(not key.isascii() for key in keys)


@pytest.mark.parametrize("name", STORES)
def test_a_reader_of_the_text_alone_reads_them(name):
    assert minimal_reader.read_store(GOLDEN / name / "store") == expected(name)["splits"]


def test_that_reader_knows_only_the_standard_library():
    tree = ast.parse(Path(minimal_reader.__file__).read_text())
    modules = {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
    }
    assert modules <= set(sys.stdlib_module_names)
    assert not any(isinstance(node, ast.ImportFrom) for node in ast.walk(tree))


def test_most_blocks_of_context_stores_are_coded():
    codings = [
        tokens_frame(shard, block)[6]
        for name in ("context-wds", "context-zarr")
        for split in seit.open(GOLDEN / name / "store").values()
        for shard, block in split.blocks()
    ]
    assert codings.count(2) >= 6
    assert codings.count(0) >= 1


def test_a_rebuild_gives_the_same_tokens(tmp_path, monkeypatch):
    """What zlib and lzma make is left out: another version may make other bytes of it."""
    monkeypatch.syspath_prepend(ROOT / "tools")
    monkeypatch.setattr(sys, "argv", ["make.py", str(tmp_path)])
    importlib.import_module("golden.make").main()
    for name in STORES:
        assert expected(name) == json.loads((tmp_path / name / "expected.json").read_text())
        old, new = (seit.open(folder / name / "store") for folder in (GOLDEN, tmp_path))
        assert np.array_equal(old.codebook, new.codebook)
        for split in old:
            for first, second in zip(old[split].blocks(), new[split].blocks(), strict=True):
                assert tokens_frame(*first) == tokens_frame(*second)
    variants = json.loads((tmp_path / "damaged.json").read_text())["variants"]
    assert [variant["name"] for variant in variants] == [variant["name"] for variant in VARIANTS]


def tokens_frame(shard, block):
    place = shard._find(block, Kind.TOKENS)
    return shard.folder.read(shard.files[Kind.TOKENS].file, *place)


# Damaged variants


def damage_store(path, changes):
    """Make the changes, as the README says."""
    for change in changes:
        file = path / change.get("file", "store.json")
        match change["do"]:
            case "replace":
                data = bytearray(file.read_bytes())
                new = bytes.fromhex(change["hex"])
                assert change["offset"] + len(new) <= len(data)
                data[change["offset"] : change["offset"] + len(new)] = new
                file.write_bytes(data)
            case "truncate":
                file.write_bytes(file.read_bytes()[: change["bytes"]])
            case "append":
                file.write_bytes(file.read_bytes() + bytes.fromhex(change["hex"]))
            case "write":
                file.write_bytes(bytes.fromhex(change["hex"]))
            case "remove":
                file.unlink()
            case "swap":
                other = path / change["with"]
                first, second = file.read_bytes(), other.read_bytes()
                file.write_bytes(second)
                other.write_bytes(first)
            case "card":
                seal(file, edit(json.loads(file.read_text()), change))
            case "reseal":
                seal(file, with_right_records(path, json.loads(file.read_text())))


def edit(card, change):
    *path, last = change["at"]
    entry = card
    for step in path:
        entry = entry[step]
    if change.get("remove"):
        del entry[last]
    else:
        entry[last] = change["value"]
    return card


def with_right_records(path, card):
    shards = [shard for split in card["splits"].values() for shard in split["shards"]]
    for record in (*card["files"], *shards):
        if (path / record["file"]).is_file():
            data = (path / record["file"]).read_bytes()
            record["bytes"], record["sha256"] = len(data), hashlib.sha256(data).hexdigest()
    return card


def seal(file, card):
    del card["sha256"]
    text = json.dumps(card, indent=2, ensure_ascii=False) + "\n"
    digest = hashlib.sha256(text.encode()).hexdigest()
    file.write_text(text[:-3] + f',\n  "sha256": "{digest}"\n}}\n')


def variant_cases():
    for case in VARIANTS:
        yield pytest.param(case, id=case["name"].replace(" ", "-"))


@pytest.fixture(params=variant_cases())
def variant(request, tmp_path):
    path = tmp_path / "store"
    shutil.copytree(GOLDEN / request.param["store"] / "store", path)
    damage_store(path, request.param["changes"])
    return request.param, path


def test_damage_is_found(variant):
    case, path = variant
    expect = case["expect"]
    if expect["kind"] == "refused":
        for read in (seit.open, verify_store):
            with pytest.raises(UsageError) as caught:
                read(path)
            assert expect["message"] in str(caught.value)
        return
    if case["found_by"] == "reader":
        with pytest.raises(DamagedError) as caught:
            read_all(seit.open(path))
        message = str(caught.value)
        assert expect["message"] in message
        assert expect["file"] in message or case["rule"] == "6" or "labels from" in message
        assert "\n" not in message
    found = verify_store(path).damage
    matching = [entry for entry in found if entry.file == expect["file"]]
    assert any(entry.block == expect.get("block") for entry in matching), found
    if case["found_by"] == "verifier":
        read_all(seit.open(path))
        assert any(expect["message"] in entry.reason for entry in matching), found


def test_that_reader_refuses_names_that_lead_elsewhere(tmp_path):
    """It checks no more of a card than what becomes a folder or file."""
    named = [
        case
        for case in VARIANTS
        if case["rule"] == "1" and re.search(r"\b(split|path)\b", case["name"])
    ]
    for case in named:
        shutil.copytree(GOLDEN / case["store"] / "store", tmp_path, dirs_exist_ok=True)
        damage_store(tmp_path, case["changes"])
        with pytest.raises(AssertionError, match=r"split|path|a file and a folder"):
            minimal_reader.read_store(tmp_path)
    assert len(named) > 30


def test_there_is_a_variant_for_every_rule():
    assert {variant["rule"] for variant in VARIANTS} == RULES
    assert len({variant["name"] for variant in VARIANTS}) == len(VARIANTS)
