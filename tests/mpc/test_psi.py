"""Set intersection: both roles against plain sets, the shape of what is sent, and every way a peer can misbehave."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpc import psi
from mpc.errors import LocalProtocolError, PeerLost, ProtocolError, Refused, RemoteProtocolError
from mpc.psi import Alignment, intersect
from mpc.wire import Kind
from tests.harness import Run, run_parties, try_parties

SESSION = bytes(range(16))
P = 2**255 - 19
TAGS = ["psi/hello", "psi/points", "psi/tags", "psi/vote", "psi/order"]
# Every x-coordinate of order 1, 2, 4 or 8 on the curve or its twist (RFC 7748 section 6.1 refuses their products).
LOW_ORDER = [
    0,
    1,
    P - 1,
    325606250916557431795983626356110631294008115727848805560023387167927233504,
    39382357235489614581723060781553021112529911719440698176882885853963445705823,
]


def _pair(a, b, minimum=0, leaders=(True, False), sessions=(SESSION, SESSION)):
    minima = minimum if isinstance(minimum, tuple) else (minimum, minimum)
    return {
        "lender": lambda c: intersect(a, "platform", sessions[0], c, minima[0], leaders[0]),
        "platform": lambda c: intersect(b, "lender", sessions[1], c, minima[1], leaders[1]),
    }


def _people(*numbers: int) -> list[bytes]:
    return [b"email\0v1\0%d@example.com" % n for n in numbers]


def _matched(items: list[bytes], alignment: Alignment) -> list[bytes]:
    return [items[i] for i in alignment.rows]


def _drop(message) -> None:
    """The message never arrives."""


A, B = _people(1, 2, 3, 4, 5), _people(9, 4, 8, 2, 5, 7)


def _fault(tag: str, change, sender: str = "lender") -> Run:
    """Run A against B while the `sender`'s messages of one step are changed."""
    return try_parties(_pair(A, B), tamper=lambda m: change(m) if (m.tag, m.sender) == (tag, sender) else m)


def _blame(run: Run, party: str = "platform") -> tuple[str, str, str]:
    error = run.errors[party]
    assert isinstance(error, RemoteProtocolError)
    return error.party, error.tag, error.why


def test_both_sides_learn_the_intersection_in_the_same_order() -> None:
    run = run_parties(_pair(A, B))
    at_lender, at_platform = run["lender"], run["platform"]
    assert _matched(A, at_lender) == _matched(B, at_platform)
    assert set(_matched(A, at_lender)) == set(A) & set(B)
    assert (at_lender.n_own, at_lender.n_peer, at_platform.n_own, at_platform.n_peer) == (5, 6, 6, 5)
    assert at_lender.rows.dtype == np.int64


@settings(max_examples=20, deadline=None)
@given(
    st.lists(st.binary(max_size=4), unique=True, max_size=12), st.lists(st.binary(max_size=4), unique=True, max_size=12)
)
def test_equals_plain_set_intersection(a: list[bytes], b: list[bytes]) -> None:
    run = run_parties(_pair(a, b, minimum=len(set(a) & set(b))))
    assert _matched(a, run["lender"]) == _matched(b, run["platform"])
    assert sorted(_matched(a, run["lender"])) == sorted(set(a) & set(b))


