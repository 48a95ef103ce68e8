"""Fast set intersection: both roles against plain sets, the shape of what is sent, and every way a peer can misbehave."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpc import rng
from mpc.errors import LocalProtocolError, PeerLost, ProtocolError, Refused, RemoteProtocolError
from mpc.matching import hashes, kernels_numpy, okvs, oprf, protocol, reveals, vole
from mpc.matching.protocol import MAX_ITEMS, intersect
from mpc.psi import Alignment
from mpc.wire import Kind
from tests.harness import Run, run_parties, try_parties

SESSION = bytes(range(16))
SETUP = ["hello", "hello", "public", "points", "trees", "attempt"]
TAGS = ["hello", "public", "points", "trees", "attempt", "masked", "upper", "tags", "vote", "rows"]


class QuickTransfers:
    """Base transfers without security, in place of 0.3 seconds of points; `test_matching_parts` has real ones."""

    def __init__(self, session: bytes, sender: int) -> None:
        self._session = session

    def key(self, i, bit, public, points, secret) -> bytes:
        return hashlib.sha256(self._session + i.to_bytes(2, "big") + bytes([bit]) + points).digest()[:16]

    def choose(self, i, bit, noise):
        return self, bytes(64)

    def exchange(self, public) -> bytes:
        return b""

    def keys(self, i, scalar, public, points) -> list[bytes]:
        return [self.key(i, bit, public, points, b"") for bit in (0, 1)]


@pytest.fixture(autouse=True, scope="module")
def _quick() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vole, "BaseTransfers", QuickTransfers)
        yield


def _pair(a, b, minimum=0, firsts=(True, False), sessions=(SESSION, SESSION)):
    minima = minimum if isinstance(minimum, tuple) else (minimum, minimum)
    return {
        "lender": lambda c: intersect(a, "platform", sessions[0], c, minima[0], firsts[0]),
        "platform": lambda c: intersect(b, "lender", sessions[1], c, minima[1], firsts[1]),
    }


def _people(*numbers: int) -> list[bytes]:
    return [b"email\0v1\0%d@example.com" % n for n in numbers]


def _matched(items: list[bytes], alignment: Alignment) -> list[bytes]:
    return [items[i] for i in alignment.rows]


def _drop(message) -> None:
    """The message never arrives."""


A, B = _people(1, 2, 3, 4, 5), _people(9, 4, 8, 2, 5, 7)


def _fault(tag: str, change, sender: str) -> Run:
    """Run A against B while the `sender`'s messages of one step are changed."""
    full = f"matching/{tag}"
    return try_parties(_pair(A, B), tamper=lambda m: change(m) if (m.tag, m.sender) == (full, sender) else m)


def _blame(run: Run, party: str) -> tuple[str, str, str]:
    error = run.errors[party]
    assert isinstance(error, RemoteProtocolError)
    return error.party, error.tag, error.why


# --- results


@pytest.mark.parametrize("firsts", [(True, False), (False, True)])
def test_both_sides_learn_the_intersection_in_the_same_order(firsts) -> None:
    run = run_parties(_pair(A, B, firsts=firsts))
    at_lender, at_platform = run["lender"], run["platform"]
    assert _matched(A, at_lender) == _matched(B, at_platform)
    assert set(_matched(A, at_lender)) == set(A) & set(B)
    assert (at_lender.n_own, at_lender.n_peer, at_platform.n_own, at_platform.n_peer) == (5, 6, 6, 5)
    assert at_lender.rows.dtype == at_platform.rows.dtype == np.int64


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.binary(max_size=4), unique=True, max_size=12), st.lists(st.binary(max_size=4), unique=True, max_size=12)
)
def test_equals_plain_set_intersection(a: list[bytes], b: list[bytes]) -> None:
    run = run_parties(_pair(a, b, minimum=len(set(a) & set(b))))
    assert _matched(a, run["lender"]) == _matched(b, run["platform"])
    assert sorted(_matched(a, run["lender"])) == sorted(set(a) & set(b))


@pytest.mark.parametrize(("n", "m", "common"), [(10_000, 10_000, 5_000), (3, 20_000, 2), (20_000, 3, 2), (4_000, 0, 0)])
def test_larger_and_unequal_sets(n: int, m: int, common: int) -> None:
    a, b = _people(*range(n)), _people(*range(n - common, n - common + m))[::-1]
    run = run_parties(_pair(a, b))
    assert _matched(a, run["lender"]) == _matched(b, run["platform"])
    assert set(_matched(a, run["lender"])) == set(a) & set(b)
    assert len(run["lender"].rows) == common


