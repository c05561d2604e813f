"""The command line: exit codes, one-line errors, JSON on stdout, settings and their precedence."""

import io
import json
import os
import subprocess
import sys
from contextlib import redirect_stdout
from importlib import import_module

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from support.commands import arguments_of_commands, flags_of_commands

import seit
from seit.cli import main
from seit.cli.app import COMMANDS, RESUMED_BY_FLAG, RESUMING, expand_settings
from seit.config import build, flatten, merge, setting_names
from seit.errors import UsageError
from seit.recipes import list_recipes
from seit.training import TrainConfig

SUBCOMMANDS = {
    "analyze": ("cca", "probe", "cka", "brain"),
    "tokenizer": ("fit", "train", "import", "list", "info", "eval", "quantize"),
    "recipes": ("list", "show", "copy"),
    "runs": ("list", "compare"),
}
CLASSES = ("blue", "green", "red")
TINY = (
    *("--model.embed_dim=48", "--model.depth=1", "--model.num_heads=3", "--model.stem", "4/4/0"),
    *("--batch-size=16", "--device", "cpu"),
)


def picture(label, random):
    """A 64 px picture whose class is its strongest colour."""
    values = random.uniform(60, 160, (8, 8, 3))
    values[..., 2 - label] += 80
    return Image.fromarray(values.astype(np.uint8)).resize((64, 64), Image.Resampling.BICUBIC)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    random = np.random.default_rng(0)
    for label, name in enumerate(CLASSES):
        (folder / name).mkdir()
        for number in range(40):
            picture(label, random).save(folder / name / f"{number}.png")
    (folder / "red" / "broken.png").write_bytes(b"not a picture")
    return folder


@pytest.fixture(scope="module")
def store(corpus, tmp_path_factory):
    path = tmp_path_factory.mktemp("stores") / "store"
    main(["tokenize", str(corpus), str(path), "--size", "64", "--codes", "64"])
    return path


@pytest.fixture(scope="module")
def run(store, tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "run"
    options = (*TINY, "--steps", "12", "--optim.lr", "3e-3", "--schedule.warmup_steps", "2")
    main(["train", str(store), "--out", str(path), *options])
    return path


@pytest.fixture
def refused(call):
    """The error line, the last and only one, of a command that leaves with ``code``."""

    def refused(*arguments, code=2):
        found, out, err = call(*arguments)
        assert (found, out) == (code, ""), err
        assert err.endswith("\n")
        *log, line = err.splitlines(keepends=True)
        assert line.startswith("error: ")
        assert not any(one.startswith(("error", "Traceback")) for one in log), err
        return line

    return refused


@pytest.fixture
def answer(call):
    """The JSON object that a command prints with `--json`, and nothing else on stdout."""

    def answer(*arguments):
        code, out, err = call(*arguments, "--json")
        assert code == 0, err
        values = json.loads(out)
        assert isinstance(values, dict)
        return values

    return answer


# -------------------------------------------------------------------------------------- the frame


def test_help_of_every_command(call):
    for name in COMMANDS:
        code, out, err = call(name, "--help")
        assert (code, err) == (0, "")
        assert out.startswith(f"Usage: seit {name}")
        if name not in SUBCOMMANDS:  # the whole text, as of Python
            summary = import_module(f"seit.cli.{name}").command.__doc__.splitlines()[0]
            assert " ".join(summary.split()) in " ".join(out.split())
        for inner in SUBCOMMANDS.get(name, ()):
            assert inner in out
            code, out_inner, _ = call(name, inner, "--help")
            assert code == 0
            assert out_inner.startswith(f"Usage: seit {name} {inner}")


def test_recipes_are_printed_as_json(call):
    code, out, _ = call("recipes", "list", "--json")
    assert code == 0
    assert json.loads(out).keys() == {recipe.name for recipe in list_recipes()}
    code, out, _ = call("recipes", "show", "small-cpu", "--json")
    assert code == 0
    assert json.loads(out)["model"]["stem"] == "early/4"


def test_a_copy_of_a_recipe_is_reported_as_json(call, tmp_path):
    code, out, err = call("recipes", "copy", "small-cpu", tmp_path / "mine.yaml", "--json")
    assert (code, err) == (0, "")
    assert json.loads(out) == {"recipe": "small-cpu", "file": str(tmp_path / "mine.yaml")}


def test_every_command_takes_json():
    assert [name for name, flags in flags_of_commands().items() if "--json" not in flags] == []


@pytest.mark.parametrize(
    "arguments", [(), ("--help",), ("--version",), ("tokenize", "--help"), ("recipes", "list")]
)
def test_quick_answers_do_not_load_torch(arguments):
    script = (
        "import sys\n"
        "from seit.cli import main\n"
        "try:\n    main(sys.argv[1:])\n"
        "finally:\n    assert not {'torch', 'timm', 'numpy'} & set(sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout
    assert done.stderr == ""


def test_version(call):
    assert call("--version") == (0, f"{seit.__version__}\n", "")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("tokenzie", "a", "b"), '"tokenize"'),
        (("recipes", "shw"), '"show"'),
        (("tokenizer", "fitt"), '"fit"'),
        (("tokenize", "a", "b", "--cods", "9"), "--codes"),
        (("train", "a", "--bach-size", "9"), "--batch-size"),
        (("info", "a", "--jsn"), "--json"),
        (("tokenize", "a", "b", "--optim.lr", "3"), "--optim.lr"),
    ],
)
def test_unknown_names_come_with_the_nearest(refused, arguments, words):
    assert words in refused(*arguments)


