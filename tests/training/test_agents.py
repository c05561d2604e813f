"""Training on several machines: two agents of torchrun, a rank of which is killed."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

import seit
from seit.training import Run

STEPS = 300
CONFIG = {
    "model": {
        "name": "vit_tiny_patch16_224",
        "stem": "2/2/0",
        "embed_dim": 16,
        "depth": 1,
        "num_heads": 1,
    },
    "data": {"batch_size": 16},
    "schedule": {"steps": STEPS, "warmup_steps": 2},
    "augment": {"crop_size": 6},
    "run": {"device": "cpu", "log_every": 20, "loggers": []},
}
OF_VERB = {
    "train": {"run.eval_every": 100},
    "continual": {"method": "er", "memory": 400, "increment": 1, "steps": 60},
}
DEADLINE = 180


@pytest.fixture
def store(tmp_path):
    random = np.random.default_rng(0)
    for split, count in (("train", 24), ("val", 8)):
        for name in ("ant", "bee"):
            folder = tmp_path / "pictures" / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                coarse = Image.fromarray(random.integers(0, 256, (4, 4, 3), dtype=np.uint8))
                coarse.resize((64, 64), Image.Resampling.BICUBIC).save(folder / f"{number}.png")
    seit.tokenize(tmp_path / "pictures", out=tmp_path / "store", size=64, codes=32)
    return tmp_path / "store"


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    return port


def workers(agent: subprocess.Popen[bytes]) -> list[int]:
    """Process ids of the ranks of an agent."""
    children = Path(f"/proc/{agent.pid}/task/{agent.pid}/children")
    return [int(pid) for pid in children.read_text().split()]


def wait_until(condition):
    end = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.02)


def losses(run):
    return {one["step"]: one["loss"] for one in run.metrics() if one["split"] == "train"}


def start_agents(verb, store, tmp_path):
    """Start two agents with a rank each, as two machines would."""
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1"),
        *("--rdzv-backend", "c10d", "--rdzv-endpoint", f"127.0.0.1:{free_port()}"),
        *("--rdzv-id", "run", "-m", "seit", verb, str(store)),
        *(f"--{name}={value}" for name, value in OF_VERB[verb].items()),
        *("--config", str(tmp_path / "config.yaml"), "--out", str(tmp_path / "run")),
        *("--resume", "auto", "--run.checkpoint_every", "20"),
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with (tmp_path / "log.txt").open("ab") as log:
        return [
            subprocess.Popen(command, env=environment, stdout=log, stderr=log) for _ in range(2)
        ]


def exit_codes(agents):
    """Wait for agents; none is left behind."""
    try:
        return [agent.wait(DEADLINE) for agent in agents]
    finally:
        for agent in agents:
            agent.kill()
            agent.wait()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("verb", OF_VERB)
def test_the_same_commands_continue_after_a_rank_was_killed(store, tmp_path, verb):
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    getattr(seit, verb)(store, out=tmp_path / "plain", config=CONFIG, **OF_VERB[verb])
    out = tmp_path / "run"
    agents = start_agents(verb, store, tmp_path)
    wait_until(lambda: len(list(out.glob("checkpoints/*"))) > 0)
    (victim,) = workers(agents[1])
    os.kill(victim, signal.SIGKILL)
    assert all(exit_codes(agents))
    assert Run.open(out).info["status"] == "started"
    assert exit_codes(start_agents(verb, store, tmp_path)) == [0, 0]
    run = Run.open(out)
    assert run.info["status"] == "finished"
    ours, theirs = losses(run), losses(Run.open(tmp_path / "plain"))
    assert ours.keys() == theirs.keys()
    assert np.allclose([*ours.values()], [*theirs.values()], rtol=1e-3)
