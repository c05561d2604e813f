"""Published tokenizers: tiny networks in the published layouts, against their makers' libraries."""

import argparse
import collections
import json
import math
import os
import pickle
import sys
import types
import zipfile
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional

from seit.cli import main
from seit.errors import DamagedError, SeitError, UsageError
from seit.tokenizers import (
    decode_pictures,
    files as tokenizer_files,
    load_tokenizer,
    measure_quality,
    save_tokenizer,
)
from seit.tokenizers.files import stored_tokenizer_bytes
from seit.tokenizers.published import KINDS, load_published
from seit.tokenizers.published.checkpoints import StateDict, read_checkpoint, read_codes

SIDE = 16


def noise(*shape, seed=0, scale=0.3):
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def pictures(count=3, side=SIDE, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, side, side, 3), generator=generator, dtype=torch.uint8)


def planes(images, low=-1.0):
    return images.permute(0, 3, 1, 2).float() / 255 * (1 - low) + low


def pixels(values, low=-1.0):
    scaled = ((values - low) / (1 - low) * 255).round().clamp(0, 255)
    return scaled.to(torch.uint8).permute(0, 2, 3, 1)


def filled(shapes, seed=0):
    """A random state dict: norms near one, the rest small."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for key, shape in shapes.items():
        values = torch.randn(shape, generator=generator)
        is_scale = len(shape) == 1 and "norm" in key and key.endswith("weight")
        state[key] = 1 + 0.1 * values if is_scale else 0.2 * values
    return state


def linear(key, *shape, bias=True):
    return {f"{key}.weight": shape} | ({f"{key}.bias": shape[:1]} if bias else {})


def norm(key, width):
    return linear(key, width)


def residual(key, width_in, width_out, *, bias=True):
    shapes = {
        **norm(f"{key}.norm1", width_in),
        **linear(f"{key}.conv1", width_out, width_in, 3, 3, bias=bias),
        **norm(f"{key}.norm2", width_out),
        **linear(f"{key}.conv2", width_out, width_out, 3, 3, bias=bias),
    }
    if width_in != width_out:
        shapes |= linear(f"{key}.nin_shortcut", width_out, width_in, 1, 1, bias=bias)
    return shapes


def attention(key, width):
    parts = (linear(f"{key}.{name}", width, width, 1, 1) for name in ("q", "k", "v", "proj_out"))
    return norm(f"{key}.norm", width) | {
        name: shape for part in parts for name, shape in part.items()
    }


def taming_shapes(*, channels=32, widths=(1, 2), blocks=1, features=8, dim=4, codes=24):
    """Attention at the coarsest level and in the middle, as LlamaGen and most VQGANs have it."""
    last = len(widths) - 1
    wide = channels * widths[last]
    shapes = linear("encoder.conv_in", channels, 3, 3, 3)
    width = channels
    for level, factor in enumerate(widths):
        for block in range(blocks):
            shapes |= residual(f"encoder.down.{level}.block.{block}", width, channels * factor)
            width = channels * factor
            if level == last:
                shapes |= attention(f"encoder.down.{level}.attn.{block}", width)
        if level != last:
            shapes |= linear(f"encoder.down.{level}.downsample.conv", width, width, 3, 3)
    for half in ("encoder", "decoder"):
        shapes |= residual(f"{half}.mid.block_1", wide, wide)
        shapes |= attention(f"{half}.mid.attn_1", wide)
        shapes |= residual(f"{half}.mid.block_2", wide, wide)
    shapes |= norm("encoder.norm_out", wide)
    shapes |= linear("encoder.conv_out", features, wide, 3, 3)
    shapes |= linear("quant_conv", dim, features, 1, 1)
    shapes |= {"quantize.embedding.weight": (codes, dim)}
    shapes |= linear("post_quant_conv", features, dim, 1, 1)
    shapes |= linear("decoder.conv_in", wide, features, 3, 3)
    for level in reversed(range(len(widths))):
        for block in range(blocks + 1):
            out = channels * widths[level]
            shapes |= residual(f"decoder.up.{level}.block.{block}", width, out)
            width = out
            if level == last:
                shapes |= attention(f"decoder.up.{level}.attn.{block}", width)
        if level:
            shapes |= linear(f"decoder.up.{level}.upsample.conv", width, width, 3, 3)
    return shapes | norm("decoder.norm_out", width) | linear("decoder.conv_out", 3, width, 3, 3)


def to_diffusers(state):
    """Taming's names → those of diffusers' VQModel of two levels."""
    out = {}
    for key, tensor in state.items():
        name = key
        for level in (0, 1):
            name = name.replace(f"encoder.down.{level}.", f"encoder.down_blocks.{level}.")
            name = name.replace(f"decoder.up.{level}.", f"decoder.up_blocks.{1 - level}.")
        name = name.replace(".mid.block_1.", ".mid_block.resnets.0.")
        name = name.replace(".mid.block_2.", ".mid_block.resnets.1.")
        name = name.replace(".mid.attn_1.", ".mid_block.attentions.0.")
        name = name.replace(".block.", ".resnets.").replace(".attn.", ".attentions.")
        name = name.replace(".downsample.", ".downsamplers.0.")
        name = name.replace(".upsample.", ".upsamplers.0.")
        name = name.replace(".nin_shortcut.", ".conv_shortcut.")
        name = name.replace("coder.norm_out.", "coder.conv_norm_out.")
        if ".attentions." in name:
            name = name.replace(".norm.", ".group_norm.").replace(".proj_out.", ".to_out.0.")
            for letter in "qkv":
                name = name.replace(f".{letter}.", f".to_{letter}.")
            tensor = tensor.flatten(1) if tensor.ndim == 4 else tensor
        out[name] = tensor
    return out


def to_llamagen(state):
    """Taming's names → LlamaGen's of two levels."""
    out = {}
    for key, tensor in state.items():
        name = key
        for level in (0, 1):
            name = name.replace(f"encoder.down.{level}.", f"encoder.conv_blocks.{level}.")
            name = name.replace(f"decoder.up.{level}.", f"decoder.conv_blocks.{1 - level}.")
        for number, part in enumerate(("block_1", "attn_1", "block_2")):
            name = name.replace(f".mid.{part}.", f".mid.{number}.")
        out[name.replace(".block.", ".res.")] = tensor
    return {**out, "quantize.codebook_used": torch.zeros(65536)}


@pytest.fixture(scope="module")
def taming():
    return filled(taming_shapes())


@pytest.fixture(scope="module")
def oracle(taming):
    """Diffusers' VQModel with the same weights."""
    diffusers = pytest.importorskip("diffusers")
    model = diffusers.VQModel(
        down_block_types=("DownEncoderBlock2D", "AttnDownEncoderBlock2D"),
        up_block_types=("AttnUpDecoderBlock2D", "UpDecoderBlock2D"),
        block_out_channels=(32, 64),
        layers_per_block=1,
        latent_channels=8,
        num_vq_embeddings=24,
        vq_embed_dim=4,
    )
    model.load_state_dict(to_diffusers(taming))
    return model.eval()


