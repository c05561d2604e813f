import dataclasses
import math

import pytest
import torch
from torch.nn import functional as F
from torchvision.transforms import functional as vision

from seit.augment import (
    AugmentConfig,
    Op,
    PixelAugment,
    SampleRandom,
    TokenAugment,
    TokenWarper,
    apply_cutmix,
    apply_mixup,
    beta_weights,
    codebook_unit,
    color_adapt_,
    cutmix_boxes,
    mask_bands,
    nearest_ids,
    random_crop_boxes,
    random_warps,
    time_roll,
)
from seit.augment.erase import random_erase
from seit.errors import UsageError

K, C = 60, 8
NOTHING = AugmentConfig(
    crop_scale=(1.0, 1.0),
    crop_ratio=(1.0, 1.0),
    synonym_prob=0,
    swap_prob=0,
    noise_prob=0,
    cutmix_prob=0,
    pixel_flip_prob=0,
)
GRIDS = [((32, 32), (28, 28)), ((8, 8), (7, 7)), ((16, 24), (14, 21))]


def codebook():
    return 3 * torch.randn((K, C), generator=torch.Generator().manual_seed(5))


def token_batch(B, grid=(32, 32), dtype=torch.int64):
    generator = torch.Generator().manual_seed(6)
    tokens = torch.randint(0, K, (B, *grid), generator=generator).to(dtype)
    return tokens, torch.arange(B) % 10


def run(augment, x, labels, *, first=0, seed=1, epoch=2, partner=None):
    positions = torch.arange(first, first + len(x))
    return augment(x, labels, positions=positions, seed=seed, epoch=epoch, partner=partner)


@pytest.mark.parametrize(("grid", "size"), GRIDS)
@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.uint16, torch.uint8])
def test_shapes_and_dtypes(grid, size, dtype):
    augment = TokenAugment(codebook(), grid, AugmentConfig())
    tokens, labels = token_batch(6, grid, dtype)
    out = run(augment, tokens, labels)
    assert (augment.channels, augment.output_size) == (C, size)
    assert out.inputs.shape == (6, C, *size) == augment.evaluate(tokens).shape
    assert out.inputs.dtype == out.weight.dtype == torch.float32
    assert out.inputs.is_contiguous()
    assert torch.equal(out.labels, labels)
    assert torch.equal(out.partner_labels, labels.flip(0))
    assert ((out.weight >= 0) & (out.weight <= 1)).all()
    wide = run(augment, tokens.to(torch.int64), labels)
    assert torch.equal(wide.inputs, out.inputs)


@pytest.mark.parametrize(
    ("grid", "crop", "size"),
    [
        ((32, 32), 20, (20, 20)),
        ((16, 24), 8, (8, 12)),
        ((8, 8), 8, (8, 8)),
        ((80, 31), 0, (70, 27)),
    ],
)
def test_crop_size(grid, crop, size):
    config = dataclasses.replace(NOTHING, crop_size=crop)
    assert TokenAugment(codebook(), grid, config).output_size == size


@pytest.mark.parametrize(("grid", "size"), GRIDS)
def test_evaluation_is_the_embedded_middle_without_noise(grid, size):
    augment = TokenAugment(codebook(), grid, AugmentConfig(noise_prob=1))
    tokens, _ = token_batch(3, grid)
    middle = vision.center_crop(tokens, list(size))
    expected = torch.einsum("bhwk,kc->bchw", F.one_hot(middle, K).to(torch.float32), codebook())
    for mode in (True, False):
        assert torch.equal(augment.train(mode).evaluate(tokens), expected)


def test_full_size_crop_of_nothing_is_the_look_up():
    config = dataclasses.replace(NOTHING, crop_size=32)
    tokens, labels = token_batch(3)
    out = run(TokenAugment(codebook(), (32, 32), config), tokens, labels)
    torch.testing.assert_close(out.inputs, codebook()[tokens].permute(0, 3, 1, 2))
    assert torch.equal(out.weight, torch.ones(3))


