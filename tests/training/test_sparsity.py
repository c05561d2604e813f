"""Static sparseness: exact counts, zeros that stay, masks that follow from seed and name."""

import hashlib

import pytest
import timm
import torch
from timm.optim import Muon
from timm.utils import ModelEmaV3
from torch import nn

from seit.errors import UsageError
from seit.training.config import OptimConfig
from seit.training.flops import count_flops
from seit.training.optimizer import make_optimizer
from seit.training.sparsity import Sparsity, SparsityConfig, draw_mask, masked_weights

SMALL = {"img_size": 16, "patch_size": 4, "embed_dim": 32, "depth": 2, "num_heads": 2}
FC1 = "blocks.0.mlp.fc1.weight"


def make_vit(seed=0, name="vit_tiny_patch16_224", **settings):
    torch.manual_seed(seed)
    return timm.create_model(name, num_classes=5, **{**SMALL, **settings})


class Wrapped(nn.Module):
    """A ViT with what objectives have beside it."""

    def __init__(self, vit):
        super().__init__()
        self.encoder = vit
        self.decoder = nn.ModuleDict({"blocks": make_vit().blocks})
        self.teacher = nn.ModuleDict({"encoder": make_vit()})


def optimizer_of(model, name="adamw"):
    config = OptimConfig(name=name, lr=1e-2, weight_decay=0.1)
    return make_optimizer(model, config, torch.device("cpu"))


def masks_of(vit, config, seed):
    return {
        name: draw_mask(tuple(weight.shape), config, seed=seed, layer=name)
        for name, weight in masked_weights(vit).items()
    }


def steps(model, optimizer, sparsity=None, *, count=5, average=None):
    generator = torch.Generator().manual_seed(1)
    for number in range(count):
        model(torch.randn(4, 3, 16, 16, generator=generator)).square().mean().backward()
        if sparsity:
            sparsity.mask_gradients_()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if sparsity:
            sparsity.apply_()
        if average:
            average.update(model, step=number)


@pytest.mark.parametrize("share", [0.5, 0.75, 0.9, 1 / 3, 0.9999])
def test_each_matrix_keeps_an_exact_count_and_all_else_is_dense(share):
    vit = make_vit()
    before = {name: value.clone() for name, value in vit.state_dict().items()}
    sparsity = Sparsity(vit, SparsityConfig(share=share), seed=0)
    sparsity.apply_()
    layers = ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
    assert set(sparsity.kept) == {f"blocks.{n}.{layer}.weight" for n in (0, 1) for layer in layers}
    for name, value in vit.state_dict().items():
        if name in sparsity.kept:
            assert sparsity.kept[name] == round((1 - share) * value.numel())
            assert int(value.count_nonzero()) == sparsity.kept[name]
            assert torch.equal(value[value != 0], before[name][value != 0])
        else:
            assert torch.equal(value, before[name]), name


@pytest.mark.parametrize("name", ["adamw", "lamb", "muon"])
def test_zeros_stay_through_steps_decay_clipping_and_average(name):
    vit = make_vit()
    average = ModelEmaV3(vit, decay=0.9)  # made dense, as where its weights are loaded
    sparsity = Sparsity(vit, SparsityConfig(share=0.75), seed=3)
    sparsity.apply_()
    sparsity.apply_to_(average.module)
    optimizer = optimizer_of(vit, name)
    steps(vit, optimizer, sparsity, average=average)
    masks = masks_of(vit, sparsity.config, seed=3)
    for model in (vit, average.module):
        for key, weight in masked_weights(model).items():
            assert not weight[~masks[key]].any(), "exactly zero"
            assert (weight[masks[key]] != 0).all()
    for key, weight in masked_weights(vit).items():
        moments = [
            value
            for value in optimizer.state[weight].values()
            if torch.is_tensor(value) and value.shape == weight.shape
        ]
        assert len(moments) == (1 if name == "muon" else 2)
        for moment in moments:
            assert not moment[~masks[key]].any(), key
            assert (moment[masks[key]] != 0).float().mean() > 0.99


def test_muon_moves_masked_weights_and_they_are_put_back():
    vit = make_vit()
    sparsity = Sparsity(vit, SparsityConfig(share=0.75), seed=3)
    sparsity.apply_()
    optimizer = optimizer_of(vit, "muon")
    assert isinstance(optimizer, Muon)
    vit(torch.randn(4, 3, 16, 16)).square().mean().backward()
    sparsity.mask_gradients_()
    optimizer.step()
    hole = ~masks_of(vit, sparsity.config, seed=3)[FC1]
    assert vit.get_parameter(FC1)[hole].any()
    sparsity.apply_()
    assert not vit.get_parameter(FC1)[hole].any()


