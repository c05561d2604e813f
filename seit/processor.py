"""Features of the processor that decide which 8-bit kernels are exact and quick."""

import platform
import subprocess
from collections.abc import Set
from functools import cache
from pathlib import Path
from typing import Literal

Target = Literal["avx2", "vnni", "arm"]
"""Family of 8-bit kernels: x86 without and with dot products of bytes, and ARM."""
_CPU_INFO = Path("/proc/cpuinfo")
_MAX_INFO_BYTES = 1 << 20
_LISTS = ("flags", "features")
_VNNI = frozenset({"avx512_vnni", "avx_vnni", "amx_int8"})
INT8_FEATURES = frozenset(
    {"avx2", "avx512f", *_VNNI, "avx_vnni_int8", "asimddp", "dotprod", "i8mm", "sve"}
)
"""Flags that 8-bit kernels ask for."""
_WIDEST = ("avx512f", "avx2", "sve", "asimd", "neon")
_MAKERS = ("vendor_id", "cpu implementer")
_ARM_MACHINES = ("aarch64", "arm64", "armv8l")
_DARWIN_FLAGS = ("machdep.cpu.features", "machdep.cpu.leaf7_features", "hw.optional.arm")


@cache
def cpu_features() -> frozenset[str]:
    """Return the flags of the processor in lower case, as Linux names them where they differ.

    Empty where the system does not list them.
    """
    if _CPU_INFO.is_file():
        with _CPU_INFO.open(encoding="utf-8", errors="replace") as file:
            return parse_cpu_info(file.read(_MAX_INFO_BYTES))
    if platform.system() == "Darwin":
        return _darwin_features()
    return frozenset()


@cache
def cpu_kind() -> str:
    """Return what decides how this machine rounds: architecture, maker and vector width."""
    features = cpu_features()
    widest = next((name for name in _WIDEST if name in features), "plain")
    return f"{platform.machine()} {_maker()} {widest}".replace("  ", " ")


def _maker() -> str:
    if not _CPU_INFO.is_file():
        return platform.processor()
    with _CPU_INFO.open(encoding="utf-8", errors="replace") as file:
        for line in file.read(_MAX_INFO_BYTES).splitlines():
            name, _, value = line.partition(":")
            if name.strip().lower() in _MAKERS:
                return value.strip()
    return ""


def parse_cpu_info(text: str) -> frozenset[str]:
    """Return the flags that a text like `/proc/cpuinfo` lists for its first processor."""
    for line in text.splitlines():
        name, _, values = line.partition(":")
        if name.strip().lower() in _LISTS:
            return frozenset(values.lower().split())
    return frozenset()


def cpu_target(features: Set[str] | None = None, machine: str | None = None) -> Target:
    """Return the family of 8-bit kernels of a processor, by default of this one.

    An x86 processor whose flags are unknown counts as one without dot products of bytes, whose
    files are right on all.
    """
    if (machine or platform.machine()).lower() in _ARM_MACHINES:
        return "arm"
    return "vnni" if _VNNI & (cpu_features() if features is None else features) else "avx2"


def _darwin_features() -> frozenset[str]:
    """Return the flags that macOS lists."""
    command = ["/usr/sbin/sysctl", *_DARWIN_FLAGS]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    found: set[str] = set()
    for line in done.stdout.lower().splitlines():
        name, _, values = line.partition(":")
        if name.startswith("hw.optional.arm."):
            found |= (
                {name.rpartition(".")[2].removeprefix("feat_")} if values.strip() == "1" else set()
            )
        else:
            found |= set(values.split())
    return frozenset(found)