@pytest.mark.parametrize(
    "arguments",
    [
        ("tokenize",),
        ("tokenize", "a"),
        ("tokenize", "a", "b", "c"),
        ("tokenize", "a", "b", "--size"),
        ("tokenize", "a", "b", "--size", "big"),
        ("tokenize", "a", "b", "--size", "7"),
        ("tokenize", "a", "b", "--codes", "1"),
        ("tokenize", "a", "b", "--codec", "zip"),
        ("tokenize", "a", "b", "--val-fraction", "1"),
        ("tokenize", "a", "b", "--val-fraction", "nan"),
        ("tokenize", "a", "b", "--shard-samples", "1000"),
        ("tokenize", "a", "b", "--workers", "0"),
        ("tokenize", "a", "b", "--max-pixels", "0"),
        ("tokenize", "a", "b", "--seed", "-1"),
        ("tokenize", "a", "b", "--tokenizer", "patch-pca"),
        ("tokenize", "a", "b", "--device", "abacus"),
        ("tokenize", "missing", "b"),
        ("tokenize", "nowhere://bucket/photos", "b"),
        ("tokenizer", "fit", "missing", "file"),
        ("tokenizer", "fit", "missing", "no/such/folder/file"),
        ("tokenizer", "info", "missing"),
        ("tokenizer", "eval", "missing", "missing"),
        ("info",),
        ("info", "missing"),
        ("verify",),
        ("verify", "missing"),
        ("train",),
        ("train", "missing", "--out", "run"),
        ("train", "missing", "--recipe", "none", "--dry-run"),
        ("train", "missing", "--config", "missing.yaml", "--dry-run"),
        ("train", "missing", "--set", "optim.lr", "--dry-run"),
        ("eval", "missing", "missing"),
        ("predict", "missing", "missing"),
        ("predict", "missing"),
        ("recipes", "show"),
        ("recipes", "show", "none"),
        ("recipes", "copy", "none"),
    ],
    ids=" ".join,
)
def test_wrong_usage_and_missing_input(refused, tmp_path, monkeypatch, arguments):
    monkeypatch.chdir(tmp_path)
    refused(*arguments)
    assert not list(tmp_path.iterdir())


def test_names_with_odd_characters_stay_on_one_line(refused, tmp_path):
    assert "two lines" in refused("info", tmp_path / "two\nlines")
    refused("info", os.fsdecode(os.fsencode(tmp_path) + b"/\xff\xfe"))


