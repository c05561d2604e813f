import base64
import io
import math
import os
import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from hypothesis import given, strategies as st
from markupsafe import Markup
from PIL import Image

from seit.errors import SeitError, UsageError
from seit.numbers import counted, human_bytes, number
from seit.report import (
    Bar,
    Captioned,
    Figure,
    Section,
    Series,
    bar_chart,
    confusion_matrix,
    figures,
    image_grid,
    line_chart,
    page,
    table,
    worst_confused,
    write_page,
)
from seit.report.axis import Axis

HOSTILE = """<script>alert(1)</script>"'&]]>\x00\x1b\udcff\u202e"""
COUNTS = np.array([[8, 2, 0], [1, 6, 3], [0, 0, 0]])
CLASSES = ["cat", "dog", "eel"]


def parse(markup):
    """Parse a fragment, which fails unless it is well-formed XML."""
    return ET.fromstring(f"<div>{markup}</div>")


def words(node):
    return " ".join(" ".join(node.itertext()).split())


def find(node, tag, class_=None):
    return [
        one
        for one in node.iter(tag)
        if class_ is None or set(class_.split()) <= set(one.get("class", "").split())
    ]


def polylines(node):
    return [
        np.array([[float(c) for c in pair.split(",")] for pair in one.get("points").split()])
        for one in find(node, "polyline")
    ]


def percentage(value):
    assert value.endswith("%")
    return float(value[:-1]) / 100


def value_of(label):
    """Read an axis label back: 20%, 5M, −0.2."""
    factor = {"%": 0.01, "k": 1e3, "M": 1e6, "G": 1e9}.get(label[-1], 1.0)
    return float(label.rstrip("%kMG").replace("−", "-")) * factor


def axis_scale(ticks, positions):
    """Fit the (slope, intercept) that takes positions to values, and demand a linear axis."""
    values = np.array([value_of(tick.text) for tick in ticks])
    assert len(values) >= 3
    slope, intercept = np.polyfit(positions, values, 1)
    np.testing.assert_allclose(slope * positions + intercept, values, atol=1e-3 * np.ptp(values))
    return slope, intercept


def read_back(chart):
    """Return the points of each line in data units, by the chart's own tick labels."""
    x_ticks, y_ticks = find(chart, "text", "x tick"), find(chart, "text", "y tick")
    x_scale = axis_scale(x_ticks, 1000 * np.array([percentage(t.get("x")) for t in x_ticks]))
    y_scale = axis_scale(y_ticks, np.array([float(t.get("y")) for t in y_ticks]))
    return [
        np.stack([np.polyval(x_scale, line[:, 0]), np.polyval(y_scale, line[:, 1])], axis=1)
        for line in polylines(chart)
    ]


@pytest.mark.parametrize(
    ("x", "y", "options"),
    [
        (np.arange(11), 3 * np.arange(11) - 7.0, {}),
        (np.arange(1, 101), np.arange(1, 101) / 125, {"y_format": "percent"}),
        (np.arange(11), np.arange(11) / 10, {"y_format": "percent", "y_range": (0.0, 1.0)}),
        (np.linspace(0, 1.2e8, 40), np.linspace(-0.03, 0.002, 40), {}),
        (np.linspace(-1, 1, 9), np.linspace(2.5e6, 1e5, 9), {}),
    ],
)
def test_points_lie_where_the_axes_say(x, y, options):
    chart = parse(line_chart([Series("s", x, y)], title="t", x_label="x", y_label="y", **options))
    (points,) = read_back(chart)
    np.testing.assert_allclose(points[:, 0], x, atol=1e-3 * np.ptp(x))
    np.testing.assert_allclose(points[:, 1], y, atol=1e-3 * np.ptp(y))
    # The mark at the end lies on the last point of the line.
    (end,) = find(chart, "circle", "end")
    line = polylines(chart)[0]
    assert percentage(end.get("cx")) * 1000 == pytest.approx(line[-1, 0], abs=0.02)
    assert float(end.get("cy")) == pytest.approx(line[-1, 1], abs=0.01)


