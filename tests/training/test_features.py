"""`seit embed`: features of any layer, written batch by batch, in two formats."""

import json
import struct

import numpy as np
import pyarrow
import pytest
import torch
from pyarrow import parquet

import seit
from seit.errors import DamagedError, UsageError
from seit.files import PARTIAL_SUFFIX
from seit.training import Run, load_backbone, make_augment, open_features, read_features
from seit.training.features import base, table


@pytest.fixture(scope="module")
def written(tiny_run, pattern_store, tmp_path_factory):
    """Files of the same features in both formats."""
    folder = tmp_path_factory.mktemp("features")
    for suffix in ("safetensors", "parquet"):
        seit.embed(tiny_run, store=pattern_store, out=folder / f"f.{suffix}", device="cpu")
    return folder


@pytest.mark.parametrize("layer", ["tokens", "stem", "blocks.0"])
def test_a_layer_is_the_mean_over_its_positions(tiny_run, pattern_store, tmp_path, layer):
    out = tmp_path / "f.safetensors"
    result = seit.embed(tiny_run, store=pattern_store, out=out, layer=layer, device="cpu")
    run, split = Run.open(tiny_run), pattern_store["val"]
    augment = make_augment(pattern_store, run.settings, torch.device("cpu"), with_train=False)
    model = load_backbone(run, augment, torch.device("cpu")).eval()
    ids = torch.from_numpy(split.tokens[:].astype(np.int64))
    with torch.inference_mode():
        x = augment.evaluate(ids)
        if layer != "tokens":
            x = model._pos_embed(model.patch_embed(x))
            x = x if layer == "stem" else model.blocks[0](x)
            x = x[:, model.num_prefix_tokens :].transpose(1, 2)
        expected = x.flatten(2).mean(2).numpy()
    found = read_features(out)
    np.testing.assert_allclose(found.features, expected, atol=1e-5)
    assert result.dim == expected.shape[1]
    assert open_features(out).origins.layer == layer


def test_both_formats_hold_the_same(written, pattern_store):
    one, other = (read_features(written / f"f.{kind}") for kind in ("safetensors", "parquet"))
    np.testing.assert_array_equal(one.features, other.features)
    np.testing.assert_array_equal(one.labels, pattern_store["val"].labels)
    np.testing.assert_array_equal(other.labels, one.labels)
    assert one.keys == other.keys == tuple(pattern_store["val"].keys)
    assert one.classes == other.classes == pattern_store.classes
    first, second = (open_features(written / f"f.{kind}") for kind in ("safetensors", "parquet"))
    assert first.origins == second.origins
    for file in (first, second):
        np.testing.assert_array_equal(file.read(3, 11), one.features[3:11])


def test_other_libraries_read_the_files(written):
    from safetensors.numpy import load_file

    tensors = load_file(written / "f.safetensors")
    rows = parquet.read_table(written / "f.parquet").to_pylist()
    np.testing.assert_array_equal(tensors["features"], [row["features"] for row in rows])
    assert rows[0]["class"] == "bars"


def test_an_interrupted_file_is_not_left(tiny_run, pattern_store, tmp_path):
    def stop(done, total):
        raise KeyboardInterrupt

    for suffix in ("safetensors", "parquet"):
        with pytest.raises(KeyboardInterrupt):
            seit.embed(tiny_run, store=pattern_store, out=tmp_path / f"f.{suffix}", progress=stop)
    assert not list(tmp_path.glob(f"*{PARTIAL_SUFFIX}"))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"out": "f.npy"}, "end it in .safetensors or .parquet"),
        ({"layer": "blocks.7"}, "the layers are head, tokens, stem, blocks.0"),
        ({"split": "test"}, "no split"),
    ],
)
def test_what_cannot_be_written(tiny_run, pattern_store, tmp_path, changes, words):
    given = {"out": "f.safetensors", "device": "cpu"} | changes
    given["out"] = tmp_path / given["out"]
    with pytest.raises(UsageError, match=words):
        seit.embed(tiny_run, store=pattern_store, **given)
    assert not list(tmp_path.iterdir())


