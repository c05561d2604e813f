"""One training step: forward, backward and update, on every rank alike.

Legend: B batch of a rank, N classes, L layers of stochastic depth.
"""

import hashlib

import torch
from timm.utils import ModelEmaV3
from torch import Tensor, nn

from seit.augment import Augmented, SampleRandom
from seit.errors import UsageError
from seit.train.config import TrainConfig
from seit.train.depth import Depth
from seit.train.feeds import TrainBatch
from seit.train.losses import classification_loss, distillation_loss
from seit.train.optim import learning_rate, make_optimizer, set_learning_rate
from seit.train.precision import make_autocast, make_scaler
from seit.train.ranks import Ranks
from seit.train.teacher import Teacher


class Stepper:
    """The model of a run and what changes it; see `step`.

    Attributes:
        model: the network, its parameters named as timm names them.
        average: the running average of its weights, where there is one.
        optimizer: of its parameters.
    """

    def __init__(
        self, config: TrainConfig, model: nn.Module, ranks: Ranks, teacher: Teacher | None
    ) -> None:
        self.config = config
        self.ranks = ranks
        self.teacher = teacher
        share, rest = divmod(config.data.batch_size // ranks.world_size, config.optim.accumulate)
        if rest or not share:
            raise UsageError(
                f"a rank's {config.data.batch_size // ranks.world_size} samples do not fall into "
                f"{config.optim.accumulate} equal parts; change data.batch_size or optim.accumulate"
            )
        self.depth = Depth(model)
        self.model = model
        self.optimizer = make_optimizer(model, config.optim, ranks.device)
        self.average = (
            ModelEmaV3(model, decay=config.ema.decay, use_warmup=config.ema.warmup)
            if config.ema.decay
            else None
        )
        self.autocast = make_autocast(config, ranks.device)
        self.scaler = make_scaler(config, ranks.device)
        self._shared = ranks.share(model)
        self._network = torch.compile(self._shared) if config.run.compile else self._shared

    @property
    def evaluated_model(self) -> nn.Module:
        """The average where there is one, else the model itself."""
        return self.average.module if self.average is not None else self.model

    def step(self, number: int, batch: TrainBatch, *, steps_per_epoch: int) -> Tensor:
        """Take step ``number`` (from 0); returns the loss (scalar) of the rank's samples."""
        config = self.config
        rate = learning_rate(number, config, steps_per_epoch)
        set_learning_rate(self.optimizer, rate)
        _seed_torch(config.run.seed, number, self.ranks.rank)
        loss = self._backward(batch)
        self.scaler.unscale_(self.optimizer)
        if config.optim.clip_grad:
            nn.utils.clip_grad_norm_(self.model.parameters(), config.optim.clip_grad)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        if self.average is not None:
            self.average.update(self.model, step=number)
        return loss

    def _backward(self, batch: TrainBatch) -> Tensor:
        """Leave the gradient of the batch's mean loss; returns that loss."""
        parts = self.config.optim.accumulate
        augmented = batch.augmented
        size = len(augmented.inputs) // parts
        scales_BL = self._draw_depth(batch)
        teacher_BN = self.teacher.probabilities(batch) if self.teacher else None
        total = augmented.inputs.new_zeros((), dtype=torch.float32)
        for part in range(parts):
            rows = slice(part * size, (part + 1) * size)
            if scales_BL is not None:
                self.depth.set(scales_BL[rows])
            last = part + 1 == parts
            if last or self._shared is self.model:
                total += self._part(augmented, teacher_BN, rows) / parts
            else:
                with self._shared.no_sync():  # type: ignore[operator] # of DistributedDataParallel
                    total += self._part(augmented, teacher_BN, rows) / parts
        return total

    def _part(self, augmented: Augmented, teacher_BN: Tensor | None, rows: slice) -> Tensor:
        batch = Augmented(*(value[rows] for value in augmented))
        with self.autocast:
            logits_BN = self._network(batch.inputs)
        logits_BN = logits_BN.float()
        loss = classification_loss(logits_BN, batch, self.config.loss)
        if teacher_BN is not None:
            alpha = self.config.distill.alpha
            taught = distillation_loss(logits_BN, teacher_BN[rows], self.config.distill)
            loss = (1 - alpha) * loss + alpha * taught
        self.scaler.scale(loss / self.config.optim.accumulate).backward()
        return loss.detach()

    def _draw_depth(self, batch: TrainBatch) -> Tensor | None:
        """The scales (B, L) of stochastic depth, where there is any."""
        if not self.depth.layers:
            return None
        random = SampleRandom(self.config.run.seed, batch.epoch, batch.positions)
        return self.depth.draw(random)


def _seed_torch(seed: int, step: int, rank: int) -> None:
    """Let torch's own draws, as of dropout, depend on the step and the rank alone."""
    digest = hashlib.blake2b(f"{seed}/{step}/{rank}".encode(), digest_size=7).digest()
    torch.manual_seed(int.from_bytes(digest))
