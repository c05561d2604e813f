"""Continual runs under every protocol: domains, one pass, pictures in memory, other backbones."""

import json
import os
import re
import shutil
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch
from support.continual import (
    CLASSES,
    CONFIG,
    StoppedError,
    build_network,
    changed,
    comparable,
    run,
    stop_at,
)

from seit.cli import main
from seit.continual_learning.answers import JOINT, answer
from seit.continual_learning.feeds import segments
from seit.continual_learning.loop import Running
from seit.continual_learning.streams.tasks import class_incremental, online
from seit.errors import UsageError
from seit.pretraining import PretrainConfig, pretrain
from seit.training import Run
from seit.training.classify import train
from seit.training.config import ModelConfig, ScheduleConfig, TrainConfig
from seit.training.optimizer import make_optimizer
from seit.training.ranks import Ranks


@pytest.fixture(scope="module")
def store(tinted_store):
    return tinted_store


@pytest.fixture(scope="module")
def domains(store, tmp_path_factory):
    """A CSV file of two domains, each with half of the samples of every class."""
    path = tmp_path_factory.mktemp("domains") / "domains.csv"
    lines = [
        f"{key},{'day' if place % 2 else 'night'}"
        for split in ("train", "val")
        for place, key in enumerate(store[split].keys)
    ]
    path.write_text("\n".join(lines))
    return path


ONE = Ranks(0, 1, torch.device("cpu"))
MEASURED = ("samples_per_second", "data_wait_fraction")


def of_domains(path, **settings):
    return changed(stream={"kind": "domain", "domains": str(path)}, **settings)


# --- what comes when ------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["lae", "er", "der++", "gdumb", "joint", "ranpac"])
def test_a_domain_stream(store, domains, tmp_path, method):
    memory = {"memory": {"bytes": 400}} if method in ("er", "der++", "gdumb") else {}
    config = of_domains(domains, method=method, **memory)
    result = run(store, tmp_path / "run", config)
    assert result.protocol["mask"] == "seen"
    assert result.stream["tasks"] == ["day", "night"]
    assert result.stream["samples"] == [48, 48]
    matrix = np.array(result.accuracy_matrix)
    assert np.allclose(matrix, np.array(result.task_incremental_matrix)), "all classes are a task's"
    assert result.metrics["forward_transfer"] is not None
    if memory:
        assert result.protocol["memory"]["classes"] == 6
    if method == "lae":
        assert result.ledger["offline_pet_bytes"] == result.ledger["online_pet_bytes"]


def test_a_stream_of_an_order_file_and_a_larger_first_task(store, tmp_path):
    order = tmp_path / "order.txt"
    order.write_text("\n".join([*CLASSES[3:], "0", "1", "2"]))
    stream = {"order": str(order), "initial": 4, "increment": 1}
    config = changed(method="ncm", stream=stream)
    result = run(store, tmp_path / "run", config)
    assert result.protocol["order"] == [3, 4, 5, 0, 1, 2]
    assert result.stream["increments"] == [4, 1, 1]
    stopped = changed(stream=stream)
    with pytest.raises(StoppedError):
        run(store, tmp_path / "stopped", stopped, progress=stop_at(3))
    order.write_text("0 1 2 3 4 5")
    with pytest.raises(UsageError, match="another stream"):
        run(store, tmp_path / "stopped", stopped, resume=True)


def test_a_fraction_of_each_class_is_all_that_any_task_sees(store, tmp_path, monkeypatch):
    shown = []
    make = Running._batch

    def noted(self, course, step):
        batch = make(self, course, step)
        shown.append(batch.rows)
        return batch

    monkeypatch.setattr(Running, "_batch", noted)
    config = changed(method="joint", data={"fraction": 0.25})
    result = run(store, tmp_path / "run", config)
    assert result.stream["samples"] == [8, 8, 8]
    assert result.stream["val_samples"] == [12, 12, 12]
    rows = np.unique(np.concatenate(shown))
    assert (np.bincount(store["train"].labels[rows]) <= 4).all()
    # What joint training keeps is all that came, packed, with two bytes of label each.
    assert result.ledger["exemplar_label_bytes"] == 2 * 24
    sample_bytes = store["train"].layout.sample_bytes
    assert result.ledger["exemplar_payload_bytes"] == 24 * sample_bytes


