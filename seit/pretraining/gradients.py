"""Norms of the tasks' gradients at an encoder, which compare their influence.

Legend: P parts of the loss, T tasks.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

_SCALE = 2.0**12
"""Scale of losses before backward, to avoid underflow in float16."""


def gradient_norms(
    model: nn.Module,
    losses: Callable[[nn.Module], Tensor],
    *,
    encoder: nn.Module,
) -> Tensor:
    """Return the norm of each loss's gradient over the trained weights of an encoder.

    Leaves the model's gradients unchanged and works on copies of its buffers, e.g. running averages
    of batch norms. Costs a forward pass and T backward passes.

    Args:
        model: model in the mode in which it is trained.
        losses: a module that acts as ``model`` → the losses (T,), with gradients.
        encoder: part of ``model`` to measure.

    Returns:
        (T,) float32.
    """
    weights = [weight for weight in encoder.parameters() if weight.requires_grad]
    with torch.enable_grad():
        losses_T = losses(_Detached(model)) * _SCALE
        norms = []
        for number, loss in enumerate(losses_T):
            grads = torch.autograd.grad(
                loss, weights, retain_graph=number + 1 < len(losses_T), allow_unused=True
            )
            found = [grad.float() for grad in grads if grad is not None]
            norms.append(nn.utils.get_total_norm(found) / _SCALE)
    return torch.stack(norms)


class _Detached(nn.Module):
    """A model with copied buffers, so that a forward pass leaves it unchanged."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self._model = [model]  # not a child: its modules must keep their modes
        self._copies = {name: buffer.clone() for name, buffer in model.named_buffers()}

    def forward(self, *args: object) -> Tensor:
        result: Tensor = torch.func.functional_call(self._model[0], self._copies, args)
        return result
