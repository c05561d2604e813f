"""Labels and splits of corpora: what is read, what is warned of, what is refused."""

import io
import json
import tarfile
from pathlib import Path

import pytest
from support.files import plant

from seit.errors import UsageError
from seit.ingest.sources import Corpus, list_corpus
from seit.ingest.sources.labels import (
    alike_classes,
    label_remarks,
    name_classes,
    rewritten_remarks,
)
from seit.ingest.sources.splits import hash_fraction


def table(folder: Path, rows: list[tuple[str, ...]], *, columns: str = "path,label") -> Path:
    path = folder / "table.csv"
    path.write_text("\n".join([columns, *(",".join(row) for row in rows)]) + "\n")
    return path


def labelled(folder: Path, names: list[str]) -> Corpus:
    """List a table of files with these labels."""
    rows = [(f"{number}.jpg", f'"{name}"') for number, name in enumerate(names)]
    return list_corpus(table(folder, rows), val_fraction=0)


def warned(corpus: Corpus) -> str:
    return "\n".join(corpus.warnings)


# -------------------------------------------------------------------------------------- labels


def test_a_list_is_no_label(tmp_path: Path) -> None:
    path = tmp_path / "table.jsonl"
    path.write_text('{"path": "a.jpg", "label": "red"}\n{"path": "b.jpg", "label": ["red", 1]}\n')
    with pytest.raises(UsageError, match=r"line 2 has \['red', 1\] for a label; a label is one"):
        list_corpus(path)


@pytest.mark.parametrize(
    ("names", "is_list"),
    [
        (["tench,outdoor", "church,outdoor"], True),
        (["a;b", "a;c", "b"], True),
        (["red", "blue", "red|blue"], True),
        (["tench, Tinca tinca", "goldfish, Carassius auratus", "crane", "crane, bird"], False),
        (["salt & pepper", "cats", "dogs"], False),
        (["C++", "C"], False),
    ],
)
def test_lists_of_labels_in_text_are_warned_of(names: list[str], is_list: bool) -> None:
    assert (
        "look like lists of labels" in str(label_remarks(names, [], is_folder=False))
    ) == is_list


@pytest.mark.parametrize("source", ["folder", "tar", "table"])
def test_a_separator_without_a_table_is_warned_of(tmp_path: Path, source: str) -> None:
    folder = plant(tmp_path / "src", {"cat;dog/1.jpg": b"x", "cat/2.jpg": b"x"})
    path = {"folder": folder, "tar": tmp_path / "a.tar", "table": tmp_path / "table.csv"}[source]
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        tar.add(folder, arcname="a")
    table(tmp_path, [("1.jpg", "cat;dog")])
    corpus = list_corpus(path, val_fraction=0, label_separator=";")
    assert ("--label-separator has no effect" in warned(corpus)) == (source != "table")


def test_numbers_that_lose_their_spelling(tmp_path: Path) -> None:
    corpus = labelled(tmp_path, ["007", "10", "9"])
    assert corpus.classes == ("7", "9", "10")
    assert "without leading zeros and signs: 007 as 7" in warned(corpus)
    assert "leading zeros" not in warned(labelled(tmp_path, ["0", "1.0", "2.0", "-1"]))
    assert labelled(tmp_path, ["007", "x"]).classes == ("007", "x")


def test_labels_that_are_numbers_are_matched_with_known_classes() -> None:
    def named(labels: list[str], known: list[str]) -> list[str | None]:
        return name_classes(labels, known=known)[0]

    assert name_classes(["10", "2", "lion"], known=["2", "10"])[1] == ("10", "2", "lion")
    assert name_classes(["010", "2"], known=["1"])[1] == ("2", "10")
    assert named(["01", "-1", "lion"], ["1", "lion"]) == ["1", None, "lion"]
    assert named(["1", "01"], ["01", "lion"]) == ["01", "01"], "the only one of this number"
    assert named(["1", "01", "001"], ["1", "01"]) == ["1", "01", "1"]
    assert named(["1"], ["01", "1.0"]) == ["1"], "both have this number"
    assert named(["-1", "04"], ["-1", "lion"]) == ["-1", "4"]
    assert named(["-1", "cat"], ["cat", "dog"]) == ["-1", "cat"]
    (line,) = rewritten_remarks(["007", "lion"], known=["7"])
    assert line.endswith("are matched with these: 007 as 7")
    assert rewritten_remarks(["007"], known=["007", "lion"]) == []


@pytest.mark.parametrize("column", ["label", "labels"])
@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet", "tar", "media"])
def test_truth_values_have_one_spelling(tmp_path: Path, form: str, column: str) -> None:
    source = tmp_path / f"table.{form}"
    values = [True, False]
    given = [[value] for value in values] if column == "labels" else values
    rows = [{"path": f"{n}.jpg", column: value} for n, value in enumerate(given)]
    if form == "csv":
        source = table(tmp_path, [("0.jpg", "true"), ("1.jpg", "false")], columns=f"path,{column}")
    elif form == "jsonl":
        source.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    elif form == "tar":
        with tarfile.open(source, "w") as tar:
            for number, value in enumerate(given):
                add_member(tar, f"{number}.jpg", b"x")
                add_member(tar, f"{number}.json", json.dumps({column: value}).encode())
    else:
        parquet = pytest.importorskip("pyarrow.parquet")
        pa = pytest.importorskip("pyarrow")
        columns = {name: [row[name] for row in rows] for name in rows[0]}
        if form == "media":
            columns = {"image": [b"x", b"y"], column: given}
            source = tmp_path / "table.parquet"
        parquet.write_table(pa.table(columns), source)
    assert list_corpus(source, val_fraction=0).classes == ("false", "true")


