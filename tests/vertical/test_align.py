"""Matching rows in one process: every protocol finds the same pairs, whatever the order and the batches of the rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from mpc.channel import Channel
from mpc.delegated.protocol import assist
from mpc.errors import LocalProtocolError, Refused
from mpc.psi import Progress
from tests.harness import Run, run_parties
from vertical.align import Aligned, Identifiers, Terms, align, counts
from vertical.batches import Column, Items
from vertical.identifiers import DuplicateIdentifiersError

SESSION = b"session-of-test!"
TWO = ("ecdh-psi", "vole-psi", "vole-psi-malicious", "oprf-psi", "helper-psi")
NAMES = ("lender", "platform", "insurer")
HELPER = "helper"
EMAIL, PHONE = ("email/v1", None), ("phone/v1", "CH")

Key = tuple[str, str | None]
Values = Sequence[str | None]


def column(values: Values) -> Column:
    raw = [b"" if value is None else value.encode() for value in values]
    offsets = np.cumsum([0, *map(len, raw)]).astype(np.int64)
    return Column(np.frombuffer(b"".join(raw), np.uint8), offsets, np.array([value is not None for value in values]))


def identifiers(keys: Sequence[Key], values: Sequence[Values], batch: int = 16) -> tuple[Identifiers, list[Items]]:
    """An owner's columns, one for each key, read a few rows at a time."""
    own, found = Identifiers(tuple(keys)), list[Items]()
    for at in range(0, len(values[0]), batch):
        found += own.add([[column(one[at : at + batch])] for one in values])
    return own, found


def matched(
    protocol: str,
    owners: Sequence[Sequence[Values]],
    keys: Sequence[Key] = (EMAIL,),
    duplicates: str = "first",
    minimum: int = 0,
    progress: Progress | None = None,
) -> tuple[Run, list[Identifiers]]:
    """Run all owners, and the helper if there is one."""
    names = NAMES[: len(owners)]
    helper = HELPER if protocol == "helper-psi" else None
    read = [identifiers(keys, values, 7 + 9 * i) for i, values in enumerate(owners)]

    def owner(me: int) -> Any:
        terms = Terms(names, me, protocol, tuple(keys), duplicates, minimum, helper)
        return lambda channel: align(terms, read[me][1], SESSION, channel, progress)

    def assistant(channel: Channel) -> None:
        assist(channel, names)

    parties = {name: owner(me) for me, name in enumerate(names)}
    return run_parties(parties if helper is None else {**parties, HELPER: assistant}), [own for own, _ in read]


def pairs(run: Mapping[str, Aligned], *owners: str) -> list[tuple[int, ...]]:
    return list(zip(*(run[owner].rows.tolist() for owner in owners or NAMES[:2]), strict=True))


def people(numbers: Sequence[int] | range) -> list[str | None]:
    return [f"Person{i}@Example.com " if i % 3 else f"person{i}@example.com" for i in numbers]


@pytest.mark.parametrize("protocol", TWO)
def test_both_owners_find_the_same_people(protocol: str) -> None:
    left, right = [*range(40), 90], list(reversed(range(25, 70)))
    steps: list[tuple[int, int]] = []
    run, read = matched(
        protocol,
        [[people(left)], [people(right)]],
        minimum=15,
        progress=lambda done, total: steps.append((done, total)),
    )
    found = pairs(run)
    assert sorted(left[a] for a, _ in found) == list(range(25, 40))
    assert all(left[a] == right[b] for a, b in found)
    assert run["lender"].items == run["platform"].items
    assert run["lender"].items is not None
    assert all(f"person{left[a]}@".encode() in item for (a, _), item in zip(found, run["lender"].items, strict=True))
    assert steps
    assert all(0 <= done <= total for done, total in steps)
    told = counts(read[0], run["lender"])
    assert (told["own"], told["matched"]) == (41, 15)
    assert told["keys"] == [{"rule": "email/v1", "unusable": 0, "reasons": {}, "duplicates": 0, "matched": 15}]
    assert "person" not in repr(run["lender"])


@pytest.mark.parametrize("protocol", TWO)
@pytest.mark.parametrize(("n", "m", "common"), [(0, 0, 0), (0, 5, 0), (6, 1, 1), (4, 4, 0), (5, 5, 5)])
def test_edges(protocol: str, n: int, m: int, common: int) -> None:
    left, right = list(range(n)), list(range(n - common, n - common + m))
    run, _ = matched(protocol, [[people(left)], [people(right)]])
    assert sorted((left[a], right[b]) for a, b in pairs(run)) == [(i, i) for i in range(n - common, n)]


