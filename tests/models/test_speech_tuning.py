"""Tuning methods on speech models: places, the papers' sizes, and the start as the network."""

import copy

import numpy as np
import pytest
import torch
import transformers
from support.speech import FAMILIES, reference, waves, whisper

from seit.errors import UsageError
from seit.models import METHODS, SpeechClassifier, TuningConfig, load_adapter, make_tuning
from seit.models.tuning import save_adapter
from seit.stream import PADDING, padded
from seit.tokenizers import LAYOUTS, SpeechNetwork

KINDS = [*FAMILIES, "whisper"]
STILL = {"apply_spec_augment": False, "layerdrop": 0.0}
IDENTICAL = ("lora", "adalora", "houlsby", "adapterbias", "bitfit", "linear", "full")


def classifier(kind, **changes):
    model = whisper().model.encoder if kind == "whisper" else reference(kind, **STILL, **changes)
    network = SpeechNetwork(model, LAYOUTS[kind], normalize=True)
    torch.manual_seed(5)
    return SpeechClassifier(network, num_classes=3).eval()


def clips(*lengths):
    draws = np.random.default_rng(0)
    return padded([draws.integers(-9_000, 9_000, n).astype(np.int16) for n in lengths])


def tuned(model, method, **settings):
    torch.manual_seed(0)
    tuning = make_tuning(TuningConfig(method=method, rank=2, hidden_dim=4, length=3, **settings))
    tuning.attach(model)
    return tuning


def stir(tuning):
    torch.manual_seed(1)
    with torch.no_grad():
        for one in tuning.parameters().values():
            one.add_(0.3 * torch.randn_like(one))


@pytest.mark.parametrize("kind", KINDS)
def test_methods_start_as_the_network_and_act_on_it(kind):
    plain, x = classifier(kind), clips(1_600)
    with torch.no_grad():
        expected = plain(x)
        for method in METHODS:
            if method in ("adapter", "linear", "full"):
                continue
            model = copy.deepcopy(plain)
            tuning = tuned(model, method)
            if method in IDENTICAL:
                assert torch.equal(model(x), expected), method
            stir(tuning)
            changed = model(x)
            assert not torch.allclose(changed, expected, atol=1e-4), method
            if tuning.mergeable:
                tuning.merge()
                assert torch.allclose(model(x), changed, atol=1e-5), method
            else:
                tuning.detach()
                assert torch.equal(model(x), expected), method
            assert list(model.state_dict()) == list(plain.state_dict())


@pytest.mark.parametrize("kind", KINDS)
def test_lora_on_each_part_of_attention_has_its_effect(kind):
    plain, x = classifier(kind), clips(1_600)
    for target in ("q", "k", "v", "proj", "fc1", "fc2"):
        model = copy.deepcopy(plain)
        tuning = tuned(model, "lora", targets=(target,))
        stir(tuning)
        loss = model(x).square().sum()
        loss.backward()
        assert all(one.grad.abs().sum() > 0 for one in tuning.parameters().values()), target
        assert not torch.allclose(model(x), plain(x), atol=1e-5), target


def test_gradients_reach_what_is_trained_and_nothing_else():
    for method in ("lora", "houlsby", "bitfit", "prefix", "weighted-sum", "linear"):
        model = classifier("hubert")
        before = {key: one.clone() for key, one in model.state_dict().items()}
        tuning = tuned(model, method)
        optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
        model.train()(clips(1_600, 2_000)).square().sum().backward()
        optimizer.step()
        moved = {
            key for key, one in before.items() if not torch.equal(model.state_dict()[key], one)
        }
        trained = set(tuning.parameters()) | {"head.0.weight", "head.0.bias"}
        assert moved <= trained, method
        assert (moved - set(tuning.parameters())) == {"head.0.weight", "head.0.bias"}


def test_the_weighted_sum_reaches_every_hidden_state():
    model = classifier("hubert")
    inner = model.network.model
    x = waves(1_600)
    scaled = (x - x.mean(1, keepdim=True)) / (x.var(1, correction=0, keepdim=True) + 1e-7).sqrt()
    with torch.no_grad():
        states = inner(scaled, output_hidden_states=True).hidden_states
        tuned(model, "weighted-sum")
        assert torch.allclose(model.network(x), torch.stack(states).mean(0), atol=1e-5)
        for layer, state in enumerate(states):
            model.network.layer_weights.copy_(torch.full((3,), -1e4))
            model.network.layer_weights[layer] = 1e4
            assert torch.allclose(model.network(x), state, atol=1e-5)