def test_crop_and_noise_equal_the_official_order():
    """One-hot maps, cropped and resized one by one, times the codebook, then noise."""
    config = AugmentConfig(synonym_prob=0, swap_prob=0, cutmix_prob=0, noise_prob=1)
    augment = TokenAugment(codebook(), (32, 32), config)
    tokens, labels = token_batch(8)
    random = SampleRandom(1, 2, torch.arange(8))
    boxes = random_crop_boxes(random, (32, 32), scale=config.crop_scale, ratio=config.crop_ratio)
    unit = (codebook() - codebook().mean(0)).square().mean(0).sqrt()[:, None, None]
    shift = random.normal(Op.NOISE_CHANNEL, (C, 1, 1))
    element = random.normal(Op.NOISE_ELEMENT, (C, 28, 28))
    out = run(augment, tokens, labels).inputs
    for b, (top, left, height, width) in enumerate(torch.stack(boxes, dim=1).tolist()):
        one_hot = F.one_hot(tokens[b], K).permute(2, 0, 1).to(torch.float32)
        crop = one_hot[None, :, top : top + height, left : left + width]
        resized = F.interpolate(crop, (28, 28), mode="bicubic", align_corners=False)[0]
        expected = torch.einsum("khw,kc->chw", resized, codebook())
        expected = expected + unit * (shift[b] + element[b])
        torch.testing.assert_close(out[b], expected, atol=5e-5, rtol=0)


def test_any_split_over_ranks_augments_alike():
    augment = TokenAugment(codebook(), (32, 32), AugmentConfig(cutmix_prob=0))
    tokens, labels = token_batch(8)
    whole = run(augment, tokens, labels).inputs
    for cut in (1, 4, 5):
        parts = [
            run(augment, tokens[:cut], labels[:cut]).inputs,
            run(augment, tokens[cut:], labels[cut:], first=cut).inputs,
        ]
        torch.testing.assert_close(torch.cat(parts), whole, atol=1e-5, rtol=0)
    order = torch.tensor([5, 2, 7, 0])
    some = augment(tokens[order], labels[order], positions=order, seed=1, epoch=2).inputs
    torch.testing.assert_close(some, whole[order], atol=1e-5, rtol=0)


def test_cutmix_over_ranks_is_the_same_with_the_same_partners():
    augment = TokenAugment(codebook(), (32, 32), AugmentConfig())
    tokens, labels = token_batch(8)
    whole = run(augment, tokens, labels, partner=torch.tensor([3, 2, 1, 0, 7, 6, 5, 4]))
    halves = [
        run(augment, tokens[:4], labels[:4]),
        run(augment, tokens[4:], labels[4:], first=4),
    ]
    for name in ("inputs", "labels", "partner_labels", "weight"):
        joined = torch.cat([getattr(half, name) for half in halves])
        torch.testing.assert_close(joined, getattr(whole, name), atol=1e-5, rtol=0)


class RollingWarper(TokenWarper):
    """Warps by taking the tokens of the upper left corner, one more each."""

    def warp_tokens(self, tokens, warps, size):
        assert warps.shape == (len(tokens), 2, 3)
        return (tokens[:, : size[0], : size[1]] + 1) % K

    def warp_vectors(self, x, warps, size):
        assert warps.shape == (len(x), 2, 3)
        corner = 2 * x[:, :, : size[0], : size[1]]
        return (
            corner.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3) + warps[:, :1, :1, None]
        )

    def read_tokens(self, maps):
        return nearest_ids(F.avg_pool2d(maps, 2) / 2, codebook())


EVERYTHING = AugmentConfig(
    noise_prob=0.4,
    color_adapt_prob=0.4,
    cutmix_prob=0.5,
    mixup_prob=0.4,
    erase_prob=0.5,
    freq_masks=1,
    time_masks=2,
    time_roll=0.5,
    token_adapt="network",
)


