"""Networks of runs, built for the inputs of a feed or loaded from a finished run."""

from collections.abc import Mapping

from torch import Tensor, device as Device, nn

from seit.augment import PixelAugment, StoredTokens, TokenAugment
from seit.errors import UsageError
from seit.models import (
    PROGRAM_NAME,
    TUNINGS,
    OnnxClassifier,
    Structure,
    TuningConfig,
    build_backbone,
    load_weights,
    make_tuning,
    takes_patches,
    vit_pixel_stem,
)
from seit.tokenizers import ImageInputs, Tokenizer
from seit.training.config import ModelConfig
from seit.training.run import Run


def build_model(
    config: ModelConfig,
    augment: TokenAugment | PixelAugment,
    *,
    num_classes: int,
    patch_size: int,
    weights: Mapping[str, Tensor] | None = None,
    structure: Structure | None = None,
) -> nn.Module:
    """Build the backbone for the inputs that ``augment`` produces.

    For pixels, a ViT's patches cover as many pixels as the token stem's stride, so that both
    networks have the same sequence length, if the crop's sides are multiples of it; a written-out
    stem of several layers is one over pixels. Other backbones, and ViTs without a stem, keep
    their own.
    """
    stem = config.stem
    if isinstance(augment, PixelAugment):
        stem = pixel_stem(config, augment.output_size, patch_size)
    return build_backbone(
        config.name,
        channels=augment.channels,
        input_size=augment.output_size,
        stem=stem,
        num_classes=num_classes,
        weights=weights,
        structure=structure,
        **config.timm_kwargs(),
    )


def pixel_stem(config: ModelConfig, size: tuple[int, int], patch_size: int) -> str:
    """Return the stem of a pixel baseline; see `build_model`.

    Args:
        config: settings of the backbone.
        size: size of the images, in pixels.
        patch_size: pixels per token along a side.
    """
    if config.stem == "none" or not takes_patches(config.name, **config.timm_kwargs()):
        return "none"
    grid = (size[0] // patch_size, size[1] // patch_size)
    return str(vit_pixel_stem(config.stem, grid, patch_size))


def load_run_model(
    run: Run, augment: TokenAugment | PixelAugment, tokenizer: Tokenizer, device: Device
) -> nn.Module:
    """Load the network of a finished run, with its final weights, on ``device``.

    Includes tuning modules that cannot be folded into weights, and what compression changed.

    Raises:
        UsageError: the run has not finished.
        DamagedError: its weights are corrupt.
    """
    inputs, (weights, compression) = tokenizer.inputs, run.load_stored()
    rows = tokenizer.grid[0] // tokenizer.levels
    model = build_model(
        run.config.model,
        augment,
        num_classes=len(run.classes),
        patch_size=inputs.size // rows if isinstance(inputs, ImageInputs) else 1,
        weights=weights,
        structure=compression.structure,
    )
    tuning = modules_of(run)
    if tuning is not None:
        make_tuning(tuning).attach(model)
    compression.attach(model, origin=str(run.path))
    load_weights(model, weights, origin=str(run.path))
    return model.to(device)


def load_classifier(
    run: Run, augment: TokenAugment | PixelAugment, tokenizer: Tokenizer, device: Device
) -> tuple[nn.Module, TokenAugment | PixelAugment]:
    """Load the network by which a finished run predicts classes, and what makes its inputs.

    It is the network of `load_run_model`, or the file in which a compressed run is deployed, which
    takes ids and runs on the CPU.

    Args:
        run: the run.
        augment: evaluation inputs of the run's network.
        tokenizer: the run's tokenizer.
        device: device of the network and of the ids.

    Raises:
        UsageError: the run has not finished, or what runs its file is not installed.
        DamagedError: its files are corrupt.
    """
    if not run.compression.program:
        return load_run_model(run, augment, tokenizer, device), augment
    path, grid = run.finished_file(PROGRAM_NAME), tokenizer.grid
    program = OnnxClassifier.load(path, grid=grid, num_classes=len(run.classes))
    return program, StoredTokens(tokenizer.codebook, grid).to(device)


def check_one_network(run: Run) -> None:
    """Check that a run is one network.

    Raises:
        UsageError: it is a continual run, or has no network over tokens.
    """
    _ = run.settings  # refuses a run without a network over tokens
    if not run.kind.one_network:
        raise UsageError(
            f"{run.path} is a continual run, whose learners need not be one network; use the run "
            "that it was started from"
        )


def check_plain(run: Run) -> None:
    """Check that a run's weights are those of a plain backbone.

    Raises:
        UsageError: the run has tuning modules that cannot be folded into weights, is a continual
            run, or has no network over tokens.
    """
    check_one_network(run)
    tuning = modules_of(run)
    if tuning is not None:
        raise UsageError(
            f"{run.path} was tuned by {tuning.method}, whose modules are no weights of a "
            "plain backbone; use the run that it was started from, or tune by "
            f"{', '.join(name for name, one in TUNINGS.items() if one.mergeable)}"
        )


def modules_of(run: Run) -> TuningConfig | None:
    """Return the tuning whose modules a run's weights include; None if there is none."""
    config = getattr(run.settings, "tuning", None)
    if not isinstance(config, TuningConfig) or not run.kind.one_network:
        return None
    return None if TUNINGS[config.method].mergeable else config
