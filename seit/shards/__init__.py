"""Grids ↔ bytes: blocks, codecs, containers, and the store that they make up."""

from seit.shards.blocks import BLOCK_SAMPLES, Block
from seit.shards.card import (
    CARD_NAME,
    FORMAT_NAME,
    Card,
    FileRecord,
    ShardRecord,
    TokenizerInfo,
    read_card,
)
from seit.shards.codecs import Codec, PackedCodec, TokenLayout
from seit.shards.store import (
    CODEBOOK_NAME,
    SKIPPED_NAME,
    TOKENIZER_NAME,
    Sample,
    Split,
    Store,
    open_store,
)
from seit.shards.verify import Damage, Verification, verify_store
from seit.shards.wds import ShardWriter

__all__ = [
    "BLOCK_SAMPLES",
    "CARD_NAME",
    "CODEBOOK_NAME",
    "FORMAT_NAME",
    "SKIPPED_NAME",
    "TOKENIZER_NAME",
    "Block",
    "Card",
    "Codec",
    "Damage",
    "FileRecord",
    "PackedCodec",
    "Sample",
    "ShardRecord",
    "ShardWriter",
    "Split",
    "Store",
    "TokenLayout",
    "TokenizerInfo",
    "Verification",
    "open_store",
    "read_card",
    "verify_store",
]
