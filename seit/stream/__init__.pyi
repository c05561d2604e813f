from .balance import BalancedOrder as BalancedOrder
from .balanced_windows import BalancedWindowOrder as BalancedWindowOrder
from .batches import (
    Batch as Batch,
    Loader as Loader,
    Rank as Rank,
    RowBatch as RowBatch,
    check_labeled as check_labeled,
)
from .datasets import StreamDataset as StreamDataset, TokenDataset as TokenDataset
from .kernels.packed import (
    place_planes as place_planes,
    unpack_triton as unpack_triton,
)
from .loaders import fits_in_memory as fits_in_memory, loader as loader
from .mixed import MixedLoader as MixedLoader
from .order import (
    WINDOW_BLOCKS as WINDOW_BLOCKS,
    GlobalOrder as GlobalOrder,
    Mode as Mode,
    Order as Order,
    OrderName as OrderName,
    Sampling as Sampling,
    StoredOrder as StoredOrder,
    WindowOrder as WindowOrder,
    sample_at as sample_at,
)
from .packed import id_dtype as id_dtype, unpack as unpack
from .pixels import PixelLoader as PixelLoader
from .resident import ResidentLoader as ResidentLoader
from .sounds import (
    PADDING as PADDING,
    Sound as Sound,
    SoundLoader as SoundLoader,
    Sounds as Sounds,
    cut_sounds as cut_sounds,
    padded as padded,
    read_sounds as read_sounds,
)
from .subsets import (
    files_of as files_of,
    held_out as held_out,
    select as select,
    share_of as share_of,
)
from .windows import StreamingLoader as StreamingLoader
