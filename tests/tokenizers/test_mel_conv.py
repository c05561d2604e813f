"""`mel-conv`: ids, files, hostile settings, and its training from clips."""

import json
import math
from dataclasses import asdict, replace

import numpy as np
import pytest
import soundfile
import torch
from support.tokenizer_training import NOTED, SMALL, few_start_batches

from seit.cli import main
from seit.errors import DamagedError, SeitError, UsageError
from seit.ingest import TokenizeConfig, fit_and_measure
from seit.ingest.sources import list_corpus
from seit.tokenizer_training import TokenizerConfig, train_tokenizer
from seit.tokenizer_training.windows import Windows
from seit.tokenizers import (
    MelConfig,
    MelFrontEnd,
    load_tokenizer,
    measure_quality,
    open_tokenizer,
    save_tokenizer,
)
from seit.tokenizers.learned.autoencoder import Autoencoder, NetworkConfig
from seit.tokenizers.learned.bounds import Bound
from seit.tokenizers.learned.mel_conv import PLANE_RANGE, MelConvTokenizer
from seit.tokenizers.presets import MEL_CONFIGS

MEL = MelConfig(
    sample_rate=8000, window=2000, hop=125, taper=200, fft=256, bands=16, frames=16, patch=(2, 4)
)
TINY = TokenizerConfig(
    **SMALL,
    **NOTED,
    audio="1s",
    crops_per_image=2,
    batch_size=4,
    steps=4,
    warmup_steps=1,
    eval_images=4,
)


@pytest.fixture(scope="module", autouse=True)
def quick_start():
    with few_start_batches(2):
        yield


def sound(rng, samples, rate):
    times = np.arange(samples) / rate
    wave = 0.3 * np.sin(2 * math.pi * rng.uniform(100, rate / 3) * times)
    return (wave + rng.normal(0, 0.01, samples)).astype(np.float32)


