"""Hierarchical backbones that end after one of their stages.

timm removes what follows the stage. The classifier then reads the mean of its features over space,
normalized if the whole network's classifier reads normalized features.

Legend: B batch, D features, h w grid of the stage, N classes.
"""

from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import override

from seit.errors import UsageError
from seit.models.hierarchy import feature_entries
from seit.models.timm_models import BUILD_ERRORS

_ADVICE = "`seit embed RUN STORE --layer STAGE` writes the features of any stage"


class StageHead(nn.Module):
    """Mean over space, a norm without weights, and a linear classifier.

    Args:
        dim: D.
        num_classes: N.
        channels_last: whether features are (B, h, w, D).
        normalize: whether there is a norm.
    """

    def __init__(self, dim: int, num_classes: int, *, channels_last: bool, normalize: bool) -> None:
        super().__init__()
        self._space = (1, 2) if channels_last else (2, 3)
        self.norm = nn.LayerNorm(dim, elementwise_affine=False) if normalize else nn.Identity()
        self.fc = nn.Linear(dim, num_classes)

    @override
    def forward(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Return logits (B, N) of features (B, D, h, w) or (B, h, w, D); timm's signature."""
        features: Tensor = self.norm(x.mean(self._space))
        return features if pre_logits else self.fc(features)


def end_after(
    model: nn.Module, stage: str, *, inputs: tuple[int, int, int], num_classes: int
) -> nn.Module:
    """Remove what follows a stage, and give the model a new classifier, in place.

    Args:
        model: a hierarchical backbone.
        stage: the path of one of timm's ``feature_info``.
        inputs: channels, rows and columns of the model's input.
        num_classes: N.

    Raises:
        UsageError: it has no such stage, or timm cannot remove what follows.
    """
    kind, stages = type(model).__name__, [one["module"] for one in feature_entries(model)]
    kept = [one for one in stages if not isinstance(model.get_submodule(one), nn.Identity)]
    if stage not in kept:
        raise UsageError(
            f"a {kind} over these tokens has no stage {stage!r}; it has {', '.join(kept)}"
        )
    if stage == stages[-1]:
        return model
    norms = (getattr(model, "norm", None), getattr(getattr(model, "head", None), "norm", None))
    normalize = any(isinstance(one, nn.LayerNorm) for one in norms)
    network: Any = model
    classifier = str(network.pretrained_cfg.get("classifier"))
    try:
        network.prune_intermediate_layers([stages.index(stage)], prune_norm=True, prune_head=True)
        channels_last = getattr(model, "output_fmt", "NCHW") == "NHWC"
        dim = _features(model, inputs).shape[-1 if channels_last else 1]
        network.num_features = network.head_hidden_size = dim
        if "." in classifier:
            network.head = StageHead(
                dim, num_classes, channels_last=channels_last, normalize=normalize
            )
        else:
            network.reset_classifier(num_classes, "avg")
    except BUILD_ERRORS as error:
        raise UsageError(
            f"timm does not end a {kind} after {stage} ({' '.join(str(error).split())}); {_ADVICE}"
        ) from error
    return model


@torch.no_grad()
def _features(model: Any, inputs: tuple[int, int, int]) -> Tensor:
    """Return the last features of a model for inputs of zeros; it is as before."""
    was_training = model.training
    weight = next(model.parameters())
    features: Tensor = model.eval().forward_features(torch.zeros(1, *inputs, device=weight.device))
    model.train(was_training)
    return features
