"""Masked token modelling and self-distillation: formulas, runs, resuming, what starts from them."""

import json
import math
import os
import shutil
import socket
import subprocess
import sys
from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
import torch
from safetensors import safe_open
from support.pretraining import CONFIG, changed, make_store
from torch.nn import functional as F

import seit
from seit.augment import SampleRandom, TokenAugment, nearest_ids
from seit.cli import main
from seit.config import build, read_yaml, to_mapping
from seit.errors import UsageError
from seit.models import build_backbone
from seit.models.tokenadapt import TokenAdapt, save_tokenadapt
from seit.pretraining import PretrainConfig, pretrain
from seit.pretraining.further import (
    FurtherConfig,
    FurtherModel,
    distance_scale,
    feature_distance,
)
from seit.pretraining.masks import MaskConfig, draw_order, draw_share
from seit.pretraining.mtm import MaskedTokenModel, MtmConfig
from seit.pretraining.names import ObjectiveName
from seit.pretraining.objectives import SiameseTokens
from seit.pretraining.patches import CodeHead, patchify, unpatchify
from seit.pretraining.registry import OBJECTIVES
from seit.recipes import find_recipe
from seit.stores import delete_samples
from seit.training import Ranks, Run, TrainConfig, evaluate_run, train

FINE = build(
    TrainConfig,
    {
        "model": to_mapping(CONFIG.model),
        "data": {"batch_size": 12},
        "optim": {"lr": 1e-3, "lr_batch_size": 0},
        "schedule": {"steps": 2, "warmup_steps": 1},
        "augment": {"crop_size": 8},
        "ema": {"decay": 0.0},
        "run": {"device": "cpu", "loggers": []},
    },
    origin="test",
)


QUIET = {
    "mtm": {"decoder_dropout": 0.0, "input_dropout": 0.0},
    # The gradient of keys' biases is 0 but for rounding, which Adam would make steps of.
    "optim": {"eps": 1e-5},
}


class StopError(Exception):
    pass


def stop_at(last):
    def stop(step, *_):
        if step == last:
            raise StopError

    return stop


def same(run, other, *, tolerance=0.0):
    for name in ("model.safetensors", "pretraining.safetensors"):
        ours, theirs = run.load_tensors(name), other.load_tensors(name)
        assert ours.keys() == theirs.keys()
        for key, value in theirs.items():
            torch.testing.assert_close(ours[key], value, rtol=0, atol=tolerance, msg=key)


@pytest.fixture(scope="module")
def store(pattern_store):
    return pattern_store


def test_every_objective_has_a_class():
    assert set(get_args(ObjectiveName)) == set(OBJECTIVES)
    assert all(one.heads_from <= set(OBJECTIVES) for one in OBJECTIVES.values())


@pytest.fixture(scope="module")
def finished(store, tmp_path_factory):
    """A run of masked tokens that nothing disturbed."""
    out = tmp_path_factory.mktemp("runs") / "finished"
    pretrain(CONFIG, store, out=out)
    return Run.open(out)


# ----------------------------------------------------------------------------------------- masking


def test_shares_follow_the_truncated_normal_of_the_paper():
    config = MaskConfig()
    shares = np.linspace(config.min, config.max, 200_001)
    density = np.exp(-(((shares - config.mean) / config.std) ** 2) / 2)
    expected = np.trapezoid(shares * density, shares) / np.trapezoid(density, shares)
    assert config.expected == pytest.approx(expected, abs=1e-9)
    assert config.expected == pytest.approx(0.607, abs=5e-4), "as the authors' draws average"
    below = np.concatenate([[0], np.cumsum((density[1:] + density[:-1]) / 2)])
    for uniform in (0.0, 1e-7, 0.2, 0.5, 0.9, 1 - 2**-24):
        quantile = np.interp(uniform, below / below[-1], shares)
        assert config.draw(uniform) == pytest.approx(quantile, abs=1e-6)
    assert config.num_dropped(196) == 79
    assert config.num_masked(196, 0.4) == 79
    assert config.num_masked(196, 1.0) == 196
    for percent in range(1, 100):  # 0.55 · 100 is 55.000000000000007
        share = MaskConfig(min=percent / 100, mean=percent / 100)
        assert share.num_dropped(100) == percent
        assert share.num_dropped(196) == -(-percent * 196 // 100)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [({"std": 0.0}, 0.45), ({"std": 0.0, "mean": 0.2}, 0.4), ({"min": 0.0, "max": 0.01}, 0.005)],
)
def test_shares_at_the_ends(settings, expected):
    config = MaskConfig(**settings)
    assert config.expected == pytest.approx(expected, abs=1e-3)
    assert config.min <= config.draw(0.5) <= config.max


