"""`seit quickstart`."""

from pathlib import Path

from seit.cli.integers import Integer
from seit.cli.output import print_result, print_table, say, stage_bar
from seit.numbers import human_bytes
from seit.progress import human_rate, human_seconds


def command(
    out: Path = Path("quickstart"),
    *,
    data: str | None = None,
    steps: Integer | None = None,
    seed: Integer = 0,
    device: str = "auto",
    json: bool = False,
) -> None:
    """Tokenize a small corpus, train a ViT from its tokens and from its pixels, and compare.

    Without --data the corpus is rendered: ten classes of textured, lit, cluttered shapes. It
    takes under three minutes on two cores; the same command resumes an interrupted one.

    Args:
        out: Folder for corpus, store, runs and report.
        data: A folder of class folders to use instead.
        steps: Training steps of each of the two runs.
        seed: Seed for corpus, weights and data order.
        device: auto, cpu, cuda, mps.
        json: Print one JSON object.
    """
    from seit.api import quickstart

    with stage_bar("quickstart") as progress:
        result = quickstart(
            out, data=data, steps=steps, seed=seed, device=device, progress=progress
        )
    if json:
        return print_result(result)
    ratio = result.bytes_per_sample_source / result.bytes_per_sample_tokens
    print_table(
        [
            ("", f"{'tokens':>10}{'pixels':>10}"),
            (
                "bytes per image",
                f"{human_bytes(result.bytes_per_sample_tokens):>10}"
                f"{human_bytes(result.bytes_per_sample_source):>10}   {ratio:.1f}× smaller",
            ),
            (
                "top-1",
                f"{result.top1_tokens:>10.1%}{result.top1_pixels:>10.1%}   {result.verdict}",
            ),
            (
                "training rate",
                f"{human_rate(result.samples_per_second_tokens):>10}"
                f"{human_rate(result.samples_per_second_pixels):>10}",
            ),
        ]
    )
    return say(f"done in {human_seconds(result.seconds)}; the picture is at {result.report}")
