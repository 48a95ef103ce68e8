"""Frames over links: what gets through, and every way a peer can be wrong, late or gone."""

from __future__ import annotations

import contextlib
import hashlib
import socket
import threading
import time
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpc.errors import LocalProtocolError, PeerLost, RemoteProtocolError
from mpc.wire import (
    HEADER,
    MAGIC,
    Header,
    Kind,
    pack_header,
    parse_header,
    recv_json,
    recv_words,
    send_json,
    send_words,
)
from silos import link_tls
from silos.links import JOINED_BYTES, LinkChannel, TlsLink, open_links
from tests.silos.link_pairs import (
    BOUND_S,
    CERTIFICATES,
    NAMES,
    OWN,
    SESSION,
    channels,
    credentials,
    raw_peer,
    tls,
    together,
)

MARKER = b"MARKER-7f3a"


def big(seed: int, size: int) -> bytes:
    return np.random.default_rng(seed).bytes(size)


@pytest.mark.parametrize("kind", list(Kind))
@pytest.mark.parametrize("size", [0, 1, 64, JOINED_BYTES - 1, JOINED_BYTES, JOINED_BYTES + 1, 3_000_001])
def test_every_kind_and_size_arrives_unchanged(kind: Kind, size: int) -> None:
    with channels("alfa", "bravo") as (a, b):
        body = big(size, size)
        for buffer in (body, bytearray(body), memoryview(body)):
            _, got = together(
                lambda buffer=buffer: a.send("bravo", "t", kind, buffer),
                lambda: b.recv("alfa", "t", kind, exact=size),
            )
            assert got == body


def test_what_the_disclosure_does_not_have_for_a_peer_is_not_sent() -> None:
    told = {"bravo": frozenset({"glm/weights"}), "delta": frozenset({"dealer/request"})}
    with channels("alfa", "bravo", told=told) as (a, b):
        a.send("bravo", "glm/weights", Kind.BYTES, b"1")
        with pytest.raises(LocalProtocolError, match="the job's disclosure has no message 'dealer/request' to bravo"):
            a.send("bravo", "dealer/request", Kind.BYTES, b"2")
        with pytest.raises(LocalProtocolError, match="the job's disclosure has no message 'glm/weights' to alfa"):
            b.send("alfa", "glm/weights", Kind.BYTES, b"3")
        assert b.recv("alfa", "glm/weights", Kind.BYTES, exact=1) == b"1"
        assert a.bytes_sent["bravo"] == HEADER.size + len("glm/weights") + 1


def test_words_and_json_between_three_parties() -> None:
    with channels(*NAMES) as (a, b, d):
        words = np.arange(12, dtype=np.uint64).reshape(3, 4) << np.uint64(50)
        send_words(a, "bravo", "x", words)
        send_json(d, "alfa", "plan", {"rows": 12, "names": ["ä"]})
        np.testing.assert_array_equal(recv_words(b, "alfa", "x", (3, 4), np.uint64), words)
        assert recv_json(a, "dealer", "plan") == {"rows": 12, "names": ["ä"]}


def test_the_caller_may_reuse_its_buffer_after_send() -> None:
    with channels("alfa", "bravo") as (a, b):
        buffer = bytearray(b"first message")
        a.send("bravo", "t", Kind.BYTES, buffer)
        buffer[:] = b"-------------"
        assert b.recv("alfa", "t", Kind.BYTES, limit=100) == b"first message"


def test_two_parties_send_64_mib_to_each_other_at_once() -> None:
    with channels("alfa", "bravo") as (a, b):
        bodies = {"alfa": big(1, 1 << 26), "bravo": big(2, 1 << 26)}

        def swap(channel: LinkChannel, me: str, peer: str) -> bool:
            channel.send(peer, "m", Kind.BYTES, bodies[me])
            return channel.recv(peer, "m", Kind.BYTES, exact=1 << 26) == bodies[peer]

        assert together(lambda: swap(a, "alfa", "bravo"), lambda: swap(b, "bravo", "alfa")) == [True, True]


def test_a_ring_of_large_messages_does_not_deadlock() -> None:
    """Each party is blocked towards one peer while another peer is blocked towards it."""
    with channels(*NAMES) as ring:
        size = 1 << 23

        def turn(i: int) -> str:
            ring[i].send(NAMES[(i + 1) % 3], "m", Kind.BYTES, big(i, size))
            body = ring[i].recv(NAMES[(i + 2) % 3], "m", Kind.BYTES, exact=size)
            return hashlib.sha256(body).hexdigest()

        got = together(*(lambda i=i: turn(i) for i in range(3)))  # type: ignore[misc]
        assert got == [hashlib.sha256(big((i + 2) % 3, size)).hexdigest() for i in range(3)]


