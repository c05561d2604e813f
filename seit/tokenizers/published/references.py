"""Tokenizers whose weights may be left behind.

A store of tokens does not carry hundreds of megabytes that training never needs. What is left then
is a reference: the kind, the settings, the codebook and the fingerprint of a tokenizer. It takes
part in everything but encoding and decoding, for which it says what it was made with.
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
    """A tokenizer that can be a reference to itself."""

    _referred: str | None = None
    """The fingerprint of a reference's tokenizer; None of the tokenizer itself."""

    @classmethod
    @abstractmethod
    def reference(cls, codebook: Tensor, settings: Mapping[str, Any], fingerprint: str) -> Self:
        """The tokenizer without its weights.

        Raises:
            DamagedError: the settings are no such.
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
        """The error of a reference that is asked for what needs the weights."""
        return UsageError(
            f"this is only a reference to a {self.name} tokenizer, whose weights are too large to "
            "travel with tokens; use the tokenizer file that the tokens were made with "
            f"(`seit tokenizer info FILE` prints its fingerprint, {self.fingerprint[:16]}…)"
        )
