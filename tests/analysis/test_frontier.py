"""Accuracy against bytes: points, copies, bytes, resuming, the chart and `seit frontier`."""

import io
import json
import statistics
import tarfile
import xml.etree.ElementTree as ET
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from PIL import Image

import seit
from seit.analysis.frontier import FrontierConfig, Row, pareto_front, plan_frontier, run_frontier
from seit.analysis.frontier.corpora import JpegCopier, copy_psnr, make_copy
from seit.analysis.frontier.points import DEFAULT_POINTS, parse_points
from seit.analysis.frontier.report import draw_chart
from seit.cli import main
from seit.errors import DamagedError, SeitError, UsageError
from seit.ingest import list_corpus, size_of
from seit.report.axis import LogAxis
from seit.report.scatter import Family, Mark, scatter_chart, scatter_svg
from seit.report.scatter_labels import Box, Place, place_labels
from seit.stream import select
from seit.training import Run

CLASSES = ("blue", "red")
POINTS = ("pixels", "jpeg-10", "res-1/2", "subset-50", "tokens-patch", "tokens-patch-8-packed")
TINY = {
    "model.depth": 1,
    "model.embed_dim": 16,
    "model.num_heads": 2,
    "model.stem": "2/2/0",
    "data.batch_size": 8,
    "run.eval_every": 3,
}
CONFIG = FrontierConfig(
    points=POINTS, settings=TINY, steps=3, seeds=2, size=32, codes=32, device="cpu", workers=1
)
SVG = "{http://www.w3.org/2000/svg}"


def picture(label, random):
    """A 48×40 picture whose class is its strongest colour."""
    values = random.uniform(60, 160, (6, 6, 3))
    values[..., 2 - 2 * label] += 80
    return Image.fromarray(values.astype(np.uint8)).resize((48, 40), Image.Resampling.BICUBIC)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "pictures"
    random = np.random.default_rng(0)
    for split, count in (("train", 9), ("val", 4)):
        for label, name in enumerate(CLASSES):
            (folder / split / name).mkdir(parents=True)
            for number in range(count):
                suffix = "png" if number % 2 else "jpg"
                picture(label, random).save(folder / split / name / f"{number}.{suffix}")
    return folder