@pytest.mark.parametrize(
    ("every", "size", "due"),
    [
        (30, 10, {30: 1, 50: 0, 60: 1, 90: 1, 100: 0}),
        (30, 24, {48: 1, 50: 0, 74: 1, 98: 1, 100: 0}),
        (15, 24, {24: 1, 48: 2, 50: 0, 74: 1, 98: 2, 100: 0}),
        (1000, 24, {50: 0, 100: 1}),
        (0, 7, {14: 1, 21: 1, 35: 1, 42: 1, 50: 1, 64: 1, 71: 1, 85: 1, 92: 1, 100: 1}),
    ],
)
def test_a_curve_counts_evaluations_by_the_multiples_that_they_stand_for(every, size, due):
    labels = np.repeat(np.arange(4), 25)
    stream = class_incremental(labels, labels, num_classes=4, increment=2, order=range(4))
    cut = segments(online(stream, seed=0), eval_every=every, batch_size=size)
    assert {one.samples: one.num_due for one in cut} == due


def test_a_stream_that_is_seen_once_has_one_warm_up(store, tmp_path, monkeypatch):
    rates = []
    monkeypatch.setattr(
        "seit.continual_learning.loop.set_learning_rate", lambda _, rate: rates.append(rate)
    )
    config = changed(
        method="seq-ft",
        stream={"kind": "online", "eval_every": 10},
        schedule={"warmup_epochs": 0.5, "warmup_lr": 0.0},
    )
    total = run(store, tmp_path / "run", config).steps
    warmup = round(total / 2)
    assert rates[:warmup] == pytest.approx([5e-3 * step / warmup for step in range(warmup)])
    assert rates[warmup:] == pytest.approx([5e-3] * (total - warmup))


# --- who answers what -----------------------------------------------------------------------------


class Told:
    """A learner that gives logits by the rows of a table."""

    def __init__(self, logits, seen):
        self.logits, self.seen = logits, torch.tensor(seen)
        self.network = torch.nn.Identity()

    def experts(self):
        return ("model",)

    def answers(self, inputs):
        return {"model": self.logits[inputs]}


def test_choosing_among_a_tasks_classes_minds_differences_that_chances_do_not_show():
    """Logits hundreds apart, as squared distances are: both chances of the own task are zero."""
    labels = np.array([0, 1, 2, 3])
    stream = class_incremental(labels, labels, num_classes=4, increment=2, order=range(4))
    logits = torch.tensor(
        [[-300.0, -400, 0, -500], [-400.0, -300, 0, -500], [-9, -9, 0, -1], [-9, -9, -1, 0.0]]
    )
    inputs_of = lambda rows: [(torch.from_numpy(rows), torch.from_numpy(labels[rows]))]  # noqa: E731
    answers, of_met = answer(Told(logits, [True] * 4), stream, inputs_of, ONE, after=1)
    assert answers.hits[JOINT].tolist() == [0, 2]
    assert answers.task_hits[JOINT].tolist() == [2, 2]
    assert of_met == 0.5
    answers, of_met = answer(
        Told(logits, [True] * 2 + [False] * 2), stream, inputs_of, ONE, after=0
    )
    assert answers.hits[JOINT].tolist() == [2, 2], "the future's among classes up to its own"
    answers, of_met = answer(
        Told(logits, [False] * 4), online(stream, seed=0), inputs_of, ONE, after=0
    )
    assert answers.hits[JOINT].tolist() == answers.task_hits[JOINT].tolist() == [0, 0]
    assert np.isnan(of_met)
    learner = Told(logits, [False, False, True, False])
    answers, of_met = answer(learner, online(stream, seed=0), inputs_of, ONE, after=1)
    assert answers.hits[JOINT].tolist() == [0, 1]
    assert of_met == 1, "classes that did not come yet are no mistakes"


