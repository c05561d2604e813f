"""Energy of a forward pass: a proxy from counts, and joules where the processor counts them.

The proxy takes the energies of Horowitz, Computing's energy problem (ISSCC 2014), 45 nm, as in
Gholami et al., A survey of quantization methods (arXiv 2103.13630). It is only meant as a ratio.
"""

from collections.abc import Sequence
from pathlib import Path

from seit.training import FULL_BITS, LayerFootprint

_PICOJOULES = ((8, 0.2 + 0.1), (16, 1.1 + 0.4), (FULL_BITS, 3.7 + 0.9))
"""Bits of the wider factor, and the energy of a multiplication and an addition: int8 with int32
sums, float16, float32."""
PICOJOULES_PER_BYTE = 1300 / 8
"""Energy of reading from DRAM."""
FORMULA = (
    "(multiply-adds × pJ + bytes of the file × 162.5 pJ) over the same in float32 (4 bytes a "
    "parameter); a multiply-add takes 0.3 pJ if both factors have 8 bits, 1.5 pJ if both have 16, "
    "else 4.6 pJ (45 nm)"
)
_POWERCAP = Path("/sys/class/powercap")
_MICRO = 1e-6


def relative_energy(layers: Sequence[LayerFootprint], *, num_bytes: int) -> float | None:
    """Return the proxy of a forward pass of one sample relative to float32, as in `FORMULA`.

    Factors of fewer than 8 bits next to float activations are unpacked and multiplied as float32.

    Args:
        layers: all layers; None is returned if operations of one are unknown.
        num_bytes: bytes of the file of the weights, which are read once.
    """
    if any(layer.flops is None for layer in layers):
        return None
    macs = [(layer.flops or 0) // 2 for layer in layers]
    own = sum(n * _picojoules(layer) for n, layer in zip(macs, layers, strict=True))
    parameters = sum(layer.parameters for layer in layers)
    full = sum(macs) * _PICOJOULES[-1][1] + 4 * parameters * PICOJOULES_PER_BYTE
    return (own + num_bytes * PICOJOULES_PER_BYTE) / full if full else None


def _picojoules(layer: LayerFootprint) -> float:
    bits = max(layer.weight_bits or layer.activation_bits, layer.activation_bits)
    return next((energy for wide, energy in _PICOJOULES if bits <= wide), _PICOJOULES[-1][1])


def _is_package(domain: Path) -> bool:
    """Return whether a domain is a whole processor: neither a part of one, nor the platform."""
    try:
        return (domain / "name").read_text().startswith("package")
    except (OSError, UnicodeDecodeError):
        return False


class JouleMeter:
    """Counters of the processor's packages (RAPL), where Linux lets this user read them."""

    def __init__(self, folder: Path = _POWERCAP) -> None:
        self._packages = [one for one in sorted(folder.glob("intel-rapl:*")) if _is_package(one)]
        self._start = self._read()

    def joules(self) -> float | None:
        """Return the joules of all packages since the start, of everything that they ran."""
        now = self._read()
        if not self._start or now is None:
            return None
        total = 0
        for (before, top), (after, _) in zip(self._start, now, strict=True):
            total += after - before if after >= before else after + top - before
        return total * _MICRO

    def _read(self) -> list[tuple[int, int]] | None:
        """Return count and size of each counter, in microjoules; None if one cannot be read."""
        try:
            return [
                (_number(one / "energy_uj"), _number(one / "max_energy_range_uj"))
                for one in self._packages
            ]
        except (OSError, ValueError):
            return None


def _number(path: Path) -> int:
    return int(path.read_text())