def test_a_blocked_receiver_keeps_the_others_going() -> None:
    """alfa's message to bravo must get out although bravo waits for the dealer, who waits for alfa."""
    with channels(*NAMES) as (a, b, d):

        def alfa() -> None:
            a.send("bravo", "m", Kind.BYTES, bytes(1 << 23))
            a.send("dealer", "go", Kind.BYTES, b"")

        def bravo() -> int:
            b.recv("dealer", "seed", Kind.BYTES, exact=1)
            return len(b.recv("alfa", "m", Kind.BYTES, exact=1 << 23))

        def dealer() -> None:
            d.recv("alfa", "go", Kind.BYTES, exact=0)
            d.send("bravo", "seed", Kind.BYTES, b"s")

        assert together(alfa, bravo, dealer) == [None, 1 << 23, None]


def test_a_full_inbox_stops_reading_and_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link_tls, "INBOX_LIMIT_BYTES", 1 << 16)
    with channels("alfa", "bravo", timeout_s=0.5) as (a, b):
        body = bytes(1 << 23)
        errors = together(lambda: a.send("bravo", "m", Kind.BYTES, body), lambda: b.send("alfa", "m", Kind.BYTES, body))
        assert any(isinstance(e, PeerLost) and "no answer within 0.5 s" in str(e) for e in errors)
        assert len(a._links["bravo"]._inbox) <= (1 << 16) + link_tls.RECORD_BYTES


def test_counters_are_exact() -> None:
    with channels(*NAMES, uncounted=frozenset({"dealer"})) as (a, b, d):
        head = HEADER.size + len("tag")
        d.send("alfa", "tag", Kind.BYTES, bytes(7))
        a.recv("dealer", "tag", Kind.BYTES, exact=7)
        assert a.rounds == 0, "the dealer's link is not counted"
        for _ in range(2):
            a.send("bravo", "tag", Kind.BYTES, bytes(10))
            a.send("dealer", "tag", Kind.BYTES, b"")
        for _ in range(2):
            b.recv("alfa", "tag", Kind.BYTES, exact=10)
            b.send("alfa", "tag", Kind.BYTES, bytes(5))
        for _ in range(2):
            a.recv("bravo", "tag", Kind.BYTES, limit=5)
        assert (a.rounds, b.rounds, d.rounds) == (1, 1, 0)
        assert a.bytes_sent == {"bravo": 2 * (head + 10), "dealer": 2 * head}
        assert a.bytes_received == {"bravo": 2 * (head + 5), "dealer": head + 7}
        assert b.bytes_received["alfa"] == a.bytes_sent["bravo"]
        assert d.bytes_sent["alfa"] == a.bytes_received["dealer"]
        a.send("bravo", "tag", Kind.BYTES, b"")
        d.send("alfa", "tag", Kind.BYTES, b"")
        a.recv("dealer", "tag", Kind.BYTES, exact=0)
        assert a.rounds == 1


def frame(
    tag: str = "sums", kind: Kind = Kind.BYTES, sender: int = 0, session: bytes = SESSION, seq: int = 0, size: int = 11
) -> bytes:
    return pack_header(kind, sender, session, seq, tag, size) + MARKER


