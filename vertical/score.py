"""Predictions from scores that nobody sees: as little of each row's score as its recipients ask for, and nothing else.

From least to most revealing:

    decision     whether the mean is at or above a public threshold; with several classes, which is the most likely
    decile       how many public cut points the mean is at or above
    rounded      the mean to the nearest multiple of a public step, between two public ends
    probability  the mean itself, and so the score, which is the same

The mean is the inverse link of the score, for a logistic model a probability.  The link rises, so the mean is compared with a
cut point by comparing the score with the link of the cut point: exact on the scores' words, without computing the link of
anything secret.  A rounded mean is the number of points half-way between multiples that the score has reached; so many are
compared in two steps, first with every tenth or so, then with those between the two that the score lies between.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt

from mpc.compare import less_than, less_than_zero, plan_less_than, plan_less_than_zero
from mpc.correlations import Correlation, Ticket
from mpc.engine import share_from, to_words
from mpc.errors import LocalProtocolError, Refused, RemoteProtocolError
from mpc.extrema import argmax, plan_argmax
from mpc.ring import decode
from mpc.session import Session
from mpc.wire import recv_json, recv_words, send_json, send_words
from vertical.scores import Scores

Floats = npt.NDArray[np.float64]
Words = npt.NDArray[Any]
Kind = Literal["decision", "decile", "rounded", "probability"]
Link = Literal["logit", "log", "identity", "softmax"]

LARGEST = 1 << 61
"""Words of scores and cut points are smaller, so that no difference of two leaves the signed range."""
DECILES = 9
"""More cut points than this tell as much as a rounded prediction."""
AT_ONCE = 16
"""More cut points than this are compared in two steps."""
MAX_CUTS = 1000
ROWS_AT_ONCE = 1 << 16
TAGS = {
    "decision": "score/decision",
    "class": "score/class",
    "decile": "score/decile",
    "rounded": "score/rounded",
    "probability": "score/probability",
}
"""Of the messages that open a prediction, by what is told of it."""
DIGITS = 12
"""Decimal digits of a rounded mean, so that 0.07 is not 0.07000000000000001."""


def link(name: Link, mean: float) -> float:
    """The score at which the mean has this value; infinite at the ends of the mean's range."""
    if name == "identity":
        return mean
    if name == "log":
        return -math.inf if mean <= 0 else math.log(mean)
    if name == "softmax":
        raise LocalProtocolError("with several classes there is one score for each, and no single cut point")
    if mean <= 0 or mean >= 1:
        return -math.inf if mean <= 0 else math.inf
    return math.log(mean / (1 - mean))


def mean_of(name: Link, score: Floats) -> Floats:
    """The inverse link: (n,) of (n,) scores, or (n, classes) of as many."""
    if name == "identity":
        return score
    if name == "log":
        return np.asarray(np.exp(score))
    if name == "softmax":
        powers = np.exp(score - score.max(axis=1, keepdims=True))
        return np.asarray(powers / powers.sum(axis=1, keepdims=True))
    small = np.exp(-np.abs(score))
    return np.asarray(np.where(score >= 0, 1.0, small) / (1 + small))


