"""The held-out part: the same for both owners, the right share, a function of identifier and salt alone."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vertical.split import holdout

SALT = bytes(range(16))
ITEMS = [b"email\0v1\0%d@example.com" % i for i in range(20_000)]


def test_both_owners_agree_whatever_their_order() -> None:
    order = np.random.default_rng(1).permutation(1000)
    mine = holdout(ITEMS[:1000], SALT, 30)
    theirs = holdout([ITEMS[i] for i in order], SALT, 30)
    assert mine.dtype == np.bool_
    assert np.array_equal(mine[order], theirs)


@pytest.mark.parametrize("percent", [1, 30, 50, 99])
def test_share_is_the_one_asked_for(percent: int) -> None:
    share = percent / 100
    sd = (share * (1 - share) / len(ITEMS)) ** 0.5
    assert abs(holdout(ITEMS, SALT, percent).mean() - share) < 5 * sd


def test_the_ends() -> None:
    assert not holdout(ITEMS, SALT, 0).any()
    assert holdout(ITEMS, SALT, 100).all()
    assert holdout([], SALT, 30).shape == (0,)


def test_larger_parts_contain_smaller_ones() -> None:
    parts = [holdout(ITEMS[:2000], SALT, percent) for percent in (10, 20, 70)]
    assert not (parts[0] & ~parts[1]).any()
    assert not (parts[1] & ~parts[2]).any()


def test_another_salt_is_an_independent_split() -> None:
    one, two = holdout(ITEMS, SALT, 50), holdout(ITEMS, bytes(16), 50)
    assert abs((one & two).mean() - 0.25) < 5 * (0.25 * 0.75 / len(ITEMS)) ** 0.5


def test_our_own_vector() -> None:
    """Freezes the rule: a change of it would silently give two versions of the software two splits."""
    got = holdout([b"email\0v1\0%d@example.com" % i for i in range(32)], SALT, 30)
    direct = [
        int.from_bytes(hashlib.blake2b(item, key=SALT, person=b"accord-holdout-1", digest_size=8).digest(), "big")
        < 0.3 * 2**64
        for item in ITEMS[:32]
    ]
    assert list(got) == direct
    assert "".join("01"[int(x)] for x in got) == "10100001100000000110100100010110"


@given(st.binary(max_size=20), st.integers(0, 100))
def test_an_items_part_does_not_depend_on_the_others(item: bytes, percent: int) -> None:
    alone = holdout([item], SALT, percent)[0]
    assert holdout([*ITEMS[:3], item, *ITEMS[3:5]], SALT, percent)[3] == alone


@pytest.mark.parametrize("salt", [b"", bytes(15), bytes(65)])
def test_salt_is_checked(salt: bytes) -> None:
    with pytest.raises(ValueError, match="the salt of a split has 16 to 64 bytes"):
        holdout(ITEMS[:1], salt, 30)


@pytest.mark.parametrize("percent", [-1, 101])
def test_percentage_is_checked(percent: int) -> None:
    with pytest.raises(ValueError, match="a percentage is from 0 to 100"):
        holdout(ITEMS[:1], SALT, percent)
