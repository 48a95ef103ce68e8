"""Matching of three and more sets: owners against plain sets, what the leader can tell from what it sees, and every fault."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpc.errors import LocalProtocolError, PeerLost, ProtocolError, Refused, RemoteProtocolError
from mpc.matching import hashes, kernels_numpy, okvs, star, star_reveals, vole
from mpc.matching.star import Aligned, intersect
from mpc.psi import MAX_ITEMS
from mpc.rng import derive_key
from mpc.wire import Kind
from tests.harness import Run, run_parties, try_parties
from tests.mpc.test_matching import QuickTransfers

SESSION = bytes(range(16))
NAMES = tuple("abcdefghij")


@pytest.fixture(autouse=True, scope="module")
def _quick() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vole, "BaseTransfers", QuickTransfers)
        yield


def _parties(sets, minima=0, sessions=SESSION, owners=None):
    """Every owner with its set.  minima, sessions, owners: one for all, or a list with one for each."""
    k = len(sets)
    each = minima if isinstance(minima, list) else [minima] * k
    ids = sessions if isinstance(sessions, list) else [sessions] * k
    lists = owners or [NAMES[:k]] * k

    def owner(i):
        return lambda c: intersect(sets[i], lists[i], i, ids[i], c, each[i])

    return {NAMES[i]: owner(i) for i in range(k)}


def _people(*numbers: int) -> list[bytes]:
    return [b"email\0v1\0%d@example.com" % n for n in numbers]


def _matched(items: list[bytes], aligned: Aligned) -> list[bytes]:
    return [items[i] for i in aligned.rows]


def _check(sets, minima=0) -> Run:
    """Play, and compare with plain sets."""
    run = run_parties(_parties(sets, minima))
    found = [_matched(items, run[name]) for name, items in zip(NAMES, sets)]
    assert all(matched == found[0] for matched in found)
    assert sorted(found[0]) == sorted(set.intersection(*map(set, sets)))
    assert [run[name].n_own for name in NAMES[: len(sets)]] == [len(items) for items in sets]
    return run


def _drop(message) -> None:
    """The message never arrives."""


A, B, C = _people(1, 2, 3, 4, 5), _people(9, 4, 8, 2, 5, 7), _people(5, 1, 9, 4)
FIVE = [A, B, C, _people(4, 5), _people(*range(20))]


def _fault(tag: str, change, sender: str, receiver: str | None = None, minima=0) -> Run:
    """Three owners, while the `sender`'s messages of one step are changed on their way to one or all receivers."""

    def tamper(m):
        here = (m.tag, m.sender) == (tag, sender) and receiver in (None, m.receiver)
        return change(m) if here else m

    return try_parties(_parties([A, B, C], minima), tamper=tamper)


def _blame(run: Run, party: str) -> tuple[str, str, str]:
    error = run.errors[party]
    assert isinstance(error, RemoteProtocolError)
    return error.party, error.tag, error.why


# --- results


@pytest.mark.parametrize("n_owners", [3, 4, 5])
def test_all_owners_learn_the_intersection_in_the_same_order(n_owners: int) -> None:
    run = _check(FIVE[:n_owners])
    assert len(run["a"].rows) == 2
    assert run["a"].rows.dtype == run["b"].rows.dtype == np.int64


@settings(max_examples=20, deadline=None)
@given(st.lists(st.lists(st.binary(max_size=2), unique=True, max_size=12), min_size=3, max_size=5))
def test_equals_plain_set_intersection(sets: list[list[bytes]]) -> None:
    _check(sets, len(set.intersection(*map(set, sets))))


@pytest.mark.parametrize(
    "sets",
    [
        [[], [], []],
        [[], B, C],
        [A, [], C],
        [A, B, []],
        [A, A, A],
        [A[:1]] * 3,
        [A[:1], A[:1], B[:1]],
        [A[:1], B[:1], B[:1]],
        [[b""]] * 5,
        [A, A, _people(6)],
    ],
)
def test_small_sets(sets) -> None:
    _check(sets)


def test_the_largest_number_of_owners() -> None:
    _check([_people(*range(i, 30), 100 + i) for i in range(star.MAX_OWNERS)])


