"""The `zarr.json` documents of a group, which Zarr libraries use and seit's reader ignores."""

import base64
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from seit.errors import DamagedError
from seit.shards.blocks import parse_json
from seit.shards.card import MAX_CARD_BYTES
from seit.shards.codecs import Codec
from seit.shards.folders import Folder
from seit.shards.frames import Kind
from seit.shards.zarr.chunks import GZIP_LEVEL, NO_LABEL, NO_METADATA
from seit.shards.zarr.division import Chunking, ZarrGroup, document_file

CODEC_NAME = "seit"
"""Name of the codec of `tokens` in `zarr.json`."""
_ATTRIBUTES_VERSION = 1
_CRC32C: Mapping[str, Any] = {"name": "crc32c"}
_LITTLE: Mapping[str, Any] = {"name": "bytes", "configuration": {"endian": "little"}}
_LABEL_CODECS = [_LITTLE, _CRC32C]
_STRING_CODECS: Sequence[Mapping[str, Any]] = [
    {"name": "vlen-utf8"},
    {"name": "gzip", "configuration": {"level": GZIP_LEVEL}},
    _CRC32C,
]


def codec_configuration(codec: Codec, tables: bytes | None) -> dict[str, Any]:
    """Return the entry of the codec of `tokens` in `zarr.json`, with its ``tables`` as stored.

    Libraries may compress equal tables to different bytes, so the stored ones are reused.
    """
    configuration: dict[str, Any] = {
        "codec": dict(codec.card_entry),
        "codes": codec.layout.num_codes,
        "grid": list(codec.layout.grid),
    }
    if tables is not None:
        configuration["tables"] = base64.b64encode(tables).decode("ascii")
    return configuration


def zarr_documents(
    chunking: Chunking,
    *,
    codec: Codec,
    tables: bytes | None,
    classes: Sequence[str],
    has_metadata: bool,
) -> dict[Kind | None, dict[str, Any]]:
    """Return the `zarr.json` documents of the arrays of a group, and under None its own."""
    tokens = {"name": CODEC_NAME, "configuration": codec_configuration(codec, tables)}
    arrays: dict[Kind | None, dict[str, Any]] = {
        Kind.TOKENS: _array_document(
            chunking, codec.layout.dtype.name, codecs=[tokens], fill=0, grid=codec.layout.grid
        ),
        Kind.LABELS: _array_document(chunking, "int32", codecs=_LABEL_CODECS, fill=NO_LABEL),
        Kind.KEYS: _array_document(chunking, "string", codecs=_STRING_CODECS, fill=""),
    }
    if has_metadata:
        arrays[Kind.METADATA] = _array_document(
            chunking, "string", codecs=_STRING_CODECS, fill=NO_METADATA
        )
    attributes = {"seit": {"version": _ATTRIBUTES_VERSION, "classes": list(classes)}}
    group = {"zarr_format": 3, "node_type": "group", "attributes": attributes}
    return {None: group, **arrays}


def _array_document(
    chunking: Chunking,
    data_type: str,
    *,
    codecs: Sequence[Mapping[str, Any]],
    fill: int | str,
    grid: tuple[int, ...] = (),
) -> dict[str, Any]:
    shards = {
        "name": "sharding_indexed",
        "configuration": {
            "chunk_shape": [chunking.block_rows, *grid],
            "codecs": list(codecs),
            "index_codecs": [_LITTLE, _CRC32C],
            "index_location": "end",
        },
    }
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": [chunking.num_samples, *grid],
        "data_type": data_type,
        "chunk_grid": {
            "name": "regular",
            "configuration": {"chunk_shape": [chunking.shard_rows, *grid]},
        },
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": fill,
        "codecs": [shards],
        "dimension_names": ["sample", "row", "column"] if grid else ["sample"],
    }


def document_text(document: Mapping[str, Any]) -> str:
    """Return the text of a document."""
    return json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def check_zarr_group(
    folder: Folder,
    group: ZarrGroup,
    *,
    codec: Codec,
    tables: bytes | None,
    classes: Sequence[str],
) -> Iterator[tuple[str, DamagedError]]:
    """Check that the documents of a group describe the arrays in the card.

    Readers of seit do not need them, but Zarr libraries must find the same arrays as seit.

    Yields:
        (file, fault) for each document that is missing, is not JSON, or differs.
    """
    documents = zarr_documents(
        group.chunking,
        codec=codec,
        tables=tables,
        classes=classes,
        has_metadata=group.has_metadata,
    )
    for kind, document in documents.items():
        file = document_file(group.name, kind)
        try:
            _check_document(folder, file, document)
        except DamagedError as error:
            yield file, error


def _check_document(folder: Folder, file: str, expected: Mapping[str, Any]) -> None:
    try:
        num_bytes = folder.size(file)
        if num_bytes > MAX_CARD_BYTES:
            raise DamagedError(
                f"{file} is larger than {MAX_CARD_BYTES} bytes; restore it from a copy"
            )
        found = parse_json(folder.read(file, 0, num_bytes).decode())
    except FileNotFoundError as error:
        raise DamagedError(f"{file} is missing; restore it from a copy") from error
    except OSError as error:
        raise DamagedError(f"{file} cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise DamagedError(f"{file} is not JSON ({error}); restore it from a copy") from error
    wrong = ", ".join(_differences(found, expected))
    if wrong:
        raise DamagedError(
            f"{file} does not describe what the card does ({wrong}); restore it from a copy"
        )


def _differences(found: Any, expected: Mapping[str, Any]) -> Iterator[str]:
    """Yield the entries of a document that are missing, unexpected or different."""
    if not isinstance(found, dict):
        yield "it is not a JSON object"
        return
    for name in sorted(found.keys() | expected.keys()):
        # 1, 1.0 and true are equal to Python, but not to a reader in another language.
        if name not in found or name not in expected:
            yield f"{name!r} is {'missing' if name in expected else 'unknown'}"
        elif json.dumps(found[name], sort_keys=True) != json.dumps(expected[name], sort_keys=True):
            yield f"{name!r} is another"