@pytest.mark.parametrize(
    "settings", [{"min": 1.0}, {"min": 0.5, "max": 0.4}, {"max": 1.1}, {"std": -1}, {"mean": 2}]
)
def test_shares_that_are_none(settings):
    with pytest.raises(UsageError):
        MaskConfig(**settings)


def test_masks_belong_to_samples_and_shares_to_steps():
    together = draw_order(SampleRandom(3, 1, torch.arange(6)), 49)
    alone = draw_order(SampleRandom(3, 1, torch.tensor([4])), 49)
    assert torch.equal(together[4:5], alone)
    assert torch.equal(together.sort(dim=1).values, torch.arange(49).expand(6, -1))
    assert not torch.equal(together, draw_order(SampleRandom(4, 1, torch.arange(6)), 49))
    shares = [draw_share(MaskConfig(), seed=0, epoch=0, step=step) for step in range(400)]
    assert np.mean(shares) == pytest.approx(MaskConfig().expected, abs=0.02)


def test_patches_and_back():
    ids = torch.arange(2 * 7 * 9).view(2, 7, 9)
    patches = patchify(ids, 2)
    assert patches.shape == (2, 12, 4)
    assert patches[0, 5].tolist() == [20, 21, 29, 30]
    assert torch.equal(unpatchify(patches, (7, 9), fill=ids), ids)
    assert torch.equal(unpatchify(patches, (7, 9), fill=-ids)[:, :6, :8], ids[:, :6, :8])


def test_nearest_ids_are_those_of_a_search():
    generator = torch.Generator().manual_seed(0)
    codes = torch.randn(50, 6, generator=generator)
    x = torch.randn(3, 6, 4, 5, generator=generator)
    found = nearest_ids(x, codes)
    distances = (x.permute(0, 2, 3, 1).double()[..., None, :] - codes.double()).square().sum(-1)
    assert torch.equal(found, distances.argmin(-1))
    assert torch.equal(nearest_ids(codes.T.view(1, 6, 5, 10), codes).flatten(), torch.arange(50))


# ----------------------------------------------------------------------------------- masked tokens


def make_model(grid=(8, 6), side=2, *, seed=0, **settings):
    torch.manual_seed(seed)
    encoder = build_backbone(
        "vit_tiny_patch16_224",
        channels=5,
        input_size=grid,
        stem=f"{side}/{side}/0",
        num_classes=1,
        embed_dim=16,
        depth=2,
        num_heads=2,
    )
    encoder.reset_classifier(0)
    config = MtmConfig(
        **{"decoder_dim": 12, "decoder_depth": 2, "decoder_heads": 3, **settings},
    )
    model = MaskedTokenModel(encoder, torch.randn(20, 5), config, side=side)
    torch.nn.init.normal_(model.head.bias)
    return model


def draw_batch(model, count, grid=(8, 6)):
    ids = torch.randint(20, (count, *grid), generator=torch.Generator().manual_seed(1))
    order = draw_order(SampleRandom(0, 0, torch.arange(count)), model.num_patches)
    return ids, order