def test_several_messages_of_points_of_unequal_number(monkeypatch) -> None:
    monkeypatch.setattr(psi, "CHUNK_ITEMS", 4)
    a, b = _people(*range(21)), _people(*range(17, 26))
    run = run_parties(_pair(a, b))
    assert sorted(_matched(a, run["lender"])) == sorted(_people(17, 18, 19, 20))
    assert _matched(a, run["lender"]) == _matched(b, run["platform"])
    sizes = [m.size // 32 for m in run.transcript if m.tag == "psi/points" and m.sender == "lender"]
    assert sizes == [4, 4, 4, 4, 4, 1]


@pytest.mark.parametrize(("a", "b"), [([], []), ([], B), (A, []), (A, A), (A[:1], A[:1]), (A[:1], B[:1])])
def test_small_sets(a, b) -> None:
    run = run_parties(_pair(a, b))
    assert _matched(a, run["lender"]) == _matched(b, run["platform"])
    assert set(_matched(a, run["lender"])) == set(a) & set(b)


def test_the_order_does_not_depend_on_the_input_order_and_differs_between_runs() -> None:
    people = _people(*range(40))
    orders = set()
    for a in (people, people[::-1]):
        run = run_parties(_pair(a, people))
        orders.add(tuple(_matched(a, run["lender"])))
    assert len(orders) == 2
    assert tuple(people) not in orders


def test_points_leave_in_another_order_each_run_and_repeat_nothing() -> None:
    first, second = (run_parties(_pair(A, B)).transcript for _ in range(2))
    one, two = ({m.body for m in t if m.tag in ("psi/points", "psi/tags")} for t in (first, second))
    assert not one & two


@pytest.mark.parametrize(("n", "m"), [(5, 6), (0, 3), (1, 1)])
def test_cost_is_the_one_stated(n: int, m: int) -> None:
    run = run_parties(_pair(A[:n], B[:m]))
    assert run.bytes_sent("lender") == 33 + 32 * n + 20 * m
    assert run.bytes_sent("platform") == 33 + 32 * m + 20 * n
    for name, own in (("lender", n), ("platform", m)):
        sent = [x.tag for x in run.transcript if x.sender == name]
        assert sent == [tag for tag in TAGS if tag != "psi/points" or own]


def test_shape_depends_on_sizes_only() -> None:
    shapes = {tuple(run_parties(_pair(a, B)).shape()) for a in (A, A[::-1], _people(11, 12, 13, 14, 15), B[:5])}
    assert len(shapes) == 1


def test_no_identifier_and_no_plain_hash_of_one_is_sent() -> None:
    from mpc.curve25519 import hash_to_u_batch

    run = run_parties(_pair(A, B))
    sent = b"".join(m.body for m in run.transcript)
    prefix = bytes([len(SESSION)]) + SESSION
    for raw in [*A, *hash_to_u_batch([prefix + x for x in A], psi._DST)]:
        assert raw not in sent


def test_different_sessions_match_nothing() -> None:
    run = run_parties(_pair(A, A, sessions=(SESSION, bytes(16))))
    assert len(run["lender"].rows) == len(run["platform"].rows) == 0


def test_progress_counts_every_point_operation(monkeypatch) -> None:
    monkeypatch.setattr(psi, "CHUNK_ITEMS", 2)
    seen: list[tuple[int, int]] = []
    pair = _pair(A, B)
    pair["lender"] = lambda c: intersect(A, "platform", SESSION, c, 0, True, lambda d, t: seen.append((d, t)))
    run_parties(pair)
    assert {total for _, total in seen} == {16}
    assert seen[-1] == (16, 16)
    assert [d for d, _ in seen] == sorted({d for d, _ in seen})


@pytest.mark.parametrize(
    ("minimum", "at_lender", "at_platform"),
    [
        ((4, 4), "platform than our own minimum of 4", "lender than our own minimum of 4"),
        ((4, 0), "platform than our own minimum of 4", "the minimum set by lender"),
        ((3, 100), "the minimum set by platform", "lender than our own minimum of 100"),
    ],
)
def test_too_few_matches_are_refused_before_any_row_is_revealed(minimum, at_lender, at_platform) -> None:
    run = try_parties(_pair(A, B, minimum=minimum))
    assert {type(e) for e in run.errors.values()} == {Refused}
    assert str(run.errors["lender"]).endswith(at_lender)
    assert str(run.errors["platform"]).endswith(at_platform)
    assert "3" not in str(run.errors["lender"]) + str(run.errors["platform"])  # the number of matches
    assert {m.tag for m in run.transcript} == set(TAGS) - {"psi/order"}


def test_exactly_the_minimum_is_enough() -> None:
    assert len(run_parties(_pair(A, B, minimum=3))["lender"].rows) == 3


@pytest.mark.parametrize("minimum", [0, 1])
def test_no_match_at_all(minimum: int) -> None:
    run = try_parties(_pair(A, _people(6, 7), minimum=minimum))
    assert [type(e) for e in run.errors.values()] == [Refused] * (2 * minimum)


@pytest.mark.parametrize(
    ("tag", "change", "step", "why"),
    [
        ("psi/points", lambda m: replace(m, body=m.body[:-1]), "psi/points", "expected 160 bytes, got 159"),
        ("psi/points", lambda m: replace(m, body=m.body + m.body[:32]), "psi/points", "expected 160 bytes, got 192"),
        ("psi/points", lambda m: replace(m, kind=Kind.WORDS64), "psi/points", "expected BYTES, got WORDS64"),
        ("psi/points", lambda m: replace(m, body=m.body[:128] + m.body[:32]), "psi/points", "the same point twice"),
        ("psi/points", lambda m: [m, m], "psi/tags", "expected 'psi/tags', got 'psi/points'"),
        ("psi/points", _drop, "psi/points", "expected 'psi/points', got 'psi/tags'"),
        ("psi/tags", lambda m: replace(m, body=m.body[:-16]), "psi/tags", "expected 96 bytes, got 80"),
        ("psi/tags", lambda m: replace(m, body=m.body[:80] + m.body[:16]), "psi/tags", "the same tag twice"),
        ("psi/tags", _drop, "psi/tags", "expected 'psi/tags', got 'psi/vote'"),
        ("psi/tags", lambda m: [m, m], "psi/vote", "expected 'psi/vote', got 'psi/tags'"),
        ("psi/vote", lambda m: replace(m, body=b"\x02" + m.body[1:]), "psi/vote", "neither yes nor no"),
        ("psi/vote", lambda m: replace(m, body=b""), "psi/vote", "expected 17 bytes, got 0"),
        ("psi/vote", lambda m: replace(m, body=m.body[:1] + bytes(16)), "psi/vote", "other matches than we found"),
        ("psi/vote", _drop, "psi/vote", "expected 'psi/vote', got 'psi/order'"),
        ("psi/order", lambda m: replace(m, body=m.body[:20] + m.body[:4]), "psi/order", "not a permutation"),
        ("psi/order", lambda m: replace(m, body=m.body[:20] + b"\xff\xff\xff\xff"), "psi/order", "not a permutation"),
        ("psi/order", lambda m: replace(m, body=m.body[:20]), "psi/order", "expected 24 bytes, got 20"),
        ("psi/hello", lambda m: replace(m, body=m.body[:8]), "psi/hello", "expected 16 bytes, got 8"),
        ("psi/hello", _drop, "psi/hello", "expected 'psi/hello', got 'psi/points'"),
        (
            "psi/hello",
            lambda m: replace(m, body=(psi.MAX_ITEMS + 1).to_bytes(8, "little") + m.body[8:]),
            "psi/hello",
            "expected at most 4194304 identifiers, got 4194305",
        ),
        (
            "psi/hello",
            lambda m: replace(m, body=m.body[:8] + b"\2" + bytes(7)),
            "psi/hello",
            "expected leader=1, got 2",
        ),
    ],
)
def test_malformed_messages_are_the_senders_fault(tag, change, step, why) -> None:
    run = _fault(tag, change)
    party, at, reason = _blame(run)
    assert (party, at) == ("lender", step)
    assert reason.startswith(why)
    assert "platform" not in run.results


def test_the_low_order_points_are_all_there_are() -> None:
    """x-only doubling takes each to the point at infinity (denominator 0) in at most three steps."""

    def order(x: int) -> int:
        for doublings in range(4):
            denominator = 4 * x * (x * x + 486662 * x + 1) % P
            if denominator == 0:
                return 2 ** (doublings + 1)
            x = (x * x - 1) ** 2 * pow(denominator, -1, P) % P
        return 0

    # Order 8 doubles to order 4 (x = 1 or -1), order 4 to order 2 (x = 0); -1 is on the twist.
    assert [order(x) for x in LOW_ORDER] == [2, 4, 4, 8, 8]


@pytest.mark.parametrize("u", LOW_ORDER)
def test_points_of_low_order_are_refused(u: int) -> None:
    run = _fault("psi/points", lambda m: replace(m, body=u.to_bytes(32, "little") + m.body[32:]))
    assert _blame(run) == ("lender", "psi/points", "a point of low order")


@pytest.mark.parametrize("u", [P, P + 9, 2**255 - 1, 2**255 + 9, 2**256 - 1])
def test_points_have_one_encoding(u: int) -> None:
    run = _fault("psi/points", lambda m: replace(m, body=u.to_bytes(32, "little") + m.body[32:]))
    assert _blame(run) == ("lender", "psi/points", "a point that is not in canonical form")


def test_points_that_differ_by_one_of_low_order_are_the_same_point() -> None:
    def shifted(m):
        u = int.from_bytes(m.body[:32], "little")  # adding (0, 0), the point of order 2, maps u to 1/u
        return replace(m, body=m.body[:128] + pow(u, -1, P).to_bytes(32, "little"))

    assert _blame(_fault("psi/points", shifted)) == ("lender", "psi/points", "the same point twice")


def test_a_peer_that_falls_silent_is_lost_and_named() -> None:
    run = _fault("psi/order", _drop)
    assert isinstance(run.errors["platform"], PeerLost)
    assert run.errors["platform"].party == "lender"
    assert run.errors["platform"].step == "psi/order"


def test_corrupted_tags_are_noticed_at_both_sides_before_any_row_is_revealed() -> None:
    run = _fault("psi/tags", lambda m: replace(m, body=bytes(b ^ 1 for b in m.body)))
    assert _blame(run, "platform") == ("lender", "psi/vote", "other matches than we found")
    assert _blame(run, "lender") == ("platform", "psi/vote", "other matches than we found")
    assert not any(m.tag == "psi/order" for m in run.transcript)


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(TAGS), st.sampled_from(["lender", "platform"]), st.integers(0, 2**16), st.integers(1, 255))
def test_one_changed_byte_never_hangs_or_crashes(tag: str, sender: str, at: int, flip: int) -> None:
    def change(m):
        body = bytearray(m.body)
        body[at % len(body)] ^= flip
        return replace(m, body=bytes(body))

    run = _fault(tag, change, sender)
    assert set(run.results) | set(run.errors) == {"lender", "platform"}
    assert all(isinstance(e, ProtocolError) for e in run.errors.values())


