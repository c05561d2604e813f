"""Ranges of rows of a table: read alone, they hold the rows of the whole table."""

import json
from dataclasses import replace

import pytest
from hypothesis import given, settings, strategies as st
from support.files import plant
from support.jobs import LISTING, assert_same_samples, blocks_of, message, tar_of
from support.pictures import png

from seit.errors import UsageError
from seit.ingest import TokenizeConfig, fit_and_measure, tokenize
from seit.ingest.pieces import cut_tables
from seit.ingest.pieces.cut_tables import cut_table
from seit.ingest.pieces.find import find_pieces
from seit.ingest.pieces.piece import Findings
from seit.ingest.resolve import resolve_tokenizer
from seit.ingest.sources import list_corpus
from seit.ingest.sources.tables import read_table
from seit.tokenizers import save_tokenizer

CONFIG = TokenizeConfig(
    size=32, codes=32, tokenizer="patch-pca-vq", shard_samples=1024, plan="pieces", fit_samples=64
)


def pieces_of(path, rows):
    with blocks_of(rows):
        return find_pieces(path, resolve_tokenizer(replace(CONFIG, shard_samples=rows))[0])


def read(found):
    """(key, class, split, metadata) of the inputs of all pieces."""
    return [
        (draft.key, draft.class_name, draft.split, dict(draft.metadata))
        for piece in found.pieces
        for draft in found.reader.read(piece, Findings())
    ]


def listed(path):
    corpus = list_corpus(path, modality="image")
    return sorted(
        (
            entry.key,
            corpus.classes[entry.label] if entry.label >= 0 else None,
            None if corpus.is_hash_split else entry.split,
            dict(entry.metadata),
        )
        for entry in corpus.instances
    )


def lines(rows):
    return "\n".join(map(json.dumps, rows))


# ------------------------------------------------------------------------------- JSON Lines


def test_the_first_row_with_a_field_may_be_in_any_piece(tmp_path):
    plain = [{"path": f"{n}.png", "category": f"c{n % 2}"} for n in range(8)]
    rows = [row if n < 4 else {**row, "label": f"L{n % 3}"} for n, row in enumerate(plain)]
    path = plant(tmp_path, {"t.jsonl": lines(rows)}) / "t.jsonl"
    found = pieces_of(path, 4)
    assert len(found.pieces) == 2
    assert sorted(read(found)) == listed(path)
    assert [label for _, label, _, _ in read(found)] == [None] * 4 + ["L1", "L2", "L0", "L1"]
    named = plant(tmp_path, {"c.jsonl": lines(plain)}) / "c.jsonl"
    assert {label for _, label, _, _ in read(pieces_of(named, 4))} == {"c0", "c1"}


@pytest.mark.parametrize(("late", "words"), [
    ({"split": "val"}, "has the split (nothing)"),
    ({"path": "x.png"}, "has a NoneType for a path"),
    ({"labels": ["a", "b"]}, "has several labels per file"),
])  # fmt: skip
def test_fields_of_later_pieces_count_in_the_first(late, words, tmp_path):
    rows = [{"file": f"{n}.png", **(late if n >= 4 else {})} for n in range(8)]
    path = plant(tmp_path, {"t.jsonl": lines(rows)}) / "t.jsonl"
    found = pieces_of(path, 4)
    with pytest.raises(UsageError) as caught:
        list(found.reader.read(found.pieces[0], Findings()))
    assert words in str(caught.value)
    assert words in message(UsageError, path, tmp_path / "store", CONFIG)


def test_other_columns_are_another_job(tmp_path):
    first = plant(tmp_path / "1", {"t.jsonl": '{"path":"a.png","label":"x"}\n'})
    other = plant(tmp_path / "2", {"t.jsonl": '{"path":"a.png","notes":"x"}\n'})
    assert first.joinpath("t.jsonl").stat().st_size == other.joinpath("t.jsonl").stat().st_size
    assert (
        pieces_of(first / "t.jsonl", 4).fingerprint != pieces_of(other / "t.jsonl", 4).fingerprint
    )


def test_a_job_of_uneven_rows_makes_the_samples_of_a_listing(tmp_path):
    named = [{"path": f"f/{n}.png", "split": "train", "category": "c"} for n in range(24)]
    rows = [row if n < 8 else {**row, "label": "xyz"[n % 3]} for n, row in enumerate(named)]
    plant(tmp_path / "src", {f"f/{n}.png": png(n, 24) for n in range(24)})
    path = plant(tmp_path / "src", {"t.jsonl": lines(rows)}) / "t.jsonl"
    fitted, _, _ = fit_and_measure(path, replace(CONFIG, **LISTING))
    save_tokenizer(fitted, tmp_path / "t.safetensors")
    config = replace(CONFIG, tokenizer=str(tmp_path / "t.safetensors"), size=None)
    with blocks_of(8):
        config = replace(config, shard_samples=8)
        tokenize(path, tmp_path / "listing", replace(config, **LISTING))
        tokenize(path, tmp_path / "pieces", config)
    assert_same_samples(tmp_path / "pieces", tmp_path / "listing")


def test_lines_that_are_no_objects_are_named_before_anything_is_read(tmp_path):
    path = plant(tmp_path, {"t.jsonl": '{"path":"a.png"}\n\n[1]\n'}) / "t.jsonl"
    text = message(UsageError, path, tmp_path / "store", CONFIG)
    assert f"{path} line 3 is not a JSON object" in text


# ------------------------------------------------------------------------------------ depth


def nested(levels):
    return f'"m": {"[" * levels}{"]" * levels}'


