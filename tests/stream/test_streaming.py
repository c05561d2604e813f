import json
import signal
import threading
import time
import tracemalloc
from functools import partial
from itertools import islice, product

import google_crc32c
import numpy as np
import pytest
import torch
from support.processes import exit_codes, fork
from support.stores import build_store, edit_card
from support.triton_programs import programs

import seit
from seit.errors import DamagedError, SeitError, UsageError
from seit.shards import Shard
from seit.stream import (
    MixedLoader,
    Rank,
    StreamingLoader,
    WindowOrder,
    device_decoder as decoding,
    loader,
    select,
)
from seit.stream.kernels import context, decode_context_triton
from seit.stream.order import sample_at_reference

FORMS = [("packed", "wds"), ("context", "zarr")]
NUM_SAMPLES = 203
COUNTS = {"wds": (72, 40, 0, 91), "zarr": (64, 64, 64, 11)}


@pytest.fixture(scope="module", params=FORMS, ids="-".join)
def split(request, tmp_path_factory):
    codec, container = request.param
    path = tmp_path_factory.mktemp("store")
    build_store(
        path,
        grid=(5, 6),
        num_codes=40,
        shards={"train": COUNTS[container]},
        block_samples=8,
        codec=codec,
        container=container,
    )
    return seit.open(path)["train"]


def rows_of(batches):
    return np.concatenate([batch.indices for batch in batches])


def check_batch(batch, split):
    """A batch holds what the split holds at its indices."""
    expected = split.tokens[batch.indices].astype(np.int64)
    np.testing.assert_array_equal(batch.tokens.numpy().astype(np.int64), expected)
    np.testing.assert_array_equal(batch.labels.numpy(), split.labels[batch.indices])
    assert batch.keys == [split.keys[index] for index in batch.indices.tolist()]


@pytest.mark.parametrize("n", [1, 2, 100, 1023, 65_535, 65_536, 10**6, 10**12])
@pytest.mark.parametrize("seed", [0, 7, 2**63 - 1])
def test_the_compiled_permutation_equals_the_reference(n, seed):
    positions = np.unique(np.random.default_rng(0).integers(n, size=500))
    expected = sample_at_reference(positions, n, seed=seed, epoch=3)
    np.testing.assert_array_equal(seit.stream.sample_at(positions, n, seed=seed, epoch=3), expected)


@pytest.mark.parametrize("window_blocks", [1, 3, 7, 100])
@pytest.mark.parametrize("sizes", [[1], [8] * 10, [8, 8, 5, 8, 1, 8, 8, 2], [3] * 41])
def test_window_order_is_a_permutation_of_windows(sizes, window_blocks):
    sizes = np.array(sizes)
    order = WindowOrder(sizes, seed=5, window_blocks=window_blocks)
    firsts = np.cumsum(sizes) - sizes
    for epoch in (0, 1, 2):
        found = order.indices(np.arange(sizes.sum()), epoch)
        assert sorted(found) == list(range(sizes.sum()))
        start = 0
        for window in range(order.num_windows):
            blocks = order.blocks_of(window, epoch)
            inside = np.concatenate([firsts[block] + np.arange(sizes[block]) for block in blocks])
            part = found[start : start + len(inside)]
            assert sorted(part) == sorted(inside)
            start += len(inside)
        some = np.random.default_rng(epoch).integers(sizes.sum(), size=9)
        np.testing.assert_array_equal(order.indices(some, epoch), found[some])


def test_windows_mix_their_blocks_evenly():
    """Over epochs, each sample is as likely at each place of a window of all blocks."""
    order = WindowOrder(np.array([4, 4, 4]), seed=0, window_blocks=3)
    counts = np.zeros((12, 12))
    for epoch in range(4000):
        counts[np.arange(12), order.indices(np.arange(12), epoch)] += 1
    statistic = ((counts - 4000 / 12) ** 2 / (4000 / 12)).sum() / 143
    assert abs(statistic - 1) < 5 * (2 / 143) ** 0.5


