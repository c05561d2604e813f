"""Completion in shells: the installed scripts complete commands, flags, choices and recipes."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from seit.cli.app import COMMANDS
from seit.cli.completion import install

BASH = """
source "$1"; shift
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
_seit
printf '%s\\n' "${COMPREPLY[@]}"
"""
ZSH = """
import os, sys
import pexpect
shell = pexpect.spawn("zsh", ["-f", "-i"], timeout=30, env={**os.environ, "TERM": "dumb"})
shell.sendline("source ~/.zshrc; autoload -Uz compinit; compinit -u; PS1=READY")
shell.expect("READY.*READY")
shell.send(sys.argv[1] + "\\t")
shell.expect(sys.argv[2])
shell.close(force=True)
"""


def need(shell):
    if shutil.which(shell) is None:
        pytest.skip(f"needs {shell}")


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A home folder, and this environment's `seit` in front of others."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=":")
    for name in ("ZSH", "ZSH_CUSTOM", "BASH_VERSION", "ZSH_VERSION"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def ran(*arguments):
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_bash_completes_commands_flags_and_choices(home):
    need("bash")
    install("bash")
    (script,) = home.glob(".local/share/bash-completion/completions/seit")
    assert str(script) in (home / ".bashrc").read_text()

    def candidates(*words):
        return set(ran("bash", "-c", BASH, "bash", str(script), "seit", *words).split())

    assert candidates("") == set(COMMANDS)
    assert candidates("tok") == {"tokenize", "tokenizer"}
    assert candidates("recipes", "") == {"list", "show", "copy"}
    assert {"--out", "--recipe", "--resume"} <= candidates("train", "store", "--")
    assert candidates("convert", "a", "b", "--container", "") >= {"wds", "zarr"}
    assert candidates("train", "store", "--recipe", "seit-vit") == {
        "seit-vit-base",
        "seit-vit-small",
    }
    before = (home / ".bashrc").read_text()
    install("bash")
    assert (home / ".bashrc").read_text() == before, "installing again adds nothing"


@pytest.mark.slow
def test_fish_completes(home):
    need("fish")
    install("fish")
    assert "tokenize\t" in ran("fish", "-c", "complete -C 'seit tok'")
    assert "--recipe" in ran("fish", "-c", "complete -C 'seit train --rec'")
    assert "seit-vit-base" in ran("fish", "-c", "complete -C 'seit recipes show seit-v'")


@pytest.mark.slow
def test_zsh_completes(home):
    need("zsh")
    install("zsh")
    ran(sys.executable, "-c", ZSH, "seit quicks", "seit quickstart")
    ran(sys.executable, "-c", ZSH, "seit train x --rec", "seit train x --recipe")


@pytest.mark.parametrize("shell", [None, "tcsh"])
def test_other_shells_are_refused(call, monkeypatch, shell):
    monkeypatch.setattr("cyclopts.completion.detect.detect_shell", lambda: "powershell")
    code, out, err = call("--show-completion", *filter(None, [shell]))
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert "zsh" in err
