"""The ledger: every byte that a continual learner keeps, and for what."""

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
        exemplar_label_bytes: their labels.
        exemplar_extra_bytes: what a method keeps with each, such as logits.
        codebook_bytes: without which ids say nothing.
        tokenizer_bytes: needed to classify a picture that is no store's, and to replay pictures;
            not to train from tokens.
        replays_pictures: whether exemplars are pictures, so that training needs the tokenizer too.
        online_pet_bytes: the tuning modules that are trained.
        offline_pet_bytes: their running averages, for as many as there are.
        head_bytes: the classifier of all classes met.
        state_bytes: what else a method remembers: prototypes, Gram matrices, random projections …
        optimizer_bytes: moments while a task is trained; each task begins with new ones.
        backbone_bytes: frozen, and the same for every method.
        trainable_parameters: how many numbers a step may change.
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
        """All of the exemplars."""
        return self.exemplar_payload_bytes + self.exemplar_label_bytes + self.exemplar_extra_bytes

    @property
    def total_memory_bytes(self) -> int:
        """What is kept from one task to the next besides the backbone.

        The tokenizer counts where training needs it; the optimiser's moments are not kept.
        """
        kept = self.exemplar_bytes + self.codebook_bytes + self.state_bytes + self.head_bytes
        tokenizer = self.tokenizer_bytes if self.replays_pictures else 0
        return kept + tokenizer + self.online_pet_bytes + self.offline_pet_bytes

    def describe(self) -> dict[str, int]:
        """Everything by name, the sums included, as JSON."""
        entries = {name: int(value) for name, value in asdict(self).items()}
        return {
            **entries,
            "exemplar_bytes": self.exemplar_bytes,
            "total_memory_bytes": self.total_memory_bytes,
        }


def tensor_bytes(tensors: Any) -> int:
    """Bytes of all tensors and arrays in a mapping or sequence, however nested.

    What shares its memory with another (tied weights) counts once, a view for what it shows. So a
    state dict, ``parameters()`` as a list, or an optimiser's state can be passed.
    """
    return sum(_sizes(tensors, {}).values())


def count_trainable(module: nn.Module) -> int:
    """Parameters of a module that ask for gradients."""
    return sum(weight.numel() for weight in module.parameters() if weight.requires_grad)


def _sizes(found: Any, sizes: dict[Any, int]) -> dict[Any, int]:
    """Bytes by where they lie."""
    if isinstance(found, Tensor):
        num_bytes = found.numel() * found.element_size()
        # Tensors without memory of their own (meta, empty) lie nowhere: each is another.
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
