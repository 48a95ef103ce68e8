"""The transition table: every legal step, every pair the table lacks, every check on who says what."""

from __future__ import annotations

import datetime as dt
import itertools
from dataclasses import dataclass, replace
from typing import Any

import pytest

from coordinator.envelope import parse
from coordinator.errors import Conflict, Forbidden, Malformed, Refusal
from coordinator.jobs import FINAL, OPEN, TABLE, By, Job, Said, State, apply
from coordinator.statements import format_time
from tests.coordinator.world import (
    START,
    TestSilo,
    consent_body,
    disclosure_of,
    finished_body,
    make_spec,
    released_body,
    started_body,
)

NAMES = ("lender", "platform", "dealer")
AFTER_END = START + dt.timedelta(days=2)


@dataclass
class Play:
    """The three silos, an analyst who submits, and the job so far."""

    silos: dict[str, TestSilo]
    spec: dict[str, Any]
    job: Job | None = None

    @property
    def names(self) -> tuple[str, ...]:
        return NAMES if self.spec["dealer"] else NAMES[:2]

    def said(self, who: str, event: str, body: Any = None, at: dt.datetime = START, **changes: Any) -> Said:
        silo = self.silos[who]
        envelope = silo.say(event, self.spec, self.body(who, event) if body is None else body, **changes)
        return Said(parse(envelope).statement, silo.fingerprint, at)

    def say(self, who: str, event: str, body: Any = None, **changes: Any) -> Job:
        self.job = apply(self.job, self.said(who, event, body, **changes))
        return self.job

    def body(self, who: str, event: str) -> dict[str, Any]:
        bodies: dict[str, Any] = {
            "proposed": {"spec": self.spec},
            "disclosed": {"disclosure": disclosure_of(self.spec)},
            "consented": consent_body(self.silos[who], self.spec),
            "refused": {"reason": "not allowed", "rule": "default"},
            "started": started_body([self.silos[n] for n in self.names]),
            "released": released_body("lender"),
            "finished": finished_body(),
            "failed": {"step": "align", "reason": "the link closed", "party": "platform"},
        }
        return bodies.get(event, {"reason": "because"})

    def reach(self, state: State) -> Job | None:
        """Bring a new job to an open state by the shortest way."""
        steps: list[tuple[str, str]] = [("analyst", "proposed"), ("analyst", "disclosed")]
        steps += [(n, "consented") for n in self.names] + [(n, "started") for n in self.names]
        for who, event in steps:
            if (self.job.state if self.job else State.ABSENT) == state:
                break
            self.say(who, event)
        assert (self.job.state if self.job else State.ABSENT) == state
        return self.job


@pytest.fixture
def play() -> Play:
    return Play({n: TestSilo(n) for n in (*NAMES, "analyst", "stranger", "coordinator")}, make_spec())


def ended(state: State) -> Job:
    play = Play({n: TestSilo(n) for n in (*NAMES, "analyst", "coordinator")}, make_spec())
    return replace(play.reach(State.RUNNING), state=state)  # type: ignore[type-var]


EVENTS = sorted({event for _, event in TABLE})
SPEAKERS = {
    By.ANYONE: "analyst",
    By.SUBMITTER: "analyst",
    By.PARTICIPANT: "platform",
    By.OWNER: "platform",
    By.COORDINATOR: "coordinator",
}


@pytest.mark.parametrize(("state", "event"), sorted(TABLE))
def test_every_step_of_the_table_can_be_taken(play: Play, state: State, event: str) -> None:
    play.reach(state)
    if (state, event) == (State.DISCLOSED, "withdrawn"):
        play.say("platform", "consented")
    at = AFTER_END if event == "expired" else START
    after = play.say(SPEAKERS[TABLE[state, event].by], event, at=at)
    rule = TABLE[state, event]
    assert after.state == (rule.to if rule.when(after) else state)
    assert bool(after.reason) == (rule.to in FINAL and rule.to != State.DONE)


