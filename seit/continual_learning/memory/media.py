"""Media: storage formats of exemplars, as tokens or as pictures.

The classifier sees token ids in any case: a picture is decompressed and tokenized by the store's
tokenizer. So media differ only in bytes per exemplar and in the effect of compression on the ids.
Pictures are stored resized and cropped, as the tokenizer sees them, which makes the pixel media as
small as is fair.

Legend: n exemplars, H W token grid, S side of the tokenizer's pictures in pixels, K codes.
"""

import io
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from typing_extensions import override

from seit.errors import UsageError
from seit.shards import Split, Store, pack, unpack
from seit.stream import PixelLoader

Ids = npt.NDArray[np.int16] | npt.NDArray[np.int32]
MEDIA = ("tokens", "raw", "png", "jpeg:QUALITY")
"""Names accepted by :func:`make_medium`."""
RESIDENT_BYTES = 1 << 28
"""Splits of up to 256 MiB of packed tokens are read at once; larger ones by block."""
_TOKENIZED = 64  # pictures at a time


class Medium(ABC):
    """Storage format of single samples of a split.

    Attributes:
        name: name as in :func:`make_medium`.
        fixed_bytes: size of every payload, None if it varies.
        grid: H, W.
        dtype: dtype of the ids: int16 if K ≤ 32,768, else int32.
    """

    name: str
    fixed_bytes: int | None = None

    def __init__(self, split: Split) -> None:
        self._split = split
        self.grid = split.grid
        fits = split.layout.num_codes <= 1 << 15
        self.dtype: np.dtype[Any] = np.dtype(np.int16 if fits else np.int32)

    @property
    @abstractmethod
    def needs_tokenizer(self) -> bool:
        """True if training from the memory runs the tokenizer."""

    @abstractmethod
    def encode(self, rows: npt.NDArray[np.integer]) -> list[bytes]:
        """Return the payloads of rows (n,) of the split."""

    @abstractmethod
    def decode(self, payloads: Sequence[bytes]) -> Ids:
        """Return the ids (n, H, W) of payloads; pictures may round differently in another batch."""

    def describe(self) -> dict[str, Any]:
        """Return the medium's entry of a result file."""
        return {
            "name": self.name,
            "bytes_per_payload": self.fixed_bytes,
            "needs_tokenizer": self.needs_tokenizer,
        }


class TokenMedium(Medium):
    """``tokens``: ids in ceil(log2 K) bits each, as in the `packed` codec; lossless."""

    name = "tokens"
    needs_tokenizer = False

    def __init__(self, split: Split) -> None:
        super().__init__(split)
        self._layout = split.layout
        self._rows = split.rows
        self.fixed_bytes = split.layout.sample_bytes
        is_small = len(self._rows) * self.fixed_bytes <= RESIDENT_BYTES
        self._packed = split.packed() if is_small else None

    @override
    def encode(self, rows: npt.NDArray[np.integer]) -> list[bytes]:
        if self._packed is not None:
            packed_nS = self._packed[rows]
        else:
            tokens = self._split.tokens[self._rows[rows]]
            packed_nS = pack(tokens.reshape(-1, self._layout.length), self._layout.bits)
        return [row.tobytes() for row in packed_nS]

    @override
    def decode(self, payloads: Sequence[bytes]) -> Ids:
        whole = np.frombuffer(bytearray(b"".join(payloads)), np.uint8)
        packed_nS = whole.reshape(-1, self._layout.sample_bytes)
        ids = unpack(packed_nS, length=self._layout.length, num_codes=self._layout.num_codes)
        return ids.reshape(-1, *self.grid).astype(self.dtype)


