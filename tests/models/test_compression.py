"""Networks that compression leaves: sparse weights, smaller ViTs, rounding to learned steps."""

import copy

import pytest
import torch
from support.backbones import inputs, make_vit
from torch import nn

from seit.errors import DamagedError, UsageError
from seit.models import (
    Compression,
    InputGrid,
    LearnedSteps,
    Selection,
    SparseWeight,
    StoredWeights,
    Structure,
    build_backbone,
    multiples,
    select,
)
from seit.models.compression.steps import round_to_steps

SIZES = {"channels": 6, "input_size": (8, 8), "num_classes": 5, "stem": "auto"}
VIT = {"embed_dim": 24, "depth": 2, "num_heads": 3}


def full(model):
    """Return the selection of everything, as lists."""
    structure = Structure.of(model)
    return {
        "dims": list(range(structure.width)),
        "blocks": list(structure.kept),
        "heads": [list(range(one.heads)) for one in structure.blocks],
        "units": [list(range(one.units)) for one in structure.blocks],
    }


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (4, 2, 3, 3)])
def test_sparse_weights_come_back(shape):
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(shape, generator=generator) * (
        torch.rand(shape, generator=generator) < 0.4
    )
    stored = StoredWeights.of({"w": weight}, {}, {"w": SparseWeight.of(weight)})
    assert torch.equal(stored.dense(origin="test")["w"], weight)
    assert stored.tensors["w.values"].numel() == int((weight != 0).sum())
    places = "".join(f"{byte:08b}" for byte in stored.tensors["w.places"].tolist())
    assert places[: weight.numel()] == "".join(str(int(one != 0)) for one in weight.flatten())


@pytest.mark.parametrize(
    "change",
    [
        {"w.places": torch.zeros(9, dtype=torch.uint8)},
        {"w.places": torch.full((2,), 255, dtype=torch.uint8)},
        {"w.values": torch.zeros(3, dtype=torch.float64)},
        {"w.values": None},
    ],
)
def test_false_sparse_weights_are_refused(change):
    weight = torch.eye(4)[:3]
    stored = StoredWeights.of({"w": weight}, {}, {"w": SparseWeight.of(weight)})
    tensors = {name: one for name, one in {**stored.tensors, **change}.items() if one is not None}
    with pytest.raises(DamagedError, match="sparse weight of shape"):
        StoredWeights(tensors=tensors, compression=stored.compression).dense(origin="test")


@torch.no_grad()
def test_heads_and_units_without_outgoing_weights_leave_no_trace():
    model = make_vit()
    parts = full(model)
    block = model.blocks[1]
    block.attn.proj.weight[:, 8:16] = 0  # head 1 of 3, of 8 dims
    block.mlp.fc2.weight[:, [0, 7, 90]] = 0
    parts["heads"][1] = [0, 2]
    parts["units"][1] = [unit for unit in range(96) if unit not in (0, 7, 90)]
    expected, smaller = model(inputs()), copy.deepcopy(model)
    selection = Selection(**parts)
    select(smaller, selection)
    assert torch.allclose(smaller(inputs()), expected, atol=1e-6)
    assert smaller.blocks[1].attn.qkv.weight.shape == (48, 24)
    weights = smaller.state_dict()
    built = build_backbone(
        "vit_tiny_patch16_224",
        **SIZES,
        **VIT,
        weights=weights,
        structure=selection.structure,
    ).eval()
    built.load_state_dict(weights)
    assert torch.equal(built(inputs()), smaller(inputs()))


def test_parameters_of_a_smaller_vit_are_those_of_the_formula():
    model = make_vit()
    parts = full(model) | {"dims": [*range(0, 24, 2)], "blocks": [1]}
    parts |= {"heads": [[1, 2]], "units": [[*range(40)]]}
    select(model, Selection(**parts))
    dim, inner, units, patches = 12, 2 * 8, 40, model.patch_embed.num_patches
    attention = dim * 3 * inner + 3 * inner + inner * dim + dim
    mlp = dim * units + units + units * dim + dim
    kernel = model.patch_embed.proj.weight[0, 0].numel()
    ends = 6 * kernel * dim + dim + dim + (patches + 1) * dim + 2 * dim + 5 * dim + 5
    count = sum(one.numel() for one in model.parameters())
    assert count == ends + attention + mlp + 2 * 2 * dim
    assert model(inputs()).shape == (4, 5)
    assert [entry["num_chs"] for entry in model.feature_info] == [12]


