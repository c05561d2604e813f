import base64
import dataclasses
import errno
import gzip
import json
import lzma
import pickle
import random
import re
import shutil
import struct
import tracemalloc
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path

import google_crc32c
import numpy as np
import pytest
import zarr
from hypothesis import given, settings, strategies as st
from support.stores import fit_codec, smooth_tokens
from zarr.codecs import BytesCodec, Crc32cCodec, ShardingCodec
from zarr.registry import register_codec

from seit.errors import DamagedError, SeitError, UsageError
from seit.files import sha256_of
from seit.shards import (
    Block,
    LocalFolder,
    PackedCodec,
    ShardRecord,
    TokenLayout,
    codecs as codecs_module,
)
from seit.shards.frames import MAX_FRAME_BYTES, MAX_RAW_BYTES, Kind
from seit.shards.zarr import (
    ZarrGroup,
    ZarrSplit,
    check_zarr_group,
    open_zarr_shards,
    write_zarr_split,
)
from seit.shards.zarr.division import MAX_SHARD_BLOCKS
from seit.shards.zarr_codec import SeitCodec

register_codec("seit", SeitCodec)

FORMAT = Path(__file__).parents[2] / "shards" / "FORMAT.md"
CLASSES = ("ant", "bee", "cat")
COLUMNS = (Kind.TOKENS, Kind.LABELS, Kind.KEYS, Kind.METADATA)
MISSING = (2**64 - 1, 2**64 - 1)


class BytesFolder(LocalFolder):
    """A folder in which every file holds the same bytes."""

    def __init__(self, data):
        super().__init__(Path("nowhere"))
        self.data = data

    def read(self, name, offset=0, size=None):
        return self.data[offset : offset + size]


@dataclass
class Group:
    """A written group, what went into it, and how seit reads it back."""

    path: Path
    codec: PackedCodec
    block_samples: int
    columns: dict[Kind, object]
    written: ZarrSplit

    @property
    def folder(self):
        return LocalFolder(self.path.parent)

    def described(self, shards=None, size=None):
        """The group as a card tells of it that says of every file how large it is now."""

        def sized(record):
            path = self.path.parent / record.file
            if size is None and not path.is_file():
                return record
            return dataclasses.replace(record, bytes=size or path.stat().st_size)

        return ZarrGroup.from_records(
            self.path.name,
            [sized(record) for record in self.written.shards] if shards is None else shards,
            {record.file: sized(record) for record in self.written.files},
            layout=self.codec.layout,
            block_samples=self.block_samples,
        )

    def open(self, shards=None):
        return open_zarr_shards(self.folder, self.described(shards), lambda: self.codec)

    def open_as(self, data):
        """The shards, if every file of the group held ``data``."""
        described = self.described(size=len(data))
        return open_zarr_shards(BytesFolder(data), described, lambda: self.codec)

    def check(self, shards=None, codec=None):
        described = self.described(shards)
        for _, error in check_zarr_group(
            self.folder, described, codec=codec or self.codec, tables=None, classes=CLASSES
        ):
            raise error

    def column(self, kind):
        """All entries of a column as seit reads them."""
        parts = [
            shard.open_block(block, kind)
            for shard in self.open()
            for block in range(shard.num_blocks)
        ]
        if kind in (Kind.TOKENS, Kind.LABELS):
            return np.concatenate(parts)
        return [entry for part in parts for entry in part]

    def read_all(self):
        for kind in COLUMNS:
            self.column(kind)

    def files(self):
        """Every file of the group."""
        return sorted(path for path in self.path.rglob("*") if path.is_file())


