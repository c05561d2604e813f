import errno
import hashlib
import multiprocessing
import os
import pickle
import random
import threading
import time
import warnings
from pathlib import Path

import fsspec
import pytest

from seit.errors import DamagedError, SeitError, UsageError
from seit.shards.folders import (
    CachedFolder,
    LocalFolder,
    RemoteFolder,
    RetryPolicy,
    open_folder,
    with_cache,
)
from seit.shards.folders.base import PART_BYTES
from seit.shards.folders.retries import call_within, hide_secrets

QUICK = RetryPolicy(attempts=4, first_wait_seconds=0.001, attempt_seconds=5)
DATA = bytes(range(256)) * 9


@pytest.fixture
def memory():
    """The files of ``memory://``, which the whole process shares."""
    store = fsspec.filesystem("memory").store
    store.clear()
    yield store
    store.clear()


@pytest.fixture(params=["local", "memory", "cached"])
def folder(request, tmp_path, memory):
    if request.param == "local":
        return LocalFolder(tmp_path / "folder")
    remote = RemoteFolder("memory://bucket/folder", retry=QUICK)
    if request.param == "memory":
        return remote
    return CachedFolder(remote, tmp_path / "cache", max_bytes=10_000, identity="x")


def test_files_come_back(folder):
    folder.write("a/b.bin", DATA)
    folder.write("c", b"")
    for _ in range(2):
        assert folder.size("a/b.bin") == len(DATA)
        assert folder.read("a/b.bin") == DATA
        assert folder.read("a/b.bin", 5) == DATA[5:]
        assert folder.read("a/b.bin", 7, 100) == DATA[7:107]
        assert folder.read("a/b.bin", 7, 0) == b""
        assert folder.read("a/b.bin", len(DATA) - 3, 10) == DATA[-3:]
        assert folder.read("a/b.bin", len(DATA) + 5, 10) == b""
        assert folder.read("c") == b""
        assert folder.sha256("a/b.bin") == hashlib.sha256(DATA).hexdigest()
        assert folder.names() == ["a/b.bin", "c"]
    with folder.fetched("a/b.bin") as local:
        assert (local.path / "a" / "b.bin").read_bytes() == DATA
        assert str(local) == str(folder)
    assert folder.exists("c")
    folder.remove("c")
    assert not folder.exists("c")
    assert folder.names() == ["a/b.bin"]


def test_uploads_are_checked(folder, tmp_path):
    source = tmp_path / "source"
    source.write_bytes(DATA)
    folder.write("x/y", b"old")
    with pytest.raises(DamagedError, match="does not match its checksum"):
        folder.upload("x/y", source, sha256="0" * 64)
    assert folder.read("x/y") == b"old"
    folder.upload("x/y", source, sha256=hashlib.sha256(DATA).hexdigest())
    assert folder.read("x/y") == DATA
    assert folder.names() == ["x/y"]


@pytest.mark.parametrize("act", ["size", "read", "sha256", "remove", "fetched"])
def test_missing_files_are_named_as_such(folder, act):
    def missing():
        outcome = getattr(folder, act)("nowhere")
        if act == "fetched":
            outcome.__enter__()

    with pytest.raises(FileNotFoundError):
        missing()
    assert not folder.exists("nowhere")


def test_large_files_are_read_in_parts(folder):
    data = random.Random(0).randbytes(PART_BYTES + 1000)
    folder.write("large", data)
    assert [len(part) for part in folder.parts("large")] == [PART_BYTES, 1000]
    assert folder.read("large") == data
    assert folder.read("large", 900, PART_BYTES + 50) == data[900 : PART_BYTES + 950]


def test_folders_travel_between_processes(folder):
    folder.write("a", DATA)
    assert pickle.loads(pickle.dumps(folder)).read("a", 3, 9) == DATA[3:12]


def test_a_folder_or_a_pipe_is_no_file(tmp_path):
    folder = LocalFolder(tmp_path)
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for name in ("folder", "pipe"):
        with pytest.raises(IsADirectoryError):
            folder.read(name, 0, 10)
        assert not folder.exists(name)


def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch):
    folder = LocalFolder(tmp_path)
    folder.write("a", b"old")
    (tmp_path / "source").write_bytes(DATA)

    def fail(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(SeitError, match="the disk is full"):
        folder.upload("a", tmp_path / "source", sha256=hashlib.sha256(DATA).hexdigest())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "source"]
    assert folder.read("a") == b"old"


