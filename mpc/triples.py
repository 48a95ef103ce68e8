"""What multiplication, squaring, bitwise AND and bit conversion of shared values ask of the dealer; all exact in Z_2^64.

The correlations are Beaver's: the parties open x - a and y - b for uniform a and b and combine the openings with shares of
the product of a and b.  Every array is of unsigned 64-bit words unless said; a request whose shapes do not fit together,
or whose size is absurd, does not parse.

Source: Beaver, CRYPTO 1991; Demmler, Schneider, Zohner (ABY), NDSS 2015 for the bit shared in both worlds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self, get_args

import numpy as np
import numpy.typing as npt
from pydantic import AfterValidator, Field, model_validator

from mpc.correlations import MAX_WORDS, Correlation, Piece, register
from mpc.ring import matmul

Words = npt.NDArray[Any]
Op = Literal["mul", "matmul", "conv1d", "conv2d", "conv_transpose1d", "conv_transpose2d"]
OPS: tuple[Op, ...] = get_args(Op)
MAX_DIMS = 8


def _bounded(shape: tuple[int, ...]) -> tuple[int, ...]:
    if math.prod(shape) > MAX_WORDS:
        raise ValueError(f"an array of shape {shape} is over the dealer's limit")
    return shape


# JSON has no tuples, so a list is taken for one; the numbers themselves stay strict.
Shape = Annotated[
    tuple[Annotated[int, Field(ge=0, le=MAX_WORDS)], ...],
    Field(strict=False, max_length=MAX_DIMS),
    AfterValidator(_bounded),
]
Steps = Annotated[tuple[Annotated[int, Field(ge=0, le=1 << 16)], ...], Field(strict=False, max_length=2)]


def product(op: Op, x: Words, y: Words, **conv: Any) -> Words:
    """The bilinear map `op` mod 2^64, as numpy and PyTorch define it.

    x, y: uint64 words.  conv: stride, padding, dilation (a tuple each) and groups, for convolutions only.
    """
    if op == "mul":
        return np.asarray(np.multiply(x, y))
    if op == "matmul" and x.ndim in (1, 2) and y.ndim in (1, 2):
        out = matmul(np.atleast_2d(x), y.reshape(y.shape[0], math.prod(y.shape[1:])))
        return out.reshape(x.shape[:-1] + y.shape[1:])
    import torch  # only a dealer or party that needs large products pays for loading it

    a, b = (torch.from_numpy(np.require(w.view(np.int64), requirements=["W", "C"])) for w in (x, y))
    result: Words = getattr(torch, op)(a, b, **conv).numpy()
    return np.ascontiguousarray(result).view(np.uint64).reshape(result.shape)


def _matmul_shape(a: tuple[int, ...], b: tuple[int, ...]) -> tuple[int, ...]:
    left, right = (1, *a) if len(a) == 1 else a, (*b, 1) if len(b) == 1 else b
    if not a or not b or left[-1] != right[-2]:
        raise ValueError(f"shapes {a} and {b} do not multiply as matrices")
    batch = np.broadcast_shapes(left[:-2], right[:-2])
    return batch + left[-2 : -1 if len(a) > 1 else -2] + (right[-1:] if len(b) > 1 else ())


@register
class Triple(Correlation):
    """Uniform a and b, and shares of c = op(a, b).

    stride, padding, dilation: one number per spatial dimension, and groups: for convolutions; else left at their defaults.
    Drawn by each party: a (shape0), b (shape1).  Derived: c.
    """

    kind: Literal["triple"] = "triple"
    op: Op
    shape0: Shape
    shape1: Shape
    stride: Steps = ()
    padding: Steps = ()
    dilation: Steps = ()
    groups: Annotated[int, Field(ge=1, le=1 << 16)] = 1

    @property
    def conv(self) -> dict[str, Any]:
        """The keyword arguments of a convolution; empty for other products."""
        if not self.op.startswith("conv"):
            return {}
        return {"stride": self.stride, "padding": self.padding, "dilation": self.dilation, "groups": self.groups}

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of c.  Raises: ValueError if the operands do not fit together."""
        if self.op.startswith("conv"):
            return self._conv_shape()
        if (self.stride, self.padding, self.dilation, self.groups) != ((), (), (), 1):
            raise ValueError(f"'{self.op}' takes no stride, padding, dilation or groups")
        if self.op == "mul":
            return np.broadcast_shapes(self.shape0, self.shape1)
        return _matmul_shape(self.shape0, self.shape1)

    def _conv_shape(self) -> tuple[int, ...]:
        spatial = int(self.op[-2])
        if not len(self.shape0) == len(self.shape1) == spatial + 2:
            raise ValueError(f"'{self.op}' takes a batch of channels and kernels, {spatial + 2} dimensions each")
        if (
            not len(self.stride) == len(self.padding) == len(self.dilation) == spatial
            or 0 in self.stride + self.dilation
        ):
            raise ValueError(f"'{self.op}' takes {spatial} strides, paddings and dilations, the first and last above 0")
        return self._transposed_shape() if self.op.startswith("conv_transpose") else self._convolved_shape()

    def _convolved_shape(self) -> tuple[int, ...]:
        (batch, channels, *size), (kernels, per_group, *width) = self.shape0, self.shape1
        if channels != per_group * self.groups or kernels % self.groups:
            raise ValueError(f"{channels} channels and {kernels} kernels do not split into {self.groups} groups")
        steps = zip(size, width, self.stride, self.padding, self.dilation, strict=True)
        out = tuple((n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in steps)
        if min(out) < 1 or min(width) < 1:
            raise ValueError("the kernel is larger than the padded input")
        return (batch, kernels, *out)

    def _transposed_shape(self) -> tuple[int, ...]:
        (batch, channels, *size), (kernels, per_group, *width) = self.shape0, self.shape1
        if channels != kernels or channels % self.groups:
            raise ValueError(f"{channels} channels and {kernels} kernels do not split into {self.groups} groups")
        steps = zip(size, width, self.stride, self.padding, self.dilation, strict=True)
        out = tuple((n - 1) * s - 2 * p + d * (k - 1) + 1 for n, k, s, p, d in steps)
        if min(out) < 1 or min(width) < 1 or min(size) < 1:
            raise ValueError("the padding leaves nothing of the output")
        return (batch, per_group * self.groups, *out)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        _bounded(self.shape)
        return self

    def uniform(self, party: int) -> tuple[Piece, ...]:
        """Everybody's share of a and b."""
        return (Piece(self.shape0), Piece(self.shape1))

    def derived(self) -> tuple[Piece, ...]:
        """c."""
        return (Piece(self.shape),)

    def derive(self, drawn: Sequence[Sequence[Words]], memory: dict[int, Words]) -> list[Words]:
        """c = op(a, b)."""
        a, b = (piece.combine([d[i] for d in drawn]) for i, piece in enumerate(self.uniform(0)))
        return [product(self.op, a, b, **self.conv)]


@register
class SquarePair(Correlation):
    """Uniform r, and shares of r^2.  Drawn: r.  Derived: r^2."""

    kind: Literal["square"] = "square"
    shape: Shape

    def uniform(self, party: int) -> tuple[Piece, ...]:
        """Everybody's share of r."""
        return (Piece(self.shape),)

    def derived(self) -> tuple[Piece, ...]:
        """r^2."""
        return (Piece(self.shape),)

    def derive(self, drawn: Sequence[Sequence[Words]], memory: dict[int, Words]) -> list[Words]:
        """r^2 mod 2^64."""
        r = Piece(self.shape).combine([d[0] for d in drawn])
        return [np.asarray(np.multiply(r, r))]


@register
class BinaryTriple(Correlation):
    """Uniform a and b shared by exclusive or, and shares of a AND b, bitwise and broadcast.  Drawn: a, b.  Derived: c."""

    kind: Literal["and"] = "and"
    shape0: Shape
    shape1: Shape

    @model_validator(mode="after")
    def _fits(self) -> Self:
        _bounded(np.broadcast_shapes(self.shape0, self.shape1))
        return self

    def uniform(self, party: int) -> tuple[Piece, ...]:
        """Everybody's share of a and b."""
        return (Piece(self.shape0, xor=True), Piece(self.shape1, xor=True))

    def derived(self) -> tuple[Piece, ...]:
        """The bitwise AND."""
        return (Piece(np.broadcast_shapes(self.shape0, self.shape1), xor=True),)

    def derive(self, drawn: Sequence[Sequence[Words]], memory: dict[int, Words]) -> list[Words]:
        """Bitwise AND of a and b."""
        a, b = (piece.combine([d[i] for d in drawn]) for i, piece in enumerate(self.uniform(0)))
        return [np.asarray(np.bitwise_and(a, b))]


@register
class BitPair(Correlation):
    """A random bit shared both ways: by exclusive or, and additively in Z_2^64.

    Drawn: bytes whose lowest bits are the shares by exclusive or.  Derived: the same bit as a ring word.
    """

    kind: Literal["bit"] = "bit"
    shape: Shape

    def uniform(self, party: int) -> tuple[Piece, ...]:
        """A byte for each bit."""
        return (Piece(self.shape, np.uint8, xor=True),)

    def derived(self) -> tuple[Piece, ...]:
        """The bit, 0 or 1, as a ring word."""
        return (Piece(self.shape),)

    def derive(self, drawn: Sequence[Sequence[Words]], memory: dict[int, Words]) -> list[Words]:
        """The exclusive or of the lowest bits."""
        (piece,) = self.uniform(0)
        return [(piece.combine([d[0] for d in drawn]) & np.uint8(1)).astype(np.uint64)]
