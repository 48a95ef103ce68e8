"""silos/verify.py: entries that are rightly signed and logged, and still break a rule of the story, one rule at a time."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from coordinator.envelope import canonical, digest, parse
from silos.verify import show, verify_bundle
from tests.silos import bundles
from tests.silos.bundles import FILES, LOG, SPEC, Play, check, ending, honest, ledger, refused, write

# --- the story: rightly signed and logged, and still not right ---


def other_disclosure(play: Play) -> None:
    play.get("analyst", "disclosed").body["disclosure"]["lines"].append({"silo": "platform", "learns": "everything"})


def other_spec(play: Play) -> None:
    play.steps[0].body["spec"] = {**SPEC, "purpose": "something else"}
    for step in play.steps:
        step.spec_digest = digest(SPEC)


def stranger(play: Play) -> None:
    play.get("platform", "consented").as_silo = "mallory"


def edit(silo: str, event: str, /, **changes: Any) -> Callable[[Play], None]:
    def change(play: Play) -> None:
        step = play.get(silo, event)
        for name, value in changes.items():
            if hasattr(step, name):
                setattr(step, name, value)
            else:
                step.body[name] = value

    return change


def account(silo: str, /, **changes: Any) -> Callable[[Play], None]:
    """A silo's account of its costs, changed in parts."""

    def change(play: Play) -> None:
        body = play.get(silo, "finished").body
        body["cost"] = {**body["cost"], **changes}

    return change


def edit_map(event: str, name: str, silo: str, value: str | None) -> Callable[[Play], None]:
    def change(play: Play) -> None:
        table = play.get("platform", event).body[name]
        if value is None:
            del table[silo]
        else:
            table[silo] = value

    return change


def respec(**changes: Any) -> Callable[[Play], None]:
    """The same story about a spec that is itself wrong."""

    def change(play: Play) -> None:
        play.steps[:] = honest({**SPEC, **changes}).steps

    return change


def cancel_by_lender(play: Play) -> None:
    play.cut("lender", "started")
    play.add("lender", "cancelled", {"reason": "no"}, 6)


def then(silo: str, event: str, body: dict[str, Any]) -> Callable[[Play], None]:
    return lambda play: play.add(silo, event, body, 30)


