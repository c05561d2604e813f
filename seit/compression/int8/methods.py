"""Methods that deploy a run as an 8-bit file of ONNX Runtime."""

import logging
from dataclasses import asdict, replace
from typing import Any

from torch import Tensor, nn
from typing_extensions import override

from seit.compression.control import Controlled
from seit.compression.int8.accuracy import control_accuracy
from seit.compression.int8.builder import Builder
from seit.compression.int8.check import Made
from seit.compression.int8.latency import Latency, eager_call, measure, session_call
from seit.compression.int8.packed import packed_weights
from seit.compression.method import Deployment, Findings
from seit.compression.post_training import PostTraining
from seit.compression.smooth import channel_maxima, has_outliers, smooth
from seit.compression.subject import Subject
from seit.models import PROGRAM_NAME, Compression, StoredWeights, check_runtime
from seit.processor import INT8_FEATURES, cpu_features, cpu_target
from seit.report import Section, table

_LOG = logging.getLogger(__name__)
_INT8, _FLOAT, _EAGER = "ONNX Runtime, int8", "ONNX Runtime, float32", "PyTorch, float32"


class Int8(PostTraining):
    """Weights and activations of 8 bits in ONNX Runtime.

    Attributes:
        static: whether ranges of activations are fixed in any network, rather than in
            convolutional ones alone.
    """

    def __init__(self, *, static: bool) -> None:
        self.static = static
        ranges = "fixed ranges" if static else "ranges by batch, or fixed ones for convolutions"
        self.summary = f"8 bits in ONNX Runtime, {ranges} of activations"

    @override
    def compress(self, subject: Subject) -> tuple[StoredWeights, Findings]:
        check_runtime("methods of 8 bits")
        subject = _smoothed(subject)
        builder = Builder.of_subject(subject, static=self.static)
        max_drop = subject.config.compression.max_drop
        controlled = None if max_drop is None else control_accuracy(subject, builder, max_drop)
        made = builder.make(frozenset(controlled.kept if controlled else ()))
        if len(made.checks) > 1:
            _LOG.warning(
                "ONNX Runtime computes other products of %s on this processor than it should; the "
                "file is of %s instead",
                *(made.checks[0].format, made.variant.name),
            )
        weights = {name: one.detach().cpu() for name, one in subject.model.state_dict().items()}
        packed = packed_weights(made.data, builder.graph, weights)
        stored = StoredWeights.of(weights, packed, network=Compression(program=True))
        findings = _findings(builder, made, _measured(subject, builder, made))
        return stored, findings if controlled is None else _with_control(findings, controlled)


def _smoothed(subject: Subject) -> Subject:
    """Return the run with outlier channels of activations moved into weights, if it has any."""
    maxima = channel_maxima(subject.model, subject.inputs(subject.calibration_rows))
    if not has_outliers(maxima):
        return subject
    _LOG.info("activations have outlier channels: they are moved into the weights (SmoothQuant)")
    return subject.with_model(smooth(subject.model, maxima))


def _with_control(findings: Findings, controlled: Controlled) -> Findings:
    return replace(
        findings,
        notes={**findings.notes, "accuracy_control": controlled.note()},
        sections=(controlled.section(), *findings.sections),
    )


def _measured(subject: Subject, builder: Builder, made: Made) -> Latency:
    calls = {_INT8: session_call(made.data), _FLOAT: session_call(builder.graph.data)}
    if subject.device.type == "cpu":
        calls[_EAGER] = eager_call(_Embedded(subject))
    return measure(calls, builder.ids)


class _Embedded(nn.Module):
    """Network of a subject with its crop and look-up: ids (B, H, W) → logits (B, N)."""

    def __init__(self, subject: Subject) -> None:
        super().__init__()
        self.augment = subject.augment
        self.model = subject.model

    @override
    def forward(self, tokens: Tensor) -> Tensor:
        logits: Tensor = self.model(self.augment.evaluate(tokens))
        return logits


def _findings(builder: Builder, made: Made, latency: Latency) -> Findings:
    return Findings(
        notes={"int8": _note(builder, made), "latency": latency.note(_INT8)},
        sections=(_latency_section(latency), _check_section(builder, made)),
        deployment=Deployment(
            name=PROGRAM_NAME, data=made.data, bytes_before=len(builder.graph.data)
        ),
        speed={str(batch): latency.verdict(_INT8, batch) for batch in latency.batches},
    )


def _note(builder: Builder, made: Made) -> dict[str, Any]:
    return {
        "format": made.variant.name,
        **builder.quantizer.note(),
        "target_cpu": builder.target,
        "this_cpu": cpu_target(),
        "cpu_features": sorted(INT8_FEATURES & cpu_features()),
        "layers": len(builder.layers),
        "checked_samples": len(builder.ids),
        "checks": [{**asdict(one), "passed": one.passed} for one in made.checks],
    }


def _latency_section(latency: Latency) -> Section:
    rows = [
        [
            name,
            *(f"{1e3 * latency.p50(name, batch):.2f} ms" for batch in latency.batches),
        ]
        for name in latency.seconds
    ]
    verdicts = ["int8 is", *(latency.verdict(_INT8, batch) for batch in latency.batches)]
    header = ["", *(f"batch {batch}" for batch in latency.batches)]
    caption = (
        "CPU time of one thread, median of alternating rounds in one process. Faster: than each of "
        "the others in four of five rounds, and by two percent. Slower: than one of them, likewise."
    )
    return Section("CPU time", table([*rows, verdicts], header=header, caption=caption))


def _check_section(builder: Builder, made: Made) -> Section:
    rows = [
        [one.format, f"{one.rounding:.4f}", f"{one.runtime:.4f}", "yes" if one.passed else "no"]
        for one in made.checks
    ]
    caption = (
        f"Activations × weights, {builder.quantizer.activations} ranges. Distances of logits on "
        f"{len(builder.ids)} calibration samples, relative to their size: of exact products of the "
        "file's codes from float32, and of the runtime from these."
    )
    header = ["format", "rounding", "runtime", "kept"]
    return Section("Check of the runtime", table(rows, header=header, caption=caption))
