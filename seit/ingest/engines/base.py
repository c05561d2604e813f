"""Protocol of engines, which make the shards of a job.

An engine takes the plans of missing shards and yields each plan's number with its record, in any
order; the shards and the records of the workspace are written by then. The result depends on the
plans and the tokenizer alone, so another engine may continue the job.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from seit.ingest.config import TokenizeConfig
from seit.ingest.inputs.reader import Reader
from seit.ingest.plan import ShardPlan
from seit.ingest.workspace import DoneShard, Workspace
from seit.tokenizers import Tokenizer


@dataclass(frozen=True, kw_only=True)
class Work:
    """Everything an engine needs.

    Attributes:
        config: the job's; its image size is settled.
        workspace: receives shards and records.
        tokenizer: on the job's device.
        reader: reads inputs in this process.
        advance: receives the number of inputs done and, among them, of inputs skipped.
    """

    config: TokenizeConfig
    workspace: Workspace
    tokenizer: Tokenizer
    reader: Reader
    advance: Callable[[int, int], None]


Engine: TypeAlias = Callable[[Work, Sequence[ShardPlan]], Iterator[tuple[int, DoneShard]]]
