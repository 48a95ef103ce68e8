"""CrypTen on our session: exact arithmetic, honest conversions, and nothing of the parts that were replaced."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mpc.engine import (
    FRAC_BITS,
    SharedTensor,
    bind,
    check_range,
    crypten,
    from_words,
    mpc_tensor,
    reveal,
    reveal_to,
    share_from,
    to_words,
)
from mpc.errors import LocalProtocolError, OutOfRange
from tests.mpc.playing import joined, play, results, split

ULP = 2.0**-FRAC_BITS
rng = np.random.default_rng(11)
X, Y, W = rng.normal(0, 30, (6, 4)), rng.normal(0, 30, (6, 4)), rng.normal(0, 3, (4, 3))
X[0, 0] = Y[0, 0] = 0.0
X[1] = Y[1]
TX, TW = torch.from_numpy(X), torch.from_numpy(W)


def bound(n_parties: int, body):
    """Run `body(session)` with CrypTen bound to the session at every party."""

    def within(session):
        with bind(session):
            return body(session)

    return play(n_parties, within)


def everywhere(n_parties: int, body):
    """As `bound`, for bodies whose result all parties must agree on; returns it."""
    first, *others = results(bound(n_parties, body))
    for other in others:
        np.testing.assert_array_equal(other, first)
    return first


def shared(frac_bits: int = FRAC_BITS):
    """X from party 0, Y and W from party 1, as every party sees them."""
    me = crypten.communicator.get().get_rank()
    return (
        share_from(owner, values if me == owner else None, values.shape, frac_bits)
        for owner, values in ((0, X), (1, Y), (1, W))
    )


LARGE = float(np.abs(X).max() + np.abs(Y).max())
LINEAR = {
    "add": (lambda x, y, _w: x + y, X + Y, ULP),
    "subtract": (lambda x, y, _w: x - y, X - Y, ULP),
    "negate": (lambda x, _y, _w: -x, -X, ULP),
    "from a public": (lambda x, _y, _w: 3.25 - x, 3.25 - X, ULP),
    "and a public tensor": (lambda x, _y, _w: x + TX, 2 * X, ULP),
    "times an integer": (lambda x, _y, _w: x * -7, -7 * X, 7 * ULP),
    "times a public": (lambda x, _y, _w: x * 0.3, 0.3 * X, (LARGE + 2) * ULP),
    "times": (lambda x, y, _w: x * y, X * Y, (LARGE + 2) * ULP),
    "square": (lambda x, _y, _w: x.square(), X * X, (2 * LARGE + 2) * ULP),
    "matrix": (lambda x, _y, w: x.matmul(w), X @ W, (4 * LARGE + 2) * ULP),
    "public matrix": (lambda x, _y, _w: x.matmul(TW), X @ W, (4 * LARGE + 2) * ULP),
    "vector": (lambda x, _y, w: x.matmul(w[:, 1]), X @ W[:, 1], (4 * LARGE + 2) * ULP),
    "sum": (lambda x, _y, _w: x.sum(), X.sum(), 24 * ULP),
    "mean": (lambda x, _y, _w: x.mean(0), X.mean(0), 2 * ULP),
    "by an integer": (lambda x, _y, _w: x / 7, X / 7, 2 * ULP),
    "by a power of two": (lambda x, _y, _w: x / 8.0, X / 8, 2 * ULP),
    "by a negative": (lambda x, _y, _w: x / -3, X / -3, 2 * ULP),
    "by a fraction": (lambda x, _y, _w: x / 2.5, X / 2.5, 2 * ULP),
    "by a small number": (lambda x, _y, _w: x / 0.3, X / 0.3, (LARGE + 4) * ULP),
    "mixed scales": (lambda _x, y, _w: share_from(0, *_half(X), 16) * y, X * Y, LARGE * 2.0**-16),
    "sum of mixed scales": (lambda _x, y, _w: share_from(0, *_half(X), 16) + y, X + Y, 2.0**-16),
}
FRONT = {
    "greater": (lambda a, b: a > b, X > Y, 0),
    "less": (lambda a, b: a < b, X < Y, 0),
    "less or equal": (lambda a, b: a <= b, X <= Y, 0),
    "equal": (lambda a, b: a == b, X == Y, 0),
    "not equal": (lambda a, b: a != b, X != Y, 0),
    "relu": (lambda a, _b: a.relu(), np.maximum(X, 0), ULP),
    "half a bit": (lambda a, b: (a > b) * 0.5, (X > Y) * 0.5, 0),
    "mean of bits": (lambda a, b: (a > b).mean(), (X > Y).mean(), ULP),
    "largest": (lambda a, _b: a.max(1)[0], X.max(1), ULP),
    "fifth power": (lambda a, _b: (a / 50).pow(5), (X / 50) ** 5, 40 * ULP),
    "sigmoid": (lambda a, _b: (a / 10).sigmoid(), 1 / (1 + np.exp(-X / 10)), 3e-3),
    "quotient": (lambda a, b: a / (b.abs() + 1), X / (np.abs(Y) + 1), 1e-2),
}


def _half(values):
    mine = crypten.communicator.get().get_rank() == 0
    return (values if mine else None), values.shape


@pytest.mark.parametrize("n_parties", [2, 3])
def test_arithmetic_is_right_to_a_few_units(n_parties):
    def body(session):
        return {name: reveal(fn(*shared())) for name, (fn, _, _) in LINEAR.items()}

    for out in results(bound(n_parties, body)):
        for name, (_, expected, tolerance) in LINEAR.items():
            np.testing.assert_allclose(out[name], expected, rtol=0, atol=tolerance, err_msg=name)


@pytest.mark.parametrize("n_parties", [2, 3])
@pytest.mark.parametrize("frac_bits", [12, FRAC_BITS, 24])
def test_the_front_end_works_at_any_precision(n_parties, frac_bits):
    names = list(FRONT) if frac_bits == FRAC_BITS else ["greater", "less or equal", "equal", "not equal", "relu"]

    def body(session):
        x, y, _ = (mpc_tensor(t) for t in shared(frac_bits))
        return {name: reveal(FRONT[name][0](x, y)) for name in names}

    for out in results(bound(n_parties, body)):
        for name in names:
            _, expected, tolerance = FRONT[name]
            np.testing.assert_allclose(out[name], expected, rtol=0, atol=max(tolerance, 2.0**-frac_bits), err_msg=name)


@pytest.mark.parametrize("n_parties", [2, 3])
def test_products_are_exact_in_the_ring(n_parties):
    """At scale 1 nothing is rounded: every bit of the result is numpy's, mod 2^64."""
    x, y, w = (rng.integers(0, 2**64, s, dtype=np.uint64) for s in ((30, 4), (30, 4), (4, 5)))
    image, kernel = (rng.integers(0, 2**64, s, dtype=np.uint64) for s in ((1, 2, 5, 5), (3, 2, 2, 2)))
    parts = [split(v, n_parties, seed) for seed, v in enumerate((x, y, w, image, kernel))]

    def body(session):
        a, b, m, i, k = (from_words(p[session.me], 0) for p in parts)
        out = [a + b, a - b, a * b, a.square(), a.matmul(m), a.matmul(m[:, 0]), a * 5, i.conv2d(k, padding=1)]
        return [to_words(t) for t in out]

    got = [joined(list(shares)) for shares in zip(*results(bound(n_parties, body)), strict=True)]
    signed = [torch.from_numpy(v.view(np.int64)) for v in (image, kernel)]
    conv = torch.conv2d(*signed, padding=1).numpy().view(np.uint64)
    expected = [x + y, x - y, x * y, x * x, x @ w, x @ w[:, 0], x * np.uint64(5), conv]
    for have, want in zip(got, expected, strict=True):
        np.testing.assert_array_equal(have, want)


