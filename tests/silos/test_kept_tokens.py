"""What two owners keep between jobs that match by tokens: less is sent and made, and never a wrong row, whatever is lost."""

from __future__ import annotations

import logging
import stat
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mpc.errors import LocalProtocolError, ProtocolError, Refused
from mpc.tokens import ristretto
from mpc.tokens.protocol import MAX_QUERIES
from mpc.tokens.sets import ServerKey
from silos import kept_tokens
from silos.checkpoint_files import SpillError
from silos.kept_tokens import LIFETIME_QUERIES, Account, KeptTokens
from silos.spec import Match
from tests.harness import Message, Run, run_parties, try_parties
from tests.silos.world import MATCHERS, make_spec
from vertical.align import Terms

ASKED = {"kind": "vertical.match", "dealer": None, "parties": MATCHERS, "keep_tokens": True}
SPEC = make_spec(**ASKED, align={"protocol": "oprf-psi"})
OWNERS = ("lender", "platform")
TERMS = [Terms(OWNERS, me, "oprf-psi", (("email/v1", None),), "refuse", 0) for me in (0, 1)]


def people(*numbers: int) -> list[bytes]:
    return [b"\0email\0v1\0%d@example.com" % n for n in numbers]


A, B = people(1, 2, 3, 4, 5), people(9, 4, 8, 2, 5, 7)


def parties(root: Path, a: Sequence[bytes] = A, b: Sequence[bytes] = B, spec: Any = SPEC, minimum: int = 0) -> Any:
    """Both owners, the first one asking."""

    def owner(me: int, items: Sequence[bytes]) -> Any:
        terms = replace(TERMS[me], minimum=minimum)
        return lambda channel: KeptTokens(root / OWNERS[me], spec).intersect(terms, list(items), b"s", channel, None)

    return {OWNERS[0]: owner(0, a), OWNERS[1]: owner(1, b)}


def matched(root: Path, a: Sequence[bytes] = A, b: Sequence[bytes] = B, spec: Any = SPEC) -> Run:
    """A job; its pairs are those of the plain sets."""
    run = run_parties(parties(root, a, b, spec))
    found = [a[i] for i in run["lender"]]
    assert found == [b[i] for i in run["platform"]]
    assert sorted(found) == sorted(set(a) & set(b))
    return run


def sent_set(run: Run) -> bool:
    return any(message.tag == "tokens/set" for message in run.transcript)


def kept(root: Path, owner: str, name: str) -> Path:
    (folder,) = (root / owner).iterdir()
    return folder / name


def spent(root: Path) -> int:
    account = KeptTokens(root / "platform", SPEC).account()
    assert account is not None
    return account.spent


