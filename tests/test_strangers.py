"""What a stranger's run, recipe or tokenizer cannot do: hang, crash, reach out, or forge output."""

import json
import os
import socket
import struct
import time

import numpy as np
import pytest
import torch
import yaml
from safetensors.numpy import save
from torch import nn

from seit.analysis.runs.compare import compare_contenders
from seit.analysis.runs.contenders import open_contenders
from seit.analysis.runs.find import list_runs
from seit.cli import main
from seit.config import build, from_environment, parse_value, read_yaml
from seit.documents import MAX_DEPTH, parse_json, parse_yaml, read_json_lines
from seit.errors import DamagedError, SeitError, UsageError
from seit.exports.card import write_card
from seit.exports.spec import BackboneSpec, ExportSpec, TokenizerSpec
from seit.files import open_plain
from seit.models import build_backbone
from seit.printable import printable
from seit.tensors import MAX_HEADER_BYTES, read_arrays, read_tensors
from seit.tokenizers import load_tokenizer
from seit.training import Run, TrainConfig, evaluate_run
from seit.training.checkpoint import TrainState, load_checkpoint
from seit.training.loggers import _Ids
from seit.training.seeds import read_seeds

INFO = {
    "status": "finished",
    "identity": {"store": "0" * 64, "classes": ["a", "b"]},
    "result": {"top1": 0.5, "top5": 1.0, "loss": 0.7, "steps": 4, "samples_per_second": 9.5},
    "confusion": [[1, 1], [1, 1]],
}
LINES = [{"step": 2, "split": "train", "loss": 1.5}, {"step": 4, "split": "val", "top1": 0.5}]
DEEP = "[" * 100_000 + "]" * 100_000
ESCAPES = "\x1b]0;pwned\x07\x1b[2J\x9b2J\nskipped 0\u202egnp"


def write_run(folder, *, info=INFO, config=None, lines=LINES):
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps(info))
    (folder / "config.yaml").write_text(yaml.safe_dump(config or {"model": {"name": "vit"}}))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def damaged(path):
    """The reason for which the only run at ``path`` is listed as damaged."""
    (one,) = list_runs(path)
    assert one.status == "damaged"
    assert "\n" not in one.reason
    return one.reason


# ------------------------------------------------------------------------------------- YAML, JSON


def bomb():
    lines = ["a0: &a0 {x: 1, y: 2}"]
    lines += [f"a{i}: &a{i} [" + ", ".join([f"*a{i - 1}"] * 9) + "]" for i in range(1, 12)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        (bomb(), "alias"),
        ("a: &a [*a]", "alias"),
        ("a: 1\nb: 2\na: 3", "twice"),
        ("a: " + "[" * 200_000, "levels"),
        ("- " * 100_000, "levels"),
        ("{" * 2_000, "levels"),
        ("a: 1" + "0" * 6_000, "characters"),
        ("a: 1" + ":1" * 100_000, "characters"),
        ("a: 1" + ":1" * 100_000 + ".5", "characters"),
        ("k" * 200_000 + ": 1", "not YAML"),
        (f"? {'k' * 1_000}\n: 1", "key"),
        ("a: !!bool maybe", "tag"),
        ("a: !!int ''", "tag"),
        ("a: !!timestamp 2001-01-01", "tag"),
        ("a: !!binary aGk=", "tag"),
        ("a: !!set {b, c}", "tag"),
        ("a: !!python/object/apply:os.getcwd []", "not YAML"),
        ("{[1]: 2}", "not YAML"),
        ("a: \x00", "not YAML"),
    ],
)
def test_settings_that_grow_or_do_not_fit_are_one_line(tmp_path, text, word):
    path = tmp_path / "settings.yaml"
    path.write_text(text)
    start = time.perf_counter()
    with pytest.raises(UsageError, match=r"the config .*settings\.yaml is not YAML") as caught:
        read_yaml(path)
    assert word in str(caught.value)
    assert "\n" not in str(caught.value)
    assert time.perf_counter() - start < 5
    assert parse_value(text) == text, "a flag that is no YAML is a text"


