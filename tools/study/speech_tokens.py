"""A network of our own on audio tokens: masked tokens of synthetic voices.

Material is made where it is missing, and finished or interrupted runs continue.
"""

from pathlib import Path

from voices import make_corpus

import seit

TOKENIZER = "mel-vq-1s"
SECONDS = 3600
"""Speech to pretrain on; its random words are others than those that are analyzed."""
_SEED = 1


def make_stores(work: Path, sounds: Path) -> tuple[Path, Path]:
    """Return stores of the sounds to pretrain on and of those to analyze, of one tokenizer.

    Args:
        work: folder of material.
        sounds: folder of the sounds to analyze.
    """
    more, store, own = work / "more", work / "more-store", work / "speech-store"
    if not (more / "align.csv").exists():
        make_corpus(more, seconds=SECONDS, seed=_SEED)
    if not (store / "store.json").exists():
        seit.tokenize(more / "sounds", out=store, tokenizer=TOKENIZER)
    if not (own / "store.json").exists():
        seit.tokenize(sounds, out=own, tokenizer=str(store / "tokenizer.safetensors"))
    return store, own


def pretrain(work: Path, store: Path, *, steps: int) -> Path:
    """Pretrain on masked tokens for some steps, or continue; return the run."""
    run = work / f"mtm-{steps}"
    seit.pretrain(
        store,
        out=run,
        recipe="mtm-speech-small-cpu",
        resume=True,
        steps=steps,
        **{"run.eval_every": steps, "run.checkpoint_every": max(1, steps // 10)},
    )
    return run
