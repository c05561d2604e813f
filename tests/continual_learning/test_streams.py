"""Streams of tasks: what is in them, that they are what papers describe, and what is refused."""

import json

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from seit.continual_learning.streams.blurry import blurry
from seit.continual_learning.streams.domains import read_domains
from seit.continual_learning.streams.orders import MAX_ORDER_BYTES, class_order
from seit.continual_learning.streams.tasks import class_incremental, domain_incremental, online
from seit.errors import UsageError

LABELS = np.array([0, 1, 2, 3, 4, 4, 3, 2, 1, 0, -1, 0])
VAL = np.array([4, 3, 2, 1, 0, -1])


def incremental(**settings):
    settings = {"num_classes": 5, "increment": 2, "order": range(5), **settings}
    return class_incremental(LABELS, VAL, **settings)


# ------------------------------------------------------------------------------------------ orders


def test_orders_by_name():
    assert class_order("natural", 4) == (0, 1, 2, 3)
    # Of np.random.seed(1993); np.random.permutation(100), with which published lists begin.
    assert class_order("pilot", 100)[:10] == (68, 56, 78, 8, 23, 84, 90, 65, 74, 76)
    assert class_order("pilot:1993", 100) == class_order("pilot", 100)
    assert class_order("pilot:1", 100) == tuple(np.random.RandomState(1).permutation(100))


@pytest.mark.parametrize(
    "text",
    ["[2, 0, 1]", '["cat", 0, "bee"]', "2, 0, 1\n", "2 0\n1", "cat\nant\n\nbee\n", "cat\n0 1\n"],
)
def test_orders_from_files(tmp_path, text):
    (tmp_path / "order.txt").write_text(text)
    names = ("ant", "bee", "cat")
    assert class_order(str(tmp_path / "order.txt"), 3, classes=names) == (2, 0, 1)


def test_names_that_are_numerals_are_names_in_json_only(tmp_path):
    path = tmp_path / "order"
    names = ("0", "1", "10", "2")
    path.write_text('["0", "1", "2", "10"]')
    assert class_order(str(path), 4, classes=names) == (0, 1, 3, 2)
    path.write_text("0\n1\n2\n3")
    assert class_order(str(path), 4, classes=names) == (0, 1, 2, 3)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[0, 1]", "2 of 3 classes, and not 'cat'"),
        ("[0, 1, 1]", "class 1 twice"),
        ("[0, 1, 3]", "holds class 3; expected 0 to 2"),
        ("[0, 1, -1]", "holds class -1"),
        ("0 1 " + "9" * 5000, "holds class"),
        ('["ant", "bee", "dog"]', "names the class 'dog', which the corpus lacks"),
        ("[0, 1, 2.0]", "expected numbers and names"),
        ("[0, 1, true]", "expected numbers and names"),
        ("[0, [1], 2]", "expected numbers and names"),
        ("[0, 1", "not a JSON list"),
        ("[" * 100_000, "not a JSON list"),
        ("", "0 of 3 classes"),
        (b"\xff\xfe\xfd", "not UTF-8"),
        (b"0 " * MAX_ORDER_BYTES, "is larger than"),
    ],
)
def test_files_that_are_no_order(tmp_path, text, words):
    path = tmp_path / "order"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UsageError, match=words):
        class_order(str(path), 3, classes=("ant", "bee", "cat"))


@pytest.mark.parametrize("order", ["pilots", "pilot:x", "pilot:-1", "pilot:4294967296", "pilot:01"])
def test_orders_that_there_are_not(order):
    with pytest.raises(UsageError, match="expected"):
        class_order(order, 3)


# ----------------------------------------------------------------------------------------- classes


