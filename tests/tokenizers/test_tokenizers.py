import json
import math

import numpy as np
import pytest
import torch
from safetensors.torch import save

from seit.errors import DamagedError, UsageError
from seit.tokenizers import (
    PRESET_SUMMARIES,
    PRESETS,
    ImageTokenizer,
    PatchTokenizer,
    ResidualPatchTokenizer,
    codebook_bytes,
    load_tokenizer,
    measure_quality,
    open_tokenizer,
    save_tokenizer,
    tokenizer_bytes,
)
from seit.tokenizers.fitted.kmeans import assign, fit_kmeans


def textures(count, side, seed=0):
    """Images uint8 (B, S, S, 3) of coloured gradients, stripes and noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:side, 0:side] / side
    images = []
    for _ in range(count):
        angle, frequency = rng.uniform(0, math.pi), rng.uniform(0.2, 4)
        wave = np.sin(2 * math.pi * frequency * (x * math.cos(angle) + y * math.sin(angle)))
        image = rng.uniform(60, 190, 3) + wave[..., None] * rng.uniform(-60, 60, 3)
        images.append(image + rng.normal(0, 6, (side, side, 3)))
    return torch.from_numpy(np.clip(images, 0, 255).astype(np.uint8))


def patches_of(images, side):
    """Patches float64 (B, H, W, D) by plain slicing."""
    images = images.double().numpy()
    rows, columns = images.shape[1] // side, images.shape[2] // side
    out = np.empty((len(images), rows, columns, 3 * side * side))
    for b, image in enumerate(images):
        for i in range(rows):
            for j in range(columns):
                patch = image[i * side : (i + 1) * side, j * side : (j + 1) * side]
                out[b, i, j] = patch.reshape(-1)
    return out


@pytest.fixture(scope="module")
def images():
    return textures(48, 32)


@pytest.fixture(scope="module")
def tokenizer(images):
    return PatchTokenizer.fit(images, num_codes=64)


@pytest.fixture(scope="module")
def tiny(images):
    return PatchTokenizer.fit(images[:4], num_codes=4, patch_size=2, dim=2)


@pytest.mark.parametrize(
    ("num_points", "num_centres", "dim"), [(300, 5, 2), (500, 8, 3), (64, 2, 1)]
)
def test_kmeans_is_lloyds_algorithm(num_points, num_centres, dim):
    points = torch.randn(num_points, dim, generator=torch.Generator().manual_seed(dim))
    start = torch.randperm(num_points, generator=torch.Generator().manual_seed(7))[:num_centres]
    centres, x = points[start].double().numpy(), points.double().numpy()
    for _ in range(12):
        nearest = ((x[:, None] - centres[None]) ** 2).sum(2).argmin(1)
        assert len(set(nearest)) == num_centres
        centres = np.stack([x[nearest == k].mean(0) for k in range(num_centres)])
    found = fit_kmeans(points, num_centres, seed=7, iterations=12)
    assert found.dtype == torch.float32
    np.testing.assert_allclose(
        found.numpy()[np.lexsort(found.numpy().T)], centres[np.lexsort(centres.T)], atol=1e-5
    )
    counts = np.bincount(assign(points, found).numpy(), minlength=num_centres)
    assert (np.diff(counts) <= 0).all()


def test_centres_that_nobody_chose_are_used_again():
    clumps = torch.tensor([[0.0, 0.0], [0.0, 9.0], [9.0, 0.0], [9.0, 9.0]]).repeat(50, 1)
    points = clumps + 0.01 * torch.randn(200, 2, generator=torch.Generator().manual_seed(0))
    points[:150] = points[0] + 1e-4 * torch.arange(300).view(150, 2)
    centres = fit_kmeans(points, 20, seed=1)
    assert len(assign(points, centres).unique()) == 20


def test_assignment_is_the_nearest_centre():
    generator = torch.Generator().manual_seed(0)
    points = torch.randn(20_000, 5, generator=generator)
    centres = torch.randn(37, 5, generator=generator)
    distances = torch.cdist(points.double(), centres.double()).square()
    chosen = distances.gather(1, assign(points, centres)[:, None]).squeeze(1)
    assert (chosen - distances.min(1).values).max() < 1e-5


def test_kmeans_of_equal_points_has_no_nan():
    centres = fit_kmeans(torch.full((50, 3), 2.0), 8)
    assert torch.equal(centres, torch.full((8, 3), 2.0))


def test_ids_are_the_nearest_codes(tokenizer, images):
    tensors = {key: value.double().numpy() for key, value in tokenizer.tensors().items()}
    points = (patches_of(images, 8) / 255 - tensors["mean"]) @ tensors["analysis"]
    codebook = tokenizer.codebook.double().numpy()
    distances = ((points[..., None, :] - codebook) ** 2).sum(-1)
    ids = tokenizer.encode(images)
    assert ids.shape == (48, 4, 4)
    assert ids.dtype == torch.int64
    chosen = np.take_along_axis(distances, ids.numpy()[..., None], -1)[..., 0]
    assert (chosen - distances.min(-1)).max() < 1e-4
    assert (ids.numpy() == distances.argmin(-1)).mean() > 0.999


def test_decoding_is_the_linear_way_back(tokenizer, images):
    ids = tokenizer.encode(images[:3])
    tensors = {key: value.double().numpy() for key, value in tokenizer.tensors().items()}
    vectors = tokenizer.codebook.double().numpy()[ids.numpy()]
    expected = np.clip(np.round((vectors @ tensors["synthesis"] + tensors["mean"]) * 255), 0, 255)
    decoded = tokenizer.decode(ids)
    assert decoded.shape == (3, 32, 32, 3)
    assert decoded.dtype == torch.uint8
    assert np.abs(patches_of(decoded, 8) - expected).max() <= 1


@pytest.mark.parametrize("whitening", [0.0, 0.5, 1.0])
def test_analysis_and_synthesis_are_inverse(images, whitening):
    fitted = PatchTokenizer.fit(images, num_codes=8, dim=6, whitening=whitening).tensors()
    product = fitted["synthesis"].double() @ fitted["analysis"].double()
    torch.testing.assert_close(product, torch.eye(6, dtype=torch.float64), atol=1e-4, rtol=0)
    if whitening == 1:
        points = (torch.from_numpy(patches_of(images, 8)) / 255 - fitted["mean"]).flatten(0, 2)
        covariance = (points @ fitted["analysis"].double()).T.cov(correction=0)
        torch.testing.assert_close(covariance, torch.eye(6).double(), atol=0.02, rtol=0)


def test_more_codes_keep_more(images):
    psnr = [
        measure_quality(PatchTokenizer.fit(images, num_codes=codes), images).psnr_db
        for codes in (2, 8, 32, 128)
    ]
    assert np.diff(psnr).min() > 1
    assert psnr[-1] > 25


def test_all_codes_are_used(tokenizer, images):
    quality = measure_quality(tokenizer, images)
    assert quality.codebook_usage == 1
    assert quality.perplexity > 32


def test_fitting_is_deterministic(tokenizer, images):
    again = PatchTokenizer.fit(images, num_codes=64)
    assert again.fingerprint == tokenizer.fingerprint
    assert torch.equal(again.codebook, tokenizer.codebook)
    other = PatchTokenizer.fit(images, num_codes=64, seed=1)
    assert other.fingerprint != tokenizer.fingerprint


def test_tokens_of_an_image_do_not_depend_on_its_batch(tokenizer, images):
    together = tokenizer.encode(images)
    alone = torch.cat([tokenizer.encode(image[None]) for image in images])
    assert (together == alone).float().mean() > 0.999


@pytest.mark.parametrize("codes", [2, 16])
@pytest.mark.parametrize("shade", [0, 127, 255])
def test_constant_images_do_no_harm(shade, codes):
    images = torch.full((3, 32, 32, 3), shade, dtype=torch.uint8)
    fitted = PatchTokenizer.fit(images, num_codes=codes)
    assert all(tensor.isfinite().all() for tensor in (fitted.codebook, *fitted.tensors().values()))
    assert (fitted.decode(fitted.encode(images)).int() - shade).abs().max() <= 1
    quality = measure_quality(fitted, images)
    assert quality.perplexity == 1
    assert math.isfinite(quality.psnr_db)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_codes": 400}, "48 images yield 768 patches, too few for 400 codes"),
        ({"num_codes": 1}, "codebook has 1 codes"),
        ({"num_codes": 1 << 20}, "codebook has 1048576 codes"),
        ({"patch_size": 5}, "not a multiple of the patch side 5"),
        ({"patch_size": 0}, "not a multiple of the patch side 0"),
        ({"dim": 193}, "dim is 193"),
        ({"dim": 0}, "dim is 0"),
        ({"whitening": 1.5}, "whitening is 1.5"),
    ],
)
def test_wrong_arguments_are_named(images, arguments, message):
    with pytest.raises(UsageError, match=message):
        PatchTokenizer.fit(images, **{"num_codes": 8, **arguments})


def test_a_saved_tokenizer_comes_back(tmp_path, tokenizer, images):
    path = tmp_path / "tokenizer.safetensors"
    save_tokenizer(tokenizer, path)
    loaded = load_tokenizer(path)
    assert loaded.fingerprint == tokenizer.fingerprint
    assert (loaded.grid, loaded.num_codes, loaded.image_size) == ((4, 4), 64, 32)
    assert torch.equal(loaded.encode(images), tokenizer.encode(images))
    path.write_bytes(tokenizer_bytes(tokenizer, with_codebook=False))
    apart = load_tokenizer(path, codebook=tokenizer.codebook.numpy())
    assert apart.fingerprint == tokenizer.fingerprint
    with pytest.raises(DamagedError, match="without a float32"):
        load_tokenizer(path)
    with pytest.raises(DamagedError, match="does not match its fingerprint"):
        load_tokenizer(path, codebook=tokenizer.codebook.numpy() + 1)
    path.write_bytes(codebook_bytes(tokenizer))
    with pytest.raises(DamagedError, match="no intact tokenizer file"):
        load_tokenizer(path)


def test_every_changed_byte_of_a_tokenizer_is_found_or_changes_nothing(tmp_path, tiny):
    path = tmp_path / "tokenizer.safetensors"
    data = tokenizer_bytes(tiny, with_codebook=True)
    found = 0
    for place in range(len(data)):
        damaged = bytearray(data)
        damaged[place] ^= 1 << place % 8
        path.write_bytes(damaged)
        try:
            assert load_tokenizer(path).fingerprint == tiny.fingerprint
        except (DamagedError, UsageError):
            found += 1
    assert found >= len(data) - 8, "only the padding of the header may change"


def test_every_truncation_of_a_tokenizer_is_found(tmp_path, tiny):
    path = tmp_path / "tokenizer.safetensors"
    data = tokenizer_bytes(tiny, with_codebook=True)
    for size in range(len(data)):
        path.write_bytes(data[:size])
        with pytest.raises(DamagedError, match="no intact tokenizer file"):
            load_tokenizer(path)


def hostile(tiny, *, card=None, settings=None, drop=(), **tensors):
    """A tokenizer file with some of its parts exchanged."""
    parts = {**tiny.tensors(), "codebook": tiny.codebook, **tensors}
    entries = {
        "format": "seit-tokenizer",
        "version": 1,
        "name": tiny.name,
        "fingerprint": tiny.fingerprint,
        "settings": {**tiny.settings(), **(settings or {})},
        **(card or {}),
    }
    return save(
        {key: tensor.contiguous() for key, tensor in parts.items() if key not in drop},
        {"seit": json.dumps(entries)},
    )


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"card": {"format": "other"}}, UsageError),
        ({"card": {"version": 2}}, UsageError),
        ({"card": {"name": "cosmos"}}, UsageError),
        ({"card": {"name": ["patch-pca-vq"]}}, UsageError),
        ({"card": {"fingerprint": None}}, DamagedError),
        ({"card": {"settings": []}}, DamagedError),
        ({"card": {"settings": "x"}}, DamagedError),
        ({"card": {"settings": {}}}, DamagedError),
        ({"settings": {"patch_size": 0}}, DamagedError),
        ({"settings": {"patch_size": 3}}, DamagedError),
        ({"settings": {"patch_size": float("inf")}}, DamagedError),
        ({"settings": {"patch_size": None}}, DamagedError),
        ({"settings": {"image_size": 10**12}}, DamagedError),
        ({"settings": {"image_size": -32}}, DamagedError),
        ({"settings": {"image_size": 64}}, DamagedError),
        ({"drop": ["mean"]}, DamagedError),
        ({"drop": ["codebook"]}, DamagedError),
        ({"extra": torch.zeros(3)}, DamagedError),
        ({"mean": torch.zeros(12, dtype=torch.float64)}, DamagedError),
        ({"mean": torch.zeros(12, dtype=torch.bfloat16)}, DamagedError),
        ({"codebook": torch.zeros(0, 2)}, DamagedError),
        ({"codebook": torch.zeros(4, 2, dtype=torch.float16)}, DamagedError),
        ({"codebook": torch.zeros(4)}, DamagedError),
        ({"codebook": torch.zeros(4, 3)}, DamagedError),
        (
            {
                "settings": {"patch_size": 0, "image_size": 0},
                "mean": torch.zeros(0),
                "analysis": torch.zeros(0, 2),
                "synthesis": torch.zeros(2, 0),
            },
            DamagedError,
        ),
    ],
)
def test_hostile_tokenizers_are_refused(tmp_path, tiny, changes, error):
    path = tmp_path / "tokenizer.safetensors"
    path.write_bytes(hostile(tiny))
    assert load_tokenizer(path).fingerprint == tiny.fingerprint
    path.write_bytes(hostile(tiny, **changes))
    with pytest.raises(error):
        load_tokenizer(path)


@pytest.mark.parametrize(
    "data", [b"", b"PK\x03\x04", b"\xff" * 64, bytes(8) + b"{}", b"\x80\x04\x95pickle" * 20]
)
def test_other_files_are_no_tokenizer(tmp_path, data):
    path = tmp_path / "tokenizer.safetensors"
    path.write_bytes(data)
    with pytest.raises(DamagedError, match="no intact tokenizer file"):
        load_tokenizer(path)


def test_nested_metadata_are_refused(tmp_path):
    path = tmp_path / "tokenizer.safetensors"
    path.write_bytes(save({"codebook": torch.zeros(2, 2)}, {"seit": "[" * 100_000}))
    with pytest.raises(DamagedError, match="no intact tokenizer file"):
        load_tokenizer(path)


def test_a_missing_tokenizer_says_what_to_do(tmp_path):
    with pytest.raises(UsageError, match="`seit tokenizer fit` makes one"):
        load_tokenizer(tmp_path / "nowhere")
    fitted = r"patch-pca-vq has no weights until .*conv-vq-f8-1024.*fit --tokenizer patch-pca-vq`$"
    with pytest.raises(UsageError, match=fitted):
        open_tokenizer("patch-pca-vq")


class Shifted(ImageTokenizer):
    """Looks up ids by the red value of each image's first pixel; decodes to a shifted copy."""

    name = "shifted"

    def __init__(self, images, shifts):
        self.codebook, self.image_size = torch.zeros(16, 1), images.shape[1]
        self.images, self.shifts = images, shifts

    grid = (1, 1)
    restore = tensors = settings = to = None

    def encode(self, images):
        return images[:, 0, 0, 0].long().view(-1, 1, 1)

    def decode_ids(self, tokens):
        rows = tokens.flatten()
        return (self.images[rows].int() + self.shifts[rows].view(-1, 1, 1, 1)).to(torch.uint8)


