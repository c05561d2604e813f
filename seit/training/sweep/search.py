"""The search of a sweep: draws, rungs, and the winner's files."""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import yaml

from seit.config import flatten, nest, to_mapping
from seit.errors import SeitError, UsageError
from seit.files import write_atomically
from seit.printable import printable
from seit.progress import Progress
from seit.shards import Store
from seit.training.evaluate import evaluate_run
from seit.training.sweep.page import write_sweep_page
from seit.training.sweep.plan import SweepPlan
from seit.training.sweep.record import SweepRecord
from seit.training.sweep.result import Judgment, SweepResult, TrialResult
from seit.training.sweep.rungs import best
from seit.training.sweep.trial import DEV, WORST, Score, Trial, make_trial

RECIPE_NAME = "best.yaml"
_LOG = logging.getLogger(__name__)
_DRAWS = 50
"""Most draws per trial that fits, before the limits count as too tight."""
_REFUSALS = 50
"""Most draws that training refuses before the first that it takes."""


class Search:
    """One call of `sweep_settings`, which holds the folder's lock."""

    def __init__(
        self,
        plan: SweepPlan,
        store: Store,
        out: Path,
        record: SweepRecord,
        progress: Progress | None,
    ) -> None:
        self.plan, self.store, self.out = plan, store, out
        self.config, self.space = plan.config, plan.space
        self.extent, self.rungs = plan.extent, plan.rungs
        self.record, self.progress = record, progress

    def finish(self, original: Store) -> SweepResult:
        """Train all trials, and evaluate the winner on the validation split of ``original``."""
        marks = self.rungs.marks
        alive = self._first_rung(marks[0])
        numbers = self.rungs.survivors(len(alive))[1:]
        for before, mark, number in zip(marks, marks[1:], numbers, strict=False):
            alive = self._best(alive, number, mark=before)
            _LOG.info("%d trials go on to step %s", number, f"{mark:,}")
            for trial in alive:
                self._judge(trial, mark, cost=self.rungs.cost(self.record.num_trained or 1))
        winner = self._best(alive, 1, mark=marks[-1])[0]
        if self._result_of(winner).status == "diverged":
            raise SeitError(
                f"all trials diverged; lower the learning rates of the space, and see "
                f"{winner.folder}"
            )
        return self._end(winner, original)

    def _first_rung(self, mark: int) -> list[Trial]:
        """Draw trials and train them to the first rung; return those that were.

        Raises:
            UsageError: too few can be trained.
        """
        wanted = self.record.num_trained or self.plan.trials
        most, refused = _DRAWS * wanted, 0
        alive: list[Trial] = []
        for trial in self._draws(most):
            if alive and self.record.num_trained is None and not self._has_time(len(alive) + 1):
                _LOG.info("%d trials are what the budget pays for", len(alive))
                break
            if self._judge(trial, mark, cost=self.rungs.cost(wanted)):
                alive.append(trial)
            else:
                refused += 1
            if len(alive) == wanted:
                break
            if not alive and refused == _REFUSALS:
                raise UsageError(self._refusal(0, wanted, draws=trial.number + 1))
        else:
            raise UsageError(self._refusal(len(alive), wanted, draws=most))
        self._write(replace(self.record, num_trained=len(alive)))
        return alive

    def _has_time(self, number: int) -> bool:
        """Return whether ``number`` trials are expected to end in the budget of seconds."""
        limit = self.extent.budget_seconds
        if limit is None:
            return True
        spent = sum(one.seconds for trial in self.record.trials for one in trial.judgments.values())
        steps = sum(trial.steps for trial in self.record.trials)
        return spent / max(steps, 1) * self.rungs.cost(number) <= limit

    def _draws(self, most: int) -> Iterator[Trial]:
        """Yield those of ``most`` draws that give a network within the limits; record the rest."""
        for number in range(most):
            settings = self.space.draw(number, seed=self.config.run.seed)
            result = TrialResult(number=number, settings=settings, status="refused")
            try:
                trial = make_trial(
                    number, settings, self.config, unit=self.rungs.unit, out=self.out
                )
                size = trial.size(self.store)
            except UsageError as error:
                self._write(self.record.with_trial(replace(result, reason=str(error))))
                continue
            result = replace(result, **asdict(size))
            reason = self._beyond(result)
            if reason:
                self._write(
                    self.record.with_trial(replace(result, status="too large", reason=reason))
                )
                continue
            if all(one.number != number for one in self.record.trials):
                self._write(self.record.with_trial(replace(result, status="drawn")))
            yield trial

    def _beyond(self, found: TrialResult) -> str:
        """Return in what a network exceeds the limits; an empty text if in nothing."""
        limits = {"bytes": self.extent.max_bytes, "flops": self.extent.max_flops}
        for name, limit in limits.items():
            value: int = getattr(found, name)
            if limit is not None and value > limit:
                return f"{value:,} {name}, over {limit:,}"
        return ""

    def _refusal(self, given: int, wanted: int, *, draws: int) -> str:
        large = [one for one in self.record.trials if one.status == "too large"]
        refused = [one for one in self.record.trials if one.status == "refused"]
        text = f"{given} of {draws:,} draws can be trained, and {wanted} are wanted"
        if large:
            least = {name: min(getattr(one, name) for one in large) for name in ("bytes", "flops")}
            text += (
                f"; the smallest that is too large has {least['bytes']:,} bytes, and the least "
                f"operations are {least['flops']:,} FLOPs: raise --max-bytes or --max-flops"
            )
        if refused:
            text += f"; {refused[0].reason}"
        return text

    def _judge(self, trial: Trial, mark: int, *, cost: int) -> bool:
        """Train a trial to a rung, unless the record has its score there, and record the score.

        Returns:
            False if training refuses the settings before the run has begun, which is recorded.
        """
        known = self._result_of(trial)
        if str(mark) in known.judgments:
            return True
        before, spent = known.steps, sum(one.steps for one in self.record.trials)

        def tell(done: int, total: int, latest: Mapping[str, float]) -> None:
            del total
            if self.progress is not None:
                self.progress(spent + done - before, cost, latest)

        try:
            (top1, loss), seconds = trial.train_to(mark, self.store, tell)
        except UsageError as error:
            if trial.has_begun:
                raise
            _LOG.info("trial %d is refused: %s", trial.number, error)
            self._write(self.record.with_trial(replace(known, status="refused", reason=str(error))))
            return False
        is_lost = (top1, loss) == WORST
        judgment = Judgment(
            top1=None if is_lost else top1, loss=None if is_lost else loss, seconds=seconds
        )
        _LOG.info(
            "trial %d at step %s: %s",
            *(trial.number, f"{mark:,}", "diverged" if is_lost else f"dev top-1 {top1:.2%}"),
        )
        found = replace(
            known,
            status="diverged" if is_lost else "trained",
            reason="",
            judgments={**known.judgments, str(mark): judgment},
        )
        self._write(self.record.with_trial(found))
        return True

    def _best(self, trials: list[Trial], number: int, *, mark: int) -> list[Trial]:
        """Return the best trials by their scores at a rung, in the order of their numbers."""
        scores = [_score(self._result_of(one).judgments[str(mark)]) for one in trials]
        return [trials[place] for place in sorted(best(scores, number))]

    def _result_of(self, trial: Trial) -> TrialResult:
        return next(one for one in self.record.trials if one.number == trial.number)

    def _write(self, record: SweepRecord) -> None:
        if record != self.record:
            self.record = record
            record.write(self.out)

    def _end(self, winner: Trial, original: Store) -> SweepResult:
        """Evaluate the winner, and write its recipe, the report and the result."""
        split = self.config.data.val_split
        device = self.config.run.device
        val = evaluate_run(winner.folder, original, split=split, device=device)
        trials = self.record.trials
        last = self._result_of(winner).last
        assert last is not None
        result = SweepResult(
            best=winner.number,
            settings=winner.settings,
            dev_top1=last.top1 or 0.0,
            dev_samples=len(self.store[DEV]),
            top1=val.top1,
            loss=val.loss,
            val_samples=val.samples,
            steps=sum(one.steps for one in trials),
            seconds=sum(one.seconds for trial in trials for one in trial.judgments.values()),
            rungs=self.rungs.marks,
            recipe=self.out / RECIPE_NAME,
            trials=trials,
        )
        write_atomically(result.recipe, self._recipe(winner, result).encode())
        write_sweep_page(self.out, self.config, result)
        kept = {name: value for name, value in result.record().items() if name != "trials"}
        self._write(replace(self.record, status="finished", result=kept))
        return result

    def _recipe(self, winner: Trial, result: SweepResult) -> str:
        """Return the winner's settings as YAML, for the store that the sweep was started on."""
        settings = flatten(to_mapping(self.config)) | dict(winner.settings)
        body = nest(settings, origin=RECIPE_NAME)
        drawn = ", ".join(f"{name} {value}" for name, value in winner.settings.items())
        head = (
            f"# Winner of {len(result.trials)} draws: {printable(drawn)}.\n"
            f"# Top-1 {result.dev_top1:.2%} on {result.dev_samples:,} held-out training samples, "
            f"{result.top1:.2%} on {result.val_samples:,} of validation.\n"
        )
        return head + yaml.safe_dump(_plain(body), sort_keys=False)


def _score(found: Judgment) -> Score:
    if found.top1 is None or found.loss is None:
        return WORST
    return found.top1, found.loss


def _plain(value: Any) -> Any:
    """Convert tuples to lists, for safe YAML."""
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    return [_plain(entry) for entry in value] if isinstance(value, list | tuple) else value
