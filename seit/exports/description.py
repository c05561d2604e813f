"""What a finished run's model is: its `config.json`."""

from pathlib import Path
from typing import Any

from seit import __version__
from seit.augment import AugmentConfig, PixelAugment, TokenAugment
from seit.config import to_mapping
from seit.documents import as_record
from seit.errors import UsageError
from seit.exports.card import StoreFigures
from seit.exports.spec import BackboneSpec, ExportSpec, TokenizerSpec
from seit.shards import Store, open_store
from seit.tokenizers import Tokenizer
from seit.training import FINISHED, Run, TrainConfig, TrainResult, pixel_stem, read_confusion


def describe(run: Run, tokenizer: Tokenizer) -> ExportSpec:
    """All that is needed to build the model of a run again.

    Raises:
        UsageError: the run has not finished.
    """
    config, info = run.config, run.info
    if info["status"] != FINISHED:
        raise UsageError(
            f"the run {run.path} has not finished; go on with it by `seit train … --resume`"
        )
    augment = _augment(config, tokenizer)
    reads_pixels = isinstance(augment, PixelAugment)
    return ExportSpec(
        model=BackboneSpec(
            name=config.model.name,
            channels=augment.channels,
            input_size=augment.output_size,
            stem=_stem(config, augment, tokenizer),
            num_classes=len(run.classes),
            kwargs=config.model.timm_kwargs(),
        ),
        reads="pixels" if reads_pixels else "tokens",
        size=augment.grid if reads_pixels else tokenizer.grid,
        crop_size=augment.config.crop_size,
        modality=tokenizer.modality,
        preprocessing=tokenizer.preprocessing(),
        tokenizer=TokenizerSpec(
            name=tokenizer.name,
            fingerprint=tokenizer.fingerprint,
            codebook=tuple(tokenizer.codebook.shape),
        ),
        classes=run.classes,
        store=info["identity"]["store"],
        settings=to_mapping(config),
        result=_result(run, info),
        environment=as_record(
            info.get("environment"), dict[str, str], origin=f"the environment in {run.path}"
        ),
        seit=__version__,
    )


def measure_store(store: Store | str | Path, spec: ExportSpec) -> StoreFigures:
    """The sizes of the store that a run was trained on.

    Raises:
        UsageError: it is another store.
    """
    store = store if isinstance(store, Store) else open_store(store)
    if store.card.seal != spec.store:
        raise UsageError(
            f"{store.folder} is not the store that the run was trained on, or has changed since; "
            "pass that one or leave --store out"
        )
    samples = max(1, store.card.samples)
    return StoreFigures(
        samples=store.card.samples,
        bytes_per_sample=store.num_bytes / samples,
        source_bytes_per_sample=store.card.source_bytes / samples,
    )


def _augment(config: TrainConfig, tokenizer: Tokenizer) -> TokenAugment | PixelAugment:
    """What makes the network's inputs, without anything random."""
    if config.data.pixels is None:
        return _token_augment(config, tokenizer)
    height, width, _ = tokenizer.inputs.shape
    return PixelAugment((height, width), AugmentConfig())


def _token_augment(config: TrainConfig, tokenizer: Tokenizer) -> TokenAugment:
    settings = AugmentConfig(crop_size=config.augment.crop_size, synonym_prob=0)
    return TokenAugment(tokenizer.codebook, tokenizer.grid, settings)


def _stem(config: TrainConfig, augment: TokenAugment | PixelAugment, tokenizer: Tokenizer) -> str:
    if not isinstance(augment, PixelAugment):
        return config.model.stem
    patch_size = augment.grid[0] // (tokenizer.grid[0] // tokenizer.levels)
    return pixel_stem(config.model, augment.output_size, patch_size)


def _result(run: Run, info: dict[str, Any]) -> dict[str, Any]:
    """The run's figures, with what they were measured on."""
    as_record(info["result"], TrainResult, origin=f"the result in {run.path}")
    samples = read_confusion(run).total
    return {**info["result"], "split": run.config.data.val_split, "samples": samples}
