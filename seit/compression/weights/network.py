"""Quantization of a network's weights, one layer after another.

Legend: O output channels, I inputs of one, g groups of a convolution.
"""

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from seit.compression.subject import Subject
from seit.compression.weights.carry import Carried, block_order
from seit.compression.weights.clip import Clip
from seit.compression.weights.grids import fit_grid
from seit.compression.weights.layers import Layer
from seit.compression.weights.moments import Moments, call_order, measure
from seit.compression.weights.registry import CLIPS, ROUNDINGS
from seit.compression.weights.rounding import Rounding
from seit.packed_weights import PackedWeight


@dataclass(frozen=True)
class Quantizer:
    """Quantization of one weight.

    Attributes:
        rounding: choice of the codes.
        clip: choice of the range of each group.
        group: inputs that share a scale; 0 for all of an output channel.
        damping: share of the mean diagonal of the moments by which their inverse is damped.
    """

    rounding: Rounding
    clip: Clip
    group: int
    damping: float

    @classmethod
    def of(cls, subject: Subject) -> "Quantizer":
        """Return the quantizer of the settings."""
        config = subject.config.compression
        return cls(
            ROUNDINGS[config.rounding](config), CLIPS[config.clip], config.group, config.damping
        )

    def quantize(self, weight: Tensor, bits: int, moments: Moments | None = None) -> PackedWeight:
        """Quantize a weight (O, …)."""
        rows = weight.detach().flatten(1)
        if moments is None:
            grid = fit_grid(weight.cpu(), bits=bits, group=self.group, clip=self.clip)
            return grid.pack(self.rounding.codes(rows.cpu().double(), grid, None))
        wanted = moments.wanted(rows.to(moments.gram), damping=self.damping)
        grid = fit_grid(wanted.reshape(weight.shape), bits=bits, group=self.group, clip=self.clip)
        return grid.pack(self.rounding.codes(wanted, grid, moments.gram))


def quantize_network(subject: Subject, bits: Mapping[str, int]) -> Mapping[str, PackedWeight]:
    """Quantize layers in the order of a forward pass, each for the inputs that earlier ones leave.

    Args:
        subject: the run, whose network is not changed.
        bits: bits of each layer, by name; others stay in float.

    Returns:
        The weights of these layers, by the layer's name.
    """
    quantizer = Quantizer.of(subject)
    tokens = list(subject.tokens(subject.calibration_rows))
    model = copy.deepcopy(subject.model)
    first = subject.augment.evaluate(tokens[0][:1])
    calls = call_order(model, first, bits)
    is_simple = all(count == 1 for count in calls.values())
    before = block_order(model, first) if is_simple else {}

    def batches() -> Iterator[Tensor]:
        return (subject.augment.evaluate(ids) for ids in tokens)

    found, exact = (Carried(one, batches, before) for one in (model, subject.model))
    order = [*calls, *(name for name in bits if name not in calls)]
    packed = {}
    for done, name in enumerate(order):
        subject.tell(done, len(order))
        moments = None
        if quantizer.rounding.needs_inputs and name in calls:
            pairs = zip(
                found.inputs(name, calls=calls[name]),
                exact.inputs(name, calls=calls[name]),
                strict=True,
            )
            both = (one for pair in pairs for one in zip(*pair, strict=True))
            moments = measure(model.get_submodule(name), both)
        weight = weight_of(model, name)
        packed[name] = quantizer.quantize(weight, bits[name], moments)
        weight.data.copy_(packed[name].dense())
    subject.tell(len(order), len(order))
    return packed


def weight_of(model: nn.Module, name: str) -> nn.Parameter:
    """Return the weight of the layer called ``name``."""
    weight = model.get_submodule(name).weight
    assert isinstance(weight, nn.Parameter)
    return weight


def layer_bits(layers: Sequence[Layer], bits: int, edge_bits: int) -> dict[str, int]:
    """Return the bits of each layer; those of the first layer and the classifier may be more."""
    return {one.name: max(bits, edge_bits) if one.is_edge else bits for one in layers}


def with_weights(model: nn.Module, packed: Mapping[str, PackedWeight]) -> nn.Module:
    """Return a copy of a network with the values of packed weights, by the layer's name."""
    changed = copy.deepcopy(model)
    for name, one in packed.items():
        weight_of(changed, name).data.copy_(one.dense())
    return changed


def stored_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Return all tensors of a network by name, on the host."""
    return {name: one.detach().cpu() for name, one in model.state_dict().items()}
