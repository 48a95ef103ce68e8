"""Logistic regression over columns that several owners hold about the same people.

Minimises  sum over rows of log-loss + ridge/2 |w|^2  (the intercept is not penalised), the objective of scikit-learn's
LogisticRegression with C = 1/ridge, by full-batch accelerated gradient on secret-shared weights.  Each owner first whitens
its own block, so that a step of 1/(number of owners) is safe without tuning, and enters it only through the masked-matrix
product; residuals come from one opened angle per row.  Weights, scores, residuals and gradients stay shared throughout; at
the end each owner is given the weights of its own columns.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mpc.correlations import Correlation, Ticket
from mpc.engine import SharedTensor, from_words, reveal_to, to_words
from mpc.errors import LocalProtocolError, RemoteProtocolError
from mpc.fourier import SERIES_BITS, FourierTuple, fit_sigmoid, odd_series
from mpc.matrix import MatrixMask, OwnerMatrix, mask_matrices, multiply, plan_masks
from mpc.ring import encode
from mpc.session import Session
from mpc.truncation import plan_truncation, truncate_many
from mpc.wire import recv_json, send_json

Floats = npt.NDArray[np.float64]
Words = npt.NDArray[Any]
Progress = Callable[[int, int], None]

INPUT_BITS = 8
"""Fractional bits of a whitened input, held as int16: inputs reach 64 standard deviations in steps of 0.002."""
ANGLE_UNITS = 40
"""One period of the score is 2^40 units."""
GRADIENT_BITS = INPUT_BITS + SERIES_BITS
INTERCEPT_INPUT = 2.0
"""The constant input of the intercept; 2 makes its curvature that of a whitened column."""
RESTART = 25
"""Passes after which momentum starts anew: an adaptive-restart schedule for poorly conditioned blocks."""
MOMENTUM_BITS = 8
MAX_PERIOD = 512


@dataclass(frozen=True)
class Settings:
    """How to train: ridge penalty, passes over the rows, score period P and harmonics of the sigmoid's series."""

    ridge: float = 1.0
    passes: int = 40
    period: int = 64
    harmonics: int = 12


@dataclass(frozen=True)
class Fitted:
    """What one owner learns: weights of its standardised inputs and, for the owner of the label, the intercept.

    Its part of a score is inputs times weights plus the intercept.  period: the score period training ended with; every
    owner's part of a training score is within period/(4 owners).
    """

    weights: Floats
    intercept: float | None
    period: int


@dataclass(frozen=True)
class _Block:
    """One owner's inputs, ready to be masked: Z whitened (n, d), M the ridge term in whitened coordinates (d, d)."""

    whitening: Floats
    inputs: Words
    ridge: Floats


def train(
    session: Session, X: Floats, y: Floats | None, settings: Settings, progress: Progress = lambda _done, _total: None
) -> Fitted:
    """Fit the model; every owner calls this at once with its own aligned rows.

    X: (n, d) standardised inputs of our columns.  y: (n,) labels 0/1 at exactly one owner, None at the others.

    Reveals: to each owner, the weights of its own inputs (and the intercept, to the owner of the label); the number of
        inputs of every owner; whether a partial score left the range, once per fit.  Nothing else is opened.
    Cost: per pass 4 rounds; with D inputs in all, d_j of them at owner j and K harmonics, 10 n + 16 d_j + 24 D bytes to
        each other owner j; the dealer sends 16 (K + 1) n + 64 D bytes in all for two owners.  Once: 8 (n d + d^2) bytes
        to every other party for our d inputs.
    Security: semi-honest owners; the dealer is semi-honest and colludes with nobody.
    Source: Mohassel and Zhang, IEEE S&P 2017 (masked matrix); Lu et al., USENIX Security 2023 (Fourier sigmoid);
        Nesterov 1983, O'Donoghue and Candes 2015 (accelerated gradient with restarts).
    Raises: RemoteProtocolError if the owners disagree on rows or who has the label; LocalProtocolError if scores exceed the
        largest period.
    """
    dims, active = _agree(session, X.shape, y is not None)
    block = _whiten(X, settings.ridge, intercept=session.me == active)
    shapes = [(X.shape[0], d) for d in dims]
    masks = plan_masks(shapes, 0)
    tickets = session.correlations.plan(masks)
    plan = _plan(session, masks, settings, len(dims))  # before the masked inputs cross: the dealer works meanwhile
    inputs = mask_matrices(session, shapes, block.inputs, 0, tickets=tickets)
    attempt = settings
    while True:
        fitted = _fit(session, block, inputs, y, active, plan, progress)
        bound = attempt.period / (4 * len(dims))
        largest = float(np.abs(X @ fitted.weights + (fitted.intercept or 0.0)).max(initial=0.0))
        if _all_agree(session, largest <= bound):
            return fitted
        attempt = Settings(settings.ridge, settings.passes, attempt.period * 2, attempt.harmonics * 2)
        if attempt.period > MAX_PERIOD:
            raise LocalProtocolError(
                f"scores do not fit a period of {MAX_PERIOD}: a column separates the label almost perfectly"
            )
        plan = _plan(session, masks, attempt, plan.first + len(dims))


