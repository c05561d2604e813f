"""Static sparsity: weights held at zero through a whole run.

Sparse pretraining, dense fine-tuning (SPDF; Thangarasa et al., arXiv 2303.10464): a random part of
the weights of attention and MLP is zero from the first step to the last; fine-tuning starts from
these weights without the masks, so that the zeros are trained too. Embeddings, positions, norms,
biases, the stem, decoders and heads stay dense.

Masks depend on (seed, layer, shape) only, not on the device, the rank or torch's generators. They
are not part of the model: parameter names do not change, nothing is saved, and a resumed run
recreates them. They save no time by themselves; see `seit.training.flops`.
"""

import hashlib
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from timm.layers import PatchEmbed
from torch import Tensor, nn

from seit.errors import UsageError
from seit.training.config import SparsityConfig
from seit.training.flops import TRAINING_FACTOR, count_flops

_GROUP, _KEPT = 4, 2
"""Group size and kept weights of the pattern 2:4."""
_LAYER = re.compile(r"(?:student\.)?(?:encoder\.)?(blocks\.\d+\..+)")
"""Modules of a ViT's blocks; the names of decoders and teachers do not match."""


class Sparsity:
    """Masks of a model, and methods to apply them.

    Call :meth:`apply_` once before the first step and after loading weights. At each step call
    :meth:`mask_gradients_` before gradients are clipped and :meth:`apply_` after the optimizer.

    Moments of masked weights then stay zero in AdamW, Lamb and Muon, which average gradients (or
    their squares) elementwise from zero. Muon's *update* mixes the entries of a matrix after the
    momentum, so masked weights change and are reset; they take up a part of its norm.

    Nothing here synchronizes with the device. Masks take as much memory as the masked weights.

    Args:
        model: a ViT, or a module that holds one as ``encoder``; on its device.
        config: settings of the masks.
        seed: seed of the run, used if ``config`` has none.

    Attributes:
        kept: number of weights that each matrix keeps, by its name in ``model``.

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
        """Zero the gradients of masked weights, in place."""
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
        """Zero the masked weights, in place."""
        torch._foreach_mul_(list(self._weights.values()), list(self._masks.values()))

    @torch.no_grad()
    def apply_to_(self, other: nn.Module) -> None:
        """Zero the same weights of another model, in place.

        Args:
            other: a model with the same layers on the same device, directly or as its ``encoder``:
                the average of the weights, or a momentum teacher. An average of sparse weights
                stays sparse, so one call is enough for a model created or loaded dense.
        """
        theirs = {_layer(name): weight for name, weight in masked_weights(other).items()}
        assert theirs.keys() == self._masks.keys(), "of the same layers"
        torch._foreach_mul_([theirs[layer] for layer in self._masks], list(self._masks.values()))

    def describe(self) -> Mapping[str, Any]:
        """Return the entry of `run.json`.

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
    """Return the matrices of the blocks of a ViT or a (student's) encoder, by name."""
    return {
        f"{name}.weight": module.weight
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and _LAYER.fullmatch(name)
    }


def draw_mask(shape: tuple[int, int], config: SparsityConfig, *, seed: int, layer: str) -> Tensor:
    """Return the mask of a matrix: bool (outputs, inputs), True for kept weights, on the CPU.

    Keeps exactly round((1 − share) · outputs · inputs): those with the smallest of independent
    64-bit numbers from raw Philox, whose stream numpy promises never to change.

    Args:
        shape: outputs and inputs.
        config: share and pattern; its seed is ignored.
        seed: seed of the mask.
        layer: the matrix's name from its block on, such as ``blocks.0.mlp.fc1.weight``.

    Raises:
        UsageError: the pattern does not fit the shape.
    """
    outputs, inputs = shape
    digest = hashlib.blake2b(f"{seed}/{layer}".encode(), digest_size=16).digest()
    size = outputs * inputs
    keys = np.random.Philox(key=int.from_bytes(digest)).random_raw(size)
    # Positions in the low bits make all keys unique, so that there are no ties.
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
    """Return a weight's name from the block on, the same with and without a wrapper."""
    found = _LAYER.fullmatch(name)
    assert found is not None
    return found[1]


def _input_shape(encoder: nn.Module) -> tuple[int, int, int]:
    """Return channels, height and width of the input of a ViT's patch embedding."""
    embed = next(one for one in encoder.modules() if isinstance(one, PatchEmbed))
    assert isinstance(embed.proj, nn.Conv2d)
    height, width = embed.img_size
    return embed.proj.in_channels, height, width
