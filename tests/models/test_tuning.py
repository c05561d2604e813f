"""Tuning modules: sizes, what they compute, what they train, and how they are taken out again."""

import copy
import json
import math

import numpy as np
import pytest
import timm
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from support.backbones import ALL, adalora, inputs, make_vit, stir
from timm.layers import EvoNorm2dB0
from torch import nn
from torch.nn import functional as F

from seit.errors import DamagedError, UsageError
from seit.models import build_backbone
from seit.models.classifier import is_of_head
from seit.models.tuning import (
    METHODS,
    TUNINGS,
    TuningConfig,
    base_fingerprint,
    load_adapter,
    make_tuning,
    save_adapter,
)

CONFIGS = {
    "full": TuningConfig(method="full"),
    "linear": TuningConfig(method="linear"),
    "bitfit": TuningConfig(method="bitfit"),
    "lora": TuningConfig(method="lora", rank=2, targets=("q", "v", "proj", "fc1"), alpha=4),
    "lora-qkv": TuningConfig(method="lora", rank=3, targets=("qkv", "fc2")),
    "lora-scale": TuningConfig(method="lora", rank=2, targets=("k", "v"), learn_scale=True),
    "adalora": TuningConfig(method="adalora", rank=2, targets=ALL),
    "adapter": TuningConfig(method="adapter", hidden_dim=3, num_blocks=1),
    "adapter-scale": TuningConfig(method="adapter", hidden_dim=3, learn_scale=True),
    "houlsby": TuningConfig(method="houlsby", hidden_dim=3),
    "adapterbias": TuningConfig(method="adapterbias"),
    "adapterbias-hidden": TuningConfig(method="adapterbias", adapterbias_input="hidden"),
    "prefix": TuningConfig(method="prefix", length=3),
    "prefix-plain": TuningConfig(method="prefix", length=3, compensate=False, learn_scale=True),
    "weighted-sum": TuningConfig(method="weighted-sum"),
}
MERGEABLE = {"full", "linear", "bitfit", "lora", "lora-qkv", "lora-scale", "adalora"}
CHANGES_AT_ONCE = {"prefix", "prefix-plain", "weighted-sum"}
every = pytest.mark.parametrize("name", CONFIGS)


def attached(name, model):
    tuning = make_tuning(CONFIGS[name])
    tuning.attach(model)
    return tuning


def state_of(model):
    return {key: value.clone() for key, value in model.state_dict().items()}


def same_states(ours, theirs):
    assert ours.keys() == theirs.keys()
    for key, value in theirs.items():
        assert torch.equal(ours[key], value), key


def take_step(model, tuning, step=0, total=10):
    optimizer = torch.optim.AdamW([one for one in model.parameters() if one.requires_grad], lr=1e-2)
    loss = F.cross_entropy(model(inputs(step)), torch.tensor([0, 1, 2, 3]))
    penalty = tuning.penalty()
    (loss if penalty is None else loss + penalty).backward()
    optimizer.step()
    tuning.after_update(step, total)
    optimizer.zero_grad()


