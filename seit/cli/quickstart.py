"""`seit quickstart`."""

from dataclasses import asdict
from pathlib import Path

from seit.cli.output import human_bytes, print_json, print_table, progress_bar, say
from seit.progress import human_rate, human_seconds


def command(
    out: Path = Path("quickstart"),
    *,
    data: str | None = None,
    steps: int | None = None,
    seed: int = 0,
    device: str = "auto",
    json: bool = False,
) -> None:
    """Tokenize a small corpus, train a ViT from its tokens and from its pixels, and compare.

    Without --data the corpus is rendered: ten classes of textured, lit, cluttered shapes. It
    takes under three minutes on two cores; rerun it after an interruption and it resumes.

    Args:
        out: Folder for corpus, store, runs and report.
        data: Your own folder of class folders instead.
        steps: Training steps of each of the two runs.
        seed: Of corpus, weights and order.
        device: auto, cpu, cuda, mps.
        json: Print the result as one JSON object.
    """
    from seit.analysis import run_quickstart

    with progress_bar("quickstart", "") as bar:
        result = run_quickstart(
            out,
            data=data,
            steps=steps,
            seed=seed,
            device=device,
            progress=lambda stage, done, total: bar(done, total, stage),
        )
    if json:
        return print_json({**asdict(result), "report": str(result.report)})
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
