"""Rows of Parquet files: all types as pyarrow gives them, with bounded memory."""

import pyarrow as pa
import pytest
from pyarrow import parquet
from support.jobs import message

from seit.errors import UsageError
from seit.ingest import TokenizeConfig
from seit.ingest.sources import list_corpus
from seit.ingest.sources.cells import open_parquet
from seit.ingest.sources.parquet_rows import decode_rows
from seit.ingest.sources.tables import read_table

ROWS = 4096


def written(folder, columns, **options):
    parquet.write_table(pa.table(columns), folder / "t.parquet", **options)
    return folder / "t.parquet"


def repeated(text):
    """A column of one text in all rows, which takes its bytes once."""
    return pa.DictionaryArray.from_arrays(pa.array([0] * ROWS, pa.int32()), pa.array([text]))


CODED = {"store_schema": False, "dictionary_pagesize_limit": 1 << 30}


def decoded(path, columns=None):
    with open_parquet(str(path), as_dictionaries=True) as file:
        groups = range(file.metadata.num_row_groups)
        return [
            row for _, row in decode_rows(file, where=str(path), groups=groups, columns=columns)
        ]


def test_values_of_all_types_are_those_of_pyarrow(tmp_path):
    count = 90
    texts = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    columns = {
        "image": pa.array([{"bytes": b"1", "path": f"{n}.png"} for n in range(count)], texts),
        "text": ["a" * 300, None, "ü"] * (count // 3),
        "tags": [["a", "b"], None, []] * (count // 3),
        "nested": [{"a": [{"b": "c"}]}, None, {"a": None}] * (count // 3),
        "map": pa.array([[("k", "v")]] * count, pa.map_(pa.string(), pa.string())),
        "large": pa.array([["u"]] * count, pa.large_list(pa.large_string())),
        "fixed": pa.array([["a", "b"]] * count, pa.list_(pa.string(), 2)),
        "coded": pa.array(["z"] * count).dictionary_encode(),
        "raw": [b"12"] * count,
        "number": [1.5] * count,
    }
    path = written(tmp_path, columns, row_group_size=40)
    expected = [tuple(row.values()) for row in pa.table(columns).to_pylist()]
    assert decoded(path) == expected
    assert decoded(path, ["number", "image.path"])[7] == (1.5, {"path": "7.png"})


def test_rows_share_a_long_text(tmp_path):
    columns = {"path": ["a.png"] * ROWS, "text": repeated("x" * 50_000)}
    rows = decoded(written(tmp_path, columns, **CODED))
    assert len(rows) == ROWS
    assert len({id(text) for _, text in rows}) == 1


def test_a_text_that_is_too_long_is_refused_whatever_reads_the_file(tmp_path):
    long = repeated("x" * 10_000_000)
    media = pa.array([{"bytes": b"1"}] * ROWS, pa.struct([("bytes", pa.binary())]))
    (tmp_path / "media").mkdir()
    words = "has a text of 10,000,000 bytes in the column"
    within = written(tmp_path / "media", {"image": media, "caption": long}, **CODED)
    with pytest.raises(UsageError, match=words):
        list_corpus(str(tmp_path / "media"))
    assert within.stat().st_size < 1 << 20
    tags = pa.ListArray.from_arrays(pa.array(range(ROWS + 1), pa.int32()), long)
    table = written(tmp_path, {"path": ["a.png"] * ROWS, "tags": tags}, **CODED)
    with pytest.raises(UsageError, match=words):
        list(read_table(table)[1])
    pieces = TokenizeConfig(size=64, codes=8, plan="pieces")
    assert words in message(UsageError, table, tmp_path / "store", pieces)
