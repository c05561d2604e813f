"""Where arithmetic runs."""

import torch

from seit.errors import UsageError


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
