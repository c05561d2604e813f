"""Help of the scripts in tools/."""

import ast
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "tools" / "study"))
import arms

TOOLS = Path(arms.__file__).parents[1]
DESCRIBED = sorted(
    str(path.relative_to(TOOLS))
    for path in TOOLS.rglob("*.py")
    if "description=__doc__" in path.read_text().replace("description=__doc__.", "")
)


def test_help_shows_each_command_on_a_line(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["arms.py", "--help"])
    with pytest.raises(SystemExit):
        arms.main()
    lines = capsys.readouterr().out.splitlines()
    commands = [line for line in lines if "tokens_pixels.yaml" in line]
    assert len(commands) == 3
    assert all(line.startswith("    uv run python tools/study/arms.py") for line in commands)
    assert '        --arms "patch tokens" "strong pixels"' in lines


@pytest.mark.parametrize("name", DESCRIBED)
def test_descriptions_keep_their_lines(name):
    text = (TOOLS / name).read_text()
    assert "RawDescriptionHelpFormatter" in text
    assert max(map(len, (ast.get_docstring(ast.parse(text)) or "").splitlines())) <= 100
