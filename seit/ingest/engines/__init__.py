"""Engines that make the shards of a job: in this process, or in the actors of a Ray cluster."""
