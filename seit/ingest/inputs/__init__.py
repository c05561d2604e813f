"""Conversion of image and audio bytes to arrays that a tokenizer takes."""
