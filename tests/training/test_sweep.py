"""`seit sweep`: draws, rungs, honest runs, and the same result after an interruption."""

import datetime
import json
import math
import re
from collections import Counter

import numpy as np
import pytest
import yaml
from hypothesis import given, settings, strategies as st
from PIL import Image
from support.pretraining import make_store

import seit
from seit.cli import main
from seit.errors import UsageError
from seit.shards import Split
from seit.stores import filter_store
from seit.stream import held_out
from seit.training import Run, SweepConfig
from seit.training.sweep import search as rungs_of_trials
from seit.training.sweep.rungs import Rungs, best
from seit.training.sweep.space import Choice, Range, Space

SETTINGS = {
    "model": {
        "name": "vit_tiny_patch16_224",
        "stem": "2/2/0",
        "embed_dim": 16,
        "depth": 1,
        "num_heads": 2,
    },
    "data": {"batch_size": 12},
    "optim": {"lr_batch_size": 0},
    "schedule": {"steps": 8, "warmup_steps": 1},
    "augment": {"crop_size": 8},
    "ema": {"decay": 0.0},
    "run": {"device": "cpu", "loggers": [], "log_every": 4},
}
SPACE = {
    "optim.lr": {"low": 1e-4, "high": 1e-2, "log": True},
    "model": {"depth": [1, 2]},
}
EXTENT = {"trials": 4, "rungs": 2, "reduction": 2, "dev": 0.25}


def search(store, out, **changes):
    return seit.sweep(store, out=out, **{"space": SPACE, "config": SETTINGS, **EXTENT, **changes})


@pytest.fixture(scope="module")
def found(pattern_store, tmp_path_factory):
    """Return the result of a sweep, and its folder."""
    out = tmp_path_factory.mktemp("sweep") / "out"
    return search(pattern_store, out), out


def test_draws_depend_on_seed_trial_and_name_alone():
    space = Space.read(SPACE)
    wide = Space.read({**SPACE, "optim.weight_decay": {"low": 0.0, "high": 1.0}})
    for trial in range(20):
        draw = space.draw(trial, seed=0)
        assert draw.items() <= wide.draw(trial, seed=0).items()
    assert space.draw(0, seed=0) != space.draw(0, seed=1)


def test_draws_are_spread_as_described():
    shares = (np.arange(6000) + 0.5) / 6000
    counts = Counter(Choice(("x", "y", "z")).at(share) for share in shares)
    assert set(counts.values()) == {2000}
    counts = Counter(Range(1, 4).at(share) for share in shares)
    assert set(counts) == {1, 2, 3, 4}
    assert max(counts.values()) - min(counts.values()) <= 2
    logs = [math.log10(Range(1e-4, 1.0, log=True).at(share)) for share in shares]
    assert np.histogram(logs, 4, (-4, 0))[0].tolist() == [1500] * 4
    values = [Range(-1.0, 3.0).at(share) for share in shares]
    assert np.mean(values) == pytest.approx(1.0)


@settings(deadline=None)
@given(st.integers(1, 3), st.integers(1, 5), st.floats(0, 1, exclude_max=True))
def test_whole_numbers_stay_in_their_range(low, more, share):
    for log in (False, True):
        value = Range(low, low + more, log=log).at(share)
        assert isinstance(value, int)
        assert low <= value <= low + more


@settings(deadline=None)
@given(st.integers(1, 500), st.integers(1, 4), st.integers(2, 4), st.integers(1, 60))
def test_rungs_cost_what_each_trial_is_trained_for(steps, count, reduction, trials):
    if reduction ** (count - 1) > steps:
        with pytest.raises(UsageError, match="do not fit"):
            Rungs(steps=steps, count=count, reduction=reduction)
        return
    rungs = Rungs(steps=steps, count=count, reduction=reduction)
    assert rungs.marks[-1] == steps
    assert all(mark % rungs.unit == 0 for mark in rungs.marks[:-1])
    reached = [0] * trials
    for mark, number in zip(rungs.marks, rungs.survivors(trials), strict=True):
        reached[:number] = [mark] * number
    assert rungs.cost(trials) == sum(reached)
    most = rungs.affordable(rungs.cost(trials), most=1000)
    assert rungs.cost(most) <= rungs.cost(trials) < rungs.cost(most + 1)