def test_a_blurry_task_is_tested_among_the_classes_whose_own_it_is(store, tmp_path):
    """Not among those that came first with it: all blurry classes do with the first task."""
    stream = {"kind": "blurry", "tasks": 3, "disjoint_share": 0.0, "blur_share": 0.5}
    result = run(store, tmp_path / "run", changed(method="ncm", stream=stream))
    assert result.stream["increments"][1:] != [2, 2]
    by_class = changed(method="ncm")
    expected = run(store, tmp_path / "classes", by_class)
    # Class means after all samples are the same, and so are the classes of a task.
    assert result.task_incremental_matrix[-1] == expected.task_incremental_matrix[-1]
    assert result.accuracy_matrix[-1] == expected.accuracy_matrix[-1]


@pytest.mark.parametrize("kind", ["online", "blurry"])
def test_a_frozen_head_learns_streams_without_tasks(store, tmp_path, kind):
    stream = {"kind": kind, **({"tasks": 2} if kind == "blurry" else {})}
    frozen = run(store, tmp_path / "frozen", changed(method="frozen-head", stream=stream))
    linear = changed(method="seq-ft", stream=stream, tuning={"method": "linear"})
    expected = run(store, tmp_path / "linear", linear)
    assert frozen.curve == expected.curve
    assert frozen.accuracy_matrix == expected.accuracy_matrix
    assert frozen.protocol["mask"] == "seen"
    assert frozen.trained_parameters == expected.trained_parameters == 16 * 6 + 6


# --- going on -------------------------------------------------------------------------------------


def test_a_memory_of_pictures_goes_on_as_it_was(store, tmp_path):
    config = changed(
        method="er",
        memory={
            "bytes": 9000,
            "medium": "jpeg:60",
            "source": str(store.folder).removesuffix("store") + "pictures",
        },
    )
    undisturbed = run(store, tmp_path / "undisturbed", config)
    memory = undisturbed.protocol["memory"]
    assert memory["medium"]["name"] == "jpeg:60"
    assert memory["exemplars"] > 5
    assert undisturbed.ledger["exemplar_payload_bytes"] == memory["payload_bytes"] <= 9000
    without = replace(config, memory=replace(config.memory, medium="tokens", source=None))
    assert run(store, tmp_path / "tokens", without).ledger["tokenizer_bytes"] > 0
    out = tmp_path / "stopped"
    for step in (6, 12):
        with pytest.raises(StoppedError):
            run(store, out, config, resume=True, progress=stop_at(step))
    assert comparable(run(store, out, config, resume=True)) == comparable(undisturbed)


@pytest.mark.parametrize(
    "settings",
    [
        {"stream": {"kind": "online", "eval_every": 20}, "method": "lae"},
        pytest.param({"run": {"log_every": 4}, "method": "seq-ft"}, marks=pytest.mark.slow),
        {"run": {"precision": "fp16", "checkpoint_every": 3}, "method": "seq-ft"},
        None,
    ],
    ids=["online", "lines", "fp16", "domain"],
)
def test_metrics_go_on_line_by_line(store, domains, tmp_path, monkeypatch, settings):
    """Also after a kill between an evaluation and the checkpoint after it."""
    config = of_domains(domains) if settings is None else changed(**settings)
    undisturbed = run(store, tmp_path / "undisturbed", config)
    out, save = tmp_path / "stopped", Running.save

    def killed(self):
        if self.position.segment and not self.position.step:
            raise StoppedError
        save(self)

    with pytest.raises(StoppedError):
        run(store, out, config, progress=stop_at(3))
    with monkeypatch.context() as patch:
        patch.setattr(Running, "save", killed)
        with pytest.raises(StoppedError):
            run(store, out, config, resume=True)
    with pytest.raises(StoppedError):
        run(store, out, config, resume=True, progress=stop_at(8))
    assert comparable(run(store, out, config, resume=True)) == comparable(undisturbed)
    lines = [
        [{k: v for k, v in line.items() if k not in MEASURED} for line in r.metrics()]
        for r in (Run.open(tmp_path / "undisturbed"), Run.open(out))
    ]
    assert lines[0] == lines[1]


def test_what_optimisers_took_is_known_after_a_kill_at_the_very_end(store, tmp_path, monkeypatch):
    config = changed(method="seq-ft", stream={"kind": "online"})
    undisturbed = run(store, tmp_path / "undisturbed", config)
    assert undisturbed.ledger["optimizer_bytes"] > 8 * undisturbed.trained_parameters

    def killed(*_, **__):
        raise StoppedError

    with monkeypatch.context() as patch:
        patch.setattr("seit.continual_learning.result.summarise", killed)
        with pytest.raises(StoppedError):
            run(store, tmp_path / "killed", config)
    assert comparable(run(store, tmp_path / "killed", config, resume=True)) == comparable(
        undisturbed
    )


