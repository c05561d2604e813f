"""A finished run as a subject, on the tokens of a split.

Legend: B batch, C channels of the input, h w grid of a layer, D features.
"""

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from typing_extensions import override

from seit.analysis.subjects.base import Clip, Place, Subject
from seit.errors import UsageError
from seit.models import TOKENS, captured, timm_layers
from seit.shards import Store, split_key
from seit.stream import ResidentLoader, loader
from seit.tokenizers import AudioInputs
from seit.training import (
    Run,
    check_tokens,
    load_backbone,
    make_augment,
    random_backbone,
)


class RunSubject(Subject):
    """A run's backbone, or a backbone of its settings with random weights.

    Audio keeps the columns of a grid as frames, with the features of its rows side by side; an
    image is one frame, the mean over its patches.

    Args:
        run: a finished run of `seit train`, `tune` or `pretrain`.
        store: a store of its tokenizer.
        split: the split to read.
        device: device of the network.
        seed: seed of random weights; None for those of the run.

    Raises:
        UsageError: the run has not finished, takes pixels, is a continual one, or belongs to
            another tokenizer; or the store lacks the split.
    """

    batch_size = 64

    def __init__(
        self, run: Run, store: Store, split: str, *, device: torch.device, seed: int | None = None
    ) -> None:
        settings = run.settings if run.kind.one_network else run.config  # raises for such runs
        if settings.data.pixels is not None:
            raise UsageError(
                f"the run {run.path} was trained on pixels; analyze takes runs on tokens"
            )
        check_tokens(run, store)
        self.run, self.store, self.split, self.device = run, store, store[split], device
        self.name = run.path.name if seed is None else f"{run.path.name} (random weights)"
        self.classes = store.classes
        self._augment = make_augment(store, settings, device, with_train=False)
        self.model = self._network(seed).eval()
        self._layers = timm_layers(self.model)
        self.layers = (TOKENS, *self._layers.names)
        inputs = run.load_tokenizer().inputs
        self._window = (
            inputs.window / inputs.sample_rate if isinstance(inputs, AudioInputs) else 0.0
        )
        columns = store.card.tokenizer.grid[1]
        self._share = self._augment.output_size[1] / columns  # of a window, cropped at its center

    def _network(self, seed: int | None) -> nn.Module:
        if seed is None:
            return load_backbone(self.run, self._augment, self.device)
        return random_backbone(self.run, self._augment, self.device, seed=seed)

    @cached_property
    def places(self) -> Sequence[Place]:
        """Samples of the split."""
        found, modality = [], self.store.card.tokenizer.modality
        for key, label in zip(self.split.keys, self.split.labels.tolist(), strict=True):
            file, number = split_key(key, modality)
            start = (number + (1 - self._share) / 2) * self._window
            found.append(Place(key, file, int(label), start, self._share * self._window))
        return found

    @override
    def fingerprint(self) -> str:
        """Return the seal of the store."""
        seal: str = self.store.card.seal
        return seal

    @override
    def random_twin(self, seed: int) -> "RunSubject":
        return RunSubject(self.run, self.store, self.split.name, device=self.device, seed=seed)

    @override
    def clips(self, rows: Sequence[int] | None = None) -> Iterator[Clip]:
        batches = loader(
            self.split,
            batch_size=self.batch_size,
            device=self.device,
            shuffle=False,
            subset=None if rows is None else np.asarray(rows, dtype=np.int64),
        )
        for batch in batches.epoch(0):
            grids = {name: self._frames(grid) for name, grid in self._read(batch.tokens).items()}
            tokens = batch.tokens.cpu().numpy().astype(np.int64)
            for place, row in enumerate(batch.indices.tolist()):
                yield Clip(
                    row=row,
                    values={name: grid[place] for name, grid in grids.items()},
                    seconds=self._share * self._window,
                    tokens=tokens[place],
                )

    def tokens(self, row: int) -> npt.NDArray[np.int64]:
        """Return the ids (H, W) of an instance; the split is held in memory, packed."""
        ids: npt.NDArray[np.int64] = self._ids.read(np.array([row]))[0].numpy().astype(np.int64)
        return ids

    @cached_property
    def _ids(self) -> ResidentLoader:
        return ResidentLoader(self.split, batch_size=1, shuffle=False, seed=0, device="cpu")

    def _read(self, tokens: Tensor) -> dict[str, Tensor]:
        """Return the activations (B, h, w, D) of a batch by layer."""
        model: Any = self.model
        with torch.inference_mode():
            inputs = self._augment.evaluate(tokens).float()
            layers = self._layers
            with captured(self.model, layers.outputs, inputs=layers.inputs) as found:
                model.forward_features(inputs)
            shape = (inputs.shape[2], inputs.shape[3])
            grids = {name: layers.grid(name, found[name], shape) for name in layers.names}
        return {TOKENS: inputs.permute(0, 2, 3, 1), **grids}

    def _frames(self, grid: Tensor) -> npt.NDArray[np.float32]:
        """Return (B, w, h · D) for audio, (B, 1, D) for images."""
        columns = grid.permute(0, 2, 1, 3).flatten(2)
        frames = columns if self._window else grid.mean((1, 2))[:, None]
        values: npt.NDArray[np.float32] = frames.float().cpu().numpy()
        return values