def test_quality_against_closed_forms():
    """Eight images off by 1 … 8: PSNR is the mean of 20·log10(255/d), 8 of 16 codes are used."""
    images = torch.zeros(8, 4, 4, 3, dtype=torch.uint8) + 100
    images[:, 0, 0, 0] = torch.arange(8)
    shifts = torch.arange(1, 9)
    quality = measure_quality(Shifted(images, shifts), images)
    expected = sum(20 * math.log10(255 / shift) for shift in range(1, 9)) / 8
    assert quality.psnr_db == pytest.approx(expected, abs=1e-9)
    assert (quality.images, quality.codebook_usage) == (8, 0.5)
    assert quality.perplexity == pytest.approx(8)
    shares = torch.tensor([0] * 64 + [1] * 32 + [2] * 32)
    quality = measure_quality(Shifted(images, shifts), images[shares])
    assert quality.perplexity == pytest.approx(2**1.5)
    assert quality.codebook_usage == 3 / 16


def test_pictures_of_one_color_do_not_count_among_others():
    images = torch.zeros(4, 4, 4, 3, dtype=torch.uint8)
    images[..., 1] = 200
    images[:, 0, 0, 0] = torch.arange(4)  # the first is of one color
    shifts = torch.tensor([0, 1, 2, 3])
    quality = measure_quality(Shifted(images, shifts), images)
    expected = sum(20 * math.log10(255 / shift) for shift in (1, 2, 3)) / 3
    assert quality.psnr_db == pytest.approx(expected, abs=1e-9)
    assert quality.images == 4
    alone = measure_quality(Shifted(images, torch.tensor([5])), images[:1])
    assert alone.psnr_db == pytest.approx(20 * math.log10(255 / 5), abs=1e-9)


