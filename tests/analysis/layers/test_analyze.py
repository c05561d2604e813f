"""`seit analyze`: runs over stores, speech models over sounds, and what does not fit."""

import contextlib
import json
import signal
from dataclasses import replace

import numpy as np
import pytest
import soundfile
import torch
from support.planted import Planted

import seit
from seit.analysis import journal
from seit.analysis.journal import Journal
from seit.analysis.layers.analyze import analyze_layers, make_target
from seit.analysis.layers.config import AnalyzeConfig
from seit.analysis.layers.maps import compare_layers
from seit.analysis.layers.targets import CodesTarget
from seit.analysis.subjects.base import Clip
from seit.analysis.subjects.mel import MelSubject
from seit.analysis.subjects.runs import RunSubject
from seit.analysis.subjects.speech import SpeechSubject
from seit.cli import main
from seit.errors import DamagedError, UsageError
from seit.models import captured, create_model, timm_layers
from seit.stream import read_sounds
from seit.tensors import array_bytes, read_arrays
from seit.tokenizers import LAYOUTS, SpeechNetwork
from seit.training import Run


def test_layers_of_a_run(learned, pattern_folder, tmp_path, capsys):
    result = seit.analyze(
        learned,
        data=pattern_folder / "store",
        method="ridge",
        split="train",
        fewest=5,
        folds=3,
        penalty=1.0,
        out=tmp_path / "out",
    )
    names = [layer.name for layer in result.layers]
    assert names == ["tokens", "stem", "blocks.0", "blocks.1"]
    assert result.samples == 36
    assert (result.types, result.groups) == (3, 36)
    best = next(layer for layer in result.layers if layer.name == result.best_layer)
    assert best.score == max(layer.score for layer in result.layers) > 0.5
    assert result.controls[0].name == "run (random weights)"
    assert [layer.name for layer in result.controls[0].layers] == names
    written = json.loads((tmp_path / "out" / "layers.json").read_text())
    assert written == json.loads(json.dumps(result.record()))
    assert "by chance" in (tmp_path / "out" / "report.html").read_text()
    flags = ["--split", "train", "--fewest", "5", "--folds", "3", "--penalty", "1", "--json"]
    main(["analyze", "probe", str(learned), str(pattern_folder / "store"), *flags])
    printed = json.loads(capsys.readouterr().out)
    assert printed["layers"] == written["layers"]


def test_an_accuracy_of_few_samples_is_warned_of(learned, pattern_folder, capsys):
    flags = ["--split", "train", "--fewest", "5", "--folds", "3", "--json", "--no-random-twin"]
    main(
        ["analyze", "probe", str(learned), str(pattern_folder / "store"), "--penalty", "0", *flags]
    )
    out, err = capsys.readouterr()
    best = max(layer["score"] for layer in json.loads(out)["layers"])
    error = (best * (1 - best) / 36) ** 0.5
    assert f"36 samples are few: the best layer's accuracy of {best:.3f}" in err
    assert f"a standard error of {error:.3f}" in err
    main(["analyze", "cca", str(learned), str(pattern_folder / "store"), *flags])
    assert "are few" not in capsys.readouterr().err


def test_activations_are_those_of_the_network(learned, pattern_store):
    subject = RunSubject(Run.open(learned), pattern_store, "val", device=torch.device("cpu"))
    clips = list(subject.clips())
    assert [clip.row for clip in clips] == list(range(len(subject.places)))
    some = list(subject.clips([1, 4]))
    assert [clip.row for clip in some] == [1, 4]
    for layer in subject.layers:
        assert np.array_equal(some[1].values[layer], clips[4].values[layer])
    model, tokens = subject.model, torch.from_numpy(np.stack([clip.tokens for clip in clips]))
    with torch.inference_mode():
        inputs = subject._augment.evaluate(tokens)
        hidden = model.forward_features(inputs)
        pooled = model.forward_head(hidden, pre_logits=True)
        means = torch.from_numpy(np.concatenate([clip.values["blocks.1"] for clip in clips]))
        normalized = model.fc_norm(means)
    assert torch.allclose(normalized, pooled, atol=1e-5)
    for clip in clips:
        assert np.array_equal(subject.tokens(clip.row), clip.tokens)
    inputs = np.concatenate([clip.values["tokens"] for clip in clips])
    assert np.allclose(inputs, subject._augment.evaluate(tokens).mean((2, 3)).numpy(), atol=1e-5)


