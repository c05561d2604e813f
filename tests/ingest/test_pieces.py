"""Jobs in pieces: the samples of a listing, in one pass, whatever happens on the way."""

import importlib
import json
import shutil
import threading
from dataclasses import replace

import pytest
from support.files import plant, tree
from support.jobs import (
    LISTING,
    assert_same_samples,
    blocks_of,
    columns,
    interrupt,
    message,
    samples_of,
    tar_of,
)
from support.pictures import png

import seit
from seit.errors import SeitError, UsageError
from seit.ingest import TokenizeConfig, estimate_job, fit_and_measure, tokenize
from seit.ingest.pieces import duplicates
from seit.ingest.pieces.cut_tables import cut_table
from seit.ingest.pieces.find import find_pieces
from seit.ingest.pieces.maker import PieceMaker
from seit.ingest.resolve import resolve_tokenizer
from seit.stores import verify_store
from seit.tokenizers import save_tokenizer

CONFIG = TokenizeConfig(
    size=32, codes=32, tokenizer="patch-pca-vq", shard_samples=1024, plan="pieces", fit_samples=64
)
COUNT = 24


@pytest.fixture(scope="module")
def tars(tmp_path_factory):
    """Three tars of train and one of val, with numbers as labels."""
    root = tmp_path_factory.mktemp("tars")
    names = {f"train-{k}.tar": tar_of(samples_of(range(k * 8, k * 8 + 8))) for k in range(3)}
    return plant(root, {**names, "val-0.tar": tar_of(samples_of(range(24, 32)))})


@pytest.fixture(scope="module")
def tokenizer(tars, tmp_path_factory):
    """File of a tokenizer that was fitted on the corpus."""
    path = tmp_path_factory.mktemp("tokenizer") / "t.safetensors"
    fitted, _, _ = fit_and_measure(tars, replace(CONFIG, **LISTING))
    save_tokenizer(fitted, path)
    return str(path)


@pytest.fixture(scope="module")
def reference(tars, tmp_path_factory):
    store = tmp_path_factory.mktemp("reference") / "store"
    result = tokenize(tars, store, CONFIG)
    assert (result.samples, result.skipped, result.classes) == (32, 0, 3)
    assert verify_store(store).ok
    return store


# ------------------------------------------------------------------------- the same samples


def test_pieces_hold_the_samples_of_a_listing(tars, tokenizer, tmp_path):
    config = replace(CONFIG, tokenizer=tokenizer, size=None)
    tokenize(tars, tmp_path / "pieces", config)
    tokenize(tars, tmp_path / "listing", replace(config, **LISTING))
    assert_same_samples(tmp_path / "pieces", tmp_path / "listing")
    assert [s.record.file for s in seit.open(tmp_path / "pieces")["train"].shards] == [
        "train/00000.tar",
        "train/01000.tar",
        "train/02000.tar",
    ]


def test_a_hash_splits_tars_that_name_none(tokenizer, tmp_path):
    root = plant(tmp_path / "src", {"a.tar": tar_of(samples_of(range(40)))})
    config = replace(CONFIG, tokenizer=tokenizer, size=None, val_fraction=0.3)
    tokenize(root, tmp_path / "pieces", config)
    tokenize(root, tmp_path / "listing", replace(config, **LISTING))
    assert_same_samples(tmp_path / "pieces", tmp_path / "listing")


@pytest.mark.parametrize("label", [
    lambda n: ("ape", "bee", "cat")[n % 3],
    lambda n: str(n % 3 + 1),
    lambda n: ("3", "007", "-1")[n % 3],
    lambda n: ("1", "bee", "-1")[n % 3],
    lambda n: None if n % 2 else str(n % 4),
    lambda n: None,
])  # fmt: skip
def test_labels_of_all_kinds_are_those_of_a_listing(label, tokenizer, tmp_path):
    tars = {f"train-{k}.tar": tar_of(samples_of(range(k * 9, k * 9 + 9), label)) for k in range(2)}
    root = plant(tmp_path / "src", tars)
    config = replace(CONFIG, tokenizer=tokenizer, size=None)
    tokenize(root, tmp_path / "pieces", config)
    tokenize(root, tmp_path / "listing", replace(config, **LISTING))
    assert_same_samples(tmp_path / "pieces", tmp_path / "listing")
    assert verify_store(tmp_path / "pieces").ok
    assert not list((tmp_path / "pieces").glob(".tokenize"))


