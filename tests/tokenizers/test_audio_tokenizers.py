"""The front end against independent arithmetic, and the tokenizers on it."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load, save

from seit.augment import AugmentConfig, TokenAugment
from seit.errors import DamagedError, UsageError
from seit.shards import Block, TokenLayout
from seit.stores import convert_store
from seit.testing import write_store
from seit.tokenizers import (
    PRESETS,
    AudioInputs,
    DMelTokenizer,
    MelConfig,
    MelFrontEnd,
    MelTokenizer,
    ResidualMelTokenizer,
    load_tokenizer,
    measure_quality,
    mel_pictures,
    save_tokenizer,
    tokenizer_bytes,
)
from seit.tokenizers.learned.autoencoder import Autoencoder, NetworkConfig
from seit.tokenizers.mel import FLOOR_DB, RANGE_DB, hz_to_mel, mel_filters, mel_to_hz
from seit.tokenizers.presets import MEL_CONFIGS

SMALL = MelConfig(
    sample_rate=8000, window=2000, hop=125, taper=200, fft=256, bands=16, frames=16, patch=(2, 4)
)


def sounds(count, config=SMALL, seed=0):
    """Waveforms float32 (B, T): gliding tones in noise, some silent at their end."""
    rng = np.random.default_rng(seed)
    times = np.arange(config.window) / config.sample_rate
    waves = np.empty((count, config.window))
    for wave in waves:
        pitch, glide = rng.uniform(100, config.sample_rate / 3), rng.uniform(-500, 500)
        wave[:] = rng.uniform(0.05, 0.5) * np.sin(2 * math.pi * (pitch + glide * times) * times)
        wave += rng.normal(0, rng.uniform(1e-3, 3e-2), len(wave))
        wave[rng.integers(config.window // 2, config.window) :] = 0
    return torch.from_numpy(waves.astype(np.float32))


@pytest.fixture(scope="module")
def waves():
    return sounds(24)


@pytest.fixture(scope="module")
def fitted(waves):
    return MelTokenizer.fit(waves, SMALL, num_codes=32, dim=6)


@pytest.fixture(scope="module")
def residual(waves):
    return ResidualMelTokenizer.fit(waves, SMALL, num_codes=32, dim=6, levels=2)


@pytest.fixture(params=["fitted", "residual", "dmel"])
def tokenizer(request):
    return (
        DMelTokenizer(SMALL) if request.param == "dmel" else request.getfixturevalue(request.param)
    )


# ---------------------------------------------------------------------------------- the front end


def slow_levels(wave, config):
    """Log-mel levels in float64 by the definition: a sum over samples for every frequency."""
    start = -(config.fft // 2) + (config.fft - config.taper) // 2
    sample = np.arange(config.taper)
    hann = np.sin(math.pi * sample / config.taper) ** 2
    angles = np.outer(np.arange(config.fft // 2 + 1), sample) * (2 * math.pi / config.fft)
    edges = [slow_hz(slow_mel(config.sample_rate / 2) * i / (config.bands + 1))
             for i in range(config.bands + 2)]  # fmt: skip
    levels = np.empty((config.bands, config.frames))
    for frame in range(config.frames):
        places = frame * config.hop + start + sample
        inside = (places >= 0) & (places < len(wave))
        values = np.where(inside, wave[places.clip(0, len(wave) - 1)], 0) * hann
        power = (np.cos(angles) @ values) ** 2 + (np.sin(angles) @ values) ** 2
        for band in range(config.bands):
            low, centre, high = edges[band : band + 3]
            total = 0.0
            for k, value in enumerate(power):
                hertz = k * config.sample_rate / config.fft
                if low < hertz <= centre:
                    total += value * (hertz - low) / (centre - low)
                elif centre < hertz < high:
                    total += value * (high - hertz) / (high - centre)
            level = 10 * math.log10(max(total * 2 / (high - low), 1e-6))
            levels[band, frame] = level
    return levels


def slow_mel(hertz):
    return hertz * 3 / 200 if hertz < 1000 else 15 + 27 * math.log(hertz / 1000) / math.log(6.4)


def slow_hz(mel):
    return mel * 200 / 3 if mel < 15 else 1000 * 6.4 ** ((mel - 15) / 27)


@pytest.mark.parametrize(
    "config",
    [
        SMALL,
        replace(SMALL, sample_rate=16_000, bands=10, frames=20, patch=(1, 1)),
        replace(SMALL, taper=256, hop=100, frames=20, patch=(4, 5)),
    ],
)
def test_levels_against_the_definition(config):
    waves = sounds(2, config, seed=3)
    found = MelFrontEnd.unfitted(config).levels(waves)
    for levels, wave in zip(found.numpy(), waves.numpy().astype(float), strict=True):
        assert np.abs(levels - slow_levels(wave, config)).max() < 2e-3


def test_slaneys_scale():
    """Linear to 1 kHz, which is 15 mel; a factor of 6.4 above it is 27 mel."""
    hertz = np.array([0, 200, 500, 1000, 6400, 8000.0])
    expected = [0, 3, 7.5, 15, 42, 15 + 27 * math.log(8) / math.log(6.4)]
    assert hz_to_mel(hertz) == pytest.approx(expected)
    assert mel_to_hz(hz_to_mel(hertz)) == pytest.approx(hertz)


@pytest.mark.parametrize("config", MEL_CONFIGS.values(), ids=MEL_CONFIGS)
def test_filters_of_the_presets_have_unit_area_and_none_is_empty(config):
    filters = mel_filters(config.sample_rate, fft=config.fft, bands=config.bands)
    assert (filters.max(1) > 0).all()
    wide = filters[60:].sum(1) * config.sample_rate / config.fft
    assert wide == pytest.approx(np.ones(len(wide)), rel=0.05)


def test_a_tone_of_full_scale():
    """|X|² is taper² / 16 at the tone's own frequency; the filter weighs what lies around it."""
    config = MEL_CONFIGS["5s"]
    bin_ = 192  # 3 kHz
    wave = torch.sin(2 * math.pi * 3000 * torch.arange(config.window).double() / 16_000).float()
    levels = MelFrontEnd.unfitted(config).levels(wave[None])[0, :, 250]
    filters = mel_filters(16_000, fft=config.fft, bands=config.bands)
    loudest = int(levels.argmax())
    assert filters[loudest, bin_] > 0
    # The window spreads it over neighbouring bins, which the filter sums.
    hann = np.sin(math.pi * np.arange(config.taper) / config.taper) ** 2
    spread = np.abs(np.fft.rfft(hann, config.fft)) ** 2
    power = config.taper**2 / 16 * spread[np.abs(np.arange(513) - bin_)] / spread[0]
    expected = 10 * math.log10(filters[loudest] @ power)
    assert float(levels[loudest]) == pytest.approx(expected, abs=0.1)
    assert FLOOR_DB < float(levels.max()) < FLOOR_DB + RANGE_DB


