import gzip
import io
import os
import pickle
import subprocess
import sys
import tracemalloc
import zipfile
from contextlib import suppress
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from safetensors.numpy import save_file
from support.stores import build_store, edit_card

from seit.errors import DamagedError, SeitError, UsageError
from seit.shards import open_store
from seit.stores import verify_store
from seit.stores.official import (
    OfficialSplit,
    decode_escaped,
    encode_escaped,
    export_official,
    find_official,
    import_official,
    read_codebook,
)

GRID = (2, 3)
LENGTH = 6


def slow_encode(samples):
    """The byte stream and its offsets, id by id."""
    stream, offsets = bytearray(), [0]
    for sample in samples:
        for token in sample:
            if token < 255:
                stream.append(token)
            else:
                stream += bytes([255, token - 255])
        offsets.append(len(stream))
    return bytes(stream), offsets


def slow_decode(stream, offsets):
    """Samples, byte by byte, as a reader does that takes every 255 for the start of an id."""
    samples = []
    for start, end in pairwise(offsets):
        sample, base = [], 0
        for byte in stream[start:end]:
            if byte == 255:
                base = 255
            else:
                sample.append(base + byte)
                base = 0
        samples.append(sample)
    return samples


def write_index(folder, offsets, name="train"):
    with gzip.open(folder / f"{name}-token.index.npy.gz", "wb") as file:
        np.save(file, np.asarray(offsets))


def write_data(folder, stream, name="train"):
    (folder / f"{name}-token.data.bin.gz").write_bytes(gzip.compress(stream))


def write_split(folder, samples, labels, name="train"):
    stream, offsets = slow_encode(samples)
    write_data(folder, stream, name)
    write_index(folder, offsets, name)
    (folder / f"{name}-label.txt").write_text("".join(f"{label}\n" for label in labels))


def read_split(folder, name):
    """The ids (N, L) and labels of exported files."""
    stream = gzip.decompress((folder / f"{name}-token.data.bin.gz").read_bytes())
    index = gzip.decompress((folder / f"{name}-token.index.npy.gz").read_bytes())
    offsets = np.load(io.BytesIO(index), allow_pickle=False)
    assert (offsets.dtype, offsets[0], offsets[-1]) == (np.int64, 0, len(stream))
    lines = (folder / f"{name}-label.txt").read_text().splitlines()
    return slow_decode(stream, offsets.tolist()), [int(line) for line in lines]


