"""Exports of a finished run: safetensors with a model card, ONNX and torch.export files."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
