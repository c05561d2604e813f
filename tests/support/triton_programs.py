"""Triton programs for tests: run by Triton's interpreter, or compiled."""

import importlib
import sys
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch

STREAM = "seit.stream.kernels.programs"
PHILOX = "seit.augment.kernels.programs.philox"
EMBED = "seit.augment.kernels.programs.fused"
PLAN = "seit.augment.kernels.programs.plan"
EDIT = "seit.augment.kernels.programs.edit"
MODULES = (STREAM, PHILOX, EMBED, PLAN, EDIT)

CPU = torch.device("cpu")
HAS_CUDA = torch.cuda.is_available()
CUDA = pytest.param(
    "cuda",
    marks=[pytest.mark.gpu, pytest.mark.skipif(not HAS_CUDA, reason="needs a CUDA device")],
)
DEVICES = ["interpreter", *([CUDA] if HAS_CUDA else [])]


@contextmanager
def programs(*, interpret):
    """Triton decides when a program is defined who runs it; nothing else may see the setting."""
    pytest.importorskip("triton")
    with pytest.MonkeyPatch.context() as patch:
        for name in MODULES:
            patch.setitem(sys.modules, name, None)  # what was there comes back
            del sys.modules[name]
        with pytest.MonkeyPatch.context() as setting:
            setting.setenv("TRITON_INTERPRET", "1" if interpret else "0")
            modules = {name: importlib.import_module(name) for name in MODULES}
        if interpret:
            _check_no_overflow(patch)
        yield modules


def _check_no_overflow(patch):
    """Spare a third of the work: a check of overflows that asserts in debug mode alone."""
    builder = importlib.import_module("triton.runtime.interpreter").interpreter_builder
    assert not builder.options.debug
    patch.setattr(builder, "options", replace(builder.options, sanitize_overflow=False))


def compile_for_cuda(program, arguments, *, capability, fuses):
    """Compile a program, which needs no device; ``arguments`` are types, or values of constants."""
    triton = pytest.importorskip("triton")
    assert set(arguments) == set(program.arg_names)
    kinds = {
        name: arguments[name] if isinstance(arguments[name], str) else "constexpr"
        for name in program.arg_names
    }
    fixed = {name: value for name, value in arguments.items() if not isinstance(value, str)}
    target = importlib.import_module("triton.backends.compiler").GPUTarget("cuda", capability, 32)
    return triton.compile(
        triton.compiler.ASTSource(program, kinds, fixed),
        target=target,
        options={"enable_fp_fusion": fuses},
    )
