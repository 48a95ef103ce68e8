"""Persons and running nodes: a job starts after they approve, ends when they refuse or take it back, and survives restarts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from coordinator import statements as st
from silos.approvals import all_decided, all_pending, refuse
from silos.approvers import Subject, check_approvals
from silos.board import FINAL
from silos.client import CoordinatorClient, connect
from silos.diary import Diary
from silos.spec import Spec, spec_digest
from tests.silos.approvals_world import ANA, BO, PASSPHRASE, keep_keys, name_approvers, until
from tests.silos.test_node import accord, body, events, fake, fresh
from tests.silos.world import SILOS, World, enrolled_world, running_nodes


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCORD_PASSPHRASE", PASSPHRASE)
    monkeypatch.setattr("silos.approvals.POLL_S", 0.1)
    monkeypatch.setattr("silos.participation.GRACE_S", 0.5)


@dataclass
class Office:
    """The lender's administrator and approvers."""

    world: World
    client: CoordinatorClient

    async def accord(self, *arguments: str) -> int:
        return await asyncio.to_thread(accord, *arguments, "--home", self.world.home("lender").root)

    async def pending(self, spec: Spec) -> None:
        """Wait until the lender's node asks."""
        await until(lambda: spec.job in [one.job for one in all_pending(self.world.home("lender"))])

    async def ended(self, spec: Spec) -> tuple[str, str]:
        view = await self.world.until(self.client, spec.job, set(FINAL))
        return view["state"], view["reason"]


@asynccontextmanager
async def office(root: Path, needed: int) -> AsyncIterator[Office]:
    """A world in which the lender's rule asks for persons."""
    async with enrolled_world(root) as world, connect(world.home("lender")) as client:
        home = world.home("lender")
        keep_keys(home)
        name_approvers(home, needed=needed, base=home.policy.read_text())
        yield Office(world, client)


async def test_a_job_starts_when_two_persons_have_approved_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake(monkeypatch)
    async with office(tmp_path, 2) as at:
        spec = fresh()
        async with running_nodes(at.world, *SILOS):
            await at.world.submit(spec)
            await at.pending(spec)
            assert await at.accord("job", "approve", spec.job, "--as", ANA, "--yes") == 0
            capsys.readouterr()
            assert await at.accord("job", "show", spec.job) == 0
            line = f"waiting for approval by 1 person at lender; run 'accord job approve {spec.job}'"
            assert line in capsys.readouterr().out
        assert "refused" not in [event for _, event in events(await at.client.job(spec.job))], (
            "nodes may stop meanwhile"
        )
        async with running_nodes(at.world, *SILOS):
            await at.pending(spec)
            assert await at.accord("job", "approve", spec.job, "--as", ANA, "--yes") == 1
            assert await at.accord("job", "approve", spec.job, "--as", BO, "--yes") == 0
            await at.world.heard(at.client, spec.job, "lender", "consented")
            view = await at.client.job(spec.job)
        consent = body(view, "lender", "consented")
        approvals = [st.Approval(**one) for one in consent["approvals"]]
        assert [one.name for one in approvals] == [ANA, BO]
        check_approvals(approvals, Subject(spec.job, spec_digest(spec), consent["disclosure_digest"], "lender"))
        assert body(view, "platform", "consented")["approvals"] == []


async def test_an_approved_job_runs_to_its_end_and_cannot_be_withdrawn_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake(monkeypatch)
    async with office(tmp_path, 1) as at, running_nodes(at.world, *SILOS):
        spec = fresh()
        await at.world.submit(spec)
        await at.pending(spec)
        assert await at.accord("job", "approve", spec.job, "--as", ANA, "--yes") == 0
        assert await at.ended(spec) == ("done", "")
        capsys.readouterr()
        assert await at.accord("job", "withdraw", spec.job, "--reason", "too late") == 1
        assert capsys.readouterr().err == (
            f"accord: lender has released its result of job {spec.job}; a consent can be withdrawn only before that\n"
        )
        assert await at.accord("job", "withdraw", spec.job, "--reason", "\x1b") == 1
        assert capsys.readouterr().err == "accord: a reason is one sentence of at most 600 characters\n"
        assert [one.outcome for one in all_decided(at.world.home("lender"), 9)] == ["approved"]


async def test_a_persons_no_is_in_the_log_with_its_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake(monkeypatch)
    async with office(tmp_path, 1) as at, running_nodes(at.world, *SILOS):
        spec = fresh()
        await at.world.submit(spec)
        await at.pending(spec)
        assert await at.accord("job", "deny", spec.job, "--as", ANA, "--reason", "not agreed") == 0
        state, reason = await at.ended(spec)
        assert state == "refused"
        assert reason.startswith("lender refused: Ana Ruiz said no: not agreed")
        view = await at.client.job(spec.job)
        assert body(view, "lender", "refused")["reason"] == "Ana Ruiz said no: not agreed"
        assert ("lender", "consented") not in events(view)


async def test_a_job_that_a_partner_ends_is_asked_about_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake(monkeypatch)
    async with office(tmp_path, 1) as at, running_nodes(at.world, "lender"):
        spec = fresh()
        await at.world.submit(spec)
        await at.pending(spec)
        assert await at.accord("job", "cancel", spec.job) == 0
        assert (await at.ended(spec))[0] == "cancelled"
        await until(lambda: not all_pending(at.world.home("lender")))


