"""Philox: random words as a function of a counter and a key, and the operations that draw them.

Philox-4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011) maps a
128-bit counter and a 64-bit key to four 32-bit words, without state. ``tl.philox`` of Triton gives
the same words.
"""

from enum import IntEnum

import torch
from torch import Tensor

Words = tuple[Tensor, Tensor, Tensor, Tensor]

MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
"""Factors of the first and the third word of the counter, in each round."""
KEY_STEPS = (0x9E3779B9, 0xBB67AE85)
"""Increments of the two words of the key, from round to round."""
NUM_ROUNDS = 10
UNIT_24 = 2.0**-24
"""Factor of the upper 24 bits of a word in a uniform number."""
LOW32 = 0xFFFFFFFF


class Op(IntEnum):
    """Operations that draw: one word of the counter, so that they never share draws.

    Numbers are never changed or reused, since that would change the draws of existing runs.
    """

    EDIT = 0
    SYNONYM = 1
    SWAP_SIDE = 2
    SWAP_PLACE = 3
    FLIP = 4
    CROP_SHAPE = 5
    CROP_PLACE = 6
    NOISE_GATE = 7
    NOISE_CHANNEL = 8
    NOISE_ELEMENT = 9
    CUTMIX_GATE = 10
    CUTMIX_WEIGHT = 11
    CUTMIX_BOX = 12
    MIXUP_WEIGHT = 13
    ADAPT_GATE = 14
    ADAPT_GEOMETRY = 15
    TIME_ROLL = 16
    FREQ_MASK = 17
    TIME_MASK = 18
    DEPTH = 19
    MASK_ORDER = 20
    MASK_SHARE = 21
    CORRUPT_BLOCK = 22
    CORRUPT_CHOICE = 23
    CORRUPT_NOISE = 24
    CORRUPT_ORDER = 25
    ROTATE = 26
    JITTER = 27
    ERASE = 28


def philox4x32(counter: Words, key: tuple[int, int]) -> Words:
    """Return four random words for every counter: Philox-4x32 with ten rounds.

    Args:
        counter: four int64 tensors of one shape, each element 0 to 2³² − 1; **overwritten**.
        key: two integers, each 0 to 2³² − 1.

    Returns:
        Four int64 tensors of that shape, each element 0 to 2³² − 1.
    """
    a, b, c, d = counter
    p, q = torch.empty_like(a), torch.empty_like(c)
    key_a, key_b = key
    for _ in range(NUM_ROUNDS):
        # A 32×32-bit product fills 64 bits; int64 keeps them all, whatever the sign.
        # Only factors need their upper halves cleared: b and d carry theirs until the xor drops it.
        torch.mul(a, MULTIPLIERS[0], out=p)
        torch.mul(c, MULTIPLIERS[1], out=q)
        torch.bitwise_right_shift(q, 32, out=a)
        a.bitwise_xor_(b).bitwise_xor_(key_a).bitwise_and_(LOW32)
        torch.bitwise_right_shift(p, 32, out=c)
        c.bitwise_xor_(d).bitwise_xor_(key_b).bitwise_and_(LOW32)
        b, q = q, b
        d, p = p, d
        key_a = (key_a + KEY_STEPS[0]) & LOW32
        key_b = (key_b + KEY_STEPS[1]) & LOW32
    return a, b.bitwise_and_(LOW32), c, d.bitwise_and_(LOW32)
