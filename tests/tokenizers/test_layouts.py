"""Layouts of folders, and what Hugging Face writes: imagefolder, Parquet with the files in it."""

import json
from pathlib import Path

import fsspec
import pyarrow as pa
import pytest
from pyarrow import parquet
from support.files import plant

from seit.errors import UnreadableError, UsageError
from seit.ingest.sources import Corpus, list_corpus, read_bytes


def labels(corpus: Corpus) -> dict[str, str | None]:
    return {
        entry.key: corpus.classes[entry.label] if entry.label >= 0 else None
        for entry in corpus.instances
    }


def splits(corpus: Corpus) -> dict[str, str]:
    return {entry.key: entry.split for entry in corpus.instances}


def refused(source: Path | str, **options: object) -> str:
    with pytest.raises(UsageError) as caught:
        list_corpus(source, **options)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    return str(caught.value)


# ------------------------------------------------------------------------------------- folders

GOOD = ["train/cat/1.jpg", "train/dog/2.jpg", "val/cat/3.jpg", "val/dog/4.jpg"]


@pytest.mark.parametrize(
    "beside", ["annotations/a.xml", "labels/train/1.txt", "notes/readme.md", "empty/.keep"]
)
def test_a_folder_without_pictures_beside_splits_is_left_out(tmp_path: Path, beside: str) -> None:
    corpus = list_corpus(plant(tmp_path, [*GOOD, beside]))
    assert corpus.classes == ("cat", "dog")
    assert set(corpus.split_names) == {"train", "val"}
    (warning,) = corpus.warnings
    name = beside.partition("/")[0]
    assert warning.startswith("left out, as they hold no images or audio next to the split folders")
    assert warning.endswith(f": {name}")


def test_folders_of_servers_are_no_folders(tmp_path: Path) -> None:
    odd = ["@eaDir/x.jpg", "#recycle/y.jpg", "lost+found/z.jpg", ".thumbnails/t.jpg", "Thumbs.db"]
    corpus = list_corpus(plant(tmp_path, [*GOOD, *odd, "train/cat/@eaDir/1.jpg/thumb.jpg"]))
    assert set(labels(corpus)) == set(GOOD)
    assert corpus.warnings == ()


def test_what_cannot_be_known_is_asked(tmp_path: Path) -> None:
    extra = plant(tmp_path / "extra", [*GOOD, "more/5.jpg"])
    assert "next to them more with further files" in refused(extra)
    seg = plant(tmp_path / "seg", ["seg_train/a/1.jpg", "seg_test/a/2.jpg", "seg_pred/3.jpg"])
    assert "seg_train, which look like splits" in refused(seg)
    coco = plant(tmp_path / "coco", ["train2017/1.jpg", "val2017/2.jpg", "annotations/x.json"])
    assert "name them train, val and test, or list the files in a table" in refused(coco)
    deep = plant(tmp_path / "deep", [f"set/{name}" for name in GOOD] + ["labels/1.txt"])
    assert f"give {deep}/set" in refused(deep)
    parts = plant(tmp_path / "p", [f"{c}/{s}/1.jpg" for c in "ab" for s in ("train", "test")])
    assert f"test, train in a, b; give {parts}/a, or list the files in a table" in refused(parts)


def test_classes_that_are_called_like_splits(tmp_path: Path) -> None:
    corpus = list_corpus(plant(tmp_path, ["train/1.jpg", "bus/2.jpg", "car/3.jpg"]), val_fraction=0)
    assert corpus.classes == ("bus", "car", "train")
    assert "train is read as a class, because bus, car lies next to it" in corpus.warnings[0]
    tubes = plant(tmp_path / "t", [f"{c}/1.jpg" for c in ("test_tube", "bullet_train", "x", "y")])
    assert list_corpus(tubes).classes == ("bullet_train", "test_tube", "x", "y")