def test_given_classes_have_their_order_and_refuse_others(tars, tmp_path):
    names = tmp_path / "classes.txt"
    names.write_text("2\n0\n\nx\n")
    result = tokenize(tars, tmp_path / "store", replace(CONFIG, classes=names))
    store = seit.open(tmp_path / "store")
    assert store.classes == ("2", "0", "x")
    assert result.skipped == 32 - result.samples == 11
    skipped = (tmp_path / "store" / "skipped.jsonl").read_text().splitlines()
    assert all("its label 1 is none of the given classes" in line for line in skipped)
    for text, words in (("a\na\n", "names a twice"), ("", "names no class")):
        names.write_text(text)
        assert words in message(UsageError, tars, tmp_path / "x", replace(CONFIG, classes=names))


def test_large_pieces_make_several_shards(tokenizer, tmp_path):
    root = plant(tmp_path / "src", {"train.tar": tar_of(samples_of(range(30)))})
    config = replace(CONFIG, tokenizer=tokenizer, size=None)
    with blocks_of(8):
        tokenize(root, tmp_path / "pieces", replace(config, shard_samples=16))
        tokenize(root, tmp_path / "listing", replace(config, shard_samples=16, **LISTING))
    store = seit.open(tmp_path / "pieces")
    assert [s.record.samples for s in store["train"].shards] == [16, 14]
    assert_same_samples(tmp_path / "pieces", tmp_path / "listing")
    assert verify_store(tmp_path / "pieces").ok


# --------------------------------------------------------------------- tables and Parquet files


def rows_of(root, numbers, name=lambda n: f"{n}.png"):
    plant(root, {f"f/{name(n)}": png(n, 24) for n in numbers})


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_tables_are_cut_into_ranges_of_rows(suffix, tokenizer, tmp_path):
    from pyarrow import Table, parquet

    name = (lambda n: f'{n} "a",\nb.png') if suffix == "csv" else (lambda n: f"{n}.png")
    rows_of(tmp_path / "src", range(50), name)
    rows = [{"path": f"f/{name(n)}", "label": "xyz"[n % 3], "note": n} for n in range(50)]
    path = tmp_path / "src" / f"list.{suffix}"
    if suffix == "csv":
        quoted = [
            '"' + row["path"].replace('"', '""') + f'",{row["label"]},{row["note"]}' for row in rows
        ]
        path.write_text("\n".join(["path,label,note", *quoted]))
    elif suffix == "jsonl":
        path.write_text("\n".join(map(json.dumps, rows)) + "\n")
    else:
        parquet.write_table(Table.from_pylist(rows), path, row_group_size=7)
    config = replace(CONFIG, tokenizer=tokenizer, size=None)
    with blocks_of(8):
        config = replace(config, shard_samples=16, val_fraction=0.3)
        pieces = find_pieces(path, resolve_tokenizer(config)[0])
        assert pieces.samples == 50
        assert len(pieces.pieces) == (3 if suffix == "parquet" else 4)
        tokenize(path, tmp_path / "pieces", config)
        tokenize(path, tmp_path / "listing", replace(config, **LISTING))
    assert_same_samples(tmp_path / "pieces", tmp_path / "listing")


def test_lines_of_a_table_are_cut_where_they_end(tmp_path):
    path = tmp_path / "t.csv"
    for text, rows, expected in (
        (b"path\na\nb\nc", 2, [(5, 9), (9, 10)]),
        (b"path\na\nb\n", 2, [(5, 9)]),
        (b'path\n"a\n\n"\nb\n', 1, [(5, 11), (11, 13)]),
        (b"path\n", 1, []),
        (b"", 1, []),
    ):
        path.write_bytes(text)
        cut = cut_table(str(path), "t.csv", len(text), rows=rows)
        assert [(piece.start, piece.stop) for piece in cut.pieces] == expected


