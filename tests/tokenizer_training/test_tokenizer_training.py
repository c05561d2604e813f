"""Training of `conv-vq`: resuming bit for bit, folders, losses, quantisers, the command."""

import json
import math
import shutil
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from PIL import Image
from support.tokenizer_training import NOTED, SMALL, few_start_batches

from seit.analysis.runs.compare import compare_runs
from seit.cli import main
from seit.config import read_yaml
from seit.errors import DamagedError, SeitError, UsageError
from seit.ingest.sources import list_corpus
from seit.tensors import read_arrays
from seit.tokenizer_training import TokenizerConfig, train_tokenizer
from seit.tokenizer_training.crops import Crops
from seit.tokenizer_training.discriminator import PatchDiscriminator
from seit.tokenizer_training.distillation import Distillation
from seit.tokenizer_training.losses import hinge, reconstruction
from seit.tokenizer_training.semantics import ORIENTATIONS, ClassHead, hog
from seit.tokenizers import load_tokenizer, unfold
from seit.tokenizers.learned.conv import to_planes
from seit.training import Run
from seit.training.checkpoint import list_checkpoints

SIZE = 32
TINY = TokenizerConfig(
    **SMALL,
    **NOTED,
    size=SIZE,
    levels=(4, 3, 3),
    scale=(1.0, 1.5),
    batch_size=8,
    steps=6,
    warmup_steps=2,
    eval_images=8,
)
EVERYTHING = replace(
    TINY,
    adversarial=0.1,
    adversarial_start=3,
    discriminator_width=4,
    classes=0.1,
    hog=0.1,
    code_rate=0.01,
)


