"""silos/verify.py: witnesses, heads, persons, budgets, and keys that change."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from coordinator.cosign import WitnessKey, cosign
from coordinator.envelope import Statement, canonical, digest, parse
from silos.verify import EXPLAIN, Report, explained, main, show, verify_bundle
from tests.silos import bundles
from tests.silos.bundles import (
    DEALER,
    FILES,
    JOB,
    LOG,
    OWNERS,
    SPEC,
    Ledger,
    Play,
    check,
    ending,
    honest,
    key_of,
    ledger,
    pin_of,
    public,
    refused,
    vkey,
    write,
)


def edited(silo: str, event: str, **changes: Any) -> Play:
    play = honest()
    step = play.get(silo, event)
    step.body = {**step.body, **changes}
    return play


# --- heads: everybody saw one history


def test_the_log_leads_on_from_every_head(tmp_path: Path) -> None:
    details = {c.name: c.detail for c in verify_bundle(write(tmp_path, FILES)).checks}
    assert details["heads"] == "dealer had verified 10; lender had verified 8; platform had verified 9"


@pytest.mark.parametrize(
    ("head", "sentence"),
    [
        ({"size": 7, "root": "ab" * 32}, "it had verified 7 entries of another log than this one"),
        ({"size": 0, "root": "ab" * 32}, "it had verified 0 entries of another log than this one"),
        ({"size": 9, "root": "ab" * 32}, "it says that 9 entries of the log were verified, and is number 8"),
        ({"size": 99, "root": "ab" * 32}, "it says that 99 entries of the log were verified, and is number 8"),
    ],
)
def test_a_silo_that_was_shown_another_log_is_found(tmp_path: Path, head: dict[str, Any], sentence: str) -> None:
    report = check(tmp_path, edited("lender", "consented", head=head))
    assert report.reason == f"entry 8, 'consented' by lender: {sentence}"
    assert [c.name for c in report.checks if not c.ok] == ["heads"]


def test_a_bundle_that_does_not_show_a_head_is_refused(tmp_path: Path) -> None:
    held = [i for i, e in enumerate(LOG.entries) if parse(e).statement.job == JOB]
    root = bundles.tree(LOG.entries[:7]).hex()
    log = ledger().record(edited("lender", "consented", head={"size": 7, "root": root}))
    report = verify_bundle(write(tmp_path, log.members({JOB: held}, [1, 2, 3, 4], {*held, 1, 2, 3, 4}, {9, 10})))
    refused(
        report, "^entry 8, 'consented' by lender: the bundle does not connect to the 7 entries that it had verified$"
    )
    assert verify_bundle(write(tmp_path, log.files())).ok


@pytest.mark.parametrize("head", [{"size": -1, "root": "ab" * 32}, {"size": "7", "root": "ab" * 32}, {"size": 7}, None])
def test_malformed_heads_are_refused(tmp_path: Path, head: Any) -> None:
    log = ledger().record(edited("lender", "consented", head=head))
    held = [i for i, e in enumerate(log.entries) if parse(e).statement.job == JOB]
    report = verify_bundle(write(tmp_path, log.members({JOB: held}, [1, 2, 3, 4], {*held, 1, 2, 3, 4}, {9, 10})))
    assert not report.ok
    assert report.reason.startswith("entry 8")


# --- witnesses


def cosigned(*witnesses: str, time: int = 1_772_400_000, files: dict[str, bytes] = FILES) -> dict[str, bytes]:
    note = files["checkpoint"].decode()
    lines = "".join(cosign(note, name, key_of(name), time) + "\n" for name in witnesses)
    return {**files, "checkpoint": (note + lines).encode()}


def witness_check(report: Report) -> str:
    assert report.ok, report.reason
    return next(c.detail for c in report.checks if c.name == "cosignatures")


def test_silos_are_witnesses_under_their_names(tmp_path: Path) -> None:
    path = write(tmp_path, cosigned("lender", "platform"))
    told = "lender at 2026-03-01T21:20:00Z; platform at 2026-03-01T21:20:00Z"
    assert witness_check(verify_bundle(path, quorum=2)) == told
    refused(
        verify_bundle(path, quorum=3),
        r"^checkpoint: 2 known witnesses cosigned it \(lender, platform\), 3 were asked for$",
    )
    assert witness_check(verify_bundle(write(tmp_path, FILES))) == "no known witness cosigned it"


def test_other_witnesses_count_if_their_key_is_given(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path, cosigned("tower"))
    key = WitnessKey("tower", public("tower")).text()
    assert witness_check(verify_bundle(path, witnesses=[key], quorum=1)).startswith("tower at ")
    refused(verify_bundle(path, quorum=1), r"^checkpoint: 0 known witnesses cosigned it \(none\), 1 were asked for$")
    assert main([str(path), "--witness", key, "--quorum", "1"]) == 0
    assert main([str(path), "--quorum", "1"]) == 1
    for wrong in ("nonsense", vkey()):
        with pytest.raises(SystemExit) as stopped:
            main([str(path), "--witness", wrong])
        assert stopped.value.code == 2
        refused(
            verify_bundle(path, witnesses=[wrong]), "^--witness: it is not an Ed25519 verifier key|^--witness: it holds"
        )
    capsys.readouterr()


def test_a_cosignature_of_another_checkpoint_is_refused(tmp_path: Path) -> None:
    line = cosign(bundles.checkpoint(LOG.entries[:9]), "lender", key_of("lender"), 1_772_400_000)
    files = {**FILES, "checkpoint": FILES["checkpoint"] + f"{line}\n".encode()}
    sentence = "^checkpoint: the cosignature of lender is not what lender signed$"
    refused(verify_bundle(write(tmp_path, files)), sentence)
    raw = bytearray(base64.b64decode(line.split(" ")[2]))
    for changed in (raw[:-1], raw[:4] + b"\xff" * 8 + raw[12:], raw[:4] + raw[5:]):
        short = f"— lender {bundles.b64(bytes(changed))}\n".encode()
        refused(verify_bundle(write(tmp_path, {**FILES, "checkpoint": FILES["checkpoint"] + short})), sentence)


def test_one_witness_counts_once_and_a_revoked_key_not_at_all(tmp_path: Path) -> None:
    twice = cosigned("lender", files=cosigned("lender", time=5))
    refused(verify_bundle(write(tmp_path, twice), quorum=2), "1 known witnesses cosigned it")
    log = ledger().record(honest())
    revoke(log, "lender")
    refused(verify_bundle(write(tmp_path, cosigned("lender", files=log.files())), quorum=1), "0 known witnesses")


# --- approvals


def approval(name: str, silo: str = "lender", key: str = "", **changes: str) -> dict[str, str]:
    said = {"job": JOB, "spec_digest": digest(SPEC), "disclosure_digest": digest(bundles.disclosure(SPEC))}
    said |= {"silo": silo, "name": name, "time": "2026-03-01T10:00:30Z"}
    signer = key_of(key or name)
    signed = signer.sign(b"accord-approval-v1\n" + canonical({**said, **changes}))
    return {
        "name": name,
        "key": bundles.b64(public(key or name)),
        "time": said["time"],
        "signature": bundles.b64(signed),
    }


def test_approvals_name_the_persons(tmp_path: Path) -> None:
    play = edited("lender", "consented", approvals=[approval("Ana Ruiz"), approval("Bo Lind")])
    report = check(tmp_path, play)
    assert report.ok, report.reason
    assert {c.name: c.detail for c in report.checks}["approvals"] == "Ana Ruiz for lender, Bo Lind for lender"


TWICE = "two of its approvals are of one person"
UNSIGNED = "the approval of Ana Ruiz is not signed with the key that it names"


@pytest.mark.parametrize(
    ("approvals", "sentence"),
    [
        ([approval("Ana Ruiz"), approval("Ana Ruiz", key="another")], TWICE),
        ([approval("Ana Ruiz"), approval("Bo Lind", key="Ana Ruiz")], TWICE),
        ([approval("Ana Ruiz", job=bundles.OTHER_JOB)], UNSIGNED),
        ([approval("Ana Ruiz", silo="platform")], UNSIGNED),
        ([approval("Ana Ruiz", disclosure_digest="ab" * 32)], UNSIGNED),
        ([approval("Ana Ruiz", spec_digest="ab" * 32)], UNSIGNED),
        ([{**approval("Ana Ruiz"), "key": bundles.b64(public("another"))}], UNSIGNED),
        ([{**approval("Ana Ruiz"), "key": "AAAA"}], UNSIGNED),
        ([{**approval("Ana Ruiz"), "signature": "???"}], "it holds damaged base64"),
    ],
)
def test_approvals_that_are_none_are_refused(tmp_path: Path, approvals: list[Any], sentence: str) -> None:
    report = check(tmp_path, edited("lender", "consented", approvals=approvals))
    assert report.reason == f"entry 8, 'consented' by lender: {sentence}"


def test_an_approval_after_the_consent_is_refused(tmp_path: Path) -> None:
    play = edited("lender", "consented", approvals=[approval("Ana Ruiz")])
    play.get("lender", "consented").time = "2026-03-01T10:00:29Z"
    late = "of 2026-03-01T10:00:30Z, after the consent of 2026-03-01T10:00:29Z"
    assert check(tmp_path, play).reason == f"entry 8, 'consented' by lender: the approval of Ana Ruiz is {late}"


# --- records and budgets


def charge(counterparty: str = "platform", rho: str = "0.1", before: str = "0.2", limit: str = "0.5") -> dict[str, str]:
    return {"counterparty": counterparty, "rho": rho, "before": before, "limit": limit, "delta": "0.000001"}


def test_a_budget_that_holds_is_told(tmp_path: Path) -> None:
    report = check(tmp_path, edited("lender", "consented", budget=[charge(rho="0.3"), charge("analyst")]))
    assert report.ok, report.reason
    details = {c.name: c.detail for c in report.checks}
    assert details["budgets"] == "lender towards platform 0.3; lender towards analyst 0.1"
    assert details["spending"] == "2 charges, none forgets an earlier one"


PART = "it charges a counterparty twice, or one without a part in the job"


@pytest.mark.parametrize(
    ("silo", "budget", "sentence"),
    [
        (
            "lender",
            [charge(rho="0.3000000000000000000000000000000000000001")],
            "it takes 0.3000000000000000000000000000000000000001 of the budget towards platform,"
            " of which 0.2 of 0.5 were spent",
        ),
        ("lender", [charge(), charge()], PART),
        ("lender", [charge("lender")], PART),
        ("lender", [charge("outsider")], PART),
        (DEALER, [charge()], "only a data owner has a privacy budget"),
    ],
)
def test_budgets_that_do_not_hold_are_refused(tmp_path: Path, silo: str, budget: list[Any], sentence: str) -> None:
    report = check(tmp_path, edited(silo, "consented", budget=budget))
    assert report.reason == f"entry {LOG.index(silo, 'consented')}, 'consented' by {silo}: {sentence}"


@pytest.mark.parametrize("rho", ["-0.1", "1e5", "0.1 ", "٣", "", ".5", "1."])
def test_other_spellings_of_a_charge_are_refused(tmp_path: Path, rho: str) -> None:
    refused(check(tmp_path, edited("lender", "consented", budget=[charge(rho=rho)])), "^entry 8: it is no statement")


def test_an_owner_describes_its_data_and_nobody_else_does(tmp_path: Path) -> None:
    sentence = "a data owner says what its data are, and nobody else has any to describe$"
    refused(check(tmp_path, edited("lender", "consented", record=None)), f"^entry 8, 'consented' by lender: {sentence}")
    told = dict(honest().get("lender", "consented").body["record"])
    refused(check(tmp_path, edited(DEALER, "consented", record=told)), f"'consented' by dealer: {sentence}")


# --- several jobs


def jobs(count: int, edit: Callable[[int, Play], None] = lambda _n, _p: None) -> tuple[Ledger, list[str]]:
    """A log of several jobs, one after the other."""
    log, names = ledger(), [f"{n:032x}" for n in range(1, count + 1)]
    for n, name in enumerate(names):
        play = honest({**SPEC, "job": name})
        for step in play.steps:
            step.job = name
        edit(n, play)
        log.record(play)
    return log, names


def spends(*before: str) -> Callable[[int, Play], None]:
    def edit(number: int, play: Play) -> None:
        play.get("lender", "consented").body["budget"] = [charge(rho="0.1", before=before[number])]

    return edit


def test_several_jobs_in_one_bundle(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log, names = jobs(3)
    report = verify_bundle(write(tmp_path, log.files(*names)), vkey(), {"lender": pin_of("lender")})
    assert report.ok, report.reason
    assert [c.detail for c in report.checks if c.name.startswith("job ")] == ["vertical.glm, done, 13 entries"] * 3
    assert [s.job for s in report.summaries] == [s.job for s in report.stories] == names
    assert report.summary is None
    show(report)
    assert capsys.readouterr().out.endswith("\n3 jobs: 3 done\n\nbundle verified\n")
    assert verify_bundle(write(tmp_path, log.files(names[1]))).ok
    assert verify_bundle(write(tmp_path, log.files(*names)), stories=False).stories == []


def test_what_is_wrong_in_one_of_several_jobs_is_named_with_the_job(tmp_path: Path) -> None:
    def edit(number: int, play: Play) -> None:
        if number == 1:
            play.get("lender", "released").body["recipient"] = "mallory"

    log, names = jobs(3, edit)
    report = verify_bundle(write(tmp_path, log.files(*names)))
    assert [c.name for c in report.checks if not c.ok] == [f"job {names[1]}: releases"]
    refused(report, r"^entry \d+, 'released' by lender: it went to mallory, who is not a data owner of this job$")


def test_many_jobs_are_checked_by_several_processes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Then only the last signature of each silo in a job is checked, because it covers the hashes of those before."""

    def edit(number: int, play: Play) -> None:
        if number == 1:
            play.get("platform", "consented").key = "mallory"  # what it says is what platform's 'started' names as said
        if number == 2:
            play.get("platform", "finished").key = "mallory"

    log, names = jobs(3, edit)
    path = write(tmp_path, log.files(*names))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("silos.verify.FEW_JOBS", 2)
        report = verify_bundle(path)
        every = verify_bundle(path, every_signature=True)
    unsigned = "it is not signed with the key that platform enrolled"
    assert [c.name for c in report.checks if not c.ok] == [f"job {names[2]}: signatures"]
    refused(report, rf"^entry \d+, 'finished' by platform: {unsigned}$")
    assert [c.name.split(": entry")[0] for c in every.checks if not c.ok] == [f"job {n}" for n in names[1:]]
    refused(every, rf"^entry \d+, 'consented' by platform: {unsigned}$")
    assert main([str(path), "--every-signature", "--json"]) == 1
    capsys.readouterr()


