"""Define the fuzz target of ONNX files: a stranger's file given to `seit footprint` or `seit eval`.

As in `targets`, the first two bytes of an input select how the rest is used: as a file, or as
changes of an otherwise valid one. No file but the given one may be opened.

Shape letters: B batch, H W grid.
"""

import atexit
import contextlib
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

from seit.compression.footprint.targets.onnx import OnnxFile
from seit.errors import SeitError
from seit.models import OnnxClassifier

GRID, CODES, CLASSES = (2, 2), 16, 3
SECRET = "secret.bin"
"""File beside the given one, to which it may refer."""
_SIZES = (0, 1, -1, 3, 1 << 20, 1 << 40, (1 << 63) - 1)
_opened: set[str] = set()


def fuzz_onnx(case: int, effort: int, data: bytes) -> None:
    """Fuzz an ONNX file: count it, and run it as the classifier of a run."""
    if effort % 2:
        data = _changed(data).SerializeToString()
    path = _scratch() / "model.onnx"
    path.write_bytes(data)
    _opened.clear()
    with contextlib.suppress(SeitError):
        OnnxFile(path).counts()
    if case % 2:
        with contextlib.suppress(SeitError):
            program = OnnxClassifier(data, grid=GRID, num_classes=CLASSES, origin="fuzz")
            logits = program(torch.zeros(1, *GRID, dtype=torch.int64))
            assert logits.shape == (1, CLASSES), "other logits than declared"
    assert str(_scratch() / SECRET) not in _opened, "another file was opened"


def _changed(data: bytes) -> Any:
    """Return a valid model with a change for each three bytes."""
    model = classifier()
    for start in range(0, len(data) - 2, 3):
        kind, place, value = data[start : start + 3]
        _CHANGES[kind % len(_CHANGES)](model, place, value)
    return model


def _resize(model: Any, place: int, value: int) -> None:
    dims = _tensor(model, place).dims
    dims[:] = [*dims[:-1], _SIZES[value % len(_SIZES)]]


def _retype(model: Any, place: int, value: int) -> None:
    _tensor(model, place).data_type = value


def _resize_input(model: Any, place: int, value: int) -> None:
    dims = model.graph.input[0].type.tensor_type.shape.dim
    dims[place % len(dims)].dim_value = _SIZES[value % len(_SIZES)]


def _refer(model: Any, place: int, value: int) -> None:
    _point_elsewhere(_tensor(model, place), value)


def _refer_inside(model: Any, place: int, value: int) -> None:
    """Let an operator hold a graph whose weight is in another file."""
    weight = numpy_helper.from_array(np.ones((1, CLASSES), np.float32), "inner")
    _point_elsewhere(weight, value)
    made = helper.make_tensor_value_info("made", TensorProto.FLOAT, [1, CLASSES])
    node = helper.make_node("Identity", ["inner"], ["made"])
    branch = helper.make_graph([node], "branch", [], [made], [weight])
    model.graph.initializer.append(numpy_helper.from_array(np.array(place > 127), "flag"))
    both = {"then_branch": branch, "else_branch": branch}
    model.graph.node.append(helper.make_node("If", ["flag"], ["chosen"], **both))


def _rewire(model: Any, place: int, value: int) -> None:
    node = model.graph.node[place % len(model.graph.node)]
    ends = node.output if value % 2 else node.input
    names = ("", "tokens", "codebook", node.output[0] if node.output else "")
    ends[:] = [*ends[1:], names[value // 2 % len(names)]] if value % 3 else []


def _rename(model: Any, place: int, value: int) -> None:
    node = model.graph.node[place % len(model.graph.node)]
    node.op_type = ("Loop", "Conv", "Einsum", "NonZero", "Gemm", "Tile", "x\x1b[2J")[value % 7]


def _grow(model: Any, place: int, value: int) -> None:
    size = [_SIZES[place % len(_SIZES)], _SIZES[value % len(_SIZES)]]
    model.graph.initializer.append(numpy_helper.from_array(np.array(size), "size"))
    kind = ("ConstantOfShape", "RandomNormal")[value // 7 % 2]
    model.graph.node.append(helper.make_node(kind, ["size"], ["huge"]))
    model.graph.node.append(helper.make_node("ReduceSum", ["huge"], ["sum"], keepdims=0))
    model.graph.node.append(helper.make_node("Add", ["h", "sum"], ["logits"]))


_CHANGES: tuple[Callable[[Any, int, int], None], ...] = (
    _resize,
    _retype,
    _resize_input,
    _refer,
    _refer_inside,
    _rewire,
    _rename,
    _grow,
)


def _tensor(model: Any, place: int) -> Any:
    return model.graph.initializer[place % len(model.graph.initializer)]


def _point_elsewhere(tensor: Any, value: int) -> None:
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key = "location"
    entry.value = (SECRET, f"../{SECRET}", "/etc/passwd", "/dev/zero", "")[value % 5]


def classifier() -> Any:
    """Return a valid model: ids (B, H, W) → look-up → product → logits (B, 3)."""
    random = np.random.default_rng(0)
    constants = {
        "codebook": random.random((CODES, 2)).astype(np.float32),
        "shape": np.array([-1, 8]),
        "weight": random.random((8, CLASSES)).astype(np.float32),
    }
    nodes = [
        helper.make_node("Gather", ["codebook", "tokens"], ["x"]),
        helper.make_node("Reshape", ["x", "shape"], ["flat"]),
        helper.make_node("MatMul", ["flat", "weight"], ["h"]),
        helper.make_node("Relu", ["h"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "classifier",
        [helper.make_tensor_value_info("tokens", TensorProto.INT64, ["batch", *GRID])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", CLASSES])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def onnx_seeds() -> Iterator[bytes]:
    """Yield a valid file, whole and truncated, and one input for each change."""
    data = classifier().SerializeToString()
    onnx.checker.check_model(classifier())
    for length in (len(data), len(data) // 2, len(data) - 1):
        yield b"\1\0" + data[:length]
    for kind in range(len(_CHANGES)):
        for place, value in ((0, 0), (2, 4), (200, 5)):
            yield bytes([1, 1, kind, place, value])


@cache
def _scratch() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="seit-fuzz-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    (folder / SECRET).write_bytes(bytes(1 << 10))
    sys.addaudithook(_note)
    return folder


def _note(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open":
        _opened.add(str(arguments[0]))


TARGETS: dict[str, Callable[[int, int, bytes], None]] = {"onnx": fuzz_onnx}
SEEDS: dict[str, Callable[[], Iterator[bytes]]] = {"onnx": onnx_seeds}
