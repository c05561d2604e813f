"""Pixels of the samples of a store: the crops that its tokenizer saw, and what is refused."""

import numpy as np
import pytest
import torch
from PIL import Image

import seit
from seit.continual_learning.memory.media import make_medium
from seit.errors import UsageError
from seit.stream import PixelLoader


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Pictures of two classes in `src`, and a `store` of three views of each."""
    folder = tmp_path_factory.mktemp("views")
    draws = np.random.default_rng(0)
    for number in range(16):
        split = "train" if number < 12 else "val"
        path = folder / "src" / split / f"class{number % 2}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        rough = draws.integers(0, 256, (4, 6, 3), dtype=np.uint8)
        Image.fromarray(rough).resize((72, 48)).save(path)
    seit.tokenize(folder / "src", out=folder / "store", size=32, codes=32, views=3, seed=5)
    return folder


def pixels_of(split, source):
    loader = PixelLoader(
        split, source, batch_size=64, shuffle=False, seed=0, device="cpu", resident=False
    )
    return loader.read(np.arange(len(split)))


def test_the_crops_of_views_are_those_of_the_tokens(place):
    store = seit.open(place / "store")
    split = store["train"]
    pixels = pixels_of(split, place / "src")
    assert pixels.shape == (36, 3, 32, 32)
    tokenizer = store.load_tokenizer()
    tokens = tokenizer.encode(pixels.permute(0, 2, 3, 1).contiguous())
    assert torch.equal(tokens.long(), torch.from_numpy(split.tokens[:].astype(np.int64)))
    views = [row for row, key in enumerate(split.keys) if "#v" in key]
    plain = {key: row for row, key in enumerate(split.keys)}
    assert len(views) == 24
    for row in views:
        own = plain[split.keys[row].partition("#")[0]]
        assert not torch.equal(pixels[row], pixels[own])


def test_a_run_on_pixels_takes_a_store_of_views(place, tmp_path):
    result = seit.train(
        place / "store",
        out=tmp_path / "run",
        pixels=place / "src",
        steps=2,
        batch_size=12,
        config=TINY,
    )
    assert result.steps == 2


def test_views_of_merged_stores_are_refused_by_name(place, tmp_path):
    for name in ("class0", "class1"):
        seit.filter(place / "store", out=tmp_path / name, classes=[name], keep_classes=True)
    filtered = seit.open(tmp_path / "class0")["train"]
    assert len(pixels_of(filtered, place / "src")) == 18
    seit.merge([tmp_path / "class0", tmp_path / "class1"], out=tmp_path / "merged")
    merged = seit.open(tmp_path / "merged")
    with pytest.raises(UsageError, match=r"24 of the 36 samples .* are views .*#v1\), .* merged"):
        pixels_of(merged["train"], place / "src")
    assert len(pixels_of(merged["val"], place / "src")) == 4
    seit.filter(tmp_path / "merged", out=tmp_path / "plain", key_pattern="*.png")
    plain = pixels_of(seit.open(tmp_path / "plain")["train"], place / "src")
    assert len(plain) == 12


def test_pictures_that_are_missing_are_counted_and_named(place, tmp_path):
    (tmp_path / "src/train/class0").mkdir(parents=True)
    data = (place / "src/train/class0/0.png").read_bytes()
    (tmp_path / "src/train/class0/0.png").write_bytes(data)
    with pytest.raises(UsageError, match="lacks 33 of the 36 instances"):
        pixels_of(seit.open(place / "store")["train"], tmp_path / "src")


TINY = {
    "model": {"embed_dim": 16, "depth": 1, "num_heads": 2, "stem": "2/2/0"},
    "augment": {"crop_size": 0},
    "run": {"device": "cpu", "loggers": []},
}


@pytest.fixture(scope="module")
def table(place, tmp_path_factory):
    """A `list.csv` in another folder than the pictures, and the `store` made from it by a root."""
    folder = tmp_path_factory.mktemp("table")
    rows = [
        f"{path.relative_to(place / 'src')},{path.parts[-2]},{path.parts[-3]}"
        for path in sorted((place / "src").rglob("*.png"))
    ]
    (folder / "list.csv").write_text("\n".join(["path,label,split", *rows]))
    source = folder / "list.csv"
    seit.tokenize(source, out=folder / "store", root=place / "src", size=32, codes=32)
    return folder


def test_the_paths_of_a_table_start_at_a_root(place, table):
    split = seit.open(table / "store")["train"]
    settings = {"batch_size": 4, "shuffle": False, "seed": 0, "device": "cpu"}
    loader = PixelLoader(split, table / "list.csv", root=place / "src", **settings)
    plain = seit.open(place / "store")["train"]
    rows = [plain.keys.index(name) for name in split.keys]
    expected = pixels_of(plain, place / "src")[rows]
    assert torch.equal(loader.read(np.arange(12)), expected)
    with pytest.raises(UsageError, match=r"12 of the 12 files .* not there .*--data\.root"):
        PixelLoader(split, table / "list.csv", **settings)


def test_runs_teachers_and_evaluations_take_the_root(place, table, tmp_path):
    named = {"pixels": str(table / "list.csv"), "root": str(place / "src")}
    given = {"steps": 1, "batch_size": 4, "config": {**TINY, "data": named}}
    result = seit.train(table / "store", out=tmp_path / "pixels", **given)
    again = seit.evaluate(tmp_path / "pixels", store=table / "store", **named)
    assert again.loss == pytest.approx(result.loss)
    with pytest.raises(UsageError, match=r"4 of the 4 files .* not there"):
        seit.evaluate(tmp_path / "pixels", store=table / "store", pixels=named["pixels"])
    taught = {**TINY, "distill": {"teacher": str(tmp_path / "pixels"), **named}}
    taught["augment"] = {"crop_size": 4}
    seit.train(table / "store", out=tmp_path / "taught", steps=1, batch_size=4, config=taught)
    for group in ("data", "distill"):
        alone = {**TINY, group: {"root": named["root"]}}
        with pytest.raises(UsageError, match=rf"{group}\.root is .*, which is for a table"):
            seit.train(table / "store", out=tmp_path / "refused", steps=1, config=alone)
    with pytest.raises(UsageError, match="--root is for a table of images"):
        seit.evaluate(tmp_path / "taught", store=table / "store", root=place / "src")


def test_a_memory_of_pictures_takes_the_root(place, table):
    split = seit.open(table / "store")["train"]
    for name in ("png", "jpeg:75"):
        medium = make_medium(name, split, source=table / "list.csv", root=place / "src")
        assert len(medium.encode(np.arange(3))) == 3
