"""One mini-batch of a neural network on shares: what it asks of the dealer, forward, the residual, backward, the update.

Numbers are fixed point in Z_2^64: inputs have INPUT_BITS fractional bits, weights WEIGHT_BITS, activations and derivatives
those of `mpc.activations`.  A product keeps the sum of both, and the next activation is taken of it as it is: the forward
pass has no truncation at all.  Going back, each hidden layer has one, or two.

Nothing can wrap: see `vertical.network_scales`.  What the argument there assumes of secret values is checked by the caller,
for every step: see `vertical.network`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mpc.activations import SLOPE_BITS, VALUE_BITS, Activation, plan_activation, split_bits, value_and_slope
from mpc.correlations import Correlation, Ticket
from mpc.errors import LocalProtocolError
from mpc.fourier import plan_series, series
from mpc.functions import SIGMOIDS, Domain, exp, plan_exp, plan_reciprocal, reciprocal
from mpc.matrix import MatrixMask, MatrixProduct, OwnerMatrix, minus, multiply
from mpc.onehot import frozen
from mpc.products import multiply as product
from mpc.products import multiply_many, plan_matmul, plan_multiply
from mpc.session import Session
from mpc.truncation import plan_truncation, truncate, truncate_many
from mpc.wire import recv_words, send_words
from vertical.network_scales import FIRST_BITS, INPUT_BITS, SUM_BITS, WEIGHT_BITS, Scales, Shape, Task

Words = npt.NDArray[Any]
_POWER = Domain(low=-12, high=12, frac_bits=26, checked=False)
_TOTAL = Domain(low=-10, high=14, frac_bits=26, checked=False)


def plan_rows(shape: Shape, blocks: Sequence[int], first: int) -> list[MatrixMask]:
    """What masking every owner's inputs asks of the dealer, a mask for each block of rows and owner.

    blocks: rows of each block.  first: the number of the first mask; owner i's of block b is first + b owners + i.
    """
    k = len(shape.inputs)
    return [
        MatrixMask(matrix=first + b * k + i, owner=i, n_rows=rows, n_cols=d)
        for b, rows in enumerate(blocks)
        for i, d in enumerate(shape.inputs)
    ]


def mask_rows(
    session: Session, tickets: Sequence[Ticket], mine: Words, blocks: Sequence[int]
) -> list[list[OwnerMatrix]]:
    """Mask every owner's inputs, each block of rows under a mask of its own; per block, all owners' matrices in order.

    tickets: for `plan_rows`.  mine: our inputs, (n, d) int16, n the sum of the blocks; copied and frozen.

    Reveals: nothing.
    Cost: 1 round; to every other party, 8 n d bytes; the dealer sends nothing.
    Security: semi-honest parties; the dealer does not collude.  As `mpc.matrix.mask_matrices`: one mask, one block.
    Source: Mohassel and Zhang, "SecureML", IEEE S&P 2017, section IV-C.
    """
    k, cuts = len(session.parties), np.cumsum([0, *blocks])
    own: dict[int, OwnerMatrix] = {}
    for ticket in tickets:
        request, drawn = ticket.request, session.correlations.take(ticket)[0]
        if not isinstance(request, MatrixMask):
            raise LocalProtocolError(f"correlation {ticket.index} is not for masking a matrix")
        if request.owner == session.me:
            b = len(own)
            content = frozen(mine[cuts[b] : cuts[b + 1]])
            own[b] = OwnerMatrix(request.matrix, session.me, content)
            masked = minus(content, drawn[0])
            for peer in session.peers:
                send_words(session.channel, peer, "matrix/mask", masked)
    out = [[own[b]] * k for b in range(len(blocks))]
    for i, ticket in enumerate(tickets):
        request = ticket.request
        if isinstance(request, MatrixMask) and request.owner != session.me:
            size = (request.n_rows, request.n_cols)
            body = recv_words(session.channel, session.parties[request.owner], "matrix/mask", size, np.uint64)
            out[i // k][request.owner] = OwnerMatrix(request.matrix, request.owner, body)
    return out


@dataclass(frozen=True)
class Network:
    """A network's public description: all that determines what one batch does."""

    shape: Shape
    task: Task
    activation: Activation
    scales: Scales

    def plan_forward(self, masks: Sequence[MatrixMask]) -> list[Correlation]:
        """What the outputs of one block of rows, under these masks, ask of the dealer."""
        rows, widths = masks[0].n_rows, self.shape.hidden
        plan: list[Correlation] = [_first(mask, widths[0], transpose=False) for mask in masks]
        for a, b in zip(widths, (*widths[1:], self.shape.outputs), strict=True):
            plan += [plan_activation(rows * a, self.activation), plan_matmul((rows, a), (a, b))]
        return plan

    @property
    def backward_tickets(self) -> int:
        """Correlations of `backward` without those of the owners' inputs."""
        return sum(4 + (m > 0) for m in self.scales.middle)

    def plan_step(self, masks: Sequence[MatrixMask]) -> list[Correlation]:
        """What one step of training on one block of rows asks of the dealer, in order of use."""
        rows, hidden = masks[0].n_rows, self.shape.hidden
        plan = [*self.plan_forward(masks), *self._plan_residual(rows)]
        for i in reversed(range(len(hidden))):
            width, above = hidden[i], (*hidden, self.shape.outputs)[i + 1]
            plan += [plan_matmul((width, rows), (rows, above)), plan_matmul((rows, above), (above, width))]
            if self.scales.middle[i]:
                plan.append(plan_truncation(rows * width, self._back_bits(i) - self.scales.middle[i]))
            dropped = (self.scales.middle[i] or self._back_bits(i)) + SLOPE_BITS - self.scales.delta[i]
            plan += [plan_multiply((rows, width)), plan_truncation(rows * width, dropped)]
        plan += [_first(mask, hidden[0], transpose=True) for mask in masks]
        sizes = [a * b for a, b in self.shape.layers]
        return [*plan, *(plan_truncation(n, drop) for n, drop in zip(sizes, self.scales.drop, strict=True))]

    def _back_bits(self, layer: int) -> int:
        """Fractional bits of the gradient at a hidden layer's activations, as it comes out of the product."""
        return self.scales.delta[layer + 1] + WEIGHT_BITS

    def _plan_residual(self, rows: int) -> list[Correlation]:
        n, bits = rows * self.shape.outputs, self.scales.delta[-1]
        if self.task == "binary":
            return [plan_series(n, split_bits(SIGMOIDS[64.0], bits))]
        if self.task == "regression":
            return [plan_truncation(n, SUM_BITS - bits)]
        to_power = [plan_truncation(n, SUM_BITS - _POWER.frac_bits), *plan_exp(n, _POWER)]
        to_share = [*plan_reciprocal(rows, _TOTAL), plan_multiply((rows, self.shape.outputs), (rows, 1))]
        return [*to_power, *to_share, plan_truncation(n, _POWER.frac_bits + _TOTAL.frac_bits - bits)]

    def forward(
        self, session: Session, tickets: Sequence[Ticket], block: Sequence[OwnerMatrix], weights: Sequence[Words]
    ) -> tuple[Words, list[tuple[Words, Words]]]:
        """Shares of the outputs of one block, (rows, outputs) with SUM_BITS, and each hidden layer's values and slopes.

        tickets: for `plan_forward`.

        Reveals: nothing.
        Cost: 2 rounds for every hidden layer and 1; to every other party, 8 d_j h bytes for the d_j inputs of owner j and h
            first neurons, and for every hidden layer of a neurons before one of b, 12 rows a + 8 a b.
        Security: semi-honest parties; the dealer does not collude.
        Source: Mohassel and Zhang, IEEE S&P 2017; Fu et al., "BlindFL", SIGMOD 2022 (the first layer on shared weights).
        """
        k = len(block)
        cuts = np.cumsum(self.shape.inputs)
        parts = [np.ascontiguousarray(part) for part in np.split(weights[0], cuts)]
        sums = multiply(session, list(zip(block, tickets[:k], parts[:k], strict=True)))
        z, bits, rest = np.add.reduce(sums), FIRST_BITS, list(tickets[k:])
        layers = []
        for i, w in enumerate(weights[1:]):
            z += weights[i][-1] << np.uint64(bits - WEIGHT_BITS)
            value, slope = value_and_slope(session, rest[2 * i], z, bits, self.activation)
            layers.append((value, slope))
            z, bits = product(session, rest[2 * i + 1], value, np.ascontiguousarray(w[:-1])), SUM_BITS
        z += weights[-1][-1] << np.uint64(bits - WEIGHT_BITS)
        return z, layers

    def residual(self, session: Session, tickets: Sequence[Ticket], z: Words, y: Words | None) -> Words:
        """Shares of the derivative of the loss by each output, (rows, outputs) with the last layer's bits.

        tickets: for what `plan_step` has between the passes.  y: the targets in those bits at the owner of the label.

        Reveals: nothing.
        Cost: 1 round; for several classes 18.
        Security: semi-honest parties; the dealer does not collude.
        Source: `mpc.fourier` and, for several classes, `mpc.functions`.
        """
        bits = self.scales.delta[-1]
        if self.task == "binary":
            out = series(session, tickets[0], z.reshape(-1), SUM_BITS, split_bits(SIGMOIDS[64.0], bits)).reshape(
                z.shape
            )
        elif self.task == "regression":
            out = truncate(session, z, tickets[0])
        else:
            out = self._softmax(session, tickets, z)
        return out if y is None else out - y

    def _softmax(self, session: Session, tickets: Sequence[Ticket], z: Words) -> Words:
        cut = 1 + len(plan_exp(z.size, _POWER))
        power = exp(session, tickets[1:cut], truncate(session, z, tickets[0]), _POWER)
        inverse = reciprocal(session, tickets[cut:-2], power.sum(axis=1, dtype=np.uint64), _TOTAL)
        return truncate(session, product(session, tickets[-2], power, inverse[:, None]), tickets[-1])

    def backward(
        self,
        session: Session,
        tickets: Sequence[Ticket],
        block: Sequence[OwnerMatrix],
        weights: Sequence[Words],
        layers: Sequence[tuple[Words, Words]],
        delta: Words,
    ) -> list[Words]:
        """Shares of the gradient of every layer's weights, summed over the rows; bits as `Scales.gradient`.

        tickets: for what `plan_step` has after the residual and before the update.

        Reveals: nothing.
        Cost: 3 rounds for every hidden layer, 4 if `Scales.middle` says so, and 1; to every other party, for every hidden
            layer of a neurons before one of b, 8 (4 rows a + 2 rows b + a b) bytes, 8 rows a more for a fourth round; and
            8 rows h to each owner of inputs, for h first neurons.
        Security: semi-honest parties; the dealer does not collude.
        Source: as `forward`.
        """
        gradients: list[Words] = []
        rest = list(tickets)
        for i in reversed(range(len(layers))):
            (to_weights, to_values), rest = rest[:2], rest[2:]
            value, slope = layers[i]
            above = np.ascontiguousarray(weights[i + 1][:-1].T)
            by_weight, by_value = multiply_many(
                session, [(to_weights, np.ascontiguousarray(value.T), delta), (to_values, delta, above)]
            )
            bias = delta.sum(axis=0, dtype=np.uint64) << np.uint64(VALUE_BITS)
            gradients.insert(0, np.vstack([by_weight, bias]))
            if self.scales.middle[i]:
                by_value = truncate(session, by_value, rest.pop(0))
            delta = truncate(session, product(session, rest[0], by_value, slope), rest[1])
            rest = rest[2:]
        parts = multiply(session, [(m, ticket, delta) for m, ticket in zip(block, rest, strict=True)])
        bias = delta.sum(axis=0, dtype=np.uint64) << np.uint64(INPUT_BITS)
        return [np.vstack([*parts, bias]), *gradients]

    def update(
        self,
        session: Session,
        tickets: Sequence[Ticket],
        gradients: Sequence[Words],
        state: tuple[Words, Words],
        rows: int,
    ) -> tuple[Words, Words]:
        """Weights and momentum after one step, as flat shares with WEIGHT_BITS.

        The momentum is kept multiplied by the learning rate: u' = momentum u + rate (gradient + decay w), w' = w - u'.
        tickets: the last ones of `plan_step`.  state: weights and momentum before.

        Reveals: nothing.
        Cost: 1 round; 8 bytes for every weight to every other party.
        Security: semi-honest parties; the dealer does not collude.
        Source: Polyak 1964 (momentum), in the form of PyTorch's SGD.
        """
        weights, moments = (self.shape.split(flat) for flat in state)
        sums = []
        for i, (g, w, u) in enumerate(zip(gradients, weights, moments, strict=True)):
            step, keep, decay = (np.uint64(factor) for factor in self.scales.factors(i, rows))
            sums.append((g * step + u * keep + w * decay).reshape(-1))
        moved = np.concatenate(truncate_many(session, tickets, sums))
        return state[0] - moved, moved


def _first(mask: MatrixMask, width: int, *, transpose: bool) -> MatrixProduct:
    """A product of one owner's inputs with the first layer's weights, or of their transpose with its gradient."""
    n_in, n_out = (mask.n_rows, mask.n_cols) if transpose else (mask.n_cols, mask.n_rows)
    return MatrixProduct(
        matrix=mask.matrix, owner=mask.owner, transpose=transpose, n_in=n_in, n_out=n_out, vectors=width, bits=mask.bits
    )