def test_line_chart_names_values_and_tooltips():
    chart = parse(
        line_chart(
            [Series("tokens", [1, 2, 3], [0.5, 0.7, 0.9337]), Series("pixels", [1, 2], [0.6, 0.8])],
            title="Accuracy",
            x_label="epoch",
            y_label="top-1",
            y_format="percent",
        )
    )
    labels = [words(one) for one in find(chart, "text", "end-label")]
    assert [label.split(maxsplit=1)[1] for label in labels] == ["93.4% tokens", "80.0% pixels"]
    assert "tokens: 70.0% at epoch 2" in [one.text for one in chart.iter("title")]
    assert {"Accuracy", "epoch", "top-1"} <= {one.text for one in chart.iter()}
    assert [line.get("class") for line in find(chart, "polyline")] == ["c0", "c1"]


def test_points_that_are_not_finite_are_skipped():
    y = [1.0, math.nan, 3.0, math.inf, -math.inf, 6.0]
    chart = line_chart([Series("s", range(6), y)], title="t", x_label="x", y_label="y")
    (points,) = read_back(parse(chart))
    np.testing.assert_allclose(points, [[0, 1], [2, 3], [5, 6]], atol=0.01)
    assert "nan" not in chart.lower()


@pytest.mark.parametrize("series", [[], [Series("s", [], [])], [Series("s", [1], [math.nan])]])
def test_line_chart_without_data_says_so(series):
    chart = parse(line_chart(series, title="Loss", x_label="x", y_label="y"))
    assert words(chart) == "Loss no data"


def test_empty_series_beside_a_full_one_is_named_in_the_legend():
    both = [Series("full", [0, 1], [0, 1]), Series("void", [], [])]
    chart = parse(line_chart(both, title="t", x_label="x", y_label="y"))
    assert len(polylines(chart)) == 1
    assert [one.findtext(".") for one in find(chart, "li", "empty")] == [""]
    assert "void (no data)" in words(chart)


@pytest.mark.parametrize("ends", [[0.9, 0.901, 0.902], [0.0] * 5, [1.0] * 14, [0.0, 1.0, 1.0]])
def test_labels_at_line_ends_do_not_overlap(ends):
    series = [Series(f"s{i}", [0, 1], [0.5, end]) for i, end in enumerate(ends)]
    chart = parse(line_chart(series, title="t", x_label="x", y_label="y", y_range=(0, 1)))
    heights = [float(one.get("y")) for one in find(chart, "text", "end-label")]
    assert min(np.diff(np.sort(heights))) >= 18
    lines = find(chart, "line", "grid")
    assert min(heights) >= 0
    assert max(heights) <= max(float(one.get("y1")) for one in lines)
    order = np.argsort(heights, kind="stable")
    assert np.all(np.diff(np.array(ends)[order]) <= 0)  # and keep the order of the lines


def test_fixed_range_cuts_what_leaves_it():
    series = [Series("s", [0, 1, 2, 3], [0.2, 0.4, 0.6, 5.0])]
    chart = parse(line_chart(series, title="t", x_label="x", y_label="y", y_range=(0, 1)))
    (drawing,) = [one for one in find(chart, "svg") if one.get("preserveAspectRatio")]
    assert drawing.get("overflow") == "hidden"
    assert not find(chart, "circle", "end")
    assert "5 s" in words(chart)  # the last value is still told


def test_a_long_line_is_thinned_but_keeps_its_spikes():
    y = np.zeros(100_000)
    y[54_321] = 1.0
    chart = parse(
        line_chart([Series("s", np.arange(y.size), y)], title="t", x_label="x", y_label="y")
    )
    (points,) = read_back(chart)
    assert len(points) <= 1000
    assert points[:, 1].max() == pytest.approx(1.0, abs=0.01)
    assert len(find(chart, "circle", "hit")) <= 120


@pytest.mark.parametrize("value", [0.0, 3.0, -2e-9, 1e300, 1e-305])
def test_a_single_point_has_an_axis_around_it(value):
    chart = line_chart([Series("s", [4], [value])], title="t", x_label="x", y_label="y")
    ((x, y),) = polylines(parse(chart))[0]
    assert x == 500
    assert 0 < y < 260


