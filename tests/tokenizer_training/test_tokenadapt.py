"""TokenAdapt: the network, its training against copied tokens, and its file."""

import json
import math
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from support.stores import build_store

import seit
from seit.augment import (
    AugmentConfig,
    Geometry,
    SampleRandom,
    TokenAugment,
    random_warps,
)
from seit.cli import main
from seit.config import build, to_mapping
from seit.errors import DamagedError, SeitError, UsageError
from seit.ingest import TokenizeConfig, list_corpus, tokenize
from seit.models import tokenadapt as model_module
from seit.models.tokenadapt import TokenAdapt, load_tokenadapt, save_tokenadapt
from seit.tokenizer_training.pairs import copy_tokens
from seit.tokenizer_training.tokenadapt import TokenAdaptConfig, train_tokenadapt
from seit.tokenizers import PatchTokenizer, save_tokenizer

STILL = Geometry(flip_prob=0, affine_prob=0, crop_scale=(1.0, 1.0), crop_ratio=(1.0, 1.0))
FLIP = replace(STILL, flip_prob=1)
CONFIG = TokenAdaptConfig(
    dim=32,
    num_heads=2,
    geometry=FLIP,
    batch_size=32,
    steps=90,
    warmup_steps=10,
    lr=4e-3,
    loggers=(),
    device="cpu",
)


