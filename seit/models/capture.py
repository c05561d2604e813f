"""Capture of activations by forward hooks."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from seit.errors import UsageError


@contextmanager
def captured(
    model: nn.Module, outputs: Mapping[str, str], *, inputs: Mapping[str, str] | None = None
) -> Iterator[dict[str, Tensor]]:
    """Collect activations of the forward passes within the context, by layer name.

    Values are copied: networks may change them in place later. Of a module that returns a tuple,
    the first entry counts.

    Args:
        model: the network.
        outputs: module whose output is collected, by layer name.
        inputs: module whose first input is collected, by layer name.

    Raises:
        UsageError: there is no such module.
    """
    found: dict[str, Tensor] = {}
    modules: dict[str, nn.Module] = dict(model.named_modules())

    def module(path: str) -> nn.Module:
        if path not in modules:
            raise UsageError(f"the network has no module {path!r} to read")
        return modules[path]

    def keep(name: str) -> Callable[[Any], None]:
        def store(value: Any) -> None:
            first = value[0] if isinstance(value, tuple) else value
            found[name] = first.detach().clone()

        return store

    handles = []
    for name, path in outputs.items():
        store = keep(name)
        handles.append(
            module(path).register_forward_hook(
                lambda _module, _inputs, output, store=store: store(output)
            )
        )
    for name, path in (inputs or {}).items():
        store = keep(name)
        handles.append(
            module(path).register_forward_pre_hook(lambda _module, args, store=store: store(args))
        )
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()
