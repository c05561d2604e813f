"""Define fuzz targets for the files of run folders, recipes and settings.

As in `targets`, the first two bytes of an input select how the rest is used: as a file, or as one
value in an otherwise valid file.
"""

import atexit
import contextlib
import io
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from safetensors.numpy import save
from torch import nn

from seit.analysis.runs.compare import compare_contenders
from seit.analysis.runs.contenders import open_contenders
from seit.analysis.runs.find import list_runs
from seit.analysis.runs.page import (
    class_rows,
    result_rows,
    say_verdicts,
    setting_rows,
    write_comparison,
)
from seit.cli.output import print_json, print_lines
from seit.config import build, merge, parse_assignments, read_yaml, setting_names, to_mapping
from seit.continual_learning.config import ContinualConfig
from seit.continual_learning.streams.orders import class_order
from seit.documents import parse_json
from seit.errors import SeitError
from seit.pretraining.config import PretrainConfig
from seit.tokenizer_training.config import TokenizerConfig
from seit.tokenizers import load_tokenizer
from seit.tokenizers.shipped import _read_card
from seit.training.answers import read_predictions
from seit.training.checkpoint import TrainState, load_checkpoint
from seit.training.config import TrainConfig
from seit.training.loggers import _Ids
from seit.training.run import Run
from seit.training.seeds import read_seeds
from seit.training.tuning.config import TuneConfig

FILES = ("run.json", "metrics.jsonl", "config.yaml", "seeds.json", "loggers.json")
KINDS = (TrainConfig, PretrainConfig, TuneConfig, ContinualConfig, TokenizerConfig)
_PAGE_EVERY = 16
"""Inputs per written comparison page."""
_counts = {"runs": 0}


