"""Classifiers that ONNX Runtime runs on the CPU, from a file next to a run's weights.

Legend: B batch, H W stored grid, N classes.
"""

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from typing_extensions import override

from seit.errors import DamagedError
from seit.extras import check_installed
from seit.files import open_plain
from seit.models.compression.bounds import MAX_PROGRAM_BYTES, largest_batch

PROGRAM_NAME = "classifier.int8.onnx"
"""Name of the file in a run's folder."""
PROGRAM_INPUT = "tokens"
_RESTORE = "restore it from a copy"


class OnnxClassifier(nn.Module):
    """Ids (B, L·H, W) → logits (B, N) float32, by ONNX Runtime on the CPU.

    Includes crop and look-up. Takes large batches in parts of at most 64. A file that quantizes
    activations by the range of a batch gives logits that depend a little on the batch.

    Args:
        data: the file.
        grid: rows and columns (L·H, W) of the ids.
        num_classes: N.
        origin: name of the file, for messages.

    Raises:
        UsageError: ONNX Runtime is not installed.
        DamagedError: the file is no such program, reads other files or takes too much memory.
    """

    def __init__(
        self, data: bytes, *, grid: tuple[int, int], num_classes: int, origin: str
    ) -> None:
        super().__init__()
        check_runtime("runs in 8 bits")
        model = parse_onnx(data, origin=origin)
        self.batch = largest_batch(model, origin=origin)
        """Samples taken at a time."""
        self.session = open_session(data, origin=origin)
        """The session of ONNX Runtime."""
        _check_signature(self.session, grid, num_classes, origin)
        self._origin = origin

    @classmethod
    def load(cls, path: Path, *, grid: tuple[int, int], num_classes: int) -> "OnnxClassifier":
        """Load a file.

        Raises:
            UsageError: ONNX Runtime is not installed.
            DamagedError: the file is missing, or no such program.
        """
        return cls(read_onnx(path), grid=grid, num_classes=num_classes, origin=str(path))

    @override
    def forward(self, tokens: Tensor) -> Tensor:
        ids = tokens.long().cpu().numpy()
        parts = [
            self._run(ids[start : start + self.batch]) for start in range(0, len(ids), self.batch)
        ]
        return torch.from_numpy(np.concatenate(parts)).to(tokens.device)

    def _run(self, ids: Any) -> Any:
        try:
            return self.session.run(None, {PROGRAM_INPUT: ids})[0]
        except Exception as error:  # the runtime's errors have no base class
            raise DamagedError(
                f"{self._origin} cannot be run ({_first_line(error)}); {_RESTORE}"
            ) from error


def check_runtime(use: str) -> None:
    """Check that ONNX and ONNX Runtime are installed.

    Args:
        use: what needs them, in the plural.

    Raises:
        UsageError: one is missing.
    """
    check_installed(("onnx", "onnxruntime"), use=use, extra="quantize")


def read_onnx(path: Path) -> bytes:
    """Read an ONNX file of bounded size.

    Raises:
        DamagedError: it is missing, no regular file, or too large.
    """
    try:
        with open_plain(path) as file:
            data = file.read(MAX_PROGRAM_BYTES + 1)
    except OSError as error:
        raise DamagedError(f"{path} cannot be read ({error.strerror}); {_RESTORE}") from error
    if len(data) > MAX_PROGRAM_BYTES:
        raise DamagedError(
            f"{path} has over {MAX_PROGRAM_BYTES:,} bytes, the most that is read; {_RESTORE}"
        )
    return data


def parse_onnx(data: bytes, *, origin: str) -> Any:
    """Parse an ONNX file, as an `onnx.ModelProto`; follows no reference to other files.

    Raises:
        DamagedError: the bytes are none.
    """
    onnx = importlib.import_module("onnx")
    try:
        return onnx.ModelProto.FromString(data)
    except Exception as error:  # of the protobuf library in use
        raise DamagedError(f"{origin} is no ONNX file; {_RESTORE}") from error


def open_session(
    data: bytes | Path, *, origin: str, threads: int | None = None, fused: bool = True
) -> Any:
    """Open a session of ONNX Runtime on the CPU.

    Args:
        data: an ONNX file, or its path, which needs less memory.
        origin: name of the file, for messages.
        threads: threads of an operator; as many as PyTorch uses by default.
        fused: whether operators may be fused; each runs by itself otherwise.

    Raises:
        DamagedError: the runtime refuses the file.
    """
    onnxruntime = importlib.import_module("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = threads or torch.get_num_threads()
    if not fused:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    given = str(data) if isinstance(data, Path) else data
    try:
        session = onnxruntime.InferenceSession(
            given, options, providers=["CPUExecutionProvider"], enable_fallback=0
        )
        for one in (*session.get_inputs(), *session.get_outputs()):
            _ = one.name, one.type, one.shape  # which may be no UTF-8
        return session
    except Exception as error:  # the runtime's errors have no base class
        raise DamagedError(
            f"{origin} is refused by ONNX Runtime ({_first_line(error)}); {_RESTORE}"
        ) from error


def _check_signature(session: Any, grid: tuple[int, int], num_classes: int, origin: str) -> None:
    (given,), (made,) = session.get_inputs(), session.get_outputs()
    taken = (given.name, given.type, *given.shape[1:])
    if taken != (PROGRAM_INPUT, "tensor(int64)", *grid):
        raise DamagedError(f"{origin} takes {taken}, not ids of grids {grid}; {_RESTORE}")
    if made.type != "tensor(float)" or list(made.shape[1:]) != [num_classes]:
        raise DamagedError(
            f"{origin} returns {made.type} {made.shape}, not logits of {num_classes} classes; "
            f"{_RESTORE}"
        )


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