def test_locations(tmp_path, memory):
    for location in (tmp_path, str(tmp_path), f"file://{tmp_path}"):
        folder = open_folder(location)
        assert isinstance(folder, LocalFolder)
        assert folder.path == tmp_path
    assert isinstance(open_folder("memory://a"), RemoteFolder)
    assert open_folder(folder) is folder


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("nonsense://a", r"nonsense://a cannot be opened: .*Protocol not known"),
        ("dropbox://a", r"dropbox://a cannot be opened: .*install the package"),
    ],
)
def test_urls_that_cannot_be_opened(url, message):
    with pytest.raises(UsageError, match=message):
        open_folder(url)


def test_a_missing_package_is_named(monkeypatch):
    def fail(*_, **__):
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr("fsspec.core.url_to_fs", fail)
    with pytest.raises(UsageError, match=r"Install s3fs to access S3; .*pip install 's3fs"):
        open_folder("s3://bucket/corpus")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("s3://bucket/a@b.tar", "s3://bucket/a@b.tar"),
        ("http://me:pass@host/x?sig=abc&t=1", "http://host/x?…"),
        (
            "no answer, url='https://u:p@h/x?key=1' at once",
            "no answer, url='https://h/x?…' at once",
        ),
        ("plain? text a@b", "plain? text a@b"),
    ],
)
def test_secrets_of_urls_are_hidden(text, shown):
    assert hide_secrets(text) == shown


def test_errors_do_not_tell_secrets():
    folder = RemoteFolder(
        "http://me:pass@127.0.0.1:9/corpus?sig=abc",
        retry=RetryPolicy(attempts=2, first_wait_seconds=0.001),
    )
    with pytest.raises(SeitError) as caught:
        folder.read("store.json", 0, 10)
    error = caught.value
    assert str(error).startswith("reading http://127.0.0.1:9/corpus/store.json failed 2 times in ")
    assert "\n" not in str(error)
    for secret in ("pass", "abc"):
        assert secret not in f"{error} {error.__cause__} {folder}"


class Flaky:
    """Fails with each of the given errors in turn, then succeeds."""

    def __init__(self, *errors):
        self.errors = list(errors)
        self.calls = 0

    def __call__(self):
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return "done"


class HttpError(Exception):
    def __init__(self, status):
        super().__init__(f"status {status}")
        self.status = status


PASSING = [
    ConnectionResetError("reset"),
    TimeoutError("slow"),
    *map(HttpError, (408, 429, 500, 503)),
]


@pytest.mark.parametrize("error", PASSING, ids=repr)
def test_failures_on_the_way_are_tried_again(error):
    action = Flaky(error, error, error)
    assert QUICK.call(action, what="reading x") == "done"
    assert action.calls == 4
    action = Flaky(*[error] * 9)
    with pytest.raises(SeitError, match=r"^reading x failed 4 times in 0 s, the last time with"):
        QUICK.call(action, what="reading x")
    assert action.calls == 4


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (FileNotFoundError("x"), FileNotFoundError),
        (HttpError(404), FileNotFoundError),
        (PermissionError("x"), PermissionError),
        (HttpError(401), PermissionError),
        (HttpError(403), PermissionError),
        (HttpError(400), SeitError),
        (TypeError("x"), SeitError),
        (NotImplementedError(), SeitError),
        (UsageError("x"), UsageError),
    ],
    ids=repr,
)
def test_final_answers_are_not_tried_again(error, kind):
    action = Flaky(error)
    with pytest.raises(kind):
        QUICK.call(action, what="reading x")
    assert action.calls == 1


def test_the_time_for_all_attempts_is_limited():
    policy = RetryPolicy(attempts=10**6, first_wait_seconds=0.01, total_seconds=0.2)
    started = time.monotonic()
    with pytest.raises(SeitError, match="failed"):
        policy.call(Flaky(*[OSError("x")] * 1000), what="reading x")
    assert time.monotonic() - started < 2


