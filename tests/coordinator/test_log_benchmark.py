"""The log's benchmark in small: the jobs it signs are accepted whole, and every entry is in the log once."""

from __future__ import annotations

import datetime as dt
from contextlib import closing
from pathlib import Path

from benchmarks import log as benchmark
from coordinator.jobs import State
from coordinator.log import Entry
from coordinator.statements import format_time
from coordinator.writing import StoreThread


async def test_signed_jobs_fill_a_log(tmp_path: Path, database: str) -> None:
    home = benchmark.make_home(tmp_path / "c", database)
    now = dt.datetime.now(dt.UTC)
    head = {"size": 3, "root": "ab" * 32}
    times = format_time(now), format_time(now + dt.timedelta(days=1))
    jobs = [benchmark.sign_job(number, head, *times) for number in range(4)]
    thread = StoreThread(home.open_store)
    await thread.start()
    latencies = await benchmark.append_jobs(thread, jobs, at_once=3)
    await thread.stop()
    assert {len(job) for job in jobs} == {benchmark.ENTRIES_PER_JOB}
    assert len(latencies) == 4 * (benchmark.ENTRIES_PER_JOB - 1), "the first two entries of a job are one write"
    with closing(home.open_store()) as store:
        assert sorted(store.log.envelopes(3, 99)) == sorted(envelope for job in jobs for envelope in job)
        for job in jobs:
            ended = store.job(Entry.parse(job[0]).sealed.statement.job)
            assert ended is not None
            assert ended.state == State.DONE
    assert benchmark._proof_times(home)["entries"] == 3 + 4 * benchmark.ENTRIES_PER_JOB
