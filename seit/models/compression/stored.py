"""Weights of a compressed network in a file: tensors, and a card that tells how to read them."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from torch import Tensor, nn

from seit.documents import as_record
from seit.models.compression.sparse import SparseWeight
from seit.models.compression.steps import InputGrid, attach_input_steps
from seit.models.compression.structure import Structure
from seit.packed_weights import PackedWeight, WeightGrid, pack_weights
from seit.tensors import tensor_bytes

CARD_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Compression:
    """Differences of a compressed network from the timm model of its settings.

    Attributes:
        quantized: layout of each weight that is stored in few bits, by name.
        sparse: shape of each weight that is stored as a bitmap and its nonzero values, by name.
        activations: layers whose inputs are rounded, by name.
        structure: sizes of a ViT that is smaller than that of the settings; None for the same.
        program: whether the run predicts by the ONNX file next to its weights, which computes in 8
            bits.
        version: version of this card.
    """

    quantized: Mapping[str, WeightGrid] = field(default_factory=dict)
    sparse: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    activations: Mapping[str, InputGrid] = field(default_factory=dict)
    structure: Structure | None = None
    program: bool = False
    version: int = CARD_VERSION

    @property
    def is_plain(self) -> bool:
        """True if weights and network are those of any run."""
        return self == Compression()

    @property
    def changes_network(self) -> bool:
        """True if the network is another than that of the settings, not only its storage."""
        return bool(self.activations) or self.structure is not None

    def of_dense(self) -> "Compression":
        """Return the same network with its weights stored as they are."""
        return replace(self, quantized={}, sparse={})

    def attach(self, model: nn.Module, *, origin: str) -> None:
        """Add what the weights of the network need besides its layers, with values to load.

        Raises:
            DamagedError: the card is for another network.
        """
        attach_input_steps(model, self.activations, origin=origin)

    def card(self) -> dict[str, Any]:
        """Return the card of a file of such weights."""
        return asdict(self)

    @classmethod
    def of_card(cls, card: Mapping[str, Any], *, origin: str) -> "Compression":
        """Return what a card tells.

        Raises:
            DamagedError: it is no such card.
        """
        return as_record(card, cls, origin=origin)


@dataclass(frozen=True, kw_only=True)
class StoredWeights:
    """Tensors of a file of weights, and its card."""

    tensors: Mapping[str, Tensor]
    compression: Compression

    @classmethod
    def of(
        cls,
        weights: Mapping[str, Tensor],
        packed: Mapping[str, PackedWeight],
        sparse: Mapping[str, SparseWeight] | None = None,
        *,
        network: Compression | None = None,
    ) -> "StoredWeights":
        """Store weights, some of them packed or sparse, of a network that ``network`` tells."""
        sparse = sparse or {}
        tensors = pack_weights(weights, packed)
        for name, weight in sparse.items():
            del tensors[name]
            tensors |= weight.tensors(name)
        card = replace(
            network or Compression(),
            quantized={name: weight.grid for name, weight in packed.items()},
            sparse={name: weight.shape for name, weight in sparse.items()},
        )
        return cls(tensors=tensors, compression=card)

    @property
    def num_bytes(self) -> int:
        """Size of the file."""
        return len(tensor_bytes(self.tensors, card=self.compression.card()))

    def dense(self, *, origin: str) -> dict[str, Tensor]:
        """Return all weights by name, unpacked to float32.

        Memory is bounded by the file: a byte gives at most eight values.

        Raises:
            DamagedError: the tensors do not fit the card.
        """
        tensors = dict(self.tensors)
        unpacked = {
            name: PackedWeight.take(name, grid, tensors, origin=origin).dense()
            for name, grid in self.compression.quantized.items()
        }
        filled = {
            name: SparseWeight.take(name, shape, tensors, origin=origin).dense()
            for name, shape in self.compression.sparse.items()
        }
        return tensors | unpacked | filled