@pytest.fixture(scope="module")
def finished(corpus, tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "frontier"
    return run_frontier(corpus, out, config=CONFIG), out


def sizes_below(*folders):
    return sum(f.stat().st_size for folder in folders for f in folder.rglob("*") if f.is_file())


def stamps(out):
    """When each file of the finished work was written."""
    kept = (out / "corpora", out / "stores", out / "runs")
    return {f: f.stat().st_mtime_ns for folder in kept for f in folder.rglob("*") if f.is_file()}


# ------------------------------------------------------------------------------------- the points


def test_names_of_points():
    names = ("jpeg-5", "res-1/4", "res-1/8-q95", "subset-25", "tokens-conv", "tokens-patch-64")
    jpeg, quarter, eighth, subset, conv, small = parse_points((*names, "jpeg-5"))
    assert (jpeg.family, jpeg.quality, jpeg.divisor) == ("jpeg", 5, 1)
    assert (quarter.divisor, quarter.quality, quarter.folder) == (4, 75, "res-4")
    assert (eighth.divisor, eighth.quality, eighth.folder) == (8, 95, "res-8-q95")
    assert subset.fraction == 0.25
    assert (conv.tokenizer, conv.codes) == ("conv-vq-f8-1024", None)
    assert (small.tokenizer, small.codes, small.codec) == ("patch-pca-vq", 64, "context")
    (packed,) = parse_points(["tokens-patch-64-packed"])
    assert (packed.codec, packed.trained_as) == ("packed", small.trained_as)
    folders = {point.folder for point in parse_points(DEFAULT_POINTS)}
    assert len(folders) == len(DEFAULT_POINTS)
    twice = parse_points(["res-1/4-q75", "res-1/4", "jpeg-5", "jpeg-5"])
    assert [point.name for point in twice] == ["res-1/4-q75", "jpeg-5"]


@pytest.mark.parametrize(
    "name",
    [
        *("pixel", "jpeg-0", "jpeg-96", "jpeg-1\u0663", "res-1/1", "res-1/99", "subset-100"),
        *("tokens-conv-64", "tokens-patch-0", "tokens-patch-064"),
    ],
)
def test_other_names_are_refused(name):
    with pytest.raises(UsageError, match=f"there is no point '{name}'"):
        parse_points([name])


def test_a_misspelt_point_is_guessed():
    with pytest.raises(UsageError, match="did you mean tokens-patch"):
        parse_points(["token-patch"])
    with pytest.raises(UsageError, match="no points are named"):
        parse_points([])


# ------------------------------------------------------------------------------------- the copies


def png(array):
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG")
    return buffer.getvalue()


def test_copies_are_plain_jpeg_of_the_square():
    array = np.random.default_rng(1).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    expected = io.BytesIO()
    Image.fromarray(array[:, 10:50]).save(expected, "JPEG", quality=30, optimize=True)
    # Larger squares than the picture's own are not made.
    assert JpegCopier(256, 30).encode(png(array)) == expected.getvalue()
    quarter = Image.open(io.BytesIO(JpegCopier(32, 75, divisor=4).encode(png(array))))
    assert (quarter.format, quarter.size) == ("JPEG", (8, 8))
    lengths = [len(JpegCopier(32, quality).encode(png(array))) for quality in (5, 25, 75)]
    assert lengths == sorted(lengths)


def test_an_interrupted_copy_goes_on(corpus, tmp_path, monkeypatch):
    instances = list_corpus(corpus).instances
    encode, made = JpegCopier.encode, []

    def breaks(self, data):
        if len(made) == 5:
            raise KeyboardInterrupt
        made.append(1)
        return encode(self, data)

    target = tmp_path / "jpeg-30"
    monkeypatch.setattr(JpegCopier, "encode", breaks)
    with pytest.raises(KeyboardInterrupt):
        make_copy(instances, target, JpegCopier(32, 30), workers=1)
    assert not target.exists()
    made.clear()
    monkeypatch.setattr(JpegCopier, "encode", lambda s, data: made.append(1) or encode(s, data))
    steps = []
    make_copy(
        instances, target, JpegCopier(32, 30), workers=1, advance=lambda *step: steps.append(step)
    )
    assert len(made) == len(instances) - 5
    assert steps[-1] == (len(instances), len(instances))
    copied = list_corpus(target)
    assert {entry.key for entry in copied.instances} == {entry.key for entry in instances}
    assert [path.name for path in tmp_path.iterdir()] == ["jpeg-30"]
    make_copy(instances, target, JpegCopier(32, 30), workers=1)
    assert len(made) == len(instances) - 5


def test_keys_of_tars_are_kept_and_others_refused(corpus, tmp_path):
    with tarfile.open(tmp_path / "train-000.tar", "w") as tar:
        for number, path in enumerate(sorted((corpus / "train").rglob("*.png"))):
            tar.add(path, f"{number:06d}.png")
            label = str(CLASSES.index(path.parent.name)).encode()
            info = tarfile.TarInfo(f"{number:06d}.cls")
            info.size = len(label)
            tar.addfile(info, io.BytesIO(label))
    instances = list_corpus(tmp_path / "train-000.tar").instances
    make_copy(instances, tmp_path / "copy", JpegCopier(32, 30), workers=1)
    copied = list_corpus(tmp_path / "copy").instances
    assert {entry.key for entry in copied} == {entry.key for entry in instances}
    for key in ("/absolute.png", "a/../b.png", "a//b.png"):
        with pytest.raises(UsageError, match="is not a path below SRC"):
            make_copy([replace(instances[0], key=key)], tmp_path / "x", JpegCopier(32, 30))
    hidden = [instances[0], replace(instances[1], key="red/.hidden.png")]
    with pytest.raises(UsageError, match="is that of no file in a folder tree"):
        make_copy(hidden, tmp_path / "x", JpegCopier(32, 30), workers=1)
    assert not (tmp_path / "x").exists()


# --------------------------------------------------------------------------------- the comparison


def test_every_family_is_trained_and_reported(finished, corpus):
    result, out = finished
    assert [row.name for row in result.rows] == list(POINTS)
    assert (result.train_samples, result.val_samples, result.steps) == (18, 8, 3)
    configs = []
    for row in result.rows:
        assert 0 <= row.top1 <= 1
        assert row.top1 == pytest.approx(statistics.mean(row.top1_by_seed))
        assert row.top1_std == pytest.approx(statistics.stdev(row.top1_by_seed))
        assert row.samples_per_second > 0
        folder = row.name.replace("1/", "").removesuffix("-packed")
        for seed, top1 in enumerate(row.top1_by_seed):
            run = Run.open(out / "runs" / folder / f"seed-{seed}")
            assert run.info["result"]["top1"] == top1
            assert run.config.run.seed == seed
            configs.append(run.config)
    first = configs[0]
    for config in configs:
        data = replace(config.data, pixels=first.data.pixels, fraction=1.0)
        schedule = first.schedule
        if config.data.fraction < 1:  # as all 18 pictures in batches of 8
            assert (config.schedule.steps, config.schedule.warmup_steps) == (3, 2 * 2)
        else:
            assert config.schedule == schedule
        assert replace(config, data=data, run=first.run, schedule=schedule) == first
    assert {config.data.fraction for config in configs} == {0.5, 1.0}


def test_bytes_are_those_of_the_files(finished, corpus):
    result, out = finished
    rows = {row.name: row for row in result.rows}
    assert rows["pixels"].bytes == sizes_below(corpus / "train")
    assert rows["jpeg-10"].bytes == sizes_below(out / "corpora" / "jpeg-10" / "train")
    assert rows["res-1/2"].bytes == sizes_below(out / "corpora" / "res-2" / "train")
    split = seit.open(out / "stores" / "patch-pca-vq-32")["train"]
    chosen = [
        sum((corpus / split.keys[i]).stat().st_size for i in select(split, fraction=0.5, seed=seed))
        for seed in (0, 1)
    ]
    assert rows["subset-50"].bytes == round(statistics.mean(chosen))
    assert rows["subset-50"].samples == 10
    for name, folder in (
        ("tokens-patch", "patch-pca-vq-32"),
        ("tokens-patch-8-packed", "patch-pca-vq-8-packed"),
    ):
        store = out / "stores" / folder
        train, whole = sizes_below(store / "train"), sizes_below(store)
        fixed = sum((store / f"{part}.safetensors").stat().st_size for part in _FIXED)
        rest = whole - fixed - train - sizes_below(store / "val")
        assert rows[name].fixed_bytes == fixed
        assert rows[name].bytes == train + fixed + round(rest * 18 / 26)
        assert rows[name].bytes_per_sample == rows[name].bytes / 18


_FIXED = ("codebook", "tokenizer")


def test_quality_is_that_of_the_validation_pictures(finished, corpus):
    result, out = finished
    rows = {row.name: row for row in result.rows}
    store = seit.open(out / "stores" / "patch-pca-vq-32")
    assert rows["tokens-patch"].psnr_db == store.card.quality["psnr_db"]
    assert rows["pixels"].psnr_db is None
    assert rows["subset-50"].psnr_db is None
    assert 15 < rows["jpeg-10"].psnr_db < 40
    assert copy_psnr(store["val"], corpus, corpus) > 100


def test_pictures_of_one_color_do_not_decide_the_quality_of_copies(tmp_path):
    random = np.random.default_rng(0)
    folder, copies = tmp_path / "pictures" / "val" / "a", tmp_path / "copies"
    folder.mkdir(parents=True)
    shown = random.integers(0, 255, (4, 32, 32, 3), dtype=np.uint8)
    shown[0] = (255, 0, 0)
    shown[1] = 255
    for number, pixels in enumerate(shown):
        Image.fromarray(pixels).save(folder / f"{number}.png")
    source = tmp_path / "pictures"
    seit.tokenize(source, out=tmp_path / "store", tokenizer="patch-pca-vq", size=32, codes=8)
    make_copy(list_corpus(source).instances, copies, JpegCopier(32, 10), workers=1)
    errors = [
        np.square(shown[number] - np.asarray(Image.open(copies / f"val/a/{number}.png"), float))
        for number in (2, 3)
    ]
    expected = np.mean([10 * np.log10(255**2 / error.mean()) for error in errors])
    split = seit.open(tmp_path / "store")["val"]
    assert copy_psnr(split, source, copies) == pytest.approx(expected, abs=0.01)


def test_the_report_shows_every_point(finished):
    result, out = finished
    written = json.loads((out / "frontier.json").read_text())
    assert [row["name"] for row in written["rows"]] == list(POINTS)
    assert written["settings"]["train"]["schedule"]["steps"] == 3
    page = result.report.read_text()
    # Six pictures of every point but the subset and the packed form of the same tokens.
    assert page.count("<img") == 4 * 6
    for text in ("Frontier", *POINTS, "2 seeds each", "jpeg-10, ", "data.batch_size"):
        assert text in page
    chart = ET.fromstring(result.chart.read_text())
    names = [one.text for one in chart.iter(f"{SVG}text") if one.get("class") == "name"]
    assert sorted(names) == sorted(POINTS)
    bars = [one for one in chart.iter(f"{SVG}path") if "error" in one.get("class", "")]
    assert len(bars) == sum(row.top1_std > 0 for row in result.rows)
    rings = [one for one in chart.iter(f"{SVG}circle") if one.get("class") == "ring"]
    assert len(rings) == len(pareto_front(result.rows))
    assert {row.name for row in result.rows if row.is_on_front} == pareto_front(result.rows)


def test_nothing_is_made_twice_and_more_may_be_added(finished, corpus):
    result, out = finished
    before = stamps(out)
    again = run_frontier(corpus, out, config=replace(CONFIG, device="auto"))
    assert again.rows == result.rows
    assert stamps(out) == before
    config = replace(CONFIG, points=("pixels", "jpeg-10", "jpeg-75"), seeds=3)
    stages = []
    more = run_frontier(corpus, out, config=config, progress=lambda stage, *_: stages.append(stage))
    assert set(stages) == {
        "copy jpeg-75",
        *(f"train jpeg-75, seed {seed}" for seed in range(3)),
        *(f"train {name}, seed 2" for name in ("pixels", "jpeg-10")),
    }
    assert more.rows[0].top1_by_seed[:2] == result.rows[0].top1_by_seed
    after = stamps(out)
    assert {path: after[path] for path in before} == before


def test_a_stopped_comparison_goes_on_to_the_same_figures(finished, corpus, tmp_path):
    result, _ = finished
    points = ("pixels", "jpeg-10")

    def stop(stage, done, total):
        if stage == "train jpeg-10, seed 0" and done == 2:
            raise KeyboardInterrupt

    config = replace(CONFIG, points=points)
    with pytest.raises(KeyboardInterrupt):
        run_frontier(corpus, tmp_path / "out", config=config, progress=stop)
    written = json.loads((tmp_path / "out" / "frontier.json").read_text())
    assert [row["name"] for row in written["rows"]] == ["pixels"]
    ET.fromstring((tmp_path / "out" / "frontier.svg").read_text())
    rows = run_frontier(corpus, tmp_path / "out", config=config).rows
    assert [row.top1_by_seed for row in rows] == [
        row.top1_by_seed for row in result.rows if row.name in points
    ]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"steps": 4}, "schedule.steps was 3 and is 4"),
        ({"seed": 1}, "run.seed was 0 and is 1"),
        ({"codes": 16}, "codes was 32 and is 16"),
        ({"settings": {**TINY, "optim.lr": 0.5}}, "optim.lr was 0.001 and is 0.5"),
    ],
)
def test_other_settings_are_refused(finished, corpus, change, said):
    _, out = finished
    before = stamps(out)
    with pytest.raises(UsageError, match=said):
        run_frontier(corpus, out, config=replace(CONFIG, **change))
    assert stamps(out) == before


