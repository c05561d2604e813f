"""Deployment in 8 bits: a file for ONNX Runtime, checked and measured where it runs."""
