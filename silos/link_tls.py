"""One TLS 1.3 connection to one peer, pinned to the certificate in that peer's consent.

The bytes below may be a TCP connection or a socket pair whose other end is pumped through the coordinator's relay;
nothing here can tell.  Trust has one source: the certificate the peer put into the consent it signed.  No authority
can vouch for another one, so whoever carries the bytes can only cut the link.
"""

from __future__ import annotations

import contextlib
import hmac
import os
import select
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TypeVar

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from mpc.errors import LocalProtocolError, PeerLost, RemoteProtocolError

T = TypeVar("T")

RECORD_BYTES = 1 << 14
CLOCK_SKEW = timedelta(minutes=5)
# What a blocked sender will hold of the peer's own data before it stops reading; see TlsLink.fill.
INBOX_LIMIT_BYTES = 1 << 30
# RFC 8446 §5.5: AES-GCM is good for 2^24.5 full records under one key, and `ssl` cannot ask for a key update.
MAX_RECORDS = 1 << 24
_FILL_BYTES = 1 << 20
_READY = b"\x01"


@dataclass(frozen=True)
class LinkCredentials:
    """A key made for one job and its self-signed certificate; only the certificate leaves the silo."""

    key_pem: bytes = field(repr=False)
    certificate_der: bytes = field(repr=False)


