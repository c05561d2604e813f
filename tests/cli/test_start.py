"""Start of commands: which of them import torch, and what is said where machine code is made."""

import json
import logging
import shutil
import subprocess
import sys

from numba import njit
from numba.core import event

from seit.shards.jit import Announcer

RUN_ALL = """
import json, sys
from seit.cli.app import run
for command in json.loads(sys.argv[1]):
    try:
        run(command)
    except SystemExit as end:
        assert not end.code, command
    print(sorted({"torch", "timm", "transformers"} & set(sys.modules)), command[0], file=sys.stderr)
"""


def test_commands_on_stores_and_records_of_runs_do_not_import_torch(
    pattern_store, tiny_run, tmp_path
):
    store, run = str(pattern_store.folder), str(tiny_run)
    commands = [
        ["--help"],
        ["info", store],
        ["verify", store],
        ["convert", store, str(tmp_path / "zarr"), "--container", "zarr"],
        ["filter", store, str(tmp_path / "half"), "--fraction", "0.5"],
        ["tokenizer", "list"],
        ["runs", "list", run],
        ["runs", "compare", run, str(shutil.copytree(tiny_run, tmp_path / "again"))],
    ]
    done = subprocess.run(
        [sys.executable, "-c", RUN_ALL, json.dumps(commands)],
        capture_output=True,
        text=True,
        check=True,
    )
    said = [line for line in done.stderr.splitlines() if line.startswith("[")]
    assert said == [f"[] {command[0]}" for command in commands]


def test_only_compiling_inner_loops_of_seit_is_announced_and_only_once(caplog):
    def of_others(values):
        return values + 1

    def own(values):
        return values + 2

    own.__module__ = "seit.shards"
    listener = Announcer()
    with caplog.at_level(logging.INFO, "seit"), event.install_listener("numba:compile", listener):
        assert njit(of_others)(1) == 2
        assert not [line for line in caplog.messages if "compiling inner loops" in line]
        assert njit(own)(1) == 3
        assert njit(own)(1.5) == 3.5
    assert listener.has_spoken
    assert any("compiling inner loops" in line for line in caplog.messages)
