"""`seit view`: pages over HTTP, what they show, and what they refuse."""

import json
import re
import shutil
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from urllib.parse import urlsplit

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from support.several import write_several
from support.stores import build_store

import seit
from seit.analysis.browser import neighbors
from seit.analysis.browser.augmented import augment_ids, config_of
from seit.analysis.browser.catalog import Catalog
from seit.analysis.browser.codebook import count_codes
from seit.analysis.browser.neighbors import CodeSearch
from seit.analysis.browser.pictures import Encoded, PictureCache, ScrolledPastError, Thumbnails
from seit.analysis.browser.query import Query
from seit.analysis.browser.selection import Selection
from seit.analysis.browser.site import Site
from seit.errors import DamagedError, UsageError
from seit.shards import Shard
from seit.stores import read_keys
from seit.training import Run, read_predictions

HOSTILE = "<script>alert(1)</script>"


class Page:
    """Client of one server, with its own connection for each request."""

    def __init__(self, url):
        self.place = urlsplit(url).netloc

    def get(self, path, method="GET", **headers):
        connection = HTTPConnection(self.place, timeout=30)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, headers=named)
        answer = connection.getresponse()
        body = answer.read()
        connection.close()
        return answer.status, body, answer.headers

    def text(self, path, **headers):
        status, body, _ = self.get(path, **headers)
        assert status == 200, body
        return body.decode()


@pytest.fixture(scope="module")
def shown(pattern_store):
    with seit.view(pattern_store, port=0, open_browser=False) as view:
        yield Page(view.url)


@pytest.fixture
def strange(tmp_path):
    """A store of random tokens without a tokenizer, with hostile names of classes."""
    columns = build_store(
        tmp_path / "store",
        shards={"train": (40, 30), "val": (5,)},
        block_samples=16,
        classes=(HOSTILE, "bee", "cat"),
        with_metadata=True,
    )
    return tmp_path / "store", columns


def test_the_first_page_shows_samples_and_where_they_lead(shown, pattern_store):
    status, _, headers = shown.get("/")
    assert (status, headers["Location"]) == (303, "/browse")
    page = shown.text("/browse?split=train")
    key = pattern_store["train"].keys[0]
    assert key in page
    assert 'href="/sample/train/0"' in page
    status, picture, headers = shown.get("/picture/train/0")
    assert (status, headers["Content-Type"]) == (200, "image/png")
    assert picture.startswith(b"\x89PNG")
    counts = re.findall(r"<b>(\d+)</b>", shown.text("/classes?split=train"))
    assert counts == ["12"] * 3


