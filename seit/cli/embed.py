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
    layer: str = "head",
    device: str = "auto",
    json: bool = False,
) -> None:
    """Write the features of a run's backbone for every sample of a split to a file.

    The file holds float32 features (n, D), labels, keys and class names, and appears when it is
    complete; `seit neighbors` and `seit.training.read_features` read it.

    Args:
        run: A finished run's folder, of `seit train`, `seit tune` or `seit pretrain`.
        store: A store made by the same tokenizer.
        out: A new .safetensors or .parquet file.
        split: Split to read.
        layer: head, the input of the classifier; or the mean over the positions of another layer:
            blocks.0 and so on of a ViT, a stage of a CNN, or tokens, the input.
        device: auto, cpu, cuda, mps.
        json: Print one JSON object.
    """
    from seit.api import embed

    with counting_bar("embedding", "samples") as progress:
        result = embed(
            run, store=store, out=out, split=split, layer=layer, device=device, progress=progress
        )
    if json:
        return print_result(result)
    rate = human_rate(result.samples_per_second)
    return print_table(
        [
            ("layer", f"{result.layer} of {result.split}"),
            (
                "features",
                f"{result.samples:,} × {result.dim:,} ({rate})",
            ),
            ("file", f"{result.file}, {human_bytes(result.bytes)}"),
        ]
    )
