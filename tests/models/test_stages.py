"""Hierarchical backbones that end after a stage."""

import pytest
import torch

from seit.errors import UsageError
from seit.models import build_backbone, captured, is_of_head

INPUTS = {"channels": 8, "input_size": (14, 14), "num_classes": 5}
CASES = {
    "resnet10t": ("layer3", "fc.weight"),
    "convnext_atto": ("stages.2", "head.fc.weight"),
    "regnetx_002": ("s3", "head.fc.weight"),
    "swin_tiny_patch4_window7_224": ("layers.2", "head.fc.weight"),
    "mobilenetv3_small_050": ("blocks.3", "classifier.weight"),
}
LARGE = {"swin_tiny_patch4_window7_224", "mobilenetv3_small_050"}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name in LARGE)) for name in CASES]
)
def test_a_network_that_ends_after_a_stage_gives_the_features_of_the_stage(name):
    stage, classifier = CASES[name]
    torch.manual_seed(0)
    whole = build_backbone(name, **INPUTS).eval()
    model = build_backbone(name, last_stage=stage, **INPUTS).eval()
    weights = whole.state_dict()
    kept = {key: weights[key] for key in model.state_dict() if not is_of_head(model, key)}
    assert model.load_state_dict(kept, strict=False).unexpected_keys == []
    assert sum(map(torch.numel, kept.values())) < 0.8 * sum(map(torch.numel, weights.values()))
    x = torch.randn(2, 8, 14, 14)
    with torch.no_grad(), captured(whole, {stage: stage}) as found:
        whole(x)
        features = model.forward_features(x)
        assert torch.allclose(features, found[stage], atol=1e-5)
        logits = model(x)
    head = dict(model.named_parameters())
    space = (1, 2) if features.shape[-1] == head[classifier].shape[1] else (2, 3)
    pooled = features.mean(space)
    if any(type(module).__name__.startswith("LayerNorm") for module in whole.modules()):
        pooled = torch.nn.functional.layer_norm(pooled, pooled.shape[-1:])
    bias = head[classifier.replace("weight", "bias")]
    assert torch.allclose(logits, pooled @ head[classifier].T + bias, atol=1e-5)


def test_the_last_stage_changes_nothing():
    whole = build_backbone("resnet10t", **INPUTS)
    model = build_backbone("resnet10t", last_stage="layer4", **INPUTS)
    assert model.state_dict().keys() == whole.state_dict().keys()


def test_networks_without_such_a_stage_are_refused():
    with pytest.raises(UsageError, match=r"has no stage 'layer9'; .*layer4"):
        build_backbone("resnet10t", last_stage="layer9", **INPUTS)
    with pytest.raises(UsageError, match=r"has no stages; set model\.depth"):
        build_backbone("vit_tiny_patch16_224", last_stage="blocks.2", **INPUTS)