def test_settings_are_read_as_before(tmp_path):
    path = tmp_path / "settings.yaml"
    path.write_text("optim: {lr: 1e-3, betas: [0.9, 0.99]}\ndata: {train_split: 2024-01-01}\n")
    config = build(TrainConfig, read_yaml(path), origin="file")
    assert (config.optim.lr, config.optim.betas) == (1e-3, (0.9, 0.99))
    assert config.data.train_split == "2024-01-01", "a date is a text"
    assert parse_yaml("[1, -2, 0x1f, 1.5, .inf, true, ~, x]") == [
        *(1, -2, 31, 1.5, float("inf"), True, None, "x"),
    ]
    text = "2001-99-99"
    assert from_environment(TrainConfig, {"SEIT_DATA_TRAIN_SPLIT": text}) == {
        "data": {"train_split": text}
    }
    with pytest.raises(UsageError, match="there is no setting"):
        build(TrainConfig, {"optim": {"x" * 250_000: 1}}, origin="a file")
    for name, value in (("run.seed", "\udcff"), ("optim.lr", "\udcff"), ("optim.name", "\udcff")):
        group, _, key = name.partition(".")
        with pytest.raises(UsageError, match="a file: "):
            build(TrainConfig, {group: {key: value}}, origin="a file")


def test_json_is_bounded_in_depth():
    assert parse_json("[" * MAX_DEPTH + "]" * MAX_DEPTH)
    for text in (
        DEEP,
        "[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1),
        '{"a":' * 99 + "1" + "}" * 99,
    ):
        with pytest.raises(ValueError, match="levels deep"):
            parse_json(text)
    with pytest.raises(ValueError, match="digits"):
        parse_json("1" * 5_000)


# ------------------------------------------------------------------------------------- run folders


WRONG = {
    "a list": [],
    "no identity": {"status": "started"},
    "classes of numbers": {**INFO, "identity": {"store": "x", "classes": [1]}},
    "a text for a number": {**INFO, "result": {"top1": "high"}},
    "a number for a text": {**INFO, "status": 3},
    "no result": {key: value for key, value in INFO.items() if key != "result"},
}


@pytest.mark.parametrize("info", WRONG.values(), ids=WRONG)
def test_a_run_of_another_shape_is_listed_as_damaged(tmp_path, info, capsys):
    write_run(tmp_path / "good")
    write_run(tmp_path / "wrong", info=info)
    good, wrong = list_runs(tmp_path)
    assert (good.status, good.top1) == ("finished", 0.5)
    assert (wrong.name, wrong.status) == ("wrong", "damaged")
    assert str(tmp_path / "wrong") in wrong.reason
    main(["runs", "list", str(tmp_path)])
    out, err = capsys.readouterr()
    assert "damaged" in out
    assert err.startswith("warning: wrong is damaged: ")
    assert err.count("\n") == 1
    if info != WRONG["a text for a number"]:
        with pytest.raises(DamagedError, match=r"run\.json"):
            _ = Run(tmp_path / "wrong").classes
    with pytest.raises(SeitError):
        open_contenders([tmp_path / "good", tmp_path / "wrong"])


def test_keys_of_later_versions_stay(tmp_path):
    later = {**INFO, "weights_from": {"run": "x"}, "mood": "calm"}
    run = Run(write_run(tmp_path / "run", info=later, lines=[{**LINES[0], "new": 1.0}]))
    assert run.info == later
    assert run.metrics()[0]["new"] == 1.0
    assert list_runs(tmp_path)[0].status == "finished"


def test_a_deep_or_huge_file_is_damaged(tmp_path):
    run = write_run(tmp_path / "run")
    for name in ("run.json", "metrics.jsonl"):
        before = (run / name).read_bytes()
        (run / name).write_text(DEEP + "\n" + DEEP)
        assert name in damaged(run)
        with (run / name).open("wb") as file:
            file.truncate(1 << 40)  # sparse: it takes no space
        assert name in damaged(run)
        (run / name).write_bytes(before)
    assert list_runs(run)[0].status == "finished"


