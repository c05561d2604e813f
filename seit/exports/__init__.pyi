from .classifier import classifier_onnx as classifier_onnx
from .encoders import make_encoder as make_encoder
from .export import (
    FORMATS as FORMATS,
    ExportedFile as ExportedFile,
    ExportResult as ExportResult,
    export_run as export_run,
)
from .load import load_exported as load_exported, load_graph as load_graph
from .programs import OPSET as OPSET, quiet as quiet
