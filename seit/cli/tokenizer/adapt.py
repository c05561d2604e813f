"""`seit tokenizer adapt STORE SRC --out FILE`."""

from dataclasses import asdict
from pathlib import Path

from seit.cli.flags import TrainingFlags, noted_on, print_settings
from seit.cli.output import print_json, print_table, progress_bar
from seit.cli.tokenizer.settings import flat_settings
from seit.errors import UsageError
from seit.progress import human_seconds

_NOTES = {"loss": "loss {:.4f}", "samples_per_second": "{:.3g} images/s"}


def adapt(
    store: str,
    src: str,
    /,
    *,
    out: Path | None = None,
    root: Path | None = None,
    overwrite: bool = False,
    flags: TrainingFlags = TrainingFlags(),  # noqa: B008 - frozen
) -> None:
    """Train TokenAdapt, which warps token grids, for STORE and save it to FILE.

    `--augment.token_adapt FILE` of `seit train` uses it. `--dry-run` prints all settings; each can
    be given by --set NAME=VALUE. The run is at FILE.run, and an interrupted one resumes bit for bit
    with --resume.

    Args:
        store: A store of images.
        src: The images that it was made from.
        out: A new .safetensors file.
        root: Folder that a manifest's relative paths start from; its own by default.
        overwrite: Replace FILE and its run.
        flags: Flags of all trainings.
    """
    from seit.tokenizer_training import TokenAdaptConfig

    settings = flat_settings(TokenAdaptConfig, flags)
    if flags.dry_run:
        return print_settings(settings, json=flags.json)
    if out is None:
        raise UsageError("--out is missing; name a new .safetensors file")
    from seit.tokenizer_training import train_tokenadapt

    with progress_bar("training", "steps") as bar:
        result = train_tokenadapt(
            store,
            src,
            settings,
            out,
            root=root,
            resume=flags.resume,
            overwrite=overwrite,
            progress=noted_on(bar, _NOTES),
        )
    if flags.json:
        return print_json({"file": str(out), **asdict(result)})
    return print_table(
        [
            ("file", str(out)),
            ("tokens", f"{result.accuracy:.1%} right; copying: {result.copy_accuracy:.1%}"),
            (
                "held out",
                f"{result.psnr_db:.2f} dB; copying: {result.copy_psnr_db:.2f} dB, "
                f"at best {result.best_psnr_db:.2f} dB",
            ),
            ("images", f"{result.images:,}"),
            ("steps", f"{settings.steps:,} in {human_seconds(result.seconds)}"),
        ]
    )