def test_a_covered_statement_that_was_changed_is_refused(tmp_path: Path) -> None:
    """The later statement names another hash, so the signature itself counts."""
    log, names = jobs(3, lambda n, p: setattr(p.get("platform", "started"), "prev", "ab" * 32) if n == 0 else None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("silos.verify.FEW_JOBS", 2)
        report = verify_bundle(write(tmp_path, log.files(*names)))
    refused(report, "'started' by platform: it follows another statement of platform than the one in the bundle$")


def test_budgets_add_up_over_jobs(tmp_path: Path) -> None:
    log, names = jobs(3, spends("0", "0.1", "0.2"))
    report = verify_bundle(write(tmp_path, log.files(*names)))
    assert report.ok, report.reason
    log, names = jobs(3, spends("0", "0.1", "0.1"))
    report = verify_bundle(write(tmp_path, log.files(*names)))
    assert [c.name for c in report.checks if not c.ok] == ["spending"]
    said = "it says that 0.1 was spent of its budget for '' towards platform, jobs of this bundle had taken 0.2$"
    refused(report, rf"^entry \d+, 'consented' by lender: {said}")
    assert verify_bundle(write(tmp_path, log.files(*names[1:]))).ok, "what is not in the bundle cannot be added up"


# --- keys that change


def rotate(log: Ledger, silo: str, old: str, new: str, **changes: Any) -> None:
    message = f"accord-rotate-v1\n{silo}\n{pin_of(changes.pop('of', old))}".encode()
    proof = bundles.b64(key_of(changes.pop("prover", new)).sign(message))
    seq, prev = log.chains[silo, ""]
    body = {"identity_key": bundles.b64(public(new)), "proof": proof}
    fields = {"seq": seq, "prev": prev, **changes}
    log.append(Statement("rotated", "", "", silo, fields["seq"], fields["prev"], "2026-02-02T09:00:00Z", body), old)


def revoke(log: Ledger, silo: str, key: str = "", signer: str = "log", by: str = "coordinator") -> None:
    seq, prev = log.chains.get((by, ""), (0, ""))
    body = {"silo": silo, "fingerprint": pin_of(key or silo), "reason": "the laptop was stolen"}
    log.append(Statement("revoked", "", "", by, seq, prev, "2026-02-03T09:00:00Z", body), signer)


def with_key(key: str, start: int = 0, silo: str = "platform") -> Play:
    """The honest job, which a silo signs with another key from a step on."""
    play = honest()
    for step in play.steps[start:]:
        step.key = key if step.silo == silo else None
        if step.event == "started":
            step.body["identities"][silo] = pin_of(key)
    return play


def test_a_rotated_key_speaks_and_pins_of_both_keys_hold(tmp_path: Path) -> None:
    log = ledger()
    rotate(log, "platform", "platform", "second")
    rotate(log, "platform", "second", "third")
    path = write(tmp_path, log.record(with_key("third")).files())
    for pinned in ("platform", "second", "third"):
        report = verify_bundle(path, pins={"platform": pin_of(pinned)})
        assert report.ok, report.reason
    refused(verify_bundle(path, pins={"platform": pin_of("mallory")}), "not with the one you pinned")


def test_old_statements_stay_good_after_a_rotation_and_a_revocation(tmp_path: Path) -> None:
    log = ledger().record(honest())
    rotate(log, "platform", "platform", "second")
    revoke(log, "platform", "second")
    revoke(log, "lender")
    report = verify_bundle(
        write(tmp_path, log.files()), pins={"platform": pin_of("second"), "lender": pin_of("lender")}
    )
    assert report.ok, report.reason


def test_a_replaced_key_speaks_no_longer(tmp_path: Path) -> None:
    log = ledger()
    rotate(log, "platform", "platform", "second")
    report = verify_bundle(write(tmp_path, log.record(honest()).files()))
    refused(report, r"'consented' by platform: it is signed with the key of platform that was replaced in entry 5$")


def test_a_revoked_key_speaks_no_longer(tmp_path: Path) -> None:
    log = ledger()
    revoke(log, "platform")
    report = verify_bundle(write(tmp_path, log.record(honest()).files()))
    refused(report, r"'consented' by platform: the key of platform had been revoked in entry 5$")
    log = ledger()
    revoke(log, "platform")
    log.enrol("platform", "second")
    assert verify_bundle(write(tmp_path, log.record(with_key("second")).files())).ok
    log = ledger()
    revoke(log, "platform")
    log.enrol("platform", "second")
    report = verify_bundle(write(tmp_path, log.record(honest()).files()))
    refused(report, r"'consented' by platform: it is signed with the key of platform that was revoked in entry 5$")


ROSTERS: dict[str, tuple[Callable[[Ledger], None], str]] = {
    "rotated by another": (
        lambda log: rotate(log, "platform", "mallory", "second"),
        "entry 5, 'rotated' by platform: it is not signed with the key that platform enrolled",
    ),
    "a proof by another": (
        lambda log: rotate(log, "platform", "platform", "second", prover="mallory"),
        "entry 5, 'rotated' by platform: the new key of platform did not sign the proof",
    ),
    "a proof for another key": (
        lambda log: rotate(log, "platform", "platform", "second", of="lender"),
        "entry 5, 'rotated' by platform: the new key of platform did not sign the proof",
    ),
    "to a key of another silo": (
        lambda log: rotate(log, "platform", "platform", "lender"),
        "entry 5, 'rotated' by platform: the new key of platform was used before",
    ),
    "back to an old key": (
        lambda log: (rotate(log, "platform", "platform", "second"), rotate(log, "platform", "second", "platform"))[0],
        "entry 6, 'rotated' by platform: the new key of platform was used before",
    ),
    "out of the chain": (
        lambda log: rotate(log, "platform", "platform", "second", seq=4),
        "entry 5, 'rotated' by platform: it does not follow what platform said before about no job",
    ),
    "revoked by a silo": (
        lambda log: revoke(log, "platform", signer="lender", by="lender"),
        "entry 5, 'revoked' by lender: this is not for it to say",
    ),
    "revoked by somebody else than the log": (
        lambda log: revoke(log, "platform", signer="mallory"),
        "entry 5, 'revoked' by coordinator: it is not signed with the key that coordinator enrolled",
    ),
    "a key that never spoke": (
        lambda log: revoke(log, "platform", "mallory"),
        "entry 5, 'revoked' by coordinator: it revokes a key that did not speak for platform",
    ),
    "a revoked key comes back": (
        lambda log: (revoke(log, "platform"), log.enrol("platform"))[0],
        "entry 6, 'enrolled' by platform: it repeats what platform said before",
    ),
    "rotated after the revocation": (
        lambda log: (revoke(log, "platform"), rotate(log, "platform", "platform", "second"))[0],
        "entry 6, 'rotated' by platform: the key of platform had been revoked in entry 5",
    ),
    "an enrolment again": (
        lambda log: log.entries.append(log.entries[2]),
        "entry 5, 'enrolled' by platform: it repeats what platform said before",
    ),
}


@pytest.mark.parametrize("what", ROSTERS)
def test_rosters_that_cannot_be_are_refused(tmp_path: Path, what: str) -> None:
    change, sentence = ROSTERS[what]
    log = ledger()
    change(log)
    report = verify_bundle(write(tmp_path, log.record(honest()).files()))
    assert report.reason == sentence
    assert report.checks[-1].name == "roster"


def test_a_job_in_the_roster_is_refused(tmp_path: Path) -> None:
    files = {**FILES, "roster": FILES["roster"] + LOG.lines([LOG.index("lender", "consented")])}
    refused(verify_bundle(write(tmp_path, files)), "^entry 8, 'consented' by lender: it is not about the roster$")


@pytest.mark.parametrize("event", ["enrolled", "rotated", "revoked"])
def test_the_roster_in_a_job_is_refused(tmp_path: Path, event: str) -> None:
    """A silo may sign what it likes: here a change of keys that says to be about the job."""
    bodies = {
        "enrolled": {"identity_key": bundles.b64(public("lender"))},
        "rotated": {"identity_key": bundles.b64(public("lender")), "proof": ""},
        "revoked": {"silo": "platform", "fingerprint": "ab" * 32, "reason": "no"},
    }
    play = honest()
    play.add("lender", event, bodies[event], 30)
    report = check(tmp_path, play)
    refused(report, f"^entry {len(LOG.entries)}, '{event}' by lender: it comes after the end of the job")
    role = "the coordinator" if event == "revoked" else "the silo"
    assert f"entry {len(LOG.entries)}, '{event}' by lender: this is for {role} of the job to say" in [
        c.detail for c in report.checks
    ]


# --- withdrawn


def test_a_consent_can_be_withdrawn_until_the_release(tmp_path: Path) -> None:
    gone = {"reason": "a customer objected"}
    for last in (("lender", "consented"), ("dealer", "started")):
        report = check(tmp_path, ending("withdrawn", "lender", gone, last))
        assert report.ok, report.reason
        assert report.summary is not None
        assert report.summary.state == "withdrawn"
    for silo, last in (("platform", ("lender", "consented")), ("lender", ("lender", "released"))):
        report = check(tmp_path, ending("withdrawn", silo, gone, last))
        refused(report, f"'withdrawn' by {silo}: {silo} had no consent to withdraw, or had released its result$")


# --- explanations


def test_every_check_is_explained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log, names = jobs(2, lambda n, p: p.get("lender", "released").body.update(recipient="mallory") if n else None)
    paths = [write(tmp_path, FILES)]
    names_of_checks = {explained(c.name) for c in verify_bundle(paths[0], results=[tmp_path / "none"]).checks}
    assert names_of_checks <= EXPLAIN.keys()
    assert EXPLAIN.keys() - names_of_checks == {"signatures", "entries", "job"}
    assert main([str(paths[0]), "--explain"]) == 0
    printed = capsys.readouterr().out
    for name in names_of_checks - {"result N"}:
        assert EXPLAIN[name] in printed
    several = write(tmp_path, log.files(*names))
    assert main([str(several), "--explain", "--json"]) == 1
    assert EXPLAIN["releases"] in [c.get("proves") for c in json.loads(capsys.readouterr().out)["checks"]]
    assert set(OWNERS) < set(bundles.PARTICIPANTS)
