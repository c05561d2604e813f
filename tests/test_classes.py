"""Lists of classes meet by name."""

import time
import unicodedata

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from seit.classes import (
    folded,
    match_classes,
    near_names,
    split_warning,
    unite_classes,
)
from seit.errors import UsageError

NFC, NFD = "caf\u00e9", "cafe\u0301"


@given(st.permutations(["1", "2", "10", "x"]), st.permutations(["1", "2", "10", "y"]))
def test_labels_keep_their_names(classes, known):
    found = match_classes(classes, known)
    labels = np.arange(4)
    assert [known[label] if label >= 0 else None for label in found.relabel(labels).tolist()] == [
        name if name in known else None for name in classes
    ]
    assert found.unknown == ("x",)
    assert found.missing == ("y",)
    assert found.relabel(np.array([-1])).tolist() == [-1]
    assert not found.is_identity
    assert match_classes(classes, classes).is_identity


def test_loose_spelling_takes_only_what_is_unambiguous():
    known = ["cat", NFC, "sea_lion", "A", "a"]
    found = match_classes(["Cat", NFD, "Sea lion", "a", "ｂ"], known)
    assert found.unknown == ("Cat", NFD, "Sea lion", "ｂ")
    found = match_classes(["Cat", NFD, "Sea lion", "a", "\uff41", "b"], known, loose=True)
    assert found.numbers.tolist() == [0, 1, 2, 4, -1, -1], "a full-width a is A or a"


@settings(max_examples=40)
@given(st.text(max_size=8))
def test_near_names_are_found_in_every_form(name):
    other = unicodedata.normalize("NFD", name).upper().replace(" ", "_")
    assert folded(name) == folded(unicodedata.normalize("NFD", name))
    if folded(other) == folded(name) and other != name:
        assert near_names([other], [name]) == {other: name}
    assert near_names([name], [name]) == {}


def test_two_classes_of_one_name_are_refused_unless_the_lists_are_the_same():
    crane = ("crane", "dog", "crane")
    assert match_classes(crane, crane).is_identity
    assert unite_classes([crane, crane])[0] == crane
    for lists in ((crane, ("dog",)), (("dog",), crane)):
        with pytest.raises(UsageError, match="two classes are named 'crane'"):
            match_classes(*lists)
        with pytest.raises(UsageError, match="two classes are named 'crane'"):
            unite_classes(lists)


def test_classes_that_are_evaluated_and_not_learned_are_named():
    text = split_warning(["Cat", "Dog", "cat", "dog"], learned=[2, 3, 3], evaluated=[0, 1, -1])
    assert text is not None
    assert "2 of 4 classes have samples in split 'val' and none in 'train'" in text
    assert "'Cat' is nearly 'cat' (case), 'Dog' is nearly 'dog' (case)" in text
    text = split_warning([NFD, NFC, "pub"], learned=[1, 2], evaluated=[0, 2])
    assert text is not None
    assert "another Unicode form" in text
    fine = split_warning(["A", "a", "b"], learned=[0, 1, 2], evaluated=[0, 1])
    assert fine is None, "letters of both cases are learned and evaluated"
    assert split_warning(["A"], learned=[-1], evaluated=[0]) is None, "nothing is labelled"


def test_twenty_thousand_classes_take_no_square_of_time():
    names = [f"Class {number}" for number in range(21_841)]
    started = time.process_time()
    found = match_classes(names[::-1], [name.lower() for name in names], loose=True)
    assert (found.numbers == np.arange(21_841)[::-1]).all()
    split_warning(names, learned=range(1, 21_841), evaluated=range(21_841))
    unite_classes([names, names[::-1]])
    assert time.process_time() - started < 5
