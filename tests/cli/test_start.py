"""Start of commands: which of them import torch, and what is said where machine code is made."""

import json
import logging
import shutil
import subprocess
import sys

import numpy as np

from seit.shards.jit import compiled

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


def test_compiling_is_announced_once(caplog):
    def add_one(values):
        for index in range(len(values)):
            values[index] += 1

    add_one.__module__ = "seit.shards.test_start"
    values = np.zeros(3)
    with caplog.at_level(logging.INFO, "seit"):
        compiled(add_one)(values)
        compiled(add_one)(values.astype(np.float32))
    assert values.tolist() == [1, 1, 1]
    assert sum("compiling inner loops" in line for line in caplog.messages) <= 1