def test_a_loaded_tokenizer_rounds_like_the_fitted_one(tmp_path):
    generator = torch.Generator().manual_seed(5)
    coarse = torch.rand(24, 3, 32, 32, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, size=256, mode="bicubic")
    images = (smooth.clamp(0, 1) * 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()
    fitted = PatchTokenizer.fit(images, num_codes=512)
    save_tokenizer(fitted, tmp_path / "t.safetensors")
    loaded = load_tokenizer(tmp_path / "t.safetensors")
    for name, tensor in fitted.tensors().items():
        assert tensor.stride() == loaded.tensors()[name].stride(), name
    assert torch.equal(fitted.encode(images), loaded.encode(images))


# ------------------------------------------------------------------------------------------- levels


def test_each_level_quantizes_what_is_left(images, tokenizer):
    residual = ResidualPatchTokenizer.fit(images, num_codes=64, levels=3)
    ids = residual.encode(images[:5])
    assert residual.grid == (12, 4)
    assert ids.shape == (5, 12, 4)
    assert torch.equal(ids[:, :4], tokenizer.encode(images[:5]))
    points = residual.vectors(ids)
    first = residual.codebook[0][ids[:, :4]]
    second = residual.codebook[1][ids[:, 4:8]]
    third = residual.codebook[2][ids[:, 8:]]
    assert torch.allclose(points, first + second + third)
    # The same patches in float64, without the tokenizer's shortcuts.
    maps = {key: one.double() for key, one in residual.tensors().items()}
    patches = torch.from_numpy(patches_of(images[:5], 8)) / 255
    rest = (patches - maps["mean"]) @ maps["analysis"] - first - second
    nearest = torch.cdist(rest.flatten(0, 2), residual.codebook[2].double()).argmin(1)
    assert (nearest == ids[:, 8:].flatten()).double().mean() > 0.99


def test_levels_bring_pictures_closer_to_their_components(images):
    quality = [
        measure_quality(
            ResidualPatchTokenizer.fit(images, num_codes=32, levels=levels), images
        ).psnr_db
        for levels in (2, 4, 8)
    ]
    assert quality[0] + 0.5 < quality[1] < quality[2]


def test_residual_patches_are_saved_and_refused(images, tmp_path):
    residual = ResidualPatchTokenizer.fit(images, num_codes=16, levels=2, dim=4)
    save_tokenizer(residual, tmp_path / "file.safetensors")
    found = load_tokenizer(tmp_path / "file.safetensors")
    assert found.fingerprint == residual.fingerprint
    assert torch.equal(found.encode(images), residual.encode(images))
    assert torch.equal(
        found.decode_ids(found.encode(images)), residual.decode(residual.encode(images))
    )
    with pytest.raises(UsageError, match="levels is 1; a patch-pca-rvq tokenizer has 2 to 16"):
        ResidualPatchTokenizer.fit(images, num_codes=16)
    with pytest.raises(UsageError, match="levels is 2; a patch-pca-vq tokenizer has 1 to 1"):
        PatchTokenizer.fit(images, num_codes=16, levels=2)
    with pytest.raises(DamagedError, match="no codebook"):
        ResidualPatchTokenizer.restore(
            residual.codebook[0], residual.tensors(), residual.settings()
        )


def test_every_preset_has_a_description():
    assert list(PRESET_SUMMARIES) == list(PRESETS)
