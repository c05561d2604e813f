"""SiT: losses by hand, the teacher, turned grids, and learning."""

import math

import pytest
import torch
from support.references import nt_xent_in_loops
from timm.layers import DropPath
from torch import nn
from torch.nn import functional as F

from seit.augment import Op, SampleRandom, TokenWarper, warp
from seit.errors import UsageError
from seit.models import build_backbone
from seit.models.codebook import standardised
from seit.models.encoder import encode, pooled
from seit.models.tokenadapt import TokenAdapt
from seit.pretraining.contrast import nt_xent
from seit.pretraining.corruption import corrupt
from seit.pretraining.gradients import gradient_norms
from seit.pretraining.momentum import Teacher, start_momentum, teacher_momentum
from seit.pretraining.patches import patchify
from seit.pretraining.reconstruction import ReconstructionHead
from seit.pretraining.rotation import draw_quarter_turns, quarter_warps, rotate
from seit.pretraining.sit import Sit, SitConfig, SitViews

K, C, SIDE, STRIDE = 20, 6, 8, 2
ALL = ("recon", "contrast", "rotation")
SMALL = {"head_hidden_dim": 32, "head_dim": 8}


def make_codebook():
    return torch.randn((K, C), generator=torch.Generator().manual_seed(0)) * 2 + 1


def make_encoder(**kwargs):
    encoder = build_backbone(
        "vit_tiny_patch16_224",
        channels=C,
        input_size=(SIDE, SIDE),
        num_classes=1,
        stem=f"{STRIDE}/{STRIDE}/0",
        embed_dim=24,
        depth=2,
        num_heads=2,
        **kwargs,
    )
    encoder.reset_classifier(0)
    return encoder


def make_sit(*, drop_path_rate=0.0, **settings):
    torch.manual_seed(1)
    config = SitConfig(**{**SMALL, **settings})
    return Sit(make_encoder(drop_path_rate=drop_path_rate), make_codebook(), config, side=STRIDE)


def make_views(count=6, *, config=None, seed=0):
    config = config or SitConfig()
    generator = torch.Generator().manual_seed(seed)
    clean = tuple(torch.randint(K, (count, SIDE, SIDE), generator=generator) for _ in range(2))
    corrupted = tuple(
        corrupt(ids, SampleRandom(n, 0, torch.arange(count)), config.corruption, num_codes=K)
        for n, ids in enumerate(clean)
    )
    turns = torch.arange(count) % 4
    turned = torch.stack([torch.rot90(ids, int(k)) for ids, k in zip(clean[0], turns, strict=True)])
    return SitViews(clean, corrupted, turned, turns)


# ------------------------------------------------------------------------------------------ losses


