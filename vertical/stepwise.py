"""Which columns of all owners belong in a linear regression: forward, backward and stepwise selection by p-value, in secret.

All owners' standardised columns and the label make one Gram matrix on shares; after that nothing depends on the number of
rows.  `vertical.sweep` takes columns in and out.  A step opens whether any column is significant, and if so which one, by a
number that its owner has drawn for it; nobody learns its statistics.

A column j outside enters if F_j = g (df) / (RSS - g) is at least the quantile F*(1, df), that is if its gain g is at least
RSS F* / (df + F*); one inside leaves if its loss is below RSS F* / df.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import NormalDist
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from mpc.compare import plan_reveal_less_than, reveal_less_than
from mpc.errors import LocalProtocolError, Refused, RemoteProtocolError
from mpc.rng import fresh_prg
from mpc.session import Session
from mpc.shuffle import permutation_of
from mpc.truncation import plan_truncation, truncate
from mpc.wire import recv_json, send_json
from vertical.columns import joint_gram, plan_joint_gram
from vertical.statistics import FEWEST_ROWS, INPUT_BITS, MAX_COLUMNS, scale_bits, standardised, whole_numbers
from vertical.student import interval
from vertical.sweep import STATE_BITS, TOLERANCE, Sweep

Floats = npt.NDArray[np.float64]
Words = npt.NDArray[Any]
Direction = Literal["forward", "backward", "both"]
Progress = Callable[[int, int], None]
NOISE = 1e-10
"""Of the label's variance: a gain below it is what rounding makes, so a label that is explained wholly ends a selection."""


@dataclass(frozen=True)
class Settings:
    """How to select.

    direction: "forward" from no column, "backward" from all, "both" forward with columns that may leave again.  enter, remove:
    p-values; a column enters below the first and leaves above the second.  most: columns in the model, and half the steps;
    minimum: the fewest rows.
    """

    direction: Direction = "both"
    enter: float = 0.05
    remove: float = 0.10
    most: int = 100
    minimum: int = FEWEST_ROWS

    def __post_init__(self) -> None:
        if self.direction not in ("forward", "backward", "both") or not 1e-9 <= self.enter <= self.remove <= 0.5:
            raise LocalProtocolError(
                "columns enter below a p-value of at most 0.5 and leave above one that is no smaller"
            )
        if self.most < 1 or self.minimum < FEWEST_ROWS:
            raise LocalProtocolError(f"a selection takes {FEWEST_ROWS} rows, and at least one column")


@dataclass(frozen=True)
class Step:
    """One column that entered or left, or that was left aside because it depends on others ("aside").

    owner: whose.  number: how all owners call it, drawn by its owner.  column: its place among ours; None if it is not ours.
    """

    action: Literal["enter", "leave", "aside"]
    owner: int
    number: int
    column: int | None = field(repr=False)


@dataclass(frozen=True)
class Selected:
    """What one owner learns: the steps in order, how many columns of each owner are chosen, and which of ours."""

    steps: tuple[Step, ...]
    counts: tuple[int, ...]
    own: tuple[int, ...] = field(repr=False)


def select(
    session: Session,
    inputs: Floats,
    y: Floats | None,
    settings: Settings,
    progress: Progress = lambda _done, _total: None,
    first: int = 0,
) -> Selected:
    """Choose columns for a linear regression; every owner calls this at once with its own aligned rows.

    inputs: (n, d) numbers, every column varying.  y: (n,) the label at exactly one owner, None at the others.  first:
    number of the first of one matrix for each owner.

    Reveals: to every owner, how many columns every other one has, who has the label, and each step: whether a column enters or
        leaves or is put aside because it depends on those chosen, whose it is, and a number that its owner drew for it.
    Cost: 8 n bytes to every other party for each of our columns, and for the label; then for each step among D columns in all
        about 55 rounds and 8 D^2 + 400 D + 3,000 bytes, with "both" 80 rounds; a backward selection takes in each column first.
    Security: semi-honest owners; the dealer is semi-honest and colludes with nobody.
    Source: Efroymson 1960 (stepwise regression); Goodnight, The American Statistician 1979 (the sweep operator).
    Raises: Refused, at every owner, if there are too few rows; RemoteProtocolError if another owner has other rows or was asked
        for something else; LocalProtocolError if a column or the label does not vary or is not finite.
    """
    X = standardised(inputs, "a column of ours")
    n, d = X.shape
    label = None if y is None else standardised(np.asarray(y)[:, None], "the label")
    if label is not None and len(label) != n:
        raise LocalProtocolError(f"there are {n} rows and {len(label)} labels")
    columns, active = agreed(session, X.shape, y is not None, settings)
    order = permutation_of(fresh_prg().words((d, 2)))
    state = _start(session, columns, active, whole_numbers(X[:, order], n), label, first)
    return Choice(session, settings, n, columns, order, Sweep(session, state)).run(progress)