def oracle_ids(oracle, images):
    with torch.no_grad():
        latents = oracle.encode(planes(images)).latents
        return oracle.quantize(latents)[2][2].view(len(images), *latents.shape[2:])


def save_as(state, tmp_path, kind):
    """Write a state dict as its makers do."""
    path = tmp_path / f"model{kind}"
    if kind == ".safetensors":
        save_file({key: x.contiguous() for key, x in state.items()}, path)
    elif kind == ".ckpt":
        torch.save({"state_dict": {**state, "loss.logvar": torch.zeros(1)}, "epoch": 3}, path)
    else:
        torch.save(state, path)
    return path


@pytest.mark.parametrize("layout", ["taming", "diffusers"])
@pytest.mark.parametrize("kind", [".ckpt", ".safetensors"])
def test_vqgan_does_what_diffusers_does(taming, oracle, tmp_path, layout, kind):
    state = taming if layout == "taming" else to_diffusers(taming)
    tokenizer = load_published("vqgan", save_as(state, tmp_path, kind), size=SIDE)
    images = pictures()
    ids = tokenizer.encode(images)
    assert ids.shape == (3, *tokenizer.grid) == (3, 8, 8)
    assert torch.equal(ids, oracle_ids(oracle, images))
    assert len(ids.unique()) > 4
    with torch.no_grad():
        decoded = oracle.decode(
            oracle.quantize.get_codebook_entry(ids.flatten(), (3, 8, 8, 4)), force_not_quantize=True
        ).sample
    assert (tokenizer.decode(ids).int() - pixels(decoded).int()).abs().max() <= 1
    assert tokenizer.preprocessing()["values"] == "-1 to 1"


def test_llamagen_compares_on_the_unit_sphere(taming, oracle, tmp_path):
    path = tmp_path / "vq.pt"
    torch.save({"model": to_llamagen(taming), "steps": 7}, path)
    tokenizer = load_published("llamagen", path, size=SIDE)
    images = pictures()
    with torch.no_grad():
        latents = oracle.encode(planes(images)).latents.double()
    codes = functional.normalize(taming["quantize.embedding.weight"].double(), dim=1)
    similarity = torch.einsum("bchw,kc->bhwk", functional.normalize(latents, dim=1), codes)
    assert torch.equal(tokenizer.encode(images), similarity.argmax(-1))
    torch.testing.assert_close(tokenizer.codebook.double(), codes)
    assert not torch.equal(tokenizer.encode(images), oracle_ids(oracle, images))


def test_an_average_in_the_file_wins_over_the_model(taming, tmp_path):
    other = {key: x + 0.1 for key, x in to_llamagen(taming).items()}
    path = tmp_path / "vq.pt"
    torch.save({"model": other, "ema": to_llamagen(taming)}, path)
    both = load_published("llamagen", path, size=SIDE)
    alone = load_published("llamagen", save_as(to_llamagen(taming), tmp_path, ".pth"), size=SIDE)
    assert both.fingerprint == alone.fingerprint


def gumbel(taming, codes=40):
    state = {key: x for key, x in taming.items() if not key.startswith("quantize")}
    logits = {"quantize.proj.weight": (codes, 4, 1, 1), "quantize.proj.bias": (codes,)}
    return state | filled({**logits, "quantize.embed.weight": (codes, 4)}, seed=5)


def test_a_gumbel_quantiser_takes_the_likeliest_code(taming, oracle, tmp_path):
    state = gumbel(taming)
    tokenizer = load_published("vqgan", save_as(state, tmp_path, ".ckpt"), size=SIDE)
    images = pictures()
    with torch.no_grad():
        latents = oracle.encode(planes(images)).latents
        logits = functional.conv2d(
            latents, state["quantize.proj.weight"], state["quantize.proj.bias"]
        )
    assert torch.equal(tokenizer.encode(images), logits.argmax(1))
    assert torch.equal(tokenizer.codebook, state["quantize.embed.weight"])
    torch.save(torch.arange(5), tmp_path / "used.pt")
    with pytest.raises(UsageError, match="leave --remap out"):
        load_published("vqgan", tmp_path / "model.ckpt", remap=tmp_path / "used.pt")


def test_vqgan_keeps_the_codes_in_use(taming, oracle, tmp_path):
    used = np.array([21, 3, 8, 0, 15, 12])
    np.save(tmp_path / "used.npy", used)
    path = save_as(taming, tmp_path, ".ckpt")
    tokenizer = load_published("vqgan", path, size=SIDE, remap=tmp_path / "used.npy")
    assert torch.equal(tokenizer.codebook, taming["quantize.embedding.weight"][used])
    ids = oracle_ids(oracle, pictures())
    ours = torch.from_numpy(used)[tokenizer.encode(pictures())]
    kept = torch.isin(ids, torch.from_numpy(used))
    assert kept.any()
    assert torch.equal(ours[kept], ids[kept])


def test_codes_of_a_vqgan_are_known_by_direction_and_length(taming, tmp_path):
    weight = taming["quantize.embedding.weight"].clone()
    weight[5] = 0  # a code that was never trained
    path = save_as({**taming, "quantize.embedding.weight": weight}, tmp_path, ".ckpt")
    np.save(tmp_path / "used.npy", weight[[8, 5, 3]].half().float().numpy())
    tokenizer = load_published("vqgan", path, size=SIDE, remap=tmp_path / "used.npy")
    assert torch.equal(tokenizer.codebook, weight[[8, 5, 3]])
    np.save(tmp_path / "used.npy", weight[[8, 3]].numpy() * np.array([[1], [1.1]], np.float32))
    with pytest.raises(UsageError, match="1 of the 2 codes are none of this vqgan"):
        load_published("vqgan", path, size=SIDE, remap=tmp_path / "used.npy")


def vit_shapes(*, width=32, depth=2, inner=128, hidden=48, patch=4, side=4, dim=6, codes=20):
    def transformer(key):
        shapes = norm(f"{key}.norm", width)
        for layer in range(depth):
            here = f"{key}.layers.{layer}"
            shapes |= norm(f"{here}.0.norm", width)
            shapes |= linear(f"{here}.0.fn.to_qkv", 3 * inner, width, bias=False)
            shapes |= linear(f"{here}.0.fn.to_out", width, inner)
            shapes |= norm(f"{here}.1.norm", width)
            shapes |= linear(f"{here}.1.fn.net.0", hidden, width)
            shapes |= linear(f"{here}.1.fn.net.2", width, hidden)
        return shapes

    return {
        "encoder.en_pos_embedding": (1, side * side, width),
        **linear("encoder.to_patch_embedding.0", width, 3, patch, patch),
        **transformer("encoder.transformer"),
        "decoder.de_pos_embedding": (1, side * side, width),
        **transformer("decoder.transformer"),
        "decoder.to_pixel.1.weight": (width, 3, patch, patch),
        "decoder.to_pixel.1.bias": (3,),
        **linear("pre_quant", dim, width),
        **linear("post_quant", width, dim),
        "quantizer.embedding.weight": (codes, dim),
    }


