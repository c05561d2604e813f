"""`seit tokenizer units SOUNDS --backbone hf:PATH --layer k --out FILE`."""

from dataclasses import asdict
from pathlib import Path

from seit.cli.figures import quality_parts
from seit.cli.integers import Integer
from seit.cli.output import print_json, print_table, say, warn


def units(
    sounds: str,
    /,
    *,
    backbone: str,
    layer: Integer,
    out: Path,
    codes: Integer = 500,
    seconds: float = 5.0,
    seed: Integer = 0,
    device: str = "cpu",
    download: bool = False,
    overwrite: bool = False,
    json: bool = False,
) -> None:
    """Cluster the frames of a speech model's layer into units, a tokenizer of about 50 ids/s.

    FILE holds the centers and a fingerprint of the speech model, but none of its weights: pass
    `--backbone` again to `seit tokenize` and `seit predict`. Units cannot be decoded to sound.

    Args:
        sounds: Input, as for `seit tokenize`.
        backbone: hf: and the folder of a speech model, as transformers saves it.
        layer: Layer to cluster: 0 is the input of the first block, k the output of block k, as in
            output_hidden_states of transformers.
        out: A new .safetensors file.
        codes: Codebook size; one code is kept for frames after the end of a clip.
        seconds: Duration of a window, in seconds; longer clips are cut, shorter ones padded.
        seed: Seed of the choice of frames and of the clustering.
        device: auto, cpu, cuda, mps.
        download: Allow a speech model's name on the hub to be downloaded; no code of it is run.
        overwrite: Replace FILE.
        json: Print one JSON object.
    """
    from seit.devices import choose_device
    from seit.files import check_new_file
    from seit.ingest import fit_units
    from seit.shards import token_bits
    from seit.tokenizers import save_tokenizer

    check_new_file(out, overwrite=overwrite)
    fitted, quality, warnings = fit_units(
        sounds,
        backbone,
        layer=layer,
        codes=codes,
        seconds=seconds,
        seed=seed,
        device=choose_device(device),
        download=download,
    )
    save_tokenizer(fitted, out)
    warn(warnings)
    _, frames = fitted.grid
    packed = frames * token_bits(fitted.num_codes) / 8 / fitted.inputs.seconds
    result = {
        "file": str(out),
        "fingerprint": fitted.fingerprint,
        "grid": list(fitted.grid),
        "codebook_size": fitted.num_codes,
        "codebook_dim": fitted.codebook_dim,
        "packed_bytes_per_second": round(packed, 2),
        "bytes": out.stat().st_size,
        **asdict(quality),
    }
    if json:
        return print_json(result)
    print_table(
        [
            ("file", str(out)),
            ("tokens", f"1×{frames} of {fitted.num_codes:,} codes, {packed:.0f} B/s packed"),
            ("quality", ", ".join(quality_parts(asdict(quality)))),
        ]
    )
    return say("note: pass --backbone again to tokenize; the file holds no weights of the model")
