"""Runs in 8 bits: evaluated, predicting and exported by the file that is deployed."""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from safetensors.torch import save
from support.onnx_graphs import classifier

import seit
from seit.api import plan_run
from seit.augment import AugmentConfig, TokenAugment
from seit.cli.compress import _print_run
from seit.compression import CompressConfig
from seit.compression.finish import recorded
from seit.compression.footprint.targets.runs import RunTarget
from seit.compression.int8.builder import Builder
from seit.compression.int8.graph import FloatGraph
from seit.compression.subject import Subject
from seit.errors import DamagedError, UsageError
from seit.models import PROGRAM_NAME, OnnxClassifier
from seit.training import Run, load_classifier, load_run_model

CNN = {
    "model": {"name": "test_resnet"},
    "data": {"batch_size": 12},
    "optim": {"lr": 2e-3, "lr_batch_size": 0},
    "schedule": {"steps": 8, "warmup_steps": 2},
    "augment": {"crop_size": 8},
    "ema": {"decay": 0.0},
    "run": {"device": "cpu", "loggers": []},
}
SAMPLES = {"compression.samples": 16}


@pytest.fixture(scope="session", autouse=True)
def exported_once():
    """Export a network once, whatever asks for its graph, which nothing changes."""
    export, graphs = FloatGraph.of_subject, {}

    def of_subject(subject):
        key = subject.run.path, save(subject.model.state_dict())
        if key not in graphs:
            graphs[key] = export(subject)
        return graphs[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FloatGraph, "of_subject", of_subject)
        yield


@pytest.fixture(scope="session")
def made(made_once, learned, pattern_store):
    """Folders of `int8` of a transformer, and `int8-static` of a convolutional network."""

    def make(folder):
        seit.compress(learned, store=pattern_store, out=folder / "vit", method="int8", **SAMPLES)
        seit.train(pattern_store, out=folder / "resnet", config=CNN)
        seit.compress(
            folder / "resnet", store=pattern_store, out=folder / "cnn", method="int8", **SAMPLES
        )

    return made_once("int8", make)


def logits_of(path, store, *, as_deployed):
    run = Run.open(path)
    tokenizer = store.load_tokenizer()
    settings = AugmentConfig(crop_size=8, synonym_prob=0)
    augment = TokenAugment(tokenizer.codebook, tokenizer.grid, settings)
    ids = torch.from_numpy(np.asarray(store["val"].tokens[:]).astype(np.int64))
    cpu = torch.device("cpu")
    if as_deployed:
        model, augment = load_classifier(run, augment, tokenizer, cpu)
    else:
        model = load_run_model(run, augment, tokenizer, cpu)
    with torch.inference_mode():
        return model.eval()(augment.evaluate(ids)).numpy()


def relative(found, expected):
    return np.linalg.norm(found - expected) / np.linalg.norm(expected)


@pytest.mark.parametrize(("name", "source"), [("vit", None), ("cnn", "resnet")])
def test_the_number_is_that_of_the_deployed_file(made, learned, pattern_store, name, source):
    run = Run.open(made / name)
    result = run.info["result"]
    path = run.path / PROGRAM_NAME
    assert result["bytes"] == path.stat().st_size
    assert result["bytes"] < (0.75 if name == "vit" else 0.45) * result["bytes_before"]
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    split = pattern_store["val"]
    ids = np.asarray(split.tokens[:]).astype(np.int64)
    (logits,) = session.run(None, {"tokens": ids})
    assert (logits.argmax(1) == split.labels).mean() == pytest.approx(result["top1"])
    assert seit.evaluate(run.path, store=pattern_store).top1 == result["top1"]
    assert np.array_equal(logits, logits_of(run.path, pattern_store, as_deployed=True))
    before = logits_of(made / source if source else learned, pattern_store, as_deployed=False)
    assert relative(logits, before) < 0.05


@pytest.mark.parametrize("name", ["vit", "cnn"])
def test_weights_beside_the_file_are_its_own(made, learned, pattern_store, name):
    """A network of the packed weights differs by the rounding of activations alone."""
    run = Run.open(made / name)
    before = Run.open(learned if name == "vit" else made / "resnet").load_weights()
    after = run.load_weights()
    assert before.keys() == after.keys()
    packed = run.compression.quantized
    assert len(packed) == (9 if name == "vit" else sum(one.ndim > 1 for one in before.values()))
    for key in packed:
        step = (before[key].flatten(1).abs().amax(1) / 63)[:, None]
        off = (before[key] - after[key]).flatten(1).abs()
        assert (off <= 1.01 * step).all(), key
    assert all(torch.equal(before[key], after[key]) for key in before.keys() - packed.keys())
    dense = logits_of(run.path, pattern_store, as_deployed=False)
    assert relative(logits_of(run.path, pattern_store, as_deployed=True), dense) < 0.05
    assert (run.path / "model.safetensors").stat().st_size < 0.7 * sum(
        one.nbytes for one in before.values()
    )


