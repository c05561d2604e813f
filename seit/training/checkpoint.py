"""Checkpoints: everything that a run needs to resume bit for bit, without pickle.

A checkpoint is one safetensors file ``checkpoints/step-00001200.safetensors``: weights, average,
optimizer moments and the state of torch's generator as tensors, the step as metadata. Sample order
and augmentation are functions of the step and need no state; the generator is saved for code that
draws from it across steps, such as tokenizer training. Torch is imported late: runs are listed
without it.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from seit.documents import reason_of
from seit.errors import DamagedError
from seit.tensors import read_card, write_tensors

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

KEEP = 2
_NAME = re.compile(r"step-(\d{8})\.safetensors")


class Saved(Protocol):
    """Live objects that a checkpoint saves and restores."""

    def tensors(self) -> "dict[str, Tensor]":
        """Return all state as named tensors on the host."""

    def restore(self, tensors: "Mapping[str, Tensor]") -> None:
        """Restore saved state; raise a `DamagedError` if it does not fit."""


@dataclass(frozen=True)
class TrainState:
    """Live objects of a run that a checkpoint saves and restores.

    Attributes:
        model: the trained model.
        average: the average of its weights, if there is one.
        optimizer: the model's optimizer.
        also: further objects, each with its own names.
        all_or_none: whether state of any parameter requires state of all; False if some learn
            only from a later step on.
    """

    model: "nn.Module"
    average: "nn.Module | None"
    optimizer: "torch.optim.Optimizer"
    also: Sequence[Saved] = ()
    all_or_none: bool = True

    def tensors(self) -> "dict[str, Tensor]":
        """Return all state as named tensors on the host."""
        import torch
        from torch import Tensor

        tensors = {f"model.{key}": value for key, value in self.model.state_dict().items()}
        if self.average is not None:
            average = self.average.state_dict()
            tensors |= {f"average.{key}": value for key, value in average.items()}
        for path, value in moments(self.model, self.optimizer).items():
            tensors[f"optimizer.{path}"] = value
        for number, group in enumerate(self.optimizer.param_groups):
            for key, value in group.items():
                if isinstance(value, Tensor):
                    tensors[f"groups.{number}.{key}"] = value
        for one in self.also:
            tensors |= one.tensors()
        tensors["generator"] = torch.get_rng_state()
        if torch.cuda.is_available():
            tensors["generator.cuda"] = torch.cuda.get_rng_state()
        return {key: value.detach().cpu().contiguous() for key, value in tensors.items()}

    def restore(self, tensors: "Mapping[str, Tensor]") -> None:
        """Restore saved state.

        Raises:
            DamagedError: the state belongs to another model.
        """
        import torch

        parts: dict[str, dict[str, Tensor]] = {
            name: {} for name in ("model", "average", "optimizer", "groups")
        }
        for key, value in tensors.items():
            part, _, rest = key.partition(".")
            if part in parts:
                parts[part][rest] = value
        try:
            self.model.load_state_dict(parts["model"])
            if self.average is not None:
                self.average.load_state_dict(parts["average"])
            self._restore_optimizer(parts["optimizer"], parts["groups"])
        except (KeyError, RuntimeError, ValueError, IndexError) as error:
            raise DamagedError(f"the checkpoint does not fit this model: {error}") from error
        for one in self.also:
            one.restore(tensors)
        torch.set_rng_state(tensors["generator"])
        if torch.cuda.is_available() and "generator.cuda" in tensors:
            torch.cuda.set_rng_state(tensors["generator.cuda"])

    def _restore_optimizer(
        self, of_parameters: "Mapping[str, Tensor]", of_groups: "Mapping[str, Tensor]"
    ) -> None:
        from torch import Tensor

        # There are none if every step so far was skipped.
        restore_moments(self.model, self.optimizer, of_parameters, all_or_none=self.all_or_none)
        for path, value in of_groups.items():
            number, _, key = path.partition(".")
            group = self.optimizer.param_groups[int(number)]
            if value.ndim or not isinstance(group.get(key, value), Tensor):
                raise ValueError(f"{path} is no number that the optimizer counts")
            group[key] = value


def moments(model: "nn.Module", optimizer: "torch.optim.Optimizer") -> "dict[str, Tensor]":
    """Return the optimizer state of a model's parameters, as ``name.key``."""
    import torch

    names: dict[Tensor, str] = {parameter: name for name, parameter in model.named_parameters()}
    return {
        f"{names[parameter]}.{key}": torch.as_tensor(value)
        for parameter, state in optimizer.state.items()
        for key, value in state.items()
    }


def restore_moments(
    model: "nn.Module",
    optimizer: "torch.optim.Optimizer",
    saved: "Mapping[str, Tensor]",
    *,
    all_or_none: bool,
) -> None:
    """Restore the :func:`moments` of a model's parameters, laid out in memory as these.

    Fused optimizers walk a parameter and its moments as flat memory.

    Args:
        model: the optimized model.
        optimizer: a new optimizer.
        saved: tensors by name.
        all_or_none: whether state of any parameter requires state of all.

    Raises:
        KeyError: the state belongs to another model.
        ValueError: a shape differs from its parameter's, or the state is incomplete.
    """
    import torch

    parameters = dict(model.named_parameters())
    states: dict[Tensor, dict[str, Tensor]] = {}
    for path, value in saved.items():
        name, _, key = path.rpartition(".")
        parameter = parameters[name]
        if value.ndim:
            if value.shape != parameter.shape:
                raise ValueError(f"{path} is {tuple(value.shape)}, not as its parameter")
            value = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
        states.setdefault(parameter, {})[key] = value
    settings = optimizer.state_dict()
    in_order = [one for group in optimizer.param_groups for one in group["params"]]
    if all_or_none and states:
        optimized = set(in_order)
        for name, parameter in parameters.items():
            if parameter in optimized and parameter not in states:
                raise ValueError(f"it has no optimizer state of {name}")
    settings["state"] = {
        number: states[one] for number, one in enumerate(in_order) if one in states
    }
    optimizer.load_state_dict(settings)


def save_checkpoint(folder: Path, step: int, state: Saved) -> Path:
    """Write the checkpoint after ``step`` steps; keep the last two."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"step-{step:08d}.safetensors"
    write_tensors(path, state.tensors(), card={"step": step})
    for old in list_checkpoints(folder)[:-KEEP]:
        old.unlink()
    return path


def list_checkpoints(folder: Path) -> list[Path]:
    """Return the complete checkpoints of a run, oldest first."""
    return sorted(path for path in folder.glob("step-*") if _NAME.fullmatch(path.name))


def load_checkpoint(path: Path, state: Saved) -> int:
    """Restore ``state`` and return the number of steps done.

    Raises:
        DamagedError: the file is corrupt or belongs to another model.
    """
    advice = "delete it to resume from the one before"
    card, tensors = read_card(path, advice=advice)
    step = card.get("step")
    if type(step) is not int or step < 0:
        raise DamagedError(f"{path} is damaged (its step is {step!r}); {advice}")
    try:
        state.restore(tensors)
    except DamagedError as error:
        raise DamagedError(f"{path}: {error}; {advice}") from error
    # torch raises these for mismatched names, shapes and dtypes.
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as e:
        raise DamagedError(f"{path} does not fit this run ({reason_of(e)}); {advice}") from e
    return step
