"""Checks that the settings of a continual run are consistent.

None of its stream, data and memory is ignored, but `stream.increment`, which recipes set for all
streams. Groups that are named after a method are read by that method alone.
"""

from typing import TYPE_CHECKING, Any

from seit.continual_learning.learners.registry import methods_where
from seit.errors import UsageError
from seit.models import TUNINGS

if TYPE_CHECKING:
    from seit.continual_learning.config import ContinualConfig


def check_together(config: "ContinualConfig") -> None:
    """Raise if settings contradict each other.

    Raises:
        UsageError: settings contradict each other.
    """
    _check_absent(config)
    _check_tuning(config)
    _check_memory(config)
    _check_stream(config)


def _check_absent(config: "ContinualConfig") -> None:
    """Raise if a setting is set that continual runs do not support."""
    for name in ("cutmix_prob", "mixup_prob"):
        if getattr(config.augment, name):
            raise UsageError(
                f"augment.{name} is {getattr(config.augment, name)}, but a continual run mixes "
                "no samples; set it to 0"
            )
    absent: dict[str, tuple[Any, Any]] = {
        "ema.decay": (config.ema.decay, 0),
        "sparsity.share": (config.sparsity.share, 0),
        "optim.accumulate": (config.optim.accumulate, 1),
        "optim.layer_decay": (config.optim.layer_decay, 1),
        "data.order": (config.data.order, "global"),
        "data.window_blocks": (config.data.window_blocks, type(config.data)().window_blocks),
        "run.compile": (config.run.compile, False),
        "run.eval_every": (config.run.eval_every, 0),
    }
    for name, (value, expected) in absent.items():
        if value != expected:
            raise UsageError(
                f"{name} is {value}, which a continual run does not have; set it to {expected}"
            )
    if config.data.mode == "streaming":
        raise UsageError(
            "data.mode is streaming, but tasks are read by rows; set it to auto, which keeps "
            "splits in memory"
        )
    if config.data.pixels is not None:
        raise UsageError("data.pixels is set, but a continual run takes tokens; leave it out")
    if config.mask != "auto" and config.learner.masks is None:
        raise UsageError(
            f"mask is {config.mask}, but the method {config.method} has no cross-entropy of new "
            "samples; set it to auto"
        )


def _check_tuning(config: "ContinualConfig") -> None:
    tuned = config.effective_tuning.method
    if config.learner.averages_weights and TUNINGS[tuned].drops_ranks:
        raise UsageError(
            f"tuning.method is {tuned}, which takes ranks away, and the average of weights that "
            f"{config.method} keeps would hold them; choose another, such as --pet lora"
        )


def _check_memory(config: "ContinualConfig") -> None:
    if config.learner.uses_memory and not config.memory.bytes:
        raise UsageError(
            f"the method {config.method} keeps samples and memory.bytes is 0; say how many bytes "
            "they may take, such as --memory 100000"
        )
    if not config.learner.uses_memory and config.memory.bytes:
        raise UsageError(
            f"memory.bytes is {config.memory.bytes}, but the method {config.method} keeps no "
            f"samples; set it to 0, or choose {methods_where(uses_memory=True)}"
        )
    usual = type(config.memory)()
    for name in ("medium", "batch_size"):
        value, expected = getattr(config.memory, name), getattr(usual, name)
        if not config.learner.uses_memory and value != expected:
            raise UsageError(
                f"memory.{name} is {value}, but the method {config.method} keeps no samples; leave "
                f"it out, or choose {methods_where(uses_memory=True)}"
            )
    keeps_pictures = config.learner.uses_memory and config.memory.medium != "tokens"
    if keeps_pictures and config.memory.source is None:
        raise UsageError(
            f"memory.medium is {config.memory.medium}, which keeps pictures, and memory.source "
            "names none; set it to the SRC that the store was made from"
        )
    if config.memory.source is not None and not keeps_pictures:
        raise UsageError(
            f"memory.source is {config.memory.source}, but no pictures are kept; leave it out, "
            "or set memory.medium to raw, png or jpeg:75"
        )
    if config.memory.root is not None and config.memory.source is None:
        raise UsageError(
            f"memory.root is {config.memory.root!r}, which is for a table of memory.source; name "
            "that too, or leave it out"
        )
    if config.memory.policy != "auto" and not (
        config.learner.uses_memory and config.learner.policy is None
    ):
        raise UsageError(
            f"memory.policy is {config.memory.policy}, which the method {config.method} ignores; "
            f"set it to auto, or choose {methods_where(uses_memory=True, policy=None)}"
        )


def _check_stream(config: "ContinualConfig") -> None:
    stream = config.stream
    usual = type(stream)()
    if stream.kind == "domain" and stream.domains is None:
        raise UsageError(
            "a domain stream needs stream.domains: a CSV file of key and domain, or folder"
        )
    fitting = {
        "domains": (stream.domains is not None, ("domain",)),
        "initial": (stream.initial is not None, ("class", "online")),
        "order": (stream.order != "natural", ("class", "online", "blurry")),
        "eval_every": (stream.eval_every > 0, ("online", "blurry")),
        **{
            name: (getattr(stream, name) != getattr(usual, name), ("blurry",))
            for name in ("tasks", "disjoint_share", "blur_share")
        },
    }
    for name, (is_set, kinds) in fitting.items():
        if is_set and stream.kind not in kinds:
            raise UsageError(
                f"stream.{name} is {getattr(stream, name)}, which a stream of the kind "
                f"{stream.kind} does not have; leave it out, or choose {' or '.join(kinds)}"
            )
    if stream.kind == "domain" and config.learner.needs_new_classes:
        others = methods_where(uses_memory=True, needs_new_classes=False)
        raise UsageError(
            f"{config.method} takes earlier classes from the network before a task, which in a "
            f"domain stream are all; choose {others}"
        )
    if config.learner.mixes_tasks and config.mask == "task":
        raise UsageError(
            f"mask is task, but {config.method} training shows samples of all tasks so far; "
            "set it to seen"
        )
    if config.task_free and config.mask == "task":
        raise UsageError(
            f"mask is task, which a {stream.kind} stream does not tell; set it to seen"
        )
    if config.task_free and config.learner.needs_tasks:
        raise UsageError(
            f"the method {config.method} must know when tasks begin, which a stream of the kind "
            f"{config.stream.kind} does not tell; choose {methods_where(needs_tasks=False)}"
        )
