"""Settings of a network, and what one owner keeps of a fitted one."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from mpc.errors import LocalProtocolError
from vertical.network_scales import MAX_CLASSES, Shape, Task, activation_called

Floats = npt.NDArray[np.float64]
Words = npt.NDArray[Any]
FORMAT = "accord-network-1"


@dataclass(frozen=True)
class Settings:
    """How to train.

    task: binary (logistic loss), multiclass (softmax and cross entropy, up to 14 classes) or regression (squared error).
    hidden: neurons of each hidden layer.  activation: tanh, sigmoid or silu.  learning_rate, momentum, weight_decay: as
    PyTorch's SGD.  weight_limit: training stops with an error if a weight leaves it.  seed: of the public randomness.
    """

    task: Task = "binary"
    hidden: tuple[int, ...] = (64, 32)
    activation: str = "tanh"
    epochs: int = 10
    batch: int = 512
    learning_rate: float = 0.05
    momentum: float = 0.9
    weight_decay: float = 1e-4
    classes: int = 2
    weight_limit: float = 4.0
    seed: int = 1

    def __post_init__(self) -> None:
        activation_called(self.activation)
        good = self.task in ("binary", "multiclass", "regression") and 2 <= self.classes <= MAX_CLASSES
        good = good and (self.task == "multiclass" or self.classes == 2)
        if not good:
            raise LocalProtocolError(f"a network is for two classes, 3 to {MAX_CLASSES} of them, or a number")
        if not 1 <= len(self.hidden) <= 4 or not all(2 <= width <= 4096 for width in self.hidden):
            raise LocalProtocolError("a network has 1 to 4 hidden layers of 2 to 4096 neurons")
        if not (1 <= self.epochs <= 10_000 and 1 <= self.batch <= 1 << 20 and 0 <= self.seed < 1 << 63):
            raise LocalProtocolError("epochs, batch or seed of a network are out of range")
        rates = 0 < self.learning_rate <= 10 and 0 <= self.momentum <= 0.99 and 0 <= self.weight_decay <= 1
        if not rates or not 1 <= self.weight_limit <= 64:
            raise LocalProtocolError("the rates or the weight limit of a network are out of range")

    def shape(self, inputs: Sequence[int]) -> Shape:
        """The sizes of the network, for the numbers of inputs of the owners."""
        return Shape(tuple(inputs), self.hidden, self.classes if self.task == "multiclass" else 1)


@dataclass(frozen=True)
class Target:
    """Mean and standard deviation of a regression's label, known to its owner; 0 and 1 for other tasks."""

    mean: float
    sd: float

    @classmethod
    def of(cls, y: Floats, settings: Settings) -> Self:
        """From training labels.  Raises: LocalProtocolError if they are not what the task takes."""
        if not np.isfinite(y).all() or y.ndim != 1:
            raise LocalProtocolError("a label is missing or not a finite number")
        if settings.task == "regression":
            if y.std() <= 0:
                raise LocalProtocolError("the label does not vary over the training rows")
            return cls(float(y.mean()), float(y.std()))
        if not np.isin(y, np.arange(settings.classes)).all():
            raise LocalProtocolError(f"labels are whole numbers from 0 to {settings.classes - 1}")
        return cls(0.0, 1.0)

    def standard(self, y: Floats, largest: float = 8.0) -> Floats:
        """Labels as the network is fitted to them, limited to `largest` standard deviations."""
        return np.clip((y - self.mean) / self.sd, -largest, largest)


@dataclass(frozen=True)
class Fitted:
    """What one owner keeps: its share of every weight, which says nothing without the others' shares.

    inputs: of every owner.  place: ours among them.  active: that of the owner of the label.  target: at that owner, how
    outputs of a regression become labels; None at the others.  weights: flat words with WEIGHT_BITS, all layers in order.
    """

    settings: Settings
    inputs: tuple[int, ...]
    place: int
    active: int
    target: Target | None
    weights: Words = field(repr=False)

    def document(self) -> dict[str, Any]:
        """As plain data, for a file that only we can read."""
        return {
            "format": FORMAT,
            "settings": {
                name: repr(value) if isinstance(value, float) else list(value) if isinstance(value, tuple) else value
                for name, value in asdict(self.settings).items()
            },
            "inputs": list(self.inputs),
            "place": self.place,
            "active": self.active,
            "target": None if self.target is None else [repr(self.target.mean), repr(self.target.sd)],
            "weights": {
                "dtype": "uint64",
                "shape": [self.weights.size],
                "data": base64.b64encode(np.ascontiguousarray(self.weights).tobytes()).decode(),
            },
        }

    @classmethod
    def from_document(cls, document: dict[str, Any]) -> Self:
        """What `document` returned.  Raises: LocalProtocolError for anything else."""
        try:
            return cls._read(document)
        except (KeyError, TypeError, ValueError, AttributeError, binascii.Error) as exc:
            raise LocalProtocolError("this is not an owner's part of a network, or it is damaged") from exc

    @classmethod
    def _read(cls, document: dict[str, Any]) -> Self:
        raw, given = document["weights"], dict(document["settings"])
        for name in ("learning_rate", "momentum", "weight_decay", "weight_limit"):
            given[name] = float(given[name])
        settings = Settings(**{**given, "hidden": tuple(_count(width) for width in given["hidden"])})
        inputs = tuple(_count(d) for d in document["inputs"])
        place, active = _count(document["place"]), _count(document["active"])
        target = None if document["target"] is None else Target(*map(float, document["target"]))
        size = settings.shape(inputs).size
        body = base64.b64decode(raw["data"], validate=True)
        own = (
            document["format"] == FORMAT and max(place, active) < len(inputs) and (target is None) == (place != active)
        )
        if not own or raw["dtype"] != "uint64" or raw["shape"] != [size] or len(body) != 8 * size:
            raise ValueError("not what a part says")
        return cls(settings, inputs, place, active, target, np.frombuffer(body, dtype=np.uint64).copy())


def _count(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 1 << 31:
        raise ValueError("not a count")
    return value
