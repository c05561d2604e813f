"""Convert, merge and filter into object storage: shard by shard, safe against kills."""

import tempfile
from pathlib import Path

import numpy as np
import pytest
from support import s3
from support.files import tree
from support.stores import build_store

import seit
from seit.errors import SeitError, UsageError
from seit.shards import RemoteFolder, open_store
from seit.stores import convert_store, filter_store, merge_stores, verify_store
from seit.stores.hold_out import hold_out_samples
from seit.stores.sink import UNFINISHED_NAME, RemoteSink

SHARDS = {"train": (40, 40, 40, 17), "val": (9,)}


@pytest.fixture(scope="module")
def bucket(tmp_path_factory):
    """An S3 server that every client of this process finds."""
    with s3.bucket("stores", tmp_path_factory.mktemp("cache")) as filesystem:
        yield filesystem


def make(path, *, codec="packed", prefix=""):
    build_store(
        path,
        grid=(16, 16),
        num_codes=64,
        shards=SHARDS,
        block_samples=16,
        codec=codec,
        with_metadata=True,
        key_of=lambda split, number: f"{prefix}{split}/{number}",
    )
    return path


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """Stores that the codec `context` makes smaller, here in both codecs."""
    root = tmp_path_factory.mktemp("sources")
    make(root / "context", codec="context")
    make(root / "second", codec="context", prefix="more/")
    convert_store(root / "context", root / "packed", codec="packed")
    return root


def convert(source, target):
    return convert_store(source / "packed", target, codec="context")


def merge(source, target):
    return merge_stores(target, [source / "context", source / "second"])


def choose(source, target):
    return filter_store(source / "context", target, patterns=["*[02468]"], codec="packed")


def hold_out(source, target):
    rows = np.arange(0, 137, 3)
    store = seit.open(source / "context")
    return hold_out_samples(store, target, split="train", rows=rows, name="dev")


CALLS = {"convert": convert, "merge": merge, "filter": choose, "hold_out": hold_out}


@pytest.fixture(params=CALLS)
def call(request):
    return CALLS[request.param]


def remote_tree(url):
    folder = open_store(url).folder
    return {name: folder.read(name) for name in folder.names()}


def fresh(bucket, name):
    url = f"stores/{name}"
    if bucket.exists(url):
        bucket.rm(url, recursive=True)
    return f"s3://{url}"


@pytest.fixture
def small_shards(monkeypatch):
    """Let merges and filters make several shards of a few samples."""
    for module in ("merge", "filter", "hold_out"):
        monkeypatch.setattr(
            f"seit.stores.{module}.common_shard_samples", lambda stores, size: 2 * size
        )


@pytest.mark.usefixtures("small_shards")
def test_a_store_in_a_bucket_has_the_bytes_of_one_on_a_disk(call, bucket, sources, tmp_path):
    url = fresh(bucket, "same")
    described = call(sources, url)
    assert call(sources, tmp_path / "here").samples == described.samples
    assert remote_tree(url) == tree(tmp_path / "here")
    assert verify_store(url).ok
    assert len(seit.open(url)["train"].shards) > 1
    with pytest.raises(UsageError, match="is not empty"):
        call(sources, url)


@pytest.mark.usefixtures("small_shards")
def test_the_local_disk_holds_one_shard_at_a_time(call, bucket, sources, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    most = []
    upload = RemoteFolder.upload

    def watched(self, name, source, *, sha256):
        files = [path for path in (tmp_path / "temporary").rglob("*") if path.is_file()]
        most.append((len(files), sum(path.stat().st_size for path in files)))
        upload(self, name, source, sha256=sha256)

    monkeypatch.setattr(RemoteFolder, "upload", watched)
    url = fresh(bucket, "one")
    call(sources, url)
    records = [record for split in open_store(url).card.splits.values() for record in split]
    assert len(most) == len(records) > 3
    assert {count for count, _ in most} == {1}
    assert max(size for _, size in most) == max(record.bytes for record in records)
    assert not list((tmp_path / "temporary").iterdir())


@pytest.mark.usefixtures("small_shards")
@pytest.mark.parametrize(
    ("method", "calls"),
    [("put", 0), ("put", 2), ("write_index", 0), ("write_card", 0), ("close", 0)],
)
def test_a_killed_call_leaves_no_store_and_the_same_call_completes_it(
    call, method, calls, bucket, sources, tmp_path, monkeypatch
):
    url = fresh(bucket, "killed")
    original = getattr(RemoteSink, method)
    left = [calls]

    def killed(self, *args):
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        return original(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(RemoteSink, method, killed)
        with pytest.raises(KeyboardInterrupt):
            call(sources, url)
    if method != "close":
        with pytest.raises(UsageError, match="no store at"):
            seit.open(url)
        for other in CALLS.values():
            if other is not call:
                with pytest.raises(UsageError, match="unfinished store of another call"):
                    other(sources, url)
    call(sources, url)
    call(sources, tmp_path / "here")
    assert remote_tree(url) == tree(tmp_path / "here")


def test_requests_that_differ_in_a_row_or_an_option_are_others(bucket, sources, monkeypatch):
    url = fresh(bucket, "others")
    with monkeypatch.context() as patch:
        patch.setattr(RemoteSink, "write_card", lambda *_: interrupt())
        with pytest.raises(KeyboardInterrupt):
            merge(sources, url)
    stores = [sources / "context", sources / "second"]
    for options in ({"prefix": True}, {"codec": "packed"}):
        with pytest.raises(UsageError, match="unfinished store of another call"):
            merge_stores(url, stores, **options)
    with pytest.raises(UsageError, match="unfinished store of another call"):
        merge_stores(url, stores[::-1])
    with pytest.raises(UsageError, match="is not empty"):
        convert_store(sources / "packed", url, container="zarr")
    bucket.pipe(f"stores/others/{UNFINISHED_NAME}", b"?")
    with pytest.raises(UsageError, match="unfinished store of another call"):
        merge(sources, url)


def interrupt():
    raise KeyboardInterrupt


def test_a_place_with_other_files_is_left_alone(call, bucket, sources):
    url = fresh(bucket, "mine")
    bucket.pipe("stores/mine/thesis.tex", b"mine")
    with pytest.raises(UsageError, match="is not empty"):
        call(sources, url)
    assert bucket.ls("stores/mine") == ["stores/mine/thesis.tex"]


def test_a_card_of_another_call_is_not_overwritten(bucket, sources, monkeypatch):
    url = fresh(bucket, "race")
    write_index = RemoteSink.write_index

    def late(self, *args):
        if not bucket.exists("stores/race/store.json"):
            bucket.put(str(sources / "second" / "store.json"), "stores/race/store.json")
            bucket.invalidate_cache()
        return write_index(self, *args)

    monkeypatch.setattr(RemoteSink, "write_index", late)
    with pytest.raises(SeitError, match="another call wrote a store"):
        convert(sources, url)
    found = bucket.cat("stores/race/store.json")
    assert found == (sources / "second" / "store.json").read_bytes()


def test_tokens_that_do_not_compress_are_packed(bucket, sources, tmp_path):
    make(tmp_path / "random")
    url = fresh(bucket, "random")
    assert convert_store(tmp_path / "random", url, codec="context").codec == "packed"


def test_zarr_groups_are_made_here_and_copied(bucket, sources, tmp_path):
    url = fresh(bucket, "zarr")
    convert_store(sources / "packed", url, container="zarr")
    convert_store(sources / "packed", tmp_path / "here", container="zarr")
    assert remote_tree(url) == tree(tmp_path / "here")
    assert verify_store(url).ok
    assert Path(tmp_path / "here").is_dir()
