"""Folders as pieces: the samples of a listing, and no names of files in memory."""

import os
import pickle
import tracemalloc
from dataclasses import replace

import pytest
from support import s3
from support.files import plant, tree
from support.jobs import LISTING, assert_same_samples, blocks_of, message
from support.pictures import png

import seit
from seit.errors import UsageError
from seit.ingest import TokenizeConfig, fit_and_measure, tokenize
from seit.ingest.pieces import folders
from seit.ingest.pieces.find import find_pieces
from seit.ingest.pieces.piece import Findings
from seit.ingest.resolve import resolve_tokenizer
from seit.ingest.sources import list_corpus, summary
from seit.ingest.sources.walk import Entry
from seit.stores import verify_store
from seit.tokenizers import save_tokenizer

CONFIG = TokenizeConfig(
    size=32, codes=32, tokenizer="patch-pca-vq", shard_samples=1024, plan="pieces", fit_samples=64
)


def pictures(names):
    return {name: png(number, 24) for number, name in enumerate(names)}


def files_of(*, splits, per_class=12):
    """Names of files of three classes, some of them in folders of their own."""
    return [
        f"{split}{name}/{'x/' if number % 5 == 0 else ''}{number}.png"
        for split in splits
        for name in ("ape", "bee", "cat")
        for number in range(per_class)
    ]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    root = plant(tmp_path_factory.mktemp("fit"), pictures(files_of(splits=["train/", "val/"])))
    path = tmp_path_factory.mktemp("tokenizer") / "t.safetensors"
    fitted, _, _ = fit_and_measure(root, replace(CONFIG, **LISTING))
    save_tokenizer(fitted, path)
    return str(path)


@pytest.fixture
def grouped(monkeypatch):
    """Let small folders be in one group, as large ones are."""
    monkeypatch.setattr(folders, "_PAGE_FILES", 1)


def pieces_of(source, config=CONFIG):
    return find_pieces(source, resolve_tokenizer(config)[0])


def drafts_of(found):
    """The inputs of all pieces, piece by piece."""
    return [
        [
            (draft.key, draft.split, draft.class_name, draft.location, draft.num_bytes)
            for draft in found.reader.read(piece, Findings())
        ]
        for piece in found.pieces
    ]


def listed(source, modality="image"):
    corpus = list_corpus(source, modality=modality)
    return [
        (
            entry.key,
            entry.split if corpus.is_hash_split is False else None,
            corpus.classes[entry.label] if entry.label >= 0 else None,
            entry.location,
            entry.num_bytes,
        )
        for entry in corpus.instances
    ]


# ------------------------------------------------------------------------- the same samples


@pytest.mark.usefixtures("grouped")
@pytest.mark.parametrize("splits", [["train/", "val/"], ["Training/", "dev/", "test/"], [""]])
def test_pieces_hold_the_samples_of_a_listing(splits, tokenizer, tmp_path):
    names = files_of(splits=splits, per_class=12 if len(splits) > 1 else 30)
    root = plant(tmp_path / "src", {**pictures(names), "ape/.hidden": "x", "notes.txt": "x"})
    if len(splits) > 1:
        (root / "ape" / ".hidden").unlink()
        (root / "ape").rmdir()
    config = replace(CONFIG, tokenizer=tokenizer, size=None, val_fraction=0.2)
    with blocks_of(16):
        config = replace(config, shard_samples=16)
        assert len(pieces_of(root, config).pieces) > 3
        made = tokenize(root, tmp_path / "pieces", config)
        known = tokenize(root, tmp_path / "listing", replace(config, **LISTING))
        assert pieces_of(root, config).warnings == known.warnings[:1]
    assert_same_samples(tmp_path / "pieces", tmp_path / "listing")
    assert verify_store(tmp_path / "pieces").ok
    assert set(known.warnings[:1]) <= set(made.warnings)
    assert (tmp_path / "pieces/skipped.jsonl").read_bytes() == (
        tmp_path / "listing/skipped.jsonl"
    ).read_bytes()


