"""Float network of a run as an ONNX graph, with the layers that can be quantized."""

import ast
import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from seit.compression.subject import Subject
from seit.errors import UsageError
from seit.exports import classifier_onnx
from seit.models import MAX_PROGRAM_BYTES

_SCOPES = "pkg.torch.onnx.name_scopes"
_BACKBONE = "backbone"
_PLAIN = {"alpha": 1.0, "beta": 1.0, "transA": 0, "transB": 0}
"""Defaults of a product with a bias."""
ELEMENTWISE = ("Add", "AveragePool", "Clip", "GlobalAveragePool", "MaxPool", "Relu")
"""Operators between convolutions that stay in 8 bits, so that nothing is converted there."""

FLOAT_RESULTS = ("MatMul",)
"""Operators whose results stay in float32, as residual sums and attention do."""


@dataclass(frozen=True, kw_only=True)
class Product:
    """Matrix product or convolution with constant weights.

    Attributes:
        layer: name of the layer in the network.
        node: name of the operator.
        weight: name of the weights, (I, O) of a product and (O, I, …) of a convolution.
        is_convolution: whether it is one.
    """

    layer: str
    node: str
    weight: str
    is_convolution: bool


@dataclass(frozen=True)
class FloatGraph:
    """Classifier of ids in float32 as ONNX: crop, codebook look-up, backbone.

    The look-up and all before it are no products, and are never quantized.

    Attributes:
        model: the graph, an `onnx.ModelProto`; it is not changed.
        products: the layers that can be quantized, in the order of computation.
        between: names of the operators between convolutions.
    """

    model: Any
    products: tuple[Product, ...]
    between: tuple[str, ...]

    @classmethod
    def of_subject(cls, subject: Subject) -> "FloatGraph":
        """Export the network of a subject.

        Raises:
            UsageError: it is too large, has no layers to quantize, or cannot be exported here.
            SeitError: it cannot be exported.
        """
        backbone = subject.model.cpu()
        model = classifier_onnx(subject.run, backbone)
        subject.model.to(subject.device)
        return cls.of_model(model, origin=str(subject.run.path))

    @classmethod
    def of_model(cls, model: Any, *, origin: str) -> "FloatGraph":
        """Prepare an exported classifier, and find its layers.

        Raises:
            UsageError: it is too large, or has no layers to quantize.
        """
        if model.ByteSize() > MAX_PROGRAM_BYTES:
            raise UsageError(
                f"the network of {origin} takes {model.ByteSize():,} bytes as ONNX, and at most "
                f"{MAX_PROGRAM_BYTES:,} are supported; choose --method w8"
            )
        _split_products(model)
        scopes = {node.name: _scope(node) for node in model.graph.node}
        products = tuple(_products(model, scopes))
        between = tuple(
            node.name
            for node in model.graph.node
            if node.op_type in ELEMENTWISE and scopes[node.name]
        )
        _strip_notes(model)
        if not products:
            raise UsageError(f"{origin} has no layer to quantize; choose another run")
        return cls(model, products, between)

    @cached_property
    def data(self) -> bytes:
        """Bytes of the file."""
        data: bytes = self.model.SerializeToString()
        return data

    @property
    def is_convolutional(self) -> bool:
        """Majority of convolutions among the layers."""
        return 2 * sum(one.is_convolution for one in self.products) > len(self.products)

    def weights(self) -> dict[str, npt.NDArray[np.float32]]:
        """Return the weights of the products by name."""
        wanted = {one.weight for one in self.products}
        return {
            tensor.name: to_array(tensor)
            for tensor in self.model.graph.initializer
            if tensor.name in wanted
        }


def to_array(tensor: Any) -> npt.NDArray[Any]:
    """Return a tensor of a model as an array; it is never read from another file."""
    helper = importlib.import_module("onnx.numpy_helper")
    array: npt.NDArray[Any] = helper.to_array(tensor)
    return array


def _split_products(model: Any) -> None:
    """Replace each product with a bias by a product and an addition, as quantizers take them."""
    onnx = importlib.import_module("onnx")
    graph = model.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    nodes = []
    for node in graph.node:
        options = {one.name: onnx.helper.get_attribute_value(one) for one in node.attribute}
        plain = _PLAIN | options in (_PLAIN, _PLAIN | {"transB": 1})
        if node.op_type != "Gemm" or node.input[1] not in constants or not plain:
            nodes.append(node)
            continue
        name = f"{node.input[1]}.transposed"
        weight = to_array(constants[node.input[1]])
        turned = weight.T.copy() if options.get("transB") else weight
        graph.initializer.append(onnx.numpy_helper.from_array(turned, name))
        result = f"{node.output[0]}.product" if len(node.input) > 2 else node.output[0]
        product = onnx.helper.make_node("MatMul", [node.input[0], name], [result], node.name)
        product.metadata_props.extend(node.metadata_props)
        nodes.append(product)
        if len(node.input) > 2:
            added = [result, node.input[2]]
            nodes.append(onnx.helper.make_node("Add", added, [node.output[0]], f"{node.name}.bias"))
    del graph.node[:]
    graph.node.extend(nodes)
    used = {name for node in nodes for name in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)


def _products(model: Any, scopes: dict[str, str]) -> Iterator[Product]:
    constants = {tensor.name for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type in ("MatMul", "Conv") and node.input[1] in constants and scopes[node.name]:
            weight = node.input[1]
            named = weight.removesuffix(".transposed").removesuffix(".weight")
            layer = named if named.startswith(f"{_BACKBONE}.") else scopes[node.name]
            yield Product(
                layer=layer.removeprefix(f"{_BACKBONE}."),
                node=node.name,
                weight=weight,
                is_convolution=node.op_type == "Conv",
            )


def _scope(node: Any) -> str:
    """Return the name of the module in the backbone that an operator comes from, or nothing."""
    for note in node.metadata_props:
        if note.key == _SCOPES:
            found = [one for one in ast.literal_eval(note.value) if one.startswith(_BACKBONE)]
            return str(found[-1]) if found else ""
    return ""


def _strip_notes(model: Any) -> None:
    """Remove the notes on the origin in PyTorch code, which are a tenth of a small file."""
    graph = model.graph
    for one in [*graph.node, *graph.value_info, *graph.input, *graph.output, *graph.initializer]:
        one.ClearField("metadata_props")
        one.ClearField("doc_string")
    for one in (graph, model):
        one.ClearField("metadata_props")
        one.ClearField("doc_string")
