"""`seit tune`: what a run trains, leaves behind and resumes; tables of methods."""

import json
import math
from dataclasses import asdict, replace

import pytest
import torch
from safetensors.torch import load_file
from support.pretraining import CONFIG as PRETRAIN, changed

from seit.api.plans import choose_methods
from seit.cli import main
from seit.config import build, merge, to_mapping
from seit.errors import UsageError
from seit.exports.export import export_run
from seit.models.tuning import METHODS, load_adapter
from seit.pretraining import pretrain
from seit.training import Run, TrainConfig, evaluate_run, predict, train
from seit.training.feeds import make_augment
from seit.training.initialize import start_from
from seit.training.networks import build_model
from seit.training.tuning import TuneConfig, tune, tune_methods

BASE = {
    "model": to_mapping(PRETRAIN.model),
    "data": {"batch_size": 12},
    "optim": {"lr": 1e-2, "full_lr": 1e-3, "lr_batch_size": 0},
    "schedule": {"steps": 6, "warmup_steps": 1},
    "augment": {"crop_size": 8},
    "run": {"device": "cpu", "eval_every": 4, "checkpoint_every": 2, "log_every": 1, "loggers": []},
}


def config(method="lora", /, **groups):
    tuning = {"method": method, "rank": 2, "mask_every": 1, **groups.pop("tuning", {})}
    return build(TuneConfig, merge(BASE, {"tuning": tuning}, groups), origin="test")


def weights_of(path):
    return load_file(path / "model.safetensors")


def same(ours, theirs):
    assert ours.keys() == theirs.keys()
    for key, value in theirs.items():
        assert torch.equal(ours[key], value), key


@pytest.fixture(scope="module")
def place(pattern_folder):
    return pattern_folder


@pytest.fixture(scope="module")
def store(pattern_store):
    return pattern_store