@pytest.mark.parametrize(("state", "event"), [p for p in itertools.product(State, EVENTS) if p not in TABLE])
def test_every_pair_the_table_lacks_raises_and_changes_nothing(play: Play, state: State, event: str) -> None:
    job = None if state == State.ABSENT else ended(state) if state in FINAL else play.reach(state)
    before = repr(job)
    for who in ("analyst", *NAMES, "coordinator"):
        with pytest.raises(Conflict, match=f"takes no '{event}'"):
            apply(job, play.said(who, event, at=AFTER_END))
    assert repr(job) == before


def test_nobody_withdraws_a_consent_it_has_not_given(play: Play) -> None:
    play.reach(State.DISCLOSED)
    with pytest.raises(Conflict, match="platform has not consented to this job"):
        play.say("platform", "withdrawn")


def test_a_consent_is_withdrawn_by_who_gave_it_until_it_has_released(play: Play) -> None:
    play.reach(State.RUNNING)
    play.say("platform", "released")
    with pytest.raises(Conflict, match="platform has released its result already"):
        play.say("platform", "withdrawn")
    job = play.say("lender", "withdrawn")
    assert (job.state, job.reason.split(":")[0]) == (State.WITHDRAWN, "lender withdrew its consent")


def test_a_whole_life_without_a_dealer(play: Play) -> None:
    play.spec = make_spec(dealer=None)
    job = play.reach(State.RUNNING)
    assert job is not None
    assert (job.dealer, job.participants) == (None, ("lender", "platform"))
    with pytest.raises(Forbidden, match="not for dealer"):
        play.say("dealer", "finished")
    for who in play.names:
        play.say(who, "released")
        assert play.job is not None
        assert play.job.state == State.RUNNING
        play.say(who, "finished")
    assert play.job is not None
    assert play.job.state == State.DONE


def test_the_table_covers_every_state_and_ends() -> None:
    assert {state for state, _ in TABLE} == {State.ABSENT, *OPEN}
    assert set(FINAL) <= {rule.to for rule in TABLE.values()}
    assert {*OPEN, *FINAL, State.ABSENT} == set(State)


def test_a_whole_life_with_its_quorums(play: Play) -> None:
    play.reach(State.DISCLOSED)
    for count, name in enumerate(NAMES, 1):
        assert play.say(name, "consented").state == (State.READY if count == 3 else State.DISCLOSED)
    for count, name in enumerate(NAMES, 1):
        assert play.say(name, "started").state == (State.RUNNING if count == 3 else State.READY)
    assert play.say("dealer", "finished").state == State.RUNNING
    assert play.say("lender", "released").state == State.RUNNING
    assert play.say("lender", "finished").state == State.RUNNING
    assert play.say("platform", "finished").state == State.RUNNING  # all finished, one owner has not released
    assert play.say("platform", "released").state == State.DONE


@pytest.mark.parametrize(("state", "event"), sorted(key for key, rule in TABLE.items() if rule.by != By.ANYONE))
def test_nobody_else_may_say_it(play: Play, state: State, event: str) -> None:
    job = play.reach(state)
    allowed = {
        By.SUBMITTER: {"analyst"},
        By.PARTICIPANT: set(NAMES),
        By.OWNER: {"lender", "platform"},
        By.COORDINATOR: {"coordinator"},
    }[TABLE[state, event].by]
    for who in set(play.silos) - allowed:
        with pytest.raises(Forbidden, match=who):
            apply(job, play.said(who, event, at=AFTER_END))


@pytest.mark.parametrize(
    ("state", "who", "event"),
    [
        (State.DISCLOSED, "lender", "consented"),
        (State.READY, "dealer", "started"),
        (State.RUNNING, "lender", "released"),
        (State.RUNNING, "dealer", "finished"),
    ],
)
def test_nothing_is_said_twice(play: Play, state: State, who: str, event: str) -> None:
    play.reach(state)
    play.say(who, event)
    with pytest.raises(Conflict, match="already"):
        play.say(who, event)


