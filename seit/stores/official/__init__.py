"""Token files of naver-ai/seit (SeiT, SeiT++): import into a store, export from one.

A split of theirs is ``NAME-token.data.bin.gz``, a gzip of one byte stream in which an id below
255 is one byte and any other is a byte 255 and then the id − 255; ``NAME-token.index.npy.gz``,
where each of N samples starts in it and where the last one ends; and a text file of one label a
line. One ``codebook.ckpt`` is a bare torch tensor (K, C).

Their reader takes every 255 for the start of an id and so gives back 255 for 510 without an
error. Ids of 510 and more are therefore refused, here in both directions.
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