BAD = {
    "wrong magic": (b"ACF0" + frame()[4:], "malformed frame: wrong magic"),
    "unknown kind": (frame()[:4] + b"\x09" + frame()[5:], "malformed frame: unknown kind 9"),
    "no tag": (frame()[:5] + b"\x00" + frame()[6:], "malformed frame: tag of 0 characters"),
    "another session": (frame(session=bytes(16)), "frame of another session"),
    "another sender": (frame(sender=2), "wrong sender: got index 2, expected 0"),
    "out of order": (frame(seq=3), "out of order: got sequence 3, expected 1"),
    "replayed": (frame(seq=0), "replayed: got sequence 0, expected 1"),
    "wrong tag": (frame(tag="other", seq=1), "wrong tag: got 'other', expected 'sums'"),
    "wrong kind": (frame(kind=Kind.JSON, seq=1), "wrong kind: got JSON, expected BYTES"),
    "too small": (frame(size=10, seq=1), "frame of 10 bytes, expected exactly 11"),
    "too large": (frame(size=1 << 62, seq=1), f"frame of {1 << 62} bytes, expected exactly 11"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_frame_is_one_error_that_names_the_peer(name: str) -> None:
    raw, why = BAD[name]
    with raw_peer() as (link, channel):
        link.push(memoryview(frame(seq=0)))
        assert channel.recv("alfa", "sums", Kind.BYTES, exact=11) == MARKER
        link.push(memoryview(raw))
        with pytest.raises(RemoteProtocolError) as caught:
            channel.recv("alfa", "sums", Kind.BYTES, exact=11)
        assert (caught.value.party, caught.value.why) == ("alfa", why)
        assert MARKER.decode() not in repr(caught.value)
        assert channel.bytes_received["alfa"] == len(frame())
        for use in (
            lambda: channel.recv("alfa", "next", Kind.BYTES, limit=1),
            lambda: channel.send("alfa", "next", Kind.BYTES, b""),
        ):
            with pytest.raises(RemoteProtocolError, match="alfa"):
                use()


def test_a_frame_above_the_limit_is_refused_before_it_is_allocated() -> None:
    with raw_peer() as (link, channel):
        link.push(memoryview(frame(size=1 << 33)))
        with pytest.raises(RemoteProtocolError, match=f"frame of {1 << 33} bytes is larger than the 100 allowed"):
            channel.recv("alfa", "sums", Kind.BYTES, limit=100)


@pytest.mark.parametrize("cut", [1, HEADER.size - 1, HEADER.size, HEADER.size + 2, HEADER.size + 4, len(frame()) - 1])
def test_a_truncated_frame_is_a_lost_peer(cut: int) -> None:
    with raw_peer() as (link, channel):
        link.push(memoryview(frame()[:cut]))
        link.close()
        with pytest.raises(PeerLost, match="lost alfa at step 'sums': the link closed in the middle of a frame"):
            channel.recv("alfa", "sums", Kind.BYTES, exact=11)


def test_a_frame_may_arrive_one_byte_at_a_time() -> None:
    with raw_peer() as (link, channel):

        def drip() -> None:
            for byte in frame():
                link.push(memoryview(bytes([byte])))

        assert together(drip, lambda: channel.recv("alfa", "sums", Kind.BYTES, exact=11))[1] == MARKER


def test_messages_sent_before_the_close_are_delivered() -> None:
    with channels("alfa", "bravo") as (a, b):
        a.send("bravo", "t", Kind.BYTES, bytes(1 << 16))
        a.close()
        assert len(b.recv("alfa", "t", Kind.BYTES, exact=1 << 16)) == 1 << 16
        with pytest.raises(PeerLost, match=r"lost alfa at step 't': the link closed$"):
            b.recv("alfa", "t", Kind.BYTES, exact=1)


def test_a_peer_that_dies_while_we_send_is_lost() -> None:
    with channels("alfa", "bravo") as (a, b):
        killer = threading.Timer(0.05, b._links["alfa"]._tls.shutdown, (socket.SHUT_RDWR,))
        killer.start()
        with pytest.raises(PeerLost, match="lost bravo at step 'm'"):
            a.send("bravo", "m", Kind.BYTES, bytes(1 << 26))
        killer.join()


def test_a_silent_peer_is_lost_after_the_bounded_wait() -> None:
    with raw_peer(timeout_s=0.1) as (_, channel):
        with pytest.raises(PeerLost, match=r"lost alfa at step 'sums': no answer within 0\.1 s"):
            channel.recv("alfa", "sums", Kind.BYTES, exact=11)
        assert channel.waiting_s >= 0.1
        with pytest.raises(PeerLost, match="alfa"):
            channel.send("alfa", "sums", Kind.BYTES, b"")


def test_a_peer_may_need_another_bound() -> None:
    """Another bound for one peer changes how long it is waited for and nothing else; the loss says it was silence."""
    with channels("alfa", "bravo", "dealer", timeout_s=30) as (a, *_):
        a._timeouts_s["dealer"] = 0.1
        with pytest.raises(PeerLost, match=r"lost dealer at step 'x': no answer within 0\.1 s") as lost:
            a.recv("dealer", "x", Kind.BYTES, exact=1)
        assert lost.value.silent
    links = {"bravo": a._links["bravo"]}
    patient = LinkChannel("alfa", ("alfa", "bravo"), SESSION, links, 7, patience_s={"bravo": 9.5})
    assert patient._timeouts_s == {"bravo": 9.5}


def test_a_peer_that_is_waited_for_longer_may_come_later() -> None:
    """The dealer has no data to read: it is there first, and the owner comes when it is ready."""
    near, far = socket.socketpair()

    def owner() -> dict[str, TlsLink]:
        time.sleep(0.3)
        return open_links("alfa", NAMES, {"dealer": near}, OWN["alfa"], CERTIFICATES, BOUND_S)

    def dealer() -> dict[str, TlsLink]:
        patience_s = {"alfa": BOUND_S}
        return open_links("dealer", NAMES, {"alfa": far}, OWN["dealer"], CERTIFICATES, 0.05, patience_s=patience_s)

    for links in together(owner, dealer):
        (link,) = links.values()
        link.close()


def test_a_peer_that_reads_nothing_is_lost_after_the_bounded_wait() -> None:
    with channels("alfa", "bravo", timeout_s=0.1) as (a, _), pytest.raises(PeerLost, match=r"lost bravo .* 0\.1 s"):
        a.send("bravo", "m", Kind.BYTES, bytes(1 << 26))


def test_our_own_mistakes_are_ours() -> None:
    with channels("alfa", "bravo") as (a, _):
        for call in (
            lambda: a.send("carol", "t", Kind.BYTES, b""),
            lambda: a.recv("alfa", "t", Kind.BYTES, exact=1),
            lambda: a.recv("bravo", "t", Kind.BYTES),
            lambda: a.recv("bravo", "t", Kind.BYTES, exact=1, limit=1),
            lambda: a.send("bravo", "", Kind.BYTES, b""),
            lambda: a.send("bravo", "x" * 65, Kind.BYTES, b""),
        ):
            with pytest.raises(LocalProtocolError):
                call()
    for me, session in (("carol", SESSION), ("alfa", b"short")):
        with pytest.raises(LocalProtocolError):
            LinkChannel(me, NAMES, session, {}, 1.0)


def test_a_link_refuses_to_outlive_its_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link_tls, "MAX_RECORDS", 2)
    with channels("alfa", "bravo") as (a, _):
        a.send("bravo", "t", Kind.BYTES, b"")
        a.send("bravo", "t", Kind.BYTES, b"")
        with pytest.raises(LocalProtocolError, match="the link to bravo has used up its key"):
            a.send("bravo", "t", Kind.BYTES, b"")


def test_open_links_closes_everything_when_one_peer_is_wrong() -> None:
    (ab, ba), (ad, da) = socket.socketpair(), socket.socketpair()
    impostor = credentials("bravo", "cd" * 16)
    own, theirs = together(
        lambda: open_links("alfa", NAMES, {"dealer": ad, "bravo": ba}, OWN["alfa"], CERTIFICATES, BOUND_S),
        lambda: tls(ab, "bravo", "alfa", credentials=impostor),
    )
    assert isinstance(own, RemoteProtocolError)
    assert own.party == "bravo"
    assert isinstance(theirs, RemoteProtocolError)
    da.settimeout(5)
    assert da.recv(1) == b"", "the socket that was not used yet is closed too"
    da.close()


@given(st.binary(min_size=HEADER.size, max_size=HEADER.size))
def test_parse_header_never_crashes(raw: bytes) -> None:
    for variant in (raw, MAGIC + raw[4:], MAGIC + b"\x01\x04" + raw[6:]):
        with contextlib.suppress(RemoteProtocolError):
            assert 1 <= parse_header(variant, "bravo").tag_len <= 64


@given(st.sampled_from(Kind), st.integers(0, 65535), st.binary(min_size=16, max_size=16), st.integers(0, 2**64 - 1))
def test_a_header_survives_the_round_trip(kind: Kind, sender: int, session: bytes, seq: int) -> None:
    raw = pack_header(kind, sender, session, seq, "some/tag", 5)
    assert parse_header(raw[: HEADER.size], "bravo") == Header(kind, sender, session, seq, 8, 5)


def test_sequence_numbers_count_per_direction() -> None:
    with channels("alfa", "bravo") as (a, b):
        for here, there in pairwise((a, b, a, b)):
            names = {id(a): "alfa", id(b): "bravo"}
            here.send(names[id(there)], "t", Kind.BYTES, b"x")
            assert there.recv(names[id(here)], "t", Kind.BYTES, exact=1) == b"x"
