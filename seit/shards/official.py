"""Token files of naver-ai/seit (SeiT, SeiT++): import into a store, export from one.

A split of theirs is ``NAME-token.data.bin.gz``, a gzip of one byte stream in which an id below
255 is one byte and any other is a byte 255 and then the id − 255; ``NAME-token.index.npy.gz``,
where each of N samples starts in it and where the last one ends; and a text file of one label a
line. One ``codebook.ckpt`` is a bare torch tensor (K, C).

Their reader takes every 255 for the start of an id and so gives back 255 for 510 without an
error. Ids of 510 and more are therefore refused, here in both directions.

Shape letters: N samples, L tokens per sample, H W grid (L = H·W), K codes, C codebook dimension.
"""

import gzip
import hashlib
import io
import os
import pickletools
import re
import shutil
import warnings
import zipfile
import zlib
from array import array
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from tokenize import TokenError
from typing import IO, Any, BinaryIO

import numpy as np
import numpy.typing as npt

from seit.errors import DamagedError, SeitError, UsageError
from seit.files import (
    PARTIAL_SUFFIX,
    check_new_file,
    explained_writes,
    publish,
    write_atomically,
)
from seit.shards.blocks import BLOCK_SAMPLES, Block
from seit.shards.card import CARD_NAME, MAX_GRID_SIDE, Card, FileRecord, ShardRecord, TokenizerInfo
from seit.shards.codecs import MAX_BLOCK_TOKENS, PackedCodec, TokenLayout
from seit.shards.frames import Kind
from seit.shards.store import CODEBOOK_NAME, SKIPPED_NAME, Store
from seit.shards.wds import ShardWriter

ESCAPE = 255
"""The byte that stands before the rest of an id that is not below it."""
ID_LIMIT = 2 * ESCAPE
"""Ids are below this."""
DATA_SUFFIX = "-token.data.bin.gz"
INDEX_SUFFIX = "-token.index.npy.gz"
LABEL_SUFFIX = "-label.txt"
CODEBOOK_FILE = "codebook.ckpt"
SHARD_BLOCKS = 8
"""Blocks of an imported shard."""
MAX_CODEBOOK_BYTES = 1 << 28
MAX_UNNAMED_CLASSES = 1 << 20
"""Without class names a label of more is taken for an error, not for a million classes."""
_PIECE_TOKENS = 1 << 24
"""Tokens that are coded at once: some 200 MB while it lasts."""
_TORCH_SUFFIXES = (".ckpt", ".pt", ".pth")
_CODEBOOK_SUFFIXES = (*_TORCH_SUFFIXES, ".npy", ".safetensors")
_SPLIT_NAME = re.compile(r"\w[\w.-]*")
_LONE_LABELS = re.compile(r"labels?\.txt", re.IGNORECASE)
_LABEL = re.compile(rb"(-?[0-9]{1,10})\s*")
_LABEL_LINE_BYTES = 64
_GZIP_LEVEL = 6
_NPY_ERRORS = (
    ValueError,
    TypeError,
    OverflowError,
    SyntaxError,
    TokenError,
    RecursionError,
    MemoryError,
)
"""What numpy raises for the header of an array file that is none."""
_ZIP_MAGIC = b"PK\3\4"
_LEGACY_PICKLES = 5
"""A file of torch before 1.6 is magic, version, system, tensor and storages, a pickle each."""
_MAX_PICKLE_STEPS = 1000
"""A bare tensor takes 50; what a legacy file says of the system takes no more either."""
_MAX_PICKLE_REFERENCES = 16
_PICKLE_REFERENCES = ("GET", "BINGET", "LONG_BINGET", "DUP")

Progress = Callable[[int, int], None]
"""Called with (samples done, samples in all)."""


@dataclass(frozen=True)
class OfficialSplit:
    """The files of one split; without ``labels`` every sample is unlabelled."""

    name: str
    data: Path
    index: Path
    labels: Path | None = None

    @property
    def files(self) -> tuple[Path, ...]:
        """Those that there are."""
        return (self.data, self.index, *([self.labels] if self.labels else []))