def test_a_call_that_does_not_end_is_left_alone():
    never = threading.Event()
    started = time.monotonic()
    with pytest.raises(TimeoutError, match="no answer"):
        call_within(0.05, never.wait)
    assert time.monotonic() - started < 2
    never.set()
    assert call_within(5, lambda: 7) == 7
    with pytest.raises(ZeroDivisionError):
        call_within(5, lambda: 1 // 0)


@pytest.fixture
def remote(memory):
    folder = RemoteFolder("memory://bucket/corpus", retry=QUICK)
    folder.write("a", DATA)
    return folder


def counted(remote, monkeypatch):
    """The ranges that are asked of the remote folder, as they come."""
    asked = []
    read = RemoteFolder._read

    def note(self, name, offset, size):
        asked.append((name, offset, size))
        return read(self, name, offset, size)

    monkeypatch.setattr(RemoteFolder, "_read", note)
    return asked


def cache_files(directory):
    return list(Path(directory).glob("??/*"))


def cache_bytes(directory):
    return sum(path.stat().st_size for path in cache_files(directory))


def test_ranges_are_read_once(remote, tmp_path, monkeypatch):
    asked = counted(remote, monkeypatch)
    for _ in range(2):
        folder = CachedFolder(remote, tmp_path, max_bytes=10_000, identity="x")
        for _ in range(3):
            assert folder.read("a", 10, 20) == DATA[10:30]
            assert folder.read("a", 30, 20) == DATA[30:50]
    assert asked == [("a", 10, 20), ("a", 30, 20)]


def test_another_content_or_place_finds_nothing(remote, memory, tmp_path):
    def read(folder, identity):
        return CachedFolder(folder, tmp_path, max_bytes=10_000, identity=identity).read("a", 0, 4)

    assert read(remote, "x") == DATA[:4]
    remote.write("a", b"news")
    assert read(remote, "x") == DATA[:4]
    assert read(remote, "y") == b"news"
    other = RemoteFolder("memory://bucket/other", retry=QUICK)
    other.write("a", b"else")
    assert read(other, "x") == b"else"


@pytest.mark.parametrize(
    "change",
    [
        lambda data: bytes([data[0] ^ 1]) + data[1:],
        lambda data: data[:-1] + bytes([data[-1] ^ 1]),
        lambda data: data[:-1],
        lambda data: b"",
        lambda data: data + b"x",
        lambda data: bytes(len(data)),
    ],
)
def test_damaged_cache_files_are_fetched_again(remote, tmp_path, monkeypatch, change):
    folder = CachedFolder(remote, tmp_path, max_bytes=10_000, identity="x")
    folder.read("a", 10, 20)
    (path,) = cache_files(tmp_path)
    intact = path.read_bytes()
    path.write_bytes(change(intact))
    asked = counted(remote, monkeypatch)
    for _ in range(2):
        assert folder.read("a", 10, 20) == DATA[10:30]
    assert len(asked) == 1
    assert path.read_bytes() == intact


def test_a_cache_file_in_anothers_place_is_not_taken(remote, tmp_path):
    folder = CachedFolder(remote, tmp_path, max_bytes=10_000, identity="x")
    folder.read("a", 10, 20)
    (first,) = cache_files(tmp_path)
    folder.read("a", 11, 20)
    (second,) = set(cache_files(tmp_path)) - {first}
    second.write_bytes(first.read_bytes())
    assert folder.read("a", 11, 20) == DATA[11:31]


def test_the_files_used_least_recently_go_first(remote, tmp_path, monkeypatch):
    folder = CachedFolder(remote, tmp_path, max_bytes=1000, identity="x")
    for number in range(8):  # of 104 bytes each
        folder.read("a", number, 100)
        time.sleep(0.002)
    folder.read("a", 0, 100)
    time.sleep(0.002)
    for number in range(8, 11):
        folder.read("a", number, 100)
        assert cache_bytes(tmp_path) <= 1000
    asked = counted(remote, monkeypatch)
    folder.read("a", 0, 100)
    folder.read("a", 10, 100)
    assert asked == []
    folder.read("a", 1, 100)
    assert asked == [("a", 1, 100)]


def test_a_range_larger_than_the_cache_is_not_kept(remote, tmp_path):
    folder = CachedFolder(remote, tmp_path, max_bytes=100, identity="x")
    assert folder.read("a", 0, 97) == DATA[:97]
    assert cache_files(tmp_path) == []
    assert folder.read("a", 0, 96) == DATA[:96]
    assert cache_bytes(tmp_path) == 100


def test_files_of_others_in_the_cache_folder_stay(remote, tmp_path):
    (tmp_path / "ab").mkdir()
    (tmp_path / "ab" / "letter.txt").write_bytes(bytes(5000))
    folder = CachedFolder(remote, tmp_path, max_bytes=1000, identity="x")
    for number in range(30):
        folder.read("a", number, 100)
    assert (tmp_path / "ab" / "letter.txt").exists()


def test_a_lost_or_nonsensical_count_is_made_anew(remote, tmp_path):
    folder = CachedFolder(remote, tmp_path, max_bytes=1000, identity="x")
    for count in (b"", b"abc", b"\xff" * 8):
        for number in range(20):
            folder.read("a", number, 100)
        (tmp_path / "lock").write_bytes(count)
        for number in range(20, 45):
            assert folder.read("a", number, 100) == DATA[number : number + 100]
        assert cache_bytes(tmp_path) <= 1000


@pytest.mark.parametrize("place", ["os.pwrite", "pathlib.Path.write_bytes", "pathlib.Path.replace"])
def test_a_cache_that_cannot_be_written_is_given_up_with_one_warning(
    remote, tmp_path, monkeypatch, place
):
    def fail(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    folder = CachedFolder(remote, tmp_path, max_bytes=1000, identity="x")
    monkeypatch.setattr(place, fail)
    with pytest.warns(RuntimeWarning, match="cannot be written .No space left"):
        assert folder.read("a", 0, 100) == DATA[:100]
    for number in range(5):  # any further warning is an error here
        assert folder.read("a", number, 100) == DATA[number : number + 100]
    assert cache_files(tmp_path) == []


def test_a_file_in_place_of_the_cache_folder(remote, tmp_path):
    (tmp_path / "file").touch()
    folder = CachedFolder(remote, tmp_path / "file", max_bytes=1000, identity="x")
    with pytest.warns(RuntimeWarning, match="cannot be written"):
        assert folder.read("a", 0, 9) == DATA[:9]


def test_a_lock_that_is_held_for_long_is_not_waited_for(remote, tmp_path, monkeypatch):
    import fcntl

    monkeypatch.setattr("seit.shards.folders.cache._LOCK_SECONDS", 0.05)
    folder = CachedFolder(remote, tmp_path, max_bytes=1000, identity="x")
    with (tmp_path / "lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert folder.read("a", 0, 9) == DATA[:9]
        assert cache_files(tmp_path) == []
    assert folder.read("a", 0, 9) == DATA[:9]
    assert len(cache_files(tmp_path)) == 1


def read_at_random(folder, seed, rounds=150):
    rng = random.Random(seed)
    for _ in range(rounds):
        number = rng.randrange(40)
        assert folder.read("a", number, 100) == DATA[number : number + 100]


def watch(directory, stop, sizes):
    while not stop.is_set():
        sizes.append(bytes_now(directory))


def bytes_now(directory):
    total = 0
    for path in cache_files(directory):
        try:
            total += path.stat().st_size
        except FileNotFoundError:
            continue
    return total


def test_threads_and_processes_share_a_cache(remote, tmp_path):
    folder = CachedFolder(remote, tmp_path, max_bytes=1500, identity="x")
    stop, sizes = threading.Event(), [0]
    watcher = threading.Thread(target=watch, args=(tmp_path, stop, sizes))
    watcher.start()
    errors = []

    def work(seed):
        try:
            read_at_random(folder, seed)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    context = multiprocessing.get_context("fork")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # forking beside threads is meant
        processes = [
            context.Process(target=read_at_random, args=(folder, 10 + n)) for n in range(3)
        ]
        for process in processes:
            process.start()
    for thread in threads:
        thread.start()
    for worker in (*threads, *processes):
        worker.join(60)
    stop.set()
    watcher.join()
    assert errors == []
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert max(sizes) <= 1500 + 104  # a file that is moved may be seen twice
    assert 0 < cache_bytes(tmp_path) <= 1500


def test_the_cache_is_set_by_arguments_or_environment(remote, tmp_path, monkeypatch):
    for name in ("SEIT_CACHE_DIR", "SEIT_CACHE_BYTES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    with_cache(remote, identity="x").read("a", 0, 9)
    assert len(cache_files(tmp_path / "xdg" / "seit")) == 1
    monkeypatch.setenv("SEIT_CACHE_DIR", str(tmp_path / "env"))
    monkeypatch.setenv("SEIT_CACHE_BYTES", "500")
    folder = with_cache(remote, identity="x")
    for number in range(9):
        folder.read("a", number, 100)
    assert 300 < cache_bytes(tmp_path / "env") <= 500
    given = with_cache(remote, identity="x", cache_dir=tmp_path / "given", cache_bytes=200)
    for number in range(9):
        given.read("a", number, 100)
    assert 100 < cache_bytes(tmp_path / "given") <= 200
    assert with_cache(remote, identity="x", cache_bytes=0) is remote
    local = LocalFolder(tmp_path)
    assert with_cache(local, identity="x") is local
    with pytest.raises(UsageError, match="-1 bytes"):
        with_cache(remote, identity="x", cache_bytes=-1)
    monkeypatch.setenv("SEIT_CACHE_BYTES", "much")
    with pytest.raises(UsageError, match=r"environment: expected `?int"):
        with_cache(remote, identity="x")
