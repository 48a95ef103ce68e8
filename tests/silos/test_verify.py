"""silos/verify.py: one honest bundle, and every way we know to make it dishonest."""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from coordinator.envelope import canonical, digest, parse
from silos.verify import verify_bundle
from tests.silos import bundles
from tests.silos.bundles import (
    FILES,
    JOB,
    LOG,
    PARTICIPANTS,
    RESULT,
    SALT,
    SPEC,
    Play,
    check,
    ending,
    honest,
    ledger,
    pin_of,
    refused,
    vkey,
    with_entry,
    write,
    zipped,
)

PINS = {silo: pin_of(silo) for silo in (*PARTICIPANTS, "analyst")}


# --- the honest bundle ---


def test_an_honest_bundle_verifies_and_tells_its_story(tmp_path: Path) -> None:
    report = verify_bundle(write(tmp_path, FILES), vkey(), PINS)
    assert report.ok, report.reason
    assert report.reason == ""
    summary = report.summary
    assert summary is not None
    assert (summary.job, summary.kind, summary.purpose) == (JOB, "vertical.glm", "credit risk")
    assert (summary.submitter, summary.participants, summary.state) == ("analyst", list(PARTICIPANTS), "done")
    assert len(summary.timeline) == 2 + 3 + 3 + 2 + 3
    assert summary.timeline[0] == "2026-03-01T10:00:00Z  analyst: proposed"
    assert summary.learned[0] == "lender learns which of its customers matched"


def test_without_a_given_log_key_the_report_says_where_the_key_is_from(tmp_path: Path) -> None:
    details = {c.name: c.detail for c in verify_bundle(write(tmp_path, FILES)).checks}
    assert "taken from the bundle itself" in details["log key"]
    assert "not pinned" in details["identity keys"]


def test_compressed_bundles_verify_too(tmp_path: Path) -> None:
    assert verify_bundle(write(tmp_path, zipped(FILES, zipfile.ZIP_DEFLATED))).ok


ENDINGS = {
    "refused": ending("refused", "platform", {"reason": "not for credit", "rule": "credit"}, ("lender", "consented")),
    "failed": ending(
        "failed", "lender", {"step": "train", "reason": "lost platform", "party": "platform"}, ("dealer", "started")
    ),
    "cancelled": ending("cancelled", "analyst", {"reason": "a mistake"}, ("dealer", "consented")),
    "expired": ending("expired", "coordinator", {"reason": "nobody came"}, ("analyst", "disclosed"), "12:00"),
}


@pytest.mark.parametrize("state", ENDINGS)
def test_jobs_that_ended_otherwise_verify(tmp_path: Path, state: str) -> None:
    report = check(tmp_path, ENDINGS[state])
    assert report.ok, report.reason
    assert report.summary is not None
    assert report.summary.state == state


def test_a_job_without_an_end_needs_to_be_allowed(tmp_path: Path) -> None:
    play = honest()
    play.cut("lender", "released")
    refused(check(tmp_path, play), "does not show how the job ended: it stops when the job was 'running'")
    assert check(tmp_path, play, allow_unfinished=True).ok


def test_an_analyst_who_also_takes_part(tmp_path: Path) -> None:
    play = honest()
    for step in play.steps[:2]:
        step.silo = "lender"
    assert check(tmp_path, play).ok


# --- every byte counts ---


