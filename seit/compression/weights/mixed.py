"""Mixed precision: bits for each layer by the curvature of the loss, within a budget of bytes.

Dong et al., "HAWQ-V2: Hessian Aware trace-Weighted Quantization of Neural Networks", arXiv
1911.03852. A layer's sensitivity at b bits is Ω = Tr(H) / n · ‖Q_b(W) − W‖². Differences: only
weights are quantized; the allocation is exact; the ranking is compared with the measured harm of
each layer.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from typing_extensions import override

from seit.compression.dev import Dev
from seit.compression.method import Findings
from seit.compression.post_training import PostTraining
from seit.compression.subject import Subject
from seit.compression.weights.ablation import ablate, rank_correlation
from seit.compression.weights.curvature import measure_traces
from seit.compression.weights.hessian import Traces
from seit.compression.weights.layers import quantizable
from seit.compression.weights.methods import EDGE_BITS
from seit.compression.weights.network import Quantizer, quantize_network, stored_tensors
from seit.compression.weights.outcome import conclude
from seit.compression.weights.plan import Option, Plan, packed_bytes
from seit.compression.weights.rounding import Nearest
from seit.models import StoredWeights
from seit.packed_weights import PackedWeight
from seit.report import Section, table
from seit.tensors import tensor_bytes
from seit.training import WEIGHTS_NAME


@dataclass(frozen=True, kw_only=True)
class _Analysis:
    """Sensitivity of all layers whose bits are to be chosen.

    Attributes:
        plan: their options; the first layer and the classifier have one each.
        traces: traces of the Hessian.
        omega: Ω by layer and bits.
        harm: rise of the dev loss, in nats, with one layer alone at its fewest bits.
        dev_samples: samples of that loss.
    """

    plan: Plan
    traces: Traces
    omega: Mapping[str, Mapping[int, float]]
    harm: Mapping[str, float]
    dev_samples: int

    @property
    def correlation(self) -> float | None:
        """Rank correlation of Ω and harm at the fewest bits; None for fewer than three layers."""
        return rank_correlation(
            {n: self.omega[n][min(self.omega[n])] for n in self.harm}, self.harm
        )

    def findings(self, bits: Mapping[str, int]) -> Findings:
        """Return what is recorded of it, for the chosen bits."""
        chosen = {name: self.omega[name][own] for name, own in bits.items()}
        note = {
            "budget": self.plan.budget,
            "omega": sum(chosen.values()),
            "probes": self.traces.probes,
            "rank_correlation": self.correlation,
            "mean_trace": dict(self.traces.mean),
            "harm": dict(self.harm),
        }
        return Findings(notes={"mixed": note}, sections=(self._section(bits, chosen),))

    def _section(self, bits: Mapping[str, int], chosen: Mapping[str, float]) -> Section:
        rows = [
            [name, own, self.traces.mean[name], chosen[name], self.harm.get(name)]
            for name, own in bits.items()
        ]
        found = self.correlation
        shown = "unknown for so few layers" if found is None else f"{found:.2f}"
        caption = (
            f"Ω is the mean trace of the loss's Hessian ({self.traces.probes} random vectors) "
            "times the squared error of the weight. Harm is the rise of the loss on "
            f"{self.dev_samples:,} training samples with this layer alone at its fewest bits; its "
            f"rank correlation with Ω at these bits is {shown}."
        )
        header = ["layer", "bits", "mean trace", "Ω", "harm"]
        return Section("Sensitivity", table(rows, header=header, caption=caption))


class Mixed(PostTraining):
    """Weights with bits chosen for each layer, within a budget of bytes."""

    summary = "weights with bits chosen for each layer, within a budget of bytes"

    @override
    def compress(self, subject: Subject) -> tuple[StoredWeights, Findings]:
        analysis = _analyze(subject)
        bits = analysis.plan.choose(analysis.omega)
        packed = quantize_network(subject, bits)
        return conclude(subject, packed, found=analysis.findings(bits))


def _analyze(subject: Subject) -> _Analysis:
    """Measure the sensitivity of all layers.

    Raises:
        UsageError: the budget cannot be met.
    """
    config = subject.config.compression
    quantizer = replace(Quantizer.of(subject), rounding=Nearest())
    layers = quantizable(subject.model)
    options: dict[str, tuple[Option, ...]] = {}
    fewest: dict[str, PackedWeight] = {}
    most: dict[str, PackedWeight] = {}
    for layer in layers:
        weight = layer.module.weight.detach()
        choices = (EDGE_BITS,) if layer.is_edge else sorted(set(config.mixed_bits))
        tried = [quantizer.quantize(weight, bits) for bits in choices]
        options[layer.name] = tuple(Option.of(one, weight) for one in tried)
        most[f"{layer.name}.weight"] = tried[-1]
        if not layer.is_edge:
            fewest[layer.name] = tried[0]
    plan = Plan(
        options=options,
        fixed_bytes=_other_bytes(subject, most),
        whole_bytes=(subject.run.path / WEIGHTS_NAME).stat().st_size,
        budget=config.budget,
    )
    plan.check()
    dev = Dev.of(subject)
    harm = ablate(dev, subject.model, fewest)
    traces = measure_traces(subject, list(options))
    return _Analysis(
        plan=plan,
        traces=traces,
        omega=plan.omega(traces.mean),
        harm=harm,
        dev_samples=dev.samples,
    )


def _other_bytes(subject: Subject, packed: Mapping[str, PackedWeight]) -> int:
    """Return the bytes of the compressed file apart from packed weights, header included.

    With fewer bits the header becomes no longer.
    """
    stored = StoredWeights.of(stored_tensors(subject.model), packed)
    whole = len(tensor_bytes(stored.tensors, card=stored.compression.card()))
    return whole - sum(packed_bytes(one) for one in packed.values())
