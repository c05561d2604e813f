"""Quantized files of a run: with any set of layers left in float, checked in the runtime.

Legend: B batch, n samples, H W stored grid, N classes.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from seit.compression.int8.calibration import activation_ranges
from seit.compression.int8.calibrators import make_calibrator
from seit.compression.int8.check import Ids, Logits, Made, choose_format, run_file
from seit.compression.int8.graph import FloatGraph
from seit.compression.int8.quantizers import Dynamic, Quantizer, Static
from seit.compression.int8.variants import Variant
from seit.compression.subject import Subject
from seit.processor import Target, cpu_target

_CHECKED = 64
"""Calibration samples that the runtime is checked on."""


@dataclass(frozen=True)
class Builder:
    """Maker of a run's quantized files.

    Attributes:
        graph: the network in float.
        quantizer: way to quantize activations.
        target: processor that the format is chosen for.
        ids: calibration samples (n, H, W) that a file is checked on.
        expected: their logits (n, N) in float32.
    """

    graph: FloatGraph
    quantizer: Quantizer
    target: Target
    ids: Ids
    expected: Logits

    @classmethod
    def of_subject(cls, subject: Subject, *, static: bool) -> "Builder":
        """Export the network of a subject, and calibrate it where ranges are fixed.

        Args:
            subject: the run.
            static: whether ranges of activations are fixed in any network; without, they are in
                convolutional ones alone, whose kernels take no others.

        Raises:
            UsageError: the network has no layers to quantize, or cannot be exported here.
            SeitError: an activation is not finite, or the network cannot be exported.
        """
        settings = subject.config.compression
        graph = FloatGraph.of_subject(subject)
        tokens = [ids.cpu() for ids in subject.tokens(subject.calibration_rows)]
        quantizer: Quantizer = Dynamic()
        if static or graph.is_convolutional:
            calibrator = make_calibrator(settings.calibrator, settings.percentile)
            ranges = activation_ranges(graph, tokens, calibrator)
            quantizer = Static(ranges, settings.calibrator)
        ids = _spread(torch.cat(tokens).long())
        target = cpu_target() if settings.target_cpu == "auto" else settings.target_cpu
        return cls(graph, quantizer, target, ids, run_file(graph.data, ids))

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the layers that can be quantized."""
        return tuple(one.layer for one in self.quantizer.products(self.graph))

    def make(self, left: frozenset[str] = frozenset()) -> Made:
        """Return the file with some layers left in float, in a format that the runtime computes.

        Args:
            left: names of these layers.

        Raises:
            SeitError: the runtime computes no format rightly.
        """

        def quantize(variant: Variant) -> bytes:
            return self.quantizer.quantize(self.graph, variant, left=left)

        return choose_format(
            quantize, self.quantizer.variants[self.target], self.ids, self.expected
        )

    def top1(self, batches: Iterable[tuple[Tensor, Tensor]], left: frozenset[str]) -> float:
        """Return the top-1 accuracy, 0–1, of the file with some layers left in float.

        Args:
            batches: ids (B, H, W) and labels (B,).
            left: names of these layers.
        """
        ids, labels = (torch.cat(one).cpu() for one in zip(*batches, strict=True))
        predictions = run_file(self.make(left).data, ids.long().numpy()).argmax(1)
        return float(np.mean(predictions == labels.numpy()))


def _spread(ids: Tensor) -> Ids:
    """Return up to 64 of the samples (n, H, W), evenly spread."""
    return ids[:: -(-len(ids) // _CHECKED)].numpy()
