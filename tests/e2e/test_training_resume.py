"""Trainings between real processes that are killed on the way: they go on, and come to the model of a quiet run."""

import asyncio
import re
import signal
import time

import numpy as np
import psutil
import pytest
from rich.console import Console
from typer.testing import CliRunner

from silos import results
from silos.cli import app
from silos.client import connect
from silos.demo.run import export, job_costs, run_job, world
from silos.leftovers import TRAINING_FOLDER
from tests.e2e.test_failures import BOUND_S, assert_no_workers, people, register, request, signalled, workers

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

OWNERS, SILOS = ("lender", "platform"), ("lender", "platform", "dealer")
ROWS, PASSES = 12_000, 1000
SETTINGS = {"train": {"passes": PASSES}, "evaluate": {"holdout_percent": 30, "salt": "5a" * 16}}
BOUND = 1e-4
"""How far a coefficient of a standardised column may be from that of a quiet run.

What differs between the two is which of two neighbours each truncation rounds to: 2^-26 a pass at most, in a direction that
the next passes undo.  A standard error is a hundred times the bound here.
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    with world(tmp_path_factory.mktemp("world"), Console(quiet=True)) as made:
        rng = np.random.default_rng(11)
        extra = rng.normal(size=ROWS)
        label = (rng.random(ROWS) < 1 / (1 + np.exp(-extra))).astype(int)
        register(made, "lender", "long-a", people(range(ROWS)), label=label, extra={"c": extra + rng.normal(size=ROWS)})
        register(made, "platform", "long-b", people(range(ROWS)), extra={"c": extra, "d": rng.normal(size=ROWS)})
        yield made


@pytest.fixture(scope="module")
def quiet(made, tmp_path_factory):
    """The model that comes of it when nothing happens."""
    return trained(made, tmp_path_factory.mktemp("quiet"))[1]


def trained(made, folder, disturb=None, **settings):
    """Run a training, with something that happens meanwhile; its view, and every owner's model and AUC."""
    parties = [
        {"silo": "lender", "dataset": "long-a", "key": "email", "label": "label", "features": ["a", "b", "c"]},
        {"silo": "platform", "dataset": "long-b", "key": "email", "features": ["c", "d"]},
    ]
    path = request(folder, "long-a", "long-b", parties=parties, **SETTINGS, **settings)

    async def both():
        job = asyncio.create_task(run_job(made, path))
        if disturb is not None:
            await disturb(job)
        return await job

    spec, view = asyncio.run(both())
    assert (view["state"], view["reason"]) == ("done", "")
    assert export(made, spec, folder / "bundle.zip").ok
    assert_nothing_left(made, spec.job)
    told = [entry["envelope"] for entry in view["entries"]]
    assert len(told) == len(set(told))
    return view, {owner: results.read_result(made.home(owner).result(spec.job))["result"] for owner in OWNERS}


def assert_nothing_left(made, job):
    """Of a job that is over, no state and no key stays; within a bounded wait."""
    stays = {"entries", "lock", "closed", "dataset.salt", "worker.log"}
    deadline = time.monotonic() + BOUND_S
    for silo in SILOS:
        while not {path.name for path in made.home(silo).job(job).glob("*")} <= stays:
            assert time.monotonic() < deadline
            time.sleep(0.05)


def assert_same_model(given, expected):
    """Within the bound, and every digit of the rest."""
    for owner in OWNERS:
        one, other = (
            [float(item["coefficient"]) for item in result[owner]["model"]["inputs"]] for result in (given, expected)
        )
        assert np.abs(np.subtract(one, other)).max() < BOUND
        assert given[owner]["rows"] == expected[owner]["rows"]
        assert abs(float(given[owner]["auc"]) - float(expected[owner]["auc"])) <= BOUND
    intercepts = [float(result["lender"]["model"]["intercept"]) for result in (given, expected)]
    assert abs(intercepts[0] - intercepts[1]) < BOUND


def kept(made, silo, least=0):
    """States of the training that is under way, of a step from `least` on."""
    found = made.home(silo).jobs.glob(f"*/{TRAINING_FOLDER}/training.*.sealed")
    return [path for path in found if int(path.name.split(".")[1]) >= least]


async def until(job, condition):
    """Wait for something that happens while the job runs."""
    while not (found := condition()):
        if job.done():
            _, view = job.result()
            raise AssertionError(f"the job was {view['state']} before it could be disturbed: {view['reason']}")
        await asyncio.sleep(0.002)
    return found


