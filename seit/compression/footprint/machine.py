"""The processor and the versions that figures were measured with."""

import platform
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from seit.processor import cpu_features

INT8_FLAGS = ("avx2", "avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm")
"""Flags of x86 and ARM processors that multiply 8-bit integers in vectors."""
_PACKAGES = ("seit", "torch", "timm", "onnxruntime")
_CPU_INFO = Path("/proc/cpuinfo")
_MAX_INFO_BYTES = 1 << 16


def processor() -> dict[str, object]:
    """Return the ``name`` of the processor and its ``int8`` instructions."""
    flags = cpu_features()
    return {"name": _name(), "int8": [flag for flag in INT8_FLAGS if flag in flags]}


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that run networks."""
    return {"python": platform.python_version(), **_installed(_PACKAGES)}


def _installed(packages: Sequence[str]) -> dict[str, str]:
    found = {}
    for name in packages:
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # optional, or run from sources without an installation
            continue
    return found


def _name() -> str:
    if _CPU_INFO.is_file():
        with _CPU_INFO.open(encoding="utf-8", errors="replace") as file:
            for line in file.read(_MAX_INFO_BYTES).splitlines():
                key, _, value = line.partition(":")
                if key.strip() == "model name":
                    return value.strip()
    return platform.processor() or platform.machine()
