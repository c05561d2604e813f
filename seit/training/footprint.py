"""Footprint of a finished run: parameters, bytes on disk, operations and bit operations.

Nothing is measured here: all figures follow from the files and the shapes, so that every run has
them. `seit footprint` adds memory and times.

Legend: C channels, h w inputs of the network.
"""

import logging
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from seit.documents import as_record
from seit.models import Compression
from seit.numbers import human_bytes
from seit.report import Figure, Section, figures, table
from seit.tensors import StoredTensor, list_tensors
from seit.training.flops import Flops, count_flops
from seit.training.run import WEIGHTS_NAME, Run

FULL_BITS = 32
"""Bits of an activation, and of a weight without a file."""
FOOTPRINT = "footprint"
"""Entry of `run.json`."""
_DTYPES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U8": "uint8",
    "BOOL": "bool",
}
_BITS = {"F64": 64, "F32": 32, "F16": 16, "BF16": 16, "I8": 8, "U8": 8}
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Footprint:
    """Footprint of a network and of the file of its weights.

    Attributes:
        parameters: parameters of the network, trained or frozen.
        nonzero_parameters: those that are not 0.
        bytes: size of the file.
        bytes_by_dtype: bytes of its tensors by dtype; the rest of ``bytes`` is the header. Weights
            of few bits are packed into uint8.
        flops: operations of a forward pass of one sample, two per multiply-add, attention included;
            None if torch cannot count them.
        bops: bit operations of that pass: the sum over multiply-adds of the bits of both factors
            multiplied, 32 · 32 in float32; None without ``flops``.
    """

    parameters: int
    nonzero_parameters: int
    bytes: int
    bytes_by_dtype: Mapping[str, int]
    flops: int | None
    bops: int | None


@dataclass(frozen=True, kw_only=True)
class LayerFootprint:
    """Footprint of a layer.

    Attributes:
        name: its name in the network.
        parameters: its own parameters, without those of layers inside it.
        nonzero_parameters: those that are not 0.
        bytes: bytes of its tensors in the file.
        flops: its own operations; None if they are unknown.
        weight_bits: bits of its weight; None without one.
        activation_bits: bits of what the weight is multiplied with.
    """

    name: str
    parameters: int
    nonzero_parameters: int
    bytes: int
    flops: int | None
    weight_bits: int | None = None
    activation_bits: int = FULL_BITS

    @property
    def bops(self) -> int | None:
        """Bit operations; both factors of a product of activations have `activation_bits`."""
        if self.flops is None:
            return None
        return self.flops // 2 * (self.weight_bits or self.activation_bits) * self.activation_bits


def footprint_of(run: Run, model: nn.Module, shape: Sequence[int]) -> Footprint:
    """Return the footprint of a run whose weights are written.

    Args:
        run: the run.
        model: its network.
        shape: shape (C, h, w) of one input of the network.

    Raises:
        DamagedError: the weights are corrupt.
    """
    layers = layers_of(run, model, shape)
    path = run.path / WEIGHTS_NAME
    return summed(layers, path.stat().st_size, bytes_by_dtype(path))


def summed(layers: Sequence[LayerFootprint], size: int, sizes: Mapping[str, int]) -> Footprint:
    """Return the footprint of layers whose file has ``size`` bytes, and ``sizes`` by dtype."""
    flops = [layer.flops for layer in layers if layer.flops is not None]
    is_known = len(flops) == len(layers)
    return Footprint(
        parameters=sum(layer.parameters for layer in layers),
        nonzero_parameters=sum(layer.nonzero_parameters for layer in layers),
        bytes=size,
        bytes_by_dtype=sizes,
        flops=sum(flops) if is_known else None,
        bops=sum(layer.bops or 0 for layer in layers) if is_known else None,
    )


def bytes_by_dtype(path: Path) -> dict[str, int]:
    """Return the bytes of the tensors of a safetensors file by dtype.

    Raises:
        DamagedError: the file is damaged.
    """
    sizes: dict[str, int] = {}
    for one in list_tensors(path).values():
        name = _DTYPES.get(one.dtype, one.dtype.lower())
        sizes[name] = sizes.get(name, 0) + one.num_bytes
    return sizes