def test_faint_lines_stand_behind_the_next_full_one():
    runs = [Series("run", [0, 1, 2], [value, value, value + 1], faint=True) for value in (1, 3)]
    lines = [*runs, Series("mean", [0, 1, 2], [2, 2, 3]), Series("other", [0, 2], [0, 4])]
    chart = parse(line_chart(lines, title="t", x_label="x", y_label="y"))
    classes = [one.get("class") for one in find(chart, "polyline")]
    assert classes == ["c0 faint", "c0 faint", "c0", "c1"]
    assert [one.text.strip() for one in find(chart, "tspan", "name")] == ["mean", "other"]
    assert [words(one) for one in find(chart, "li")] == ["mean", "other"]
    assert len(find(chart, "circle", "hit")) == 5
    alone = parse(line_chart(runs, title="t", x_label="x", y_label="y"))
    assert len(find(alone, "polyline", "faint")) == 2


def test_line_chart_refuses_what_it_cannot_draw():
    options = {"title": "t", "x_label": "x", "y_label": "y"}
    with pytest.raises(UsageError, match="same length"):
        line_chart([Series("s", [1, 2], [1])], **options)
    with pytest.raises(UsageError, match="y_range"):
        line_chart([], y_range=(1, 1), **options)


@given(
    st.lists(st.floats(-1e12, 1e12), min_size=1, max_size=5),
    st.booleans(),
    st.integers(2, 8),
)
def test_ticks_are_few_round_and_within_the_axis(values, rounded, num_steps):
    values = np.array(values)
    axis = Axis.around(values, num_steps=num_steps, rounded=rounded)
    ticks = axis.ticks()
    slack = 1e-6 * axis.step + 1e-9 * abs(values).max()
    assert axis.low <= values.min() + slack
    assert axis.high >= values.max() - slack
    assert all(axis.low - slack <= tick <= axis.high + slack for tick in ticks)
    assert len(ticks) <= num_steps + 3
    if rounded:
        assert len(ticks) >= 2
    mantissa = axis.step / 10.0 ** math.floor(math.log10(axis.step) + 1e-9)
    assert min(abs(mantissa - nice) for nice in (1, 2, 5)) < 1e-6


def test_tick_labels_share_decimals_and_unit():
    assert Axis(-0.4, 0.2, 0.2).labels() == ["−0.4", "−0.2", "0", "0.2"]
    assert Axis(0, 1.5e5, 5e4).labels() == ["0", "50k", "100k", "150k"]
    assert Axis(0.9, 0.95, 0.02).labels(as_percent=True) == ["90%", "92%", "94%"]
    assert Axis(0.93, 0.935, 0.002).labels(as_percent=True) == ["93.0%", "93.2%", "93.4%"]


@pytest.mark.parametrize(
    ("num_bytes", "shown"),
    [
        (0, "0 B"),
        (812, "812 B"),
        (999.4, "999 B"),
        (999.6, "1 kB"),
        (1_290, "1.29 kB"),
        (12_900, "12.9 kB"),
        (99_960, "100 kB"),
        (999_900, "1 MB"),
        (150_528_000, "151 MB"),
        (1.5e12, "1.5 TB"),
        (math.nan, "–"),
    ],
)
def test_bytes_are_readable(num_bytes, shown):
    assert human_bytes(num_bytes) == shown


def test_counts_agree_with_their_noun():
    assert [counted(n, "file") for n in (0, 1, 2000)] == ["0 files", "1 file", "2,000 files"]
    assert counted(1, "class", "classes") == "1 class"
    assert counted(3, "class", "classes") == "3 classes"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (1_281_167, "1,281,167"),
        (0.93371, "0.9337"),
        (-2.5, "−2.5"),
        (12.9, "12.9"),
        (1e-9, "1e-09"),
        (-0.0, "0"),
        (math.inf, "–"),
    ],
)
def test_numbers_are_readable(value, shown):
    assert number(value) == shown


def bar_lengths(chart):
    return [percentage(one.get("width")) for one in find(chart, "rect", "bar")]