def test_the_best_is_the_most_accurate_then_the_surest_then_the_first():
    scores = [(0.5, 1.0), (0.6, 2.0), (0.6, 1.5), (0.6, 1.5), (-math.inf, math.inf)]
    assert best(scores, 3) == [2, 3, 1]


def test_trials_are_runs_and_half_of_them_end(found):
    result, out = found
    assert result.rungs == (4, 8)
    assert [one.steps for one in result.trials].count(8) == 2
    assert result.steps == 2 * 4 + 2 * 8
    for one in result.trials:
        run = Run.open(out / f"trial-{one.number:03d}")
        is_done = one.steps == 8
        assert (run.info["status"] == "finished") is is_done
        assert run.config.optim.lr == one.settings["optim.lr"]
        judged = {e["step"]: e["top1"] for e in run.metrics() if e["split"] == "val"}
        for step, judgment in one.judgments.items():
            assert judged[int(step)] == judgment.top1


def test_survivors_are_the_best_of_the_first_rung(found):
    result, _ = found

    def score(one):
        return one.judgments["4"].top1, -one.judgments["4"].loss

    ended = [score(one) for one in result.trials if one.steps == 8]
    stopped = [score(one) for one in result.trials if one.steps == 4]
    assert min(ended) >= max(stopped)


def test_validation_data_choose_nothing(found, pattern_store):
    result, out = found
    divided, original = seit.open(out / "store"), pattern_store
    assert set(divided) == {"train", "dev"}
    keys = [*divided["train"].keys, *divided["dev"].keys]
    assert sorted(keys) == sorted(original["train"].keys)
    assert not set(keys) & set(original["val"].keys)
    assert result.dev_samples == len(divided["dev"]) == 9  # a quarter of each class's 12
    label_of = dict(zip(original["train"].keys, original["train"].labels.tolist(), strict=True))
    for split in divided.values():
        assert [label_of[key] for key in split.keys] == split.labels.tolist()
    winner = seit.evaluate(out / f"trial-{result.best:03d}", store=original, split="val")
    assert (result.top1, result.loss) == (winner.top1, winner.loss)
    assert result.val_samples == winner.samples


def test_a_paused_winner_is_the_run_of_its_recipe_bit_for_bit(found, tmp_path):
    """Rungs pause a run of the whole schedule; they do not shorten its learning rate's."""
    result, out = found
    recipe = tmp_path / "best.yaml"
    recipe.write_text((out / "best.yaml").read_text())
    store = seit.open(out / "store")
    seit.train(store, out=tmp_path / "run", config=recipe, **{"data.val_split": "dev"})
    weights = Run.open(tmp_path / "run").load_weights()
    paused = Run.open(out / f"trial-{result.best:03d}").load_weights()
    assert all((weights[name] == paused[name]).all() for name in paused)


def test_the_recipe_names_the_original_splits(found, pattern_store):
    result, out = found
    body = yaml.safe_load((out / "best.yaml").read_text())
    assert (body["data"]["train_split"], body["data"]["val_split"]) == ("train", "val")
    assert body["optim"]["lr"] == result.settings["optim.lr"]
    assert body["schedule"]["steps"] == 8
    assert body["run"]["eval_every"] == 0


def test_the_report_shows_every_trial_and_setting(found):
    result, out = found
    text = (out / "report.html").read_text()
    assert 'aria-label="optim.lr: top-1 against' in text
    assert "model.depth, best of each value" in text
    for one in result.trials:
        assert re.search(rf"<td[^>]*>{one.number}</td>", text)


