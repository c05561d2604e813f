"""Ranges of activations: the float graph over calibration samples, with all of them as outputs.

Legend: B batch, H W stored grid.
"""

import importlib
from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from seit.compression.int8.calibrators import Calibrator, Range
from seit.compression.int8.graph import FLOAT_RESULTS, FloatGraph
from seit.compression.int8.histogram import StreamingHistogram
from seit.models import PROGRAM_INPUT, open_session

_BATCH = 16


def activation_ranges(
    graph: FloatGraph, batches: Iterable[Tensor], calibrator: Calibrator
) -> dict[str, Range]:
    """Return the range of each activation that is quantized, by name.

    Memory is that of the activations of 16 samples, and a histogram for each.

    Args:
        graph: the network in float.
        batches: ids (B, H, W) of the calibration samples.
        calibrator: choice of the ranges.

    Raises:
        SeitError: an activation is not finite.
    """
    return {name: calibrator.range_of(one) for name, one in _histograms(graph, batches).items()}


def _histograms(graph: FloatGraph, batches: Iterable[Tensor]) -> Mapping[str, StreamingHistogram]:
    session = open_session(_with_outputs(graph), origin="the network")
    names = [one.name for one in session.get_outputs()]
    found = {name: StreamingHistogram() for name in names}
    for batch in batches:
        for ids in batch.long().cpu().split(_BATCH):
            values = session.run(names, {PROGRAM_INPUT: ids.numpy()})
            for name, one in zip(names, values, strict=True):
                found[name].add(one)
    return found


def _with_outputs(graph: FloatGraph) -> bytes:
    """Return the graph with all that quantizers fix the range of as outputs.

    These are inputs and results of the quantizable operators, but for results of products.
    """
    helper: Any = importlib.import_module("onnx.helper")
    model = type(graph.model)()
    model.CopyFrom(graph.model)
    nodes = {one.node for one in graph.products} | set(graph.between)
    known = {one.name for one in model.graph.initializer}
    del model.graph.output[:]
    for node in graph.model.graph.node:
        if node.name in nodes:
            results = () if node.op_type in FLOAT_RESULTS else node.output
            for name in (*node.input, *results):
                if name and name not in known:
                    known.add(name)
                    model.graph.output.append(helper.make_tensor_value_info(name, 1, None))
    data: bytes = model.SerializeToString()
    return data
