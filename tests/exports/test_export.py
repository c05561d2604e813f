"""Exported runs: ONNX and torch.export files compute what the run's own model does."""

import importlib.util
import json
import math
import re
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime
import pytest
import soundfile
import torch
import yaml
from PIL import Image
from safetensors import safe_open
from support.several import write_several
from support.stores import build_store
from torch import nn

from seit.cli import main
from seit.config import build
from seit.errors import DamagedError, SeitError, UsageError
from seit.exports import export_run, graphs, load_exported, load_graph, programs
from seit.exports.card import write_card
from seit.exports.encoders import make_encoder
from seit.exports.spec import ExportSpec
from seit.ingest import TokenizeConfig, tokenize
from seit.ingest.inputs.audio import decode_audio
from seit.ingest.inputs.images import decode_image
from seit.tokenizers import (
    DMelTokenizer,
    MelConfig,
    MelTokenizer,
    PatchTokenizer,
    ResidualMelTokenizer,
    ResidualPatchTokenizer,
    save_tokenizer,
)
from seit.tokenizers.learned.autoencoder import Autoencoder, NetworkConfig
from seit.tokenizers.learned.bounds import Bound
from seit.tokenizers.learned.conv import ConvTokenizer
from seit.tokenizers.learned.mel_conv import MelConvTokenizer
from seit.tokenizers.mel import MelFrontEnd
from seit.training import Run, TrainConfig, predict, train
from seit.training.config import ModelConfig

CLASSES = ("blue", "green", "red")
SIZE = 32
NETWORK = {"dim": 6, "encoder_width": 8, "encoder_blocks": 1, "decoder_width": 4}
CONFIG = build(
    TrainConfig,
    {
        "model": {
            "name": "vit_tiny_patch16_224",
            "stem": "3/1/1",
            "embed_dim": 24,
            "depth": 1,
            "num_heads": 2,
            "drop_path": 0.1,
        },
        "data": {"batch_size": 8},
        "schedule": {"steps": 3, "warmup_steps": 1},
        "run": {"device": "cpu", "eval_every": 3},
    },
    origin="test",
)
MEL = MelConfig(
    sample_rate=8000, window=2000, hop=125, taper=200, fft=256, bands=16, frames=16, patch=(2, 4)
)


