"""Shares of the files of a split: with all of their windows or views, or with none of them."""

import dataclasses

import numpy as np
import pytest
from support.pretraining import changed
from support.several import write_several
from support.stores import build_store

import seit
from seit.errors import UsageError
from seit.shards import Block, TokenLayout
from seit.stream import held_out, select
from seit.testing import write_store
from seit.training import Run, training_rows
from seit.training.config import REVISION


def write(path, keys, labels, modality="image"):
    """Write a store of random samples with these keys and labels; return its training split."""
    layout = TokenLayout(grid=(2, 2), num_codes=4)
    tokens = np.random.default_rng(0).integers(0, 4, (len(keys), 2, 2)).astype(layout.dtype)
    block = Block(tokens=tokens, labels=np.array(labels, np.int32), keys=tuple(keys))
    card = write_store(path, {"train": block}, layout, block_samples=64, classes=("ant", "bee"))
    dataclasses.replace(
        card, tokenizer=dataclasses.replace(card.tokenizer, modality=modality)
    ).write(path)
    return seit.open(path)["train"]


def parts_of(num_files, *, sign="#v", counts=(4,)):
    """Return keys and labels of files of two classes, each of as many parts as ``counts`` say."""
    keys, labels = [], []
    for number in range(num_files):
        for part in range(counts[number % len(counts)]):
            keys.append(
                f"{number}.jpg" if sign == "#v" and not part else f"{number}.jpg{sign}{part}"
            )
            labels.append(number % 2)
    return keys, labels


def files_in(split, rows):
    return [split.keys[row].partition("#")[0] for row in rows]


def test_rows_without_windows_or_views_are_those_of_earlier_versions(pattern_folder, tmp_path):
    build_store(tmp_path / "one", shards={"train": (40, 23)}, block_samples=16)
    split = seit.open(tmp_path / "one")["train"]
    fifth, tenth = [0, 1, 2, 4, 7, 15, 18, 20, 24, 33, 35, 41, 48, 56], [12, 17, 32, 40, 59]
    assert select(split, fraction=0.2, seed=3).tolist() == fifth
    assert select(split, classes=["ant", 2], fraction=0.1, seed=7).tolist() == tenth
    several = write_several(pattern_folder, tmp_path)["train"]
    kept = [3, 6, 8, 9, 10, 11, 12, 14, 16, 18, 21, 29, 31]
    assert select(several, fraction=0.2, seed=1).tolist() == kept


@pytest.mark.parametrize(("sign", "modality"), [("#v", "image"), ("#", "audio")])
@pytest.mark.parametrize("counts", [(4,), (1, 3, 5, 2)])
def test_a_fraction_is_one_of_files_with_all_of_their_parts(tmp_path, sign, modality, counts):
    split = write(tmp_path / "store", *parts_of(200, sign=sign, counts=counts), modality)
    every, smaller = files_in(split, range(len(split))), set()
    for fraction, num_files in ((0.01, 2), (0.1, 20), (0.25, 50), (0.5, 100)):
        rows = select(split, fraction=fraction, seed=5)
        chosen = set(files_in(split, rows))
        assert len(chosen) == num_files
        assert rows.tolist() == [row for row, file in enumerate(every) if file in chosen]
        assert [sum(int(file[:-4]) % 2 == label for file in chosen) for label in (0, 1)] == [
            num_files // 2
        ] * 2
        assert smaller < chosen
        smaller = chosen
    bees = select(split, classes=["bee"], fraction=0.1)
    assert len(set(files_in(split, bees))) == 10
    assert (split.labels[bees] == 1).all()


def test_the_files_are_those_of_a_store_of_one_view(tmp_path):
    four, one = (write(tmp_path / f"{views}", *parts_of(60, counts=(views,))) for views in (4, 1))
    chosen = files_in(one, select(one, fraction=0.2, seed=2))
    assert files_in(four, select(four, fraction=0.2, seed=2)[::4]) == chosen
    held = held_out(four, share=0.2, seed=2)
    assert files_in(four, held[::4]) == files_in(one, held_out(one, share=0.2, seed=2))


def test_a_mark_of_another_modality_is_a_part_of_the_name(tmp_path):
    split = write(tmp_path / "pages", *parts_of(40, sign="#", counts=(2,)), "image")
    assert len(select(split, fraction=0.1)) == 8  # of the 80 pictures, two of a name


def test_filter_keeps_whole_files(tmp_path):
    write(tmp_path / "store", *parts_of(40))
    kept = seit.filter(tmp_path / "store", out=tmp_path / "tenth", fraction=0.1)
    assert kept.samples == 16
    split = seit.open(tmp_path / "tenth")["train"]
    assert len(set(files_in(split, range(16)))) == 4


@pytest.mark.parametrize(
    ("counts", "fraction", "is_refused"),
    [((4,), 0.5, True), ((4,), 1.0, False), ((1,), 0.5, False)],
)
def test_a_run_that_kept_single_views_does_not_resume(tmp_path, counts, fraction, is_refused):
    split = write(tmp_path / "store", *parts_of(40, counts=counts))
    config = changed(data={"fraction": fraction})
    Run.start(tmp_path / "run", config, split.store, resume=False)
    run = Run.start(tmp_path / "run", config, split.store, resume=True)
    assert run.info["revision"] == REVISION >= 5
    run.write_info({**run.info, "revision": 4})
    if not is_refused:
        Run.start(tmp_path / "run", config, split.store, resume=True)
        return
    with pytest.raises(UsageError, match=r"in which data\.fraction meant something else"):
        Run.start(tmp_path / "run", config, split.store, resume=True)


def test_a_run_trains_on_whole_files(tmp_path):
    split = write(tmp_path / "store", *parts_of(40))
    rows = training_rows(split, changed(data={"fraction": 0.25}))
    assert (len(rows), len(set(files_in(split, rows)))) == (40, 10)
