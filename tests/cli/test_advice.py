"""Advice in messages: the flags that it names are flags of the command that it is for."""

import ast
from pathlib import Path

import pytest
from support.commands import foreign_flags

import seit

OF_OTHERS = {"--nproc-per-node", "--sparse"}
"""Flags of torchrun and tar."""


def texts_of(path):
    """The texts of a module without its docstrings; values in them are X."""
    tree = ast.parse(path.read_text())
    parts = [node for node in ast.walk(tree) if isinstance(node, ast.JoinedStr | ast.Expr)]
    inner = {id(one) for node in parts for one in ast.walk(node) if one is not node}
    inner -= {id(one) for one in parts if isinstance(one, ast.JoinedStr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield "".join(
                one.value if isinstance(one, ast.Constant) else "X" for one in node.values
            )
        elif isinstance(node, ast.Constant) and id(node) not in inner:
            yield str(node.value)


def test_flags_in_messages_are_flags_of_the_command_that_is_named():
    root = Path(seit.__file__).parent
    files = [path for path in root.rglob("*.py") if path.parent.name not in ("cli", "report")]
    assert len(files) > 300
    wrong = {
        (path.relative_to(root).as_posix(), flag)
        for path in files
        for text in texts_of(path)
        if "--" in text
        for flag in foreign_flags(None, text) - OF_OTHERS
    }
    assert not wrong


@pytest.mark.parametrize(
    ("command", "text", "wrong"),
    [
        ("eval", "name it by --pixels SRC", set()),
        ("eval", "tokenize with --tokenizer FILE", {"--tokenizer"}),
        ("eval", "run `seit tokenize --tokenizer FILE`", set()),
        ("eval", "run `seit tokenizer fit --tokenizr FILE`", {"--tokenizr"}),
        ("quickstart", "set --run.precision bf16", {"--run.precision"}),
        ("train", "set --run.precision bf16", set()),
    ],
)
def test_foreign_flags_are_found(command, text, wrong):
    assert foreign_flags(command, text) == wrong
