# mypy: disallow-untyped-defs=False, disallow-untyped-decorators=False
"""Minimal Triton program that tests whether Triton works. Importing it requires Triton."""

import triton
import triton.language as tl


@triton.jit
def store_one(target):
    """Write 1 to the first element."""
    tl.store(target, 1)
