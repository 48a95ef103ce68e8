"""Quotas per silo: what is beyond them is refused with one sentence and counted, and other silos notice nothing."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from coordinator.errors import TooMany
from coordinator.home import SETTINGS, HomeError
from coordinator.quotas import Bucket, Counters, Quotas, read
from coordinator.server import init_home
from silos.client import CoordinatorClient
from silos.errors import CoordinatorRefused, CoordinatorUnreachable
from tests.coordinator.test_relay import OPTIONS, address
from tests.coordinator.world import ORIGIN, World, a_job, a_world, call


class Hands:
    """A clock that a test turns."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def a_home(folder: Path, **quotas: int) -> Path:
    """A coordinator's home with quotas of its own."""
    home = folder / "coordinator"
    init_home(home, ["127.0.0.1", "localhost"], ORIGIN)
    settings = json.loads((home / SETTINGS).read_text())
    (home / SETTINGS).write_text(json.dumps({**settings, "quotas": quotas}))
    return home


def crossed(world: World, silo: str, quota: str) -> float | None:
    read_sample = world.server.coordinator.metrics.registry.get_sample_value
    return read_sample("accord_quota_total", {"silo": silo, "quota": quota})


async def test_jobs_and_statements_beyond_the_quota_are_refused_for_that_silo_only(tmp_path: Path) -> None:
    a_home(tmp_path, jobs_per_minute=1, entries_per_minute=2)
    async with a_world(tmp_path) as world:
        job = await a_job(world)
        assert (await job.submit())[0] == 200
        status, reply = await job.submit()
        assert status == 429
        assert reply["error"].startswith("lender submits more than 1 jobs a minute; try again in ")
        for _ in range(2):
            assert (await job.send("lender", b"nonsense"))[0] == 400
        status, reply = await job.send("lender", b"nonsense")
        assert status == 429
        assert reply["error"].startswith("lender makes more than 2 statements a minute; try again in ")
        assert (await job.send("platform", b"nonsense"))[0] == 400
        assert (crossed(world, "lender", "jobs"), crossed(world, "lender", "entries")) == (1, 1)
        assert crossed(world, "platform", "entries") is None


async def test_sockets_beyond_the_quota_are_refused_until_one_is_closed(tmp_path: Path) -> None:
    a_home(tmp_path, sockets=2)
    async with a_world(tmp_path) as world:
        job = await a_job(world)
        await job.submit()
        await job.all_consent()
        http = job.http["lender"]
        async with http.ws_connect("/v1/events") as events, http.ws_connect(address(job, "platform"), **OPTIONS):
            status, reply = await call(http, "GET", address(job, "dealer"))
            assert (status, reply["error"]) == (429, "lender has 2 open sockets, and may have no more")
            async with job.http["platform"].ws_connect("/v1/events"):
                await events.close()
            async with asyncio.timeout(60):  # the server's end of it closes a moment later
                while (await call(http, "GET", address(job, "dealer")))[0] == 429:  # noqa: ASYNC110
                    await asyncio.sleep(0.02)
        assert (crossed(world, "lender", "sockets") or 0) >= 1


async def test_who_sends_faster_than_it_may_is_slowed_down_and_loses_nothing(tmp_path: Path) -> None:
    a_home(tmp_path, relay_bytes_per_s=1 << 20)
    async with a_world(tmp_path) as world:
        job = await a_job(world)
        await job.submit()
        await job.all_consent()
        async with (
            job.http["lender"].ws_connect(address(job, "platform"), **OPTIONS) as a,
            job.http["platform"].ws_connect(address(job, "lender"), **OPTIONS) as b,
        ):
            frames = [bytes([i]) * (1 << 19) for i in range(6)]  # 3 MiB, of which 2 pass at once
            for frame in frames:
                await a.send_bytes(frame)
            for frame in frames:
                assert await b.receive_bytes(timeout=60) == frame
            assert (crossed(world, "lender", "bytes") or 0) >= 1
            await b.send_bytes(b"quick")
            assert await a.receive_bytes(timeout=60) == b"quick"
            assert crossed(world, "platform", "bytes") is None


def test_a_bucket_gives_back_at_its_rate_and_no_more_than_it_holds() -> None:
    bucket = Bucket(2.0, 4.0, 0.0)
    assert [bucket.take(0.0) for _ in range(5)] == [0, 0, 0, 0, 0.5]
    assert [bucket.take(0.5), bucket.take(0.5)] == [0, 0.5]
    assert [bucket.take(1000.0) for _ in range(5)] == [0, 0, 0, 0, 0.5]
    assert bucket.wait_s(6, 2000.0) == 1.0
    assert bucket.wait_s(0, 2000.5) == 0.5


def test_a_minute_later_there_is_room_again() -> None:
    clock, told = Hands(), list[tuple[str, str]]()
    counters = Counters(Quotas(jobs_per_minute=2), lambda *what: told.append(what), clock)
    counters.count("lender", "jobs")
    counters.count("lender", "jobs")
    with pytest.raises(TooMany, match=r"^lender submits more than 2 jobs a minute; try again in 30 s$"):
        counters.count("lender", "jobs")
    clock.now = 30.0
    counters.count("lender", "jobs")
    assert told == [("lender", "jobs")]


async def test_a_silo_is_told_to_come_again_and_not_that_it_was_refused(tmp_path: Path) -> None:
    """A node repeats what it could not say, so a quota delays its jobs and ends none."""
    a_home(tmp_path, entries_per_minute=1, sockets=1)
    async with a_world(tmp_path) as world:
        job = await a_job(world)
        await job.submit()
        async with CoordinatorClient(world.url, world.tls(job.silos["lender"])) as client:
            with pytest.raises(CoordinatorRefused):
                await client.post_entry(job.spec["job"], b"nonsense")
            with pytest.raises(
                CoordinatorUnreachable, match=r"^lender makes more than 1 statements a minute; try again "
            ):
                await client.post_entry(job.spec["job"], b"nonsense")
            async with client.events():
                with pytest.raises(CoordinatorUnreachable, match=r" has too many open sockets of this silo$"):
                    async with client.events():
                        pass


async def test_zero_means_no_quota() -> None:
    none = Quotas(sockets=0, relay_bytes_per_s=0, jobs_per_minute=0, entries_per_minute=0)
    counters = Counters(none, lambda *_: pytest.fail("nothing is refused"), Hands())
    for _ in range(1000):
        counters.count("lender", "jobs")
        await counters.pace("lender", 1 << 30)
        with counters.socket("lender"), counters.socket("lender"):
            pass
    assert not counters._sockets


@pytest.mark.parametrize(
    ("quotas", "sentence"),
    [
        ({"sockets": -1}, "sockets"),
        ({"sockets": "9"}, "sockets"),
        ({"speed": 1}, "speed"),
        ({"relay_bytes_per_s": 10}, "relay_bytes_per_s"),
    ],
)
def test_quotas_that_make_no_sense_are_named(tmp_path: Path, quotas: dict[str, int], sentence: str) -> None:
    home = a_home(tmp_path, **quotas)
    with pytest.raises(HomeError, match=rf"^the quotas in .*coordinator\.json cannot be used: .*{sentence}"):
        read(home / SETTINGS)


def test_without_a_word_on_quotas_there_are_generous_ones(tmp_path: Path) -> None:
    assert read(a_home(tmp_path) / SETTINGS) == Quotas()