@dataclass(frozen=True)
class Output:
    """What recipients are told about each row.

    recipients: places among the owners.  link: from the mean to the score.  cuts: ascending points on the scale of the mean
    that are compared with; one for a decision, none for a probability.  low, step: a rounded mean is low + step * (cut points
    reached).
    """

    kind: Kind
    recipients: tuple[int, ...]
    link: Link = "logit"
    cuts: tuple[float, ...] = ()
    low: float = 0.0
    step: float = 0.01

    def __post_init__(self) -> None:
        if not self.recipients or len(set(self.recipients)) != len(self.recipients):
            raise LocalProtocolError("a prediction has at least one recipient, and each once")
        if not all(math.isfinite(c) for c in self.cuts) or any(a >= b for a, b in pairwise(self.cuts)):
            raise LocalProtocolError("cut points are numbers in ascending order")
        if len(self.cuts) > MAX_CUTS:
            raise LocalProtocolError(f"there may be {MAX_CUTS} cut points, not {len(self.cuts)}")
        if self.link == "softmax" and self.kind not in ("decision", "probability"):
            raise LocalProtocolError(f"with several classes there is no '{self.kind}'")
        wanted = {"decision": self.link != "softmax", "probability": False}.get(self.kind)
        if (wanted is None and not self.cuts) or (wanted is not None and len(self.cuts) != wanted):
            raise LocalProtocolError(f"'{self.kind}' does not go with {len(self.cuts)} cut points")

    @classmethod
    def rounded(
        cls,
        recipients: Sequence[int],
        link: Link = "logit",
        ends: tuple[float, float] = (0.0, 1.0),
        step: float = 0.01,
    ) -> Self:
        """The mean to the nearest multiple of `step` above the lower end, half a step upwards; outside, the nearer end.

        Raises: LocalProtocolError if the step is not a 1,000th of the range or more.
        """
        steps = round((ends[1] - ends[0]) / step) if step > 0 else 0
        if not 1 <= steps <= MAX_CUTS:
            raise LocalProtocolError(f"a range has 1 to {MAX_CUTS} steps, not {steps}")
        cuts = tuple(ends[0] + step * (i + 0.5) for i in range(steps))
        return cls("rounded", tuple(recipients), link, cuts, ends[0], step)

    @property
    def tag(self) -> str:
        """Of the messages that open it: what a Reveal names."""
        return TAGS["class" if self.kind == "decision" and self.link == "softmax" else self.kind]

    @property
    def tells_scores(self) -> bool:
        """Whether it tells so much of the score that equations could be solved with it, exactly or nearly."""
        return self.kind in ("probability", "rounded") or (self.kind == "decile" and len(self.cuts) > DECILES)

    def value(self, reached: int) -> float:
        """What is told about a row that has reached so many cut points."""
        return round(self.low + self.step * reached, DIGITS) if self.kind == "rounded" else float(reached)

    def words(self, frac_bits: int) -> list[int]:
        """The cut points as words of a score: a word is at or above one exactly if the score is."""
        scaled = [link(self.link, cut) * 2.0**frac_bits for cut in self.cuts]
        return [math.ceil(min(max(each, -float(LARGEST)), float(LARGEST))) for each in scaled]


def refuse_solvable(columns: Sequence[int], recipients: Sequence[int], classes: int) -> None:
    """Refuse to open probabilities from which a recipient could solve for another owner's columns.

    columns: how many columns each owner's part of the model reads.  classes: of the label; 2 for a model of one score.
    The probabilities of a row make classes - 1 equations that are linear in the other owner's inputs; somebody who knows
    the model and has no more unknowns than equations solves them.

    Raises: Refused.
    """
    equations = classes - 1
    for owner, count in enumerate(columns):
        if count <= equations and any(recipient != owner for recipient in recipients):
            raise Refused(
                f"an owner has {count} columns in the model and a row's probabilities are {equations} equations, so "
                "whoever knows the model can solve them for its values; ask for a decision or a decile"
            )