def test_wrong_places_and_sources_are_refused(finished, corpus, tmp_path):
    _, out = finished
    other = tmp_path / "other"
    for split in ("train", "val"):
        (other / split / "blue").mkdir(parents=True)
        picture(0, np.random.default_rng(5)).save(other / split / "blue" / "0.png")
    with pytest.raises(UsageError, match="files of SRC have changed"):
        run_frontier(other, out, config=CONFIG)
    with pytest.raises(UsageError, match="already holds something else"):
        run_frontier(corpus, other, config=CONFIG)
    with pytest.raises(UsageError, match="lies inside SRC"):
        run_frontier(corpus, corpus / "out", config=CONFIG)
    with pytest.raises(UsageError, match="lies inside SRC"):
        plan_frontier(corpus, CONFIG, out=corpus / "out")
    with pytest.raises(UsageError, match="has no classes"):
        run_frontier(corpus / "train" / "red", tmp_path / "x", config=CONFIG)
    with pytest.raises(UsageError, match="no pictures in a split 'val'"):
        run_frontier(corpus / "train", tmp_path / "x", config=replace(CONFIG, val_fraction=0.0))
    with pytest.raises(UsageError, match="conv-vq-f8-1024 takes images of 256 px but size is 32"):
        run_frontier(corpus, tmp_path / "x", config=replace(CONFIG, points=("tokens-conv",)))
    assert not (tmp_path / "x").exists()
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    (damaged / "frontier.json").write_text('{"settings"')
    with pytest.raises(DamagedError, match="cannot be read"):
        run_frontier(corpus, damaged, config=CONFIG)