@pytest.mark.parametrize(
    "change",
    [
        {"width": 25},
        {"width": 0},
        {"kept": (0, 2)},
        {"kept": (1, 0)},
        {"kept": ()},
        {"blocks": ()},
        {"blocks": ({"heads": 3, "units": 97}, {"heads": 3, "units": 96})},
        {"blocks": ({"heads": 3, "units": 96}, {"heads": 0, "units": 96})},
    ],
)
def test_a_structure_larger_than_the_settings_is_refused(change):
    card = Compression(structure=Structure.of(make_vit())).card()
    structure = Compression.of_card(
        {**card, "structure": {**card["structure"], **change}}, origin="test"
    ).structure
    with pytest.raises(DamagedError, match="no part of that of its settings"):
        build_backbone("vit_tiny_patch16_224", **SIZES, **VIT, structure=structure)


def test_networks_that_cannot_be_cut_say_what_is_possible():
    with pytest.raises(UsageError, match="choose the pattern unstructured or 2:4"):
        Structure.of(build_backbone("resnet10t", **SIZES))


@pytest.mark.parametrize("grid", [InputGrid(bits=8, signed=True), InputGrid(bits=9, signed=True)])
def test_roundings_of_other_networks_are_refused(grid):
    name = "blocks.0.attn" if grid.bits == 8 else "blocks.0.attn.qkv"
    with pytest.raises(DamagedError, match="no such layer or bits"):
        Compression(activations={name: grid}).attach(make_vit(), origin="test")


@pytest.mark.parametrize(("bits", "signed"), [(2, True), (3, False), (8, True)])
def test_rounding_and_its_gradients_are_those_of_lsq(bits, signed):
    low, high = multiples(bits, signed=signed)
    generator = torch.Generator().manual_seed(bits)
    ratios = torch.randn(64, generator=generator) * high
    # Within half a step outside the bounds, torch passes the gradient, and LSQ does not.
    bounded = ratios.clamp(0.99 * low, 0.99 * high)
    ratios = torch.where((ratios - bounded).abs() < 0.6, bounded, ratios)
    values, step = (ratios * 0.7).requires_grad_(), torch.tensor([0.7], requires_grad=True)
    upstream = torch.randn(64, generator=generator)
    scale = (64 * high) ** -0.5
    ours = round_to_steps(values, step, low=low, high=high, scale=scale)
    found = torch.autograd.grad(ours, [values, step], upstream)
    theirs = torch._fake_quantize_learnable_per_tensor_affine(
        values, step, torch.zeros(1), low, high, scale
    )
    expected = torch.autograd.grad(theirs, [values, step], upstream)
    assert torch.allclose(ours, theirs, atol=1e-6)
    assert torch.allclose(found[0], expected[0])
    assert torch.allclose(found[1], expected[1].sum(), rtol=1e-4)


def test_the_gradient_of_a_step_is_that_of_the_straight_through_surrogate():
    """Between two multiples, rounding is v/s + (q − v₀/s₀) in all but name."""
    values, step = torch.linspace(-3, 3, 41, dtype=torch.float64), 0.61
    low, high = multiples(3, signed=True)
    ratios = values / step
    inside = (ratios >= low) & (ratios <= high)
    offset = ratios.round() - ratios

    def surrogate(s):
        return (torch.where(inside, values / s + offset, ratios.clamp(low, high)) * s).sum()

    numeric = (surrogate(step + 1e-6) - surrogate(step - 1e-6)) / 2e-6
    steps = torch.tensor(step, requires_grad=True)
    ours = round_to_steps(values.float(), steps, low=low, high=high, scale=1.0).sum()
    assert torch.autograd.grad(ours, steps)[0].item() == pytest.approx(numeric.item(), rel=1e-4)


def test_steps_of_weights_are_those_that_are_stored():
    rule = LearnedSteps(4, signed=True, channels=3, half=True)
    rule.set_steps(torch.tensor([0.1, 0.02, 0.3]))
    steps = rule.steps(2).flatten()
    assert torch.equal(steps, steps.half().float())
    weight = torch.randn(3, 10, generator=torch.Generator().manual_seed(0))
    assert torch.equal(rule(weight), rule.codes(weight) * steps[:, None])
    with torch.no_grad():
        assert torch.equal(rule(weight), rule(weight.requires_grad_()).detach())


def test_rounding_is_float32_under_autocast():
    layer = nn.Linear(8, 8)
    Compression(activations={"": InputGrid(bits=8, signed=True)}).attach(layer, origin="test")
    values = torch.randn(4, 8, dtype=torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert layer.inputs(values).dtype == torch.float32