@pytest.mark.parametrize(("length", "valid"), [("1s", 128), ("5s", 500), ("10s", 500)])
def test_presets_fill_a_grid_of_32_by_32(length, valid):
    config = MEL_CONFIGS[length]
    assert config.grid == (32, 32)
    seconds = float(length[:-1])
    assert config.window == seconds * config.sample_rate
    assert config.window / config.hop == valid
    for kind in ("mel-vq", "mel-rvq", "dmel"):
        inputs = PRESETS[f"{kind}-{length}"].inputs(size=256)
        assert inputs == AudioInputs(16_000, config.window)
        assert inputs.seconds == seconds
    levels = MelFrontEnd.unfitted(config).levels(torch.ones(1, config.window) * 0.5)
    assert levels.shape == (1, 128, config.frames)
    assert (levels[..., valid + config.fft // config.hop :] == FLOOR_DB).all()


def test_low_frequencies_are_in_row_0_and_time_goes_right():
    config = MEL_CONFIGS["1s"]
    wave = torch.zeros(1, config.window)
    times = torch.arange(4000) / 16_000
    wave[0, 12_000:] = torch.sin(2 * math.pi * 100 * times)
    levels = MelFrontEnd.unfitted(config).levels(wave)[0]
    assert divmod(int(levels[:, :].argmax()), 128)[0] < 10
    assert (levels[:, :90] == FLOOR_DB).all()
    picture = mel_pictures(levels[None])[0]
    assert picture.shape == (128, 128, 3)
    assert picture[118:, 100:].max() > 200
    assert not picture[:, :90].any()


def test_planes_are_standardised_by_band(waves):
    front_end = MelFrontEnd.fit(SMALL, waves)
    planes = front_end.planes(waves)
    assert planes.shape == (24, 1, 16, 16)
    assert planes.mean((0, 1, 3)).abs().max() < 1e-4
    assert (planes.std((0, 1, 3), correction=0) - 1).abs().max() < 1e-3
    assert torch.allclose(front_end.to_levels(planes), front_end.levels(waves), atol=1e-3)
    again = MelFrontEnd.restore(front_end.tensors(), front_end.settings())
    assert torch.equal(again.planes(waves), planes)
    silent = MelFrontEnd.fit(SMALL, torch.zeros(3, SMALL.window))
    assert silent.planes(torch.zeros(1, SMALL.window)).abs().max() == 0


def test_a_learned_network_can_take_the_planes(waves):
    """The seam for a learned tokenizer: the autoencoder on the same planes and patches."""
    widths = {f"{part}_width": 8 for part in ("encoder", "decoder", "fine")}
    network = Autoencoder(NetworkConfig(planes=1, patch=SMALL.patch, dim=6, **widths))
    planes = MelFrontEnd.fit(SMALL, waves).planes(waves)
    latents = network.encoder(planes)
    assert latents.shape == (24, 6, *SMALL.grid)
    assert network.decoder(latents).shape == planes.shape


@pytest.mark.parametrize(
    "wrong",
    [
        {"window": 0}, {"hop": 0}, {"fft": 255}, {"fft": 1 << 20}, {"taper": 300}, {"bands": 15},
        {"frames": 15}, {"frames": 1 << 20}, {"hop": 1 << 23}, {"patch": (0, 4)}, {"window": 1.5},
    ],
)  # fmt: skip
def test_shapes_that_cannot_be_are_refused(wrong):
    with pytest.raises(ValueError, match=r"expected|fall|many"):
        replace(SMALL, **wrong)


# --------------------------------------------------------------------------------- the tokenizers


def test_ids_are_the_nearest_codes(fitted, waves):
    patches = fitted.front_end.planes(waves).unfold(2, 2, 2).unfold(3, 4, 4)
    points = patches.reshape(24, 8, 4, 8).double() - fitted.tensors()["mean"].double()
    points = points @ fitted.tensors()["analysis"].double()
    distances = torch.cdist(points.flatten(0, 2), fitted.codebook.double())
    ids = fitted.encode(waves)
    assert ids.shape == (24, 8, 4)
    chosen = distances.gather(1, ids.flatten()[:, None]).squeeze(1)
    assert (chosen - distances.min(1).values).max() < 1e-4


def test_levels_sum_to_the_embedding(residual, waves):
    """The second level codes what the first leaves over, so two levels keep more than one."""
    ids = residual.encode(waves)
    assert (residual.levels, residual.num_codes, residual.codebook_dim) == (2, 32, 6)
    assert residual.grid == (16, 4) == tuple(ids.shape[1:])
    first = MelTokenizer(
        residual.codebook[0],
        residual.front_end,
        **{key: residual.tensors()[key] for key in ("mean", "analysis", "synthesis")},
    )
    assert torch.equal(first.encode(waves), ids[:, :8])
    both, one = (measure_quality(entry, waves).psnr_db for entry in (residual, first))
    assert both > one + 1


def test_tokens_do_not_depend_on_their_batch(tokenizer, waves):
    together = tokenizer.encode(waves)
    alone = torch.cat([tokenizer.encode(wave[None]) for wave in waves])
    assert torch.equal(together, alone)
    assert together.dtype == torch.int64
    assert together.max() < tokenizer.num_codes


def test_a_saved_tokenizer_comes_back(tokenizer, waves, tmp_path):
    save_tokenizer(tokenizer, tmp_path / "t.safetensors")
    loaded = load_tokenizer(tmp_path / "t.safetensors")
    assert type(loaded) is type(tokenizer)
    assert loaded.fingerprint == tokenizer.fingerprint
    assert loaded.inputs == AudioInputs(8000, 2000) == tokenizer.inputs
    assert torch.equal(loaded.encode(waves), tokenizer.encode(waves))
    moved = loaded.to("cpu")
    assert torch.equal(moved.decode(moved.encode(waves)), tokenizer.decode(tokenizer.encode(waves)))


def test_fits_are_repeatable(fitted, waves):
    assert MelTokenizer.fit(waves, SMALL, num_codes=32, dim=6).fingerprint == fitted.fingerprint
    other = MelTokenizer.fit(waves, SMALL, num_codes=32, dim=6, seed=1)
    assert other.fingerprint != fitted.fingerprint


def test_dmel_rounds_the_mean_level_of_patches(waves):
    tokenizer = DMelTokenizer(SMALL)
    levels = tokenizer.front_end.levels(waves).double()
    means = levels.reshape(24, 8, 2, 4, 4).mean((2, 4))
    expected = ((means + 60) / 6.25).floor().clamp(0, 15).long()
    assert (tokenizer.encode(waves) - expected).abs().max() <= 1
    assert (tokenizer.encode(waves) == expected).double().mean() > 0.999
    decoded = tokenizer.decode(expected)
    assert decoded.shape == levels.shape
    assert decoded[0, 0, 0] == -60 + 6.25 * (expected[0, 0, 0] + 0.5)
    assert torch.equal(tokenizer.encode(torch.zeros(1, 2000)), torch.zeros(1, 8, 4).long())


def test_silent_windows_do_not_count_among_others(tokenizer, waves):
    quality = measure_quality(tokenizer, waves)
    silent = measure_quality(tokenizer, torch.cat([waves, torch.zeros_like(waves[:3])]))
    assert silent.psnr_db == pytest.approx(quality.psnr_db, abs=1e-9)
    assert silent.windows == quality.windows + 3


def test_quality_against_its_definition(tokenizer, waves):
    quality = measure_quality(tokenizer, waves)
    ids = tokenizer.encode(waves)
    error = (tokenizer.decode(ids) - tokenizer.front_end.levels(waves)).double()
    psnr = (20 * math.log10(100) - 10 * error.square().mean((1, 2)).log10()).mean()
    assert quality.psnr_db == pytest.approx(float(psnr), abs=1e-6)
    parts = np.split(ids.numpy(), tokenizer.levels, axis=1)
    used = sum(len(np.unique(part)) for part in parts)
    assert quality.codebook_usage == used / (tokenizer.levels * tokenizer.num_codes)
    entropies = []
    for part in parts:
        share = np.unique(part, return_counts=True)[1] / part.size
        entropies.append(2 ** -(share * np.log2(share)).sum())
    assert quality.perplexity == pytest.approx(np.mean(entropies))


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"num_codes": 1}, "2 to"),
        ({"num_codes": 500}, "give at least 32 windows"),
        ({"dim": 9}, "1 to 8"),
        ({"whitening": 2.0}, "whitening"),
        ({"levels": 2}, "levels is 2; a mel-vq tokenizer has 1 to 1"),
    ],
)
def test_impossible_fits_are_refused(waves, arguments, match):
    with pytest.raises(UsageError, match=match):
        MelTokenizer.fit(waves, SMALL, **{"num_codes": 8, "dim": 4, **arguments})
    with pytest.raises(UsageError, match="levels is 1; a mel-rvq tokenizer has 2 to 16"):
        ResidualMelTokenizer.fit(waves, SMALL, num_codes=8, dim=4)