@torch.no_grad()
def loss_by_hand(model, ids, order, num_masked):
    """The paper's loss, one sample after the other, in float64."""
    model = model.double().eval()
    vit, dropped = model.encoder, math.ceil(0.4 * model.num_patches)
    codes = (model.codebook - model.codebook.mean(0)).double()
    codes /= codes.square().mean().sqrt()
    losses = []
    for grid, places in zip(ids, order.tolist(), strict=True):
        vectors = model.codebook.double()[grid].permute(2, 0, 1)
        patches = F.conv2d(vectors[None], vit.patch_embed.proj.weight, vit.patch_embed.proj.bias, 2)
        patches = list(patches[0].flatten(1).T)
        for place in places[:num_masked]:
            patches[place] = model.mask_token
        positions = vit.pos_embed[0]
        kept = places[dropped:]
        x = [vit.cls_token[0, 0] + positions[0]]
        x += [patches[place] + positions[1 + place] for place in kept]
        x = vit.fc_norm(vit.blocks(torch.stack(x)[None]))[0]
        start = model.enter(x[0])
        entered = [start] * (1 + len(patches))
        for number, place in enumerate(kept):
            if place not in places[:num_masked]:
                entered[1 + place] = model.enter(x[1 + number])
        decoded = model.decoder(torch.stack(entered)[None] + model.decoder_pos)
        decoded = model.decoder_norm(decoded)[0, 1:]
        for place in places[:num_masked]:
            row, column = divmod(place, grid.shape[1] // 2)
            lifted = model.head.lift(decoded[place]).view(4, -1)
            for cell, vector in enumerate(lifted):
                y, x_ = divmod(cell, 2)
                wanted = grid[2 * row + y, 2 * column + x_]
                logits = codes @ model.head.norm(F.gelu(vector)) + model.head.bias
                losses.append(-F.log_softmax(logits, 0)[wanted])
    model.float()
    return float(torch.stack(losses).mean())


@pytest.mark.parametrize("num_masked", [5, 8, 12])
def test_the_loss_of_masked_tokens_by_hand(num_masked):
    model = make_model().eval()
    ids, order = draw_batch(model, 3)
    assert model.num_patches == 12
    assert model.config.mask.num_dropped(12) == 5
    expected = loss_by_hand(make_model(), ids, order, num_masked)
    assert model(ids, order, num_masked).item() == pytest.approx(expected, rel=1e-5)
    found = model.reconstruct(ids, order, num_masked)
    assert found.loss.mean().item() == pytest.approx(expected, rel=1e-5)
    assert found.masked.sum() == 3 * num_masked * 4
    assert torch.equal(found.predicted[~found.masked], ids[~found.masked])


def test_what_is_masked_is_not_seen():
    model = make_model().eval()
    ids, order = draw_batch(model, 2)
    before = model._predict(ids, order, 7)[0]
    cells = torch.zeros(2, 12, 4, dtype=torch.bool).scatter(
        1, order[:, :7, None].expand(-1, -1, 4), True
    )
    hidden = unpatchify(cells, (8, 6), fill=torch.zeros(2, 8, 6, dtype=torch.bool))
    other = torch.where(hidden, (ids + 1) % 20, ids)
    torch.testing.assert_close(model._predict(other, order, 7)[0], before)
    seen = torch.where(hidden, ids, (ids + 1) % 20)
    assert not torch.allclose(model._predict(seen, order, 7)[0], before, atol=1e-3)


def test_logits_start_at_unit_variance():
    codebook = 3 + 5 * torch.randn(512, 24, generator=torch.Generator().manual_seed(0))
    head = CodeHead(64, codebook, side=2)
    features = torch.randn(8, 16, 64, generator=torch.Generator().manual_seed(1))
    logits = head(features)
    assert logits.shape == (8, 16, 4, 512)
    assert logits.std(dim=-1).mean().item() == pytest.approx(1, abs=0.15)


def test_logits_are_tied_to_the_codebook_and_do_not_move_it():
    model = make_model()
    ids, order = draw_batch(model, 2)
    model(ids, order, 7).backward()
    assert not {"codebook", "head.codes"} & model.state_dict().keys()
    assert not model.codebook.requires_grad
    assert model.codebook.grad is None
    assert not model.encoder.pos_embed.requires_grad, "sine and cosine"
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None or not parameter.requires_grad, name


def test_positions_are_learned_on_request():
    model = make_model(fixed_positions=False)
    assert model.encoder.pos_embed.requires_grad


# -------------------------------------------------------------------------------------------- runs


def test_a_run_leaves_an_encoder_its_heads_and_a_report(store, finished):
    result = finished.info["result"]
    assert finished.objective == "mtm"
    assert 0 < result["loss"] < 2 * math.log(32)
    assert 0 <= result["token_accuracy"] <= 1
    assert 0 <= result["knn_top1"] <= 1
    assert 0 <= result["linear_top1"] <= 1
    vals = [entry for entry in finished.metrics() if entry["split"] == "val"]
    assert [entry["step"] for entry in vals] == [4, 6]
    assert vals[-1]["loss"] == result["loss"]
    report = (finished.path / "report.html").read_text()
    assert report.count("data:image/") >= 3
    assert "Masked" in report or "masked" in report
    encoder = finished.load_weights()
    expected = build_backbone(
        "vit_tiny_patch16_224", channels=store.codebook.shape[1], input_size=(8, 8),
        stem="2/2/0", num_classes=3, embed_dim=16, depth=2, num_heads=2,
    )  # fmt: skip
    missing, unexpected = expected.load_state_dict(encoder, strict=False)
    assert (sorted(missing), unexpected) == (["head.bias", "head.weight"], [])
    expected.reset_classifier(0)
    expected.load_state_dict(encoder)


@pytest.mark.parametrize("last", [pytest.param(1, marks=pytest.mark.slow), 3, 5])
def test_a_stopped_run_goes_on_bit_for_bit(store, finished, tmp_path, last):
    with pytest.raises(StopError):
        pretrain(CONFIG, store, out=tmp_path / "run", progress=stop_at(last))
    pretrain(CONFIG, store, out=tmp_path / "run", resume=True)
    run = Run.open(tmp_path / "run")
    same(run, finished)
    names = ("step", "split", "loss", "knn_top1", "token_accuracy", "effective_rank")
    for ours, theirs in zip(run.metrics(), finished.metrics(), strict=True):
        assert [ours.get(name) for name in names] == [theirs.get(name) for name in names]


CHILD = """
import json, sys
from seit.config import build
from seit.pretraining import PretrainConfig
from seit.pretraining import pretrain

store, out, settings, start = sys.argv[1:]
config = build(PretrainConfig, json.loads(settings), origin="test")
pretrain(config, store, out=out, resume=True, init_from=start or None)
"""


def run_ranks(store, out, config, *, start="", ranks=2):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {
        **os.environ, "OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port), "WORLD_SIZE": str(ranks),
    }  # fmt: skip
    arguments = [str(store.folder), str(out), json.dumps(to_mapping(config)), str(start)]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", CHILD, *arguments],
            env=shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in range(ranks)
    ]
    assert [process.wait(timeout=300) for process in processes] == [0] * ranks