@pytest.mark.usefixtures("grouped")
def test_pieces_of_a_group_have_the_order_of_a_listing(tmp_path):
    root = plant(tmp_path / "src", files_of(splits=[""], per_class=40))
    with blocks_of(16):
        found = pieces_of(root, replace(CONFIG, shard_samples=16))
    inputs = [entry for piece in drafts_of(found) for entry in piece]
    assert len(found.pieces) == 15
    keys = [entry[0] for entry in inputs]
    in_order = [entry.key for entry in list_corpus(root, val_fraction=0).instances]
    assert keys == in_order
    assert sorted(inputs) == sorted(listed(root))


@pytest.mark.usefixtures("grouped")
def test_every_shard_mixes_the_classes_of_its_group(tokenizer, tmp_path):
    root = plant(tmp_path / "src", pictures(files_of(splits=["train/"], per_class=64)))
    config = replace(CONFIG, tokenizer=tokenizer, size=None)
    with blocks_of(32):
        tokenize(root, tmp_path / "store", replace(config, shard_samples=32))
    for shard in seit.open(tmp_path / "store")["train"].shards:
        labels = shard.open_columns(0).labels.tolist()
        assert max(labels.count(label) for label in range(3)) < len(labels) * 0.8


def test_links_odd_names_and_files_of_systems_are_as_in_a_listing(tmp_path):
    root = plant(tmp_path / "src", [
        *files_of(splits=[""]), "bee/Thumbs.db", "bee/__MACOSX/1.png", "empty/.keep", "loose.png",
        "notes/readme.md",
    ])  # fmt: skip
    plant(tmp_path / "elsewhere", ["deep/7.png", "8.png"])
    (root / "dog").symlink_to(tmp_path / "elsewhere")
    (root / "ape" / "loop").symlink_to(root)
    (root / "ape" / "broken.png").symlink_to(tmp_path / "nowhere")
    (root / "ape" / "linked.png").symlink_to(tmp_path / "elsewhere" / "8.png")
    os.mkfifo(root / "ape" / "pipe.png")
    (root / os.fsdecode(b"cat/\xff 5%.png")).write_bytes(b"x")
    found = pieces_of(root)
    assert sorted(entry for piece in drafts_of(found) for entry in piece) == sorted(listed(root))
    corpus = list_corpus(root)
    assert found.classes == corpus.classes == ("ape", "bee", "cat", "dog")
    assert set(found.warnings) <= set(corpus.warnings)
    assert len(found.warnings) == 6
    assert found.reader.repeats


def test_flat_folders_have_no_labels(tokenizer, tmp_path):
    root = plant(tmp_path / "src", pictures(f"{n}.png" for n in range(20)))
    config = replace(CONFIG, tokenizer=tokenizer, size=None, val_fraction=0.3)
    tokenize(root, tmp_path / "pieces", config)
    tokenize(root, tmp_path / "listing", replace(config, **LISTING))
    assert_same_samples(tmp_path / "pieces", tmp_path / "listing")


def test_processes_make_the_same_bytes(tokenizer, tmp_path):
    root = plant(tmp_path / "src", pictures(files_of(splits=["train/"])))
    config = replace(CONFIG, tokenizer=tokenizer, size=None)
    for piece in pieces_of(root, config).pieces:
        assert pickle.loads(pickle.dumps(piece)) == piece
    tokenize(root, tmp_path / "threads", config)
    tokenize(root, tmp_path / "processes", replace(config, decoders="processes", workers=2))
    assert tree(tmp_path / "threads") == tree(tmp_path / "processes")


# ------------------------------------------------------------------------------ bounded memory


@pytest.mark.parametrize("num_folders", [200, 4])
def test_the_driver_holds_no_names_of_files(num_folders, tmp_path, monkeypatch):
    names = [f"class {number}" for number in range(num_folders)]
    for name in names:
        (tmp_path / name).mkdir()
    per_folder = 40_000 // num_folders

    def scan(path, relative, remarks):
        if not relative:  # the root
            yield from (Entry(name, True, False, -1) for name in names)
            return
        for number in range(per_folder):
            yield Entry(f"{number:012d}.jpg", False, False, 100_000 + number)

    monkeypatch.setattr(summary, "scan", scan)
    config, _ = resolve_tokenizer(CONFIG)
    tracemalloc.start()
    try:
        found = find_pieces(tmp_path, config)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert found.samples == 40_000
    assert len(found.pieces) >= 40
    assert peak < 1_500_000


