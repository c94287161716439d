"""Random numbers that depend on nothing but the request: one uniform number a (seed, choice, position).

A generator that advances would tie a token to everything drawn before it, in any order the batch
happened to have. Here the number is a hash of its place, so a choice gives the same tokens alone or in a
batch, after preemption, and when several positions are drawn at once to verify proposals.
"""

from __future__ import annotations

import hashlib
import struct

_SEED_MASK = (1 << 64) - 1


def uniform(seed: int, choice: int, position: int) -> float:
    """A number in [0, 1) with 53 random bits: the first eight bytes of BLAKE2b over the three integers.

    `position` counts generated tokens from 0; `seed` counts modulo 2^64.
    """
    place = struct.pack("<QQQ", seed & _SEED_MASK, choice, position)
    return (int.from_bytes(hashlib.blake2b(place, digest_size=8).digest(), "little") >> 11) * 2.0**-53
