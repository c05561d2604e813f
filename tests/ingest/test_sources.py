"""Listing corpora: class folders, manifests, tars; order, splits, labels, hostile input."""

import io
import json
import os
import shutil
import sys
import tarfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import webdataset
from hypothesis import given, settings, strategies as st
from pyarrow import parquet
from support.files import plant

from seit.errors import DamagedError, SeitError, UnreadableError, UsageError
from seit.ingest.sources import Corpus, Instance, list_corpus, read_bytes
from seit.ingest.sources.braces import expand, has_braces
from seit.ingest.sources.tar_index import TarIndex


def by_key(corpus: Corpus) -> dict[str, Instance]:
    found = {instance.key: instance for instance in corpus.instances}
    assert len(found) == len(corpus.instances)
    return found


def labels(corpus: Corpus) -> dict[str, str | None]:
    return {
        key: corpus.classes[item.label] if item.label >= 0 else None
        for key, item in by_key(corpus).items()
    }


def usage(source: Path | str, **options: Any) -> str:
    with pytest.raises(UsageError) as caught:
        list_corpus(source, **options)
    text = str(caught.value)
    assert "\n" not in text
    return text


# ------------------------------------------------------------------------------------- folders


def test_split_folders_and_synonyms(tmp_path: Path) -> None:
    plant(
        tmp_path,
        {
            "Training/dog/a.jpg": "1",
            "Training/cat/deep/er/b.png": "22",
            "valid/dog/c.jpg": "333",
            "test/emu/d.jpg": "4444",
        },
    )
    corpus = list_corpus(tmp_path)
    assert corpus.kind == "folder"
    assert corpus.classes == ("cat", "dog", "emu")
    assert corpus.split_names == ("train", "val", "test")
    assert corpus.warnings == (
        "1 of 3 classes has samples in split 'test' and none in 'train' to learn from: 'emu'",
    )
    assert labels(corpus) == {
        "Training/dog/a.jpg": "dog",
        "Training/cat/deep/er/b.png": "cat",
        "valid/dog/c.jpg": "dog",
        "test/emu/d.jpg": "emu",
    }
    found = by_key(corpus)["valid/dog/c.jpg"]
    assert (found.split, found.num_bytes, read_bytes(found)) == ("val", 3, b"333")
    assert found in corpus.by_split()["val"]
    assert list(corpus.by_split()) == ["train", "val", "test"]


def test_class_folders_are_split_by_a_hash_of_the_key_alone(tmp_path: Path) -> None:
    plant(tmp_path, {f"{c}/{i:03d}.jpg": "x" for c in ("a", "b") for i in range(200)})
    corpus = list_corpus(tmp_path, val_fraction=0.25)
    assert corpus.classes == ("a", "b")
    splits = {key: item.split for key, item in by_key(corpus).items()}
    assert 70 <= sum(split == "val" for split in splits.values()) <= 130

    plant(tmp_path, {f"c/{i}.jpg": "x" for i in range(50)})
    more = {
        key: item.split for key, item in by_key(list_corpus(tmp_path, val_fraction=0.25)).items()
    }
    assert {key: more[key] for key in splits} == splits
    larger = by_key(list_corpus(tmp_path, val_fraction=0.5))
    assert all(larger[key].split == "val" for key, split in more.items() if split == "val")
    assert list_corpus(tmp_path, val_fraction=0).split_names == ("train",)
    assert "val_fraction is 1" in usage(tmp_path, val_fraction=1)
    assert "val_fraction is nan" in usage(tmp_path, val_fraction=float("nan"))


def test_flat_folder_is_unlabelled(tmp_path: Path) -> None:
    plant(tmp_path, {f"{i}.jpg": "x" for i in range(60)})
    corpus = list_corpus(tmp_path)
    assert corpus.classes == ()
    assert {item.label for item in corpus.instances} == {-1}
    assert set(corpus.split_names) == {"train", "val"}
    (warning,) = corpus.warnings
    assert warning.startswith("none of 60 instances has a label: labels are the names of folders")


def test_a_hash_split_that_leaves_one_side_empty_says_so(tmp_path: Path) -> None:
    plant(tmp_path, {"a/1.jpg": "x"})
    (warning,) = list_corpus(tmp_path).warnings
    assert "put none of 1 instances into" in warning
    assert list_corpus(tmp_path, val_fraction=0).warnings == ()


def test_flat_split_folders(tmp_path: Path) -> None:
    plant(tmp_path, {"train/a.jpg": "x", "val/b.jpg": "x"})
    corpus = list_corpus(tmp_path)
    assert (corpus.classes, corpus.split_names) == ((), ("train", "val"))
    (warning,) = corpus.warnings
    assert "none of 2 instances has a label" in warning


def test_order_mixes_classes_and_does_not_depend_on_the_disk(tmp_path: Path) -> None:
    names = [f"{c}/{i:03d}.jpg" for c in "abcd" for i in range(50)]
    one = plant(tmp_path / "one", dict.fromkeys(names, "x"))
    two = plant(tmp_path / "two", dict.fromkeys(reversed(names), "x"))
    first, second = (list_corpus(source, val_fraction=0) for source in (one, two))
    assert [item.key for item in first.instances] == [item.key for item in second.instances]
    assert first.fingerprint == second.fingerprint
    for start in range(0, 200, 40):
        assert len({item.label for item in first.instances[start : start + 40]}) == 4


