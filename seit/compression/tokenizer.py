"""Quantization of a tokenizer's weights, for those who insist: another tokenizer, with other ids.

The weights are stored in few bits and unpacked to compute in float, so that ids do not depend on
the processor's kernels for 8 bits, some of which saturate. Ids still change: latents near the
border between two codes cross it.

Legend: n inputs, H W token grid.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch
from torch import Tensor

from seit.compression.weights.grids import fit_grid
from seit.compression.weights.registry import CLIPS
from seit.errors import UsageError
from seit.files import check_new_file
from seit.ingest import TokenizeConfig, held_out_remarks, list_corpus, make_reader, sample_inputs
from seit.outcomes import Outcome
from seit.packed_weights import MAX_BITS, PackedWeight
from seit.tokenizers import (
    Tokenizer,
    UnitQuality,
    measure_quality,
    open_tokenizer,
    save_tokenizer,
    tokenizer_bytes,
)

LEAST_BITS = 2
_LEAST_VALUES = 256
"""Smaller weights stay as they are: their scales would outweigh them."""
WARNING = (
    "the new file is another tokenizer: it gives other ids to the same input; never put tokens of "
    "both into one store, and train again on tokens of the new one"
)


@dataclass(frozen=True, kw_only=True, repr=False)
class QuantizedTokenizer(Outcome):
    """Result of quantizing a tokenizer, on held-out inputs.

    Attributes:
        file: the new tokenizer's file.
        tokenizer: name or file of the original.
        fingerprint: of the new tokenizer.
        fingerprint_before: of the original.
        bits: bits of a quantized weight.
        weights: number of quantized weights.
        inputs: number of images or windows of sound that were compared.
        ids_changed: share of ids that are others, 0–1.
        inputs_changed: share of inputs with any such id, 0–1.
        psnr_db: quality of the new tokenizer's reconstructions from its own ids, in dB.
        psnr_db_before: that of the original.
        bytes: size of the new file, codebook included.
        bytes_before: that of the original.
        milliseconds: median time to encode an input.
        milliseconds_before: that of the original, measured in turn with it.
        warning: what to keep in mind.
        remarks: remarks about the corpus.
    """

    file: str
    tokenizer: str
    fingerprint: str
    fingerprint_before: str
    bits: int
    weights: int
    inputs: int
    ids_changed: float
    inputs_changed: float
    psnr_db: float
    psnr_db_before: float
    bytes: int
    bytes_before: int
    milliseconds: float
    milliseconds_before: float
    warning: str = WARNING
    remarks: tuple[str, ...] = ()


def quantize_tokenizer(
    tokenizer: str | Path,
    source: str | Path,
    *,
    out: Path,
    bits: int = MAX_BITS,
    group: int = 0,
    images: int = 128,
    overwrite: bool = False,
) -> QuantizedTokenizer:
    """Write a tokenizer with weights of few bits, and compare its ids with the original's.

    Args:
        tokenizer: name or file of a tokenizer with a trained network.
        source: a corpus to compare on, as for `seit tokenize`; its val split if it has one.
        out: a new .safetensors file.
        bits: bits of a weight, 2–8.
        group: inputs of a weight that share a scale; 0 for all of an output channel.
        images: number of images or windows to compare on.
        overwrite: replace ``out``.

    Raises:
        UsageError: the tokenizer has no network, is quantized already, or a setting is invalid.
        SeitError: nothing in the corpus is readable, or the file cannot be written.
    """
    if not LEAST_BITS <= bits <= MAX_BITS:
        raise UsageError(f"bits is {bits}; expected {LEAST_BITS} to {MAX_BITS}")
    for name, value, least in (("group", group, 0), ("images", images, 1)):
        if value < least:
            raise UsageError(f"{name} is {value}; expected at least {least}")
    check_new_file(out, overwrite=overwrite)
    original = open_tokenizer(tokenizer)
    quantized = with_few_bits(original, bits=bits, group=group)
    corpus = list_corpus(source, modality=original.modality)
    with make_reader(TokenizeConfig(inputs=original.inputs)) as reader:
        inputs = sample_inputs(corpus, reader, count=images, split="val")
    (before, after), milliseconds = _encoded((original, quantized), inputs)
    changed = (before != after).flatten(1)
    save_tokenizer(quantized, out)
    return QuantizedTokenizer(
        file=str(out),
        tokenizer=str(tokenizer),
        fingerprint=quantized.fingerprint,
        fingerprint_before=original.fingerprint,
        bits=bits,
        weights=sum(one.codes.numel() for one in quantized.packed.values()),
        inputs=len(inputs),
        ids_changed=float(changed.double().mean()),
        inputs_changed=float(changed.any(1).double().mean()),
        psnr_db=_psnr(quantized, inputs),
        psnr_db_before=_psnr(original, inputs),
        bytes=out.stat().st_size,
        bytes_before=len(tokenizer_bytes(original, with_codebook=True)),
        milliseconds=milliseconds[1],
        milliseconds_before=milliseconds[0],
        remarks=(*corpus.warnings, *held_out_remarks(corpus)),
    )


def with_few_bits(tokenizer: Tokenizer, *, bits: int, group: int = 0) -> Tokenizer:
    """Return a tokenizer whose matrices and convolutions are rounded to few bits.

    Biases, norms, the codebook and small weights stay as they are: the nearest code of a latent is
    found in float32. The range of each group is that of least squared error.

    Args:
        tokenizer: a tokenizer with a trained network.
        bits: bits of a weight, 2–8.
        group: inputs of a weight that share a scale; 0 for all of an output channel.

    Raises:
        UsageError: it has none, or is quantized already.
    """
    if tokenizer.packed:
        raise UsageError("the tokenizer is quantized already; name the one that it was made from")
    tensors = tokenizer.tensors()
    if not tokenizer.has_packable_weights or not tensors:
        raise UsageError(
            f"a {tokenizer.name} tokenizer has no network whose weights can be stored in few bits; "
            "choose a trained one, such as conv-vq-f8-1024"
        )
    packed = {
        name: _packed(one, bits=bits, group=group)
        for name, one in tensors.items()
        if one.ndim > 1 and one.is_floating_point() and one.numel() >= _LEAST_VALUES
    }
    values = {name: one.dense().to(tensors[name]) for name, one in packed.items()}
    made = type(tokenizer).restore(tokenizer.codebook, {**tensors, **values}, tokenizer.settings())
    made.packed = packed
    return made


def _packed(weight: Tensor, *, bits: int, group: int) -> PackedWeight:
    grid = fit_grid(weight.float(), bits=bits, group=group, clip=CLIPS["mse"])
    return grid.pack(grid.columns.encode(weight.float().flatten(1)))


@torch.inference_mode()
def _encoded(tokenizers: Sequence[Tokenizer], inputs: Tensor) -> tuple[list[Tensor], list[float]]:
    """Return the ids (n, H, W) of inputs by each tokenizer, and the median milliseconds of one.

    The tokenizers take turns, so that a busy machine slows all of them alike.
    """
    ids: list[list[Tensor]] = [[] for _ in tokenizers]
    seconds: list[list[float]] = [[] for _ in tokenizers]
    for tokenizer in tokenizers:
        tokenizer.encode(inputs[:1])  # warm up
    for one in inputs.split(1):
        for tokenizer, found, spent in zip(tokenizers, ids, seconds, strict=True):
            started = time.perf_counter()
            found.append(tokenizer.encode(one))
            spent.append(time.perf_counter() - started)
    return [torch.cat(found) for found in ids], [1e3 * median(spent) for spent in seconds]


def _psnr(tokenizer: Tokenizer, inputs: Tensor) -> float:
    with torch.inference_mode():
        quality = measure_quality(tokenizer, inputs)
    assert not isinstance(quality, UnitQuality), "units have no weights to quantize"
    return quality.psnr_db