# ------------------------------------------------------------------------------------------- sizes


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"method": "houlsby", "hidden_dim": 32}, 12 * (2 * 768 * 32 + 32 + 768)),
        ({"method": "lora", "rank": 8}, 12 * 2 * 2 * 768 * 8),
        ({"method": "lora", "rank": 8, "targets": ("qkv",)}, 12 * 8 * (768 + 3 * 768)),
        ({"method": "lora", "rank": 4, "targets": ("fc1", "fc2")}, 12 * 2 * 4 * (768 + 3072)),
        ({"method": "bitfit"}, 12 * 11 * 768 + 2 * 768),
        ({"method": "adapterbias"}, 12 * (768 + 769)),
        ({"method": "adapterbias", "adapterbias_input": "hidden"}, 12 * (768 + 3073)),
        ({"method": "prefix", "length": 10}, 12 * 2 * 10 * 768),
        ({"method": "weighted-sum"}, 13),
        ({"method": "linear"}, 0),
        ({"method": "full"}, 85_798_656),
        ({"method": "adalora", "rank": 8, "initial_rank": 12}, 12 * 2 * 12 * (2 * 768 + 1)),
    ],
)
def test_trained_parameters_are_as_many_as_the_papers_say(settings, expected):
    with torch.device("meta"):
        model = timm.create_model("vit_base_patch16_224", num_classes=10)
    tuning = make_tuning(TuningConfig(**settings))
    tuning.attach(model)
    assert sum(one.numel() for one in tuning.parameters().values()) == expected
    trained = sum(one.numel() for one in model.parameters() if one.requires_grad)
    assert trained == expected + 768 * 10 + 10, "and the classifier"


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"method": "adapter", "hidden_dim": 5}, 42_270),
        ({"method": "lora", "rank": 5, "targets": ("k", "v")}, 76_810),
        ({"method": "prefix", "length": 10}, 76_810),
    ],
)
def test_the_three_of_lae_have_its_sizes(settings, expected):
    with torch.device("meta"):
        model = timm.create_model("vit_base_patch16_224")
    tuning = make_tuning(TuningConfig(num_blocks=5, learn_scale=True, **settings))
    tuning.attach(model)
    assert sum(one.numel() for one in tuning.parameters().values()) == expected
    blocks = {key.split(".")[1] for key in tuning.parameters()}
    assert blocks == set("01234")


# --------------------------------------------------------------------- of a model and back again


@every
def test_a_tuned_model_starts_as_the_pretrained_one(name):
    model, x = make_vit(), inputs()
    before = model(x)
    attached(name, model)
    assert torch.equal(model(x), before) == (name not in CHANGES_AT_ONCE)


@every
def test_names_are_a_superset_and_detach_leaves_no_trace(name):
    model = make_vit()
    model.pos_embed.requires_grad_(False)
    before, required = state_of(model), [one.requires_grad for one in model.parameters()]
    kinds = [type(one) for one in model.modules()]
    tuning = attached(name, model)
    assert model.state_dict().keys() >= before.keys()
    stir(tuning)
    tuning.detach()
    same_states(model.state_dict(), before)
    assert [one.requires_grad for one in model.parameters()] == required
    assert [type(one) for one in model.modules()] == kinds
    assert not any(one._forward_hooks or one._forward_pre_hooks for one in model.modules())
    assert torch.equal(model(inputs()), make_vit()(inputs()))
    tuning.attach(model)  # and once more


@every
def test_only_what_is_named_and_the_classifier_learns(name):
    model = make_vit().train()
    tuning = attached(name, model)
    trained = {key for key in model.state_dict() if is_of_head(model, key)} | set(
        tuning.parameters()
    )
    before = state_of(model)
    for step in range(2):  # the first moves what zeros kept from having a gradient
        take_step(model, tuning, step)
    moved = {
        key
        for key, value in model.state_dict().items()
        if not torch.equal(value, before[key]) and "certainty" not in key and "sensit" not in key
    }
    assert moved == trained


@every
def test_copies_are_tuned_models_of_their_own(name):
    model, x = make_vit(), inputs()
    tuning = attached(name, model)
    stir(tuning)
    twin = copy.deepcopy(model)
    logits = model(x)
    assert torch.equal(twin(x), logits)
    other = tuning.bind(twin)
    stir(other, seed=3)
    assert torch.equal(model(x), logits)
    assert name == "linear" or not torch.equal(twin(x), logits)
    other.detach()
    assert torch.equal(model(x), logits)
    assert torch.equal(twin(x), make_vit()(x))