def test_classes_come_in_the_order_given():
    stream = incremental(order=(4, 2, 0, 1, 3))
    assert [task.classes for task in stream.tasks] == [(4, 2), (0, 1), (3,)]
    assert [task.rows.tolist() for task in stream.tasks] == [[2, 4, 5, 7], [0, 1, 8, 9, 11], [3, 6]]
    assert [task.val_rows.tolist() for task in stream.tasks] == [[0, 2], [3, 4], [1]]
    assert [task.name for task in stream.tasks] == ["classes 1–2", "classes 3–4", "class 5"]
    assert stream.seen_classes(1) == (4, 2, 0, 1)
    assert not stream.task_free
    assert stream.tasks[0].rows.dtype == stream.tasks[0].val_rows.dtype == np.int64


@pytest.mark.parametrize(
    ("num_classes", "settings", "sizes"),
    [
        (100, {"increment": 10}, [10] * 10),
        (100, {"increment": 10, "initial": 50}, [50] + [10] * 5),
        (100, {"increment": 30}, [30, 30, 30, 10]),
        (100, {"increment": 100}, [100]),
        (100, {"increment": 7, "initial": 100}, [100]),
        (5, {"increment": 1}, [1] * 5),
    ],
)
def test_sizes_of_tasks(num_classes, settings, sizes):
    labels = np.arange(num_classes)
    order = class_order("pilot", num_classes)
    stream = class_incremental(labels, labels, num_classes=num_classes, order=order, **settings)
    assert stream.describe()["increments"] == sizes
    assert sum((task.classes for task in stream.tasks), ()) == order
    rows = np.concatenate([task.rows for task in stream.tasks])
    assert sorted(rows.tolist()) == labels.tolist()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"increment": 0}, "increment is 0"),
        ({"increment": 6}, "increment is 6; expected 1 to 5"),
        ({"initial": 0}, "initial is 0"),
        ({"initial": 6}, "initial is 6"),
        ({"num_classes": 7, "order": range(7)}, r"2 of 7 classes have no sample in the training"),
    ],
)
def test_streams_that_cannot_be(settings, words):
    with pytest.raises(UsageError, match=words):
        incremental(**settings)


def test_a_class_that_cannot_be_tested_is_refused():
    with pytest.raises(UsageError, match="no sample in the evaluated split: 'class 4'"):
        class_incremental(LABELS, VAL[1:], num_classes=5, increment=1, order=range(5))


def test_fingerprints_tell_streams_apart():
    streams = [
        incremental(),
        incremental(increment=3),
        incremental(order=(1, 0, 2, 3, 4)),
        class_incremental(LABELS[:-1], VAL, num_classes=5, increment=2, order=range(5)),
        class_incremental(LABELS, VAL[::-1], num_classes=5, increment=2, order=range(5)),
        online(incremental(), seed=0),
        online(incremental(), seed=1),
    ]
    assert len({stream.fingerprint for stream in streams}) == len(streams)
    assert incremental().fingerprint == streams[0].fingerprint
    assert incremental().fingerprint.startswith("6f535409b0aa5fb1"), "and stays the same for ever"
    described = json.loads(json.dumps(streams[0].describe()))
    assert described["fingerprint"] == streams[0].fingerprint
    assert described["samples"] == [5, 4, 2]


# ----------------------------------------------------------------------------------------- domains

DOMAINS = [
    "day10",
    "day2",
    "day2",
    "day10",
    "day1",
    "x1",
    "day1",
    "x1",
    "day10",
    "day1",
    "lost",
    "x1",
]
VAL_DOMAINS = ["x1", "day1", "day2", "day10", "day1", "lost"]


def test_domains_follow_their_names_and_all_classes_come_in_each():
    stream = domain_incremental(LABELS, VAL, DOMAINS, VAL_DOMAINS, num_classes=5)
    assert [task.name for task in stream.tasks] == ["day1", "day2", "day10", "x1"]
    rows = [task.rows.tolist() for task in stream.tasks]
    assert rows == [[4, 6, 9], [1, 2], [0, 3, 8], [5, 7, 11]], "row 10 has no label"
    assert [task.val_rows.tolist() for task in stream.tasks] == [[1, 4], [2], [3], [0]]
    assert all(task.classes == stream.seen_classes(0) == (0, 1, 2, 3, 4) for task in stream.tasks)


