"""Choice of a run's device, and whether Triton supports it."""

import logging
from functools import cache

import torch

from seit.errors import UsageError

_LOG = logging.getLogger(__name__)


def choose_device(name: str) -> torch.device:
    """Resolve ``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``mps`` to an available device.

    Raises:
        UsageError: it is not available.
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

    Determined once, by running a minimal kernel; logs a CUDA device without Triton.
    """
    if device.type != "cuda":
        return False
    try:
        from seit.triton_probe import store_one  # late: Triton may be missing

        with torch.cuda.device(device):
            store_one[(1,)](torch.zeros(1, dtype=torch.uint8, device=device))
    except Exception as error:  # the compiler, the driver or the linker may raise anything
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        _LOG.warning("%s does without Triton, which is slower: %s", device, reason)
        return False
    return True
