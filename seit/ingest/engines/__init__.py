"""Where the shards of a job are made: in this process, or in the actors of a Ray cluster.

An engine takes the plans of missing shards and yields each plan's number with what became of it, in
any order; the shards and the records of the workspace are written by then. What an engine makes
depends on the plans and the tokenizer alone, so another engine may go on with the job.
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
    """What every engine needs.

    Attributes:
        config: of the job; its image size is settled.
        workspace: where shards and records go.
        tokenizer: on the job's device.
        reader: of this process.
        advance: told of inputs done and, among them, inputs skipped.
    """

    config: TokenizeConfig
    workspace: Workspace
    tokenizer: Tokenizer
    reader: Reader
    advance: Callable[[int, int], None]


Engine: TypeAlias = Callable[[Work, Sequence[ShardPlan]], Iterator[tuple[int, DoneShard]]]


def choose_engine(name: str) -> Engine:
    """The engine of that name.

    Raises:
        UsageError: it needs a package that is not installed.
    """
    if name == "ray":
        from seit.ingest.engines.ray import check_ray, make_on_ray

        check_ray()
        return make_on_ray
    from seit.ingest.engines.local import make_here

    return make_here
