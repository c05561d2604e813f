from .convert import Conversion as Conversion, convert_store as convert_store
from .copy import copy_store as copy_store
from .delete import Deletion as Deletion, delete_samples as delete_samples
from .filter import filter_store as filter_store
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
    JOB_FOLDER as JOB_FOLDER,
    check_folder as check_folder,
    check_not_replaced as check_not_replaced,
    end_earlier as end_earlier,
    flush_folders as flush_folders,
    locked as locked,
    replace_folder as replace_folder,
    work_of as work_of,
    write_record as write_record,
)
from .rewrite import (
    EDITS_ENTRY as EDITS_ENTRY,
    Contents as Contents,
    Rewritten as Rewritten,
    common_shard_samples as common_shard_samples,
    edited_job as edited_job,
    relabelled as relabelled,
    share_of as share_of,
    skipped_lines as skipped_lines,
    write_listed as write_listed,
    write_packed as write_packed,
)
from .select import chosen_blocks as chosen_blocks, read_keys as read_keys
from .verify import Verification as Verification, verify_store as verify_store
