"""Matching by tokens: both roles against plain sets, kept tokens, what is sent, and every way a peer can misbehave."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpc.errors import LocalProtocolError, PeerLost, ProtocolError, Refused, RemoteProtocolError
from mpc.psi import MAX_ITEMS, Alignment
from mpc.rng import fresh_prg
from mpc.tokens import protocol as tokens
from mpc.tokens import rfc9497, ristretto
from mpc.tokens import roles as token_roles
from mpc.tokens import sets as token_sets
from mpc.tokens.protocol import intersect, prepare, query, serve
from mpc.tokens.sets import Agreement, ServerKey, ServerTokens, TokenSet
from mpc.wire import Kind
from tests.harness import Run, run_parties, try_parties

SESSION = bytes(range(16))
AGREED = Agreement(b"lender and platform, customers of 2026")
TAGS = ["hello", "key", "set", "blinded", "evaluated", "vote", "rows"]


def _people(*numbers: int) -> list[bytes]:
    return [b"email\0v1\0%d@example.com" % n for n in numbers]


def _matched(items: list[bytes], alignment: Alignment) -> list[bytes]:
    return [items[i] for i in alignment.rows]


def _drop(message) -> None:
    """The message never arrives."""


A, B = _people(1, 2, 3, 4, 5), _people(9, 4, 8, 2, 5, 7)
KEY = ServerKey.generate(AGREED)
MADE = prepare(B, KEY)
OPEN = ServerKey.generate(Agreement(b"without proofs", verifiable=False))


def _pair(a, b, minimum=0, leaders=(True, False), sessions=(SESSION, SESSION)):
    minima = minimum if isinstance(minimum, tuple) else (minimum, minimum)
    return {
        "lender": lambda c: intersect(a, "platform", sessions[0], c, minima[0], leaders[0]),
        "platform": lambda c: intersect(b, "lender", sessions[1], c, minima[1], leaders[1]),
    }


def _kept(
    a,
    made: ServerTokens | token_roles.Making = MADE,
    known: Agreement | TokenSet = AGREED,
    minimum=0,
    limit=100,
    session=SESSION,
):
    """A query and its answer; the session is the server's."""
    return {
        "lender": lambda c: query(a, known, "platform", SESSION, c, minimum),
        "platform": lambda c: serve(made, "lender", session, c, minimum, limit),
    }


def _fault(tag: str, change, sender: str, pair=None) -> Run:
    """Run A against B while the `sender`'s messages of one step are changed."""
    full = f"tokens/{tag}"
    return try_parties(pair or _pair(A, B), tamper=lambda m: change(m) if (m.tag, m.sender) == (full, sender) else m)


def _blame(run: Run, party: str) -> tuple[str, str, str]:
    error = run.errors[party]
    assert isinstance(error, RemoteProtocolError)
    return error.party, error.tag, error.why


# --- results


@pytest.mark.parametrize("leaders", [(True, False), (False, True)])
def test_both_sides_learn_the_intersection_in_the_same_order(leaders) -> None:
    run = run_parties(_pair(A, B, leaders=leaders))
    at_lender, at_platform = run["lender"], run["platform"]
    assert _matched(A, at_lender) == _matched(B, at_platform)
    assert set(_matched(A, at_lender)) == set(A) & set(B)
    assert (at_lender.n_own, at_lender.n_peer, at_platform.n_own, at_platform.n_peer) == (5, 6, 6, 5)
    assert at_lender.rows.dtype == at_platform.rows.dtype == np.int64


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.binary(max_size=4), unique=True, max_size=12), st.lists(st.binary(max_size=4), unique=True, max_size=12)
)
def test_equals_plain_set_intersection(a: list[bytes], b: list[bytes]) -> None:
    run = run_parties(_pair(a, b, minimum=len(set(a) & set(b))))
    assert _matched(a, run["lender"]) == _matched(b, run["platform"])
    assert sorted(_matched(a, run["lender"])) == sorted(set(a) & set(b))


@pytest.mark.parametrize(("n", "m", "common"), [(30, 3000, 20), (300, 5, 5), (200, 0, 0), (1, 1000, 1)])
def test_larger_and_unequal_sets_in_several_messages(n: int, m: int, common: int, monkeypatch) -> None:
    monkeypatch.setattr(token_roles, "CHUNK_ITEMS", 64)
    monkeypatch.setattr(token_roles, "CHUNK_TOKENS", 512)
    a, b = _people(*range(n)), _people(*range(n - common, n - common + m))[::-1]
    run = run_parties(_pair(a, b))
    assert _matched(a, run["lender"]) == _matched(b, run["platform"])
    assert set(_matched(a, run["lender"])) == set(a) & set(b)
    assert len(run["lender"].rows) == common
    sent = [m.tag for m in run.transcript]
    assert sent.count("tokens/blinded") == sent.count("tokens/evaluated") == math.ceil((n + 1) / 64)
    assert sent.count("tokens/set") == math.ceil((m + 1) / 512)


