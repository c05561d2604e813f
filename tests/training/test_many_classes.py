"""Nothing of a run grows with the square of its classes."""

import json
import resource

import numpy as np
import pytest
from PIL import Image
from support.stores import edit_card

import seit
from seit.analysis.runs.compare import compare_runs
from seit.config import build
from seit.confusion import MATRIX_CLASSES, Confusion
from seit.errors import DamagedError, UsageError
from seit.exports.card import write_card
from seit.exports.spec import describe
from seit.ingest import TokenizeConfig, tokenize
from seit.stream import select
from seit.training import Run, TrainConfig, evaluate_run, train
from seit.training.answers import confusion_record, read_confusion
from seit.training.tables import write_evaluation

NUM_CLASSES = 21_841
MEBIBYTE = 1 << 20
CONFIG = build(
    TrainConfig,
    {
        "model": {
            "name": "vit_tiny_patch16_224",
            "stem": "2/2/0",
            "embed_dim": 8,
            "depth": 1,
            "num_heads": 1,
        },
        "data": {"batch_size": 8},
        "schedule": {"steps": 2, "warmup_steps": 0},
        "run": {"device": "cpu", "loggers": []},
    },
    origin="test",
)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("many")
    random = np.random.default_rng(0)
    for split in ("train", "val"):
        for label in range(4):
            (folder / "in" / split / f"{label:05}").mkdir(parents=True)
            for number in range(4):
                picture = Image.fromarray(random.integers(0, 256, (64, 64, 3), dtype=np.uint8))
                picture.save(folder / "in" / split / f"{label:05}" / f"{number}.png")
    tokenize(folder / "in", folder / "store", TokenizeConfig(size=64, codes=16))
    names = [f"{label:05}" for label in range(NUM_CLASSES)]
    edit_card(folder / "store", lambda body: body.update(classes=names))
    return seit.open(folder / "store")


def test_a_run_of_21841_classes_takes_less_than_a_gigabyte(store, tmp_path):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    first, second = tmp_path / "first", tmp_path / "second"
    train(CONFIG, store, out=first)
    train(CONFIG, store, out=second, init_from=first)
    run = Run.open(first)
    found = evaluate_run(first, store, device="cpu")
    assert found.confusion.total == 16
    assert read_confusion(run).pairs.tolist() == found.confusion.pairs.tolist()
    write_evaluation(tmp_path / "tables", found, store["val"].keys)
    assert not (tmp_path / "tables" / "confusion_matrix.csv").exists()
    assert len(compare_runs([first, second]).classes) == NUM_CLASSES
    spec = describe(run, store.load_tokenizer(), run.compression)
    card = write_card(spec, name="many", files={}, parameters=1, store=None)
    assert "And 20,841 more" in card
    select(store["train"], classes=store.classes, fraction=0.5)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert (peak - before) / 1024 < 1000, "MiB"
    assert "confusion" not in run.info
    files = [*first.rglob("*"), *(tmp_path / "tables").rglob("*")]
    assert sum(file.stat().st_size for file in files) < 30 * MEBIBYTE


def test_matrices_of_older_runs_are_read(store, tmp_path):
    edited = tmp_path / "run"
    train(CONFIG, store, out=edited)
    path = edited / "run.json"
    info = json.loads(path.read_text())
    info["identity"]["classes"] = names = [str(one) for one in range(200)]
    matrix = np.zeros((200, 200), int)
    matrix[3, 5], matrix[7, 7] = 2, 4
    path.write_text(json.dumps(info | {"confusion": matrix.tolist()}))
    confusion = read_confusion(Run.open(edited))
    assert (confusion.total, confusion.right, confusion.num_classes) == (6, 4, len(names))
    for broken in ([[1]], [[1, -1]] * 2, "x", [["a"] * 200] * 200, None, 5):
        path.write_text(json.dumps(info | {"confusion": broken}))
        if broken is None:
            continue
        with pytest.raises(DamagedError, match=r"is not what was written|is damaged"):
            read_confusion(Run.open(edited))


def test_confusion_is_that_of_a_matrix():
    random = np.random.default_rng(0)
    labels, predicted = random.integers(-1, 7, 90), random.integers(0, 7, 90)
    matrix = np.zeros((7, 7), int)
    np.add.at(matrix, (labels[labels >= 0], predicted[labels >= 0]), 1)
    sparse = Confusion.of_labels(labels, predicted, 7)
    for one in (sparse, Confusion.of_matrix(matrix)):
        assert one.to_matrix().tolist() == matrix.tolist()
        assert (one.total, one.right) == (matrix.sum(), np.trace(matrix))
        assert one.support.tolist() == matrix.sum(1).tolist()
        np.testing.assert_allclose(one.recalls, np.diagonal(matrix) / matrix.sum(1))
        np.testing.assert_allclose(one.precisions, np.diagonal(matrix) / matrix.sum(0))
    assert (sparse + sparse).to_matrix().tolist() == (2 * matrix).tolist()
    assert confusion_record(sparse) == {"confusion": matrix.tolist()}
    assert confusion_record(Confusion.of_labels(labels, predicted, MATRIX_CLASSES + 1)) == {}
    with pytest.raises(UsageError):
        Confusion.of_matrix([[1, 2]])
