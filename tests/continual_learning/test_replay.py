"""A memory within a budget of bytes, what it is stored as, and the ledger of all bytes."""

import io
import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from PIL import Image
from safetensors.torch import load, save
from support.stores import build_store
from torch import nn

import seit
from seit.continual_learning.ledger import Ledger, count_trainable, tensor_bytes
from seit.continual_learning.memory.media import Medium, make_medium
from seit.continual_learning.memory.policies import priorities
from seit.continual_learning.memory.replay import Memory
from seit.continual_learning.memory.selection import POLICIES
from seit.errors import DamagedError, UsageError

STREAMING = [policy for policy in POLICIES if policy != "herding"]


class Odd(Medium):
    """Payloads whose sizes differ from row to row; an id tells which row it is of."""

    name = "odd"
    needs_tokenizer = False

    def __init__(self, fixed=None):
        layout = SimpleNamespace(num_codes=1 << 15)
        super().__init__(SimpleNamespace(grid=(1, 2), layout=layout))
        self.fixed_bytes = fixed
        self.encoded = 0

    def encode(self, rows):
        self.encoded += len(rows)
        sizes = [self.fixed_bytes or 2 + int(row) * 7 % 23 for row in rows]
        return [
            int(row).to_bytes(2, "little") + bytes(size - 2)
            for row, size in zip(rows, sizes, strict=True)
        ]

    def decode(self, payloads):
        rows = [int.from_bytes(payload[:2], "little") for payload in payloads]
        return np.array([[[row, len(p)]] for row, p in zip(rows, payloads, strict=True)]).reshape(
            -1, 1, 2
        )


def make_memory(medium=None, **settings):
    settings = {
        "budget_bytes": 120,
        "num_classes": 6,
        "policy": "reservoir",
        "seed": 0,
        **settings,
    }
    return Memory(medium or Odd(), **settings)


def check(memory):
    """What holds of any memory at any time."""
    sizes = [len(payload) for payload in memory._exemplars.payloads]
    assert memory.payload_bytes == sum(sizes)
    assert memory.num_bytes == sum(sizes) + len(sizes) * (2 + memory._extra_size)
    assert memory.num_bytes <= memory.budget_bytes
    assert memory.tokens.shape == (len(memory), 1, 2)
    assert memory.tokens[:, 0, 0].tolist() == memory.rows.tolist()
    assert memory.tokens[:, 0, 1].tolist() == sizes
    assert len(set(memory.rows.tolist())) == len(memory)
    if memory.extras is not None:
        assert memory.extras[:, 0].tolist() == memory.rows.tolist()


