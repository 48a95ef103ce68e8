"""Attacks that recover masks from CrypTen's generator, run against it as a control and against ours.

CrypTen draws shares and masks from PyTorch's Mersenne Twister.  A party knows some of them: its own input minus what was
opened.  From those it can search the seed, of which only 32 bits count, or solve for the state, which is linear, and then
knows every later mask.  Source of the attacks: Matsumoto and Nishimura, ACM TOMACS 1998, section 1.3 (the output gives the
state away); the search is plain enumeration.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mpc.rng import KEY_BYTES, Prg, fresh_key
from mpc.triples import Triple
from tests.mpc.playing import play, results

WORD = (1 << 32) - 1
SEEDS = 1 << 13


def twister(seed: int, n: int) -> np.ndarray:
    """What CrypTen's generator gives for a seed."""
    drawn = torch.randint(-(2**63), 2**63 - 1, (n,), generator=torch.Generator().manual_seed(seed))
    return drawn.numpy().view(np.uint64)


def ours(seed: int, n: int) -> np.ndarray:
    """Our generator under a key that holds nothing but a small number."""
    return Prg(seed.to_bytes(KEY_BYTES, "big")).words(n)


def searched(seen: np.ndarray, generator) -> list[int]:
    """Small seeds for which the generator gives the words that were seen."""
    return [seed for seed in range(SEEDS) if (generator(seed, len(seen)) == seen).all()]


def test_a_seed_search_finds_the_twister_and_not_us():
    assert searched(twister(4321 + (7 << 32), 3), twister) == [4321]  # the upper half of the seed does not count
    for known in (ours, lambda seed, n: Prg(seed.to_bytes(KEY_BYTES, "little")).words(n), twister):
        assert searched(Prg(fresh_key()).words(3), known) == []


def test_every_bit_of_a_key_counts():
    key = fresh_key()
    streams = {Prg(key).words(2).tobytes()}
    for bit in range(8 * KEY_BYTES):
        changed = bytearray(key)
        changed[bit // 8] ^= 1 << bit % 8
        streams.add(Prg(bytes(changed)).words(2).tobytes())
    assert len(streams) == 8 * KEY_BYTES + 1
    for short in (b"", key[:16], key + b"\0", 7):
        with pytest.raises((ValueError, TypeError)):
            Prg(short)


def untempered(y: int) -> int:
    """The twister's state word behind one 32-bit output."""
    y ^= y >> 18
    y ^= (y << 15) & 0xEFC60000
    x = y
    for _ in range(5):
        x = y ^ ((x << 7) & 0x9D2C5680)
    y = x
    for _ in range(3):
        x = y ^ (x >> 11)
    return x & WORD


def predicted(seen: np.ndarray) -> np.ndarray:
    """The next 32-bit outputs if the 624 seen ones came from a Mersenne Twister."""
    recovered = np.random.MT19937()
    state = np.array([untempered(int(y)) for y in seen], dtype=np.uint32)
    recovered.state = {"bit_generator": "MT19937", "state": {"key": state, "pos": 624}}
    return recovered.random_raw(len(seen)).astype(np.uint32)


def halves(words: np.ndarray) -> np.ndarray:
    """The upper and lower 32 bits of every word, in the order in which PyTorch draws them."""
    return np.column_stack([words >> np.uint64(32), words & np.uint64(WORD)]).astype(np.uint32).reshape(-1)


def test_state_recovery_predicts_the_twister_and_not_us():
    outputs = halves(twister(99, 624) ^ np.uint64(1 << 63))  # PyTorch subtracts 2^63 from what the twister says
    np.testing.assert_array_equal(predicted(outputs[:624]), outputs[624:])
    stream = Prg(fresh_key()).words(1248, np.uint32)
    assert (predicted(stream[:624]) == stream[624:]).sum() <= 2


def linear_complexity(bits: np.ndarray) -> int:
    """Length of the shortest linear recurrence over GF(2) that makes these bits (Berlekamp and Massey)."""
    current, before, length, gap = 1, 1, 0, 1
    past = 0  # the bits seen so far, the newest lowest
    for i, bit in enumerate(bits.tolist()):
        past = past << 1 | bit
        if not (current & past & ((1 << length + 1) - 1)).bit_count() & 1:
            gap += 1
            continue
        kept = current
        current ^= before << gap
        if 2 * length <= i:
            length, before, gap = i + 1 - length, kept, 1
        else:
            gap += 1
    return length


def test_no_linear_recurrence_makes_our_stream():
    n = 44_000
    assert linear_complexity((twister(5, n) >> np.uint64(62) & np.uint64(1)).astype(np.int64)) == 19_937
    bits = Prg(fresh_key()).words(n // 8, np.uint8)
    assert abs(linear_complexity(np.unpackbits(bits)) - n // 2) < 60


def test_what_a_party_learns_of_anothers_masks_does_not_tell_the_next():
    """Party 0 knows its own x, so it knows party 1's share of the mask of a product; the attack runs on that."""

    def body(session):
        source = session.correlations
        (a, _), _ = source.draw(Triple(op="mul", shape0=(624,), shape1=(1,)))
        (later, _), _ = source.draw(Triple(op="mul", shape0=(624,), shape1=(1,)))
        return a, later

    _, (seen, later) = results(play(2, body))
    assert (predicted(halves(seen[:312])) == halves(later)[:624]).sum() <= 2
    assert searched(seen[:3], twister) == searched(seen[:3], ours) == []
