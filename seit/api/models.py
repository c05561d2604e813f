"""Verbs on finished runs: evaluate, predict, embed, export."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from seit.compression import FootprintResult, measure_footprint
from seit.errors import UsageError
from seit.exports import FORMATS, OPSET, ExportResult, export_run
from seit.files import check_new_file
from seit.outcomes import Outcome
from seit.progress import Count
from seit.shards import Store, as_store
from seit.training import (
    HEAD,
    EmbedResult,
    Prediction,
    Predictor,
    Run,
    RunEvaluation,
    SpeechPredictor,
    check_new_tables,
    embed_split,
    evaluate_run,
    evaluate_speech,
    list_files,
    prediction_table,
    write_evaluation,
)


@dataclass(frozen=True, repr=False)
class PredictResult(Outcome):
    """Predicted classes of files.

    Attributes:
        predictions: one a file, in order.
        unreadable: number of files that cannot be read; their predictions have an ``error``.
        first_unreadable: the first of them.
    """

    recorded = ("predictions", "unreadable")

    predictions: tuple[Prediction, ...]
    unreadable: int
    first_unreadable: str | None


@dataclass(frozen=True, repr=False)
class PredictTable(Outcome):
    """A table of predictions that was written.

    Attributes:
        out: the CSV file.
        files: number of files.
        unreadable: number of those that cannot be read.
        first_unreadable: the first of them.
    """

    recorded = ("out", "files", "unreadable")

    out: Path
    files: int
    unreadable: int
    first_unreadable: str | None


def evaluate(
    run: str | Path,
    *,
    store: Store | str | Path,
    split: str | None = None,
    unknown_classes: Literal["error", "skip"] = "error",
    spelling: Literal["exact", "loose"] = "exact",
    out: str | Path | None = None,
    device: str = "auto",
    pixels: str | Path | None = None,
    root: str | Path | None = None,
    backbone: str | Path | None = None,
    download: bool = False,
    tta: bool = False,
) -> RunEvaluation:
    """Evaluate a finished run on a split of a store, every sample once.

    Classes are matched by name: the store may list them in another order, or lack some.

    Args:
        run: a run's folder.
        store: a store of the same tokenizer: a path or URL, or an open store.
        split: which split; by default the run's own ``data.val_split``; val or the only one, if
            the store lacks it.
        unknown_classes: whether samples of classes that the run does not know are an error, or
            are skipped and counted.
        spelling: whether names match only if equal, or also if they differ in case, Unicode form,
            blanks, underscores or hyphens.
        out: a new folder for CSV tables: figures by class, the confusion matrix, predictions. A
            new .csv file gets the first alone.
        device: auto, cpu, cuda, mps.
        pixels: folder of the images, for a run that was trained on pixels.
        root: folder that the relative paths of a table ``pixels`` start at; its own by default.
        backbone: folder of the speech model, for a run that tuned one; ``store`` is then a corpus
            of sounds.
        download: whether the name of a speech model on the hub may be downloaded.
        tta: whether to average each sample's probabilities over crops of its grid, and over mirror
            images where the tokenizer allows it (test-time augmentation).

    Raises:
        UsageError: the run has not finished, or store and run do not fit together.

    Example:
        >>> seit.evaluate("run", store="store").top1
    """
    tables = None if out is None else Path(out)
    if tables is not None:
        check_new_tables(tables)
    if _is_of_sounds(run, backbone):
        if tta:
            raise UsageError("--tta takes views of tokens, and the run takes sounds; leave it out")
        result, keys = evaluate_speech(
            run,
            _source_of(store),
            backbone=backbone,
            split=split,
            unknown=unknown_classes,
            spelling=spelling,
            device=device,
            download=download,
        )
        if tables is not None:
            write_evaluation(tables, result, keys)
        return result
    opened = as_store(store)
    result = evaluate_run(
        run,
        opened,
        split=split,
        unknown=unknown_classes,
        spelling=spelling,
        device=device,
        pixels=pixels,
        root=root,
        tta=tta,
    )
    if tables is not None:
        write_evaluation(tables, result, opened[result.split].keys)
    return result


def predict(
    run: str | Path,
    *,
    files: Sequence[str | Path],
    top: int = 5,
    threshold: float | None = None,
    out: str | Path | None = None,
    device: str = "auto",
    backbone: str | Path | None = None,
    download: bool = False,
    progress: Count | None = None,
    each: Callable[[Prediction], None] | None = None,
) -> PredictResult | PredictTable:
    """Predict the classes of raw image or audio files, which are tokenized first.

    Args:
        run: a finished run's folder.
        files: image files (audio files for a run trained on audio), folders of them, and patterns
            such as ``"photos/*.jpg"``.
        top: number of classes to name.
        threshold: least probability of a label, for a run that learned several labels per sample;
            0.5 by default. At most ``top`` labels are named.
        out: a new CSV file for the predictions, written as they come; the result counts them.
        device: auto, cpu, cuda, mps.
        backbone: folder of the speech model, for a run that tuned one or takes its units.
        download: whether the name of a speech model on the hub may be downloaded.
        progress: called with (files done, total).
        each: called with each prediction as it comes.

    Raises:
        UsageError: the run has not finished or knows no classes, or there is no such file.

    Example:
        >>> seit.predict("run", files=["photos/cat/0.png"]).predictions[0].classes
    """
    if top < 1:
        raise UsageError(f"--top is {top}; expected at least 1")
    table_path = None if out is None else Path(out)
    if table_path is not None:
        check_new_file(table_path)
    is_of_sounds = Run.open(run).kind.of_sounds
    if threshold is not None and is_of_sounds:
        raise UsageError(f"the run {run} learned one label per sample; leave --threshold out")
    predictor = (
        SpeechPredictor(run, backbone=backbone, top=top, device=device, download=download)
        if is_of_sounds
        else Predictor(
            run, top=top, device=device, threshold=threshold, backbone=backbone, download=download
        )
    )
    listed = list_files(files, predictor.modality)
    found: list[Prediction] = []
    unreadable: list[str] = []
    rows = None if table_path is None else prediction_table(table_path, top=predictor.top)
    with rows or nullcontext() as table:
        for done, prediction in enumerate(predictor(listed), 1):
            if prediction.error is not None:
                unreadable.append(prediction.file)
            if table is None:
                found.append(prediction)
            else:
                table.add(prediction)
            if each is not None:
                each(prediction)
            if progress is not None:
                progress(done, len(listed))
    first = unreadable[0] if unreadable else None
    if table_path is not None:
        return PredictTable(table_path, len(listed), len(unreadable), first)
    return PredictResult(tuple(found), len(unreadable), first)


def _is_of_sounds(run: str | Path, backbone: str | Path | None) -> bool:
    """Return whether a run tuned a speech model.

    Raises:
        UsageError: it did not, and a speech model is named.
    """
    found = Run.open(run)
    if backbone is not None and not found.kind.of_sounds:
        raise UsageError(f"the run {found.path} takes tokens; leave --backbone out")
    return found.kind.of_sounds


def _source_of(store: Store | str | Path) -> str | Path:
    if isinstance(store, Store):
        raise UsageError("a speech model takes sounds; pass the corpus that the store was made of")
    return store


def embed(
    run: str | Path,
    *,
    store: Store | str | Path,
    out: str | Path,
    split: str = "val",
    layer: str = HEAD,
    device: str = "auto",
    progress: Count | None = None,
) -> EmbedResult:
    """Write the features of a run's backbone for every sample of a split.

    The file holds float32 features (n, D), labels, keys and class names, and appears when it is
    complete; `seit.training.read_features` reads it.

    Args:
        run: a finished run's folder, of `train`, `tune` or `pretrain`.
        store: a store of the same tokenizer: a path or URL, or an open store.
        out: a new .safetensors or .parquet file.
        split: which split.
        layer: ``"head"``, the input of the classifier; or the mean over the positions of another
            layer: ``"blocks.0"`` … of a ViT, a stage of a CNN, or ``"tokens"``, the input.
        device: auto, cpu, cuda, mps.
        progress: called with (samples done, total).

    Raises:
        UsageError: the run has not finished or has no such layer, or store and run do not fit
            together.

    Example:
        >>> seit.embed("run", store="store", out="features.safetensors").dim
    """
    return embed_split(run, store, out, split=split, layer=layer, device=device, progress=progress)


def export(
    run: str | Path,
    *,
    out: str | Path,
    formats: Sequence[Literal["safetensors", "onnx", "torch"]] | None = None,
    inputs: Sequence[Literal["tokens", "images", "audio"]] | None = None,
    opset: int | None = None,
    store: Store | str | Path | None = None,
) -> ExportResult:
    """Write the model of a finished run for use elsewhere: weights, ONNX, torch.export and a card.

    Every file is read back and compared with the run's model before ``out`` appears.

    Args:
        run: a finished run's folder.
        out: a new or empty folder.
        formats: which files; all by default.
        inputs: what the networks take; by default all that the run allows.
        opset: version of ONNX's operators, 18 to 23; 20 by default.
        store: the store that the run was trained on, for the sizes on the card.

    Raises:
        UsageError: the run has not finished or cannot be exported so, or ``out`` is not empty.
        SeitError: a file computes something else than the run's model; none is kept.

    Example:
        >>> seit.export("run", out="model", formats=["safetensors"]).files
    """
    return export_run(
        run,
        out,
        formats=FORMATS if formats is None else formats,
        inputs=inputs,
        opset=OPSET if opset is None else opset,
        store=store,
    )


def footprint(
    path: str | Path,
    *,
    batch_size: Sequence[int] = (1, 64),
    threads: int = 1,
    seconds: float = 2.0,
    out: str | Path | None = None,
) -> FootprintResult:
    """Measure what a run, an ONNX file or a tokenizer takes: bytes, operations, memory, times.

    Measures on the CPU, in a fresh process. Nothing of the file is executed as a program.

    Args:
        path: a finished run's folder, an .onnx file, or a tokenizer's file or name. A run is
            measured from stored ids to logits, or to features; a tokenizer from pixels or
            waveforms to ids.
        batch_size: batch sizes.
        threads: threads of an operator.
        seconds: time to spend on each batch size.
        out: a new HTML file, with a table of the layers.

    Raises:
        UsageError: there is nothing that can be measured, or a setting is out of range.
        SeitError: a file is damaged, or the measurement failed.

    Example:
        >>> seit.footprint("run").latency_ms["64"].p50
    """
    return measure_footprint(path, batch_size=batch_size, threads=threads, seconds=seconds, out=out)