def test_the_command_prints_the_winner(found, monkeypatch, capsys, tmp_path):
    result, _ = found
    asked = {}

    def sweep(store, **settings):
        asked.update(settings)
        return result

    monkeypatch.setattr("seit.api.sweep", sweep)
    flags = ["--space", "space.yaml", "--out", str(tmp_path), "--budget", "600s", "--resume"]
    main(["sweep", "store", *flags, "--steps", "8", "--optim.name", "lamb"])
    printed = capsys.readouterr().out
    assert f"trial {result.best} of 4 (4 draws)" in printed
    assert "optim.lr" in printed
    assert (asked["budget"], asked["resume"], asked["steps"]) == ("600s", True, 8)
    assert asked["optim.name"] == "lamb"
    main(["sweep", "store", *flags, "--json"])
    assert json.loads(capsys.readouterr().out) == json.loads(json.dumps(result.record()))


def without_times(out):
    body = json.loads((out / "sweep.json").read_text())
    for trial in body["trials"]:
        for one in trial["judgments"].values():
            del one["seconds"]
    del body["result"]["seconds"], body["result"]["recipe"]
    return body


@pytest.mark.parametrize(
    "stop", [*(pytest.param(stop, marks=pytest.mark.slow) for stop in (3, 5)), 11]
)
def test_an_interrupted_sweep_ends_alike(found, pattern_store, tmp_path, stop):
    _, whole = found
    calls = []

    def interrupt(done, total, latest):
        calls.append(done)
        if len(calls) == stop:
            raise KeyboardInterrupt

    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        search(pattern_store, out, progress=interrupt)
    with pytest.raises(UsageError, match="pass --resume"):
        search(pattern_store, out)
    search(pattern_store, out, resume=True)
    assert without_times(out) == without_times(whole)
    assert (out / "best.yaml").read_bytes() == (whole / "best.yaml").read_bytes()


def test_a_finished_sweep_is_not_repeated(found, pattern_store):
    result, out = found
    again = search(pattern_store, out, resume=True)
    assert again.record() == result.record()
    with pytest.raises(UsageError, match="another space"):
        search(pattern_store, out, resume=True, space={"optim.lr": [1e-3]})


def test_networks_beyond_the_limits_are_not_trained(found, pattern_store, tmp_path, monkeypatch):
    result, _ = found
    small = min(one.bytes for one in result.trials)
    assert small < max(one.bytes for one in result.trials)
    limited = search(pattern_store, tmp_path / "out", max_bytes=small, trials=2, rungs=1)
    for one in limited.trials:
        assert (one.status == "trained") is (one.settings["model.depth"] == 1)
        assert (tmp_path / "out" / f"trial-{one.number:03d}").exists() is (one.bytes <= small)
    monkeypatch.setattr(rungs_of_trials, "_DRAWS", 4)
    with pytest.raises(UsageError, match=rf"the smallest that is too large has {small:,} bytes"):
        search(pattern_store, tmp_path / "none", max_bytes=10, trials=1)


def test_a_budget_limits_the_trials(pattern_store, tmp_path, monkeypatch):
    limited = search(pattern_store, tmp_path / "a", budget=17)  # 2 × 4 + 8 − 4 = 12; 3: 16
    assert sum(bool(one.judgments) for one in limited.trials) == 3
    assert limited.steps == 16
    with pytest.raises(UsageError, match="one trial takes 8"):
        search(pattern_store, tmp_path / "b", budget=7)
    assert SweepConfig(budget="600s").budget_seconds == 600
    monkeypatch.setattr(SweepConfig, "budget_seconds", 0)
    quick = search(pattern_store, tmp_path / "c", rungs=1)
    assert sum(bool(one.judgments) for one in quick.trials) == 1


@pytest.fixture
def dry_run(call, tmp_path):
    """Return exit code, stdout and stderr of `seit sweep --dry-run` of a store that is not there.

    The file of the space is `space.yaml`; ``steps`` None leaves the schedule to the recipe.
    """
    (tmp_path / "space.yaml").write_text(yaml.safe_dump(SPACE))

    def run(*flags, space="space.yaml", steps=900):
        given = [] if steps is None else ["--steps", steps]
        place = tmp_path / space
        return call("sweep", "missing", "--space", place, *given, *flags, "--dry-run")

    return run


