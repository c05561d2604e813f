"""Speech models of the library transformers as backbones: waveforms → frames."""
