"""Gram matrices of masked matrices: exact against NumPy in both rings, what crosses the wire, and what is refused."""

import hashlib
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpc.dealer import run_dealer
from mpc.errors import LocalProtocolError, RemoteProtocolError
from mpc.gram import MatrixGram, MatrixWeights, gram, plan_gram, plan_weighted_gram, weighted_gram
from mpc.matrix import MatrixMask, OwnerMatrix, mask_matrices, multiply
from mpc.onehot import OneHot
from mpc.wire import Kind, send_json
from tests.harness import run_parties
from tests.mpc.playing import NAMES, joined, play, results
from tests.mpc.test_matrix import WORDS, dense, random_matrix, shares_of, uniform_bytes


def grams(mine, n_parties, bits, weights=None, twice=False):
    """X^T X and X^T diag(w) X of one matrix per party, and a second one at party 0 if `twice`; (run, opened ones)."""
    word = WORDS[bits]
    n = mine[0].shape[0]
    w = np.zeros(n, dtype=word) if weights is None else weights
    shares = shares_of(w, n_parties, np.random.default_rng(3))
    none = np.zeros((n, 0), dtype=np.int16)

    def body(session):
        me = session.me
        shapes = [m.shape for m in mine]
        blocks = mask_matrices(session, shapes, mine[me], 0, bits, keep_mask=True)
        if twice:
            more = [(n, 2)] + [(n, 0)] * (n_parties - 1)
            second = np.arange(2 * n, dtype=np.int32).reshape(n, 2) - n if me == 0 else none
            blocks.append(mask_matrices(session, more, second, 50, bits, keep_mask=True)[0])
        out = [gram(session, session.correlations.plan(plan_gram(blocks)), blocks)]
        if weights is not None:
            tickets = session.correlations.plan(plan_weighted_gram(blocks))
            out.append(weighted_gram(session, tickets, blocks, shares[me]))
        return out

    run = play(n_parties, body)
    return run, [joined(list(parts)) for parts in zip(*results(run), strict=True)]


def together(mine, bits):
    return np.concatenate([dense(m, WORDS[bits]) for m in mine], axis=1)


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize(
    ("n", "columns", "kinds"),
    [
        (23, (3, 5), ("int16", "int64")),
        (40, (4, 1), ("one-hot", "int32")),
        (40, (6, 6), ("one-hot", "one-hot")),
        (9, (2, 0, 1), ("words", "int16", "int16")),
        (1, (1, 1), ("int16", "int16")),
        (0, (2, 3), ("int16", "one-hot")),
        (70, (2, 3, 1, 4, 2), ("int16", "one-hot", "int64", "words", "int32")),
    ],
)
def test_gram_matrices_are_exact_and_symmetric(n, columns, kinds, bits):
    rng = np.random.default_rng(len(columns))
    mine = [random_matrix(rng, kind, n, d, bits) for kind, d in zip(kinds, columns)]
    w = rng.integers(0, 2**bits, n, dtype=WORDS[bits])
    _, (plain, weighted) = grams(mine, len(mine), bits, w)
    X = together(mine, bits)
    np.testing.assert_array_equal(plain, X.T @ X)
    np.testing.assert_array_equal(weighted, X.T @ (w[:, None] * X))
    for result in (plain, weighted):
        assert result.dtype == WORDS[bits]
        np.testing.assert_array_equal(result, result.T)


def test_two_matrices_of_one_owner_need_nothing_of_the_dealer_between_them():
    rng = np.random.default_rng(1)
    mine = [random_matrix(rng, "int16", 12, d, 64) for d in (3, 2)]
    w = rng.integers(0, 2**64, 12, dtype=np.uint64)
    _, (plain, weighted) = grams(mine, 2, 64, w, twice=True)
    X = together([*mine, np.arange(24, dtype=np.int32).reshape(12, 2) - 12], 64)
    np.testing.assert_array_equal(plain, X.T @ X)
    np.testing.assert_array_equal(weighted, X.T @ (w[:, None] * X))


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_any_matrices_of_any_owners(data):
    bits = data.draw(st.sampled_from([32, 64]))
    n = data.draw(st.integers(0, 20))
    kinds = data.draw(
        st.lists(st.sampled_from(["int16", "int32", "int64", "words", "one-hot"]), min_size=2, max_size=4)
    )
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    mine = [random_matrix(rng, kind, n, data.draw(st.integers(0, 4)), bits) for kind in kinds]
    w = rng.integers(0, 2**bits, n, dtype=WORDS[bits])
    _, (plain, weighted) = grams(mine, len(mine), bits, w)
    X = together(mine, bits)
    np.testing.assert_array_equal(plain, X.T @ X)
    np.testing.assert_array_equal(weighted, X.T @ (w[:, None] * X))


