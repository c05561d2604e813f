"""Training the learned tokenizers, and comparing tokenizers of images."""

from seit.train.tokenizers.config import TokenizerConfig
from seit.train.tokenizers.evaluate import CompareConfig, Comparison, compare_tokenizers
from seit.train.tokenizers.loop import TokenizerResult, train_tokenizer

__all__ = [
    "CompareConfig",
    "Comparison",
    "TokenizerConfig",
    "TokenizerResult",
    "compare_tokenizers",
    "train_tokenizer",
]
