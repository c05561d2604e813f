"""Static pages of stores: what is on them, and that hostile names stay text."""

import io
import re

import numpy as np
import pytest
from PIL import Image
from support.several import write_several
from support.stores import build_store

import seit
from seit.analysis.browser.sheets import lay_out, shrink
from seit.errors import UsageError

HOSTILE = '"><script>alert(1)</script><img src=x onerror=alert(2)>\n'


def test_a_page_shows_samples_of_every_class(pattern_store, tmp_path):
    found = seit.view(pattern_store, export=tmp_path / "page", thumbnails=9, license_id="mit")
    assert (found.thumbnails, found.damaged) == (9, 0)
    files = {path.name for path in (tmp_path / "page").iterdir()}
    assert {"README.md", "index.html", "codebook.html", "page.css", "browser.css"} < files
    assert found.files == len(files)
    assert found.bytes == sum(path.stat().st_size for path in (tmp_path / "page").iterdir())
    page = (tmp_path / "page" / "index.html").read_text()
    total = pattern_store.card.samples // 3
    assert page.count(f"3 of {total}") == 3
    assert re.findall(r"<b>(\d+)</b>", page) == [str(total)] * 3
    keys = re.findall(r'role="img" aria-label="([^"]+)"', page)
    known = {key for name in pattern_store for key in pattern_store[name].keys}
    assert len(keys) == 9
    assert set(keys) <= known
    assert "license: mit" in (tmp_path / "page" / "README.md").read_text()
    code = (tmp_path / "page" / "codebook.html").read_text()
    assert code.count("<i role") == pattern_store.card.layout.num_codes


def test_a_sheet_holds_each_picture_where_its_tile_says():
    colors = np.arange(7, dtype=np.uint8)[:, None, None, None] * 30 + 10
    pictures = np.broadcast_to(colors, (7, 200, 100, 3)).copy()
    small = shrink(pictures)
    assert small.shape == (7, 96, 48, 3)
    data, tiles = lay_out(small, "sheet.jpg", [str(number) for number in range(7)])
    sheet = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    columns, rows = sheet.shape[1] // 48, sheet.shape[0] // 96
    for number, tile in enumerate(tiles):
        x, y = re.search(r"background-position:([\d.]+)% ([\d.]+)%", tile.style).groups()
        left = round(float(x) / 100 * (columns - 1)) * 48
        top = round(float(y) / 100 * (rows - 1)) * 96
        center = sheet[top + 48, left + 24].astype(int)
        assert abs(center - (10 + 30 * number)).max() <= 3


def test_hostile_names_and_damage_are_text(tmp_path):
    path = tmp_path / "store"
    build_store(path, shards={"train": (40,)}, block_samples=16, classes=(HOSTILE, "bee", "cat"))
    (offset, _), *_ = seit.open(path)["train"].shards[0].places[1].frames.values()
    shard = path / "train" / "00000.tar"
    data = bytearray(shard.read_bytes())
    data[offset + 20 : offset + 60] = bytes(40)
    shard.write_bytes(data)
    found = seit.view(path, export=tmp_path / "page")
    assert (found.thumbnails, found.damaged) == (24, 16)
    page = (tmp_path / "page" / "index.html").read_text()
    assert "<script" not in page
    assert "onerror=alert(2)&gt;" in page
    assert "1 damaged block" in page
    assert "00000.tar, block 1" in page
    assert "drawn as colors" in page  # it has no tokenizer
    addresses = re.findall(r'(?:src|href)="([^"]*)"|url\(([^)]*)\)', page)
    names = {one or other for one, other in addresses}
    assert all(name.startswith("#") or (tmp_path / "page" / name).is_file() for name in names)


def test_a_sample_of_several_labels_is_shown_in_each_of_its_classes(tmp_path, pattern_folder):
    store = write_several(pattern_folder, tmp_path)
    found = seit.view(store, export=tmp_path / "page")
    page = (tmp_path / "page" / "index.html").read_text()
    splits = [store[name] for name in store]
    counts = sum(split.label_sets.counts for split in splits)
    shown = re.findall(r"<h2>([^<]+) <small>(\d+) of (\d+)</small></h2>(.*?)</section>", page, re.S)
    assert {name: int(all_) for name, _, all_, _ in shown} == {
        **dict(zip(store.classes, counts.tolist(), strict=True)),
        "no class": 2,
    }
    for name, number, all_, tiles in shown:
        keys = re.findall('aria-label="([^"]+)"', tiles)
        assert len(keys) == int(number) == int(all_)
        expected = [
            key
            for split in splits
            for key, row in zip(
                split.keys, split.label_sets.rows(np.arange(len(split))), strict=True
            )
            if (max(row) < 1 if name == "no class" else row[store.classes.index(name)] == 1)
        ]
        assert keys == expected
    assert found.thumbnails == store.card.samples < counts.sum()
    assert "A sample counts in each of its classes." in page


def test_what_cannot_be_exported_is_one_line(pattern_store, tmp_path, call):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    code, out, err = call("view", pattern_store.folder, "--export", tmp_path / "full")
    assert (code, out) == (2, "")
    assert "is not empty; choose a new or empty" in err
    with pytest.raises(UsageError, match="expected 1 to 20,000"):
        seit.view(pattern_store, export=tmp_path / "page", thumbnails=0)
    with pytest.raises(UsageError, match="--store is for runs"):
        seit.view(pattern_store, store=pattern_store, export=tmp_path / "page")
    for flags in (["--port", 0, "--export", tmp_path / "page"], ["--license", "mit"]):
        code, out, err = call("view", pattern_store.folder, *flags)
        assert (code, out) == (2, "")
        assert f"{flags[0]} is for a " in err
    assert not (tmp_path / "page").exists()
    code, out, _ = call("view", pattern_store.folder, "--export", tmp_path / "page", "--json")
    assert code == 0
    assert '"thumbnails": 51' in out
