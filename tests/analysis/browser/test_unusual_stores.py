"""`seit view` on unusual stores: behind a URL, with unlabeled blocks, of units without sound."""

import itertools
from http.client import HTTPConnection
from urllib.parse import urlsplit

import fsspec
import numpy as np
import pytest
from support.speech import reference, save, write_tones
from support.stores import build_store

import seit
from seit.analysis.browser.codebook import count_codes
from seit.analysis.browser.neighbors import CodeSearch
from seit.analysis.browser.site import Site
from seit.ingest import TokenizeConfig, fit_and_measure, fit_units
from seit.tokenizers import save_tokenizer

PAGES = (
    "/browse?split=train",
    "/browse?split=train&sort=bits",
    "/browse?split=train&q=1",
    "/sample/train/3",
    "/neighbors/train/3",
    "/codebook",
    "/picture/train/3",
)


def get(view, path):
    connection = HTTPConnection(urlsplit(view.url).netloc, timeout=30)
    connection.request("GET", path)
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer.status, body


@pytest.fixture
def remote(tmp_path, monkeypatch):
    """The address of a store in memory, with a cache of its own."""
    monkeypatch.setenv("SEIT_CACHE_DIR", str(tmp_path / "cache"))
    local = tmp_path / "store"
    build_store(
        local, shards={"train": (40, 30), "val": (5,)}, block_samples=16, classes=("bee", "cat")
    )
    files = fsspec.filesystem("memory").store
    files.clear()
    with fsspec.open("memory://corpus/keep", "wb") as file:
        file.write(b"")
    fsspec.filesystem("memory").put(f"{local}/", "memory://corpus/", recursive=True)
    yield "memory://corpus", local
    files.clear()


def test_every_page_of_a_remote_store_is_that_of_the_local_one(remote):
    url, local = remote
    with (
        seit.view(url, port=0, open_browser=False) as far,
        seit.view(local, port=0, open_browser=False) as near,
    ):
        for path in PAGES:
            status, body = get(far, path)
            assert status == 200, (path, body)
            assert body.replace(url.encode(), str(local).encode()) == get(near, path)[1], path


def test_codes_of_each_level_are_counted_apart(pattern_folder, tmp_path):
    pictures, tokenizer = pattern_folder / "pictures", tmp_path / "two.safetensors"
    config = TokenizeConfig(size=64, codes=16, tokenizer="patch-pca-rvq")
    save_tokenizer(fit_and_measure(pictures, config, levels=2)[0], tokenizer)
    seit.tokenize(pictures, out=tmp_path / "store", tokenizer=str(tokenizer))
    store = seit.open(tmp_path / "store")
    usage = count_codes(Site(store))
    splits = list(store.values())
    own = np.concatenate([split.tokens[:].reshape(len(split), 2, -1) for split in splits])
    labels = np.concatenate([split.labels for split in splits])
    for level, label in itertools.product(range(2), range(3)):
        expected = np.bincount(own[labels == label, level].ravel(), minlength=16)
        assert usage.by_class[level, label].tolist() == expected.tolist()
    assert usage.by_class.sum(1).tolist() == usage.counts.tolist()

    tokens = store["train"].tokens[:].reshape(len(store["train"]), 2, -1)
    codes = tokens + np.array([[0], [16]])
    histograms = np.stack([np.bincount(one.ravel(), minlength=32) for one in codes])
    overlap = np.minimum(histograms, histograms[3]).sum(1) / tokens[0].size
    overlap[3] = -1
    near = [one for one in CodeSearch(store).nearest("train", 3).neighbors if one.split == "train"]
    assert [one.similarity for one in near] == sorted(overlap, reverse=True)[: len(near)]


def test_a_remote_store_that_goes_away_is_one_sentence(remote):
    url, _ = remote
    with seit.view(url, port=0, open_browser=False) as view:
        assert get(view, "/browse?split=train")[0] == 200
        fsspec.filesystem("memory").store.clear()
        status, body = get(view, "/browse?split=val")
        assert status >= 400
        assert b"memory://corpus" in body
        assert b"Traceback" not in body


def test_the_codebook_of_a_store_with_blocks_of_unlabeled_samples(tmp_path):
    columns = build_store(tmp_path / "store", shards={"train": (1,) * 12}, classes=("a", "b"))
    assert (columns["train"].labels == -1).any()
    with seit.view(tmp_path / "store", port=0, open_browser=False) as view:
        assert get(view, "/codebook")[0] == 200


def test_units_of_a_speech_model_are_drawn_in_colors_and_have_no_player(tmp_path):
    model = save(reference("hubert"), tmp_path / "hubert")
    backbone, sounds = f"hf:{model}", write_tones(tmp_path / "tones")
    units, _, _ = fit_units(sounds, backbone, layer=1, codes=6, seconds=0.2)
    save_tokenizer(units, tmp_path / "units.safetensors")
    store = tmp_path / "store"
    seit.tokenize(
        sounds, out=store, tokenizer=str(tmp_path / "units.safetensors"), backbone=backbone
    )
    with seit.view(store, port=0, open_browser=False) as view:
        for path in ("/browse?split=train", "/sample/train/1", "/neighbors/train/1", "/codebook"):
            status, body = get(view, path)
            assert status == 200, (path, body)
            assert b"<audio" not in body, path
        assert get(view, "/picture/train/1")[0] == 200
        status, body = get(view, "/sound/train/1")
        assert (status, b"cannot be heard" in body) == (400, True)
