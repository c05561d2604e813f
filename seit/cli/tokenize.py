"""`seit tokenize SRC STORE`."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from seit.cli.figures import quality_parts
from seit.cli.integers import Integer
from seit.cli.output import print_result, print_table, progress_bar, say, warn
from seit.numbers import counted, human_bytes
from seit.progress import human_seconds

if TYPE_CHECKING:
    from seit.ingest import Estimate


def command(
    src: str,
    store: str,
    /,
    *,
    tokenizer: str = "auto",
    size: Integer | None = None,
    codes: Integer | None = None,
    codec: Literal["context", "packed"] = "context",
    container: Literal["wds", "zarr"] = "wds",
    engine: Literal["local", "ray"] = "local",
    ray_address: str | None = None,
    ray_cpus: Integer = 1,
    ray_encoders: Integer = 0,
    workdir: Path | None = None,
    val_fraction: float = 0.1,
    root: Path | None = None,
    shard_samples: Integer = 8192,
    max_pixels: Integer = 178_956_970,
    max_seconds: float = 600.0,
    views: Integer = 1,
    workers: Integer | None = None,
    decoders: Literal["auto", "threads", "processes"] = "auto",
    device: str = "cpu",
    compile: bool = False,  # noqa: A002 - the name of the option
    seed: Integer = 0,
    label_separator: str | None = None,
    plan: Literal["listing", "pieces"] = "listing",
    classes: Path | None = None,
    fit_samples: Integer | None = None,
    mixed_processors: bool = False,
    part: str | None = None,
    strict: bool = False,
    overwrite: bool = False,
    embed_tokenizer: bool = False,
    backbone: str | None = None,
    download: bool = False,
    update: bool = False,
    update_changed_since: str | None = None,
    dry_run: bool = False,
    json: bool = False,
) -> None:
    """Tokenize the images or sounds of SRC into STORE; the same command resumes an interrupted job.

    Args:
        src: A folder of class folders (with or without train/ and val/), a folder of images, a
            manifest (CSV, JSON Lines, Parquet), WebDataset tars, or what Hugging Face writes
            (metadata.csv next to the files, Parquet with the files in it); see docs/inputs.md.
        store: A new or empty folder outside SRC.
        tokenizer: A name (shipped, or fitted on SRC) or a tokenizer file; see `seit tokenizer
            list`. Without one the shipped conv-vq-f8-1024-lite for images of 256 px and 1,024
            codes, else patch-pca-vq, which is fitted.
        size: Pixels of the square that images are resized and cropped to; 256 by default, twice
            the size of pictures up to 64 px if no tokenizer is named.
        codes: Codebook size of a fitted tokenizer, 1,024 by default; others have their own.
        codec: Codec of the grids: context (entropy coded) or packed (fixed width).
        container: WebDataset tars or Zarr v3 groups.
        engine: Run on this machine, or in actors of a Ray cluster.
        ray_address: Address of the cluster ("auto", "host:port"); without it Ray runs on this
            machine.
        ray_cpus: Cores of each actor.
        ray_encoders: Actors that only encode, each on a GPU if the cluster has any; the others then
            only decode, and need none.
        workdir: Local folder in which the store is made if STORE is a URL; on a cluster, shared.
        val_fraction: Share of instances for `val` where SRC has no splits; every class keeps one
            to learn from and, where it has two, one to evaluate.
        root: Folder that a manifest's relative paths start from; its own by default.
        shard_samples: Images per shard, a multiple of 1024.
        max_pixels: Skip images with more pixels than this.
        max_seconds: Skip recordings that last longer than this, in seconds; up to 86,400.
        views: Samples of each training image: itself and random crops of it, as `KEY#v1`, ….
        workers: Decoders, one per core by default; with Ray, actors.
        decoders: Decode in threads or processes; auto uses processes from 5 workers on.
        device: auto, cpu, cuda, mps.
        compile: Run the tokenizer through torch.compile, which may change a few ids.
        seed: Seed for the tokenizer's fit and the views.
        label_separator: Text between several labels of a file in a table; | by default in the
            column labels. Makes the column label one of several labels, too.
        plan: List the whole corpus first, or read it once in pieces (of tars, Parquet files,
            tables or folders), for corpora that no machine can list; see docs/clusters.md.
        classes: With pieces, a file with the classes, one a line, in the order of their labels.
        fit_samples: With pieces, inputs that the codec is fitted to beforehand: 8,192 images of
            32×32 tokens by default.
        part: With pieces, the share that this process makes, such as 3/100 (from 0/100): one
            process per part, on any machines; the last one that ends seals the store.
        mixed_processors: Let a job in pieces run on processors that may round differently.
        strict: Stop at the first unreadable image instead of listing it in skipped.jsonl.
        overwrite: Replace a finished store, or an unfinished job with other settings, at STORE. A
            finished store in a folder stays until the new one, made next to it, is whole: both need
            room on the disk meanwhile.
        embed_tokenizer: Copy the weights of a shipped tokenizer into the store; by default the
            store refers to it by name and fingerprint.
        backbone: hf: and the folder of the speech model that a tokenizer of units was fitted on.
        download: Allow a speech model's name on the hub to be downloaded; no code of it is run.
        update: Bring the store at STORE up to date with SRC: tokenize new and changed files (by
            size, split, class or metadata), drop missing ones, keep all other tokens.
        update_changed_since: With --update, treat files modified at or after this date as changed.
        dry_run: Estimate bytes and time from a sample; write nothing.
        json: Print one JSON object.
    """
    from seit.api import tokenize
    from seit.ingest import Estimate, PartResult

    with progress_bar("tokenizing", plan if plan == "pieces" else "files") as bar:

        def progress(done: int, total: int, skipped: int) -> None:
            bar(done, total, f"{skipped} skipped" if skipped else "")

        result = tokenize(
            src,
            out=store,
            tokenizer=tokenizer,
            size=size,
            codes=codes,
            codec=codec,
            container=container,
            val_fraction=val_fraction,
            root=root,
            shard_samples=shard_samples,
            engine=engine,
            ray_address=ray_address,
            ray_cpus=ray_cpus,
            ray_encoders=ray_encoders,
            workdir=workdir,
            max_pixels=max_pixels,
            max_seconds=max_seconds,
            views=views,
            workers=workers,
            decoders=decoders,
            device=device,
            compile=compile,
            seed=seed,
            label_separator=label_separator,
            plan=plan,
            classes=classes,
            fit_samples=fit_samples,
            mixed_processors=mixed_processors,
            part=part,
            strict=strict,
            overwrite=overwrite,
            embed_tokenizer=embed_tokenizer,
            backbone=backbone,
            download=download,
            update=update,
            changed_since=update_changed_since,
            dry_run=dry_run,
            progress=progress,
        )
    if isinstance(result, PartResult):
        if json:
            return print_result(result)
        return say(
            f"part {part} is done: {counted(result.pieces, 'piece')}, "
            f"{counted(result.samples, 'sample')}; other parts have {result.left:,} left"
        )
    warn(result.warnings)
    if isinstance(result, Estimate):
        return print_result(result) if json else _print_estimate(result)
    if result.skipped:
        say(f"warning: skipped {counted(result.skipped, 'file')}; {store}/skipped.jsonl says why")
    if update:
        say(_changes(result.record(), store))
    elif not result.samples_per_second:
        say(f"{store} is complete already; nothing was left to do")
    if json:
        return print_result(result)
    rate = f", {_rate(result.samples_per_second)}" if result.samples_per_second else ""
    return print_table(
        [
            ("store", str(store)),
            ("samples", f"{result.samples:,} ({_splits(result.splits)}){rate}"),
            ("classes", f"{result.classes:,}"),
            (
                "size",
                f"{human_bytes(result.bytes)}, {result.bytes_per_sample:.0f} B each, "
                f"{_ratio(result.source_bytes_per_sample, result.bytes_per_sample)}",
            ),
            ("tokenizer", ", ".join(quality_parts(result.quality))),
        ]
    )


def _print_estimate(expected: "Estimate") -> None:
    print_table(
        [
            ("samples", f"{expected.samples:,} ({_splits(expected.splits)})"),
            ("classes", f"{expected.classes:,}"),
            (
                "size, packed",
                f"{human_bytes(expected.bytes)}, {expected.bytes_per_sample:.0f} B each, "
                f"{_ratio(expected.source_bytes_per_sample, expected.bytes_per_sample)}",
            ),
            (
                "time",
                f"{human_seconds(expected.seconds)} at {_rate(expected.samples_per_second)}",
            ),
            ("unreadable", f"{expected.unreadable_fraction:.1%} of a sample"),
        ]
    )


def _changes(result: Mapping[str, Any], store: str) -> str:
    if not result["added"] + result["changed"] + result["removed"]:
        return f"{store} is up to date already; nothing was changed"
    text = (
        f"{counted(result['added'], 'file')} added, {result['changed']:,} changed, "
        f"{result['removed']:,} removed, {result['kept']:,} kept"
    )
    unreadable = result["unreadable"]
    return f"{text}; {unreadable:,} added or changed cannot be read" if unreadable else text


def _rate(samples_per_second: float) -> str:
    digits = 0 if samples_per_second >= 10 else 1 if samples_per_second >= 1 else 3
    return f"{samples_per_second:.{digits}f}/s"


def _ratio(source_bytes: float, num_bytes: float) -> str:
    if num_bytes <= source_bytes:
        return f"{source_bytes / num_bytes:.1f}× smaller than the files"
    return f"{num_bytes / max(1, source_bytes):.1f}× larger than the files"


def _splits(splits: dict[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in splits.items())
