"""Pixels → grids: the tokenizers and their files."""

from seit.tokenizers.base import Tokenizer
from seit.tokenizers.files import (
    TOKENIZERS,
    codebook_bytes,
    load_tokenizer,
    save_tokenizer,
    tokenizer_bytes,
)
from seit.tokenizers.patch import PatchTokenizer
from seit.tokenizers.quality import Quality, measure_quality

__all__ = [
    "TOKENIZERS",
    "PatchTokenizer",
    "Quality",
    "Tokenizer",
    "codebook_bytes",
    "load_tokenizer",
    "measure_quality",
    "save_tokenizer",
    "tokenizer_bytes",
]
