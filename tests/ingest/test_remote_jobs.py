"""Jobs that read from, and write to, a real S3 interface: the same store as from a disk."""

import io
import tarfile
from dataclasses import replace

import pytest
from support import s3
from support.files import plant, tree
from support.jobs import interrupt
from support.pictures import png
from support.stores import build_store

import seit
from seit.errors import DamagedError, SeitError, UnreadableError, UsageError
from seit.ingest import TokenizeConfig, tokenize
from seit.ingest.sources import Instance, list_corpus, read_bytes
from seit.ingest.sources.remote import ListedFolder
from seit.ingest.upload import upload
from seit.shards.folders.remote import RemoteFolder
from seit.stores import verify_store

CONFIG = TokenizeConfig(size=32, codes=32, shard_samples=1024, codec="packed")
COUNT = 24


def tar_of(numbers):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for number in numbers:
            for extension, data in (("png", png(number, 24)), ("cls", str(number % 3).encode())):
                member = tarfile.TarInfo(f"{number:03d}.{extension}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


@pytest.fixture(scope="module")
def bucket(tmp_path_factory):
    """An S3 server that every client of this process finds."""
    with s3.bucket("bucket", tmp_path_factory.mktemp("cache")) as filesystem:
        yield filesystem


@pytest.fixture(scope="module")
def corpora(bucket, tmp_path_factory):
    """One folder of corpora of each kind, here and in the bucket."""
    root = tmp_path_factory.mktemp("corpora")
    plant(root / "folder", {f"{'ab'[n % 2]}/{n} ü#.png": png(n, 24) for n in range(COUNT)})
    plant(root / "folder", {"a/broken.png": b"?", "a/empty.png": b"", ".hidden/x.png": b"?"})
    splits = {
        f"{'train' if n % 4 else 'val'}/{'ab'[n % 2]}/{n}.png": png(n, 24) for n in range(COUNT)
    }
    plant(root / "splits", splits)
    tars = {f"train-{k}.tar": tar_of(range(k * 8, k * 8 + 8)) for k in range(3)}
    plant(root / "tars", tars)
    rows = ["path,label,note", *(f"files/{n}.png,{n % 3},n{n}" for n in range(COUNT))]
    plant(root / "table", {f"files/{n}.png": png(n, 24) for n in range(COUNT)})
    plant(root / "table", {"list.csv": "\n".join(rows).encode()})
    bucket.put(f"{root}/", "bucket/data/", recursive=True)
    return root


@pytest.mark.parametrize(
    "name", ["folder", "splits", "tars", "table/list.csv", "tars/train-{0..2}.tar"]
)
def test_a_remote_corpus_makes_the_same_bytes(corpora, tmp_path, name):
    here = list_corpus(f"{corpora}/{name}")
    there = list_corpus(f"s3://bucket/data/{name}")
    assert there.fingerprint == here.fingerprint
    assert [item.key for item in there.instances] == [item.key for item in here.instances]
    assert there.warnings == here.warnings
    if "{" in name:
        return
    tokenize(f"{corpora}/{name}", tmp_path / "here", CONFIG)
    tokenize(f"s3://bucket/data/{name}", tmp_path / "there", CONFIG)
    assert tree(tmp_path / "there") == tree(tmp_path / "here")


def test_processes_read_remote_files_too(corpora, tmp_path):
    config = replace(CONFIG, decoders="processes", workers=1)
    tokenize("s3://bucket/data/splits", tmp_path / "there", config)
    tokenize(corpora / "splits", tmp_path / "here", CONFIG)
    assert tree(tmp_path / "there") == tree(tmp_path / "here")


def test_a_manifest_on_this_machine_may_name_urls(corpora, tmp_path):
    rows = [f"s3://bucket/data/table/files/{n}.png,{n % 3}" for n in range(COUNT)]
    (tmp_path / "list.csv").write_text("\n".join(["path,label", *rows, "s3://bucket/no.png,1"]))
    result = tokenize(tmp_path / "list.csv", tmp_path / "store", CONFIG)
    assert (result.samples, result.skipped) == (COUNT, 1)
    skipped = (tmp_path / "store" / "skipped.jsonl").read_text()
    assert "there is no such file" in skipped


def test_what_is_wrong_with_a_remote_file(corpora):
    for url, size, words in (
        ("s3://bucket/data/none.png", -1, "no such file"),
        ("s3://bucket/data/none.png", 10, "no such file"),
        ("s3://bucket/data/folder/a/broken.png", 100, "ends 99 bytes early"),
        ("s3://bucket/data/folder/a/broken.png", 1 << 31, "more than the limit"),
    ):
        with pytest.raises(UnreadableError, match=words):
            read_bytes(Instance("key", "train", 0, url, num_bytes=size))
    empty = Instance("key", "train", 0, "s3://bucket/data/folder/a/empty.png", num_bytes=0)
    assert read_bytes(empty) == b""


def test_wrong_remote_sources(corpora):
    for url, words in (
        ("s3://bucket/nothing", "holds no files"),
        ("s3://bucket/data/nothing.csv", "no such file"),
        ("s3://bucket/data/nothing.tar", "no such file"),
        ("s3://bucket/data/x.tar.gz", "decompress it"),
        ("what://bucket/x", "cannot be opened"),
    ):
        with pytest.raises(UsageError, match=words):
            list_corpus(url)


def test_a_place_that_does_not_answer_stops_the_job(corpora, tmp_path, monkeypatch):
    """An image is not skipped because the network failed: the job goes on when it is run again."""

    def fail(url, offset, size):
        raise SeitError("reading failed 8 times")

    with monkeypatch.context() as patch:
        patch.setattr("seit.ingest.sources.read.read_remote", fail)
        with pytest.raises(SeitError, match="failed 8 times"):
            tokenize("s3://bucket/data/splits", tmp_path / "store", CONFIG)
    assert tokenize("s3://bucket/data/splits", tmp_path / "store", CONFIG).skipped == 0


def test_hidden_files_are_not_listed(corpora):
    names = ListedFolder("s3://bucket/data/folder").sizes()
    assert len(names) == COUNT + 2
    assert not any("hidden" in name for name in names)


# -------------------------------------------------------------------------------------- stores


def test_a_store_is_uploaded_with_its_card_last(corpora, bucket, tmp_path, monkeypatch):
    url, work = "s3://bucket/stores/one", tmp_path / "work"
    config = replace(CONFIG, workdir=work)
    with pytest.raises(UsageError, match="--workdir"):
        tokenize(corpora / "splits", url, CONFIG)
    with monkeypatch.context() as patch:
        patch.setattr("seit.ingest.upload.copy_store", interrupt)
        with pytest.raises(KeyboardInterrupt):
            tokenize(corpora / "splits", url, config)
    assert not bucket.exists("bucket/stores/one/store.json")
    (kept,) = work.iterdir()
    made = tree(kept)
    result = tokenize(corpora / "splits", url, config)
    assert not list(work.iterdir())
    assert result.samples == COUNT
    assert verify_store(url).ok
    remote = {name: seit.open(url).folder.read(name) for name in seit.open(url).folder.names()}
    assert remote == made
    again = tokenize(corpora / "splits", url, config)
    assert (again.samples, again.samples_per_second) == (COUNT, 0)
    with pytest.raises(UsageError, match="belongs to another job"):
        tokenize(corpora / "folder", url, config)
    other = replace(config, overwrite=True)
    with monkeypatch.context() as patch:
        patch.setattr("seit.ingest.upload.copy_store", interrupt)
        with pytest.raises(KeyboardInterrupt):
            tokenize(corpora / "folder", url, other)
    assert tokenize(corpora / "folder", url, other).samples_per_second == 0  # only uploads
    assert verify_store(url).ok
    assert seit.open(url).card.skipped == 2


def test_a_killed_removal_of_the_old_store_resumes(bucket, tmp_path, monkeypatch):
    """The old store has a card that names more shards than there are."""
    url, staging = "s3://bucket/stores/old", tmp_path / "new"
    old = tmp_path / "old"
    build_store(old, shards={"train": (4, 4, 4)})
    bucket.put(f"{old}/", "bucket/stores/old/", recursive=True)
    (shard, _, _) = seit.open(old).card.splits["train"]
    bucket.rm(f"bucket/stores/old/{shard.file}")
    build_store(staging, shards={"train": (5,)})
    made = tree(staging)
    remove, calls = RemoteFolder.remove, []

    def interrupted(folder, name):
        calls.append(name)
        if len(calls) == 3:
            raise KeyboardInterrupt
        remove(folder, name)

    with monkeypatch.context() as patch:
        patch.setattr(RemoteFolder, "remove", interrupted)
        with pytest.raises(KeyboardInterrupt):
            upload(staging, url)
    assert not bucket.exists(f"{url}/store.json")
    upload(staging, url)
    found = seit.open(url).folder
    assert {name: found.read(name) for name in found.names()} == made
    assert [entry.name for entry in tmp_path.iterdir()] == ["old"]


def test_a_damaged_card_is_not_overwritten_unseen(bucket, corpora, tmp_path):
    """Its files cannot be known: nothing is removed, and nothing is done before that is said."""
    bucket.pipe("bucket/stores/bad/store.json", b"{")
    config = replace(CONFIG, workdir=tmp_path / "work", overwrite=True)
    with pytest.raises(DamagedError, match=r"bad/store\.json"):
        tokenize(corpora / "splits", "s3://bucket/stores/bad", config)
    assert not list((tmp_path / "work").iterdir())


def test_other_things_are_not_mixed_with_a_store(corpora, bucket, tmp_path):
    bucket.pipe("bucket/mine/thesis.tex", b"mine")
    with pytest.raises(UsageError, match=r"already holds 'thesis\.tex'"):
        tokenize(corpora / "splits", "s3://bucket/mine", replace(CONFIG, workdir=tmp_path))
    assert not list(tmp_path.iterdir())