def pictures(count, size=SIZE, seed=0):
    """Smooth shades under a little noise, uint8 (B, S, S, 3)."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 5, 5, generator=generator)
    smooth = nn.functional.interpolate(coarse, size=(size, size), mode="bicubic")
    noisy = smooth + 0.03 * torch.randn(smooth.shape, generator=generator)
    return (noisy.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def sounds(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    times = torch.arange(MEL.window) / MEL.sample_rate
    pitches = torch.empty(count, 1).uniform_(100, 3000, generator=generator)
    tones = (2 * math.pi * pitches * times).sin() / 3
    return tones + 0.02 * torch.randn(tones.shape, generator=generator)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    images = pictures(36, size=48).numpy()
    for number, image in enumerate(images):
        split = "train" if number < 24 else "val"
        place = folder / split / CLASSES[number % 3]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(place / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def store(corpus, tmp_path_factory):
    path = tmp_path_factory.mktemp("store") / "tokens"
    tokenize(corpus, path, TokenizeConfig(size=SIZE, codes=32, codec="packed"))
    return path


@pytest.fixture(scope="module")
def run(store, tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "run"
    train(CONFIG, store, out=path)
    return Run.open(path)


@pytest.fixture(scope="module")
def exported(run, store, tmp_path_factory):
    out = tmp_path_factory.mktemp("exported") / "tiny"
    return out, export_run(run.path, out, store=store)


def session_of(path):
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


def test_the_folder_holds_what_was_asked_for(exported):
    out, result = exported
    assert [file.name for file in result.files] == sorted(path.name for path in out.iterdir())
    assert {path.name for path in out.iterdir()} == {
        "README.md",
        "classifier.onnx",
        "classifier.pt2",
        "config.json",
        "image_classifier.onnx",
        "image_classifier.pt2",
        "model.safetensors",
        "tokenizer.safetensors",
    }
    assert result.missing == {}
    assert result.unchecked == ()
    for file in result.files:
        assert file.bytes == (out / file.name).stat().st_size
        computes = file.name.endswith((".onnx", ".pt2", "model.safetensors"))
        assert (file.logit_difference is not None) == computes
        assert not computes or file.logit_difference < 1e-4
        assert (file.equal_tokens is not None) == file.name.startswith("image_")
    assert not list(out.parent.glob(".*"))


@pytest.mark.parametrize("batch", [1, 5])
def test_onnx_runtime_gives_the_logits_of_the_run(exported, run, batch):
    out, _ = exported
    session = session_of(out / "classifier.onnx")
    tokens = torch.randint(32, (batch, 4, 4))
    (logits,) = session.run(["logits"], {"tokens": tokens.numpy()})
    assert logits.shape == (batch, 3)
    assert logits.dtype == np.float32
    expected = load_graph(out)(tokens)[0]
    np.testing.assert_allclose(logits, expected.detach().numpy(), atol=1e-4)
    (entry,) = session.get_inputs()
    assert (entry.name, entry.type, entry.shape) == ("tokens", "tensor(int64)", ["batch", 4, 4])


def test_images_are_classified_as_seit_predict_does(exported, run, corpus):
    out, _ = exported
    files = sorted((corpus / "val").rglob("*.png"))
    images = np.stack([decode_image(file.read_bytes(), size=SIZE) for file in files])
    logits, tokens = session_of(out / "image_classifier.onnx").run(None, {"images": images})
    shares = torch.from_numpy(logits).softmax(1).tolist()
    for share, prediction in zip(shares, predict(run.path, files, device="cpu"), strict=True):
        assert dict(zip(CLASSES, share, strict=True)) == pytest.approx(
            dict(prediction.classes), abs=1e-4
        )
    assert tokens.shape == (len(files), 4, 4)


def test_programs_of_torch_export_load_again(exported):
    out, _ = exported
    extra = {"config.json": ""}
    module = torch.export.load(out / "image_classifier.pt2", extra_files=extra).module()
    for batch in (1, 5):
        images = pictures(batch, seed=batch)
        logits, tokens = module(images)
        expected = load_graph(out, inputs="images")(images)
        torch.testing.assert_close(logits, expected[0], atol=1e-4, rtol=0)
        assert torch.equal(tokens, expected[1])
    assert json.loads(extra["config.json"]) == json.loads((out / "config.json").read_text())


def test_weights_bear_timms_names_and_load_strictly(exported, run, tmp_path):
    out, _ = exported
    model = load_exported(out)
    weights = run.load_weights()
    assert model.state_dict().keys() == weights.keys()
    assert all(torch.equal(value, weights[key]) for key, value in model.state_dict().items())
    assert not model.training
    assert model(torch.zeros(2, 16, 4, 4)).shape == (2, 3)
    with safe_open(out / "model.safetensors", framework="pt") as file:
        assert json.loads(file.metadata()["classes"]) == list(CLASSES)
    for name in ("config.json", "tokenizer.safetensors"):
        (tmp_path / name).write_bytes((out / name).read_bytes())
    with pytest.raises(UsageError, match=r"no model\.safetensors; export with"):
        load_exported(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"\x00" * 50)
    with pytest.raises(DamagedError, match="export again"):
        load_exported(tmp_path)
    with pytest.raises(UsageError, match="no exported model at"):
        load_exported(tmp_path / "nothing")


def test_onnx_files_are_sound_and_name_the_classes(exported):
    out, _ = exported
    model = onnx.load(out / "classifier.onnx")
    onnx.checker.check_model(model, full_check=True)
    notes = {entry.key: entry.value for entry in model.metadata_props}
    assert json.loads(notes["classes"]) == list(CLASSES)
    assert (
        json.loads(notes["seit"])["store"] == json.loads((out / "config.json").read_text())["store"]
    )
    assert [entry.version for entry in model.opset_import if not entry.domain] == [20]


def front_matter(card):
    return yaml.safe_load(card.split("---\n")[1])


def test_the_card_tells_what_the_model_is(exported, run, store):
    out, _ = exported
    card = (out / "README.md").read_text()
    head = front_matter(card)
    assert head["library_name"] == "timm"
    assert head["pipeline_tag"] == "image-classification"
    assert "license" not in head
    (result,) = head["model-index"][0]["results"]
    info = run.info
    assert result["metrics"][0]["value"] == pytest.approx(info["result"]["top1"], abs=1e-4)
    assert result["dataset"]["split"] == "val"
    for fact in (
        "val split, 12 samples",
        f"{100 * info['result']['top1']:.2f} %",
        info["identity"]["store"],
        "patch-pca-vq",
        json.loads((out / "config.json").read_text())["tokenizer"]["fingerprint"],
        "bytes per sample in the store",
        "stem: 3/1/1",
        f"torch: {torch.__version__}",
        "- green",
        "model.safetensors",
    ):
        assert fact in card, fact
    assert "&#" not in card


def code_of(card, marker):
    blocks = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    (code,) = [block for block in blocks if marker in block]
    return code


def test_the_cards_code_reads_photos_as_seit_does(exported, tmp_path, monkeypatch):
    out, _ = exported
    names: dict = {"__name__": "card"}
    card = (out / "README.md").read_text()
    exec(code_of(card, "def classify"), names)
    shapes = {"tall.jpg": (90, 301), "wide.jpg": (400, 130), "small.png": (20, 31)}
    for orientation, (name, (width, height)) in enumerate(shapes.items(), 1):
        image = Image.fromarray(pictures(1, size=400)[0, :height, :width].numpy())
        exif = Image.Exif()
        exif[0x0112] = 3 * orientation % 8
        image.save(tmp_path / name, exif=exif)
        expected = decode_image((tmp_path / name).read_bytes(), size=SIZE)
        assert np.array_equal(names["load"](tmp_path / name), expected), name
    session = session_of(out / "image_classifier.onnx")
    assert set(names["classify"](session, [tmp_path / name for name in shapes])) <= set(CLASSES)
    monkeypatch.chdir(out.parent)
    names = {"tokens": torch.randint(32, (2, 4, 4))}
    exec(code_of(card, "load_graph"), names)
    assert names["logits"].shape == (2, 3)


@pytest.mark.parametrize("seconds", [0.1, 0.25, 0.6, 0.76])
def test_the_cards_code_reads_sounds_as_seit_does(exported, tmp_path, seconds):
    spec = replace(
        ExportSpec.read(exported[0]),
        modality="audio",
        preprocessing={"sample_rate": 8000, "window": 2000},
    )
    files = {"audio_classifier.onnx": 1}
    card = write_card(spec, name="sounds", files=files, parameters=1, store=None)
    assert front_matter(card)["pipeline_tag"] == "audio-classification"
    names: dict = {"__name__": "card"}
    exec(code_of(card, "def classify"), names)
    file = tmp_path / "clip.wav"
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, (int(11_025 * seconds), 2))
    soundfile.write(file, samples, 11_025)
    windows = decode_audio(file.read_bytes(), sample_rate=8000, window=2000)
    expected = np.stack([window.values for window in windows])
    np.testing.assert_allclose(names["load"](file), expected, atol=1e-6)


def test_the_cards_code_names_all_labels_of_a_sound(exported):
    plain = ExportSpec.read(exported[0])
    spec = replace(
        plain,
        modality="audio",
        preprocessing={"sample_rate": 8000, "window": 2000},
        result={**plain.result, "mean_average_precision": 0.5},
    )
    files = {"audio_classifier.onnx": 1}
    card = write_card(spec, name="sounds", files=files, parameters=1, store=None)
    names: dict = {"__name__": "card"}
    exec(code_of(card, "def classify"), names)
    names["load"] = lambda path: path

    class Session:
        def get_modelmeta(self):
            return SimpleNamespace(custom_metadata_map={"classes": json.dumps(["a", "b", "c"])})

        def run(self, *_):
            return [np.array([[9, -9, 1.0], [9, -9, 1.0]], np.float32)]

    assert names["classify"](Session(), "clip.wav") == ["a", "c"]


@pytest.mark.parametrize("reads", ["tokens", pytest.param("pixels", marks=pytest.mark.slow)])
def test_the_cards_code_names_all_labels_of_photos(pattern_folder, tmp_path, reads):
    """The same as `seit predict` names."""
    store = write_several(pattern_folder, tmp_path)
    data = replace(CONFIG.data, pixels=str(tmp_path / "table.jsonl") if reads == "pixels" else None)
    model = replace(CONFIG.model, stem="2/2/0", drop_path=0.0)
    train(replace(CONFIG, data=data, model=model), store, out=tmp_path / "run")
    export_run(tmp_path / "run", tmp_path / "out", formats=["onnx"], inputs=["images"])
    names: dict = {"__name__": "card"}
    exec(code_of((tmp_path / "out" / "README.md").read_text(), "def classify"), names)
    files = sorted((pattern_folder / "pictures" / "val").rglob("*.png"))
    session = session_of(tmp_path / "out" / "image_classifier.onnx")
    given = names["classify"](session, files)
    found = predict(tmp_path / "run", files, device="cpu", top=len(store.classes))
    assert [set(one) for one in given] == [{name for name, _ in one.classes} for one in found]
    assert {len(one) for one in given} - {1}, "one class a photo shows nothing"


def test_the_card_of_a_compressed_run_counts_no_steps(exported):
    plain = ExportSpec.read(exported[0])
    steps = f"{plain.result['steps']:,} steps of"
    assert steps in write_card(plain, name="run", files={}, parameters=1, store=None)
    settings = {**plain.settings, "compression": {"method": "w4"}}
    spec = replace(plain, settings=settings, result={**plain.result, "steps": 0})
    card = write_card(spec, name="run", files={}, parameters=1, store=None)
    assert "\nCompressed by `w4` without further training, on the store with the seal `" in card
    assert "steps of" not in card


def conv(levels=1, bound=None, codes=16, dim=6):
    torch.manual_seed(0)
    network = Autoencoder(NetworkConfig(**{**NETWORK, "dim": dim}))
    nn.init.normal_(network.encoder.head.weight, std=0.1)
    shape = (levels, codes, dim) if levels > 1 else (codes, dim)
    return ConvTokenizer(torch.randn(shape) / 2, network, image_size=SIZE, bound=bound)


def mel_conv():
    torch.manual_seed(0)
    network = Autoencoder(NetworkConfig(**NETWORK, planes=1, patch=MEL.patch))
    return MelConvTokenizer(
        torch.randn(16, 6) / 2, network, front_end=MelFrontEnd.fit(MEL, sounds(8)), bound=None
    )


TOKENIZERS = {
    "patch": lambda: PatchTokenizer.fit(pictures(16), num_codes=32, dim=8),
    "patch, residual": lambda: ResidualPatchTokenizer.fit(
        pictures(16), num_codes=32, dim=8, levels=2
    ),
    "conv": conv,
    "conv, residual": lambda: conv(levels=3),
    "conv, signs": lambda: conv(bound=Bound(kind="sign"), codes=64),
    "conv, levels": lambda: conv(bound=Bound(kind="tanh", levels=(4, 5)), codes=20, dim=2),
    "mel-vq": lambda: MelTokenizer.fit(sounds(24), MEL, num_codes=32, dim=6),
    "mel-rvq": lambda: ResidualMelTokenizer.fit(sounds(24), MEL, num_codes=16, dim=6, levels=2),
    "mel-conv": mel_conv,
    "dmel": lambda: DMelTokenizer(MEL),
}


@pytest.mark.parametrize("name", TOKENIZERS)
def test_networks_give_the_ids_of_tokenizers(name):
    """All but one of a thousand: codes that are equally near up to rounding may be exchanged."""
    tokenizer = TOKENIZERS[name]()
    inputs = pictures(30, seed=3) if tokenizer.modality == "image" else sounds(60, seed=3)
    ids = make_encoder(tokenizer)(inputs)
    expected = tokenizer.encode(inputs)
    assert ids.shape == expected.shape == (len(inputs), *tokenizer.grid)
    assert ids.dtype == torch.int64
    assert len(expected.unique()) > 3
    assert (ids == expected).double().mean() >= 0.999


def test_published_tokenizers_are_not_exported(run, tmp_path, monkeypatch):
    def refuse(tokenizer):
        return make_encoder(SimpleNamespace(name="vqgan"))

    monkeypatch.setattr(graphs, "make_encoder", refuse)
    result = export_run(run.path, tmp_path / "out", formats=["safetensors"])
    assert "published tokenizer 'vqgan' is not exported" in result.missing["images"]
    with pytest.raises(UsageError, match="takes no images: the published tokenizer 'vqgan'"):
        export_run(run.path, tmp_path / "other", inputs=["images"])


def test_weights_of_larger_networks_lie_next_to_the_file(run, tmp_path, monkeypatch):
    monkeypatch.setattr(programs, "MAX_ONNX_BYTES", 1000)
    out = tmp_path / "out"
    result = export_run(run.path, out, formats=["onnx"], inputs=["tokens"], opset=18)
    assert {"classifier.onnx", "classifier.onnx.data"} < {file.name for file in result.files}
    (checked,) = [file for file in result.files if file.logit_difference is not None]
    assert checked.logit_difference < 1e-4


@pytest.mark.slow  # encoders and large files are tested above, each alone
def test_a_run_on_learned_tokens_and_larger_networks(corpus, tmp_path, monkeypatch):
    """A residual tokenizer, and weights in a file beside the ONNX file."""
    save_tokenizer(conv(levels=2), tmp_path / "conv.safetensors")
    settings = TokenizeConfig(tokenizer=str(tmp_path / "conv.safetensors"), codec="packed")
    tokenize(corpus, tmp_path / "store", settings)
    train(CONFIG, tmp_path / "store", out=tmp_path / "run")
    monkeypatch.setattr(programs, "MAX_ONNX_BYTES", 1000)
    out = tmp_path / "out"
    result = export_run(tmp_path / "run", out, formats=["onnx"], inputs=["images"], opset=18)
    assert {file.name for file in result.files} == {
        *("README.md", "config.json", "tokenizer.safetensors"),
        *("image_classifier.onnx", "image_classifier.onnx.data"),
    }
    (checked,) = [file for file in result.files if file.logit_difference is not None]
    assert checked.logit_difference < 1e-4
    assert checked.equal_tokens >= 0.999
    assert session_of(out / "image_classifier.onnx").get_outputs()[1].shape == ["batch", 8, 4]


def test_pixel_baselines_take_images_alone(store, corpus, tmp_path):
    config = replace(CONFIG, data=replace(CONFIG.data, pixels=str(corpus)))
    train(config, store, out=tmp_path / "run")
    out = tmp_path / "out"
    result = export_run(tmp_path / "run", out, formats=["torch", "safetensors"])
    assert [path.name for path in out.glob("*.pt2")] == ["image_classifier.pt2"]
    assert result.missing == {}
    files = sorted((corpus / "val").rglob("*.png"))[:4]
    images = torch.from_numpy(
        np.stack([decode_image(file.read_bytes(), size=SIZE) for file in files])
    )
    (logits,) = torch.export.load(out / "image_classifier.pt2").module()(images)
    for share, prediction in zip(
        logits.softmax(1).tolist(), predict(tmp_path / "run", files, device="cpu"), strict=True
    ):
        assert dict(zip(CLASSES, share, strict=True)) == pytest.approx(
            dict(prediction.classes), abs=1e-4
        )
    with pytest.raises(UsageError, match="takes no tokens: it takes images"):
        export_run(tmp_path / "run", tmp_path / "other", inputs=["tokens"])


@pytest.mark.slow  # tests of 8 bits deploy the same network
def test_a_convolutional_backbone(store, tmp_path):
    config = replace(CONFIG, model=ModelConfig(name="test_resnet"))
    train(config, store, out=tmp_path / "run")
    out = tmp_path / "out"
    export_run(tmp_path / "run", out, formats=["onnx", "safetensors"], inputs=["tokens"])
    tokens = torch.randint(32, (5, 4, 4))
    (logits,) = session_of(out / "classifier.onnx").run(None, {"tokens": tokens.numpy()})
    expected = load_graph(out)(tokens)[0].detach().numpy()
    np.testing.assert_allclose(logits, expected, atol=1e-4 * max(1, np.abs(expected).max()))


def test_refusals_name_what_is_wrong_and_leave_nothing(exported, run, tmp_path, monkeypatch):
    out = tmp_path / "out"

    def refusal(*arguments, **settings):
        with pytest.raises(UsageError) as caught:
            export_run(*arguments, **settings)
        assert not out.exists()
        assert not list(tmp_path.glob(".out*"))
        return str(caught.value)

    assert "no run at" in refusal(tmp_path / "nothing", out)
    assert "not empty; choose a new" in refusal(run.path, exported[0])
    assert "format is pickle; choose among" in refusal(run.path, out, formats=["pickle"])
    assert "inputs is nothing; choose among" in refusal(run.path, out, inputs=[])
    assert "it must be from 18 to 23" in refusal(run.path, out, opset=11)
    assert "takes no audio: it takes tokens or images" in refusal(run.path, out, inputs=["audio"])
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "onnx" else found(name)
    )
    refused = refusal(run.path, out)
    assert "ONNX files need onnx; run: pip install 'onnx>=1.17' 'onnxscript>=0.5'" in refused
    monkeypatch.setattr(importlib.util, "find_spec", found)
    assert "is not the store that" in refusal(run.path, out, store=another_store(tmp_path))
    before = run.info
    run.write_info({**before, "status": "started"})
    message = refusal(run.path, out)
    run.write_info(before)
    assert "has not finished; resume it with" in message


def another_store(folder):
    build_store(folder / "another")
    return folder / "another"


def test_a_wrong_file_is_not_kept(run, tmp_path, monkeypatch):
    zeros = lambda batch: (torch.zeros(len(batch), 3),)  # noqa: E731
    monkeypatch.setattr(programs, "open_torch", lambda path: zeros)
    with pytest.raises(SeitError, match=r"classifier.pt2 gives logits that are \S+ off.*not kept"):
        export_run(run.path, tmp_path / "out", formats=["torch"], inputs=["tokens"])
    assert not list(tmp_path.iterdir())


def test_without_onnx_runtime_files_are_named_unchecked(run, tmp_path, monkeypatch):
    monkeypatch.setattr(programs, "write_onnx", lambda program, path, graph, **_: path.touch())
    monkeypatch.setattr(programs, "open_onnx", lambda path: None)
    result = export_run(run.path, tmp_path / "out", formats=["onnx"], inputs=["tokens"])
    assert result.unchecked == ("classifier.onnx",)
    assert all(file.logit_difference is None for file in result.files)


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"format": "other"}, UsageError, "format 'other' version 1"),
        ({"version": 2}, UsageError, "version 2; this version of seit reads"),
        ({"size": "large"}, DamagedError, "is damaged"),
        ({"size": [8, 8]}, DamagedError, "takes inputs"),
        ({"model.kwargs": {"checkpoint_path": "/etc/passwd"}}, DamagedError, "checkpoint_path"),
        ({"model.kwargs": {"depth": {"a": 1}}}, DamagedError, "which no export writes"),
        ({"model.stem": "2/2/0"}, UsageError, "do not fit this model"),
        ({"tokenizer.fingerprint": "0" * 64}, DamagedError, "is another tokenizer"),
    ],
)
def test_a_changed_config_is_refused(exported, tmp_path, change, error, match):
    for name in ("config.json", "model.safetensors", "tokenizer.safetensors"):
        (tmp_path / name).write_bytes((exported[0] / name).read_bytes())
    body = json.loads((tmp_path / "config.json").read_text())
    for path, value in change.items():
        *groups, name = path.split(".")
        inner = body
        for group in groups:
            inner = inner[group]
        inner[name] = value
    (tmp_path / "config.json").write_text(json.dumps(body))
    with pytest.raises(error, match=match):
        load_graph(tmp_path)


def test_the_command(run, tmp_path, capsys):
    out = tmp_path / "out"
    main(["export", str(run.path), str(out), "--format", "safetensors", "--json"])
    printed = json.loads(capsys.readouterr().out)
    assert printed["out"] == str(out)
    assert {file["name"] for file in printed["files"]} == {path.name for path in out.iterdir()}
    with pytest.raises(SystemExit) as caught:
        main(["export", str(run.path), str(out)])
    assert caught.value.code == 2
    message = capsys.readouterr().err
    assert message.startswith("error: ")
    assert message.count("\n") == 1
