"""Inputs of layers from the inputs of their block, so that no block is computed from the images.

The layers of a network are quantized in the order of a forward pass. To start each pass from the
images would take time quadratic in the number of blocks. Where a block hands its output to the next
one and nothing else passes by it, the inputs of the block at hand are kept for all calibration
samples, and only that block is computed: the same operations on the same values.

Legend: B batch.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from seit.compression.weights.moments import layer_inputs

MAX_CARRIED_BYTES = 1 << 30
"""Most bytes of kept inputs; networks with larger ones are computed from the images."""


def block_order(model: nn.Module, inputs: Tensor) -> dict[str, str | None]:
    """Return the blocks of a network in the order of a forward pass, each with the one before.

    A block is an element of a list of modules that is called once, with one tensor. The one before
    is None unless its output is what the block takes.

    Args:
        model: a network in evaluation mode.
        inputs: (B, C, h, w).
    """
    names = {
        f"{name}.{key}" if name else key: one
        for name, holder in model.named_modules()
        if isinstance(holder, nn.Sequential | nn.ModuleList)
        for key, one in holder.named_children()
    }
    taken: dict[str, list[tuple[object, ...]]] = {}
    given: dict[str, object] = {}

    def before(name: str, args: tuple[object, ...], options: dict[str, object]) -> None:
        taken.setdefault(name, []).append((*args, *options.values()))

    def after(name: str, output: object) -> None:
        given[name] = output

    handles = [
        handle
        for name, one in names.items()
        for handle in (
            one.register_forward_pre_hook(
                lambda _, args, options, name=name: before(name, args, options), with_kwargs=True
            ),
            one.register_forward_hook(lambda _, __, output, name=name: after(name, output)),
        )
    ]
    try:
        with torch.no_grad():
            model(inputs)
    finally:
        for handle in handles:
            handle.remove()
    blocks = [
        name
        for name, calls in taken.items()
        if len(calls) == 1 and len(calls[0]) == 1 and isinstance(calls[0][0], Tensor)
    ]
    return {
        name: next(
            (
                one
                for one in blocks
                if one.rpartition(".")[0] == name.rpartition(".")[0]
                and given.get(one) is taken[name][0][0]
            ),
            None,
        )
        for name in blocks
    }


@dataclass
class Carried:
    """A network with the inputs of one of its blocks for all calibration samples.

    Attributes:
        model: the network in evaluation mode; its weights may change, but not before the block.
        batches: returns its inputs, each (B, C, h, w).
        before: the blocks, as :func:`block_order` returns them.
    """

    model: nn.Module
    batches: Callable[[], Iterable[Tensor]]
    before: dict[str, str | None]
    _block: str | None = field(default=None, init=False)
    _inputs: list[Tensor] = field(default_factory=list, init=False)

    def inputs(self, name: str, *, calls: int) -> Iterator[list[Tensor]]:
        """Yield the inputs of each call of a layer, batch by batch.

        Args:
            name: name of the layer.
            calls: calls of the layer in a forward pass.
        """
        block = self._block_of(name)
        if block is None or not self._carry(block):
            for inputs in self.batches():
                yield layer_inputs(self.model, name, inputs, calls=calls)
            return
        module = self.model.get_submodule(block)
        inner = name.removeprefix(block).removeprefix(".")
        for inputs in self._inputs:
            # A copy, as a block may change what it takes.
            yield layer_inputs(module, inner, inputs.clone(), calls=calls)

    def _block_of(self, name: str) -> str | None:
        """Return the innermost block that holds a layer and has another one next to it."""
        linked = {*self.before.values()} | {one for one, last in self.before.items() if last}
        held = [one for one in self.before if name.startswith(f"{one}.") and one in linked]
        return max(held, key=len, default=None)

    def _carry(self, block: str) -> bool:
        """Keep the inputs of a block; returns False if they are too large."""
        if block == self._block:
            return True
        last, self._block = self._block, None
        if last is not None and self.before[block] == last:
            module = self.model.get_submodule(last)
            with torch.no_grad():
                self._inputs = [module(inputs) for inputs in self._inputs]
        else:
            self._inputs = []
            for inputs in self.batches():
                self._inputs += layer_inputs(self.model, block, inputs, calls=1)
                if sum(one.nbytes for one in self._inputs) > MAX_CARRIED_BYTES:
                    self._inputs = []
                    return False
        self._block = block
        return True