def test_classes_of_earlier_domains_are_not_new():
    stream = domain_incremental(LABELS, VAL, DOMAINS, VAL_DOMAINS, num_classes=5)
    assert stream.describe()["increments"] == [5] + [0] * (len(stream.tasks) - 1)
    assert online(stream, seed=0).describe()["increments"] == stream.increments


def test_domains_that_cannot_be_learnt_or_tested():
    for own, val, words in (
        (DOMAINS, ["x1", "day1", "day2", "day1", "day1", "x1"], "'day10' has no .* evaluated"),
        (DOMAINS, ["new", *VAL_DOMAINS[1:]], "'new' has no .* training"),
        (DOMAINS[1:], VAL_DOMAINS, "11 domains for 12 samples of the training"),
    ):
        with pytest.raises(UsageError, match=words):
            domain_incremental(LABELS, VAL, own, val, num_classes=5)


KEYS = ["photo/cat/1.png", "sketch/ant, red/2.png"]


@pytest.mark.parametrize(
    "text",
    [
        'key,domain\nsketch/ant, red/2.png,"b, c"\n',
        '\ufeff"sketch/ant, red/2.png","b, c"\r\nother,z\r\nphoto/cat/1.png,a\r\n\r\n',
    ],
)
def test_domains_from_a_file(tmp_path, text):
    path = tmp_path / "domains.csv"
    if text.startswith("key"):
        text = text.replace("sketch/ant, red/2.png", '"sketch/ant, red/2.png"')
        text += "photo/cat/1.png,a\nphoto/cat/1.png,a\n"
    path.write_text(text, "utf-8")
    assert read_domains(path, KEYS) == ["a", "b, c"]


def test_domains_from_folders():
    assert read_domains("folder", KEYS) == ["photo", "sketch"]
    keys = [f"train/{key}" for key in KEYS]
    assert read_domains("folder", keys, split="train") == ["photo", "sketch"]
    with pytest.raises(UsageError, match="has no folder"):
        read_domains("folder", ["train/1.png"], split="train")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"photo/cat/1.png,a\n", r"lacks 1 of 2 keys \(the first: sketch"),
        (b"photo/cat/1.png,a\nphoto/cat/1.png,b\n", "line 2 .* a second domain"),
        (b"photo/cat/1.png\n", "line 1 .* is not key,domain"),
        (b"photo/cat/1.png,\n", "is not key,domain"),
        (b"\xff\xfe,a\n", "is not in UTF-8 .* but probably in UTF-16; convert it"),
        (b'"' + b"a" * 200_000, "cannot be read as UTF-8 CSV"),
        (None, "cannot be read as UTF-8 CSV: No such file .*; pass a file of key,domain"),
    ],
)
def test_files_that_hold_no_domains(tmp_path, data, words):
    path = tmp_path / "domains.csv"
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(UsageError, match=words):
        read_domains(path, KEYS)


# --------------------------------------------------------------------------------- online, blurry


def test_an_online_stream_is_one_pass_in_an_order_of_its_own():
    labels = np.repeat(np.arange(4), 50)
    stream = class_incremental(labels, labels, num_classes=4, increment=2, order=range(4))
    once, again, other = (online(stream, seed=seed) for seed in (3, 3, 4))
    assert once.task_free
    for task, arriving, same, others in zip(
        stream.tasks, once.tasks, again.tasks, other.tasks, strict=True
    ):
        assert arriving.rows.tolist() == same.rows.tolist() != others.rows.tolist()
        assert sorted(arriving.rows.tolist()) == task.rows.tolist()
        assert arriving.val_rows.tolist() == task.val_rows.tolist()
        # Neighbours are of one class half of the time, as in any fair shuffle.
        found = labels[arriving.rows]
        assert 30 < np.count_nonzero(found[1:] == found[:-1]) < 70
    assert once.tasks[0].rows.tolist() != (once.tasks[1].rows - 100).tolist()


