"""The fused augmentation against the one in torch: by Triton's interpreter, and on CUDA devices."""

import dataclasses
import importlib
import logging
import sys

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings, strategies as st
from support.triton_programs import (
    CPU,
    DEVICES,
    EDIT,
    EMBED,
    PHILOX,
    PLAN,
    compile_for_cuda,
    programs,
)
from torch.utils._python_dispatch import TorchDispatchMode

import seit.augment
from seit.augment import (
    AugmentConfig,
    SampleRandom,
    TokenAugment,
    channel_units,
    random as sample_random,
)
from seit.augment.kernels import fused
from seit.augment.kernels.edit import edit_triton
from seit.augment.kernels.embed import fused_embed
from seit.augment.kernels.fused import FusedAugment
from seit.augment.kernels.plan import draw_plan, draw_plan_triton
from seit.augment.kernels.tokens import TokenSource
from seit.config import build, read_yaml
from seit.errors import UsageError
from seit.recipes import find_recipe
from seit.shards.packed import pack, token_bits
from seit.training import TrainConfig

NO_EDITS = AugmentConfig(synonym_prob=0, swap_prob=0)
FAR = 1 << 40
"""A position whose upper half counts too."""


@pytest.fixture(scope="module", params=DEVICES)
def device(request):
    interpret = request.param == "interpreter"
    with programs(interpret=interpret), pytest.MonkeyPatch.context() as patch:
        if interpret:
            patch.setattr(fused, "triton_serves", lambda device: True)
        yield CPU if interpret else torch.device("cuda")


def codebook(K, C):
    """Codes whose channels vary by 4.5, 1.5, 0.5 …, as those of a PCA do."""
    codes = torch.randn((K, C), generator=torch.Generator().manual_seed(K + C))
    return 4.5 * codes / 3.0 ** (torch.arange(C) % 4)


def batch(B, grid, K, dtype=torch.int16):
    tokens = torch.randint(0, K, (B, *grid), generator=torch.Generator().manual_seed(B))
    return tokens.to(dtype), torch.arange(B) % 10


def pack_rows(tokens, K, *, extra=3):
    """Packed samples in another order, and where each of ``tokens`` lies among them."""
    order = np.random.default_rng(0).permutation(len(tokens) + extra)[: len(tokens)]
    flat = np.zeros((len(tokens) + extra, tokens[0].numel()), dtype=np.uint16)
    flat[order] = tokens.flatten(1).numpy().astype(np.uint16)
    return torch.from_numpy(pack(flat, token_bits(K))), torch.from_numpy(order)


def draws(B, *, seed=1, first=FAR, partner=None):
    return {
        "positions": torch.arange(B) + first,
        "seed": seed,
        "epoch": 3,
        "partner": partner,
    }


def to_device(device, values):
    return {
        name: value.to(device) if isinstance(value, torch.Tensor) else value
        for name, value in values.items()
    }


def assert_like_torch(
    device,
    *,
    grid=(8, 8),
    B=3,
    K=40,
    C=3,
    config=NO_EDITS,
    dtype=torch.float32,
    channels_last=False,
    packed=False,
    partner=None,
    seed=1,
):
    """float32 to within 1e-5 of the codebook's RMS, the others as float32 rounded."""
    codes, (tokens, labels) = codebook(K, C), batch(B, grid, K)
    kwargs = draws(B, seed=seed, partner=partner)
    expected = TokenAugment(codes, grid, config)(tokens, labels, **kwargs)
    on_device = to_device(device, kwargs)

    def run(dtype):
        augment = FusedAugment(codes, grid, config, dtype=dtype, channels_last=channels_last)
        augment = augment.to(device)
        if packed:
            packed_NS, rows = (part.to(device) for part in pack_rows(tokens, K))
            return augment.augment_rows(packed_NS, rows, labels.to(device), **on_device)
        return augment(tokens.to(device), labels.to(device), **on_device)

    found = run(torch.float32)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    assert found.inputs.is_contiguous(memory_format=layout)
    rms = codes.square().mean().sqrt()
    torch.testing.assert_close(found.inputs.cpu(), expected.inputs, atol=1e-5 * float(rms), rtol=0)
    for name in ("labels", "partner_labels", "weight"):
        assert torch.equal(getattr(found, name).cpu(), getattr(expected, name))
    if dtype != torch.float32:
        rounded = run(dtype).inputs
        assert rounded.dtype == dtype
        assert rounded.is_contiguous(memory_format=layout)
        # The interpreter cuts bfloat16 off, where devices round.
        cut = device == CPU and dtype == torch.bfloat16
        torch.testing.assert_close(
            rounded, found.inputs.to(dtype), atol=0, rtol=2**-7 if cut else 0
        )


