"""Hidden states of speech models, as transformers numbers them, and what identifies a model.

Legend: B batch, T samples, F frames, D features.
"""

import hashlib
import json
from typing import Any, NoReturn

from torch import Tensor, nn
from typing_extensions import override

from seit.errors import UsageError
from seit.fingerprints import fingerprint
from seit.tokenizers.speech.network import SpeechNetwork

_BEHAVIOR = (
    "model_type",
    "num_attention_heads",
    "encoder_attention_heads",
    "do_stable_layer_norm",
    "layer_norm_eps",
    "hidden_act",
    "activation_function",
    "feat_extract_norm",
    "feat_extract_activation",
    "conv_stride",
    "num_conv_pos_embedding_groups",
)
"""Settings that change activations and not the shape of any weight."""


class _Reached(Exception):  # noqa: N818 - ends a forward pass, no error
    """End of a forward pass at the input of a block."""

    def __init__(self, frames: Tensor) -> None:
        super().__init__()
        self.frames = frames


class HiddenLayer(nn.Module):
    """One layer of a speech model: `output_hidden_states[layer]` of transformers.

    Layer 0 is the input of the first block, layer k the output of block k, and the last layer that
    of the network, after its final norm. Blocks that are not needed are dropped.

    Args:
        network: the speech model, which belongs to this object from now on.
        layer: number of the layer, from 0.

    Attributes:
        layer: number of the layer.
        dim: D.
        fingerprint: fingerprint of the whole speech model; see :func:`network_fingerprint`.

    Raises:
        UsageError: there is no such layer.
    """

    def __init__(self, network: SpeechNetwork, layer: int) -> None:
        super().__init__()
        most = len(network.blocks)
        if not 0 <= layer <= most:
            raise UsageError(
                f"layer is {layer}; this {network.layout.class_prefix} has 0 (the input of the "
                f"first block) to {most} (the network's output)"
            )
        self.layer, self.dim = layer, network.dim
        self.fingerprint = network_fingerprint(network)
        if layer < most:
            # Registered once: tokenize jobs run forward passes in several threads.
            network.blocks[layer].register_forward_pre_hook(_stop)
            network.keep_blocks(layer + 1)
        self.network = network.eval().requires_grad_(False)

    @override
    def forward(self, waves: Tensor) -> Tensor:
        """Return frames float32 (B, F, D) of waveforms float32 (B, T) at 16 kHz, −1 to 1.

        Raises:
            UsageError: waveforms are too short, or longer than the network's positions.
        """
        try:
            frames: Tensor = self.network(waves)
        except _Reached as reached:
            return reached.frames
        return frames


def _stop(_: Any, inputs: tuple[Tensor, ...]) -> NoReturn:
    raise _Reached(inputs[0])


def network_fingerprint(network: SpeechNetwork) -> str:
    """Return the sha256 of a speech model's weights and of the settings that act on them."""
    model: Any = network.model
    settings = {name: getattr(model.config, name, None) for name in _BEHAVIOR}
    text = json.dumps({**settings, "normalize": network.normalize}, sort_keys=True, default=list)
    weights = fingerprint(dict(network.model.state_dict()))
    return hashlib.sha256(f"{text}\n{weights}".encode()).hexdigest()
