"""Devices: which one a run uses, and whether Triton serves it."""

import logging
from functools import cache

import torch

from seit.errors import UsageError

_LOG = logging.getLogger(__name__)


def choose_device(name: str) -> torch.device:
    """Turn ``auto``, ``cpu``, ``cuda``, ``cuda:1``, ``mps`` into a device that is there.

    Raises:
        UsageError: it is not.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError) as error:
        reason = (str(error).splitlines() or ["it holds no values"])[0]
        raise UsageError(f"device {name!r} cannot be used here: {reason}") from error
    return device


@cache
def triton_serves(device: torch.device) -> bool:
    """Return whether Triton's kernels run on ``device``: it is CUDA, and Triton compiles for it.

    Found out once, by running the smallest program; the log reports a CUDA device without Triton.
    """
    if device.type != "cuda":
        return False
    try:
        from seit.triton_probe import store_one  # late: Triton may be missing

        with torch.cuda.device(device):
            store_one[(1,)](torch.zeros(1, dtype=torch.uint8, device=device))
    except Exception as error:  # whatever the compiler, the driver or the linker says
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        _LOG.warning("%s does without Triton, which is slower: %s", device, reason)
        return False
    return True
