"""The resumable stream without any I/O: what is counted, what is refused."""

from __future__ import annotations

import random  # noqa: TID251  a test that loses the same messages every time

import pytest

from silos.resumable import ACK, DATA, END, HEARD, WINDOW_BYTES, NotYet, Resumable, StreamOver


def number(n: int) -> bytes:
    return n.to_bytes(8, "big")


def met() -> tuple[Resumable, Resumable]:
    a, b = Resumable(), Resumable()
    meet(a, b)
    return a, b


def meet(a: Resumable, b: Resumable) -> None:
    said = a.hello(), b.hello()
    a.meet(said[1])
    b.meet(said[0])


@pytest.mark.parametrize("seed", range(20))
def test_whatever_is_lost_with_a_connection_comes_once(seed: int) -> None:
    """Messages are delivered in order up to a random one; the rest of a connection is lost in both directions."""
    chance = random.Random(seed)
    ends = met()
    sent, got = ([bytearray(), bytearray()] for _ in range(2))
    for _ in range(30):
        flying: tuple[list[bytes], list[bytes]] = ([], [])
        for _ in range(chance.randrange(20)):
            me = chance.randrange(2)
            end, how = ends[me], chance.randrange(3)
            if how == 0:
                chunk = chance.randbytes(min(chance.randrange(1, 5000), end.room))
                end.take(chunk)
                sent[me] += chunk
            elif how == 1 and end.next < end.sent:
                flying[me].append(end.data())
            elif how == 2:
                end.delivered = end.received
                flying[me].append(end.ack())
        for me in (0, 1):
            for message in flying[me][: chance.randrange(len(flying[me]) + 1)]:
                got[1 - me] += ends[1 - me].hear(message)
        meet(*ends)
    for me in (0, 1):
        while ends[me].next < ends[me].sent:
            got[1 - me] += ends[1 - me].hear(ends[me].data())
    assert (got[1], got[0]) == (sent[0], sent[1])


def test_a_hello_that_was_lost_one_way_is_said_again() -> None:
    a, b = Resumable(), Resumable()
    a.meet(b.hello())
    assert a.met
    assert not b.met
    meet(a, b)
    assert b.met


def test_an_end_that_begins_anew_is_noticed_by_the_other_and_waits_for_it() -> None:
    a, _ = met()
    fresh = Resumable()
    with pytest.raises(StreamOver, match=r"^the peer has begun another stream$"):
        a.meet(fresh.hello())
    with pytest.raises(NotYet, match=r"^the peer is at an earlier stream$"):
        fresh.meet(a.hello())
    meet(fresh, Resumable())


def test_no_more_is_taken_than_the_window() -> None:
    a, b = met()
    a.take(bytes(a.room))
    assert (a.room, a.sent) == (0, WINDOW_BYTES)
    while a.next < a.sent:
        b.hear(a.data())
    a.hear(b.ack())
    assert (a.room, a.confirmed, len(a._kept)) == (0, WINDOW_BYTES, 0), "it has arrived, and nobody has taken it"
    b.delivered = WINDOW_BYTES
    assert b.must_ack
    a.hear(b.ack())
    assert a.room == WINDOW_BYTES


def test_the_end_is_said_and_heard() -> None:
    a, b = met()
    a.take(b"abc")
    a.ended = True
    b.hear(a.data())
    b.hear(a.end())
    assert (b.peer_end, b.owes_heard) == (3, True)
    a.hear(b.heard())
    assert a.end_heard
    assert not b.owes_heard


@pytest.mark.parametrize(
    ("message", "sentence"),
    [
        (b"", "no message of a stream"),
        (bytes([DATA]) + number(0), "no message of a stream"),
        (bytes([DATA]) + number(0) + bytes((1 << 18) + 1), "no message of a stream"),
        (bytes([9]) + number(0), "no message of a stream"),
        (bytes([DATA]) + number(5) + b"x", "sent byte 5, expected 0"),
        (bytes([ACK]) + number(4) + number(0), "confirms other bytes"),
        (bytes([ACK]) + number(0) + number(1), "confirms other bytes"),
        (bytes([ACK]) + number(0), "no message of a stream"),
        (bytes([END]) + number(1), "ended the stream at another byte"),
        (bytes([HEARD]) + number(3), "ended the stream at another byte"),
    ],
)
def test_what_a_peer_may_not_say(message: bytes, sentence: str) -> None:
    a, _ = met()
    a.take(b"abc")
    with pytest.raises(StreamOver, match=sentence):
        a.hear(message)


def test_a_peer_that_sends_more_than_there_is_room_for_is_refused() -> None:
    a, _ = met()
    piece = bytes(1 << 18)
    for at in range(0, WINDOW_BYTES, len(piece)):
        a.hear(bytes([DATA]) + number(at) + piece)
    with pytest.raises(StreamOver, match=r"^the peer sent more than there is room for$"):
        a.hear(bytes([DATA]) + number(WINDOW_BYTES) + b"x")
    assert a.received == WINDOW_BYTES


@pytest.mark.parametrize("raw", [b"", b"ACR1", b"ACR2" + bytes(40), b"ACR1" + bytes(40)])
def test_what_is_no_hello(raw: bytes) -> None:
    with pytest.raises(StreamOver):
        Resumable().meet(raw)


def test_a_hello_that_claims_bytes_we_never_sent() -> None:
    a, b = met()
    b.received = 7
    with pytest.raises(StreamOver, match=r"^the peer has received other bytes than we sent$"):
        a.meet(b.hello())


def test_the_name_of_a_stream_is_not_shown() -> None:
    assert repr(Resumable(name=b"N" * 16)).count("N" * 16) == 0