@pytest.fixture
def files(tmp_path):
    """A folder of two small splits: 5 training samples of K = 300 and 2 to validate."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "files"
    folder.mkdir()
    write_split(folder, rng.integers(300, size=(5, LENGTH)).tolist(), [2, 0, 1, -1, 2])
    write_split(folder, rng.integers(300, size=(2, LENGTH)).tolist(), [1, 0], name="val")
    torch.save(torch.from_numpy(rng.normal(size=(300, 4)).astype(np.float32)), codebook_of(folder))
    return folder


def codebook_of(folder):
    return folder / "codebook.ckpt"


def import_files(folder, store, **options):
    return import_official(*find_official(folder), store, **{"grid": GRID, **options})


def assert_refused(kind, message, folder, store, **options):
    """The import fails with one line that matches, and leaves nothing."""
    with pytest.raises(kind, match=message) as caught:
        import_files(folder, store, **options)
    assert "\n" not in str(caught.value)
    assert not store.exists()


# The escape coding


def test_the_bytes_of_each_kind_of_id():
    data, offsets = encode_escaped(np.array([[0, 254, 255], [256, 509, 7]], dtype=np.uint16))
    assert data.tobytes().hex(" ") == "00 fe ff 00 ff 01 ff fe 07"
    assert offsets.tolist() == [0, 4, 9]
    assert (data.dtype, offsets.dtype) == (np.uint8, np.int64)


@st.composite
def grids(draw):
    """Ids (N, L) as lists, often at the edges of the coding."""
    ids = st.integers(0, 509) | st.sampled_from([0, 254, 255, 256, 509])
    length = draw(st.integers(1, 9))
    return length, draw(st.lists(st.lists(ids, min_size=length, max_size=length), max_size=8))


@given(grids())
@settings(deadline=None)
def test_the_coding_equals_the_slow_one_and_comes_back(drawn):
    length, samples = drawn
    tokens = np.array(samples, dtype=np.uint16).reshape(-1, length)
    data, offsets = encode_escaped(tokens)
    stream, places = slow_encode(samples)
    assert (data.tobytes(), offsets.tolist()) == (stream, places)
    found = decode_escaped(data, offsets, length)
    assert found.dtype == np.uint16
    assert found.shape == (len(samples), length)
    assert found.tolist() == samples == slow_decode(stream, places)


@given(st.lists(st.integers(0, 3) | st.integers(253, 255), max_size=24), st.data())
@settings(max_examples=300, deadline=None)
def test_any_bytes_are_damage_or_exactly_what_is_written_for_their_ids(stream, drawn):
    length = drawn.draw(st.integers(1, 4))
    sizes = drawn.draw(st.lists(st.integers(-1, 2 * length + 1), max_size=8))
    offsets = np.cumsum([0, *sizes])
    data = np.array(stream, dtype=np.uint8)
    try:
        tokens = decode_escaped(data, offsets, length)
    except DamagedError:
        return
    assert slow_encode(tokens.tolist()) == (data.tobytes(), offsets.tolist())


@pytest.mark.parametrize("token", [510, 600, 1023, 65535, 1 << 20])
def test_ids_that_do_not_come_back_are_refused(token):
    tokens = np.array([[1, token]], dtype=np.uint32)
    with pytest.raises(UsageError, match=rf"token id {token} .* below 510"):
        encode_escaped(tokens)


@pytest.mark.parametrize(
    ("stream", "offsets", "reason"),
    [
        (b"\1\2\3\4", [0, 3], "found 4 bytes; the offsets end at 3"),
        (b"\1\2\3\4", [1, 2, 4], "the first offset is 1, not 0"),
        (b"\1\2\3\4", [0, 4, 4], "sample 8 takes 0 bytes by its offsets where 2 tokens take 2 to"),
        (b"\1\2\3\4", [0, 4, 2], "sample 8 takes -2 bytes"),
        (b"\1\2\3\4\5", [0, 5], "sample 7 takes 5 bytes"),
        (b"\1\2\3", [0, 3], "sample 7 decodes to 3 tokens where the grid takes 2"),
        (b"\1\2\xff\1\2\3\4", [0, 4, 7], "sample 7 decodes to 3 tokens"),
        (b"\1\2\1\xff\1\2", [0, 2, 4, 6], "the last id of sample 8 is cut off after its byte 255"),
        (b"\1\xff\xff\1", [0, 2, 4], "the last id of sample 7 is cut off"),
        (b"\1\2\xff\xff\0", [0, 2, 5], r"sample 8 holds an id of 510 or more \(two bytes 255"),
        (b"\1\2\1\xff\xff", [0, 2, 5], "sample 8 holds an id of 510 or more"),
    ],
)
def test_what_the_coding_cannot_hold_is_named(stream, offsets, reason):
    data = np.frombuffer(stream, dtype=np.uint8)
    with pytest.raises(DamagedError, match=reason):
        decode_escaped(data, np.array(offsets), 2, first_sample=7)


# Whole files


@pytest.mark.parametrize(("num_codes", "grid"), [(510, (4, 4)), (391, (3, 5)), (2, (1, 1))])
def test_a_store_comes_back_from_its_export(tmp_path, num_codes, grid):
    shards = {"train": (5, 0, 3), "val": (2,), "empty": ()}
    written = build_store(
        tmp_path / "a", grid=grid, num_codes=num_codes, shards=shards, block_samples=2
    )
    store = open_store(tmp_path / "a")
    seen = []
    sizes = export_official(
        store, tmp_path / "files", progress=lambda done, total: seen.append((done, total))
    )
    assert sizes == {path.name: path.stat().st_size for path in (tmp_path / "files").iterdir()}
    assert seen[-1] == (10, 10)
    for name, columns in written.items():
        tokens, labels = read_split(tmp_path / "files", name)
        assert tokens == [sample.ravel().tolist() for sample in columns.tokens]
        assert labels == columns.labels.tolist()
    splits, codebook = find_official(tmp_path / "files")
    assert [split.name for split in splits] == ["empty", "train", "val"]
    card = import_official(splits, codebook, tmp_path / "b", grid=grid, classes=store.classes)
    again = open_store(tmp_path / "b")
    assert again.card == card
    assert verify_store(tmp_path / "b").ok
    for name, columns in written.items():
        np.testing.assert_array_equal(again[name].tokens, columns.tokens)
        assert again[name].labels.tolist() == columns.labels.tolist()
    np.testing.assert_array_equal(again.codebook, store.codebook)
    assert again.classes == store.classes


def test_the_card_of_an_import(files, tmp_path):
    seen = []
    card = import_files(
        files, tmp_path / "store", progress=lambda done, total: seen.append((done, total))
    )
    store = open_store(tmp_path / "store")
    assert seen == [(5, 7), (7, 7)]
    assert store["train"].keys[3] == "train/00000003"
    assert store["val"][1].key == "val/00000001"
    assert store.classes == ("0", "1", "2")
    assert store["train"].labels.tolist() == [2, 0, 1, -1, 2]
    assert card.source_bytes == sum(path.stat().st_size for path in files.iterdir())
    assert card.job["imported_from"] == "naver-ai/seit files"
    assert card.tokenizer.name == "official"
    assert (card.tokenizer.grid, card.tokenizer.codebook_dim) == (GRID, 4)
    assert (tmp_path / "store" / "skipped.jsonl").read_bytes() == b""
    assert [record.file for record in card.files] == [
        *("codebook.safetensors", "skipped.jsonl", "train/blocks.index", "val/blocks.index"),
    ]


def test_the_tokenizer_of_seit_is_known_by_its_codebook(files, tmp_path):
    cards = []
    for number, shape in enumerate([(391, 32), (391, 32), (391, 31)]):
        codebook = np.full(shape, number // 2, dtype=np.float32)
        np.save(tmp_path / "book.npy", codebook)
        splits, _ = find_official(files)
        store = tmp_path / f"store{number}"
        cards.append(import_official(splits, tmp_path / "book.npy", store, grid=GRID).tokenizer)
    assert [card.name for card in cards] == ["seit-vitvqgan", "seit-vitvqgan", "official"]
    assert cards[0].fingerprint == cards[1].fingerprint != cards[2].fingerprint
    assert len(cards[0].fingerprint) == 64


def test_a_large_split_makes_shards_of_eight_blocks(tmp_path):
    samples = np.random.default_rng(1).integers(400, size=(8 * 1024 + 1030, 2))
    write_split(tmp_path, samples.tolist(), range(len(samples)))
    np.save(tmp_path / "codebook.npy", np.ones((400, 1), dtype=np.float32))
    card = import_files(tmp_path, tmp_path / "store", grid=(2, 1))
    assert [shard.samples for shard in card.splits["train"]] == [8192, 1030]
    split = open_store(tmp_path / "store")["train"]
    np.testing.assert_array_equal(np.asarray(split.tokens)[..., 0], samples)
    assert split.labels.tolist() == list(range(len(samples)))
    assert split.keys[8192] == "train/00008192"
    assert verify_store(tmp_path / "store").ok


def test_large_grids_are_coded_piece_by_piece(tmp_path, monkeypatch):
    for module in ("splits", "exporter"):
        monkeypatch.setattr(f"seit.stores.official.{module}.PIECE_TOKENS", 13)
    written = build_store(tmp_path / "a", grid=GRID, num_codes=300, shards={"train": (21,)})
    export_official(open_store(tmp_path / "a"), tmp_path / "files")
    card = import_files(tmp_path / "files", tmp_path / "b")
    assert card.block_samples == 2
    assert [shard.samples for shard in card.splits["train"]] == [16, 5]
    np.testing.assert_array_equal(
        open_store(tmp_path / "b")["train"].tokens, written["train"].tokens
    )


@pytest.mark.skipif(sys.platform == "darwin", reason="its file systems refuse such names")
def test_files_of_any_name_are_imported(files, tmp_path):
    odd = os.fsdecode(b"caf\xe9-token.data.bin.gz")
    (files / "train-token.data.bin.gz").rename(files / odd)
    split = OfficialSplit("train", files / odd, files / "train-token.index.npy.gz")
    card = import_official([split], codebook_of(files), tmp_path / "store", grid=GRID)
    assert card.job["splits"]["train"][0] == "caf\ufffd-token.data.bin.gz"
    assert open_store(tmp_path / "store").card == card


def test_samples_without_a_label_file_are_unlabelled(files, tmp_path):
    splits, codebook = find_official(files)
    split = OfficialSplit("train", splits[0].data, splits[0].index)
    card = import_official([split], codebook, tmp_path / "store", grid=GRID)
    assert card.classes == ()
    assert open_store(tmp_path / "store")["train"].labels.tolist() == [-1] * 5


@pytest.mark.parametrize("dtype", ["<i4", ">i8", "<u8", "<u2"])
def test_offsets_of_other_integers_are_read(files, tmp_path, dtype):
    samples, _ = read_split(files, "train")
    _, offsets = slow_encode(samples)
    write_index(files, np.array(offsets, dtype=dtype))
    import_files(files, tmp_path / "store")
    tokens = np.asarray(open_store(tmp_path / "store")["train"].tokens)
    assert tokens.reshape(-1, LENGTH).tolist() == samples


# Damage and wrong input


SAMPLE = [[1, 2, 3, 4, 5, 299]]


@pytest.mark.parametrize(
    ("stream", "offsets", "message"),
    [
        (b"\1\2\3\4\5\6", [0, 7], "data.bin.gz ends where 1 more bytes belong"),
        (b"\1\2\3\4\5\6\7", [0, 6], "data.bin.gz continues after its last sample"),
        (b"\1\2\3\4\5\6", [1, 7], "index.npy.gz begins with the offset 1, not with 0"),
        (b"\1\2\3\4\5\6", [0, -6], "index.npy.gz: sample 0 takes -6 bytes"),
        (b"\1\2\3\4\5\6", [0, 2**62], "index.npy.gz: sample 0 takes 4611686018427387904 bytes"),
        (b"\1\2\3\4\5\6", np.uint64([0, 2**64 - 6]), "index.npy.gz: sample 0 takes -6 bytes"),
        (b"\1\2\3\4\5\6" * 2, [0, 6, -(2**63)], "index.npy.gz: sample 1 takes"),
        (b"\1\2\3\4\5\6" * 2, [0, 6, 6], "index.npy.gz: sample 1 takes 0 bytes"),
        (b"\1\2\3\4\5\6" * 2, [0, 7, 12], "index.npy.gz: sample 1 takes 5 bytes"),
        (b"\1\2\3\4\5\6" * 2, [0, 7, 13], "data.bin.gz ends where 1 more"),
        (b"\1\2\3\4\5\6\7", [0, 7], "data.bin.gz: sample 0 decodes to 7 tokens where the grid"),
        (b"\1\2\3\4\5\xff", [0, 6], "data.bin.gz: the last id of sample 0 is cut off"),
        (b"\1\2\3\4\5\xff\xff\1", [0, 8], "data.bin.gz: sample 0 holds an id of 510 or more"),
        (b"\1\2\3\4\5\xff\x2d", [0, 7], "sample 0 holds token id 300 where the codebook has 300"),
    ],
)
def test_damaged_files_are_refused(files, tmp_path, stream, offsets, message):
    write_data(files, stream)
    write_index(files, offsets)
    (files / "train-label.txt").write_text("0\n" * (len(offsets) - 1))
    assert_refused(DamagedError, message, files, tmp_path / "store")


@pytest.mark.parametrize("name", ["train-token.data.bin.gz", "val-token.index.npy.gz"])
@pytest.mark.parametrize(
    "change",
    [
        lambda data: data[:-4],
        lambda data: data[: len(data) // 2],
        lambda data: b"",
        lambda data: b"PK" + data,
        lambda data: data + b"more",
        lambda data: data[:-6] + bytes(6),
    ],
    ids=["cut", "halved", "empty", "no gzip", "longer", "checksum"],
)
def test_a_damaged_gzip_is_refused(files, tmp_path, name, change):
    (files / name).write_bytes(change((files / name).read_bytes()))
    assert_refused(DamagedError, f"{name} (is not an intact gzip|ends)", files, tmp_path / "store")


def npy(array, **options):
    file = io.BytesIO()
    np.save(file, array, **options)
    return file.getvalue()


class Trap:
    """Code that a pickle would run."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def trapped(path):
    array = np.empty(2, dtype=object)
    array[:] = [0, Trap(path)]
    return npy(array, allow_pickle=True)