@pytest.fixture(scope="module", autouse=True)
def quick_start():
    with few_start_batches(8):
        yield


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    random = np.random.default_rng(0)
    for name in ("ant", "bee"):
        (folder / name).mkdir()
        for number in range(12):
            coarse = random.integers(0, 256, (3, 4, 3), dtype=np.uint8)
            image = Image.fromarray(coarse).resize((70, 60), Image.Resampling.BICUBIC)
            image.save(folder / name / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def finished(photos, tmp_path_factory):
    """A training that nothing disturbed: its result and its folder."""
    folder = tmp_path_factory.mktemp("trainings") / "finished"
    return train_tokenizer(photos, EVERYTHING, folder), folder


# ------------------------------------------------------------------------------------------ folders


def test_what_a_training_leaves_behind(finished):
    result, folder = finished
    assert {path.name for path in folder.iterdir()} == {
        *("config.yaml", "metrics.jsonl", "checkpoints", "tokenizer.safetensors", "run.json"),
        "report.html",
    }
    tokenizer = load_tokenizer(result.file)
    assert tokenizer.fingerprint == result.fingerprint
    assert not any("head.logits" in key or "layers" in key for key in tokenizer.tensors())
    evaluation = Run.open(folder).info["result"]
    assert evaluation["split"] == "val"
    assert evaluation["psnr_db"] == result.psnr_db > 8
    assert {"ssim", "ms_ssim", "perplexity", "entropy_bits"} <= evaluation.keys()
    first, *_, last = (folder / "metrics.jsonl").read_text().splitlines()
    assert "discriminator_loss" not in json.loads(first)
    assert {
        "discriminator_loss",
        "adversarial_loss",
        "class_loss",
        "hog_loss",
        "rate_loss",
        "psnr_db",
    } <= (json.loads(last).keys())


def test_a_finished_training_is_not_repeated(photos, finished):
    result, folder = finished
    before = (folder / "run.json").read_bytes()

    def refuse(*_):
        raise AssertionError("a step was taken")

    again = train_tokenizer(photos, EVERYTHING, folder, resume=True, progress=refuse)
    assert replace(again, seconds=0.0) == replace(result, seconds=0.0)
    assert (folder / "run.json").read_bytes() == before


def test_folders_that_hold_something_else_are_refused(photos, finished, tmp_path):
    _, folder = finished
    with pytest.raises(UsageError, match="pass --resume"):
        train_tokenizer(photos, EVERYTHING, folder)
    with pytest.raises(UsageError, match=r"lr was 0.001 and is 0.002; seed was 0 and is 1"):
        train_tokenizer(photos, replace(EVERYTHING, lr=2e-3, seed=1), folder, resume=True)
    with pytest.raises(UsageError, match="another SRC"):
        train_tokenizer([photos, photos], EVERYTHING, folder, resume=True)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match="something else"):
        train_tokenizer(photos, TINY, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_settings_that_came_later_had_their_defaults(finished):
    _, folder = finished
    saved = read_yaml(folder / "config.yaml")
    for name in ("hog", "classes", "adversarial", "eval_images"):
        del saved[name]
    assert [text.split()[0] for text in EVERYTHING.differences(saved)] == [
        *("adversarial", "classes", "eval_images", "hog")
    ]
    with pytest.raises(UsageError, match="no setting 'wings'"):
        TINY.differences({"wings": 2})


def test_a_file_that_was_changed_afterwards_is_found(photos, tmp_path):
    folder = tmp_path / "out"
    train_tokenizer(photos, replace(TINY, steps=1), folder)
    info = json.loads((folder / "run.json").read_text())
    info["result"]["fingerprint"] = "0" * 64
    (folder / "run.json").write_text(json.dumps(info))
    with pytest.raises(DamagedError, match="is not what"):
        train_tokenizer(photos, replace(TINY, steps=1), folder, resume=True)
    (folder / "run.json").write_text("[")
    with pytest.raises(DamagedError, match=r"run\.json"):
        train_tokenizer(photos, replace(TINY, steps=1), folder, resume=True)


def as_earlier(folder, place, *, corpora):
    """The folder of a training as an earlier version left it, without the last steps."""
    shutil.copytree(folder, place)
    info = json.loads((place / "run.json").read_text())
    settings = read_yaml(place / "config.yaml")
    for name in ("log_every", "loggers"):
        del settings[name]
    (place / "config.json").write_text(json.dumps({"corpora": corpora, "settings": settings}))
    entries = [json.loads(line) for line in (place / "metrics.jsonl").read_text().splitlines()]
    (place / "metrics.jsonl").write_text(
        "".join(json.dumps(entry) + "\n" for entry in entries if entry.pop("split"))
    )
    for name in ("run.json", "config.yaml"):
        (place / name).unlink()
    return info["result"]


def test_a_training_of_an_earlier_version_resumes(photos, finished, tmp_path):
    result, folder = finished
    corpora = [list_corpus(photos, modality="image").fingerprint]
    kept = as_earlier(folder, tmp_path / "begun", corpora=corpora)
    list_checkpoints(tmp_path / "begun" / "checkpoints")[-1].unlink()
    (tmp_path / "begun" / "tokenizer.safetensors").unlink()
    again = train_tokenizer(photos, EVERYTHING, tmp_path / "begun", resume=True)
    assert again.fingerprint == result.fingerprint
    as_earlier(folder, tmp_path / "ended", corpora=corpora)
    (tmp_path / "ended" / "eval.json").write_text(json.dumps(kept))
    again = train_tokenizer(photos, EVERYTHING, tmp_path / "ended", resume=True)
    assert replace(again, seconds=0.0, file="") == replace(result, seconds=0.0, file="")
    as_earlier(folder, tmp_path / "other", corpora=["another"])
    with pytest.raises(UsageError, match="another SRC"):
        train_tokenizer(photos, EVERYTHING, tmp_path / "other", resume=True)


def test_other_commands_refuse_the_run_by_name(finished, capsys):
    _, folder = finished
    main(["runs", "list", str(folder), "--json"])
    (listed,) = json.loads(capsys.readouterr().out)["runs"]
    assert (listed["objective"], listed["status"]) == ("tokenizer", "finished")
    with pytest.raises(UsageError, match="is a run of `seit tokenizer train`"):
        Run.open(folder).config  # noqa: B018
    with pytest.raises(UsageError, match="compare tokenizers with `seit tokenizer eval`"):
        compare_runs([folder, folder.parent])


# ---------------------------------------------------------------------------------------- learning


def test_training_improves_on_its_start(photos, tmp_path):
    config = replace(TINY, lr=3e-3, encoder_width=16, decoder_width=16, ema=0.8, eval_images=24)
    sources = [photos / "ant", photos / "bee"]
    start = train_tokenizer(sources, replace(config, steps=1, lr=1e-9), tmp_path / "start")
    end = train_tokenizer(sources, replace(config, steps=30), tmp_path / "end")
    assert end.psnr_db > start.psnr_db + 0.5
    assert end.ssim > start.ssim + 0.05


@pytest.mark.parametrize(
    ("quantizer", "grid", "shape"),
    [("rvq", (12, 4), (3, 32, 4)), ("fsq", (4, 4), (36, 3)), ("lfq", (4, 4), (32, 5))],
)
def test_every_quantiser_trains(photos, tmp_path, quantizer, grid, shape):
    config = replace(TINY, quantizer=quantizer, depth=3, steps=2, checkpoint_every=1)
    result = train_tokenizer(photos, config, tmp_path / "out")
    tokenizer = load_tokenizer(result.file)
    assert (tokenizer.grid, tuple(tokenizer.codebook.shape)) == (grid, shape)
    assert result.psnr_db > 8
    pixels = torch.randint(0, 256, (2, SIZE, SIZE, 3), dtype=torch.uint8)
    assert tokenizer.decode(tokenizer.encode(pixels)).shape == pixels.shape


# ------------------------------------------------------------------------------------------- crops


def test_crops_are_a_function_of_seed_and_step(photos):
    instances = list_corpus(photos).instances
    crops = Crops(instances, TINY)
    ahead = list(crops.batches(3, 6))
    for step, batch in enumerate(ahead, 3):
        alone = Crops(instances, TINY).batch(step)
        assert torch.equal(alone.values, batch.values)
        assert torch.equal(alone.labels, batch.labels)
        assert batch.values.shape == (8, SIZE, SIZE, 3)
        assert (batch.labels[::4].repeat_interleave(4) == batch.labels).all()
    assert not torch.equal(ahead[0].values, ahead[1].values)
    other = Crops(instances, replace(TINY, seed=1)).batch(3)
    assert not torch.equal(other.values, ahead[0].values)


def test_unreadable_images_are_replaced(photos, tmp_path):
    (tmp_path / "bee").mkdir()
    (tmp_path / "bee" / "torn.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    torn = list_corpus(tmp_path).instances
    with pytest.raises(SeitError, match="16 images in a row"):
        Crops(torn, TINY).batch(0)
    mixed = Crops([*torn, *list_corpus(photos).instances[:3]], TINY)
    assert all(len(mixed.batch(step).values) == 8 for step in range(6))


# ------------------------------------------------------------------------------------------ losses


def test_reconstruction_in_closed_form():
    """Planes off by 0.2 of −1…1 are off by 0.1 of 0…1: 20 dB."""
    planes = torch.zeros(2, 3, 32, 32)
    found = reconstruction(planes + 0.2, planes, replace(TINY, l1=2.0, l2=3.0, ssim=0.0))
    assert float(found.loss) == pytest.approx(2 * 0.1 + 3 * 0.01, abs=1e-6)
    assert float(found.psnr_db) == pytest.approx(20, abs=1e-4)
    likeness = (2 * 0.5 * 0.6 + 1e-4) / (0.5**2 + 0.6**2 + 1e-4)
    found = reconstruction(planes + 0.2, planes, replace(TINY, l1=0.0, l2=0.0, ssim=1.0))
    weight = 0.2856 / (0.0448 + 0.2856)  # only the coarsest of two scales sees luminance
    assert float(found.loss) == pytest.approx(1 - likeness**weight, abs=1e-4)


def test_hinge_in_closed_form():
    real, made = torch.tensor([2.0, 0.5]), torch.tensor([-3.0, 0.25])
    assert float(hinge(real, made)) == pytest.approx((0.5 / 2 + 1.25 / 2) / 2)
    assert float(hinge(torch.ones(3), -torch.ones(3))) == 0


def test_the_discriminator_judges_each_image_by_itself():
    torch.manual_seed(0)
    network = PatchDiscriminator(3, 4)
    planes = torch.randn(3, 3, 48, 40)
    together = network(planes)
    assert together.shape == (3, 1, 5, 4)
    torch.testing.assert_close(together[1:2], network(planes[1:2]))


def test_the_discriminator_sees_46_pixels():
    network = PatchDiscriminator(1, 2)
    network.layers = torch.nn.Sequential(  # norms would join all places
        *(part for part in network.layers if not isinstance(part, torch.nn.GroupNorm))
    )
    planes = torch.zeros(1, 1, 96, 96, requires_grad=True)
    network(planes)[0, 0, 5, 5].backward()
    assert (planes.grad[0, 0].abs().sum(0) > 0).sum() == 46


@pytest.mark.parametrize("angle", [10, 30, 50, 70, 110, 130, 150, 170])
def test_hog_finds_the_direction_of_a_ramp(angle):
    turn = math.radians(angle)
    y, x = torch.meshgrid(torch.arange(24.0), torch.arange(24.0), indexing="ij")
    planes = (0.02 * (x * math.cos(turn) + y * math.sin(turn)))[None, None].repeat(2, 3, 1, 1)
    found = hog(planes, (8, 8)).unflatten(1, (3, ORIENTATIONS))
    assert found.shape == (2, 3, ORIENTATIONS, 3, 3)
    expected = torch.zeros(ORIENTATIONS)
    expected[angle // 20] = 1
    middle = found[:, :, :, 1, 1]
    torch.testing.assert_close(middle, expected.expand_as(middle))
    assert float(hog(torch.full_like(planes, 0.3), (8, 8)).abs().max()) == 0


def test_crops_without_a_class_cost_nothing():
    torch.manual_seed(0)
    head = ClassHead(4, 3)
    latents, labels = torch.randn(4, 4, 5, 5), torch.tensor([0, -1, 2, -1])
    expected = torch.nn.functional.cross_entropy(head(latents[::2]), labels[::2])
    torch.testing.assert_close(head.loss(latents, labels), expected)
    assert head.loss(latents, torch.full((4,), -1)).item() == 0


def test_classes_need_labels(tmp_path):
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    with pytest.raises(UsageError, match="no image has a label"):
        train_tokenizer(tmp_path, replace(TINY, classes=1.0), tmp_path / "out")
    assert not (tmp_path / "out").exists()


# ------------------------------------------------------------------------------------- the command


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size": 30}, "size is 30"),
        ({"crop": 8, "size": 8}, "size is 8"),
        ({"crop": 64}, "do not fit"),
        ({"scale": (2.0, 1.0)}, "scale"),
        ({"scale": (1.0, math.nan)}, "scale"),
        ({"batch_size": 6}, "multiple of crops_per_image"),
        ({"steps": 0}, "steps is 0"),
        ({"seed": -1}, "seed is -1"),
        ({"lr": math.inf}, "lr"),
        ({"l1": 0.0, "l2": 0.0, "ssim": 0.0}, "l1, l2 or ssim"),
        ({"hog": -1.0}, "loss weights"),
        ({"code_rate": 0.1, "quantizer": "rvq"}, "one level of codes"),
        ({"quantizer": "fsq", "levels": (8, 2)}, "at least 3"),
        ({"quantizer": "fsq", "levels": (64, 64, 64)}, "262,144 codes"),
        ({"quantizer": "lfq", "codes": 1000}, "power of two"),
        ({"quantizer": "rvq", "depth": 1}, "depth is 1"),
        ({"codes": 1}, "1 codes"),
    ],
)
def test_wrong_settings_are_named(changes, message):
    with pytest.raises(UsageError, match=message):
        replace(TINY, **changes)


def test_the_command(photos, tmp_path, capsys):
    out = tmp_path / "out"
    settings = {**asdict(TINY), "steps": 3}
    del settings["l1"]
    named = {name: settings.pop(name) for name in ("size", "codes", "steps", "batch_size")}
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in named.items()]
    for name, value in settings.items():
        text = ",".join(map(str, value)) or "[]" if isinstance(value, tuple) else value
        flags += ["--set", f"{name}={text}"]

    def run(*more, l1=2.0):
        capsys.readouterr()
        own = ("--set", f"l1={l1}")
        main(["tokenizer", "train", str(photos), str(out), *flags, *own, "--json", *more])
        return json.loads(capsys.readouterr().out)

    assert run("--dry-run") == json.loads(json.dumps(asdict(replace(TINY, steps=3, l1=2.0))))
    assert not out.exists()
    result = run()
    assert result["file"] == str(out / "tokenizer.safetensors")
    again = run("--resume")
    assert again["fingerprint"] == result["fingerprint"]
    for more, message in (
        ((), "--resume"),
        (("--resume",), "l1 was 2.0 and is 1.0"),
        (("--set", "l1=3"), "l1 is both 1.0 and 3; give it once"),
        (("--set", "wings"), "NAME=VALUE"),
        (("--set", "wings=2"), "no setting 'wings'"),
    ):
        with pytest.raises(SystemExit) as left:
            run(*more, l1=1.0 if more else 2.0)
        assert left.value.code == 2
        assert message in capsys.readouterr().err