def write(
    path,
    num_samples,
    *,
    num_codes=391,
    grid=(3, 5),
    block_samples=4,
    shard_samples=8,
    metadata="some",
    tokens=None,
):
    """Write random samples; every third block has metadata if there are to be some."""
    rng = np.random.default_rng(num_samples)
    codec = PackedCodec(TokenLayout(grid=grid, num_codes=num_codes))
    if tokens is None:
        tokens = rng.integers(num_codes, size=(num_samples, *grid)).astype(codec.layout.dtype)
        tokens[..., 0, 0] = num_codes - 1
    labels = rng.integers(-1, len(CLASSES), size=num_samples).astype(np.int32)
    labels[-1:] = 2
    keys = [f"bilder/ü{number}.jpg" * (number % 3) for number in range(num_samples)]
    blocks, entries = [], []
    for start in range(0, num_samples, block_samples):
        rows = slice(start, min(start + block_samples, num_samples))
        has_some = metadata == "some" and (start // block_samples) % 3 == 1
        described = [{"n": number, "ß": None} for number in range(rows.start, rows.stop)]
        entries += described if has_some else [{}] * len(described)
        blocks.append(
            Block(
                tokens[rows],
                labels[rows],
                tuple(keys[rows]),
                tuple(described) if has_some else None,
            )
        )
    written = write_zarr_split(
        path,
        iter(blocks),
        codec=codec,
        num_samples=num_samples,
        block_samples=block_samples,
        shard_samples=shard_samples,
        classes=CLASSES,
    )
    columns = {Kind.TOKENS: tokens, Kind.LABELS: labels, Kind.KEYS: keys, Kind.METADATA: entries}
    return Group(path, codec, block_samples, columns, written)


@pytest.fixture(scope="module")
def intact(tmp_path_factory):
    return write(tmp_path_factory.mktemp("intact") / "train.zarr", 21)


@pytest.fixture
def group(intact, tmp_path):
    shutil.copytree(intact.path, tmp_path / intact.path.name)
    return dataclasses.replace(intact, path=tmp_path / intact.path.name)


def seal(data):
    return data + struct.pack("<I", google_crc32c.value(data))


def index_of(*places):
    return seal(b"".join(struct.pack("<QQ", *place) for place in places))


def folded(data, level=9):
    """``data`` zipped to the same bytes at any time, so that test ids are the same everywhere."""
    return gzip.compress(data, level, mtime=0)


def strings(*texts, count=None):
    """A chunk of strings before it is zipped."""
    head = struct.pack("<I", len(texts) if count is None else count)
    return head + b"".join(struct.pack("<I", len(text)) + text for text in texts)


# What Zarr finds


@pytest.mark.parametrize("num_samples", [1, 3, 4, 5, 8, 16, 21])
@pytest.mark.parametrize("num_codes", [2, 391, 1000, 70_000])
def test_zarr_and_seit_read_what_was_written(tmp_path, num_samples, num_codes):
    group = write(tmp_path / "val.zarr", num_samples, num_codes=num_codes)
    found = zarr.open(group.path, mode="r")
    tokens = found["tokens"]
    assert tokens.dtype == (np.uint16 if num_codes <= 1 << 16 else np.uint32)
    assert tokens.chunks == (min(4, num_samples), 3, 5)
    np.testing.assert_array_equal(tokens[:], group.columns[Kind.TOKENS])
    np.testing.assert_array_equal(found["labels"][:], group.columns[Kind.LABELS])
    assert found["keys"][:].tolist() == group.columns[Kind.KEYS]
    assert dict(found.attrs) == {"seit": {"version": 1, "classes": list(CLASSES)}}
    for kind in COLUMNS:
        np.testing.assert_array_equal(group.column(kind), group.columns[kind])
    if num_samples > 4:
        texts = found["metadata"][:].tolist()
        assert [json.loads(text) for text in texts] == group.columns[Kind.METADATA]
    else:
        assert "metadata" not in found
    group.check()


def test_packed_samples_and_chosen_rows_of_a_block(group):
    for shard in group.open():
        for block in range(shard.num_blocks):
            tokens = group.columns[Kind.TOKENS][shard.rows_of(block)]
            rows = np.array([0, shard.samples_of(block) - 1, 0])
            np.testing.assert_array_equal(shard.open_token_rows(block, rows), tokens[rows])
            frame = group.codec.encode(shard.open_block(block, Kind.TOKENS))
            expected = group.codec.decode_packed(frame)
            np.testing.assert_array_equal(shard.open_packed(block), expected)


def test_a_split_without_samples(tmp_path):
    group = write(tmp_path / "val.zarr", 0)
    found = zarr.open(group.path, mode="r")
    assert found["tokens"][:].shape == (0, 3, 5)
    assert found["keys"][:].tolist() == []
    assert group.written.shards == ()
    assert list(group.open()) == []
    group.check()


def test_every_file_is_recorded(group):
    records = (*group.written.shards, *group.written.files)
    store = group.path.parent
    assert sorted(store / record.file for record in records) == group.files()
    for record in records:
        assert record.bytes == (store / record.file).stat().st_size
        assert record.sha256 == sha256_of(store / record.file)
    assert [(shard.file, shard.samples) for shard in group.written.shards] == [
        ("train.zarr/tokens/c/0/0/0", 8),
        ("train.zarr/tokens/c/1/0/0", 8),
        ("train.zarr/tokens/c/2/0/0", 5),
    ]


def test_equal_samples_make_equal_files(intact, tmp_path):
    again = write(tmp_path / "train.zarr", 21)
    assert again.written == intact.written
    for one, other in zip(intact.files(), again.files(), strict=True):
        assert one.read_bytes() == other.read_bytes()


def test_the_library_writes_the_same_tokens_and_labels(intact, tmp_path):
    tokens, labels = (intact.columns[kind] for kind in (Kind.TOKENS, Kind.LABELS))
    copy = zarr.create_group(tmp_path / "copy.zarr")
    tokens_like = copy.create_array(
        "tokens",
        shape=tokens.shape,
        dtype=tokens.dtype,
        chunks=(4, 3, 5),
        shards=(8, 3, 5),
        serializer=SeitCodec.wrap(intact.codec),
        compressors=None,
        dimension_names=("sample", "row", "column"),
    )
    labels_like = copy.create_array(
        "labels",
        shape=labels.shape,
        dtype=labels.dtype,
        chunks=(4,),
        shards=(8,),
        fill_value=-1,
        compressors=[Crc32cCodec()],
        dimension_names=("sample",),
    )
    tokens_like[:] = tokens
    labels_like[:] = labels
    for kind in ("tokens", "labels"):
        for path in (intact.path / kind / "c").rglob("*"):
            if path.is_file():
                other = tmp_path / "copy.zarr" / path.relative_to(intact.path)
                assert path.read_bytes() == other.read_bytes()
    found = zarr.open(intact.path, mode="r")
    assert found["tokens"].metadata == tokens_like.metadata
    assert found["labels"].metadata == labels_like.metadata


def test_the_example_of_the_specification(tmp_path):
    block = Block(
        tokens=np.array([[[1, 515, 999, 256, 7]]], dtype=np.uint16),
        labels=np.array([4], dtype=np.int32),
        keys=("cat/é.jpg",),
        metadata=({"a": 1},),
    )
    codec = PackedCodec(TokenLayout(grid=(1, 5), num_codes=1000))
    path = tmp_path / "train.zarr"
    written = write_zarr_split(path, [block], codec=codec, num_samples=1, classes=CLASSES)
    group = Group(path, codec, 1024, {}, written)
    text = FORMAT.read_text()
    for name in ("tokens/c/0/0/0", "labels/c/0", "keys/c/0", "metadata/c/0"):
        match = re.search(rf"^{name} +((?:[0-9a-f]{{2}} ?)+)$", text, re.MULTILINE)
        (path / name).write_bytes(bytes.fromhex(match[1]))
    np.testing.assert_array_equal(group.column(Kind.TOKENS), block.tokens)
    assert group.column(Kind.LABELS).tolist() == [4]
    assert group.column(Kind.KEYS) == ["cat/é.jpg"]
    assert group.column(Kind.METADATA) == [{"a": 1}]
    found = zarr.open(path, mode="r")
    np.testing.assert_array_equal(found["tokens"][:], block.tokens)
    assert found["metadata"][0] == '{"a":1}'


def test_the_entry_point_names_the_codec():
    entries = [entry for entry in entry_points(group="zarr.codecs") if entry.name == "seit"]
    if not entries:
        pytest.skip("the installed package declares no entry point")
    assert entries[0].load() is SeitCodec


# Selections, and what they cost

SELECTIONS = {
    "one": np.s_[7],
    "last": np.s_[-1],
    "slice": np.s_[3:7],
    "strided": np.s_[1:20:3],
    "nothing": np.s_[5:5],
    "row of a grid": np.s_[5, 2],
    "one id": np.s_[5, 2, 1],
    "part of the grids": np.s_[:, 1:3, ::2],
    "a column": np.s_[..., 3],
}


@pytest.fixture(scope="module", params=["sharded", "unsharded", "compressed"])
def array(request, intact, tmp_path_factory):
    """The tokens of the group as an array of a user's own."""
    tokens = intact.columns[Kind.TOKENS]
    own = zarr.create_array(
        tmp_path_factory.mktemp("own") / "tokens.zarr",
        shape=tokens.shape,
        dtype=tokens.dtype,
        chunks=(4, 3, 5),
        shards=(8, 3, 5) if request.param == "sharded" else None,
        serializer=SeitCodec.wrap(intact.codec),
        compressors=[Crc32cCodec()] if request.param == "compressed" else None,
    )
    own[:] = tokens
    return zarr.open(own.store_path.store.root, mode="r")


@pytest.mark.parametrize("selection", SELECTIONS.values(), ids=SELECTIONS)
def test_basic_selections(array, intact, selection):
    np.testing.assert_array_equal(array[selection], intact.columns[Kind.TOKENS][selection])


def test_fancy_selections(array, intact):
    tokens = intact.columns[Kind.TOKENS]
    rows = [3, 20, 3, 17, 0]
    np.testing.assert_array_equal(array[rows], tokens[rows])
    np.testing.assert_array_equal(array.oindex[rows, [0, 2], 1], tokens[rows][:, [0, 2], 1])
    points = (rows, [0, 1, 2, 0, 1], [4, 3, 2, 1, 0])
    np.testing.assert_array_equal(array.vindex[points], tokens[points])
    mask = tokens > 200
    np.testing.assert_array_equal(array.get_mask_selection(mask), tokens[mask])
    chosen = np.arange(21) % 4 == 1
    np.testing.assert_array_equal(array.oindex[chosen], tokens[chosen])
    np.testing.assert_array_equal(array.oindex[chosen, :, [4, 0]], tokens[chosen][:, :, [4, 0]])


def test_a_selection_decodes_its_rows_and_no_others(intact, monkeypatch):
    decoded = []

    def counting(packed_NS, **options):
        decoded.append(len(packed_NS))
        return unpack(packed_NS, **options)

    unpack = codecs_module.unpack
    monkeypatch.setattr(codecs_module, "unpack", counting)
    tokens = zarr.open(intact.path, mode="r")["tokens"]
    for selection, rows in (
        (np.s_[3:7], 4),
        (np.s_[5], 1),
        (np.s_[1:20:3], 7),
        (np.s_[5, 2, 1], 1),
    ):
        tokens[selection]
        assert sum(decoded) == rows
        decoded.clear()
    tokens.oindex[[3, 20, 3, 17]]
    assert sum(decoded) == 3


def test_a_part_of_an_array_can_be_written(intact, tmp_path):
    tokens = intact.columns[Kind.TOKENS].copy()
    array = zarr.create_array(
        tmp_path / "tokens.zarr",
        data=tokens,
        chunks=(4, 3, 5),
        shards=(8, 3, 5),
        serializer=SeitCodec.wrap(intact.codec),
        compressors=None,
    )
    array[2:11, 1] = tokens[2:11, 1] = 390
    np.testing.assert_array_equal(array[:], tokens)


# Zeros


@pytest.mark.parametrize("kept", [0, 1, 3, 4, 5, 21])
@pytest.mark.parametrize("shards", [None, (8, 3, 5)])
def test_zeros_at_the_end_of_a_chunk_are_not_stored(intact, tmp_path, kept, shards):
    tokens = intact.columns[Kind.TOKENS].copy()
    tokens[kept:] = 0
    array = zarr.create_array(
        tmp_path / "tokens.zarr",
        data=tokens,
        chunks=(4, 3, 5),
        shards=shards,
        serializer=SeitCodec.wrap(intact.codec),
        compressors=None,
    )
    np.testing.assert_array_equal(array[:], tokens)
    np.testing.assert_array_equal(array[2:9], tokens[2:9])
    paths = (tmp_path / "tokens.zarr" / "c").rglob("*")
    stored = sum(path.stat().st_size for path in paths if path.is_file())
    frames = -(-kept // 4)
    indexes = -(-kept // 8) * 36 if shards else 0
    assert stored == kept * intact.codec.layout.sample_bytes + frames * 24 + indexes


def test_a_split_of_zeros_comes_back(tmp_path):
    tokens = np.zeros((9, 3, 5), dtype=np.uint16)
    tokens[4] = 7
    group = write(tmp_path / "train.zarr", 9, tokens=tokens)
    np.testing.assert_array_equal(zarr.open(group.path, mode="r")["tokens"][:], tokens)
    np.testing.assert_array_equal(group.column(Kind.TOKENS), tokens)
    for shard in group.written.shards:
        assert shard.bytes >= shard.samples * group.codec.layout.sample_bytes


def test_what_zarr_leaves_out_reads_as_zarr_reads_it(group):
    tokens = group.columns[Kind.TOKENS].copy()
    tokens[3], tokens[4:8], tokens[19:] = 0, 0, 0
    opened = zarr.open(group.path, mode="r+")
    opened["tokens"][:] = tokens
    opened["labels"][8:16] = -1
    assert not (group.path / "labels" / "c" / "1").exists()
    (group.path / "labels" / "c" / "1").write_bytes(index_of(MISSING, MISSING))
    opened["keys"][0:4] = ""
    opened["metadata"][16:] = "{}"
    (group.path / "metadata" / "c" / "2").write_bytes(index_of(MISSING, MISSING))
    np.testing.assert_array_equal(group.column(Kind.TOKENS), tokens)
    np.testing.assert_array_equal(group.column(Kind.LABELS), opened["labels"][:])
    assert group.column(Kind.KEYS) == opened["keys"][:].tolist()
    texts = opened["metadata"][:].tolist()
    assert group.column(Kind.METADATA) == [json.loads(text) for text in texts]
    np.testing.assert_array_equal(
        group.open()[0].open_token_rows(0, np.array([3, 1])), tokens[[3, 1]]
    )
    assert not group.open()[0].open_token_rows(1, np.array([3, 1])).any()
    packed = group.open()[0].open_packed(1)
    assert packed.shape == (4, group.codec.layout.sample_bytes)
    assert not packed.any()


# The codec's own rules


def entry(**changes):
    configuration = {"codec": {"name": "packed", "bits": 9}, "codes": 391, "grid": [3, 5]}
    configuration |= changes
    return {
        "name": "seit",
        "configuration": {key: value for key, value in configuration.items() if value is not None},
    }


def test_the_entry_in_the_metadata_round_trips(intact):
    codec = SeitCodec.wrap(intact.codec)
    assert codec.to_dict() == entry()
    again = SeitCodec.from_dict(json.loads(json.dumps(codec.to_dict())))
    assert again == codec
    assert hash(again) == hash(codec)
    assert pickle.loads(pickle.dumps(codec)) == codec
    assert codec != SeitCodec.wrap(PackedCodec(TokenLayout(grid=(3, 5), num_codes=392)))
    with pytest.raises(NotImplementedError):
        codec.compute_encoded_size(1, None)


def test_tables_travel_in_the_metadata(tmp_path):
    rng = np.random.default_rng(0)
    layout = TokenLayout(grid=(6, 5), num_codes=40)
    tokens = smooth_tokens(rng, 20, layout)
    context = fit_codec(layout)
    array = zarr.create_array(
        tmp_path / "tokens.zarr",
        data=tokens,
        chunks=(8, 6, 5),
        serializer=SeitCodec.wrap(context),
        compressors=None,
    )
    np.testing.assert_array_equal(zarr.open(array.store_path.store.root, mode="r")[:], tokens)
    chunks = (tmp_path / "tokens.zarr" / "c").rglob("*")
    stored = sum(path.stat().st_size for path in chunks if path.is_file())
    assert stored < len(tokens) * layout.sample_bytes
    found = SeitCodec.wrap(context).to_dict()
    other = recompressed(base64.b64decode(found["configuration"]["tables"]))
    found["configuration"]["tables"] = base64.b64encode(other).decode()
    codec = SeitCodec.from_dict(found)
    assert codec.tables == other != context.tables
    assert codec.to_dict() == found
    np.testing.assert_array_equal(codec.frames.decode(context.encode(tokens)), tokens)


def recompressed(tables):
    """The same tables as another compressor may write them."""
    return lzma.compress(lzma.decompress(tables), format=lzma.FORMAT_XZ, preset=0)


@pytest.mark.parametrize(
    "found",
    [
        {"name": "seit"},
        {"name": "seit", "configuration": None},
        {"name": "seit", "configuration": []},
        entry(codec=None),
        entry(codec="packed"),
        entry(codec={"bits": 9}),
        entry(codec={"name": 9, "bits": 9}),
        entry(codec={"name": "packed", "bits": 8}),
        entry(codec={"name": "packed", "bits": 9.0}),
        entry(codec={"name": "packed", "bits": 9, "more": 1}),
        entry(codes=None),
        entry(codes="391"),
        entry(codes=391.0),
        entry(codes=1),
        entry(codes=2**31 + 1),
        entry(codes=True),
        entry(grid=None),
        entry(grid=3),
        entry(grid=[3]),
        entry(grid=[3, 5, 1]),
        entry(grid=[0, 5]),
        entry(grid=[3, 2**14 + 1]),
        entry(tables="&"),
        entry(tables=7),
        entry(tables="ü"),
        entry(tables="AAAA"),
        entry(more=1),
    ],
)
def test_a_wrong_entry_in_the_metadata_is_one_clear_error(found):
    with pytest.raises(DamagedError, match=r"zarr\.json") as caught:
        SeitCodec.from_dict(found)
    assert "\n" not in str(caught.value)


def test_a_codec_of_a_newer_seit_is_a_usage_error(group):
    path = group.path / "tokens" / "zarr.json"
    path.write_text(path.read_text().replace('"packed"', '"wavelet"'))
    with pytest.raises(UsageError, match="'wavelet' is unknown to this version of seit: upgrade"):
        zarr.open(group.path, mode="r")["tokens"]


@pytest.mark.parametrize(
    ("shape", "dtype", "message"),
    [
        ((9, 3, 5), "uint32", "ids below 391 are uint16; the array holds uint32"),
        ((9, 3, 5), "int16", "the array holds int16"),
        ((9, 3, 5), "float64", "the array holds float64"),
        ((9, 5, 3), "uint16", r"chunks of the array are \(4, 5, 3\) where .* \(n, 3, 5\)"),
        ((9, 15), "uint16", r"chunks of the array are \(4, 15\)"),
    ],
)
def test_an_array_that_does_not_fit_is_refused(intact, tmp_path, shape, dtype, message):
    with pytest.raises(UsageError, match=message):
        zarr.create_array(
            tmp_path / "tokens.zarr",
            shape=shape,
            dtype=dtype,
            chunks=(4, *shape[1:]),
            serializer=SeitCodec.wrap(intact.codec),
            compressors=None,
        )


def test_chunks_within_shards_that_do_not_fit_are_refused(intact, tmp_path):
    array = zarr.create_array(
        tmp_path / "tokens.zarr",
        shape=(8, 6, 5),
        dtype="uint16",
        chunks=(4, 6, 5),
        shards=(8, 6, 5),
        serializer=SeitCodec.wrap(intact.codec),
        compressors=None,
    )
    with pytest.raises(UsageError, match=r"chunks of the array are \(4, 6, 5\)"):
        array[:] = 1


def test_other_byte_orders_and_fill_values(intact, tmp_path):
    tokens = intact.columns[Kind.TOKENS]
    array = zarr.create_array(
        tmp_path / "tokens.zarr",
        shape=tokens.shape,
        dtype=">u2",
        chunks=(4, 3, 5),
        fill_value=9,
        serializer=SeitCodec.wrap(intact.codec),
        compressors=None,
    )
    array[:6] = tokens[:6]
    np.testing.assert_array_equal(array[:6], tokens[:6])
    assert (array[6:] == 9).all()


def test_ids_that_are_no_codes_are_refused(intact, tmp_path):
    array = zarr.create_array(
        tmp_path / "tokens.zarr",
        shape=(8, 3, 5),
        dtype="uint16",
        chunks=(4, 3, 5),
        serializer=SeitCodec.wrap(intact.codec),
        compressors=None,
    )
    with pytest.raises(UsageError, match="holds the id 391 where the codec takes ids below 391"):
        array[2] = 391


def test_the_codec_stands_in_a_chain_of_ones_own(intact, tmp_path):
    tokens = intact.columns[Kind.TOKENS]
    array = zarr.create(
        store=tmp_path / "tokens.zarr",
        shape=tokens.shape,
        dtype=tokens.dtype,
        chunks=(16, 3, 5),
        codecs=[
            ShardingCodec(
                chunk_shape=(4, 3, 5),
                codecs=[SeitCodec.wrap(intact.codec)],
                index_codecs=[BytesCodec(), Crc32cCodec()],
                index_location="start",
            )
        ],
    )
    array[:] = tokens
    np.testing.assert_array_equal(zarr.open(tmp_path / "tokens.zarr", mode="r")[2:19], tokens[2:19])


def test_a_damaged_chunk_is_damage_to_zarr_too(group):
    path = group.path / "tokens" / "c" / "0" / "0" / "0"
    data = bytearray(path.read_bytes())
    data[30] ^= 1
    path.write_bytes(data)
    tokens = zarr.open(group.path, mode="r")["tokens"]
    for selection in (np.s_[:], np.s_[1], np.s_[1:2]):
        with pytest.raises(DamagedError, match="checksum of a tokens frame"):
            tokens[selection]
    np.testing.assert_array_equal(tokens[8:], group.columns[Kind.TOKENS][8:])


def test_a_frame_of_too_many_samples_is_damage_to_zarr(intact, tmp_path):
    array = zarr.create_array(
        tmp_path / "tokens.zarr",
        data=intact.columns[Kind.TOKENS][:4],
        chunks=(4, 3, 5),
        serializer=SeitCodec.wrap(intact.codec),
        compressors=None,
    )
    path = tmp_path / "tokens.zarr" / "c" / "0" / "0" / "0"
    path.write_bytes(intact.codec.encode(intact.columns[Kind.TOKENS][:5]))
    for selection in (np.s_[:], np.s_[1]):
        with pytest.raises(DamagedError, match="5 samples found; expected 4"):
            array[selection]
    path.write_bytes(b"SEIT")
    with pytest.raises(DamagedError, match="too short"):
        array[1]


# Damage


def test_every_flipped_byte_of_the_data_is_found_by_the_reader(tmp_path):
    group = write(tmp_path / "train.zarr", 6, block_samples=3, shard_samples=6)
    paths = [path for path in group.files() if path.name != "zarr.json"]
    assert len(paths) == 4
    for path in paths:
        data = path.read_bytes()
        for place, byte in enumerate(data):
            damaged = bytearray(data)
            damaged[place] = byte ^ (1 << place % 8)
            path.write_bytes(damaged)
            with pytest.raises(DamagedError) as caught:
                group.read_all()
            assert str(path.relative_to(tmp_path)) in str(caught.value)
        path.write_bytes(data)
    group.check()


def test_every_flipped_byte_of_the_metadata_is_found_or_changes_nothing(tmp_path):
    group = write(tmp_path / "train.zarr", 6, block_samples=3, shard_samples=6)
    records = {record.file: record for record in group.written.files}
    for path in (group.path / "zarr.json", group.path / "tokens" / "zarr.json"):
        name = path.relative_to(tmp_path).as_posix()
        data = path.read_bytes()
        for place, byte in enumerate(data):
            damaged = bytearray(data)
            damaged[place] = byte ^ (1 << place % 8)
            path.write_bytes(damaged)
            assert sha256_of(path) != records[name].sha256
            try:
                same = json.loads(damaged) == json.loads(data)
            except ValueError:
                same = False
            if same:
                group.check()
            else:
                with pytest.raises(DamagedError, match=name):
                    group.check()
        path.write_bytes(data)


@pytest.mark.parametrize("kind", COLUMNS)
def test_truncated_and_grown_files_are_found(group, kind):
    path = group.path / kind.name.lower() / "c" / "0"
    path = path / "0" / "0" if kind is Kind.TOKENS else path
    data = path.read_bytes()
    for size in range(len(data)):
        path.write_bytes(data[:size])
        with pytest.raises(DamagedError, match="is not an intact shard"):
            group.open()[0].open_block(0, kind)
    for more in (b"\0", data, bytes(36)):
        for grown in (data + more, more + data):
            path.write_bytes(grown)
            with pytest.raises(DamagedError):
                group.column(kind)


def test_damage_names_file_and_block(group):
    path = group.path / "keys" / "c" / "1"
    data = bytearray(path.read_bytes())
    data[12] ^= 1
    path.write_bytes(data)
    shard = group.open()[1]
    shard.check_places(Kind.KEYS)
    assert shard.open_block(1, Kind.KEYS)
    with pytest.raises(
        DamagedError, match=r"^train\.zarr/keys/c/1, block 0: the checksum of the s"
    ):
        shard.open_block(0, Kind.KEYS)


@pytest.mark.parametrize("seed", range(30))
def test_random_damage_is_damage_or_seen_in_the_sha256(group, seed):
    rng = random.Random(seed)
    path = rng.choice([path for path in group.files() if path.name != "zarr.json"])
    data = bytearray(path.read_bytes())
    start, length = rng.randrange(len(data)), rng.randint(1, 60)
    if rng.random() < 0.5:
        del data[start : start + length]
    else:
        data[start : start + length] = rng.randbytes(length)
    path.write_bytes(data)
    with pytest.raises(DamagedError):
        group.read_all()


def chunk_places(path, blocks=2):
    return list(struct.iter_unpack("<QQ", path.read_bytes()[-16 * blocks - 4 : -4]))


@pytest.mark.parametrize(
    "change",
    [
        lambda one, two: [(2**64 - 1, 0), two],
        lambda one, two: [(2**63, 2**63), two],
        lambda one, two: [(0, 2**64 - 1), two],
        lambda one, two: [(0, 2**64 - 2), two],
        lambda one, two: [one, (two[0], 2**40)],
        lambda one, two: [one, one],
        lambda one, two: [two, one],
        lambda one, two: [one, (two[0] - 1, two[1] + 1)],
        lambda one, two: [one, (two[0] + 1, two[1] - 1)],
        lambda one, two: [one, (two[0], two[1] + 1)],
        lambda one, two: [one, (two[0], two[1] - 1)],
        lambda one, two: [(0, one[1] + two[1]), two],
        lambda one, two: [one, MISSING],
        lambda one, two: [MISSING, MISSING],
        lambda one, two: [MISSING, two],
        lambda one, two: [one, (two[0], MISSING[0])],
    ],
)
@pytest.mark.parametrize("kind", COLUMNS)
def test_a_sealed_index_that_lies_is_found(group, kind, change):
    folder = group.path / kind.name.lower() / "c" / "0"
    path = folder / "0" / "0" if kind is Kind.TOKENS else folder
    one, two = chunk_places(path)
    places = change(*((0, 4), (4, 4)) if kind is Kind.METADATA else (one, two))
    chunks = b"\0\0\0\0\0\0\0\0" if kind is Kind.METADATA else path.read_bytes()[:-36]
    path.write_bytes(chunks + index_of(*places))
    tracemalloc.start()
    try:
        with pytest.raises(DamagedError, match=f"{kind.name.lower()}/c/0.* not an intact shard"):
            group.open()[0].open_block(0, kind)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_chunks_behind_the_last_block_are_damage(group):
    path = group.path / "labels" / "c" / "2"
    assert chunk_places(path) == [(0, 20), (20, 20)]
    tokens = group.path / "tokens" / "c" / "2" / "0" / "0"
    (_, size), second = chunk_places(tokens)
    assert second[0] == size
    records = [*group.written.shards[:2], dataclasses.replace(group.written.shards[2], samples=4)]
    shard = group.open(records)[2]
    for kind in (Kind.TOKENS, Kind.LABELS, Kind.KEYS):
        with pytest.raises(DamagedError, match="more than the 1 blocks of the card"):
            shard.open_block(0, kind)


def test_a_frame_of_too_many_samples_is_damage(group):
    path = group.path / "tokens" / "c" / "2" / "0" / "0"
    (_, size), _ = chunk_places(path)
    frame = group.codec.encode(group.columns[Kind.TOKENS][:2])
    path.write_bytes(path.read_bytes()[:size] + frame + index_of((0, size), (size, len(frame))))
    with pytest.raises(DamagedError, match=r"block 1: 2 samples found; expected 1"):
        group.open()[2].open_block(1, Kind.TOKENS)
    with pytest.raises(DamagedError, match=r"block 1: 2 samples found; expected 1"):
        group.open()[2].open_packed(1)


def put_chunk(group, kind, chunk):
    """Make ``chunk`` the first of the first shard, under a right index."""
    path = group.path / kind.name.lower() / "c" / "0"
    path.write_bytes(chunk + index_of((0, len(chunk)), MISSING))


FOUR = strings(b"{}", b"{}", b"{}", b"{}")


@pytest.mark.parametrize(
    ("kind", "chunk", "reason"),
    [
        (Kind.LABELS, seal(bytes(12)), "4 labels and a checksum do not take 16 bytes"),
        (Kind.LABELS, seal(bytes(20)), "block 0 claims 24 bytes at byte 0 where one of at most 20"),
        (Kind.LABELS, bytes(20), "checksum of the labels"),
        (Kind.KEYS, b"", "too short"),
        (Kind.KEYS, b"abc", "too short"),
        (Kind.KEYS, seal(b""), "too short"),
        (Kind.KEYS, folded(FOUR), "checksum of the strings"),
        (Kind.KEYS, seal(folded(FOUR)[:-1]), "strings do not unfold"),
        (Kind.KEYS, seal(folded(FOUR)[:-4] + b"\xff" * 4), "cannot unfold"),
        (Kind.KEYS, seal(folded(FOUR)[:-4] + b"\x05\0\0\0"), "unfold"),
        (Kind.KEYS, seal(folded(FOUR)[:-8] + bytes(4) + b"\x1c\0\0\0"), "does not inflate"),
        (Kind.KEYS, seal(folded(FOUR) * 2), "inflates to"),
        (Kind.KEYS, seal(b"\0" + folded(FOUR)), "does not inflate"),
        (Kind.KEYS, seal(folded(b"")), "does not say that it holds 4"),
        (Kind.KEYS, seal(folded(strings(b"", b"", b""))), "does not say that it holds 4"),
        (Kind.KEYS, seal(folded(strings(*[b""] * 5))), "does not say that it holds 4"),
        (Kind.KEYS, seal(folded(strings(b"", count=4))), "end too early"),
        (Kind.KEYS, seal(folded(FOUR + b"x")), "do not add up"),
        (Kind.KEYS, seal(folded(FOUR[:-1])), "do not add up"),
        (Kind.KEYS, seal(folded(FOUR[:4] + b"\xff" * 4 + FOUR[8:])), "end too early"),
        (Kind.KEYS, seal(folded(strings(b"\xff", b"", b"", b""))), "not UTF-8"),
        (Kind.METADATA, seal(folded(strings(b"{}", b"{", b"{}", b"{}"))), "not JSON"),
        (
            Kind.METADATA,
            seal(folded(strings(b"{}", b"[]", b"{}", b"{}"))),
            "one JSON object",
        ),
        (Kind.METADATA, seal(folded(strings(b'{"a":NaN}', *[b"{}"] * 3))), "not JSON"),
        (Kind.METADATA, seal(folded(strings(b"[" * 100_000, *[b"{}"] * 3))), "not JSON"),
    ],
)
def test_sealed_chunks_of_the_wrong_form(group, kind, chunk, reason):
    put_chunk(group, kind, chunk)
    with pytest.raises(DamagedError, match=reason):
        group.open()[0].open_block(0, kind)


@pytest.mark.parametrize("claim", [None, 0, 1000, MAX_RAW_BYTES, MAX_RAW_BYTES + 1, 2**32 - 1])
def test_a_gzip_bomb_reserves_no_memory(group, claim):
    bomb = folded(bytes(1 << 24), 9)
    if claim is None:
        bomb = folded(b"x" * 100)[:-4] + struct.pack("<I", MAX_RAW_BYTES)
    else:
        bomb = bomb[:-4] + struct.pack("<I", claim)
    bomb = bomb[:2000] + bomb[-8:] if claim == MAX_RAW_BYTES else bomb
    put_chunk(group, Kind.KEYS, seal(bomb))
    tracemalloc.start()
    try:
        with pytest.raises(DamagedError):
            group.open()[0].open_block(0, Kind.KEYS)
        assert tracemalloc.get_traced_memory()[1] < 4 * len(bomb) + 200_000
    finally:
        tracemalloc.stop()


@given(
    raw=st.binary(max_size=60) | st.builds(lambda rest: struct.pack("<I", 4) + rest, st.binary()),
    kind=st.sampled_from([Kind.LABELS, Kind.KEYS, Kind.METADATA]),
    zipped=st.booleans(),
)
@settings(max_examples=200, deadline=None)
def test_sealed_bytes_decode_or_are_damage(intact, raw, kind, zipped):
    chunk = seal(folded(raw) if zipped else raw)
    data = chunk + index_of((0, len(chunk)), MISSING)
    (shard, *_) = intact.open_as(data)
    try:
        column = shard.open_block(0, kind)
    except DamagedError:
        return
    assert len(column) == 4


@given(st.binary(min_size=1, max_size=120), st.sampled_from(COLUMNS), st.booleans())
@settings(max_examples=200, deadline=None)
def test_any_bytes_are_damage(intact, data, kind, sealed):
    data = seal(data) if sealed else data
    (shard, *_) = intact.open_as(data)
    if data == index_of(MISSING, MISSING):
        return
    with pytest.raises(DamagedError):
        shard.open_block(0, kind)


def test_a_file_that_shrinks_under_the_reader(group):
    shard, other = group.open()[:2]
    shard.check_places(Kind.TOKENS)
    for number in "01":
        (group.path / "tokens" / "c" / number / "0" / "0").write_bytes(b"SEIT")
    with pytest.raises(DamagedError, match=r"c/0/0/0, block 1: .*0/0 ends inside the block"):
        shard.open_block(1, Kind.TOKENS)
    with pytest.raises(DamagedError, match=r"c/1/0/0 is not an intact shard: .* inside its index"):
        other.open_block(1, Kind.TOKENS)


@pytest.mark.parametrize("kind", COLUMNS)
def test_files_that_are_missing_or_may_not_be_read(group, kind, monkeypatch):
    shutil.rmtree(group.path / kind.name.lower())
    with pytest.raises(DamagedError, match=rf"/{kind.name.lower()}/c/0.*be read: No such file"):
        group.open()[0].open_block(0, kind)
    with pytest.raises(DamagedError, match=rf"{kind.name.lower()}/zarr\.json is missing"):
        group.check()
    (group.path / kind.name.lower()).touch()
    with pytest.raises(DamagedError, match="cannot be read: Not a directory"):
        group.open()[0].check_places(kind)

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(LocalFolder, "read", refuse)
    with pytest.raises(SeitError, match="may not be read: Permission denied") as caught:
        group.open()[0].open_block(0, kind)
    assert not isinstance(caught.value, DamagedError)


# What the card says


def record(shard, samples, group="train.zarr"):
    return ShardRecord(f"{group}/tokens/c/{shard}/0/0", 10**6, "0" * 64, samples=samples)


@pytest.mark.parametrize(
    "records",
    [
        [record(0, 8), record(1, 9)],
        [record(0, 7), record(1, 7)],
        [record(0, 8), record(1, 4), record(2, 8)],
        [record(0, 8), record(1, 0)],
        [record(0, 0)],
        [record(0, 0), record(1, 8)],
        [record(1, 8)],
        [record(0, 8), record(0, 8)],
        [record(1, 8), record(0, 8)],
        [record(0, 8, "val.zarr")],
        [record(0, 4 * MAX_SHARD_BLOCKS + 4)],
        [record(0, 2**40), record(1, 2**40)],
        [record(0, 4), record(1, 2**40)],
    ],
)
def test_records_that_no_writer_makes(intact, records):
    tracemalloc.start()
    try:
        with pytest.raises(DamagedError, match=r"^train\.zarr: .*from a copy$"):
            intact.open(records)
        with pytest.raises(DamagedError, match=r"^train\.zarr: .*from a copy$"):
            intact.check(records)
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


def test_records_of_blocks_over_the_limits(intact):
    with pytest.raises(DamagedError, match="over the limits"):
        ZarrGroup.from_records(
            "train.zarr",
            [record(0, 2)],
            {entry.file: entry for entry in intact.written.files},
            layout=TokenLayout(grid=(1 << 14, 1 << 14), num_codes=2),
            block_samples=2,
        )


@pytest.mark.parametrize(
    "name", ["zarr.json", "tokens/zarr.json", "labels/c/1", "keys/zarr.json", "metadata/c/2"]
)
def test_files_that_the_card_does_not_name(intact, name):
    files = {entry.file: entry for entry in intact.written.files}
    del files[f"train.zarr/{name}"]
    assert len(files) == len(intact.written.files) - 1
    with pytest.raises(DamagedError, match=rf"^the card names no train\.zarr/{name}; restore"):
        ZarrGroup.from_records(
            "train.zarr",
            intact.written.shards,
            files,
            layout=intact.codec.layout,
            block_samples=4,
        )


def edit(path, change):
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


@pytest.mark.parametrize(
    ("name", "change", "reason"),
    [
        ("", lambda d: d["attributes"]["seit"].update(classes=["dog"]), "'attributes' is another"),
        ("", lambda d: d["attributes"]["seit"].update(version=True), "'attributes' is another"),
        ("", lambda d: d.update(node_type="array"), "'node_type' is another"),
        ("tokens", lambda d: d.update(shape=[22, 3, 5]), "'shape' is another"),
        ("tokens", lambda d: d.update(shape=[21.0, 3, 5]), "'shape' is another"),
        ("tokens", lambda d: d.pop("shape"), "'shape' is missing"),
        ("tokens", lambda d: d.update(fill_value=1), "'fill_value' is another"),
        ("labels", lambda d: d.update(fill_value=0), "'fill_value' is another"),
        ("labels", lambda d: d.update(data_type="int64"), "'data_type' is another"),
        ("keys", lambda d: d["codecs"][0]["configuration"]["codecs"].pop(), "'codecs' is another"),
        ("keys", lambda d: d.update(attributes={}), "'attributes' is unknown"),
        ("metadata", lambda d: d.clear(), "'chunk_grid' is missing, .*'zarr_format' is missing"),
    ],
)
def test_documents_that_say_something_else(group, name, change, reason):
    path = group.path / name / "zarr.json"
    edit(path, change)
    with pytest.raises(DamagedError, match=f"{name}/zarr.json does not describe .*{reason}"):
        group.check()


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "{}", "NaN", "[" * 100_000, "\udcff"])
def test_documents_that_are_none(group, text):
    (group.path / "labels" / "zarr.json").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(DamagedError, match=r"^train\.zarr/labels/zarr\.json "):
        group.check()


def test_a_document_over_the_limits_is_not_read(intact, monkeypatch):
    monkeypatch.setattr(LocalFolder, "size", lambda *_: 2**50)
    with pytest.raises(DamagedError, match="larger than"):
        intact.check()


def test_spacing_and_order_of_a_document_do_not_matter(group):
    for path in group.path.rglob("zarr.json"):
        path.write_text(json.dumps(json.loads(path.read_text()), sort_keys=True))
    group.check()


def test_another_codec_or_split_size_is_found(intact):
    other = PackedCodec(TokenLayout(grid=(3, 5), num_codes=392))
    with pytest.raises(DamagedError, match=r"tokens/zarr\.json .*'codecs' is another"):
        intact.check(codec=other)
    with pytest.raises(DamagedError, match=r"tokens/zarr\.json .*'shape' is another"):
        intact.check([record(0, 8)])


# The writer's own rules


@pytest.mark.parametrize(
    ("block_samples", "shard_samples", "message"),
    [
        (0, 8, "a block holds 1 to 65536 samples, not 0"),
        (65537, 65537, "not 65537"),
        (4, 6, "choose a multiple of 4"),
        (4, 0, "choose a multiple of 4"),
        (4, -8, "choose a multiple of 4"),
        (1, MAX_SHARD_BLOCKS + 1, "is not 1 to 4096 blocks"),
    ],
)
def test_sizes_that_do_not_fit(intact, tmp_path, block_samples, shard_samples, message):
    with pytest.raises(UsageError, match=message):
        write_zarr_split(
            tmp_path / "train.zarr",
            [],
            codec=intact.codec,
            num_samples=0,
            classes=CLASSES,
            block_samples=block_samples,
            shard_samples=shard_samples,
        )
    assert list(tmp_path.iterdir()) == []


def test_an_existing_folder_is_kept(group):
    before = [(path, path.read_bytes()) for path in group.files()]
    with pytest.raises(UsageError, match=r"train\.zarr already exists"):
        write(group.path, 3)
    assert [(path, path.read_bytes()) for path in group.files()] == before


def test_a_failed_write_leaves_nothing(intact, tmp_path):
    def blocks():
        yield Block(
            intact.columns[Kind.TOKENS][:4],
            intact.columns[Kind.LABELS][:4],
            tuple(intact.columns[Kind.KEYS][:4]),
        )
        assert [path.name for path in tmp_path.iterdir()] == [".train.zarr.partial"]
        raise DamagedError("the source is damaged")

    with pytest.raises(DamagedError, match="the source is damaged"):
        write_zarr_split(
            tmp_path / "train.zarr",
            blocks(),
            codec=intact.codec,
            num_samples=8,
            classes=CLASSES,
            block_samples=4,
            shard_samples=8,
        )
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_writer_left_is_replaced(intact, tmp_path):
    leftover = tmp_path / ".train.zarr.partial"
    leftover.mkdir()
    (leftover / "stray").touch()
    assert write(tmp_path / "train.zarr", 21).written == intact.written
    assert [path.name for path in tmp_path.iterdir()] == ["train.zarr"]


def test_a_path_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="cannot be written"):
        write(tmp_path / "file" / "train.zarr", 3)


