"""Engines that make the shards of a job: this process, or actors of a Ray cluster."""
