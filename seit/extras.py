"""Optional packages: how to install what a feature needs."""

from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, requires
from importlib.util import find_spec

from seit.errors import UsageError

_EXTRA_MARK = "extra =="


def how_to_install(extra: str) -> str:
    """Return the command that installs the packages of an extra of this project.

    It names the packages themselves, so that it works for every kind of installation of seit.
    """
    try:
        listed = requires("seit") or ()
    except PackageNotFoundError:  # run from sources without an installation
        listed = ()
    packages = []
    for entry in listed:
        requirement, _, marker = entry.partition(";")
        _, _, name = marker.partition(_EXTRA_MARK)
        if name.strip(" '\"") == extra:
            packages.append(f"'{requirement.strip()}'")
    if not packages:
        return f"install the packages that pyproject.toml lists under {extra!r}"
    return f"run: pip install {' '.join(packages)}"


def check_installed(packages: Sequence[str], *, use: str, extra: str) -> None:
    """Check that the packages that a feature needs are installed.

    Args:
        packages: names of the packages.
        use: what needs them, in the plural.
        extra: extra of this project that lists them.

    Raises:
        UsageError: one is missing.
    """
    lacking = [name for name in packages if find_spec(name) is None]
    if lacking:
        raise UsageError(f"{use} need {' and '.join(lacking)}; {how_to_install(extra)}")