@pytest.mark.parametrize("levels", [65, 300, 500, 600, 985, 2000, 100_000])
def test_rows_that_are_nested_too_deep_are_refused_by_name(levels, tmp_path):
    rows = f'{{"path": "b.png"}}\n{{"path": "a.png", {nested(levels)}}}\n'
    table = plant(tmp_path, {"t.jsonl": rows}) / "t.jsonl"
    beside = f'{{"file_name": "a.png", {nested(levels)}}}\n'
    folder = plant(tmp_path / "f", {"a.png": png(0, 24), "metadata.jsonl": beside})
    listing = replace(CONFIG, **LISTING)
    for source, config, where in (
        (table, CONFIG, f"{table} line 2 "),
        (table, listing, f"{table} line 2 "),
        (folder, listing, f"{folder / 'metadata.jsonl'} line 1 "),
    ):
        text = message(UsageError, source, tmp_path / "store", config)
        assert text.startswith(where)
        assert "64 levels deep" in text
    rows = f'{{"path": "b.png"}}\n{{"path": "a.png", {nested(64)}}}\n'
    plant(tmp_path, {"t.jsonl": rows})
    assert len(list_corpus(table, modality="image").instances) == 2


@pytest.mark.parametrize("has_media", [False, True])
def test_deep_values_of_parquet_are_refused_by_row(has_media, tmp_path):
    import pyarrow as pa
    from pyarrow import parquet

    def written(levels):
        kind, value = pa.int64(), 1
        for _ in range(levels):
            kind, value = pa.struct([("a", kind)]), {"a": value}
        first = {"image": pa.array([png(0, 24)])} if has_media else {"path": pa.array(["a.png"])}
        path = tmp_path / f"{levels}.parquet"
        parquet.write_table(pa.table({**first, "m": pa.array([value], kind)}), path)
        return path

    assert len(list_corpus(written(64), modality="image").instances) == 1
    with pytest.raises(UsageError, match=r"65.parquet row 1 .*64 levels deep"):
        list_corpus(written(65), modality="image")
    found = pieces_of(tmp_path / "65.parquet", 4)
    with pytest.raises(UsageError, match=r"row 1 .*64 levels deep"):
        list(found.reader.read(found.pieces[0], Findings()))


def test_deep_json_in_a_tar_costs_its_sample_the_metadata(tmp_path):
    members = [("a.png", png(0, 24)), ("a.json", f"{{{nested(65)}}}".encode())]
    plant(tmp_path, {"t.tar": tar_of(members)})
    corpus = list_corpus(tmp_path / "t.tar", modality="image")
    assert [entry.metadata for entry in corpus.instances] == [()]
    assert any("json" in line for line in corpus.warnings)


# ------------------------------------------------------------------------------------- CSV


@pytest.mark.parametrize("text", [
    'path,label,note\na.png,cat,5" wide\n'
    + "".join(f'{n}.png,cat,"two\nlines"\n' for n in range(8)),
    "path,label\ra.png,cat\rb.png,dog\rc.png,cat",
    'path,label\r\n"a,""1"".png",cat\r\n\r\nb.png,"d\r\no""g"\r\nc.png,cat\r\n',
    "\ufeffpath;label\na.png;c,a,t\n;\nb.png;dog\n",
    '\n"pa\nth",path,label\n1,a.png,cat\n2,b.png,dog\n\n\n',
    'path\tnote\na.png\t"x" and "y\nb.png\tz"\nc.png\n',
])  # fmt: skip
@pytest.mark.parametrize("rows", [1, 2, 3])
@pytest.mark.parametrize("part_bytes", [1, 7, 1 << 20])
def test_rows_of_csv_are_those_of_a_listing(text, rows, part_bytes, tmp_path, monkeypatch):
    monkeypatch.setattr(cut_tables, "_PART_BYTES", part_bytes)
    path = tmp_path / "t.csv"
    path.write_bytes(text.encode())
    found = pieces_of(path, rows)
    expected = listed(path)
    assert found.samples == len(expected)
    assert len(found.pieces) == -(-len(expected) // rows)
    assert sorted(read(found)) == expected


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet='a,"\n\r\t ', max_size=40), st.integers(1, 3), st.integers(1, 9))
def test_ranges_of_any_csv_have_the_rows_of_the_whole(tmp_path_factory, text, rows, part_bytes):
    folder = tmp_path_factory.getbasetemp()
    path, part = folder / "whole.csv", folder / "part.csv"
    data = b"c,d,e\n" + text.encode()
    path.write_bytes(data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cut_tables, "_PART_BYTES", part_bytes)
        cut = cut_table(str(path), "whole.csv", len(data), rows=rows)
    assert cut.columns == ("c", "d", "e")

    def rows_of_pieces():
        for piece in cut.pieces:
            part.write_bytes(cut.header + data[piece.start : piece.stop])
            yield [values for _, values in read_table(part)[1]]

    try:
        whole = [values for _, values in read_table(path)[1]]
    except UsageError:  # a row has more cells than the header
        with pytest.raises(UsageError):
            list(rows_of_pieces())
        return
    found = list(rows_of_pieces())
    assert [values for group in found for values in group] == whole
    assert [len(group) for group in found[:-1]] == [rows] * max(0, len(found) - 1)


def test_a_line_without_end_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(cut_tables, "_PART_BYTES", 16)
    monkeypatch.setattr(cut_tables, "_MAX_PIECE_BYTES", 64)
    path = plant(tmp_path, {"t.csv": "path\n" + "a" * 100}) / "t.csv"
    assert "bytes in a range of rows" in message(UsageError, path, tmp_path / "store", CONFIG)