def agreed(session: Session, shape: tuple[int, int], labelled: bool, settings: Settings) -> tuple[list[int], int]:
    """Make sure that all owners were asked for the same; returns every owner's number of columns, and who has the label.

    shape: of our columns.

    Reveals: to every owner, how many columns every other one has, and who has the label.
    Cost: 1 round; less than 1 KiB to every other party.
    Security: semi-honest owners.
    Source: none; nothing is computed.
    Raises: RemoteProtocolError if another owner states other rows or settings, or not exactly one has a label; Refused, at
        every owner, if there are too few rows.
    """
    asked = [settings.direction, repr(settings.enter), repr(settings.remove), settings.most, settings.minimum]
    mine: dict[str, Any] = {"asked": asked, "rows": shape[0], "columns": shape[1], "label": labelled}
    for peer in session.peers:
        send_json(session.channel, peer, "stepwise/shape", mine)
    stated = []
    for i, name in enumerate(session.parties):
        value = mine if i == session.me else recv_json(session.channel, name, "stepwise/shape", 1 << 10)
        if not isinstance(value, dict) or value.keys() != mine.keys() or value["asked"] != asked:
            raise RemoteProtocolError(name, "stepwise/shape", "was asked for another selection")
        good = type(value["columns"]) is int and 1 <= value["columns"] <= MAX_COLUMNS
        if not good or value["rows"] != shape[0] or type(value["label"]) is not bool:
            raise RemoteProtocolError(name, "stepwise/shape", "states other rows than ours or no columns")
        stated.append(value)
    active = [i for i, value in enumerate(stated) if value["label"]]
    if len(active) != 1:
        raise RemoteProtocolError(session.peers[0], "stepwise/shape", "exactly one owner must have the label")
    columns = [value["columns"] for value in stated]
    least = max(settings.minimum, sum(columns) + 20)
    if shape[0] < least:
        raise Refused(f"a selection among {sum(columns)} columns takes {least} rows")
    return columns, active[0]


def _start(
    session: Session, columns: Sequence[int], active: int, words: Words, label: Floats | None, first: int
) -> Words:
    """Shares of the correlations of all columns and the label, the label last."""
    n, D = len(words), sum(columns)
    widths = [d + (i == active) for i, d in enumerate(columns)]
    if label is not None:
        words = np.column_stack([words, whole_numbers(label, n)])
    gram = plan_joint_gram(n, widths, first)
    lower = plan_truncation((D + 1) ** 2, 2 * INPUT_BITS + scale_bits(n) - STATE_BITS)
    tickets = session.correlations.plan([*gram, lower])
    G = joint_gram(session, tickets[:-1], words, widths, first)
    place = sum(widths[: active + 1]) - 1
    order = [*(i for i in range(D + 1) if i != place), place]
    return truncate(session, np.ascontiguousarray(G[np.ix_(order, order)]).reshape(-1), tickets[-1]).reshape(
        D + 1, D + 1
    )