def test_fingerprint(tmp_path: Path) -> None:
    source = plant(
        tmp_path / "src", {"train/a/1.jpg": "x", "train/b/2.jpg": "x", "val/a/3.jpg": "x"}
    )
    original = list_corpus(source).fingerprint
    assert len(bytes.fromhex(original)) == 32
    os.utime(source / "train/a/1.jpg", (1, 1))
    assert list_corpus(source).fingerprint == original
    moved = source.rename(tmp_path / "elsewhere")
    assert list_corpus(moved).fingerprint == original

    changes: list[tuple[str, str]] = [
        ("train/a/1.jpg", "train/a/9.jpg"),  # a name
        ("train/a/1.jpg", "train/b/1.jpg"),  # a label
        ("train/a/1.jpg", "val/a/1.jpg"),  # a split
    ]
    seen = {original}
    for number, (old, new) in enumerate(changes):
        copy = tmp_path / str(number)
        shutil.copytree(moved, copy)
        (copy / old).rename(copy / new)
        seen.add(list_corpus(copy).fingerprint)
    (moved / "train/a/1.jpg").write_text("xy")
    seen.add(list_corpus(moved).fingerprint)
    assert len(seen) == 5


def test_hidden_and_system_files_are_ignored(tmp_path: Path) -> None:
    plant(
        tmp_path,
        {
            "a/1.jpg": "x",
            "a/.hidden.jpg": "x",
            "a/Thumbs.db": "x",
            "a/desktop.ini": "x",
            ".git/config": "x",
            "__MACOSX/a/._1.jpg": "x",
            ".DS_Store": "x",
            "a/notes.txt": "kept: the job finds out that it is no image",
        },
    )
    assert set(by_key(list_corpus(tmp_path))) == {"a/1.jpg", "a/notes.txt"}


def test_warnings_name_what_is_odd(tmp_path: Path) -> None:
    plant(tmp_path, {"a/1.jpg": "x", "b/.keep": "", "README.md": "x"})
    corpus = list_corpus(tmp_path, val_fraction=0)
    assert corpus.classes == ("a",)
    text = "\n".join(corpus.warnings)
    assert "class folder b holds no files" in text
    assert "unlabeled, as they lie next to the class folders: README.md" in text
    assert "1 of 2 instances have no label" in text

    splits = plant(tmp_path / "s", {"train/a/1.jpg": "x", "labels.csv": "x", "val/x.jpg": "x"})
    text = "\n".join(list_corpus(splits).warnings)
    assert "left out, as they lie next to the split folders: labels.csv" in text
    assert "to list by a table, give" in text
    assert "unlabeled, as they lie next to the class folders: val/x.jpg" in text


def test_folders_that_look_like_splits_but_are_not(tmp_path: Path) -> None:
    mixed = plant(tmp_path / "mixed", {"train/a/1": "x", "val/a/2": "x", "extra/3": "x"})
    text = usage(mixed)
    assert "holds the splits train, val and next to them extra" in text
    assert "list the files in a table" in text
    inner = plant(tmp_path / "outer", {"set/train/a/1": "x", "set/val/a/2": "x"})
    assert f"train, val in set; give {inner}/set" in usage(inner)


def test_empty_sources(tmp_path: Path) -> None:
    assert "has no files to list" in usage(tmp_path)
    plant(tmp_path, {".hidden/1.jpg": "x", "__MACOSX/x.jpg": "x"})
    (tmp_path / "train/b").mkdir(parents=True)
    assert "has no files to list" in usage(tmp_path)
    plant(tmp_path, {"1.jpg": "x"})
    assert "left out, as they lie next to the split folders: 1.jpg" in usage(tmp_path)


@pytest.mark.timeout(20)
def test_special_files_do_not_block(tmp_path: Path) -> None:
    plant(tmp_path, {"a/1.jpg": "x"})
    os.mkfifo(tmp_path / "a/pipe.jpg")
    corpus = list_corpus(tmp_path)
    assert set(by_key(corpus)) == {"a/1.jpg"}
    assert any("not plain files: a/pipe.jpg" in line for line in corpus.warnings)
    # A file that becomes a FIFO after the listing.
    (tmp_path / "a/1.jpg").unlink()
    os.mkfifo(tmp_path / "a/1.jpg")
    with pytest.raises(UnreadableError, match="not a plain file"):
        read_bytes(corpus.instances[0])
    assert "neither a folder nor a plain file" in usage(tmp_path / "a/pipe.jpg")


@pytest.mark.timeout(20)
def test_links_are_followed_but_loops_end(tmp_path: Path) -> None:
    outside = plant(tmp_path / "outside", {"one/1.jpg": "1", "two.jpg": "22"})
    source = plant(tmp_path / "src", {"a/0.jpg": "0"})
    (source / "b").symlink_to(outside / "one")
    (source / "a/2.jpg").symlink_to(outside / "two.jpg")
    (source / "a/loop").symlink_to(source)
    (source / "a/self.jpg").symlink_to(source / "a/self.jpg")
    (source / "a/gone.jpg").symlink_to(outside / "nowhere")
    (source / "z/30").mkdir(parents=True)
    for level in range(30):  # a lattice with 2³⁰ paths
        folder = source / f"z/{level}"
        folder.mkdir(parents=True)
        for name in ("x", "y"):
            (folder / name).symlink_to(source / f"z/{level + 1}")
    corpus = list_corpus(source, val_fraction=0)
    found = by_key(corpus)
    assert set(found) == {"a/0.jpg", "b/1.jpg", "a/2.jpg", "a/self.jpg", "a/gone.jpg"}
    assert read_bytes(found["b/1.jpg"]) == b"1"
    assert found["a/2.jpg"].num_bytes == 2
    assert any("folders listed already: a/loop" in line for line in corpus.warnings)
    for broken in ("a/self.jpg", "a/gone.jpg"):
        assert found[broken].num_bytes == -1
        with pytest.raises(UnreadableError, match="cannot be read"):
            read_bytes(found[broken])