def test_media_in_parquet_files_are_read_by_row_groups(tokenizer, tmp_path):
    from pyarrow import Table, parquet

    rows = [
        {"image": {"bytes": png(n, 24), "path": f"{n}.png"}, "label": n % 3, "note": n}
        for n in range(30)
    ]
    path = tmp_path / "src" / "train-0.parquet"
    path.parent.mkdir()
    parquet.write_table(Table.from_pylist(rows), path, row_group_size=5)
    config = replace(CONFIG, tokenizer=tokenizer, size=None)
    with blocks_of(4):
        config = replace(config, shard_samples=8)
        assert len(find_pieces(path.parent, resolve_tokenizer(config)[0]).pieces) == 3
        tokenize(path.parent, tmp_path / "pieces", config)
    found = columns(tmp_path / "pieces", "train")
    assert list(found) == [f"train-0.parquet/{n:06d}" for n in range(30)]
    assert [value[0] for value in found.values()] == [str(n % 3) for n in range(30)]
    tokenize(path.parent, tmp_path / "listing", replace(config, **LISTING, shard_samples=1024))
    listed = columns(tmp_path / "listing", "train")
    assert {value[2]["note"]: value for value in listed.values()} == {
        value[2]["note"]: value for value in found.values()
    }


def test_keys_of_several_pieces_are_found_when_the_store_is_sealed(
    tokenizer, tmp_path, monkeypatch
):
    rows_of(tmp_path / "src", range(20))
    rows = [f"f/{n}.png,{n % 3},train" for n in range(20)]
    rows += ["f/0.png,0,train", "f/1.png,2,train", "f/2.png,2,val", "f/./3.png,0,train"]
    path = tmp_path / "src" / "list.csv"
    path.write_text("\n".join(["path,label,split", *rows]))
    config = replace(CONFIG, tokenizer=tokenizer, size=None)
    monkeypatch.setattr(duplicates, "PARTITION_BYTES", 64)
    with blocks_of(4):
        result = tokenize(path, tmp_path / "store", replace(config, shard_samples=4))
    assert verify_store(tmp_path / "store").ok
    keys = [sample.key for split in seit.open(tmp_path / "store").values() for sample in split]
    assert sorted(keys) == sorted(f"f/{n}.png" for n in range(20) if n not in (1, 2))
    assert any("2 inputs are listed again with the same label" in line for line in result.warnings)
    lines = [
        json.loads(line) for line in (tmp_path / "store" / "skipped.jsonl").read_text().splitlines()
    ]
    assert {line["key"]: line["reason"] for line in lines} == {
        "f/1.png": "it is listed with several labels",
        "f/2.png": "it is listed in the splits train and val",
    }
    monkeypatch.setattr(duplicates, "MAX_REPEATS", 3)
    with blocks_of(4), pytest.raises(SeitError, match="listed twice"):
        tokenize(path, tmp_path / "again", replace(config, shard_samples=4))


def test_repeated_keys_are_judged_by_the_names_of_their_labels(tokenizer, tmp_path):
    rows_of(tmp_path / "src", range(8))
    rows = [f"f/{n}.png,{'cat' if n < 4 else 'dog'},train" for n in range(8)]
    rows[4:4] = ["f/7.png,dog,train", "f/0.png,cat,train", "f/1.png,dog,train"]
    path = tmp_path / "src" / "list.csv"
    path.write_text("\n".join(["path,label,split", *rows]))
    config = replace(CONFIG, tokenizer=tokenizer, size=None)
    with blocks_of(4):
        tokenize(path, tmp_path / "store", replace(config, shard_samples=4))
    store = seit.open(tmp_path / "store")
    assert {sample.key: store.classes[sample.label] for sample in store["train"]} == {
        f"f/{n}.png": "cat" if n < 4 else "dog" for n in range(8) if n != 1
    }
    (line,) = (tmp_path / "store" / "skipped.jsonl").read_text().splitlines()
    assert json.loads(line)["key"] == "f/1.png"


def test_a_table_without_a_readable_input_is_refused_by_name(tokenizer, tmp_path):
    rows_of(tmp_path / "src", range(8))
    path = tmp_path / "src" / "list.csv"
    path.write_text("\n".join(["path,label", *(f"f/{n}.png,cat" for n in range(8))]))
    names = tmp_path / "classes.txt"
    names.write_text("ape\nbee\n")
    config = replace(CONFIG, tokenizer=tokenizer, size=None, classes=names)
    text = message(SeitError, path, tmp_path / "store", config)
    assert "could be read; no store was made" in text
    assert "its label cat is none of the given classes" in text


