"""The handshake: both certificates pinned, TLS 1.3 only, bounded, and no key on a disk."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import ssl
import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from mpc.errors import LocalProtocolError, PeerLost, RemoteProtocolError
from silos import link_tls
from silos.link_tls import LinkCredentials, make_link_credentials
from tests.silos.link_pairs import CERTIFICATES, NOW, OWN, credentials, tcp_pair, tls, together

ALFA, BRAVO = OWN["alfa"], OWN["bravo"]


def meet(pair: Callable[[], tuple[Any, Any]] = socket.socketpair, **changed: dict[str, Any]) -> list[Any]:
    near, far = pair()
    ends = together(
        lambda: tls(near, "alfa", "bravo", **changed.get("alfa", {})),
        lambda: tls(far, "bravo", "alfa", **changed.get("bravo", {})),
    )
    for end in ends:
        if not isinstance(end, Exception):
            end.close()
    return ends


@pytest.mark.parametrize("pair", [socket.socketpair, tcp_pair])
def test_both_ends_agree_on_tls_1_3(pair: Callable[[], tuple[Any, Any]]) -> None:
    near, far = pair()
    a, b = together(lambda: tls(near, "alfa", "bravo"), lambda: tls(far, "bravo", "alfa"))
    assert a._tls.version() == b._tls.version() == "TLSv1.3"
    assert a.push(memoryview(b"hello")) == 5
    a.close()
    got = bytearray(5)
    assert b.take(memoryview(got)) == 5
    assert got == b"hello"
    b.close()


@pytest.mark.parametrize(
    "wrong",
    [credentials("bravo", "cd" * 16), OWN["dealer"], credentials("bravo")],
    ids=["another job's", "another silo's", "the same names, another key"],
)
@pytest.mark.parametrize("liar", ["alfa", "bravo"])
def test_a_wrong_certificate_is_refused_at_both_ends(liar: str, wrong: LinkCredentials) -> None:
    honest = {"alfa": "bravo", "bravo": "alfa"}[liar]
    ends = dict(zip(("alfa", "bravo"), meet(**{liar: {"credentials": wrong}}), strict=True))
    for end, peer in ((ends[honest], liar), (ends[liar], honest)):
        assert isinstance(end, RemoteProtocolError)
        assert (end.party, end.tag) == (peer, "link")
    assert "its certificate is not the one in its consent" in ends[honest].why
    assert "TLS alert" in ends[liar].why


def test_a_certificate_signed_by_the_pinned_one_is_not_the_pinned_one() -> None:
    """A peer whose consent names a CA certificate cannot let it vouch for another key."""
    ca_key = ec.generate_private_key(ec.SECP256R1())
    leaf_key = ec.generate_private_key(ec.SECP256R1())
    hour = timedelta(hours=1)

    def sign(subject: str, key: ec.EllipticCurvePrivateKey, ca: bool) -> bytes:
        names = [x509.Name.from_rfc4514_string(f"CN={cn}") for cn in ("bravo", subject)]
        serial = x509.random_serial_number()
        builder = x509.CertificateBuilder(*names, key.public_key(), serial, NOW - hour, NOW + hour)
        builder = builder.add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        return builder.sign(ca_key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)

    pem = leaf_key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    alfa, bravo = meet(
        alfa={"peer_certificate_der": sign("bravo", ca_key, True)},
        bravo={"credentials": LinkCredentials(pem, sign("leaf", leaf_key, False))},
    )
    assert isinstance(alfa, RemoteProtocolError)
    assert alfa.why == "its certificate is not the one in its consent", "the chain is good, the pin is not"
    assert isinstance(bravo, (RemoteProtocolError, PeerLost))


def test_an_expired_certificate_is_refused() -> None:
    old = make_link_credentials("bravo", "ab" * 16, NOW - timedelta(hours=1), NOW - timedelta(hours=2))
    alfa, _ = meet(bravo={"credentials": old}, alfa={"peer_certificate_der": old.certificate_der})
    assert isinstance(alfa, RemoteProtocolError)
    assert "expired" in alfa.why


@pytest.mark.parametrize("me", ["alfa", "bravo"])
@pytest.mark.parametrize("garbage", [b"GET / HTTP/1.1\r\n\r\n", bytes(4096), b"\x16\x03\x03\x00\x05hello" * 10])
def test_garbage_instead_of_tls_names_the_peer(me: str, garbage: bytes) -> None:
    peer = {"alfa": "bravo", "bravo": "alfa"}[me]
    near, far = tcp_pair()
    far.sendall(garbage)
    with pytest.raises(RemoteProtocolError, match=r"not the TLS 1\.3 stream of this peer") as caught:
        tls(near, me, peer)
    assert (caught.value.party, caught.value.tag) == (peer, "link")
    far.close()


def test_a_peer_with_tls_1_2_only_is_refused() -> None:
    near, far = socket.socketpair()

    def old_client() -> None:
        context = link_tls._context(False, BRAVO, "alfa", ALFA.certificate_der)
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_2
        with context.wrap_socket(far) as sock:
            sock.recv(1)

    ours, theirs = together(lambda: tls(near, "alfa", "bravo"), old_client)
    assert isinstance(ours, RemoteProtocolError)
    assert (ours.party, ours.tag) == ("bravo", "link")
    assert "UNSUPPORTED_PROTOCOL" in ours.why
    assert isinstance(theirs, ssl.SSLError)


def test_a_client_without_a_certificate_is_refused() -> None:
    near, far = socket.socketpair()

    def anonymous() -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.load_verify_locations(cadata=ALFA.certificate_der)
        with context.wrap_socket(far) as sock:
            sock.recv(1)

    ours, theirs = together(lambda: tls(near, "alfa", "bravo"), anonymous)
    assert isinstance(ours, RemoteProtocolError)
    assert ours.party == "bravo"
    assert isinstance(theirs, ssl.SSLError)


def test_altered_bytes_end_the_link_and_are_never_delivered() -> None:
    """Whoever carries the bytes flips one bit of a record."""
    (near, one), (two, far) = socket.socketpair(), socket.socketpair()
    tamper = threading.Event()

    def carry(source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):  # the ends hang up without ceremony
            while data := source.recv(1 << 16):
                sink.sendall(data[:10] + bytes([data[10] ^ 1]) + data[11:] if tamper.is_set() else data)

    carriers = [threading.Thread(target=carry, args=ends) for ends in ((one, two), (two, one))]
    for carrier in carriers:
        carrier.start()
    a, b = together(lambda: tls(near, "alfa", "bravo"), lambda: tls(far, "bravo", "alfa"))
    tamper.set()
    a.push(memoryview(bytes(1000)))
    select.select([b], [], [], 5)
    assert b.take(memoryview(bytearray(1000))) == 0
    assert b.end is not None
    assert b.end.broken
    assert "BAD_RECORD_MAC" in b.end.why
    tamper.clear()
    a.close()
    b.close()
    for carrier in carriers:
        carrier.join()
    one.close()
    two.close()


@pytest.mark.parametrize("me", ["alfa", "bravo"])
def test_a_silent_or_closed_peer_is_lost(me: str) -> None:
    peer = {"alfa": "bravo", "bravo": "alfa"}[me]
    near, far = socket.socketpair()
    with pytest.raises(PeerLost, match=rf"lost {peer} at step 'link': no answer within 0\.1 s"):
        tls(near, me, peer, timeout_s=0.1)
    far.close()
    near, far = socket.socketpair()
    far.close()
    with pytest.raises(PeerLost, match=f"lost {peer} at step 'link': the link closed"):
        tls(near, me, peer)


def test_a_bad_certificate_in_a_consent_is_the_peers_fault() -> None:
    near, far = socket.socketpair()
    with far, pytest.raises(RemoteProtocolError, match=r"bravo .*its consent holds no readable link certificate"):
        tls(near, "alfa", "bravo", peer_certificate_der=b"not a certificate")
    assert near.fileno() == -1


def test_a_key_that_is_not_the_certificates_is_our_fault() -> None:
    near, far = socket.socketpair()
    mixed = LinkCredentials(BRAVO.key_pem, ALFA.certificate_der)
    with far, pytest.raises(LocalProtocolError, match="do not fit together"):
        tls(near, "alfa", "bravo", credentials=mixed)


def test_no_descriptor_is_left_and_no_file_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    before = os.listdir("/proc/self/fd")
    meet()
    meet(bravo={"credentials": OWN["dealer"]})
    assert len(os.listdir("/proc/self/fd")) == len(before)
    assert list(tmp_path.iterdir()) == []


def test_credentials_are_fresh_self_signed_and_keep_their_key_out_of_reprs() -> None:
    one, two = credentials("alfa"), credentials("alfa")
    assert one.key_pem != two.key_pem
    certificate = x509.load_der_x509_certificate(one.certificate_der)
    certificate.verify_directly_issued_by(certificate)
    assert certificate.not_valid_after_utc == (NOW + timedelta(hours=1)).replace(microsecond=0)
    assert "PRIVATE" not in repr(one)
    assert CERTIFICATES["alfa"] != CERTIFICATES["bravo"]
    with pytest.raises(LocalProtocolError, match="is over at"):
        make_link_credentials("alfa", "ab" * 16, NOW, NOW)
