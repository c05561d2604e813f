"""`seit embed`: features of any layer, written batch by batch, in two formats."""

import json
import struct

import numpy as np
import pytest
import torch

import seit
from seit.errors import DamagedError, UsageError
from seit.files import PARTIAL_SUFFIX
from seit.training import Run, load_backbone, make_augment, open_features, read_features


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
    from pyarrow import parquet
    from safetensors.numpy import load_file

    tensors = load_file(written / "f.safetensors")
    table = parquet.read_table(written / "f.parquet").to_pylist()
    np.testing.assert_array_equal(tensors["features"], [row["features"] for row in table])
    assert table[0]["class"] == "bars"


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
