"""Traces of Hessians, compared with closed forms and with the Hessian itself."""

import pytest
import timm
import torch
from torch.nn import functional as F

from seit.compression.weights.hessian import MIN_PROBES, hessian_traces, twice_differentiable


def test_a_diagonal_hessian_takes_one_vector():
    weight = torch.randn(6, requires_grad=True)
    diagonal = torch.rand(6) * 3
    found = hessian_traces(
        lambda: [0.5 * (diagonal * weight.square()).sum()], {"w": weight}, max_probes=1, seed=0
    )
    assert found.probes == 1
    assert found.mean["w"] == pytest.approx(float(diagonal.mean()), rel=1e-6)


def test_estimates_lie_around_the_trace():
    torch.manual_seed(0)
    weight = torch.randn(12, requires_grad=True)
    mix = torch.randn(12, 12)
    hessian = mix @ mix.T
    found = hessian_traces(
        lambda: [0.5 * weight @ hessian @ weight], {"w": weight}, max_probes=200, seed=1
    )
    off = hessian - hessian.diagonal().diag()
    deviation = (2 * off.square().sum() / found.probes).sqrt()  # of the mean, Hutchinson (1990)
    assert abs(found.mean["w"] * 12 - hessian.trace()) < 3 * deviation
    assert MIN_PROBES <= found.probes < 200


def test_a_transformer_has_the_traces_of_its_hessian():
    torch.manual_seed(0)
    model = timm.create_model(
        "vit_tiny_patch16_224", img_size=8, patch_size=4, embed_dim=8, depth=1, num_heads=2,
        num_classes=3,
    ).eval()  # fmt: skip
    model.requires_grad_(False)
    names = ["blocks.0.attn.proj.weight", "head.weight"]
    weights = {name: model.get_parameter(name).requires_grad_() for name in names}
    inputs, labels = torch.randn(4, 3, 8, 8), torch.tensor([0, 1, 2, 0])

    def losses():
        for part in (slice(0, 1), slice(1, 4)):
            yield F.cross_entropy(model(inputs[part]), labels[part], reduction="sum") / 4

    with twice_differentiable():
        for name, weight in weights.items():
            found = hessian_traces(losses, {name: weight}, max_probes=3, seed=5)

            def loss_of(values, name=name):
                logits = torch.func.functional_call(model, {name: values}, (inputs,))
                return F.cross_entropy(logits, labels)

            exact = torch.autograd.functional.hessian(loss_of, weight.detach())
            exact = exact.reshape(weight.numel(), weight.numel())
            generator = torch.Generator().manual_seed(5)
            signs = [
                torch.randint(2, weight.shape, generator=generator, dtype=torch.int8) * 2.0 - 1
                for _ in range(3)
            ]
            expected = sum(v.flatten() @ exact @ v.flatten() for v in signs) / 3 / weight.numel()
            assert found.mean[name] == pytest.approx(float(expected), rel=1e-3)


def test_weights_without_effect_have_no_curvature():
    used, unused = torch.ones(2, requires_grad=True), torch.ones(2, requires_grad=True)
    found = hessian_traces(
        lambda: [used.square().sum()], {"a": used, "b": unused}, max_probes=3, seed=0
    )
    assert found.mean == {"a": 2.0, "b": 0.0}
    linear = hessian_traces(lambda: [used.sum()], {"a": used}, max_probes=3, seed=0)
    assert linear.mean == {"a": 0.0}
