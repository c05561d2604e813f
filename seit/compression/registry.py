"""Methods of compression, by name."""

from collections.abc import Mapping

from seit.compression.config import MethodName
from seit.compression.int8.methods import Int8
from seit.compression.method import Method
from seit.compression.weights.methods import FewBits

METHODS: Mapping[MethodName, Method] = {
    "int8": Int8(static=False),
    "int8-static": Int8(static=True),
    "w8": FewBits(8),
    "w4": FewBits(4),
    "w3": FewBits(3),
    "w2": FewBits(2),
}