@pytest.fixture(scope="module")
def waves():
    rng = np.random.default_rng(0)
    return torch.from_numpy(np.stack([sound(rng, MEL.window, MEL.sample_rate) for _ in range(5)]))


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Eight clips of 0.5 to 3 seconds in two classes, and their splits."""
    folder = tmp_path_factory.mktemp("clips")
    rng = np.random.default_rng(1)
    for number in range(8):
        place = folder / ("val" if number % 4 == 3 else "train") / "ab"[number % 2]
        place.mkdir(parents=True, exist_ok=True)
        wave = sound(rng, int(rng.uniform(8_000, 48_000)), 16_000)
        soundfile.write(place / f"{number}.wav", wave, 16_000)
    for split in ("train", "val"):
        for name in "ab":
            (folder / split / name).mkdir(exist_ok=True)
    soundfile.write(folder / "val" / "a" / "x.wav", sound(rng, 16_000, 16_000), 16_000)
    return folder


def make(codebook, waves, bound=None):
    torch.manual_seed(0)
    widths = {"encoder_width": 8, "encoder_blocks": 2, "decoder_width": 8, "decoder_blocks": 1}
    config = NetworkConfig(
        planes=1, patch=MEL.patch, dim=codebook.shape[-1], fine_width=4, fine_blocks=1, **widths
    )
    network = Autoencoder(config)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    torch.nn.init.normal_(network.encoder.linear.weight, std=1.5)
    return MelConvTokenizer(codebook, network, front_end=MelFrontEnd.fit(MEL, waves), bound=bound)


def random_codes(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def tokenizer(waves):
    return make(random_codes(64, 4), waves)


# --------------------------------------------------------------------------------- the tokenizer


def doubled(tokenizer):
    network = Autoencoder(tokenizer._network.config).double()
    network.load_state_dict(tokenizer._network.state_dict())
    return network


def test_ids_are_the_nearest_codes_of_the_networks_latents(tokenizer, waves):
    planes = tokenizer.front_end.planes(waves).double() / PLANE_RANGE
    with torch.no_grad():
        latents = doubled(tokenizer).encoder(planes).permute(0, 2, 3, 1)
    distances = (latents[..., None, :] - tokenizer.codebook.double()).square().sum(-1)
    ids = tokenizer.encode(waves)
    assert (ids.shape, ids.dtype) == ((5, 8, 4), torch.int64)
    chosen = distances.gather(-1, ids[..., None]).squeeze(-1)
    assert (chosen - distances.min(-1).values).max() < 1e-4
    found = tokenizer.quantise(latents.float().flatten(0, 2))
    assert (found.view(5, 8, 4) == ids).float().mean() > 0.98
    assert len(ids.unique()) > 8


def test_decoding_gives_levels(tokenizer, waves):
    ids = tokenizer.encode(waves)
    with torch.no_grad():
        planes = doubled(tokenizer).decoder(tokenizer.codebook.double()[ids].permute(0, 3, 1, 2))
    front_end = tokenizer.front_end
    mean, deviation = (tensor.double()[:, None] for tensor in front_end.tensors().values())
    expected = planes[:, 0] * PLANE_RANGE * deviation + mean
    levels = tokenizer.decode(ids.to(torch.uint8))
    assert levels.shape == (5, MEL.bands, MEL.frames)
    torch.testing.assert_close(levels.double(), expected, atol=1e-3, rtol=1e-4)
    error = (expected - front_end.levels(waves)).square().mean((1, 2))
    assert measure_quality(tokenizer, waves).psnr_db == pytest.approx(
        float((10 * (100**2 / error).log10()).mean()), abs=1e-3
    )


def test_tokens_of_a_window_do_not_depend_on_its_batch(tokenizer, waves):
    alone = torch.cat([tokenizer.encode(wave[None]) for wave in waves])
    assert torch.equal(tokenizer.encode(waves), alone)
    assert torch.equal(tokenizer.encode(waves.flip(0)).flip(0), alone)


def test_a_saved_tokenizer_comes_back(tmp_path, waves):
    import vector_quantize_pytorch as vq

    fsq = vq.FSQ([5, 4, 3]).implicit_codebook
    for number, made in enumerate(
        (
            make(random_codes(64, 4), waves),
            make(random_codes(3, 32, 4), waves),
            make(fsq, waves, Bound(kind="tanh", levels=(5, 4, 3))),
        )
    ):
        path = tmp_path / f"{number}.safetensors"
        save_tokenizer(made, path)
        loaded = load_tokenizer(path)
        assert loaded.fingerprint == made.fingerprint == loaded.to("cpu").fingerprint
        assert loaded.inputs == made.inputs
        assert loaded.grid == made.grid == (8 * made.levels, 4)
        ids = made.encode(waves)
        assert torch.equal(loaded.encode(waves), ids)
        assert torch.equal(loaded.decode(ids), made.decode(ids))


def test_codes_are_sorted_by_use(tokenizer, waves):
    ordered = tokenizer.sorted_by_use(waves)
    before, after = tokenizer.encode(waves), ordered.encode(waves)
    assert torch.equal(tokenizer.decode(before), ordered.decode(after))
    assert (torch.bincount(after.flatten(), minlength=64).diff() <= 0).all()


@pytest.mark.parametrize(
    "changes",
    [
        {"front_end": None},
        {"front_end": {**MEL.to_json(), "bands": 32}},
        {"front_end": {**MEL.to_json(), "patch": [4, 2]}},
        {"front_end": {**MEL.to_json(), "frames": 1 << 40}},
        {"network": None},
        {"network": {"planes": 3}},
        {"network": {"planes": 1, "dim": 4}},
        {"bound": "cube"},
        {"bound": "tanh", "levels": [4, 4, 4, 4]},
    ],
)
def test_hostile_settings_are_refused(tokenizer, changes):
    settings = {**tokenizer.settings(), **changes}
    with pytest.raises(DamagedError, match=r"mel-conv|mel front end"):
        MelConvTokenizer.restore(tokenizer.codebook, tokenizer.tensors(), settings)


def test_hostile_weights_are_refused(tokenizer):
    settings, tensors = tokenizer.settings(), tokenizer.tensors()
    for shape in ((64, 5), (20, 2, 4), (70_000, 4)):
        with pytest.raises(DamagedError):
            MelConvTokenizer.restore(torch.zeros(shape), tensors, settings)
    for changed in (
        {**tensors, "band_mean": tensors["band_mean"] * math.nan},
        {**tensors, "more": tensors["band_mean"]},
        {key: value.float() for key, value in tensors.items()},
        {key: value for key, value in tensors.items() if key != "band_mean"},
    ):
        with pytest.raises(DamagedError):
            MelConvTokenizer.restore(tokenizer.codebook, changed, settings)


# ------------------------------------------------------------------------------------- the training


def test_windows_are_a_function_of_seed_and_step(clips):
    instances = list_corpus(clips, modality="audio").instances
    front_end = MelFrontEnd.unfitted(MEL_CONFIGS["1s"])
    windows = Windows(instances, TINY, front_end)
    ahead = list(windows.batches(3, 6))
    for step, batch in enumerate(ahead, 3):
        alone = Windows(instances, TINY, front_end).batch(step)
        assert torch.equal(alone.values, batch.values)
        assert torch.equal(alone.labels, batch.labels)
        assert batch.values.shape == (4, 1, 128, 32)
        assert (batch.labels[::2].repeat_interleave(2) == batch.labels).all()
    assert not torch.equal(ahead[0].values, ahead[1].values)
    assert not torch.equal(ahead[0].values[0], ahead[0].values[1])
    other = Windows(instances, replace(TINY, seed=1), front_end).batch(3)
    assert not torch.equal(other.values, ahead[0].values)


def test_unreadable_clips_are_replaced(clips, tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "torn.wav").write_bytes(b"RIFF\xff\xff\0\0WAVE")
    torn = list_corpus(tmp_path, modality="audio").instances
    front_end = MelFrontEnd.unfitted(MEL_CONFIGS["1s"])
    with pytest.raises(SeitError, match="16 clips in a row"):
        Windows(torn, TINY, front_end).batch(0)
    good = list_corpus(clips, modality="audio").instances
    mixed = Windows([*torn, *good[:3]], TINY, front_end)
    assert all(len(mixed.batch(step).values) == 4 for step in range(4))
    with pytest.raises(SeitError, match="can be read as audio"):
        train_tokenizer(tmp_path, TINY, tmp_path / "out")


def test_an_interrupted_training_goes_on_bit_for_bit(clips, tmp_path):
    config = replace(
        TINY, adversarial=0.1, adversarial_start=1, discriminator_width=4, classes=0.1, hog=0.1
    )
    result = train_tokenizer(clips, config, tmp_path / "whole")
    assert result.ssim is None
    assert result.psnr_db > 10

    def stop(step, *_):
        if step == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_tokenizer(clips, config, tmp_path / "torn", progress=stop)
    again = train_tokenizer(clips, config, tmp_path / "torn", resume=True)
    assert again.fingerprint == result.fingerprint
    for name in ("front_end.safetensors", "checkpoints/step-00000004.safetensors"):
        assert (tmp_path / "torn" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    last = (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()[-1]
    assert {"adversarial_loss", "class_loss", "hog_loss"} <= json.loads(last).keys()
    tokenizer = load_tokenizer(result.file)
    assert (tokenizer.name, tokenizer.grid) == ("mel-conv", (32, 32))
    front_end = tmp_path / "torn" / "front_end.safetensors"
    front_end.write_bytes(front_end.read_bytes()[:40])
    (tmp_path / "torn" / "tokenizer.safetensors").unlink()
    with pytest.raises(DamagedError, match="front_end"):
        train_tokenizer(clips, config, tmp_path / "torn", resume=True)


@pytest.mark.slow  # as pictures do in the fast tests
def test_training_improves_on_its_start(clips, tmp_path):
    config = replace(TINY, ssim=0.0, lr=3e-3, encoder_width=16, decoder_width=16, ema=0.8)
    start = train_tokenizer(clips, replace(config, steps=1, lr=1e-9), tmp_path / "start")
    end = train_tokenizer(clips, replace(config, steps=30, checkpoint_every=30), tmp_path / "end")
    assert end.psnr_db > start.psnr_db + 0.3


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"crop": 136}, "128 frames"), ({"audio": "5s", "crop": 24}, "multiple of 16")],
)
def test_wrong_crops_are_named(changes, message):
    with pytest.raises(UsageError, match=message):
        replace(TINY, **changes)


def test_the_command(clips, tmp_path, capsys):
    flags = []
    for name, value in asdict(replace(TINY, steps=1)).items():
        text = ",".join(map(str, value)) or "[]" if isinstance(value, tuple) else value
        flags += ["--set", f"{name}={text}"]
    main(["tokenizer", "train", str(clips), str(tmp_path / "out"), *flags])
    assert "SSIM" not in capsys.readouterr().out
    file = str(tmp_path / "out" / "tokenizer.safetensors")
    main(["tokenizer", "eval", file, str(clips), "--json"])
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert rows[file]["windows"] >= 3


def test_kinds_that_need_no_fit_take_no_settings_of_one(clips, tmp_path, capsys):
    file = str(tmp_path / "fitted.safetensors")
    main(["tokenizer", "eval", "dmel-1s", "mel-vq-1s", str(clips), "--codes=16", "--json"])
    assert len(json.loads(capsys.readouterr().out)["rows"]) == 2
    main(["tokenizer", "fit", str(clips), file, "--tokenizer=dmel-1s", "--json"])
    assert open_tokenizer(file).num_codes == 16
    config = TokenizeConfig(tokenizer="dmel-1s")
    with pytest.raises(UsageError, match="not fitted, so it has no levels"):
        fit_and_measure(clips, config, levels=2)
