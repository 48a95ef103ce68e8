"""The area under the ROC curve, without showing anybody a score.

`auc` is exact: rows are put in order (`vertical.ranking`), and concordant pairs and ties are counted.

`quick_auc` takes few rounds, by characteristic functions: for a positive and a negative row, with D the difference of their
scores and |D| < P/2,

    1[D > 0] - 1/2 = sum over odd k of 2/(pi k) sin(2 pi k D / P),

so the AUC needs only the sums over each class of exp(i 2 pi k z / P), which one opened angle per row gives in shares.  The
owner of the label turns the sum over all rows into the classes' sums by adding half a period to its share of every positive
row: that flips the sign of the odd harmonics of those rows.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from mpc.engine import SharedTensor, from_words, reveal, reveal_to, share_from, to_words
from mpc.errors import LocalProtocolError, RemoteProtocolError
from mpc.fourier import SERIES_BITS, FourierTuple, moments
from mpc.session import Session
from mpc.truncation import plan_truncation, truncate_many
from mpc.wire import recv_json, send_json
from vertical.curves import decimal
from vertical.figures import MINIMUM_PER_CLASS
from vertical.ranking import concordance, rank
from vertical.scores import Scores

Floats = npt.NDArray[np.float64]
Words = npt.NDArray[Any]

HARMONICS = 32
"""Odd harmonics in the series; scores whose spread is a fiftieth of their bound or more are resolved to 5e-4 of AUC."""
RATIO_BITS = 24
"""Fractional bits of the classes' mean sines and cosines."""


def auc(session: Session, scores: Scores, y: Floats | None, active: int, *, dealer: bool = True) -> float:
    """Area under the ROC curve, exact, ties counted as one half; rounded to four decimals.

    y: (n,) labels 0/1 at party `active`, None elsewhere.  dealer: whether there is one; without it this is `quick_auc`.

    Reveals: to the owner of the label, the AUC exactly; to the others, four decimals of it.  Nothing about single rows,
        class sizes or score distributions.
    Cost: as `excess_pairs`; then 2 rounds of a few bytes.
    Security: semi-honest owners; the dealer is semi-honest and colludes with nobody.
    Source: Mann and Whitney, Ann. Math. Stat. 1947.
    Raises: LocalProtocolError at the owner of the label if a class has fewer than 10 held-out rows; RemoteProtocolError at
        the others if what it tells them is no area.
    """
    check_classes(y)
    if not dealer:
        return quick_auc(session, scores, y, active)
    excess = excess_pairs(session, scores, y)
    opened = reveal_to(from_words(excess, 0), active, "concordant pairs", tag="evaluate/pairs")
    if y is not None and opened is not None:
        pairs = int(y.sum()) * int(len(y) - y.sum())
        text = decimal(int(opened[0]) + pairs, 2 * pairs)
        for peer in session.peers:
            send_json(session.channel, peer, "evaluate/auc", text)
        return float(text)
    name = session.parties[active]
    stated = recv_json(session.channel, name, "evaluate/auc")
    if not isinstance(stated, str) or stated not in {f"{i / 10_000:.4f}" for i in range(10_001)}:
        raise RemoteProtocolError(name, "evaluate/auc", "states no area of four decimals")
    return float(stated)


def excess_pairs(session: Session, scores: Scores, y: Floats | None) -> Words:
    """A share of 2 U - P N, (1,): by how many pairs of a positive and a negative row more are in order than out of order.

    y: (n,) labels 0/1 at one party, None elsewhere.

    Reveals: nothing; the outcomes of comparisons are opened, and are those of a uniformly random order.
    Cost: as `vertical.ranking.rank` of rows with 2 words, and `vertical.ranking.concordance` of one pair.
    Security: semi-honest owners; the dealer is semi-honest and colludes with nobody.
    Source: Mann and Whitney, Ann. Math. Stat. 1947.
    Raises: as `vertical.ranking.rank`.
    """
    classes = np.zeros((len(scores), 2), dtype=np.uint64)
    if y is not None:
        classes[:, 0], classes[:, 1] = y, 1 - y
    return concordance(session, rank(session, scores, classes), [0], [1])


