"""`seit analyze cca | probe | cka | brain SUBJECT DATA`."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import App, Parameter

from seit.cli.integers import Integer
from seit.cli.output import counting_bar, print_result, print_table, say
from seit.numbers import counted

if TYPE_CHECKING:
    from seit.analysis import AnalyzeResult, BrainResult, CkaResult

command = App(
    name="analyze", help="Measure what the layers of a network hold.", help_format="markdown"
)


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class DataFlags:
    """Flags of what is read."""

    split: str | None = None
    """The split to read; by default val of a store, and all of a corpus."""
    out: Path | None = None
    """A new folder for a JSON file and report.html."""
    device: str = "auto"
    """auto, cpu, cuda, mps."""
    download: bool = False
    """Allow a network's name on the hub to be downloaded; no code of it is run."""
    layers: str | None = None
    """Modules of a network of timm to read, with commas between: blocks.3,blocks.11.attn. By
    default its blocks or stages."""
    json: bool = False
    """Print one JSON object."""

    def keywords(self) -> dict[str, Any]:
        """Return the flags as keyword arguments of the verb."""
        return {
            "split": self.split,
            "out": self.out,
            "device": self.device,
            "download": self.download,
            "layers": None if self.layers is None else self.layers.split(","),
        }


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class TargetFlags:
    """Flags of the target and of cross-validation."""

    target: str = "label"
    """label, phone, word, codes, mel, layer:NAME (of SUBJECT), OTHER@LAYER (of another network), or
    a .npy file with a row for each instance."""
    other_data: str | None = None
    """Data of OTHER, from the same files; by default DATA."""
    align: Path | None = None
    """For phone and word: a table of key,start,end,label (seconds), or a folder of TextGrids."""
    tier: str | None = None
    """Interval tier of the TextGrids."""
    groups: str = "file"
    """Samples that folds keep together: those of a file, of a folder, or of a group (such as a
    speaker) in a table of key,group."""
    folds: Integer = 5
    """Folds of cross-validation."""
    nulls: Integer = 3
    """Rearrangements of the target that show what chance gives."""
    fewest: Integer = 20
    """Instances that a class, phone or word needs to be used."""
    most: Integer = 200
    """Instances of a class, phone or word that are used."""
    penalty: float = 1e-3
    """Share of a feature's mean variance that is added to each, in probes and r2."""
    seed: Integer = 0
    """Seed of folds, rearrangements, choice of instances, and random weights."""
    random_twin: Annotated[bool, Parameter(negative="--no-random-twin")] = True
    """Analyze the same network with random weights as well."""
    resume: bool = False
    """Continue an interrupted analysis at --out, from its sums of the last minute; of a finished
    one, report the result."""


@command.command
def cca(
    subject: str,
    data: str,
    /,
    *,
    method: Literal["cca", "svcca", "r2"] = "cca",
    target: TargetFlags = TargetFlags(),
    flags: DataFlags = DataFlags(),
) -> None:
    """Correlate each layer of SUBJECT with a target, on held-out folds.

    Chance, the same network with random weights, and the input itself are always measured too.

    Args:
        subject: A run's folder; hf: and the folder of a speech model; or timm: and a folder, an
            architecture and a file of weights (timm:NAME:FILE), or an architecture alone, which
            gets random weights.
        data: A store of the run's tokenizer; for hf: a corpus of sounds; for timm: one of pictures.
        method: cca, svcca (on 99 % of the variance), or r2 (variance explained by ridge
            regression).
        target: Target and folds.
        flags: What is read.
    """
    _analyze(subject, data, method, target, flags)


@command.command
def probe(
    subject: str,
    data: str,
    /,
    *,
    method: Literal["ridge", "lda"] = "ridge",
    target: TargetFlags = TargetFlags(),
    flags: DataFlags = DataFlags(),
) -> None:
    """Classify the target from each layer of SUBJECT by a linear probe, on held-out folds.

    Args:
        subject: A run's folder; hf: and the folder of a speech model; or timm: and a folder, an
            architecture and a file of weights (timm:NAME:FILE), or an architecture alone, which
            gets random weights.
        data: A store of the run's tokenizer; for hf: a corpus of sounds; for timm: one of pictures.
        method: ridge or lda (linear discriminant analysis).
        target: Target and folds.
        flags: What is read.
    """
    _analyze(subject, data, method, target, flags)


@command.command
def cka(
    subject: str,
    data: str,
    /,
    *,
    with_: Annotated[str | None, Parameter(name="--with")] = None,
    other_data: str | None = None,
    resume: bool = False,
    flags: DataFlags = DataFlags(),
) -> None:
    """Compare each layer of SUBJECT with each other layer, or with those of another subject.

    Args:
        subject: A run's folder; hf: and the folder of a speech model; or timm: and a folder, an
            architecture and a file of weights (timm:NAME:FILE), or an architecture alone, which
            gets random weights.
        data: A store of the run's tokenizer; for hf: a corpus of sounds; for timm: one of pictures.
        with_: Another subject.
        other_data: Its data, from the same files; by default DATA.
        resume: Continue an interrupted comparison at --out, from its sums of the last minute; of a
            finished one, report the result.
        flags: What is read.
    """
    from seit.analysis import CkaResult
    from seit.api import analyze

    with counting_bar("reading layers") as bar:
        result = analyze(
            subject,
            data=data,
            method="cka",
            other=with_,
            other_data=other_data,
            resume=resume,
            progress=bar,
            **flags.keywords(),
        )
    assert isinstance(result, CkaResult)
    if flags.json:
        return print_result(result)
    _print_map(result)
    return _say_report(flags.out)


