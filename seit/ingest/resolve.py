"""Resolution of the tokenizer that the settings of a job name."""

from dataclasses import replace
from pathlib import Path

from seit.errors import UsageError
from seit.ingest.config import AUTO, DEFAULT_SIZE, TokenizeConfig
from seit.tokenizers import (
    PRESETS,
    TOKENIZERS,
    ImageInputs,
    PatchTokenizer,
    Tokenizer,
    open_tokenizer,
    with_backbone,
)

_SHIPPED, _SHIPPED_CODES = "conv-vq-f8-1024-lite", 1024


def resolve_tokenizer(config: TokenizeConfig) -> tuple[TokenizeConfig, Tokenizer | None]:
    """Load a tokenizer from the package or a file, and resolve its inputs.

    Returns:
        The config with ``inputs`` and, for images, ``size``; the tokenizer, or None if it is to be
        fitted on the corpus.

    Raises:
        UsageError: the tokenizer does not exist, or takes another image size.
    """
    if config.tokenizer == AUTO:
        serves = config.size in (None, DEFAULT_SIZE) and config.fitted_codes == _SHIPPED_CODES
        config = replace(config, tokenizer=_SHIPPED if serves else PatchTokenizer.name)
    preset = PRESETS.get(config.tokenizer)
    if preset:
        _refuse_backbone(config)
        if preset.modality == "image":
            _refuse_audio_settings(config)
            size = config.size or DEFAULT_SIZE
            return replace(config, size=size, inputs=preset.inputs(size=size)), None
        _refuse_image_settings(config)
        ready = preset.ready()
        if ready is not None:
            _check_codes(config, ready)
        return replace(config, inputs=preset.inputs(size=DEFAULT_SIZE)), ready
    if config.tokenizer in TOKENIZERS and not Path(config.tokenizer).is_file():
        raise UsageError(
            f"a {config.tokenizer} tokenizer is not fitted by a job; pass the file of one, or "
            f"one of {', '.join(PRESETS)}"
        )
    tokenizer = with_own_backbone(open_tokenizer(config.tokenizer), config)
    _check_codes(config, tokenizer)
    inputs = tokenizer.inputs
    if not isinstance(inputs, ImageInputs):
        _refuse_image_settings(config)
        return replace(config, inputs=inputs), tokenizer
    _refuse_audio_settings(config)
    if config.size not in (None, inputs.size):
        raise UsageError(
            f"{config.tokenizer} takes images of {inputs.size} px but size is "
            f"{config.size}; pass --size {inputs.size} or leave it out"
        )
    return replace(config, size=inputs.size, inputs=inputs), tokenizer


def _check_codes(config: TokenizeConfig, tokenizer: Tokenizer) -> None:
    if config.codes not in (None, tokenizer.num_codes):
        raise UsageError(
            f"{config.tokenizer} has {tokenizer.num_codes:,} codes but codes is {config.codes:,}; "
            "leave --codes out, or name a tokenizer that is fitted"
        )


def _refuse_image_settings(config: TokenizeConfig) -> None:
    if config.views > 1:
        raise UsageError(
            f"{config.tokenizer} takes audio but views is {config.views}; only images have views"
        )
    if config.size is not None:
        raise UsageError(
            f"{config.tokenizer} takes audio but size is {config.size}; leave --size out"
        )
    if config.max_pixels != TokenizeConfig.max_pixels:
        raise UsageError(
            f"{config.tokenizer} takes audio but max_pixels is {config.max_pixels:,}; leave "
            "--max-pixels out"
        )


def _refuse_audio_settings(config: TokenizeConfig) -> None:
    if config.max_seconds != TokenizeConfig.max_seconds:
        raise UsageError(
            f"{config.tokenizer} takes images but max_seconds is {config.max_seconds:g}; leave "
            "--max-seconds out"
        )


def with_own_backbone(tokenizer: Tokenizer, config: TokenizeConfig) -> Tokenizer:
    """Return the tokenizer of a job with the speech model that its settings name.

    Raises:
        UsageError: units lack it, or others have one; see :func:`seit.tokenizers.with_backbone`.
    """
    return with_backbone(tokenizer, config.backbone, download=config.download)


def _refuse_backbone(config: TokenizeConfig) -> None:
    if config.backbone is not None:
        raise UsageError(
            f"{config.tokenizer} uses no speech model; leave --backbone out, or pass a file of "
            "`seit tokenizer units` as --tokenizer"
        )