def test_bars_are_proportional_and_labelled():
    bars = [Bar("tokens", 1_290, "14 bits a code"), Bar("JPEG", 12_900)]
    chart = parse(bar_chart(bars, title="Storage", unit_label="bytes per image"))
    assert bar_lengths(chart) == pytest.approx([0.1, 1.0])
    assert [one.text for one in find(chart, "text", "value")] == ["1.29 kB", "12.9 kB"]
    assert "14 bits a code" in words(chart)
    assert "log" not in words(chart)


def test_log_bars_follow_their_decades():
    bars = [Bar(str(value), value) for value in (50.0, 500.0, 50_000.0, 0.0, -1.0, math.nan)]
    chart = parse(bar_chart(bars, title="t", unit_label="images per second", log=True))
    lengths = bar_lengths(chart)
    # One decade longer is one decade's width more, wherever the axis starts.
    assert (lengths[2] - lengths[1]) / (lengths[1] - lengths[0]) == pytest.approx(2, abs=1e-3)
    assert lengths[2:] == [1.0, 0.0, 0.0, 0.0]
    assert "images per second, log scale" in words(chart)
    (scale,) = find(chart, "li", "scale")
    ticks = {one.text: percentage(one.get("x")) for one in scale.iter("text")}
    assert ticks["100"] == pytest.approx(
        (lengths[0] + (lengths[1] - lengths[0]) * np.log10(2)), abs=1e-4
    )
    assert [one.text for one in find(chart, "text", "value")] == [
        "50",
        "500",
        "50,000",
        "0",
        "−1",
        "–",
    ]


def test_bars_without_bars_or_values():
    assert words(parse(bar_chart([], title="t", unit_label="bytes"))) == "t no data"
    for log in (False, True):
        chart = parse(bar_chart([Bar("none", 0)], title="t", unit_label="bytes", log=log))
        assert bar_lengths(chart) == [0.0]
        assert "0 B" in words(chart)


def cells_of(chart):
    return {(int(one.get("y")), int(one.get("x"))): one for one in find(chart, "rect", "cell")}


def test_confusion_matrix_is_normalised_by_row():
    chart = parse(confusion_matrix(COUNTS, classes=CLASSES, title="Confusion"))
    cells = cells_of(chart)
    shares = np.array([[0.8, 0.2, 0], [0.1, 0.6, 0.3], [0, 0, 0]])
    assert len(cells) == 9
    for (i, j), cell in cells.items():
        assert float(cell.get("fill-opacity")) ** 2 == pytest.approx(shares[i, j], abs=2e-3)
        assert cell.get("class").split()[1] == ("c0" if i == j else "c1")
        expected = (
            f"{CLASSES[i]} → {CLASSES[j]}: {COUNTS[i, j]} ({shares[i, j]:.1%} of {CLASSES[i]})"
        )
        assert cell.findtext("title") == expected
    written = [one.text for one in find(chart, "text", "count")]
    assert written == [str(count) for count in COUNTS.ravel()]
    assert sorted(one.text for one in find(chart, "text", "tick")) == sorted(CLASSES * 2)


def test_large_matrices_drop_text_then_cells():
    rng = np.random.default_rng(0)
    for N, has_names in ((21, True), (100, False)):
        counts = rng.integers(0, 3, (N, N))
        chart = parse(confusion_matrix(counts, classes=[f"class {i}" for i in range(N)], title="t"))
        assert not find(chart, "text", "count")
        assert bool(find(chart, "text", "tick")) is has_names
        assert len(cells_of(chart)) == np.count_nonzero(counts)
    counts = np.diag(np.full(101, 50))
    counts[7, 3] = 12
    chart = parse(confusion_matrix(counts, classes=[f"class {i}" for i in range(101)], title="t"))
    assert not find(chart, "svg")
    assert [words(one) for one in find(chart, "td")] == ["class 7", "class 3", "12", "19.4%"]


def test_worst_confused_ranks_wrong_pairs_only():
    rows = worst_confused(COUNTS, classes=CLASSES)
    assert rows == [("dog", "eel", 3, 0.3), ("cat", "dog", 2, 0.2), ("dog", "cat", 1, 0.1)]
    assert worst_confused(COUNTS, classes=CLASSES, top=1) == rows[:1]
    assert worst_confused(np.eye(3, dtype=int), classes=CLASSES) == []
    # Of equal counts the larger share comes first.
    tied = np.array([[90, 5, 5], [5, 5, 0], [0, 0, 1]], np.uint8)
    assert [(r.true, r.predicted) for r in worst_confused(tied, classes=CLASSES)] == [
        ("dog", "cat"),
        ("cat", "dog"),
        ("cat", "eel"),
    ]