def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(SeitError, match=r"the disk is full: .*/train\.zarr could not be written"):
        write(tmp_path / "train.zarr", 21)
    assert list(tmp_path.iterdir()) == []


def test_blocks_that_are_not_those_announced(intact, tmp_path):
    block = Block(
        intact.columns[Kind.TOKENS][:3],
        intact.columns[Kind.LABELS][:3],
        tuple(intact.columns[Kind.KEYS][:3]),
    )
    for blocks, total in (([block], 4), ([block, block], 6), ([block], 2)):
        with pytest.raises(AssertionError):
            write_zarr_split(
                tmp_path / "train.zarr",
                blocks,
                codec=intact.codec,
                num_samples=total,
                classes=CLASSES,
                block_samples=4,
                shard_samples=8,
            )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("block_samples", "samples"), [(3, [8190, 4]), (700, [7700, 494]), (9000, [8194])]
)
def test_shards_hold_as_many_blocks_as_fit(tmp_path, block_samples, samples):
    tokens = np.zeros((8194, 1, 1), dtype=np.uint16)
    blocks = (
        Block(
            tokens[start : start + block_samples],
            np.zeros(len(tokens[start : start + block_samples]), dtype=np.int32),
            tuple(map(str, range(start, min(start + block_samples, len(tokens))))),
        )
        for start in range(0, len(tokens), block_samples)
    )
    written = write_zarr_split(
        tmp_path / "train.zarr",
        blocks,
        codec=PackedCodec(TokenLayout(grid=(1, 1), num_codes=2)),
        num_samples=len(tokens),
        classes=CLASSES,
        block_samples=block_samples,
    )
    assert [shard.samples for shard in written.shards] == samples


def test_strings_that_no_reader_takes_are_refused(intact, tmp_path, monkeypatch):
    monkeypatch.setattr("seit.shards.zarr.chunks.MAX_RAW_BYTES", 50)
    with pytest.raises(SeitError, match="at most 50 bytes fit: write fewer samples per block"):
        write(tmp_path / "train.zarr", 21)
    assert MAX_FRAME_BYTES > MAX_RAW_BYTES
    assert list(tmp_path.iterdir()) == []