@every
def test_states_go_to_a_fresh_backbone(name):
    model, x = make_vit(), inputs()
    tuning = attached(name, model)
    stir(tuning)
    other = make_vit()
    same = attached(name, other)
    same.load_state_dict(copy.deepcopy(tuning.state_dict()))
    assert torch.equal(other(x), model(x))
    with pytest.raises(UsageError, match="nowhere"):
        same.load_state_dict({**tuning.state_dict(), "nowhere": torch.zeros(1)})


@every
def test_what_can_be_folded_gives_the_same_logits_as_plain_weights(name):
    model, x = make_vit(), inputs()
    keys = list(model.state_dict())
    tuning = attached(name, model)
    stir(tuning)
    logits = model(x)
    assert tuning.mergeable == (name in MERGEABLE)
    if not tuning.mergeable:
        with pytest.raises(UsageError, match="cannot be folded"):
            tuning.merge()
        assert torch.equal(model(x), logits)
        return
    tuning.merge()
    assert list(model.state_dict()) == keys
    fresh = make_vit(seed=5)
    fresh.load_state_dict(model.state_dict())
    torch.testing.assert_close(fresh(x), logits, rtol=0, atol=2e-6)


def test_a_second_tuning_is_refused():
    model = make_vit()
    tuning = attached("adapter", model)
    for name in ("adapter", "linear"):
        with pytest.raises(UsageError, match="detach or merge"):
            attached(name, model)
    with pytest.raises(UsageError, match="already; detach it"):
        tuning.attach(make_vit())
    with pytest.raises(UsageError, match="attach it first"):
        make_tuning(CONFIGS["lora"]).state_dict()


# ------------------------------------------------------------------------------------------- lora


def test_a_learned_scale_replaces_alpha_over_rank():
    model = make_vit()
    tuning = attached("lora-scale", model)
    assert model.blocks[0].attn.qkv.lora.k.scale.item() == 1
    stir(tuning)
    delta = model.blocks[0].attn.qkv.lora.k
    expected = delta.scale * (delta.b @ delta.a)
    torch.testing.assert_close(delta.delta(), expected, rtol=0, atol=0)


# ----------------------------------------------------------------------------------------- adalora


def test_the_budget_is_kept_exactly_and_falls_as_a_cube():
    model, total = make_vit().train(), 24
    tuning = adalora(model, warmup_share=0.25, final_share=0.25)
    number = len(tuning.ranks())
    assert number == 12
    seen = []
    for step in range(total):
        take_step(model, tuning, step, total)
        done = step + 1
        left = 1 - (done - 6) / (18 - 6)
        budget = 48 if done <= 6 else 24 if done >= 18 else int(24 + 24 * left**3)
        assert sum(tuning.ranks().values()) == budget, done
        values = torch.cat([delta.values for _, _, delta in tuning.deltas()])
        assert int(values.count_nonzero()) == budget
        seen.append(tuning.ranks())
    assert seen[17] == seen[-1], "the last choice stays"
    assert len(set(seen[-1].values())) > 1, "some got more than others"


def test_ties_take_no_more_than_the_budget():
    model = make_vit()
    tuning = adalora(model)
    for _, _, delta in tuning.deltas():
        nn.init.ones_(delta.values)
    tuning.after_update(0, 1)  # no gradients: all importances are 0
    assert sum(tuning.ranks().values()) == 24