def test_a_dry_run_prints_trials_rungs_and_steps(dry_run):
    code, out, _ = dry_run("--json")
    expected = {
        "space": Space.read(SPACE).describe(),
        "trials": 9,
        "rungs": [100, 300, 900],
        "trials_at_rungs": [9, 3, 1],
        "steps": 9 * 100 + 3 * 200 + 600,
        "reduction": 3,
        "dev": 0.1,
        "budget": None,
        "max_bytes": None,
        "max_flops": None,
    }
    found = json.loads(out)
    assert (code, found["sweep"], found["schedule"]["steps"]) == (0, expected, 900)
    _, text, _ = dry_run()
    assert yaml.safe_load(text) == json.loads(out)
    _, out, _ = dry_run("--json", "--budget", 1099)  # one more trial at the first rung takes 1100
    found = json.loads(out)["sweep"]
    assert (found["trials"], found["trials_at_rungs"], found["steps"]) == (2, [2, 1, 1], 1000)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--trials", 0], "--trials is 0; it must be from 1 to 10,000"),
        (["--rungs", 8], "do not fit into 900 steps"),
        (["--reduction", 1], "--reduction is 1"),
        (["--dev", 1.5], "--dev is 1.5"),
        (["--budget", "soon"], "--budget is 'soon'"),
        (["--budget", 899], "--budget is 899 steps, and one trial takes 900"),
    ],
)
def test_a_dry_run_refuses_what_the_search_does(dry_run, flags, words):
    code, out, err = dry_run(*flags)
    assert (code, out) == (2, "")
    assert words in err


def test_a_dry_run_checks_the_space(dry_run, tmp_path):
    (tmp_path / "wrong.yaml").write_text("optim.lrr: [1, 2]")
    for space, steps, words in (
        ("none.yaml", 900, "none.yaml"),
        ("wrong.yaml", 900, "did you mean 'optim.lr'?"),
        ("space.yaml", None, "pass --steps"),
    ):
        code, out, err = dry_run(space=space, steps=steps)
        assert (code, out, words in err) == (2, "", True), err


def test_settings_that_give_no_network_are_refused_and_drawn_again(pattern_store, tmp_path):
    space = {"model.embed_dim": [15, 16]}  # two heads
    result = search(pattern_store, tmp_path / "out", space=space, trials=2, rungs=1)
    refused = [one for one in result.trials if one.status == "refused"]
    assert all(one.settings["model.embed_dim"] == 15 and one.reason for one in refused)
    assert sum(bool(one.judgments) for one in result.trials) == 2


def test_settings_that_training_refuses_are_drawn_again(pattern_store, tmp_path):
    out, space = tmp_path / "out", {"data.batch_size": [8, 4096]}
    extent = {"space": space, "trials": 3, "rungs": 1, "steps": 2}
    calls = []

    def interrupt(done, total, latest):
        calls.append(done)
        if len(calls) == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        search(pattern_store, out, **extent, progress=interrupt)
    search(pattern_store, out, **extent, resume=True)
    result = search(pattern_store, tmp_path / "whole", **extent)
    assert without_times(out) == without_times(tmp_path / "whole")
    refused = [one for one in result.trials if one.status == "refused"]
    trained = [one for one in result.trials if one.status == "trained"]
    assert refused
    assert len(trained) == 3
    for one in refused:
        assert one.settings == {"data.batch_size": 4096}
        assert "a batch of 4096 is larger than the 27 samples" in one.reason
        assert not Run.exists(tmp_path / "whole" / f"trial-{one.number:03d}")
    assert all(one.settings == {"data.batch_size": 8} and not one.reason for one in trained)
    again = search(pattern_store, tmp_path / "whole", **extent, resume=True)
    assert again.record() == result.record()


def test_a_fault_of_all_trials_ends_the_search(pattern_store, tmp_path, monkeypatch):
    monkeypatch.setattr(rungs_of_trials, "_REFUSALS", 3)
    space = {"data.batch_size": [4096]}
    for resume in (False, True):
        with pytest.raises(UsageError, match=r"^0 of 3 draws can be trained.*a batch of 4096"):
            search(pattern_store, tmp_path / "out", space=space, resume=resume)


