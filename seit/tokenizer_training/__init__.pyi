from .config import TokenizerConfig as TokenizerConfig
from .evaluate import (
    CompareConfig as CompareConfig,
    Comparison as Comparison,
    compare_tokenizers as compare_tokenizers,
)
from .loop import TokenizerResult as TokenizerResult, train_tokenizer as train_tokenizer