@pytest.mark.parametrize(
    ("a", "b"), [([], []), ([], B), (A, []), (A, A), (A[:1], A[:1]), (A[:1], B[:1]), ([b""], [b"", b"\0"])]
)
def test_small_sets(a, b) -> None:
    run = run_parties(_pair(a, b))
    assert _matched(a, run["lender"]) == _matched(b, run["platform"])
    assert set(_matched(a, run["lender"])) == set(a) & set(b)


def test_items_of_all_lengths() -> None:
    a = [bytes([7]) * n for n in (0, 1, 63, 64, 128, 5000, 70_000)]
    b = [*(x + b"\0" for x in a), *a[::2]]
    run = run_parties(_pair(a, b))
    assert _matched(a, run["lender"]) == _matched(b, run["platform"])
    assert set(_matched(a, run["lender"])) == set(a[::2])


def test_the_order_does_not_depend_on_the_input_order_and_differs_between_keys() -> None:
    people = _people(*range(30))
    one, other = (prepare(people, key) for key in (KEY, ServerKey.generate(AGREED)))
    orders = set()
    for made in (one, other, prepare(people[::-1], KEY)):
        for a in (people, people[::-1]):
            run = run_parties(_kept(a, made))
            orders.add(tuple(_matched(a, run["lender"][0])))
    assert len(orders) == 2
    assert tuple(people) not in orders


def test_progress_ends_with_all_identifiers() -> None:
    seen: dict[str, list[tuple[int, int]]] = {"lender": [], "platform": [], "made": []}

    def to(name):
        return lambda done, total: seen[name].append((done, total))

    pair = {
        "lender": lambda c: intersect(A, "platform", SESSION, c, 0, True, to("lender")),
        "platform": lambda c: intersect(B, "lender", SESSION, c, 0, False, to("platform")),
    }
    run_parties(pair)
    prepare(B, KEY, to("made"))
    for name, total in (("lender", 12), ("platform", 13), ("made", 7)):
        assert seen[name][-1] == (total, total)
        assert [d for d, _ in seen[name]] == sorted({d for d, _ in seen[name]})


# --- kept tokens


@pytest.mark.parametrize("key", [KEY, OPEN], ids=["verifiable", "without proofs"])
def test_kept_tokens_are_not_sent_again(key: ServerKey) -> None:
    made, known = prepare(B, key), key.agreement
    sizes = []
    for a in (A, A[::-1], _people(8), []):
        run = run_parties(_kept(a, made, known))
        alignment, known = run["lender"]
        assert _matched(a, alignment) == _matched(B, run["platform"])
        assert set(_matched(a, alignment)) == set(a) & set(B)
        assert known.to_bytes() == made.token_set.to_bytes()
        sizes.append(sum(m.size for m in run.transcript if m.tag == "tokens/set"))
    assert sizes == [7 * 11, 0, 0, 0]


def test_another_set_replaces_the_kept_one() -> None:
    old = run_parties(_kept(A))["lender"][1]
    for made in (prepare(B[1:], KEY), prepare(B, ServerKey.generate(AGREED))):
        run = run_parties(_kept(A, made, old))
        alignment, new = run["lender"]
        assert _matched(A, alignment) == _matched(made_of(made), run["platform"])
        assert set(_matched(A, alignment)) == set(A) & set(made_of(made))
        assert new.digest == made.token_set.digest != old.digest


def test_tokens_that_are_sent_as_they_are_made_can_be_kept() -> None:
    making = token_roles.Making(B, KEY)
    alignment, known = run_parties(_kept(A, making))["lender"]
    assert set(_matched(A, alignment)) == set(A) & set(B)
    assert known.to_bytes() == making.finished().token_set.to_bytes() == MADE.token_set.to_bytes()
    run = run_parties(_kept(A, making.finished(), known))
    assert _matched(A, run["lender"][0]) == _matched(A, alignment) == _matched(B, run["platform"])
    assert "tokens/set" not in {m.tag for m in run.transcript}
    with pytest.raises(LocalProtocolError, match="identifiers to be matched are distinct, got 1 repeated"):
        run_parties(_kept(A, token_roles.Making([*B, B[0]], KEY)))


