"""Single-machine engine: one shard at a time, decoding and encoding on all cores."""

from collections.abc import Iterator, Sequence

from seit.ingest.encoder import BatchEncoder
from seit.ingest.engines.base import Work
from seit.ingest.plan import ShardPlan
from seit.ingest.shard import ShardMaker
from seit.ingest.workspace import DoneShard


def make_here(work: Work, plans: Sequence[ShardPlan]) -> Iterator[tuple[int, DoneShard]]:
    """Make shards in this process."""
    config = work.config
    with BatchEncoder(work.tokenizer, workers=config.workers, compiled=config.compile) as encoder:
        maker = ShardMaker(
            work.tokenizer,
            encoder,
            work.reader,
            work.workspace,
            strict=config.strict,
            advance=work.advance,
        )
        for number, plan in enumerate(plans):
            yield number, maker.make(plan)
