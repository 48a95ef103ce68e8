"""One of two parties of stock CrypTen 0.4.1 that trains a network; runs in its own environment, for `benchmarks.network`.

Its argument is an order as JSON.  Party 0 prints a line of JSON: for every measured batch, seconds, CPU seconds, bytes that
one party sends, and rounds.  CrypTen is started, counted and used as in `benchmarks.peer_crypten`.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np
import torch

from benchmarks.peer_crypten import spent, start


def batch_of(crypten: Any, order: dict[str, Any]) -> Any:
    """One step of training on one batch, ready to be run any number of times."""
    nn, width, (a, b) = crypten.nn, order["width"], order["hidden"]

    class Tanh(nn.Module):  # type: ignore[misc]  # CrypTen is untyped, and has the function but not the layer
        def forward(self, x: Any) -> Any:
            return x.tanh()

    layers = [torch.nn.Linear(width, a), torch.nn.Linear(a, b), torch.nn.Linear(b, 1)]
    # Made of its own layers: its converter from PyTorch does not work with PyTorch's present exporter.
    model = nn.Sequential(nn.Linear(width, a), Tanh(), nn.Linear(a, b), Tanh(), nn.Linear(b, 1))
    own = [parameter for _, parameter in model.named_parameters()]
    with torch.no_grad():
        for mine, theirs in zip(own, (p for layer in layers for p in layer.parameters()), strict=True):
            mine.copy_(theirs)
    model.encrypt()
    model.train()
    loss, rng = nn.BCEWithLogitsLoss(), np.random.default_rng(20_11)
    optimiser = crypten.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    x = crypten.cryptensor(torch.tensor(rng.normal(size=(order["batch"], width)), dtype=torch.float32))
    y = crypten.cryptensor(torch.tensor(rng.integers(0, 2, (order["batch"], 1)), dtype=torch.float32))

    def run() -> None:
        optimiser.zero_grad()
        loss(model(x), y).backward()
        optimiser.step()

    return run


def main() -> None:
    """Follow the order."""
    order = json.loads(sys.argv[1])
    crypten = start(order)
    run = batch_of(crypten, order)
    communicator = crypten.communicator.get()
    crypten.cfg.communicator.verbose = True
    communicator.reset_communication_stats()
    run()
    counts = communicator.get_communication_stats()
    crypten.cfg.communicator.verbose = False
    turns = []
    for _ in range(order["batches"]):
        seconds = spent(run)[0]
        # Its counter has what one party sends and receives, which with two parties is twice what it sends.
        turns.append([max(s for s, _ in seconds), seconds[0][1], counts["bytes"] / 2, counts["rounds"]])
    if order["party"] == 0:
        print(json.dumps({"turns": turns}), flush=True)


if __name__ == "__main__":
    main()
