"""The training feed: the same batches whichever way they are made."""

import logging
import multiprocessing
import os
import time
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
import torch
from support import stores
from support.processes import exit_codes, fork_ranks
from support.triton_programs import CPU, DEVICES, programs

import seit
from seit.augment import AugmentConfig, TokenAugment
from seit.augment.kernels import fused
from seit.augment.kernels.fused import FusedAugment
from seit.config import build
from seit.errors import UsageError
from seit.models.tokenadapt import TokenAdapt, save_tokenadapt
from seit.shards import Split
from seit.stream import ResidentLoader, fits_in_memory
from seit.training import TrainConfig, feeds, join_ranks

GRID = (5, 6)
SHARDS = {"train": (26,), "val": (9,)}
CONFIG = build(
    TrainConfig,
    {"data": {"batch_size": 4}, "run": {"device": "cpu", "seed": 5}},
    origin="test",
)


def labelled_store(path, *, unlabelled=()):
    """A store whose samples have labels, but for those of the splits ``unlabelled``."""
    blocks_of = stores.blocks_of

    def labelled(columns, *arguments, **settings):
        split = columns.keys[0].partition("/")[0]
        columns.labels[:] = -1 if split in unlabelled else np.arange(len(columns.labels)) % 3
        return blocks_of(columns, *arguments, **settings)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stores, "blocks_of", labelled)
        stores.build_store(path, grid=GRID, num_codes=40, shards=SHARDS, block_samples=8)
    stores.edit_card(path, lambda card: card["tokenizer"].update(flip_equivariant=True))
    return seit.open(path)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return labelled_store(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module", params=DEVICES)
def device(request):
    """Where the fused path runs: a CUDA device, or the processor by Triton's interpreter."""
    interpret = request.param == "interpreter"
    with programs(interpret=interpret), pytest.MonkeyPatch.context() as patch:
        if interpret:
            for module in (fused, feeds):
                patch.setattr(module, "triton_serves", lambda device: True)
        yield CPU if interpret else torch.device("cuda")


def fused_batches(store, config, device, count):
    feed = feeds.make_feed(store, config, device)
    assert isinstance(feed.augment, FusedAugment)
    assert isinstance(feed.train, ResidentLoader)
    return [batch.augmented for batch in islice(feed.train_batches(3), count)]


def reference_batches(store, config, count):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(feeds, "triton_serves", lambda device: False)
        feed = feeds.make_feed(store, config, CPU)
    assert type(feed.augment) is TokenAugment
    return [batch.augmented for batch in islice(feed.train_batches(3), count)]


def assert_same(found, expected, codebook):
    """Inputs to within 1e-5 of the codebook's RMS, everything else bit for bit."""
    rms = float(np.sqrt(np.square(codebook).mean()))
    for one, other in zip(found, expected, strict=True):
        assert one.inputs.is_contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(
            one.inputs.cpu().contiguous(), other.inputs, atol=1e-5 * rms, rtol=0
        )
        for name in ("labels", "partner_labels", "weight"):
            assert torch.equal(getattr(one, name).cpu(), getattr(other, name))


ROLLS = "rolls, flips and half of the boxes"
RARE = (ROLLS, "details of what is off")
FUSED = {
    "the recipe of the defaults": {},
    ROLLS: {
        "time_roll": 0.4, "flip_prob": 0.5, "cutmix_prob": 0.5, "cutmix_alpha": 0.4,
    },
    "crops alone": {
        "synonym_prob": 0, "swap_prob": 0, "noise_prob": 0, "cutmix_prob": 0,
        "interpolation": "bilinear",
    },
    "details of what is off": {
        "synonym_prob": 0, "swap_prob": 0, "noise_prob": 0,
        "mixup_alpha": 0.5, "token_adapt_prob": 1.0, "freq_mask_max": 0.1, "time_mask_max": 0.3,
    },
}  # fmt: skip


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow) if n in RARE else n for n in FUSED]
)
def test_fused_and_reference_make_the_same_batches(store, device, caplog, monkeypatch, name):
    config = replace(CONFIG, augment=AugmentConfig(**FUSED[name]))
    config = replace(config, run=replace(config.run, precision="fp32"))
    expected = reference_batches(store, config, 2)
    with caplog.at_level(logging.WARNING), monkeypatch.context() as patch:
        # No ids are in memory outside the kernels.
        patch.setattr(ResidentLoader, "read", None)
        patch.setattr(FusedAugment, "_unpack", None)
        found = fused_batches(store, config, device, 2)
    assert not caplog.records
    assert_same(found, expected, store.codebook)


UNFUSED = {
    "color_adapt_prob": {"color_adapt_prob": 0.5},
    "order": {"order": "seitpp"},
    "token_adapt": {"token_adapt": "adapt.safetensors"},
}


@pytest.mark.parametrize("name", UNFUSED)
def test_the_reference_serves_what_the_kernels_do_not(
    store, device, caplog, tmp_path, monkeypatch, name
):
    monkeypatch.chdir(tmp_path)
    if name == "token_adapt":
        network = TokenAdapt(torch.from_numpy(store.codebook), dim=16, num_heads=2)
        fingerprint = store.card.tokenizer.fingerprint
        save_tokenadapt(network, tmp_path / "adapt.safetensors", fingerprint=fingerprint)
    config = replace(CONFIG, augment=AugmentConfig(**UNFUSED[name]))
    config = replace(config, run=replace(config.run, precision="fp32"))
    expected = reference_batches(store, config, 2)
    with caplog.at_level(logging.WARNING):
        found = fused_batches(store, config, device, 2)
    (message,) = (record.getMessage() for record in caplog.records)
    assert message.startswith("augmentation is not fused")
    assert name in message
    assert_same(found, expected, store.codebook)


