"""One process for one job: it holds the silo's rows and shares, and gets nothing of the outside but connected sockets.

The node writes one line of JSON to standard input and reads lines of JSON from standard output; file descriptors of the
sockets are inherited.  No identity key, no coordinator, no network name is known here.
"""

from __future__ import annotations

import base64
import json
import logging
import os
import resource
import socket
import sys
import threading
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from mpc.correlations import Usage
from mpc.errors import PeerLost, ProtocolError, RemoteProtocolError
from mpc.kinds import warm_up
from mpc.messages import SILENT
from silos import leftovers
from silos.disclosure import messages
from silos.errors import SiloError
from silos.links import LinkChannel, LinkCredentials, open_links
from silos.spec import Spec, parse_spec
from silos.tables import Source
from silos.tasks import Task, perform
from silos.times import from_text, utcnow
from silos.workers import LEAST_SILENT_S

PROGRESS_EVERY_S = 0.2
ALIVE_EVERY_S = LEAST_SILENT_S / 5
THOUSAND = 1000
_SAYING = threading.Lock()


class Order(BaseModel):
    """What the node asks of a worker; see the module."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    me: str
    spec: dict[str, Any]
    dataset: dict[str, Any] | None
    folder: str
    tokens: str
    session: str
    fds: dict[str, int]
    link_key: str
    link_certificates: dict[str, str]
    part: dict[str, Any] | None

    def __repr__(self) -> str:
        return f"Order(me={self.me!r})"


class Reporter:
    """Lines to the node: progress now and then, seconds per stage at the end."""

    def __init__(self) -> None:
        self._stage, self._since, self._said = "link", time.monotonic(), 0.0
        self.seconds: dict[str, float] = {}

    def progress(self, stage: str, done: int, total: int) -> None:
        """Note a step; tell the node when the stage changes or ends, and otherwise a few times a second.

        Others see it, so large numbers, from which a size could be read, go out as thousandths.
        """
        now = time.monotonic()
        changed = stage != self._stage
        if changed:
            self._close(now)
            self._stage = stage
        if changed or done == total or now - self._said > PROGRESS_EVERY_S:
            self._said = now
            if total > THOUSAND:
                done, total = done * THOUSAND // total, THOUSAND
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


class _TellOfCompiling(logging.Handler):
    """Makes a stage of it that kernels are compiled, once for a machine."""

    def __init__(self, reporter: Reporter) -> None:
        super().__init__()
        self._reporter, self._done = reporter, 0

    def emit(self, record: logging.LogRecord) -> None:
        """Another kernel is compiled; how many there will be is not known."""
        self._done += 1
        self._reporter.progress("compile, once for this machine", self._done, 0)


def say(message: Mapping[str, Any]) -> None:
    """One line to the node."""
    with _SAYING:
        sys.stdout.write(json.dumps(message) + "\n")
        sys.stdout.flush()


def failed(step: str, reason: str, party: str = "", *, silent: bool = False, lost: bool = False) -> dict[str, Any]:
    """The last line of a worker that failed.

    party: whose fault it is, if a peer's.  silent: it just did not answer.  lost: its link is gone.
    """
    return {"failed": {"step": step, "reason": reason, "party": party, "silent": silent, "lost": lost}}


def connect(order: Order, spec: Spec) -> LinkChannel:
    """TLS over every inherited socket, pinned to the certificates from the consents."""
    certificates = {silo: base64.b64decode(der, validate=True) for silo, der in order.link_certificates.items()}
    credentials = LinkCredentials(order.link_key.encode(), certificates[order.me])
    sockets = {peer: socket.socket(fileno=fd) for peer, fd in order.fds.items()}
    participants, timeout_s = spec.participants, spec.limits.timeout_s
    waits = patience(order.me, spec)
    links = open_links(order.me, participants, sockets, credentials, certificates, timeout_s, patience_s=waits)
    session = bytes.fromhex(order.session)
    return LinkChannel(
        order.me,
        participants,
        session,
        links,
        timeout_s,
        uncounted=set(participants) - set(spec.owners),
        patience_s=waits,
        told=may_be_told(spec),
    )


def may_be_told(spec: Spec) -> dict[str, frozenset[str]]:
    """For each participant the tags of the messages that the disclosure has for it, and of those that tell nothing."""
    return {silo: frozenset(SILENT).union(*lines.values()) for silo, lines in messages(spec).items()}


def patience(me: str, spec: Spec) -> dict[str, float]:
    """Seconds to wait for each peer, so that of several who wait for each other the one next to the fault speaks first.

    A data owner waits for the dealer or helper, which waits for nobody, as long as the spec says, and half as long again for
    another owner, which may itself be waiting for the dealer.  The dealer has nothing to do while the owners work: it
    waits for them until the job's time is over; an owner that fails closes its links.  Without either all wait alike.
    """
    if spec.assistant is None:
        return {}
    if me == spec.assistant:
        left_s = (from_text(spec.valid_until) - utcnow()).total_seconds()
        return dict.fromkeys(spec.owners, max(left_s, spec.limits.timeout_s))
    return {owner: 1.5 * spec.limits.timeout_s for owner in spec.owners if owner != me}


def run(order: Order, reporter: Reporter) -> dict[str, Any]:
    """Do the job; returns the last line for the node."""
    spec = parse_spec(order.spec)
    if spec.resumes:
        leftovers.take_turn(Path(order.folder))
    prepare_kernels(spec, order.me, reporter)
    done = perform(
        Task(
            spec=spec,
            me=order.me,
            source=None if order.dataset is None else Source.of(order.dataset),
            rows=0 if order.dataset is None else int(order.dataset["rows"]),
            folder=Path(order.folder),
            tokens=Path(order.tokens),
            session=bytes.fromhex(order.session),
            connect=lambda: connect(order, spec),
            progress=reporter.progress,
            part=order.part,
        )
    )
    channel = done.channel
    cost = {
        "rounds": channel.rounds,
        "bytes_sent": dict(channel.bytes_sent) if spec.sizes_are_mutual else {},
        "seconds": reporter.finish(),
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "randomness": randomness_used(done.used),
    }
    channel.close()
    return {"result": done.result, "items": list(done.items), "cost": cost}


def prepare_kernels(spec: Spec, me: str, reporter: Reporter) -> None:
    """Load the kernels that the job needs; the first job after an installation compiles them, which takes a minute."""
    told = _TellOfCompiling(reporter)
    compiling = logging.getLogger("accord.compile")
    compiling.setLevel(logging.INFO)
    compiling.addHandler(told)
    if spec.computes:
        warm_up()
    if spec.kind in ("vertical.trees", "vertical.score"):
        from vertical.trees import histogram

        histogram.warm_up()
    if spec.randomness == "ot":
        from mpc.ot import products as transfers

        transfers.warm_up()
    if me == spec.dealer:
        return
    from mpc.matching import kernels as matching

    matching.warm_up()
    if spec.align.protocol == "oprf-psi":
        load_sodium()
    if spec.align.protocol == "hidden":
        from mpc.matching import hidden

        hidden.warm_up()
    if me != spec.helper:
        from vertical import batches

        batches.warm_up()


def load_sodium() -> None:
    """Load the binding of libsodium and remove the copy of the library that it leaves in the temporary directory."""
    import rbcl  # noqa: F401 - loading it makes the copy

    Path(sys.modules["rbcl._sodium"].lib_path).unlink(missing_ok=True)


def randomness_used(used: Mapping[str, Usage]) -> dict[str, dict[str, int]]:
    """What an owner used of each kind of correlated randomness, as its 'finished' statement says it."""
    return {kind: {"correlations": usage.count, "words": usage.words} for kind, usage in sorted(used.items())}


def _end_with_the_node() -> None:
    """Standard input ends when the node does, however it dies: nobody would take our result, and a new one may be at it."""
    while os.read(0, 1 << 10):
        pass
    os._exit(1)


def _say_that_we_are_here() -> None:
    """Now and then a line that says nothing else: a worker that hangs, or was stopped, does not say it."""
    while True:
        time.sleep(ALIVE_EVERY_S)
        say({"alive": True})


def main() -> int:
    """Entry point; the outermost loop of the worker process."""
    reporter = Reporter()
    try:
        order = Order.model_validate_json(sys.stdin.readline())
        for beside in (_end_with_the_node, _say_that_we_are_here):
            threading.Thread(target=beside, daemon=True).start()
        say(run(order, reporter))
    except PeerLost as exc:
        say(failed(exc.step, str(exc), exc.party, silent=exc.silent, lost=True))
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