@pytest.mark.parametrize(
    ("index", "message"),
    [
        (lambda trap: trapped(trap), r"holds object \(2,\) where offsets"),
        (lambda trap: pickle.dumps(Trap(trap)) + bytes(100), "holds no .npy that can be read"),
        (lambda trap: npy(np.zeros((2, 2), dtype=np.int64)), r"holds int64 \(2, 2\) where"),
        (lambda trap: npy(np.zeros(2)), r"holds float64 \(2,\) where offsets"),
        (lambda trap: npy(np.zeros(0, dtype=np.int64)), r"holds int64 \(0,\) where offsets"),
        (lambda trap: npy(np.arange(1)).replace(b"(1,)", b"(-1)"), "holds no .npy that can be"),
        (lambda trap: npy(np.arange(1)).replace(b"\1\0", b"\2\0", 1), "not of .npy version 1.0"),
        (lambda trap: npy(np.arange(1)).replace(b"<i8", b"<z8"), "holds no .npy that can be read"),
    ],
)
def test_an_index_of_another_kind_is_refused(files, tmp_path, index, message):
    trap = tmp_path / "trap"
    (files / "train-token.index.npy.gz").write_bytes(gzip.compress(index(trap)))
    assert_refused(UsageError, message, files, tmp_path / "store")
    assert not trap.exists()


