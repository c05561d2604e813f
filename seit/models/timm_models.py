"""Construction of timm models, with one-line errors for invalid arguments."""

import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from difflib import get_close_matches
from typing import Any

import timm
import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from typing_extensions import override

from seit.errors import UsageError

BUILD_ERRORS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    NotImplementedError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""Exceptions of timm models on invalid arguments or inputs."""

_OWN_ARGUMENTS = frozenset(inspect.signature(timm.create_model).parameters) - {"kwargs"}
"""Arguments of `timm.create_model` itself, such as paths of checkpoints, not of networks."""
_UNKNOWN_ARGUMENT = re.compile(r"(?:unexpected|multiple values for) keyword argument '(\w+)'")


def foreign_arguments(settings: Mapping[str, Any]) -> list[str]:
    """Return the settings by which timm would read files of its own choice, or fetch weights."""
    return [name for name in settings if name in _OWN_ARGUMENTS or name.startswith("pretrained")]


def instantiate(name: str, settings: Mapping[str, Any]) -> nn.Module:
    """Build the timm model ``name`` with random weights.

    Raises:
        UsageError: the settings are invalid, or would make timm read other files.
    """
    if foreign := foreign_arguments(settings):
        raise UsageError(
            f"{name!r} is to be built with {foreign[0]}, which is a setting of timm's loader and "
            "not of a network; leave it out"
        )
    try:
        model: nn.Module = timm.create_model(name, pretrained=False, **settings)
    except BUILD_ERRORS as error:
        raise UsageError(
            f"timm could not build {name!r} with {dict(settings)} ({_one_line(error)})"
        ) from error
    return model


def sketch(name: str, settings: Mapping[str, Any]) -> nn.Module:
    """Build the same model on the meta device, with shapes and without memory.

    Raises:
        UsageError: timm has no such model, or the settings are invalid.
    """
    if not timm.is_model(name):
        near = get_close_matches(name[:100], timm.list_models(), n=3)
        hint = f"; near names: {', '.join(near)}" if near else ""
        raise UsageError(f"timm {timm.__version__} has no model {name[:100]!r}{hint}")
    left, unknown = dict(settings), []
    with without_memory():
        while True:
            try:
                model = instantiate(name, left)
            except UsageError as error:
                match = _UNKNOWN_ARGUMENT.search(str(error.__cause__))
                if not isinstance(error.__cause__, TypeError) or not match or match[1] not in left:
                    raise
                del left[match[1]]
                unknown.append(match[1])
            else:
                break
    if unknown:
        raise UsageError(
            f"{name!r} is a {type(model).__name__}, which does not take {', '.join(unknown)}; "
            f"leave {'that' if len(unknown) == 1 else 'those'} out"
        )
    return model


@contextmanager
def without_memory() -> Iterator[None]:
    """Build models on the meta device, where their weights have shapes and no values."""
    with torch.device("meta"), _Unfilled():
        yield


class _Unfilled(TorchFunctionMode):
    """Mode that skips filling tensors: meta tensors have no values, and random draws are slow."""

    _FILLS = frozenset(
        {"add_", "clamp_", "erfinv_", "fill_", "mul_", "normal_", "uniform_", "zero_"}
    )

    @override
    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if getattr(func, "__name__", "") in self._FILLS and args and args[0].is_meta:
            return args[0]
        return func(*args, **(kwargs or {}))


def settle(name: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Remove a stochastic depth of 0 from the settings of a model without stochastic depth.

    Networks with it may have another default than 0.

    Raises:
        UsageError: see `sketch`.
    """
    rest = {key: value for key, value in settings.items() if key != "drop_path_rate"}
    if settings.get("drop_path_rate") == 0 and not takes(sketch(name, rest), "drop_path_rate"):
        return rest
    return dict(settings)


def takes(model: nn.Module, argument: str) -> bool:
    """Return whether the constructor of a model's class or bases has such an argument."""
    return any(
        argument in inspect.signature(base.__dict__["__init__"]).parameters
        for base in type(model).__mro__
        if "__init__" in base.__dict__ and base is not object
    )


def rehearse(model: nn.Module, name: str, inputs: torch.Tensor, num_classes: int) -> None:
    """Run a sketch, and check that it returns logits (B, ``num_classes``).

    Raises:
        UsageError: it does not run on these inputs, or returns something else.
    """
    size = "×".join(map(str, inputs.shape[2:]))
    try:
        logits = model(inputs)
    except BUILD_ERRORS as error:
        raise UsageError(
            f"{name!r} ({type(model).__name__}) does not run on inputs of {size} "
            f"({_one_line(error)}); choose another stem or backbone"
        ) from error
    if not isinstance(logits, torch.Tensor) or logits.shape != (len(inputs), num_classes):
        found = (
            "×".join(map(str, logits.shape))
            if isinstance(logits, torch.Tensor)
            else f"a {type(logits).__name__}"
        )
        raise UsageError(
            f"{name!r} ({type(model).__name__}) returns {found} for {len(inputs)} inputs and "
            f"{num_classes} classes; choose a backbone that is a classifier with one output"
        )


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
