"""Linear algebra on shares against NumPy, its range, and its cost."""

import numpy as np
import pytest

from mpc.errors import LocalProtocolError, OutOfRange
from mpc.linear import (
    FORM_BITS,
    INVERSE_BITS,
    MATRIX_BITS,
    RIGHT_BITS,
    SOLUTION_BITS,
    check_inverse,
    forms,
    inverse,
    plan_check_inverse,
    plan_forms,
    plan_inverse,
    plan_solve,
    solve,
)
from mpc.ring import decode, encode
from tests.vertical.helpers import NAMES, run_owners


def psd(eigenvalues, seed=0):
    basis, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(len(eigenvalues),) * 2))
    return basis @ np.diag(eigenvalues) @ basis.T


def split(values, bits, parties, seed=1):
    rng = np.random.default_rng(seed)
    words = encode(values, bits)
    shares = [rng.integers(0, 2**64, size=words.shape, dtype=np.uint64) for _ in range(parties - 1)]
    return [*shares, words - sum(shares, np.zeros_like(words))]


def run_inverse(A, parties=2, check=None, g=None):
    d = len(A)
    shares = split(A, MATRIX_BITS, parties)
    rights = None if g is None else split(g, RIGHT_BITS, parties)

    def owner(i):
        def body(session):
            X = inverse(session, session.correlations.plan(plan_inverse(d)), shares[i])
            if check is not None:
                check_inverse(session, session.correlations.plan(plan_check_inverse(d)), shares[i], X, check)
            solved = X[:0, 0]
            if rights is not None:
                solved = solve(session, session.correlations.plan(plan_solve(d)), X, rights[i])
            return X, solved

        return body

    run = run_owners([owner(i) for i in range(parties)])
    X = decode(sum(run[n][0] for n in NAMES[:parties]), INVERSE_BITS)
    return X, decode(sum(run[n][1] for n in NAMES[:parties]), SOLUTION_BITS), run


@pytest.mark.parametrize("parties", [2, 3])
def test_a_well_conditioned_matrix_is_inverted(parties):
    A, g = psd(np.linspace(0.02, 1.0, 12)), np.linspace(-0.5, 0.5, 12)
    X, solved, _ = run_inverse(A, parties, check=2**-12, g=g)
    assert np.abs(X - np.linalg.inv(A)).max() < 1e-3
    assert np.abs(solved - np.linalg.solve(A, g)).max() < 1e-3


def test_an_ill_conditioned_matrix_is_inverted_as_far_as_the_range_goes():
    eigenvalues = np.array([1.0, 0.3, 0.05, 0.01, 1e-3, 2e-4])
    A = psd(eigenvalues, seed=3)
    X, _, _ = run_inverse(A)
    error = np.abs(np.diag(X) / np.diag(np.linalg.inv(A)) - 1)
    assert error.max() < 2e-3


def test_a_singular_matrix_gives_a_large_number_and_not_noise():
    A = psd([1.0, 0.5, 0.25, 0.0], seed=4)
    X, _, _ = run_inverse(A)
    values = np.linalg.eigvalsh((X + X.T) / 2)
    assert values[-1] == pytest.approx(2**16, rel=0.02)
    assert values[:3] == pytest.approx([1, 2, 4], rel=0.02)
    with pytest.raises(OutOfRange, match="singular"):
        run_inverse(A, check=2**-10)


def test_a_planted_wrong_inverse_is_found():
    A = psd([1.0, 0.5, 0.25], seed=5)
    good, wrong = split(A, MATRIX_BITS, 2), split(np.linalg.inv(A) + 0.01, INVERSE_BITS, 2)

    def owner(i):
        return lambda s: check_inverse(s, s.correlations.plan(plan_check_inverse(3)), good[i], wrong[i], 2**-12)

    with pytest.raises(OutOfRange):
        run_owners([owner(0), owner(1)])


def test_forms_are_of_each_owners_own_rows():
    rng = np.random.default_rng(6)
    shapes = [(3, 2), (4, 4)]
    rows = [rng.normal(size=shape) for shape in shapes]
    rows = [r / np.linalg.norm(r, axis=1, keepdims=True) for r in rows]
    blocks = [psd(np.geomspace(1, 60000, r), seed=r) for _, r in shapes]
    shares = [split(b, INVERSE_BITS, 2) for b in blocks]

    def owner(i):
        return lambda s: forms(s, s.correlations.plan(plan_forms(shapes)), [b[i] for b in shares], rows[i])

    run = run_owners([owner(0), owner(1)])
    for b in range(2):
        got = decode(run["lender"][b] + run["platform"][b], FORM_BITS)
        want = np.einsum("ij,jk,ik->i", rows[b], blocks[b], rows[b])
        assert np.abs(got - want).max() < 0.1  # rows of 22 bits times a norm of 60,000
    rows[0] = 2 * rows[0]
    with pytest.raises(LocalProtocolError, match="longer than 1"):
        run_owners([owner(0), owner(1)])


def test_the_cost_is_what_it_says_and_depends_on_the_size_only():
    d = 5
    runs = [run_inverse(psd(np.linspace(low, 1, d)))[2] for low in (0.01, 0.5)]
    assert runs[0].shape() == runs[1].shape()
    sent = sum(m.size for m in runs[0].transcript if m.sender == "lender" and m.receiver == "platform")
    key = 16 + 16  # what binding an engine sends
    assert sent - 16 * 48 * d * d in range(2 * key + 1)
