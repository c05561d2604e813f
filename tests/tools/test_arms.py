"""The table of a study of arms."""

import itertools
import sys
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
import yaml

sys.path.insert(0, str(Path(__file__).parents[2] / "tools" / "study"))
import arm_runs
import arms

STUDIES = Path(arms.__file__).parent


@pytest.fixture
def study():
    return arm_runs.Study(
        corpus="photos",
        stores={"patch": {}},
        recipe="small-cpu",
        settings={},
        rates=(0.001, 0.002),
        search={"schedule.epochs": 1},
        dev=0.1,
        seeds=3,
        reference="pixels",
        arms={
            "pixels": arm_runs.Arm(store="patch", pixels=True),
            "tokens": arm_runs.Arm(store="patch"),
            "later": arm_runs.Arm(store="patch"),
        },
    )


@pytest.fixture
def results(tmp_path):
    found = arm_runs.Results(tmp_path / "photos.json")
    tops = {"pixels": (0.60, 0.62, 0.64), "tokens": (0.65, 0.66, 0.70)}
    for arm, values in tops.items():
        for rate, top1 in ((0.001, 0.4), (0.002, 0.5)):
            found.add(f"{arm}, rate {rate:g}", {"top1": top1})
        for seed, top1 in enumerate(values):
            size = 10_500 if arm == "pixels" else 652.4
            figures = {"top1": top1, "rate": 0.002, "flops": 2.5e7, "bytes_per_sample": size}
            found.add(f"{arm}, seed {seed}", figures)
    return found


def test_differences_are_paired_by_seed(study, results):
    rows = arms.table(study, results).splitlines()[2:]
    assert rows[0] == "| pixels | 10,500 | 0.025 | 0.002 | 62.0 ± 1.2 | 3 | reference |  |  |"
    # Differences of 5, 4 and 6 points: 5.0, standard error 1/√3; p is 1 − t/√(t² + 2), t² = 75.
    assert (
        rows[1] == "| tokens | 652 | 0.025 | 0.002 | 67.0 ± 1.5 | 3 | +5.0 ± 0.6 | 0.013 | shown |"
    )
    assert len(rows) == 2  # the third arm has no runs yet


def test_missing_runs_come_rates_first_then_seed_by_seed(study):
    names = [job.name for job in study.jobs(list(study.arms))]
    assert names[:3] == ["pixels, rate 0.001", "pixels, rate 0.002", "tokens, rate 0.001"]
    assert names[6:9] == ["pixels, seed 0", "tokens, seed 0", "later, seed 0"]
    some = [job.name for job in study.jobs(["tokens"])]
    assert some[:3] == ["tokens, rate 0.001", "tokens, rate 0.002", "tokens, seed 0"]


def test_folds_have_rates_of_their_own_and_are_the_units_of_a_difference(study, tmp_path):
    study = replace(study, folds={"1": "1-*", "2": "2-*", "3": "3-*"}, seeds=2)
    names = [job.name for job in study.jobs(["pixels", "tokens"])]
    assert names[:2] == ["pixels, fold 1, rate 0.001", "pixels, fold 1, rate 0.002"]
    assert names[12:14] == ["pixels, fold 1, seed 0", "tokens, fold 1, seed 0"]
    results = arm_runs.Results(tmp_path / "folds.json")
    for arm, fold, seed in itertools.product(["pixels", "tokens"], (1, 2, 3), (0, 1)):
        rate = 0.001 if fold == 1 else 0.002
        top1 = 0.5 + 0.1 * fold + (0.01 * fold + 0.005 * (2 * seed - 1)) * (arm == "tokens")
        figures = {"top1": top1, "rate": rate, "flops": None, "bytes_per_sample": 700}
        results.add(f"{arm}, fold {fold}, seed {seed}", figures)
    results.add("tokens, fold 1, rate 0.001", {"top1": 0.6})
    results.add("tokens, fold 1, rate 0.002", {"top1": 0.5})
    assert results.best_rate(study, "tokens", "1") == 0.001
    assert results.best_rate(study, "tokens", "2") is None
    # Seeds are averaged within a fold; folds differ by 1, 2 and 3 points: 2.0, standard error 1/√3.
    row = arms.table(study, results).splitlines()[3]
    assert row.startswith("| tokens | 700 | 0.001, 0.002 | 72.0 ± ")
    assert row.endswith("| 3 folds × 2 | +2.0 ± 0.6 | 0.074 | shown |")