@pytest.mark.parametrize("bad", [COUNTS[:2], COUNTS / 2, -COUNTS, np.eye(4, dtype=int)])
def test_confusion_counts_must_be_counts(bad):
    with pytest.raises(UsageError, match="expected"):
        confusion_matrix(bad, classes=CLASSES, title="t")


def test_confusion_without_counts_says_so():
    for counts, classes in ((np.zeros((0, 0)), []), (np.zeros((3, 3), int), CLASSES)):
        assert words(parse(confusion_matrix(counts, classes=classes, title="t"))) == "t no data"


def decoded(image):
    head, data = image.get("src").split(",")
    kind = re.fullmatch(r"data:image/(png|jpeg);base64", head)[1]
    picture = Image.open(io.BytesIO(base64.b64decode(data, validate=True)))
    assert picture.format.lower() == kind
    return np.asarray(picture), kind


def test_small_pictures_travel_bit_for_bit():
    pictures = list(np.random.default_rng(0).integers(0, 256, (3, 32, 48, 3), np.uint8))
    grid = parse(image_grid([("original", pictures), ("from tokens", pictures[:1])], title="Eight"))
    images = find(grid, "img")
    assert [one.get("alt") for one in images] == [
        "original, image 1 of 3",
        "original, image 2 of 3",
        "original, image 3 of 3",
        "from tokens, image 1 of 1",
    ]
    for image, picture in zip(images, [*pictures, pictures[0]], strict=True):
        got, kind = decoded(image)
        assert kind == "png"
        np.testing.assert_array_equal(got, picture)
    assert (images[0].get("width"), images[0].get("height")) == ("128", "85")
    assert [one.text for one in find(grid, "div", "row-label")] == ["original", "from tokens"]


def test_captions_stand_below_their_pictures():
    pictures = list(np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), np.uint8))
    row = [Captioned(pictures[0], HOSTILE), pictures[1]]
    grid = parse(image_grid([("r", row)], title="t"))
    assert len(find(grid, "img")) == 2
    (caption,) = find(grid, "div", "caption")
    assert caption.text.startswith("<script>")
    np.testing.assert_array_equal(decoded(find(grid, "img")[0])[0], pictures[0])


def test_large_pictures_travel_nearly_so_and_no_larger_than_needed():
    y, x = np.mgrid[0:256, 0:256]
    picture = np.stack([x, y, 255 - x], axis=-1).astype(np.uint8)
    got, kind = decoded(find(parse(image_grid([("r", [picture])], title="t")), "img")[0])
    assert kind == "jpeg"
    assert np.abs(got.astype(int) - picture).mean() < 1.5
    got, _ = decoded(find(parse(image_grid([("r", [picture])], title="t", cell=50)), "img")[0])
    assert got.shape == (100, 100, 3)


@pytest.mark.parametrize(
    "bad", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8)]
)
def test_pictures_must_be_uint8_rgb(bad):
    with pytest.raises(UsageError, match="uint8 of shape"):
        image_grid([("r", [bad])], title="t")


def test_no_pictures():
    for rows in ([], [("r", [])]):
        assert words(parse(image_grid(rows, title="t"))) == "t no data"


def test_tables_align_numbers_right():
    chart = parse(
        table(
            [("a", 1290, "12.9 kB", None), ("7", np.float32(0.5), "–", True)],
            header=("name", "count", "size", "flag"),
            title="T",
            caption="below",
        )
    )
    cells = find(chart, "td")
    assert [one.text for one in cells] == ["a", "1,290", "12.9 kB", "–", "7", "0.5", "–", "True"]
    right = [one.get("class") == "number" for one in find(chart, "th") + cells]
    assert right == [False, True, True, False] * 3
    assert words(chart).startswith("T ")
    assert words(chart).endswith(" below")
    assert words(parse(table([], header=("a",), title="T"))) == "T no data"
    with pytest.raises(UsageError, match="row 1"):
        table([(1, 2), (1,)], header=("a", "b"))