def test_similar_layers(learned, pattern_folder):
    result = seit.analyze(learned, data=pattern_folder / "store", method="cka", split="train")
    values = np.array(result.cka)
    assert np.allclose(np.diag(values), 1.0, atol=1e-9)
    assert np.allclose(values, values.T, atol=1e-9)


def test_unlike_layers_are_told_apart():
    values = np.array(compare_layers(Planted(), Planted(seed=5, known=False)).cka)
    assert np.abs(values).max() < 0.1


def test_the_planted_phones_are_found(tmp_path):
    subject = Planted()
    result = analyze_layers(
        subject,
        AnalyzeConfig(target="phone", fewest=5, folds=4),
        groups=[place.file for place in subject.places],
        alignments=subject.alignments,
        out=tmp_path / "out",
    )
    assert result.best_layer == "layers.2"
    assert result.controls[0].layers[2].score < 0.1 < result.layers[2].score


def test_layers_are_compared_with_another_layer():
    subject = Planted()
    result = analyze_layers(
        subject,
        AnalyzeConfig(target="layer:layers.2", method="r2", folds=3, random_twin=False),
        groups=[place.file for place in subject.places],
    )
    scores = {layer.name: layer.score for layer in result.layers}
    assert scores["layers.2"] > 0.99
    assert scores["layers.3"] > scores["layers.0"] + 0.1
    assert abs(scores["layers.0"]) < 0.05
    with pytest.raises(UsageError, match=r"no layer 'x'; it has layers\.0, layers\.1"):
        analyze_layers(
            subject,
            AnalyzeConfig(target="layer:x"),
            groups=[place.file for place in subject.places],
        )


def test_codes_of_each_level_are_features_of_their_own():
    held = []
    target = CodesTarget(2, 8, lambda row: held[row])
    assert target.dim == 16

    def shares(first, second):
        tokens = np.array([[first, first], [second, second]])
        held.append(tokens)
        clip = Clip(row=0, values={"x": np.ones((1, 3))}, tokens=tokens)
        found = target.samples(clip, "x").y[0].tolist()
        assert target.at(len(held) - 1, 0, 1.0).tolist() == found
        return found

    one, other = shares(3, 7), shares(7, 3)
    assert [place for place, share in enumerate(one) if share] == [3, 8 + 7]
    assert [place for place, share in enumerate(other) if share] == [7, 8 + 3]


def test_what_does_not_fit_is_refused(learned, pattern_folder, tmp_path):
    store = pattern_folder / "store"
    with pytest.raises(UsageError, match="needs --align"):
        seit.analyze(learned, data=store, target="phone", split="train")
    with pytest.raises(UsageError, match="none of label, phone, word, codes, mel"):
        seit.analyze(learned, data=store, target="pitch", split="train")
    with pytest.raises(UsageError, match="a probe needs classes"):
        seit.analyze(learned, data=store, method="lda", target="codes", split="train")
    with pytest.raises(UsageError, match="at least 20 instances"):
        seit.analyze(learned, data=store, split="train")
    np.save(tmp_path / "wide.npy", np.ones((3, 2)))
    with pytest.raises(UsageError, match="36 rows are expected"):
        seit.analyze(learned, data=store, split="train", target=str(tmp_path / "wide.npy"))
    np.save(tmp_path / "objects.npy", np.array([{}]), allow_pickle=True)
    with pytest.raises(UsageError, match="no readable"):
        seit.analyze(learned, data=store, split="train", target=str(tmp_path / "objects.npy"))
    (tmp_path / "empty.npy").touch()
    (tmp_path / "broken.npy").write_bytes(b"PK\x03\x04 no archive")
    np.savez(tmp_path / "archive.npz", np.ones((36, 2)))
    (tmp_path / "archive.npz").rename(tmp_path / "archive.npy")
    for name in ("empty", "broken", "archive"):
        with pytest.raises(UsageError, match=f"{name}.npy is no readable .npy file: "):
            seit.analyze(learned, data=store, split="train", target=str(tmp_path / f"{name}.npy"))
    np.save(tmp_path / "narrow.npy", np.ones((36, 0)))
    with pytest.raises(UsageError, match="narrow"):
        seit.analyze(learned, data=store, split="train", target=str(tmp_path / "narrow.npy"))
    with pytest.raises(UsageError, match="already exists"):
        seit.analyze(learned, data=store, out=tmp_path)
    with pytest.raises(UsageError, match="has no split"):
        seit.analyze(learned, data=store, split="test")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"method": "cka", "other_data": "x"}, "--other-data is of the subject of --with"),
        ({"method": "cka", "align": "x"}, "cka takes no --align, which is for cca, svcca"),
        ({"method": "cka", "groups": "folder"}, "cka takes no --groups"),
        ({"method": "brain", "tier": "x", "responses": "x", "tr": 1}, "brain takes no --tier"),
        ({"method": "cca", "other": "x"}, "cca takes no --with, which is for cka"),
        ({"method": "ridge", "mask": "x"}, "ridge takes no --mask, which is for brain"),
        ({"method": "cca", "penalty": 1.0}, "cca takes no --penalty"),
        ({"method": "lda", "align": "x"}, "--align is for the targets phone and word"),
        ({"method": "cca", "tier": "phones"}, "--tier is of the TextGrids of --align"),
        ({"method": "pca"}, "there is no method 'pca'; there are cka, brain, cca"),
    ],
)
def test_what_a_method_does_not_take_is_refused(learned, pattern_folder, given, said):
    with pytest.raises(UsageError, match=said):
        seit.analyze(learned, data=pattern_folder / "store", split="train", **given)


