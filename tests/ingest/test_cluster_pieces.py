"""Jobs in pieces on a cluster of several nodes that fail, between buckets."""

import threading
import time
from dataclasses import replace

import pytest
from support import s3
from support.files import plant, tree
from support.jobs import samples_of, tar_of

import seit
from seit.ingest import TokenizeConfig, tokenize
from seit.stores import verify_store

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.filterwarnings(r"ignore::DeprecationWarning:ray\..*"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]
CONFIG = TokenizeConfig(
    size=32, codes=32, tokenizer="patch-pca-vq", shard_samples=1024, plan="pieces", fit_samples=64
)
NUM_TARS = 24
LABELS = ("ape", "bee", "cat")


@pytest.fixture(scope="module")
def bucket(tmp_path_factory):
    """An S3 server that every client of this process finds."""
    with s3.bucket("cluster", tmp_path_factory.mktemp("cache")) as filesystem:
        yield filesystem


@pytest.fixture(scope="module")
def corpus(bucket, tmp_path_factory):
    root = tmp_path_factory.mktemp("corpus")
    plant(root, {
        f"train-{k:03d}.tar": tar_of(samples_of(range(k * 9, k * 9 + 9), lambda n: LABELS[n % 3]))
        for k in range(NUM_TARS)
    })  # fmt: skip
    bucket.put(f"{root}/", "cluster/tars/", recursive=True)
    return root


@pytest.fixture(scope="module")
def reference(corpus, tmp_path_factory):
    store = tmp_path_factory.mktemp("reference") / "store"
    tokenize(corpus, store, CONFIG)
    assert seit.open(store).classes == LABELS
    return tree(store)


@pytest.fixture
def nodes(bucket):
    """A head without cores, and two nodes with one core each."""
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("OMP_NUM_THREADS", "1")
        cluster = Cluster(
            initialize_head=True,
            head_node_args={"num_cpus": 0, "include_dashboard": False},
        )
        cluster.add_node(num_cpus=1)
        cluster.workers = [cluster.add_node(num_cpus=1)]
        yield cluster
        ray.shutdown()
        cluster.shutdown()


def remote_tree(url):
    folder = seit.open(url).folder
    return {name: folder.read(name) for name in folder.names()}


def test_a_node_that_dies_costs_its_piece_and_no_byte(corpus, reference, nodes, bucket):
    url = "s3://cluster/stores/one"
    lost = []

    def kill_a_node():
        deadline = time.monotonic() + 400
        while time.monotonic() < deadline and not lost:
            bucket.invalidate_cache()
            if bucket.exists("cluster/stores/one/.tokenize/done"):
                nodes.remove_node(nodes.workers[0], allow_graceful=False)
                lost.append(True)
            time.sleep(0.02)

    killer = threading.Thread(target=kill_a_node)
    killer.start()
    config = replace(CONFIG, engine="ray", ray_address=nodes.address, workers=2)
    result = tokenize("s3://cluster/tars", url, config)
    killer.join()
    assert lost
    assert result.samples == 9 * NUM_TARS
    assert verify_store(url).ok
    assert remote_tree(url) == reference
