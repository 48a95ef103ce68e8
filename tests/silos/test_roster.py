"""The roster that a silo works out from signed entries: what leads from a key to the next one, and what is refused."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from coordinator.enrol import revocation, rotation_message
from coordinator.envelope import Statement, fingerprint, parse, seal
from silos.roster import Member, Roster, RosterError
from silos.times import from_text

TIME = "2026-03-01T12:00:00Z"
LOG = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
KEYS = {name: Ed25519PrivateKey.from_private_bytes(name.encode().ljust(32, b".")) for name in ("a", "b", "c", "d")}


def raw(key: Ed25519PrivateKey) -> bytes:
    return key.public_key().public_bytes_raw()


def b64(value: bytes) -> str:
    return base64.b64encode(value).decode()


def print_of(name: str) -> str:
    return fingerprint(raw(KEYS[name]))


def enrolled(silo: str, key: str, **changes: Any) -> bytes:
    body = {"identity_key": b64(raw(KEYS[key]))}
    statement = Statement("enrolled", "", "", silo, 0, "", TIME, body)
    return seal(replace(statement, **changes), KEYS[key])


def rotated(silo: str, old: str, new: str, before: bytes, **changes: Any) -> bytes:
    said = parse(before)
    proof = KEYS[new].sign(rotation_message(silo, raw(KEYS[old])))
    body = {"identity_key": b64(raw(KEYS[new])), "proof": b64(proof)}
    place = said.statement.seq + 1, said.payload_digest
    return seal(replace(Statement("rotated", "", "", silo, *place, TIME, body), **changes), KEYS[old])


def revoked(silo: str, key: str, place: tuple[int, str] = (0, ""), signer: Ed25519PrivateKey = LOG) -> bytes:
    return seal(revocation(silo, raw(KEYS[key]), "lost", place, from_text(TIME)), signer)


def fold(*entries: bytes, start: int = 0) -> Roster:
    roster = Roster()
    for index, envelope in enumerate(entries, start):
        roster = roster.grown(index, envelope, raw(LOG))
    return roster


def shown(roster: Roster, **changes: str) -> list[dict[str, str]]:
    """What an honest coordinator lists, with other keys for some silos ("" leaves one out)."""
    keys = {name: b64(m.key.raw) for name, m in roster.silos.items() if not m.revoked} | changes
    return [{"silo": name, "identity_key": key} for name, key in keys.items() if key]


FIRST = enrolled("lender", "a")
SECOND = rotated("lender", "a", "b", FIRST)
THIRD = rotated("lender", "b", "c", SECOND)


def test_a_pin_follows_signed_rotations_and_nothing_else() -> None:
    roster = fold(FIRST, SECOND, THIRD)
    assert [key.index for key in roster.silos["lender"].keys] == [0, 1, 2]
    for name in "abc":
        assert roster.followed({"lender": print_of(name)}) == {"lender": print_of("c")}
    assert roster.followed({"lender": print_of("d")}) == {"lender": print_of("d")}
    assert roster.followed({"platform": print_of("a")}) == {"platform": print_of("a")}
    anew = fold(FIRST, SECOND, enrolled("lender", "d"))  # the operator let another key take the name
    for name in "ab":
        assert anew.followed({"lender": print_of(name)}) == {"lender": print_of(name)}
    assert anew.silos["lender"].keys[-1].fingerprint == print_of("d")


def test_a_revocation_ends_a_key_and_an_enrolment_gives_the_name_again() -> None:
    gone = revoked("lender", "b")
    roster = fold(FIRST, SECOND, gone)
    assert roster.silos["lender"].revoked
    assert shown(roster) == []
    assert roster.difference([]) is None
    again = fold(FIRST, SECOND, gone, enrolled("lender", "c"), revoked("lender", "c", (1, parse(gone).payload_digest)))
    assert again.silos["lender"].revoked


WRONG: dict[str, tuple[Callable[[], tuple[bytes, ...]], str]] = {
    "edited": (
        lambda: (FIRST[:200] + b"x" + FIRST[201:],),
        "entry 0: ",
    ),
    "signed by another": (
        lambda: (FIRST, seal(parse(SECOND).statement, KEYS["d"])),
        "entry 1: the signature on 'rotated' is not that of lender",
    ),
    "no proof": (
        lambda: (
            FIRST,
            rotated("lender", "a", "b", FIRST, body={**parse(SECOND).statement.body, "proof": b64(bytes(64))}),
        ),
        "entry 1 gives lender a key without a proof by that key",
    ),
    "the proof of another silo": (
        lambda: (
            enrolled("platform", "a"),
            rotated("platform", "a", "b", enrolled("platform", "a"), body=parse(SECOND).statement.body),
        ),
        "entry 1 gives platform a key without a proof by that key",
    ),
    "one left out": (
        lambda: (FIRST, THIRD),
        "entry 1: the signature on 'rotated' is not that of lender",
    ),
    "another order": (
        lambda: (SECOND,),
        "entry 0 speaks for lender, which is not enrolled",
    ),
    "said twice": (
        lambda: (FIRST, enrolled("lender", "d"), FIRST),
        "entry 2 repeats an enrolment of lender from before its present key",
    ),
    "said again after a rotation": (
        lambda: (FIRST, SECOND, FIRST),
        "entry 2 repeats an enrolment of lender from before its present key",
    ),
    "a gap": (
        lambda: (FIRST, rotated("lender", "a", "b", FIRST, seq=2)),
        "entry 1 does not follow on from what lender said before",
    ),
    "another past": (
        lambda: (FIRST, rotated("lender", "a", "b", FIRST, prev="0" * 64)),
        "entry 1 does not follow on from what lender said before",
    ),
    "the key of another": (
        lambda: (enrolled("platform", "b"), FIRST, SECOND),
        "entry 2 gives lender the key of platform",
    ),
    "two names for a key": (
        lambda: (FIRST, enrolled("platform", "a")),
        "entry 1 gives platform the key of lender",
    ),
    "not first": (lambda: (enrolled("lender", "a", seq=1),), "entry 0 is no first statement of a silo"),
    "the coordinator's name": (
        lambda: (enrolled("coordinator", "a"),),
        "entry 0 is no first statement of a silo",
    ),
    "revoked by a silo": (
        lambda: (FIRST, seal(replace(parse(revoked("lender", "a")).statement, silo="platform"), KEYS["b"])),
        "entry 1, 'revoked', is for the coordinator to say, not for platform",
    ),
    "revoked with another key": (
        lambda: (FIRST, revoked("lender", "a", signer=KEYS["d"])),
        "entry 1: the signature on 'revoked' is not that of coordinator",
    ),
    "revoked a key it has not": (
        lambda: (FIRST, revoked("lender", "b")),
        "entry 1 revokes a key that lender does not have",
    ),
    "revocations with a gap": (
        lambda: (FIRST, revoked("lender", "a", (1, "0" * 64))),
        "entry 1 does not follow on from what the coordinator revoked before",
    ),
    "rotated after the end": (
        lambda: (FIRST, revoked("lender", "a"), SECOND),
        "entry 2 speaks for lender, which is not enrolled",
    ),
    "about a job": (
        lambda: (enrolled("lender", "a", job="00" * 16),),
        "entry 0, 'enrolled', is not about the roster",
    ),
    "another event": (
        lambda: (enrolled("lender", "a", event="proposed"),),
        "entry 0, 'proposed', is not about the roster",
    ),
    "more in the body": (
        lambda: (enrolled("lender", "a", body={"identity_key": b64(raw(KEYS["a"])), "x": 1}),),
        "entry 0: the body of 'enrolled' is not well formed: x: ",
    ),
    "no key": (
        lambda: (enrolled("lender", "a", body={"identity_key": "AAAA"}),),
        "an identity key has 32 bytes in canonical base64",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_an_entry_that_cannot_stand_is_refused(name: str) -> None:
    make, why = WRONG[name]
    *before, last = make()
    roster = fold(*before)
    with pytest.raises(RosterError, match=f"^{re.escape(why)}"):
        roster.grown(len(before), last, raw(LOG))


def test_entries_come_in_the_order_of_the_log() -> None:
    with pytest.raises(RosterError, match=r"^entry 3 comes after entry 4$"):
        fold(FIRST, start=4).grown(3, SECOND, raw(LOG))


def test_the_coordinators_list_is_compared_with_the_log() -> None:
    other = enrolled("platform", "d")
    roster = fold(FIRST, other, SECOND)
    assert roster.difference(shown(roster)) is None
    swapped, old = b64(raw(KEYS["c"])), b64(raw(KEYS["a"]))
    for change, silo, why in (
        ({"lender": swapped}, "lender", "its list gives this silo a key that no signed entry of its log leads to"),
        ({"lender": old}, "lender", "its list gives this silo a key that was rotated"),
        ({"platform": ""}, "platform", "its list leaves this silo out"),
        ({"ghost": swapped}, "ghost", "its list names this silo, whose enrolment is not in its log"),
    ):
        assert roster.difference(shown(roster, **change)) == (silo, why)
    ended = roster.grown(3, revoked("platform", "d"), raw(LOG))
    assert ended.difference(shown(roster)) == ("platform", "its list names this silo, which its log revokes")
    assert isinstance(ended.silos["platform"], Member)
