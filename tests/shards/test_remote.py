"""Stores behind a real S3 interface on this machine, with a faulty network before it."""

import http.client
import pickle
import random
import shutil
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing import get_context

import fsspec
import numpy as np
import pytest
import torch
from safetensors.numpy import save
from support import s3
from support.stores import build_store, edit_card, record_of

import seit
from seit.errors import DamagedError, SeitError, UsageError
from seit.shards import RemoteFolder, RetryPolicy
from seit.shards.card_text import SEAL_BYTES
from seit.shards.folders import retries
from seit.shards.frames import Kind
from seit.stores import copy_store, verify_store
from seit.tokenizers import PatchTokenizer, codebook_bytes, tokenizer_bytes

SHARDS = {"train": (5, 2), "val": (2, 1)}
NUM_FILES = 8
CACHE_BYTES = 1500
PUBLIC = {"x-amz-acl": "public-read"}
RETRY = RetryPolicy(
    attempts=10, first_wait_seconds=0.001, longest_wait_seconds=0.01, attempt_seconds=3
)


@pytest.fixture(scope="module")
def intact(tmp_path_factory):
    path = tmp_path_factory.mktemp("intact") / "store"
    build_store(path, shards=SHARDS, block_samples=3, with_metadata=True)
    return path


@pytest.fixture(scope="module", autouse=True)
def credentials(tmp_path_factory):
    with s3.credentials(tmp_path_factory.mktemp("cache")):
        yield


@pytest.fixture(scope="module")
def server():
    """The (host, port) of an S3 server with a bucket."""
    with s3.running_server() as address:
        request(address, "PUT", "/bucket")
        yield address


def request(address, method, path, headers=None, body=None):
    """Ask a server once: status, headers and content of its answer."""
    connection = http.client.HTTPConnection(*address, timeout=20)
    try:
        connection.request(method, path, body=body, headers=headers or {})
        response = connection.getresponse()
        return response.status, response.getheaders(), response.read()
    finally:
        connection.close()


def options(address):
    return {"endpoint_url": "http://{}:{}".format(*address)}


@pytest.fixture(scope="module")
def uploaded(intact, server):
    copy_store(intact, "s3://bucket/corpus", storage_options=options(server), retry=RETRY)
    return "s3://bucket/corpus"


class FaultyProxy(ThreadingHTTPServer):
    """Passes requests on to a server, or does what networks do; seeded.

    The same request fails ``MAX_FAULTS`` times at most, so patience is always rewarded.
    """

    daemon_threads = True
    MAX_FAULTS = 2

    def __init__(self, address, faults, *, seed=0, rate=0.4):
        super().__init__(("127.0.0.1", 0), _Passage)
        self.address = address
        self.faults = faults
        self.rate = rate
        self.rng = random.Random(seed)
        self.lock = threading.Lock()
        self.failed = {}
        self.asked = 0
        self.done = []

    def choose_fault(self, key):
        with self.lock:
            self.asked += 1
            if self.failed.get(key, 0) >= self.MAX_FAULTS or self.rng.random() > self.rate:
                return None
            self.failed[key] = self.failed.get(key, 0) + 1
            self.done.append(self.rng.choice(self.faults))
            return self.done[-1]

    def handle_error(self, *_):
        """A client that went away is no news."""


