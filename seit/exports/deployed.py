"""Exports of a run that is deployed as an ONNX file of its own, which computes in 8 bits.

Legend: B batch, N classes.
"""

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from seit.augment import StoredTokens
from seit.errors import UsageError
from seit.exports import programs
from seit.exports.graphs import (
    Graph,
    InputKind,
    RawClassifier,
    RawEncoder,
    TokenClassifier,
    example_inputs,
    with_encoder,
)
from seit.exports.spec import ExportSpec
from seit.models import PROGRAM_INPUT, PROGRAM_NAME, OnnxClassifier, parse_onnx, read_onnx
from seit.tokenizers import Tokenizer
from seit.training import Run

_PREFIX = "classifier/"
"""Prefix of the names of the file behind a tokenizer."""
_TRACED_BATCH = 2


@dataclass(frozen=True)
class Deployed:
    """File in which a run is deployed, as a network and as the programs that are exported.

    Attributes:
        spec: exported model.
        model: the file, an `onnx.ModelProto`.
        graphs: networks of the file by input, run by ONNX Runtime.
    """

    spec: ExportSpec
    model: Any
    graphs: Mapping[InputKind, Graph]

    @classmethod
    def open(cls, run: Run, spec: ExportSpec, tokenizer: Tokenizer) -> "Deployed":
        """Open the file of a run.

        Raises:
            UsageError: ONNX Runtime is not installed.
            DamagedError: the file is corrupt.
        """
        path = run.finished_file(PROGRAM_NAME)
        data = read_onnx(path)
        network = OnnxClassifier(
            data, grid=spec.size, num_classes=len(spec.classes), origin=str(path)
        )
        classifier = TokenClassifier(StoredTokens(tokenizer.codebook, spec.size), network)
        graphs, _ = with_encoder(spec, classifier.eval(), tokenizer)
        return cls(spec, parse_onnx(data, origin=str(path)), graphs)

    def check_opset(self, opset: int) -> None:
        """Raise UsageError unless the file is of an opset."""
        if opset != self.opset:
            raise UsageError(
                f"the run is deployed as ONNX of opset {self.opset}; leave --opset out, or export "
                "the run that it was made from"
            )

    @property
    def opset(self) -> int:
        """Opset of the file."""
        return next(int(one.version) for one in self.model.opset_import if not one.domain)

    def program(self, kind: InputKind, metadata: Mapping[str, str]) -> bytes:
        """Return the ONNX file that takes ids, or what the tokenizer takes."""
        helper: Any = importlib.import_module("onnx.helper")
        graph = self.graphs[kind]
        written = type(self.model)()
        written.CopyFrom(self._joined(graph) if isinstance(graph, RawClassifier) else self.model)
        helper.set_model_props(written, dict(metadata))
        data: bytes = written.SerializeToString()
        return data

    def _joined(self, graph: RawClassifier) -> Any:
        """Return the tokenizer in float32 followed by the file, as one model."""
        compose: Any = importlib.import_module("onnx.compose")
        front = RawEncoder(graph.input_name, graph.encoder).eval()
        traced = programs.trace(front, example_inputs(graph, self.spec, _TRACED_BATCH))
        first = programs.onnx_model(traced, front, opset=self.opset)
        first.ir_version = self.model.ir_version
        made = self.model.graph.output[0].name
        logits, ids = graph.output_names
        joined = compose.merge_models(
            first,
            self.model,
            io_map=[(ids, PROGRAM_INPUT)],
            outputs=[_PREFIX + made, ids],
            prefix2=_PREFIX,
        )
        _rename_result(joined.graph, _PREFIX + made, logits)
        outputs = {one.name: one for one in joined.graph.output}
        del joined.graph.output[:]
        joined.graph.output.extend(outputs[name] for name in (logits, ids))
        return joined


def _rename_result(graph: Any, before: str, after: str) -> None:
    """Rename an output of a graph that no operator takes."""
    for value in graph.output:
        value.name = after if value.name == before else value.name
    for node in graph.node:
        node.output[:] = [after if name == before else name for name in node.output]
