"""Check of pickled checkpoints for tuples that torch would take hours to hash.

A tuple that holds the last one twice, and so on n times, takes 2ⁿ uninterruptible steps as a key.
"""

import io
import os
import pickletools
from pathlib import Path
from typing import IO

import torch

from seit.errors import UsageError

_ZIP_MAGIC = b"PK\3\4"
_LEGACY_PICKLES = 5
"""Pickles in a file of torch before 1.6: magic, version, system, objects and storages."""
_MAX_REPEATED = 1 << 22
"""Limit on the items of all repeated tuples together; these take less than a second to hash."""
_PUTS = frozenset({"BINPUT", "LONG_BINPUT"})
_GETS = frozenset({"BINGET", "LONG_BINGET"})
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_POPS = {"REDUCE": 1, "NEWOBJ": 1, "BUILD": 1, "APPEND": 1, "SETITEM": 2, "BINPERSID": 0}
"""Objects that a step takes from above the one that it changes or replaces."""
_FROM_MARK = frozenset({"APPENDS", "SETITEMS"})
_PUSHES = frozenset(
    {
        *("NONE", "NEWFALSE", "NEWTRUE", "EMPTY_TUPLE", "EMPTY_LIST", "EMPTY_DICT", "EMPTY_SET"),
        *("BININT", "BININT1", "BININT2", "BINFLOAT", "BINUNICODE", "SHORT_BINSTRING", "LONG1"),
        "GLOBAL",
    }
)


def check_pickles(path: Path) -> None:
    """Refuse a checkpoint whose tuples repeat so many others that hashing them takes hours.

    Other faults are left for torch to find, which reads no further than they are.

    Raises:
        UsageError: it has such tuples.
        RuntimeError: it is a damaged zip file.
    """
    with path.open("rb") as file:
        if file.read(len(_ZIP_MAGIC)) == _ZIP_MAGIC:
            record = torch._C.PyTorchFileReader(os.fspath(path)).get_record("data.pkl")
            _check_pickle(io.BytesIO(record), path)
            return
        file.seek(0)
        for _ in range(_LEGACY_PICKLES):
            if not _check_pickle(file, path):
                return


def _check_pickle(file: IO[bytes], path: Path) -> bool:
    """Follow the items in each object, nested ones too; return False if torch will stop within."""
    stack: list[int] = []
    outer: list[list[int]] = []
    memo: dict[int | None, int] = {}
    repeated = 0
    try:
        for code, argument, _ in pickletools.genops(file):
            name = code.name
            if name in _PUSHES:
                stack.append(1)
            elif name in _PUTS:
                memo[argument] = stack[-1]
            elif name in _GETS:
                stack.append(memo[argument])
                repeated += memo[argument] - 1
                if repeated > _MAX_REPEATED:
                    raise UsageError(
                        f"{path} is no checkpoint: its tuples repeat each other millions of times"
                    )
            elif name == "MARK":
                outer.append(stack)
                stack = []
            elif name == "TUPLE":
                items, stack = stack, outer.pop()
                stack.append(1 + sum(items))
            elif name in _TUPLES:
                start = len(stack) - _TUPLES[name]
                if start < 0:
                    return False
                stack[start:] = [1 + sum(stack[start:])]
            elif name in _FROM_MARK:
                stack = outer.pop()
            elif name in _POPS:
                # A call may return its arguments, so that their items still count.
                taken = [stack.pop() for _ in range(_POPS[name])]
                if name in ("REDUCE", "NEWOBJ"):
                    stack[-1] += taken[0]
            elif name not in ("PROTO", "STOP"):
                return False
    except (LookupError, ValueError):
        return False
    return True
