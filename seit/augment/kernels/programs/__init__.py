"""Triton programs of the augmentation kernels. Importing any of them requires Triton."""
