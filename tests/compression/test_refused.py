"""Settings that a method does not take, and runs that it cannot compress: refused beforehand."""

import pytest

import seit
from seit.compression import METHODS, CompressConfig
from seit.compression.settings import TAKERS, refuse_unused, settings_of
from seit.config import build, flatten, nest, read_yaml, setting_names
from seit.errors import UsageError
from seit.models import TUNINGS
from seit.recipes import list_recipes
from seit.training import ModelConfig, Run

FAST = {
    "data": {"batch_size": 12},
    "schedule": {"steps": 2, "warmup_steps": 0},
    "run": {"device": "cpu", "loggers": []},
}
SMALL = ModelConfig(embed_dim=32, depth=2)


def compress(run, store, out, method, **changes):
    return seit.compress(run, store=store, out=out, method=method, config=FAST, **changes)


def config_of(**changes):
    return build(CompressConfig, nest(changes, origin="test"), origin="test")


def test_every_setting_of_compression_has_its_methods():
    names = set(setting_names(CompressConfig))
    assert set(TAKERS) <= names
    own = {name for name in names if name.partition(".")[0] in ("compression", "ema", "distill")}
    assert own - set(TAKERS) == {"compression.method", "compression.measure"}
    assert {one for takers in TAKERS.values() for one in takers} == set(METHODS)


def test_no_recipe_of_all_methods_sets_what_only_some_take():
    recipes = [read_yaml(one.path) for one in list_recipes()]
    found = [flatten(one) for one in recipes if "compression" in one]
    assert found
    assert not any(set(one) & set(TAKERS) for one in found)


@pytest.mark.parametrize(
    ("method", "name", "value"),
    [
        ("qat", "compression.group", 32),
        ("w4", "compression.bits", 2),
        ("w4", "compression.sparsity", (0.3,)),
        ("int8", "compression.rounding", "nearest"),
        ("w8", "compression.calibrator", "mse"),
        ("prune", "compression.budget", 0.5),
        ("qat", "compression.student", "small-cpu"),
        ("distill", "compression.samples", 12),
        ("mixed", "compression.max_drop", 0.1),
        *((one, "compression.max_drop", 0.1) for one in ("qat", "prune", "distill")),
        ("w4", "ema.decay", 0.9),
        ("int8", "distill.alpha", 0.2),
        ("w4", "layer", "blocks.0"),
    ],
)
def test_a_setting_without_effect_is_refused(learned, pattern_store, tmp_path, method, name, value):
    with pytest.raises(UsageError) as error:
        compress(learned, pattern_store, tmp_path / "out", method, **{name: value})
    takers = ", ".join(TAKERS[name])
    assert str(error.value) == (
        f"{name} is {value!r}, but {method} takes no such setting, which is for {takers}; leave it "
        "out"
    )
    assert not (tmp_path / "out").exists()


def test_a_dry_run_refuses_what_the_method_does_not_take(learned, pattern_store, call):
    place, own = (learned, pattern_store.folder), ("--compression.group", "32")
    for method, words in (
        ("qat", "compression.group is 32, but qat takes no such setting"),
        ("qat,prune", "compression.group is 32, but the methods take no such setting"),
    ):
        code, out, err = call("compress", *place, "--method", method, *own, "--dry-run")
        assert (code, out, words in err) == (2, "", True), err
    assert call("compress", *place, "--method", "qat,w4", *own, "--dry-run")[0] == 0


def test_a_comparison_refuses_what_none_of_its_methods_takes():
    config = config_of(**{"compression.group": 32, "ema.decay": 0.9})
    refuse_unused(config, ("w4", "qat"))
    with pytest.raises(
        UsageError, match=r"ema\.decay is 0\.9, but the methods take no such setting"
    ):
        refuse_unused(config, ("w4", "int8"))
    with pytest.raises(
        UsageError, match=r"compression\.group is 32, but qat takes no such setting"
    ):
        refuse_unused(config, ("qat",))


def test_a_method_of_a_comparison_has_the_settings_that_it_takes():
    changes = {"compression.group": 32, "compression.bits": 2, "ema.decay": 0.9}
    own = {
        "model.embed_dim": 16,
        "model.drop_path": 0.1,
        "optim.lr": 0.01,
        "compression.samples": 99,
    }
    config = config_of(**changes, **own)
    few, trained, student = (
        settings_of(config, one, model=SMALL) for one in ("w4", "qat", "distill")
    )
    assert (few.compression.group, few.compression.bits, few.ema.decay) == (32, 4, 0.0)
    assert (trained.compression.group, trained.compression.bits, trained.ema.decay) == (0, 2, 0.9)
    assert (few.compression.samples, student.compression.samples) == (99, 256)
    assert (few.model.embed_dim, few.model.drop_path, few.optim.lr) == (32, 0.1, 0.01)
    assert student.model == config.model
    for one in (few, trained, student):
        refuse_unused(one, (one.compression.method,))


def test_methods_of_a_comparison_record_what_they_did(learned, pattern_store, tmp_path):
    changes = {"compression.group": 8, "model.embed_dim": 16, "compression.samples": 12}
    result = compress(learned, pattern_store, tmp_path / "out", "w4,distill", **changes)
    assert [row.method for row in result.rows] == ["w4", "distill"]
    few, student = (
        Run.open(tmp_path / "out" / one / "seed-0").own_settings for one in ("w4", "distill")
    )
    assert (few.compression.group, few.model.embed_dim) == (8, 32)
    assert (student.compression.group, student.model.embed_dim) == (0, 16)


def test_weights_are_not_held_at_zero():
    with pytest.raises(UsageError, match=r"sparsity\.share is 0\.5, but seit compress"):
        config_of(**{"sparsity.share": 0.5})


@pytest.mark.parametrize("method", ["w4", "int8"])
def test_another_network_is_refused(learned, pattern_store, tmp_path, method):
    words = f"{method} keeps the network of .*: model.embed_dim is 16, and the run has 32; leave it"
    with pytest.raises(UsageError, match=words):
        compress(learned, pattern_store, tmp_path / "out", method, **{"model.embed_dim": 16})
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def tuned(learned, pattern_store, tmp_path_factory):
    """Return the folder of runs that were tuned by methods whose modules are kept, and by LoRA."""
    folder = tmp_path_factory.mktemp("tuned")
    for name in ("lora", *(name for name, one in TUNINGS.items() if not one.mergeable)):
        seit.tune(pattern_store, out=folder / name, init_from=learned, method=name, config=FAST)
    return folder


@pytest.mark.parametrize("name", [name for name, one in TUNINGS.items() if not one.mergeable])
def test_modules_are_no_weights_to_compress(tuned, pattern_store, tmp_path, name):
    methods = METHODS if name == "adapter" else ("w8",)
    for method in set(methods) - {"distill"}:
        with pytest.raises(UsageError) as error:
            compress(tuned / name, pattern_store, tmp_path / "out", method)
        words = (
            f"was tuned by {name}, whose modules are no weights of a plain backbone; use the run"
        )
        assert words in str(error.value), method
        assert not (tmp_path / "out").exists()


def test_a_tuned_run_is_compressed_if_its_modules_are_weights(tuned, pattern_store, tmp_path):
    found = compress(tuned / "lora", pattern_store, tmp_path / "w8", "w8")
    assert found.agreement == 1.0
    student = compress(
        tuned / "adapter", pattern_store, tmp_path / "student", "distill", **{"model.embed_dim": 16}
    )
    assert student.bytes < student.bytes_before
