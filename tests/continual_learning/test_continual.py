"""Learners of streams: each against its formulas, and runs that go on where they were stopped."""

import json
from dataclasses import replace
from typing import get_args, get_type_hints

import numpy as np
import pytest
import torch
from support.continual import (
    CONFIG,
    StoppedError,
    build_network,
    changed,
    comparable,
    run,
    stop_at,
)
from torch import nn
from torch.nn import functional as F

from seit.cli import continual as continual_command, main
from seit.continual_learning.feeds import Course, segments
from seit.continual_learning.learners.base import cross_entropy
from seit.continual_learning.learners.icarl import herding_order
from seit.continual_learning.learners.ranpac import (
    RIDGES,
    best_ridge,
    fitted_and_left,
    ridge_weights,
)
from seit.continual_learning.learners.registry import LEARNERS
from seit.continual_learning.methods import Method
from seit.continual_learning.network import Network
from seit.continual_learning.streams.tasks import class_incremental, online
from seit.errors import UsageError
from seit.models.tuning import TUNINGS, TuningConfig, make_tuning
from seit.training import Run

REHEARSING = {"memory": {"bytes": 400}}


@pytest.fixture(scope="module")
def store(tinted_store):
    return tinted_store


# --- the parts of a run ---------------------------------------------------------------------------


def test_the_cross_entropy_among_some_classes_is_that_of_their_slice():
    """As official LAE's `output[:, num_old:]` against `target - num_old`, gradients included."""
    logits = torch.randn(7, 6, requires_grad=True)
    labels = torch.tensor([4, 5, 4, 4, 5, 5, 4])
    among = torch.tensor([False] * 4 + [True] * 2)
    loss = cross_entropy(logits, labels, among)
    sliced = F.cross_entropy(logits[:, 4:], labels - 4)
    assert torch.equal(loss, sliced)
    gradients = [torch.autograd.grad(one, logits, retain_graph=True)[0] for one in (loss, sliced)]
    assert torch.allclose(*gradients)
    assert not gradients[0][:, :4].any()


def test_an_epoch_of_a_course_shows_each_row_once_and_leaves_out_the_last_incomplete_batch():
    rows = np.arange(100, 121)
    course = Course(
        rows=rows, batch_size=5, shuffle=True, seed=3, schedule=replace(CONFIG.schedule, steps=None)
    )
    assert course.steps_per_epoch == 4
    assert course.num_steps == 4 * CONFIG.schedule.epochs
    first = np.concatenate([course.at(step)[0] for step in range(4)])
    second = np.concatenate([course.at(step)[0] for step in range(4, 8)])
    assert len(set(first)) == 20
    assert set(first) <= set(rows.tolist())
    assert not np.array_equal(first, second)
    assert [course.at(step)[2] for step in (3, 4)] == [0, 1]


def test_segments_of_a_stream_that_is_seen_once_cut_it_at_evaluations_and_at_tasks():
    labels = np.repeat(np.arange(4), 25)
    stream = class_incremental(labels, labels, num_classes=4, increment=2, order=range(4))
    cut = segments(online(stream, seed=0), eval_every=30, batch_size=8)
    # Each task of 50 has steps of 8 and one of 2: those that reach 30, 60, 90 end at 32, 66, 90.
    assert [one.samples for one in cut] == [32, 50, 66, 90, 100]
    assert [one.start for one in cut] == [0, 32, 0, 16, 40]
    assert [one.ends_task for one in cut] == [False, True, False, False, True]
    assert sorted(np.concatenate([one.task.rows for one in cut])) == list(range(100))
    tasks = segments(stream, eval_every=30, batch_size=8)
    assert [one.ends_task for one in tasks] == [True, True]


# --- LAE ------------------------------------------------------------------------------------------


