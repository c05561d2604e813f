"""Canonical text of a card, in pieces, and its seal; a large card is never held as a whole.

The text is JSON of two-space indent, as :func:`json.dumps` writes it. It ends with the seal, the
sha256 of the text without that last entry.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

_END = "\n}\n"
_RECORDS_PER_PIECE = 1024
_quoted = json.JSONEncoder(ensure_ascii=False).encode
"""Encode a string, faster than :func:`json.dumps`."""


def seal_entry(seal: str) -> str:
    """Return the end of a card with this seal, the sha256 in hexadecimal."""
    return f',\n  "sha256": "{seal}"{_END}'


SEAL_BYTES = len(seal_entry("")) + 64
"""Size of the end of a card, which holds its seal."""


def seal_of(pieces: Iterable[str]) -> tuple[str, int]:
    """Return the seal of a text in ``pieces`` without end, and the bytes of the whole card."""
    digest, num_bytes = hashlib.sha256(), SEAL_BYTES
    for piece in pieces:
        data = piece.encode()
        num_bytes += len(data)
        digest.update(data)
    digest.update(_END.encode())
    return digest.hexdigest(), num_bytes


def is_sealed(data: bytes) -> bool:
    """Return whether the bytes of a card match the seal at their end."""
    digest = hashlib.sha256(memoryview(data)[:-SEAL_BYTES])
    digest.update(_END.encode())
    return data[-SEAL_BYTES:] == seal_entry(digest.hexdigest()).encode()


def text_pieces(
    entries: Mapping[str, Any],
    *,
    splits: Mapping[str, Sequence[Any]],
    files: Sequence[Any],
) -> Iterator[str]:
    """Yield the text of a card without its end.

    Args:
        entries: the fields of the card; its ``splits`` and ``files`` only mark their place.
        splits: the shards of each split, records with file, samples, bytes and sha256.
        files: records with file, bytes and sha256.
    """
    lead = "{\n"
    for name, value in entries.items():
        yield f'{lead}  "{name}": '
        if name == "splits":
            yield from _splits(splits)
        elif name == "files":
            yield from _list(map(_file, files), indent="    ")
        else:
            text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
            yield text.replace("\n", "\n  ")
        lead = ",\n"


def _splits(splits: Mapping[str, Sequence[Any]]) -> Iterator[str]:
    lead = "{\n"
    for name, shards in splits.items():
        samples = sum(shard.samples for shard in shards)
        yield f'{lead}    {_quoted(name)}: {{\n      "samples": {samples},\n      "shards": '
        yield from _list(map(_shard, shards), indent="        ")
        yield "\n    }"
        lead = ",\n"
    yield "\n  }" if splits else "{}"


def _list(rows: Iterator[Sequence[str]], *, indent: str) -> Iterator[str]:
    """Yield a list of objects, given as the lines of their entries."""
    inner = f",\n{indent}  "
    lead = "[\n"
    while chosen := list(islice(rows, _RECORDS_PER_PIECE)):
        texts = (f"{indent}{{\n{indent}  {inner.join(row)}\n{indent}}}" for row in chosen)
        yield lead + ",\n".join(texts)
        lead = ",\n"
    yield f"\n{indent[:-2]}]" if lead == ",\n" else "[]"


def _shard(record: Any) -> Sequence[str]:
    return (
        f'"file": {_quoted(record.file)}',
        f'"samples": {record.samples}',
        f'"bytes": {record.bytes}',
        f'"sha256": {_quoted(record.sha256)}',
    )


def _file(record: Any) -> Sequence[str]:
    return (
        f'"file": {_quoted(record.file)}',
        f'"bytes": {record.bytes}',
        f'"sha256": {_quoted(record.sha256)}',
    )