# --------------------------------------------------------------------- starting from a tokenizer


@pytest.mark.parametrize("quantizer", ["vq", "rvq", "fsq"])
def test_a_training_starts_from_another_ones_weights(photos, tmp_path, quantizer):
    config = replace(TINY, quantizer=quantizer, steps=4, ema=0.0)
    first = train_tokenizer(photos, config, tmp_path / "first")
    still = replace(config, steps=1, lr=1e-12, warmup_steps=0)
    second = train_tokenizer(photos, still, tmp_path / "second", init_from=first.file)
    assert second.psnr_db == pytest.approx(first.psnr_db, abs=0.3)
    ours, theirs = (load_tokenizer(result.file).tensors() for result in (second, first))
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


def test_what_a_training_can_start_from(photos, finished, tmp_path):
    result, _ = finished
    other = replace(TINY, dim=5, encoder_width=9)
    with pytest.raises(UsageError, match=r"its dim is 4, not 5; its encoder_width is 8, not 9"):
        train_tokenizer(photos, other, tmp_path / "run", init_from=result.file)
    with pytest.raises(UsageError, match=r"is a mel-conv tokenizer; .* starts from a conv-vq one"):
        train_tokenizer(photos, TINY, tmp_path / "run", init_from="mel-conv-5s")
    with pytest.raises(UsageError, match="no tokenizer is named"):
        train_tokenizer(photos, TINY, tmp_path / "run", init_from=str(tmp_path / "none"))
    assert not (tmp_path / "run").exists()


