from .config import CompressConfig as CompressConfig, CompressionConfig as CompressionConfig
from .result import CompressResult as CompressResult
from .start import compress as compress
