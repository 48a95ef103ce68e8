"""The job and log routes over real TLS: a whole life, and everything a caller may get wrong."""

from __future__ import annotations

import base64
import datetime as dt
import json
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from coordinator import merkle
from coordinator.envelope import MAX_ENVELOPE_BYTES, Statement, digest, parse, seal
from coordinator.note import VerifierKey, open_checkpoint
from coordinator.statements import format_time
from tests.coordinator.world import (
    START,
    Job,
    TestSilo,
    World,
    a_job,
    a_world,
    b64,
    call,
    close_code,
    consent_body,
    finished_body,
    make_spec,
    released_body,
)


async def test_a_whole_life(job: Job) -> None:
    assert await job.submit() == (200, {"job": job.spec["job"]})
    await job.all_consent()
    await job.all_start()
    for name in ("lender", "platform"):
        await job.say(name, "released", released_body(name))
    await job.say("dealer", "finished", finished_body())
    await job.say("lender", "finished", finished_body())
    assert await job.say("platform", "finished", finished_body()) == {"index": 15, "state": "done"}
    status, view = await call(job.http["dealer"], "GET", job.path)
    assert status == 200
    assert view["spec"] == job.spec
    assert (view["participants"], view["owners"], view["dealer"]) == (
        ["lender", "platform", "dealer"],
        ["lender", "platform"],
        "dealer",
    )
    assert [entry["index"] for entry in view["entries"]] == list(range(3, 16))
    status, log = await call(job.http["dealer"], "GET", "/v1/log/entries?start=3&end=16")
    assert log["entries"] == [{"envelope": entry["envelope"]} for entry in view["entries"]]
    status, jobs = await call(job.http["platform"], "GET", "/v1/jobs")
    assert [(j["job"], j["state"], j["submitter"], j["kind"]) for j in jobs["jobs"]] == [
        (job.spec["job"], "done", "lender", "vertical.glm")
    ]


async def test_the_log_proves_itself_to_a_client(job: Job) -> None:
    http = job.http["lender"]
    key = VerifierKey.parse(job.world.server.coordinator.log_verifier)
    early = open_checkpoint((await call(http, "GET", "/v1/log/checkpoint"))[1], key)
    await job.submit()
    late = open_checkpoint((await call(http, "GET", "/v1/log/checkpoint"))[1], key)
    assert (early.size, late.size) == (3, 5)
    _, proof = await call(http, "GET", "/v1/log/consistency?first=3&second=5")
    merkle.verify_consistency(3, 5, [base64.b64decode(h) for h in proof["hashes"]], early.root, late.root)
    _, entries = await call(http, "GET", "/v1/log/entries?start=4&end=5")
    _, proof = await call(http, "GET", "/v1/log/inclusion?index=4&size=5")
    leaf = merkle.leaf_hash(base64.b64decode(entries["entries"][0]["envelope"]))
    merkle.verify_inclusion(leaf, 4, 5, [base64.b64decode(h) for h in proof["hashes"]], late.root)
    for path, expected in (
        ("/v1/log/entries?start=9&end=10", 404),
        ("/v1/log/entries?start=0", 400),
        ("/v1/log/entries?start=-1&end=2", 400),
        ("/v1/log/entries?start=\u0661&end=2", 400),
        ("/v1/log/inclusion?index=5&size=5", 404),
        ("/v1/log/consistency?first=0&second=5", 404),
        ("/v1/log/consistency?first=1&second=99999999999999999999", 400),
    ):
        assert (await call(http, "GET", path))[0] == expected, path


