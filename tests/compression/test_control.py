"""Accuracy control: which layers stay in float."""

import pytest

from seit.compression.control import keep_accuracy, most_sensitive_first

HARM = {"a": 0.01, "b": 0.20, "c": 0.05, "d": 0.0}


def top1_of(kept):
    return 0.9 - sum(harm for name, harm in HARM.items() if name not in kept)


def control(max_drop, order=lambda: most_sensitive_first(HARM)):
    return keep_accuracy(
        list(HARM), top1_of, top1_before=0.9, max_drop=max_drop, samples=100, order=order
    )


def test_the_most_sensitive_layers_go_back_until_the_drop_is_allowed():
    assert control(0.015).kept == ("b", "c")
    assert control(0.1).kept == ("b",)
    assert control(0.015).drop == pytest.approx(0.01)
    assert control(0.0).kept == ("b", "c", "a")


def test_nothing_is_ordered_where_nothing_has_to_go_back():
    def never():
        raise AssertionError

    found = control(0.3, order=never)
    assert found.kept == ()
    assert found.top1 == (pytest.approx(0.64),)


def test_the_record_tells_every_step():
    note = control(0.015).note()
    assert note["kept_float"] == ["b", "c"]
    assert note["top1"] == pytest.approx([0.64, 0.84, 0.89])
    assert "2 of 4 layers" in str(control(0.015).section())
