"""The documentation: links lead somewhere, and the site builds and asks no other host."""

import os
import re
import subprocess
import sys
import tomllib
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from markdown.extensions.toc import slugify

ROOT = Path(__file__).parents[1]
PAGES = [
    *(ROOT / name for name in ("README.md", "CHANGELOG.md")),
    *(
        path
        for room in ("docs", "shards", "train", "tokenizers")
        for path in (ROOT / room).rglob("*.md")
    ),
]
LINK = re.compile(r"\]\(([^)\s]+)\)")
CODE = re.compile(r"^```.*?^```", re.M | re.S)


@cache
def anchors(page):
    """Anchors of the headings of a page, as on the site."""
    text = CODE.sub("", page.read_text())
    titles = re.findall(r"^#+ (.+)$", text, re.M)
    return {slugify(re.sub(r"\[([^]]*)\]\([^)]*\)|[`*]", r"\1", title), "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_to_files_and_headings(page):
    for link in LINK.findall(CODE.sub("", page.read_text())):
        parts = urlsplit(link)
        if parts.scheme:
            assert parts.scheme == "https", link
            continue
        target = (page.parent / parts.path).resolve() if parts.path else page
        assert target.exists(), link
        assert target.is_relative_to(ROOT), link
        if parts.fragment:
            assert parts.fragment in anchors(target), link


def test_readme_fits_a_screen_and_a_half_and_says_how_to_test():
    lines = (ROOT / "README.md").read_text().splitlines()
    assert len(lines) <= 90
    assert any(line.startswith("uv run --group dev pytest") for line in lines)


def test_the_faq_lists_every_extra():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    text = (ROOT / "docs" / "faq.md").read_text()
    listed = re.findall(r"`([\w-]+)`", text.partition("Extras: ")[2].partition(".\n")[0])
    assert set(listed) == set(extras)


def test_dockerfile_takes_the_wheel_and_known_extras():
    text = (ROOT / "Dockerfile").read_text()
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    (named,) = re.findall(r"^ARG EXTRAS=(\S+)$", text, re.M)
    assert set(named.split(",")) <= extras.keys()
    (copied,) = re.findall(r"^COPY (\S+) ", text, re.M)
    assert (ROOT / ".dockerignore").read_text().split("\n")[1:3] == ["*", f"!{copied}"]


class Links(HTMLParser):
    """Links, loaded files and anchors of a page."""

    def __init__(self, text):
        super().__init__()
        self.links, self.loads, self.anchors = [], [], set()
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.anchors |= {values.get("id"), values.get("name")}
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        elif tag == "link" and values.get("rel") not in ("canonical", "prev", "next"):
            self.loads.append(values["href"])
        elif "src" in values:
            self.loads.append(values["src"])


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The built site, by the path of each page."""
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", folder],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return {path: Links(path.read_text()) for path in folder.rglob("*.html")}


@pytest.mark.slow
def test_the_site_is_whole_and_asks_no_other_host(site):
    home = min(site, key=lambda path: len(path.parts))
    assert (home.parent / "search" / "search_index.json").stat().st_size > 100_000
    for page, found in site.items():
        for target in found.loads:
            assert target.startswith("data:") or not urlsplit(target).netloc, (page, target)
        for link in (*found.links, *found.loads):
            parts = urlsplit(link)
            if parts.scheme or page.name == "404.html":
                continue
            target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
            target = target / "index.html" if target.is_dir() else target
            assert target.exists(), (page, link)
            if parts.fragment and target.suffix == ".html":
                assert unquote(parts.fragment) in site[target].anchors, (page, link)


@pytest.mark.slow
def test_the_site_has_every_command_recipe_and_verb(site):
    import seit
    from seit.cli.app import COMMANDS
    from seit.recipes import list_recipes

    home = min(site, key=lambda path: len(path.parts)).parent
    assert {path.parent.name for path in site if path.parents[1].name == "commands"} >= set(
        COMMANDS
    )
    recipes = site[home / "recipes" / "index.html"].anchors
    assert {recipe.name for recipe in list_recipes()} <= recipes
    reference = site[home / "reference" / "index.html"]
    names = {anchor.rpartition(".")[2] for anchor in reference.anchors if anchor}
    assert {"open_store" if name == "open" else name for name in seit.__all__} <= names
