"""Modalities of instances in a corpus, and of inputs of a tokenizer."""

from typing import Literal, TypeAlias

Modality: TypeAlias = Literal["image", "audio"]
