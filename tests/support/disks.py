"""Disks that only one process sees: small ones that fill up, and ones that cannot be written."""

import ctypes
import os
from pathlib import Path

READ_ONLY = 1
_NEW_MOUNTS, _NEW_USER = 0x0002_0000, 0x1000_0000


def mount_disk(folder, *, size=0, flags=0):
    """Put an empty disk of ``size`` bytes (0: any) over a folder, for this process alone.

    The process becomes root of a user namespace of its own. Raises OSError where a system does not
    allow that, AttributeError where it has no namespaces.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    user, group = os.geteuid(), os.getegid()
    _check(libc.unshare(_NEW_USER | _NEW_MOUNTS))
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"0 {user} 1")
    Path("/proc/self/gid_map").write_text(f"0 {group} 1")
    options = f"size={size}".encode()
    _check(libc.mount(b"none", os.fsencode(folder), b"tmpfs", ctypes.c_ulong(flags), options))


def _check(result):
    if result:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
