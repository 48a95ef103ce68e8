"""Matching through a helper: owners and helper against plain sets, the shape of what is sent, and a helper that lies."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpc.delegated import protocol as delegated
from mpc.delegated.protocol import COPIES, DECOYS, MAX_ITEMS, Aligned, Assisted, Terms, assist, intersect
from mpc.delegated.reveals import REVEALS
from mpc.errors import LocalProtocolError, PeerLost, ProtocolError, Refused, RemoteProtocolError
from mpc.matching import kernels_numpy
from mpc.wire import Kind
from tests.harness import Run, run_parties, try_parties
from tests.mpc.playing import NAMES

SESSION = bytes(range(16))
HELPER = "helper"
SENT_BY_OWNER = ["part", "confirm", "hello", "tokens", "agreed"]
SENT_BY_HELPER = ["verdict", "map"]


def _parties(sets, copies=1, minima=0, sessions=SESSION, terms=None):
    """Every owner with its set, and the helper.  minima, sessions, terms: one for all, or one for each owner."""
    names = NAMES[: len(sets)]
    each = [minima] * len(sets) if isinstance(minima, int) else minima
    ids = [sessions] * len(sets) if isinstance(sessions, bytes) else sessions
    agreed = terms or [Terms(names, HELPER, copies)] * len(sets)

    def owner(i):
        return lambda c: intersect(sets[i], agreed[i], i, ids[i], c, each[i])

    return {**{name: owner(i) for i, name in enumerate(names)}, HELPER: lambda c: assist(c, names)}


def _people(*numbers: int) -> list[bytes]:
    return [b"email\0v1\0%d@example.com" % n for n in numbers]


def _matched(items: list[bytes], aligned: Aligned) -> list[bytes]:
    return [items[i] for i in aligned.rows]


def _check(sets, copies=1) -> Run:
    """Play, and compare with plain sets."""
    run = run_parties(_parties(sets, copies))
    expected = set.intersection(*map(set, sets))
    found = [_matched(items, run[name]) for name, items in zip(NAMES, sets)]
    assert all(matched == found[0] for matched in found)
    assert sorted(found[0]) == sorted(expected)
    assert [run[name].n_own for name in NAMES[: len(sets)]] == [len(items) for items in sets]
    assert run[HELPER] == Assisted(tuple(map(len, sets)), len(expected))
    return run


def _drop(message) -> None:
    """The message never arrives."""


A, B, C = _people(1, 2, 3, 4, 5), _people(9, 4, 8, 2, 5, 7), _people(5, 1, 9, 4)
FIVE = [A, B, C, _people(4, 5), _people(*range(20))]


def _fault(tag: str, change, sender: str = "a", receiver: str | None = None, copies: int = 1) -> Run:
    """Three owners, while the `sender`'s messages of one step are changed on their way to one or all receivers."""

    def tamper(m):
        here = (m.tag, m.sender) == (f"delegated/{tag}", sender) and receiver in (None, m.receiver)
        return change(m) if here else m

    return try_parties(_parties([A, B, C], copies), tamper=tamper)


def _blame(run: Run, party: str) -> tuple[str, str, str]:
    error = run.errors[party]
    assert isinstance(error, RemoteProtocolError)
    return error.party, error.tag.removeprefix("delegated/"), error.why


# --- results