def test_lines_that_were_cut_short_are_left_out_at_the_end_alone(tmp_path):
    run = Run(write_run(tmp_path / "run"))
    path = run.path / "metrics.jsonl"
    whole = path.read_text()
    path.write_text(whole + '{"step": 6, "sp')
    assert run.metrics() == LINES
    path.write_text(whole + "{\n" + whole)
    with pytest.raises(DamagedError, match=r"line 3 of .*metrics\.jsonl"):
        run.metrics()
    for line in ('{"step": "1", "split": "val"}', '{"step": 1, "split": "val", "top1": "x"}', "[]"):
        path.write_text(f"{whole}{line}\n{whole}")
        with pytest.raises(DamagedError, match=r"metrics\.jsonl"):
            run.metrics()
    path.write_text(whole)
    with pytest.raises(DamagedError, match=r"line 2 .*larger than 60 bytes"):
        list(read_json_lines(path, dict, max_bytes=60))


@pytest.mark.parametrize("kind", ["fifo", "folder", "socket", "device", "loop", "nowhere"])
def test_only_regular_files_are_opened(tmp_path, kind, monkeypatch):
    monkeypatch.chdir(tmp_path)  # names of sockets are short
    odd = tmp_path / "odd"
    if kind == "fifo":
        os.mkfifo(odd)
    elif kind == "folder":
        odd.mkdir()
    elif kind == "socket":
        server = socket.socket(socket.AF_UNIX)
        server.bind("odd")
        server.close()
    else:
        odd.symlink_to({"device": "/dev/zero", "loop": "odd", "nowhere": "gone"}[kind])
    with pytest.raises(OSError):  # noqa: PT011  of several kinds
        open_plain(odd)
    for name in ("run.json", "config.yaml", "metrics.jsonl"):
        run = write_run(tmp_path / name / "run")
        (run / name).unlink()
        (run / name).symlink_to(odd)
        if name == "metrics.jsonl" and kind in ("nowhere", "loop"):
            assert list_runs(run)[0].status == "finished", "there is no such file"
        elif name != "metrics.jsonl" and kind == "folder":
            assert not list_runs(run), "a run has such a file"
        else:
            assert name in damaged(run)
    for read in (read_tensors, read_arrays, lambda path: load_checkpoint(path, None)):
        with pytest.raises(DamagedError, match="odd"):
            read(odd)


def test_links_to_files_and_to_runs_are_followed(tmp_path):
    write_run(tmp_path / "disk" / "run")
    linked = tmp_path / "linked"
    linked.symlink_to(tmp_path / "disk" / "run")
    assert Run.open(linked).classes == ("a", "b")
    own = tmp_path / "own"
    own.mkdir()
    for name in ("run.json", "config.yaml", "metrics.jsonl"):
        (own / name).symlink_to(tmp_path / "disk" / "run" / name)
    assert list_runs(own)[0].top1 == 0.5


def test_seeds_name_no_other_folders(tmp_path):
    write_run(tmp_path / "elsewhere")
    out = tmp_path / "seeds"
    write_run(out / "seed-0")
    record = {"status": "finished", "config": {}, "store": "x", "summary": {}}
    for folder in ("seed-0", "../elsewhere", str(tmp_path / "elsewhere"), "seed-00"):
        runs = [{"seed": 0, "folder": folder}]
        (out / "seeds.json").write_text(json.dumps({**record, "runs": runs}))
        if folder == "seed-0":
            assert read_seeds(out)["runs"] == runs
            continue
        with pytest.raises(DamagedError, match=r"seeds\.json"):
            open_contenders([out, tmp_path / "elsewhere"])
    for text in (DEEP, "[]", "{}", json.dumps({**record, "runs": [1]})):
        (out / "seeds.json").write_text(text)
        with pytest.raises(DamagedError, match=r"seeds\.json"):
            read_seeds(out)
    (out / "loggers.json").write_text('{"wandb": 3}')
    with pytest.raises(DamagedError, match=r"loggers\.json"):
        _Ids(out).get("wandb")