def test_a_study_is_published_between_its_comments(study, results, tmp_path, monkeypatch):
    page = tmp_path / "evidence.md"
    page.write_text("# Page\n<!-- photos -->\nold\n<!-- /photos -->\nend\n")
    monkeypatch.setattr(arms, "PAGE", page)
    monkeypatch.setattr(arms, "DOCS", tmp_path)
    arms.publish(study, results)
    text = page.read_text()
    assert text.startswith("# Page\n<!-- photos -->\n\n| arm |")
    assert text.endswith("|\n\n<!-- /photos -->\nend\n")
    assert "old" not in text
    assert "tokens" in (tmp_path / "photos.svg").read_text()
    page.write_text("# Page\n")
    with pytest.raises(SystemExit, match="no comments"):
        arms.publish(study, results)


def test_memories_are_lines_over_their_bytes(study, tmp_path):
    arm = arm_runs.Arm(store="patch", verb="continual")
    study = replace(
        study,
        reference="no memory",
        arms={
            "no memory": arm,
            "small": replace(arm, line="tokens"),
            "large": replace(arm, line="tokens", against="small"),
        },
    )
    results = arm_runs.Results(tmp_path / "memory.json")
    shares = {"no memory": (0.2, 0), "small": (0.3, 20_000), "large": (0.35, 50_000)}
    for (name, (share, size)), seed in itertools.product(shares.items(), range(3)):
        run = {"last_accuracy": share, "rate": None, "flops": None, "bytes_per_sample": 72}
        results.add(f"{name}, seed {seed}", run | ({"memory_bytes": size} if size else {}))
    rows = arms.table(study, results).splitlines()
    assert "| last accuracy, % |" in rows[0]
    assert rows[2].startswith("| no memory | 72 |")
    assert rows[4].startswith("| large | 50,000 |")
    assert "| +5.0 ± 0.0 | < 0.001 |" in rows[4]
    drawn = arms.chart(study, results)
    assert "bytes of memory" in drawn
    assert "large" in drawn
    assert "no memory" not in drawn


SHIPPED = sorted(path.stem for path in STUDIES.glob("*.yaml"))


@pytest.mark.parametrize("name", SHIPPED)
def test_the_shipped_studies_are_read(name):
    study = msgspec.convert(
        yaml.safe_load((STUDIES / f"{name}.yaml").read_text()), arm_runs.Study, strict=False
    )
    assert study.reference in study.arms
    assert {arm.store for arm in study.arms.values()} <= set(study.stores)
    assert {arm.against for arm in study.arms.values()} <= {"", *study.arms}
    trained = [*study.arms.values(), *study.starts.values()]
    assert {arm.start for arm in trained} <= {"", *study.starts}
    assert {arm.teacher for arm in trained} <= {"", *study.starts}


def test_arms_are_judged_by_shares_that_they_name():
    settings = yaml.safe_load((STUDIES / "sit.yaml").read_text())
    pretrained = {"store": "cifar", "verb": "pretrain"}
    settings["starts"] = {"first": pretrained}
    assert msgspec.convert(settings, arm_runs.Study, strict=False)
    for judged_by, words in (("", "no figure"), ("loss", "loss")):
        settings["arms"]["more"] = {**pretrained, "judged_by": judged_by}
        expected = f"'more' .pretrain. is judged by {words}"
        with pytest.raises(msgspec.ValidationError, match=expected):
            msgspec.convert(settings, arm_runs.Study, strict=False)


def test_copies_are_trained_by_the_strong_recipe():
    text = (STUDIES / "tokens_pixels.yaml").read_text()
    study = msgspec.convert(yaml.safe_load(text), arm_runs.Study, strict=False)
    assert study.arms["small JPEG"].settings == study.arms["strong pixels"].settings
