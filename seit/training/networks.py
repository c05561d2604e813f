"""The networks of finished runs."""

from torch import device as Device, nn

from seit.augment import PixelAugment, TokenAugment
from seit.errors import UsageError
from seit.models import Tuning, TuningConfig, load_weights, make_tuning
from seit.tokenizers import ImageInputs, Tokenizer
from seit.training.feeds import build_model
from seit.training.run import Run


def load_run_model(
    run: Run, augment: TokenAugment | PixelAugment, tokenizer: Tokenizer, device: Device
) -> nn.Module:
    """The network of a finished run, with the weights to use, on ``device``.

    That of a tuning whose modules cannot be folded into weights has them.

    Raises:
        UsageError: the run has not finished.
        DamagedError: its weights are not what was written.
    """
    inputs, weights = tokenizer.inputs, run.load_weights()
    rows = tokenizer.grid[0] // tokenizer.levels
    model = build_model(
        run.config.model,
        augment,
        num_classes=len(run.classes),
        patch_size=inputs.size // rows if isinstance(inputs, ImageInputs) else 1,
        weights=weights,
    )
    tuning = _modules_of(run)
    if tuning is not None:
        tuning.attach(model)
    load_weights(model, weights, origin=str(run.path))
    return model.to(device)


def check_plain(run: Run) -> None:
    """Check that a run's weights are those of a backbone alone.

    Raises:
        UsageError: it was tuned by modules that cannot be folded into weights, is a continual run,
            or has no network over tokens.
    """
    tuning = _modules_of(run)
    if not run.kind.one_network:
        raise UsageError(
            f"{run.path} is a continual run, whose learners need not be one network; use the run "
            "that it was started from"
        )
    if tuning is not None:
        raise UsageError(
            f"{run.path} was tuned by {tuning.config.method}, whose modules are no weights of a "
            "plain backbone; use the run that it was started from, or tune by lora, adalora, "
            "bitfit or full"
        )


def _modules_of(run: Run) -> Tuning | None:
    """The tuning whose modules a run's weights are of too, not attached; None without any."""
    config = getattr(run.settings, "tuning", None)
    if not isinstance(config, TuningConfig) or not run.kind.one_network:
        return None
    tuning = make_tuning(config)
    return None if tuning.mergeable else tuning
