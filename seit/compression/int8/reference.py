"""Results that a quantized file stands for: its own scales and codes, with exact products.

Products of integers become products of the same integers in float64, which are exact, and no
operators are fused. The kernels for 8 bits have no part in it.
"""

import importlib
from collections.abc import Iterator
from typing import Any

from seit.models import parse_onnx


def exact_products(data: bytes) -> bytes:
    """Return a quantized file with its products of integers in float64."""
    model = parse_onnx(data, origin="the quantized network")
    nodes = [new for node in model.graph.node for new in _exact(node)]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    written: bytes = model.SerializeToString()
    return written


def _exact(node: Any) -> Iterator[Any]:
    """Yield what replaces an operator: for a product of integers, that of float64."""
    if node.op_type != "MatMulInteger":
        yield node
        return
    helper = importlib.import_module("onnx.helper")
    factors = []
    zeros = [*node.input[2:], "", ""][:2]
    for number, (codes, zero) in enumerate(zip(node.input[:2], zeros, strict=True)):
        parts: list[str] = []
        for part in filter(None, (codes, zero)):
            parts.append(f"{node.output[0]}.{number}.{len(parts)}")
            yield helper.make_node("Cast", [part], [parts[-1]], to=11)  # float64
        factors.append(f"{node.output[0]}.{number}")
        yield helper.make_node("Sub" if zero else "Identity", parts, [factors[-1]])
    yield helper.make_node("MatMul", factors, [node.output[0]], node.name)
