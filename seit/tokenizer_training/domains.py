"""Differences between training on images and on audio: batches, tokenizer kind, figures."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from seit.ingest import FIT_INPUTS, Instance
from seit.tensors import read_tensors, write_tensors
from seit.tokenizer_training.batches import Batches
from seit.tokenizer_training.config import TokenizerConfig
from seit.tokenizer_training.crops import Crops
from seit.tokenizer_training.evaluate import measure_instances, sample_pictures
from seit.tokenizer_training.windows import Windows, sample_windows
from seit.tokenizers import (
    Autoencoder,
    Bound,
    ConvTokenizer,
    LearnedTokenizer,
    MelConfig,
    MelConvTokenizer,
    MelFrontEnd,
    measure_quality,
)
from seit.training import FRONT_END_NAME


class Domain(Protocol):
    """Images or audio."""

    batches: Batches

    def tokenizer(self, codebook: Tensor, network: Autoencoder, bound: Bound) -> LearnedTokenizer:
        """Return the trained tokenizer, its codes sorted by use."""
        ...

    def measure(self, tokenizer: LearnedTokenizer, held_out: Sequence[Instance]) -> dict[str, Any]:
        """Return the tokenizer's figures on instances."""
        ...


class ImageDomain:
    """Crops of images → `conv-vq`."""

    def __init__(self, instances: Sequence[Instance], config: TokenizerConfig) -> None:
        self._instances = instances
        self._config = config
        self.batches: Batches = Crops(instances, config)

    def tokenizer(self, codebook: Tensor, network: Autoencoder, bound: Bound) -> LearnedTokenizer:
        """See :class:`Domain`."""
        config = self._config
        made = ConvTokenizer(codebook, network, image_size=config.size, bound=bound)
        return made.sorted_by_use(
            sample_pictures(self._instances, size=config.size, count=config.eval_images)
        )

    def measure(self, tokenizer: LearnedTokenizer, held_out: Sequence[Instance]) -> dict[str, Any]:
        """See :class:`Domain`."""
        assert isinstance(tokenizer, ConvTokenizer)
        return asdict(measure_instances(tokenizer, held_out, count=self._config.eval_images))


class AudioDomain:
    """Windows of clips → `mel-conv`.

    The front end is fitted on a sample of the clips and saved in the run folder.
    """

    def __init__(
        self,
        instances: Sequence[Instance],
        config: TokenizerConfig,
        mel: MelConfig,
        folder: Path,
    ) -> None:
        self._instances = instances
        self._config = config
        self._mel = mel
        path = folder / FRONT_END_NAME
        if path.exists():
            self._front_end = MelFrontEnd.restore(read_tensors(path), mel.to_json())
        else:
            self._front_end = MelFrontEnd.fit(mel, self._sample(instances, FIT_INPUTS))
            write_tensors(path, self._front_end.tensors())
        self.batches: Batches = Windows(instances, config, self._front_end)

    def tokenizer(self, codebook: Tensor, network: Autoencoder, bound: Bound) -> LearnedTokenizer:
        """See :class:`Domain`."""
        made = MelConvTokenizer(codebook, network, front_end=self._front_end, bound=bound)
        return made.sorted_by_use(self._sample(self._instances, self._config.eval_images))

    def measure(self, tokenizer: LearnedTokenizer, held_out: Sequence[Instance]) -> dict[str, Any]:
        """See :class:`Domain`."""
        assert isinstance(tokenizer, MelConvTokenizer)
        with torch.inference_mode():
            waves = self._sample(held_out, self._config.eval_images)
            return asdict(measure_quality(tokenizer, waves))

    def _sample(self, instances: Sequence[Instance], count: int) -> Tensor:
        return sample_windows(instances, self._mel, count=count)


def make_domain(instances: Sequence[Instance], config: TokenizerConfig, folder: Path) -> Domain:
    """Create the domain of a config; that of audio saves its front end in ``folder``.

    Raises:
        SeitError: nothing is readable.
        DamagedError: the front end is not as written.
    """
    mel = config.mel
    if mel is None:
        return ImageDomain(instances, config)
    return AudioDomain(instances, config, mel, folder)