def made_of(made: ServerTokens) -> list[bytes]:
    """The items that a token set in this file is of."""
    return B[len(B) + 1 - len(made.token_set) :]


def test_sets_of_one_key_can_be_compared_and_those_of_two_cannot() -> None:
    """What `tokens.kept` says: which tokens come and go is seen, and another key ends it."""
    fewer, other = prepare(B[1:], KEY).token_set, prepare(B[1:], ServerKey.generate(AGREED)).token_set
    assert len(np.setdiff1d(MADE.token_set.tokens, fewer.tokens)) == 1
    assert len(np.setdiff1d(MADE.token_set.tokens, other.tokens)) == 7


def test_more_than_the_limit_is_refused_at_both_sides_before_anything_is_answered() -> None:
    run = try_parties(_kept(A, limit=4))
    assert str(run.errors["lender"]) == "platform answers at most 4 identifiers in a run, we have 5"
    assert str(run.errors["platform"]) == "lender asks for 5 identifiers, at most 4 are answered in a run"
    assert {type(e) for e in run.errors.values()} == {Refused}
    assert {m.tag for m in run.transcript} == {"tokens/hello", "tokens/key"}
    assert len(run_parties(_kept(A, limit=5))["platform"].rows) == 3


def test_a_client_that_ignores_the_limit_gets_nothing() -> None:
    def changed(m):
        return replace(m, body=m.body[:-8] + (100).to_bytes(8, "little"))

    run = _fault("key", changed, "platform", _kept(A, limit=4))
    assert isinstance(run.errors["platform"], Refused)
    assert isinstance(run.errors["lender"], PeerLost)
    assert not [m for m in run.transcript if m.sender == "platform" and m.tag == "tokens/evaluated"]


@pytest.mark.parametrize("known", [Agreement(b"another purpose"), Agreement(AGREED.purpose + b"\0")])
def test_another_agreement_is_noticed(known: Agreement) -> None:
    run = try_parties(_kept(A, known=known))
    assert _blame(run, "lender")[1] == "tokens/set"
    assert not run.results


def test_another_mode_is_noticed() -> None:
    run = try_parties(_kept(A, known=Agreement(AGREED.purpose, verifiable=False)))
    assert _blame(run, "lender") == ("platform", "tokens/key", "expected a key for mode 0, got 1")


def test_another_session_is_noticed_with_kept_tokens() -> None:
    run = try_parties(_kept(A, known=MADE.token_set, session=bytes(16)))
    assert _blame(run, "platform") == ("lender", "tokens/rows", "matches that it cannot have found")


def test_answers_of_another_key_are_not_proved() -> None:
    """The server has the right public key and tokens, and answers with another secret."""
    pair = rfc9497.KeyPair(OPEN.pair.secret, KEY.pair.public)
    liar = ServerTokens(ServerKey(AGREED, pair), MADE.token_set, MADE.rows, MADE.secrets)
    run = try_parties(_kept(A, liar))
    assert _blame(run, "lender") == ("platform", "tokens/evaluated", "answers that are not proved to be of its key")


def test_a_digest_of_ours_with_another_key_or_size_is_not_believed() -> None:
    for pair, made in (
        (OPEN.pair, MADE),
        (KEY.pair, prepare(B[1:], KEY)),
    ):
        key = ServerKey(AGREED, pair)
        token_set = TokenSet(AGREED, pair.public, made.token_set.tokens)
        object.__setattr__(token_set, "digest", MADE.token_set.digest)
        liar = ServerTokens(key, token_set, made.rows, made.secrets)
        run = try_parties(_kept(A, liar, known=MADE.token_set))
        assert _blame(run, "lender") == ("platform", "tokens/key", "another key or size than the token set has")


# --- what is kept


@pytest.mark.parametrize("key", [KEY, OPEN], ids=["verifiable", "without proofs"])
def test_what_is_kept_survives_as_bytes(key: ServerKey) -> None:
    made = prepare(B, key)
    read_key = ServerKey.from_bytes(key.to_bytes())
    read_set = TokenSet.from_bytes(made.token_set.to_bytes())
    read_made = ServerTokens.from_bytes(made.to_bytes(), read_key, read_set)
    assert (read_key.agreement, read_key.pair.secret) == (key.agreement, key.pair.secret)
    assert (read_set.digest, read_set.public) == (made.token_set.digest, key.pair.public)
    run = run_parties(_kept(A, read_made, read_set))
    assert _matched(A, run["lender"][0]) == _matched(B, run["platform"])
    assert len(run["platform"].rows) == 3


