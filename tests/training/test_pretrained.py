"""`seit train --pretrained`: timm's weights by name, a new stem, and files that do not fit."""

import os

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file

import seit
from seit.errors import SeitError, UsageError
from seit.models import build_backbone, create_model, load_pretrained
from seit.training import Run, pretrained as source

SIZES = {"embed_dim": 16, "depth": 2, "num_heads": 2}
TINY = {
    "model": {"name": "vit_tiny_patch16_224", "stem": "2/2/0", **SIZES},
    "augment": {"crop_size": 8},
    "data": {"batch_size": 12},
    "run": {"device": "cpu", "loggers": []},
}


def vit_weights(**changes):
    torch.manual_seed(1)
    kwargs = {**SIZES, "num_classes": 3} | changes
    return timm.create_model("vit_tiny_patch16_224", img_size=64, **kwargs).state_dict()


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("timm") / "vit.safetensors"
    save_file(vit_weights(), path)
    return path


def test_a_vit_keeps_its_blocks(pattern_store):
    weights = vit_weights()
    model = create_model("vit_tiny_patch16_224", pattern_store, stem="2/2/0", **SIZES)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    found = load_pretrained(model, "vit_tiny_patch16_224", weights, origin="f", **SIZES)
    after = model.state_dict()
    assert set(found.fresh) == {
        *("patch_embed.proj.weight", "patch_embed.proj.bias", "head.weight", "head.bias")
    }
    assert found.resampled == ("pos_embed",)
    assert set(found.unused) == set(found.fresh)
    for key in found.loaded:
        assert torch.equal(after[key], weights[key.removeprefix("fc_")]), key
    for key in found.fresh:
        assert torch.equal(after[key], before[key]), key
    assert torch.equal(after["pos_embed"][:, 0], weights["pos_embed"][:, 0])
    assert after["pos_embed"].shape != weights["pos_embed"].shape


@pytest.mark.parametrize("stem", ["up", "later"])
def test_a_cnn_keeps_its_stages(pattern_store, stem):
    torch.manual_seed(1)
    weights = timm.create_model("resnet10t", num_classes=3).state_dict()
    model = create_model("resnet10t", pattern_store, stem=stem)
    found = load_pretrained(model, "resnet10t", weights, origin="f")
    after = model.state_dict()
    assert {key.split(".")[0] for key in found.fresh} <= {"conv1", "bn1", "fc"}
    assert {"layer3.0.conv1.weight", "layer4.0.bn1.running_mean"} <= set(found.loaded)
    for key in found.loaded:
        assert torch.equal(after[key], weights[key]), key


