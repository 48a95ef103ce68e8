"""Sizes, fixed-point scales and the optimiser's multipliers of a neural network on shares, and why nothing can wrap.

Inputs have INPUT_BITS fractional bits, weights WEIGHT_BITS, activations and derivatives those of `mpc.activations`.  With
every weight within a public limit, every input within INPUT_LIMIT and every activation and derivative within its tabulated
bound, the largest magnitude of every intermediate follows layer by layer, and the bits of what is carried back are chosen
so that each stays below 2^61.  A network for which that cannot be done is refused before it starts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from mpc.activations import ACTIVATIONS, SLOPE_BITS, VALUE_BITS, Activation
from mpc.errors import LocalProtocolError
from mpc.ring import encode

Words = npt.NDArray[Any]
Task = Literal["binary", "multiclass", "regression"]

INPUT_BITS, WEIGHT_BITS = 12, 18
INPUT_LIMIT = 8.0
"""Inputs beyond it, in standard deviations, are taken as being there: they are held in 16 bits."""
FIRST_BITS, SUM_BITS = INPUT_BITS + WEIGHT_BITS, VALUE_BITS + WEIGHT_BITS
OUTPUT_LIMIT: dict[Task, float] = {"binary": 32.0, "multiclass": 7.0, "regression": 16.0}
"""How large an output may be while training; for regression, the residual."""
RESIDUAL: dict[Task, float] = {"binary": 1.01, "multiclass": 1.01, "regression": 16.0}
MAX_CLASSES = 14
"""So many powers of at most e^7 add up to less than 2^14."""
_HEADROOM = 61
"""Bits that a value may have."""
_FINE, _ROUGHEST = 14, 10
"""Fractional bits of a gradient for which another truncation is worth a round, and without which it is too rough."""


@dataclass(frozen=True)
class Shape:
    """Sizes of a network.  inputs: of each owner, in order.  hidden: neurons of each hidden layer."""

    inputs: tuple[int, ...]
    hidden: tuple[int, ...]
    outputs: int

    @property
    def layers(self) -> tuple[tuple[int, int], ...]:
        """(inputs and one for the bias, outputs) of every layer: the shapes of the weights, bias last."""
        widths = (sum(self.inputs), *self.hidden, self.outputs)
        return tuple((a + 1, b) for a, b in pairwise(widths))

    @property
    def size(self) -> int:
        """Number of weights and biases."""
        return sum(a * b for a, b in self.layers)

    def split(self, flat: Words) -> list[Words]:
        """Weights of every layer, as views of a flat vector of all."""
        cuts = np.cumsum([a * b for a, b in self.layers])[:-1]
        return [w.reshape(shape) for w, shape in zip(np.split(flat, cuts), self.layers, strict=True)]


@dataclass(frozen=True)
class Rates:
    """The optimiser: stochastic gradient descent with momentum and weight decay, as PyTorch's SGD."""

    learning_rate: float
    momentum: float
    weight_decay: float
    weight_limit: float


@dataclass(frozen=True)
class Scales:
    """Fractional bits of what is carried back, and of the update.

    delta: per layer, of the gradient at its outputs.  middle: per hidden layer, of the gradient at its activations, if that
    is truncated too before it meets their derivatives, else 0.  gradient: per layer, of the gradient of its weights.
    drop: per layer, how many more bits than a weight its update has before it is truncated.
    """

    rates: Rates
    delta: tuple[int, ...]
    middle: tuple[int, ...]
    gradient: tuple[int, ...]
    drop: tuple[int, ...]

    def factors(self, layer: int, rows: int) -> tuple[int, int, int]:
        """Multipliers of the summed gradient over `rows` rows, of the momentum and of the weights, in one layer's update.

        The first is rounded by 1 part in 16 at most.  Raises: LocalProtocolError if that cannot be.
        """
        up = 2.0 ** self.drop[layer]
        step = round(self.rates.learning_rate / rows * up * 2.0 ** (WEIGHT_BITS - self.gradient[layer]))
        if step < 8:
            raise LocalProtocolError(f"a learning rate of {self.rates.learning_rate:g} is too small for {rows} rows")
        return step, round(self.rates.momentum * up), round(self.rates.learning_rate * self.rates.weight_decay * up)


