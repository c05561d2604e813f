"""`seit tokenizer quantize`: another tokenizer in fewer bytes, and how many ids change."""

import json

import pytest
import torch
from PIL import Image

import seit
from seit.cli import main
from seit.compression.tokenizer import with_few_bits
from seit.errors import DamagedError, UsageError
from seit.tensors import read_card, tensor_bytes
from seit.tokenizers import (
    Autoencoder,
    ConvTokenizer,
    NetworkConfig,
    PatchTokenizer,
    load_tokenizer,
    save_tokenizer,
    stored_tokenizer_bytes,
)

SIZE = 32
NETWORK = NetworkConfig(
    dim=4,
    encoder_width=16,
    encoder_blocks=1,
    decoder_width=16,
    decoder_blocks=1,
    fine_width=4,
    fine_blocks=0,
)


@pytest.fixture(scope="module")
def tokenizer():
    torch.manual_seed(0)
    network = Autoencoder(NETWORK)
    for one in network.parameters():
        torch.nn.init.normal_(one, std=0.2)
    return ConvTokenizer(torch.randn(64, 4), network, image_size=SIZE)


@pytest.fixture(scope="module")
def images():
    generator = torch.Generator().manual_seed(1)
    coarse = torch.rand(12, 3, 5, 5, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, size=SIZE, mode="bicubic").clamp(0, 1)
    return (smooth * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()


@pytest.fixture(scope="module")
def corpus(images, tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    for number, one in enumerate(images):
        path = folder / "val" / "ab"[number % 2] / f"{number:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(one.numpy()).save(path)
    return folder


@pytest.fixture(scope="module")
def original(tokenizer, tmp_path_factory):
    path = tmp_path_factory.mktemp("original") / "tokenizer.safetensors"
    save_tokenizer(tokenizer, path)
    return path


@pytest.mark.parametrize(("bits", "group"), [(8, 0), (5, 0), (2, 16)])
def test_it_loads_with_the_same_ids_and_is_another_tokenizer(
    tokenizer, images, tmp_path, bits, group
):
    made = with_few_bits(tokenizer, bits=bits, group=group)
    path = tmp_path / "few.safetensors"
    save_tokenizer(made, path)
    loaded = load_tokenizer(path)
    assert loaded.fingerprint == made.fingerprint != tokenizer.fingerprint
    assert torch.equal(loaded.codebook, tokenizer.codebook)
    ids = loaded.to("cpu").encode(images)
    assert torch.equal(ids, made.encode(images))
    assert torch.equal(loaded.decode(ids), made.decode(ids))
    before = tokenizer.tensors()
    for name, one in loaded.packed.items():
        scale = one.scales.float().repeat_interleave(one.grid.group or one.grid.columns, 1)
        distance = (loaded.tensors()[name].float() - before[name].float()).abs().flatten(1)
        clipped = (one.codes == 0) | (one.codes == 2**bits - 1)
        steps = distance / scale[:, : one.grid.columns]
        assert float(steps[~clipped].max()) < 0.51 + 2**bits / 1024  # and float16's own rounding
    kept = before.keys() - loaded.packed.keys()
    assert all(torch.equal(loaded.tensors()[name], before[name]) for name in kept)


def test_more_bits_change_fewer_ids(tokenizer, images):
    ids = tokenizer.encode(images)
    changed = [
        float((with_few_bits(tokenizer, bits=bits).encode(images) != ids).float().mean())
        for bits in (2, 4, 8)
    ]
    assert changed[0] > changed[1] > changed[2] >= 0
    assert changed[2] < 0.1


def test_stores_carry_it_packed(tokenizer):
    made = with_few_bits(tokenizer, bits=4)
    counts = [one.codes.numel() for one in made.packed.values()]
    saved = len(stored_tokenizer_bytes(tokenizer)) - len(stored_tokenizer_bytes(made))
    assert saved > sum(counts) * 1.5 * 0.6  # 16 bits became 4; scales and names take the rest
    assert stored_tokenizer_bytes(made.to("cpu")) == stored_tokenizer_bytes(made)


def test_the_command_says_how_many_ids_change(
    tokenizer, images, original, corpus, tmp_path, capsys
):
    file = tmp_path / "few.safetensors"
    main(["tokenizer", "quantize", str(original), str(corpus), str(file), "--bits=4", "--json"])
    out, err = capsys.readouterr()
    found = json.loads(out)
    changed = load_tokenizer(file).encode(images) != tokenizer.encode(images)
    assert found["ids_changed"] == pytest.approx(float(changed.float().mean()))
    share = changed.flatten(1).any(1).float().mean()
    assert found["inputs_changed"] == pytest.approx(float(share))
    assert found["inputs"] == len(images)
    assert (found["bytes"], found["bytes_before"]) == (
        file.stat().st_size,
        original.stat().st_size,
    )
    assert found["fingerprint_before"] == tokenizer.fingerprint
    assert min(found[key] for key in ("psnr_db", "psnr_db_before", "milliseconds")) > 0
    assert "never put tokens of both into one store" in found["warning"]
    assert found["warning"] in err

    main(["tokenizer", "quantize", str(original), str(corpus), str(file), "--overwrite"])
    assert "% of the ids changed" in capsys.readouterr().err


def test_its_tokens_do_not_go_into_a_store_of_the_original(original, corpus, tmp_path):
    few = tmp_path / "few.safetensors"
    save_tokenizer(with_few_bits(load_tokenizer(original), bits=8), few)
    for name, path in (("a", original), ("b", few)):
        seit.tokenize(corpus, out=tmp_path / name, tokenizer=str(path), codec="packed", workers=1)
    stores = [tmp_path / "a", tmp_path / "b"]
    carried = load_tokenizer(stores[1] / "tokenizer.safetensors")
    assert carried.fingerprint == load_tokenizer(few).fingerprint
    assert carried.packed
    with pytest.raises(UsageError, match="tokenizer"):
        seit.merge(stores, out=tmp_path / "both")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--bits=9",), "bits is 9"),
        (("--bits=1",), "bits is 1"),
        (("--group=-1",), "group is -1"),
        (("--images=0",), "images is 0"),
    ],
)
def test_wrong_settings_are_named(original, corpus, tmp_path, capsys, options, message):
    file = tmp_path / "few.safetensors"
    with pytest.raises(SystemExit, match="2"):
        main(["tokenizer", "quantize", str(original), str(corpus), str(file), *options])
    assert message in capsys.readouterr().err
    assert not file.exists()