def make_link_credentials(silo: str, job: str, valid_until: datetime, now: datetime) -> LinkCredentials:
    """Make a fresh P-256 key and a self-signed certificate for the links of one job.

    Raises: LocalProtocolError if the certificate would be over before it begins.
    """
    if valid_until <= now:
        raise LocalProtocolError(f"job {job} is over at {valid_until.isoformat()}: no link key is made for it")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, silo)])
    usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
    uri = x509.UniformResourceIdentifier(f"spiffe://accord/silo/{silo}/job/{job}")
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(valid_until)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([uri]), critical=False)
        .add_extension(usage, critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return LinkCredentials(pem, certificate.public_bytes(Encoding.DER))


@dataclass(frozen=True)
class End:
    """Why a link can no longer be used: the peer broke the rules, is silent, or is just gone."""

    broken: bool
    why: str
    silent: bool = False

    def error(self, peer: str, step: str) -> PeerLost | RemoteProtocolError:
        """The exception that tells the story at `step`."""
        if self.broken:
            return RemoteProtocolError(peer, step, self.why)
        return PeerLost(peer, step, self.why, silent=self.silent)


CLOSED = End(False, "the link closed")


class TlsLink:
    """A mutually authenticated TLS 1.3 stream whose reads and writes never block; the caller waits.

    The constructor takes the connected stream socket over, and returns only when *both* ends have accepted the other's
    certificate: a TLS 1.3 client finishes its handshake before the server has judged it, so the server says so in one
    byte.  `end` is None while the link is good.

    Raises: RemoteProtocolError(peer, "link", ...) for a wrong certificate or anything that is not TLS 1.3;
        PeerLost(peer, "link", ...) if the peer closes or is silent for `timeout_s`.
    """

    def __init__(
        self,
        sock: socket.socket,
        *,
        server: bool,
        credentials: LinkCredentials,
        peer: str,
        peer_certificate_der: bytes,
        timeout_s: float,
    ) -> None:
        self.peer = peer
        self.end: End | None = None
        self._inbox = bytearray()
        self._stage = memoryview(bytearray(RECORD_BYTES))
        self._records = 0
        with contextlib.ExitStack() as opened:
            opened.enter_context(sock)
            context = _context(server, credentials, peer, peer_certificate_der)
            _tune(sock)
            sock.setblocking(False)
            # From here on the connection is the wrapper's; `sock` holds nothing any more.
            wrapped = context.wrap_socket(sock, server_side=server, do_handshake_on_connect=False)
            self._tls = opened.enter_context(wrapped)
            self._shake_hands(server, peer_certificate_der, timeout_s)
            opened.pop_all()

    def _shake_hands(self, server: bool, peer_certificate_der: bytes, timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        try:
            _bounded(self._tls.do_handshake, self._tls, deadline)
            shown = self._tls.getpeercert(binary_form=True) or b""
            # The trust store would also take a certificate *signed by* the pinned one; the consent names exactly one.
            if not hmac.compare_digest(shown, peer_certificate_der):
                raise RemoteProtocolError(self.peer, "link", "its certificate is not the one in its consent")
            ready = bytearray(1)
            move = (lambda: self._tls.send(_READY)) if server else (lambda: self._tls.recv_into(ready))
            if not _bounded(move, self._tls, deadline):
                raise PeerLost(self.peer, "link", "the link closed during the handshake")
            if not server and ready != _READY:
                raise RemoteProtocolError(self.peer, "link", "it did not confirm the handshake")
        except TimeoutError as exc:
            raise PeerLost(self.peer, "link", f"no answer within {timeout_s:g} s", silent=True) from exc
        except OSError as exc:
            raise _ending(exc).error(self.peer, "link") from exc

    def fileno(self) -> int:
        """The descriptor to poll."""
        return self._tls.fileno()

    @property
    def wants_data(self) -> bool:
        """Whether `fill` may still take something."""
        return self.end is None and len(self._inbox) < INBOX_LIMIT_BYTES

    def push(self, chunk: memoryview) -> int:
        """Write `chunk`, or return 0 if the socket is full: wait, then pass the *same* chunk again (OpenSSL's rule).

        Nothing is written after the link's `end`; that too returns 0.
        """
        if self.end is not None:
            return 0
        if self._records >= MAX_RECORDS:
            raise LocalProtocolError(f"the link to {self.peer} has used up its key: split the job into smaller ones")
        try:
            sent = self._tls.send(chunk)
        except ssl.SSLWantWriteError:
            return 0
        except OSError as exc:
            self.end = _ending(exc)
            return 0
        self._records += 1 + sent // RECORD_BYTES
        return sent

    def take(self, view: memoryview) -> int:
        """Move what has arrived into `view` and say how much; 0 means nothing yet, or the `end`.

        Large bodies go straight from the TLS record into `view`; short reads fetch a whole record once.
        """
        if not self._inbox:
            if len(view) >= RECORD_BYTES:
                return self._pull(view)
            self._buffer_one()
        n = min(len(view), len(self._inbox))
        if n:
            with memoryview(self._inbox) as held:
                view[:n] = held[:n]
            del self._inbox[:n]
        return n

    def fill(self) -> None:
        """Set aside what has arrived while we are busy elsewhere, so that a peer that is sending too is not stuck.

        At INBOX_LIMIT_BYTES reading stops and the peer feels it: memory stays bounded, and two messages larger than
        that, crossing each other, end in the ordinary timeout.
        """
        enough = min(INBOX_LIMIT_BYTES, len(self._inbox) + _FILL_BYTES)
        while len(self._inbox) < enough and self._buffer_one():
            pass

    def close(self) -> None:
        """Say goodbye if the socket takes it at once, and close."""
        if self.end is None:
            self.end = End(False, "we closed the link")
            with contextlib.suppress(OSError, ValueError):
                self._tls.unwrap()
        self._tls.close()

    def _buffer_one(self) -> int:
        n = self._pull(self._stage)
        self._inbox += self._stage[:n]
        return n

    def _pull(self, view: memoryview) -> int:
        if self.end is not None:
            return 0
        try:
            n = self._tls.recv_into(view)
        except ssl.SSLWantReadError:
            return 0
        except OSError as exc:
            self.end = _ending(exc)
            return 0
        if n == 0:
            self.end = CLOSED
        return n


def _context(server: bool, own: LinkCredentials, peer: str, peer_certificate_der: bytes) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False  # the pin names one certificate, which is stronger than a host name
    context.verify_mode = ssl.CERT_REQUIRED
    if server:
        context.num_tickets = 0  # a link lives once: no resumption, and no record we did not ask for
    try:
        _trust(context, peer_certificate_der)
    except (ssl.SSLError, ValueError) as exc:
        raise RemoteProtocolError(peer, "link", "its consent holds no readable link certificate") from exc
    pem = ssl.DER_cert_to_PEM_cert(own.certificate_der).encode("ascii")
    try:
        with _as_file(pem) as certificate, _as_file(own.key_pem) as key:
            context.load_cert_chain(certificate, key, password=b"")
    except OSError as exc:  # SSLError, or what the pipe left in errno on OpenSSL's way to it
        raise LocalProtocolError("our link key and certificate do not fit together") from exc
    return context


def _trust(context: ssl.SSLContext, certificate_der: bytes) -> None:
    """Make one certificate the trust anchor.

    CPython reads the outcome from OpenSSL's error queue of this thread, where a link that failed earlier may have left
    something.  Raising empties the queue, so only an error that comes twice is about this certificate.
    """
    with contextlib.suppress(ssl.SSLError):
        return context.load_verify_locations(cadata=certificate_der)
    return context.load_verify_locations(cadata=certificate_der)


@contextlib.contextmanager
def _as_file(pem: bytes) -> Iterator[str]:
    """A path that yields `pem` once: `ssl` reads keys from files only, and a job's key must never be on a disk.

    An anonymous pipe has no name in any file system, and its content is gone once read.  The text (under 2 KiB) fits
    the pipe's smallest buffer (4 KiB), so writing it all before anyone reads cannot block.
    """
    if len(pem) > select.PIPE_BUF:
        raise LocalProtocolError("our link key or certificate is too long")
    source, sink = os.pipe()
    try:
        try:
            os.write(sink, pem)
        finally:
            os.close(sink)
        yield f"/dev/fd/{source}"
    finally:
        os.close(source)


def _tune(sock: socket.socket) -> None:
    if sock.family != socket.AF_UNIX:
        # No SO_SNDBUF/SO_RCVBUF: a fixed size switches the kernel's own tuning off, which reaches several MiB.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _bounded(step: Callable[[], T], tls: ssl.SSLSocket, deadline: float) -> T:
    """Repeat a non-blocking TLS step until it is done; TimeoutError when `deadline` (monotonic, s) has passed."""
    while True:
        try:
            return step()
        except ssl.SSLWantReadError:
            events = select.POLLIN
        except ssl.SSLWantWriteError:
            events = select.POLLOUT
        poller = select.poll()
        poller.register(tls, events)
        left_ms = (deadline - time.monotonic()) * 1000
        if left_ms <= 0 or not poller.poll(left_ms):
            raise TimeoutError


def _ending(exc: OSError) -> End:
    """What an error of the TLS layer says about the peer; OpenSSL's reason codes are constants and hold no data."""
    if isinstance(exc, ssl.SSLCertVerificationError):
        return End(True, f"its certificate is not the one in its consent ({exc.verify_message})")
    if isinstance(exc, (ssl.SSLEOFError, ssl.SSLZeroReturnError)) or not isinstance(exc, ssl.SSLError):
        return CLOSED
    reason = exc.reason or "unknown error"
    if "ALERT" in reason:
        return End(True, f"it ended the link with a TLS alert ({reason})")
    return End(True, f"what came over the link is not the TLS 1.3 stream of this peer ({reason})")
