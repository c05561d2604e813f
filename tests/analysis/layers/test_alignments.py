"""Alignments: tables and TextGrids of both formats."""

import pytest

from seit.analysis.layers.alignments import Span, read_alignments, read_textgrid, spans_of
from seit.errors import UsageError

LONG = """File type = "ooTextFile"
Object class = "TextGrid"

xmin = 0
xmax = 1.5
tiers? <exists>
size = 2
item []:
    item [1]:
        class = "IntervalTier"
        name = "words"
        xmin = 0
        xmax = 1.5
        intervals: size = 2
        intervals [1]:
            xmin = 0
            xmax = 0.5
            text = ""
        intervals [2]:
            xmin = 0.5
            xmax = 1.5
            text = "say ""7"" now"
    item [2]:
        class = "IntervalTier"
        name = "phones"
        xmin = 0
        xmax = 1.5
        intervals: size = 2
        intervals [1]:
            xmin = 0
            xmax = 0.25
            text = "s"
        intervals [2]:
            xmin = 0.25
            xmax = 1.5
            text = "ey1"
"""
SHORT = """File type = "ooTextFile"
Object class = "TextGrid"

0
1.5
<exists>
2
"TextTier"
"clicks"
0
1.5
1
0.75
"click"
"IntervalTier"
"phones"
0
1.5
2
0
0.25
"s"
0.25
1.5
"ey1"
"""
PHONES = [Span(0.0, 0.25, "s"), Span(0.25, 1.5, "ey1")]


def test_textgrids_of_both_formats(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "long.TextGrid").write_text(LONG)
    (tmp_path / "short.TextGrid").write_text(SHORT, encoding="utf-16")
    assert read_textgrid(tmp_path / "a" / "long.TextGrid", tier="phones") == PHONES
    assert read_textgrid(tmp_path / "a" / "long.TextGrid", tier="words") == [
        Span(0.5, 1.5, 'say "7" now')
    ]
    assert read_textgrid(tmp_path / "short.TextGrid") == PHONES
    found = read_alignments(tmp_path, tier="phones")
    assert spans_of(found, "a/long.wav") == PHONES
    assert spans_of(found, "other.wav") == []
    with pytest.raises(UsageError, match="tiers words, phones: name one by --tier"):
        read_textgrid(tmp_path / "a" / "long.TextGrid")


def test_tables(tmp_path):
    table = tmp_path / "align.csv"
    table.write_text("label,key,start,end\ns,a.wav,0,0.25\ney1,a.wav,0.25,1.5\nz,b.wav,1,2\n")
    found = read_alignments(table)
    assert spans_of(found, "a.wav") == PHONES
    assert list(found) == ["a.wav", "b.wav"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("key,start,end\na,0,1\n", "no column label"),
        ("key,start,end,label\na,1,1,s\n", "ends after it starts"),
        ("key,start,end,label\na,x,1,s\n", "must be seconds"),
        ("key,start,end,label\na,0,inf,s\n", "ends after it starts"),
    ],
)
def test_false_tables_are_refused(tmp_path, text, message):
    table = tmp_path / "align.csv"
    table.write_text(text)
    with pytest.raises(UsageError, match=message):
        read_alignments(table)


@pytest.mark.parametrize("text", ["", "no grid", LONG[:300], SHORT.replace("0.75", '"x"')])
def test_false_textgrids_are_refused(tmp_path, text):
    path = tmp_path / "a.TextGrid"
    path.write_text(text)
    with pytest.raises(UsageError, match="no readable TextGrid"):
        read_textgrid(path, tier="phones")
