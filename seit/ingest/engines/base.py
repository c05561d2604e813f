"""Protocol of engines, which make the shards of a job.

An engine takes the plans of missing shards and yields each plan's index with its record, in any
order, after writing the shard and its record. The result depends only on the plans and the
tokenizer, so another engine may continue the job.
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
    """Inputs of an engine.

    Attributes:
        config: settings of the job, with the image size resolved.
        workspace: destination of shards and records.
        tokenizer: tokenizer on the job's device.
        reader: reader of inputs in this process.
        advance: callback that receives the number of inputs done and how many of them were skipped.
    """

    config: TokenizeConfig
    workspace: Workspace
    tokenizer: Tokenizer
    reader: Reader
    advance: Callable[[int, int], None]


Engine: TypeAlias = Callable[[Work, Sequence[ShardPlan]], Iterator[tuple[int, DoneShard]]]