@pytest.mark.parametrize("grid", [(7, 28), (14, 14), (28, 28), (7, 14)])
def test_positions_are_resampled_wherever_grids_differ_not_only_their_sizes(grid):
    """7 × 28 patches are as many as timm's 14 × 14; rows keep increasing down, columns across."""
    torch.manual_seed(1)
    name = "vit_tiny_patch16_224"
    weights = timm.create_model(name, num_classes=5, **SIZES).state_dict()
    places = torch.stack(torch.meshgrid(*[torch.arange(14.0)] * 2, indexing="ij"), dim=-1)
    weights["pos_embed"][0, 1:, :2] = places.reshape(196, 2)
    kwargs = {"channels": 4, "input_size": tuple(2 * side for side in grid), "num_classes": 5}
    model = build_backbone(name, stem="2/2/0", **kwargs, **SIZES)
    assert model.patch_embed.grid_size == grid
    found = load_pretrained(model, name, weights, origin="f", **SIZES)
    assert ("pos_embed" in found.resampled) == (grid != (14, 14))
    rows, columns = model.pos_embed[0, 1:, :2].detach().view(*grid, 2).unbind(-1)
    for axis, length in ((rows, grid[0]), (columns.T, grid[1])):
        centers = (torch.arange(length) + 0.5) * 14 / length - 0.5
        inner = slice(length // 4, -(length // 4))
        expected = centers[inner, None].expand_as(axis[inner])
        torch.testing.assert_close(axis[inner], expected, atol=0.05, rtol=0)


BEIT = {"embed_dim": 16, "depth": 2, "num_heads": 2}


@pytest.mark.parametrize("grid", [(14, 14), (7, 14), (6, 6)])
def test_a_beit_keeps_its_attention_and_resamples_its_relative_positions(grid):
    torch.manual_seed(1)
    name = "beit_base_patch16_224"
    original = timm.create_model(name, num_classes=5, **BEIT)
    with torch.no_grad():
        for value in original.parameters():
            value.add_(0.02 * torch.randn_like(value))
        table = original.blocks[0].attn.relative_position_bias_table
        table[:729, 0] = torch.arange(-13.0, 14.0).repeat_interleave(27)  # rows apart
        table[729:] = torch.tensor([[3.0, 4.0], [5.0, 6.0], [7.0, 8.0]])  # with the class token
    weights = original.state_dict()
    kwargs = {"channels": 4, "input_size": tuple(2 * side for side in grid), "num_classes": 5}
    model = build_backbone(name, stem="2/2/0", **kwargs, **BEIT)
    found = load_pretrained(model, name, weights, origin="f", **BEIT)
    after = model.state_dict()
    assert {key.partition(".")[0] for key in found.fresh} == {"patch_embed", "head"}
    for key in found.loaded:
        assert torch.equal(after[key], weights[key]), key
    assert {"blocks.0.attn.q_bias", "blocks.1.attn.v_bias"} <= {*found.loaded}
    tables = {f"blocks.{block}.attn.relative_position_bias_table" for block in (0, 1)}
    assert {*found.resampled} == (tables if grid != (14, 14) else set())
    made = after["blocks.0.attn.relative_position_bias_table"]
    rows, columns = (2 * side - 1 for side in grid)
    assert torch.equal(made[-3:], weights["blocks.0.attn.relative_position_bias_table"][-3:])
    by_row = made[:-3, 0].view(rows, columns)
    torch.testing.assert_close(by_row, by_row[:, :1].expand_as(by_row))  # columns do not matter
    distances = (torch.arange(rows) - rows // 2) * 27 / rows  # of the original's 27 rows
    inner = slice(2, -2)
    torch.testing.assert_close(by_row[inner, 0], distances[inner], atol=0.05, rtol=0)


def test_a_table_of_other_heads_is_refused():
    name = "beit_base_patch16_224"
    weights = timm.create_model(name, num_classes=5, **BEIT).state_dict()
    key = "blocks.0.attn.relative_position_bias_table"
    kwargs = {"channels": 4, "input_size": (14, 28), "num_classes": 5}
    model = build_backbone(name, stem="2/2/0", **kwargs, **BEIT)
    with pytest.raises(UsageError, match="relative positions of 732×1 cannot be resampled to"):
        load_pretrained(model, name, weights | {key: weights[key][:, :1]}, origin="f", **BEIT)


def test_the_classifier_is_loaded_on_request(pattern_store):
    weights = vit_weights()
    model = create_model("vit_tiny_patch16_224", pattern_store, stem="2/2/0", **SIZES)
    name, given = "vit_tiny_patch16_224", {"origin": "f", "with_head": True, **SIZES}
    load_pretrained(model, name, weights, **given)
    assert torch.equal(model.head.weight, weights["head.weight"])
    with pytest.raises(UsageError, match="leave --pretrained-head out"):
        load_pretrained(model, name, vit_weights(num_classes=5), **given)


def test_a_run_says_what_it_started_from(file, pattern_store, tmp_path, call):
    settings = tmp_path / "settings.yaml"
    settings.write_text(str(TINY).replace("'", '"'))
    flags = ("--config", settings, "--steps", 1, "--out", tmp_path / "run")
    code, _, err = call("train", pattern_store.folder, "--pretrained", file, *flags)
    assert code == 0, err
    assert "pretrained weights of" in err
    run = Run.open(tmp_path / "run")
    recorded = run.info["pretrained"]
    assert {"pos_embed", "fc_norm.weight"} <= {*recorded["weights"]["loaded"]}
    assert recorded["fingerprint"]
    report = (run.path / "report.html").read_text()
    assert "Pretrained weights" in report
    assert "<h2>Classes</h2>" in report
    start = vit_weights()["blocks.0.mlp.fc1.weight"]
    moved = run.load_weights()["blocks.0.mlp.fc1.weight"] - start
    assert moved.abs().max() < 0.01 < start.abs().max()
    away = file.rename(tmp_path / "away.safetensors")
    try:
        resumed = ("train", pattern_store.folder, "--pretrained", file, *flags, "--resume")
        assert call(*resumed)[0] == 0, "a finished run does not need the file"
    finally:
        away.rename(file)


class Evil:
    def __reduce__(self):
        return os.system, ("touch hacked",)


def files_that_do_not_fit(folder):
    torch.save({"model": Evil()}, folder / "evil.pth")
    (folder / "cut.safetensors").write_bytes(b"\xff" * 40)
    save_file(vit_weights(embed_dim=32), folder / "wide.safetensors")
    save_file({"w": torch.zeros(2)}, folder / "other.safetensors")
    save_file(vit_weights() | {"norm.bias": torch.full((16,), np.nan)}, folder / "nan.safetensors")
    short = vit_weights()
    del short["blocks.1.norm1.weight"]
    save_file(short, folder / "short.safetensors")
    return {
        "evil.pth": "evil.pth",
        "cut.safetensors": "cut.safetensors",
        "wide.safetensors": "does not fit|cannot be resampled",
        "other.safetensors": "that has no w",
        "nan.safetensors": "norm.bias is not finite",
        "short.safetensors": "it lacks blocks.1.norm1.weight",
        "missing.safetensors": "there is no file",
        "timm:vit_tiny_patch16_224": "pass --download",
    }


def test_files_that_do_not_fit_are_refused(pattern_store, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, words in files_that_do_not_fit(tmp_path).items():
        path = name if ":" in name else tmp_path / name
        with pytest.raises(SeitError, match=words):
            seit.train(pattern_store, out=tmp_path / "run", config=TINY, steps=1, pretrained=path)
        assert not (tmp_path / "run").exists()
    assert not (tmp_path / "hacked").exists()
    both = {"pretrained": "a", "init_from": "b", "model": "vit_tiny_patch16_224"}
    with pytest.raises(UsageError, match="are both set"):
        seit.train(pattern_store, out=tmp_path / "run", config=TINY, **both)


def test_the_hub_is_asked_by_name_only(file, monkeypatch):
    asked = []
    monkeypatch.setattr(source, "fetch", lambda name: asked.append(name) or file)
    found = source.find_pretrained("timm:vit_tiny_patch16_224.augreg_in21k", download=True)
    assert found == str(file)
    assert asked == ["hf://timm/vit_tiny_patch16_224.augreg_in21k/model.safetensors"]
    assert source.find_pretrained("here.pth", download=False) == "here.pth"
    with pytest.raises(UsageError, match="no weights 'nothing' on the hub"):
        source.find_pretrained("timm:nothing", download=True)