async def killed(made, job, silo, step, later_s=0.0):
    """Kill the worker of `silo` when an owner has kept a state of `step` or a later one; wait until there is another one."""
    await until(job, lambda: kept(made, "lender", step))
    await asyncio.sleep(later_s)
    found = await until(job, lambda: workers(made, silo))
    signalled(found, signal.SIGKILL)
    await until(job, lambda: set(workers(made, silo)) - set(found))


def resumed_at(view, silo="lender"):
    """The pass that the last attempt went on from, as the statement of what the job cost says."""
    found = [re.fullmatch(r"resumed at pass (\d+)", stage) for stage in job_costs(view)[silo]["seconds"]]
    return [int(match[1]) for match in found if match]


def test_workers_that_are_killed_at_random_points_change_nothing(made, quiet, tmp_path):
    """One worker before the rows are matched; then each silo's, in a random order, a random while after a random pass."""
    rng, seen = np.random.default_rng(2), {}
    steps = np.sort(rng.integers(0, PASSES * 3 // 4, len(SILOS)))

    async def disturb(job):
        found = await until(job, lambda: workers(made, "platform"))
        signalled(found, signal.SIGKILL)
        for silo, step in zip(rng.permutation(SILOS), steps, strict=True):
            await killed(made, job, str(silo), int(step), rng.uniform(0, 0.05))
            for path in made.home("lender").jobs.glob(f"*/{TRAINING_FOLDER}/*"):
                seen[path.name] = path.stat().st_mode & 0o777, path.read_bytes()

    view, given = trained(made, tmp_path, disturb)
    (at,) = resumed_at(view)
    assert steps[-1] - PASSES // 5 <= at <= PASSES
    assert_same_model(given, quiet)
    assert seen.keys() >= {"key", "rows.00000001.sealed"}
    for name, (mode, body) in seen.items():
        assert mode == 0o600, name
        assert b"person" not in body
        assert b"plan" not in body


def test_nodes_that_are_killed_or_stopped(made, quiet, tmp_path):
    """The node of an owner dies with its worker, and the dealer's node is stopped: both come back and go on."""

    def serve(silo):
        made.processes[silo].wait(BOUND_S)
        made.processes[silo].stdout.close()
        made.start(silo, "silo", "serve", "--home", str(made.home(silo).root))

    async def disturb(job):
        await until(job, lambda: kept(made, "lender", 100))
        orphans = workers(made, "platform")
        made.processes["platform"].kill()
        assert not psutil.wait_procs(orphans, timeout=BOUND_S)[1], "a worker has outlived its node"
        await asyncio.to_thread(serve, "platform")
        await until(job, lambda: kept(made, "lender", 400))
        made.processes["dealer"].terminate()
        await asyncio.to_thread(serve, "dealer")

    view, given = trained(made, tmp_path, disturb)
    assert resumed_at(view)[0] >= 400 - PASSES // 5
    assert_same_model(given, quiet)


def test_a_worker_that_hangs_is_stopped_by_its_node(made, quiet, tmp_path):
    async def disturb(job):
        await until(job, lambda: kept(made, "lender", 200))
        signalled(workers(made, "dealer"), signal.SIGSTOP)

    view, given = trained(made, tmp_path, disturb, limits={"timeout_s": 15})
    assert resumed_at(view)
    assert_same_model(given, quiet)


def test_a_training_is_cancelled_at_once(made, tmp_path):
    path = request(tmp_path, "long-a", "long-b", **SETTINGS)

    async def cancel():
        job = asyncio.create_task(run_job(made, path))
        await until(job, lambda: kept(made, "lender", 100))
        (folder,) = {path.parent.parent.name for path in kept(made, "lender", 100)}
        command = ["job", "cancel", folder, "--home", str(made.home("lender").root), "--reason", "wrong month"]
        said = await asyncio.to_thread(CliRunner().invoke, app, command)
        began = time.monotonic()
        assert said.exit_code == 0, said.output
        while any(workers(made, silo) for silo in SILOS):
            assert time.monotonic() - began < BOUND_S, "a worker goes on with a job that is cancelled"
            await asyncio.sleep(0.02)
        return await job

    spec, view = asyncio.run(cancel())
    assert (view["state"], view["reason"]) == ("cancelled", "lender cancelled: wrong month")
    assert_no_workers(made)
    assert_nothing_left(made, spec.job)
    assert not any(made.home(owner).result(spec.job).exists() for owner in OWNERS)

    async def nothing_runs():
        async with connect(made.home("lender")) as client:
            return [job for job in await client.jobs() if job["state"] == "running"]

    assert not asyncio.run(nothing_runs())