@pytest.mark.parametrize(
    ("window_blocks", "batch_size"), [*product((1, 4, 64), (10, 64, 203)), (4, 1)]
)
def test_streaming_and_resident_are_the_same_sequence(split, batch_size, window_blocks):
    options = {"batch_size": batch_size, "order": "window", "window_blocks": window_blocks}
    streaming = loader(split, mode="streaming", seed=3, **options)
    resident = loader(split, mode="resident", seed=3, **options)
    assert isinstance(streaming, StreamingLoader)
    assert len(streaming) == len(resident) == NUM_SAMPLES // batch_size
    steps = 2 * len(resident) + 3
    pairs = zip(islice(streaming.steps(), steps), islice(resident.steps(), steps), strict=True)
    for found, expected in pairs:
        assert found.epoch == expected.epoch
        np.testing.assert_array_equal(found.indices, expected.indices)
        np.testing.assert_array_equal(found.tokens, expected.tokens)
        np.testing.assert_array_equal(found.labels, expected.labels)
        np.testing.assert_array_equal(found.positions, expected.positions)
        assert found.keys == expected.keys
        check_batch(found, split)
    streaming.close()


@pytest.mark.parametrize("mode", ["resident", "streaming"])
@pytest.mark.parametrize("world_size", [1, 2, 3, 8])
def test_any_number_of_ranks_shares_the_same_batches(split, mode, world_size):
    options = {"batch_size": 48, "order": "window", "mode": mode, "seed": 1, "window_blocks": 5}
    whole = list(loader(split, **options))
    parts = [
        list(loader(split, rank=rank, world_size=world_size, **options))
        for rank in range(world_size)
    ]
    for number, batch in enumerate(whole):
        pieces = [part[number] for part in parts]
        positions = torch.cat([piece.positions for piece in pieces])
        order = positions.argsort()
        assert positions[order].tolist() == batch.positions.tolist()
        assert torch.equal(torch.cat([piece.tokens for piece in pieces])[order], batch.tokens)
        for piece in pieces:  # a sample's partner of the whole batch is its mirror image here
            inside = piece.positions - number * 48
            assert (47 - inside.flip(0)).tolist() == inside.tolist()


@pytest.mark.parametrize("mode", ["resident", "streaming"])
@pytest.mark.parametrize("world_size", [1, 2, 3, 8])
@pytest.mark.parametrize("batch_size", [1, 7, 64, 500])
def test_evaluation_meets_each_sample_in_one_rank(split, mode, world_size, batch_size):
    found = [
        rows_of(
            loader(
                split,
                batch_size=batch_size,
                shuffle=False,
                mode=mode,
                rank=rank,
                world_size=world_size,
                window_blocks=3,
            )
        )
        for rank in range(world_size)
    ]
    assert np.concatenate(found).tolist() == list(range(NUM_SAMPLES))


@pytest.mark.parametrize("mode", ["resident", "streaming"])
def test_a_run_goes_on_from_its_state_with_another_world_size(split, mode):
    options = {"batch_size": 24, "order": "window", "mode": mode, "seed": 9, "window_blocks": 2}
    whole = list(islice(loader(split, **options).steps(), 20))
    first = loader(split, rank=0, world_size=1, **options)
    state = json.loads(json.dumps(first.state(11)))
    for world_size in (1, 2, 4):
        ranks = [
            loader(split, rank=rank, world_size=world_size, **options) for rank in range(world_size)
        ]
        streams = [part.steps(part.resume(state)) for part in ranks]
        for expected in whole[11:]:
            pieces = [next(stream) for stream in streams]
            order = torch.cat([piece.positions for piece in pieces]).argsort()
            tokens = torch.cat([piece.tokens for piece in pieces])[order]
            assert torch.equal(tokens, expected.tokens)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"seed": 1}, "with seed 1, not 0"),
        ({"batch_size": 4}, "with batch_size 4"),
        ({"order": "global"}, "with order 'global'"),
        ({"num_samples": 1}, "with num_samples 1"),
        ({"window_blocks": 1}, "with window_blocks 1"),
        ({"version": 2}, "with version 2"),
        ({"step": -1}, "step is -1"),
        ({"step": True}, "step is True"),
        ({"step": "3"}, "step is '3'"),
    ],
)
def test_a_state_of_another_run_is_refused(split, change, reason):
    one = loader(split, batch_size=8, order="window")
    with pytest.raises(UsageError, match=reason):
        one.resume({**one.state(3), **change})


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"order": "random"}, "the orders are global and window"),
        ({"mode": "disk"}, "the modes auto, resident and streaming"),
        ({"mode": "streaming"}, r"set the order \(data\.order\) to window"),
        ({"mode": "streaming", "order": "window", "subset": np.arange(3)}, "all of its samples"),
        ({"order": "window", "subset": np.arange(50)}, "has no windows"),
        ({"rank": 2, "world_size": 2}, "rank 2 of 2"),
        ({"world_size": 3}, "use a multiple of 6"),
        ({"order": "window", "window_blocks": 0}, "must be at least 1"),
        ({"subset": np.array([0, 500])}, "outside of the 203"),
        ({"subset": np.array([[0]])}, "takes row numbers"),
        ({"subset": np.zeros(0, int)}, "the split is empty"),
        ({"batch_size": 204, "mode": "streaming", "order": "window"}, "larger than the 203"),
    ],
)
def test_what_cannot_be_had_is_refused(split, options, reason):
    with pytest.raises(UsageError, match=reason):
        loader(split, **{"batch_size": 8, **options})