def flips(name: str) -> Iterator[tuple[int, int]]:
    data = FILES[name]
    stride = 1 if name in ("manifest.json", "log.vkey") else max(1, len(data) // 17)
    for position in (*range(0, len(data), stride), len(data) - 1):
        yield position, 1 << position % 8


@pytest.mark.parametrize("name", FILES)
def test_a_flipped_bit_anywhere_is_refused(tmp_path: Path, name: str) -> None:
    for position, bit in flips(name):
        data = bytearray(FILES[name])
        data[position] ^= bit
        report = verify_bundle(write(tmp_path, {**FILES, name: bytes(data)}))
        assert not report.ok, (name, position, bit)
        assert report.reason
        where = rf"{re.escape(name)}: |checkpoint: |the bundle is not of this log: |entry \d+\b|job "
        assert re.match(where, report.reason), (position, report.reason)


def test_a_flipped_bit_in_an_entry_names_it(tmp_path: Path) -> None:
    index, silo = LOG.index("platform", "consented"), "platform"
    entry = LOG.entries[index]
    for position in range(len(b'{"payload":"'), entry.index(b'","payloadType') - 4, 97):
        changed = bytearray(entry)
        changed[position] = changed[position] ^ 3 if chr(changed[position] ^ 3).isalnum() else ord("A")
        report = verify_bundle(write(tmp_path, with_entry(FILES, index, bytes(changed))))
        refused(report, rf"^entry {index}(, 'consented' by {silo})?: it ")


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("edit", [lambda d: d + b"\n", lambda d: d[:-1], lambda d: b" " + d, lambda _: b""])
def test_added_and_lost_bytes_are_refused(tmp_path: Path, name: str, edit: Callable[[bytes], bytes]) -> None:
    assert not verify_bundle(write(tmp_path, {**FILES, name: edit(FILES[name])})).ok


def test_a_tampered_entry_is_named_with_event_and_silo(tmp_path: Path) -> None:
    index = LOG.index("platform", "consented")
    envelope = json.loads(LOG.entries[index])
    envelope["signatures"][0]["sig"] = bundles.b64(b"\0" * 64)
    report = verify_bundle(write(tmp_path, with_entry(FILES, index, canonical(envelope))))
    sentence = f"entry {index}, 'consented' by platform: it is not signed with the key that platform enrolled"
    assert report.reason == sentence
    assert [c.name for c in report.checks if not c.ok] == [f"entry {index}", "tree"]


LEAD = (
    "^the bundle is not of this log: its entries and hashes do not lead to the checkpoint's root:"
    " one was changed, moved, added or left out$"
)


def test_a_rewritten_entry_with_a_right_signature_is_still_not_in_the_log(tmp_path: Path) -> None:
    play = honest()
    play.get("lender", "finished").time = "2026-03-01T10:09:00Z"
    index, other = LOG.index("lender", "finished"), ledger().record(play)
    report = verify_bundle(write(tmp_path, with_entry(FILES, index, other.entries[index])))
    refused(report, LEAD)
    assert [c.name for c in report.checks if not c.ok] == ["tree"]


def moved(files: dict[str, bytes], old: int, new: int) -> dict[str, bytes]:
    """The same entry, said to stand elsewhere in the log."""
    name = f"jobs/{JOB}"
    rows = files[name].splitlines(keepends=True)
    rows = [row.replace(b"%d " % old, b"%d " % new, 1) if row.startswith(b"%d " % old) else row for row in rows]
    return {**files, name: b"".join(sorted(rows, key=lambda row: int(row.split()[0])))}


def test_entries_in_other_places_are_refused(tmp_path: Path) -> None:
    last = len(LOG.entries) - 1
    swapped = with_entry(with_entry(FILES, 8, LOG.entries[9]), 9, LOG.entries[8])
    refused(verify_bundle(write(tmp_path, swapped)), LEAD)
    refused(verify_bundle(write(tmp_path, moved(FILES, last, last + 1))), "^the log has 21 entries, the bundle has one")
    refused(verify_bundle(write(tmp_path, moved(FILES, 18, 17))), "^hashes: there are too |^the bundle is not")


def test_hashes_that_are_too_many_too_few_or_in_disorder_are_refused(tmp_path: Path) -> None:
    rows = FILES["hashes"].splitlines(keepends=True)
    for hashes, sentence in (
        (rows[:-1], "^hashes: there are too few of them$"),
        ([*rows, rows[0]], "^hashes: there are too many of them$"),
        (rows[::-1], LEAD),
        ([b"AAAA\n", *rows[1:]], "^hashes: it holds what is no hash$"),
        ([*rows, b"no newline"], "^hashes: it does not end where a line ends$"),
    ):
        refused(verify_bundle(write(tmp_path, {**FILES, "hashes": b"".join(hashes)})), sentence)


@pytest.mark.parametrize(
    "sizes", [[9, 8, 10], [8, 8, 9, 10], [-1, 8], [8, 9, 10, 21], [8, 9, 10, 99], [True, 8], ["8"]]
)
def test_sizes_that_do_not_ascend_are_refused(tmp_path: Path, sizes: list[Any]) -> None:
    manifest = canonical({"origin": bundles.ORIGIN, "size": 21, "sizes": sizes, "v": 1})
    refused(verify_bundle(write(tmp_path, {**FILES, "manifest.json": manifest})), r"^manifest\.json: it")


# --- keys that change ---


def test_a_silo_that_enrolled_again_signs_with_its_new_key(tmp_path: Path) -> None:
    log = ledger()
    log.enrol("platform", "platform's second key")
    play = honest()
    for step in play.steps:
        if step.silo == "platform":
            step.key = "platform's second key"
        if step.event == "started":
            step.body["identities"]["platform"] = pin_of("platform's second key")
    path = write(tmp_path, log.record(play).files())
    assert verify_bundle(path).ok
    refused(
        verify_bundle(path, pins={"platform": pin_of("platform")}),
        "by platform: it is signed with the key .*, not with",
    )


def test_an_old_key_is_refused_after_a_new_enrolment(tmp_path: Path) -> None:
    log = ledger()
    log.enrol("platform", "platform's second key")
    report = verify_bundle(write(tmp_path, log.record(honest()).files()))
    sentence = (
        r"^entry \d+, 'consented' by platform: it is signed with the key of platform that was replaced in entry 5$"
    )
    refused(report, sentence)


def test_a_later_enrolment_does_not_reach_back(tmp_path: Path) -> None:
    log = ledger().record(honest())
    log.enrol("platform", "platform's second key")
    assert verify_bundle(write(tmp_path, log.files()), pins=PINS).ok


def test_a_key_that_changes_within_a_job_is_refused(tmp_path: Path) -> None:
    log, play = ledger().record(Play(honest().steps[:5])), honest()
    log.enrol("platform", "platform's second key")
    for step in play.steps:
        step.key = "platform's second key" if step.silo == "platform" else None
    report = verify_bundle(write(tmp_path, log.record(Play(play.steps[5:])).files()))
    refused(report, "'started' by platform: platform consented with another identity key")


def test_an_enrolment_that_is_not_self_signed_is_refused(tmp_path: Path) -> None:
    log = bundles.Ledger()
    for silo in ("lender", "analyst", "dealer"):
        log.enrol(silo)
    body = {"identity_key": bundles.b64(bundles.public("platform"))}
    log.append(bundles.Statement("enrolled", "", "", "platform", 0, "", "2026-02-01T09:00:00Z", body), "mallory")
    report = verify_bundle(write(tmp_path, log.record(honest()).files()))
    assert report.checks[-1].name == "roster"
    refused(report, "^entry 3, 'enrolled' by platform: it is not signed with the key that platform enrolled$")


# --- trust from elsewhere ---


def test_pins_must_fit(tmp_path: Path) -> None:
    path = write(tmp_path, FILES)
    refused(verify_bundle(path, pins={"lender": pin_of("mallory")}), "'consented' by lender: it is signed with the key")
    refused(verify_bundle(path, pins={"mallory": pin_of("mallory")}), "nothing signed by mallory, whose key you pinned")


def test_the_log_key_must_fit(tmp_path: Path) -> None:
    path = write(tmp_path, FILES)
    assert verify_bundle(path, log_key=vkey() + "\n").ok
    refused(
        verify_bundle(path, log_key=vkey("mallory")),
        "^log.vkey: this key of log.example/accord is not the one you gave$",
    )
    refused(verify_bundle(path, log_key="nonsense"), "^log.vkey: ")


def test_a_whole_bundle_by_another_log_is_refused_by_the_log_key(tmp_path: Path) -> None:
    forged = {**FILES, "log.vkey": f"{vkey('mallory')}\n".encode()}
    forged["checkpoint"] = bundles.checkpoint(LOG.entries, "mallory").encode()
    path = write(tmp_path, forged)
    assert verify_bundle(path).ok  # everything in it is consistent: only a key from elsewhere can tell
    refused(verify_bundle(path, log_key=vkey()), "is not the one you gave")


def test_a_checkpoint_by_another_key_is_refused(tmp_path: Path) -> None:
    forged = {**FILES, "checkpoint": bundles.checkpoint(LOG.entries, "mallory").encode()}
    refused(verify_bundle(write(tmp_path, forged)), "^checkpoint: the log log.example/accord did not sign it")


def test_witnesses_may_sign_the_checkpoint_too(tmp_path: Path) -> None:
    line = f"— witness.example {bundles.b64(b'12345678')}\n".encode()
    assert verify_bundle(write(tmp_path, {**FILES, "checkpoint": FILES["checkpoint"] + line})).ok


def grown(*sizes: int) -> dict[str, bytes]:
    held = [i for i, e in enumerate(LOG.entries) if parse(e).statement.job == JOB]
    return LOG.members({JOB: held}, [1, 2, 3, 4], {*held, 1, 2, 3, 4}, {8, 9, 10, *sizes})


def test_an_earlier_checkpoint_is_a_prefix(tmp_path: Path) -> None:
    since = tmp_path / "kept"
    for first in range(len(LOG.entries) + 1):
        since.write_text(bundles.checkpoint(LOG.entries[:first]), encoding="utf-8")
        report = verify_bundle(write(tmp_path, grown(first)), since=since)
        assert report.ok, report.reason
        assert {c.name: c.detail for c in report.checks}["history"] == f"the first {first} entries are those of kept"


def test_a_bundle_that_leaves_nothing_out_connects_to_every_size(tmp_path: Path) -> None:
    everything, since = LOG.files(JOB, bundles.OTHER_JOB), tmp_path / "kept"
    assert everything["hashes"] == b""
    for first in range(len(LOG.entries) + 1):
        since.write_text(bundles.checkpoint(LOG.entries[:first]), encoding="utf-8")
        report = verify_bundle(write(tmp_path, everything), since=since)
        assert {c.name: c.ok for c in report.checks}["history"], report.reason


def test_a_rewritten_history_is_refused(tmp_path: Path) -> None:
    since = tmp_path / "kept"
    since.write_text(bundles.checkpoint([b"something else", *LOG.entries[1:7]]), encoding="utf-8")
    refused(verify_bundle(write(tmp_path, grown(7)), since=since), "another history than kept, your checkpoint")
    refused(verify_bundle(write(tmp_path, FILES), since=since), "does not connect to kept, your checkpoint of 7")
    refused(verify_bundle(write(tmp_path, FILES), since=tmp_path / "nothing"), "nothing cannot be read")


# --- results ---


def result_file(tmp_path: Path, **changes: Any) -> Path:
    document = {
        "v": 1,
        "job": JOB,
        "silo": "lender",
        "spec_digest": digest(SPEC),
        "salt": SALT,
        "result": RESULT,
        **changes,
    }
    path = tmp_path / "result.json"
    path.write_text(json.dumps(document, indent=1), encoding="utf-8")
    return path


def test_a_result_file_is_the_released_one(tmp_path: Path) -> None:
    report = verify_bundle(write(tmp_path, FILES), results=[result_file(tmp_path)])
    assert report.ok, report.reason
    assert f"is what lender released to lender in entry {LOG.index('lender', 'released')}" in report.checks[-1].detail


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"result": {**RESULT, "auc": "0.9"}}, "no release of this job to lender has its digest"),
        ({"salt": "5b" * 16}, "no release of this job to lender has its digest"),
        ({"silo": "dealer"}, "no release of this job to dealer has its digest"),
        ({"job": bundles.OTHER_JOB}, "it is the result of another job, or of one that released none"),
        ({"spec_digest": "c0" * 32}, "it is the result of another job, or of one that released none"),
        ({"salt": "5a"}, "it is not a result file"),
        ({"salt": 7}, "it is not a result file"),
        ({"result": "text"}, "it is not a result file"),
        ({"result": {"auc": 0.5}}, "it is not a result file"),
        ({"surplus": 1}, "it is not a result file"),
    ],
)
def test_other_result_files_are_refused(tmp_path: Path, changes: dict[str, Any], sentence: str) -> None:
    refused(verify_bundle(write(tmp_path, FILES), results=[result_file(tmp_path, **changes)]), sentence)


def test_unreadable_result_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    for content in (b"", b"[", b"\xff", b"[" * 100_000, b"[]", b"3"):
        path.write_bytes(content)
        refused(verify_bundle(write(tmp_path, FILES), results=[path]), "it is not a result file")
    refused(verify_bundle(write(tmp_path, FILES), results=[tmp_path]), "cannot be read")
