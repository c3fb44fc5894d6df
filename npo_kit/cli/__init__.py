"""The command line: each command beside its options."""

from npo_kit.cli.program import main

__all__ = ["main"]
