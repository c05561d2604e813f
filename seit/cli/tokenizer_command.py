"""`seit tokenizer fit | list | info | eval`."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from cyclopts import App

from seit.cli.output import print_json, print_table, warn

command = App(name="tokenizer", help="Make or inspect a tokenizer.")


@command.command
def fit(
    src: str,
    file: Path,
    /,
    *,
    size: int = 256,
    codes: int = 1024,
    seed: int = 0,
    overwrite: bool = False,
    json: bool = False,
) -> None:
    """Fit the patch tokenizer on a sample of SRC and save it to FILE.

    Args:
        src: What `seit tokenize` takes.
        file: A new .safetensors file.
        size: Pixels of the square that images are resized and cropped to.
        codes: Codebook size.
        seed: Of the fit.
        overwrite: Replace FILE.
        json: Print the quality as one JSON object.
    """
    from seit.files import check_new_file
    from seit.tokenize import TokenizeConfig, fit_and_measure
    from seit.tokenizers import save_tokenizer

    check_new_file(file, overwrite=overwrite)
    config = TokenizeConfig(size=size, codes=codes, seed=seed)
    tokenizer, quality, warnings = fit_and_measure(src, config)
    save_tokenizer(tokenizer, file)
    warn(warnings)
    _print({"file": str(file), "fingerprint": tokenizer.fingerprint, **asdict(quality)}, json)


@command.command(name="list")
def list_(*, json: bool = False) -> None:
    """List the tokenizers that can be named.

    Args:
        json: Print one JSON object.
    """
    from seit.tokenizers import TOKENIZERS

    names = {
        name: (kind.__doc__ or "").splitlines()[0].split(";")[0].rstrip(".")
        for name, kind in TOKENIZERS.items()
    }
    _print(names, json)


@command.command
def info(file: Path, /, *, json: bool = False) -> None:
    """Say what a tokenizer file holds.

    Args:
        file: A tokenizer file.
        json: Print one JSON object.
    """
    from seit.tokenizers import load_tokenizer

    tokenizer = load_tokenizer(file)
    _print(
        {
            "name": tokenizer.name,
            "fingerprint": tokenizer.fingerprint,
            "grid": list(tokenizer.grid),
            "codebook_size": tokenizer.num_codes,
            "codebook_dim": tokenizer.codebook.shape[1],
            "bytes": file.stat().st_size,
            **tokenizer.settings(),
        },
        json,
    )


@command.command(name="eval")
def eval_(file: Path, src: str, /, *, images: int = 256, json: bool = False) -> None:
    """Measure PSNR and codebook usage of a tokenizer on images of SRC (its val split, if any).

    Args:
        file: A tokenizer file.
        src: What `seit tokenize` takes.
        images: How many images to look at, evenly spread.
        json: Print one JSON object.
    """
    from seit.tokenize import measure_on_corpus
    from seit.tokenizers import load_tokenizer

    quality, warnings = measure_on_corpus(load_tokenizer(file), src, images=images)
    warn(warnings)
    _print(asdict(quality), json)


def _print(values: dict[str, Any], json: bool) -> None:
    if json:
        print_json(values)
    else:
        print_table(
            [
                (name, f"{value:.4g}" if isinstance(value, float) else str(value))
                for name, value in values.items()
            ]
        )