def predict(session: Session, scores: Scores, output: Output, columns: int) -> Words | Floats | None:
    """Open to the recipients what `output` says about each row; the others get None.

    scores: ours of n aligned rows; all owners call this at once.  columns: how many columns our part of the model reads.
    Returns decisions, classes and bands as integers from 0, rounded means and probabilities as floats.

    Reveals: to the recipients, for each row what `output` says; to every owner, how many columns each other owner's part
        reads.  What else is opened is uniform.
    Cost: for k cut points, up to AT_ONCE of them, 5 rounds; to every other owner 8 n + 280 k m bytes, m = ceil(n / 64); the
        dealer sends 8 k n + (1864 + 824 k) m in all.  For more, in groups of g = ceil(sqrt(k)), as that with floor(k / g)
        cut points, and 4 rounds and 8 n' + 280 ceil(n' / 64) bytes more, n' = (g - 1) n, and from the dealer 8 n' + 2688
        ceil(n' / 64).  Then to every recipient 1 byte for each row, or 2 for more than 255 cut points.  The most likely
        class as `mpc.extrema.argmax`, then 1 byte; a probability 1 round and 8 bytes for each class.  More than ROWS_AT_ONCE
        rows are compared in pieces, with the rounds of each.
    Security: semi-honest owners; the dealer does not collude.  A score is known to recipients of its probability, and what
        they learn by many different questions about one row adds up.
    Source: comparisons as `mpc.compare`; the refusal for Luo, Wu, Xiao, Ooi, ICDE 2021 (equality solving).
    Raises: Refused if probabilities could be solved for an owner's columns; LocalProtocolError if scores are too large or
        no output of this kind is defined for them; RemoteProtocolError if the owners disagree on the rows.
    """
    classes = scores.words.shape[1] if scores.words.ndim == 2 else 2
    if (scores.words.ndim == 2) != (output.link == "softmax"):
        raise LocalProtocolError(f"scores of shape {scores.words.shape} do not have the link '{output.link}'")
    if scores.bound * 2.0**scores.frac_bits >= LARGEST:
        raise LocalProtocolError(f"scores up to {scores.bound:g} are too large to be compared")
    if not all(0 <= r < len(session.parties) for r in output.recipients):
        raise LocalProtocolError("a recipient is none of the owners")
    counts = agree(session, scores, columns)
    if output.tells_scores:
        refuse_solvable(counts, output.recipients, classes)
    if output.kind == "probability":
        opened = open_to(session, fresh(session, scores.words, scores.frac_bits), output.recipients, output.tag)
        return None if opened is None else mean_of(output.link, decode(opened, scores.frac_bits))
    if output.link == "softmax":
        tickets = session.correlations.plan(plan_argmax(len(scores), classes))
        reached = argmax(session, tickets, scores.words)[1]
    else:
        reached = count_reached(session, scores.words, output.words(scores.frac_bits))
    narrow = np.uint8 if max(len(output.cuts), classes) < 256 else np.uint16
    # the low bits of shares are shares of them
    number = open_to(session, reached.astype(narrow), output.recipients, output.tag)
    if number is None or output.kind != "rounded":
        return number
    return np.round(output.low + output.step * number.astype(np.float64), DIGITS)


def agree(session: Session, scores: Scores, columns: int) -> list[int]:
    """Tell each other the shape of our scores, and how many columns our part reads; returns that of every owner.

    Reveals: to every owner, those numbers.
    Cost: 1 round; less than 100 bytes to every other owner.
    Security: semi-honest owners.
    Source: none; it notices owners who mean different rows.
    Raises: RemoteProtocolError if a peer's scores have another shape or scale.
    """
    mine: dict[str, Any] = {"shape": list(scores.words.shape), "frac_bits": scores.frac_bits, "columns": columns}
    for peer in session.peers:
        send_json(session.channel, peer, "score/shape", mine)
    counts: list[int] = []
    for name in session.parties:
        own = name == session.parties[session.me]
        stated = mine if own else recv_json(session.channel, name, "score/shape", 1 << 10)
        good = isinstance(stated, dict) and set(stated) == set(mine) and type(stated["columns"]) is int
        if not good or (stated["shape"], stated["frac_bits"]) != (mine["shape"], mine["frac_bits"]):
            raise RemoteProtocolError(name, "score/shape", "has scores of other rows than ours")
        counts.append(stated["columns"])
    return counts


def fresh(session: Session, words: Words, frac_bits: int) -> Words:
    """New shares of the same values: uniform but for their sum.  Without it the parts of an owner's own columns would travel.

    Reveals: nothing.
    Cost: nothing is sent.
    Security: semi-honest owners.
    Source: Cramer, Damgard, Ishai, TCC 2005 (pseudorandom sharing of zero).
    """
    nothing = np.zeros(words.shape) if session.me == 0 else None
    return np.asarray(words + to_words(share_from(0, nothing, words.shape, frac_bits)))