@pytest.mark.parametrize(
    "change",
    [
        {"mean": None},
        {"band_mean": None},
        {"band_mean": torch.zeros(15)},
        {"band_deviation": torch.zeros(16)},
        {"band_mean": torch.full((16,), math.nan)},
        {"analysis": torch.zeros(8, 5)},
        {"synthesis": torch.zeros(6, 8, dtype=torch.float64)},
        {"codebook": torch.zeros(32, 5)},
        {"codebook": torch.zeros(2, 32, 6)},
        {"extra": torch.zeros(1)},
    ],
)
def test_hostile_tokenizers_are_refused(fitted, tmp_path, change):
    from safetensors import safe_open

    path = tmp_path / "t.safetensors"
    path.write_bytes(tokenizer_bytes(fitted, with_codebook=True))
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    tensors = {**load(path.read_bytes()), **change}
    path.write_bytes(save({k: v for k, v in tensors.items() if v is not None}, metadata))
    with pytest.raises(DamagedError):
        load_tokenizer(path)


@pytest.mark.parametrize("settings", [{}, {"front_end": None}, {"front_end": {"patch": [1, 1]}}])
def test_hostile_settings_are_refused(fitted, settings):
    with pytest.raises(DamagedError):
        MelTokenizer.restore(fitted.codebook, fitted.tensors(), settings)
    with pytest.raises(DamagedError):
        DMelTokenizer.restore(DMelTokenizer(SMALL).codebook, {}, settings)


