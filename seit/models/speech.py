"""A classifier over the frames of a speech model.

Legend: B batch, T samples, F frames, D features, N classes.
"""

import torch
from torch import Tensor, nn
from typing_extensions import override

from seit.stream import PADDING
from seit.tokenizers import SpeechNetwork

_FULL_SCALE = 32767.0


class SpeechClassifier(nn.Module):
    """Mean of a speech model's frames, then a linear classifier (SUPERB, arXiv 2105.01051).

    Args:
        network: the speech model.
        num_classes: N.
        projector: width of a linear layer before the mean, 256 in SUPERB; 0 for none.

    Attributes:
        network: the speech model.
        head: the classifier, with the projector if there is one.
    """

    def __init__(self, network: SpeechNetwork, *, num_classes: int, projector: int = 0) -> None:
        super().__init__()
        self.network = network
        classifier = nn.Linear(projector or network.dim, num_classes)
        projected = [nn.Linear(network.dim, projector)] if projector else []
        self.head = nn.Sequential(*projected, classifier)

    @override
    def forward(self, waves: Tensor) -> Tensor:
        """Return logits (B, N) of waveforms int16 (B, T) at 16 kHz.

        Clips end where `PADDING` begins. Only clips of the same length share a forward pass, as
        padding would change the results of many networks.

        Raises:
            UsageError: a clip is too short, or longer than the network's positions.
        """
        lengths = (waves != PADDING).sum(1)
        features = waves.new_empty(len(waves), self.network.dim, dtype=torch.float32)
        for length in lengths.unique().tolist():
            rows = (lengths == length).nonzero().flatten()
            clips = waves[rows, :length].float() / _FULL_SCALE
            frames: Tensor = self.network(clips)
            features = features.index_copy(0, rows, frames.mean(1).float())
        logits: Tensor = self.head(features)
        return logits
