"""What a matching would take, before anybody is asked: bytes by the protocols' own formulas, seconds by this machine's speed.

Bytes are exact if every row has a valid identifier of its own for every key; with fewer they are less, but where a set's
size is hidden in a bound.  Seconds, memory and disk are rough: the other owners' machines are taken to be like this one, and
what can overlap is counted as if it did only in part.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from mpc import psi
from mpc.delegated import protocol as delegated
from mpc.matching import buckets, cuckoo, okvs, protocol
from mpc.matching.buckets import BUCKET_POINTS, bucket_count_bits
from mpc.matching.hidden import PART_BINS
from mpc.tokens import protocol as tokens
from mpc.tokens.ristretto import THREADS
from silos import supplies, traffic
from silos.calibration import Rates
from silos.spec import Match, Measure, Spec
from silos.spec_parts import Measurer
from silos.traffic import Traffic

BASE_MIB = 320
"""Of a worker with all its libraries."""
START_S = 1.7
"""Until workers run and their links are up."""
READ, WRITTEN = 3.5, 4.0
"""Work on each row that is read, and on each that is gone through to write the matched ones, in units of a row of the rates."""
BUCKETED = ("vole-psi", "vole-psi-malicious")
ITEM_BYTES = {"vole-psi": 270, "vole-psi-malicious": 400, "hidden": 700}
"""Memory for each identifier that is worked on at a time; LIST_BYTES elsewhere."""
LIST_BYTES, HELD_BYTES, DISK_BYTES = 420, 2800, 60
COMPARED = {"dealer": 3.5, "verified-dealer": 450.0, "ot": 100.0}
"""Work on each bin of a join that stays shared, in units of a value of the function."""
SUPPLIES = tuple(COMPARED)

REVEALS = {
    "ecdh-psi": "both: both set sizes, how many identifiers match and, if that is enough for both, which of their own",
    "ecdh-psi, counting": "both: both set sizes and how many identifiers match, not which",
    "vole-psi": "as ecdh-psi; the process of the first owner knows its matches before the minima are checked",
    "vole-psi-malicious": "as vole-psi, and no more to an owner that does not follow the protocol",
    "vole-psi, many owners": "all: the first owner's set size and which of their own identifiers all have; the first owner: "
    "every set size, and its matches before the minima are checked",
    "oprf-psi": "as ecdh-psi; the process of the first owner knows its matches before the minima are checked",
    "helper-psi": "owners: which of their own identifiers all have, no set sizes; the helper: all set sizes, and how many "
    "identifiers any of the owners share",
    "hidden": "both: both set sizes, and the results asked for if the matches are enough; nobody: which rows match, except "
    "what sums tell the owner of the column",
}
"""In a line each; the disclosure of a job has the whole of it."""


@dataclass(frozen=True)
class Network:
    """The slowest link: megabits in a second, and milliseconds there and back."""

    bandwidth_mbit: float = 1000.0
    latency_ms: float = 1.0


@dataclass(frozen=True)
class Estimate:
    """One way to do the job.

    matching: as a spec's.  randomness: what a join that stays shared takes, or None.  traffic: between the owners, in the
    job's order, and the helper or dealer.  cpu_seconds: from the first row that is read to the last that is written, on all
    sides.  seconds: with the network, and what starts before.  chosen: the job's own way.  unusable: why the job could not
    be done in this way, or nothing.
    """

    matching: str
    randomness: str | None
    traffic: Traffic
    memory_mib: int
    disk_mib: int
    cpu_seconds: float
    seconds: float
    chosen: bool
    unusable: str = ""

    @property
    def protocol(self) -> str:
        """As `align.protocol` has it."""
        return self.matching.split(",")[0]

    @property
    def name(self) -> str:
        """For people: the protocol, and what makes it another one here."""
        return self.matching if self.randomness is None else f"{self.matching}, {self.randomness}"

    @property
    def reveals(self) -> str:
        """What it reveals, in a line."""
        return REVEALS[self.matching]

    @property
    def rounds(self) -> int:
        """Messages that wait for each other."""
        return self.traffic.waits

    def document(self, owners: Sequence[str]) -> dict[str, Any]:
        """For programs.  owners: the job's."""
        names = dict(enumerate(owners)) | {traffic.ASSISTANT: "dealer" if self.randomness else "helper"}
        sent = [{"from": names[a], "to": names[b], "bytes": n} for (a, b), n in sorted(self.traffic.sent.items())]
        return {
            "protocol": self.protocol,
            "randomness": self.randomness,
            "chosen": self.chosen,
            "unusable": self.unusable or None,
            "reveals": self.reveals,
            "sent": sent,
            "rounds": self.rounds,
            "memory_mib": self.memory_mib,
            "disk_mib": self.disk_mib,
            "cpu_seconds": round(self.cpu_seconds, 3),
            "seconds": round(self.seconds, 3),
        }