class _Passage(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        fault = self.server.choose_fault((self.command, self.path, self.headers.get("Range")))
        if fault == "drop":
            self.close_connection = True
            return
        if fault in (500, 503):
            self.send_response(fault)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if fault == "stall":
            time.sleep(RETRY.attempt_seconds + 0.5)
            self.close_connection = True
            return
        status, headers, content = request(
            self.server.address, self.command, self.path, dict(self.headers), body
        )
        self.send_response(status)
        announced = len(content) // 2 if fault == "short" else len(content)
        kept = {"content-length"} if self.command == "HEAD" else set()
        for name, value in headers:
            if name.lower() not in {"content-length", "connection", "date", "server"} - kept:
                self.send_header(name, value)
        if self.command != "HEAD":
            self.send_header("Content-Length", str(announced))
        self.end_headers()
        if fault in ("cut", "short"):
            self.close_connection = fault == "cut"
            content = content[: len(content) // 2]
        if fault == "flip" and content:
            content = content[:-1] + bytes([content[-1] ^ 1])
        self.wfile.write(content)

    do_HEAD = do_PUT = do_POST = do_DELETE = do_GET  # noqa: N815


@pytest.fixture
def faulty(server, request):
    """Starts proxies that fail in the given ways."""
    proxies = []

    def start(faults, **settings):
        proxy = FaultyProxy(server, faults, **settings)
        proxies.append(proxy)
        threading.Thread(target=proxy.serve_forever, args=(0.02,), daemon=True).start()
        return proxy

    yield start
    for proxy in proxies:
        proxy.shutdown()
        proxy.server_close()


def check_equal(split, local):
    """All that can be read of a split, in each way, is what the local one gives."""
    assert [sample.key for sample in split] == list(local.keys)
    assert split.keys == local.keys
    np.testing.assert_array_equal(split.labels, local.labels)
    np.testing.assert_array_equal(split.tokens[:], local.tokens[:])
    np.testing.assert_array_equal(split.packed(), local.packed())
    assert [sample.metadata for sample in split] == [sample.metadata for sample in local]
    assert split[-1].key == local.keys[-1]


def test_a_remote_store_reads_as_the_local_one(uploaded, intact, server, tmp_path):
    store = seit.open(
        uploaded, storage_options=options(server), retry=RETRY, cache_dir=tmp_path / "cache"
    )
    local = seit.open(intact)
    assert repr(store).startswith("<store s3://bucket/corpus: 10 samples")
    assert store.card == local.card
    assert store.num_bytes == local.num_bytes
    np.testing.assert_array_equal(store.codebook, local.codebook)
    for name in SHARDS:
        check_equal(store[name], local[name])
    with pytest.raises(UsageError, match="is not a folder on this machine"):
        _ = store.path
    assert pickle.loads(pickle.dumps(store["val"]))[1].key == local["val"][1].key
    result = verify_store(uploaded, storage_options=options(server), retry=RETRY)
    assert result == verify_store(intact)
    assert result.ok


@pytest.mark.parametrize(
    ("faults", "seed"),
    [
        (["drop", "cut", 500, 503, "short"], 0),
        pytest.param(["drop", "cut", 500, 503, "short"], 1, marks=pytest.mark.slow),
        (["cut", "short"], 2),
    ],
)
def test_nothing_is_lost_on_a_bad_network(uploaded, intact, faulty, tmp_path, faults, seed):
    proxy = faulty(faults, seed=seed)
    settings = {"storage_options": options(proxy.server_address), "retry": RETRY}
    store = seit.open(uploaded, cache_dir=tmp_path, **settings)
    for name in SHARDS:
        check_equal(store[name], seit.open(intact)[name])
    assert verify_store(uploaded, **settings) == verify_store(intact)
    assert len(proxy.done) > 10
    assert set(proxy.done) == set(faults)


def test_bytes_that_change_on_the_way_are_asked_for_again(uploaded, intact, faulty, tmp_path):
    proxy = faulty(["flip"], rate=0)
    proxy.MAX_FAULTS = 1
    settings = {"storage_options": options(proxy.server_address), "retry": RETRY}
    store = seit.open(uploaded, cache_dir=tmp_path, **settings)
    assert len(store["train"].shards[0].places) == 2
    proxy.rate = 1
    assert list(store["train"].keys) == list(seit.open(intact)["train"].keys)
    np.testing.assert_array_equal(store["train"].tokens[:], seit.open(intact)["train"].tokens[:])
    assert len(proxy.done) == 7  # one of them is the look at the card after a read
    proxy.rate = 0
    again = seit.open(uploaded, cache_dir=tmp_path, **settings)
    check_equal(again["train"], seit.open(intact)["train"])


def test_a_server_that_stalls_does_not_hang_a_reader(uploaded, faulty, intact):
    proxy = faulty(["stall"], rate=1)
    proxy.MAX_FAULTS = 1
    retry = RetryPolicy(attempts=12, first_wait_seconds=0.001, attempt_seconds=0.4)
    started = time.monotonic()
    store = seit.open(
        uploaded, storage_options=options(proxy.server_address), retry=retry, cache_bytes=0
    )
    assert store.card == seit.open(intact).card
    assert 0.7 < time.monotonic() - started < 10


def test_a_dead_address_is_one_line_within_seconds(uploaded, faulty):
    proxy = faulty([503], rate=1)
    proxy.MAX_FAULTS = 10**9
    retry = RetryPolicy(attempts=3, first_wait_seconds=0.01, attempt_seconds=2)
    for address in (proxy.server_address, ("127.0.0.1", 9)):
        started = time.monotonic()
        message = r"^reading s3://bucket/corpus/store\.json failed 3 times in .* s, the last time"
        with pytest.raises(SeitError, match=message) as caught:
            seit.open(uploaded, storage_options=options(address), retry=retry)
        assert type(caught.value) is SeitError
        assert "\n" not in str(caught.value)
        assert time.monotonic() - started < 10


def test_a_network_that_dies_later_is_no_damage(uploaded, faulty):
    proxy = faulty(["drop"], rate=0)
    proxy.MAX_FAULTS = 10**9
    retry = RetryPolicy(attempts=2, first_wait_seconds=0.01, attempt_seconds=2)
    settings = {"storage_options": options(proxy.server_address), "retry": retry}
    store = seit.open(uploaded, on_damage="skip", cache_bytes=0, **settings)
    proxy.rate = 1
    with pytest.raises(SeitError, match="failed 2 times") as caught:
        list(store["train"])
    assert not isinstance(caught.value, DamagedError)
    with pytest.raises(SeitError, match="failed 2 times"):
        verify_store(uploaded, **settings)


def test_no_store_there(server, uploaded):
    settings = {"storage_options": options(server), "retry": RETRY}
    for url in ("s3://bucket/nowhere", "s3://nobucket/corpus"):
        with pytest.raises(UsageError, match=rf"no store at {url}: it holds no store\.json"):
            seit.open(url, **settings)


def test_blocks_come_by_few_requests(uploaded, server, monkeypatch):
    asked = []
    read = RemoteFolder._read

    def note(self, name, offset, size):
        asked.append((name, offset, size))
        return read(self, name, offset, size)

    store = seit.open(uploaded, storage_options=options(server), retry=RETRY, cache_bytes=0)
    split = store["train"]
    place = split.shards[0].places[1].frames
    monkeypatch.setattr(RemoteFolder, "_read", note)
    assert split[4].key == split[4].key
    assert split.tokens[3].shape == (4, 4)
    end = sum(place[Kind.METADATA])
    start, size = place[Kind.TOKENS]
    whole = ("train/00000.tar", start, end - start)
    seal = ("store.json", len(store.card.to_text().encode()) - SEAL_BYTES, SEAL_BYTES)
    assert asked == [whole, seal, whole, seal, ("train/00000.tar", start, size), seal]


def read_some(url, server, cache, seed):
    """Read samples in an order of its own, and compare them with what their numbers say."""
    store = seit.open(
        url, storage_options=options(server), retry=RETRY, cache_dir=cache, cache_bytes=CACHE_BYTES
    )
    split = store["train"]
    rng = random.Random(seed)
    for _ in range(8):
        number = rng.randrange(len(split))
        assert split[number].key == f"train/bilder/ü{number}.jpg"
        assert split[number].metadata["n"] == number


def test_processes_and_threads_share_one_cache(uploaded, server, tmp_path):
    def work(seed):
        read_some(uploaded, server, tmp_path, seed)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # forking beside threads is meant
        processes = [get_context("fork").Process(target=work, args=(seed,)) for seed in range(2)]
        for process in processes:
            process.start()
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(work, range(2, 5)))
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert 0 < sum(path.stat().st_size for path in tmp_path.glob("??/*")) <= CACHE_BYTES


def test_an_open_store_goes_on_in_a_forked_process(uploaded, server, intact):
    store = seit.open(uploaded, storage_options=options(server), retry=RETRY, cache_bytes=0)
    assert store["train"][0].key

    def work():
        check_equal(store["val"], seit.open(intact)["val"])

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        process = get_context("fork").Process(target=work)
        process.start()
    process.join(60)
    assert process.exitcode == 0


def test_a_store_that_was_replaced_is_not_read_from_the_cache(server, tmp_path):
    settings = {"storage_options": options(server), "retry": RETRY}
    for seed in range(2):
        path = tmp_path / str(seed)
        build_store(path, shards={"train": (5,)}, block_samples=3, seed=seed)
        folder = RemoteFolder("s3://bucket/replaced", **settings)
        for name in ("store.json", "codebook.safetensors", "train/00000.tar", "train/blocks.index"):
            folder.write(name, (path / name).read_bytes())
        split = seit.open("s3://bucket/replaced", cache_dir=tmp_path / "cache", **settings)["train"]
        np.testing.assert_array_equal(split.tokens[:], seit.open(path)["train"].tokens[:])


def test_copies_are_whole_and_resumed(intact, server, faulty, tmp_path, monkeypatch):
    url, seen = "s3://bucket/copied", []
    proxy = faulty(["drop", 503], seed=5)
    settings = {"storage_options": options(proxy.server_address), "retry": RETRY}
    upload = RemoteFolder.upload

    def stop(self, name, *args, **kwargs):
        if name == "val/00000.tar":
            raise KeyboardInterrupt
        upload(self, name, *args, **kwargs)

    monkeypatch.setattr(RemoteFolder, "upload", stop)
    with pytest.raises(KeyboardInterrupt):
        copy_store(intact, url, **settings)
    with pytest.raises(UsageError, match=r"holds no store\.json"):
        seit.open(url, **settings)
    monkeypatch.setattr(RemoteFolder, "upload", upload)
    sent = copy_store(
        intact, url, progress=lambda done, total: seen.append((done, total)), **settings
    )
    card = seit.open(intact).card
    skipped = sum(shard.bytes for shard in card.splits["train"])
    assert sent == seit.open(intact).num_bytes - skipped
    assert seen == [(number + 1, NUM_FILES) for number in range(NUM_FILES)]
    assert verify_store(url, **settings).ok
    again = copy_store(intact, url, **settings)
    assert again == (intact / "store.json").stat().st_size
    back = tmp_path / "back"
    copy_store(url, back, **settings)
    files = sorted(path.relative_to(intact) for path in intact.rglob("*") if path.is_file())
    assert sorted(path.relative_to(back) for path in back.rglob("*") if path.is_file()) == files
    assert all((back / name).read_bytes() == (intact / name).read_bytes() for name in files)


def test_remote_damage_is_found_and_repaired(intact, server, tmp_path):
    url, settings = "s3://bucket/damaged", {"storage_options": options(server), "retry": RETRY}
    copy_store(intact, url, **settings)
    folder = RemoteFolder(url, **settings)
    shard = folder.read("train/00000.tar")
    folder.write("train/00000.tar", shard[:530] + bytes([shard[530] ^ 1]) + shard[531:])
    folder.write("train/00001.tar", folder.read("train/00001.tar")[:-2000])
    folder.remove("val/blocks.index")
    folder.write("notes.txt", b"")
    broken = verify_store(url, **settings)
    assert {entry.file for entry in broken.damage} == {
        *("train/00000.tar", "train/00001.tar", "val/blocks.index", "notes.txt"),
    }
    assert not any("/tmp" in entry.reason for entry in broken.damage)
    store = seit.open(url, cache_bytes=0, **settings)
    with pytest.raises(DamagedError, match=r"train/00000\.tar, block 0: .*samples 0 to 2"):
        store["train"][1]
    with pytest.raises(DamagedError, match=r"val/blocks\.index is missing"):
        store["val"][0]
    result = verify_store(url, repair_from=intact, **settings)
    assert set(result.repaired) == {"train/00000.tar", "train/00001.tar", "val/blocks.index"}
    assert [(entry.file, entry.reason) for entry in result.damage] == [
        ("notes.txt", "is not named by the card")
    ]
    folder.remove("notes.txt")
    assert verify_store(url, **settings) == verify_store(intact)
    local = shutil.copytree(intact, tmp_path / "local")
    (local / "val" / "00001.tar").unlink()
    assert verify_store(local, repair_from=url, **settings).repaired == ("val/00001.tar",)
    assert (local / "val" / "00001.tar").read_bytes() == (intact / "val/00001.tar").read_bytes()


def test_plain_http_is_enough_to_read(intact, server):
    for path in intact.rglob("*"):
        if path.is_file():
            name = path.relative_to(intact)
            request(server, "PUT", f"/bucket/public/{name}", PUBLIC, path.read_bytes())
    url = "http://{}:{}/bucket/public".format(*server)
    store = seit.open(url, retry=RETRY, cache_bytes=0)
    check_equal(store["val"], seit.open(intact)["val"])
    assert verify_store(url, retry=RETRY).ok
    with pytest.raises(UsageError, match=r"no store at http.*/bucket/public/train: it holds no"):
        seit.open(f"{url}/train", retry=RETRY)
    with pytest.raises(UsageError, match=r"^http.*/bucket/public/copy can only be read"):
        copy_store(intact, f"{url}/copy", retry=RETRY)


def test_what_may_not_be_read_is_not_tried_again(uploaded, server, faulty):
    proxy = faulty([])
    url = "http://{}:{}/bucket/corpus".format(*proxy.server_address)
    with pytest.raises(
        SeitError, match=r"store\.json: access is denied \(ClientResponseError \(403"
    ):
        seit.open(url, retry=RETRY)
    assert proxy.asked <= 2  # for the head, then for the content


@pytest.fixture
def memory():
    store = fsspec.filesystem("memory").store
    store.clear()
    yield store
    store.clear()


def test_a_tokenizer_is_loaded_from_anywhere(intact, memory, tmp_path):
    rng = np.random.default_rng(0)
    images = torch.from_numpy(rng.integers(256, size=(8, 16, 16, 3), dtype=np.uint8))
    tokenizer = PatchTokenizer.fit(images, num_codes=16, patch_size=4, dim=4)
    store = shutil.copytree(intact, tmp_path / "store")
    (store / "tokenizer.safetensors").write_bytes(tokenizer_bytes(tokenizer, with_codebook=False))
    (store / "codebook.safetensors").write_bytes(codebook_bytes(tokenizer))

    def change(body):
        for name in ("codebook.safetensors", "tokenizer.safetensors"):
            record = asdict(record_of(store, name))
            body["files"] = [entry for entry in body["files"] if entry["file"] != name]
            body["files"].append(record)

    edit_card(store, change)
    copy_store(store, "memory://corpus")
    loaded = seit.open("memory://corpus", cache_bytes=0).load_tokenizer()
    assert loaded.fingerprint == tokenizer.fingerprint
    remote = RemoteFolder("memory://corpus")
    remote.write("tokenizer.safetensors", remote.read("tokenizer.safetensors")[:-1])
    with pytest.raises(DamagedError, match=r"tokenizer\.safetensors does not match its checksum"):
        seit.open("memory://corpus", cache_bytes=0).load_tokenizer()


def test_files_that_grew_are_not_fetched(intact, memory):
    copy_store(intact, "memory://corpus")
    remote = RemoteFolder("memory://corpus")
    remote.write("val/00000.tar", remote.read("val/00000.tar") + bytes(10**6))
    (damage,) = verify_store("memory://corpus").damage
    assert damage.file == "val/00000.tar"
    assert "where the card says" in damage.reason


def test_stores_in_memory(intact, memory):
    copy_store(intact, "memory://corpus")
    store = seit.open("memory://corpus", cache_bytes=0)
    check_equal(store["train"], seit.open(intact)["train"])
    assert verify_store("memory://corpus").ok
    copy_store("memory://corpus", "memory://other")
    assert verify_store(store.folder).ok


def test_copies_do_not_mix_with_other_things(intact, memory, tmp_path):
    (tmp_path / "notes.txt").touch()
    with pytest.raises(UsageError, match=r"already holds 'notes\.txt'"):
        copy_store(intact, tmp_path)
    other = tmp_path / "other"
    build_store(other, shards=SHARDS, block_samples=3, with_metadata=True, seed=1)
    with pytest.raises(UsageError, match="already holds another store"):
        copy_store(intact, other)
    with pytest.raises(UsageError, match="no store at"):
        copy_store(tmp_path / "nowhere", "memory://x")
    assert verify_store(other).ok


@pytest.mark.parametrize("change", [lambda data: data[:-1], lambda data: b"x" + data[1:]])
def test_damaged_files_are_not_copied(intact, tmp_path, change):
    source = shutil.copytree(intact, tmp_path / "source")
    path = source / "val" / "00001.tar"
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(DamagedError, match=r"val/00001\.tar"):
        copy_store(source, tmp_path / "target")
    names = {path.name for path in (tmp_path / "target").rglob("*")}
    assert "store.json" not in names
    assert not any(name.endswith(".partial") for name in names)


def test_a_codebook_that_is_not_the_cards(intact, memory):
    copy_store(intact, "memory://corpus")
    memory["/corpus/codebook.safetensors"].seek(0)
    memory["/corpus/codebook.safetensors"].write(save({"codebook": np.zeros((16, 4))})[:300])
    with pytest.raises(DamagedError, match="does not match its checksum"):
        _ = seit.open("memory://corpus", cache_bytes=0).codebook


def test_the_first_retry_is_logged_in_one_line_without_secrets(monkeypatch, caplog):
    """Requests that fail together say so once; a permanent failure, not at all."""
    monkeypatch.setattr(retries, "_NOTICES", retries._Notices())
    retry = RetryPolicy(attempts=3, first_wait_seconds=0.001)

    def fail():
        raise ConnectionRefusedError("https://me:word@host/a?token=1 refused")

    for _ in range(2):
        with pytest.raises(SeitError, match="failed 3 times"):
            retry.call(fail, what="reading https://host/a")
    (line,) = [record.getMessage() for record in caplog.records if record.name.startswith("seit")]
    assert line.startswith("reading https://host/a failed with ConnectionRefusedError")
    assert line.endswith("trying again, up to 2 times")
    assert "word" not in line
    assert "token" not in line


def test_a_failure_that_is_final_is_not_announced_as_a_retry(monkeypatch, caplog):
    monkeypatch.setattr(retries, "_NOTICES", retries._Notices())

    def fail():
        raise PermissionError("no")

    with pytest.raises(PermissionError):
        RetryPolicy().call(fail, what="reading https://host/a")
    assert not caplog.records