def _bits(x: float) -> int:
    """The least e with x < 2^e."""
    return math.frexp(x)[1]


def scales(shape: Shape, task: Task, activation: Activation, rates: Rates, rows: int) -> Scales:
    """The most precise scales with which nothing can reach 2^61 for batches of up to `rows` rows.

    Raises: LocalProtocolError if there are none: the network is too deep, too wide or its weights may be too large.
    """
    layers, last = shape.layers, len(shape.layers) - 1
    sizes, delta, middle = [RESIDUAL[task]] * (last + 1), [16] * (last + 1), [0] * last
    for i in range(last, 0, -1):
        back = layers[i][1] * rates.weight_limit * sizes[i]
        sizes[i - 1] = back * activation.steepest
        delta[i] = min(20, _HEADROOM - WEIGHT_BITS - SLOPE_BITS - _bits(sizes[i - 1]))
        if delta[i] < _FINE:
            delta[i] = min(_FINE, _HEADROOM - WEIGHT_BITS - _bits(back))
            middle[i - 1] = min(_FINE, _HEADROOM - SLOPE_BITS - _bits(sizes[i - 1]))
    drop, fits = [], True
    for i, width in enumerate(layers):
        entry = INPUT_LIMIT if i == 0 else max(1.0, activation.largest)
        move = rates.learning_rate * (entry * sizes[i] + rates.weight_decay * rates.weight_limit)
        drop.append(min(40, _HEADROOM - WEIGHT_BITS - _bits(move / (1 - rates.momentum))))
        if i == 0:  # fewer bits leave its step more of them, where what is carried back could be large
            delta[0] = min(delta[0], drop[0] + 2 - _bits(rows / rates.learning_rate))
        forward = _bits(width[0] * entry * rates.weight_limit) + (SUM_BITS if i else FIRST_BITS)
        backward = delta[i] + (VALUE_BITS if i else INPUT_BITS) + _bits(rows * entry * sizes[i])
        fits = fits and max(forward, backward) <= _HEADROOM and min(delta[i], drop[i]) >= _ROUGHEST
    if not fits or any(0 < m < _ROUGHEST for m in middle) or min(middle, default=0) < 0:
        raise LocalProtocolError(
            "the network is too deep or too wide, or learns too fast or slowly, for its weight limit: a value might not fit"
        )
    gradient = [d + (VALUE_BITS if i else INPUT_BITS) for i, d in enumerate(delta)]
    return Scales(rates, tuple(delta), tuple(middle), tuple(gradient), tuple(drop))


def as_inputs(X: npt.NDArray[np.float64]) -> Words:
    """Standardised inputs as they are multiplied: int16 with INPUT_BITS fractional bits, limited to INPUT_LIMIT."""
    largest = np.iinfo(np.int16).max
    return np.clip(np.rint(X * 2.0**INPUT_BITS), -largest, largest).astype(np.int16)


def as_targets(y: npt.NDArray[np.float64], task: Task, outputs: int, bits: int) -> Words:
    """Labels as words: (n, outputs); one-hot for several classes."""
    values = np.eye(outputs)[y.astype(np.int64)] if task == "multiclass" else y[:, None]
    return encode(values, bits)


def activation_called(name: str) -> Activation:
    """One of `mpc.activations`.  Raises: LocalProtocolError if there is none of this name."""
    if name not in ACTIVATIONS:
        raise LocalProtocolError(f"an activation is one of {', '.join(ACTIVATIONS)}, not '{name}'")
    return ACTIVATIONS[name]
