"""Rules of English that a machine can check: line length, spelling, openings of docstrings."""

import ast
import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
TEXTS = (
    *PAGES,
    ROOT / "CHANGELOG.md",
    *sorted((ROOT / "shards").rglob("*.md")),
    *sorted((ROOT / "train").glob("*.*")),
    ROOT / "tokenizers" / "README.md",
)
SCRIPTS = sorted((ROOT / "tools").rglob("*.py"))
ROOMS = sorted(
    path.stem
    for path in (ROOT / "seit").iterdir()
    if path.name != "py.typed" and path.stem[0] != "_"
)
BRITISH = re.compile(
    r"colour|behaviour|favour|neighbour|(?<!per)\bcentre|licence|labelled|modelling|grey\b"
    r"|(?:amort|author|initial|neutral|normal|optim|quant|recogn|regular|serial|standard|summar"
    r"|util|vector)is(?:e|ing|ation|er)",
    re.IGNORECASE,
)
OPENINGS = ("Of", "That", "Those", "Whose", "Who", "What", "Whether")
TRANSLATED = re.compile(
    r"\bwhat was written|\bare no such|\bany more\b|\banew\b|too (?:much|many) to be true"
    r"|\bgo(?:es)? on (?:with|from|by)\b|\bstands? where\b|\ball the same\b"
    r"|\b(?:newer|later) seit\b|\bhad from\b"
    r"|\b(?:is|are) no (?:plain|intact|regular|date|multiple|option|record|corpus|manifest)\b"
)
#: Words of formats on disk: entries of cards, a setting of runs, and names of golden variants.
KEPT = {
    ("seit/tokenizers/shipped.py", "licence"),
    ("tools/make_tokenizer_card.py", "licence"),
    ("tools/golden/blocks.py", "colour"),
    ("tools/golden/damage.py", "colour"),
    ("tools/golden/groups.py", "neighbour"),
    ("seit/pretraining/probes.py", "neighbour"),
    ("seit/tokenizers/base.py", "centre"),
    ("seit/tokenizers/published/base.py", "centre"),
    ("seit/tokenizers/published/magvit2.py", "centre"),
    ("seit/tokenizers/published/vqgan.py", "centre"),
}


@lru_cache(1)
def nodes(path: Path) -> list[ast.AST]:
    return [*ast.walk(ast.parse(path.read_text()))]


def strings(path: Path) -> Iterator[str]:
    """Yield every string of a file: docstrings, help and messages."""
    for node in nodes(path):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def docstrings(path: Path) -> Iterator[str]:
    for node in nodes(path):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield ast.get_docstring(node) or ""


def faults(path: Path) -> list[str]:
    """Return words to avoid in the strings of a file, and docstrings with a wrong opening."""
    name = str(path.relative_to(ROOT))
    words = [word for text in strings(path) for word in BRITISH.findall(text)]
    words += [word for text in strings(path) for word in TRANSLATED.findall(text)]
    lines = [text.partition("\n")[0] for text in docstrings(path)]
    return [
        *(word for word in words if (name, word.lower()) not in KEPT),
        *(line for line in lines if line.partition(" ")[0] in OPENINGS),
    ]


def faults_of(room: str) -> list[str]:
    place = ROOT / "seit" / room
    paths = sorted(place.rglob("*.py")) if place.is_dir() else [place.with_suffix(".py")]
    return [f"{path.name}: {fault}" for path in paths for fault in faults(path)]


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_lines_of_pages_are_short(page):
    for line in page.read_text().splitlines():
        link = line.startswith("|") or re.fullmatch(r"[-* ]*!?\[[^]]*\]\([^)]*\)\.?", line)
        assert link or len(line) <= 120, line


@pytest.mark.parametrize("text", TEXTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_texts_are_american(text):
    assert BRITISH.findall(text.read_text()) == []


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_tools_are_in_plain_english(script):
    assert faults(script) == []


@pytest.mark.parametrize("room", ROOMS)
def test_rooms_are_in_plain_english(room):
    assert faults_of(room) == []
