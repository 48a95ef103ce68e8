"""Fixtures of the coordinator's tests."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

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
