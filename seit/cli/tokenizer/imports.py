"""`seit tokenizer import KIND CHECKPOINT FILE`."""

from pathlib import Path
from typing import TYPE_CHECKING

from seit.cli.integers import Integer
from seit.cli.output import print_json, print_table, say, warn
from seit.numbers import human_bytes

if TYPE_CHECKING:
    from torch import Tensor


def import_published(
    kind: str,
    checkpoint: str,
    file: Path,
    /,
    *,
    size: Integer | None = None,
    remap: Path | None = None,
    fit: str | None = None,
    codes: Integer = 1024,
    seed: Integer = 0,
    seconds: float | None = None,
    levels: Integer | None = None,
    overwrite: bool = False,
    json: bool = False,
) -> None:
    """Turn a published checkpoint into a tokenizer file, for `seit tokenize --tokenizer`.

    Args:
        kind: vitvqgan, vqgan, llamagen, open-magvit2, taesd, encodec, dac or mimi.
        checkpoint: A file, the folder that holds it, or hf://owner/name[/file], which is
            downloaded.
        file: A new .safetensors file.
        size: Pixels of the square that images are resized and cropped to.
        remap: A file of the codes to keep, or of their numbers (SeiT's codebook.ckpt).
        fit: Images to fit the codebook of a taesd on, as for `seit tokenize`.
        codes: Codebook size of that fit.
        seed: Seed of that fit.
        seconds: Length of an audio codec's window.
        levels: Number of levels of an audio codec to keep.
        overwrite: Replace FILE.
        json: Print the result as one JSON object.
    """
    from seit.files import check_new_file
    from seit.tokenizers import (
        DEFAULT_SIZE,
        MAX_STORED_WEIGHT_BYTES,
        load_published,
        save_tokenizer,
    )

    check_new_file(file, overwrite=overwrite)
    tokenizer = load_published(
        kind,
        checkpoint,
        size=None if fit else size,
        remap=remap,
        images=_sample(fit, size=size or DEFAULT_SIZE, seed=seed) if fit else None,
        num_codes=codes,
        seed=seed,
        seconds=seconds,
        levels=levels,
    )
    save_tokenizer(tokenizer, file)
    weight_bytes = sum(tensor.nbytes for tensor in tokenizer.tensors().values())
    if weight_bytes > MAX_STORED_WEIGHT_BYTES:
        say(
            f"note: stores will not carry these weights of {human_bytes(weight_bytes)}; keep "
            f"{file} to predict on files and to look at reconstructions"
        )
    result = {
        "file": str(file),
        "name": tokenizer.name,
        "fingerprint": tokenizer.fingerprint,
        "modality": tokenizer.modality,
        "grid": list(tokenizer.grid),
        "levels": tokenizer.levels,
        "codebook_size": tokenizer.num_codes,
        "codebook_dim": tokenizer.codebook_dim,
        "bytes": file.stat().st_size,
    }
    if json:
        return print_json(result)
    return print_table([(name, str(value)) for name, value in result.items()])


def _sample(source: str, *, size: int, seed: int) -> "Tensor":
    """Return images of a corpus for the fit of a codebook."""
    from seit.ingest import (
        FIT_INPUTS,
        TokenizeConfig,
        list_corpus,
        make_reader,
        resolve_tokenizer,
        sample_inputs,
    )
    from seit.tokenizers import PatchTokenizer

    config, _ = resolve_tokenizer(
        TokenizeConfig(tokenizer=PatchTokenizer.name, size=size, seed=seed)
    )
    corpus = list_corpus(source, val_fraction=config.val_fraction, modality="image")
    warn(corpus.warnings)
    with make_reader(config) as reader:
        return sample_inputs(corpus, reader, count=FIT_INPUTS, split="train")
