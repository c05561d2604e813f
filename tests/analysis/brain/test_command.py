"""`seit analyze brain` from the command line and from Python, on a speech model and its sounds."""

import json

import numpy as np
import pytest
import soundfile
from support.speech import reference, save

import seit
from seit.analysis import BrainConfig
from seit.cli import main
from seit.config import build
from seit.errors import UsageError

TR = 0.5


@pytest.fixture
def place(tmp_path):
    random = np.random.default_rng(0)
    save(reference("hubert"), tmp_path / "hubert")
    for run in ("a", "b"):
        path = tmp_path / "sounds" / f"{run}.wav"
        path.parent.mkdir(exist_ok=True)
        soundfile.write(path, 0.1 * random.normal(size=8 * 16_000), 16_000)
        (tmp_path / "bold").mkdir(exist_ok=True)
        np.save(tmp_path / "bold" / f"{run}.npy", random.normal(size=(16, 3)))
    return tmp_path


def test_the_command_and_python_agree(place, capsys):
    subject, sounds, bold = f"hf:{place / 'hubert'}", place / "sounds", place / "bold"
    flags = ["--responses", bold, "--tr", TR, "--nulls", 2, "--shift", 2, "--no-random-twin"]
    main(["analyze", "brain", subject, *map(str, (sounds, *flags)), "--json"])
    printed = json.loads(capsys.readouterr().out)
    found = seit.analyze(
        subject,
        data=sounds,
        method="brain",
        responses=bold,
        tr=TR,
        nulls=2,
        shift=2,
        random_twin=False,
    )
    assert printed == json.loads(json.dumps(found.record()))
    assert [layer.name for layer in found.layers] == ["stem", "layers.0", "layers.1"]
    assert (found.runs, found.targets) == (2, 3)


def test_settings_without_a_default_are_asked_for():
    assert build(BrainConfig, {"tr": 2}, origin="settings") == BrainConfig(tr=2.0)
    with pytest.raises(UsageError, match=r"settings: .*missing required field tr"):
        build(BrainConfig, {"delays": 4}, origin="settings")
