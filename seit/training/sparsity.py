"""Static sparseness: weights that are held at zero through a whole run.

Sparse pre-training, dense fine-tuning (SPDF; Thangarasa et al., arXiv 2303.10464): a random part of
the weights of attention and MLP is zero from the first step to the last; fine-tuning starts from
these weights without the masks, so that the zeros are trained too. Embeddings, positions, norms,
biases, the stem, decoders and heads stay dense.

Masks follow from (seed, layer, shape) alone: not from the device, the rank or torch's generators.
They are no part of the model: its weights keep their names, nothing of them is saved, and a run
that resumes makes them again. They save no time by themselves; see `seit.training.flops`.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from timm.layers import PatchEmbed
from torch import Tensor, nn

from seit.errors import UsageError
from seit.training.flops import TRAINING_FACTOR, count_flops

_GROUP, _KEPT = 4, 2
"""Sizes of the pattern 2:4."""
_LAYER = re.compile(r"(?:student\.)?(?:encoder\.)?(blocks\.\d+\..+)")
"""Modules of a ViT's blocks; of a decoder's or a teacher's none, as their names begin otherwise."""


@dataclass(frozen=True, kw_only=True)
class SparsityConfig:
    """Weights of a ViT's blocks that are held at zero.

    Raises:
        UsageError: for a share outside its range, or that the pattern does not have.
    """

    share: float = 0.0
    """Share of each matrix that is zero, 0 to below 1; 0 for a dense run."""
    pattern: Literal["unstructured", "2:4"] = "unstructured"
    """Zeros: any of a matrix, or two of every four neighboring inputs of each output, half of
    them, which GPUs since Ampere have instructions for. No GPU gains by the first."""
    seed: int | None = None
    """Seed of the choice; None for the run's. A sparse run that starts from another keeps its
    zeros with the same seed."""

    def __post_init__(self) -> None:
        if not 0 <= self.share < 1:
            raise UsageError(f"sparsity.share is {self.share}; expected 0 to below 1")
        if self.pattern not in ("unstructured", "2:4"):
            raise UsageError(f"sparsity.pattern is {self.pattern!r}; expected unstructured or 2:4")
        if self.pattern == "2:4" and self.share != _KEPT / _GROUP:
            raise UsageError(
                f"sparsity.share is {self.share}, but the pattern 2:4 holds half of the weights at "
                "zero; set it to 0.5"
            )
        if self.seed is not None and not 0 <= self.seed < 1 << 63:
            raise UsageError(f"sparsity.seed is {self.seed}; expected 0…2^63")


class Sparsity:
    """The masks of a model, and how it is kept to them.

    Call :meth:`apply_` once before the first step and after loading weights. At each step call
    :meth:`mask_gradients_` before gradients are clipped and :meth:`apply_` after the optimizer.

    Moments of masked weights then stay zero without further work, in AdamW, Lamb and Muon alike:
    each averages gradients (or their squares) entry by entry from zero, and no gradient of these
    entries is ever anything else. Muon's *update* mixes the entries of a matrix, after its momentum
    was taken, so that masked weights are moved and put back; they take a part of its norm.

    Nothing here waits for the device. Masks take as much memory as the weights that they are of.

    Args:
        model: a ViT, or a module that holds one as ``encoder``; on its device.
        config: of the masks.
        seed: of the run, which counts where ``config`` names none.

    Attributes:
        kept: how many weights each matrix keeps, by its name in ``model``.

    Raises:
        UsageError: the model has no blocks of matrices, or shapes that the pattern does not fit.
    """

    def __init__(self, model: nn.Module, config: SparsityConfig, *, seed: int) -> None:
        self.config = config
        self.seed = seed if config.seed is None else config.seed
        self.kept: dict[str, int] = {}
        named = masked_weights(model)
        if not named:
            raise UsageError(
                f"sparsity.share is {config.share}, but a {type(model).__name__} has no blocks of "
                "attention and MLP; choose a ViT, or set it to 0"
            )
        owner = next(iter(named)).removesuffix(_layer(next(iter(named)))).rstrip(".")
        self._encoder = model.get_submodule(owner)
        self._weights = {_layer(name): weight for name, weight in named.items()}
        self._masks: dict[str, Tensor] = {}
        for name, weight in named.items():
            outputs, inputs = weight.shape
            mask = draw_mask((outputs, inputs), config, seed=self.seed, layer=_layer(name))
            self.kept[name] = int(mask.count_nonzero())
            self._masks[_layer(name)] = mask.to(weight.device, weight.dtype)

    @torch.no_grad()
    def mask_gradients_(self) -> None:
        """Put zeros into the gradients of masked weights, in place."""
        pairs = [
            (weight.grad, self._masks[layer])
            for layer, weight in self._weights.items()
            if weight.grad is not None
        ]
        if pairs:
            gradients, masks = zip(*pairs, strict=True)
            torch._foreach_mul_(gradients, masks)

    @torch.no_grad()
    def apply_(self) -> None:
        """Put zeros into masked weights, in place."""
        torch._foreach_mul_(list(self._weights.values()), list(self._masks.values()))

    @torch.no_grad()
    def apply_to_(self, other: nn.Module) -> None:
        """Put zeros into the same weights of another model, in place.

        Args:
            other: of the same layers on the same device, as itself or as its ``encoder``: the
                average of the weights, or a momentum teacher. An average of sparse weights stays
                sparse by itself, so once is enough for one that was made or loaded dense.
        """
        theirs = {_layer(name): weight for name, weight in masked_weights(other).items()}
        assert theirs.keys() == self._masks.keys(), "of the same layers"
        torch._foreach_mul_([theirs[layer] for layer in self._masks], list(self._masks.values()))

    def describe(self) -> Mapping[str, Any]:
        """Return what `run.json` records of it.

        Returns:
            ``share``, ``pattern``, ``seed``; ``weights`` of the masked matrices, how many of them
            are ``kept``, and ``kept_by_layer``; ``theoretical_flops`` of the encoder for one
            sample, forward and in training, dense and without masked weights.
        """
        flops = count_flops(self._encoder, _input_shape(self._encoder))
        shares = {
            layer.removesuffix(".weight"): kept / self._weights[layer].numel()
            for layer, kept in zip(self._weights, self.kept.values(), strict=True)
        }
        sparse = flops.sparse_forward(shares)
        return {
            "share": self.config.share,
            "pattern": self.config.pattern,
            "seed": self.seed,
            "weights": sum(weight.numel() for weight in self._weights.values()),
            "kept": sum(self.kept.values()),
            "kept_by_layer": dict(self.kept),
            "theoretical_flops": {
                "forward": flops.forward,
                "sparse_forward": sparse,
                "training": flops.training,
                "sparse_training": TRAINING_FACTOR * sparse,
            },
        }


