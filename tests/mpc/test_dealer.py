"""The dealer: a closed set of requests, within limits, each dealt once; it is sent requests and nothing else."""

import hashlib
import itertools
import json
import threading
from dataclasses import replace

import numpy as np
import pytest

from mpc import dealer as dealer_module
from mpc.correlations import MAX_WORDS, Piece
from mpc.dealer import Correlations, run_dealer
from mpc.errors import LocalProtocolError, RemoteProtocolError
from mpc.matrix import MatrixMask, MatrixProduct
from mpc.session import Session
from mpc.triples import BinaryTriple, SquarePair, Triple
from mpc.truncation import Truncation
from mpc.wire import Kind, send_json
from tests.harness import run_parties
from tests.mpc.playing import NAMES, joined, play, results

MUL = Triple(op="mul", shape0=(4,), shape1=(4,))
AND = BinaryTriple(shape0=(3,), shape1=(3,))


def asking(*batches):
    """A dealer with one party that sends these raw requests; raises what the dealer raises."""

    def asker(channel):
        channel.recv("dealer", "dealer/key", Kind.BYTES, exact=32)
        for batch in batches:
            send_json(channel, "dealer", "dealer/request", batch)

    return run_parties({"a": asker, "dealer": lambda channel: run_dealer(channel, ["a", "b"]), "b": _silent})


def _silent(channel):
    channel.recv("dealer", "dealer/key", Kind.BYTES, exact=32)


@pytest.mark.parametrize(
    "raw",
    [
        {"kind": "generate_additive_triple"},
        {"kind": "_deal"},
        {"kind": ""},
        {"kind": None},
        {"shape": [1]},
        ["square"],
        "square",
        7,
        None,
    ],
    ids=repr,
)
def test_an_unknown_kind_is_refused(raw):
    with pytest.raises(RemoteProtocolError, match=r"a broke the protocol .* unknown kind") as caught:
        asking([raw])
    assert caught.value.party == "a"


@pytest.mark.parametrize(
    "raw",
    [
        {"kind": "square"},
        {"kind": "square", "shape": None},
        {"kind": "square", "shape": ["1"]},
        {"kind": "square", "shape": [1], "seed": 3},
        {"kind": "square", "shape": [-1]},
        {"kind": "truncation", "n": True, "divisor": 4},
    ],
    ids=repr,
)
def test_a_malformed_request_is_refused(raw):
    with pytest.raises(RemoteProtocolError, match="malformed request"):
        asking([{"kind": "square", "shape": [1]}, raw])


@pytest.mark.parametrize("batch", [{"kind": "square", "shape": [1]}, "x", 5], ids=repr)
def test_what_is_not_a_list_of_requests_is_refused(batch):
    with pytest.raises(RemoteProtocolError, match="a broke the protocol"):
        asking(batch)


