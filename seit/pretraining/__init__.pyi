from .base import PretrainResult as PretrainResult
from .config import PretrainConfig as PretrainConfig
from .names import ObjectiveName as ObjectiveName
from .start import pretrain as pretrain