def test_i_blurry_50_10():
    labels = np.repeat(np.arange(20), 50)
    stream = blurry(labels, labels, num_classes=20, num_tasks=5, seed=1)
    assert stream.kind == "blurry"
    assert stream.task_free
    rows = np.concatenate([task.rows for task in stream.tasks])
    assert sorted(rows.tolist()) == list(range(1000)), "every sample arrives once"
    own = [set(labels[task.val_rows].tolist()) for task in stream.tasks]
    assert [len(classes) for classes in own] == [4] * 5
    assert set.union(*own) == set(range(20))
    counts = np.array([np.bincount(labels[task.rows], minlength=20) for task in stream.tasks])
    disjoint = [label for label in range(20) if (counts[:, label] > 0).sum() == 1]
    assert len(disjoint) == 10
    for task, classes in enumerate(own):
        assert len(classes & set(disjoint)) == 2
        for label in classes:
            assert counts[task, label] == (50 if label in disjoint else 45)
        # Two blurry classes of each other task send five samples, over four tasks.
        minor = counts[task].sum() - counts[task, list(classes)].sum()
        assert 8 <= minor <= 12
    assert stream.tasks[0].rows.tolist() != sorted(stream.tasks[0].rows.tolist())


def test_classes_of_a_blurry_task_are_those_met_first_with_it():
    labels = np.repeat(np.arange(6), 30)
    stream = blurry(labels, labels, num_classes=6, num_tasks=3, blur_share=0.5, seed=0)
    seen = set()
    for task in stream.tasks:
        met = set(labels[task.rows].tolist())
        assert set(task.classes) == met - seen
        seen |= met
        assert set(stream.seen_classes(task.index)) == seen
    assert len(stream.seen_classes(0)) == 4, "one disjoint class, and all three blurry ones"


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_any_blurry_stream_holds_every_sample_once_and_spreads_evenly(data):
    num_classes = data.draw(st.integers(2, 12))
    num_tasks = data.draw(st.integers(2, num_classes))
    share = data.draw(st.floats(0, 1))
    blur = data.draw(st.sampled_from([0.0, 0.1, 0.3, 0.5]))
    labels = np.repeat(np.arange(num_classes), data.draw(st.integers(4, 12)))
    order = data.draw(st.permutations(range(num_classes)))
    stream = blurry(
        labels,
        np.arange(num_classes),
        num_classes=num_classes,
        num_tasks=num_tasks,
        disjoint_share=share,
        blur_share=blur,
        order=order,
        seed=data.draw(st.integers(0, 99)),
    )
    rows = np.concatenate([task.rows for task in stream.tasks])
    assert sorted(rows.tolist()) == list(range(len(labels)))
    assert sorted(stream.class_order) == list(range(num_classes))
    sizes = [len(task.val_rows) for task in stream.tasks]
    assert max(sizes) - min(sizes) <= 1
    disjoint = order[: round(share * num_classes)]
    for label in disjoint:
        assert sum(label in labels[task.rows] for task in stream.tasks) == 1


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"num_tasks": 1}, "num_tasks is 1; expected 2 to 5"),
        ({"num_tasks": 6}, "num_tasks is 6"),
        ({"disjoint_share": 1.1}, r"disjoint_share is 1\.1"),
        ({"blur_share": 1.0}, r"blur_share 1\.0"),
        ({"blur_share": float("nan")}, "blur_share nan"),
    ],
)
def test_blurry_streams_that_cannot_be(settings, words):
    settings = {"num_tasks": 2, **settings}
    with pytest.raises(UsageError, match=words):
        blurry(LABELS, VAL, num_classes=5, seed=0, **settings)
