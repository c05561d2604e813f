"""The loop: ranks, accumulation, resuming from any step, optimisers, losses, teachers, failures."""

import json
import multiprocessing
import os
import random
import shutil
import signal
import time
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import timm.loss
import torch
from PIL import Image
from safetensors.torch import load_file
from support.processes import exit_codes, fork, fork_ranks
from support.stores import edit_card
from timm.layers import DropPath
from torch import nn
from torch.nn import functional as F

import seit
from seit import files
from seit.augment import Augmented, SampleRandom
from seit.cli import main
from seit.config import build, to_mapping
from seit.errors import UsageError
from seit.ingest import TokenizeConfig, tokenize
from seit.training import Run, TrainConfig, evaluate_run, ranks as ranks_of_runs, train
from seit.training.answers import read_predictions
from seit.training.checkpoint import moments, restore_moments
from seit.training.config import DistillConfig, LossConfig, OptimConfig
from seit.training.feeds import make_feed
from seit.training.losses import classification_loss, distillation_loss
from seit.training.optimizer import make_optimizer, set_learning_rate
from seit.training.ranks import Ranks
from seit.training.signals import listen
from seit.training.stochastic_depth import Depth
from seit.training.teacher import make_teacher

STEPS = 9
CONFIG = build(
    TrainConfig,
    {
        "model": {
            "name": "vit_tiny_patch16_224",
            "stem": "2/2/0",
            "embed_dim": 16,
            "depth": 2,
            "num_heads": 2,
            "drop_path": 0.3,
        },
        "data": {"batch_size": 16},
        "optim": {"lr": 1e-3, "lr_batch_size": 0, "clip_grad": 1.0},
        "schedule": {"steps": STEPS, "warmup_steps": 2},
        "augment": {"crop_size": 6, "cutmix_prob": 0.5, "noise_scale": 0.1, "noise_std": 0.1},
        "ema": {"decay": 0.9},
        "run": {
            "device": "cpu",
            "eval_every": 4,
            "checkpoint_every": 2,
            "log_every": 3,
            "loggers": [],
        },
    },
    origin="test",
)


def changed(config=CONFIG, /, **groups):
    """The config with some settings of some groups changed."""
    return replace(
        config,
        **{name: replace(getattr(config, name), **values) for name, values in groups.items()},
    )


