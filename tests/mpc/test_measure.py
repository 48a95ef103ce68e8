"""What is opened of a hidden join: right, computed before it is opened, and nothing else; noise that is what it says."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from mpc import measure
from mpc.engine import bind, from_words, mpc_tensor, reveal, share_from
from mpc.errors import LocalProtocolError, Refused, RemoteProtocolError
from mpc.matching.hidden import Hidden, kept, plan_kept
from mpc.measure import (
    Column,
    enough,
    moments,
    noised_total,
    plan_enough,
    plan_moments,
    plan_rounded_count,
    plan_sums,
    reveal_count,
    rounded_count,
    sums,
    total,
)
from mpc.noise import below, discrete_laplace, parse_epsilon
from mpc.products import multiply, plan_matmul
from mpc.rng import Prg
from mpc.session import Session
from mpc.truncation import Truncation, truncate
from tests.harness import Run
from tests.mpc.hidden_runs import SUPPLIES, Rows, between, quick, sets
from tests.mpc.playing import joined as together
from tests.mpc.playing import results, split

__all__ = ["quick"]
COLUMNS = [Column("age", -1000, 999), Column("visits", -1000, 999), Column("cents", -1000, 999)]


def made(matches: int, n: int, columns: np.ndarray | None = None, most: int | None = None) -> list[Hidden]:
    """Shares of a join of n bins whose first rows matched, without a run of it."""
    bits = split((np.arange(n) < matches).astype(np.uint64), 2)
    values = split(np.zeros((n, 0), dtype=np.uint64) if columns is None else columns, 2)
    size = n if most is None else most
    return [Hidden(0, size, size, bits[i], values[i], np.zeros((n, 0), dtype=np.uint64)) for i in (0, 1)]


def count(session: Session, joined: Hidden) -> int:
    """The exact number, opened."""
    return reveal_count(session, total(joined))


def gated(session: Session, share: np.ndarray, minimum: int) -> None:
    """The gate alone."""
    enough(session, session.correlations.plan(plan_enough()), share, minimum)


def play(of: list[Hidden], body: Any, **options: Any) -> Run:
    """body(session, joined) at both owners."""
    return between(lambda session: body(session, of[session.me]), **options)


def _opened(run: Run) -> list[str]:
    """Tags of what the owners sent each other, without those of comparisons, products and truncations."""
    inner = ("compare/", "products/", "truncation/", "hidden/", "matching/", "ot/", "verified/")
    return [m.tag for m in run.transcript if m.sender == "a" and m.receiver == "b" and not m.tag.startswith(inner)]


# --- the real join


@pytest.mark.parametrize("mode", SUPPLIES)
def test_everything_on_a_real_join(mode) -> None:
    rows = Rows(sets(80, 120, 33))

    def body(s: Session) -> Any:
        joined = rows.join(s)
        gated(s, total(joined), 30)
        rounded = rounded_count(s, s.correlations.plan(plan_rounded_count(joined, 10)), joined, 10)
        totals = sums(s, s.correlations.plan([plan_sums(joined)])[0], joined, COLUMNS)
        shares = moments(s, s.correlations.plan(plan_moments(joined)), joined)
        return count(s, joined), rounded, totals, shares

    run = between(body, mode)
    signed = rows.matched().view(np.int64)
    for matches, rounded, totals, _ in results(run):
        assert (matches, rounded, totals) == (33, 30, signed.sum(axis=0).tolist())
    whole = np.column_stack([np.ones(33, dtype=np.int64), signed])
    np.testing.assert_array_equal(together([r[3] for r in results(run)]).view(np.int64), whole.T @ whole)
    if mode == "dealer":
        assert _opened(run) == ["measure/minimum", "measure/few", "measure/rounded", "measure/sums", "measure/count"]


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 40), st.integers(0, 30), st.integers(0, 2**32))
def test_sums_equal_numpys_whatever_is_in_the_other_rows(n, matches, seed) -> None:
    values = np.random.default_rng(seed).integers(-1000, 1000, (n, 2))
    values[matches:] = np.random.default_rng(seed).integers(
        -(2**63), 2**63, values[matches:].shape
    )  # as the sender's are
    of = made(matches, n, values.view(np.uint64))
    run = play(of, lambda s, j: sums(s, s.correlations.plan([plan_sums(j)])[0], j, COLUMNS[:2]))
    assert results(run) == [values[:matches].sum(axis=0).tolist()] * 2


# --- the gate


@pytest.mark.parametrize(
    ("matches", "minimum", "goes_on"),
    [(10, 0, True), (10, 10, True), (10, 11, False), (0, 1, False), (0, 0, True), (10, (1 << 32) - 1, False)],
)
def test_too_few_matches_are_refused_by_both_before_anything_else_is_opened(matches, minimum, goes_on) -> None:
    def body(s: Session, joined: Hidden) -> int:
        gated(s, total(joined), minimum)
        return count(s, joined)

    run = play(made(matches, 50), body, every=True)
    if goes_on:
        assert [run["a"], run["b"]] == [matches] * 2
        assert _opened(run) == ["measure/minimum", "measure/few", "measure/count"]
        return
    assert {type(run.errors[party]) for party in "ab"} == {Refused}
    says = {p: f"fewer matches with {q} than the agreed minimum of {minimum}" for p, q in ("ab", "ba")}
    assert {p: str(run.errors[p]) for p in "ab"} == says
    assert _opened(run) == ["measure/minimum", "measure/few"]


def test_an_owner_with_another_minimum_learns_nothing() -> None:
    """One that could choose it would find the number by trying."""
    run = play(made(10, 50), lambda s, j: gated(s, total(j), 5 + 6 * s.me), every=True)
    assert {p: (type(e), e.party) for p, e in run.errors.items() if p in "ab"} == {
        p: (RemoteProtocolError, q) for p, q in ("ab", "ba")
    }
    assert run.errors["a"].why == "expected a minimum of 5, got 11"
    assert _opened(run) == ["measure/minimum"]


@pytest.mark.parametrize(("noise", "goes_on"), [((-30, 5), False), ((0, 0), True), ((-6, 1), True), ((40, 0), True)])
def test_the_gate_is_about_the_number_with_the_noise_that_is_then_told(monkeypatch, noise, goes_on) -> None:
    """What is opened follows from one number that has its noise already, also where the exact one is on the other side."""
    drawn = iter(noise)
    monkeypatch.setattr(measure, "discrete_laplace", lambda *_: next(drawn))

    def body(s: Session, joined: Hidden) -> int:
        number = noised_total(joined, "1/2")
        gated(s, number, 15)
        return reveal_count(s, number)

    run = play(made(20, 50), body, every=True)
    assert goes_on == (20 + sum(noise) >= 15)
    if goes_on:
        assert results(run) == [20 + sum(noise)] * 2
        assert _opened(run) == ["measure/minimum", "measure/few", "measure/count"]
    else:
        assert {type(run.errors[p]) for p in "ab"} == {Refused}
        assert _opened(run) == ["measure/minimum", "measure/few"]
    assert next(drawn, None) is None


def test_the_gate_opens_one_bit() -> None:
    run = play(made(10, 50), lambda s, j: gated(s, total(j), 4))
    sent = [np.frombuffer(m.body, np.uint64) for m in run.transcript if m.tag == "measure/few"]
    assert sum(sent).tolist() == [0]
    run = play(made(10, 50), lambda s, j: gated(s, total(j), 14), every=True)
    sent = [np.frombuffer(m.body, np.uint64) for m in run.transcript if m.tag == "measure/few"]
    assert sum(sent).tolist() == [1]
    assert run.bytes_sent("a", "b") == 300
    assert sum(m.size for m in run.transcript if m.tag == "dealer/correction") == 2696


@pytest.mark.parametrize("minimum", [-1, 1 << 32])
def test_a_senseless_minimum_is_our_own_fault(minimum) -> None:
    run = play(made(1, 1), lambda s, j: enough(s, [], total(j), minimum), every=True)
    assert isinstance(run.errors["a"], LocalProtocolError)


# --- counts


@pytest.mark.parametrize("matches", [0, 1, 50])
def test_the_count(matches) -> None:
    run = play(made(matches, 50), count)
    assert results(run) == [matches] * 2
    assert run.bytes_sent("a", "b") == 8


@pytest.mark.parametrize(
    ("n", "step"),
    [(0, 1), (1, 1), (1, 2), (1, 3), (63, 1), (64, 1), (200, 7), (300, 3), (300, 1000), (5000, 1), (5000, 100)],
)
def test_the_rounded_count_is_the_nearest_multiple(n, step) -> None:
    for matches in sorted({0, min(n, step // 2), min(n, (step + 1) // 2), min(n, max(0, step // 2 - 1)), n // 2, n}):
        of = made(matches, n)
        run = play(of, lambda s, j: rounded_count(s, s.correlations.plan(plan_rounded_count(j, step)), j, step))
        assert results(run) == [(matches + step // 2) // step * step] * 2
    digits = measure._digits(of[0], step)
    assert run.bytes_sent("a", "b") == 8 + sum(8 + 280 * d for _, d in digits)
    assert sum(m.size for m in run.transcript if m.tag == "dealer/correction") == sum(1864 + 832 * d for _, d in digits)
    assert [tag for tag in _opened(run) if tag.startswith("measure/")] == ["measure/rounded"]


@pytest.mark.parametrize("matches", [0, 2_097_151, 2_097_152, 4_194_304])
def test_rounding_to_single_rows_of_the_largest_sets_is_exact(matches) -> None:
    of = made(0, 1, most=1 << 22)
    of[0].matched[0] += np.uint64(matches)
    for step in (1, 1000):
        run = play(
            of, lambda s, j, step=step: rounded_count(s, s.correlations.plan(plan_rounded_count(j, step)), j, step)
        )
        assert results(run)[0] == (matches + step // 2) // step * step


@pytest.mark.parametrize("step", [0, -5, (1 << 32) + 1])
def test_a_senseless_step_is_our_own_fault(step) -> None:
    with pytest.raises(LocalProtocolError, match="multiple of 1 to"):
        plan_rounded_count(made(1, 1)[0], step)


def test_the_noised_count_has_the_noise_of_both(monkeypatch) -> None:
    drawn = iter([5, -70])
    monkeypatch.setattr(measure, "discrete_laplace", lambda *_: next(drawn))
    run = play(made(20, 50), lambda s, j: reveal_count(s, noised_total(j, "1/2")))
    assert results(run) == [20 + 5 - 70] * 2
    assert run.bytes_sent("a", "b") == 8


def test_each_owners_noise_is_all_that_its_rows_need() -> None:
    """The variance of the result is that of two draws, 2 * 2 q / (1 - q)^2 with q = exp(-epsilon), whatever is drawn."""
    of, runs, q = made(20, 30), 300, np.exp(-0.5)
    body = lambda s, j: [reveal_count(s, noised_total(j, "1/2")) for _ in range(runs)]  # noqa: E731
    a, b = results(play(of, body))
    assert a == b
    variance = 4 * q / (1 - q) ** 2
    assert abs(np.mean(a) - 20) < 6 * np.sqrt(variance / runs)
    assert 0.5 < np.var(a) / variance < 2


@pytest.mark.parametrize(
    "epsilon",
    ["0", "-1", "x", "1/0", "1/000", "65", "nan", "inf", "1/99999999999", "", "1e-1", "1e-20000000", "0." + "1" * 11,
     "1_0", " 1", "1\n", "1.", ".5", "\u0661", "1/2/3", "0.5/2", "9999999999"],
)  # fmt: skip
def test_a_senseless_epsilon_is_our_own_fault(epsilon) -> None:
    with pytest.raises(LocalProtocolError, match="epsilon is"):
        noised_total(made(1, 1)[0], epsilon)


# --- noise


def _prg(label: int = 0) -> Prg:
    return Prg(bytes([label]) * 32)


@pytest.mark.parametrize(
    ("text", "value"), [("0.5", "1/2"), ("1/3", "1/3"), ("2", "2"), ("0.001", "1/1000"), ("01/02", "1/2"), ("64", "64")]
)
def test_epsilon_is_read_exactly(text, value) -> None:
    assert parse_epsilon(text) == Fraction(value)


@pytest.mark.parametrize("epsilon", ["1/2", "0.1", "2", "3/7"])
def test_noise_has_the_distribution_that_it_says(epsilon) -> None:
    """Chi-square over the middle values and both tails: a false alarm has a probability below 1e-9."""
    prg, q, draws = _prg(1), np.exp(-float(Fraction(epsilon))), 12_000
    z = np.array([discrete_laplace(prg, Fraction(epsilon)) for _ in range(draws)])
    edge = max(1, int(2 / float(Fraction(epsilon))))
    middle = np.arange(-edge, edge + 1)
    p = (1 - q) / (1 + q) * q ** np.abs(middle)
    tail = q ** (edge + 1) / (1 + q)
    seen = np.array([(z < -edge).sum(), *((z == value).sum() for value in middle), (z > edge).sum()])
    expected = draws * np.array([tail, *p, tail])
    assert abs(expected.sum() - draws) < 1e-6
    freedom = len(seen) - 1
    assert ((seen - expected) ** 2 / expected).sum() < freedom + 9 * np.sqrt(2 * freedom) + 30


def test_whole_numbers_below_a_bound_are_uniform() -> None:
    prg = _prg(2)
    assert {below(prg, 1) for _ in range(20)} == {0}
    for n in (3, 200, 257):
        counts = np.bincount([below(prg, n) for _ in range(60 * n)], minlength=n)
        assert len(counts) == n
        assert ((counts - 60) ** 2 / 60).sum() < n + 9 * np.sqrt(2 * n) + 30


def test_noise_of_the_smallest_epsilon_is_exact_and_fits_the_ring() -> None:
    smallest = Fraction(1, 1 << 32)
    z = [discrete_laplace(_prg(i), smallest) for i in range(20)]
    assert len(set(z)) == 20
    assert all(abs(value) < 1 << 40 for value in z)
    assert any(value % 2 for value in z)


# --- columns


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ([1, -5, 10], [8, -40, 80]),
        ([0.5, -1.25, 10.0], [4, -10, 80]),
        (np.array([3], np.uint8), [24]),
        (np.array([3, -1], np.int16), [24, -8]),
        ([], []),
    ],
)
def test_columns_are_encoded(values, words) -> None:
    got = Column("x", -5, 10, 3).words(np.asarray(values))
    assert got.dtype == np.uint64
    assert got.view(np.int64).tolist() == words


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ([11, 3, -6], "column 'x' has values that are not from -5 to 10"),
        ([np.nan], "column 'x' has values that are not from -5 to 10"),
        ([np.inf, 1.0], "column 'x' has values that are not from -5 to 10"),
        (np.array([2**64 - 1], np.uint64), "column 'x' has values that are not from -5 to 10"),
        (["3"], "column 'x' has values that are not numbers"),
        ([True], "column 'x' has values that are not numbers"),
    ],
)
def test_a_value_out_of_the_stated_range_is_our_own_fault(values, why) -> None:
    with pytest.raises(LocalProtocolError) as caught:
        Column("x", -5, 10, 3).words(values)
    assert str(caught.value).startswith(why)


@pytest.mark.parametrize(
    ("low", "high", "bits"), [(3, 2, 0), (0, 1 << 62, 0), (-(1 << 40), 1, 22), (0, 1, -1), (0, 1, 63)]
)
def test_a_range_that_does_not_fit_is_refused(low, high, bits) -> None:
    with pytest.raises(LocalProtocolError, match="column 'x' cannot have values"):
        Column("x", low, high, bits)


def test_sums_that_may_wrap_are_refused_before_anything_is_sent() -> None:
    of, wide = made(2, 2, np.zeros((2, 1), dtype=np.uint64)), Column("x", 0, (1 << 62) - 1)
    wide.check_sum(2)
    with pytest.raises(LocalProtocolError, match="column 'x' over 3 rows may be too large"):
        wide.check_sum(3)
    for columns in ([Column("x", 0, 1)] * 2, [wide]):
        of = made(2, 3, np.zeros((3, 1), dtype=np.uint64))
        run = play(of, lambda s, j, c=columns: sums(s, s.correlations.plan([plan_sums(j)])[0], j, c), every=True)
        assert isinstance(run.errors["a"], LocalProtocolError)
        assert not _opened(run)


@pytest.mark.parametrize("value", [0, (1 << 52) - 1, -(1 << 52)])
def test_the_largest_sums_are_exact(value) -> None:
    values = np.full((1000, 1), value).view(np.uint64)
    body = lambda s, j: sums(s, s.correlations.plan([plan_sums(j)])[0], j, [Column("x", -(1 << 52), 1 << 52)])  # noqa: E731
    assert results(play(made(1000, 1000, values), body)) == [[1000 * value]] * 2


@pytest.mark.parametrize("k", [1, 3])
def test_sums_and_moments_cost_what_they_say(k) -> None:
    n = 5000
    of = made(5, n, np.zeros((n, k), dtype=np.uint64))
    run = play(of, lambda s, j: sums(s, s.correlations.plan([plan_sums(j)])[0], j, [COLUMNS[0]] * k))
    assert run.bytes_sent("a", "b") == 8 * (k + 1) * n + 8 * k
    assert sum(m.size for m in run.transcript if m.tag == "dealer/correction") == 8 * k
    run = play(of, lambda s, j: moments(s, s.correlations.plan(plan_moments(j)), j))
    assert run.bytes_sent("a", "b") == 8 * (3 * k + 2) * n
    assert sum(m.size for m in run.transcript if m.tag == "dealer/correction") == 8 * k * n + 8 * k * (k + 1)


def test_a_dealer_that_lies_is_noticed_before_anything_is_opened() -> None:
    rows = Rows(sets(20, 30, 7))
    seen = []

    def spoil(m):
        """The first correction is off by one bit."""
        seen.extend([m] if m.tag == "dealer/correction" else [])
        if m.tag == "dealer/correction" and len(seen) == 1:
            return replace(m, body=m.body[:-1] + bytes([m.body[-1] ^ 1]))
        return m

    run = between(lambda s: count(s, rows.join(s)), "verified-dealer", tamper=spoil, every=True)
    assert isinstance(run.errors["a"], RemoteProtocolError)
    assert run.errors["a"].party == "dealer"
    assert "measure/count" not in [m.tag for m in run.transcript]


# --- training on the rows that matched

FRAC_BITS = 20
ROWS, EVERY = 1100, 2048
RIDGE = 0.05


@cache
def people() -> tuple[Rows, np.ndarray, np.ndarray]:
    """Two owners' rows with columns from -1 to 1, the last of the sender's a label; and what the join of them holds."""
    rows = Rows(sets(2000, 1900, ROWS), (2, 2))
    rng = np.random.default_rng(11)
    values = [rng.uniform(-1, 1, (len(p), 2)) for p in rows.points]
    x, y = (list(part) for part in zip(*sorted(rows.places().items()), strict=True))
    score = 1.5 * values[0][x, 0] - values[0][x, 1] + 2 * values[1][y, 0] + 0.3
    values[1][:, 1] = rng.integers(0, 2, len(values[1]))  # labels of those who are in one set only mean nothing
    values[1][y, 1] = rng.random(ROWS) < 1 / (1 + np.exp(-2 * score))
    unit = Column("x", -1, 1, FRAC_BITS)
    rows.columns = tuple(unit.words(part) for part in values)
    Z = np.column_stack([np.ones(ROWS), values[0][x], values[1][y, :1]])
    return rows, Z, values[1][y, 1]


def test_linear_regression_on_shares_equals_the_one_on_the_true_join() -> None:
    """Gradient steps on the moments: rounded by one unit each, they end within (sqrt(d) units / step) / curvature."""
    rows, Z, y = people()
    d, steps, rate = Z.shape[1], 250, 4

    def body(s: Session) -> np.ndarray:
        joined = rows.join(s)
        M = moments(s, s.correlations.plan(plan_moments(joined)), joined)
        unit = np.uint64(1 << FRAC_BITS)
        M[0, :] *= unit
        M[:, 0] *= unit  # now all have 2 f bits
        M = truncate(s, M, s.correlations.plan([Truncation(n=M.size, divisor=EVERY << FRAC_BITS)])[0])
        A, b = M[:-1, :-1].copy(), M[:-1, -1:].copy()
        if s.me == 0:
            A[np.arange(d), np.arange(d)] += np.uint64(round(RIDGE * 2**FRAC_BITS))
        w = np.zeros((d, 1), dtype=np.uint64)
        step = [plan_matmul((d, d), (d, 1)), Truncation(n=d, divisor=rate << FRAC_BITS)]
        tickets = s.correlations.plan(step * steps)
        for i in range(steps):
            gradient = multiply(s, tickets[2 * i], A, w) - (b << np.uint64(FRAC_BITS))
            w -= truncate(s, gradient, tickets[2 * i + 1])
        s.correlations.settle()
        return s.open_words("measure/sums", w).view(np.int64)[:, 0] / 2**FRAC_BITS

    run = between(body)
    A, b = Z.T @ Z / EVERY + RIDGE * np.eye(d), Z.T @ y / EVERY
    exact, curvature = np.linalg.solve(A, b), np.linalg.eigvalsh(A)
    assert curvature[-1] < rate
    left = (1 - curvature[0] / rate) ** steps * np.linalg.norm(exact)
    unit = 2.0**-FRAC_BITS
    inputs = unit * d * (1 + np.linalg.norm(exact)) / curvature[0]  # entries of A and b, each within a unit or two
    tolerance = left + 2 * inputs + rate * np.sqrt(d) * unit / curvature[0]
    assert tolerance < 3e-4
    for w in results(run):
        assert np.abs(w - exact).max() < tolerance
    assert _opened(run) == ["measure/sums"]


def test_logistic_regression_in_the_engine_equals_scikit_learns_on_the_true_join() -> None:
    """The columns that are zero where nothing matched weigh the rows: those have no gradient."""
    rows, Z, y = people()
    d, steps, rate = (
        Z.shape[1],
        60,
        0.4,
    )  # the largest curvature is below d ROWS / (4 EVERY) + RIDGE, so a step of 1 / 0.6

    def body(s: Session) -> np.ndarray:
        joined = rows.join(s)
        columns = kept(s, s.correlations.plan([plan_kept(joined)])[0], joined)
        ones = joined.matched[:, None] << np.uint64(FRAC_BITS)
        with bind(s):
            inputs = mpc_tensor(from_words(np.column_stack([ones, columns[:, :-1]]), FRAC_BITS))
            label = mpc_tensor(from_words(columns[:, -1:].copy(), FRAC_BITS))
            zeros = np.zeros((d, 1)) if s.me == 0 else None
            w = mpc_tensor(share_from(0, zeros, (d, 1), FRAC_BITS))
            for _ in range(steps):
                residual = inputs.matmul(w).sigmoid() - label
                w = w - (inputs.t().matmul(residual) * (1 / (rate * EVERY)) + w * (RIDGE / rate))
            s.correlations.settle()
            return reveal(w)[:, 0]

    run = between(body)
    sklearn = LogisticRegression(C=1 / (RIDGE * EVERY), fit_intercept=False, tol=1e-10, max_iter=1000).fit(Z, y)
    exact = sklearn.coef_[0]

    def gradient(w: np.ndarray) -> np.ndarray:
        return Z.T @ (1 / (1 + np.exp(-Z @ w)) - y) / EVERY + RIDGE * w

    assert np.linalg.eigvalsh(Z.T @ Z / EVERY / 4)[-1] + RIDGE < rate  # so that steps of 1 / rate converge
    plain = np.zeros(d)
    for _ in range(steps):
        plain -= gradient(plain) / rate
    sigmoid_error, curvature = 1.6e-3, RIDGE
    tolerance = np.abs(plain - exact).max() + sigmoid_error * ROWS / EVERY * np.sqrt(d) / curvature
    assert tolerance < 0.05
    for w in results(run):
        assert np.abs(w - exact).max() < tolerance
    assert np.abs(exact).max() > 0.5
