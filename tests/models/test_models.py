from copy import deepcopy
from functools import cache
from itertools import product

import pytest
import timm
import torch
from support.stores import build_store

import seit
from seit.errors import UsageError
from seit.models import (
    Stem,
    build_backbone,
    count_parameters,
    load_weights,
    takes_patches,
    vit_stem,
)
from seit.models.pyramid import pixels_per_token

SMALL = {"embed_dim": 48, "depth": 2, "num_heads": 3}
NAMES = ["vit_tiny_patch16_224", "deit_tiny_patch16_224", "deit_tiny_distilled_patch16_224"]
VIT_KIN = {
    "deit3_small_patch16_224": {"embed_dim": 48, "depth": 1, "num_heads": 3},
    "vit_wee_patch16_reg1_gap_256": {"embed_dim": 48, "depth": 1, "num_heads": 3},
    "beit_base_patch16_224": {"embed_dim": 48, "depth": 1, "num_heads": 3},
    "eva02_tiny_patch14_224": {"embed_dim": 48, "depth": 1, "num_heads": 3},
    "cait_xxs24_224": {"embed_dim": 48, "depth": 1, "num_heads": 3},
}
PYRAMIDS = {
    "resnet10t": {},
    "convnextv2_atto": {"dims": (8, 16, 24, 32), "depths": (1, 1, 1, 1)},
    "regnety_002": {"depth": 6, "w0": 16, "wa": 16.0, "wm": 2.0, "group_size": 8},
    "test_efficientnet": {},
    "swin_tiny_patch4_window7_224": {
        "embed_dim": 12,
        "depths": (1, 1, 2, 1),
        "num_heads": (1, 2, 3, 4),
    },
}
FIRST_STAGES = {
    "resnet10t": ("layer1", "layer2"),
    "convnextv2_atto": ("stages.0", "stages.1"),
    "regnety_002": ("s1", "s2"),
    "test_efficientnet": ("blocks.0", "blocks.2"),
    "swin_tiny_patch4_window7_224": ("layers.0", "layers.1"),
}
ADAPTORS = {
    "resnet10t": "conv1.6",
    "convnextv2_atto": "stem.0",
    "regnety_002": "stem.conv",
    "test_efficientnet": "conv_stem",
    "swin_tiny_patch4_window7_224": "patch_embed.proj",
}
UP = {name: (8, 8) if name in ("regnety_002", "test_efficientnet") else (4, 4) for name in PYRAMIDS}
ENTRIES = list(product(PYRAMIDS, ["up", "later"]))
STEMS = {"4/2/1": (14, 14), "2/2/0": (14, 14), "4/4/0": (7, 7), "3/1/1": (28, 28)}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    path = tmp_path_factory.mktemp("store")
    build_store(path, grid=(32, 32), num_codes=32, dim=6, shards={"train": (4,)})
    return seit.open(path)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("stem", STEMS)
def test_only_the_stem_differs_from_timm(store, name, stem):
    model = seit.create_model(name, store, stem=stem, **SMALL)
    pooling = "token" if "distilled" in name else "avg"
    plain = timm.create_model(name, num_classes=3, global_pool=pooling, **SMALL)
    ours, theirs = model.state_dict(), plain.state_dict()
    assert list(ours) == list(theirs)
    kernel, rows = int(stem[0]), STEMS[stem][0]
    changed = {"patch_embed.proj.weight": (48, 6, kernel, kernel), "pos_embed": (1, None, 48)}
    for key, tensor in ours.items():
        if key not in changed:
            assert tensor.shape == theirs[key].shape
    assert ours["patch_embed.proj.weight"].shape == changed["patch_embed.proj.weight"]
    assert ours["pos_embed"].shape[1] == rows**2 + model.num_prefix_tokens


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("stem", STEMS)
def test_it_maps_embedded_tokens_to_logits_and_back(store, name, stem):
    model = seit.create_model(name, store, stem=stem, **SMALL)
    tokens = torch.randn(2, 6, 28, 28, requires_grad=True)
    features = model.patch_embed(tokens)
    assert features.shape == (2, STEMS[stem][0] * STEMS[stem][1], 48)
    logits = model(tokens)
    assert logits.shape == (2, 3)
    torch.nn.functional.cross_entropy(logits, torch.tensor([0, 2])).backward()
    assert tokens.grad.shape == tokens.shape
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key


