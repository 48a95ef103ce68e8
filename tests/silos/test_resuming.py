"""Jobs that go on after something was lost: real nodes and a real coordinator, with workers that are played in the node."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import threading
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from coordinator.envelope import Statement, fingerprint, parse
from silos import leftovers, participation
from silos.client import CoordinatorClient, connect
from silos.consent import Expected, statements
from silos.diary import Diary
from silos.errors import ConsentError, JobFailed
from silos.identity import Identity
from silos.results import read_result, result_digest
from silos.review import View
from silos.spec import Spec, spec_digest
from silos.times import to_text, utcnow
from silos.voice import Voice
from silos.workers import Outcome
from tests.silos.test_node import FINAL, body, events
from tests.silos.world import MATCHERS, World, enrolled_world, make_spec, running_nodes

OWNERS = ("lender", "platform")
COST = {"rounds": 1, "bytes_sent": {}, "seconds": {}, "peak_mib": 9, "randomness": {}}
Act = Callable[[Path], None]


def done(_: Path) -> None:
    """A worker that comes to a result."""


def lost(_: Path) -> None:
    raise JobFailed("work", "the worker was killed by signal 9", lost=True)


def wrong(_: Path) -> None:
    raise JobFailed("match", "3 rows have the identifier of another one")


def keeping(*names: str, then: Act = done) -> Act:
    """A worker that has its own rows on disk, and perhaps knows that the others have theirs."""

    def act(folder: Path) -> None:
        steps = folder / leftovers.MATCHING_FOLDER / leftovers.STEPS_FOLDER
        steps.mkdir(parents=True, exist_ok=True)
        for name in names:
            (steps / f"00000000.{name}").touch()
        then(folder)

    return act


@dataclass
class Script:
    """What the workers of each silo do, one after the other; then they wait until they are stopped.

    No worker does anything before those that it is linked with are there, as no real one can.
    """

    acts: dict[str, list[Act]]
    links: dict[str, list[set[str]]] = field(default_factory=lambda: {owner: [] for owner in OWNERS})

    async def run(self, order: Any, sockets: Any, log: Path, progress: Any, *, silent_s: float | None) -> Outcome:
        assert silent_s is not None
        me = order["me"]
        self.links[me].append(set(sockets))
        for sock in sockets.values():
            sock.close()
        await until(lambda: all(self.links[peer] for peer in sockets))
        if not self.acts[me]:
            await asyncio.sleep(600)
        self.acts[me].pop(0)(Path(order["folder"]))
        return Outcome({"counts": {"matched": 2}}, ["counts"], COST)


@asynccontextmanager
async def played(
    root: Path, monkeypatch: pytest.MonkeyPatch, **acts: list[Act]
) -> AsyncIterator[tuple[World, CoordinatorClient, Script]]:
    script = Script(acts)
    monkeypatch.setattr("silos.attempts.run_worker", script.run)
    monkeypatch.setattr("silos.attempts.PAUSE_S", 0.01)
    monkeypatch.setattr("silos.participation.GRACE_S", 0.2)
    async with enrolled_world(root) as world, connect(world.home("lender")) as client:
        pins = {s["silo"]: s["fingerprint"] for s in await client.roster()}
        for name in OWNERS:
            world.set_policy(name, pins, kinds=["vertical.match"], release=["rows", "counts"])
        yield world, client, script


def fresh(**changes: Any) -> Spec:
    usual = {"job": uuid.uuid4().hex, "kind": "vertical.match", "dealer": None, "parties": MATCHERS}
    return make_spec(**{**usual, "now": utcnow(), "release": ["counts"], **changes})


def left(world: World, job: str) -> set[str]:
    """What is in the owners' folders of a job that does not stay there."""
    stays = {"entries", "lock", "closed", "dataset.salt", "worker.log"}
    return {path.name for owner in OWNERS for path in world.home(owner).job(job).glob("*")} - stays


async def until(condition: Callable[[], object]) -> None:
    """Wait for something on disk or in a script."""
    for _ in range(3000):
        if condition():
            return
        await asyncio.sleep(0.02)
    raise AssertionError("it has not happened")


async def test_a_job_goes_on_after_lost_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with played(tmp_path, monkeypatch, lender=[lost, lost, done], platform=[lost, lost, done]) as (
        world,
        client,
        script,
    ):
        async with running_nodes(world, *OWNERS):
            spec = fresh()
            await world.submit(spec)
            view = await world.until(client, spec.job, FINAL)
            assert view["state"] == "done"
            assert len(events(view)) == 2 + 2 * 4, "nothing is said twice"
            await until(lambda: not left(world, spec.job))
        assert not script.acts["lender"]
        assert not script.acts["platform"]


