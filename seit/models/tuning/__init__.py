"""Parameter-efficient fine-tuning of a pretrained backbone, most of which stays frozen."""

from seit.models.tuning.adalora import AdaLora
from seit.models.tuning.adapterbias import AdapterBias
from seit.models.tuning.adapters import Adapter, Houlsby
from seit.models.tuning.base import Tuning, keeps_statistics
from seit.models.tuning.checkpoint import base_fingerprint, load_adapter, save_adapter
from seit.models.tuning.config import METHODS, Method, TuningConfig
from seit.models.tuning.registry import TUNINGS, make_tuning

__all__ = [
    "METHODS",
    "TUNINGS",
    "AdaLora",
    "Adapter",
    "AdapterBias",
    "Houlsby",
    "Method",
    "Tuning",
    "TuningConfig",
    "base_fingerprint",
    "keeps_statistics",
    "load_adapter",
    "make_tuning",
    "save_adapter",
]