def test_a_batch_gives_the_logits_of_each_clip_alone():
    for kind in ("hubert", "whisper"):
        model = classifier(kind)
        batch = clips(1_600, 2_400, 1_600)
        with torch.no_grad():
            together = model(batch)
            alone = [model(row[row != PADDING][None])[0] for row in batch]
        assert torch.allclose(together, torch.stack(alone), atol=1e-5)


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("kind", ["hubert", "whisper"])
def test_lora_is_pefts(kind):
    peft = pytest.importorskip("peft")
    model = classifier(kind)
    theirs = copy.deepcopy(model.network.model)
    tuning = tuned(model, "lora", targets=("q", "v"), alpha=4)
    stir(tuning)
    wrapped = peft.get_peft_model(
        theirs, peft.LoraConfig(r=2, lora_alpha=4, target_modules=["q_proj", "v_proj"])
    ).eval()
    with torch.no_grad():
        for key, one in tuning.parameters().items():
            path, _, factor = key.removeprefix("network.model.").rpartition(".lora.")
            layer = theirs.get_submodule(path)
            side = layer.lora_A if factor.endswith(".a") else layer.lora_B
            side["default"].weight.copy_(one)
        network = SpeechNetwork(wrapped.base_model.model, LAYOUTS[kind], normalize=True)
        assert torch.allclose(network(waves(1_600)), model.network(waves(1_600)), atol=2e-6)


def base(kind):
    """Return a network of the published base size, without memory."""
    with torch.device("meta"):
        if kind == "whisper":
            config = transformers.WhisperConfig(
                d_model=384,
                encoder_layers=4,
                encoder_attention_heads=6,
                encoder_ffn_dim=1536,
                num_mel_bins=80,
            )
            from transformers.models.whisper.modeling_whisper import WhisperEncoder

            model = WhisperEncoder(config)
        else:
            name = FAMILIES[kind]
            model = getattr(transformers, f"{name}Model")(getattr(transformers, f"{name}Config")())
        network = SpeechNetwork(model, LAYOUTS[kind], normalize=True)
        return SpeechClassifier(network, num_classes=10)


COUNTS = [
    ("hubert", {"method": "lora", "targets": ("q", "k")}, 294_912),
    ("hubert", {"method": "houlsby", "hidden_dim": 32}, 599_424),
    ("hubert", {"method": "adapterbias"}, 18_444),
    ("hubert", {"method": "adapterbias", "adapterbias_input": "hidden"}, 46_092),
    ("hubert", {"method": "bitfit"}, 101_376),
    ("hubert", {"method": "prefix"}, 184_320),
    ("hubert", {"method": "weighted-sum"}, 13),
    ("hubert", {"method": "linear"}, 0),
    ("hubert", {"method": "full"}, 94_371_712),
    ("wavlm", {"method": "lora"}, 294_912),
    ("wavlm", {"method": "bitfit"}, 101_472),
    ("wavlm", {"method": "full"}, 94_381_936),
    ("wav2vec2", {"method": "full"}, 94_371_712),
    ("whisper", {"method": "lora"}, 49_152),
    ("whisper", {"method": "houlsby", "hidden_dim": 32}, 99_968),
    ("whisper", {"method": "bitfit"}, 15_360),
    ("whisper", {"method": "adapterbias"}, 3_076),
    ("whisper", {"method": "prefix"}, 30_720),
]


def test_methods_have_the_sizes_of_the_papers():
    models = {kind: base(kind) for kind in ("hubert", "wavlm", "wav2vec2", "whisper")}
    for kind, settings, expected in COUNTS:
        tuning = make_tuning(TuningConfig(**{"rank": 8, "length": 10, **settings}))
        tuning.attach(models[kind])
        found = sum(one.numel() for one in tuning.parameters().values())
        assert found == expected, (kind, settings)
        tuning.detach()
    biases = {
        kind: sum(p.numel() for key, p in model.network.named_parameters() if key[-5:] == ".bias")
        for kind, model in models.items()
    }
    assert biases["hubert"] == 104_704
    assert biases["whisper"] == 16_512


@pytest.mark.parametrize("method", ["lora", "prefix", "weighted-sum"])
def test_an_adapter_file_belongs_to_one_network(method, tmp_path):
    for kind in ("wavlm", "hubert"):
        model, path = classifier(kind), tmp_path / f"{kind}.safetensors"
        stir(tuning := tuned(model, method))
        save_adapter(path, model, tuning)
        fresh, x = classifier(kind), clips(1_600)
        load_adapter(path, fresh)
        assert torch.equal(fresh(x), model(x))
        other = classifier(kind, intermediate_size=40)
        with pytest.raises(UsageError, match="on another backbone"):
            load_adapter(path, other)


def test_what_does_not_fit_is_refused():
    with pytest.raises(UsageError, match="choose houlsby"):
        tuned(classifier("hubert"), "adapter")
    with pytest.raises(UsageError, match="no layer qkv"):
        tuned(classifier("hubert"), "lora", targets=("qkv",))
