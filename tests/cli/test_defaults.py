"""Defaults fit the store: its modality, its grid, few samples."""

from dataclasses import replace

import pytest
import torch
from support.stores import build_store, edit_card

import seit
from seit.api import plan_run
from seit.augment import TokenAugment
from seit.config import build, read_yaml
from seit.continual_learning import ContinualConfig
from seit.errors import UsageError
from seit.models import vit_stem
from seit.pretraining import PretrainConfig, pretrain
from seit.recipes import find_recipe, list_recipes
from seit.training import TrainConfig, resolve_settings
from seit.training.defaults import FEW_PATCHES, default_settings
from seit.training.tuning import TuneConfig


@pytest.fixture
def make(tmp_path):
    """Make a store of a grid, a modality and a number of training samples."""

    def make(grid=(32, 32), modality="image", samples=80):
        path = tmp_path / f"{grid}-{modality}-{samples}"
        build_store(path, grid=grid, shards={"train": (samples,), "val": (4,)})
        edit_card(path, lambda body: body["tokenizer"].update(modality=modality))
        return seit.open(path)

    return make


def resolve(kind, store, task, **options):
    return resolve_settings(kind, task=task, store=str(store.folder), **options)


def recipe(name, kind=TrainConfig):
    return build(kind, read_yaml(find_recipe(name).path), origin=name)


TASKS = {
    "train": TrainConfig,
    "tune": TuneConfig,
    "continual": ContinualConfig,
    "mtm": PretrainConfig,
    "sit": PretrainConfig,
    "further": PretrainConfig,
}


def test_usual_stores_get_the_recipe_as_it_is(make):
    assert resolve(TrainConfig, make(), "train") == recipe("small-cpu")
    sounds = make(modality="audio")
    assert resolve(TrainConfig, sounds, "train") == recipe("audio-small-cpu")
    mtm = resolve(PretrainConfig, make(), "mtm")
    assert mtm == recipe("mtm-small-cpu", PretrainConfig)


@pytest.mark.parametrize("task", ["train", "mtm", "sit", "further"])
@pytest.mark.parametrize("grid", [(8, 8), (16, 16), (10, 40), (32, 32), (64, 64)])
def test_no_default_leaves_few_patches(task, grid, make):
    config = resolve(TASKS[task], make(grid), task)
    size = tuple(round(side * 7 / 8) for side in grid)
    rows, columns = vit_stem(config.model.stem, size).output_size(size)
    assert rows * columns >= FEW_PATCHES


def test_what_is_asked_for_is_not_fitted(make):
    store = make((8, 8), samples=10)
    found = resolve(TrainConfig, store, "train", changes={"model.stem": "2/2/0", "batch_size": 7})
    assert (found.model.stem, found.data.batch_size) == ("2/2/0", 7)
    assert resolve(TrainConfig, store, "train", recipe="small-cpu") == recipe("small-cpu")


def test_few_samples_fill_a_batch_several_times(make, monkeypatch):
    for samples, batch in ((63, 14), (24, 6), (5, 2), (1, 1), (64, 64)):
        config = resolve(TrainConfig, make(samples=samples), "train")
        assert config.data.batch_size == batch
    monkeypatch.setenv("WORLD_SIZE", "3")
    assert default_settings("train", make(samples=30))["data"]["batch_size"] == 6


def test_grids_and_sounds_without_a_recipe_are_refused_with_the_nearest(make):
    with pytest.raises(UsageError, match=r"no recipe of mtm for audio.* mtm-speech-small-cpu to"):
        resolve(PretrainConfig, make(modality="audio"), "mtm")
    with pytest.raises(UsageError, match=r"no recipe of sit for audio.* --recipe sit-small-cpu"):
        resolve(PretrainConfig, make(modality="audio"), "sit")
    with pytest.raises(UsageError, match="the nearest is --recipe small-cpu"):
        resolve(TrainConfig, make((1, 2)), "train")
    sounds = make((16, 40), modality="audio")
    assert resolve(TrainConfig, sounds, "train").augment.crop_size == 16


@pytest.mark.parametrize("name", ["audio-small-cpu", "speech-small-cpu", "mtm-speech-small-cpu"])
@pytest.mark.parametrize(
    ("grid", "levels"), [((16, 64), 1), ((40, 100), 1), ((2, 375), 2), ((8, 50), 8)]
)
def test_recipes_of_sounds_train_on_the_whole_grid_of_any_shape(name, grid, levels):
    """Without edits, masks and mixing, training sees what evaluation sees."""
    config = recipe(name, PretrainConfig if name.startswith("mtm") else TrainConfig)
    off = {"synonym_prob": 0, "noise_prob": 0, "mixup_prob": 0, "time_roll": 0}
    seen = replace(config.augment, **off, freq_masks=0, time_masks=0, crop_size=grid[0] // levels)
    generator = torch.Generator().manual_seed(0)
    codebook = torch.randn((levels, 16, 4), generator=generator)
    augment = TokenAugment(codebook, grid, seen)
    tokens = torch.randint(16, (20, *grid), generator=generator)
    places = {"positions": torch.arange(20), "seed": 0, "epoch": 0}
    found = augment(tokens, torch.zeros(20).long(), **places).inputs
    assert found.shape == (20, 4, grid[0] // levels, grid[1])
    torch.testing.assert_close(found, augment.evaluate(tokens))


def test_a_recipe_of_another_modality_is_warned_about(make, caplog):
    resolve(TrainConfig, make(modality="audio"), "train", recipe="small-cpu")
    assert "the recipe small-cpu is made for image and" in caplog.text
    caplog.clear()
    resolve(TrainConfig, make(), "train", recipe="small-cpu")
    assert not caplog.text
    known = {one.name: one.modality for one in list_recipes()}
    assert known["speech-small-cpu"] == "audio"
    assert known["tune-small-cpu"] is None


def test_one_patch_is_not_pretrained(make, tmp_path):
    config = recipe("mtm-small-cpu", PretrainConfig)
    with pytest.raises(UsageError, match=r"makes 1×1 patches of a grid of 7×7, .* --model.stem"):
        pretrain(config, make((8, 8)), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_an_objective_that_is_set_by_name_is_checked(make):
    with pytest.raises(UsageError, match="no objective 'nope'; there are mtm, sit, further"):
        plan_run("pretrain", make().folder, objective="nope")