OTHER = "c0" * 32
BROKEN: dict[str, tuple[Callable[[Play], None], str]] = {
    "a consent is missing": (
        lambda p: p.drop("platform", "consented"),
        r"^entry \d+, 'started' by lender: it is out of order, as platform had not 'consented' yet$",
    ),
    "the dealer's consent is missing": (lambda p: p.drop("dealer", "consented"), "dealer had not 'consented'"),
    "a start is missing": (lambda p: p.drop("dealer", "started"), "'released' by lender: .*dealer had not 'started'"),
    "a release is missing": (lambda p: p.drop("lender", "released"), "does not show how the job ended.*'running'"),
    "a finish is missing": (lambda p: p.drop("dealer", "finished"), "does not show how the job ended.*'running'"),
    "consent to another disclosure": (
        edit("platform", "consented", disclosure_digest=OTHER),
        r"^entry \d+, 'consented' by platform: it is a consent to another disclosure than this job's$",
    ),
    "the disclosure was changed": (other_disclosure, "'consented' by lender: it is a consent to another disclosure"),
    "the disclosure is of another spec": (
        lambda p: p.get("analyst", "disclosed").body["disclosure"].update(spec_digest=OTHER),
        "'disclosed' by analyst: its disclosure is of another spec",
    ),
    "the spec was changed": (other_spec, r"'proposed' by analyst: it is about another spec than the one proposed"),
    "one entry is about another spec": (
        edit("dealer", "started", spec_digest=OTHER),
        r"^entry \d+, 'started' by dealer: it is about another spec than the one proposed$",
    ),
    "a start before a consent": (
        lambda p: p.swap(("dealer", "consented"), ("lender", "started")),
        r"^entry \d+, 'started' by lender: it is out of order, as dealer had not 'consented' yet$",
    ),
    "a release before a start": (
        lambda p: p.swap(("dealer", "started"), ("lender", "released")),
        "'released' by lender: it is out of order, as dealer had not 'started' yet",
    ),
    "a consent before the disclosure": (
        lambda p: p.swap(("analyst", "disclosed"), ("lender", "consented")),
        "'disclosed' by analyst: a job opens with one 'proposed' and then one 'disclosed' entry",
    ),
    "a foreign certificate in a start": (
        edit_map("started", "links", "lender", OTHER),
        r"^entry \d+, 'started' by platform: its link certificate of lender is not the one of lender's consent$",
    ),
    "a certificate too few": (edit_map("started", "links", "dealer", None), "its link certificate of dealer"),
    "a certificate too many": (edit_map("started", "links", "mallory", OTHER), "its link certificate of mallory"),
    "a foreign identity in a start": (
        edit_map("started", "identities", "lender", OTHER),
        "'started' by platform: its identity key of lender is not the one of lender's consent",
    ),
    "an identity too few": (edit_map("started", "identities", "dealer", None), "its identity key of dealer"),
    "a consent with another certificate": (
        edit("lender", "consented", link_certificate=bundles.b64(b"another")),
        "'started' by lender: its link certificate of lender",
    ),
    "released to a stranger": (
        edit("lender", "released", recipient="mallory"),
        r"^entry \d+, 'released' by lender: it went to mallory, who is not a data owner of this job$",
    ),
    "released to the dealer": (edit("lender", "released", recipient="dealer"), "it went to dealer, who is not"),
    "an item that the spec does not list": (
        edit("platform", "released", items=["auc", "rows"]),
        r"^entry \d+, 'released' by platform: it released 'rows', which the spec does not list$",
    ),
    "a consent twice": (
        lambda p: p.repeat("lender", "consented"),
        r"^entry \d+, 'consented' by lender: lender had said it before$",
    ),
    "a start twice": (lambda p: p.repeat("dealer", "started"), "'started' by dealer: dealer had said it before"),
    "a release twice": (lambda p: p.repeat("lender", "released"), "'released' by lender: lender had said it before"),
    "two disclosures": (
        lambda p: p.repeat("analyst", "disclosed"),
        "'disclosed' by analyst: a job opens with one 'proposed' and then one 'disclosed'",
    ),
    "two proposals": (lambda p: p.repeat("analyst", "proposed"), "'proposed' by analyst: a job opens with one"),
    "no disclosure": (lambda p: p.drop("analyst", "disclosed"), "the bundle has no 'disclosed' entry"),
    "disclosed by another": (
        edit("analyst", "disclosed", silo="lender"),
        "'disclosed' by lender: the job was proposed by analyst",
    ),
    "a gap in a chain": (
        edit("platform", "released", seq=5),
        r"^entry \d+, 'released' by platform: it is number 5 of what platform said, expected number 2$",
    ),
    "a chain that was rewritten": (
        edit("platform", "released", prev=OTHER),
        "'released' by platform: it follows another statement of platform than the one in the bundle",
    ),
    "an entry by a stranger": (stranger, r"^entry \d+, '\w+' by mallory: mallory has no part in this job$"),
    "the dealer releases": (
        edit("lender", "released", silo="dealer"),
        "'released' by dealer: this is for a data owner of the job to say",
    ),
    "a participant cancels": (
        cancel_by_lender,
        "'cancelled' by lender: this is for the submitter of the job to say",
    ),
    "the submitter cancels what is done": (
        then("analyst", "cancelled", {"reason": "too late"}),
        "'cancelled' by analyst: it comes after the end of the job, which was 'done'",
    ),
    "signed with another key": (
        edit("platform", "consented", key="mallory"),
        r"^entry \d+, 'consented' by platform: it is not signed with the key that platform enrolled$",
    ),
    "a consent that had run out when given": (
        edit("lender", "consented", valid_until="2026-03-01T10:01:00Z"),
        r"^entry \d+, 'consented' by lender: at 2026-03-01T10:01:00Z the consent of lender, .* had expired$",
    ),
    "a consent that had run out at the start": (
        edit("lender", "consented", valid_until="2026-03-01T10:04:59Z"),
        r"^entry \d+, 'started' by lender: at 2026-03-01T10:05:00Z the consent of lender, .* had expired$",
    ),
    "a consent after the spec's end": (
        respec(valid_until="2026-03-01T10:02:00Z"),
        "'started' by lender: at 2026-03-01T10:05:00Z the consent of lender, .* had expired",
    ),
    "an owner commits to nothing": (
        edit("lender", "consented", dataset_commitment=""),
        "'consented' by lender: a data owner commits to its data set, and nobody else to one",
    ),
    "the dealer commits to data": (
        edit("dealer", "consented", dataset_commitment=OTHER),
        "'consented' by dealer: a data owner commits to its data set, and nobody else to one",
    ),
    "a failure after the end": (
        then("dealer", "failed", {"step": "train", "reason": "lost", "party": ""}),
        r"^entry \d+, 'failed' by dealer: it comes after the end of the job, which was 'done'$",
    ),
    "the dealer is an owner": (respec(dealer="lender"), "its spec names no distinct participants"),
    "an owner named twice": (respec(parties=[{"silo": "lender"}, {"silo": "lender"}]), "no distinct participants"),
    "no owners": (respec(parties=[]), "its spec names no distinct participants"),
    "a party without a name": (respec(parties=[{}, {"silo": "lender"}]), "its spec names no distinct participants"),
    "the coordinator as dealer": (respec(dealer="coordinator"), "its spec names no distinct participants"),
    "a job of no dealer that names one": (
        respec(randomness="ot"),
        r"^entry \d+, 'proposed' by analyst: its spec names a dealer where there is none, or none where there is one$",
    ),
    "a job of a dealer that names none": (respec(dealer=None), "or none where there is one$"),
    "randomness from nowhere": (respec(randomness="dice"), "its spec lacks something that every spec has"),
    "a job without randomness that names a dealer": (respec(randomness=None), "names a dealer where there is none"),
    "a dealer and a helper": (respec(helper="mallory"), "its spec names a dealer and a helper$"),
    "an owner that helps": (
        respec(randomness=None, dealer=None, helper="lender"),
        "its spec names no distinct participants",
    ),
    "a helper that is no name": (respec(helper=3), "its spec lacks something that every spec has"),
    "an account without randomness": (
        edit("lender", "finished", cost={"rounds": 1, "bytes_sent": {}, "seconds": {}, "peak_mib": 1}),
        r"^entry \d+: it is no statement that this format knows",
    ),
    "a dealer that used randomness": (
        account("dealer", randomness={"triple": {"correlations": 3, "words": 90}}),
        r"^entry \d+, 'finished' by dealer: its account of the randomness 'triple' is not what the format has here$",
    ),
    "randomness without words": (account("lender", randomness={"triple": {"correlations": 3}}), "its account of the"),
    "owners that used different randomness": (
        account("platform", randomness={"triple": {"correlations": 4, "words": 90}}),
        r"^entry \d+, 'finished' by platform: it used other randomness than lender, though owners use it together$",
    ),
    "bytes to a stranger": (account("lender", bytes_sent={"mallory": 3}), "it sent bytes to a silo without a part$"),
    "a spec without release": (respec(release="auc"), "its spec lacks something that every spec has"),
    "a spec of another job": (respec(job=bundles.OTHER_JOB), "its spec is of job 1e1e"),
    "a body with another field": (
        lambda p: p.get("lender", "started").body.update(note="hello"),
        r"^entry \d+: it is no statement that this format knows",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", BROKEN)
def test_a_story_that_breaks_a_rule_is_refused(tmp_path: Path, what: str) -> None:
    play = honest()
    breaks, sentence = BROKEN[what]
    breaks(play)
    log = ledger("mallory").record(play)
    refused(verify_bundle(write(tmp_path, log.files())), sentence)


def test_breaking_a_copy_leaves_the_honest_story_alone(tmp_path: Path) -> None:
    assert check(tmp_path, honest()).ok


def test_a_job_without_a_dealer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    play = honest({**SPEC, "randomness": "ot", "dealer": None})
    report = check(tmp_path, play)
    assert report.ok, report.reason
    assert report.summary is not None
    assert (report.summary.randomness, report.summary.participants) == ("ot", ["lender", "platform"])
    assert next(c.detail for c in report.checks if c.name == "costs") == "3 triple"
    show(report)
    assert "computed by lender, platform; correlated randomness: ot" in capsys.readouterr().out


MATCH = {**SPEC, "kind": "vertical.match", "randomness": None, "dealer": None}


def unused(play: Play) -> Play:
    """Nobody used any randomness."""
    for step in play.steps:
        if step.event == "finished":
            step.body["cost"] = {**step.body["cost"], "randomness": {}}
    return play


def test_a_job_without_randomness(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = check(tmp_path, unused(honest(MATCH)))
    assert report.ok, report.reason
    assert report.summary is not None
    assert (report.summary.randomness, report.summary.participants) == ("none", ["lender", "platform"])
    assert next(c.detail for c in report.checks if c.name == "costs") == "no randomness"
    show(report)
    assert "computed by lender, platform; correlated randomness: none" in capsys.readouterr().out
    sentence = (
        r"^entry \d+, 'finished' by lender: its account of the randomness 'triple' is not what the format has here$"
    )
    refused(check(tmp_path, honest(MATCH)), sentence)


def test_a_job_with_a_helper(tmp_path: Path) -> None:
    spec = {**MATCH, "helper": "helper"}
    report = verify_bundle(write(tmp_path, ledger("helper").record(unused(honest(spec))).files()))
    assert report.ok, report.reason
    assert report.summary is not None
    assert report.summary.participants == ["lender", "platform", "helper"]
    for event, sentence in (("consented", "helper had not 'consented'"), ("started", "helper had not 'started'")):
        play = unused(honest(spec))
        play.drop("helper", event)
        refused(verify_bundle(write(tmp_path, ledger("helper").record(play).files())), sentence)
    play = unused(honest(spec))
    play.get("helper", "consented").body["dataset_commitment"] = OTHER
    refused(verify_bundle(write(tmp_path, ledger("helper").record(play).files())), "nobody else to one")


def test_a_spec_of_the_time_before_there_were_helpers(tmp_path: Path) -> None:
    report = check(tmp_path, honest({name: value for name, value in SPEC.items() if name != "helper"}))
    assert report.ok, report.reason


def test_an_expiry_before_its_time(tmp_path: Path) -> None:
    play = ending("expired", "coordinator", {"reason": "nobody came"}, ("analyst", "disclosed"), "11:59")
    refused(check(tmp_path, play), "'expired' by coordinator: it was said at .*, the job was valid until")


def test_an_expiry_that_the_log_did_not_sign(tmp_path: Path) -> None:
    play = ending("expired", "coordinator", {"reason": "nobody came"}, ("analyst", "disclosed"), "12:00")
    play.steps[-1].key = "lender"
    refused(check(tmp_path, play), "'expired' by coordinator: it is not signed with the key")


def test_a_silo_cannot_expire_nor_the_coordinator_consent(tmp_path: Path) -> None:
    play = ending("expired", "lender", {"reason": "nobody came"}, ("analyst", "disclosed"), "12:00")
    refused(check(tmp_path, play), "'expired' by lender: this is for the coordinator of the job to say")
    play = honest()
    play.get("dealer", "consented").as_silo = "coordinator"
    play.get("dealer", "consented").key = "log"
    refused(check(tmp_path, play), "'consented' by coordinator: coordinator has no part in this job")


def test_left_out_entries_are_noticed(tmp_path: Path) -> None:
    for silo, event, sentence in (
        ("lender", "enrolled", "no earlier 'enrolled' entry of lender"),
        ("platform", "consented", "platform had not 'consented'"),
        ("analyst", "proposed", "no 'proposed' entry"),
    ):
        files = bundles.with_entry(FILES, LOG.index(silo, event), None)
        refused(verify_bundle(write(tmp_path, files)), sentence)


def test_an_entry_of_another_job_is_refused(tmp_path: Path) -> None:
    log = ledger()
    play = honest()
    play.get("dealer", "finished").job = bundles.OTHER_JOB
    files = log.record(play).files()
    index = log.index("dealer", "finished")
    mixed = sorted([*(i for i, e in enumerate(log.entries) if parse(e).statement.job == bundles.JOB), index])
    refused(
        verify_bundle(write(tmp_path, {**files, f"jobs/{bundles.JOB}": log.lines(mixed)})),
        f"entry {index}, 'finished' by dealer: it is about another job",
    )


@pytest.mark.parametrize("extra", ["signer", "subject"])
def test_an_entry_with_two_signers_or_two_jobs_is_refused_though_logged(tmp_path: Path, extra: str) -> None:
    log = ledger().record(honest())
    envelope = json.loads(log.entries[-1])
    if extra == "signer":
        envelope["signatures"].append(json.loads(log.entries[-2])["signatures"][0])
    else:
        statement = json.loads(base64.b64decode(envelope["payload"]))
        statement["subject"] *= 2
        envelope["payload"] = bundles.b64(canonical(statement))
    last = len(log.entries) - 1
    log.entries[last] = canonical(envelope)
    rest = [i for i, e in enumerate(log.entries[:last]) if parse(e).statement.job == bundles.JOB]
    files = log.members({bundles.JOB: [*rest, last]}, [1, 2, 3, 4], {*rest, last, 1, 2, 3, 4}, {8, 9, 10})
    sentence = "it is not what the format has here" if extra == "signer" else "it is about more than one job"
    refused(verify_bundle(write(tmp_path, files)), f"^entry {last}: {sentence}$")