def test_inputs_are_bfloat16_where_the_network_computes_in_it(store, device):
    config = replace(CONFIG, run=replace(CONFIG.run, precision="bf16"))
    (batch,) = fused_batches(store, config, device, 1)
    assert batch.inputs.dtype == torch.bfloat16
    assert batch.inputs.is_contiguous(memory_format=torch.channels_last)
    (expected,) = reference_batches(store, config, 1)
    assert expected.inputs.dtype == torch.float32
    torch.testing.assert_close(
        batch.inputs.float().cpu().contiguous(), expected.inputs, atol=1e-3, rtol=2**-7
    )


def test_evaluation_is_the_same(store, device):
    feed = feeds.make_feed(store, CONFIG, device, with_train=False)
    expected = TokenAugment(torch.from_numpy(store.codebook), GRID, CONFIG.augment)
    for inputs, _ in feed.evaluation_inputs():
        assert inputs.shape[1:] == (store.codebook.shape[1], *expected.output_size)
    tokens = torch.from_numpy(store["val"].tokens[:].astype(np.int64))
    found = torch.cat([inputs for inputs, _ in feed.evaluation_inputs()])
    torch.testing.assert_close(found.float().cpu().contiguous(), expected.evaluate(tokens))


def test_unlabelled_samples_of_a_resident_split_are_refused_at_once(tmp_path):
    store = labelled_store(tmp_path, unlabelled=("train",))
    with pytest.raises(UsageError, match=r"'train' of .* has samples without a label; tokenize"):
        feeds.make_feed(store, CONFIG, CPU)


def test_unlabelled_samples_of_a_streamed_split_are_refused_when_met(tmp_path):
    store = labelled_store(tmp_path, unlabelled=("train",))
    data = replace(CONFIG.data, mode="streaming", order="window")
    feed = feeds.make_feed(store, replace(CONFIG, data=data), CPU)
    with pytest.raises(UsageError, match="has samples without a label"):
        next(feed.train_batches(0))
    feed.train.close()


def test_a_streamed_split_is_not_read_for_its_labels(tmp_path, monkeypatch):
    store = labelled_store(tmp_path)
    monkeypatch.setattr(Split, "labels", property(lambda split: pytest.fail("all labels are read")))
    data = replace(CONFIG.data, mode="streaming", order="window")
    monkeypatch.setattr("os.sysconf", lambda name: 1)
    feed = feeds.make_feed(store, replace(CONFIG, data=data), CPU)
    assert (next(feed.train_batches(0)).augmented.labels >= 0).all()
    feed.train.close()


def test_a_split_without_any_label_cannot_be_evaluated(tmp_path):
    store = labelled_store(tmp_path, unlabelled=("val",))
    with pytest.raises(UsageError, match="no labeled samples in a split 'val'"):
        feeds.make_feed(store, CONFIG, CPU)


def load_with_scarce_memory(store, free, found):
    """Load both splits as a rank: each split that is held takes its bytes from the others' room."""

    def load(split, *arguments, **settings):
        if split.name == "train" and os.environ["RANK"] == "1":
            time.sleep(1)  # the other rank is first
        made = seit.loader(split, *arguments, **settings)
        if isinstance(made, ResidentLoader):
            with free.get_lock():
                free.value -= len(split) * (split.layout.sample_bytes + 8)
        found[int(os.environ["RANK"])] |= (1 if isinstance(made, ResidentLoader) else 2) << (
            2 * (split.name == "val")
        )
        return made

    def fits(*arguments, **settings):
        if os.environ["RANK"] == "1":
            time.sleep(1)
        return fits_in_memory(*arguments, **settings)

    with pytest.MonkeyPatch.context() as patch, join_ranks("cpu") as ranks:
        patch.setattr(feeds, "loader", load)
        patch.setattr(feeds, "fits_in_memory", fits)
        patch.setattr("seit.stream.loaders.available_bytes", lambda: free.value)
        data = replace(CONFIG.data, order="window", window_blocks=1)
        feeds.make_feed(store, replace(CONFIG, data=data), ranks.device, rank=ranks.part)


@pytest.mark.parametrize(
    ("spare", "expected"), [(0, 0b0101), (-1, 0b0110)], ids=["both fit", "val alone fits"]
)
def test_all_ranks_choose_the_same_mode_whoever_is_first(store, spare, expected):
    """Train is held by both ranks or by none, although the first takes memory from the second."""
    sizes = {name: len(split) * (split.layout.sample_bytes + 8) for name, split in store.items()}
    context = multiprocessing.get_context("fork")
    free, found = context.Value("q", 4 * sizes["train"] + spare), context.Array("q", 2)
    codes = exit_codes(fork_ranks(load_with_scarce_memory, store, free, found, ranks=2))
    assert codes == [0, 0]
    assert list(found) == [expected] * 2
