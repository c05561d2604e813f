import random
import shutil

import pytest
from stores import build_store, edit_card, replace_shard

import seit
from seit.errors import DamagedError, UsageError
from seit.shards import verify_store
from seit.shards.frames import Kind

SHARDS = {"train": (7, 3, 6), "val": (4, 4)}


@pytest.fixture(scope="module")
def intact(tmp_path_factory):
    path = tmp_path_factory.mktemp("intact")
    build_store(path, shards=SHARDS, block_samples=3, with_metadata=True)
    return path


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
    assert seen == [(number + 1, 7) for number in range(7)]


def test_every_flipped_byte_of_every_file_is_found(tmp_path):
    build_store(tmp_path)
    shard = tmp_path / "train" / "00000.tar"
    content = shard.read_bytes()
    num_members = 3
    replace_shard(tmp_path, "train/00000.tar", content[: 1024 * num_members + 1024])
    assert verify_store(tmp_path).ok
    paths = files_of(tmp_path)
    assert len(paths) == 4
    for path in paths:
        data = path.read_bytes()
        with path.open("r+b", buffering=0) as file:
            for place, byte in enumerate(data):
                file.seek(place)
                file.write(bytes([byte ^ (1 << place % 8)]))
                damage = verify_store(tmp_path).damage
                assert [entry.file for entry in damage] == [str(path.relative_to(tmp_path))], place
                file.seek(place)
                file.write(bytes([byte]))
    assert verify_store(tmp_path).ok


@pytest.mark.parametrize("seed", range(40))
def test_random_damage_is_found(intact, store, seed):
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


def test_every_truncation_of_a_shard_is_found(store):
    path = store / "train" / "00001.tar"
    data = path.read_bytes()
    for size in range(0, len(data), 97):
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


@pytest.mark.parametrize("kind", Kind)
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
    with pytest.raises(UsageError, match="store version 3; this seit reads version 1: upgrade"):
        verify_store(store)


def test_names_that_are_not_text_can_be_reported(store):
    try:
        (store / "bad\udcff.tar").touch()
    except (OSError, UnicodeError):
        pytest.skip("this file system takes only text as names")
    (damage,) = verify_store(store).damage
    assert damage.file.encode() == "bad\N{REPLACEMENT CHARACTER}.tar".encode()
