"""Counts of an ONNX graph: parameters by operator, and operations from inferred shapes.

Operations are known exactly only if every operator that multiplies matrices is of the standard and
all its shapes follow from the inputs'.

Legend: M K N sizes of a matrix product.
"""

import importlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from seit.training import FULL_BITS, LayerFootprint

Shapes = Mapping[str, Sequence[int]]
_STANDARD = ("", "ai.onnx")
_MAX_ELEMENTS = 1 << 31


class OnnxGraph:
    """Graph of an `onnx.ModelProto`.

    Attributes:
        nodes: its operators.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self._onnx: Any = importlib.import_module("onnx")
        self.nodes: Sequence[Any] = model.graph.node
        self._weights = {one.name: one for one in model.graph.initializer}
        self._made_by = {name: node for node in self.nodes for name in node.output}

    def check(self) -> None:
        """Check that every initializer holds the values that it declares.

        Raises:
            ValueError: one does not, or has an unknown dtype.
        """
        for name, one in self._weights.items():
            if any(size < 0 for size in one.dims):
                raise ValueError(f"{name[:80]!r} has a negative size")
            self._array(one)

    def bytes_by_dtype(self) -> dict[str, int]:
        """Return the bytes of the initializers by dtype."""
        sizes: dict[str, int] = {}
        for one in self._weights.values():
            name = self._onnx.TensorProto.DataType.Name(one.data_type).lower()
            name = {"float": "float32", "double": "float64"}.get(name, name)
            sizes[name] = sizes.get(name, 0) + self._num_bytes(one)
        return sizes

    def layers(self) -> list[LayerFootprint]:
        """Return the operators with weights or operations; a shared weight counts once."""
        flops = self._flops()
        left = dict(self._weights)
        layers = []
        for index, node in enumerate(self.nodes):
            held = [left.pop(name) for name in self._sources(node) if name in left]
            count = None if flops is None else flops.get(index, 0)
            if held or count:
                layers.append(self._layer(node, held, count))
        return layers

    def _layer(self, node: Any, held: Sequence[Any], flops: int | None) -> LayerFootprint:
        weight_bits, activation_bits = self._bits(node)
        return LayerFootprint(
            name=f"{node.op_type} {node.name or node.output[0]}",
            parameters=sum(math.prod(one.dims) for one in held),
            nonzero_parameters=sum(int(np.count_nonzero(self._array(one))) for one in held),
            bytes=sum(map(self._num_bytes, held)),
            flops=flops,
            weight_bits=weight_bits,
            activation_bits=activation_bits,
        )

    def _sources(self, node: Any) -> Iterable[str]:
        """Yield the inputs of an operator, and those that a dequantization gives it."""
        for name in node.input:
            maker = self._made_by.get(name)
            if maker is not None and maker.op_type == "DequantizeLinear":
                yield from maker.input
            yield name

    def _bits(self, node: Any) -> tuple[int | None, int]:
        """Return the bits of an operator's weight, None without one, and of its other factor."""
        factors = _FACTORS.get(node.op_type, (0, 1))
        names = [node.input[index] for index in factors if index < len(node.input)]
        stored = [self._stored(name) for name in names]
        weights = [name for name in stored if name in self._weights]
        others = [name for name in stored if name not in self._weights]
        is_integer = node.op_type in _INTEGER
        bits = [8 if is_integer or self._is_quantized(name) else FULL_BITS for name in others]
        weight = self._weights[weights[0]] if weights else None
        return (
            None if weight is None else 8 * self._itemsize(weight),
            max(bits, default=FULL_BITS),
        )

    def _stored(self, name: str) -> str:
        """Return the quantized tensor behind a dequantization; else the name itself."""
        maker = self._made_by.get(name)
        is_dequantized = maker is not None and maker.op_type == "DequantizeLinear"
        return str(maker.input[0]) if is_dequantized and maker is not None else name

    def _is_quantized(self, name: str) -> bool:
        maker = self._made_by.get(name)
        return maker is not None and maker.op_type in ("QuantizeLinear", "DynamicQuantizeLinear")

    def _itemsize(self, tensor: Any) -> int:
        dtype = self._onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
        return int(np.dtype(dtype).itemsize)

    def _num_bytes(self, tensor: Any) -> int:
        elements: int = math.prod(tensor.dims)
        return elements * self._itemsize(tensor)

    def _array(self, tensor: Any) -> npt.NDArray[Any]:
        try:
            found: npt.NDArray[Any] = self._onnx.numpy_helper.to_array(tensor)
        except (KeyError, TypeError) as error:  # of a number that is no dtype
            raise ValueError(f"{tensor.name[:80]!r} has an unknown dtype") from error
        return found

    def _flops(self) -> dict[int, int] | None:
        """Return the operations of each operator, by its place; None if they are unknown."""
        shapes = self._shapes()
        opsets = [one.version for one in self._model.opset_import if one.domain in _STANDARD]
        if shapes is None or self._model.functions or max(opsets, default=0) > _LAST_OPSET:
            return None
        found: dict[int, int] = {}
        for index, node in enumerate(self.nodes):
            if node.op_type in _UNCOUNTED or node.domain not in _STANDARD:
                return None
            if node.op_type in _COUNTS:
                try:
                    found[index] = 2 * _COUNTS[node.op_type](node, shapes)
                except KeyError:  # a shape that depends on values
                    return None
        return found

    def _shapes(self) -> Shapes | None:
        """Return the shapes of all values for a batch of one sample; None if inference fails."""
        fixed = self._onnx.ModelProto()
        fixed.CopyFrom(self._model)
        for one in fixed.graph.input:
            dims = one.type.tensor_type.shape.dim
            if dims and not dims[0].HasField("dim_value"):
                dims[0].dim_value = 1
        del fixed.graph.value_info[:]
        for output in fixed.graph.output:
            output.type.tensor_type.ClearField("shape")
        try:
            graph = self._onnx.shape_inference.infer_shapes(fixed, data_prop=True).graph
        except Exception:  # the library's errors have no base class
            return None
        shapes = {name: tuple(one.dims) for name, one in self._weights.items()}
        for value in (*graph.input, *graph.value_info, *graph.output):
            sizes = [one.dim_value for one in value.type.tensor_type.shape.dim]
            if all(size > 0 for size in sizes) and math.prod(sizes) <= _MAX_ELEMENTS:
                shapes[value.name] = tuple(sizes)
        return shapes


