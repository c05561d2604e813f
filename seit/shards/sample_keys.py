"""Keys of samples: of a file, or of one of its windows or views."""

import re

_MARKS = {"audio": re.compile(r"#()([0-9]+)\Z"), "image": re.compile(r"#(v)([0-9]+)\Z")}
_ANY_MARK = re.compile(r"#(v?)([0-9]+)\Z")


def split_key(key: str, modality: str | None) -> tuple[str, int]:
    """Return the key of a sample's file, and the number of its window in that file.

    ``a.wav#2`` is window 2 of the sound ``a.wav``, and ``a.jpg#v2`` is view 2 of the image
    ``a.jpg``, whose window is 0. ``page#2`` is an image of that name. A modality of None takes both
    for marks.
    """
    if "#" not in key:
        return key, 0
    mark = _MARKS.get(modality or "", _ANY_MARK).search(key)
    if mark is None:
        return key, 0
    return key[: mark.start()], 0 if mark[1] else int(mark[2])
