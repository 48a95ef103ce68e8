"""Nodes against a real coordinator over real TLS; the worker is a stand-in, everything around it is real."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import sys
import uuid
from pathlib import Path
from typing import Any

import pytest

from coordinator.envelope import parse
from silos import workers
from silos.cli import main
from silos.client import CoordinatorClient, connect
from silos.diary import Diary
from silos.disclosure import disclosure
from silos.errors import ConfigError
from silos.node import Node
from silos.results import read_result, result_digest
from silos.spec import Spec, spec_digest
from silos.times import utcnow
from silos.verify import verify_bundle
from tests.silos.world import MATCHERS, SILOS, World, enrolled_world, make_spec, registry, running_nodes

FINAL = {"done", "refused", "failed", "cancelled", "expired"}


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("silos.participation.GRACE_S", 0.5)


def fake(monkeypatch: pytest.MonkeyPatch, **modes: str) -> None:
    """Let each silo's worker end in a mode of fake_worker.py; "ok" unless named."""
    script = str(Path(__file__).with_name("fake_worker.py"))

    async def run(
        order: Any, sockets: Any, log: Path, progress: workers.Progress, *, silent_s: float | None
    ) -> workers.Outcome:
        command = (sys.executable, script, modes.get(order["me"], "ok"))
        return await workers.run_worker(order, sockets, log, progress, command, silent_s=silent_s)

    monkeypatch.setattr("silos.attempts.run_worker", run)


def fresh(**changes: Any) -> Spec:
    return make_spec(job=uuid.uuid4().hex, now=utcnow(), **changes)


async def passing(world: World, client: CoordinatorClient) -> Spec:
    """A job of a kind that does not go on after a crash, permitted at both owners."""
    pins = {s["silo"]: s["fingerprint"] for s in await client.roster()}
    for name in ("lender", "platform"):
        world.set_policy(name, pins, kinds=["vertical.measure"], release=["matches"])
    return fresh(kind="vertical.measure", parties=MATCHERS)


def events(view: dict[str, Any]) -> list[tuple[str, str]]:
    said = [parse(base64.b64decode(e["envelope"])).statement for e in view["entries"]]
    return [(s.silo, s.event) for s in said]


def body(view: dict[str, Any], silo: str, event: str) -> dict[str, Any]:
    said = [parse(base64.b64decode(e["envelope"])).statement for e in view["entries"]]
    return next(s.body for s in said if (s.silo, s.event) == (silo, event))


def accord(*arguments: object) -> int:
    """The exit code of a command."""
    try:
        return main([str(a) for a in arguments])
    except SystemExit as exc:
        return int(exc.code or 0)


async def outcome(world: World, client: CoordinatorClient, spec: Spec, **options: Any) -> dict[str, Any]:
    await world.submit(spec, **options)
    return await world.until(client, spec.job, FINAL)


async def test_a_job_runs_to_its_release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake(monkeypatch)
    async with enrolled_world(tmp_path) as world, connect(world.home("lender")) as client:
        async with running_nodes(world, *SILOS):
            spec = fresh()
            view = await outcome(world, client, spec)
            assert (view["state"], view["reason"]) == ("done", "")
        for owner in ("lender", "platform"):
            stored = read_result(world.home(owner).result(spec.job))
            released = body(view, owner, "released")
            assert released == {
                "recipient": owner,
                "items": ["auc"],
                "result_digest": result_digest(stored["salt"], stored["result"]),
            }
            order = events(view)
            assert order.index((owner, "released")) < order.index((owner, "finished"))
        assert not world.home("dealer").result(spec.job).exists()
        started = {silo: body(view, silo, "started") for silo in SILOS}
        assert started["lender"] == started["platform"] == started["dealer"]
        assert set(started["lender"]["identities"]) == set(SILOS)
        sessions = {read_result(world.home(o).result(spec.job))["result"]["session"] for o in ("lender", "platform")}
        assert len(sessions) == 1


async def test_a_job_without_a_dealer_needs_two_nodes_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake(monkeypatch)
    async with enrolled_world(tmp_path) as world, connect(world.home("lender")) as client:
        async with running_nodes(world, "lender", "platform"):
            spec = fresh(randomness="ot", dealer=None)
            view = await outcome(world, client, spec)
        assert (view["state"], view["reason"]) == ("done", "")
        assert (view["participants"], view["dealer"]) == (["lender", "platform"], None)
        assert body(view, "lender", "started") == body(view, "platform", "started")
        assert not world.home("dealer").job(spec.job).exists()
        file = tmp_path / "bundle.zip"
        root = world.home("platform").root
        assert await asyncio.to_thread(accord, "audit", "export", spec.job, "-o", file, "--home", root) == 0
        assert verify_bundle(file).ok
        capsys.readouterr()
        assert await asyncio.to_thread(accord, "job", "show", spec.job, "--home", root) == 0
        shown = capsys.readouterr().out
    assert re.search(r"^randomness +ot *$", shown, re.MULTILINE)
    assert re.search(r"^lender +1 +platform 1 +9 +2 triple \(1,234\) *$", shown, re.MULTILINE)


