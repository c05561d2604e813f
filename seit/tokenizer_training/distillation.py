"""Distillation: an encoder of another size learns the latents of a trained tokenizer's encoder.

After Hinton et al., "Distilling the Knowledge in a Neural Network" (2015), on latents instead of
class probabilities: codes are chosen by squared distances, so the loss is the squared error.

Legend: B batch, P planes, Y X height and width, L levels of a residual tokenizer, K codes, C latent
dim.
"""

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional

from seit.tokenizers import Autoencoder, LearnedTokenizer, NetworkConfig

_OWN = ("encoder.stem.", "encoder.blocks.", "encoder.head.")
"""Parts of a network whose shapes depend on the width and the blocks of its encoder."""


class Distillation:
    """Loss of an encoder against that of a trained tokenizer with the same latent dim.

    Args:
        teacher: the trained tokenizer.
        device: device of planes.
    """

    def __init__(self, teacher: LearnedTokenizer, device: torch.device) -> None:
        network = Autoencoder(NetworkConfig.from_json(teacher.settings()["network"]))
        network.load_state_dict(teacher.network_weights())
        self._encoder = network.encoder.to(device).eval().requires_grad_(False)
        levels_LKC = teacher.codebook.view(-1, *teacher.codebook.shape[-2:])
        self._unit = float(levels_LKC.var(1, unbiased=False).sum(0).mean())

    def loss(self, student: Autoencoder, planes: Tensor) -> Tensor:
        """Return the mean squared error of the student's latents, as a share of codes' variance.

        Args:
            student: network whose encoder learns.
            planes: (B, P, Y, X), −1…1.
        """
        with torch.no_grad():
            wanted = self._encoder(planes).float()
        return functional.mse_loss(student.encoder(planes).float(), wanted) / self._unit


def start_student(student: Autoencoder, teacher: Mapping[str, Tensor]) -> None:
    """Load a teacher's decoder and linear map of patches; the rest of the encoder stays new."""
    own = {name: value for name, value in student.state_dict().items() if name.startswith(_OWN)}
    shared = {name: value for name, value in teacher.items() if not name.startswith(_OWN)}
    student.load_state_dict({**shared, **own})
