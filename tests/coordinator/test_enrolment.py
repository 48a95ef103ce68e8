"""Enrolment and certificates, over real TLS on loopback."""

from __future__ import annotations

import base64
import datetime as dt
import ssl
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from coordinator import ca
from coordinator.enrol import JoinToken
from coordinator.envelope import Statement, parse, seal
from coordinator.errors import Malformed
from coordinator.note import VerifierKey, open_checkpoint
from coordinator.server import list_silos, revoke
from tests.coordinator.world import (
    ORIGIN,
    PEM,
    START,
    TestSilo,
    World,
    a_world,
    b64,
    call,
    close_code,
    csr_for,
    key_pem,
)

REFUSED_BY_TLS = (aiohttp.ClientError, ssl.SSLError, ConnectionError)


async def ask_to_enrol(world: World, request: dict[str, Any]) -> tuple[int, Any]:
    return await call(world.session(), "POST", "/v1/enrol", request)


async def test_the_token_pins_the_ca_and_the_certificate_works(world: World) -> None:
    token = world.token("lender")
    async with aiohttp.ClientSession() as session, session.get(f"{world.url}/v1/ca", ssl=False) as response:
        certificate = x509.load_pem_x509_certificate(await response.read())
    assert ca.spki_hash(certificate.public_key()) == JoinToken.parse(token).pin
    silo = TestSilo("lender")
    status, reply = await ask_to_enrol(world, silo.enrol_request(token))
    assert (status, reply["silo"], reply["origin"]) == (200, "lender", ORIGIN)
    issued = x509.load_pem_x509_certificate(reply["certificate"].encode())
    assert ca.silo_name(issued) == "lender"
    assert issued.not_valid_after_utc - issued.not_valid_before_utc == dt.timedelta(days=7)
    usage = issued.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [x509.ExtendedKeyUsageOID.CLIENT_AUTH]
    silo.certificate = reply["certificate"]
    status, roster = await call(world.session(silo), "GET", "/v1/roster")
    assert status == 200
    assert [(s["silo"], s["identity_key"], s["fingerprint"]) for s in roster["silos"]] == [
        ("lender", silo.identity_b64, silo.fingerprint)
    ]
    log_key = VerifierKey.parse(reply["log_key"])
    status, note = await call(world.session(silo), "GET", "/v1/log/checkpoint")
    assert open_checkpoint(note, log_key).size == 1
    status, entries = await call(world.session(silo), "GET", "/v1/log/entries?start=0&end=1")
    assert base64.b64decode(entries["entries"][0]["envelope"]) == silo.enrolled()


async def test_a_token_is_used_once(world: World) -> None:
    token = world.token("lender")
    assert (await ask_to_enrol(world, TestSilo("lender").enrol_request(token)))[0] == 200
    status, reply = await ask_to_enrol(world, TestSilo("lender").enrol_request(token))
    assert (status, reply["error"]) == (401, "the join token has been used already")


async def test_a_token_expires(world: World) -> None:
    token = world.token("lender", ttl_s=600)
    world.clock.ahead = dt.timedelta(seconds=601)
    status, reply = await ask_to_enrol(world, TestSilo("lender").enrol_request(token))
    assert (status, reply["error"]) == (401, "the join token has expired")


async def test_a_wrong_secret_says_nothing_else_about_the_token(world: World) -> None:
    token = JoinToken.parse(world.token("lender", ttl_s=-5))
    silo = TestSilo("lender")
    for wrong in (JoinToken(token.pin, token.id, "A" * 43), JoinToken(token.pin, "0" * 16, token.secret)):
        status, reply = await ask_to_enrol(world, silo.enrol_request(wrong.text()))
        assert (status, reply["error"]) == (401, "the join token is wrong")


async def test_a_refused_request_does_not_use_up_the_token(world: World) -> None:
    token = world.token("lender")
    assert (await ask_to_enrol(world, TestSilo("platform").enrol_request(token)))[0] == 400
    assert (await ask_to_enrol(world, TestSilo("lender").enrol_request(token)))[0] == 200