@pytest.mark.parametrize(
    ("grid", "B", "mode"),
    [
        ((5, 7), 4, "bicubic"),
        pytest.param((8, 8), 2, "bilinear", marks=pytest.mark.slow),
        ((9, 4), 1, "bicubic"),
    ],
)
def test_crop_noise_and_cutmix(device, grid, B, mode):
    config = dataclasses.replace(NO_EDITS, interpolation=mode, noise_prob=0.7)
    assert_like_torch(device, grid=grid, B=B, config=config)


@pytest.mark.parametrize(("K", "C"), [(2, 3), (40, 1), (391, 16), (391, 32), (1000, 3)])
def test_codebooks(device, K, C):
    config = dataclasses.replace(NO_EDITS, interpolation="bilinear", noise_prob=1)
    assert_like_torch(device, K=K, C=C, grid=(5, 7), B=2, config=config, packed=C % 2 == 1)


@pytest.mark.parametrize(
    ("dtype", "channels_last"),
    [
        (torch.float32, True),
        (torch.bfloat16, False),
        pytest.param(torch.bfloat16, True, marks=pytest.mark.slow),
        (torch.float16, True),
    ],
)
def test_dtypes_and_layouts(device, dtype, channels_last):
    config = dataclasses.replace(NO_EDITS, interpolation="bilinear")
    assert_like_torch(
        device, grid=(5, 7), C=16, B=1, config=config, dtype=dtype, channels_last=channels_last
    )


@pytest.mark.parametrize(
    "change",
    [
        {"mixup_prob": 1, "cutmix_prob": 0},
        {"mixup_prob": 0.5, "cutmix_prob": 0.5, "erase_prob": 0.7},
        {"mixup_prob": 0.5, "freq_masks": 2, "time_masks": 3, "time_mask_max": 0.6},
        {"erase_prob": 1, "mixup_prob": 0, "noise_prob": 0},
        {"freq_masks": 1, "mixup_prob": 0, "noise_prob": 0},
    ],
)
def test_blanks_and_blends(device, change):
    mixed = {"interpolation": "bilinear", "noise_prob": 0.7, "cutmix_prob": 0.5} | change
    config = dataclasses.replace(NO_EDITS, **mixed)
    assert_like_torch(device, grid=(9, 4), B=5, config=config, partner=torch.arange(5).roll(2))


def test_recipes_with_blanks_and_blends_are_fused():
    for name in ("small-cpu", "imagenette", "audio-small-cpu", "speech-small-cpu"):
        config = build(TrainConfig, read_yaml(find_recipe(name).path), origin=name).augment
        assert fused._unfused_settings(config) == ()


