"""Fitting of the `context` codec's tables to a store's tokens.

Each turn down the tree is a logistic regression on the three neighbors. It starts from the product
of the neighbors' own estimates, by counts, and takes one pass of AdaGrad (Duchi et al. 2011).
Weights are then rounded, and dropped if they save fewer bits over the whole store than they cost to
store; held-out samples decide how many.

Deterministic on a machine: the same tokens in the same order give the same tables.

Legend: N samples, L = H·W tokens, K codes, C codebook dimension, R entries of a row, D neighbors.
"""

import math
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from seit.shards.context import fit_kernels
from seit.shards.context.coder import Coder
from seit.shards.context.tables import NEIGHBOURS, UPPER_RIGHT, ContextTables, make_squash
from seit.shards.context.tree import TreeShape, grow_tree

MAX_FIT_TOKENS = 1 << 24
"""Most tokens that tables are fitted to; more gain little and take longer."""
_HELD_OUT = 16
"""One sample in so many is held out to choose among tables."""
_MAX_JUDGES = 256
_UNITS_PER_NAT = 8
_NEIGHBOUR_SHARE = 0.62
_SMOOTHING = 2.0
_RATE = 0.3
_BIAS_EVIDENCE = 1000.0
_DROP_BELOW = (256.0, 64.0, 32.0, 16.0, 8.0, 4.0, 2.0, 1.0, 0.5, 0.0)
"""Candidate thresholds: nats that a weight must save over the fitted samples to be kept."""
_COARSENESS = (4, 2, 1)
"""Candidate units: weights are multiples of one of them."""


def fit_tables(
    tokens_NHW: npt.NDArray[np.unsignedinteger],
    codebook_KC: npt.NDArray[np.floating],
    *,
    total_samples: int,
    seed: int = 0,
) -> ContextTables:
    """Fit tables to a sample of a store's grids.

    Args:
        tokens_NHW: ids of the sample, each below K.
        codebook_KC: the store's codebook; similar vectors share branches of the tree.
        total_samples: number of samples that the tables are for; decides how much detail pays off.
        seed: seed of the order of fitting.
    """
    count, _, width = tokens_NHW.shape
    num_codes = len(codebook_KC)
    tokens_NL = tokens_NHW.reshape(count, -1).astype(np.uint16)
    held_out = np.arange(count) % _HELD_OUT == _HELD_OUT - 1 if count > 1 else np.zeros(1, bool)
    fitted_NL = tokens_NL[~held_out]
    counts_K = np.bincount(fitted_NL.reshape(-1), minlength=num_codes)
    paths_K = grow_tree(codebook_KC, counts_K)
    fit = _Fit(num_codes, paths_K)
    fit.count(fitted_NL, width)
    fit.descend(fitted_NL, width, np.random.default_rng(seed).permutation(len(fitted_NL)))
    judge_NL = (tokens_NL[held_out] if held_out.any() else tokens_NL)[:_MAX_JUDGES]
    scale = total_samples / max(len(fitted_NL), 1)
    return _choose(
        fit, judge_NL.reshape(len(judge_NL), *tokens_NHW.shape[1:]), total_samples, scale
    )


class _Fit:
    """Weights in nats, float32 (D, K+1, R), and the amount of evidence that each has seen.

    Of the upper-right neighbor only those of the first group are used.
    """

    def __init__(self, num_codes: int, paths_K: npt.NDArray[np.uint16]) -> None:
        self.num_codes = num_codes
        self.paths = paths_K
        self.shape = TreeShape(num_codes)
        self.levels = np.array(self.shape.levels)
        self.bases = np.array(self.shape.bases)
        row = self.shape.row_size
        self.weights = np.zeros((len(NEIGHBOURS), num_codes + 1, row), dtype=np.float32)
        self.evidence = np.zeros_like(self.weights)
        self.bias = np.zeros(row, dtype=np.float32)

    def count(self, tokens_NL: npt.NDArray[np.uint16], width: int) -> None:
        """Initialize weights from the counts of each neighbor alone."""
        turns = np.zeros((2, self.shape.row_size), dtype=np.float32)
        fit_kernels.count(
            tokens_NL,
            width,
            self.paths,
            self.levels,
            self.bases,
            self.num_codes,
            self.weights,
            self.evidence,
            turns,
        )
        rights, lefts = self.weights, self.evidence
        self.bias = np.log((turns[1] + 0.5) / (turns[0] + 0.5)).astype(np.float32)
        prior = 1 / (1 + np.exp(-self.bias))
        for right, left in zip(rights, lefts, strict=True):
            odds = (right + _SMOOTHING * prior) / (left + _SMOOTHING * (1 - prior))
            right[:] = _NEIGHBOUR_SHARE * (np.log(odds) - self.bias)
        rights[UPPER_RIGHT, :, self.shape.first_size :] = 0
        lefts.fill(1.0)

    def descend(
        self, tokens_NL: npt.NDArray[np.uint16], width: int, order: npt.NDArray[np.int64]
    ) -> None:
        """Run one pass of AdaGrad over the samples in ``order``."""
        fit_kernels.descend(
            tokens_NL,
            order,
            width,
            self.paths,
            self.levels,
            self.bases,
            self.num_codes,
            self.weights,
            self.evidence,
            self.bias,
            np.full(len(self.bias), _BIAS_EVIDENCE, dtype=np.float32),
            _RATE,
        )


def _choose(
    fit: _Fit, judge_NHW: npt.NDArray[np.uint16], total_samples: int, scale: float
) -> ContextTables:
    """Choose the rounding of the weights that minimizes the total size of store and tables."""
    bias = np.clip(np.round(fit.bias * _UNITS_PER_NAT), -32_768, 32_767).astype(np.int16)
    exact = ContextTables(
        num_codes=fit.num_codes,
        paths=fit.paths,
        squash=make_squash(),
        bias=bias,
        weights=np.zeros(fit.weights[:UPPER_RIGHT].shape, dtype=np.int8),
        corner=np.zeros((fit.num_codes + 1, fit.shape.first_size), dtype=np.int8),
    )
    saved = 0.5 * scale * fit.weights**2 * (fit.evidence - 1)

    def cost(tables: ContextTables) -> float:
        words, _ = Coder(tables).encode(judge_NHW.reshape(len(judge_NHW), -1), judge_NHW.shape[1:])
        return 2 * len(words) / len(judge_NHW) * total_samples + _entropy_bytes(tables)

    least_cost, best = cost(exact), exact
    for units in _COARSENESS:
        steps = np.clip(
            np.round(fit.weights * (_UNITS_PER_NAT / units)), -127 // units, 127 // units
        )
        rounded = (steps * units).astype(np.int8)
        last_cost = math.inf
        for least in _DROP_BELOW:
            kept = np.where(saved >= least, rounded, np.int8(0))
            corner = np.ascontiguousarray(kept[UPPER_RIGHT, :, : fit.shape.first_size])
            tables = replace(exact, weights=kept[:UPPER_RIGHT], corner=corner)
            found = cost(tables)
            if found < least_cost:
                least_cost, best = found, tables
            if found > last_cost:  # keeping more no longer pays off
                break
            last_cost = found
    return best


def _entropy_bytes(tables: ContextTables) -> float:
    """Estimate the size of the compressed weights: their order-0 entropy, in bytes."""
    parts = (tables.weights, tables.corner)
    counts = sum(fit_kernels.count_values(part.reshape(-1)) for part in parts)
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log2(shares)).sum() * counts.sum() / 8)