@pytest.mark.parametrize("order", ["seit", "seitpp"])
@pytest.mark.parametrize("ranks", [1, 2, 3])
@pytest.mark.parametrize("ascending", [True, False])
def test_ranks_that_hold_mirrored_pairs_make_the_global_batch(ranks, ascending, order):
    """In ascending order the partners are a rank's own mirrored batch; else they are passed."""
    config = dataclasses.replace(EVERYTHING, order=order)
    augment = TokenAugment(codebook(), (32, 32), config, warper=RollingWarper())
    tokens, labels = token_batch(12)
    whole = run(augment, tokens, labels)
    met = []
    for rank in range(ranks):
        pairs = torch.arange(rank, 6, ranks)
        held = torch.cat((pairs, 11 - pairs))
        held = held.sort().values if ascending else held
        place = {position: row for row, position in enumerate(held.tolist())}
        partner = torch.tensor([place[11 - position] for position in held.tolist()])
        out = augment(
            tokens[held],
            labels[held],
            positions=held,
            seed=1,
            epoch=2,
            partner=None if ascending else partner,
        )
        torch.testing.assert_close(out.inputs, whole.inputs[held], atol=1e-5, rtol=0)
        for name in ("labels", "partner_labels", "weight"):
            assert torch.equal(getattr(out, name), getattr(whole, name)[held])
        met += held.tolist()
    assert sorted(met) == list(range(12))


def test_the_operations_follow_each_other_as_documented():
    """The whole pipeline, put together from its parts for each sample."""
    B, config = 24, EVERYTHING
    augment = TokenAugment(
        codebook(),
        (32, 32),
        dataclasses.replace(config, synonym_prob=0, swap_prob=0),
        warper=RollingWarper(),
    )
    tokens, labels = token_batch(B)
    out = run(augment, tokens, labels)
    random = SampleRandom(1, 2, torch.arange(B))
    unit = codebook_unit(codebook())
    units = (codebook() - codebook().mean(0)).square().mean(0).sqrt()[:, None, None]
    rolled = time_roll(tokens, random, max_share=0.5)
    warps = random_warps(random, (64, 64), augment.geometry)
    adapted = random.uniform(Op.ADAPT_GATE) < 0.5
    x = augment.random_crop(codebook()[rolled].permute(0, 3, 1, 2), random)
    through = codebook()[RollingWarper().warp_tokens(rolled, warps, (28, 28))].permute(0, 3, 1, 2)
    x = torch.where(adapted[:, None, None, None], through, x)
    gate = random.uniform(Op.NOISE_GATE)
    noised, recoloured = gate < 0.4, (gate >= 0.4) & (gate < 0.8)
    coloured = color_adapt_(x.clone(), selected=recoloured, unit=unit)
    noise = random.normal(Op.NOISE_CHANNEL, (C, 1, 1)) + random.normal(
        Op.NOISE_ELEMENT, (C, 28, 28)
    )
    x = torch.where(noised[:, None, None, None], x + units * noise, coloured)
    x = random_erase(x, random, prob=0.5, fill=codebook().mean(0))
    x = mask_bands(
        x, random, fill=codebook().mean(0), freq_masks=1, freq_max=0.2, time_masks=2, time_max=0.2
    )
    gate = random.uniform(Op.CUTMIX_GATE)
    blending = (gate >= 0.5) & (gate < 0.9)
    pasted = apply_cutmix(x, random, prob=0.5, alpha=1.0)
    blended, own_share = apply_mixup(x, random, alpha=0.8, selected=blending)
    expected = torch.where(blending[:, None, None, None], blended, pasted.inputs)
    torch.testing.assert_close(out.inputs, expected, atol=2e-5, rtol=0)
    assert torch.equal(out.weight, torch.where(blending, own_share, pasted.weight))
    for share in (adapted, noised, recoloured, blending):
        assert 0 < share.sum() < B


def mixed_by_hand(own, other, random, config):
    """CutMix, Mixup or nothing of one sample (C, h, w), and the weight of its label."""
    gate = float(random.uniform(Op.CUTMIX_GATE))
    result = own.double().clone()
    if gate < config.cutmix_prob:
        box = cutmix_boxes(random, own.shape[1:], prob=1, alpha=config.cutmix_alpha)
        top, left, bottom, right = box[0].tolist()
        result[:, top:bottom, left:right] = other[:, top:bottom, left:right].double()
        return result, 1 - (bottom - top) * (right - left) / own[0].numel()
    if gate < config.cutmix_prob + config.mixup_prob:
        share = float(beta_weights(random, alpha=config.mixup_alpha, op=Op.MIXUP_WEIGHT))
        return share * result + (1 - share) * other.double(), share
    return result, 1.0


