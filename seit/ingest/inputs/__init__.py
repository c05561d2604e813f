"""Inputs: bytes of images and audio → arrays that a tokenizer takes."""