def test_yolo_folders(tmp_path: Path) -> None:
    files = [f"{split}/{name}" for split in ("train", "valid", "test")
             for name in ("images/1.jpg", "labels/1.txt")]  # fmt: skip
    corpus = list_corpus(plant(tmp_path, [*files, "data.yaml"]))
    assert corpus.classes == ("images",)
    assert set(corpus.split_names) == {"train", "val", "test"}
    text = "\n".join(corpus.warnings)
    assert "next to the class folders: test/labels, train/labels, valid/labels" in text
    assert "images is read as the only class" in text
    assert "not from annotations" in text
    other = plant(tmp_path / "o", ["images/train/1.jpg", "images/val/2.jpg", "labels/train/1.txt"])
    assert f"give {other}/images" in refused(other)
    deep = list_corpus(plant(tmp_path / "d", ["photos/cat/1.jpg", "photos/dog/2.jpg"]))
    assert "photos is read as the only class, though it holds the folders cat, dog" in str(
        deep.warnings
    )


# -------------------------------------------------------------------- metadata inside of folders


def test_metadata_of_imagefolder(tmp_path: Path) -> None:
    plant(
        tmp_path,
        {
            **dict.fromkeys(["train/images/1.jpg", "train/images/2.jpg", "val/images/3.jpg"], "x"),
            "train/metadata.csv": (
                "file_name,label,caption\nimages/1.jpg,cat,one\nimages/2.jpg,dog,two\n"
            ),
            "val/metadata.jsonl": (
                '{"file_name": "images/3.jpg", "label": "cat", "caption": null}\n'
            ),
        },
    )
    corpus = list_corpus(tmp_path)
    assert labels(corpus) == {
        "train/images/1.jpg": "cat",
        "train/images/2.jpg": "dog",
        "val/images/3.jpg": "cat",
    }
    assert splits(corpus)["val/images/3.jpg"] == "val"
    assert dict(corpus.by_split()["val"][0].metadata) == {"caption": None}
    assert not any("metadata" in line for line in corpus.warnings)

    memory = fsspec.filesystem("memory")
    for path in tmp_path.rglob("*.*"):
        memory.pipe(f"/hf-folder/{path.relative_to(tmp_path)}", path.read_bytes())
    assert list_corpus("memory://hf-folder").fingerprint == corpus.fingerprint


def test_metadata_that_does_not_fit(tmp_path: Path) -> None:
    files = dict.fromkeys(["cat/1.jpg", "cat/2.jpg"], "x")
    plant(tmp_path, {**files, "metadata.csv": "file_name,label\ncat/1.jpg,0\ngone.jpg,1\n"})
    corpus = list_corpus(tmp_path, val_fraction=0)
    assert labels(corpus) == {"cat/1.jpg": "0", "cat/2.jpg": None}
    text = "\n".join(corpus.warnings)
    assert "metadata names 1 file of 2 that is not there: gone.jpg" in text
    assert "metadata does not name 1 file: cat/2.jpg" in text
    plant(tmp_path, {"metadata.csv": "file_name,label\n../1.jpg,0\n"})
    assert "leaves the corpus" in refused(tmp_path)
    plant(tmp_path, {"metadata.csv": "file_name,label\ncat/1.jpg,0\n./cat/1.jpg,0\n"})
    assert "is in" in refused(tmp_path)
    plant(tmp_path, {"metadata.csv": "file_name,caption\ncat/1.jpg,hello\n"})
    assert set(labels(list_corpus(tmp_path)).values()) == {"cat"}  # captions alone are no labels
    plant(tmp_path, {"metadata.csv": "file_name,split\ncat/1.jpg,test\ncat/2.jpg,valid\n"})
    assert splits(list_corpus(tmp_path)) == {"cat/1.jpg": "test", "cat/2.jpg": "val"}
    plant(tmp_path, {"metadata.csv": "name,value\nx,1\n"})
    assert "metadata.csv" in labels(list_corpus(tmp_path))  # a file like any other