@pytest.mark.parametrize("partner", [None, torch.arange(24).roll(5)])
@pytest.mark.parametrize("requantize", [False, True])
def test_seitpps_order_sample_by_sample(partner, requantize):
    """Colors on whole grids; then a crop that is mixed, or a lifted map that is mixed and read."""
    B, codes, warper = 24, codebook(), RollingWarper()
    config = dataclasses.replace(
        EVERYTHING, order="seitpp", requantize=requantize, freq_masks=0, time_masks=0, time_roll=0,
        synonym_prob=0, swap_prob=0, erase_prob=0,
    )  # fmt: skip
    augment = TokenAugment(codes, (32, 32), config, warper=warper)
    tokens, labels = token_batch(B)
    out = run(augment, tokens, labels, partner=partner)
    others = (B - 1 - torch.arange(B)).tolist() if partner is None else partner.tolist()
    each = [SampleRandom(1, 2, torch.tensor([b])) for b in range(B)]
    embedded = codes[tokens].permute(0, 3, 1, 2)
    units = codes.double().std(dim=0, correction=0)[:, None, None]
    colored = []
    for b, random in enumerate(each):
        gate, x = float(random.uniform(Op.NOISE_GATE)), embedded[b].double()
        if gate < 0.4:
            shift = random.normal(Op.NOISE_CHANNEL, (C, 1, 1))[0].double()
            x = x + units * (shift + random.normal(Op.NOISE_ELEMENT, (C, 32, 32))[0].double())
        elif gate < 0.8:
            own, his = (
                (y.mean((1, 2), keepdim=True), y.std((1, 2), correction=0, keepdim=True))
                for y in (x, embedded[others[b]].double())
            )
            x = (x - own[0]) / own[1] * his[1] + his[0]
        colored.append(x.float())
    adapted = [float(random.uniform(Op.ADAPT_GATE)) < 0.5 for random in each]
    assert 4 < sum(adapted) < 20

    def seen(b, lifted):
        if not lifted:
            return augment.random_crop(colored[b][None], each[b])[0]
        warps = random_warps(each[b], (64, 64), augment.geometry)
        return warper.warp_vectors(colored[b][None], warps, (28, 28))[0]

    for b in range(B):
        way = adapted[b]
        expected, weight = mixed_by_hand(seen(b, way), seen(others[b], way), each[b], config)
        if way:
            expected = codes[warper.read_tokens(expected[None].float())[0]].permute(2, 0, 1)
        if requantize:
            expected = codes[nearest_ids(expected[None].float(), codes)[0]].permute(2, 0, 1)
        assert out.weight[b].item() == pytest.approx(weight, abs=1e-6)
        close = (out.inputs[b] - expected.float()).abs().amax(dim=0) < 1e-4
        # Where two codes are equally near, the last digit decides.
        assert close.double().mean() > (0.998 if way or requantize else 0.9999), b
    assert torch.equal(out.partner_labels, labels[others])


