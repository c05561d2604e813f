"""Triton decoders for CUDA devices: packed rows and context streams → ids.

Triton comes with torch on Linux and is imported when a kernel is first launched. If it is missing,
:func:`seit.devices.triton_serves` logs that once, and the other decoders are used.
"""

from seit.stream.kernels.context import ContextDecoder, DeviceTables, decode_context_triton
from seit.stream.kernels.packed import place_planes, unpack_triton

__all__ = [
    "ContextDecoder",
    "DeviceTables",
    "decode_context_triton",
    "place_planes",
    "unpack_triton",
]