@command.command
def brain(
    subject: str,
    stimuli: str,
    /,
    *,
    responses: Path,
    tr: float,
    mask: Path | None = None,
    atlas: Path | None = None,
    response: Literal["glover", "delays"] = "glover",
    delays: Integer = 8,
    onset: float = 0.0,
    trim: Integer = 0,
    folds: Integer = 5,
    gap: float = 12.0,
    nulls: Integer = 20,
    shift: float = 20.0,
    seed: Integer = 0,
    random_twin: Annotated[bool, Parameter(negative="--no-random-twin")] = True,
    resume: bool = False,
    flags: DataFlags = DataFlags(),
) -> None:
    """Predict responses of brains to sounds from each layer of SUBJECT.

    Ridge regression on whole runs left out, or on stretches of a single run with gaps. Chance, by
    features shifted in time, the same network with random weights, and the spectrogram are always
    measured too.

    Args:
        subject: A run's folder, or hf: and the folder of a speech model.
        stimuli: A corpus of sounds; for a run, a store of them. A file is one run.
        responses: A folder of RUN.npy (.npz, .csv) or PERSON/RUN.npy: numbers (time, targets); or
            of NIfTI files (.nii, .nii.gz), with --mask or --atlas.
        mask: Of NIfTI files, the voxels to predict.
        atlas: Of NIfTI files, the regions to predict, as means over their voxels.
        tr: Seconds between samples of the responses.
        response: How they follow: glover (blood flow), or delays (free weights for each of the last
            samples).
        delays: Samples with weights of their own.
        onset: Seconds from the first sample of a run to the start of its sound.
        trim: Samples dropped at either end of each run.
        folds: Folds of a single run.
        gap: Seconds left out on either side of a tested stretch of a single run.
        nulls: Shifts that show what chance gives. By 20 of them, targets are found only if 95 % of
            all are above chance; by 199, if 10 % are.
        shift: Least shift, in seconds.
        seed: Seed of shifts and random weights.
        random_twin: Score the same network with random weights as well.
        resume: Continue an interrupted analysis at --out with the layers that it lacks; of a
            finished one, report the result.
        flags: What is read.
    """
    from seit.analysis import BrainResult
    from seit.api import analyze

    with counting_bar("scoring layers") as bar:
        result = analyze(
            subject,
            data=stimuli,
            method="brain",
            responses=responses,
            mask=mask,
            atlas=atlas,
            tr=tr,
            response=response,
            delays=delays,
            onset=onset,
            trim=trim,
            folds=folds,
            gap=gap,
            nulls=nulls,
            shift=shift,
            seed=seed,
            random_twin=random_twin,
            resume=resume,
            progress=bar,
            **flags.keywords(),
        )
    assert isinstance(result, BrainResult)
    if flags.json:
        return print_result(result)
    _print_brain(result)
    return _say_report(flags.out)


def _analyze(subject: str, data: str, method: str, target: TargetFlags, flags: DataFlags) -> None:
    from seit.analysis import AnalyzeResult
    from seit.api import analyze

    with counting_bar("reading layers") as bar:
        result = analyze(
            subject,
            data=data,
            method=method,
            progress=bar,
            **vars(target),
            **flags.keywords(),
        )
    assert isinstance(result, AnalyzeResult)
    if flags.json:
        return print_result(result)
    _print_scores(result)
    return _say_report(flags.out)


def _print_scores(result: "AnalyzeResult") -> None:
    rows = [["subject", "layer", "score", "± folds", "chance", "±"]]
    named = [(result.subject, result.layers)]
    named += [(control.name, control.layers) for control in result.controls]
    for name, layers in named:
        rows += [
            [
                name,
                layer.name,
                f"{layer.score:.3f}",
                f"{layer.std:.3f}",
                f"{layer.null_mean:.3f}",
                f"{layer.null_std:.3f}",
            ]
            for layer in layers
        ]
    print_table(rows)
    say(
        f"{result.method} of {counted(result.samples, 'sample')} of {result.target}, "
        f"{result.folds} folds of {counted(result.groups, 'group')}; the best layer is "
        f"{result.best_layer}"
    )


def _print_brain(result: "BrainResult") -> None:
    rows = [["subject", "layer", "score", "±", "chance", "±", "p"]]
    named = [(result.subject, result.layers)]
    named += [(control.name, control.layers) for control in result.controls]
    for name, layers in named:
        rows += [
            [
                name,
                layer.name,
                f"{layer.score:.3f}",
                f"{layer.error:.3f}",
                f"{layer.null_mean:.3f}",
                f"{layer.null_std:.3f}",
                f"{layer.p:.3g}",
            ]
            for layer in layers
        ]
    print_table(rows)
    say(
        f"{counted(result.people, 'person', 'people')}, {counted(result.targets, 'target')}, "
        f"{counted(result.runs, 'run')}; the best layer "
        f"is {result.best_layer}"
    )


def _print_map(result: "CkaResult") -> None:
    rows = [["", *result.other_layers]]
    rows += [
        [name, *(f"{value:.2f}" for value in values)]
        for name, values in zip(result.layers, result.cka, strict=True)
    ]
    print_table(rows, left=1)


def _say_report(out: Path | None) -> None:
    if out is not None:
        say(f"the report is at {out}/report.html")
