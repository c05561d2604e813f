"""Flags of processors, and the kernels that they stand for."""

import pytest

from seit.processor import cpu_features, cpu_target, parse_cpu_info

ZEN3 = "processor\t: 0\nflags\t\t: fpu sse4_2 avx2 fma\n\nprocessor\t: 1\nflags\t\t: other\n"
ICE_LAKE = "processor\t: 0\nflags\t\t: fpu avx2 avx512f AVX512_VNNI\n"
GRAVITON = "processor\t: 0\nFeatures\t: fp asimd asimddp i8mm\n"


@pytest.mark.parametrize(
    ("info", "machine", "target"),
    [
        (ZEN3, "x86_64", "avx2"),
        (ICE_LAKE, "x86_64", "vnni"),
        (GRAVITON, "aarch64", "arm"),
        ("", "AMD64", "avx2"),
    ],
)
def test_targets_of_processors(info, machine, target):
    assert cpu_target(parse_cpu_info(info), machine) == target


def test_flags_are_those_of_the_first_processor():
    assert parse_cpu_info(ZEN3) == {"fpu", "sse4_2", "avx2", "fma"}
    assert "asimddp" in parse_cpu_info(GRAVITON)


def test_this_processor_has_a_target():
    assert cpu_target() == cpu_target(cpu_features())
