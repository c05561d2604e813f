"""Leaving seit: a finished run as safetensors with a model card, ONNX and torch.export files."""

from seit.train.exporting.exporting import ExportedFile, ExportResult, export_run
from seit.train.exporting.loading import load_exported, load_graph

__all__ = ["ExportResult", "ExportedFile", "export_run", "load_exported", "load_graph"]