def layer_norm(x, state, key):
    centred = x - x.mean(-1, keepdim=True)
    scaled = centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
    return scaled * state[f"{key}.weight"] + state[f"{key}.bias"]


def vit_forward(x, state, key, depth=2, heads=2):
    """The transformer by plain sums in float64."""
    for layer in range(depth):
        here = f"{key}.layers.{layer}"
        qkv = layer_norm(x, state, f"{here}.0.norm") @ state[f"{here}.0.fn.to_qkv.weight"].T
        q, k, v = qkv.view(*x.shape[:2], 3, heads, 64).permute(2, 0, 3, 1, 4)
        weights = (torch.einsum("bhid,bhjd->bhij", q, k) / 8).exp()
        mixed = torch.einsum("bhij,bhjd->bihd", weights / weights.sum(-1, keepdim=True), v)
        out = mixed.flatten(2) @ state[f"{here}.0.fn.to_out.weight"].T
        x = x + out + state[f"{here}.0.fn.to_out.bias"]
        hidden = layer_norm(x, state, f"{here}.1.norm") @ state[f"{here}.1.fn.net.0.weight"].T
        hidden = (hidden + state[f"{here}.1.fn.net.0.bias"]).tanh()
        x = x + hidden @ state[f"{here}.1.fn.net.2.weight"].T + state[f"{here}.1.fn.net.2.bias"]
    return layer_norm(x, state, f"{key}.norm")


@pytest.fixture(scope="module")
def vit():
    state = filled(vit_shapes(), seed=3)
    return {**state, "encoder.to_patch_embedding.0.weight": noise(32, 3, 4, 4, scale=2.0)}


def vit_latents(state, images):
    state = {key: x.double() for key, x in state.items()}
    patches = images.double() / 255
    patches = patches.view(len(images), 4, 4, 4, 4, 3).permute(0, 1, 3, 5, 2, 4)
    patches = patches.reshape(len(images), 16, 48)
    weight = state["encoder.to_patch_embedding.0.weight"].flatten(1)
    x = patches @ weight.T + state["encoder.to_patch_embedding.0.bias"]
    x = vit_forward(x + state["encoder.en_pos_embedding"], state, "encoder.transformer")
    return x @ state["pre_quant.weight"].T + state["pre_quant.bias"]


def vit_pixels(state, ids):
    state = {key: x.double() for key, x in state.items()}
    codes = functional.normalize(state["quantizer.embedding.weight"], dim=1)
    x = codes[ids.flatten(1)] @ state["post_quant.weight"].T + state["post_quant.bias"]
    x = vit_forward(x + state["decoder.de_pos_embedding"], state, "decoder.transformer")
    patches = torch.einsum("bld,dcyx->blyxc", x, state["decoder.to_pixel.1.weight"])
    patches = patches + state["decoder.to_pixel.1.bias"]
    image = patches.view(len(ids), 4, 4, 4, 4, 3).permute(0, 1, 3, 2, 4, 5).reshape(-1, 16, 16, 3)
    return (image * 255).round().clamp(0, 255).to(torch.uint8)


@pytest.mark.parametrize("older", [False, True])
def test_vitvqgan_is_the_published_formula(vit, tmp_path, older):
    state = {
        (key.replace("coder.transformer.norm", "coder.norm") if older else key): x
        for key, x in vit.items()
    }
    if older:
        rename = {f"decoder.to_pixel.{i}.{p}": p for i in "1" for p in ("weight", "bias")}
        for key, part in rename.items():
            state[f"decoder.to_pixel.conv_out.{part}"] = state.pop(key)
    tokenizer = load_published("vitvqgan", save_as(state, tmp_path, ".ckpt"))
    assert (tokenizer.image_size, tokenizer.grid, tokenizer.num_codes) == (16, (4, 4), 20)
    images = pictures(5)
    latents = functional.normalize(vit_latents(vit, images), dim=2)
    codes = functional.normalize(vit["quantizer.embedding.weight"].double(), dim=1)
    ids = (latents @ codes.T).argmax(2).view(5, 4, 4)
    assert torch.equal(tokenizer.encode(images), ids)
    assert len(ids.unique()) > 4
    assert (tokenizer.decode(ids).int() - vit_pixels(vit, ids).int()).abs().max() <= 1
    assert tokenizer.preprocessing()["values"] == "0 to 1"
    assert tokenizer.preprocessing()["published_resize"] == "both sides, bicubic"
    with pytest.raises(UsageError, match="images of 16 px and no others"):
        load_published("vitvqgan", tmp_path / "model.ckpt", size=32)


def test_seits_codebook_names_the_codes_that_are_kept(vit, tmp_path):
    kept = torch.tensor([7, 2, 19, 4, 11, 0])
    torch.save(vit["quantizer.embedding.weight"][kept], tmp_path / "codebook.ckpt")
    path = save_as(vit, tmp_path, ".pth")
    full = load_published("vitvqgan", path)
    some = load_published("vitvqgan", path, remap=tmp_path / "codebook.ckpt")
    assert some.num_codes == 6
    torch.testing.assert_close(some.codebook, full.codebook[kept])
    ids = full.encode(pictures(5))
    within = torch.isin(ids, kept)
    assert within.any()
    assert torch.equal(kept[some.encode(pictures(5))][within], ids[within])
    torch.save(noise(6, 6, seed=9), tmp_path / "codebook.ckpt")
    with pytest.raises(UsageError, match="of the 6 codes are none of this vitvqgan"):
        load_published("vitvqgan", path, remap=tmp_path / "codebook.ckpt")


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        (torch.tensor([0, 20]), "numbered 0 to 20"),
        (torch.tensor([-1, 2]), "numbered -1 to 2"),
        (torch.tensor([3, 3]), "listed twice"),
        (torch.tensor([3]), "needs at least two"),
        (torch.tensor([[1.0] * 6, [torch.nan] * 6]), "values that are not finite"),
        (torch.ones(3), "neither ids nor codes"),
        (torch.ones(3, 4), "of dim 4"),
        (torch.ones(2, 2, 2), "no single tensor"),
        ({"a": torch.ones(2), "b": torch.ones(2)}, "no single tensor"),
        ("words", "no single tensor"),
    ],
)
def test_wrong_codes_to_keep_are_refused(vit, tmp_path, codes, message):
    path = save_as(vit, tmp_path, ".pth")
    torch.save(codes, tmp_path / "codes.pt")
    with pytest.raises(UsageError, match=message):
        load_published("vitvqgan", path, remap=tmp_path / "codes.pt")