def test_tables_of_file_names(tmp_path: Path) -> None:
    plant(tmp_path, {"1.jpg": "x", "m.csv": "file_name,label\n1.jpg,cat\n"})
    assert labels(list_corpus(tmp_path / "m.csv")) == {"1.jpg": "cat"}
    plant(tmp_path, {"m.jsonl": '{"path": "1.jpg", "class": 3}\n\n{"path": "2.jpg", "x": [1]}\n'})
    corpus = list_corpus(tmp_path / "m.jsonl", val_fraction=0)
    assert labels(corpus) == {"1.jpg": "3", "2.jpg": None}
    assert {entry.key: dict(entry.metadata)["x"] for entry in corpus.instances} == {
        "1.jpg": None,
        "2.jpg": [1],
    }
    for text in ("[1]\n", "{\n", "", '{"path": ' + "[" * 100_000, '{"path": NaN}'):
        plant(tmp_path, {"bad.jsonl": text})
        assert "bad.jsonl" in refused(tmp_path / "bad.jsonl")
    plant(tmp_path, {"m.csv": "path,target\n1.jpg,cat\n"})
    (warning,) = list_corpus(tmp_path / "m.csv", val_fraction=0).warnings
    assert warning.endswith(
        "labels are looked for in the columns label, class, category and labels; the table has "
        "path, target"
    )


# -------------------------------------------------------------------- Parquet with the files in it


