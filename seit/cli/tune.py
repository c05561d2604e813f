"""`seit tune STORE --init-from RUN --method adalora --out RUN`."""

from pathlib import Path
from typing import TYPE_CHECKING

from seit.cli.figures import accuracy_rows
from seit.cli.flags import RunFlags, figures_bar, print_settings
from seit.cli.integers import Integer
from seit.cli.output import print_result, print_table, say, warn
from seit.cli.train import NOTES
from seit.numbers import human_bytes
from seit.processes import is_main_process
from seit.progress import human_seconds

if TYPE_CHECKING:
    from seit.api import TunedRun, TunedSpeechRun
    from seit.training import MethodsResult


def command(
    store: str,
    /,
    *,
    method: str | None = None,
    layer: str | None = None,
    seeds: Integer = 1,
    backbone: str | None = None,
    download: bool = False,
    flags: RunFlags = RunFlags(),  # noqa: B008 - frozen
) -> None:
    """Fine-tune a few weights of a pretrained backbone on STORE, or compare methods.

    With --backbone, STORE is a corpus of sounds, whose waveforms a speech model takes. The rest of
    the backbone stays frozen; a classifier of STORE's classes is always trained. Every setting of a
    recipe is also a flag: `--tuning.rank 4`, `--optim.lr 1e-3`; `--dry-run` prints them all.

    Args:
        store: A store's folder or URL; with --backbone, sounds as for `seit tokenize`.
        method: lora, adalora, adapter, houlsby, adapterbias, prefix, bitfit, weighted-sum, linear
            or full; several with commas between, or all, make runs in OUT/METHOD/seed-0 … and a
            table. That of the recipe by default.
        layer: Read the classes from this layer of the backbone, such as blocks.3 of a ViT, layer3
            of a ResNet or layers.3 of a speech model, and drop what follows; `seit analyze probe`
            names the best. The last by default.
        seeds: Number of seeds of each method.
        backbone: hf: and the folder of a speech model (wav2vec 2.0, HuBERT, WavLM, data2vec-audio,
            UniSpeech-SAT, Whisper), instead of --init-from.
        download: Allow a speech model's name on the hub to be downloaded; no code of it is run.
        flags: Flags of all runs.
    """
    from seit.api import plan_run, tune

    given = flags.keywords(method=method, layer=layer)
    if flags.dry_run:
        settings = plan_run("tune", store, out=flags.out, seeds=seeds, backbone=backbone, **given)
        return print_settings(settings, json=flags.json)
    out = flags.folder
    with figures_bar("tuning", NOTES) as progress:
        result = tune(
            store,
            out=out,
            seeds=seeds,
            backbone=backbone,
            download=download,
            progress=progress,
            **given,
        )
    if not is_main_process():
        return None
    from seit.training import MethodsResult

    if isinstance(result, MethodsResult):
        warn([f"{method} is left out: {why}" for method, why in result.skipped.items()])
    if flags.json:
        return print_result(result)
    if isinstance(result, MethodsResult):
        _print_methods(result)
    else:
        _print_run(result, out)
    return say(f"the report is at {out}/report.html")


def _print_run(result: "TunedRun | TunedSpeechRun", out: Path) -> None:
    from seit.api import TunedSpeechRun
    from seit.training import Run

    classes = Run.open(out).classes
    held = []
    if isinstance(result, TunedSpeechRun):
        tokens = human_bytes(result.token_bytes)
        text = f"{human_bytes(result.waveform_bytes)}; as tokens of mel-vq-1s {tokens}"
        held.append(("waveforms in memory", text))
    print_table(
        [
            *accuracy_rows(result, samples=result.val_samples, num_classes=len(classes)),
            (
                "tuning parameters",
                f"{result.tuning_parameters:,} and {result.head_parameters:,} of the classifier, "
                f"of {result.parameters:,} in all",
            ),
            ("adapter", human_bytes(result.adapter_bytes)),
            *held,
            ("steps", f"{result.steps:,} in {human_seconds(result.seconds)}"),
        ]
    )


def _print_methods(table: "MethodsResult") -> None:
    from seit.training import HEADER

    print_table([HEADER, *(row.cells() for row in table.rows)], left=1)