def test_a_cnn_has_stages(pattern_store):
    model = create_model("resnet10t", pattern_store).eval()
    layers = timm_layers(model)
    assert list(layers.names) == ["act1", "layer1", "layer2", "layer3", "layer4"]
    inputs = torch.zeros(2, pattern_store.codebook.shape[1], 8, 8)
    with torch.inference_mode(), captured(model, layers.outputs) as found:
        model.forward_features(inputs)
    for name in layers.names:
        grid = layers.grid(name, found[name], (8, 8))
        assert torch.equal(grid.permute(0, 3, 1, 2), found[name])


def speech(seed=0):
    import transformers

    torch.manual_seed(seed)
    config = transformers.HubertConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=48,
        conv_dim=(8,) * 7,
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=2,
    )
    return SpeechNetwork(transformers.HubertModel(config), LAYOUTS["hubert"], normalize=True)


@pytest.fixture
def sounds(tmp_path):
    """Return a folder of ten short tones of two pitches, with noise."""
    random = np.random.default_rng(0)
    for number in range(10):
        folder = tmp_path / "sounds" / ("high" if number % 2 else "low")
        folder.mkdir(parents=True, exist_ok=True)
        times = np.arange(8000 + 100 * number) / 16_000
        tone = 0.3 * np.sin(2 * np.pi * (1500 if number % 2 else 300) * times)
        soundfile.write(
            folder / f"{number}.wav", tone + 0.05 * random.normal(size=len(times)), 16_000
        )
    return tmp_path / "sounds"


def test_layers_of_a_speech_model(sounds):
    found = read_sounds(str(sounds))
    assert found.classes == ("high", "low")
    assert {clip.file for clip in found.clips} == {
        f"{'high' if number % 2 else 'low'}/{number}.wav" for number in range(10)
    }
    subject = SpeechSubject(
        speech(), found.clips, classes=found.classes, name="tiny", device=torch.device("cpu")
    )
    assert subject.layers == ("stem", "layers.0", "layers.1")
    clip = next(subject.clips([3]))
    seconds = found.clips[3].seconds
    frames = (len(found.clips[3].samples) - 400) // 320 + 1
    assert clip.values["layers.1"].shape == (frames, 32)
    assert clip.rate("layers.1") == pytest.approx(frames / seconds)
    with torch.inference_mode():
        wave = torch.from_numpy(found.clips[3].waveform)[None]
        scaled = (wave - wave.mean()) / torch.sqrt(wave.var(correction=0) + 1e-7)
        states = subject.network.model(scaled, output_hidden_states=True).hidden_states
    assert np.allclose(clip.values["stem"], states[0][0].numpy(), atol=1e-5)
    assert np.allclose(clip.values["layers.1"], states[2][0].numpy(), atol=1e-5)
    result = analyze_layers(
        subject,
        AnalyzeConfig(method="ridge", fewest=2, folds=2),
        groups=[place.file for place in subject.places],
    )
    assert result.samples == 10
    assert result.controls[0].name == "tiny (random weights)"
    mel = MelSubject(found.clips, classes=found.classes)
    spectra = analyze_layers(
        subject,
        AnalyzeConfig(method="r2", target="mel", folds=2, penalty=0.1),
        baselines=[mel],
        groups=[place.file for place in subject.places],
    )
    assert spectra.controls[-1].layers[0].score > 0.9, "itself"
    assert spectra.samples == sum(len(clip.values["mel"]) for clip in mel.clips())


