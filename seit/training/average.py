"""Running average of the weights of a network."""

from typing import cast

from timm.utils import ModelEmaV3
from torch import Tensor, nn
from typing_extensions import override


class WeightAverage(ModelEmaV3):
    """timm's average of all weights and buffers, bit for bit, found once and not at every step.

    timm walks both networks' `state_dict` at every update, which takes longer than the arithmetic
    on small networks.
    """

    def __init__(self, model: nn.Module, *, decay: float, use_warmup: bool) -> None:
        super().__init__(model, decay=decay, use_warmup=use_warmup)
        self._own = _places(self.module)
        self._followed = _places(model)

    @override
    def apply_update_(self, model: nn.Module, decay: float) -> None:
        del model  # the one of the constructor
        pairs = [
            (own[name], followed[key])
            for (own, name), (followed, key) in zip(self._own, self._followed, strict=True)
        ]
        floats = [pair for pair in pairs if pair[0].is_floating_point()]
        self._foreach_lerp_([own for own, _ in floats], [one for _, one in floats], 1.0 - decay)
        if len(floats) < len(pairs):
            for own, one in pairs:
                if not own.is_floating_point():
                    own.copy_(one)


def _places(network: nn.Module) -> list[tuple[dict[str, Tensor], str]]:
    """Return where a network keeps each entry of its `state_dict`, in its order.

    The places stay valid if a tensor is replaced.
    """
    places = []
    for path in network.state_dict():
        owner, _, name = path.rpartition(".")
        module = network.get_submodule(owner)
        holder = module._parameters if name in module._parameters else module._buffers
        places.append((cast(dict[str, Tensor], holder), name))
    return places