def test_a_missing_file_of_a_copy_is_named(finished, corpus, tmp_path):
    out = tmp_path / "out"
    config = replace(CONFIG, points=("jpeg-10",), seeds=1)
    run_frontier(corpus, out, config=config)
    (out / "corpora" / "jpeg-10" / "train" / "red" / "0.jpg").unlink()
    with pytest.raises(SeitError, match=r"red/0\.jpg is missing; remove .*jpeg-10"):
        run_frontier(corpus, out, config=config)


def test_settings_that_the_comparison_makes_are_refused():
    with pytest.raises(UsageError, match=r"run\.seed is set by the comparison itself; pass --se"):
        FrontierConfig(settings={"run.seed": 3})
    with pytest.raises(UsageError, match="seeds is 0"):
        FrontierConfig(seeds=0)


def test_settings_of_pixels_are_not_passed_to_tokens():
    """A run would refuse them, hours later."""
    settings = {"augment.pixel_flip_prob": 0.0, "augment.jitter": 0.3}
    config = FrontierConfig(settings=settings)
    tokens, pixels = parse_points(["tokens-patch", "jpeg-5"])
    found = config.train_config(tokens, pixels=None, seed=0, samples=64).augment
    assert (found.pixel_flip_prob, found.jitter) == (0.5, 0.0)
    found = config.train_config(pixels, pixels="photos", seed=0, samples=64).augment
    assert (found.pixel_flip_prob, found.jitter) == (0.0, 0.3)


