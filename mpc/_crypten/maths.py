"""CrypTen's fixed-point arithmetic, made exact: what stands in for its encoder, its products' scales and its divisions.

A shared value is an integer of Z_2^64 read as signed, and `frac_bits` says where its point is (CrypTen: encoder, scale
2^frac_bits).  The functions take CrypTen's tensors and encoders as they are; this module does not import CrypTen.
Inputs are checked when encoded and results when opened.  In between nobody sees whether a value leaves the range: the
documentation of every operation says how large its result may be, and `mpc.engine.check_range` looks at a shared one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from mpc import products
from mpc._crypten.seams import current, plan_triple, public_keep_mask, to_tensor, to_words
from mpc.correlations import Correlation, Ticket
from mpc.errors import LocalProtocolError, OutOfRange
from mpc.triples import product
from mpc.truncation import RANGE_BITS, Truncation, truncate

SENTINEL = -1
_EMPTY = torch.empty(0, dtype=torch.int64)
SUMS = ("add", "sub")
Share = Any
"""CrypTen's ArithmeticSharedTensor."""


def encode(self: Any, x: Any, device: Any = None) -> torch.Tensor:  # noqa: ARG001 - CrypTen's signature
    """Public numbers as integers at this encoder's scale, rounded to nearest.

    Integers at scale 1 are ring words already: all 64 bits are theirs.

    Raises: LocalProtocolError if one is not finite or needs more than 62 bits; TypeError if x is not numeric.
    """
    numbers = as_numbers(x)
    if self.scale == 1 and not numbers.is_floating_point():
        return numbers
    if not numbers.is_floating_point():
        limit = (1 << RANGE_BITS) // self.scale
        if numbers.numel() and (int(numbers.max()) >= limit or int(numbers.min()) <= -limit):
            raise LocalProtocolError(f"a value does not fit fixed point with {_bits(self)} fractional bits")
        return numbers * int(self.scale)
    scaled = (numbers * float(self.scale)).round()
    if not bool(torch.isfinite(scaled).all()):
        raise LocalProtocolError("a value is not a number or infinite")
    if scaled.numel() and float(scaled.abs().max()) >= 2.0**RANGE_BITS:
        raise LocalProtocolError(f"a value does not fit fixed point with {_bits(self)} fractional bits")
    return scaled.long()


def decode(self: Any, tensor: torch.Tensor | None) -> torch.Tensor | None:
    """Opened integers as float64, exactly wherever float64 can; integers stay integers at scale 1.

    Raises: OutOfRange if one is not what a fixed-point number in range can be.
    """
    if tensor is None or self.scale == 1:
        return tensor
    check_opened(to_words(tensor), _bits(self), "tensor", "revealing")
    return tensor.double() / float(self.scale)


def check_opened(
    words: npt.NDArray[Any], frac_bits: int, name: str, operation: str, limit: float | None = None
) -> None:
    """Refuse opened words that are out of range: 2^62 units and more, or beyond `limit`, in real units, plus one unit.

    Raises: OutOfRange naming the tensor and the operation, but no value.  LocalProtocolError if the limit is none.
    """
    largest = largest_word(frac_bits, limit)
    signed = words.view(np.int64)
    if signed.size and (int(signed.max()) > largest or int(signed.min()) < -largest):
        raise OutOfRange(name, operation, f"within +-{2.0 ** (RANGE_BITS - frac_bits) if limit is None else limit:g}")


def largest_word(frac_bits: int, limit: float | None) -> int:
    """The largest size of a word that is in range.  Raises: LocalProtocolError if there is no such limit."""
    if limit is None:
        return (1 << RANGE_BITS) - 1
    if not 0 <= limit < 2.0 ** (RANGE_BITS - frac_bits):
        raise LocalProtocolError(f"a limit is between 0 and 2^{RANGE_BITS - frac_bits}, not {limit}")
    return math.ceil(limit * 2.0**frac_bits) + 1