@pytest.fixture(scope="module")
def backbone(store, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "backbone"
    pretrain(changed(schedule={"steps": 2}), store, out=out)
    return out


@pytest.fixture(scope="module")
def finished(store, backbone, tmp_path_factory):
    """Runs of methods of all kinds."""
    folder = tmp_path_factory.mktemp("finished")
    found = {}
    for method in ("adalora", "prefix", "weighted-sum", "full"):
        found[method] = (
            folder / method,
            tune(config(method), store, out=folder / method, init_from=backbone),
        )
    return found


def fresh_model(store, backbone, settings):
    augment = make_augment(store, settings, torch.device("cpu"), with_train=False)
    model = build_model(settings.model, augment, num_classes=3, patch_size=8)
    start_from(model, Run.open(backbone), store, settings)
    return model.eval()


def test_a_run_trains_few_weights_and_says_how_many(finished, backbone):
    before = weights_of(backbone)
    for method, (out, result) in finished.items():
        after = weights_of(out)
        moved = {key for key, value in before.items() if not torch.equal(after[key], value)}
        if method == "adalora":
            assert moved
            assert all("weight" in key and "blocks" in key for key in moved)
            assert after.keys() == before.keys() | {"head.weight", "head.bias"}
            assert sum(result.ranks.values()) == 2 * 2 * 2
            began = 2 * 2 * 3 * (2 * 16 + 1)
            assert result.trained_parameters == began + result.head_parameters
            assert result.tuning_parameters == 2 * 2 * 2 * (2 * 16 + 1)
        elif method == "full":
            assert len(moved) > len(before) / 2
        else:
            assert not moved, method
            assert result.trained_parameters == result.tuning_parameters + result.head_parameters
            assert result.ranks == {}
        assert result.head_parameters == 3 * 16 + 3
        assert result.parameters == sum(
            value.numel() for key, value in after.items() if "running" not in key
        )


def test_a_run_is_used_as_any_other(finished, store, place):
    picture = next((place / "pictures" / "val").rglob("*.png"))
    for method, (out, result) in finished.items():
        found = evaluate_run(out, store, device="cpu")
        assert found.top1 == result.top1, method
        assert found.loss == pytest.approx(result.loss, abs=1e-5)
        assert len(predict(out, [picture], device="cpu")) == 1
        assert replace(Run.open(out).settings, init_from=None) == config(method)
        assert Run.open(out).command == "tune"


def test_adapters_bring_the_backbone_to_the_same_logits(finished, store, backbone):
    for method, (out, result) in finished.items():
        model = fresh_model(store, backbone, config(method))
        tuning = load_adapter(out / "adapter.safetensors", model)
        assert tuning.ranks() == result.ranks
        if tuning.mergeable:
            tuning.merge()
        ours, theirs = model.state_dict(), weights_of(out)
        assert ours.keys() == theirs.keys()
        for key, value in theirs.items():
            torch.testing.assert_close(ours[key], value, rtol=0, atol=1e-6, msg=key)
        if method != "full":
            assert (out / "adapter.safetensors").stat().st_size < 10_000


def test_the_adapter_of_a_fully_tuned_resnet_fits_its_backbone(store, tmp_path):
    """Running statistics of batch norms move too: the backbone has the old, the result the new."""
    out, base = tmp_path / "full", tmp_path / "base"
    shared = merge(BASE, {"schedule": {"steps": 2}})
    shared["model"] = {"name": "resnet10t"}
    plain = {**shared, "optim": {"lr": 1e-2}}
    train(build(TrainConfig, plain, origin="test"), store, out=base)
    settings = build(TuneConfig, merge(shared, {"tuning": {"method": "full"}}), origin="test")
    result = tune(settings, store, out=out, init_from=base)
    network = fresh_model(store, base, settings)
    load_adapter(out / "adapter.safetensors", network).merge()
    same(network.state_dict(), weights_of(out))
    norm = "bn1.running_mean"
    assert not torch.equal(weights_of(out)[norm], weights_of(base)[norm])
    assert result.tuning_parameters == result.parameters - result.head_parameters


@pytest.mark.parametrize("method", ["adalora", "prefix"])
@pytest.mark.parametrize("last", [1, 4])
def test_a_stopped_run_goes_on_bit_for_bit(method, last, finished, store, backbone, tmp_path):
    class StopError(Exception):
        pass

    def stop(step, *_):
        if step == last:
            raise StopError

    shared = {"out": tmp_path / "run", "init_from": backbone}
    with pytest.raises(StopError):
        tune(config(method), store, **shared, progress=stop)
    result = tune(config(method), store, **shared, resume=True)
    out, whole = finished[method]
    for name in ("model.safetensors", "adapter.safetensors"):
        same(load_file(tmp_path / "run" / name), load_file(out / name))
    assert (result.top1, result.loss, result.ranks) == (whole.top1, whole.loss, whole.ranks)
    with pytest.raises(UsageError, match=r"tuning\.rank"):
        tune(config(method, tuning={"rank": 4}), store, **shared, resume=True)


def test_the_penalty_is_a_part_of_the_loss(finished):
    out, _ = finished["adalora"]
    lines = [entry for entry in Run.open(out).metrics() if entry["split"] == "train"]
    assert all(entry["loss"] > entry["penalty"] > 0 for entry in lines)
    # P and Q of std 0.02 are nearly 0: the norm of 1, as wide as the first rank.
    assert lines[0]["penalty"] == pytest.approx(0.1 * math.sqrt(3), rel=0.05)


def test_full_tuning_has_its_own_rate_and_is_plain_training(finished, store, backbone, tmp_path):
    assert config("full").peak_lr == pytest.approx(1e-3)
    assert config("lora").peak_lr == pytest.approx(1e-2)
    plain = merge(BASE, {"ema": {"decay": 0.0}})
    plain["optim"] = {"lr": 1e-3, "lr_batch_size": 0}
    settings = build(TrainConfig, plain, origin="test")
    train(settings, store, out=tmp_path / "plain", init_from=backbone)
    same(weights_of(finished["full"][0]), weights_of(tmp_path / "plain"))


def test_parts_of_a_batch_make_the_same_step(finished, store, backbone, tmp_path):
    parts = config("prefix", optim={"accumulate": 3})
    tune(parts, store, out=tmp_path / "parts", init_from=backbone)
    ours, theirs = weights_of(tmp_path / "parts"), weights_of(finished["prefix"][0])
    for key, value in theirs.items():
        torch.testing.assert_close(ours[key], value, rtol=0, atol=2e-4, msg=key)


def test_an_average_of_a_tuned_model_is_kept(store, backbone, tmp_path):
    averaged = config("lora", ema={"decay": 0.5})
    out = tmp_path / "run"
    result = tune(averaged, store, out=out, init_from=backbone)
    assert weights_of(out).keys() == weights_of(backbone).keys() | {"head.weight", "head.bias"}
    assert evaluate_run(out, store, device="cpu").loss == pytest.approx(result.loss, abs=1e-5)
    model = fresh_model(store, backbone, averaged)
    load_adapter(out / "adapter.safetensors", model).merge()
    key = "blocks.1.attn.qkv.weight"
    torch.testing.assert_close(model.state_dict()[key], weights_of(out)[key], rtol=0, atol=1e-6)


def test_what_starts_from_a_tuned_run(finished, store, tmp_path):
    merged, kept = finished["adalora"][0], finished["prefix"][0]
    tune(config("linear"), store, out=tmp_path / "again", init_from=merged)
    pretrain(changed(schedule={"steps": 1}), store, out=tmp_path / "pre", init_from=merged)
    for start in (
        lambda: tune(config("linear"), store, out=tmp_path / "no", init_from=kept),
        lambda: pretrain(PRETRAIN, store, out=tmp_path / "no", init_from=kept),
    ):
        with pytest.raises(UsageError, match="tuned by prefix, whose modules"):
            start()
    assert not (tmp_path / "no").exists()
    export_run(merged, tmp_path / "exported", formats=["safetensors"])
    export_run(kept, tmp_path / "with modules", formats=["safetensors"])


def test_runs_are_listed_and_compared(finished, capsys):
    out = finished["adalora"][0]
    main_answer(capsys, "runs", "list", out.parent)
    found = main_answer(capsys, "runs", "compare", out, finished["prefix"][0])
    assert "tuning.method" in json.dumps(found["settings"])


def main_answer(capsys, *arguments):
    main([*map(str, arguments), "--json"])
    return json.loads(capsys.readouterr().out)


# ------------------------------------------------------------------------------- tables of methods


def test_several_methods_make_a_table(place, backbone, tmp_path, capsys):
    arguments = ["tune", place / "store", "--init-from", backbone, "--out", tmp_path / "out"]
    arguments += [
        "--method",
        "linear,weighted-sum,adalora,full",
        "--seeds",
        "2",
        "--config",
        tmp_path / "c.yaml",
    ]
    short = merge(BASE, {"schedule": {"steps": 1, "warmup_steps": 0}, "tuning": {"rank": 2}})
    (tmp_path / "c.yaml").write_text(json.dumps(short))
    found = main_answer(capsys, *arguments)
    assert [row["method"] for row in found["rows"]] == ["linear", "weighted-sum", "adalora", "full"]
    assert found["skipped"] == {}
    for row in found["rows"]:
        runs = [tmp_path / "out" / row["method"] / f"seed-{seed}" for seed in (0, 1)]
        tops = [json.loads((run / "run.json").read_text())["result"]["top1"] for run in runs]
        assert row["top1"]["mean"] == pytest.approx(sum(tops) / 2)
        sizes = [(run / "adapter.safetensors").stat().st_size for run in runs]
        assert row["adapter_bytes"] == sum(sizes) / 2
    shares = {row["method"]: row["share"] for row in found["rows"]}
    assert shares["linear"] == 0 < shares["weighted-sum"] < shares["adalora"] < shares["full"] < 1
    assert "adalora" in (tmp_path / "out" / "report.html").read_text()
    again = main_answer(capsys, *arguments, "--resume")
    assert again == found
    assert choose_methods("all", METHODS) == METHODS


@pytest.mark.slow
def test_methods_that_do_not_fit_are_left_out_of_all_or_refused(store, tmp_path):
    cnn = {"name": "resnet18", "stem": "auto", "embed_dim": None, "depth": None, "num_heads": None}
    plain = build(
        TrainConfig,
        merge(BASE, {"model": cnn, "optim": {"full_lr": None}})
        | {"optim": {"lr": 1e-3}, "schedule": {"steps": 1}, "ema": {"decay": 0.0}},
        origin="test",
    )
    train(plain, store, out=tmp_path / "cnn")
    settings = config(model=cnn, schedule={"steps": 1, "warmup_steps": 0})
    shared = {"init_from": tmp_path / "cnn", "methods": ("adapter", "prefix", "bitfit")}
    with pytest.raises(UsageError, match="choose a ViT"):
        tune_methods(settings, store, out=tmp_path / "out", **shared)
    assert not (tmp_path / "out").exists()
    found = tune_methods(settings, store, out=tmp_path / "out", skip_unfit=True, **shared)
    assert [row.method for row in found.rows] == ["adapter", "bitfit"]
    assert "choose a ViT" in found.skipped["prefix"]
    model = evaluate_run(tmp_path / "out" / "adapter" / "seed-0", store, device="cpu")
    assert model.loss == pytest.approx(found.rows[0].results[0].loss, abs=1e-5)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--method", "lara"), "did you mean 'lora'"),
        (("--method", "lora,lora"), "each method once"),
        (("--init-from", ""), None),
        (("--sparsity.share", "0.5"), "sparsity.share"),
        (("--ema.decay", "0.9", "--method", "adalora"), "ema.decay"),
        (("--optim.full_lr", "0"), "optim.full_lr"),
        (("--tuning.targets", "q,o"), "tuning.targets"),
        (("--tuning.ranks", "3"), "did you mean 'tuning.rank'"),
        (("--recipe", "mtm-small-cpu"), "one of `seit pretrain`"),
    ],
)
def test_wrong_usage_is_one_line(arguments, told, place, backbone, tmp_path, capsys):
    begin = ["tune", str(place / "store"), "--out", str(tmp_path / "out")]
    if told is None:
        arguments, told = (), "--init-from is missing"
    else:
        begin += ["--init-from", str(backbone)]
    with pytest.raises(SystemExit) as left:
        main([*begin, *arguments])
    assert left.value.code == 2
    *log, line = capsys.readouterr().err.splitlines()
    assert told in line
    assert not any(one.startswith(("error", "Traceback")) for one in log)
    assert not (tmp_path / "out").exists()


def test_one_run_from_the_command_line(store, place, backbone, tmp_path, capsys):
    out = tmp_path / "run"
    found = main_answer(
        *(capsys, "tune", place / "store", "--init-from", backbone, "--out", out),
        *("--method", "adapter", "--steps", "2", "--batch-size", "12", "--device", "cpu"),
    )
    assert found["adapter_bytes"] == (out / "adapter.safetensors").stat().st_size
    assert found["tuning_parameters"] == 2 * (2 * 16 * 8 + 8 + 16)
    assert Run.open(out).settings.model.embed_dim == 16, "as the backbone's run"
    assert asdict(Run.open(out).settings.tuning)["method"] == "adapter"
    assert store.classes == Run.open(out).classes
