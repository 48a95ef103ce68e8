"""What an evaluation is asked for, how owners make sure that they were asked for the same, and how results are opened."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from mpc.engine import share_from, to_words
from mpc.errors import LocalProtocolError, RemoteProtocolError
from mpc.session import Session
from mpc.wire import recv_json, recv_words, send_json, send_words
from vertical.curves import cuts
from vertical.losses import FAMILIES, POWERS
from vertical.ranking import MAX_ROWS
from vertical.scores import FRAC_BITS
from vertical.segments import Group

Words = npt.NDArray[Any]
FIGURES = {
    "logistic": ("auc", "ks", "gains", "curves", "calibration", "confusion", "loss"),
    "multinomial": ("accuracy", "auc", "loss"),
    **dict.fromkeys(FAMILIES, ("gains", "calibration", "loss")),
}
"""By family of model, the figures that can be wanted."""
ORDERED = frozenset({"auc", "ks", "gains", "curves", "calibration"})
"""Those that need rows in order, and so a shuffle, for which there must be a dealer; but see `Settings.dealer`."""
MINIMUM_PER_CLASS = 10
MINIMUM_PER_BIN = 20
MAX_THRESHOLDS = 20
THRESHOLD_GAP = 0.01
"""Thresholds nearer to each other would count few rows between them, down to a single one."""
MAX_BINS = 100


@dataclass(frozen=True)
class Settings:
    """What to compute.

    family: of the model.  power: of the variance, for tweedie.  wanted: names of figures; empty for all of the family.
    bins: of the gains and calibration tables; points: of the curves; see `places`.  thresholds: probabilities; the first
    one also decides who is selected in tables by group.  minimum: positives, and negatives, that a group must have to be
    shown.  dealer: whether there is one.  Without it there is no shuffle: figures of `ORDERED` are left out, but for the area
    of a classifier of two classes, which is then that of `vertical.evaluate.quick_auc`.
    """

    family: str = "logistic"
    power: float = 1.5
    wanted: tuple[str, ...] = ()
    bins: int = 10
    points: int = 20
    thresholds: tuple[str, ...] = ("0.5",)
    minimum: int = MINIMUM_PER_CLASS
    dealer: bool = True

    def __post_init__(self) -> None:
        if self.family not in FIGURES or (self.family == "tweedie" and not POWERS[0] <= self.power <= POWERS[1]):
            raise LocalProtocolError(f"there is no evaluation of the family '{self.family}' with power {self.power:g}")
        if not set(self.wanted) <= set(FIGURES[self.family]):
            raise LocalProtocolError(
                f"of the family {self.family} can be wanted: {', '.join(FIGURES[self.family])}; not {self.wanted}"
            )
        if not self.dealer and set(self.wanted) & ORDERED - {"auc"}:
            raise LocalProtocolError(f"without a dealer there is none of {', '.join(sorted(ORDERED - {'auc'}))}")
        if not 1 <= self.bins <= MAX_BINS or not 1 <= self.points <= MAX_BINS:
            raise LocalProtocolError(f"a table has 1 to {MAX_BINS} bins")
        if not 1 <= len(self.thresholds) <= MAX_THRESHOLDS or self.minimum < MINIMUM_PER_CLASS:
            raise LocalProtocolError(
                f"there are 1 to {MAX_THRESHOLDS} thresholds, and a group has {MINIMUM_PER_CLASS} of each class or more"
            )
        self.words()

    def wants(self, *names: str) -> bool:
        """Whether any of these figures is wanted, and can be had."""
        chosen = set(self.wanted or FIGURES[self.family])
        return bool(set(names) & (chosen if self.dealer else chosen - ORDERED))

    @property
    def quick(self) -> bool:
        """Whether the area is to be had without a shuffle."""
        return not self.dealer and self.family == "logistic" and "auc" in (self.wanted or FIGURES[self.family])

    def words(self) -> list[int]:
        """The thresholds as scores with FRAC_BITS fractional bits.

        Raises: LocalProtocolError if one is not in (0, 1), or two are too near.
        """
        out, seen = [], []
        for text in self.thresholds:
            try:
                p = float(text)
            except ValueError:
                p = 0.0
            if not 1e-6 <= p <= 1 - 1e-6:
                raise LocalProtocolError(f"a threshold is a probability between 0 and 1, not '{text}'")
            seen.append(p)
            out.append(round(math.log(p / (1 - p)) * 2**FRAC_BITS))
        seen.sort()
        if any(b - a < THRESHOLD_GAP - 1e-9 for a, b in pairwise(seen)):
            raise LocalProtocolError(f"thresholds must be at least {THRESHOLD_GAP} apart")
        return out


def places(n: int, settings: Settings) -> tuple[list[int], list[int]]:
    """How many rows there are up to the end of each bin, and up to each point of a curve.

    There are fewer of both if fewer than MINIMUM_PER_BIN rows would lie between two of them; and where both are wanted, points
    are a multiple of bins, so that the ends of bins are among them: between other ones there could be very few rows.
    """
    most = max(1, n // MINIMUM_PER_BIN)
    bins = min(settings.bins, most)
    step = bins if settings.wants("gains", "calibration") else 1
    points = max(1, min(settings.points, most) // step) * step
    return cuts(n, bins), cuts(n, points)


@dataclass
class Opening:
    """Shares of results under names, opened in one round."""

    parts: dict[str, tuple[str, Words]] = field(default_factory=dict, repr=False)

    def add(self, name: str, words: Words, tag: str) -> None:
        """Put an array of shares in, to be opened.  tag: of the message, for a Reveal to name."""
        self.parts[name] = (tag, np.asarray(words))

    def open(self, session: Session) -> dict[str, Any]:
        """The results, nested lists of whole numbers, once the randomness behind them has been found right.

        Reveals: to every owner, the results.
        Cost: 1 round, a message for each array; 8 bytes to every other party for each; and what `Source.settle` has left to do.
        Security: semi-honest owners.  Results are shared afresh first, as some are sums of what each owner knows: with three
        owners a share would otherwise tell more than the sum.
        Source: additive secret sharing; Cramer, Damgard, Ishai, TCC 2005 (a sharing of zero without a message).
        Raises: as `Source.settle`.
        """
        if not self.parts:
            return {}
        session.correlations.settle()
        arrays = [words for _, words in self.parts.values()]
        flat = np.concatenate([a.reshape(-1) for a in arrays])
        flat = flat + to_words(share_from(0, np.zeros(flat.shape) if session.me == 0 else None, flat.shape, 1))
        pieces = np.split(flat, np.cumsum([a.size for a in arrays])[:-1])
        tagged = [(tag, piece) for (tag, _), piece in zip(self.parts.values(), pieces, strict=True)]
        for tag, piece in tagged:
            for peer in session.peers:
                send_words(session.channel, peer, tag, piece)
        for tag, piece in tagged:
            for peer in session.peers:
                piece += recv_words(session.channel, peer, tag, piece.shape, piece.dtype)
        return {
            name: piece.view(np.int64).reshape(a.shape).tolist()
            for name, a, piece in zip(self.parts, arrays, pieces, strict=True)
        }


def agree(
    session: Session, rows: int, active: int, settings: Settings, groups: Sequence[Group], own: int | None
) -> int:
    """Exchange what was asked for, and one number of the owner of the label, which is returned.

    own: that number at its owner, None at the others.

    Reveals: to every owner, that number.
    Cost: 1 round of a few hundred bytes.
    Security: semi-honest owners.
    Source: no paper; every owner compares with its own request.
    Raises: RemoteProtocolError if another owner was asked for something else, or not exactly `active` has the label.
    """
    if not 2 <= rows <= MAX_ROWS or (own is not None) != (session.me == active):
        raise LocalProtocolError(f"an evaluation has 2 to {MAX_ROWS} rows, and the label is at owner {active}")
    asked = {"rows": rows, "active": active, **asdict(settings), "groups": [[g.name, g.owner] for g in groups]}
    asked["power"] = f"{settings.power:g}"
    asked["wanted"], asked["thresholds"] = sorted(settings.wanted), list(settings.thresholds)
    for peer in session.peers:
        send_json(session.channel, peer, "metrics/request", {"asked": asked, "own": own})
    number = own
    for i, name in enumerate(session.parties):
        if i == session.me:
            continue
        stated = recv_json(session.channel, name, "metrics/request")
        if not isinstance(stated, dict) or stated.get("asked") != asked:
            raise RemoteProtocolError(name, "metrics/request", "was asked for other figures or has other rows")
        if (i == active) != (type(stated.get("own")) is int):
            raise RemoteProtocolError(name, "metrics/request", f"the label is at {session.parties[active]} alone")
        number = stated["own"] if i == active else number
    if number is None or not 0 <= number <= rows:
        raise RemoteProtocolError(session.parties[active], "metrics/request", "states an impossible number of rows")
    return number