@pytest.mark.parametrize(("kind", "is_refused"), [("online", True), ("class", False)])
def test_a_stream_cut_by_evaluations_does_not_go_on(store, tmp_path, kind, is_refused):
    config = changed(method="seq-ft", stream={"kind": kind})
    with pytest.raises(StoppedError):
        run(store, tmp_path / "run", config, progress=stop_at(3))
    begun = Run.open(tmp_path / "run")
    begun.write_info({**begun.info, "revision": 2})
    if not is_refused:
        run(store, tmp_path / "run", config, resume=True)
        return
    with pytest.raises(UsageError, match=r"in which stream.eval_every meant something else"):
        run(store, tmp_path / "run", config, resume=True)


def test_a_longer_schedule_is_another_run(store, tmp_path):
    """Tasks that were learned already would have been shorter."""
    with pytest.raises(StoppedError):
        run(store, tmp_path / "run", progress=stop_at(7))
    with pytest.raises(UsageError, match=r"schedule\.steps was 5 and is 6"):
        run(store, tmp_path / "run", changed(schedule={"steps": 6}), resume=True)


def test_ctrl_c_leaves_a_run_that_goes_on(store, tmp_path, monkeypatch, capsys):
    settings = [
        *("--model.name", "vit_tiny_patch16_224", "--model.stem", "2/2/0"),
        *("--model.embed_dim", "16", "--model.depth", "2", "--model.num_heads", "2"),
        *("--augment.crop_size", "8", "--steps", "3", "--batch-size", "8"),
        *("--tuning.num_blocks", "1", "--run.loggers", "[]", "--device", "cpu"),
        *("--initial", "4", "--json"),
    ]
    command = ["continual", str(store.folder), *settings, "--out"]
    main([*command, str(tmp_path / "undisturbed")])
    undisturbed = json.loads(capsys.readouterr().out)
    assert undisturbed["stream"]["increments"] == [4, 2]
    take = Running.take

    def interrupted(self, step, batch):
        if step == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return take(self, step, batch)

    # Where tests run in the background of a shell, Ctrl-C is ignored, and runs leave it at that.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with monkeypatch.context() as patch:
            patch.setattr(Running, "take", interrupted)
            with pytest.raises(SystemExit) as ended:
                main([*command, str(tmp_path / "run")])
    finally:
        signal.signal(signal.SIGINT, before)
    assert ended.value.code == 130
    assert "with --resume" in capsys.readouterr().err
    main([*command, str(tmp_path / "run"), "--resume"])
    told = json.loads(capsys.readouterr().out)
    for name in ("network", "accuracy_matrix", "metrics", "ledger", "experts", "steps"):
        assert told[name] == undisturbed[name]


# --- backbones ------------------------------------------------------------------------------------


def of_convolutions(**settings):
    model = ModelConfig(name="test_resnet", stem="up")
    return changed(replace(CONFIG, model=model), **settings)


def test_a_network_of_convolutions_keeps_its_statistics(store, tmp_path):
    config = of_convolutions(lae={"ema_absorb": 0.3})
    result = run(store, tmp_path / "run", config)
    left = Run.open(tmp_path / "run").load_tensors("learner.safetensors")
    assert not any("running_" in name for name in left), "they are the backbone's"
    network = build_network(store, config)
    tuned = sum(one.numel() * 4 for one in network.tuned.values())
    assert result.ledger["online_pet_bytes"] == result.ledger["offline_pet_bytes"] == tuned
    buffers = {k: v for k, v in network.backbone.state_dict().items() if "running_" in k}
    before = {key: value.clone() for key, value in buffers.items()}
    network.train()
    network(torch.randn(4, *network_input(store, config)))
    assert buffers
    for key, value in buffers.items():
        assert torch.equal(value, before[key])


