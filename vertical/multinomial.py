"""Multinomial logistic regression over columns that several owners hold about the same people.

Minimises  sum over rows of  log sum_c e^{eta_c} - eta_y  +  ridge/2 |W|^2  (intercepts are not penalised), the objective of
scikit-learn's LogisticRegression with C = 1/ridge for several classes.  The weights start with, and keep, a sum of zero over
the classes, so the exponentials of a row add up to at least the number of classes, and their sum has a reciprocal of bounded
size.  By Bohning's bound the Hessian is at most B = Z^T Z / 2 + ridge for every class, so that a step of B^-1 times the
gradient is safe without tuning; B is a secret Gram matrix, inverted once, and accelerated steps converge in some tens.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from mpc.correlations import Correlation, Ticket
from mpc.engine import from_words, reveal_to
from mpc.errors import LocalProtocolError
from mpc.linear import INVERSE_BITS, MATRIX_BITS, RIGHT_BITS, inverse, plan_inverse
from mpc.matrix import MatrixMask, OwnerMatrix, mask_matrices, multiply, plan_masks
from mpc.products import multiply as product
from mpc.products import plan_matmul
from mpc.ring import encode
from mpc.session import Session
from mpc.truncation import plan_truncation, truncate
from vertical.checkpoints import Checkpoints, expect
from vertical.owned import Group, agree, floats_from, floats_text, gram_of, gram_scale, own_block, plan_gram_of
from vertical.scores import Scores
from vertical.softmax import MAX_CLASSES, PROBABILITY_BITS, SCORE_BITS, Softmax
from vertical.whitening import INPUT_BITS, Block, whiten

Floats = npt.NDArray[np.float64]
Words = npt.NDArray[Any]
Progress = Callable[[int, int], None]

WEIGHT_BITS = SCORE_BITS - INPUT_BITS
GRADIENT_BITS = INPUT_BITS + PROBABILITY_BITS
CURVATURE = 0.5
"""Bohning: the Hessian of a softmax is at most half the identity."""
RESTART = 40
"""Passes after which momentum starts anew."""
MOMENTUM_BITS = 8
CHECK = 10
"""Passes after which the range of scores is looked at."""
BOUND = 64.0
"""Public limit of a score, unless training finds a larger one."""
LEAST_RIDGE = 2.0**-12
"""Penalty of every whitened direction, over the rows: columns of two owners that depend on one another would drift apart."""
LIMITS = tuple(repr(BOUND * 2.0**k) for k in range(7))
"""The limits that there are, as text."""
MIN_SHARE = 1e-6
RANGE_TAG = "glm/range"


@dataclass(frozen=True)
class Settings:
    """How to train: ridge penalty and passes over the rows."""

    ridge: float = 1.0
    passes: int = 40

    def __post_init__(self) -> None:
        if not 0 <= self.ridge < 1e6 or not 1 <= self.passes <= 1000:
            raise LocalProtocolError("the ridge penalty is 0 to 10^6 and there are 1 to 1000 passes")


@dataclass(frozen=True)
class Fitted:
    """What one owner learns: weights (d, classes) of its standardised inputs and, for the owner of the label, the intercepts.

    Its part of the scores of a row is inputs times weights plus intercepts; a softmax of the sum gives the probabilities.
    limit: public; no score of a row that was trained on is larger.
    """

    weights: Floats = field(repr=False)
    intercepts: Floats | None = field(repr=False)
    classes: int
    limit: float = BOUND

    def document(self) -> dict[str, Any]:
        """What is written to disk."""
        intercepts = None if self.intercepts is None else floats_text(self.intercepts)
        weights = floats_text(self.weights)
        sizes = {"classes": self.classes, "limit": repr(self.limit)}
        return {"family": "multinomial", **sizes, "weights": weights, "intercepts": intercepts}

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Self:
        """The inverse of `document`.  Raises: LocalProtocolError if it is not one."""
        keys = {"family", "classes", "limit", "weights", "intercepts"}
        if set(document) != keys or document["family"] != "multinomial" or type(document["classes"]) is not int:
            raise LocalProtocolError("this is not a part of a multinomial model")
        weights = floats_from(document["weights"])
        stored = document["intercepts"]
        intercepts = None if stored is None else floats_from(stored)
        classes, limit = document["classes"], document["limit"]
        if limit not in LIMITS:
            raise LocalProtocolError("a multinomial model has a limit of its scores")
        if (
            weights.ndim != 2
            or weights.shape[1] != classes
            or (intercepts is not None and intercepts.shape != (classes,))
        ):
            raise LocalProtocolError("a multinomial model has one weight for each input and class")
        return cls(weights, intercepts, classes, float(limit))

    def part(self, inputs: Floats) -> Floats:
        """Our additive part of the scores of these rows, (n, classes)."""
        return np.asarray(inputs @ self.weights + (0.0 if self.intercepts is None else self.intercepts))


def scores(session: Session, fitted: Fitted, inputs: Floats) -> Scores:
    """Shares of every row's score for each class.

    inputs: (n, d) standardised rows of ours.  Parts of scores beyond those that were trained on are limited.

    Reveals: nothing.
    Cost: nothing is sent.
    Security: semi-honest owners.
    Source: additive secret sharing.
    Raises: LocalProtocolError if a value is not finite.
    """
    return Scores.of_part(fitted.part(inputs), fitted.limit, len(session.parties))


def train(
    session: Session,
    inputs: Floats,
    y: Floats | None,
    settings: Settings,
    progress: Progress = lambda _done, _total: None,
    checkpoints: Checkpoints | None = None,
) -> Fitted:
    """Fit the model; every owner calls this at once with its own aligned rows.

    inputs: (n, d) standardised inputs of our columns.  y: (n,) classes 0, 1, ... at exactly one owner, None at the others.

    Reveals: to each owner, the weights of its own inputs (and the intercepts, to the owner of the label); to every owner, the
        number of classes, the rank of every owner's inputs, and every 10 passes whether a score left the range;
        and the power of two times 64 that bounds every score.
    Cost: per pass 17 rounds for up to 131,072 rows; about (32 C + 85) n bytes to each other party for C classes, and (225 C +
        250) n from the dealer in all.  Every 10 passes 6 rounds and 17 C n bytes more, and once 64 rounds; 8 (n r + r^2)
        bytes to every other party for our rank r.
    Security: semi-honest owners; the dealer is semi-honest and colludes with nobody.
    Source: Bohning, Annals of the Institute of Statistical Mathematics 1992 (bound of the Hessian); Mohassel and Zhang, IEEE
        S&P 2017 (masked matrix); Nesterov 1983, O'Donoghue and Candes 2015 (accelerated gradient with restarts).
    Raises: RemoteProtocolError if the owners disagree on rows or who has the label; LocalProtocolError if the labels are not
        classes, a score leaves the range, or a column separates the classes almost perfectly or nearly depends on others.
    """
    classes = None if y is None else {"classes": _classes(y)}
    block = _steady(whiten(inputs, settings.ridge, CURVATURE, intercept=y is not None))
    Z = block.inputs
    group = agree(session, "multinomial/shape", Z.shape, classes, {"classes": (2, MAX_CLASSES)})
    step, softmax = 0, Softmax(len(Z), group.facts["classes"])
    u = v = _start(group, y, block.constant, softmax.classes)
    resumed = None if checkpoints is None else checkpoints.restore(session)
    if resumed is not None:
        step, state = resumed
        u, v = (expect(state, name, u.shape) for name in ("u", "v"))
        softmax = replace(softmax, squarings=int(expect(state, "squarings", (1,), np.int64)[0]))
    run = _masked(session, block, group, y, softmax)
    total = max(settings.passes, -(-step // CHECK) * CHECK)
    while True:
        if step and (step % CHECK == 0 or step >= total) and not run.fits(u):
            run, v, total = run.wider(), u, max(total, step + CHECK)
        elif step >= total:
            return _limited(session, _release(block, u, group.dims), inputs)
        count = min(CHECK - step % CHECK, total - step)
        for tickets in run.plan(count):
            step += 1
            u, v = run.one_pass(u, v, step, tickets)
            if checkpoints is not None:
                squarings = np.array([run.softmax.squarings], dtype=np.int64)
                checkpoints.save(step, {"u": u, "v": v, "squarings": squarings})
            progress(step, total)


def _steady(block: Block) -> Block:
    """With the least penalty of each direction, but for the intercept."""
    least = np.full(len(block.ridge), LEAST_RIDGE * len(block.inputs))
    if block.constant:
        least[-1] = 0.0
    return replace(block, ridge=block.ridge + np.diag(least))


def _masked(session: Session, block: Block, group: Group, y: Floats | None, softmax: Softmax) -> _Run:
    """Mask the inputs and the penalties, and invert the bound, planned together before anything crosses."""
    Z, dims = block.inputs, group.dims
    shapes, squares = [(len(Z), d) for d in dims], [(d, d) for d in dims]
    masks, ridges, k = plan_masks(shapes, 0), plan_masks(squares, len(dims)), len(dims)
    scale = gram_scale(len(Z), k)
    tickets = session.correlations.plan([*masks, *ridges, *_plan_bound(session, masks, scale)])
    M = np.rint(block.ridge * 2.0 ** (GRADIENT_BITS - WEIGHT_BITS)).astype(np.int64)
    blocks = mask_matrices(session, shapes, Z, 0, tickets=tickets[:k], keep_mask=True)
    penalties = mask_matrices(session, squares, M, k, tickets=tickets[k : 2 * k])
    labels = None if y is None else encode(np.eye(softmax.classes)[y.astype(np.int64)], PROBABILITY_BITS)
    inverse_bound = _inverse_bound(session, tickets[2 * k :], blocks, block.ridge, scale)
    return _Run(session, blocks, penalties, inverse_bound, labels, softmax)


def _plan_bound(session: Session, masks: Sequence[MatrixMask], scale: int) -> list[Correlation]:
    D = sum(m.n_cols for m in masks)
    return [*plan_gram_of(session, masks), *_lowered(D, scale), *plan_inverse(D)]


def _lowered(D: int, scale: int) -> list[Correlation]:
    """What bringing B over 2^scale to MATRIX_BITS asks of the dealer; half of Z^T Z has one bit more than Z^T Z."""
    shift = 2 * INPUT_BITS + 1 + scale - MATRIX_BITS
    return [plan_truncation(D * D, shift)] if shift > 0 else []


def _inverse_bound(
    session: Session, tickets: Sequence[Ticket], blocks: Sequence[OwnerMatrix], ridge: Floats, scale: int
) -> Words:
    """Shares of the inverse of B over 2^scale, INVERSE_BITS, where B bounds every class's part of the Hessian."""
    dims = [m.content.shape[1] for m in blocks]
    lower = _lowered(sum(dims), scale)
    used = len(tickets) - len(plan_inverse(sum(dims))) - len(lower)
    G = gram_of(session, tickets[:used], blocks)
    if lower:
        G = truncate(session, G.reshape(-1), tickets[used]).reshape(G.shape)
    else:
        G = G << np.uint64(MATRIX_BITS - 2 * INPUT_BITS - 1 - scale)
    B = G + own_block(session.me, dims, ridge, MATRIX_BITS - scale)
    return inverse(session, tickets[used + len(lower) :], B)


