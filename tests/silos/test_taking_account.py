"""What jobs take of privacy budgets, as nodes do it against a real coordinator; the worker is a stand-in."""

from __future__ import annotations

import asyncio
import base64
import uuid
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from coordinator.envelope import parse
from silos.budget import Ledger
from silos.client import CoordinatorClient, connect
from silos.config import Home
from silos.spec import Spec
from silos.times import utcnow
from silos.validation import write_private
from tests.silos.test_node import fake
from tests.silos.world import BOUND_S, MATCHERS, SILOS, World, enrolled_world, make_spec, running_nodes

RHO = Decimal("0.125")


async def allow(world: World, client: CoordinatorClient, *names: str) -> None:
    """Let these owners tell how many rows match with noise, twice at an epsilon of 0.5."""
    pins = {s["silo"]: s["fingerprint"] for s in await client.roster()}
    for name, dataset in (("lender", "loans"), ("platform", "usage")):
        world.set_policy(name, pins, kinds=["vertical.measure"], release=["matches"])
        if name in names:
            path = world.home(name).policy
            budget = f'[datasets.{dataset}]\nbudget = {{ rho = "0.3", delta = "1e-6" }}\n'
            write_private(path, path.read_text(encoding="utf-8") + budget)


def noised() -> Spec:
    align = {"protocol": "hidden", "minimum_matches": 100}
    asked: dict[str, Any] = {"kind": "vertical.measure", "parties": MATCHERS, "align": align, "release": ["matches"]}
    return make_spec(job=uuid.uuid4().hex, now=utcnow(), epsilon="0.5", **asked)


def consents(view: dict[str, Any]) -> dict[str, Any]:
    said = [parse(base64.b64decode(entry["envelope"])).statement for entry in view["entries"]]
    return {s.silo: s.body["budget"] for s in said if s.event == "consented"}


def account(home: Home, counterparty: str, job: str) -> tuple[str | None, Decimal]:
    with Ledger(home) as ledger:
        return ledger.state(job), ledger.balance("loans" if counterparty == "platform" else "usage", counterparty)


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(BOUND_S):
        while True:
            if holds():
                return
            await asyncio.sleep(0.05)


async def test_both_owners_are_charged_and_a_job_that_fails_after_its_start_stays_charged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake(monkeypatch, lender="fail")
    async with enrolled_world(tmp_path) as world, connect(world.home("lender")) as client:
        await allow(world, client, "lender", "platform")
        ended = []
        async with running_nodes(world, *SILOS):
            for _ in range(3):
                spec = noised()
                await world.submit(spec)
                ended.append(await world.until(client, spec.job, {"failed", "refused", "done"}))
        assert [view["state"] for view in ended] == ["failed", "failed", "refused"]
        charge = {"rho": "0.125", "limit": "0.3", "delta": "0.000001"}
        for view, before in zip(ended, ("0", "0.125"), strict=False):
            assert consents(view) == {
                "lender": [{**charge, "counterparty": "platform", "before": before}],
                "platform": [{**charge, "counterparty": "lender", "before": before}],
                "dealer": [],
            }
        assert ended[2]["reason"].endswith("the privacy budget of this silo does not suffice for the job")
        for owner, counterparty in (("lender", "platform"), ("platform", "lender")):
            for view in ended[:2]:
                assert account(world.home(owner), counterparty, view["job"]) == ("started", 2 * RHO)


async def test_a_job_that_a_partner_refuses_costs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake(monkeypatch)
    async with enrolled_world(tmp_path) as world, connect(world.home("lender")) as client:
        await allow(world, client, "lender")
        spec, home = noised(), world.home("lender")
        async with running_nodes(world, "lender", "dealer"):
            await world.submit(spec)
            await world.heard(client, spec.job, "lender", "consented")
            assert account(home, "platform", spec.job) == ("reserved", RHO)
            async with running_nodes(world, "platform"):
                view = await world.until(client, spec.job, {"refused"})
                await until(lambda: account(home, "platform", spec.job) == ("void", Decimal(0)))
        assert view["reason"].endswith("the privacy budget of this silo does not suffice for the job")


async def test_a_node_that_was_away_gives_back_what_never_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake(monkeypatch)
    async with enrolled_world(tmp_path) as world, connect(world.home("lender")) as client:
        await allow(world, client, "lender")
        spec, home = noised(), world.home("lender")
        async with running_nodes(world, "lender", "dealer"):
            await world.submit(spec)
            await world.heard(client, spec.job, "lender", "consented")
        async with running_nodes(world, "lender", "dealer", "platform"):
            await until(lambda: account(home, "platform", spec.job) == ("void", Decimal(0)))


async def test_a_node_whose_ledger_cannot_be_read_refuses_and_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake(monkeypatch)
    async with enrolled_world(tmp_path) as world, connect(world.home("lender")) as client:
        await allow(world, client, "lender", "platform")
        async with running_nodes(world, "lender", "dealer"):
            ledger = world.home("lender").state / "ledger.db"
            ledger.write_bytes(b"x" * 8192)
            sentence = "the ledger of this silo cannot be used, so no job can begin"
            for _ in range(2):
                spec = noised()
                await world.submit(spec)
                view = await world.until(client, spec.job, {"refused"})
                assert view["reason"].endswith(sentence)
