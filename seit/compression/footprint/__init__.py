"""Footprint of a run, an ONNX file or a tokenizer: counts from its files, and what it measures."""
