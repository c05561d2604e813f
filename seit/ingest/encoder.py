"""Ordered, multi-threaded encoding of batches into ids, overlapping with input reading.

A single CPU thread encodes each batch, so that ids do not depend on the number of cores; several
batches are encoded in parallel. On a GPU, host-device copies overlap with computation.
"""

import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
import torch

from seit.errors import SeitError
from seit.lookahead import results_ahead
from seit.tokenizers import Tokenizer

_T = TypeVar("_T")
_GPU_THREADS = 2
_WAITING_BYTES = 512 << 20
"""Memory limit of queued and running batches; a single larger batch is still accepted."""


class Encoder(Protocol):
    """Encoder of batches, here or in actors."""

    @property
    def device(self) -> str:
        """Name of the device that rounds."""

    def encode(
        self, batches: Iterable[tuple[_T, npt.NDArray[Any]]]
    ) -> Iterator[tuple[_T, npt.NDArray[np.int64]]]:
        """Yield the payload and the ids int64 (B, H, W) of each batch, in order."""


class BatchEncoder:
    """Context manager that runs a tokenizer over batches."""

    def __init__(
        self, tokenizer: Tokenizer, *, workers: int | None = None, compiled: bool = False
    ) -> None:
        """Encode up to ``workers`` batches in parallel on a CPU; None for one per core."""
        self._device = tokenizer.codebook.device
        is_cpu = self._device.type == "cpu"
        self._workers = (workers or os.cpu_count() or 1) if is_cpu else _GPU_THREADS
        self._compiled = compiled
        self._encode: Any = tokenizer.encode
        if compiled:
            self._encode = torch.compile(tokenizer.encode, dynamic=False)

    @property
    def device(self) -> str:
        """Name of the device: cpu, or that of the GPU."""
        if self._device.type != "cuda":
            return self._device.type
        return torch.cuda.get_device_name(self._device)

    def __enter__(self) -> "BatchEncoder":
        self._threads_before = torch.get_num_threads()
        if self._device.type == "cpu":
            torch.set_num_threads(1)
        self._pool = ThreadPoolExecutor(self._workers, thread_name_prefix="encode")
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)
        torch.set_num_threads(self._threads_before)

    def encode(
        self, batches: Iterable[tuple[_T, npt.NDArray[Any]]]
    ) -> Iterator[tuple[_T, npt.NDArray[np.int64]]]:
        """Yield the payload and the ids int64 (B, H, W) of each batch, in order.

        Raises:
            SeitError: the tokenizer cannot be compiled on this machine.
        """
        return results_ahead(
            lambda entry: self._pool.submit(lambda: (entry[0], self.run(entry[1]))),
            batches,
            held=lambda entry: min(self._workers, _WAITING_BYTES // max(1, entry[1].nbytes)),
        )

    def run(self, batch: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
        """Return the ids int64 (B, H, W) of one batch; thread-safe.

        Raises:
            SeitError: the tokenizer cannot be compiled on this machine.
        """
        inputs = torch.from_numpy(batch)
        if self._device.type == "cuda":
            inputs = inputs.pin_memory().to(self._device, non_blocking=True)
        try:
            with torch.inference_mode():
                ids: npt.NDArray[np.int64] = self._encode(inputs).cpu().numpy()
        except Exception as error:
            if not self._compiled:
                raise
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise SeitError(
                f"the compiled tokenizer fails ({reason[:200]}); run without --compile"
            ) from error
        return ids