@pytest.fixture
def multiplied(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How often an element was multiplied by a scalar, at both owners together."""
    count, original = [0], ristretto.multiply

    def multiply(scalar: bytes, element: bytes) -> bytes:
        count[0] += 1
        return original(scalar, element)

    monkeypatch.setattr(ristretto, "multiply", multiply)
    return count


# --- what is saved


def test_a_second_job_makes_and_sends_no_tokens(tmp_path: Path, multiplied: list[int]) -> None:
    b = people(*range(3, 300))
    first = matched(tmp_path, b=b)
    once = multiplied[0]
    second = matched(tmp_path, people(5, 400, 299), b)
    assert sent_set(first)
    assert not sent_set(second)
    assert first.bytes_sent("platform") - matched(tmp_path, b=b).bytes_sent("platform") == 11 * 298
    assert once > 298
    assert multiplied[0] - once < 100
    assert np.array_equal(first["lender"], matched(tmp_path, b=b)["lender"])


def test_it_is_for_the_owner_only(tmp_path: Path) -> None:
    matched(tmp_path)
    for owner, names in {"lender": {"lock", "set"}, "platform": {"lock", "key", "set", "rows"}}.items():
        (folder,) = (tmp_path / owner).iterdir()
        assert {path.name for path in folder.iterdir()} == names
        assert {stat.S_IMODE(path.stat().st_mode) for path in (folder, folder.parent)} == {0o700}
        assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}


def test_changed_data_gets_new_tokens_under_the_same_key(tmp_path: Path) -> None:
    matched(tmp_path)
    before, old = kept(tmp_path, "platform", "key").read_bytes(), kept(tmp_path, "lender", "set").read_bytes()
    assert sent_set(matched(tmp_path, b=people(1, 2, 30)))
    assert kept(tmp_path, "platform", "key").read_bytes()[40:-32] == before[40:-32]  # all but the account and hashes
    new = kept(tmp_path, "lender", "set").read_bytes()
    assert len(new) < len(old)
    tokens = [{raw[-32 - 11 * (i + 1) : -32 - 11 * i] for i in range(n + 1)} for raw, n in ((old, 6), (new, 3))]
    assert len(tokens[0] & tokens[1]) == 2  # of identifier 2, and the sentinel: this is what can be linked
    assert not sent_set(matched(tmp_path, b=people(1, 2, 30)))


def test_rows_in_another_order_are_other_rows(tmp_path: Path) -> None:
    matched(tmp_path)
    run = matched(tmp_path, b=B[::-1])
    assert sent_set(run)  # made anew, though it is the set that both have
    assert not sent_set(matched(tmp_path, b=B[::-1]))


@pytest.mark.parametrize("sizes", [(0, 0), (0, 3), (3, 0), (1, 1)])
def test_edges(tmp_path: Path, sizes: tuple[int, int]) -> None:
    a, b = people(*range(sizes[0])), people(*range(sizes[1]))
    for _ in range(2):
        matched(tmp_path, a, b)


@pytest.mark.parametrize(
    "changes",
    [
        {"parties": [MATCHERS[0], {**MATCHERS[1], "dataset": "visits"}]},
        {"parties": [MATCHERS[0], {**MATCHERS[1], "key": "mail"}]},
        {"parties": [{**MATCHERS[0], "silo": "lender-2"}, MATCHERS[1]]},
        {"align": {"protocol": "oprf-psi", "identifier": "email-provider/v1"}},
    ],
)
def test_a_key_is_for_one_purpose(tmp_path: Path, changes: dict[str, Any]) -> None:
    other = make_spec(**{**ASKED, "align": {"protocol": "oprf-psi"}, **changes})
    assert KeptTokens(tmp_path, other).folder != KeptTokens(tmp_path, SPEC).folder
    assert KeptTokens(tmp_path, other).agreement != KeptTokens(tmp_path, SPEC).agreement


def test_a_key_is_for_one_year_and_for_every_job_in_it(tmp_path: Path) -> None:
    for changes in (
        {"job": "cd" * 16},
        {"purpose": "other"},
        {"parties": [{**MATCHERS[0], "key": "mail"}, MATCHERS[1]]},
    ):
        other = make_spec(**{**ASKED, "align": {"protocol": "oprf-psi", "minimum_matches": 7}, **changes})
        assert KeptTokens(tmp_path, other).agreement == KeptTokens(tmp_path, SPEC).agreement
    matched(tmp_path)
    key = kept(tmp_path, "platform", "key").read_bytes()
    next_year = SPEC.model_copy(update={"created": "2027-01-01T00:00:00Z"})
    assert sent_set(matched(tmp_path, spec=next_year))
    assert kept(tmp_path, "platform", "key").read_bytes()[-64:] != key[-64:]
    assert not sent_set(matched(tmp_path, spec=next_year))


# --- the account


def test_what_was_asked_is_counted(tmp_path: Path) -> None:
    matched(tmp_path)
    assert spent(tmp_path) == 6  # five identifiers and the sentinel
    matched(tmp_path, people(1))
    assert spent(tmp_path) == 8


def test_a_run_that_does_not_end_well_counts_in_full(tmp_path: Path) -> None:
    run = try_parties(parties(tmp_path, minimum=4))
    assert all(isinstance(run.errors[owner], Refused) for owner in OWNERS)
    assert spent(tmp_path) == MAX_QUERIES + 1
    matched(tmp_path)
    assert spent(tmp_path) == MAX_QUERIES + 1 + 6


def test_it_is_counted_before_anything_is_sent(tmp_path: Path) -> None:
    counted: list[int] = []

    def look(message: Any) -> Any:
        if message.sender == "platform":
            counted.append(spent(tmp_path))
        return message

    run_parties(parties(tmp_path), tamper=look)
    assert set(counted) == {MAX_QUERIES + 1}


def used(root: Path, queries: int) -> None:
    """Let the server's key have answered so many queries."""
    own = KeptTokens(root / "platform", SPEC)
    account = own.account()
    assert account is not None
    own._enter(replace(account, spent=queries))


def test_a_key_that_is_used_up_answers_nobody(tmp_path: Path) -> None:
    matched(tmp_path)
    used(tmp_path, LIFETIME_QUERIES - 6)
    matched(tmp_path)
    assert spent(tmp_path) == LIFETIME_QUERIES
    run = try_parties(parties(tmp_path))
    reason = str(run.errors["platform"])
    assert isinstance(run.errors["platform"], Refused)
    assert "the key to the kept tokens of data set 'usage' has answered lender as often as a key may" in reason
    assert str(tmp_path) not in reason
    assert spent(tmp_path) == LIFETIME_QUERIES
    kept(tmp_path, "platform", "key").unlink()
    assert sent_set(matched(tmp_path))  # a new key, and so other tokens


def test_what_is_left_of_a_key_bounds_a_job(tmp_path: Path) -> None:
    matched(tmp_path)
    used(tmp_path, LIFETIME_QUERIES - 5)
    with pytest.raises(Refused, match="asks for 5 identifiers, at most 4 are answered"):
        run_parties(parties(tmp_path))
    assert spent(tmp_path) == LIFETIME_QUERIES - 5, "nothing was answered"
    matched(tmp_path, people(1, 2, 3, 4))
    assert spent(tmp_path) == LIFETIME_QUERIES


@pytest.mark.parametrize(
    ("tag", "counted"), [("tokens/hello", 6), ("tokens/blinded", 6), ("tokens/vote", 6 + MAX_QUERIES + 1)]
)
@pytest.mark.parametrize("what", ["lost", "of the wrong size"])
def test_a_run_counts_once_something_can_have_been_answered(tmp_path: Path, tag: str, counted: int, what: str) -> None:
    matched(tmp_path)

    def tamper(message: Message) -> Message | None:
        if (message.tag, message.sender) != (tag, "lender"):
            return message
        return None if what == "lost" else replace(message, body=message.body + b"\0")

    run = try_parties(parties(tmp_path), tamper=tamper)
    assert isinstance(run.errors["platform"], ProtocolError)
    assert spent(tmp_path) == counted


def test_elements_that_arrived_count_even_if_they_cannot_be_used(tmp_path: Path) -> None:
    matched(tmp_path)

    def tamper(message: Message) -> Message:
        return replace(message, body=bytes(len(message.body))) if message.tag == "tokens/blinded" else message

    assert "cannot be used" in str(try_parties(parties(tmp_path), tamper=tamper).errors["platform"])
    assert spent(tmp_path) == 6 + MAX_QUERIES + 1


def test_what_is_taken_back_is_of_the_same_key(tmp_path: Path) -> None:
    """The key was removed and another one has been made, before a run under the old one was refused."""
    matched(tmp_path)

    def meanwhile(message: Message) -> Message | None:
        if message.tag != "tokens/hello" or message.sender != "lender":
            return message
        kept(tmp_path, "platform", "key").unlink()
        own = KeptTokens(tmp_path / "platform", SPEC)
        own._enter(Account(ServerKey.generate(own.agreement), 77))
        return None

    try_parties(parties(tmp_path), tamper=meanwhile)
    assert spent(tmp_path) == 77


def test_a_job_has_a_bound_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_tokens, "MAX_QUERIES", 4)
    with pytest.raises(Refused, match="asks for 5 identifiers, at most 4 are answered"):
        run_parties(parties(tmp_path))


