"""`seit view` in a real browser: what a person does there, and what hostile names may not do."""

import re
import wave

import numpy as np
import pytest
from support.browser import Watched, open_chromium
from support.stores import build_store

import seit
from seit.stores import read_keys

HOSTILE = "<img src=x onerror=alert(1)><script>alert(2)</script>"
SAMPLES = 400


@pytest.fixture(scope="module")
def chromium():
    with open_chromium() as browser:
        yield browser


@pytest.fixture
def visit(chromium):
    """Open pages of a server in a fresh browser profile; they have to stay quiet."""
    opened = []

    def start(url):
        context = chromium.new_context(viewport={"width": 1000, "height": 700})
        watched = Watched(context.new_page(), url.rstrip("/"))
        opened.append((context, watched))
        return watched

    yield start
    for context, watched in opened:
        watched.assert_quiet()
        context.close()


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """A store whose classes, keys and metadata try to run scripts."""
    path = tmp_path_factory.mktemp("hostile") / 'st"ore<b>'
    build_store(
        path,
        shards={"train": (SAMPLES,), "val": (5,)},
        classes=(HOSTILE, '"><script>alert(3)</script>', "cat"),
        key_of=lambda split, n: f"{split}/{n:03}/{HOSTILE}' onload='alert(4)",
        with_metadata=True,
    )
    with seit.view(path, port=0, open_browser=False) as view:
        yield path, view.url


def test_scrolling_searching_and_hostile_names(visit, hostile):
    _, url = hostile
    watched = visit(url)
    page = watched.open("/browse?split=train")
    page.wait_for_selector(".class-bars")
    assert page.locator("#total").inner_text() == "400"
    assert page.locator(".cell .name bdi").first.inner_text().startswith(f"train/000/{HOSTILE}")
    assert page.locator(".class-bars span", has_text="onerror").count() == 1
    page.wait_for_function("document.querySelector('.cell img').naturalWidth > 0")
    for _ in range(20):  # the last page is there once one scrolled past all others
        page.mouse.wheel(0, 4000)
        page.wait_for_timeout(30)
        if page.locator(".cell .name", has_text="train/399/").count():
            break
    else:
        page.wait_for_selector("text=train/399/")
    assert "start=" in page.url
    assert page.locator(".cell").count() < SAMPLES  # pages out of sight give their cells back
    page.fill("input[name=q]", "TRAIN/123/")
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile("q=TRAIN"))
    assert page.locator("#total").inner_text() == "1"
    page.click(".cell .frame")
    page.wait_for_url(re.compile("/sample/train/123"))
    assert HOSTILE in page.locator("h1").inner_text()
    page.hover(".tokens button >> nth=5")
    assert page.locator("#token-about span").inner_text().startswith("id ")


def test_ticked_keys_are_a_file_that_filter_takes(visit, hostile, tmp_path):
    path, url = hostile
    watched = visit(url)
    page = watched.open("/browse?split=train")
    page.check(".tick >> nth=2")
    page.check(".tick >> nth=4")
    page.click(".act summary")
    assert page.locator("#ticked").inner_text() == "(2 ticked)"
    assert f"seit delete '{path}' --keys keys.txt" in page.locator(".act").inner_text()
    with page.expect_download() as caught:
        page.click("#download")
    caught.value.save_as(tmp_path / "keys.txt")
    keys = read_keys(tmp_path / "keys.txt")
    assert [key[:9] for key in keys] == ["train/002", "train/004"]
    result = seit.filter(path, out=tmp_path / "some", split="train", keys=keys)
    assert result.samples == 2