# --------------------------------------------------------------------------------------- the budget


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_no_call_leaves_the_budget_exceeded(data):
    policy = data.draw(st.sampled_from(POLICIES))
    extra = data.draw(st.sampled_from([0, 8]))
    memory = make_memory(
        policy=policy, budget_bytes=data.draw(st.integers(12, 300)), extra_bytes=extra, seed=3
    )
    for _ in range(data.draw(st.integers(1, 6))):
        rows = np.array(data.draw(st.lists(st.integers(0, 200), max_size=20)), dtype=np.int64)
        if policy == "herding":
            rows = np.unique(rows // 6) * 6 + (label := data.draw(st.integers(0, 5)))
        extras = rows[:, None].repeat(2, 1).astype(np.float32) if extra else None
        extras = None if extras is None else torch.from_numpy(extras)
        if policy == "herding":
            memory.replace_class(label, rows, extras)
        else:
            memory.add(rows, rows % 6, extras)
        check(memory)
        assert (memory.labels == memory.rows % 6).all()
        assert memory.labels.dtype == memory.rows.dtype == np.int64
        share = memory.budget_bytes // max(1, memory.describe()["classes_met"])
        costs = memory._exemplars.costs
        if policy in ("balanced", "ring", "herding"):
            assert all(costs[memory.labels == label].sum() <= share for label in range(6))


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_reservoir_does_not_depend_on_order_or_portions(data):
    rows = data.draw(st.lists(st.integers(0, 200), min_size=1, max_size=60, unique=True))
    policy = data.draw(st.sampled_from(["reservoir", "balanced"]))
    medium = Odd(fixed=data.draw(st.sampled_from([None, 9])))
    kept = []
    for _ in range(2):
        memory = make_memory(medium, policy=policy, seed=5)
        order = np.array(data.draw(st.permutations(rows)))
        for part in np.array_split(order, data.draw(st.integers(1, 5))):
            memory.add(part, part % 6)
        kept.append(sorted(memory.rows.tolist()))
    assert kept[0] == kept[1]


def test_a_reservoir_is_a_uniform_sample():
    counts = np.zeros(60)
    rounds = 200
    for seed in range(rounds):
        memory = make_memory(Odd(10), budget_bytes=12 * 12, seed=seed)
        memory.add(np.arange(30), np.arange(30) % 6)
        memory.add(np.arange(30, 60), np.arange(30) % 6)
        assert len(memory) == 12
        counts[memory.rows] += 1
    expected, deviation = rounds / 5, (rounds * 0.2 * 0.8) ** 0.5
    assert (np.abs(counts - expected) < 4.5 * deviation).all()
    # Variance of a count is below the binomial's, as a round always keeps twelve: χ² of 59.
    assert 30 < ((counts - expected) ** 2).sum() / deviation**2 < 105


def test_priorities_are_uniform_and_the_same_for_ever():
    ranks = priorities(np.arange(4000), seed=7)
    assert ranks.min() >= 0
    assert len(np.unique(ranks)) == 4000
    histogram = np.histogram(ranks / 2.0**63, bins=16, range=(0, 1))[0]
    assert 4 < ((histogram - 250) ** 2 / 250).sum() < 38
    neighbours = np.corrcoef(ranks[:-1] / 2.0**63, ranks[1:] / 2.0**63)[0, 1]
    assert abs(neighbours) < 0.06
    assert ranks[:2].tolist() == [808091667451121415, 4250164874834784708]
    assert not np.array_equal(ranks, priorities(np.arange(4000), seed=7 + (1 << 32)))


def test_what_cannot_stay_is_not_encoded():
    medium = Odd(10)
    memory = make_memory(medium, budget_bytes=12 * 20)
    memory.add(np.arange(5000), np.zeros(5000, int))
    # The k-th of a stream stays for a while with a chance of 20 / k.
    assert 256 <= medium.encoded < 256 + 1500
    before = medium.encoded
    memory.add(np.arange(5000), np.zeros(5000, int))
    assert medium.encoded == before, "a second pass brings nothing new"


# --------------------------------------------------------------------------------------- policies


def test_balanced_shares_bytes_equally():
    memory = make_memory(Odd(10), policy="balanced", budget_bytes=12 * 12)
    memory.add(np.arange(0, 60, 6), np.zeros(10, int))
    assert len(memory) == 10, "a class alone has everything"
    memory.add(np.arange(1, 61, 6), np.ones(10, int))
    assert np.bincount(memory.labels).tolist() == [6, 6]
    best = np.argsort(priorities(np.arange(0, 60, 6), seed=0))[:6] * 6
    assert sorted(memory.rows[memory.labels == 0].tolist()) == sorted(best.tolist())
    memory.add(np.array([2]), np.array([2]))
    assert np.bincount(memory.labels).tolist() == [4, 4, 1]


def test_ring_keeps_the_latest():
    memory = make_memory(Odd(10), policy="ring", budget_bytes=12 * 6)
    memory.add(np.arange(20), np.zeros(20, int))
    assert sorted(memory.rows.tolist()) == [14, 15, 16, 17, 18, 19]
    memory.add(np.array([30, 31]), np.array([1, 1]))
    assert sorted(memory.rows.tolist()) == [17, 18, 19, 30, 31]
    memory.add(np.array([3]), np.array([0]))
    assert sorted(memory.rows.tolist()) == [3, 18, 19, 30, 31]


def gdumb(labels, *, size):
    """Counts of the classes after GDumb's algorithm 1, which counts exemplars; ties apart."""
    counts = {}
    for label in labels:
        classes = len(counts) + (label not in counts)
        if label not in counts or counts[label] < size / classes:
            if sum(counts.values()) >= size:
                counts[max(counts, key=lambda one: (counts[one], -one))] -= 1
            counts[label] = counts.get(label, 0) + 1
    return counts


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=60), st.integers(1, 25))
def test_greedy_is_gdumb(labels, size):
    memory = make_memory(Odd(10), policy="greedy", budget_bytes=12 * size)
    for row, label in enumerate(labels):
        memory.add(np.array([row]), np.array([label]))
    at_once = make_memory(Odd(10), policy="greedy", budget_bytes=12 * size)
    at_once.add(np.arange(len(labels)), np.array(labels))
    assert sorted(memory.rows.tolist()) == sorted(at_once.rows.tolist())
    counts = {label: n for label, n in enumerate(np.bincount(memory.labels).tolist()) if n}
    assert counts == {label: n for label, n in gdumb(labels, size=size).items() if n}


