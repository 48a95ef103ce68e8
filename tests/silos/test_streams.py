"""Streams between workers: direct or relayed, the same bytes; both ends agree which; late peers are named."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import socket
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from mpc.errors import LocalProtocolError, PeerLost
from mpc.wire import Kind
from silos import direct, pump, streams
from silos.direct import ACCEPT, GO, PREAMBLE, DirectListener, Greeting
from silos.links import LinkChannel, open_links
from silos.streams import StreamPlan, Streams, connect_streams
from tests.silos.link_pairs import CERTIFICATES, OWN
from tests.silos.tiny_relay import Caller, TinyRelay, tiny_relay

NAMES = ("alfa", "bravo", "dealer")
TOKENS = {name: bytes([i]) * 16 for i, name in enumerate(NAMES, 1)}
PLAN = StreamPlan("ab" * 16, bytes(range(16)), "alfa", NAMES[:2], {}, TOKENS, timeout_s=30.0)


class World:
    """A relay, a way to connect any of the silos, and everything closed at the end."""

    def __init__(self, relay: TinyRelay, session: Any) -> None:
        self.relay, self.session = relay, session
        self.listeners: list[DirectListener] = []
        self.streams: list[Streams] = []

    async def listen(self) -> tuple[DirectListener, str]:
        listener = DirectListener()
        host, port = await listener.start("127.0.0.1", 0)
        self.listeners.append(listener)
        return listener, f"{host}:{port}"

    async def connect(self, plan: StreamPlan, me: str, listener: DirectListener | None = None) -> Streams:
        made = await connect_streams(replace(plan, me=me), Caller(self.session, self.relay, me), listener)
        self.streams.append(made)
        return made


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with tiny_relay() as (relay, session):
        world = World(relay, session)
        yield world
        for made in world.streams:
            await made.close()
        for listener in world.listeners:
            await listener.close()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(direct, "GREETING_TIMEOUT_S", 0.5)
    monkeypatch.setattr(streams, "HEAD_START_S", 0.2)
    monkeypatch.setattr(streams, "RETRY_S", 0.02)


@pytest.fixture
def patient(quick: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the direct path must win, however slow the machine is; nothing waits that long."""
    monkeypatch.setattr(direct, "GREETING_TIMEOUT_S", 30.0)
    monkeypatch.setattr(streams, "HEAD_START_S", 30.0)


def exchange(near: socket.socket, far: socket.socket) -> None:
    """Bytes go both ways over blocking sockets."""
    for one, two in ((near, far), (far, near)):
        assert one.getblocking()
        one.sendall(b"ping")
        two.settimeout(60)
        assert two.recv(4) == b"ping"
        two.setblocking(True)


async def check(a: Streams, b: Streams, how: str) -> None:
    assert a.how == {"bravo": how}
    assert b.how == {"alfa": how}
    await asyncio.to_thread(exchange, a.sockets["bravo"], b.sockets["alfa"])


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("acceptor", ["alfa", "bravo"])
async def test_direct_when_one_end_advertises(world: World, acceptor: str) -> None:
    listener, endpoint = await world.listen()
    plan = replace(PLAN, endpoints={acceptor: endpoint, "dealer": ""})
    a, b = await asyncio.gather(*(world.connect(plan, me, listener if me == acceptor else None) for me in NAMES[:2]))
    await check(a, b, "direct")
    assert world.relay.opened == 0


@pytest.mark.usefixtures("patient")
async def test_the_first_named_accepts_when_both_advertise(world: World) -> None:
    listener, endpoint = await world.listen()
    plan = replace(PLAN, endpoints={"alfa": endpoint, "bravo": "192.0.2.1:9"})
    a, b = await asyncio.gather(world.connect(plan, "alfa", listener), world.connect(plan, "bravo"))
    await check(a, b, "direct")


@pytest.mark.usefixtures("patient")
async def test_three_participants_share_one_listener_per_node(world: World) -> None:
    listeners, endpoints = {}, {}
    for name in NAMES:
        listeners[name], endpoints[name] = await world.listen()
    plan = replace(PLAN, participants=NAMES, endpoints=endpoints)
    made = await asyncio.gather(*(world.connect(plan, me, listeners[me]) for me in NAMES))
    by_name = dict(zip(NAMES, made, strict=True))
    for p, q in (("alfa", "bravo"), ("alfa", "dealer"), ("bravo", "dealer")):
        await asyncio.to_thread(exchange, by_name[p].sockets[q], by_name[q].sockets[p])
    assert {how for s in made for how in s.how.values()} == {"direct"}