@pytest.mark.parametrize(
    ("acts", "reason"),
    [
        ([lost] * 3, "platform failed at work: the worker was killed by signal 9"),
        ([lost, wrong], "platform failed at match: 3 rows have the identifier of another one"),
    ],
)
async def test_a_job_that_cannot_go_on_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, acts: list[Act], reason: str
) -> None:
    monkeypatch.setattr("silos.attempts.MAX_WORKERS", 3)
    async with played(tmp_path, monkeypatch, lender=[lost] * (len(acts) - 1), platform=acts) as (world, client, _):
        async with running_nodes(world, *OWNERS):
            spec = fresh()
            await world.submit(spec)
            view = await world.until(client, spec.job, FINAL)
            await until(lambda: not left(world, spec.job))
        assert (view["state"], view["reason"]) == ("failed", reason)


async def test_a_node_that_is_stopped_leaves_the_job_open_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with played(tmp_path, monkeypatch, lender=[], platform=[]) as (world, client, script):
        spec = fresh()
        async with running_nodes(world, *OWNERS):
            await world.submit(spec)
            await world.until(client, spec.job, {"running"})
            await until(lambda: all(script.links.values()))
        assert (await client.job(spec.job))["state"] == "running"
        assert left(world, spec.job) == {"link.key", "link.crt"}
        assert (world.home("lender").job(spec.job) / "link.key").stat().st_mode & 0o077 == 0
        script.acts = {"lender": [done], "platform": [done]}
        async with running_nodes(world, *OWNERS):
            view = await world.until(client, spec.job, FINAL)
            await until(lambda: not left(world, spec.job))
        assert view["state"] == "done"
        assert len(events(view)) == 2 + 2 * 4
        assert script.links == {"lender": [{"platform"}] * 2, "platform": [{"lender"}] * 2}


async def test_a_node_that_is_stopped_again_before_it_has_gone_on_leaves_the_job_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks, goes_on, usual = threading.Event(), threading.Event(), participation.review

    def slow(*arguments: Any) -> Any:
        looks.set()
        goes_on.wait(60)
        return usual(*arguments)

    async with played(tmp_path, monkeypatch, lender=[], platform=[]) as (world, client, script):
        spec = fresh()
        async with running_nodes(world, *OWNERS):
            await world.submit(spec)
            await world.until(client, spec.job, {"running"})
            await until(lambda: all(script.links.values()))
        with monkeypatch.context() as slowed:
            slowed.setattr(participation, "review", slow)
            async with running_nodes(world, "platform"):
                await until(looks.is_set)
            goes_on.set()
        assert (await client.job(spec.job))["state"] == "running"
        script.acts = {"lender": [done], "platform": [done]}
        async with running_nodes(world, *OWNERS):
            assert (await world.until(client, spec.job, FINAL))["state"] == "done"


async def test_nothing_stays_of_a_job_that_ended_while_the_node_was_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with played(tmp_path, monkeypatch, lender=[], platform=[]) as (world, client, _):
        spec, home = fresh(), world.home("lender")
        async with running_nodes(world, *OWNERS):
            await world.submit(spec)
            await world.until(client, spec.job, {"running"})
        diary = Diary(home.job(spec.job), "lender", spec.job, spec_digest(spec), home.load_identity())
        await diary.say(client, "cancelled", {"reason": "wrong month"})
        assert left(world, spec.job)
        async with running_nodes(world, *OWNERS):
            await until(lambda: not left(world, spec.job))


