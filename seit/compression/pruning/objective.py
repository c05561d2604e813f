"""Pruning and fine-tuning of a run, which is also the teacher.

Parts (heads, MLP units, dimensions, blocks) are removed before the first step: the network is
smaller and faster. Zeros among single weights make its file smaller, and no faster.
"""

import copy
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from torch import nn
from typing_extensions import override

from seit.compression.config import CompressConfig
from seit.compression.derived import settle_weights
from seit.compression.method import Findings
from seit.compression.pruning.parts import choose_parts
from seit.compression.pruning.zeros import Zeros
from seit.compression.training import Compressing
from seit.models import Compression, SparseWeight, StoredWeights, Structure, is_worth_it, select
from seit.report import Section, table
from seit.shards import Store
from seit.training import Ranks, Run


class PrunedClassification(Compressing):
    """Classification with a part of the weights removed.

    Attributes:
        structure: sizes of a ViT that lost parts; None for the network of the settings.
        zeros: masks on its weights; None if only parts are removed.
    """

    def __init__(self, config: CompressConfig, store: Store, ranks: Ranks, source: Run) -> None:
        super().__init__(config, store, ranks, source)
        own = config.compression
        parts = choose_parts(self.subject, own.shares, own.criterion)
        self.structure: Structure | None = None
        if parts is not None:
            select(self.model, parts)
            self.structure = parts.structure
        self.model.eval()
        self.zeros = Zeros.start(self.subject.with_model(self.model), own)

    @override
    def after_update(self, step: int, total: int) -> None:
        if self.zeros is not None:
            self.zeros.after_update(self.model)

    @override
    def after_step(self, step: int, total: int) -> None:
        if self.zeros is not None:
            self.zeros.after_step(self.model, step, total)

    @override
    def evaluate(self, model: nn.Module) -> Mapping[str, float]:
        figures = super().evaluate(model)
        if self.zeros is None:
            return figures
        return {**figures, "sparsity": self.zeros.sparsity(model)}

    @override
    def kept_model(self, model: nn.Module) -> nn.Module:
        kept = copy.deepcopy(model)
        settle_weights(kept)
        return kept

    @override
    def stored(self, model: nn.Module) -> StoredWeights:
        state = self.kept_model(model).state_dict()
        weights = {name: one.detach().cpu() for name, one in state.items()}
        masked = () if self.zeros is None else self.zeros.masked
        sparse = {
            name: SparseWeight.of(weights[name])
            for name in (f"{layer}.weight" for layer in masked)
            if is_worth_it(weights[name])
        }
        network = Compression(structure=self.structure)
        return StoredWeights.of(weights, {}, sparse, network=network)

    @override
    def findings(self, model: nn.Module) -> Findings:
        notes: dict[str, Any] = {}
        sections: list[Section] = []
        if self.structure is not None:
            notes["structure"] = asdict(self.structure)
            sections.append(_parts_section(self.structure))
        if self.zeros is not None:
            notes["zeros"] = self.zeros.describe(model)
            sections.append(_zeros_section(self.zeros, model))
        return Findings(notes=notes, sections=tuple(sections))


def _parts_section(structure: Structure) -> Section:
    rows: list[list[Any]] = [
        [f"blocks.{number}", size.heads, f"{size.units:,}"]
        for number, size in zip(structure.kept, structure.blocks, strict=True)
    ]
    text = table(rows, header=["block of the run", "heads", "MLP units"])
    return Section(f"Parts that are left, of width {structure.width:,}", text)


def _zeros_section(zeros: Zeros, model: nn.Module) -> Section:
    rows: list[list[Any]] = [
        [name, f"{weights:,}", f"{1 - kept / weights:.1%}"]
        for name, weights, kept in zeros.rows(model)
    ]
    return Section("Zeros", table(rows, header=["layer", "weights", "zeros"]))