def _classes(y: Floats) -> int:
    """How many classes there are.  Raises: LocalProtocolError if the labels are not 0, 1, ... with every class present."""
    if not np.isfinite(y).all() or (y != np.rint(y)).any() or (y < 0).any() or y.max(initial=0.0) >= MAX_CLASSES:
        raise LocalProtocolError(f"the labels of a multinomial model are whole numbers from 0, below {MAX_CLASSES}")
    counts = np.bincount(y.astype(np.int64))
    if len(counts) < 2 or not counts.all():
        raise LocalProtocolError("a multinomial model needs two classes or more, each of them in some row")
    return len(counts)


def _start(group: Group, y: Floats | None, constant: float, classes: int) -> Words:
    """Our share of the first weights: zero, but for the intercepts, which start at the classes' centred log-frequencies."""
    share = np.zeros((sum(group.dims), classes), dtype=np.uint64)
    if y is not None:
        logs = np.log(np.maximum(np.bincount(y.astype(np.int64), minlength=classes) / len(y), MIN_SHARE))
        share[sum(group.dims[: group.active + 1]) - 1] = encode((logs - logs.mean()) / constant, WEIGHT_BITS)
    return share


def _product(matrix: OwnerMatrix, classes: int, *, transpose: bool) -> Correlation:
    return matrix.request(transpose=transpose, vectors=classes)


