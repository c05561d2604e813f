"""Kinds of run: named in `run.json`, and recognized where an earlier version did not name them."""

import json

import pytest
from support.continual import CONFIG as CONTINUAL
from support.pretraining import CONFIG as PRETRAIN
from support.stores import build_store

import seit
from seit.compression import CompressConfig
from seit.errors import UsageError
from seit.tokenizer_training import TokenAdaptConfig, TokenizerConfig
from seit.training.config import TrainConfig
from seit.training.kinds import KINDS, kind_of
from seit.training.run import Run
from seit.training.speech.config import SpeechTuneConfig
from seit.training.tuning.config import TuneConfig

CONFIGS = {
    "train": TrainConfig(),
    "tune-speech": SpeechTuneConfig(),
    "tune": TuneConfig(init_from="backbone"),
    "compress": CompressConfig(init_from="classifier"),
    "pretrain": PRETRAIN,
    "continual": CONTINUAL,
    "tokenizer": TokenizerConfig(),
    "token-adapt": TokenAdaptConfig(),
}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    path = tmp_path_factory.mktemp("store")
    build_store(path / "store")
    return seit.open(path / "store")


def change_info(run, **changes):
    path = run.path / "run.json"
    info = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: one for key, one in info.items() if one is not None}))


def test_the_table_names_every_kind_and_its_settings():
    assert {kind.name: kind.settings_class for kind in KINDS} == {
        name: type(config) for name, config in CONFIGS.items()
    }


@pytest.mark.parametrize("name", CONFIGS)
def test_a_run_says_what_kind_it_is(name, store, tmp_path):
    run = Run.start(tmp_path / "run", CONFIGS[name], store, resume=False)
    assert json.loads((run.path / "run.json").read_text())["kind"] == name
    assert run.kind is kind_of(CONFIGS[name])
    change_info(run, kind=None)  # as earlier versions wrote it
    assert run.kind.name == name
    if run.kind.of_tokens:
        assert run.settings == CONFIGS[name]
    else:
        with pytest.raises(UsageError, match=f"is a run of `seit {run.command}`"):
            _ = run.settings


def test_an_unknown_kind_is_refused(store, tmp_path):
    run = Run.start(tmp_path / "run", TrainConfig(), store, resume=False)
    change_info(run, kind="dream")
    with pytest.raises(UsageError, match=r"of kind 'dream'.*knows continual, .*compress, .*tr"):
        _ = run.settings
