from .config import TokenizerConfig as TokenizerConfig
from .evaluate import (
    CompareConfig as CompareConfig,
    Comparison as Comparison,
    compare_tokenizers as compare_tokenizers,
)
from .tokenadapt import (
    TokenAdaptConfig as TokenAdaptConfig,
    TokenAdaptResult as TokenAdaptResult,
    train_tokenadapt as train_tokenadapt,
)
from .train import TokenizerResult as TokenizerResult, train_tokenizer as train_tokenizer