def test_ranks_fall_where_the_paper_puts_them():
    """Importances, choices and masked λ against a plain restatement in float64."""
    model, total = make_vit().double().train(), 10
    tuning = adalora(model, warmup_share=0.2, final_share=0.3, mask_every=2, beta1=0.8, beta2=0.7)
    deltas = [delta for _, _, delta in tuning.deltas()]
    averages = {}
    for step in range(total):
        optimizer = torch.optim.SGD(tuning.parameters().values(), lr=0.5)
        loss = F.cross_entropy(model(inputs(step).double()), torch.tensor([0, 1, 2, 3]))
        (loss + tuning.penalty()).backward()
        optimizer.step()
        scores, values = [], []
        for number, delta in enumerate(deltas):
            found = {}
            for name in ("p", "values", "q"):
                weight = getattr(delta, name)
                now = np.abs(weight.detach().numpy() * weight.grad.numpy())
                mean, spread = averages.get((number, name), (0 * now, 0 * now))
                if step + 1 <= 7:
                    mean = 0.8 * mean + 0.2 * now
                    spread = 0.7 * spread + 0.3 * np.abs(now - mean)
                averages[number, name] = mean, spread
                found[name] = mean * spread
            scores += list(found["values"] + found["p"].mean(0) + found["q"].mean(1))
            values += list(delta.values.detach().numpy())
        tuning.after_update(step, total)
        optimizer.zero_grad()
        budgets = {4: int(24 + 24 * (1 - 2 / 5) ** 3), 6: int(24 + 24 * (1 - 4 / 5) ** 3), 7: 24}
        if step + 1 in budgets:
            best = np.argsort(scores)[::-1][: budgets[step + 1]]
            kept = np.isin(np.arange(len(scores)), best)
        if step + 1 in budgets or step + 1 > 7:
            values = np.where(kept, values, 0)
        ours = torch.cat([delta.values for delta in deltas]).detach().numpy()
        np.testing.assert_allclose(ours, values, rtol=1e-9, atol=1e-15)


def test_the_penalty_is_the_mean_of_the_norms():
    model = make_vit()
    tuning = adalora(model, orthogonality=0.3)
    stir(tuning)
    norms = []
    for _, _, delta in tuning.deltas():
        p, q = delta.p.detach().double().numpy(), delta.q.detach().double().numpy()
        for gram in (p.T @ p, q @ q.T):
            squares = [(gram[i, j] - (i == j)) ** 2 for i in range(4) for j in range(4)]
            norms.append(math.sqrt(sum(squares)))
    assert tuning.penalty().item() == pytest.approx(0.3 * np.mean(norms), rel=1e-5)
    assert tuning.penalty().requires_grad
    assert adalora(make_vit(), orthogonality=0.0).penalty() is None


def test_the_scale_stays_that_of_the_first_rank():
    model = make_vit()
    tuning = adalora(model, initial_rank=4, alpha=6.0)
    stir(tuning)
    delta = model.blocks[0].mlp.fc2.lora.fc2
    expected = 6 / 4 * delta.p @ torch.diag(delta.values) @ delta.q
    torch.testing.assert_close(delta.delta(), expected)
    tuning.after_update(0, 1)
    tuning.compact()
    delta = model.blocks[0].mlp.fc2.lora.fc2
    assert delta.scale == 6 / 4
    assert TuningConfig(method="adalora", rank=4).begun_scale == 8, "within the paper's 2.7 to 16"


def test_compacted_deltas_have_the_same_effect_and_load_again(tmp_path):
    model, x = make_vit(), inputs()
    tuning = adalora(model)
    stir(tuning)
    for step in range(10):
        take_step(model, tuning, step, 10)
    logits, ranks = model(x), tuning.ranks()
    save_adapter(tmp_path / "adapter.safetensors", model, tuning)
    tuning.compact()
    torch.testing.assert_close(model(x), logits, rtol=0, atol=2e-6)
    assert tuning.ranks() == ranks
    assert sum(len(delta.values) for _, _, delta in tuning.deltas()) == 24
    other = make_vit()
    again = load_adapter(tmp_path / "adapter.safetensors", other)
    assert again.ranks() == ranks
    assert torch.equal(other(x), model(x))
    assert all(one.requires_grad for one in again.parameters().values())
    with safe_open(tmp_path / "adapter.safetensors", framework="pt") as file:
        assert json.loads(file.metadata()["seit"])["ranks"] == ranks
    again.merge()
    torch.testing.assert_close(other(x), logits, rtol=0, atol=2e-6)


