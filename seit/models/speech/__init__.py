"""Classifiers over speech models: waveforms → classes."""
