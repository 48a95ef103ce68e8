"""Two silos with data whose policies permit matching, for tests of the command line and of the Python interface."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from silos import catalogue, workers
from silos.node import Node
from silos.validation import write_private
from tests.silos.world import RULE, World, coordinator_world, policy_text

LOANS = "email,phone,LIMIT_BAL\na@x.org,044 668 18 00,100\nb@x.org,,200\nc@x.org,079 123 45 67,300.5\n"
USAGE = "mail,tel,VISITS\nA@X.ORG,+41446681800,3\nc@x.org,,9\n"
PERMITTED = {
    "kinds": ["vertical.match", "vertical.measure"],
    "purposes": ["trial"],
    "join": ["*"],
    "label": [],
    "train": [],
    "sum": ["*"],
    "partner_sums": 64,
    "release": ["rows", "counts", "matches", "sums"],
}


@asynccontextmanager
async def matching_world(root: Path, *, same_names: bool = False) -> AsyncIterator[World]:
    """A coordinator, and the silos lender and platform, which permit everything here.

    same_names: whether both call their columns alike.
    """
    async with coordinator_world(root) as world:
        pins = {name: await world.enrol(name) for name in ("lender", "platform")}
        (root / "loans.csv").write_text(LOANS)
        (root / "usage.csv").write_text(USAGE.replace("mail,tel", "email,phone") if same_names else USAGE)
        theirs = ["email", "phone"] if same_names else ["mail", "tel"]
        for name, dataset, partner, join in (
            ("lender", "loans", "platform", ["email", "phone"]),
            ("platform", "usage", "lender", theirs),
        ):
            home = world.home(name)
            rule = {**RULE, **PERMITTED, "dataset": dataset, "partners": [partner], "join": join}
            write_private(home.policy, policy_text(rule, {partner: pins[partner]}, minimum=1))
            catalogue.add(home.catalogue, dataset, root / f"{dataset}.csv", join[0])
        yield world


@asynccontextmanager
async def nodes(world: World, *names: str) -> AsyncIterator[None]:
    """Their nodes, with the real declarations of what is revealed."""
    stop = asyncio.Event()
    tasks = [asyncio.create_task(Node(world.home(name)).run(stop)) for name in names]
    try:
        yield
    finally:
        stop.set()
        await asyncio.gather(*tasks)


def fake_matchers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers that match nothing, and release a made-up table."""
    root = Path(__file__).parent.parent.parent
    command = (
        sys.executable,
        "-c",
        f"import sys; sys.path.insert(0, {str(root)!r}); from tests.silos import fake_matcher; "
        "sys.exit(fake_matcher.main())",
    )

    async def run(
        order: Any, sockets: Any, log: Path, progress: workers.Progress, *, silent_s: float | None
    ) -> workers.Outcome:
        return await workers.run_worker(order, sockets, log, progress, command, silent_s=silent_s)

    monkeypatch.setattr("silos.attempts.run_worker", run)