def _agree(session: Session, shape: tuple[int, ...], has_label: bool) -> tuple[list[int], int]:
    """Exchange row counts, input counts (with the intercept's) and who has the label."""
    mine = {"rows": shape[0], "inputs": shape[1] + has_label, "label": has_label}
    for peer in session.peers:
        send_json(session.channel, peer, "logistic/shape", mine)
    stated = []
    for name in session.parties:
        value = mine if name == session.parties[session.me] else recv_json(session.channel, name, "logistic/shape")
        good = isinstance(value, dict) and set(value) == set(mine) and type(value["inputs"]) is int
        if not good or value["rows"] != shape[0] or not 0 < value["inputs"] < 100_000:
            raise RemoteProtocolError(name, "logistic/shape", "states other rows than ours or no inputs")
        stated.append(value)
    labelled = [i for i, value in enumerate(stated) if value["label"] is True]
    if len(labelled) != 1:
        raise RemoteProtocolError(session.peers[0], "logistic/shape", "exactly one owner must have the label")
    return [value["inputs"] for value in stated], labelled[0]


def _all_agree(session: Session, ok: bool) -> bool:
    """One bit from every owner; true when all say yes."""
    flags = session.exchange("logistic/range", np.array([ok], dtype=np.uint8))
    return ok and all(int(flag[0]) == 1 for flag in flags)


def _whiten(X: Floats, ridge: float, *, intercept: bool) -> _Block:
    """Change of basis T with T^T (X^T X / 4 + ridge I) T = n I, so that the logistic Hessian is at most n I per owner."""
    n, d = X.shape
    curvature, basis = np.linalg.eigh(X.T @ X / (4 * n) + ridge / n * np.eye(d))
    T = basis / np.sqrt(curvature)
    Z, M = X @ T, ridge * T.T @ T
    if intercept:
        Z = np.column_stack([Z, np.full(n, INTERCEPT_INPUT)])
        M = np.pad(M, ((0, 1), (0, 1)))
    limit = np.iinfo(np.int16).max
    return _Block(T, np.clip(np.rint(Z * 2**INPUT_BITS), -limit, limit).astype(np.int16), M)


@dataclass(frozen=True)
class _Plan:
    """One attempt's settings and tickets.  first: number of the first ridge matrix."""

    settings: Settings
    first: int
    coefs: Floats
    step: int
    ridge_tickets: list[Ticket]
    passes: list[list[Ticket]]


def _plan(session: Session, masks: Sequence[MatrixMask], settings: Settings, first: int) -> _Plan:
    """Ask the dealer for everything that one attempt takes, in order of use."""
    n, dims = masks[0].n_rows, [m.n_cols for m in masks]
    harmonics, coefs, _ = fit_sigmoid(settings.period, settings.harmonics)
    step, shift = _step(n, len(dims), _weight_bits(settings))
    ridges = plan_masks([(d, d) for d in dims], first)
    one_pass: list[Correlation] = [
        *(m.product(transpose=False) for m in (*masks, *ridges)),
        FourierTuple(n=n, harmonics=harmonics),
        *(m.product(transpose=True) for m in masks),
        plan_truncation(2 * sum(dims), shift),
        plan_truncation(sum(dims), MOMENTUM_BITS),
    ]
    tickets = session.correlations.plan([*ridges, *one_pass * settings.passes])
    ridge_tickets, rest = tickets[: len(ridges)], tickets[len(ridges) :]
    passes = [rest[i : i + len(one_pass)] for i in range(0, len(rest), len(one_pass))]
    return _Plan(settings, first, coefs, step, ridge_tickets, passes)


def _weight_bits(settings: Settings) -> int:
    """Fractional bits of the weights: a score has ANGLE_UNITS bits a period."""
    return ANGLE_UNITS - INPUT_BITS - (settings.period.bit_length() - 1)