_STORED = {
    "key": (KEY.to_bytes(), ServerKey.from_bytes),
    "set": (MADE.token_set.to_bytes(), TokenSet.from_bytes),
    "rows": (MADE.to_bytes(), lambda raw: ServerTokens.from_bytes(raw, KEY, MADE.token_set)),
}


@pytest.mark.parametrize("what", _STORED)
@settings(max_examples=40, deadline=None)
@given(st.data())
def test_damaged_bytes_are_refused(what: str, data) -> None:
    raw, read = _STORED[what]
    at, flip = data.draw(st.integers(0, len(raw) - 1)), data.draw(st.integers(1, 255))
    for wrong in (raw[:at], raw + raw[:1], raw[:at] + bytes([raw[at] ^ flip]) + raw[at + 1 :]):
        with pytest.raises(ValueError, match="is damaged, or is something else"):
            read(wrong)


def _resealed(magic: bytes, body: bytes) -> bytes:
    return token_sets._sealed(magic, body)


_PUBLIC, _TOKENS = KEY.pair.public, MADE.token_set.tokens.tobytes()


@pytest.mark.parametrize(
    ("what", "magic", "body", "why"),
    [
        ("key", token_sets._KEY, b"", "a stored key is too short"),
        ("key", token_sets._KEY, b"\2\1x" + KEY.pair.secret, "for no purpose that is known here"),
        ("key", token_sets._KEY, b"\1\0" + KEY.pair.secret, "for no purpose that is known here"),
        ("key", token_sets._KEY, b"\1\1x" + bytes(32), "a scalar of zero"),
        ("key", token_sets._KEY, b"\1\1x" + bytes([255]) * 32, "not below the group's order"),
        ("key", token_sets._KEY, b"\1\1x" + KEY.pair.secret + b"\0", "a stored key is too long"),
        ("set", token_sets._SET, b"\1\1x" + bytes(32) + bytes(8), "the neutral element"),
        ("set", token_sets._SET, b"\1\1x" + _PUBLIC + bytes(8), "a token set has 1 to"),
        ("set", token_sets._SET, b"\1\1x" + _PUBLIC + b"\xff" * 8 + _TOKENS, "a stored token set is too short"),
        ("set", token_sets._SET, b"\1\1x" + _PUBLIC + b"\6" + bytes(7) + _TOKENS, "a stored token set is too long"),
        (
            "set",
            token_sets._SET,
            b"\1\1x" + _PUBLIC + b"\2" + bytes(7) + _TOKENS[:11] * 2,
            "out of order, or one twice",
        ),
        ("set", token_sets._SET, b"\1\1x" + _PUBLIC + b"\2" + bytes(7) + b"\1" * 11 + bytes(11), "out of order"),
        ("rows", token_sets._ROWS, bytes(32) + bytes(7 * 20), "of another token set or key"),
        ("rows", token_sets._ROWS, MADE.token_set.digest + bytes(7 * 20), "does not name every row once"),
        ("rows", token_sets._ROWS, MADE.token_set.digest + bytes(7 * 20 - 1), "a stored list of rows is too short"),
        ("rows", token_sets._ROWS, MADE.token_set.digest + bytes(7 * 20 + 1), "a stored list of rows is too long"),
    ],
    ids=lambda value: value if isinstance(value, str) else "body",
)
def test_wrong_contents_are_refused_although_they_are_sealed(what: str, magic: bytes, body: bytes, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        _STORED[what][1](_resealed(magic, body))


def test_rows_of_another_key_are_refused() -> None:
    with pytest.raises(ValueError, match="of another token set or key"):
        ServerTokens.from_bytes(MADE.to_bytes(), OPEN, MADE.token_set)


def test_secrets_are_not_shown() -> None:
    shown = repr(KEY) + repr(MADE) + repr(MADE.token_set)
    for secret in (KEY.pair.secret, MADE.secrets[0].tobytes(), MADE.token_set.tokens[0]):
        assert repr(bytes(secret)) not in shown
        assert bytes(secret).hex() not in shown
    assert "array" not in shown


def test_tokens_are_compared_byte_by_byte() -> None:
    """Also where they end in zeros, which numpy does not show."""
    raw = [
        bytes(11),
        b"\0" * 10 + b"\1",
        b"\1" + bytes(10),
        b"\x7f" * 11,
        b"\x80" + bytes(10),
        b"\xff" * 10 + b"\0",
        b"\xff" * 11,
    ]
    parsed = token_sets.parse(b"".join(raw))
    assert np.all(parsed[1:] > parsed[:-1])
    assert TokenSet(AGREED, KEY.pair.public, parsed).tokens.tobytes() == b"".join(raw)
    assert np.searchsorted(parsed, parsed).tolist() == list(range(7))


def test_two_equal_tokens_ask_for_another_key() -> None:
    same = token_sets.parse(bytes(22))
    with pytest.raises(LocalProtocolError, match="two identifiers have the same token"):
        token_sets.assemble(KEY, same, np.zeros((2, 16), np.uint8), np.arange(2))


def test_tokens_are_long_enough() -> None:
    asked = 1 << 26
    assert MAX_ITEMS * asked * 2.0**-88 <= 2.0**-40
    assert token_sets.TOKEN_BYTES == 88 // 8


# --- what is sent


@pytest.mark.parametrize(("n", "m"), [(5, 6), (0, 3), (1, 1), (3, 0), (1100, 40)])
def test_cost_is_the_one_stated(n: int, m: int) -> None:
    a, b = _people(*range(n)), _people(*range(m))
    run = run_parties(_pair(a, b))
    chunks = math.ceil((n + 1) / 1024)
    assert run.bytes_sent("lender") == 98 + 32 * (n + 1) + 4 * (min(n, m) + 1)
    assert run.bytes_sent("platform") == 115 + 11 * (m + 1) + 32 * (n + 1) + 64 * chunks
    assert sorted(m.tag for m in run.transcript[:3]) == ["tokens/hello", "tokens/hello", "tokens/key"]
    if n < 1024:
        # The server's tokens are on their way while the client's first elements are.
        order = [x.tag.removeprefix("tokens/") for x in run.transcript[3:]]
        assert order in (
            ["blinded", "set", "evaluated", "vote", "vote", "rows"],
            ["set", "blinded", "evaluated", "vote", "vote", "rows"],
        )


@pytest.mark.parametrize(("key", "proof"), [(KEY, 64), (OPEN, 0)], ids=["verifiable", "without proofs"])
def test_cost_of_later_runs_is_the_one_stated(key: ServerKey, proof: int) -> None:
    made = prepare(B, key)
    for known, sent in ((key.agreement, 77), (made.token_set, 0)):
        run = run_parties(_kept(A, made, known))
        assert run.bytes_sent("lender") == 98 + 32 * 6 + 4 * 6
        assert run.bytes_sent("platform") == 115 + sent + 32 * 6 + proof


def test_products_are_those_stated(monkeypatch) -> None:
    counts = {"lender": 0, "platform": 0}
    real, base = ristretto.multiply, ristretto.multiply_base
    playing = []

    def counted(function):
        def one(*arguments):
            counts[playing[-1]] += 1
            return function(*arguments)

        return one

    monkeypatch.setattr(ristretto, "multiply", counted(real))
    monkeypatch.setattr(ristretto, "multiply_base", counted(base))

    class Watched:
        """Notes whose turn it is; nothing is computed while a party waits."""

        def __init__(self, channel, name: str) -> None:
            self._channel, self._name = channel, name
            playing.append(name)

        def send(self, *arguments) -> None:
            self._channel.send(*arguments)
            playing.append(self._name)

        def recv(self, *arguments, **sizes):
            body = self._channel.recv(*arguments, **sizes)
            playing.append(self._name)
            return body

    roles = _kept(A, known=MADE.token_set)
    run_parties({name: lambda c, role=role, name=name: role(Watched(c, name)) for name, role in roles.items()})
    assert counts == {"lender": 4 * 6 + 4, "platform": 2 * 6 + 3}  # and a few for each proof


def test_shape_depends_on_sizes_only() -> None:
    shapes = {tuple(run_parties(_pair(a, B)).shape()) for a in (A, A[::-1], _people(11, 12, 13, 14, 15), B[:5])}
    assert len(shapes) == 1


def test_no_identifier_and_no_element_of_one_is_sent_and_nothing_is_sent_twice() -> None:
    runs = [run_parties(_kept(A, known=MADE.token_set)).transcript for _ in range(2)]
    sent = b"".join(m.body for t in runs for m in t)
    for message, item in zip(AGREED.inputs([*A, None]), [*A, b"sentinel"]):
        assert item not in sent
        assert message not in sent
        assert rfc9497.hash_to_group(message, AGREED.mode) not in sent
    for secret in MADE.secrets:
        assert secret.tobytes() not in sent
    one, two = (
        {raw for m in t if m.tag in ("tokens/blinded", "tokens/evaluated") for raw in rfc9497.split(m.body)}
        for t in runs
    )
    assert not one & two


def test_tokens_leave_in_an_order_that_says_nothing_about_rows() -> None:
    people = _people(*range(200))
    places = []
    for _ in range(2):
        making = token_roles.Making(people, KEY)
        sent = np.concatenate(list(making.chunks()))
        made = making.finished()
        row_of = dict(zip(made.token_set.tokens.tolist(), made.rows.tolist()))
        places.append([row_of[token] for token in sent.tolist()])
        assert sorted(places[-1]) == list(range(201))
        # Correlation of place and row: a standard deviation of 0.07 if they have nothing to do with each other.
        assert abs(np.corrcoef(places[-1], range(201))[0, 1]) < 0.5
        assert abs(np.corrcoef(made.rows, range(201))[0, 1]) < 0.5
    assert places[0] != places[1]


# --- the minimum


@pytest.mark.parametrize(
    ("minimum", "at_lender", "at_platform"),
    [
        ((4, 4), "platform than our own minimum of 4", "the minimum set by lender"),
        ((4, 0), "platform than our own minimum of 4", "the minimum set by lender"),
        ((3, 100), "the minimum set by platform", "lender than our own minimum of 100"),
    ],
)
def test_too_few_matches_are_refused_before_the_server_learns_rows(minimum, at_lender, at_platform) -> None:
    run = try_parties(_pair(A, B, minimum=minimum))
    assert {type(e) for e in run.errors.values()} == {Refused}
    assert str(run.errors["lender"]).endswith(at_lender)
    assert str(run.errors["platform"]).endswith(at_platform)
    assert "3" not in str(run.errors["lender"]) + str(run.errors["platform"])  # the number of matches
    assert run.transcript[-1].tag == "tokens/vote"
    first_vote = next(m for m in run.transcript if m.tag == "tokens/vote")
    told = int.from_bytes(first_vote.body[1:], "little")
    assert told == (3 if minimum[0] <= 3 else 0)  # a number that the client finds too small is not told


def test_exactly_the_minimum_is_enough() -> None:
    assert len(run_parties(_pair(A, B, minimum=3))["lender"].rows) == 3


@pytest.mark.parametrize("minimum", [0, 1])
def test_no_match_at_all(minimum: int) -> None:
    run = try_parties(_pair(A, _people(6, 7), minimum=minimum))
    assert [type(e) for e in run.errors.values()] == [Refused] * (2 * minimum)


# --- faults


def _byte(at: int, value: int):
    return lambda m: replace(m, body=m.body[:at] + bytes([value]) + m.body[at + 1 :])


def _words(*values: int):
    return lambda m: replace(m, body=np.array(values, dtype="<u4").tobytes() + m.body[-16:])


FREE = 0xFFFFFFFF
NEGATIVE = bytes.fromhex("0100000000000000000000000000000000000000000000000000000000000000")
UNREDUCED = bytes.fromhex("edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f")


def _element(raw: bytes, at: int = 0):
    return lambda m: replace(m, body=m.body[:at] + raw + m.body[at + 32 :])


@pytest.mark.parametrize(
    ("tag", "sender", "change", "step", "why"),
    [
        ("hello", "lender", _byte(8, 2), "hello", "expected leader=1, got 2"),
        ("hello", "platform", _byte(4, 1), "hello", f"expected at most {MAX_ITEMS} identifiers, got"),
        ("key", "platform", _byte(0, 0), "key", "expected a key for mode 1, got 0"),
        ("key", "platform", _element(bytes(32), 1), "key", "a key that cannot be used: the neutral element"),
        ("key", "platform", _element(UNREDUCED, 1), "key", "a key that cannot be used: not the encoding of an element"),
        ("key", "platform", _element(OPEN.pair.public, 1), "evaluated", "answers that are not proved to be of its key"),
        ("set", "platform", lambda m: replace(m, body=m.body[:11] * 7), "set", "the same token twice"),
        ("set", "platform", lambda m: replace(m, body=bytes(range(77))), "evaluated", "no token of the identifier"),
        (
            "blinded",
            "lender",
            _element(bytes(32), 32),
            "blinded",
            "an element that cannot be used: the neutral element",
        ),
        ("blinded", "lender", _element(NEGATIVE), "blinded", "an element that cannot be used: not the encoding"),
        ("blinded", "lender", _element(UNREDUCED), "blinded", "an element that cannot be used: not the encoding"),
        ("evaluated", "platform", _element(bytes(32)), "evaluated", "an element that cannot be used: the neutral"),
        ("evaluated", "platform", _element(NEGATIVE), "evaluated", "an element that cannot be used: not the encoding"),
        ("evaluated", "platform", _element(KEY.pair.public), "evaluated", "answers that are not proved"),
        ("vote", "lender", _byte(0, 2), "vote", "neither yes nor no"),
        ("vote", "platform", _byte(0, 2), "vote", "neither yes nor no"),
        ("vote", "lender", _byte(8, 1), "vote", "more matches than identifiers"),
        ("vote", "lender", _byte(1, 2), "rows", "not as many tokens as it counted"),
        ("rows", "lender", _words(0, 1, 1, 2, FREE, FREE), "rows", "not as many tokens as it counted"),
        ("rows", "lender", _words(1, 0, 2, 3, FREE, FREE), "rows", "not as many tokens as it counted"),
        ("rows", "lender", _words(0, 1, 2, 7, FREE, FREE), "rows", "not as many tokens as it counted"),
        ("rows", "lender", _words(0, 1, 2, 3, 4, FREE), "rows", "not as many tokens as it counted"),
        ("rows", "lender", _words(0, 1, 2, FREE, FREE, FREE), "rows", "not as many tokens as it counted"),
        ("rows", "lender", lambda m: replace(m, body=m.body[:-16] + bytes(16)), "rows", "matches that it cannot have"),
    ],
)
def test_wrong_contents_are_the_senders_fault(tag, sender, change, step, why) -> None:
    other = "platform" if sender == "lender" else "lender"
    run = _fault(tag, change, sender)
    party, at, reason = _blame(run, other)
    assert (party, at) == (sender, f"tokens/{step}")
    assert reason.startswith(why)
    assert other not in run.results


def test_tokens_that_were_not_evaluated_cannot_be_reported() -> None:
    """The client reports as many tokens as it counted, but other ones."""

    def changed(m):
        listed = np.frombuffer(m.body[:-16], dtype="<u4")
        unmatched = sorted(set(range(7)) - set(listed.tolist()))
        return replace(m, body=np.array([*unmatched, listed[3], FREE, FREE], "<u4").tobytes() + m.body[-16:])

    why = _blame(_fault("rows", changed, "lender"), "platform")[2]
    assert why in (
        "matches that it cannot have found",
        "not as many tokens as it counted, each once and in their order",
    )


def test_a_report_without_the_sentinel_is_no_result(monkeypatch) -> None:
    """A client that names four rows instead of three and the sentinel, with a right proof of them."""

    def proof(run, token_set, secrets):
        return bytes(16)

    monkeypatch.setattr(token_roles.Run, "proof", proof)
    sentinel = int(np.flatnonzero(MADE.rows == 6)[0])
    others = [place for place in range(7) if place != sentinel][:4]
    run = _fault("rows", _words(*others, FREE, FREE), "lender", _kept(A))
    assert _blame(run, "platform") == ("lender", "tokens/rows", "other matches than it counted")


def test_another_set_than_the_announced_one_is_noticed() -> None:
    other = prepare(_people(1, 2, 3, 4, 5, 6), KEY).token_set.tokens.tobytes()
    run = _fault("set", lambda m: replace(m, body=other), "platform", _kept(A))
    assert _blame(run, "lender") == (
        "platform",
        "tokens/set",
        "not the token set that it announced, for what was agreed on",
    )


def test_without_proofs_a_wrong_answer_is_noticed_by_the_sentinel() -> None:
    made = prepare(B, OPEN)

    def wrong(m):
        other = ristretto.random_scalar(fresh_prg())
        return replace(m, body=b"".join(rfc9497.blind_evaluate(other, rfc9497.split(m.body))))

    run = _fault("evaluated", wrong, "platform", _kept(A, made, OPEN.agreement))
    assert _blame(run, "lender")[1:] == ("tokens/evaluated", "no token of the identifier that both sides have")


SENT_BY = {"lender": ["hello", "blinded", "vote", "rows"], "platform": ["hello", "key", "set", "evaluated", "vote"]}
SPOILT = {
    "shorter": lambda m: replace(m, body=m.body[:-1]),
    "longer": lambda m: replace(m, body=m.body + b"\0"),
    "empty": lambda m: replace(m, body=b""),
    "another kind": lambda m: replace(m, kind=Kind.WORDS32),
    "another tag": lambda m: replace(m, tag="tokens/other"),
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


@pytest.mark.parametrize("tag", TAGS)
def test_messages_of_another_run_are_no_result_or_change_nothing(tag: str) -> None:
    """Replayed: what one side sent in an earlier run arrives in place of what it sends now."""
    old = {(m.tag, m.sender): m for m in run_parties(_kept(A)).transcript}
    for sender, sent in SENT_BY.items():
        if tag not in sent:
            continue
        run = _fault(tag, lambda m: old[m.tag, m.sender], sender, _kept(A))
        if run.errors:
            assert any(isinstance(e, RemoteProtocolError) for e in run.errors.values())
        else:
            assert _matched(A, run["lender"][0]) == _matched(B, run["platform"])
            assert tag in ("key", "set", "vote")  # the same bytes in every run with kept tokens


def test_different_sessions_are_noticed() -> None:
    run = try_parties(_pair(A, A, sessions=(SESSION, bytes(16))))
    assert _blame(run, "lender")[1:] == ("tokens/evaluated", "no token of the identifier that both sides have")
    assert not run.results


def test_a_peer_that_falls_silent_is_lost_and_named() -> None:
    run = _fault("rows", _drop, "lender")
    assert isinstance(run.errors["platform"], PeerLost)
    assert (run.errors["platform"].party, run.errors["platform"].step) == ("lender", "tokens/rows")


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


@pytest.mark.parametrize("leaders", [(True, True), (False, False)])
def test_two_sides_with_the_same_role(leaders) -> None:
    run = try_parties(_pair(A, B, leaders=leaders))
    assert _blame(run, "platform")[:2] == ("lender", "tokens/hello")


@pytest.mark.parametrize(
    ("items", "session", "minimum", "why"),
    [
        ([b"x", b"y", b"x"], SESSION, 0, "identifiers to be matched are distinct, got 1 repeated ones"),
        (A, b"", 0, "a session id has 1 to 255 bytes, got 0"),
        (A, bytes(256), 0, "a session id has 1 to 255 bytes, got 256"),
        (A, SESSION, -1, "the minimum number of matches is not negative, got -1"),
        ([b"x"] * (MAX_ITEMS + 1), SESSION, 0, "identifiers can be matched this way, got 4194305"),
    ],
)
@pytest.mark.parametrize("leader", [True, False])
def test_our_own_mistakes_send_nothing(items, session, minimum, why, leader) -> None:
    run = try_parties({"a": lambda c: intersect(items, "b", session, c, minimum, leader), "b": lambda _: None})
    assert isinstance(run.errors["a"], LocalProtocolError)
    assert why in str(run.errors["a"])
    assert run.transcript == []


def test_a_leader_asks_for_no_more_than_is_answered() -> None:
    items = [b"x"] * (tokens.MAX_QUERIES + 1)
    run = try_parties({"a": lambda c: intersect(items, "b", SESSION, c, 0, True), "b": lambda _: None})
    assert str(run.errors["a"]) == "at most 65536 identifiers can be matched this way, got 65537"


def test_mistakes_with_what_is_kept() -> None:
    with pytest.raises(LocalProtocolError, match="identifiers to be matched are distinct, got 1 repeated ones"):
        prepare([b"x", b"x"], KEY)
    with pytest.raises(LocalProtocolError, match="at most 4194304 identifiers"):
        prepare([b"x"] * (MAX_ITEMS + 1), KEY)
    for purpose in (b"", bytes(256)):
        with pytest.raises(LocalProtocolError, match="the purpose of a key has 1 to 255 bytes"):
            Agreement(purpose)
    for limit in (-1, MAX_ITEMS + 1):
        with pytest.raises(LocalProtocolError, match=f"a limit is 0 to {MAX_ITEMS} identifiers, got {limit}"):
            run_parties({"platform": lambda c, limit=limit: serve(MADE, "lender", SESSION, c, 0, limit)})


def test_what_is_revealed_is_declared() -> None:
    names = {"sizes", "matches", "early-rows", "rows", "kept", "traffic"}
    assert {r.name for r in tokens.REVEALS} == {f"tokens.{name}" for name in names}
    assert {r.to for r in tokens.REVEALS} == {"owners", "first", "coordinator"}
