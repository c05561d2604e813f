"""Keys of samples: of a file, or of one of its windows or views."""

import re

_MARK = re.compile(r"#(v?)([0-9]+)\Z")


def split_key(key: str) -> tuple[str, int]:
    """Return the key of a sample's file, and the number of its window in that file.

    ``a.wav#2`` is window 2 of ``a.wav``, and ``a.jpg#v2`` view 2 of ``a.jpg``, whose window is 0.
    """
    mark = _MARK.search(key)
    if mark is None:
        return key, 0
    return key[: mark.start()], 0 if mark[1] else int(mark[2])
