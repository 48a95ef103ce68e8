"""The group against the standard's vectors, its laws, and everything that must not be taken for an element."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpc.rng import Prg, fresh_prg
from mpc.tokens import ristretto

VECTORS = json.loads((Path(__file__).parent.parent / "vectors" / "ristretto255.json").read_text())
MULTIPLES = [bytes.fromhex(raw) for raw in VECTORS["multiples of the generator"]]
INVALID = [(why, raw) for why, many in VECTORS["invalid encodings"].items() for raw in many]
GENERATOR = MULTIPLES[1]
scalars = st.integers(1, ristretto.ORDER - 1)


def _scalar(k: int) -> bytes:
    return (k % ristretto.ORDER).to_bytes(32, "little")


def test_the_vectors_are_all_there() -> None:
    assert (len(MULTIPLES), len(INVALID), len(VECTORS["from uniform bytes"])) == (16, 29, 11)


@pytest.mark.parametrize("k", range(1, 16))
def test_multiples_of_the_generator(k: int) -> None:
    assert ristretto.multiply_base(_scalar(k)) == MULTIPLES[k]
    assert ristretto.multiply(_scalar(k), GENERATOR) == MULTIPLES[k]
    assert ristretto.add(MULTIPLES[k - 1], GENERATOR) == MULTIPLES[k]
    assert ristretto.decode(MULTIPLES[k]) == MULTIPLES[k]


@pytest.mark.parametrize(("why", "raw"), INVALID)
def test_invalid_encodings_are_refused(why: str, raw: str) -> None:
    for refuse in (ristretto.decode, lambda element: ristretto.multiply(_scalar(3), element)):
        with pytest.raises(ValueError, match="not the encoding of an element"):
            refuse(bytes.fromhex(raw))


@pytest.mark.parametrize("case", VECTORS["from uniform bytes"], ids=range(11))
def test_elements_from_uniform_bytes(case) -> None:
    assert ristretto.from_uniform_bytes(bytes.fromhex(case["input"])).hex() == case["output"]


def test_the_first_uniform_bytes_are_the_hash_that_the_standard_names() -> None:
    text = b"Ristretto is traditionally a short shot of espresso coffee"
    assert hashlib.sha512(text).hexdigest() == VECTORS["from uniform bytes"][0]["input"]


def test_the_neutral_element_is_refused() -> None:
    with pytest.raises(ValueError, match="the neutral element"):
        ristretto.decode(bytes(32))
    with pytest.raises(ValueError, match="other than the neutral one"):
        ristretto.multiply(_scalar(5), bytes(32))


@pytest.mark.parametrize("zero", [bytes(32), ristretto.ORDER.to_bytes(32, "little")])
def test_no_product_is_neutral(zero: bytes) -> None:
    with pytest.raises(ValueError, match="other than the neutral one"):
        ristretto.multiply(zero, GENERATOR)
    with pytest.raises(ValueError, match="a scalar of zero"):
        ristretto.multiply_base(zero)


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (bytes(32), "a scalar of zero"),
        (ristretto.ORDER.to_bytes(32, "little"), "not below the group's order"),
        ((ristretto.ORDER + 1).to_bytes(32, "little"), "not below the group's order"),
        (bytes([255]) * 32, "not below the group's order"),
        (_scalar(1)[:-1], "a scalar has 32 bytes, got 31"),
    ],
)
def test_scalars_have_one_encoding(raw: bytes, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        ristretto.decode_scalar(raw)


@pytest.mark.parametrize("k", [1, 2, ristretto.ORDER - 1])
def test_the_first_and_the_last_scalar(k: int) -> None:
    assert ristretto.decode_scalar(_scalar(k)) == _scalar(k)


@pytest.mark.parametrize("n", [0, 31, 33])
def test_lengths_are_checked(n: int) -> None:
    with pytest.raises(ValueError, match=f"an element has 32 bytes, got {n}"):
        ristretto.decode(bytes(n))
    with pytest.raises(ValueError, match="made of 64 uniform bytes, got 63"):
        ristretto.from_uniform_bytes(bytes(63))


@settings(max_examples=30, deadline=None)
@given(scalars, scalars, st.binary(max_size=64))
def test_laws_of_the_group(a: int, b: int, seed: bytes) -> None:
    point = ristretto.from_uniform_bytes(hashlib.sha512(seed).digest())
    once = ristretto.multiply(_scalar(a), point)
    assert ristretto.multiply(_scalar(b), once) == ristretto.multiply(_scalar(a * b), point)
    assert ristretto.multiply(ristretto.invert(_scalar(a)), once) == point
    if (a + b) % ristretto.ORDER:
        assert ristretto.add(once, ristretto.multiply(_scalar(b), point)) == ristretto.multiply(_scalar(a + b), point)


@settings(max_examples=50, deadline=None)
@given(scalars, scalars, st.binary(min_size=64, max_size=64))
def test_scalars_are_numbers_modulo_the_order(a: int, b: int, wide: bytes) -> None:
    assert ristretto.scalar_multiply(_scalar(a), _scalar(b)) == _scalar(a * b)
    assert ristretto.scalar_subtract(_scalar(a), _scalar(b)) == _scalar(a - b)
    assert ristretto.invert(_scalar(a)) == _scalar(pow(a, -1, ristretto.ORDER))
    assert ristretto.reduce(wide) == _scalar(int.from_bytes(wide, "little"))


def test_random_scalars_are_of_the_generator_given_and_never_zero(monkeypatch) -> None:
    assert ristretto.random_scalar(Prg(bytes(32))) == ristretto.random_scalar(Prg(bytes(32)))
    assert ristretto.random_scalar(fresh_prg()) != ristretto.random_scalar(fresh_prg())
    draws = [bytes(32), _scalar(9)]
    monkeypatch.setattr(ristretto, "reduce", lambda _: draws.pop(0))
    assert ristretto.random_scalar(fresh_prg()) == _scalar(9)


@pytest.mark.parametrize("n", [0, 1, 31, 32, 33, 100])
def test_threads_keep_the_order(n: int) -> None:
    assert ristretto.on_all(lambda i: i * i, list(range(n))) == [i * i for i in range(n)]


def test_an_error_in_a_thread_arrives() -> None:
    with pytest.raises(ValueError, match="not the encoding"):
        ristretto.on_all(lambda raw: ristretto.multiply(_scalar(2), raw), [GENERATOR] * 50 + [bytes(32)])