def masked_weights(model: nn.Module) -> dict[str, Tensor]:
    """The matrices of a ViT's blocks, or of those of its (student's) encoder, by their names."""
    return {
        f"{name}.weight": module.weight
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and _LAYER.fullmatch(name)
    }


def draw_mask(shape: tuple[int, int], config: SparsityConfig, *, seed: int, layer: str) -> Tensor:
    """The mask of a matrix: True for weights that are kept, bool (outputs, inputs), on the CPU.

    Exactly round((1 − share) · outputs · inputs) are kept: those of the smallest of independent
    64-bit numbers. These come from Philox as it is, whose stream numpy promises never to change.

    Args:
        shape: outputs and inputs.
        config: share and pattern; its seed is not looked at.
        seed: of the choice.
        layer: the matrix's name from its block on, such as ``blocks.0.mlp.fc1.weight``.

    Raises:
        UsageError: the pattern does not fit the shape.
    """
    outputs, inputs = shape
    digest = hashlib.blake2b(f"{seed}/{layer}".encode(), digest_size=16).digest()
    size = outputs * inputs
    keys = np.random.Philox(key=int.from_bytes(digest)).random_raw(size)
    # Places in the low bits make all keys different, so that there are no ties.
    low_bits = np.uint64((1 << size.bit_length()) - 1)
    keys = (keys & ~low_bits) | np.arange(size, dtype=np.uint64)
    mask: npt.NDArray[np.bool_]
    if config.pattern == "2:4":
        if inputs % _GROUP:
            raise UsageError(
                f"the pattern 2:4 takes matrices of a multiple of four inputs, and {layer} has "
                f"{inputs}; choose another width or the pattern unstructured"
            )
        groups = keys.reshape(-1, _GROUP)
        mask = groups <= np.sort(groups, axis=1)[:, _KEPT - 1 : _KEPT]
    else:
        kept = round((1 - config.share) * size)
        mask = keys <= np.partition(keys, kept - 1)[kept - 1] if kept else np.zeros(size, np.bool_)
    return torch.from_numpy(mask.reshape(shape))


def _layer(name: str) -> str:
    """A weight's name from the block on, which is the same with and without a wrapper."""
    found = _LAYER.fullmatch(name)
    assert found is not None
    return found[1]


def _input_shape(encoder: nn.Module) -> tuple[int, int, int]:
    """Channels, height and width of what a ViT embeds patches of."""
    embed = next(one for one in encoder.modules() if isinstance(one, PatchEmbed))
    assert isinstance(embed.proj, nn.Conv2d)
    height, width = embed.img_size
    return embed.proj.in_channels, height, width
