"""Weight updates: scaled loss, clipped gradient, step of the optimizer.

Every loop takes its steps through :class:`Update`.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from seit.errors import DamagedError


class Update:
    """Loss scale and gradient limit; a checkpoint keeps the scale.

    Args:
        scaler: loss scaler, which fp16 needs; None for an unscaled loss.
        clip_grad: maximum norm of the gradient; 0 disables clipping.
    """

    def __init__(
        self, scaler: torch.amp.GradScaler | None = None, *, clip_grad: float = 0.0
    ) -> None:
        self.scaler = scaler or torch.amp.GradScaler("cpu", enabled=False)
        self.clip_grad = clip_grad

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of a scalar loss, scaled."""
        self.scaler.scale(loss).backward()

    def take(
        self,
        network: nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        mask: Callable[[], None] | None = None,
        follow: Callable[[], None] | None = None,
    ) -> None:
        """Take a step along the gradients, and drop them.

        Args:
            network: the network whose gradient is clipped, as a whole.
            optimizer: the optimizer of its parameters.
            mask: changes the gradients before they are clipped.
            follow: called after the step, with gradients still set.
        """
        self.scaler.unscale_(optimizer)
        if mask is not None:
            mask()
        if self.clip_grad:
            nn.utils.clip_grad_norm_(network.parameters(), self.clip_grad)
        self.scaler.step(optimizer)
        self.scaler.update()
        if follow is not None:
            follow()
        optimizer.zero_grad(set_to_none=True)

    def tensors(self) -> dict[str, Tensor]:
        """Return the state of the scale, by name."""
        return {
            f"scaler.{key}": torch.tensor(value, dtype=torch.float64)
            for key, value in self.scaler.state_dict().items()
        }

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Restore the saved scale.

        Raises:
            DamagedError: there is none.
        """
        saved = self.scaler.state_dict()
        try:
            values = {key: type(old)(tensors[f"scaler.{key}"]) for key, old in saved.items()}
        except KeyError as error:
            raise DamagedError(f"the checkpoint holds no {error.args[0]}") from error
        self.scaler.load_state_dict(values)
