"""Masked-matrix products: against NumPy in both rings, what crosses the wire, and that a mask meets one matrix only."""

import hashlib
import itertools
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpc.correlations import MAX_WORDS
from mpc.dealer import Correlations, run_dealer
from mpc.errors import LocalProtocolError, OutOfRange, RemoteProtocolError
from mpc.matrix import MatrixMask, MatrixProduct, OwnerMatrix, check_range, mask_matrices, multiply
from mpc.onehot import OneHot, frozen, is_frozen
from mpc.session import Session
from mpc.wire import Kind, send_json
from tests.harness import run_parties, try_parties
from tests.mpc.playing import NAMES, joined, play, results

WORDS = {32: np.uint32, 64: np.uint64}
KINDS = ("int16", "int32", "int64", "words", "one-hot")


def dealer(channel):
    return run_dealer(channel, ("a", "b"))


def party(me: int, body):
    """One of two parties, for tests that need the channel."""

    def run(channel):
        session = Session(channel, ("a", "b"), me, Correlations(channel, "dealer", me, 2))
        result = body(session)
        session.correlations.close()
        return result

    return run


def shares_of(words: np.ndarray, n: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Additive shares in the ring of the words."""
    shares = [rng.integers(0, 2 ** (8 * words.itemsize), words.shape, dtype=words.dtype) for _ in range(n - 1)]
    last = words.copy()
    for share in shares:
        last -= share
    return [*shares, last]


def random_matrix(rng: np.random.Generator, kind: str, n: int, d: int, bits: int):
    """A matrix of every magnitude its type has; a one-hot one of d features has 3 d columns, or 1 feature if d is 0."""
    if kind == "one-hot":
        return OneHot(rng.integers(0, 3, (n, max(1, d))).astype(np.uint8 if d % 2 else np.uint16), 3)
    dtype = np.dtype(WORDS[bits] if kind == "words" else kind)
    info = np.iinfo(dtype)
    return rng.integers(info.min, info.max, (n, d), dtype=dtype, endpoint=True)


def dense(X, word) -> np.ndarray:
    """The matrix in words."""
    if not isinstance(X, OneHot):
        return X.astype(word)
    n, d = X.codes.shape
    return (X.codes[:, :, None] == np.arange(X.n_bins)).reshape(n, d * X.n_bins).astype(word)


def products(mine, bits=64, vectors=1, repeats=1, seed=7):
    """Every party owns one matrix; all multiply every matrix both ways; returns (run, opened products, expected)."""
    rng = np.random.default_rng(seed)
    n_parties, word = len(mine), WORDS[bits]
    tail = () if vectors == 1 else (vectors,)
    wide = [dense(m, word) for m in mine]
    forward = [rng.integers(0, 2**bits, (m.shape[1], *tail), dtype=word) for m in mine]
    back = [rng.integers(0, 2**bits, (m.shape[0], *tail), dtype=word) for m in mine]
    f_shares = [shares_of(v, n_parties, rng) for v in forward]
    b_shares = [shares_of(v, n_parties, rng) for v in back]

    def body(session):
        masked = mask_matrices(session, [m.shape for m in mine], mine[session.me], 0, bits)
        out = []
        for _ in range(repeats):
            requests = [m.request(transpose=t, vectors=vectors) for t in (False, True) for m in masked]
            tickets = session.correlations.plan(requests)
            vectors_ = [s[session.me] for s in f_shares + b_shares]
            out += multiply(session, list(zip(masked * 2, tickets, vectors_)))
        return out

    run = play(n_parties, body)
    opened = [joined(list(parts)) for parts in zip(*results(run), strict=True)]
    return run, opened, ([m @ v for m, v in zip(wide, forward)] + [m.T @ v for m, v in zip(wide, back)]) * repeats


def check_products(*args, **kwargs):
    run, opened, expected = products(*args, **kwargs)
    for got, wanted in zip(opened, expected, strict=True):
        np.testing.assert_array_equal(got, wanted)
        assert got.dtype == wanted.dtype
    return run


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("vectors", [1, 2, 5])
@pytest.mark.parametrize(
    ("shapes", "kinds"),
    [
        ([(17, 5), (17, 3)], ("int16", "int16")),
        ([(1, 1), (6, 9)], ("int64", "int32")),
        ([(11, 4), (11, 2), (11, 7)], ("words", "one-hot", "int16")),
        ([(0, 4), (3, 0), (0, 0), (30, 2), (9, 1)], ("int16", "int64", "int32", "one-hot", "words")),
    ],
)
def test_products_are_exact_in_the_ring(shapes, kinds, vectors, bits):
    rng = np.random.default_rng(vectors)
    check_products([random_matrix(rng, k, *s, bits) for k, s in zip(kinds, shapes)], bits, vectors, repeats=2)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_any_matrices_types_and_vectors(data):
    bits = data.draw(st.sampled_from([32, 64]))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    side = st.integers(0, 12)
    kinds = data.draw(st.lists(st.sampled_from(KINDS), min_size=2, max_size=5))
    mine = [random_matrix(rng, kind, data.draw(side), data.draw(side), bits) for kind in kinds]
    check_products(mine, bits, data.draw(st.integers(0, 4)), seed=data.draw(st.integers(0, 2**32)))


@pytest.mark.parametrize(("bits", "vectors"), [(64, 1), (64, 3), (32, 2)])
@pytest.mark.parametrize("n_parties", [2, 3, 5])
def test_the_cost_is_the_stated_one_and_depends_on_sizes_only(n_parties, bits, vectors):
    b, n, columns = bits // 8, 40, (6, 3, 2, 1, 4)[:n_parties]
    shapes = []
    for seed in (0, 1):
        rng = np.random.default_rng(seed)
        mine = [random_matrix(rng, "int16", n, d, bits) * np.int16(seed) for d in columns]
        run = check_products(mine, bits, vectors, seed=seed)
        shapes.append(run.shape())
        for (i, sender), (j, receiver) in itertools.permutations(enumerate(NAMES[:n_parties]), 2):
            sent = {(m.tag, m.size) for m in run.transcript if (m.sender, m.receiver) == (sender, receiver)}
            assert sent == {
                ("matrix/mask", b * n * columns[i]),
                ("matrix/vector", b * columns[j] * vectors),
                ("matrix/vector", b * n * vectors),
            }
        dealt = [m.size for m in run.transcript if m.tag == "dealer/correction"]
        assert sum(dealt) == b * vectors * (n * n_parties + sum(columns))
        assert {m.tag for m in run.transcript if m.receiver == "dealer"} == {"dealer/request"}
    assert shapes[0] == shapes[1]


def test_openings_leave_before_the_dealer_is_waited_for():
    def body(session):
        shapes = [(5000, 2), (5000, 1)]
        mine = np.ones(shapes[session.me], dtype=np.int16)
        masked = mask_matrices(session, shapes, mine, 0)
        tickets = session.correlations.plan([m.request(transpose=False) for m in masked])
        return multiply(session, [(m, t, np.zeros(m.content.shape[1], np.uint64)) for m, t in zip(masked, tickets)])

    held = []

    def late(channel):
        """A dealer whose corrections stay here until every party has said that its openings are on their way."""

        def send(to, tag, kind, content):
            if tag == "dealer/correction":
                held.append((to, tag, kind, bytes(content)))
            else:
                channel.send(to, tag, kind, content)

        def recv(*args, **kwargs):
            if len(held) == 4:
                for name in "ab":
                    channel.recv(name, "test/opened", Kind.BYTES, exact=0)
                for message in held:
                    channel.send(*message)
                held.clear()
            return channel.recv(*args, **kwargs)

        return run_dealer(SimpleNamespace(send=send, recv=recv), ("a", "b"))

    def telling(me):
        def run(channel):
            def send(to, tag, kind, content):
                channel.send(to, tag, kind, content)
                if tag == "matrix/vector":
                    channel.send("dealer", "test/opened", Kind.BYTES, b"")

            return party(me, body)(SimpleNamespace(send=send, recv=channel.recv))

        return run

    run = run_parties({"a": telling(0), "b": telling(1), "dealer": late})
    for mine, other in zip(run["a"], run["b"], strict=True):
        np.testing.assert_array_equal(mine + other, np.zeros_like(mine))


@pytest.mark.parametrize("value", [0, 1, -7])
@pytest.mark.parametrize("bits", [32, 64])
def test_masked_matrices_and_vectors_are_uniform_whatever_they_are(value, bits, monkeypatch):
    counter = itertools.count()
    monkeypatch.setattr("mpc.dealer.fresh_key", lambda: hashlib.sha256(b"matrix/%d" % next(counter)).digest())
    n, word = 32_000, WORDS[bits]
    codes = OneHot(np.full(n, abs(value), dtype=np.uint8), 8)

    def body(session):
        mine = np.full((n, 1), value, dtype=np.int16) if session.me else codes
        masked = mask_matrices(session, [(n, 8), (n, 1)], mine, 0, bits)
        tickets = session.correlations.plan([m.request(transpose=True) for m in masked])
        return multiply(session, [(m, t, np.full(n, value).astype(word)) for m, t in zip(masked, tickets)])

    run = play(2, body)
    for tag in ("matrix/mask", "matrix/vector"):
        bodies = [np.frombuffer(m.body, np.uint64) for m in run.transcript if m.tag == tag]
        assert len(bodies) == 2
        for words in bodies:
            uniform_bytes(words)


def uniform_bytes(words: np.ndarray) -> None:
    """Chi-square of the bytes and of the exclusive or of neighbours; no bit more often 1 than 6 standard deviations allow."""
    ones = np.unpackbits(words.view(np.uint8).reshape(-1, 8), axis=1).mean(axis=0)
    assert np.abs(ones - 0.5).max() < 6 * 0.5 / np.sqrt(len(words))
    for sample in (words, words[1:] ^ words[:-1]):
        counts = np.bincount(sample.view(np.uint8), minlength=256)
        expected = sample.size * 8 / 256
        assert ((counts - expected) ** 2 / expected).sum() < 255 + 12 * np.sqrt(2 * 255)


def test_a_second_matrix_needs_a_second_number():
    """The dealer refuses; and the mask of the second version was another one anyway, so what was sent says nothing."""

    def body(session):
        for value in (3, 4):
            columns = 0 if session.me else 4
            mask_matrices(session, [(500, 4), (500, 0)], np.full((500, columns), value, np.int16), 0)

    run = try_parties({"a": party(0, body), "b": party(1, body), "dealer": dealer})
    assert "matrix number 0 is taken" in str(next(iter(run.errors.values())))
    first, second = (np.frombuffer(m.body, np.uint64) for m in run.transcript if m.size == 8 * 2000)
    assert not np.isin(second - first, np.arange(-1, 2).astype(np.uint64)).any()


def test_the_same_matrix_under_two_numbers_has_two_masks():
    def body(session):
        shapes = [(500, 4), (500, 0)]
        mine = np.ones(shapes[session.me], dtype=np.int16)
        return [mask_matrices(session, shapes, mine, first)[0].content for first in (0, 2)]

    first, second = play(2, body)["b"]
    assert not (first == second).any()


def test_what_was_masked_cannot_be_written():
    def body(session):
        source = np.ones((2, 2), dtype=np.int16)
        with pytest.raises(LocalProtocolError, match=r"announced was \(3, 2\)"):
            mask_matrices(session, [(3, 2)] * 2, source, 0)
        masked = mask_matrices(session, [(2, 2)] * 2, source, 0, keep_mask=True)[session.me]
        source[0, 0] = 9
        assert masked.content[0, 0] == 1
        for array in (masked.content, masked.content[:1], masked.content.T, masked.content.view(np.uint16)):
            with pytest.raises(ValueError, match="read-only"):
                array[0, 0] = 3
            with pytest.raises(ValueError, match="cannot set WRITEABLE"):
                array.flags.writeable = True
        with pytest.raises(ValueError, match="read-only"):
            masked.mask[0, 0] = 3
        with pytest.raises(AttributeError):
            masked.content = source
        # A second matrix under the same number is not multiplied, even if it only differs in being writable.
        other = replace(masked, content=np.array(masked.content))
        (ticket,) = session.correlations.plan([other.request(transpose=False)])
        with pytest.raises(LocalProtocolError, match="could have changed"):
            multiply(session, [(other, ticket, np.zeros(2, dtype=np.uint64))])
        assert "content" not in repr(masked)
        session.correlations.take(ticket)

    play(2, body)


def test_frozen_is_frozen_however_it_is_looked_at():
    for x in (np.arange(6, dtype=np.int16).reshape(2, 3), np.arange(6).reshape(2, 3).T, np.zeros((0, 2), np.int32)):
        np.testing.assert_array_equal(frozen(x), x)
        assert frozen(x).shape == x.shape
        assert is_frozen(frozen(x))
    locked = np.arange(3)
    locked.flags.writeable = False  # but its owner can undo it
    assert not is_frozen(locked)
    assert not is_frozen(np.arange(3))
    codes = OneHot(np.array([0, 2], dtype=np.uint8), 3)
    assert not is_frozen(codes)
    assert is_frozen(codes.frozen())


@pytest.mark.parametrize(
    ("codes", "n_bins"),
    [
        (np.array([0, 3], dtype=np.uint8), 3),
        (np.array([0, 1], dtype=np.int16), 3),
        (np.zeros((1, 1, 1), dtype=np.uint8), 3),
        (np.zeros((0, 1), dtype=np.uint8), 0),
    ],
)
def test_codes_that_are_no_one_hot_matrix(codes, n_bins):
    with pytest.raises(LocalProtocolError):
        OneHot(codes, n_bins)


def test_a_matrix_of_another_ring_or_type_is_refused():
    def body(session, mine, bits):
        mask_matrices(session, [(2, 2)] * 2, mine, 0, bits)

    for dtype, bits in ((np.float64, 64), (np.uint32, 64), (np.uint64, 32), (np.uint8, 64), (np.bool_, 32)):
        with pytest.raises(LocalProtocolError, match="our matrix is"):
            play(2, lambda session, d=dtype, b=bits: body(session, np.ones((2, 2), dtype=d), b))


OTHER_RING = MatrixProduct(matrix=0, owner=0, transpose=False, n_in=2, n_out=3, bits=32)


def test_tickets_and_vectors_fit_the_matrix_once_and_in_order():
    zero = np.zeros(2, dtype=np.uint64)

    def planned(v=zero, *, order=slice(None), ask=None, twice=False, other=False):
        def body(session):
            shapes = [(3, 2)] * 2
            first, second = mask_matrices(session, shapes, np.ones((3, 2), dtype=np.int16), 0)
            request = ask or (second if other else first).request(transpose=False)
            tickets = session.correlations.plan([request] * 2)[order]
            for _ in range(2 if twice else 1):
                multiply(session, [(first, tickets[0], v)])

        return body

    cases = [
        (planned(other=True), "not for a product with matrix 0"),
        (planned(ask=OTHER_RING), "not for a product with matrix 0"),
        (planned(zero[:1]), "vectors for matrix 0 must be"),
        (planned(zero.reshape(2, 1)), "vectors for matrix 0 must be"),
        (planned(zero.view(np.int64)), "vectors for matrix 0 must be"),
        (planned(zero.astype(np.uint32)), "vectors for matrix 0 must be"),
        (planned(None), "vectors for matrix 0 must be"),
        (planned(order=slice(None, None, -1)), "out of order"),
        (planned(twice=True), "already used"),
    ]
    for body, why in cases:
        with pytest.raises(LocalProtocolError, match=why):
            play(2, body)


@pytest.mark.parametrize(
    ("bits", "terms", "bounds", "fits"),
    [
        (32, 1 << 16, (1, (1 << 15) - 1), True),
        (32, 1 << 16, (1, 1 << 15), False),
        (32, 1 << 16, (1, -(1 << 15)), False),
        (32, (1 << 31) - 1, (1, 1), True),
        (32, 0, (1 << 40, 1 << 40), True),
        (64, 1 << 20, (1 << 15, 1 << 27), True),
        (64, 1 << 20, (1 << 15, 1 << 28), False),
    ],
)
def test_sums_that_may_not_fit_the_ring_are_refused_before_anything_is_sent(bits, terms, bounds, fits):
    matrix = OwnerMatrix(0, 0, OneHot(np.zeros(5, dtype=np.uint8), 2), bits)
    if fits:
        check_range(bits, terms, *bounds)
        assert matrix.request(transpose=True, bounds=(1, 1)).bits == bits
        return
    with pytest.raises(OutOfRange, match=f"{bits}-bit words"):
        check_range(bits, terms, *bounds)
    with pytest.raises(OutOfRange, match="5 terms"):
        matrix.request(transpose=True, bounds=(1, 1 << bits))


def test_the_32_bit_ring_sends_half():
    rng = np.random.default_rng(4)
    mine = [random_matrix(rng, "one-hot", 100, 3, 64) for _ in range(2)]
    wide, narrow = (check_products(mine, bits, 2) for bits in (64, 32))
    for tag in ("matrix/mask", "matrix/vector", "dealer/correction"):
        a, b = (sum(m.size for m in run.transcript if m.tag == tag) for run in (wide, narrow))
        assert a == 2 * b


PRODUCT = {"kind": "matrix-product", "matrix": 0, "owner": 0, "transpose": False, "n_in": 2, "n_out": 2}


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (PRODUCT, "no mask of this shape under number 0"),
        (PRODUCT | {"bits": 16}, "malformed"),
        (PRODUCT | {"vectors": -1}, "malformed"),
        (PRODUCT | {"holder": 0}, "malformed"),
        (PRODUCT | {"n_in": MAX_WORDS, "vectors": 4}, "over the dealer's limit"),
        ({"kind": "matrix-mask", "matrix": 0, "owner": 5, "n_rows": 1, "n_cols": 1}, "has no such owner"),
        ({"kind": "matrix-mask", "matrix": 0, "owner": 0, "n_rows": 1, "n_cols": 1, "bits": 8}, "malformed"),
        ({"kind": "matrix-mask", "matrix": 0, "owner": 0, "n_rows": MAX_WORDS, "n_cols": 2}, "over the dealer's limit"),
    ],
)
def test_the_dealer_refuses_senseless_requests(raw, why):
    def asker(channel):
        channel.recv("dealer", "dealer/key", Kind.BYTES, exact=32)
        send_json(channel, "dealer", "dealer/request", [raw])

    def other(channel):
        channel.recv("dealer", "dealer/key", Kind.BYTES, exact=32)

    with pytest.raises(RemoteProtocolError, match=why):
        run_parties({"a": asker, "b": other, "dealer": lambda channel: run_dealer(channel, ["a", "b"])})


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"n_in": 3}, "no mask of this shape"),
        ({"bits": 32}, "no mask of this shape"),
        ({"holder": 4}, "nobody holds the vectors"),
        ({"matrix": 1}, "no mask of this shape under number 1"),
    ],
)
def test_a_product_must_fit_its_mask(change, why):
    def body(session):
        session.correlations.draw(MatrixMask(matrix=0, owner=0, n_rows=2, n_cols=2))
        session.correlations.draw(MatrixProduct(**{k: v for k, v in (PRODUCT | change).items() if k != "kind"}))

    with pytest.raises(RemoteProtocolError, match=why):
        play(2, body)


def test_a_short_opening_is_the_senders_error():
    def shorten(message):
        short = message.sender == "b" and message.tag == "matrix/vector"
        return replace(message, body=message.body[:-8]) if short else message

    def body(session):
        masked = mask_matrices(session, [(3, 2)] * 2, np.ones((3, 2), dtype=np.int16), 0)[0]
        (ticket,) = session.correlations.plan([masked.request(transpose=False)])
        multiply(session, [(masked, ticket, np.zeros(2, dtype=np.uint64))])

    with pytest.raises(RemoteProtocolError) as caught:
        run_parties({"a": party(0, body), "b": party(1, body), "dealer": dealer}, tamper=shorten)
    assert caught.value.party == "b"