def test_interrupted_commands_leave_with_130(call, monkeypatch, store, corpus, tmp_path):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("seit.api.verify", interrupt)
    assert call("verify", store) == (130, "", "interrupted\n")
    monkeypatch.setattr("seit.api.tokenize", interrupt)
    code, out, err = call("tokenize", corpus, tmp_path / "store")
    assert (code, out) == (130, "")
    assert "run the same command again to resume" in err.splitlines()[-1]
    monkeypatch.setattr("seit.api.train", interrupt)
    code, out, err = call("train", store, "--out", tmp_path / "run")
    assert (code, out) == (130, "")
    assert "run the same command again with --resume" in err.splitlines()[-1]
    monkeypatch.setattr("seit.api.analyze", interrupt)
    assert call("analyze", "cka", "run", store) == (130, "", "interrupted\n")
    for out in (("--out", tmp_path / "map"), (f"--out={tmp_path / 'map'}",)):
        code, _, err = call("analyze", "cka", "run", store, *out)
        assert code == 130
        assert "run the same command again with --resume" in err.splitlines()[-1]
    code, _, err = call("analyze", "cka", "run", store, *out, "--resume")
    assert "run the same command again to resume" in err.splitlines()[-1]


def test_commands_with_a_resume_flag_are_those_that_an_interruption_names_it_for():
    flags = flags_of_commands()
    assert sorted(RESUMED_BY_FLAG) == sorted(name for name in flags if "--resume" in flags[name])
    assert set(RESUMING) <= flags.keys() - set(RESUMED_BY_FLAG)


def test_failures_of_the_system_are_one_line(refused, monkeypatch, store):
    def fail(*_, **__):
        raise OSError(5, "Input/output error", "/some/file")

    monkeypatch.setattr("seit.api.verify", fail)
    assert refused("verify", store, code=1) == "error: /some/file: Input/output error\n"


# ---------------------------------------------------------------------------------------- settings


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"optim": {"name": "sgd"}}, "optim.name; choose one of adamw, lamb, muon"),
        ({"loss": {"kind": "focal"}}, "loss.kind; choose one of ce, bce"),
        ({"optim": {"lr": "fast"}}, "expected float, got str - at optim.lr$"),
    ],
)
def test_a_wrong_choice_names_the_right_ones(settings, expected):
    with pytest.raises(UsageError, match=expected):
        build(TrainConfig, settings, origin="settings")


def test_a_group_is_no_setting(refused):
    with pytest.raises(
        UsageError, match=r"^config: 'ema' is a group of settings: ema\.decay, ema\.w"
    ):
        build(TrainConfig, {"ema": 1}, origin="config")
    assert "such as optim.lr=1e-3" in refused("train", "missing", "--set", "optim=1", "--dry-run")
    line = refused("train", "missing", "--set", "run.seed=1", "ema.decay=0", "--dry-run")
    assert "unexpected argument 'ema.decay=0'; each NAME=VALUE needs a --set of its own" in line


def test_fractions_of_whole_numbers_are_refused(refused):
    for flag, text in (("--steps", "2.6"), ("--batch-size", "1.5"), ("--seed", "x")):
        line = refused("train", "missing", flag, text, "--dry-run")
        assert f"Invalid value for {flag}: '{text}' is not a whole number" in line
    assert settings_of("train", "--steps=30.0")["schedule"]["steps"] == 30