def find_official(folder: Path) -> tuple[list[OfficialSplit], Path]:
    """Find the splits in ``folder``, by name, and the codebook.

    A label file is a ``.txt`` with "label" in its name; it belongs to the split whose name, the
    longest if several, stands in it as a word (``train_labels.txt``). ``labels.txt`` belongs to
    the split of a folder that holds but one. The codebook has "codebook" in its name.

    Raises:
        UsageError: a file is missing, or more than one could be it.
    """
    if not folder.is_dir():
        raise UsageError(f"{folder} is not a folder; name the one that holds *{DATA_SUFFIX}")
    with _explained_reads(folder):
        names = sorted(path.name for path in folder.iterdir() if path.is_file())
    names = [name for name in names if not name.startswith(".")]
    splits = sorted(name.removesuffix(DATA_SUFFIX) for name in names if name.endswith(DATA_SUFFIX))
    if not splits:
        raise UsageError(f"{folder} holds no file named like train{DATA_SUFFIX}")
    for split in splits:
        if split + INDEX_SUFFIX not in names:
            raise UsageError(f"{folder} lacks {split}{INDEX_SUFFIX}, the index of {split!r}")
    labels = [name for name in names if "label" in name.lower() and name.lower().endswith(".txt")]
    codebooks = [
        name
        for name in names
        if "codebook" in name.lower() and name.lower().endswith(_CODEBOOK_SUFFIXES)
    ]
    found = [
        OfficialSplit(
            name=split,
            data=folder / (split + DATA_SUFFIX),
            index=folder / (split + INDEX_SUFFIX),
            labels=folder
            / _only(
                _labels_of(split, splits, labels),
                f"label file of split {split!r}",
                like=split + LABEL_SUFFIX,
                folder=folder,
                seen=labels,
            ),
        )
        for split in splits
    ]
    codebook = _only(codebooks, "codebook", like=CODEBOOK_FILE, folder=folder, seen=codebooks)
    return found, folder / codebook


def _labels_of(split: str, splits: Sequence[str], labels: Sequence[str]) -> list[str]:
    """The label files that belong to ``split`` and to no other."""
    named = [
        label
        for label in labels
        if max((other for other in splits if _has_word(label, other)), key=len, default="") == split
    ]
    return named or [label for label in labels if len(splits) == 1 and _LONE_LABELS.match(label)]


def _has_word(name: str, word: str) -> bool:
    return bool(re.search(rf"(?<![^\W_]){re.escape(word)}(?![^\W_])", name, re.IGNORECASE))


def _only(
    candidates: Sequence[str], what: str, *, like: str, folder: Path, seen: Sequence[str]
) -> str:
    if len(candidates) == 1:
        return candidates[0]
    if candidates:
        raise UsageError(
            f"{folder} holds more than one {what}: {', '.join(candidates)}; leave one, or name "
            "the files"
        )
    others = f" (there is {', '.join(seen)})" if seen else ""
    raise UsageError(f"{folder} holds no {what}{others}; name it like {like}, or name the files")


