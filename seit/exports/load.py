"""Loading of exported models."""

from pathlib import Path

from torch import nn

from seit.errors import DamagedError, UsageError
from seit.exports.graphs import Graph, InputKind, choose_graph, make_graphs
from seit.exports.spec import ExportSpec
from seit.tensors import read_tensors
from seit.tokenizers import Tokenizer, load_tokenizer
from seit.training import TOKENIZER_NAME, WEIGHTS_NAME


def load_exported(folder: str | Path) -> nn.Module:
    """Build the timm model of an exported folder and load its weights strictly.

    Its forward takes embedded tokens (B, C, h, w), or normalized pixels, and returns logits (B, N);
    :func:`load_graph` returns a network that takes ids or images.

    Raises:
        UsageError: the folder has no exported model, or no weights.
        DamagedError: a file is not as written.
    """
    return _load(Path(folder), ExportSpec.read(Path(folder)))


def load_graph(folder: str | Path, *, inputs: InputKind = "tokens") -> Graph:
    """Load the PyTorch equivalent of the ONNX file with the same inputs.

    Args:
        folder: folder of an exported model.
        inputs: ``tokens``, int64 (B, L·H, W) → (logits (B, N),); ``images``, uint8 (B, S, S, 3), or
            ``audio``, float32 (B, T) → (logits, tokens). A model that reads pixels takes ``images``
            → (logits,).

    Raises:
        UsageError: the folder has no exported model, or the model does not take these inputs.
        DamagedError: a file is not as written.
    """
    path = Path(folder)
    spec = ExportSpec.read(path)
    graphs, missing = make_graphs(spec, _load(path, spec), _load_tokenizer(path, spec))
    return choose_graph(graphs, missing, inputs)


def _load(folder: Path, spec: ExportSpec) -> nn.Module:
    path = folder / WEIGHTS_NAME
    if not path.is_file():
        raise UsageError(f"{folder} holds no {WEIGHTS_NAME}; export with --format safetensors")
    weights = read_tensors(path, advice="export again")
    return spec.model.build(weights, origin=str(folder)).eval()


def _load_tokenizer(folder: Path, spec: ExportSpec) -> Tokenizer:
    tokenizer = load_tokenizer(folder / TOKENIZER_NAME, advice="export again")
    if tokenizer.fingerprint != spec.tokenizer.fingerprint:
        raise DamagedError(f"{folder / TOKENIZER_NAME} is another tokenizer; export again")
    return tokenizer
