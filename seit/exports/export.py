"""`seit export`: write a finished run to a folder that can be used with or without seit.

The folder appears once all files have been written, read back and compared with the run's model.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar, get_args

from torch import nn

from seit.errors import UsageError
from seit.exports import programs
from seit.exports.card import CARD_NAME, measure_store, write_card
from seit.exports.checks import Agreement, compare
from seit.exports.deployed import Deployed
from seit.exports.graphs import (
    INPUT_KINDS,
    Graph,
    InputKind,
    choose_graph,
    example_inputs,
    make_graphs,
)
from seit.exports.load import load_graph
from seit.exports.spec import CONFIG_NAME, ExportSpec, describe
from seit.files import explained_writes, publish, write_atomically
from seit.outcomes import Outcome
from seit.shards import Store
from seit.stores import work_folder
from seit.tensors import tensor_bytes
from seit.tokenizers import Tokenizer, tokenizer_bytes
from seit.training import TOKENIZER_NAME, WEIGHTS_NAME, Run, check_one_network

Format = Literal["safetensors", "onnx", "torch"]
FORMATS: tuple[Format, ...] = get_args(Format)
PROGRAM_NAMES: dict[InputKind, str] = {
    "tokens": "classifier",
    "images": "image_classifier",
    "audio": "audio_classifier",
}
"""Names of ONNX and torch.export files without suffix, by kind of input."""
_TRACED_BATCH = 2
_CHECKED_BATCHES = (1, 3)
_T = TypeVar("_T", bound=str)


@dataclass(frozen=True)
class ExportedFile:
    """A file of an export, and its check.

    Attributes:
        name: name within the folder.
        bytes: size of the file.
        logit_difference: largest difference from the logits of the run's model on random inputs;
            None for a file that is not a program or cannot be run here.
        equal_tokens: share of ids equal to the tokenizer's, 0–1; None if it returns none.
    """

    name: str
    bytes: int
    logit_difference: float | None = None
    equal_tokens: float | None = None


@dataclass(frozen=True, repr=False)
class ExportResult(Outcome):
    """Files of an export.

    Attributes:
        out: the folder.
        files: the files, by name.
        missing: kinds of inputs without a file, and the reason; only if all were requested.
        unchecked: files that cannot be run here.
    """

    out: Path
    files: tuple[ExportedFile, ...]
    missing: dict[InputKind, str]
    unchecked: tuple[str, ...]


def export_run(
    run: str | Path,
    out: str | Path,
    *,
    formats: Sequence[Format] = FORMATS,
    inputs: Sequence[InputKind] | None = None,
    opset: int = programs.OPSET,
    store: Store | str | Path | None = None,
) -> ExportResult:
    """Write a finished run's model, its card and programs for other runtimes to a new folder.

    Args:
        run: run folder.
        out: new or empty folder.
        formats: ``safetensors`` (weights under timm's names), ``onnx``, ``torch`` (torch.export).
        inputs: inputs of ONNX and torch.export files: ``tokens`` (ids → logits), ``images`` or
            ``audio`` (→ logits, including the tokenizer); None for all that the run supports.
        opset: ONNX opset, 18 to 23.
        store: training store of the run, for the sizes on the card.

    Raises:
        UsageError: the run has not finished or does not support the export, or ``out`` is not
            empty.
        SeitError: a file differs from the run's model; no file is kept.
    """
    source, target = Run.open(run), Path(out).absolute()
    check_one_network(source)
    _check_names("format", formats, FORMATS)
    programs.check_opset(opset)
    if "onnx" in formats:
        programs.check_onnx_installed()
    tokenizer = source.load_tokenizer()
    weights, compression = source.load_stored()
    spec = describe(source, tokenizer, compression)
    figures = None if store is None else measure_store(store, spec)
    backbone = spec.model.build(weights, origin=str(source.path))
    graphs, missing = make_graphs(spec, backbone, tokenizer)
    chosen = _choose(graphs, missing, inputs)
    deployed = None
    if compression.program and "onnx" in formats:
        deployed = Deployed.open(source, spec, tokenizer)
        deployed.check_opset(opset)
    with work_folder(target) as work, explained_writes(target):
        folder = _Folder(work, spec, tokenizer, deployed)
        folder.write(CONFIG_NAME, spec.to_json().encode())
        folder.write(TOKENIZER_NAME, tokenizer_bytes(tokenizer, with_codebook=True))
        if "safetensors" in formats:
            folder.write_weights(backbone, graphs)
        for kind, graph in chosen.items():
            folder.write_programs(kind, graph, formats, opset=opset)
        card = write_card(
            spec,
            name=target.name,
            files={file.name: file.bytes for file in folder.files},
            parameters=sum(value.numel() for value in backbone.parameters()),
            store=figures,
        )
        folder.write(CARD_NAME, card.encode())
        publish(work, target.resolve())
    return ExportResult(
        out=Path(out),
        files=tuple(sorted(folder.files, key=lambda file: file.name)),
        missing=dict(missing) if inputs is None else {},
        unchecked=tuple(folder.unchecked),
    )


class _Folder:
    """The folder being written; each file is read back and compared."""

    def __init__(
        self, path: Path, spec: ExportSpec, tokenizer: Tokenizer, deployed: Deployed | None
    ) -> None:
        self.path = path
        self.spec = spec
        self.tokenizer = tokenizer
        self.deployed = deployed
        self.files: list[ExportedFile] = []
        self.unchecked: list[str] = []

    def write(self, name: str, data: bytes) -> None:
        """Write a file that is not a program."""
        write_atomically(self.path / name, data)
        self._note(name, None)

    def write_weights(self, backbone: nn.Module, graphs: Mapping[InputKind, Graph]) -> None:
        """Write the weights under timm's names."""
        metadata = {"format": "pt", "classes": json.dumps(self.spec.classes)}
        data = tensor_bytes(backbone.state_dict(), metadata=metadata)
        write_atomically(self.path / WEIGHTS_NAME, data)
        kind: InputKind = "tokens" if "tokens" in graphs else "images"
        loaded = load_graph(self.path, inputs=kind)
        self._note(WEIGHTS_NAME, self._compare(graphs[kind], loaded, WEIGHTS_NAME))

    def write_programs(
        self, kind: InputKind, graph: Graph, formats: Sequence[Format], *, opset: int
    ) -> None:
        """Write a network as torch.export and ONNX files."""
        if "onnx" in formats and self.deployed is not None:
            self._write_deployed(kind, self.deployed)
            formats = [one for one in formats if one != "onnx"]
        if not {"torch", "onnx"} & set(formats):
            return
        program = programs.trace(graph, example_inputs(graph, self.spec, _TRACED_BATCH))
        if "torch" in formats:
            name = f"{PROGRAM_NAMES[kind]}.pt2"
            programs.write_torch(
                program, self.path / name, files={CONFIG_NAME: self.spec.to_json()}
            )
            self._check(graph, name, programs.open_torch(self.path / name))
        if "onnx" in formats:
            name = f"{PROGRAM_NAMES[kind]}.onnx"
            metadata = self._metadata()
            programs.write_onnx(program, self.path / name, graph, metadata=metadata, opset=opset)
            self._check(graph, name, programs.open_onnx(self.path / name))
            beside = self.path / (name + programs.EXTERNAL_SUFFIX)
            if beside.exists():
                self._note(beside.name, None)

    def _write_deployed(self, kind: InputKind, deployed: Deployed) -> None:
        """Write the file in which the run is deployed, behind the tokenizer where it is needed."""
        name = f"{PROGRAM_NAMES[kind]}.onnx"
        write_atomically(self.path / name, deployed.program(kind, self._metadata()))
        self._check(deployed.graphs[kind], name, programs.open_onnx(self.path / name))

    def _metadata(self) -> dict[str, str]:
        return {"classes": json.dumps(self.spec.classes), "seit": self.spec.to_json()}

    def _check(self, graph: Graph, name: str, run: programs.Compute | None) -> None:
        if run is None:
            self.unchecked.append(name)
        self._note(name, None if run is None else self._compare(graph, run, name))

    def _compare(self, graph: Graph, run: programs.Compute, name: str) -> Agreement:
        examples = [
            example_inputs(graph, self.spec, batch, seed=batch) for batch in _CHECKED_BATCHES
        ]
        return compare(graph, run, examples, encode=self.tokenizer.encode, name=name)

    def _note(self, name: str, agreement: Agreement | None) -> None:
        size = (self.path / name).stat().st_size
        if agreement is None:
            self.files.append(ExportedFile(name, size))
        else:
            self.files.append(ExportedFile(name, size, agreement.logits, agreement.tokens))


def _choose(
    graphs: Mapping[InputKind, Graph],
    missing: Mapping[InputKind, str],
    inputs: Sequence[InputKind] | None,
) -> Mapping[InputKind, Graph]:
    if inputs is None:
        return graphs
    _check_names("inputs", inputs, INPUT_KINDS)
    return {kind: choose_graph(graphs, missing, kind) for kind in INPUT_KINDS if kind in inputs}


def _check_names(what: str, names: Sequence[_T], known: Sequence[_T]) -> None:
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        found = ", ".join(unknown) or "nothing"
        raise UsageError(f"{what} is {found}; choose among {', '.join(known)}")
