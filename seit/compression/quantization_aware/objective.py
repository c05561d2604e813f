"""Training in few bits: weights and inputs of layers are rounded in each forward pass.

LSQ (Esser et al., arXiv 1902.08153) with the run as the teacher. The first layer and the classifier
have 8 bits. Scales of weights are rounded to float16 in training too, so that the network that is
evaluated is the one that is stored.
"""

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import override

from seit.compression.config import CompressConfig
from seit.compression.derived import RULE, derive_weight, own_weight, settle_weights
from seit.compression.method import Findings
from seit.compression.quantization_aware.calibration import fit_steps, observe_inputs
from seit.compression.training import Compressing
from seit.compression.weights.layers import Layer, quantizable
from seit.compression.weights.methods import EDGE_BITS
from seit.models import (
    Compression,
    InputGrid,
    LearnedSteps,
    StoredWeights,
    add_input_steps,
)
from seit.packed_weights import PackedWeight, WeightGrid
from seit.report import Section, table
from seit.shards import Store
from seit.training import Ranks, Run, TrainBatch, num_steps

_FROZEN_FROM = 0.5
"""Share of the steps after which running statistics of norms are no longer updated."""


class QuantizedClassification(Compressing):
    """Classification with rounded weights and inputs of layers.

    Attributes:
        grids: rounding of the inputs of layers, by name.
    """

    def __init__(self, config: CompressConfig, store: Store, ranks: Ranks, source: Run) -> None:
        super().__init__(config, store, ranks, source)
        layers = quantizable(self.model)
        own = config.compression
        self.grids: Mapping[str, InputGrid] = {}
        values = observe_inputs(self.subject, quantizable(self.subject.model))
        for layer in layers:
            _round_weight(layer, max(own.bits, EDGE_BITS) if layer.is_edge else own.bits)
        if own.activation_bits:
            self.grids = {
                layer.name: _round_inputs(layer, values[layer.name], own.activation_bits)
                for layer in layers
                if layer.name in values
            }
        assert self.feed.train is not None
        total = num_steps(config.schedule, len(self.feed.train))
        self._frozen_from = round(_FROZEN_FROM * total)

    @override
    def prepare(self, batch: TrainBatch, step: int) -> Tensor | None:
        if step >= self._frozen_from:
            for module in self.model.modules():
                if getattr(module, "running_mean", None) is not None:
                    module.eval()
        return super().prepare(batch, step)

    @override
    def kept_model(self, model: nn.Module) -> nn.Module:
        kept = copy.deepcopy(model)
        settle_weights(kept)
        return kept

    @override
    def stored(self, model: nn.Module) -> StoredWeights:
        packed = {f"{layer.name}.weight": _packed(layer.module) for layer in quantizable(model)}
        weights = {
            name: one.detach().cpu() for name, one in self.kept_model(model).state_dict().items()
        }
        return StoredWeights.of(weights, packed, network=Compression(activations=self.grids))

    @override
    def findings(self, model: nn.Module) -> Findings:
        rows: list[list[Any]] = []
        entries: dict[str, dict[str, int]] = {}
        total = bits = 0
        for layer in quantizable(model):
            rule, size = _rule(layer.module), own_weight(layer.module).numel()
            grid = self.grids.get(layer.name)
            rows.append([layer.name, f"{size:,}", rule.bits, grid.bits if grid else "float"])
            entries[layer.name] = {"bits": rule.bits, "activation_bits": grid.bits if grid else 0}
            total, bits = total + size, bits + size * rule.bits
        header = ["layer", "weights", "bits of a weight", "bits of an input"]
        return Findings(
            notes={"quantization": {"mean_bits": bits / total, "layers": entries}},
            sections=(Section("Bits", table(rows, header=header)),),
        )


@torch.no_grad()
def _round_weight(layer: Layer, bits: int) -> None:
    weight = layer.module.weight
    rule = LearnedSteps(bits, signed=True, channels=len(weight), half=True)
    rule.set_steps(fit_steps(weight.flatten(1).cpu(), bits=bits, signed=True, half=True))
    derive_weight(layer.module, rule)


def _round_inputs(layer: Layer, values: Tensor, bits: int) -> InputGrid:
    bits = max(bits, EDGE_BITS) if layer.is_edge else bits
    grid = InputGrid(bits=bits, signed=bool((values < 0).any()))
    steps = add_input_steps(layer.module, grid)
    steps.set_steps(fit_steps(values[None], bits=bits, signed=grid.signed)[0])
    steps.to(own_weight(layer.module).device)
    return grid


def _rule(layer: nn.Module) -> LearnedSteps:
    rule = layer.get_submodule(RULE)
    assert isinstance(rule, LearnedSteps)
    return rule


@torch.no_grad()
def _packed(layer: nn.Module) -> PackedWeight:
    rule, weight = _rule(layer), own_weight(layer)
    scales = rule.steps(2).cpu().half()
    codes = (rule.codes(weight).flatten(1).cpu() - rule.low).to(torch.uint8)
    zeros = torch.full(scales.shape, -rule.low, dtype=torch.uint8)
    return PackedWeight(WeightGrid(bits=rule.bits, shape=tuple(weight.shape)), codes, scales, zeros)