@pytest.mark.parametrize(
    ("state", "who", "event"),
    [(State.READY, "dealer", "started"), (State.RUNNING, "lender", "released"), (State.RUNNING, "lender", "finished")],
)
def test_a_key_replaced_after_consent_cannot_go_on_but_can_give_up(
    play: Play, state: State, who: str, event: str
) -> None:
    play.reach(state)
    play.silos[who] = TestSilo(who)
    body = play.body(who, event)
    with pytest.raises(Forbidden, match="another identity key"):
        play.say(who, event, body)
    assert play.say(who, "failed").state == State.FAILED


@pytest.mark.parametrize("state", [State.READY, State.RUNNING])
def test_a_key_replaced_after_consent_can_take_the_consent_back(play: Play, state: State) -> None:
    play.reach(state)
    play.silos["lender"] = TestSilo("lender")
    assert play.say("lender", "withdrawn").state == State.WITHDRAWN


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"v": 2}, "v:"),
        ({"job": "00" * 16}, "another job"),
        ({"job": "x"}, "job:"),
        ({"parties": [{"silo": "lender"}]}, "parties"),
        ({"parties": [{"silo": "lender"}, {"silo": "lender"}]}, "different silos"),
        ({"parties": [{"silo": "lender"}, {"silo": "Platform"}]}, "silo"),
        ({"dealer": "lender"}, "different silos"),
        ({"dealer": ["dealer"]}, "dealer"),
        ({"dealer": ""}, "dealer"),
        ({"valid_until": "tomorrow"}, "valid_until"),
        ({"valid_until": "2020-01-01T00:00:00Z"}, "has passed"),
        ({"valid_until": "2020-1-1T00:00:00Z"}, "valid_until"),
    ],
)
def test_a_spec_the_coordinator_cannot_act_on(play: Play, change: dict[str, Any], why: str) -> None:
    job_id = play.spec["job"]
    play.spec = {**play.spec, **change}
    with pytest.raises(Malformed, match=why):
        play.say("analyst", "proposed", job=job_id)
    assert play.job is None


def test_the_digest_must_be_that_of_the_spec(play: Play) -> None:
    with pytest.raises(Malformed, match="digest"):
        play.say("analyst", "proposed", spec_digest="00" * 32)


@pytest.mark.parametrize("change", [{"spec_digest": "00" * 32}, {"job": "00" * 16}])
def test_a_later_entry_is_about_the_same_spec_and_job(play: Play, change: dict[str, Any]) -> None:
    play.reach(State.DISCLOSED)
    with pytest.raises(Malformed, match="another job or spec"):
        play.say("lender", "consented", **change)