def test_headers_of_tensors_are_bounded(tmp_path):
    path = tmp_path / "x.safetensors"
    path.write_bytes(struct.pack("<Q", MAX_HEADER_BYTES + 1) + bytes(64))
    with pytest.raises(DamagedError, match="header"):
        read_tensors(path)
    header = b'{"predictions":{"dtype":"F7","shape":[1],"data_offsets":[0,2]}}'
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(2))
    with pytest.raises(DamagedError, match="damaged"):
        read_arrays(path)
    for card in (DEEP, "[]", "{", '{"step": "3"}', '{"step": -1}', "{}"):
        path.write_bytes(save({"x": np.zeros(1)}, {"seit": card}))
        for read in (lambda path: load_checkpoint(path, None), load_tokenizer):
            with pytest.raises(DamagedError, match=r"x\.safetensors"):
                read(path)


def test_checkpoints_of_other_tensors_are_damaged(tmp_path):
    model = nn.Linear(2, 1)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    state = TrainState(model, None, optimizer)
    right = {key: value.numpy() for key, value in state.tensors().items()}
    path = tmp_path / "step-00000003.safetensors"
    path.write_bytes(save(right, {"seit": '{"step": 3}'}))
    assert load_checkpoint(path, state) == 3
    changes = (
        {"generator": None},
        {"generator": np.zeros(3, np.float32)},
        {"model.weight": np.zeros((2, 2), np.float32)},
        {"optimizer.weight.exp_avg": np.zeros((9, 9), np.float32)},
        {"optimizer.gone.exp_avg": np.zeros(1, np.float32)},
        {"groups.7.lr": np.zeros(1, np.float32)},
        {"groups.0.params": np.zeros(1, np.float32)},
        {"groups.x.lr": np.zeros(1, np.float32)},
    )
    for change in changes:
        tensors = {key: one for key, one in (right | change).items() if one is not None}
        path.write_bytes(save(tensors, {"seit": '{"step": 3}'}))
        with pytest.raises(DamagedError, match="step-00000003"):
            load_checkpoint(path, state)
    of_bias = [key for key in right if key.startswith("optimizer.bias")]
    path.write_bytes(
        save({k: v for k, v in right.items() if k not in of_bias}, {"seit": '{"step": 3}'})
    )
    with pytest.raises(DamagedError, match="it has no optimizer state of bias; delete it"):
        load_checkpoint(path, state)


# --------------------------------------------------------------------------------- reaching out


@pytest.fixture
def closed(monkeypatch):
    """No socket and no remote file system is opened."""

    def refuse(*_, **__):
        raise AssertionError("a request that nobody asked for")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr("fsspec.core.url_to_fs", refuse)


@pytest.mark.parametrize(
    "name", ["hf-hub:evil/model", "hf_hub:evil/model", "local-dir:/etc", "timm:x", "https://x/y"]
)
def test_models_are_timms_own_by_name(closed, name):
    with pytest.raises(UsageError, match=r"timm .* has no model"):
        build_backbone(name, channels=3, input_size=(8, 8), num_classes=2)


def test_a_model_is_not_larger_than_its_weights():
    small = {"head.weight": torch.zeros(2, 8)}
    name = "vit_giant_patch14_224"
    with pytest.raises(UsageError, match=r"has 1,0\d\d,\d+,\d+ weights and 16 were saved"):
        build_backbone(name, channels=3, input_size=(8, 8), num_classes=2, weights=small)
    for field in ("depth", "embed_dim", "num_heads"):
        with pytest.raises(UsageError, match=f"model.{field} is 1000000000"):
            build(TrainConfig, {"model": {field: 10**9}}, origin="a run")


def test_eval_opens_no_images_that_a_run_names(closed, tmp_path):
    run = write_run(tmp_path / "run", config={"data": {"pixels": "s3://evil/images"}})
    with pytest.raises(UsageError, match=r"'s3://evil/images'; name .* by --pixels SRC"):
        evaluate_run(run, "s3://evil/store")
    of_tokens = write_run(tmp_path / "tokens")
    with pytest.raises(UsageError, match="leave --pixels out"):
        evaluate_run(of_tokens, "s3://evil/store", pixels=tmp_path)


def test_what_a_run_names_is_neither_listed_nor_compared_from(closed, tmp_path):
    config = {
        "data": {"pixels": "s3://evil/images"},
        "distill": {"teacher": "s3://evil/run"},
        "augment": {"token_adapt": "s3://evil/adapt"},
        "run": {"loggers": ["wandb", "mlflow"]},
        "model": {"name": "hf-hub:evil/model"},
    }
    runs = [write_run(tmp_path / name, config=config) for name in ("a", "b")]
    assert [one.status for one in list_runs(tmp_path)] == ["finished"] * 2
    compare_contenders(open_contenders(runs))


