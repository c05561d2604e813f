"""Accuracy against bytes: one backbone and budget on every way to store the same pictures.

After the first figure of SeiT (Park et al., arXiv 2303.11114), which compares tokens with JPEG of
lower quality, lower resolutions and subsets.
"""

from seit.analysis.frontier.config import FrontierConfig
from seit.analysis.frontier.plan import PlannedPoint, plan_frontier
from seit.analysis.frontier.rows import Row, pareto_front
from seit.analysis.frontier.run import FrontierResult, run_frontier

__all__ = [
    "FrontierConfig",
    "FrontierResult",
    "PlannedPoint",
    "Row",
    "pareto_front",
    "plan_frontier",
    "run_frontier",
]