def test_a_training_goes_on_with_the_start_that_it_had(photos, finished, tmp_path):
    result, _ = finished
    config = replace(TINY, steps=1)
    first = train_tokenizer(photos, config, tmp_path / "run", init_from=result.file)
    again = train_tokenizer(photos, config, tmp_path / "run", resume=True, init_from=result.file)
    assert again.fingerprint == first.fingerprint
    with pytest.raises(UsageError, match="was started with another init_from"):
        train_tokenizer(photos, config, tmp_path / "run", resume=True)


# --------------------------------------------------------------------- distillation


def test_an_encoder_of_another_size_learns_the_latents_of_the_first(photos, finished, tmp_path):
    result, _ = finished
    teacher = load_tokenizer(result.file)
    student = replace(TINY, encoder_width=6, encoder_blocks=2, steps=60, distill_steps=60, lr=3e-3)
    found = train_tokenizer(photos, student, tmp_path / "run", init_from=result.file)
    learned = load_tokenizer(found.file)
    assert learned.settings()["network"]["encoder_width"] == 6
    images = torch.randint(0, 256, (4, SIZE, SIZE, 3), dtype=torch.uint8)
    wanted = teacher._latents(images)
    linear = teacher._network.encoder.linear
    planes = to_planes(images)
    start = linear(unfold(planes, 8, 8)).permute(0, 2, 3, 1)
    assert (learned._latents(images) - wanted).square().mean() < (
        (start - wanted).square().mean() / 2
    )
    theirs = teacher.tensors()
    assert all(torch.equal(x, theirs[k]) for k, x in learned.tensors().items() if "decoder" in k)
    rows = Run.open(tmp_path / "run").metrics()
    assert all("distillation_loss" in row and "psnr_db" not in row for row in rows)


