import gc
import gzip
import json
import pickle
import shutil
import subprocess
import sys
import warnings

import numpy as np
import pytest
import webdataset
import zarr
from PIL import Image
from support.files import tree
from support.stores import build_store, edit_card, record_of
from torch.utils.data import DataLoader

import seit
from seit.cli import main
from seit.config import build
from seit.errors import DamagedError, UsageError
from seit.shards import BlockDecoder, Split, sample_pipeline, shard_urls
from seit.stores import convert_store, copy_store, verify_store
from seit.stores.recode import fit_codec, recode_store
from seit.training import TrainConfig, evaluate_run, predict, train

NUM_SAMPLES = 150
SHARDS = {"train": (14, 9, 5), "val": (7,)}
TRAINING = build(
    TrainConfig,
    {
        "model": {"name": "vit_tiny_patch16_224", "embed_dim": 16, "depth": 1, "num_heads": 2},
        "data": {"batch_size": 32},
        "schedule": {"steps": 2, "warmup_steps": 0},
        "run": {"device": "cpu"},
    },
    origin="test",
)
FORMS = [("packed", "wds"), ("context", "wds"), ("packed", "zarr"), ("context", "zarr")]


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    path = tmp_path_factory.mktemp("source") / "store"
    columns = build_store(
        path,
        grid=(32, 32),
        num_codes=40,
        shards={"train": (75, 35, 18), "val": (22,)},
        block_samples=32,
        codec="context",
        with_metadata=True,
    )
    return path, columns


def same_content(path, columns):
    store = seit.open(path)
    for split, written in columns.items():
        np.testing.assert_array_equal(store[split].tokens[:], written.tokens)
        np.testing.assert_array_equal(store[split].labels, written.labels)
        assert list(store[split].keys) == written.keys
        assert [sample.metadata for sample in store[split]] == written.metadata
    assert verify_store(path).ok
    return store


@pytest.mark.parametrize(("codec", "container"), FORMS)
def test_every_form_becomes_every_other(source, tmp_path, codec, container):
    path, columns = source
    convert_store(path, tmp_path / "first", codec=codec, container=container)
    store = same_content(tmp_path / "first", columns)
    assert (store.card.codec, store.card.container) == (codec, container)
    for number, form in enumerate(FORMS):
        target = tmp_path / str(number)
        result = convert_store(tmp_path / "first", target, codec=form[0], container=form[1])
        again = same_content(target, columns)
        assert (result.codec, result.container) == form
        assert (again.card.codec, again.card.container) == form
        assert result.bytes == sum(map(len, tree(target).values()))
        assert result.bytes_per_sample == result.bytes / NUM_SAMPLES


@pytest.mark.parametrize("container", ["wds", "zarr"])
def test_files_beside_the_tokens_do_not_decide_the_codec(source, tmp_path, container):
    path = shutil.copytree(source[0], tmp_path / "store")
    (path / "tokenizer.safetensors").write_bytes(bytes(300_000))
    record = record_of(path, "tokenizer.safetensors")
    entry = {"file": record.file, "bytes": record.bytes, "sha256": record.sha256}
    edit_card(path, lambda body: body["files"].append(entry))
    result = convert_store(path, tmp_path / "other", codec="context", container=container)
    assert result.codec == "context"


def test_context_is_smaller_and_deterministic(source, tmp_path):
    path, _ = source
    sizes = {}
    for name, codec in [("packed", "packed"), ("one", "context"), ("two", "context")]:
        sizes[name] = convert_store(path, tmp_path / name, codec=codec).bytes
    assert sizes["one"] < 0.8 * sizes["packed"]
    assert tree(tmp_path / "one") == tree(tmp_path / "two")


def test_a_store_that_would_grow_stays_packed(tmp_path):
    columns = build_store(tmp_path / "small", grid=(4, 4), num_codes=391, shards=SHARDS)
    result = convert_store(tmp_path / "small", tmp_path / "coded", codec="context")
    assert result.codec == "packed"
    same_content(tmp_path / "coded", columns)