def convolved(x, weight, bias, stride, padding):
    """The convolution of x (C, h, w) by its definition, float64."""
    channels, height, width = x.shape
    kernel = weight.shape[-1]
    padded = torch.zeros(channels, height + 2 * padding, width + 2 * padding, dtype=torch.float64)
    padded[:, padding : padding + height, padding : padding + width] = x
    rows = (height + 2 * padding - kernel) // stride + 1
    columns = (width + 2 * padding - kernel) // stride + 1
    out = torch.empty(len(weight), rows, columns, dtype=torch.float64)
    for i in range(rows):
        for j in range(columns):
            top, left = i * stride, j * stride
            patch = padded[:, top : top + kernel, left : left + kernel]
            out[:, i, j] = (weight * patch).sum((1, 2, 3)) + bias
    return out


@pytest.mark.parametrize("stem", STEMS)
def test_the_stem_is_a_convolution_over_the_grid(store, stem):
    model = seit.create_model(NAMES[0], store, stem=stem, **SMALL).double()
    torch.nn.init.normal_(model.patch_embed.proj.bias)
    tokens = torch.randn(1, 6, 28, 28, dtype=torch.float64)
    projection = model.patch_embed.proj
    _, stride, padding = map(int, stem.split("/"))
    expected = convolved(tokens[0], projection.weight, projection.bias, stride, padding)
    found = model.patch_embed(tokens)[0].T.reshape(expected.shape)
    torch.testing.assert_close(found, expected)


def test_the_rest_of_the_network_is_timms(store):
    """With the weights of a plain model, features behind the stem give the plain model's logits."""
    model = seit.create_model(NAMES[0], store, stem="2/2/0", **SMALL).eval()
    plain = timm.create_model(
        NAMES[0], num_classes=3, global_pool="avg", img_size=224, patch_size=16, **SMALL
    ).eval()
    weights = {k: v for k, v in plain.state_dict().items() if "patch_embed" not in k}
    model.load_state_dict(weights, strict=False)
    features = torch.randn(2, 196, 48)
    model.patch_embed = plain.patch_embed = torch.nn.Identity()
    torch.testing.assert_close(model(features), plain(features))


def test_the_input_is_seven_eighths_of_the_grid(tmp_path):
    build_store(tmp_path, grid=(16, 24), shards={"train": (1,)})
    model = seit.create_model(NAMES[0], seit.open(tmp_path), stem="2/2/0", **SMALL)
    assert model(torch.randn(1, 4, 14, 21)).shape == (1, 3)
    with pytest.raises(AssertionError):
        model(torch.randn(1, 4, 16, 24))


def test_the_default_is_the_papers_stem(store):
    model = seit.create_model(NAMES[0], store, **SMALL)
    projection = model.patch_embed.proj
    assert (projection.kernel_size, projection.stride, projection.padding) == (
        (4, 4),
        (2, 2),
        (1, 1),
    )
    assert projection.weight.std().item() == pytest.approx(96**-0.5, rel=0.05)
    assert not projection.bias.any()


def test_arguments_reach_timm(store):
    model = seit.create_model(NAMES[0], store, num_classes=7, global_pool="token", **SMALL)
    assert model.global_pool == "token"
    assert model(torch.randn(1, 6, 28, 28)).shape == (1, 7)
    for parameter in model.blocks.parameters():
        parameter.requires_grad = False
    assert count_parameters(model) == sum(
        parameter.numel() for key, parameter in model.named_parameters() if "blocks" not in key
    )