def sent(run, tag, sender=None, receiver=None):
    return sum(
        m.size for m in run.transcript if m.tag == tag and sender in (None, m.sender) and receiver in (None, m.receiver)
    )


@pytest.mark.parametrize("bits", [32, 64])
def test_a_gram_matrix_costs_the_dealers_blocks_and_nothing_else(bits):
    rng = np.random.default_rng(2)
    mine = [random_matrix(rng, "int16", 50, d, bits) for d in (70, 60, 3)]
    run, _ = grams(mine, 3, bits)
    b = bits // 8
    assert {m.tag for m in run.transcript if m.sender != "dealer" and m.receiver != "dealer"} == {"matrix/mask"}
    assert sent(run, "dealer/correction") == b * (70 * 60 + 70 * 3 + 60 * 3)
    for name, d in zip(NAMES, (70, 60, 3)):
        assert sent(run, "matrix/mask", name) == 2 * b * 50 * d


@pytest.mark.parametrize("bits", [32, 64])
def test_the_weighted_one_costs_what_it_says_and_depends_on_sizes_only(bits):
    shapes = []
    columns, n, b = (5, 2, 3), 200, bits // 8
    for seed in (0, 1):
        rng = np.random.default_rng(seed)
        mine = [random_matrix(rng, "int16", n, d, bits) for d in columns]
        w = rng.integers(0, 2**bits if seed else 1, n, dtype=WORDS[bits])
        run, _ = grams(mine, 3, bits, w)
        shapes.append(run.shape())
        for sender, receiver in itertools.permutations("abc", 2):
            assert sent(run, "gram/weights", sender, receiver) == b * n
        # a is wider than b and c, and c than b: the narrower one's owner sends.
        wanted = {("b", "a"): 2, ("c", "a"): 3, ("b", "c"): 2}
        for pair in itertools.permutations("abc", 2):
            assert sent(run, "matrix/vector", *pair) == b * n * wanted.get(pair, 0)
        blocks = [columns[i] * columns[j] for i, j in itertools.combinations_with_replacement(range(3), 2)]
        across = 5 * 2 + 5 * 3 + 2 * 3
        # `grams` makes the unweighted matrix first: another block for each two owners.
        assert sent(run, "dealer/correction") == b * (n * 10 + sum(blocks) + across) + b * across
        rounds = [m.tag for m in run.transcript if (m.sender, m.receiver) == ("b", "a")]
        assert rounds == ["matrix/mask", "gram/weights", "matrix/vector"]
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize("value", [0, 1, -5])
@pytest.mark.parametrize("bits", [32, 64])
def test_everything_that_is_opened_is_uniform(value, bits, monkeypatch):
    counter = itertools.count()
    monkeypatch.setattr("mpc.dealer.fresh_key", lambda: hashlib.sha256(b"gram/%d" % next(counter)).digest())
    word = WORDS[bits]
    mine = [np.full((16_000, d), value, dtype=np.int16) for d in (2, 1)]
    run, _ = grams(mine, 2, bits, np.full(16_000, value).astype(word))
    for tag in ("matrix/mask", "gram/weights", "matrix/vector"):
        for sender in "ab":
            bodies = [np.frombuffer(m.body, np.uint64) for m in run.transcript if (m.tag, m.sender) == (tag, sender)]
            for words in bodies:
                uniform_bytes(words)
            assert bodies or (tag, sender) == ("matrix/vector", "a")
    opened = [np.frombuffer(m.body, word) for m in run.transcript if m.tag == "gram/weights"]
    uniform_bytes((opened[0] + opened[1]).view(np.uint64))