def test_larger_and_unequal_sets_in_several_messages(monkeypatch) -> None:
    monkeypatch.setattr(star, "CHUNK_COLUMNS", 3000)
    run = _check([_people(*range(10_000)), _people(*range(19_999, 4_999, -1)), _people(6000, 7, 5000, 9999)])
    answer = [m.size for m in run.transcript if m.tag == "star/answer" and m.receiver == "c"]
    assert answer == [24_000] * 3 + [8 * (okvs.columns(10_001) - 9000)]


def test_items_of_all_lengths() -> None:
    a = [bytes([7]) * n for n in (0, 1, 63, 64, 65, 128, 1023, 1024, 1025, 5000)]
    _check([a, [*(x + b"\0" for x in a), *a[::2]], a[::-1]])


def test_the_order_does_not_depend_on_the_input_order_and_differs_between_runs() -> None:
    people = _people(*range(40))
    orders = [_matched(a, _check([a, people, people[::-1]])["a"]) for a in (people, people[::-1])]
    assert orders[0] != orders[1]
    assert people not in orders
    assert people[::-1] not in orders


def test_kernels_without_numba(monkeypatch) -> None:
    for module in (hashes, okvs, star):
        monkeypatch.setattr(module, "kernels", kernels_numpy)
    _check(FIVE)


def test_progress_ends_where_it_said() -> None:
    seen: dict[str, list[tuple[int, int]]] = {name: [] for name in "abc"}
    sets = {"a": A, "b": B, "c": C}

    def owner(i, name):
        return lambda c: intersect(sets[name], ("a", "b", "c"), i, SESSION, c, 0, lambda *at: seen[name].append(at))

    run_parties({name: owner(i, name) for i, name in enumerate("abc")})
    for name, total in (("a", 5 + 2 * (5 + 256)), ("b", 2 * 6 + 256), ("c", 2 * 4 + 256)):
        assert seen[name][-1] == (total, total)
        assert {t for _, t in seen[name]} == {total}
        assert [done for done, _ in seen[name]] == sorted({done for done, _ in seen[name]})


# --- what is sent


