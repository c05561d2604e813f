"""Tokenizer files: safetensors whose metadata hold the kind and its settings.

A file may hold a reference instead of weights: to a tokenizer of the package, found by its
fingerprint, or to a published one (:mod:`seit.tokenizers.published.references`).
"""

from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from seit.errors import DamagedError, UsageError
from seit.files import write_atomically
from seit.packed_weights import pack_weights
from seit.tensors import (
    first_not_finite,
    parse_card,
    read_card,
    read_tensors,
    tensor_bytes,
)
from seit.tokenizers.base import Tokenizer
from seit.tokenizers.fitted.dmel import DMelTokenizer
from seit.tokenizers.fitted.mel_vq import MelTokenizer, ResidualMelTokenizer
from seit.tokenizers.fitted.patch import PatchTokenizer, ResidualPatchTokenizer
from seit.tokenizers.imported import ImportedTokenizer
from seit.tokenizers.learned.conv import ConvTokenizer
from seit.tokenizers.learned.mel_conv import MelConvTokenizer
from seit.tokenizers.packed import packed_entry, take_packed
from seit.tokenizers.presets import PRESETS
from seit.tokenizers.published import KINDS, ReferableTokenizer
from seit.tokenizers.shipped import ShippedTokenizer, find_shipped, list_shipped
from seit.tokenizers.speech.units import UnitTokenizer

_OWN: tuple[type[Tokenizer], ...] = (
    PatchTokenizer,
    ResidualPatchTokenizer,
    ConvTokenizer,
    MelTokenizer,
    ResidualMelTokenizer,
    DMelTokenizer,
    MelConvTokenizer,
    ImportedTokenizer,
    UnitTokenizer,
)
TOKENIZERS: dict[str, type[Tokenizer]] = {kind.name: kind for kind in _OWN} | dict(KINDS)
"""Kinds of tokenizers, by name."""

_STORED_CODEBOOK = "codebook.safetensors"
"""File of a store's codebook, next to its tokenizer file."""
MAX_STORED_WEIGHT_BYTES = 64_000_000
"""Larger weights are left out of stores, where they would outweigh the tokens."""

_FORMAT = "seit-tokenizer"
_VERSION = 1


def tokenizer_bytes(
    tokenizer: Tokenizer, *, with_codebook: bool, with_weights: bool = True
) -> bytes:
    """Return the bytes of a tokenizer file; a store keeps the codebook in a separate file.

    Without weights, a tokenizer of the package or a published one becomes a reference; any other
    keeps its weights, as there is no other source of them.
    """
    shipped = None if with_weights else find_shipped(tokenizer.fingerprint)
    is_reference = shipped is not None or (
        isinstance(tokenizer, ReferableTokenizer) and not (with_weights and tokenizer.has_weights)
    )
    tensors = {} if is_reference else pack_weights(tokenizer.tensors(), tokenizer.packed)
    if with_codebook:
        tensors["codebook"] = tokenizer.codebook
    card = {
        "format": _FORMAT,
        "version": _VERSION,
        "name": tokenizer.name,
        "fingerprint": tokenizer.fingerprint,
        "settings": tokenizer.settings(),
        **({"reference": True} if is_reference else {}),
        **({} if is_reference else packed_entry(tokenizer)),
        **({"shipped": shipped.name} if shipped else {}),
    }
    return tensor_bytes(tensors, card=card)


def stored_tokenizer_bytes(tokenizer: Tokenizer, *, embed: bool = False) -> bytes:
    """Return the bytes of a store's tokenizer file, without the codebook.

    Leaves out large weights, and those of a tokenizer of the package unless ``embed``.
    """
    tensors = pack_weights(tokenizer.tensors(), tokenizer.packed)
    num_bytes = sum(tensor.nbytes for tensor in tensors.values())
    is_shipped = find_shipped(tokenizer.fingerprint) is not None
    with_weights = num_bytes <= MAX_STORED_WEIGHT_BYTES and (embed or not is_shipped)
    return tokenizer_bytes(tokenizer, with_codebook=False, with_weights=with_weights)


def codebook_bytes(tokenizer: Tokenizer) -> bytes:
    """Return the bytes of a store's codebook file: ``codebook`` float32 (K, C) or (L, K, C)."""
    return tensor_bytes({"codebook": tokenizer.codebook})


def save_tokenizer(tokenizer: Tokenizer, path: Path, *, with_weights: bool = True) -> None:
    """Write a tokenizer, codebook included, to one file; weights as in :func:`tokenizer_bytes`."""
    data = tokenizer_bytes(tokenizer, with_codebook=True, with_weights=with_weights)
    write_atomically(path, data)


def with_backbone(
    tokenizer: Tokenizer, backbone: str | Path | None, *, download: bool = False
) -> Tokenizer:
    """Return a tokenizer that can encode: units with their speech model, any other as it is.

    Args:
        tokenizer: any tokenizer.
        backbone: folder of a speech model, or its name on the hub; None for other tokenizers.
        download: whether a name on the hub may be downloaded.

    Raises:
        UsageError: units come without their speech model, or with another, or a tokenizer without
            one is given one.
    """
    if isinstance(tokenizer, UnitTokenizer):
        if backbone is None:
            raise tokenizer.missing_backbone()
        return tokenizer.with_backbone(backbone, download=download)
    if backbone is not None:
        raise UsageError(
            f"the tokenizer {tokenizer.name} uses no speech model; leave --backbone out"
        )
    return tokenizer