@pytest.mark.parametrize(
    ("kind", "shapes", "millions"),
    [
        ("vitvqgan", {"width": 512, "depth": 8, "inner": 512, "hidden": 2048}, 50.9),
        ("vitvqgan", {"width": 768, "depth": 12, "inner": 768, "hidden": 3072}, 170.7),
        ("llamagen", {"widths": (1, 2, 2, 4)}, 70.1),
        ("llamagen", {"widths": (1, 1, 2, 2, 4)}, 71.9),
    ],
)
def test_published_sizes_have_the_published_number_of_weights(kind, shapes, millions):
    """ViT-VQGAN small and base (without its fixed positions), LlamaGen VQ-8 and VQ-16."""
    if kind == "vitvqgan":
        shapes = vit_shapes(**shapes, patch=8, side=32, dim=32, codes=8192)
    else:
        shapes = taming_shapes(**shapes, channels=128, blocks=2, features=256, dim=8, codes=16384)
    code_key = "quantizer" if kind == "vitvqgan" else "quantize."
    tensors = {
        key: torch.empty(shape, device="meta")
        for key, shape in shapes.items()
        if not key.startswith(code_key)
    }
    network = KINDS[kind].network_class.of(StateDict(tensors, origin="a test", kind=kind))
    codes = math.prod(next(shape for key, shape in shapes.items() if key.startswith(code_key)))
    trained = (x for key, x in network.state_dict().items() if "pos_embedding" not in key)
    total = sum(x.numel() for x in trained) + codes
    assert round(total / 1e6, 1) == millions


def magvit_shapes(dim=5):
    def block(key, width_in, width_out):
        return residual(f"{key}.0", width_in, width_out, bias=False)

    shapes = {
        **linear("encoder.conv_in", 32, 3, 3, 3, bias=False),
        **block("encoder.down.0.block", 32, 32),
        **linear("encoder.down.0.downsample", 32, 32, 3, 3),
        **block("encoder.down.1.block", 32, 64),
        **block("encoder.mid_block", 64, 64),
        **norm("encoder.norm_out", 64),
        **linear("encoder.conv_out", dim, 64, 1, 1),
        **linear("decoder.conv_in", 64, dim, 3, 3),
        **block("decoder.mid_block", 64, 64),
        **block("decoder.up.1.block", 64, 64),
        **linear("decoder.up.1.upsample.conv1", 256, 64, 3, 3),
        **block("decoder.up.0.block", 64, 32),
        **norm("decoder.norm_out", 32),
        **linear("decoder.conv_out", 3, 32, 3, 3),
    }
    for level in (0, 1):
        shapes |= linear(f"decoder.adaptive.{level}.gamma", 64, dim)
        shapes |= linear(f"decoder.adaptive.{level}.beta", 64, dim)
    return shapes


def with_averages(state, averages):
    return {**state, **{f"model_ema.{key.replace('.', '')}": x for key, x in averages.items()}}


def swish(x):
    return x * torch.sigmoid(x)


def magvit_block(x, state, key):
    """A residual block of the published network, by plain functions."""

    def normed(x, name):
        return functional.group_norm(x, 32, state[f"{name}.weight"], state[f"{name}.bias"], 1e-6)

    hidden = functional.conv2d(
        swish(normed(x, f"{key}.norm1")), state[f"{key}.conv1.weight"], padding=1
    )
    hidden = functional.conv2d(
        swish(normed(hidden, f"{key}.norm2")), state[f"{key}.conv2.weight"], padding=1
    )
    name = f"{key}.nin_shortcut.weight"
    return hidden + (functional.conv2d(x, state[name]) if name in state else x)


def magvit_latents(state, images):
    def conv(x, key, **options):
        return functional.conv2d(x, state[f"{key}.weight"], state.get(f"{key}.bias"), **options)

    x = conv(planes(images), "encoder.conv_in", padding=1)
    x = magvit_block(x, state, "encoder.down.0.block.0")
    x = conv(x, "encoder.down.0.downsample", padding=1, stride=2)
    x = magvit_block(x, state, "encoder.down.1.block.0")
    x = magvit_block(x, state, "encoder.mid_block.0")
    scale, shift = state["encoder.norm_out.weight"], state["encoder.norm_out.bias"]
    return conv(swish(functional.group_norm(x, 32, scale, shift, 1e-6)), "encoder.conv_out")


