"""`seit footprint`: what is counted and measured, and what is refused."""

import io
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from support.processes import forked_measurement

import seit
from seit.cli import main
from seit.compression.footprint import child
from seit.compression.footprint.clock import time_calls
from seit.compression.footprint.energy import JouleMeter, relative_energy
from seit.compression.footprint.measure import measure_apart
from seit.compression.footprint.page import write_footprint_page
from seit.compression.footprint.targets.base import Counts, Target
from seit.compression.footprint.targets.onnx import OnnxFile
from seit.compression.footprint.targets.registry import TARGETS, open_target
from seit.compression.footprint.targets.runs import RunTarget
from seit.compression.footprint.targets.tokenizers import TokenizerTarget
from seit.compression.tokenizer import with_few_bits
from seit.errors import DamagedError, SeitError, UsageError
from seit.tokenizers import open_tokenizer, save_tokenizer
from seit.training import Footprint, LayerFootprint, Run

QUICK = {"seconds": 0.2, "batch_size": (1, 4)}


@pytest.fixture(scope="module")
def measured(learned, tmp_path_factory):
    """Return the footprint of a run, and its page."""
    page = tmp_path_factory.mktemp("footprint") / "page.html"
    return seit.footprint(learned, out=page, **QUICK), page


def test_a_run_is_measured(measured, learned):
    found, page = measured
    counted = Run.open(learned).info["footprint"]
    for name, value in counted.items():
        assert getattr(found, name) == value, name
    assert set(found.latency_ms) == {"1", "4"}
    for one in found.latency_ms.values():
        assert 0 < one.p50 <= one.p95
        assert one.repeats >= 3
        assert one.thread_p50 <= one.cpu_p50 * 1.05 + 0.01
    assert found.samples_per_second == pytest.approx(4000 / found.latency_ms["4"].p50)
    assert found.cold_start_seconds > found.latency_ms["1"].p50 / 1000
    assert found.peak_memory_bytes == found.peak_rss_bytes - found.rss_before_bytes > 0
    assert sum(one.flops for one in found.layers) == found.flops
    record = json.loads(json.dumps(found.record()))
    assert record["latency_ms"]["1"]["p95"] >= record["latency_ms"]["1"]["p50"]
    text = page.read_text()
    assert "blocks.0.attn.qkv" in text
    assert found.cpu["name"] in text


def test_the_command_prints_a_table_or_one_object(measured, monkeypatch, capsys):
    found, _ = measured
    asked = []

    def footprint(path, **settings):
        asked.append((path, settings))
        return found

    monkeypatch.setattr("seit.api.footprint", footprint)
    main(["footprint", "run", "--batch-size", "1", "4", "--threads", "2", "--json"])
    assert json.loads(capsys.readouterr().out) == json.loads(json.dumps(found.record()))
    main(["footprint", "run"])
    printed = capsys.readouterr().out
    for text in ("parameters", "peak memory", "batch of 4", "975.3 k"):
        assert text in printed
    (first, given), (_, default) = asked
    assert (first, given["batch_size"], given["threads"]) == ("run", [1, 4], 2)
    assert default["batch_size"] == (1, 64)


def test_the_median_is_that_of_an_independent_loop():
    """A floor of the command: within 15 %; processor times, as machines are shared."""
    weight, inputs = torch.randn(256, 256), torch.randn(64, 256)

    def call():
        return torch.nn.functional.gelu(inputs @ weight)

    for _ in range(3):
        found = time_calls(call, seconds=0.3)
        own = []
        for _ in range(found.repeats):
            before = time.thread_time_ns()
            call()
            own.append(time.thread_time_ns() - before)
        if found.thread_p50 == pytest.approx(np.median(own) / 1e6, rel=0.15):
            return
    pytest.fail(f"{found.thread_p50} ms, and {np.median(own) / 1e6} ms in a loop")


def test_sleeping_takes_time_but_no_processor():
    found = time_calls(lambda: time.sleep(0.02), seconds=0.2)
    assert found.repeats >= 3
    assert 20 <= found.p50 < 60
    assert found.thread_p50 < 2


def test_a_slow_call_ends_in_time():
    started = time.perf_counter()
    found = time_calls(lambda: time.sleep(0.1), seconds=0.05)
    assert found.repeats == 3
    assert time.perf_counter() - started < 3