def hugging_face(path: Path, columns: dict[str, list[object]], names: list[str] | None) -> Path:
    """Write a table as Hugging Face's datasets does; ``names`` are those of the classes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table(columns)
    if names is not None:
        features = {"image": {"_type": "Image"}, "label": {"names": names, "_type": "ClassLabel"}}
        text = json.dumps({"info": {"features": features}})
        table = table.replace_schema_metadata({"huggingface": text})
    parquet.write_table(table, path, row_group_size=20)
    return path


def pictures(numbers: range, *, paths: bool = True) -> list[object]:
    return [
        {"bytes": b"picture %d" % n * (1 + n % 3), "path": f"{n}.jpg" if paths else None}
        for n in numbers
    ]


def test_parquet_of_pictures(tmp_path: Path) -> None:
    columns = {"image": pictures(range(70)), "label": [n % 3 - 1 for n in range(70)]}
    hugging_face(tmp_path / "data/train-00000-of-00001.parquet", columns, ["dog", "cat"])
    columns = {"image": pictures(range(3)), "label": [1, 1, 0], "caption": ["a", "b", None]}
    hugging_face(tmp_path / "data/validation-00000-of-00001.parquet", columns, ["dog", "cat"])
    plant(tmp_path, {"README.md": "x", "dataset_infos.json": "{}"})
    corpus = list_corpus(tmp_path)
    assert (corpus.kind, corpus.classes) == ("parquet", ("dog", "cat"))
    assert corpus.split_names == ("train", "val")
    assert [entry.key for entry in corpus.instances][:2] == ["train/0.jpg", "train/1.jpg"]
    assert labels(corpus)["train/1.jpg"] == "dog"
    assert labels(corpus)["train/0.jpg"] is None
    assert labels(corpus)["val/2.jpg"] == "dog"
    assert dict(corpus.by_split()["val"][0].metadata) == {"caption": "a"}
    expected = [b"picture %d" % n * (1 + n % 3) for n in range(70)]
    train = corpus.by_split()["train"]
    assert [read_bytes(entry) for entry in train] == expected
    assert [read_bytes(train[n]) for n in (69, 0, 45, 19, 20)] == [
        expected[n] for n in (69, 0, 45, 19, 20)
    ]
    assert corpus.warnings == ("24 of 73 instances have no label",)

    data = tmp_path / "data"
    assert list_corpus(data).fingerprint == corpus.fingerprint
    memory = fsspec.filesystem("memory")
    for path in data.iterdir():
        memory.pipe(f"/hf-parquet/{path.name}", path.read_bytes())
    remote = list_corpus("memory://hf-parquet")
    assert remote.fingerprint == corpus.fingerprint
    assert read_bytes(remote.by_split()["train"][33]) == expected[33]
    single = list_corpus(f"memory://hf-parquet/{path.name}")
    assert len(single.instances) in (3, 70)


def test_keys_of_rows_without_paths(tmp_path: Path) -> None:
    for index in range(2):
        columns = {"image": pictures(range(2), paths=index == 1), "label": ["b", "a"]}
        hugging_face(tmp_path / f"train-{index}.parquet", columns, None)
    corpus = list_corpus(tmp_path)
    assert [entry.key for entry in corpus.instances] == [f"train/{n:06d}" for n in range(4)]
    assert corpus.classes == ("a", "b")
    columns = {"image": [b"1", b"2"], "Split": ["validation", "train"], "class": [1, 1]}
    named = list_corpus(hugging_face(tmp_path / "n/photos.parquet", columns, None))
    assert splits(named) == {"photos/000000": "val", "photos/000001": "train"}
    whole = hugging_face(tmp_path / "w/photos.parquet", {"image": [b"1", b"2"]}, None)
    corpus = list_corpus(whole, val_fraction=0)
    assert [entry.key for entry in corpus.instances] == ["photos/000000", "photos/000001"]
    assert [read_bytes(entry) for entry in corpus.instances] == [b"1", b"2"]
    expected = "the only one that is declared as a ClassLabel, and labels; there are image"
    assert expected in corpus.warnings[0]


def test_parquet_that_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    pairs = [
        (
            {"image": pictures(range(2)), "label": [0, 2]},
            "row 2 has the label 2; its file declares 2",
        ),
        ({"image": pictures(range(2)), "label": [[0], [1]]}, "row 1 has [0] for a label"),
        ({"left": pictures(range(1)), "right": pictures(range(1))}, None),
        ({"audio": pictures(range(1))}, "pass an audio tokenizer"),
    ]
    for columns, message in pairs:
        hugging_face(path, columns, ["a", "b"] if message and "declares" in message else None)
        if message is not None:
            assert message in refused(path)
    hugging_face(path, {"image": pictures(range(1)), "img": pictures(range(1))}, None)
    assert "has several columns of images: image, img" in refused(path)
    for name in ("one/train.parquet", "two/train.parquet"):
        hugging_face(tmp_path / "configs" / name, {"image": pictures(range(1))}, None)
    assert "Parquet files in several folders (one, two); give one" in refused(tmp_path / "configs")
    parquet.write_table(pa.table({"path": ["a.jpg"]}), tmp_path / "configs/one/train.parquet")
    assert "has no column of images but path" in refused(tmp_path / "configs/one")
    plant(tmp_path, ["saved/train/data-00000-of-00001.arrow", "saved/train/state.json"])
    assert "as save_to_disk writes them; write Parquet" in refused(tmp_path / "saved")


def test_cells_that_cannot_be_read(tmp_path: Path) -> None:
    path = tmp_path / "train.parquet"
    hugging_face(path, {"image": [{"bytes": b"1"}, {"bytes": None}, None] * 20}, None)
    corpus = list_corpus(path)
    first, second, third = corpus.instances[:3]
    assert read_bytes(first) == b"1"
    for entry in (second, third):
        with pytest.raises(UnreadableError, match="the row holds no bytes"):
            read_bytes(entry)
    with pytest.raises(UnreadableError, match="1 bytes is more than the limit of 0"):
        read_bytes(first, max_bytes=0)
    hugging_face(path, {"image": [b"new"]}, None)
    with pytest.raises(UnreadableError, match="cannot be read"):
        read_bytes(corpus.instances[59])
    path.unlink()
    with pytest.raises(UnreadableError, match="No such file"):
        read_bytes(first)
