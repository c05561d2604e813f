"""Learned tokenizers: small convolutional networks, trained by gradient descent."""
