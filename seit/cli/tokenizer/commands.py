"""Commands below `seit tokenizer`."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from cyclopts import App

from seit.cli.integers import Integer
from seit.cli.output import print_json, print_table, warn
from seit.cli.tokenizer.adapt import adapt
from seit.cli.tokenizer.evaluate import evaluate
from seit.cli.tokenizer.imports import import_published
from seit.cli.tokenizer.quantize import quantize
from seit.cli.tokenizer.train import train
from seit.cli.tokenizer.units import units

command = App(name="tokenizer", help="Make or inspect a tokenizer.", help_format="markdown")
command.command(train)
command.command(adapt)
command.command(import_published, name="import")
command.command(evaluate, name="eval")
command.command(quantize)
command.command(units)


@command.command
def fit(
    src: str,
    file: Path,
    /,
    *,
    tokenizer: str = "patch-pca-vq",
    size: Integer | None = None,
    codes: Integer | None = None,
    levels: Integer | None = None,
    seed: Integer = 0,
    overwrite: bool = False,
    json: bool = False,
) -> None:
    """Fit a tokenizer on a sample of SRC and save it to FILE.

    Args:
        src: Input, as for `seit tokenize`.
        file: A new .safetensors file.
        tokenizer: Name of a fitted kind; see `seit tokenizer list`.
        size: Pixels of the square that images are resized and cropped to; 256 by default.
        codes: Codebook size, of each level; 1,024 by default.
        levels: Levels of a residual kind, `patch-pca-rvq` or `mel-rvq-…`; 2 by default.
        seed: Seed of the fit.
        overwrite: Replace FILE.
        json: Print the quality as one JSON object.
    """
    from seit.errors import UsageError
    from seit.files import check_new_file
    from seit.ingest import TokenizeConfig, fit_and_measure
    from seit.tokenizers import PRESETS, save_tokenizer

    check_new_file(file, overwrite=overwrite)
    if tokenizer not in PRESETS:
        raise UsageError(f"{tokenizer!r} is not fitted; choose one of {', '.join(PRESETS)}")
    config = TokenizeConfig(tokenizer=tokenizer, size=size, codes=codes, seed=seed)
    fitted, quality, warnings = fit_and_measure(src, config, levels=levels)
    save_tokenizer(fitted, file)
    warn(warnings)
    _print({"file": str(file), "fingerprint": fitted.fingerprint, **asdict(quality)}, json)


@command.command(name="list")
def list_(*, json: bool = False) -> None:
    """List the tokenizers by name: those fitted on a corpus, and those shipped with weights.

    Args:
        json: Print one JSON object.
    """
    from seit.tokenizers import PRESET_SUMMARIES, list_shipped

    shipped = {name: tokenizer.summary for name, tokenizer in list_shipped().items()}
    _print({**PRESET_SUMMARIES, **shipped}, json)


@command.command
def info(tokenizer: str, /, *, json: bool = False) -> None:
    """Describe a tokenizer.

    Args:
        tokenizer: A shipped tokenizer's name, or a tokenizer file.
        json: Print one JSON object.
    """
    from seit.tokenizers import list_shipped, open_tokenizer

    found = open_tokenizer(tokenizer)
    shipped = list_shipped().get(tokenizer)
    path = shipped.path if shipped else Path(tokenizer)
    _print(
        {
            "name": found.name,
            "fingerprint": found.fingerprint,
            "grid": list(found.grid),
            "codebook_size": found.num_codes,
            "codebook_dim": found.codebook_dim,
            "levels": found.levels,
            "bytes": path.stat().st_size,
            **found.settings(),
            **({"card": dict(shipped.card)} if shipped else {}),
        },
        json,
    )


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