@pytest.mark.parametrize("container", ["wds", "zarr"])
def test_a_coded_store_keeps_its_codec_where_little_is_saved(tmp_path, container):
    """Labels, keys and metadata, as large as the tokens, take no part in the choice."""
    long_keys = "{}/a folder of a long name for pictures that are small/{}.jpg".format
    build_store(tmp_path / "one", shards=SHARDS, codec="context", key_of=long_keys)
    result = convert_store(tmp_path / "one", tmp_path / "two", codec="context", container=container)
    tables = len(seit.open(tmp_path / "one").codec.tables)
    stored = sum(
        int(shard.open_stored_bytes(block).sum())
        for split in seit.open(tmp_path / "one").values()
        for shard, block in split.blocks()
    )
    card = seit.open(tmp_path / "one").card
    packed = card.samples * card.layout.sample_bytes
    assert (result.codec == "context") == (stored + tables < packed)


def test_a_store_is_not_converted_into_itself(source, tmp_path):
    path = shutil.copytree(source[0], tmp_path / "store")
    (tmp_path / "link").symlink_to(path)
    before = tree(path)
    for target in (path, tmp_path / "link", str(path) + "/"):
        for options in ({}, {"codec": "context"}, {"container": "official"}):
            with pytest.raises(UsageError, match="is both SRC and DST"):
                convert_store(path, target, **options)
    assert tree(path) == before


def test_a_packed_store_says_why(source, tmp_path, capsys):
    build_store(tmp_path / "small", grid=(4, 4), num_codes=391, shards=SHARDS)
    for name, words in (("small", ["the store is packed"]), (None, [])):
        path = source[0] if name is None else tmp_path / name
        main(["convert", str(path), str(tmp_path / f"{name}-coded"), "--codec", "context"])
        warnings = [line for line in capsys.readouterr().err.splitlines() if "warning" in line]
        assert len(warnings) == len(words)
        assert all(word in line for word, line in zip(words, warnings, strict=True))


def test_too_many_codes_stay_packed(tmp_path):
    columns = build_store(tmp_path / "large", grid=(2, 2), num_codes=5000, shards=SHARDS)
    assert convert_store(tmp_path / "large", tmp_path / "coded", codec="context").codec == "packed"
    same_content(tmp_path / "coded", columns)


@pytest.mark.parametrize("container", ["wds", "zarr"])
def test_stores_without_samples_and_with_blocks_of_one(tmp_path, container):
    for name, shards, block_samples in [("none", (0,), 8), ("ones", (5,), 1)]:
        columns = build_store(
            tmp_path / name, shards={"train": shards}, block_samples=block_samples
        )
        target = tmp_path / f"{name}-{container}"
        convert_store(tmp_path / name, target, codec="context", container=container)
        np.testing.assert_array_equal(seit.open(target)["train"].tokens[:], columns["train"].tokens)
        assert verify_store(target).ok


def test_without_a_form_all_files_are_copied_as_they_are(source, tmp_path):
    path, _ = source
    convert_store(path, tmp_path / "copy")
    assert tree(tmp_path / "copy") == tree(path)


def test_official_files_and_back(source, tmp_path):
    path, columns = source
    exported = convert_store(path, tmp_path / "files", container="official")
    assert exported.codec is None
    assert exported.samples == NUM_SAMPLES
    for codec, container in [(None, None), ("packed", "zarr")]:
        target = tmp_path / f"back-{codec}"
        result = convert_store(tmp_path / "files", target, codec=codec, container=container)
        store = seit.open(target)
        assert (result.codec, result.container) == (codec or "context", container or "wds")
        for split, written in columns.items():
            np.testing.assert_array_equal(store[split].tokens[:], written.tokens)
            np.testing.assert_array_equal(store[split].labels, written.labels)
        np.testing.assert_array_equal(store.codebook, seit.open(path).codebook)
        assert verify_store(target).ok


def test_official_files_hold_grids_of_32_by_32_alone(tmp_path):
    build_store(tmp_path / "small", grid=(4, 4), num_codes=40, shards={"train": (3,)})
    with pytest.raises(UsageError, match="grids of 4×4 and naver-ai/seit's files only hold 32×32"):
        convert_store(tmp_path / "small", tmp_path / "files", container="official")
    assert not (tmp_path / "files").exists()