def test_views_of_a_picture_are_in_one_fold(learned, pattern_folder, tmp_path):
    tokenizer = str(pattern_folder / "store" / "tokenizer.safetensors")
    pictures = pattern_folder / "pictures"
    store = tmp_path / "store"
    seit.tokenize(pictures, out=store, tokenizer=tokenizer, views=2)
    found = seit.analyze(learned, data=store, split="train", target="label", folds=3, fewest=2)
    assert (found.samples, found.groups) == (72, 36)


class InterruptedByTestError(Exception):
    """Raised by a test in place of a killed process."""


@pytest.mark.parametrize(("method", "done"), [("cca", 2), ("r2", 5), ("ridge", 4)])
def test_an_interrupted_analysis_resumes_at_the_next_layer(tmp_path, monkeypatch, method, done):
    subject = Planted(20)

    def analyze(out, **changes):
        return analyze_layers(
            subject,
            AnalyzeConfig(target="phone", fewest=5, folds=3, method=method, **changes),
            groups=[place.file for place in subject.places],
            alignments=subject.alignments,
            out=out,
            resume=out.exists(),
        )

    whole = analyze(tmp_path / "whole")
    kept, keep = [], Journal.keep

    def keep_some(self, network, layer, *rest):
        if len(kept) == done:
            raise InterruptedByTestError
        kept.append((network, layer))
        keep(self, network, layer, *rest)

    monkeypatch.setattr(Journal, "keep", keep_some)
    with pytest.raises(InterruptedByTestError):
        analyze(tmp_path / "parts")
    with pytest.raises(UsageError, match=r"differs in .*settings"):
        analyze(tmp_path / "parts", seed=1)
    later = []
    monkeypatch.setattr(
        Journal, "keep", lambda self, *given: later.append(given[:2]) or keep(self, *given)
    )
    parts = analyze(tmp_path / "parts")
    every = [(network, layer) for network in range(2) for layer in subject.layers]
    assert kept == every[:done]
    assert later == every[done:]
    own, other = parts.record(), whole.record()
    assert {**own, "out": None} == {**other, "out": None}
    files = {path.name for path in (tmp_path / "parts").iterdir()}
    assert files == {"layers.json", "report.html", "identity.json"}


class Interrupted(Planted):
    """Ctrl-C at the n-th of all clips that are read; none if ``left`` is None."""

    left = None
    rows: list[int]

    def clips(self, rows=None):
        for clip in super().clips(rows):
            if self.left is not None:
                self.left -= 1
                if not self.left:
                    signal.raise_signal(signal.SIGINT)
            self.rows.append(clip.row)
            yield clip

    def random_twin(self, seed):
        return self


READ = {"first pass": 15, "second pass or twin": 35, "twin": 60}
"""Clips until Ctrl-C. Both networks read one for the identity; then each reads one for its sizes,
20 in a pass, and for probes 20 in a second one."""


@pytest.mark.parametrize("method", ["cca", "r2", "lda"])
@pytest.mark.parametrize("at", READ)
def test_an_interrupted_pass_continues_with_the_next_clip(tmp_path, method, at):
    subject = Interrupted(20)
    config = AnalyzeConfig(target="phone", fewest=5, folds=3, method=method, nulls=2)

    def analyze(out, **changes):
        subject.rows = []
        return analyze_layers(
            subject,
            config,
            groups=[place.file for place in subject.places],
            alignments=subject.alignments,
            out=out,
            **changes,
        )

    whole = analyze(tmp_path / "whole")
    subject.left = READ[at]
    with contextlib.suppress(KeyboardInterrupt):
        analyze(tmp_path / "parts")
        assert method != "lda", "it reads more clips than that"
    subject.left = None
    parts = analyze(tmp_path / "parts", resume=True)
    assert {**parts.record(), "out": None} == {**whole.record(), "out": None}
    if at == "first pass":
        assert subject.rows[:11] == [0, 0, 0, *range(12, 20)]
    subject.rows = []
    again = analyze(tmp_path / "parts", resume=True)
    assert again.record() == parts.record()
    assert subject.rows == [0, 0], "what the scores depend on"
    config = replace(config, seed=1)
    with pytest.raises(UsageError, match=r"the finished analysis at .* differs in settings"):
        analyze(tmp_path / "parts", resume=True)