@pytest.mark.parametrize("n_parties", [2, 3])
def test_comparisons_hold_at_the_ends_of_the_ring(n_parties):
    values = np.array([0, 1, -1, 2**62, -(2**62), 2**62 - 1, 2**63 - 1, -(2**63), -(2**63) + 1], dtype=np.int64)
    parts = split(values.view(np.uint64), n_parties)

    def body(session):
        t = mpc_tensor(from_words(parts[session.me], 0))
        return reveal(t < 0), reveal(t == 0)

    for negative, zero in results(bound(n_parties, body)):
        np.testing.assert_array_equal(negative, values < 0)
        np.testing.assert_array_equal(zero, values == 0)


def test_words_and_tensors_share_memory():
    words = np.arange(6, dtype=np.uint64).reshape(2, 3)
    tensor = from_words(words, 8)
    assert isinstance(tensor, SharedTensor)
    assert to_words(tensor).base is not None
    words[0, 0] = 77
    assert to_words(tensor)[0, 0] == 77
    frozen = np.arange(3, dtype=np.uint64)
    frozen.flags.writeable = False
    np.testing.assert_array_equal(to_words(from_words(frozen, 8)), frozen)
    np.testing.assert_array_equal(to_words(from_words(words.T, 8)), words.T)
    assert to_words(from_words(np.array(5, dtype=np.uint64), 0)).shape == ()
    with pytest.raises(LocalProtocolError, match="uint64, got int64"):
        from_words(np.zeros(1, dtype=np.int64), 8)


