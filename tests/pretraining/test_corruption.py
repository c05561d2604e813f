"""Group masked model learning on code grids, against loops over samples and cells."""

import math

import numpy as np
import pytest
import torch

from seit.augment import Op, SampleRandom
from seit.config import build, setting_names
from seit.errors import UsageError
from seit.pretraining.corruption import CorruptionConfig, _turns_of_blocks, corrupt
from seit.pretraining.sit import SitConfig

K = 50


def draws(count, *, seed=3, start=0):
    return SampleRandom(seed, 1, torch.arange(start, start + count))


def grids(count, size=(28, 28), *, seed=0):
    return torch.randint(K, (count, *size), generator=torch.Generator().manual_seed(seed))


def corrupted(config, count=200, size=(28, 28), **kwargs):
    ids = grids(count, size)
    return ids, corrupt(ids, draws(count), config, num_codes=K, **kwargs)


def aliens(config, count):
    """Which samples receive another's codes."""
    return draws(count).uniform(Op.CORRUPT_CHOICE, (2,))[:, 0] < config.alien_prob


def blocks_in_a_loop(b, size, config, share, side=1):
    """What blocks cover of sample ``b``, one block after the other."""
    count = config.num_blocks(size, side=side)
    units, limits, lengths = [], [], []
    for cells in size:
        limit = max(1, math.floor(config.block_max * cells))
        small = limit < config.block_patches * side and cells >= side
        units.append(side if small else 1)
        lengths.append(math.ceil(cells / units[-1]))
        limits.append(min(config.block_patches, lengths[-1]) if small else limit)
    numbers = draws(b + 1).uniform(Op.CORRUPT_BLOCK, (count, 4))[b].numpy()
    covered = np.zeros(size, dtype=bool)
    for draw in numbers:
        if covered.sum() >= share * covered.size:
            return covered
        spans = []
        for axis in range(2):
            length = 1 + int(draw[axis] * np.float32(limits[axis]))
            first = int(draw[2 + axis] * np.float32(lengths[axis] + length - 1)) - (length - 1)
            unit = units[axis]
            spans.append(slice(max(first, 0) * unit, (first + length) * unit))
        covered[spans[0], spans[1]] = True
    cell = int(draws(b + 1).randint(Op.CORRUPT_ORDER, covered.size)[b])
    while covered.sum() < share * covered.size:
        covered.flat[cell % covered.size] = True
        cell += 1
    return covered


@pytest.mark.parametrize(
    ("size", "config"),
    [
        ((28, 28), CorruptionConfig()),
        ((7, 7), CorruptionConfig(share=0.7, block_max=0.5)),
        ((5, 40), CorruptionConfig(share=0.9, alien_prob=0.2, alien_share=0.1)),
        ((8, 8), CorruptionConfig(share=1.0, alien_prob=0)),
    ],
)
def test_blocks_equal_a_loop(size, config):
    _, (_, changed) = corrupted(config, 40, size)
    for b, alien in enumerate(aliens(config, 40).tolist()):
        share = config.alien_share if alien else config.share
        np.testing.assert_array_equal(changed[b], blocks_in_a_loop(b, size, config, share))


@pytest.mark.parametrize(("size", "side"), [((8, 8), 2), ((7, 7), 2), ((9, 28), 4), ((1, 12), 2)])
def test_blocks_of_small_grids_are_whole_patches(size, side):
    config = CorruptionConfig(share=0.4)
    _, (_, changed) = corrupted(config, 60, size, side=side)
    for b, alien in enumerate(aliens(config, 60).tolist()):
        share = config.alien_share if alien else config.share
        expected = blocks_in_a_loop(b, size, config, share, side)
        np.testing.assert_array_equal(changed[b], expected)
    if size == (8, 8):
        patches = changed.view(60, 4, 2, 4, 2).double().mean(dim=(2, 4))
        assert set(patches.unique().tolist()) == {0.0, 1.0}
        longest = [axis.most * axis.unit for axis in config.axes(size, side=side)]
        assert longest == [4, 4]  # two patches of two cells; 0.3 of the side is one