def as_numbers(x: Any) -> torch.Tensor:
    """Public numbers as a float64 or int64 tensor."""
    tensor = x if isinstance(x, torch.Tensor) else torch.as_tensor(np.asarray(x))
    if tensor.is_complex() or tensor.dtype == torch.uint64:
        raise TypeError(f"cannot encode numbers of type {tensor.dtype}")
    return tensor.detach().double() if tensor.is_floating_point() else tensor.detach().long()


def _bits(encoder: Any) -> int:
    return int(encoder.scale).bit_length() - 1


def init_shared(
    self: Share,
    tensor: Any = None,
    size: Any = None,
    broadcast_size: bool = False,
    precision: int | None = None,
    src: int = 0,
    device: Any = None,  # noqa: ARG001 - CrypTen's signature
) -> None:
    """Share what party `src` holds: its encoding plus a sharing of zero, so nothing is sent.

    The others say only how large it is: by a tensor of that size, by `size`, or, with `broadcast_size`, they are told.
    """
    if src == SENTINEL:
        return
    comm = current().communicator
    if isinstance(src, bool) or not isinstance(src, int) or not 0 <= src < comm.get_world_size():
        raise LocalProtocolError(f"there is no party {src} to share a tensor from")
    ours = comm.get_rank() == src
    if getattr(tensor, "src", src) != src:
        raise LocalProtocolError(f"a tensor loaded by party {tensor.src} cannot be shared from party {src}")
    if tensor is None and (ours or (size is None and not broadcast_size)):
        raise LocalProtocolError(f"party {src} has no tensor to share" if ours else "the tensor's size is unknown")
    self.encoder = _encoder(self, precision)
    if tensor is not None:
        tensor = as_numbers(tensor)
        size = tensor.size()
    if broadcast_size:
        size = comm.broadcast_obj(size, src)
    self.share = type(self).PRZS(size).share
    if ours:
        self.share += self.encoder.encode(tensor)


def _encoder(tensor: Share, precision: int | None = None) -> Any:
    """An encoder of the kind `tensor` has; None: the default precision."""
    return type(tensor).from_shares(_EMPTY, precision=precision).encoder


def arithmetic(self: Share, y: Any, op: str, inplace: bool = False, **conv: Any) -> Share:
    """self op y, for y shared or public.

    Sums come out at the finer of the two scales.  A product of two fixed-point numbers is divided by the coarser scale, so it
    comes out at the finer one; a product with integers needs no division.  A public float meeting shared integers makes
    the result fixed point at the default precision.
    """
    combine = _private if isinstance(y, type(self)) else _public
    share, encoder = combine(self, y, op, conv)
    target = self if inplace else self.shallow_copy()
    target.share, target.encoder = share, encoder
    return target


