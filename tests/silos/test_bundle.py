"""silos/bundle.py against a coordinator in memory, honest and not."""

from __future__ import annotations

import asyncio
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from coordinator.envelope import Statement, parse
from coordinator.merkle import leaf_hash
from silos.bundle import BundleError, Choice, LogReader, Summary, export, export_many, pack
from silos.client import CoordinatorClient, LogEntry
from silos.verify import verify_bundle
from tests.silos import bundles
from tests.silos.bundles import FILES, JOB, LOG, OTHER_JOB, honest, ledger, vkey

Withheld = Callable[[Statement], bool]
OWN = [e for e in LOG.entries if (s := parse(e).statement).silo == "lender" and s.job == JOB]


@dataclass
class Coordinator:
    """A log behind the three calls that an export makes; answers in pages of three, and gives of other jobs hashes.

    withheld: what it keeps back although it is about our job.  told: whether its account of the job has that all the same.
    """

    entries: list[bytes] = field(default_factory=lambda: list(LOG.entries))
    note: str = ""
    page: int = 3
    withheld: Withheld = lambda _: False
    told: bool = False
    asked: list[tuple[int, int]] = field(default_factory=list)

    def shows(self, envelope: bytes) -> bool:
        try:
            said = parse(envelope).statement
        except ValueError:
            return False
        return said.job in ("", JOB) and not self.withheld(said)

    async def checkpoint(self) -> str:
        return self.note or bundles.checkpoint(self.entries)

    async def log_entries(self, start: int, end: int) -> list[LogEntry]:
        self.asked.append((start, end))
        page = self.entries[start : start + self.page]
        return [LogEntry(leaf_hash(e), e if self.shows(e) else None) for e in page]

    async def job(self, job: str) -> dict[str, Any]:
        about = [e for e in self.entries if parse_or_none(e) == job and (self.told or self.shows(e))]
        return {"entries": [{"index": self.entries.index(e), "envelope": bundles.b64(e)} for e in about]}


def parse_or_none(envelope: bytes) -> str | None:
    try:
        return parse(envelope).statement.job
    except ValueError:
        return None


def run(client: LogReader, path: Path, job: str = JOB, **options: object) -> Summary:
    return asyncio.run(export(client, job, path, **{"log_key": vkey(), "own": OWN, **options}))  # type: ignore[arg-type]


def refused(client: LogReader, tmp_path: Path, sentence: str, **options: object) -> None:
    """Nothing is written, and what was there stays."""
    path = tmp_path / "bundle.zip"
    path.write_bytes(b"older")
    with pytest.raises(BundleError, match=sentence):
        run(client, path, **options)
    assert path.read_bytes() == b"older"
    assert [p.name for p in tmp_path.iterdir()] == ["bundle.zip"]


def test_an_export_verifies(tmp_path: Path) -> None:
    client, path = Coordinator(), tmp_path / "bundle.zip"
    summary = run(client, path)
    assert summary.report.ok, summary.report.reason
    assert (summary.path, summary.jobs, summary.log_size, summary.entries) == (path, (JOB,), len(LOG.entries), 17)
    assert verify_bundle(path, vkey()).ok
    assert client.asked == [(n, 21) for n in range(0, 21, 3)]
    with zipfile.ZipFile(path) as archive:
        assert {i.filename: archive.read(i) for i in archive.infolist()} == FILES


def test_the_same_log_gives_the_same_bytes(tmp_path: Path) -> None:
    run(Coordinator(), tmp_path / "one.zip")
    run(Coordinator(page=1), tmp_path / "two.zip", own=())
    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "two.zip").read_bytes() == pack(FILES)
    assert pack(dict(reversed(FILES.items()))) == pack(FILES)


def test_the_file_is_the_owners(tmp_path: Path) -> None:
    assert run(Coordinator(), tmp_path / "bundle.zip").path.stat().st_mode & 0o077 == 0


def test_later_entries_of_others_are_left_out_and_later_keys_of_speakers_are_not(tmp_path: Path) -> None:
    log = ledger().record(honest())
    log.enrol("platform", "platform's second key")
    log.noise()
    summary = run(Coordinator(log.entries), tmp_path / "bundle.zip")
    assert summary.report.ok, summary.report.reason
    assert (summary.log_size, summary.entries) == (23, 18)


def test_an_earlier_checkpoint_is_proven(tmp_path: Path) -> None:
    for size in range(1, len(LOG.entries) + 1):
        kept = bundles.checkpoint(LOG.entries[:size])
        (tmp_path / "kept").write_text(kept, encoding="utf-8")
        summary = run(Coordinator(), tmp_path / "bundle.zip", earlier=kept)
        assert summary.report.ok, summary.report.reason
        assert verify_bundle(summary.path, since=tmp_path / "kept").ok


def test_a_story_that_breaks_a_rule_is_evidence_and_is_exported(tmp_path: Path) -> None:
    play = honest()
    play.get("lender", "released").body["recipient"] = "mallory"
    summary = run(Coordinator(ledger().record(play).entries), tmp_path / "bundle.zip", own=())
    assert "it went to mallory" in summary.report.reason
    assert verify_bundle(summary.path).reason == summary.report.reason