def test_a_killed_pass_continues_from_its_last_sums(tmp_path, monkeypatch):
    monkeypatch.setattr(journal, "_SAVE_SECONDS", 0.0)
    monkeypatch.setattr(journal, "_PAUSE", 0)
    subject = Planted(20)

    def analyze(out, progress=None, **changes):
        return analyze_layers(
            subject,
            AnalyzeConfig(target="phone", fewest=5, folds=3),
            groups=[place.file for place in subject.places],
            alignments=subject.alignments,
            out=out,
            progress=progress,
            **changes,
        )

    def kill(done, total):
        if done == 12:
            raise InterruptedByTestError

    with pytest.raises(InterruptedByTestError):
        analyze(tmp_path / "out", kill)
    done = []
    parts = analyze(tmp_path / "out", lambda count, total: done.append(count), resume=True)
    assert done == [*range(12, 21), *range(1, 21)], "the rest of the network, then its twin"
    assert {**parts.record(), "out": None} == analyze(None).record()


def test_the_rest_of_a_pass_has_the_activations_of_the_whole(learned, pattern_folder):
    store = seit.open(pattern_folder / "store")
    subject = RunSubject(Run.open(learned), store, "train", device=torch.device("cpu"))
    for subject.batch_size in (8, 64):
        whole, rest = list(subject.clips()), list(subject.clips_after(13))
        assert [clip.row for clip in rest] == list(range(13, 36))
        for clip in rest:
            for layer, values in clip.values.items():
                assert np.array_equal(values, whole[clip.row].values[layer]), layer


def test_damaged_sums_are_refused(tmp_path):
    subject = Interrupted(20)
    subject.rows, subject.left = [], 15

    def analyze():
        return analyze_layers(
            subject,
            AnalyzeConfig(target="phone", fewest=5, folds=3),
            groups=[place.file for place in subject.places],
            alignments=subject.alignments,
            out=tmp_path / "out",
            resume=True,
        )

    with pytest.raises(KeyboardInterrupt):
        analyze()
    subject.left = None
    path = tmp_path / "out" / "unfinished" / "0-sums.safetensors"
    arrays = read_arrays(path)
    wrong = [
        {},
        {name: one for name, one in arrays.items() if name != "layers.1/2/xx"},
        {**arrays, "layers.1/2/xx": np.zeros((3, 3))},
        {**arrays, "layers.1/2/nulls": np.zeros((3, 16, 3))},
    ]
    for one in wrong:
        path.write_bytes(array_bytes(one))
        with pytest.raises(DamagedError, match="start again"):
            analyze()


def test_a_result_is_not_that_of_another_target_or_method(learned, pattern_folder, tmp_path):
    store, out = pattern_folder / "store", tmp_path / "out"
    values = np.random.default_rng(0).normal(size=(36, 2))
    np.save(tmp_path / "target.npy", values)

    def analyze(method="r2", **changes):
        settings = {"split": "train", "out": out, "resume": True}
        return seit.analyze(learned, data=store, method=method, **settings, **changes)

    target = {"target": str(tmp_path / "target.npy"), "folds": 3}
    first = analyze(**target)
    assert analyze(**target).record() == first.record()
    np.save(tmp_path / "target.npy", values[::-1])
    with pytest.raises(UsageError, match=r"the finished analysis at .* differs in target"):
        analyze(**target)
    with pytest.raises(UsageError, match="already exists"):
        analyze("cka")


def test_spans_of_other_times_are_another_target():
    subject = Planted(20)

    def fingerprint(shift):
        moved = {
            file: [replace(span, start=span.start + shift) for span in spans]
            for file, spans in subject.alignments.items()
        }
        config = AnalyzeConfig(target="phone", fewest=5)
        return make_target(subject, config, alignments=moved, codes=None).fingerprint()

    assert fingerprint(0.0) == fingerprint(0.0) != fingerprint(0.001)


def test_what_there_is_nothing_to_resume_of(learned, pattern_folder, tmp_path):
    with pytest.raises(UsageError, match="--resume needs --out"):
        seit.analyze(learned, data=pattern_folder / "store", resume=True)
    (tmp_path / "layers.json").write_text("{}")
    with pytest.raises(UsageError, match="already exists"):
        seit.analyze(learned, data=pattern_folder / "store", resume=True, out=tmp_path, fewest=2)
