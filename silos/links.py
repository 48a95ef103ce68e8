"""The channel a worker hands to protocols: frames of `mpc.wire` over one TLS link per peer, in one thread.

Sockets never block; waiting happens in one place, `LinkChannel._wait`.  While an operation waits for its own link it
keeps reading that link, and after PATIENCE_S all the others, so parties that all send large messages to each other at
once, in pairs or in a ring, always make progress (up to link_tls.INBOX_LIMIT_BYTES per link).
"""

from __future__ import annotations

import contextlib
import hmac
import math
import os
import select
import socket
import time
from collections.abc import Collection, Mapping, Sequence

from mpc.errors import LocalProtocolError, PeerLost, RemoteProtocolError
from mpc.wire import HEADER, MAX_BODY_BYTES, Header, Kind, pack_header, parse_header
from silos.link_tls import End, LinkCredentials, TlsLink, make_link_credentials

__all__ = ["LinkChannel", "LinkCredentials", "TlsLink", "make_link_credentials", "open_links"]

SLICE_BYTES = 1 << 20
# Header, tag and this much of the body leave in one write; beyond it the copy costs more than a second call.
JOINED_BYTES = 1 << 16
# How long an operation looks at its own link only: reading the others early would hold their data in memory for nothing.
PATIENCE_S = 0.002
# How long a receiver asks again, giving way to whoever else wants the processor, before it sleeps.  Waking a sleeping
# core costs more than a small message's whole journey on a local network, and rounds are what protocols wait for.
AWAKE_S = 50e-6


