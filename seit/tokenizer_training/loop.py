"""Training loop of a learned tokenizer.

Legend: P figures of a step.
"""

import logging
import math
from collections.abc import Generator, Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from typing_extensions import override

from seit.models import count_parameters
from seit.progress import Progress
from seit.tokenizer_training.adversary import Adversary
from seit.tokenizer_training.base import BaseLoop
from seit.tokenizer_training.batches import Batch
from seit.tokenizer_training.config import TokenizerConfig
from seit.tokenizer_training.distillation import Distillation, start_student
from seit.tokenizer_training.domains import Domain
from seit.tokenizer_training.losses import reconstruction
from seit.tokenizer_training.model import Model
from seit.tokenizers import Autoencoder, LearnedTokenizer, unfold
from seit.training import Run, TrainState, list_checkpoints, set_learning_rate

_LOG = logging.getLogger(__name__)
_START_BATCHES = 64
_START_PATCHES = 131_072


class TokenizerLoop(BaseLoop[Batch]):
    """One call of :func:`seit.tokenizer_training.train.train_tokenizer`.

    Starts from the tokenizer ``origin``, or from principal components and centers of patches.
    """

    def __init__(
        self,
        config: TokenizerConfig,
        domain: Domain,
        num_classes: int,
        device: torch.device,
        run: Run,
        progress: Progress | None,
        origin: LearnedTokenizer | None,
    ) -> None:
        heads = {
            "class_loss": config.classes,
            "hog_loss": config.hog,
            "rate_loss": config.code_rate,
            "distillation_loss": float(config.distill_steps),
        }
        rivals = dict.fromkeys(("adversarial_loss", "discriminator_loss"), config.adversarial)
        extra = [name for name, weight in (heads | rivals).items() if weight]
        self.parts = ("loss", "psnr_db", "ms_ssim", "codes_used_a_batch", *extra)
        super().__init__(config, run, device, progress, parts=self.parts)
        self.config = config
        self.domain = domain
        self.origin = origin
        self.distillation = None
        if origin is not None and config.distill_steps:
            self.distillation = Distillation(origin, device)
        self.model = Model(config, num_classes=num_classes).to(device)
        planes = self.model.network.config.planes
        self.adversary = Adversary(config, planes, device) if config.adversarial else None
        if not list_checkpoints(run.checkpoints):
            self._start()
        self.average = AveragedModel(
            self.model.network, multi_avg_fn=get_ema_multi_avg_fn(config.ema)
        )
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=config.lr, betas=(0.9, 0.99), weight_decay=0.0
        )
        adversaries = () if self.adversary is None else (self.adversary,)
        self.state = TrainState(
            self.model,
            self.average,
            self.optimizer,
            also=(*adversaries, self.journal),
            all_or_none=not config.distill_steps,  # only the encoder learns in the first steps
        )

    @torch.no_grad()
    def _start(self) -> None:
        """Initialize network and codes from the origin, or from components and patch centers."""
        if self.origin is not None:
            weights = self.origin.network_weights()
            if self.distillation is not None:
                start_student(self.model.network, weights)
            else:
                self.model.network.load_state_dict(weights)
            self.model.quantizer.restore(self.origin.codebook)
            return
        _LOG.info("fitting the first codes to patches of %d batches", _START_BATCHES)
        batches, cpu = self.domain.batches, torch.device("cpu")
        planes = [batches.batch(-1 - i & 0xFFFFFFFF).planes(cpu) for i in range(_START_BATCHES)]
        network = self.model.network
        patches = unfold(torch.cat(planes), *network.config.patch)
        patches_ND = patches.permute(0, 2, 3, 1).flatten(0, 2)[:_START_PATCHES]
        latents_NC = network.cpu().start_from_patches(patches_ND, whitening=self.config.whitening)
        self.model.quantizer.cpu().start(latents_NC, seed=self.config.seed)
        self.model.to(self.device)

    @override
    def begin(self, *, resumed: bool) -> None:
        _LOG.info(
            "training a tokenizer of %s codes, %s parameters: %s steps of %d crops on %s",
            f"{self.config.num_codes:,}",
            f"{count_parameters(self.model):,}",
            f"{self.total:,}",
            self.batch_size,
            self.device,
        )
        self.model.train()

    @override
    def batches(self, step: int) -> Generator[Batch]:
        yield from self.domain.batches.batches(step, self.total)

    @override
    def take(self, step: int, batch: Batch) -> Tensor:
        rate = self.rate(step)
        set_learning_rate(self.optimizer, rate)
        planes = batch.planes(self.device)
        if self.distillation is not None and step < self.config.distill_steps:
            loss = self.distillation.loss(self.model.network, planes)
            self._learn(loss)
            return self._figures(loss, {"loss": loss, "distillation_loss": loss})
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            rebuilt = self.model(planes)
        distance = reconstruction(rebuilt.planes, planes, self.config)
        losses = self.model.head_losses(rebuilt, planes, batch.labels.to(self.device))
        adversary = self.adversary
        if adversary is not None and adversary.has_begun(step):
            losses["adversarial_loss"] = adversary.loss(rebuilt.planes)
        loss = sum(losses.values(), start=distance.loss + rebuilt.quantized.loss)
        self._learn(loss)
        if adversary is not None and adversary.has_begun(step):
            losses["discriminator_loss"] = adversary.learn(planes, rebuilt.planes, lr=rate)
        levels = rebuilt.quantized.ids.unbind(1)
        used = sum(ids.unique().numel() for ids in levels) / len(levels) / self.config.num_codes
        figures = {
            "loss": loss,
            "psnr_db": distance.psnr_db,
            "ms_ssim": distance.ms_ssim,
            "codes_used_a_batch": loss.new_tensor(used),
            **losses,
        }
        return self._figures(loss, figures)

    def _learn(self, loss: Tensor) -> None:
        self.update.backward(loss)
        self.update.take(self.model, self.optimizer)
        self.average.update_parameters(self.model.network)

    def _figures(self, loss: Tensor, known: Mapping[str, Tensor]) -> Tensor:
        """Return the figures of a step (P,), NaN for those that it does not have."""
        absent = loss.new_tensor(math.nan)
        return torch.stack([known.get(name, absent).detach().float() for name in self.parts])

    @override
    def inputs(self, step: int) -> tuple[Mapping[str, Tensor], Sequence[str]]:
        batch = self.domain.batches.batch(step)
        return {"inputs": batch.planes(self.device), "labels": batch.labels}, batch.keys

    @override
    def networks(self) -> Sequence[nn.Module | None]:
        rival = None if self.adversary is None else self.adversary.network
        return self.model, self.average, rival

    def tokenizer(self) -> LearnedTokenizer:
        """Return the tokenizer with averaged weights, its codes sorted by use."""
        quantizer = self.model.quantizer
        network = cast(Autoencoder, self.average.module).cpu()
        return self.domain.tokenizer(quantizer.codebook().cpu(), network, quantizer.bound)