def test_conversion_is_exact_for_negatives_and_large_values():
    values = np.array([-1e-6 - 3, -ULP, -1 + ULP, -1.0, 0.0, ULP, 1 - ULP, -60000.25, 2.0**40, -(2.0**41) + ULP])
    values = np.rint(values / ULP) * ULP

    def body(session):
        t = share_from(1, values if session.me == 1 else None, values.shape, FRAC_BITS)
        assert mpc_tensor(t).get_plain_text().dtype == torch.float64
        return reveal(t)

    np.testing.assert_array_equal(everywhere(2, body), values)


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (np.nan, "not a number or infinite"),
        (np.inf, "not a number or infinite"),
        (-np.inf, "not a number or infinite"),
        (2.0**42, "does not fit fixed point with 20"),
        (-1e30, "does not fit fixed point with 20"),
        (1 << 42, "does not fit fixed point with 20"),
    ],
)
def test_what_has_no_encoding_is_refused(bad, why):
    def share(session):
        share_from(0, np.array([1.0, bad]) if session.me == 0 else None, (2,), FRAC_BITS)

    def public(session):
        share_from(0, np.ones(2) if session.me == 0 else None, (2,), FRAC_BITS) + bad

    for body in (share, public):
        with pytest.raises(LocalProtocolError, match=why) as caught:
            bound(2, body)
        assert "42" not in str(caught.value)


def test_integers_beyond_float32_are_shared_exactly():
    big = torch.tensor([2**24 + 1, -(2**40) - 1])
    assert everywhere(2, lambda _session: crypten.cryptensor(big).get_plain_text()).tolist() == big.tolist()


def test_share_from_checks_owner_and_shape():
    cases = [
        (lambda _me: share_from(0, np.ones(3), (3,), 8), "party 0 and nobody else"),
        (lambda _me: share_from(0, None, (3,), 8), "party 0 and nobody else"),
        (lambda me: share_from(0, np.ones(2) if me == 0 else None, (3,), 8), r"shape \(2,\), agreed was \(3,\)"),
        (lambda _me: share_from(5, None, (3,), 8), "no party 5"),
    ]
    for fn, why in cases:
        with pytest.raises(LocalProtocolError, match=why):
            bound(2, lambda session, fn=fn: fn(session.me))


def test_reveal_to_one_party_only():
    def body(session):
        x, _, _ = shared()
        return reveal_to(x, 2), reveal_to(mpc_tensor(x), 0)

    run = bound(3, body)
    (a0, a1), b, (c0, c1) = results(run)
    np.testing.assert_allclose(c0, X, rtol=0, atol=ULP)
    np.testing.assert_array_equal(a1, c0)
    assert (a0, b, c1) == (None, (None, None), None)
    opened = [(m.sender, m.receiver, m.size) for m in run.transcript if m.tag == "crypten/result-to"]
    assert sorted(opened) == sorted((s, r, 8 * X.size) for r in "ca" for s in "abc" if s != r)