async def test_nothing_stays_of_a_job_that_ended_before_its_task_had_a_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The node came back and found the job running; the task hears of the end first and does nothing."""
    fetch, looking = Voice.view, set[str]()

    async def late(self: Voice) -> View:
        looking.add(self.silo.name)
        await self.silo.board.wait(self.job, FINAL)
        return await fetch(self)

    async with played(tmp_path, monkeypatch, lender=[], platform=[]) as (world, client, _):
        spec, home = fresh(), world.home("lender")
        async with running_nodes(world, *OWNERS):
            await world.submit(spec)
            await world.until(client, spec.job, {"running"})
            await until(lambda: len(left(world, spec.job)) == 2)
        monkeypatch.setattr(Voice, "view", late)
        async with running_nodes(world, *OWNERS):
            await until(lambda: looking >= set(OWNERS))
            diary = Diary(home.job(spec.job), "lender", spec.job, spec_digest(spec), home.load_identity())
            await diary.say(client, "cancelled", {"reason": "wrong month"})
            await until(lambda: not left(world, spec.job))


def test_a_worker_and_the_end_of_a_job_remove_what_a_killed_worker_left(tmp_path: Path) -> None:
    def leave() -> None:
        (tmp_path / "accord-abc" / "deep").mkdir(parents=True)
        (tmp_path / "accord-abc" / "deep" / "rows").touch()
        (tmp_path / ".table.parquet.new").touch()

    (tmp_path / "entries").mkdir()
    for name in ("closed", "dataset.salt", "worker.log", "lock", "table.parquet", "link.key", "link.crt"):
        (tmp_path / name).touch()
    before = {path.name for path in tmp_path.iterdir()}
    leave()
    leftovers.take_turn(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == before | {leftovers.WORKER_LOCK}
    leave()
    (tmp_path / leftovers.MATCHING_FOLDER / leftovers.STEPS_FOLDER).mkdir(parents=True)
    leftovers.tidy(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"entries", "closed", "dataset.salt", "worker.log", "lock"}
    leftovers.tidy(tmp_path / "never was")


def test_a_table_that_is_not_the_one_that_was_made_is_not_released(tmp_path: Path) -> None:
    folder, to = tmp_path / "job", tmp_path / "results" / "table.parquet"
    folder.mkdir()
    result = {"table": {"rows": 1, "sha256": hashlib.sha256(b"rows").hexdigest()}}
    with pytest.raises(JobFailed, match="lender released another table"):
        leftovers.check_table(folder, to, "lender", result)
    leftovers.check_table(folder, to, "lender", {"counts": {}})
    (folder / leftovers.TABLE).write_bytes(b"others")
    with pytest.raises(JobFailed, match="lender released another table"):
        leftovers.check_table(folder, to, "lender", result)
    (folder / leftovers.TABLE).write_bytes(b"rows")
    for _ in range(2):  # before it is handed out, and again where a node died right after that
        leftovers.check_table(folder, to, "lender", result)
        leftovers.hand_out_table(folder, to, result)
    assert to.read_bytes() == b"rows"


@pytest.mark.parametrize("what", ["write_result", "keep_outcome"])
async def test_a_node_that_dies_while_it_releases_does_the_rest_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """The result that is written is the one whose digest was said before."""
    place = participation if what == "write_result" else leftovers
    usual, deaths = getattr(place, what), list[str]()

    def die(path: Path, *arguments: Any, **named: Any) -> None:
        if "platform" not in path.parts:
            usual(path, *arguments, **named)
            return
        deaths.append(what)
        raise asyncio.CancelledError  # ends the job's task without a word, as the end of the process would

    acts = {"lender": [done], "platform": [keeping("linked", "everywhere")]}
    async with played(tmp_path, monkeypatch, **acts) as (world, client, script):
        spec = fresh()
        async with running_nodes(world, "lender"):
            with monkeypatch.context() as broken:
                broken.setattr(place, what, die)
                async with running_nodes(world, "platform"):
                    await world.submit(spec)
                    await world.heard(client, spec.job, "lender", "finished")
                    await until(lambda: deaths)
            assert not world.home("platform").result(spec.job).exists()
            script.acts["platform"] = [done]
            async with running_nodes(world, "platform"):
                view = await world.until(client, spec.job, FINAL)
                await until(lambda: not left(world, spec.job))
        assert (view["state"], view["reason"]) == ("done", "")
        assert len(events(view)) == 2 + 2 * 4
        stored = read_result(world.home("platform").result(spec.job))
        assert body(view, "platform", "released")["result_digest"] == result_digest(stored["salt"], stored["result"])
        assert script.acts["platform"] == ([done] if what == "write_result" else []), "a kept outcome needs no worker"


@pytest.mark.parametrize("marks", [("linked", "everywhere"), ("linked",)])
async def test_a_silo_that_has_its_rows_needs_nobody_who_has_his(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, marks: tuple[str, ...]
) -> None:
    """The lender is done and gone; the platform's worker was killed later."""
    assert marks[0] == leftovers.OWN_KEPT
    assert (leftovers.OWN_KEPT, leftovers.ALL_KEPT) == ("linked", "everywhere")
    acts = {"lender": [done], "platform": [keeping(*marks, then=lost), done]}
    async with played(tmp_path, monkeypatch, **acts) as (world, client, script):
        async with running_nodes(world, *OWNERS):
            spec = fresh(limits={"timeout_s": 3})
            await world.submit(spec)
            view = await world.until(client, spec.job, FINAL)
            await until(lambda: not left(world, spec.job))
        assert (view["state"], view["reason"]) == ("done", "")
        assert script.links["platform"] == [{"lender"}, set()]