@pytest.mark.parametrize(
    "request_",
    [
        Truncation(n=MAX_WORDS // 3, divisor=2),
        SquarePair(shape=(MAX_WORDS,)),
        Triple(op="matmul", shape0=(1 << 16, 1), shape1=(1, 1 << 15)),
    ],
    ids=lambda r: r.kind,
)
def test_a_request_over_the_limit_is_refused_before_anything_is_made(request_):
    with pytest.raises(RemoteProtocolError, match="over the dealer's limit"):
        asking([request_.model_dump()])


def test_a_session_may_not_ask_for_ever(monkeypatch):
    monkeypatch.setattr(dealer_module, "MAX_REQUESTS", 3)
    one = {"kind": "square", "shape": [1]}
    with pytest.raises(RemoteProtocolError, match="more requests than a session may make"):
        asking([one, one], [one, one])


def test_a_number_is_dealt_once_and_in_order():
    def body(session: Session):
        first, second = session.correlations.plan([MUL, AND])
        with pytest.raises(LocalProtocolError, match=r"correlation 1 .* out of order"):
            session.correlations.take(second)
        session.correlations.take(first)
        with pytest.raises(LocalProtocolError, match="correlation 0 was already used"):
            session.correlations.take(first)
        session.correlations.take(second)
        with pytest.raises(LocalProtocolError, match="correlation 1 was already used"):
            session.correlations.take(second)

    play(2, body)


def test_a_ticket_of_another_session_is_not_good_here():
    kept = []

    def body(session: Session):
        kept.append(session.correlations.plan([MUL])[0])
        session.correlations.take(kept[-1])
        (mine,) = session.correlations.plan([MUL])
        with pytest.raises(LocalProtocolError, match="already used"):
            session.correlations.take(kept[0])
        session.correlations.take(mine)

    play(2, body)


@pytest.mark.parametrize("n_parties", [2, 3, 5])
def test_every_party_gets_shares_of_the_same_correlation(n_parties):
    def body(session: Session):
        planned = session.correlations.plan([MUL, AND, MUL])
        return [session.correlations.take(ticket) for ticket in planned]

    out = results(play(n_parties, body))
    for number in (0, 2):
        a, b = (joined([party[number][0][i] for party in out]) for i in (0, 1))
        np.testing.assert_array_equal(joined([party[number][1][0] for party in out]), a * b)
    a, b = (np.bitwise_xor.reduce([party[1][0][i] for party in out]) for i in (0, 1))
    np.testing.assert_array_equal(np.bitwise_xor.reduce([party[1][1][0] for party in out]), a & b)
    drawn = [words.tobytes() for party in out for number in range(3) for words in party[number][0]]
    assert len(set(drawn)) == len(drawn)  # no stream is used twice, by any party


def test_only_the_first_party_is_sent_corrections_and_the_dealer_only_requests():
    run = play(
        3, lambda session: [session.correlations.draw(request) for request in (MUL, AND, Truncation(n=2, divisor=4))]
    )
    to_dealer = [(m.sender, m.tag, m.kind) for m in run.transcript if m.receiver == "dealer"]
    assert set(to_dealer) == {("a", "dealer/request", Kind.JSON)}
    from_dealer = [(m.receiver, m.tag, m.size) for m in run.transcript if m.sender == "dealer"]
    assert from_dealer[:3] == [(name, "dealer/key", 32) for name in "abc"]
    assert from_dealer[3:] == [("a", "dealer/correction", size) for size in (32, 24, 16 + 16)]
    assert run["dealer"] == 3


def test_requests_hold_shapes_and_nothing_else():
    run = play(2, lambda session: session.correlations.draw(MUL))
    sent = [m.body for m in run.transcript if m.tag == "dealer/request"]
    assert sent[0] == (
        b'[{"kind":"triple","op":"mul","shape0":[4],"shape1":[4],"stride":[],"padding":[],"dilation":[],"groups":1}]'
    )
    assert sent[1] == b"[]"


def test_a_repeated_request_is_written_once_in_a_batch():
    def body(session: Session):
        tickets = session.correlations.plan([MUL, AND, MUL, MUL, AND])
        return [session.correlations.take(ticket) for ticket in tickets]

    run = play(2, body)
    sent = [json.loads(m.body) for m in run.transcript if m.tag == "dealer/request"]
    assert sent == [[MUL.model_dump(mode="json"), AND.model_dump(mode="json"), 0, 0, 1], []]
    for a, b, request in zip(*results(run), (MUL, AND, MUL, MUL, AND), strict=True):
        drawn, shares = zip(a, b, strict=True)
        (expected,) = request.derive(drawn, {})
        np.testing.assert_array_equal(request.derived()[0].combine([s[0] for s in shares]), expected)


@pytest.mark.parametrize("number", [1, -1, True, 7])
def test_a_number_that_stands_for_no_request_is_refused(number):
    with pytest.raises(RemoteProtocolError, match="a broke the protocol"):
        asking([MUL.model_dump(), number])


def test_small_corrections_travel_together_and_a_short_message_of_them_is_noticed():
    def body(session: Session):
        return [session.correlations.take(t) for t in session.correlations.plan([MUL] * 70)]

    run = play(2, body)
    sizes = [m.size for m in run.transcript if m.tag == "dealer/correction"]
    assert sizes == [32 * 32, 32 * 32, 6 * 32]

    def cut(message):
        return replace(message, body=message.body[:-8]) if message.tag == "dealer/correction" else message

    def party(i):
        def run_one(channel):
            correlations = Correlations(channel, "dealer", i, 2)
            return correlations.draw(MUL)

        return run_one

    with pytest.raises(RemoteProtocolError, match=r"dealer broke the protocol .* cut short"):
        run_parties(
            {"a": party(0), "b": party(1), "dealer": lambda channel: run_dealer(channel, ["a", "b"])}, tamper=cut
        )


def test_planning_ahead_is_sent_in_batches_and_may_be_left_unused(monkeypatch):
    monkeypatch.setattr(dealer_module, "BATCH", 2)

    def body(session: Session):
        tickets = session.correlations.plan([SquarePair(shape=(1,))] * 5)
        return [session.correlations.take(ticket) for ticket in tickets]

    run = play(2, body)
    assert len([m for m in run.transcript if m.tag == "dealer/request"]) == 3 + 1
    assert run["dealer"] == 5


def test_a_key_of_the_wrong_size_is_the_dealers_fault():
    def cheap(channel):
        channel.send("a", "dealer/key", Kind.BYTES, bytes(16))

    with pytest.raises(RemoteProtocolError, match="dealer broke the protocol"):
        run_parties({"a": lambda channel: Correlations(channel, "dealer", 0, 2), "dealer": cheap})


def test_a_handle_does_not_show_its_key():
    def body(session: Session):
        session.correlations.draw(MUL)
        return repr(session.correlations)

    assert results(play(2, body)) == ["Correlations(used=1)"] * 2


@pytest.mark.parametrize("xor", [False, True])
def test_a_correction_completes_the_shares(xor):
    rng = np.random.default_rng(3)
    shares = [rng.integers(0, 2**64, 8, dtype=np.uint64) for _ in range(3)]
    value = rng.integers(0, 2**64, 8, dtype=np.uint64)
    piece = Piece((8,), xor=xor)
    np.testing.assert_array_equal(piece.combine([piece.correction(value, shares), *shares]), value)
    assert (piece.size, Piece(()).size, Piece((0, 3)).size) == (8, 1, 0)


@pytest.fixture
def known_keys(monkeypatch):
    """The dealer's keys, fixed and the same in every run of a test."""

    def restart():
        counter = itertools.count()
        monkeypatch.setattr(dealer_module, "fresh_key", lambda: hashlib.sha256(b"key/%d" % next(counter)).digest())

    return restart


def squares(sizes, taken=None):
    """Plan squares of these sizes at once and take them; returns the shares and how far ahead the dealer was let."""

    def body(session: Session):
        source, ahead = session.correlations, []
        out = []
        for ticket in source.plan([SquarePair(shape=(n,)) for n in sizes])[:taken]:
            ahead.append(source._ahead)
            out.append(source.take(ticket))
        return out, [*ahead, source._ahead]

    return body


@pytest.mark.parametrize("limit", [1, 10, 25, 1 << 20])
@pytest.mark.parametrize("n_parties", [2, 3])
def test_the_dealer_works_ahead_within_its_window_only(limit, n_parties, monkeypatch):
    monkeypatch.setattr(dealer_module, "AHEAD_WORDS", limit)
    sizes = [4, 4, 7, 0, 30, 1, 1, 1, 10, 11, 25, 3]
    run = play(n_parties, squares(sizes))
    out = results(run)
    for i in range(len(sizes)):
        r = joined([shares[i][0][0] for shares, _ in out])
        np.testing.assert_array_equal(joined([shares[i][1][0] for shares, _ in out]), r * r)
    ahead = out[0][1]
    assert max(ahead) <= max(limit, 30)  # one correlation may be larger than the window, then it is alone in it
    assert all(words <= limit or words in sizes for words in ahead)
    assert ahead[-1] == 0
    assert {words for _, others in out[1:] for words in others} == {0}  # only party 0 asks
    assert run["dealer"] == len(sizes)
    batches = [m for m in run.transcript if m.tag == "dealer/request"]
    assert (len(batches) == 2) == (limit > sum(sizes))


def test_big_corrections_are_split_evenly_and_small_ones_go_to_the_first_party(known_keys, monkeypatch):
    sizes = [5, 63, 64, 65, 100, 128]
    runs = []
    for limit in (64, 1 << 20):
        known_keys()
        monkeypatch.setattr(dealer_module, "SPLIT_WORDS", limit)
        runs.append(play(3, squares(sizes)))
    split, whole = ([[shares for shares, _ in results(run)], run] for run in runs)
    for i in range(len(sizes)):
        drawn = [joined([party[i][0][0] for party in shares]) for shares, _ in (split, whole)]
        dealt = [joined([party[i][1][0] for party in shares]) for shares, _ in (split, whole)]
        np.testing.assert_array_equal(drawn[0], drawn[1])
        np.testing.assert_array_equal(dealt[0], dealt[1])
    sent = [(m.receiver, m.size // 8) for m in split[1].transcript if m.tag == "dealer/correction"]
    parts = [[(name, n * (i + 1) // 3 - n * i // 3) for i, name in enumerate("abc")] for n in sizes[2:]]
    assert sent == [("a", 5 + 63), *itertools.chain.from_iterable(parts)]
    sent = [(m.receiver, m.size // 8) for m in whole[1].transcript if m.tag == "dealer/correction"]
    assert sent == [("a", sum(sizes))]  # small ones travel together


@pytest.mark.parametrize("dtype", [np.uint16, np.uint32, np.uint64])
@pytest.mark.parametrize("n_parties", [1, 2, 3, 5])
@pytest.mark.parametrize("n", [0, 1, 4095, 4096, 4099])
def test_the_parts_of_a_correction_are_the_whole(n, n_parties, dtype):
    parts = [dealer_module.corrected(Piece((n,), dtype), n_parties, i) for i in range(n_parties)]
    assert [i for part in parts for i in range(part.start, part.stop)] == list(range(n))
    widths = [part.stop - part.start for part in parts]
    assert widths == [n, *[0] * (n_parties - 1)] if n < dealer_module.SPLIT_WORDS else max(widths) - min(widths) <= 1


def words_of(run) -> list[bytes]:
    """Everything drawn at random in a run, and the keys."""
    drawn = [words.tobytes() for shares, _ in results(run) for one in shares for words in one[0]]
    return drawn + [m.body for m in run.transcript if m.tag == "dealer/key"]


def test_sessions_at_the_same_time_and_one_after_the_other_share_no_key_and_no_mask():
    runs = []
    threads = [threading.Thread(target=lambda: runs.append(play(3, squares([8] * 20)))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    runs.append(play(3, squares([8] * 20)))
    seen = [words for run in runs for words in words_of(run)]
    assert len(seen) == len(set(seen)) == 3 * 3 * (20 + 1)


@pytest.mark.parametrize("limit", [1, 40, 1 << 20])
@pytest.mark.parametrize("taken", [0, 1, 5])
def test_tickets_that_are_never_used_keep_nobody_waiting(limit, taken, monkeypatch):
    monkeypatch.setattr(dealer_module, "AHEAD_WORDS", limit)
    body = squares([10] * 12, taken)

    def party(i):
        def run(channel):
            session = Session(channel, NAMES[:2], i, Correlations(channel, "dealer", i, 2))
            body(session)
            session.correlations.close()

        return run

    # What was dealt for them is left unread, which the harness takes for an error unless messages are tampered with.
    parties = {"a": party(0), "b": party(1), "dealer": lambda channel: run_dealer(channel, NAMES[:2])}
    run = run_parties(parties, tamper=lambda message: message)
    assert taken <= run["dealer"] <= min(12, taken + max(1, limit // 10))


def test_the_dealer_remembers_masks_of_matrices_and_nothing_else(monkeypatch):
    deal, kept = dealer_module._deal, {}

    def watched(one, streams, memory, outbox):
        deal(one, streams, memory, outbox)
        kept.update(memory)
        request = one.request
        assert memory.keys() == {request.matrix for request in asked[: asked.index(request) + 1] if is_mask(request)}

    def is_mask(request):
        return isinstance(request, MatrixMask)

    asked = [
        MUL,
        MatrixMask(matrix=3, owner=0, n_rows=4, n_cols=2),
        AND,
        MatrixProduct(matrix=3, owner=0, transpose=False, n_in=2, n_out=4),
        Truncation(n=2, divisor=4),
        MatrixMask(matrix=9, owner=1, n_rows=1, n_cols=1),
        SquarePair(shape=(3,)),
    ]
    monkeypatch.setattr(dealer_module, "_deal", watched)
    run = play(2, lambda session: [session.correlations.draw(request) for request in asked])
    (mask,), (other,) = run["a"][1][0], run["b"][5][0]
    assert kept.keys() == {3, 9}
    np.testing.assert_array_equal(kept[3], mask)
    np.testing.assert_array_equal(kept[9], other)
