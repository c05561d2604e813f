"""`conv-vq`: ids, files, quantisers against their library, SSIM, shipped files, comparisons."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

import seit
from seit.cli import main
from seit.errors import DamagedError, UsageError
from seit.ingest import tokenize
from seit.ingest.config import TokenizeConfig
from seit.ingest.resolve import resolve_tokenizer
from seit.tokenizer_training.pictures import cut_tiles
from seit.tokenizers import (
    PatchTokenizer,
    load_tokenizer,
    save_tokenizer,
    stored_tokenizer_bytes,
)
from seit.tokenizers.files import load_shipped, open_tokenizer
from seit.tokenizers.learned.autoencoder import Autoencoder, NetworkConfig
from seit.tokenizers.learned.bounds import Bound
from seit.tokenizers.learned.conv import ConvTokenizer, to_planes
from seit.tokenizers.quality import measure
from seit.tokenizers.shipped import list_shipped
from seit.tokenizers.similarity import MIN_SIDE, SCALE_WEIGHTS, ms_ssim, num_scales, ssim

SIZE = 32
WIDTHS = {"encoder_width": 8, "encoder_blocks": 2, "decoder_width": 8, "decoder_blocks": 1}


def random_network(dim, seed=0):
    """A network that does something with neighbouring patches, unlike a fresh one."""
    torch.manual_seed(seed)
    network = Autoencoder(NetworkConfig(dim=dim, fine_width=4, fine_blocks=1, **WIDTHS))
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return network


def make(codebook, bound=None):
    network = random_network(codebook.shape[-1])
    return ConvTokenizer(codebook, network, image_size=SIZE, bound=bound)


def random_codes(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def images():
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(6, 3, 5, 5, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, size=SIZE, mode="bicubic").clamp(0, 1)
    return (smooth * 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()


@pytest.fixture(scope="module")
def tokenizer():
    return make(random_codes(64, 4))


# ----------------------------------------------------------------------------------------- encoding


def test_ids_are_the_nearest_codes_of_the_networks_latents(tokenizer, images):
    network = Autoencoder(tokenizer._network.config).double()
    network.load_state_dict(tokenizer._network.state_dict())
    with torch.no_grad():
        latents = network.encoder(to_planes(images).double()).permute(0, 2, 3, 1)
    distances = (latents[..., None, :] - tokenizer.codebook.double()).square().sum(-1)
    ids = tokenizer.encode(images)
    assert ids.shape == (6, 4, 4)
    assert ids.dtype == torch.int64
    chosen = distances.gather(-1, ids[..., None]).squeeze(-1)
    assert (chosen - distances.min(-1).values).max() < 1e-4
    assert (ids == distances.argmin(-1)).float().mean() > 0.98


def test_tokens_of_an_image_do_not_depend_on_its_batch(tokenizer, images):
    alone = torch.cat([tokenizer.encode(image[None]) for image in images])
    assert torch.equal(tokenizer.encode(images), alone)
    assert torch.equal(tokenizer.encode(images.flip(0)).flip(0), alone)


def test_decoding_is_the_networks_decoder(tokenizer, images):
    ids = tokenizer.encode(images)
    network = Autoencoder(tokenizer._network.config).double()
    network.load_state_dict(tokenizer._network.state_dict())
    with torch.no_grad():
        planes = network.decoder(tokenizer.codebook.double()[ids].permute(0, 3, 1, 2))
    expected = ((planes + 1) * 127.5).round().clamp(0, 255).permute(0, 2, 3, 1)
    decoded = tokenizer.decode(ids.to(torch.uint8))
    assert decoded.dtype == torch.uint8
    assert (decoded.double() - expected).abs().max() <= 1


def test_an_untrained_network_is_the_patch_tokenizer(images):
    """Principal components to start with: as good as they are, and lossless with all of them."""
    planes = to_planes(images)
    network = Autoencoder(NetworkConfig(dim=192, **WIDTHS))
    patches = torch.nn.functional.unfold(planes, 8, stride=8).transpose(1, 2).flatten(0, 1)
    latents = network.start_from_patches(patches)
    for half in (network.encoder, network.decoder):
        torch.nn.init.zeros_(half.head.bias)
    assert float(latents.square().mean()) == pytest.approx(1, abs=0.01)
    with torch.no_grad():
        assert (network.decoder(network.encoder(planes)) - planes).abs().max() < 1e-3


# ------------------------------------------------------------------------------------------- files


def test_a_saved_tokenizer_comes_back(tmp_path, images):
    import vector_quantize_pytorch as vq

    for number, made in enumerate(
        (
            make(random_codes(64, 4)),
            make(random_codes(3, 32, 4)),
            make(vq.FSQ([5, 4, 3]).implicit_codebook, Bound(kind="tanh", levels=(5, 4, 3))),
            make(vq.LFQ(codebook_size=16).codebook, Bound(kind="sign")),
        )
    ):
        path = tmp_path / f"{number}.safetensors"
        save_tokenizer(made, path)
        loaded = load_tokenizer(path)
        assert loaded.fingerprint == made.fingerprint
        assert loaded.grid == made.grid == (4 * made.levels, 4)
        ids = made.encode(images)
        assert ids.shape == (6, *made.grid)
        assert torch.equal(loaded.encode(images), ids)
        assert torch.equal(loaded.decode(ids), made.decode(ids))
        assert loaded.to("cpu").fingerprint == made.fingerprint


def test_the_form_of_the_file_does_not_change(tokenizer):
    assert tokenizer.settings().keys() == {"image_size", "network"}
    assert {key for key in tokenizer.tensors() if ".blocks." not in key} == {
        *(f"encoder.{layer}.{kind}" for layer in ("linear", "stem", "head") for kind in KINDS),
        *(f"decoder.{layer}.{kind}" for layer in DECODER for kind in KINDS),
        *(f"decoder.fine.{key}" for key in (*BLOCK, "1.weight", "1.bias")),
    }
    assert {key for key in tokenizer.tensors() if key.startswith("encoder.blocks.1")} == {
        f"encoder.blocks.{key.replace('0.', '1.', 1)}" for key in BLOCK
    }


KINDS = ("weight", "bias")
DECODER = ("linear", "stem", "widen", "head")
LAYERS = ("spatial", "norm", "expand", "project")
BLOCK = ("0.scale", *(f"0.{layer}.{kind}" for layer in LAYERS for kind in KINDS))


@pytest.mark.parametrize(
    "changes",
    [
        {"bound": "cube"},
        {"bound": "sign"},
        {"bound": "tanh"},
        {"bound": "tanh", "levels": [8, 8]},
        {"bound": "tanh", "levels": [2, 4, 8, 1]},
        {"bound": "tanh", "levels": [4, 4, 4, 4]},
        {"bound": "tanh", "levels": 7},
        {"bound": "tanh", "levels": ["4", "4", "4", "1"]},
        {"image_size": 36},
        {"image_size": 1 << 40},
        {"network": None},
        {"network": {"dim": 4}},
    ],
)
def test_hostile_settings_are_refused(tokenizer, changes):
    settings = {**tokenizer.settings(), **changes}
    with pytest.raises(DamagedError, match="conv-vq"):
        ConvTokenizer.restore(tokenizer.codebook, tokenizer.tensors(), settings)


def test_hostile_codebooks_are_refused(tokenizer):
    for shape in ((64, 5), (20, 2, 4), (70_000, 4)):
        with pytest.raises(DamagedError):
            ConvTokenizer.restore(torch.zeros(shape), tokenizer.tensors(), tokenizer.settings())


# -------------------------------------------------------------------------------------- quantisers


def test_ids_are_those_of_the_library():
    import vector_quantize_pytorch as vq

    torch.manual_seed(3)
    latents = 1.3 * torch.randn(400, 4)
    plain = vq.VectorQuantize(dim=4, codebook_size=64).eval()
    plain._codebook.embed.copy_(random_codes(1, 64, 4).half().float())
    residual = vq.ResidualVQ(dim=4, codebook_size=32, num_quantizers=3).eval()
    for level, layer in enumerate(residual.layers):
        layer._codebook.embed.copy_(random_codes(1, 32, 4, seed=level).half().float() / 2**level)
    levels = (3, 8, 5, 6)
    scalar, signs = vq.FSQ(list(levels)).eval(), vq.LFQ(codebook_size=16).eval()
    cases = (
        (plain, plain.codebook, None),
        (residual, residual.codebooks, None),
        (scalar, scalar.implicit_codebook, Bound(kind="tanh", levels=levels)),
        (signs, signs.codebook, Bound(kind="sign")),
    )
    for library, codebook, bound in cases:
        with torch.no_grad():
            codes, ids, *_ = library(latents[None])
        made = make(codebook.detach().clone(), bound)
        found = made.quantise(latents)
        assert torch.equal(found, ids[0].view(400, -1).long()), library
        codes_LKC = torch.as_tensor(made.codebook).view(made.levels, -1, latents.shape[1])
        summed = sum(codes_LKC[level][found[:, level]] for level in range(made.levels))
        torch.testing.assert_close(summed, codes[0], atol=1e-5, rtol=0)
        assert len(found.unique(dim=0)) > 14


def test_codes_are_sorted_by_use_and_keep_their_pictures(images):
    for made in (make(random_codes(64, 4)), make(random_codes(2, 32, 4))):
        ordered = made.sorted_by_use(images)
        before, after = made.encode(images), ordered.encode(images)
        assert torch.equal(made.decode(before), ordered.decode(after))
        for ids in after.unflatten(1, (made.levels, -1)).unbind(1):
            counts = torch.bincount(ids.flatten(), minlength=made.num_codes)
            assert (counts.diff() <= 0).all()
            assert counts[0] > 1


# ----------------------------------------------------------------------------------------- quality


def ssim_terms(first, second):
    """Luminance, and contrast with structure, at each place of one plane, in float64."""
    places = np.arange(11) - 5
    line = np.exp(-(places**2) / (2 * 1.5**2))
    window = np.outer(line, line) / line.sum() ** 2
    height, width = first.shape
    luminance, contrast = np.empty((2, height - 10, width - 10))
    for y in range(height - 10):
        for x in range(width - 10):
            a, b = first[y : y + 11, x : x + 11], second[y : y + 11, x : x + 11]
            mean_a, mean_b = (window * a).sum(), (window * b).sum()
            variance = (window * (a - mean_a) ** 2).sum() + (window * (b - mean_b) ** 2).sum()
            covariance = (window * (a - mean_a) * (b - mean_b)).sum()
            luminance[y, x] = (2 * mean_a * mean_b + 1e-4) / (mean_a**2 + mean_b**2 + 1e-4)
            contrast[y, x] = (2 * covariance + 9e-4) / (variance + 9e-4)
    return luminance, contrast


def halved(plane):
    height, width = plane.shape[0] // 2 * 2, plane.shape[1] // 2 * 2
    return plane[:height, :width].reshape(height // 2, 2, width // 2, 2).mean((1, 3))


def test_ssim_and_ms_ssim_against_their_definitions():
    random = np.random.default_rng(0)
    first = random.uniform(0, 1, (2, 3, 47, 50))
    second = np.clip(0.7 * first + 0.2 + random.normal(0, 0.05, first.shape), 0, 1)
    weights = np.array(SCALE_WEIGHTS[:3]) / sum(SCALE_WEIGHTS[:3])
    plain, scales = [], []
    for image, other in zip(first, second, strict=True):
        terms = []
        for scale in range(3):
            if scale:
                image, other = (np.stack([halved(p) for p in x]) for x in (image, other))
            terms.append([ssim_terms(p, q) for p, q in zip(image, other, strict=True)])
        plain.append(np.mean([a * b for a, b in terms[0]]))
        means = [np.mean([b for _, b in scale]) for scale in terms[:2]]
        means.append(np.mean([a * b for a, b in terms[2]]))
        scales.append(np.prod(np.array(means) ** weights))
    pair = torch.from_numpy(first), torch.from_numpy(second)
    assert num_scales(pair[0].shape[-2:]) == 3
    np.testing.assert_allclose(ssim(*pair), plain, atol=1e-12)
    np.testing.assert_allclose(ms_ssim(*pair), scales, atol=1e-12)
    single = [plane.float() for plane in pair]
    np.testing.assert_allclose(ms_ssim(*single), scales, atol=1e-4)


def test_ssim_in_closed_form():
    flat = [torch.full((1, 3, 40, 40), shade, dtype=torch.float64) for shade in (0.25, 0.75)]
    expected = (2 * 0.25 * 0.75 + 1e-4) / (0.25**2 + 0.75**2 + 1e-4)
    assert float(ssim(*flat)) == pytest.approx(expected, abs=1e-12)
    noise = torch.rand(2, 3, 90, 90, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(ms_ssim(noise, noise), torch.ones(2))
    assert [num_scales((s, s)) for s in (MIN_SIDE, 21, 22, 44, 88, 176, 4000)] == [
        *(1, 1, 2, 3, 4, 5, 5),
    ]


def test_a_measurement_sums_up_all_batches(tokenizer, images):
    ids = tokenizer.encode(images)
    rebuilt = tokenizer.decode(ids)
    errors = (rebuilt.double() - images.double()).square().mean((1, 2, 3))
    found = measure(tokenizer, images.split(4))
    counts = np.bincount(ids.flatten(), minlength=64)
    share = counts[counts > 0] / counts.sum()
    planes = [x.permute(0, 3, 1, 2).double() / 255 for x in (images, rebuilt)]
    assert found.images == 6
    assert found.psnr_db == pytest.approx(float((10 * (255**2 / errors).log10()).mean()))
    assert found.ssim == pytest.approx(float(ssim(*planes).mean()), abs=1e-5)
    assert found.ms_ssim == pytest.approx(float(ms_ssim(*planes).mean()), abs=1e-5)
    assert found.entropy_bits == pytest.approx(-(share * np.log2(share)).sum())
    assert found.perplexity == pytest.approx(2**found.entropy_bits)
    assert found.codebook_usage == (counts > 0).mean()
    assert math.isfinite(found.images_per_second)


# ----------------------------------------------------------------------------------------- shipped


def ship(folder, name, tokenizer, **changes):
    save_tokenizer(tokenizer, folder / f"{name}.safetensors")
    card = {
        "summary": "a small one",
        "kind": "conv-vq",
        "fingerprint": tokenizer.fingerprint,
        "licence": "Apache-2.0",
        "grid": list(tokenizer.grid),
        "codes": tokenizer.num_codes,
        "training": {"data": ["drawings"], "steps": 1, "seed": 0},
        "quality": {"kodak": {"images": 144, "psnr_db": 25.123}},
    }
    (folder / f"{name}.yaml").write_text(yaml.safe_dump({**card, **changes}))


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    folder = tmp_path / "shelf"
    folder.mkdir()
    monkeypatch.setattr("seit.tokenizers.shipped.data_folder", lambda room: folder)
    return folder


def answer(capsys, *arguments):
    capsys.readouterr()
    main([*map(str, arguments), "--json"])
    return json.loads(capsys.readouterr().out)


def test_shipped_tokenizers_go_by_their_names(shelf, tokenizer, capsys):
    assert list_shipped() == {}
    ship(shelf, "conv-vq-tiny", tokenizer)
    (shelf / "without-weights.yaml").write_text("summary: none\n")
    assert list(list_shipped()) == ["conv-vq-tiny"]
    assert open_tokenizer("conv-vq-tiny").fingerprint == tokenizer.fingerprint
    config, found = resolve_tokenizer(TokenizeConfig(tokenizer="conv-vq-tiny"))
    assert found.fingerprint == tokenizer.fingerprint
    assert config.size == SIZE
    listed = answer(capsys, "tokenizer", "list")
    assert listed["conv-vq-tiny"] == "a small one, 64 codes, 4 × 4, 25.12 dB on Kodak"
    assert "patch-pca-vq" in listed
    assert "conv-vq" not in listed
    info = answer(capsys, "tokenizer", "info", "conv-vq-tiny")
    assert info["fingerprint"] == tokenizer.fingerprint
    assert info["card"]["training"]["data"] == ["drawings"]


def test_names_that_nothing_has(shelf, tokenizer):
    ship(shelf, "conv-vq-tiny", tokenizer)
    with pytest.raises(UsageError, match="did you mean 'conv-vq-tiny'"):
        open_tokenizer("conv-vq-tny")
    with pytest.raises(UsageError, match="patch-pca-vq"):
        open_tokenizer("zzz")


def test_wrong_cards_are_found(shelf, tokenizer):
    ship(shelf, "a", tokenizer, fingerprint="0" * 64)
    with pytest.raises(DamagedError, match="not the tokenizer of its card"):
        open_tokenizer("a")
    for changes in ({"grid": [1]}, {"grid": 4}, {"quality": None}, {"summary": 3}):
        ship(shelf, "a", tokenizer, **changes)
        with pytest.raises(DamagedError, match=r"grid|quality|summary"):
            list_shipped()
    (shelf / "a.yaml").write_text("a: [")
    with pytest.raises(DamagedError, match="card is damaged"):
        list_shipped()


def test_a_store_refers_to_what_is_shipped(shelf, tokenizer, images, tmp_path):
    ship(shelf, "conv-vq-tiny", tokenizer)
    folder = tmp_path / "photos"
    for number, picture in enumerate(images):
        (folder / "ab"[number % 2]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture.numpy()).save(folder / "ab"[number % 2] / f"{number}.png")
    config = TokenizeConfig(tokenizer="conv-vq-tiny", codec="packed")
    small = tokenize(folder, tmp_path / "referring", config)
    large = tokenize(folder, tmp_path / "embedding", replace(config, embed_tokenizer=True))
    weights = sum(tensor.nbytes for tensor in tokenizer.tensors().values())
    assert 0 <= large.bytes - small.bytes - weights < 20_000
    referring, embedding = (seit.open(tmp_path / name) for name in ("referring", "embedding"))
    assert (referring.has_tokenizer_weights, embedding.has_tokenizer_weights) == (False, True)
    for store in (referring, embedding):
        loaded = store.load_tokenizer()
        assert loaded.fingerprint == tokenizer.fingerprint == store.card.tokenizer.fingerprint
        tokens = torch.from_numpy(store["train"].tokens[:].astype(int))
        assert torch.equal(loaded.decode(tokens), tokenizer.decode(tokens))
    with pytest.raises(UsageError, match="embed_tokenizer"):
        tokenize(folder, tmp_path / "referring", replace(config, embed_tokenizer=True))
    (shelf / "conv-vq-tiny.yaml").unlink()
    assert embedding.load_tokenizer().fingerprint == tokenizer.fingerprint
    with pytest.raises(UsageError, match="'conv-vq-tiny' of another version of seit"):
        referring.load_tokenizer()


def test_a_reference_with_another_codebook_is_damage(shelf, tokenizer, tmp_path):
    ship(shelf, "conv-vq-tiny", tokenizer)
    path = tmp_path / "tokenizer.safetensors"
    path.write_bytes(stored_tokenizer_bytes(tokenizer))
    assert load_tokenizer(path, codebook=tokenizer.codebook.numpy()).name == "conv-vq"
    with pytest.raises(DamagedError, match="not that of conv-vq-tiny"):
        load_tokenizer(path, codebook=tokenizer.codebook.numpy() + 1)


def test_what_is_shipped_loads():
    shipped = list_shipped()
    for tokenizer in shipped.values():
        assert load_shipped(tokenizer).name == tokenizer.card["kind"]
        assert {"data", "steps", "seed"} <= tokenizer.card["training"].keys()
    assert sum(one.path.stat().st_size for one in shipped.values()) <= 20_000_000


# ------------------------------------------------------------------------------------- comparisons


def photo(random, width, height):
    coarse = random.integers(0, 256, (4, 5, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def test_tiles_are_cut_at_native_resolution():
    pixels = np.random.default_rng(0).integers(0, 256, (512, 768, 3), dtype=np.uint8)
    tiles = cut_tiles(pixels, 256)
    assert len(tiles) == 6
    np.testing.assert_array_equal(tiles[4], pixels[256:, 256:512])
    rows = np.concatenate([np.concatenate(tiles[row : row + 3], 1) for row in (0, 3)])
    np.testing.assert_array_equal(rows, pixels)
    assert len(cut_tiles(pixels[:511], 256)) == 3
    assert cut_tiles(pixels[:255], 256) == []


def test_tokenizers_are_compared(tmp_path, tokenizer, capsys):
    random = np.random.default_rng(0)
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(9):
        photo(random, 70, 100).save(folder / f"{number}.png")
    photo(random, 30, 200).save(folder / "narrow.png")
    file, sheet = tmp_path / "t.safetensors", tmp_path / "sheet.png"
    save_tokenizer(tokenizer, file)
    options = ("--tile", "--size=16", "--codes=8", "--fit-on", folder)
    found = answer(
        capsys, "tokenizer", "eval", file, "patch-pca-vq", folder, *options, "--sheet", sheet
    )
    assert found["images"] == 10
    conv, patch = found["rows"][str(file)], found["rows"]["patch-pca-vq"]
    assert (conv["images"], patch["images"]) == (9 * 2 * 3, 9 * 4 * 6 + 12)
    tiles = [
        tile
        for path in sorted(folder.glob("?.png"))
        for tile in cut_tiles(np.asarray(Image.open(path)), SIZE)
    ]
    expected = measure(tokenizer, [torch.from_numpy(np.stack(tiles))])
    for key in ("psnr_db", "ssim", "ms_ssim", "perplexity", "codebook_usage", "entropy_bits"):
        assert conv[key] == pytest.approx(getattr(expected, key), rel=1e-5)
    with Image.open(sheet) as drawn:
        assert drawn.size == ((SIZE + 8) * 3 + 8, 28 + 7 * (SIZE + 20))
    main(["tokenizer", "eval", str(file), str(folder), "--images", "3"])
    table = capsys.readouterr().out.splitlines()
    assert table[0].split()[:2] == ["images", "PSNR"]
    assert table[1].split()[:2] == [str(file), "3"]


def test_what_was_held_out_to_measure_is_said(tmp_path, capsys):
    random = np.random.default_rng(0)
    (tmp_path / "a").mkdir()
    for number in range(30):
        photo(random, 64, 64).save(tmp_path / "a" / f"{number}.png")
    main(["tokenizer", "eval", "patch-pca-vq", str(tmp_path), "--size=32", "--codes=16", "--json"])
    printed = capsys.readouterr()
    count = json.loads(printed.out)["images"]
    assert 0 < count < 30
    assert f"names no val split: {count} of its 30 files, chosen by hash, were" in printed.err


def test_a_named_kind_is_fitted_on_other_images_than_it_is_measured_on(tmp_path, capsys):
    random = np.random.default_rng(0)
    for split, count in (("train", 6), ("val", 2)):
        (tmp_path / split / "a").mkdir(parents=True)
        for number in range(count):
            photo(random, 64, 64).save(tmp_path / split / "a" / f"{number}.png")
    options = ("--size=32", "--codes=16", "--seed=3")
    row = answer(capsys, "tokenizer", "eval", "patch-pca-vq", tmp_path, *options)["rows"]
    files = {split: sorted((tmp_path / split / "a").iterdir()) for split in ("train", "val")}
    pixels = {
        split: torch.stack(
            [
                torch.from_numpy(
                    np.array(Image.open(path).resize((32, 32), Image.Resampling.BICUBIC))
                )
                for path in paths
            ]
        )
        for split, paths in files.items()
    }
    psnr = {
        split: measure(PatchTokenizer.fit(images, num_codes=16, seed=3), [pixels["val"]]).psnr_db
        for split, images in pixels.items()
    }
    assert row["patch-pca-vq"]["images"] == 2
    assert abs(row["patch-pca-vq"]["psnr_db"] - psnr["train"]) < 1
    assert psnr["val"] > psnr["train"] + 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("{file}",), "at least one tokenizer"),
        (("{file}", "{file}", "{folder}"), "each tokenizer once"),
        (("{file}", "{folder}", "--images=0"), "images is 0"),
        (("{file}", "{folder}", "--sheet=x.jpg"), "PNG"),
        (("{file}", "mel-vq-1s", "{folder}"), "some audio"),
        (("nothing", "{folder}"), "no tokenizer is named"),
        (("{file}", "{folder}", "--tile"), "32 px or more"),
    ],
)
def test_wrong_comparisons_are_named(tmp_path, tokenizer, capsys, arguments, message):
    folder, file = tmp_path / "photos", tmp_path / "t.safetensors"
    folder.mkdir()
    photo(np.random.default_rng(0), 20, 20).save(folder / "a.png")
    save_tokenizer(tokenizer, file)
    with pytest.raises(SystemExit):
        main(["tokenizer", "eval", *(text.format(file=file, folder=folder) for text in arguments)])
    assert message in capsys.readouterr().err
