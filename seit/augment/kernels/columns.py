"""Columns of a plan, written by the plan program and read by the fused program."""

PLAN_COLUMNS = 10
"""Top, left, height and width of the crop; top, left, bottom and right of the CutMix box; the
partner; whether the sample gets noise."""
