"""Reader of published checkpoints: files → tensors by name.

Pickled files go through PyTorch's restricted unpickler, which builds tensors and plain containers
and runs no code. Objects that training frameworks store next to the weights (callbacks, settings,
NumPy numbers) become empty stand-ins; a file with any other class or function is refused.
"""

import os
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any
from zipfile import BadZipFile, is_zipfile

import numpy as np
import torch
from torch import Tensor, nn
from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

from seit.documents import reason_of
from seit.errors import DamagedError, SeitError, UsageError
from seit.extras import how_to_install
from seit.npy import NPY_ERRORS
from seit.tensors import read_tensors
from seit.tokenizers.published.pickles import check_pickles

HUB_PREFIX = "hf://"
WEIGHT_SUFFIXES = (".safetensors", ".ckpt", ".pt", ".pth", ".bin", ".th")
MAX_FILE_BYTES = 1 << 34
"""Limit of a checkpoint; the largest network here, with optimizer and discriminator, is a third."""
MAX_WEIGHT_BYTES = 1 << 32
_MAX_CODES_VALUES = 1 << 26
_NAMED = 3
_CONTAINERS = ("ema", "model", "state_dict", "model_state_dict", "params_ema", "params")
_HUB_NAME = re.compile(r"hf://([\w.-]+/[\w.-]+)(?:/(.+))?")
_BESIDE_WEIGHTS = re.compile(
    r"(?:pytorch_lightning|lightning|lightning_fabric|omegaconf|numpy|typing)\.[\w.]+"
    r"|argparse\.Namespace|collections\.defaultdict|pathlib\.\w+Path"
    r"|(?:builtins|__builtin__)\.(?:int|float|bool|str|bytes|list|tuple|dict|set|slice)"
)


class _StandIn:
    """Stand-in for an object that is not a weight; keeps nothing of it."""

    def __new__(cls, *_: Any, **__: Any) -> "_StandIn":
        return super().__new__(cls)

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __setstate__(self, _: Any) -> None:
        pass


class _DictStandIn:
    """Stand-in for an object that is filled like a dict."""

    def __new__(cls, *_: Any, **__: Any) -> dict[Any, Any]:  # type: ignore[misc]
        return {}


def _stand_in(name: str) -> tuple[type, str]:
    filled = re.search(r"(?:defaultdict|AttributeDict)$", name)
    return (_DictStandIn if filled else _StandIn), name


