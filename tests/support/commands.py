"""Commands of the command line, and the flags that each takes."""

from seit.cli.app import COMMANDS, make_app


def flags_of_commands():
    """Return the flags of each command by name; a subcommand's name is such as `runs list`."""
    app = make_app("")
    flags = {}
    for name in COMMANDS:
        inner = {f"{name} {one}": app[name][one] for one in app[name] if not one.startswith("-")}
        flags |= {command: _flags(found) for command, found in (inner or {name: app[name]}).items()}
    return flags


def _flags(command):
    arguments = command.assemble_argument_collection()
    return {name for one in arguments for name in one.names if name.startswith("--")}
