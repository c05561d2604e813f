"""Atomic exchange of two folders, if the system supports it."""

import ctypes
import errno
import os
import sys
from pathlib import Path

_CURRENT_FOLDER = -100
"""``AT_FDCWD`` of Linux."""
_EXCHANGE = 2
"""``RENAME_EXCHANGE`` of Linux and ``RENAME_SWAP`` of macOS."""
_UNABLE = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)


def exchange_folders(one: Path, other: Path) -> bool:
    """Swap the names of two folders atomically: neither name is ever without a folder.

    Returns:
        False if the system or file system cannot do it; nothing was changed then.

    Raises:
        OSError: it is not permitted, or one is a mount point.
    """
    library = ctypes.CDLL(None, use_errno=True)
    names = os.fsencode(one), os.fsencode(other)
    if sys.platform == "darwin":
        function, arguments = getattr(library, "renamex_np", None), (*names, _EXCHANGE)
    else:
        function = getattr(library, "renameat2", None)
        arguments = (_CURRENT_FOLDER, names[0], _CURRENT_FOLDER, names[1], _EXCHANGE)
    if function is None:
        return False
    if function(*arguments) == 0:
        return True
    code = ctypes.get_errno()
    if code in _UNABLE:
        return False
    raise OSError(code, os.strerror(code), str(one))
