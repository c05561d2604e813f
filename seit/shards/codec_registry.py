"""Registry of codecs, by their names in cards."""

from collections.abc import Mapping

from seit.errors import UsageError
from seit.shards.codecs import Codec, PackedCodec, TokenLayout
from seit.shards.context import ContextCodec

CODECS: Mapping[str, type[Codec]] = {codec.name: codec for codec in (PackedCodec, ContextCodec)}


def build_codec(name: str, layout: TokenLayout, *, tables: bytes | None = None) -> Codec:
    """Build the codec called ``name`` in the card, with the ``tables`` that the store keeps.

    Raises:
        UsageError: this version has no such codec.
        DamagedError: the tables are invalid for the codec.
    """
    if name not in CODECS:
        raise UsageError(f"the codec {name!r} is unknown to this version of seit: upgrade seit")
    return CODECS[name].build(layout, tables)