def test_a_pixel_baseline_is_the_same_network():
    model = build_backbone(
        NAMES[0], channels=3, input_size=(32, 32), stem="16/16/0", num_classes=2, **SMALL
    )
    assert model(torch.randn(1, 3, 32, 32)).shape == (1, 2)


@cache
def built(name, stem, size):
    return build_backbone(
        name, channels=6, input_size=size, stem=stem, num_classes=3, **PYRAMIDS[name]
    )


def pyramid(name, stem, size=(28, 28)):
    return deepcopy(built(name, stem, size))


@cache
def plain_pyramid(name):
    return timm.create_model(name, num_classes=3, **PYRAMIDS[name]).eval()


def last_size(model, size):
    """Rows and columns of the last features, which Swin keeps before the channels."""
    features = model.eval().forward_features(torch.zeros(1, 6, *size))
    return tuple(features.shape[1:3] if features.shape[3] > 16 else features.shape[2:])


def run_backward(model, size):
    torch.manual_seed(0)
    tokens = torch.randn(2, 6, *size, requires_grad=True)
    logits = model(tokens)
    assert logits.shape == (2, 3)
    torch.nn.functional.cross_entropy(logits, torch.tensor([0, 2])).backward()
    assert tokens.grad.any()
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key


@pytest.mark.parametrize(("name", "stem"), ENTRIES)
def test_tokens_enter_a_pyramid(name, stem):
    model = pyramid(name, stem)
    run_backward(model, (28, 28))
    assert last_size(model, (28, 28)) == (7, 7)


@pytest.mark.parametrize("name", PYRAMIDS)
def test_only_the_stem_of_a_pyramid_differs_from_timm(name):
    ours, theirs = shapes(pyramid(name, "up")), shapes(plain_pyramid(name))
    adaptor = ADAPTORS[name]
    assert ours.pop(f"{adaptor}.weight") == (6, theirs.pop(f"{adaptor}.weight")[0], *UP[name])
    assert ours.pop(f"{adaptor}.bias")
    theirs.pop(f"{adaptor}.bias", None)
    deep_stem = {key for key in theirs if key.startswith("conv1.")}
    assert list(ours.items()) == [pair for pair in theirs.items() if pair[0] not in deep_stem]


@pytest.mark.parametrize("name", PYRAMIDS)
def test_later_leaves_the_stages_before_out(name):
    ours, theirs = shapes(pyramid(name, "later")), shapes(plain_pyramid(name))
    first, entry = FIRST_STAGES[name]
    keys = list(theirs)
    begin, enter = (
        next(place for place, key in enumerate(keys) if key.startswith(f"{stage}."))
        for stage in (first, entry)
    )
    left_out = ("stages.1.downsample.", "layers.1.downsample.")
    behind = {key: theirs[key] for key in keys[enter:] if not key.startswith(left_out)}
    stem = {key for key in ours if key not in behind}
    assert stem <= {*keys[:begin], f"{ADAPTORS[name]}.bias"}
    assert [pair for pair in ours.items() if pair[0] not in stem] == list(behind.items())


def shapes(model):
    return {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()}


@pytest.mark.parametrize(("name", "stem"), ENTRIES)
def test_behind_the_entry_a_pyramid_is_timms(name, stem):
    """With a plain model's weights, the same features give the plain model's logits."""
    model = pyramid(name, stem).eval()
    plain = plain_pyramid(name)
    weights = plain.state_dict()
    ours = model.state_dict()
    model.load_state_dict({**ours, **{k: v for k, v in weights.items() if _fits(ours, k, v)}})
    stage = FIRST_STAGES[name][stem == "later"]
    seen = {}

    def note(module, inputs, output):
        seen["input"], seen["output"] = inputs[0], output

    handle = plain.get_submodule(stage).register_forward_hook(note)
    expected = plain(torch.randn(2, 3, 224, 224))
    handle.remove()
    if stem == "up":
        model.get_submodule(stage).register_forward_pre_hook(lambda *_: seen["input"])
    else:
        model.get_submodule(stage).register_forward_hook(lambda *_: seen["output"])
    torch.testing.assert_close(model(torch.zeros(2, 6, 28, 28)), expected)