@pytest.mark.parametrize("copies", COPIES)
@pytest.mark.parametrize("n_owners", [2, 3, 5])
def test_all_owners_learn_the_intersection_in_the_same_order(n_owners: int, copies: int) -> None:
    run = _check(FIVE[:n_owners], copies)
    assert len(run["a"].rows) == [3, 2, 2][(n_owners - 1) // 2]
    assert run["a"].rows.dtype == np.int64


@pytest.mark.parametrize("copies", COPIES)
@settings(max_examples=15, deadline=None)
@given(st.lists(st.lists(st.binary(max_size=2), unique=True, max_size=12), min_size=2, max_size=5))
def test_equals_plain_set_intersection(copies: int, sets: list[list[bytes]]) -> None:
    _check(sets, copies)


@pytest.mark.parametrize(
    "sets",
    [[[], []], [[], B], [A, []], [A, A], [A[:1], A[:1]], [A[:1], B[:1]], [[b""], [b""]], [A, [], A], [A[:1]] * 5],
)
def test_small_sets(sets) -> None:
    _check(sets)


def test_larger_and_unequal_sets_in_several_messages(monkeypatch) -> None:
    monkeypatch.setattr(delegated, "CHUNK_TOKENS", 3000)
    monkeypatch.setattr(delegated, "CHUNK_BYTES", 300)
    run = _check([_people(*range(10_000)), _people(*range(19_999, 4_999, -1)), _people(6000, 7, 5000, 9999)])
    tokens = [m.size for m in run.transcript if m.tag == "delegated/tokens" and m.sender == "a"]
    assert tokens == [48_000] * 4 + [16 * (10_000 + DECOYS - 12_000)]
    maps = [m.size for m in run.transcript if m.tag == "delegated/map" and m.receiver == "a"]
    assert maps == [300] * 5 + [(10_000 + DECOYS) // 8 - 1500]


def test_items_of_all_lengths() -> None:
    a = [bytes([7]) * n for n in (0, 1, 63, 64, 65, 128, 1023, 1024, 1025, 5000)]
    _check([a, [*(x + b"\0" for x in a), *a[::2]]])


def test_the_order_does_not_depend_on_the_input_order_and_differs_between_runs() -> None:
    people = _people(*range(40))
    orders = {tuple(_matched(a, _check([a, people])["a"])) for a in (people, people[::-1])}
    assert len(orders) == 2
    assert tuple(people) not in orders


def test_kernels_without_numba(monkeypatch) -> None:
    monkeypatch.setattr(delegated, "DECOYS", 16)
    monkeypatch.setattr(delegated, "kernels", kernels_numpy)
    monkeypatch.setattr("mpc.matching.hashes.kernels", kernels_numpy)
    for copies in COPIES:
        _check(FIVE, copies)


def test_progress_counts_every_token_twice() -> None:
    seen: dict[str, list[tuple[int, int]]] = {"a": [], HELPER: []}
    parties = _parties([A, B])
    parties["a"] = lambda c: intersect(A, Terms(("a", "b"), HELPER), 0, SESSION, c, 0, lambda *at: seen["a"].append(at))
    parties[HELPER] = lambda c: assist(c, ("a", "b"), lambda *at: seen[HELPER].append(at))
    run_parties(parties)
    for name, total in (("a", 2 * (5 + DECOYS)), (HELPER, 2 * (5 + 6 + 2 * DECOYS))):
        assert seen[name][-1] == (total, total)
        assert [done for done, _ in seen[name]] == sorted({done for done, _ in seen[name]})


# --- what is sent


@pytest.mark.parametrize("copies", COPIES)
@pytest.mark.parametrize("sizes", [(5, 6), (0, 3), (70_000, 1), (3, 900, 20), (1, 2, 3, 4, 0)])
def test_cost_is_the_one_stated(sizes, copies: int) -> None:
    run = run_parties(_parties([_people(*range(n)) for n in sizes], copies))
    k = len(sizes)
    for name, n in zip(NAMES, sizes):
        tokens = copies * (n + 4096)
        assert run.bytes_sent(name) == 64 * (k - 1) + 24 + 16 * tokens
        assert all(run.bytes_sent(name, other) == 64 for other in NAMES[:k] if other != name)
        assert run.bytes_sent(HELPER, name) == 1 + -(-tokens // 8)
        sent = [m.tag.removeprefix("delegated/") for m in run.transcript if m.sender == name]
        pieces = -(-tokens // 65_536)
        assert sent == [
            *["part"] * (k - 1),
            *["confirm"] * (k - 1),
            "hello",
            *["tokens"] * pieces,
            *["agreed"] * (k - 1),
        ]
    assert max(m.size for m in run.transcript) <= 1 << 20


def test_shape_depends_on_sizes_only() -> None:
    shapes = {tuple(run_parties(_parties([a, B, C])).shape()) for a in (A, A[::-1], _people(11, 12, 13, 14, 15), B[:5])}
    assert len(shapes) == 1


def test_no_identifier_leaves_and_the_helper_gets_nothing_that_the_key_is_made_of() -> None:
    runs = [run_parties(_parties([A, B])).transcript for _ in range(2)]
    sent = b"".join(m.body for t in runs for m in t)
    assert not any(item in sent for item in A + B)
    to_helper = {m.tag.removeprefix("delegated/") for t in runs for m in t if m.receiver == HELPER}
    assert to_helper == {"hello", "tokens"}
    parts = {m.body for t in runs for m in t if m.tag == "delegated/part"}
    assert len(parts) == 4  # fresh at every owner, in every run


def test_tokens_leave_in_ascending_order_and_are_others_in_every_run() -> None:
    def tokens(run: Run) -> list[list[int]]:
        bodies = [m.body for m in run.transcript if m.tag == "delegated/tokens"]
        pairs = [np.frombuffer(body, dtype=np.uint64).reshape(-1, 2).tolist() for body in bodies]
        return [[high << 64 | low for high, low in body] for body in pairs]

    first, second = tokens(run_parties(_parties([A, B], 2))), tokens(run_parties(_parties([A, B], 2)))
    for body in first + second:
        assert body == sorted(set(body))
    assert not {t for body in first for t in body} & {t for body in second for t in body}
    # What the helper sees is what its disclosure says: matches and decoys, twice each, and no other coincidence.
    assert len(set(first[0]) & set(first[1])) == 2 * (3 + DECOYS)


def test_any_owners_part_changes_the_key(monkeypatch) -> None:
    keys = [bytes([i]) * 32 for i in (1, 2, 3)]
    tokens = set()
    for fresh in (keys, [*keys[:2], bytes(32)], [bytes(32), *keys[1:]]):
        drawn = list(fresh)
        monkeypatch.setattr(delegated, "fresh_key", lambda drawn=drawn: drawn.pop())
        run = run_parties(_parties([A, B, C]))
        tokens.add(next(m.body for m in run.transcript if m.tag == "delegated/tokens" and m.sender == "a"))
    assert len(tokens) == 3


# --- the minimum


@pytest.mark.parametrize("copies", COPIES)
@pytest.mark.parametrize("minima", [(3, 0, 0), (0, 0, 3), (4, 100, 0), (MAX_ITEMS,) * 3])
def test_too_few_matches_are_refused_and_no_owner_learns_how_many(minima, copies: int) -> None:
    run = try_parties(_parties([A, B, C], copies, minima))
    assert {type(e) for e in run.errors.values()} == {Refused}
    assert {str(run.errors[name]) for name in "abc"} == {"helper found fewer matches than one of the owners accepts"}
    assert str(run.errors[HELPER]) == "fewer matches than one of the owners accepts"
    answers = [m.body for m in run.transcript if m.sender == HELPER]
    assert answers == [b"\0"] * 3  # the same whatever is missing
    assert not any(m.tag == "delegated/agreed" for m in run.transcript)
    assert run.bytes_sent("a") == 48 * 2 + 24 + 16 * copies * (5 + DECOYS)


@pytest.mark.parametrize("copies", COPIES)
def test_exactly_the_minimum_is_enough(copies: int) -> None:
    assert len(run_parties(_parties([A, B, C], copies, (2, 1, 2)))["a"].rows) == 2


@pytest.mark.parametrize("minimum", [0, 1])
def test_no_match_at_all(minimum: int) -> None:
    run = try_parties(_parties([A, _people(6, 7)], 1, minimum))
    assert [type(e) for e in run.errors.values()] == [Refused] * (3 * minimum)


# --- a helper that lies


def _lying(change, sets=(A, B, C), copies=1, minima=0) -> Run:
    """Run with a helper to whom any number of matches is enough, and that tells owners what `change` makes of the truth.

    change(tokens, told, sources): each a list with an entry for each owner; told[i] says for each token whether it is
    reported, sources[i] is what only the owner knows: the item that a token is of, or DECOYS or more beyond the items.
    """
    sources: dict[int, np.ndarray] = {}
    honest = delegated._tokens

    def recorded(items, key, copies):
        own = honest(items, key, copies)
        sources[[id(s) for s in sets].index(id(items))] = own.source
        return own

    def helper(channel):
        names = NAMES[: len(sets)]
        sizes, _, n_copies = delegated._hellos(channel, names)
        report = delegated._Reporter(None, 1)
        counts = [n_copies * (size + DECOYS) for size in sizes]
        tokens = delegated._receive_tokens(channel, names, counts, report)
        common = delegated._common(tokens, names, 0)
        told = [np.unpackbits(delegated._map(w, common), bitorder="little")[: len(w)] for w in tokens]
        change(tokens, told, [sources[i] for i in range(len(sets))])
        for name, bits in zip(names, told):
            channel.send(name, "delegated/verdict", Kind.BYTES, b"\1")
            channel.send(name, "delegated/map", Kind.BYTES, np.packbits(bits, bitorder="little").tobytes())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(delegated, "_tokens", recorded)
        return try_parties({**_parties(sets, copies, minima), HELPER: helper})


def _leave_out(tokens, told, token) -> None:
    """The same token at every owner."""
    for words, bits in zip(tokens, told):
        bits[np.flatnonzero(np.all(words == token, axis=1))] = 0


LEFT_OUT = "it left out identifiers that it got from every owner"
ONE_COPY = "it reported an identifier by one of its tokens only"


@pytest.mark.parametrize("copies", COPIES)
def test_reporting_nothing_is_noticed_by_every_owner(copies: int) -> None:
    run = _lying(lambda _, told, __: [bits.fill(0) for bits in told], copies=copies)
    assert {_blame(run, name) for name in "abc"} == {("helper", "map", LEFT_OUT)}


def test_leaving_out_a_decoy_is_noticed() -> None:
    def change(tokens, told, sources):
        _leave_out(tokens, told, tokens[0][np.flatnonzero(sources[0] == 7)[0]])  # A has 5 items

    assert {_blame(_lying(change), name) for name in "abc"} == {("helper", "map", LEFT_OUT)}


def test_leaving_out_one_of_two_copies_is_noticed() -> None:
    def change(tokens, told, sources):
        _leave_out(tokens, told, tokens[0][np.flatnonzero(sources[0] == 4)[0]])  # the fifth one matches

    assert {_blame(_lying(change, copies=2), name) for name in "abc"} == {("helper", "map", ONE_COPY)}


@pytest.mark.parametrize("copies", COPIES)
def test_a_helper_that_knew_which_tokens_are_a_matchs_could_leave_it_out(copies: int) -> None:
    """The limit of the check, and why the helper must not learn the key."""

    def change(tokens, told, sources):
        for copy in range(copies):
            _leave_out(tokens, told, tokens[0][np.flatnonzero(sources[0] == copy * (5 + DECOYS) + 4)[0]])

    run = _lying(change, copies=copies)
    assert not run.errors
    assert _matched(A, run["a"]) == _matched(C, run["c"]) == [A[3]]


@pytest.mark.parametrize("copies", COPIES)
def test_leaving_out_a_match_at_one_owner_only_is_noticed(copies: int) -> None:
    def change(_, told, sources):
        for copy in range(copies):
            told[0][sources[0] == copy * (5 + DECOYS) + 4] = 0

    run = _lying(change, copies=copies)
    assert _blame(run, "a") == ("helper", "map", "other matches than it reported to b, if b is right")
    assert _blame(run, "b") == ("helper", "map", "other matches than it reported to a, if a is right")
    assert _blame(run, "c") == ("helper", "map", "other matches than it reported to a, if a is right")


@pytest.mark.parametrize("invented", [((0, 0),), ((0, 1), (1, 3)), ((0, 1), (1, 3), (2, 1)), ((0, 0), (1, 0), (2, 2))])
@pytest.mark.parametrize("copies", COPIES)
def test_an_invented_match_is_noticed(invented, copies: int) -> None:
    """At one owner; at the two who have it, with and without one of the third's own; one each that the others lack."""

    def change(_, told, sources):
        for owner, item in invented:
            for copy in range(copies):
                told[owner][sources[owner] == copy * (len((A, B, C)[owner]) + DECOYS) + item] = 1

    run = _lying(change, copies=copies)
    assert {_blame(run, name)[:2] for name in "abc"} == {("helper", "map")}
    assert not set(run.results) - {HELPER}


def test_a_helper_to_whom_too_few_is_enough() -> None:
    run = _lying(lambda *_: None, minima=[0, 3, 0])
    assert _blame(run, "b") == ("helper", "map", "fewer matches than our minimum, after it said that there are enough")
    assert isinstance(run.errors["a"], PeerLost)


def undetected(matches: int, left_out: int, copies: int, decoys: int = DECOYS) -> float:
    """The docstring's probability that a helper that leaves out matches at every owner is not caught."""
    return math.comb(matches, left_out) / math.comb(copies * (matches + decoys), copies * left_out)


@pytest.mark.parametrize(("left_out", "copies"), [(1, 1), (2, 1), (4, 1), (1, 2)])
def test_a_helper_that_guesses_is_caught_as_often_as_stated(monkeypatch, left_out: int, copies: int) -> None:
    monkeypatch.setattr(delegated, "DECOYS", 8)
    terms, items, trials = Terms(("a", "b"), HELPER, copies), _people(*range(8)), 4000
    own = delegated._tokens(items, bytes(32), copies)  # every token is common: eight matches and the decoys
    rng, undiscovered = np.random.default_rng(3), 0
    for _ in range(trials):
        places = np.sort(rng.permutation(len(own.words))[copies * left_out :])
        try:
            undiscovered += len(delegated._checked_rows(own, places, terms)) == 8 - left_out
        except RemoteProtocolError:
            continue
    p = undetected(8, left_out, copies, 8)
    assert abs(undiscovered - trials * p) < 5 * math.sqrt(trials * p * (1 - p))


def test_the_stated_bounds_hold() -> None:
    some = [4096, 5000, 20_000, 100_000, 1_000_000]
    assert all(undetected(m, -(-m // 100), 1) < 2**-40 for m in some)  # one in a hundred, one copy
    several = [*range(1, 200), *(2**i + j for i in range(8, 25) for j in (-1, 0, 1))]
    assert max(undetected(m, 1, 2) for m in several) < 2**-14.99  # a single one, two copies
    assert max(undetected(m, d, 2) for m in several for d in (2, 3, m // 2, m) if 2 <= d <= m <= 5000) < 2**-28


# --- faults


OWNER_FAULTS = [
    ("hello", b"\xff" * 24, "hello", f"expected at most {MAX_ITEMS} identifiers, got {2**64 - 1}"),
    ("hello", bytes(24), "hello", "expected copies=1 or 2, got 0"),
    ("tokens", bytes(16 * (5 + DECOYS)), "tokens", "tokens out of order, or one twice"),
]


@pytest.mark.parametrize(("tag", "body", "step", "why"), OWNER_FAULTS)
def test_what_an_owner_gets_wrong_is_named_at_the_helper(tag, body, step, why) -> None:
    run = _fault(tag, lambda m: replace(m, body=body))
    assert _blame(run, HELPER) == ("a", step, why)
    assert {type(run.errors[name]) for name in "abc"} == {PeerLost}


def test_two_tokens_swapped_or_repeated_across_messages_are_noticed(monkeypatch) -> None:
    monkeypatch.setattr(delegated, "CHUNK_TOKENS", 1000)
    last: list[bytes] = []

    def repeat(m):
        last.append(m.body)
        return replace(m, body=last[0][-16:] + m.body[16:]) if len(last) == 2 else m

    assert _blame(_fault("tokens", repeat), HELPER)[2] == "tokens out of order, or one twice"
    swap = _fault("tokens", lambda m: replace(m, body=m.body[16:32] + m.body[:16] + m.body[32:]))
    assert _blame(swap, HELPER)[0] == "a"


def test_an_owner_without_the_decoys_is_named() -> None:
    rng = np.random.default_rng(1)

    def noise(m):
        words = rng.integers(0, 2**64, (m.size // 16, 2), dtype=np.uint64)
        return replace(m, body=words[np.argsort(words[:, 0])].tobytes())

    run = _fault("tokens", noise, "b")
    assert _blame(run, HELPER) == (
        "b",
        "tokens",
        "expected at least 4096 tokens in common with the owners before it, got 0",
    )


@pytest.mark.parametrize("sender", ["a", "b", "c"])
def test_a_corrupted_token_never_adds_a_match(sender: str) -> None:
    """It loses a match or a decoy, or nothing; a lost match is not noticed, as if the owner had not had it."""
    for at in (0, 16 * 2000 + 15, 16 * 4099):
        run = _fault(
            "tokens", lambda m, at=at: replace(m, body=m.body[:at] + bytes([m.body[at] ^ 1]) + m.body[at + 1 :]), sender
        )
        assert all(isinstance(e, ProtocolError) for e in run.errors.values())
        for name, items in zip("abc", (A, B, C)):
            if name in run.results:
                assert set(_matched(items, run[name])) <= set(A) & set(B) & set(C)


@pytest.mark.parametrize(
    ("tag", "body", "step", "why"),
    [
        ("verdict", b"\2", "verdict", "neither yes nor no"),
        ("map", bytes(512) + b"\x20", "map", "matches beyond the last token"),
    ],
)
def test_what_the_helper_gets_wrong_is_named(tag, body, step, why) -> None:
    run = _fault(tag, lambda m: replace(m, body=body), HELPER, "a")
    assert _blame(run, "a") == ("helper", step, why)
    assert "a" not in run.results


SPOILT = {
    "shorter": lambda m: replace(m, body=m.body[:-1]),
    "longer": lambda m: replace(m, body=m.body + b"\0"),
    "much longer": lambda m: replace(m, body=m.body + bytes(1 << 21)),
    "empty": lambda m: replace(m, body=b""),
    "another kind": lambda m: replace(m, kind=Kind.WORDS32),
    "another tag": lambda m: replace(m, tag="delegated/other"),
    "twice": lambda m: [m, m],
    "lost": _drop,
}
LAST = {("a", "b"): "agreed", ("a", HELPER): "tokens", (HELPER, "a"): "map"}


@pytest.mark.parametrize("how", SPOILT)
@pytest.mark.parametrize(
    ("sender", "receiver", "tag"),
    [
        *(("a", "b", tag) for tag in ("part", "confirm", "agreed")),
        *(("a", HELPER, tag) for tag in ("hello", "tokens")),
        *((HELPER, "a", tag) for tag in ("verdict", "map")),
    ],
)
def test_every_message_is_checked_before_it_is_used(sender, receiver, tag, how) -> None:
    run = _fault(tag, SPOILT[how], sender, receiver)
    if how == "twice" and tag == LAST[sender, receiver]:
        assert len(run.results) == 4  # the last message on that link; nobody reads another one
        return
    error = run.errors[receiver]
    assert isinstance(error, (RemoteProtocolError, PeerLost) if how == "lost" else RemoteProtocolError)
    assert error.party == sender
    assert receiver not in run.results


@pytest.mark.parametrize("tag", ["part", "confirm"])
def test_another_key_is_noticed_before_a_token_leaves(tag: str) -> None:
    run = _fault(tag, lambda m: replace(m, body=bytes(m.size)), "a", "b")
    assert _blame(run, "b") == ("a", "confirm", "another key than ours: other terms, or another session")
    assert not any(m.tag == "delegated/tokens" and m.sender == "b" for m in run.transcript)


def test_a_replayed_run_is_noticed() -> None:
    """Everything that the first owner said to the others in an earlier run, once more."""
    before = {(m.receiver, m.tag): m.body for m in run_parties(_parties([A, B, C])).transcript if m.sender == "a"}
    run = try_parties(
        _parties([A, B, C]),
        tamper=lambda m: replace(m, body=before[m.receiver, m.tag]) if m.sender == "a" else m,
    )
    assert _blame(run, "b")[:2] == ("a", "confirm")
    assert _blame(run, "c")[:2] == ("a", "confirm")
    assert not set(run.results)


def test_our_own_confirmation_sent_back_is_noticed() -> None:
    own: list[bytes] = []

    def tamper(m):
        if m.tag != "delegated/confirm":
            return m
        own.append(m.body)
        return replace(m, body=own[0])

    run = try_parties(_parties([A, B]), tamper=tamper)
    assert len([e for e in run.errors.values() if isinstance(e, RemoteProtocolError)]) == 1


@pytest.mark.parametrize(
    "terms",
    [
        Terms(("a", "b", "c"), HELPER, 2),
        Terms(("a", "c", "b"), HELPER),
        Terms(("a", "b", "c"), "d"),
    ],
)
def test_other_terms_are_noticed(terms) -> None:
    agreed = Terms(("a", "b", "c"), HELPER)
    parties = _parties([A, B, C], terms=[terms, agreed, agreed])
    run = try_parties({**parties, "d": lambda _: None})
    assert _blame(run, "b")[:2] == ("a", "confirm")
    assert not {"a", "b", "c"} & set(run.results)


def test_another_session_is_noticed() -> None:
    run = try_parties(_parties([A, B, C], sessions=[SESSION, SESSION, bytes(16)]))
    assert _blame(run, "a") == ("c", "confirm", "another key than ours: other terms, or another session")
    assert _blame(run, "c")[0] == "a"
    assert not any(m.sender in "ac" and m.tag == "delegated/tokens" for m in run.transcript)


def test_an_owner_that_tells_the_helper_other_copies() -> None:
    run = _fault("hello", lambda m: replace(m, body=m.body[:16] + b"\2" + m.body[17:]), "b")
    assert _blame(run, HELPER) == ("b", "hello", "expected copies=1, got 2")


def test_an_owner_that_compares_wrongly_is_not_told_from_a_helper_that_lies() -> None:
    run = _fault("agreed", lambda m: replace(m, body=bytes(16)), "c", "a")
    assert _blame(run, "a") == ("helper", "map", "other matches than it reported to c, if c is right")


@pytest.mark.parametrize(
    ("sender", "receiver", "tag"), [("a", "c", "agreed"), ("b", HELPER, "tokens"), (HELPER, "b", "map")]
)
def test_who_falls_silent_is_lost_and_named(sender, receiver, tag) -> None:
    error = _fault(tag, _drop, sender, receiver).errors[receiver]
    assert isinstance(error, PeerLost)
    assert (error.party, error.step) == (sender, f"delegated/{tag}")


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from([*((tag, "b") for tag in SENT_BY_OWNER), *((tag, HELPER) for tag in SENT_BY_HELPER)]),
    st.integers(0, 2**20),
    st.integers(1, 255),
)
def test_one_changed_byte_never_hangs_or_crashes_or_adds_a_match(step, at: int, flip: int) -> None:
    def change(m):
        body = bytearray(m.body)
        body[at % len(body)] ^= flip
        return replace(m, body=bytes(body))

    run = _fault(step[0], change, step[1])
    assert set(run.results) | set(run.errors) == {"a", "b", "c", HELPER}
    assert all(isinstance(e, ProtocolError) for e in run.errors.values())
    for name, items in zip("abc", (A, B, C)):
        if name in run.results:
            assert set(_matched(items, run[name])) <= set(A) & set(B) & set(C)


# --- our own mistakes


TWO = Terms(("a", "b"), HELPER)


@pytest.mark.parametrize(
    ("items", "terms", "me", "session", "minimum", "why"),
    [
        ([b"x"] * (MAX_ITEMS + 1), TWO, 0, SESSION, 0, f"at most {MAX_ITEMS} identifiers"),
        (A, Terms(("a",), HELPER), 0, SESSION, 0, "takes two or more different owners"),
        (A, Terms(("a", "a"), HELPER), 0, SESSION, 0, "takes two or more different owners"),
        (A, Terms(("a", "b"), "b"), 0, SESSION, 0, "a helper that is none of them"),
        (A, Terms(("a", "b"), HELPER, 3), 0, SESSION, 0, "an identifier has 1 or 2 tokens, got 3"),
        (A, TWO, 2, SESSION, 0, "expected a place among 2 owners, got 2"),
        (A, TWO, -1, SESSION, 0, "expected a place among 2 owners, got -1"),
        (A, TWO, 0, b"", 0, "a session id has 1 to 255 bytes, got 0"),
        (A, TWO, 0, bytes(256), 0, "a session id has 1 to 255 bytes, got 256"),
        (A, TWO, 0, SESSION, -1, f"the minimum number of matches is from 0 to {MAX_ITEMS}, got -1"),
    ],
)
def test_our_own_mistakes_send_nothing(items, terms, me, session, minimum, why) -> None:
    run = try_parties({"a": lambda c: intersect(items, terms, me, session, c, minimum), "b": lambda _: None})
    assert isinstance(run.errors["a"], LocalProtocolError)
    assert why in str(run.errors["a"])
    assert run.transcript == []


def test_repeated_items_send_no_token() -> None:
    run = try_parties(_parties([[b"x", b"y", b"x"], B]))
    assert isinstance(run.errors["a"], LocalProtocolError)
    assert str(run.errors["a"]) == "identifiers to be matched are distinct, got 1 repeated ones"
    assert not any(m.sender == "a" and m.receiver == HELPER for m in run.transcript)


@pytest.mark.parametrize("owners", [("a",), ("a", "a"), ()])
def test_a_helper_needs_two_owners(owners) -> None:
    run = try_parties({HELPER: lambda c: assist(c, owners)})
    assert isinstance(run.errors[HELPER], LocalProtocolError)


# --- what is declared


def test_what_is_revealed_is_declared() -> None:
    assert {(r.name, r.to) for r in REVEALS} == {
        ("delegated.rows", "owners"),
        ("delegated.sizes", "helper"),
        ("delegated.overlaps", "helper"),
        ("delegated.minima", "helper"),
        ("delegated.traffic", "coordinator"),
    }
