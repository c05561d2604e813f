"""SmoothQuant: the same network with smoother activations."""

import pytest
import timm
import torch

from seit.compression.smooth import (
    channel_maxima,
    folds,
    has_outliers,
    outlier_ratios,
    smooth,
)

MODELS = {
    "vit": lambda: timm.create_model(
        "vit_tiny_patch16_224", img_size=32, patch_size=8, embed_dim=32, depth=2, num_heads=2
    ),
    "swin": lambda: timm.create_model(
        "swin_tiny_patch4_window7_224",
        img_size=32,
        window_size=4,
        embed_dim=16,
        depths=(1, 1),
        num_heads=(2, 2),
    ),
    "convnext": lambda: timm.create_model(
        "convnext_tiny", depths=(1, 1, 1, 1), dims=(8, 8, 16, 16)
    ),
    "convnext_conv": lambda: timm.create_model(
        "convnext_atto", depths=(1, 1, 1, 1), dims=(8, 8, 16, 16)
    ),
}


def with_outliers(name):
    torch.manual_seed(0)
    model = MODELS[name]().eval()
    for fold in folds(model):
        norm = model.get_submodule(fold.norm)
        norm.weight.data.uniform_(0.5, 2.0)
        norm.weight.data[3] *= 50
        norm.bias.data.normal_()
    return model, [torch.randn(4, 3, 32, 32) for _ in range(2)]


@pytest.mark.parametrize("name", MODELS)
def test_a_smooth_network_computes_the_same(name):
    model, batches = with_outliers(name)
    maxima = channel_maxima(model, batches)
    assert has_outliers(maxima)
    changed = smooth(model, maxima, alpha=0.5)
    fresh = torch.randn(4, 3, 32, 32)
    with torch.inference_mode():
        before, after = model(fresh), changed(fresh)
    assert torch.allclose(before, after, rtol=1e-5, atol=1e-5 * float(before.abs().max()))
    smoother = outlier_ratios(channel_maxima(changed, batches))
    assert all(smoother[one] < ratio for one, ratio in outlier_ratios(maxima).items())


def test_scales_are_those_of_the_paper():
    model, batches = with_outliers("vit")
    maxima = channel_maxima(model, batches)
    changed = smooth(model, maxima, alpha=0.7)
    name = "blocks.1.attn.qkv"
    weight = model.get_submodule(name).weight
    expected = maxima[name] ** 0.7 / weight.abs().amax(0) ** 0.3
    found = changed.get_submodule(name).weight / weight
    assert torch.allclose(found, expected.expand_as(found), rtol=1e-5)
    both = channel_maxima(changed, batches)[name], changed.get_submodule(name).weight.abs().amax(0)
    halves = channel_maxima(smooth(model, maxima), batches)[name]
    weights = smooth(model, maxima).get_submodule(name).weight.abs().amax(0)
    assert torch.allclose(halves, weights, rtol=1e-4)  # α = ½ divides the difficulty evenly
    assert not torch.allclose(*both, rtol=1e-2)


def test_dead_channels_and_other_networks_stay_as_they_are():
    model, batches = with_outliers("vit")
    maxima = channel_maxima(model, batches)
    for one in maxima.values():
        one[5] = 0
    changed = smooth(model, maxima)
    name = "blocks.0.mlp.fc1"
    before, after = (one.get_submodule(name).weight[:, 5] for one in (model, changed))
    assert torch.equal(before, after)
    resnet = timm.create_model("resnet10t", num_classes=3).eval()
    assert not list(folds(resnet))
    assert not has_outliers(channel_maxima(resnet, batches))


def test_networks_without_outliers_need_no_change():
    torch.manual_seed(0)
    model = MODELS["vit"]().eval()
    assert not has_outliers(channel_maxima(model, [torch.randn(4, 3, 32, 32)]))


def test_norms_behind_attention_are_left_alone():
    """A residual post-norm block reads its input unnormalized."""
    model = timm.create_model(
        "vit_relpos_small_patch16_224", img_size=32, embed_dim=32, depth=1, num_heads=2
    )
    assert not list(folds(model))
