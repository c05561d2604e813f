"""Choice of the heads, MLP units, dimensions and blocks of a ViT to keep.

Legend: B batch, N patches, D model dim, H heads of d dims, U MLP units, L blocks.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from timm.models import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F

from seit.compression.config import Pattern
from seit.compression.subject import Subject
from seit.errors import UsageError
from seit.models import Selection, blocks_of, patch_projection, plain_vit

PARTS: tuple[Pattern, ...] = ("heads", "mlp", "width", "depth")
"""Patterns that remove parts."""


@dataclass(frozen=True)
class Scores:
    """Importance of the parts of a ViT, float64.

    Attributes:
        heads: (H,) of each block.
        units: (U,) of each block.
        dims: (D,).
        blocks: (L,).
    """

    heads: Sequence[Tensor]
    units: Sequence[Tensor]
    dims: Tensor
    blocks: Tensor


def taylor_scores(subject: Subject) -> Scores:
    """Score parts by what their removal changes in the loss, to first order: |Σ ∂L/∂x · x|.

    The sum is over what a part puts out for a sample, then absolute values are averaged over the
    samples: Michel et al., Are sixteen heads really better than one? (arXiv 1905.10650), equation
    2, for heads; likewise for hidden units, residual dimensions, and what a block adds.
    """
    vit = plain_vit(subject.model)
    totals: dict[str, Tensor] = {}
    for inputs, labels in subject.labeled_inputs(subject.calibration_rows):
        for key, one in _products(vit, inputs.detach().requires_grad_(), labels).items():
            totals[key] = totals[key] + one if key in totals else one
    blocks = range(len(vit.blocks))
    return Scores(
        heads=[totals[f"heads.{block}"] for block in blocks],
        units=[totals[f"units.{block}"] for block in blocks],
        dims=totals["dims"],
        blocks=torch.stack([totals[f"added.{block}"] for block in blocks]),
    )


def _products(vit: VisionTransformer, inputs: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """Return the summed scores of a batch, by part and block, float64."""
    seen, gradients = _watch(vit, inputs, labels)
    scores: dict[str, Tensor] = {"dims": torch.zeros(vit.embed_dim, dtype=torch.float64)}
    for number, block in enumerate(blocks_of(vit)):
        heads, units, output = (
            (seen[f"{key}.{number}"] * gradients[f"{key}.{number}"]).double().cpu()
            for key in ("heads", "units", "output")
        )
        added = seen[f"output.{number}"] - seen[f"input.{number}"]
        change = (added * gradients[f"output.{number}"]).double().cpu()
        split = heads.unflatten(2, (block.attn.num_heads, block.attn.head_dim))
        scores[f"heads.{number}"] = split.sum((1, 3)).abs().sum(0)
        scores[f"units.{number}"] = units.sum(1).abs().sum(0)
        scores["dims"] += output.sum(1).abs().sum(0)
        scores[f"added.{number}"] = change.sum((1, 2)).abs().sum()
    return scores


def _watch(
    vit: VisionTransformer, inputs: Tensor, labels: Tensor
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return what :func:`_listen` records of all blocks, and the gradients of the summed loss."""
    seen: dict[str, Tensor] = {}
    handles = [handle for number in range(len(vit.blocks)) for handle in _listen(vit, number, seen)]
    with torch.enable_grad():
        loss = F.cross_entropy(vit(inputs).float(), labels, reduction="sum")
        gradients = torch.autograd.grad(loss, list(seen.values()))
    for handle in handles:
        handle.remove()
    values = {name: one.detach() for name, one in seen.items()}
    return values, dict(zip(seen, gradients, strict=True))


def _listen(vit: VisionTransformer, number: int, seen: dict[str, Tensor]) -> list[Any]:
    """Record what heads and units of a block put out, and its input and output, (B, N, …)."""

    def before(key: str) -> Callable[[nn.Module, Any], None]:
        def record(module: nn.Module, args: Any) -> None:
            del module
            seen[f"{key}.{number}"] = args[0]

        return record

    def after(module: nn.Module, args: Any, output: Tensor) -> None:
        del module
        seen[f"input.{number}"], seen[f"output.{number}"] = args[0], output

    block = blocks_of(vit)[number]
    return [
        block.attn.proj.register_forward_pre_hook(before("heads")),
        block.mlp.fc2.register_forward_pre_hook(before("units")),
        block.register_forward_hook(after),
    ]


def magnitude_scores(subject: Subject) -> Scores:
    """Score parts by the squared norm of their outgoing weights."""
    vit = plain_vit(subject.model)
    written = [patch_projection(vit).weight.flatten(1)]
    heads, units, blocks = [], [], []
    for block in blocks_of(vit):
        proj, fc2 = block.attn.proj.weight, block.mlp.fc2.weight
        squares = proj.unflatten(1, (block.attn.num_heads, -1)).square().sum((0, 2))
        heads.append(squares.detach().double().cpu())
        units.append(fc2.square().sum(0).detach().double().cpu())
        blocks.append((proj.square().sum() + fc2.square().sum()).detach().double().cpu())
        written += [proj, fc2]
    dims = torch.stack([one.square().sum(1) for one in written]).sum(0)
    return Scores(heads, units, dims.detach().double().cpu(), torch.stack(blocks))


SCORES: Mapping[str, Callable[[Subject], Scores]] = {
    "auto": taylor_scores,
    "taylor": taylor_scores,
    "magnitude": magnitude_scores,
}
"""Criteria of parts, by name."""


def choose_parts(
    subject: Subject, shares: Mapping[Pattern, float], criterion: str
) -> Selection | None:
    """Return the parts to keep; None if no pattern removes any.

    Heads and units compete across blocks, with scores of unit norm in each, as in Michel et al.;
    each block keeps at least one.

    Raises:
        UsageError: the network is not a plain ViT, or the criterion is none of parts.
    """
    removed = {name: shares[name] for name in PARTS if name in shares}
    if not removed:
        return None
    if criterion not in SCORES:
        raise UsageError(
            f"the criterion {criterion} scores single weights, and {', '.join(removed)} are parts "
            "of the network; choose taylor or magnitude"
        )
    scores = SCORES[criterion](subject)
    return select_highest(scores, removed)


def select_highest(scores: Scores, shares: Mapping[Pattern, float]) -> Selection:
    """Select the parts of the highest scores but for a share of each pattern."""
    blocks = _highest(scores.blocks, shares.get("depth", 0.0))
    return Selection(
        dims=_highest(scores.dims, shares.get("width", 0.0)),
        blocks=blocks,
        heads=_highest_of_all([scores.heads[n] for n in blocks], shares.get("heads", 0.0)),
        units=_highest_of_all([scores.units[n] for n in blocks], shares.get("mlp", 0.0)),
    )


def _highest(scores: Tensor, share: float) -> list[int]:
    count = max(1, round((1 - share) * len(scores)))
    return sorted(scores.topk(count).indices.tolist())


def _highest_of_all(scores: Sequence[Tensor], share: float) -> list[list[int]]:
    """Return the numbers of the highest scores of all blocks, by block; the best of each is in."""
    scaled = []
    for one in scores:
        unit = one / one.norm().clamp(min=torch.finfo(one.dtype).tiny)
        unit[unit.argmax()] += 2  # above all that is no block's best
        scaled.append(unit)
    sizes = [len(one) for one in scaled]
    count = max(len(scores), round((1 - share) * sum(sizes)))
    kept = torch.zeros(sum(sizes), dtype=torch.bool)
    kept[torch.cat(scaled).topk(count).indices] = True
    return [part.nonzero().flatten().tolist() for part in kept.split(sizes)]
