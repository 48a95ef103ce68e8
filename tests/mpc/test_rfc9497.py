"""The oblivious function against the standard's vectors, both ways to a value, and proofs that must not hold."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpc.rng import Prg, fresh_prg
from mpc.tokens import rfc9497, ristretto
from mpc.tokens.rfc9497 import KeyPair, Mode

_ALL = json.loads((Path(__file__).parent.parent / "vectors" / "voprf_allVectors.json").read_text())
SUITES = {s["mode"]: s for s in _ALL if s["identifier"] == "ristretto255-SHA512" and s["mode"] in (0, 1)}
CASES = [(Mode(mode), case) for mode, suite in SUITES.items() for case in suite["vectors"]]


def _many(case: dict[str, str], name: str) -> list[bytes]:
    return [bytes.fromhex(part) for part in case[name].split(",")]


def _key(mode: Mode) -> KeyPair:
    suite = SUITES[mode]
    return rfc9497.derive_key_pair(bytes.fromhex(suite["seed"]), bytes.fromhex(suite["keyInfo"]), mode)


def _batch(n: int) -> tuple[KeyPair, list[bytes], list[bytes]]:
    key = rfc9497.generate_key_pair(Prg(bytes([1]) * 32))
    prg = Prg(bytes([2]) * 32)
    blinded = [rfc9497.blind(b"%d" % i, ristretto.random_scalar(prg), Mode.VOPRF) for i in range(n)]
    return key, blinded, rfc9497.blind_evaluate(key.secret, blinded)


def test_the_vectors_are_all_there() -> None:
    assert [(int(mode), case["Batch"]) for mode, case in CASES] == [(0, 1), (0, 1), (1, 1), (1, 1), (1, 2)]


@pytest.mark.parametrize("mode", Mode)
def test_the_vectors_domain_and_key(mode: Mode) -> None:
    assert (b"HashToGroup-" + rfc9497._context(mode)).hex() == SUITES[mode]["groupDST"]
    assert _key(mode).secret.hex() == SUITES[mode]["skSm"]
    if mode == Mode.VOPRF:
        assert _key(mode).public.hex() == SUITES[mode]["pkSm"]


@pytest.mark.parametrize(("mode", "case"), CASES)
def test_vectors(mode: Mode, case) -> None:
    key, inputs, scalars = _key(mode), _many(case, "Input"), _many(case, "Blind")
    blinded, evaluated, outputs = (_many(case, name) for name in ("BlindedElement", "EvaluationElement", "Output"))
    assert [rfc9497.blind(*pair, mode) for pair in zip(inputs, scalars)] == blinded
    assert rfc9497.blind_evaluate(key.secret, blinded) == evaluated
    assert [rfc9497.finalize(*triple) for triple in zip(inputs, scalars, evaluated)] == outputs
    assert [rfc9497.evaluate(key.secret, message, mode) for message in inputs] == outputs
    if mode == Mode.VOPRF:
        proof = bytes.fromhex(case["Proof"]["proof"])
        assert rfc9497._prove_with(bytes.fromhex(case["Proof"]["r"]), key, blinded, evaluated) == proof
        rfc9497.verify(key.public, blinded, evaluated, proof)


@settings(max_examples=30, deadline=None)
@given(st.binary(max_size=200), st.sampled_from(Mode), st.binary(min_size=32, max_size=32))
def test_both_ways_lead_to_the_same_value(message: bytes, mode: Mode, seed: bytes) -> None:
    key, scalar = rfc9497.derive_key_pair(seed, b"", mode), ristretto.random_scalar(fresh_prg())
    evaluated = rfc9497.blind_evaluate(key.secret, [rfc9497.blind(message, scalar, mode)])
    assert rfc9497.finalize(message, scalar, evaluated[0]) == rfc9497.evaluate(key.secret, message, mode)


def test_modes_keys_and_inputs_have_different_values() -> None:
    keys = [rfc9497.generate_key_pair(fresh_prg()) for _ in range(2)]
    values = {rfc9497.evaluate(k.secret, m, mode) for k in keys for m in (b"", b"\0", b"x") for mode in Mode}
    assert len(values) == 12


def test_what_is_sent_depends_on_the_scalar() -> None:
    prg = fresh_prg()
    assert len({rfc9497.blind(b"x", ristretto.random_scalar(prg), Mode.OPRF) for _ in range(8)}) == 8


@pytest.mark.parametrize("n", [1, 2, 40])
def test_proofs_hold_and_are_fresh(n: int) -> None:
    key, blinded, evaluated = _batch(n)
    proofs = [rfc9497.prove(key, blinded, evaluated, fresh_prg()) for _ in range(2)]
    assert proofs[0] != proofs[1]
    for proof in proofs:
        rfc9497.verify(key.public, blinded, evaluated, proof)


def test_one_answer_of_another_key_spoils_the_proof_of_all() -> None:
    key, blinded, evaluated = _batch(6)
    other = rfc9497.generate_key_pair(fresh_prg())
    mixed = [*evaluated[:5], *rfc9497.blind_evaluate(other.secret, blinded[5:])]
    for prover in (key, other, KeyPair(key.secret, other.public), KeyPair(other.secret, key.public)):
        proof = rfc9497.prove(prover, blinded, mixed, fresh_prg())
        with pytest.raises(ValueError, match="the proof does not hold"):
            rfc9497.verify(key.public, blinded, mixed, proof)


def test_a_proof_is_of_one_batch_in_one_order_and_of_one_key() -> None:
    key, blinded, evaluated = _batch(3)
    proof = rfc9497.prove(key, blinded, evaluated, fresh_prg())
    other = rfc9497.generate_key_pair(fresh_prg())
    for public, c, d in (
        (key.public, blinded[::-1], evaluated[::-1]),
        (key.public, blinded[:2], evaluated[:2]),
        (key.public, evaluated, blinded),
        (key.public, blinded, [evaluated[1], evaluated[0], evaluated[2]]),
        (other.public, blinded, evaluated),
    ):
        with pytest.raises(ValueError, match="the proof does not hold"):
            rfc9497.verify(public, c, d, proof)


def test_errors_that_cancel_are_noticed() -> None:
    """D_0 + E and D_1 - E have the right sum, but not the right weighted one."""
    key, blinded, evaluated = _batch(2)
    error = ristretto.multiply_base((7).to_bytes(32, "little"))
    minus = ristretto.multiply((ristretto.ORDER - 1).to_bytes(32, "little"), error)
    wrong = [ristretto.add(evaluated[0], error), ristretto.add(evaluated[1], minus)]
    proof = rfc9497.prove(key, blinded, wrong, fresh_prg())
    with pytest.raises(ValueError, match="the proof does not hold"):
        rfc9497.verify(key.public, blinded, wrong, proof)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 63), st.integers(1, 255))
def test_no_changed_proof_holds(at: int, flip: int) -> None:
    key, blinded, evaluated = _batch(1)
    proof = bytearray(rfc9497.prove(key, blinded, evaluated, fresh_prg()))
    proof[at] ^= flip
    with pytest.raises(ValueError):
        rfc9497.verify(key.public, blinded, evaluated, bytes(proof))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda proof: proof[:-1], "a proof has 64 bytes, got 63"),
        (lambda proof: proof + b"\0", "a proof has 64 bytes, got 65"),
        (lambda _: bytes(64), "a scalar of zero"),
        (lambda proof: proof[:32] + bytes([255]) * 32, "a scalar that is not below the group's order"),
    ],
)
def test_malformed_proofs(change, why: str) -> None:
    key, blinded, evaluated = _batch(1)
    proof = rfc9497.prove(key, blinded, evaluated, fresh_prg())
    with pytest.raises(ValueError, match=why):
        rfc9497.verify(key.public, blinded, evaluated, change(proof))


@pytest.mark.parametrize("public", [bytes(32), bytes([255]) * 32])
def test_a_public_key_must_be_an_element(public: bytes) -> None:
    key, blinded, evaluated = _batch(1)
    proof = rfc9497.prove(key, blinded, evaluated, fresh_prg())
    with pytest.raises(ValueError, match="not the encoding of an element"):
        rfc9497.verify(public, blinded, evaluated, proof)


def test_batches_have_bounds() -> None:
    key, blinded, evaluated = _batch(1)
    for c, d in (([], []), (blinded, []), (blinded * 2, evaluated), (blinded * 65536, evaluated * 65536)):
        with pytest.raises(ValueError, match="1 to 65535 pairs of elements"):
            rfc9497.prove(key, c, d, fresh_prg())


@pytest.mark.parametrize("bad", [bytes(32), bytes([1]) + bytes(31), bytes([255]) * 32])
def test_elements_from_outside_are_checked(bad: bytes) -> None:
    key, scalar = _batch(1)[0], ristretto.random_scalar(fresh_prg())
    with pytest.raises(ValueError, match="not the encoding of an element"):
        rfc9497.blind_evaluate(key.secret, [bad])
    with pytest.raises(ValueError, match="not the encoding of an element"):
        rfc9497.finalize(b"x", scalar, bad)


def test_sizes_of_inputs_seeds_and_purposes() -> None:
    longest, scalar = bytes(65535), ristretto.random_scalar(fresh_prg())
    rfc9497.blind(longest, scalar, Mode.OPRF)
    with pytest.raises(ValueError, match="at most 65535 bytes can be hashed, got 65536"):
        rfc9497.blind(longest + b"\0", scalar, Mode.OPRF)
    with pytest.raises(ValueError, match="a seed has 32 bytes, got 31"):
        rfc9497.derive_key_pair(bytes(31), b"", Mode.OPRF)
    with pytest.raises(ValueError, match="at most 65535 bytes can be hashed, got 65536"):
        rfc9497.derive_key_pair(bytes(32), longest + b"\0", Mode.OPRF)


def test_a_key_that_hashes_to_zero_is_skipped(monkeypatch) -> None:
    draws = [bytes(32), (5).to_bytes(32, "little")]
    monkeypatch.setattr(rfc9497, "_hash_to_scalar", lambda *_: draws.pop(0))
    assert rfc9497.derive_key_pair(bytes(32), b"", Mode.OPRF).secret == (5).to_bytes(32, "little")
    monkeypatch.setattr(rfc9497, "_hash_to_scalar", lambda *_: bytes(32))
    with pytest.raises(ArithmeticError, match="256 hashes in a row are zero"):
        rfc9497.derive_key_pair(bytes(32), b"", Mode.OPRF)


def test_a_secret_is_not_shown() -> None:
    key = _batch(1)[0]
    assert key.secret.hex() not in repr(key)
    assert repr(key.secret) not in repr(key)
    with pytest.raises(ValueError, match="a scalar of zero"):
        rfc9497.key_pair(bytes(32))
