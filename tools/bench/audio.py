"""Compare a classifier on audio tokens with one on the spectrograms they encode; prints JSON.

    uv run python tools/bench/audio.py CLIPS OUT --tokenizer mel-vq-5s --folds 5 --json

CLIPS is a class-per-folder tree with train/ and val/. OUT holds its store, which gives bytes per
clip and the rate of tokenizing. With --folds the splits of CLIPS are ignored: the first digit of a
file's name is its fold, and each given fold is validated once while the others are trained on (in
ESC-10 fold 5 is val/).

Both inputs use the same network, recipe, augmentation, order and number of steps. Spectrograms are
fed as if a codebook held every patch of the corpus, so that a look-up gives the patch itself,
standardized and not quantized. Only tokens have synonyms. The tokenizer is fitted to the training
clips of each fold. Windows are counted; most clips here are one.
"""

import argparse
import json
import os
import platform
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import soundfile
import soxr
import torch
from timm.utils import ModelEmaV3
from torch import Tensor, nn

from seit.augment import TokenAugment
from seit.config import build, read_yaml
from seit.devices import choose_device
from seit.ingest import TokenizeConfig, tokenize
from seit.ingest.fit import make_reader
from seit.ingest.resolve import resolve_tokenizer
from seit.ingest.sources import list_corpus
from seit.models import build_backbone
from seit.recipes import find_recipe
from seit.tokenizers import PRESETS, MelTokenizer
from seit.tokenizers.learned.autoencoder import unfold
from seit.training import TrainConfig
from seit.training.evaluate import evaluate
from seit.training.losses import classification_loss
from seit.training.optimizer import learning_rate, make_optimizer
from seit.training.precision import make_autocast
from seit.training.versions import environment

EVAL_BATCH = 128


@dataclass(frozen=True)
class Clips:
    """Decoded windows of a corpus.

    Attributes:
        waves: float32 (N, T).
        labels: int64 (N,).
        folds: int64 (N,), the first digits of file names; −1 without one.
        is_val: bool (N,), from the corpus's own splits.
        classes: class names.
    """

    waves: Tensor
    labels: Tensor
    folds: Tensor
    is_val: Tensor
    classes: tuple[str, ...]


def read_clips(source: Path, name: str) -> Clips:
    """Decode a corpus for a tokenizer."""
    config, _ = resolve_tokenizer(TokenizeConfig(tokenizer=name))
    corpus = list_corpus(source, modality="audio")
    with make_reader(config) as reader:
        samples = [part for entry in reader.read(corpus.instances) for part in entry.samples]
    digits = [Path(part.instance.key).name[0] for part in samples]
    return Clips(
        waves=torch.from_numpy(np.stack([part.values for part in samples])),
        labels=torch.tensor([part.instance.label for part in samples]),
        folds=torch.tensor([int(digit) if digit.isdigit() else -1 for digit in digits]),
        is_val=torch.tensor([part.instance.split == "val" for part in samples]),
        classes=corpus.classes,
    )


def train_and_evaluate(
    codebook: Tensor, tokens: Tensor, clips: Clips, is_val: Tensor, config: TrainConfig
) -> dict[str, float]:
    """Train the recipe's network on codes (K, C) or (L, K, C) at ``tokens`` (N, H, W)."""
    started = time.perf_counter()
    torch.manual_seed(config.run.seed)
    device = choose_device(config.run.device)
    tokens, labels, is_val = (each.to(device) for each in (tokens, clips.labels, is_val))
    height, width = tokens.shape[1:]
    augment = TokenAugment(codebook, (height, width), config.augment).to(device)
    model = build_backbone(
        config.model.name,
        channels=augment.channels,
        input_size=augment.output_size,
        stem=config.model.stem,
        num_classes=len(clips.classes),
        **config.model.timm_kwargs(),
    ).to(device)
    rows = (~is_val).nonzero().squeeze(1)
    average = fit(model, augment, tokens[rows], labels[rows], config)
    rows = is_val.nonzero().squeeze(1)
    batches = ((augment.evaluate(tokens[part]), labels[part]) for part in rows.split(EVAL_BATCH))
    result = evaluate(
        average,
        batches,
        num_classes=len(clips.classes),
        device=device,
        autocast=make_autocast(config, device),
    )
    seconds = time.perf_counter() - started
    return {**result.metrics(), "validated": result.samples, "seconds": round(seconds, 1)}


def fit(
    model: nn.Module, augment: TokenAugment, tokens: Tensor, labels: Tensor, config: TrainConfig
) -> nn.Module:
    """Train for the recipe's steps over shuffled epochs, and return the averaged weights."""
    steps, size, seed = config.schedule.steps, config.data.batch_size, config.run.seed
    assert steps is not None, "the benchmark needs a recipe with schedule.steps"
    steps_per_epoch = len(tokens) // size
    optimizer = make_optimizer(model, config.optim, tokens.device)
    average = ModelEmaV3(model, decay=config.ema.decay, use_warmup=config.ema.warmup)
    for step in range(steps):
        epoch, place = divmod(step, steps_per_epoch)
        order = torch.randperm(len(tokens), generator=torch.Generator().manual_seed(epoch))
        positions = torch.arange(place * size, (place + 1) * size)
        rows = order[positions].to(tokens.device)
        batch = augment(
            tokens[rows],
            labels[rows],
            positions=positions.to(tokens.device),
            seed=seed,
            epoch=epoch,
        )
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, config, steps_per_epoch)
        loss = classification_loss(model(batch.inputs), batch, config.loss)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), config.optim.clip_grad)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        average.update(model, step=step)
    return average.module