@pytest.mark.parametrize(
    ("a", "b"), [([], []), ([], B), (A, []), (A, A), (A[:1], A[:1]), (A[:1], B[:1]), ([b""], [b""])]
)
def test_small_sets(a, b) -> None:
    run = run_parties(_pair(a, b))
    assert _matched(a, run["lender"]) == _matched(b, run["platform"])
    assert set(_matched(a, run["lender"])) == set(a) & set(b)


def test_items_of_all_lengths() -> None:
    a = [bytes([7]) * n for n in (0, 1, 63, 64, 65, 128, 1023, 1024, 1025, 5000)]
    b = [*(x + b"\0" for x in a), *a[::2]]
    run = run_parties(_pair(a, b))
    assert _matched(a, run["lender"]) == _matched(b, run["platform"])
    assert set(_matched(a, run["lender"])) == set(a[::2])


def test_the_order_does_not_depend_on_the_input_order_and_differs_between_runs() -> None:
    people = _people(*range(40))
    orders = set()
    for a in (people, people[::-1]):
        run = run_parties(_pair(a, people))
        orders.add(tuple(_matched(a, run["lender"])))
    assert len(orders) == 2
    assert tuple(people) not in orders


def test_progress_ends_with_all_identifiers_and_columns() -> None:
    seen: dict[str, list[tuple[int, int]]] = {"lender": [], "platform": []}
    pair = {
        "lender": lambda c: intersect(A, "platform", SESSION, c, 0, True, lambda d, t: seen["lender"].append((d, t))),
        "platform": lambda c: intersect(
            B, "lender", SESSION, c, 0, False, lambda d, t: seen["platform"].append((d, t))
        ),
    }
    run_parties(pair)
    for name, total in (("lender", 2 * 5 + 256), ("platform", 2 * 6 + 256)):
        assert seen[name][-1] == (total, total)
        assert [d for d, _ in seen[name]] == sorted({d for d, _ in seen[name]})


# --- what is sent