def test_masked_gradients_are_not_in_the_norm_that_is_clipped():
    vit = make_vit()
    sparsity = Sparsity(vit, SparsityConfig(share=0.5), seed=0)
    vit(torch.randn(4, 3, 16, 16)).square().mean().backward()
    masks = masks_of(vit, sparsity.config, seed=0)
    squares = [
        (parameter.grad * masks.get(name, 1)).double().square().sum()
        for name, parameter in vit.named_parameters()
    ]
    sparsity.mask_gradients_()
    norm = nn.utils.clip_grad_norm_(vit.parameters(), 1.0)
    assert float(norm) == pytest.approx(float(sum(squares)) ** 0.5, rel=1e-5)


def test_weights_that_were_loaded_are_masked_again():
    vit = make_vit()
    sparsity = Sparsity(vit, SparsityConfig(share=0.75), seed=0)
    vit.load_state_dict(make_vit(1).state_dict())
    sparsity.apply_()
    for name, weight in masked_weights(vit).items():
        assert int(weight.count_nonzero()) == sparsity.kept[name]


def test_sparse_weights_load_into_a_dense_vit_and_one_step_fills_their_zeros():
    sparse = make_vit()
    sparsity = Sparsity(sparse, SparsityConfig(share=0.75), seed=0)
    sparsity.apply_()
    steps(sparse, optimizer_of(sparse), sparsity)
    vit = make_vit(1)
    vit.load_state_dict(sparse.state_dict(), strict=True)
    holes = {name: weight == 0 for name, weight in masked_weights(vit).items()}
    steps(vit, optimizer_of(vit), count=1)
    filled = sum(int((vit.get_parameter(name)[hole] != 0).sum()) for name, hole in holes.items())
    assert filled > 0.99 * sum(int(hole.sum()) for hole in holes.values())


# ------------------------------------------------------------------------------------------- masks


def test_masks_follow_from_seed_and_name_alone():
    config = SparsityConfig(share=0.5)
    bare, vit = make_vit(), make_vit(1)
    Sparsity(bare, config, seed=7).apply_()
    torch.manual_seed(99)
    before = torch.get_rng_state()
    model = Wrapped(vit)
    torch.set_rng_state(before)
    wrapped = Sparsity(model, SparsityConfig(share=0.5, seed=7), seed=1)
    assert torch.equal(torch.get_rng_state(), before)
    wrapped.apply_()
    assert set(wrapped.kept) == {f"encoder.{name}" for name in masked_weights(bare)}
    other = masks_of(vit, config, seed=8)
    for name, weight in masked_weights(bare).items():
        assert torch.equal(weight != 0, vit.get_parameter(name) != 0)
        assert not torch.equal(weight != 0, other[name])
    assert not torch.equal(other[FC1], other[FC1.replace("0", "1")]), "each layer has its own"
    for beside in (model.decoder, model.teacher):
        assert all(value.all() for name, value in beside.named_parameters() if "fc1.w" in name)
    wrapped.apply_to_(model.teacher)
    assert torch.equal(
        model.teacher["encoder"].get_parameter(FC1) != 0, vit.get_parameter(FC1) != 0
    )


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"share": 0.75}, "eebde838b3afe06d"),
        ({"share": 0.5, "pattern": "2:4"}, "0c9f65f0a0844dfd"),
    ],
)
def test_masks_are_the_same_for_ever(settings, expected):
    mask = draw_mask((96, 32), SparsityConfig(**settings), seed=5, layer=FC1)
    assert hashlib.sha256(mask.numpy().tobytes()).hexdigest()[:16] == expected


def test_every_entry_is_kept_as_often_as_any_other():
    config, seeds = SparsityConfig(share=0.75), 2000
    counts = sum(draw_mask((8, 16), config, seed=seed, layer=FC1).int() for seed in range(seeds))
    expected, deviation = seeds * 0.25, (seeds * 0.25 * 0.75) ** 0.5
    assert ((counts - expected).abs() < 5 * deviation).all()
    chi_square = ((counts - expected) ** 2 / deviation**2).sum()
    assert 70 < float(chi_square) < 200, "127 on average, with a deviation of 16"


def test_two_of_four():
    config = SparsityConfig(share=0.5, pattern="2:4")
    mask = draw_mask((24, 32), config, seed=0, layer=FC1)
    assert (mask.view(24, 8, 4).sum(2) == 2).all()
    assert len({tuple(group) for group in mask.view(-1, 4).tolist()}) == 6, "all patterns occur"
    with pytest.raises(UsageError, match="multiple of four"):
        draw_mask((24, 30), config, seed=0, layer=FC1)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"share": 1.0}, "below 1"),
        ({"share": -0.1}, "below 1"),
        ({"share": float("nan")}, "below 1"),
        ({"share": 0.75, "pattern": "2:4"}, r"set it to 0\.5"),
        ({"pattern": "2:4"}, r"set it to 0\.5"),
        ({"share": 0.5, "pattern": "4:8"}, r"sparsity\.pattern"),
        ({"share": 0.5, "seed": -1}, r"sparsity\.seed"),
    ],
)
def test_settings_that_cannot_be(settings, words):
    with pytest.raises(UsageError, match=words):
        SparsityConfig(**settings)