async def test_the_audit_commands_prove_a_finished_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake(monkeypatch)
    root, bundle = tmp_path / "lender", tmp_path / "bundle.zip"
    kept, today = tmp_path / "kept", tmp_path / "today"

    async def audit(*arguments: object) -> int:
        return await asyncio.to_thread(accord, "audit", *arguments, "--home", root)

    async with enrolled_world(tmp_path) as world, connect(world.home("lender")) as client:
        assert await audit("checkpoint", "-o", kept) == 0
        assert capsys.readouterr().out == f"checkpoint of 3 entries written to {kept}\n"
        async with running_nodes(world, *SILOS):
            job = (await outcome(world, client, fresh()))["job"]
        home = world.home("lender")
        assert await audit("export", job, "-o", bundle) == 0
        assert accord("audit", "verify", bundle, "--since", kept) == 0
        assert await audit("export", job, "-o", bundle, "--since", kept) == 0
        assert await audit("checkpoint", "-o", today) == 0
        await world.enrol("stranger")
        assert await asyncio.to_thread(accord, "audit", "export", job, "-o", "x", "--home", tmp_path / "stranger") == 1
        assert "there is no such job" in capsys.readouterr().err
        assert await audit("export", job, "-o", tmp_path / "other.zip", "--since", bundle) == 1
        assert "the earlier checkpoint is not of this log" in capsys.readouterr().err
    for since in (kept, today):
        assert accord("audit", "verify", bundle, "--since", since) == 0
    capsys.readouterr()
    options = ["--log-key", home.load_enrolment().log_key, "--result", home.result(job)]
    options += ["--pin", f"lender={home.load_identity().fingerprint}"]
    assert accord("audit", "verify", bundle, *options, "--json") == 0
    assert json.loads(capsys.readouterr().out)["ok"] is True
    options[-1] = f"lender={'0' * 64}"
    assert accord("audit", "verify", bundle, *options) == 1


async def test_refusals_name_the_rule_the_column_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake(monkeypatch)
    async with (
        enrolled_world(tmp_path) as world,
        connect(world.home("lender")) as client,
        running_nodes(world, "lender", "platform"),
    ):
        parties = fresh().document()["parties"]

        async def reason(**changes: Any) -> tuple[str, str]:
            view = await outcome(world, client, fresh(**changes))
            assert view["state"] == "refused"
            silo = next(silo for silo, event in events(view) if event == "refused")
            said = body(view, silo, "refused")
            return said["reason"], said["rule"]

        age = {**parties[0], "features": [{"column": "AGE", "as": "number"}]}
        assert await reason(parties=[age, parties[1]]) == (
            "policy of lender, rule 'credit-model': column 'AGE' may not be used for training with platform",
            "credit-model",
        )
        unknown = {**parties[1], "features": [{"column": "VISIT", "as": "number"}]}
        assert await reason(parties=[parties[0], unknown]) == (
            "data set 'usage' has no column 'VISIT'; did you mean 'VISITS'?",
            "",
        )
        text = {**parties[1], "features": [{"column": "CITY", "as": "number"}]}
        assert (await reason(parties=[parties[0], text]))[0] == (
            "column 'CITY' of data set 'usage' is text, it cannot be used as a number"
        )
        loans = tmp_path / "loans.csv"
        loans.write_text(loans.read_text() + "d@x.org,0,1,m\n")
        assert (await reason())[0] == "the file of data set 'loans' has changed since it was registered"


async def test_a_silo_that_listens_is_reached_directly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake(monkeypatch)
    async with enrolled_world(tmp_path) as world, connect(world.home("lender")) as client:
        config = world.home("lender").config
        config.write_text('listen = "127.0.0.1:0"\nadvertise = "localhost:0"\n' + config.read_text())
        async with running_nodes(world, *SILOS):
            direct = await outcome(world, client, fresh())
            relayed = await outcome(world, client, fresh(links="relay"))
    assert (direct["state"], relayed["state"]) == ("done", "done")
    assert body(direct, "lender", "consented")["endpoint"].startswith("localhost:")
    assert not body(direct, "lender", "consented")["endpoint"].endswith(":0")
    assert body(direct, "platform", "consented")["endpoint"] == ""
    assert body(relayed, "lender", "consented")["endpoint"] == ""


async def test_a_job_that_is_not_what_it_says_is_refused(tmp_path: Path) -> None:
    async with (
        enrolled_world(tmp_path) as world,
        connect(world.home("lender")) as client,
        running_nodes(world, "platform"),
    ):
        spec = fresh()
        wrong = disclosure(spec, registry)
        wrong["lines"] = wrong["lines"][1:]
        view = await outcome(world, client, spec, shown=wrong)
        assert view["reason"] == "platform refused: the disclosure is not what this silo computes from the spec"