def test_blocks_of_the_papers_grids_are_counted_in_cells():
    """28×28 tokens in patches of 2: up to 8 tokens, four patches, as 67 pixels are."""
    for side in (1, 2, 4):
        for axis in CorruptionConfig().axes((28, 28), side=side):
            assert axis == (1, 28, 8)
    ids = grids(50)
    found = [corrupt(ids, draws(50), CorruptionConfig(), num_codes=K, side=s) for s in (1, 2, 4)]
    assert torch.equal(found[0].ids, found[1].ids)
    assert torch.equal(found[0].ids, found[2].ids)
    before = CorruptionConfig(block_patches=0)
    assert before.axes((8, 8), side=2) == ((1, 8, 2), (1, 8, 2))


def test_a_grid_of_one_cell_is_taken_away_whole():
    _, (ids, changed) = corrupted(CorruptionConfig(alien_prob=0), 5, (1, 1))
    assert changed.all()
    assert (ids == K).all()


@pytest.mark.parametrize("size", [(28, 28), (7, 7), (3, 90)])
@pytest.mark.parametrize("kind", ["blocks", "tokens"])
def test_every_sample_reaches_its_share(size, kind):
    config = CorruptionConfig(kind=kind, share=0.6)
    _, (_, changed) = corrupted(config, 2000, size)
    cells = size[0] * size[1]
    counts, alien = changed.flatten(1).sum(dim=1), aliens(config, 2000)
    assert 900 < alien.sum() < 1100
    for share, chosen in ((0.6, counts[~alien]), (0.3, counts[alien])):
        least = math.ceil(share * cells - 1e-9)
        rows, columns = [axis.most if kind == "blocks" else 1 for axis in config.axes(size, side=1)]
        assert chosen.min() == least
        assert chosen.max() < least + rows * columns


@pytest.mark.parametrize("size", [(28, 28), (14, 14), (7, 7)])
@pytest.mark.parametrize("share", [0.5, 0.7])
def test_rectangles_alone_nearly_always_reach_the_share(size, share):
    config = CorruptionConfig(alien_prob=0, share=share)
    turns = _turns_of_blocks(draws(2000), size, config, side=1)
    reached = (turns < config.num_blocks(size, side=1)).double().mean(dim=1) >= share
    assert reached.double().mean() > 0.999


def test_all_cells_are_equally_likely():
    config = CorruptionConfig(alien_prob=0, share=0.02)
    _, (_, changed) = corrupted(config, 6000, (9, 9))
    rates = changed.double().mean(dim=0)
    mean = rates.mean()
    deviation = math.sqrt(mean * (1 - mean) / 6000)
    assert (rates - mean).abs().max() < 4.5 * deviation


def neighbours_alike(changed):
    """Share of horizontally adjacent cells of which both are changed or neither."""
    return float((changed[:, :, 1:] == changed[:, :, :-1]).double().mean())


def test_tokens_are_independent_and_blocks_are_not():
    fixed = {"share": 0.5, "alien_prob": 0}
    _, (_, tokens) = corrupted(CorruptionConfig(kind="tokens", **fixed), 1000)
    _, (_, blocks) = corrupted(CorruptionConfig(**fixed), 1000)
    assert (tokens.flatten(1).sum(dim=1) == 392).all()
    # 391 of the other 783 cells are changed where one is.
    assert neighbours_alike(tokens) == pytest.approx(391 / 783, abs=4 * 0.5 / math.sqrt(756_000))
    assert neighbours_alike(blocks) > 0.8


@pytest.mark.parametrize("kind", ["blocks", "tokens"])
def test_changed_is_exactly_what_was_replaced(kind):
    config = CorruptionConfig(kind=kind)
    ids, (found, changed) = corrupted(config)
    alien = aliens(config, len(ids))
    other = ids.flip(0)
    for b in range(len(ids)):
        assert torch.equal(found[b][~changed[b]], ids[b][~changed[b]])
        expected = other[b] if alien[b] else torch.full_like(other[b], K)
        assert torch.equal(found[b][changed[b]], expected[changed[b]])
    assert found.dtype == torch.int64


def test_codes_come_from_the_partner_that_is_named():
    config = CorruptionConfig(alien_prob=1)
    partner = torch.arange(200).roll(3)
    ids, (found, changed) = corrupted(config, partner=partner)
    assert torch.equal(found, torch.where(changed, ids[partner], ids))