BAD_BODIES: list[tuple[State, str, str, dict[str, Any], type[Refusal]]] = [
    (State.PROPOSED, "analyst", "disclosed", {"disclosure": {"spec_digest": "00" * 32}}, Malformed),
    (State.PROPOSED, "analyst", "disclosed", {"disclosure": []}, Malformed),
    (State.DISCLOSED, "lender", "consented", {"disclosure_digest": "00" * 32}, Conflict),
    (State.DISCLOSED, "lender", "consented", {"dataset_commitment": ""}, Malformed),
    (State.DISCLOSED, "dealer", "consented", {"dataset_commitment": "00" * 32}, Malformed),
    (State.DISCLOSED, "lender", "consented", {"link_certificate": "!"}, Malformed),
    (State.DISCLOSED, "lender", "consented", {"link_certificate": ""}, Malformed),
    (State.DISCLOSED, "lender", "consented", {"link_token": "short"}, Malformed),
    (State.DISCLOSED, "lender", "consented", {"endpoint": "user@host:1"}, Malformed),
    (State.DISCLOSED, "lender", "consented", {"valid_until": format_time(START)}, Conflict),
    (State.DISCLOSED, "lender", "consented", {"surprise": 1}, Malformed),
    (State.DISCLOSED, "lender", "refused", {"reason": ""}, Malformed),
    (State.READY, "lender", "started", {"links": {}}, Conflict),
    (State.READY, "lender", "started", {"links": dict.fromkeys(NAMES, "00" * 32)}, Conflict),
    (State.READY, "lender", "started", {"identities": dict.fromkeys(NAMES, "00" * 32)}, Conflict),
    (State.READY, "lender", "failed", {"party": "stranger"}, Malformed),
    (State.RUNNING, "lender", "released", {"recipient": "dealer"}, Malformed),
    (State.RUNNING, "lender", "released", {"result_digest": "ab"}, Malformed),
    (State.RUNNING, "lender", "finished", {"cost": {}}, Malformed),
    (State.RUNNING, "lender", "finished", {"cost": {**finished_body()["cost"], "rounds": -1}}, Malformed),
    (
        State.RUNNING,
        "lender",
        "finished",
        {"cost": {**finished_body()["cost"], "bytes_sent": {"stranger": 1}}},
        Malformed,
    ),
    (
        State.RUNNING,
        "lender",
        "finished",
        {"cost": {**finished_body()["cost"], "seconds": {"train": "fast"}}},
        Malformed,
    ),
    *(
        (State.RUNNING, silo, "finished", {"cost": {**finished_body()["cost"], "randomness": used}}, Malformed)
        for silo, used in (
            ("lender", {"triple": 3}),
            ("lender", {"triple": {"correlations": 1}}),
            ("lender", {"triple": {"correlations": 1, "words": -1}}),
            ("lender", {"triple": {"correlations": 1, "words": 2, "bytes": 16}}),
            ("lender", {"": {"correlations": 1, "words": 2}}),
            ("dealer", {"triple": {"correlations": 1, "words": 2}}),
        )
    ),
    (State.RUNNING, "analyst", "cancelled", {"reason": 1}, Malformed),
]


@pytest.mark.parametrize(("state", "who", "event", "change", "error"), BAD_BODIES)
def test_bodies_that_contradict_what_was_said_or_have_the_wrong_shape(
    play: Play, state: State, who: str, event: str, change: dict[str, Any], error: type[Refusal]
) -> None:
    play.reach(state)
    body = {**play.body(who, event), **change}
    with pytest.raises(error):
        play.say(who, event, body)


def test_an_error_names_the_field_and_not_its_value(play: Play) -> None:
    play.reach(State.DISCLOSED)
    body = {**play.body("lender", "consented"), "link_token": "MARKER-VALUE"}
    with pytest.raises(Malformed, match="link_token") as caught:
        play.say("lender", "consented", body)
    assert "MARKER" not in str(caught.value)


def test_what_comes_too_late(play: Play) -> None:
    play.reach(State.DISCLOSED)
    with pytest.raises(Conflict, match="valid_until has passed"):
        apply(
            play.job,
            play.said(
                "lender",
                "consented",
                {**play.body("lender", "consented"), "valid_until": format_time(AFTER_END)},
                at=AFTER_END - dt.timedelta(hours=1),
            ),
        )


def test_a_consent_that_has_run_out_stops_the_start(play: Play) -> None:
    play.reach(State.DISCLOSED)
    soon = START + dt.timedelta(minutes=1)
    play.say("lender", "consented", {**play.body("lender", "consented"), "valid_until": format_time(soon)})
    play.say("platform", "consented")
    assert play.say("dealer", "consented").state == State.READY
    with pytest.raises(Conflict, match="consent of lender has run out"):
        play.say("platform", "started", at=soon)


def test_nothing_expires_early(play: Play) -> None:
    play.reach(State.RUNNING)
    with pytest.raises(Conflict, match="has not passed"):
        play.say("coordinator", "expired")


def test_a_time_has_one_spelling(play: Play) -> None:
    for text in ("2025-01-01T00:00:00+00:00", "2025-01-01 00:00:00Z", "2025-1-1T0:0:0Z", ""):
        with pytest.raises(Malformed, match="time"):
            apply(None, play.said("analyst", "proposed", time=text))