def test_odd_names_survive(tmp_path: Path) -> None:
    names = ["tab\there.jpg", "new\nline.jpg", "ü 😀.jpg", "%41.jpg", "-rf.jpg", "a'b\"c.jpg"]
    plant(tmp_path, {f"odd\nclass/{name}": name for name in names})
    (tmp_path / "other").mkdir()
    corpus = list_corpus(tmp_path)
    assert set(by_key(corpus)) == {f"odd\nclass/{name}" for name in names}
    assert corpus.classes == ("odd\nclass",)
    for item in corpus.instances:
        assert read_bytes(item).decode() == item.key.partition("/")[2]
    assert all("\n" not in line for line in corpus.warnings)


@pytest.mark.skipif(sys.platform == "darwin", reason="its file systems refuse such names")
def test_names_that_are_not_utf8_are_escaped(tmp_path: Path) -> None:
    root = os.fsencode(tmp_path)
    Path(os.fsdecode(root + b"/\xffclass")).mkdir()
    for name, content in ((b"\xe9.jpg", b"1"), (b"50%\xff.jpg", b"2"), (b"plain.jpg", b"3")):
        Path(os.fsdecode(root + b"/\xffclass/" + name)).write_bytes(content)
    corpus = list_corpus(tmp_path)
    found = by_key(corpus)
    assert set(found) == {"%FFclass/%E9.jpg", "%FFclass/50%25%FF.jpg", "%FFclass/plain.jpg"}
    assert corpus.classes == ("%FFclass",)
    assert {read_bytes(item) for item in found.values()} == {b"1", b"2", b"3"}
    assert any("not UTF-8" in line for line in corpus.warnings)
    # A real file with the escaped name: neither can have the key.
    plant(tmp_path, {"%FFclass/%E9.jpg": "real"})
    corpus = list_corpus(tmp_path)
    assert len(corpus.instances) == 2
    assert any("%XX makes their names the same" in line for line in corpus.warnings)


def test_reading_is_bounded(tmp_path: Path) -> None:
    item = list_corpus(plant(tmp_path, {"a/1.jpg": "12345"})).instances[0]
    assert read_bytes(item, max_bytes=5) == b"12345"
    with pytest.raises(UnreadableError, match="5 bytes is more than the limit of 4"):
        read_bytes(item, max_bytes=4)
    (tmp_path / "a/1.jpg").unlink()
    with pytest.raises(UnreadableError, match="No such file"):
        read_bytes(item)


def test_wrong_sources(tmp_path: Path) -> None:
    plant(tmp_path, {"imagenette/a/1.jpg": "x", "one.jpg": "x", "notes.txt": "x"})
    assert "did you mean imagenette?" in usage(tmp_path / "imagenete")
    assert "does not exist" in usage(tmp_path / "zzz")
    assert "is missing too" in usage(tmp_path / "zzz" / "train")
    assert f"give the folder it is in: {tmp_path}" in usage(tmp_path / "one.jpg")
    assert "is not a corpus" in usage(tmp_path / "notes.txt")
    assert "holds no files" in usage("memory://nothing/here")
    assert "cannot be opened" in usage("what://host/x")
    assert "is not a manifest" in usage(tmp_path / "imagenette", root=tmp_path)
    plant(tmp_path, {"store/store.json": "{}"})
    assert "token store already" in usage(tmp_path / "store")
    assert "does not exist" in usage("a\nb")


# ----------------------------------------------------------------------------------- manifests


def manifest(tmp_path: Path, text: str | bytes, name: str = "m.csv") -> Path:
    plant(tmp_path, {"img/a.jpg": "1", "img/b.jpg": "22", "img/c.jpg": "333"})
    return plant(tmp_path, {name: text}) / name


def test_csv_manifest(tmp_path: Path) -> None:
    text = (
        "Filename,Category,split,photographer\n"
        "img/a.jpg,dog,train,Ann\n"
        '"./img/b.jpg",cat,validation,"Bob, jr"\n'
        "\n"
        "img/c.jpg,,fold-3,\n"
    )
    corpus = list_corpus(manifest(tmp_path, text))
    assert corpus.kind == "manifest"
    assert corpus.classes == ("cat", "dog")
    assert corpus.split_names == ("train", "val", "fold-3")
    assert labels(corpus) == {"img/a.jpg": "dog", "img/b.jpg": "cat", "img/c.jpg": None}
    found = by_key(corpus)
    assert found["img/b.jpg"].metadata == (("photographer", "Bob, jr"),)
    assert read_bytes(found["img/c.jpg"]) == b"333"
    assert corpus.warnings == (
        "1 of 3 instances have no label",
        "1 of 2 classes has samples in split 'val' and none in 'train' to learn from: 'cat'",
    )


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_delimiters_and_byte_order_mark(tmp_path: Path, delimiter: str, mark: bytes) -> None:
    lines = ["path,label", "img/a.jpg,0", "img/b.jpg,1"]
    text = mark + "\r\n".join(lines).replace(",", delimiter).encode()
    assert labels(list_corpus(manifest(tmp_path, text))) == {"img/a.jpg": "0", "img/b.jpg": "1"}


def test_integer_labels_sort_as_numbers(tmp_path: Path) -> None:
    corpus = list_corpus(
        manifest(tmp_path, "path,label\nimg/a.jpg,10\nimg/b.jpg,9\nimg/c.jpg,-1\n")
    )
    assert corpus.classes == ("9", "10")
    assert {key: item.label for key, item in by_key(corpus).items()} == {
        "img/a.jpg": 1,
        "img/b.jpg": 0,
        "img/c.jpg": -1,
    }
    names = list_corpus(manifest(tmp_path, "path,label\nimg/a.jpg,10\nimg/b.jpg,9\nimg/c.jpg,x\n"))
    assert names.classes == ("10", "9", "x")
    floats = list_corpus(manifest(tmp_path, "path,label\nimg/a.jpg,2.0\nimg/b.jpg,\nimg/c.jpg,1.0"))
    assert floats.classes == ("1", "2")


