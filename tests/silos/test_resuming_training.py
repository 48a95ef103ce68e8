"""Trainings that go on after something was lost: a dealer's part in it, how long a silo waits, and workers that hang."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from silos import leftovers, worker
from silos.client import CoordinatorClient, connect
from silos.errors import JobFailed
from silos.sealed_files import KEY_FILE, SealedFiles, sealed_path
from silos.workers import LEAST_SILENT_S, Outcome, run_worker
from tests.silos.test_node import FINAL, events, fresh
from tests.silos.test_resuming import Act, Script, done, lost, until
from tests.silos.world import SILOS, World, enrolled_world, make_spec, running_nodes
from vertical import resuming

OWNERS = SILOS[:2]


class Trainers(Script):
    """Workers that are played: an owner comes to an AUC, the dealer to nothing."""

    async def run(self, order: Any, sockets: Any, log: Path, progress: Any, *, silent_s: float | None) -> Outcome:
        outcome = await super().run(order, sockets, log, progress, silent_s=silent_s)
        dealer = order["dataset"] is None
        return Outcome(None if dealer else {"auc": "0.7"}, [] if dealer else ["auc"], outcome.cost)


@asynccontextmanager
async def played(
    root: Path, monkeypatch: pytest.MonkeyPatch, **acts: list[Act]
) -> AsyncIterator[tuple[World, CoordinatorClient, Trainers]]:
    script = Trainers(acts, {silo: [] for silo in SILOS})
    monkeypatch.setattr("silos.attempts.run_worker", script.run)
    monkeypatch.setattr("silos.attempts.PAUSE_S", 0.01)
    monkeypatch.setattr("silos.attempts.LOOK_S", 0.05)
    monkeypatch.setattr("silos.participation.GRACE_S", 0.2)
    async with enrolled_world(root) as world, connect(world.home("lender")) as client:
        yield world, client, script


def keeping(*names: str, then: Act = done) -> Act:
    """A worker that has its result on disk, and perhaps knows that the others have theirs."""

    def act(folder: Path) -> None:
        files = SealedFiles(folder / leftovers.TRAINING_FOLDER, "test")
        for name in names:
            files.put(name, b"kept")
        then(folder)

    return act


def left(world: World, job: str) -> set[str]:
    """What is in the silos' folders of a job that does not stay there."""
    stays = {"entries", "lock", "closed", "dataset.salt", "worker.log"}
    return {path.name for silo in SILOS for path in world.home(silo).job(job).glob("*")} - stays


async def test_all_three_go_on_when_any_of_them_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    acts = {silo: [lost, lost, done] for silo in SILOS}
    async with played(tmp_path, monkeypatch, **acts) as (world, client, script):
        async with running_nodes(world, *SILOS):
            spec = fresh()
            await world.submit(spec)
            view = await world.until(client, spec.job, FINAL)
            await until(lambda: not left(world, spec.job))
        assert (view["state"], view["reason"]) == ("done", "")
        assert len(events(view)) == len(set(events(view))), "something is said twice"
        assert {silo: len(links) for silo, links in script.links.items()} == dict.fromkeys(SILOS, 3)
        assert all(links == set(SILOS) - {silo} for silo in SILOS for links in script.links[silo])


@pytest.mark.parametrize(
    "marks", [(leftovers.RESULT_KEPT, leftovers.RESULTS_AGREED), (leftovers.RESULT_KEPT,)], ids=["agreed", "kept"]
)
async def test_who_has_the_result_needs_nobody_and_then_nobody_needs_the_dealer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, marks: tuple[str, ...]
) -> None:
    """The lender is done; the workers of the platform and of the dealer are killed right after that."""
    acts = {"lender": [done], "platform": [keeping(*marks, then=lost), done], "dealer": [lost]}
    async with played(tmp_path, monkeypatch, **acts) as (world, client, script):
        async with running_nodes(world, *SILOS):
            spec = fresh()
            await world.submit(spec)
            view = await world.until(client, spec.job, FINAL)
            await until(lambda: not left(world, spec.job))
        assert (view["state"], view["reason"]) == ("done", "")
        assert script.links["platform"] == [{"lender", "dealer"}, set()]
        assert len(script.links["dealer"]) == 1, "a dealer that nobody needs has another worker"