def test_an_index_that_ends_early_or_late_is_refused(files, tmp_path):
    path = files / "val-token.index.npy.gz"
    index = gzip.decompress(path.read_bytes())
    path.write_bytes(gzip.compress(index[:-8]))
    assert_refused(DamagedError, "val-token.index.npy.gz ends where 8", files, tmp_path / "store")
    path.write_bytes(gzip.compress(index + b"x"))
    assert_refused(DamagedError, "index.npy.gz continues after", files, tmp_path / "store")


@given(place=st.integers(0, 127), byte=st.integers(0, 255), size=st.integers(0, 160))
@settings(max_examples=100, deadline=None)
def test_any_index_is_read_or_refused(tmp_path_factory, place, byte, size):
    folder = tmp_path_factory.mktemp("any")
    write_split(folder, SAMPLE, [0])
    np.save(folder / "codebook.npy", np.zeros((300, 1), dtype=np.float32))
    index = bytearray(npy(np.array([0, 7])))
    index[place] = byte
    (folder / "train-token.index.npy.gz").write_bytes(gzip.compress(index[: size or None]))
    with suppress(SeitError):
        import_files(folder, folder / "store")
    assert (folder / "store").exists() == (folder / "store" / "store.json").exists()


@pytest.mark.parametrize("what", ["data", "index", "header"])
def test_a_bomb_takes_no_memory(files, tmp_path, what):
    zeros = gzip.compress(bytes(1 << 26), 1)
    splits, codebook = find_official(files)
    split = OfficialSplit("train", splits[0].data, splits[0].index)
    if what == "data":
        write_index(files, [0, LENGTH])
        split.data.write_bytes(zeros)
    elif what == "index":
        header = npy(np.zeros(0, dtype=np.int64)).replace(b"(0,), }       ", b"(12345678,), }")
        split.index.write_bytes(gzip.compress(header) + zeros)
    else:
        split.index.write_bytes(gzip.compress(b"\x93NUMPY\x02\x00\xff\xff\xff\xff") + zeros)
    read_codebook(codebook)
    tracemalloc.start()
    try:
        with pytest.raises(SeitError, match=r"continues after|takes 0 bytes|no \.npy"):
            import_official([split], codebook, tmp_path / "store", grid=GRID)
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("2\n0\nx\n-1\n2\n", r"train-label.txt, line 3 is b'x\\n' where a label"),
        ("2\n0\n\n-1\n2\n", r"line 3 is b'\\n' where a label"),
        ("2\n0\n1.0\n-1\n2\n", "line 3 is"),
        ("2\n0\n1_0\n-1\n2\n", "line 3 is"),
        ("2\n0\n1 0\n-1\n2\n", "line 3 is"),
        ("2\n0\n" + "1" * 5000 + "\n-1\n2\n", "line 3 is b'1{64}' where"),
        ("2\n0\n-2\n-1\n2\n", r"line 3: label -2 is outside -1 \(none\) to 1048575"),
        ("2\n0\n9999999999\n-1\n2\n", "line 3: label 9999999999 is outside"),
        ("2\n0\n1\n-1\n", "holds 4 labels where .*train-token.index.npy.gz names 5 samples"),
        ("2\n0\n1\n-1\n2\n2\n", "holds more labels than the 5 samples of"),
        ("", "holds 0 labels"),
    ],
)
def test_labels_that_do_not_fit_are_refused(files, tmp_path, text, message):
    (files / "train-label.txt").write_text(text)
    assert_refused(UsageError, message, files, tmp_path / "store")