@pytest.mark.parametrize("leaders", [(True, True), (False, False)])
def test_two_sides_with_the_same_role(leaders) -> None:
    run = try_parties(_pair(A, B, leaders=leaders))
    assert _blame(run)[:2] == ("lender", "psi/hello")


@pytest.mark.parametrize(
    ("items", "session", "minimum", "why"),
    [
        ([b"x", b"y", b"x"], SESSION, 0, "identifiers to be matched are distinct, got 1 repeated ones"),
        (A, b"", 0, "a session id has 1 to 255 bytes, got 0"),
        (A, bytes(256), 0, "a session id has 1 to 255 bytes, got 256"),
        (A, SESSION, -1, "the minimum number of matches is not negative, got -1"),
        ([b"x"] * (psi.MAX_ITEMS + 1), SESSION, 0, "at most 4194304 identifiers"),
    ],
)
def test_our_own_mistakes_send_nothing(items, session, minimum, why) -> None:
    run = try_parties({"a": lambda c: intersect(items, "b", session, c, minimum, True), "b": lambda _: None})
    assert isinstance(run.errors["a"], LocalProtocolError)
    assert why in str(run.errors["a"])
    assert run.transcript == []


def test_shuffle_is_a_permutation_and_redraws_on_a_collision(monkeypatch) -> None:
    draws = [np.array([7, 1, 7], dtype=np.uint64), np.array([3, 1, 2], dtype=np.uint64)]

    class Fixed:
        def words(self, n):
            return draws.pop(0)

    assert sorted(psi._shuffle(100)) == list(range(100))
    assert len(psi._shuffle(0)) == 0
    monkeypatch.setattr(psi, "fresh_prg", Fixed)
    assert list(psi._shuffle(3)) == [1, 2, 0]
    assert draws == []


