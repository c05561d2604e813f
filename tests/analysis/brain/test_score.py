"""`seit analyze brain`: planted layers are found, and recordings that do not fit are refused."""

import json

import numpy as np
import pytest
from support.stories import RUNS, TR, Stories, write_responses

from seit.analysis.brain import score
from seit.analysis.brain.config import BrainConfig
from seit.analysis.brain.recordings import read_recordings
from seit.analysis.brain.score import score_brain
from seit.analysis.subjects.base import Place
from seit.errors import UsageError
from seit.tensors import read_arrays


def test_the_planted_layer_predicts_best(tmp_path):
    recordings = read_recordings(write_responses(tmp_path / "responses"))
    assert list(recordings.runs) == ["p", "q", "r"]
    assert recordings.num_targets == 6
    config = BrainConfig(tr=TR, nulls=9, trim=2)
    result = score_brain(Stories(), recordings, config, out=tmp_path / "out")
    assert result.best_layer == "layers.2"
    assert set(result.best_layers) == {"layers.2"}
    best = result.layers[2]
    assert best.score > 0.8
    assert best.p == pytest.approx(0.1)
    assert best.discovered == 0
    for layer in (*result.layers[:2], *result.controls[0].layers):
        assert abs(layer.score) < 0.25
    ceiling = result.ceilings["one person, from pairs"]
    assert best.score < ceiling + 0.02 < 1.0
    paired = result.paired[0]
    assert (paired.layer, paired.units) == ("layers.2", "people")
    assert paired.difference > 0.5
    assert paired.p == 2 / 8
    assert read_arrays(tmp_path / "out" / "scores.safetensors")["layers.2"].shape == (3, 6)
    written = json.loads((tmp_path / "out" / "brain.json").read_text())
    assert written == json.loads(json.dumps(result.record()))
    report = (tmp_path / "out" / "report.html").read_text()
    assert "Against the controls" in report
    assert "With 9 shifts none can be found" in report


def test_delays_find_it_too_for_one_person(tmp_path):
    recordings = read_recordings(write_responses(tmp_path / "responses", people=("p",)))
    config = BrainConfig(tr=TR, response="delays", delays=10, nulls=2, random_twin=False)
    result = score_brain(Stories(), recordings, config)
    assert result.best_layer == "layers.2"
    assert result.layers[2].score > 0.5
    assert result.ceilings == {}


def test_files_of_all_kinds(tmp_path):
    values = np.arange(8.0).reshape(4, 2) ** 2
    np.savez(tmp_path / "b.npz", responses=values, other=np.zeros(3))
    (tmp_path / "c.csv").write_text("left,right\n1,2\n4,9\n")
    np.save(tmp_path / "a.npy", np.column_stack([values[:, 0], np.ones(4)]))
    recordings = read_recordings(tmp_path)
    assert list(recordings.runs["responses"]) == ["a", "b", "c"]
    assert recordings.kept == (0,)
    assert recordings.runs["responses"]["c"].tolist() == [[1.0], [4.0]]


def test_recordings_that_do_not_fit_are_refused(tmp_path):
    with pytest.raises(UsageError, match="holds no responses"):
        read_recordings(tmp_path)
    folder = write_responses(tmp_path / "responses")
    values = np.load(folder / "p" / "b.npy")
    np.save(folder / "p" / "b.npy", np.where(np.arange(len(values))[:, None] == 3, np.nan, values))
    with pytest.raises(UsageError, match="1 sample with NaN"):
        read_recordings(folder)
    np.save(folder / "p" / "b.npy", values[:-1])
    with pytest.raises(UsageError, match="the run b has 119 samples for p and 120 for q"):
        score_brain(Stories(), read_recordings(folder), BrainConfig(tr=TR))
    np.save(folder / "p" / "b.npy", values[:, :2])
    with pytest.raises(UsageError, match="2, 6 targets"):
        read_recordings(folder)
    (folder / "p" / "b.npy").unlink()
    with pytest.raises(UsageError, match="the run b is not there"):
        score_brain(Stories(), read_recordings(folder), BrainConfig(tr=TR))
    np.save(tmp_path / "responses" / "p" / "c.npy", np.array([{}]), allow_pickle=True)
    with pytest.raises(UsageError, match="cannot be read"):
        read_recordings(folder)
    for broken in (b"", b"PK\x03\x04 no archive"):
        (folder / "p" / "c.npy").write_bytes(broken)
        with pytest.raises(UsageError, match="cannot be read"):
            read_recordings(folder)
    (folder / "p" / "c.npy").rename(folder / "p" / "c.npz")
    with pytest.raises(UsageError, match=r"c\.npz cannot be read"):
        read_recordings(folder)


def test_runs_without_a_stimulus_are_named(tmp_path):
    folder = write_responses(tmp_path / "responses", people=("p",))
    (folder / "p" / "b.npy").rename(folder / "p" / "d.npy")
    with pytest.raises(UsageError, match=r"no stimulus of 1 run \(the first: d\)"):
        score_brain(Stories(), read_recordings(folder), BrainConfig(tr=TR))


def test_images_have_no_time(tmp_path):
    class Pictures(Stories):
        @property
        def places(self):
            return [Place(f"{run}.png", f"{run}.png", -1) for run in RUNS]

    with pytest.raises(UsageError, match="reads images, which have no time"):
        score_brain(
            Pictures(), read_recordings(write_responses(tmp_path / "r")), BrainConfig(tr=TR)
        )


def test_an_interrupted_analysis_resumes_at_the_next_layer(tmp_path, monkeypatch):
    recordings = read_recordings(write_responses(tmp_path / "responses", people=("p",)))
    config = BrainConfig(tr=TR, nulls=2)
    whole = score_brain(Stories(), recordings, config, out=tmp_path / "whole")
    read = []
    layer_of = score._layer

    def counted(layer, *rest):
        if len(read) == 5:
            raise InterruptedError
        read.append(layer)
        return layer_of(layer, *rest)

    monkeypatch.setattr(score, "_layer", counted)
    with pytest.raises(InterruptedError):
        score_brain(Stories(), recordings, config, out=tmp_path / "parts")
    read.clear()
    parts = score_brain(Stories(), recordings, config, out=tmp_path / "parts", resume=True)
    assert read == ["layers.1", "layers.2", "layers.3"], "of the random twin"
    assert {**parts.record(), "out": None} == {**whole.record(), "out": None}
    both = [read_arrays(tmp_path / name / "scores.safetensors") for name in ("parts", "whole")]
    assert all(np.array_equal(both[0][layer], both[1][layer]) for layer in Stories.layers)
    assert not (tmp_path / "parts" / "unfinished").exists()