@settings(max_examples=3, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_any_combination(device, data):
    draw = data.draw
    B = draw(st.sampled_from([1, 3, 6]))
    probability = st.sampled_from([0, 0.5, 1])
    config = AugmentConfig(
        crop_size=draw(st.sampled_from([0, 3])),
        interpolation=draw(st.sampled_from(["bicubic", "bilinear"])),
        synonym_prob=draw(st.sampled_from([0, 0.5])),
        swap_prob=draw(st.sampled_from([0, 0.5])),
        time_roll=draw(st.sampled_from([0, 0.3])),
        noise_prob=draw(probability),
        noise_scale=draw(st.sampled_from([0, 1])),
        noise_std=draw(st.sampled_from([0, 2.5])),
        erase_prob=draw(probability),
        freq_masks=draw(st.sampled_from([0, 3])),
        time_masks=draw(st.sampled_from([0, 2])),
        time_mask_max=draw(st.sampled_from([0.4, 1])),
        cutmix_prob=draw(st.sampled_from([0, 0.5])),
        cutmix_alpha=draw(st.sampled_from([1, 0.4])),
        mixup_prob=draw(st.sampled_from([0, 0.5])),
        mixup_alpha=draw(st.sampled_from([0.8, 10])),
    )
    partner = st.lists(st.integers(0, B - 1), min_size=B, max_size=B).map(torch.tensor)
    assert_like_torch(
        device,
        grid=draw(st.sampled_from([(5, 7), (8, 8), (9, 4)])),
        B=B,
        K=draw(st.sampled_from([2, 40, 391])),
        C=draw(st.sampled_from([1, 3, 16])),
        config=config,
        dtype=draw(st.sampled_from([torch.float32, torch.bfloat16])),
        channels_last=draw(st.booleans()),
        packed=draw(st.booleans()),
        partner=draw(st.none() | partner),
        seed=draw(st.sampled_from([0, 1, (1 << 31) + 7, (1 << 64) - 1])),
    )


@pytest.mark.parametrize(
    ("grid", "seed", "change"),
    [
        ((5, 7), 0, {}),
        ((5, 7), (1 << 64) - 1, {"cutmix_prob": 0.5, "cutmix_alpha": 0.4, "noise_prob": 0.3}),
        (
            (32, 32),
            (1 << 64) - 1,
            {"cutmix_prob": 0, "noise_prob": 0, "crop_scale": (0.9, 1.0), "crop_ratio": (0.2, 5.0)},
        ),
        ((8, 50), 3, {"crop_scale": (0.35, 1.0)}),
        ((1, 375), 3, {}),
        ((16, 64), 3, {"crop_scale": (1.0, 1.0), "crop_ratio": (1.0, 1.0)}),
        ((16, 64), 3, {"crop_scale": (1.0, 1.0), "crop_ratio": (3.0, 4.0)}),
        ((5, 7), 5, {"cutmix_prob": 0.3, "mixup_prob": 0.4, "mixup_alpha": 10.0}),
        ((5, 7), 5, {"erase_prob": 0.6, "freq_masks": 3, "time_masks": 2, "time_mask_max": 1.0}),
        ((5, 7), 5, {"erase_prob": 1.0, "mixup_prob": 1.0, "cutmix_prob": 0.0}),
    ],
)
def test_a_plan_is_drawn_bit_for_bit(device, grid, seed, change):
    config, B = dataclasses.replace(AugmentConfig(), **change), 70
    partner = None if change else torch.arange(B).roll(3)
    units = torch.tensor([1.7, 0.3, 0.0, 2.0, 1.0])
    settings = {"grid": grid, "size": (4, 5), "num_channels": 5}
    random = SampleRandom(seed, 3, torch.arange(B) + FAR)
    expected = draw_plan(random, config, **settings, units=units, partner=partner)
    on_device = SampleRandom(seed, 3, random.positions.to(device))
    found = draw_plan_triton(on_device, config, **settings, units=units.to(device), partner=partner)
    assert torch.equal(found.columns.cpu(), expected.columns)
    assert torch.equal(found.weight.cpu(), expected.weight)
    for name in ("blend", "blanks"):
        ours, theirs = getattr(found, name), getattr(expected, name)
        assert (ours is None) == (theirs is None)
        if theirs is not None:
            assert torch.equal(ours.cpu(), theirs)
            assert ours.dtype == theirs.dtype
    assert (found.key, found.mixes) == (expected.key, expected.mixes)
    if expected.shift is None:
        assert found.shift is None
        assert found.stds is None
    else:
        assert torch.equal(found.stds.cpu(), expected.stds)
        torch.testing.assert_close(found.shift.cpu(), expected.shift, atol=1e-5, rtol=0)


def test_a_plan_takes_few_operations(device, monkeypatch):
    settings = {"grid": (5, 7), "size": (4, 6), "num_channels": 3}
    settings["units"] = torch.ones(3, device=device)
    counts = []
    for draw, has_kernel in ((draw_plan, False), (draw_plan_triton, True)):
        monkeypatch.setattr(sample_random, "triton_serves", lambda device, found=has_kernel: found)
        random = SampleRandom(0, 0, torch.arange(4).to(device))
        random._compiled = False  # as on a device
        with CountOperations() as counter:
            draw(random, AugmentConfig(), **settings)
        counts.append(counter.count)
    assert counts[0] > 150
    assert counts[1] < 10


MEMORY_OPERATIONS = {"empty", "new_empty", "set_", "copy_", "slice", "view"}


class CountOperations(TorchDispatchMode):
    """Counts what torch computes, but not the tensors and copies that the interpreter makes."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += function.overloadpacket.__name__ not in {
            "empty",
            "new_empty",
            "set_",
            "copy_",
        }
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(
            {"synonym_prob": 0.5, "swap_prob": 0.5, "swap_max": 0.5}, marks=pytest.mark.slow
        ),
        {"synonym_prob": 0.3, "swap_prob": 0.3, "time_roll": 0.5, "flip_prob": 0.5},
        {"synonym_prob": 1, "synonym_rate": 0.7, "swap_prob": 0},
    ],
)
@pytest.mark.parametrize("K", [pytest.param(2, marks=pytest.mark.slow), 391])
def test_ids_are_edited_bit_for_bit(device, K, change):
    config, grid, B = AugmentConfig(**change), (5, 7), 4
    augment = TokenAugment(codebook(K, 3), grid, config)
    tokens, _ = batch(B, grid, K)
    random = SampleRandom(7, 3, torch.arange(B) + FAR)
    expected = augment._edit(tokens.long(), random)
    on_device = SampleRandom(7, 3, random.positions.to(device))
    packed_NS, rows = (part.to(device) for part in pack_rows(tokens, K))
    for some, of in ((tokens.to(device), None), (packed_NS, rows)):
        source = TokenSource.of(some, of, num_samples=B, grid=grid, num_codes=K)
        found = edit_triton(source, augment.synonyms.to(device), on_device, config)
        assert found.dtype == torch.int16
        assert torch.equal(found.cpu().long(), expected)


def test_several_tiles_and_blocks_of_channels(device):
    config = dataclasses.replace(NO_EDITS, interpolation="bilinear", noise_prob=1)
    assert_like_torch(device, grid=(9, 8), B=1, C=70, config=config)


def test_the_recipe_of_the_defaults(device):
    assert_like_torch(device, grid=(12, 12), B=2, K=391, C=4, config=AugmentConfig())


def test_a_batch_does_not_change_a_sample(device):
    codes, (tokens, labels) = codebook(40, 3), batch(4, (5, 7), 40)
    augment = FusedAugment(codes, (5, 7), dataclasses.replace(NO_EDITS, cutmix_prob=0)).to(device)

    def run(index):
        kwargs = draws(4) | {"positions": torch.arange(4)[index]}
        return augment(
            tokens[index].to(device), labels[index].to(device), **to_device(device, kwargs)
        ).inputs

    assert torch.equal(run(slice(None))[1:3], run(slice(1, 3)))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_codebook_of_fewer_bits(device, dtype):
    codes, (tokens, labels) = codebook(40, 3).to(dtype), batch(2, (5, 7), 40)
    expected = TokenAugment(codes, (5, 7), NO_EDITS)(tokens, labels, **draws(2))
    plan = plan_of(device, 2, NO_EDITS, codes)
    found = fused_embed(tokens.to(device), codes.to(device), plan, grid=(5, 7), size=(4, 6))
    torch.testing.assert_close(found.cpu(), expected.inputs, atol=3e-5, rtol=0)


def plan_of(device, B, config, codes, *, grid=(5, 7), size=(4, 6), partner=None):
    positions = (torch.arange(B) + FAR).to(device)
    return draw_plan(
        SampleRandom(1, 3, positions),
        config,
        grid=grid,
        size=size,
        num_channels=codes.shape[1],
        units=channel_units(codes).float().to(device),
        partner=partner,
    )


@pytest.mark.parametrize("dtype", [torch.int16, torch.int32, torch.int64, torch.uint8])
def test_ids_that_are_no_codes_read_as_the_last(device, dtype):
    codes = codebook(40, 3).to(device)
    plan = plan_of(device, 2, NO_EDITS, codes)
    wrong = torch.tensor([40, 99, torch.iinfo(dtype).max, torch.iinfo(dtype).min or 77])
    wrong = wrong.to(dtype).repeat(18)[:70].view(2, 5, 7).to(device)
    last = torch.full_like(wrong, 39)
    size = {"grid": (5, 7), "size": (4, 6)}
    assert torch.equal(
        fused_embed(wrong, codes, plan, **size), fused_embed(last, codes, plan, **size)
    )


def test_rows_that_are_not_there_read_as_zeros(device):
    codes = codebook(256, 3).to(device)
    plan = plan_of(device, 4, dataclasses.replace(NO_EDITS, cutmix_prob=0), codes)
    packed_NS = torch.full((2, 35), 255, dtype=torch.uint8, device=device)
    rows = torch.tensor([-1, 1, 2, 1 << 40], device=device)
    ids = torch.zeros((4, 5, 7), dtype=torch.uint8, device=device)
    ids[1] = 255
    size = {"grid": (5, 7), "size": (4, 6)}
    assert torch.equal(
        fused_embed(packed_NS, codes, plan, rows=rows, **size),
        fused_embed(ids, codes, plan, **size),
    )


def test_nothing_outside_is_read_whatever_the_plan_says(device):
    codes = codebook(40, 3).to(device)
    plan = plan_of(device, 2, NO_EDITS, codes)
    huge = torch.full_like(plan.columns, 1 << 30)
    blend = torch.tensor([0.5, float("nan")], device=device)
    for columns in (huge, -huge, plan.columns - 5):
        wrong = dataclasses.replace(plan, columns=columns, blend=blend)
        tokens = batch(2, (5, 7), 40)[0].to(device)
        found = fused_embed(tokens, codes, wrong, grid=(5, 7), size=(4, 6))
        assert found.shape == (2, 3, 4, 6)


def test_no_samples_are_no_inputs(device):
    assert_like_torch(device, B=0)


@pytest.mark.parametrize(
    ("tokens", "rows", "message"),
    [
        (torch.zeros((2, 7, 5), dtype=torch.int16), None, r"expected integers \(2, 5, 7\)"),
        (torch.zeros((2, 5, 7)), None, r"expected integers \(2, 5, 7\)"),
        (torch.zeros((9, 34), dtype=torch.uint8), torch.zeros(2, dtype=torch.int64), r"\(N, 35\)"),
        (torch.zeros((9, 35), dtype=torch.int8), torch.zeros(2, dtype=torch.int64), r"\(N, 35\)"),
        (torch.zeros((9, 35), dtype=torch.uint8), torch.zeros(3, dtype=torch.int64), "2 rows"),
    ],
)
def test_other_tensors_are_refused(tokens, rows, message):
    codes = codebook(256, 3)
    with pytest.raises(UsageError, match=message):
        fused_embed(
            tokens, codes, plan_of(CPU, 2, NO_EDITS, codes), grid=(5, 7), size=(4, 6), rows=rows
        )


@pytest.mark.parametrize("shape", [(40, 4), (3,)])
def test_a_codebook_that_the_plan_is_not_for_is_refused(shape):
    plan = plan_of(CPU, 2, NO_EDITS, codebook(40, 3))
    with pytest.raises(UsageError, match="the codebook is"):
        fused_embed(batch(2, (5, 7), 40)[0], torch.zeros(shape), plan, grid=(5, 7), size=(4, 6))


@pytest.mark.parametrize(("fill", "found"), [(None, "None"), (torch.zeros(4), r"\(4,\)")])
def test_a_fill_of_another_size_is_refused(fill, found):
    codes = codebook(40, 3)
    plan = plan_of(CPU, 2, dataclasses.replace(NO_EDITS, erase_prob=0.5), codes)
    with pytest.raises(UsageError, match=rf"the fill of blank cells is {found}; expected \(3,\)"):
        fused_embed(batch(2, (5, 7), 40)[0], codes, plan, fill=fill, grid=(5, 7), size=(4, 6))


@pytest.mark.parametrize("channels_last", [False, True])
def test_without_triton_torch_does_all(monkeypatch, channels_last):
    monkeypatch.setattr(fused, "triton_serves", lambda device: False)
    codes, (tokens, labels) = codebook(40, 3), batch(3, (5, 7), 40)
    reference = TokenAugment(codes, (5, 7), AugmentConfig())
    augment = FusedAugment(
        codes, (5, 7), AugmentConfig(), dtype=torch.bfloat16, channels_last=channels_last
    )
    expected = reference(tokens, labels, **draws(3)).inputs.to(torch.bfloat16)
    packed_NS, rows = pack_rows(tokens, 40)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    for found in (
        augment(tokens, labels, **draws(3)),
        augment.augment_rows(packed_NS, rows, labels, **draws(3)),
    ):
        assert torch.equal(found.inputs, expected)
        assert found.inputs.is_contiguous(memory_format=layout)
    evaluated = augment.evaluate(tokens)
    assert torch.equal(evaluated, reference.evaluate(tokens).to(torch.bfloat16))
    assert evaluated.is_contiguous(memory_format=layout)


@pytest.mark.parametrize(
    "change",
    [
        {"color_adapt_prob": 0.5},
        {"order": "seitpp"},
        {"requantize": True},
    ],
)
def test_operations_that_the_kernel_does_not_have_are_left_to_torch(device, caplog, change):
    config = dataclasses.replace(AugmentConfig(), **change)
    codes, (tokens, labels) = codebook(40, 3).to(device), batch(3, (5, 7), 40)
    tokens, labels = tokens.to(device), labels.to(device)
    with caplog.at_level(logging.WARNING):
        augment = FusedAugment(codes, (5, 7), config).to(device)
        for _ in range(2):
            found = augment(tokens, labels, **to_device(device, draws(3)))
    expected = TokenAugment(codes, (5, 7), config).to(device)(
        tokens, labels, **to_device(device, draws(3))
    )
    assert torch.equal(found.inputs, expected.inputs)
    (message,) = (record.getMessage() for record in caplog.records)
    assert message.startswith("augmentation is not fused")
    assert f"{next(iter(change))} = {next(iter(change.values()))!r}" in message


def test_several_levels_are_left_to_torch(device, caplog):
    codes = torch.stack([codebook(40, 3), codebook(40, 3)]).to(device)
    tokens, labels = batch(3, (6, 7), 40)
    kwargs = to_device(device, draws(3))
    packed_NS, rows = (part.to(device) for part in pack_rows(tokens, 40))
    augment = FusedAugment(codes, (6, 7), AugmentConfig()).to(device)
    with caplog.at_level(logging.WARNING):
        found = augment.augment_rows(packed_NS, rows, labels.to(device), **kwargs)
    expected = TokenAugment(codes, (6, 7), AugmentConfig())
    expected = expected(tokens.to(device), labels.to(device), **kwargs)
    assert torch.equal(found.inputs, expected.inputs)
    assert "do not do codebooks of 2 levels" in caplog.text


def test_triton_is_imported_late(monkeypatch):
    monkeypatch.setitem(sys.modules, "triton", None)
    for name in [name for name in sys.modules if name.startswith("seit.augment.kernels")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(seit.augment, "kernels", None)
    kernels = importlib.import_module("seit.augment.kernels.fused")
    augment = kernels.FusedAugment(codebook(40, 3), (5, 7), AugmentConfig())
    assert augment.evaluate(batch(2, (5, 7), 40)[0]).shape == (2, 3, 4, 6)


POINTERS = {
    "codebook": "*fp32", "plan": "*i32", "shift": "*fp32", "positions": "*i64", "out": "*bf16",
    "batch": "i32", "num_rows": "i32", "num_codes": "i32", "key_a": "i32", "key_b": "i32",
    "stds": "*fp32",
}  # fmt: skip
NO_BLANKS = {"blend": None, "blanks": None, "fill": None, "NUM_BLANKS": 0}
PLAN_POINTERS = {
    "positions": "*i64", "aspect": "*fp32", "columns": "*i32", "weight": "*fp32", "batch": "i32",
    "key_a": "i32", "key_b": "i32", "scale_low": "fp32", "scale_range": "fp32",
    "noise_prob": "fp32", "cutmix_prob": "fp32", "mixup_end": "fp32", "erase_prob": "fp32",
    "GRID": (32, 32), "SIZE": (28, 28), "FALLBACK": (32, 32), "C": 3, "BLOCK": 32,
}  # fmt: skip
EDIT_POINTERS = {
    "positions": "*i64", "synonyms": "*i64", "out": "*i16", "num_rows": "i32", "num_codes": "i32",
    "key_a": "i32", "key_b": "i32", "synonym_prob": "fp32", "synonym_rate": "fp32",
    "synonym_scale": "fp32", "swap_end": "fp32", "swap_side": "fp32", "flip_prob": "fp32",
    "GRID": (32, 32), "TILE": 256,
}  # fmt: skip
SIGNATURES = {
    "ids": (EMBED, "embed_program", {
        **POINTERS, "tokens": "*u16", "rows": None, "STRIDE": 1024, "PLANES": (),
        "GRID": (32, 32), "SIZE": (28, 28), "C": 8, "CUBIC": True, "MIXES": True, "NOISE": True,
        **NO_BLANKS,
        "CHANNELS_LAST": False, "TILE": 32, "CHANNELS": 8,
    }),
    "packed, odd, channels last": (EMBED, "embed_program", {
        **POINTERS, "tokens": "*u8", "rows": "*i64", "STRIDE": 72,
        "PLANES": ((0, 8, 0), (8, 1, 64)), "GRID": (8, 8), "SIZE": (7, 7), "C": 3,
        "CUBIC": False, "MIXES": True, "NOISE": True, "NUM_BLANKS": 3, "blanks": "*i32",
        "blend": "*fp32", "fill": "*fp32",
        "CHANNELS_LAST": True, "TILE": 64, "CHANNELS": 4,
    }),
    "neither noise nor CutMix": (EMBED, "embed_program", {
        **POINTERS, "tokens": "*u16", "rows": None, "shift": None, "stds": None, "STRIDE": 64,
        "PLANES": (), "GRID": (8, 8), "SIZE": (7, 7), "C": 1, "CUBIC": False, "MIXES": False,
        "NOISE": False, "CHANNELS_LAST": False, "TILE": 64, "CHANNELS": 1, **NO_BLANKS,
    }),
    "words": (PHILOX, "draw_program", {
        "positions": "*i64", "out": "*i64", "total": "i32", "per_sample": "i32", "count": "i32",
        "key_a": "i32", "key_b": "i32", "op": "i32", "UNIFORM": False, "BLOCK": 256,
    }),
    "uniform numbers": (PHILOX, "draw_program", {
        "positions": "*i64", "out": "*fp32", "total": "i32", "per_sample": "i32", "count": "i32",
        "key_a": "i32", "key_b": "i32", "op": "i32", "UNIFORM": True, "BLOCK": 256,
    }),
    "plan": (PLAN, "plan_program", {
        **PLAN_POINTERS, "share": "*fp32", "partner": "*i64", "shift": "*fp32", "scales": "*fp32",
        "own_share": "*fp32", "blend": "*fp32", "erased_ratio": "*fp32", "blanks": "*i32",
        "FREQ_MASKS": 2, "FREQ_MOST": 5, "TIME_MASKS": 1, "TIME_MOST": 28,
    }),
    "plan of crops alone": (PLAN, "plan_program", {
        **PLAN_POINTERS, "share": None, "partner": None, "shift": None, "scales": None,
        "own_share": None, "blend": None, "erased_ratio": None, "blanks": None,
        "FREQ_MASKS": 0, "FREQ_MOST": 0, "TIME_MASKS": 0, "TIME_MOST": 0,
    }),
    "edits of packed": (EDIT, "edit_program", {
        **EDIT_POINTERS, "tokens": "*u8", "rows": "*i64", "STRIDE": 1152,
        "PLANES": ((0, 8, 0), (8, 1, 1024)), "SYNONYMS": 5, "SWAPS": True, "ROLL": 3,
        "FLIPS": True,
    }),
    "flips of ids": (EDIT, "edit_program", {
        **EDIT_POINTERS, "tokens": "*u64", "rows": None, "STRIDE": 1024, "PLANES": (),
        "SYNONYMS": 0, "SWAPS": False, "ROLL": 0, "FLIPS": True,
    }),
}  # fmt: skip


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow) if name == "plan of crops alone" else name
        for name in SIGNATURES
    ],
)
def test_programs_compile_for_cuda(name, tmp_path, monkeypatch):
    """The interpreter knows no types; the compiler, which needs no device, does."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    module, program, arguments = SIGNATURES[name]
    with programs(interpret=False) as modules:
        compiled = compile_for_cuda(
            getattr(modules[module], program), arguments, capability=90, fuses=False
        )
    assert compiled.asm["cubin"]