def test_shuffle_looks_uniform() -> None:
    counts = np.zeros((3, 3))
    for _ in range(1200):
        counts[np.arange(3), psi._shuffle(3)] += 1
    # each cell is binomial(1200, 1/3): mean 400, standard deviation 16.3; seven of them
    assert np.all(np.abs(counts - 400) < 115)


def test_what_is_revealed_is_declared() -> None:
    assert {r.name for r in psi.REVEALS} == {"psi.sizes", "psi.matches", "psi.rows", "psi.traffic"}
    assert {r.to for r in psi.REVEALS} == {"owners", "coordinator"}


# --- the number alone


def _counting(a, b, minimum=0):
    minima = minimum if isinstance(minimum, tuple) else (minimum, minimum)
    return {
        "lender": lambda c: psi.count(a, "platform", SESSION, c, minima[0], True),
        "platform": lambda c: psi.count(b, "lender", SESSION, c, minima[1], False),
    }


@settings(max_examples=10, deadline=None)
@given(
    st.lists(st.binary(max_size=3), unique=True, max_size=9), st.lists(st.binary(max_size=3), unique=True, max_size=9)
)
def test_the_count_equals_that_of_plain_sets(a: list[bytes], b: list[bytes]) -> None:
    run = run_parties(_counting(a, b))
    assert (run["lender"], run["platform"]) == (len(set(a) & set(b)),) * 2


