"""Efficient tuning of a pre-trained backbone, on the one training loop."""

from seit.train.tune.config import TuneConfig
from seit.train.tune.methods import MethodsResult, MethodSummary, tune_methods
from seit.train.tune.tune import ADAPTER_NAME, TuneResult, tune

__all__ = [
    "ADAPTER_NAME",
    "MethodSummary",
    "MethodsResult",
    "TuneConfig",
    "TuneResult",
    "tune",
    "tune_methods",
]
