"""What files of a run's folder may hold: the shapes that readers rely on.

Keys that a later seit adds are left as they are.
"""

from typing import Annotated, Any, NotRequired, TypedDict

from msgspec import Meta

FINISHED = "finished"
"""The status of a run that has a result."""
MAX_RECORD_BYTES = 1 << 26
"""Largest `run.json` or `seeds.json`."""
MAX_METRICS_BYTES = 1 << 28
"""Largest `metrics.jsonl`."""


class Identity(TypedDict):
    """The store that a run was made on, by its seal, and the classes in the order of the logits."""

    store: str
    classes: list[str]


class RunRecord(TypedDict):
    """What `run.json` holds."""

    status: str
    identity: Identity
    kind: NotRequired[str]


class FinishedRecord(RunRecord):
    """What `run.json` of a finished run holds; a classifier's has its confusion matrix as well."""

    result: dict[str, Any]
    environment: NotRequired[dict[str, str]]
    confusion: NotRequired[list[list[int]] | dict[str, Any]]


class MetricsEntry(TypedDict):
    """What a line of `metrics.jsonl` holds: figures of a split after so many steps."""

    step: Annotated[int, Meta(ge=0, le=1 << 53)]
    split: NotRequired[str]


class SeedRecord(TypedDict):
    """What `seeds.json` holds of one run, besides its result."""

    seed: int
    folder: str


class SeedsRecord(TypedDict):
    """What `seeds.json` holds."""

    status: str
    config: dict[str, Any]
    store: str
    runs: list[SeedRecord]
    summary: dict[str, Any]