def test_after_distillation_all_of_the_network_learns(photos, finished, tmp_path):
    result, _ = finished
    config = replace(TINY, encoder_blocks=2, distill_steps=3)
    train_tokenizer(photos, config, tmp_path / "run", init_from=result.file)
    rows = Run.open(tmp_path / "run").metrics()
    assert ["psnr_db" in row for row in rows] == [False] * 3 + [True] * 3
    assert ["distillation_loss" in row for row in rows] == [True] * 3 + [False] * 3


def test_a_training_interrupted_within_distillation_ends_with_the_same_bits(
    photos, finished, tmp_path
):
    result, _ = finished
    config = replace(EVERYTHING, encoder_blocks=2, distill_steps=3)
    whole = train_tokenizer(photos, config, tmp_path / "whole", init_from=result.file)

    def interrupt(done, *_):
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_tokenizer(photos, config, tmp_path / "cut", init_from=result.file, progress=interrupt)
    begun = list_checkpoints(tmp_path / "cut" / "checkpoints")
    assert max(path.name for path in begun) <= "step-00000003.safetensors"
    again = train_tokenizer(photos, config, tmp_path / "cut", init_from=result.file, resume=True)
    assert again.fingerprint == whole.fingerprint
    (left, right) = (
        read_arrays(list_checkpoints(tmp_path / name / "checkpoints")[-1])
        for name in ("whole", "cut")
    )
    assert left.keys() == right.keys()
    assert all(left[key].tobytes() == right[key].tobytes() for key in left)


