"""One of two parties of stock CrypTen 0.4.1; runs in CrypTen's own environment, started by `benchmarks.peers`.

CrypTen is used as it is shipped: parties over gloo, plain TCP on loopback; triples from its default provider ("trusted first
party": party 0 makes all of them and learns everything); 16 fractional bits; its default methods for functions.  Nothing of
it is changed, but PyTorch has moved a module since, and CrypTen finds it where it was.

The party reads its order as a line of JSON; party 0 prints a line of JSON for each operation.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from benchmarks.workload import OPERATIONS, answer, dash, inputs, record, turns

PARTIES = 2
PIECES = 125
"""A gigabyte of masks is drawn in as many parts, a million words each: as many as the other operations need at a time."""
MOVED = ("torch.onnx._internal.registration", "torch.onnx._internal.torchscript_exporter.registration")
ABSENT = {
    "sort": "CrypTen has no sort",
    "groupby_sum": "CrypTen has no group-by",
    "multiply_dealerless": "CrypTen's release has no provider without a dealer",
}
COMPUTE: dict[str, Callable[..., Any]] = {
    "compare": lambda x: x < 0,
    "sigmoid": lambda x: x.sigmoid(),
    "multiply": lambda x, y: x * y,
    "one": lambda x, y: x * y,
    "matmul": lambda x, y: x.matmul(y),
    "owner_product": lambda x, v: x.matmul(v),
    "owner_product_transposed": lambda x, u: x.t().matmul(u),
    "divide": lambda x, y: x / y,
}


def start(order: dict[str, Any]) -> Any:
    """CrypTen, connected to the other party."""
    os.environ.update(
        WORLD_SIZE=str(PARTIES),
        RANK=str(order["party"]),
        RENDEZVOUS=f"file://{order['folder']}/rendezvous",
        DISTRIBUTED_BACKEND="gloo",
        GLOO_SOCKET_IFNAME="lo",
    )
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    sys.modules[MOVED[0]] = importlib.import_module(MOVED[1])
    crypten = importlib.import_module("crypten")
    crypten.init()
    return crypten


def masks(crypten: Any) -> None:
    """A gigabyte of masks, drawn by party 0 while the other one waits."""
    if crypten.communicator.get().get_rank() == 0:
        draw = importlib.import_module("crypten.common.rng").generate_random_ring_element
        for _ in range(PIECES):
            draw((OPERATIONS["masks"].n // PIECES,))


def task(crypten: Any, name: str) -> Callable[[], Any]:
    """The operation on shared inputs, ready to be run any number of times."""
    if name == "masks":
        return lambda: masks(crypten)
    shares = [crypten.cryptensor(torch.tensor(values, dtype=torch.float32)) for values in inputs(name)]
    return lambda: COMPUTE[name](*shares)


def counted(crypten: Any, run: Callable[[], Any]) -> tuple[float, int]:
    """Megabytes and rounds by CrypTen's own counter, and a first turn to warm up.

    One party's counter has what it sends and what it receives: with two parties, everything that is sent.
    """
    communicator = crypten.communicator.get()
    crypten.cfg.communicator.verbose = True
    communicator.reset_communication_stats()
    run()
    counts = communicator.get_communication_stats()
    crypten.cfg.communicator.verbose = False
    return counts["bytes"] / 1e6, counts["rounds"]


def spent(run: Callable[[], Any]) -> tuple[list[tuple[float, float]], Any]:
    """One turn: wall-clock and CPU seconds of every party, and the result."""
    torch.distributed.barrier()
    wall, cpu = time.perf_counter(), time.process_time()
    result = run()
    mine = torch.tensor([time.perf_counter() - wall, time.process_time() - cpu], dtype=torch.float64)
    all_of_them = [torch.zeros(2, dtype=torch.float64) for _ in range(PARTIES)]
    torch.distributed.all_gather(all_of_them, mine)
    return [(float(seconds), float(cpu_seconds)) for seconds, cpu_seconds in all_of_them], result


def measure(crypten: Any, name: str, repeat: int) -> dict[str, Any]:
    """One operation: warm up, repeat, check."""
    if name in ABSENT:
        return dash(name, ABSENT[name])
    run = task(crypten, name)
    mb, rounds = counted(crypten, run)
    times, result = [], None
    for _ in range(turns(name, repeat)):
        seconds, result = spent(run)
        times.append(seconds)
    if name == "masks":
        line = record(name, times, None)
        rate = 8 * OPERATIONS[name].n / line["seconds"] / 1e9
        return line | {"note": f"{rate:.2f} GB/s by torch.randint, as CrypTen draws masks: no cryptographic generator"}
    plain = result.get_plain_text().numpy().astype(np.float64)
    return record(name, times, plain.reshape(answer(name, inputs(name)).shape), mb=mb, rounds=rounds)


def main() -> None:
    """Follow the order that comes on standard input."""
    order = json.loads(sys.stdin.readline())
    crypten = start(order)
    for name in order["operations"]:
        line = measure(crypten, name, order["repeat"])
        if order["party"] == 0:
            print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