def _fits(state, key, tensor):
    return key in state and state[key].shape == tensor.shape


@pytest.mark.parametrize(("name", "stem"), ENTRIES)
def test_what_comes_in_has_the_scale_of_normed_features(name, stem):
    """The first stage sees neither vanishing nor exploding features of standard normal tokens."""
    torch.manual_seed(0)
    model = pyramid(name, stem).train()
    seen = []
    stage = model.get_submodule(FIRST_STAGES[name][stem == "later"])
    stage.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    model(torch.randn(4, 6, 28, 28))
    assert 0.3 < seen[0].std() < 1.5


@pytest.mark.parametrize(
    ("name", "stem"), [each for each in ENTRIES if each != ("test_efficientnet", "later")]
)
def test_spectrograms_enter_a_pyramid(name, stem):
    model = pyramid(name, stem, (14, 56))
    model.eval()(torch.randn(1, 6, 14, 56))
    assert last_size(model, (14, 56)) in {(3, 14), (4, 14)}


@pytest.mark.parametrize("name", VIT_KIN)
@pytest.mark.parametrize("size", [(28, 28), (14, 56)])
def test_the_kin_of_vits_take_tokens(name, size):
    model = build_backbone(name, channels=6, input_size=size, num_classes=3, **VIT_KIN[name])
    plain = timm.create_model(name, num_classes=3, global_pool="avg", **VIT_KIN[name]).state_dict()
    ours = model.state_dict()
    assert list(ours) == list(plain)
    different = {key for key in ours if ours[key].shape != plain[key].shape}
    positions = {"pos_embed", *(key for key in ours if "relative_position" in key)}
    assert different <= {"patch_embed.proj.weight", *positions}
    run_backward(model, size)


def test_swin_sees_every_token_of_an_odd_grid():
    """Windows of grids that stages do not divide evenly are padded and masked."""
    model = pyramid("swin_tiny_patch4_window7_224", "up", (14, 35)).eval()
    tokens = torch.randn(1, 6, 14, 35, requires_grad=True)
    model(tokens).sum().backward()
    assert tokens.grad.abs().sum(dim=1).gt(0).all()


@pytest.mark.parametrize(
    ("grid", "pixels"),
    [((28, 28), 8), ((14, 56), 8), ((14, 14), 16), ((56, 56), 4), ((7, 7), 16), ((112, 112), 4)],
)
def test_a_grid_stands_for_a_picture_of_the_usual_size(grid, pixels):
    assert pixels_per_token(grid) == pixels


def test_a_grid_of_fewer_tokens_enters_at_the_same_resolution():
    model = pyramid("resnet10t", "up", (14, 14))
    assert model.conv1[6].stride == (4, 4)
    assert last_size(model, (14, 14)) == (7, 7)
    later = pyramid("resnet10t", "later", (14, 14))
    assert isinstance(later.layer2, torch.nn.Identity)
    assert last_size(later, (14, 14)) == (7, 7)


def test_seeds_give_the_weights_that_they_gave():
    """What is found out about a model before it is built draws no random numbers."""
    arguments = {"num_classes": 3, "in_chans": 6, "global_pool": "avg", **SMALL}
    torch.manual_seed(0)
    plain = timm.create_model(NAMES[0], img_size=14, patch_size=1, **arguments)
    torch.manual_seed(0)
    model = build_backbone(NAMES[0], channels=6, input_size=(28, 28), num_classes=3, **SMALL)
    assert torch.equal(model.blocks[1].attn.qkv.weight, plain.blocks[1].attn.qkv.weight)


