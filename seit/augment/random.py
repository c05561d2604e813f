"""Random numbers per sample, independent of batch, rank and worker.

Legend: B batch, n counter blocks per sample.

The key of Philox is made of (seed, epoch) and its counter of (block, operation, position low,
position high), so a draw is a pure function of (seed, epoch, position in the epoch): however an
epoch is split into batches and ranks, each sample gets the same augmentation. Word j of block i is
draw 4·i + j of its sample; a longer draw begins with the shorter one. On CUDA devices a Triton
kernel generates the words, one launch per draw; on a CPU, code that numba compiles.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from seit.augment.kernels.draws import draw_triton
from seit.augment.philox import LOW32, UNIT_24, Op, Words, philox4x32
from seit.devices import triton_serves
from seit.errors import UsageError

# Blocks per chunk, to stay in a CPU's caches and limit the memory of a long draw.
_CPU_CHUNK_BLOCKS = 1 << 17
# Draws of up to this many blocks come from one table of all operations, made on first use: a dozen
# small draws then cost one evaluation of Philox, which is about 130 kernel launches.
_SHORT_BLOCKS = 8


def _scramble(word: int) -> int:
    """Apply a bijection of 32-bit words that fixes 0 (the finalizer of MurmurHash3)."""
    word = ((word ^ word >> 16) * 0x85EBCA6B) & LOW32
    word = ((word ^ word >> 13) * 0xC2B2AE35) & LOW32
    return word ^ word >> 16


class SampleRandom:
    """Random draws of a batch's samples, each a function of (seed, epoch, position).

    Args:
        seed: the run's seed, 0 to 2⁶⁴ − 1. A seed below 2³² is the first key word; the upper half
            of a longer one is scrambled into it.
        epoch: 0 to 2³² − 1, the second key word.
        positions: (B,) integers ≥ 0, each sample's global position in the epoch's order, on the
            device of the draws.

    Raises:
        UsageError: seed, epoch or positions are out of range or of another shape.
    """

    def __init__(self, seed: int, epoch: int, positions: Tensor) -> None:
        if not 0 <= seed < 2**64:
            raise UsageError(f"seed is {seed}; expected 0 to 2**64 - 1: choose another seed")
        if not 0 <= epoch < 2**32:
            raise UsageError(f"epoch is {epoch}; expected 0 to 2**32 - 1: count epochs from 0")
        if positions.ndim != 1 or positions.is_floating_point():
            raise UsageError(
                f"positions are {tuple(positions.shape)} of {positions.dtype}; expected (B,) "
                "integers: pass each sample's global position in the epoch"
            )
        self.key = (seed & LOW32 ^ _scramble(seed >> 32), epoch)
        self.positions = positions.to(torch.int64)
        self._short: Words | None = None
        self._has_kernel = triton_serves(positions.device)
        self._compiled = positions.device.type == "cpu"

    def __len__(self) -> int:
        """Return B, the number of samples."""
        return self.positions.shape[0]

    def select(self, index: Tensor) -> "SampleRandom":
        """Return the draws of some of the samples; ``index`` is (n,) int64 or (B,) bool."""
        other = object.__new__(SampleRandom)
        other.key, other.positions, other._short = self.key, self.positions[index], None
        other._has_kernel, other._compiled = self._has_kernel, self._compiled
        if self._short is not None:
            a, b, c, d = self._short
            other._short = a[index], b[index], c[index], d[index]
        return other

    def uniform(self, op: int, shape: tuple[int, ...] = ()) -> Tensor:
        """Draw ``(B, *shape)`` float32 in [0, 1): the upper 24 bits of a word, times 2⁻²⁴."""
        if self._has_kernel:
            return self._draw_by_kernel(op, shape, torch.float32)
        if self._compiled:
            return self._draw_compiled(op, shape, torch.float32)
        return self._draw(op, shape, torch.float32, _to_uniform)

    def normal(self, op: int, shape: tuple[int, ...] = ()) -> Tensor:
        """Draw ``(B, *shape)`` float32 standard normals, by Box and Muller; none exceeds 5.77.

        Words 0 and 1 of a block make its draws 0 and 1 (radius and angle → cosine, sine), words 2
        and 3 its draws 2 and 3.
        """
        if self._compiled and not self._has_kernel:
            return self._draw_compiled_normal(op, shape)
        return self._draw(op, shape, torch.float32, _to_normal)

    def randint(self, op: int, high: int | Tensor, shape: tuple[int, ...] = ()) -> Tensor:
        """Draw ``(B, *shape)`` int64 in [0, high), each equally likely to within high / 2³².

        Args:
            op: the operation.
            high: 1 to 2³¹ − 1, an integer or a tensor that broadcasts to ``(B, *shape)``.
            shape: the draws of one sample.
        """
        if self._has_kernel:
            return (self._draw_by_kernel(op, shape, torch.int64) * high) >> 32
        if self._compiled:
            return (self._draw_compiled(op, shape, torch.int64) * high) >> 32
        return (self._draw(op, shape, torch.int64, _to_words) * high) >> 32

    def _draw_by_kernel(self, op: int, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        words = draw_triton(self.positions, self.key, op, count=math.prod(shape), dtype=dtype)
        return words.view(len(self), *shape)

    def _draw_compiled(self, op: int, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """Draw words, int64, or uniforms, float32."""
        from seit.augment.philox_kernels import fill_uniforms, fill_words

        B, count = len(self), math.prod(shape)
        out = torch.empty((B, -(-count // 4), 4), dtype=dtype)
        fill = fill_uniforms if dtype == torch.float32 else fill_words
        fill(self.positions.contiguous().numpy(), int(op), *self.key, out.numpy())
        return out.flatten(1)[:, :count].reshape(B, *shape)

    def _draw_compiled_normal(self, op: int, shape: tuple[int, ...]) -> Tensor:
        from seit.augment.philox_kernels import fill_polar

        B, count = len(self), math.prod(shape)
        blocks = -(-count // 4)
        out = torch.empty((B, blocks, 4))
        positions = self.positions.contiguous().numpy()
        step = max(1, _CPU_CHUNK_BLOCKS // max(1, blocks))
        for start in range(0, B, step):
            pairs = out[start : start + step].permute(2, 0, 1)
            shares, angles = torch.empty((2, 2, *pairs.shape[1:])).unbind()
            chunk = positions[start : start + step]
            fill_polar(chunk, int(op), *self.key, shares.numpy(), angles.numpy())
            radii = shares.log_().mul_(-2.0).sqrt_()
            torch.mul(radii, angles.cos(), out=pairs[0::2])
            torch.mul(radii, angles.sin_(), out=pairs[1::2])
        return out.flatten(1)[:, :count].reshape(B, *shape)

    def _draw(
        self,
        op: int,
        shape: tuple[int, ...],
        dtype: torch.dtype,
        convert: Callable[[Words, Tensor], None],
    ) -> Tensor:
        B, count = len(self), math.prod(shape)
        blocks = -(-count // 4)
        device = self.positions.device
        out = torch.empty((B, blocks, 4), dtype=dtype, device=device)
        if self._has_kernel:
            words = self._draw_by_kernel(op, (blocks, 4), torch.int64)
            a, b, c, d = words.unbind(2)
            convert((a, b, c, d), out)
        elif blocks <= _SHORT_BLOCKS and op < len(Op):
            a, b, c, d = (word[:, op, :blocks] for word in self._short_words())
            convert((a, b, c, d), out)
        else:
            ops = torch.full((1,), int(op), device=device)
            a, b, c, d = self._words(ops, self.positions, blocks)
            convert((a[:, 0], b[:, 0], c[:, 0], d[:, 0]), out)
        return out.flatten(1)[:, :count].reshape(B, *shape)

    def _short_words(self) -> Words:
        if self._short is None:
            ops = torch.arange(len(Op), device=self.positions.device)
            self._short = self._words(ops, self.positions, _SHORT_BLOCKS)
        return self._short

    def _words(self, ops: Tensor, positions: Tensor, blocks: int) -> Words:
        """Draw four (B, number of ops, blocks) int64."""
        size = (len(positions), len(ops), blocks)
        counter = (
            torch.arange(blocks, device=positions.device).expand(size).contiguous(),
            ops[:, None].expand(size).contiguous(),
            (positions & LOW32)[:, None, None].expand(size).contiguous(),
            (positions >> 32 & LOW32)[:, None, None].expand(size).contiguous(),
        )
        return philox4x32(counter, self.key)


def _to_words(words: Words, out: Tensor) -> None:
    torch.stack(words, dim=-1, out=out)


def _to_uniform(words: Words, out: Tensor) -> None:
    for j, word in enumerate(words):
        out[..., j] = word >> 8
    out.mul_(UNIT_24)


def _to_normal(words: Words, out: Tensor) -> None:
    for j in (0, 2):
        # Add 1 so that the logarithm's argument is never 0: radius² = −2 ln u, u in (0, 1].
        radius = (words[j] >> 8).add_(1).to(torch.float32)
        radius.mul_(UNIT_24).log_().mul_(-2.0).sqrt_()
        angle = (words[j + 1] >> 8).to(torch.float32).mul_(2 * math.pi * UNIT_24)
        torch.mul(radius, angle.cos(), out=out[..., j])
        torch.mul(radius, angle.sin_(), out=out[..., j + 1])
