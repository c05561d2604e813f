"""Processes of tests: forked from one that has loaded torch, they start in no time."""

import multiprocessing
import os
import signal
import socket
import sys
import warnings
from contextlib import contextmanager

from seit.cli import main


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


@contextmanager
def running_command(arguments, folder):
    """Run `seit` in a process of its own, its output in files; killed at the end, if it lives."""
    folder.mkdir(parents=True, exist_ok=True)
    job = fork(_command, arguments, folder / "out", folder / "err")
    try:
        yield job
    finally:
        job.kill()
        job.join()


def _command(arguments, out, err):
    for number, path in ((1, out), (2, err)):
        with path.open("wb") as file:
            os.dup2(file.fileno(), number)
    sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
    try:
        main(arguments)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