class StateDict(Mapping[str, Tensor]):
    """Tensors of a checkpoint by name, with its name in messages.

    Args:
        tensors: the weights.
        origin: file, or other name of the checkpoint in messages.
        kind: expected kind of tokenizer.
    """

    def __init__(self, tensors: Mapping[str, Tensor], *, origin: str, kind: str) -> None:
        self._tensors = dict(tensors)
        self.origin = origin
        self.kind = kind

    def __getitem__(self, key: str) -> Tensor:
        return self._tensors[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def shape(self, key: str, num_dims: int) -> tuple[int, ...]:
        """Return the shape of a tensor that determines the architecture.

        Raises:
            UsageError: it is missing or empty, or has another number of dimensions.
        """
        if key not in self._tensors:
            raise self.refusal(f"it lacks {key}")
        shape = tuple(self._tensors[key].shape)
        if len(shape) != num_dims or 0 in shape:
            raise self.refusal(f"{key} is of shape {shape} instead of {num_dims} dimensions")
        return shape

    def count(self, prefix: str) -> int:
        """Count ``prefix.0``, ``prefix.1`` …, up to the first that is missing."""
        start = len(prefix) + 1
        found = {
            key[start:].split(".", 1)[0] for key in self._tensors if key.startswith(f"{prefix}.")
        }
        number = 0
        while str(number) in found:
            number += 1
        return number

    def holds(self, prefix: str) -> bool:
        """Return whether some tensor's name starts with ``prefix.``."""
        return any(key.startswith(f"{prefix}.") for key in self._tensors)

    def renamed(self, rename: Callable[[str], str | None]) -> "StateDict":
        """Return a copy with other names; tensors whose new name is None are left out.

        Raises:
            UsageError: two tensors get the same name.
        """
        tensors: dict[str, Tensor] = {}
        for key, tensor in self._tensors.items():
            name = rename(key)
            if name is None:
                continue
            if name in tensors:
                raise self.refusal(f"{key} and another tensor are both {name}")
            tensors[name] = tensor
        return self.replaced(tensors)

    def replaced(self, tensors: Mapping[str, Tensor]) -> "StateDict":
        """Return other tensors with the same origin."""
        return StateDict(tensors, origin=self.origin, kind=self.kind)

    def refusal(self, reason: str) -> UsageError:
        """Return the error that this is not a checkpoint of the expected kind."""
        return UsageError(f"{self.origin} is no {self.kind} checkpoint that seit knows: {reason}")


def load_strictly(network: nn.Module, weights: StateDict) -> None:
    """Load float32 weights into a network on the ``meta`` device: all of them and no others.

    Raises:
        UsageError: tensors are missing, unknown, misshaped or not floats; names the first ones.
    """
    expected = {key: tuple(value.shape) for key, value in network.state_dict().items()}
    missing = [key for key in expected if key not in weights]
    unknown = [key for key in weights if key not in expected]
    misshaped = [
        f"{key} {tuple(weights[key].shape)} instead of {shape}"
        for key, shape in expected.items()
        if key in weights and tuple(weights[key].shape) != shape
    ]
    others = [key for key in weights if not weights[key].is_floating_point()]
    complaints = {
        "it lacks": missing,
        "it has unknown": unknown,
        "its shapes are wrong:": misshaped,
        "these are no floats:": others,
    }
    text = "; ".join(f"{what} {_first(names)}" for what, names in complaints.items() if names)
    if text:
        raise weights.refusal(text)
    num_bytes = 4 * sum(weights[key].numel() for key in expected)
    if num_bytes > MAX_WEIGHT_BYTES:
        raise weights.refusal(f"its weights take {num_bytes:,} bytes of {MAX_WEIGHT_BYTES:,}")
    # Copies: views of a memory-mapped file would change with it.
    tensors = {key: _own(weights[key]) for key in expected}
    network.load_state_dict(tensors, strict=True, assign=True)


def _own(tensor: Tensor) -> Tensor:
    return tensor.detach().to(torch.float32, copy=True, memory_format=torch.contiguous_format)


def _first(names: list[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def read_checkpoint(path: str | Path, *, kind: str) -> StateDict:
    """Read the tensors of a checkpoint, from its ``ema``, ``model`` or ``state_dict`` if present.

    Args:
        path: a file, a folder that holds one, or ``hf://owner/name[/file]``.
        kind: kind of tokenizer, for messages.

    Raises:
        UsageError: there is no such file, it is too large, or it is not such a checkpoint.
    """
    file = find_weights(path)
    loaded = _read(file)
    for name in _CONTAINERS:
        inner = loaded.get(name) if isinstance(loaded, Mapping) else None
        if isinstance(inner, Mapping) and any(isinstance(x, Tensor) for x in inner.values()):
            loaded = inner
            break
    if not isinstance(loaded, Mapping):
        raise UsageError(f"{file} holds no weights by name but a {type(loaded).__name__}")
    tensors = {key: x for key, x in loaded.items() if isinstance(key, str) and is_dense(x)}
    if not tensors:
        raise UsageError(f"{file} holds no weights by name")
    size = file.stat().st_size
    stretched = [key for key, x in tensors.items() if x.numel() * x.element_size() > size]
    if stretched:
        raise UsageError(
            f"{_first(stretched)} of {file} would take more than the {size:,} bytes of the file; "
            "it is damaged or no checkpoint"
        )
    return StateDict(tensors, origin=str(file), kind=kind)


def is_dense(value: object) -> bool:
    """Return whether a value is a strided, unquantized tensor on the CPU."""
    return (
        isinstance(value, Tensor)
        and value.layout == torch.strided
        and not value.is_quantized
        and value.device.type == "cpu"
    )


def read_codes(path: str | Path) -> Tensor:
    """Read one tensor: codes (n, C), or the numbers (n,) of the used codes.

    Raises:
        UsageError: the file holds something else.
    """
    file = find_weights(path, suffixes=(*WEIGHT_SUFFIXES, ".npy"))
    if file.suffix == ".npy":
        try:
            array = np.lib.format.open_memmap(file, mode="r")
        except (OSError, *NPY_ERRORS) as error:
            reason = " ".join(reason_of(error).split())[:120]
            raise UsageError(f"{file} cannot be read as a NumPy array ({reason})") from error
        if array.dtype.kind not in "iuf":
            raise UsageError(f"{file} holds {array.dtype} values; codes are numbers")
        kind = np.float32 if array.dtype.kind == "f" else np.int64
        found: Any = torch.from_numpy(array.astype(kind)) if array.nbytes < MAX_FILE_BYTES else None
    else:
        found = _read(file)
    if isinstance(found, Mapping) and len(found) == 1:
        found = next(iter(found.values()))
    if not is_dense(found) or found.ndim not in (1, 2) or not found.numel():
        raise UsageError(f"{file} holds no single tensor of codes (n, C) or of their numbers (n,)")
    if found.numel() > _MAX_CODES_VALUES:
        raise UsageError(f"{file} holds codes of shape {tuple(found.shape)}, implausibly many")
    codes: Tensor = found
    if not codes.isfinite().all():
        raise UsageError(
            f"{file} holds values that are not finite; expected codes or their numbers"
        )
    return codes.detach().clone()


def find_weights(
    path: str | Path, *, suffixes: tuple[str, ...] = WEIGHT_SUFFIXES, contains: str = ""
) -> Path:
    """Find the one file of weights at a path, in a folder, or on the hub.

    Args:
        path: a file, a folder, or ``hf://owner/name[/file]``, which is downloaded.
        suffixes: allowed endings of its name.
        contains: part of its name, to choose among several in a folder.

    Raises:
        UsageError: there is no such file, there are several, or it is too large.
    """
    local = fetch(path, suffixes)
    if local.is_dir():
        found = sorted(
            entry
            for entry in local.iterdir()
            if entry.suffix in suffixes and contains in entry.name and entry.is_file()
        )
        if len(found) > 1:  # the same weights in two formats: prefer the one without pickles
            found = [entry for entry in found if entry.suffix == suffixes[0]] or found
        if len(found) != 1:
            names = ", ".join(entry.name for entry in found[:8]) or "none"
            what = f" with {contains!r} in its name" if contains else ""
            raise UsageError(f"{local} should hold one file of weights{what}; it holds {names}")
        local = found[0]
    if not local.is_file():
        raise UsageError(
            f"there is no file {path}; give a file, a folder that holds one, or "
            f"{HUB_PREFIX}owner/name/file"
        )
    if local.stat().st_size > MAX_FILE_BYTES:
        raise UsageError(f"{local} is larger than {MAX_FILE_BYTES:,} bytes; is it a checkpoint?")
    return local


def fetch(path: str | Path, suffixes: tuple[str, ...] = WEIGHT_SUFFIXES) -> Path:
    """Return a local path; ``hf://owner/name[/file]`` is downloaded once.

    Raises:
        UsageError: the name is invalid, or the hub has no such repository or file.
        SeitError: the hub does not answer.
    """
    if not str(path).startswith(HUB_PREFIX):
        return Path(path)
    match = _HUB_NAME.fullmatch(str(path))
    if match is None:
        raise UsageError(f"{path} is not a name on the hub; write {HUB_PREFIX}owner/name[/file]")
    repository, file = match.groups()
    try:
        from huggingface_hub import hf_hub_download, snapshot_download
        from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError
    except ImportError as error:
        raise UsageError(
            f"names on the hub need huggingface_hub; {how_to_install('published')}"
        ) from error
    try:
        if file is not None:
            return Path(hf_hub_download(repository, file))
        patterns = ["*.json", *(f"*{suffix}" for suffix in suffixes[:1])]
        return Path(snapshot_download(repository, allow_patterns=patterns))
    except (EntryNotFoundError, HfHubHTTPError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"{path} cannot be downloaded from the hub: {reason}") from error
    except OSError as error:
        raise SeitError(f"the hub does not respond ({error}); try again, or give a file") from error


def _read(file: Path) -> Any:
    """Read a safetensors file or a pickled one, without running any of its code."""
    if file.suffix == ".safetensors":
        try:
            advice = "download it again"
            return read_tensors(file, fault="no intact safetensors file", advice=advice)
        except DamagedError as error:
            raise UsageError(str(error)) from error
    try:
        check_pickles(file)
        is_zip = is_zipfile(file)
        foreign = get_unsafe_globals_in_checkpoint(os.fspath(file)) if is_zip else []
        _refuse_foreign(foreign, file)
        with warnings.catch_warnings(), safe_globals([*map(_stand_in, foreign)]):
            warnings.simplefilter("ignore")  # torch warns about pickles that it did not write
            return torch.load(file, map_location="cpu", weights_only=True, mmap=is_zip)
    except SeitError:
        raise
    except UnpicklingError as error:
        found = re.search(r"GLOBAL ([\w.]+)", str(error))
        _refuse_foreign([found[1]] if found else [], file, however=True)
        raise UsageError(f"{file} is not an intact checkpoint") from error
    except (
        ArithmeticError,
        AttributeError,
        AssertionError,
        BadZipFile,
        EOFError,
        LookupError,
        MemoryError,
        NotImplementedError,
        OSError,
        RecursionError,
        RuntimeError,
        TypeError,
        ValueError,
    ) as error:
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise UsageError(f"{file} is not an intact checkpoint ({reason})") from error


def _refuse_foreign(names: list[str], file: Path, *, however: bool = False) -> None:
    """Refuse a pickled file with classes or functions of other origin than training frameworks.

    Raises:
        UsageError: it has such, or any at all if ``however``.
    """
    foreign = [name for name in names if however or not _BESIDE_WEIGHTS.fullmatch(name)]
    if foreign:
        raise UsageError(
            f"{file} is pickled code, not only weights (it names {_first(foreign)}), and seit "
            "never runs such files; whoever can run the code it came from must convert it once: "
            "safetensors.torch.save_file(model.state_dict(), FILE)"
        )
