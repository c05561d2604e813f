"""Base of tuning methods: attaching one to a model, and undoing that.

A method's modules are submodules of those they modify and act through forward hooks. The model's
own parameter names do not change, so copies, averages, optimizers, checkpoints and distributed
processes treat a tuned model like any other.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from seit.errors import UsageError
from seit.models.classifier import is_of_head
from seit.models.tuning.config import TuningConfig

Hook = Callable[[Any, Any, Any], Any]


@dataclass(frozen=True)
class Addition:
    """Module or parameter ``child`` added to the module ``owner``.

    It acts by ``hook``, or by a change of the owner's class: ``kinds`` are the old and the new one.
    """

    owner: str
    child: str
    hook: Hook | None = None
    kinds: tuple[type[nn.Module], type[nn.Module]] | None = None

    @property
    def name(self) -> str:
        """Name in the model."""
        return f"{self.owner}.{self.child}"


class Tuning(ABC):
    """Tuning method of one model; see `make_tuning`.

    Args:
        config: the method and its sizes.

    Attributes:
        mergeable: whether the trained weights can be folded into the model's own.
        trains_all: whether it trains every weight; others freeze most of them.
        drops_ranks: whether training removes ranks, which an average of weights would keep.
        size_setting: the setting that determines the memory of its modules; None if none does.
    """

    mergeable: ClassVar[bool] = False
    trains_all: ClassVar[bool] = False
    drops_ranks: ClassVar[bool] = False
    size_setting: ClassVar[str | None] = None

    def __init__(self, config: TuningConfig) -> None:
        self.config = config
        self._model: nn.Module | None = None
        self._additions: list[Addition] = []
        self._required: dict[str, bool] = {}
        self._before: dict[str, Tensor] = {}

    @classmethod
    def reinterpreted(cls, config: TuningConfig) -> list[str]:
        """Return the settings in use whose meaning changed after revision 1."""
        del config
        return []

    @property
    def model(self) -> nn.Module:
        """Model that the method is attached to.

        Raises:
            UsageError: there is none.
        """
        if self._model is None:
            raise UsageError(f"{self.config.method} is attached to no model; attach it first")
        return self._model

    def attach(self, model: nn.Module) -> None:
        """Add the method's modules, and freeze all but its weights and the classifier.

        Norms keep their running statistics if the backbone is frozen. New weights are drawn from
        torch's generator on the CPU. Weights of the model that the method itself trains are copied,
        as are statistics that move with them, so that :meth:`detach` can restore them.

        Args:
            model: a timm model; changed in place.

        Raises:
            UsageError: the method does not fit the model, or one is attached; nothing changed.
        """
        if self._model is not None:
            raise UsageError(f"{self.config.method} is attached to a model already; detach it")
        if any(hasattr(module, MARK) for module in model.modules()):
            raise UsageError("the model is tuned by another method already; detach or merge that")
        planned = self.plan(model)
        self._model = model
        self._required = {key: one.requires_grad for key, one in model.named_parameters()}
        named = dict(model.named_modules())
        for addition, made in planned:
            owner = named[addition.owner]
            if isinstance(made, nn.Parameter):
                owner.register_parameter(addition.child, made)
            else:
                owner.add_module(addition.child, made)
            if addition.hook is not None:
                owner.register_forward_hook(addition.hook)
            if addition.kinds is not None:
                owner.__class__ = addition.kinds[1]
            self._additions.append(addition)
        object.__setattr__(model, MARK, True)
        trained = self.trained_weights(model)
        self._before = {
            key: one.detach().clone()
            for key, one in model.named_parameters()
            if key in trained and not is_of_head(model, key)
        }
        self._before |= {key: one.clone() for key, one in self.statistics().items()}
        for key, one in model.named_parameters():
            frozen = not (self._is_added(key) or key in trained or is_of_head(model, key))
            one.requires_grad_(not frozen and self._required.get(key, True))
        if not self.trains_all:
            for module in _running_norms(model).values():
                module.register_forward_pre_hook(keep_statistics)

    def detach(self) -> None:
        """Remove everything again: the model is as before, except for the classifier's weights."""
        model = self.model
        own = model.state_dict()
        with torch.no_grad():
            for key, value in self._before.items():
                own[key].copy_(value)
        self._leave()

    def merge(self) -> None:
        """Fold the trained weights into the model's own, then remove the modules.

        Raises:
            UsageError: the model's own weights cannot express the method's effect.
        """
        with torch.no_grad():
            self.fold()
        self._leave()

    def bind(self, copy: nn.Module) -> Self:
        """Return the same tuning of a deep copy of the tuned model, such as its running average."""
        assert copy is not self.model, "of a copy"
        other = type(self)(self.config)
        other._model = copy
        other._additions = list(self._additions)
        other._required = dict(self._required)
        other._before = dict(self._before)
        return other

    def parameters(self) -> dict[str, nn.Parameter]:
        """Return the method's parameters, by name in the model, without the classifier."""
        return {
            key: one
            for key, one in self.model.named_parameters()
            if self._is_added(key) or key in self._before
        }

    def statistics(self) -> dict[str, Tensor]:
        """Return the running statistics of norms that training moves, by name in the model.

        Empty if the method freezes the backbone. They share the model's memory.
        """
        model = self.model
        norms = _running_norms(model) if self.trains_all else {}
        return {
            key: one
            for name, norm in norms.items()
            for key, one in norm.named_buffers(name, recurse=False)
            if not is_of_head(model, key)
        }

    def state_dict(self) -> dict[str, Tensor]:
        """Return the values of :meth:`parameters` and the :meth:`statistics`.

        They are detached, and share the model's memory.
        """
        return {key: one.detach() for key, one in self.parameters().items()} | self.statistics()

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Load the values of a complete :meth:`state_dict`.

        Raises:
            UsageError: names or shapes differ; nothing was changed.
        """
        own = self.state_dict()
        found = {key: tuple(value.shape) for key, value in state.items()}
        expected = {key: tuple(value.shape) for key, value in own.items()}
        for key in sorted(found.keys() | expected.keys()):
            if found.get(key) != expected.get(key):
                raise UsageError(
                    f"the state of {self.config.method} has {key} of {found.get(key, 'no shape')}, "
                    f"and {expected.get(key, 'nothing of that name')} was expected; load it with "
                    "the settings that it was saved with"
                )
        with torch.no_grad():
            for key, one in own.items():
                one.copy_(state[key])

    def kept_state(self) -> dict[str, Tensor]:
        """Return the :meth:`state_dict` to save, without weights that no longer have an effect."""
        return self.state_dict()

    def base_state(self) -> dict[str, Tensor]:
        """Return the model's own weights and buffers before tuning, without the classifier's."""
        model = self.model
        return {
            key: self._before.get(key, value)
            for key, value in model.state_dict().items()
            if not self._is_added(key) and not is_of_head(model, key)
        }

    def ranks(self) -> dict[str, int]:
        """Return the rank of each low-rank delta, by the layer's name; none for other methods."""
        return {}

    def layer_shares(self) -> dict[str, float]:
        """Return the share of each layer in a learned average; none for other methods."""
        return {}

    def penalty(self) -> Tensor | None:
        """Return a penalty to add to the loss, a number in float32; None for none."""
        return None

    def after_update(self, step: int, total: int) -> None:
        """Run after update ``step`` (from 0) of ``total``, before gradients are cleared."""
        del step, total

    @abstractmethod
    def plan(self, model: nn.Module) -> list[tuple[Addition, nn.Module | nn.Parameter]]:
        """Plan the additions and their places; the model is not changed.

        Raises:
            UsageError: the method does not fit the model.
        """

    def trained_weights(self, model: nn.Module) -> Collection[str]:
        """Return the names of the model's own weights, other than the classifier's, to train."""
        del model
        return ()

    def fold(self) -> None:
        """Add the trained weights to the model's own, without gradients; see `merge`."""
        raise UsageError(
            f"{self.config.method} cannot be folded into the model's weights; keep its modules"
        )

    def _is_added(self, key: str) -> bool:
        return any(key == one.name or key.startswith(f"{one.name}.") for one in self._additions)

    def _leave(self) -> None:
        model = self.model
        named = dict(model.named_modules())
        for addition in self._additions:
            owner = named[addition.owner]
            if addition.kinds is not None:
                owner.__class__ = addition.kinds[0]
            delattr(owner, addition.child)
            _unhook(owner._forward_hooks, addition.hook)
        for module in _running_norms(model).values():
            _unhook(module._forward_pre_hooks, keep_statistics)
            module.train(model.training)
        for key, one in model.named_parameters():
            one.requires_grad_(self._required[key])
        delattr(model, MARK)
        self._model, self._additions, self._before = None, [], {}


MARK = "_is_tuned"
"""Attribute of a tuned model."""


def keep_statistics(module: nn.Module, args: Any) -> None:
    """Make a norm use its running statistics without updating them; a forward pre-hook."""
    del args
    module.training = False


def keeps_statistics(model: nn.Module) -> bool:
    """Return whether a tuning holds the running statistics of a model's norms."""
    return any(
        hook is keep_statistics
        for module in model.modules()
        for hook in module._forward_pre_hooks.values()
    )


def like(module: nn.Module, made: nn.Module) -> nn.Module:
    """Return ``made``, drawn on the CPU, with the device and dtype of a module's first weight."""
    weight = next(module.parameters())
    return made.to(weight.device, weight.dtype)


def _running_norms(model: nn.Module) -> dict[str, nn.Module]:
    """Return the norms with running statistics, by name; some have a variance alone."""
    return {
        name: one
        for name, one in model.named_modules()
        if any(key.startswith("running_") for key, _ in one.named_buffers(recurse=False))
    }


def _unhook(hooks: Any, hook: Any) -> None:
    """Remove a hook from a module's hooks by value, as handles do not follow copies."""
    for number in [number for number, one in hooks.items() if one is hook]:
        del hooks[number]