def test_manifest_paths(tmp_path: Path) -> None:
    source = manifest(tmp_path / "lists", f"path\na.jpg\n{tmp_path}/far.jpg\nmissing.jpg\n")
    plant(tmp_path, {"far.jpg": "far"})
    corpus = list_corpus(source, root=tmp_path / "lists/img", val_fraction=0.5)
    found = by_key(corpus)
    assert set(found) == {"a.jpg", f"{tmp_path}/far.jpg", "missing.jpg"}
    assert read_bytes(found["a.jpg"]) == b"1"
    assert read_bytes(found[f"{tmp_path}/far.jpg"]) == b"far"
    assert found["missing.jpg"].num_bytes == -1
    assert "1 of 3 files are not there: missing.jpg" in corpus.warnings[0]
    with pytest.raises(UnreadableError):
        read_bytes(found["missing.jpg"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("path,label\n", "no rows"),
        ("paht,label\nimg/a.jpg,1\n", "columns paht, label; expected one of path, file"),
        ("img/a.jpg,1\nimg/b.jpg,2\n", "expected one of path, file, filename, image"),
        ("path\nimg/a.jpg\nimg/b.jpg\n./img/a.jpg\n", "img/a.jpg is in line 2 and in line 4"),
        ("path,label\n,3\n", "line 2 has an empty path"),
        ("path\nimg/../../x.jpg\n", "line 2: img/../../x.jpg leaves the folder"),
        ("path\nimg/a.jpg,b\n", "line 2 has 2 cells; expected 1"),
        ("path,split\nimg/a.jpg,\n", r"line 2 has the split (nothing)"),
        ("path,split\nimg/a.jpg,../x\n", "line 2 has the split ../x"),
        ("path,note,note\nimg/a.jpg,1,2\n", "two columns named note"),
        (b"path\n\xff\xfe\n", "is not in UTF-8 (byte 0xFF) but probably in Latin-1 or Windows"),
        ("path,label\n1.png,Öl\n".encode("latin-1"), "`iconv -f WINDOWS-1252 -t UTF-8 "),
        ("path,label\n1.png,a\n".encode("utf-16"), "probably in UTF-16; convert it, as by `iconv"),
        (b"path\nimg/\0a.jpg\n", "NUL"),
        ('path\n"' + "x" * 200_000 + '"\n', "field larger than field limit"),
    ],
)
def test_manifest_errors(tmp_path: Path, text: str | bytes, message: str) -> None:
    assert message in usage(manifest(tmp_path, text))


def test_a_misspelt_column_gets_a_hint(tmp_path: Path) -> None:
    assert "did you mean paths?" in usage(manifest(tmp_path, "paths,label\nimg/a.jpg,1\n"))


def test_parquet_manifest(tmp_path: Path) -> None:
    table = {
        "path": ["img/a.jpg", "img/b.jpg", "img/c.jpg"],
        "label": [2.0, None, 10.0],
        "score": [0.5, float("nan"), None],
        "tags": [["x"], [], None],
    }
    source = manifest(tmp_path, "")
    source = tmp_path / "m.parquet"
    parquet.write_table(pa.table(table), source)
    corpus = list_corpus(source)
    assert corpus.classes == ("2", "10")
    assert labels(corpus) == {"img/a.jpg": "2", "img/b.jpg": None, "img/c.jpg": "10"}
    metadata = {key: dict(item.metadata) for key, item in by_key(corpus).items()}
    assert metadata["img/a.jpg"] == {"score": 0.5, "tags": ["x"]}
    assert metadata["img/b.jpg"] == {"score": None, "tags": []}
    json.dumps(metadata, allow_nan=False)

    parquet.write_table(pa.table({"image": [{"bytes": "x"}]}), source)
    assert "row 1 has a dict for a path" in usage(source)
    source.write_bytes(b"PAR1 not really")
    assert "cannot be read as Parquet" in usage(source)


def test_parquet_without_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert "pip install 'pyarrow>=17'" in usage(plant(tmp_path, {"m.parquet": "x"}) / "m.parquet")


# ---------------------------------------------------------------------------------------- tars


