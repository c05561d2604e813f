import base64
import lzma
import random
import re
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load, save
from support.stores import Columns, build_store, edit_card, record_of, replace_shard, write_shard

import seit
from seit.errors import DamagedError, UsageError
from seit.shards import PackedCodec, TokenLayout, write_index
from seit.shards.blocks import MEMBER_SUFFIXES
from seit.shards.frames import Kind
from seit.shards.index import encode_index
from seit.shards.packed import pack
from seit.stores import copy_store, verify_store

SHARDS = {"train": (7, 3, 6), "val": (4, 4)}
EVEN_SHARDS = {"train": (6, 6, 4), "val": (6, 2)}
FORMS = [("packed", "wds"), ("context", "wds"), ("packed", "zarr"), ("context", "zarr")]


@pytest.fixture(scope="module")
def intact(tmp_path_factory):
    path = tmp_path_factory.mktemp("intact")
    build_store(path, shards=SHARDS, block_samples=3, with_metadata=True)
    return path


@pytest.fixture(scope="module", params=FORMS, ids="-".join)
def form(request, tmp_path_factory):
    """A store of each form, and what was written."""
    codec, container = request.param
    path = tmp_path_factory.mktemp("-".join(request.param))
    columns = build_store(
        path,
        shards=EVEN_SHARDS,
        block_samples=3,
        with_metadata=True,
        codec=codec,
        container=container,
    )
    return path, columns


@pytest.fixture
def store(intact, tmp_path):
    return shutil.copytree(intact, tmp_path / "store")


def files_of(store):
    return sorted(path for path in store.rglob("*") if path.is_file())


def damaged_files(store):
    return {damage.file for damage in verify_store(store).damage}


def member(store, shard, block, kind):
    """Where a frame begins and ends in its shard."""
    offset, size = seit.open(store)["train"].shards[shard].places[block].frames[kind]
    return offset, offset + size


def flip(path, place, change=0xFF):
    data = bytearray(path.read_bytes())
    data[place] ^= change
    path.write_bytes(data)


def test_an_intact_store_is_ok(intact):
    seen = []
    result = verify_store(intact, progress=lambda done, total: seen.append((done, total)))
    assert result.ok
    assert result.damage == ()
    assert result.blocks == 3 + 1 + 2 + 2 + 2
    assert result.bytes == sum(path.stat().st_size for path in files_of(intact))
    assert seen == [(number + 1, 9) for number in range(9)]


