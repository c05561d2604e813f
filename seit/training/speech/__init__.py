"""Fine-tuning of speech models on waveforms, on the common training loop."""
