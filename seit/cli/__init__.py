"""The `seit` command: one small module a command that parses, calls and prints."""

from seit.cli.app import main

__all__ = ["main"]
