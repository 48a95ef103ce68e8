"""One of two parties of SecretFlow SPU 0.9.5; runs in SPU's own environment, started by `benchmarks.peers`.

Two processes over SPU's own links (brpc, plain TCP on loopback), ring Z_2^64, 18 fractional bits, one thread each, defaults
otherwise.  The protocol is part of the order: SEMI2K, with its default triples ("trusted first party": party 0 makes all of
them and learns everything); or CHEETAH, which needs nobody else.  Inputs are shared and programs compiled before the clock
starts.

The party reads its order as a line of JSON; party 0 prints a line of JSON for each operation.
"""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import spu
from spu import libspu
from spu.ops.groupby import groupby, groupby_sum
from spu.utils import frontend

from benchmarks.workload import dash, inputs, record, turns

PARTIES = 2
ABSENT = {"masks": "SPU's generator cannot be called by itself"}
TRAFFIC = re.compile(r"Link details: total send bytes (\d+), recv bytes (\d+), send actions (\d+)")


def sums_by_group(keys: Any, values: Any) -> Any:
    """SPU's own group-by: sort, mark the last row of each group, scan.  Also returns the marks, which stay shared."""
    _, sorted_values, _, ends = groupby([keys], [values])
    return groupby_sum(sorted_values, ends), ends


COMPUTE: dict[str, Callable[..., Any]] = {
    "compare": lambda x: x < 0,
    "sigmoid": lambda x: jax.nn.sigmoid(x),
    "multiply": lambda x, y: x * y,
    "one": lambda x, y: x * y,
    "multiply_dealerless": lambda x, y: x * y,
    "matmul": lambda x, y: x @ y,
    "owner_product": lambda x, v: x @ v,
    "owner_product_transposed": lambda x, u: x.T @ u,
    "sort": lambda x: jnp.sort(x),
    "groupby_sum": sums_by_group,
    "divide": lambda x, y: x / y,
}
NOTES = {
    "compare": "the result stays a shared bit, not a ring word",
    "groupby_sum": "sort and segmented scan, without the shuffle that a caller needs before opening the groups",
    "multiply_dealerless": "CHEETAH; its set-up, seconds in the first call, is not counted",
}


class Party:
    """A party's link to the other, its runtime, and what it needs to share and open arrays."""

    def __init__(self, order: dict[str, Any]) -> None:
        options = libspu.logging.LogOptions()
        options.enable_console_logger = False
        self.log = Path(order["folder"]) / f"spu-{order['party']}.log"
        options.system_log_path = str(self.log)
        libspu.logging.setup_logging(options)
        config = libspu.RuntimeConfig(protocol=getattr(spu.ProtocolKind, order["protocol"]), field=spu.FieldType.FM64)
        config.max_concurrency = 1
        config.enable_pphlo_profile = True  # one log line per operation, which has the traffic
        description = libspu.link.Desc()
        for index, port in enumerate(order["ports"]):
            description.add_party(str(index), f"127.0.0.1:{port}")
        self.rank = order["party"]
        self.link = libspu.link.create_brpc(description, self.rank)
        self.io = spu.Io(PARTIES, config)
        self.runtime = spu.Runtime(self.link, config)

    def send(self, share: Any) -> None:
        """Hand a share over to the other party."""
        for part in (share.meta, str(len(share.share_chunks)), *share.share_chunks):
            self.link.send(1 - self.rank, part)

    def receive(self) -> Any:
        """The share that the other party hands over."""
        share = libspu.Share()
        share.meta = self.link.recv(1 - self.rank)
        share.share_chunks = [self.link.recv(1 - self.rank) for _ in range(int(self.link.recv(1 - self.rank)))]
        return share

    def put(self, name: str, values: np.ndarray) -> None:
        """Share an array: party 0 splits it."""
        if self.rank == 0:
            mine, theirs = self.io.make_shares(values, spu.Visibility.VIS_SECRET)
            self.send(theirs)
        else:
            mine = self.receive()
        self.runtime.set_var(name, mine)

    def open(self, name: str) -> Any:
        """At party 0, the values of a shared result."""
        share = self.runtime.get_var(name)
        if self.rank == 0:
            return self.io.reconstruct([share, self.receive()])
        return self.send(share)

    def spent(self, program: Any) -> list[tuple[float, float]]:
        """One turn: wall-clock and CPU seconds of every party."""
        self.link.barrier()
        wall, cpu = time.perf_counter(), time.process_time()
        self.runtime.run(program)
        mine = [time.perf_counter() - wall, time.process_time() - cpu]
        return [(a, b) for a, b in map(json.loads, self.link.all_gather(json.dumps(mine)))]

    def traffic(self) -> dict[str, Any]:
        """What the last turn sent in both directions, and how many messages this party sent: no fewer than the rounds."""
        found = TRAFFIC.findall(self.log.read_text(errors="replace"))
        if not found:
            return {}
        sent, received, messages = map(int, found[-1])
        return {"mb": (sent + received) / 1e6, "rounds": messages}


def measure(party: Party, name: str, repeat: int) -> dict[str, Any] | None:
    """One operation: share, compile, warm up, repeat, check.  Party 0 has the record."""
    if name in ABSENT:
        return dash(name, ABSENT[name])
    arrays = [values.astype(np.float32) for values in inputs(name)]
    names = [f"in{i}" for i in range(len(arrays))]
    secret = [spu.Visibility.VIS_SECRET] * len(arrays)
    for key, values in zip(names, arrays, strict=True):
        party.put(key, values)
    outputs: list[str] = []

    def name_outputs(flat: list[Any]) -> list[str]:
        outputs.extend(f"out{i}" for i in range(len(flat)))
        return outputs

    program, _ = frontend.compile(frontend.Kind.JAX, COMPUTE[name], arrays, {}, names, secret, name_outputs)
    party.spent(program)
    times = [party.spent(program) for _ in range(turns(name, repeat))]
    result, *marks = [party.open(key) for key in outputs]
    for key in (*names, *outputs):
        party.runtime.del_var(key)
    if party.rank != 0:
        return None
    if marks:  # of the group-by: the rows that hold a group's sum, in the order of the keys
        result = result[marks[0] == 1, 0]
    return record(name, times, result, **party.traffic(), note=NOTES.get(name, ""))


def main() -> None:
    """Follow the order that comes on standard input."""
    order = json.loads(sys.stdin.readline())
    party = Party(order)
    for name in order["operations"]:
        line = measure(party, name, order["repeat"])
        if order["party"] == 0:
            print(json.dumps(line), flush=True)
    party.link.stop_link()


if __name__ == "__main__":
    main()
