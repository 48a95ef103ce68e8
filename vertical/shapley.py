"""What each owner's columns add to the area under the ROC curve: Shapley values over owners, without training again.

The value v(S) of a set S of owners is the area over the held-out rows if the owners outside S are absent.  An absent owner
puts in, for each row, what it knows of another row: it turns its rows round by an offset that it draws itself, the same for all
sets.  So its columns keep their distribution and lose what they say of the row.  The model stays as it is.  With n owners

    phi_i = sum over S without i of |S|! (n - |S| - 1)! / n! (v(S + i) - v(S)),        sum of phi_i = v(all) - v(none).

Areas have one denominator, the number of pairs of a positive and a negative row, so n! phi_i is a sum of shared numerators with
whole weights, and the value of no set is opened.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from math import factorial

import numpy as np
import numpy.typing as npt

from mpc.engine import from_words, reveal_to
from mpc.errors import LocalProtocolError, RemoteProtocolError
from mpc.rng import fresh_prg
from mpc.session import Session
from mpc.wire import recv_json, send_json
from vertical.curves import decimal
from vertical.evaluate import check_classes, excess_pairs
from vertical.scores import Scores

Floats = npt.NDArray[np.float64]
Places = npt.NDArray[np.int64]
Score = Callable[[Places], Scores]
"""Shares of the scores of the held-out rows, with the columns of this owner taken from these places among them."""

MOST_OWNERS = 4
"""Owners whose sets are all looked at: with n owners there are 2^n sorts."""
_VALUE = re.compile(r"-?(0\.\d{4}|1\.0000)")


def turned(n: int) -> Places:
    """The places 0 ... n - 1, turned round by 1 to n - 1, drawn uniformly (up to n / 2^64); nobody else learns by how many."""
    return np.roll(np.arange(n), 1 + int(fresh_prg().words(1)[0]) % max(n - 1, 1))


def shapley(session: Session, score: Score, absent: Places, y: Floats | None, active: int) -> tuple[str, ...]:
    """For each owner what its columns add to the area, ties counted as one half; rounded to four decimals.

    score: of a model of two classes; all owners call this at once with their part of one model.  absent: (n,) places from which
    our columns are taken while we are absent; see `turned`.  y: (n,) labels 0/1 at party `active`, None elsewhere.

    Reveals: to the owner of the label, the values exactly; to the others, four decimals of them.  Nothing about single sets
        of owners or rows.
    Cost: for k owners 2^k times what `score` and `vertical.evaluate.excess_pairs` cost; then 2 rounds of a few bytes.
    Security: semi-honest owners; the dealer is semi-honest and colludes with nobody.
    Source: Shapley, Contributions to the Theory of Games II, 1953; Lundberg and Lee, NIPS 2017 (values of a model's inputs);
        Covert, Lundberg and Lee, JMLR 2021 (removal by the marginal distribution, of a model's performance: SAGE).
    Raises: LocalProtocolError if there are more than MOST_OWNERS owners, or, at the owner of the label, if a class has fewer
        than 10 held-out rows; RemoteProtocolError at the others if what it tells them is no values.
    """
    owners = len(session.parties)
    if owners > MOST_OWNERS:
        raise LocalProtocolError(f"a contribution is computed for up to {MOST_OWNERS} owners, got {owners}")
    check_classes(y)
    present = np.arange(len(absent))
    excess = [
        excess_pairs(session, score(present if coalition >> session.me & 1 else absent), y)
        for coalition in range(1 << owners)
    ]
    sums = weights(owners).astype(np.uint64) @ np.concatenate(excess)
    opened = reveal_to(from_words(sums, 0), active, "contributions", tag="contribution/exact")
    if y is not None and opened is not None:
        pairs = int(y.sum()) * int(len(y) - y.sum())
        values = tuple(decimal(int(value), 2 * pairs * factorial(owners)) for value in opened)
        for peer in session.peers:
            send_json(session.channel, peer, "contribution/told", list(values))
        return values
    name = session.parties[active]
    stated = recv_json(session.channel, name, "contribution/told")
    if not isinstance(stated, list) or len(stated) != owners:
        raise RemoteProtocolError(name, "contribution/told", f"states no {owners} contributions")
    if not all(isinstance(value, str) and _VALUE.fullmatch(value) for value in stated):
        raise RemoteProtocolError(name, "contribution/told", "states no contributions of four decimals")
    return tuple(stated)


def weights(owners: int) -> npt.NDArray[np.int64]:
    """By how much the value of each set of owners counts in n! phi_i: (n, 2^n).

    Bit j of a set's number says whether owner j is in it.
    """
    out = np.zeros((owners, 1 << owners), dtype=np.int64)
    for i in range(owners):
        for without in range(1 << owners):
            if not without >> i & 1:
                others = without.bit_count()
                out[i, without | 1 << i] = factorial(others) * factorial(owners - others - 1)
                out[i, without] = -out[i, without | 1 << i]
    return out
