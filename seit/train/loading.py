"""The networks of finished runs."""

from torch import device as Device
from torch import nn

from seit.augment import PixelAugment, TokenAugment
from seit.models import load_weights
from seit.tokenizers.base import ImageInputs, Tokenizer
from seit.train.feeds import build_model
from seit.train.run import Run


def load_run_model(
    run: Run, augment: TokenAugment | PixelAugment, tokenizer: Tokenizer, device: Device
) -> nn.Module:
    """The network of a finished run, with the weights to use, on ``device``.

    Raises:
        UsageError: the run has not finished.
        DamagedError: its weights are not what was written.
    """
    inputs = tokenizer.inputs
    rows = tokenizer.grid[0] // tokenizer.levels
    model = build_model(
        run.config.model,
        augment,
        num_classes=len(run.classes),
        patch_size=inputs.size // rows if isinstance(inputs, ImageInputs) else 1,
    )
    load_weights(model, run.load_weights(), origin=str(run.path))
    return model.to(device)