def test_all_flags_of_whole_numbers_refuse_fractions():
    for name, arguments in arguments_of_commands().items():
        whole = [one for one in arguments if one.hint in (int, list[int])]
        assert all(one.parameter.converter for one in whole), name


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("train --steps 5 --epochs 2", "epochs and steps are both given"),
        ("train --steps 5 --schedule.epochs 2", "epochs and steps are both given"),
        ("train --steps 5 --schedule.steps 6", "schedule.steps is given as 6 and as 5; give it"),
        ("train --optim.lr 1 --optim.lr 2", "optim.lr is both 1 and 2; give it once"),
        ("train --init-from a --set init_from=b", "init_from is a by its flag and b by --set"),
        ("train --pretrained-head", "pretrained_head is set, but no file of weights"),
        ("tune --init-from a --method lora,all", "'all' stands for all methods; pass it alone"),
        ("tune --init-from a --method lora,lora", "--method is lora,lora; name each method once"),
        ("tune --init-from a --seeds 0", "--seeds is 0; it must be at least 1"),
        ("train --seeds 0", "--seeds is 0; it must be at least 1"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(refused, arguments, words):
    command, *flags = arguments.split()
    assert words in refused(command, "missing", *flags, "--dry-run")


def test_the_same_value_twice_is_fine():
    schedule = settings_of("train", "--steps=5", "--set", "schedule.steps=5")["schedule"]
    assert schedule["steps"] == 5
    assert settings_of("train", "--recipe=quickstart", "--schedule.epochs=2")["schedule"] == {
        **settings_of("train", "--recipe=quickstart", "--epochs=2")["schedule"]
    }


def settings_of(command, *flags):
    """The settings that a command prints by --dry-run, for a store that does not exist."""
    with redirect_stdout(io.StringIO()) as out:
        main([command, "missing", *flags, "--dry-run", "--json"])
    return json.loads(out.getvalue())


def test_a_misspelled_variable_is_warned_of(call, monkeypatch):
    monkeypatch.setenv("SEIT_OPTIM_LRR", "1")
    monkeypatch.setenv("SEIT_STEPS", "8")
    monkeypatch.setenv("SEIT_TUNING_RANK", "2")  # of another command
    monkeypatch.setenv("SEIT_CACHE_BYTES", "0")  # of stores
    monkeypatch.setenv("SEIT_TEST_DATA", "2")
    _, _, err = call("train", "missing", "--dry-run")
    assert [line for line in err.splitlines() if "variable" in line] == [
        "warning: the variable SEIT_OPTIM_LRR names no setting; did you mean SEIT_OPTIM_LR?",
        "warning: the variable SEIT_STEPS names no setting; did you mean SEIT_SCHEDULE_STEPS?",
    ]


def test_evaluating_on_the_training_split_is_warned_of(call):
    _, _, err = call("train", "missing", "--dry-run", "--data.val_split", "train")
    assert "warning: data.val_split is the training split train: the run is evaluated on" in err


def test_a_name_like_no_other_gets_the_groups():
    groups = r"there are augment\.…, data\.…, distill\.…, ema\.…, init_from, layer, loss\.…"
    with pytest.raises(UsageError, match=groups):
        build(TrainConfig, {"zzz": {"zzzz": 1}}, origin="config")
    with pytest.raises(UsageError, match=r"there are ema\.decay, ema\.warmup$"):
        build(TrainConfig, {"ema": {"zzzzzzzzzzz": 1}}, origin="config")


def test_an_argument_too_many_is_named(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["info", "store", "mydir"])
    assert caught.value.code == 2
    assert "unexpected argument 'mydir'" in capsys.readouterr().err


def test_settings_are_recognised_in_every_form():
    assert expand_settings(["--optim.lr", "1e-3"]) == ["--set", "optim.lr=1e-3"]
    assert expand_settings(["--optim.lr=-1"]) == ["--set", "optim.lr=-1"]
    assert expand_settings(["--optim.lr", "-1"]) == ["--set", "optim.lr=-1"]
    assert expand_settings(["--ema.warmup", "--json"]) == ["--set", "ema.warmup=true", "--json"]
    assert expand_settings(["--ema.warmup"]) == ["--set", "ema.warmup=true"]
    assert expand_settings(["a.b", "--out=x.y"]) == ["a.b", "--out=x.y"]
    assert expand_settings(["--", "--optim.lr", "3"]) == ["--", "--optim.lr", "3"]


@pytest.fixture
def resolved(answer):
    """The settings that `seit train --dry-run` resolves."""

    def resolved(*arguments):
        return answer("train", "no-store-needed", "--dry-run", *arguments)

    return resolved


def test_values_are_parsed_by_their_settings(resolved):
    found = resolved(
        *("--optim.lr", "2e-3", "--optim.betas=0.8,0.95", "--schedule.steps", "null"),
        *("--ema.warmup=false", "--augment.crop_scale", "[0.5, 1]", "--data.pixels=null"),
        *("--model.stem", "8/8/0", "--schedule.warmup_steps=7", "--loss.label_smoothing", "0"),
    )
    assert found["optim"]["lr"] == 2e-3
    assert found["optim"]["betas"] == [0.8, 0.95]
    assert found["schedule"]["steps"] is None
    assert found["schedule"]["warmup_steps"] == 7
    assert found["ema"]["warmup"] is False
    assert found["augment"]["crop_scale"] == [0.5, 1.0]
    assert found["data"]["pixels"] is None
    assert found["model"]["stem"] == "8/8/0"
    assert found["loss"]["label_smoothing"] == 0
    assert resolved("--ema.warmup")["ema"]["warmup"] is True


def test_every_setting_is_spelled_out(resolved):
    """Defaults too: a run's config.yaml must not change its meaning with the next version."""
    names = list(setting_names(TrainConfig))
    assert list(flatten(resolved())) == list(flatten(resolved("--recipe=quickstart"))) == names


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--optim.lrr", "1"), "'optim.lr'"),
        (("--optm.lr", "1"), "'optim.lr'"),
        (("--schedule.step=3",), "'schedule.steps'"),
        (("--optim.lr", "fast"), "optim.lr"),
        (("--optim.lr",), "optim.lr"),
        (("--optim.lr", "-1"), "optim.lr"),
        (("--optim.lr.x", "1"), "optim.lr"),
        (("--optim", "1"), "--optim"),
        (("--run.precision", "fp8"), "run.precision"),
        (("--batch-size", "0"), "data.batch_size"),
        (("--steps", "0"), "schedule.steps"),
    ],
)
def test_wrong_settings_are_named(refused, arguments, words):
    assert words in refused("train", "no-store-needed", "--dry-run", *arguments)


