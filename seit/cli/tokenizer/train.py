"""`seit tokenizer train SRC OUT`."""

from dataclasses import asdict
from pathlib import Path
from typing import Literal

from seit.cli.flags import TrainingFlags, noted_on, print_settings
from seit.cli.integers import Integer
from seit.cli.output import print_json, print_table, progress_bar, warn
from seit.cli.tokenizer.settings import flat_settings
from seit.progress import human_seconds

_NOTES = {
    "loss": "loss {:.4f}",
    "psnr_db": "{:.2f} dB",
    "ms_ssim": "MS-SSIM {:.3f}",
    "codes_used_a_batch": "{:.0%} of the codes",
}


def train(
    src: str,
    out: Path,
    /,
    *,
    also: list[str] | None = None,
    size: Integer | None = None,
    quantizer: Literal["vq", "rvq", "fsq", "lfq"] | None = None,
    codes: Integer | None = None,
    init_from: str | None = None,
    flags: TrainingFlags = TrainingFlags(),  # noqa: B008 - frozen
) -> None:
    """Train the small learned tokenizer on SRC and leave OUT/tokenizer.safetensors.

    `--dry-run` prints all settings; each can be given by --set NAME=VALUE. An interrupted training
    resumes bit for bit with --resume.

    Args:
        src: Input, as for `seit tokenize`.
        out: A new folder, which becomes a run.
        also: More sources, each after an --also.
        size: Side of the images that the tokenizer will take, in pixels.
        quantizer: Quantizer of the latents.
        codes: Codebook size, of each level.
        init_from: A tokenizer to start from: a shipped one's name, or a file. Shapes are the same,
            except that of the encoder if the first steps distill it (distill_steps).
        flags: Flags of all trainings.
    """
    from seit.tokenizer_training import TokenizerConfig

    settings = flat_settings(TokenizerConfig, flags, size=size, quantizer=quantizer, codes=codes)
    if flags.dry_run:
        return print_settings(settings, json=flags.json)
    from seit.tokenizer_training import train_tokenizer

    with progress_bar("training", "steps") as bar:
        result = train_tokenizer(
            [src, *(also or ())],
            settings,
            out,
            resume=flags.resume,
            init_from=init_from,
            progress=noted_on(bar, _NOTES),
        )
    warn(result.warnings)
    if flags.json:
        return print_json(asdict(result))
    similarity = "" if result.ssim is None else f"SSIM {result.ssim:.3f}, "
    return print_table(
        [
            ("file", result.file),
            ("fingerprint", result.fingerprint),
            ("steps", f"{result.steps:,} in {human_seconds(result.seconds)}"),
            (
                "held out",
                f"{result.psnr_db:.2f} dB, {similarity}"
                f"{result.codebook_usage:.0%} of the codes in use",
            ),
        ]
    )
