"""Exported networks: ids, images or waveforms → logits.

Each includes every step of evaluation, such as the crop and the codebook look-up.

Legend: B batch, S image side, T samples, H W stored grid, N classes.
"""

import math
from collections.abc import Mapping
from typing import Literal, TypeVar, get_args

import torch
from torch import Tensor, nn
from typing_extensions import override

from seit.augment import AugmentConfig, PixelAugment, TokenAugment
from seit.errors import DamagedError, UsageError
from seit.exports.encoders import make_encoder
from seit.exports.spec import ExportSpec
from seit.tokenizers import Tokenizer

InputKind = Literal["tokens", "images", "audio"]
INPUT_KINDS: tuple[InputKind, ...] = get_args(InputKind)
Outputs = tuple[Tensor, ...]
_Network = TypeVar("_Network", bound=nn.Module)


class TokenClassifier(nn.Module):
    """Ids (B, H, W) int64 → logits (B, N) float32: center crop, look-up, backbone."""

    input_name = "tokens"
    output_names = ("logits",)

    def __init__(self, augment: TokenAugment, backbone: nn.Module) -> None:
        super().__init__()
        self.augment = augment
        self.backbone = backbone

    @override
    def forward(self, tokens: Tensor) -> Outputs:
        return (self.backbone(self.augment.evaluate(tokens)).float(),)


class PixelClassifier(nn.Module):
    """Images uint8 (B, S, S, 3) → logits (B, N) float32: center crop, normalization, backbone."""

    input_name = "images"
    output_names = ("logits",)

    def __init__(self, augment: PixelAugment, backbone: nn.Module) -> None:
        super().__init__()
        self.augment = augment
        self.backbone = backbone

    @override
    def forward(self, images: Tensor) -> Outputs:
        return (self.backbone(self.augment.evaluate(images.permute(0, 3, 1, 2))).float(),)


class RawClassifier(nn.Module):
    """Images uint8 (B, S, S, 3) or waveforms float32 (B, T) → logits (B, N) and ids (B, H, W)."""

    output_names = ("logits", "tokens")

    def __init__(self, input_name: str, encoder: nn.Module, classifier: TokenClassifier) -> None:
        super().__init__()
        self.input_name = input_name
        self.encoder = encoder
        self.classifier = classifier

    @override
    def forward(self, inputs: Tensor) -> Outputs:
        tokens = self.encoder(inputs)
        return (*self.classifier(tokens), tokens)


class RawEncoder(nn.Module):
    """Images uint8 (B, S, S, 3) or waveforms float32 (B, T) → ids (B, H, W)."""

    output_names = ("tokens",)

    def __init__(self, input_name: str, encoder: nn.Module) -> None:
        super().__init__()
        self.input_name = input_name
        self.encoder = encoder

    @override
    def forward(self, inputs: Tensor) -> Outputs:
        return (self.encoder(inputs),)


Graph = TokenClassifier | PixelClassifier | RawClassifier


def make_graphs(
    spec: ExportSpec, backbone: nn.Module, tokenizer: Tokenizer
) -> tuple[Mapping[InputKind, Graph], Mapping[InputKind, str]]:
    """Return the networks of an exported model by input, in evaluation mode without gradients.

    Returns:
        The networks; and for each other kind of input that the run supports, why it has no network.
    """
    if spec.reads == "pixels":
        pixels = PixelClassifier(_pixel_augment(spec), backbone)
        return {"images": _fixed(pixels)}, {}
    return with_encoder(spec, make_token_classifier(spec, backbone, tokenizer), tokenizer)


def make_token_classifier(
    spec: ExportSpec, backbone: nn.Module, tokenizer: Tokenizer
) -> TokenClassifier:
    """Return the network that takes ids, in evaluation mode without gradients."""
    return _fixed(TokenClassifier(_token_augment(spec, tokenizer), backbone))


def with_encoder(
    spec: ExportSpec, classifier: TokenClassifier, tokenizer: Tokenizer
) -> tuple[Mapping[InputKind, Graph], Mapping[InputKind, str]]:
    """Return a network that takes ids and the one with the tokenizer, as `make_graphs` does."""
    raw: InputKind = "audio" if spec.modality == "audio" else "images"
    try:
        encoder = make_encoder(tokenizer)
    except UsageError as error:
        return {"tokens": classifier}, {raw: str(error)}
    return {"tokens": classifier, raw: _fixed(RawClassifier(raw, encoder, classifier))}, {}


def _fixed(graph: _Network) -> _Network:
    return graph.eval().requires_grad_(False)


def choose_graph(
    graphs: Mapping[InputKind, Graph], missing: Mapping[InputKind, str], kind: InputKind
) -> Graph:
    """Return the network that takes ``kind``, given the results of :func:`make_graphs`.

    Raises:
        UsageError: there is none.
    """
    if kind not in graphs:
        reason = missing.get(kind, f"it takes {' or '.join(graphs)}")
        raise UsageError(f"the model takes no {kind}: {reason}")
    return graphs[kind]


def _token_augment(spec: ExportSpec, tokenizer: Tokenizer) -> TokenAugment:
    settings = AugmentConfig(crop_size=spec.crop_size, synonym_prob=0)
    augment = TokenAugment(tokenizer.codebook, spec.size, settings)
    _check_inputs(spec, augment)
    return augment


def _pixel_augment(spec: ExportSpec) -> PixelAugment:
    augment = PixelAugment(spec.size, AugmentConfig(crop_size=spec.crop_size))
    _check_inputs(spec, augment)
    return augment


def _check_inputs(spec: ExportSpec, augment: TokenAugment | PixelAugment) -> None:
    found = (augment.channels, *augment.output_size)
    expected = (spec.model.channels, *spec.model.input_size)
    if found != expected:
        raise DamagedError(f"the model takes inputs {expected} and is given {found}; export again")


def example_inputs(graph: Graph, spec: ExportSpec, batch: int, *, seed: int = 0) -> Tensor:
    """Return random inputs of a network: ids, smooth images with noise, or tones in noise."""
    generator = torch.Generator().manual_seed(seed)
    if isinstance(graph, TokenClassifier):
        num_codes = spec.tokenizer.codebook[-2]
        return torch.randint(num_codes, (batch, *spec.size), generator=generator)
    if graph.input_name == "audio":
        times = torch.arange(int(spec.preprocessing["window"])) / spec.preprocessing["sample_rate"]
        pitches = 100 + 2000 * torch.rand(batch, 1, generator=generator)
        noise = torch.randn(batch, len(times), generator=generator)
        waves: Tensor = 0.3 * (2 * math.pi * pitches * times).sin() + 0.02 * noise
        return waves
    side = int(spec.preprocessing["size"])
    coarse = torch.rand(batch, 3, 6, 6, generator=generator)
    smooth = nn.functional.interpolate(coarse, size=(side, side), mode="bicubic")
    noisy = smooth + 0.05 * torch.randn(smooth.shape, generator=generator)
    return (noisy.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()
