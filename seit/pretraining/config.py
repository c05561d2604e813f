"""Settings of a pretraining run."""

from dataclasses import dataclass, field

from typing_extensions import override

from seit.augment import AugmentConfig
from seit.errors import UsageError
from seit.pretraining.further import FurtherConfig
from seit.pretraining.mtm import MtmConfig
from seit.pretraining.names import ObjectiveName
from seit.pretraining.probes import ProbeConfig
from seit.pretraining.registry import OBJECTIVES
from seit.pretraining.sit import SitConfig
from seit.training import EmaConfig, LoopConfig


def _views() -> AugmentConfig:
    """Return random crops alone, as in SeiT++'s masked token modeling."""
    return AugmentConfig(
        crop_scale=(0.2, 1.0), synonym_prob=0, swap_prob=0, noise_prob=0, cutmix_prob=0
    )


@dataclass(frozen=True, kw_only=True)
class PretrainConfig(LoopConfig):
    """Settings of `seit pretrain`; raises UsageError if they contradict each other."""

    objective: ObjectiveName = "mtm"
    """Objective: masked tokens (SeiT++), SiT, or further masked-token pretraining of a finished run
    with self-distillation."""
    augment: AugmentConfig = field(default_factory=_views)
    """Augmentations, without mixing; each resulting vector is replaced by the nearest code."""
    ema: EmaConfig = field(default_factory=lambda: EmaConfig(decay=0.0))
    """Average of the weights; none by default."""
    mtm: MtmConfig = field(default_factory=MtmConfig)
    """Masked token modeling, also of `further`."""
    sit: SitConfig = field(default_factory=SitConfig)
    """SiT."""
    further: FurtherConfig = field(default_factory=FurtherConfig)
    """Self-distillation."""
    probe: ProbeConfig = field(default_factory=ProbeConfig)
    """Probes of the features during training."""

    @override
    def reinterpreted(self, revision: int) -> list[str]:
        """Include the settings of the objective."""
        own = OBJECTIVES[self.objective].revised if revision < 2 else ()
        return [*super().reinterpreted(revision), *own]

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.data.pixels is not None:
            raise UsageError("data.pixels is set, but pre-training takes tokens; leave it out")
        for name in ("cutmix_prob", "mixup_prob"):
            if getattr(self.augment, name):
                raise UsageError(
                    f"augment.{name} is {getattr(self.augment, name)}, but pre-training mixes no "
                    "samples; set it to 0"
                )
        OBJECTIVES[self.objective].check(self)