def test_what_came_of_official_files_trains_and_says_that_it_has_no_pictures(source, tmp_path):
    path, _ = source
    convert_store(path, tmp_path / "files", container="official")
    for labels in (tmp_path / "files").glob("*-label.txt"):
        labels.write_text(labels.read_text().replace("-1", "0"))
    convert_store(tmp_path / "files", tmp_path / "store")
    store = seit.open(tmp_path / "store")
    assert not store.has_tokenizer_file
    tokenizer = store.load_tokenizer()
    assert tokenizer.fingerprint == store.card.tokenizer.fingerprint
    assert tokenizer.grid == (32, 32)
    np.testing.assert_array_equal(tokenizer.codebook.numpy(), store.codebook)
    result = train(TRAINING, store, out=tmp_path / "run")
    assert (tmp_path / "run" / "report.html").is_file()
    assert evaluate_run(tmp_path / "run", store, device="cpu").top1 == result.top1
    train(TRAINING, store, out=tmp_path / "warm", init_from=tmp_path / "run")
    Image.new("RGB", (64, 64)).save(tmp_path / "photo.png")
    with pytest.raises(UsageError, match="imported from naver-ai/seit's files"):
        predict(tmp_path / "run", [tmp_path / "photo.png"], device="cpu")


def test_remote_targets_and_sources(source, tmp_path):
    path, columns = source
    convert_store(path, "memory://converted/zarr", codec="packed", container="zarr")
    convert_store("memory://converted/zarr", tmp_path / "back", codec="context", container="wds")
    same_content(tmp_path / "back", columns)
    with pytest.raises(UsageError, match="not empty"):
        convert_store(path, "memory://converted/zarr", codec="packed")


def test_what_cannot_be_converted_is_refused_and_leaves_nothing(source, tmp_path):
    path, _ = source
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("mine")
    for arguments, options, reason in [
        ((path, tmp_path / "full"), {"codec": "packed"}, "not empty"),
        ((path, tmp_path / "new"), {"codec": "nope"}, "no codec is named 'nope'"),
        ((path, tmp_path / "new"), {"container": "nope"}, "no container is named 'nope'"),
        ((tmp_path / "none", tmp_path / "new"), {"codec": "packed"}, "no store"),
        ((path, tmp_path / "new"), {"codec": "packed", "container": "official"}, "one codec"),
        ((path, "memory://files"), {"container": "official"}, "local folder"),
    ]:
        with pytest.raises(UsageError, match=reason):
            convert_store(*arguments, **options)
    assert (tmp_path / "full" / "file").read_text() == "mine"
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["full"]


@pytest.mark.parametrize("container", ["wds", "zarr"])
def test_labels_of_no_class_are_damage(source, tmp_path, monkeypatch, container):
    monkeypatch.setattr(Split, "classes", property(lambda _: ("ant",)))
    with pytest.raises(DamagedError, match="holds labels from -1 to 2 where its card names 1"):
        convert_store(source[0], tmp_path / "target", codec="packed", container=container)
    assert not list(tmp_path.iterdir())


def test_a_damaged_source_leaves_nothing(source, tmp_path):
    path, _ = source
    convert_store(path, tmp_path / "broken")
    shard = tmp_path / "broken" / "train" / "00001.tar"
    data = bytearray(shard.read_bytes())
    data[700] ^= 1
    shard.write_bytes(data)
    with pytest.raises(DamagedError, match=r"train/00001\.tar, block 0"):
        convert_store(tmp_path / "broken", tmp_path / "target", container="zarr")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["broken"]


