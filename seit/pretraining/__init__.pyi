from .base import PretrainResult as PretrainResult
from .config import PretrainConfig as PretrainConfig
from .start import pretrain as pretrain
