"""Commands of the command line, and the flags that each takes."""

from seit.cli.app import COMMANDS, make_app


def arguments_of_commands():
    """Return the parser's arguments of each command by name, such as `runs list`."""
    app = make_app("")
    found = {}
    for name in COMMANDS:
        inner = {f"{name} {one}": app[name][one] for one in app[name] if not one.startswith("-")}
        for command, parser in (inner or {name: app[name]}).items():
            found[command] = list(parser.assemble_argument_collection())
    return found


def flags_of_commands():
    """Return the flags of each command by name."""
    return {
        command: {name for one in arguments for name in one.names if name.startswith("--")}
        for command, arguments in arguments_of_commands().items()
    }
