"""Versions and hardware, recorded with every result."""

import platform

import timm
import torch

from seit import __version__


def environment(device: torch.device) -> dict[str, str]:
    """Return versions and hardware, for `run.json` and benchmarks."""
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
    return {
        "seit": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "timm": timm.__version__,
        "platform": platform.platform(),
        "device": gpu or f"{device.type}, {torch.get_num_threads()} threads",
    }
