"""Methods that train, in the processes of torchrun and compiled; the others take one process."""

import pytest
from support.processes import exit_codes, fork_ranks

import seit
from seit.errors import UsageError
from seit.training import Run

FAST = {
    "data": {"batch_size": 12},
    "optim": {"lr": 1e-3, "lr_batch_size": 0},
    "schedule": {"steps": 8, "warmup_steps": 1},
    "run": {"device": "cpu", "loggers": [], "eval_every": 8, "checkpoint_every": 8},
}
TRAINED = {
    "qat": {"compression.bits": 2},
    "prune": {"compression.criterion": "movement"},
    "parts": {"compression.pattern": ["heads", "mlp"]},
    "distill": {"model.embed_dim": 16},
}


def compress(run, store, out, name):
    method = "prune" if name == "parts" else name
    changes = TRAINED.get(name, {})
    return seit.compress(run, store=store, out=out, method=method, config=FAST, **changes)


def same_weights(first, second, *, tolerance):
    ours, theirs = (Run.open(one).load_weights() for one in (first, second))
    assert ours.keys() == theirs.keys()
    return all((ours[key] - theirs[key]).abs().max() <= tolerance for key in ours)


@pytest.mark.slow
@pytest.mark.parametrize("name", TRAINED)
def test_ranks_compress_as_one_process_does(learned, pattern_store, tmp_path, name):
    one = compress(learned, pattern_store, tmp_path / "one", name)
    two = tmp_path / "two"
    assert exit_codes(fork_ranks(compress, learned, pattern_store, two, name, ranks=2)) == [0, 0]
    info = Run.open(two).info
    assert info["ranks"] == 2
    assert same_weights(tmp_path / "one", two, tolerance=2e-5)
    result = info["result"]
    assert (result["bytes"], result["top1_before"]) == (one.bytes, one.top1_before)
    assert result["agreement"] == one.agreement
    assert result["loss"] == pytest.approx(one.loss, rel=1e-4)


@pytest.mark.slow
def test_a_compiled_network_is_pruned_to_the_same_weights(learned, pattern_store, tmp_path):
    for name in ("plain", "compiled"):
        seit.compress(
            learned,
            store=pattern_store,
            out=tmp_path / name,
            method="prune",
            config=FAST,
            **{"run.compile": name == "compiled"},
        )
    assert same_weights(tmp_path / "plain", tmp_path / "compiled", tolerance=2e-5)


@pytest.mark.parametrize("method", ["int8", "w4", "mixed"])
def test_methods_that_do_not_train_refuse_ranks(
    learned, pattern_store, tmp_path, monkeypatch, method
):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UsageError, match="takes one process, and torchrun started 2"):
        compress(learned, pattern_store, tmp_path / "run", method)
    assert not (tmp_path / "run").exists()


def test_comparisons_refuse_ranks(learned, pattern_store, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UsageError, match="call it without torchrun"):
        seit.compress(learned, store=pattern_store, out=tmp_path / "run", method="all")
    assert not (tmp_path / "run").exists()