def test_tokenizers_that_cannot_be_quantized(tokenizer, images):
    fitted = PatchTokenizer.fit(images, num_codes=8, seed=0)
    with pytest.raises(UsageError, match="no network"):
        with_few_bits(fitted, bits=8)
    with pytest.raises(UsageError, match="quantized already"):
        with_few_bits(with_few_bits(tokenizer, bits=8), bits=4)


HOSTILE = {
    "bits": lambda entry: {**entry, "bits": 99},
    "shape": lambda entry: {**entry, "shape": [1 << 30, 1 << 30]},
    "empty": lambda entry: {**entry, "shape": []},
    "dtype": lambda entry: {**entry, "dtype": "float64"},
    "group": lambda entry: {**entry, "group": -1},
    "word": lambda entry: "eight bits",
    "missing": lambda entry: {key: value for key, value in entry.items() if key != "shape"},
}


@pytest.mark.parametrize("change", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_cards_are_damage(tokenizer, tmp_path, change):
    path = tmp_path / "few.safetensors"
    save_tokenizer(with_few_bits(tokenizer, bits=4), path)
    card, tensors = read_card(path)
    name = next(iter(card["packed"]))
    card["packed"][name] = change(card["packed"][name])
    path.write_bytes(tensor_bytes(tensors, card=card))
    with pytest.raises(DamagedError, match="few"):
        load_tokenizer(path)


def test_values_beyond_float16_are_damage(tokenizer, tmp_path):
    path = tmp_path / "few.safetensors"
    save_tokenizer(with_few_bits(tokenizer, bits=8), path)
    card, tensors = read_card(path)
    name = next(iter(card["packed"]))
    tensors[f"{name}.scales"][:] = torch.finfo(torch.float16).max
    path.write_bytes(tensor_bytes(tensors, card=card))
    with pytest.raises(DamagedError, match="not finite"):
        load_tokenizer(path)