def test_herding_keeps_the_order_of_preference():
    memory = make_memory(Odd(10), policy="herding", budget_bytes=12 * 8)
    memory.replace_class(2, np.array([9, 5, 7, 1, 3, 11, 13, 15, 17, 19]))
    assert sorted(memory.rows.tolist()) == [1, 3, 5, 7, 9, 11, 13, 15]
    memory.replace_class(0, np.array([30, 20, 40, 50, 60]))
    assert sorted(memory.rows.tolist()) == [1, 5, 7, 9, 20, 30, 40, 50]
    memory.replace_class(1, np.array([22]))
    assert sorted(memory.rows.tolist()) == [5, 9, 20, 22, 30]
    memory.replace_class(0, np.array([60, 30]))
    assert sorted(memory.rows.tolist()) == [5, 9, 22, 30, 60]
    assert memory.labels[memory.rows == 60] == 0


def test_an_exemplar_that_is_too_large_does_not_shut_out_the_others():
    memory = make_memory(budget_bytes=24)
    rows = np.arange(50)
    memory.add(rows, rows % 6)
    check(memory)
    assert len(memory) >= 1


@pytest.mark.parametrize("policy", ["balanced", "ring", "herding"])
def test_no_class_is_lost_to_a_large_exemplar(policy):
    """The share of class 0 falls from 60 to 10 bytes, when only its rows of 3 and 10 bytes fit."""
    rows = np.arange(0, 120, 6)
    sizes = 2 + rows * 7 % 23 + 2
    assert (sizes <= 10).sum() == 6
    for order in (rows[np.argsort(-sizes)], rows[np.argsort(sizes)]):
        memory = make_memory(policy=policy, budget_bytes=60)
        if policy == "herding":
            memory.replace_class(0, order)
        else:
            memory.add(order, np.zeros(len(order), int))
        for label in range(1, 6):
            own = np.arange(label, 200, 6)
            if policy == "herding":
                memory.replace_class(label, own)
            else:
                memory.add(own, np.full(len(own), label))
        check(memory)
        assert set(memory.labels.tolist()) == set(range(6))
        assert memory.lacking.tolist() == []


def test_greedy_keeps_the_last_exemplar_of_a_class():
    memory = make_memory(policy="greedy", num_classes=3, budget_bytes=90)
    memory.add(np.array([3]), np.array([0]))  # of 25 bytes
    memory.add(np.array([17, 40, 63, 86, 109, 132]), np.array([1, 1, 1, 2, 2, 2]))  # of 8 each
    memory.add(np.array([26]), np.array([2]))  # of 25
    check(memory)
    assert np.bincount(memory.labels).tolist() == [1, 2, 4]


def test_a_memory_names_the_classes_that_it_lacks():
    memory = make_memory(policy="balanced", num_classes=6, budget_bytes=60)
    large = np.array([3, 26, 49])  # of 25 bytes, and a share is 10
    memory.add(large, np.array([4, 4, 2]))
    assert memory.lacking.tolist() == [2, 4]
    memory.add(np.array([0]), np.array([4]))
    assert memory.lacking.tolist() == [2]