def test_zarr_opens_a_converted_store(source, tmp_path):
    path, columns = source
    convert_store(path, tmp_path / "zarr", container="zarr")
    code = (
        "import sys, zarr\n"
        "group = zarr.open(sys.argv[1], mode='r')\n"
        "print(group['tokens'][3:5].tolist(), group['labels'][:4].tolist(), group['keys'][2])\n"
    )
    found = subprocess.run(  # in a process that has not imported seit
        [sys.executable, "-c", code, str(tmp_path / "zarr" / "train.zarr")],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    train = columns["train"]
    assert found == f"{train.tokens[3:5].tolist()} {train.labels[:4].tolist()} {train.keys[2]}"
    group = zarr.open(tmp_path / "zarr" / "train.zarr", mode="r")
    assert group["tokens"].shape == train.tokens.shape


def test_recoding_goes_over_what_an_earlier_attempt_left(source, tmp_path):
    path, columns = source
    for container in ("wds", "zarr"):
        target = tmp_path / container
        recode_store(seit.open(path), target, codec="packed", container=container)
        (target / "store.json").unlink()
        recode_store(seit.open(path), target, codec="context", container=container)
        same_content(target, columns)


def test_tables_are_fitted_to_all_splits(source):
    path, _ = source
    codec = fit_codec(seit.open(path))
    assert codec.tables == fit_codec(seit.open(path)).tables


def same_samples(samples, written):
    assert [sample["__key__"] for sample in samples] == written.keys
    assert [sample["label"] for sample in samples] == written.labels.tolist()
    assert [sample["metadata"] for sample in samples] == written.metadata
    np.testing.assert_array_equal([sample["tokens"] for sample in samples], written.tokens)


@pytest.mark.parametrize("codec", ["packed", "context"])
def test_a_webdataset_pipeline_yields_samples(source, tmp_path, codec):
    path, columns = source
    convert_store(path, tmp_path / "store", codec=codec)
    split = seit.open(tmp_path / "store")["train"]
    decoder = pickle.loads(pickle.dumps(BlockDecoder(split.store)))
    dataset = webdataset.WebDataset(shard_urls(split), shardshuffle=False, empty_check=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # the library leaves its files open
        samples = list(dataset.compose(decoder))
        gc.collect()
    same_samples(samples, columns["train"])
    pipeline = pickle.loads(pickle.dumps(sample_pipeline(split)))
    same_samples(list(pipeline), columns["train"])
    shuffled = [sample["__key__"] for sample in sample_pipeline(split, shuffle_shards=8, seed=3)]
    assert sorted(shuffled) == sorted(columns["train"].keys)
    workers = DataLoader(pipeline, batch_size=None, num_workers=2, multiprocessing_context="fork")
    assert sorted(sample["__key__"] for sample in workers) == sorted(columns["train"].keys)


def test_a_pipeline_reads_remote_tars_and_plain_ones_alone(source, tmp_path):
    path, columns = source
    place = f"memory://{tmp_path.name}/store"
    copy_store(path, place)
    split = seit.open(place)["train"]
    same_samples(list(sample_pipeline(split)), columns["train"])
    copy = tmp_path / "copy"
    copy_store(path, copy)
    shard = copy / split.shards[0].record.file
    shard.write_bytes(gzip.compress(shard.read_bytes()))
    with pytest.raises(DamagedError, match="is not a tar of a store"):
        list(sample_pipeline(seit.open(copy)["train"]))


def test_a_pipeline_names_what_is_damaged(source):
    path, _ = source
    decoder = BlockDecoder(seit.open(path))
    with pytest.raises(DamagedError, match="block 00000-0000 lacks its 'tokens'"):
        list(decoder([{"__key__": "00000-0000", "jpg": b""}]))
    with pytest.raises(DamagedError, match=r"a\.tar, block 7: .* too short"):
        list(decoder([{"__key__": "7", "__url__": "a.tar", "tokens": b"", "labels": b""}]))


def test_zarr_stores_have_no_tars(source, tmp_path):
    path, _ = source
    convert_store(path, tmp_path / "zarr", container="zarr")
    with pytest.raises(UsageError, match="--container wds"):
        shard_urls(seit.open(tmp_path / "zarr")["train"])


def test_the_commands(source, tmp_path, capsys):
    path, _ = source
    forms = ("--container", "zarr", "--codec", "packed")
    main(["convert", str(path), str(tmp_path / "a"), *forms, "--json"])
    result = json.loads(capsys.readouterr().out)
    assert result["samples"] == NUM_SAMPLES
    assert (result["codec"], result["container"]) == ("packed", "zarr")
    main(["convert", str(path), str(tmp_path / "b")])
    assert "wds, context" in capsys.readouterr().out
    damaged = tmp_path / "b" / "train" / "00000.tar"
    damaged.write_bytes(damaged.read_bytes()[:-700])
    with pytest.raises(SystemExit) as left:
        main(["verify", str(tmp_path / "b")])
    assert left.value.code == 1