def test_stores_with_truth_values_of_python_keep_them() -> None:
    assert name_classes(["true", "maybe"], known=["False", "True"])[0] == ["True", "maybe"]
    assert name_classes(["true", "True"], known=["True", "true"])[0] == ["true", "True"]


def add_member(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))


def test_missing_values_as_words(tmp_path: Path) -> None:
    assert "a class is called nan, as programs" in warned(labelled(tmp_path, ["cat", "nan"]))
    assert "a class is called N/A" in warned(labelled(tmp_path, ["cat", "N/A"]))
    assert "is called" not in warned(list_corpus(plant(tmp_path / "f", ["none/1", "cat/2"])))
    assert "is called NaN" in warned(list_corpus(plant(tmp_path / "g", ["NaN/1", "cat/2"])))


def test_names_that_are_spelt_in_several_ways(tmp_path: Path) -> None:
    names = ["cafe\u0301", "caf\xe9", "Cat", "cat", "sea_lion", "sea lion", "7", "07", "x"]
    assert alike_classes(names) == [
        ["cafe\u0301", "caf\xe9"],
        ["Cat", "cat"],
        ["sea_lion", "sea lion"],
        ["7", "07"],
    ]
    assert alike_classes(["1", "-1", "a1", "a 1"]) == []
    text = warned(labelled(tmp_path, names))
    assert (
        r"differ by spelling alone are kept apart: 07 and 7, Cat and cat, cafe\u0301 and caf"
        in text
    )


def test_splits_whose_classes_disagree(tmp_path: Path) -> None:
    corpus = list_corpus(plant(tmp_path, ["train/cat/1", "train/emu/2", "val/Cat/3", "val/emu/4"]))
    assert corpus.classes == ("Cat", "cat", "emu")
    assert corpus.warnings == (
        "1 of 3 classes has samples in split 'val' and none in 'train' to learn from: 'Cat'; "
        "'Cat' is nearly 'cat' (case); give both one name",
    )


# ---------------------------------------------------------------------------------- hash split


def by_class(corpus: Corpus) -> dict[str, dict[str, list[str]]]:
    """Class → split → keys."""
    found: dict[str, dict[str, list[str]]] = {}
    for entry in corpus.instances:
        sides = found.setdefault(corpus.classes[entry.label], {"train": [], "val": []})
        sides[entry.split].append(entry.key)
    return found


def test_every_class_has_samples_to_learn_from_and_to_evaluate(tmp_path: Path) -> None:
    files = [
        f"c{size}-{n}/{i}.jpg" for size in (1, 2, 3, 40) for n in range(30) for i in range(size)
    ]
    corpus = list_corpus(plant(tmp_path, files))
    moved = 0
    for name, sides in by_class(corpus).items():
        keys = [key for side in sides.values() for key in side]
        by_hash = {key for key in keys if hash_fraction(key) < 0.1}
        assert sides["train"], name
        assert sides["val"] or len(keys) == 1, name
        if len(by_hash) not in (0, len(keys)):
            assert set(sides["val"]) == by_hash, name  # a split that is fine stays
        elif len(keys) > 1:
            moved += 1
            (val,) = sides["val"] if not by_hash else ("",)
            assert not val or hash_fraction(val) == min(map(hash_fraction, keys))
            (train,) = sides["train"] if by_hash else ("",)
            assert not train or hash_fraction(train) == max(map(hash_fraction, keys))
    assert moved > 30
    assert "30 of 120 classes have a single sample, which is in train" in warned(corpus)
    assert set(by_class(list_corpus(tmp_path, val_fraction=0))["c2-0"]["val"]) == set()


def test_what_was_split_earlier_stays(tmp_path: Path) -> None:
    source = plant(tmp_path, [f"{name}/{i}.jpg" for name in "abcdef" for i in range(3)])
    first = list_corpus(source)
    kept = {entry.key: entry.split for entry in first.instances}
    plant(source, [f"{name}/new{i}.jpg" for name in "abcdef" for i in range(20)])
    again = {entry.key: entry.split for entry in list_corpus(source, kept_splits=kept).instances}
    assert {key: again[key] for key in kept} == kept
    fresh = {entry.key: entry.split for entry in list_corpus(source).instances}
    assert {key: fresh[key] for key in kept} != kept  # what would surprise

    only = dict.fromkeys(kept, "train")
    corpus = list_corpus(source, kept_splits=dict.fromkeys(fresh, "train"))
    assert corpus.split_names == ("train",)
    for path in source.glob("*/new*.jpg"):
        path.unlink()
    plant(source, ["a/new.jpg", "b/new.jpg"])
    corpus = list_corpus(source, kept_splits=only)
    assert [by_class(corpus)[name]["val"] for name in "ab"] == [["a/new.jpg"], ["b/new.jpg"]]
    assert "4 of 6 classes have no sample in val, as theirs stay in the split" in warned(corpus)