@pytest.mark.parametrize("name", ["resnet10t", NAMES[0], "swin_tiny_patch4_window7_224"])
def test_without_a_stem_it_is_timms_model(name):
    sizes = {**PYRAMIDS, NAMES[0]: SMALL}[name]
    torch.manual_seed(0)
    model = build_backbone(
        name, channels=3, input_size=(224, 224), stem="none", num_classes=3, **sizes
    )
    torch.manual_seed(0)
    plain = timm.create_model(name, num_classes=3, **sizes)
    assert list(model.state_dict()) == list(plain.state_dict())
    pixels = torch.randn(1, 3, 224, 224)
    assert torch.equal(model.eval()(pixels), plain.eval()(pixels))


def test_without_a_stem_it_takes_other_sizes():
    for name, sizes in ((NAMES[0], SMALL), ("resnet10t", {})):
        model = build_backbone(
            name, channels=5, input_size=(32, 64), stem="none", num_classes=2, **sizes
        )
        assert model.eval()(torch.zeros(1, 5, 32, 64)).shape == (1, 2)


@pytest.mark.parametrize(
    ("size", "stem"),
    [
        ((28, 28), "4/2/1"),
        ((14, 14), "4/2/1"),
        ((14, 56), "4/2/1"),
        ((13, 14), "3/1/1"),
        ((7, 7), "3/1/1"),
        ((1, 300), "3/1/1"),
    ],
)
def test_auto_fits_small_grids(size, stem):
    assert str(vit_stem("auto", size)) == stem


@pytest.mark.parametrize(
    ("name", "stem", "patches"),
    [
        ("early/4", "3/1/1+3/2/1+2/2/0", 7),
        ("early/2", "3/1/1+3/1/1+2/2/0", 14),
        ("early/1", "3/1/1+3/1/1+1/1/0", 28),
    ],
)
def test_early_convolutions_have_patches_of_tokens(name, stem, patches):
    found = vit_stem(name, (28, 28))
    assert str(found) == stem
    assert found.output_size((28, 28)) == (patches, patches)


def test_vits_are_told_by_their_features():
    assert takes_patches(NAMES[0], **SMALL)
    assert takes_patches("eva02_tiny_patch14_224", **VIT_KIN["eva02_tiny_patch14_224"])
    assert not takes_patches("resnet10t")
    swin = "swin_tiny_patch4_window7_224"
    assert not takes_patches(swin, **PYRAMIDS[swin])


def test_stochastic_depth_is_passed_on():
    model = build_backbone(
        "convnextv2_atto",
        channels=6,
        input_size=(28, 28),
        num_classes=3,
        drop_path_rate=0.3,
        **PYRAMIDS["convnextv2_atto"],
    )
    assert model.stages[3].blocks[0].drop_path.drop_prob == pytest.approx(0.3)