def test_precedence(resolved, tmp_path, monkeypatch):
    """Flags > SEIT_* > --config > --recipe > defaults."""
    names = ("lr", "weight_decay", "eps", "clip_grad", "lr_batch_size")
    config = tmp_path / "mine.yaml"
    config.write_text("optim: {lr: 0.2, weight_decay: 0.2, eps: 0.2}\n")
    monkeypatch.setenv("SEIT_OPTIM_LR", "0.3")
    monkeypatch.setenv("SEIT_OPTIM_WEIGHT_DECAY", "0.3")
    found = resolved("--recipe=small-cpu", "--config", config, "--optim.lr", "0.4")["optim"]
    assert [found[name] for name in names] == [0.4, 0.3, 0.2, 1.0, 64]
    assert found["betas"] == list(TrainConfig().optim.betas)
    monkeypatch.delenv("SEIT_OPTIM_LR")
    assert resolved("--config", config)["optim"]["lr"] == 0.2
    assert resolved("--config", config)["optim"]["clip_grad"] == 0.0, "no recipe unless asked for"
    assert resolved()["optim"]["clip_grad"] == 1.0, "small-cpu unless there is a config"


def test_short_flags_are_settings(resolved):
    found = resolved("--steps=9", "--batch-size=8", "--seed=3", "--device=cpu", "--model=deit_x")
    assert found["schedule"]["steps"] == 9
    assert found["data"]["batch_size"] == 8
    assert found["run"] == {**found["run"], "seed": 3, "device": "cpu"}
    assert found["model"]["name"] == "deit_x"
    recipe = resolved("--recipe=quickstart", "--epochs=2")["schedule"]
    assert (recipe["epochs"], recipe["steps"]) == (2, None)


def test_config_files_that_are_wrong(refused, tmp_path):
    config = tmp_path / "mine.yaml"
    for text, words in (
        ("optim: {lrr: 1}", "'optim.lr'"),
        ("- 1\n- 2", "not hold a mapping"),
        ("{", "not YAML"),
        ("optim: 3", "optim"),
        ("!!python/object/apply:os.getcwd []", "not YAML"),
        ("optim: {lr: [1]}", "optim.lr"),
    ):
        config.write_text(text)
        assert words in refused("train", "x", "--dry-run", "--config", config)
    config.write_bytes(b"\xff\xfe\x00")
    refused("train", "x", "--dry-run", "--config", config)


def test_environment_that_is_wrong(refused, monkeypatch):
    monkeypatch.setenv("SEIT_OPTIM_LR", "fast")
    assert "optim.lr" in refused("train", "x", "--dry-run")


OF_A_RUN = ("compress-small-cpu",)
"""Recipes whose command takes a run, whose backbone they leave out; see tests/compression."""


