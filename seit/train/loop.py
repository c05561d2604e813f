"""The one training loop.

Legend: B batch, N classes.
"""

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from timm.utils import ModelEmaV3
from torch import Tensor, nn
from torch.nn import functional as F

from seit.augment import Augmented
from seit.devices import choose_device
from seit.errors import SeitError
from seit.models import count_parameters, load_weights
from seit.shards import Store, open_store
from seit.train.checkpoint import TrainState, list_checkpoints, load_checkpoint, save_checkpoint
from seit.train.config import TrainConfig
from seit.train.evaluate import Evaluation, evaluate
from seit.train.feeds import Feed, build_model, computes_in_bfloat16, make_feed
from seit.train.optim import learning_rate, make_optimizer, num_steps
from seit.train.report import write_run_report
from seit.train.run import Run, environment

NUM_EVALUATIONS = 10
Progress = Callable[[int, int, dict[str, float]], None]
"""Called with (steps done, steps in all, the latest figures)."""


@dataclass(frozen=True)
class TrainResult:
    """What a run came to.

    Attributes:
        top1: accuracy of the evaluated weights on the validation split, 0–1.
        top5: the same among the five highest logits.
        loss: mean cross-entropy there, in nats.
        steps: steps of the whole run.
        samples_per_second: training rate of this call, evaluation left out.
        data_wait_fraction: share of that time spent waiting for the next augmented batch.
        seconds: duration of this call.
        parameters: trainable parameters.
    """

    top1: float
    top5: float
    loss: float
    steps: int
    samples_per_second: float
    data_wait_fraction: float
    seconds: float
    parameters: int


def train(
    config: TrainConfig,
    store: Store | str | Path,
    *,
    out: str | Path,
    resume: bool = False,
    init_from: str | Path | None = None,
    progress: Progress | None = None,
) -> TrainResult:
    """Train a classifier on ``store`` and leave a run folder at ``out``.

    Args:
        config: what to do.
        store: the store, opened or by path.
        out: a new folder, or with ``resume`` that of an interrupted run with the same settings.
        resume: go on where that run stopped; the result is bit for bit that of an undisturbed run
            on the same CPU. A finished run is left as it is and its result returned.
        init_from: a finished run whose weights to start from.
        progress: called after each step.

    Raises:
        UsageError: settings, store and folder do not fit together; nothing was changed.
        SeitError: the loss is not finite any more, or a file cannot be written.
    """
    store = store if isinstance(store, Store) else open_store(store)
    started = time.perf_counter()
    if resume and (recorded := _recorded_result(out, config, store)):
        return recorded
    device = choose_device(config.run.device)
    torch.manual_seed(config.run.seed)
    feed = make_feed(store, config, device)
    patch_size = _patch_size(store)
    model = build_model(
        config.model, feed.augment, num_classes=len(store.classes), patch_size=patch_size
    )
    if init_from is not None:
        load_weights(model, Run.open(init_from).load_weights(), origin=str(init_from))
    run = Run.start(out, config, store, resume=resume)
    training = _Training(config, feed, model.to(device), device, run, progress)
    evaluation = training.finish()
    result = TrainResult(
        **evaluation.metrics(),
        steps=training.total,
        samples_per_second=training.samples_per_second,
        data_wait_fraction=training.data_wait_fraction,
        seconds=time.perf_counter() - started,
        parameters=count_parameters(model),
    )
    run.write_info(
        {
            **run.info,
            "status": "finished",
            "result": asdict(result),
            "environment": environment(device),
            "confusion": evaluation.confusion.tolist(),
        }
    )
    write_run_report(run)
    return result


def make_autocast(config: TrainConfig, device: torch.device) -> torch.autocast:
    """The arithmetic of forward passes: bf16 where the config or a CUDA device asks for it."""
    wanted = computes_in_bfloat16(config, device)
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=wanted)


def mixed_loss(logits: Tensor, batch: Augmented, smoothing: float) -> Tensor:
    """Cross-entropy (scalar) of logits (B, N) against both labels of CutMix, by their weights."""
    own, partner = (
        F.cross_entropy(logits, labels, reduction="none", label_smoothing=smoothing)
        for labels in (batch.labels, batch.partner_labels)
    )
    return (batch.weight * own + (1 - batch.weight) * partner).mean()