def reference_lae(store, config, batches, evaluated):
    """LAE written down from the paper and its hyper-parameters: slices, averages, two softmaxes.

    Returns the online and the offline module, the head, and the accuracy matrix.
    """
    network = build_network(store, config)
    tuned, head = network.tuned, network.head
    offline, matrix = {}, []
    for task, steps in enumerate(batches):
        first = 2 * task
        if task == 1:
            offline = {key: one.detach().clone() for key, one in tuned.items()}
        moments = {}
        for step, (inputs, labels) in enumerate(steps):
            trained = dict(head.named_parameters())
            if task == 0 or step >= round(0.6 * len(steps)):
                trained |= tuned
            network.zero_grad(set_to_none=True)
            logits = network(inputs)
            F.cross_entropy(logits[:, first : first + 2], labels - first).backward()
            with torch.no_grad():
                for key, one in trained.items():
                    adam_step(one, moments.setdefault(key, [0.0, 0.0, 0]), config.optim.lr)
                for key, one in offline.items():
                    one.mul_(0.9999).add_(tuned[key], alpha=0.0001)
        row = []
        for column, (inputs, labels) in enumerate(evaluated):
            seen = 2 * (max(task, column) + 1)
            with torch.no_grad():
                chances = network(inputs)[:, :seen].softmax(1)
                if offline:
                    kept = {key: one.detach().clone() for key, one in tuned.items()}
                    for key, one in tuned.items():
                        one.copy_(offline[key])
                    chances = torch.maximum(chances, network(inputs)[:, :seen].softmax(1))
                    for key, one in tuned.items():
                        one.copy_(kept[key])
            row.append(float((chances.argmax(1) == labels).double().mean()))
        matrix.append(row)
    return tuned, offline, head, matrix


def adam_step(parameter, moments, lr):
    """Adam, arXiv 1412.6980, algorithm 1."""
    gradient = parameter.grad
    moments[2] += 1
    moments[0] = 0.9 * moments[0] + 0.1 * gradient
    moments[1] = 0.999 * moments[1] + 0.001 * gradient**2
    mean, square = moments[0] / (1 - 0.9 ** moments[2]), moments[1] / (1 - 0.999 ** moments[2])
    parameter -= lr * mean / (square.sqrt() + 1e-8)