def test_pages_may_not_do_what_they_need_not(shown):
    _, _, headers = shown.get("/browse?split=train")
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self'" in policy
    assert "style-src 'self';" in policy
    assert "Access-Control-Allow-Origin" not in headers
    assert headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize(
    ("headers", "method", "status"),
    [
        ({"Host": "evil.example:80"}, "GET", 421),
        ({}, "POST", 405),
        ({}, "DELETE", 405),
        ({"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "no-cors"}, "GET", 403),
    ],
)
def test_requests_that_are_refused(shown, headers, method, status):
    found, body, _ = shown.get("/browse", method, **headers)
    assert found == status
    assert body.count(b"\n") == 1


@pytest.mark.parametrize(
    "path",
    [
        "/picture/..%2f..%2fetc/0",
        "/picture/train/../../../etc/passwd",
        "/picture/train/-1",
        "/picture/train/99999",
        "/sample/nowhere/0",
        "/static/..%2Fpages.py",
        "/static/pages.py",
        "/browse?split=nowhere",
        "/browse?split=train&class=x",
        "/browse?split=train&sort=evil",
        "/browse?split=train&wrong=1",
        "/augmented/train/0?noise_prob=nan",
        "/augmented/train/0?synonym_prob=1&swap_prob=1",
        "/code/0/99999999",
        "/codebook?code=x",
        "/runs",
        "/run/0",
        "/nowhere",
    ],
)
def test_what_is_not_there_is_one_sentence(shown, path):
    status, body, _ = shown.get(path)
    assert status in (400, 404)
    assert b"Traceback" not in body
    assert 0 < len(body) < 600
    status, body, _ = shown.get(path, Accept="text/html")
    assert status in (400, 404)
    assert b"cannot be shown" in body


def test_hostile_names_are_text(strange):
    path, _ = strange
    with seit.view(path, port=0, open_browser=False) as view:
        page = Page(view.url)
        classes = page.text("/classes?split=train")
        assert HOSTILE not in classes
        assert "&lt;script&gt;" in classes
        assert HOSTILE not in page.text(f"/browse?split=train&q={HOSTILE.replace('<', '%3C')}")
        assert "drawn as colors" in classes  # it has no tokenizer
        assert page.get("/picture/train/3")[0] == 200
        assert HOSTILE not in page.text("/sample/train/3")
        assert page.get("/sound/train/3")[0] == 400


def test_damaged_blocks_are_shown_as_such(strange):
    path, _ = strange
    shard = path / "train" / "00000.tar"
    place = seit.open(path)["train"].shards[0].places[1].frames
    offset = next(iter(place.values()))[0]
    data = bytearray(shard.read_bytes())
    data[offset + 20 : offset + 60] = bytes(40)
    shard.write_bytes(data)
    with seit.view(path, port=0, open_browser=False) as view:
        page = Page(view.url)
        listed = page.text("/browse?split=train")
        assert listed.count("damaged sample") == 16
        assert "00000.tar, block 1" in listed
        assert "1 damaged block" in page.text("/classes?split=train")
        assert page.get("/picture/train/0")[0] == 200
        status, body, _ = page.get("/picture/train/20")
        assert status == 500
        assert b"block 1" in body


def test_a_store_that_changes_is_said_to(strange, tmp_path):
    path, _ = strange
    with seit.view(path, port=0, open_browser=False) as view:
        page = Page(view.url)
        page.text("/browse?split=train")
        shutil.rmtree(path)
        build_store(path, shards={"train": (9,)}, seed=5)
        status, body, _ = page.get("/browse?split=train", Accept="text/html")
        assert status == 409
        assert b"changed after it was opened" in body


def test_more_than_this_machine_needs_a_token(pattern_store):
    with seit.view(pattern_store, host="0.0.0.0", port=0, open_browser=False) as view:
        token = urlsplit(view.url).query
        assert re.fullmatch(r"token=[\w-]{32}", token)
        page = Page(f"http://127.0.0.1:{view.port}")
        assert page.get("/browse")[0] == 403
        assert page.get("/?token=wrong")[0] == 403
        status, _, headers = page.get(f"/?{token}")
        assert (status, headers["Location"]) == (303, "/")
        cookie = headers["Set-Cookie"].split(";")[0]
        assert page.get("/browse?split=train", Cookie=cookie)[0] == 200
        assert page.get(f"//evil.example/?{token}")[2]["Location"] == "/evil.example/"


def test_a_port_in_use_is_one_line(pattern_store, call):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        code, out, err = call("view", pattern_store.folder, "--port", port, "--no-open")
    assert (code, out) == (2, "")
    assert err.startswith(f"error: port {port} of 127.0.0.1 cannot be used")
    assert err.count("\n") == 1


def test_queries_find_and_order_samples(strange):
    path, columns = strange
    split, written = seit.open(path)["train"], columns["train"]
    selection = Selection(Catalog(split))
    assert selection.rows(Query()) == range(70)
    found = selection.rows(Query(text="Ü1"))
    assert {written.keys[row] for row in found} == {k for k in written.keys if "ü1" in k}
    assert list(selection.rows(Query(text='"n": 69'))) == [69]
    labels = np.asarray(written.labels)
    assert list(selection.rows(Query(label=1))) == np.flatnonzero(labels == 1).tolist()
    assert list(selection.rows(Query(label=-1))) == np.flatnonzero(labels == -1).tolist()
    by_key = [written.keys[row] for row in selection.rows(Query(sort="key", down=True))]
    assert by_key == sorted(written.keys, reverse=True)
    by_class = labels[selection.rows(Query(sort="class"))]
    assert (np.diff(by_class) >= 0).all()
    query = Query(split="train", label=2, text="a b", sort="bits", down=True, start=60)
    values = dict(part.split("=") for part in query.address().partition("?")[2].split("&"))
    assert Query.of_address({**values, "q": "a b"}) == query


def test_bits_are_those_of_the_coder(tmp_path):
    build_store(tmp_path / "a", shards={"train": (70,)}, block_samples=32, codec="context")
    split = seit.open(tmp_path / "a")["train"]
    bits = Catalog(split).bits
    encoded = split.store.codec.encode(split.tokens[:32])
    assert bits[:32].sum() == 8 * split.store.codec.stored_bytes(encoded).sum()
    assert len(encoded) > bits[:32].sum() / 8  # a frame has a header too
    order = Selection(Catalog(split)).rows(Query(sort="bits", down=True))
    assert (np.diff(bits[order]) <= 0).all()


def test_keys_of_a_query_are_a_file_for_filter(shown, pattern_store, tmp_path):
    listed = shown.get("/keys?split=train&class=1")
    assert "attachment" in listed[2]["Content-Disposition"]
    (tmp_path / "keys.txt").write_bytes(listed[1])
    keys = read_keys(tmp_path / "keys.txt")
    result = seit.filter(pattern_store, out=tmp_path / "some", split="train", keys=keys)
    assert result.samples == 12
    page = shown.text("/browse?split=train&class=1")
    assert "--split train --keys keys.txt" in page


def test_neighbors_are_exact(pattern_store):
    split = pattern_store["train"]
    found = CodeSearch(pattern_store).nearest("train", 5, most=4)
    tokens, K = split.tokens[:].reshape(len(split), -1), pattern_store.card.layout.num_codes
    histograms = np.stack([np.bincount(ids, minlength=K) for ids in tokens])
    overlap = np.minimum(histograms, histograms[5]).sum(1) / tokens.shape[1]
    overlap[5] = -1
    mine = [one.similarity for one in found.neighbors if one.split == "train"]
    assert mine == sorted(overlap, reverse=True)[: len(mine)]
    assert found.compared == found.total == pattern_store.card.samples


def test_ids_are_decoded_once_for_all_searches_if_they_are_few(pattern_store, monkeypatch):
    decoded = []
    open_block = Shard.open_block
    monkeypatch.setattr(
        Shard, "open_block", lambda *given: decoded.append(given[1]) or open_block(*given)
    )
    keeping = CodeSearch(pattern_store)
    first = [keeping.nearest("train", row) for row in (5, 6)]
    once = len(decoded)
    monkeypatch.setattr(neighbors, "MAX_KEPT_BYTES", 0)
    forgetful = CodeSearch(pattern_store)
    assert [forgetful.nearest("train", row) for row in (5, 6)] == first
    assert len(decoded) - once == 2 * once
    assert first[0].neighbors[0].score is not None


def test_augmentations_are_those_of_training(pattern_store, shown):
    grid = pattern_store.card.tokenizer.grid
    one, other = pattern_store["train"].tokens[0], pattern_store["train"].tokens[1]
    config, seed = config_of({}, grid)
    assert (augment_ids(pattern_store, one, other, config, seed=seed) == one).all()
    config, seed = config_of({"mixup_prob": "1"}, grid)
    mixed = [augment_ids(pattern_store, one, other, config, seed=seed) for seed in range(8)]
    assert any((ids != one).any() for ids in mixed)
    status, picture, _ = shown.get("/augmented/train/0?mixup_prob=1&seed=1")
    assert (status, picture[:4]) == (200, b"\x89PNG")
    assert config_of({"seed": "7"}, grid)[1] == 7
    with pytest.raises(UsageError, match="noise_prob"):
        config_of({"noise_prob": "2"}, grid)


def test_sample_and_codebook_pages(shown, pattern_store):
    tokens = pattern_store["val"].tokens[0]
    page = shown.text("/sample/val/0")
    ids = [int(found) for found in re.findall(r'data-id="(\d+)"', page)]
    assert ids == tokens.ravel().tolist()
    assert pattern_store["val"].keys[0] in page
    code = int(tokens[0, 0])
    book = shown.text(f"/codebook?code={code}")
    used = sum((pattern_store[name].tokens[:] == code).sum() for name in pattern_store)
    assert f"used {used:,} times" in book
    status, picture, headers = shown.get(f"/code/0/{code}")
    assert (status, headers["Content-Type"]) == (200, "image/png")
    assert picture


def test_the_cache_stays_within_its_size():
    cache = PictureCache(max_bytes=100)
    for number in range(20):
        cache.put(number, Encoded("png", bytes(30)))
        assert cache.get(0) is not None or number > 2
    assert cache.num_bytes <= 100
    assert cache.get(19) is not None


class _Residual:
    """A store of two levels of two codes: sums of ±4 and ±1 in each of two channels."""

    codebook = np.array([[[-4, 4], [4, -4]], [[-1, 1], [1, -1]]], np.float32)
    levels = 2

    class card:  # noqa: N801
        class tokenizer:  # noqa: N801
            grid = (8, 4)


def test_augmentations_of_residual_tokens_are_their_nearest_sums():
    rng = np.random.default_rng(0)
    one, other = rng.integers(2, size=(2, 8, 4)).astype(np.uint16)
    config, seed = config_of({}, (4, 4))
    assert (augment_ids(_Residual, one, other, config, seed=seed) == one).all()
    config, _ = config_of({"cutmix_prob": "1"}, (4, 4))
    drawn = [augment_ids(_Residual, one, other, config, seed=seed) for seed in range(8)]
    assert any((ids != one).any() for ids in drawn)
    for ids in drawn:  # CutMix takes each cell, with all levels, from one of the two
        cells, mine, theirs = (x.reshape(2, 4, 4) for x in (ids, one, other))
        assert ((cells == mine).all(0) | (cells == theirs).all(0)).all()


def test_the_latest_page_is_drawn_first_and_older_ones_are_dropped():
    started, released, drawn = threading.Event(), threading.Event(), []

    class Painter:
        def draw(self, tokens, *, quick):
            drawn.append((int(tokens[0, 0, 0]), len(tokens)))
            started.set()
            assert released.wait(30)
            return np.zeros((len(tokens), 4, 4, 3), np.uint8)

    thumbnails = Thumbnails(Painter, lambda _: np.zeros((1, 1), np.uint16), PictureCache())

    def request(page):
        addresses = [("train", 20 * page + n) for n in range(20)]
        thumbnails.request(addresses, np.full((20, 1, 1), page, np.uint16))

    request(0)
    assert started.wait(30)
    with ThreadPoolExecutor() as pool:
        late = pool.submit(thumbnails.picture, ("train", 19))
        while not late.running():
            pass
        time.sleep(0.05)
        for page in range(1, 8):
            request(page)
        with pytest.raises(ScrolledPastError, match="scrolled past"):
            late.result(30)
        released.set()
        assert pool.submit(thumbnails.picture, ("train", 59)).result(30).kind == "png"
    order = [page for page, _ in drawn]
    assert order == [0, *(page for page in range(7, 1, -1) for _ in range(2))]
    assert [count for _, count in drawn[1:]] == [16, 4] * 6


def test_runs_show_their_figures_ledger_and_report(tmp_path, tiny_run):
    result = {
        "last_accuracy": 0.5,
        "ledger": {"exemplar_bytes": 1500, "trainable_parameters": 7000, HOSTILE: 5},
    }
    identity = {"store": "0" * 64, "classes": ["a", "b"]}
    info = {"status": "finished", "kind": "continual", "identity": identity, "result": result}
    (tmp_path / "runs" / "tasks").mkdir(parents=True)
    (tmp_path / "runs" / "tasks" / "run.json").write_text(json.dumps(info))
    (tmp_path / "runs" / "tasks" / "config.yaml").write_text("model: {name: vit}")
    shutil.copytree(tiny_run, tmp_path / "runs" / "tiny")
    with seit.view(tmp_path / "runs", port=0, open_browser=False) as view:
        page = Page(view.url)
        listed = page.text("/runs")
        assert "last accuracy 50.0%" in listed
        assert re.search(r"top1 \d+\.\d%", listed)
        tasks = page.text("/run/0")
        for words in ("1.5 kB", '<td class="number">7,000</td>', "&lt;script&gt;"):
            assert words in tasks
        assert HOSTILE not in tasks
        assert "<iframe" not in tasks  # it has no report
        assert '<iframe class="report" sandbox' in page.text("/run/1")
        _, _, headers = page.get("/run/1/report")
        policy = headers["Content-Security-Policy"]
        assert policy.startswith("sandbox; default-src 'none'")
        assert headers["X-Frame-Options"] == "SAMEORIGIN"


def total_of(page, address):
    return int(re.search(r'data-total="(\d+)"', page.text(address.replace("&amp;", "&")))[1])


def mistakes_of(page, number):
    """The address of a run's mistakes."""
    return re.search(r'href="(/browse\?[^"]*wrong=1[^"]*)"', page.text(f"/run/{number}"))[1]


def test_mistakes_are_those_of_the_run_that_leads_to_them(tmp_path, tiny_run, pattern_store):
    for name in ("a", "b"):
        shutil.copytree(tiny_run, tmp_path / "runs" / name)
    path = tmp_path / "runs" / "b" / "predictions.safetensors"
    tensors = load_file(path)
    wrong = int((tensors["predictions"] != tensors["labels"]).sum())
    save_file(tensors | {"predictions": tensors["labels"]}, path)
    with seit.view(tmp_path / "runs", store=pattern_store, port=0, open_browser=False) as view:
        page = Page(view.url)
        assert [total_of(page, mistakes_of(page, number)) for number in (0, 1)] == [wrong, 0]
        assert "only mistakes of b" in page.text(mistakes_of(page, 1).replace("&amp;", "&"))
        assert "What a predicts" in page.text("/sample/val/0")
        assert "What b predicts" in page.text("/sample/val/0?run=1")
        status, body, _ = page.get("/browse?split=val&run=2&wrong=1")
        assert (status, body.decode().count("there are 2 runs")) == (400, 1)


def test_predictions_come_when_the_run_is_finished(tmp_path, tiny_run, pattern_store):
    shutil.copytree(tiny_run, tmp_path / "run")
    record = tmp_path / "run" / "run.json"
    text = record.read_text()
    record.write_text(json.dumps(json.loads(text) | {"status": "started"}))
    with seit.view(tmp_path / "run", store=pattern_store, port=0, open_browser=False) as view:
        page = Page(view.url)
        assert "only mistakes" not in page.text("/browse?split=val")
        record.write_text(text)
        assert "only mistakes of run" in page.text("/browse?split=val")
        assert total_of(page, "/browse?split=val&wrong=1") > 0


def test_several_labels_count_in_each_of_their_classes(tmp_path, pattern_folder):
    store = write_several(pattern_folder, tmp_path)
    settings = {
        "model": {"embed_dim": 16, "depth": 2, "num_heads": 2, "stem": "2/2/0"},
        "augment": {"crop_size": 7},
        "run": {"device": "cpu", "loggers": []},
    }
    seit.train(store, out=tmp_path / "run", config=settings, steps=2, batch_size=12)
    sets = store["val"].label_sets
    found = read_predictions(Run.open(tmp_path / "run"))
    with seit.view(tmp_path / "run", store=store, port=0, open_browser=False) as view:
        page = Page(view.url)
        counts = re.findall(r"<b>(\d+)</b>", page.text("/classes?split=val"))
        expected = [*sets.counts.tolist(), int((~sets.packed.any(1)).sum())]
        assert sorted(map(int, counts)) == sorted(filter(None, expected))
        late = store.classes.index("late")
        rows = np.flatnonzero(sets.rows(np.arange(len(sets)))[:, late] == 1)
        assert total_of(page, f"/browse?split=val&class={late}") == len(rows)
        both = int(np.flatnonzero(sets.rows(np.arange(len(sets))).sum(1) == 3)[0])
        names = ", ".join(store.classes[one] for one in np.flatnonzero(sets.rows([both])[0]))
        assert names.count(",") == 2
        assert f"<th>class</th><td>{names}</td>" in page.text(f"/sample/val/{both}")
        assert f'<p class="quiet">{names}</p>' in page.text("/cells?split=val")
        wrong = int((found.predicted != found.labels)[found.labels >= 0].sum())
        assert total_of(page, mistakes_of(page, 0)) == wrong < len(sets)
        assert "confusion" not in page.text("/run/0").lower()
        assert page.text(f"/codebook?class={late}")
    usage = count_codes(Site(store))
    tokens, known = store["train"].tokens[:], store["train"].label_sets
    others, also = store["val"].tokens[:], sets
    expected = sum(
        np.bincount(ids[part.rows(np.arange(len(part)))[:, late] == 1].ravel(), minlength=16)
        for ids, part in ((tokens, known), (others, also))
    )
    assert usage.by_class[0, late].tolist() == expected.tolist()


def test_probabilities_are_those_of_the_network(tiny_run, pattern_store):
    found = read_predictions(Run.open(tiny_run))
    again = seit.evaluate(tiny_run, store=pattern_store, device="cpu")
    assert (found.likeliest.classes[:, 0] == found.predicted).all()
    np.testing.assert_allclose(found.likeliest.probabilities.sum(1), 1, atol=1e-5)
    np.testing.assert_allclose(-np.log(found.likeliest.of_labels).mean(), again.loss, atol=1e-5)
    selection = Selection(Catalog(pattern_store["val"]), found)
    rows = selection.rows(Query(split="val", sort="wrong", wrong=True))
    assert (found.predicted[rows] != found.labels[rows]).all()
    assert (np.diff(found.likeliest.of_labels[rows]) >= 0).all()


def test_damaged_probabilities_are_one_sentence(tiny_run, tmp_path):
    shutil.copytree(tiny_run, tmp_path / "run")
    path = tmp_path / "run" / "predictions.safetensors"
    tensors = load_file(path)
    tensors["likeliest_classes"] = tensors["likeliest_classes"] + 100
    save_file(tensors, path)
    with pytest.raises(DamagedError, match="invalid probabilities; expected 3 classes"):
        read_predictions(Run.open(tmp_path / "run"))
