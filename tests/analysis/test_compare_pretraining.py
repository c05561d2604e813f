"""Pre-training runs in `seit runs list` and `seit runs compare`."""

import json
import xml.etree.ElementTree as ET

import pytest
import yaml
from support.pretraining import CONFIG, changed

from seit.analysis.runs.compare import compare_runs
from seit.analysis.runs.find import list_runs
from seit.analysis.runs.measures import judged_by, measured_differently
from seit.config import flatten, to_mapping
from seit.errors import DamagedError, UsageError
from seit.pretraining import pretrain

FIGURES = {
    "loss": 3.0,
    "token_accuracy": 0.1,
    "knn_top1": 0.5,
    "linear_top1": 0.6,
    "feature_std": 0.9,
    "effective_rank": 12.0,
}
SETTINGS = to_mapping(CONFIG)


def write_run(path, *, settings=SETTINGS, seal="s" * 64, status="finished", **figures):
    """A pre-training run's folder, made by hand."""
    path.mkdir(parents=True)
    plain = json.loads(json.dumps(settings))
    (path / "config.yaml").write_text(yaml.safe_dump(plain))
    told = {**FIGURES, **figures}
    rates = {"steps": 10, "samples_per_second": 100.0, "seconds": 1.0, "parameters": 7}
    info = {
        "status": status,
        "identity": {"store": seal, "classes": ["a", "b"]},
        "warnings": [],
        **({"result": {**told, **rates}} if status == "finished" else {}),
    }
    (path / "run.json").write_text(json.dumps(info))
    known = {name: value for name, value in told.items() if value is not None}
    lines = [
        {"step": 5, "split": "train", "loss": 4.0, "lr": 0.1, "samples_per_second": 90.0},
        {"step": 10, "split": "val", **known},
    ]
    (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def write_classifier(path):
    path.mkdir(parents=True)
    (path / "config.yaml").write_text(yaml.safe_dump({"model": {"name": "vit"}}))
    info = {
        "status": "finished",
        "identity": {"store": "s" * 64, "classes": ["a", "b"]},
        "result": {"top1": 0.75, "top5": 1.0, "loss": 0.5, "steps": 10},
        "confusion": [[3, 1], [0, 0]],
    }
    (path / "run.json").write_text(json.dumps(info))
    return path


def settings_of(**groups):
    return to_mapping(changed(**groups))


# ------------------------------------------------------------------------------------- comparing


def test_pretraining_runs_are_compared_by_probes_and_loss(tmp_path):
    first = write_run(tmp_path / "first")
    second = write_run(
        tmp_path / "second",
        settings=settings_of(optim={"lr": 0.01}),
        knn_top1=0.75,
        linear_top1=0.5,
        loss=2.5,
    )
    found = compare_runs([first, second])
    assert found.settings == {"optim.lr": (0.002, 0.01)}
    assert found.classes is None
    assert "top1" not in found.results
    assert {
        name: [one.value for one in found.results[name]] for name in ("knn_top1", "loss", "steps")
    } == {"knn_top1": [0.5, 0.75], "loss": [3.0, 2.5], "steps": [10, 10]}
    assert [
        (one.figure, one.kind, one.difference, one.measured_differently) for one in found.verdicts
    ] == [
        ("knn_top1", "none", 0.25, ()),
        ("linear_top1", "none", pytest.approx(-0.1), ()),
        ("loss", "none", -0.5, ()),
    ]
    assert all(one.same_data for one in found.verdicts)


def test_what_only_one_run_can_tell_is_no_verdict(tmp_path):
    first = write_run(tmp_path / "labelled")
    second = write_run(tmp_path / "plain", seal="t" * 64, knn_top1=None, linear_top1=None)
    found = compare_runs([first, second])
    assert [one.value for one in found.results["knn_top1"]] == [0.5, None]
    (verdict,) = found.verdicts
    assert (verdict.figure, verdict.same_data) == ("loss", False)


def test_a_classifier_and_a_pretraining_run_do_not_compare(tmp_path):
    pretrained = write_run(tmp_path / "pre")
    classifier = write_classifier(tmp_path / "classifier")
    for paths in ([pretrained, classifier], [classifier, pretrained]):
        with pytest.raises(UsageError, match=r"pre-training run.* compare runs of one kind"):
            compare_runs(paths)


def test_pretraining_runs_that_cannot_be_compared(tmp_path):
    good = write_run(tmp_path / "good")
    begun = write_run(tmp_path / "begun", status="started")
    with pytest.raises(UsageError, match="resume it with `seit pretrain … --resume`"):
        compare_runs([good, begun])
    torn = write_run(tmp_path / "torn", knn_top1="half")
    with pytest.raises(DamagedError, match="restore it"):
        compare_runs([good, torn])


# -------------------------------------------------------------------------- what figures measure


@pytest.mark.parametrize(
    ("figure", "groups", "names"),
    [
        ("loss", {"optim": {"lr": 0.5}}, ()),
        ("loss", {"objective": "sit"}, ("objective",)),
        ("loss", {"objective": "further"}, ()),
        ("loss", {"sit": {"recon": "vectors"}}, ()),
        ("loss", {"model": {"stem": "1/1/0"}}, ("model.stem",)),
        ("token_accuracy", {"augment": {"crop_size": 6}}, ("augment.crop_size",)),
        ("knn_top1", {"objective": "sit", "model": {"stem": "1/1/0"}}, ()),
        ("linear_top1", {"probe": {"samples": 9, "penalty": 1.0}}, ("penalty", "samples")),
        ("effective_rank", {"objective": "sit"}, ()),
    ],
)
def test_what_a_figure_depends_on(figure, groups, names):
    first, other = flatten(SETTINGS), flatten(settings_of(**groups))
    found = measured_differently(figure, first, other)
    assert tuple(name.removeprefix("probe.") for name in found) == names
    assert measured_differently(figure, other, first) == found
    assert measured_differently(figure, other, other) == ()


def test_losses_of_other_masks_do_not_compare():
    first = flatten(SETTINGS)
    assert measured_differently("loss", first, {**first, "mtm.mask.mean": 0.9}) == (
        "mtm.mask.mean",
    )
    sit = {**first, "objective": "sit"}
    for name, matters in (("share", True), ("kind", True), ("alien_share", False)):
        name = f"sit.corruption.{name}"
        found = measured_differently("loss", sit, {**sit, name: "other"})
        assert found == ((name,) if matters else ())


def test_classifiers_are_judged_by_top1_and_measured_alike():
    assert judged_by("classify") == ("top1",)
    assert judged_by("sit") == ("knn_top1", "linear_top1", "loss")
    assert measured_differently("loss", {"augment.crop_size": 1}, {"augment.crop_size": 2}) == ()


# ---------------------------------------------------------------------------------- the commands


def test_real_runs_are_listed_and_compared(pattern_store, tmp_path, call):
    results = {
        name: pretrain(config, pattern_store, out=tmp_path / "runs" / name)
        for name, config in (("a", CONFIG), ("b", changed(objective="sit")))
    }
    runs = tmp_path / "runs"
    assert {one.name: (one.objective, one.knn_top1, one.top1) for one in list_runs(runs)} == {
        name: (objective, results[name].knn_top1, None)
        for name, objective in (("a", "mtm"), ("b", "sit"))
    }
    code, out, _ = call("runs", "compare", runs / "a", runs / "b", "--json")
    assert code == 0
    found = json.loads(out)
    assert found["settings"] == {"objective": ["mtm", "sit"]}
    for figure in ("loss", "knn_top1", "linear_top1", "effective_rank"):
        told = [one["value"] for one in found["results"][figure]]
        assert told == [getattr(one, figure) for one in results.values()]


def test_the_command_lists_probes_where_there_are_any(tmp_path, call):
    write_classifier(tmp_path / "c")
    header = call("runs", "list", tmp_path)[1].splitlines()[0]
    assert "k-NN" not in header
    write_run(tmp_path / "a")
    write_run(tmp_path / "b", status="started", linear_top1=None)
    code, out, _ = call("runs", "list", tmp_path)
    assert code == 0
    header, *rows = out.splitlines()
    assert header.split()[:8] == [
        *("run", "status", "objective", "model", "steps", "top-1", "k-NN", "linear")
    ]
    name = CONFIG.model.name
    assert [row.split()[:9] for row in rows] == [
        ["a", "finished", "mtm", name, "10", "–", "50.00%", "60.00%", "100"],
        ["b", "interrupted", "mtm", name, "10", "–", "50.00%", "–", "90"],
        ["c", "finished", "classify", "vit", "10", "75.00%", "–", "–", "–"],
    ]


def test_the_command_compares_pretraining_runs(tmp_path, call):
    first = write_run(tmp_path / "first")
    second = write_run(
        tmp_path / "second", settings=settings_of(objective="sit"), knn_top1=0.75, loss=2.5
    )
    page = tmp_path / "page.html"
    code, out, _ = call("runs", "compare", first, second, "--out", page)
    assert code == 0
    assert out.splitlines()[-1] == (
        "second against first, one run each: +25.00 points of k-NN top-1, 0.00 points of "
        "linear-probe top-1, −0.5 of loss (not the same measure: see objective)."
    )
    tree = ET.fromstring(page.read_text())
    sections = {one.findtext("h2"): one for one in tree.iter("section")}
    assert list(sections) == [
        *("Result", "All figures", "Settings that differ", "Learning curves", "Throughput")
    ]
    titles = [
        one.findtext("figcaption/strong") for one in sections["Learning curves"].findall("figure")
    ]
    assert titles == [
        *("k-NN top-1", "Linear probe's top-1", "Effective rank"),
        *("Validation loss", "Training loss"),
    ]
    code, _, err = call("runs", "compare", first, write_classifier(tmp_path / "c"))
    assert (code, len(err.strip().splitlines())) == (2, 1)


def test_a_page_of_runs_that_know_neither_labels_nor_codes(tmp_path, call):
    unknown = dict.fromkeys(("knn_top1", "linear_top1", "loss", "token_accuracy"))
    paths = [write_run(tmp_path / name, **unknown) for name in ("x", "y")]
    page = tmp_path / "page.html"
    code, out, _ = call("runs", "compare", *paths, "--out", page)
    assert (code, "against" in out) == (0, False)
    tree = ET.fromstring(page.read_text())
    assert "effective rank of x" in "".join(tree.itertext())
