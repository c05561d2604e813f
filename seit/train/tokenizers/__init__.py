"""Training the learned tokenizers."""

from seit.train.tokenizers.config import TokenizerConfig
from seit.train.tokenizers.loop import TokenizerResult, train_tokenizer

__all__ = ["TokenizerConfig", "TokenizerResult", "train_tokenizer"]
