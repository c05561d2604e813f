"""Ledger of every byte that a continual learner keeps."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from torch import Tensor, nn

_SUFFIX = "_bytes"


@dataclass(frozen=True, kw_only=True)
class Ledger:
    """Bytes of a learner after its last task, each counted once.

    Attributes:
        exemplar_payload_bytes: stored tokens or compressed pictures.
        exemplar_label_bytes: labels of the exemplars.
        exemplar_extra_bytes: anything else stored per exemplar, e.g. logits.
        codebook_bytes: the codebook that gives ids a meaning.
        tokenizer_bytes: the tokenizer, needed to classify new pictures and to replay pictures, but
            not to train from tokens.
        replays_pictures: whether exemplars are pictures, so that training needs the tokenizer.
        online_pet_bytes: the tuning modules being trained.
        offline_pet_bytes: their running averages, if any.
        head_bytes: the classifier of all classes seen.
        state_bytes: other state of the method, e.g. prototypes, Gram matrices, random projections.
        optimizer_bytes: optimizer state during a task; reset for each task.
        backbone_bytes: the frozen backbone, the same for every method.
        trainable_parameters: number of parameters that a step may change.
    """

    exemplar_payload_bytes: int = 0
    exemplar_label_bytes: int = 0
    exemplar_extra_bytes: int = 0
    codebook_bytes: int = 0
    tokenizer_bytes: int = 0
    replays_pictures: bool = False
    online_pet_bytes: int = 0
    offline_pet_bytes: int = 0
    head_bytes: int = 0
    state_bytes: int = 0
    optimizer_bytes: int = 0
    backbone_bytes: int = 0
    trainable_parameters: int = 0

    @property
    def exemplar_bytes(self) -> int:
        """Total bytes of the exemplars."""
        return self.exemplar_payload_bytes + self.exemplar_label_bytes + self.exemplar_extra_bytes

    @property
    def total_memory_bytes(self) -> int:
        """Total bytes kept from one task to the next, apart from the backbone.

        Includes the tokenizer if training needs it; excludes the optimizer state, which is not
        kept.
        """
        kept = self.exemplar_bytes + self.codebook_bytes + self.state_bytes + self.head_bytes
        tokenizer = self.tokenizer_bytes if self.replays_pictures else 0
        return kept + tokenizer + self.online_pet_bytes + self.offline_pet_bytes

    def describe(self) -> dict[str, int]:
        """Return all entries and their sums by name, as JSON."""
        entries = {name: int(value) for name, value in asdict(self).items()}
        return {
            **entries,
            "exemplar_bytes": self.exemplar_bytes,
            "total_memory_bytes": self.total_memory_bytes,
        }


def tensor_bytes(tensors: Any) -> int:
    """Return the bytes of all tensors and arrays in a nested mapping or sequence.

    Shared memory (tied weights) counts once, and a view counts what it shows. Accepts a state dict,
    a list of ``parameters()``, or an optimizer's state.
    """
    return sum(_sizes(tensors, {}).values())


def count_trainable(module: nn.Module) -> int:
    """Return the number of parameters of a module that require gradients."""
    return sum(weight.numel() for weight in module.parameters() if weight.requires_grad)


def _sizes(found: Any, sizes: dict[Any, int]) -> dict[Any, int]:
    """Collect sizes in bytes by memory address."""
    if isinstance(found, Tensor):
        num_bytes = found.numel() * found.element_size()
        # Tensors without memory (meta, empty) have no address; count each.
        place = found.data_ptr() or id(found)
        sizes[found.device, place] = max(num_bytes, sizes.get((found.device, place), 0))
    elif isinstance(found, np.ndarray):
        place = found.__array_interface__["data"][0]
        sizes["numpy", place] = max(found.nbytes, sizes.get(("numpy", place), 0))
    elif isinstance(found, Mapping):
        for value in found.values():
            _sizes(value, sizes)
    elif isinstance(found, Sequence) and not isinstance(found, str | bytes):
        for value in found:
            _sizes(value, sizes)
    return sizes
