from .compare.page import HEADER as HEADER, cells as cells
from .compare.rows import MethodsComparison as MethodsComparison
from .compare.start import compress_methods as compress_methods
from .config import CompressConfig as CompressConfig, CompressionConfig as CompressionConfig
from .footprint.result import FootprintResult as FootprintResult
from .footprint.start import measure_footprint as measure_footprint
from .registry import METHODS as METHODS
from .result import CompressResult as CompressResult
from .settings import refuse_unused as refuse_unused
from .start import compress as compress
from .tokenizer import (
    QuantizedTokenizer as QuantizedTokenizer,
    quantize_tokenizer as quantize_tokenizer,
)
