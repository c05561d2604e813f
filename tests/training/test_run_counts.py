"""Footprint of a finished run: counts from shapes and files, against closed forms."""

import pytest
import timm
import torch
from torch import nn

from seit.errors import DamagedError
from seit.models import StoredWeights
from seit.tensors import list_tensors
from seit.training import WEIGHTS_NAME, Run, count_flops, footprint_of, layers_of, read_footprint

DIM, DEPTH, CLASSES, PATCH, SIDE = 32, 2, 3, 2, 8


def kept(model, folder):
    """Return a folder with the weights of a model."""
    run = Run(folder)
    run.save_stored(StoredWeights.of(model.state_dict(), {}))
    return run


def tiny_vit():
    torch.manual_seed(0)
    return timm.create_model(
        "vit_tiny_patch16_224",
        img_size=SIDE,
        patch_size=PATCH,
        in_chans=4,
        embed_dim=DIM,
        depth=DEPTH,
        num_heads=2,
        num_classes=CLASSES,
    )


def test_figures_of_a_vit_are_those_of_the_closed_form(tmp_path):
    model = tiny_vit()
    with torch.no_grad():
        model.blocks[0].mlp.fc1.weight[:5] = 0
    run = kept(model, tmp_path)
    found = footprint_of(run, model, (4, SIDE, SIDE))
    patches = (SIDE // PATCH) ** 2
    tokens = patches + 1
    linear = tokens * 12 * DIM**2 * DEPTH + patches * 4 * PATCH**2 * DIM + DIM * CLASSES
    attention = 2 * tokens**2 * DIM * DEPTH
    assert found.flops == 2 * (linear + attention)
    assert found.bops == (linear + attention) * 32 * 32
    assert found.parameters == sum(one.numel() for one in model.parameters())
    zeros = sum(int((one == 0).sum()) for one in model.parameters())
    assert zeros >= 5 * DIM
    assert found.nonzero_parameters == found.parameters - zeros
    assert found.bytes == (tmp_path / WEIGHTS_NAME).stat().st_size
    assert found.bytes_by_dtype == {"float32": 4 * found.parameters}


@pytest.mark.parametrize("name", ["vit", "resnet10t", "mixer_s32_224"])
def test_layers_add_up_to_the_network(name, tmp_path):
    small = {"vit": tiny_vit}.get(name, lambda: timm.create_model(name, num_classes=CLASSES))
    model = small()
    shape = (4, SIDE, SIDE) if name == "vit" else (3, 224, 224)
    layers = layers_of(kept(model, tmp_path), model, shape)
    assert sum(one.flops for one in layers) == count_flops(model, shape).forward
    assert all(one.flops >= 0 for one in layers)
    assert sum(one.parameters for one in layers) == sum(one.numel() for one in model.parameters())
    stored = list_tensors(tmp_path / WEIGHTS_NAME)
    assert sum(one.bytes for one in layers) == sum(one.num_bytes for one in stored.values())


def test_half_precision_weights_count_with_their_bits(tmp_path):
    model = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4))
    run = Run(tmp_path)
    run.save_tensors(WEIGHTS_NAME, {name: one.half() for name, one in model.state_dict().items()})
    found = footprint_of(run, model, (6,))
    assert found.bytes_by_dtype == {"float16": 2 * (6 * 5 + 5 + 5 * 4 + 4)}
    assert found.bops == (6 * 5 + 5 * 4) * 16 * 32


def test_operations_that_depend_on_values_are_unknown(tmp_path):
    class Picky(nn.Linear):
        def forward(self, inputs):
            return super().forward(inputs[inputs.abs().sum(1) > 0])

    model = Picky(6, 5)
    found = footprint_of(kept(model, tmp_path), model, (6,))
    assert (found.flops, found.bops) == (None, None)
    assert found.parameters == 35


def test_a_run_of_an_earlier_version_has_no_footprint_and_a_corrupt_one_is_named():
    assert read_footprint({}, origin="my run") is None
    with pytest.raises(DamagedError, match="footprint in my run"):
        read_footprint({"footprint": {"parameters": "many"}}, origin="my run")


@pytest.mark.parametrize("cut", [4, 60, -1])
def test_a_cut_file_of_tensors_is_damaged(tmp_path, cut):
    path = tmp_path / WEIGHTS_NAME
    kept(nn.Linear(3, 2), tmp_path)
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(DamagedError, match="restore it"):
        list_tensors(path)
