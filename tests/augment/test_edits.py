"""Edits of token grids: synonyms, code swap, flip; each against a loop over samples."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from seit.augment import (
    Op,
    SampleRandom,
    nearest_codes,
    random_flip,
    replace_synonyms,
    swap_squares,
    synonyms,
)
from seit.errors import UsageError

GRIDS = [(32, 32), (8, 8), (16, 24)]


def draws(count, *, seed=3):
    return SampleRandom(seed, 0, torch.arange(count))


def some_tokens(B, H, W, K=50):
    return torch.randint(0, K, (B, H, W), generator=torch.Generator().manual_seed(1))


def test_nearest_codes_equal_a_full_sort_in_numpy(monkeypatch):
    codebook = torch.randn((101, 7), generator=torch.Generator().manual_seed(0))
    codes = codebook.double().numpy()
    distances = np.linalg.norm(codes[:, None] - codes[None], axis=2)
    np.fill_diagonal(distances, np.inf)
    expected = np.argsort(distances, axis=1)[:, :5]
    table = nearest_codes(codebook)
    assert table.dtype == torch.int64
    np.testing.assert_array_equal(table, expected)
    monkeypatch.setattr(synonyms, "_CHUNK_DISTANCES", 700)
    assert torch.equal(nearest_codes(codebook), table)


def test_a_brighter_shade_is_no_synonym_and_on_the_unit_sphere_the_cosine_is_the_measure():
    codebook = torch.tensor([[1.0, 0.0], [100.0, 1.0], [0.0, 1.0], [0.0, 0.0]])
    assert nearest_codes(codebook, top=3)[0].tolist() == [3, 2, 1]
    directions = torch.randn((60, 7), generator=torch.Generator().manual_seed(0))
    codes = directions.double() / directions.double().norm(dim=1, keepdim=True)
    cosine = (codes @ codes.T).fill_diagonal_(-2)
    assert torch.equal(nearest_codes(codes), cosine.topk(5, dim=1).indices)


@pytest.mark.parametrize(("shape", "top"), [((4, 2), 4), ((4, 2), 0), ((2, 4, 2), 1)])
def test_impossible_synonyms_are_refused(shape, top):
    with pytest.raises(UsageError, match="expected"):
        nearest_codes(torch.zeros(shape), top=top)


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("rate", [0.25, 1.0])
def test_synonyms_equal_a_loop(grid, rate):
    B, K, S = 6, 50, 5
    tokens = some_tokens(B, *grid)
    table = (torch.arange(K)[:, None] + torch.arange(1, S + 1)) % K
    selected = torch.tensor([True, False] * 3)
    u = draws(B).uniform(Op.SYNONYM, grid).double().numpy()
    expected = tokens.clone()
    for b, i, j in np.ndindex(*tokens.shape):
        if selected[b] and u[b, i, j] < rate:
            expected[b, i, j] = table[tokens[b, i, j], int(u[b, i, j] / rate * S)]
    replaced = replace_synonyms(tokens, table, draws(B), rate=rate, selected=selected)
    assert torch.equal(replaced, expected)


def test_synonyms_are_replaced_at_their_rate_and_chosen_alike():
    tokens = torch.zeros((64, 32, 32), dtype=torch.int64)
    table = torch.arange(1, 6).expand(9, 5).contiguous()
    counts = torch.bincount(
        replace_synonyms(tokens, table, draws(64), rate=0.25).flatten(), minlength=6
    )
    n = tokens.numel()
    expected = torch.tensor([0.75] + [0.05] * 5)
    spread = (n * expected * (1 - expected)).sqrt()
    assert ((counts - n * expected).abs() < 4 * spread).all()


def test_rate_zero_and_one():
    tokens = some_tokens(8, 32, 32)
    table = nearest_codes(torch.randn((50, 4), generator=torch.Generator().manual_seed(0)))
    assert torch.equal(replace_synonyms(tokens, table, draws(8), rate=0), tokens)
    assert not (replace_synonyms(tokens, table, draws(8), rate=1) == tokens).any()
    none = torch.zeros(8, dtype=torch.bool)
    assert torch.equal(replace_synonyms(tokens, table, draws(8), rate=1, selected=none), tokens)


def reference_swap(grid, random, max_side):
    """One grid in numpy: cut out both squares, paste each at the other's place."""
    H, W = grid.shape
    side = int(random.uniform(Op.SWAP_SIDE).item() * max_side * min(H, W))
    high = torch.tensor([H - side + 1, W - side + 1])
    corners = random.randint(Op.SWAP_PLACE, high, (9, 2))[0].tolist()
    first = corners[0]
    second = next((c for c in corners[1:] if math.dist(c, first) > side), None)
    result = grid.copy()
    if second is not None:
        (y0, x0), (y1, x1) = first, second
        result[y0 : y0 + side, x0 : x0 + side] = grid[y1 : y1 + side, x1 : x1 + side]
        result[y1 : y1 + side, x1 : x1 + side] = grid[y0 : y0 + side, x0 : x0 + side]
    return side, second, result


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("max_side", [0.25, 0.5])
def test_swap_equals_a_loop(grid, max_side):
    B = 200
    tokens = torch.arange(B * grid[0] * grid[1]).view(B, *grid)
    swapped = swap_squares(tokens, draws(B), max_side=max_side)
    alone = [SampleRandom(3, 0, torch.tensor([b])) for b in range(B)]
    references = [reference_swap(tokens[b].numpy(), alone[b], max_side) for b in range(B)]
    for b, (_, _, expected) in enumerate(references):
        np.testing.assert_array_equal(swapped[b], expected)
    sides = {side for side, _, _ in references}
    assert sides == set(range(math.ceil(max_side * min(grid))))
    if max_side == 0.5 and grid == (32, 32):
        assert any(second is None for _, second, _ in references)