def test_operations_cost_what_their_docstrings_say():
    def body(session):
        x, y, w = shared()
        reveal(x * y)
        x.matmul(w)
        x.square()

    run = bound(3, body)
    sent = [(m.tag, m.size) for m in run.transcript if (m.sender, m.receiver) == ("b", "a")]
    n, product, square = X.size, 8 * (X.size + W.size), X.size
    assert sent == [
        ("products/open", 16 * n),
        ("truncation/open", 8 * n),
        ("crypten/result", 8 * n),
        ("products/open", product),
        ("truncation/open", 8 * 6 * 3),
        ("products/square", 8 * square),
        ("truncation/open", 8 * square),
    ]
    keys = [(m.sender, m.receiver) for m in run.transcript if m.tag == "crypten/next-key"]
    assert sorted(keys) == [("a", "b"), ("b", "c"), ("c", "a")]


def test_a_product_and_its_division_are_asked_for_at_once():
    def body(session):
        x, y, _ = shared()
        x * y

    run = bound(2, body)
    requests = [m.body for m in run.transcript if m.tag == "dealer/request" and m.body != b"[]"]
    assert len(requests) == 1
    assert requests[0].index(b'"triple"') < requests[0].index(b'"truncation"')


@pytest.mark.parametrize("padding", [0, 1])
@pytest.mark.parametrize("more", [0, (1, 2)])
def test_transposed_convolutions_are_exact_with_padding_at_the_ends(padding, more):
    image, kernel = (rng.integers(0, 2**64, s, dtype=np.uint64) for s in ((2, 4, 3, 4), (4, 2, 3, 2)))
    parts = [split(v, 2, seed) for seed, v in enumerate((image, kernel))]
    steps = {"stride": (2, 3), "padding": padding, "output_padding": more, "groups": 2}

    def body(session):
        x, k = (from_words(p[session.me], 0) for p in parts)
        return to_words(x.conv_transpose2d(k, **steps))

    got = joined(results(bound(2, body)))
    expected = torch.conv_transpose2d(*(torch.from_numpy(v.view(np.int64)) for v in (image, kernel)), **steps)
    np.testing.assert_array_equal(got, expected.numpy().view(np.uint64))


@pytest.mark.parametrize(
    ("word", "limit", "allowed"),
    [
        (2**62, None, r"within \+-4\.39805e\+12"),
        (-(2**62), None, "within"),
        (-(2**63), None, "within"),
        (2**63 - 1, None, "within"),
        (5 * 2**20 + 2, 5.0, r"within \+-5"),
        (-5 * 2**20 - 2, 5.0, r"within \+-5"),
        (2, 0.0, r"within \+-0"),
    ],
)
def test_what_left_the_range_is_not_released(word, limit, allowed):
    parts = split(np.array([1, word], dtype=np.int64).view(np.uint64), 2)

    def body(session):
        t = from_words(parts[session.me], FRAC_BITS)
        with pytest.raises(OutOfRange, match=f"'score' left the range of revealing: it must be {allowed}"):
            reveal(t, "score", limit)
        if session.me == 1:
            with pytest.raises(OutOfRange, match="'score'"):
                reveal_to(t, 1, "score", limit)
        else:
            assert reveal_to(t, 1, "score", limit) is None
        if limit is None:
            with pytest.raises(OutOfRange, match="'tensor' left the range of revealing"):
                mpc_tensor(t).get_plain_text()
        return True

    assert results(bound(2, body)) == [True, True]


@pytest.mark.parametrize("n_parties", [2, 3])
def test_values_at_the_limit_are_released(n_parties):
    values = np.array([5.0, -5.0, 0.0])

    def body(session):
        t = share_from(0, values if session.me == 0 else None, (3,), FRAC_BITS)
        check_range(t, "score", 5.0)
        check_range(mpc_tensor(t), "score", 6)
        with pytest.raises(
            OutOfRange, match=r"'score' left the range of a checkpoint: it must be at least -4\.5 and at"
        ):
            check_range(t, "score", 4.5)
        for limit in (-1.0, 2.0**42, float("nan")):
            with pytest.raises(LocalProtocolError, match="a limit is between 0 and"):
                check_range(t, "score", limit)
        return reveal(t, "score", 5.0)

    for out in results(bound(n_parties, body)):
        np.testing.assert_array_equal(out, values)