@pytest.mark.slow
def test_ranks_do_what_one_process_does(store, tmp_path):
    quiet = changed(**QUIET)
    pretrain(quiet, store, out=tmp_path / "one")
    run_ranks(store, tmp_path / "two", quiet)
    one, two = Run.open(tmp_path / "one"), Run.open(tmp_path / "two")
    same(two, one, tolerance=2e-4)
    for ours, theirs in zip(two.metrics(), one.metrics(), strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-4)
        if theirs["split"] == "val":
            assert ours["feature_std"] == pytest.approx(theirs["feature_std"], rel=1e-3)
            assert ours["token_accuracy"] == pytest.approx(theirs["token_accuracy"], abs=0.02)


def test_a_store_without_labels_or_validation(tmp_path):
    store = make_store(tmp_path, labelled=False, val=False)
    result = pretrain(CONFIG, store, out=tmp_path / "run")
    assert result.loss is None
    assert result.knn_top1 is None
    assert result.linear_top1 is None
    assert result.effective_rank > 0
    assert (tmp_path / "run/report.html").is_file()


@pytest.mark.parametrize("objective", ["mtm", "sit"])
def test_an_empty_validation_split_counts_as_none(pattern_folder, tmp_path, objective):
    path = tmp_path / "store"
    shutil.copytree(pattern_folder / "store", path)
    delete_samples(path, list(seit.open(path)["val"].keys))
    store = seit.open(path)
    assert len(store["val"]) == 0
    result = pretrain(changed(objective=objective), store, out=tmp_path / "run")
    assert result.loss is None
    assert result.knn_top1 is None
    assert result.effective_rank > 0
    report = (tmp_path / "run/report.html").read_text()
    assert any(key in report for key in store["train"].keys), "the pictures are of training samples"
    again = pretrain(changed(objective=objective), store, out=tmp_path / "run", resume=True)
    assert again.effective_rank == result.effective_rank


def test_a_part_of_a_batch_at_a_time_is_the_same(store, tmp_path):
    quiet = changed(**QUIET)
    pretrain(quiet, store, out=tmp_path / "whole")
    pretrain(changed(quiet, optim={"accumulate": 3}), store, out=tmp_path / "parts")
    same(Run.open(tmp_path / "parts"), Run.open(tmp_path / "whole"), tolerance=2e-4)


# ----------------------------------------------------------------------------- starting from a run