class PictureMedium(Medium):
    """Pictures uint8 (S, S, 3) of SRC, as the tokenizer sees them; subclasses compress.

    Attributes:
        bytes_per_pixel: size of payloads for each pixel, None if it varies.

    Args:
        split: split of an image store that was made from SRC.
        source: SRC.
        device: device of the tokenizer.
        root: folder that the relative paths of a table SRC start at; None for its own.

    Raises:
        UsageError: the store is not of images, or SRC lacks instances of the split.
    """

    needs_tokenizer = True
    bytes_per_pixel: int | None = None

    def __init__(
        self,
        split: Split,
        *,
        source: str | Path,
        device: str | torch.device,
        root: str | Path | None = None,
    ) -> None:
        super().__init__(split)
        if split.store.card.tokenizer.modality != "image":
            raise UsageError(f"{split.store.folder} is not of images; its medium is tokens")
        self.size = split.store.card.tokenizer.require_image_size()
        if self.bytes_per_pixel is not None:
            self.fixed_bytes = self.bytes_per_pixel * self.size**2
        self._tokenizer = split.store.load_tokenizer().to(device)
        self._device = torch.device(device)
        self._pixels = PixelLoader(
            split,
            source,
            batch_size=1,
            shuffle=False,
            seed=0,
            device="cpu",
            resident=False,
            root=root,
        )

    @abstractmethod
    def compress(self, picture: npt.NDArray[np.uint8]) -> bytes:
        """Return the payload of a picture uint8 (S, S, 3)."""

    def decompress(self, payload: bytes) -> npt.NDArray[np.uint8]:
        """Return the picture uint8 (S, S, 3) of a payload."""
        with Image.open(io.BytesIO(payload)) as image:
            return np.asarray(image.convert("RGB"))

    @override
    def encode(self, rows: npt.NDArray[np.integer]) -> list[bytes]:
        pixels = self._pixels.read(np.asarray(rows, np.int64)).permute(0, 2, 3, 1)
        return [self.compress(picture) for picture in pixels.contiguous().numpy()]

    @override
    @torch.inference_mode()
    def decode(self, payloads: Sequence[bytes]) -> Ids:
        ids = np.empty((len(payloads), *self.grid), self.dtype)
        for start in range(0, len(payloads), _TOKENIZED):
            part = payloads[start : start + _TOKENIZED]
            pictures = torch.from_numpy(np.stack([self.decompress(payload) for payload in part]))
            ids[start : start + len(part)] = self._tokenizer.encode(pictures.to(self._device)).cpu()
        return ids


class RawMedium(PictureMedium):
    """``raw``: three bytes per pixel."""

    name = "raw"
    bytes_per_pixel = 3

    @override
    def compress(self, picture: npt.NDArray[np.uint8]) -> bytes:
        return picture.tobytes()

    @override
    def decompress(self, payload: bytes) -> npt.NDArray[np.uint8]:
        return np.frombuffer(bytearray(payload), np.uint8).reshape(self.size, self.size, 3)


class PngMedium(PictureMedium):
    """``png``: lossless, with Pillow's strongest compression."""

    name = "png"

    @override
    def compress(self, picture: npt.NDArray[np.uint8]) -> bytes:
        file = io.BytesIO()
        Image.fromarray(picture).save(file, "PNG", optimize=True)
        return file.getvalue()


class JpegMedium(PictureMedium):
    """``jpeg:QUALITY``: 4:2:0 chroma, optimized Huffman tables, no metadata.

    As in "Memory Replay with Data Compression" (Wang et al., arXiv 2202.06592), but at the
    resolution of the tokenizer.
    """

    def __init__(
        self,
        split: Split,
        *,
        source: str | Path,
        device: str | torch.device,
        quality: int,
        root: str | Path | None = None,
    ) -> None:
        if not 1 <= quality <= 100:
            raise UsageError(f"the quality of a JPEG is {quality}; expected 1 to 100")
        super().__init__(split, source=source, device=device, root=root)
        self.name = f"jpeg:{quality}"
        self._quality = quality

    @override
    def compress(self, picture: npt.NDArray[np.uint8]) -> bytes:
        file = io.BytesIO()
        Image.fromarray(picture).save(
            file, "JPEG", quality=self._quality, subsampling="4:2:0", optimize=True
        )
        return file.getvalue()


def make_medium(
    name: str,
    split: Split,
    *,
    source: str | Path | None = None,
    store: Store | None = None,
    device: str | torch.device = "cpu",
    root: str | Path | None = None,
) -> Medium:
    """Return the medium of this name for samples of a training split.

    Args:
        name: ``tokens``, ``raw``, ``png``, or ``jpeg:QUALITY`` with a quality from 1 to 100.
        split: split of the samples.
        source: SRC of the store, required for media of pictures.
        store: store of the split, for a check; optional.
        device: device of the tokenizer.
        root: folder that the relative paths of a table ``source`` start at; None for its own.

    Raises:
        UsageError: the medium does not exist, or it requires a source.
    """
    assert store is None or store is split.store, "a split knows its store"
    if name == TokenMedium.name:
        return TokenMedium(split)
    kind, _, quality = name.partition(":")
    is_jpeg = kind == "jpeg" and quality.isdecimal() and len(quality) < 4
    if name not in (RawMedium.name, PngMedium.name) and not is_jpeg:
        raise UsageError(f"there is no medium {name!r}; expected one of {', '.join(MEDIA)}")
    if source is None:
        raise UsageError(f"the medium {name} stores pictures of SRC; pass the store's source")
    if is_jpeg:
        return JpegMedium(split, source=source, device=device, quality=int(quality), root=root)
    kinds = {RawMedium.name: RawMedium, PngMedium.name: PngMedium}
    return kinds[name](split, source=source, device=device, root=root)
