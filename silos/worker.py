"""One process for one job: it holds the silo's rows and shares, and gets nothing of the outside but connected sockets.

The node writes one line of JSON to standard input and reads lines of JSON from standard output; file descriptors of the
sockets are inherited.  No identity key, no coordinator, no network name is known here.
"""

from __future__ import annotations

import base64
import json
import resource
import socket
import sys
import time
import traceback
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import BaseModel, ConfigDict

from mpc.correlations import Usage
from mpc.dealer import run_dealer
from mpc.errors import LocalProtocolError, PeerLost, ProtocolError, RemoteProtocolError
from mpc.kinds import warm_up
from silos.catalogue import file_sha256, load_columns
from silos.errors import CatalogueError, SiloError
from silos.links import LinkChannel, LinkCredentials, open_links
from silos.spec import Spec, parse_spec
from silos.times import from_text, utcnow

if TYPE_CHECKING:
    from vertical.job import Plan

PROGRESS_EVERY_S = 0.2


class Order(BaseModel):
    """What the node asks of a worker; see the module."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    me: str
    spec: dict[str, Any]
    dataset: dict[str, Any] | None
    session: str
    fds: dict[str, int]
    link_key: str
    link_certificates: dict[str, str]

    def __repr__(self) -> str:
        return f"Order(me={self.me!r})"


class Reporter:
    """Lines to the node: progress now and then, seconds per stage at the end."""

    def __init__(self) -> None:
        self._stage, self._since, self._said = "link", time.monotonic(), 0.0
        self.seconds: dict[str, float] = {}

    def progress(self, stage: str, done: int, total: int) -> None:
        """Note a step; tell the node when the stage changes or ends, and otherwise a few times a second."""
        now = time.monotonic()
        changed = stage != self._stage
        if changed:
            self._close(now)
            self._stage = stage
        if changed or done == total or now - self._said > PROGRESS_EVERY_S:
            self._said = now
            say({"progress": {"stage": stage, "done": done, "total": total}})

    def _close(self, now: float) -> None:
        self.seconds[self._stage] = self.seconds.get(self._stage, 0.0) + now - self._since
        self._since = now

    def finish(self) -> dict[str, str]:
        """Seconds per stage, as decimal strings."""
        self._close(time.monotonic())
        return {stage: f"{seconds:.3f}" for stage, seconds in self.seconds.items()}

    @property
    def stage(self) -> str:
        """Where the work is."""
        return self._stage


def say(message: Mapping[str, Any]) -> None:
    """One line to the node."""
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def failed(step: str, reason: str, party: str = "", *, silent: bool = False) -> dict[str, Any]:
    """The last line of a worker that failed.  party: whose fault it is, if a peer's; silent: it just did not answer."""
    return {"failed": {"step": step, "reason": reason, "party": party, "silent": silent}}


def connect(order: Order, spec: Spec) -> LinkChannel:
    """TLS over every inherited socket, pinned to the certificates from the consents."""
    certificates = {silo: base64.b64decode(der, validate=True) for silo, der in order.link_certificates.items()}
    credentials = LinkCredentials(order.link_key.encode(), certificates[order.me])
    sockets = {peer: socket.socket(fileno=fd) for peer, fd in order.fds.items()}
    participants, timeout_s = spec.participants, spec.limits.timeout_s
    links = open_links(order.me, participants, sockets, credentials, certificates, timeout_s)
    session = bytes.fromhex(order.session)
    return LinkChannel(
        order.me,
        participants,
        session,
        links,
        timeout_s,
        uncounted=set(participants) - set(spec.owners),
        patience_s=patience(order.me, spec),
    )


def patience(me: str, spec: Spec) -> dict[str, float]:
    """Seconds to wait for each peer, so that of several who wait for each other the one next to the fault speaks first.

    A data owner waits for the dealer, which waits for nobody, as long as the spec says, and half as long again for the
    other owner, which may itself be waiting for the dealer.  The dealer has nothing to do while the owners work: it
    waits for them until the job's time is over; an owner that fails closes its links.  Without a dealer all wait alike.
    """
    if spec.dealer is None:
        return {}
    if me == spec.dealer:
        left_s = (from_text(spec.valid_until) - utcnow()).total_seconds()
        return dict.fromkeys(spec.owners, max(left_s, spec.limits.timeout_s))
    return {owner: 1.5 * spec.limits.timeout_s for owner in spec.owners if owner != me}