def test_a_classifier_starts_from_the_encoder(store, finished, tmp_path):
    held = build(
        TrainConfig,
        {**to_mapping(FINE), "optim": {"lr": 1e-12, "weight_decay": 0.0}},
        origin="test",
    )
    train(held, store, out=tmp_path / "run", init_from=finished.path)
    weights = Run.open(tmp_path / "run").load_weights()
    for key, value in finished.load_weights().items():
        torch.testing.assert_close(weights[key], value, msg=key)
    assert evaluate_run(tmp_path / "run", store).samples == 15


def test_the_command_takes_the_backbone_of_the_start(store, finished, tmp_path, capsys):
    settings = ["--run.device", "cpu", "--run.loggers", "[]", "--batch-size", "12"]
    begin = ["train", str(store.folder), "--init-from", str(finished.path)]
    main([*begin, "--out", str(tmp_path / "run"), "--steps", "2", "--json", *settings])
    assert json.loads(capsys.readouterr().out)["steps"] == 2
    assert Run.open(tmp_path / "run").config.model.embed_dim == 16


def test_what_needs_a_classifier_says_so(store, finished):
    with pytest.raises(UsageError, match="pre-training run and knows no classes"):
        evaluate_run(finished.path, store)


def test_a_run_on_other_tokens_is_no_start(store, finished, tmp_path):
    other = make_store(tmp_path, val=True)
    tokenizer = finished.path / "tokenizer.safetensors"
    assert other.card.tokenizer.fingerprint == store.card.tokenizer.fingerprint
    assert tokenizer.is_file()
    seit.ingest.tokenize(
        tmp_path / "pictures",
        tmp_path / "others",
        seit.ingest.TokenizeConfig(tokenizer="patch-pca-vq", size=64, codes=16),
    )
    with pytest.raises(UsageError, match="another tokenizer's tokens"):
        pretrain(CONFIG, tmp_path / "others", out=tmp_path / "run", init_from=finished.path)
    assert not (tmp_path / "run").exists()


# --------------------------------------------------------------- further, with self-distillation


def test_the_distance_of_features_by_hand():
    student = torch.tensor([[1.0, 2.0], [0.0, -1.0]])
    teacher = torch.tensor([[0.0, 0.0], [3.0, -1.0]])
    assert float(feature_distance(student, teacher)) == pytest.approx((5 + 9) / 2 / 2)


def test_a_weight_of_one_weighs_what_the_papers_does():
    """There: summed over 768 dims beside an error of 0.4; here: a cross-entropy of 0.8 · ln K."""
    generator = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn((3, 768), generator=generator) for _ in range(2))
    pairs = zip(student.tolist(), teacher.tolist(), strict=True)
    theirs = sum((a - b) ** 2 for one, other in pairs for a, b in zip(one, other, strict=True)) / 3
    for num_codes in (16, 391, 1024):
        ours = distance_scale(num_codes) * float(feature_distance(student, teacher))
        entropy = -0.8 * sum(math.log(1 / num_codes) / num_codes for _ in range(num_codes))
        assert ours / entropy == pytest.approx(theirs / 0.4, rel=1e-6)
    # As far apart in every dim, a narrower network's features weigh the same.
    narrow = float(feature_distance(student[:, :64], student[:, :64] + 0.1))
    assert narrow == pytest.approx(float(feature_distance(student, student + 0.1)), rel=1e-4)


@pytest.mark.parametrize("features", ["pooled", "cls", "both"])
def test_the_student_learns_the_teachers_features_of_the_whole_grid(features):
    student = make_model(decoder_dropout=0.0, input_dropout=0.0)
    weights = make_model(seed=1).encoder.state_dict()
    config = FurtherConfig(features=features, weight=2.0)
    model = FurtherModel(student, weights, config, origin="test").train()
    ids, order = draw_batch(student, 4)
    losses = model(ids, order, 7)
    total, masked, distance = losses.tolist()
    assert masked == pytest.approx(student(ids, order, 7).item(), rel=1e-6)
    assert total == pytest.approx(masked + 2 * distance, rel=1e-6)

    def seen_by(vit):
        x = vit.fc_norm(vit.forward_features(student.embed(ids)))
        return {"cls": x[:, 0], "pooled": x[:, 1:].mean(1)}

    pairs = zip(seen_by(student.encoder).items(), seen_by(model.teacher).values(), strict=True)
    parts = {name: (ours - theirs).square().mean().item() for (name, ours), theirs in pairs}
    expected = sum(parts.values()) / 2 if features == "both" else parts[features]
    expected *= 768 * 2 * math.log(len(student.codebook))
    assert distance == pytest.approx(expected, rel=1e-5)

    losses[0].backward()
    assert all(parameter.grad is None for parameter in model.teacher.parameters())
    assert not model.teacher.training
    for key, value in model.teacher.state_dict().items():
        assert torch.equal(value, weights[key]), key


