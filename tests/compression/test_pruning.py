"""Pruning: which weights and parts remain, and what a pruned run computes."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import seit
from seit.cli import main
from seit.compression.derived import derive_weight, own_weight
from seit.compression.pruning.choice import cubic_share, keep_highest, keep_two_of_four
from seit.compression.pruning.masks import CRITERIA, MovementMask, TaylorMask, WandaMask
from seit.compression.pruning.parts import Scores, select_highest, taylor_scores
from seit.compression.pruning.zeros import Zeros
from seit.compression.weights.layers import Layer
from seit.errors import UsageError
from seit.exports import export_run
from seit.models import build_backbone
from seit.training import Run

FAST = {
    "data": {"batch_size": 12},
    "optim": {"lr": 1e-3, "lr_batch_size": 0},
    "schedule": {"steps": 8, "warmup_steps": 1},
    "run": {"device": "cpu", "loggers": [], "eval_every": 8, "checkpoint_every": 2},
}


def prune(run, store, out, /, resume=False, progress=None, **compression):
    settings = {f"compression.{name}": value for name, value in compression.items()}
    return seit.compress(
        run,
        store=store,
        out=out,
        method="prune",
        config=FAST,
        resume=resume,
        progress=progress,
        **settings,
    )


def test_the_cubic_schedule_ends_at_the_share():
    shares = [cubic_share(0.8, done, 10) for done in range(13)]
    assert shares[0] == 0
    assert shares[10:] == [0.8, 0.8, 0.8]
    assert shares[5] == pytest.approx(0.8 * (1 - 0.5**3))
    assert shares == sorted(shares)


@pytest.mark.parametrize("scope", ["network", "layer", "row"])
def test_the_highest_scores_are_kept(scope):
    generator = torch.Generator().manual_seed(0)
    scores = {name: torch.rand(4, 10, generator=generator) for name in "ab"}
    kept = keep_highest(scores, 0.7, scope=scope)
    groups = {
        "network": [[(n, r, c) for n in "ab" for r in range(4) for c in range(10)]],
        "layer": [[(n, r, c) for r in range(4) for c in range(10)] for n in "ab"],
        "row": [[(n, r, c) for c in range(10)] for n in "ab" for r in range(4)],
    }[scope]
    for group in groups:
        ranked = sorted(group, key=lambda at: -scores[at[0]][at[1], at[2]].item())
        count = round(0.3 * len(group))
        assert all(kept[n][r, c] for n, r, c in ranked[:count])
        assert not any(kept[n][r, c] for n, r, c in ranked[count:])


@pytest.mark.parametrize("shape", [(3, 8), (2, 4, 3, 3)])
def test_two_of_four_inputs_are_kept(shape):
    scores = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    kept = keep_two_of_four(scores, 0.5).movedim(1, -1).reshape(-1, 4)
    groups = scores.movedim(1, -1).reshape(-1, 4)
    for group, mask in zip(groups.tolist(), kept.tolist(), strict=True):
        best = sorted(range(4), key=lambda one: -group[one])[:2]
        assert [one in best for one in range(4)] == mask
    some = keep_two_of_four(scores, 0.25).movedim(1, -1).reshape(-1, 4).sum(1)
    assert sorted(some.tolist()) == [2] * (len(some) // 2) + [4] * (len(some) - len(some) // 2)


def test_movement_scores_learn_from_straight_through_gradients():
    layer, x = nn.Linear(3, 2, bias=False), torch.randn(5, 3)
    mask = MovementMask(layer.weight)
    mask.kept[0, 1] = False
    masked = (layer.weight * mask.kept).detach().requires_grad_()
    (upstream,) = torch.autograd.grad(F.linear(x, masked).square().sum(), masked)
    F.linear(x, mask(layer.weight)).square().sum().backward()
    assert torch.allclose(mask.flat_scores.grad, (upstream * layer.weight).flatten())
    assert torch.allclose(layer.weight.grad, upstream * mask.kept)


def subject_of(model, inputs, labels, size=3):
    """Return what calibration sees of a subject: a network and batches of some size."""
    batches = list(zip(inputs.split(size), labels.split(size), strict=True))
    return SimpleNamespace(
        model=model,
        calibration_rows=None,
        inputs=lambda rows: (one for one, _ in batches),
        labeled_inputs=lambda rows: iter(batches),
    )


@pytest.mark.parametrize(
    "layer",
    [nn.Linear(4, 2), nn.Conv2d(4, 2, 3, stride=2, padding=1), nn.Conv2d(4, 2, 2, groups=2)],
)
def test_wanda_scores_weights_by_their_inputs(layer):
    shape = (6, 4) if isinstance(layer, nn.Linear) else (6, 4, 6, 6)
    inputs = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    places = [Layer("layer", layer, False)]
    (mask,) = WandaMask.of_layers(subject_of(layer, inputs, torch.zeros(6)), places).values()
    # The derivative of Σ y² / 2 with respect to w² at one weight alone is Σ x².
    norms = torch.zeros_like(layer.weight)
    for index in np.ndindex(*layer.weight.shape):
        alone = torch.zeros_like(layer.weight)
        alone[index] = 1
        moved = (
            F.linear(inputs, alone)
            if inputs.ndim == 2
            else F.conv2d(
                inputs, alone, None, layer.stride, layer.padding, layer.dilation, layer.groups
            )
        )
        norms[index] = moved.square().sum().sqrt()
    if getattr(layer, "groups", 1) > 1:
        norms = norms.square().mean(0, keepdim=True).sqrt().expand_as(norms)
    assert torch.allclose(mask.scores(layer.weight), layer.weight.abs() * norms, rtol=1e-4)


def test_taylor_scores_predict_the_loss_without_a_weight():
    torch.manual_seed(0)
    model, inputs, labels = nn.Linear(4, 3), torch.randn(6, 4), torch.randint(3, (6,))
    places = [Layer("layer", model, False)]
    expected = torch.zeros(3, 4)
    for part, own in zip(inputs.split(4), labels.split(4), strict=True):  # of 4 and of 2 samples
        model.zero_grad()
        F.cross_entropy(model(part), own).backward()
        expected += len(own) / 6 * (model.weight.grad * model.weight).abs()
    (mask,) = TaylorMask.of_layers(subject_of(model, inputs, labels, 4), places).values()
    assert torch.allclose(mask.scores(model.weight), expected)


def test_taylor_scores_do_not_grow_with_the_number_of_batches():
    torch.manual_seed(0)
    model, inputs, labels = nn.Linear(4, 3), torch.randn(1, 4).expand(6, -1), torch.ones(6).long()
    places = [Layer("layer", model, False)]
    found = []
    for size in (6, 4, 1):
        (mask,) = TaylorMask.of_layers(subject_of(model, inputs, labels, size), places).values()
        found.append(mask.scores(model.weight))
    assert torch.allclose(found[1], found[0])
    assert torch.allclose(found[2], found[0])


def masked(criterion, *, share=0.5, in_groups=False):
    """Return a network of two layers with masks, and these."""
    generator = torch.Generator().manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 12), nn.Linear(12, 6))
    for layer in model:
        nn.init.normal_(layer.weight, generator=generator)
        mask = CRITERIA[criterion](layer.weight)
        derive_weight(layer, mask)
    return model, Zeros(masked=("0", "1"), in_groups=in_groups, share=share, is_cubic=True)


def test_an_update_that_was_skipped_does_not_change_taylor_scores():
    """Clipping of a gradient that overflowed leaves NaN in some weights, and 0 in all others."""
    model, zeros = masked("taylor")
    masks = zeros.masks(model)

    def observe(*values):
        for layer, value in zip(model, values, strict=True):
            own_weight(layer).grad = torch.full_like(own_weight(layer), value)
        zeros.after_update(model)
        return [mask.importance.clone() for mask in masks.values()]

    first = observe(2.0, 3.0)
    assert torch.allclose(first[0], 0.1 * (2 * own_weight(model[0])).abs())
    for skipped in ((0.0, torch.nan), (torch.inf, 1.0)):
        assert all(map(torch.equal, observe(*skipped), first))
    assert torch.allclose(observe(2.0, 3.0)[1], 1.9 * first[1])


@pytest.mark.parametrize("in_groups", [False, True])
@pytest.mark.parametrize("criterion", ["magnitude", "taylor", "wanda", "movement"])
def test_a_longer_schedule_brings_no_weight_back(criterion, in_groups):
    """A finished run that resumes with more steps has a longer ramp, of smaller shares."""
    model, zeros = masked(criterion, in_groups=in_groups)
    generator = torch.Generator().manual_seed(1)
    shares, removed = [], torch.zeros(168, dtype=torch.bool)
    for step, total in [*((one, 40) for one in range(40)), *((one, 160) for one in range(40, 160))]:
        with torch.no_grad():
            for weight in model.parameters():
                weight += 0.1 * torch.randn(weight.shape, generator=generator)
        zeros.after_step(model, step, total)
        now = torch.cat([~mask.kept.flatten() for mask in zeros.masks(model).values()])
        assert criterion == "movement" or not (removed & ~now).any()
        removed = now
        shares.append(zeros.sparsity(model))
    assert shares == sorted(shares)
    assert shares[19] == pytest.approx(0.5, abs=0.01)
    assert shares[-1] == pytest.approx(0.5, abs=0.01)


def test_scores_of_parts_are_changes_of_the_loss_to_first_order():
    """Scaling what a head puts out by 1 − ε changes the loss by ε times its signed score."""
    torch.manual_seed(0)
    model = build_backbone(
        "vit_tiny_patch16_224",
        channels=4,
        input_size=(4, 4),
        num_classes=3,
        stem="2/2/0",
        embed_dim=16,
        depth=2,
        num_heads=2,
    ).eval()
    model = model.double()
    for weight in model.parameters():
        nn.init.normal_(weight, std=0.3)
    inputs, labels = torch.randn(2, 4, 4, 4, dtype=torch.float64), torch.tensor([0, 2])
    scores = taylor_scores(subject_of(model, inputs, labels))

    def change(weight, columns):
        """Return Σ over samples of |d loss / d scale| of some inputs of a layer."""
        losses = []
        for scale in (1 + 1e-4, 1 - 1e-4):
            kept = weight.detach().clone()
            with torch.no_grad():
                weight[:, columns] *= scale
                losses.append(F.cross_entropy(model(inputs), labels, reduction="none"))
                weight.copy_(kept)
        return ((losses[0] - losses[1]) / 2e-4).abs().sum().item()

    for number, block in enumerate(model.blocks):
        for head in range(2):
            found = change(block.attn.proj.weight, slice(8 * head, 8 * head + 8))
            assert scores.heads[number][head].item() == pytest.approx(found, rel=1e-4)
        for unit in (0, 17):
            found = change(block.mlp.fc2.weight, slice(unit, unit + 1))
            assert scores.units[number][unit].item() == pytest.approx(found, rel=1e-4)


def test_parts_of_all_blocks_compete_but_the_best_of_each_stays():
    scores = Scores(
        heads=[torch.tensor([3.0, 4.0, 0.1]), torch.tensor([1.0, 0.0, 0.0])],
        units=[torch.ones(2), torch.ones(2)],
        dims=torch.tensor([1.0, 3.0, 2.0]),
        blocks=torch.tensor([1.0, 2.0]),
    )
    chosen = select_highest(scores, {"heads": 0.5, "width": 1 / 3})
    assert chosen.heads == [[0, 1], [0]]
    assert chosen.dims == [1, 2]
    assert [len(one) for one in chosen.units] == [2, 2]
    assert select_highest(scores, {"depth": 0.5}).blocks == [1]


@pytest.fixture(scope="module")
def halved(learned, pattern_store, tmp_path_factory):
    """Return a run without half of the heads and units, and its result."""
    out = tmp_path_factory.mktemp("halved") / "run"
    result = prune(learned, pattern_store, out, pattern=("heads", "mlp"))
    return out, result


def test_a_run_without_parts_is_a_run(halved, pattern_store, pattern_folder, tmp_path):
    out, result = halved
    run = Run.open(out)
    structure = run.load_stored()[1].structure
    assert structure.width == 32
    assert sum(block.heads for block in structure.blocks) == 2
    assert sum(block.units for block in structure.blocks) == 128
    assert run.info["structure"]["width"] == 32
    assert "MLP units" in (out / "report.html").read_text()
    assert result.bytes == (out / "model.safetensors").stat().st_size < 0.65 * result.bytes_before
    assert result.parameters == sum(one.numel() for one in run.load_weights().values())
    again = seit.evaluate(out, store=pattern_store)
    assert (again.top1, again.loss) == (result.top1, result.loss)
    pictures = [next((pattern_folder / "pictures" / "val").rglob("*.png"))]
    assert len(seit.predict(out, files=pictures).predictions) == 1
    export = export_run(out, tmp_path / "export", formats=("safetensors",), inputs=("tokens",))
    assert all(one.logit_difference < 1e-5 for one in export.files if one.logit_difference)
    with pytest.raises(UsageError, match="start from the run that it was made from"):
        seit.train(pattern_store, out=tmp_path / "tuned", config=FAST, init_from=out)
    with pytest.raises(UsageError, match="is compressed already"):
        prune(out, pattern_store, tmp_path / "again")


@pytest.mark.parametrize("pattern", ["unstructured", "2:4"])
def test_zeros_are_stored_as_bits(learned, pattern_store, tmp_path, pattern):
    out = tmp_path / "run"
    result = prune(learned, pattern_store, out, pattern=pattern, pruning="one-shot")
    run = Run.open(out)
    weights, compression = run.load_stored()
    assert len(compression.sparse) == 8  # four layers in each of two blocks
    pruned = torch.cat([weights[name].flatten() for name in compression.sparse])
    assert float((pruned == 0).double().mean()) == pytest.approx(0.5, abs=1e-3)
    assert run.info["zeros"]["sparsity"] == pytest.approx(0.5, abs=1e-3)
    assert run.metrics()[-1]["sparsity"] == pytest.approx(0.5, abs=1e-3)
    assert result.bytes < 0.68 * result.bytes_before
    if pattern == "2:4":
        for name in compression.sparse:
            assert ((weights[name].reshape(-1, 4) == 0).sum(1) == 2).all()
    assert seit.evaluate(out, store=pattern_store).loss == result.loss


@pytest.mark.parametrize("criterion", [pytest.param("taylor", marks=pytest.mark.slow), "movement"])
def test_a_killed_pruning_resumes_bit_for_bit(learned, pattern_store, tmp_path, criterion):
    settings = {"criterion": criterion, "sparsity": 0.7}
    whole, out = tmp_path / "whole", tmp_path / "killed"
    expected = prune(learned, pattern_store, whole, **settings)
    assert expected.bytes < 0.5 * expected.bytes_before

    def kill(done, total, figures):
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prune(learned, pattern_store, out, progress=kill, **settings)
    found = prune(learned, pattern_store, out, resume=True, **settings)
    assert (found.top1, found.loss, found.agreement) == (
        expected.top1,
        expected.loss,
        expected.agreement,
    )
    files = [(one / "model.safetensors").read_bytes() for one in (whole, out)]
    assert files[0] == files[1]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"pattern": "heads", "criterion": "wanda"}, "choose taylor or magnitude"),
        ({"criterion": "movement", "pruning": "one-shot"}, "choose --compression.pruning cubic"),
        ({"pattern": ("unstructured", "2:4")}, "not both"),
        ({"pattern": "2:4", "sparsity": 0.6}, "0.5 for the pattern 2:4"),
        ({"sparsity": (0.5, 0.2)}, "one for each pattern or all"),
        ({"sparsity": 1.0}, "above 0 and below 1"),
        ({"pattern": "layers"}, "choose one of unstructured, 2:4, heads, mlp, width, depth"),
    ],
)
def test_what_does_not_fit_is_one_line(learned, pattern_store, tmp_path, settings, message):
    with pytest.raises(UsageError) as error:
        prune(learned, pattern_store, tmp_path / "run", **settings)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


def test_shares_and_patterns_come_in_lists(capsys):
    arguments = ["compress", "run", "store", "--method", "prune", "--dry-run", "--json"]
    arguments += ["--model", "vit_tiny_patch16_224"]

    def settings(*flags):
        main([*arguments, *flags])
        return json.loads(capsys.readouterr().out)["compression"]

    both = settings("--compression.pattern", "heads,mlp", "--compression.sparsity", "0.25,0.5")
    assert (both["pattern"], both["sparsity"]) == (["heads", "mlp"], [0.25, 0.5])
    one = settings("--compression.pattern", "2:4", "--compression.sparsity", "0.5")
    assert (one["pattern"], one["sparsity"]) == (["2:4"], [0.5])
