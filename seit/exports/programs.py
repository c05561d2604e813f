"""Tracing of networks, and files of torch.export and ONNX.

PyTorch's messages about its own work are suppressed.
"""

import contextlib
import importlib
import importlib.util
import io
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.export import Dim, ExportedProgram

from seit.errors import SeitError, UsageError
from seit.exports.graphs import Graph, Outputs, RawEncoder
from seit.extras import how_to_install

OPSET = 20
"""Opset supported by ONNX Runtime since 1.17 (2024)."""
OPSETS = (18, 23)
MAX_ONNX_BYTES = (1 << 31) - (1 << 20)
"""A protobuf file is below 2 GiB; larger weights go to a file next to it."""
EXTERNAL_SUFFIX = ".data"
_BATCH = "batch"

Compute = Callable[[Tensor], Outputs]
"""Function that runs a file on a batch."""


def check_opset(opset: int) -> None:
    """Raise UsageError if PyTorch does not write an ONNX opset."""
    low, high = OPSETS
    if not low <= opset <= high:
        raise UsageError(f"opset is {opset}; it must be from {low} to {high}")


def check_onnx_installed() -> None:
    """Raise UsageError if a package for the export to ONNX is missing."""
    lacking = [name for name in ("onnx", "onnxscript") if not _is_installed(name)]
    if lacking:
        raise UsageError(
            f"ONNX files need {' and '.join(lacking)}; {how_to_install('export')}, or choose "
            "--format safetensors torch"
        )


def trace(graph: Graph | RawEncoder, example: Tensor) -> ExportedProgram:
    """Trace a network in evaluation mode for batches of any size, given one of 2 or more.

    Raises:
        SeitError: the network cannot be traced.
    """
    shapes = {0: Dim(_BATCH)}
    try:
        with quiet():
            return torch.export.export(graph, (example,), dynamic_shapes=(shapes,), strict=False)
    except Exception as error:  # torch.export's errors have no base class
        raise SeitError(f"the network cannot be exported: {_first_line(error)}") from error


def write_torch(program: ExportedProgram, path: Path, *, files: Mapping[str, str]) -> None:
    """Write a program for `torch.export.load`, with texts as extra files."""
    with quiet():
        torch.export.save(program, path, extra_files=dict(files))


def open_torch(path: Path) -> Compute:
    """Load a torch.export file as a function."""
    with quiet():
        module = torch.export.load(path).module()

    def run(batch: Tensor) -> Outputs:
        outputs: Outputs = module(batch)
        return outputs

    return run


def write_onnx(
    program: ExportedProgram,
    path: Path,
    graph: Graph,
    *,
    metadata: Mapping[str, str],
    opset: int = OPSET,
) -> None:
    """Write a program as ONNX, with texts as metadata.

    Raises:
        SeitError: PyTorch cannot write it in this opset.
    """
    with _explained_export(opset):
        onnx_program = _to_onnx(program, graph, opset)
        onnx_program.model.metadata_props.update(metadata)
        num_bytes = sum(value.nbytes for value in _constants(onnx_program.model))
        onnx_program.save(path, external_data=num_bytes > MAX_ONNX_BYTES)


def onnx_model(program: ExportedProgram, graph: Graph | RawEncoder, *, opset: int = OPSET) -> Any:
    """Return a program as an `onnx.ModelProto`.

    Raises:
        SeitError: PyTorch cannot write it in this opset, or it is too large for one file.
    """
    with _explained_export(opset):
        onnx_program = _to_onnx(program, graph, opset)
        num_bytes = sum(value.nbytes for value in _constants(onnx_program.model))
        if num_bytes > MAX_ONNX_BYTES:
            raise ValueError(f"it holds {num_bytes:,} bytes, too many for one file")
        return onnx_program.model_proto


def _to_onnx(program: ExportedProgram, graph: Graph | RawEncoder, opset: int) -> Any:
    return torch.onnx.export(
        program,
        (),
        dynamo=True,
        verbose=False,
        opset_version=opset,
        input_names=[graph.input_name],
        output_names=list(graph.output_names),
        dynamic_shapes=({0: _BATCH},),
    )


@contextlib.contextmanager
def _explained_export(opset: int) -> Iterator[None]:
    try:
        with quiet():
            yield
    except Exception as error:  # as in `trace`
        raise SeitError(
            f"the network cannot be written as ONNX of opset {opset}: {_first_line(error)}"
        ) from error


def _constants(model: Any) -> Iterator[Any]:
    for value in model.graph.initializers.values():
        if value.const_value is not None:
            yield value.const_value


def open_onnx(path: Path) -> Compute | None:
    """Load a file in ONNX Runtime on the CPU; return None if that is not installed."""
    if not _is_installed("onnxruntime"):
        return None
    onnxruntime: Any = importlib.import_module("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def run(batch: Tensor) -> Outputs:
        return tuple(torch.from_numpy(value) for value in session.run(None, {name: batch.numpy()}))

    return run


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Suppress warnings, logging below errors, and output."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _is_installed(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
