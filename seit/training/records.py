"""Schemas of the files in a run folder.

Unknown keys, as written by a later version, are kept.
"""

from typing import Annotated, Any, NotRequired, TypedDict

from msgspec import Meta

FINISHED = "finished"
"""Status of a run that has a result."""
MAX_RECORD_BYTES = 1 << 26
"""Maximum size of `run.json` or `seeds.json`."""
MAX_METRICS_BYTES = 1 << 28
"""Maximum size of `metrics.jsonl`."""


class Identity(TypedDict):
    """Seal of the store of a run, and the classes in the order of the logits."""

    store: str
    classes: list[str]


class RunRecord(TypedDict):
    """Contents of `run.json`."""

    status: str
    identity: Identity
    kind: NotRequired[str]


class FinishedRecord(RunRecord):
    """Contents of `run.json` of a finished run; a classifier's includes its confusion matrix."""

    result: dict[str, Any]
    environment: NotRequired[dict[str, str]]
    confusion: NotRequired[list[list[int]] | dict[str, Any]]


class MetricsEntry(TypedDict):
    """Line of `metrics.jsonl`: metrics of a split after a number of steps."""

    step: Annotated[int, Meta(ge=0, le=1 << 53)]
    split: NotRequired[str]


class SeedRecord(TypedDict):
    """Entry of one run in `seeds.json`, apart from its result."""

    seed: int
    folder: str


class SeedsRecord(TypedDict):
    """Contents of `seeds.json`."""

    status: str
    config: dict[str, Any]
    store: str
    runs: list[SeedRecord]
    summary: dict[str, Any]
