"""Methods that train: runs of the loop from a finished run, which is also their teacher.

An interrupted run resumes bit for bit; the run that it was started from is needed to the end.
"""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any, ClassVar

from torch import nn
from typing_extensions import override

from seit.compression.config import CompressConfig
from seit.compression.finish import compared, comparison, recorded
from seit.compression.footprint.start import measured
from seit.compression.method import Findings, Method, Task
from seit.compression.result import CompressResult
from seit.compression.subject import Subject, check_source
from seit.models import StoredWeights
from seit.shards import Store
from seit.training import (
    CLASSIFIER_FILES,
    Classifying,
    LoopFigures,
    Ranks,
    Run,
    TrainConfig,
    evaluate_run,
    run_objective,
    teacher_of,
    write_run_report,
)


class Compressing(Classifying[CompressResult]):
    """Classification whose network becomes smaller, or is smaller than its teacher's.

    Args:
        config: settings.
        store: the store of the run to compress.
        ranks: ranks of the run.
        source: the run to compress.

    Attributes:
        starts_from_source: whether training starts from its weights.
        subject: the run to compress, with its network and samples to calibrate with.
    """

    config: CompressConfig
    starts_from_source: ClassVar[bool] = True

    def __init__(self, config: CompressConfig, store: Store, ranks: Ranks, source: Run) -> None:
        check_source(source, store)
        start = source.path if self.starts_from_source else None
        super().__init__(config, store, ranks, init_from=start)
        self.subject = Subject.open(source, config, store)
        self._evaluated: nn.Module | None = None
        self._result: CompressResult | None = None

    @abstractmethod
    def stored(self, model: nn.Module) -> StoredWeights:
        """Return what a file keeps of the trained network, or of its average."""

    def findings(self, model: nn.Module) -> Findings:
        """Return what is recorded and reported of the trained network, or of its average."""
        del model
        return Findings()

    @override
    def taught(self) -> TrainConfig:
        distill = self.config.distill
        teacher = distill.teacher or str(self.subject.run.path)
        return replace(self.config, distill=replace(distill, teacher=teacher))

    @override
    def evaluate(self, model: nn.Module) -> Mapping[str, float]:
        self._evaluated = model
        return super().evaluate(model)

    @override
    def result(self, figures: LoopFigures) -> CompressResult:
        assert self._evaluated is not None
        split, device = self.config.data.val_split, str(self.ranks.device)
        before = evaluate_run(self.subject.run.path, self.store, split=split, device=device)
        size = self.stored(self._evaluated).num_bytes
        self._result = CompressResult(
            **self.figures(figures),
            **compared(self.subject, before, self.evaluation, num_bytes=size),
        )
        return self._result

    @override
    def save_weights(self, run: Run, model: nn.Module) -> None:
        run.save_stored(self.stored(model))

    @override
    def leave(self, run: Run, model: nn.Module) -> dict[str, Any]:
        entries = {**super().leave(run, model), **self.findings(model).notes}
        if self._result is not None and self.config.compression.measure:
            entries["result"] = asdict(replace(self._result, **measured(run.path)))
        return entries

    @override
    def report(self, run: Run, model: nn.Module, info: Mapping[str, Any]) -> None:
        own = comparison(recorded(info["result"], run.path))
        sections = (own, *self.findings(model).sections)
        write_run_report(run, info=info, store=self.store, sections=sections)


class Training(Method):
    """Method that trains.

    Attributes:
        objective: what its runs train.
    """

    summary: str
    objective: type[Compressing]

    def __init__(self, objective: type[Compressing], summary: str) -> None:
        self.objective = objective
        self.summary = summary

    @override
    def run(self, task: Task) -> CompressResult:
        config, source = task.config, task.source
        result = run_objective(
            lambda ranks, _: self.objective(config, task.store, ranks, Run.open(source)),
            config,
            task.store,
            out=task.out,
            resume=task.resume,
            files=CLASSIFIER_FILES,
            teacher=teacher_of(config),
            keeps_start=True,
            recorded=lambda figures: recorded(figures, task.out),
            progress=task.progress,
        )
        if not task.out.is_dir():  # another rank's machine
            return result
        return recorded(Run.open(task.out).info["result"], task.out)
