"""`seit analyze … timm:…`: networks of timm on pixels, and another network's layer as a target."""

import json

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from timm.data import create_transform

import seit
from seit.analysis.layers.analyze import analyze_layers
from seit.analysis.layers.config import AnalyzeConfig
from seit.analysis.subjects.pictures import read_pictures
from seit.analysis.subjects.vision import PixelSubject, VisionSubject
from seit.errors import UsageError
from seit.models import load_vision

NAME = "vit_tiny_patch16_224"
SIZES = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2}
INPUTS = {"input_size": [3, 32, 32], "mean": [0.4, 0.5, 0.6], "std": [0.2, 0.25, 0.3]}
CROP = {"crop_pct": 0.9, "crop_mode": "center", "interpolation": "bicubic"}


def write_folder(folder, *, weights=True, **changes):
    """Write a network as timm saves it for the hub, and return it."""
    torch.manual_seed(3)
    model = timm.create_model(NAME, num_classes=5, **SIZES)
    settings = {
        "architecture": NAME,
        "model_args": SIZES,
        "pretrained_cfg": {**INPUTS, **CROP, "url": "https://example.org"},
        **changes,
    }
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(settings))
    if weights:
        save_file(model.state_dict(), folder / "model.safetensors")
    return model.eval()


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("timm") / "vit"
    return folder, write_folder(folder)


def test_activations_are_those_of_timm(saved, pattern_folder):
    folder, model = saved
    network = load_vision(str(folder))
    source = str(pattern_folder / "pictures")
    pictures = read_pictures(source, network.inputs.transform(), split="val")
    subject = VisionSubject(network, pictures, device=torch.device("cpu"))
    assert subject.layers == ("stem", "blocks.0", "blocks.1", "norm")
    clips = list(subject.clips())
    transform = create_transform(
        (3, 32, 32), mean=INPUTS["mean"], std=INPUTS["std"], crop_pct=0.9, interpolation="bicubic"
    )
    opened = [Image.open(f"{source}/{place.key}").convert("RGB") for place in subject.places]
    with torch.inference_mode():
        inputs = torch.stack([transform(one) for one in opened])
        _, states = model.forward_intermediates(inputs, output_fmt="NLC")
        normed = model.forward_features(inputs)[:, 1:].mean(1)
    for index in range(2):
        ours = np.concatenate([clip.values[f"blocks.{index}"] for clip in clips])
        assert np.allclose(ours, states[index].mean(1), atol=1e-5)
    ours = np.concatenate([clip.values["norm"] for clip in clips])
    assert np.allclose(ours, normed, atol=1e-5)


def test_probe_of_a_folder_of_pictures(saved, pattern_folder, call):
    folder, _ = saved
    flags = ["--split", "train", "--fewest", "5", "--folds", "3", "--penalty", "0.1", "--json"]
    data = pattern_folder / "pictures"
    modules = ["--layers", "blocks.1.mlp,blocks.1,head"]
    code, out, _ = call("analyze", "probe", f"timm:{folder}", data, *flags, *modules)
    assert code == 0
    found = json.loads(out)
    assert [layer["name"] for layer in found["layers"]] == ["blocks.1.mlp", "blocks.1", "head"]
    assert found["samples"] == 36
    assert found["best_layer"] in modules[1].split(",")
    assert [one["name"] for one in found["controls"]] == [f"{NAME} (random weights)", "pixels"]


def test_weights_by_name_and_file_and_none(saved, tmp_path, caplog):
    model = timm.create_model("resnet10t")
    save_file(model.state_dict(), tmp_path / "w.safetensors")
    network = load_vision(f"resnet10t:{tmp_path / 'w.safetensors'}")
    assert not network.is_random
    assert torch.equal(network.model.layer1[0].conv1.weight, model.layer1[0].conv1.weight)
    drawn = [load_vision("resnet10t", seed=seed) for seed in (1, 1, 2)]
    assert all(one.is_random for one in drawn)
    first, again, other = (one.model.layer1[0].conv1.weight for one in drawn)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert drawn[0].inputs.input_size == (3, 176, 176)