@pytest.mark.usefixtures("patient")
async def test_a_dialler_that_comes_before_its_acceptor_tries_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    listener, endpoint = await world.listen()
    plan = replace(PLAN, endpoints={"alfa": endpoint})
    turned_away = asyncio.Event()
    greet = listener._greet

    async def watched(sock: socket.socket) -> None:
        await greet(sock)
        turned_away.set()

    monkeypatch.setattr(listener, "_greet", watched)
    dialling = asyncio.create_task(world.connect(plan, "bravo"))
    await turned_away.wait()
    a, b = await asyncio.gather(world.connect(plan, "alfa", listener), dialling)
    await check(a, b, "direct")


GOOD = replace(PLAN, endpoints={"alfa": "x:1"}).greeting("bravo")
STRANGERS = {
    "garbage": b"GET / HTTP/1.1\r\nHost: silo.example\r\n\r\n\r\n\r\n",
    "wrong magic": b"ACL0" + GOOD.pack()[4:],
    "another session": replace(GOOD, session=bytes(16)).pack(),
    "wrong token": replace(GOOD, token=TOKENS["bravo"]).pack(),
    "another sender": replace(GOOD, sender=2).pack(),
    "another receiver": replace(GOOD, receiver=2).pack(),
    "half a preamble": GOOD.pack()[:20],
    "nothing": b"",
}


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("name", STRANGERS)
async def test_a_stranger_is_dropped_and_the_right_peer_still_comes(world: World, name: str) -> None:
    listener, endpoint = await world.listen()
    plan = replace(PLAN, endpoints={"alfa": endpoint})
    accepting = asyncio.create_task(world.connect(plan, "alfa", listener))
    await asyncio.sleep(0)
    reader, writer = await asyncio.open_connection(*endpoint.split(":"))
    writer.write(STRANGERS[name])
    if len(STRANGERS[name]) < PREAMBLE.size:
        writer.write_eof()
    with contextlib.suppress(ConnectionResetError):  # what is left unread when the socket closes
        assert await reader.read() == b"", "closed without a word"
    writer.close()
    a, b = await asyncio.gather(accepting, world.connect(plan, "bravo"))
    await check(a, b, "direct")


async def test_a_stranger_that_says_nothing_is_cut_off(world: World) -> None:
    _, endpoint = await world.listen()
    reader, writer = await asyncio.open_connection(*endpoint.split(":"))
    assert await reader.read() == b""
    writer.close()


@pytest.mark.parametrize("instead_of_go", [b"", b"NOGO"])
async def test_a_dialler_that_gives_up_before_go_leaves_the_relay_open(world: World, instead_of_go: bytes) -> None:
    """It had our ACCEPT, but too late for its patience: both ends must end on the relay."""
    listener, endpoint = await world.listen()
    plan = replace(PLAN, endpoints={"alfa": endpoint})
    accepting = asyncio.create_task(world.connect(plan, "alfa", listener))
    await asyncio.sleep(0)
    reader, writer = await asyncio.open_connection(*endpoint.split(":"))
    writer.write(replace(plan, me="bravo").greeting("alfa").pack())
    assert await reader.readexactly(len(ACCEPT)) == ACCEPT
    writer.write(instead_of_go)
    writer.close()
    a, b = await asyncio.gather(accepting, world.connect(replace(plan, endpoints={"alfa": "127.0.0.1:1"}), "bravo"))
    await check(a, b, "relay")


@pytest.mark.parametrize("endpoint", ["127.0.0.1:1", "no-such-host.invalid:70", "nonsense", "host:0", ":7", "[::1]:1"])
async def test_an_endpoint_that_cannot_be_reached_means_the_relay(world: World, endpoint: str) -> None:
    listener, _ = await world.listen()
    plan = replace(PLAN, endpoints={"alfa": endpoint})
    a, b = await asyncio.gather(world.connect(plan, "alfa", listener), world.connect(plan, "bravo"))
    await check(a, b, "relay")


