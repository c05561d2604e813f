"""Plan of mixed precision: what each layer costs at each number of bits, and the best choice."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from seit.compression.weights.allocation import allocate
from seit.errors import UsageError
from seit.packed_weights import PackedWeight


@dataclass(frozen=True)
class Option:
    """One number of bits for a layer.

    Attributes:
        bits: bits of a weight.
        bytes: bytes of codes, scales and zero points.
        error: ‖Q(W) − W‖², by nearest rounding.
    """

    bits: int
    bytes: int
    error: float

    @classmethod
    def of(cls, packed: PackedWeight, weight: Tensor) -> "Option":
        """Return the option of a quantized weight."""
        error = (packed.dense() - weight.cpu()).double().square().sum()
        return cls(packed.grid.bits, packed_bytes(packed), float(error))


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Options of each layer, and the bytes that they may take.

    Attributes:
        options: options by layer.
        fixed_bytes: bytes of the file for everything else.
        whole_bytes: bytes of the file of float weights.
        budget: allowed fraction of them.
    """

    options: Mapping[str, tuple[Option, ...]]
    fixed_bytes: int
    whole_bytes: int
    budget: float

    @property
    def allowed_bytes(self) -> int:
        """Bytes that the file may take."""
        return math.floor(self.budget * self.whole_bytes)

    @property
    def least_bytes(self) -> int:
        """Bytes of the file with the fewest bits everywhere."""
        return self.fixed_bytes + sum(
            min(one.bytes for one in own) for own in self.options.values()
        )

    def check(self) -> None:
        """Check that the budget can be met.

        Raises:
            UsageError: it cannot; the message says what can.
        """
        if self.least_bytes > self.allowed_bytes:
            least = math.ceil(1000 * self.least_bytes / self.whole_bytes) / 1000
            raise UsageError(
                f"compression.budget {self.budget:g} allows {self.allowed_bytes:,} bytes, and the "
                f"least possible is {self.least_bytes:,}, with every layer in its fewest bits; set "
                f"compression.budget to {least:g} or more"
            )

    def omega(self, traces: Mapping[str, float]) -> dict[str, dict[int, float]]:
        """Return the sensitivity Ω of each layer at each number of bits, for its mean trace.

        A trace below 0, which a network short of a minimum can have, counts as 0.
        """
        return {
            name: {one.bits: max(0.0, traces[name]) * one.error for one in own}
            for name, own in self.options.items()
        }

    def choose(self, omega: Mapping[str, Mapping[int, float]]) -> dict[str, int]:
        """Return the bits of each layer whose sum of sensitivities is least within the budget."""
        sizes = [[one.bytes for one in own] for own in self.options.values()]
        costs = [list(omega[name].values()) for name in self.options]
        chosen = allocate(sizes, costs, budget=self.allowed_bytes - self.fixed_bytes)
        assert chosen is not None, "the budget was checked"
        pairs = zip(self.options.items(), chosen, strict=True)
        return {name: own[index].bits for (name, own), index in pairs}


def packed_bytes(packed: PackedWeight) -> int:
    """Return the bytes of the tensors of a packed weight."""
    return sum(one.nbytes for one in packed.tensors("").values())
