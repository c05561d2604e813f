"""`seit tokenizer …`, with one module for each of the larger subcommands."""

from seit.cli.tokenizer.commands import command

__all__ = ["command"]
