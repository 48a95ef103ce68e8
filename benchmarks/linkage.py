"""Match two files of the same people, full of errors, by one key and by several, and compare with the truth.

    python -m benchmarks.linkage [--json]

The files are Febrl's data set 4 (`benchmarks/data`): 5,000 invented people, and a copy of each with up to ten changes: typing
errors, values that are missing or in another column.  Two processes over TLS on loopback run the real matching, once for each
list of keys.  Reported are recall (of the 5,000 people, how many were paired), precision (of the pairs, how many are right),
F1, and the items and bytes that it took.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.parties import OWNERS, connect, run_processes
from vertical.batches import column, normalise
from vertical.linkage import key_tag, link, pool

if TYPE_CHECKING:
    from mpc.channel import Channel

DATA = Path(__file__).parent / "data"
Key = tuple[str, tuple[str, ...]]

NUMBER: Key = ("text/v1", ("soc_sec_id",))
PERSON: Key = ("person/v1", ("given_name", "surname", "date_of_birth", "postcode"))
NAME_BIRTH: Key = ("name-birth/v1", ("given_name", "surname", "date_of_birth"))
FAMILY: Key = ("family-birth-postcode/v1", ("surname", "date_of_birth", "postcode"))
GIVEN: Key = ("given-birth-postcode/v1", ("given_name", "date_of_birth", "postcode"))
NAME_PLACE: Key = ("name-postcode/v1", ("given_name", "surname", "postcode"))

LISTS: Mapping[str, Sequence[Key]] = {
    "identity number": [NUMBER],
    "names, birth, postcode": [PERSON],
    "names, birth": [NAME_BIRTH],
    "family name, birth, postcode": [FAMILY],
    "given name, birth, postcode": [GIVEN],
    "names, postcode": [NAME_PLACE],
    "the five without the number": [PERSON, NAME_BIRTH, FAMILY, GIVEN, NAME_PLACE],
    "number, then names and birth": [NUMBER, NAME_BIRTH],
    "number, then the four weaker": [NUMBER, NAME_BIRTH, FAMILY, GIVEN, NAME_PLACE],
}


def load(name: str) -> tuple[pa.RecordBatch, np.ndarray]:
    """One owner's file, and the person behind each row, which no party uses."""
    batch = pq.read_table(DATA / f"febrl4_{name}.parquet").combine_chunks().to_batches()[0]
    return batch, np.array([int(rec.split("-")[1]) for rec in batch["rec_id"].to_pylist()])


def match(batch: pa.RecordBatch, keys: Sequence[Key], session: bytes, channel: Channel, me: str) -> dict[str, Any]:
    """One owner's part: from its file to the rows that are in pairs, and how many of them each key found."""
    from mpc.matching.protocol import intersect

    rules, leader = [rule for rule, _ in keys], me == OWNERS[0]
    peer = OWNERS[1 if leader else 0]
    items = [
        normalise([column(batch[name]) for name in names], rule, tag=key_tag(k)) for k, (rule, names) in enumerate(keys)
    ]
    collected = pool(items, rules, "first")
    alignment = intersect(collected.items, peer, session, channel, 0, leader)
    linked = link(collected.matched(alignment.rows), "first", peer, channel, 0, leader)
    return {
        "rows": linked.rows.tolist(),
        "by_key": np.bincount(linked.key, minlength=len(keys)).tolist(),
        "items": len(collected.items),
    }


def score(pairs: Sequence[tuple[int, int]], n_people: int) -> dict[str, float]:
    """Recall, precision and their harmonic mean, for pairs of people's numbers; 0 where there is nothing to divide by."""
    right = sum(a == b for a, b in pairs)
    recall, precision = right / n_people, right / len(pairs) if pairs else 0.0
    return {
        "pairs": len(pairs),
        "recall": recall,
        "precision": precision,
        "f1": 2 * recall * precision / (recall + precision) if right else 0.0,
    }


def party(order: dict[str, Any]) -> dict[str, Any]:
    """One process's part, over inherited sockets: every list of keys in turn."""
    from mpc.matching.kernels import warm_up

    me = order["me"]
    batch, _ = load(me)
    warm_up()
    channel, out = connect(order), {}
    for name, keys in LISTS.items():
        start, sent = time.perf_counter(), sum(channel.bytes_sent.values())
        out[name] = match(batch, keys, b"benchmark " + name.encode(), channel, me)
        out[name] |= {
            "seconds": time.perf_counter() - start,
            "bytes_sent": sum(channel.bytes_sent.values()) - sent,
        }
    return out


def compare(reports: Mapping[str, Mapping[str, Any]], names: Sequence[str]) -> list[dict[str, Any]]:
    """A line for each list of keys, from both owners' reports and the truth."""
    people = {owner: load(owner)[1] for owner in OWNERS}
    lines = []
    for name in names:
        ours, theirs = (reports[owner][name] for owner in OWNERS)
        assert ours["by_key"] == theirs["by_key"], "the owners disagree"
        pairs = list(zip(people["a"][ours["rows"]].tolist(), people["b"][theirs["rows"]].tolist(), strict=True))
        line = {"keys": name, "rules": [rule for rule, _ in LISTS[name]], **score(pairs, len(people["a"]))}
        line |= {"by_key": ours["by_key"], "items": [ours["items"], theirs["items"]]}
        if "seconds" in ours:
            line["seconds"] = max(ours["seconds"], theirs["seconds"])
            line["bytes"] = ours["bytes_sent"] + theirs["bytes_sent"]
        lines.append(line)
    return lines


def main() -> None:
    """Parse the command line, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--party", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.party:
        print(json.dumps(party(json.loads(sys.stdin.readline()))))
        return
    lines = compare(run_processes("benchmarks.linkage", {}, None, OWNERS), list(LISTS))
    if args.json:
        print(json.dumps(lines))
        return
    print(f"{'keys':30} {'recall':>7} {'precision':>9} {'F1':>6} {'items':>15} {'MB':>6}  pairs by each key")
    for x in lines:
        items, found = " + ".join(f"{n:,}" for n in x["items"]), ", ".join(f"{n:,}" for n in x["by_key"])
        print(f"{x['keys']:30} {x['recall']:7.4f} {x['precision']:9.4f} {x['f1']:6.4f}", end=" ")
        print(f"{items:>15} {x['bytes'] / 1e6:6.2f}  {found}")


if __name__ == "__main__":
    main()
