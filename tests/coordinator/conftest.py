"""Fixtures of the coordinator's tests."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.coordinator.postgres_server import PostgresServer, start_server
from tests.coordinator.world import Job, World, a_job, a_world


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """A coordinator on loopback."""
    async with a_world(tmp_path) as made:
        yield made


@pytest.fixture
async def job(world: World) -> Job:
    """Three enrolled silos and a spec that nobody has submitted yet."""
    return await a_job(world)


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL server; started by the first test that needs it."""
    server = start_server()
    yield server
    server.stop()


@pytest.fixture(params=["sqlite", "postgres"])
def database(request: pytest.FixtureRequest) -> str:
    """Where a coordinator's database is, as `init_home` takes it: a file in its home, or an empty schema of a server."""
    return request.getfixturevalue("postgres").database() if request.param == "postgres" else ""