@pytest.mark.parametrize("most", [10, pytest.param(1 << 20, marks=pytest.mark.slow, id="all")])
@pytest.mark.parametrize(("codec", "container"), FORMS)
def test_flipped_bytes_of_every_file_are_found(tmp_path, codec, container, most):
    shards = {"train": (4,)}
    build_store(tmp_path, shards=shards, block_samples=2, codec=codec, container=container)
    if container == "wds":
        content = (tmp_path / "train" / "00000.tar").read_bytes()
        num_members = 6
        replace_shard(tmp_path, "train/00000.tar", content[: 1024 * num_members + 1024])
    assert verify_store(tmp_path).ok
    paths = files_of(tmp_path)
    assert len(paths) == {"wds": 5, "zarr": 10}[container]
    for path in paths:
        data = path.read_bytes()
        step = max(1, len(data) // most)
        with path.open("r+b", buffering=0) as file:
            for place in range(len(data) % step, len(data), step):
                file.seek(place)
                file.write(bytes([data[place] ^ (1 << place // step % 8)]))
                damage = verify_store(tmp_path).damage
                assert {entry.file for entry in damage} == {str(path.relative_to(tmp_path))}, place
                file.seek(place)
                file.write(data[place : place + 1])
    assert verify_store(tmp_path).ok


@pytest.mark.parametrize("seed", range(12))
def test_random_damage_is_found(form, tmp_path, seed):
    store = shutil.copytree(form[0], tmp_path / "store")
    rng = random.Random(seed)
    path = rng.choice(files_of(store))
    data = bytearray(path.read_bytes())
    match rng.randrange(5):
        case 0:
            for _ in range(rng.randint(1, 20)):
                data[rng.randrange(len(data))] ^= rng.randrange(1, 256)
        case 1:
            del data[rng.randrange(len(data)) :]
        case 2:
            start = rng.randrange(len(data))
            del data[start : start + rng.randint(1, 600)]
        case 3:
            start = rng.randrange(len(data) + 1)
            data[start:start] = rng.randbytes(rng.randint(1, 600))
        case 4:
            start, size = rng.randrange(len(data)), rng.randint(1, 600)
            data[start : start + size] = rng.randbytes(len(data[start : start + size]))
    changed = bytes(data) != path.read_bytes()
    path.write_bytes(data)
    assert damaged_files(store) == ({str(path.relative_to(store))} if changed else set())


@pytest.mark.parametrize("step", [389, pytest.param(97, marks=pytest.mark.slow)])
def test_every_truncation_of_a_shard_is_found(store, step):
    path = store / "train" / "00001.tar"
    data = path.read_bytes()
    for size in range(0, len(data), step):
        path.write_bytes(data[:size])
        assert damaged_files(store) == {"train/00001.tar"}


def test_missing_files_are_named(store):
    for path in files_of(store):
        if path.name != "store.json":
            path.unlink()
    result = verify_store(store.parent / "store")
    assert {damage.file for damage in result.damage} == {
        *("codebook.safetensors", "skipped.jsonl", "val/00000.tar", "val/00001.tar"),
        *("train/00000.tar", "train/00001.tar", "train/00002.tar"),
        *("train/blocks.index", "val/blocks.index"),
    }
    assert all("missing" in damage.reason for damage in result.damage)


def test_without_a_card_there_is_no_store(store):
    (store / "store.json").unlink()
    with pytest.raises(UsageError, match=r"holds no store\.json"):
        verify_store(store)


def test_files_that_the_card_does_not_name_are_damage(store):
    (store / "train" / "00003.tar").write_bytes((store / "train" / "00000.tar").read_bytes())
    (store / "notes.txt").touch()
    (store / ".tokenize").mkdir()
    (store / ".tokenize" / "job.json").touch()
    assert damaged_files(store) == {"train/00003.tar", "notes.txt"}


def test_swapped_and_duplicated_shards_are_found(store):
    one, other = store / "val" / "00000.tar", store / "val" / "00001.tar"
    first, second = one.read_bytes(), other.read_bytes()
    one.write_bytes(second)
    other.write_bytes(first)
    assert damaged_files(store) == {"val/00000.tar", "val/00001.tar"}
    other.write_bytes(second)
    assert damaged_files(store) == {"val/00000.tar"}


def test_a_folder_in_place_of_a_file(store):
    for name in ("skipped.jsonl", "train/00000.tar"):
        (store / name).unlink()
        (store / name).mkdir()
    assert damaged_files(store) == {"skipped.jsonl", "train/00000.tar"}


@pytest.mark.parametrize("kind", list(MEMBER_SUFFIXES))
@pytest.mark.parametrize("block", [0, 2])
def test_a_damaged_block_is_named(store, kind, block):
    path = store / "train" / "00000.tar"
    start, end = member(store, 0, block, kind)
    flip(path, (start + end) // 2)
    (damage,) = verify_store(store).damage
    assert (damage.file, damage.block) == ("train/00000.tar", block)
    assert f"the checksum of a {kind.name.lower()} frame" in damage.reason
    split = seit.open(store)["train"]
    message = rf"train/00000\.tar, block {block}: the checksum of a {kind.name.lower()} frame is"
    with pytest.raises(DamagedError, match=message):
        split[3 * block]
    with pytest.raises(DamagedError, match=message):
        list(split)
    column = {
        Kind.TOKENS: lambda: split.tokens[[3 * block, -1]],
        Kind.LABELS: lambda: split.labels,
        Kind.KEYS: lambda: split.keys,
    }.get(kind)
    if column:
        with pytest.raises(DamagedError, match=message):
            column()
    other = 3 * (2 - block)
    assert split[other].key == f"train/bilder/ü{other}.jpg"


def test_all_damage_is_listed(store):
    for shard, block, kind in ((0, 0, Kind.TOKENS), (0, 0, Kind.KEYS), (0, 2, Kind.LABELS)):
        start, _ = member(store, shard, block, kind)
        flip(store / "train" / "00000.tar", start + 21)
    flip(store / "skipped.jsonl", 0)
    found = [(damage.file, damage.block) for damage in verify_store(store).damage]
    assert found == [
        ("skipped.jsonl", None),
        *(("train/00000.tar", block) for block in (0, 0, 2)),
    ]


def test_a_shard_that_shrinks_under_an_open_split(store):
    split = seit.open(store)["train"]
    assert split[0].key
    (store / "train" / "00000.tar").write_bytes(b"")
    with pytest.raises(DamagedError, match=r"00000\.tar ends inside"):
        split[0]
    (store / "train" / "00000.tar").unlink()
    with pytest.raises(DamagedError, match=r"00000\.tar cannot be read: No such file"):
        split[0]


def test_labels_without_a_class_are_damage(store):
    edit_card(store, lambda body: body.update(classes=["ant"]))
    reasons = [damage.reason for damage in verify_store(store).damage]
    assert reasons
    assert all(reason.endswith("for 1 classes") for reason in reasons)


def test_a_future_version_is_a_usage_error_and_a_damaged_digit_is_damage(store):
    text = (store / "store.json").read_text()
    (store / "store.json").write_text(text.replace('"version": 1', '"version": 3', 1))
    (damage,) = verify_store(store).damage
    assert damage.file == "store.json"
    assert "store version 3" in damage.reason
    edit_card(store, lambda body: None)
    with pytest.raises(
        UsageError, match="version 3; this version of seit reads version 1: upgrade"
    ):
        verify_store(store)


def test_names_that_are_not_text_can_be_reported(store):
    try:
        (store / "bad\udcff.tar").touch()
    except (OSError, UnicodeError):
        pytest.skip("this file system takes only text as names")
    (damage,) = verify_store(store).damage
    assert damage.file.encode() == "bad\N{REPLACEMENT CHARACTER}.tar".encode()


def test_a_damaged_tar_header_costs_no_sample(store):
    path = store / "train" / "00000.tar"
    for name in (b"00000-0001.tokens", b"00000-0002.keys"):
        flip(path, path.read_bytes().index(name))
    (damage,) = verify_store(store).damage
    assert (damage.file, damage.block) == ("train/00000.tar", None)
    assert "the tar header at byte" in damage.reason
    split = seit.open(store)["train"]
    assert [sample.key for sample in split] == [f"train/bilder/ü{n}.jpg" for n in range(16)]


def sealed_index(store, sizes):
    """Put an index of other sizes, a list of arrays, in place, and have the card agree with it."""
    data = b"".join(encode_index(np.array(entry)) for entry in sizes)
    (store / "train" / "blocks.index").write_bytes(data)
    record = record_of(store, "train/blocks.index")

    def change(body):
        for entry in body["files"]:
            if entry["file"] == record.file:
                entry.update(bytes=record.bytes, sha256=record.sha256)

    edit_card(store, change)


def sizes_of(store):
    return [shard.places.sizes_n4.copy() for shard in seit.open(store)["train"].shards]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda sizes: sizes[0].__setitem__((0, 0), 49), "49 bytes of tokens where 3 samples"),
        (lambda sizes: sizes[0].__setitem__((0, 1), 0), "lacks a column"),
        (lambda sizes: sizes[0].__setitem__((0, 3), 23), "the size of no frame"),
        (lambda sizes: sizes[0].__setitem__((0, 2), 2**32 - 1), "the size of no frame"),
        (lambda sizes: sizes[2].__setitem__((1, 2), 2**28), "of a file of"),
        (lambda sizes: sizes.pop(), "where the blocks of the card take"),
        (lambda sizes: sizes.reverse(), "shard 0: the checksum of a index frame"),
        (lambda sizes: sizes[0].__setitem__(0, sizes[0][0] + [0, 512, 0, 0]), "disagree"),
    ],
)
def test_sealed_nonsense_in_an_index_is_damage(store, change, reason):
    sizes = sizes_of(store)
    change(sizes)
    sealed_index(store, sizes)
    damage = verify_store(store).damage
    assert damage[0].file == "train/blocks.index"
    assert {entry.file for entry in damage} <= {"train/blocks.index", "train/00000.tar"}
    assert any(reason in entry.reason for entry in damage)
    with pytest.raises(DamagedError):
        list(seit.open(store)["train"])


def test_a_damaged_index_is_named_and_spoils_its_shard_alone(store):
    path = store / "train" / "blocks.index"
    flip(path, 30)
    (damage,) = verify_store(store).damage
    assert damage.file == "train/blocks.index"
    split = seit.open(store)["train"]
    with pytest.raises(
        DamagedError, match=r"train/blocks\.index, shard 0: the checksum of a index"
    ):
        split[0]
    assert split[7].key == "train/bilder/ü7.jpg"
    with pytest.raises(DamagedError, match=r"blocks\.index, shard 0"):
        list(seit.open(store, on_damage="skip")["train"])
    path.unlink()
    with pytest.raises(DamagedError, match=r"train/blocks\.index is missing"):
        seit.open(store)["train"][7]


def damage_blocks(store):
    """Damage the keys of block 1 and the tokens of block 2 of the first shard, lose the second."""
    for block, kind in ((1, Kind.KEYS), (2, Kind.TOKENS)):
        start, _ = member(store, 0, block, kind)
        flip(store / "train" / "00000.tar", start + 21)
    (store / "train" / "00001.tar").unlink()


@pytest.mark.parametrize("indexed", [True, False])
def test_samples_of_damaged_blocks_are_skipped_alike_everywhere(tmp_path, indexed):
    columns = build_store(tmp_path, shards=SHARDS, block_samples=3, indexed=indexed)["train"]
    damage_blocks(tmp_path)
    split = seit.open(tmp_path, on_damage="skip")["train"]
    left = [0, 1, 2, *range(10, 16)]
    assert split.rows.tolist() == left
    assert [sample.key for sample in split] == [columns.keys[row] for row in left]
    assert split.keys == tuple(columns.keys[row] for row in left)
    np.testing.assert_array_equal(split.labels, columns.labels[left])
    np.testing.assert_array_equal(np.stack(list(split.tokens)), columns.tokens[left])
    assert len(split.packed()) == len(left)
    np.testing.assert_array_equal(
        split.packed(), pack(columns.tokens[left].reshape(len(left), -1), 4)
    )
    assert len(split) == 16
    assert split.skipped_samples == 7
    found = [(entry.file, entry.block, list(entry.rows)) for entry in split.damaged_blocks]
    assert found == [
        ("train/00000.tar", 1, [3, 4, 5]),
        ("train/00000.tar", 2, [6]),
        ("train/00001.tar", 0, [7, 8, 9]),
    ]
    assert "the checksum of a keys frame" in split.damaged_blocks[0].reason
    for number in (3, 6, 8):
        with pytest.raises(DamagedError, match=r"train/0000[01]\.tar"):
            split[number]
        with pytest.raises(DamagedError, match=r"train/0000[01]\.tar"):
            _ = seit.open(tmp_path)["train"].labels if number == 8 else split[number]
    assert split[2].key == columns.keys[2]


def test_a_loader_takes_what_is_left(store):
    damage_blocks(store)
    split = seit.open(store, on_damage="skip")["train"]
    (batch,) = seit.loader(split, batch_size=16, shuffle=False).epoch(0)
    np.testing.assert_array_equal(batch.labels.numpy(), split.labels)
    np.testing.assert_array_equal(batch.tokens.numpy(), np.stack(list(split.tokens)))


def test_an_intact_store_skips_nothing(intact):
    split = seit.open(intact, on_damage="skip")["train"]
    assert (len(list(split)), split.skipped_samples, split.damaged_blocks) == (16, 0, ())
    assert split.rows.tolist() == list(range(16))
    with pytest.raises(UsageError, match="'raise' or 'skip'"):
        seit.open(intact, on_damage="ignore")


def contents(store):
    return {str(path.relative_to(store)): path.read_bytes() for path in files_of(store)}


def test_repair_restores_every_file(intact, store, tmp_path):
    damage_blocks(store)
    (store / "val" / "00001.tar").write_bytes((store / "val" / "00000.tar").read_bytes())
    (store / "codebook.safetensors").unlink()
    (store / "train" / "blocks.index").write_bytes(b"")
    result = verify_store(store, repair_from=intact)
    assert result.ok
    assert set(result.repaired) == {
        *("codebook.safetensors", "train/blocks.index", "train/00000.tar", "train/00001.tar"),
        "val/00001.tar",
    }
    assert contents(store) == contents(intact)
    assert verify_store(store, repair_from=intact).repaired == ()


@pytest.mark.parametrize("change", [Path.unlink, lambda path: flip(path, 500)])
def test_repair_restores_a_card(intact, store, change):
    change(store / "store.json")
    flip(store / "val" / "00000.tar", 600)
    result = verify_store(store, repair_from=intact)
    assert result.ok
    assert result.repaired == ("store.json", "val/00000.tar")
    assert contents(store) == contents(intact)


def test_repair_takes_nothing_from_another_store(store, tmp_path):
    other = tmp_path / "other"
    build_store(other, shards=SHARDS, block_samples=3, with_metadata=True, seed=1)
    flip(store / "train" / "00000.tar", 530)
    before = contents(store)
    result = verify_store(store, repair_from=other)
    (damage,) = result.damage
    assert result.repaired == ()
    assert damage.file == "train/00000.tar"
    assert "not repaired: the file in" in damage.reason
    assert "is not what the card says either" in damage.reason
    flip(store / "store.json", 500)
    (damage,) = verify_store(store, repair_from=other).damage
    assert damage.file == "store.json"
    assert "they are not copies of one store" in damage.reason
    (store / "store.json").unlink()
    with pytest.raises(UsageError, match=r"holds no store\.json"):
        verify_store(store, repair_from=other)
    before.pop("store.json")
    assert contents(store) == before


def test_a_place_that_is_no_copy_is_refused_even_where_all_is_intact(store, tmp_path):
    (tmp_path / "empty").mkdir()
    for place in (tmp_path / "nowhere", tmp_path / "empty"):
        with pytest.raises(UsageError, match=f"{place.name} holds no file of"):
            verify_store(store, repair_from=place)


def test_what_the_copy_lacks_is_said(intact, store, tmp_path):
    copy = shutil.copytree(intact, tmp_path / "copy")
    (copy / "val" / "00000.tar").unlink()
    flip(copy / "train" / "00002.tar", 530)
    flip(copy / "store.json", 500)  # nobody needs the copy's card
    for name in ("val/00000.tar", "train/00002.tar", "train/00001.tar"):
        (store / name).unlink()
    result = verify_store(store, repair_from=copy)
    assert result.repaired == ("train/00001.tar",)
    reasons = {damage.file: damage.reason for damage in result.damage}
    assert set(reasons) == {"val/00000.tar", "train/00002.tar"}
    assert re.search("is missing; not repaired: .*/copy lacks this file", reasons["val/00000.tar"])
    assert "not what the card says" in reasons["train/00002.tar"]
    assert not list(store.rglob("*.partial"))


def test_keys_that_occur_twice_are_damage(tmp_path):
    columns = Columns(
        tokens=np.zeros((8, 4, 4), np.uint16),
        labels=np.zeros(8),
        keys=["a", "b", "c", "b", "d", "e", "a", "b"],
        metadata=[{}] * 8,
    )
    build_store(tmp_path, shards={"train": (4, 4)}, block_samples=2)
    shards = [
        write_shard(
            tmp_path,
            columns,
            slice(start, start + 4),
            split="train",
            index=start // 4,
            codec=PackedCodec(TokenLayout((4, 4), 16)),
            block_samples=2,
        )
        for start in (0, 4)
    ]
    records = [*shards, write_index(tmp_path, "train", shards)]
    for record in records:
        edit_card(tmp_path, partial(agree, record))
    found = [(entry.file, entry.block, entry.reason) for entry in verify_store(tmp_path).damage]
    assert found == [
        ("train/00000.tar", 1, "the key 'b' of sample 3 is that of sample 1 too"),
        ("train/00001.tar", 1, "the key 'a' of sample 6 is that of sample 0 too"),
        ("train/00001.tar", 1, "the key 'b' of sample 7 is that of sample 1 too"),
    ]


def agree(record, body):
    """Write a file's size and sum into a card's body."""
    for entry in (*body["files"], *body["splits"]["train"]["shards"]):
        if entry["file"] == record.file:
            entry.update(bytes=record.bytes, sha256=record.sha256)


@pytest.fixture(scope="module", params=FORMS, ids="-".join)
def larger(request, tmp_path_factory):
    codec, container = request.param
    path = tmp_path_factory.mktemp("larger")
    shards = {"train": (40, 40, 33, 40, 40, 7), "val": (24, 24)}
    if container == "zarr":
        shards = {"train": (40, 40, 40, 40, 40, 7), "val": (24, 24)}
    build_store(
        path,
        shards=shards,
        block_samples=8,
        with_metadata=True,
        grid=(8, 8),
        codec=codec,
        container=container,
    )
    return path


def shard_damage(rng, store):
    """Damage shards at random; returns the names of those whose bytes are others now."""
    before = contents(store)
    paths = sorted([*store.rglob("*.tar"), *store.glob("*/*/c/**/*")])
    paths = [path for path in paths if path.is_file()]
    one, other = rng.sample(paths, 2)
    data = bytearray(one.read_bytes())
    match rng.randrange(6):
        case 0:
            for _ in range(rng.randint(1, 9)):
                flip(one, rng.randrange(len(data)), 1 << rng.randrange(8))
        case 1:
            one.write_bytes(data[: rng.randrange(len(data))])
        case 2:
            content = other.read_bytes()
            other.write_bytes(data)
            one.write_bytes(content)
        case 3:
            one.unlink()
        case 4:
            other.write_bytes(data)
        case 5:
            start = rng.randrange(len(data) // 512 + 1) * 512
            data[start : start + 512] = bytes(512)
            one.write_bytes(data)
    after = contents(store)
    return {name for name in before if before[name] != after.get(name)}


@pytest.mark.parametrize(
    "seed", [*range(4), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(4, 12))]
)
def test_damaged_shards_are_found_read_past_and_repaired(larger, tmp_path, seed):
    store = shutil.copytree(larger, tmp_path / "store")
    changed = shard_damage(random.Random(seed), store)
    assert damaged_files(store) == changed
    whole = {split: tuple(part.keys) for split, part in seit.open(larger).items()}
    for name, split in seit.open(store, on_damage="skip").items():
        keys = [sample.key for sample in split]
        assert tuple(keys) == split.keys
        if not any(changed_name.startswith(name) for changed_name in changed):
            assert tuple(keys) == whole[name]
        assert len(keys) == len(split) - split.skipped_samples
    result = verify_store(store, repair_from=larger)
    assert (result.ok, set(result.repaired)) == (True, changed)
    assert contents(store) == contents(larger)


# Zarr groups, and the tables of the context codec


@pytest.fixture
def zarr_store(tmp_path):
    build_store(tmp_path, shards=EVEN_SHARDS, block_samples=3, with_metadata=True, container="zarr")
    return tmp_path


def test_a_store_of_each_form_is_intact(form):
    path, columns = form
    seen = []
    result = verify_store(path, progress=lambda done, total: seen.append((done, total)))
    assert result.ok
    assert result.blocks == 2 + 2 + 2 + 2 + 1
    assert result.bytes == sum(file.stat().st_size for file in files_of(path))
    total = len(files_of(path)) - 1
    assert seen == [(number + 1, total) for number in range(total)]
    split = seit.open(path, on_damage="skip")["train"]
    assert (split.keys, split.skipped_samples) == (tuple(columns["train"].keys), 0)


def test_a_store_of_each_form_is_copied_and_repaired(form, tmp_path):
    path, _ = form
    store = tmp_path / "store"
    assert copy_store(path, store) == sum(file.stat().st_size for file in files_of(path))
    assert contents(store) == contents(path)
    names = sorted(contents(store))
    for number, name in enumerate(names):
        if number % 2:
            (store / name).unlink()
        elif name != "store.json":
            flip(store / name, 0)
    result = verify_store(store, repair_from=path)
    assert result.ok
    assert set(result.repaired) >= {name for name in names if name != "store.json"}
    assert contents(store) == contents(path)


def column_file(kind, shard):
    tail = "/0/0" if kind is Kind.TOKENS else ""
    return f"train.zarr/{kind.name.lower()}/c/{shard}{tail}"


@pytest.mark.parametrize("kind", list(MEMBER_SUFFIXES))
def test_a_damaged_chunk_is_named(zarr_store, kind):
    name = column_file(kind, 1)
    flip(zarr_store / name, 25 if kind is Kind.TOKENS else 2)
    (damage,) = verify_store(zarr_store).damage
    assert (damage.file, damage.block) == (name, 0)
    assert "checksum of " in damage.reason
    split = seit.open(zarr_store)["train"]
    message = rf"^{name}, block 0: the checksum of .* \(samples 6 to 8\); `seit verify` lists"
    for read in (lambda: split[7], lambda: list(split)):
        with pytest.raises(DamagedError, match=message):
            read()
    assert split[5].key == "train/bilder/ü5.jpg"
    assert split[9].key == "train/bilder/ü9.jpg"


@pytest.mark.parametrize("kind", list(MEMBER_SUFFIXES))
def test_a_lost_column_loses_its_blocks(zarr_store, kind):
    name = column_file(kind, 1)
    flip(zarr_store / name, -1)
    (damage,) = verify_store(zarr_store).damage
    assert (damage.file, damage.block) == (name, None)
    assert "not an intact shard: the checksum of the index" in damage.reason
    (zarr_store / name).unlink()
    (damage,) = verify_store(zarr_store).damage
    assert (damage.file, damage.block, damage.reason) == (name, None, "is missing")
    split = seit.open(zarr_store, on_damage="skip")["train"]
    found = [(entry.file, entry.block, list(entry.rows)) for entry in split.damaged_blocks]
    tokens = "train.zarr/tokens/c/1/0/0"
    assert found == [(tokens, 0, [6, 7, 8]), (tokens, 1, [9, 10, 11])]
    assert name in split.damaged_blocks[0].reason
    assert split.rows.tolist() == [*range(6), *range(12, 16)]


@pytest.mark.parametrize(("codec", "container"), FORMS)
def test_samples_of_damaged_blocks_are_skipped_in_every_form(tmp_path, codec, container):
    columns = build_store(
        tmp_path,
        shards=EVEN_SHARDS,
        block_samples=3,
        with_metadata=True,
        codec=codec,
        container=container,
    )["train"]
    shard = seit.open(tmp_path)["train"].shards[1]
    offset, _ = shard._find(1, Kind.TOKENS)
    flip(tmp_path / shard.files[Kind.TOKENS].file, offset + 21)
    split = seit.open(tmp_path, on_damage="skip")["train"]
    left = [*range(9), *range(12, 16)]
    assert split.rows.tolist() == left
    assert [sample.key for sample in split] == [columns.keys[row] for row in left]
    assert [sample.metadata for sample in split] == [columns.metadata[row] for row in left]
    np.testing.assert_array_equal(split.labels, columns.labels[left])
    np.testing.assert_array_equal(np.stack(list(split.tokens)), columns.tokens[left])
    np.testing.assert_array_equal(
        split.packed(), pack(columns.tokens[left].reshape(len(left), -1), 4)
    )
    (damage,) = split.damaged_blocks
    assert (damage.file, damage.block) == (shard.record.file, 1)


def reseal(store, name, data):
    """Put other bytes in place of a file that is no shard, and have the card agree with them."""
    (store / name).write_bytes(data)
    edit_card(store, partial(agree, record_of(store, name)))


def test_sealed_documents_that_say_something_else_are_damage(zarr_store):
    for name in ("zarr.json", "labels/zarr.json"):
        path = zarr_store / "train.zarr" / name
        reseal(zarr_store, f"train.zarr/{name}", path.read_bytes().replace(b"}", b"} ", 1))
    assert verify_store(zarr_store).ok
    path = zarr_store / "train.zarr" / "labels" / "zarr.json"
    document = path.read_bytes().replace(b'"fill_value": -1', b'"fill_value": 0')
    reseal(zarr_store, "train.zarr/labels/zarr.json", document)
    edit_card(zarr_store, lambda body: body.update(classes=["ant", "bee", "cat", "dog"]))
    found = [(entry.file, entry.reason) for entry in verify_store(zarr_store).damage]
    assert [file for file, _ in found] == [
        *("train.zarr/zarr.json", "train.zarr/labels/zarr.json", "val.zarr/zarr.json"),
    ]
    assert "does not describe what the card does ('fill_value' is another)" in found[1][1]


def test_keys_that_occur_twice_in_a_group_are_damage(zarr_store):
    first = (zarr_store / "train.zarr" / "keys" / "c" / "0").read_bytes()
    reseal(zarr_store, "train.zarr/keys/c/1", first)
    found = [(entry.file, entry.block, entry.reason) for entry in verify_store(zarr_store).damage]
    assert len(found) == 6
    reason = "the key 'train/bilder/ü0.jpg' of sample 6 is that of sample 0 too"
    assert found[0] == ("train.zarr/keys/c/1", 0, reason)


@pytest.mark.parametrize("container", ["wds", "zarr"])
def test_lost_tables_are_damage_of_the_codebook_alone(tmp_path, container):
    build_store(tmp_path, codec="context", container=container)
    path = tmp_path / "codebook.safetensors"
    whole = path.read_bytes()
    reseal(tmp_path, path.name, save({"codebook": load(whole)["codebook"]}))
    (damage,) = verify_store(tmp_path).damage
    assert damage.file == "codebook.safetensors"
    assert "holds no tensor 'codec.tables'" in damage.reason
    path.unlink()
    (damage,) = verify_store(tmp_path).damage
    assert (damage.file, damage.reason) == ("codebook.safetensors", "is missing")


def test_tables_that_another_compressor_wrote_are_intact(tmp_path):
    build_store(tmp_path, codec="context", container="zarr")
    path = tmp_path / "codebook.safetensors"
    tensors = load(path.read_bytes())
    old = tensors["codec.tables"].tobytes()
    new = lzma.compress(lzma.decompress(old), format=lzma.FORMAT_XZ, preset=0)
    assert new != old
    tensors["codec.tables"] = np.frombuffer(new, dtype=np.uint8)
    reseal(tmp_path, path.name, save(tensors))
    document = tmp_path / "train.zarr" / "tokens" / "zarr.json"
    replaced = document.read_bytes().replace(base64.b64encode(old), base64.b64encode(new))
    reseal(tmp_path, "train.zarr/tokens/zarr.json", replaced)
    assert verify_store(tmp_path).ok