# --------------------------------------------------------------------------------------- output


def test_names_reach_the_terminal_as_text(tmp_path, capsys):
    assert printable("Größe 日本 \u200d👩") == "Größe 日本 \u200d👩", "other names stay as they are"
    assert printable(ESCAPES).isprintable()
    info = {**INFO, "identity": {"store": "0" * 64, "classes": [ESCAPES, "b"]}}
    config = {"model": {"name": ESCAPES}}
    for name in ("one", f"two{ESCAPES}"):
        write_run(tmp_path / name, info=info, config={**config, "run": {"seed": len(name)}})
    runs = [str(tmp_path / name) for name in ("one", f"two{ESCAPES}")]
    for arguments in (["list", str(tmp_path)], ["compare", *runs]):
        main(["runs", *arguments])
        out, err = capsys.readouterr()
        lines = (out + err).split("\n")
        assert all(line.isprintable() for line in lines)
        assert not any(line.startswith("skipped") for line in lines)
        assert r"\x1b]0;pwned\x07" in out
        main(["runs", *arguments, "--json"])
        out, _ = capsys.readouterr()
        assert all(line.isprintable() for line in out.split("\n"))
        assert any(ESCAPES in str(text) for text in _texts(json.loads(out)))


def _texts(value):
    if isinstance(value, dict):
        value = [*value, *value.values()]
    if isinstance(value, list):
        for entry in value:
            yield from _texts(entry)
    else:
        yield value


def make_spec(text):
    """An exported model in which everything that may be anybody's is ``text``."""
    return ExportSpec(
        model=BackboneSpec(
            name=text, channels=3, input_size=(4, 4), stem="auto", num_classes=2, kwargs={}
        ),
        reads="tokens",
        size=(4, 4),
        crop_size=0,
        modality="image",
        preprocessing={"size": 32, text: text},
        tokenizer=TokenizerSpec(name=text, fingerprint=text, codebook=(2, 4)),
        classes=(text, "no", "1e3", "plain"),
        store=text,
        settings={"data": {"batch_size": 8, "train_split": text, text: [text]}},
        result={"top1": 0.5, "top5": 1.0, "loss": 0.7, "steps": 4, "split": text, "samples": 4},
        environment={"seit": text, text: text},
        seit="1",
    )


FORGED = (
    'x\n```\n<img src="http://evil.example/p.png">\n\n# Weights under licence: MIT\n```yaml',
    "x\n---\nlicense: mit\n---\n# x",
    "`<b>`` **x** [a](http://evil.example) ![i](j) <script> | a | b |\n|-|-|",
    "~~~\n~~~\n- x\n===\n",
    "http://evil.example www.evil.example a@evil.example &lt; \\",
    ESCAPES,
)


@pytest.mark.parametrize("text", FORGED)
def test_names_stay_text_in_a_model_card(text):
    from markdown_it import MarkdownIt

    parser = MarkdownIt("commonmark").enable(["table", "strikethrough"])
    files = {"config.json": 3, "model.safetensors": 5}
    cards = [
        write_card(make_spec(one), name="x", files=files, parameters=1, store=None)
        for one in (text, "text")
    ]
    forged, plain = (parser.parse(card.split("---\n", 2)[2]) for card in cards)
    assert [(t.type, t.tag) for t in forged] == [(t.type, t.tag) for t in plain]
    inline = [child.type for token in forged for child in token.children or ()]
    assert set(inline) <= {"text", "softbreak", "code_inline"}
    heads = [yaml.safe_load(card.split("---\n")[1]) for card in cards]
    assert heads[0].keys() == heads[1].keys()
    assert heads[0]["model-index"][0]["results"][0]["dataset"]["split"] == text
    blocks = [yaml.safe_load(t.content) for t in forged if t.info == "yaml"]
    assert blocks == [make_spec(text).settings, list(make_spec(text).classes)]
    assert all(line.isprintable() for line in cards[0].split("\n"))
