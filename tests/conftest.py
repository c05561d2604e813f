"""Fixtures of all tests: one thread per test, and small stores made once for all workers.

One thread is steady on shared machines, and quicker than two on tiny models.
"""

import gc
import os
import signal

os.environ.setdefault("OMP_NUM_THREADS", "1")
# Ray would start its workers by another `uv run`, in an environment without this one's groups.
os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")

import pytest
from filelock import FileLock

gc.disable()  # while tests are collected: imports make millions of objects, and little garbage


def pytest_collection_finish():
    """Exempt what the imports made from every later garbage collection."""
    gc.enable()
    gc.collect()
    gc.freeze()


def pytest_unconfigure():
    """Let them go again: what is left at the end of a process is complained about."""
    gc.unfreeze()


@pytest.fixture(scope="session", autouse=True)
def _no_flushing():
    """Let writes reach the disk when they will: no test cuts the power."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        yield


@pytest.fixture(scope="session", autouse=True)
def _interrupts():
    """Heed interrupts; a shell that starts the tests in the background has them ignored."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def made_once(tmp_path_factory):
    """Return a folder that the first worker to ask for it fills; read it, never write to it."""
    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent

    def folder_of(name, make):
        folder = root / f"shared-{name}"
        with FileLock(f"{folder}.lock"):
            if not folder.exists():
                folder.mkdir()
                make(folder)
        return folder

    return folder_of


@pytest.fixture(scope="session")
def pattern_folder(made_once):
    """`pictures` of three patterns, 12 a class to train and 5 to validate, and their `store`."""
    from support.pretraining import make_store

    return made_once("patterns", make_store)


@pytest.fixture(scope="session")
def pattern_store(pattern_folder):
    """A store of 8×8 grids and three classes."""
    import seit

    return seit.open(pattern_folder / "store")


@pytest.fixture(scope="session")
def tiny_run(made_once, pattern_store):
    """A run of two steps on `pattern_store`: a ViT of two blocks."""
    import seit

    settings = {
        "model": {"embed_dim": 16, "depth": 2, "num_heads": 2, "stem": "2/2/0"},
        "augment": {"crop_size": 8},
        "run": {"device": "cpu", "loggers": []},
    }

    def make(folder):
        seit.train(pattern_store, out=folder / "run", config=settings, steps=2, batch_size=12)

    return made_once("tiny", make) / "run"


@pytest.fixture(scope="session")
def learned(made_once, pattern_store):
    """Return the folder of a finished run of `seit train` on the three patterns."""
    from support.learned import learn

    return made_once("learned", lambda folder: learn(pattern_store, folder / "run")) / "run"


@pytest.fixture(scope="session")
def tinted_store(made_once):
    """A store of 8×8 grids and six classes, two tints of three patterns."""
    from support.continual import make_store

    import seit

    return seit.open(made_once("tints", make_store) / "store")


@pytest.fixture
def call(capsys):
    """Run `seit` with some arguments: its exit code, stdout and stderr.

    Flags that its messages advise are checked to be its own.
    """
    from support.commands import advice_of, foreign_flags

    from seit.cli import main

    def run(*arguments):
        capsys.readouterr()
        code = 0
        try:
            main([*map(str, arguments)])
        except SystemExit as left:
            code = left.code or 0
        out, err = capsys.readouterr()
        name, advice = advice_of([*map(str, arguments)], err)
        assert not foreign_flags(name, advice), advice
        return code, out, err

    return run