# ------------------------------------------------------------------- residual grids in training

PLAIN = AugmentConfig(
    crop_size=8, crop_scale=(1, 1), crop_ratio=(1, 1), synonym_prob=0, swap_prob=0, noise_prob=0,
    cutmix_prob=0,
)  # fmt: skip
LEVELS, CODES, DIM = 3, 12, 5


def residual_batch(count=16):
    generator = torch.Generator().manual_seed(0)
    codebook = torch.randn(LEVELS, CODES, DIM, generator=generator)
    tokens = torch.randint(CODES, (count, LEVELS * 8, 8), generator=generator)
    return codebook, tokens


def summed(codebook, tokens):
    """The look-up by its definition: (B, C, H, W)."""
    parts = tokens.chunk(LEVELS, dim=1)
    return sum(codebook[level][part] for level, part in enumerate(parts)).permute(0, 3, 1, 2)


def augmented(codebook, tokens, config, epoch=0):
    augment = TokenAugment(codebook, tuple(tokens.shape[1:]), config)
    labels = torch.arange(len(tokens))
    return augment(tokens, labels, positions=labels, seed=0, epoch=epoch).inputs


def test_the_look_up_sums_levels():
    codebook, tokens = residual_batch()
    expected = summed(codebook, tokens)
    assert torch.allclose(augmented(codebook, tokens, PLAIN), expected, atol=1e-5)
    augment = TokenAugment(codebook, (24, 8), replace(PLAIN, crop_size=0))
    assert (augment.grid, augment.stored_grid, augment.output_size) == ((8, 8), (24, 8), (7, 7))
    assert torch.allclose(augment.evaluate(tokens), expected[..., :7, :7], atol=1e-6)