def test_a_pyramid_is_exported():
    model = pyramid("resnet10t", "later").eval()
    tokens = torch.randn(1, 6, 28, 28)
    program = torch.export.export(model, (tokens,), strict=False)
    torch.testing.assert_close(program.module()(tokens), model(tokens))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("vit_tiny_r_s16_p8_224", "embeds patches by a HybridEmbed, which no stem can replace"),
        ("naflexvit_base_patch16_gap", "embeds patches by modules of its own"),
        ("levit_128s", "stages stages.0 … stages.2 .* do not hand on one feature map each"),
        ("vgg11", "the stem of a VGG has no convolution"),
        (
            "vit_tiny_patch16_225",
            "has no model 'vit_tiny_patch16_225'; near names: vit_tiny_patch16",
        ),
        ("", "has no model ''"),
    ],
)
def test_other_models_are_refused_by_name(store, name, message):
    with pytest.raises(UsageError, match=message) as refused:
        seit.create_model(name, store)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        (
            NAMES[0],
            {"no_such": 1},
            "VisionTransformer, which does not take no_such; leave that out",
        ),
        ("resnet10t", SMALL, "take embed_dim, depth, num_heads; leave those out"),
        ("regnety_002", {"embed_dim": 8}, "a RegNet, which does not take embed_dim"),
        ("efficientnet_b0", {"depth_multiplier": 2.0}, "does not take depth_multiplier"),
        ("swin_tiny_patch4_window7_224", {"depth": 1}, "does not take depth"),
        (NAMES[0], {"embed_dim": 50, "num_heads": 3}, "timm could not build"),
        (NAMES[0], {"img_size": 224}, "img_size of .* follow from the input and the stem"),
        ("resnet10t", {"in_chans": 3}, "in_chans of .* follow from the input and the stem"),
        (NAMES[0], {"features_only": True}, "features_only of .* models over tokens return logits"),
    ],
)
def test_arguments_that_do_not_fit_are_a_usage_error(store, name, arguments, message):
    with pytest.raises(UsageError, match=message) as refused:
        seit.create_model(name, store, **arguments)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("name", "stem", "message"),
    [
        ("resnet10t", "4/2/1", "stem is '4/2/1', but 'resnet10t' has stages"),
        ("resnet10t", "", "its stem is auto, up, later or none"),
        (NAMES[0], "early/3", "of this kind there are early/4, early/2, early/1"),
        (NAMES[0], "up", r"a ViT has no stages; its stem is auto, none, early/4, .* or kernel/"),
        ("densenet121", "later", r"\(DenseNet\) does not run on inputs of 28×28"),
    ],
)
def test_stems_of_another_family_are_refused(store, name, stem, message):
    with pytest.raises(UsageError, match=message):
        seit.create_model(name, store, stem=stem)


@pytest.mark.slow
def test_auto_enters_where_a_backbone_runs(store):
    with torch.device("meta"):
        model = seit.create_model("densenet121", store)
        assert model(torch.zeros(2, store.card.tokenizer.codebook_dim, 28, 28)).shape[0] == 2
    assert isinstance(model.features.conv0, torch.nn.ConvTranspose2d)


def test_another_resolution_is_refused(monkeypatch, store):
    """Where a stage cannot be kept from reducing the resolution, it is said and not borne."""
    monkeypatch.setattr(
        seit.models.entry, "_keep_resolution", lambda module, stage: stage.input_dim
    )
    with pytest.raises(UsageError, match=r"its last features are \(512, 4, 4\), not \(7, 7\)"):
        seit.create_model("resnet10t", store, stem="later")


def test_a_backbone_without_a_classifier_is_refused(monkeypatch, store):
    plain = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda *a, **k: plain(*a, **k, features_only=True))
    with pytest.raises(UsageError, match="choose a backbone that is a classifier with one output"):
        seit.create_model("resnet10t", store, stem="none")


@pytest.mark.parametrize(
    "stem",
    ["", "4", "4/2", "4/2/1/0", "a/b/c", "4/-2/1", "4/0/1", "0/0/0", "2/4/0", "4/2/2", "100/1/0",
     "4/2/1\n", " 4/2/1", "4.0/2/1"],
)  # fmt: skip
def test_bad_stems_are_named(store, stem):
    with pytest.raises(UsageError, match="expected kernel/stride/padding"):
        seit.create_model(NAMES[0], store, stem=stem, **SMALL)


def test_a_grid_smaller_than_the_kernel_is_named(store):
    with pytest.raises(UsageError, match="28×28 is too small for the stem 40/1/0"):
        seit.create_model(NAMES[0], store, stem="40/1/0", **SMALL)


@pytest.mark.parametrize("stem", [*STEMS, "1/1/0", "16/16/0", "3/3/1"])
def test_stems_read_as_they_are_written(stem):
    assert str(Stem.parse(stem)) == stem
    parsed = Stem.parse(stem)
    conv = parsed.convolution(2, 5)
    assert conv(torch.zeros(1, 2, 29, 31)).shape == (1, 5, *parsed.output_size((29, 31)))


def test_a_store_without_classes_is_refused(tmp_path):
    build_store(tmp_path, grid=(8, 8), classes=())
    with pytest.raises(UsageError, match="no classes to learn"):
        seit.create_model(NAMES[0], seit.open(tmp_path))