def identifiers(spec: Spec, rows: Sequence[int]) -> tuple[int, ...]:
    """How many identifiers each owner has at most."""
    return tuple(n * len(spec.align.keys) for n in rows)


def estimates(spec: Spec, rows: Sequence[int], rates: Rates, network: Network) -> list[Estimate]:
    """Every way to do a matching or measurement, the job's own among them.

    rows: of each owner, in the job's order.
    """
    sizes = identifiers(spec, rows)
    return [_estimate(spec, sizes, matching, supply, rates, network) for matching, supply in _ways(spec)]


def _ways(spec: Spec) -> Iterator[tuple[str, str | None]]:
    if isinstance(spec, Measure):
        yield from (("hidden", supply) for supply in SUPPLIES)
        if spec.round_to is None and spec.epsilon is None and spec.release == ("matches",):
            yield "ecdh-psi, counting", None
    elif len(spec.parties) > 2:
        yield from (("vole-psi, many owners", None), ("helper-psi", None))
    else:
        ways = ("vole-psi", "vole-psi-malicious", "ecdh-psi", "oprf-psi", "helper-psi")
        yield from ((matching, None) for matching in ways)


def _estimate(
    spec: Spec, sizes: Sequence[int], matching: str, supply: str | None, rates: Rates, network: Network
) -> Estimate:
    sent = sent_by(spec, sizes, matching, supply)
    written = WRITTEN * max(sizes) / len(spec.align.keys) if "rows" in spec.release else 0.0
    cpu = (READ * max(sizes) + written) * rates.row + _work(matching, sizes, rates)
    if matching not in BUCKETED:
        cpu += max(sizes) * rates.listed
    if isinstance(spec, Match) and spec.count_first:
        cpu += _work("hidden", sizes, rates) + max(sizes) * rates.listed
        cpu += cuckoo.n_bins(sizes[0]) * COMPARED[spec.randomness or "ot"] * rates.value
    if supply is not None:
        cpu += cuckoo.n_bins(sizes[0]) * COMPARED[supply] * rates.value
    if spec.links_rows:
        cpu += min(sizes) * rates.listed
    wire = sent.busiest * 8 / (network.bandwidth_mbit * 1e6) + sent.waits * network.latency_ms / 2000
    memory, disk = _room(matching, sizes, supply)
    chosen = matching == spec.matching and (supply == spec.randomness or isinstance(spec, Match))
    unusable = _too_many(matching, sizes)
    if isinstance(spec, Match) and spec.count_first and matching != "vole-psi":
        unusable = unusable or "the matches cannot be counted first"
    return Estimate(matching, supply, sent, memory, disk, cpu, START_S + cpu + wire, chosen, unusable)


