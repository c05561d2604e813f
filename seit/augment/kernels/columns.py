"""Columns of a plan: what the program that draws it writes and the fused program reads."""

PLAN_COLUMNS = 10
"""Top, left, height and width of the crop; top, left, bottom and right of the CutMix box; the
partner; whether the sample is noised."""