def test_a_model_trains():
    inputs, targets = torch.from_numpy(rng.normal(size=(20, 3))).float(), torch.ones(20, 1)

    def body(session):
        model = crypten.nn.Sequential(crypten.nn.Linear(3, 4), crypten.nn.ReLU(), crypten.nn.Linear(4, 1))
        for i, parameter in enumerate(model.parameters()):
            parameter.data = torch.linspace(-0.5, 0.6, parameter.numel()).reshape(parameter.shape) + 0.1 * i
        model.encrypt(src=0)
        optimiser = crypten.optim.SGD(model.parameters(), lr=0.1)
        losses = []
        for _ in range(6):
            optimiser.zero_grad()
            loss = crypten.nn.MSELoss()(model(crypten.cryptensor(inputs)), crypten.cryptensor(targets))
            losses.append(float(loss.get_plain_text()))
            loss.backward()
            optimiser.step()
        return losses

    losses = everywhere(2, body)
    assert losses[-1] < losses[0] / 2


@pytest.mark.parametrize("whole_channels", [False, True])
def test_dropout_drops_the_same_everywhere(whole_channels):
    def body(session):
        x = crypten.cryptensor(torch.ones(40, 10, 3), requires_grad=True)
        dropped = x._feature_dropout(0.25) if whole_channels else x.dropout(0.25)
        dropped.sum().backward()
        np.testing.assert_allclose(x.grad.get_plain_text(), dropped.get_plain_text(), rtol=0, atol=4 * ULP)
        return reveal(dropped)

    out = everywhere(2, body)
    kept = out > 0.5
    np.testing.assert_allclose(out[kept], 4 / 3, rtol=0, atol=4 * ULP)
    np.testing.assert_allclose(out[~kept], 0, rtol=0, atol=4 * ULP)
    assert 0.55 < kept.mean() < 0.92
    assert not whole_channels or (kept == kept[:, :, :1]).all()


def test_a_thread_without_a_session_is_told_so():
    with pytest.raises(LocalProtocolError, match=r"no session is bound .* mpc\.engine\.bind"):
        crypten.cryptensor([1.0, 2.0])
    assert not crypten.is_initialized()


def test_binding_undoes_itself_and_does_not_nest():
    def body(session):
        assert not crypten.is_initialized()
        with bind(session):
            assert crypten.is_initialized()
            with pytest.raises(LocalProtocolError, match="already plays a party"), bind(session):
                pass
        with pytest.raises(ValueError, match="on purpose"), bind(session):
            raise ValueError("on purpose")
        return crypten.is_initialized()

    assert results(play(2, body)) == [False, False]
    with pytest.raises(LocalProtocolError, match="at least two"):
        play(1, lambda session: bind(session).__enter__())


def test_switches_of_one_thread_do_not_reach_another():
    """CrypTen keeps its configuration and its autograd switch in globals; here a party has its own."""

    def body(session):
        grad = crypten.no_grad() if session.me == 0 else crypten.enable_grad()
        with grad, crypten.cfg.temp_override({"functions.exp_iterations": 3 + session.me}):
            crypten.communicator.get().barrier()  # the other party runs now
            seen = crypten.CrypTensor.AUTOGRAD_ENABLED, crypten.cfg.functions.exp_iterations
            crypten.communicator.get().barrier()
        return seen, crypten.CrypTensor.AUTOGRAD_ENABLED, crypten.cfg.functions.exp_iterations

    assert results(bound(2, body)) == [((False, 3), True, 8), ((True, 4), True, 8)]


def test_shares_are_not_shown():
    def body(session):
        x, _, _ = shared()
        return repr(x) + str(mpc_tensor(x)) + repr(mpc_tensor(x)._tensor)

    for text in results(bound(2, body)):
        assert text.count("<shared>, size=(6, 4)") == 3
        assert "tensor(" not in text.replace("Tensor(", "")