def test_further_pretraining_starts_both_from_the_same_weights(store, finished, tmp_path):
    config = changed(
        objective="further",
        optim={"lr": 1e-12, "weight_decay": 0.0},
        schedule={"warmup_steps": 0},
    )
    pretrain(config, store, out=tmp_path / "run", init_from=finished.path)
    for path in (tmp_path / "run", tmp_path / "run/teacher"):
        for key, value in finished.load_weights().items():
            torch.testing.assert_close(Run.open(path).load_weights()[key], value, msg=key)
    assert Run.open(tmp_path / "run/teacher").objective == "mtm"
    parts = [entry for entry in Run.open(tmp_path / "run").metrics() if entry["split"] == "train"]
    assert all(entry["distance"] < 1e-6 for entry in parts), "equal weights, equal features"


def test_a_teacher_of_other_tokens_is_refused(store, finished, tmp_path):
    other = shutil.copytree(finished.path, tmp_path / "other")
    (other / "tokenizer.safetensors").unlink()
    config = changed(objective="further", further={"teacher": str(other)})
    with pytest.raises(UsageError, match="tokenizer"):
        pretrain(config, store, out=tmp_path / "run", init_from=finished.path)


def test_a_momentum_teacher_starts_as_the_student_that_is_loaded(store, finished):
    config = changed(objective="sit", sit={"head_hidden_dim": 32, "head_dim": 8})
    ranks = Ranks(0, 1, torch.device("cpu"))
    begun = SiameseTokens(config, store, ranks, init_from=finished.path, teacher=None).model
    weights = finished.load_weights()
    for key, value in begun.teacher.encoder.state_dict().items():
        assert torch.equal(value, weights[key]), key
    for key, value in begun.teacher.projection.state_dict().items():
        assert torch.equal(value, begun.projection.state_dict()[key]), key


def test_without_distillation_it_is_plain_further_pretraining(store, finished, tmp_path):
    pretrain(CONFIG, store, out=tmp_path / "plain", init_from=finished.path)
    config = changed(objective="further", further={"weight": 0.0})
    pretrain(config, store, out=tmp_path / "further", init_from=finished.path)
    plain, further = Run.open(tmp_path / "plain"), Run.open(tmp_path / "further")
    for key, value in plain.load_weights().items():
        assert torch.equal(further.load_weights()[key], value), key
    losses = [
        [entry["loss"] for entry in run.metrics() if entry["split"] == "train"]
        for run in (plain, further)
    ]
    assert losses[0] == losses[1]


def test_a_distilled_run_goes_on_bit_for_bit(store, finished, tmp_path):
    config = changed(objective="further")
    pretrain(config, store, out=tmp_path / "whole", init_from=finished.path)
    settings = {"out": tmp_path / "run", "init_from": finished.path}
    with pytest.raises(StopError):
        pretrain(config, store, **settings, progress=stop_at(3))
    assert (tmp_path / "run/teacher").is_dir()
    assert not Run.exists(tmp_path / "run"), "the teacher was under way"
    teacher = tmp_path / "whole/teacher"
    taught = changed(config, further={"teacher": str(teacher)})
    pretrain(config, store, **settings, resume=True)
    same(Run.open(tmp_path / "run"), Run.open(tmp_path / "whole"))
    with pytest.raises(StopError):
        pretrain(
            taught, store, out=tmp_path / "taught", init_from=finished.path, progress=stop_at(3)
        )
    pretrain(taught, store, out=tmp_path / "taught", init_from=finished.path, resume=True)
    same(Run.open(tmp_path / "taught"), Run.open(tmp_path / "whole"))


