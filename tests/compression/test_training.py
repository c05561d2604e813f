"""Methods that train for few bits, and students: what is stored is what was evaluated."""

from itertools import pairwise

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

import seit
from seit.api import plan_run
from seit.compression.quantization_aware.calibration import fit_steps
from seit.compression.quantization_aware.objective import QuantizedClassification
from seit.errors import UsageError
from seit.exports import export_run
from seit.models import LearnedSteps, multiples
from seit.training import ModelConfig, Run

FAST = {
    "data": {"batch_size": 12},
    "optim": {"lr": 1e-3, "lr_batch_size": 0},
    "schedule": {"steps": 8, "warmup_steps": 1},
    "run": {"device": "cpu", "loggers": [], "eval_every": 8, "checkpoint_every": 2},
}


def compress(run, store, out, /, method, **changes):
    return seit.compress(run, store=store, out=out, method=method, config=FAST, **changes)


@pytest.mark.parametrize(("bits", "signed"), [(2, True), (4, True), (8, False)])
def test_first_steps_have_the_least_error(bits, signed):
    generator = torch.Generator().manual_seed(bits)
    values = torch.randn(2, 400, generator=generator)
    values = values if signed else values.abs()
    low, high = multiples(bits, signed=signed)
    found = fit_steps(values, bits=bits, signed=signed)

    def error(row, step):
        return ((row / step).round().clamp(low, high) * step - row).square().sum().item()

    for row, step in zip(values, found, strict=True):
        widest = max(row.max().item() / high, row.min().item() / low if low else 0)
        tried = [error(row, widest * share / 200) for share in range(1, 201)]
        assert error(row, step.item()) <= 1.05 * min(tried)


