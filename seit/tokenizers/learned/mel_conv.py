"""`mel-conv`: the small learned tokenizer of `conv-vq` on spectrograms.

The front end turns each window into a standardized log-mel plane, the network turns its patches
into latents, and the nearest codes represent those. Decoding returns spectrograms, not sound.

Legend: B windows, T samples of a window, M bands, F frames, C latent dim, K codes, L levels.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Self

from torch import Tensor
from typing_extensions import override

from seit.errors import DamagedError
from seit.tokenizers.learned.autoencoder import Autoencoder
from seit.tokenizers.learned.base import LearnedTokenizer
from seit.tokenizers.learned.bounds import Bound
from seit.tokenizers.learned.folded import FoldedEncoder
from seit.tokenizers.mel import MelFrontEnd, SpectrogramTokenizer

PLANE_RANGE = 4.0
"""Standard deviations from a band's mean that map to −1 and 1; nothing is clipped."""


class MelConvTokenizer(LearnedTokenizer, SpectrogramTokenizer):
    """Nearest codes of a spectrogram's latents; see :class:`LearnedTokenizer`.

    Row 0 of a grid is the lowest frequency. :meth:`decode` returns spectrograms float32 (B, M, F)
    in dB.
    """

    name: ClassVar[str] = "mel-conv"
    num_planes: ClassVar[int] = 1

    def __init__(
        self,
        codebook: Tensor,
        network: Autoencoder,
        *,
        front_end: MelFrontEnd,
        bound: Bound | None = None,
    ) -> None:
        """Initialize from a codebook float32 and a network, whose ownership is taken.

        Args:
            codebook: (K, C), or (L, K, C) of a residual tokenizer.
            network: network between planes and latents, with the patches of the front end.
            front_end: converter of waveforms to planes.
            bound: bound of the quantizer that it was trained with.
        """
        super().__init__(codebook, network, bound=bound)
        self.take_front_end(front_end)
        self._encoder = FoldedEncoder(self._network.encoder, divisor=PLANE_RANGE, offset=0)

    @property
    @override
    def _plane_size(self) -> tuple[int, int]:
        return self.front_end.config.bands, self.front_end.config.frames

    @override
    def _latents(self, inputs: Tensor) -> Tensor:
        return self._encoder(self.front_end.planes(inputs).permute(0, 2, 3, 1))

    @override
    def _outputs(self, planes: Tensor) -> Tensor:
        return self.front_end.to_levels(planes * PLANE_RANGE)

    @override
    def _with(self, codebook: Tensor, network: Autoencoder) -> Self:
        front_end = self.front_end.to(codebook.device)
        return type(self)(codebook, network, front_end=front_end, bound=self._bound)

    @override
    def tensors(self) -> dict[str, Tensor]:
        return {**self.front_end.tensors(), **super().tensors()}

    @override
    def settings(self) -> dict[str, Any]:
        return {"front_end": self.front_end.settings(), **super().settings()}

    @classmethod
    @override
    def restore(
        cls, codebook: Tensor, tensors: Mapping[str, Tensor], settings: Mapping[str, Any]
    ) -> Self:
        config, bound = cls._read_network(codebook, settings)
        front_end = MelFrontEnd.restore(tensors, settings.get("front_end"))
        if config.patch != front_end.config.patch:
            raise DamagedError(
                f"a {cls.name} tokenizer cuts patches of {front_end.config.patch} for a network of "
                f"{config.patch}"
            )
        learned = {key: tensors[key] for key in tensors.keys() - front_end.tensors().keys()}
        network = cls._load_network(codebook, learned, config)
        return cls(codebook, network, front_end=front_end, bound=bound)
