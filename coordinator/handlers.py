"""One thin function per route: take the call apart, let the service do it, put the answer together."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Sequence

from aiohttp import WSCloseCode, WSMsgType, web
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from coordinator import api, ca, relay
from coordinator.calls import Call
from coordinator.enrol import read_enrolment, split_credential, unbase64
from coordinator.envelope import fingerprint, parse
from coordinator.errors import Conflict, Forbidden, Malformed
from coordinator.events import Listener, Progress
from coordinator.jobs import Job, State
from coordinator.log import Entry, Seen
from coordinator.metrics import CONTENT_TYPE
from coordinator.service import Coordinator
from coordinator.statements import format_time
from coordinator.store import Store
from coordinator.tiles import CONTENT_TYPE as TILE
from coordinator.tiles import Tile

EVENTS_HEARTBEAT_S = 20.0
MAX_EVENTS_MESSAGE_BYTES = 1024  # a listener has nothing to say


# --- without a client certificate


async def get_ca(c: Coordinator, _: Call) -> web.Response:
    return web.Response(text=_pem(c.authority.certificate), content_type="application/x-pem-file")


async def enrol(c: Coordinator, call: Call) -> api.EnrolReply:
    asked = call.model(api.EnrolRequest)
    token_id, secret = split_credential(asked.token)
    request = read_enrolment(asked.csr, asked.identity_key, asked.proof, asked.entry)
    certificate = await c.enrol(request, token_id, secret)
    return api.EnrolReply(certificate=_pem(certificate), log_key=c.log_verifier, origin=c.origin, silo=request.silo)


async def health(c: Coordinator, _: Call) -> api.HealthReply:
    await c.store.call(_checkpoint)  # alive means that the database answers
    return api.HealthReply(status="ok")


async def metrics(c: Coordinator, _: Call) -> web.Response:
    return web.Response(body=c.metrics.text(), headers={"Content-Type": CONTENT_TYPE})


# --- silos


async def renew(c: Coordinator, call: Call) -> api.RenewReply:
    csr = ca.parse_request(call.raw())
    if call.caller is None:
        raise Forbidden("only a silo renews its certificate")
    await c.store.write(Store.renew, call.silo, call.caller.spki, ca.spki_hash(csr.public_key()))
    return api.RenewReply(certificate=_pem(ca.issue_silo(c.authority, csr, call.silo, c.clock())))


async def roster(c: Coordinator, _: Call) -> api.RosterReply:
    silos = [
        api.RosterSilo(
            silo=silo.name,
            identity_key=_b64(silo.identity_key),
            fingerprint=fingerprint(silo.identity_key),
            enrolled_at=format_time(silo.enrolled_at),
        )
        for silo in await c.store.call(Store.roster)
        if not silo.revoked
    ]
    return api.RosterReply(silos=silos)


async def rotate(c: Coordinator, call: Call) -> api.RotateReply:
    return api.RotateReply(index=await c.rotate(_own_entry(call, call.model(api.RotateRequest).entry)))


# --- jobs


async def submit(c: Coordinator, call: Call) -> api.SubmitReply:
    entries = [_own_entry(call, text) for text in call.model(api.SubmitRequest).entries]
    return api.SubmitReply(job=(await c.submit(entries)).id)


async def list_jobs(c: Coordinator, call: Call) -> api.JobsReply:
    return api.JobsReply(jobs=[_summary(job) for job in await c.store.call(Store.jobs_of, call.silo)])


async def get_job(c: Coordinator, call: Call) -> api.JobReply:
    job = await c.job_for(call.path("job"), call.silo)
    entries = await c.store.call(Store.job_entries, job.id)
    progress = {
        silo: api.ProgressView(stage=p.stage, done=p.done, total=p.total, time=format_time(p.at))
        for silo, p in c.hub.progress(job.id).items()
    }
    return api.JobReply(
        **_summary(job).model_dump(),
        owners=list(job.owners),
        dealer=job.dealer,
        helper=job.helper,
        spec=parse(entries[0][1]).statement.body["spec"],
        entries=[api.JobEntry(index=index, envelope=_b64(envelope)) for index, envelope in entries],
        progress=progress,
    )


async def add_entry(c: Coordinator, call: Call) -> api.EntryReply:
    job = await c.job_for(call.path("job"), call.silo)
    entry = _own_entry(call, call.model(api.EntryRequest).entry)
    if entry.sealed.statement.job != job.id:
        raise Forbidden("the entry is about another job than the address")
    accepted = await c.append(entry)
    return api.EntryReply(index=accepted.index, state=accepted.job.state.value)


async def add_progress(c: Coordinator, call: Call) -> web.Response:
    job = await c.job_for(call.path("job"), call.silo)
    said = call.model(api.ProgressRequest)
    _check_at_work(job, call.silo)
    c.hub.progressed(job, call.silo, Progress(said.stage, said.done, said.total, c.clock()))
    return web.Response(status=204)


async def listen(c: Coordinator, call: Call) -> web.WebSocketResponse:
    wanted = call.request.query.get("job", "")
    if wanted:
        await c.job_for(wanted, call.silo)
    ws = web.WebSocketResponse(
        heartbeat=EVENTS_HEARTBEAT_S,
        compress=False,
        max_msg_size=MAX_EVENTS_MESSAGE_BYTES,
        timeout=relay.CLOSE_WAIT_S,
    )
    await ws.prepare(call.request)
    with c.connected(call.silo, "/v1/events", ws), c.hub.listening(call.silo, wanted) as listener:
        # Listening first, then the states: a change in between is told twice rather than never.
        for job in await c.store.call(Store.jobs_of, call.silo):
            if job.id == wanted or (not wanted and not job.state.is_final):
                await ws.send_json({"job": job.id, "state": job.state.value})
        tasks = [asyncio.create_task(step) for step in (_hear(ws), _tell(ws, listener), _overrun(listener))]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if listener.overrun.is_set():
                await _give_up_on(ws, call.request)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
    return ws


async def join_relay(c: Coordinator, call: Call) -> web.WebSocketResponse:
    peer = call.path("peer")
    job = await c.job_for(call.path("job"), call.silo)
    _check_at_work(job, call.silo)
    if peer not in job.participants or peer == call.silo:
        raise Forbidden(f"{peer} is no other participant of this job")
    seat = c.relay.take_seat(job.id, call.silo, peer)
    ws = relay.new_socket()
    try:
        await ws.prepare(call.request)
        with c.connected(call.silo, "/v1/relay/{job}/{peer}", ws):
            await c.relay.run(seat, ws, call.request.transport)
    finally:
        c.relay.leave(seat)
    return ws


# --- the log


async def checkpoint(c: Coordinator, _: Call) -> web.Response:
    return web.Response(text=await c.store.call(Store.checkpoint_note))


async def cosigned(c: Coordinator, call: Call) -> web.Response:
    least = call.count("least") if "least" in call.request.query else None
    return web.Response(text=await c.store.call(Store.cosigned_note, least))


async def tile(c: Coordinator, call: Call) -> web.Response:
    wanted = Tile.parse(call.path("level"), call.path("place"))
    body = await c.store.call(Store.tile, wanted)
    return web.Response(body=body, content_type=TILE, headers={"Cache-Control": "private, max-age=31536000, immutable"})


async def log_entries(c: Coordinator, call: Call) -> api.EntriesReply:
    start, end = call.count("start"), call.count("end")
    entries = await c.store.call(Store.read_log, call.silo, start, end)
    return api.EntriesReply(entries=[_seen(entry) for entry in entries])


async def roster_entries(c: Coordinator, call: Call) -> api.RosterEntriesReply:
    entries = await c.store.call(Store.roster_entries, call.count("start"), call.count("end"))
    return api.RosterEntriesReply(
        entries=[api.JobEntry(index=index, envelope=_b64(envelope)) for index, envelope in entries]
    )


async def cosign(c: Coordinator, call: Call) -> api.CosignReply:
    try:
        note = call.raw().decode()
    except UnicodeDecodeError as exc:
        raise Malformed("a checkpoint is UTF-8 text") from exc
    return api.CosignReply(size=await c.store.write(Store.add_cosignature, call.silo, note))


async def inclusion(c: Coordinator, call: Call) -> api.ProofReply:
    index, size = call.count("index"), call.count("size")
    return api.ProofReply(hashes=_b64s(await c.store.call(lambda store: store.log.inclusion(index, size))))


async def consistency(c: Coordinator, call: Call) -> api.ProofReply:
    first, second = call.count("first"), call.count("second")
    return api.ProofReply(hashes=_b64s(await c.store.call(lambda store: store.log.consistency(first, second))))


# --- parts


def _own_entry(call: Call, text: str) -> Entry:
    entry = Entry.parse(unbase64(text, "the entry"))
    if entry.sealed.statement.silo != call.silo:
        raise Forbidden(f"the entry speaks for {entry.sealed.statement.silo}, the caller is {call.silo}")
    return entry


def _check_at_work(job: Job, silo: str) -> None:
    if silo not in job.participants:
        raise Forbidden(f"{silo} submitted this job but takes no part in it")
    if job.state not in (State.READY, State.RUNNING):
        raise Conflict(f"the job is {job.state}, neither ready nor running")


def _summary(job: Job) -> api.JobSummary:
    return api.JobSummary(
        job=job.id,
        kind=job.kind,
        state=job.state.value,
        submitter=job.submitter,
        participants=list(job.participants),
        created=job.created,
        reason=job.reason,
    )


def _seen(entry: Seen) -> api.LogEnvelope | api.LogLeaf:
    if entry.envelope is None:
        return api.LogLeaf(leaf=_b64(entry.leaf))
    return api.LogEnvelope(envelope=_b64(entry.envelope))


async def _hear(ws: web.WebSocketResponse) -> None:
    """Return when the listener leaves or says something."""
    async for message in ws:
        if message.type in (WSMsgType.TEXT, WSMsgType.BINARY):
            await ws.close(code=WSCloseCode.POLICY_VIOLATION, message=b"this socket only tells")
            return


async def _tell(ws: web.WebSocketResponse, listener: Listener) -> None:
    while not ws.closed:
        await ws.send_json(await listener.queue.get())


async def _overrun(listener: Listener) -> None:
    await listener.overrun.wait()


async def _give_up_on(ws: web.WebSocketResponse, request: web.Request) -> None:
    """The listener does not read; it will connect again and be told the states."""
    try:
        async with asyncio.timeout(relay.CLOSE_WAIT_S):
            await ws.close(code=WSCloseCode.TRY_AGAIN_LATER, message=b"too slow")
    except TimeoutError:
        if request.transport is not None:
            request.transport.abort()


def _checkpoint(store: Store) -> str:
    return store.log.checkpoint()


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def _b64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def _b64s(hashes: Sequence[bytes]) -> list[str]:
    return [_b64(value) for value in hashes]