def test_an_unfinished_job_is_exported_and_says_so(tmp_path: Path) -> None:
    play = honest()
    play.cut("lender", "started")
    summary = run(Coordinator(ledger().record(play).entries), tmp_path / "bundle.zip", own=OWN[:1])
    assert "does not show how the job ended" in summary.report.reason
    assert verify_bundle(summary.path, allow_unfinished=True).ok


def test_a_checkpoint_by_another_key_is_refused(tmp_path: Path) -> None:
    forged = Coordinator(note=bundles.checkpoint(LOG.entries, "mallory"))
    refused(forged, tmp_path, "checkpoint is not by the log key of our enrolment")
    refused(Coordinator(note="nonsense"), tmp_path, "checkpoint is not by the log key")
    refused(Coordinator(), tmp_path, "checkpoint is not by the log key", log_key=vkey("mallory"))


def test_entries_that_the_checkpoint_does_not_commit_to_are_refused(tmp_path: Path) -> None:
    honest_note = bundles.checkpoint(LOG.entries)
    changed = [*LOG.entries[:7], LOG.entries[0], *LOG.entries[8:]]  # not even an entry of this job
    refused(Coordinator(changed, honest_note), tmp_path, "21 entries are not the ones its checkpoint commits to")


@pytest.mark.parametrize("page", [0, 40])
def test_pages_of_a_wrong_length_are_refused(tmp_path: Path, page: int) -> None:
    served = Coordinator(LOG.entries * 2, bundles.checkpoint(LOG.entries), page)
    refused(served, tmp_path, f"gave {page} entries from 0 up to 21")


def test_a_log_that_lost_our_entry_is_refused(tmp_path: Path) -> None:
    play = honest()
    play.drop("lender", "finished")
    client = Coordinator(ledger().record(play).entries)
    refused(client, tmp_path, f"does not hold the 'finished' entry number 3 of lender about job {JOB}")
    refused(Coordinator(), tmp_path, "does not hold the damaged entry", own=[b"{}"])


def said(silo: str, event: str) -> Withheld:
    return lambda statement: (statement.silo, statement.event) == (silo, event)


def test_an_entry_that_is_withheld_is_noticed(tmp_path: Path) -> None:
    ours = Coordinator(withheld=said("lender", "finished"))
    refused(ours, tmp_path, f"withholds the 'finished' entry number 3 of lender about job {JOB}")
    told = Coordinator(withheld=said("dealer", "finished"), told=True)
    refused(told, tmp_path, f"withholds the 'finished' entry number 2 of dealer about job {JOB}")
    for event, number in (("consented", 0), ("started", 1), ("released", 2)):
        middle = Coordinator(withheld=said("platform", event))
        refused(middle, tmp_path, f"withholds or has lost entry number {number} of platform about job {JOB}")
    refused(Coordinator(withheld=lambda s: s.job == JOB, told=True), tmp_path, "withholds the 'proposed' entry", own=())


def test_what_only_the_coordinator_knows_of_can_be_withheld_but_not_verified(tmp_path: Path) -> None:
    """The last statement of a partner, gone from the log's pages and from the account of the job."""
    summary = run(Coordinator(withheld=said("dealer", "finished")), tmp_path / "bundle.zip")
    assert "does not show how the job ended" in summary.report.reason


def test_a_gap_that_nothing_can_hide_in_is_evidence_and_is_exported(tmp_path: Path) -> None:
    play = honest()
    play.get("lender", "started").seq = 2
    summary = run(Coordinator(ledger().record(play).entries), tmp_path / "bundle.zip", own=())
    assert "lender" in summary.report.reason


class Confused(Coordinator):
    async def job(self, job: str) -> dict[str, Any]:
        return {"entries": [{"envelope": 7}]}


def test_a_malformed_account_of_the_job_is_refused(tmp_path: Path) -> None:
    refused(Confused(), tmp_path, "account of the job is malformed")


def test_a_job_that_the_log_does_not_know_is_refused(tmp_path: Path) -> None:
    refused(Coordinator(), tmp_path, f"no entry about job '{'77' * 16}'", job="77" * 16, own=())
    refused(Coordinator(), tmp_path, "no entry about job ''", job="", own=())
    refused(Coordinator([]), tmp_path, "no entry about job", own=())


def test_another_past_is_refused(tmp_path: Path) -> None:
    other = [b"other", *LOG.entries[1:]]
    refused(Coordinator(), tmp_path, "first 5 entries are not the ones it had", earlier=bundles.checkpoint(other[:5]))
    longer = bundles.checkpoint([*LOG.entries, b"more"])
    refused(Coordinator(), tmp_path, "has 21 entries, the earlier checkpoint says 22", earlier=longer)
    refused(Coordinator(), tmp_path, "has 21 entries, the earlier checkpoint says 0", earlier=bundles.checkpoint([]))
    refused(
        Coordinator(), tmp_path, "earlier checkpoint is not of this log", earlier=bundles.checkpoint(other, "mallory")
    )


def test_an_unwritable_place_is_named(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"bundle\.zip cannot be written: No such file or directory"):
        run(Coordinator(), tmp_path / "absent" / "bundle.zip")


