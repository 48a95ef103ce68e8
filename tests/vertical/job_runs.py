"""Every kind of job from its spec to its results, in one process: what a silo's worker runs, over the links of the harness."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mpc.channel import Channel
from silos.catalogue import content_sha256
from silos.spec import Spec
from silos.tables import Source
from silos.tasks import Task, perform
from silos.times import utcnow
from tests.harness import Run, run_parties
from tests.silos.world import make_spec

Columns = Mapping[str, np.ndarray]
N_ROWS, N_COMMON = 400, 360
OWNERS = ("lender", "platform", "bureau")
SESSION = bytes(range(16))


class Counted:
    """A channel of the harness with what a worker asks of a link besides."""

    def __init__(self, channel: Channel, peers: tuple[str, ...]) -> None:
        self._channel = channel
        self.bytes_sent, self.rounds = Counter(dict.fromkeys(peers, 0)), 0
        self.recv = channel.recv

    def send(self, to: str, tag: str, kind: Any, body: Any) -> None:
        """Pass a message on."""
        self.bytes_sent[to] += len(body)
        self._channel.send(to, tag, kind, body)


def email(i: int) -> str:
    """Somebody's address."""
    return f"p{i}@example.org"


def people(seed: int = 1, rows: int = N_ROWS, common: int = N_COMMON) -> dict[str, Columns]:
    """The columns of three owners about the same `common` people and `rows - common` others each, in orders of their own.

    The first one has labels: y of two classes, which its columns and those of the second one make; amount, count and level.
    """
    rng = np.random.default_rng(seed)
    a, b, d, e = rng.normal(size=(4, rows))
    c = rng.integers(0, 3, rows)
    z = 1.2 * a - b + np.array([0.0, 1.0, -1.0])[c]
    y = (rng.random(rows) < 1 / (1 + np.exp(-z))).astype(float)
    amount = np.round(3 + 2 * a - b + rng.normal(size=rows) / 2, 3)
    of = {
        "lender": {
            "a": a,
            "c": np.array(["x", "y", "z"], dtype=object)[c],
            "y": y,
            "amount": amount,
            "count": rng.poisson(np.exp(0.3 * a - 0.2 * b)).astype(float),
            "positive": np.exp(0.3 * amount / 4),
            "level": y + (a > 0),
            "cents": rng.integers(-50, 50, rows),
        },
        "platform": {"b": b, "d": d, "units": rng.integers(0, 9, rows)},
        "bureau": {"e": e, "f": rng.normal(size=rows)},
    }
    out = {}
    for place, (silo, columns) in enumerate(of.items()):
        numbers = np.concatenate([np.arange(common), np.arange(rows - common) + (place + 1) * 10_000])
        order = np.random.default_rng(place).permutation(rows)
        mail = np.array([email(i) for i in numbers], dtype=object)
        out[silo] = {name: values[order] for name, values in {"email": mail, "second": mail, **columns}.items()}
    return out


@dataclass(frozen=True)
class Played:
    """A job that was run.  results: what was released to each silo.  run: with the transcript."""

    spec: Spec
    run: Run

    @property
    def results(self) -> dict[str, Any]:
        """Of each owner, the result document."""
        return {silo: self.run[silo].result for silo in self.spec.owners}


def play(
    root: Path,
    request: Mapping[str, Any],
    data: Mapping[str, Columns] | None = None,
    parts: Mapping[str, Any] | None = None,
) -> Played:
    """Run the job of a request at all its participants.

    root: an empty folder.  parts: each owner's part of a model, for a job that predicts.
    """
    spec = make_spec(now=utcnow().replace(microsecond=0), **{"dealer": "dealer", **request})
    data = data or people()

    def party(silo: str) -> Any:
        folder = root / silo
        for name in ("job", "tokens"):
            (folder / name).mkdir(parents=True, mode=0o700, exist_ok=True)
        source = None
        if silo in spec.owners:
            path = folder / "data.parquet"
            pq.write_table(pa.table({k: pa.array(v.tolist()) for k, v in data[silo].items()}), path)
            plain = Source("data", "parquet", str(path))
            source = Source("data", "parquet", str(path), sha256=content_sha256(plain, None))

        def body(channel: Channel) -> Any:
            peers = tuple(name for name in spec.participants if name != silo)
            task = Task(
                spec=spec,
                me=silo,
                source=source,
                rows=N_ROWS,
                folder=folder / "job",
                tokens=folder / "tokens",
                session=SESSION,
                connect=lambda: Counted(channel, peers),  # type: ignore[arg-type, return-value]
                progress=lambda *_: None,
                part=None if parts is None else parts.get(silo),
            )
            return perform(task)

        return body

    return Played(spec, run_parties({silo: party(silo) for silo in spec.participants}))
