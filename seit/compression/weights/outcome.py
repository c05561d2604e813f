"""End of all methods that store weights in few bits: accuracy control, and what is recorded."""

from collections.abc import Mapping
from typing import Any

from seit.compression.control import Controlled, keep_accuracy, most_sensitive_first
from seit.compression.dev import Dev
from seit.compression.method import Findings
from seit.compression.subject import Subject
from seit.compression.weights.ablation import ablate
from seit.compression.weights.network import stored_tensors, with_weights
from seit.models import StoredWeights
from seit.packed_weights import PackedWeight
from seit.report import Bar, Section, bar_chart

FLOAT_BITS = 32


def conclude(
    subject: Subject, packed: Mapping[str, PackedWeight], *, found: Findings | None = None
) -> tuple[StoredWeights, Findings]:
    """Store quantized weights, apart from those that accuracy control leaves in float.

    Args:
        subject: the run.
        packed: quantized weights, by the layer's name.
        found: what the method found itself.
    """
    found = found or Findings()
    notes, sections = dict(found.notes), list(found.sections)
    max_drop = subject.config.compression.max_drop
    kept: frozenset[str] = frozenset()
    if max_drop is not None:
        controlled = _control(subject, packed, max_drop)
        kept = frozenset(controlled.kept)
        notes["accuracy_control"] = controlled.note()
        sections.insert(0, controlled.section())
    bits = {name: FLOAT_BITS if name in kept else one.grid.bits for name, one in packed.items()}
    sections.insert(0, _chart(bits))
    stored = {f"{name}.weight": one for name, one in packed.items() if name not in kept}
    weights = StoredWeights.of(stored_tensors(subject.model), stored)
    return weights, Findings(notes={"bits": bits, **notes}, sections=tuple(sections))


def _control(subject: Subject, packed: Mapping[str, PackedWeight], max_drop: float) -> Controlled:
    dev = Dev.of(subject)

    def top1_of(kept: frozenset[str]) -> float:
        rest = {name: one for name, one in packed.items() if name not in kept}
        return dev.figures(with_weights(subject.model, rest)).top1

    return keep_accuracy(
        list(packed),
        top1_of,
        top1_before=dev.figures(subject.model).top1,
        max_drop=max_drop,
        samples=dev.samples,
        order=lambda: most_sensitive_first(ablate(dev, subject.model, packed)),
        progress=subject.tell,
    )


def _chart(bits: Mapping[str, Any]) -> Section:
    bars = [Bar(name, float(value)) for name, value in bits.items()]
    return Section("Bits by layer", bar_chart(bars, title="Bits of a weight", unit_label="bits"))