def test_entries_that_are_no_statements_are_passed_over(tmp_path: Path) -> None:
    summary = run(Coordinator([*LOG.entries, b"not a statement"]), tmp_path / "bundle.zip")
    assert summary.report.ok, summary.report.reason
    assert OTHER_JOB not in str(summary.report.summary)


def test_the_real_client_can_be_read_from() -> None:
    for name in ("checkpoint", "log_entries", "job"):
        assert asyncio.iscoroutinefunction(getattr(CoordinatorClient, name))
        assert asyncio.iscoroutinefunction(getattr(LogReader, name))


# --- many jobs


def many(client: LogReader, path: Path, **options: Any) -> Summary:
    return asyncio.run(export_many(client, path, **{"log_key": vkey(), "choice": Choice(), **options}))


NAMES = [f"{n:032x}" for n in (1, 2, 3)]


def three_jobs() -> list[bytes]:
    """One after the other, on the first, second and third of March."""
    log = ledger()
    for day, name in enumerate(NAMES, 1):
        play = honest({**bundles.SPEC, "job": name, "valid_until": f"2026-03-{day:02d}T12:00:00Z"})
        for step in play.steps:
            step.job, step.time = name, step.time.replace("-03-01", f"-03-{day:02d}")
            if step.event == "consented":
                step.body["valid_until"] = f"2026-03-{day:02d}T11:00:00Z"
        log.record(play)
    return log.entries


THREE = three_jobs()


class Operator(Coordinator):
    """Shows everything."""

    def shows(self, envelope: bytes) -> bool:
        return True


@pytest.mark.parametrize(
    ("choice", "jobs"),
    [
        (Choice(), [*NAMES, OTHER_JOB]),
        (Choice(start=22), [*NAMES[1:], OTHER_JOB]),
        (Choice(start=50), [NAMES[2]]),
        (Choice(begin="2026-03-02T00:00:00Z"), NAMES[1:]),
        (Choice(begin="2026-03-02T10:08:00Z", end="2026-03-03T09:00:00Z"), [NAMES[1]]),
        (Choice(end="2026-03-01T10:00:00Z"), [NAMES[0], OTHER_JOB]),
    ],
)
def test_jobs_are_chosen_by_place_and_time(tmp_path: Path, choice: Choice, jobs: list[str]) -> None:
    summary = many(Operator(THREE), tmp_path / "bundle.zip", choice=choice)
    assert summary.jobs == tuple(jobs)
    real = [c for c in summary.report.checks if OTHER_JOB not in c.name]
    assert all(c.ok for c in real), summary.report.reason


def test_a_bundle_of_everything_needs_no_hash(tmp_path: Path) -> None:
    summary = many(Operator(THREE), tmp_path / "bundle.zip")
    with zipfile.ZipFile(summary.path) as archive:
        assert archive.read("hashes") == b""
        assert sorted(archive.namelist())[1:5] == ["hashes", f"jobs/{NAMES[0]}", f"jobs/{NAMES[1]}", f"jobs/{NAMES[2]}"]
    assert summary.entries == len(THREE) == 53


def test_all_jobs_since_a_checkpoint_of_which_a_silo_sees_its_own(tmp_path: Path) -> None:
    class Partner(Coordinator):
        def shows(self, envelope: bytes) -> bool:
            return parse(envelope).statement.job in ("", *NAMES)

    kept, since = bundles.checkpoint(THREE[:30]), tmp_path / "kept"
    since.write_text(kept, encoding="utf-8")
    own: dict[str, list[bytes]] = {name: [] for name in NAMES}
    for envelope in THREE:
        said = parse(envelope).statement
        if said.silo == "lender" and said.job:
            own[said.job].append(envelope)
    summary = many(Partner(THREE), tmp_path / "bundle.zip", earlier=kept, own=own.__getitem__)
    assert summary.jobs == tuple(NAMES[1:])
    assert summary.report.ok, summary.report.reason
    assert verify_bundle(summary.path, vkey(), since=since).ok
    lost = [e for e in THREE if e != own[NAMES[2]][-1]]
    with pytest.raises(
        BundleError, match=f"does not hold the 'finished' entry number 3 of lender about job {NAMES[2]}"
    ):
        many(Partner(lost), tmp_path / "bundle.zip", own=own.__getitem__)


def test_what_was_said_after_the_log_was_read_is_not_missing(tmp_path: Path) -> None:
    """A job goes on while we export: the account of it is newer than the log that was read."""

    class Growing(Operator):
        async def job(self, job: str) -> dict[str, Any]:
            about = [e for e in THREE if parse(e).statement.job == job]
            return {"entries": [{"envelope": bundles.b64(e)} for e in about]}

    summary = many(Growing(THREE[:50]), tmp_path / "bundle.zip", own=lambda _: [])
    assert summary.jobs == (*NAMES, OTHER_JOB)


def test_a_choice_without_a_job_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="has no entry about a job that this silo may see and that was asked for"):
        many(Operator(THREE), tmp_path / "bundle.zip", choice=Choice(begin="2027-01-01T00:00:00Z"))
