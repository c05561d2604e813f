"""Where shards are made: threads, processes and clusters make the same bytes, and survive kills."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from support.fatal_decoder import FatalDecoder
from support.files import plant, tree
from support.jobs import flawed, samples_of, stop_after, tar_of

from seit.errors import SeitError, UsageError
from seit.ingest import TokenizeConfig, tokenize
from seit.ingest.encoder import BatchEncoder
from seit.ingest.inputs.images import LARGE_PIXELS, decode_image
from seit.ingest.inputs.pixels import PixelReader
from seit.ingest.inputs.pool import DecodingPool
from seit.ingest.sources import Instance, list_corpus
from seit.stores import verify_store
from seit.tokenizers import PatchTokenizer

CONFIG = TokenizeConfig(size=32, codes=32, shard_samples=1024, codec="packed")
NUM_IMAGES = 2400
NUM_BROKEN = 4


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Tiny pictures and a few broken ones: three shards of train and one of val."""
    return flawed(tmp_path_factory.mktemp("corpus"), NUM_IMAGES, NUM_BROKEN)


@pytest.fixture(scope="module")
def reference(corpus, tmp_path_factory):
    store = tmp_path_factory.mktemp("reference") / "store"
    result = tokenize(corpus, store, CONFIG)
    assert (result.samples, result.skipped) == (NUM_IMAGES, NUM_BROKEN)
    assert verify_store(store).ok
    return tree(store)


# ---------------------------------------------------------------------- processes that decode


def processes_of(pool):
    return [process._popen for process in pool._started]


def test_processes_make_the_same_bytes(corpus, reference, tmp_path):
    config = replace(CONFIG, decoders="processes", workers=2)
    tokenize(corpus, tmp_path / "store", config)
    assert tree(tmp_path / "store") == reference


def test_a_killed_process_is_replaced_and_nothing_is_lost(corpus):
    instances = list(list_corpus(corpus).instances[:600])
    with PixelReader(size=32, max_pixels=1 << 20, workers=1) as reader:
        expected = list(reader.read(instances))
    with PixelReader(size=32, max_pixels=1 << 20, workers=2, processes=True) as reader:
        found = []
        for entry in reader.read(instances, ahead=64):
            found.append(entry)
            if len(found) in (100, 300):
                os.kill(processes_of(reader._pool)[-1].pid, signal.SIGKILL)
        assert len(processes_of(reader._pool)) >= 4
        started = processes_of(reader._pool)
    assert all(process.poll() is not None for process in started)
    assert [entry.instance for entry in found] == instances == [e.instance for e in expected]
    for entry, other in zip(found, expected, strict=True):
        assert entry.reason == other.reason
        assert np.array_equal(entry.pixels, other.pixels)


def test_an_input_that_kills_processes_is_named():
    items = [Instance(key, "train", 0, "") for key in ("a", "bb", "poison", "cccc")]
    pool = DecodingPool(FatalDecoder(), workers=1, processes=True)
    try:
        with pytest.raises(SeitError, match=r"poison ended 3 decoding processes.*exit code 7"):
            list(pool.map(items, ahead=8))
        assert list(pool.map([items[0], items[3]], ahead=8)) == [1, 4]
    finally:
        pool.close()


def test_an_abandoned_pool_leaves_no_process(corpus):
    with PixelReader(size=32, max_pixels=1 << 20, workers=2, processes=True) as reader:
        next(reader.read(list_corpus(corpus).instances))
        started = processes_of(reader._pool)
    assert started
    assert all(process.poll() is not None for process in started)


# ------------------------------------------------------------------------------ bounded memory


def test_large_images_are_decoded_one_at_a_time(tmp_path):
    class Lock:
        held = 0

        def __enter__(self):
            self.held += 1

        def __exit__(self, *_):
            pass

    lock = Lock()
    width = LARGE_PIXELS // 4096 + 1
    Image.new("1", (width, 4096)).save(tmp_path / "large.png")
    Image.new("1", (64, 64)).save(tmp_path / "small.png")
    decode_image((tmp_path / "small.png").read_bytes(), size=8, exclusive=lock)
    assert lock.held == 0
    decode_image((tmp_path / "large.png").read_bytes(), size=8, exclusive=lock)
    assert lock.held == 1


