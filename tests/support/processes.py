"""Processes of tests: forked from one that has loaded torch, they start in no time."""

import multiprocessing
import os
import signal
import socket
import sys
import warnings
from contextlib import contextmanager

import pytest

from seit.cli import main

_DIED = 9


def fork(target, *arguments, **environment):
    """Start a process that calls ``target`` with these environment variables as well.

    It is one of its own to everybody outside: killed, interrupted, a rank of a run.
    """

    def call():
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.environ.update(environment)
        target(*arguments)

    process = multiprocessing.get_context("fork").Process(target=call)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # forking beside threads is meant
        process.start()
    return process


def fork_ranks(target, *arguments, ranks):
    """Start the processes of a run, as torchrun would."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(ranks)}
    return [
        fork(target, *arguments, RANK=str(rank), LOCAL_RANK=str(rank), **shared)
        for rank in range(ranks)
    ]


def exit_codes(processes):
    """Wait for processes: the exit code of each, negative for a signal that killed it."""
    for process in processes:
        process.join(300)
    return [process.exitcode for process in processes]


def audited(target, *, events, dies_before=None):
    """Run a process that may die, as `kill -9` has it, before one of its audited events.

    Opening a file counts where it may create one. Returns how many of the ``events`` the process
    lived to see, and whether it died.
    """
    seen = multiprocessing.get_context("fork").Value("q", 0)

    def hook(event, arguments):
        if event in events and (event != "open" or arguments[2] & os.O_CREAT):
            if seen.value == dies_before:
                os._exit(_DIED)
            seen.value += 1

    def call():
        sys.addaudithook(hook)
        target()
        os._exit(0)

    (code,) = exit_codes([fork(call)])
    assert code in (0, _DIED)
    return seen.value, code == _DIED


def fork_recorded(target, *arguments, folder):
    """Start a process whose output goes to the files `out` and `err` of a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    return fork(_record, target, arguments, folder)


def _record(target, arguments, folder):
    for number, name in ((1, "out"), (2, "err")):
        with (folder / name).open("wb") as file:
            os.dup2(file.fileno(), number)
    sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
    try:
        target(*arguments)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()


class ForkedProcess:
    """Stand-in for `Popen` of a module with pipes for text: forked instead of started."""

    def __init__(self, target):
        (theirs_in, ours_in), (ours_out, theirs_out) = os.pipe(), os.pipe()
        self._process = fork(_talk, target, theirs_in, theirs_out, (ours_in, ours_out))
        os.close(theirs_in)
        os.close(theirs_out)
        self.stdin, self.stdout = os.fdopen(ours_in, "w"), os.fdopen(ours_out)

    def kill(self):
        self._process.kill()

    def wait(self):
        self._process.join()
        return self._process.exitcode


@contextmanager
def forked_measurement():
    """Fork the process that measures a network; started, it would import torch for seconds."""
    from seit.compression.footprint import child, measure

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measure, "_start", lambda threads, errors: ForkedProcess(child.main))
        yield


def _talk(target, stdin, stdout, others):
    for number in others:
        os.close(number)
    os.dup2(stdin, 0)
    os.dup2(stdout, 1)
    sys.stdin = os.fdopen(0)
    target()


@contextmanager
def running_command(arguments, folder):
    """Run `seit` in a process of its own, its output in files; killed at the end, if it lives."""
    job = fork_recorded(main, arguments, folder=folder)
    try:
        yield job
    finally:
        job.kill()
        job.join()
