"""Persons who say yes or no: whose answer counts, how often, for what, and until when."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as hs

from coordinator import statements as st
from coordinator.envelope import digest
from silos import approvals, policy
from silos.approvals import ApprovalError, Denied, approve, deny, read_decided, read_pending
from silos.approvals_text import plain, text, when
from silos.approvers import (
    Subject,
    check_approvals,
    create_key,
    holds,
    key_file,
    load_key,
    policy_lines,
    public_text,
    sign,
)
from silos.disclosure import disclosure
from silos.errors import ConfigError, ConsentError
from silos.spec import spec_digest
from silos.times import to_text, utcnow
from tests.silos.approvals_world import (
    ANA,
    BO,
    PASSPHRASE,
    Desk,
    desk,
    entries,
    key_files,
    name_approvers,
    private_key,
    public,
    reviewed,
)
from tests.silos.test_consent import Case
from tests.silos.world import BOUND_S, JOB, registry

SUBJECT = Subject(JOB, "a" * 64, "b" * 64, "lender")
TIME = "2026-03-01T12:00:00Z"


def refused(error: type[Exception], sentence: str, work: Any, *arguments: Any) -> None:
    with pytest.raises(error) as caught:
        work(*arguments)
    assert str(caught.value) == sentence


def yes(at: Desk, name: str = ANA, key: Ed25519PrivateKey | None = None) -> int:
    asked = read_pending(at.home, JOB)
    return approve(at.home, asked, name, key or private_key(name), public(), utcnow())


async def result(waiting: asyncio.Task[Any]) -> Any:
    async with asyncio.timeout(BOUND_S):
        return await waiting


# --- keys


def test_a_key_opens_with_its_passphrase_only(tmp_path: Path) -> None:
    path = key_file(key_files(), ANA)
    assert path.name.startswith("ana-ruiz-")
    assert public_text(load_key(path, PASSPHRASE)) == public()[ANA]
    refused(ConfigError, f"the passphrase does not open {path}", load_key, path, PASSPHRASE + "!")
    assert b"ENCRYPTED PRIVATE KEY" in path.read_bytes()
    open_to_all = tmp_path / "open.key"
    open_to_all.write_bytes(path.read_bytes())
    open_to_all.chmod(0o644)
    refused(
        ConfigError,
        f"{open_to_all} can be read by other users; run 'chmod 600 {open_to_all}'",
        load_key,
        open_to_all,
        PASSPHRASE,
    )
    open_to_all.chmod(0o600)
    open_to_all.write_bytes(b"-----BEGIN ENCRYPTED PRIVATE KEY-----\n")
    refused(ConfigError, f"{open_to_all} is not the key of an approver", load_key, open_to_all, PASSPHRASE)


def test_a_key_is_never_overwritten_and_needs_a_name_and_a_passphrase(tmp_path: Path) -> None:
    path = tmp_path / "ana.key"
    refused(ConfigError, "a passphrase has at least 10 characters", create_key, path, ANA, "short")
    unfit = "an approver's name has 1 to 128 printable characters and no space at its ends"
    for name in ("", " Ana", "Ana\n", "A\x1b[2Ja", "x" * 129, "An\u202ea"):
        refused(ConfigError, unfit, create_key, path, name, PASSPHRASE)
    path.write_text("kept")
    refused(ConfigError, f"{path} holds a key already", create_key, path, ANA, PASSPHRASE)
    assert path.read_text() == "kept"


def test_names_that_look_alike_have_files_of_their_own(tmp_path: Path) -> None:
    names = ["Ana Ruiz", "ana ruiz", "Ána Ruiz", "../Ana", "王芳", "李娜"]
    paths = {key_file(tmp_path, name) for name in names}
    assert len(paths) == len(names)
    assert {path.parent for path in paths} == {tmp_path}


@pytest.mark.parametrize("name", [ANA, BO, "a\\b", "王芳"])
def test_the_lines_that_are_printed_make_an_approver(tmp_path: Path, name: str) -> None:
    key = public()[ANA]
    document = tomllib.loads(policy_lines(name, key))
    assert document == {"approvers": {name: {"key": key}}}
    file = tmp_path / "policy.toml"
    file.write_text(f"version = 1\nminimum_matches = 100\n{policy_lines(name, key)}\n")
    assert policy.load(file).approvers[name].key == key


# --- what an approval proves


def test_an_approval_is_of_one_job_one_person_one_key() -> None:
    approval = sign(private_key(ANA), SUBJECT, ANA, TIME)
    assert st.read(st.Approval, approval.model_dump(), "it") == approval
    assert holds(approval, SUBJECT)
    for name, value in (
        ("job", "f" * 32),
        ("spec_digest", "c" * 64),
        ("disclosure_digest", "c" * 64),
        ("silo", "platform"),
    ):
        assert not holds(approval, replace(SUBJECT, **{name: value})), name
    for name, value in (
        ("name", BO),
        ("time", "2026-03-01T12:00:01Z"),
        ("key", public()[BO]),
        ("key", "AAAA"),
        ("key", approval.key.rstrip("=")),
        ("signature", approval.signature[:-4] + "AAA="),
        ("signature", "?"),
    ):
        assert not holds(approval.model_copy(update={name: value}), SUBJECT), name


def test_partners_check_the_approvals_in_a_consent() -> None:
    ana, bo = (sign(private_key(name), SUBJECT, name, TIME) for name in (ANA, BO))
    check_approvals([], SUBJECT)
    check_approvals([ana, bo], SUBJECT)
    other = sign(private_key(ANA), replace(SUBJECT, spec_digest="c" * 64), ANA, TIME)
    for approvals_, sentence in (
        ([other], "the approval of lender by Ana Ruiz is not signed by the key that it names"),
        ([ana, ana], "the consent of lender counts one person twice among its approvals"),
        (
            [ana, sign(private_key(ANA), SUBJECT, "Ana R.", TIME)],
            "the consent of lender counts one key twice among its approvals",
        ),
    ):
        with pytest.raises(ConsentError) as caught:
            check_approvals(approvals_, SUBJECT)
        assert (str(caught.value), caught.value.silo) == (sentence, "lender")


def test_a_consent_with_an_approval_that_does_not_hold_stops_the_job() -> None:
    case = Case()
    subject = Subject(JOB, spec_digest(case.spec), digest(disclosure(case.spec, registry)), "platform")
    good = sign(private_key(ANA), subject, ANA, TIME).model_dump()
    case.replace_consent("platform", {"approvals": [good]})
    assert [one.name for one in case.verify()["platform"].body.approvals] == [ANA]
    for silo in ("lender", "platform"):
        bad = {**good, "name": BO} if silo == "platform" else good
        case = Case()
        case.replace_consent(silo, {"approvals": [bad]})
        with pytest.raises(ConsentError) as caught:
            case.verify()
        assert str(caught.value) == (f"the approval of {silo} by {bad['name']} is not signed by the key that it names")
        assert caught.value.silo == silo


# --- waiting


async def test_nobody_is_asked_where_nobody_is_needed(tmp_path: Path) -> None:
    with desk(tmp_path) as at:
        assert await at.wait(0) == []
        assert not at.folder().exists()


async def test_a_yes_becomes_part_of_the_consent(tmp_path: Path) -> None:
    with desk(tmp_path) as at:
        waiting = asyncio.create_task(at.wait())
        asked = await at.asked()
        assert (asked.needed, asked.rule, asked.submitter) == (1, "credit-model", "platform")
        assert yes(at) == 0
        (approval,) = await result(waiting)
        assert (approval["name"], approval["key"]) == (ANA, public()[ANA])
        subject = Subject(JOB, at.job.spec_digest, at.job.disclosure_digest, "lender")
        check_approvals([st.Approval(**approval)], subject)
        decided = read_decided(at.home, JOB)
        assert decided is not None
        assert (decided.outcome, decided.sentence) == ("approved", "approved by Ana Ruiz")
        waits_no_more = f"job {JOB} does not wait for an approval here: approved by Ana Ruiz"
        refused(ApprovalError, waits_no_more, read_pending, at.home, JOB)
        refused(ApprovalError, waits_no_more, deny, at.home, asked, BO, "too late", public(), utcnow())
        assert await at.wait() == [approval], "what was said holds after a restart"
        again = read_decided(at.home, JOB)
        assert again is not None
        assert again.asked == decided.asked


async def test_two_persons_are_two_persons(tmp_path: Path) -> None:
    with desk(tmp_path) as at:
        waiting = asyncio.create_task(at.wait(2))
        await at.asked()
        assert yes(at, ANA) == 1
        refused(ApprovalError, f"Ana Ruiz has approved job {JOB} already", yes, at, ANA)
        assert not waiting.done()
        assert yes(at, BO) == 0
        assert {one["name"] for one in await result(waiting)} == {ANA, BO}


async def test_only_the_keys_of_the_policy_count(tmp_path: Path) -> None:
    with desk(tmp_path) as at:
        waiting = asyncio.create_task(at.wait())
        asked = await at.asked()
        refused(ApprovalError, "the policy of lender names another key for Ana Ruiz", yes, at, ANA, private_key(BO))
        unknown = "the policy of lender does not name 'Eve' as an approver; it names Ana Ruiz, Bo \"B\" Łukasz"
        refused(ApprovalError, unknown, yes, at, "Eve", private_key(BO))
        refused(ApprovalError, unknown, deny, at.home, asked, "Eve", "because", public(), utcnow())
        eve, now = Ed25519PrivateKey.generate(), to_text(utcnow())
        other = replace(asked.subject, job="f" * 32)
        answers = at.folder() / "approvals"
        answers.mkdir()
        forged = {
            "eve.json": sign(eve, asked.subject, "Eve", now),
            "ana.json": sign(eve, asked.subject, ANA, now),
            "claimed.json": sign(eve, asked.subject, ANA, now).model_copy(update={"key": public()[ANA]}),
            "replayed.json": sign(private_key(ANA), other, ANA, now),
        }
        for name, approval in forged.items():
            (answers / name).write_text(json.dumps(approval.model_dump()))
        (answers / "torn.json").write_text('{"name": ')
        assert approvals.said(at.home, asked, public()) == []
        assert yes(at, ANA) == 0
        assert [one["name"] for one in await result(waiting)] == [ANA]


async def test_a_person_named_while_the_job_waits_can_answer(tmp_path: Path) -> None:
    with desk(tmp_path) as at:
        name_approvers(at.home, ANA)
        waiting = asyncio.create_task(at.wait(approvers=public(ANA)))
        await at.asked()
        name_approvers(at.home, ANA, BO)
        assert yes(at, BO) == 0
        assert [one["name"] for one in await result(waiting)] == [BO]


async def test_one_no_is_enough(tmp_path: Path) -> None:
    with desk(tmp_path) as at:
        waiting = asyncio.create_task(at.wait(2))
        asked = await at.asked()
        assert yes(at, ANA) == 1
        refused(
            ApprovalError,
            "a reason is one sentence of at most 600 characters",
            deny,
            at.home,
            asked,
            BO,
            " \n",
            public(),
            utcnow(),
        )
        deny(at.home, asked, BO, "the campaign\nhas ended", public(), utcnow())
        with pytest.raises(Denied) as caught:
            await result(waiting)
        said = 'Bo "B" Łukasz said no: the campaign has ended'
        assert (str(caught.value), caught.value.name, caught.value.reason) == (said, BO, "the campaign has ended")
        assert caught.value.rule == "credit-model"
        decided = read_decided(at.home, JOB)
        assert decided is not None
        assert (decided.outcome, decided.sentence, [one.name for one in decided.approvals]) == ("refused", said, [ANA])
        with pytest.raises(Denied, match="said no"):
            await at.wait(2)


async def test_damaged_files_never_lead_to_a_consent(tmp_path: Path) -> None:
    with desk(tmp_path) as at:
        waiting = asyncio.create_task(at.wait())
        await at.asked()
        question = at.folder() / "pending.json"
        for broken in ("", "[]", "{"):
            question.write_text(broken)
            await at.asked()  # the node asks again
        (at.folder() / "denied.json").write_text("{")
        with pytest.raises(Denied, match=r"^Somebody said no: the file does not tell why$"):
            await result(waiting)
        (at.folder() / "decided.json").write_text("{")
        with pytest.raises(Denied):
            await at.wait()
        question.write_text("{")
        approvals.over(at.folder())
        assert not question.exists()


async def test_after_a_no_nobody_can_say_yes(tmp_path: Path) -> None:
    with desk(tmp_path) as at:
        waiting = asyncio.create_task(at.wait())
        asked = await at.asked()
        deny(at.home, asked, BO, "no", public(), utcnow())  # before the node looks again
        sentence = f'job {JOB} has been refused: Bo "B" Łukasz said no: no'
        refused(ApprovalError, sentence, approve, at.home, asked, ANA, private_key(ANA), public(), utcnow())
        with pytest.raises(Denied):
            await result(waiting)


async def test_who_answers_too_late_is_told(tmp_path: Path) -> None:
    with desk(tmp_path) as at:
        waiting = asyncio.create_task(at.wait(2))
        asked = await at.asked()
        later = dt.datetime.fromisoformat(asked.valid_until)
        sentence = f"job {JOB} was valid until {asked.valid_until}"
        refused(ApprovalError, sentence, approve, at.home, asked, ANA, private_key(ANA), public(), later)
        assert yes(at, ANA) == 1
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        past = utcnow() - dt.timedelta(seconds=5)
        with pytest.raises(Denied) as caught:
            await at.wait(2, until=past)
        assert str(caught.value) == f"1 of 2 persons had approved it by {to_text(past)}"
        assert caught.value.name == ""
        decided = read_decided(at.home, JOB)
        assert decided is not None
        assert decided.outcome == "expired"


async def test_a_job_that_ends_elsewhere_asks_nobody_any_more(tmp_path: Path) -> None:
    with desk(tmp_path) as at:
        waiting = asyncio.create_task(at.wait())
        await at.asked()
        at.over = True
        assert await result(waiting) is None
        assert approvals.all_pending(at.home) == []
        (decided,) = approvals.all_decided(at.home, 10)
        assert (decided.outcome, decided.sentence) == ("ended", "the job ended before")


async def test_a_job_that_ended_while_no_node_was_there_is_put_away(tmp_path: Path) -> None:
    with desk(tmp_path) as at:
        waiting = asyncio.create_task(at.wait())
        await at.asked()
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        assert len(approvals.all_pending(at.home)) == 1
        approvals.over(at.folder())
        assert approvals.all_pending(at.home) == []
        assert [one.outcome for one in approvals.all_decided(at.home, 10)] == ["ended"]
        before = entries(at.folder())
        approvals.over(at.folder())
        approvals.over(at.home.job("f" * 32))
        assert entries(at.folder()) == before
        assert not at.home.job("f" * 32).exists()


async def test_waiting_goes_on_after_a_restart(tmp_path: Path) -> None:
    with desk(tmp_path) as at:
        waiting = asyncio.create_task(at.wait(2))
        first = await at.asked()
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        assert yes(at, ANA) == 1, "answers are taken while no node runs"
        until = dt.datetime.fromisoformat(first.valid_until)
        waiting = asyncio.create_task(at.wait(2, until=until))
        assert yes(at, BO) == 0
        assert {one["name"] for one in await result(waiting)} == {ANA, BO}
        decided = read_decided(at.home, JOB)
        assert decided is not None
        assert decided.asked == first


async def test_a_changed_question_is_not_shown(tmp_path: Path) -> None:
    with desk(tmp_path) as at:
        waiting = asyncio.create_task(at.wait())
        await at.asked()
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        path = at.folder() / "pending.json"
        document = json.loads(path.read_text())
        sentence = f"{path} has been changed: it shows another job than it asks about"
        for part, key in (("spec", "purpose"), ("disclosure", "assumptions"), ("disclosure", "spec_digest")):
            changed = {**document, part: {**document[part], key: "harmless"}}
            path.write_text(json.dumps(changed))
            refused(ConfigError, sentence, read_pending, at.home, JOB)


async def test_a_damaged_file_hides_no_other_job(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with desk(tmp_path) as at:
        waiting = asyncio.create_task(at.wait())
        asked = await at.asked()
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        broken = at.home.job("f" * 32)
        for name in ("pending.json", "decided.json"):
            broken.mkdir(parents=True, exist_ok=True)
            (broken / name).write_text("{")
            assert approvals.all_pending(at.home) == [asked]
            assert approvals.all_decided(at.home, 10) == []
            assert str(broken / name) in caplog.text
            (broken / name).unlink()
        approvals.over(at.folder())
        (broken / "decided.json").write_text("{")
        assert [one.asked for one in approvals.all_decided(at.home, 1)] == [asked], "the latest that can be read"


# --- what a person reads


async def test_a_person_reads_all_that_is_signed(tmp_path: Path) -> None:
    charge = {"counterparty": "platform", "rho": "0.1", "before": "0.2", "limit": "0.5", "delta": "0.000001"}
    with desk(tmp_path) as at:
        waiting = asyncio.create_task(at.wait(2, budget=[charge]))
        asked = await at.asked()
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
    shown = text(asked).splitlines()
    for line in (
        f"  - platform asks lender to take part in job {JOB}",
        "  - purpose: credit risk",
        "  - the job is to train a regression model on joined rows (vertical.glm)",
        "  - together with platform (data owner), dealer (deals randomness, brings no data)",
        "  - rule 'credit-model' of the policy allows it if 2 different persons here approve it",
        f"  - asked on {when(asked.asked_at)}; can be approved until {when(asked.valid_until)}",
        "What the columns of lender are used for",
        "  - data set 'loans'",
        "What is handed out as results",
        "platform learns",
        "Limits",
        "This holds if",
        "What it takes of the privacy budget",
        "  - rho 0.1 towards platform; before it 0.2 of 0.5 were taken",
    ):
        assert line in shown
    used = [line for line in shown if "leads to" in line]
    assert [line.split(":")[0] for line in used] == ["  - email", "  - LIMIT_BAL, SEX", "  - default"]
    assert not any("VISITS" in line for line in used), "partners' columns are their business"


def test_what_others_wrote_cannot_play_with_the_terminal() -> None:
    job = reviewed(purpose="credit\x1b[2J\u202erisk")
    assert plain(job.spec.purpose) == "credit\\u001b[2J\\u202erisk"


@given(hs.text())
def test_every_line_is_printable(line: str) -> None:
    assert plain(line).isprintable()
    assert plain(plain(line)) == plain(line)
