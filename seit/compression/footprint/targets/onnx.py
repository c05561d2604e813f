"""ONNX files: any graph of tensors, in ONNX Runtime on the CPU."""

import importlib
import importlib.util
import math
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from typing_extensions import override

from seit.compression.footprint.targets.base import Call, Counts, Loaded, Target
from seit.compression.footprint.targets.graph import OnnxGraph
from seit.documents import reason_of
from seit.errors import DamagedError, UsageError
from seit.files import open_plain
from seit.models import open_session, reads_other_files
from seit.training import summed

MAX_BYTES = (1 << 31) - 1
"""A protobuf file is below 2 GiB."""
MAX_INPUT_BYTES = 1 << 32
"""Maximum size of a batch."""
_NEEDED = ("onnx", "onnxruntime")
_DTYPES: Mapping[str, type[np.generic]] = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(uint8)": np.uint8,
    "tensor(int8)": np.int8,
    "tensor(bool)": np.bool_,
}
_RESTORE = "export it again, or restore it from a copy"
_SEED = 0


class OnnxFile(Target):
    """An ONNX file whose inputs start with the batch."""

    kind = "onnx"

    @classmethod
    @override
    def fits(cls, path: Path) -> bool:
        return path.suffix == ".onnx" and not path.is_dir()

    @override
    def counts(self) -> Counts:
        graph, size = self._read()
        try:
            graph.check()
            layers, stored = graph.layers(), graph.bytes_by_dtype()
        except (LookupError, ValueError) as error:
            raise DamagedError(
                f"{self.path} is not an intact ONNX file ({_first_line(error)}); {_RESTORE}"
            ) from error
        return Counts(
            name=f"ONNX file of {len(graph.nodes):,} operators",
            runtime="ONNX Runtime",
            whole=summed(layers, size, stored),
            layers=tuple(layers),
        )

    @override
    def prepare(self) -> None:
        self._read()
        importlib.import_module("onnxruntime")

    @override
    def load(self, threads: int) -> Loaded:
        session = open_session(self.path, origin=str(self.path), threads=threads)
        return LoadedProgram(session, str(self.path))

    def _read(self) -> tuple[OnnxGraph, int]:
        """Return the graph and the size of the file; follows no reference to other files."""
        lacking = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
        if lacking:
            raise UsageError(
                f"{self.path} needs {' and '.join(lacking)} to be measured; run: pip install "
                f"{' '.join(lacking)}"
            )
        onnx: Any = importlib.import_module("onnx")
        try:
            with open_plain(self.path) as file:
                data = file.read(MAX_BYTES + 1)
            if len(data) > MAX_BYTES:
                raise ValueError(f"it has over {MAX_BYTES:,} bytes")
            model = onnx.ModelProto.FromString(data)
        except Exception as error:  # the protobuf library's errors have no base class
            raise DamagedError(
                f"{self.path} is not an intact ONNX file ({reason_of(error)}); {_RESTORE}"
            ) from error
        graph = OnnxGraph(model)
        if not graph.nodes:
            raise DamagedError(f"{self.path} is not an intact ONNX file (it is empty); {_RESTORE}")
        if reads_other_files(model):
            raise UsageError(
                f"{self.path} keeps weights in other files, which are not opened; name a file that "
                "holds its own"
            )
        return graph, len(data)


class LoadedProgram(Loaded):
    """A session of ONNX Runtime."""

    def __init__(self, session: Any, origin: str) -> None:
        self.session = session
        self.origin = origin

    @override
    def call(self, batch_size: int) -> Call:
        random = np.random.default_rng(_SEED)
        feed = {
            one.name: self._values(one, batch_size, random) for one in self.session.get_inputs()
        }
        return partial(self._run, feed)

    def _run(self, feed: Mapping[str, npt.NDArray[Any]]) -> Any:
        try:
            return self.session.run(None, feed)
        except Exception as error:  # as above
            raise DamagedError(
                f"{self.origin} cannot be run ({_first_line(error)}); {_RESTORE}"
            ) from error

    def _values(
        self, wanted: Any, batch_size: int, random: np.random.Generator
    ) -> npt.NDArray[Any]:
        """Return values for an input: 0 for integers, which may be ids; else from 0 to 1."""
        dtype = _DTYPES.get(wanted.type)
        shape = list(wanted.shape)
        if dtype is None or not shape or not all(isinstance(one, int) for one in shape[1:]):
            raise UsageError(
                f"{self.origin} takes {wanted.name!r} of type {wanted.type} and shape {shape}; "
                "only batches of tensors of one size can be measured"
            )
        if isinstance(shape[0], int) and shape[0] != batch_size:
            raise UsageError(
                f"{self.origin} takes batches of {shape[0]}; pass --batch-size {shape[0]}"
            )
        size = (batch_size, *shape[1:])
        if math.prod(size) * np.dtype(dtype).itemsize > MAX_INPUT_BYTES:
            raise UsageError(
                f"{self.origin} takes batches of shape {list(size)}, over {MAX_INPUT_BYTES:,} "
                "bytes; pass a smaller --batch-size"
            )
        if np.issubdtype(dtype, np.floating):
            return random.random(size).astype(dtype)
        return np.zeros(size, dtype)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
