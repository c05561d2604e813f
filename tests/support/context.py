"""Tables, ids and streams that the tests of the context codec share."""

from functools import lru_cache

import numpy as np

from seit.shards.context import ContextTables
from seit.shards.context.tables import make_squash
from seit.shards.context.tree import TreeShape


@lru_cache(32)
def random_tables(num_codes, seed=0, *, spread=20):
    """Tables of no sense: any must decode what they coded."""
    rng = np.random.default_rng(seed)
    shape = TreeShape(num_codes)
    return ContextTables(
        num_codes=num_codes,
        paths=rng.permutation(shape.num_leaves)[:num_codes].astype(np.uint16),
        squash=make_squash(),
        bias=rng.integers(-spread, spread + 1, shape.row_size).astype(np.int16),
        weights=rng.integers(-spread, spread, (2, num_codes + 1, shape.row_size)).astype(np.int8),
        corner=rng.integers(-spread, spread, (num_codes + 1, shape.first_size)).astype(np.int8),
    )


def smooth_tokens(num_codes, count, grid, seed=0):
    """Ids that resemble their neighbours, as those of pictures do."""
    rng = np.random.default_rng(seed)
    walk = rng.normal(size=(count, *grid)).cumsum(1).cumsum(2)
    walk = (walk - walk.min()) / np.ptp(walk)
    return np.minimum(walk * num_codes, num_codes - 1).astype(np.uint16)


def random_tokens(num_codes, count, grid, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(num_codes, size=(count, *grid)).astype(np.uint16)


def streams(words, sizes):
    ends = np.cumsum(sizes)
    return np.stack([ends - sizes, ends], axis=1)
