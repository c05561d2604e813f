"""Tokenizers without their weights.

A store of tokens does not carry hundreds of megabytes that training never needs. It keeps a
reference instead: kind, settings, codebook and fingerprint of a tokenizer. A reference supports
everything except encoding and decoding, for which its error names the original tokenizer.
"""

from abc import abstractmethod
from collections.abc import Mapping
from functools import cached_property
from typing import Any, Self

from torch import Tensor
from typing_extensions import override

from seit.errors import UsageError
from seit.tokenizers.base import Tokenizer


class ReferableTokenizer(Tokenizer):
    """Tokenizer that can be a reference to itself."""

    _referred: str | None = None
    """Fingerprint of a reference's tokenizer; None if this is the tokenizer itself."""

    @classmethod
    @abstractmethod
    def reference(cls, codebook: Tensor, settings: Mapping[str, Any], fingerprint: str) -> Self:
        """Build a tokenizer without its weights.

        Raises:
            DamagedError: the settings are invalid.
        """

    @property
    def has_weights(self) -> bool:
        """True if it can encode and decode."""
        return self._referred is None

    @property
    @override
    def fingerprint(self) -> str:
        return self._referred or self._computed_fingerprint

    @cached_property
    def _computed_fingerprint(self) -> str:
        return super().fingerprint

    def missing_weights(self) -> UsageError:
        """Return the error of a reference for operations that need the weights."""
        return UsageError(
            f"this is only a reference to a {self.name} tokenizer, whose weights are too large to "
            "travel with tokens; use the tokenizer file that the tokens were made with "
            f"(`seit tokenizer info FILE` prints its fingerprint, {self.fingerprint[:16]}…)"
        )
