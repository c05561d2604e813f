"""Registry of tuning methods."""

from seit.models.tuning.adalora import AdaLora
from seit.models.tuning.adapterbias import AdapterBias
from seit.models.tuning.adapters import Adapter, Houlsby
from seit.models.tuning.base import Tuning
from seit.models.tuning.config import Method, TuningConfig
from seit.models.tuning.lora import Lora
from seit.models.tuning.plain import BitFit, Full, Linear
from seit.models.tuning.prefix import PrefixTuning
from seit.models.tuning.weighted_sum import WeightedSum

TUNINGS: dict[Method, type[Tuning]] = {
    "full": Full,
    "linear": Linear,
    "bitfit": BitFit,
    "lora": Lora,
    "adalora": AdaLora,
    "adapter": Adapter,
    "houlsby": Houlsby,
    "adapterbias": AdapterBias,
    "prefix": PrefixTuning,
    "weighted-sum": WeightedSum,
}


def make_tuning(config: TuningConfig) -> Tuning:
    """Create the method that a config names; then :meth:`~Tuning.attach` it to a model."""
    return TUNINGS[config.method](config)