@pytest.mark.parametrize(("a", "b"), [([], []), ([], B), (A, []), (A, A), (A[:1], A[:1]), (A[:1], B[:1])])
def test_the_count_of_small_sets(a, b) -> None:
    assert run_parties(_counting(a, b))["platform"] == len(set(a) & set(b))


def test_the_count_stops_where_rows_would_be_told_and_costs_what_it_says() -> None:
    counted, listed = run_parties(_counting(A, B)), run_parties(_pair(A, B))
    assert counted.shape() == [step for step in listed.shape() if step[2] != "psi/order"]
    assert counted.bytes_sent("lender") == 33 + 32 * len(A) + 16 * len(B)
    assert counted.bytes_sent("platform") == 33 + 32 * len(B) + 16 * len(A)


@pytest.mark.parametrize("minimum", [(4, 0), (0, 4), (4, 4)])
def test_a_count_below_a_minimum_is_refused_at_both(minimum) -> None:
    run = try_parties(_counting(A, B, minimum))
    assert {type(error) for error in run.errors.values()} == {Refused}
    assert not run.results


def test_a_vote_on_other_matches_is_noticed_when_counting() -> None:
    def change(m):
        return replace(m, body=m.body[:1] + bytes(16)) if (m.tag, m.sender) == ("psi/vote", "lender") else m

    error = try_parties(_counting(A, B), tamper=change).errors["platform"]
    assert isinstance(error, RemoteProtocolError)
    assert (error.party, error.tag) == ("lender", "psi/vote")


def test_what_a_count_reveals_is_declared() -> None:
    assert {r.name for r in psi.COUNT_REVEALS} == {"psi.sizes", "psi.count", "psi.traffic"}