def write_tar(path: Path, members: list[tuple[str, bytes]], **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", **options) as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def test_tar_of_the_webdataset_library(tmp_path: Path) -> None:
    for shard in range(2):
        with webdataset.TarWriter(str(tmp_path / f"imagenet-train-{shard:04d}.tar")) as writer:
            for i in range(3):
                writer.write(
                    {
                        "__key__": f"{shard}{i:05d}",
                        "jpg": f"jpeg {shard} {i}".encode(),
                        "cls": 10 - i,
                        "json": {"caption": f"no. {i}", "size": [3, 4]},
                    }
                )
    corpus = list_corpus(tmp_path)
    assert corpus.kind == "webdataset"
    assert corpus.classes == ("8", "9", "10")
    assert corpus.split_names == ("train",)
    assert [item.key for item in corpus.instances] == [
        f"imagenet-train-{shard:04d}.tar/{shard}{i:05d}" for shard in range(2) for i in range(3)
    ]
    item = corpus.instances[4]
    assert read_bytes(item) == b"jpeg 1 1"
    assert corpus.classes[item.label] == "9"
    assert dict(item.metadata) == {"caption": "no. 1", "size": [3, 4]}
    assert item.num_bytes == 8
    assert corpus.warnings == ()
    pattern = f"{tmp_path}/imagenet-train-{{0000..0001}}.tar"
    assert list_corpus(pattern).instances == corpus.instances
    assert list_corpus(pattern).fingerprint == corpus.fingerprint


def test_labels_in_tars(tmp_path: Path) -> None:
    members = [
        ("a.png", b"A"),
        ("a.cls", b"dog\n"),
        ("b.JPG", b"B"),
        ("b.json", b'{"label": "cat", "n": NaN, "deep": [1e999, {"x": -1e999}, 2.5]}'),
        ("c.jpeg", b"C"),
        ("c.json", b'{"class": "emu"}'),
        ("d.webp", b"D"),
    ]
    corpus = list_corpus(write_tar(tmp_path / "x.tar", members), val_fraction=0)
    assert labels(corpus) == {
        "x.tar/a": "dog",
        "x.tar/b": "cat",
        "x.tar/c": "emu",
        "x.tar/d": None,
    }
    plain = {"n": None, "deep": [None, {"x": None}, 2.5]}
    assert dict(by_key(corpus)["x.tar/b"].metadata) == plain


@pytest.mark.parametrize(
    "name", ["train-0.tar", "x-train-0001.tar", "imagenet_train_1.tar", "TRAIN.tar"]
)
def test_split_from_the_name_of_a_tar(tmp_path: Path, name: str) -> None:
    source = write_tar(tmp_path / name, [(f"{i}.jpg", b"x") for i in range(40)])
    assert list_corpus(source, val_fraction=0.5).split_names == ("train",)


def test_split_from_folders_of_tars_and_from_the_hash(tmp_path: Path) -> None:
    members = [(f"{i}.jpg", b"x") for i in range(40)]
    for name in ("training/0.tar", "val/0.tar", "more-0.tar", "pretrained.tar"):
        write_tar(tmp_path / name, members)
    corpus = list_corpus(tmp_path, val_fraction=0.5)
    splits: dict[str, set[str]] = {}
    for item in corpus.instances:
        splits.setdefault(item.key.rpartition("/")[0], set()).add(item.split)
    assert splits == {
        "training/0.tar": {"train"},
        "val/0.tar": {"val"},
        "more-0.tar": {"train", "val"},
        "pretrained.tar": {"train", "val"},
    }
    assert list_corpus(tmp_path / "val/0.tar").split_names == ("val",)


def test_odd_members_of_tars(tmp_path: Path) -> None:
    deep = "[" * 100_000
    members = [
        ("dir/one.jpg", b"1"),
        ("./two.jpg", b"2"),
        ("../../etc/three.jpg", b"3"),
        ("/abs/four.jpg", b"4"),
        ("five.input.png", b"5"),
        ("six.jpg", b"6"),
        ("other.txt", b"no image"),
        ("six.jpg", b"again"),
        ("six.json", deep.encode()),
        ("seven.jpg", b"7"),
        ("seven.json", b'{"label": "\\ud800"}'),
        ("eight.jpg", b"8"),
        ("eight.cls", b"9" * (1 << 21)),
        ("noextension", b"x"),
        (".hidden", b"x"),
        ("ü\n" + "long" * 60 + ".jpg", b"9"),
    ]
    corpus = list_corpus(write_tar(tmp_path / "x.tar", members), val_fraction=0)
    contents = {key.removeprefix("x.tar/"): read_bytes(v) for key, v in by_key(corpus).items()}
    assert contents == {
        "dir/one": b"1",
        "two": b"2",
        "../../etc/three": b"3",
        "/abs/four": b"4",
        "five": b"5",
        "six": b"6",
        "seven": b"7",
        "eight": b"8",
        "ü\n" + "long" * 60: b"9",
    }
    assert corpus.classes == ()
    text = "\n".join(corpus.warnings)
    assert "1 left out, as they have no image member: x.tar/other" in text
    assert "1 left out, as their tars have members of that name already: x.tar/six.jpg" in text
    assert "3 ignored, as their labels or fields cannot be read" in text
    assert not (tmp_path / "etc").exists()


def test_names_that_webdataset_keeps_for_itself(tmp_path: Path) -> None:
    members = [
        ("a.jpg", b"1"),
        ("a.__key__", b"x"),
        ("a.__bad__", b"x"),
        ("a.__url__", b"x"),
        ("__b__.jpg", b"2"),
        *((f"c.{number}", b"x") for number in range(3000)),
        *((f"c.{number}", b"x") for number in range(3000)),
        ("c.jpg", b"3"),
    ]
    corpus = list_corpus(write_tar(tmp_path / "x.tar", members), val_fraction=0)
    assert [item.key for item in corpus.instances] == ["x.tar/a", "x.tar/__b__", "x.tar/c"]
    assert "3000 left out, as their tars have members of that name already" in corpus.warnings[0]


def test_the_label_is_found_as_the_image_is(tmp_path: Path) -> None:
    members = [
        ("f_0.05.jpg", b"0"),
        ("f_0.05.cls", b"cat"),
        ("f_1.05.jpg", b"1"),
        ("f_1.05.json", b'{"category": "dog"}'),
        ("f_1.10.jpg", b"2"),
        ("f_1.10.cls", b"cat"),
        ("g.left.jpg", b"3"),
        ("g.cls", b"dog"),
        ("h.left.jpg", b"4"),
        ("h.right.jpg", b"5"),
        ("h.cls", b"whose?"),
        ("i.jpg", b"6"),
        ("i.seg.png", b"7"),
        ("i.png", b"8"),
        ("i.cls", b"cat"),
        ("i.json", b'{"category": "pets"}'),
    ]
    corpus = list_corpus(write_tar(tmp_path / "x.tar", members), val_fraction=0)
    assert labels(corpus) == {
        "x.tar/f_0": "cat",
        "x.tar/f_1.05": "dog",
        "x.tar/f_1.10": "cat",
        "x.tar/g": "dog",
        "x.tar/i": "cat",
    }
    contents = {key: read_bytes(item) for key, item in by_key(corpus).items()}
    assert (contents["x.tar/f_1.05"], contents["x.tar/i"]) == (b"1", b"6")
    assert by_key(corpus)["x.tar/i"].metadata == (("category", "pets"),)
    assert corpus.warnings == (
        "1 left out, as several images have that name up to the first dot and share its other "
        "members; rename them: x.tar/h",
        "2 left out, as another image of the same name was taken: x.tar/i.png, x.tar/i.seg.png",
    )


def test_links_in_tars_are_what_they_lead_to(tmp_path: Path) -> None:
    """GNU tar writes the second name of a file as a link; caches of models and data as well."""
    links = [
        ("b.cls", tarfile.LNKTYPE, "./d/a.cls"),
        ("again.jpg", tarfile.LNKTYPE, "b.jpg"),
        ("s/blob.jpg", tarfile.SYMTYPE, "../store/123"),
        ("s/chain.jpg", tarfile.SYMTYPE, "blob.jpg"),
        ("s/gone.jpg", tarfile.SYMTYPE, "../../etc/passwd"),
        ("s/abs.jpg", tarfile.SYMTYPE, "/etc/passwd"),
        ("loop.jpg", tarfile.SYMTYPE, "loop.jpg"),
        ("l" * 120 + ".jpg", tarfile.LNKTYPE, "n" * 120 + ".png"),
    ]
    files = [("d/a.jpg", b"A"), ("d/a.cls", b"cat"), ("b.jpg", b"BB"), ("n" * 120 + ".png", b"N")]
    for kind in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        path = tmp_path / f"{kind}.tar"
        with tarfile.open(path, "w", format=kind) as tar:
            for name, content in files:
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
            for name, type_, target in links:
                info = tarfile.TarInfo(name)
                info.type, info.linkname = type_, target
                tar.addfile(info)
            last = tarfile.TarInfo("store/123")  # a symbolic link may come first
            last.size = 3
            tar.addfile(last, io.BytesIO(b"123"))
        corpus = list_corpus(path, val_fraction=0)
        found = {
            key.partition("/")[2]: (read_bytes(item), item.num_bytes)
            for key, item in by_key(corpus).items()
        }
        assert found == {
            "d/a": (b"A", 1),
            "b": (b"BB", 2),
            "again": (b"BB", 2),
            "n" * 120: (b"N", 1),
            "l" * 120: (b"N", 1),
            "s/blob": (b"123", 3),
            "s/chain": (b"123", 3),
        }
        assert {key.partition("/")[2]: v for key, v in labels(corpus).items() if v} == {
            "d/a": "cat",
            "b": "cat",
        }
        text = "\n".join(corpus.warnings)
        assert "3 left out, as they are links to nothing in their tars" in text


def test_thumbnails_and_side_files_in_tars(tmp_path: Path) -> None:
    members = [
        ("cats/1.jpg", b"1"),
        ("cats/._1.jpg", b"resource fork"),
        ("cats/1.xmp", b"<x/>"),
        ("cats/.picasa.ini", b""),
        ("cats/@eaDir/1.jpg/SYNOPHOTO_THUMB_XL.jpg", b"small"),
        ("__MACOSX/cats/1.jpg", b""),
        ("cats/1.thumb.jpg", b"small"),
    ]
    corpus = list_corpus(write_tar(tmp_path / "x.tar", members), val_fraction=0)
    assert {key: read_bytes(item) for key, item in by_key(corpus).items()} == {"x.tar/cats/1": b"1"}
    assert corpus.warnings == (
        "1 left out, as another image of the same name was taken: x.tar/cats/1.thumb.jpg",
        "none of 1 instances has a label: labels are looked for in .cls members and in the fields "
        "label, class, category, labels of .json members; next to the images there are 1 .xmp; "
        "names of tars and folders in them are not labels",
    )


SEVERAL = [
    ("a.jpg", b"x"),
    ("a.json", b'{"label": ["red", "blue", "red"], "n": 1}'),
    ("b.jpg", b"x"),
    ("b.json", b'{"labels": ["blue"], "category": null}'),
    ("c.jpg", b"x"),
    ("c.json", b'{"class": "green"}'),
    ("d.jpg", b"x"),
    ("d.cls", b'["red", "green"]'),
    ("e.jpg", b"x"),
    ("e.json", b'{"labels": []}'),
    ("f.jpg", b"x"),
]


def test_several_labels_in_tars(tmp_path: Path) -> None:
    corpus = list_corpus(write_tar(tmp_path / "x.tar", SEVERAL), val_fraction=0)
    assert corpus.classes == ("blue", "green", "red")
    found = {key[-1]: dict(item.metadata) for key, item in by_key(corpus).items()}
    assert {key: item["labels"] for key, item in found.items()} == {
        "a": ["blue", "red"],
        "b": ["blue"],
        "c": ["green"],
        "d": ["green", "red"],
        "e": [],
        "f": None,
    }
    assert found["a"]["n"] == 1
    assert all(item.label == -1 for item in corpus.instances)
    more = [
        ("g.jpg", b"x"),
        ("g.json", b'{"label": [["red"]]}'),
        ("h.jpg", b"x"),
        ("h.json", b'{"label": {"red": 1}}'),
    ]
    lines = "\n".join(
        list_corpus(write_tar(tmp_path / "y.tar", SEVERAL + more), val_fraction=0).warnings
    )
    assert "1 without their labels, as these are lists of lists or too many: y.tar/g" in lines
    assert "1 ignored, as their labels or fields cannot be read: y.tar/h.json" in lines


def test_labels_beside_a_label_are_metadata(tmp_path: Path) -> None:
    members = [
        ("a.jpg", b"x"),
        ("a.json", b'{"label": "red", "labels": ["x", "y"]}'),
        ("b.jpg", b"x"),
        ("b.json", b'{"labels": ["z"]}'),
        ("b.cls", b"blue"),
    ]
    corpus = list_corpus(write_tar(tmp_path / "x.tar", members), val_fraction=0)
    assert corpus.classes == ("blue", "red")
    assert sorted(item.label for item in corpus.instances) == [0, 1]


def test_several_labels_in_parquet_files_of_media(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    pa = pytest.importorskip("pyarrow")
    images = [{"bytes": b"x", "path": f"{name}.jpg"} for name in "abcd"]
    path = tmp_path / "train.parquet"
    labels = [["red", "blue"], ["blue"], [], None]
    parquet.write_table(pa.table({"image": images, "labels": labels}), path)
    corpus = list_corpus(tmp_path)
    assert corpus.classes == ("blue", "red")
    found = {key: dict(item.metadata)["labels"] for key, item in by_key(corpus).items()}
    assert found == {
        "train/a.jpg": ["blue", "red"],
        "train/b.jpg": ["blue"],
        "train/c.jpg": [],
        "train/d.jpg": None,
    }
    feature = {"_type": "Sequence", "feature": {"_type": "ClassLabel", "names": ["no", "yes", "?"]}}
    declared = {b"huggingface": json.dumps({"info": {"features": {"labels": feature}}}).encode()}
    table = pa.table({"image": images, "labels": [[1], [1, 0], [], [-1]]})
    parquet.write_table(table.replace_schema_metadata(declared), path)
    corpus = list_corpus(tmp_path)
    assert corpus.classes == ("no", "yes"), "in the order of the declaration"
    found = [dict(item.metadata)["labels"] for item in by_key(corpus).values()]
    assert found == [["yes"], ["no", "yes"], [], []]
    table = pa.table({"image": images, "labels": [[1], [9], [], []]})
    parquet.write_table(table.replace_schema_metadata(declared), path)
    with pytest.raises(UsageError, match=r"row 2 has the label 9; its file declares 3 classes"):
        list_corpus(tmp_path)


def test_tars_that_name_no_split_beside_others_that_do(tmp_path: Path) -> None:
    for name in ("train-0", "val-0", "extra"):
        write_tar(tmp_path / f"{name}.tar", [("1.jpg", b"x"), ("1.cls", b"a")])
    text = "\n".join(list_corpus(tmp_path).warnings)
    assert "1 tars name no split while others do" in text
    assert "extra.tar" in text


def test_labels_apart_from_their_images(tmp_path: Path) -> None:
    members = [(f"{i}.jpg", b"x") for i in range(3)] + [(f"{i}.cls", b"%d" % i) for i in range(3)]
    corpus = list_corpus(write_tar(tmp_path / "train.tar", members))
    assert [item.label for item in corpus.instances] == [0, 1, 2]


def test_tars_left_beside_their_unpacked_images(tmp_path: Path) -> None:
    write_tar(tmp_path / "train.tar", [("1.jpg", b"x")])
    plant(tmp_path, {"train/dog/1.jpg": "x", "val/dog/2.jpg": "x"})
    corpus = list_corpus(tmp_path)
    assert corpus.kind == "folder"
    assert set(by_key(corpus)) == {"train/dog/1.jpg", "val/dog/2.jpg"}


def test_truncated_tars_are_damaged(tmp_path: Path) -> None:
    whole = write_tar(
        tmp_path / "train.tar", [(f"{i}.jpg", bytes(700)) for i in range(3)]
    ).read_bytes()
    cut = tmp_path / "cut.tar"
    cut.write_bytes(whole[: 1536 + 512 + 100])  # in the content of the second member
    with pytest.raises(
        DamagedError, match=r"cut\.tar is damaged at byte 1,536 of 2,148: .* lacks 600"
    ):
        list_corpus(cut)
    cut.write_bytes(whole[: 2 * 1536 + 100])  # in the header of the third
    with pytest.raises(DamagedError, match="at byte 3,072 of 3,172: a header is cut short"):
        list_corpus(cut)
    cut.write_bytes(whole[: 3 * 1536])  # exactly before the end
    assert "1 without an end-of-archive block" in list_corpus(cut, val_fraction=0).warnings[0]
    flipped = bytearray(whole)
    flipped[1536] ^= 1
    cut.write_bytes(flipped)
    with pytest.raises(DamagedError, match=r"at byte 1,536 .*checksum"):
        list_corpus(cut)


def test_tar_that_shrinks_after_the_listing(tmp_path: Path) -> None:
    source = write_tar(tmp_path / "train.tar", [("1.jpg", bytes(700))])
    (item,) = list_corpus(source).instances
    os.truncate(source, 800)
    with pytest.raises(UnreadableError, match=r"train\.tar ends 412 bytes early"):
        read_bytes(item)
    with pytest.raises(UnreadableError, match="more than the limit"):
        read_bytes(item, max_bytes=699)


def test_what_is_not_a_tar(tmp_path: Path) -> None:
    plant(tmp_path, {"text.tar": "hello " * 200, "empty.tar": ""})
    assert "text.tar is not a tar file" in usage(tmp_path / "text.tar")
    assert "empty.tar is not a tar file (0 bytes)" in usage(tmp_path / "empty.tar")
    members = [("1.jpg", b"x")]
    with tarfile.open(tmp_path / "x.tar.gz", "w:gz"):
        pass
    assert "decompress it to .tar first" in usage(tmp_path / "x.tar.gz")
    shutil.move(tmp_path / "x.tar.gz", tmp_path / "named.tar")
    assert "is compressed (gzip)" in usage(tmp_path / "named.tar")
    assert "holds no images" in usage(write_tar(tmp_path / "no.tar", [("1.txt", b"x")]))
    assert "holds no images" in usage(write_tar(tmp_path / "none.tar", []))
    only = tmp_path / "only"
    only.mkdir()
    (only / "a.tar.gz").write_bytes(b"\x1f\x8b")
    assert "decompress" in usage(only)
    write_tar(tmp_path / "p/train-00.tar", members)
    text = usage(f"{tmp_path}/p/train-{{00..02}}.tar")
    assert "stands for 3 files, of which 2 do not exist; the first is" in text
    assert "train-01.tar" in text


def test_brace_patterns() -> None:
    assert expand("a-{008..011}.tar") == ["a-008.tar", "a-009.tar", "a-010.tar", "a-011.tar"]
    assert expand("{train,val}-{0..1}") == ["train-0", "train-1", "val-0", "val-1"]
    assert expand("{3..1}") == ["3", "2", "1"]
    assert expand("x{y}z{}") == ["x{y}z{}"]
    assert not has_braces("x{y}z{}")
    assert expand("{0..6..3}-{a..c}")[:4] == ["0-a", "0-b", "0-c", "3-a"]
    assert expand("{a{1,2},b}.tar") == ["a1.tar", "a2.tar", "b.tar"]
    assert expand("s3://x::{1,2}\\${HOME}") == ["s3://x::1\\${HOME}", "s3://x::2\\${HOME}"]
    assert expand("{1,2") == ["{1,2"]
    with pytest.raises(UsageError, match="more than 100,000"):
        expand("{0..999}{0..999}")
    with pytest.raises(UsageError, match="more than 100,000"):
        expand("{{0..99999}{0..99999},x}")
    with pytest.raises(UsageError, match="levels deep"):
        expand("{" * 999 + "," + "}" * 999)
    with pytest.raises(UsageError, match="more than 100,000"):
        expand("{0..999999999}")


NAMES = st.text(
    st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=300
)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(NAMES, st.binary(max_size=1500)), max_size=6),
    st.sampled_from([tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
)
def test_index_agrees_with_tarfile(
    tmp_path_factory: pytest.TempPathFactory, members: list[tuple[str, bytes]], kind: int
) -> None:
    path = tmp_path_factory.mktemp("tar") / "x.tar"
    try:
        write_tar(path, members, format=kind)
    except ValueError:  # the name is too long for ustar
        return
    with tarfile.open(path, encoding="utf-8") as tar:
        expected = [(m.name, m.offset_data, m.size) for m in tar.getmembers() if m.isreg()]
    index = TarIndex(str(path), "x.tar")
    found = [(member.name, member.offset, member.num_bytes) for member in index]
    assert index.is_ended
    index.close()
    assert [(name.rstrip("/"), *rest) for name, *rest in found] == [
        (name.rstrip("/"), *rest) for name, *rest in expected
    ]


def test_index_reads_large_sizes_and_links(tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as tar:
        link = tarfile.TarInfo("link.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
        fifo = tarfile.TarInfo("fifo.jpg")
        fifo.type = tarfile.FIFOTYPE
        tar.addfile(fifo)
        huge = tarfile.TarInfo("huge.jpg")
        huge.size = 1 << 40  # base-256, and far more than the file has
        tar.fileobj.write(huge.tobuf(tarfile.GNU_FORMAT))  # type: ignore[union-attr]
    with pytest.raises(DamagedError, match=r"at byte 1,024 of .*the member there lacks"):
        list_corpus(path)


@pytest.mark.timeout(60)
@settings(max_examples=300, deadline=None)
@given(st.data())
def test_mutated_tars_give_named_errors(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    raw = bytearray(MUTANTS[data.draw(st.integers(0, len(MUTANTS) - 1))])
    for _ in range(data.draw(st.integers(1, 4))):
        block = data.draw(st.integers(0, len(raw) // 512 - 1)) * 512
        at = block + data.draw(st.integers(0, 511) | st.integers(124, 135))
        raw[at] = data.draw(st.integers(0, 255) | st.sampled_from([0x80, 0xFF]))
        if data.draw(st.booleans()):  # a checksum that agrees
            header = raw[block : block + 512]
            total = sum(header) - sum(header[148:156]) + 256
            raw[block + 148 : block + 156] = b"%06o\0 " % total
    if data.draw(st.booleans()):
        del raw[data.draw(st.integers(1, len(raw))) :]
    path = tmp_path_factory.getbasetemp() / "mutant.tar"
    path.write_bytes(raw)
    try:
        corpus = list_corpus(path)
    except SeitError:
        return
    for item in corpus.instances:
        assert len(read_bytes(item)) == item.num_bytes


def mutants() -> list[bytes]:
    files = []
    for kind in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w", format=kind) as tar:
            for name in (
                "a.jpg",
                "a.cls",
                "ü" * (45 if kind == tarfile.USTAR_FORMAT else 70) + ".png",
                "b.json",
                "b.gif",
            ):
                info = tarfile.TarInfo(name)
                info.size = 10
                tar.addfile(info, io.BytesIO(b'{"label":1'))
            for name, target, type_ in (
                ("c.jpg", "a.jpg", tarfile.LNKTYPE),
                ("c.cls", "a.cls", tarfile.SYMTYPE),
            ):
                info = tarfile.TarInfo(name)
                info.type, info.linkname = type_, target
                tar.addfile(info)
        files.append(buffer.getvalue()[:10240])
    return files


MUTANTS = mutants()
