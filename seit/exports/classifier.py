"""The classifier of a run's ids as an ONNX model in memory."""

from typing import Any

from torch import nn

from seit.exports import programs
from seit.exports.graphs import example_inputs, make_token_classifier
from seit.exports.spec import describe
from seit.training import Run, check_plain

_TRACED_BATCH = 2


def classifier_onnx(run: Run, backbone: nn.Module, *, opset: int = programs.OPSET) -> Any:
    """Return a run's classifier as an `onnx.ModelProto`: crop, codebook look-up and backbone.

    Its input ``tokens`` are ids int64 (B, L·H, W), its output ``logits`` float32 (B, N). Operators
    carry notes on the modules that they come from, and initializers of the backbone the names of
    its parameters behind ``backbone.``, where PyTorch keeps them.

    Args:
        run: the finished run.
        backbone: its network, or a changed one for the same inputs; on the CPU.
        opset: ONNX opset, 18 to 23.

    Raises:
        UsageError: the run has not finished, or the export to ONNX is not installed.
        SeitError: the network cannot be exported.
    """
    check_plain(run)
    programs.check_onnx_installed()
    tokenizer = run.load_tokenizer()
    spec = describe(run, tokenizer, run.compression)
    graph = make_token_classifier(spec, backbone, tokenizer)
    program = programs.trace(graph, example_inputs(graph, spec, _TRACED_BATCH))
    return programs.onnx_model(program, graph, opset=opset)