@pytest.mark.parametrize("megabytes", [64, 256])
def test_memory_is_what_a_module_allocates(megabytes):
    script = f"""
import numpy as np
from seit.compression.footprint.memory import peak_bytes, reset_peak, resident_bytes
early = np.ones(512 << 20, np.uint8); del early  # a peak before the measurement
reset_peak(); before = resident_bytes()
held = np.ones({megabytes} << 20, np.uint8); del held
print(peak_bytes() - before)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) == pytest.approx(megabytes << 20, rel=0.05)


@pytest.mark.parametrize(
    ("weights", "activations", "picojoules"),
    [(None, 32, 4.6), (32, 32, 4.6), (4, 32, 4.6), (8, 8, 0.3), (4, 8, 0.3), (16, 16, 1.5)],
)
def test_energy_is_that_of_the_formula(weights, activations, picojoules):
    layer = LayerFootprint(
        name="layer",
        parameters=1000,
        nonzero_parameters=1000,
        bytes=1000,
        flops=20_000,
        weight_bits=weights,
        activation_bits=activations,
    )
    expected = (10_000 * picojoules + 1500 * 162.5) / (10_000 * 4.6 + 4000 * 162.5)
    assert relative_energy([layer], num_bytes=1500) == pytest.approx(expected)


def test_joules_are_read_where_the_processor_counts_them(tmp_path):
    assert JouleMeter(tmp_path).joules() is None
    for index, count in enumerate((900, 100)):
        package = tmp_path / f"intel-rapl:{index}"
        package.mkdir()
        (package / "name").write_text(f"package-{index}\n")
        (package / "energy_uj").write_text(f"{count}\n")
        (package / "max_energy_range_uj").write_text("1000\n")
    for domain, name in (("intel-rapl:2", "psys"), ("intel-rapl:0:0", "core")):
        shutil.copytree(tmp_path / "intel-rapl:0", tmp_path / domain)
        (tmp_path / domain / "name").write_text(f"{name}\n")
    meter = JouleMeter(tmp_path)
    (tmp_path / "intel-rapl:0" / "energy_uj").write_text("50\n")  # it wrapped
    (tmp_path / "intel-rapl:1" / "energy_uj").write_text("300\n")
    assert meter.joules() == pytest.approx((150 + 200) * 1e-6)
    (tmp_path / "intel-rapl:1" / "energy_uj").unlink()
    assert meter.joules() is None


class JouleACall(Target):
    """A network whose every call takes a joule, by a meter of its own."""

    kind = "joules"
    calls = 0

    @classmethod
    def fits(cls, path):
        return False

    def prepare(self):
        pass

    def load(self, threads):
        return self

    def call(self, batch_size):
        def call():
            JouleACall.calls += 1

        return call

    def counts(self):
        whole = Footprint(
            parameters=1, nonzero_parameters=1, bytes=4, bytes_by_dtype={}, flops=None, bops=None
        )
        return Counts(name="", runtime="", whole=whole, layers=())


class CountingMeter:
    def __init__(self):
        self.before = JouleACall.calls

    def joules(self):
        return float(JouleACall.calls - self.before)


def test_joules_are_those_of_the_calls_that_are_timed(monkeypatch):
    monkeypatch.setitem(TARGETS, "joules", JouleACall)
    monkeypatch.setattr("seit.compression.footprint.energy.JouleMeter", CountingMeter)
    monkeypatch.setattr(child, "_bound_memory", lambda: None)
    request = {"kind": "joules", "path": "x", "threads": torch.get_num_threads()}
    figures = child._measure(request | {"batch_sizes": [2], "seconds": 0.0}, io.StringIO())
    assert figures["joules_per_sample"] == 0.5


def test_bytes_of_a_tokenizer_of_few_bits_are_those_of_its_file(tmp_path):
    tokenizer = open_tokenizer("conv-vq-f8-1024-lite")
    dense = TokenizerTarget(Path("conv-vq-f8-1024-lite")).counts().whole
    path = tmp_path / "few.safetensors"
    save_tokenizer(with_few_bits(tokenizer, bits=4), path)
    counts = TokenizerTarget(path).counts()
    whole, held = counts.whole, sum(counts.whole.bytes_by_dtype.values())
    assert whole.parameters == dense.parameters
    assert whole.bytes_by_dtype.keys() == {"float16", "float32", "uint8"}
    assert whole.bytes - 200_000 < held <= whole.bytes == path.stat().st_size
    assert sum(layer.bytes for layer in counts.layers) == held
    assert {layer.weight_bits for layer in counts.layers} == {None, 4}
    assert whole.bops is None


def test_a_tokenizer_is_counted_by_its_encoder():
    counts = TokenizerTarget(Path("conv-vq-f8-1024")).counts()
    tokenizer = open_tokenizer("conv-vq-f8-1024")
    tensors = [*tokenizer.tensors().values(), tokenizer.codebook]
    assert counts.whole.parameters == sum(one.numel() for one in tensors)
    nearest = 2 * 32 * 32 * tokenizer.codebook.numel()
    assert counts.whole.flops > nearest
    call = TokenizerTarget(Path("conv-vq-f8-1024")).load(1).call(2)
    assert call().shape == (2, 32, 32)


def matrices(path, *, quantized=False, **changes):
    """Write an ONNX file: ids (B, 4) → look-up → product with a matrix (8, 5)."""
    weight = np.arange(40, dtype=np.float32).reshape(8, 5)
    table = np.ones((10, 8), np.float32)
    initializers = [numpy_helper.from_array(table, "table")]
    nodes = [helper.make_node("Gather", ["table", "ids"], ["x"])]
    if quantized:
        initializers.append(numpy_helper.from_array(weight.astype(np.uint8), "weight"))
        nodes.append(helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"]))
        nodes.append(helper.make_node("MatMulInteger", ["q", "weight", "z"], ["y"]))
    else:
        initializers.append(numpy_helper.from_array(weight, "weight"))
        nodes.append(helper.make_node("MatMul", ["x", "weight"], ["y"]))
    kind = TensorProto.INT32 if quantized else TensorProto.FLOAT
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, ["batch", 4])],
        [helper.make_tensor_value_info("y", kind, ["batch", 4, 5])],
        initializers,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    for change in changes.values():
        change(model)
    path.write_bytes(model.SerializeToString())
    return path


@pytest.mark.parametrize(("quantized", "bits"), [(False, 32 * 32), (True, 8 * 8)])
def test_an_onnx_file_is_counted_exactly(tmp_path, quantized, bits):
    path = matrices(tmp_path / "model.onnx", quantized=quantized)
    whole = OnnxFile(path).counts().whole
    assert (whole.parameters, whole.nonzero_parameters) == (120, 119)
    assert whole.flops == 2 * 4 * 8 * 5
    assert whole.bops == 4 * 8 * 5 * bits
    assert whole.bytes == path.stat().st_size
    assert sum(whole.bytes_by_dtype.values()) == 320 + (40 if quantized else 160)


@pytest.mark.slow
def test_an_onnx_file_is_measured(tmp_path):
    found = seit.footprint(matrices(tmp_path / "model.onnx"), **QUICK)
    assert found.runtime == "ONNX Runtime"
    assert found.latency_ms["4"].repeats >= 3
    assert found.flops == 320


def test_operators_of_other_domains_have_unknown_operations(tmp_path):
    def rename(model):
        model.graph.node[1].domain = "com.microsoft"

    whole = OnnxFile(matrices(tmp_path / "model.onnx", rename=rename)).counts().whole
    assert (whole.flops, whole.bops) == (None, None)
    assert whole.parameters == 120


@pytest.fixture(scope="session")
def exported(made_once, learned):
    """Return the ONNX file of the run."""

    def make(folder):
        seit.export(learned, out=folder / "out", formats=["onnx"], inputs=["tokens"])

    return made_once("learned-onnx", make) / "out" / "classifier.onnx"


def test_an_exported_run_counts_as_the_run_does(learned, exported):
    program = OnnxFile(exported).counts().whole
    run = RunTarget(learned).counts().whole
    assert program.flops == run.flops
    assert program.bops == run.bops


def test_a_run_with_a_program_is_measured_in_that(learned, exported, pattern_store, tmp_path):
    run = tmp_path / "run"
    seit.compress(learned, store=pattern_store, out=run, method="w8")
    before = RunTarget(run).counts().whole
    program = exported.read_bytes()
    (run / "classifier.int8.onnx").write_bytes(program)
    counts = RunTarget(run).counts()
    assert counts.runtime == "ONNX Runtime"
    assert counts.whole.bytes == len(program)
    assert (counts.whole.flops, counts.whole.parameters) == (before.flops, before.parameters)
    attention = 2 * 17**2 * 32 * 2
    assert counts.whole.bops == (before.flops // 2 - attention) * 8 * 8 + attention * 32 * 32
    (logits,) = RunTarget(run).load(1).call(2)()
    assert logits.shape == (2, 3)


def external(model):
    tensor = model.graph.initializer[1]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "../secret"


def external_in_a_branch(model):
    weight = numpy_helper.from_array(np.ones(2, np.float32), "inner")
    weight.data_location = TensorProto.EXTERNAL
    branch = helper.make_graph([], "branch", [], [], [weight])
    model.graph.node[1].attribute.append(helper.make_attribute("then_branch", branch))


def fixed(model):
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 3


def unknown(model):
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_param = "length"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (external, "keeps weights in other files"),
        (external_in_a_branch, "keeps weights in other files"),
        (fixed, "pass --batch-size 3"),
        (unknown, "only batches of tensors of one size"),
    ],
)
def test_onnx_files_that_cannot_be_measured_are_refused(tmp_path, change, words):
    target = OnnxFile(matrices(tmp_path / "model.onnx", change=change))

    def measure():
        target.prepare()
        target.load(1).call(2)

    with pytest.raises(UsageError, match=words):
        measure()


def resized(*dims):
    def change(model):
        model.graph.initializer[1].dims[:] = dims

    return change


def retyped(model):
    model.graph.initializer[1].data_type = 999


def without_outputs(model):
    del model.graph.node[1].output[:]


@pytest.mark.parametrize(
    "change", [resized(1 << 40, 1 << 40), resized(3, 3), resized(-1), retyped, without_outputs]
)
def test_graphs_that_do_not_hold_what_they_declare_are_damaged(tmp_path, change):
    path = matrices(tmp_path / "model.onnx", change=change)
    with pytest.raises(DamagedError, match=r"model\.onnx is not an intact ONNX file"):
        OnnxFile(path).counts()


@pytest.mark.parametrize("data", [b"", b"\xff" * 400, b"PK\x03\x04" + bytes(100)])
def test_corrupt_onnx_files_are_damaged(tmp_path, data):
    path = tmp_path / "model.onnx"
    path.write_bytes(data)
    with pytest.raises(DamagedError, match=r"model\.onnx"):
        OnnxFile(path).counts()


def test_a_missing_package_is_one_line(tmp_path, monkeypatch):
    path = matrices(tmp_path / "model.onnx")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if "onnx" in name else 1)
    with pytest.raises(UsageError, match="pip install onnx onnxruntime"):
        OnnxFile(path).prepare()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"batch_size": ()}, "--batch-size is empty"),
        ({"batch_size": (0,)}, "--batch-size is 0"),
        ({"threads": 0}, "--threads is 0"),
        ({"seconds": 0.0}, "--seconds is 0.0"),
        ({"seconds": float("nan")}, "--seconds is nan"),
    ],
)
def test_settings_out_of_range_are_refused(learned, settings, words):
    with pytest.raises(UsageError, match=words):
        seit.footprint(learned, **settings)


def test_what_cannot_be_measured_is_refused(tmp_path, learned):
    with pytest.raises(UsageError, match="is nothing; name a finished run"):
        open_target(tmp_path / "missing")
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(UsageError, match="is neither"):
        open_target(tmp_path / "notes.txt")
    with pytest.raises(UsageError, match="no run at"):
        open_target(tmp_path).prepare()
    page = tmp_path / "page.html"
    page.write_text("mine")
    with pytest.raises(UsageError, match="exists"):
        seit.footprint(learned, out=page)
    assert page.read_text() == "mine"


def test_runs_of_several_networks_and_unfinished_ones_are_refused(monkeypatch, learned, tmp_path):
    target = RunTarget(learned)
    info = Run.open(learned).info
    monkeypatch.setattr(Run, "info", property(lambda _: info | {"kind": "continual"}))
    with pytest.raises(UsageError, match="no single network"):
        target.prepare()
    monkeypatch.undo()
    for name in ("config.yaml", "run.json", "tokenizer.safetensors"):
        (tmp_path / name).write_bytes((learned / name).read_bytes())
    with pytest.raises(UsageError, match="has not finished; resume it"):
        RunTarget(tmp_path).counts()


def test_errors_of_the_measuring_process_are_one_line(tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(b"\xff" * 100)
    limits = {"batch_sizes": (1,), "threads": 1, "seconds": 0.1}
    with (
        forked_measurement(),
        pytest.raises(SeitError, match="not an intact ONNX file") as caught,
    ):
        measure_apart("onnx", path, **limits)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_an_unknown_kind_is_refused_by_the_measuring_process(tmp_path):
    with pytest.raises(SeitError, match="cannot be measured"):
        measure_apart("unheard", tmp_path, batch_sizes=(1,), threads=1, seconds=0.1)


def test_a_page_escapes_what_files_say(measured, tmp_path):
    found, _ = measured
    hostile = SimpleNamespace(**(vars(found) | {"name": "<script>alert(1)</script>"}))
    write_footprint_page(tmp_path / "page.html", hostile, title="<b>")
    text = (tmp_path / "page.html").read_text()
    assert "<script>alert" not in text
    assert "<b>" not in text


def test_onnx_checker_accepts_the_test_files(tmp_path):
    onnx.checker.check_model(str(matrices(tmp_path / "model.onnx")))
