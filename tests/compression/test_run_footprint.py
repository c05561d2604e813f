"""Footprint in `run.json` and in the report of trained and of compressed runs."""

import json

import pytest
from support.processes import forked_measurement

import seit
from seit.models import TUNINGS
from seit.training import Run, read_footprint, write_run_report

DIM, DEPTH, TOKENS = 32, 2, 17


@pytest.fixture(scope="module")
def packed(learned, pattern_store, tmp_path_factory):
    """Return a finished run of four-bit weights."""
    out = tmp_path_factory.mktemp("packed") / "w4"
    settings = {"compression.measure": True}
    with forked_measurement():
        seit.compress(learned, store=pattern_store, out=out, method="w4", **settings)
    return Run.open(out)


def test_a_trained_run_says_what_it_takes(learned):
    run = Run.open(learned)
    found = read_footprint(run.info, origin="run")
    weights = run.load_weights()
    assert found.parameters == sum(one.numel() for one in weights.values())
    assert found.bytes == (learned / "model.safetensors").stat().st_size
    assert found.bops == found.flops // 2 * 32 * 32
    assert "Footprint" in (learned / "report.html").read_text()


def test_packed_weights_count_in_what_they_take(packed, learned):
    found = read_footprint(packed.info, origin="run")
    before = read_footprint(Run.open(learned).info, origin="run")
    assert (found.parameters, found.flops) == (before.parameters, before.flops)
    blocks = 12 * DIM**2 * DEPTH
    weights = packed.load_stored()[1].quantized
    edge = sum(grid.rows * grid.columns for grid in weights.values() if grid.bits == 8)
    zeros = sum(grid.rows for grid in weights.values())
    assert found.bytes_by_dtype["uint8"] == blocks // 2 + edge + zeros
    assert found.bytes_by_dtype["float16"] == 2 * zeros
    attention = 2 * TOKENS**2 * DIM * DEPTH
    edges = found.flops // 2 - TOKENS * blocks - attention
    assert found.bops == 32 * (TOKENS * blocks * 4 + edges * 8 + attention * 32)


def test_a_compressed_run_is_measured_at_its_end(packed):
    result = packed.info["result"]
    assert result["flops"] == packed.info["footprint"]["flops"]
    assert result["peak_memory_bytes"] > 0
    assert 0 < result["latency_ms"]["1"]["p50"] < result["latency_ms"]["64"]["p95"]


def test_older_runs_open_without_a_footprint(packed):
    info = packed.info
    del info["footprint"]
    packed.path.joinpath("run.json").write_text(json.dumps(info))
    write_run_report(packed)
    assert "Footprint" not in (packed.path / "report.html").read_text()


@pytest.mark.parametrize("method", ["lora", "adapter"])
def test_tuned_and_pretrained_runs_have_one(method, learned, pattern_store, tmp_path):
    seit.tune(pattern_store, out=tmp_path / "run", init_from=learned, method=method, steps=1)
    found = read_footprint(Run.open(tmp_path / "run").info, origin="run")
    base = read_footprint(Run.open(learned).info, origin="run")
    is_merged = TUNINGS[method].mergeable
    assert (found.parameters == base.parameters) is is_merged
    assert (found.flops == base.flops) is is_merged


def test_a_pretrained_encoder_has_one(pattern_store, tmp_path):
    from support.pretraining import CONFIG, changed

    config = changed(CONFIG, schedule={"steps": 1}, run={"eval_every": 1})
    seit.pretrain(pattern_store, out=tmp_path / "run", config=config)
    run = Run.open(tmp_path / "run")
    found = read_footprint(run.info, origin="run")
    assert found.parameters == sum(one.numel() for one in run.load_weights().values())
    assert found.flops > 0
    assert "Footprint" in (run.path / "report.html").read_text()