def open_to(session: Session, share: Words, recipients: Sequence[int], tag: str) -> Words | None:
    """Open a vector to some of the owners, once the randomness behind it has been found right.

    share: uniform words of any width but for their sum.  tag: what the opening is called, as `Output.tag`.

    Reveals: to the recipients, the values.
    Cost: 1 round; the words' bytes to every recipient from every other owner; and what `Source.settle` has left to do.
    Security: semi-honest owners.
    Source: additive secret sharing.
    """
    session.correlations.settle()
    for recipient in recipients:
        if recipient != session.me:
            send_words(session.channel, session.parties[recipient], tag, share)
    if session.me not in recipients:
        return None
    total = share.copy()
    for peer in session.peers:
        total += recv_words(session.channel, peer, tag, share.shape, share.dtype)
    return total


def count_reached(session: Session, words: Words, cuts: Sequence[int]) -> Words:
    """Shares of how many of the ascending cut points each value is at or above: (n,) words of scale 1.

    words: (n,) of values that are below LARGEST, as are the cut points.

    Reveals: nothing; every opened word is uniform.
    Cost: as `predict` says, without opening.
    Security: semi-honest owners; the dealer does not collude.
    Source: as `mpc.compare`.
    """
    parts = [words[i : i + ROWS_AT_ONCE] for i in range(0, len(words), ROWS_AT_ONCE)]
    plans = [plan_reached(len(part), len(cuts)) for part in parts]
    tickets = iter(session.correlations.plan([request for plan in plans for request in plan]))
    found = [
        reached_planned(session, [next(tickets) for _ in plan], part, cuts)
        for plan, part in zip(plans, parts, strict=True)
    ]
    return np.concatenate([*found, words[:0]])


def plan_reached(n: int, cuts: int) -> list[Correlation]:
    """What `reached_planned` of n words asks of the dealer."""
    if cuts <= AT_ONCE:
        return [*plan_less_than(n, cuts)]
    g = _group(cuts)
    return [*plan_less_than(n, cuts // g), *plan_less_than_zero((g - 1) * n)]


def reached_planned(session: Session, tickets: Sequence[Ticket], words: Words, cuts: Sequence[int]) -> Words:
    """For tickets of `plan_reached(n, len(cuts))`, all n words at once; everything else as `count_reached`."""
    return (_in_one_step if len(cuts) <= AT_ONCE else _in_two_steps)(session, tickets, words, cuts)


def _group(cuts: int) -> int:
    """How many cut points to a group, if they are compared in two steps."""
    return math.isqrt(cuts - 1) + 1


def _not(session: Session, bits: Words) -> Words:
    return np.asarray(np.uint64(session.me == 0) - bits)


def _in_one_step(session: Session, tickets: Sequence[Ticket], x: Words, cuts: Sequence[int]) -> Words:
    reached = _not(session, less_than(session, tickets, x, cuts))
    return np.asarray(reached.sum(axis=0, dtype=np.uint64))


def _in_two_steps(session: Session, tickets: Sequence[Ticket], x: Words, cuts: Sequence[int]) -> Words:
    """Every g-th cut point first; then the g - 1 that follow the last of these that was reached, chosen by its bits."""
    g = _group(len(cuts))
    coarse = _not(session, less_than(session, tickets[:4], x, cuts[g - 1 :: g]))
    groups = len(coarse) + 1
    padded = [*cuts, *[LARGEST] * (groups * g)]  # what is never reached
    table = np.array([padded[j * g : j * g + g - 1] for j in range(groups)], dtype=np.int64)
    chosen = np.zeros((g - 1, len(x)), dtype=np.uint64)
    if session.me == 0:
        chosen += table[0].view(np.uint64)[:, None]
    for reached, step in zip(coarse, np.diff(table, axis=0).view(np.uint64), strict=True):
        chosen += step[:, None] * reached
    fine = _not(session, less_than_zero(session, tickets[4:], np.asarray(x - chosen)))
    return np.asarray(coarse.sum(axis=0, dtype=np.uint64) * np.uint64(g) + fine.sum(axis=0, dtype=np.uint64))
