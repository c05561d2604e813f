"""Commands of the command line, and the flags that each takes."""

import re
from functools import cache

from seit.cli.app import COMMANDS, COMPLETION, WITH_SETTINGS, make_app

_FLAG = re.compile(r"(?<![\w-])--[a-z][a-z0-9_.-]*[a-z0-9]")


def arguments_of_commands():
    """Return the parser's arguments of each command by name, such as `runs list`."""
    app = make_app("")
    found = {}
    for name in COMMANDS:
        inner = {f"{name} {one}": app[name][one] for one in app[name] if not one.startswith("-")}
        for command, parser in (inner or {name: app[name]}).items():
            found[command] = list(parser.assemble_argument_collection())
    return found


@cache
def flags_of_commands():
    """Return the flags of each command by name."""
    return {
        command: {name for one in arguments for name in one.names if name.startswith("--")}
        for command, arguments in arguments_of_commands().items()
    }


def foreign_flags(command, text):
    """Return the flags in a message of a command that it lacks, or that the command named lacks.

    Flags within backticks, as in `seit tokenize --size 64`, are those of the command named there.
    With None for the command, other flags may be those of any.
    """
    parts = [(command, re.sub(r"`[^`]*`", "", text))]
    for words in re.findall(r"`seit ([^`]*)`", text):
        named = [one for one in flags_of_commands() if f"{words} ".startswith(f"{one} ")]
        parts.append((max(named, key=len, default=None), words))
    return {flag for one, part in parts for flag in _FLAG.findall(part) if not _takes(one, flag)}


def _takes(command, flag):
    known = flags_of_commands()
    if "." in flag:
        return command is None or command in WITH_SETTINGS
    taken = set().union(*known.values()) if command is None else known[command]
    return flag in taken or flag in ("--help", "--version", *COMPLETION)


def advice_of(arguments, err):
    """Return the command that was called, None for none, and its messages about its work.

    Those about wrong flags, which end in where to look, are left out.
    """
    known = flags_of_commands() if "--" in err else {}
    named = [one for one in known if " ".join(arguments[:2]).startswith(one)]
    lines = [line for line in err.splitlines() if not line.endswith("--help` says more)")]
    return max(named, key=len, default=None), "\n".join(lines)
