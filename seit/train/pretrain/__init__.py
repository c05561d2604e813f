"""Learning without labels, on the one training loop: masked tokens, SiT, self-distillation."""

from seit.train.pretrain.config import PretrainConfig
from seit.train.pretrain.pretrain import pretrain
from seit.train.pretrain.pretraining import PretrainResult

__all__ = ["PretrainConfig", "PretrainResult", "pretrain"]