def test_swap_moves_only_the_selected_and_keeps_their_dtype():
    tokens = some_tokens(40, 16, 16, K=30_000).to(torch.int16)
    selected = torch.arange(40) % 2 == 0
    swapped = swap_squares(tokens, draws(40), max_side=0.25, selected=selected)
    assert swapped.dtype == torch.int16
    assert torch.equal(swapped[~selected], tokens[~selected])
    moved = (swapped != tokens).flatten(1).any(1)[selected].double().mean()
    assert moved > 0.5  # a side of 0, one time in four, moves nothing
    assert torch.equal(swap_squares(tokens, draws(40), max_side=0), tokens)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 20), st.integers(1, 20), st.floats(0, 0.5), st.integers(0, 2**40))
def test_swap_never_invents_a_token(H, W, max_side, seed):
    tokens = torch.arange(3 * H * W).view(3, H, W)
    swapped = swap_squares(tokens, draws(3, seed=seed), max_side=max_side)
    offset = (H * W * torch.arange(3))[:, None, None]
    assert ((swapped >= offset) & (swapped < offset + H * W)).all()


def test_flip_probabilities():
    x = some_tokens(2000, 2, 3)
    assert random_flip(x, draws(2000), prob=0) is x
    assert torch.equal(random_flip(x, draws(2000), prob=1), x.flip(-1))
    flipped = random_flip(torch.tensor([[0, 1]]).repeat(2000, 1), draws(2000), prob=0.3)[:, 0]
    assert abs(flipped.double().mean() - 0.3) < 4 * math.sqrt(0.3 * 0.7 / 2000)
    pixels = x.to(torch.uint8)[:, None]
    mirrored = random_flip(pixels, draws(2000), prob=0.5)
    chosen = draws(2000).uniform(Op.FLIP) < 0.5
    for b in range(50):
        expected = pixels[b].numpy()[..., ::-1] if chosen[b] else pixels[b].numpy()
        np.testing.assert_array_equal(mirrored[b], expected)