def test_subsets_train_for_as_many_steps_as_all_pictures():
    """In epochs of the recipe they would have a tenth of them."""
    config = FrontierConfig(settings={"data.batch_size": 32, "schedule.warmup_epochs": 2})
    (subset,) = parse_points(["subset-10"])
    schedule = config.train_config(subset, pixels="photos", seed=0, samples=650).schedule
    assert (schedule.steps, schedule.warmup_steps) == (30 * 20, 2 * 20)


def row(name, num_bytes, top1):
    return Row(name, "jpeg", 1, num_bytes, 0, num_bytes, top1, None, (top1,), 1.0, None)


def test_the_front_is_what_no_other_point_beats():
    random = np.random.default_rng(3)
    rows = [
        row(str(i), int(random.integers(1, 6)), float(random.integers(1, 6))) for i in range(12)
    ]
    front = pareto_front(rows)
    for one in rows:
        beaten = any(
            (other.bytes < one.bytes and other.top1 >= one.top1)
            or (other.bytes <= one.bytes and other.top1 > one.top1)
            for other in rows
        )
        assert (one.name in front) != beaten


# --------------------------------------------------------------------------------- the command line


def frontier_flags(config):
    flags = [f"--{name}={value}" for name, value in config.settings.items()]
    return [
        *flags,
        *(f"--steps={config.steps}", f"--seeds={config.seeds}", f"--size={config.size}"),
        *(f"--codes={config.codes}", "--device=cpu", "--workers=1"),
    ]