def restored_by_hand(model, view, clean, target):
    """The mean over samples of the mean over changed cells, cell by cell in float64."""
    features = encode(model.encoder, model.embed(view.ids)).patches
    lifted = model.reconstruction.lift(features).double()
    codes = standardised(make_codebook()).double()
    samples = []
    for b in range(len(clean)):
        losses = []
        for row, column in view.changed[b].nonzero().tolist():
            patch = (row // STRIDE) * (SIDE // STRIDE) + column // STRIDE
            cell = (row % STRIDE) * STRIDE + column % STRIDE
            vector = lifted[b, patch, cell * C : (cell + 1) * C]
            code = int(clean[b, row, column])
            if target == "vectors":
                losses.append((vector - codes[code]).abs().mean())
            else:
                logits = codes @ vector + model.reconstruction.bias
                losses.append(logits.logsumexp(0) - logits[code])
        samples.append(torch.stack(losses).mean())
    return torch.stack(samples).mean()


@pytest.mark.parametrize("target", ["codes", "vectors"])
def test_the_reconstruction_loss_by_hand(target):
    model = make_sit(tasks=("recon",), recon=target)
    if target == "codes":
        nn.init.normal_(model.reconstruction.bias)
    views = make_views()
    by_hand = [
        restored_by_hand(model, view, clean, target)
        for view, clean in zip(views.corrupted, views.clean, strict=True)
    ]
    found = model(views)
    assert model.names == ("loss", "recon")
    torch.testing.assert_close(found[1].double(), sum(by_hand) / 2, rtol=1e-5, atol=1e-6)
    assert torch.equal(found[0], found[1])


def test_only_changed_cells_are_restored_and_samples_count_alike():
    head = ReconstructionHead(5, make_codebook(), side=1, target="codes")
    features = torch.randn((2, 4, 5), generator=torch.Generator().manual_seed(2))
    ids = torch.tensor([[[3, 1], [4, 1]], [[5, 9], [2, 6]]])
    changed = torch.tensor([[[True, False], [False, False]], [[False, True], [True, True]]])
    loss = F.cross_entropy(head.logits(features).flatten(0, 2), ids.flatten(), reduction="none")
    expected = (loss[0] + loss[5:].mean()) / 2
    torch.testing.assert_close(head.loss(features, ids, changed), expected)
    assert head.loss(features, ids, torch.zeros_like(changed)) == 0


def test_logits_of_vectors_are_those_of_the_nearest_code():
    head = ReconstructionHead(5, make_codebook(), side=2, target="vectors")
    features = torch.randn((3, 7, 5), generator=torch.Generator().manual_seed(2))
    distances = torch.cdist(head(features), standardised(make_codebook()))
    assert torch.equal(head.logits(features).argmax(dim=-1), distances.argmin(dim=-1))


def test_the_contrastive_loss_is_between_the_pooled_features_of_both_views():
    model = make_sit(tasks=("contrast",))
    with torch.no_grad():
        for parameter in model.teacher.parameters():
            parameter.add_(0.01)
    views = make_views()
    queries = [
        model.projection(pooled(model.encoder, model.embed(view.ids))) for view in views.corrupted
    ]
    teacher = model.teacher
    keys = [
        teacher.projection(pooled(teacher.encoder, model.embed(clean))) for clean in views.clean
    ]
    expected = [
        nt_xent(query, key, temperature=0.2)
        for query, key in ((queries[0], keys[1]), (queries[1], keys[0]))
    ]
    torch.testing.assert_close(model(views)[1], sum(expected))


def test_the_contrast_is_the_sum_of_both_directions_and_recovery_the_mean_of_both_views():
    """Element by element in Python's floats: main.py of the authors, with codes for pixels."""
    model, views = make_sit(), make_views()
    total, recon, contrast = model(views).tolist()
    queries = [
        model.projection(pooled(model.encoder, model.embed(view.ids))).tolist()
        for view in views.corrupted
    ]
    keys = [model.teacher(model.embed(clean)).tolist() for clean in views.clean]
    first, second = (
        nt_xent_in_loops(query, key, 0.2) for query, key in zip(queries, keys[::-1], strict=True)
    )
    assert contrast == pytest.approx(first + second, rel=1e-4)
    one, other = (
        restored_by_hand(model, view, clean, "codes").item()
        for view, clean in zip(views.corrupted, views.clean, strict=True)
    )
    assert recon == pytest.approx((one + other) / 2, rel=1e-5)
    assert total == pytest.approx((one + other) / 2 + first + second, rel=1e-4)


@pytest.mark.parametrize("learn_weights", [False, True])
def test_the_pull_of_each_task_is_the_norm_of_its_gradient_and_leaves_no_trace(learn_weights):
    settings = {"recon_weight": 0.5, "contrast_weight": 3.0, "learn_weights": learn_weights}
    model, views = make_sit(**settings).train(), make_views()
    if learn_weights:
        nn.init.constant_(model.log_variances, 0.3)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    norms = gradient_norms(
        model, lambda network: model.weighted(network(views)[1:]), encoder=model.encoder
    )
    assert torch.equal(torch.get_rng_state(), state)
    assert all(value.grad is None for value in model.parameters())
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
    for number, weight in enumerate((0.5, 3.0)):
        model.zero_grad()
        (model(views)[1 + number] * weight * math.exp(-0.3 * learn_weights)).backward()
        squares = [
            value.grad.double().square().sum()
            for value in model.encoder.parameters()
            if value.grad is not None
        ]
        assert norms[number].item() == pytest.approx(math.sqrt(sum(squares)), rel=1e-4)


def test_turns_are_told_from_the_class_token():
    model = make_sit(tasks=("rotation",))
    views = make_views()
    token = encode(model.encoder, model.embed(views.rotated)).prefix
    expected = F.cross_entropy(model.rotation(token), views.quarter_turns)
    torch.testing.assert_close(model(views), torch.stack([0.5 * expected, expected]))


def test_the_total_is_the_weighted_sum_of_the_tasks():
    model = make_sit(tasks=("rotation", "recon", "contrast"), recon_weight=5.0)
    assert model.names == ("loss", *ALL)
    total, recon, contrast, rotation = model(make_views())
    torch.testing.assert_close(total, 5 * recon + contrast + 0.5 * rotation)


def test_learned_weights_follow_the_formula_and_find_their_optimum():
    model = make_sit(tasks=ALL, learn_weights=True)
    with torch.no_grad():
        model.log_variances.copy_(torch.tensor([0.3, -0.2, 1.0]))
    parts = model(make_views())
    losses = parts[1:].detach()
    s, weights = [0.3, -0.2, 1.0], [1.0, 1.0, 0.5]
    expected = sum(
        w * math.exp(-v) * loss + v / 2
        for w, v, loss in zip(weights, s, losses.tolist(), strict=True)
    )
    assert parts[0].item() == pytest.approx(expected, 1e-5)
    parts[0].backward()
    slopes = 0.5 - torch.tensor(weights) * torch.exp(-torch.tensor(s)) * losses
    torch.testing.assert_close(model.log_variances.grad, slopes)


@pytest.mark.parametrize("tasks", [("recon",), ("contrast",), ("rotation",), ALL])
@pytest.mark.parametrize("learn_weights", [False, True])
def test_all_that_is_trained_has_a_gradient(tasks, learn_weights):
    model = make_sit(tasks=tasks, learn_weights=learn_weights)
    model(make_views())[0].backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name
        assert parameter.requires_grad != name.startswith("teacher."), name


def test_part_of_the_views_is_that_of_the_samples():
    model = make_sit(tasks=("recon", "rotation"))
    views = make_views()
    halves = [model(views.select(rows)) for rows in (slice(0, 3), slice(3, 6))]
    torch.testing.assert_close(sum(halves) / 2, model(views))


def test_masks_have_a_vector_of_their_own_that_learns():
    model = make_sit(tasks=("recon",))
    ids = torch.tensor([[[0, K], [K - 1, K]]])
    codes = make_codebook()
    embedded = model.embed(ids)[0].permute(1, 2, 0)
    expected = torch.stack([codes[0], codes.mean(dim=0), codes[-1], codes.mean(dim=0)])
    torch.testing.assert_close(embedded.flatten(0, 1), expected)
    embedded[..., 0].sum().backward()
    assert model.mask_vector.grad.tolist() == [2.0, *[0.0] * (C - 1)]


# ----------------------------------------------------------------------------------------- teacher


def test_the_teacher_moves_by_the_formula():
    model = make_sit(momentum=0.9)
    before = {name: value.clone() for name, value in model.teacher.named_parameters()}
    with torch.no_grad():
        for parameter in [*model.encoder.parameters(), *model.projection.parameters()]:
            parameter.add_(torch.randn_like(parameter))
    model.update_teacher(200, 800)
    momentum = 1 - 0.1 * (1 + math.cos(math.pi / 4)) / 2
    student = dict(model.named_parameters())
    assert len(before) > 20
    for name, value in model.teacher.named_parameters():
        expected = momentum * before[name] + (1 - momentum) * student[name]
        torch.testing.assert_close(value, expected, msg=name)


def test_momentum_rises_to_one_by_a_cosine():
    assert teacher_momentum(0.996, 0.0) == pytest.approx(0.996)
    assert teacher_momentum(0.996, 0.5) == pytest.approx(0.998)
    assert teacher_momentum(0.996, 1.0) == 1.0
    model = make_sit()
    before = [value.clone() for value in model.teacher.parameters()]
    nn.init.zeros_(model.encoder.pos_embed)
    model.update_teacher(800, 800)
    assert all(map(torch.equal, before, model.teacher.parameters()))


def left_of_the_start(start, steps):
    """The share of the teacher's first weights in its last ones, step by step."""
    return math.prod(teacher_momentum(start, done / steps) for done in range(1, steps + 1))


def test_momentum_follows_the_length_of_the_run():
    """The paper's 0.996 leaves a fifth of the random start in a run of 800 steps."""
    assert left_of_the_start(0.996, 800) == pytest.approx(0.2, abs=0.01)
    expected = {1: 0.9, 100: 0.9, 400: 0.9, 800: 0.95, 4000: 0.99, 10_000: 0.996, 10**6: 0.996}
    for steps, start in expected.items():
        assert start_momentum(steps) == pytest.approx(start, abs=1e-12)
    for steps in (800, 4000, 10_000):
        assert left_of_the_start(start_momentum(steps), steps) < math.exp(-19)
    model = make_sit()
    before = model.teacher.encoder.pos_embed.clone()
    nn.init.ones_(model.encoder.pos_embed)
    model.update_teacher(1, 800)
    share = 0.05 * (1 + math.cos(math.pi / 800)) / 2
    expected = (1 - share) * before + share
    torch.testing.assert_close(model.teacher.encoder.pos_embed, expected)


def test_nothing_is_dropped_in_the_teacher():
    model = make_sit(drop_path_rate=0.5)
    assert any(isinstance(module, DropPath) for module in model.encoder.modules())
    assert not any(isinstance(module, DropPath) for module in model.teacher.modules())
    model.train()
    assert not model.teacher.encoder.training
    assert model.teacher.projection.training
    inputs = model.embed(make_views().clean[0])
    assert torch.equal(model.teacher(inputs), model.teacher(inputs))
    assert not model.teacher(inputs).requires_grad
    assert isinstance(model.teacher, Teacher)


def test_the_state_carries_the_teacher_and_fits_again():
    model, other = make_sit(tasks=ALL, learn_weights=True), make_sit(tasks=ALL, learn_weights=True)
    with torch.no_grad():
        for value in model.state_dict().values():
            value.add_(1)
    state = model.state_dict()
    other.load_state_dict(state)
    assert any(name.startswith("teacher.encoder.blocks.0") for name in state)
    assert not any(name.endswith(("codebook", "codes")) for name in state)
    views = make_views()
    assert torch.equal(model(views), other(views))
    encoder = {
        name.removeprefix("encoder."): value
        for name, value in state.items()
        if name.startswith("encoder.")
    }
    make_encoder().load_state_dict(encoder)


def test_what_is_not_decayed_is_there():
    model = make_sit(learn_weights=True)
    names = {name for name, _ in model.named_parameters()}
    assert {"encoder.pos_embed", "encoder.cls_token", "mask_vector", "log_variances"} <= names
    assert {"encoder.pos_embed", "mask_vector", "log_variances"} <= model.no_weight_decay()


# ---------------------------------------------------------------------------------------- rotation


class Copying(TokenWarper):
    """Takes the nearest cell."""

    def warp_tokens(self, tokens, warps, size):
        return warp(tokens[:, None].float(), warps, size, mode="nearest")[:, 0].long()

    def warp_vectors(self, x, warps, size):
        raise NotImplementedError

    read_tokens = warp_vectors


@pytest.mark.parametrize("side", [7, 8])
def test_quarter_turns_are_those_of_torch(side):
    tokens = torch.randint(1, K, (4, side, side), generator=torch.Generator().manual_seed(0))
    turns = torch.arange(4)
    turned = rotate(tokens, turns, Copying(), (side, side))
    for k in range(4):
        assert torch.equal(turned[k], torch.rot90(tokens[k], k))
    assert set(quarter_warps(turns).flatten().tolist()) == {0.0, 1.0, -1.0}


def test_an_untrained_tokenadapt_turns_cells():
    tokens = torch.randint(K, (8, 6, 6), generator=torch.Generator().manual_seed(0))
    turns = torch.arange(8) % 4
    torch.manual_seed(0)
    turned = rotate(tokens, turns, TokenAdapt(make_codebook(), dim=24, num_heads=2), (6, 6))
    expected = torch.stack([torch.rot90(tokens[b], int(turns[b])) for b in range(8)])
    assert (turned == expected).double().mean() > 0.95


def test_turns_are_the_samples_own_and_equally_likely():
    turns = draw_quarter_turns(SampleRandom(0, 0, torch.arange(4000)))
    counts = torch.bincount(turns, minlength=4).double()
    assert ((counts - 1000).square() / 1000).sum() < 16.3  # p = 0.001 at 3 degrees of freedom
    part = draw_quarter_turns(SampleRandom(0, 0, torch.arange(100, 200)))
    assert torch.equal(part, turns[100:200])
    words = SampleRandom(0, 0, torch.arange(4000)).uniform(Op.ROTATE)
    assert torch.equal(turns, (words * 4).long())


def test_grids_that_are_not_square_are_refused():
    with pytest.raises(UsageError, match="4 × 5 cannot be turned"):
        rotate(torch.zeros((1, 4, 5), dtype=torch.int64), torch.zeros(1), Copying(), (4, 5))


# ----------------------------------------------------------------------------------- as one module


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("tasks", ()),
        ("tasks", ("recon", "colour")),
        ("tasks", ("recon", "recon")),
        ("temperature", 0.0),
        ("temperature", float("nan")),
        ("recon_weight", -1.0),
        ("rotation_weight", math.inf),
        ("recon", "pixels"),
        ("momentum", 1.5),
        ("head_dim", 0),
    ],
)
def test_wrong_values_are_refused(name, value):
    with pytest.raises(UsageError, match=rf"sit\.{name} is .*expected"):
        SitConfig(**{name: value})