def mel_inputs(tokenizer: MelTokenizer, waves: Tensor) -> tuple[Tensor, Tensor]:
    """Return every spectrogram patch (N · H · W, C), and its index at each place (N, H, W)."""
    mel = tokenizer.front_end.config
    planes = [tokenizer.front_end.planes(part) for part in waves.split(EVAL_BATCH)]
    patches = torch.cat([unfold(part, *mel.patch) for part in planes]).permute(0, 2, 3, 1)
    numbers = torch.arange(patches[..., 0].numel()).view(patches.shape[:3])
    return patches.flatten(0, 2), numbers


def rows_of(clips: Clips, fold: int | None, config: TrainConfig, name: str) -> list[dict]:
    """Measure both inputs on one fold, or on the corpus's own splits (None)."""
    is_val = clips.is_val if fold is None else clips.folds == fold
    assert is_val.any(), f"no clip is in fold {fold}"
    preset = PRESETS[name]
    tokenizer = preset.ready() or preset.fit(clips.waves[~is_val][:512], num_codes=1024, seed=0)
    with torch.inference_mode():
        tokens = torch.cat([tokenizer.encode(part) for part in clips.waves.split(EVAL_BATCH)])
    with torch.no_grad():
        inputs = {"tokens": (tokenizer.codebook, tokens.clone())}
    if isinstance(tokenizer, MelTokenizer):
        inputs["mel"] = mel_inputs(tokenizer, clips.waves)
    results = []
    for kind, (codebook, ids) in inputs.items():
        settings = config
        if kind == "mel":
            settings = replace(config, augment=replace(config.augment, synonym_prob=0.0))
        result = train_and_evaluate(codebook, ids, clips, is_val, settings)
        results.append({"input": kind, "fold": fold, "seed": config.run.seed, **result})
    return results


def main() -> None:
    """Run the benchmark and print its JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("clips", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--tokenizer", default="mel-vq-5s", choices=[*PRESETS][1:])
    parser.add_argument("--recipe", default="audio-small-cpu")
    parser.add_argument("--steps", type=int, help="default: the recipe's")
    parser.add_argument("--batch-size", type=int, help="default: the recipe's")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--folds", type=int, nargs="*", help="folds to validate on, one by one")
    parser.add_argument("--json", action="store_true", help="ignored; output is always JSON")
    arguments = parser.parse_args()
    job = TokenizeConfig(tokenizer=arguments.tokenizer)
    store = arguments.out / "store"
    made = tokenize(arguments.clips, store, job)
    timed = tokenize(
        arguments.clips,
        arguments.out / "timed",
        replace(job, tokenizer=str(save_of(store)), overwrite=True),
    )
    config = build(TrainConfig, read_yaml(find_recipe(arguments.recipe).path), origin="recipe")
    steps = arguments.steps or config.schedule.steps
    config = replace(
        config,
        schedule=replace(config.schedule, steps=steps, warmup_steps=max(1, steps // 15)),
        data=replace(config.data, batch_size=arguments.batch_size or config.data.batch_size),
    )
    clips = read_clips(arguments.clips, arguments.tokenizer)
    runs = []
    for fold in arguments.folds or [None]:
        for seed in range(arguments.seeds):
            seeded = replace(config, run=replace(config.run, seed=seed, device="cpu"))
            runs += rows_of(clips, fold, seeded, arguments.tokenizer)
    report = {
        "benchmark": "audio",
        "tokenizer": arguments.tokenizer,
        "windows": len(clips.waves),
        "recipe": arguments.recipe,
        "steps": steps,
        "batch_size": config.data.batch_size,
        "seeds": arguments.seeds,
        "bytes_per_window": made.bytes_per_sample,
        "payload_bytes_per_window": made.payload_bytes_per_sample,
        "source_bytes_per_window": made.source_bytes_per_sample,
        "quality": made.quality,
        "tokenize_windows_per_second": timed.samples_per_second,
        "top1": means(runs),
        "runs": runs,
        "environment": {
            **environment(torch.device("cpu")),
            "soundfile": soundfile.__version__,
            "soxr": soxr.__version__,
            "processor": platform.processor() or platform.machine(),
            "cores": os.cpu_count(),
        },
    }
    print(json.dumps(report, indent=2))


def save_of(store: Path) -> Path:
    """Write the store's tokenizer to a file next to the store."""
    from seit import open as open_store
    from seit.tokenizers import save_tokenizer

    path = store.with_name("tokenizer.safetensors")
    save_tokenizer(open_store(store).load_tokenizer(), path)
    return path


def means(runs: list[dict]) -> dict[str, dict[str, float]]:
    """Return mean, deviation and number of the runs of each input."""
    found = {}
    for kind in dict.fromkeys(run["input"] for run in runs):
        values = np.array([run["top1"] for run in runs if run["input"] == kind])
        spread = float(values.std(ddof=1)) if len(values) > 1 else 0.0
        found[kind] = {"mean": float(values.mean()), "std": spread, "n": len(values)}
    return found


if __name__ == "__main__":
    main()
