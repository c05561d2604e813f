"""Two networks on the same files, cut into other windows."""

import numpy as np
import pytest
from support.planted import RATE, SECONDS, Planted

from seit.analysis.layers.analyze import analyze_layers, other_subject
from seit.analysis.layers.config import AnalyzeConfig
from seit.analysis.layers.counterparts import counterparts
from seit.analysis.layers.maps import compare_layers
from seit.analysis.subjects.base import Clip, Place
from seit.errors import UsageError


class Halves(Planted):
    """The same layers, of the first and the second half of each file."""

    name = "halves"

    @property
    def places(self):
        half = SECONDS / 2
        return [
            Place(f"{place.key}#{part}", place.file, place.label, part * half, half)
            for place in super().places
            for part in range(2)
        ]

    def clips(self, rows=None):
        count = int(SECONDS * RATE) // 2
        for row in range(2 * len(self.types)) if rows is None else rows:
            part = slice(row % 2 * count, (row % 2 + 1) * count)
            values = self.values[:, row // 2, part]
            yield Clip(
                row=row, values=dict(zip(self.layers, values, strict=True)), seconds=SECONDS / 2
            )


@pytest.mark.parametrize(("first", "second"), [(Halves, Planted), (Planted, Halves)])
def test_a_layer_predicts_itself_in_other_windows(first, second):
    subject = first(12)
    result = analyze_layers(
        subject,
        AnalyzeConfig(target="other@layers.2", method="r2", folds=3, random_twin=False),
        groups=[place.file for place in subject.places],
        other=second(12),
    )
    scores = {layer.name: layer.score for layer in result.layers}
    assert scores["layers.2"] > 0.95
    assert scores["layers.0"] < 0.1
    assert result.target == f"{second.name}@layers.2"


def test_the_map_of_two_networks_has_its_diagonal():
    values = np.array(compare_layers(Halves(20), Planted(20)).cka)
    assert np.allclose(np.diag(values), 1.0, atol=1e-6)
    assert np.abs(values[0, 1:]).max() < 0.1


def test_files_that_one_of_them_lacks_are_named():
    with pytest.raises(UsageError, match=r"20 of 40 instances of halves .*the first: 10\.wav#0"):
        counterparts(Halves(20), Planted(10))
    found = counterparts(Planted(4), Halves(8))
    assert [(one.row, one.other) for one in found] == [(0, 0), (1, 2), (2, 4), (3, 6)]
    assert (found[1].start, found[1].end) == (0.0, SECONDS / 2)


def test_views_of_a_picture_are_matched_by_their_keys():
    class Pictures:
        name = "pictures"

        def __init__(self, *keys):
            self.places = [Place(key, "a.jpg", 0) for key in keys]

    views = Pictures("a.jpg", "a.jpg#v1", "a.jpg#v2")
    assert [one.other for one in counterparts(views, views)] == [0, 1, 2]
    assert [one.other for one in counterparts(views, Pictures("a.jpg"))] == [0, 0, 0]


def test_names_of_targets():
    assert other_subject("timm:vit_tiny_patch16_224@blocks.3") == "timm:vit_tiny_patch16_224"
    assert other_subject("label") is None
    assert other_subject("layer:blocks.3") is None
    assert other_subject("a@b/numbers.npy") is None
