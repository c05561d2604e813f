"""Check that the runtime computes what a quantized file stands for, and choice of its format.

A kernel that adds products of bytes in 16 bits saturates for large weights, silently. So the logits
of the runtime are compared with those of exact products; if they differ by much more than the
rounding to 8 bits explains, the next safer format is tried.

Legend: n samples, H W stored grid, N classes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from seit.compression.int8.reference import exact_products
from seit.compression.int8.variants import Variant
from seit.errors import SeitError
from seit.models import PROGRAM_INPUT, open_session

Ids = npt.NDArray[np.int64]
Logits = npt.NDArray[np.float32]
Compute = Callable[[bytes, Ids], Logits]
"""Runs a file on ids (n, H, W) → logits (n, N)."""

MAX_RATIO = 2.0
"""Distance of the runtime from exact products, at most, in distances of these from float32."""
NEGLIGIBLE = 0.01
"""Distance that passes however small the other is: codes that tie are rounded either way."""
_BATCH = 32


@dataclass(frozen=True)
class Check:
    """Comparison of a file in the runtime with its exact products, on calibration samples.

    Attributes:
        format: format of the file.
        rounding: distance of the exact logits from those in float32.
        runtime: distance of the runtime's logits from the exact ones.
    """

    format: str
    rounding: float
    runtime: float

    @property
    def passed(self) -> bool:
        """Agreement of the runtime with what the file stands for."""
        return self.runtime <= max(MAX_RATIO * self.rounding, NEGLIGIBLE)


@dataclass(frozen=True)
class Made:
    """Quantized file that passed its check.

    Attributes:
        data: the file.
        variant: its format.
        checks: checks of the formats that were tried, this one's last.
    """

    data: bytes
    variant: Variant
    checks: tuple[Check, ...]


def choose_format(
    quantize: Callable[[Variant], bytes],
    variants: Sequence[Variant],
    ids: Ids,
    expected: Logits,
    *,
    compute: Compute | None = None,
) -> Made:
    """Quantize in the first format that the runtime computes rightly.

    Args:
        quantize: makes the file in a format.
        variants: formats, the preferred first.
        ids: samples (n, H, W) to check on.
        expected: their logits (n, N) in float32.
        compute: the runtime; ONNX Runtime by default.

    Raises:
        SeitError: it computes none of them rightly.
    """
    checks: list[Check] = []
    for variant in variants:
        data = quantize(variant)
        exact = run_file(exact_products(data), ids, fused=False)
        found = (compute or run_file)(data, ids)
        checks.append(Check(variant.name, distance(exact, expected), distance(found, exact)))
        if checks[-1].passed:
            return Made(data, variant, tuple(checks))
    found_text = ", ".join(f"{one.format}: {one.runtime:.3g}" for one in checks)
    raise SeitError(
        "ONNX Runtime computes other logits than the 8-bit file stands for on this processor "
        f"(relative distance {found_text}); choose --method w8, or another processor"
    )


def run_file(data: bytes, ids: Ids, *, fused: bool = True) -> Logits:
    """Return the logits (n, N) of a file by ONNX Runtime, in batches of 32."""
    session = open_session(data, origin="the quantized network", fused=fused)
    parts = [
        session.run(None, {PROGRAM_INPUT: ids[start : start + _BATCH]})[0]
        for start in range(0, len(ids), _BATCH)
    ]
    return np.concatenate(parts)


def distance(found: Logits, expected: Logits) -> float:
    """Return the root mean square difference, relative to that of ``expected`` from 0."""
    size = float(np.linalg.norm(expected.astype(np.float64)))
    return float(np.linalg.norm(found.astype(np.float64) - expected)) / max(size, 1e-12)