@pytest.mark.parametrize("served", [True, False])
async def test_a_job_that_waits_can_be_withdrawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], served: bool
) -> None:
    """By the node, or by the command itself where none runs."""
    fake(monkeypatch)
    async with office(tmp_path, 1) as at, AsyncExitStack() as node:
        spec = fresh()
        await node.enter_async_context(running_nodes(at.world, "lender"))
        await at.world.submit(spec)
        await at.pending(spec)
        if not served:
            await node.aclose()
        capsys.readouterr()
        assert await at.accord("job", "withdraw", spec.job, "--reason", "a mistake") == 0
        by_node, by_us = f"the node of lender will refuse job {spec.job}\n", f"job {spec.job} is refused\n"
        assert capsys.readouterr().out == (by_node if served else by_us)
        state, reason = await at.ended(spec)
        assert (state, reason) == (
            "refused",
            "lender refused: the administrator of lender said no: a mistake (rule credit-model)",
        )
        home = at.world.home("lender")
        await until(lambda: not all_pending(home))
        assert [one.outcome for one in all_decided(home, 9)] == ["refused"]


async def test_a_consent_is_withdrawn_on_disk_while_the_coordinator_is_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("silos.withdraw.RETRIES", 2)
    monkeypatch.setattr("silos.withdraw.RETRY_S", 0.01)
    spec = fresh()
    async with office(tmp_path, 0) as at:
        await at.world.submit(spec)
    home = at.world.home("lender")
    diary = Diary(home.job(spec.job), "lender", spec.job, spec_digest(spec), home.load_identity())
    diary.write("consented", {})
    for _ in range(2):
        capsys.readouterr()
        assert await at.accord("job", "withdraw", spec.job, "--reason", "a mistake") == 1
        error = capsys.readouterr().err
        assert error.startswith(f"accord: the coordinator at {at.world.url} does not answer")
        assert error.endswith("; what lender said is kept, and the node or the same command sends it\n")
        last = diary.said()[-1].statement
        assert (last.event, last.spec_digest, last.body) == ("withdrawn", spec_digest(spec), {"reason": "a mistake"})
        assert diary.events() == ["proposed", "disclosed", "consented", "withdrawn"]
    diary.paths()[-1].unlink()
    diary.write("released", {})
    assert await at.accord("job", "withdraw", spec.job, "--reason", "a mistake") == 1
    assert capsys.readouterr().err == (
        f"accord: lender has released its result of job {spec.job}; a consent can be withdrawn only before that\n"
    )


async def test_a_consent_that_is_given_at_the_same_moment_is_withdrawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether all have answered just before the administrator's no, or the node signs just after it."""
    monkeypatch.setattr("silos.withdraw.RETRIES", 1)
    fake(monkeypatch)
    specs = fresh(), fresh()
    async with office(tmp_path, 1) as at, running_nodes(at.world, "lender"):
        for spec in specs:
            await at.world.submit(spec)
            await at.pending(spec)
    home = at.world.home("lender")
    for spec, late in zip(specs, (False, True), strict=True):
        diary = Diary(home.job(spec.job), "lender", spec.job, spec_digest(spec), home.load_identity())

        def no(*arguments: Any, diary: Diary = diary, late: bool = late) -> None:
            if not late:
                (diary.root / "pending.json").unlink()
                diary.write("consented", {})
            refuse(*arguments)
            diary.write("consented", {})

        monkeypatch.setattr("silos.withdraw.refuse", no)
        assert await at.accord("job", "withdraw", spec.job, "--reason", "a mistake") == 1, "there is no coordinator"
        assert diary.events() == ["proposed", "disclosed", "consented", "withdrawn"]


@pytest.mark.parametrize("started", [False, True])
async def test_a_consent_can_be_withdrawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, started: bool) -> None:
    """Before all have consented, and while the workers run; nothing is released then."""
    fake(monkeypatch, **dict.fromkeys(SILOS, "hang"))
    nodes = SILOS if started else ("lender", "platform")
    async with office(tmp_path, 0) as at, running_nodes(at.world, *nodes):
        spec = fresh()
        await at.world.submit(spec)
        if started:
            await at.world.until(at.client, spec.job, {"running"})
        else:
            await at.world.heard(at.client, spec.job, "lender", "consented")
        assert await at.accord("job", "withdraw", spec.job, "--reason", "the purpose has changed") == 0
        assert await at.ended(spec) == ("withdrawn", "lender withdrew its consent: the purpose has changed")
        assert await at.accord("job", "withdraw", spec.job, "--reason", "again") == 0, "said once, sent once"
        said = events(await at.client.job(spec.job))
        assert said.count(("lender", "withdrawn")) == 1
    assert not [event for _, event in said if event in ("failed", "released", "refused")]
    for name in SILOS:
        assert not at.world.home(name).result(spec.job).exists()


async def test_a_withdrawal_that_was_not_sent_is_sent_again(tmp_path: Path) -> None:
    async with office(tmp_path, 0) as at, running_nodes(at.world, "lender"):
        spec = fresh()
        await at.world.submit(spec)
        await at.world.heard(at.client, spec.job, "lender", "consented")
        home = at.world.home("lender")
        diary = Diary(home.job(spec.job), "lender", spec.job, spec_digest(spec), home.load_identity())
        async with diary.turn():
            diary.write("withdrawn", {"reason": "written, and the power went"})
        assert await at.accord("job", "withdraw", spec.job, "--reason", "once more") == 0
        assert await at.ended(spec) == ("withdrawn", "lender withdrew its consent: written, and the power went")


async def test_a_job_can_be_left_before_anything_was_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async with office(tmp_path, 1) as at:
        spec = fresh()
        await at.world.submit(spec, "platform")
        assert await at.accord("job", "withdraw", spec.job, "--reason", "not now") == 0
        assert await at.ended(spec) == ("refused", "lender refused: not now")
        assert await at.accord("job", "withdraw", spec.job, "--reason", "not now") == 1
        assert f"accord: job {spec.job} has ended already: it is refused\n" in capsys.readouterr().err
