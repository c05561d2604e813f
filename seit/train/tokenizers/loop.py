"""The loop that trains a learned tokenizer."""

import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from seit.devices import choose_device
from seit.errors import SeitError, UsageError
from seit.files import explained_writes, write_atomically
from seit.tokenize.sources import list_corpus
from seit.tokenizers import save_tokenizer
from seit.tokenizers.autoencoder import Autoencoder, NetworkConfig, unfold
from seit.tokenizers.conv import ConvTokenizer, to_planes
from seit.tokenizers.kmeans import fit_kmeans
from seit.train.checkpoint import TrainState, list_checkpoints, load_checkpoint, save_checkpoint
from seit.train.tokenizers.config import TokenizerConfig
from seit.train.tokenizers.crops import Crops
from seit.train.tokenizers.losses import ms_ssim
from seit.train.tokenizers.quantizers import LearnedQuantizer, Quantizer

Progress = Callable[[int, int, dict[str, float]], None]
"""Called with (steps done, steps in all, the latest figures)."""

CONFIG_NAME = "config.json"
METRICS_NAME = "metrics.jsonl"
WEIGHTS_NAME = "tokenizer.safetensors"
_START_BATCHES = 64
_START_PATCHES = 131_072
_LOG_EVERY = 50
_CLIP_GRAD = 1.0


@dataclass(frozen=True)
class TokenizerResult:
    """What a training came to.

    Attributes:
        file: the tokenizer.
        fingerprint: of it.
        steps: in all.
        psnr_db: of the training crops of the last steps, in dB.
        seconds: duration of this call.
    """

    file: str
    fingerprint: str
    steps: int
    psnr_db: float
    seconds: float


class Model(nn.Module):
    """What is trained: the network and its quantiser."""

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        self.quantizer: Quantizer = LearnedQuantizer(config)
        self.network = Autoencoder(
            NetworkConfig(
                dim=self.quantizer.dim,
                encoder_width=config.encoder_width,
                encoder_blocks=config.encoder_blocks,
                decoder_width=config.decoder_width,
                decoder_blocks=config.decoder_blocks,
            )
        )


def train_tokenizer(
    source: str | Path,
    config: TokenizerConfig,
    out: str | Path,
    *,
    resume: bool = False,
    progress: Progress | None = None,
) -> TokenizerResult:
    """Train a `conv-vq` tokenizer on a corpus and leave it in the folder ``out``.

    Equal arguments give equal weights on the same CPU with the same number of threads, also when
    the training was interrupted and resumed.

    Raises:
        UsageError: settings, corpus and folder do not fit together; nothing was changed.
        SeitError: the loss is not finite any more, or a file cannot be written.
    """
    started = time.perf_counter()
    folder = Path(out)
    _enter(folder, config, resume=resume)
    device = choose_device(config.device)
    corpus = list_corpus(source)
    splits = corpus.by_split()
    crops = Crops(splits.get("train") or next(iter(splits.values())), config)
    torch.manual_seed(config.seed)
    training = _Training(config, crops, device, folder, progress)
    tokenizer = training.finish()
    path = folder / WEIGHTS_NAME
    save_tokenizer(tokenizer, path)
    return TokenizerResult(
        file=str(path),
        fingerprint=tokenizer.fingerprint,
        steps=config.steps,
        psnr_db=training.figures.get("psnr_db", math.nan),
        seconds=time.perf_counter() - started,
    )


def _enter(folder: Path, config: TokenizerConfig, *, resume: bool) -> None:
    path = folder / CONFIG_NAME
    settings = json.dumps(asdict(config), indent=2) + "\n"
    if path.is_file():
        if not resume:
            raise UsageError(f"{folder} already holds a training; pass --resume to go on with it")
        if path.read_text() != settings:
            raise UsageError(
                f"{folder} was begun with other settings; repeat those of {path} or choose "
                "another folder"
            )
        return
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder} already holds something else; choose a new folder")
    with explained_writes(folder):
        folder.mkdir(parents=True, exist_ok=True)
    write_atomically(path, settings.encode())


