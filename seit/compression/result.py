"""Result of a compression run."""

from dataclasses import dataclass

from seit.training import TrainResult


@dataclass(frozen=True, kw_only=True, repr=False)
class CompressResult(TrainResult):
    """Result of a compression run: figures of the file that is deployed, in its runtime.

    Attributes:
        method: method of compression.
        top1_before: accuracy of the run that was compressed, on the same samples, 0–1.
        agreement: share of samples for which both predict the same class, 0–1.
        bytes: size of the file that is deployed.
        bytes_before: size of the same kind of file of the run that was compressed.
    """

    method: str
    top1_before: float
    agreement: float
    bytes: int
    bytes_before: int
