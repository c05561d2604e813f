"""Runs that read a layer which `seit analyze` names, and learned averages of layers."""

import json

import pytest
import torch
from support.pretraining import CONFIG as PRETRAIN, changed
from torch import nn
from torch.nn import functional

import seit
from seit.config import to_mapping
from seit.errors import UsageError
from seit.exports import load_graph
from seit.models import TuningConfig, make_tuning
from seit.pretraining import pretrain
from seit.training import Run
from seit.training.config import OptimConfig
from seit.training.optimizer import make_optimizer, set_learning_rate

SETTINGS = {
    "data": {"batch_size": 12},
    "optim": {"lr": 1e-2, "lr_batch_size": 0},
    "schedule": {"steps": 4, "warmup_steps": 1},
    "run": {"device": "cpu", "log_every": 2, "loggers": []},
}


@pytest.fixture(scope="module")
def encoder(pattern_store, tmp_path_factory):
    out = tmp_path_factory.mktemp("layers") / "encoder"
    pretrain(changed(schedule={"steps": 2}), pattern_store, out=out)
    return out


def test_the_best_layer_is_the_one_that_is_tuned(encoder, pattern_folder, pattern_store, tmp_path):
    data = pattern_folder / "store"
    named = seit.analyze(
        encoder, data=data, method="ridge", split="train", fewest=5, folds=3, random_twin=False
    )
    assert "blocks.0" in [layer.name for layer in named.layers]
    out = tmp_path / "tuned"
    flags = {"config": SETTINGS, "init_from": encoder, "method": "linear", "layer": "blocks.0"}
    result = seit.tune(pattern_store, out=out, **flags)
    run = Run.open(out)
    assert run.settings.model.depth == 1
    before, after = Run.open(encoder).load_weights(), run.load_weights()
    kept = {key for key in before if not key.startswith("blocks.1.")}
    assert kept == {key for key in after if not key.startswith("head.")}
    for key in kept:
        assert torch.equal(before[key], after[key]), key
    assert result.parameters == sum(value.numel() for value in after.values())
    assert seit.evaluate(out, store=pattern_store).top1 == result.top1
    assert seit.tune(pattern_store, out=out, resume=True, **flags).record() == result.record()
    exported = seit.export(out, out=tmp_path / "exported", formats=["safetensors"])
    assert [file.name for file in exported.files if file.logit_difference is not None] == [
        "model.safetensors"
    ]


def test_shares_of_layers_are_learned_kept_and_exported(encoder, pattern_store, tmp_path):
    out, folder = tmp_path / "average", tmp_path / "exported"
    result = seit.tune(
        pattern_store, out=out, config=SETTINGS, init_from=encoder, method="weighted-sum"
    )
    shares = result.layer_shares
    assert list(shares) == ["stem", "blocks.0", "blocks.1"]
    assert sum(shares.values()) == pytest.approx(1.0)
    assert max(shares.values()) > 1 / 3 + 1e-4, "trained"
    learned = Run.open(out).load_weights()["blocks.layer_weights"].softmax(0).tolist()
    assert list(shares.values()) == pytest.approx(learned)
    written = json.loads((out / "run.json").read_text())["result"]
    assert written["layer_shares"] == pytest.approx(shares)
    assert "Learned average of layers" in (out / "report.html").read_text()
    assert seit.evaluate(out, store=pattern_store).top1 == result.top1
    files = seit.export(out, out=folder, formats=["safetensors"]).files
    assert all(file.logit_difference < 1e-4 for file in files if file.logit_difference is not None)
    tokens = torch.from_numpy(pattern_store["val"].tokens[:3].astype("int64"))
    (logits,) = load_graph(folder)(tokens)
    assert logits.shape == (3, 3)
    spec = json.loads((folder / "config.json").read_text())
    spec["model"]["tuning"]["method"] = "houlsby"
    spec["model"]["tuning"]["hidden_dim"] = 1 << 40
    (folder / "config.json").write_text(json.dumps(spec))
    with pytest.raises(UsageError, match="speak of more weights"):
        load_graph(folder)


