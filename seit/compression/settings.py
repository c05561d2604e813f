"""Settings that only some methods take: without effect in the others, hence refused there."""

from collections.abc import Collection, Mapping
from dataclasses import replace

from seit.compression.config import CompressConfig, MethodName
from seit.config import build, flatten, nest, to_mapping
from seit.errors import UsageError
from seit.training import ModelConfig

_INT8: tuple[MethodName, ...] = ("int8", "int8-static")
_FEW_BITS: tuple[MethodName, ...] = ("w8", "w4", "w3", "w2")
_PACKED: tuple[MethodName, ...] = (*_FEW_BITS, "mixed")
_TRAINED: tuple[MethodName, ...] = ("qat", "prune", "distill")

TAKERS: Mapping[str, tuple[MethodName, ...]] = {
    "compression.group": _PACKED,
    "compression.samples": (*_INT8, *_PACKED, "qat", "prune"),
    "compression.dev_samples": (*_INT8, *_PACKED),
    "compression.rounding": _PACKED,
    "compression.clip": _PACKED,
    "compression.act_order": _PACKED,
    "compression.damping": _PACKED,
    "compression.adaround_steps": _PACKED,
    "compression.budget": ("mixed",),
    "compression.mixed_bits": ("mixed",),
    "compression.max_drop": (*_INT8, *_FEW_BITS),
    "compression.bits": ("qat",),
    "compression.activation_bits": ("qat",),
    "compression.pattern": ("prune",),
    "compression.sparsity": ("prune",),
    "compression.criterion": ("prune",),
    "compression.pruning": ("prune",),
    "compression.student": ("distill",),
    "compression.calibrator": _INT8,
    "compression.percentile": _INT8,
    "compression.target_cpu": _INT8,
    "ema.decay": _TRAINED,
    "ema.warmup": _TRAINED,
    "distill.teacher": _TRAINED,
    "distill.pixels": _TRAINED,
    "distill.root": _TRAINED,
    "distill.kind": _TRAINED,
    "distill.alpha": _TRAINED,
    "distill.temperature": _TRAINED,
    "layer": _TRAINED,
}
"""Methods that take a setting. All others take every method, or stand in recipes for all."""
_RESIZES: MethodName = "distill"
"""Method whose network may be another than that of the run."""


def refuse_unused(config: CompressConfig, methods: Collection[MethodName]) -> None:
    """Refuse settings that none of the methods takes.

    Raises:
        UsageError: such a setting differs from its default.
    """
    defaults, values = flatten(to_mapping(CompressConfig())), flatten(to_mapping(config))
    for name, takers in TAKERS.items():
        if values[name] != defaults[name] and not set(takers) & set(methods):
            some = f"{next(iter(methods))} takes" if len(methods) == 1 else "the methods take"
            raise UsageError(
                f"{name} is {values[name]!r}, but {some} no such setting, which is for "
                f"{', '.join(takers)}; leave it out"
            )


def settings_of(
    config: CompressConfig, method: MethodName, *, model: ModelConfig
) -> CompressConfig:
    """Return the settings of one method of a comparison, whose methods share ``config``.

    Settings that it does not take have their defaults.

    Args:
        config: settings of the comparison.
        method: the method.
        model: backbone of the run to compress.
    """
    defaults, values = flatten(to_mapping(CompressConfig())), flatten(to_mapping(config))
    unused = {name: defaults[name] for name, takers in TAKERS.items() if method not in takers}
    taken = {**values, **unused, "compression.method": method}
    own = build(CompressConfig, nest(taken, origin="settings"), origin="settings")
    if method == _RESIZES:
        return own
    return replace(own, model=replace(model, drop_path=config.model.drop_path))