def test_damaged_files_are_named(written, tmp_path):
    whole = (written / "f.safetensors").read_bytes()
    size = struct.unpack("<Q", whole[:8])[0]
    header = json.loads(whole[8 : 8 + size])

    def with_header(**changes):
        text = json.dumps(header | changes).encode().ljust(size)
        return struct.pack("<Q", len(text)) + text + whole[8 + size :]

    labels = header["labels"]["data_offsets"][0] + 8 + size
    ends = header["key_ends"]["data_offsets"][0] + 8 + size
    cases = [
        whole[:-1],
        whole[:100],
        b"",
        with_header(features={**header["features"], "dtype": "I32"}),
        with_header(__metadata__={"seit": '{"layer": 3}'}),
        whole[:labels] + struct.pack("<q", 99) + whole[labels + 8 :],
        whole[:ends] + struct.pack("<q", 1 << 40) + whole[ends + 8 :],
    ]
    for number, data in enumerate(cases):
        path = tmp_path / f"{number}.safetensors"
        path.write_bytes(data)
        with pytest.raises(DamagedError, match=str(path)):
            read_features(path)
    whole = (written / "f.parquet").read_bytes()
    for number, data in enumerate([whole[:-1], b"", b"PAR1" + whole[4:200] + whole[-300:]]):
        path = tmp_path / f"{number}.parquet"
        path.write_bytes(data)
        with pytest.raises(DamagedError, match=str(path)):
            read_features(path)
    with pytest.raises(UsageError, match="there is no file"):
        read_features(tmp_path / "missing.safetensors")


def write_table(path, *, rows, dim, text="k", **columns):
    """Write a small file of features that are all zero and keys that are all the same."""
    zeros = pyarrow.array(np.zeros(rows * dim, np.float32))
    found = {
        "key": pyarrow.DictionaryArray.from_arrays(np.zeros(rows, np.int32), [text]),
        "label": np.zeros(rows, np.int64),
        "features": pyarrow.FixedSizeListArray.from_arrays(zeros, dim),
    }
    card = {"seit": json.dumps({"classes": ["a"], "origins": {}})}
    whole = pyarrow.table(found | columns).replace_schema_metadata(card)
    parquet.write_table(whole, path, row_group_size=1 << 14)
    return path


@pytest.mark.parametrize(
    ("limit", "content", "words"),
    [
        ("MAX_GROUP_BYTES", {"rows": 4096, "dim": 1024}, "4,096 rows × 1,024 .* takes 16,777,216"),
        ("MAX_INDEX_BYTES", {"rows": 100_000, "dim": 1}, "100,000 rows take 7,200,000 bytes"),
        ("MAX_INDEX_BYTES", {"rows": 4096, "dim": 1, "text": "k" * 10_000}, "rows take 41,254,912"),
        ("", {"rows": 2, "dim": 1, "label": ["0", "0"]}, "labels are string, expected int64"),
        ("", {"rows": 2, "dim": 1, "key": ["k", None]}, "2 keys, some of them null, of 2 rows"),
        ("", {"rows": 2, "dim": 1, "features": [[0.0], [0.0]]}, "expected lists of D float32"),
    ],
)
def test_small_files_that_decode_to_much_are_refused(tmp_path, monkeypatch, limit, content, words):
    path = write_table(tmp_path / "f.parquet", **content)
    assert path.stat().st_size < 100_000
    if limit:
        open_features(path)
        monkeypatch.setattr(table, limit, 1 << 20)
    usual = pyarrow.default_memory_pool()
    pool = pyarrow.proxy_memory_pool(usual)
    pyarrow.set_memory_pool(pool)
    try:
        with pytest.raises(DamagedError, match=words):
            open_features(path)
    finally:
        pyarrow.set_memory_pool(usual)
    assert pool.max_memory() < 2 << 20


def test_row_groups_are_decoded_in_parts(tmp_path, monkeypatch):
    rows, dim = 1000, 3
    features = np.arange(rows * dim, dtype=np.float32)
    columns = {"features": pyarrow.FixedSizeListArray.from_arrays(features, dim)}
    path = write_table(tmp_path / "f.parquet", rows=rows, dim=dim, **columns)
    monkeypatch.setattr(base, "BLOCK_BYTES", 4 * dim * 7)
    monkeypatch.setattr(table, "_BATCH_ROWS", 9)
    found = read_features(path)
    np.testing.assert_array_equal(found.features, features.reshape(rows, dim))
    assert found.keys == ("k",) * rows
    np.testing.assert_array_equal(open_features(path).read(6, 15), found.features[6:15])