def fuzz_run(case: int, effort: int, data: bytes) -> None:
    """Fuzz a file of a run's folder: list, compare and open the run."""
    name, folder = FILES[case % len(FILES)], _runs()
    if effort % 2 and name.endswith(".json"):
        document = json.loads(good_files()[name])
        with contextlib.suppress(ValueError):
            _replace(document, effort // 2, parse_json(data))
        data = json.dumps(document).encode()
    run = folder / "sweep" / "seed-0"
    place = folder / "sweep" if name == "seeds.json" else run
    (place / name).write_bytes(data)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            _read_run(folder, run)
    finally:
        (place / name).write_bytes(good_files()[name])


def _read_run(folder: Path, run: Path) -> None:
    listed = list_runs(folder)
    assert [one.name for one in listed] == ["good", "sweep/seed-0"], "a run is not listed"
    assert listed[0].status == "finished", "a valid run is damaged"
    print_json({"runs": [asdict(one) for one in listed]})
    _counts["runs"] += 1
    for paths in ([folder / "good", run], [folder / "sweep", folder / "good"]):
        with contextlib.suppress(SeitError):
            contenders = open_contenders(paths)
            found = compare_contenders(contenders)
            rows = [*result_rows(found), *class_rows(found, 10), *setting_rows(found)]
            print_lines(["".join(map(str, row)) for row in rows] + list(say_verdicts(found)))
            print_json(asdict(found))
            if _counts["runs"] % _PAGE_EVERY == 0:
                write_comparison(folder / "page.html", found, contenders)
    with contextlib.suppress(SeitError):
        read_seeds(folder / "sweep")
    with contextlib.suppress(SeitError):
        _Ids(run).get("wandb")
    opened = Run.open(run)
    _ = opened.classes, opened.settings, opened.config
    opened.rewind_metrics(3)


def fuzz_recipe(case: int, effort: int, data: bytes) -> None:
    """Fuzz settings: a file, a single flag, a tokenizer's card, an order of classes."""
    kind = KINDS[case % len(KINDS)]
    file = _scratch() / "settings.yaml"
    match effort % 4:
        case 0:
            file.write_bytes(data)
            values = read_yaml(file)
        case 1:
            names = list(setting_names(kind))
            text = data.decode("utf-8", "surrogateescape")
            flags = parse_assignments([f"{names[effort // 4 * 5 % len(names)]}={text}"])
            values = merge(flags)
        case 2:
            file.write_bytes(data)
            _read_card(file)
            return
        case _:
            file.write_bytes(data)
            class_order(str(file), 3, classes=("a", "b", "1"))
            return
    config = build(kind, values, origin="fuzz")
    assert build(kind, to_mapping(config), origin="again") == config, "another config"


def fuzz_checkpoint(case: int, effort: int, data: bytes) -> None:
    """Fuzz a file of tensors: a checkpoint, a tokenizer, predictions."""
    path = _scratch() / "tensors.safetensors"
    if effort % 2:
        size = len(data).to_bytes(8, "little")
        data = size + data + bytes(case)
    path.write_bytes(data)
    with contextlib.suppress(SeitError):
        load_tokenizer(path)
    run = _runs() / "sweep" / "seed-0"
    (run / "predictions.safetensors").write_bytes(data)
    with contextlib.suppress(SeitError):
        read_predictions(Run(run))
    model = nn.Linear(2, 1)
    load_checkpoint(path, TrainState(model, None, torch.optim.AdamW(model.parameters())))


def _replace(document: Any, number: int, value: Any) -> None:
    """Replace one entry of a document by ``value``."""
    places = list(_places(document))
    inner, key = places[number % len(places)]
    inner[key] = value


def _places(document: Any) -> Iterator[tuple[Any, Any]]:
    keys = document if isinstance(document, dict) else range(len(document))
    for key in keys:
        yield document, key
        if isinstance(document[key], dict | list):
            yield from _places(document[key])


@cache
def good_files() -> dict[str, bytes]:
    """Return valid files of a run and of its folder of seeds."""
    result = {"top1": 0.5, "top5": 1.0, "loss": 0.7, "steps": 4, "parameters": 9, "seconds": 1.5}
    result |= {"samples_per_second": 9.5, "data_wait_fraction": 0.1}
    identity = {"store": "0" * 64, "classes": ["a", "b"]}
    info = {"status": "finished", "identity": identity, "result": result, "confusion": [[1, 1]] * 2}
    config = {"model": {"name": "vit"}, "run": {"seed": 0}}
    runs = [{"seed": 0, "folder": "seed-0", **result}]
    spread = {"mean": 0.5, "std": None, "min": 0.5, "max": 0.5}
    seeds = {"status": "finished", "config": config, "store": "0" * 64, "runs": runs}
    lines = [{"step": 2, "split": "train", "loss": 1.5, "lr": 0.1}]
    lines.append({"step": 4, "split": "val", "top1": 0.5})
    return {
        "run.json": json.dumps({**info, "environment": {"seit": "1"}}).encode(),
        "metrics.jsonl": "".join(json.dumps(line) + "\n" for line in lines).encode(),
        "config.yaml": yaml.safe_dump(config).encode(),
        "seeds.json": json.dumps({**seeds, "summary": {"top1": spread}}).encode(),
        "loggers.json": b'{"wandb": "x"}',
    }


@cache
def _runs() -> Path:
    """Make a folder with a valid run and one that is fuzzed."""
    folder = _scratch() / "runs"
    tensors = {"predictions": np.array([0, 1, 0, 1]), "labels": np.array([0, 0, 1, 1])}
    for run in (folder / "good", folder / "sweep" / "seed-0"):
        run.mkdir(parents=True)
        for name, data in good_files().items():
            if name != "seeds.json":
                (run / name).write_bytes(data)
        (run / "predictions.safetensors").write_bytes(save(tensors))
    (folder / "sweep" / "seeds.json").write_bytes(good_files()["seeds.json"])
    return folder


@cache
def _scratch() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="seit-fuzz-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def run_seeds() -> Iterator[bytes]:
    """Yield valid files, and values of other types."""
    for number, name in enumerate(FILES):
        yield bytes([number, 0]) + good_files()[name]
    for value in (b"null", b"1e999", b'{"a": "\\u001b"}'):
        for number in (0, 3):
            yield bytes([number, 1]) + value
            yield bytes([number, 9]) + value


def recipe_seeds() -> Iterator[bytes]:
    """Yield the package's recipes, cards of its tokenizers, orders, and values of flags."""
    root = Path(__file__).parents[2]
    for recipe in sorted((root / "train").glob("*.yaml")):
        text = recipe.read_bytes()
        marks = {b"\nstream:": 3, b"\ntuning:": 2, b"\nobjective:": 1}
        number = next((one for mark, one in marks.items() if mark in text), 0)
        yield bytes([number, 0]) + text
    for card in sorted((root / "tokenizers").glob("*.yaml")):
        yield b"\0\2" + card.read_bytes()
    yield b"\0\3" + b'["a", 1, "1"]'
    yield b"\0\3" + b"2\n0, 1\n"
    for value in (
        b"&x [*x]",
        b"1:1:1",
        b"!!bool x",
        b"{a: {b: c}}",
        b"1e400",
        b"a,b",
        b"2001-01-01",
    ):
        yield b"\0\1" + value


def checkpoint_seeds() -> Iterator[bytes]:
    """Yield files of tensors, and headers alone."""
    tensors = {"model.weight": np.ones((1, 2), np.float32), "model.bias": np.ones(1, np.float32)}
    tensors["generator"] = np.zeros(5056, np.uint8)
    data = save(tensors, {"seit": '{"step": 3}'})
    yield b"\0\0" + data
    yield b"\4\1" + data[8 : 8 + int.from_bytes(data[:8], "little")]
    yield b"\x08\1" + b'{"predictions":{"dtype":"I64","shape":[1],"data_offsets":[0,8]}}'
    yield b"\x02\1" + b'{"labels":{"dtype":"BF16","shape":[1],"data_offsets":[0,2]}}'
    yield b"\0\1" + b'{"__metadata__":{"seit":"[]"}}'


TARGETS: dict[str, Callable[[int, int, bytes], None]] = {
    "run": fuzz_run,
    "recipe": fuzz_recipe,
    "checkpoint": fuzz_checkpoint,
}
SEEDS: dict[str, Callable[[], Iterator[bytes]]] = {
    "run": run_seeds,
    "recipe": recipe_seeds,
    "checkpoint": checkpoint_seeds,
}