def test_what_does_not_fit_is_streamed(split, monkeypatch):
    monkeypatch.setattr("seit.stream.loaders.available_bytes", lambda: 1)
    assert isinstance(loader(split, batch_size=8, order="window"), StreamingLoader)
    with pytest.raises(UsageError, match=r"\(data\.mode\) to resident if there is memory"):
        loader(split, batch_size=8)


def test_subsets(split):
    rows = select(split, classes=["ant", 2], fraction=0.25, seed=4)
    labels = split.labels
    for label in range(3):
        expected = -(-int((labels == label).sum()) // 4) if label != 1 else 0
        assert int((labels[rows] == label).sum()) == expected
    assert (np.diff(rows) > 0).all()
    assert set(rows) <= set(select(split, fraction=0.5, seed=4))
    assert len(select(split)) == NUM_SAMPLES
    few = loader(split, batch_size=10, subset=rows, seed=2)
    assert few.num_samples == len(rows)
    for batch in few:
        assert set(batch.indices) <= set(rows)
        check_batch(batch, split)
    assert len(set(rows_of(few.epoch(3)))) == len(rows) // 10 * 10
    for wrong, reason in [
        ({"fraction": 0}, "above 0 and at most 1"),
        ({"fraction": float("nan")}, "above 0 and at most 1"),
        ({"classes": ["dog"]}, "no class 'dog'"),
        ({"classes": [3]}, "no class 3 in"),
    ]:
        with pytest.raises(UsageError, match=reason):
            select(split, **wrong)


def mixture(split, *, rank=0, world_size=1, batch_size=24):
    parts = [
        loader(split, batch_size=1, seed=1),
        loader(split, batch_size=1, seed=2, order="window", mode="streaming", window_blocks=2),
        loader(split, batch_size=1, seed=3, subset=np.arange(10)),
    ]
    for part in parts:
        part.rank = Rank(rank, world_size)
    return MixedLoader(parts, [5, 2, 1], batch_size=batch_size, seed=8)


def test_mixtures_keep_their_shares_and_walk_through_each_part(split):
    mixed = mixture(split)
    assert len(mixed) == (2 * NUM_SAMPLES + 10) // 24
    seen = []
    for step, batch in enumerate(islice(mixed.steps(), 40)):
        check_batch(batch, split)
        sources, numbers = mixed._plan(step)
        assert np.bincount(sources).tolist() == [15, 6, 3]
        seen += [(s, n) for s, n in zip(sources.tolist(), numbers.tolist(), strict=True)]
    for source, per_batch in enumerate([15, 6, 3]):
        numbers = sorted(number for other, number in seen if other == source)
        assert numbers == list(range(40 * per_batch))
    mixed.close()


def test_classes_of_a_mixture_are_united_by_name(tmp_path):
    parts = []
    for number, classes in enumerate([("cat", "dog"), ("eel", "dog", "cat")]):
        path = tmp_path / str(number)
        # One codebook, and other tokens: these are drawn after those of another split.
        shards = {"other": (32,)} if number else {}
        build_store(path, classes=classes, shards={**shards, "train": (32,)})
        parts.append(loader(seit.open(path)["train"], batch_size=4, seed=number))
    mixed = MixedLoader(parts, [1, 1], batch_size=8)
    assert mixed.classes == ("cat", "dog", "eel")
    names = {
        part_split.tokens[row].tobytes(): part_split.classes[label] if label >= 0 else None
        for part_split in (seit.open(tmp_path / "0")["train"], seit.open(tmp_path / "1")["train"])
        for row, label in enumerate(part_split.labels.tolist())
    }
    for batch in mixed:
        for grid, label in zip(batch.tokens.numpy(), batch.labels.tolist(), strict=True):
            name = names[grid.astype(np.uint16).tobytes()]
            assert name == (mixed.classes[label] if label >= 0 else None)


def test_mixtures_resume_and_share_batches_among_ranks(split):
    whole = list(islice(mixture(split).steps(), 12))
    again = mixture(split)
    state = json.loads(json.dumps(again.state(5)))
    for batch, expected in zip(again.steps(again.resume(state)), whole[5:], strict=False):
        assert torch.equal(batch.tokens, expected.tokens)
    ranks = [list(islice(mixture(split, rank=r, world_size=2).steps(), 12)) for r in range(2)]
    for number, expected in enumerate(whole):
        pieces = [part[number] for part in ranks]
        order = torch.cat([piece.positions for piece in pieces]).argsort()
        tokens = torch.cat([piece.tokens for piece in pieces])[order]
        assert torch.equal(tokens, expected.tokens)
        assert sorted(pieces[0].keys + pieces[1].keys) == sorted(expected.keys)


def test_mixtures_that_make_no_sense_are_refused(split):
    one = loader(split, batch_size=8)
    for parts, weights, reason in [
        ([], [], "pass one for each"),
        ([one], [1, 2], "pass one for each"),
        ([one, one], [1, 0], "must be above 0"),
        ([one, one], [1, float("inf")], "must be above 0"),
        ([one, one], [1, 99], "make the batch larger"),
        ([loader(split, batch_size=8, shuffle=False)], [1], "stored order cannot be mixed"),
    ]:
        with pytest.raises(UsageError, match=reason):
            MixedLoader(parts, weights, batch_size=16)


def test_mixtures_of_several_tokenizers_grids_or_codebooks_are_refused(split, tmp_path):
    """Their ids mean other codes, as in a merge; all are refused before a batch is read."""
    one = loader(split, batch_size=8)
    for name, changes, reason in [
        ("same", {}, None),
        ("fingerprint", {}, "are of different tokenizers"),
        ("codes", {"num_codes": 16}, "holds grids .* of 40 codes and .* of 16; choose"),
        ("grid", {"grid": (6, 5)}, r"holds grids \(5, 6\) of 40 codes and .* grids \(6, 5\)"),
        ("codebook", {"seed": 1}, "have one fingerprint and different codebooks"),
    ]:
        build_store(
            tmp_path / name,
            **{"num_codes": 40, "grid": (5, 6), "shards": {"train": (32,)}} | changes,
        )
        if name == "fingerprint":
            edit_card(tmp_path / name, lambda body: body["tokenizer"].update(fingerprint="1" * 64))
        if reason is None:
            same = loader(seit.open(tmp_path / name)["train"], batch_size=8)
            assert len(MixedLoader([one, same], [1, 1], batch_size=8)) > 0
            continue
        other = loader(seit.open(tmp_path / name)["train"], batch_size=8)
        with pytest.raises(UsageError, match=reason):
            MixedLoader([one, other], [1, 1], batch_size=8)


def test_names_and_settings_without_effect_are_refused(split):
    for wrong, reason in [
        ({"sampling": "balance"}, "sampling is 'balance'; expected natural or balanced"),
        ({"sampling": "balanced", "shuffle": False}, "'balanced' and shuffle False"),
        ({"window_blocks": 2}, "window_blocks is 2 and order 'global', which has no windows"),
    ]:
        with pytest.raises(UsageError, match=reason):
            loader(split, batch_size=8, **wrong)
    loader(split, batch_size=8, shuffle=False, mode="streaming", window_blocks=2).close()


@pytest.mark.parametrize("options", [{}, {"order": "window"}, {"sampling": "balanced"}])
def test_numbers_of_numpy_are_saved_as_json_and_mean_the_same(tmp_path, options):
    build_store(tmp_path, shards={"train": (64,)}, block_samples=8)
    labeled = seit.open(tmp_path)["train"]
    subset = {} if options.get("order") else {"subset": np.flatnonzero(labeled.labels >= 0)}
    make = partial(loader, labeled, **options, **subset)
    plain = make(batch_size=8, seed=3)
    typed = make(batch_size=np.int64(8), seed=np.int64(3))
    assert json.loads(json.dumps(typed.state(np.int64(2)))) == plain.state(2)
    for one, other in zip(typed, plain, strict=True):
        assert torch.equal(one.tokens, other.tokens)
    mixed = MixedLoader([typed], [1], batch_size=8, seed=np.int64(3))
    assert json.loads(json.dumps(mixed.state(2))) == mixed.state(2)


@pytest.fixture
def damaged(tmp_path):
    """A store with one damaged block in the middle: rows 24 to 31."""
    build_store(tmp_path, grid=(5, 6), num_codes=40, shards={"train": (72, 32)}, block_samples=8)
    split = seit.open(tmp_path)["train"]
    offset, _ = split.shards[0].places[3].frames[seit.shards.frames.Kind.TOKENS]
    shard = tmp_path / "train" / "00000.tar"
    data = bytearray(shard.read_bytes())
    data[offset + 40] ^= 1
    shard.write_bytes(data)
    return tmp_path


def test_damage_stops_a_stream_where_it_is_due(damaged):
    split = seit.open(damaged)["train"]
    stream = loader(split, batch_size=8, order="window", mode="streaming", window_blocks=1)
    seen = []
    with pytest.raises(DamagedError, match=r"train/00000\.tar, block 3: .*samples 24 to 31"):
        seen.extend(index for batch in stream for index in batch.indices.tolist())
    assert len(seen) % 8 == 0
    assert not set(seen) & set(range(24, 32))
    stream.close()
    before = threading.active_count()
    stream.close()
    assert threading.active_count() == before


def test_damage_is_skipped_and_counted_where_asked_for(damaged):
    split = seit.open(damaged, on_damage="skip")["train"]
    options = {"batch_size": 8, "order": "window", "mode": "streaming", "window_blocks": 4}
    stream = loader(split, **options)
    whole = seit.open(damaged)["train"]
    batches = list(stream)
    assert [len(batch) for batch in batches] == [8] * 13
    assert stream.skipped_samples == 8
    rows = rows_of(batches)
    assert set(rows) == set(range(104)) - set(range(24, 32))
    for batch in batches:
        expected = whole.tokens[batch.indices]
        np.testing.assert_array_equal(batch.tokens.numpy(), expected.astype(np.int16))
    resident = loader(split, batch_size=8)
    assert resident.num_samples == 96
    stream.close()


def test_a_window_of_nothing_but_damage_is_an_error(damaged):
    split = seit.open(damaged, on_damage="skip")["train"]
    stream = loader(split, batch_size=8, order="window", mode="streaming", window_blocks=1)
    with pytest.raises(DamagedError, match="block 3"):
        list(stream)
    stream.close()


def test_a_place_that_does_not_answer_is_an_error_not_a_hang(split, monkeypatch):
    stream = loader(split, batch_size=8, order="window", mode="streaming", window_blocks=2)
    monkeypatch.setattr(
        type(split.shards[0]),
        "open_training",
        lambda *_: (_ for _ in ()).throw(SeitError("stalls")),
    )
    with pytest.raises(SeitError, match="stalls"):
        next(stream.steps())
    stream.close()


def test_a_billion_samples_cost_memory_for_their_blocks_only():
    blocks = np.full(1_000_000, 1000, dtype=np.int64)
    tracemalloc.start()
    order = WindowOrder(blocks, seed=0)
    for epoch, step in [(0, 0), (0, 3_906_249), (1, 1_234_567)]:
        positions = np.arange(step * 256, (step + 1) * 256)
        found = order.indices(positions, epoch)
        assert len(set(found.tolist())) == 256
        assert found.max() < 10**9
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100 * len(blocks)


def test_a_stream_holds_two_windows_at_most(split):
    stream = loader(split, batch_size=8, order="window", mode="streaming", window_blocks=3)
    for _ in islice(stream.steps(), 70):
        assert len(stream._open) <= 2
        assert len(stream._coming) <= 2
    stream.close()


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("world_size", [2, 4])
def test_a_rank_holds_and_decodes_its_own_samples_alone(split, monkeypatch, world_size, shuffle):
    decoded = []

    def open_training(shard, block, rows=None):
        if rows is not None:
            decoded.extend((shard.rows_of(block).start + rows).tolist())
        return Shard.open_training(shard, block, rows)

    options = {"batch_size": 16, "order": "window", "mode": "streaming", "window_blocks": 7}
    for rank in range(world_size):
        part = loader(split, rank=rank, world_size=world_size, shuffle=shuffle, **options)
        monkeypatch.setattr(type(split.shards[0]), "open_training", open_training)
        batches = list(part)
        monkeypatch.undo()
        own = rows_of(batches)
        for batch in batches:
            check_batch(batch, split)
        held = sum(len(window.packed_rows) for window in part._open.values())
        assert held <= 7 * 8 if not shuffle else -(-7 * 8 // world_size) + 16
        part.close()
        if split.store.card.codec == "context" and shuffle:
            # The window after the last one is that of the next epoch.
            assert set(own) <= set(decoded)
            assert len(decoded) <= len(own) + -(-2 * 7 * 8 // world_size) + 32
        decoded.clear()


@pytest.mark.parametrize("world_size", [2, 3])
def test_a_rank_without_samples_in_a_block_does_not_read_it(damaged, world_size):
    """Of stored order each rank has one part; damage in another rank's part is not its affair."""
    split = seit.open(damaged)["train"]
    options = {"batch_size": 12, "shuffle": False, "mode": "streaming", "window_blocks": 1}
    last = loader(split, rank=world_size - 1, world_size=world_size, **options)
    assert rows_of(last).tolist() == list(range(104))[104 * (world_size - 1) // world_size :]
    last.close()
    first = loader(split, rank=0, world_size=world_size, **options)
    with pytest.raises(DamagedError, match="block 3"):
        list(first)
    first.close()


def test_damage_that_is_skipped_moves_all_ranks_alike(damaged):
    split = seit.open(damaged, on_damage="skip")["train"]
    options = {"batch_size": 8, "order": "window", "mode": "streaming", "window_blocks": 4}
    whole = list(loader(split, **options))
    ranks = [list(loader(split, rank=rank, world_size=2, **options)) for rank in range(2)]
    for number, batch in enumerate(whole):
        pieces = [part[number] for part in ranks]
        order = torch.cat([piece.positions for piece in pieces]).argsort()
        assert torch.equal(torch.cat([piece.tokens for piece in pieces])[order], batch.tokens)


def test_a_rank_is_given_what_is_not_its_own_when_asked(split):
    part = loader(
        split, batch_size=8, order="window", mode="streaming", window_blocks=2, world_size=2
    )
    whole = loader(split, batch_size=8, order="window", window_blocks=2)
    next(part.steps())
    positions = np.arange(NUM_SAMPLES)
    found, expected = part.load(positions, 1), whole.load(positions, 1)
    assert torch.equal(found.tokens, expected.tokens)
    assert found.find_keys() == expected.find_keys()
    part.close()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("mode", ["resident", "streaming"])
def test_a_cuda_device_gets_the_same_batches(split, mode):
    options = {"batch_size": 16, "order": "window", "mode": mode, "window_blocks": 4}
    on_device, on_host = loader(split, device="cuda", **options), loader(split, **options)
    for found, expected in zip(on_device, on_host, strict=True):
        assert found.tokens.is_cuda
        assert torch.equal(found.tokens.cpu(), expected.tokens)
        assert torch.equal(found.labels.cpu(), expected.labels)
    on_device.close()
    on_host.close()


@pytest.fixture
def by_interpreter(monkeypatch):
    """Context streams are decoded by Triton, as if the processor were a CUDA device."""
    used, lock = [], threading.Lock()

    def decode(*arguments):
        with lock:  # the interpreter serves one thread
            used.append(arguments)
            return decode_context_triton(*arguments)

    monkeypatch.setattr(decoding, "triton_serves", lambda device: True)
    monkeypatch.setattr(context, "triton_serves", lambda device: True)
    monkeypatch.setattr(context, "decode_context_triton", decode)
    with programs(interpret=True):
        yield used


@pytest.mark.parametrize("mode", ["resident", "streaming"])
@pytest.mark.parametrize("world_size", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_context_streams_are_decoded_by_triton(tmp_path, by_interpreter, mode, world_size):
    shards = {"train": (16, 5)}
    build_store(
        tmp_path, grid=(3, 4), num_codes=40, shards=shards, block_samples=8, codec="context"
    )
    split = seit.open(tmp_path)["train"]
    options = {"batch_size": 4, "order": "window", "mode": mode, "window_blocks": 2}
    part = loader(split, world_size=world_size, **options)
    batches = list(part)
    part.close()
    assert by_interpreter
    for batch in batches:
        check_batch(batch, split)


def test_packed_stores_have_nothing_to_decode(tmp_path, by_interpreter):
    build_store(tmp_path, shards={"train": (9,)})
    split = seit.open(tmp_path)["train"]
    assert decoding.decode_on(split, torch.device("cpu")) is split


def test_damaged_streams_are_named_by_triton_too(tmp_path, by_interpreter):
    build_store(tmp_path, grid=(3, 4), num_codes=40, shards={"train": (9,)}, codec="context")
    split = seit.open(tmp_path)["train"]
    offset, size = split.shards[0].places[0].frames[seit.shards.frames.Kind.TOKENS]
    shard = tmp_path / "train" / "00000.tar"
    data = bytearray(shard.read_bytes())
    frame = data[offset : offset + size]
    frame[-6] ^= 0x55  # in the last word of the last stream; the checksum is made to fit
    frame[-4:] = google_crc32c.value(bytes(frame[:-4])).to_bytes(4, "little")
    data[offset : offset + size] = frame
    shard.write_bytes(data)
    with pytest.raises(DamagedError, match=r"block 0: .*stream of sample 8 is not whole"):
        loader(seit.open(tmp_path)["train"], batch_size=4, mode="resident")


def read_slowly(path, rank, options, log):
    """Read a rank's part of an epoch, noting the rows and the state after each step."""
    part = seit.loader(seit.open(path)["train"], rank=rank, world_size=2, **options)
    with log.open("a") as file:
        for step, batch in enumerate(part.epoch(0)):
            line = {"rows": batch.indices.tolist(), "state": part.state(step + 1)}
            file.write(json.dumps(line) + "\n")
            file.flush()
            time.sleep(0.05)


@pytest.mark.parametrize(
    "split",
    [pytest.param(FORMS[0], marks=pytest.mark.slow), FORMS[1]],
    ids="-".join,
    indirect=True,
)
def test_an_epoch_survives_a_killed_rank(split, tmp_path):
    """Two processes read; one is killed, the other stops; three go on from the last common step."""
    logs = [tmp_path / f"{rank}.jsonl" for rank in range(2)]
    is_coded = split.store.card.codec == "context"
    order, mode = ("window", "streaming") if is_coded else ("global", "resident")
    options = {"batch_size": 24, "order": order, "mode": mode, "seed": 3, "window_blocks": 5}
    processes = [
        fork(read_slowly, split.store.path, rank, options, log) for rank, log in enumerate(logs)
    ]
    try:
        deadline = time.monotonic() + 120
        while not all(log.exists() and log.read_bytes().count(b"\n") >= 2 for log in logs):
            assert time.monotonic() < deadline, "the readers do not start"
            assert all(process.exitcode in (None, 0) for process in processes)
            time.sleep(0.01)
        processes[1].kill()
        assert exit_codes(processes[1:])[0] in (-signal.SIGKILL, 0)
    finally:
        for process in processes:
            process.kill()
            process.join(20)
    delivered = [[json.loads(line) for line in log.read_text().splitlines()] for log in logs]
    common = min(len(steps) for steps in delivered)
    assert 2 <= common <= NUM_SAMPLES // 24
    state = delivered[1][common - 1]["state"]
    assert state == delivered[0][common - 1]["state"]
    rows = [row for steps in delivered for step in steps[:common] for row in step["rows"]]
    for rank in range(3):
        part = loader(split, rank=rank, world_size=3, **options)
        for batch in part.epoch(0, start=part.resume(state)):
            rows += batch.indices.tolist()
        part.close()
    undisturbed = rows_of(loader(split, **options).epoch(0)).tolist()
    assert sorted(rows) == sorted(undisturbed)
    assert len(set(rows)) == len(rows) == NUM_SAMPLES // 24 * 24


def test_nothing_is_held_or_read_ahead_between_evaluations(tmp_path, monkeypatch):
    build_store(tmp_path, shards={"val": (60,)}, block_samples=5)
    split, read = seit.open(tmp_path)["val"], []
    monkeypatch.setattr(
        StreamingLoader,
        "_read",
        lambda self, *given, of=StreamingLoader._read: (read.append(given[0]), of(self, *given))[1],
    )
    batches = loader(split, batch_size=8, shuffle=False, mode="streaming", window_blocks=3)
    for evaluation in (1, 2):
        found = np.concatenate([batch.indices for batch in batches.epoch(0)])
        assert found.tolist() == list(range(60))
        assert not any((batches._open, batches._coming, batches._spare))
        assert sorted(read) == sorted([*range(12)] * evaluation)
    batches.close()
