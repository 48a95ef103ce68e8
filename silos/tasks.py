"""What a worker does for each kind of job: from the spec and the silo's rows to the part that is released to it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mpc.correlations import Usage
from mpc.dealer import run_dealer
from mpc.errors import LocalProtocolError
from silos.catalogue import verify_unchanged
from silos.inputs import read_identifiers
from silos.links import LinkChannel
from silos.spec import Match, Measure, Score, Spec, Statistics, Training
from silos.spec_parts import Party
from silos.tables import Source
from vertical.align import Identifiers, Terms
from vertical.batches import Items

Progress = Callable[[str, int, int], None]
Connect = Callable[[], LinkChannel]


@dataclass(frozen=True)
class Task:
    """One silo's part in one job.

    source: its data set, None for an assistant.  rows: about how many it has.  folder: a directory of the job's own, for
    what does not fit into memory and for what is released as a file.  tokens: a directory of the silo's, for those that
    are kept between jobs.  connect: opens the links; data is read first, so that nobody waits for it.  part: our part of the
    model that a job predicts with.
    """

    spec: Spec
    me: str
    source: Source | None
    rows: int
    folder: Path
    tokens: Path
    session: bytes = field(repr=False)
    connect: Connect = field(repr=False)
    progress: Progress = field(repr=False)
    part: Mapping[str, Any] | None = field(default=None, repr=False)

    @property
    def party(self) -> Party:
        """Our part of the spec.  Raises: LocalProtocolError if we have none."""
        party = self.spec.party(self.me)
        if party is None or self.source is None:
            raise LocalProtocolError(f"{self.me} has no data set for this job")
        return party

    @property
    def data(self) -> Source:
        """Our data set.  Raises: LocalProtocolError if we have none."""
        if self.source is None:
            raise LocalProtocolError(f"{self.me} has no data set for this job")
        return self.source

    @property
    def keys(self) -> tuple[tuple[str, str | None], ...]:
        """Rule and region of each key."""
        return tuple((key.rule, key.region) for key in self.spec.align.keys)

    @property
    def terms(self) -> Terms:
        """How rows are matched."""
        align = self.spec.align
        return Terms(
            owners=self.spec.owners,
            me=self.spec.owners.index(self.me),
            protocol=align.protocol,
            keys=self.keys,
            duplicates=align.duplicates,
            minimum=align.minimum_matches,
            helper=self.spec.helper,
        )

    def identifiers(self) -> tuple[Identifiers, list[Items]]:
        """Our identifiers, all in memory."""
        own = Identifiers(self.keys)
        found = [items for batch in read_identifiers(self.data, self.party.keys, own, self.folder) for items in batch]
        return own, found

    def check_unchanged(self) -> None:
        """The data must still be what the consent commits to.

        Called after it was read: whatever changed before or during the reading is noticed, and what changes later does
        not matter.  Raises: CatalogueError.
        """
        verify_unchanged(self.data, since="the consent", scratch=self.folder)


@dataclass(frozen=True)
class Done:
    """What a task comes to.

    result: what is released to this silo, None for an assistant.  items: what that is called in the spec.  used: correlated
    randomness, by kind.  files: released files in the task's folder.
    """

    channel: LinkChannel
    result: dict[str, Any] | None = None
    items: tuple[str, ...] = ()
    used: Mapping[str, Usage] = field(default_factory=dict)


def perform(task: Task) -> Done:
    """Do a silo's part of a job.

    Raises: LocalProtocolError, Refused, RemoteProtocolError and PeerLost, CatalogueError.
    """
    if task.me in (task.spec.dealer, task.spec.helper):
        return _assist(task)
    for kind, work in _TASKS.items():
        if isinstance(task.spec, kind):
            return work(task)
    raise LocalProtocolError(f"there is nothing to do for a job of kind '{task.spec.kind}'")


def _assist(task: Task) -> Done:
    channel = task.connect()
    if task.me == task.spec.dealer:
        task.progress("deal", 0, 1)
        run_dealer(channel, task.spec.owners)
        task.progress("deal", 1, 1)
    else:
        from mpc.delegated.protocol import assist

        assist(channel, task.spec.owners, lambda done, total: task.progress("align", done, total))
    return Done(channel)


def _train(task: Task) -> Done:
    from silos.training import train

    return train(task)


def _statistics(task: Task) -> Done:
    from silos.statistics import examine

    return examine(task)


def _score(task: Task) -> Done:
    from silos.scoring import score

    return score(task)


def _match(task: Task) -> Done:
    from silos.match import match

    return match(task)


def _measure(task: Task) -> Done:
    from silos.measure import measure

    return measure(task)


_TASKS: Mapping[type[Spec], Callable[[Task], Done]] = {
    Training: _train,
    Statistics: _statistics,
    Score: _score,
    Match: _match,
    Measure: _measure,
}
