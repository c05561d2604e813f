"""Targets of a measurement: runs, ONNX files and tokenizers."""
