"""Draw what each token augmentation does, decoded by the store's tokenizer: docs/augmentations/.

    uv run python tools/draw_augmentations.py docs/augmentations WORK --steps 800

WORK holds a rendered corpus, its store and a TokenAdapt network trained for --steps steps; all are
made on the first call. The pictures are PNG files of less than 60 kB.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image, ImageDraw
from torch import Tensor
from torch.nn import functional as F

from seit import open as open_store
from seit.augment import (
    Geometry,
    SampleRandom,
    add_noise_,
    apply_cutmix,
    apply_mixup,
    channel_units,
    codebook_unit,
    color_adapt_,
    mask_bands,
    nearest_codes,
    random_crop_boxes,
    random_warps,
    replace_synonyms,
    resample,
    resize_matrices,
    swap_squares,
    time_roll,
)
from seit.demo import write_corpus
from seit.ingest import TokenizeConfig, tokenize
from seit.models.tokenadapt import load_tokenadapt
from seit.shards import Store
from seit.tokenizer_training.pairs import copy_tokens
from seit.tokenizer_training.tokenadapt import TokenAdaptConfig, train_tokenadapt

SIZE, CODES = 128, 512
CELL, GAP, MARGIN, COLORS = 112, 4, 72, 256
ROWS = (3, 10, 27, 44)
SEED = 11


def prepare(work: Path, steps: int) -> tuple[Store, Path]:
    """Make the corpus, store and network that are missing."""
    photos, store, network = work / "photos", work / "store", work / f"adapt-{steps}.safetensors"
    write_corpus(photos, num_train=1000, num_val=100, size=SIZE)
    if not (store / "store.json").exists():
        tokenize(photos, store, TokenizeConfig(size=SIZE, codes=CODES))
    if not network.exists():
        config = TokenAdaptConfig(
            dim=96,
            num_heads=3,
            batch_size=16,
            steps=steps,
            warmup_steps=50,
            lr=2e-3,
            val_images=100,
            device="cpu",
        )
        print(train_tokenadapt(store, photos, config, network))
    return open_store(store), network


class Painter:
    """Decodes tokens and embeddings into pictures, and writes rows of them to a file."""

    def __init__(self, store: Store, out: Path) -> None:
        self.tokenizer = store.load_tokenizer()
        self.codebook = self.tokenizer.codebook
        self.out = out

    def embed(self, tokens: Tensor) -> Tensor:
        """Tokens (B, H, W) → embeddings (B, C, H, W)."""
        return F.embedding(tokens, self.codebook).permute(0, 3, 1, 2).contiguous()

    def decode(self, x: Tensor) -> list[Image.Image]:
        """Embeddings (B, C, H, W) → pictures; the patch tokenizer decodes linearly."""
        weights = self.tokenizer.tensors()
        patches = (x.permute(0, 2, 3, 1) @ weights["synthesis"] + weights["mean"]).clamp(0, 1)
        side = int((patches.shape[-1] // 3) ** 0.5)
        B, H, W = patches.shape[:3]
        pixels = patches.view(B, H, W, side, side, 3).permute(0, 1, 3, 2, 4, 5)
        pixels = (pixels.reshape(B, H * side, W * side, 3) * 255).round().to(torch.uint8)
        return [Image.fromarray(entry.numpy()) for entry in pixels]

    def save(self, name: str, rows: Sequence[tuple[str, Tensor]]) -> None:
        """Write rows of (caption, tokens or embeddings) as ``name``.png."""
        width = MARGIN + len(ROWS) * (CELL + GAP)
        sheet = Image.new("RGB", (width, len(rows) * (CELL + GAP)), "white")
        draw = ImageDraw.Draw(sheet)
        for number, (caption, values) in enumerate(rows):
            top = number * (CELL + GAP)
            draw.text((2, top + CELL // 2 - 6), caption, fill="black")
            x = values if values.is_floating_point() else self.embed(values)
            for column, picture in enumerate(self.decode(x)):
                shown = picture.resize((CELL, CELL), Image.Resampling.LANCZOS)
                sheet.paste(shown, (MARGIN + column * (CELL + GAP), top))
        path = self.out / f"{name}.png"
        sheet.quantize(COLORS, dither=Image.Dither.NONE).save(path, optimize=True)
        print(f"{path}: {path.stat().st_size} bytes")


def draw(store: Store, network: Path, out: Path) -> None:
    """Draw every operation on the same four pictures."""
    painter = Painter(store, out)
    tokens = torch.from_numpy(store["val"].tokens[:]).long()[list(ROWS)]
    random = SampleRandom(SEED, 0, torch.arange(len(tokens)))
    x = painter.embed(tokens)
    unit, units = codebook_unit(painter.codebook), channel_units(painter.codebook)
    everyone = torch.ones(len(tokens), dtype=torch.bool)
    table = nearest_codes(painter.codebook)
    before, partner = ("before", tokens), ("partner", tokens.flip(0))

    def save(name: str, after: Tensor, *between: tuple[str, Tensor]) -> None:
        painter.save(name, [before, *between, ("after", after)])

    save("synonyms", replace_synonyms(tokens, table, random, rate=0.25))
    save("code-swap", swap_squares(tokens, random, max_side=0.5))
    save("crop", _cropped(x, random))
    save("token-adapt", *_adapted(store, network, tokens, random))
    save("noise", add_noise_(x.clone(), random, prob=1.0, scale=1.0, std=1.0, units=units))
    save("color-adapt", color_adapt_(x.clone(), selected=everyone, unit=unit), partner)
    save("cutmix", apply_cutmix(x, random, prob=1.0, alpha=1.0).inputs, partner)
    save("mixup", apply_mixup(x, random, alpha=0.8, selected=everyone)[0], partner)
    bands = {"freq_masks": 1, "freq_max": 0.3, "time_masks": 2, "time_max": 0.2}
    save("masks", mask_bands(x, random, fill=painter.codebook.mean(0), **bands))
    save("time-roll", time_roll(tokens, random, max_share=0.5))


def _cropped(x: Tensor, random: SampleRandom) -> Tensor:
    side = x.shape[-1]
    box = random_crop_boxes(random, (side, side), scale=(0.08, 1.0), ratio=(3 / 4, 4 / 3))
    matrices = [
        resize_matrices(start, length, in_size=side, out_size=side)
        for start, length in ((box.top, box.height), (box.left, box.width))
    ]
    return resample(x, *matrices)


def _adapted(
    store: Store, network: Path, tokens: Tensor, random: SampleRandom
) -> tuple[Tensor, tuple[str, Tensor]]:
    """Return tokens warped by TokenAdapt, and the grid itself under the same warp."""
    H, W = store.card.tokenizer.grid
    geometry = Geometry(flip_prob=1.0, affine_prob=1.0, crop_scale=(0.6, 1.0))
    warps = random_warps(random, (2 * H, 2 * W), geometry)
    adapted = load_tokenadapt(network, store).warp_tokens(tokens, warps, (H, W))
    black = store.load_tokenizer().encode(torch.zeros((1, SIZE, SIZE, 3), dtype=torch.uint8))
    copied = copy_tokens(tokens, warps, (H, W), outside=int(black[0, 0, 0]))
    return adapted, ("grid warped", copied)


def main() -> None:
    """Make the inputs and draw."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path, help="folder of the pictures")
    parser.add_argument("work", type=Path, help="folder of the corpus, store and network")
    parser.add_argument("--steps", type=int, default=800, help="training steps of TokenAdapt")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    arguments.work.mkdir(parents=True, exist_ok=True)
    draw(*prepare(arguments.work, arguments.steps), arguments.out)


if __name__ == "__main__":
    main()