# --------------------------------------------------------------------------------- draws and resume


def test_draws():
    memory = make_memory(Odd(10), budget_bytes=12 * 10)
    assert memory.draw(4, seed=0, step=0).tolist() == []
    memory.add(np.arange(50), np.arange(50) % 6)
    for n in (0, 3, 10):
        drawn = memory.draw(n, seed=1, step=n)
        assert len(set(drawn.tolist())) == len(drawn) == n
        assert drawn.dtype == np.int64
    more = memory.draw(25, seed=1, step=0)
    assert set(np.bincount(more).tolist()) == {2, 3}
    counts = sum(np.bincount(memory.draw(4, seed=1, step=s), minlength=10) for s in range(500))
    assert (np.abs(counts - 200) < 50).all(), "4.5 deviations"
    assert memory.draw(5, seed=1, step=7).tolist() == memory.draw(5, seed=1, step=7).tolist()
    assert memory.draw(5, seed=1, step=7).tolist() != memory.draw(5, seed=2, step=7).tolist()


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("stop", [0, 2, 4])
def test_a_memory_that_goes_on_is_the_one_that_never_stopped(policy, stop):
    def feed(memory, step):
        rows = np.arange(12) * 7 % 40 + 40 * step
        extras = torch.from_numpy(rows[:, None]).double()
        if memory.policy == "herding":
            memory.replace_class(step, rows, extras)
        else:
            memory.add(rows, rows % 6, extras)

    whole = make_memory(policy=policy, extra_bytes=8)
    parted = make_memory(policy=policy, extra_bytes=8)
    for step in range(6):
        if step == stop:
            state = load(save(parted.state()))
            parted = make_memory(policy=policy, extra_bytes=8)
            parted.restore(state)
        feed(whole, step)
        feed(parted, step)
        check(parted)
        assert parted.rows.tolist() == whole.rows.tolist(), "in the same places"
        drawn = whole.draw(3, seed=4, step=step)
        assert parted.draw(3, seed=4, step=step).tolist() == drawn.tolist()
        assert torch.equal(parted.extras[drawn], whole.extras[drawn])
    assert parted.describe() == whole.describe()
    assert save(parted.state()) == save(whole.state())


def test_states_of_other_memories_and_damaged_ones():
    memory = make_memory(extra_bytes=4)
    memory.add(np.arange(9), np.arange(9) % 6, torch.zeros(9, 1))
    state = memory.state()
    for changed in ({"seed": 1}, {"policy": "ring"}, {"budget_bytes": 121}, {"num_classes": 7}):
        with pytest.raises(UsageError, match="resume with the earlier settings"):
            make_memory(**{"extra_bytes": 4, **changed}).restore(state)
    damaged = {
        "payloads": state["payloads"][1:],
        "offsets": state["offsets"].flip(0),
        "columns": state["columns"][:, 1:],
        "ids": state["ids"].long(),
        "extras": state["extras"][1:],
        "seen": state["seen"][1:],
        "limits": state["limits"][1:],
        "settings": state["settings"].float() + 0.5,
        "arrivals": torch.zeros(2),
    }
    for name, tensor in damaged.items():
        with pytest.raises(DamagedError):
            make_memory(extra_bytes=4).restore({**state, name: tensor})
        if name != "extras":
            with pytest.raises(DamagedError):
                make_memory(extra_bytes=4).restore({k: v for k, v in state.items() if k != name})
    rich = state["columns"].clone()
    rich[3] += 100
    with pytest.raises(DamagedError, match="bytes of 120"):
        make_memory(extra_bytes=4).restore({**state, "columns": rich})


@pytest.mark.parametrize(
    ("build", "words"),
    [
        ({"policy": "random"}, "no policy 'random'"),
        ({"budget_bytes": 2}, "budget is 2 bytes"),
        ({"medium": Odd(10), "budget_bytes": 71, "policy": "balanced"}, "needs 72"),
    ],
)
def test_memories_that_cannot_be(build, words):
    with pytest.raises(UsageError, match=words):
        make_memory(**build)