def test_statistics_that_are_trained_are_kept_and_averaged(store, tmp_path):
    config = of_convolutions(tuning={"method": "full"}, stream={"increment": 3})
    result = run(store, tmp_path / "run", config)
    left = Run.open(tmp_path / "run").load_tensors("learner.safetensors")
    names = [name for name in left if name.endswith("running_mean")]
    assert any(name.startswith("offline.") for name in names)
    network = build_network(store, config)
    whole = sum(v.numel() * v.element_size() for v in network.backbone.state_dict().values())
    assert result.ledger["online_pet_bytes"] == whole
    assert result.ledger["backbone_bytes"] == 0, "each is counted once"


def network_input(store, config):
    from seit.training.feeds import make_augment

    augment = make_augment(store, config, torch.device("cpu"))
    return augment.evaluate(torch.zeros(1, 8, 8, dtype=torch.int64)).shape[1:]


def test_position_embeddings_do_not_decay(store):
    network = build_network(store, changed(tuning={"method": "full"}))
    optimizer = make_optimizer(
        network, replace(CONFIG.optim, weight_decay=0.1), torch.device("cpu")
    )
    names = {id(one): name for name, one in network.named_parameters()}
    decayed = {
        names[id(one)]
        for group in optimizer.param_groups
        for one in group["params"]
        if group["weight_decay"]
    }
    assert "backbone.blocks.0.attn.qkv.weight" in decayed
    assert not decayed & {"backbone.pos_embed", "backbone.cls_token", "head.bias"}


def test_earlier_classes_are_told_by_a_network_that_drops_nothing(store, tmp_path, monkeypatch):
    """iCaRL's targets with stochastic depth: those of the network before the task, whole."""
    from seit.continual_learning.learners.icarl import Icarl

    found, told_by = [], Icarl._told

    def noted(self, inputs):
        told = told_by(self, inputs)
        assert self.network.training
        backbone = build_network(store, config)
        with torch.no_grad(), backbone.wearing(self._before):
            expected = backbone.eval()(inputs).sigmoid()
        found.append((told, expected))
        return told

    monkeypatch.setattr(Icarl, "_told", noted)
    config = changed(
        method="icarl",
        memory={"bytes": 400},
        model={"drop_path": 0.5},
        schedule={"steps": 1},
        stream={"increment": 3},
    )
    run(store, tmp_path / "run", config)
    assert found
    for told, expected in found:
        assert torch.allclose(told, expected, atol=1e-6)


def test_the_protocol_tells_whether_the_backbone_knew_the_classes(store, tmp_path):
    supervised = TrainConfig(
        model=CONFIG.model,
        data=CONFIG.data,
        augment=CONFIG.augment,
        schedule=ScheduleConfig(steps=1, warmup_steps=0),
        run=CONFIG.run,
    )
    train(supervised, store, out=tmp_path / "vit")
    settings = changed(method="simplecil")
    result = run(store, tmp_path / "run", settings, init_from=tmp_path / "vit")
    known = {"objective": "classify", "classes_of_the_stream": 6}
    assert result.protocol["pretraining"] == known
    # Pre-training on without labels forgets none of them, even if the first run is gone.
    masked = PretrainConfig(
        model=CONFIG.model,
        data=CONFIG.data,
        augment=CONFIG.augment,
        schedule=ScheduleConfig(steps=1, warmup_steps=0),
        run=CONFIG.run,
        init_from=str(tmp_path / "vit"),
    )
    pretrain(masked, store, out=tmp_path / "mtm")
    shutil.move(tmp_path / "vit", tmp_path / "moved")
    later = run(store, tmp_path / "later", settings, init_from=tmp_path / "mtm")
    assert later.protocol["pretraining"] == known | {"objective": "mtm"}
    # The fingerprint is the backbone's alone, whatever is tuned, from whichever seed.
    assert later.protocol["backbone"] != result.protocol["backbone"]
    for method, seed in (("adapter", 0), ("lora", 1)):
        tuned = changed(method="seq-ft", tuning={"method": method}, run={"seed": seed})
        other = run(store, tmp_path / method, tuned, init_from=tmp_path / "mtm")
        assert other.protocol["backbone"] == later.protocol["backbone"]
    shutil.move(tmp_path / "moved", tmp_path / "vit")
    with pytest.raises(UsageError, match="is a continual run"):
        run(store, tmp_path / "more", settings, init_from=tmp_path / "run")
    assert run(store, tmp_path / "random", settings).protocol["pretraining"] is None


