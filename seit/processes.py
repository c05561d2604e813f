"""Processes of a run that `torchrun` started, as its environment describes them."""

import os


def world_size() -> int:
    """Return the number of processes; 1 without `torchrun`."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_main_process() -> bool:
    """Return True except in the processes of `torchrun` after the first."""
    return os.environ.get("RANK", "0") == "0"