@pytest.mark.parametrize(
    "name", [recipe.name for recipe in list_recipes() if recipe.name not in OF_A_RUN]
)
def test_every_recipe_resolves_and_prints_what_it_says(answer, call, refused, name):
    code, out, err = call("recipes", "show", name)
    assert (code, err) == (0, "")
    shown = yaml.safe_load(out)
    marks = {"stream": "continual", "objective": "pretrain", "tuning": "tune"}
    right = next((command for mark, command in marks.items() if mark in shown), "train")
    wrong = "train" if right == "pretrain" else "pretrain"
    data = "SOUNDS" if "speech" in shown else "STORE"
    assert f"seit {right} {data}" in out.splitlines()[0], "it opens with the command that runs it"
    found = answer(right, "no-store-needed", "--recipe", name, "--dry-run")
    assert merge(found, shown) == found
    code, out, _ = call(right, "x", "--recipe", name, "--dry-run")
    assert code == 0
    assert yaml.safe_load(out) == found, "without --json the same, as YAML"
    assert f"one of `seit {right}`" in refused(wrong, "x", "--recipe", name, "--dry-run")


@pytest.mark.parametrize(
    ("text", "loggers"), [("wandb", ["wandb"]), ("auto,wandb", ["auto", "wandb"]), ("[]", [])]
)
def test_a_list_of_one_needs_no_brackets(resolved, text, loggers):
    assert resolved("--run.loggers", text)["run"]["loggers"] == loggers


@pytest.mark.parametrize("flag", ["--model", "--model.name"])
def test_another_model_has_its_own_sizes(resolved, flag):
    model = resolved("--recipe=seit-vit-base", flag, "resnet18")["model"]
    assert (model["name"], model["stem"], model["drop_path"]) == ("resnet18", "auto", 0.1)
    model = resolved("--recipe=small-cpu", flag, "resnet18", "--model.stem", "up")["model"]
    assert (model["embed_dim"], model["depth"], model["stem"]) == (None, None, "up")