def test_one_level_of_three_dimensions_is_as_two_dimensions():
    codebook, tokens = residual_batch()
    config = replace(PLAIN, synonym_prob=0.5, swap_prob=0.5, noise_prob=1.0, freq_masks=1)
    flat, deep = (augmented(entry, tokens[:, :8], config) for entry in (codebook[0], codebook[:1]))
    assert torch.equal(flat, deep)


def test_synonyms_stay_in_their_level():
    codebook, tokens = residual_batch()
    only = torch.zeros_like(codebook)
    only[1] = codebook[1]
    config = replace(PLAIN, synonym_prob=1.0, synonym_rate=0.5, synonym_top=2)
    found = augmented(only, tokens, config)
    codes = set(map(tuple, codebook[1].round(decimals=3).tolist()))
    cells = found.permute(0, 2, 3, 1).reshape(-1, DIM).round(decimals=3).tolist()
    assert set(map(tuple, cells)) <= codes
    changed = (found - summed(only, tokens)).abs().sum(1) > 1e-3
    assert 0.3 < changed.double().mean() < 0.7


def test_squares_are_swapped_in_all_levels_alike():
    codebook, tokens = residual_batch(64)
    config = replace(PLAIN, swap_prob=1.0, swap_max=0.5)
    before, after = summed(codebook, tokens), augmented(codebook, tokens, config)
    assert not torch.allclose(before, after, atol=1e-3)
    for one, other in zip(before, after, strict=True):
        cells = set(map(tuple, one.flatten(1).T.round(decimals=3).tolist()))
        assert set(map(tuple, other.flatten(1).T.round(decimals=3).tolist())) <= cells


