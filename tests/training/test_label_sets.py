"""Several labels per sample: from a table to multi-hot batches, the loss, mAP and predictions."""

import csv
import json
from itertools import pairwise

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, precision_recall_fscore_support
from support.pretraining import CLASSES
from support.several import labels_of, write_several
from torch.nn import functional as F

import seit
from seit.analysis.runs.compare import compare_runs
from seit.augment import Augmented
from seit.errors import SeitError, UsageError
from seit.ingest.sources import list_corpus
from seit.stores import filter_store
from seit.stream import held_out, select
from seit.training import Run, average_precision, read_predictions
from seit.training.answers import Predictions
from seit.training.class_weights import class_weights
from seit.training.config import LossConfig
from seit.training.evaluate import evaluate
from seit.training.losses import classification_loss

TINY = {
    "model": {"embed_dim": 16, "depth": 2, "num_heads": 2, "stem": "2/2/0"},
    "augment": {"crop_size": 7, "cutmix_prob": 0.5, "mixup_prob": 0.3},
    "data": {"batch_size": 12},
    "run": {"device": "cpu", "loggers": [], "checkpoint_every": 2},
}


@pytest.fixture(scope="module")
def several(pattern_folder, tmp_path_factory):
    return write_several(pattern_folder, tmp_path_factory.mktemp("several"))