@pytest.mark.parametrize(
    ("memory", "words"),
    [
        (
            {"bytes": 600, "medium": "jpeg:60"},
            "the memory of 600 bytes ended with no exemplar: 'ba",
        ),
        ({"bytes": 126, "policy": "reservoir"}, r"with none of [345] of 6 classes met: '.*; raise"),
        ({"bytes": 600}, None),
    ],
)
def test_a_memory_that_lost_classes_warns(store, tmp_path, caplog, memory, words):
    if "medium" in memory:
        memory["source"] = str(store.folder).removesuffix("store") + "pictures"
    result = run(store, tmp_path / "run", changed(method="er", memory=memory))
    found = [text for text in result.warnings if "the memory of" in text]
    assert len(found) == (words is not None)
    if words is not None:
        assert re.search(words, found[0])
        assert found[0] in caplog.messages
        assert Run.open(tmp_path / "run").info["result"]["warnings"][-1] == found[0]


def test_learning_from_the_memory_alone_needs_room_for_a_sample(store, tmp_path):
    pictures = str(store.folder).removesuffix("store") + "pictures"
    memory = {"bytes": 10, "medium": "png", "source": pictures}
    expected = r"no exemplar \(png\) fits memory.bytes 10, and gdumb .*; raise it, or choose"
    with pytest.raises(UsageError, match=expected):
        run(store, tmp_path / "gdumb", changed(method="gdumb", memory=memory))
    assert not (tmp_path / "gdumb").exists()
    result = run(store, tmp_path / "icarl", changed(method="icarl", memory=memory))
    assert "the memory of 10 bytes ended with no exemplar" in result.warnings[-1]


# --- refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"optim": {"accumulate": 2}}, "optim.accumulate is 2.* set it to 1"),
        ({"optim": {"layer_decay": 0.7}}, "optim.layer_decay"),
        ({"run": {"compile": True}}, "run.compile"),
        ({"run": {"eval_every": 5}}, "run.eval_every"),
        ({"data": {"order": "window"}}, "data.order is window"),
        ({"data": {"mode": "streaming"}}, "data.mode is streaming"),
        ({"stream": {"domains": "folder"}}, "stream.domains is folder"),
        ({"data": {"window_blocks": 2}}, "data.window_blocks is 2"),
        ({"stream": {"eval_every": 5}}, "stream.eval_every is 5"),
        ({"stream": {"tasks": 3}}, "stream.tasks is 3, .* kind class .* or choose blurry"),
        ({"stream": {"kind": "online", "disjoint_share": 0.2}}, "stream.disjoint_share is 0.2"),
        (
            {"stream": {"kind": "domain", "domains": "folder", "blur_share": 0.2}},
            "stream.blur_share is 0.2",
        ),
        ({"memory": {"batch_size": 4}}, "memory.batch_size is 4, but the method lae keeps no"),
        ({"memory": {"medium": "png"}}, "memory.medium is png, but the method lae keeps no samp"),
        ({"stream": {"initial": 0}}, "stream.initial is 0"),
        ({"stream": {"kind": "blurry", "initial": 3}}, "stream.initial is 3"),
        ({"stream": {"kind": "online"}, "mask": "task"}, "set it to seen"),
        ({"method": "joint", "mask": "task"}, "samples of all tasks so far"),
        ({"method": "ncm", "mask": "task"}, "no cross-entropy"),
        ({"memory": {"source": "pictures"}}, "no pictures are kept"),
        ({"method": "er", "memory": {"bytes": 9, "medium": "png"}}, "memory.source names none"),
        ({"method": "icarl", "memory": {"bytes": 9, "policy": "reservoir"}}, "memory.policy"),
        (
            {
                "method": "icarl",
                "memory": {"bytes": 9},
                "stream": {"kind": "domain", "domains": "folder"},
            },
            "icarl takes earlier classes",
        ),
    ],
)
def test_settings_that_would_be_passed_over(settings, message):
    with pytest.raises(UsageError, match=message):
        changed(**settings)
