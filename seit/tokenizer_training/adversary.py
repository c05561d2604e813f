"""Adversarial phase: a discriminator trained along with the tokenizer from a given step on."""

from collections.abc import Mapping

import torch
from torch import Tensor

from seit.errors import DamagedError
from seit.tokenizer_training.config import TokenizerConfig
from seit.tokenizer_training.discriminator import PatchDiscriminator
from seit.tokenizer_training.losses import hinge
from seit.training import Update, moments, restore_moments, set_learning_rate

_NETWORK, _MOMENTS = "adversary.network.", "adversary.optimizer."


class Adversary:
    """A discriminator and its optimizer."""

    def __init__(self, config: TokenizerConfig, planes: int, device: torch.device) -> None:
        self._weight = config.adversarial
        self._start = config.adversarial_start
        self.network = PatchDiscriminator(planes, config.discriminator_width).to(device)
        self._optimizer = torch.optim.AdamW(
            self.network.parameters(), lr=config.lr, betas=(0.5, 0.99), weight_decay=0.0
        )
        self._update = Update()

    def has_begun(self, step: int) -> bool:
        """Return True if it takes part in ``step``."""
        return step >= self._start

    def loss(self, rebuilt: Tensor) -> Tensor:
        """Return the weighted generator loss of reconstructions (B, P, Y, X)."""
        self.network.requires_grad_(False)
        loss: Tensor = -self._weight * self.network(rebuilt).mean()
        self.network.requires_grad_(True)
        return loss

    def learn(self, planes: Tensor, rebuilt: Tensor, *, lr: float) -> Tensor:
        """Take a discriminator step on photographs and reconstructions; return the hinge loss."""
        set_learning_rate(self._optimizer, lr)
        loss = hinge(self.network(planes), self.network(rebuilt.detach()))
        self._update.backward(loss)
        self._update.take(self.network, self._optimizer)
        return loss.detach()

    def tensors(self) -> dict[str, Tensor]:
        """Return all state by name; the optimizer has none before its first step."""
        weights, state = self.network.state_dict(), moments(self.network, self._optimizer)
        return {f"{_NETWORK}{key}": value for key, value in weights.items()} | {
            f"{_MOMENTS}{key}": value for key, value in state.items()
        }

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Restore saved state; raise DamagedError if it is from another network."""
        weights, state = (
            {
                key.removeprefix(prefix): value
                for key, value in tensors.items()
                if key.startswith(prefix)
            }
            for prefix in (_NETWORK, _MOMENTS)
        )
        try:
            self.network.load_state_dict(weights)
            restore_moments(self.network, self._optimizer, state, all_or_none=True)
        except (KeyError, RuntimeError, ValueError) as error:
            raise DamagedError(
                f"the checkpoint does not fit this discriminator: {error}"
            ) from error