def _fit(
    session: Session,
    block: _Block,
    blocks: list[OwnerMatrix],
    y: Floats | None,
    active: int,
    plan: _Plan,
    progress: Progress,
) -> Fitted:
    settings = plan.settings
    dims = [m.content.shape[1] for m in blocks]
    weight_bits = _weight_bits(settings)
    ridge = np.rint(block.ridge * 2.0 ** (GRADIENT_BITS - weight_bits)).astype(np.int64)
    ridges = mask_matrices(session, [(d, d) for d in dims], ridge, plan.first, tickets=plan.ridge_tickets)
    run = _Run(session, blocks, ridges, y, plan.coefs, plan.step)
    u = v = from_words(_start(dims, y, active, weight_bits), weight_bits)
    for t, tickets in enumerate(plan.passes):
        beta = round(2**MOMENTUM_BITS * ((t + 1) % RESTART) / ((t + 1) % RESTART + 3))
        u, v = run.one_pass(u, v, beta, tickets)
        progress(t + 1, settings.passes)
    return _release(session, block, u, dims, active, settings.period)


def _step(n: int, owners: int, weight_bits: int) -> tuple[int, int]:
    """The step 1/(owners n) between gradient and weight scale, rounded down to multiplier / 2^shift, multiplier 8..15."""
    exact = 2.0 ** (weight_bits - GRADIENT_BITS) / (owners * n)
    shift = int(np.ceil(-np.log2(exact))) + 3
    return int(exact * 2.0**shift), shift


def _start(dims: list[int], y: Floats | None, active: int, weight_bits: int) -> Words:
    """Our share of the first weights: zero, but for the intercept, which starts at the label's log-odds at its owner."""
    share = np.zeros(sum(dims), dtype=np.uint64)
    if y is not None:
        rate = float(np.clip(y.mean(), 1e-6, 1 - 1e-6))
        start = np.log(rate / (1 - rate)) / INTERCEPT_INPUT
        share[sum(dims[: active + 1]) - 1] = encode(start, weight_bits)
    return share


@dataclass(frozen=True)
class _Run:
    """What stays the same from pass to pass."""

    session: Session
    blocks: list[OwnerMatrix]
    ridges: list[OwnerMatrix]
    y: Floats | None
    coefs: Floats
    step: int

    def one_pass(
        self, u: SharedTensor, v: SharedTensor, beta: int, tickets: Sequence[Ticket]
    ) -> tuple[SharedTensor, SharedTensor]:
        """One accelerated step: u' = v - a g(v), v' = u' + beta (u' - u), with beta in 1/2^MOMENTUM_BITS."""
        g = self.gradient(v, tickets[:-2])
        stretched = self.step + (self.step * beta >> MOMENTUM_BITS)
        moves = [
            np.concatenate([to_words(g * self.step), to_words(g * stretched)]),
            to_words((v - u) * beta),
        ]
        both, momentum = truncate_many(self.session, tickets[-2:], moves)
        bits = v.encoder.scale.bit_length() - 1
        plain, long = np.split(both, 2)
        return v - from_words(plain, bits), v - from_words(long, bits) + from_words(momentum, bits)

    def gradient(self, v: SharedTensor, tickets: Sequence[Ticket]) -> SharedTensor:
        """Shares of Z^T (p - y) + M v over all blocks, GRADIENT_BITS fractional bits."""
        k = len(self.blocks)
        cuts = np.cumsum([m.content.shape[1] for m in self.blocks])[:-1]
        parts = np.split(to_words(v), cuts)
        forward = multiply(
            self.session, list(zip((*self.blocks, *self.ridges), tickets[: 2 * k], parts * 2, strict=True))
        )
        score = np.add.reduce(forward[:k])
        residual = from_words(odd_series(self.session, tickets[2 * k], score, ANGLE_UNITS, self.coefs), SERIES_BITS)
        if self.y is not None:
            residual = residual + from_words(encode(0.5 - self.y, SERIES_BITS), SERIES_BITS)
        back = multiply(
            self.session, [(m, t, to_words(residual)) for m, t in zip(self.blocks, tickets[2 * k + 1 :], strict=True)]
        )
        return from_words(np.concatenate([b + r for b, r in zip(back, forward[k:], strict=True)]), GRADIENT_BITS)


def _release(session: Session, block: _Block, u: SharedTensor, dims: list[int], active: int, period: int) -> Fitted:
    """Open each block of weights to its owner and to nobody else."""
    session.correlations.settle()
    mine: Floats | None = None
    start = 0
    for owner, d in enumerate(dims):
        opened = reveal_to(u[start : start + d], owner)
        mine = opened if owner == session.me else mine
        start += d
    if mine is None:
        raise RemoteProtocolError(session.parties[session.me], "logistic/release", "our weights were not opened to us")
    if session.me != active:
        return Fitted(block.whitening @ mine, None, period)
    return Fitted(block.whitening @ mine[:-1], float(mine[-1] * INTERCEPT_INPUT), period)
