"""`seit embed RUN STORE`."""

from pathlib import Path

from seit.cli.output import counting_bar, print_result, print_table
from seit.numbers import human_bytes
from seit.progress import human_rate


def command(
    run: Path,
    store: str,
    /,
    *,
    out: Path,
    split: str = "val",
    device: str = "auto",
    json: bool = False,
) -> None:
    """Write the features of a run's backbone for every sample of a split to a .safetensors file.

    The file holds features float32 (n, D), labels int64 (n,) and keys;
    `seit.training.read_features` reads it.

    Args:
        run: A finished run's folder, of `seit train`, `seit tune` or `seit pretrain`.
        store: A store made by the same tokenizer.
        out: A new .safetensors file.
        split: Split to read.
        device: auto, cpu, cuda, mps.
        json: Print one JSON object.
    """
    from seit.api import embed

    with counting_bar("embedding", "samples") as progress:
        result = embed(run, store=store, out=out, split=split, device=device, progress=progress)
    if json:
        return print_result(result)
    rate = human_rate(result.samples_per_second)
    return print_table(
        [
            ("features", f"{result.samples:,} × {result.dim:,} of {result.split} ({rate})"),
            ("file", f"{result.file}, {human_bytes(result.bytes)}"),
        ]
    )
