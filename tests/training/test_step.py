"""Work of the host in a step: average, seeds, calls per step, and programs that are compiled."""

import functools
import sys
from itertools import pairwise

import pytest
import timm
import torch
from timm.utils import ModelEmaV3

import seit
from seit.errors import UsageError
from seit.training.average import WeightAverage
from seit.training.step import compile_network, seed_torch

SMALL = {
    "model": {"embed_dim": 16, "depth": 3, "num_heads": 2, "stem": "2/2/0", "drop_path": 0.1},
    "augment": {"crop_size": 8},
    "optim": {"clip_grad": 1.0},
    "run": {"device": "cpu", "loggers": []},
}
CALLS = 1750
"""Python functions called in a step of `SMALL`: 1,626 in November 2026, three blocks included."""


@pytest.mark.parametrize("name", ["test_vit", "test_convnext", "resnet10t"])
def test_the_average_is_that_of_timm(name):
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=3)
    expected = ModelEmaV3(model, decay=0.9, use_warmup=True)
    average = WeightAverage(model, decay=0.9, use_warmup=True)
    for step in range(4):
        with torch.no_grad():
            for one in model.parameters():
                one.add_(torch.randn_like(one))
            for one in model.buffers():
                one.add_(1)
        expected.update(model, step=step)
        average.update(model, step=step)
    state = average.state_dict()
    assert list(state) == list(expected.state_dict())
    assert all(torch.equal(state[key], value) for key, value in expected.state_dict().items())


def test_seeds_are_those_of_torch_and_queue_nothing():
    seed_torch(1, 2, 3)
    drawn = torch.rand(5)
    torch.manual_seed(torch.initial_seed())
    assert torch.equal(drawn, torch.rand(5))
    waiting = len(torch.cuda._queued_calls)
    for step in range(10):
        seed_torch(1, step, 0)
    assert len(torch.cuda._queued_calls) == waiting


def test_calls_of_a_step_are_few_and_do_not_grow(pattern_store, tmp_path):
    calls, marks = 0, []

    def count(frame, event, argument):
        nonlocal calls
        calls += event == "call"

    def mark(step, total, latest):
        marks.append(calls)
        sys.setprofile(count if step < total else None)

    settings = {**SMALL, "run": {**SMALL["run"], "eval_every": 1000, "log_every": 1000}}
    for batch_size in (12, 24):
        marks.clear()
        out = tmp_path / str(batch_size)
        try:
            seit.train(
                pattern_store,
                out=out,
                config=settings,
                steps=9,
                batch_size=batch_size,
                progress=mark,
            )
        finally:
            sys.setprofile(None)
        steps = [after - before for before, after in pairwise(marks[1:-1])]
        assert max(steps) <= min(steps) + 20  # a wait for the next batch calls a few more
        assert steps[-1] <= CALLS


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")  # torch's own
@pytest.mark.parametrize(
    ("scope", "decay", "programs"),
    [
        ("network", 0.9, 1),
        ("blocks", 0.9, 2),  # the first block drops no path
        ("blocks", 0.0, 2),
    ],
)
def test_compiling_breaks_no_graph_and_happens_once(
    scope, decay, programs, pattern_store, tmp_path, monkeypatch
):
    from torch._dynamo.utils import counters

    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="aot_eager"))
    torch._dynamo.reset()
    counters.clear()
    run = {**SMALL["run"], "compile": True, "compile_scope": scope, "eval_every": 2}
    seit.train(
        pattern_store,
        out=tmp_path / "run",
        config={**SMALL, "ema": {"decay": decay}, "run": run},
        epochs=2,
        batch_size=10,  # 36 samples to train, 15 to evaluate
    )
    assert not counters["graph_break"]
    assert counters["stats"]["unique_graphs"] == programs


def test_a_network_without_blocks_is_compiled_as_a_whole():
    with pytest.raises(UsageError, match="set it to network"):
        compile_network(timm.create_model("resnet10t"), "blocks")
