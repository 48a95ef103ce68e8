"""Two parties without a dealer, for tests: real base transfers, or ends that were made in one place and cost nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from mpc.ot.extension import ReceiverEnd, SenderEnd, kernels
from mpc.ot.source import ObliviousTransfers
from mpc.session import Session
from tests.harness import Run, run_parties

NAMES = ("a", "b")


def made_ends(seed: int = 99) -> list[tuple[ReceiverEnd, SenderEnd]]:
    """Both parties' ends of both directions, from known leaves."""
    rng = np.random.default_rng(seed)
    receivers, senders, session = {}, {}, b"s" * 32
    for sender in (0, 1):
        trees = rng.integers(0, 256, (kernels.TREES, kernels.LEAVES, 16), dtype=np.uint8)
        holes = rng.integers(0, kernels.LEAVES, kernels.TREES).tolist()
        seen = np.stack([tree[np.arange(kernels.LEAVES) ^ hole] for tree, hole in zip(trees, holes)])
        seen[:, 0] = 0
        receivers[1 - sender] = ReceiverEnd(session, sender, [leaf.tobytes() for tree in trees for leaf in tree])
        senders[sender] = SenderEnd(session, sender, holes, [leaf.tobytes() for tree in seen for leaf in tree])
    return [(receivers[me], senders[me]) for me in (0, 1)]


def cheap_set_up(channel: Any, peer: str, me: int) -> tuple[ReceiverEnd, SenderEnd]:
    """In place of `mpc.ot.extension.set_up`."""
    return made_ends()[me]


def between(body: Callable[[Session], Any], **options: Any) -> Run:
    """Run `body(session)` at parties a and b, whose randomness comes from transfers."""

    def party(me: int) -> Callable[[Any], Any]:
        def run(channel: Any) -> Any:
            session = Session(channel, NAMES, me, ObliviousTransfers(channel, NAMES[1 - me], me))
            result = body(session)
            session.correlations.settle()
            session.correlations.close()
            return result

        return run

    return run_parties({name: party(me) for me, name in enumerate(NAMES)}, **options)
