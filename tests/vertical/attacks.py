"""What an owner of a job sees of a run, and attackers that try to make something of it.

The attackers know more than an owner would: a quarter of the labels to learn from, and which message belongs to which rows.
They are given all that an owner receives, what is opened, and what it draws itself or is dealt.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.stats import chi2
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import roc_auc_score

from mpc.correlations import Correlation, Ticket
from mpc.dealer import Correlations, run_dealer
from mpc.engine import bind
from mpc.session import Session
from mpc.wire import Kind
from tests.harness import Run, run_parties
from tests.mpc.transcripts import OPENED, XOR, words_of
from tests.vertical.helpers import NAMES

ACTIVE, PASSIVE = NAMES[:2]
"""The owner of the label, and the one who attacks."""


class Diary(Correlations):
    """An owner's randomness, of which a copy is kept."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.kept: list[tuple[Correlation, list[np.ndarray]]] = []

    def _draws(self, ticket: Ticket) -> list[np.ndarray]:
        return self._keep(ticket, super()._draws(ticket))

    def _shares(self, ticket: Ticket) -> list[np.ndarray]:
        return self._keep(ticket, super()._shares(ticket))

    def _keep(self, ticket: Ticket, words: list[np.ndarray]) -> list[np.ndarray]:
        self.kept.append((ticket.request, [each.copy() for each in words]))
        return words


@dataclass
class Seen:
    """A run of two owners and a dealer, and what each owner drew and was dealt."""

    run: Run
    diaries: dict[str, Diary] = field(default_factory=dict)

    def received(self, *tags: str) -> list[np.ndarray]:
        """The words of every message that the passive owner was sent by the active one, or of those under some tags."""
        return [
            words_of(m)
            for m in self.run.transcript
            if (m.sender, m.receiver) == (ACTIVE, PASSIVE) and m.kind != Kind.JSON and m.size
            if not tags or m.tag in tags
        ]

    def everything(self) -> list[np.ndarray]:
        """What the passive owner was sent, what was opened, what it drew and what it was dealt (its own shares)."""
        drawn = [words for _, pieces in self.diaries[PASSIVE].kept for words in pieces]
        return [*self.received(), *(words for _, words in opened(self.run)), *drawn]


def opened(run: Run) -> list[tuple[str, np.ndarray]]:
    """What two owners opened under a mask in a run: tag and words."""
    out = []
    for tag, how in OPENED.items():
        sides = [
            [words_of(m) for m in run.transcript if m.tag == tag and m.sender == name] for name in (ACTIVE, PASSIVE)
        ]
        for one, other in zip(*sides, strict=True):
            out.append((tag, one ^ other if how == XOR else one + other))
    return out


def watch(bodies: Sequence[Callable[[Session], Any]]) -> Seen:
    """Run one function per owner with a dealer, and keep what every owner sees."""
    seen = Seen(Run())

    def party(me: int) -> Callable[[Any], Any]:
        def body(channel: Any) -> Any:
            diary = seen.diaries[NAMES[me]] = Diary(channel, "dealer", me, len(bodies))
            session = Session(channel, NAMES[: len(bodies)], me, diary)
            with bind(session):
                result = bodies[me](session)
            diary.close()
            return result

        return body

    parties = {NAMES[i]: party(i) for i in range(len(bodies))}
    seen.run = run_parties({**parties, "dealer": lambda channel: run_dealer(channel, NAMES[: len(bodies)])})
    return seen


# --- labels from what belongs to rows ---


def by_row(arrays: Sequence[np.ndarray], n: int) -> np.ndarray:
    """(n, columns) numbers: every array that has one word, several, or some bits for each row.

    What is (k, n) looks the same as what is (n, k) once it is flat, so both readings are kept.
    """
    columns = []
    for words in arrays:
        flat = words.reshape(-1)
        k = flat.size // n
        if k and flat.size == n * k:
            scaled = flat.astype(np.float32)
            columns.append(scaled.reshape(n, k) if words.ndim == 2 and len(words) == n else scaled.reshape(k, n).T)
            if words.ndim == 1 and k > 1:
                columns.append(scaled.reshape(n, k))
        elif flat.nbytes * 8 % n == 0 and flat.nbytes * 8 >= n:
            packed = np.ascontiguousarray(flat).view(np.uint8)
            orders = [np.unpackbits(packed, bitorder="little"), np.unpackbits(packed)]
            columns += [bits.reshape(-1, n).T.astype(np.float32) for bits in orders]
    return np.hstack(columns) if columns else np.empty((n, 0), dtype=np.float32)


def learned_auc(columns: np.ndarray, y: np.ndarray) -> float:
    """How well labels are guessed by an attacker who has learned from a quarter of them; on the other rows."""
    known = len(y) // 4
    model = HistGradientBoostingClassifier(max_iter=25, max_bins=32, random_state=0)
    model.fit(columns[:known], y[:known])
    return float(roc_auc_score(y[known:], model.predict_proba(columns[known:])[:, 1]))


def deviation(y: np.ndarray) -> float:
    """Standard deviation of the AUC of guesses that know nothing, for these labels (Mann and Whitney)."""
    ones = float(y.sum())
    zeros = len(y) - ones
    return float(np.sqrt((ones + zeros + 1) / (12 * ones * zeros)))


