"""Compilation of inner loops with numba.

Machine code is kept next to the package, or in the user's cache if that folder is read-only; only
the first use of an installation compiles, and says so.
"""

import logging
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import njit, types
from numba.core import event
from numba.extending import intrinsic

_LOG = logging.getLogger(__name__)


class Announcer(event.Listener):
    """Log the first compilation of this process, which takes seconds."""

    has_spoken = False

    def on_start(self, event: Any) -> None:
        """Handle the start of a compilation; inner loops found in the cache cause none."""
        home = event.data["dispatcher"].py_func.__module__
        if self.has_spoken or not home.startswith("seit."):
            return
        self.has_spoken = True
        _LOG.info("compiling inner loops for this processor; later commands reuse them")

    def on_end(self, event: Any) -> None:
        """Ignore the end of a compilation."""


_register: Callable[..., None] = event.register  # numba has no types
_register("numba:compile", Announcer())


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile without the GIL, and cache the machine code if possible."""
    make: Callable[..., Any] = njit
    try:
        result: Callable[..., Any] = make(function, nogil=True, error_model="numpy", cache=True)
    except RuntimeError:  # neither the package's folder nor the user's cache is writable
        result = make(function, nogil=True, error_model="numpy")
    return result


def _prefetch(_typing: Any, array: Any, index: Any) -> Any:
    """Prefetch the cache line of an element of a one-dimensional array."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array_type, _ = signature.args
        data = context.make_array(array_type)(context, builder, arguments[0]).data
        byte_pointer, flag = ir.IntType(8).as_pointer(), ir.IntType(32)
        place = builder.bitcast(builder.gep(data, [arguments[1]]), byte_pointer)
        kind = ir.FunctionType(ir.VoidType(), [byte_pointer, flag, flag, flag])
        function = builder.module.declare_intrinsic("llvm.prefetch", [byte_pointer], kind)
        read, some_locality, is_data = (ir.Constant(flag, value) for value in (0, 2, 1))
        builder.call(function, [place, read, some_locality, is_data])
        return context.get_dummy_value()

    return types.void(array, index), generate


prefetch: Any = intrinsic(_prefetch)
"""``prefetch(array, index)`` in compiled code: fetch a cache line that will be needed soon."""
