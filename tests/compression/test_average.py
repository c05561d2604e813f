"""Compression with an average of the weights (EMA), and interrupted runs of other methods."""

import pytest

import seit
from seit.training import Run

FAST = {
    "data": {"batch_size": 12},
    "optim": {"lr": 1e-3, "lr_batch_size": 0},
    "schedule": {"steps": 8, "warmup_steps": 1},
    "run": {"device": "cpu", "loggers": [], "eval_every": 8, "checkpoint_every": 2},
}
AVERAGED = {
    "qat": {"compression.bits": 2},
    "prune": {"compression.sparsity": (0.75,)},
    "movement": {"compression.criterion": "movement", "compression.sparsity": (0.75,)},
    "2:4": {"compression.pattern": ("2:4",), "compression.criterion": "taylor"},
}
RESUMED = {
    "distill": {"model.embed_dim": 16},
    "prune": {"compression.pattern": ("heads", "mlp"), "compression.sparsity": (0.5,)},
    "prune-average": {
        "compression.pattern": ("unstructured", "depth"),
        "compression.sparsity": (0.5,),
        "ema.decay": 0.8,
    },
}


def compress(run, store, out, /, name, **changes):
    method = name if name in ("qat", "distill") else "prune"
    return seit.compress(run, store=store, out=out, method=method, config=FAST, **changes)


@pytest.mark.parametrize(
    "name",
    [name if name == "prune" else pytest.param(name, marks=pytest.mark.slow) for name in AVERAGED],
)
def test_the_average_is_as_small_as_the_network(learned, pattern_store, tmp_path, name):
    changes = {**AVERAGED[name], "ema.decay": 0.8}
    result = compress(learned, pattern_store, tmp_path / "run", name, **changes)
    run = Run.open(tmp_path / "run")
    weights, compression = run.load_stored()
    if name == "qat":
        assert len(compression.quantized) == 10
        for key, grid in compression.quantized.items():
            assert max(len(row.unique()) for row in weights[key].flatten(1)) <= 2**grid.bits
    else:
        masked = [weights[key] for key in weights if ".attn." in key or ".mlp." in key]
        masked = [one for one in masked if one.ndim == 2]
        zeros = sum(int((one == 0).sum()) for one in masked) / sum(one.numel() for one in masked)
        assert zeros >= (0.5 if name == "2:4" else 0.7)
        if name == "2:4":
            for one in masked:
                assert int((one.reshape(-1, 4) != 0).sum(1).max()) <= 2
    again = seit.evaluate(tmp_path / "run", store=pattern_store)
    assert (again.top1, again.loss) == (result.top1, result.loss)


@pytest.mark.slow
@pytest.mark.parametrize("name", RESUMED)
def test_an_interrupted_run_resumes_bit_for_bit(learned, pattern_store, tmp_path, name):
    def kill(done, total, figures):
        if done == 5:
            raise KeyboardInterrupt

    changes = RESUMED[name]
    whole = compress(learned, pattern_store, tmp_path / "whole", name, **changes)
    out = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        compress(learned, pattern_store, out, name, progress=kill, **changes)
    resumed = compress(learned, pattern_store, out, name, resume=True, **changes)
    assert (resumed.top1, resumed.loss) == (whole.top1, whole.loss)
    files = [(tmp_path / one / "model.safetensors").read_bytes() for one in ("whole", "run")]
    assert files[0] == files[1]
