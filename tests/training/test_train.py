"""Training: schedule, loss, resume, run folders, evaluation, prediction, the pixel baseline."""

import csv
import json
import math
import shutil
import sys
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from support.stores import edit_card
from torch.nn import functional as F

import seit
from seit.augment import AugmentConfig, Augmented, PixelAugment, TokenAugment
from seit.cli import main
from seit.config import build
from seit.errors import DamagedError, SeitError, UsageError
from seit.ingest import PixelReader, TokenizeConfig, tokenize
from seit.stores import filter_store
from seit.training import Run, TrainConfig, evaluate_run, pixel_stem, predict, train
from seit.training.checkpoint import list_checkpoints
from seit.training.config import LossConfig, ModelConfig
from seit.training.evaluate import evaluate
from seit.training.feeds import make_augment
from seit.training.losses import classification_loss
from seit.training.optimizer import learning_rate, warmup_remark

CLASSES = ("blue", "green", "red")


def picture(label, random):
    """A 64 px picture whose class shows in its main colour; stripes and shades do not help."""
    y, x = np.mgrid[:64, :64]
    angle = random.uniform(0, np.pi)
    stripes = np.sin((np.cos(angle) * x + np.sin(angle) * y) / random.uniform(2, 9))
    shade = random.uniform(90, 170) + 50 * stripes[..., None]
    tint = np.full(3, -25.0)
    tint[label] = 50
    noise = random.normal(0, 12, (64, 64, 3))
    return np.clip(shade + tint + noise, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    random = np.random.default_rng(0)
    for split, count in (("train", 64), ("val", 16)):
        for label, name in enumerate(CLASSES):
            (folder / split / name).mkdir(parents=True)
            for number in range(count):
                image = Image.fromarray(picture(label, random))
                image.save(folder / split / name / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def store(corpus, tmp_path_factory):
    path = tmp_path_factory.mktemp("store") / "tokens"
    tokenize(corpus, path, TokenizeConfig(size=64, codes=64))
    return seit.open(path)


CONFIG = build(
    TrainConfig,
    {
        "model": {
            "name": "vit_tiny_patch16_224",
            "stem": "3/1/1",
            "embed_dim": 32,
            "depth": 2,
            "num_heads": 2,
            "drop_path": 0.1,
        },
        "data": {"batch_size": 32},
        "optim": {"lr": 4e-3, "lr_batch_size": 0},
        "schedule": {"steps": 60, "warmup_steps": 5},
        "augment": {"cutmix_prob": 0.3, "noise_scale": 0.1, "noise_std": 0.1},
        "ema": {"decay": 0.9},
        "run": {"device": "cpu", "eval_every": 20, "log_every": 10},
    },
    origin="test",
)


@pytest.fixture(scope="module")
def finished(store, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "run"
    return train(CONFIG, store, out=out), Run.open(out)


def test_it_learns(finished):
    result, run = finished
    assert result.top1 > 0.75
    assert result.steps == 60
    losses = [entry["loss"] for entry in run.metrics() if entry["split"] == "train"]
    assert losses[-1] < losses[0]
    assert run.info["result"]["top1"] == result.top1
    assert (run.path / "report.html").is_file()


def test_seit_train_is_the_function():
    assert seit.training.train is train
    with pytest.raises(TypeError):
        seit.train()


def test_eval_repeats_the_final_figures_exactly(finished, store):
    result, run = finished
    again = evaluate_run(run.path, store, device="cpu")
    assert (again.top1, again.top5, again.samples) == (result.top1, result.top5, 48)
    assert again.loss == pytest.approx(result.loss, rel=1e-6)
    assert again.confusion.total == 48
    assert again.confusion.right == round(result.top1 * 48)


def test_predict_agrees_with_eval(finished, store, corpus):
    result, run = finished
    files = [corpus / key for key in store["val"].keys]
    predictions = predict(run.path, files, top=2, device="cpu")
    best = [CLASSES.index(entry.classes[0][0]) for entry in predictions]
    assert np.mean(np.array(best) == store["val"].labels) == pytest.approx(result.top1)
    full = predict(run.path, files[:2], top=10, device="cpu")
    assert all(sum(p for _, p in entry.classes) == pytest.approx(1) for entry in full)


def test_averaged_weights_are_what_is_saved_and_evaluated(store, tmp_path):
    config = replace(CONFIG, ema=replace(CONFIG.ema, decay=0.0))
    config = replace(config, schedule=replace(config.schedule, steps=8))
    train(config, store, out=tmp_path / "plain")
    train(
        replace(config, ema=replace(config.ema, decay=0.99, warmup=False)),
        store,
        out=tmp_path / "ema",
    )
    plain = Run.open(tmp_path / "plain").load_weights()
    average = Run.open(tmp_path / "ema").load_weights()
    assert plain.keys() == average.keys()
    assert not torch.equal(plain["head.weight"], average["head.weight"])


def test_a_finished_run_resumed_keeps_its_result(finished, store):
    result, run = finished
    before = run.load_weights()
    again = train(CONFIG, store, out=run.path, resume=True)
    assert (again.top1, again.loss) == (result.top1, result.loss)
    assert run.info["result"]["samples_per_second"] == result.samples_per_second
    assert all(torch.equal(run.load_weights()[key], value) for key, value in before.items())


def test_resuming_with_other_settings_names_them(finished, store):
    _, run = finished
    other = replace(CONFIG, optim=replace(CONFIG.optim, lr=1e-3))
    with pytest.raises(UsageError, match=r"optim\.lr was 0\.004 and is 0\.001"):
        train(other, store, out=run.path, resume=True)
    with pytest.raises(UsageError, match="pass --resume"):
        train(CONFIG, store, out=run.path)


def test_a_folder_with_other_things_is_refused(store, tmp_path):
    (tmp_path / "precious.txt").write_text("mine")
    with pytest.raises(UsageError, match="holds something else"):
        train(CONFIG, store, out=tmp_path)


def test_a_damaged_checkpoint_is_named(finished, store, tmp_path):
    class StopError(Exception):
        pass

    def stop(step, total, figures):
        if step == 25:
            raise StopError

    with pytest.raises(StopError):
        train(CONFIG, store, out=tmp_path / "run", progress=stop)
    (path,) = list_checkpoints(tmp_path / "run" / "checkpoints")
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(DamagedError, match="delete it to resume"):
        train(CONFIG, store, out=tmp_path / "run", resume=True)


def test_starting_from_another_runs_weights(finished, store, tmp_path):
    result, run = finished
    schedule = replace(CONFIG.schedule, steps=1, warmup_steps=0)
    optim = replace(CONFIG.optim, lr=1e-9)
    config = replace(CONFIG, schedule=schedule, optim=optim)
    warm = train(config, store, out=tmp_path / "warm", init_from=run.path)
    assert warm.top1 == pytest.approx(result.top1)
    deeper = replace(config, model=replace(config.model, depth=3))
    with pytest.raises(
        UsageError, match=r"model: model\.depth is 3, and the run has \d; leave it out"
    ):
        train(deeper, store, out=tmp_path / "deep", init_from=run.path)
    other = replace(config, model=replace(config.model, name="vit_small_patch16_224", depth=3))
    with pytest.raises(UsageError, match=r"model: model\.name is vit_small.*; leave --model out"):
        train(other, store, out=tmp_path / "other", init_from=run.path)


def test_pixels_of_the_same_instances(store, corpus, tmp_path):
    config = replace(CONFIG, data=replace(CONFIG.data, pixels=str(corpus)))
    config = replace(config, schedule=replace(config.schedule, steps=30))
    result = train(config, store, out=tmp_path / "pixels")
    assert result.top1 > 0.5
    predictions = predict(tmp_path / "pixels", [corpus / store["val"].keys[0]], device="cpu")
    assert predictions[0].classes
    again = evaluate_run(tmp_path / "pixels", store, device="cpu", pixels=corpus)
    assert again.top1 == result.top1


def test_pixels_are_decoded_once_or_at_each_step(store, corpus, tmp_path, monkeypatch):
    decoded = Counter()
    read = PixelReader.read

    def counted(reader, instances):
        decoded.update(instance.key for instance in instances)
        return read(reader, instances)

    monkeypatch.setattr(PixelReader, "read", counted)
    weights = {}
    for mode, most in (("resident", 1), ("streaming", 3)):
        decoded.clear()
        weights[mode] = brief(store, tmp_path / mode, pixels=str(corpus), mode=mode, batch_size=64)
        assert decoded[store["train"].keys[0]] == most, "of 7 steps of 64 of 192 samples"
    assert all(
        torch.equal(one, weights["streaming"][key]) for key, one in weights["resident"].items()
    )


@pytest.mark.parametrize("setting", [{"order": "window"}, {"window_blocks": 2}])
def test_pixels_have_no_order_of_blocks(store, corpus, tmp_path, setting):
    (name, value), *_ = setting.items()
    with pytest.raises(UsageError, match=rf"data\.{name} is {value!r}, but pixels are drawn from"):
        brief(store, tmp_path / "run", pixels=str(corpus), **setting)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_pixels_are_mirrored_as_asked(store, corpus, share):
    whole = {"crop_scale": (1.0, 1.0), "crop_ratio": (1.0, 1.0), "cutmix_prob": 0}
    config = replace(
        CONFIG,
        data=replace(CONFIG.data, pixels=str(corpus)),
        augment=AugmentConfig(pixel_flip_prob=share, **whole),
    )
    augment = make_augment(store, config, torch.device("cpu"))
    pixels = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    settings = {"positions": torch.arange(2), "seed": 0, "epoch": 0}
    found = augment(pixels, torch.zeros(2, dtype=torch.int64), **settings).inputs
    unmirrored = PixelAugment((64, 64), AugmentConfig(pixel_flip_prob=0, **whole))
    seen = pixels.flip(3) if share else pixels
    expected = unmirrored(seen, torch.zeros(2, dtype=torch.int64), **settings).inputs
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(
    ("name", "value", "pixels"),
    [("flip_prob", 0.25, True), ("crop_size", 2, True), ("pixel_flip_prob", 0.25, False)],
)
def test_augmentations_of_other_inputs_are_refused(store, corpus, tmp_path, name, value, pixels):
    config = replace(
        CONFIG,
        data=replace(CONFIG.data, pixels=str(corpus) if pixels else None),
        augment=AugmentConfig(**{name: value}),
    )
    with pytest.raises(UsageError, match=f"augment.{name} is {value}, but|do not mirror"):
        train(config, store, out=tmp_path / "run")


def test_a_diverging_run_says_so(store, tmp_path):
    config = replace(CONFIG, optim=replace(CONFIG.optim, lr=1e30))
    with pytest.raises(SeitError, match=r"the training loss became \S+ at step"):
        train(config, store, out=tmp_path / "run")


def test_flips_need_a_flip_equivariant_tokenizer(store, tmp_path):
    config = replace(CONFIG, augment=AugmentConfig(flip_prob=0.5))
    with pytest.raises(UsageError, match="do not mirror"):
        train(config, store, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_jitter_is_not_for_tokens(store, tmp_path):
    config = replace(CONFIG, augment=AugmentConfig(jitter=0.4))
    with pytest.raises(UsageError, match="changes pixels; set it to 0"):
        train(config, store, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_stems_of_pixels():
    """One layer covers the pixels of its tokens; several are stems over pixels."""
    model = ModelConfig(name="vit_tiny_patch16_224", stem="4/4/0")
    assert pixel_stem(model, (224, 224), 8) == "32/32/0"
    several = replace(model, stem="3/2/1+3/2/1+4/4/0")
    assert pixel_stem(several, (224, 224), 8) == several.stem
    for side, stem in ((4, "3/2/1+3/2/1+8/8/0"), (1, "3/2/1+3/2/1+2/2/0")):
        early = replace(model, stem=f"early/{side}")
        assert pixel_stem(early, (224, 224), 8) == stem
    assert pixel_stem(replace(model, stem="early/1"), (8, 8), 1) == "3/1/1+3/1/1+1/1/0"
    assert pixel_stem(replace(model, name="resnet18"), (224, 224), 8) == "none"
    assert pixel_stem(replace(model, stem="none"), (224, 224), 8) == "none"


def test_a_store_without_a_val_split_says_what_to_do(corpus, tmp_path):
    tokenize(
        corpus / "train", tmp_path / "store", TokenizeConfig(size=64, codes=64, val_fraction=0)
    )
    with pytest.raises(UsageError, match=r"no labeled samples in a split 'val' .*; tokenize again"):
        train(CONFIG, tmp_path / "store", out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_wrong_val_split_is_answered_with_those_that_have_labels(corpus, tmp_path):
    tokenize(corpus, tmp_path / "store", TokenizeConfig(size=64, codes=64))
    wrong = replace(CONFIG, data=replace(CONFIG.data, val_split="test"))
    with pytest.raises(UsageError, match=r"in a split 'test' .*; set data\.val_split to val"):
        train(wrong, tmp_path / "store", out=tmp_path / "run")


def test_schedule_is_linear_then_cosine():
    config = replace(CONFIG, schedule=replace(CONFIG.schedule, steps=101, warmup_steps=10))
    rates = [learning_rate(step, config, steps_per_epoch=6) for step in range(101)]
    low, peak, end = config.schedule.warmup_lr, config.peak_lr, config.schedule.min_lr
    assert rates[0] == low
    assert rates[5] == pytest.approx((low + peak) / 2)
    assert rates[10] == pytest.approx(peak)
    assert rates[55] == pytest.approx(end + (peak - end) * (1 + math.cos(math.pi / 2)) / 2)
    assert rates[100] == pytest.approx(end)


@pytest.mark.parametrize(("epochs", "has_remark"), [(5, True), (9, True), (10, False)])
def test_a_warm_up_that_leaves_no_time_to_fall_has_remark(epochs, has_remark):
    schedule = replace(CONFIG.schedule, steps=None, epochs=epochs, warmup_epochs=5)
    config = replace(CONFIG, schedule=replace(schedule, warmup_steps=None))
    remark = warmup_remark(config, steps_per_epoch=20)
    assert (remark is not None) == has_remark
    if remark is not None:
        assert f"of {20 * epochs} steps and hardly falls; set schedule.warmup_steps" in remark


def test_the_published_learning_rate():
    config = build(TrainConfig, {"data": {"batch_size": 1024}}, origin="test")
    assert config.peak_lr == pytest.approx(1.5e-3)


def test_mixed_loss_equals_soft_targets():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(6, 5, generator=generator, dtype=torch.float64)
    own = torch.randint(5, (6,), generator=generator)
    partner = torch.randint(5, (6,), generator=generator)
    weight = torch.rand(6, generator=generator, dtype=torch.float64)
    smoothing = 0.1
    smooth = [F.one_hot(labels, 5) * (1 - smoothing) + smoothing / 5 for labels in (own, partner)]
    target = weight[:, None] * smooth[0] + (1 - weight[:, None]) * smooth[1]
    expected = -(target * logits.log_softmax(1)).sum(1).mean()
    batch = Augmented(torch.empty(0), own, partner, weight)
    torch.testing.assert_close(
        classification_loss(logits, batch, LossConfig(label_smoothing=smoothing)), expected
    )


def test_evaluation_counts_every_sample_once_and_skips_the_unlabelled():
    class Fixed(torch.nn.Module):
        def forward(self, inputs):
            return inputs

    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(23, 7, generator=generator)
    labels = torch.randint(7, (23,), generator=generator)
    labels[4] = -1
    batches = list(zip(logits.split(10), labels.split(10), strict=True))
    result = evaluate(
        Fixed(),
        batches,
        num_classes=7,
        device=torch.device("cpu"),
        autocast=torch.autocast("cpu", enabled=False),
    )
    known = labels >= 0
    ranks = (logits > logits.gather(1, labels.clamp(min=0)[:, None])).sum(1)[known]
    assert result.samples == 22
    assert result.top1 == pytest.approx(float((ranks == 0).double().mean()))
    assert result.top5 == pytest.approx(float((ranks < 5).double().mean()))
    assert result.loss == pytest.approx(float(F.cross_entropy(logits[known], labels[known])))


def test_run_json_tells_how_it_was_made(finished, store):
    _, run = finished
    info = json.loads((run.path / "run.json").read_text())
    assert info["status"] == "finished"
    assert {"torch", "timm", "seit", "device"} <= info["environment"].keys()
    assert info["identity"]["classes"] == list(store.classes)


def brief(store, out, **data):
    """The weights after a few steps."""
    config = replace(
        CONFIG,
        data=replace(CONFIG.data, **data),
        schedule=replace(CONFIG.schedule, steps=7),
    )
    result = train(config, store, out=out)
    assert result.steps == 7
    return load_file(out / "model.safetensors")


def test_a_streamed_run_is_the_resident_one(store, tmp_path):
    window = {"order": "window", "window_blocks": 1}
    streamed = brief(store, tmp_path / "streamed", mode="streaming", **window)
    resident = brief(store, tmp_path / "resident", mode="resident", **window)
    assert all(torch.equal(streamed[name], resident[name]) for name in resident)


def test_a_fraction_of_the_labels(store, tmp_path):
    few = brief(store, tmp_path / "few", fraction=0.25, batch_size=16)
    again = brief(store, tmp_path / "again", fraction=0.25, batch_size=16)
    assert all(torch.equal(few[name], again[name]) for name in few)
    with pytest.raises(UsageError, match="larger than the 48 samples"):
        brief(store, tmp_path / "too-few", fraction=0.25, batch_size=64)


def test_streaming_takes_the_order_window(store, tmp_path):
    with pytest.raises(UsageError, match=r"set the order \(data\.order\) to window"):
        brief(store, tmp_path / "run", mode="streaming")


# ----------------------------------------------------------------------- stores of other classes


@pytest.fixture
def renamed(store, tmp_path):
    """Make a copy of the store whose card lists other classes."""

    def make(*classes):
        folder = tmp_path / "-".join(classes)
        shutil.copytree(store.path, folder)
        edit_card(folder, lambda body: body.update(classes=list(classes)))
        return seit.open(folder)

    return make


def test_classes_of_run_and_store_are_matched_by_name(finished, store, renamed):
    result, run = finished
    plain = evaluate_run(run.path, store, device="cpu")
    assert plain.unknown_classes == {}
    assert plain.missing_classes == ()
    turned = evaluate_run(run.path, renamed("red", "blue", "green"), device="cpu")
    assert np.array_equal(turned.predictions, plain.predictions)
    assert np.array_equal(turned.labels, np.array([2, 0, 1])[plain.labels])
    assert turned.top1 == np.mean(turned.labels == turned.predictions)
    assert turned.confusion.to_matrix()[2].tolist() == plain.confusion.to_matrix()[0].tolist()
    more = evaluate_run(run.path, renamed("blue", "green", "red", "void"), device="cpu")
    assert more.top1 == result.top1, "a class without samples is no obstacle"


def test_classes_that_a_run_does_not_know_are_named_or_left_out(finished, store, renamed):
    _, run = finished
    other = renamed("Blue", "green", "pink")
    said = r"32 samples of 2 classes .* 'Blue', 'pink'; 'Blue' is nearly 'blue' \(case\)"
    with pytest.raises(UsageError, match=said):
        evaluate_run(run.path, other, device="cpu")
    found = evaluate_run(run.path, other, unknown="skip", device="cpu")
    assert found.unknown_classes == {"Blue": 16, "pink": 16}
    assert found.missing_classes == ("blue", "red")
    assert found.samples == 16
    assert np.isnan(found.confusion.recalls[[0, 2]]).all()
    loose = evaluate_run(run.path, other, unknown="skip", spelling="loose", device="cpu")
    assert loose.unknown_classes == {"pink": 16}
    plain = evaluate_run(run.path, store, device="cpu")
    assert loose.confusion.recalls[:2].tolist() == plain.confusion.recalls[:2].tolist()
    with pytest.raises(UsageError, match="holds no labeled samples to evaluate, but those of"):
        evaluate_run(run.path, renamed("x", "y", "z"), unknown="skip", device="cpu")


def test_the_only_split_is_evaluated_by_default(finished, store, tmp_path):
    _, run = finished
    filter_store(store.path, tmp_path / "only", splits=["train"])
    assert evaluate_run(run.path, tmp_path / "only", device="cpu").split == "train"


def test_the_split_that_the_run_watched_is_evaluated_by_default(store, tmp_path, capsys):
    data = replace(CONFIG.data, train_split="val", val_split="train")
    schedule = replace(CONFIG.schedule, steps=2, warmup_steps=0)
    result = train(replace(CONFIG, data=data, schedule=schedule), store, out=tmp_path / "run")
    again = evaluate_run(tmp_path / "run", store, device="cpu")
    assert (again.split, again.top1) == ("train", result.top1)
    main(["eval", str(tmp_path / "run"), str(store.path), "--device", "cpu"])
    assert "of 'train' (" in capsys.readouterr().out
    filter_store(store.path, tmp_path / "only", splits=["val"])
    assert evaluate_run(tmp_path / "run", tmp_path / "only", device="cpu").split == "val"


def read_csv(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def test_an_evaluation_is_written_as_tables(finished, store, tmp_path, capsys):
    result, run = finished
    out = tmp_path / "tables"
    arguments = ["eval", str(run.path), str(store.path), "--device", "cpu", "--json", "--out"]
    main([*arguments, str(out)])
    told = json.loads(capsys.readouterr().out)
    assert told["unknown_samples"] == 0
    matrix = evaluate_run(run.path, store, device="cpu").confusion.to_matrix()
    header, *rows = read_csv(out / "confusion_matrix.csv")
    assert header == ["true", *CLASSES]
    assert [list(map(int, row[1:])) for row in rows] == matrix.tolist()
    header, *rows = read_csv(out / "classes.csv")
    assert header == ["class", "precision", "recall", "f1", "support", "predicted"]
    for label, (name, precision, recall, f1, support, taken) in enumerate(rows):
        assert name == CLASSES[label]
        assert (int(support), int(taken)) == (matrix[label].sum(), matrix[:, label].sum())
        assert float(recall) == pytest.approx(matrix[label, label] / 16, abs=1e-6)
        assert float(precision) == pytest.approx(
            matrix[label, label] / matrix[:, label].sum(), abs=1e-6
        )
        mean = 2 / (1 / float(recall) + 1 / float(precision))
        assert float(f1) == pytest.approx(mean, abs=1e-5)
    pairs = read_csv(out / "confusion.csv")[1:]
    assert sum(int(count) for _, _, count in pairs) == 48
    rows = read_csv(out / "predictions.csv")[1:]
    assert [row[0] for row in rows] == list(store["val"].keys)
    assert np.mean([true == named for _, true, named in rows]) == pytest.approx(result.top1)
    with pytest.raises(SystemExit) as stop:
        main([*arguments, str(out)])
    assert stop.value.code == 2
    main([*arguments, str(tmp_path / "classes.csv")])
    assert read_csv(tmp_path / "classes.csv") == read_csv(out / "classes.csv")


# ------------------------------------------------------------------------------- many raw files


def test_unreadable_files_do_not_stop_the_others(finished, corpus, tmp_path, call):
    _, run = finished
    folder = tmp_path / "photos" / "inner"
    folder.mkdir(parents=True)
    good = sorted((corpus / "val" / "red").iterdir())[:2]
    for number, path in enumerate(good):
        shutil.copy(path, folder / f"{number}.png")
    (folder.parent / "bad.png").write_bytes(good[0].read_bytes()[:200])
    (folder.parent / "notes.txt").write_text("no picture")

    def predicted(*arguments):
        return call("predict", run.path, *arguments, "--device", "cpu")

    expected = predict(run.path, [folder / "0.png", folder / "1.png"], top=2, device="cpu")
    out = tmp_path / "results.csv"
    code, _, err = predicted(tmp_path / "photos", "--out", out, "--top", "2")
    assert code == 1
    assert "1 of 3 files cannot be read" in err
    header, *rows = read_csv(out)
    assert header == ["file", "class", "probability", "class_2", "probability_2", "error"]
    by_name = {row[0].rpartition("/")[2]: row for row in rows}
    assert by_name["bad.png"][1:5] == [""] * 4
    assert by_name["bad.png"][5]
    for one in expected:
        row = by_name[one.file.rpartition("/")[2]]
        assert (row[1], row[3], row[5]) == (one.classes[0][0], one.classes[1][0], "")
        assert float(row[2]) == pytest.approx(one.classes[0][1], rel=1e-4)
    assert predicted(folder / "0.png", "--out", out)[0] == 2, "a table is not overwritten"
    code, told, _ = predicted(f"{tmp_path}/photos/**/*.png", "--json")
    found = json.loads(told)
    assert (code, found["unreadable"], len(found["predictions"])) == (1, 1, 3)
    code, told, _ = predicted(folder / "0.png", folder.parent / "bad.png", folder / "1.png")
    assert code == 1
    assert told.count("%") == 6
    assert "unreadable: " in told
    for nothing in (tmp_path / "none.png", tmp_path / "*.gif", corpus.parent / "none*"):
        assert predicted(nothing)[0] == 2


def test_missing_files_and_broken_links_do_not_stop_the_others(finished, corpus, tmp_path, call):
    """A file may be gone between a pattern's expansion and the call."""
    _, run = finished
    good = min((corpus / "val" / "red").iterdir())
    (tmp_path / "a-gone.png").symlink_to(tmp_path / "nowhere.png")
    (tmp_path / "b-loop.png").symlink_to("b-loop.png")
    shutil.copy(good, tmp_path / "c.png")
    gone, missing = "cannot be read: No such file or directory", tmp_path / "gone.png"
    loop = "cannot be read: Too many levels of symbolic links"

    def reasons(*arguments):
        code, out, err = call("predict", run.path, *arguments, "--device", "cpu", "--json")
        found = json.loads(out)["predictions"] if out else []
        return code, {one["file"].rpartition("/")[2]: one.get("error") for one in found}, err

    expected = {"a-gone.png": gone, "b-loop.png": loop, "c.png": None}
    for given in ([f"{tmp_path}/*.png"], sorted(tmp_path.iterdir()), [tmp_path]):
        assert reasons(*given)[:2] == (1, expected)
    assert reasons(missing, tmp_path / "c.png")[:2] == (1, {"gone.png": gone, "c.png": None})
    assert reasons(tmp_path / "a-gone.png")[:2] == (1, {"a-gone.png": gone})
    code, _, err = reasons(missing, tmp_path / "gone-too.png")
    assert (code, f"there is no file {missing}" in err) == (2, True)
    with pytest.raises(UsageError, match="is a URL"):
        predict(run.path, ["https://example.org/c.png", tmp_path / "c.png"], device="cpu")


def test_predictions_take_the_tokens_of_the_store_whatever_the_precision(
    finished, store, corpus, tmp_path, monkeypatch
):
    run = shutil.copytree(finished[1].path, tmp_path / "run")
    text = (run / "config.yaml").read_text()
    assert "precision: auto" in text
    (run / "config.yaml").write_text(text.replace("precision: auto", "precision: bf16"))
    seen, evaluate_tokens = [], TokenAugment.evaluate
    monkeypatch.setattr(
        TokenAugment, "evaluate", lambda self, ids: seen.append(ids) or evaluate_tokens(self, ids)
    )
    files = [corpus / key for key in store["val"].keys]
    assert all(one.error is None for one in predict(run, files, device="cpu"))
    assert torch.equal(torch.cat(seen), torch.from_numpy(store["val"].tokens[:].astype(np.int64)))


def test_an_interrupted_table_of_predictions_is_not_left(finished, corpus, tmp_path):
    files = [str(path) for path in sorted((corpus / "val").rglob("*.png"))[:3]]

    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        seit.predict(finished[1].path, files=files, out=tmp_path / "p.csv", progress=stop)
    assert not list(tmp_path.iterdir())
    seit.predict(finished[1].path, files=files, out=tmp_path / "p.csv")
    assert len(read_csv(tmp_path / "p.csv")) == 4


def test_a_prediction_is_the_same_in_any_batch(finished, corpus, monkeypatch):
    _, run = finished
    files = sorted((corpus / "val").rglob("*.png"))[::5]
    expected = predict(run.path, files, device="cpu")
    monkeypatch.setattr(sys.modules["seit.training.prediction"], "EVAL_BATCH", 3)
    for one, other in zip(predict(run.path, files, device="cpu"), expected, strict=True):
        assert one.file == other.file
        assert dict(one.classes) == pytest.approx(dict(other.classes), abs=1e-6)