class _Training:
    """The state of one call of :func:`train_tokenizer`."""

    def __init__(
        self,
        config: TokenizerConfig,
        crops: Crops,
        device: torch.device,
        folder: Path,
        progress: Progress | None,
    ) -> None:
        self.config = config
        self.crops = crops
        self.device = device
        self.folder = folder
        self.progress = progress
        self.model = Model(config).to(device)
        self.figures: dict[str, float] = {}

    def finish(self) -> ConvTokenizer:
        config = self.config
        checkpoints = self.folder / "checkpoints"
        found = list_checkpoints(checkpoints)
        if not found:
            self._start()
        network = self.model.network
        self.average = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(config.ema))
        self.optimizer = torch.optim.AdamW(
            network.parameters(), lr=config.lr, betas=(0.9, 0.99), weight_decay=0.0
        )
        state = TrainState(self.model, self.average, self.optimizer)
        step = load_checkpoint(found[-1], state) if found else 0
        self.model.train()
        mark, since = time.perf_counter(), step
        sums = torch.zeros(4)
        for batch in self.crops.batches(step, config.steps):
            sums += self._step(step, batch)
            step += 1
            if step % _LOG_EVERY == 0 or step == config.steps:
                seconds = time.perf_counter() - mark
                self._log(step, (sums / (step - since)).tolist(), (step - since) / seconds)
                sums.zero_()
                mark, since = time.perf_counter(), step
            if step % config.checkpoint_every == 0 or step == config.steps:
                save_checkpoint(checkpoints, step, state)
            if self.progress:
                self.progress(step, config.steps, self.figures)
        return self._tokenizer()

    @torch.no_grad()
    def _start(self) -> None:
        """Set network and codes to the principal components and k-means centres of patches."""
        planes = [to_planes(self.crops.batch(-1 - i & 0xFFFFFFFF)) for i in range(_START_BATCHES)]
        network = self.model.network
        patches = unfold(torch.cat(planes), *network.config.patch)
        patches_ND = patches.permute(0, 2, 3, 1).flatten(0, 2)[:_START_PATCHES]
        latents_NC = network.cpu().start_from_patches(patches_ND, whitening=self.config.whitening)
        self.model.quantizer.cpu().start(
            fit_kmeans(latents_NC, self.config.codes, seed=self.config.seed)
        )
        self.model.to(self.device)

    def _step(self, step: int, batch: Tensor) -> Tensor:
        config = self.config
        for group in self.optimizer.param_groups:
            group["lr"] = _learning_rate(step, config)
        planes = to_planes(batch.to(self.device))
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            latents = self.model.network.encoder(planes)
            quantized = self.model.quantizer(latents.float())
            rebuilt = self.model.network.decoder(quantized.latents).float()
        # Planes go from -1 to 1; the losses are of values from 0 to 1.
        error = (rebuilt - planes) / 2
        squared = error.square()
        similarity = ms_ssim(rebuilt / 2 + 0.5, planes / 2 + 0.5).mean()
        loss = (
            config.l1 * error.abs().mean()
            + config.l2 * squared.mean()
            + config.ssim * (1 - similarity)
            + quantized.loss
        )
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.network.parameters(), _CLIP_GRAD)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.average.update_parameters(self.model.network)
        psnr = -10 * squared.detach().mean((1, 2, 3)).clamp(min=1e-12).log10().mean()
        used = quantized.ids.unique().numel() / config.codes
        return torch.tensor([float(loss.detach()), float(psnr), float(similarity.detach()), used])

    def _log(self, step: int, figures: list[float], steps_per_second: float) -> None:
        loss, psnr, similarity, used = figures
        if not math.isfinite(loss):
            raise SeitError(f"the loss became {loss} before step {step}; lower lr and start again")
        self.figures = {
            "loss": loss,
            "psnr_db": psnr,
            "ms_ssim": similarity,
            "codes_used_a_batch": used,
            "crops_per_second": steps_per_second * self.config.batch_size,
        }
        line = json.dumps({"step": step, **self.figures}) + "\n"
        with explained_writes(self.folder), (self.folder / METRICS_NAME).open("a") as file:
            file.write(line)

    def _tokenizer(self) -> ConvTokenizer:
        network = cast(Autoencoder, self.average.module)
        return ConvTokenizer(
            self.model.quantizer.codebook().cpu(),
            network.cpu(),
            image_size=self.config.size,
        )


def _learning_rate(step: int, config: TokenizerConfig) -> float:
    """Linear warm-up, then a cosine to 0."""
    warmup = min(config.warmup_steps, config.steps - 1)
    if step < warmup:
        return config.lr * (step + 1) / warmup
    return config.lr * (1 + math.cos(math.pi * (step - warmup) / (config.steps - warmup))) / 2
