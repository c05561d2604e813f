"""Brain scores: how well the layers of a network predict responses to the same stimuli."""
