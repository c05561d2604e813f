"""Quantization of whole networks, layer by layer."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from seit.compression.config import CompressConfig, CompressionConfig
from seit.compression.weights.network import quantize_network, with_weights


class Twice(nn.Module):
    """A small CNN with grouped convolutions, a layer called twice, and one never called."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.grouped = nn.Conv2d(8, 8, 3, padding=1, groups=2)
        self.depthwise = nn.Conv2d(8, 8, 3, padding="same", groups=8)
        self.norm = nn.BatchNorm2d(8)
        self.shared = nn.Linear(8, 8)
        self.unused = nn.Linear(8, 5)
        self.head = nn.Linear(8, 4)

    def forward(self, inputs):
        features = self.depthwise(self.grouped(self.stem(inputs).relu()).relu())
        pooled = self.norm(features).relu().mean((2, 3))
        return self.head(self.shared(self.shared(pooled).relu()))


def stand_in(model, **settings):
    """Return what `quantize_network` needs of a subject: inputs that correlate over space."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randn(64, 3, 3, 3, generator=generator)
    inputs = nn.functional.interpolate(coarse, size=9, mode="bilinear")
    told = []
    subject = SimpleNamespace(
        model=model,
        config=CompressConfig(compression=CompressionConfig(**settings)),
        tokens=lambda rows: inputs.split(24),
        augment=SimpleNamespace(evaluate=lambda tokens: tokens),
        calibration_rows=None,
        tell=lambda done, total: told.append((done, total)),
    )
    return subject, inputs, told


NAMES = ("stem", "grouped", "depthwise", "shared", "unused", "head")


@pytest.mark.parametrize(
    ("rounding", "bits", "share"),
    [("gptq", 2, 0.6), ("gptq", 3, 0.6), ("gptq", 4, 0.6), ("adaround", 3, 1.0)],
)
def test_roundings_for_the_inputs_beat_nearest_on_a_cnn(rounding, bits, share):
    torch.manual_seed(0)
    model = Twice().eval()
    before = {name: one.clone() for name, one in model.state_dict().items()}
    errors = []
    for name in (rounding, "nearest"):
        subject, inputs, told = stand_in(model, rounding=name, adaround_steps=100)
        packed = quantize_network(subject, dict.fromkeys(NAMES, bits))
        assert told == [(done, 6) for done in range(7)]
        assert packed.keys() == set(NAMES)
        with torch.inference_mode():
            exact, found = model(inputs), with_weights(model, packed)(inputs)
        errors.append(float((found - exact).norm() / exact.norm()))
    assert errors[0] < share * errors[1]
    assert all(torch.equal(one, before[name]) for name, one in model.state_dict().items())


def test_layers_that_are_not_named_stay_in_float():
    model = Twice().eval()
    subject, _, _ = stand_in(model)
    packed = quantize_network(subject, {"grouped": 4})
    changed = with_weights(model, packed).state_dict()
    assert [
        name for name, one in model.state_dict().items() if not torch.equal(one, changed[name])
    ] == ["grouped.weight"]
