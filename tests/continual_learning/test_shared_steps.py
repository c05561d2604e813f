"""Several processes, as torchrun starts them: one stream, learned as one process does."""

import os
import signal

import numpy as np
import pytest
import torch
from support.continual import StoppedError, changed, comparable, run, stop_at
from support.processes import exit_codes, fork_ranks

from seit.cli import main
from seit.continual_learning import answers, feeds
from seit.continual_learning.learners import base
from seit.continual_learning.loop import Running
from seit.continual_learning.result import recorded_result
from seit.training import Run

FEW = 5
"""Samples of a batch without gradients, so that ranks share those of a task."""
TOLERANCE = 2e-5
MEMORY = {"memory": {"bytes": 400}}
SEEN_ONCE = {"kind": "online", "eval_every": 20}
DEFAULT = {
    "lae": changed(),
    "icarl": changed(method="icarl", **MEMORY),
    # The last batch of 32 samples in batches of 31 is one sample: a rank has none.
    "er-online": changed(method="er", stream=SEEN_ONCE, data={"batch_size": 31}, **MEMORY),
}
OTHERS = {
    "seq-ft": changed(method="seq-ft", tuning={"method": "full"}),
    "adalora": changed(method="seq-ft", tuning={"method": "adalora"}),
    "joint": changed(method="joint"),
    "frozen-head": changed(method="frozen-head"),
    "er": changed(method="er", **MEMORY),
    "der++": changed(method="der++", **MEMORY),
    "der++-online": changed(method="der++", stream=SEEN_ONCE, data={"batch_size": 7}, **MEMORY),
    "gdumb": changed(method="gdumb", **MEMORY),
    "lae-online": changed(stream=SEEN_ONCE, data={"batch_size": 24}),
}


@pytest.fixture(scope="module")
def store(tinted_store):
    return tinted_store


@pytest.fixture(autouse=True)
def _small_batches(monkeypatch):
    for module in (answers, base, feeds):
        monkeypatch.setattr(module, "EVAL_BATCH", FEW)


def run_ranks(store, out, config, *, ranks=2, dies_at=None):
    """Run on several ranks, the last of which may die; return the exit codes."""
    return exit_codes(fork_ranks(_run, store.folder, out, config, ranks - 1, dies_at, ranks=ranks))


def _run(folder, out, config, victim, dies_at):
    take = Running.take

    def take_or_die(self, step, batch):
        if step == dies_at and self.ranks.rank == victim:
            os.kill(os.getpid(), signal.SIGKILL)
        return take(self, step, batch)

    Running.take = take_or_die
    run(folder, out, config, resume=True)


def losses(path):
    return [line["loss"] for line in Run.open(path).metrics() if line["split"] == "train"]


def result_of(path):
    """All that is neither measured of the machine nor rounded in another order."""
    return comparable(recorded_result({**Run.open(path).info["result"], "network": ""}))


def same_runs(first, second):
    ours, theirs = (Run.open(path).load_tensors("learner.safetensors") for path in (first, second))
    assert ours.keys() == theirs.keys()
    for key, value in theirs.items():
        torch.testing.assert_close(ours[key], value, rtol=0, atol=TOLERANCE, msg=key)
    assert np.allclose(losses(first), losses(second), rtol=1e-5)
    assert result_of(first) == result_of(second), "predictions, exemplars and bytes"


@pytest.mark.parametrize(
    "name", [*DEFAULT, *(pytest.param(name, marks=pytest.mark.slow) for name in OTHERS)]
)
def test_ranks_learn_what_one_process_does(store, tmp_path, name):
    config = (DEFAULT | OTHERS)[name]
    run(store, tmp_path / "one", config)
    assert run_ranks(store, tmp_path / "two", config) == [0, 0]
    same_runs(tmp_path / "one", tmp_path / "two")
    assert Run.open(tmp_path / "two").info["ranks"] == 2


@pytest.mark.parametrize(
    "method",
    ["ranpac", *(pytest.param(name, marks=pytest.mark.slow) for name in ("ncm", "simplecil"))],
)
def test_ranks_share_the_samples_of_learners_without_steps(store, tmp_path, method):
    config = changed(method=method)
    one = run(store, tmp_path / "one", config)
    assert run_ranks(store, tmp_path / "three", config, ranks=3) == [0, 0, 0]
    three = recorded_result(Run.open(tmp_path / "three").info["result"])
    assert comparable(three) == comparable(one), "bit for bit"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lae", "er-online", "icarl"])
def test_a_run_goes_on_after_a_rank_was_killed(store, tmp_path, name):
    config = DEFAULT[name]
    assert run_ranks(store, tmp_path / "whole", config) == [0, 0]
    codes = run_ranks(store, tmp_path / "killed", config, dies_at=4)
    assert codes[1] == -signal.SIGKILL
    assert codes[0] > 0
    assert Run.open(tmp_path / "killed").info["status"] == "started"
    assert run_ranks(store, tmp_path / "killed", config) == [0, 0]
    infos = [Run.open(tmp_path / path).info["result"] for path in ("whole", "killed")]
    whole, killed = map(recorded_result, infos)
    assert comparable(whole) == comparable(killed), "bit for bit"
    assert losses(tmp_path / "whole") == losses(tmp_path / "killed")


@pytest.mark.slow
def test_ranks_go_on_with_what_one_process_began(store, tmp_path):
    config = DEFAULT["icarl"]
    run(store, tmp_path / "one", config)
    with pytest.raises(StoppedError):
        run(store, tmp_path / "two", config, progress=stop_at(7))
    assert run_ranks(store, tmp_path / "two", config) == [0, 0]
    same_runs(tmp_path / "one", tmp_path / "two")


def test_batch_norms_that_learn_are_refused_before_any_work(store, tmp_path, capfd):
    model = ["--model.name", "test_resnet", "--model.stem", "up", "--augment.crop_size", "8"]
    command = ["continual", str(store.folder), *model, "--out", str(tmp_path / "run")]
    options = ["--run.device", "cpu", "--pet", "full"]
    assert exit_codes(fork_ranks(main, [*command, *options], ranks=2)) == [2, 2]
    printed = capfd.readouterr().err
    assert "test_resnet has batch norms, whose statistics a continual run learns in one" in printed
    assert not (tmp_path / "run").exists()