def test_fewer_large_results_are_held():
    taken = []

    def instances():
        for number in range(100):
            taken.append(number)
            yield Instance(str(number), "train", 0, "/nowhere")

    with PixelReader(size=4096, max_pixels=1 << 20, workers=1) as reader:
        next(reader.read(instances()))
        assert len(taken) == 1
    taken.clear()
    with PixelReader(size=256, max_pixels=1 << 20, workers=1) as reader:
        next(reader.read(instances(), ahead=20))
        assert len(taken) == 20


# ------------------------------------------------------------------------------------ encoding


@pytest.fixture(scope="module")
def tokenizer():
    random = np.random.default_rng(0)
    images = torch.from_numpy(random.integers(0, 256, (16, 32, 32, 3), dtype=np.uint8))
    return PatchTokenizer.fit(images, num_codes=32)


def batches(count):
    for number in range(count):
        random = np.random.default_rng(number)
        yield number, random.integers(0, 256, (8, 32, 32, 3), dtype=np.uint8)


def test_batches_come_back_in_order_whatever_the_threads(tokenizer):
    expected = [tokenizer.encode(torch.from_numpy(batch)).numpy() for _, batch in batches(20)]
    before = torch.get_num_threads()
    with BatchEncoder(tokenizer, workers=3) as encoder:
        numbers, found = zip(*encoder.encode(batches(20)), strict=True)
    assert numbers == tuple(range(20))
    assert all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))
    assert torch.get_num_threads() == before


def test_the_next_batch_is_read_while_one_is_encoded(tokenizer):
    release = threading.Event()

    class Slow:
        codebook = tokenizer.codebook

        def encode(self, images):
            assert release.wait(20), "nobody read on"
            return tokenizer.encode(images)

    def reading():
        for number, batch in batches(3):
            if number == 1:
                release.set()
            yield number, batch

    with BatchEncoder(Slow(), workers=1) as encoder:
        assert [number for number, _ in encoder.encode(reading())] == [0, 1, 2]


def test_a_failure_to_compile_is_one_clear_error(tokenizer, monkeypatch):
    def compiled(function, **_):
        def fail(_):
            raise RuntimeError("no C++ compiler\nlong story")

        return fail

    monkeypatch.setattr(torch, "compile", compiled)
    with (
        BatchEncoder(tokenizer, compiled=True) as encoder,
        pytest.raises(SeitError, match=r"fails \(no C\+\+ compiler\); run without --compile"),
    ):
        list(encoder.encode(batches(1)))