@dataclass
class Choice:
    """A selection on its way.

    order: our columns by public number.  unit: the gain that is a chi-square of 1, None if gains are tested by F.  aside:
    columns that depend on others.
    """

    session: Session
    settings: Settings
    n: int
    columns: list[int]
    order: npt.NDArray[np.int64]
    sweep: Sweep
    unit: float | None = None
    steps: list[Step] = field(default_factory=list)
    aside: set[int] = field(default_factory=set)

    def run(self, progress: Progress) -> Selected:
        """All steps."""
        if self.settings.direction == "backward":
            self.fill()
        total = 2 * self.settings.most
        for done in range(total):
            progress(done, total)
            if not self.step():
                break
        progress(total, total)
        return self.selected()

    def fill(self) -> None:
        """Take in every column that does not depend on those before."""
        for column in range(sum(self.columns)):
            tickets = self.session.correlations.plan(plan_reveal_less_than(1, 1))
            self.session.correlations.settle()
            tolerance = self.sweep.state[column, column : column + 1]
            least = round(TOLERANCE * 2**STATE_BITS)
            if reveal_less_than(self.session, tickets, tolerance, (least,), "stepwise/aside")[0, 0]:
                self._note("aside", column)
                continue
            self._enter(column, self.sweep.gains([column])[1])
        self.steps = [step for step in self.steps if step.action == "aside"]

    def step(self) -> bool:
        """One column out, or else one in; whether there was one."""
        if self.settings.direction != "forward" and self._leave():
            return True
        return self.settings.direction != "backward" and self._join()

    def _leave(self) -> bool:
        sweep = self.sweep
        if not sweep.inside:
            return False
        losses, inverse = sweep.losses()
        least, place = sweep.best(losses, smallest=True)
        freedom = self.n - 1 - len(sweep.inside)
        if not sweep.below(least, *self._border(self.settings.remove, freedom, 0.0)):
            return False
        at = self._shown(place, len(losses))
        column = sweep.inside[at]
        self.sweep = sweep.turned(column, inverse[at : at + 1])
        self._note("leave", column)
        return True

    def _join(self) -> bool:
        sweep = self.sweep
        left = [c for c in range(sum(self.columns)) if c not in sweep.inside and c not in self.aside]
        if not left or len(sweep.inside) >= self.settings.most:
            return False
        gains, inverse = sweep.gains(left)
        most, place = sweep.best(gains)
        freedom = self.n - 2 - len(sweep.inside)
        if sweep.below(most, *self._border(self.settings.enter, freedom, 1.0)):
            return False
        at = self._shown(place, len(gains))
        self._enter(left[at], inverse[at : at + 1])
        return True

    def _border(self, p: float, freedom: int, entering: float) -> tuple[float, float]:
        """The gain at a p-value, as a part of the residual sum of squares and an amount."""
        if self.unit is not None:
            return 0.0, self.unit * NormalDist().inv_cdf(1 - p / 2) ** 2 + NOISE
        critical = interval(1 - p, freedom) ** 2
        return critical / (freedom + entering * critical), NOISE

    def _enter(self, column: int, inverse: Words) -> None:
        """Take a column in, unless it makes another one's inflation factor too large."""
        after = self.sweep.turned(column, inverse)
        if after.inflated():
            self._note("aside", column)
        else:
            self.sweep = after
            self._note("enter", column)

    def _shown(self, place: Words, count: int) -> int:
        """Open which column it is."""
        self.session.correlations.settle()
        at = int(self.session.open_words("stepwise/column", place)[0])
        if at >= count:
            raise RemoteProtocolError(self.session.peers[0], "stepwise/column", "there is no such column")
        return at

    def _note(self, action: Literal["enter", "leave", "aside"], column: int) -> None:
        if action == "aside":
            self.aside.add(column)
        ends = np.cumsum([0, *self.columns])
        owner = int(np.searchsorted(ends, column, side="right")) - 1
        number = column - int(ends[owner])
        own = int(self.order[number]) if owner == self.session.me else None
        self.steps.append(Step(action, owner, number, own))

    def selected(self) -> Selected:
        """What came of it."""
        self.session.correlations.settle()
        ends = np.cumsum([0, *self.columns])
        inside = np.array(self.sweep.inside, dtype=np.int64)
        counts = tuple(int(((inside >= a) & (inside < b)).sum()) for a, b in pairwise(ends))
        me = self.session.me
        mine = inside[(inside >= ends[me]) & (inside < ends[me + 1])] - ends[me]
        return Selected(tuple(self.steps), counts, tuple(sorted(self.order[mine].tolist())))