def test_labels_may_end_without_a_line_feed_or_with_two_characters(files, tmp_path):
    (files / "train-label.txt").write_bytes(b"2\r\n0\r\n1\r\n-1\r\n2")
    import_files(files, tmp_path / "store")
    assert open_store(tmp_path / "store")["train"].labels.tolist() == [2, 0, 1, -1, 2]


def test_labels_are_below_the_number_of_the_classes(files, tmp_path):
    message = r"train-label.txt, line 1: label 2 is outside -1 \(none\) to 1; name the classes"
    assert_refused(UsageError, message, files, tmp_path / "store", classes=("ant", "bee"))
    card = import_files(files, tmp_path / "store", classes=("ant", "bee", "cat", "dog"))
    assert card.classes == ("ant", "bee", "cat", "dog")


@pytest.mark.parametrize("grid", [(0, 6), (-2, -3), (1, 1 << 15), (1 << 14, (1 << 14) + 1)])
def test_grids_outside_the_limits_are_refused(files, tmp_path, grid):
    assert_refused(UsageError, "a grid of .* is outside", files, tmp_path / "store", grid=grid)


def test_another_grid_is_noticed(files, tmp_path):
    assert_refused(
        DamagedError, "sample 0 takes . bytes by", files, tmp_path / "store", grid=(9, 9)
    )


def test_a_store_goes_into_a_new_or_empty_folder(files, tmp_path):
    store = tmp_path / "deep" / "store"
    store.mkdir(parents=True)
    import_files(files, store)
    before = sorted(store.rglob("*"))
    with pytest.raises(UsageError, match="is not empty; choose a new or empty folder"):
        import_files(files, store)
    assert sorted(store.rglob("*")) == before
    with pytest.raises(UsageError, match="cannot be written"):
        import_files(files, files / "codebook.ckpt")
    assert (files / "codebook.ckpt").is_file()


def test_an_interrupted_import_leaves_an_empty_folder_empty(files, tmp_path):
    store = tmp_path / "store"
    store.mkdir()

    def interrupt(done, total):
        if done == total:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        import_files(files, store, progress=interrupt)
    assert list(store.iterdir()) == []


