"""Jobs in pieces between buckets: one download, no local copy of the store, safe drivers."""

import random
import threading
import time
from dataclasses import replace

import fsspec
import pytest
import torch
from support import s3
from support.files import plant, tree
from support.jobs import blocks_of, interrupt, samples_of, tar_of
from support.pictures import png

import seit
from seit.errors import SeitError, UsageError
from seit.ingest import TokenizeConfig, tokenize
from seit.ingest.fit import make_reader
from seit.ingest.pieces import job
from seit.ingest.pieces.maker import PieceMaker
from seit.ingest.pieces.piece import Findings, Piece
from seit.ingest.pieces.place import JobPlace
from seit.ingest.pieces.tars import TarPieces
from seit.ingest.resolve import resolve_tokenizer
from seit.ingest.sources import remote_files
from seit.shards import RemoteFolder, RetryPolicy
from seit.stores import verify_store

CONFIG = TokenizeConfig(
    size=32, codes=32, tokenizer="patch-pca-vq", shard_samples=1024, plan="pieces", fit_samples=64
)


@pytest.fixture(scope="module")
def bucket(tmp_path_factory):
    """An S3 server that every client of this process finds."""
    with s3.bucket("pieces", tmp_path_factory.mktemp("cache")) as filesystem:
        yield filesystem


@pytest.fixture(scope="module")
def corpora(bucket, tmp_path_factory):
    """Tars and a table, here and in the bucket."""
    root = tmp_path_factory.mktemp("corpora")
    tars = {f"train-{k}.tar": tar_of(samples_of(range(k * 8, k * 8 + 8))) for k in range(3)}
    plant(root / "tars", {**tars, "val-0.tar": tar_of(samples_of(range(24, 32)))})
    rows = ["path,label", *(f"f/{n}.png,{n % 3}" for n in range(24))]
    plant(root / "table", {f"f/{n}.png": png(n, 24) for n in range(24)})
    plant(root / "table", {"list.csv": "\n".join(rows).encode()})
    bucket.put(f"{root}/", "pieces/data/", recursive=True)
    return root


@pytest.fixture(scope="module")
def reference(corpora, tmp_path_factory):
    store = tmp_path_factory.mktemp("reference") / "store"
    tokenize(corpora / "tars", store, CONFIG)
    return tree(store)


def remote_tree(url):
    folder = seit.open(url).folder
    return {name: folder.read(name) for name in folder.names()}


@pytest.mark.parametrize(
    ("name", "number"), [("tars", 0), ("tars/{train-{0..2},val-0}.tar", 1), ("table/list.csv", 2)]
)
def test_a_store_in_a_bucket_has_the_bytes_of_one_on_a_disk(corpora, tmp_path, name, number):
    url = f"s3://pieces/stores/{number}"
    result = tokenize(f"s3://pieces/data/{name}", url, CONFIG)
    assert verify_store(url).ok
    tokenize(f"{corpora}/{name}", tmp_path / "here", CONFIG)
    assert remote_tree(url) == tree(tmp_path / "here")
    again = tokenize(f"s3://pieces/data/{name}", url, CONFIG)
    assert (again.samples, again.samples_per_second) == (result.samples, 0)


def test_every_byte_of_a_tar_is_downloaded_once(corpora, bucket, monkeypatch):
    ranges = []
    read = remote_files.read_remote

    def counted(url, offset, size):
        ranges.append((offset, size))
        return read(url, offset, size)

    monkeypatch.setattr(remote_files, "read_remote", counted)
    monkeypatch.setattr(remote_files, "STREAM_BYTES", 3000)
    monkeypatch.setattr("seit.ingest.sources.read.read_remote", counted)
    url = "s3://pieces/data/tars/train-0.tar"
    size = bucket.size("pieces/data/tars/train-0.tar")
    drafts = list(TarPieces("image").read(Piece("train-0.tar", url, size), Findings()))
    assert [draft.location for draft in drafts] == [png(n, 24) for n in range(8)]
    assert sum(length for _, length in ranges) <= size
    assert len(set(ranges)) == len(ranges)


