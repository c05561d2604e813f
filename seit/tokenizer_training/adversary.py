"""The adversarial phase: a discriminator that learns beside the tokenizer, from a given step on."""

from collections.abc import Mapping

import torch
from torch import Tensor

from seit.errors import DamagedError
from seit.tokenizer_training.config import TokenizerConfig
from seit.tokenizer_training.discriminator import PatchDiscriminator
from seit.tokenizer_training.losses import hinge

_MOMENTS = ("step", "exp_avg", "exp_avg_sq")


class Adversary:
    """A discriminator and its optimiser."""

    def __init__(self, config: TokenizerConfig, planes: int, device: torch.device) -> None:
        self._weight = config.adversarial
        self._start = config.adversarial_start
        self.network = PatchDiscriminator(planes, config.discriminator_width).to(device)
        self._optimizer = torch.optim.AdamW(
            self.network.parameters(), lr=config.lr, betas=(0.5, 0.99), weight_decay=0.0
        )

    def has_begun(self, step: int) -> bool:
        """Whether it takes part in ``step``."""
        return step >= self._start

    def loss(self, rebuilt: Tensor) -> Tensor:
        """What reconstructions (B, P, Y, X) pay for being told from photographs, weighted."""
        self.network.requires_grad_(False)
        loss: Tensor = -self._weight * self.network(rebuilt).mean()
        self.network.requires_grad_(True)
        return loss

    def learn(self, planes: Tensor, rebuilt: Tensor, *, lr: float) -> Tensor:
        """Take a step in telling photographs from reconstructions; returns the hinge loss."""
        for group in self._optimizer.param_groups:
            group["lr"] = lr
        loss = hinge(self.network(planes), self.network(rebuilt.detach()))
        loss.backward()
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        return loss.detach()

    def tensors(self) -> dict[str, Tensor]:
        """All state by name; the optimiser has none before its first step."""
        tensors = {f"network.{key}": value for key, value in self.network.state_dict().items()}
        for name, parameter in self.network.named_parameters():
            for key, value in self._optimizer.state.get(parameter, {}).items():
                tensors[f"optimizer.{name}.{key}"] = torch.as_tensor(value)
        return tensors

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Put saved state back.

        Raises:
            DamagedError: it is another network's.
        """
        prefix = "network."
        weights = {
            key.removeprefix(prefix): value
            for key, value in tensors.items()
            if key.startswith(prefix)
        }
        try:
            self.network.load_state_dict(weights)
            for name, parameter in self.network.named_parameters():
                if f"optimizer.{name}.step" not in tensors:
                    continue
                state = self._optimizer.state[parameter]
                for key in _MOMENTS:
                    value = tensors[f"optimizer.{name}.{key}"]
                    state[key] = value if key == "step" else value.to(parameter.device)
        except (KeyError, RuntimeError) as error:
            raise DamagedError(
                f"the checkpoint does not fit this discriminator: {error}"
            ) from error
