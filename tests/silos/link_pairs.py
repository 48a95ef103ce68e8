"""Two parties on real sockets: credentials, connected pairs, and a way to run both ends at once."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from silos.links import LinkChannel, LinkCredentials, TlsLink, make_link_credentials, open_links

NOW = datetime.now(UTC)
SESSION = bytes(range(16))
BOUND_S = 30.0
"""How long what should come may take, a handshake for one: long, because a busy machine may be slow."""
NAMES = ("alfa", "bravo", "dealer")


def credentials(silo: str, job: str = "ab" * 16) -> LinkCredentials:
    return make_link_credentials(silo, job, NOW + timedelta(hours=1), NOW)


OWN = {name: credentials(name) for name in NAMES}
CERTIFICATES = {name: own.certificate_der for name, own in OWN.items()}


def together(*calls: Callable[[], Any]) -> list[Any]:
    """Run the calls in threads; the result or the exception of each, in order."""
    with ThreadPoolExecutor(len(calls)) as pool:
        futures = [pool.submit(call) for call in calls]
    return [future.exception() or future.result() for future in futures]


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        near = socket.create_connection(server.getsockname())
        far, _ = server.accept()
    return near, far


def tls(sock: socket.socket, me: str, peer: str, **changed: Any) -> TlsLink:
    options: dict[str, Any] = {
        "server": NAMES.index(me) < NAMES.index(peer),
        "credentials": OWN[me],
        "peer": peer,
        "peer_certificate_der": CERTIFICATES[peer],
        "timeout_s": BOUND_S,
    }
    return TlsLink(sock, **(options | changed))


def mesh(
    names: Sequence[str], timeout_s: float = BOUND_S, uncounted: frozenset[str] = frozenset(), told: Any = None
) -> dict[str, LinkChannel]:
    """One channel per participant, every pair connected.  timeout_s: of the channels, not of the handshakes."""
    sockets: dict[str, dict[str, socket.socket]] = {name: {} for name in names}
    for i, p in enumerate(names):
        for q in names[i + 1 :]:
            sockets[p][q], sockets[q][p] = socket.socketpair()

    def join(me: str) -> LinkChannel:
        links = open_links(me, names, sockets[me], OWN[me], CERTIFICATES, BOUND_S)
        return LinkChannel(me, names, SESSION, links, timeout_s, uncounted=uncounted - {me}, told=told)

    channels = together(*(lambda name=name: join(name) for name in names))  # type: ignore[misc]
    return dict(zip(names, channels, strict=True))


@contextmanager
def channels(*names: str, **options: Any) -> Iterator[list[LinkChannel]]:
    made = mesh(names, **options)
    try:
        yield list(made.values())
    finally:
        for channel in made.values():
            channel.close()


@contextmanager
def raw_peer(timeout_s: float = BOUND_S) -> Iterator[tuple[TlsLink, LinkChannel]]:
    """A bare TLS link at "alfa", to write any bytes with, and a channel at "bravo" that reads them."""
    near, far = socket.socketpair()
    link, other = together(lambda: tls(near, "alfa", "bravo"), lambda: tls(far, "bravo", "alfa"))
    channel = LinkChannel("bravo", NAMES, SESSION, {"alfa": other}, timeout_s)
    try:
        yield link, channel
    finally:
        link.close()
        channel.close()