def test_a_killed_job_resumes_on_another_machine(reference, monkeypatch):
    url = "s3://pieces/stores/killed"
    for name, calls in (("write_fit", 0), ("write_record", 1), ("put", 1), ("write_card", 0)):
        left = [calls]
        original = getattr(JobPlace, name)

        def call(self, *args, original=original, left=left):
            if not left[0]:
                raise KeyboardInterrupt
            left[0] -= 1
            return original(self, *args)

        with monkeypatch.context() as patch:
            patch.setattr(f"seit.ingest.pieces.place.JobPlace.{name}", call)
            with pytest.raises(KeyboardInterrupt):
                tokenize("s3://pieces/data/tars", url, CONFIG)
        with pytest.raises(UsageError, match="no store at"):
            seit.open(url)
    tokenize("s3://pieces/data/tars", url, CONFIG)
    assert remote_tree(url) == reference


def test_requests_that_fail_now_and_then_change_nothing(reference, monkeypatch):
    url = "s3://pieces/stores/faults"
    draw = random.Random(0)
    request = RemoteFolder._request
    failed = []

    def flaky(self, method, *args, **kwargs):
        if draw.random() < 0.15:
            failed.append(method)
            raise ConnectionError("reset by peer")
        answer = request(self, method, *args, **kwargs)
        if method in ("pipe_file", "put_file") and draw.random() < 0.15:
            failed.append(f"answer to {method}")
            raise TimeoutError("the answer was lost")
        return answer

    monkeypatch.setattr(RetryPolicy, "call", quick(RetryPolicy.call))
    monkeypatch.setattr(RemoteFolder, "_request", flaky)
    tokenize("s3://pieces/data/tars", url, CONFIG)
    assert len(set(failed)) > 4
    monkeypatch.undo()
    assert remote_tree(url) == reference


def quick(call):
    """`RetryPolicy.call` that hardly waits."""

    def called(policy, action, *, what):
        return call(replace(policy, first_wait_seconds=0.001), action, what=what)

    return called


def test_a_worker_that_was_given_up_changes_nothing(reference, monkeypatch):
    """It ends after another one made its piece, and after the store was sealed."""
    url = "s3://pieces/stores/zombie"
    late = []
    make = PieceMaker.make

    def keep(maker, task):
        late.append((maker, task))
        return make(maker, task)

    monkeypatch.setattr(PieceMaker, "make", keep)
    config = replace(CONFIG, workers=1)
    with monkeypatch.context() as patch:
        patch.setattr("seit.ingest.pieces.job.seal_store", interrupt)
        with pytest.raises(KeyboardInterrupt):
            tokenize("s3://pieces/data/tars", url, config)
    place = JobPlace(url)
    for number in range(4):
        place.forget(f"{number:08d}")
    tokenize("s3://pieces/data/tars", url, config)
    assert len(late) == 8
    assert remote_tree(url) == reference
    maker, task = late[0]
    maker._encoder = Encoded(maker._tokenizer)
    maker._reader = make_reader(resolve_tokenizer(config)[0])
    with pytest.raises(SeitError, match="belongs to another job now"):
        make(maker, task)
    assert remote_tree(url) == reference


class Encoded:
    """An encoder of a worker that is still at it."""

    def __init__(self, tokenizer):
        self._tokenizer = tokenizer

    def encode(self, batches):
        for payload, batch in batches:
            yield payload, self._tokenizer.encode(torch.from_numpy(batch)).numpy()


def test_two_drivers_of_one_job_make_one_store(reference):
    url = "s3://pieces/stores/two"
    failures = []

    def drive():
        try:
            tokenize("s3://pieces/data/tars", url, CONFIG)
        except SeitError as error:
            failures.append(error)

    drivers = [threading.Thread(target=drive) for _ in range(2)]
    for driver in drivers:
        driver.start()
    for driver in drivers:
        driver.join()
    tokenize("s3://pieces/data/tars", url, CONFIG)
    assert remote_tree(url) == reference


def test_parts_in_a_bucket_wait_for_the_fit_and_the_last_one_seals(reference, monkeypatch):
    monkeypatch.setattr("seit.ingest.pieces.job._POLL_SECONDS", 0.01)
    monkeypatch.setattr("seit.ingest.pieces.job.FIT_SECONDS", 60.0)
    url = "s3://pieces/stores/parts"
    failures = []

    def drive(number):
        try:
            tokenize("s3://pieces/data/tars", url, replace(CONFIG, part=f"{number}/3"))
        except SeitError as error:
            failures.append(error)

    parts = [threading.Thread(target=drive, args=(number,)) for number in (2, 1, 0)]
    for part in parts:
        part.start()
        time.sleep(0.3)
    for part in parts:
        part.join()
    assert not failures
    assert remote_tree(url) == reference


def named(n):
    return ("ape", "bee", "cat")[n % 3]


