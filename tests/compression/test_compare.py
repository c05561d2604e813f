"""Several methods of compression on one run: the table, its fronts, and resumption."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

import seit
from seit.compression.compare.pareto import pareto_front
from seit.compression.compare.rows import largest_ms, method_row, with_fronts
from seit.compression.footprint.clock import Latency
from seit.errors import UsageError
from seit.training import Run, Spread, mcnemar_p, read_predictions

POINTS = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=12)


@settings(deadline=None)
@given(POINTS)
def test_the_front_is_that_of_the_definition(points):
    def beats(one, other):
        return one[0] <= other[0] and one[1] >= other[1] and one != other

    expected = [not any(beats(one, other) for one in points) for other in points]
    costs, qualities = zip(*points, strict=True)
    assert pareto_front(costs, qualities) == expected


@pytest.fixture(scope="module")
def compared(learned, pattern_store, tmp_path_factory):
    """Return the comparison of two methods with two seeds, and its folder."""
    out = tmp_path_factory.mktemp("compared") / "out"
    result = seit.compress(learned, store=pattern_store, out=out, method="w8,w2", seeds=2)
    return result, out


def test_each_method_and_seed_is_a_run(compared, pattern_store):
    result, out = compared
    assert [row.method for row in result.rows] == ["w8", "w2"]
    for row in result.rows:
        for seed, one in row.results.items():
            folder = out / row.method / f"seed-{seed}"
            assert Run.open(folder).info["status"] == "finished"
            assert seit.evaluate(folder, store=pattern_store).top1 == one.top1
    assert json.loads((out / "methods.json").read_text()).keys() == result.record().keys()


def test_the_table_pairs_with_the_source(compared, learned):
    result, out = compared
    before = read_predictions(Run.open(learned)).right
    for row in result.rows:
        runs = [read_predictions(Run.open(out / row.method / f"seed-{s}")).right for s in (0, 1)]
        change = np.mean([one.astype(float) - before for one in runs], axis=0)
        assert row.difference == pytest.approx(change.mean())
        assert row.difference_se == pytest.approx(np.std(change, ddof=1) / len(change) ** 0.5)
        lost = [int((before & ~one).sum()) for one in runs]
        won = [int((one & ~before).sum()) for one in runs]
        assert row.p_value == max(map(mcnemar_p, lost, won))
        assert row.is_shown == (abs(row.difference) > 2 * row.difference_se)


def test_fronts_hold_the_smallest_and_the_best(compared):
    result, _ = compared
    rows = [result.source, *result.rows]
    smallest = min(rows, key=lambda row: row.bytes.mean)
    assert result.fronts["bytes"][0] == smallest.method == "w2"
    best = max(row.top1.mean for row in rows)
    assert any(row.top1.mean == best and "bytes" in row.fronts for row in rows)
    assert "source" not in result.fronts["bytes"], "as good as w8, and larger"
    assert result.fronts["latency"] == (), "nothing was measured"
    same = [row.method for row in rows if row.top1.mean == best]
    assert sorted(result.fronts["flops"]) == sorted(same), "all have the same operations"


def test_times_have_a_front_of_their_own(compared):
    result, _ = compared
    rows = [result.source, *result.rows]
    timed = [replace(row, latency_ms=Spread.of([9.0 - i])) for i, row in enumerate(rows)]
    marked, fronts = with_fronts(timed)
    assert fronts["latency"][0] == rows[-1].method
    assert "latency" in marked[-1].fronts
    twice = {
        name: Latency(p50=5.0, p95=6.0, cpu_p50=float(name), thread_p50=1.0, repeats=9)
        for name in ("1", "64", "8")
    }
    assert largest_ms(twice) == 64.0


def test_the_report_has_a_row_a_method_and_a_chart_a_cost(compared):
    _, out = compared
    text = (out / "report.html").read_text()
    assert text.count('aria-label="Accuracy against') == 2  # no times
    for name in ("source", "w8", "w2"):
        assert re.search(rf"<td[^>]*>{name}</td>", text)


def test_methods_and_seeds_are_added_without_repeating_runs(compared, learned, pattern_store):
    _, out = compared
    kept = out / "w2" / "seed-0" / "run.json"
    before = kept.stat().st_mtime_ns
    with pytest.raises(UsageError, match="pass --resume"):
        seit.compress(learned, store=pattern_store, out=out, method="w2,w3", seeds=2)
    result = seit.compress(
        learned, store=pattern_store, out=out, method="w2,w3", seeds=2, resume=True
    )
    assert [row.method for row in result.rows] == ["w2", "w3"]
    assert kept.stat().st_mtime_ns == before


def test_methods_that_refuse_are_left_out_only_of_all(
    learned, pattern_store, tmp_path, monkeypatch
):
    from seit.compression import start
    from seit.compression.registry import METHODS

    class Picky:
        def run(self, task):
            raise UsageError("too small for this")

    methods = {"w8": METHODS["w8"], "w3": Picky()}
    monkeypatch.setattr(start, "METHODS", methods)
    monkeypatch.setattr("seit.compression.METHODS", methods)
    result = seit.compress(learned, store=pattern_store, out=tmp_path / "a", method="all")
    assert result.skipped == {"w3": "too small for this"}
    assert [row.method for row in result.rows] == ["w8"]
    assert "too small" in (tmp_path / "a" / "report.html").read_text()
    with pytest.raises(UsageError, match="too small"):
        seit.compress(learned, store=pattern_store, out=tmp_path / "b", method="w8,w3")


def test_other_samples_are_not_paired(compared, learned, monkeypatch):
    result, out = compared
    row = result.rows[0]
    seeds = type("Found", (), {"results": row.results, "top1": row.top1})()
    source = Run.open(out / "w8" / "seed-1")
    monkeypatch.setattr(
        "seit.compression.compare.rows.read_predictions",
        lambda run: None if run is source else read_predictions(run),
    )
    found = method_row("w8", seeds, source=source, runs=[out / "w8" / "seed-0"])
    assert (found.difference_se, found.p_value, found.is_shown) == (None, None, None)


@pytest.mark.parametrize(
    ("method", "words"), [("w8,w8", "name each method once"), ("w9", "no method 'w9'")]
)
def test_wrong_methods_are_refused(learned, pattern_store, tmp_path, method, words):
    with pytest.raises(UsageError, match=words):
        seit.compress(learned, store=pattern_store, out=tmp_path / "out", method=method)
    assert not (tmp_path / "out").exists()