def test_dry_run_writes_nothing(call, tmp_path, corpus, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert call("train", "x", "--out", "run", "--dry-run")[0] == 0
    assert call("tokenize", corpus, "store", "--dry-run", "--size=64", "--codes=64")[0] == 0
    assert not list(tmp_path.iterdir())


# ----------------------------------------------------------------------------- recipes, tokenizers


def test_recipes(call, refused, resolved, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = call("recipes", "list")
    assert (code, err) == (0, "")
    assert [line.split()[0] for line in out.splitlines()] == [r.name for r in list_recipes()]
    assert "did you mean 'small-cpu'" in refused("recipes", "show", "smal-cpu")
    assert call("recipes", "copy", "small-cpu")[:2] == (0, "")
    assert "already exists" in refused("recipes", "copy", "small-cpu")
    assert "no folder" in refused("recipes", "copy", "small-cpu", "no/such/file.yaml")
    assert "is a folder" in refused("recipes", "copy", "small-cpu", tmp_path)
    assert resolved("--config", "small-cpu.yaml") == resolved("--recipe", "small-cpu")


def test_tokenizers(answer, refused, corpus, tmp_path):
    file = tmp_path / "tokenizer.safetensors"
    assert "patch-pca-vq" in answer("tokenizer", "list")
    options = ("--size=64", "--codes=64")
    fitted = answer("tokenizer", "fit", corpus, file, *options)
    assert fitted.keys() >= {"fingerprint", "psnr_db", "codebook_usage", "perplexity"}
    assert "already exists" in refused("tokenizer", "fit", corpus, file, *options)
    assert answer("tokenizer", "fit", corpus, file, *options, "--overwrite") == fitted
    found = answer("tokenizer", "info", file)
    assert found["fingerprint"] == fitted["fingerprint"]
    assert (found["grid"], found["codebook_size"], found["codebook_dim"]) == ([8, 8], 64, 16)
    assert found["bytes"] == file.stat().st_size
    measured = answer("tokenizer", "eval", file, corpus, "--images=20")["rows"][str(file)]
    assert 10 < measured["psnr_db"] < 60
    assert measured["images"] <= 20
    assert "images" in refused("tokenizer", "eval", file, corpus, "--images=0")
    assert "too few" in refused("tokenizer", "fit", corpus, tmp_path / "x", "--codes=65536")
    file.write_bytes(file.read_bytes()[:-9])
    assert "tokenizer file" in refused("tokenizer", "info", file, code=1)
    refused("tokenizer", "eval", file, corpus, code=1)
    refused("tokenize", corpus, tmp_path / "store", "--tokenizer", file, code=1)
    assert sorted(path.name for path in tmp_path.iterdir()) == [file.name]


# ------------------------------------------------------------------------------------ end to end


def test_tokenize_prints_its_figures(answer, call, corpus, tmp_path):
    options = ("--size=64", "--codes=64")
    estimate = answer("tokenize", corpus, tmp_path / "store", *options, "--dry-run")
    assert estimate["dry_run"] is True
    assert estimate["samples"] == 121
    assert not (tmp_path / "store").exists()
    made = answer("tokenize", corpus, tmp_path / "store", *options)
    assert (made["samples"], made["skipped"]) == (120, 1)
    assert made["bytes"] == made["bytes_per_sample"] * 120
    assert made["samples_per_second"] > 0
    # An estimate leaves out the card, which weighs more than 120 samples of 48 bytes.
    assert estimate["bytes"] == pytest.approx(made["bytes"], rel=0.5)
    code, out, err = call("tokenize", corpus, tmp_path / "store", *options, "--json")
    assert code == 0
    assert json.loads(out)["samples_per_second"] == 0
    assert "complete already" in err
    code, out, err = call("tokenize", corpus, tmp_path / "other", *options)
    assert code == 0
    assert "120" in out
    assert "warning: skipped 1 file; " in err


def test_a_class_without_images_is_one_warning(call, corpus, tmp_path):
    (tmp_path / "src").mkdir()
    for name in ("blue", "red"):
        (tmp_path / "src" / name).symlink_to(corpus / name)
    (tmp_path / "src" / "dud").mkdir()
    for name in ("x.png", "y.png"):
        (tmp_path / "src" / "dud" / name).write_bytes(b"")
    code, _, err = call("tokenize", tmp_path / "src", tmp_path / "store", "--size=64", "--codes=64")
    assert code == 0
    lines = [line for line in err.splitlines() if "dud" in line]
    assert len(lines) == 1
    assert lines[0].startswith("warning: class 'dud' has no readable image")


def test_strict_leaves_with_1(refused, corpus, tmp_path):
    options = ("--size=64", "--codes=64", "--strict")
    assert "red/broken.png" in refused("tokenize", corpus, tmp_path / "s", *options, code=1)


def test_tokenize_refuses_what_is_not_its_own(refused, corpus, store, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter.txt").write_text("dear")
    (tmp_path / "empty").mkdir()
    new = tmp_path / "new"
    assert "already holds" in refused("tokenize", corpus, tmp_path / "full")
    assert "is a file" in refused("tokenize", corpus, tmp_path / "full" / "letter.txt")
    assert "lies inside SRC" in refused("tokenize", corpus, corpus / "red" / "store")
    assert "token store already" in refused("tokenize", store, new)
    assert "no files" in refused("tokenize", tmp_path / "empty", new)
    assert "size was 64 and is 128" in refused(
        "tokenize", corpus, store, "--size=128", "--codes=64"
    )
    for flag in ("--dry-run", "--overwrite"):
        assert "already holds" in refused("tokenize", corpus, tmp_path / "full", flag)
    assert (tmp_path / "full" / "letter.txt").read_text() == "dear"
    assert not new.exists()


def test_info(answer, call, store):
    found = answer("info", store)
    assert found["samples"] == 120 == sum(found["splits"].values())
    assert found["grid"] == [8, 8]
    assert found["codebook_size"] == 64
    assert found["tokenizer"] == "patch-pca-vq"
    assert found["classes"] == list(CLASSES)
    assert found["bytes"] == sum(p.stat().st_size for p in store.rglob("*") if p.is_file())
    assert found["bytes_per_sample"] == found["bytes"] / 120
    code, out, err = call("info", store)
    assert (code, err) == (0, "")
    assert "8×8 of 64 codes" in out


def test_verify(answer, call, refused, corpus, tmp_path):
    store = tmp_path / "store"
    assert call("tokenize", corpus, store, "--size=64", "--codes=64")[0] == 0
    found = answer("verify", store)
    assert (found["ok"], found["blocks"], found["damaged"]) == (True, 2, [])
    shard = store / "train" / "00000.tar"
    data = bytearray(shard.read_bytes())
    data[600] ^= 1
    shard.write_bytes(data)
    code, out, err = call("verify", store, "--json")
    assert (code, err) == (1, "")
    found = json.loads(out)
    assert found["ok"] is False
    (damage,) = found["damaged"]
    assert (damage["file"], damage["block"]) == ("train/00000.tar", 0)
    code, out, err = call("verify", store)
    assert (code, err) == (1, "")
    assert out.startswith("damaged: train/00000.tar, block 0: ")
    (store / "store.json").write_bytes(b"{}")
    assert call("verify", store, "--json")[0] == 1
    refused("info", store, code=1)


def test_train_eval_and_predict(answer, call, run, store, corpus):
    result = json.loads((run / "run.json").read_text())["result"]
    assert result["steps"] == 12
    found = answer("eval", run, store, "--device=cpu")
    assert found.keys() >= {"top1", "top5", "loss", "samples_per_second"}
    assert found["samples"] == len(seit.open(store)["val"])
    assert found["top1"] == pytest.approx(result["top1"])
    assert found["loss"] == pytest.approx(result["loss"], rel=1e-5)
    assert 0 <= found["top1"] <= found["top5"] <= 1
    files = [corpus / "blue" / "0.png", corpus / "red" / "1.png"]
    predictions = answer("predict", run, *files, "--device=cpu", "--top=2")["predictions"]
    assert [entry["file"] for entry in predictions] == list(map(str, files))
    for entry in predictions:
        shares = [item["probability"] for item in entry["classes"]]
        assert len(shares) == 2
        assert 1 >= shares[0] >= shares[1] >= 0
        assert {item["class"] for item in entry["classes"]} <= set(CLASSES)
    code, out, err = call("predict", run, files[0], "--device=cpu")
    assert (code, err.count("\n"), "warning: the stem" in err) == (0, 1, True)
    assert out.splitlines()[0] == str(files[0])
    assert len(out.splitlines()) == 1 + len(CLASSES)


def test_train_prints_its_figures(answer, refused, store, run, tmp_path):
    options = (*TINY, "--steps=2")
    out = tmp_path / "run"
    found = answer("train", store, "--out", out, *options)
    assert found.keys() >= {"top1", "top5", "loss", "samples_per_second", "data_wait_fraction"}
    assert found["steps"] == 2
    assert "--resume" in refused("train", store, "--out", out, *options)
    other = (*options, "--optim.lr=9e-3", "--resume")
    assert "optim.lr was 0.001 and is 0.009" in refused("train", store, "--out", out, *other)
    again = answer("train", store, "--out", out, *options, "--resume")
    assert again["top1"] == found["top1"]
    assert "--out is missing" in refused("train", store, *options)


def test_runs_and_stores_that_do_not_fit(call, refused, run, store, corpus, tmp_path):
    assert "no split 'test'" in refused("eval", run, store, "--split", "test")
    assert "no run at" in refused("eval", store, store)
    assert "no store at" in refused("eval", run, run)
    assert "no run at" in refused("predict", store, corpus / "red" / "0.png")
    assert "there is no file" in refused("predict", run, tmp_path / "missing.png")
    assert "--top" in refused("predict", run, corpus / "red" / "0.png", "--top=0")
    code, out, err = call("predict", run, corpus / "red" / "broken.png")
    assert code == 1
    assert "unreadable: not an image" in out
    assert "1 of 1 files cannot be read" in err
    for name in ("eval", "predict"):
        refused(name, run, store, "--device=abacus")
    assert "device" in refused("train", store, "--out", tmp_path / "run", "--device=abacus")
    assert "no model" in refused("train", store, "--out", tmp_path / "run", "--model=vit_x")
    if not torch.cuda.is_available():
        refused("tokenize", corpus, tmp_path / "store", "--device=cuda")
    assert not list(tmp_path.iterdir())
