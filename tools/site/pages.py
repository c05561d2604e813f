"""Hooks of MkDocs: pages that are generated from the code, and a navigation that follows the files.

    uv run --group docs mkdocs build --strict

Commands come from the parser of the command line, recipes from `train/`, the Python reference from
the faces of the rooms, the home page from README.md. Nothing of it is written to disk.
"""

import ast
import json
import os
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any

from cyclopts.docs.markdown import generate_markdown_docs
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from seit.cli.app import COMMANDS, make_app
from seit.recipes import list_recipes

ROOT = Path(__file__).parents[2]
EMBEDDED = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "shards/FORMAT.md": "format.md",
}
"""Pages of the site that lie outside docs/, by their path in the repository."""

ROOMS = ("shards", "stores", "stream", "augment", "tokenizers", "models", "ingest", "training")
"""Rooms whose faces are documented; `seit.ROOM` imports each on first use."""

LINK = re.compile(r"\[([^\]]*)\]\(([^)\s#]+)(#[^)\s]*)?\)")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Drop entries of the navigation whose page is not there yet, and add pages that it lacks."""
    generated = dict(generated_pages())
    pages = {path.name for path in Path(config.docs_dir).glob("*.md")} | generated.keys()
    config.nav = list(known(config.nav, pages, set(generated)))
    listed = set(targets(config.nav))
    if more := sorted(pages - listed):
        config.nav.append({"More": more})
    return config


def known(entries: list[Any], pages: set[str], generated: set[str]) -> Iterator[Any]:
    """Yield the entries of a navigation with a page; `FOLDER/` becomes all of its pages."""
    for entry in entries:
        ((title, target),) = entry.items()
        if isinstance(target, list):
            yield {title: list(known(target, pages, generated))}
        elif target.endswith("/"):
            yield {title: sorted(path for path in generated if path.startswith(target))}
        elif target in pages:
            yield entry


def targets(entries: list[Any]) -> Iterator[str]:
    """Yield the paths of a navigation."""
    for entry in entries:
        if isinstance(entry, str):
            yield entry
        else:
            for target in entry.values():
                yield from targets(target) if isinstance(target, list) else [target]


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add the generated pages."""
    for path, text in generated_pages():
        files.append(File.generated(config, path, content=text))
    return files


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Point links between files of the repository to the pages of the site."""
    return relinked(markdown, PurePosixPath("docs") / page.file.src_uri)


@cache
def generated_pages() -> tuple[tuple[str, str], ...]:
    """Return path and text of every page that is not a file of docs/."""
    return tuple(_generated_pages())


def _generated_pages() -> Iterator[tuple[str, str]]:
    for source, path in EMBEDDED.items():
        yield path, relinked((ROOT / source).read_text(), PurePosixPath(source))
    yield "recipes.md", recipes_page()
    yield "examples.md", examples_page()
    yield "commands/index.md", commands_page()
    for name in COMMANDS:
        yield f"commands/{name}.md", command_page(name)
    yield "reference/index.md", verbs_page()
    for room in ROOMS:
        yield f"reference/{room}.md", room_page(room)


def relinked(text: str, source: PurePosixPath) -> str:
    """Point links to pages of the site, and drop those of embedded pages to other files.

    Args:
        text: Markdown.
        source: path of its file in the repository.
    """

    def replace(found: re.Match[str]) -> str:
        label, target, anchor = found.group(1), found.group(2), found.group(3) or ""
        path = os.path.normpath(source.parent / target)
        if "://" in target:
            return found.group(0)
        if path == "docs/examples":
            page = "examples.md"
        elif path in EMBEDDED:
            page = EMBEDDED[path]
        elif str(source) not in EMBEDDED:
            return found.group(0)
        elif path.startswith("docs/"):
            page = path.removeprefix("docs/")
        else:
            return label
        return f"[{label}]({page}{anchor})"

    return LINK.sub(replace, text)


# ------------------------------------------------------------------------------ the command line


def commands_page() -> str:
    """Return the table of all commands."""
    rows = [f"| [`seit {name}`]({name}.md) | {text} |" for name, text in COMMANDS.items()]
    return "\n".join(
        [
            "# Commands",
            "",
            "These pages are what `seit COMMAND --help` prints. Every command takes `--json`: one "
            "object on stdout. Exit codes: 0 success, 1 failed or damaged, 2 wrong usage or input, "
            "130 interrupted.",
            "",
            "| command | what it does |",
            "|---|---|",
            *rows,
            "",
            "Complete commands, flags and recipes by TAB, in bash, zsh or fish:",
            "",
            "```sh",
            "seit --install-completion",
            "```",
            "",
        ]
    )


def command_page(name: str) -> str:
    """Return the help of a command and its subcommands, as the parser has it."""
    text = generate_markdown_docs(
        make_app(name), commands_filter=[name], generate_toc=False, heading_level=1
    )
    lines = (re.sub(r"^ {4,}", "  ", line) for line in text.splitlines())
    return "\n".join([f"# seit {name}", "", *lines, ""])


# --------------------------------------------------------------------------------------- recipes


def recipes_page() -> str:
    """Return the table of recipes, and the text of each."""
    rows, texts = [], []
    for recipe in list_recipes():
        summary, _, command = recipe.summary.partition(": seit ")
        rows.append(
            f"| [`{recipe.name}`](#{recipe.name}) | {summary} | {recipe.modality or 'any'} "
            f"| `seit {command.split()[0]}` |"
        )
        texts += [f"## {recipe.name}", "", "```yaml", recipe.path.read_text().rstrip(), "```", ""]
    return "\n".join(
        [
            "# Recipes",
            "",
            "A recipe is a YAML file that fully describes a run. Every setting is also a flag: "
            "`--optim.lr 1e-3`. `seit recipes copy NAME` writes one to change.",
            "",
            "| recipe | what for | data | command |",
            "|---|---|---|---|",
            *rows,
            "",
            *texts,
        ]
    )


# ---------------------------------------------------------------------------------------- Python


def examples_page() -> str:
    """Return the example programs, with their code."""
    lines = ["# Examples", "", "Whole programs and a notebook; the tests run each of them.", ""]
    for path in sorted((ROOT / "docs" / "examples").glob("*.py")):
        title = path.stem.replace("_", " ")
        lines += [f"## {title}", "", f"`{path.relative_to(ROOT)}`", ""]
        lines += ["```python", path.read_text().rstrip(), "```", ""]
    for path in sorted((ROOT / "docs" / "examples").glob("*.ipynb")):
        lines += [*notebook_lines(path), ""]
    return "\n".join(lines)


def notebook_lines(path: Path) -> Iterator[str]:
    """Yield the cells of a notebook as Markdown, one level of headings deeper."""
    for number, cell in enumerate(json.loads(path.read_text())["cells"]):
        text = "".join(cell["source"])
        if cell["cell_type"] == "code":
            yield from ("```python", text, "```", "")
        else:
            yield from (re.sub(r"^#", "##", text, flags=re.M), "")
        if number == 0:
            yield from (f"`{path.relative_to(ROOT)}`", "")


def verbs_page() -> str:
    """Return the reference of the verbs of `seit`."""
    lines = ["# seit", "", "What `import seit` offers; [the overview](../api.md) has examples.", ""]
    for name, module, original in sorted(documented(ROOT / "seit" / "__init__.py")):
        lines += directive(f"{module}.{original}", f"seit.{name}")
    return "\n".join(lines)


def room_page(room: str) -> str:
    """Return the reference of the public classes and functions of a room."""
    face = ROOT / "seit" / room / "__init__.py"
    stub = face.with_suffix(".pyi")
    lines = [f"# seit.{room}", "", ast.get_docstring(ast.parse(face.read_text())) or "", ""]
    for name, module, original in sorted(documented(stub if stub.is_file() else face)):
        lines += directive(f"{module}.{original}", f"seit.{room}.{name}")
    return "\n".join(lines)


def documented(face: Path) -> Iterator[tuple[str, str, str]]:
    """Yield name, module and name there of the documented classes and functions of a face.

    Faces are read, not imported: that would load torch.
    """
    package = face.relative_to(ROOT).parent.as_posix().replace("/", ".")
    for node in ast.walk(ast.parse(face.read_text())):
        if not isinstance(node, ast.ImportFrom) or not node.module:
            continue
        module = f"{package}.{node.module}" if node.level else node.module
        for alias in node.names if module.startswith("seit.") else ():
            home = definition(module, alias.name)
            if home is not None:
                yield alias.asname or alias.name, home, alias.name


def definition(module: str, name: str) -> str | None:
    """Return the module that defines a documented class or function; None for anything else."""
    place = ROOT / module.replace(".", "/")
    path = place.with_suffix(".py")
    if not path.is_file():
        faces = (place / "__init__.pyi", place / "__init__.py")
        exported = {
            entry[0]: entry[1] for face in faces if face.is_file() for entry in documented(face)
        }
        return exported.get(name)
    found = [
        node
        for node in tree(path).body
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == name
    ]
    return module if any(map(ast.get_docstring, found)) else None  # overloads have none


@cache
def tree(path: Path) -> ast.Module:
    """Return the syntax tree of a file."""
    return ast.parse(path.read_text())


def directive(identifier: str, heading: str) -> list[str]:
    """Return the lines by which mkdocstrings documents an object under another name."""
    return [
        f"::: {identifier}",
        "    options:",
        f"      heading: {heading}",
        f"      toc_label: {heading.rpartition('.')[2]}",
        "",
    ]