def test_one_sample_has_nothing_to_be_told_from():
    with pytest.raises(UsageError, match="batch of one sample"):
        make_sit()(make_views(1))


@pytest.mark.parametrize("target", ["codes", "vectors"])
def test_what_is_restored_is_what_the_logits_say(target):
    model = make_sit(tasks=("recon",), recon=target).eval()
    views = make_views()
    clean, corrupted = views.clean[0], views.corrupted[0]
    result = model.reconstruct(clean, corrupted)
    assert torch.equal(result.masked, corrupted.changed)
    assert torch.equal(result.predicted[~result.masked], clean[~result.masked])
    features = encode(model.encoder, model.embed(corrupted.ids)).patches
    logits = model.reconstruction.logits(features)
    guessed = patchify(result.predicted, STRIDE)
    changed = patchify(corrupted.changed, STRIDE)
    assert torch.equal(guessed[changed], logits.argmax(dim=-1)[changed])
    if target == "codes":
        loss = model.reconstruction.loss(features, clean, corrupted.changed)
        torch.testing.assert_close(result.loss.mean(), loss)


def test_it_learns():
    """Stripes of two codes are restored, told apart and turned back."""
    model = make_sit(tasks=ALL, head_hidden_dim=64, head_dim=16, momentum=0.9)
    count, steps = 8, 60
    codes = torch.arange(count) * 2
    stripes = (codes[:, None, None] + torch.arange(SIDE) // 4 * 3).expand(-1, SIDE, SIDE) % K
    turns = torch.arange(count) % 4
    turned = torch.stack([torch.rot90(stripes[b], int(turns[b])) for b in range(count)])
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-2)
    history = []
    for step in range(steps):
        corrupted = tuple(
            corrupt(
                stripes,
                SampleRandom(seed, step, torch.arange(count)),
                model.config.corruption,
                num_codes=K,
            )
            for seed in range(2)
        )
        losses = model(SitViews((stripes, stripes), corrupted, turned, turns))
        losses[0].backward()
        optimizer.step()
        optimizer.zero_grad()
        model.update_teacher(step, steps)
        history.append(losses.detach())
    first, last = history[0], torch.stack(history[-5:]).mean(dim=0)
    assert (last[1:] / first[1:] < torch.tensor([0.4, 0.2, 0.1])).all()
    result = model.eval().reconstruct(stripes, corrupted[0])
    right = (result.predicted == stripes)[result.masked].double().mean()
    assert right > 0.7


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_does_the_same_and_the_host_never_waits():
    config = SitConfig(tasks=ALL, **SMALL)
    views = make_views()
    model = make_sit(tasks=ALL)
    expected = model(views).detach()
    model = model.cuda()
    clean = tuple(ids.cuda() for ids in views.clean)
    turned, turns = views.rotated.cuda(), views.quarter_turns.cuda()
    random = [SampleRandom(n, 0, torch.arange(6).cuda()) for n in range(2)]
    turner = Copying()

    def step():
        corrupted = tuple(
            corrupt(ids, draws, config.corruption, num_codes=K)
            for ids, draws in zip(clean, random, strict=True)
        )
        rotate(clean[0], turns, turner, (SIDE, SIDE))
        losses = model(SitViews(clean, corrupted, turned, turns))
        losses[0].backward()
        return corrupted, losses.detach()

    corrupted, losses = step()
    for ours, theirs in zip(corrupted, views.corrupted, strict=True):
        assert torch.equal(ours.ids.cpu(), theirs.ids)
        assert torch.equal(ours.changed.cpu(), theirs.changed)
    torch.testing.assert_close(losses.cpu(), expected, rtol=1e-3, atol=1e-4)
    torch.cuda.set_sync_debug_mode("error")
    try:
        step()
        model.update_teacher(1, 2)
    finally:
        torch.cuda.set_sync_debug_mode("default")
