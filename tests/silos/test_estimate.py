"""The preview: every formula against what the protocols really send, and what a job would take by them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from typing import Any, get_args

import numpy as np
import pyarrow as pa
import pytest

from mpc import measure, psi
from mpc.dealer import run_dealer
from mpc.delegated import protocol as delegated
from mpc.matching import protocol, star, vole
from mpc.matching.buckets import MemoryStore
from mpc.matching.hashes import hash_list
from mpc.matching.kernels import kernels
from mpc.session import Session
from mpc.tokens import protocol as tokens
from silos import estimate, supplies, traffic
from silos.calibration import Rates, calibrate
from silos.disclosure import MATCHINGS as DISCLOSED
from silos.estimate import REVEALS, Estimate, Network, estimates
from silos.request import build_spec
from silos.spec import MANY_OWNERS, MATCHINGS, Spec
from silos.spec_parts import Randomness
from silos.supplies import Asked
from silos.times import utcnow
from silos.traffic import ASSISTANT
from tests.harness import Run, run_parties
from tests.mpc.hidden_runs import Rows, between, sets
from tests.mpc.test_matching import QuickTransfers
from tests.mpc.transfers import cheap_set_up
from vertical.align import Identifiers, Terms
from vertical.batches import column
from vertical.linkage import Matched, link
from vertical.measure import Data, Plan, Summed
from vertical.measure import run as run_measure

SUPPLIES = get_args(Randomness)
SESSION = bytes(range(16))
SIZES = [(40, 70), (130, 61)]
NAMES = ("a", "b", "c", "d", "e")


@pytest.fixture(autouse=True, scope="module")
def _quick() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vole, "BaseTransfers", QuickTransfers)
        patch.setattr("mpc.ot.products.set_up", cheap_set_up)
        yield


def people(first: int, count: int) -> list[bytes]:
    return [b"\0email\0v1\0%d@example.com" % (first + i) for i in range(count)]


def sent(run: Run, assistant: str) -> dict[tuple[int, int], int]:
    """Bytes by (from, to), as `Traffic` has them."""
    number = {**{name: i for i, name in enumerate(NAMES)}, assistant: ASSISTANT}
    out: dict[tuple[int, int], int] = {}
    for message in run.transcript:
        pair = number[message.sender], number[message.receiver]
        out[pair] = out.get(pair, 0) + message.size
    return out


def pair(function: Any, n: int, m: int, **more: Any) -> Run:
    a, b = people(0, n), people(n // 2, m)
    return run_parties(
        {
            "a": lambda c: function(a, "b", SESSION, c, 0, True, **more),
            "b": lambda c: function(b, "a", SESSION, c, 0, False, **more),
        }
    )


# --- bytes


@pytest.mark.parametrize(("n", "m"), SIZES)
def test_the_bytes_of_two_owners_protocols(n: int, m: int) -> None:
    assert sent(pair(psi.intersect, n, m), "") == traffic.ecdh(n, m).sent
    assert sent(pair(psi.count, n, m), "") == traffic.ecdh_count(n, m).sent
    assert sent(pair(protocol.intersect, n, m), "") == traffic.vole(n, m).sent
    wide = pair(protocol.intersect, n, m, security="malicious")
    assert sent(wide, "") == traffic.vole(n, m, "malicious").sent
    assert sent(pair(tokens.intersect, n, m), "") == traffic.tokens(n, m).sent


@pytest.mark.parametrize("security", ["semi-honest", "malicious"])
@pytest.mark.parametrize(("n", "m"), [(300, 90), (70, 500)])
def test_the_bytes_of_several_buckets(n: int, m: int, security: str) -> None:
    def store(items: list[bytes]) -> MemoryStore:
        words = hash_list(items, SESSION)
        return MemoryStore(words[kernels.order(words)])

    a, b = store(people(0, n)), store(people(50, m))
    options: dict[str, Any] = {"security": security, "bucket_points": 80}
    run = run_parties(
        {
            "a": lambda c: protocol.match(a, "b", SESSION, c, 0, True, **options),
            "b": lambda c: protocol.match(b, "a", SESSION, c, 0, False, **options),
        }
    )
    assert sent(run, "") == traffic.vole(n, m, security, 80).sent


@pytest.mark.parametrize("numbers", [(40, 70), (30, 10, 50)])
def test_the_bytes_of_a_helper(numbers: tuple[int, ...]) -> None:
    owners = NAMES[: len(numbers)]
    terms = delegated.Terms(owners, "helper")

    def owner(i: int, n: int) -> Any:
        return lambda c: delegated.intersect(people(0, n), terms, i, SESSION, c, 0)

    parties = {owners[i]: owner(i, n) for i, n in enumerate(numbers)}
    run = run_parties({**parties, "helper": lambda c: delegated.assist(c, owners)})
    assert sent(run, "helper") == traffic.helped(numbers).sent


@pytest.mark.parametrize("numbers", [(40, 70, 20), (90, 11, 50, 30, 60)])
def test_the_bytes_of_many_owners(numbers: tuple[int, ...]) -> None:
    owners = NAMES[: len(numbers)]

    def owner(i: int, n: int) -> Any:
        return lambda c: star.intersect(people(0, n), owners, i, SESSION, c, 0)

    run = run_parties({owners[i]: owner(i, n) for i, n in enumerate(numbers)})
    assert sent(run, "") == traffic.star(numbers).sent


ASKED = [
    Asked(),
    Asked(columns=(1, 2)),
    Asked(columns=(0, 1), matches=False),
    Asked(round_to=10),
    Asked(matches=False),
]


@pytest.mark.parametrize("mode", ["dealer", "verified-dealer", "ot"])
@pytest.mark.parametrize("asked", ASKED)
@pytest.mark.parametrize(("n", "m"), SIZES)
def test_the_bytes_of_a_measurement(n: int, m: int, asked: Asked, mode: str) -> None:
    rows = Rows(sets(n, m, 30), asked.columns)
    columns = [measure.Column(f"c{i}", -1000, 1000) for i in range(sum(asked.columns))]

    def body(session: Session) -> None:
        joined = rows.join(session)
        number = measure.total(joined)
        measure.enough(session, session.correlations.plan(measure.plan_enough()), number, 3)
        if asked.matches and asked.round_to:
            plan = measure.plan_rounded_count(joined, asked.round_to)
            measure.rounded_count(session, session.correlations.plan(plan), joined, asked.round_to)
        elif asked.matches:
            measure.reveal_count(session, number)
        if columns:
            measure.sums(session, session.correlations.plan([measure.plan_sums(joined)])[0], joined, columns)

    run = between(body, mode)
    expected = dict(supplies.measured(n, m, asked, mode).sent)
    if mode == "ot":  # the quick set-up of these tests sends nothing
        for one in ((0, 1), (1, 0)):
            expected[one] -= supplies.OT_SET_UP_BYTES
    assert sent(run, "dealer") == expected


@pytest.mark.parametrize(
    ("release", "round_to", "epsilon"),
    [
        (("matches", "sums"), None, None),
        (("sums",), None, None),
        (("matches",), 5, None),
        (("matches",), None, "64"),
    ],
)
def test_the_bytes_of_the_whole_job(release: tuple[str, ...], round_to: int | None, epsilon: str | None) -> None:
    keys = (("email/v1", None),)
    k = 1 if "sums" in release else 0
    summed = tuple(Summed(owner, measure.Column("x", 0, 1000), 1) for owner in ("a", "b"))[: 2 * k]

    def owner(me: int, n: int) -> Any:
        own, raw = Identifiers(keys), pa.array([f"{i + 9 * me}@example.com" for i in range(n)])
        found = own.add([[column(raw)]])
        data = Data(own, found, np.ones((n, k), dtype=np.int64), np.ones((n, k), dtype=np.bool_))
        terms = Terms(("a", "b"), me, "hidden", keys, "refuse", 2)
        plan = Plan(terms, "dealer", "dealer", summed, round_to, epsilon, release)
        return lambda c: run_measure(plan, data, c, SESSION, lambda *_: None)

    parties = {"a": owner(0, 40), "b": owner(1, 70), "dealer": lambda c: run_dealer(c, ("a", "b"))}
    asked = Asked((k, k), "matches" in release, round_to)
    assert sent(run_parties(parties), "dealer") == supplies.measured(40, 70, asked, "dealer").sent


def test_the_dealers_large_pieces_are_split_between_the_owners() -> None:
    rows = Rows(sets(3300, 100, 30), (0, 1))
    run = between(lambda session: measure.reveal_count(session, measure.total(rows.join(session))))
    plan = supplies.steps(3300, 100, Asked(columns=(0, 1)))
    expected = supplies._dealt([plan[0].requests]).sent
    found = sent(run, "dealer")
    assert found[ASSISTANT, 1] == expected[ASSISTANT, 1] > 32
    assert found[ASSISTANT, 0] == expected[ASSISTANT, 0]


@pytest.mark.parametrize("duplicates", ["first", "expand"])
def test_the_bytes_of_linkage(duplicates: str) -> None:
    expand = duplicates == "expand"
    counts = {
        "a": np.array([2, 1, 1]) if expand else np.ones(3, int),
        "b": np.array([1, 3, 1]) if expand else np.ones(3, int),
    }

    def side(name: str, peer: str, leads: bool) -> Any:
        offsets = np.concatenate([[0], np.cumsum(counts[name])]).astype(np.int64)
        matched = Matched(np.array([0, 0, 1], np.uint8), offsets, np.arange(offsets[-1]), 2)
        return lambda c: link(matched, duplicates, peer, c, 1, leads)

    run = run_parties({"a": side("a", "b", True), "b": side("b", "a", False)})
    listed = (int(counts["a"].sum()), int(counts["b"].sum())) if expand else None
    assert sent(run, "") == traffic.linkage(3, listed).sent


def test_what_is_sent_is_added_up_for_each_participant() -> None:
    one = traffic.Traffic({(0, 1): 5, (ASSISTANT, 0): 7}, 2) + traffic.Traffic({(0, 1): 1, (1, 0): 2}, 3)
    assert (one.total, one.waits, one.by(0), one.to(0), one.busiest) == (15, 5, 6, 9, 15)
    assert traffic.NOTHING.busiest == 0


# --- estimates

RATES = Rates(**dict.fromkeys((f.name for f in fields(Rates)), 1e-6))
FIXED = {"job": "0" * 32, "now": utcnow(), "salt": "0" * 32}


def job(owners: int = 2, **changes: Any) -> Spec:
    parties = [{"silo": f"silo-{i}", "dataset": "d", "key": "email"} for i in range(owners)]
    return build_spec({"kind": "vertical.match", "purpose": "x", "parties": parties, **changes}, **FIXED)


def named(found: list[Estimate]) -> dict[str, Estimate]:
    return {one.name: one for one in found}


def test_every_way_to_match_is_estimated_and_the_jobs_own_is_marked() -> None:
    found = named(estimates(job(), (1000, 2000), RATES, Network()))
    assert set(found) == set(MATCHINGS["vertical.match"])
    assert [name for name, one in found.items() if one.chosen] == ["vole-psi"]
    many = named(estimates(job(3), (1000, 2000, 10), RATES, Network()))
    assert {one.protocol for one in many.values()} == MANY_OWNERS
    assert many["vole-psi, many owners"].chosen
    request = {"kind": "vertical.measure", "randomness": "ot"}
    measured = named(estimates(job(**request), (1000, 2000), RATES, Network()))
    assert set(measured) == {*(f"hidden, {supply}" for supply in SUPPLIES), "ecdh-psi, counting"}
    assert measured["hidden, ot"].chosen
    rounded = named(estimates(job(**request, round_to=100), (1000, 2000), RATES, Network()))
    assert "ecdh-psi, counting" not in rounded


def test_everything_that_can_be_disclosed_has_a_line() -> None:
    assert set(REVEALS) == set(DISCLOSED)
    assert set(estimate.SUPPLIES) == set(SUPPLIES)


def test_keys_and_pairs_count() -> None:
    keys = {"keys": ["email/v1", "text/v1"]}
    parties = [{"silo": f"silo-{i}", "dataset": "d", "keys": ["email", "number"]} for i in (0, 1)]
    two = job(align=keys, parties=parties)
    found = named(estimates(two, (100, 50), RATES, Network()))
    assert found["ecdh-psi"].traffic == traffic.ecdh(200, 100) + traffic.linkage(100)
    pairs = named(estimates(job(align={"duplicates": "expand"}), (100, 50), RATES, Network()))
    assert pairs["ecdh-psi"].traffic == traffic.ecdh(100, 50) + traffic.linkage(50, (50, 50))


def test_counting_first_takes_a_join_besides() -> None:
    gated = named(estimates(job(count_first=True, randomness="ot"), (100, 50), RATES, Network()))
    gate = supplies.measured(100, 50, Asked(matches=False), "ot")
    assert gated["vole-psi"].traffic == traffic.vole(100, 50) + gate
    assert gated["vole-psi"].chosen
    assert gated["ecdh-psi"].unusable == "the matches cannot be counted first"


def test_sizes_that_a_protocol_cannot_do_are_named() -> None:
    found = named(estimates(job(), (70_000, 5_000_000), RATES, Network()))
    assert found["oprf-psi"].unusable == "at most 4,194,304 identifiers of an owner"
    assert found["ecdh-psi"].unusable
    assert not found["vole-psi"].unusable
    assert named(estimates(job(), (70_000, 70_000), RATES, Network()))["oprf-psi"].unusable.endswith("first owner")


def test_time_grows_with_sets_and_with_slower_links() -> None:
    small, large, slow, far = (
        named(estimates(job(), rows, RATES, network))
        for rows, network in (
            ((10**4, 10**4), Network()),
            ((10**6, 10**6), Network()),
            ((10**6, 10**6), Network(bandwidth_mbit=10)),
            ((10**6, 10**6), Network(latency_ms=1000)),
        )
    )
    for name in small:
        assert small[name].seconds < large[name].seconds < slow[name].seconds
        assert small[name].memory_mib < large[name].memory_mib
        assert far[name].seconds - large[name].seconds == pytest.approx(0.4995 * large[name].rounds)
        assert large[name].cpu_seconds == slow[name].cpu_seconds
    assert large["vole-psi"].disk_mib > 0
    assert large["ecdh-psi"].disk_mib == 0


def test_this_machine_is_measured() -> None:
    rates = calibrate()
    assert all(0 <= getattr(rates, field.name) < 1 for field in fields(Rates))
    assert rates.curve_hash > rates.point