def test_an_overflow_leaves_importances_alone():
    model = make_vit()
    tuning = adalora(model)
    take_step(model, tuning, 0, 100)
    before = state_of(model)
    for weight in tuning.parameters().values():
        weight.grad = torch.full_like(weight, math.inf)
    tuning.after_update(1, 100)
    for _, _, delta in tuning.deltas():
        assert delta.importance().isfinite().all()
    after = model.state_dict()
    key = "blocks.0.mlp.fc1.lora.fc1.sensitivity_q"
    torch.testing.assert_close(after[key], before[key])


# ------------------------------------------------------------------------------------------ prefix


def explicit_attention(attention, x, *, compensate):
    """The prefix in LAE's words: weights over [prefix, tokens], the prefix's made to sum to 1."""
    B, N, _ = x.shape
    heads, dim = attention.num_heads, attention.head_dim
    q, k, v = attention.qkv(x).reshape(B, N, 3, heads, dim).permute(2, 0, 3, 1, 4)
    prefix_k, prefix_v = (
        (weight * (1 if scale is None else scale)).reshape(-1, heads, dim).transpose(0, 1)
        for weight, scale in (
            (attention.prefix.k, attention.prefix.scale_k),
            (attention.prefix.v, attention.prefix.scale_v),
        )
    )
    P = prefix_k.shape[1]
    q, k = attention.q_norm(q), attention.k_norm(torch.cat([prefix_k.expand(B, -1, -1, -1), k], 2))
    weights = ((q @ k.transpose(-2, -1)) * attention.scale).softmax(-1)
    if compensate:
        share = weights[..., :P].sum(-1, keepdim=True)
        weights = torch.cat([weights[..., :P] / share, weights[..., P:]], dim=-1)
    x_out = weights @ torch.cat([prefix_v.expand(B, -1, -1, -1), v], 2)
    out = attention.norm(x_out.transpose(1, 2).reshape(B, N, -1))
    gate = getattr(attention, "gate", None)
    if gate is not None:
        out = out * gate(x).sigmoid()
    return attention.proj(out)


@pytest.mark.parametrize("compensate", [True, False])
@pytest.mark.parametrize("kwargs", [{}, {"qk_norm": True, "scale_attn_norm": True}])
def test_prefixes_attend_as_written_out(compensate, kwargs):
    model = make_vit(**kwargs).double()
    tuning = make_tuning(
        TuningConfig(method="prefix", length=3, compensate=compensate, learn_scale=True)
    )
    tuning.attach(model)
    stir(tuning)
    attention, x = model.blocks[0].attn, torch.randn(2, 7, 24, dtype=torch.float64)
    expected = explicit_attention(attention, x, compensate=compensate)
    torch.testing.assert_close(attention(x), expected, rtol=0, atol=1e-12)


def test_compensation_is_the_identity_of_two_softmaxes():
    model = make_vit().double()
    tuning = attached("prefix", model)
    stir(tuning)
    attention, x = model.blocks[0].attn, torch.randn(2, 7, 24, dtype=torch.float64)
    q, k, v = attention.qkv(x).reshape(2, 7, 3, 3, 8).permute(2, 0, 3, 1, 4)
    pk, pv = (
        one.reshape(3, 3, 8).transpose(0, 1) for one in (attention.prefix.k, attention.prefix.v)
    )
    own, rest = ((q @ one.transpose(-2, -1)) * 8**-0.5 for one in (pk, k))
    gate = torch.sigmoid(rest.logsumexp(-1, True) - own.logsumexp(-1, True))
    out = own.softmax(-1) @ pv + gate * (rest.softmax(-1) @ v)
    expected = attention.proj(out.transpose(1, 2).reshape(2, 7, 24))
    torch.testing.assert_close(attention(x), expected, rtol=0, atol=1e-12)