@pytest.mark.parametrize("sizes", [(5, 6, 4), (0, 3, 0), (2000, 1, 70), (3, 900, 20, 8), (1, 2, 3, 4, 0)])
@pytest.mark.parametrize("refused", [False, True])
def test_cost_is_the_one_stated(sizes, refused: bool) -> None:
    def columns(n):
        return -(-(-(-11 * (n + 1) // 10) + 224) // 128) * 128

    k, minimum = len(sizes), MAX_ITEMS if refused else 0
    run = try_parties(_parties([_people(*range(n)) for n in sizes], [0] * (k - 1) + [minimum]))
    assert len(run.errors) == k * refused
    to_spoke = 6962 + 34.5 * columns(sizes[0]) - refused * (48 + 8 * columns(sizes[0]))
    for name, m in zip(NAMES[1:k], sizes[1:]):
        assert run.bytes_sent("a", name) == to_spoke
        assert run.bytes_sent(name, "a") == 13_712 + 8 * columns(m) - 16 * refused
        others = [other for other in NAMES[1:k] if other != name]
        assert all(run.bytes_sent(name, other) == 96 - 16 * refused for other in others)


class _Deep:
    """A channel that counts how many messages had to be sent one after the other until now."""

    def __init__(self, channel, me: str, on_their_way: dict[tuple[str, str], list[int]]) -> None:
        self._channel, self._me, self._on_their_way, self.depth = channel, me, on_their_way, 0

    def send(self, to, tag, kind, body) -> None:
        self._on_their_way.setdefault((self._me, to), []).append(self.depth + 1)
        self._channel.send(to, tag, kind, body)

    def recv(self, frm, tag, kind, **sizes):
        body = self._channel.recv(frm, tag, kind, **sizes)
        self.depth = max(self.depth, self._on_their_way[frm, self._me].pop(0))
        return body


@pytest.mark.parametrize(("n_owners", "depth"), [(3, 7), (4, 9), (5, 9), (6, 11), (10, 15)])
def test_as_many_messages_wait_for_each_other_as_stated(n_owners: int, depth: int) -> None:
    names, on_their_way = NAMES[:n_owners], dict[tuple[str, str], list[int]]()

    def owner(i, name):
        def run(channel):
            deep = _Deep(channel, name, on_their_way)
            intersect(A, names, i, SESSION, deep, 0)
            return deep.depth

        return run

    run = run_parties({name: owner(i, name) for i, name in enumerate(names)})
    assert max(run.values()) == depth


def test_shape_depends_on_sizes_only() -> None:
    """Not on how many match, of all owners or of two of them."""
    sets = [(A, B, C), (A[::-1], B, C), (A, A + B[:1], A[1:]), (_people(*range(11, 16)), B, C), (A, [*C, *B[2:4]], C)]
    assert len({tuple(run_parties(_parties(each)).shape()) for each in sets}) == 1


def test_spokes_tell_each_other_nothing_but_parts_of_keys_and_hashes() -> None:
    run = run_parties(_parties(FIVE))
    between = {m.tag for m in run.transcript if "a" not in (m.sender, m.receiver)}
    assert between == {"star/parts", "star/confirm", "star/agreed"}


def test_no_identifier_leaves_and_all_parts_are_fresh() -> None:
    runs = [run_parties(_parties([A, B, C])).transcript for _ in range(2)]
    assert not any(item in m.body for t in runs for m in t for item in A + B + C)
    parts = [m.body for t in runs for m in t if m.tag == "star/parts"]
    assert len({part[:32] for part in parts}) == 6  # of the key of all: one from each owner, in every run
    assert len({part[32:] for part in parts}) == 12  # of keys of two: another one for everybody


@pytest.mark.parametrize("common", [0, 500])
def test_an_answer_is_uniform_however_many_match(common: int) -> None:
    """Also where no row needs a column: free ones would tell how many there are."""
    sets = [_people(*range(i * 10_000, i * 10_000 + 600), *range(50_000, 50_000 + common)) for i in range(3)]
    run = _check(sets)
    words = np.frombuffer(b"".join(m.body for m in run.transcript if m.tag == "star/answer"), dtype=np.uint64)
    assert len(np.unique(words)) == len(words) / 2  # both get the same
    ones = np.unpackbits(np.unique(words).view(np.uint8)).mean()
    assert abs(ones - 0.5) < 5 * 0.5 / np.sqrt(32 * len(words))


def test_what_is_revealed_is_declared() -> None:
    names = {"sizes", "minima", "early-rows", "rows", "together", "traffic"}
    assert {r.name for r in star_reveals.REVEALS} == {f"star.{name}" for name in names}
    assert {r.to for r in star_reveals.REVEALS} == {"owners", "first", "coordinator"}


# --- what the leader can tell from what it sees


SEEN = [
    _people(*range(64)),
    *(_people(*(n for n in range(64) if n >> bit & 1), *range(64 + 9 * bit, 73 + 9 * bit)) for bit in range(4)),
]
"""A leader and four spokes: every choice of them has four of the leader's people in common that the others lack."""


def _watched(sets) -> tuple[Run, dict[str, np.ndarray], dict[str, star._Run], np.ndarray]:
    """The run; by name the values that the leader got, and what each owner knows; the leader's person at each place."""
    values, runs, places = dict[str, np.ndarray](), dict[str, star._Run](), list[np.ndarray]()
    honest_values, honest_agree = star._values, star._agree

    def recorded(run, own, spoke, outputs, sentinel):
        values[spoke] = honest_values(run, own, spoke, outputs, sentinel)
        places[:] = [own.rows]
        return values[spoke]

    def agreed(run):
        honest_agree(run)
        runs[run.name] = run

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(star, "_values", recorded)
        patch.setattr(star, "_agree", agreed)
        run = run_parties(_parties(sets))
    return run, values, runs, places[0]


def test_no_sum_of_fewer_than_all_values_says_anything() -> None:
    """Where a spoke is missing or has not got the point, what is left is random: not zero, and never the same twice."""
    _, values, _, people = _watched(SEEN)
    real = people < 64
    everything = []
    for n_spokes in range(1, 5):
        for spokes in itertools.combinations("bcde", n_spokes):
            total = np.bitwise_xor.reduce([values[spoke] for spoke in spokes])
            matched = people & 15 == 15
            if n_spokes == 4:
                assert not total[real & matched].any()
            # At a match what is missing is the same as what is there, so only one half of each pair counts.
            everything.append(total[real & ~matched] if n_spokes == 4 or "b" not in spokes else total[real])
    words = np.concatenate(everything)
    assert np.all(words != 0)
    assert len(np.unique(words)) == len(words)
    ones = np.unpackbits(words.view(np.uint8)).mean()
    assert abs(ones - 0.5) < 5 * 0.5 / np.sqrt(8 * words.nbytes)


def _share(run: star._Run, points: np.ndarray, with_whom) -> np.ndarray:
    """What a group that knows these of a spoke's keys can work out of its share."""
    total = np.zeros(len(points), dtype=np.uint64)
    for name in with_whom:
        total ^= star._keyed(points, derive_key(run.pairs[name], "star/share"), 1)[:, 0]
    return total


@pytest.mark.parametrize("group", ["b", "bc", "bcd"])
def test_the_leader_and_a_group_of_spokes_learn_what_all_the_others_have_and_no_more(group: str) -> None:
    """The limit that the docstring states, and that it is the limit."""
    _, values, runs, people = _watched(SEEN)
    points = hashes.identify(SEEN[0], SESSION).words
    outside = [name for name in "bcde" if name not in group]
    # What the group knows of each other spoke's share comes off; what is left are the keys that it does not have.
    rest = {name: values[name] ^ _share(runs[name], points, group) for name in outside}
    total = np.bitwise_xor.reduce(list(rest.values()))
    have = np.logical_and.reduce([people >> "bcde".index(name) & 1 for name in outside])
    real = people < 64
    assert np.array_equal(total[real] == 0, have[real] == 1)
    for n_spokes in range(1, len(outside)):
        for names in itertools.combinations(outside, n_spokes):
            some = np.bitwise_xor.reduce([rest[name] for name in names])[real]
            assert np.all(some != 0)
            assert len(np.unique(some)) == 64


def test_the_leader_has_no_key_that_a_share_is_made_of() -> None:
    _, _, runs, _ = _watched([A, B, C])
    secret = runs["b"].pairs["c"]
    assert runs["c"].pairs["b"] == secret
    assert secret not in (runs["a"].group, *runs["a"].pairs.values())
    assert not any(repr(key) in repr(runs["b"]) for key in (secret, runs["b"].group))


# --- too few matches


@pytest.mark.parametrize("which", range(3))
def test_a_minimum_that_is_not_reached_stops_everybody_and_only_the_leader_has_seen_the_matches(which: int) -> None:
    minima = [0, 0, 0]
    minima[which] = 3
    run = try_parties(_parties([A, B, C], minima))
    assert {type(run.errors[name]) for name in "abc"} == {Refused}
    assert {str(run.errors[name]) for name in "abc"} == {"fewer matches than one of the owners accepts"}
    verdicts = [m.body for m in run.transcript if m.tag == "star/verdict"]
    assert verdicts == [bytes(9)] * 2
    assert not any(m.tag in ("star/answer", "star/agreed") for m in run.transcript)


def test_exactly_the_minimum_is_enough() -> None:
    assert len(_check([A, B, C], 2)["a"].rows) == 2


# --- a leader that lies


def _lying(change, minima=0) -> Run:
    """A leader that answers with what `change` makes of the places that match; to whom any number is enough."""
    honest = star._lead

    def lead(run, own):
        run.minima = {run.name: 0}
        return honest(run, own)

    with pytest.MonkeyPatch.context() as patch:
        real = star._send_answer
        patch.setattr(star, "_lead", lead)
        patch.setattr(star, "_send_answer", lambda run, matched: real(run, change(run, matched)))
        return try_parties(_parties([A, B, C], minima))


OTHERS = "other matches than it counted, or one that is not in our set"


def test_an_answer_that_leaves_out_a_match_is_noticed() -> None:
    run = _lying(lambda _, matched: matched[:-1])
    assert {_blame(run, name) for name in "bc"} == {("a", "star/answer", OTHERS)}


@pytest.mark.parametrize(("person", "who"), [(1, "c"), (2, "b"), (3, ""), (77, "")])
def test_an_invented_match_is_noticed_by_who_has_it(person: int, who: str) -> None:
    """Its count is another one; and what no spoke has none of them sees."""

    def change(_, matched):
        more = hashes.identify(_people(person), SESSION)
        both = np.concatenate([matched, more.words[more.rows == 0]])
        return both[star.kernels.order(both)]

    run = _lying(change)
    if who:
        assert _blame(run, who) == ("a", "star/answer", OTHERS)
        assert not run.results
    else:
        assert {tuple(_matched(items, run[name])) for name, items in zip("abc", (A, B, C))} <= {
            tuple(_people(4, 5)),
            tuple(_people(5, 4)),
        }


def test_owners_that_are_told_different_matches_notice() -> None:
    """As many as were counted, but not the same ones to everybody."""
    real, told = star._compared, []

    def compared(run, found, matched, sentinel):
        told.append(run.name)
        if run.name == "c":  # what it would be, had it got another answer
            matched = matched[::-1].copy()
            matched[0, 0] ^= np.uint64(1)
        return real(run, found, matched, sentinel)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(star, "_compared", compared)
        run = try_parties(_parties([A, B, C]))
    assert sorted(told) == ["a", "b", "c"]
    assert _blame(run, "a") == ("c", "star/agreed", "other matches than ours")
    assert _blame(run, "b") == ("a", "star/answer", "other matches than it reported to c, if c is right")
    assert _blame(run, "c") == ("a", "star/agreed", "other matches than ours")


def test_a_leader_to_whom_too_few_is_enough() -> None:
    run = _lying(lambda _, matched: matched, minima=[0, 3, 0])
    why = "fewer matches than our minimum, after it said that they are enough"
    assert _blame(run, "b") == ("a", "star/verdict", why)


# --- faults


@pytest.mark.parametrize(
    ("tag", "sender", "receiver", "body", "why"),
    [
        ("star/size", "a", "b", b"\xff" * 8, f"expected at most {MAX_ITEMS} identifiers, got {2**64 - 1}"),
        ("star/size", "c", "a", b"\xff" * 16, f"expected at most {MAX_ITEMS} identifiers, got {2**64 - 1}"),
        ("star/confirm", "b", "a", bytes(16), "other keys than ours: other owners, or another session"),
        ("star/confirm", "b", "c", bytes(16), "other keys than ours: other owners, or another session"),
        ("matching/attempt", "a", "b", b"\7", "expected fewer than 3 attempts, got 7"),
        ("star/verdict", "a", "b", b"\2" + bytes(8), "neither yes nor no"),
        ("star/verdict", "a", "b", b"\1\5" + bytes(7), "more matches than identifiers"),
        ("star/verdict", "a", "b", b"\1\xff\xff\xff\xff\xff\xff\xff\xff", "more matches than identifiers"),
        ("star/verdict", "a", "c", b"\1\4" + bytes(7), OTHERS),
        ("star/agreed", "b", "a", bytes(16), "other matches than ours"),
    ],
)
def test_what_a_peer_gets_wrong_is_named(tag, sender, receiver, body, why) -> None:
    if why == "more matches than identifiers" and body[1] == 5:
        body = b"\1\6" + bytes(7)  # the leader has five
    run = _fault(tag, lambda m: replace(m, body=body), sender, receiver)
    party, _, said = _blame(run, receiver)
    assert (party, said) == (sender, why)
    assert receiver not in run.results


@pytest.mark.parametrize("tag", ["matching/hint-key", "star/hint"])
@pytest.mark.parametrize("spoke", ["b", "c"])
def test_a_spoke_that_does_not_understand_the_leader_is_named(tag: str, spoke: str) -> None:
    run = _fault(tag, lambda m: replace(m, body=bytes(m.size)), spoke)
    assert _blame(run, "a") == (spoke, "star/hint", "no answer to the identifier that all owners have")
    assert not run.results


@pytest.mark.parametrize("tag", ["matching/trees", "matching/masked"])
def test_a_function_that_differs_at_its_ends_is_noticed(tag: str) -> None:
    run = _fault(tag, lambda m: replace(m, body=bytes(m.size)), "a", "c")
    assert _blame(run, "a") == ("c", "star/hint", "no answer to the identifier that all owners have")
    assert not run.results


SPOILT = {
    "shorter": lambda m: replace(m, body=m.body[:-1]),
    "longer": lambda m: replace(m, body=m.body + b"\0"),
    "much longer": lambda m: replace(m, body=m.body + bytes(1 << 21)),
    "empty": lambda m: replace(m, body=b""),
    "another kind": lambda m: replace(m, kind=Kind.WORDS32),
    "another tag": lambda m: replace(m, tag="star/other"),
    "twice": lambda m: [m, m],
    "lost": _drop,
}
STEPS = [
    *(("a", "b", tag) for tag in ("star/parts", "star/size", "star/confirm", "matching/public", "matching/trees")),
    *(("a", "b", tag) for tag in ("matching/attempt", "matching/masked", "star/verdict", "star/answer-key")),
    *(("a", "b", tag) for tag in ("star/answer", "star/agreed")),
    *(("c", "a", tag) for tag in ("star/parts", "star/size", "star/confirm", "matching/points")),
    *(("c", "a", tag) for tag in ("matching/hint-key", "star/hint", "star/agreed")),
    *(("b", "c", tag) for tag in ("star/parts", "star/confirm", "star/agreed")),
]


@pytest.mark.parametrize("how", SPOILT)
@pytest.mark.parametrize(("sender", "receiver", "tag"), STEPS)
def test_every_message_is_checked_before_it_is_used(sender, receiver, tag, how) -> None:
    run = _fault(tag, SPOILT[how], sender, receiver)
    if how == "twice" and tag == "star/agreed":
        assert len(run.results) == 3  # the last message on that link; nobody reads another one
        return
    error = run.errors[receiver]
    assert isinstance(error, (RemoteProtocolError, PeerLost) if how == "lost" else RemoteProtocolError)
    assert error.party == sender
    assert receiver not in run.results


@pytest.mark.parametrize(
    ("sender", "receiver", "tag"),
    [
        ("a", "c", "star/agreed"),
        ("b", "a", "matching/points"),
        ("c", "a", "star/hint"),
        ("b", "c", "star/agreed"),
        ("a", "b", "star/agreed"),
    ],
)
def test_who_falls_silent_is_lost_and_named(sender, receiver, tag) -> None:
    run = _fault(tag, _drop, sender, receiver)
    error = run.errors[receiver]
    assert isinstance(error, PeerLost)
    assert (error.party, error.step) == (sender, tag)
    assert receiver not in run.results


def test_a_spoke_that_stops_does_not_leave_the_others_waiting() -> None:
    parties = _parties([A, B, C])

    def stops(channel):
        raise LocalProtocolError("gone")

    run = try_parties({**parties, "c": stops})
    assert {type(run.errors[name]) for name in "ab"} == {PeerLost}


def test_a_replayed_run_is_noticed() -> None:
    """Everything that one spoke said in an earlier run, once more."""
    before: dict[tuple[str, str], list[bytes]] = {}
    for m in run_parties(_parties([A, B, C])).transcript:
        if m.sender == "c":
            before.setdefault((m.receiver, m.tag), []).append(m.body)
    run = try_parties(
        _parties([A, B, C]),
        tamper=lambda m: replace(m, body=before[m.receiver, m.tag].pop(0)) if m.sender == "c" else m,
    )
    assert _blame(run, "a")[:2] == ("c", "star/confirm")
    assert _blame(run, "b")[:2] == ("c", "star/confirm")
    assert not run.results


def test_our_own_confirmation_sent_back_is_noticed() -> None:
    own: list[bytes] = []

    def tamper(m):
        if m.tag != "star/confirm" or {m.sender, m.receiver} != {"b", "c"}:
            return m
        own.append(m.body)
        return replace(m, body=own[0])

    run = try_parties(_parties([A, B, C]), tamper=tamper)
    assert any(isinstance(e, RemoteProtocolError) and e.tag == "star/confirm" for e in run.errors.values())
    assert not run.results


def test_a_part_that_differs_between_owners_is_noticed() -> None:
    run = _fault("star/parts", lambda m: replace(m, body=bytes(64)), "b", "c")
    assert _blame(run, "c")[1:] == ("star/confirm", "other keys than ours: other owners, or another session")
    assert not any(m.tag.startswith("star/hint") and m.sender == "c" for m in run.transcript)


def test_another_session_is_noticed_before_anything_depends_on_a_set() -> None:
    run = try_parties(_parties([A, B, C], sessions=[SESSION, SESSION, bytes(16)]))
    assert _blame(run, "a") == ("c", "star/confirm", "other keys than ours: other owners, or another session")
    assert not any(m.tag == "matching/masked" for m in run.transcript)


def test_another_list_of_owners_is_noticed() -> None:
    run = try_parties(_parties([A, B, C, A], owners=[("a", "b", "c", "d")] * 3 + [("a", "c", "b", "d")]))
    assert _blame(run, "a")[1] == "star/confirm"
    assert not run.results


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(STEPS), st.integers(0, 2**20), st.integers(1, 255))
def test_one_changed_byte_never_hangs_or_crashes_or_adds_a_match(step, at: int, flip: int) -> None:
    def change(m):
        body = bytearray(m.body)
        body[at % len(body)] ^= flip
        return replace(m, body=bytes(body))

    run = _fault(step[2], change, step[0], step[1])
    assert set(run.results) | set(run.errors) == {"a", "b", "c"}
    assert all(isinstance(e, ProtocolError) for e in run.errors.values())
    for name, items in zip("abc", (A, B, C)):
        if name in run.results:
            assert set(_matched(items, run[name])) <= set(A) & set(B) & set(C)


# --- our own mistakes


@pytest.mark.parametrize(
    ("items", "owners", "me", "session", "minimum", "why"),
    [
        (
            [b"x"] * (MAX_ITEMS + 1),
            "abc",
            0,
            SESSION,
            0,
            f"at most {MAX_ITEMS} identifiers can be matched this way, got",
        ),
        (A, "ab", 0, SESSION, 0, "3 to 10 owners can match this way, got 2"),
        (A, "abcdefghijk", 0, SESSION, 0, "3 to 10 owners can match this way, got 11"),
        (A, "aba", 0, SESSION, 0, "owners have different names, got one twice"),
        (A, "abc", 3, SESSION, 0, "expected a place among 3 owners, got 3"),
        (A, "abc", -1, SESSION, 0, "expected a place among 3 owners, got -1"),
        (A, "abc", 0, b"", 0, "a session id has 1 to 255 bytes, got 0"),
        (A, "abc", 0, bytes(256), 0, "a session id has 1 to 255 bytes, got 256"),
        (A, "abc", 0, SESSION, -1, f"the minimum number of matches is from 0 to {MAX_ITEMS}, got -1"),
        ([b"x", b"y", b"x"], "abc", 1, SESSION, 0, "identifiers to be matched are distinct, got 1 repeated ones"),
        ([b"x" * 2000] * 3, "abc", 0, SESSION, 0, "identifiers to be matched are distinct, got 2 repeated ones"),
    ],
)
def test_our_own_mistakes_send_nothing(items, owners, me, session, minimum, why) -> None:
    run = try_parties({"a": lambda c: intersect(items, tuple(owners), me, session, c, minimum), "b": lambda _: None})
    assert isinstance(run.errors["a"], LocalProtocolError)
    assert why in str(run.errors["a"])
    assert run.transcript == []


def test_matches_that_cannot_be_encoded_are_our_own_fault(monkeypatch) -> None:
    real = star.okvs.solve
    honest = star._send_answer

    def send(run, matched):
        monkeypatch.setattr(star.okvs, "solve", lambda *_: None)
        honest(run, matched)

    monkeypatch.setattr(star, "_send_answer", send)
    run = try_parties(_parties([A, B, C]))
    monkeypatch.setattr(star.okvs, "solve", real)
    assert isinstance(run.errors["a"], LocalProtocolError)
    assert str(run.errors["a"]) == "the matches could not be encoded in 3 attempts"