def test_masks_and_noise_of_a_residual_codebook():
    codebook, tokens = residual_batch()
    masked = augmented(codebook, tokens, replace(PLAIN, time_masks=4, time_mask_max=1.0))
    mean = codebook.mean(1).sum(0)
    hidden = (masked - mean[:, None, None]).abs().amax(1) < 1e-5
    assert hidden.any(2).all(1).any()
    config = replace(PLAIN, noise_prob=1.0, noise_scale=0.0, noise_std=1.0)
    noise = augmented(codebook, tokens, config) - summed(codebook, tokens)
    by_level = codebook - codebook.mean(1, keepdim=True)
    expected = by_level.square().mean(1).sum(0).sqrt()  # of each channel, its levels together
    torch.testing.assert_close(noise.std(dim=(0, 2, 3)), expected, rtol=0.1, atol=0)


@pytest.mark.parametrize("shape", [(LEVELS, CODES, DIM), (5, CODES, DIM), (0, CODES, DIM), (DIM,)])
def test_codebooks_that_do_not_fit_are_refused(shape):
    with pytest.raises(UsageError, match=r"the codebook is .*expected \(K, C\), or"):
        TokenAugment(torch.zeros(shape), (8, 8), PLAIN)


@pytest.mark.parametrize("levels", [2, 3])
def test_stores_give_residual_codebooks(tmp_path, levels):
    from seit import create_model, open as open_store

    rng = np.random.default_rng(0)
    layout = TokenLayout(grid=(16 * levels, 8), num_codes=12)
    block = Block(
        tokens=rng.integers(12, size=(4, 16 * levels, 8)).astype(layout.dtype),
        labels=np.zeros(4, np.int32),
        keys=tuple("abcd"),
    )
    codebook = rng.normal(size=(levels, 12, 5)).astype(np.float32)
    write_store(tmp_path / "s", {"train": block}, layout=layout, codebook=codebook, classes=["x"])
    store = open_store(tmp_path / "s")
    assert np.array_equal(store.codebook, codebook)
    model = create_model("vit_tiny_patch16_224", store, stem="2/2/0", depth=1)
    codebook = torch.from_numpy(store.codebook)
    augment = TokenAugment(codebook, store.card.tokenizer.grid, AugmentConfig())
    inputs = augment.evaluate(torch.from_numpy(block.tokens.astype(np.int64)))
    assert inputs.shape == (4, 5, 14, 7)
    assert model(inputs).shape == (4, 1)
    with pytest.raises(UsageError, match=f"has {levels} levels of codes; .* one level"):
        convert_store(tmp_path / "s", tmp_path / "official", container="official")


def test_stores_whose_levels_do_not_divide_the_rows_are_damaged(tmp_path):
    from seit import open as open_store

    layout = TokenLayout(grid=(4, 4), num_codes=12)
    block = Block(np.zeros((1, 4, 4), layout.dtype), np.zeros(1, np.int32), ("a",))
    codebook = np.zeros((3, 12, 5), np.float32)
    write_store(tmp_path / "s", {"train": block}, layout=layout, codebook=codebook, classes=["x"])
    with pytest.raises(DamagedError, match="holds a codebook"):
        _ = open_store(tmp_path / "s").codebook