def layers_of(
    run: Run, model: nn.Module, shape: Sequence[int], *, input_bits: int = FULL_BITS
) -> list[LayerFootprint]:
    """Return the footprint of each layer with parameters or operations of its own.

    Layers whose weights are stored in few bits have inputs of ``input_bits``. All other products,
    attention's among them, are of float32, but where the run says otherwise. Other arguments and
    errors as in :func:`footprint_of`.
    """
    weights, compression = run.load_stored()
    quantized = {name.rpartition(".")[0] for name in compression.quantized}
    inputs = {name: one.bits for name, one in compression.activations.items()}
    inputs = dict.fromkeys(quantized, input_bits) | inputs
    stored = list_tensors(run.path / WEIGHTS_NAME)
    counted = _counted(model, shape)
    own = None if counted is None else _exclusive(counted)
    names = [name for name, _ in model.named_modules()]
    known = [name for name, _ in model.named_parameters() if name in weights]
    owned, kept = _grouped(known, names), _grouped(stored, names)
    layers = []
    for name in names:
        tensors = {one: weights[one] for one in owned.get(name, ())}
        layer = LayerFootprint(
            name=name,
            parameters=sum(one.numel() for one in tensors.values()),
            nonzero_parameters=sum(int(one.count_nonzero()) for one in tensors.values()),
            bytes=sum(stored[one].num_bytes for one in kept.get(name, ())),
            flops=None if own is None else own.get(name, 0),
            weight_bits=_bits(tensors, compression, stored),
            activation_bits=inputs.get(name, FULL_BITS),
        )
        if layer.parameters or layer.bytes or layer.flops:
            layers.append(layer)
    return layers


def footprint_record(run: Run, model: nn.Module, shape: Sequence[int]) -> dict[str, Any]:
    """Return the entry of `run.json`; see :func:`footprint_of`."""
    return {FOOTPRINT: vars(footprint_of(run, model, shape))}


def read_footprint(info: Mapping[str, Any], *, origin: str) -> Footprint | None:
    """Return the footprint in `run.json`; None in a run of an earlier version.

    Raises:
        DamagedError: the entry is corrupt.
    """
    found = info.get(FOOTPRINT)
    return (
        None
        if found is None
        else as_record(found, Footprint, origin=f"the {FOOTPRINT} in {origin}")
    )


def footprint_sections(info: Mapping[str, Any], *, origin: str) -> list[Section]:
    """Return the section of a report on the footprint in `run.json`, if there is one."""
    found = read_footprint(info, origin=origin)
    if found is None:
        return []
    rows = [[name, size, f"{size / found.bytes:.1%}"] for name, size in _by_size(found)]
    tiles = figures(
        [
            Figure("parameters", f"{found.parameters:,}", _share_of_zeros(found)),
            Figure("size", human_bytes(found.bytes), f"{found.bytes:,} bytes on disk"),
            Figure("FLOPs", operations(found.flops), "of a forward pass of one sample"),
            Figure("bit operations", operations(found.bops), "bits of both factors, multiplied"),
        ]
    )
    shares = table(rows, header=["bytes on disk", "bytes", "share"])
    return [Section("Footprint", [tiles, shares])]


def operations(count: int | None) -> str:
    """Return a number of operations in words, such as 23.1 M; a dash if it is unknown."""
    if not count:
        return "–" if count is None else "0"
    units = ["", " k", " M", " G", " T", " P"]
    power = min(len(units) - 1, int(math.log10(count) / 3))
    return f"{count / 1000**power:.4g}{units[power]}"


def _by_size(found: Footprint) -> list[tuple[str, int]]:
    named = sorted(found.bytes_by_dtype.items(), key=lambda item: -item[1])
    return [*named, ("header", found.bytes - sum(found.bytes_by_dtype.values()))]


def _share_of_zeros(found: Footprint) -> str:
    zeros = found.parameters - found.nonzero_parameters
    return f"{zeros / found.parameters:.1%} of them 0" if found.parameters else ""


def _counted(model: nn.Module, shape: Sequence[int]) -> Flops | None:
    try:
        return count_flops(model, shape)
    except RuntimeError as error:  # an operation without a shape rule, or that needs values
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        _LOG.info("the operations of %s cannot be counted: %s", type(model).__name__, reason)
        return None


def _exclusive(flops: Flops) -> dict[str, int]:
    """Return the operations of each module without those of the modules inside it."""
    counts = {**flops.by_module, "": flops.forward}
    own = dict(counts)
    for name in flops.by_module:
        own[_innermost(name.rpartition(".")[0], counts)] -= counts[name]
    return own


def _grouped(tensors: Iterable[str], modules: Iterable[str]) -> dict[str, list[str]]:
    """Group tensors by the innermost module that each belongs to, all by name."""
    known = frozenset(modules)
    groups: dict[str, list[str]] = {}
    for tensor in tensors:
        groups.setdefault(_innermost(tensor, known), []).append(tensor)
    return groups


def _innermost(name: str, modules: Collection[str]) -> str:
    """Return the longest of some dotted names that ``name`` starts with; "" is the network."""
    while name and name not in modules:
        name = name.rpartition(".")[0]
    return name


def _bits(
    tensors: Mapping[str, Tensor], compression: Compression, stored: Mapping[str, StoredTensor]
) -> int | None:
    """Return the bits of the largest matrix among the parameters of a layer."""
    matrices = {name: one.numel() for name, one in tensors.items() if one.ndim > 1}
    if not matrices:
        return None
    name = max(matrices, key=lambda one: matrices[one])
    if name in compression.quantized:
        return compression.quantized[name].bits
    return _BITS.get(stored[name].dtype, FULL_BITS) if name in stored else FULL_BITS