async def test_an_endpoint_that_accepts_and_stays_silent_means_the_relay(world: World) -> None:
    held: list[asyncio.StreamWriter] = []
    server = await asyncio.start_server(lambda _, writer: held.append(writer), "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    listener, _ = await world.listen()
    plan = replace(PLAN, endpoints={"alfa": f"{host}:{port}"})
    a, b = await asyncio.gather(world.connect(plan, "alfa", listener), world.connect(plan, "bravo"))
    await check(a, b, "relay")
    for writer in held:
        writer.close()
    server.close()


async def test_the_spec_can_force_the_relay(world: World) -> None:
    listener, endpoint = await world.listen()
    plan = replace(PLAN, endpoints={"alfa": endpoint, "bravo": endpoint}, links="relay")
    a, b = await asyncio.gather(world.connect(plan, "alfa", listener), world.connect(plan, "bravo"))
    await check(a, b, "relay")


async def test_nobody_advertises(world: World) -> None:
    a, b = await asyncio.gather(world.connect(PLAN, "alfa"), world.connect(PLAN, "bravo"))
    await check(a, b, "relay")


async def test_a_relay_that_hangs_up_on_an_early_caller_is_asked_again(world: World) -> None:
    world.relay.hang_up_first = 3
    a, b = await asyncio.gather(world.connect(PLAN, "alfa"), world.connect(PLAN, "bravo"))
    await check(a, b, "relay")


async def test_a_wrong_greeting_on_the_relay_is_not_a_stream(world: World) -> None:
    stranger = replace(PLAN, tokens=TOKENS | {"alfa": bytes(16)}, timeout_s=0.4)
    outcomes = await asyncio.gather(
        world.connect(replace(PLAN, timeout_s=0.4), "alfa"), world.connect(stranger, "bravo"), return_exceptions=True
    )
    assert [type(outcome) for outcome in outcomes] == [PeerLost, PeerLost]


@pytest.mark.parametrize("me", ["alfa", "bravo"])
@pytest.mark.parametrize("endpoints", [{}, {"alfa": "127.0.0.1:1"}])
async def test_a_peer_that_never_comes_is_lost(world: World, me: str, endpoints: dict[str, str]) -> None:
    listener, _ = await world.listen()
    peer = {"alfa": "bravo", "bravo": "alfa"}[me]
    before = len(os.listdir("/proc/self/fd"))
    plan = replace(PLAN, endpoints=endpoints, timeout_s=0.8)
    with pytest.raises(PeerLost, match=rf"lost {peer} at step 'link': no connection within 0\.8 s"):
        await world.connect(plan, me, listener)
    assert not listener._expected
    await world.session.close()
    assert len(os.listdir("/proc/self/fd")) <= before + 2, "only the relay's own half may linger"


async def test_one_missing_peer_closes_the_others(world: World) -> None:
    plan = replace(PLAN, participants=NAMES, timeout_s=3.0)  # enough for alfa and bravo to find each other
    outcomes = await asyncio.gather(world.connect(plan, "alfa"), world.connect(plan, "bravo"), return_exceptions=True)
    for outcome in outcomes:
        assert isinstance(outcome, PeerLost)
        assert outcome.party == "dealer"


async def test_a_relay_that_refuses_is_in_the_sentence(world: World) -> None:
    world.relay.refuse_with = 403
    with pytest.raises(
        PeerLost, match=r"lost bravo at step 'link': no connection .*the relay cannot be used: status 403"
    ):
        await world.connect(replace(PLAN, timeout_s=2.0), "alfa")


async def test_a_large_transfer_through_the_pump_with_a_slow_reader(world: World) -> None:
    """48 MiB; the reader starts late, and what is in flight stays far below what is sent."""
    a, b = await asyncio.gather(world.connect(PLAN, "alfa"), world.connect(PLAN, "bravo"))
    near, far = a.sockets["bravo"], b.sockets["alfa"]
    block, n_blocks = os.urandom(1 << 20), 48
    sent = in_flight = 0

    def send() -> None:
        nonlocal sent
        for _ in range(n_blocks):
            near.sendall(block)
            sent += len(block)
        near.shutdown(socket.SHUT_WR)

    def read() -> str:
        nonlocal in_flight
        digest, got = hashlib.sha256(), 0
        while data := far.recv(1 << 17):
            got += len(data)
            digest.update(data)
            in_flight = max(in_flight, sent - got)
        return digest.hexdigest()

    sending = asyncio.create_task(asyncio.to_thread(send))
    before = -1
    while sent != before:  # nobody reads: the sender comes to a stop by itself, long before the end
        before = sent
        await asyncio.sleep(0.3)
    assert sent < (n_blocks << 20) // 2
    got, _ = await asyncio.gather(asyncio.to_thread(read), sending)
    assert got == hashlib.sha256(block * n_blocks).hexdigest()
    assert in_flight < (n_blocks << 20) // 2
    assert world.relay.largest <= pump.CHUNK_BYTES + 9


async def test_the_end_of_one_worker_is_the_end_of_the_stream_for_the_other(world: World) -> None:
    a, b = await asyncio.gather(world.connect(PLAN, "alfa"), world.connect(PLAN, "bravo"))
    near, far = a.sockets["bravo"], b.sockets["alfa"]
    await asyncio.to_thread(near.sendall, b"last words")
    a.handed_over()
    far.settimeout(5)
    assert await asyncio.to_thread(far.recv, 100) == b"last words"
    assert await asyncio.to_thread(far.recv, 100) == b""


@pytest.mark.parametrize("how", ["direct", "relay"])
async def test_workers_get_the_same_channel_on_either_path_and_the_relay_reads_nothing(world: World, how: str) -> None:
    listener, endpoint = await world.listen()
    plan = replace(PLAN, endpoints={"alfa": endpoint}, links="relay" if how == "relay" else "auto")
    a, b = await asyncio.gather(world.connect(plan, "alfa", listener), world.connect(plan, "bravo"))
    assert a.how == {"bravo": how}
    marker = b"MARKER-5be1" * 200_000

    def worker(me: str, peer: str, sockets: dict[str, socket.socket]) -> tuple[bytes, dict[str, int]]:
        links = open_links(me, plan.participants, sockets, OWN[me], CERTIFICATES, 10.0)
        channel = LinkChannel(me, plan.participants, plan.session, links, 10.0)
        channel.send(peer, "m", Kind.BYTES, marker)
        got = channel.recv(peer, "m", Kind.BYTES, exact=len(marker))
        channel.close()
        return bytes(got), channel.bytes_sent

    ours, theirs = await asyncio.gather(
        asyncio.to_thread(worker, "alfa", "bravo", a.sockets), asyncio.to_thread(worker, "bravo", "alfa", b.sockets)
    )
    assert ours == (marker, {"bravo": len(marker) + 41})
    assert theirs == (marker, {"alfa": len(marker) + 41})
    assert b"MARKER" not in world.relay.seen
    assert b"alfa" not in world.relay.seen, "not even the certificates travel in the clear"
    assert (len(world.relay.seen) > 2 * len(marker)) == (how == "relay")


ECHO = """
import socket, sys
sock = socket.socket(fileno=int(sys.argv[1]))
sock.sendall(sock.recv(100).upper())
"""


@pytest.mark.parametrize("how", ["direct", "relay"])
async def test_a_process_takes_the_stream_over_and_its_end_is_the_end(world: World, how: str) -> None:
    listener, endpoint = await world.listen()
    plan = replace(PLAN, endpoints={"alfa": endpoint}, links="relay" if how == "relay" else "auto")
    a, b = await asyncio.gather(world.connect(plan, "alfa", listener), world.connect(plan, "bravo"))
    fd = a.sockets["bravo"].fileno()
    worker = await asyncio.create_subprocess_exec(sys.executable, "-c", ECHO, str(fd), pass_fds=[fd])
    a.handed_over()
    far = b.sockets["alfa"]
    far.settimeout(60)
    await asyncio.to_thread(far.sendall, b"hello")
    assert await asyncio.to_thread(far.recv, 100) == b"HELLO"
    assert await asyncio.to_thread(far.recv, 100) == b""
    assert await worker.wait() == 0


async def test_a_listener_that_closes_cancels_who_waits(world: World) -> None:
    listener, _ = await world.listen()
    future = listener.expect(GOOD)
    with pytest.raises(LocalProtocolError, match="already expected"):
        listener.expect(GOOD)
    await listener.close()
    assert future.cancelled()


def test_a_greeting_is_forty_bytes_and_hides_its_token() -> None:
    greeting = Greeting(bytes(range(16)), b"T" * 16, 1, 0)
    assert greeting.pack() == b"ACL1" + bytes(range(16)) + b"T" * 16 + b"\x00\x01\x00\x00"
    assert "TTTT" not in repr(greeting)
    assert "\\x01\\x01" not in repr(PLAN)
    assert not greeting.matches(greeting.pack() + b"\0")
    assert len({len(ACCEPT), len(GO)}) == 1


@pytest.mark.parametrize(
    "changed",
    [{"me": "carol"}, {"session": b"short"}, {"tokens": {}}, {"participants": ("alfa", "alfa")}],
)
def test_a_plan_that_cannot_work_is_refused(changed: dict[str, Any]) -> None:
    with pytest.raises(LocalProtocolError):
        replace(PLAN, **changed)
