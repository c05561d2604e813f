"""Accuracy against bytes: one backbone and budget on every way to store the same pictures.

After the first figure of SeiT (Park et al., arXiv 2303.11114), which sets tokens beside JPEG of
lower quality, lower resolutions and subsets.
"""

from seit.analyze.frontier.config import FrontierConfig
from seit.analyze.frontier.planning import PlannedPoint, plan_frontier
from seit.analyze.frontier.rows import Row, pareto_front
from seit.analyze.frontier.running import FrontierResult, frontier

__all__ = [
    "FrontierConfig",
    "FrontierResult",
    "PlannedPoint",
    "Row",
    "frontier",
    "pareto_front",
    "plan_frontier",
]