def test_what_the_node_looks_for_is_what_the_worker_writes(tmp_path: Path) -> None:
    assert (leftovers.RESULT_KEPT, leftovers.RESULTS_AGREED) == (resuming.RESULT_PIECE, resuming.AGREED)
    assert not leftovers.own_kept(tmp_path)
    files = SealedFiles(tmp_path / leftovers.TRAINING_FOLDER, "test")
    files.put(resuming.RESULT_PIECE, b"")
    assert (leftovers.own_kept(tmp_path), leftovers.all_kept(tmp_path)) == (True, False)
    files.put(resuming.AGREED, b"")
    assert leftovers.all_kept(tmp_path)


def test_the_key_goes_before_what_it_opens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that fails in the middle leaves what nobody can read."""
    files = SealedFiles(tmp_path / leftovers.TRAINING_FOLDER, "test")
    files.put("result", b"shares")
    with monkeypatch.context() as failing:
        failing.setattr("silos.leftovers.shutil.rmtree", lambda *_arguments, **_named: None)
        leftovers.tidy(tmp_path)
    assert not (tmp_path / leftovers.TRAINING_FOLDER / KEY_FILE).exists()
    assert sealed_path(tmp_path / leftovers.TRAINING_FOLDER, "result").exists()
    leftovers.tidy(tmp_path)
    assert not list(tmp_path.iterdir())


async def test_a_silo_that_stays_away_is_named_in_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("silos.attempts.MAX_WAITS", 2)
    acts: dict[str, list[Act]] = {"lender": [], "platform": [], "dealer": []}
    async with played(tmp_path, monkeypatch, **acts) as (world, client, script):
        async with running_nodes(world, "lender", "dealer"):
            async with running_nodes(world, "platform"):
                spec = fresh(limits={"timeout_s": 1})
                await world.submit(spec)
                await until(lambda: all(script.links.values()))
            async with running_nodes(world, "platform"):  # it comes back, and its links are not those of the others
                view = await world.until(client, spec.job, FINAL)
        assert view["state"] == "failed"
        assert "platform failed at link: lost" in view["reason"]
        assert "no connection within 1 s" in view["reason"]


def test_a_training_resumes_where_nobody_leaves_before_its_end() -> None:
    assert make_spec().resumes
    assert make_spec(randomness="ot", dealer=None).resumes
    helped = make_spec(randomness="ot", dealer=None, helper="dealer", align={"protocol": "helper-psi"})
    assert not helped.resumes


SILENT = "import sys, time; sys.stdin.readline(); print('{0}', flush=True); time.sleep(600)"
TALKING = """
import sys, time
sys.stdin.readline()
for _ in range(8):
    time.sleep(0.25)
    print('{"alive": true}', flush=True)
print('{"result": null, "items": [], "cost": {}}', flush=True)
"""


async def test_a_worker_that_says_nothing_is_stopped(tmp_path: Path) -> None:
    progress = json.dumps({"progress": {"stage": "train", "done": 1, "total": 2}})
    command = (sys.executable, "-c", SILENT.replace("{0}", progress))
    seen: list[tuple[str, int, int]] = []
    with pytest.raises(JobFailed, match=r"the worker has said nothing for 1\.5 s") as caught:
        await run_worker({}, {}, tmp_path / "log", lambda *told: seen.append(told), command, silent_s=1.5)
    assert caught.value.lost
    assert seen == [("train", 1, 2)]


async def test_a_worker_that_is_there_may_take_its_time(tmp_path: Path) -> None:
    command = (sys.executable, "-c", TALKING)
    outcome = await run_worker({}, {}, tmp_path / "log", lambda *_told: None, command, silent_s=1.8)
    assert outcome == Outcome(None, [], {})


def test_a_worker_says_often_enough_that_it_is_there(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    naps: list[float] = []

    def nap(seconds: float) -> None:
        naps.append(seconds)
        if len(naps) > 2:
            raise InterruptedError

    monkeypatch.setattr("silos.worker.time.sleep", nap)
    with pytest.raises(InterruptedError):
        worker._say_that_we_are_here()
    assert capsys.readouterr().out == '{"alive": true}\n' * 2
    assert max(naps) * 3 < LEAST_SILENT_S
