"""Looking at stores and runs: the comparison of tokens with pixels."""

from seit.analyze.quickstart import QuickstartResult, quickstart

__all__ = ["QuickstartResult", "quickstart"]
