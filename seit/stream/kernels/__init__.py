"""Decoders that run on a CUDA device, in Triton: packed rows and context streams → ids.

Triton comes with torch on Linux and is imported when a kernel is launched, never before. Where it
is missing, :func:`seit.devices.triton_serves` says so once in the log and the other decoders serve.
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