@pytest.mark.parametrize("name", ["", "../train", "a/b", ".train", "tr ain", "-x"])
def test_names_that_are_no_folder_of_a_split_are_refused(files, tmp_path, name):
    splits, codebook = find_official(files)
    split = OfficialSplit(name, splits[0].data, splits[0].index)
    with pytest.raises(UsageError, match="cannot name a split"):
        import_official([split], codebook, tmp_path / "store", grid=GRID)


def test_splits_and_files_are_checked_first(files, tmp_path):
    splits, codebook = find_official(files)
    missing = OfficialSplit("test", files / "no.gz", splits[0].index)
    for wrong, message in (
        ([], "no split is named to import"),
        ([splits[0], splits[0]], "'train' is named twice"),
        ([missing], "there is no file .*no.gz"),
    ):
        with pytest.raises(UsageError, match=message):
            import_official(wrong, codebook, tmp_path / "store", grid=GRID)
    with pytest.raises(UsageError, match=r"there is no file .*none\.npy"):
        import_official(splits, files / "none.npy", tmp_path / "store", grid=GRID)
    assert not (tmp_path / "store").exists()


# The codebook


def test_a_codebook_is_read_from_each_kind_of_file(tmp_path):
    codebook = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    np.save(tmp_path / "a.npy", codebook)
    np.save(tmp_path / "f.npy", np.asfortranarray(codebook.astype(">f4")))
    save_file({"codebook": codebook, "other": codebook}, tmp_path / "a.safetensors")
    torch.save(torch.from_numpy(codebook), tmp_path / "a.ckpt")
    torch.save(torch.nn.Parameter(torch.from_numpy(codebook)), tmp_path / "a.pt")
    old = torch.from_numpy(codebook)
    torch.save(old, tmp_path / "a.pth", _use_new_zipfile_serialization=False)
    for name in ("a.npy", "f.npy", "a.safetensors", "a.ckpt", "a.pt", "a.pth"):
        found = read_codebook(tmp_path / name)
        assert (found.dtype, found.flags.c_contiguous) == (np.float32, True)
        np.testing.assert_array_equal(found, codebook)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (lambda trap: Trap(trap), "cannot be read as a bare tensor .UnpicklingError.; no code of"),
        (lambda trap: torch.nn.Linear(2, 2), "bare .*tensor; save that alone|cannot be read as"),
        (lambda trap: {"weight": torch.zeros(2, 2)}, "holds a dict where a bare"),
        (lambda trap: torch.zeros(2, 2).to_sparse(), "cannot be read as a bare tensor"),
        (lambda trap: torch.zeros(2, 2, device="meta"), "cannot be read as a bare tensor"),
        (lambda trap: torch.zeros(2, 2, dtype=torch.bfloat16), "cannot be read as a bare tensor"),
        (lambda trap: torch.zeros(2, 2, dtype=torch.float64), r"holds float64 \(2, 2\) where a"),
        (lambda trap: torch.zeros(2), r"holds float32 \(2,\) where a codebook is"),
        (lambda trap: torch.zeros(1, 2), r"holds a codebook \(1, 2\)"),
        (lambda trap: torch.zeros(2, 0), r"holds a codebook \(2, 0\)"),
        (lambda trap: torch.zeros(1, 1).expand(1 << 31, 1 << 16), "too few or too many codes"),
        (lambda trap: torch.tensor([[1.0], [torch.nan]]), "not finite"),
    ],
)
@pytest.mark.parametrize("new", [True, False], ids=["zip", "legacy"])
def test_a_ckpt_of_anything_else_is_refused_and_runs_nothing(tmp_path, value, message, new):
    path, trap = tmp_path / "codebook.ckpt", tmp_path / "trap"
    torch.save(value(trap), path, _use_new_zipfile_serialization=new)
    with pytest.raises(UsageError, match=message) as caught:
        read_codebook(path)
    assert "\n" not in str(caught.value)
    assert not trap.exists()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.ckpt", b"", "cannot be read as a bare tensor"),
        ("a.ckpt", b"text", "cannot be read as a bare tensor"),
        ("a.ckpt", b"PK\3\4" + bytes(60), "cannot be read as a bare tensor"),
        ("a.npy", b"", "holds no .npy that can be read"),
        ("a.npy", trapped("nowhere"), r"does not hold an array object \(2,\)"),
        ("a.npy", npy(np.zeros((4, 4)))[:-1], r"does not hold an array float64 \(4, 4\)"),
        ("a.npy", npy(np.zeros((4, 4)))[:-8], r"does not hold an array float64 \(4, 4\)"),
        ("a.npy", npy(np.zeros((4, 4), dtype=np.int32)), r"holds int32 \(4, 4\)"),
        ("a.npy", npy(np.float32(1)), r"holds float32 \(\)"),
        ("a.safetensors", b"{}", "is no safetensors file"),
        ("a.safetensors", b"\2\0\0\0\0\0\0\0{}", "holds no tensor 'codebook' but none"),
        ("a.bin", b"", "is not a codebook file; expected .ckpt, .pt, .pth, .npy, .safetensors"),
        ("a.npz", b"", "is not a codebook file"),
    ],
)
def test_other_codebook_files_are_refused(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError, match=message) as caught:
        read_codebook(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_a_codebook_is_not_larger_than_its_limit(tmp_path, monkeypatch):
    path = tmp_path / "codebook.ckpt"
    torch.save(torch.zeros(1 << 17, 4), path)
    squeezed = tmp_path / "squeezed.ckpt"
    with (
        zipfile.ZipFile(path) as source,
        zipfile.ZipFile(squeezed, "w", zipfile.ZIP_DEFLATED) as file,
    ):
        for entry in source.namelist():
            file.writestr(entry, source.read(entry))
    monkeypatch.setattr("seit.stores.official.codebook.MAX_CODEBOOK_BYTES", 1 << 20)
    with pytest.raises(UsageError, match="is larger than 1048576 bytes"):
        read_codebook(path)
    with pytest.raises(UsageError, match="unfolds to more than 1048576 bytes"):
        read_codebook(squeezed)


def test_a_pickle_that_would_be_hashed_for_ever_is_refused(tmp_path):
    tuples = b"K\x01\x85" + b"q\x00h\x00\x86" * 60
    entangled = b"\x80\x02}" + tuples + b"K\x01s."
    path = tmp_path / "codebook.ckpt"
    torch.save(torch.zeros(2, 2), path)
    with zipfile.ZipFile(path) as source:
        entries = {name: source.read(name) for name in source.namelist()}
    with zipfile.ZipFile(path, "w") as file:
        for name, content in entries.items():
            file.writestr(name, entangled if name.endswith("data.pkl") else content)
    with pytest.raises(UsageError, match="holds more than a bare"):
        read_codebook(path)
    path.write_bytes(entangled)
    with pytest.raises(UsageError, match="holds more than a bare"):
        read_codebook(path)
    path.write_bytes(b"\x80\x02" + b"N0" * 1000 + b"N.")
    with pytest.raises(UsageError, match="holds more than a bare"):
        read_codebook(path)


# Finding


def names_of(folder):
    splits, codebook = find_official(folder)
    return [(split.name, split.labels.name) for split in splits], codebook.name


def touch(folder, *names):
    for name in names:
        (folder / name).touch()


def test_files_are_found_by_their_names(tmp_path):
    for split in ("train", "val", "train-small"):
        touch(tmp_path, f"{split}-token.data.bin.gz", f"{split}-token.index.npy.gz")
    touch(tmp_path, "train_labels.txt", "imagenet.VAL.label.txt", "labels-train-small.txt")
    touch(tmp_path, "codebook.ckpt", "README.txt", ".codebook.ckpt", "class-labels.json")
    splits, codebook = names_of(tmp_path)
    assert splits == [
        ("train", "train_labels.txt"),
        ("train-small", "labels-train-small.txt"),
        ("val", "imagenet.VAL.label.txt"),
    ]
    assert codebook == "codebook.ckpt"


def test_a_lone_split_may_have_a_label_file_of_no_name(tmp_path):
    touch(tmp_path, "a-token.data.bin.gz", "a-token.index.npy.gz")
    touch(tmp_path, "labels.txt", "seit-codebook.npy")
    assert names_of(tmp_path) == ([("a", "labels.txt")], "seit-codebook.npy")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "holds no file named like train-token.data.bin.gz"),
        (["train-token.data.bin.gz"], "lacks train-token.index.npy.gz, the index of 'train'"),
        (["+"], "holds no label file of split 'train'; name it like train-label.txt"),
        (
            ["+", "val-label.txt", "training-label.txt"],
            r"no label file of split 'train' \(there is training-label.txt, val-label.txt\)",
        ),
        (
            ["+", "train-label.txt", "train_labels.txt"],
            "more than one label file of split 'train': train-label.txt, train_labels.txt; leave",
        ),
        (["+", "train-label.txt"], "holds no codebook; name it like codebook.ckpt"),
        (
            ["+", "train-label.txt", "codebook.ckpt", "codebook.npy"],
            "more than one codebook: codebook.ckpt, codebook.npy",
        ),
    ],
)
def test_missing_and_ambiguous_files_are_named(tmp_path, names, message):
    pair = ["train-token.data.bin.gz", "train-token.index.npy.gz"]
    touch(tmp_path, *(pair + names[1:] if names[:1] == ["+"] else names))
    with pytest.raises(UsageError, match=message):
        find_official(tmp_path)