def test_a_refusal_of_a_run_that_has_begun_ends_the_search(pattern_store, tmp_path, monkeypatch):
    out, extent = tmp_path / "out", {"trials": 1, "rungs": 1, "steps": 2}

    def interrupt(done, total, latest):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        search(pattern_store, out, **extent, progress=interrupt)
    begun = out / "trial-000" / "config.yaml"
    begun.write_text(begun.read_text().replace("weight_decay: 0.1", "weight_decay: 0.2"))
    with pytest.raises(UsageError, match=r"trial-000 cannot be resumed with other settings"):
        search(pattern_store, out, **extent, resume=True)


def test_a_winner_that_could_not_be_evaluated_is_refused_before_any_work(
    pattern_store, tmp_path, monkeypatch
):
    out = tmp_path / "out"
    with pytest.raises(UsageError, match=r"no labeled samples in a split 'test' to .* set data"):
        search(pattern_store, out, **{"data.val_split": "test"})
    unlabeled = tmp_path / "unlabeled"
    make_store(unlabeled, labelled=False)
    with pytest.raises(UsageError, match="no labeled samples in a split 'val'"):
        search(unlabeled / "store", out)
    with pytest.raises(UsageError, match="'nonsense' cannot be used"):
        search(pattern_store, out, device="nonsense")
    several = property(lambda split: object() if split.name == "train" else None)
    monkeypatch.setattr(Split, "label_sets", several)
    with pytest.raises(UsageError, match="differ in whether samples have several labels"):
        search(pattern_store, out)
    assert not out.exists()


def test_a_run_that_diverges_loses(pattern_store, tmp_path):
    space = {"optim.lr": [1e-3, 1e30]}
    result = search(pattern_store, tmp_path / "out", space=space, trials=4)
    assert result.settings == {"optim.lr": 1e-3}
    lost = [one for one in result.trials if one.status == "diverged"]
    assert lost
    assert all(one.last.top1 is None for one in lost)


@pytest.mark.parametrize(
    ("space", "words"),
    [
        ({}, "names 0 settings"),
        ({"optim.lx": [1]}, "did you mean 'optim.lr'"),
        ({"optim.lr": []}, "lists no value"),
        ({"optim.lr": {"low": 2.0, "high": 1.0}}, "low at most high"),
        ({"optim.lr": {"low": 0.0, "high": 1.0, "log": True}}, "log: true only above 0"),
        ({"optim.lr": {"low": "a", "high": 1.0}}, "takes low and high"),
        ({"optim.lr": {"low": float("nan"), "high": 1.0}}, "takes low and high"),
        ({"schedule.steps": [10, 20]}, "all trials share"),
        ({"data.val_split": ["val"]}, "all trials share"),
        (
            {"optim.lr": [1e-3, datetime.date(2020, 1, 1)]},
            r"optim\.lr the value '2020-01-01' \(date",
        ),
        ({"optim": {"lr": datetime.date(2020, 1, 1)}}, "which JSON does not have"),
        ({"optim.lr": [float("nan")]}, "give a finite number"),
        ({"optim.lr": [1e-3], "optim": {"lr": [9e-3]}}, r"names optim\.lr more than once"),
        ({"model.depth": {"low": 1.5, "high": 4}}, "is a whole number"),
    ],
)
def test_false_spaces_are_refused(space, words):
    with pytest.raises(UsageError, match=words) as refusal:
        Space.read(space)
    assert "\n" not in str(refusal.value)


def test_a_setting_decides_if_its_range_is_of_whole_numbers():
    ends = {"low": 0, "high": 1}
    names = ["optim.lr", "optim.clip_grad", "schedule.warmup_steps", "model.depth"]
    space = Space.read(dict.fromkeys(names, ends))
    draws = [space.draw(trial, seed=0) for trial in range(50)]
    for name in names[:2]:
        assert len({draw[name] for draw in draws}) == 50
        assert all(0 <= draw[name] <= 1 for draw in draws)
    for name in names[2:]:
        assert {draw[name] for draw in draws} == {0, 1}
    written = Space.read({"model.depth": {"low": "1e0", "high": 4.0}})
    assert written.values["model.depth"].at(0.5) in (2, 3)
    assert isinstance(written.values["model.depth"].at(0.5), int)