class _Training:
    """The state of one call of :func:`train`."""

    def __init__(
        self,
        config: TrainConfig,
        feed: Feed,
        model: nn.Module,
        device: torch.device,
        run: Run,
        progress: Progress | None,
    ) -> None:
        assert feed.train is not None
        self.config = config
        self.feed = feed
        self.model = model
        self.device = device
        self.run = run
        self.progress = progress
        self.steps_per_epoch = len(feed.train)
        self.total = num_steps(config.schedule, self.steps_per_epoch)
        self.eval_every = config.run.eval_every or max(1, math.ceil(self.total / NUM_EVALUATIONS))
        self.autocast = make_autocast(config, device)
        self.optimizer = make_optimizer(model, config.optim)
        self.average = (
            ModelEmaV3(model, decay=config.ema.decay, use_warmup=config.ema.warmup)
            if config.ema.decay
            else None
        )
        self.latest: dict[str, float] = {}
        self.busy_seconds = 0.0
        self.wait_seconds = 0.0
        self.steps_here = 0

    @property
    def samples_per_second(self) -> float:
        """Training rate of this call."""
        samples = self.steps_here * self.config.data.batch_size
        return samples / self.busy_seconds if self.busy_seconds else 0.0

    @property
    def data_wait_fraction(self) -> float:
        """Share of the training time spent on the next batch."""
        return self.wait_seconds / self.busy_seconds if self.busy_seconds else 0.0

    @property
    def evaluated_model(self) -> nn.Module:
        """The average where there is one, else the model itself."""
        return self.average.module if self.average is not None else self.model

    def finish(self) -> Evaluation:
        """Run the steps that are left; save, evaluate and return the evaluation of the end."""
        state = TrainState(
            self.model, self.average.module if self.average else None, self.optimizer
        )
        step = self._resume(state)
        batches = self.feed.train_inputs(step)
        self.model.train()
        evaluation: Evaluation | None = None
        loss_sum, loss_steps = torch.zeros((), device=self.device), 0
        mark = time.perf_counter()
        while step < self.total:
            waited = time.perf_counter()
            batch = next(batches)
            self.wait_seconds += time.perf_counter() - waited
            loss_sum += self._step(step, batch)
            loss_steps += 1
            step += 1
            self.steps_here += 1
            if step % self.config.run.log_every == 0 or step == self.total:
                self._log(step, float(loss_sum) / loss_steps, time.perf_counter() - mark)
                loss_sum.zero_()
                loss_steps = 0
            if step % self.eval_every == 0 or step == self.total:
                self.busy_seconds += time.perf_counter() - mark
                evaluation = self._evaluate(step)
                save_checkpoint(self.run.checkpoints, step, state)
                mark = time.perf_counter()
            if self.progress:
                self.progress(step, self.total, self.latest)
        evaluation = evaluation or self._evaluate(step, record=False)
        self.run.save_weights(self.evaluated_model)
        return evaluation

    def _resume(self, state: TrainState) -> int:
        checkpoints = list_checkpoints(self.run.checkpoints)
        if not checkpoints:
            self.run.rewind_metrics(0)
            return 0
        step = load_checkpoint(checkpoints[-1], state)
        self.run.rewind_metrics(step)
        return step

    def _step(self, step: int, batch: Augmented) -> Tensor:
        rate = learning_rate(step, self.config, self.steps_per_epoch)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        with self.autocast:
            logits = self.model(batch.inputs)
        loss = mixed_loss(logits.float(), batch, self.config.loss.label_smoothing)
        loss.backward()
        if self.config.optim.clip_grad:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.config.optim.clip_grad)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.average is not None:
            self.average.update(self.model, step=step)
        return loss.detach()

    def _log(self, step: int, loss: float, seconds_since_mark: float) -> None:
        if not math.isfinite(loss):
            raise SeitError(
                f"the training loss became {loss} before step {step}; lower optim.lr or set "
                "optim.clip_grad, and start again"
            )
        busy = self.busy_seconds + seconds_since_mark
        self.latest = {
            **self.latest,
            "loss": loss,
            "lr": self.optimizer.param_groups[0]["lr"],
            "samples_per_second": self.steps_here * self.config.data.batch_size / busy,
            "data_wait_fraction": self.wait_seconds / busy,
        }
        entry = {key: value for key, value in self.latest.items() if not key.startswith("val_")}
        self.run.append_metrics({"step": step, "split": "train", **entry})

    def _evaluate(self, step: int, *, record: bool = True) -> Evaluation:
        num_classes = len(self.feed.classes)
        evaluation = evaluate(
            self.evaluated_model,
            self.feed.evaluation_inputs(),
            num_classes=num_classes,
            device=self.device,
            autocast=self.autocast,
        )
        if record:
            self.latest["val_top1"] = evaluation.top1
            self.run.append_metrics({"step": step, "split": "val", **evaluation.metrics()})
        return evaluation


def _recorded_result(out: str | Path, config: TrainConfig, store: Store) -> TrainResult | None:
    """The result of the run at ``out``, if it has finished."""
    if not Run.exists(out):
        return None
    info = Run.start(out, config, store, resume=True).info
    return TrainResult(**info["result"]) if info["status"] == "finished" else None


def _patch_size(store: Store) -> int:
    """Pixels per token along a side; 1 where the tokens are none of images."""
    levels = len(store.codebook) if store.codebook.ndim == 3 else 1
    rows = store.card.tokenizer.grid[0] // levels
    return int(store.card.tokenizer.preprocessing.get("size", rows)) // rows
