"""No step between two lines of the metrics waits for the device, whatever it trains."""

import traceback

import pytest
import torch
from support.triton_programs import programs
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

import seit
from seit.augment import AugmentConfig, FusedAugment, random as draws
from seit.augment.kernels import fused
from seit.stream import ResidentLoader
from seit.training.feeds import Feed

READ_BY_OPERATORS = {"_local_scalar_dense", "nonzero", "equal", "masked_select", "_unique2"}
READ_BY_METHODS = {"tolist", "numpy", "cpu", "item", "__array__", "__bool__", "__index__"}
ON_CPUS = {"_draw_compiled", "_draw_compiled_normal", "draw_share", "_get_value"}
"""Functions that read tensors of CPUs only: draws, shares of masks, timm's count of steps."""
MODEL = {"embed_dim": 16, "depth": 2, "num_heads": 2, "stem": "2/2/0", "drop_path": 0.1}
SETTINGS = {
    "model": MODEL,
    "augment": {"crop_size": 8},
    "optim": {"clip_grad": 1.0},
    "run": {"device": "cpu", "loggers": [], "eval_every": 1000, "log_every": 1000},
}


class Reads:
    """Places, by line, where the values of a tensor are read on the host."""

    def __init__(self):
        self.places = set()
        self.modes = ReadMethods(self), ReadOperators(self)

    def __enter__(self):
        for mode in self.modes:
            mode.__enter__()
        return self

    def __exit__(self, *error):
        for mode in reversed(self.modes):
            mode.__exit__(*error)

    def note(self, name):
        frames = traceback.extract_stack()
        # The interpreter of kernels reads what a device would.
        if any("triton" in one.filename or one.name in ON_CPUS for one in frames):
            return
        own = [one for one in frames if "/seit/" in one.filename and "/tests/" not in one.filename]
        if own:
            self.places.add(f"{name} at {own[-1].filename}:{own[-1].lineno}")


class ReadMethods(TorchFunctionMode):
    def __init__(self, reads):
        super().__init__()
        self.reads = reads

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if getattr(func, "__name__", "") in READ_BY_METHODS:
            self.reads.note(func.__name__)
        return func(*args, **(kwargs or {}))


class ReadOperators(TorchDispatchMode):
    def __init__(self, reads):
        super().__init__()
        self.reads = reads

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        if name in READ_BY_OPERATORS or _has_mask(name, args):
            self.reads.note(name)
        return func(*args, **(kwargs or {}))


def _has_mask(name, args):
    """Return whether an index is a mask, whose count of true values the host must know."""
    if name not in ("index", "index_put", "index_put_"):
        return False
    return any(one is not None and one.dtype == torch.bool for one in args[1])


def recorded(reads):
    """Return a progress callback that records the fourth and fifth step."""

    def mark(step, total, latest):
        if step == 3:
            reads.__enter__()
        elif step == 5:
            reads.__exit__(None, None, None)

    return mark


@pytest.mark.parametrize("optimizer", ["adamw", "lamb", "muon"])
def test_a_step_reads_nothing_on_the_host(optimizer, pattern_store, tmp_path):
    reads = Reads()
    seit.train(
        pattern_store,
        out=tmp_path / "run",
        config={**SETTINGS, "optim": {"clip_grad": 1.0, "name": optimizer}},
        steps=6,
        batch_size=12,
        progress=recorded(reads),
    )
    assert not reads.places


@pytest.mark.parametrize("objective", ["mtm", "sit", "further"])
def test_a_step_of_pretraining_reads_nothing_on_the_host(
    objective, pattern_store, tiny_run, tmp_path
):
    reads = Reads()
    config, init = SETTINGS, {}
    if objective == "further":  # the network is the run's
        config, init = {"run": SETTINGS["run"]}, {"init_from": tiny_run}
    seit.pretrain(
        pattern_store,
        objective=objective,
        out=tmp_path / "run",
        config=config,
        steps=6,
        batch_size=12,
        progress=recorded(reads),
        **init,
    )
    assert not reads.places


def test_reads_are_found(pattern_store, tmp_path, monkeypatch):
    from seit.training import classify

    whole = classify.classification_loss

    def curious(logits, *args):
        loss = whole(logits, *args)
        return loss if loss > 0 else -loss

    reads = Reads()
    monkeypatch.setattr(classify, "classification_loss", curious)
    seit.train(
        pattern_store,
        out=tmp_path / "run",
        config=SETTINGS,
        steps=6,
        batch_size=12,
        progress=recorded(reads),
    )
    assert reads.places


def test_batches_on_a_device_with_triton_read_nothing_on_the_host(pattern_store, monkeypatch):
    for room in (fused, draws):
        monkeypatch.setattr(room, "triton_serves", lambda device: True)
    split = pattern_store["train"]
    loader = ResidentLoader(split, batch_size=12, shuffle=True, seed=0, device="cpu")
    codebook, grid = torch.from_numpy(pattern_store.codebook), pattern_store.card.tokenizer.grid
    reads = Reads()
    with programs(interpret=True):
        augment = FusedAugment(codebook, grid, AugmentConfig(crop_size=8))
        batches = Feed(loader, None, augment, (), 0).train_batches(0)
        next(batches)  # reads nothing either, but makes tables
        with reads:
            next(batches)
    assert not reads.places


@pytest.mark.parametrize("method", ["lora", "adalora"])
def test_a_step_of_tuning_reads_nothing_on_the_host(method, pattern_store, tiny_run, tmp_path):
    reads = Reads()
    seit.tune(
        pattern_store,
        method=method,
        init_from=tiny_run,
        out=tmp_path / "run",
        config={"run": SETTINGS["run"]},
        steps=6,
        batch_size=12,
        progress=recorded(reads),
    )
    assert not reads.places