def plan_of(spec: Spec, me: str) -> Plan:
    """The part of the spec that the computation depends on."""
    from vertical.encoding import Feature
    from vertical.job import Plan
    from vertical.logistic import Settings

    party = next(p for p in spec.parties if p.silo == me)
    return Plan(
        parties=spec.owners,
        randomness=spec.randomness,
        dealer=spec.dealer,
        me=spec.owners.index(me),
        active=spec.owners.index(spec.active),
        key=party.key,
        label=party.label,
        features=tuple(Feature(f.column, f.as_) for f in party.features),
        matching=spec.align.protocol,
        identifier=spec.align.identifier,
        region=spec.align.region,
        duplicates=spec.align.duplicates,
        minimum_matches=spec.align.minimum_matches,
        winsorise_sd=spec.encoding.winsorise_sd,
        rare_category=spec.encoding.rare_category,
        settings=Settings(float(spec.train.ridge), spec.train.passes, spec.train.period, spec.train.harmonics),
        holdout_percent=spec.evaluate.holdout_percent,
        salt=bytes.fromhex(spec.evaluate.salt),
        release=spec.release,
    )


def check_unchanged(dataset: dict[str, Any]) -> None:
    """The file must still be the one that the consent commits to.

    Called after the columns are read: whatever changed before or during the reading is noticed, and what changes later
    does not matter.  Raises: CatalogueError.
    """
    if file_sha256(dataset["path"]) != dataset["sha256"]:
        raise CatalogueError(f"the file of data set '{dataset['name']}' has changed since the consent")


def read_columns(dataset: dict[str, Any], plan: Plan) -> dict[str, npt.NDArray[Any]]:
    """The job's columns as the computation wants them: numbers as float64, identifiers and all else as text."""
    numbers = {f.column for f in plan.features if f.kind == "number"} | {plan.label}
    table = load_columns(dataset["path"], dataset["format"], plan.columns, as_text=plan.key)
    columns: dict[str, npt.NDArray[Any]] = {}
    for name in plan.columns:
        values = table.column(name)
        if name in numbers:
            try:
                columns[name] = np.array(values.cast("float64").to_numpy(), dtype=np.float64)
            except pa.ArrowInvalid:  # its text quotes the value
                raise CatalogueError(
                    f"column '{name}' of {plan.parties[plan.me]} holds values that are not numbers"
                ) from None
        else:
            column = np.empty(len(values), dtype=object)
            column[:] = [(_identifier if name in plan.key else _level)(v) for v in values.to_pylist()]
            columns[name] = column
    return columns


def _level(value: Any) -> str | bytes | None:
    return value if value is None or isinstance(value, bytes) else str(value)


def _identifier(value: Any) -> str | bytes | None:
    """As text; a whole number that the file keeps as a float, because others are missing, has no fraction."""
    if isinstance(value, float):
        return None if value != value else str(int(value)) if value.is_integer() else str(value)
    return _level(value)


def run(order: Order, reporter: Reporter) -> dict[str, Any]:
    """Do the job; returns the last line for the node."""
    spec = parse_spec(order.spec)
    warm_up()
    if spec.randomness == "ot":
        from mpc.ot import products as transfers

        transfers.warm_up()
    if spec.align.protocol == "vole-psi" and order.me != spec.dealer:
        from mpc.matching import kernels as matching

        matching.warm_up()
    if order.me == spec.dealer:
        channel = connect(order, spec)
        reporter.progress("deal", 0, 1)
        run_dealer(channel, spec.owners)
        reporter.progress("deal", 1, 1)
        ran = None
    else:
        from vertical.job import run as run_owner

        if order.dataset is None:
            raise LocalProtocolError(f"{order.me} has no data set for this job")
        plan = plan_of(spec, order.me)
        columns = read_columns(order.dataset, plan)
        check_unchanged(order.dataset)
        channel = connect(order, spec)
        ran = run_owner(plan, columns, channel, bytes.fromhex(order.session), reporter.progress)
    cost = {
        "rounds": channel.rounds,
        "bytes_sent": dict(channel.bytes_sent),
        "seconds": reporter.finish(),
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "randomness": {} if ran is None else randomness_used(ran.used),
    }
    channel.close()
    if ran is None:
        return {"result": None, "items": [], "cost": cost}
    return {"result": ran.result, "items": list(spec.release), "cost": cost}


def randomness_used(used: Mapping[str, Usage]) -> dict[str, dict[str, int]]:
    """What an owner used of each kind of correlated randomness, as its 'finished' statement says it."""
    return {kind: {"correlations": usage.count, "words": usage.words} for kind, usage in sorted(used.items())}


def main() -> int:
    """Entry point; the outermost loop of the worker process."""
    reporter = Reporter()
    try:
        order = Order.model_validate_json(sys.stdin.readline())
        say(run(order, reporter))
    except PeerLost as exc:
        say(failed(exc.step, str(exc), exc.party, silent=exc.silent))
    except RemoteProtocolError as exc:
        say(failed(exc.tag, str(exc), exc.party))
    except (ProtocolError, SiloError) as exc:
        say(failed(reporter.stage, str(exc)))
    except Exception as exc:  # noqa: BLE001 - the outermost loop; the text of a foreign exception may hold data: log only
        traceback.print_exc()
        reason = f"an unexpected {type(exc).__name__} in the worker; its log at the silo says more"
        say(failed(reporter.stage, reason))
    else:
        return 0
    return 1


if __name__ == "__main__":
    sys.exit(main())
