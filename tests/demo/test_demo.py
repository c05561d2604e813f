import colorsys
import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.files import tree

from seit.demo import CLASSES, render, write_corpus
from seit.demo.rays import FIRST_BODY, trace
from seit.demo.scene import HABITS, Scene, draw_scene
from seit.demo.shapes import make_solid
from seit.errors import UsageError

SMALL = {"num_train": 30, "num_val": 20, "size": 32}


def rng(seed: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=seed))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("renders") / "corpus"
    write_corpus(out, **SMALL, workers=1)
    return out


def test_same_arguments_same_picture_and_any_other_argument_another():
    picture = render(3, 7, size=64)
    assert picture.shape == (64, 64, 3)
    assert picture.dtype == np.uint8
    np.testing.assert_array_equal(picture, render(3, 7, size=64))
    for other in (render(3, 8, size=64), render(4, 7, size=64), render(3, 7, size=64, seed=1)):
        assert np.abs(picture.astype(int) - other).mean() > 5


def test_size_changes_the_pixels_but_not_the_scene():
    small = render(5, 2, size=64).astype(float)
    large = np.asarray(Image.fromarray(render(5, 2)).resize((64, 64), Image.Resampling.BOX))
    assert np.abs(small - large).mean() < 8


def test_pictures_use_the_range_and_compress_like_photographs():
    for label in range(len(CLASSES)):
        picture = render(label, 1)
        assert 40 < picture.mean() < 220
        assert picture.std() > 12
        stored = io.BytesIO()
        Image.fromarray(picture).save(stored, "JPEG", quality=90)
        assert 6_000 < stored.tell() < 35_000


@pytest.mark.parametrize("name", CLASSES)
def test_distance_functions_never_overshoot(name: str):
    # A signed distance changes by at most the distance between two points (Lipschitz constant 1).
    for seed in range(4):
        solid = make_solid(name, rng(seed))
        points = rng(seed + 99).uniform(-1.4, 1.4, (2, 3, 20_000)).astype(np.float32)
        near = points[0] + 0.2 * (points[1] - points[0])
        change = np.abs(solid.distance(*points[0]) - solid.distance(*near))
        assert np.all(change <= np.linalg.norm(points[0] - near, axis=0) * 1.05 + 1e-4)
        inside = points[0][:, solid.distance(*points[0]) < 0]
        assert inside.shape[1] > 100
        assert np.linalg.norm(inside, axis=0).max() <= solid.bound + 1e-3
        assert np.all(np.abs(inside).max(axis=1) <= np.array(solid.half) + 1e-3)


def test_a_traced_sphere_is_where_geometry_puts_it():
    for seed in range(5):
        scene = draw_scene("sphere", rng(seed))
        visible = trace(scene, 64)
        main = scene.bodies[0]
        points = visible.point[:, visible.owner == FIRST_BODY]
        offset = (points - np.array(main.center)[:, None]) / main.radius
        np.testing.assert_allclose(np.linalg.norm(offset, axis=0), 1.0, atol=0.03)
        normals = visible.normal[:, visible.owner == FIRST_BODY]
        assert np.all(np.sum(offset * normals, axis=0) > 0.98)


def test_the_main_object_is_in_the_frame_and_mostly_unhidden():
    for label, name in enumerate(CLASSES):
        for index in range(6):
            scene = draw_scene(name, rng(100 * label + index))
            visible = trace(scene, 64)
            alone = trace(type(scene)(**{**vars(scene), "bodies": scene.bodies[:1]}), 64)
            share = np.mean(visible.owner == FIRST_BODY)
            whole = np.mean(alone.owner == FIRST_BODY)
            assert whole > 0.008
            # Two pieces of clutter may each hide a fifth.
            assert share > 0.4 * whole


def scenes(name: str, count: int) -> list[Scene]:
    return [draw_scene(name, np.random.default_rng([7, number])) for number in range(count)]


def test_three_objects_in_four_follow_their_class_in_color_and_pattern():
    count = 100
    for name, habit in HABITS.items():
        materials = [scene.bodies[0].material for scene in scenes(name, count)]
        followers = sum(
            material.pattern == habit.pattern
            and min((colorsys.rgb_to_hsv(*material.first)[0] - habit.hue) % 1.0,
                    (habit.hue - colorsys.rgb_to_hsv(*material.first)[0]) % 1.0) < 0.05
            for material in materials
        )  # fmt: skip
        assert 0.65 < followers / count < 0.85


def test_the_rest_of_the_scene_tells_nothing_about_the_class():
    num_each = 50
    colors = np.array(
        [[scene.floor.first for scene in scenes(name, num_each)] for name in CLASSES]
        + [[scene.bodies[1].material.first for scene in scenes(name, num_each)] for name in CLASSES]
    ).reshape(2, len(CLASSES), num_each, 3)
    between = colors.mean(2).var(1, ddof=1)
    within = colors.var(2, ddof=1).mean(1)
    # The F statistic of a one-way analysis of variance; 3.0 is beyond its 99.8th percentile.
    assert np.all(num_each * between / within < 3.0)


