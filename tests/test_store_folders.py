"""Outputs inside the folder of a store, which commands refuse by one line."""

import pytest
from support.files import tree
from support.jobs import message, small, stop_after
from support.stores import build_store

from seit.cli import main
from seit.errors import UsageError
from seit.ingest import TokenizeConfig, tokenize
from seit.stores import verify_store

COMMANDS = {
    "train": ("train", "{store}", "--out", "{out}"),
    "sweep of seeds": ("train", "{store}", "--out", "{out}", "--seeds", "2"),
    "tokenize": ("tokenize", "{photos}", "{out}"),
    "convert by copy": ("convert", "{store}", "{out}"),
    "convert": ("convert", "{store}", "{out}", "--codec", "context"),
    "filter": ("filter", "{store}", "{out}", "--split", "train"),
    "view": ("view", "{store}", "--export", "{out}"),
    "predict": ("predict", "{store}/none", "{photos}", "--out", "{out}.csv"),
    "tokenizer": ("tokenizer", "fit", "{photos}", "{out}.safetensors"),
}


@pytest.fixture
def places(tmp_path):
    store = tmp_path / "store"
    build_store(store)
    return {"store": store, "photos": small(tmp_path / "photos", 8), "out": store / "inner"}


@pytest.mark.parametrize("command", COMMANDS)
def test_outputs_inside_a_store_are_refused(places, command, capsys):
    before = tree(places["store"])
    with pytest.raises(SystemExit) as left:
        main([word.format(**places) for word in COMMANDS[command]])
    line = capsys.readouterr().err.splitlines()[-1]
    assert left.value.code == 2, line
    assert f"lies inside the store {places['store']}" in line
    assert tree(places["store"]) == before
    assert verify_store(places["store"]).ok


def test_an_output_by_way_of_a_link_is_refused(places, tmp_path):
    (tmp_path / "link").symlink_to(places["store"])
    text = message(UsageError, places["photos"], tmp_path / "link" / "inner", TokenizeConfig())
    assert f"lies inside the store {places['store']}" in text


def test_an_output_inside_an_unfinished_store_is_refused(places, tmp_path):
    config = TokenizeConfig(size=64, codes=8)
    with pytest.raises(KeyboardInterrupt):
        tokenize(places["photos"], tmp_path / "begun", config, progress=stop_after(1))
    text = message(UsageError, places["photos"], tmp_path / "begun" / "inner", config)
    assert "lies inside the store" in text


def test_a_file_of_the_card_s_name_makes_no_store(places, tmp_path):
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "store.json").write_text('{"goods": []}')
    main(["convert", str(places["store"]), str(tmp_path / "shop" / "copy")])
    assert verify_store(tmp_path / "shop" / "copy").ok
