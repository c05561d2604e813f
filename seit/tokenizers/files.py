"""Tokenizers on disk: one safetensors file whose metadata name the kind and its settings."""

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from seit.errors import DamagedError, UsageError
from seit.files import write_atomically
from seit.tensors import first_not_finite
from seit.tokenizers.base import Tokenizer
from seit.tokenizers.conv import ConvTokenizer
from seit.tokenizers.dmel import DMelTokenizer
from seit.tokenizers.melconv import MelConvTokenizer
from seit.tokenizers.melvq import MelTokenizer, ResidualMelTokenizer
from seit.tokenizers.patch import PatchTokenizer
from seit.tokenizers.published import KINDS, ReferableTokenizer

_FITTED: tuple[type[Tokenizer], ...] = (
    PatchTokenizer,
    ConvTokenizer,
    MelTokenizer,
    ResidualMelTokenizer,
    DMelTokenizer,
    MelConvTokenizer,
)
TOKENIZERS: dict[str, type[Tokenizer]] = {kind.name: kind for kind in _FITTED} | dict(KINDS)
"""The kinds of tokenizer by name."""

_STORED_CODEBOOK = "codebook.safetensors"
"""Where a store keeps its codebook, beside its tokenizer file."""
MAX_STORED_WEIGHT_BYTES = 64_000_000
"""Weights above this are left out of stores, which would carry more of them than of tokens."""

_METADATA_KEY = "seit"
_FORMAT = "seit-tokenizer"
_VERSION = 1


def tokenizer_bytes(
    tokenizer: Tokenizer, *, with_codebook: bool, with_weights: bool = True
) -> bytes:
    """The bytes of a tokenizer file; a store keeps the codebook in a file of its own.

    Without weights it becomes a reference: see :mod:`seit.tokenizers.published.references`.
    """
    is_reference = isinstance(tokenizer, ReferableTokenizer) and not (
        with_weights and tokenizer.has_weights
    )
    weights = {} if is_reference else tokenizer.tensors()
    tensors = {key: tensor.cpu().contiguous() for key, tensor in weights.items()}
    if with_codebook:
        tensors["codebook"] = tokenizer.codebook.cpu().contiguous()
    card = {
        "format": _FORMAT,
        "version": _VERSION,
        "name": tokenizer.name,
        "fingerprint": tokenizer.fingerprint,
        "settings": tokenizer.settings(),
        **({"reference": True} if is_reference else {}),
    }
    return save(tensors, {_METADATA_KEY: json.dumps(card, sort_keys=True)})


def stored_tokenizer_bytes(tokenizer: Tokenizer) -> bytes:
    """The bytes of a store's tokenizer file: without the codebook, and without large weights."""
    num_bytes = sum(tensor.nbytes for tensor in tokenizer.tensors().values())
    with_weights = num_bytes <= MAX_STORED_WEIGHT_BYTES
    return tokenizer_bytes(tokenizer, with_codebook=False, with_weights=with_weights)


def codebook_bytes(tokenizer: Tokenizer) -> bytes:
    """The bytes of a store's codebook file: the tensor ``codebook`` float32 (K, C) or (L, K, C)."""
    return save({"codebook": tokenizer.codebook.cpu().contiguous()})


def save_tokenizer(tokenizer: Tokenizer, path: Path) -> None:
    """Write a tokenizer, codebook included, to one file."""
    write_atomically(path, tokenizer_bytes(tokenizer, with_codebook=True))


def load_tokenizer(
    path: str | Path, *, codebook: npt.NDArray[np.float32] | None = None
) -> Tokenizer:
    """Load a tokenizer file; ``codebook`` (K, C) or (L, K, C) is given when it lies elsewhere.

    Without one, that of a store's tokenizer file is looked for beside it, where stores have it.
    What a store left the weights of out comes back as a reference, which cannot encode or decode.

    Raises:
        UsageError: there is no such file, or it holds a tokenizer that this seit does not know.
        DamagedError: it is not what was written.
    """
    path = Path(path)
    if not path.is_file():
        raise UsageError(f"no tokenizer file at {path}; `seit tokenizer fit` makes one")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors: dict[str, Tensor] = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        card = json.loads(metadata[_METADATA_KEY])
        found_format, version = card["format"], card["version"]
        name, settings, fingerprint = str(card["name"]), card["settings"], card["fingerprint"]
    except (SafetensorError, OSError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise DamagedError(
            f"{path} is no intact tokenizer file ({error}); restore it from a copy or fit it again"
        ) from error
    if found_format != _FORMAT or version != _VERSION or name not in TOKENIZERS:
        raise UsageError(
            f"{path} holds {found_format!r} version {version} named {name!r}; this seit knows "
            f"{', '.join(TOKENIZERS)}: upgrade seit"
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
        raise DamagedError(f"{path} comes without a float32 (K, C) codebook; fit it again")
    if (bad := first_not_finite({**tensors, "codebook": table})) is not None:
        raise DamagedError(f"{path} holds weights that are not finite ({bad}); train or fit again")
    kind = TOKENIZERS[name]
    if card.get("reference") is True and issubclass(kind, ReferableTokenizer):
        return kind.reference(table, settings, str(fingerprint))
    tokenizer = kind.restore(table, tensors, settings)
    if tokenizer.fingerprint != fingerprint:
        raise DamagedError(f"{path} does not match its fingerprint; restore it from a copy")
    return tokenizer


def _codebook_beside(path: Path) -> Tensor | None:
    """The codebook that a store keeps beside its tokenizer file, if there is one."""
    beside = path.with_name(_STORED_CODEBOOK)
    if not beside.is_file():
        return None
    try:
        with safe_open(beside, framework="pt") as file:
            return file.get_tensor("codebook") if "codebook" in file.keys() else None  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise DamagedError(f"{beside} is damaged ({error}); restore it from a copy") from error