def test_another_job_of_the_same_key_meanwhile_is_counted_too(tmp_path: Path) -> None:
    matched(tmp_path)

    def meanwhile(message: Any) -> Any:
        if message.tag == "tokens/rows":
            used(tmp_path, spent(tmp_path) + 1000)
        return message

    run_parties(parties(tmp_path), tamper=meanwhile)
    assert spent(tmp_path) == 6 + 6 + 1000


def test_a_key_that_was_removed_meanwhile_does_not_come_back(tmp_path: Path) -> None:
    def meanwhile(message: Any) -> Any:
        if message.tag == "tokens/rows":
            kept(tmp_path, "platform", "key").unlink()
        return message

    run = run_parties(parties(tmp_path), tamper=meanwhile)
    assert len(run["platform"]) == 3
    assert not kept(tmp_path, "platform", "key").exists()
    assert not kept(tmp_path, "platform", "rows").exists()
    matched(tmp_path)


# --- files that are lost or damaged

FILES = [("lender", "set"), ("platform", "key"), ("platform", "set"), ("platform", "rows")]


@pytest.mark.parametrize(("owner", "name"), FILES)
def test_a_file_that_is_missing_is_made_anew(tmp_path: Path, owner: str, name: str) -> None:
    matched(tmp_path)
    kept(tmp_path, owner, name).unlink()
    assert sent_set(matched(tmp_path))
    assert not sent_set(matched(tmp_path))