def test_a_run_tells_how_it_was_made(made):
    for name, activations in (("vit", "dynamic"), ("cnn", "static")):
        info = Run.open(made / name).info
        note = info["int8"]
        assert note["activations"] == activations
        assert note["checks"][-1]["passed"]
        assert note["checks"][-1]["format"] == note["format"]
        assert note["layers"] > 4
        latency = info["latency"]
        assert latency["rounds"] >= 5
        assert set(latency["verdict"]) == {"1", "64"} == set(latency["p50"]["ONNX Runtime, int8"])
        fast = latency["p50"]["ONNX Runtime, int8"]["64"]
        if any(times["64"] < fast for times in latency["p50"].values()):
            assert latency["verdict"]["64"] != "faster"
        assert info["result"]["speed"] == latency["verdict"]
    report = (made / "vit" / "report.html").read_text()
    assert "CPU time" in report
    assert "Check of the runtime" in report


def test_people_read_whether_it_is_faster(made, capsys):
    _print_run(recorded(Run.open(made / "vit").info["result"], made / "vit"), made / "vit")
    verdicts = Run.open(made / "vit").info["latency"]["verdict"]
    text = " ".join(capsys.readouterr().out.split())
    for size, verdict in verdicts.items():
        assert f"{verdict} at batch {size}" in text
    assert "compared with float32" in text


def test_files_are_classified_by_the_deployed_file(made, pattern_folder, pattern_store, learned):
    files = sorted((pattern_folder / "pictures" / "val").rglob("*.png"))[:4]
    found = seit.predict(made / "vit", files=files).predictions
    before = seit.predict(learned, files=files).predictions
    assert [len(one.classes) for one in found] == [3] * len(files)
    for one, other in zip(found, before, strict=True):
        assert one.classes != other.classes  # of other precision
        assert dict(one.classes) == pytest.approx(dict(other.classes), abs=0.05)


def test_features_are_those_of_the_weights(made, pattern_store, tmp_path):
    result = seit.embed(made / "vit", store=pattern_store, out=tmp_path / "f.safetensors")
    assert result.samples == len(pattern_store["val"])


def test_the_file_is_exported_with_and_without_the_tokenizer(made, pattern_store, tmp_path):
    out = tmp_path / "out"
    result = seit.export(made / "vit", out=out, formats=["onnx", "safetensors"])
    by_name = {one.name: one for one in result.files}
    own = onnx.load(made / "vit" / PROGRAM_NAME)
    exported = onnx.load(out / "classifier.onnx")
    assert exported.graph == own.graph
    assert {one.key for one in exported.metadata_props} == {"classes", "seit"}
    assert by_name["classifier.onnx"].logit_difference == 0
    both = by_name["image_classifier.onnx"]
    assert both.logit_difference < 1e-6
    assert both.equal_tokens >= 0.999
    joined = onnx.load(out / "image_classifier.onnx")
    onnx.checker.check_model(joined, full_check=True)
    assert [one.name for one in joined.graph.output] == ["logits", "tokens"]
    assert any(node.op_type == "MatMulInteger" for node in joined.graph.node)
    with pytest.raises(UsageError, match="opset 20; leave --opset out"):
        seit.export(made / "vit", out=tmp_path / "other", opset=18)


def test_layers_can_be_left_in_float(learned, pattern_store):
    config = plan_run("compress", pattern_store, init_from=learned, **SAMPLES)
    assert isinstance(config, CompressConfig)
    subject = Subject.open(Run.open(learned), config, pattern_store)
    builder = Builder.of_subject(subject, static=False)
    known = set(subject.model.state_dict())
    assert all(f"{layer}.weight" in known for layer in builder.layers)
    labels = torch.from_numpy(builder.expected.argmax(1))
    batches = [(torch.from_numpy(builder.ids), labels)]
    assert builder.top1(batches, frozenset(builder.layers)) == 1.0
    assert builder.top1(batches, frozenset()) >= 0.8
    wide = frozenset({"blocks.1.mlp.fc1"})
    assert len(builder.make(wide).data) > len(builder.make().data)