def check_classes(y: Floats | None) -> None:
    """That each class has rows enough.  Raises: LocalProtocolError at the owner of the label, who knows."""
    if y is not None and min(y.sum(), len(y) - y.sum()) < MINIMUM_PER_CLASS:
        raise LocalProtocolError(f"a class of the label has fewer than {MINIMUM_PER_CLASS} held-out rows")


def quick_auc(session: Session, scores: Scores, y: Floats | None, active: int) -> float:
    """Area under the ROC curve, approximately.

    y: (n,) labels 0/1 at party `active`, None elsewhere.

    Reveals: to every owner, the AUC; nothing about single rows, class sizes or score distributions.
    Cost: 9 rounds; 4 n bytes to every other party for the angles; the dealer sends 32 K n bytes in all, K = 32.
    Security: semi-honest owners; the dealer is semi-honest and colludes with nobody.
    Source: Gil-Pelaez, Biometrika 1951 (inversion of a characteristic function), applied to P(D > 0).
    Raises: LocalProtocolError at the owner of the label if a class has fewer than 10 held-out rows, or if the scores are too
        large or not one a row.
    """
    check_classes(y)
    n, period_bits = len(scores), scores.frac_bits + 2 + math.ceil(math.log2(scores.bound))
    if scores.words.ndim != 1 or not 16 <= period_bits <= 60:
        raise LocalProtocolError(f"scores of up to {scores.bound:g} are too large, or not one a row")
    harmonics = list(range(1, 2 * HARMONICS, 2))
    tickets = session.correlations.plan([FourierTuple(n=n, harmonics=harmonics)] * 2)
    share = scores.words
    flipped = share if y is None else share + (y.astype(np.uint64) << np.uint64(period_bits - 1))
    everyone = moments(session, tickets[0], share, period_bits)
    signed = moments(session, tickets[1], flipped, period_bits)
    means, scale = _class_means(session, everyone, signed, n)
    cos1, sin1, cos0, sin0 = (means[i] for i in range(4))
    product = sin1 * cos0 - cos1 * sin0
    series = np.array([round(2 / (np.pi * k) * 2**RATIO_BITS) for k in harmonics], dtype=np.int64)
    weighted = np.array([np.multiply(to_words(product).view(np.int64), series).sum()]).view(np.uint64)
    (lowered,) = truncate_many(session, session.correlations.plan([plan_truncation(1, RATIO_BITS)]), [weighted])
    inverse = None if y is None else np.array([1 / (y.sum() * (n - y.sum()) * scale * scale)])
    excess = from_words(lowered, RATIO_BITS) * share_from(active, inverse, (1,), RATIO_BITS)
    return round(0.5 + float(reveal(excess, "the area", tag="evaluate/quick")[0]), 4)


def _class_means(session: Session, everyone: Words, signed: Words, n: int) -> tuple[list[SharedTensor], float]:
    """Shares of cos and sin sums over positives, then negatives, each times `scale` (about 1/n), RATIO_BITS bits."""
    positives, negatives = everyone - signed, everyone + signed  # twice the sums
    shift = n.bit_length() + 1 + SERIES_BITS - RATIO_BITS + 10
    factor = round(2.0**shift / (2.0 ** (1 + SERIES_BITS - RATIO_BITS) * n))
    scaled = np.concatenate([positives.reshape(-1), negatives.reshape(-1)]) * np.uint64(factor)
    tickets = session.correlations.plan([plan_truncation(scaled.size, shift)])
    (lowered,) = truncate_many(session, tickets, [scaled])
    scale = factor * 2.0 ** (1 + SERIES_BITS - RATIO_BITS - shift)
    return [from_words(part, RATIO_BITS) for part in np.split(lowered, 4)], scale
