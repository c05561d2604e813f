"""Quantization of a float graph by ONNX Runtime's tools, with ranges of our own."""

import importlib
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from typing_extensions import override

from seit.compression.int8.calibrators import Range
from seit.compression.int8.graph import ELEMENTWISE, FLOAT_RESULTS, FloatGraph, Product
from seit.compression.int8.variants import DYNAMIC, STATIC, Variant
from seit.exports import quiet
from seit.processor import Target


class Quantizer(ABC):
    """Way to quantize activations.

    Attributes:
        activations: when their ranges are taken, for notes.
        variants: formats by processor, the preferred first.
    """

    activations: str
    variants: Mapping[Target, tuple[Variant, ...]]

    @abstractmethod
    def quantize(self, graph: FloatGraph, variant: Variant, *, left: frozenset[str]) -> bytes:
        """Return the file with 8-bit layers, but for those of the names ``left``."""

    def products(self, graph: FloatGraph) -> tuple[Product, ...]:
        """Return the layers that it quantizes."""
        return graph.products

    def note(self) -> dict[str, str]:
        """Return its entries in `run.json`."""
        return {"activations": self.activations}


class Dynamic(Quantizer):
    """Ranges of activations are taken as they come, for each batch; convolutions stay in float."""

    activations = "dynamic"
    variants = DYNAMIC

    @override
    def quantize(self, graph: FloatGraph, variant: Variant, *, left: frozenset[str]) -> bytes:
        nodes = [one.node for one in self.products(graph) if one.layer not in left]
        if not nodes:  # the tool takes none for all
            return graph.data
        with quiet(), tempfile.TemporaryDirectory() as folder:
            tools = _tools("quantize")
            path = Path(folder) / "int8.onnx"
            tools.quantize_dynamic(
                _copy(graph.model),
                path,
                op_types_to_quantize=["MatMul"],
                nodes_to_quantize=nodes,
                per_channel=True,
                reduce_range=variant.bits < 8,
                weight_type=_type(signed=variant.signed),
                extra_options={"WeightSymmetric": variant.signed, "MatMulConstBOnly": True},
            )
            return path.read_bytes()

    @override
    def products(self, graph: FloatGraph) -> tuple[Product, ...]:
        return tuple(one for one in graph.products if not one.is_convolution)


@dataclass(frozen=True)
class Static(Quantizer):
    """Ranges of activations are fixed.

    Products give float results, so that residual sums and attention stay in float32; in
    convolutional networks sums and pooling are in 8 bits too.

    Attributes:
        ranges: range of each activation by name.
        calibrator: name of the calibrator that chose them.
    """

    ranges: Mapping[str, Range]
    calibrator: str
    activations = "static"
    variants = STATIC

    @override
    def quantize(self, graph: FloatGraph, variant: Variant, *, left: frozenset[str]) -> bytes:
        nodes = [one.node for one in graph.products if one.layer not in left]
        if not nodes:
            return graph.data
        operators = ["MatMul", "Conv"]
        if graph.is_convolutional:
            nodes += graph.between
            operators += ELEMENTWISE
        with quiet():
            calibrate, tools = _tools("calibrate"), _tools("qdq_quantizer")
            shapes = importlib.import_module("onnx.shape_inference")
            ranges = {name: tuple(map(np.float32, one)) for name, one in self.ranges.items()}
            quantizer = tools.QDQQuantizer(
                shapes.infer_shapes(_copy(graph.model)),
                True,  # a scale for each output channel
                variant.bits < 8,
                _type(signed=variant.signed),
                _type(signed=variant.signed_activations),
                calibrate.TensorsData(calibrate.CalibrationMethod.MinMax, ranges),
                nodes,
                [],
                operators,
                {
                    "WeightSymmetric": variant.signed,
                    "ActivationSymmetric": variant.signed_activations,
                    "OpTypesToExcludeOutputQuantization": list(FLOAT_RESULTS),
                },
            )
            quantizer.quantize_model()
            quantizer.model.topological_sort()
            data: bytes = quantizer.model.model.SerializeToString()
            return data

    @override
    def note(self) -> dict[str, str]:
        return {**super().note(), "calibrator": self.calibrator}


def _tools(name: str) -> Any:
    return importlib.import_module(f"onnxruntime.quantization.{name}")


def _type(*, signed: bool) -> Any:
    types = _tools("quant_utils").QuantType
    return types.QInt8 if signed else types.QUInt8


def _copy(model: Any) -> Any:
    copy = type(model)()
    copy.CopyFrom(model)
    return copy
