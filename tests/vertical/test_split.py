"""The held-out part: the same for both owners, the right share, a function of identifier and salt alone."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vertical.split import folds, holdout

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


def test_owners_agree_on_folds_whatever_their_order() -> None:
    order = np.random.default_rng(1).permutation(1000)
    mine = folds(ITEMS[:1000], SALT, 5)
    assert np.array_equal(mine[order], folds([ITEMS[i] for i in order], SALT, 5))
    assert np.unique(mine).tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("k", [2, 5, 10])
def test_folds_are_of_nearly_the_same_size(k: int) -> None:
    sizes = np.bincount(folds(ITEMS, SALT, k), minlength=k)
    assert len(sizes) == k
    assert np.abs(sizes - len(ITEMS) / k).max() < 5 * (len(ITEMS) / k) ** 0.5


def test_folds_do_not_depend_on_what_is_held_out() -> None:
    held, part = holdout(ITEMS, SALT, 50), folds(ITEMS, SALT, 2)
    assert abs((held & (part == 0)).mean() - 0.25) < 5 * (0.25 * 0.75 / len(ITEMS)) ** 0.5


def test_our_own_vector_of_folds() -> None:
    direct = [
        int.from_bytes(hashlib.blake2b(item, key=SALT, person=b"accord-folds-1", digest_size=8).digest(), "big") * 5
        >> 64
        for item in ITEMS[:12]
    ]
    assert folds(ITEMS[:12], SALT, 5).tolist() == direct


@given(st.binary(max_size=20), st.integers(2, 1000))
def test_an_items_fold_does_not_depend_on_the_others(item: bytes, k: int) -> None:
    alone = folds([item], SALT, k)[0]
    assert 0 <= alone < k
    assert folds([*ITEMS[:3], item], SALT, k)[3] == alone


@pytest.mark.parametrize("k", [-1, 0, 1, 1001])
def test_the_number_of_folds_is_checked(k: int) -> None:
    with pytest.raises(ValueError, match="there are 2 to 1000 folds"):
        folds(ITEMS[:1], SALT, k)


def test_the_salt_of_folds_is_checked() -> None:
    with pytest.raises(ValueError, match="the salt of a split has 16 to 64 bytes"):
        folds([], b"", 5)
