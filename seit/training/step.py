"""One training step: forward, backward and update, identical on every rank.

Legend: B batch of a rank, L layers of stochastic depth, P parts of the loss.
"""

import hashlib
from contextlib import AbstractContextManager, nullcontext
from typing import Any, cast

import torch
from torch import Tensor, nn

from seit.augment import SampleRandom
from seit.errors import UsageError
from seit.training.average import WeightAverage
from seit.training.feeds import TrainBatch
from seit.training.objective import Objective
from seit.training.optimizer import learning_rate, make_optimizer, set_learning_rate
from seit.training.precision import make_scaler
from seit.training.ranks import Ranks
from seit.training.sparsity import Sparsity
from seit.training.stochastic_depth import Depth
from seit.training.update import Update


class Stepper:
    """Model of a run and everything that updates it; see `step`.

    Attributes:
        model: the objective's, with parameters named as in timm.
        average: the running average of its weights, if there is one.
        optimizer: the optimizer of its parameters.
        update: scaling, clipping and step of the optimizer.
    """

    def __init__(self, objective: Objective[Any], ranks: Ranks) -> None:
        config = objective.config
        self.config = config
        self.objective = objective
        self.ranks = ranks
        share, rest = divmod(config.data.batch_size // ranks.world_size, config.optim.accumulate)
        if rest or not share:
            raise UsageError(
                f"a rank's {config.data.batch_size // ranks.world_size} samples cannot be divided "
                f"into {config.optim.accumulate} equal parts; change data.batch_size or "
                "optim.accumulate"
            )
        model = objective.model
        self.depth = Depth(model)
        self.model = model
        self.sparsity = (
            Sparsity(model, config.sparsity, seed=config.run.seed)
            if config.sparsity.share
            else None
        )
        self.optimizer = make_optimizer(model, config.optim, ranks.device)
        self.average = (
            WeightAverage(model, decay=config.ema.decay, use_warmup=config.ema.warmup)
            if config.ema.decay
            else None
        )
        self.keep_sparse()
        self.update = Update(make_scaler(config, ranks.device), clip_grad=config.optim.clip_grad)
        self._shared = ranks.share(model)
        self._network: nn.Module = self._shared
        if config.run.compile:
            self._network = compile_network(self._shared, config.run.compile_scope)

    @property
    def evaluated_model(self) -> nn.Module:
        """Average of the weights if there is one, else the model itself."""
        return self.average.module if self.average is not None else self.model

    def eager(self) -> AbstractContextManager[None]:
        """Run compiled blocks without their programs, whose shapes are those of a training step."""
        if not self.config.run.compile:
            return nullcontext()
        return cast(AbstractContextManager[None], torch.compiler.set_stance("force_eager"))

    def keep_sparse(self) -> None:
        """Zero the masked weights of a sparse run, in the model and in its average."""
        if self.sparsity is not None:
            self.sparsity.apply_()
            for copy in self.objective.sparse_copies():
                self.sparsity.apply_to_(copy)
            if self.average is not None:
                self.sparsity.apply_to_(self.average.module)

    def step(self, number: int, batch: TrainBatch, *, steps_per_epoch: int, total: int) -> Tensor:
        """Take step ``number`` (from 0) of ``total``.

        Returns:
            The parts (P,) of the loss of the rank's samples; see `Objective`.
        """
        config = self.config
        rate = learning_rate(number, config, steps_per_epoch)
        set_learning_rate(self.optimizer, rate)
        seed_torch(config.run.seed, number, self.ranks.rank)
        losses_P = self._backward(batch, number)
        self.update.take(
            self.model,
            self.optimizer,
            mask=None if self.sparsity is None else self.sparsity.mask_gradients_,
            follow=lambda: self.objective.after_update(number, total),
        )
        if self.sparsity is not None:
            self.sparsity.apply_()
        self.objective.after_step(number, total)
        if self.average is not None:
            self.average.update(self.model, step=number)
        return losses_P

    def _backward(self, batch: TrainBatch, number: int) -> Tensor:
        """Compute the gradient of the batch's mean loss; return its parts."""
        parts = self.config.optim.accumulate
        size = len(batch.positions) // parts
        scales_BL = self._draw_depth(batch)
        prepared = self.objective.prepare(batch, number)
        total_P = torch.zeros(len(self.objective.parts), device=self.ranks.device)
        for part in range(parts):
            rows = slice(part * size, (part + 1) * size)
            if scales_BL is not None:
                self.depth.set(scales_BL[rows])
            last = part + 1 == parts
            if last or self._shared is self.model:
                total_P += self._part(batch, prepared, rows) / parts
            else:
                with self._shared.no_sync():  # type: ignore[operator] # of DistributedDataParallel
                    total_P += self._part(batch, prepared, rows) / parts
        return total_P

    def _part(self, batch: TrainBatch, prepared: Any, rows: slice) -> Tensor:
        losses_P = self.objective.loss(self._network, batch, prepared, rows)
        self.update.backward(losses_P[0] / self.config.optim.accumulate)
        return losses_P.detach()

    def _draw_depth(self, batch: TrainBatch) -> Tensor | None:
        """Return the scales (B, L) of stochastic depth, if there is any."""
        if not self.depth.layers:
            return None
        random = SampleRandom(self.config.run.seed, batch.epoch, batch.positions)
        return self.depth.draw(random)


def compile_network(network: nn.Module, scope: str) -> nn.Module:
    """Compile a network, or all of its blocks in place; return what runs it.

    Raises:
        UsageError: the network has no blocks to compile.
    """
    if scope == "network":
        return cast(nn.Module, torch.compile(network))
    blocks = [
        block
        for name, module in network.named_modules()
        if name.rpartition(".")[2] == "blocks"
        for block in module.children()
    ]
    if not blocks:
        raise UsageError(
            f"run.compile_scope is 'blocks', but a {type(network).__name__} has none; set it to "
            "network"
        )
    for block in blocks:
        block.compile()
    return network


def seed_torch(seed: int, step: int, rank: int) -> None:
    """Seed torch's own draws, such as those of dropout, from the step and the rank alone."""
    digest = hashlib.blake2b(f"{seed}/{step}/{rank}".encode(), digest_size=7).digest()
    value = int.from_bytes(digest)
    torch.default_generator.manual_seed(value)
    # torch.manual_seed would also queue a seed, with a stack trace, for a CUDA that is never used.
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(value)
    if torch.backends.mps.is_available():
        torch.mps.manual_seed(value)