def write_pictures(folder, classes):
    random = np.random.default_rng(0)
    for split, count in (("train", 24), ("val", 8)):
        for name in classes:
            (folder / split / name).mkdir(parents=True)
            for number in range(count):
                coarse = Image.fromarray(random.integers(0, 256, (4, 4, 3), dtype=np.uint8))
                image = coarse.resize((64, 64), Image.Resampling.BICUBIC)
                image.save(folder / split / name / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return write_pictures(tmp_path_factory.mktemp("pictures"), ("ant", "bee", "cat"))


@pytest.fixture(scope="module")
def store(pictures, tmp_path_factory):
    path = tmp_path_factory.mktemp("store") / "tokens"
    tokenize(pictures, path, TokenizeConfig(size=64, codes=32))
    return seit.open(path)


@pytest.fixture(scope="module")
def finished(store, tmp_path_factory):
    """A run that nothing disturbed."""
    out = tmp_path_factory.mktemp("runs") / "finished"
    train(CONFIG, store, out=out)
    return Run.open(out)


def same_weights(run, other, tolerance=0.0):
    ours, theirs = run.load_weights(), other.load_weights()
    assert ours.keys() == theirs.keys()
    for key, value in theirs.items():
        torch.testing.assert_close(ours[key], value, rtol=0, atol=tolerance, msg=key)


def figures(run, *names):
    return [[entry.get(name) for name in ("step", *names)] for entry in run.metrics()]


def same_figures(run, other):
    names = ("split", "loss", "lr", "top1", "top5")
    assert figures(run, *names) == figures(other, *names)


def resumes_bit_for_bit(config, store, folder, *, after):
    train(config, store, out=folder / "whole")

    def stop(step, *_):
        if step == after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(config, store, out=folder / "cut", progress=stop)
    train(config, store, out=folder / "cut", resume=True)
    same_weights(Run.open(folder / "cut"), Run.open(folder / "whole"))
    same_figures(Run.open(folder / "cut"), Run.open(folder / "whole"))


# ------------------------------------------------------------------------------- several processes


def resume(store, out, config, *, die="", wait=0.0, steps=None):
    """Train in a process of its own, which dies where a file named like ``die`` is to be put."""
    publish = files.publish

    def die_at(partial, path):
        if die and die in path.name:
            os.kill(os.getpid(), signal.SIGKILL)
        publish(partial, path)

    def progress(step, total, figures):
        if steps is not None:
            steps.send(step)
        time.sleep(wait)

    files.publish = die_at
    train(config, store.folder, out=out, resume=True, progress=progress)


@pytest.mark.parametrize("ranks", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_ranks_do_what_one_process_does(store, finished, tmp_path, ranks):
    processes = fork_ranks(resume, store, tmp_path / "run", CONFIG, ranks=ranks)
    assert exit_codes(processes) == [0] * ranks
    run = Run.open(tmp_path / "run")
    same_weights(run, finished, tolerance=2e-5)
    ours, theirs = figures(run, "loss", "lr"), figures(finished, "loss", "lr")
    assert np.allclose(np.array(ours, float), np.array(theirs, float), rtol=1e-4, equal_nan=True)
    assert run.info["ranks"] == ranks
    assert sum(map(sum, run.info["confusion"])) == len(store["val"])
    assert np.array_equal(read_predictions(run).predicted, read_predictions(finished).predicted)


def test_batch_norms_of_ranks_are_evaluated_and_kept_alike(store, tmp_path):
    config = changed(
        model={"name": "resnet10t", "stem": "later", "embed_dim": None, "depth": None}
        | {"num_heads": None, "drop_path": 0.0},
        schedule={"steps": 3, "warmup_steps": 0},
    )
    processes = fork_ranks(resume, store, tmp_path / "run", config, ranks=2)
    assert exit_codes(processes) == [0, 0]
    found, recorded = evaluate_run(tmp_path / "run", store), Run.open(tmp_path / "run").info
    assert found.loss == pytest.approx(recorded["result"]["loss"], rel=1e-5)
    predictions = read_predictions(Run.open(tmp_path / "run")).likeliest.probabilities
    np.testing.assert_allclose(found.likeliest.probabilities, predictions, atol=1e-5)


def test_batch_norms_of_gpus_keep_their_activations(monkeypatch):
    monkeypatch.setattr(ranks_of_runs, "DistributedDataParallel", lambda model, **_: model)
    model = timm.create_model("regnetx_002", num_classes=3).eval()
    inputs = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    plain = model(inputs)
    shared = Ranks(0, 2, torch.device("cuda")).share(model)
    assert any(isinstance(one, torch.nn.SyncBatchNorm) for one in shared.modules())
    torch.testing.assert_close(shared(inputs), plain, rtol=0, atol=0)


@pytest.mark.slow
def test_one_rank_of_torchrun_is_the_single_process(store, finished, tmp_path):
    processes = fork_ranks(resume, store, tmp_path / "run", CONFIG, ranks=1)
    assert exit_codes(processes) == [0]
    same_weights(Run.open(tmp_path / "run"), finished)


@pytest.mark.slow
def test_ranks_with_parts_go_on_with_what_one_process_began(store, finished, tmp_path):
    class StopError(Exception):
        pass

    def stop(step, *_):
        if step == 5:
            raise StopError

    config = changed(optim={"accumulate": 2})
    with pytest.raises(StopError):
        train(config, store, out=tmp_path / "run", progress=stop)
    assert exit_codes(fork_ranks(resume, store, tmp_path / "run", config, ranks=2)) == [0, 0]
    same_weights(Run.open(tmp_path / "run"), finished, tolerance=2e-5)


def test_a_batch_that_does_not_fall_into_parts_is_refused(store, tmp_path):
    with pytest.raises(UsageError, match="16 samples cannot be divided into 3 equal parts"):
        train(changed(optim={"accumulate": 3}), store, out=tmp_path / "run")


# ---------------------------------------------------------------------------------------- resuming


LATER = ("step-00000002", "step-00000009", "model.safe")
MOMENTS = ["step-00000006", *(pytest.param(name, marks=pytest.mark.slow) for name in LATER)]


@pytest.mark.parametrize("die", MOMENTS)
def test_a_run_killed_while_it_writes_goes_on_bit_for_bit(store, finished, tmp_path, die):
    out = tmp_path / "run"
    assert exit_codes([fork(partial(resume, die=die), store, out, CONFIG)]) == [-signal.SIGKILL]
    train(CONFIG, store, out=out, resume=True)
    same_weights(Run.open(out), finished)
    same_figures(Run.open(out), finished)


@pytest.mark.parametrize("stem", ["early/2", "3/2/1"])
def test_a_stem_that_lies_channels_last_resumes_bit_for_bit(store, tmp_path, stem):
    config = changed(model={"stem": stem}, optim={"lr": 1e-2}, run={"eval_every": 100})
    resumes_bit_for_bit(config, store, tmp_path, after=4)


@pytest.mark.parametrize("name", ["adamw", "lamb", "muon"])
def test_moments_lie_in_memory_as_their_parameters(name):
    model = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
    config = OptimConfig(name=name, lr=1e-2)
    optimizer = make_optimizer(model, config, torch.device("cpu"))
    for _ in range(2):
        model(torch.ones(1, 3, 3, 3)).sum().backward()
        optimizer.step()
    saved = {key: value.contiguous() for key, value in moments(model, optimizer).items()}
    again = make_optimizer(model, config, torch.device("cpu"))
    restore_moments(model, again, saved, all_or_none=True)
    state = again.state[model.weight]
    assert {
        value.stride() for value in state.values() if torch.is_tensor(value) and value.ndim
    } == {model.weight.stride()}
    assert all(torch.equal(value, saved[key]) for key, value in moments(model, again).items())


@pytest.mark.slow
def test_a_run_killed_at_random_moments_goes_on_bit_for_bit(store, finished, tmp_path):
    out = tmp_path / "run"
    draw = random.Random(0)
    for _ in range(3):
        steps, sender = multiprocessing.Pipe(duplex=False)
        process = fork(partial(resume, wait=0.05, steps=sender), store, out, CONFIG)
        sender.close()
        for _ in range(draw.randint(1, 3)):
            try:
                steps.recv()
            except EOFError:
                break
        time.sleep(draw.random() / 20)
        process.kill()
        process.join()
    train(CONFIG, store, out=out, resume=True)
    same_weights(Run.open(out), finished)
    same_figures(Run.open(out), finished)


@pytest.fixture
def handled():
    """Signals as a terminal's programs have them, whatever started the tests."""
    wanted = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
    before = {number: signal.signal(number, handler) for number, handler in wanted.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_signals_that_are_ignored_stay_so(handled):
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with listen() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert not stop.requested
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.requested
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


OPTIMIZERS = {
    "adamw with layer decay": {"layer_decay": 0.65},
    "lamb": {"name": "lamb"},
    "muon": {"name": "muon"},
    "muon with layer decay": {"name": "muon", "layer_decay": 0.8},
}


@pytest.mark.parametrize(
    "settings",
    [
        *map(OPTIMIZERS.get, ("adamw with layer decay", "lamb", "muon")),
        pytest.param(OPTIMIZERS["muon with layer decay"], marks=pytest.mark.slow),
        {"fp16": True},
    ],
)
def test_every_optimizer_goes_on_bit_for_bit(store, tmp_path, settings):
    settings = dict(settings)
    precision = {"precision": "fp16"} if settings.pop("fp16", False) else {}
    config = changed(optim=settings, run=precision, schedule={"steps": 6})
    resumes_bit_for_bit(config, store, tmp_path, after=3)


def test_a_schedule_may_be_extended(store, finished, tmp_path):
    longer = changed(schedule={"steps": STEPS + 3}, run={"log_every": 4, "loggers": ()})
    for out in (tmp_path / "ended", tmp_path / "stopped"):

        def stop(step, *_, out=out):
            if step == 5 and out.name == "stopped":
                raise KeyboardInterrupt

        try:
            first = train(CONFIG, store, out=out, progress=stop)
        except KeyboardInterrupt:
            first = None
        again = train(longer, store, out=out, resume=True)
        assert again.steps == STEPS + 3
        assert Run.open(out).config == longer
        if first:
            same = Run.open(out).load_weights()["head.weight"]
            assert not torch.equal(same, finished.load_weights()["head.weight"])
    with pytest.raises(UsageError, match=r"schedule\.steps was 12 and is 9"):
        train(CONFIG, store, out=tmp_path / "ended", resume=True)


def test_steps_do_not_replace_epochs_in_a_resumed_run(store, tmp_path):
    epochs = changed(schedule={"steps": None, "epochs": 2})
    train(epochs, store, out=tmp_path / "run")
    with pytest.raises(UsageError, match=r"schedule\.steps was None and is 3"):
        train(changed(epochs, schedule={"steps": 3}), store, out=tmp_path / "run", resume=True)
    longer = changed(epochs, schedule={"epochs": 3})
    assert train(longer, store, out=tmp_path / "run", resume=True).steps == 12


def test_an_extension_that_is_stopped_goes_on(store, finished, tmp_path):
    out, longer = tmp_path / "run", changed(schedule={"steps": STEPS + 4})

    def stop(step, *_):
        if step == STEPS + 2:
            raise KeyboardInterrupt

    train(CONFIG, store, out=out)
    with pytest.raises(KeyboardInterrupt):
        train(longer, store, out=out, resume=True, progress=stop)
    assert Run.open(out).info["status"] == "started"
    assert train(longer, store, out=out, resume=True).steps == STEPS + 4
    assert Run.open(out).metrics()[-1]["step"] == STEPS + 4
    assert train(longer, store, out=out, resume=True).steps == STEPS + 4


def test_what_a_resumed_run_may_change(finished):
    saved = to_mapping(CONFIG)
    machine = changed(run={"device": "auto", "log_every": 7, "compile": True, "eval_every": 1})
    assert machine.differences(saved) == []
    assert changed(run={"seed": 3}).differences(saved) == ["run.seed was 0 and is 3"]
    older = {
        name: dict(group)
        for name, group in saved.items()
        if isinstance(group, dict) and name != "distill"
    }
    del older["optim"]["layer_decay"]
    assert CONFIG.differences(older) == []
    with pytest.raises(UsageError, match="no setting 'wings"):
        CONFIG.differences({"wings": {"count": 2}})


def test_resume_auto_on_the_command_line(store, tmp_path, capsys):
    arguments = ["train", str(store.folder), "--out", str(tmp_path / "run"), "--json"]
    config = tmp_path / "config.yaml"
    config.write_text(json.dumps(to_mapping(changed(schedule={"steps": 2}))))
    arguments += ["--config", str(config)]
    for _ in range(2):
        main([*arguments, "--resume", "auto"])
    with pytest.raises(SystemExit) as exit_:
        main([*arguments, "--resume", "auto", "--optim.lr", "0.5"])
    assert exit_.value.code == 2
    assert "optim.lr was 0.001 and is 0.5" in capsys.readouterr().err


# --------------------------------------------------------------------------- optimisers and losses


def test_layer_decay_gives_lower_layers_lower_rates(store):
    model = seit.create_model(
        "vit_tiny_patch16_224", store, stem="2/2/0", embed_dim=16, depth=2, num_heads=2
    )
    config = OptimConfig(lr=1.0, layer_decay=0.5)
    optimizer = make_optimizer(model, config, torch.device("cpu"))
    set_learning_rate(optimizer, 0.1)
    rates = {
        id(parameter): group["lr"]
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    expected = {"head.weight": 0.1, "blocks.1.mlp.fc1.weight": 0.05, "blocks.0.norm1.bias": 0.025}
    expected["pos_embed"] = 0.0125
    named = dict(model.named_parameters())
    assert {name: rates[id(named[name])] for name in expected} == pytest.approx(expected)


def test_muon_takes_the_matrices_of_the_blocks_only(store):
    model = seit.create_model(
        "vit_tiny_patch16_224", store, stem="2/2/0", embed_dim=16, depth=1, num_heads=2
    )
    optimizer = make_optimizer(model, OptimConfig(name="muon"), torch.device("cpu"))
    model(torch.randn(2, store.card.tokenizer.codebook_dim, 7, 7)).sum().backward()
    optimizer.step()
    by_muon = {
        name
        for name, parameter in model.named_parameters()
        if "momentum_buffer" in optimizer.state[parameter]
    }
    layers = ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
    assert by_muon == {f"blocks.0.{layer}.weight" for layer in layers}


def mixed(num_classes=5, count=6):
    generator = torch.Generator().manual_seed(0)
    own, partner = torch.randint(num_classes, (2, count), generator=generator)
    weight = torch.rand(count, generator=generator)
    logits = torch.randn(count, num_classes, generator=generator)
    return logits, Augmented(torch.empty(0), own, partner, weight)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_binary_cross_entropy_equals_timms(smoothing):
    logits, batch = mixed()
    ours = classification_loss(logits, batch, LossConfig(kind="bce", label_smoothing=smoothing))
    targets = [
        F.one_hot(labels, 5) * (1 - smoothing) + smoothing / 5
        for labels in (batch.labels, batch.partner_labels)
    ]
    target = batch.weight[:, None] * targets[0] + (1 - batch.weight[:, None]) * targets[1]
    theirs = timm.loss.BinaryCrossEntropy(smoothing=0.0)(logits, target)
    torch.testing.assert_close(ours, theirs)


def test_distillation_losses_by_their_formulas():
    logits, _ = mixed()
    teacher = torch.randn(6, 5, generator=torch.Generator().manual_seed(1))
    soft = DistillConfig(kind="soft", temperature=3.0)
    p, q = (teacher / 3).softmax(1).double(), (logits / 3).softmax(1).double()
    expected = 9 * (p * (p / q).log()).sum(1).mean()
    found = distillation_loss(logits, (teacher / 3).softmax(1), soft)
    assert float(found) == pytest.approx(float(expected), rel=1e-5)
    hard = distillation_loss(logits, teacher.softmax(1), DistillConfig(kind="hard"))
    torch.testing.assert_close(hard, F.cross_entropy(logits, teacher.argmax(1)))


# ------------------------------------------------------------------------------------------- depth


class Branch(nn.Module):
    def __init__(self, prob):
        super().__init__()
        self.drop_path = DropPath(prob)

    def forward(self, x):
        return self.drop_path(x)


def test_stochastic_depth_belongs_to_samples_and_keeps_the_mean():
    model = nn.Sequential(Branch(0.25), Branch(0.0), Branch(0.5))
    names = list(model.state_dict())
    depth = Depth(model)
    assert len(depth.layers) == 2
    assert list(model.state_dict()) == names
    scales = depth.draw(SampleRandom(7, 2, torch.arange(20_000)))
    assert scales[:, 0].unique().tolist() == pytest.approx([0, 1 / 0.75])
    assert scales.mean(0).tolist() == pytest.approx([1, 1], abs=0.03)
    some = depth.draw(SampleRandom(7, 2, torch.tensor([5, 19_000])))
    assert torch.equal(some, scales[[5, 19_000]])
    x = torch.ones(2, 3, 4)
    depth.set(torch.tensor([[0.0, 2.0], [1 / 0.75, 2.0]]))
    assert torch.equal(model(x)[0], torch.zeros(3, 4))
    torch.testing.assert_close(model(x)[1], torch.full((3, 4), 2 / 0.75))
    assert torch.equal(model.eval()(x), x)


# ---------------------------------------------------------------------------------------- teachers


def test_a_run_of_tokens_teaches(store, finished, tmp_path):
    config = changed(
        optim={"clip_grad": 0.0},
        distill={"teacher": str(finished.path), "alpha": 1.0, "kind": "soft"},
        schedule={"steps": 2},
    )
    train(config, store, out=tmp_path / "taught")
    other = changed(config, loss={"label_smoothing": 0.5})
    train(other, store, out=tmp_path / "other")
    same_weights(Run.open(tmp_path / "other"), Run.open(tmp_path / "taught"))
    plain = changed(config, distill={"alpha": 0.0})
    train(plain, store, out=tmp_path / "plain")
    none = changed(config, distill={"alpha": 0.0, "teacher": None})
    train(none, store, out=tmp_path / "none")
    same_weights(Run.open(tmp_path / "none"), Run.open(tmp_path / "plain"))
    small = changed(config, augment={"crop_size": 4})
    with pytest.raises(UsageError, match=r"set augment.crop_size to the teacher's 6"):
        train(small, store, out=tmp_path / "small")


def test_a_teacher_of_other_classes_is_refused(store, finished, tmp_path):
    write_pictures(tmp_path / "pictures", ("x", "y", "z"))
    tokenize(tmp_path / "pictures", tmp_path / "store", TokenizeConfig(size=64, codes=32))
    config = changed(distill={"teacher": str(finished.path)})
    with pytest.raises(UsageError, match=r"does not know 3 classes of .*: 'x', 'y', 'z'"):
        train(config, tmp_path / "store", out=tmp_path / "run")


def relisted(store, folder, *classes):
    """A copy of a store whose card lists other classes, and so means others by its labels."""
    shutil.copytree(store.path, folder)
    edit_card(folder, lambda body: body.update(classes=list(classes)))
    return seit.open(folder)


@pytest.mark.parametrize("kind", ["tokens", pytest.param("pixels", marks=pytest.mark.slow)])
def test_a_teacher_is_understood_by_the_names_of_its_classes(kind, store, pictures, tmp_path):
    """A student of a store that lists its classes in another order learns the same of each."""
    source = str(pictures) if kind == "pixels" else None
    short = changed(data={"pixels": source}, schedule={"steps": 2})
    if source is not None:
        short = changed(short, augment={"crop_size": 0})
    train(short, store, out=tmp_path / "teacher")
    distill = {"teacher": str(tmp_path / "teacher"), "alpha": 1.0, "pixels": source}
    config = changed(distill=distill)
    ranks = Ranks(0, 1, torch.device("cpu"))
    feed = make_feed(store, config, ranks.device)
    batch = next(feed.train_batches(0))
    plain = make_teacher(config, store, ranks, tmp_path).probabilities(batch)
    other = relisted(store, tmp_path / "other", "cat", "ant", "bee")
    (tmp_path / "two").mkdir()
    turned = make_teacher(config, other, ranks, tmp_path / "two").probabilities(batch)
    torch.testing.assert_close(turned, plain[:, [2, 0, 1]])


def test_a_classifier_is_started_from_by_the_names_of_its_classes(
    store, finished, tmp_path, caplog
):
    config = changed(schedule={"steps": 1}, optim={"lr": 1e-12}, ema={"decay": 0.0})

    def head(*classes):
        name = "-".join(classes)
        other = relisted(store, tmp_path / name, *classes)
        train(config, other, out=tmp_path / f"run-{name}", init_from=finished.path)
        return Run.open(tmp_path / f"run-{name}").load_weights()["head.weight"]

    own = finished.load_weights()["head.weight"]
    torch.testing.assert_close(head("cat", "ant", "bee"), own[[2, 0, 1]], rtol=0, atol=1e-9)
    assert "is not used" not in caplog.text
    assert not torch.allclose(head("Cat", "ant", "bee")[1:], own[:2], atol=1e-3)
    assert "is not used: it does not know 'Cat' ('Cat' is nearly 'cat' (case))" in caplog.text


def test_classes_that_are_evaluated_and_never_learned_are_warned_about(tmp_path, caplog):
    write_pictures(tmp_path / "pictures", ("ant", "bee"))
    (tmp_path / "pictures/val/ant").rename(tmp_path / "pictures/val/Ant")
    tokenize(tmp_path / "pictures", tmp_path / "store", TokenizeConfig(size=64, codes=32))
    caplog.clear()
    train(changed(schedule={"steps": 1}), tmp_path / "store", out=tmp_path / "run")
    assert "1 of 3 classes has samples in split 'val' and none in 'train'" in caplog.text
    assert "'Ant' is nearly 'ant' (case)" in caplog.text


def test_a_run_of_pixels_teaches_one_of_tokens(store, pictures, tmp_path):
    pixels = changed(
        data={"pixels": str(pictures)}, schedule={"steps": 2}, augment={"crop_size": 0}
    )
    train(pixels, store, out=tmp_path / "teacher")
    taught = changed(distill={"teacher": str(tmp_path / "teacher"), "alpha": 0.7})
    with pytest.raises(UsageError, match=r"--distill\.pixels SRC"):
        train(taught, store, out=tmp_path / "unnamed")
    taught = changed(taught, distill={"pixels": str(pictures)})
    train(taught, store, out=tmp_path / "one")
    logits = load_file(tmp_path / "one" / "teacher.safetensors")["logits"]
    assert logits.shape == (72, 3)
    again = evaluate_run(tmp_path / "teacher", store, split="train", device="cpu", pixels=pictures)
    assert np.array_equal(logits.argmax(1).numpy(), again.predictions)
    wrong = changed(pixels, distill={"teacher": str(tmp_path / "one")})
    with pytest.raises(UsageError, match="takes tokens and this run pixels"):
        train(wrong, store, out=tmp_path / "none")


@pytest.mark.slow
def test_ranks_are_taught_what_one_process_is(store, pictures, tmp_path):
    pixels = changed(
        data={"pixels": str(pictures)}, schedule={"steps": 2}, augment={"crop_size": 0}
    )
    train(pixels, store, out=tmp_path / "teacher")
    teacher = {"teacher": str(tmp_path / "teacher"), "alpha": 0.7, "pixels": str(pictures)}
    taught = changed(distill=teacher)
    train(taught, store, out=tmp_path / "one")
    assert exit_codes(fork_ranks(resume, store, tmp_path / "two", taught, ranks=2)) == [0, 0]
    same_weights(Run.open(tmp_path / "two"), Run.open(tmp_path / "one"), tolerance=2e-5)


# ---------------------------------------------------------------------------------------- failures


def test_predictions_are_those_of_the_final_weights(store, finished):
    evaluation = evaluate_run(finished.path, store, device="cpu")
    kept = read_predictions(finished)
    assert np.array_equal(evaluation.predictions, kept.predicted)
    labels = store["val"].labels
    assert np.array_equal(kept.labels, labels)
    assert (evaluation.predictions == labels).mean() == pytest.approx(evaluation.top1)


@pytest.mark.slow
def test_a_compiled_run_keeps_the_names(store, finished, tmp_path):
    train(changed(run={"compile": True}), store, out=tmp_path / "run")
    same_weights(Run.open(tmp_path / "run"), finished, tolerance=1e-4)