def open_tokenizer(name: str | Path) -> Tokenizer:
    """Load the tokenizer of the package with this name, or else the file at this path.

    Raises:
        UsageError: there is neither.
        DamagedError: the file is damaged.
    """
    shipped = list_shipped()
    if str(name) in shipped:
        return load_shipped(shipped[str(name)])
    if str(name) in PRESETS and not Path(name).exists():
        raise UsageError(
            f"{name} has no weights until it is fitted on a corpus; pass a shipped tokenizer "
            f"({', '.join(shipped)}), or a file of `seit tokenizer fit --tokenizer {name}`"
        )
    if not Path(name).is_file():
        known = [*PRESETS, *shipped]
        near = get_close_matches(str(name), known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"pass a file or one of {', '.join(known)}"
        raise UsageError(
            f"no tokenizer is named {str(name)!r} and no such tokenizer file exists; {hint}"
        )
    return load_tokenizer(name)


def load_shipped(shipped: ShippedTokenizer) -> Tokenizer:
    """Load a tokenizer of the package.

    Raises:
        DamagedError: the file does not match its card.
    """
    tokenizer = load_tokenizer(shipped.path)
    if tokenizer.fingerprint != shipped.fingerprint:
        raise DamagedError(f"{shipped.path} is not the tokenizer of its card; reinstall seit")
    return tokenizer


def load_tokenizer(
    path: str | Path,
    *,
    codebook: npt.NDArray[np.float32] | None = None,
    advice: str | None = None,
) -> Tokenizer:
    """Load a tokenizer file; ``codebook`` (K, C) or (L, K, C) is given if stored elsewhere.

    ``advice`` is what to do about a missing or damaged file; by default, to fit a tokenizer.

    By default, the codebook of a store's tokenizer file is read from the file next to it. A
    reference to a tokenizer of the package loads that tokenizer; a reference to a published one
    remains a reference, which cannot encode or decode.

    Raises:
        UsageError: there is no such file, or this version lacks the tokenizer that it holds
            or refers to.
        DamagedError: it is damaged.
    """
    path = Path(path)
    if not path.is_file():
        remedy = advice or "`seit tokenizer fit` makes one"
        raise UsageError(f"no tokenizer file at {path}; {remedy}")
    fault, advice = "no intact tokenizer file", advice or "restore it from a copy or fit it again"
    card, tensors = read_card(path, fault=fault, advice=advice)
    try:
        found_format, version = card["format"], card["version"]
        name, settings, fingerprint = str(card["name"]), card["settings"], card["fingerprint"]
    except KeyError as error:
        raise DamagedError(f"{path} is {fault} (its card lacks {error}); {advice}") from error
    if found_format != _FORMAT or version != _VERSION or name not in TOKENIZERS:
        raise UsageError(
            f"{path} holds {found_format!r} version {version} named {name!r}; this version of seit "
            f"supports {', '.join(TOKENIZERS)}: upgrade seit"
        )
    inner = tensors.pop("codebook", None)
    if inner is None and codebook is None:
        inner = _codebook_beside(path)
    table = torch.from_numpy(codebook.copy()) if codebook is not None else inner
    if (
        table is None
        or table.ndim not in (2, 3)
        or table.dtype != torch.float32
        or not table.numel()
    ):
        raise DamagedError(f"{path} comes without a float32 (K, C) codebook; {advice}")
    packed = take_packed(card, tensors, origin=str(path))
    if (bad := first_not_finite({**tensors, "codebook": table})) is not None:
        raise DamagedError(f"{path} holds weights that are not finite ({bad}); {advice}")
    kind = TOKENIZERS[name]
    if "shipped" in card:
        return _load_referred(path, card, table)
    if card.get("reference") is True and issubclass(kind, ReferableTokenizer):
        return kind.reference(table, settings, fingerprint)
    tokenizer = kind.restore(table, tensors, settings)
    tokenizer.packed = packed
    if tokenizer.fingerprint != fingerprint:
        raise DamagedError(f"{path} does not match its fingerprint; {advice}")
    return tokenizer


def _load_referred(path: Path, card: Mapping[str, Any], codebook: Tensor) -> Tokenizer:
    """Load the tokenizer of the package that a file refers to, by its fingerprint alone."""
    shipped = find_shipped(str(card["fingerprint"]))
    if shipped is None:
        raise UsageError(
            f"{path} refers to the tokenizer {str(card['shipped'])!r} of another version of seit "
            f"(fingerprint {str(card['fingerprint'])[:16]}…); install a version that ships it"
        )
    tokenizer = load_shipped(shipped)
    if not torch.equal(codebook, tokenizer.codebook):
        raise DamagedError(
            f"the codebook of {path} is not that of {shipped.name}, to which it refers; restore it "
            "from a copy"
        )
    return tokenizer


def has_weights(data: bytes) -> bool:
    """Return whether a tokenizer file's bytes hold weights, not a reference.

    Raises:
        DamagedError: they are not an intact tokenizer file.
    """
    try:
        return "reference" not in parse_card(data)
    except ValueError as error:
        raise DamagedError(f"no intact tokenizer file ({error}); restore it from a copy") from error


def _codebook_beside(path: Path) -> Tensor | None:
    """Return the codebook that a store keeps next to its tokenizer file; None if there is none."""
    beside = path.with_name(_STORED_CODEBOOK)
    return read_tensors(beside).get("codebook") if beside.is_file() else None
