"""Runs of a study: stores, folds, starts, rates on held-out samples, and the seeds."""

import csv
import dataclasses
import sys
from pathlib import Path

import pytest

from seit.demo import write_corpus
from seit.demo.shapes import CLASSES

sys.path.insert(0, str(Path(__file__).parents[2] / "tools" / "study"))
import arm_runs
import arms

SMALL = {
    "model.name": "vit_tiny_patch16_224",
    "model.stem": "2/2/0",
    "model.embed_dim": 16,
    "model.depth": 2,
    "model.num_heads": 2,
    "augment.crop_size": 8,
    "data.batch_size": 4,
    "schedule.steps": 2,
    "schedule.warmup_steps": 1,
    "run.device": "cpu",
    "run.loggers": [],
}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write_corpus(folder / "photos", num_train=40, num_val=20, size=64, workers=1)
    return folder


def study(**changes):
    settings = {
        "corpus": "photos",
        "stores": {"photos": {"tokenizer": "fitted"}},
        "fits": {"fitted": {"size": 64, "codes": 16, "tokenizer": "patch-pca-vq"}},
        "recipe": "small-cpu",
        "settings": SMALL,
        "rates": (1e-3, 2e-3),
        "search": {"schedule.steps": 1},
        "dev": 0.25,
        "seeds": 1,
        "reference": "scratch",
        "arms": {"scratch": arm_runs.Arm(store="photos")},
    }
    return arm_runs.Study(**(settings | changes))


def go_on(one, folder, data):
    results = arm_runs.Results(folder / "study.json")
    (folder / "work").mkdir(exist_ok=True)
    work = arm_runs.Work(folder / "work", data, study="study")
    arms.go_on(one, results, work, arms=list(one.arms), seconds=600)
    return results.read()


def test_rates_are_tried_on_held_out_samples_and_seeds_on_val(data, tmp_path):
    runs = go_on(study(), tmp_path, data)
    assert list(runs) == ["scratch, rate 0.001", "scratch, rate 0.002", "scratch, seed 0"]
    assert {name for name, run in runs.items() if run["rate"] == 0.001} >= {"scratch, rate 0.001"}
    store = arm_runs.seit.open(tmp_path / "work" / "stores" / "photos-dev")
    assert len(store["train"]) + len(store["dev"]) == 40
    assert go_on(study(), tmp_path, data) == runs


def test_an_arm_of_views_takes_another_ones_rate_and_counts_the_bytes_of_all_views(data, tmp_path):
    stores = {"photos": {"tokenizer": "fitted"}, "views": {"tokenizer": "fitted", "views": 3}}
    both = {"scratch": arm_runs.Arm(store="photos")}
    both["views"] = arm_runs.Arm(store="views", rate_of="scratch")
    runs = go_on(study(stores=stores, arms=both), tmp_path, data)
    assert [name for name in runs if name.startswith("views")] == ["views, seed 0"]
    assert runs["views, seed 0"]["rate"] == runs["scratch, seed 0"]["rate"]
    store = arm_runs.seit.open(tmp_path / "work" / "stores" / "views")
    assert store.card.samples == 3 * 40 + 20
    assert runs["views, seed 0"]["bytes_per_sample"] == round(3 * store.num_bytes / 140, 1)