def test_the_confusion_matrix_leads_to_its_samples(visit, tiny_run, pattern_store):
    with seit.view(tiny_run, store=pattern_store, port=0, open_browser=False) as view:
        watched = visit(view.url)
        page = watched.open("/run/0")
        page.wait_for_selector(".line-chart")
        cell = page.locator(".matrix a").first
        address = cell.get_attribute("href") or cell.get_attribute("xlink:href")
        cell.click()
        page.wait_for_url(re.compile(r"/browse\?.*predicted="))
        assert page.url.endswith(address.replace("&amp;", "&"))
        assert page.locator(".cell").count() == int(page.locator("#total").inner_text())
        page = watched.open("/browse?split=val&sort=wrong")
        assert "its own class" in page.locator(".note").first.inner_text()
        page.click(".cell .frame")
        page.wait_for_selector(".probabilities li")
        shares = page.locator(".probabilities b").all_inner_texts()
        assert abs(sum(float(share.rstrip("%")) for share in shares) - 100) < 1


def test_a_sound_plays(visit, tmp_path):
    time = np.arange(16_000) / 16_000
    for name, pitch in (("low", 220), ("high", 880)):
        (tmp_path / "sounds" / name).mkdir(parents=True)
        with wave.open(str(tmp_path / "sounds" / name / "a.wav"), "wb") as file:
            file.setparams((1, 2, 16_000, 0, "NONE", ""))
            file.writeframes((8000 * np.sin(2 * np.pi * pitch * time)).astype("<i2").tobytes())
    seit.tokenize(tmp_path / "sounds", out=tmp_path / "store", tokenizer="mel-vq-1s", device="cpu")
    with seit.view(tmp_path / "store", port=0, open_browser=False) as view:
        page = visit(view.url).open("/browse?split=train")
        page.evaluate("document.querySelector('audio').muted = true")
        seconds = page.evaluate(
            """async () => {
              const sound = document.querySelector("audio");
              await sound.play();
              await new Promise((done) => sound.addEventListener("timeupdate", done));
              return [sound.duration, sound.currentTime];
            }"""
        )
        assert seconds[0] == pytest.approx(1.0, abs=0.1)
        assert seconds[1] > 0


def test_sliders_draw_an_augmented_sample(visit, pattern_store):
    with seit.view(pattern_store, port=0, open_browser=False) as view:
        page = visit(view.url).open("/sample/train/0")
        with page.expect_response(re.compile(r"/augmented/.*noise_prob=1\b")) as answer:
            page.locator("input[name=noise_prob]").fill("1")
        assert answer.value.status == 200
        page.wait_for_function("document.getElementById('tried').src.includes('noise_prob=1')")


def test_a_static_page_opens_from_a_folder(visit, hostile, tmp_path):
    path, _ = hostile
    seit.view(path, export=tmp_path / "page", thumbnails=30)
    watched = visit(f"file://{tmp_path}/page")
    page = watched.open("/index.html")
    tile = page.locator(".tiles i").first
    assert HOSTILE in tile.get_attribute("aria-label")
    assert tile.evaluate("one => getComputedStyle(one).backgroundImage").startswith('url("file:')
    assert tile.bounding_box()["height"] > 50
    color = page.locator("nav.top").evaluate("one => getComputedStyle(one).display")
    assert color == "flex"  # its style sheet is allowed
    page.click("text=codebook")
    assert page.locator(".tiles span").count() == 16


def test_dark_and_phone_wide(chromium, hostile):
    _, url = hostile
    context = chromium.new_context(viewport={"width": 375, "height": 700}, color_scheme="dark")
    watched = Watched(context.new_page(), url.rstrip("/"))
    page = watched.open("/browse?split=val")
    assert page.evaluate("document.documentElement.scrollWidth") <= 375
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert sum(map(int, re.findall(r"\d+", ground))) < 150
    assert page.locator("img:not([alt])").count() == 0
    watched.assert_quiet()
    context.close()


@pytest.mark.slow
def test_a_million_samples_scroll(visit, tmp_path):
    path = tmp_path / "million"
    build_store(path, shards={"train": (250_000,) * 4}, key_of="{}/{:07}.jpg".format)
    with seit.view(path, port=0, open_browser=False) as view:
        page = visit(view.url).open("/browse?split=train&start=999960")
        page.wait_for_selector("text=train/0999999.jpg")
        page.fill("input[name=q]", "/0500000.")
        page.keyboard.press("Enter")
        page.wait_for_selector("text=train/0500000.jpg")
        assert page.locator("#total").inner_text() == "1"