def test_recipes_of_pretraining_do_what_their_papers_do():
    small, large, further, mtm = (
        build(PretrainConfig, read_yaml(find_recipe(name).path), origin=name)
        for name in ("sit-small-cpu", "sit-vit-small", "further-small-cpu", "seitpp-mtm-vit-base")
    )
    for sit in (small, large):
        assert (sit.sit.recon_weight, sit.sit.contrast_weight) == (1.0, 1.0)
        assert (sit.optim.betas, sit.optim.clip_grad) == ((0.9, 0.999), 3.0)
    assert (small.sit.momentum, large.sit.momentum) == (None, 0.996)
    assert (further.augment.crop_scale, further.augment.flip_prob) == ((1.0, 1.0), 0.0)
    assert (further.optim.lr, further.optim.weight_decay) == (1.5e-4, 0.01)
    assert mtm.augment.order == "seitpp"
    # Nothing is cut off and nothing interpolated where the network takes whole grids.
    whole = replace(further.augment, crop_size=8)
    codes = torch.randn((32, 4), generator=torch.Generator().manual_seed(0))
    for grid in ((8, 8), (8, 50)):
        augment = TokenAugment(codes, grid, whole)
        tokens = torch.randint(32, (5, *grid), generator=torch.Generator().manual_seed(1))
        seen = augment(tokens, torch.zeros(5).long(), positions=torch.arange(5), seed=0, epoch=0)
        torch.testing.assert_close(seen.inputs, augment.evaluate(tokens))


# ------------------------------------------------------------------------ runs of earlier versions


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"objective": "sit"}, "sit.contrast_weight and sit.corruption"),
        ({"objective": "further"}, "further.weight"),
        ({"augment": {"noise_prob": 0.5}}, "augment.noise_prob"),
        ({"augment": {"synonym_prob": 0.1}}, "augment.synonym_prob"),
        ({"optim": {"name": "muon"}}, "optim.name"),
        ({}, None),
    ],
)
def test_a_run_whose_settings_meant_something_else_does_not_go_on(store, tmp_path, change, named):
    config = changed(**change)
    Run.start(tmp_path / "run", config, store, resume=False)
    run = Run.start(tmp_path / "run", config, store, resume=True)
    run.write_info({name: value for name, value in run.info.items() if name != "revision"})
    if named is None:
        Run.start(tmp_path / "run", config, store, resume=True)
    else:
        with pytest.raises(UsageError, match=f"in which {named} meant something"):
            Run.start(tmp_path / "run", config, store, resume=True)
        assert Run.open(tmp_path / "run").settings == config, "and it opens all the same"


# --------------------------------------------------------------------------------------------- SiT


def test_a_run_of_sit_goes_on_bit_for_bit_and_further(store, tmp_path):
    config = changed(objective="sit", sit={"learn_weights": True}, model={"drop_path": 0.2})
    result = pretrain(config, store, out=tmp_path / "whole")
    assert 0 < result.loss < 2 * math.log(32)
    with pytest.raises(StopError):
        pretrain(config, store, out=tmp_path / "run", progress=stop_at(3))
    pretrain(config, store, out=tmp_path / "run", resume=True)
    whole = Run.open(tmp_path / "whole")
    same(Run.open(tmp_path / "run"), whole)
    losses = [entry for entry in whole.metrics() if entry["split"] == "train"]
    assert {"loss", "recon", "contrast"} <= losses[0].keys()
    pulls = next(entry for entry in whole.metrics() if entry["split"] == "val")
    assert pulls["recon_gradient"] > 0
    assert pulls["contrast_gradient"] > 0
    heads = whole.load_tensors("pretraining.safetensors")
    moved = heads["teacher.encoder.blocks.0.mlp.fc1.weight"]
    assert not torch.equal(moved, whole.load_weights()["blocks.0.mlp.fc1.weight"])
    held = changed(config, optim={"lr": 1e-12, "weight_decay": 0.0}, schedule={"warmup_steps": 0})
    held = changed(held, sit={"momentum": 1.0})
    pretrain(held, store, out=tmp_path / "on", init_from=whole.path)
    for key, value in Run.open(tmp_path / "on").load_tensors("pretraining.safetensors").items():
        if "running" not in key and "num_batches" not in key:
            torch.testing.assert_close(value, heads[key], msg=key)


def test_contrast_alone_predicts_no_codes(store, tmp_path):
    result = pretrain(
        changed(objective="sit", sit={"tasks": ("contrast",)}), store, out=tmp_path / "run"
    )
    assert result.loss is None
    assert result.knn_top1 is not None
    assert "predicts no codes" in (tmp_path / "run/report.html").read_text()