def test_first_steps_of_small_channels_have_the_least_error():
    """Down to steps among the subnormal float16 numbers; weights are rounded as they are stored."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(5, 200, generator=generator)
    weight *= torch.tensor([1.0, 1e-2, 1e-3, 1e-4, 1e-5])[:, None]
    rule = LearnedSteps(8, signed=True, channels=5, half=True)
    rule.set_steps(fit_steps(weight, bits=8, signed=True, half=True))
    steps = rule.steps(1).detach()
    assert torch.equal(steps.half().float(), steps)
    off = (rule(weight).detach() - weight).norm(dim=1) / weight.norm(dim=1)
    assert (off < 0.01).all()


@pytest.fixture(scope="module")
def few_bits(learned, pattern_store, tmp_path_factory):
    """Return a run trained for two bits, and its result."""
    out = tmp_path_factory.mktemp("qat") / "run"
    return out, compress(learned, pattern_store, out, "qat", **{"compression.bits": 2})


def test_what_is_stored_in_few_bits_is_what_was_evaluated(few_bits, pattern_store, tmp_path):
    out, result = few_bits
    run = Run.open(out)
    weights, compression = run.load_stored()
    grids = compression.quantized
    assert sorted({grid.bits for grid in grids.values()}) == [2, 8]
    assert sum(grid.bits == 8 for grid in grids.values()) == 2  # the first layer and the classifier
    assert len(compression.activations) == len(grids) == 10
    for name, grid in grids.items():
        values = [len(row.unique()) for row in weights[name].flatten(1)]
        assert max(values) <= 2**grid.bits
    assert result.bytes == (out / "model.safetensors").stat().st_size < 0.25 * result.bytes_before
    again = seit.evaluate(out, store=pattern_store)
    assert (again.top1, again.loss) == (result.top1, result.loss)
    assert run.info["quantization"]["layers"]["blocks.0.attn.qkv"]["bits"] == 2
    assert "bits of a weight" in (out / "report.html").read_text()
    export = export_run(
        out, tmp_path / "export", formats=("onnx", "safetensors"), inputs=("tokens",)
    )
    found = {one.name: one.logit_difference for one in export.files}
    assert found["classifier.onnx"] < 1e-5
    with pytest.raises(UsageError, match="start from the run that it was made from"):
        seit.train(pattern_store, out=tmp_path / "tuned", config=FAST, init_from=out)


def test_a_killed_training_in_few_bits_resumes_bit_for_bit(
    few_bits, learned, pattern_store, tmp_path
):
    def kill(done, total, figures):
        if done == 5:
            raise KeyboardInterrupt

    out, changes = tmp_path / "run", {"compression.bits": 2}
    with pytest.raises(KeyboardInterrupt):
        compress(learned, pattern_store, out, "qat", progress=kill, **changes)
    result = compress(learned, pattern_store, out, "qat", resume=True, **changes)
    assert (result.top1, result.loss) == (few_bits[1].top1, few_bits[1].loss)
    files = [(one / "model.safetensors").read_bytes() for one in (out, few_bits[0])]
    assert files[0] == files[1]
    again = compress(learned, pattern_store, out, "qat", resume=True, **changes)
    assert again.loss == result.loss, "of a finished run"


@pytest.fixture(scope="module")
def convolutional(pattern_store, tmp_path_factory):
    """Return a run of a small network of convolutions and batch norms."""
    out = tmp_path_factory.mktemp("cnn") / "run"
    settings = {**FAST, "model": {"name": "test_resnet"}, "ema": {"decay": 0.0}}
    seit.train(pattern_store, out=out, config=settings)
    return out


@pytest.mark.parametrize(
    ("method", "changes"),
    [
        ("prune", {"compression.pattern": "2:4"}),
        pytest.param("prune", {"compression.criterion": "wanda"}, marks=pytest.mark.slow),
    ],
)
def test_networks_of_convolutions_too(convolutional, pattern_store, tmp_path, method, changes):
    out = tmp_path / "run"
    result = compress(convolutional, pattern_store, out, method, **changes)
    assert result.bytes < 0.62 * result.bytes_before
    again = seit.evaluate(out, store=pattern_store)
    assert again.loss == pytest.approx(result.loss, rel=1e-5)


def test_batch_norms_are_frozen_then_folded(convolutional, pattern_store, tmp_path, monkeypatch):
    """In few bits: running statistics of the second half are fixed, and exports are equal."""
    means, take = [], QuantizedClassification.after_step

    def after_step(self, step, total):
        means.append(self.model.get_buffer("bn1.running_mean").clone())
        return take(self, step, total)

    monkeypatch.setattr(QuantizedClassification, "after_step", after_step)
    out, bits = tmp_path / "run", 4
    result = compress(convolutional, pattern_store, out, "qat", **{"compression.bits": bits})
    assert result.bytes < 0.62 * result.bytes_before
    assert [torch.equal(*pair) for pair in pairwise(means)] == [False] * 3 + [True] * 4
    assert torch.equal(Run.open(out).load_weights()["bn1.running_mean"], means[-1])
    again = seit.evaluate(out, store=pattern_store)
    assert again.loss == pytest.approx(result.loss, rel=1e-5)
    export = export_run(out, tmp_path / "export", formats=("onnx",), inputs=("tokens",))
    (found,) = [one for one in export.files if one.name == "classifier.onnx"]
    assert found.logit_difference < 1e-5
    graph = onnx.load(tmp_path / "export" / "classifier.onnx").graph
    assert "BatchNormalization" not in {node.op_type for node in graph.node}
    inner = [one for one in graph.initializer if ".layer" in one.name and len(one.dims) == 4]
    assert len(inner) == 7
    for weight in map(numpy_helper.to_array, inner):  # each channel times its norm's factor
        assert max(len(np.unique(row)) for row in weight) <= 2**bits


def test_parts_of_a_network_of_convolutions(convolutional, pattern_store, tmp_path):
    with pytest.raises(UsageError, match="choose the pattern unstructured or 2:4"):
        compress(
            convolutional,
            pattern_store,
            tmp_path / "run",
            "prune",
            **{"compression.pattern": "heads"},
        )


def test_a_student_learns_from_the_run(learned, pattern_store, tmp_path):
    small = {"model.embed_dim": 16}
    taught = compress(learned, pattern_store, tmp_path / "taught", "distill", **small)
    run = Run.open(tmp_path / "taught")
    assert run.load_weights()["cls_token"].shape == (1, 1, 16)
    assert taught.bytes < 0.35 * taught.bytes_before
    assert seit.evaluate(run.path, store=pattern_store).loss == taught.loss
    alone = compress(
        learned, pattern_store, tmp_path / "alone", "distill", **small, **{"distill.alpha": 0.0}
    )
    assert alone.loss != taught.loss
    with pytest.raises(UsageError, match="as large as"):
        compress(learned, pattern_store, tmp_path / "same", "distill")


def test_a_student_can_be_that_of_a_recipe(learned, pattern_store):
    source = Run.open(learned).config.model

    def planned(name="small-cpu", **changes):
        settings = plan_run(
            "compress",
            pattern_store,
            init_from=learned,
            method="distill",
            **{"compression.student": name, **changes},
        )
        assert settings.augment.crop_size == 8, "that of the run, not of the recipe"
        return settings.model

    model = planned()
    assert (model.embed_dim, model.depth, model.stem) == (128, 4, "early/4")
    model = planned(**{"model.embed_dim": source.embed_dim, "model.num_heads": source.num_heads})
    assert (model.embed_dim, model.depth, model.stem) == (source.embed_dim, 4, "early/4")
    with pytest.raises(UsageError, match="did you mean 'small-cpu'"):
        planned("smal-cpu")
    model = planned(model="resnet10t")
    assert model == ModelConfig(name="resnet10t", drop_path=model.drop_path)


def test_a_student_of_another_kind_has_the_crop_of_the_run(learned, pattern_store, tmp_path):
    """The recipe would crop grids of 8×8 to 7×7, which the teacher does not take."""
    result = compress(learned, pattern_store, tmp_path / "out", "distill", model="resnet10t")
    assert Run.open(tmp_path / "out").config.augment.crop_size == 8
    assert seit.evaluate(tmp_path / "out", store=pattern_store).loss == result.loss


@pytest.mark.parametrize("method", ["distill", "qat", "w8"])
def test_another_crop_than_that_of_the_run_is_refused(method, learned, pattern_store, tmp_path):
    changes = {"model.embed_dim": 16} if method == "distill" else {}
    out = tmp_path / "out"
    with pytest.raises(UsageError, match=r"augment\.crop_size is 6, and the run .*has 8.*leave it"):
        compress(learned, pattern_store, out, method, **changes, **{"augment.crop_size": 6})
    assert not out.exists()