def test_a_residual_tokenizer_is_distilled_in_the_unit_of_its_sums(photos, tmp_path):
    residual = replace(TINY, quantizer="rvq", depth=2)
    teacher = train_tokenizer(photos, residual, tmp_path / "teacher").file
    codes = load_tokenizer(teacher).codebook.double()
    sums = (codes[0][:, None] + codes[1][None]).flatten(0, 1)  # every pair of codes, once
    expected = sums.var(0, unbiased=False).mean()
    assert Distillation(load_tokenizer(teacher), torch.device("cpu"))._unit == pytest.approx(
        float(expected)
    )
    student = replace(residual, encoder_blocks=2, distill_steps=3)
    train_tokenizer(photos, student, tmp_path / "run", init_from=teacher)
    rows = Run.open(tmp_path / "run").metrics()
    assert ["distillation_loss" in row for row in rows] == [True] * 3 + [False] * 3


def test_distillation_is_not_longer_than_the_training():
    with pytest.raises(UsageError, match="distill_steps is 7, of 6 steps in all; raise steps"):
        replace(TINY, steps=6, distill_steps=7)


def test_distillation_needs_a_teacher_of_the_same_latents(photos, finished, tmp_path):
    result, _ = finished
    config = replace(TINY, encoder_blocks=2, distill_steps=3)
    with pytest.raises(UsageError, match="name a tokenizer to learn from by --init-from"):
        train_tokenizer(photos, config, tmp_path / "run")
    other = replace(config, decoder_width=9)
    with pytest.raises(UsageError, match="its decoder_width is 8, not 9; change them"):
        train_tokenizer(photos, other, tmp_path / "run", init_from=result.file)