def test_only_a_folder_is_searched(tmp_path):
    with pytest.raises(UsageError, match="is not a folder; name the one that holds"):
        find_official(tmp_path / "none")


# Export


def test_equal_stores_give_equal_files(tmp_path):
    contents = []
    for name in ("a", "b"):
        build_store(tmp_path / name, num_codes=400)
        sizes = export_official(open_store(tmp_path / name), tmp_path / f"{name}-files")
        contents.append({file: (tmp_path / f"{name}-files" / file).read_bytes() for file in sizes})
    assert contents[0] == contents[1]
    tensor = torch.load(tmp_path / "a-files" / "codebook.ckpt", weights_only=True)
    np.testing.assert_array_equal(tensor.numpy(), open_store(tmp_path / "a").codebook)


def test_a_store_with_an_id_over_the_limit_does_not_fit(tmp_path):
    build_store(tmp_path / "large", num_codes=1000)
    with pytest.raises(UsageError, match=r"token id \d+ .* below 510; tokenize with at most 510"):
        export_official(open_store(tmp_path / "large"), tmp_path / "files")
    assert not (tmp_path / "files").exists()


def test_a_store_of_more_codes_than_are_used_fits(tmp_path):
    write_split(tmp_path, [[1, 2, 3, 4, 5, 509]], [0])
    np.save(tmp_path / "codebook.npy", np.ones((1000, 1), dtype=np.float32))
    import_files(tmp_path, tmp_path / "store")
    export_official(open_store(tmp_path / "store"), tmp_path / "files")
    assert read_split(tmp_path / "files", "train") == ([[1, 2, 3, 4, 5, 509]], [0])
    assert read_codebook(tmp_path / "files" / "codebook.ckpt").shape == (1000, 1)


