"""Masked-matrix products: against numpy in Z_2^64, what crosses the wire, and that a mask meets one matrix only."""

import numpy as np
import pytest

from mpc.dealer import Correlations, run_dealer
from mpc.errors import LocalProtocolError, RemoteProtocolError
from mpc.matrix import MatrixMask, mask_matrices, multiply
from mpc.session import Session
from tests.harness import run_parties


def shares_of(vector: np.ndarray, n: int, rng: np.random.Generator) -> list[np.ndarray]:
    shares = [rng.integers(0, 2**64, vector.shape, dtype=np.uint64) for _ in range(n - 1)]
    return [*shares, vector - np.add.reduce(shares)]


def run_products(n_parties: int, shapes: list[tuple[int, int]], dtype: type, repeats: int = 2):
    """Every party owns one matrix; all multiply every matrix both ways, `repeats` times; returns (run, expected)."""
    rng = np.random.default_rng(7)
    names = tuple("abc"[:n_parties])
    info = np.iinfo(np.int16)
    matrices = [rng.integers(info.min, info.max + 1, s).astype(dtype) for s in shapes]
    forward = [rng.integers(0, 2**64, s[1], dtype=np.uint64) for s in shapes]
    back = [rng.integers(0, 2**64, s[0], dtype=np.uint64) for s in shapes]
    forward_shares = [shares_of(v, n_parties, rng) for v in forward]
    back_shares = [shares_of(v, n_parties, rng) for v in back]

    def party(i: int):
        def body(channel):
            session = Session(channel, names, i, Correlations(channel, "dealer", i, len(names)))
            masked = mask_matrices(session, shapes, matrices[i], 0)
            out = []
            for _ in range(repeats):
                fwd = session.correlations.plan([m.request(transpose=False) for m in masked])
                bwd = session.correlations.plan([m.request(transpose=True) for m in masked])
                out += multiply(session, [(m, t, forward_shares[k][i]) for k, (m, t) in enumerate(zip(masked, fwd))])
                out += multiply(session, [(m, t, back_shares[k][i]) for k, (m, t) in enumerate(zip(masked, bwd))])
            session.correlations.close()
            return out

        return body

    bodies = {name: party(i) for i, name in enumerate(names)}
    run = run_parties({**bodies, "dealer": lambda channel: run_dealer(channel, names)})
    wide = [m.astype(np.int64).view(np.uint64) for m in matrices]
    expected = [m @ v for m, v in zip(wide, forward)] + [m.T @ v for m, v in zip(wide, back)]
    return run, names, expected * repeats


@pytest.mark.parametrize(
    ("n_parties", "shapes", "dtype"),
    [
        (2, [(17, 5), (17, 3)], np.int16),
        (2, [(1, 1), (6, 9)], np.int64),
        (3, [(11, 4), (11, 2), (11, 7)], np.int16),
    ],
)
def test_products_are_exact_in_the_ring(n_parties, shapes, dtype):
    run, names, expected = run_products(n_parties, shapes, dtype)
    for position, wanted in enumerate(expected):
        total = np.add.reduce([run.results[name][position] for name in names])
        assert np.array_equal(total, wanted)


def test_bytes_per_product_do_not_depend_on_the_matrix():
    run, _, _ = run_products(2, [(40, 6), (40, 3)], np.int16)
    vectors = [m for m in run.transcript if m.tag == "matrix/vector"]
    to_a = [m.size for m in vectors if m.receiver == "a"]
    assert sorted(set(to_a)) == [8 * 6, 8 * 40]
    assert not [m for m in run.transcript if m.receiver == "dealer" and m.tag != "dealer/request"]
    assert [m.size for m in run.transcript if m.tag == "matrix/mask"] == [8 * 40 * 6, 8 * 40 * 3]
    assert not [
        m for m in run.transcript if m.sender == "dealer" and m.receiver == "b" and m.tag == "dealer/correction"
    ]


def test_a_second_matrix_needs_a_second_mask():
    def owner(channel):
        correlations = Correlations(channel, "dealer", 0, 2)
        for _ in range(2):
            correlations.draw(MatrixMask(matrix=0, owner=0, n_rows=2, n_cols=2))
        correlations.close()

    with pytest.raises(RemoteProtocolError, match="matrix number 0 is taken"):
        run_parties({"a": owner, "dealer": lambda channel: run_dealer(channel, ("a",))})


def test_the_masked_matrix_is_frozen_and_its_shape_is_checked():
    def owner(channel):
        session = Session(channel, ("a",), 0, Correlations(channel, "dealer", 0, 2))
        source = np.ones((2, 2), dtype=np.int16)
        with pytest.raises(LocalProtocolError, match=r"announced was \(3, 2\)"):
            mask_matrices(session, [(3, 2)], source, 0)
        (masked,) = mask_matrices(session, [(2, 2)], source, 0)
        source[0, 0] = 9
        assert masked.content[0, 0] == 1
        with pytest.raises(ValueError, match="read-only"):
            masked.content[0, 0] = 3
        session.correlations.close()

    run_parties({"a": owner, "dealer": lambda channel: run_dealer(channel, ("a",))})
