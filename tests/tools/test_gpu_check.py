"""The call of everything that wants a GPU, in its small form."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))
import gpu_check

ROOT = gpu_check.ROOT


def of_python(code):
    return [sys.executable, "-S", "-c", code]


def test_figures_before_a_cut_count():
    code = "import time; print('{\"a\": 1}', flush=True); time.sleep(60)"
    started = time.monotonic()
    lines = gpu_check.run(of_python(code), seconds=1, log=subprocess.DEVNULL)
    found = list(gpu_check.entries("steps", lines))
    assert found == [{"part": "steps", "a": 1}, {"part": "steps", "exit_code": -9}]
    assert time.monotonic() - started < 30


def test_other_lines_become_a_summary():
    code = "print('begun'); print('3 passed in 1 s'); raise SystemExit(2)"
    lines = gpu_check.run(of_python(code), seconds=30, log=subprocess.DEVNULL)
    (found,) = gpu_check.entries("tests", lines)
    assert found == {"part": "tests", "exit_code": 2, "summary": "3 passed in 1 s"}


@pytest.mark.slow
def test_the_small_form_runs_on_a_cpu(tmp_path):
    out = tmp_path / "lines.json"
    command = [sys.executable, "tools/gpu_check.py", "--small", "--work", str(tmp_path / "work")]
    subprocess.run([*command, "--out", str(out)], cwd=ROOT, check=True, timeout=600)
    found = [json.loads(line) for line in out.read_text().splitlines()]
    steps = [one for one in found if one["part"] == "steps" and "compiled" in one]
    assert [one["compiled"] for one in steps] == [None, "blocks"]
    assert all(one["images_per_second"] > 0 and one["gflops_per_image"] > 0 for one in steps)
    ended = {one["part"]: one["exit_code"] for one in found if "exit_code" in one}
    assert ended == {"steps": 0, "pixels": 0, "encode": 0}