@pytest.mark.parametrize(("owner", "name"), FILES)
@pytest.mark.parametrize("at", [0, 33, 60, -40, -1])
def test_a_damaged_file_is_made_anew_and_said(
    tmp_path: Path, owner: str, name: str, at: int, caplog: pytest.LogCaptureFixture
) -> None:
    matched(tmp_path)
    path = kept(tmp_path, owner, name)
    raw = bytearray(path.read_bytes())
    raw[at] ^= 1
    path.write_bytes(raw)
    with caplog.at_level(logging.WARNING):
        assert sent_set(matched(tmp_path))
    assert [record.getMessage() for record in caplog.records] == [
        f"{path} is damaged, or does not fit the files beside it; it is made anew"
    ]
    assert not sent_set(matched(tmp_path))


@pytest.mark.parametrize(("owner", "name"), FILES)
@pytest.mark.parametrize("length", [0, 31, 32, 50])
def test_a_file_that_was_cut_off_is_made_anew(tmp_path: Path, owner: str, name: str, length: int) -> None:
    matched(tmp_path)
    path = kept(tmp_path, owner, name)
    path.write_bytes(path.read_bytes()[:length])
    assert sent_set(matched(tmp_path))
    assert not sent_set(matched(tmp_path))


def test_files_that_do_not_belong_together_are_not_used(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    matched(tmp_path)
    old = {name: kept(tmp_path, "platform", name).read_bytes() for name in ("set", "rows", "key")}
    changed = people(1, 2, 30)
    matched(tmp_path, b=changed)
    kept(tmp_path, "platform", "set").write_bytes(old["set"])  # as a crash between the two can leave them
    with caplog.at_level(logging.WARNING):
        matched(tmp_path, b=changed)
    assert "does not fit the files beside it" in caplog.text
    for name in ("set", "rows"):
        kept(tmp_path, "platform", name).write_bytes(old[name])
    matched(tmp_path, b=changed)
    kept(tmp_path, "platform", "key").unlink()
    matched(tmp_path, b=changed)
    kept(tmp_path, "platform", "key").write_bytes(old["key"])
    matched(tmp_path, b=changed)
    assert not sent_set(matched(tmp_path, b=changed))


def test_a_token_set_of_another_owner_or_key_is_not_used(tmp_path: Path) -> None:
    matched(tmp_path / "one")
    matched(tmp_path / "other")
    kept(tmp_path / "one", "lender", "set").write_bytes(kept(tmp_path / "other", "lender", "set").read_bytes())
    assert sent_set(matched(tmp_path / "one"))


def test_a_run_that_is_refused_keeps_no_tokens(tmp_path: Path) -> None:
    try_parties(parties(tmp_path, minimum=4))
    assert not kept(tmp_path, "lender", "set").exists()
    assert not kept(tmp_path, "platform", "rows").exists()


def test_a_disk_that_fails_before_the_run_stops_it_and_afterwards_is_only_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    failing = {"key", "set", "rows"}

    def write(self: KeptTokens, name: str, body: bytes) -> None:
        if name in failing:
            raise SpillError(f"{name} cannot be written: no space left")

    monkeypatch.setattr(KeptTokens, "_write", write)
    run = try_parties(parties(tmp_path))
    assert isinstance(run.errors["platform"], SpillError)
    failing.discard("key")
    with caplog.at_level(logging.WARNING):
        matched(tmp_path)
    assert "tokens are not kept for the next job: set cannot be written" in caplog.text


def test_secrets_are_in_no_sentence_and_no_name(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    matched(tmp_path)
    account = KeptTokens(tmp_path / "platform", SPEC).account()
    assert account is not None
    assert account.key.pair.secret.hex() not in repr(account)
    assert "example" not in caplog.text


def test_repeated_identifiers_are_refused_before_anything_is_sent(tmp_path: Path) -> None:
    run = try_parties(parties(tmp_path, b=[*B, B[0]]))
    assert isinstance(run.errors["platform"], LocalProtocolError)
    assert not [message for message in run.transcript if message.sender == "platform"]


def test_the_spec_is_one_of_a_matching() -> None:
    assert isinstance(SPEC, Match)
    assert SPEC.keep_tokens
