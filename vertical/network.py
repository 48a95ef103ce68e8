"""Neural networks over columns that several owners hold about the same people.  Nobody sees a weight, not even at the end.

The first layer is a sum over owners, z = sum of X_b W_b: features stay with their owner, who enters them through the
masked-matrix product; W is shared.  All further layers, the loss's derivative and the gradients are computed on shares
(`vertical.network_layers`), the activations from one opened angle each (`mpc.activations`).  After training every owner
keeps its share of all weights, and scoring new rows takes all owners again.

Range.  Activations are periodic series and defined everywhere; inputs are limited to 8 standard deviations.  What is left
to check of secret values is that every weight is within `weight_limit` after every step, and every output of every training
row (for regression, the residual) within `OUTPUT_LIMIT`.  All of an epoch's are checked together at its end.  That is not
too late: the first value that is too large was computed from values that were not, so it is what it should be and is found;
what was computed from it is thrown away with everything else.  Outputs of new rows are clipped to the same limit on shares.

Rows are put into a random order that is public, from `seed`, and cut into batches that stay the same; every epoch takes
them in another public random order.  The first weights are public too, from `seed`: nothing that is opened depends on
weights, so nothing is gained by hiding them, and a fit can be done again.

Split learning, in which one owner sends activations and gets their gradients, is not offered: gradients of single rows say
what the label is.  See docs/protocols/network.md.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from mpc.compare import less_than, plan_less_than
from mpc.correlations import Ticket
from mpc.errors import LocalProtocolError, RemoteProtocolError
from mpc.functions import Range, guard, plan_guard
from mpc.matrix import MatrixMask, OwnerMatrix
from mpc.products import multiply, plan_multiply
from mpc.ring import encode
from mpc.rng import Prg, derive_key
from mpc.session import Session
from mpc.truncation import plan_truncation, truncate
from mpc.wire import recv_json, send_json
from vertical.checkpoints import Checkpoints, expect
from vertical.network_layers import Network, mask_rows, plan_rows
from vertical.network_parts import Fitted, Settings, Target
from vertical.network_scales import (
    INPUT_LIMIT,
    OUTPUT_LIMIT,
    SUM_BITS,
    WEIGHT_BITS,
    Rates,
    Shape,
    Task,
    activation_called,
    as_inputs,
    as_targets,
    scales,
)
from vertical.scores import FRAC_BITS, Scores

__all__ = ["INPUT_LIMIT", "Fitted", "Settings", "Target", "batches", "first_weights", "order", "scores", "train"]

Floats = npt.NDArray[np.float64]
Words = npt.NDArray[Any]
Progress = Callable[[int, int], None]

FIRST_MATRIX = 1 << 24
"""Numbers of our masked matrices start here; each call adds how many matrices the session has masked."""
SCORED_ROWS = 8192
SCORE_LIMIT: dict[Task, float] = {"binary": 32.0, "multiclass": 32.0, "regression": 32.0}
MAX_STEPS = 40_000
LARGEST_TARGET = 8.0
"""Targets of a regression are limited to so many standard deviations."""


def first_weights(settings: Settings, shape: Shape) -> Words:
    """Glorot's uniform weights and zero biases of every layer, flat, with WEIGHT_BITS; public.

    Source: Glorot and Bengio, AISTATS 2010.
    """
    stream = Prg(derive_key(_key(settings), "network-weights"))
    flat = np.zeros(shape.size, dtype=np.uint64)
    for layer in shape.split(flat):
        rows, width = layer.shape[0] - 1, layer.shape[1]
        uniform = (stream.words((rows, width)) >> np.uint64(11)).astype(np.float64) * 2.0**-52 - 1
        layer[:-1] = encode(uniform * np.sqrt(6 / (rows + width)), WEIGHT_BITS)
    return flat


def batches(settings: Settings, n: int) -> list[npt.NDArray[np.intp]]:
    """The rows of each batch; public."""
    stream = Prg(derive_key(_key(settings), "network-rows"))
    return np.array_split(np.argsort(stream.words(n), kind="stable"), -(-n // settings.batch))


def order(settings: Settings, epoch: int, count: int) -> list[int]:
    """The batches in the order in which an epoch, counted from 0, takes them; public."""
    stream = Prg(derive_key(_key(settings), f"network-epoch-{epoch}"))
    return [int(i) for i in np.argsort(stream.words(count), kind="stable")]


def _key(settings: Settings) -> bytes:
    return settings.seed.to_bytes(32, "big")


def train(
    session: Session,
    inputs: Floats,
    y: Floats | None,
    settings: Settings,
    progress: Progress = lambda _done, _total: None,
    checkpoints: Checkpoints | None = None,
) -> Fitted:
    """Fit the network; every owner calls this at once with its own aligned rows.

    inputs: (n, d) standardised inputs of our columns.  y: (n,) labels at exactly one owner, None at the others: 0/1; for
    several classes 0 ... classes - 1; for regression any number, standardised here.  checkpoints: kept after every epoch.

    Reveals: to each owner, the number of inputs of every owner and who has the label; once per epoch, whether any weight or
        any output of a training row left its limit.  No weight, output, loss or gradient is opened to anybody.
    Cost: with n rows, m = ceil(n / batch) batches, L hidden layers: 5 L + 4 rounds for a step, for several classes 17 more;
        10 for an epoch's check; 2 once.  Bytes: as the parts in `vertical.network_layers`; once 8 n d to every other party
        for our d inputs.  For L = 2, widths a and b and one output, an epoch takes to every other party 52 n a + 60 n b
        bytes, and 8 + 17 bytes for every weight and step; the dealer sends in all 16 K n (a + b) + 48 n a + 40 n b for K
        harmonics, and 16 + 55 for every weight and step.
    Security: semi-honest owners; the dealer is semi-honest and colludes with nobody.  The number of messages and their
        sizes depend on shapes and settings only.
    Source: Mohassel and Zhang, IEEE S&P 2017; Fu et al., "BlindFL", SIGMOD 2022; Lu et al., USENIX Security 2023 (series).
    Raises: OutOfRange, at every owner, if a weight or output left its limit; RemoteProtocolError if the owners disagree on
        rows or who has the label; LocalProtocolError if an input or label is not as stated or values might not fit.
    """
    dims, active = _agree(session, inputs, y is not None)
    target = None if y is None else Target.of(y, settings)
    n, shape = inputs.shape[0], settings.shape(dims)
    rows = batches(settings, n)
    if len(rows) * settings.epochs > MAX_STEPS:
        raise LocalProtocolError(f"{len(rows) * settings.epochs} steps are over the limit of {MAX_STEPS}")
    network = _network(settings, shape, len(rows[0]))
    found = None if checkpoints is None else checkpoints.restore(session)
    done, state = (0, None) if found is None else found
    run = _Run(session, settings, network, rows, _first_number(session))
    tickets = session.correlations.plan(run.masks)
    run.plan_epoch(done)  # before the masked inputs cross: the dealer works meanwhile
    own = as_inputs(inputs)[np.concatenate(rows)]
    blocks = mask_rows(session, tickets, own, [len(r) for r in rows])
    if y is not None and target is not None:
        words = as_targets(target.standard(y), settings.task, shape.outputs, run.target_bits)
        run.targets = [words[r] for r in rows]
    weights, moments = _state(session, run, state)
    for epoch in range(done, settings.epochs):
        run.plan_epoch(epoch + 1)
        weights, moments = run.epoch(epoch, blocks, weights, moments)
        if checkpoints is not None:
            checkpoints.save(epoch + 1, {"weights": weights, "moments": moments})
        progress(epoch + 1, settings.epochs)
    return Fitted(settings, tuple(dims), session.me, active, target, weights)


def scores(session: Session, fitted: Fitted, inputs: Floats) -> Scores:
    """Shares of the network's outputs for aligned rows: before the last link, for regression in standard deviations.

    fitted: our part, as `train` returned it to us.  inputs: (n, d) of the same columns, encoded in the same way.  An output
    beyond +-32 is clipped to it.

    Reveals: to each owner, the number of inputs of every owner.
    Cost: 2 L + 9 rounds for L hidden layers and each 8,192 rows, and 1; to every other party, 8 n d bytes for our d inputs
        and as `vertical.network_layers.Network.forward`, `mpc.compare.less_than` with two thresholds and 24 n more for
        every output.
    Security: as `train`.
    Source: as `train`; clipping by comparison with both limits.
    Raises: RemoteProtocolError if the owners disagree on rows; LocalProtocolError if our part is another owner's
        or an input is not a finite number.
    """
    dims, _ = _agree(session, inputs, session.me == fitted.active)
    if session.me != fitted.place or tuple(dims) != fitted.inputs:
        raise LocalProtocolError("this part of a model is another owner's, or of other columns")
    n, shape = inputs.shape[0], fitted.settings.shape(dims)
    sizes = [len(part) for part in np.array_split(np.arange(n), max(1, -(-n // SCORED_ROWS)))]
    masks = plan_rows(shape, sizes, _first_number(session))
    network = _network(fitted.settings, shape, fitted.settings.batch)
    owners, out, limit = len(dims), [], SCORE_LIMIT[fitted.settings.task]
    weights = shape.split(fitted.weights)
    for b, (start, stop) in enumerate(pairwise(accumulate([0, *sizes]))):
        own = masks[b * owners : (b + 1) * owners]
        words = (stop - start) * shape.outputs
        plan = [*own, *network.plan_forward(own), *plan_less_than(words, 2), plan_multiply((words,))]
        tickets = session.correlations.plan([*plan, plan_truncation(words, SUM_BITS - FRAC_BITS)])
        (block,) = mask_rows(session, tickets[:owners], as_inputs(inputs[start:stop]), [stop - start])
        z, _ = network.forward(session, tickets[owners:-6], block, weights)
        out.append(_clipped(session, tickets[-6:], z.reshape(-1), limit))
    total = np.concatenate(out)
    return Scores(total.reshape(n, -1) if fitted.settings.task == "multiclass" else total, FRAC_BITS, limit)


def _clipped(session: Session, tickets: Sequence[Ticket], z: Words, limit: float) -> Words:
    """z, with SUM_BITS, limited to +-limit; with FRAC_BITS."""
    end = int(limit * 2**SUM_BITS)
    below, inside = less_than(session, tickets[:4], z, (-end, end))
    within = multiply(session, tickets[4], inside - below, z)
    one = np.uint64(1 if session.me == 0 else 0)
    edges = (one - inside - below) * np.uint64(end)
    return truncate(session, within + edges, tickets[5])


def _first_number(session: Session) -> int:
    """The number of the next masked matrix: it grows with each that the session has masked, so none comes twice."""
    used = session.correlations.used.get("matrix-mask")
    return FIRST_MATRIX + (0 if used is None else used.count)


def _network(settings: Settings, shape: Shape, rows: int) -> Network:
    activation = activation_called(settings.activation)
    rates = Rates(settings.learning_rate, settings.momentum, settings.weight_decay, settings.weight_limit)
    return Network(shape, settings.task, activation, scales(shape, settings.task, activation, rates, rows))


def _state(session: Session, run: _Run, state: dict[str, Words] | None) -> tuple[Words, Words]:
    """Our shares of weights and momentum to start from: a checkpoint's, or the public first weights at party 0."""
    size = run.network.shape.size
    if state is not None:
        return expect(state, "weights", (size,)), expect(state, "moments", (size,))
    start = first_weights(run.settings, run.network.shape)
    return start if session.me == 0 else np.zeros(size, dtype=np.uint64), np.zeros(size, dtype=np.uint64)


