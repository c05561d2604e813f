"""Layers of a network: what their activations hold, by CCA, CKA and probes."""