def magvit_pixels(state, signs):
    def conv(x, key):
        return functional.conv2d(x, state[f"{key}.weight"], state[f"{key}.bias"], padding=1)

    def styled(x, level):
        key = f"decoder.adaptive.{level}"
        spread = (signs.flatten(2).var(2) + 1e-6).sqrt()
        gamma = spread @ state[f"{key}.gamma.weight"].T + state[f"{key}.gamma.bias"]
        mean = signs.flatten(2).mean(2)
        beta = mean @ state[f"{key}.beta.weight"].T + state[f"{key}.beta.bias"]
        normed = functional.group_norm(x, 32, eps=1e-6)
        return gamma[..., None, None] * normed + beta[..., None, None]

    x = magvit_block(conv(signs, "decoder.conv_in"), state, "decoder.mid_block.0")
    x = magvit_block(styled(x, 1), state, "decoder.up.1.block.0")
    x = conv(x, "decoder.up.1.upsample.conv1")
    wide = torch.empty(len(x), 64, 16, 16)
    for place in range(4):  # depth to space, "DCR": the place is the slower index of a channel
        wide[:, :, place // 2 :: 2, place % 2 :: 2] = x[:, 64 * place : 64 * (place + 1)]
    x = magvit_block(styled(wide, 0), state, "decoder.up.0.block.0")
    scale, shift = state["decoder.norm_out.weight"], state["decoder.norm_out.bias"]
    return conv(swish(functional.group_norm(x, 32, scale, shift, 1e-6)), "decoder.conv_out")


def test_open_magvit2_is_signs_of_the_averaged_network(tmp_path):
    good, bad = filled(magvit_shapes(), seed=1), filled(magvit_shapes(), seed=2)
    path = save_as(with_averages(bad, good), tmp_path, ".ckpt")
    tokenizer = load_published("open-magvit2", path, size=SIDE)
    assert (tokenizer.num_codes, tokenizer.codebook_dim, tokenizer.grid) == (32, 5, (8, 8))
    images = pictures()
    latents = magvit_latents(good, images)
    signs = torch.where(latents > 0, 1.0, -1.0)
    ids = tokenizer.encode(images)
    expected = ((signs > 0) * (2 ** torch.arange(5)).view(1, 5, 1, 1)).sum(1)
    assert torch.equal(ids, expected)
    assert torch.equal(tokenizer.codebook[ids].permute(0, 3, 1, 2), signs)
    decoded = pixels(magvit_pixels(good, signs))
    assert (tokenizer.decode(ids).int() - decoded.int()).abs().max() <= 1
    lost = with_averages(bad, good)
    del lost["model_ema.encoderconv_outbias"]
    with pytest.raises(UsageError, match=r"none of encoder\.conv_out\.bias"):
        load_published("open-magvit2", save_as(lost, tmp_path, ".ckpt"), size=SIDE)


@pytest.fixture(scope="module")
def tiny_autoencoder():
    diffusers = pytest.importorskip("diffusers")
    torch.manual_seed(0)
    return diffusers.AutoencoderTiny(
        encoder_block_out_channels=(8, 8, 8),
        decoder_block_out_channels=(8, 8, 8),
        num_encoder_blocks=(1, 2, 1),
        num_decoder_blocks=(2, 1, 1),
    ).eval()


def to_taesd(state, half):
    """Diffusers' names → those of taesd's own file of one half."""
    shift = half == "decoder"
    out = {}
    for key, tensor in state.items():
        if key.startswith(f"{half}.layers."):
            number, rest = key.removeprefix(f"{half}.layers.").split(".", 1)
            out[f"{int(number) + shift}.{rest}"] = tensor
    return out


def test_taesd_is_nearest_centres_of_diffusers_latents(tiny_autoencoder, tmp_path):
    state = tiny_autoencoder.state_dict()
    images = pictures(6)
    path = save_as(state, tmp_path, ".safetensors")
    tokenizer = load_published("taesd", path, images=images, num_codes=8)
    assert tokenizer.grid == (4, 4)
    with torch.no_grad():
        latents = tiny_autoencoder.encode(planes(images)).latents.permute(0, 2, 3, 1)
        distances = (latents[..., None, :] - tokenizer.codebook).square().sum(-1)
        ids = tokenizer.encode(images)
        assert torch.equal(ids, distances.argmin(-1))
        quantised = tokenizer.codebook[ids].permute(0, 3, 1, 2)
        decoded = pixels(tiny_autoencoder.decode(quantised).sample)
    assert len(ids.unique()) == 8
    assert (tokenizer.decode(ids).int() - decoded.int()).abs().max() <= 1
    pair = tmp_path / "pair"
    pair.mkdir()
    for half in ("encoder", "decoder"):
        torch.save(to_taesd(state, half), pair / f"taesd_{half}.pth")
    again = load_published("taesd", pair, images=images, num_codes=8)
    assert again.fingerprint == tokenizer.fingerprint
    with pytest.raises(UsageError, match="too few for 64 codes; give at least 8"):
        load_published("taesd", path, images=images, num_codes=64)
    with pytest.raises(UsageError, match="give images to fit"):
        load_published("taesd", path)


def tiny_codec(kind):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(4)
    if kind == "encodec":
        config = transformers.EncodecConfig(
            num_filters=4,
            upsampling_ratios=[4, 2],
            hidden_size=16,
            codebook_dim=16,
            codebook_size=32,
            target_bandwidths=[1.5, 3.0],
            num_lstm_layers=1,
            sampling_rate=800,
        )
        model = transformers.EncodecModel(config)
        for layer in model.quantizer.layers:
            layer.codebook.embed.normal_(std=0.05)
    elif kind == "dac":
        config = transformers.DacConfig(
            encoder_hidden_size=4,
            downsampling_ratios=[2, 4],
            decoder_hidden_size=16,
            upsampling_ratios=[4, 2],
            n_codebooks=3,
            codebook_size=32,
            codebook_dim=4,
            sampling_rate=800,
        )
        model = transformers.DacModel(config)
    else:
        config = transformers.MimiConfig(
            num_filters=4,
            upsampling_ratios=[4, 2],
            hidden_size=16,
            codebook_dim=8,
            vector_quantization_hidden_dimension=8,
            codebook_size=32,
            num_quantizers=4,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=2,
            head_dim=8,
            intermediate_size=32,
            sampling_rate=800,
            sliding_window=20,
            upsample_groups=16,
        )
        model = transformers.MimiModel(config)
        for name, buffer in model.named_buffers():
            if name.endswith("embed_sum"):
                buffer.normal_(std=0.02)
            elif name.endswith("cluster_usage"):
                buffer.uniform_(0.5, 2)
    return model.eval()


@pytest.fixture(scope="module", params=["encodec", "dac", "mimi"])
def codec(request, tmp_path_factory):
    """A tiny codec as its library saves it: (kind, model, folder)."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    model = tiny_codec(request.param)
    folder = tmp_path_factory.mktemp(request.param)
    model.save_pretrained(folder)
    return request.param, model, folder


def encoded(kind, model, wave, levels):
    if kind == "encodec":
        return model.encode(wave, bandwidth=3.0).audio_codes[0, :, :levels]
    options = {"n_quantizers": levels} if kind == "dac" else {"num_quantizers": levels}
    return model.encode(wave, **options).audio_codes


def decoded(kind, model, ids):
    if kind == "encodec":
        return model.decode(ids[None], [None]).audio_values
    return (model.decode(audio_codes=ids) if kind == "dac" else model.decode(ids)).audio_values


def test_codecs_give_the_ids_of_transformers(codec, tmp_path):
    kind, model, folder = codec
    tokenizer = load_published(kind, folder, seconds=0.35, levels=2)
    hop = 16 if kind == "mimi" else 8
    assert tokenizer.window == -(-280 // hop) * hop
    assert (tokenizer.sample_rate, tokenizer.grid) == (800, (2, tokenizer.window // hop))
    waves = noise(3, tokenizer.window, seed=2)
    ids = tokenizer.encode(waves)
    with torch.no_grad():
        expected = torch.cat([encoded(kind, model, wave[None, None], 2) for wave in waves])
        sound = torch.cat([decoded(kind, model, each[None]).flatten()[None] for each in expected])
    assert torch.equal(ids, expected)
    assert len(ids.unique()) > 4
    assert tokenizer.decode(ids).shape == waves.shape
    torch.testing.assert_close(tokenizer.decode(ids), sound[:, : tokenizer.window])
    save_tokenizer(tokenizer, tmp_path / "codec.safetensors")
    loaded = load_tokenizer(tmp_path / "codec.safetensors")
    assert loaded.fingerprint == tokenizer.fingerprint
    assert torch.equal(loaded.encode(waves), ids)
    assert torch.equal(loaded.codebook, tokenizer.codebook)


def test_sounds_of_codecs_are_seen_and_measured_as_spectrograms(codec):
    kind, _, folder = codec  # of 800 Hz, below what spectrograms are made for
    tokenizer = load_published(kind, folder, seconds=0.35, levels=2)
    waves = noise(3, tokenizer.window, seed=2)
    pictures = decode_pictures(tokenizer, tokenizer.encode(waves).numpy())
    assert (pictures.dtype, pictures.ndim, len(pictures), pictures.shape[3]) == (np.uint8, 4, 3, 3)
    assert pictures.std() > 0
    assert np.isfinite(measure_quality(tokenizer, waves).psnr_db)


def test_codes_of_all_levels_add_up_to_what_is_decoded(codec):
    """The sum over levels of codebook rows, through the codec's own projections, is its latent."""
    kind, model, folder = codec
    tokenizer = load_published(kind, folder, seconds=0.2, levels=3)
    with torch.no_grad():
        ids = tokenizer.encode(noise(1, tokenizer.window, seed=3))
        total = sum(tokenizer.codebook[level][ids[0, level]] for level in range(3))
        if kind == "encodec":
            latents, ours = model.quantizer.decode(ids.transpose(0, 1))[0].T, total
        elif kind == "dac":
            latents = model.quantizer.from_codes(ids)[0][0].T
            layers = model.quantizer.quantizers[:3]
            weight = torch.cat([layer.out_proj.weight[..., 0] for layer in layers], dim=1)
            ours = total @ weight.T + sum(layer.out_proj.bias for layer in layers)
        else:
            latents = model.quantizer.decode(ids)[0].T
            parts = (
                model.quantizer.semantic_residual_vector_quantizer,
                model.quantizer.acoustic_residual_vector_quantizer,
            )
            weight = torch.cat([part.output_proj.weight[..., 0] for part in parts], dim=1)
            ours = total @ weight.T
    torch.testing.assert_close(ours, latents, atol=1e-5, rtol=1e-4)


def test_one_level_has_a_plain_codebook(codec):
    kind, _, folder = codec
    tokenizer = load_published(kind, folder, seconds=0.1, levels=1)
    assert tokenizer.codebook.ndim == 2
    assert tokenizer.levels == tokenizer.grid[0] == 1
    with pytest.raises(UsageError, match="levels is 99"):
        load_published(kind, folder, levels=99)
    with pytest.raises(UsageError, match="seconds is 0"):
        load_published(kind, folder, seconds=0.0)


def test_codecs_that_do_not_fit_are_refused(codec, tmp_path):
    kind, _, folder = codec
    (tmp_path / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    config = json.loads((folder / "config.json").read_text())

    def refused(changes, message, state=None):
        (tmp_path / "config.json").write_text(json.dumps({**config, **changes}))
        if state is not None:
            save_file(state, tmp_path / "model.safetensors")
        with pytest.raises(UsageError, match=message):
            load_published(kind, tmp_path, seconds=0.1)

    refused({"model_type": "other"}, "of type 'other'")
    refused({"sampling_rate": 0}, "no sampling_rate")
    refused({"num_hidden_layers": 10**9}, "implausibly large")
    refused({"upsampling_ratios": [2, 10**9]}, "implausibly large")
    refused({"codebook_size": 64}, "is no .* checkpoint that seit knows")
    if kind == "encodec":
        refused({"normalize": True}, "loudness apart")
    state = load_file(folder / "model.safetensors")
    lost = next(key for key in state if key.startswith("encoder"))
    refused({}, "missing keys", {key: x for key, x in state.items() if key != lost})
    refused({}, "unexpected keys: another", {**state, "another": torch.zeros(2)})


@pytest.fixture(scope="module")
def published(taming, vit, tiny_autoencoder, tmp_path_factory):
    """One tokenizer of each image kind."""
    folder = tmp_path_factory.mktemp("published")
    states = {
        "vqgan": taming,
        "llamagen": to_llamagen(taming),
        "vitvqgan": vit,
        "open-magvit2": filled(magvit_shapes(), seed=1),
        "taesd": tiny_autoencoder.state_dict(),
    }
    found = {}
    for kind, state in states.items():
        path = folder / f"{kind}.safetensors"
        save_file(state, path)
        extra = {"images": pictures(4), "num_codes": 8} if kind == "taesd" else {"size": SIDE}
        found[kind] = load_published(kind, path, **extra)
    torch.save(gumbel(taming), folder / "gumbel.pt")
    found["gumbel"] = load_published("vqgan", folder / "gumbel.pt", size=SIDE)
    return found


IMAGE_KINDS = ["vqgan", "gumbel", "llamagen", "vitvqgan", "open-magvit2", "taesd"]


@pytest.mark.parametrize("kind", IMAGE_KINDS)
def test_a_saved_tokenizer_gives_the_same_ids(published, kind, tmp_path):
    tokenizer, images = published[kind], pictures(4, seed=8)
    path = tmp_path / "tokenizer.safetensors"
    save_tokenizer(tokenizer, path)
    loaded = load_tokenizer(path)
    assert loaded.fingerprint == tokenizer.fingerprint
    assert torch.equal(loaded.codebook, tokenizer.codebook)
    ids = tokenizer.encode(images)
    assert torch.equal(loaded.encode(images), ids)
    assert torch.equal(loaded.decode(ids), tokenizer.decode(ids))
    alone = torch.cat([tokenizer.encode(image[None]) for image in images])
    assert torch.equal(alone, ids)
    copy = tokenizer.to("cpu")
    assert copy.fingerprint == tokenizer.fingerprint
    assert torch.equal(copy.encode(images), ids)


@pytest.mark.parametrize("kind", IMAGE_KINDS)
def test_large_weights_stay_out_of_stores(published, kind, tmp_path, monkeypatch):
    tokenizer = published[kind]
    small = stored_tokenizer_bytes(tokenizer)
    monkeypatch.setattr(tokenizer_files, "MAX_STORED_WEIGHT_BYTES", 1000)
    data = stored_tokenizer_bytes(tokenizer)
    assert len(data) < 1000 < len(small)
    path = tmp_path / "tokenizer.safetensors"
    path.write_bytes(data)
    check_reference(tokenizer, path, tmp_path)


def check_reference(tokenizer, path, tmp_path):
    """What a reference can, what it cannot, and that it remains one when it is saved."""
    reference = load_tokenizer(path, codebook=tokenizer.codebook.numpy())
    assert type(reference) is type(tokenizer)
    assert reference.fingerprint == tokenizer.fingerprint
    assert not reference.has_weights
    assert reference.settings() == tokenizer.settings()
    assert reference.grid == tokenizer.grid
    assert reference.inputs == tokenizer.inputs
    assert reference.preprocessing() == tokenizer.preprocessing()
    shown = tokenizer.fingerprint[:16]
    inputs = torch.zeros(1, *tokenizer.inputs.shape)
    for call in (
        lambda: reference.encode(inputs),
        lambda: reference.decode(torch.zeros(1, *tokenizer.grid, dtype=torch.int64)),
    ):
        with pytest.raises(UsageError, match=f"only a reference.*{shown}"):
            call()
    save_tokenizer(reference.to("cpu"), tmp_path / "again.safetensors")
    again = load_tokenizer(tmp_path / "again.safetensors")
    assert not again.has_weights
    assert again.fingerprint == tokenizer.fingerprint
    assert torch.equal(again.codebook, tokenizer.codebook)
    with pytest.raises(DamagedError, match="without a float32"):
        load_tokenizer(path)


def test_codecs_are_left_out_of_stores_too(codec, tmp_path, monkeypatch):
    kind, _, folder = codec
    tokenizer = load_published(kind, folder, seconds=0.1, levels=2)
    monkeypatch.setattr(tokenizer_files, "MAX_STORED_WEIGHT_BYTES", 1000)
    path = tmp_path / "tokenizer.safetensors"
    path.write_bytes(stored_tokenizer_bytes(tokenizer))
    check_reference(tokenizer, path, tmp_path)


@pytest.mark.parametrize("kind", IMAGE_KINDS)
def test_damaged_tokenizer_files_are_found(published, kind, tmp_path):
    tokenizer = published[kind]
    path = tmp_path / "tokenizer.safetensors"
    save_tokenizer(tokenizer, path)
    data = bytearray(path.read_bytes())
    for place in (len(data) - 1, len(data) // 2, 40):
        damaged = bytearray(data)
        damaged[place] ^= 4
        path.write_bytes(damaged)
        with pytest.raises((DamagedError, UsageError)):
            load_tokenizer(path)
    name = next(iter(tokenizer.tensors()))
    for settings, tensors in (
        ({"image_size": 10**9}, {}),
        ({"image_size": None}, {}),
        ({"image_size": 17}, {}),
        ({"patch_size": 1}, {}),
        ({"patch_size": 0}, {}),
        ({}, {name: torch.zeros(1)}),
        ({}, {name: None}),
        ({}, {"another": torch.zeros(1)}),
    ):
        parts = {**tokenizer.tensors(), **tensors}
        parts = {key: x for key, x in parts.items() if x is not None}
        with pytest.raises(DamagedError):
            type(tokenizer).restore(tokenizer.codebook, parts, {**tokenizer.settings(), **settings})


KIND_STATES = {
    "vqgan": (taming_shapes, "decoder.up.0.block.1.norm2.bias"),
    "vitvqgan": (vit_shapes, "decoder.transformer.layers.1.0.fn.to_out.bias"),
    "open-magvit2": (magvit_shapes, "decoder.adaptive.0.beta.bias"),
}


@pytest.mark.parametrize("kind", KIND_STATES)
def test_checkpoints_of_other_shapes_are_refused(kind, tmp_path):
    shapes, deep = KIND_STATES[kind]
    good = filled(shapes())

    def refused(state, message):
        path = save_as(state, tmp_path, ".pth")
        with pytest.raises(UsageError, match=message) as caught:
            load_published(kind, path, size=SIDE)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)

    refused({key: x for key, x in good.items() if key != deep}, f"it lacks {deep}")
    refused({**good, deep: good[deep][:-1]}, f"shapes are wrong: {deep}")
    refused({**good, deep: good[deep].int()}, f"no floats: {deep}")
    unknown = {f"encoder.extra{number}": torch.zeros(1) for number in range(5)}
    refused({**good, **unknown}, r"unknown encoder.extra0, .*extra2 and 2 more")
    refused({key: x for key, x in good.items() if key.startswith("decoder")}, "it lacks")
    for key in list(good)[::9]:
        with pytest.raises(UsageError):
            load_published(
                kind,
                save_as({name: x for name, x in good.items() if name != key}, tmp_path, ".pth"),
                size=SIDE,
            )


def test_a_kind_refuses_the_checkpoint_of_another(published, tmp_path):
    for kind in ("vqgan", "vitvqgan", "open-magvit2", "taesd"):
        path = tmp_path / f"{kind}.safetensors"
        save_file({k: x.contiguous() for k, x in published[kind].tensors().items()}, path)
    for kind in ("vqgan", "vitvqgan", "open-magvit2", "taesd"):
        for other in ("vqgan", "vitvqgan", "open-magvit2", "taesd"):
            if other == kind:
                continue
            extra = {"images": pictures(4), "num_codes": 4} if kind == "taesd" else {}
            with pytest.raises(UsageError, match=f"no {kind} checkpoint"):
                load_published(kind, tmp_path / f"{other}.safetensors", **extra)


def test_layers_tell_kinds_of_one_architecture_apart(taming, tmp_path):
    """LlamaGen compares codes on the unit sphere: read as VQGAN its ids would be wrong."""
    llamagen = save_as(to_llamagen(taming), tmp_path, ".pth")
    with pytest.raises(UsageError, match="its layers are those of llamagen; name it llamagen"):
        load_published("vqgan", llamagen, size=SIDE)
    plain = load_published("vqgan", save_as(taming, tmp_path, ".pth"), size=SIDE)
    with pytest.raises(UsageError, match="its layers are those of vqgan"):
        load_published("llamagen", save_as(taming, tmp_path, ".pth"), size=SIDE)
    for before in ("module.", "_orig_mod.model.", "first_stage_model."):
        state = {before + key: x for key, x in taming.items()}
        if before == "first_stage_model.":
            state["model.diffusion_model.out.weight"] = torch.zeros(3)
        found = load_published("vqgan", save_as(state, tmp_path, ".pth"), size=SIDE)
        assert found.fingerprint == plain.fingerprint
    ids = np.zeros((1, *plain.grid), np.uint16)
    assert torch.equal(plain.decode(ids), plain.decode(torch.zeros(1, *plain.grid).long()))
    for wrong, message in (
        (ids[0], r"pass ids\[None\]"),
        (ids.astype(np.float32), "expected integers"),
        (ids + np.uint16(60_000), "ids reach 60,000"),
        (torch.zeros(1, *plain.grid), "expected integers"),
    ):
        with pytest.raises(UsageError, match=message):
            plain.decode(wrong)


class Exploit:
    def __reduce__(self):
        return os.system, (f"touch {self.target}",)


def test_malicious_pickles_are_refused_and_never_run(vit, tmp_path):
    target = tmp_path / "executed"
    exploit = Exploit()
    exploit.target = target
    path = tmp_path / "model.ckpt"
    plain = pickle.dumps({"state_dict": exploit})
    cases = [
        lambda: torch.save({"state_dict": vit, "callbacks": exploit}, path),
        lambda: torch.save({**vit, "x": exploit}, path, _use_new_zipfile_serialization=False),
        lambda: path.write_bytes(plain),
        lambda: path.write_bytes(plain[: len(plain) // 2]),
    ]
    for number, write in enumerate(cases):
        write()
        for kind in ("vitvqgan", "vqgan"):
            with pytest.raises(UsageError) as caught:
                load_published(kind, path)
        if number < 2:
            assert "pickled code" in str(caught.value)
            assert "system" in str(caught.value)
        assert not target.exists()
    with pytest.raises(UsageError):
        load_published("vitvqgan", save_as(vit, tmp_path, ".pth"), remap=path)
    np.save(tmp_path / "codes.npy", np.array([exploit], dtype=object), allow_pickle=True)
    with pytest.raises(UsageError, match="NumPy array"):
        load_published("vitvqgan", tmp_path / "model.pth", remap=tmp_path / "codes.npy")
    assert not target.exists()


def nested_key(depth):
    """A pickle of {key: 1}, whose key is a tuple of the last one twice, and so on."""
    steps = [b"\x80\x02}q\xff)q\x00"]
    steps += [bytes([0x68, i, 0x68, i, 0x86, 0x71, i + 1]) for i in range(depth)]
    return b"".join([*steps, bytes([0x68, 0xFF, 0x68, depth]), b"K\x01s."])


@pytest.mark.parametrize("is_zip", [True, False])
def test_nested_tuples_are_refused_before_they_are_hashed(tmp_path, is_zip):
    path = tmp_path / "model.pt"
    for depth, message in ((23, "its tuples repeat each other"), (60, "its tuples"), (3, "holds")):
        if is_zip:
            with zipfile.ZipFile(path, "w") as archive:
                archive.writestr("a/data.pkl", nested_key(depth))
                archive.writestr("a/version", "3\n")
                archive.writestr("a/byteorder", "little")
        else:
            parts = (pickle.dumps(x, 2) for x in (0x1950A86A20F9469CFC6C, 1001, {"x": 1}))
            path.write_bytes(b"".join(parts) + nested_key(depth) + pickle.dumps([], 2))
        for read in (partial(read_checkpoint, kind="vqgan"), read_codes):
            with pytest.raises(UsageError, match=message):
                read(path)


@pytest.mark.parametrize(
    "header",
    [
        "{'descr': '<f4', 'fortran_order': False, 'shape': (",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999,)}",
        "{[]:1}",
        "'" * 3,
        "(" * 9000,
    ],
)
def test_codes_in_a_broken_npy_are_one_line(tmp_path, header):
    data = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode()
    (tmp_path / "codes.npy").write_bytes(data)
    with pytest.raises(UsageError, match="cannot be read as a NumPy array") as caught:
        read_codes(tmp_path / "codes.npy")
    assert "\n" not in str(caught.value)


def test_a_pickled_module_says_who_must_convert_it(vit, tmp_path):
    torch.save(nn.Sequential(nn.Linear(2, 2)), tmp_path / "tokenizer.ckpt")
    with pytest.raises(UsageError, match=r"Linear.*must convert it once.*save_file\(model.state"):
        load_published("vitvqgan", tmp_path / "tokenizer.ckpt")


def test_what_a_training_framework_leaves_beside_the_weights_is_passed_over(
    vit, tmp_path, monkeypatch
):
    """Lightning's checkpoints name its callbacks, NumPy numbers and settings; none is made."""
    module = types.ModuleType("pytorch_lightning.callbacks")
    made = []

    class ModelCheckpoint:
        def __init__(self):
            made.append(self)

    ModelCheckpoint.__module__ = module.__name__
    ModelCheckpoint.__qualname__ = "ModelCheckpoint"
    module.ModelCheckpoint = ModelCheckpoint
    monkeypatch.setitem(sys.modules, "pytorch_lightning", types.ModuleType("pytorch_lightning"))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    extras = {
        "callbacks": {ModelCheckpoint: {"best": np.float64(0.5)}, "x": ModelCheckpoint()},
        "hyper_parameters": argparse.Namespace(lr=1e-4),
        "loops": collections.defaultdict(list, a=[1]),
    }
    path = tmp_path / "model.ckpt"
    torch.save({"state_dict": vit, **extras}, path)
    monkeypatch.delitem(sys.modules, module.__name__)
    monkeypatch.delitem(sys.modules, "pytorch_lightning")
    made.clear()
    tokenizer = load_published("vitvqgan", path)
    plain = load_published("vitvqgan", save_as(vit, tmp_path, ".pth"))
    assert tokenizer.fingerprint == plain.fingerprint
    assert not made


def test_damaged_checkpoints_are_named(vit, tmp_path):
    for kind in (".pth", ".safetensors"):
        path = save_as(vit, tmp_path, kind)
        data = path.read_bytes()
        for size in (0, 7, 100, len(data) // 2, len(data) - 1):
            path.write_bytes(data[:size])
            with pytest.raises(UsageError):
                load_published("vitvqgan", path)
    torch.save(noise(3), tmp_path / "one.pt")
    with pytest.raises(UsageError, match="holds no weights by name but a Tensor"):
        load_published("vitvqgan", tmp_path / "one.pt")
    torch.save({"step": 3}, tmp_path / "none.pt")
    with pytest.raises(UsageError, match="holds no weights by name"):
        load_published("vitvqgan", tmp_path / "none.pt")
    stretched = {**vit, "pre_quant.bias": torch.zeros(1).expand(1 << 40)}
    with pytest.raises(UsageError, match=r"more than the .* bytes of the file"):
        load_published("vitvqgan", save_as(stretched, tmp_path, ".pth"))


def test_weights_are_found_by_folder_or_refused(vit, tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    with pytest.raises(UsageError, match="should hold one file of weights; it holds none"):
        load_published("vitvqgan", folder)
    save_as(vit, folder, ".pth")
    assert load_published("vitvqgan", folder).num_codes == 20
    assert len(read_checkpoint(folder, kind="vitvqgan")) == len(vit)
    save_as(vit, folder, ".ckpt")
    with pytest.raises(UsageError, match=r"it holds model\.ckpt, model\.pth"):
        load_published("vitvqgan", folder)
    save_as(vit, folder, ".safetensors")
    assert load_published("vitvqgan", folder).num_codes == 20
    with pytest.raises(UsageError, match=r"there is no file nowhere\.pt"):
        load_published("vitvqgan", "nowhere.pt")
    with pytest.raises(UsageError, match="not a name on the hub"):
        load_published("vitvqgan", "hf://nowhere")
    with pytest.raises(UsageError, match=f"there are {', '.join(KINDS)}"):
        load_published("other", folder)
    with pytest.raises(UsageError, match="levels is not an option of vitvqgan"):
        load_published("vitvqgan", folder, levels=2)
    with pytest.raises(UsageError, match="size is not an option of mimi"):
        load_published("mimi", folder, size=256)


def test_names_on_the_hub_are_downloaded(vit, tmp_path, monkeypatch):
    hub = pytest.importorskip("huggingface_hub")
    path = save_as(vit, tmp_path, ".safetensors")
    asked = []

    def download(repository, file):
        asked.append((repository, file))
        return str(path)

    monkeypatch.setattr(hub, "hf_hub_download", download)
    assert load_published("vitvqgan", "hf://some/where/vit/model.safetensors").num_codes == 20
    assert asked == [("some/where", "vit/model.safetensors")]

    def offline(*_, **__):
        raise ConnectionError("no route")

    monkeypatch.setattr(hub, "snapshot_download", offline)
    with pytest.raises(SeitError, match="the hub does not respond"):
        load_published("vitvqgan", "hf://some/where")


def run(*arguments):
    with pytest.raises(SystemExit) as caught:
        main([str(argument) for argument in arguments])
    return caught.value.code


def test_the_command_line_imports_and_tokenizes(tiny_autoencoder, vit, tmp_path, capsys):
    corpus = tmp_path / "corpus"
    for number, picture in enumerate(pictures(8, side=24)):
        (corpus / f"class{number % 2}").mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture.numpy()).save(corpus / f"class{number % 2}" / f"{number}.png")
    checkpoint = save_as(vit, tmp_path, ".ckpt")
    file = tmp_path / "vit.safetensors"
    main(["tokenizer", "import", "vitvqgan", str(checkpoint), str(file), "--json"])
    result = json.loads(capsys.readouterr().out)
    assert (result["name"], result["grid"], result["codebook_size"]) == ("vitvqgan", [4, 4], 20)
    assert result["fingerprint"] == load_tokenizer(file).fingerprint
    tokens = ["tokenize", str(corpus), str(tmp_path / "store"), "--tokenizer", str(file)]
    main([*tokens, "--codec", "packed", "--json"])
    assert json.loads(capsys.readouterr().out)["samples"] == 8
    tiny = save_as(tiny_autoencoder.state_dict(), tmp_path, ".safetensors")
    target = tmp_path / "tiny.safetensors"
    command = ["tokenizer", "import", "taesd", str(tiny), str(target), "--size", "16"]
    main([*command, "--fit", str(corpus), "--codes", "8", "--json"])
    assert json.loads(capsys.readouterr().out)["codebook_size"] == 8
    assert run(*command) == 2
    assert "already exists" in capsys.readouterr().err
    assert run(*command, "--overwrite") == 2
    assert "give images to fit" in capsys.readouterr().err