def test_a_name_on_the_hub_is_that_of_timm(monkeypatch, saved):
    asked = []
    monkeypatch.setattr("seit.models.vision.fetch", lambda path: asked.append(path) or saved[0])
    load_vision("resnet18.a1_in1k", download=True)
    load_vision("somebody/network", download=True)
    assert asked == ["hf://timm/resnet18.a1_in1k", "hf://somebody/network"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architecture": 3}, "names no architecture"),
        ({"architecture": "vit_of_nobody"}, "has no model"),
        ({"model_args": {**SIZES, "depth": 1 << 30}}, "no small numbers"),
        (
            {"model_args": {**SIZES, "checkpoint_path": "x.pth"}},
            "built with checkpoint_path, which",
        ),
        ({"model_args": {**SIZES, "cache_dir": "x"}}, "built with cache_dir, which"),
        ({"model_args": {**SIZES, "pretrained": True}}, "built with pretrained, which"),
        ({"model_args": {**SIZES, "depth": 3}}, r"lacks blocks\.2"),
        ({"model_args": {**SIZES, "depth": 1}}, r"has no blocks\.1"),
        ({"model_args": {**SIZES, "embed_dim": 64}}, "is expected"),
        ({"pretrained_cfg": {**INPUTS, "input_size": [3, 1 << 20, 8]}}, "8 to 2,048 pixels"),
        ({"pretrained_cfg": {**INPUTS, "std": [0, 1, 1]}}, "no inputs"),
        ({"pretrained_cfg": {**INPUTS, "crop_mode": ["x"]}}, "no inputs"),
    ],
)
def test_hostile_folders_are_refused(tmp_path, changes, message):
    write_folder(tmp_path / "vit", **changes)
    with pytest.raises(UsageError, match=message):
        load_vision(str(tmp_path / "vit"))


def test_what_is_no_network_is_refused(saved, tmp_path, pattern_folder):
    pictures, folder = pattern_folder / "pictures", f"timm:{saved[0]}"
    write_folder(tmp_path / "bare", weights=False)
    with pytest.raises(UsageError):
        load_vision(str(tmp_path / "bare"))
    (tmp_path / "cut.safetensors").write_bytes(b"\xff" * 40)
    with pytest.raises(UsageError, match="safetensors"):
        load_vision(f"resnet10t:{tmp_path / 'cut.safetensors'}")
    with pytest.raises(UsageError, match="near names"):
        load_vision("resnet10")
    with pytest.raises(UsageError, match=r"no module 'blocks\.9'; near names: blocks"):
        seit.analyze(folder, data=pictures, layers=["blocks.9"])
    with pytest.raises(UsageError, match="--layers is for networks of timm"):
        seit.analyze("run", data=pictures, layers=["x"])
    with pytest.raises(UsageError, match="has no split"):
        seit.analyze(folder, data=pictures, split="test")


def test_a_layer_of_another_network_is_a_target(saved, pattern_folder, tmp_path):
    data, folder = pattern_folder / "pictures", f"timm:{saved[0]}"
    write_folder(tmp_path / "other")
    result = seit.analyze(
        folder,
        data=data,
        target=f"timm:{tmp_path / 'other'}@blocks.1",
        method="r2",
        split="train",
        folds=3,
        random_twin=False,
    )
    scores = {layer.name: layer.score for layer in result.layers}
    assert result.target == f"{NAME}@blocks.1"
    assert result.best_layer == "blocks.1", "that of the same network"
    assert scores["blocks.1"] > 0.9
    with pytest.raises(UsageError, match=r"has no layer 'x'; it has stem, blocks\.0"):
        seit.analyze(folder, data=data, target=f"{folder}@x", split="train")
    with pytest.raises(UsageError, match=r"36 of 36 instances .* are missing"):
        seit.analyze(
            folder, data=data, target=f"{folder}@norm", split="train", other_data=data / "val"
        )


def test_a_result_is_not_that_of_pictures_that_changed(tmp_path):
    random = np.random.default_rng(0)
    pictures, out = tmp_path / "pictures", tmp_path / "out"

    def write(start):
        for number in range(start, 12):
            folder = pictures / "ab"[number % 2]
            folder.mkdir(parents=True, exist_ok=True)
            pixels = random.integers(0, 255, (16, 16, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{number:02}.png")

    def analyze(**changes):
        found = read_pictures(str(pictures), lambda pixels: pixels.transpose(2, 0, 1))
        subject = PixelSubject(found)
        config = AnalyzeConfig(method="r2", fewest=2, folds=2, random_twin=False)
        groups = [place.file for place in subject.places]
        return analyze_layers(subject, config, groups=groups, out=out, **changes)

    write(0)
    first = analyze()
    assert analyze(resume=True).record() == first.record()
    write(1)  # all but the first
    with pytest.raises(UsageError, match=r"the finished analysis at .* differs in data"):
        analyze(resume=True)