def test_a_stage_of_a_cnn_is_tuned_evaluated_and_exported(pattern_store, pattern_folder, tmp_path):
    whole, out = tmp_path / "whole", tmp_path / "tuned"
    model = {"name": "resnet10t", "stem": "auto"}
    short = {**SETTINGS, "schedule": {"steps": 2, "warmup_steps": 1}}
    seit.train(pattern_store, out=whole, config={**short, "model": model})
    named = seit.analyze(
        whole,
        data=pattern_folder / "store",
        method="ridge",
        split="train",
        fewest=5,
        folds=3,
        random_twin=False,
    )
    layer = named.layers[-2].name
    flags = {"config": short, "init_from": whole, "method": "linear", "layer": layer}
    result = seit.tune(pattern_store, out=out, **flags)
    run = Run.open(out)
    assert run.settings.model.last_stage == layer == "layer3"
    before, after = Run.open(whole).load_weights(), run.load_weights()
    assert not any(key.startswith("layer4") for key in after)
    for key in after.keys() - {"fc.weight", "fc.bias"}:
        assert torch.equal(before[key], after[key]), key
    assert after["fc.weight"].shape[1] < before["fc.weight"].shape[1]
    assert seit.evaluate(out, store=pattern_store).top1 == result.top1
    assert seit.tune(pattern_store, out=out, resume=True, **flags).record() == result.record()
    folder = tmp_path / "exported"
    files = seit.export(out, out=folder, formats=["safetensors"]).files
    assert all(file.logit_difference < 1e-4 for file in files if file.logit_difference is not None)
    tokens = torch.from_numpy(pattern_store["val"].tokens[:3].astype("int64"))
    assert load_graph(folder)(tokens)[0].shape == (3, 3)
    flags |= {"out": tmp_path / "x"}
    with pytest.raises(UsageError, match=r"no stage 'blocks\.1'; .*layer4"):
        seit.tune(pattern_store, **{**flags, "layer": "blocks.1"})
    with pytest.raises(UsageError, match="differ in width or resolution"):
        seit.tune(pattern_store, **{**flags, "layer": None, "method": "weighted-sum"})


class Drowned(nn.Module):
    """Block that adds noise of its own to the tokens (B, N, D); the classes are lost after it."""

    attn = None

    def __init__(self, number):
        super().__init__()
        self.number = number
        self.level = nn.Parameter(torch.tensor(3.0))

    def forward(self, x):
        generator = torch.Generator().manual_seed(self.number)
        return x + self.level * torch.randn(x.shape, generator=generator)


class Reader(nn.Module):
    """Mean over tokens and a classifier, after blocks."""

    def __init__(self, depth):
        super().__init__()
        self.blocks = nn.Sequential(*(Drowned(number) for number in range(depth)))
        self.head = nn.Linear(16, 4)

    def forward(self, x):
        return self.head(self.blocks(x).mean(1))


def test_the_average_moves_to_the_layer_that_holds_the_classes_in_forty_steps():
    torch.manual_seed(0)
    labels = torch.arange(40) % 4
    x = torch.randn(4, 16)[labels][:, None] + torch.zeros(40, 8, 16)
    model = Reader(depth=3)
    tuning = make_tuning(TuningConfig(method="weighted-sum"))
    tuning.attach(model)
    optimizer = make_optimizer(model, OptimConfig(lr=1e-2), torch.device("cpu"))
    set_learning_rate(optimizer, 1e-2)
    for _ in range(40):
        functional.cross_entropy(model(x), labels).backward()
        optimizer.step()
        optimizer.zero_grad()
    shares = tuning.layer_shares()
    assert shares["stem"] > 0.5, "0.25 at the start, 0.35 at the classifier's rate"
    rates = {id(one): group["lr"] for group in optimizer.param_groups for one in group["params"]}
    assert rates[id(model.blocks.layer_weights)] == pytest.approx(0.1)
    assert rates[id(model.head.weight)] == pytest.approx(0.01)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["weighted-sum", "houlsby"])
def test_modules_are_exported_as_programs(encoder, pattern_store, tmp_path, method):
    out = tmp_path / "tuned"
    seit.tune(pattern_store, out=out, config=SETTINGS, init_from=encoder, method=method)
    files = seit.export(out, out=tmp_path / "exported", inputs=["tokens"]).files
    differences = {file.name: file.logit_difference for file in files}
    assert differences["classifier.onnx"] < 1e-4
    assert differences["classifier.pt2"] < 1e-4


def test_layers_that_a_classifier_cannot_read_are_refused(encoder, pattern_store, tmp_path):
    started = {"config": SETTINGS, "init_from": encoder, "out": tmp_path / "x"}
    with pytest.raises(UsageError, match=r"layer is 'stem'; a classifier reads blocks\.0"):
        seit.tune(pattern_store, layer="stem", **started)
    with pytest.raises(UsageError, match=r"has no layer blocks\.2; its last is blocks\.1"):
        seit.train(pattern_store, layer="blocks.2", **started)
    with pytest.raises(UsageError, match=r"model\.depth is 2; it must be 1, as layer is blocks\.0"):
        seit.tune(pattern_store, layer="blocks.0", **started, **{"model.depth": 2})
    with pytest.raises(UsageError, match="needs --init-from"):
        seit.train(
            pattern_store,
            out=tmp_path / "x",
            config={**SETTINGS, "model": {**to_mapping(PRETRAIN.model), "depth": 1}},
            layer="blocks.0",
        )
    assert not (tmp_path / "x").exists()