# ------------------------------------------------------------------------- changes and refusals


def test_a_changed_folder_stops_the_job_and_a_changed_corpus_is_another_job(
    tokenizer, tmp_path, monkeypatch
):
    root = plant(tmp_path / "src", pictures(files_of(splits=["train/", "val/"])))
    config = replace(CONFIG, tokenizer=tokenizer, size=None)
    with monkeypatch.context() as patch:
        from seit.ingest.pieces import job

        def change(*args):
            plant(root, {"train/ape/late.png": png(99, 24)})
            return fit(*args)

        fit = job.fit_job
        patch.setattr(job, "fit_job", change)
        text = message(UsageError, root, tmp_path / "store", config)
        assert "train/ape/ has changed since the job began" in text
    assert "the files of SRC have changed" in message(UsageError, root, tmp_path / "store", config)
    (root / "train/ape/late.png").unlink()
    tokenize(root, tmp_path / "store", config)
    assert verify_store(tmp_path / "store").ok
    first = pieces_of(root, config).fingerprint
    assert pieces_of(root, config).fingerprint == first
    plant(root, {"val/cat/1.png": png(1, 28)})
    assert pieces_of(root, config).fingerprint != first


def test_sources_that_are_refused(tmp_path):
    table = plant(tmp_path / "t", {
        "cat/1.png": png(0, 24), "metadata.csv": "file_name,label\ncat/1.png,3\n",
    })  # fmt: skip
    text = message(UsageError, table, tmp_path / "x", CONFIG)
    assert "metadata.csv names the files next to it" in text
    assert "give that table as SRC" in text
    other = plant(tmp_path / "o", {"metadata.csv": "a,b\n1,2\n", "cat/1.png": png(0, 24)})
    assert pieces_of(other).samples == len(list_corpus(other).instances) == 2
    sounds = plant(tmp_path / "s", ["cat/1.wav", "dog/1.flac"])
    assert "pass an audio tokenizer" in message(UsageError, sounds, tmp_path / "x", CONFIG)
    store = plant(tmp_path / "k", {"store.json": "{}", "train/00000.tar": "x"})
    assert "is a token store already" in message(UsageError, store, tmp_path / "x", CONFIG)
    (tmp_path / "e").mkdir()
    assert "has no files to list" in message(UsageError, tmp_path / "e", tmp_path / "x", CONFIG)
    splits = ["train/ape/1.png", "val/ape/1.png", "more/ape/1.png"]
    mixed = plant(tmp_path / "m", splits)
    assert "its classes cannot be known" in message(UsageError, mixed, tmp_path / "x", CONFIG)


# ------------------------------------------------------------------------------- object storage


@pytest.fixture(scope="module")
def bucket(tmp_path_factory):
    """An S3 server that every client of this process finds."""
    with s3.bucket("folders", tmp_path_factory.mktemp("cache")) as filesystem:
        yield filesystem


@pytest.mark.parametrize("splits", [["train/", "val/"], [""]])
def test_a_folder_in_a_bucket_makes_the_store_of_one_on_a_disk(splits, bucket, tokenizer, tmp_path):
    root = plant(tmp_path / "src", {
        **pictures(files_of(splits=splits, per_class=8)),
        **dict.fromkeys([f"{splits[0]}ape/.hidden/1.png", f"{splits[0]}ape/Thumbs.db"], "x"),
    })  # fmt: skip
    base = f"folders/{len(splits)}"
    bucket.put(f"{root}/", f"{base}/src/", recursive=True)
    config = replace(CONFIG, tokenizer=tokenizer, size=None)
    with blocks_of(16):
        config = replace(config, shard_samples=16)
        tokenize(f"s3://{base}/src", f"s3://{base}/store", config)
        tokenize(root, tmp_path / "here", config)
    opened = seit.open(f"s3://{base}/store").folder
    assert {name: opened.read(name) for name in opened.names()} == tree(tmp_path / "here")
    assert verify_store(f"s3://{base}/store").ok


def test_an_address_without_files_is_refused(bucket, tmp_path):
    text = message(UsageError, "s3://folders/nothing", tmp_path / "x", CONFIG)
    assert "holds no files, or does not exist" in text
