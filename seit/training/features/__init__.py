"""Features of a run's backbone: files of them, and how they are computed."""