async def test_a_silo_reads_hashes_of_jobs_it_has_no_part_in(job: Job) -> None:
    analyst, stranger = await job.world.enrol("analyst"), await job.world.enrol("stranger")
    job.silos["analyst"], job.http["analyst"] = analyst, job.world.session(analyst)
    await job.submit("analyst")
    await job.say("platform", "consented", consent_body(job.silos["platform"], job.spec))
    job.http["stranger"] = job.world.session(stranger)
    read = {
        name: (await call(http, "GET", "/v1/log/entries?start=0&end=99"))[1]["entries"]
        for name, http in job.http.items()
    }
    assert read["lender"] == read["platform"] == read["dealer"] == read["analyst"]
    assert [set(entry) for entry in read["lender"]] == [{"envelope"}] * 8
    assert [set(entry) for entry in read["stranger"]] == [{"envelope"}] * 5 + [{"leaf"}] * 3
    assert read["stranger"][:5] == read["lender"][:5]
    for secret in (job.spec["job"], "link_token"):
        assert secret.encode() in b"".join(parse(base64.b64decode(e["envelope"])).payload for e in read["lender"])

    leaves = [base64.b64decode(e["leaf"]) if "leaf" in e else merkle.leaf_hash(base64.b64decode(e["envelope"]))
              for e in read["stranger"]]  # fmt: skip
    nodes: dict[tuple[int, int], bytes] = {}
    for size, leaf in enumerate(leaves):
        for level, place, value in merkle.grow_leaf(size, leaf, lambda *at: nodes[at]):
            nodes[level, place] = value
    head = open_checkpoint(
        (await call(job.http["stranger"], "GET", "/v1/log/checkpoint"))[1],
        VerifierKey.parse(job.world.server.coordinator.log_verifier),
    )
    assert (head.size, head.root) == (8, merkle.root(8, lambda *at: nodes[at]))


async def test_a_repeated_entry_gets_the_same_answer_and_one_place(job: Job) -> None:
    await job.submit()
    envelope = job.silos["platform"].say("consented", job.spec, consent_body(job.silos["platform"], job.spec))
    first = await job.send("platform", envelope)
    assert first == (200, {"index": 5, "state": "disclosed"})
    assert await job.send("platform", envelope) == first
    size = open_checkpoint(
        (await call(job.http["lender"], "GET", "/v1/log/checkpoint"))[1],
        VerifierKey.parse(job.world.server.coordinator.log_verifier),
    ).size
    assert size == 6


async def test_entries_that_are_refused(job: Job) -> None:
    await job.submit()
    spec, platform = job.spec, job.silos["platform"]
    consent = consent_body(platform, spec)
    stranger = await job.world.enrol("stranger")
    outsider = job.world.session(stranger)

    def as_platform(event: str = "consented", body: Any = consent, **changes: Any) -> bytes:
        """Always the first of its chain, so that one probe does not move the next."""
        platform.chains.clear()
        return platform.say(event, spec, body, **changes)

    probes = [
        ("lender", as_platform(), 403, "the caller is lender"),
        ("platform", TestSilo("platform").say("consented", spec, consent), 403, "not that of platform"),
        ("platform", as_platform(seq=1), 409, "has seq 0"),
        ("platform", as_platform(prev="00" * 32), 409, "previous"),
        ("platform", as_platform(job=make_spec()["job"]), 403, "another job"),
        ("platform", as_platform(spec_digest="00" * 32), 400, "another job or spec"),
        ("platform", as_platform("started", {}), 409, "takes no 'started'"),
        ("platform", as_platform("invented", {}), 409, "takes no 'invented'"),
        ("platform", as_platform("cancelled", {"reason": "x"}), 403, "submitter"),
        ("platform", as_platform(body={**consent, "disclosure_digest": "00" * 32}), 409, "another disclosure"),
        ("platform", b"{}", 400, "not a signed statement"),
        ("platform", b"\xff", 400, "not a signed statement"),
        ("platform", as_platform() + b" " * MAX_ENVELOPE_BYTES, 400, "at most 65535 bytes"),
        ("platform", bytes(2 * MAX_ENVELOPE_BYTES), 413, "at most"),
    ]
    for caller, envelope, expected, why in probes:
        status, reply = await job.send(caller, envelope)
        assert (status, why in reply["error"]) == (expected, True), (why, status, reply)

    envelope = stranger.say("consented", spec, consent)
    status, reply = await call(outsider, "POST", f"{job.path}/entries", {"entry": b64(envelope)})
    assert (status, reply["error"]) == (404, "there is no such job")
    for body, why in (
        ({"entry": "\u00e9"}, "base64"),
        ({"entry": "AB=="}, "canonical"),
        ({}, "entry"),
        ([], ""),
        (b"{", ""),
    ):
        status, reply = await call(job.http["platform"], "POST", f"{job.path}/entries", body)
        assert (status, why in reply["error"]) == (400, True), reply
    assert (await job.send("platform", as_platform()))[0] == 200


