"""How good a score is, without showing anybody a score.

AUC by characteristic functions: for a positive and a negative row, with D the difference of their scores and |D| < P/2,

    1[D > 0] - 1/2 = sum over odd k of 2/(pi k) sin(2 pi k D / P),

so the AUC needs only the sums over each class of exp(i 2 pi k z / P), which one opened angle per row gives in shares.  The
owner of the label turns the sum over all rows into the classes' sums by adding half a period to its share of every positive
row: that flips the sign of the odd harmonics of those rows.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from mpc.engine import SharedTensor, from_words, reveal, share_from, to_words
from mpc.errors import LocalProtocolError
from mpc.fourier import SERIES_BITS, FourierTuple, moments
from mpc.ring import encode
from mpc.session import Session
from mpc.truncation import plan_truncation, truncate_many

Floats = npt.NDArray[np.float64]
Words = npt.NDArray[Any]

HARMONICS = 32
"""Odd harmonics in the series; scores spread by 0.3 or more are resolved to 5e-4 of AUC."""
PERIOD_UNITS = 40
RATIO_BITS = 24
"""Fractional bits of the classes' mean sines and cosines."""
MINIMUM_PER_CLASS = 10


def auc(session: Session, score: Floats, y: Floats | None, active: int, period: int) -> float:
    """Area under the ROC curve of a score whose parts the owners hold.

    score: (n,) our additive part of each row's score, at most period/(4 owners) in absolute value.  y: (n,) labels 0/1 at
    party `active`, None elsewhere.

    Reveals: to every owner, the AUC; nothing about single rows, class sizes or score distributions.
    Cost: 9 rounds; 4 n bytes to every other party for the angles; the dealer sends 32 K n bytes in all, K = 32.
    Security: semi-honest owners; the dealer is semi-honest and colludes with nobody.
    Source: Gil-Pelaez, Biometrika 1951 (inversion of a characteristic function), applied to P(D > 0).
    Raises: LocalProtocolError at the owner of the label if a class has fewer than 10 held-out rows.
    """
    n = len(score)
    if y is not None and min(y.sum(), n - y.sum()) < MINIMUM_PER_CLASS:
        raise LocalProtocolError(f"a class of the label has fewer than {MINIMUM_PER_CLASS} held-out rows")
    harmonics = list(range(1, 2 * HARMONICS, 2))
    tickets = session.correlations.plan([FourierTuple(n=n, harmonics=harmonics)] * 2)
    share = encode(score * (2.0**PERIOD_UNITS / period), 0)
    flipped = share if y is None else share + (y.astype(np.uint64) << np.uint64(PERIOD_UNITS - 1))
    everyone = moments(session, tickets[0], share, PERIOD_UNITS)
    signed = moments(session, tickets[1], flipped, PERIOD_UNITS)
    means, scale = _class_means(session, everyone, signed, n)
    cos1, sin1, cos0, sin0 = (means[i] for i in range(4))
    product = sin1 * cos0 - cos1 * sin0
    series = np.array([round(2 / (np.pi * k) * 2**RATIO_BITS) for k in harmonics], dtype=np.int64)
    weighted = np.array([np.multiply(to_words(product).view(np.int64), series).sum()]).view(np.uint64)
    (lowered,) = truncate_many(session, session.correlations.plan([plan_truncation(1, RATIO_BITS)]), [weighted])
    inverse = None if y is None else np.array([1 / (y.sum() * (n - y.sum()) * scale * scale)])
    excess = from_words(lowered, RATIO_BITS) * share_from(active, inverse, (1,), RATIO_BITS)
    session.correlations.settle()
    return round(0.5 + float(reveal(excess)[0]), 4)


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
