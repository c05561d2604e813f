"""Inputs of layers from those of their block: the same bits, in time linear in the depth."""

from collections import Counter

import pytest
import timm
import torch
from torch import nn

from seit.compression.weights import carry
from seit.compression.weights.carry import Carried, block_order
from seit.compression.weights.moments import call_order, layer_inputs

VIT = {"img_size": 32, "patch_size": 8, "embed_dim": 12, "depth": 4, "num_heads": 2}
NETWORKS = {
    "vit": lambda: timm.create_model("vit_tiny_patch16_224", num_classes=3, **VIT),
    "resnet": lambda: timm.create_model(
        "resnet18", num_classes=3, channels=(4, 4, 8, 8), stem_width=4
    ),
    "convnext": lambda: timm.create_model(
        "convnext_tiny", num_classes=3, depths=(1, 2, 1, 1), dims=(4, 4, 8, 8)
    ),
    "plain": lambda: nn.Sequential(nn.Flatten(), nn.Linear(3072, 8), nn.ReLU(), nn.Linear(8, 3)),
}


def layers_of(model, inputs):
    names = [name for name, one in model.named_modules() if isinstance(one, nn.Linear | nn.Conv2d)]
    return call_order(model, inputs, names)


@pytest.mark.parametrize("make", NETWORKS.values(), ids=NETWORKS.keys())
def test_inputs_are_bit_for_bit_those_of_whole_passes(make):
    torch.manual_seed(0)
    model = make().eval().requires_grad_(False)
    batches = [torch.randn(2, 3, 32, 32), torch.randn(1, 3, 32, 32)]
    carried = Carried(model, lambda: iter(batches), block_order(model, batches[0]))
    layers = layers_of(model, batches[0])
    for name, calls in layers.items():
        for inputs, found in zip(batches, carried.inputs(name, calls=calls), strict=True):
            (expected,) = layer_inputs(model, name, inputs, calls=calls)
            assert torch.equal(found[0], expected)
        weight = model.get_submodule(name).weight
        weight.copy_((weight * 8).round() / 8)  # as if the layer were quantized now
    assert len(layers) > 1


def test_passes_are_linear_in_the_depth():
    torch.manual_seed(0)
    model = NETWORKS["vit"]().eval()
    inputs = torch.randn(2, 3, 32, 32)
    before = block_order(model, inputs)
    assert before == {"blocks.0": None} | {f"blocks.{i}": f"blocks.{i - 1}" for i in (1, 2, 3)}
    layers = layers_of(model, inputs)
    calls = Counter()
    for number, one in enumerate(model.blocks):
        one.register_forward_pre_hook(lambda *_, number=number: calls.update([number]))
    carried = Carried(model, lambda: [inputs], before)
    for name in layers:
        list(carried.inputs(name, calls=1))
    # Its own four layers, the step to the next block, and the classifier; the first block is
    # reached, but not computed, when its inputs are taken.
    assert calls == {0: 7, 1: 6, 2: 6, 3: 5}


def test_blocks_with_something_else_between_are_not_linked():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(4, 4)) for _ in range(2))

        def forward(self, x):
            return self.blocks[1](self.blocks[0](x) * 2)

    model = Scaled().eval()
    assert set(block_order(model, torch.randn(2, 4)).values()) == {None}
    carried = Carried(model, lambda: [inputs], block_order(model, inputs := torch.randn(2, 4)))
    ((found,),) = carried.inputs("blocks.1.0", calls=1)
    assert torch.equal(found, model.blocks[0](inputs) * 2)


def test_large_inputs_are_not_kept(monkeypatch):
    monkeypatch.setattr(carry, "MAX_CARRIED_BYTES", 100)
    model = NETWORKS["vit"]().eval()
    inputs = torch.randn(2, 3, 32, 32)
    carried = Carried(model, lambda: [inputs], block_order(model, inputs))
    ((found,),) = carried.inputs("blocks.2.mlp.fc1", calls=1)
    assert torch.equal(found, layer_inputs(model, "blocks.2.mlp.fc1", inputs, calls=1)[0])
    assert carried._inputs == []