async def test_a_job_concerns_only_those_it_names(job: Job) -> None:
    await job.submit()
    outsider = job.world.session(await job.world.enrol("stranger"))
    for method, path, body in (
        ("GET", job.path, None),
        ("POST", f"{job.path}/progress", {"stage": "x", "done": 0, "total": 1}),
        ("GET", f"/v1/events?job={job.spec['job']}", None),
        ("GET", f"/v1/relay/{job.spec['job']}/lender", None),
        ("GET", "/v1/jobs/nonsense", None),
    ):
        assert await call(outsider, method, path, body) == (404, {"error": "there is no such job"}), path
    assert await call(outsider, "GET", "/v1/jobs") == (200, {"jobs": []})


async def test_submissions_that_are_refused(job: Job) -> None:
    status, reply = await job.submit("platform")
    assert status == 200, "any enrolled silo may submit"
    lender = job.silos["lender"]
    spec = make_spec(dealer="ghost")
    entries = [
        b64(lender.say("proposed", spec, {"spec": spec})),
        b64(lender.say("disclosed", spec, {"disclosure": {}})),
    ]
    for wrong, why in (
        (entries, "'ghost', which is not enrolled"),
        (entries[:1], "entries"),
        (entries[::-1], "starts with"),
    ):
        status, reply = await call(job.http["lender"], "POST", "/v1/jobs", {"entries": wrong})
        assert (status, why in reply["error"]) == (400, True), reply
    status, reply = await call(job.http["platform"], "POST", "/v1/jobs", {"entries": entries})
    assert (status, "the caller is platform" in reply["error"]) == (403, True)


async def test_bodies_have_a_limit_on_every_route(job: Job) -> None:
    await job.submit()

    async def endless() -> Any:
        for _ in range(64):
            yield bytes(64 * 1024)

    for path in ("/v1/enrol", "/v1/renew", "/v1/jobs", f"{job.path}/entries", f"{job.path}/progress"):
        for body in (bytes(1024 * 1024), endless()):  # with and without a declared length
            session = job.world.session(job.silos["lender"])
            try:
                async with session.post(path, data=body) as response:
                    assert (response.status, "at most" in (await response.json())["error"]) == (413, True), path
            except aiohttp.ClientConnectionError:
                continue  # the server hung up before we had sent it all
    status, _ = await call(job.http["lender"], "GET", job.path)
    assert status == 200


async def test_unknown_addresses_and_methods_are_json_too(job: Job) -> None:
    assert await call(job.http["lender"], "GET", "/v2/nothing") == (404, {"error": "Not Found"})
    assert (await call(job.http["lender"], "DELETE", job.path))[0] == 405


async def next_message(ws: aiohttp.ClientWebSocketResponse) -> dict[str, Any]:
    return dict(json.loads(await ws.receive_str(timeout=15)))


async def test_events_and_progress(job: Job) -> None:
    await job.submit()
    job_id = job.spec["job"]
    async with job.http["dealer"].ws_connect("/v1/events") as events:
        assert await next_message(events) == {"job": job_id, "state": "disclosed"}
        await job.all_consent()
        told = [await next_message(events) for _ in range(3)]
        assert told[-1] == {"job": job_id, "state": "ready", "event": "consented", "silo": "dealer"}
        status, _ = await call(
            job.http["platform"], "POST", f"{job.path}/progress", {"stage": "train", "done": 1, "total": 9}
        )
        assert status == 204
        progress = {"silo": "platform", "stage": "train", "done": 1, "total": 9}
        assert await next_message(events) == {"job": job_id, "progress": progress}
        status, view = await call(job.http["lender"], "GET", job.path)
        assert {k: view["progress"]["platform"][k] for k in ("stage", "done", "total")} == {
            "stage": "train",
            "done": 1,
            "total": 9,
        }
        await job.say("lender", "cancelled", {"reason": "changed our mind"})
        assert (await next_message(events))["state"] == "cancelled"
        status, reply = await call(
            job.http["platform"], "POST", f"{job.path}/progress", {"stage": "x", "done": 1, "total": 9}
        )
        assert (status, "neither ready nor running" in reply["error"]) == (409, True)
        await events.send_str("hello?")
        assert await close_code(events) == 1008
    async with job.http["dealer"].ws_connect(f"/v1/events?job={job_id}") as events:
        assert await next_message(events) == {"job": job_id, "state": "cancelled"}
    status, view = await call(job.http["lender"], "GET", job.path)
    assert (view["reason"], view["progress"]) == ("lender cancelled: changed our mind", {})


