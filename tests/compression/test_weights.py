"""Weights of few bits: what a run keeps, and what it computes."""

import json

import numpy as np
import pytest
import torch
import yaml
from safetensors import safe_open

import seit
from seit.cli import main
from seit.errors import DamagedError, UsageError
from seit.packed_weights import PackedWeight, WeightGrid
from seit.recipes import find_recipe
from seit.training import Run


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("group", [0, 3, 8])
def test_packed_weights_come_back(bits, group):
    generator = torch.Generator().manual_seed(bits)
    grid = WeightGrid(bits=bits, group=group, shape=(5, 2, 2, 2))
    codes = torch.randint(1 << bits, (5, 8), generator=generator, dtype=torch.uint8)
    scales = torch.rand(5, grid.num_groups, generator=generator).half() + 0.5
    zeros = torch.randint(1 << bits, (5, grid.num_groups), generator=generator, dtype=torch.uint8)
    weight = PackedWeight(grid, codes, scales, zeros)
    tensors = weight.tensors("w")
    taken = PackedWeight.take("w", grid, tensors, origin="test")
    assert not tensors
    assert torch.equal(taken.codes, codes)
    expected = np.empty((5, 8), dtype=np.float64)
    for row in range(5):
        for column in range(8):
            part = column // group if group else 0
            expected[row, column] = float(scales[row, part]) * (
                int(codes[row, column]) - int(zeros[row, part])
            )
    assert np.allclose(taken.dense().reshape(5, 8), expected, rtol=1e-6)


def test_a_compressed_run_is_a_run(learned, pattern_store, tmp_path):
    nearest = {"compression.rounding": "nearest", "compression.clip": "minmax"}
    result = seit.compress(
        learned, store=pattern_store, out=tmp_path / "w8", method="w8", **nearest
    )
    assert result.agreement == 1.0
    assert result.bytes < 0.5 * result.bytes_before
    run = Run.open(tmp_path / "w8")
    assert run.info["kind"] == "compress"
    page = (run.path / "report.html").read_text()
    assert "Before and after" in page
    assert "Learning curves" not in page, "nothing was trained"
    assert seit.evaluate(run.path, store=pattern_store).top1 == result.top1
    with safe_open(run.path / "model.safetensors", framework="pt") as file:
        packed = [name for name in file.keys() if name.endswith(".codes")]  # noqa: SIM118
    assert len(packed) == 10  # stem, head, and four layers in each of two blocks
    before, after = Run.open(learned).load_weights(), run.load_weights()
    assert before.keys() == after.keys()
    for name, weight in before.items():
        step = (weight.max() - weight.min()) / 255 if weight.ndim > 1 else 0.0
        assert (weight - after[name]).abs().max() <= step, name


def test_a_run_is_compressed_once(learned, pattern_store, tmp_path):
    seit.compress(learned, store=pattern_store, out=tmp_path / "w8", method="w8")
    with pytest.raises(UsageError, match="is compressed already"):
        seit.compress(tmp_path / "w8", store=pattern_store, out=tmp_path / "w4", method="w4")
    assert not (tmp_path / "w4").exists()


def test_a_false_card_is_refused(learned, pattern_store, tmp_path):
    seit.compress(learned, store=pattern_store, out=tmp_path / "w8", method="w8")
    path = tmp_path / "w8" / "model.safetensors"
    data = path.read_bytes()
    path.write_bytes(data.replace(b'\\"bits\\": 8', b'\\"bits\\": 9'))
    assert path.read_bytes() != data
    with pytest.raises(DamagedError, match="9 bits"):
        Run.open(tmp_path / "w8").load_weights()


def test_the_recipe_resolves_with_the_backbone_of_the_run(learned, pattern_folder, capsys):
    recipe = find_recipe("compress-small-cpu")
    assert "seit compress RUN STORE" in recipe.summary
    main(["compress", str(learned), str(pattern_folder / "store"), "--dry-run", "--json"])
    found = json.loads(capsys.readouterr().out)
    shown = yaml.safe_load(recipe.path.read_text())
    assert found["compression"]["method"] == shown["compression"]["method"]
    assert found["schedule"]["steps"] == shown["schedule"]["steps"]
    assert found["model"]["embed_dim"] == 32
    assert found["augment"]["crop_size"] == 8
    with pytest.raises(SystemExit):
        main(["train", str(pattern_folder / "store"), "--recipe", recipe.name, "--dry-run"])
    assert "one of `seit compress`" in capsys.readouterr().err