def test_prefixes_are_seen_through_masks():
    model = make_vit().double()
    attached("prefix-plain", model)
    attention, x = model.blocks[0].attn, torch.randn(2, 7, 24, dtype=torch.float64)
    seen = torch.ones(7, 7, dtype=torch.bool).tril()
    causal = attention(x, is_causal=True)
    torch.testing.assert_close(attention(x, attn_mask=seen), causal)
    added = torch.zeros(7, 7, dtype=torch.float64).masked_fill(~seen, -math.inf)
    torch.testing.assert_close(attention(x, attn_mask=added), causal)
    first = torch.cat([x[:, :1], torch.randn_like(x[:, 1:])], dim=1)
    torch.testing.assert_close(attention(first, is_causal=True)[:, 0], causal[:, 0])


# ------------------------------------------------------------------------ adapters, weighted sums


def test_adapters_compute_what_they_say():
    model, x = make_vit().double(), torch.randn(2, 7, 24, dtype=torch.float64)
    plain = [(block.attn(x), block.mlp(x)) for block in model.blocks]
    for name in ("adapter-scale", "houlsby", "adapterbias", "adapterbias-hidden"):
        tuning = attached(name, model)
        stir(tuning)
        block, (attended, mixed) = model.blocks[1], plain[1]
        if name == "adapter-scale":
            one = block.attn.adapter
            expected = attended + one.scale * one.up(F.gelu(one.down(x)))
            torch.testing.assert_close(block.attn(x), expected)
        if name == "houlsby":
            one = block.mlp.houlsby
            torch.testing.assert_close(block.mlp(x), mixed + one.up(F.gelu(one.down(mixed))))
        if name == "adapterbias":
            one = block.mlp.adapterbias
            torch.testing.assert_close(block.mlp(x), mixed + one.alpha(mixed) * one.vector)
        if name == "adapterbias-hidden":
            one, hidden = block.mlp.fc2.adapterbias, block.mlp.act(block.mlp.fc1(x))
            torch.testing.assert_close(block.mlp(x), mixed + one.alpha(hidden) * one.vector)
        tuning.detach()


def test_a_weighted_sum_can_be_each_layer_and_starts_as_the_mean():
    model = make_vit(depth=3)
    states = [torch.randn(2, 7, 24)]
    for block in model.blocks:
        states.append(block(states[-1]))
    attached("weighted-sum", model)
    torch.testing.assert_close(model.blocks(states[0]), torch.stack(states).mean(0))
    for number, state in enumerate(states):
        with torch.no_grad():
            model.blocks.layer_weights.copy_(torch.eye(4)[number] * 200)
        torch.testing.assert_close(model.blocks(states[0]), state, rtol=0, atol=1e-6)
    assert len(model.blocks) == 3


# -------------------------------------------------------------------------------- other backbones


@pytest.mark.parametrize(
    ("name", "blocks"),
    [("resnet18", 5), ("convnext_atto", 12), ("regnety_002", 9), ("efficientnet_b0", 9)],
)
def test_adapters_go_beside_whole_blocks_of_convolutions(name, blocks):
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=3).eval()
    x = torch.randn(2, 3, 64, 64)
    shapes = {}
    before = model(x)
    tuning = make_tuning(TuningConfig(method="adapter", hidden_dim=2))
    tuning.attach(model)
    owners = {key.partition(".adapter.")[0] for key in tuning.parameters()}
    assert len(owners) == blocks
    for owner in owners:
        model.get_submodule(owner).register_forward_hook(
            lambda module, args, output, owner=owner: shapes.update(
                {owner: (args[0].shape, output.shape)}
            )
        )
    assert torch.equal(model(x), before)
    assert all(left == right for left, right in shapes.values())
    assert len(shapes) == blocks


