"""Compare degrees of whitening of the patch tokenizer by PSNR and top-1; prints JSON.

    uv run python tools/study/whitening.py PHOTOS OUT --steps 600

PHOTOS is a class-per-folder tree; OUT keeps tokenizers, stores and runs.
"""

import argparse
import json
from dataclasses import asdict, replace
from pathlib import Path

import torch

from seit.config import build, read_yaml
from seit.ingest import TokenizeConfig, tokenize
from seit.ingest.config import DEFAULT_SIZE
from seit.ingest.fit import FIT_INPUTS, make_reader, sample_inputs
from seit.ingest.sources import list_corpus
from seit.recipes import find_recipe
from seit.tokenizers import ImageInputs, PatchTokenizer, save_tokenizer
from seit.training import TrainConfig, train
from seit.training.versions import environment


def main() -> None:
    """Run the study and print its JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("photos", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--whitening", type=float, nargs="+", default=[0.0, 0.25, 0.5])
    parser.add_argument("--recipe", default="small-cpu")
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    with make_reader(TokenizeConfig(inputs=ImageInputs(DEFAULT_SIZE))) as reader:
        corpus = list_corpus(arguments.photos)
        images = sample_inputs(corpus, reader, count=FIT_INPUTS, split="train")
    config = build(TrainConfig, read_yaml(find_recipe(arguments.recipe).path), origin="recipe")
    config = replace(
        config,
        schedule=replace(config.schedule, steps=arguments.steps),
        run=replace(config.run, seed=arguments.seed),
    )
    rows = []
    for whitening in arguments.whitening:
        name = f"whitening-{whitening:g}"
        file = arguments.out / f"{name}.safetensors"
        save_tokenizer(PatchTokenizer.fit(images, whitening=whitening), file)
        store = arguments.out / name
        result = tokenize(arguments.photos, store, TokenizeConfig(tokenizer=str(file)))
        run = arguments.out / f"run-{name}-{arguments.steps}-{arguments.seed}"
        outcome = train(config, store, out=run, resume=True)
        rows.append({"whitening": whitening, **result.quality, **asdict(outcome)})
    report = {
        "study": "whitening",
        "photos": len(corpus.instances),
        "recipe": arguments.recipe,
        "seed": arguments.seed,
        "rows": rows,
        "environment": environment(torch.device("cpu")),
    }
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