def _private(x: Share, y: Share, op: str, conv: dict[str, Any]) -> tuple[torch.Tensor, Any]:
    coarse, fine = sorted((x.encoder, y.encoder), key=lambda encoder: int(encoder.scale))
    if op in SUMS:
        a, b = (t.share if t.encoder.scale == fine.scale else t.share * (fine.scale // t.encoder.scale) for t in (x, y))
        return (a + b if op == "add" else a - b), fine
    return multiplied(op, x.share, y.share, int(coarse.scale), **conv), fine


def _public(x: Share, y: Any, op: str, conv: dict[str, Any]) -> tuple[torch.Tensor, Any]:
    numbers = as_numbers(y)
    lift = numbers.is_floating_point() and x.encoder.scale == 1
    encoder = _encoder(x) if lift else x.encoder
    if op in SUMS:
        share = x.share * (encoder.scale // x.encoder.scale)
        code = encoder.encode(numbers)
        ours = code if current().session.me == 0 else torch.zeros_like(code)
        return (share + ours if op == "add" else share - ours), encoder
    if not numbers.is_floating_point():
        return _apply(op, x.share, numbers, **conv), encoder
    return _rescaled(_apply(op, x.share, encoder.encode(numbers), **conv), x.encoder.scale), encoder


def _apply(op: Any, x: torch.Tensor, y: torch.Tensor, **conv: Any) -> torch.Tensor:
    return to_tensor(product(op, to_words(x), to_words(y), **conv))


def multiplied(op: str, x: torch.Tensor, y: torch.Tensor, divisor: int = 1, **conv: Any) -> torch.Tensor:
    """Shares of op(x, y) in the ring, from shares of x and y, with one triple; then of that over `divisor`.

    Reveals: nothing; every opened word is uniform.
    Cost: 1 round, 2 with a divisor; to every other party, 8 bytes per element of x and y, and of the result to divide it;
    the dealer sends 8 per result in all, 24 with a divisor, asked for at once.
    Security: semi-honest parties; the dealer does not collude.
    Source: Beaver, CRYPTO 1991; for the division, as `mpc.truncation`.
    Raises: LocalProtocolError if the operands do not fit together or there is no triple for this operation.
    """
    more = conv.pop("output_padding", 0)
    pads = conv.pop("padding", 0)
    if op.startswith("conv_transpose") and np.any(more):  # what lies beyond the padding: the whole is wanted, then cut
        whole = multiplied(op, x, y, **conv)
        return _rescaled(_cut(whole, pads, more), divisor)
    request = plan_triple(op, x.shape, y.shape, **({"padding": pads} if op.startswith("conv") else {}), **conv)
    session, words = current().session, (to_words(x), to_words(y))
    tickets = _plan(request, math.prod(request.shape), divisor)
    out = products.multiply(session, tickets[0], *words)
    return to_tensor(truncate(session, out, tickets[1]) if len(tickets) > 1 else out)


def _cut(whole: torch.Tensor, padding: Any, more: Any) -> torch.Tensor:
    """A transposed convolution's output without its padding, but with `more` at the far ends, zeros where there is nothing."""
    for axis in range(2, whole.dim()):
        p, m = (v if isinstance(v, int) else v[axis - 2] for v in (padding, more))
        size = whole.shape[axis]
        whole = torch.nn.functional.pad(whole, (0, 0) * (whole.dim() - 1 - axis) + (0, m))
        whole = whole.narrow(axis, p, size - 2 * p + m)
    return whole.contiguous()


def squared(x: torch.Tensor, divisor: int = 1) -> torch.Tensor:
    """Shares of x^2 in the ring, elementwise, over `divisor`; everything else as `multiplied`, with one operand."""
    session, words = current().session, to_words(x)
    tickets = _plan(products.plan_square(words.shape), words.size, divisor)
    out = products.square(session, tickets[0], words)
    return to_tensor(truncate(session, out, tickets[1]) if len(tickets) > 1 else out)


@lru_cache(maxsize=1024)
def _division(n: int, divisor: int) -> Truncation:
    return Truncation(n=n, divisor=divisor)


def _plan(request: Correlation, n: int, divisor: int) -> list[Ticket]:
    """Ask for a product and, unless there is nothing to divide, for the division of its n results: one way to the dealer."""
    rescale = [_division(n, divisor)] if divisor > 1 and n else []
    return current().session.correlations.plan([request, *rescale])


def beaver_protocol(op: str, x: Share, y: Share, **conv: Any) -> Share:
    """CrypTen's entry to a private product: a tensor of scale 1, whatever the operands' scales."""
    return type(x).from_shares(multiplied(op, x.share, y.share, **conv), precision=0)


def beaver_square(x: Share) -> Share:
    """CrypTen's entry to a private square: a tensor of scale 1."""
    return type(x).from_shares(squared(x.share), precision=0)


def square_(self: Share) -> Share:
    """Square in place, at the same scale."""
    self.share = squared(self.share, int(self.encoder.scale))
    return self


def _rescaled(share: torch.Tensor, divisor: int) -> torch.Tensor:
    """Shares of floor(x / divisor) or one more, for |x| <= 2^62 - divisor; see mpc.truncation."""
    if divisor == 1 or share.numel() == 0:
        return share
    session = current().session
    ticket = session.correlations.plan([_division(share.numel(), divisor)])[0]
    return to_tensor(truncate(session, to_words(share), ticket))


def div_(self: Share, y: Any) -> Share:
    """Divide by public numbers, in place.

    One number for all elements: an integer is exact to one unit in the last place; a number of size 1 or more is rounded to
    the tensor's scale first, and a smaller one is a multiplication by its rounded inverse.  Different floats: a
    multiplication by their rounded inverses.  Shared integers become fixed point at the default precision first.

    Raises: LocalProtocolError on zero, on what is not finite, and on integers that differ between elements.
    """
    numbers = as_numbers(y)
    if not bool((torch.isfinite(numbers) & (numbers != 0)).all()):
        raise LocalProtocolError("division by zero, by infinity or by something that is not a number")
    if numbers.numel() and bool((numbers == numbers.flatten()[0]).all()):
        return _divide_by(self, numbers.flatten()[0].item())
    if not numbers.is_floating_point():
        raise LocalProtocolError(
            "division by integers that differ between elements is not offered; give them as floats"
        )
    return self.mul_(1 / numbers)


def _divide_by(self: Share, y: float) -> Share:
    if self.encoder.scale == 1:
        encoder = _encoder(self)
        self.share, self.encoder = self.share * encoder.scale, encoder
    scale, share, size = int(self.encoder.scale), (self.share if y > 0 else -self.share), abs(y)
    if size == math.floor(size):
        divisor = int(size)
    elif size >= 1:
        share, divisor = share * scale, round(size * scale)
    else:
        share, divisor = share * self.encoder.encode(1 / size), scale
    if divisor > 1 << RANGE_BITS - 1:
        raise LocalProtocolError("the divisor is too large for the ring")
    self.share = _rescaled(share, divisor)
    return self


def power(self: Any, p: Any) -> Any:
    """self to the power of an integer, by squaring: about 2 log2 |p| products."""
    if isinstance(p, float) and p == int(p):
        p = int(p)
    if not isinstance(p, int):
        raise TypeError("only integer powers; for positive values and other exponents there is pos_pow")
    if p < 0:
        return self.reciprocal() if p == -1 else self.reciprocal().pow(-p)
    if p < 2:
        return self.clone() if p else self * 0 + 1
    root = self.square() if p < 4 else self.pow(p // 2).square()
    return root * self if p % 2 else root


def hidden(self: Any) -> str:
    """A representation that shows no share."""
    return f"{type(self).__name__}(<shared>, size={tuple(self.size())})"


def dropout_forward(ctx: Any, input: Any, p: float = 0.5, training: bool = True, inplace: bool = False) -> Any:  # noqa: A002
    """Dropout with a mask that all parties know."""
    return _dropout(ctx, input, p, training, inplace, lambda: public_keep_mask(input.size(), p))


def feature_dropout_forward(ctx: Any, input: Any, p: float = 0.5, training: bool = True, inplace: bool = False) -> Any:  # noqa: A002
    """Dropout of whole channels with a mask that all parties know."""

    def mask() -> torch.Tensor:
        channels = public_keep_mask(input.size()[:2], p)
        return channels.reshape(*channels.shape, *(1 for _ in input.size()[2:])).expand(input.size()).clone()

    return _dropout(ctx, input, p, training, inplace, mask)


def _dropout(ctx: Any, x: Any, p: float, training: bool, inplace: bool, mask: Callable[[], torch.Tensor]) -> Any:
    if not training:
        return x if inplace else x.clone()
    keep = mask()
    scaled = keep / (1.0 - p)
    result = x.mul_(scaled) if inplace else x.mul(scaled)
    ctx.save_multiple_for_backward([keep, p])
    return result