def test_frozen_networks_of_convolutions_keep_their_statistics():
    torch.manual_seed(0)
    model = timm.create_model("resnet10t", num_classes=4).train()
    before = state_of(model)
    for name in ("adapter", "bitfit", "linear"):
        tuning = make_tuning(TuningConfig(method=name, hidden_dim=2))
        tuning.attach(model)
        model.train()
        model(torch.randn(4, 3, 32, 32)).sum().backward()
        buffers = {key: one for key, one in model.named_buffers() if "adapter" not in key}
        same_states(buffers, {key: before[key] for key in buffers})
        tuning.detach()
        assert all(one.training for one in model.modules())
    make_tuning(TuningConfig(method="full")).attach(model)
    model(torch.randn(4, 3, 32, 32))
    assert not torch.equal(model.bn1.running_mean, before["bn1.running_mean"])


def test_networks_whose_blocks_all_change_shape_take_no_adapter():
    """Over grids of 8×8 the first stages give way to the stem; the others have a block each."""
    sizes = {"channels": 6, "input_size": (8, 8), "num_classes": 3}
    shallow, deep = (build_backbone(name, **sizes) for name in ("resnet10t", "resnet18"))
    with pytest.raises(UsageError, match=r"ResNet has neither .* block that keeps .* resnet18, or"):
        attached("adapter", shallow)
    assert attached("adapter", deep).parameters()


def test_full_tuning_keeps_the_statistics_of_norms_with_the_weights(tmp_path):
    torch.manual_seed(0)
    model = timm.create_model("resnet10t", num_classes=4).eval()
    fresh, before, x = copy.deepcopy(model), state_of(model), torch.randn(4, 3, 32, 32)
    tuning = attached("full", model)
    model.train()(x)  # statistics move, weights do not
    model.eval()
    twin = copy.deepcopy(model)
    other = tuning.bind(twin)
    logits, path = model(x), tmp_path / "adapter.safetensors"
    save_adapter(path, twin, other)
    again = load_adapter(path, fresh)
    assert torch.equal(fresh(x), logits)
    assert not torch.equal(fresh.bn1.running_mean, before["bn1.running_mean"])
    for one in (tuning, other, again):
        own = one.model
        one.detach()
        same_states(own.state_dict(), before)


def test_norms_of_a_variance_alone_are_frozen_too():
    model = nn.Sequential(EvoNorm2dB0(3), nn.Flatten(), nn.Linear(12, 2))
    model.get_classifier = lambda: model[2]
    before = state_of(model)
    make_tuning(TuningConfig(method="linear")).attach(model)
    model.train()(torch.randn(4, 3, 2, 2))
    same_states(model.state_dict(), before)


def test_swin_takes_adapters_and_lora_flattened_over_stages():
    torch.manual_seed(0)
    model = timm.create_model(
        "swin_tiny_patch4_window7_224", img_size=56, embed_dim=12, depths=(2, 2), num_heads=(2, 2)
    )
    model.eval()
    x = torch.randn(1, 3, 56, 56)
    before = model(x)
    for config in (TuningConfig(method="adapter", num_blocks=3), CONFIGS["lora"]):
        tuning = make_tuning(config)
        tuning.attach(model)
        assert torch.equal(model(x), before)
        stir(tuning)
        assert not torch.equal(model(x), before)
        tuning.detach()
    with pytest.raises(UsageError, match="has 4 blocks"):
        make_tuning(TuningConfig(method="houlsby", num_blocks=5)).attach(model)


@pytest.mark.parametrize(
    ("backbone", "config"),
    [
        ("resnet10t", "lora"),
        ("resnet10t", "weighted-sum"),
        ("resnet10t", "houlsby"),
        ("eva02_tiny_patch14_224", "lora"),
        ("eva02_tiny_patch14_224", "prefix"),
        ("swin_tiny_patch4_window7_224", "prefix"),
        ("swin_tiny_patch4_window7_224", "weighted-sum"),
    ],
)
def test_models_that_a_method_does_not_fit_are_refused_and_left_alone(backbone, config):
    with torch.device("meta"):
        model = timm.create_model(backbone)
    keys = list(model.state_dict())
    with pytest.raises(UsageError, match="choose"):
        attached(config, model)
    assert list(model.state_dict()) == keys
    assert all(one.requires_grad for one in model.parameters())
    make_tuning(CONFIGS["linear"]).attach(model)


