import pytest
import timm
import torch
from stores import build_store

import seit
from seit.errors import UsageError
from seit.models import Stem, build_backbone, count_parameters, load_weights

SMALL = {"embed_dim": 48, "depth": 2, "num_heads": 3}
NAMES = ["vit_tiny_patch16_224", "deit_tiny_patch16_224", "deit_tiny_distilled_patch16_224"]
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


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet18", "only ViT and DeiT"),
        ("swin_tiny_patch4_window7_224", "SwinTransformer; only ViT"),
        ("mixer_s32_224", "only ViT and DeiT"),
        ("visformer_tiny", "only ViT and DeiT"),
        ("vit_tiny_r_s16_p8_224", "embeds patches by a HybridEmbed"),
        (
            "vit_tiny_patch16_225",
            "has no model 'vit_tiny_patch16_225'; near names: vit_tiny_patch16",
        ),
        ("", "has no model ''"),
    ],
)
def test_other_models_are_refused_by_name(store, name, message):
    with pytest.raises(UsageError, match=message):
        seit.create_model(name, store)


@pytest.mark.parametrize(
    "arguments", [{"no_such": 1}, {"img_size": 224}, {"embed_dim": 50, "num_heads": 3}]
)
def test_arguments_that_do_not_fit_are_a_usage_error(store, arguments):
    with pytest.raises(UsageError, match="timm could not build"):
        seit.create_model(NAMES[0], store, depth=1, **arguments)


@pytest.mark.parametrize(
    "stem",
    ["", "4", "4/2", "4/2/1/0", "a/b/c", "4/-2/1", "4/0/1", "0/0/0", "2/4/0", "4/2/2", "100/1/0",
     "4/2/1\n", " 4/2/1", "4.0/2/1"],
)  # fmt: skip
def test_bad_stems_are_named(store, stem):
    with pytest.raises(UsageError, match="expected kernel/stride/padding"):
        seit.create_model(NAMES[0], store, stem=stem)


def test_a_grid_smaller_than_the_kernel_is_named(store):
    with pytest.raises(UsageError, match="28×28 is too small for the stem 40/1/0"):
        seit.create_model(NAMES[0], store, stem="40/1/0")


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
    with pytest.raises(UsageError, match=r"weights of run 7 do not fit this model: .*blocks\.2"):
        load_weights(model, other.state_dict(), origin="run 7")