def test_ids_of_32_bits_are_refused(tmp_path):
    build_store(tmp_path / "a", num_codes=65537, dim=1)
    with pytest.raises(UsageError, match="has ids of more than 16 bits"):
        export_official(open_store(tmp_path / "a"), tmp_path / "files")


def test_labels_of_no_class_are_damage(tmp_path):
    build_store(tmp_path / "a", shards={"train": (50,)})
    edit_card(tmp_path / "a", lambda body: body.update(classes=["ant", "bee"]))
    with pytest.raises(DamagedError, match="labels from -1 to 2 where the card names 2 classes"):
        export_official(open_store(tmp_path / "a"), tmp_path / "files")
    assert not (tmp_path / "files").exists()


def test_an_interrupted_export_leaves_nothing(tmp_path):
    def interrupt(done, total):
        raise KeyboardInterrupt

    build_store(tmp_path / "a")
    with pytest.raises(KeyboardInterrupt):
        export_official(open_store(tmp_path / "a"), tmp_path / "files", progress=interrupt)
    assert not (tmp_path / "files").exists()


def test_an_export_overwrites_nothing(tmp_path):
    build_store(tmp_path / "a")
    folder = tmp_path / "files"
    folder.mkdir()
    (folder / "train-label.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"train-label.txt already exists"):
        export_official(open_store(tmp_path / "a"), folder)
    assert [path.name for path in folder.iterdir()] == ["train-label.txt"]
    assert (folder / "train-label.txt").read_text() == "mine"


def test_a_failed_export_leaves_nothing(tmp_path, monkeypatch):
    build_store(tmp_path / "a", shards={"train": (4, 4), "val": (2,)})
    shard = tmp_path / "a" / "val" / "00000.tar"
    intact = shard.read_bytes()
    shard.write_bytes(intact.replace(b"SEIT", b"TIES", 1))
    with pytest.raises(DamagedError, match=r"val/00000\.tar, block 0"):
        export_official(open_store(tmp_path / "a"), tmp_path / "files")
    assert not (tmp_path / "files").exists()
    shard.write_bytes(intact)
    monkeypatch.setattr(os, "fsync", fail_with_a_full_disk)
    with pytest.raises(SeitError, match=r"the disk is full: .*files could not be written"):
        export_official(open_store(tmp_path / "a"), tmp_path / "files")
    assert not (tmp_path / "files").exists()


def fail_with_a_full_disk(number):
    raise OSError(28, "No space left on device")


def test_a_split_whose_name_is_no_word_is_not_exported(tmp_path):
    build_store(tmp_path / "a")

    def rename(body):
        body["splits"] = {"train set": body["splits"]["train"]}

    edit_card(tmp_path / "a", rename)
    with pytest.raises(UsageError, match=r"'train set' cannot name a split's files"):
        export_official(open_store(tmp_path / "a"), tmp_path / "files")
    assert not (tmp_path / "files").exists()


def test_torch_is_imported_late():
    code = "import sys, seit.stores.official; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