def test_it_is_refused_without_the_mask_or_with_other_tickets():
    def body(session, change):
        shapes = [(4, 2), (4, 1)]
        mine = np.ones(shapes[session.me], dtype=np.int16)
        kept = mask_matrices(session, shapes, mine, 0, keep_mask=True)
        bare = mask_matrices(session, shapes, mine, 10)
        short = mask_matrices(session, [(3, 2), (3, 1)], np.ones((3, 2 - session.me), dtype=np.int16), 20)
        w = np.zeros(4, dtype=np.uint64)
        plan = session.correlations.plan
        if change == "mask":
            gram(session, plan(plan_gram(bare)), bare)
        elif change == "tickets":
            gram(session, plan(plan_gram(bare)), kept)
        elif change == "rows":
            plan_gram([kept[0], short[1]])
        elif change == "twice":
            plan_gram([kept[0], kept[0]])
        elif change == "weights":
            weighted_gram(session, plan(plan_weighted_gram(kept)), kept, w[:3])
        elif change == "frozen":
            changed = [
                OwnerMatrix(m.number, m.owner, np.ones(m.content.shape, dtype=np.uint64), 64, m.mask) for m in kept
            ]
            gram(session, plan(plan_gram(changed)), changed)
        else:
            tickets = plan(plan_gram(kept))
            gram(session, tickets, kept)
            gram(session, tickets, kept)

    cases = {
        "mask": "was not kept",
        "tickets": "not for the Gram matrix",
        "rows": "same rows and ring",
        "twice": "must be different",
        "weights": "weights must be",
        "frozen": "could have changed",
        "again": "already used",
    }
    for change, why in cases.items():
        with pytest.raises(LocalProtocolError, match=why):
            play(2, lambda session, change=change: body(session, change))


@pytest.mark.parametrize(
    ("request_", "why"),
    [
        (MatrixGram(left=0, right=7, n_rows=3, n_left=2, n_right=1), "no mask of this shape under number 7"),
        (MatrixGram(left=0, right=1, n_rows=3, n_left=2, n_right=2), "no mask of this shape under number 1"),
        (MatrixGram(left=0, right=1, n_rows=3, n_left=2, n_right=1, bits=32), "no mask of this shape under number 0"),
        (MatrixWeights(matrices=(0, 1), n_cols=(2, 2), n_rows=3), "no mask of this shape under number 1"),
    ],
)
def test_the_dealer_knows_its_masks(request_, why):
    def body(session):
        for i, d in enumerate((2, 1)):
            session.correlations.draw(MatrixMask(matrix=i, owner=i, n_rows=3, n_cols=d))
        session.correlations.draw(request_)

    with pytest.raises(RemoteProtocolError, match=why):
        play(2, body)


@pytest.mark.parametrize(
    "raw",
    [
        {"kind": "matrix-weights", "matrices": [0], "n_cols": [1, 2], "n_rows": 1},
        {"kind": "matrix-weights", "matrices": [-1], "n_cols": [1], "n_rows": 1},
        {"kind": "matrix-weights", "matrices": [0] * 300, "n_cols": [1] * 300, "n_rows": 1},
        {"kind": "matrix-gram", "left": 0, "right": 1, "n_rows": 1, "n_left": 1, "n_right": 1, "bits": 16},
        {"kind": "matrix-gram", "left": 0, "right": 1, "n_rows": 1, "n_left": 1},
    ],
)
def test_the_dealer_refuses_senseless_requests(raw):
    def asker(channel):
        channel.recv("dealer", "dealer/key", Kind.BYTES, exact=32)
        send_json(channel, "dealer", "dealer/request", [raw])

    with pytest.raises(RemoteProtocolError, match="malformed"):
        run_parties({"a": asker, "dealer": lambda channel: run_dealer(channel, ["a"])})


def test_a_column_that_one_party_knows_is_a_vector_of_its_holder():
    """Sums per bin of a label that another owner knows: only the holder sends."""
    rng = np.random.default_rng(8)
    bins = rng.integers(0, 7, (60, 2)).astype(np.uint8)
    y = rng.integers(0, 2, 60).astype(np.uint32)

    def body(session):
        mine = OneHot(bins, 7) if session.me == 0 else np.zeros((60, 0), dtype=np.int16)
        matrix = mask_matrices(session, [(60, 14), (60, 0), (60, 0)], mine, 0, 32)[0]
        request = matrix.request(transpose=True, holder=2, bounds=(1, 1))
        (ticket,) = session.correlations.plan([request])
        return multiply(session, [(matrix, ticket, y if session.me == 2 else None)])[0]

    run = play(3, body)
    np.testing.assert_array_equal(joined(results(run)), dense(OneHot(bins, 7), np.uint32).T @ y)
    assert [(m.sender, m.receiver, m.size) for m in run.transcript if m.tag == "matrix/vector"] == [("c", "a", 240)]
