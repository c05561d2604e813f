from .config import ContinualConfig as ContinualConfig
from .result import ContinualResult as ContinualResult
from .start import continual as continual