def test_dry_run_tells_bytes_and_runs_and_writes_nothing(corpus, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments = ["frontier", str(corpus), *frontier_flags(CONFIG), "--dry-run", "--points", *POINTS]
    main(arguments)
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert [line.split()[0] for line in lines[1:]] == list(POINTS)
    assert "12 runs in all" in err
    main([*arguments, "--json"])
    planned = json.loads(capsys.readouterr().out)
    assert planned["runs"] == 12
    assert list(planned["points"][0]) == [
        *("name", "family", "samples", "bytes", "bytes_per_sample", "runs")
    ]
    assert list(tmp_path.iterdir()) == []


def test_a_corpus_may_be_named_by_a_file_url(corpus):
    points = FrontierConfig(points=("jpeg-10", "tokens-patch"), size=32, codes=32)
    planned = plan_frontier(corpus.as_uri(), points)
    assert planned == plan_frontier(corpus, points)
    assert planned[0].bytes > 0


def test_files_whose_size_was_not_listed_count_as_large_as_they_are(corpus, tmp_path):
    """Rows of a manifest with URLs have none."""
    listed = list_corpus(corpus)
    lines = [
        f"{(corpus / one.key).as_uri()},{listed.classes[one.label]},{one.split}\n"
        for one in listed.instances
    ]
    manifest = tmp_path / "urls.csv"
    manifest.write_text("".join(["path,label,split\n", *lines]))
    unknown = list_corpus(manifest).instances
    assert {one.num_bytes for one in unknown} == {-1}
    assert sorted(map(size_of, unknown)) == sorted(one.num_bytes for one in listed.instances)
    points = FrontierConfig(points=("pixels", "subset-50"), size=32, codes=32)
    assert plan_frontier(manifest, points) == plan_frontier(corpus, points)


def test_the_estimate_of_a_small_corpus_is_exact(finished, corpus):
    result, _ = finished
    planned = {point.name: point for point in plan_frontier(corpus, CONFIG)}
    for row in result.rows:
        if row.name in ("pixels", "jpeg-10", "res-1/2"):
            assert planned[row.name].bytes == row.bytes
    assert planned["tokens-patch"].bytes == 18 * 4 * 4 * 5 // 8
    shared = replace(CONFIG, points=("tokens-patch", "tokens-patch-packed"))
    assert [point.runs for point in plan_frontier(corpus, shared)] == [2, 0]


def test_the_command_prints_what_was_found(finished, corpus, capsys):
    result, out = finished
    arguments = ["frontier", str(corpus), "--out", str(out), *frontier_flags(CONFIG)]
    arguments += ["--points", ",".join(POINTS)]
    main([*arguments, "--json"])
    printed = json.loads(capsys.readouterr().out)
    assert [row["bytes"] for row in printed["rows"]] == [row.bytes for row in result.rows]
    assert {"train_samples", "val_samples", "steps", "seeds", "environment"} <= printed.keys()
    main(arguments)
    table, said = capsys.readouterr()
    assert [line.split()[0] for line in table.splitlines()[1:]] == list(POINTS)
    assert "±" in table
    assert "report.html" in said
    with pytest.raises(SystemExit) as left:
        main(["frontier", str(corpus), "--points", "gif"])
    assert left.value.code == 2
    assert capsys.readouterr().err.startswith("error: there is no point 'gif'")


# -------------------------------------------------------------------------------------- the chart

FAMILIES = [
    Family("tokens", [Mark("a", 2e6, 0.62, 0.01, is_marked=True)], is_joined=False),
    Family("nothing", []),
    Family(
        "jpeg",
        [
            Mark("b", 1e6, 0.30, 0.02, is_marked=True),
            Mark("c", 3e6, 0.45, 0.0),
            Mark("d", 4e7, 0.70, 0.03, is_marked=True),
        ],
    ),
]
LABELS = {"title": "t", "x_label": "bytes of data", "y_label": "top-1", "y_format": "percent"}


def percentage(text):
    assert text.endswith("%")
    return float(text[:-1]) / 100


def read_scales(root):
    """Take the chart apart: functions from (share of the width, pixels down) to values."""
    units = {"B": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9}
    ticks = [one for one in root.iter() if one.get("class") == "x tick"]
    shares = [percentage(one.get("x")) for one in ticks]
    values = [np.log10(float(one.text.split()[0]) * units[one.text.split()[1]]) for one in ticks]
    x_fit = np.polyfit(shares, values, 1)
    np.testing.assert_allclose(np.polyval(x_fit, shares), values, atol=1e-4)
    ticks = [one for one in root.iter() if one.get("class") == "y tick"]
    heights = [float(one.get("y")) for one in ticks]
    y_fit = np.polyfit(heights, [percentage(one.text) for one in ticks], 1)
    return lambda share: 10 ** np.polyval(x_fit, share), lambda y: np.polyval(y_fit, y)


@pytest.mark.parametrize("kind", ["page", "file"])
def test_points_and_bars_lie_where_the_axes_say(kind):
    text = str(
        scatter_chart(FAMILIES, **LABELS) if kind == "page" else scatter_svg(FAMILIES, **LABELS)
    )
    root = ET.fromstring(text.replace(' xmlns="http://www.w3.org/2000/svg"', ""))
    x_of, y_of = read_scales(root)
    drawn = {}
    for node in root.iter("svg"):
        title = node.find("title")
        if title is not None:
            drawn[title.text.partition(":")[0]] = node
    for mark in (mark for family in FAMILIES for mark in family.marks):
        node = drawn[mark.name]
        y = float(node.get("y"))
        assert x_of(percentage(node.get("x"))) == pytest.approx(mark.x, rel=1e-3)
        assert y_of(y) == pytest.approx(mark.y, abs=1e-3)
        bars = [path for path in node.iter("path") if "error" in path.get("class")]
        assert len(bars) == (mark.error > 0)
        for bar in bars:
            top, bottom = bar.get("d").removeprefix("M0 ").partition("M")[0].split("V")
            assert y_of(y + float(top)) == pytest.approx(mark.y + mark.error, abs=1e-3)
            assert y_of(y + float(bottom)) == pytest.approx(mark.y - mark.error, abs=1e-3)
        assert len(list(node.iter("circle"))) == mark.is_marked
    assert drawn["a"].find("title").text == "a: 62.0% ± 1.0% at 2 MB"
    lines = {one.get("class"): one.get("points").split() for one in root.iter("polyline")}
    assert lines.keys() == {"front", "join c2"}
    # b, along to a, up to it, along to d, up to it
    assert len(lines["front"]) == 5
    assert len(lines["join c2"]) == 3


def test_a_chart_without_points_says_so():
    hopeless = [Family("f", [Mark("zero", 0.0, 0.5), Mark("nan", 5.0, float("nan"))])]
    assert "no data" in scatter_chart(hopeless, **LABELS)
    assert "no data" in ET.tostring(ET.fromstring(scatter_svg([], **LABELS)), encoding="unicode")
    ET.fromstring(draw_chart([row("only", 5, 0.5)]))


def test_names_are_escaped():
    hostile = "<script>&\"'\x00\udcff"
    marks = [Mark(hostile, 5.0, 0.5, 0.1), Mark("b", 7.0, 0.6)]
    options = {**LABELS, "title": hostile, "note": hostile}
    for text in (
        str(scatter_chart([Family(hostile, marks)], **options)),
        scatter_svg([Family(hostile, marks)], **options),
    ):
        assert "<script" not in text
        ET.fromstring(text)


@pytest.mark.parametrize("spread", [0.05, 1.0, 5.0, 12.0])
def test_ticks_are_round_and_not_crowded(spread):
    axis = LogAxis.around([3e3, 3e3 * 10**spread])
    ticks = axis.ticks()
    assert 2 <= len(ticks) <= 15
    places = np.array([axis.place(tick) for tick in ticks])
    assert ((places >= 0) & (places <= 1)).all()
    assert (np.diff(places) > 0.06).all()


def test_names_of_close_points_do_not_cover_each_other():
    random = np.random.default_rng(0)
    places = [
        Place(float(x), float(y), width=80, reach=7)
        for x, y in zip(random.uniform(50, 690, 14), random.uniform(20, 320, 14), strict=True)
    ]
    places += [Place(300, 150, 80, 7), Place(306, 152, 80, 7), Place(303, 158, 80, 7)]
    around = Box(0, -14, 764, 344)
    labels = place_labels(places, obstacles=[], around=around)
    for first, second in combinations(labels, 2):
        assert first.box.overlap(second.box) == 0
    assert all(label.box.overlap(around) == pytest.approx(label.box.area) for label in labels)