@pytest.mark.parametrize("count", [2, 3, 5, 6])
def test_every_sample_of_a_batch_gets_codes_of_another(count):
    """Even batches are mirrored; the middle of an odd one would mirror onto itself."""
    ids = torch.arange(count)[:, None, None].expand(count, 8, 8).contiguous()
    found = corrupt(ids, draws(count), CorruptionConfig(alien_prob=1.0), num_codes=count)
    others = [int(found.ids[i][found.changed[i]].unique()) for i in range(count)]
    assert sorted(others) == list(range(count))
    assert all(other != i for i, other in enumerate(others))
    assert count % 2 or others == list(range(count))[::-1]


def test_a_single_sample_is_masked_for_want_of_another():
    ids = grids(1)
    found = corrupt(ids, draws(1), CorruptionConfig(alien_prob=1.0), num_codes=K)
    assert (found.ids[found.changed] == K).all()
    assert found.changed.float().mean() >= 0.3


def test_noise_is_uniform_codes_and_never_the_mask():
    config = CorruptionConfig(fill="noise", alien_prob=0)
    _, (found, changed) = corrupted(config)
    counts = torch.bincount(found[changed], minlength=K).double()
    assert len(counts) == K
    expected = counts.sum() / K
    assert ((counts - expected).square() / expected).sum() < 85.4  # p = 0.001 at 49 degrees
    _, masked = corrupted(CorruptionConfig(alien_prob=0))
    assert torch.equal(changed, masked.changed)
    assert (masked.ids[changed] == K).all()


def test_mixed_masks_half_of_the_samples_and_noises_the_others():
    _, (found, changed) = corrupted(CorruptionConfig(fill="mixed", alien_prob=0), 1000)
    is_mask = found == K
    whole = (is_mask == changed).flatten(1).all(dim=1)
    assert (whole | ~is_mask.flatten(1).any(dim=1)).all()
    assert 440 < whole.sum() < 560


@pytest.mark.parametrize("kind", ["blocks", "tokens"])
def test_a_sample_meets_the_same_whatever_it_is_batched_with(kind):
    config = CorruptionConfig(kind=kind, fill="mixed")
    ids, whole = corrupted(config, 64)
    partner = torch.arange(64).flip(0)
    own = ~aliens(config, 64)
    for rows in (slice(0, 10), slice(10, 64), slice(63, 64)):
        part = corrupt(ids[rows], SampleRandom(3, 1, torch.arange(64)[rows]), config, num_codes=K)
        assert torch.equal(part.changed, whole.changed[rows])
        assert torch.equal(part.ids[own[rows]], whole.ids[rows][own[rows]])
    # Ranks hold mirrored parts: sample i and its partner are on one.
    rank = torch.tensor([*range(16), *range(48, 64)])
    part = corrupt(ids[rank], draws(64).select(rank), config, num_codes=K)
    assert torch.equal(part.ids, whole.ids[rank])
    assert torch.equal(partner[rank], rank.flip(0))
    shuffled = torch.randperm(64, generator=torch.Generator().manual_seed(1))
    again = corrupt(
        ids[shuffled],
        draws(64).select(shuffled),
        config,
        num_codes=K,
        partner=shuffled.argsort()[partner[shuffled]],
    )
    assert torch.equal(again.ids, whole.ids[shuffled])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("share", 0.0),
        ("share", 1.1),
        ("share", float("nan")),
        ("block_max", 0.0),
        ("block_patches", -1),
        ("alien_share", 0.0),
        ("alien_prob", -0.1),
        ("alien_prob", float("nan")),
        ("kind", "rows"),
        ("fill", "zeros"),
    ],
)
def test_wrong_values_are_refused(name, value):
    with pytest.raises(UsageError, match=rf"corruption\.{name} is .*expected"):
        CorruptionConfig(**{name: value})


def test_the_settings_are_reached_by_their_path():
    assert "corruption.block_max" in set(setting_names(SitConfig))
    config = build(SitConfig, {"corruption": {"share": 0.7, "kind": "tokens"}}, origin="test")
    assert config.corruption == CorruptionConfig(share=0.7, kind="tokens")
    with pytest.raises(UsageError, match=r"did you mean 'corruption\.share'"):
        build(SitConfig, {"corruption": {"shore": 0.7}}, origin="test")
