from .config import ContinualConfig as ContinualConfig
from .methods import Method as Method
from .result import ContinualResult as ContinualResult
from .start import continual as continual