def test_splits_are_disjoint_and_classes_even(corpus: Path):
    for split, each in (("train", 3), ("val", 2)):
        assert sorted(path.name for path in (corpus / split).iterdir()) == sorted(CLASSES)
        for name in CLASSES:
            assert len(list((corpus / split / name).glob("*.jpg"))) == each
    pictures = [data for name, data in tree(corpus).items() if name.endswith(".jpg")]
    assert len(set(pictures)) == len(pictures) == 50
    names = {split: {p.name for p in (corpus / split).rglob("*.jpg")} for split in ("train", "val")}
    assert not names["train"] & names["val"]


def test_files_hold_what_render_returns(corpus: Path):
    with Image.open(corpus / "train" / CLASSES[2] / "00001.jpg") as stored:
        difference = np.abs(np.asarray(stored).astype(int) - render(2, 1, size=32))
    assert difference.mean() < 6


def test_uneven_numbers_differ_by_one_at_most(tmp_path: Path):
    write_corpus(tmp_path, num_train=13, num_val=10, size=16, workers=1)
    counts = [len(list((tmp_path / "train" / name).iterdir())) for name in CLASSES]
    assert counts == [2, 2, 2, 1, 1, 1, 1, 1, 1, 1]


def test_number_of_workers_does_not_change_the_bytes(corpus: Path, tmp_path: Path):
    seen: list[tuple[int, int]] = []
    write_corpus(tmp_path / "two", **SMALL, workers=2, progress=lambda *counts: seen.append(counts))
    assert tree(tmp_path / "two") == tree(corpus)
    assert seen[0] == (0, 50)
    assert seen[-1] == (50, 50)
    assert seen == sorted(seen)


def test_an_interrupted_corpus_is_completed(tmp_path: Path):
    write_corpus(tmp_path, **SMALL, workers=1)
    before = tree(tmp_path)
    kept = tmp_path / "train" / CLASSES[0] / "00000.jpg"
    kept_time = kept.stat().st_mtime_ns
    gone = tmp_path / "train" / CLASSES[1] / "00002.jpg"
    gone.unlink()
    gone.with_name(f".{gone.name}.part").write_bytes(b"half a pict")
    cut = tmp_path / "val" / CLASSES[9] / "50001.jpg"
    cut.write_bytes(cut.read_bytes()[:-100])
    seen: list[tuple[int, int]] = []
    write_corpus(tmp_path, **SMALL, workers=1, progress=lambda *counts: seen.append(counts))
    assert tree(tmp_path) == before
    assert kept.stat().st_mtime_ns == kept_time
    assert seen[0] == (48, 50)


def test_a_script_without_a_main_guard_still_gets_its_corpus(corpus: Path, tmp_path: Path):
    script = tmp_path / "script.py"
    script.write_text(
        "from pathlib import Path\nfrom seit.demo import write_corpus\n"
        f"write_corpus(Path({str(tmp_path / 'out')!r}), workers=2, **{SMALL!r})\n"
    )
    ran = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True)
    assert "rendering the remaining pictures in one process" in ran.stderr
    assert tree(tmp_path / "out") == tree(corpus)


def test_importing_does_not_load_torch():
    code = "import sys, seit.demo; print('torch' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "False"


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        ({"label": 10, "index": 0}, "label is 10"),
        ({"label": -1, "index": 0}, "label is -1"),
        ({"label": 0, "index": -1}, "index is -1"),
        ({"label": 0, "index": 0, "size": 8}, "size is 8"),
        ({"label": 0, "index": 0, "seed": -1}, "seed is -1"),
    ],
)
def test_render_refuses_bad_arguments(arguments: dict[str, int], found: str):
    with pytest.raises(UsageError, match=rf"^{found}, expected .+: .+$"):
        render(**arguments)


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        ({"num_train": 9}, "num_train is 9"),
        ({"num_val": 0}, "num_val is 0"),
        ({"num_train": 500_001}, "num_train is 500001"),
        ({"size": 5000}, "size is 5000"),
        ({"quality": 0}, "quality is 0"),
        ({"workers": 0}, "workers is 0"),
    ],
)
def test_write_corpus_refuses_bad_arguments(tmp_path: Path, arguments: dict[str, int], found: str):
    with pytest.raises(UsageError, match=rf"^{found}, expected .+: .+$"):
        write_corpus(tmp_path / "out", **arguments)
    assert not (tmp_path / "out").exists()


def test_write_corpus_refuses_a_folder_that_holds_something_else(corpus: Path, tmp_path: Path):
    before = tree(corpus)
    with pytest.raises(UsageError, match=r"renders\.json says .+ expected .+: remove"):
        write_corpus(corpus, **{**SMALL, "size": 48}, workers=1)
    assert tree(corpus) == before
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="is a file, expected a folder"):
        write_corpus(tmp_path / "file", **SMALL)
    (tmp_path / "photos" / "train").mkdir(parents=True)
    with pytest.raises(UsageError, match=r"but no \.renders\.json"):
        write_corpus(tmp_path / "photos", **SMALL)