def test_accuracy_control_leaves_layers_in_float(
    made, learned, pattern_store, tmp_path, monkeypatch
):
    """Accuracy that returns when two layers are back in float."""
    monkeypatch.setattr(Builder, "top1", lambda _, __, left: 1.0 if len(left) >= 2 else 0.0)
    settings = {**SAMPLES, "compression.max_drop": 0.2}
    result = seit.compress(
        learned, store=pattern_store, out=tmp_path / "run", method="int8", **settings
    )
    note = Run.open(tmp_path / "run").info["accuracy_control"]
    assert len(note["kept_float"]) == 2
    assert note["top1"] == [0.0, 0.0, 1.0]
    assert note["drop"] <= 0.2
    nodes = onnx.load(tmp_path / "run" / PROGRAM_NAME).graph.node
    whole = onnx.load(made / "vit" / PROGRAM_NAME).graph.node
    counts = [sum(one.op_type == "MatMulInteger" for one in own) for own in (nodes, whole)]
    assert counts[0] == counts[1] - 2
    assert result.bytes < result.bytes_before
    layers = {one.name: one for one in RunTarget(tmp_path / "run").counts().layers}
    in_float = {name for name, one in layers.items() if one.activation_bits == 32}
    assert {one.name for one in layers.values() if one.weight_bits == 8} == layers.keys() - in_float
    assert {*note["kept_float"], "blocks.0.attn"} < in_float
    assert layers[note["kept_float"][0]].weight_bits == 32


def weights(*shape):
    return np.ones(shape, dtype=np.float32)


def hostile(change):
    model = classifier(weights(16, 8), weights(32, 3))
    change(model)
    return model.SerializeToString()


def point_outside(model):
    tensor = model.graph.initializer[0]
    tensor.data_location = onnx.TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "../../etc/passwd"


def point_outside_from_an_operator(model):
    body = onnx.helper.make_graph([], "body", [], [], [onnx.TensorProto()])
    body.initializer[0].data_location = onnx.TensorProto.EXTERNAL
    model.graph.node[1].attribute.append(onnx.helper.make_attribute("body", body))


def name_no_text(data):
    return data.replace(b"batch", b"bat\xff\xfe")


def use_custom(model):
    model.graph.node[0].domain = "evil"


def loop(model):
    body = onnx.helper.make_graph([], "body", [], [])
    body.node.add().op_type = "Identity"
    model.graph.node.append(onnx.helper.make_node("Loop", ["", ""], ["never"], body=body))


def grow(model):
    size = onnx.numpy_helper.from_array(np.array([1 << 20, 1 << 16]), "size")
    model.graph.initializer.append(size)
    model.graph.node.append(onnx.helper.make_node("ConstantOfShape", ["size"], ["huge"]))


def grow_by_data(model):
    model.graph.node.append(onnx.helper.make_node("NonZero", ["tokens"], ["found"]))


def call_function(model):
    model.functions.add().name = "f"


def take_other_ids(model):
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (point_outside, "reads other files"),
        (point_outside_from_an_operator, "holds a graph in its operator 'Reshape'"),
        (use_custom, "uses the operator 'Gather' of 'evil'"),
        (loop, "holds a graph in its operator 'Loop'"),
        (grow, "takes over 4,294,967,296 bytes for one sample"),
        (grow_by_data, "computes 'found' of unknown size"),
        (call_function, "holds functions"),
        (take_other_ids, "takes .* not ids of grids"),
    ],
)
def test_a_strangers_file_is_bounded(change, message):
    with pytest.raises(DamagedError, match=message):
        OnnxClassifier(hostile(change), grid=(2, 2), num_classes=3, origin="x.onnx")


def test_names_that_are_no_text_are_refused_silently(capsys):
    data = name_no_text(hostile(lambda _: None))
    with pytest.raises(DamagedError, match="is refused by ONNX Runtime"):
        OnnxClassifier(data, grid=(2, 2), num_classes=3, origin="x.onnx")
    assert capsys.readouterr().out == "", "of the runtime itself"


def test_a_plain_file_is_taken():
    plain = OnnxClassifier(hostile(lambda _: None), grid=(2, 2), num_classes=3, origin="x.onnx")
    assert torch.equal(plain(torch.zeros(130, 2, 2)), torch.full((130, 3), 32.0))
    with pytest.raises(DamagedError, match="not logits of 4 classes"):
        OnnxClassifier(hostile(lambda _: None), grid=(2, 2), num_classes=4, origin="x.onnx")
    with pytest.raises(DamagedError, match="is no ONNX file"):
        OnnxClassifier(b"\xff" * 40, grid=(2, 2), num_classes=4, origin="x.onnx")


def test_a_missing_file_or_runtime_is_said_in_a_line(made, pattern_store, tmp_path, monkeypatch):
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in (made / "vit").iterdir():
        if path.is_file() and path.name != PROGRAM_NAME:
            (copy / path.name).write_bytes(path.read_bytes())
    with pytest.raises(UsageError, match=f"has no {PROGRAM_NAME}"):
        seit.evaluate(copy, store=pattern_store)
    monkeypatch.setattr("seit.extras.find_spec", lambda name: None if "runtime" in name else name)
    with pytest.raises(UsageError, match=r"need onnxruntime; run: pip install 'onnx>=") as error:
        seit.evaluate(made / "vit", store=pattern_store)
    assert "\n" not in str(error.value)
    with pytest.raises(UsageError, match="need onnxruntime"):
        seit.compress(made / "resnet", store=pattern_store, out=tmp_path / "none", method="int8")
    assert not (tmp_path / "none").exists()