def test_repeated_keys_leave_full_blocks(tokenizer, tmp_path):
    rows_of(tmp_path / "src", range(36))
    rows = [f"f/{n}.png,{n % 3},train" for n in range(36)]
    rows[12:12] = ["f/0.png,0,train", "f/1.png,1,train"]
    path = tmp_path / "src" / "list.csv"
    path.write_text("\n".join(["path,label,split", *rows]))
    config = replace(CONFIG, tokenizer=tokenizer, size=None)
    with blocks_of(4):
        tokenize(path, tmp_path / "store", replace(config, shard_samples=12))
    store = seit.open(tmp_path / "store")["train"]
    assert [shard.record.samples for shard in store.shards] == [12, 10, 12, 2]
    assert {sample.key: sample.label for sample in store} == {
        f"f/{n}.png": n % 3 for n in range(36)
    }
    assert verify_store(tmp_path / "store").ok


# ------------------------------------------------------------------------------ kills and resume


def test_a_job_ends_with_the_same_bytes_however_often_it_is_killed(
    tars, reference, tmp_path, monkeypatch
):
    places = [
        ("seit.ingest.pieces.job.fit_job", 0),
        ("seit.ingest.pieces.job.seal_store", 0),
        *((f"seit.ingest.pieces.place.JobPlace.{name}", n)
          for name in ("claim", "write_fit", "put", "write_record", "write_card", "clean_up")
          for n in range(2)),
    ]  # fmt: skip
    store = tmp_path / "store"
    for target, calls in places:
        with monkeypatch.context() as patch:
            patch.setattr(target, interrupted(target, calls))
            try:
                tokenize(tars, store, CONFIG)
            except KeyboardInterrupt:
                continue
    tokenize(tars, store, CONFIG)
    assert tree(store) == tree(reference)


def interrupted(target, calls):
    """The function at a dotted name, which is interrupted after some calls."""
    module, _, name = target.rpartition(".")
    try:
        owner = importlib.import_module(module)
    except ModuleNotFoundError:
        outer, _, inner = module.rpartition(".")
        owner = getattr(importlib.import_module(outer), inner)
    function = getattr(owner, name)
    left = [calls]

    def call(*args, **kwargs):
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        return function(*args, **kwargs)

    return call


def test_revised_pieces_resume_too(tokenizer, tmp_path, monkeypatch):
    label = lambda n: ("ape", "bee", "cat")[n % 3]  # noqa: E731
    tars = {f"train-{k}.tar": tar_of(samples_of(range(k * 9, k * 9 + 9), label)) for k in range(3)}
    root = plant(tmp_path / "src", tars)
    config = replace(CONFIG, tokenizer=tokenizer, size=None)
    tokenize(root, tmp_path / "whole", config)
    for calls in (4, 1, 0):
        with monkeypatch.context() as patch:
            target = "seit.ingest.pieces.place.JobPlace.write_record"
            patch.setattr(target, interrupted(target, calls))
            with pytest.raises(KeyboardInterrupt):
                tokenize(root, tmp_path / "store", config)
    tokenize(root, tmp_path / "store", config)
    assert tree(tmp_path / "store") == tree(tmp_path / "whole")


def test_a_finished_job_is_left_as_it_is(tars, reference):
    before = tree(reference)
    again = tokenize(tars, reference, CONFIG)
    assert (again.samples, again.samples_per_second) == (32, 0)
    assert tree(reference) == before


def test_processes_make_the_same_bytes(tars, reference, tmp_path):
    config = replace(CONFIG, decoders="processes", workers=2)
    tokenize(tars, tmp_path / "store", config)
    assert tree(tmp_path / "store") == tree(reference)


def test_an_estimate_looks_at_the_beginning_of_pieces(tars, tmp_path):
    expected = estimate_job(tars, tmp_path / "store", CONFIG)
    assert not (tmp_path / "store").exists()
    assert 24 <= expected.samples <= 40  # tars also hold headers and labels
    assert expected.classes == 3
    assert expected.splits["train"] > expected.splits["val"] > 0
    assert any("estimated from 32 inputs" in line for line in expected.warnings)


