from .corpus import write_corpus as write_corpus
from .picture import render as render
from .shapes import CLASSES as CLASSES
