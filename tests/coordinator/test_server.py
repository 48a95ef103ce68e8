"""The process: isolation, signals, health, metrics, and a description that matches the routes."""

from __future__ import annotations

import re
import signal
import ssl
import subprocess
import sys
from pathlib import Path

import pytest

from coordinator import home as homes
from coordinator.app import STATUS
from coordinator.errors import Refusal
from coordinator.events import QUEUE_LENGTH, Hub, Progress
from coordinator.jobs import Job
from coordinator.openapi import document
from coordinator.routes import OPENAPI_PATH, ROUTES
from coordinator.server import _tls_context, init_home
from tests.coordinator.test_jobs import Play, State
from tests.coordinator.world import ORIGIN, START, TestSilo, World, call, make_spec

FORBIDDEN = ("torch", "numpy", "duckdb", "crypten", "mpc", "silos", "vertical")

ISOLATED = f"""
import sys
FORBIDDEN = {FORBIDDEN!r}
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in FORBIDDEN:
            raise ImportError(f"{{name}} is not for the coordinator")
        return None
sys.meta_path.insert(0, Blocker())
import pkgutil, coordinator, importlib
for module in pkgutil.iter_modules(coordinator.__path__):
    importlib.import_module("coordinator." + module.name)
loaded = [name for name in sys.modules if name.partition(".")[0] in FORBIDDEN]
assert not loaded, loaded
"""

SERVE = (
    ISOLATED
    + """
import asyncio
from pathlib import Path
from coordinator.server import serve
asyncio.run(serve(Path(sys.argv[1]), "127.0.0.1", 0, lambda port: print(port, flush=True)))
loaded = [name for name in sys.modules if name.partition(".")[0] in FORBIDDEN]
assert not loaded, loaded
print("stopped", flush=True)
"""
)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_serves_without_the_engine_and_stops_in_order(tmp_path: Path, number: signal.Signals) -> None:
    """A process in which torch, numpy, mpc and the rest cannot be imported starts, serves and stops on a signal."""
    init_home(tmp_path / "c", ["127.0.0.1"], ORIGIN)
    process = subprocess.Popen(
        [sys.executable, "-c", SERVE, str(tmp_path / "c")], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        first = process.stdout.readline()
        assert first.strip().isdigit(), process.communicate()[1]
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert (process.returncode, out, err) == (0, "stopped\n", "")


def test_the_tls_settings(tmp_path: Path) -> None:
    init_home(tmp_path / "c", ["127.0.0.1"], ORIGIN)
    context = _tls_context(homes.load(tmp_path / "c"))
    assert context.minimum_version == ssl.TLSVersion.TLSv1_3
    assert context.verify_mode == ssl.CERT_OPTIONAL
    assert context.verify_flags & ssl.VERIFY_X509_STRICT
    assert context.num_tickets == 0


async def test_health_and_metrics(world: World) -> None:
    http = world.session(await world.enrol("lender"))
    assert await call(http, "GET", "/healthz") == (200, {"status": "ok"})
    assert (await call(http, "GET", "/v1/jobs/none"))[0] == 404
    status, text = await call(http, "GET", "/metrics")
    assert status == 200
    for line in (
        'accord_requests_total{method="POST",route="/v1/enrol",status="200"} 1.0',
        'accord_requests_total{method="GET",route="/v1/jobs/{job}",status="404"} 1.0',
        'accord_log_entries_total{event="enrolled"} 1.0',
        "accord_log_size 1.0",
    ):
        assert line in text.splitlines()


async def test_every_route_is_described_and_every_description_is_a_route(world: World) -> None:
    status, described = await call(world.session(), "GET", "/openapi.json")
    assert status == 200
    told = {(method.upper(), path) for path, operations in described["paths"].items() for method in operations}
    paths = {(route.method, re.sub(r":[^}]*", "", route.path)) for route in ROUTES}  # without the router's patterns
    assert told == paths | {("GET", OPENAPI_PATH)}
    assert described["openapi"].startswith("3.1")
    open_routes = {
        path
        for path, operations in described["paths"].items()
        for op in operations.values()
        if op.get("security") == []
    }
    assert open_routes == {"/healthz", "/metrics", "/openapi.json", "/v1/ca", "/v1/enrol"}


def test_the_description_has_no_loose_ends() -> None:
    described = document(ROUTES, ORIGIN)
    names = set(described["components"]["schemas"])
    text = str(described)
    for name in names:
        assert f"#/components/schemas/{name}" in text or name == "Error", f"{name} is described and not used"
    used = {part.split("'")[0] for part in text.split("#/components/schemas/")[1:]}
    assert used <= names
    operations = [
        op["operationId"] for ops in described["paths"].values() for op in ops.values() if "operationId" in op
    ]
    assert len(operations) == len(set(operations))


def test_every_refusal_has_a_status() -> None:
    assert set(STATUS) == set(Refusal.__subclasses__())


def a_running_job() -> Job:
    job = Play({n: TestSilo(n) for n in ("lender", "platform", "dealer", "analyst")}, make_spec()).reach(State.RUNNING)
    assert job is not None
    return job


def test_a_listener_that_does_not_read_is_cut_off_and_progress_cannot_push_out_states() -> None:
    hub, job = Hub(), a_running_job()
    with (
        hub.listening("lender", "") as slow,
        hub.listening("stranger", "") as outsider,
        hub.listening("dealer", "other") as other,
    ):
        for count in range(QUEUE_LENGTH):
            hub.progressed(job, "platform", Progress(f"stage {count}", 0, 1, START))
        assert slow.queue.qsize() == QUEUE_LENGTH // 2
        for _ in range(QUEUE_LENGTH // 2):
            hub.state_changed(job, "finished", "platform")
        assert not slow.overrun.is_set()
        hub.state_changed(job, "finished", "platform")
        assert slow.overrun.is_set()
        assert outsider.queue.empty()
        assert other.queue.empty()


def test_hasty_progress_is_kept_but_not_told() -> None:
    hub, job = Hub(), a_running_job()
    with hub.listening("lender", job.id) as ear:
        for done in range(100):
            hub.progressed(job, "platform", Progress("train", done, 100, START))
        assert ear.queue.qsize() == 1
        assert hub.progress(job.id)["platform"].done == 99
        hub.progressed(job, "platform", Progress("train", 100, 100, START))  # the last one always counts
        assert ear.queue.qsize() == 2
