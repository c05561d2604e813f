"""Tuning modules beside loralib and peft: the same deltas, importances and choices."""

from types import SimpleNamespace

import loralib
import pytest
import torch
from support.backbones import adalora, inputs, make_vit, stir

from seit.models.tuning import TuningConfig, make_tuning


@pytest.fixture(scope="module")
def peft():
    """The package, which takes seconds to import, in the one worker that needs it."""
    import peft

    return peft


def test_lora_is_loralibs():
    model, rank = make_vit(), 3
    config = TuningConfig(method="lora", rank=rank, targets=("q", "v"), alpha=6)
    tuning = make_tuning(config)
    tuning.attach(model)
    stir(tuning)
    qkv = model.blocks[1].attn.qkv
    theirs = loralib.MergedLinear(
        24, 72, r=rank, lora_alpha=6, enable_lora=[True, False, True], fan_in_fan_out=False
    )
    with torch.no_grad():
        theirs.weight.copy_(qkv.weight)
        theirs.bias.copy_(qkv.bias)
        theirs.lora_A.copy_(torch.cat([qkv.lora.q.a, qkv.lora.v.a]))
        theirs.lora_B.copy_(torch.cat([qkv.lora.q.b, qkv.lora.v.b]))
    x = torch.randn(2, 7, 24)
    torch.testing.assert_close(qkv(x), theirs(x), rtol=0, atol=1e-5)
    tuning.merge()
    torch.testing.assert_close(qkv(x), theirs(x), rtol=0, atol=1e-5)


def test_lora_over_all_of_qkv_is_pefts(peft):
    ours, theirs, x = make_vit(), make_vit(), inputs()
    tuning = make_tuning(TuningConfig(method="lora", rank=3, targets=("qkv",), alpha=6))
    tuning.attach(ours)
    stir(tuning)
    wrapped = peft.get_peft_model(
        theirs, peft.LoraConfig(r=3, lora_alpha=6, target_modules=["qkv"], lora_dropout=0.0)
    ).eval()
    with torch.no_grad():
        for mine, its in zip(ours.blocks, theirs.blocks, strict=True):
            its.attn.qkv.lora_A["default"].weight.copy_(mine.attn.qkv.lora.qkv.a)
            its.attn.qkv.lora_B["default"].weight.copy_(mine.attn.qkv.lora.qkv.b)
    torch.testing.assert_close(ours(x), wrapped(x), rtol=0, atol=2e-6)


def test_the_penalty_is_pefts(peft):
    model, reference = make_vit(), make_vit()
    tuning = adalora(model, targets=("qkv", "fc1"), orthogonality=0.3)
    stir(tuning)
    settings = peft.AdaLoraConfig(
        target_modules=["qkv", "fc1"], init_r=4, target_r=2, total_step=20, orth_reg_weight=0.3
    )
    # peft adds it to a loss that the model returns, and to no other.
    reference.forward = lambda x: SimpleNamespace(loss=torch.zeros(()))
    wrapped = peft.get_peft_model(reference, settings)
    with torch.no_grad():
        for block, its in zip(model.blocks, reference.blocks, strict=True):
            pairs = (block.attn.qkv.lora.qkv, its.attn.qkv), (block.mlp.fc1.lora.fc1, its.mlp.fc1)
            for mine, theirs in pairs:
                theirs.lora_B["default"].copy_(mine.p)
                theirs.lora_A["default"].copy_(mine.q)
    theirs = wrapped.base_model(inputs()).loss
    torch.testing.assert_close(tuning.penalty(), theirs, rtol=1e-5, atol=0)


def test_importances_and_choices_are_those_of_peft(peft):
    model, reference = make_vit().double().train(), make_vit().double()
    tuning = adalora(model, targets=("qkv", "fc1"))
    settings = peft.AdaLoraConfig(
        target_modules=["qkv", "fc1"], init_r=4, target_r=2, total_step=20, tinit=1, tfinal=5
    )
    wrapped = peft.get_peft_model(reference, settings)
    allocator = peft.tuners.adalora.RankAllocator(wrapped, settings, "default")
    pairs = []
    for block, its in zip(model.blocks, reference.blocks, strict=True):
        pairs.append((block.attn.qkv.lora.qkv, its.attn.qkv))
        pairs.append((block.mlp.fc1.lora.fc1, its.mlp.fc1))
    stir(tuning)
    for step in range(3):
        generator = torch.Generator().manual_seed(step)
        for ours, theirs in pairs:
            shared = {
                ours.p: theirs.lora_B["default"],
                ours.values: theirs.lora_E["default"],
                ours.q: theirs.lora_A["default"],
            }
            for mine, its in shared.items():
                its.data.copy_(mine.detach().reshape(its.shape))
                mine.grad = torch.randn(mine.shape, generator=generator, dtype=torch.float64)
                its.grad = mine.grad.reshape(its.shape).clone()
        tuning.after_update(step, 100)  # which is no time to choose yet
        allocator.update_ipt(wrapped)
    budget = 9
    tuning._choose([ours for ours, _ in pairs], budget)
    allocator.mask_to_budget(wrapped, budget)
    for ours, theirs in pairs:
        kept = theirs.lora_E["default"].flatten() != 0
        assert torch.equal(ours.kept, kept)
