"""Parameter-efficient fine-tuning of a pretrained backbone, on the common training loop."""

from seit.training.tuning.compare import MethodsResult, MethodSummary, tune_methods
from seit.training.tuning.config import TuneConfig
from seit.training.tuning.start import ADAPTER_NAME, TuneResult, tune

__all__ = [
    "ADAPTER_NAME",
    "MethodSummary",
    "MethodsResult",
    "TuneConfig",
    "TuneResult",
    "tune",
    "tune_methods",
]
