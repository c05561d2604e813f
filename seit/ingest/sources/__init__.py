"""Listing of image or audio corpora: class folders, a manifest (CSV, Parquet) or WebDataset tars.

``list_corpus`` detects the kind and returns every instance with its key, split and label, in an
order that depends only on the corpus; ``read_bytes`` fetches one. Nothing is decoded here.
"""

from seit.ingest.sources.corpus import Corpus, Instance, Kind, Location
from seit.ingest.sources.detect import list_corpus
from seit.ingest.sources.read import MAX_FILE_BYTES, read_bytes

__all__ = [
    "MAX_FILE_BYTES",
    "Corpus",
    "Instance",
    "Kind",
    "Location",
    "list_corpus",
    "read_bytes",
]
