"""The report of a continual run, drawn from invented numbers and read back."""

import json
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from hypothesis import given, strategies as st

from seit.continual_learning.ledger import Ledger
from seit.continual_learning.metrics import FORMULAS, as_lists, summarise, task_mean
from seit.continual_learning.report import write_continual_report
from seit.continual_learning.streams.tasks import class_incremental, online
from seit.errors import UsageError
from seit.report import task_matrix


def invented(T=5, *, future=True, is_online=False):
    """A result of T tasks of two classes, whose old tasks fade."""
    rng = np.random.default_rng(0)
    age = np.arange(T)[:, None] - np.arange(T)
    R = np.clip(0.92 - 0.09 * age + rng.normal(0, 0.02, (T, T)), 0, 1)
    R[age < 0] = 0.03 if future else np.nan
    labels = np.repeat(np.arange(2 * T), 20)
    stream = class_incremental(
        labels, labels[::4], num_classes=2 * T, increment=2, order=range(2 * T)
    )
    stream = online(stream, seed=0) if is_online else stream
    counts = np.full(T, 10)
    A = task_mean(R)
    curve = {"samples": [80, 160, 240, 320, 400], "accuracy": [0.9, 0.84, 0.8, 0.77, 0.74]}
    result = {
        "accuracy_matrix": as_lists(R),
        "accuracies": {
            "ensemble": A.tolist(),
            "online": (A - 0.03).tolist(),
            "offline": (A - 0.08).tolist(),
        },
        "pooled": {"ensemble": A.tolist()},
        "metrics": summarise(
            R,
            hits=np.rint(np.nan_to_num(R) * 10).astype(int),
            counts=counts,
            curve=curve["accuracy"] if is_online else None,
        ),
        "ledger": Ledger(
            exemplar_payload_bytes=72_000,
            exemplar_label_bytes=2_000,
            codebook_bytes=16_384,
            tokenizer_bytes=400_000,
            online_pet_bytes=42_270,
            offline_pet_bytes=42_270,
            head_bytes=5_160,
            optimizer_bytes=94_860,
            backbone_bytes=22_000_000,
            trainable_parameters=11_800,
        ).describe(),
        "stream": stream.describe(),
    }
    return {**result, "curve": curve} if is_online else result


def written(folder, result):
    write_continual_report(
        folder,
        title="Run lae",
        lead="LAE with adapters on five tasks.",
        result=json.loads(json.dumps(result, allow_nan=False)),
        settings={"method": "lae", "pet": {"kind": "adapter", "rank": 5}},
        environment={"torch": "2.9"},
    )
    tree = ET.fromstring((folder / "report.html").read_bytes())
    return tree, " ".join(" ".join(tree.find("body").itertext()).split())


def cells_of(tree):
    return {
        (int(one.get("y")), int(one.get("x"))): one
        for one in tree.iter("rect")
        if "cell" in (one.get("class") or "").split()
    }


@pytest.mark.parametrize("is_online", [False, True])
def test_a_report_says_what_the_result_does(tmp_path, is_online):
    result = invented(is_online=is_online)
    tree, text = written(tmp_path, result)
    R = result["accuracy_matrix"]
    cells = cells_of(tree)
    assert len(cells) == 25
    for (row, column), cell in cells.items():
        assert float(cell.get("fill-opacity")) == pytest.approx(R[row][column], abs=1e-3)
        assert cell.get("class").split()[1] == ("c0" if column <= row else "c1")
    tooltip = cells[3, 1].findtext("title")
    assert tooltip == f"after classes 7–8, on classes 3–4: {R[3][1]:.1%}"
    for value in ("last_accuracy", "average_accuracy", "forgetting"):
        assert f"{result['metrics'][value]:.1%}" in text
    for name in result["metrics"]:
        assert FORMULAS[name] in text
    assert f"{result['accuracies']['offline'][-1]:.1%} offline" in text
    assert f"{result['ledger']['total_memory_bytes']:,}" in text
    assert "180 kB" in text, "kept between tasks"
    assert result["stream"]["fingerprint"] in text
    assert "pet.rank" in text
    assert ("samples seen" in text) == is_online
    assert text.count("when learnt") == 4, "a bar a task but the last"


def test_a_report_of_a_single_task_and_of_an_unknown_future(tmp_path):
    tree, text = written(tmp_path, invented(1))
    assert "percentage points" not in text
    assert len(cells_of(tree)) == 1
    tree, text = written(tmp_path, invented(3, future=False))
    assert "tasks to come" not in text
    assert sum(float(cell.get("fill-opacity")) == 0 for cell in cells_of(tree).values()) == 3


def test_forgetting_of_many_tasks_is_a_line(tmp_path):
    tree, text = written(tmp_path, invented(40))
    assert "when learnt" not in text
    assert "forgotten" in text
    assert len(list(tree.iter("polyline"))) == 5


def test_very_many_tasks_are_thinned_and_the_last_one_is_drawn():
    R = np.tri(120) * 0.5
    chart = task_matrix(R, tasks=[f"class {i + 1}" for i in range(120)], title="t")
    tree = ET.fromstring(f"<div>{chart}</div>")
    cells = cells_of(tree)
    assert max(cells) == (59, 59), "every second of 120"
    assert cells[59, 59].findtext("title") == "after class 120, on class 120: 50.0%"
    assert "one of 2 tasks, of 120" in chart


@given(st.text(st.characters(), max_size=20))
def test_any_name_of_a_task_gives_well_formed_markup(name):
    ET.fromstring(f"<div>{task_matrix(np.eye(1), tasks=[name], title=name)}</div>")


def test_matrices_that_are_none():
    with pytest.raises(UsageError, match="expected"):
        task_matrix(np.zeros((2, 3)), tasks=["a", "b"], title="t")
    assert "no data" in task_matrix(np.zeros((0, 0)), tasks=[], title="t")
    assert "no data" in task_matrix(np.full((1, 1), np.nan), tasks=["a"], title="t")
