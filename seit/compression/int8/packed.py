"""Weights of a quantized file as packed weights of the run's network.

Legend: O output channels, I inputs.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from seit.compression.int8.graph import FloatGraph, Product, to_array
from seit.models import parse_onnx
from seit.packed_weights import LEAST_SCALE, PackedWeight, WeightGrid

_BITS = 8
_CODES, _SCALE, _ZERO = "_quantized", "_scale", "_zero_point"
_TOLERANCE = 1e-4
_HALF = torch.finfo(torch.float16)


def packed_weights(
    data: bytes, graph: FloatGraph, weights: Mapping[str, Tensor]
) -> dict[str, PackedWeight]:
    """Return the codes of a quantized file by the names of the network's weights.

    Scales are rounded to float16. Below its normal range these are so coarse that the codes are
    chosen again for the rounded scale. A normalization that was folded into a convolution is
    divided out of its scales, which flips the codes of channels with a negative factor.

    Args:
        data: the file.
        graph: the float graph that it was made from.
        weights: the network's weights by name, float32.
    """
    model = parse_onnx(data, origin="the quantized network")
    arrays = {one.name: to_array(one) for one in model.graph.initializer}
    folded = graph.weights()
    packed = {}
    for product in graph.products:
        name = f"{product.layer}.weight"
        if f"{product.weight}{_CODES}" in arrays and name in weights:
            factors = _factors(_rows(folded[product.weight], product), weights[name])
            if factors is not None:
                packed[name] = _packed(product, arrays, weights[name], factors)
    return packed


def _rows(weight: npt.NDArray[Any], product: Product) -> npt.NDArray[Any]:
    """Return a weight of the graph as (O, I)."""
    return weight.reshape(len(weight), -1) if product.is_convolution else weight.T


def _factors(folded: npt.NDArray[np.float32], weight: Tensor) -> npt.NDArray[np.float64] | None:
    """Return the factor (O,) of each channel in the graph; None if it is not the layer's weight."""
    rows = weight.reshape(len(weight), -1).double().numpy()
    if rows.shape != folded.shape:
        return None
    sizes = (rows**2).sum(1)
    factors = (rows * folded).sum(1) / np.where(sizes > 0, sizes, 1)
    near = np.allclose(factors[:, None] * rows, folded, rtol=0, atol=_TOLERANCE * abs(folded).max())
    return np.asarray(factors) if near else None


def _packed(
    product: Product,
    arrays: Mapping[str, npt.NDArray[Any]],
    weight: Tensor,
    factors: npt.NDArray[np.float64],
) -> PackedWeight:
    codes = _rows(arrays[f"{product.weight}{_CODES}"], product).astype(np.int16)
    scales = np.broadcast_to(arrays[f"{product.weight}{_SCALE}"].ravel(), len(codes))
    zeros = arrays[f"{product.weight}{_ZERO}"]
    offset = 128 if zeros.dtype == np.int8 else 0
    codes = codes + offset
    zero = np.broadcast_to(zeros.ravel().astype(np.int16) + offset, len(codes))
    negative = factors < 0
    codes = np.where(negative[:, None], 255 - codes, codes)
    zero = np.where(negative, 255 - zero, zero)
    size = scales / np.where(factors == 0, 1, np.abs(factors))
    is_coarse = size < _HALF.smallest_normal
    # Rounded up, so that the codes still reach the largest weight.
    coarse = np.maximum(np.ceil(size / LEAST_SCALE), 1) * LEAST_SCALE
    rows = weight.reshape(len(weight), -1).double().numpy()
    nearest = (np.round(rows / coarse[:, None]) + zero[:, None]).clip(0, 255)
    codes = np.where(is_coarse[:, None], nearest, codes)
    size = np.where(is_coarse, coarse, size.clip(max=_HALF.max))
    return PackedWeight(
        WeightGrid(bits=_BITS, shape=tuple(weight.shape)),
        torch.from_numpy(codes.astype(np.uint8)),
        torch.from_numpy(size)[:, None].half(),
        torch.from_numpy(zero.astype(np.uint8))[:, None],
    )
