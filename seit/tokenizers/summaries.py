"""Descriptions of the presets, for lists: names and text alone, so that they load at once."""

from collections.abc import Mapping

_FITTED = "fitted on the corpus"
_LEVELS = "fitted on the corpus, in 2 levels"
_IMAGES = {"patch-pca-vq": _FITTED, "patch-pca-rvq": _LEVELS}
_SOUNDS = {"mel-vq": _FITTED, "mel-rvq": _LEVELS, "dmel": "16 levels of loudness, not fitted"}
_SECONDS = (1, 5, 10)

PRESET_SUMMARIES: Mapping[str, str] = {
    **{name: f"images, {text}" for name, text in _IMAGES.items()},
    **{
        f"{name}-{seconds}s": f"audio in windows of {seconds} s, {text}"
        for seconds in _SECONDS
        for name, text in _SOUNDS.items()
    },
}
"""Descriptions of `PRESETS` in one line, by name."""