@pytest.mark.parametrize(("kind", "late"), [
    ("table", "find_repeats"),
    ("tars", "settle_classes"),
    ("tars", "seal_store"),
])  # fmt: skip
def test_a_part_that_seals_too_late_finds_the_whole_store(
    kind, late, corpora, tmp_path, monkeypatch
):
    """Nothing locks a URL: another part seals the store and removes the job's folder meanwhile."""
    names = {f"train-{k}.tar": tar_of(samples_of(range(9 * k, 9 * k + 9), named)) for k in range(2)}
    root = plant(tmp_path / "src", names)
    source = corpora / "table" / "list.csv" if kind == "table" else root
    url = f"s3://pieces/stores/late-{kind}-{late}"
    original = getattr(job, late)
    sealed = []

    def call(*args, **kwargs):
        if not sealed:
            sealed.append(None)
            sealed.append(tokenize(source, url, replace(config, part="0/2")))
        return original(*args, **kwargs)

    with blocks_of(8):
        config = replace(CONFIG, shard_samples=16, val_fraction=0.0)
        tokenize(source, tmp_path / "here", config)
        assert tokenize(source, url, replace(config, part="0/2")).left == 1
        monkeypatch.setattr(job, late, call)
        result = tokenize(source, url, replace(config, part="1/2"))
    assert result.record()["samples"] == sealed[1].record()["samples"]
    assert remote_tree(url) == tree(tmp_path / "here")


def test_a_second_job_at_the_same_place_is_refused(reference, monkeypatch):
    url = "s3://pieces/stores/other"
    with monkeypatch.context() as patch:
        patch.setattr("seit.ingest.pieces.job.seal_store", interrupt)
        with pytest.raises(KeyboardInterrupt):
            tokenize("s3://pieces/data/tars", url, CONFIG)
    other = replace(CONFIG, codes=16)
    with pytest.raises(UsageError, match="codes was 32 and is 16"):
        tokenize("s3://pieces/data/tars", url, other)
    tokenize("s3://pieces/data/tars", url, replace(other, overwrite=True))
    assert verify_store(url).ok
    with pytest.raises(UsageError, match="codes was 16 and is 32"):
        tokenize("s3://pieces/data/tars", url, CONFIG)


def test_a_card_is_never_overwritten(bucket, monkeypatch):
    url = "s3://pieces/stores/card"

    def plant_card(self, *_, **__):
        bucket.pipe("pieces/stores/card/store.json", b"of another")
        return []

    monkeypatch.setattr("seit.ingest.pieces.seal._check_sizes", plant_card)
    with pytest.raises(SeitError):
        tokenize("s3://pieces/data/tars", url, CONFIG)
    assert bucket.cat("pieces/stores/card/store.json") == b"of another"


def test_what_lies_at_the_place_is_left_alone(bucket):
    bucket.pipe("pieces/mine/thesis.tex", b"mine")
    with pytest.raises(UsageError, match=r"already holds 'thesis\.tex'"):
        tokenize("s3://pieces/data/tars", "s3://pieces/mine", CONFIG)
    with pytest.raises(UsageError, match=r"already holds 'thesis\.tex'"):
        tokenize("s3://pieces/data/tars", "s3://pieces/mine", replace(CONFIG, overwrite=True))
    assert bucket.find("pieces/mine") == ["pieces/mine/thesis.tex"]
    with pytest.raises(SeitError, match="s3://nowhere"):
        tokenize("s3://pieces/data/tars", "s3://nowhere/store", CONFIG)


def test_what_other_machines_write_is_seen_after_a_listing(bucket):
    folder = RemoteFolder("s3://pieces/seen")
    folder.write("a/one", b"1")
    assert folder.names() == ["a/one"]
    other = fsspec.filesystem("s3", skip_instance_cache=True)
    other.pipe({"pieces/seen/a/one": b"longer", "pieces/seen/a/two": b"2"})
    assert folder.exists("a/two")
    assert folder.size("a/one") == 6
    assert not folder.create("a/two", b"3")
    assert folder.names() == ["a/one", "a/two"]
    other.rm("pieces/seen/a/two")
    assert not folder.exists("a/two")


def test_of_two_writers_of_a_name_one_succeeds(bucket):
    folder = RemoteFolder("s3://pieces/names")
    assert folder.create("a", b"1")
    assert not folder.create("a", b"2")
    assert folder.read("a") == b"1"
    results = []
    threads = [
        threading.Thread(target=lambda n=n: results.append(folder.create("b", b"%d" % n)))
        for n in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == [False, False, False, True]
