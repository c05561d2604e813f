"""Registry of engines."""

from seit.ingest.engines.base import Engine
from seit.ingest.engines.local import make_here
from seit.ingest.engines.ray import check_ray, make_on_ray


def choose_engine(name: str) -> Engine:
    """Return the engine ``name``: local or ray.

    Raises:
        UsageError: a required package is not installed.
    """
    if name == "ray":
        check_ray()
        return make_on_ray
    return make_here