def labels_from_gradients(X: np.ndarray, gradients: Sequence[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """Guesses of labels from gradients X^T (p - y) of some rows each: the smallest residuals that make them."""
    guess = np.zeros(len(X))
    for rows, gradient in gradients:
        guess[rows] = -np.linalg.lstsq(X[rows].T, gradient, rcond=None)[0]
    return guess


def gradients_in_the_clear(
    X: np.ndarray, Z: np.ndarray, y: np.ndarray, batch: int
) -> list[tuple[np.ndarray, np.ndarray]]:
    """What the owner of X is shown by a logistic regression that protects all but its gradient of every batch."""
    w, v, bias, shown = np.zeros(X.shape[1]), np.zeros(Z.shape[1]), 0.0, []
    for rows in np.array_split(np.arange(len(y)), len(y) // batch):
        residual = 1 / (1 + np.exp(-(X[rows] @ w + Z[rows] @ v + bias))) - y[rows]
        shown.append((rows, X[rows].T @ residual))
        w, v, bias = w - 0.02 * shown[-1][1], v - 0.02 * (Z[rows].T @ residual), bias - 0.02 * residual.sum()
    return shown


def norm_and_direction(gradients: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """AUC of two attacks on gradients of rows, (n, width): by their length, and by the angle with one known positive's.

    Source: Li et al., "Label leakage and protection in two-party split learning", ICLR 2022.
    """
    norms = np.linalg.norm(gradients, axis=1)
    known = gradients[np.flatnonzero(y == 1)[0]]
    cosines = gradients @ known / np.maximum(norms, 1e-300)
    return float(roc_auc_score(y, norms)), float(roc_auc_score(y, cosines))


# --- uniform words ---

CELLS = 64


def p_values(parts: Sequence[tuple[str, np.ndarray]]) -> list[tuple[float, str]]:
    """Probability of so uneven a distribution over 64 cells, for the high and the low six bits of the words of each part."""
    out = []
    for name, words in parts:
        width = 8 * words.itemsize
        for end, shift in (("high", width - 6), ("low", 0)):
            cell = (words >> words.dtype.type(shift)) & words.dtype.type(CELLS - 1)
            counts = np.bincount(cell.astype(np.int64), minlength=CELLS)
            expected = words.size / CELLS
            statistic = float(((counts - expected) ** 2).sum() / expected)
            out.append((float(chi2.sf(statistic, CELLS - 1)), f"{name}, {end} bits of {words.size} words"))
    return out


def word_messages(run: Run, left_out: Sequence[str], fewest: int = 8 * CELLS) -> list[tuple[str, np.ndarray]]:
    """Every message of words and everything opened under a mask; what is short is put together, by tag and direction."""
    parts, short = [], dict[str, list[np.ndarray]]()
    everything = [
        (f"'{m.tag}' {m.sender} to {m.receiver}", words_of(m))
        for m in run.transcript
        if m.kind != Kind.JSON and m.size and m.tag not in left_out
    ]
    everything += [(f"'{tag}' opened", words) for tag, words in opened(run) if tag not in left_out]
    for name, words in everything:
        if words.size >= fewest:
            parts.append((name, words))
        else:
            short.setdefault(f"{name} ({8 * words.itemsize} bits)", []).append(words)
    joined = ((name, np.concatenate(pieces)) for name, pieces in short.items())
    return parts + [(name, words) for name, words in joined if words.size >= fewest]


def word_shape(run: Run, left_out: Sequence[str]) -> list[tuple[str, str, str, Kind, int]]:
    """Who sent which tags to whom, and how much, of all messages of words."""
    return [line for line in run.shape() if line[3] != Kind.JSON and line[2] not in left_out]


def told_apart(one: Run, other: Run, left_out: Sequence[str]) -> list[tuple[float, str]]:
    """For every tag and direction: how many deviations an attacker is from guessing which of two runs eight bytes are of.

    It has seen every second eight bytes of both runs, and says it of the others.
    """
    groups: dict[str, tuple[list[np.ndarray], list[np.ndarray]]] = {}
    for label, run in enumerate((one, other)):
        for m in run.transcript:
            if m.kind != Kind.JSON and m.tag not in left_out and m.size >= 8:
                name = f"'{m.tag}' {m.sender} to {m.receiver}"
                lines = np.frombuffer(m.body[: m.size // 8 * 8], dtype=np.uint8).reshape(-1, 8)
                groups.setdefault(name, ([], []))[label].append(lines)
    out = []
    for name, sides in groups.items():
        of_one, of_other = (np.concatenate(lines)[:LINES] for lines in sides)
        n = min(len(of_one), len(of_other)) // 2 * 2
        if n >= LINES // 4:
            X = np.stack([of_one[:n], of_other[:n]], axis=1).reshape(-1, 8).astype(np.float32)
            y, learn = np.arange(len(X)) % 2, np.arange(len(X)) % 4 < 2
            model = HistGradientBoostingClassifier(max_iter=15, max_bins=64, random_state=0).fit(X[learn], y[learn])
            auc = roc_auc_score(y[~learn], model.predict_proba(X[~learn])[:, 1])
            out.append((abs(float(auc) - 0.5) / deviation(y[~learn]), name))
    return out


LINES = 4096
"""Of a tag and direction, that are looked at; of fewer than a quarter of it nothing is said."""