def test_lae_is_what_the_paper_says_step_by_step(store, tmp_path, monkeypatch):
    """Online and offline module, head and accuracy matrix after three tasks of five steps."""
    from seit.continual_learning import loop as running

    batches = [[], [], []]
    make = running.Running._batch

    def noted(self, course, step):
        batch = make(self, course, step)
        batches[self.position.segment].append((batch.inputs, batch.labels))
        return batch

    monkeypatch.setattr(running.Running, "_batch", noted)
    result = run(store, tmp_path / "run")
    left = Run.open(tmp_path / "run").load_tensors("learner.safetensors")
    augment_of = lambda rows: store["val"].tokens[rows]  # noqa: E731
    from seit.training.feeds import make_augment

    augment = make_augment(store, CONFIG, torch.device("cpu"))
    labels = store["val"].labels
    evaluated = [
        (
            augment.evaluate(torch.from_numpy(augment_of(rows).astype(np.int64))),
            torch.from_numpy(labels[rows].astype(np.int64)),
        )
        for rows in (np.flatnonzero((labels // 2) == task) for task in range(3))
    ]
    tuned, offline, head, matrix = reference_lae(store, CONFIG, batches, evaluated)
    assert [len(steps) for steps in batches] == [5, 5, 5]
    for key, value in tuned.items():
        assert torch.allclose(left[f"backbone.{key}"], value, atol=1e-5), key
        assert torch.allclose(left[f"offline.backbone.{key}"], offline[key], atol=1e-6), key
        assert not torch.equal(value, offline[key])
    assert torch.allclose(left["head.weight"], head.weight, atol=1e-5)
    assert result.accuracy_matrix == matrix


def test_old_rows_of_the_head_do_not_move_and_modules_rest_while_they_are_frozen(store, tmp_path):
    config = changed(lae={"freeze": 0.999}, stream={"increment": 3})
    run(store, tmp_path / "run", config)
    before = build_network(store, config)
    left = Run.open(tmp_path / "run").load_tensors("learner.safetensors")
    checkpoint = sorted((tmp_path / "run" / "checkpoints").iterdir())
    assert checkpoint
    one_task = changed(config, stream={"increment": 6})
    run(store, tmp_path / "one", one_task)
    # Frozen for all steps of the second task, the online module is that of the first, and so is
    # its average.
    for key in before.tuned:
        assert torch.equal(left[f"backbone.{key}"], left[f"offline.backbone.{key}"])


def test_the_decay_that_absorbs_a_share_does_so_in_any_number_of_steps():
    from seit.continual_learning.learners.lae import Lae

    learner = object.__new__(Lae)
    learner.config = changed(lae={"ema_absorb": 0.39})
    for steps in (5, 200, 5000):
        assert 1 - learner.decay(steps) ** steps == pytest.approx(0.39, rel=1e-9)
    learner.config = CONFIG
    assert learner.decay(5) == 0.9999
    assert 1 - learner.decay(1040) ** 1040 == pytest.approx(0.099, abs=1e-3)


# --- rehearsal and prototypes ---------------------------------------------------------------------


def test_herding_takes_what_brings_the_mean_nearest():
    features = F.normalize(torch.randn(9, 4, dtype=torch.float64), dim=1)
    left, total, expected = list(range(9)), torch.zeros(4, dtype=torch.float64), []
    for taken in range(9):
        distances = [
            float((features.mean(0) - (total + features[one]) / (taken + 1)).norm()) for one in left
        ]
        best = left[int(np.argmin(distances))]
        expected.append(best)
        left.remove(best)
        total = total + features[best]
    assert herding_order(features).tolist() == expected


def test_the_ridge_is_the_best_of_those_solved_one_by_one():
    random = torch.randn(50, 20, dtype=torch.float64).relu()
    targets = F.one_hot(torch.arange(50) % 4, 4).double()
    first, rest = fitted_and_left(50)
    assert sorted([*first.tolist(), *rest.tolist()]) == list(range(50))
    assert len(rest) == 10
    gram, moments = random[first].T @ random[first], random[first].T @ targets[first]
    errors = [
        float((random[rest] @ ridge_weights(gram, moments, ridge) - targets[rest]).square().mean())
        for ridge in RIDGES
    ]
    parts = zip(random[rest].split(3), targets[rest].split(3), strict=True)
    assert best_ridge(gram, moments, parts) == RIDGES[int(np.argmin(errors))]
    assert best_ridge(gram, moments, ()) == 1
    solved = ridge_weights(gram, moments, 0.5)
    oracle = np.linalg.inv(gram.numpy() + 0.5 * np.eye(20)) @ moments.numpy()
    assert np.allclose(solved.numpy(), oracle)


@pytest.mark.parametrize("method", ["ncm", "simplecil", "ranpac"])
def test_sums_of_features_do_not_depend_on_the_tasks(store, tmp_path, method):
    """After all tasks the classifier is that of one task with all classes."""
    config = changed(method=method)
    tasks = run(store, tmp_path / "tasks", config)
    whole = run(store, tmp_path / "whole", changed(config, stream={"increment": 6}))
    by_tasks = Run.open(tmp_path / "tasks").load_tensors("learner.safetensors")
    at_once = Run.open(tmp_path / "whole").load_tensors("learner.safetensors")
    for name in ("gram", "moments") if method == "ranpac" else ("sums", "counts"):
        assert torch.allclose(by_tasks[name], at_once[name])
    assert tasks.steps == whole.steps == 0
    assert tasks.forgetting is not None
    if method != "ranpac":  # whose ridge is chosen by the last task
        assert tasks.last_accuracy == pytest.approx(whole.last_accuracy)


def test_dark_rehearsal_adds_distance_and_cross_entropy(store, tmp_path, monkeypatch):
    from seit.continual_learning.learners.rehearsal import DarkRehearsal

    found = []
    loss_of = DarkRehearsal.loss

    def noted(self, batch):
        loss = loss_of(self, batch)
        dark, plain = self.replay(batch), self.replay(batch, 1)
        if dark is not None:
            with torch.no_grad():
                new = F.cross_entropy(self.logits(batch.inputs)[:, self.seen], batch.labels)
                kept = self.memory.extras[torch.from_numpy(dark.indices)].float()
                distance = (self.logits(dark.inputs) - kept).square().mean()
                old = F.cross_entropy(self.logits(plain.inputs)[:, self.seen], plain.labels)
            found.append((loss.detach().item(), float(new + 0.3 * distance + 0.7 * old)))
            assert not np.array_equal(dark.indices, plain.indices)
        return loss

    monkeypatch.setattr(DarkRehearsal, "loss", noted)
    config = changed(method="der++", **REHEARSING, rehearsal={"alpha": 0.3, "beta": 0.7})
    result = run(store, tmp_path / "run", config)
    assert len(found) == 10
    for loss, expected in found:
        assert loss == pytest.approx(expected, rel=1e-5)
    memory = result.protocol["memory"]
    assert memory["extra_bytes"] == 2 * 6 * memory["exemplars"]


@pytest.fixture(scope="module")
def undisturbed(store, tmp_path_factory):
    """Run a method once, whatever asks for it; return its result and its folder."""
    made = {}

    def result_of(name, config):
        if name not in made:
            out = tmp_path_factory.mktemp("undisturbed") / "run"
            made[name] = run(store, out, config), out
        return made[name]

    return result_of


@pytest.mark.parametrize("method", ["er", "der++", "icarl", "gdumb", "joint", "seq-ft"])
def test_every_method_learns_all_tasks(undisturbed, method):
    rehearses = method in ("er", "der++", "icarl", "gdumb")
    config = changed(method=method, **(REHEARSING if rehearses else {}))
    result, _ = undisturbed(method, config)
    matrix = np.array(result.accuracy_matrix)
    assert matrix.shape == (3, 3)
    assert np.isfinite(matrix).all()
    assert result.steps == (5 + 10 + 15 if method == "joint" else 15)
    assert result.last_accuracy == pytest.approx(matrix[-1].mean())
    local = np.array(result.task_incremental_matrix)
    assert (local >= matrix - 1e-9).all(), "choosing among fewer classes is not harder"
    if rehearses:
        assert 0 < result.protocol["memory"]["bytes"] <= 400
        assert result.ledger["total_memory_bytes"] > 0


def test_joint_training_begins_anew_and_sees_all_tasks_so_far(store, tmp_path):
    config = changed(method="joint", mask="seen", tuning={"method": "full"})
    joint = run(store, tmp_path / "joint", config)
    matrix = np.array(joint.accuracy_matrix)
    assert matrix[-1].mean() > 1 / 6
    assert joint.trained_parameters > 5000


@pytest.mark.parametrize(
    ("method", "kind"),
    [
        ("er", "blurry"),
        ("lae", "online"),
        ("simplecil", "blurry"),
        ("simplecil", "online"),
        pytest.param("er", "online", marks=pytest.mark.slow),
        pytest.param("lae", "blurry", marks=pytest.mark.slow),
    ],
)
def test_a_stream_that_is_seen_once(store, tmp_path, kind, method):
    config = changed(
        method=method,
        stream={"kind": kind, "eval_every": 20, **({"tasks": 3} if kind == "blurry" else {})},
        **(REHEARSING if method == "er" else {}),
    )
    result = run(store, tmp_path / "run", config)
    assert result.curve["samples"][-1] == 96
    assert result.metrics["area_under_curve"] is not None
    if method != "simplecil":
        assert result.samples == 96, "each sample was new once"
    resumed = tmp_path / "resumed"
    if method != "simplecil":
        with pytest.raises(StoppedError):
            run(store, resumed, config, progress=stop_at(7))
        assert comparable(run(store, resumed, config, resume=True)) == comparable(result)


@pytest.mark.parametrize("method", ["er", "lae"])
def test_what_is_learned_does_not_depend_on_evaluations(store, tmp_path, method):
    """Numbers of samples a step, their augmentations and the network, of tasks of 32 samples."""
    memory = REHEARSING if method == "er" else {}
    results = {
        every: run(
            store,
            tmp_path / str(every),
            changed(
                method=method,
                stream={"kind": "online", "eval_every": every},
                data={"batch_size": 12},
                augment={"noise_prob": 0.5},
                **memory,
            ),
        )
        for every in (96, 20, 5, 0)
    }
    rare, *others = results.values()
    assert rare.steps == 9
    for result in others:
        assert result.steps == rare.steps
        assert result.network == rare.network
        assert result.accuracy_matrix == rare.accuracy_matrix
        points = dict(zip(*result.curve.values(), strict=True))
        shared = {samples: points[samples] for samples in rare.curve["samples"]}
        assert list(shared.values()) == rare.curve["accuracy"]
    assert results[20].curve["samples"] == [24, 32, 44, 64, 88, 96]
    # Multiples of 5 within each step: 5, 10 in the first, 15, 20 in the second, and so on.
    often = results[5]
    assert often.curve["samples"] == [12, 24, 32, 44, 56, 64, 76, 88, 96]
    weights = [2, 2, 2, 2, 3, 1, 3, 2, 2]
    expected = np.average(often.curve["accuracy"], weights=weights)
    assert often.metrics["area_under_curve"] == pytest.approx(expected)


# --- exact resume ---------------------------------------------------------------------------------

RESUMED = {
    "lae-adapter": changed(),
    "lae-lora": changed(tuning={"method": "lora", "rank": 2, "targets": ("k", "v")}),
    "lae-prefix": changed(tuning={"method": "prefix", "length": 3}),
    "er": changed(method="er", **REHEARSING),
    "der++": changed(method="der++", **REHEARSING),
    "icarl": changed(method="icarl", **REHEARSING),
    "gdumb": changed(method="gdumb", **REHEARSING),
    "joint": changed(method="joint"),
}


QUICK = ("lae-adapter", "der++", "icarl", "joint")


@pytest.mark.parametrize(
    "name",
    [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in RESUMED],
)
def test_a_run_that_was_stopped_anywhere_ends_as_one_that_was_not(
    store, undisturbed, tmp_path, name
):
    """In the first task, at its end, and in later ones, while modules are frozen and after."""
    config = RESUMED[name]
    result, whole = undisturbed(name, config)
    out = tmp_path / "stopped"
    for step in (2, 5, 7, 13) if name == "lae-adapter" else (7,):
        with pytest.raises(StoppedError):
            run(store, out, config, resume=True, progress=stop_at(step))
    assert comparable(run(store, out, config, resume=True)) == comparable(result)
    assert comparable(run(store, out, config, resume=True)) == comparable(result), "when finished"
    losses = [
        [line["loss"] for line in Run.open(path).metrics() if line["split"] == "train"]
        for path in (whole, out)
    ]
    assert losses[0] == losses[1]


def test_another_backbone_is_refused_when_a_run_goes_on(store, tmp_path):
    with pytest.raises(StoppedError):
        run(store, tmp_path / "run", progress=stop_at(3))
    info = Run.open(tmp_path / "run").info
    Run.open(tmp_path / "run").write_info({**info, "backbone": "0" * 64})
    with pytest.raises(UsageError, match="another backbone"):
        run(store, tmp_path / "run", resume=True)


def test_the_command_knows_every_method():
    assert set(get_args(Method)) == set(LEARNERS)
    pet = get_type_hints(continual_command.command)["pet"]
    assert set(get_args(get_args(pet)[0])) <= set(TUNINGS)


# --- refusals and the command line ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "er"}, "memory.bytes is 0"),
        ({"memory": {"bytes": 10}}, "keeps no samples"),
        ({"augment": {"cutmix_prob": 0.5}}, "mixes no samples"),
        ({"stream": {"kind": "domain"}}, "stream.domains"),
        ({"method": "joint", "stream": {"kind": "online"}}, "must know when tasks begin"),
        ({"lae": {"freeze": 1.5}}, "lae.freeze"),
        ({"ema": {"decay": 0.9}}, "ema.decay"),
        ({"method": "lae", "tuning": {"method": "adalora"}}, "which takes ranks away"),
    ],
)
def test_settings_that_do_not_fit_together(settings, message):
    with pytest.raises(UsageError, match=message):
        changed(**settings)


def test_too_many_classes_a_task(store, tmp_path):
    with pytest.raises(UsageError, match="increment is 7"):
        run(store, tmp_path / "run", changed(stream={"increment": 7}))
    assert not (tmp_path / "run").exists()


def test_the_command_prints_what_checks_read(store, tmp_path, capsys):
    settings = [
        *("--model.name", "vit_tiny_patch16_224", "--model.stem", "2/2/0"),
        *("--model.embed_dim", "16", "--model.depth", "2", "--model.num_heads", "2"),
        *("--augment.crop_size", "8", "--steps", "2", "--batch-size", "8"),
        *("--tuning.num_blocks", "1", "--run.loggers", "[]"),
    ]
    out = tmp_path / "run"
    main(["continual", str(store.folder), *settings, "--out", str(out), "--json"])
    told = json.loads(capsys.readouterr().out)
    for key in ("last_accuracy", "average_accuracy", "forgetting", "accuracy_matrix"):
        assert key in told
    assert np.shape(told["accuracy_matrix"]) == (3, 3)
    assert told["formulas"]["forgetting"]
    assert told["protocol"]["order"] == list(range(6))
    report = (out / "report.html").read_text()
    assert "accuracy" in report
    with pytest.raises(SystemExit) as ended:
        main(
            ["continual", str(store.folder), "--recipe", "small-cpu", "--out", str(tmp_path / "x")]
        )
    assert ended.value.code == 2


def test_a_network_wears_another_state_only_for_a_while():
    backbone = nn.Sequential(nn.Linear(3, 4))
    tuning = make_tuning(TuningConfig(method="full"))
    network = Network(backbone, tuning, num_classes=2, num_features=4)
    kept = network.snapshot()
    other = {key: torch.zeros_like(one) for key, one in kept.items() if key.startswith("backbone")}
    with network.wearing(other):
        assert not network.trained_state()["backbone.0.weight"].any()
    for key, value in network.trained_state().items():
        assert torch.equal(value, kept[key])


def test_runs_are_listed_and_compared(store, tmp_path, capsys):
    """Figures of tasks, and which settings of the stream make them mean something else."""
    run(store, tmp_path / "lae")
    run(store, tmp_path / "means", changed(method="simplecil"))
    run(store, tmp_path / "reversed", changed(stream={"order": "pilot"}))
    main(["runs", "list", str(tmp_path), "--json"])
    listed = {one["name"]: one for one in json.loads(capsys.readouterr().out)["runs"]}
    assert listed["lae"]["objective"] == "continual"
    result = Run.open(tmp_path / "lae").info["result"]
    assert listed["lae"]["top1"] == result["metrics"]["last_accuracy_pooled"]
    main(["runs", "list", str(tmp_path)])
    assert "top-1 of continual runs is pooled" in capsys.readouterr().err
    again = ("--config", str(tmp_path / "lae" / "config.yaml"), "--resume")
    main(["continual", str(store.folder), "--out", str(tmp_path / "lae"), *again])
    rows = dict(line.split("  ", 1) for line in capsys.readouterr().out.splitlines())
    assert rows["pooled"].strip() == f"{listed['lae']['top1']:.2%} (each sample alike)"
    assert rows["last accuracy"].strip() == f"{result['last_accuracy']:.2%} (mean of tasks)"
    page = tmp_path / "page.html"
    main(["runs", "compare", *(str(tmp_path / n) for n in ("lae", "means")), "--out", str(page)])
    told = capsys.readouterr().out
    assert "last accuracy" in told
    assert "forgetting" in told
    assert "Accuracy on tasks so far" in page.read_text()
    main(["runs", "compare", str(tmp_path / "lae"), str(tmp_path / "reversed")])
    assert "not the same measure: see stream.order" in capsys.readouterr().out
