"""`seit --install-completion` and `seit --show-completion`, written by the parser's own library."""

from typing import Literal

from cyclopts import App

from seit.cli.output import print_lines, say
from seit.errors import UsageError

Shell = Literal["bash", "zsh", "fish"]


def install(shell: Shell | None = None, /) -> None:
    """Complete commands, flags, files and recipes when TAB is pressed, from the next shell on.

    Writes a script into your home folder, and for bash and zsh one line into ~/.bashrc or ~/.zshrc.
    Run it again after an upgrade.

    Args:
        shell: bash, zsh or fish; the one that runs the command by default.

    Raises:
        UsageError: the shell is another one, or unknown.
    """
    path = _app().install_completion(shell=shell or _running_shell())
    say(f"wrote {path}; it takes effect in a new shell")


def show(shell: Shell | None = None, /) -> None:
    """Print what --install-completion installs.

    Args:
        shell: bash, zsh or fish; the one that runs the command by default.

    Raises:
        UsageError: the shell is another one, or unknown.
    """
    print_lines(_app().generate_completion(shell=shell or _running_shell()).splitlines())


def _app() -> App:
    from seit.cli.app import make_app

    return make_app("")


def _running_shell() -> Shell:
    from cyclopts.completion.detect import ShellDetectionError, detect_shell

    try:
        found = detect_shell()
    except ShellDetectionError:
        found = None
    if found is None or found == "powershell":
        raise UsageError(
            f"found {found or 'no shell'} to complete for; name bash, zsh or fish: "
            "`seit --install-completion bash`"
        )
    return found