def test_a_job_that_is_compiled_is_another_job(corpus, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        tokenize(corpus, tmp_path / "store", CONFIG, progress=stop_after(1))
    with pytest.raises(UsageError, match="compile was None and is True"):
        tokenize(corpus, tmp_path / "store", replace(CONFIG, compile=True))


# ----------------------------------------------------------------------------------------- Ray


@pytest.fixture(scope="module")
def cluster():
    """A cluster of this machine with four cores, as far as it knows."""
    ray = pytest.importorskip("ray")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        ray.init(
            address="local",
            num_cpus=4,
            include_dashboard=False,
            log_to_driver=False,
            logging_level="error",
            _system_config={"prestart_worker_first_driver": False},
        )
        yield ray
        ray.shutdown()


RAY = replace(CONFIG, engine="ray", workers=2)
ray_s_own = pytest.mark.filterwarnings(r"ignore::DeprecationWarning:ray\..*")


@pytest.mark.slow
@ray_s_own
def test_a_cluster_makes_the_same_bytes_though_an_actor_is_killed(
    corpus, reference, tmp_path, cluster
):
    store = tmp_path / "store"
    killed = []

    def kill_a_maker():
        deadline = time.monotonic() + 240  # an engine starts slowly on a busy machine
        while time.monotonic() < deadline and not killed:
            for partial in store.glob(".tokenize/actors/*/*/*.partial"):
                killed.append(int(partial.parts[-3].split("-")[0]))
                os.kill(killed[0], signal.SIGKILL)
                return
            time.sleep(0.001)

    killer = threading.Thread(target=kill_a_maker)
    killer.start()
    result = tokenize(corpus, store, RAY)
    killer.join()
    assert killed
    assert (result.samples, result.skipped) == (NUM_IMAGES, NUM_BROKEN)
    assert tree(store) == reference


def done_names(store):
    return {path.stem for path in (store / ".tokenize" / "done").glob("*.json")}


@ray_s_own
def test_a_cluster_completes_a_local_job(corpus, reference, tmp_path, cluster):
    store = tmp_path / "store"
    with pytest.raises(KeyboardInterrupt):
        tokenize(corpus, store, CONFIG, progress=stop_after(1100))
    assert len(done_names(store)) == 1
    tokenize(corpus, store, replace(RAY, workers=1))
    assert tree(store) == reference


@pytest.mark.slow
@pytest.mark.timeout(600)  # four starts of workers, slow on a busy machine
@ray_s_own
def test_engines_go_on_with_each_other_s_jobs(corpus, reference, tmp_path, cluster):
    store = tmp_path / "store"
    with pytest.raises(KeyboardInterrupt):
        tokenize(corpus, store, CONFIG, progress=stop_after(1100))
    first = done_names(store)
    assert len(first) == 1
    with pytest.raises(KeyboardInterrupt):
        tokenize(corpus, store, replace(RAY, workers=1), progress=stop_after(2000))
    assert first < done_names(store)
    tokenize(corpus, store, CONFIG)
    assert tree(store) == reference


@pytest.mark.slow
@ray_s_own
def test_a_killed_driver_costs_what_was_unfinished(corpus, reference, tmp_path, cluster):
    store = tmp_path / "store"
    settings = "--size 32 --codes 32 --shard-samples 1024 --codec packed --engine ray --workers 1"
    driver = subprocess.Popen(
        [sys.executable, "-m", "seit", "tokenize", corpus, store, *settings.split()],
        env={**os.environ, "RAY_ADDRESS": "", "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 300
    while not done_names(store) and driver.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    driver.kill()
    assert driver.wait() == -signal.SIGKILL
    first = done_names(store)
    assert first
    assert not (store / "store.json").exists()
    records = [store / ".tokenize" / "done" / f"{name}.json" for name in first]
    finished = [store / json.loads(record.read_text())["shard"]["file"] for record in records]
    made = {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in finished}
    result = tokenize(corpus, store, RAY)
    assert (result.samples, result.skipped) == (NUM_IMAGES, NUM_BROKEN)
    assert tree(store) == reference
    assert made == {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in made}


@pytest.mark.slow
@ray_s_own
def test_strict_stops_a_cluster_too(corpus, tmp_path, cluster):
    with pytest.raises(SeitError, match=r"a/broken \d\.jpg cannot be read"):
        tokenize(corpus, tmp_path / "store", replace(RAY, strict=True))


@pytest.mark.slow
@ray_s_own
def test_a_cluster_makes_pieces_with_the_same_bytes(tmp_path, cluster):
    tars = {f"train-{k}.tar": tar_of(samples_of(range(k * 9, k * 9 + 9))) for k in range(3)}
    root = plant(tmp_path / "src", tars)
    config = replace(CONFIG, plan="pieces", tokenizer="patch-pca-vq", fit_samples=16)
    tokenize(root, tmp_path / "here", config)
    tokenize(root, tmp_path / "there", replace(config, engine="ray", workers=1))
    assert tree(tmp_path / "there") == tree(tmp_path / "here")


@pytest.mark.slow
@ray_s_own
@pytest.mark.parametrize("plan", ["pieces", "listing"])
def test_actors_that_only_encode_make_the_same_bytes(tmp_path, cluster, plan):
    tars = {f"train-{k}.tar": tar_of(samples_of(range(k * 70, k * 70 + 70))) for k in range(3)}
    root = plant(tmp_path / "src", tars)
    config = replace(CONFIG, plan=plan, tokenizer="patch-pca-vq")
    tokenize(root, tmp_path / "here", config)
    apart = replace(config, engine="ray", workers=2, ray_encoders=1)
    tokenize(root, tmp_path / "there", apart)
    assert tree(tmp_path / "there") == tree(tmp_path / "here")


@ray_s_own
def test_a_cluster_without_room_is_refused(corpus, tmp_path, cluster):
    with pytest.raises(UsageError, match="too little for an actor of 64 cores"):
        tokenize(corpus, tmp_path / "store", replace(RAY, ray_cpus=64))
    with pytest.raises(UsageError, match="too little for an actor of 1 cores and a GPU"):
        tokenize(corpus, tmp_path / "store", replace(RAY, device="cuda"))


def test_without_ray_the_extra_is_named(corpus, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "ray.data", None)
    with pytest.raises(UsageError, match=r"pip install 'ray\[data\]"):
        tokenize(corpus, tmp_path / "store", RAY)
    assert not (tmp_path / "store").exists()