@dataclass(frozen=True)
class _Run:
    """What stays the same from pass to pass.

    inverse_bound: shares of the scaled inverse of B.  labels: one-hot words (n, classes), at their owner.
    """

    session: Session
    blocks: list[OwnerMatrix]
    ridges: list[OwnerMatrix]
    inverse_bound: Words
    labels: Words | None
    softmax: Softmax

    def plan(self, passes: int) -> list[list[Ticket]]:
        """Ask the dealer for some passes, each in order of use."""
        softmax, D = self.softmax, len(self.inverse_bound)
        rows = D * softmax.classes
        scale = gram_scale(softmax.n, len(self.blocks))
        one_pass: list[Correlation] = [
            *(_product(m, softmax.classes, transpose=False) for m in (*self.blocks, *self.ridges)),
            *softmax.plan(),
            *(_product(m, softmax.classes, transpose=True) for m in self.blocks),
            plan_truncation(rows, GRADIENT_BITS + scale - RIGHT_BITS),
            plan_matmul((D, D), (D, softmax.classes)),
            plan_truncation(rows, INVERSE_BITS + RIGHT_BITS - WEIGHT_BITS),
            plan_truncation(rows, MOMENTUM_BITS),
        ]
        tickets = self.session.correlations.plan(one_pass * passes)
        each = len(one_pass)
        return [tickets[start : start + each] for start in range(0, len(tickets), each)]

    def one_pass(self, u: Words, v: Words, step: int, tickets: Sequence[Ticket]) -> tuple[Words, Words]:
        """One accelerated step: u' = v - B^-1 g(v), v' = u' + beta (u' - u), with beta in 1/2^MOMENTUM_BITS."""
        beta = round(2**MOMENTUM_BITS * (step % RESTART) / (step % RESTART + 3))
        *used, lower, times, drop, slow = tickets
        right = truncate(self.session, self._gradient(v, used), lower)
        move = truncate(self.session, product(self.session, times, self.inverse_bound, right), drop)
        after = v - move
        return after, after + truncate(self.session, (after - u) * np.uint64(beta), slow)

    def _gradient(self, v: Words, tickets: Sequence[Ticket]) -> Words:
        """Shares of Z^T (p - y) + M v over all blocks, GRADIENT_BITS fractional bits."""
        k = len(self.blocks)
        matrices, parts = [*self.blocks, *self.ridges], self._parts(v)
        forward = multiply(self.session, list(zip(matrices, tickets[: 2 * k], parts * 2, strict=True)))
        residual = self.softmax.probabilities(self.session, tickets[2 * k : -k], np.add.reduce(forward[:k]))
        if self.labels is not None:
            residual = residual - self.labels
        back = multiply(self.session, [(m, t, residual) for m, t in zip(self.blocks, tickets[-k:], strict=True)])
        return np.concatenate([b + r for b, r in zip(back, forward[k:], strict=True)])

    def _parts(self, v: Words) -> list[Words]:
        return np.split(v, np.cumsum([m.content.shape[1] for m in self.blocks])[:-1])

    def fits(self, u: Words) -> bool:
        """Whether the scores of these weights are in the softmax's range, which all are told."""
        k, classes = len(self.blocks), self.softmax.classes
        forward = [_product(m, classes, transpose=False) for m in self.blocks]
        tickets = self.session.correlations.plan([*forward, *self.softmax.plan_check()])
        scores = multiply(self.session, list(zip(self.blocks, tickets[:k], self._parts(u), strict=True)))
        return self.softmax.fits(self.session, tickets[k:], np.add.reduce(scores))

    def wider(self) -> _Run:
        """The same with a softmax of twice the range."""
        softmax = self.softmax.wider()
        if softmax is None:
            raise LocalProtocolError(
                "a column separates the classes almost perfectly: a larger ridge penalty is needed"
            )
        return replace(self, softmax=softmax)


def _release(block: Block, u: Words, dims: Sequence[int]) -> Fitted:
    """Open each block of weights to its owner and to nobody else."""
    mine = np.zeros((0, u.shape[1]))
    start = 0
    for owner, d in enumerate(dims):
        opened = reveal_to(
            from_words(np.ascontiguousarray(u[start : start + d]), WEIGHT_BITS), owner, tag="glm/weights"
        )
        mine = mine if opened is None else opened
        start += d
    weights, intercepts = block.coefficients(mine)
    return Fitted(weights, intercepts, u.shape[1])


def _limited(session: Session, fitted: Fitted, inputs: Floats) -> Fitted:
    """With the smallest limit that every owner's part of the scores keeps to.  Raises: LocalProtocolError if none is."""
    largest = float(np.abs(fitted.part(inputs)).max(initial=0.0))
    for text in LIMITS:
        ok = largest <= float(text) / len(session.parties)
        flags = session.exchange(RANGE_TAG, np.array([ok], dtype=np.uint8))
        if ok and all(int(flag[0]) == 1 for flag in flags):
            return replace(fitted, limit=float(text))
    raise LocalProtocolError("columns of two owners nearly depend on one another: a larger ridge penalty is needed")