# --------------------------------------------------------------------------------------- parts


def test_parts_share_a_job_and_the_last_one_seals_it(tars, reference, tmp_path):
    store = tmp_path / "store"
    first = tokenize(tars, store, replace(CONFIG, part="0/3"))
    assert (first.pieces, first.left) == (2, 2)
    assert first.samples == 16
    again = tokenize(tars, store, replace(CONFIG, part="0/3"))
    assert (again.pieces, again.samples, again.left) == (2, 0, 2)
    assert not (store / "store.json").exists()
    assert tokenize(tars, store, replace(CONFIG, part="2/3")).left == 1
    last = tokenize(tars, store, replace(CONFIG, part="1/3"))
    assert last.record()["classes"] == 3
    assert tree(store) == tree(reference)
    assert tokenize(tars, store, replace(CONFIG, part="2/3")).record()["samples"] == 32


def test_parts_at_the_same_time_wait_for_the_fit_of_the_first(
    tars, reference, tmp_path, monkeypatch
):
    monkeypatch.setattr("seit.ingest.pieces.job._POLL_SECONDS", 0.01)
    store = tmp_path / "store"
    failures = []

    def drive(number):
        try:
            tokenize(tars, store, replace(CONFIG, part=f"{number}/4"))
        except SeitError as error:
            failures.append(error)

    parts = [threading.Thread(target=drive, args=(number,)) for number in (3, 2, 1, 0)]
    for part in parts:
        part.start()
    for part in parts:
        part.join()
    assert not failures
    assert tree(store) == tree(reference)


def test_a_part_does_not_wait_for_ever(tars, tmp_path, monkeypatch):
    monkeypatch.setattr("seit.ingest.pieces.job.FIT_SECONDS", 0.0)
    config = replace(CONFIG, part="1/2")
    assert "part 0 did not fit" in message(SeitError, tars, tmp_path / "store", config)


def broken_tars(root):
    """Two tars of eight samples and more; one of the first cannot be read."""
    broken = [("a.png", b"?"), ("a.cls", b"0")]
    first, second = samples_of(range(8)), samples_of(range(8, 16))
    return plant(root, {"train-0.tar": tar_of([*broken, *first]), "train-1.tar": tar_of(second)})


@pytest.mark.parametrize("part", ["1/2", None])
def test_what_another_call_skipped_is_refused_before_a_strict_seal(part, tmp_path):
    root, store = broken_tars(tmp_path / "src"), tmp_path / "store"
    assert tokenize(root, store, replace(CONFIG, part="0/2")).left == 1
    for _ in range(2):
        text = message(SeitError, root, store, replace(CONFIG, part=part, strict=True))
        assert text.startswith("train-0.tar/a cannot be read")
        assert not (store / "store.json").exists()
    result = tokenize(root, store, replace(CONFIG, part=part))
    assert (result.samples, result.skipped) == (16, 1)
    assert verify_store(store).ok


def test_disputed_keys_are_refused_before_a_strict_seal(tmp_path):
    rows_of(tmp_path / "src", range(16))
    rows = [*(f"f/{n}.png,{n % 3}" for n in range(16)), "f/1.png,2"]
    path = plant(tmp_path / "src", {"t.csv": "\n".join(["path,label", *rows])}) / "t.csv"
    for _ in range(2):
        text = message(SeitError, path, tmp_path / "store", replace(CONFIG, strict=True))
        assert text.startswith("f/1.png cannot be read: it is listed with several labels")
        assert not (tmp_path / "store" / "store.json").exists()
    assert tokenize(path, tmp_path / "store", CONFIG).skipped == 1


# -------------------------------------------------------------------------------------- faults