# --- what the coordinator shows of the others


def chain(identity: Identity, spec: Spec, *said: str, start: int = 0, prev: str = "") -> list[bytes]:
    """What the lender says about a job, one after the other."""
    entries = list[bytes]()
    for seq, event in enumerate(said, start):
        statement = Statement(event, spec.job, spec_digest(spec), "lender", seq, prev, to_text(utcnow()), {})
        entries.append(identity.seal(statement))
        prev = parse(entries[-1]).payload_digest
    return entries


def test_statements_count_if_the_silo_made_them_about_this_job() -> None:
    lender, forger = (Identity(Ed25519PrivateKey.generate()) for _ in range(2))
    spec = fresh()
    expected = Expected(spec, spec_digest(spec), "", {"lender": lender.fingerprint})
    honest = chain(lender, spec, "consented", "started", "released")
    last = parse(honest[1]).payload_digest

    def heard(entries: list[bytes], key: Identity = lender) -> list[str]:
        found = statements("lender", expected, entries, {"lender": key.public})
        return [statement.event for statement in found]

    assert heard(honest) == ["consented", "started", "released"]
    assert heard(honest[:2]) == ["consented", "started"]
    for wrong, why in (
        (honest[:2] + chain(forger, spec, "released", start=2, prev=last), "the signature on 'released' is not that"),
        (honest[:2] + chain(lender, fresh(), "released", start=2, prev=last), "about another job or spec"),
        (chain(lender, fresh(), "consented", "started", "released"), "about another job or spec"),
        (chain(lender, fresh(job=spec.job, purpose="other"), "released"), "about another job or spec"),
        (honest[::2], "not complete or not in order"),
        (honest[:2] + chain(lender, spec, "released", start=2), "not complete or not in order"),
    ):
        with pytest.raises(ConsentError, match=why):
            heard(wrong)
    with pytest.raises(ConsentError, match="not the one pinned"):
        heard(chain(forger, spec, "consented", "started", "released"), forger)
    with pytest.raises(ConsentError, match="lender is not enrolled"):
        statements("lender", expected, honest, {})
    assert fingerprint(lender.public) == lender.fingerprint


async def test_a_forged_release_is_not_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The platform has its rows and is told that the lender has released; it must still help the lender to its own."""
    forger, lies = Identity(Ed25519PrivateKey.generate()), list[bool]()
    asked = CoordinatorClient.job

    async def job(self: CoordinatorClient, name: str) -> dict[str, Any]:
        view = await asked(self, name)
        if lies:
            entries = [base64.b64decode(entry["envelope"]) for entry in view["entries"]]
            own = [sealed for sealed in map(parse, entries) if sealed.statement.silo == "lender"]
            (forged,) = chain(forger, spec, "released", start=len(own), prev=own[-1].payload_digest)
            return {**view, "entries": [*view["entries"], {"index": 9, "envelope": base64.b64encode(forged).decode()}]}
        return view

    def lost_and_lied_to(_: Path) -> None:
        lies.append(True)
        raise JobFailed("work", "the worker was killed by signal 9", lost=True)

    monkeypatch.setattr(CoordinatorClient, "job", job)
    acts: dict[str, list[Act]] = {
        "lender": [lost, done],
        "platform": [keeping(leftovers.OWN_KEPT, then=lost_and_lied_to), done],
    }
    async with played(tmp_path, monkeypatch, **acts) as (world, client, script):
        async with running_nodes(world, *OWNERS):
            spec = fresh(limits={"timeout_s": 20})
            await world.submit(spec)
            view = await world.until(client, spec.job, FINAL)
        assert (view["state"], view["reason"]) == ("done", "")
    assert lies
    assert script.links["platform"] == [{"lender"}, {"lender"}], "it would have gone on alone"
    assert "what the coordinator shows of lender is not believed: the signature on 'released' is not" in caplog.text
