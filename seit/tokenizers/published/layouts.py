"""Detection of a checkpoint's published kind, by the names of its layers.

Two kinds can share an architecture and differ in how codes are compared, so a checkpoint loaded as
another kind may yield wrong ids without an error. It is refused here, with the right kind named.
"""

from collections.abc import Callable, Mapping

from seit.tokenizers.published.checkpoints import StateDict

WRAPPERS = ("module.", "_orig_mod.", "model.", "vqvae.", "vq_model.", "tokenizer.", "net.")
"""Prefixes of all names, added by DataParallel, torch.compile, Lightning and others."""
FIRST_STAGE = "first_stage_model."
"""Prefix of the autoencoder in latent-diffusion, next to an entire diffusion model."""
_MAX_WRAPPERS = 8


def unwrapped(weights: StateDict) -> StateDict:
    """Return the weights without known prefixes; of a latent-diffusion model, its autoencoder."""
    for _ in range(_MAX_WRAPPERS):
        if any(key.startswith(FIRST_STAGE) for key in weights):
            weights = weights.renamed(
                lambda key: key.removeprefix(FIRST_STAGE) if key.startswith(FIRST_STAGE) else None
            )
            continue
        shared = (p for p in WRAPPERS if all(key.startswith(p) for key in weights))
        prefix = next(shared, None)
        if prefix is None:
            break
        weights = weights.replaced({key.removeprefix(prefix): x for key, x in weights.items()})
    return weights


def check_kind(weights: StateDict) -> None:
    """Refuse a checkpoint with the layers of another kind than expected.

    Raises:
        UsageError: it is of another kind, which the message names.
    """
    found = recognize(weights)
    if found == weights.kind or found is None:
        return
    if found == _WITHOUT_CODES:
        raise weights.refusal(
            "it is a KL autoencoder, as Stable Diffusion has, without codes; give a VQ checkpoint, "
            "or fit codes on a taesd"
        )
    raise weights.refusal(f"its layers are those of {found}; name it {found}")


def recognize(weights: StateDict) -> str | None:
    """Return the kind with these layers; None if it is unknown."""
    return next((kind for kind, fits in _LAYOUTS.items() if fits(weights)), None)


def _is_convolutional(weights: StateDict) -> bool:
    return "encoder.conv_in.weight" in weights


def _has_codes(weights: StateDict) -> bool:
    return any(key.startswith(("quantize.", "quantizer.")) for key in weights)


_WITHOUT_CODES = "KL autoencoder"
_LAYOUTS: Mapping[str, Callable[[StateDict], bool]] = {
    "vitvqgan": lambda weights: weights.holds("encoder.to_patch_embedding"),
    "llamagen": lambda weights: weights.holds("encoder.conv_blocks"),
    "open-magvit2": lambda weights: weights.holds("decoder.adaptive"),
    "mimi": lambda weights: weights.holds("quantizer.semantic_residual_vector_quantizer"),
    "dac": lambda weights: weights.holds("quantizer.quantizers"),
    "encodec": lambda weights: weights.holds("quantizer.layers"),
    "vqgan": lambda weights: _is_convolutional(weights) and _has_codes(weights),
    _WITHOUT_CODES: lambda weights: (
        _is_convolutional(weights) and not _has_codes(weights) and "quant_conv.weight" in weights
    ),
    "taesd": lambda weights: weights.holds("encoder.layers") and weights.holds("decoder.layers"),
}
