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
from seit.shards.converting import Conversion, convert
from seit.shards.copying import copy_store
from seit.shards.deleting import Deletion, delete_samples
from seit.shards.filtering import filter_store
from seit.shards.folders import Folder, LocalFolder, RemoteFolder, RetryPolicy, open_folder
from seit.shards.index import write_index
from seit.shards.merging import merge_stores
from seit.shards.pipelines import BlockDecoder, shard_urls
from seit.shards.recoding import CODECS, CONTAINERS, recode
from seit.shards.rewriting import Rewritten
from seit.shards.selecting import read_keys
from seit.shards.shard import BlockColumns, DamagedBlock, Shard
from seit.shards.split import Sample, Split
from seit.shards.store import CODEBOOK_NAME, SKIPPED_NAME, TOKENIZER_NAME, Store, open_store
from seit.shards.verify import Damage, Verification, verify_store
from seit.shards.wds import ShardWriter

__all__ = [
    "BLOCK_SAMPLES",
    "CARD_NAME",
    "CODEBOOK_NAME",
    "CODECS",
    "CONTAINERS",
    "FORMAT_NAME",
    "SKIPPED_NAME",
    "TOKENIZER_NAME",
    "Block",
    "BlockColumns",
    "BlockDecoder",
    "Card",
    "Codec",
    "Conversion",
    "Damage",
    "DamagedBlock",
    "Deletion",
    "FileRecord",
    "Folder",
    "LocalFolder",
    "PackedCodec",
    "RemoteFolder",
    "RetryPolicy",
    "Rewritten",
    "Sample",
    "Shard",
    "ShardRecord",
    "ShardWriter",
    "Split",
    "Store",
    "TokenLayout",
    "TokenizerInfo",
    "Verification",
    "convert",
    "copy_store",
    "delete_samples",
    "filter_store",
    "merge_stores",
    "open_folder",
    "open_store",
    "read_card",
    "read_keys",
    "recode",
    "shard_urls",
    "verify_store",
    "write_index",
]