def test_a_tar_damaged_in_its_middle_keeps_what_was_readable(tars, tmp_path):
    data = bytearray((tars / "train-1.tar").read_bytes())
    data[len(data) // 2 : len(data) // 2 + 700] = b"?" * 700
    names = {path.name: path.read_bytes() for path in tars.iterdir()}
    root = plant(tmp_path / "src", {**names, "train-1.tar": bytes(data)})
    result = tokenize(root, tmp_path / "store", CONFIG)
    assert 25 <= result.samples < 32
    (line,) = (tmp_path / "store" / "skipped.jsonl").read_text().splitlines()
    entry = json.loads(line)
    assert entry["key"] == "train-1.tar"
    assert "damaged at byte" in entry["reason"]
    assert f"{result.samples - 24} samples before that were kept" in entry["reason"]
    strict = replace(CONFIG, strict=True)
    assert "damaged at byte" in message(SeitError, root, tmp_path / "strict", strict)


def test_unreadable_pictures_are_listed(tars, tmp_path):
    broken = tar_of([("a.png", b"?"), ("a.cls", b"0"), *samples_of(range(8))])
    root = plant(tmp_path / "src", {"train-0.tar": broken})
    result = tokenize(root, tmp_path / "store", CONFIG)
    assert (result.samples, result.skipped) == (8, 1)
    assert "train-0.tar/a" in (tmp_path / "store" / "skipped.jsonl").read_text()
    none = plant(tmp_path / "none", {"train-0.tar": tar_of([("a.png", b"?"), ("a.cls", b"0")])})
    assert "can be read" in message(SeitError, none, tmp_path / "x", CONFIG)
    assert not (tmp_path / "x" / "store.json").exists()


def test_members_of_a_sample_that_stand_apart_are_left_out_with_a_remark(tmp_path):
    members = [*samples_of(range(8)), ("0000.txt", b"late")]
    root = plant(tmp_path / "src", {"train-0.tar": tar_of(members)})
    result = tokenize(root, tmp_path / "store", CONFIG)
    assert result.samples == 8
    assert any("members of that name stand elsewhere" in line for line in result.warnings)


def test_another_job_is_refused_and_replaced_only_when_asked(tars, tmp_path, monkeypatch):
    store = tmp_path / "store"
    with monkeypatch.context() as patch:
        patch.setattr("seit.ingest.pieces.job.seal_store", interrupt)
        with pytest.raises(KeyboardInterrupt):
            tokenize(tars, store, CONFIG)
    other = replace(CONFIG, codes=16)
    assert "codes was 32 and is 16" in message(UsageError, tars, store, other)
    tokenize(tars, store, replace(other, overwrite=True))
    assert verify_store(store).ok
    assert seit.open(store).card.tokenizer.codebook_size == 16
    old = tree(store)
    again = replace(CONFIG, overwrite=True)
    with monkeypatch.context() as patch:
        patch.setattr("seit.ingest.pieces.job.seal_store", interrupt)
        with pytest.raises(KeyboardInterrupt):
            tokenize(tars, store, again)
    assert tree(store) == old
    assert tokenize(tars, store, again).samples_per_second == 0  # all pieces were made
    assert seit.open(store).card.tokenizer.codebook_size == 32
    assert not (tmp_path / ".store.replacing").exists()
    foreign = plant(tmp_path / "mine", {"thesis.tex": b"mine"})
    assert "already holds" in message(UsageError, tars, foreign, CONFIG)


def test_machines_that_round_otherwise_are_refused(tars, tmp_path, monkeypatch):
    store = tmp_path / "store"
    with monkeypatch.context() as patch:
        patch.setattr(PieceMaker, "make", interrupt)
        with pytest.raises(KeyboardInterrupt):
            tokenize(tars, store, CONFIG)
    for target, value, words in (
        ("seit.ingest.pieces.place.cpu_kind", lambda: "another", "may round differently"),
        ("seit.__version__", "0.0.1", "install one version on all machines"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(target, value)
            assert words in message(UsageError, tars, store, CONFIG)
    monkeypatch.setattr("seit.ingest.pieces.place.cpu_kind", lambda: "another")
    tokenize(tars, store, replace(CONFIG, mixed_processors=True))
    assert verify_store(store).ok


def test_a_missing_shard_is_noticed_before_the_store_is_sealed(tars, tmp_path, monkeypatch):
    store = tmp_path / "store"
    with monkeypatch.context() as patch:
        patch.setattr("seit.ingest.pieces.job.seal_store", interrupt)
        with pytest.raises(KeyboardInterrupt):
            tokenize(tars, store, CONFIG)
    (store / "train" / "01000.tar").unlink()
    (store / "train" / "02000.tar").write_bytes(b"short")
    text = message(SeitError, tars, store, CONFIG)
    assert "01000.tar is missing where" in text
    assert "and 1 others are not as written" in text
    tokenize(tars, store, CONFIG)
    assert verify_store(store).ok


def test_revised_pieces_are_revised_again_if_one_that_is_remade_has_other_classes(
    tokenizer, tmp_path, monkeypatch
):
    """A picture became readable meanwhile, and has a class that none of the others has."""
    root, store = tmp_path / "src", tmp_path / "store"
    config = replace(CONFIG, tokenizer=tokenizer, size=None)
    pictures = samples_of(range(8, 16), lambda _: "7")
    late = [("a.png", png(0, 24)), ("a.cls", b"6"), *pictures]
    early = [("a.png", b"?" * len(png(0, 24))), *late[1:]]
    first = tar_of(samples_of(range(8), lambda n: "57"[n % 2]))
    plant(root, {"train-0.tar": first, "train-1.tar": tar_of(early)})
    with monkeypatch.context() as patch:
        patch.setattr("seit.ingest.pieces.job.seal_store", interrupt)
        with pytest.raises(KeyboardInterrupt):
            tokenize(root, store, config)
    plant(root, {"train-1.tar": tar_of(late)})
    (store / "train" / "03000.tar").unlink()
    assert "03000.tar is missing" in message(SeitError, root, store, config)
    tokenize(root, store, config)
    tokenize(root, tmp_path / "listing", replace(config, **LISTING))
    assert seit.open(store).classes == ("5", "6", "7")
    assert_same_samples(store, tmp_path / "listing")
    assert verify_store(store).ok


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"container": "zarr"}, "written as wds"),
        ({"views": 2}, "pieces have one"),
        ({"fit_samples": 2}, "expected 16 to"),
        ({"fit_samples": 0}, "expected 16 to"),
        ({"part": "3/3"}, "from 0/100 to 99/100"),
        ({"part": "first"}, "from 0/100 to 99/100"),
        ({"part": "0/3", "overwrite": True}, "leave one of them out"),
        ({"part": "0/3", **LISTING}, "needs --plan pieces"),
        ({"plan": "listing"}, "fit_samples is set; it needs --plan pieces"),
        ({"ray_cpus": 2}, "ray_cpus is set; it needs --engine ray"),
        ({**LISTING, "mixed_processors": True}, "needs --plan pieces"),
    ],
)
def test_settings_that_do_not_fit(changes, words):
    with pytest.raises(UsageError, match=words):
        replace(CONFIG, **changes)


