"""Splits with context-coded tokens, decoded on a CUDA device.

Legend: n samples of a block, H W grid.
"""

from functools import cached_property
from threading import local

import numpy as np
import numpy.typing as npt
import torch

from seit.devices import triton_serves
from seit.shards import Codec, Coder, ContextCodec, ContextTables, Split, TokenLayout
from seit.stream.kernels import ContextDecoder


def decode_on(split: Split, device: torch.device) -> Split:
    """Return the split, decoded on ``device`` if that is faster than on the CPU.

    It is for context-coded tokens on CUDA devices with Triton; if Triton is missing the log says so
    once. Other splits are returned unchanged.
    """
    if split.store.card.codec != ContextCodec.name or not triton_serves(device):
        return split
    return _DeviceSplit(split, device)


class _DeviceSplit(Split):
    """Return a split with blocks decoded on the device."""

    def __init__(self, split: Split, device: torch.device) -> None:
        self._device = device
        super().__init__(split.store, split.name)

    def _find_codec(self) -> Codec:
        return self._codec

    @cached_property
    def _codec(self) -> Codec:
        codec = self.store.codec
        tables = ContextTables.from_bytes(codec.tables or b"", codec.layout.num_codes)
        return DeviceContextCodec(codec.layout, tables, self._device)


class DeviceContextCodec(ContextCodec):
    """The codec `context`, with streams decoded on ``device``."""

    def __init__(self, layout: TokenLayout, tables: ContextTables, device: torch.device) -> None:
        super().__init__(layout, tables)
        self._device_coder = _DeviceCoder(tables, device)

    @cached_property
    def _coder(self) -> Coder:
        return self._device_coder


class _DeviceCoder(Coder):
    """A coder that decodes with :class:`~seit.stream.kernels.ContextDecoder`.

    Threads decode blocks concurrently, each on its own CUDA stream: a single block has too few
    samples to fill a device.
    """

    def __init__(self, tables: ContextTables, device: torch.device) -> None:
        super().__init__(tables)
        self._device = device
        self._decoder = ContextDecoder(tables, device=device)
        self._streams = local()
        if device.type == "cuda":
            torch.cuda.synchronize(device)  # other streams need complete tables

    def decode(
        self,
        words: npt.NDArray[np.uint16],
        bounds: npt.NDArray[np.int64],
        grid: tuple[int, int],
    ) -> tuple[npt.NDArray[np.uint16], npt.NDArray[np.bool_]]:
        """Return ids uint16 (n, H, W) and bool (n,), True for complete streams, on the host."""
        with torch.cuda.stream(self._stream()):
            ids, whole = self._decoder.decode(
                torch.from_numpy(words.view(np.int16).copy()), torch.from_numpy(bounds), grid
            )
            return ids.cpu().numpy().view(np.uint16), whole.cpu().numpy()

    def _stream(self) -> torch.cuda.Stream | None:
        """Return the calling thread's stream; None on a CPU."""
        if self._device.type != "cuda":
            return None
        if not hasattr(self._streams, "stream"):
            self._streams.stream = torch.cuda.Stream(self._device)
        stream: torch.cuda.Stream = self._streams.stream
        return stream
