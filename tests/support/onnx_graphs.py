"""Small classifiers of ids as ONNX graphs, and a processor whose 8-bit products saturate."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from seit.compression.int8.graph import FloatGraph

GRID = (2, 2)
SCOPES = "pkg.torch.onnx.name_scopes"


def classifier(codebook, *weights, gemm=False, grid=GRID):
    """Return the model ids (B, H, W) → look-up → products with ReLU between → logits (B, N)."""
    cells = grid[0] * grid[1]
    constants = {"codebook": codebook, "shape": np.array([-1, cells * codebook.shape[1]])}
    nodes = [
        helper.make_node("Gather", ["codebook", "tokens"], ["looked"], "look-up"),
        helper.make_node("Reshape", ["looked", "shape"], ["x0"], "flat"),
    ]
    for number, weight in enumerate(weights):
        last = number == len(weights) - 1
        name, result = f"backbone.layers.{number}.weight", "logits" if last else f"h{number}"
        constants[name] = weight.T if gemm else weight
        bias = [f"b{number}"] if gemm else []
        if gemm:
            constants[bias[0]] = np.arange(weight.shape[1], dtype=np.float32)
        node = helper.make_node(
            "Gemm" if gemm else "MatMul",
            [f"x{number}", name, *bias],
            [result],
            f"layer{number}",
            **({"transB": 1} if gemm else {}),
        )
        note = node.metadata_props.add()
        note.key, note.value = SCOPES, f"['', 'backbone', 'backbone.layers.{number}', 'linear']"
        nodes.append(node)
        if not last:
            nodes.append(helper.make_node("Relu", [result], [f"x{number + 1}"], f"relu{number}"))
    graph = helper.make_graph(
        nodes,
        "classifier",
        [helper.make_tensor_value_info("tokens", TensorProto.INT64, ["batch", *grid])],
        [
            helper.make_tensor_value_info(
                "logits", TensorProto.FLOAT, ["batch", weights[-1].shape[1]]
            )
        ],
        [numpy_helper.from_array(np.ascontiguousarray(v), k) for k, v in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model)
    return model


def float_graph(*args, **options):
    return FloatGraph.of_model(classifier(*args, **options), origin="test")


class MatMulInteger(OpRun):
    """MatMulInteger as by vpmaddubsw: pairs of u8 × s8 products are added in 16 bits."""

    op_domain = ""

    def _run(self, a, b, a_zero=None, b_zero=None):
        wide = a.astype(np.int32), b.astype(np.int32)
        if b.dtype == np.int8:
            pairs = [
                wide[0][..., i::2][..., None] * wide[1][i::2][None] for i in (0, 1)
            ]  # (…, I/2, O)
            total = np.clip(pairs[0] + pairs[1], -(1 << 15), (1 << 15) - 1).sum(-2)
        else:
            total = wide[0] @ wide[1]
        # Zero points are corrected by sums of codes, in 32 bits.
        zeros = [np.asarray(0 if one is None else one).astype(np.int32) for one in (a_zero, b_zero)]
        total = total - zeros[0] * wide[1].sum(0) - zeros[1] * wide[0].sum(-1, keepdims=True)
        return ((total + len(b) * zeros[0] * zeros[1]).astype(np.int32),)


def saturating_runtime(data, ids):
    """Return the logits of a file on a processor without dot products of bytes."""
    session = ReferenceEvaluator(onnx.ModelProto.FromString(data), new_ops=[MatMulInteger])
    return session.run(None, {"tokens": ids})[0]
