"""`seit neighbors FEATURES`."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from seit.cli.integers import Integer
from seit.cli.output import counting_bar, print_lines, print_result, print_table, say


def command(
    features: Path,
    /,
    *,
    keys: Annotated[list[str] | None, Parameter(name="--key")] = None,
    queries: Path | None = None,
    k: Integer = 10,
    out: Path | None = None,
    device: str = "auto",
    json: bool = False,
) -> None:
    """Find nearest neighbors in a file of features, or measure the classes that they predict.

    The search is exact, by cosine. A sample is not its own neighbor, nor are other windows of the
    same clip. Without --key, all samples are queries, and the accuracy of a vote of their neighbors
    is reported.

    Args:
        features: A file written by `seit embed`.
        keys: Key of a sample in it whose neighbors to list; may be repeated.
        queries: Another such file, of the same run and layer, whose samples are the queries.
        k: Number of neighbors.
        out: A new CSV file for the neighbors of every query.
        device: auto, cpu, cuda, mps.
        json: Print one JSON object.
    """
    from seit.api import neighbors

    with counting_bar("searching", "samples") as progress:
        result = neighbors(
            features,
            keys=keys or (),
            queries=queries,
            k=k,
            out=out,
            device=device,
            progress=progress,
        )
    if result.k < k:
        say(f"note: --k is {k:,} and a sample has {result.k:,} others to choose from; all are used")
    if json:
        return print_result(result)
    for one in result.queries:
        print_lines([f"{one.key}  {one.label or ''}".rstrip()])
        print_lines(
            [f"  {near.similarity:.4f}  {near.key}  {near.label or ''}" for near in one.neighbors]
        )
    if not result.queries:
        rows = [("samples", f"{result.samples:,}, {result.labeled or 0:,} with a known class")]
        if result.knn_top1 is not None:
            rows += [
                (f"accuracy of {result.k} neighbors", f"{result.knn_top1:.2%}"),
                ("accuracy of the nearest", f"{result.nearest_top1:.2%}"),
                ("most frequent class", f"{result.chance:.4f}"),
            ]
        print_table(rows)
    return say(f"the neighbors are at {out}") if out is not None else None