def test_arms_go_on_from_a_start_by_their_own_verb(data, tmp_path):
    start = arm_runs.Arm(store="photos", verb="pretrain", recipe="mtm-small-cpu")
    tuned = arm_runs.Arm(
        store="photos",
        verb="tune",
        recipe="tune-small-cpu",
        start="masked",
        settings={"tuning.method": "lora"},
    )
    tasks = arm_runs.Arm(
        store="photos",
        verb="continual",
        recipe="continual-small-cpu",
        start="masked",
        settings={
            "method": "er",
            "memory.bytes": 5000,
            "memory.medium": "jpeg:75",
            "memory.source": "{corpus}",
            "stream.increment": 5,
            "stream.order": "pilot:199{seed}",
        },
    )
    both = study(
        rates=(), reference="tuned", arms={"tuned": tuned, "tasks": tasks}, starts={"masked": start}
    )
    runs = go_on(both, tmp_path, data)
    assert list(runs) == ["tasks, seed 0", "tuned, seed 0"]
    assert runs["tuned, seed 0"]["trained_parameters"] < runs["tuned, seed 0"]["parameters"]
    assert 0 <= runs["tasks, seed 0"]["last_accuracy"] <= 1
    assert runs["tasks, seed 0"]["memory_bytes"] == 5000
    assert "memory_bytes" not in runs["tuned, seed 0"]
    run = arm_runs.Run.open(tmp_path / "work" / "runs" / "study" / "tasks-seed-0")
    assert run.settings.stream.order == "pilot:1990"
    assert run.settings.memory.source == str(data / "photos")
    assert run.settings.init_from == str(tmp_path / "work" / "starts" / "masked")


def test_starts_of_starts_and_their_teachers_are_of_the_same_seed(data, tmp_path):
    first = arm_runs.Arm(store="photos", verb="pretrain", recipe="mtm-small-cpu")
    plain = arm_runs.Arm(
        store="few",
        verb="pretrain",
        recipe="further-small-cpu",
        start="first",
        by_seed=True,
        settings={"further.weight": 0.0},
    )
    taught = dataclasses.replace(plain, teacher="plain", settings={"further.weight": 1.0})
    probed = arm_runs.Arm(
        store="photos", verb="pretrain", recipe="sit-small-cpu", judged_by="linear_top1"
    )
    one = study(
        stores={
            "photos": {"tokenizer": "fitted"},
            "few": {"of": "photos", "classes": list(CLASSES[:2])},
        },
        rates=(),
        seeds=2,
        reference="tuned",
        starts={"first": first, "plain": plain, "taught": taught},
        arms={"tuned": arm_runs.Arm(store="few", start="taught"), "probed": probed},
    )
    runs = go_on(one, tmp_path, data)
    assert len(runs) == 4
    assert 0 <= runs["probed, seed 1"]["linear_top1"] <= 1
    starts = tmp_path / "work" / "starts"
    names = {"first", "plain-0", "plain-1", "taught-0", "taught-1"}
    assert {path.name for path in starts.iterdir() if path.is_dir()} == names
    config = arm_runs.Run.open(starts / "taught-1").settings
    assert config.run.seed == 1
    assert config.init_from == str(starts / "first")
    assert config.further.teacher == str(starts / "plain-1")
    tuned = arm_runs.Run.open(tmp_path / "work" / "runs" / "study" / "tuned-seed-1")
    assert tuned.settings.init_from == str(starts / "taught-1")
    assert arm_runs.seit.open(tmp_path / "work" / "stores" / "few").classes == ("cube", "sphere")


def test_every_fold_is_val_once(data, tmp_path):
    one = study(
        folds={"even": "*[02468].jpg", "odd": "*[13579].jpg"},
        rates=(),
        arms={"scratch": arm_runs.Arm(store="photos", start="first")},
        starts={"first": arm_runs.Arm(store="photos")},
    )
    runs = go_on(one, tmp_path, data)
    assert list(runs) == ["scratch, fold even, seed 0", "scratch, fold odd, seed 0"]
    split = {}
    for fold in ("even", "odd"):
        with (tmp_path / "work" / f"photos-fold{fold}.csv").open() as file:
            split[fold] = {row["path"]: row["split"] for row in csv.DictReader(file)}
    assert len(split["even"]) == 60
    assert all(
        {place, split["odd"][key]} == {"train", "val"} for key, place in split["even"].items()
    )
    starts = tmp_path / "work" / "starts"
    assert {path.name for path in starts.iterdir() if path.is_dir()} == {"firsteven", "firstodd"}
    store = arm_runs.seit.open(tmp_path / "work" / "stores" / "photosodd")
    assert all(int(Path(key).stem) % 2 for key in store["val"].keys)