async def test_a_partner_with_another_key_than_the_pinned_one_ends_the_job(tmp_path: Path) -> None:
    async with enrolled_world(tmp_path) as world, connect(world.home("lender")) as client:
        pins = {s["silo"]: s["fingerprint"] for s in await client.roster()}
        world.set_policy("platform", {**pins, "dealer": "0" * 64})
        async with running_nodes(world, *SILOS):
            view = await outcome(world, client, fresh())
            assert view["state"] == "failed"
            assert view["reason"] == (
                "platform failed at run: the key presented for dealer is not the one pinned in the policy"
            )
            assert ("platform", "started") not in events(view)


@pytest.mark.parametrize(
    ("mode", "reason"),
    [
        ("fail", "platform failed at align: 2 identifiers occur twice"),
        ("die", "platform failed at work: the worker was killed by signal 9"),
        ("greedy", "platform failed at release: the worker of platform released ['rows'], which is not in the spec"),
    ],
)
async def test_a_worker_that_fails_ends_the_job_with_its_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str, reason: str
) -> None:
    fake(monkeypatch, platform=mode)
    monkeypatch.setattr("silos.attempts.MAX_WORKERS", 1)  # a training may lose some before it fails
    async with (
        enrolled_world(tmp_path) as world,
        connect(world.home("lender")) as client,
        running_nodes(world, *SILOS),
    ):
        view = await outcome(world, client, fresh())
        assert (view["state"], view["reason"]) == ("failed", reason)
        assert not world.home("platform").result(view["job"]).exists()


async def test_a_cancelled_job_kills_its_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake(monkeypatch, lender="hang", platform="hang", dealer="hang")
    async with enrolled_world(tmp_path) as world, connect(world.home("lender")) as client:
        async with running_nodes(world, *SILOS):
            spec, home = await passing(world, client), world.home("lender")
            await world.submit(spec)
            await world.until(client, spec.job, {"running"})
            diary = Diary(home.job(spec.job), "lender", spec.job, spec_digest(spec), home.load_identity())
            await diary.say(client, "cancelled", {"reason": "wrong month"})
            assert (await client.job(spec.job))["reason"] == "lender cancelled: wrong month"
        assert [home.job(spec.job).joinpath("closed").exists() for home in map(world.home, SILOS)] == [True] * 3


async def test_a_node_that_stops_says_so_and_its_worker_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake(monkeypatch, lender="hang", platform="hang", dealer="hang")
    async with (
        enrolled_world(tmp_path) as world,
        connect(world.home("lender")) as client,
        running_nodes(world, "lender", "dealer"),
    ):
        spec = await passing(world, client)
        async with running_nodes(world, "platform"):
            await world.submit(spec)
            await world.until(client, spec.job, {"running"})
        view = await world.until(client, spec.job, FINAL)
        assert view["reason"] == "platform failed at stop: the node of platform was stopped during the job"


@pytest.mark.parametrize("others", [("lender", "dealer"), ()])
async def test_a_node_that_comes_back_ends_the_jobs_it_had_consented_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, others: tuple[str, ...]
) -> None:
    """A node that was killed says nothing; its next start finds its own consent on disk."""
    fake(monkeypatch, lender="hang", dealer="hang", platform="hang")
    monkeypatch.setattr("silos.node.FAREWELL_S", 0.0)  # as if killed
    async with (
        enrolled_world(tmp_path) as world,
        connect(world.home("lender")) as client,
        running_nodes(world, *others),
    ):
        spec = await passing(world, client)
        async with running_nodes(world, "platform"):
            await world.submit(spec)
            await world.heard(client, spec.job, "platform", "started" if others else "consented")
        async with running_nodes(world, "platform"):
            view = await world.until(client, spec.job, FINAL)
        assert view["state"] == ("failed" if others else "refused")
        assert view["reason"].endswith("the node of platform restarted during the job")


async def test_one_home_has_one_node(tmp_path: Path) -> None:
    async with enrolled_world(tmp_path) as world, running_nodes(world, "platform"):
        await asyncio.sleep(0)
        with pytest.raises(ConfigError, match=r"another node serves .*platform already"):
            await Node(world.home("platform"), registry).run(asyncio.Event())


async def test_a_busy_silo_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job counts while it runs; one that waits for others' consents does not."""
    fake(monkeypatch, lender="hang", platform="hang", dealer="hang")
    async with enrolled_world(tmp_path) as world, connect(world.home("lender")) as client:
        config = world.home("platform").config
        config.write_text(config.read_text().replace("concurrent_jobs = 4", "concurrent_jobs = 1"))
        async with running_nodes(world, "platform"):
            first, second = fresh(), fresh()
            for spec in (first, second):
                await world.submit(spec)
                await world.heard(client, spec.job, "platform", "consented")
            await Diary(
                world.home("lender").job(second.job),
                "lender",
                second.job,
                spec_digest(second),
                world.home("lender").load_identity(),
            ).say(client, "cancelled", {"reason": "one is enough"})
            async with running_nodes(world, "lender", "dealer"):
                await world.until(client, first.job, {"running"})
                view = await outcome(world, client, fresh())
                assert view["reason"] == "platform refused: platform runs as many jobs as it may"
