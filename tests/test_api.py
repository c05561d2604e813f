"""The Python API: verbs on `seit` do what the commands do, and return what `--json` prints."""

import inspect
import io
import json
import pickle
import re
import subprocess
import sys
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.processes import forked_measurement

import seit
from seit.api import plan_run
from seit.cli import main
from seit.cli.app import COMMANDS
from seit.errors import UsageError
from seit.training import Run, TrainConfig, read_features

DOCS = Path(__file__).parents[1] / "docs" / "api.md"
CLASSES = ("blue", "green", "red")
TINY = {"model": {"embed_dim": 48, "depth": 1, "num_heads": 3, "stem": "4/4/0"}}
ENCODER = {
    "model": {**TINY["model"], "stem": "1/1/0"},
    "mtm": {"decoder_dim": 48, "decoder_depth": 1, "decoder_heads": 3},
}
SHARED = {"steps": 2, "batch_size": 16, "device": "cpu"}
NOT_VERBS = {"runs", "recipes", "tokenizer"}
OF_TIME = ("seconds", "samples_per_second", "data_wait_fraction")


def write_photos(folder, number):
    random = np.random.default_rng(0)
    for label, name in enumerate(CLASSES):
        (folder / name).mkdir(parents=True)
        for index in range(number):
            values = random.uniform(60, 160, (64, 64, 3))
            values[..., 2 - label] += 80
            Image.fromarray(values.astype(np.uint8)).save(folder / name / f"{index}.png")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a corpus, a store and a run of a classifier."""
    folder = tmp_path_factory.mktemp("api")
    write_photos(folder / "photos", 20)
    seit.tokenize(folder / "photos", out=folder / "store", size=64, codes=64, val_fraction=0.2)
    seit.train(folder / "store", out=folder / "run", config=TINY, **SHARED)
    return folder


def answer(*arguments):
    """The JSON object that a command prints."""
    out = io.StringIO()
    with redirect_stdout(out):
        main([*map(str, arguments), "--json"])
    return json.loads(out.getvalue())


def timeless(values):
    """Values without those that depend on the clock."""
    if isinstance(values, dict):
        return {key: timeless(one) for key, one in values.items() if key not in OF_TIME}
    return list(map(timeless, values)) if isinstance(values, list) else values


def check_same(result, printed):
    record = json.loads(json.dumps(result.record()))
    assert record.keys() == printed.keys()
    assert timeless(record) == timeless(printed)
    for name in printed:
        assert hasattr(result, name), f"{type(result).__name__} has no {name}"


def test_every_command_is_a_verb():
    verbs = {"evaluate" if name == "eval" else name for name in COMMANDS} - NOT_VERBS
    assert verbs == set(seit.__all__) - {"create_model", "loader", "open"}
    assert set(seit.__all__) <= set(dir(seit))


@pytest.mark.parametrize("verb", sorted(set(seit.__all__) - {"create_model", "loader", "open"}))
def test_verbs_have_one_shape_and_help(verb):
    function = getattr(seit, verb)
    first, *others = inspect.signature(function).parameters.values()
    assert first.kind is first.POSITIONAL_OR_KEYWORD
    assert all(one.kind in (one.KEYWORD_ONLY, one.VAR_KEYWORD) for one in others)
    text = inspect.getdoc(function)
    assert text.splitlines()[0].endswith(".")
    assert f"seit.{verb}(" in text
    for one in others:
        assert re.search(rf"^ +\*{{0,2}}{one.name}:", text, re.M), f"{one.name} is not explained"


def test_importing_seit_is_quick_and_loads_no_torch():
    script = "import sys, seit; assert not {'torch', 'numpy', 'timm'} & set(sys.modules); dir(seit)"
    subprocess.run([sys.executable, "-c", script], check=True)


STORE_COMMANDS = {
    "info": ((), {}),
    "verify": ((), {}),
    "duplicates": (("--threshold", "0.95"), {"threshold": 0.95}),
}


@pytest.mark.parametrize("verb", STORE_COMMANDS)
def test_results_hold_what_json_prints_of_a_store(verb, place):
    flags, keywords = STORE_COMMANDS[verb]
    printed = answer(verb, place / "store", *flags)
    check_same(getattr(seit, verb)(place / "store", **keywords), printed)


def test_results_hold_what_json_prints_of_rewriting(place, tmp_path):
    store, photos = place / "store", place / "photos"
    printed = answer("convert", store, tmp_path / "a", "--container", "zarr")
    check_same(seit.convert(store, out=tmp_path / "b", container="zarr"), printed)
    printed = answer("filter", store, tmp_path / "c", "--classes", "red", "--classes", "blue")
    kept = seit.filter(store, out=tmp_path / "d", classes=["red", "blue"])
    check_same(kept, printed)
    seit.filter(store, out=tmp_path / "green", classes=["green"])
    printed = answer("merge", tmp_path / "e", tmp_path / "c", tmp_path / "green")
    check_same(seit.merge([tmp_path / "d", tmp_path / "green"], out=tmp_path / "f"), printed)
    key = seit.open(store)["train"].keys[0]
    printed = answer("delete", tmp_path / "e", key)
    check_same(seit.delete(tmp_path / "f", keys=[key]), printed)
    flags = ("--size", "64", "--codes", "64", "--val-fraction", "0.2")
    settings = {"size": 64, "codes": 64, "val_fraction": 0.2}
    printed = answer("tokenize", photos, tmp_path / "g", *flags)
    check_same(seit.tokenize(photos, out=tmp_path / "h", **settings), printed)
    estimate = seit.tokenize(photos, out=tmp_path / "i", dry_run=True, **settings)
    check_same(estimate, answer("tokenize", photos, tmp_path / "i", "--dry-run", *flags))
    check_same(
        seit.tokenize(photos, out=tmp_path / "h", update=True),
        answer("tokenize", photos, tmp_path / "g", "--update"),
    )


RUNS = {
    "train": {},
    "pretrain": {"objective": "mtm"},
    "tune": {"method": "lora"},
    "continual": {"method": "lae", "increment": 1},
}


@pytest.mark.parametrize("verb", RUNS)
def test_results_hold_what_json_prints_of_a_run(verb, place, tmp_path):
    file = tmp_path / "settings.yaml"
    file.write_text(json.dumps({"train": TINY, "pretrain": ENCODER}.get(verb, {})))
    own = RUNS[verb] | ({"init_from": place / "run"} if verb in ("tune", "continual") else {})
    flags = [
        part
        for name, value in (own | SHARED).items()
        for part in (f"--{name.replace('_', '-')}", value)
    ]
    printed = answer(verb, place / "store", "--out", tmp_path / "a", "--config", file, *flags)
    result = getattr(seit, verb)(place / "store", out=tmp_path / "b", config=file, **own, **SHARED)
    check_same(result, printed)
    assert len(repr(result)) < 1500
    assert result._repr_html_().startswith("<table>")


def test_results_hold_what_json_prints_of_a_finished_run(place, tmp_path):
    run, store = place / "run", place / "store"
    printed = answer("eval", run, store, "--device", "cpu")
    check_same(seit.evaluate(run, store=store, device="cpu"), printed)
    printed = answer("predict", run, place / "photos" / "red", "--device", "cpu")
    check_same(seit.predict(run, files=[place / "photos" / "red"], device="cpu"), printed)
    printed = answer("embed", run, store, "--out", tmp_path / "a.parquet")
    result = seit.embed(run, store=store, out=tmp_path / "b.parquet")
    same = printed | {"file": str(tmp_path / "b.parquet")}
    check_same(result, same)
    printed = answer("export", run, tmp_path / "c", "--format", "safetensors")
    result = seit.export(run, out=tmp_path / "d", formats=["safetensors"])
    assert result.record().keys() == printed.keys()
    photos = place / "photos"
    flags = ("--points", "pixels", "tokens-patch", "--size", "64", "--codes", "64")
    printed = answer("frontier", photos, "--dry-run", *flags)
    plan = seit.frontier(photos, points=["pixels", "tokens-patch"], size=64, codes=64, dry_run=True)
    check_same(plan, printed)


def test_features_are_what_the_classifier_sees(place, tmp_path):
    result = seit.embed(place / "run", store=place / "store", out=tmp_path / "f.safetensors")
    found, split = read_features(tmp_path / "f.safetensors"), seit.open(place / "store")["val"]
    assert found.features.shape == (len(split), result.dim) == (len(split), 48)
    assert found.keys == tuple(split.keys)
    assert (found.labels == split.labels).all()
    weights = Run.open(place / "run").load_weights()
    logits = found.features @ weights["head.weight"].numpy().T + weights["head.bias"].numpy()
    top1 = (logits.argmax(1) == found.labels).mean()
    assert top1 == pytest.approx(seit.evaluate(place / "run", store=place / "store").top1, abs=0.1)


def test_features_of_an_encoder(place, tmp_path):
    seit.pretrain(place / "store", out=tmp_path / "run", config=ENCODER, **SHARED)
    result = seit.embed(tmp_path / "run", store=place / "store", out=tmp_path / "f.safetensors")
    assert result.dim == 48
    with pytest.raises(UsageError, match="already exists"):
        seit.embed(tmp_path / "run", store=place / "store", out=tmp_path / "f.safetensors")


def test_settings_by_flag_by_path_and_nested(place, tmp_path):
    store = seit.open(place / "store")
    found = plan_run("train", store, recipe="small-cpu", steps=7, **{"optim.lr": 1e-3})
    assert (found.schedule.steps, found.optim.lr) == (7, 1e-3)
    nested = plan_run("train", store, recipe="small-cpu", steps=7, optim={"lr": 1e-3})
    assert nested == found
    assert plan_run("train", store, config=found) == found
    assert plan_run("train", store, config=found, seed=3).run.seed == 3
    assert plan_run("train", store, config=TrainConfig()) == TrainConfig()
    assert plan_run("continual", store, pet="lora").tuning.method == "lora"
    assert plan_run("train", store, recipe="small-cpu", epochs=2).schedule.steps is None


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"stepz": 3}, "did you mean 'steps'"),
        ({"optim.lx": 3}, "did you mean 'optim.lr'"),
        ({"steps": "many"}, "settings: "),
        ({"config": 3}, "config is int; expected"),
        ({"recipe": "small-cp"}, "did you mean 'small-cpu'"),
    ],
)
def test_wrong_settings_are_refused(place, tmp_path, changes, words):
    with pytest.raises(UsageError, match=re.escape(words)):
        seit.train(place / "store", out=tmp_path / "run", **changes)
    assert not (tmp_path / "run").exists()


def test_wrong_settings_of_a_corpus_are_refused(place, tmp_path):
    for changes, words in (({"cods": 3}, "did you mean 'codes'"), ({"codes": "x"}, "codes is 'x'")):
        with pytest.raises(UsageError, match=re.escape(words)):
            seit.tokenize(place / "photos", out=tmp_path / "store", **changes)
    with pytest.raises(UsageError, match="config is int"):
        seit.tokenize(place / "photos", out=tmp_path / "store", config=3)


def test_objects_show_themselves(place):
    store = seit.open(place / "store")
    split = store["train"]
    sample = split[0]
    batch = next(iter(seit.loader(split, batch_size=4).epoch(0)))
    run = Run.open(place / "run")
    for shown in (store, split, sample, batch, run):
        assert len(repr(shown)) < 300
        assert repr(shown).isprintable()
        assert "<table>" in shown._repr_html_()
    assert "data:image/png;base64" in sample._repr_html_()
    copy = pickle.loads(pickle.dumps(sample))
    assert copy.store is None
    assert (copy.tokens == sample.tokens).all()
    assert "<img" not in copy._repr_html_()


def test_hostile_names_are_escaped(place):
    sample = seit.open(place / "store")["train"][0]
    hostile = type(sample)(sample.tokens, 0, "<script>\x1b[2J\u202e", {"<b>": "<i>"}, sample.store)
    assert repr(hostile).isprintable()
    assert "<script>" not in hostile._repr_html_()
    assert "<i>" not in hostile._repr_html_()


def test_every_block_of_the_page_runs(tmp_path, monkeypatch, capsys):
    write_photos(tmp_path / "photos", 20)
    monkeypatch.chdir(tmp_path)
    names = {}
    blocks = re.findall(r"```python\n(.*?)```", DOCS.read_text(), re.S)
    assert len(blocks) == 10
    with forked_measurement():
        for block in blocks:
            exec(compile(block, str(DOCS), "exec"), names)
    shown = set(re.findall(r"seit\.([a-z_]+)\(", "".join(blocks))) | {"quickstart"}
    assert set(seit.__all__) <= shown