def test_figures_show_values():
    tiles = parse(figures([Figure("Images", 1_281_167, "all readable"), Figure("Smaller", "10×")]))
    assert words(tiles) == "Images 1,281,167 all readable Smaller 10×"
    assert figures([]) == ""


def everything(name):
    """Build every kind of fragment with ``name`` wherever a user's text can stand."""
    counts = np.array([[3, 1], [1, 3]])
    picture = np.zeros((2, 2, 3), np.uint8)
    return [
        line_chart([Series(name, [0, 1], [0, 1])], title=name, x_label=name, y_label=name),
        line_chart(
            [Series(name, [], []), Series(name, [0], [0])], title=name, x_label="", y_label=""
        ),
        bar_chart([Bar(name, 3, name)], title=name, unit_label=name, log=True),
        confusion_matrix(counts, classes=[name, name], title=name),
        confusion_matrix(
            np.pad(counts, (0, 99)), classes=[name + str(i) for i in range(101)], title=name
        ),
        image_grid([(name, [picture])], title=name),
        table([(name, 1)], header=(name, name), title=name, caption=name),
        figures([Figure(name, name, name)]),
    ]


def test_hostile_names_stay_text():
    fragments = everything(HOSTILE)
    for fragment in fragments:
        assert isinstance(fragment, Markup)
        node = parse(fragment)
        assert not find(node, "script")
        assert "<script>alert" in words(node)
        assert all(not key.startswith("on") for one in node.iter() for key in one.attrib)
    whole = page(
        HOSTILE,
        lead=HOSTILE,
        sections=[Section(HOSTILE, fragments, HOSTILE), Section("plain", HOSTILE)],
        footer=HOSTILE,
    )
    assert "<script" not in whole
    assert not re.search("[\x00\x1b\u202e\ud800-\udfff]", whole)
    tree = ET.fromstring(whole.encode())
    assert words(tree.find("head/title")).startswith("<script>")


@given(st.text(st.characters(), max_size=20))
def test_any_name_gives_well_formed_markup(name):
    parse(table([(name, name)], header=(name, ""), title=name))
    parse(confusion_matrix(np.eye(1, dtype=int), classes=[name], title=name))


def test_page_holds_its_sections_and_fetches_nothing():
    html = page(
        "Title",
        lead="One line.",
        sections=[
            Section("First", figures([Figure("a", 1)]), "A paragraph.\n\nAnother."),
            Section("Second", everything("name")),
            Section("Third", []),
        ],
        footer="made by hand",
    )
    tree = ET.fromstring(html)
    assert html.startswith("<!DOCTYPE html>")
    assert [one.text for one in tree.iter("h2")] == ["First", "Second", "Third"]
    assert [one.text for one in tree.find("body/main/section").iter("p")] == [
        "A paragraph.",
        "Another.",
    ]
    assert tree.find("body/footer").text == "made by hand"
    assert not {"script", "link", "iframe", "object"} & {one.tag for one in tree.iter()}
    sources = [one.get(key) for one in tree.iter() for key in ("src", "href") if one.get(key)]
    assert sources
    assert all(source.startswith("data:image/") for source in sources)
    assert not re.search(r"url\(|@import|https?:", html)
    policy = next(one for one in tree.iter("meta") if one.get("http-equiv"))
    assert policy.get("content").startswith("default-src 'none'")


def test_write_page_replaces_the_whole_file_or_nothing(tmp_path, monkeypatch):
    path = tmp_path / "new" / "report.html"
    write_page(path, "<p>old – größer</p>")
    assert path.read_text("utf-8") == "<p>old – größer</p>"

    def full_disk(*arguments):
        raise OSError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full_disk)
        patch.setattr(os, "rename", full_disk)
        patch.setattr(os, "fsync", full_disk)
        with pytest.raises(SeitError, match="could not be written"):
            write_page(path, "<p>new</p>")
    assert path.read_text("utf-8") == "<p>old – größer</p>"
    write_page(path, "<p>new</p>")
    assert path.read_text("utf-8") == "<p>new</p>"
    assert [one.name for one in path.parent.iterdir()] == ["report.html"]