def test_requantized_inputs_are_codes_of_one_level():
    config = AugmentConfig(requantize=True)
    tokens, labels = token_batch(6)
    x = run(TokenAugment(codebook(), (32, 32), config), tokens, labels).inputs
    rows = x.permute(0, 2, 3, 1).flatten(0, 2)
    assert (rows[:, None] == codebook()).all(dim=2).any(dim=1).all()
    with pytest.raises(UsageError, match=r"requantize is set for a codebook of 2 levels"):
        TokenAugment(codebook().view(2, K // 2, C), (16, 8), config)


def test_shares_of_what_excludes_each_other():
    B = 2000
    config = dataclasses.replace(
        NOTHING, crop_size=4, color_adapt_prob=0.3, noise_prob=0.2, cutmix_prob=0.3, mixup_prob=0.4
    )
    tokens, labels = token_batch(B, (4, 4))
    tokens[:] = tokens[:, :1, :1]  # constant grids: only their own or their partner's value occur
    calm = dataclasses.replace(config, cutmix_prob=0, mixup_prob=0, noise_std=0.5)
    x = run(TokenAugment(codebook(), (4, 4), calm), tokens, labels).inputs
    own = codebook()[tokens].permute(0, 3, 1, 2)
    same_code = tokens[:, 0, 0] == tokens.flip(0)[:, 0, 0]
    coloured = (x - own.flip(0)).abs().flatten(1).amax(1) < 1e-4
    plain = (x - own).abs().flatten(1).amax(1) < 1e-4
    noised = ~coloured & ~plain
    mixing = dataclasses.replace(config, color_adapt_prob=0, noise_prob=0)
    weight = run(TokenAugment(codebook(), (4, 4), mixing), tokens, labels).weight
    gate = SampleRandom(1, 2, torch.arange(B)).uniform(Op.CUTMIX_GATE)
    assert (weight[gate >= 0.7] == 1).all()
    blended = (weight * 16 % 1 != 0).double().mean()  # a box covers whole cells of the 16
    for share, expected in (
        (coloured[~same_code], 0.3),
        (noised, 0.2),
        (blended, 0.4),
    ):
        spread = math.sqrt(expected * (1 - expected) / B)
        assert abs(share.double().mean() - expected) < 4.5 * spread


def test_pixels_are_blended_too():
    config = dataclasses.replace(NOTHING, mixup_prob=1.0, mixup_alpha=2.0)
    pixels = torch.randint(0, 256, (6, 3, 32, 32), dtype=torch.uint8)
    out = run(PixelAugment((32, 32), config), pixels, torch.arange(6))
    plain = run(PixelAugment((32, 32), NOTHING), pixels, torch.arange(6)).inputs
    weight = out.weight[:, None, None, None]
    torch.testing.assert_close(out.inputs, weight * plain + (1 - weight) * plain.flip(0))


def test_adapted_samples_get_the_networks_tokens_and_its_share():
    B = 600
    config = dataclasses.replace(NOTHING, token_adapt="network", token_adapt_prob=0.3)
    augment = TokenAugment(codebook(), (8, 8), config, warper=RollingWarper())
    tokens, labels = token_batch(B, (8, 8))
    x = run(augment, tokens, labels).inputs
    expected = codebook()[(tokens[:, :7, :7] + 1) % K].permute(0, 3, 1, 2)
    adapted = (x == expected).flatten(1).all(dim=1)
    assert torch.equal(adapted, SampleRandom(1, 2, torch.arange(B)).uniform(Op.ADAPT_GATE) < 0.3)
    for prob in (0.0, 1.0):
        edge = dataclasses.replace(config, token_adapt_prob=prob)
        augment = TokenAugment(codebook(), (8, 8), edge, warper=RollingWarper())
        same = (run(augment, tokens, labels).inputs == expected).flatten(1).all(dim=1)
        assert same.double().mean() == prob


def test_a_network_that_is_configured_must_be_passed():
    config = dataclasses.replace(NOTHING, token_adapt="network.safetensors")
    augment = TokenAugment(codebook(), (8, 8), config)
    tokens, labels = token_batch(2, (8, 8))
    assert augment.evaluate(tokens).shape == (2, C, 7, 7)
    with pytest.raises(UsageError, match=r"token_adapt is 'network.safetensors'.*expected"):
        run(augment, tokens, labels)


def test_draws_depend_on_seed_epoch_and_position_only():
    augment = TokenAugment(codebook(), (32, 32), AugmentConfig())
    tokens, labels = token_batch(4)
    first = run(augment, tokens, labels).inputs
    torch.manual_seed(123)
    assert torch.equal(run(augment, tokens, labels).inputs, first)
    for other in ({"seed": 2}, {"epoch": 3}, {"first": 4}):
        different = run(augment, tokens, labels, **other).inputs
        assert (different != first).flatten(1).any(1).all()


def test_each_sample_meets_synonyms_or_a_swap_or_neither():
    B = 1200
    config = dataclasses.replace(
        NOTHING, crop_size=16, synonym_prob=0.3, synonym_rate=1.0, swap_prob=0.4
    )
    # With the token as its own embedding, and a full crop, the edits can be read off.
    augment = TokenAugment(torch.arange(1.0, 301)[:, None], (16, 16), config)
    augment.synonyms = torch.full((300, 1), 299)
    tokens = torch.arange(256).view(1, 16, 16).expand(B, 16, 16)
    out = run(augment, tokens, torch.zeros(B, dtype=torch.int64)).inputs[:, 0].round() - 1
    synonyms = (out == 299).flatten(1)
    assert torch.equal(synonyms.any(1), synonyms.all(1))
    moved = (out != tokens).flatten(1).any(1) & ~synonyms.any(1)
    for share, expected in ((synonyms.any(1), 0.3), (moved, 0.4 * 0.75)):
        spread = math.sqrt(expected * (1 - expected) / B)
        assert abs(share.double().mean() - expected) < 4 * spread


def test_probability_one_of_everything():
    config = AugmentConfig(synonym_prob=1, swap_prob=0, noise_prob=1, cutmix_prob=1, flip_prob=1)
    tokens, labels = token_batch(5)
    assert run(TokenAugment(codebook(), (32, 32), config), tokens, labels).inputs.isfinite().all()
    flipped = dataclasses.replace(NOTHING, flip_prob=1, crop_size=32)
    out = run(TokenAugment(codebook(), (32, 32), flipped), tokens, labels).inputs
    torch.testing.assert_close(out, codebook()[tokens.flip(-1)].permute(0, 3, 1, 2))


@pytest.mark.parametrize("K", [1, 2, 4])
def test_tiny_codebooks(K):
    augment = TokenAugment(torch.randn(K, 3), (8, 8), AugmentConfig(synonym_prob=1, swap_prob=0))
    tokens = torch.zeros((4, 8, 8), dtype=torch.int64)
    out = run(augment, tokens, torch.zeros(4, dtype=torch.int64))
    assert out.inputs.isfinite().all()
    assert augment.synonyms.shape == (K, max(1, K - 1))


def test_nothing_is_saved_with_a_model():
    assert not TokenAugment(codebook(), (8, 8), AugmentConfig()).state_dict()
    assert not PixelAugment((8, 8), AugmentConfig()).state_dict()


def test_pixels_equal_torchvision_one_by_one():
    config = AugmentConfig(cutmix_prob=0)
    augment = PixelAugment((40, 48), config)
    generator = torch.Generator().manual_seed(0)
    # Between 64 and 192, so that bicubic overshoot never meets the ends of uint8 halfway.
    pixels = torch.randint(64, 192, (10, 3, 40, 48), generator=generator, dtype=torch.uint8)
    out = run(augment, pixels, torch.arange(10)).inputs
    assert out.shape == (10, 3, 35, 42)
    random = SampleRandom(1, 2, torch.arange(10))
    flipped = random.uniform(Op.FLIP) < 0.5
    assert 0 < flipped.sum() < 10
    boxes = random_crop_boxes(random, (40, 48), scale=config.crop_scale, ratio=config.crop_ratio)
    for b, box in enumerate(torch.stack(boxes, dim=1).tolist()):
        image = pixels[b].flip(-1) if flipped[b] else pixels[b]
        resized = vision.resized_crop(
            image.double(),
            *box,
            size=[35, 42],
            interpolation=vision.InterpolationMode.BICUBIC,
            antialias=True,
        )
        expected = vision.normalize(
            resized.clamp(0, 255) / 255, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
        )
        two_levels = 2.01 / 255 / 0.224
        torch.testing.assert_close(out[b].double(), expected, atol=two_levels, rtol=0)


def test_pixel_evaluation_equals_torchvision():
    augment = PixelAugment((256, 256), AugmentConfig())
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (2, 3, 256, 256), generator=generator, dtype=torch.uint8)
    middle = vision.center_crop(pixels, [224, 224]).double() / 255
    expected = vision.normalize(middle, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    torch.testing.assert_close(augment.evaluate(pixels).double(), expected, atol=1e-5, rtol=0)


def test_pixels_mix_like_tokens():
    pixels = torch.randint(0, 256, (6, 3, 32, 32), dtype=torch.uint8)
    out = run(PixelAugment((32, 32), AugmentConfig()), pixels, torch.arange(6))
    tokens, _ = token_batch(6)
    same = run(TokenAugment(codebook(), (32, 32), AugmentConfig()), tokens, torch.arange(6))
    assert torch.equal(out.weight, same.weight)
    assert torch.equal(out.partner_labels, torch.arange(6).flip(0))


@pytest.mark.parametrize(
    "wrong",
    [
        {"synonym_prob": 1.5},
        {"synonym_prob": 0.6, "swap_prob": 0.6},
        {"synonym_rate": -0.1},
        {"synonym_top": 0},
        {"swap_prob": -1.0},
        {"swap_max": 0.6},
        {"noise_prob": math.nan},
        {"noise_scale": -1.0},
        {"noise_std": math.inf},
        {"order": "color first"},
        {"cutmix_prob": 2.0},
        {"cutmix_alpha": 0.0},
        {"cutmix_alpha": math.inf},
        {"mixup_alpha": 0.0},
        {"mixup_alpha": math.nan},
        {"mixup_prob": -0.5},
        {"cutmix_prob": 0.8, "mixup_prob": 0.4},
        {"color_adapt_prob": 2.0},
        {"noise_prob": 0.8, "color_adapt_prob": 0.4},
        {"token_adapt_prob": 1.5},
        {"freq_masks": -1},
        {"freq_mask_max": 1.5},
        {"time_masks": 65},
        {"time_mask_max": math.nan},
        {"time_roll": 0.6},
        {"flip_prob": -0.5},
        {"crop_size": -1},
        {"crop_scale": (0.0, 1.0)},
        {"crop_scale": (0.5, 0.2)},
        {"crop_scale": (0.5, 1.2)},
        {"crop_scale": (0.5,)},
        {"crop_ratio": (0.0, 1.0)},
        {"crop_ratio": (1.0, math.inf)},
        {"interpolation": "lanczos"},
    ],
)
def test_a_value_out_of_range_is_refused_by_name(wrong):
    with pytest.raises(UsageError, match=f"{next(iter(wrong))}.* is .*expected .*: "):
        AugmentConfig(**wrong)


def test_batches_of_another_shape_are_refused():
    augment = TokenAugment(codebook(), (32, 32), AugmentConfig())
    tokens, labels = token_batch(4, (16, 16))
    with pytest.raises(UsageError, match=r"\(4, 16, 16\).*expected \(B, 32, 32\)"):
        run(augment, tokens, labels)
    with pytest.raises(UsageError, match="expected"):
        augment.evaluate(torch.zeros(4, 32, 32))
    tokens, labels = token_batch(4)
    with pytest.raises(UsageError, match=r"positions are \(3,\)"):
        augment(tokens, labels, positions=torch.arange(3), seed=0, epoch=0)
    with pytest.raises(UsageError, match="crop_size is 40"):
        TokenAugment(codebook(), (32, 32), AugmentConfig(crop_size=40))
    with pytest.raises(UsageError, match="codebook"):
        TokenAugment(torch.zeros(3, 3, 4), (32, 32), AugmentConfig())
    with pytest.raises(UsageError, match=r"expected \(B, 3, 32, 32\)"):
        PixelAugment((32, 32), AugmentConfig()).evaluate(torch.zeros(1, 32, 32, 3).byte())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_augments_like_the_cpu_and_is_never_waited_for():
    tokens, labels = token_batch(16)
    everything = dataclasses.replace(EVERYTHING, token_adapt="", flip_prob=0.5, mixup_alpha=2.0)
    augment = TokenAugment(codebook(), (32, 32), dataclasses.replace(everything, cutmix_alpha=0.8))
    expected = run(augment, tokens, labels)
    augment.cuda()
    batch = [tensor.cuda() for tensor in (tokens, labels, torch.arange(16))]
    torch.cuda.set_sync_debug_mode("error")
    try:
        out = augment(*batch[:2], positions=batch[2], seed=1, epoch=2)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for ours, theirs in zip(out, expected, strict=True):
        torch.testing.assert_close(ours.cpu(), theirs, atol=1e-4, rtol=0)