def test_weights_of_another_model_are_refused(store):
    model = seit.create_model(NAMES[0], store, **SMALL)
    other = seit.create_model(NAMES[0], store, **{**SMALL, "depth": 3})
    load_weights(model, model.state_dict(), origin="itself")
    misfit = r"^the weights of run 7 do not fit this model: "
    extra = r"blocks\.2\S+ is not of the model \(\d+ in all\)$"
    with pytest.raises(UsageError, match=misfit + extra):
        load_weights(model, other.state_dict(), origin="run 7")
    weights = {**model.state_dict(), "pos_embed": torch.zeros(1, 2, 3)}
    del weights["head.bias"]
    lacking = r"head\.bias is missing \(1 in all\); pos_embed has shape \(1, 2, 3\), and the"
    with pytest.raises(UsageError, match=misfit + lacking):
        load_weights(model, weights, origin="run 7")


def test_a_stochastic_depth_of_zero_is_no_argument_where_there_is_none():
    sizes = {"channels": 6, "input_size": (28, 28), "num_classes": 2}
    dense = {**sizes, "block_config": (1, 1, 1, 1), "growth_rate": 8}
    name = "swin_tiny_patch4_window7_224"
    with torch.device("meta"):
        build_backbone("densenet121", stem="up", drop_path_rate=0.0, **dense)
        swin = build_backbone(name, drop_path_rate=0.0, **sizes, **PYRAMIDS[name])
    assert not any(getattr(module, "drop_prob", 0) for module in swin.modules())
    with pytest.raises(UsageError, match="does not take drop_path_rate"):
        build_backbone("densenet121", stem="up", drop_path_rate=0.1, **dense)


def test_a_stem_that_leaves_few_patches_is_told(caplog):
    sizes = {"embed_dim": 16, "depth": 1, "num_heads": 2}
    for stem, told in (
        ("4/4/0", "2×2 patches of a grid of 8×8; model.stem auto makes 8×8"),
        ("2/2/0", ""),
    ):
        caplog.clear()
        build_backbone(
            "vit_tiny_patch16_224", channels=4, input_size=(8, 8), stem=stem, num_classes=3, **sizes
        )
        assert told in caplog.text
        assert bool(told) == bool(caplog.text)


def test_early_layers_come_before_the_stem(store):
    """Layers joined by + are convolutions with LayerNorm and GELU; the last one is the stem."""
    model = seit.create_model(NAMES[0], store, stem="3/2/1+3/1/1+2/2/0", **SMALL).double()
    stem = model.patch_embed.proj
    shapes = [one.weight.shape for one in stem if isinstance(one, torch.nn.Conv2d)]
    assert shapes == [(16, 6, 3, 3), (24, 16, 3, 3), (48, 24, 2, 2)]
    x = torch.randn(2, 6, 28, 28, dtype=torch.float64)
    found = model.patch_embed(x)
    assert found.shape == (2, 49, 48)
    for conv, stride in ((stem[0], 2), (stem[3], 1)):
        x = torch.nn.functional.conv2d(x, conv.weight, conv.bias, stride, 1)
        x = torch.nn.functional.layer_norm(x.movedim(1, -1), x.shape[1:2], eps=1e-6)
        x = torch.nn.functional.gelu(x).movedim(-1, 1)
    x = torch.nn.functional.conv2d(x, stem[-1].weight, stem[-1].bias, 2)
    torch.testing.assert_close(found, x.flatten(2).mT)
    assert model(torch.randn(1, 6, 28, 28, dtype=torch.float64)).shape == (1, 3)


@pytest.mark.parametrize("stem", ["4/2/1+", "+4/2/1", "4/5/0+2/2/0", "+".join(["1/1/0"] * 10)])
def test_impossible_layers_are_refused(store, stem):
    with pytest.raises(UsageError, match="expected kernel/stride/padding"):
        seit.create_model(NAMES[0], store, stem=stem, **SMALL)