def picture(random):
    """16 px of diagonal stripes, whose mirror image has other codes."""
    y, x = np.mgrid[:16, :16]
    wave = np.sin((x + random.choice([-1, 1]) * y) / random.uniform(1, 3) + random.uniform(0, 6))
    tint = random.uniform(60, 190, 3)
    return np.clip(tint + 60 * wave[..., None] + random.normal(0, 4, (16, 16, 3)), 0, 255)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    random = np.random.default_rng(0)
    for split, count in (("train", 192), ("val", 32)):
        (folder / split / "stripes").mkdir(parents=True)
        for number in range(count):
            image = Image.fromarray(picture(random).astype(np.uint8))
            image.save(folder / split / "stripes" / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def store(corpus, tmp_path_factory):
    folder = tmp_path_factory.mktemp("store")
    files = sorted((corpus / "train").rglob("*.png"))
    images = torch.stack([torch.from_numpy(np.array(Image.open(file))) for file in files])
    fitted = PatchTokenizer.fit(images, num_codes=32, patch_size=4, dim=8)
    save_tokenizer(fitted, folder / "tokenizer.safetensors")
    config = TokenizeConfig(tokenizer=str(folder / "tokenizer.safetensors"))
    tokenize(corpus, folder / "tokens", config)
    return seit.open(folder / "tokens")


@pytest.fixture(scope="module")
def trained(store, corpus, tmp_path_factory):
    path = tmp_path_factory.mktemp("network") / "adapt.safetensors"
    return path, train_tokenadapt(store, corpus, CONFIG, path)


def best_loss_of_copying(accuracy, num_codes):
    """Cross-entropy of one who trusts the copied token exactly as often as it is right."""
    wrong = 1 - accuracy
    return -accuracy * math.log(accuracy) - wrong * math.log(wrong / (num_codes - 1))


def test_flips_are_learnt_far_better_than_by_copying(trained, store):
    _, result = trained
    assert result.images == 32
    assert 0 < result.copy_accuracy < 0.5
    assert result.loss < 0.5 * best_loss_of_copying(result.copy_accuracy, 32)
    assert result.accuracy > 2 * result.copy_accuracy
    assert result.copy_psnr_db + 2 < result.psnr_db < result.best_psnr_db


def test_the_seed_decides_the_weights(store, corpus, tmp_path):
    short = replace(CONFIG, steps=4)
    files = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        torch.manual_seed(ord(name))
        train_tokenadapt(store, corpus, replace(short, seed=seed), tmp_path / name)
        files.append((tmp_path / name).read_bytes())
    assert files[0] == files[1] != files[2]


def test_training_tokens_meet_the_network_through_the_augmentation(trained, store):
    path, _ = trained
    network = load_tokenadapt(path, store)
    config = AugmentConfig(
        crop_size=4,
        crop_scale=(1.0, 1.0),
        crop_ratio=(1.0, 1.0),
        synonym_prob=0,
        swap_prob=0,
        noise_prob=0,
        cutmix_prob=0,
        token_adapt=str(path),
        token_adapt_prob=1.0,
    )
    augment = TokenAugment(torch.from_numpy(store.codebook), (4, 4), config, warper=network)
    tokens = torch.from_numpy(store["val"].tokens[:8].astype(np.int64))
    out = augment(tokens, torch.zeros(8).long(), positions=torch.arange(8), seed=3, epoch=0)
    warps = random_warps(SampleRandom(3, 0, torch.arange(8)), (8, 8), augment.geometry)
    expected = augment.codebook[network.warp_tokens(tokens, warps, (4, 4))].permute(0, 3, 1, 2)
    assert torch.equal(out.inputs, expected)
    assert not out.inputs.requires_grad


def test_an_untrained_network_copies():
    codebook = 3 + 0.1 * torch.randn((64, 8), generator=torch.Generator().manual_seed(0))
    network = TokenAdapt(codebook, dim=16, num_heads=2)
    tokens = torch.randint(0, 64, (6, 4, 4), generator=torch.Generator().manual_seed(1))
    for geometry in (STILL, FLIP):
        warps = random_warps(SampleRandom(0, 0, torch.arange(6)), (8, 8), geometry)
        copied = copy_tokens(tokens, warps, (4, 4))
        assert torch.equal(copied, tokens.flip(-1) if geometry is FLIP else tokens)
        assert torch.equal(network.warp_tokens(tokens, warps, (4, 4)), copied)


def test_copies_have_the_given_token_outside():
    two_cells = torch.tensor([[[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]]])
    copied = copy_tokens(torch.arange(8).view(1, 2, 4), two_cells, (2, 4), outside=9)
    assert copied.tolist() == [[[2, 3, 9, 9], [6, 7, 9, 9]]]


def test_grids_of_any_size_and_groups_of_any_size(monkeypatch):
    torch.manual_seed(0)
    network = TokenAdapt(torch.randn(20, 8), dim=16, num_heads=2)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    tokens = torch.randint(0, 20, (5, 4, 6))
    warps = random_warps(SampleRandom(0, 0, torch.arange(5)), (8, 12), Geometry())
    whole = network.warp_tokens(tokens, warps, (3, 5))
    assert whole.shape == (5, 3, 5)
    assert network(tokens, warps, (3, 5)).shape == (5, 20, 3, 5)
    monkeypatch.setattr(model_module, "_GROUP_CELLS", 48)
    assert torch.equal(network.warp_tokens(tokens, warps, (3, 5)), whole)


def test_vectors_of_codes_are_warped_and_read_as_their_tokens_are():
    torch.manual_seed(0)
    codebook = 5 + 2 * torch.randn(20, 8)
    network = TokenAdapt(codebook, dim=16, num_heads=2)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    tokens = torch.randint(0, 20, (5, 4, 6))
    warps = random_warps(SampleRandom(0, 0, torch.arange(5)), (8, 12), Geometry())
    maps = network.warp_vectors(codebook[tokens].permute(0, 3, 1, 2), warps, (3, 5))
    assert maps.shape == (5, 8, 6, 10)
    assert torch.equal(network.read_tokens(maps), network.warp_tokens(tokens, warps, (3, 5)))


def test_a_network_warps_as_it_was_trained_to(trained, store, tmp_path):
    path, _ = trained
    with safe_open(path, framework="pt") as file:
        card = json.loads(file.metadata()["seit"])
    assert card["interpolation"] == load_tokenadapt(path, store).interpolation == "bicubic"
    del card["interpolation"]  # a file from before there was a choice
    save_file(load_file(path), tmp_path / "old", {"seit": json.dumps(card)})
    assert load_tokenadapt(tmp_path / "old", store).interpolation == "bilinear"


def test_gradients_reach_every_parameter():
    torch.manual_seed(0)
    network = TokenAdapt(torch.randn(20, 8), dim=16, num_heads=2)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    warps = random_warps(SampleRandom(0, 0, torch.arange(2)), (8, 8), Geometry())
    network(torch.randint(0, 20, (2, 4, 4)), warps, (4, 4)).logsumexp(1).sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad.abs().max() > 0, name


def test_a_file_comes_back_and_only_for_its_tokenizer(trained, store, tmp_path):
    path, _ = trained
    network = load_tokenadapt(path, store)
    assert (network.dim, network.num_heads) == (32, 2)
    assert not any(parameter.requires_grad for parameter in network.parameters())
    save_tokenadapt(network, tmp_path / "copy", fingerprint=store.card.tokenizer.fingerprint)
    assert (tmp_path / "copy").read_bytes() == path.read_bytes()
    build_store(tmp_path / "other")
    with pytest.raises(UsageError, match=r"was trained for the tokenizer .* train one on this"):
        load_tokenadapt(path, seit.open(tmp_path / "other"))
    with pytest.raises(UsageError, match="no TokenAdapt file"):
        load_tokenadapt(tmp_path / "none", store)


def test_damaged_files_are_named(trained, store, tmp_path):
    path, _ = trained
    card = {
        "format": "seit-tokenadapt",
        "version": 1,
        "fingerprint": store.card.tokenizer.fingerprint,
        "dim": 32,
        "num_heads": 2,
    }
    tensors, file = load_file(path), tmp_path / "adapt.safetensors"
    short = {key: value for key, value in tensors.items() if key != "head.bias"}
    wide = tensors | {"head.bias": torch.zeros(33)}
    halves = {key: value.half() for key, value in tensors.items()}
    for change, content in [
        ({"dim": 64}, tensors),
        ({"dim": 10**9}, tensors),
        ({"dim": -4}, tensors),
        ({"num_heads": 0}, tensors),
        ({"num_heads": "2"}, tensors),
        ({"format": "other"}, tensors),
        ({"interpolation": "nearest"}, tensors),
        ({"fingerprint": None}, tensors),
        ({}, short),
        ({}, wide),
        ({}, halves),
    ]:
        save_file(content, file, {"seit": json.dumps(card | change)})
        with pytest.raises(DamagedError, match=r"adapt\.safetensors"):
            load_tokenadapt(file, store)
    save_file(tensors, file, {"seit": json.dumps(card | {"version": 2})})
    with pytest.raises(UsageError, match="version 2"):
        load_tokenadapt(file, store)
    for data in (b"", path.read_bytes()[:-1], b"\xff" * 100):
        file.write_bytes(data)
        with pytest.raises(DamagedError, match=r"adapt\.safetensors is no intact"):
            load_tokenadapt(file, store)
    save_file(tensors, file)
    with pytest.raises(DamagedError, match="no intact"):
        load_tokenadapt(file, store)


def test_wrong_arguments_are_refused(store, corpus, tmp_path):
    with pytest.raises(UsageError, match="has no split 'test'; it has train, val"):
        train_tokenadapt(store, corpus, replace(CONFIG, val_split="test"), tmp_path / "a")
    (tmp_path / "taken").touch()
    with pytest.raises(UsageError, match="already exists"):
        train_tokenadapt(store, corpus, CONFIG, tmp_path / "taken")
    for sizes in ({"dim": 30}, {"dim": 32, "num_heads": 3}, {"dim": 0}, {"num_heads": 0}):
        with pytest.raises(UsageError, match="expected"):
            train_tokenadapt(store, corpus, replace(CONFIG, **sizes), tmp_path / "a")
    with pytest.raises(UsageError, match="codebook"):
        TokenAdapt(torch.zeros(2, 3, 4))
    for wrong in ({"steps": 0}, {"lr": math.nan}, {"warmup_steps": -1}, {"weight_decay": -1.0}):
        with pytest.raises(UsageError, match=f"{next(iter(wrong))} is .*expected"):
            TokenAdaptConfig(**wrong)
    assert not (tmp_path / "a").exists()


def test_a_table_takes_the_root_of_its_paths(store, corpus, tmp_path):
    paths = sorted(path for path in corpus.rglob("*") if path.is_file())
    table = tmp_path / "tables" / "pictures.csv"
    table.parent.mkdir()
    lines = [f"{path.relative_to(corpus)},{path.relative_to(corpus).parts[0]}" for path in paths]
    table.write_text("\n".join(["path,split", *lines]) + "\n")
    short = replace(CONFIG, steps=1, warmup_steps=0)
    with pytest.raises(SeitError):
        train_tokenadapt(store, table, short, tmp_path / "without")
    result = train_tokenadapt(store, table, short, tmp_path / "with", root=corpus)
    assert result.images == train_tokenadapt(store, corpus, short, tmp_path / "folder").images


def test_unreadable_images_are_left_out_and_a_corpus_of_them_is_refused(store, corpus, tmp_path):
    for split, broken in (("train", 40), ("val", 3)):
        (tmp_path / "src" / split / "stripes").mkdir(parents=True)
        for number, file in enumerate(sorted((corpus / split).rglob("*.png"))[:64]):
            data = b"broken" if number < broken else file.read_bytes()
            (tmp_path / "src" / split / "stripes" / file.name).write_bytes(data)
    short = replace(CONFIG, steps=2)
    result = train_tokenadapt(store, tmp_path / "src", short, tmp_path / "a")
    assert result.images == 32 - 3
    for file in (tmp_path / "src" / "train").rglob("*.png"):
        file.write_bytes(b"broken")
    with pytest.raises(SeitError, match="none of 32 images can be read"):
        train_tokenadapt(store, tmp_path / "src", short, tmp_path / "b")


def test_held_out_images_end_a_training_only_if_none_is_readable(store, corpus, tmp_path):
    for split, count in (("train", 8), ("val", 5)):
        (tmp_path / "src" / split / "stripes").mkdir(parents=True)
        for file in sorted((corpus / split).rglob("*.png"))[:count]:
            shutil.copy(file, tmp_path / "src" / split / "stripes")
    listed = list_corpus(tmp_path / "src").by_split()["val"]
    held_out = [tmp_path / "src" / instance.key for instance in listed]
    held_out[-1].write_bytes(b"broken")  # alone in the last batch
    short = replace(CONFIG, steps=2, batch_size=4)
    assert train_tokenadapt(store, tmp_path / "src", short, tmp_path / "a").images == 4
    for file in held_out:
        file.write_bytes(b"broken")
    with pytest.raises(SeitError, match="none of 5 images can be read"):
        train_tokenadapt(store, tmp_path / "src", short, tmp_path / "b")


def test_settings_come_from_a_mapping():
    assert build(TokenAdaptConfig, to_mapping(CONFIG), origin="test") == CONFIG
    with pytest.raises(UsageError, match="flip_prob is 2"):
        build(TokenAdaptConfig, {"geometry": {"flip_prob": 2.0}}, origin="test")


def test_the_command(store, corpus, tmp_path, capsys):
    file = tmp_path / "adapt.safetensors"
    settings = ("dim=32", "num_heads=2", "warmup_steps=1", "geometry.flip_prob=1", "loggers=[]")
    flags = ["--steps", "2", "--batch-size", "8", "--seed", "3", "--device", "cpu"]
    for setting in settings:
        flags += ["--set", setting]

    def run(*more):
        capsys.readouterr()
        arguments = [str(store.folder), str(corpus), "--out", str(file), *flags, "--json", *more]
        main(["tokenizer", "adapt", *arguments])
        return json.loads(capsys.readouterr().out)

    assert run("--dry-run")["geometry"]["flip_prob"] == 1
    assert list(tmp_path.iterdir()) == []
    result = run()
    assert (result["file"], result["images"]) == (str(file), 32)
    assert load_tokenadapt(file, store).dim == 32
    assert {path.name for path in (tmp_path / "adapt.safetensors.run").iterdir()} == {
        *("config.yaml", "run.json", "metrics.jsonl", "checkpoints", "report.html"),
        "tokenizer.safetensors",
    }
    weights = file.read_bytes()
    assert run("--resume")["accuracy"] == result["accuracy"]
    file.unlink()
    run("--resume")
    assert file.read_bytes() == weights
    run("--overwrite", "--set", "lr=0.1")
    assert file.read_bytes() != weights
    for more, message in (
        ((), "already exists"),
        (("--resume", "--set", "lr=0.2"), "lr was 0.1 and is 0.2"),
        (("--set", "wings=2"), "no setting 'wings'"),
    ):
        with pytest.raises(SystemExit) as left:
            run(*more)
        assert left.value.code == 2
        assert message in capsys.readouterr().err