def encode_escaped(
    tokens_NL: npt.NDArray[np.unsignedinteger],
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Code ids (N, L) as bytes; also return the offsets (N + 1,) of the samples in them.

    Raises:
        UsageError: an id is not below `ID_LIMIT`.
    """
    largest = int(tokens_NL.max(initial=0))
    if largest >= ID_LIMIT:
        raise UsageError(
            f"token id {largest} has no place in the files of naver-ai/seit, where ids are below "
            f"{ID_LIMIT}; tokenize with at most {ID_LIMIT} codes to export"
        )
    escaped_NL = tokens_NL >= ESCAPE
    pairs_NL2 = np.empty((*tokens_NL.shape, 2), dtype=np.uint8)
    pairs_NL2[..., 0] = np.minimum(tokens_NL, ESCAPE)
    pairs_NL2[..., 1] = np.where(escaped_NL, tokens_NL, ESCAPE) - ESCAPE
    used_NL2 = np.ones(pairs_NL2.shape, dtype=np.bool_)
    used_NL2[..., 1] = escaped_NL
    sizes_N = tokens_NL.shape[1] + np.count_nonzero(escaped_NL, axis=1)
    return pairs_NL2[used_NL2], np.concatenate([[0], np.cumsum(sizes_N, dtype=np.int64)])


def decode_escaped(
    data: npt.NDArray[np.uint8],
    offsets: npt.NDArray[np.int64],
    length: int,
    *,
    first_sample: int = 0,
) -> npt.NDArray[np.uint16]:
    """Undo `encode_escaped`: ids (N, L), L being ``length``, at least 1.

    ``first_sample`` is what messages call the first sample, when these are some of a split's.

    Raises:
        DamagedError: the offsets are not those of samples of ``length`` tokens that fill ``data``,
            an id is cut off by the end of its sample, or is not below `ID_LIMIT`.
    """
    _check_offsets(offsets, length, first_sample)
    if len(data) != offsets[-1]:
        raise DamagedError(f"{len(data)} bytes stand where the offsets end at {offsets[-1]}")
    escapes = np.flatnonzero(data == ESCAPE)
    twice = escapes[1:][np.diff(escapes) == 1]
    twice = twice[~np.isin(twice, offsets)]
    if twice.size:
        sample = first_sample + int(np.searchsorted(offsets, twice[0], side="right")) - 1
        raise DamagedError(
            f"sample {sample} holds an id of {ID_LIMIT} or more (two bytes {ESCAPE} in a row), "
            "which this format cannot keep; make it again with fewer codes"
        )
    cut = np.flatnonzero(data[offsets[1:] - 1] == ESCAPE)
    if cut.size:
        sample = first_sample + int(cut[0])
        raise DamagedError(f"the last id of sample {sample} is cut off behind its byte {ESCAPE}")
    counts_N = np.diff(offsets) - np.diff(np.searchsorted(escapes, offsets))
    wrong = np.flatnonzero(counts_N != length)
    if wrong.size:
        raise DamagedError(
            f"sample {first_sample + int(wrong[0])} decodes to {counts_N[wrong[0]]} tokens where "
            f"the grid takes {length}"
        )
    is_start = np.ones(len(data), dtype=np.bool_)
    is_start[escapes + 1] = False
    tokens = data[is_start].astype(np.uint16)
    tokens[tokens == ESCAPE] += data[escapes + 1]
    return tokens.reshape(-1, length)


def _check_offsets(offsets: npt.NDArray[np.int64], length: int, first_sample: int) -> None:
    """Refuse offsets that no samples of ``length`` tokens have, before anything is read there."""
    if offsets[0] != 0:
        raise DamagedError(f"the first offset is {offsets[0]}, not 0")
    sizes_N = np.diff(offsets)
    wrong = np.flatnonzero((sizes_N < length) | (sizes_N > 2 * length))
    if wrong.size:
        row = int(wrong[0])
        raise DamagedError(
            f"sample {first_sample + row} takes {sizes_N[row]} bytes by its offsets where "
            f"{length} tokens take {length} to {2 * length}"
        )


def read_codebook(path: Path) -> npt.NDArray[np.float32]:
    """Read a codebook: float32 (K, C), finite.

    The file is a bare torch tensor (``.ckpt``, ``.pt``, ``.pth``; code in its pickle is refused,
    never run), a ``.npy``, or a ``.safetensors`` with a tensor ``codebook``.

    Raises:
        UsageError: there is no such file, or it is no codebook.
    """
    suffix = path.suffix.lower()
    if suffix not in _CODEBOOK_SUFFIXES:
        raise UsageError(f"{path} is no codebook file; it ends in {', '.join(_CODEBOOK_SUFFIXES)}")
    _check_file(path)
    with _explained_reads(path):
        if path.stat().st_size > MAX_CODEBOOK_BYTES:
            raise UsageError(f"{path} is larger than {MAX_CODEBOOK_BYTES} bytes: no codebook")
        if suffix in _TORCH_SUFFIXES:
            codebook_KC = _load_torch(path)
        elif suffix == ".npy":
            codebook_KC = _load_npy(path)
        else:
            codebook_KC = _load_safetensors(path)
    return _checked_codebook(codebook_KC, path)


def _load_torch(path: Path) -> npt.NDArray[Any]:
    import torch

    try:
        _check_torch_file(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            value = torch.load(path, map_location="cpu", weights_only=True)
        if isinstance(value, torch.Tensor):
            codebook_KC: npt.NDArray[Any] = value.detach().numpy()
            return codebook_KC
    except (SeitError, OSError):
        raise
    except Exception as error:  # bytes that are no tensor make torch raise nearly anything
        raise UsageError(
            f"{path} cannot be read as a bare tensor ({type(error).__name__}); no code of a pickle "
            "is run: save the float32 (K, C) tensor alone"
        ) from error
    raise UsageError(f"{path} holds a {type(value).__name__} where a bare (K, C) tensor belongs")


def _check_torch_file(path: Path) -> None:
    """Refuse what would take torch much memory or time to find out that it is no bare tensor."""
    with path.open("rb") as file:
        if file.read(len(_ZIP_MAGIC)) != _ZIP_MAGIC:
            file.seek(0)
            for _ in range(_LEGACY_PICKLES):
                _check_pickle(file, path)
            return
    with zipfile.ZipFile(path) as archive:
        if sum(entry.file_size for entry in archive.infolist()) > MAX_CODEBOOK_BYTES:
            raise UsageError(f"{path} unfolds to more than {MAX_CODEBOOK_BYTES} bytes")
        for entry in archive.infolist():
            if entry.filename.lower().endswith(".pkl"):
                with archive.open(entry) as pickle:
                    _check_pickle(pickle, path)


def _check_pickle(file: IO[bytes], path: Path) -> None:
    """Refuse a pickle with more steps or more references to its own parts than a tensor's.

    Tuples that each hold the last one twice are hashed in 2ⁿ steps; nothing can interrupt that.
    """
    references = 0
    for step, (code, _, _) in enumerate(pickletools.genops(file)):
        references += code.name in _PICKLE_REFERENCES
        if step >= _MAX_PICKLE_STEPS or references > _MAX_PICKLE_REFERENCES:
            raise UsageError(f"{path} holds more than a bare (K, C) tensor; save that alone")


def _load_npy(path: Path) -> npt.NDArray[Any]:
    with path.open("rb") as file:
        shape, is_fortran, dtype = _read_npy_header(file, path)
        data = file.read()
    try:
        return np.frombuffer(data, dtype).reshape(shape, order="F" if is_fortran else "C")
    except ValueError as error:
        raise UsageError(f"{path} does not hold an array {dtype} {shape}: {error}") from error


def _read_npy_header(stream: Any, path: Path) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Read shape, Fortran order and dtype of a ``.npy`` from its beginning; never more of it.

    Raises:
        UsageError: it is none.
    """
    try:
        if np.lib.format.read_magic(stream) != (1, 0):
            raise ValueError("it is not of .npy version 1.0")
        return np.lib.format.read_array_header_1_0(stream)
    except _NPY_ERRORS as error:
        raise UsageError(f"{path} holds no .npy that can be read: {_line(error)}") from error


def _load_safetensors(path: Path) -> npt.NDArray[Any]:
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        tensors = load(path.read_bytes())
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{path} is no safetensors file that can be read: {error}") from error
    if "codebook" not in tensors:
        raise UsageError(f"{path} holds no tensor 'codebook' but {', '.join(tensors) or 'none'}")
    return tensors["codebook"]


def _checked_codebook(codebook_KC: npt.NDArray[Any], path: Path) -> npt.NDArray[np.float32]:
    shape = codebook_KC.shape
    if codebook_KC.dtype.newbyteorder("=") != np.float32 or len(shape) != 2:
        raise UsageError(
            f"{path} holds {codebook_KC.dtype} {shape} where a codebook is float32 (K, C)"
        )
    if shape[0] < 2 or not 1 <= shape[1] <= 1 << 16 or 4 * shape[0] * shape[1] > MAX_CODEBOOK_BYTES:
        raise UsageError(f"{path} holds a codebook {shape}: too few or too many codes")
    codebook_KC = np.array(codebook_KC, dtype=np.float32, order="C")
    if not np.isfinite(codebook_KC).all():
        raise UsageError(f"{path} holds a codebook with values that are not finite")
    return codebook_KC


def import_official(
    splits: Sequence[OfficialSplit],
    codebook: Path,
    store: Path,
    *,
    grid: tuple[int, int] = (32, 32),
    classes: tuple[str, ...] | None = None,
    progress: Progress | None = None,
) -> Card:
    """Write a store of ``splits`` at ``store``, a new or empty folder; return its card.

    Files are unfolded block by block, so memory does not grow with them. Their format has no
    keys and no class names: sample 7 of ``train`` is ``train/00000007``, and without ``classes``
    label 3 is class ``3``. After an error nothing is left in ``store``.

    Args:
        splits: what to import; `find_official` lists the splits of a folder.
        codebook: what `read_codebook` reads.
        store: the folder.
        grid: (H, W) of every sample.
        classes: class names that the labels index.
        progress: called after each block.

    Raises:
        UsageError: wrong input, or files that do not belong together.
        DamagedError: a file is not what was written.
        SeitError: a file cannot be read or written.
    """
    _check_splits(splits)
    _check_file(codebook)
    codebook_KC = read_codebook(codebook)
    layout = _checked_layout(grid, len(codebook_KC))
    counts = {split.name: _count_samples(split.index) for split in splits}
    labels = {split.name: _read_labels(split, counts[split.name], classes) for split in splits}
    if classes is None:
        highest = max((int(column.max(initial=-1)) for column in labels.values()), default=-1)
        classes = tuple(map(str, range(highest + 1)))
    total = sum(counts.values())
    done = 0

    def advance(samples: int) -> None:
        nonlocal done
        done += samples
        if progress:
            progress(done, total)

    with _new_store(store, splits):
        records = {
            split.name: _import_split(split, labels[split.name], store, layout, advance)
            for split in splits
        }
        card = Card(
            tokenizer=_describe_tokenizer(codebook_KC, grid),
            codec=PackedCodec.name,
            container="wds",
            block_samples=_block_samples(layout),
            classes=classes,
            splits=records,
            files=_write_files(store, codebook_KC),
            skipped=0,
            source_bytes=sum(
                path.stat().st_size
                for path in (codebook, *(path for split in splits for path in split.files))
            ),
            quality={},
            job={
                "imported_from": "naver-ai/seit files",
                "codebook": _printable_name(codebook),
                "splits": {split.name: [*map(_printable_name, split.files)] for split in splits},
            },
        )
        card.write(store)
    return card


def _printable_name(path: Path) -> str:
    """The name of a file as text that has a UTF-8 form, which not every name has."""
    return os.fsencode(path.name).decode(errors="replace")


def _check_splits(splits: Sequence[OfficialSplit]) -> None:
    if not splits:
        raise UsageError("there is no split to import; name one at least")
    names = [split.name for split in splits]
    for name in names:
        _check_split_name(name)
        if names.count(name) > 1:
            raise UsageError(f"the split {name!r} is named twice; give each another name")
    for split in splits:
        for path in split.files:
            _check_file(path)


def _check_split_name(name: str) -> None:
    if not _SPLIT_NAME.fullmatch(name):
        raise UsageError(
            f"{name!r} cannot name a split's files; take letters, digits, '_', '-' and '.'"
        )


def _check_file(path: Path) -> None:
    if not path.is_file():
        raise UsageError(f"there is no file {path}")


def _checked_layout(grid: tuple[int, int], num_codes: int) -> TokenLayout:
    layout = TokenLayout(grid=grid, num_codes=num_codes)
    if not all(1 <= side <= MAX_GRID_SIDE for side in grid) or layout.length > MAX_BLOCK_TOKENS:
        raise UsageError(f"a grid of {grid[0]} x {grid[1]} is outside 1 to {MAX_GRID_SIDE} a side")
    return layout


def _block_samples(layout: TokenLayout) -> int:
    return max(1, min(BLOCK_SAMPLES, _PIECE_TOKENS // layout.length))


def _read_labels(
    split: OfficialSplit, count: int, classes: tuple[str, ...] | None
) -> npt.NDArray[np.int32]:
    """Labels int32 (``count``,), or (0,) when the split has no file of them."""
    if split.labels is None:
        return np.empty(0, dtype=np.int32)
    labels = array("i")
    limit = MAX_UNNAMED_CLASSES if classes is None else len(classes)
    with _explained_reads(split.labels), split.labels.open("rb") as file:
        for line in iter(lambda: file.readline(_LABEL_LINE_BYTES), b""):
            match = _LABEL.fullmatch(line)
            where = f"{split.labels}, line {len(labels) + 1}"
            if not match:
                raise UsageError(f"{where} is {line!r} where a label, an integer, belongs")
            label = int(match[1])
            if not -1 <= label < limit:
                raise UsageError(
                    f"{where}: label {label} is outside -1 (none) to {limit - 1}; name the "
                    "classes, or give the labels that belong to them"
                )
            if len(labels) == count:
                raise UsageError(
                    f"{split.labels} holds more labels than the {count} samples of {split.index}"
                )
            labels.append(label)
    if len(labels) != count:
        raise UsageError(
            f"{split.labels} holds {len(labels)} labels where {split.index} names {count} samples"
        )
    return np.array(labels, dtype=np.int32)


class _Unfolded:
    """A gzip file that is read forwards; no more of it is unfolded than was asked for."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> "_Unfolded":
        with _explained_reads(self.path):
            self._file = gzip.open(self.path, "rb")
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def read(self, num_bytes: int) -> bytes:
        """The next ``num_bytes``.

        Raises:
            DamagedError: there are fewer, or the file is no intact gzip.
        """
        data = self._read(num_bytes)
        if len(data) != num_bytes:
            raise DamagedError(
                f"{self.path} ends where {num_bytes - len(data)} more bytes belong; copy it again"
            )
        return data

    def expect_end(self) -> None:
        """Refuse bytes behind those read.

        Raises:
            DamagedError: there are some.
        """
        if self._read(1):
            raise DamagedError(f"{self.path} goes on behind its last sample; copy it again")

    def _read(self, num_bytes: int) -> bytes:
        with _explained_reads(self.path):
            return self._file.read(num_bytes)


@contextmanager
def _explained_reads(path: Path) -> Iterator[None]:
    """Turn the errors of reading and unfolding ``path`` into a ``SeitError``."""
    try:
        yield
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DamagedError(f"{path} is no intact gzip ({_line(error)}); copy it again") from error
    except OSError as error:
        raise SeitError(f"{path} could not be read: {error.strerror or error}") from error


def _line(error: BaseException) -> str:
    """The message of an error in one line."""
    return " ".join(str(error).split()) or type(error).__name__


def _count_samples(path: Path) -> int:
    with _Unfolded(path) as index:
        return _read_index_header(index)[0]


def _read_index_header(index: _Unfolded) -> tuple[int, np.dtype[Any]]:
    """The number of samples of an index and the dtype of its offsets, read from its beginning."""
    shape, _, dtype = _read_npy_header(index, index.path)
    if dtype.kind not in "iu" or len(shape) != 1 or shape[0] < 1:
        raise UsageError(
            f"{index.path} holds {dtype} {shape} where offsets, one integer a sample and one for "
            "the end, belong"
        )
    return shape[0] - 1, dtype


def _decoded_blocks(
    split: OfficialSplit, layout: TokenLayout
) -> Generator[npt.NDArray[np.unsignedinteger], None, None]:
    """The ids (n, H, W) of a split, block by block; ends only if its files end there too."""
    step = _block_samples(layout)
    with _Unfolded(split.index) as index, _Unfolded(split.data) as data:
        count, dtype = _read_index_header(index)
        end = np.frombuffer(index.read(dtype.itemsize), dtype=dtype).astype(np.int64)
        if end[0] != 0:
            raise DamagedError(f"{split.index} begins with the offset {end[0]}, not with 0")
        for first in range(0, count, step):
            raw = index.read(dtype.itemsize * min(step, count - first))
            offsets = np.concatenate([end, np.frombuffer(raw, dtype=dtype).astype(np.int64)])
            end = offsets[-1:]
            yield _decode_block(split, data, offsets - offsets[0], layout, first_sample=first)
        index.expect_end()
        data.expect_end()


def _decode_block(
    split: OfficialSplit,
    data: _Unfolded,
    offsets: npt.NDArray[np.int64],
    layout: TokenLayout,
    *,
    first_sample: int,
) -> npt.NDArray[np.unsignedinteger]:
    with _named_damage(split.index):
        _check_offsets(offsets, layout.length, first_sample)
    raw = np.frombuffer(data.read(int(offsets[-1])), dtype=np.uint8)
    with _named_damage(split.data):
        tokens_NL = decode_escaped(raw, offsets, layout.length, first_sample=first_sample)
        largest = int(tokens_NL.max())
        if largest >= layout.num_codes:
            row = int(np.argmax(tokens_NL.max(axis=1)))
            raise DamagedError(
                f"sample {first_sample + row} holds token id {largest} where the codebook has "
                f"{layout.num_codes} codes; give the codebook of these tokens"
            )
    return tokens_NL.reshape(-1, *layout.grid).astype(layout.dtype, copy=False)


@contextmanager
def _named_damage(path: Path) -> Iterator[None]:
    """Say in a ``DamagedError`` that it is about ``path``."""
    try:
        yield
    except DamagedError as error:
        raise DamagedError(f"{path}: {error}") from error


def _import_split(
    split: OfficialSplit,
    labels: npt.NDArray[np.int32],
    store: Path,
    layout: TokenLayout,
    advance: Callable[[int], None],
) -> tuple[ShardRecord, ...]:
    """Write the shards of a split, of `SHARD_BLOCKS` blocks each."""
    records = []
    first = 0
    with closing(_decoded_blocks(split, layout)) as blocks:
        numbered = groupby(enumerate(blocks), key=lambda entry: entry[0] // SHARD_BLOCKS)
        for index, group in numbered:
            with ShardWriter(
                store, split=split.name, index=index, codec=PackedCodec(layout)
            ) as writer:
                for _, tokens_NHW in group:
                    end = first + len(tokens_NHW)
                    unlabelled = np.full(len(tokens_NHW), -1, dtype=np.int32)
                    writer.write(
                        Block(
                            tokens=tokens_NHW,
                            labels=labels[first:end] if split.labels else unlabelled,
                            keys=tuple(f"{split.name}/{row:08d}" for row in range(first, end)),
                        )
                    )
                    first = end
                    advance(len(tokens_NHW))
            records.append(writer.record)
    return tuple(records)


def _describe_tokenizer(
    codebook_KC: npt.NDArray[np.float32], grid: tuple[int, int]
) -> TokenizerInfo:
    num_codes, dim = codebook_KC.shape
    digest = hashlib.sha256(f"codebook of naver-ai/seit files {num_codes} {dim}\n".encode())
    digest.update(codebook_KC.astype("<f4").tobytes())
    return TokenizerInfo(
        name="seit-vitvqgan" if (num_codes, dim) == (391, 32) else "official",
        fingerprint=digest.hexdigest(),
        modality="image",
        preprocessing={},
        grid=grid,
        codebook_size=num_codes,
        codebook_dim=dim,
        flip_equivariant=False,
    )


def _write_files(store: Path, codebook_KC: npt.NDArray[np.float32]) -> tuple[FileRecord, ...]:
    from safetensors.numpy import save

    files = {CODEBOOK_NAME: save({"codebook": codebook_KC}), SKIPPED_NAME: b""}
    for name, data in files.items():
        write_atomically(store / name, data)
    return tuple(
        FileRecord(name, len(data), hashlib.sha256(data).hexdigest())
        for name, data in files.items()
    )


@contextmanager
def _new_store(store: Path, splits: Sequence[OfficialSplit]) -> Iterator[None]:
    """Make the folder of a store, and leave nothing in it after an error."""
    with _made_folder(store):
        if any(store.iterdir()):
            raise UsageError(f"{store} is not empty; choose a new or empty folder")
        try:
            yield
        except BaseException:
            for name in (CARD_NAME, CODEBOOK_NAME, SKIPPED_NAME):
                (store / name).unlink(missing_ok=True)
            for split in splits:
                shutil.rmtree(store / split.name, ignore_errors=True)
            raise


@contextmanager
def _made_folder(folder: Path) -> Iterator[None]:
    """Make a folder if there is none; an error then removes it, if it is empty."""
    is_new = not folder.exists()
    with explained_writes(folder):
        folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        if is_new:
            with suppress(OSError):
                folder.rmdir()
        raise


def export_official(
    store: Store, folder: Path, *, progress: Progress | None = None
) -> dict[str, int]:
    """Write all splits of a store as files that `find_official` finds; return the bytes of each.

    The format has no place for keys, metadata, class names and the grid's shape: they are lost.
    An unlabelled sample has the label −1. Equal stores give equal files. After an error no file
    is left in ``folder``, which is made if there is none.

    Args:
        store: the store; its ids must be below `ID_LIMIT`.
        folder: where the files go.
        progress: called after each block.

    Raises:
        UsageError: an id is too large, or a file exists already; nothing was written.
        DamagedError: the store is damaged.
        SeitError: a file cannot be written.
    """
    if store.card.layout.dtype != np.uint16:
        raise UsageError(
            "the store has ids of more than 16 bits; in the files of naver-ai/seit they are below "
            f"{ID_LIMIT}: tokenize with at most {ID_LIMIT} codes"
        )
    for name in store:
        _check_split_name(name)
    names = [
        *(name + suffix for name in store for suffix in (DATA_SUFFIX, INDEX_SUFFIX, LABEL_SUFFIX)),
        CODEBOOK_FILE,
    ]
    total = sum(len(split) for split in store.values())
    done = 0
    with _made_folder(folder), _all_or_none([folder / name for name in names]) as partials:
        for number, name in enumerate(store):
            paths = partials[3 * number : 3 * number + 3]
            with closing(_export_split(store, name, *paths)) as blocks:
                for samples in blocks:
                    done += samples
                    if progress:
                        progress(done, total)
        with explained_writes(folder), _flushed(partials[-1]) as file:
            file.write(_torch_bytes(store.codebook))
    return {name: (folder / name).stat().st_size for name in names}


def _export_split(
    store: Store, name: str, data: Path, index: Path, labels: Path
) -> Generator[int, None, None]:
    """Write the files of a split; yield the number of samples after each block."""
    split = store[name]
    length = split.layout.length
    step = max(1, _PIECE_TOKENS // length)
    end = 0
    with (
        explained_writes(data.parent),
        _flushed(labels) as label_file,
        _flushed(data) as data_file,
        _folded(data_file) as token_bytes,
        _flushed(index) as index_file,
        _folded(index_file) as offset_bytes,
    ):
        header = {"descr": "<i8", "fortran_order": False, "shape": (len(split) + 1,)}
        np.lib.format.write_array_header_1_0(offset_bytes, header)
        offset_bytes.write(bytes(8))
        for shard, block in split.blocks():
            tokens_NL = shard.open_block(block, Kind.TOKENS).reshape(-1, length)
            for row in range(0, len(tokens_NL), step):
                coded, offsets = encode_escaped(tokens_NL[row : row + step])
                token_bytes.write(coded.tobytes())
                offset_bytes.write((offsets[1:] + end).astype("<i8").tobytes())
                end += len(coded)
            labels_N = shard.open_block(block, Kind.LABELS)
            if not -1 <= labels_N.min() <= labels_N.max() < len(store.classes):
                raise DamagedError(
                    f"split {name!r} holds labels from {labels_N.min()} to {labels_N.max()} where "
                    f"the card names {len(store.classes)} classes"
                )
            label_file.write("".join(f"{label}\n" for label in labels_N.tolist()).encode())
            yield len(tokens_NL)


def _torch_bytes(codebook_KC: npt.NDArray[np.float32]) -> bytes:
    """A ``codebook.ckpt``: the tensor (K, C) as torch saves it."""
    import torch

    buffer = io.BytesIO()
    torch.save(torch.from_numpy(codebook_KC.copy()), buffer)
    return buffer.getvalue()


def _folded(file: BinaryIO) -> gzip.GzipFile:
    """Gzip what is written to ``file``, without a name or a time, so that equal stays equal."""
    return gzip.GzipFile("", "wb", _GZIP_LEVEL, file, mtime=0)


@contextmanager
def _flushed(path: Path) -> Iterator[BinaryIO]:
    """Write a file and flush it to the disk at the end."""
    with path.open("wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def _all_or_none(paths: Sequence[Path]) -> Iterator[list[Path]]:
    """Yield a temporary name for each new file, and publish all at a clean end.

    Raises:
        UsageError: one of them exists already.
    """
    partials = [path.with_name(path.name + PARTIAL_SUFFIX) for path in paths]
    for path in paths:
        check_new_file(path)
    published: list[Path] = []
    try:
        yield partials
        for partial, path in zip(partials, paths, strict=True):
            with explained_writes(path):
                publish(partial, path)
            published.append(path)
    except BaseException:
        for path in (*partials, *published):
            path.unlink(missing_ok=True)
        raise