@pytest.mark.parametrize(("n", "m"), [(5, 6), (0, 3), (1, 1), (3, 0), (900, 2000)])
def test_cost_is_the_one_stated(n: int, m: int) -> None:
    run = run_parties(_pair(_people(*range(n)), _people(*range(m))))
    c = -(-(-(-11 * (n + 1) // 10) + 224) // 128) * 128
    b = int(np.ceil(np.log2(m + 1)))
    assert run.bytes_sent("lender") == 6938 + 17 + 26.5 * c + -(-(m + 1) // 8)
    assert run.bytes_sent("platform") == 13682 + 8 * (m + 1) + -(-(m + 2**b) // 8)
    sent = [x.tag.removeprefix("matching/") for x in run.transcript]
    assert sent == [*SETUP, *["masked"] * -(-c // 16384), "upper", "tags", "vote", "vote", "rows"]
    rounds = 1 + sum(x.sender != y.sender for x, y in zip(run.transcript[2:], run.transcript[3:], strict=False))
    assert rounds == 7  # hello and public, points, trees to masked, upper and tags, two votes, rows


def test_shape_depends_on_sizes_only() -> None:
    shapes = {tuple(run_parties(_pair(a, B)).shape()) for a in (A, A[::-1], _people(11, 12, 13, 14, 15), B[:5])}
    assert len(shapes) == 1


def test_no_identifier_and_no_hash_of_one_is_sent_and_nothing_is_sent_twice() -> None:
    runs = [run_parties(_pair(A, B)).transcript for _ in range(2)]
    sent = b"".join(m.body for t in runs for m in t)
    for raw in [*A, *(bytes(word) for word in hashes.identify(A, SESSION).words.view(np.uint8).reshape(-1, 8))]:
        assert raw not in sent
    one, two = ({m.body for m in t if m.tag in ("matching/masked", "matching/tags", "matching/trees")} for t in runs)
    assert not one & two


def test_masked_columns_are_uniform_whatever_the_set_is() -> None:
    """Chi-square of every symbol's 16 values, 15 degrees of freedom: beyond 65 with a probability of 3e-8."""
    for a in ([], _people(*range(2000)), _people(*range(5000, 7000))):
        d = b"".join(m.body for m in run_parties(_pair(a, B)).transcript if m.tag == "matching/masked")
        raw = np.frombuffer(d, dtype=np.uint8).reshape(-1, vole.TREES, 64)
        nibbles = np.concatenate([raw & 15, raw >> 4], axis=2).transpose(1, 0, 2).reshape(vole.TREES, -1)
        expected = nibbles.shape[1] / 16
        counts = np.stack([np.bincount(row, minlength=16) for row in nibbles])
        assert (((counts - expected) ** 2).sum(1) / expected).max() < 65


def test_tags_are_spread_and_their_order_says_nothing_about_rows() -> None:
    people = _people(*range(4000))
    run = run_parties(_pair([], people))
    upper = next(np.frombuffer(m.body, dtype=np.uint8) for m in run.transcript if m.tag == "matching/upper")
    places = np.flatnonzero(np.unpackbits(upper, bitorder="little"))
    assert len(places) == 4001
    counts = np.bincount(places - np.arange(4001), minlength=4096)
    assert len(counts) == 4096
    assert counts.max() < 15  # Poisson of mean 1: below 2^-27 for all of them together


# --- the minimum


@pytest.mark.parametrize(
    ("minimum", "at_lender", "at_platform", "last"),
    [
        ((4, 4), "platform than our own minimum of 4", "the minimum set by lender", "vote"),
        ((4, 0), "platform than our own minimum of 4", "the minimum set by lender", "vote"),
        ((3, 100), "the minimum set by platform", "lender than our own minimum of 100", "vote"),
    ],
)
def test_too_few_matches_are_refused_before_the_sender_learns_rows(minimum, at_lender, at_platform, last) -> None:
    run = try_parties(_pair(A, B, minimum=minimum))
    assert {type(e) for e in run.errors.values()} == {Refused}
    assert str(run.errors["lender"]).endswith(at_lender)
    assert str(run.errors["platform"]).endswith(at_platform)
    assert "3" not in str(run.errors["lender"]) + str(run.errors["platform"])  # the number of matches
    assert run.transcript[-1].tag == f"matching/{last}"
    first_vote = next(m for m in run.transcript if m.tag == "matching/vote")
    told = int.from_bytes(first_vote.body[1:], "little")
    assert told == (3 if minimum[0] <= 3 else 0)  # a number that the receiver finds too small is not told


def test_exactly_the_minimum_is_enough() -> None:
    assert len(run_parties(_pair(A, B, minimum=3))["lender"].rows) == 3


@pytest.mark.parametrize("minimum", [0, 1])
def test_no_match_at_all(minimum: int) -> None:
    run = try_parties(_pair(A, _people(6, 7), minimum=minimum))
    assert [type(e) for e in run.errors.values()] == [Refused] * (2 * minimum)


# --- retries


def test_another_attempt_has_other_rows(monkeypatch) -> None:
    real, seen = okvs.solve, []

    def fails_twice(*rows):
        seen.append(rows)
        return None if len(seen) < 3 else real(*rows)

    monkeypatch.setattr(okvs, "solve", fails_twice)
    run = run_parties(_pair(A, B))
    assert set(_matched(A, run["lender"])) == set(A) & set(B)
    assert _matched(A, run["lender"]) == _matched(B, run["platform"])
    assert next(m.body for m in run.transcript if m.tag == "matching/attempt") == b"\2"
    for first, second in ((seen[0], seen[1]), (seen[1], seen[2])):
        assert not any(np.intersect1d(x, y).size for x, y in zip(first[1:3], second[1:3], strict=True))


def test_attempts_are_bounded(monkeypatch) -> None:
    monkeypatch.setattr(okvs, "solve", lambda *_: None)
    run = try_parties(_pair(A, B))
    assert isinstance(run.errors["lender"], LocalProtocolError)
    assert str(run.errors["lender"]) == "the identifiers could not be encoded in 3 attempts"
    assert isinstance(run.errors["platform"], PeerLost)


# --- faults


def _byte(at: int, value: int):
    return lambda m: replace(m, body=m.body[:at] + bytes([value]) + m.body[at + 1 :])


@pytest.mark.parametrize(
    ("tag", "sender", "change", "step", "why"),
    [
        ("hello", "lender", _byte(8, 2), "hello", "expected leader=1, got 2"),
        ("hello", "platform", _byte(4, 1), "hello", f"expected at most {MAX_ITEMS} identifiers, got"),
        ("attempt", "lender", _byte(0, 3), "attempt", "expected fewer than 3 attempts, got 3"),
        ("hello", "platform", _byte(41, 2), "hello", "expected at most 1 finished buckets, got 2"),
        ("hello", "lender", _byte(50, 1), "hello", "another session, security or size of buckets than ours"),
        ("upper", "platform", _byte(0, 0xFF), "upper", "the tags are not as many as the identifiers"),
        ("upper", "platform", _byte(0, 0), "upper", "the tags are not as many as the identifiers"),
        ("tags", "platform", lambda m: replace(m, body=bytes(56)), "tags", "tags out of order, or one twice"),
        ("vote", "lender", _byte(0, 2), "vote", "neither yes nor no"),
        ("vote", "platform", _byte(0, 2), "vote", "neither yes nor no"),
        ("vote", "lender", _byte(8, 1), "vote", "more matches than identifiers"),
        ("vote", "lender", _byte(1, 2), "rows", "other matches than it counted"),
        ("rows", "lender", lambda m: replace(m, body=b"\xff" + m.body[1:]), "rows", "matches beyond the last tag"),
        (
            "rows",
            "lender",
            lambda m: replace(m, body=b"\x7f" + m.body[1:]),
            "rows",
            "matches that it cannot have found",
        ),
        (
            "rows",
            "lender",
            lambda m: replace(m, body=m.body[:1] + bytes(16)),
            "rows",
            "matches that it cannot have found",
        ),
    ],
)
def test_wrong_contents_are_the_senders_fault(tag, sender, change, step, why) -> None:
    other = "platform" if sender == "lender" else "lender"
    run = _fault(tag, change, sender)
    party, at, reason = _blame(run, other)
    assert (party, at) == (sender, f"matching/{step}")
    assert reason.startswith(why)
    assert other not in run.results


SENT_BY = {
    "lender": ["hello", "public", "trees", "attempt", "masked", "vote", "rows"],
    "platform": ["hello", "points", "upper", "tags", "vote"],
}
SPOILT = {
    "shorter": lambda m: replace(m, body=m.body[:-1]),
    "longer": lambda m: replace(m, body=m.body + b"\0"),
    "empty": lambda m: replace(m, body=b""),
    "another kind": lambda m: replace(m, kind=Kind.WORDS32),
    "another tag": lambda m: replace(m, tag="matching/other"),
    "twice": lambda m: [m, m],
    "lost": _drop,
}


@pytest.mark.parametrize("how", SPOILT)
@pytest.mark.parametrize(("sender", "tag"), [(sender, tag) for sender, tags in SENT_BY.items() for tag in tags])
def test_every_message_is_checked_before_it_is_used(sender: str, tag: str, how: str) -> None:
    other = "platform" if sender == "lender" else "lender"
    run = _fault(tag, SPOILT[how], sender)
    if how == "twice" and tag == SENT_BY[sender][-1]:
        assert len(run.results) == 2  # the last message of a side; nobody reads another one
        return
    error = run.errors[other]
    assert isinstance(error, (RemoteProtocolError, PeerLost) if how == "lost" else RemoteProtocolError)
    assert error.party == sender
    assert other not in run.results


@pytest.mark.parametrize(("tag", "sender"), [("trees", "lender"), ("points", "platform"), ("masked", "lender")])
def test_what_spoils_every_answer_is_no_result(tag: str, sender: str) -> None:
    """Noise in place of a message that everything depends on: the sentinel is not found."""
    noise = np.random.default_rng(1)
    run = _fault(tag, lambda m: replace(m, body=noise.bytes(m.size)), sender)
    assert _blame(run, "lender") == (
        "platform",
        "matching/tags",
        "no answer to the identifier that both sides have",
    )
    assert not run.results


def test_another_attempt_than_was_made_is_no_result() -> None:
    assert _blame(_fault("attempt", _byte(0, 1), "lender"), "lender")[1] == "matching/tags"


def test_different_sessions_are_noticed() -> None:
    run = try_parties(_pair(A, A, sessions=(SESSION, bytes(16))))
    assert _blame(run, "lender")[1:] == _blame(run, "platform")[1:]
    assert _blame(run, "lender")[1:] == ("matching/hello", "another session, security or size of buckets than ours")
    assert not run.results


def test_a_peer_that_falls_silent_is_lost_and_named() -> None:
    run = _fault("rows", _drop, "lender")
    assert isinstance(run.errors["platform"], PeerLost)
    assert (run.errors["platform"].party, run.errors["platform"].step) == ("lender", "matching/rows")


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(TAGS), st.sampled_from(["lender", "platform"]), st.integers(0, 2**16), st.integers(1, 255))
def test_one_changed_byte_never_hangs_or_crashes_or_adds_a_match(tag: str, sender: str, at: int, flip: int) -> None:
    def change(m):
        body = bytearray(m.body)
        body[at % len(body)] ^= flip
        return replace(m, body=bytes(body))

    run = _fault(tag, change, sender)
    assert set(run.results) | set(run.errors) == {"lender", "platform"}
    assert all(isinstance(e, ProtocolError) for e in run.errors.values())
    for name, items in (("lender", A), ("platform", B)):
        if name in run.results:
            assert set(_matched(items, run[name])) <= set(A) & set(B)


@pytest.mark.parametrize("firsts", [(True, True), (False, False)])
def test_two_sides_with_the_same_role(firsts) -> None:
    run = try_parties(_pair(A, B, firsts=firsts))
    assert _blame(run, "platform")[:2] == ("lender", "matching/hello")


@pytest.mark.parametrize(
    ("items", "session", "minimum", "why"),
    [
        ([b"x", b"y", b"x"], SESSION, 0, "identifiers to be matched are distinct, got 1 repeated ones"),
        ([b"x" * 2000] * 3, SESSION, 0, "identifiers to be matched are distinct, got 2 repeated ones"),
        (A, b"", 0, "a session id has 1 to 255 bytes, got 0"),
        (A, bytes(256), 0, "a session id has 1 to 255 bytes, got 256"),
        (A, SESSION, -1, "the minimum number of matches is not negative, got -1"),
        (range(MAX_ITEMS + 1), SESSION, 0, "at most 16777216 identifiers"),
    ],
)
@pytest.mark.parametrize("first", [True, False])
def test_our_own_mistakes_send_nothing(items, session, minimum, why, first) -> None:
    run = try_parties({"a": lambda c: intersect(items, "b", session, c, minimum, first), "b": lambda _: None})
    assert isinstance(run.errors["a"], LocalProtocolError)
    assert why in str(run.errors["a"])
    assert run.transcript == []


# --- streams, and the kernels without numba


def test_no_block_of_a_stream_is_used_twice(monkeypatch) -> None:
    """Every call's range of counters starts where the one before ended, and no run has the keys of another."""
    spent: dict[bytes, list[range]] = {}
    for name, real in (("mask", vole.kernels.mask), ("unmask", vole.kernels.unmask)):

        def recorded(keys, counter, columns, other, name=name, real=real):
            tiles = len(columns) // 128 if name == "mask" else len(columns)
            spent.setdefault(keys.tobytes(), []).append(range(counter, counter + 4 * tiles))
            return real(keys, counter, columns, other)

        monkeypatch.setattr(vole.kernels, name, recorded)
    monkeypatch.setattr(oprf, "CHUNK_TILES", 3)
    for _ in range(2):
        run_parties(_pair(_people(*range(1500)), B))
    assert len(spent) == 4  # two sides, two runs
    for ranges in spent.values():
        assert len(ranges) == 5
        assert [r.start for r in ranges] == [0, *(r.stop for r in ranges[:-1])]
        assert ranges[-1].stop == 4 * 15


def test_without_compiled_kernels_the_same_is_sent(monkeypatch) -> None:
    a, b = _people(*range(150)), _people(*range(100, 300))

    def transcript():
        keys = iter(bytes([i]) * 32 for i in range(100))
        for module in (oprf, protocol):
            monkeypatch.setattr(module, "fresh_prg", lambda: rng.Prg(next(keys)))
        run = run_parties(_pair(a, b))
        return run.transcript, run["lender"].rows.tolist(), run["platform"].rows.tolist()

    compiled = transcript()
    for module in (hashes, okvs, protocol, vole):
        monkeypatch.setattr(module, "kernels", kernels_numpy)
    assert transcript() == compiled
    assert len(compiled[1]) == 50


def test_what_is_revealed_is_declared() -> None:
    names = {"sizes", "matches", "early-rows", "rows", "progress", "traffic"}
    assert {r.name for r in reveals.REVEALS} == {f"matching.{name}" for name in names}
    assert {r.to for r in reveals.REVEALS} == {"owners", "first", "coordinator"}