def test_rotation_asks_for_a_network_to_turn_by(store, tmp_path):
    with pytest.raises(UsageError, match="TokenAdapt"):
        changed(objective="sit", sit={"tasks": ("recon", "rotation")})
    path = tmp_path / "adapt.safetensors"
    network = TokenAdapt(torch.from_numpy(store.codebook), dim=8, num_heads=2)
    save_tokenadapt(network, path, fingerprint=store.card.tokenizer.fingerprint)
    config = changed(
        objective="sit",
        sit={"tasks": ("recon", "rotation")},
        augment={"token_adapt": str(path), "token_adapt_prob": 0.5},
    )
    pretrain(config, store, out=tmp_path / "run")
    losses = [e for e in Run.open(tmp_path / "run").metrics() if e["split"] == "train"]
    assert losses[0]["rotation"] == pytest.approx(math.log(4), abs=0.5)


# -------------------------------------------------------------------------------------- sparseness


def test_sparse_pretraining_holds_its_zeros_and_ends_dense(store, tmp_path):
    config = changed(sparsity={"share": 0.75}, ema={"decay": 0.9})
    pretrain(config, store, out=tmp_path / "whole")
    with pytest.raises(StopError):
        pretrain(config, store, out=tmp_path / "run", progress=stop_at(3))
    pretrain(config, store, out=tmp_path / "run", resume=True)
    run = Run.open(tmp_path / "run")
    same(run, Run.open(tmp_path / "whole"))
    sparse = {
        key: value
        for key, value in run.load_weights().items()
        if key.startswith("blocks.") and value.ndim == 2
    }
    assert len(sparse) == 8
    for key, value in sparse.items():
        assert int((value != 0).sum()) == round(0.25 * value.numel()), key
    with safe_open(next((run.path / "checkpoints").glob("*06.safetensors")), "pt") as file:
        for key, value in sparse.items():
            held = value == 0
            for part in ("model.encoder", "average.encoder"):
                assert not file.get_tensor(f"{part}.{key}")[held].any()
            assert not file.get_tensor(f"optimizer.encoder.{key}.exp_avg")[held].any()
    assert run.info["sparsity"]

    train(FINE, store, out=tmp_path / "dense", init_from=run.path)
    dense = Run.open(tmp_path / "dense").load_weights()
    filled = sum(int((dense[key][value == 0] != 0).sum()) for key, value in sparse.items())
    assert filled > 0.99 * sum(int((value == 0).sum()) for value in sparse.values())

    kept = build(
        TrainConfig,
        {**to_mapping(FINE), "sparsity": {"share": 0.75, "seed": config.run.seed}},
        origin="test",
    )
    train(kept, store, out=tmp_path / "sparse", init_from=run.path)
    still = Run.open(tmp_path / "sparse").load_weights()
    for key, value in sparse.items():
        assert not still[key][value == 0].any(), key


# ------------------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    ("groups", "words"),
    [
        ({"model": {"stem": "4/2/1"}}, "patches overlap, .* use 2/2/0"),
        ({"model": {"stem": "early/4"}}, "use 4/4/0, .* also in the run to start from"),
        ({"model": {"name": "resnet18", "stem": "2/2/0"}}, "resnet18"),
        ({"objective": "further"}, "--init-from"),
        ({"mtm": {"decoder_dim": 10}}, "decoder_dim"),
        ({"mtm": {"input_dropout": 1.0}}, "input_dropout"),
        ({"augment": {"cutmix_prob": 0.5}}, "mixes no samples"),
        ({"data": {"pixels": "somewhere"}}, "takes tokens"),
        ({"further": {"weight": -1.0}}, "further.weight"),
    ],
)
def test_settings_that_cannot_be(store, tmp_path, groups, words):
    with pytest.raises(UsageError, match=words):
        pretrain(changed(**groups), store, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_command(store, tmp_path, capsys):
    out = tmp_path / "run"
    arguments = ["pretrain", str(store.folder), "--steps", "2", "--batch-size", "12", "--json"]
    small = ["--model.stem", "2/2/0", "--model.embed_dim", "16", "--model.num_heads", "2"]
    quiet = ["--run.device", "cpu", "--run.loggers", "[]", "--mtm.decoder_dim", "16"]
    main([*arguments, *small, *quiet, "--sparsity", "0.5", "--out", str(out)])
    result = json.loads(capsys.readouterr().out)
    assert result["steps"] == 2
    assert Run.open(out).settings.sparsity.share == 0.5
    with pytest.raises(SystemExit) as ended:
        main(["pretrain", str(store.folder), "--objective", "mtn", "--out", str(out)])
    assert ended.value.code == 2