def sent_by(spec: Spec, sizes: Sequence[int], matching: str, supply: str | None) -> Traffic:
    """The bytes of a job that is done in one way.  sizes: identifiers of each owner.

    Where the number of matches counts, it is taken to be the most that there can be.
    """
    two = (sizes[0], sizes[1])
    if matching == "hidden":
        first, second = (len(party.sums) if isinstance(party, Measurer) else 0 for party in spec.parties)
        asked = supplies.Asked((first, second), "matches" in spec.release, getattr(spec, "round_to", None))
        return supplies.measured(*two, asked, supply or "ot")
    if matching == "vole-psi, many owners":
        return traffic.star(sizes)
    total = traffic.helped(sizes) if matching == "helper-psi" else _TWO[matching](*two)
    if isinstance(spec, Match) and spec.count_first and matching == "vole-psi":
        total += supplies.measured(*two, supplies.Asked(matches=False), spec.randomness or "ot")
    if isinstance(spec, Match) and spec.links_rows:
        items = min(two)
        total += traffic.linkage(items, (items, items) if spec.align.duplicates == "expand" else None)
    return total


_TWO: dict[str, Callable[[int, int], Traffic]] = {
    "ecdh-psi": traffic.ecdh,
    "ecdh-psi, counting": traffic.ecdh_count,
    "vole-psi": traffic.vole,
    "vole-psi-malicious": lambda n, m: traffic.vole(n, m, "malicious"),
    "oprf-psi": traffic.tokens,
}


def _work(matching: str, sizes: Sequence[int], rates: Rates) -> float:
    """Seconds of computing one after the other, after the data was read."""
    n, m = sizes[0], max(sizes[1:])
    if matching in BUCKETED:
        bits = bucket_count_bits(n, m, BUCKET_POINTS)
        asked, sent = buckets.bound(n, bits) + 1, buckets.bound(m, bits) + 1
        column, more = (rates.column, 1.0) if matching == "vole-psi" else (2 * rates.wide_column, 1.5)
        mask = asked * rates.key + okvs.columns(asked) * column
        table = sent * (rates.point + rates.merge)
        return 2 * rates.set_up * more + (1 << bits) * (mask + max(asked, sent) * rates.value * more + table)
    if matching.startswith("ecdh-psi"):
        return max(a * (rates.curve_hash + rates.curve) + b * rates.curve for a, b in ((n, m), (m, n)))
    if matching == "oprf-psi":
        return (m + 4 * n) * rates.group / min(THREADS, os.cpu_count() or 1)
    if matching == "helper-psi":
        return max(sizes) * rates.point + sum(sizes) * rates.merge
    asks = okvs.columns(n + 1) * rates.column + n * (rates.key + 2 * rates.value)
    if matching == "vole-psi, many owners":
        return 2 * rates.set_up + n * rates.point + (len(sizes) - 1) * asks + m * (2 * rates.value + rates.key)
    bins = cuckoo.n_bins(n)
    binned = n * rates.bin + bins * (rates.point + rates.key + 2 * rates.value) + okvs.columns(bins) * rates.column
    return 2 * rates.set_up + binned + cuckoo.CHOICES * m * (rates.point + rates.value + 1.5 * rates.key)


def _room(matching: str, sizes: Sequence[int], supply: str | None) -> tuple[int, int]:
    """MiB of memory and of disk at one owner."""
    most, disk = max(sizes), 0
    if matching in BUCKETED:
        most, disk = min(most, BUCKET_POINTS), DISK_BYTES * most
    held = ITEM_BYTES.get(matching, LIST_BYTES) * most
    if supply == "verified-dealer":
        held += HELD_BYTES * min(cuckoo.n_bins(sizes[0]), PART_BINS)
    return BASE_MIB + (held >> 20), -(-disk >> 20)


def _too_many(matching: str, sizes: Sequence[int]) -> str:
    most = {"vole-psi": protocol.MAX_ITEMS, "vole-psi-malicious": protocol.MAX_ITEMS, "helper-psi": delegated.MAX_ITEMS}
    limit = most.get(matching, psi.MAX_ITEMS)
    if max(sizes) > limit:
        return f"at most {limit:,} identifiers of an owner"
    if matching == "oprf-psi" and sizes[0] > tokens.MAX_QUERIES:
        return f"at most {tokens.MAX_QUERIES:,} identifiers of the first owner"
    return ""
