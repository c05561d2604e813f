"""Actors that only encode, so that those which decode can be on other machines than the GPUs."""

import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from importlib import import_module
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from seit.devices import choose_device
from seit.ingest.config import TokenizeConfig
from seit.ingest.encoder import BatchEncoder, Encoder
from seit.ingest.engines.base import Plant
from seit.tokenizers import Tokenizer

_T = TypeVar("_T")
_IN_FLIGHT = 2
"""Batches of one maker that an encoder may hold: one that it works on, and one that is coming."""


class EncoderActor:
    """Actor that encodes batches of any piece."""

    def __init__(self, plant: Plant[Any, Any], config: TokenizeConfig) -> None:
        tokenizer = plant.load_tokenizer(config).to(choose_device(config.device))
        self._stack = ExitStack()
        encoder = BatchEncoder(tokenizer, workers=1, compiled=config.compile)
        self._encoder = self._stack.enter_context(encoder)

    def device(self) -> str:
        """Return the name of the device."""
        return self._encoder.device

    def run(self, batch: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
        """Return the ids int64 (B, H, W) of a batch."""
        return self._encoder.run(np.array(batch))  # Ray's arrays are read-only


class RemoteEncoder:
    """Encoder whose batches go to actors in turn; a maker waits when all of them are busy.

    Args:
        actors: handles of :class:`EncoderActor`.
    """

    def __init__(self, actors: Sequence[Any]) -> None:
        self._ray: Any = import_module("ray")
        self._actors = actors
        self._next = os.getpid()

    @property
    def device(self) -> str:
        """Name of the first actor's device."""
        name: str = self._ray.get(self._actors[0].device.remote())
        return name

    def encode(
        self, batches: Iterable[tuple[_T, npt.NDArray[Any]]]
    ) -> Iterator[tuple[_T, npt.NDArray[np.int64]]]:
        """Yield the payload and the ids int64 (B, H, W) of each batch, in order."""
        pending: deque[tuple[_T, Any]] = deque()
        for payload, batch in batches:
            actor = self._actors[self._next % len(self._actors)]
            self._next += 1
            pending.append((payload, actor.run.remote(batch)))
            if len(pending) >= _IN_FLIGHT * len(self._actors):
                first, ids = pending.popleft()
                yield first, self._ray.get(ids)
        for payload, ids in pending:
            yield payload, self._ray.get(ids)


def start_encoders(plant: Plant[Any, Any], config: TokenizeConfig, *, uses_gpu: bool) -> list[Any]:
    """Start the actors that only encode; Ray restarts those that die and repeats their batches."""
    ray: Any = import_module("ray")
    actor = ray.remote(EncoderActor).options(
        num_cpus=1,
        num_gpus=1 if uses_gpu else 0,
        max_restarts=-1,
        max_task_retries=-1,
        max_concurrency=_IN_FLIGHT,
    )
    return [actor.remote(plant, config) for _ in range(config.ray_encoders)]


def encoder_of_actor(
    tokenizer: Tokenizer, config: TokenizeConfig, encoders: Sequence[Any], stack: ExitStack
) -> Encoder:
    """Return the encoder of a maker in an actor: its own, or ``encoders`` if there are any."""
    if encoders:
        return RemoteEncoder(encoders)
    workers = max(config.ray_cpus, 1)
    own = BatchEncoder(tokenizer, workers=workers, compiled=config.compile)
    return stack.enter_context(own)