class LinkChannel:
    """`mpc.channel.Channel` over TLS links to named peers.

    bytes_sent, bytes_received: frame bytes (header, tag, body) per peer.  rounds: receives that came after at least
    one send since the round before; links to peers in `uncounted` (the dealer) count bytes but no rounds.
    waiting_s: seconds spent waiting for a peer.  patience_s: seconds to wait for those peers that need another bound
    than `timeout_s`.  told: for each peer the tags that may be sent to it, if not all.  After an error on a link every further
    use of it raises too.
    """

    def __init__(
        self,
        me: str,
        participants: Sequence[str],
        session: bytes,
        links: Mapping[str, TlsLink],
        timeout_s: float,
        *,
        uncounted: frozenset[str] | set[str] = frozenset(),
        patience_s: Mapping[str, float] | None = None,
        told: Mapping[str, Collection[str]] | None = None,
    ) -> None:
        self._index = {name: i for i, name in enumerate(participants)}
        if me not in self._index or len(self._index) != len(participants):
            raise LocalProtocolError(f"'{me}' is not one of the participants, or one is named twice")
        if len(session) != 16 or not set(links) <= set(self._index) - {me}:
            raise LocalProtocolError("a channel needs a session id of 16 bytes and links to other participants only")
        self._me, self._session = me, session
        self._timeouts_s = {**dict.fromkeys(links, timeout_s), **(patience_s or {})}
        self._links, self._told = dict(links), told
        self._by_fd = {link.fileno(): link for link in links.values()}
        self._next_out = dict.fromkeys(links, 0)
        self._next_in = dict.fromkeys(links, 0)
        self._uncounted = frozenset(uncounted)
        self._sent_since_round = False
        self._wide = False
        self.bytes_sent = dict.fromkeys(links, 0)
        self.bytes_received = dict.fromkeys(links, 0)
        self.rounds = 0
        self.waiting_s = 0.0

    def send(self, to: str, tag: str, kind: Kind, body: bytes | bytearray | memoryview) -> None:
        """Deliver one message; returns when the operating system has all of it, so `body` may be reused.

        Raises: PeerLost if `to` takes nothing for `timeout_s` or is gone; LocalProtocolError if there is no such link, or `to`
            may not be told this.
        """
        link = self._link(to)
        if self._told is not None and tag not in self._told.get(to, ()):
            raise LocalProtocolError(f"the job's disclosure has no message '{tag}' to {to}")
        view = memoryview(body).cast("B")
        if view.nbytes > MAX_BODY_BYTES:
            raise LocalProtocolError(f"a frame holds at most {MAX_BODY_BYTES} bytes, '{tag}' has {view.nbytes}")
        head = pack_header(kind, self._index[self._me], self._session, self._next_out[to], tag, view.nbytes)
        self._wide = False
        self._write(link, memoryview(head + view[:JOINED_BYTES]), tag)
        for start in range(JOINED_BYTES, view.nbytes, SLICE_BYTES):
            self._write(link, view[start : start + SLICE_BYTES], tag)
        self._next_out[to] += 1
        self.bytes_sent[to] += len(head) + view.nbytes
        if to not in self._uncounted:
            self._sent_since_round = True

    def recv(self, frm: str, tag: str, kind: Kind, *, exact: int | None = None, limit: int | None = None) -> bytearray:
        """Return the body of the next message from `frm`, once its header has been checked field by field.

        Raises: RemoteProtocolError naming `frm` and what is wrong; PeerLost if it is gone or silent for `timeout_s`.
        """
        link = self._link(frm)
        if (exact is None) == (limit is None):
            raise LocalProtocolError(f"'{tag}' must be received with an exact size or a limit, and not both")
        self._wide = False
        try:
            header = self._read_header(link, tag)
            _check_kind_and_size(header, frm, tag, kind, exact, limit)
        except RemoteProtocolError as exc:
            link.end = End(True, exc.why)
            raise
        body = bytearray(header.body_len)
        self._read(link, memoryview(body), tag, started=True)
        self._next_in[frm] += 1
        self.bytes_received[frm] += HEADER.size + header.tag_len + header.body_len
        if frm not in self._uncounted and self._sent_since_round:
            self.rounds += 1
            self._sent_since_round = False
        return body

    def close(self) -> None:
        """Close every link."""
        for link in self._links.values():
            link.close()

    def _link(self, peer: str) -> TlsLink:
        link = self._links.get(peer)
        if link is None:
            raise LocalProtocolError(f"'{self._me}' has no link to '{peer}'")
        return link

    def _read_header(self, link: TlsLink, tag: str) -> Header:
        raw = bytearray(HEADER.size)
        self._read(link, memoryview(raw), tag, started=False)
        header = parse_header(bytes(raw), link.peer)
        # The link is already bound to this job and peer; these turn a desynchronised or hostile peer into one sentence.
        if not hmac.compare_digest(header.session, self._session):
            raise RemoteProtocolError(link.peer, tag, "frame of another session")
        if header.sender != self._index[link.peer]:
            raise RemoteProtocolError(
                link.peer, tag, f"wrong sender: got index {header.sender}, expected {self._index[link.peer]}"
            )
        expected = self._next_in[link.peer]
        if header.seq != expected:
            how = "replayed" if header.seq < expected else "out of order"
            raise RemoteProtocolError(link.peer, tag, f"{how}: got sequence {header.seq}, expected {expected}")
        raw_tag = bytearray(header.tag_len)
        self._read(link, memoryview(raw_tag), tag, started=True)
        if raw_tag != tag.encode("ascii"):
            got = raw_tag.decode("ascii", "backslashreplace")
            raise RemoteProtocolError(link.peer, tag, f"wrong tag: got '{got}', expected '{tag}'")
        return header

    def _write(self, link: TlsLink, chunk: memoryview, tag: str) -> None:
        while chunk:
            sent = link.push(chunk)
            if sent:
                chunk = chunk[sent:]
            elif link.end is not None:
                raise link.end.error(link.peer, tag)
            else:
                self._wait(link, select.POLLOUT, tag)

    def _read(self, link: TlsLink, view: memoryview, tag: str, *, started: bool) -> None:
        """Fill `view`; `started` says that part of the frame is already here, which makes an end a truncation."""
        got = 0
        while got < len(view):
            n = link.take(view[got:])
            if n:
                got += n
            elif link.end is None:
                self._wait(link, select.POLLIN, tag)
            elif (started or got) and not link.end.broken:
                raise PeerLost(link.peer, tag, f"{link.end.why} in the middle of a frame")
            else:
                raise link.end.error(link.peer, tag)

    def _wait(self, link: TlsLink, wanted: int, tag: str) -> None:
        """Return when `link` may be ready for `wanted`; keep every peer's bytes flowing meanwhile.

        A frame half sent cannot be taken back, so a wait that runs out ends the link.
        """
        began = time.monotonic()
        timeout_s = self._timeouts_s[link.peer]
        deadline = began + timeout_s
        try:
            while (now := time.monotonic()) < deadline:
                self._wide |= now - began >= PATIENCE_S
                if wanted == select.POLLIN and now - began < AWAKE_S:
                    if self._poll(link, wanted, 0):
                        return
                    os.sched_yield()
                elif self._poll(link, wanted, deadline - now if self._wide else min(deadline - now, PATIENCE_S)):
                    return
            link.end = late = End(False, f"no answer within {timeout_s:g} s", silent=True)
            raise late.error(link.peer, tag)
        finally:
            self.waiting_s += time.monotonic() - began

    def _poll(self, link: TlsLink, wanted: int, wait_s: float) -> bool:
        """Wait once, set aside what arrives, and say whether `link` should be tried again."""
        poller = select.poll()
        sending = wanted == select.POLLOUT
        poller.register(link, wanted | select.POLLIN if link.wants_data else wanted)
        if self._wide:
            for other in self._links.values():
                if other is not link and other.wants_data:
                    poller.register(other, select.POLLIN)
        ready = dict(poller.poll(math.ceil(wait_s * 1000)))
        mine = ready.pop(link.fileno(), 0)
        for fd in ready:
            self._by_fd[fd].fill()
        if not sending:
            return mine != 0
        if mine & select.POLLIN:
            link.fill()
        return bool(mine & ~select.POLLIN) or link.end is not None