async def test_a_name_is_taken_over_only_if_the_operator_says_so(world: World) -> None:
    first = await world.enrol("lender")
    status, reply = await ask_to_enrol(world, TestSilo("lender").enrol_request(world.token("lender")))
    assert status == 409
    assert "does not allow" in reply["error"]
    second = await world.enrol("lender", allow_replace=True)
    assert (await call(world.session(first), "GET", "/v1/roster"))[0] == 403
    assert (await call(world.session(second), "GET", "/v1/roster"))[0] == 200
    assert [s.identity_key for s in list_silos(world.home)] == [second.identity.public_key().public_bytes_raw()]


async def test_one_identity_has_one_name(world: World) -> None:
    lender = await world.enrol("lender")
    double = TestSilo("platform", identity=lender.identity)
    status, reply = await ask_to_enrol(world, double.enrol_request(world.token("platform")))
    assert (status, reply["error"]) == (409, "the identity key is enrolled under another name")


def entry_with(signer: TestSilo, **changes: Any) -> str:
    statement = parse(signer.enrolled()).statement
    fields = {name: getattr(statement, name) for name in statement.__dataclass_fields__}
    return b64(seal(Statement(**{**fields, **changes}), signer.identity))


async def test_requests_whose_parts_do_not_fit_together(world: World) -> None:
    silo, other = TestSilo("lender"), TestSilo("lender")
    token = world.token("lender")
    rsa_key = rsa.generate_private_key(65537, 2048)
    csr = csr_for(silo.tls_key).public_bytes(PEM).decode()
    body = {"identity_key": silo.identity_b64}
    probes: list[tuple[dict[str, Any], str]] = [
        ({"proof": b64(bytes(64))}, "proof"),
        ({"proof": "AAAA"}, "proof has 64 bytes"),
        ({"csr": csr_for(other.tls_key).public_bytes(PEM).decode()}, "proof"),
        ({"csr": csr_for(rsa_key).public_bytes(PEM).decode()}, "P-256"),
        ({"csr": csr_for(ec.generate_private_key(ec.SECP384R1())).public_bytes(PEM).decode()}, "P-256"),
        ({"csr": csr.replace("M", "N", 3)}, "certificate request"),
        ({"csr": ""}, "certificate request"),
        ({"identity_key": other.identity_b64}, "proof"),
        ({"identity_key": b64(bytes(31))}, "32 bytes"),
        ({"entry": b64(other.enrolled())}, "signature"),
        ({"entry": "!"}, "base64"),
        ({"entry": b64(b"{}")}, "signed statement"),
        ({"entry": entry_with(silo, event="proposed")}, "first 'enrolled'"),
        ({"entry": entry_with(silo, seq=1)}, "first 'enrolled'"),
        ({"entry": entry_with(silo, job="00" * 16)}, "first 'enrolled'"),
        ({"entry": entry_with(silo, body={"identity_key": other.identity_b64})}, "another identity key"),
        ({"entry": entry_with(silo, body={**body, "more": 1})}, "more"),
        ({"entry": entry_with(silo, time="now")}, "time"),
        ({"entry": entry_with(silo, silo="platform")}, "the token is for 'lender'"),
        ({"token": token}, "<id>.<secret>"),
        ({"extra": 1}, "extra"),
        ({"csr": 5}, "csr"),
    ]
    for change, why in probes:
        status, reply = await ask_to_enrol(world, {**silo.enrol_request(token), **change})
        assert (status, why in reply["error"]) == (400, True), (change.keys(), reply)
    assert list_silos(world.home) == []
    assert (await ask_to_enrol(world, silo.enrol_request(token)))[0] == 200


async def test_without_a_certificate_only_the_open_routes_answer(world: World) -> None:
    session = world.session()
    for path in ("/v1/roster", "/v1/jobs", "/v1/log/checkpoint", "/v1/events", "/v1/relay/a/b"):
        status, reply = await call(session, "GET", path)
        assert (status, reply["error"]) == (401, "a client certificate is needed"), path
    for path in ("/healthz", "/metrics", "/openapi.json", "/v1/ca"):
        assert (await call(session, "GET", path))[0] == 200, path