@pytest.mark.parametrize(
    "settings",
    [
        {"method": "dora"},
        {"rank": 0},
        {"targets": ()},
        {"targets": ("q", "q")},
        {"targets": ("q", "qkv")},
        {"targets": ("o",)},
        {"alpha": 0.0},
        {"alpha": math.nan},
        {"rank": 8, "initial_rank": 4},
        {"rank": 8, "initial_rank": 8000},
        {"warmup_share": 0.6, "final_share": 0.6},
        {"beta1": 1.0},
        {"mask_every": 0},
        {"hidden_dim": 0},
        {"length": 0},
        {"num_blocks": 0},
        {"orthogonality": -1.0},
        {"adapterbias_input": "input"},
    ],
)
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(UsageError, match=r"^tuning\.\w+"):
        TuningConfig(**settings)


# ------------------------------------------------------------------------------------------- files


@every
def test_an_adapter_file_brings_a_fresh_backbone_to_the_same_logits(name, tmp_path):
    model, x = make_vit(), inputs()
    tuning = attached(name, model)
    stir(tuning)
    nn.init.normal_(model.head.weight)
    path = tmp_path / "adapter.safetensors"
    save_adapter(path, model, tuning)
    other = make_vit()
    again = load_adapter(path, other)
    assert torch.equal(other(x), model(x))
    assert again.config == tuning.config
    if name != "full":
        assert path.stat().st_size < 40_000
    with pytest.raises(UsageError, match="another backbone"):
        load_adapter(path, make_vit(seed=7))
    with pytest.raises(UsageError, match="as many classes"):
        load_adapter(path, with_classes(make_vit(), 9))
    again.detach()
    same_states(
        {k: v for k, v in other.state_dict().items() if not is_of_head(other, k)},
        {k: v for k, v in make_vit().state_dict().items() if not is_of_head(other, k)},
    )


def with_classes(model, number):
    model.reset_classifier(number)
    return model


def test_a_fingerprint_is_of_the_backbone_alone():
    model = make_vit()
    before = base_fingerprint(model)
    nn.init.normal_(model.head.weight)
    assert base_fingerprint(model) == before
    with torch.no_grad():
        model.blocks[0].attn.qkv.bias[0] += 1e-3
    assert base_fingerprint(model) != before


def test_damaged_adapters_are_told(tmp_path):
    model = make_vit()
    path = tmp_path / "adapter.safetensors"
    save_adapter(path, model, attached("prefix", model))
    whole, tensors = path.read_bytes(), load_file(path)
    with safe_open(path, framework="pt") as file:
        card = json.loads(file.metadata()["seit"])
    with pytest.raises(UsageError, match="no adapter at"):
        load_adapter(tmp_path / "none.safetensors", make_vit())
    for cut in range(0, len(whole), 97):
        path.write_bytes(whole[:cut])
        with pytest.raises(DamagedError):
            load_adapter(path, make_vit())
    fewer = dict(list(tensors.items())[:-1])
    for data, told in (
        (tensors, None),
        (tensors, "[]"),
        (tensors, "{}"),
        (tensors, json.dumps({**card, "config": 3})),
        (tensors, json.dumps({**card, "config": {"method": "dora"}})),
        (tensors, json.dumps({**card, "config": {**card["config"], "length": 1 << 40}})),
        (tensors, json.dumps({**card, "config": {**card["config"], "length": 4}})),
        (fewer, json.dumps(card)),
    ):
        save_file(data, path, None if told is None else {"seit": told})
        fresh = make_vit()
        with pytest.raises(DamagedError, match="damaged"):
            load_adapter(path, fresh)
        same_states(fresh.state_dict(), make_vit().state_dict())


def test_every_method_is_tested():
    assert {config.method for config in CONFIGS.values()} == set(METHODS) == set(TUNINGS)