@pytest.mark.parametrize("protocol", TWO)
def test_too_few_matches_are_refused_at_both(protocol: str) -> None:
    with pytest.raises(Refused, match="fewer matches") as caught:
        matched(protocol, [[people(range(40))], [people(range(30, 60))]], minimum=11)
    assert any(isinstance(other, Refused) for other in caught.value.others.values())  # type: ignore[attr-defined]


@pytest.mark.parametrize("protocol", ["vole-psi", "helper-psi"])
def test_three_owners_find_whom_all_have(protocol: str) -> None:
    sets = [list(range(40)), list(reversed(range(20, 60))), [*range(30, 80), 0]]
    run, read = matched(protocol, [[people(one)] for one in sets], minimum=10)
    found = pairs(run, *NAMES)
    assert sorted(sets[0][row[0]] for row in found) == list(range(30, 40))
    assert all(sets[0][a] == sets[1][b] == sets[2][c] for a, b, c in found)
    for own, name in zip(read, NAMES, strict=True):
        assert counts(own, run[name])["matched"] == 10
        assert run[name].items == run["lender"].items
    with pytest.raises(Refused, match="fewer matches"):
        matched(protocol, [[people(one)] for one in sets], minimum=11)


PHONES = [f"044 668 {i:02d} {j:02d}" for i in range(3) for j in range(100)]


@pytest.mark.parametrize("protocol", TWO)
def test_keys_in_priority_order(protocol: str) -> None:
    """Rows 0 to 9 match by e-mail, 10 to 19 by phone.  Two numbers of the first ones stand in other rows, in vain."""
    left: list[Values] = [[*people(range(20)), None, "no address"], [*PHONES[:20], None, PHONES[50]]]
    right: list[Values] = [
        [*people(range(10)), *people(range(100, 110)), None, " "],
        [PHONES[50], *[None] * 9, *[f"+41 {one[1:]}" for one in PHONES[10:20]], PHONES[0], "050"],
    ]
    run, read = matched(protocol, [left, right], (EMAIL, PHONE), minimum=20)
    assert sorted(pairs(run)) == [(i, i) for i in range(20)]
    assert run["lender"].key.tolist() == run["platform"].key.tolist()
    assert run["lender"].key.tolist() == [int(row >= 10) for row in run["lender"].rows.tolist()]
    told = counts(read[0], run["lender"])["keys"]
    assert [(key["unusable"], key["matched"]) for key in told] == [(2, 10), (1, 10)]


@pytest.mark.parametrize("protocol", TWO)
def test_rows_that_share_an_identifier(protocol: str) -> None:
    left: list[Values] = [people([1, 2, 1, 3, 2, 1, 8])]
    right: list[Values] = [people([2, 1, 9, 2, 3, 3])]
    first, read = matched(protocol, [left, right], duplicates="first")
    assert sorted(pairs(first)) == [(0, 1), (1, 0), (3, 4)]
    assert (first["lender"].duplicates, first["platform"].duplicates) == ((3,), (2,))
    assert counts(read[0], first["lender"])["keys"][0]["duplicates"] == 3
    every, _ = matched(protocol, [left, right], duplicates="expand")
    assert sorted(pairs(every)) == sorted(
        (a, b) for a, x in enumerate([1, 2, 1, 3, 2, 1, 8]) for b, y in enumerate([2, 1, 9, 2, 3, 3]) if x == y
    )
    assert every["lender"].duplicates == (0,)
    with pytest.raises(DuplicateIdentifiersError, match="3"):
        matched(protocol, [left, right], duplicates="refuse")


@pytest.mark.parametrize("protocol", ["ecdh-psi", "vole-psi"])
def test_matches_come_in_another_order_every_time(protocol: str) -> None:
    orders = {tuple(matched(protocol, [[people(range(30))]] * 2)[0]["lender"].rows.tolist()) for _ in range(3)}
    assert len(orders) == 3


def test_a_helper_must_be_named() -> None:
    terms = Terms(NAMES[:2], 0, "helper-psi", (EMAIL,), "first", 0)
    _, batches = identifiers((EMAIL,), [people(range(3))])
    with pytest.raises(LocalProtocolError, match="helper"):
        run_parties({"lender": lambda channel: align(terms, batches, SESSION, channel)})


def test_terms_name_the_peer_and_the_leader() -> None:
    first, second = (Terms(NAMES[:2], me, "vole-psi", (EMAIL, PHONE), "first", 0) for me in (0, 1))
    assert (first.peer, first.leads, second.peer, second.leads) == ("platform", True, "lender", False)
    assert first.rules == ("email/v1", "phone/v1")
