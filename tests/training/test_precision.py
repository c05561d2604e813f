"""Precision of training: attention and stems that suit a CPU, and the line that suggests bf16."""

from dataclasses import replace

import pytest
import torch
from timm import create_model

from seit.models.stem import Stem
from seit.training import TrainConfig
from seit.training.precision import choose_attention, suggest_precision

CPU = torch.device("cpu")


def _config(precision):
    config = TrainConfig()
    return replace(config, run=replace(config.run, precision=precision))


def _vit():
    torch.manual_seed(0)
    sizes = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2}
    return create_model("vit_tiny_patch16_224", num_classes=4, **sizes)


@pytest.mark.parametrize(("precision", "is_fused"), [("bf16", False), ("fp32", True)])
def test_attention_is_fused_where_that_is_faster(precision, is_fused):
    model = _vit()
    choose_attention(model, _config(precision), CPU)
    assert {block.attn.fused_attn for block in model.blocks} == {is_fused}


def test_the_choice_of_attention_changes_no_result():
    images = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    fused, fitted = _vit(), _vit()
    choose_attention(fitted, _config("bf16"), CPU)
    for model in (fused, fitted):
        model(images).square().sum().backward()
    pairs = zip(fused.parameters(), fitted.parameters(), strict=True)
    for ours, theirs in pairs:
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("capabilities", "precision", "is_suggested"),
    [({"amx_bf16": True}, "auto", True), ({"amx_bf16": True}, "fp32", False), ({}, "auto", False)],
)
def test_bf16_is_suggested_on_cpus_with_matrix_units(
    monkeypatch, capabilities, precision, is_suggested
):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert (suggest_precision(_config(precision), CPU) is not None) == is_suggested


def test_a_stem_of_several_layers_computes_channels_last():
    torch.manual_seed(0)
    stem = Stem.parse("3/2/1+4/4/0").build(3, 32)
    images = torch.randn(2, 3, 32, 32)
    assert stem(images).is_contiguous(memory_format=torch.channels_last)
    plain = stem.to(memory_format=torch.contiguous_format)
    found = plain(images)
    torch.testing.assert_close(
        found, stem.to(memory_format=torch.channels_last)(images), rtol=1e-5, atol=1e-6
    )
