from .config import TokenizeConfig as TokenizeConfig
from .estimate import Estimate as Estimate, estimate_job as estimate_job
from .fit import (
    FIT_INPUTS as FIT_INPUTS,
    fit_and_measure as fit_and_measure,
    held_out_remarks as held_out_remarks,
    make_reader as make_reader,
    measure_on_corpus as measure_on_corpus,
    sample_inputs as sample_inputs,
    spread_evenly as spread_evenly,
    spread_values as spread_values,
)
from .input_list import kept_splits as kept_splits, recorded as recorded
from .inputs.audio import (
    AudioReader as AudioReader,
    Cut as Cut,
    decode_audio as decode_audio,
    iterate_audio as iterate_audio,
)
from .inputs.images import (
    MAX_PIXELS as MAX_PIXELS,
    decode_image as decode_image,
    decode_whole as decode_whole,
)
from .inputs.pixels import PixelReader as PixelReader, View as View
from .inputs.pool import DecodingPool as DecodingPool
from .inputs.reader import LARGE_FILE_BYTES as LARGE_FILE_BYTES
from .inputs.views import split_view as split_view
from .job import tokenize as tokenize
from .resolve import resolve_tokenizer as resolve_tokenizer
from .result import PartResult as PartResult, TokenizeResult as TokenizeResult
from .sources.corpus import Corpus as Corpus, Instance as Instance
from .sources.detect import list_corpus as list_corpus
from .sources.media import EXTENSIONS as EXTENSIONS, NOUNS as NOUNS
from .sources.read import read_bytes as read_bytes, size_of as size_of
from .sources.tables import csv_lines as csv_lines, read_table as read_table
from .sources.walk import Remarks as Remarks, walk as walk
from .units import fit_units as fit_units
from .update import UpdateResult as UpdateResult, update_store as update_store