def test_an_update_lists_its_source(tars, reference, tmp_path):
    with pytest.raises(UsageError, match="--update lists SRC"):
        seit.tokenize(tars, out=reference, update=True, plan="pieces")
    store = shutil.copytree(reference, tmp_path / "store")
    result = seit.tokenize(tars, out=store, update=True)
    assert any("made in pieces or by an earlier version" in line for line in result.warnings)
    assert tree(store) == tree(reference)


def test_sources_that_have_no_pieces(tmp_path):
    root = plant(tmp_path / "src", {"notes.zip": "x"})
    path = root / "notes.zip"
    assert "is no tar, Parquet file or table" in message(UsageError, path, tmp_path / "x", CONFIG)
    assert "does not exist" in message(UsageError, tmp_path / "none", tmp_path / "x", CONFIG)
    several = plant(tmp_path / "t", {"l.csv": b"path,labels\na.png,x|y\n", "a.png": png(0, 24)})
    assert "several labels" in message(UsageError, several / "l.csv", tmp_path / "x", CONFIG)


def test_a_table_in_another_encoding_is_named_by_its_own_path(tmp_path):
    table = plant(tmp_path, {"t.csv": "path,label\n1.png,Öl\n".encode("latin-1")}) / "t.csv"
    text = message(UsageError, table, tmp_path / "store", CONFIG)
    assert f"{table} is not in UTF-8 (byte 0xD6) but probably in Latin-1" in text
    assert f"iconv -f WINDOWS-1252 -t UTF-8 {table} > {table.with_name('t-utf8.csv')}`" in text
