"""Token files of naver-ai/seit (SeiT, SeiT++): import into a store, export from one.

A split consists of ``NAME-token.data.bin.gz``, a gzip of one byte stream in which an id below 255
is one byte and any other is a byte 255 and then the id − 255; ``NAME-token.index.npy.gz``, the
start of each of N samples and the end of the last; and a text file with one label per line. One
``codebook.ckpt`` is a bare torch tensor (K, C).

Their reader takes every 255 for the start of an id and so silently decodes 510 as 255. Ids of 510
and more are therefore refused in both directions.
"""

from seit.stores.official.codebook import read_codebook
from seit.stores.official.escape import ESCAPE, ID_LIMIT, decode_escaped, encode_escaped
from seit.stores.official.exporter import export_official
from seit.stores.official.files import OfficialSplit, find_official
from seit.stores.official.importer import import_official

__all__ = [
    "ESCAPE",
    "ID_LIMIT",
    "OfficialSplit",
    "decode_escaped",
    "encode_escaped",
    "export_official",
    "find_official",
    "import_official",
    "read_codebook",
]
