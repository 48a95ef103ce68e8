"""Curve25519 hashing against the standard's vectors, and the fast path against the reference."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from hypothesis import given, settings
from hypothesis import strategies as st

from mpc import curve25519
from mpc.curve25519 import (
    J,
    P,
    add,
    elligator2,
    expand_message_xmd,
    hash_to_curve,
    hash_to_field,
    hash_to_u_batch,
)

VECTORS = Path(__file__).parent.parent / "vectors"
SUITE = json.loads((VECTORS / "curve25519_XMD_SHA-512_ELL2_RO.json").read_text())
EXPAND = json.loads((VECTORS / "expand_message_xmd_SHA512_38.json").read_text())
ORDER = 2**252 + 27742317777372353535851937790883648493
fields = st.integers(0, P - 1)


def _on_curve(x: int, y: int) -> bool:
    return (y * y - (x * x * x + J * x * x + x)) % P == 0


def _times(k: int, point):
    total = None
    while k:
        if k & 1:
            total = add(total, point)
        point, k = add(point, point), k >> 1
    return total


def _exchange(scalar: bytes, u: bytes) -> bytes:
    return X25519PrivateKey.from_private_bytes(scalar).exchange(X25519PublicKey.from_public_bytes(u))


def test_the_vectors_are_for_this_suite() -> None:
    assert SUITE["ciphersuite"] == "curve25519_XMD:SHA-512_ELL2_RO_"
    assert int(SUITE["field"]["p"], 16) == P
    assert (len(SUITE["vectors"]), len(EXPAND["tests"])) == (5, 10)


@pytest.mark.parametrize("case", EXPAND["tests"], ids=range(len(EXPAND["tests"])))
def test_expand_message_vectors(case) -> None:
    out = expand_message_xmd(case["msg"].encode(), EXPAND["DST"].encode(), int(case["len_in_bytes"], 16))
    assert out.hex() == case["uniform_bytes"]


@pytest.mark.parametrize("case", SUITE["vectors"], ids=range(len(SUITE["vectors"])))
def test_hash_to_curve_vectors(case) -> None:
    message, dst = case["msg"].encode(), SUITE["dst"].encode()
    us = hash_to_field(message, dst)
    assert list(us) == [int(u, 16) for u in case["u"]]
    for u, name in zip(us, ("Q0", "Q1"), strict=True):
        xn, xd, y = elligator2(u)
        assert xn * pow(xd, -1, P) % P == int(case[name]["x"], 16)
        assert y == int(case[name]["y"], 16)
    assert hash_to_curve(message, dst) == (int(case["P"]["x"], 16), int(case["P"]["y"], 16))


def test_batch_equals_the_vectors_up_to_the_cofactor() -> None:
    messages = [case["msg"].encode() for case in SUITE["vectors"]]
    for raw, case in zip(hash_to_u_batch(messages, SUITE["dst"].encode()), SUITE["vectors"], strict=True):
        x = int.from_bytes(raw, "little")
        for _ in range(3):  # x-only doubling, RFC 7748 section 5
            square = x * x
            x = (square - 1) ** 2 * pow(4 * x * (square + J * x + 1), -1, P) % P
        assert x == int(case["P"]["x"], 16)


def test_x25519_is_the_one_of_rfc_7748() -> None:
    """Section 5.2: the first vector, and the iterated one after 1 and 1,000 rounds."""
    scalar = "a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4"
    u = "e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c"
    out = "c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552"
    assert _exchange(bytes.fromhex(scalar), bytes.fromhex(u)).hex() == out
    k = u_bytes = (9).to_bytes(32, "little")
    seen = []
    for _ in range(1000):
        k, u_bytes = _exchange(k, u_bytes), k
        seen.append(k.hex())
    assert seen[0] == "422c8e7a6227d7bca1350b3e2bb7279f7897b87bb6854b783c60e80311ae3079"
    assert seen[-1] == "684cf59ba83309552800ef566f2f4d3c1c3887c49360e3875f2eb94d99532c51"


@settings(max_examples=25)
@given(st.binary(max_size=40), st.binary(min_size=32, max_size=32))
def test_masking_the_batch_value_masks_the_standards_point(message: bytes, scalar: bytes) -> None:
    """X25519(k, u) is ((k/8) mod the group's order) times the standard's point: the missing cofactor is harmless."""
    clamped = bytes([scalar[0] & 248, *scalar[1:31], (scalar[31] & 127) | 64])
    expected = _times(int.from_bytes(clamped, "little") // 8, hash_to_curve(message, b"test"))
    (u,) = hash_to_u_batch([message], b"test")
    assert int.from_bytes(_exchange(scalar, u), "little") == expected[0]


@settings(max_examples=50)
@given(fields)
def test_elligator_lands_on_the_curve_and_forgets_the_sign(u: int) -> None:
    xn, xd, y = elligator2(u)
    assert xd % P
    assert _on_curve(xn * pow(xd, -1, P) % P, y)
    assert elligator2(-u % P) == (xn, xd, y)


@settings(max_examples=50)
@given(fields)
def test_the_addition_chain_is_the_power(z: int) -> None:
    assert curve25519._root_power(z) == pow(z, (P - 5) // 8, P)


def test_unreduced_squaring_stays_within_its_bounds() -> None:
    for x in (0, 1, P - 1, P, 2**255 - 1, 2**255, 2**256 - 1):
        got = curve25519._square_pairs(x, 1)
        assert got < 2**256
        assert got % P == pow(x, 4, P)
    assert [curve25519._root_power(z) for z in (0, 1, P - 1)] == [pow(z, (P - 5) // 8, P) for z in (0, 1, P - 1)]


def test_elligator_at_the_edges() -> None:
    for u in (0, 1, P - 1, pow(2, -1, P), pow(J, -1, P)):
        xn, xd, y = elligator2(u)
        assert _on_curve(xn * pow(xd, -1, P) % P, y)


def test_the_standards_points_have_prime_order() -> None:
    point = hash_to_curve(b"somebody", b"test")
    assert _on_curve(*point)
    assert _times(ORDER, point) is None


@settings(max_examples=25)
@given(fields, fields)
def test_the_sum_without_division_is_the_sum(u0: int, u1: int) -> None:
    numerator, denominator = curve25519._sum_of_maps(u0, u1)
    points = [curve25519._affine(*elligator2(u)) for u in (u0, u1)]
    total = add(*points)
    assert numerator * pow(denominator, -1, P) % P == (0 if total is None else total[0])


def test_the_sum_of_a_point_with_itself_is_a_tangent() -> None:
    point = curve25519._affine(*elligator2(5))
    for other in (5, P - 5):
        assert curve25519._sum_of_maps(5, other) == (add(point, point)[0], 1)


def test_the_sum_that_is_neutral_becomes_the_refused_encoding(monkeypatch) -> None:
    xn, xd, y = elligator2(5)
    monkeypatch.setattr(curve25519, "elligator2", lambda u: (xn, xd, y if u == 5 else P - y))
    assert curve25519._sum_of_maps(5, 6) == (0, 1)
    with pytest.raises(ValueError):
        _exchange(bytes(32), bytes(32))


def test_neutral_element() -> None:
    point = hash_to_curve(b"x", b"test")
    opposite = (point[0], P - point[1])
    assert add(None, None) is None
    assert add(point, None) == add(None, point) == point
    assert add(point, opposite) is None


def test_batches_of_every_small_size_agree() -> None:
    messages = [bytes([i]) for i in range(9)]
    one_by_one = [hash_to_u_batch([m], b"test")[0] for m in messages]
    for n in range(10):
        assert hash_to_u_batch(messages[:n], b"test") == one_by_one[:n]
    assert len(set(one_by_one)) == 9


def test_domains_are_separate() -> None:
    assert hash_to_u_batch([b"x"], b"one") != hash_to_u_batch([b"x"], b"two")


@pytest.mark.parametrize("dst", [b"", bytes(256)])
def test_domain_separation_tag_is_checked(dst: bytes) -> None:
    with pytest.raises(ValueError, match="domain separation tag has 1 to 255 bytes"):
        expand_message_xmd(b"", dst, 32)


@pytest.mark.parametrize("n_bytes", [-1, 0, 255 * 64 + 1])
def test_expansion_length_is_checked(n_bytes: int) -> None:
    with pytest.raises(ValueError, match="expands to 1 to 16320 bytes"):
        expand_message_xmd(b"", b"d", n_bytes)


def test_longest_expansion() -> None:
    assert len(expand_message_xmd(b"", b"d", 255 * 64)) == 255 * 64