async def test_a_submitter_that_takes_no_part_sees_but_does_not_act(world: World) -> None:
    job = await a_job(world)
    analyst = await world.enrol("analyst")
    job.silos["analyst"], job.http["analyst"] = analyst, world.session(analyst)
    assert (await job.submit("analyst"))[0] == 200
    assert (await call(job.http["analyst"], "GET", job.path))[0] == 200
    status, reply = await job.send("analyst", analyst.say("consented", job.spec, consent_body(analyst, job.spec)))
    assert (status, "participant" in reply["error"]) == (403, True)
    status, _ = await call(job.http["analyst"], "POST", f"{job.path}/progress", {"stage": "x", "done": 0, "total": 1})
    assert status == 403


async def test_an_unfinished_job_expires_with_an_entry_of_the_coordinator(world: World) -> None:
    job = await a_job(world)
    await job.submit()
    async with job.http["lender"].ws_connect(f"/v1/events?job={job.spec['job']}") as events:
        await next_message(events)
        world.clock.ahead = dt.timedelta(days=2)
        message = await next_message(events)
    assert message == {"job": job.spec["job"], "state": "expired", "event": "expired", "silo": "coordinator"}
    _, view = await call(job.http["lender"], "GET", job.path)
    sealed = parse(base64.b64decode(view["entries"][-1]["envelope"]))
    sealed.verify(VerifierKey.parse(world.server.coordinator.log_verifier).key)
    assert (sealed.statement.event, sealed.statement.silo) == ("expired", "coordinator")
    assert "it was disclosed" in view["reason"]
    await world.server.coordinator.expire_overdue()  # nothing is left to expire


async def test_nobody_but_the_coordinator_speaks_for_it(job: Job) -> None:
    await job.submit()
    for signer in (job.silos["lender"].identity, job.world.server.coordinator.log_key):
        statement = Statement(
            "expired", job.spec["job"], digest(job.spec), "coordinator", 0, "", format_time(START), {"reason": "x"}
        )
        status, reply = await job.send("lender", seal(statement, signer))
        assert (status, "the caller is lender" in reply["error"]) == (403, True)


async def test_a_job_goes_on_after_a_restart(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        job = await a_job(world)
        await job.submit()
        await job.say("platform", "consented", consent_body(job.silos["platform"], job.spec))
    async with a_world(tmp_path) as world:
        job.world, job.http = world, {name: world.session(silo) for name, silo in job.silos.items()}
        for name in ("lender", "dealer"):
            await job.say(name, "consented", consent_body(job.silos[name], job.spec))
        await job.all_start()
        assert (await call(job.http["lender"], "GET", job.path))[1]["state"] == "running"


@pytest.mark.parametrize("event", ["refused", "failed"])
async def test_the_reason_of_an_end_is_told(job: Job, event: str) -> None:
    await job.submit()
    if event == "failed":
        await job.all_consent()
        body = {"step": "align", "reason": "lost dealer", "party": "dealer"}
    else:
        body = {"reason": "column income is not for lender", "rule": "columns.income"}
    await job.say("platform", event, body)
    _, view = await call(job.http["lender"], "GET", job.path)
    assert view["state"] == event
    assert view["reason"] in (
        "platform failed at align: lost dealer",
        "platform refused: column income is not for lender (rule columns.income)",
    )