def _agree(session: Session, inputs: Floats, has_label: bool) -> tuple[list[int], int]:
    """Exchange row counts, input counts and who has the label."""
    if inputs.ndim != 2 or len(inputs) < 1 or not np.isfinite(inputs).all():
        raise LocalProtocolError("the inputs of a network are at least one row of finite numbers")
    mine = {"rows": inputs.shape[0], "inputs": inputs.shape[1], "label": has_label}
    for peer in session.peers:
        send_json(session.channel, peer, "network/shape", mine)
    stated = []
    for name in session.parties:
        value = mine if name == session.parties[session.me] else recv_json(session.channel, name, "network/shape")
        good = isinstance(value, dict) and set(value) == set(mine) and type(value["inputs"]) is int
        if not good or value["rows"] != len(inputs) or not 0 < value["inputs"] < 100_000:
            raise RemoteProtocolError(name, "network/shape", "states other rows than ours or no inputs")
        stated.append(value)
    labelled = [i for i, value in enumerate(stated) if value["label"] is True]
    if len(labelled) != 1:
        raise RemoteProtocolError(session.peers[0], "network/shape", "exactly one owner must have the label")
    return [value["inputs"] for value in stated], labelled[0]


@dataclass
class _Run:
    """One training run: what is public, the tickets of the epochs that were planned, and our targets if we have any."""

    session: Session
    settings: Settings
    network: Network
    rows: list[npt.NDArray[np.intp]]
    first: int
    targets: list[Words] | None = None
    tickets: dict[int, list[list[Ticket]]] = field(default_factory=dict)

    @property
    def masks(self) -> list[MatrixMask]:
        """The masks of all blocks and owners."""
        return plan_rows(self.network.shape, [len(r) for r in self.rows], self.first)

    @property
    def target_bits(self) -> int:
        """Fractional bits that a target is subtracted with."""
        return SUM_BITS if self.settings.task == "regression" else self.network.scales.delta[-1]

    def plan_epoch(self, epoch: int) -> None:
        """Ask the dealer for all that an epoch takes, in the order of its batches."""
        if epoch >= self.settings.epochs:
            return
        owners, masks = len(self.network.shape.inputs), self.masks
        plans = [self.network.plan_step(masks[b * owners : (b + 1) * owners]) for b in self._order(epoch)]
        outputs = sum(len(r) for r in self.rows) * self.network.shape.outputs
        plans += [plan_guard(len(self.rows) * self.network.shape.size), plan_guard(outputs)]
        tickets = iter(self.session.correlations.plan([request for plan in plans for request in plan]))
        self.tickets[epoch] = [[next(tickets) for _ in plan] for plan in plans]

    def _order(self, epoch: int) -> list[int]:
        return order(self.settings, epoch, len(self.rows))

    def epoch(
        self, epoch: int, blocks: Sequence[Sequence[OwnerMatrix]], weights: Words, moments: Words
    ) -> tuple[Words, Words]:
        """One pass over all batches, then the check of everything it did."""
        *steps, of_weights, of_outputs = self.tickets.pop(epoch)
        all_weights, all_outputs = [], []
        for b, tickets in zip(self._order(epoch), steps, strict=True):
            outputs, weights, moments = self._step(b, tickets, blocks[b], weights, moments)
            all_weights.append(weights)
            all_outputs.append(outputs.reshape(-1))
        self._check(of_weights, all_weights, self.settings.weight_limit, WEIGHT_BITS, "a weight")
        what = "a residual" if self.settings.task == "regression" else "an output"
        self._check(of_outputs, all_outputs, OUTPUT_LIMIT[self.settings.task], SUM_BITS, what)
        return weights, moments

    def _step(
        self, b: int, tickets: Sequence[Ticket], block: Sequence[OwnerMatrix], weights: Words, moments: Words
    ) -> tuple[Words, Words, Words]:
        """What is checked of one batch's outputs, and weights and momentum after it."""
        net, session = self.network, self.session
        layers = net.shape.split(weights)
        forward = len(block) + 2 * len(net.shape.hidden)
        update = len(net.shape.layers)
        backward = len(block) + net.backward_tickets
        z, hidden = net.forward(session, tickets[:forward], block, layers)
        y = None if self.targets is None else self.targets[b]
        if self.settings.task == "regression" and y is not None:
            z, y = z - y, None
        delta = net.residual(session, tickets[forward : -backward - update], z, y)
        found = net.backward(session, tickets[-backward - update : -update], block, layers, hidden, delta)
        return z, *net.update(session, tickets[-update:], found, (weights, moments), len(z))

    def _check(
        self, tickets: Sequence[Ticket], values: Sequence[Words], limit: float, frac_bits: int, what: str
    ) -> None:
        use = Range(frac_bits=frac_bits, what=what, operation="training a network", tag="network/range")
        guard(self.session, tickets, np.concatenate(values), (-limit, limit), use)
