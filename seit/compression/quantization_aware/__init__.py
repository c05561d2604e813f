"""Quantization-aware training: steps of weights and activations learned with the weights."""
