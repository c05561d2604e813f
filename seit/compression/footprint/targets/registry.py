"""Registry of what can be measured."""

from collections.abc import Mapping
from pathlib import Path

from seit.compression.footprint.targets.base import Target
from seit.compression.footprint.targets.onnx import OnnxFile
from seit.compression.footprint.targets.runs import RunTarget
from seit.compression.footprint.targets.tokenizers import TokenizerTarget
from seit.errors import UsageError

TARGETS: Mapping[str, type[Target]] = {
    one.kind: one for one in (RunTarget, OnnxFile, TokenizerTarget)
}


def open_target(path: str | Path) -> Target:
    """Return what a path names.

    Raises:
        UsageError: there is nothing, or nothing that can be measured.
    """
    found = Path(path)
    for kind in TARGETS.values():
        if kind.fits(found):
            return kind(found)
    was = "nothing" if not found.exists() else "neither a run's folder nor such a file"
    raise UsageError(
        f"{path} is {was}; name a finished run's folder, an .onnx file, a tokenizer's .safetensors "
        "file, or a tokenizer of the package (`seit tokenizer list`)"
    )