def test_a_space_is_read_from_a_file(tmp_path):
    path = tmp_path / "space.yaml"
    path.write_text("optim:\n  lr: {low: 1e-4, high: 1e-2, log: true}\nmodel.depth: [1, 2]\n")
    space = Space.read(path)
    assert space.values["optim.lr"] == Range(1e-4, 1e-2, log=True)
    assert space.values["model.depth"] == Choice((1, 2))
    with pytest.raises(UsageError, match="cannot be read"):
        Space.read(tmp_path / "missing.yaml")


@pytest.mark.parametrize(
    ("extent", "words"),
    [
        ({"trials": 0}, "--trials is 0"),
        ({"dev": 1.0}, "--dev is 1.0"),
        ({"budget": "much"}, "--budget is 'much'"),
        ({"budget": "-3"}, "--budget is '-3'"),
    ],
)
def test_false_extents_are_refused(extent, words):
    with pytest.raises(UsageError, match=words):
        SweepConfig(**extent)


def test_runs_of_epochs_or_pixels_are_refused(pattern_store, tmp_path):
    with pytest.raises(UsageError, match="pass --steps"):
        search(pattern_store, tmp_path / "out", epochs=1)
    with pytest.raises(UsageError, match=r"data\.pixels"):
        search(pattern_store, tmp_path / "out", pixels="photos")
    rows = {"train": np.array([0, 12, 24]), "val": np.arange(15)}
    filter_store(pattern_store, tmp_path / "ones", rows=rows)
    with pytest.raises(UsageError, match=r"0 of the 3 samples .* some must be, and"):
        search(tmp_path / "ones", tmp_path / "few")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("share", "expected"), [(0.1, [1, 1, 0]), (0.5, [6, 1, 0]), (0.99, [11, 1, 0])]
)
def test_rare_classes_keep_training_samples(pattern_store, tmp_path, share, expected):
    labels = pattern_store["train"].labels
    rows = np.concatenate(
        [np.flatnonzero(labels == label)[:count] for label, count in enumerate((12, 2, 1))]
    )
    filter_store(pattern_store, tmp_path / "rare", rows={"train": np.sort(rows)})
    split = seit.open(tmp_path / "rare")["train"]
    held = held_out(split, share=share, seed=0)
    assert np.bincount(split.labels[held], minlength=3).tolist() == expected


def test_views_of_a_picture_are_held_out_together(tmp_path):
    source = tmp_path / "pictures"
    for number in range(16):
        path = source / "train" / f"class{number % 2}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((32, 32, 3), number * 9, np.uint8)).save(path)
    seit.tokenize(source, out=tmp_path / "store", size=32, codes=8, views=3)
    split = seit.open(tmp_path / "store")["train"]
    held = held_out(split, share=0.25)
    files = [key.partition("#")[0] for key in split.keys]
    judged = {files[row] for row in held}
    assert (len(judged), len(held)) == (4, 12)  # of the 48 samples, all views of four pictures
    assert np.bincount(split.labels[held]).tolist() == [6, 6]
    left = np.setdiff1d(np.arange(len(split)), held)
    assert judged.isdisjoint(files[row] for row in left)


def test_shares_of_classes_are_rounded_to_the_nearest(pattern_store, tmp_path):
    split = pattern_store["train"]  # 12 samples of each class
    for share, count in ((0.04, 1), (0.12, 1), (0.13, 2), (0.2, 2), (0.25, 3)):
        held = held_out(split, share=share, seed=3)
        assert np.bincount(split.labels[held]).tolist() == [count] * 3
    assert set(held_out(split, share=0.1)) <= set(held_out(split, share=0.4))