def open_links(
    me: str,
    participants: Sequence[str],
    sockets: Mapping[str, socket.socket],
    credentials: LinkCredentials,
    certificates: Mapping[str, bytes],
    timeout_s: float,
    *,
    patience_s: Mapping[str, float] | None = None,
) -> dict[str, TlsLink]:
    """Do the TLS handshake with every peer; of each pair the one named first in `participants` is the TLS server.

    Each party goes through its peers in the order of `participants`.  Nobody waits in a circle: take the first pair
    (p, q), in that order, that is not done; all pairs p and q have to do before it come earlier, so both are at it.
    timeout_s, patience_s: as for LinkChannel; a peer comes when it has read its data and met those before us.

    Raises: what TlsLink raises, after closing everything, including the sockets not yet used.
    """
    place = {name: i for i, name in enumerate(participants)}
    links: dict[str, TlsLink] = {}
    with contextlib.ExitStack() as opened:
        for sock in sockets.values():
            opened.enter_context(sock)  # until a link takes it over, which leaves nothing here to close
        for peer in sorted(sockets, key=lambda name: place[name]):
            links[peer] = TlsLink(
                sockets[peer],
                server=place[me] < place[peer],
                credentials=credentials,
                peer=peer,
                peer_certificate_der=certificates[peer],
                timeout_s=(patience_s or {}).get(peer, timeout_s),
            )
            opened.callback(links[peer].close)
        opened.pop_all()
    return links


def _check_kind_and_size(header: Header, peer: str, tag: str, kind: Kind, exact: int | None, limit: int | None) -> None:
    """Refuse another type or size than agreed, before a byte is allocated for the body."""
    if header.kind is not kind:
        raise RemoteProtocolError(peer, tag, f"wrong kind: got {header.kind.name}, expected {kind.name}")
    size = header.body_len
    if exact is not None and size != exact:
        raise RemoteProtocolError(peer, tag, f"frame of {size} bytes, expected exactly {exact}")
    allowed = MAX_BODY_BYTES if limit is None else min(limit, MAX_BODY_BYTES)
    if size > allowed:
        raise RemoteProtocolError(peer, tag, f"frame of {size} bytes is larger than the {allowed} allowed")
