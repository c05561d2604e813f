from .blocks import (
    BLOCK_SAMPLES as BLOCK_SAMPLES,
    MEMBER_SUFFIXES as MEMBER_SUFFIXES,
    Block as Block,
)
from .card import (
    CARD_NAME as CARD_NAME,
    EDITS_ENTRY as EDITS_ENTRY,
    MAX_GRID_SIDE as MAX_GRID_SIDE,
    MAX_SHARD_BLOCKS as MAX_SHARD_BLOCKS,
    Card as Card,
    FileRecord as FileRecord,
    ShardRecord as ShardRecord,
    TokenizerInfo as TokenizerInfo,
    read_card as read_card,
)
from .checks import (
    Damage as Damage,
    FileReport as FileReport,
    check_file as check_file,
    check_shard_file as check_shard_file,
    duplicate_keys as duplicate_keys,
)
from .codecs import (
    MAX_BLOCK_TOKENS as MAX_BLOCK_TOKENS,
    Codec as Codec,
    PackedCodec as PackedCodec,
    TokenLayout as TokenLayout,
)
from .context.choose import fit_context as fit_context, smaller_codec as smaller_codec
from .context.codec import ContextCodec as ContextCodec
from .context.coder import Coder as Coder
from .context.fit import MAX_FIT_TOKENS as MAX_FIT_TOKENS, fit_tables as fit_tables
from .context.tables import (
    MAX_CODES as MAX_CODES,
    MAX_SCORE as MAX_SCORE,
    PROBABILITY_BITS as PROBABILITY_BITS,
    ContextTables as ContextTables,
)
from .context.tree import TreeShape as TreeShape
from .cutter import even_blocks as even_blocks
from .folders.base import Folder as Folder
from .folders.cache import StoreSettings as StoreSettings
from .folders.local import LocalFolder as LocalFolder
from .folders.places import Location as Location, is_url as is_url, open_folder as open_folder
from .folders.remote import RemoteFolder as RemoteFolder
from .folders.retries import RetryPolicy as RetryPolicy, hide_secrets as hide_secrets
from .frames import FRAME_OVERHEAD_BYTES as FRAME_OVERHEAD_BYTES, Kind as Kind
from .index import (
    SplitIndex as SplitIndex,
    encode_index as encode_index,
    index_name as index_name,
    read_frame_sizes as read_frame_sizes,
    write_index as write_index,
)
from .jit import compiled as compiled
from .label_sets import (
    LABELS_KEY as LABELS_KEY,
    LabelSets as LabelSets,
    read_label_set_blocks as read_label_set_blocks,
)
from .listed import (
    CODEBOOK_NAME as CODEBOOK_NAME,
    CODEBOOK_TENSOR as CODEBOOK_TENSOR,
    TABLES_TENSOR as TABLES_TENSOR,
    codebook_file as codebook_file,
    record_of as record_of,
    write_listed as write_listed,
)
from .names import check_split_names as check_split_names
from .packed import (
    pack as pack,
    planes as planes,
    sample_bytes as sample_bytes,
    token_bits as token_bits,
    unpack as unpack,
    unpack_rows as unpack_rows,
)
from .pipelines import (
    BlockDecoder as BlockDecoder,
    sample_pipeline as sample_pipeline,
    shard_urls as shard_urls,
)
from .sample_keys import split_key as split_key
from .seal import SealedFolder as SealedFolder
from .shard import BlockColumns as BlockColumns, DamagedBlock as DamagedBlock, Shard as Shard
from .split import Sample as Sample, Split as Split
from .store import (
    SKIPPED_NAME as SKIPPED_NAME,
    TOKENIZER_NAME as TOKENIZER_NAME,
    Store as Store,
    as_store as as_store,
    check_same_tokenizer as check_same_tokenizer,
    open_store as open_store,
)
from .tar_shard import read_tar_blocks as read_tar_blocks
from .wds import ShardWriter as ShardWriter
from .zarr.division import ZarrGroup as ZarrGroup, group_name as group_name
from .zarr.documents import check_zarr_group as check_zarr_group
from .zarr.writer import write_zarr_split as write_zarr_split