@pytest.mark.parametrize("name", ["resnet10t", "swin_tiny_patch4_window7_224"])
def test_a_network_without_blocks_is_refused(name):
    with torch.device("meta"):
        model = timm.create_model(name)
    with pytest.raises(UsageError, match="no blocks"):
        Sparsity(model, SparsityConfig(share=0.5), seed=0)


# ------------------------------------------------------------------------------------------- FLOPs


def closed_form(vit):
    """Forward FLOPs of a ViT: 2 a multiply-add of linears, attention, patch embedding and head."""
    patches = vit.patch_embed.num_patches
    n = patches + vit.num_prefix_tokens
    modules = list(vit.blocks.modules())
    linears = 2 * n * sum(one.weight.numel() for one in modules if isinstance(one, nn.Linear))
    heads = [one for one in modules if hasattr(one, "head_dim")]
    attention = 4 * n * n * sum(one.num_heads * one.head_dim for one in heads)
    head = 2 * vit.head.weight.numel() if isinstance(vit.head, nn.Linear) else 0
    return linears + attention + 2 * patches * vit.patch_embed.proj.weight.numel() + head


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"num_classes": 0, "reg_tokens": 4},
        {"class_token": False, "global_pool": "avg"},
        {"name": "vit_small_patch14_reg4_dinov2", "mlp_ratio": 2},
        {"name": "vit_giant_patch14_dinov2"},
    ],
)
def test_flops_of_a_vit_are_those_of_the_closed_form(settings):
    settings = dict(settings)
    classes = settings.pop("num_classes", 5)
    vit = make_vit(**settings)
    vit.reset_classifier(classes)
    assert count_flops(vit, (3, 16, 16)).forward == closed_form(vit)
    assert vit.training, "the model stays as it was"


def test_flops_of_a_vit_b_and_what_sparseness_saves_in_theory():
    with torch.device("meta"):
        vit = timm.create_model("vit_base_patch16_224")
    flops = count_flops(vit, (3, 224, 224))
    assert flops.forward / 2e9 == pytest.approx(17.56, abs=0.01), "GMACs at 224 px"
    assert flops.training == 3 * flops.forward
    layers = [name.removesuffix(".weight") for name in masked_weights(vit)]
    blocks = flops.by_module["blocks"]
    linears = sum(flops.by_module[name] for name in layers)
    assert linears / blocks == pytest.approx(0.959, abs=5e-4)
    assert flops.sparse_forward(dict.fromkeys(layers, 1.0)) == flops.forward
    for share, saving in ((0.5, 1.92), (0.75, 3.56)):
        sparse = flops.sparse_forward(dict.fromkeys(layers, 1 - share))
        left = blocks - (flops.forward - sparse)
        assert blocks / left == pytest.approx(saving, abs=0.005)


def test_flops_of_a_cnn_are_those_of_its_convolutions():
    model = timm.create_model("resnet10t", num_classes=5)
    sizes = {}
    handles = [
        module.register_forward_hook(
            lambda layer, _, out, name=name: sizes.update(
                {name: out[0].numel() * layer.weight[0].numel()}
            )
        )
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv2d | nn.Linear)
    ]
    with torch.no_grad():
        model.eval()(torch.zeros(1, 3, 32, 32))
    for handle in handles:
        handle.remove()
    flops = count_flops(model, (3, 32, 32))
    assert flops.forward == 2 * sum(sizes.values())
    assert flops.by_module["conv1.0"] == 2 * sizes["conv1.0"]


def test_what_a_run_notes_down():
    told = Sparsity(Wrapped(make_vit()), SparsityConfig(share=0.75), seed=4).describe()
    assert (told["share"], told["pattern"], told["seed"]) == (0.75, "unstructured", 4)
    assert told["weights"] == 2 * 12 * 32 * 32
    assert told["kept"] == told["weights"] // 4 == sum(told["kept_by_layer"].values())
    flops = told["theoretical_flops"]
    assert flops["forward"] - flops["sparse_forward"] == 2 * 17 * told["weights"] * 3 // 4
    assert flops["training"] == 3 * flops["forward"]
    pooled = make_vit(name="vit_base_patch16_siglip_224")
    flops = Sparsity(pooled, SparsityConfig(share=0.5), seed=0).describe()["theoretical_flops"]
    assert 0 < flops["sparse_forward"] < flops["forward"], "attention pooling is counted too"