async def refused_in_handshake(world: World, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
    context = world.tls()
    world.load_client(context, certificate.public_bytes(PEM), key_pem(key))
    with pytest.raises(REFUSED_BY_TLS):
        await call(world.session(context=context), "GET", "/v1/roster")


async def test_certificates_that_tls_refuses(world: World) -> None:
    await world.enrol("lender")
    authority = world.server.coordinator.authority
    key = ca.new_key()
    csr = csr_for(key)
    foreign = ca.create_authority(ORIGIN, START)
    await refused_in_handshake(world, ca.issue_silo(foreign, csr, "lender", START), key)
    await refused_in_handshake(world, ca.issue_silo(authority, csr, "lender", START - dt.timedelta(days=8)), key)
    await refused_in_handshake(world, ca.issue_silo(authority, csr, "lender", START + dt.timedelta(days=1)), key)
    await refused_in_handshake(world, ca.issue_server(authority, key.public_key(), ["lender"], START), key)


async def test_certificates_of_ours_with_a_key_that_is_not_on_the_roster(world: World) -> None:
    await world.enrol("lender")
    for name, why in (("lender", "no longer accepted"), ("ghost", "names no enrolled silo")):
        key = ca.new_key()
        certificate = ca.issue_silo(world.server.coordinator.authority, csr_for(key), name, START)
        context = world.tls()
        world.load_client(context, certificate.public_bytes(PEM), key_pem(key))
        status, reply = await call(world.session(context=context), "GET", "/v1/roster")
        assert (status, why in reply["error"]) == (403, True), reply


async def test_a_certificate_that_expires_on_an_open_connection(world: World) -> None:
    session = world.session(await world.enrol("lender"))
    assert (await call(session, "GET", "/v1/roster"))[0] == 200
    world.clock.ahead = dt.timedelta(days=8)
    status, reply = await call(session, "GET", "/v1/roster")
    assert (status, reply["error"]) == (401, "the client certificate has expired")


async def test_the_server_shows_a_certificate_for_its_names_and_speaks_tls_1_3_only(world: World) -> None:
    old = world.tls()
    old.minimum_version = ssl.TLSVersion.TLSv1_2
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(REFUSED_BY_TLS):
        await call(world.session(context=old), "GET", "/healthz")
    strangers = ssl.create_default_context()
    with pytest.raises(aiohttp.ClientConnectorCertificateError):
        await call(world.session(context=strangers), "GET", "/healthz")


async def test_renewal_replaces_the_key(world: World) -> None:
    silo = await world.enrol("lender")
    old = world.session(silo)
    new = TestSilo("lender", identity=silo.identity)
    status, reply = await call(old, "POST", "/v1/renew", csr_for(new.tls_key).public_bytes(PEM))
    assert status == 200, reply
    new.certificate = reply["certificate"]
    status, refusal = await call(old, "GET", "/v1/roster")
    assert (status, "no longer accepted" in refusal["error"]) == (403, True)
    assert (await call(world.session(silo), "GET", "/v1/roster"))[0] == 403
    assert (await call(world.session(new), "GET", "/v1/roster"))[0] == 200
    assert ca.silo_name(x509.load_pem_x509_certificate(reply["certificate"].encode())) == "lender"
    status, reply = await call(world.session(new), "POST", "/v1/renew", b"not a request")
    assert (status, "certificate request" in reply["error"]) == (400, True)


async def test_a_revoked_silo_is_refused_and_its_sockets_are_closed(world: World) -> None:
    silo = await world.enrol("lender")
    session = world.session(silo)
    async with session.ws_connect("/v1/events") as events:
        revoke(world.home, "lender")  # as another process would
        assert await close_code(events) == 1008
    status, reply = await call(session, "GET", "/v1/roster")
    assert (status, reply["error"]) == (403, "lender has been revoked")
    other = await world.enrol("platform")
    assert [s["silo"] for s in (await call(world.session(other), "GET", "/v1/roster"))[1]["silos"]] == ["platform"]


async def test_enrolments_survive_a_restart(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        silo = await world.enrol("lender")
    async with a_world(tmp_path) as world:
        assert (await call(world.session(silo), "GET", "/v1/roster"))[0] == 200


@pytest.mark.parametrize(
    "text", ["", "SJ1.x.y.z", "SJ2." + "0" * 64 + "." + "0" * 16 + "." + "A" * 43, "SJ1." + "0" * 64]
)
def test_texts_that_are_no_token(text: str) -> None:
    with pytest.raises(Malformed):
        JoinToken.parse(text)


def test_a_token_round_trips() -> None:
    token = JoinToken.draw("ab" * 32)
    assert JoinToken.parse(token.text()) == token