@pytest.fixture(scope="module")
def run_of_several(several, tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "run"
    result = seit.train(
        several, out=out, config=TINY, steps=3, **{"loss.class_weights": "balanced"}
    )
    return out, result


def test_seeds_report_the_spread_of_map(several, tmp_path, call):
    (tmp_path / "tiny.yaml").write_text(json.dumps(TINY))
    flags = ("--config", tmp_path / "tiny.yaml", "--steps", 2, "--seeds", 2)
    code, out, _ = call("train", several.folder, "--out", tmp_path / "out", *flags, "--json")
    assert code == 0
    found = json.loads(out)
    means = [one["mean_average_precision"] for one in found["seeds"].values()]
    assert found["mean_average_precision"]["mean"] == pytest.approx(np.mean(means))
    assert found["mean_average_precision"]["std"] == pytest.approx(np.std(means, ddof=1))
    summary = json.loads((tmp_path / "out" / "seeds.json").read_text())["summary"]
    assert summary["mean_average_precision"] == found["mean_average_precision"]
    assert "mAP" in (tmp_path / "out" / "report.html").read_text()
    code, out, _ = call("train", several.folder, "--out", tmp_path / "out", *flags, "--resume")
    assert (code, out.split()[:2]) == (0, ["mAP", f"{np.mean(means):.2%}"])


# -------------------------------------------------------------------------------------- corpora


@pytest.mark.parametrize(
    ("columns", "cells", "separator"),
    [
        ("path,labels", ["cat|dog", "dog", "", '["cat", "owl"]'], None),
        ("path,labels", ["cat; dog", "dog", " ", "owl;cat;owl"], ";"),
        ("path,label", ["cat dog", "dog", "", "cat owl"], " "),
    ],
)
def test_a_text_has_labels_between_separators(tmp_path, columns, cells, separator):
    table = tmp_path / "table.csv"
    with table.open("w", newline="") as file:
        csv.writer(file).writerows([columns.split(","), *zip("abcd", cells, strict=True)])
    corpus = list_corpus(table, val_fraction=0, label_separator=separator)
    found = {one.key: dict(one.metadata)["labels"] for one in corpus.instances}
    assert found == {"a": ["cat", "dog"], "b": ["dog"], "c": [], "d": ["cat", "owl"]}
    assert corpus.classes == ("cat", "dog", "owl")
    assert {one.label for one in corpus.instances} == {-1}


def test_numbers_are_classes_in_numeric_order(tmp_path):
    table = tmp_path / "table.jsonl"
    table.write_text('{"path": "a", "labels": [10, 2]}\n{"path": "b", "labels": [2]}\n')
    assert list_corpus(table, val_fraction=0).classes == ("2", "10")


def test_a_label_column_wins_and_labels_stay_metadata(tmp_path):
    table = tmp_path / "table.csv"
    table.write_text("path,label,labels\na,cat,x|y\nb,dog,y\n")
    corpus = list_corpus(table, val_fraction=0)
    assert corpus.classes == ("cat", "dog")
    assert {dict(one.metadata)["labels"] for one in corpus.instances} == {"x|y", "y"}


def test_metadata_beside_files_may_have_several_labels(tmp_path):
    for name in "ab":
        (tmp_path / f"{name}.png").write_bytes(b"png")
    table = tmp_path / "metadata.csv"
    table.write_text("file_name,labels\na.png,x|y\nb.png,y\n")
    corpus = list_corpus(tmp_path, val_fraction=0)
    assert corpus.classes == ("x", "y")
    table.write_text("file_name,labels\na.png,\"{'x': 1}\"\n")
    rows = {"labels": [{"x": 1}]}
    (tmp_path / "metadata.csv").unlink()
    (tmp_path / "metadata.jsonl").write_text(json.dumps({"file_name": "a.png", **rows}) + "\n")
    with pytest.raises(UsageError, match="for its labels; expected a list of names"):
        list_corpus(tmp_path, val_fraction=0)


# ---------------------------------------------------------------------------------------- stores


def test_a_split_has_the_labels_of_the_table(several):
    split = several["train"]
    sets = split.label_sets
    assert several.classes == ("bars", "dots", "even", "late", "rings")
    assert (split.labels == -1).all()
    for row, sample in enumerate(split):
        found = [several.classes[place] for place in np.flatnonzero(sets.rows(np.array([row]))[0])]
        assert found == sample.metadata["labels"]
    counts = np.sum([sets.rows(np.array([row]))[0] for row in range(36)], axis=0)
    np.testing.assert_array_equal(sets.counts, counts)
    assert several["val"].label_sets.known.sum() == 14
    assert (
        several["val"].label_sets.rows(np.arange(15))[~several["val"].label_sets.known] == -1
    ).all()


def test_samples_count_for_each_of_their_labels(several, tmp_path, monkeypatch, call):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("seit.stores.counts._WORTH_SECONDS", 0.0)
    expected = {
        name: tuple(
            sum(label in (sample.metadata["labels"] or ()) for sample in split)
            for label in several.classes
        )
        for name, split in several.items()
    }
    assert sum(expected["train"]) > len(several["train"])
    cache = tmp_path / "seit" / "counts"
    cache.mkdir(parents=True)
    wrong = {name: [0] * len(several.classes) for name in several}
    (cache / f"{several.card.seal}.json").write_text(json.dumps(wrong))
    found = seit.info(several, counts=True)
    assert found.class_counts == expected
    monkeypatch.setattr("seit.stores.counts._count", None)
    assert seit.info(several, counts=True).class_counts == expected, "recalled from the cache"
    code, shown, _ = call("info", several.folder.path, "--counts", "--json")
    assert code == 0
    assert json.loads(shown)["class_counts"] == {name: [*of] for name, of in expected.items()}


def test_other_stores_have_none(pattern_store):
    assert pattern_store["train"].label_sets is None


@pytest.mark.parametrize("seed", range(5))
def test_a_fraction_keeps_every_class_and_smaller_ones_are_in_larger_ones(several, seed):
    split = several["train"]
    parts = [select(split, fraction=share, seed=seed) for share in (0.02, 0.1, 0.3, 0.8, 1.0)]
    for smaller, larger in pairwise(parts):
        assert set(smaller) < set(larger)
    for rows in parts:
        assert (np.diff(rows) > 0).all()
        assert split.label_sets.rows(rows).clip(min=0).any(0).all()
    assert len(parts[0]) <= 1 + len(several.classes)


@pytest.mark.parametrize("mode", ["resident", "streaming"])
def test_batches_are_multi_hot(several, mode):
    split = several["train"]
    loader = seit.loader(split, batch_size=7, order="window", mode=mode)
    for batch in loader.epoch(0):
        assert batch.labels.dtype == torch.float32
        np.testing.assert_array_equal(batch.labels, split.label_sets.rows(batch.indices))
    loader.close()


def test_filters_and_merges_keep_the_labels_by_name(several, tmp_path):
    late = seit.stream.select(several["train"], classes=["late", "dots"])
    assert all(
        {"late", "dots"} & set(several["train"][row].metadata["labels"]) for row in late.tolist()
    )
    seit.filter(several, out=tmp_path / "part", key_pattern="*/dots/dots[123].png")
    part = seit.open(tmp_path / "part")
    assert part.classes == ("dots", "even")
    seit.filter(several, out=tmp_path / "rest", key_pattern="*/rings/rings?.png")
    seit.merge([tmp_path / "part", tmp_path / "rest"], out=tmp_path / "all")
    union = seit.open(tmp_path / "all")
    for sample, targets in zip(
        union["train"], union["train"].label_sets.rows(np.arange(len(union["train"]))), strict=True
    ):
        found = {union.classes[place] for place in np.flatnonzero(targets)}
        assert found == set(sample.metadata["labels"])


# -------------------------------------------------------------------------------------- training


def test_the_loss_is_binary_cross_entropy_of_mixed_labels():
    torch.manual_seed(0)
    logits, weights = torch.randn(6, 4), torch.tensor([1.0, 0.5, 2.0, 3.0])
    labels, partner = torch.randint(2, (2, 6, 4)).float()
    share = torch.linspace(0, 1, 6)
    batch = Augmented(torch.zeros(6), labels, partner, share)
    mixed = share[:, None] * labels + (1 - share)[:, None] * partner
    targets = 0.8 * mixed + 0.1
    p = torch.sigmoid(logits.double())
    terms = weights * targets * p.log() + (1 - targets) * (1 - p).log()
    for kind in ("ce", "bce"):
        config = LossConfig(kind=kind, label_smoothing=0.2)
        found = classification_loss(logits, batch, config, weights)
        torch.testing.assert_close(found, -terms.mean().float())


def test_balanced_weights_are_of_present_labels(several):
    sets = several["train"].label_sets
    expected = (36 - sets.counts) / sets.counts
    weights = class_weights("balanced", several["train"])
    np.testing.assert_allclose(weights, expected, rtol=1e-6)
    rows = np.arange(0, 36, 3)
    counts = sets.rows(rows).sum(0)
    weights = class_weights("balanced", several["train"], rows=rows)
    np.testing.assert_allclose(weights, (12 - counts) / counts, rtol=1e-6)


@pytest.mark.parametrize("decimals", [1, 6])
def test_average_precision_is_that_of_scikit_learn(decimals):
    random = np.random.default_rng(0)
    scores = random.random((50, 4)).round(decimals).astype(np.float32)  # with ties, or without
    targets = random.random((50, 4)) < [0.1, 0.5, 0.9, 1.0]
    for column in range(4):
        expected = average_precision_score(targets[:, column], scores[:, column])
        found = average_precision(scores[:, column], targets[:, column])
        assert found == pytest.approx(expected, abs=1e-12)
    assert np.isnan(average_precision(scores[:, 0], np.zeros(50, dtype=bool)))


def test_an_evaluation_is_that_of_scikit_learn():
    torch.manual_seed(0)
    logits, targets = torch.randn(40, 6), (torch.rand(40, 6) < 0.4).float()
    targets[7] = -1  # unlabeled
    found = evaluate(
        torch.nn.Identity(),
        [(logits[start : start + 9], targets[start : start + 9]) for start in range(0, 40, 9)],
        num_classes=6,
        device=torch.device("cpu"),
        autocast=torch.autocast("cpu", enabled=False),
    )
    known = targets[:, 0] >= 0
    scores, true = logits[known].sigmoid().numpy(), targets[known].numpy()
    assert found.samples == 39
    assert found.mean_average_precision == pytest.approx(
        average_precision_score(true, scores, average="macro")
    )
    expected = precision_recall_fscore_support(true, scores >= 0.5, zero_division=0)
    own = (found.scores.precisions, found.scores.recalls, found.scores.f1s, found.scores.support)
    for one, other in zip(own, expected, strict=True):
        np.testing.assert_allclose(one, other)
    loss = F.binary_cross_entropy_with_logits(logits[known], targets[known])
    assert found.loss == pytest.approx(loss.item())
    best = logits[known].argmax(1)
    assert found.top1 == pytest.approx(true[np.arange(39), best].mean())


def test_a_run_is_evaluated_and_reported_by_class(several, run_of_several, tmp_path, call):
    out, trained = run_of_several
    found = seit.evaluate(out, store=several, out=tmp_path / "tables")
    assert found.mean_average_precision == pytest.approx(trained.mean_average_precision)
    assert Run.open(out).has_label_sets
    with (tmp_path / "tables" / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    true = np.array([[name in json.loads(row["true"]) for name in several.classes] for row in rows])
    scores = np.array([[float(row[name]) for name in several.classes] for row in rows])
    expected = average_precision_score(true, scores, average=None)
    by_class = found.record()["by_class"]
    own = [by_class[name]["average_precision"] for name in several.classes]
    np.testing.assert_allclose(own, expected, atol=1e-6)
    report = (out / "report.html").read_text()
    assert "mAP" in report
    assert "Most often confused" not in report
    code, shown, _ = call("eval", out, several.folder.path, "--tta")
    assert (code, "mAP" in shown) == (0, True)


def test_two_runs_are_paired_by_their_hits_and_have_no_confused_recalls(
    several, run_of_several, tmp_path
):
    first, _ = run_of_several
    seit.train(several, out=tmp_path / "run", config=TINY, steps=9, **{"run.seed": 1})
    found = compare_runs([first, tmp_path / "run"])
    assert found.classes is None
    (verdict,) = found.verdicts
    a, b = (read_predictions(Run.open(path)).right for path in (first, tmp_path / "run"))
    assert verdict.kind == "mcnemar"
    assert (verdict.only_first, verdict.only_this) == (int((a & ~b).sum()), int((b & ~a).sum()))


@pytest.fixture(scope="module")
def renamed(pattern_folder, tmp_path_factory):
    """Val has one spelling of two classes, a class that the run lacks, and samples of it alone."""
    folder = tmp_path_factory.mktemp("renamed")
    lines = []
    for path in sorted((pattern_folder / "pictures" / "val").glob("*/*.png")):
        labels = labels_of(path)
        number = int(path.stem.removeprefix(path.parent.name))
        if number == 0:
            labels = ["owl"]
        elif number == 1:
            labels = []
        elif number == 2:
            labels = [*labels, "owl"]
        elif number == 3:
            labels = [labels[0].title()]
        elif path.parent.name == "dots":
            labels = ["dots", "Dots"]
        lines.append({"path": str(path), "split": "val", "labels": labels})
    table = folder / "table.jsonl"
    table.write_text("".join(json.dumps(line) + "\n" for line in lines))
    tokenizer = pattern_folder / "store" / "tokenizer.safetensors"
    seit.tokenize(table, out=folder / "store", tokenizer=str(tokenizer))
    return seit.open(folder / "store")


def test_labels_of_unknown_classes_are_left_out(renamed, run_of_several, tmp_path, call):
    out, _ = run_of_several
    path = renamed.folder.path
    with pytest.raises(UsageError, match=r"holds 6 samples of 1 class .*: 'owl'; pass --unk"):
        seit.evaluate(out, store=renamed, spelling="loose")
    found = seit.evaluate(
        out, store=renamed, unknown_classes="skip", spelling="loose", out=tmp_path / "tables"
    )
    assert found.unknown_classes == {"owl": 6}
    assert (found.unknown_samples, found.samples) == (3, 12), "three samples are owls alone"
    run = Run.open(out)
    assert found.scores.targets.shape == (12, len(run.classes))
    with (tmp_path / "tables" / "predictions.csv").open() as file:
        true = {row["key"]: json.loads(row["true"]) for row in csv.DictReader(file)}
    expected = {
        sample.key: sorted({name.lower() for name in sample.metadata["labels"]} - {"owl"})
        for sample in renamed["val"]
        if sample.metadata["labels"] != ["owl"]
    }
    assert {key: sorted(names) for key, names in true.items()} == expected
    code, _, errors = call("eval", out, path, "--unknown-classes", "skip", "--spelling", "loose")
    assert code == 0
    assert "not know are left out: 'owl'; 3 samples without another label are skipped" in errors


def test_a_split_of_unknown_classes_alone_is_refused(renamed, run_of_several, tmp_path):
    rows = [row for row, one in enumerate(renamed["val"]) if one.metadata["labels"] == ["owl"]]
    filter_store(renamed, tmp_path / "owls", rows={"val": np.array(rows)})
    with pytest.raises(UsageError, match="holds no labeled samples to evaluate, but those of"):
        seit.evaluate(run_of_several[0], store=tmp_path / "owls", unknown_classes="skip")


def test_a_prediction_has_the_labels_from_a_threshold_on(pattern_folder, run_of_several, call):
    out, _ = run_of_several
    files = sorted((pattern_folder / "pictures" / "val" / "dots").iterdir())[:2]
    for threshold, expected in ((0.0, 5), (1.0, 0)):
        found = seit.predict(out, files=files, threshold=threshold)
        assert {len(one.classes) for one in found.predictions} == {expected}
    code, shown, _ = call("predict", out, files[0], "--threshold", 1.0)
    assert (code, "no label" in shown) == (0, True)


def test_other_stores_are_refused_in_plain_words(run_of_several, pattern_store, tiny_run, several):
    with pytest.raises(UsageError, match=r"has one label per sample, and the run .* learned sev"):
        seit.evaluate(run_of_several[0], store=pattern_store)
    with pytest.raises(UsageError, match=r"has several labels per sample, and the run .* one;"):
        seit.evaluate(tiny_run, store=several)


def test_one_label_has_no_threshold(pattern_folder, tiny_run):
    file = next((pattern_folder / "pictures" / "val" / "dots").iterdir())
    with pytest.raises(UsageError, match="learned one label per sample"):
        seit.predict(tiny_run, files=[file], threshold=0.5)


def test_what_needs_one_label_says_so(several, pattern_store, tiny_run, run_of_several, tmp_path):
    with pytest.raises(UsageError, match="several labels per sample, and a stream of tasks"):
        seit.continual(several, out=tmp_path / "a", method="seq-ft")
    with pytest.raises(UsageError, match="several labels per sample, and compression needs one"):
        seit.compress(run_of_several[0], store=several, out=tmp_path / "b", method="w8")
    with pytest.raises(UsageError, match="several labels per sample, and the target label needs"):
        seit.analyze(run_of_several[0], data=several.folder.path, method="ridge", target="label")
    with pytest.raises(UsageError, match="no order balances"):
        seit.train(
            several, out=tmp_path / "c", config=TINY, steps=1, **{"data.sampling": "balanced"}
        )
    with pytest.raises(UsageError, match="which no teacher serves"):
        seit.train(several, out=tmp_path / "d", config=TINY, **{"distill.teacher": str(tiny_run)})
    with pytest.raises(UsageError, match="evaluate it on a store of its kind"):
        seit.evaluate(tiny_run, store=several)


def test_a_run_resumes_bit_for_bit(several, tmp_path):
    whole = seit.train(several, out=tmp_path / "a", config=TINY, steps=4)

    def stop(done, total, figures):
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        seit.train(several, out=tmp_path / "b", config=TINY, steps=4, progress=stop)
    again = seit.train(several, out=tmp_path / "b", config=TINY, steps=4, resume=True)
    assert (again.loss, again.mean_average_precision) == (whole.loss, whole.mean_average_precision)


def test_every_label_keeps_a_training_sample(several):
    split = several["train"]
    sets = split.label_sets
    for number in range(sets.num_classes):
        own = np.flatnonzero(sets.rows(np.arange(36))[:, number])
        np.testing.assert_array_equal(sets.rows_of(number), own)
    held = held_out(split, share=0.97, seed=0)
    left = np.setdiff1d(np.arange(36), held)
    assert len(left) < 5, "of the 35 samples that the share is, few are given back"
    assert (sets.rows(left).sum(0) > 0).all()
    assert len(held_out(split, share=0.25)) == 9


def test_a_sample_of_no_class_is_judged_and_never_right():
    logits = torch.tensor([[2.0, 1.0, 0.0], [0.0, 3.0, 1.0], [1.0, 0.0, 2.0], [5.0, 0.0, 0.0]])
    labels = torch.tensor([[1.0, 1, 0], [1, 0, 0], [0, 0, 0], [-1, -1, -1]])
    found = evaluate(
        torch.nn.Identity(),
        [(logits, labels)],
        num_classes=3,
        device=torch.device("cpu"),
        autocast=torch.autocast("cpu", enabled=False),
    )
    assert (found.samples, found.top1) == (3, pytest.approx(1 / 3))
    predictions = Predictions("store", "val", found.predictions, found.labels)
    assert predictions.right.tolist() == [True, False, False]


def test_damaged_label_sets_are_an_error(several, monkeypatch):
    split = seit.open(several.folder.path)["train"]
    monkeypatch.setattr(type(split), "classes", ("bars", "dots", "even", "late"))
    assert split.label_sets is None, "names that are no classes are metadata"
    monkeypatch.setattr("seit.shards.split.has_label_sets", lambda _: True)
    split = seit.open(several.folder.path)["train"]
    with pytest.raises(SeitError, match="no classes of the card"):
        _ = split.label_sets
    assert set(CLASSES) - set(split.classes) == {"rings"}