def test_what_a_memory_refuses():
    memory = make_memory(extra_bytes=4)
    with pytest.raises(UsageError, match="extras take 0 bytes per sample; the memory expects 4"):
        memory.add(np.arange(2), np.arange(2))
    with pytest.raises(UsageError, match="extras take 8 bytes"):
        memory.add(np.arange(2), np.arange(2), torch.zeros(2, 2))
    with pytest.raises(UsageError, match="labels go from -1 to 0"):
        make_memory().add(np.arange(2), np.array([-1, 0]))
    with pytest.raises(UsageError, match="use add"):
        memory.replace_class(0, np.arange(2))
    with pytest.raises(UsageError, match="use replace_class"):
        make_memory(policy="herding").add(np.arange(2), np.arange(2))


# ------------------------------------------------------------------------------------------ media


@pytest.fixture(scope="module")
def store(pattern_store):
    return pattern_store


@pytest.fixture(scope="module")
def media(store):
    source = store.path.parent / "pictures"
    names = ("tokens", "raw", "png", "jpeg:75", "jpeg:95")
    return {name: make_medium(name, store["train"], source=source) for name in names}


ROWS = np.array([30, 2, 17, 2])


@pytest.mark.parametrize("name", ["tokens", "raw", "png"])
def test_media_without_loss_give_the_tokens_of_the_store(store, media, name):
    medium = media[name]
    payloads = medium.encode(ROWS)
    ids = medium.decode(payloads)
    assert ids.dtype == np.int16
    assert np.array_equal(ids, store["train"].tokens[ROWS])
    assert medium.decode(payloads[:0]).shape == (0, 8, 8)
    sizes = {len(payload) for payload in payloads}
    if name == "tokens":
        assert sizes == {medium.fixed_bytes} == {8 * 8 * 5 // 8}
    elif name == "raw":
        assert sizes == {medium.fixed_bytes} == {64 * 64 * 3}
    assert json.loads(json.dumps(medium.describe()))["needs_tokenizer"] == (name != "tokens")


def test_jpeg_gives_the_tokens_of_what_is_left_of_the_picture(store, media):
    tokenizer = store.load_tokenizer()
    originals = [media["raw"].decompress(payload) for payload in media["raw"].encode(ROWS)]
    errors, sizes = [], []
    for name in ("jpeg:75", "jpeg:95"):
        payloads = media[name].encode(ROWS)
        pictures = []
        for payload in payloads:
            image = Image.open(io.BytesIO(payload))
            assert image.format == "JPEG"
            assert image.size == (64, 64)
            pictures.append(np.asarray(image.convert("RGB")))
        ids = tokenizer.encode(torch.from_numpy(np.stack(pictures))).numpy()
        assert np.array_equal(media[name].decode(payloads), ids)
        errors.append(np.abs(np.stack(pictures).astype(float) - np.stack(originals)).mean())
        sizes.append(sum(map(len, payloads)))
        assert (ids == store["train"].tokens[ROWS]).mean() > 0.5
    assert errors[0] > errors[1] > 0
    raw, png = (sum(map(len, media[name].encode(ROWS))) for name in ("raw", "png"))
    assert raw > png > sizes[1] > sizes[0] > sum(map(len, media["tokens"].encode(ROWS)))


def test_the_same_bytes_hold_more_tokens_than_pictures(store, media):
    held = {}
    for name, medium in media.items():
        memory = Memory(medium, budget_bytes=13_000, num_classes=3, policy="reservoir", seed=0)
        memory.add(np.arange(36), store["train"].labels)
        assert memory.tokens.shape == (len(memory), 8, 8)
        assert memory.num_bytes <= 13_000
        held[name] = len(memory)
    assert held["tokens"] == 36
    assert held["tokens"] > held["jpeg:75"] >= held["jpeg:95"] >= held["png"] >= held["raw"] == 1


def test_a_grid_of_8x8_and_512_codes_is_72_bytes(tmp_path):
    columns = build_store(tmp_path, grid=(8, 8), num_codes=512, shards={"train": (40,)})
    split = seit.open(tmp_path)["train"]
    memory = Memory(
        make_medium("tokens", split), budget_bytes=740, num_classes=3, policy="greedy", seed=0
    )
    memory.add(np.arange(40), np.arange(40) % 3)
    assert len(memory) == 10
    assert memory.payload_bytes == 720
    assert memory.label_bytes == 20
    assert np.array_equal(memory.tokens, columns["train"].tokens[memory.rows])
    assert memory.describe()["medium"]["bytes_per_payload"] == 72


def test_labels_of_very_many_classes_take_four_bytes():
    memory = make_memory(Odd(10), num_classes=65_537)
    memory.add(np.arange(3), np.array([0, 5, 65_536]))
    assert (memory.payload_bytes, memory.label_bytes) == (30, 12)


def test_splits_that_are_too_large_to_be_kept_are_read_by_blocks(store, media, monkeypatch):
    monkeypatch.setattr("seit.continual_learning.memory.media.RESIDENT_BYTES", 0)
    medium = make_medium("tokens", store["train"])
    assert medium.encode(ROWS) == media["tokens"].encode(ROWS)


def test_ids_beyond_int16_are_int32(tmp_path):
    columns = build_store(tmp_path, num_codes=40_000, shards={"train": (4,)})
    medium = make_medium("tokens", seit.open(tmp_path)["train"])
    ids = medium.decode(medium.encode(np.arange(4)))
    assert ids.dtype == np.int32
    assert np.array_equal(ids, columns["train"].tokens)


@pytest.mark.parametrize(
    "name", ["", "gif", "jpeg", "jpeg:", "jpeg:x", "jpeg:0", "jpeg:101", "raw:1"]
)
def test_media_that_there_are_not(store, name):
    with pytest.raises(UsageError, match="expected"):
        make_medium(name, store["train"], source=store.path.parent / "pictures")


def test_pictures_need_their_source(store):
    with pytest.raises(UsageError, match="pass the store's source"):
        make_medium("png", store["train"])


# ----------------------------------------------------------------------------------------- ledger


def test_ledger_sums():
    ledger = Ledger(
        exemplar_payload_bytes=720,
        exemplar_label_bytes=20,
        exemplar_extra_bytes=400,
        codebook_bytes=2048,
        tokenizer_bytes=100_000,
        online_pet_bytes=300,
        offline_pet_bytes=300,
        head_bytes=50,
        state_bytes=7,
        optimizer_bytes=900,
        backbone_bytes=10**6,
        trainable_parameters=75,
    )
    assert ledger.total_memory_bytes == 720 + 20 + 400 + 2048 + 300 + 300 + 50 + 7
    pixels = replace(ledger, replays_pictures=True)
    assert pixels.total_memory_bytes == ledger.total_memory_bytes + 100_000
    told = json.loads(json.dumps(ledger.describe()))
    assert told["total_memory_bytes"] == ledger.total_memory_bytes
    assert told["exemplar_bytes"] == 1140


def test_bytes_of_tensors_are_counted_once():
    model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 4, bias=False))
    model[0].bias.requires_grad_(False)
    assert tensor_bytes(model.state_dict()) == 4 * (12 + 3 + 12)
    assert count_trainable(model) == 24
    tied = {"a": model[0].weight, "b": [model[0].weight.detach(), torch.zeros(5).bfloat16()]}
    assert tensor_bytes(tied) == 48 + 10
    optimizer = torch.optim.AdamW(model[1].parameters())
    model(torch.ones(1, 4)).sum().backward()
    optimizer.step()
    assert tensor_bytes(optimizer.state_dict()) == 2 * 48 + 4, "two moments and a step"
    assert tensor_bytes({"x": np.zeros((2, 3)), "name": "abc", "n": 3, "none": None}) == 48
    assert tensor_bytes([torch.zeros(3, device="meta"), torch.zeros(3, device="meta")]) == 24
