import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from support.references import kolmogorov_smirnov, reference_philox
from support.triton_programs import CPU, DEVICES, programs

from seit.augment import Op, SampleRandom, philox4x32, random as sample_random
from seit.augment.kernels.draws import draw_triton
from seit.errors import UsageError

WORD = st.integers(0, 2**32 - 1)

# The vectors that the Random123 library publishes for philox4x32-10: counter, key, result.
KNOWN_ANSWERS = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    (
        (0xFFFFFFFF,) * 4,
        (0xFFFFFFFF,) * 2,
        (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD),
    ),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


def run_philox(counters, key):
    words = torch.tensor(counters, dtype=torch.int64).T.contiguous()
    return torch.stack(philox4x32(tuple(words.unbind()), key)).T.tolist()


def positions(*values):
    return torch.tensor(values, dtype=torch.int64)


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN_ANSWERS)
def test_known_answers(counter, key, expected):
    assert run_philox([counter], key) == [list(expected)]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(WORD, WORD, WORD, WORD), min_size=1, max_size=20), st.tuples(WORD, WORD))
def test_words_equal_integer_arithmetic(counters, key):
    assert run_philox(counters, key) == [list(reference_philox(c, key)) for c in counters]


@pytest.mark.parametrize("count", [1, 4, 30, 33, 50])
def test_draws_are_words_of_the_documented_counter(count):
    seed, epoch, place = 77, 3, 5 * 2**32 + 9
    words = [
        word
        for block in range(-(-count // 4))
        for word in reference_philox((block, Op.SYNONYM, 9, 5), (seed, epoch))
    ][:count]
    random = SampleRandom(seed, epoch, positions(1, place))
    uniform = random.uniform(Op.SYNONYM, (count,))[1]
    assert uniform.tolist() == [(word >> 8) / 2**24 for word in words]
    integers = random.randint(Op.SYNONYM, 1000, (count,))[1]
    assert integers.tolist() == [word * 1000 >> 32 for word in words]
    normal = random.normal(Op.SYNONYM, (count,))[1]
    expected = []
    padded = (*words, *[0] * (-count % 4))
    for a, b in zip(padded[::2], padded[1::2], strict=True):
        radius = math.sqrt(-2 * math.log(((a >> 8) + 1) / 2**24))
        angle = 2 * math.pi * (b >> 8) / 2**24
        expected += [radius * math.cos(angle), radius * math.sin(angle)]
    complete = count - count % 2
    np.testing.assert_allclose(normal[:complete], expected[:complete], atol=3e-6)


@pytest.fixture(scope="module", params=DEVICES)
def device(request):
    with programs(interpret=request.param == "interpreter"):
        yield CPU if request.param == "interpreter" else torch.device("cuda")


@pytest.mark.parametrize("seed", [0, 77, (1 << 31) + 7, 2**64 - 1])
@pytest.mark.parametrize("count", [1, 4, 33, 300])
def test_the_kernel_draws_bit_for_bit_the_same(device, seed, count):
    places = positions(0, 1, 2**32 - 1, 2**32, 5 * 2**32 + 9, 2**63 - 1)
    random = SampleRandom(seed, 3, places)
    on_device = SampleRandom(seed, 3, places.to(device))
    words = torch.stack(random._words(torch.tensor([Op.SYNONYM]), places, -(-count // 4)), dim=-1)
    found = draw_triton(
        on_device.positions, on_device.key, Op.SYNONYM, count=count, dtype=torch.int64
    )
    assert torch.equal(found.cpu(), words.flatten(1)[:, :count])
    found = draw_triton(
        on_device.positions, on_device.key, Op.SYNONYM, count=count, dtype=torch.float32
    )
    assert torch.equal(found.cpu(), random.uniform(Op.SYNONYM, (count,)))


def test_draws_by_the_kernel_are_those_of_torch(device, monkeypatch):
    places, high = torch.arange(9), torch.arange(1, 13).view(4, 3)
    in_torch = SampleRandom(5, 1, places)
    monkeypatch.setattr(sample_random, "triton_serves", lambda device: True)
    by_kernel = SampleRandom(5, 1, places.to(device))
    assert by_kernel._has_kernel
    assert not in_torch._has_kernel
    for op in (Op.CROP_PLACE, Op.SYNONYM):
        found = by_kernel.randint(op, high.to(device), (4, 3))
        assert torch.equal(found.cpu(), in_torch.randint(op, high, (4, 3)))
        assert torch.equal(by_kernel.uniform(op).cpu(), in_torch.uniform(op))
        found = by_kernel.normal(op, (5, 9))
        torch.testing.assert_close(found.cpu(), in_torch.normal(op, (5, 9)), atol=3e-6, rtol=0)
    chosen = by_kernel.select((places > 4).to(device))
    assert torch.equal(
        chosen.uniform(Op.EDIT, (7,)).cpu(), in_torch.select(places > 4).uniform(Op.EDIT, (7,))
    )
    assert by_kernel.select(places[:0].to(device)).uniform(Op.EDIT, (7,)).shape == (0, 7)


def test_a_longer_draw_begins_with_the_shorter_one():
    random = SampleRandom(5, 0, positions(3, 8))
    long = random.uniform(Op.NOISE_ELEMENT, (4000,))
    for count in (1, 7, 32, 33, 1000):
        assert torch.equal(random.uniform(Op.NOISE_ELEMENT, (count,)), long[:, :count])
    assert torch.equal(random.uniform(Op.NOISE_ELEMENT, (40, 100)), long.view(2, 40, 100))
    assert torch.equal(random.uniform(Op.NOISE_ELEMENT), long[:, 0])


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 2**63 - 1), min_size=1, max_size=12), st.data())
def test_any_split_of_the_batch_draws_the_same(places, data):
    places = positions(*places)
    cut = data.draw(st.integers(0, len(places)))
    op, count = data.draw(st.sampled_from(Op)), data.draw(st.integers(0, 80))
    whole = SampleRandom(9, 4, places)
    parts = [SampleRandom(9, 4, places[:cut]), SampleRandom(9, 4, places[cut:])]
    for draw in ("uniform", "normal"):
        drawn = getattr(whole, draw)(op, (count,))
        assert torch.equal(drawn, torch.cat([getattr(p, draw)(op, (count,)) for p in parts]))
        assert torch.equal(
            drawn[cut:], getattr(whole.select(torch.arange(len(places)) >= cut), draw)(op, (count,))
        )


def test_working_in_chunks_changes_nothing(monkeypatch):
    random = SampleRandom(1, 1, torch.arange(10))
    whole = random.normal(Op.NOISE_ELEMENT, (100,))
    monkeypatch.setattr(sample_random, "_CPU_CHUNK_BLOCKS", 60)
    assert torch.equal(random.normal(Op.NOISE_ELEMENT, (100,)), whole)


def test_uniform_distribution():
    u = SampleRandom(2023, 1, torch.arange(500)).uniform(Op.NOISE_ELEMENT, (400,))
    assert u.dtype == torch.float32
    assert 0 <= u.min() < 1e-4
    assert 1 - 1e-4 < u.max() < 1
    assert kolmogorov_smirnov(u, lambda x: x) < 1.95
    for first_draw in (u[:, 0], u[0]):
        assert kolmogorov_smirnov(first_draw, lambda x: x) < 1.95


def test_normal_distribution():
    z = SampleRandom(2023, 1, torch.arange(500)).normal(Op.NOISE_ELEMENT, (400,))
    erf = np.vectorize(math.erf)
    assert kolmogorov_smirnov(z, lambda x: (1 + erf(x / math.sqrt(2))) / 2) < 1.95
    z = z.double()
    assert abs(z.mean()) < 4 / math.sqrt(z.numel())
    assert abs(z.var() - 1) < 4 * math.sqrt(2 / z.numel())
    assert abs((z**4).mean() - 3) < 4 * math.sqrt(96 / z.numel())
    # The four draws of a block, which share radii and counters, are uncorrelated.
    blocks = z.view(-1, 4).T
    assert (torch.corrcoef(blocks) - torch.eye(4)).abs().max() < 4 / math.sqrt(blocks.shape[1])
    squares = torch.corrcoef(blocks.square())
    assert (squares - torch.eye(4)).abs().max() < 4 / math.sqrt(blocks.shape[1])


def test_randint_is_uniform():
    drawn = SampleRandom(4, 0, torch.arange(1000)).randint(Op.SWAP_PLACE, 7, (70,))
    counts = torch.bincount(drawn.flatten(), minlength=7).double()
    assert counts.numel() == 7
    chi_squared = ((counts - 10_000).square() / 10_000).sum()
    assert chi_squared < 22.5  # p = 0.001 at 6 degrees of freedom
    high = torch.tensor([[1, 2, 3]])
    bounded = SampleRandom(4, 0, torch.arange(1000)).randint(Op.SWAP_PLACE, high, (3,))
    assert bounded.amax(0).tolist() == [0, 1, 2]
    assert bounded.amin(0).tolist() == [0, 0, 0]


def test_neighbouring_streams_are_uncorrelated():
    """Adjacent seeds, epochs, operations and positions, and those 2³² apart."""
    place = positions(10)
    streams = [
        SampleRandom(seed, epoch, place + shift).uniform(op, (4096,))[0]
        for seed, epoch, shift, op in [
            (1, 1, 0, Op.SYNONYM),
            (2, 1, 0, Op.SYNONYM),
            (1 + 2**32, 1, 0, Op.SYNONYM),
            (1, 2, 0, Op.SYNONYM),
            (2, 2, 0, Op.SYNONYM),
            (1, 1, 1, Op.SYNONYM),
            (1, 1, 2**32, Op.SYNONYM),
            (1, 1, 0, Op.SWAP_SIDE),
        ]
    ]
    correlation = torch.corrcoef(torch.stack(streams).double())
    assert (correlation - torch.eye(len(streams))).abs().max() < 4 / math.sqrt(4096)


def test_operations_have_numbers_of_their_own():
    numbers = [op.value for op in Op]
    assert sorted(numbers) == list(range(len(numbers)))
    assert len(Op.__members__) == len(numbers)


@pytest.mark.parametrize(
    ("seed", "epoch", "places", "word"),
    [
        (-1, 0, positions(0), "seed"),
        (2**64, 0, positions(0), "seed"),
        (0, -1, positions(0), "epoch"),
        (0, 2**32, positions(0), "epoch"),
        (0, 0, torch.zeros(2), "positions"),
        (0, 0, torch.zeros((2, 2), dtype=torch.int64), "positions"),
    ],
)
def test_wrong_keys_are_refused(seed, epoch, places, word):
    with pytest.raises(UsageError, match=f"{word}.*expected"):
        SampleRandom(seed, epoch, places)


def test_an_empty_batch_draws_nothing():
    random = SampleRandom(0, 0, positions())
    assert random.normal(Op.NOISE_ELEMENT, (32, 28, 28)).shape == (0, 32, 28, 28)
    assert random.uniform(Op.FLIP).shape == (0,)


@pytest.mark.parametrize("count", [0, 1, 30, 33, 300])
def test_compiled_draws_are_those_of_torch(count):
    places = positions(0, 1, 2**32 - 1, 2**32, 5 * 2**32 + 9, 2**63 - 1)
    compiled, in_torch = (SampleRandom(2**64 - 1, 3, places) for _ in range(2))
    in_torch._compiled = False
    for op in (Op.EDIT, Op.NOISE_ELEMENT):
        for draw in (SampleRandom.uniform, SampleRandom.normal):
            assert torch.equal(draw(compiled, op, (count,)), draw(in_torch, op, (count,)))
        found = compiled.randint(op, 1000, (count,))
        assert torch.equal(found, in_torch.randint(op, 1000, (count,)))
