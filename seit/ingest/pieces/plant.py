"""Setup of makers of pieces, here and in actors."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

from seit.devices import choose_device
from seit.ingest.config import TokenizeConfig
from seit.ingest.encoder import Encoder
from seit.ingest.engines.base import Work
from seit.ingest.engines.encoders import encoder_of_actor
from seit.ingest.fit import make_reader
from seit.ingest.inputs.reader import Reader
from seit.ingest.pieces.maker import PieceMaker, PieceTask
from seit.ingest.pieces.piece import PieceRecord, PieceSource
from seit.ingest.pieces.place import JobPlace
from seit.ingest.pieces.revision import RevisionTask, revise
from seit.ingest.resolve import with_own_backbone
from seit.shards import Codec, TokenLayout
from seit.tokenizers import Tokenizer

Task = PieceTask | RevisionTask


@dataclass(frozen=True)
class PiecePlant:
    """Setup of makers of pieces; see :class:`~seit.ingest.engines.base.Plant`.

    Attributes:
        place: place of the job.
        source: reader of pieces.
        classes: the classes, if they are known beforehand.
        codec: name of the codec.
    """

    place: JobPlace
    source: PieceSource
    classes: tuple[str, ...] | None
    codec: str

    def here(self, work: Work[Task, PieceRecord], encoder: Encoder) -> "_Maker":
        """Return a maker of this process."""
        return self._maker(work.config, work.tokenizer, encoder, work.reader)

    def load_tokenizer(self, config: TokenizeConfig) -> Tokenizer:
        """Load the tokenizer of a running job, on the CPU."""
        return with_own_backbone(self.place.load_tokenizer(), config)

    def join(self, config: TokenizeConfig, encoders: Sequence[Any], stack: ExitStack) -> "_Maker":
        """Return a maker of a running job, in an actor."""
        tokenizer = self.load_tokenizer(config).to(choose_device(config.device))
        encoder = encoder_of_actor(tokenizer, config, encoders, stack)
        workers = max(config.ray_cpus, 1)
        reader = stack.enter_context(make_reader(replace(config, workers=workers)))
        return self._maker(config, tokenizer, encoder, reader)

    def to_json(self, record: PieceRecord) -> bytes:
        """Return a record as JSON."""
        return record.to_json()

    def from_json(self, data: bytes) -> PieceRecord:
        """Read the output of :meth:`to_json`."""
        return PieceRecord.from_json(data)

    def counts(self, _task: Task, record: PieceRecord) -> tuple[int, int]:
        """Return 1, and how many inputs of the piece were skipped."""
        return 1, len(record.skipped)

    def _maker(
        self, config: TokenizeConfig, tokenizer: Tokenizer, encoder: Encoder, reader: Reader
    ) -> "_Maker":
        self.place.check_worker(device=encoder.device, mixed=config.mixed_processors)
        layout = TokenLayout(grid=tokenizer.grid, num_codes=tokenizer.num_codes)
        codec = self.place.load_codec(layout, self.codec)
        maker = PieceMaker(
            self.source,
            self.place,
            classes=self.classes,
            tokenizer=tokenizer,
            codec=codec,
            encoder=encoder,
            reader=reader,
            config=config,
        )
        return _Maker(self.place, maker, codec)


@dataclass(frozen=True)
class _Maker:
    """Maker of pieces and of their revisions, which skips what is finished."""

    place: JobPlace
    pieces: PieceMaker
    codec: Codec

    def make(self, task: Task) -> PieceRecord:
        """Carry out a task, unless it is finished."""
        finished = self.place.read_record(task.name)
        if finished is not None and finished.revision == task.revision:
            return finished
        if isinstance(task, PieceTask):
            return self.pieces.make(task)
        return revise(self.place, self.codec, task)
