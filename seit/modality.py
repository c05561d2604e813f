"""What a corpus consists of, and a tokenizer takes."""

from typing import Literal, TypeAlias

Modality: TypeAlias = Literal["image", "audio"]