def _of_matmul(node: Any, shapes: Shapes) -> int:
    return math.prod(shapes[node.output[0]]) * shapes[node.input[0]][-1]


def _of_gemm(node: Any, shapes: Shapes) -> int:
    transposed = any(one.name == "transA" and one.i for one in node.attribute)
    return math.prod(shapes[node.output[0]]) * shapes[node.input[0]][0 if transposed else 1]


def _of_convolution(node: Any, shapes: Shapes) -> int:
    weight = 3 if node.op_type == "QLinearConv" else 1
    return math.prod(shapes[node.output[0]]) * math.prod(shapes[node.input[weight]][1:])


_COUNTS: Mapping[str, Callable[[Any, Shapes], int]] = {
    "MatMul": _of_matmul,
    "MatMulInteger": _of_matmul,
    "QLinearMatMul": _of_matmul,
    "Gemm": _of_gemm,
    "Conv": _of_convolution,
    "ConvInteger": _of_convolution,
    "QLinearConv": _of_convolution,
}
"""Multiply-adds of the operators that multiply matrices, as in :mod:`seit.training.flops`."""
_FACTORS = {"QLinearMatMul": (0, 3), "QLinearConv": (0, 3)}
_INTEGER = frozenset({"MatMulInteger", "ConvInteger", "QLinearMatMul", "QLinearConv"})
_UNCOUNTED = frozenset(
    {
        *("Attention", "ConvTranspose", "DFT", "DeformConv", "Einsum", "GRU", "If", "LSTM", "Loop"),
        *("RNN", "STFT", "Scan", "SequenceMap"),
    }
)
"""Operators that multiply too, or run other graphs. All others only move and scale values, which
torch does not count either."""
_LAST_OPSET = 23
"""Last opset whose operators were all looked at."""
