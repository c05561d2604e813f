from .card import CARD_PAGE_NAME as CARD_PAGE_NAME, write_dataset_card as write_dataset_card
from .convert import Conversion as Conversion, convert_store as convert_store
from .copy import copy_store as copy_store
from .delete import Deletion as Deletion, delete_samples as delete_samples
from .filter import filter_store as filter_store
from .hold_out import hold_out_samples as hold_out_samples
from .info import StoreInfo as StoreInfo, describe_store as describe_store
from .merge import merge_stores as merge_stores
from .place import work_folder as work_folder
from .recode import (
    CODECS as CODECS,
    CONTAINERS as CONTAINERS,
    check_names as check_names,
    recode_store as recode_store,
)
from .replace import (
    Record as Record,
    check_folder as check_folder,
    check_not_replaced as check_not_replaced,
    check_own_files as check_own_files,
    check_replaceable as check_replaceable,
    held_store as held_store,
    is_half_replaced as is_half_replaced,
    put_in_place as put_in_place,
    put_over as put_over,
)
from .rewrite import (
    Contents as Contents,
    Rewritten as Rewritten,
    common_shard_samples as common_shard_samples,
    edited_job as edited_job,
    make_store as make_store,
    relabelled as relabelled,
    share_of as share_of,
    skipped_lines as skipped_lines,
)
from .select import chosen_blocks as chosen_blocks, read_keys as read_keys
from .verify import Verification as Verification, verify_store as verify_store
