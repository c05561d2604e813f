"""Bounds of an ONNX file before it is run: what it reads, and the memory that it takes.

A stranger's file may hold anything. Only plain graphs of the standard operators are run, in which
every size follows from that of the input.
"""

import importlib
import math
from collections.abc import Iterator
from typing import Any

from seit.errors import DamagedError

MAX_PROGRAM_BYTES = 1 << 30
"""Maximum size of a file."""
MAX_ACTIVATION_BYTES = 1 << 32
"""Maximum size of all intermediate results of a batch, each counted once."""
BATCH_SIZES = (64, 16, 4, 1)
"""Batches to try, largest first, until the intermediate results fit."""
_STANDARD = ("", "ai.onnx")


def largest_batch(model: Any, *, origin: str) -> int:
    """Return the number of samples that a program may take at a time.

    Args:
        model: an `onnx.ModelProto` with one input, whose first dimension is the batch.
        origin: name of the file, for messages.

    Raises:
        DamagedError: it reads other files, is not a plain graph, or takes too much memory.
    """
    fault = next(_faults(model), None)
    if fault is not None:
        raise DamagedError(f"{origin} {fault}, which no run's file does; restore it from a copy")
    for batch in BATCH_SIZES:
        if _activation_bytes(model, batch, origin=origin) <= MAX_ACTIVATION_BYTES:
            return batch
    raise DamagedError(
        f"{origin} takes over {MAX_ACTIVATION_BYTES:,} bytes for one sample; restore it from a copy"
    )


def reads_other_files(message: Any) -> bool:
    """Return whether a tensor anywhere in an ONNX message, graphs in operators too, is elsewhere.

    Args:
        message: an `onnx.ModelProto`, or a part of one.
    """
    tensor = importlib.import_module("onnx").TensorProto
    if message.DESCRIPTOR.full_name == tensor.DESCRIPTOR.full_name:
        return message.data_location == tensor.EXTERNAL or len(message.external_data) > 0
    for field, value in message.ListFields():
        if field.message_type is not None:
            parts = [value] if hasattr(value, "ListFields") else value
            if any(map(reads_other_files, parts)):
                return True
    return False


def _faults(model: Any) -> Iterator[str]:
    """Yield what makes a model more than a plain graph."""
    graph = model.graph
    if len(graph.input) != 1 or len(graph.output) != 1:
        yield f"has {len(graph.input)} inputs and {len(graph.output)} outputs"
    if model.functions or model.training_info or graph.sparse_initializer:
        yield "holds functions, training data or sparse tensors"
    for node in graph.node:
        if node.domain not in _STANDARD:
            yield f"uses the operator {node.op_type!r} of {node.domain!r}"
        for one in node.attribute:
            has_graph = one.HasField("g") or one.graphs
            if has_graph or one.ref_attr_name or one.HasField("sparse_tensor"):
                yield f"holds a graph in its operator {node.op_type!r}"
    if reads_other_files(model):
        yield "reads other files"


def _activation_bytes(model: Any, batch: int, *, origin: str) -> int:
    """Return the size of all results of a batch, from shapes inferred from the input's alone."""
    onnx = importlib.import_module("onnx")
    fixed = onnx.ModelProto()
    fixed.CopyFrom(model)
    graph = fixed.graph
    del graph.value_info[:]
    for output in graph.output:
        output.type.tensor_type.ClearField("shape")
    shape = graph.input[0].type.tensor_type.shape.dim
    if not shape or any(one.dim_value < 1 for one in shape[1:]):
        raise DamagedError(f"{origin} takes inputs of unknown size; restore it from a copy")
    shape[0].dim_value = batch
    try:
        inferred = onnx.shape_inference.infer_shapes(fixed, strict_mode=True, data_prop=True).graph
    except Exception as error:  # the library's errors have no base class
        reason = (str(error).splitlines() or ["no reason given"])[0][:200]
        raise DamagedError(f"{origin} is damaged ({reason}); restore it from a copy") from error
    sizes = {value.name: _num_bytes(value) for value in [*inferred.value_info, *inferred.output]}
    names = [name for node in graph.node for name in node.output if name]
    total = 0
    for name in names:
        if sizes.get(name) is None:
            raise DamagedError(
                f"{origin} computes {name[:80]!r} of unknown size; restore it from a copy"
            )
        total += sizes[name] or 0
    return total


def _num_bytes(value: Any) -> int | None:
    """Return the size of an inferred value; None if it is unknown."""
    helper = importlib.import_module("onnx.helper")
    tensor = value.type.tensor_type
    if not value.type.HasField("tensor_type") or not tensor.HasField("shape"):
        return None
    sizes = [one.dim_value if one.HasField("dim_value") else -1 for one in tensor.shape.dim]
    if any(size < 0 for size in sizes):
        return None
    try:
        dtype = helper.tensor_dtype_to_np_dtype(tensor.elem_type)
    except KeyError:  # a number that is no dtype
        return None
    return math.prod(sizes) * int(dtype.itemsize)
