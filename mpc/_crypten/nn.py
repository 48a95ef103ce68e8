"""Layers and gradients of CrypTen, made right: sums, variance, norms, batch normalisation, convolutions.

The functions stand in for CrypTen's own of the same purpose and take its tensors as they are; this module does not import
CrypTen.  What was wrong with each is said beside it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from mpc.errors import LocalProtocolError

Tensor = Any
"""CrypTen's front-end tensor, or a public one of PyTorch where both may come."""


def like(tensor: Tensor, share: torch.Tensor, frac_bits: int | None = None) -> Tensor:
    """A tensor of the same kind from a share, with the same fractional bits unless others are said."""
    return type(tensor).from_shares(share, precision=bits_of(tensor) if frac_bits is None else frac_bits)


def bits_of(tensor: Tensor) -> int:
    """The fractional bits of a shared tensor."""
    return int(tensor.encoder.scale).bit_length() - 1


def _axes(x: Tensor, dim: Any) -> list[int]:
    """The dimensions that `dim` names, None being all of them, as numbers from 0."""
    chosen = range(x.dim()) if dim is None else [dim] if isinstance(dim, int) else dim
    return [int(d) % x.dim() for d in chosen] if x.dim() else []


def _spread(grad: Tensor, size: Sequence[int], axes: Sequence[int]) -> Tensor:
    """The gradient of a sum over `axes`: the same at every summand."""
    kept = [1 if i in axes else n for i, n in enumerate(size)]
    return grad.reshape(kept).expand(*size).clone() if kept else grad


# CrypTen's gradients of sums and means multiply by a tensor of ones, which costs a round and a rounding, and of those over
# several dimensions at once they have none.


def sum_forward(ctx: Any, x: Tensor, dim: Any = None, keepdim: bool = False) -> Tensor:
    """Sum over one dimension, several or all."""
    axes = _axes(x, dim)
    ctx.save_multiple_for_backward((x.size(), axes))
    return x.sum() if dim is None else x.sum(axes, keepdim=keepdim)


def sum_backward(ctx: Any, grad: Tensor) -> Tensor:
    """The gradient of a sum."""
    size, axes = ctx.saved_tensors
    return _spread(grad, size, axes)


def mean_forward(ctx: Any, x: Tensor, dim: Any = None, keepdim: bool = False) -> Tensor:
    """Mean over one dimension, several or all."""
    axes = _axes(x, dim)
    ctx.save_multiple_for_backward((x.size(), axes))
    return x.mean() if dim is None else x.mean(axes, keepdim=keepdim)


def mean_backward(ctx: Any, grad: Tensor) -> Tensor:
    """The gradient of a mean."""
    size, axes = ctx.saved_tensors
    return _spread(grad.div(max(1, math.prod(size[i] for i in axes))), size, axes)


# CrypTen's variance divides by n where n - 1 is asked for, and the other way round.


def variance(self: Tensor, dim: Any = None, unbiased: bool = True, keepdim: bool = False) -> Tensor:
    """The variance over one dimension, several or all: by n - 1 if unbiased, as PyTorch does by default, else by n.

    Raises: LocalProtocolError if nothing is left to divide by.
    """
    if isinstance(dim, bool):
        dim, unbiased = None, dim
    axes = _axes(self, dim)
    centred = self - (self.mean(axes, keepdim=True) if axes else self)
    total = centred.square()
    if axes:
        total = total.sum() if dim is None else total.sum(axes, keepdim=keepdim)
    return total.div(_divisor(self, axes, unbiased))


def _divisor(x: Tensor, axes: Sequence[int], unbiased: bool) -> int:
    divisor: int = math.prod(x.size(i) for i in axes) - bool(unbiased)
    if divisor < 1:
        raise LocalProtocolError("an unbiased variance takes two values or more")
    return divisor


def variance_forward(ctx: Any, x: Tensor, dim: Any = None, unbiased: bool = True, keepdim: bool = False) -> Tensor:
    """As `variance`, remembered for the gradient."""
    if isinstance(dim, bool):
        dim, unbiased = None, dim
    axes = _axes(x, dim)
    ctx.save_multiple_for_backward((x, axes, _divisor(x, axes, unbiased)))
    return x.var(dim, unbiased=unbiased, keepdim=keepdim)


def variance_backward(ctx: Any, grad: Tensor) -> Tensor:
    """The gradient of a variance: 2 (x - mean) / divisor."""
    x, axes, divisor = ctx.saved_tensors
    centred = x - x.mean(axes, keepdim=True)
    return centred.mul(_spread(grad, x.size(), axes)).mul(2).div(divisor)


def norm_backward(ctx: Any, grad: Tensor) -> Tensor:
    """The gradient of a norm; CrypTen's forgets the dimension it was taken over.

    Raises: LocalProtocolError for other norms than 1, 2 and infinity.
    """
    x, norm, p, dim, keepdim = ctx.saved_tensors
    inner = dim is not None and not keepdim
    grad = grad.unsqueeze(dim) if inner else grad
    if p in ("fro", 2):
        return x.mul(grad.div(norm.unsqueeze(dim) if inner else norm))
    if p == float("inf"):
        return grad.mul(norm).mul(x)  # what was kept is the largest one's place and the sign
    if p == 1:
        return grad.mul(x.sign())
    raise LocalProtocolError(f"the gradient of a {p}-norm is not offered")


def inv_sqrt_forward(ctx: Any, x: Tensor) -> Tensor:
    """1 / sqrt(x), remembered for the gradient."""
    y = x.inv_sqrt()
    ctx.save_for_backward(y)
    return y


def inv_sqrt_backward(ctx: Any, grad: Tensor) -> Tensor:
    """The gradient of 1 / sqrt(x): -y^3 / 2.  CrypTen differentiates its approximation instead."""
    (y,) = ctx.saved_tensors
    return y.square().mul(y).mul(grad).div(-2)


def polynomial_backward(ctx: Any, grad: Tensor) -> Tensor:
    """The gradient of a polynomial; CrypTen's changes the caller's coefficients."""
    x, coefficients, func = ctx.saved_tensors
    steps = coefficients * torch.arange(1, len(coefficients) + 1)
    slope = x.polynomial(steps[1:], func) + steps[0] if len(steps) > 1 else steps[0]
    return grad.mul(slope)


def expand_forward(ctx: Any, x: Tensor, *sizes: Any) -> Tensor:
    """Broadcast to a size."""
    ctx.save_for_backward(x.size())
    return x.expand(*sizes)


def expand_backward(ctx: Any, grad: Tensor) -> Tensor:
    """The gradient of a broadcast: sums over what was repeated.  CrypTen drops it without a word."""
    (size,) = ctx.saved_tensors
    return _gathered(grad, size)


def _gathered(grad: Tensor, size: Sequence[int]) -> Tensor:
    """The gradient of what was broadcast from `size`: sums over what was repeated."""
    lead = grad.dim() - len(size)
    total = grad.sum(list(range(lead))) if lead else grad
    repeated = [i for i, n in enumerate(size) if n == 1 and total.size(i) > 1]
    return total.sum(repeated, keepdim=True) if repeated else total


def matmul_backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
    """The gradients of a matrix product; CrypTen computes those that nobody asked for too."""
    x, y = ctx.saved_tensors
    left, right = x.unsqueeze(0) if x.dim() < 2 else x, y.unsqueeze(1) if y.dim() < 2 else y
    middle = grad.unsqueeze(-1) if y.dim() < 2 else grad
    middle = middle.unsqueeze(-2) if x.dim() < 2 else middle
    x_grad = y_grad = None
    if x.requires_grad:
        x_grad = middle.matmul(right.transpose(-2, -1))
        x_grad = _gathered(x_grad.squeeze(-2) if x.dim() < 2 else x_grad, x.size())
    if not torch.is_tensor(y) and y.requires_grad:
        y_grad = left.transpose(-2, -1).matmul(middle)
        y_grad = _gathered(y_grad.squeeze(-1) if y.dim() < 2 else y_grad, y.size())
    return x_grad, y_grad


# CrypTen's batch normalisation takes its two variances the wrong way round, which cancels its inverted flag for one of them.


def batchnorm_forward(
    ctx: Any,
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    running_mean: Tensor = None,
    running_var: Tensor = None,
    training: bool = False,
    eps: float = 1e-5,
    momentum: float = 0.1,
    inv_var: Tensor = None,  # noqa: ARG001 - computed anew: it could be of another model's variance
) -> Tensor:
    """Normalise channels by the batch's mean and variance, or by the running ones when not training.

    As PyTorch does, the batch is normalised by the variance by n, and the running one moves towards that by n - 1.
    """
    axes, shape = [i for i in range(x.dim()) if i != 1], [x.size(1) if i == 1 else 1 for i in range(x.dim())]
    if training:
        count = x.nelement() // x.size(1)
        if count < 2:
            raise LocalProtocolError("batch normalisation takes two values of a channel or more")
        mean = x.mean(axes)
        centred = x - mean.reshape(shape)
        spread = centred.square().mean(axes)
        if running_mean is not None and running_var is not None:
            running_mean.set(running_mean * (1.0 - momentum) + mean * momentum)
            running_var.set(running_var * (1.0 - momentum) + spread * (momentum * count / (count - 1)))
    elif running_mean is None or running_var is None:
        raise LocalProtocolError("batch normalisation takes the running mean and variance when not training")
    else:
        centred, spread = x - running_mean.reshape(shape), running_var
    plain = torch.is_tensor(spread)
    scale = (1.0 / torch.sqrt(spread + eps) if plain else (spread + eps).inv_sqrt()).reshape(shape)
    weight, bias = weight.reshape(shape), bias.reshape(shape)
    normal = centred * scale
    ctx.save_multiple_for_backward((normal, weight, scale, training))
    return normal * weight + bias


def batchnorm_train(self: Any, mode: bool = True) -> Any:
    """Switch a normalising layer between training and use.

    CrypTen's keeps 1 / sqrt(variance) of the moment it is switched, and of the dummy model that was encrypted later.
    """
    for parameter in self.parameters():
        parameter.requires_grad = mode
    self.training, self.inv_var = mode, None
    return self


# CrypTen's gradient of a kernel repeats the output's gradient once per input channel, and has none for some groups.


def conv_backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
    """The gradients of a convolution with respect to its input and, if that is shared, its kernel."""
    x, kernel, padding, stride, dilation, groups = ctx.saved_tensors
    name, spatial = f"conv{x.dim() - 2}d", range(x.dim() - 2)
    missing = [
        x.size(i + 2)
        - ((grad.size(i + 2) - 1) * stride[i] - 2 * padding[i] + dilation[i] * (kernel.size(i + 2) - 1) + 1)
        for i in spatial
    ]
    x_grad = None
    if x.requires_grad:
        steps = {"stride": tuple(stride), "padding": tuple(padding), "dilation": tuple(dilation), "groups": groups}
        transposed = getattr(grad, name.replace("conv", "conv_transpose"))
        x_grad = transposed(kernel, output_padding=tuple(missing), **steps)
    if torch.is_tensor(kernel):
        return (x_grad,)
    # The kernel's gradient is a convolution too, of input channels by output channels, with the batch as the channels.
    steps = {"stride": tuple(dilation), "padding": tuple(padding), "dilation": tuple(stride)}
    ins, outs = x.size(1) // groups, kernel.size(0) // groups
    parts = []
    for group in range(groups):
        left = x.narrow(1, group * ins, ins).transpose(0, 1)
        right = grad.narrow(1, group * outs, outs).transpose(0, 1)
        part = getattr(left, name)(right, **steps).transpose(0, 1)
        for i in spatial:
            part = part.narrow(i + 2, 0, kernel.size(i + 2))
        parts.append(part)
    return x_grad, parts[0] if groups == 1 else type(grad).cat(parts, dim=0)


def join(op: str, tensors: Sequence[Tensor], *args: Any, **kwargs: Any) -> Tensor:
    """Concatenate or stack; CrypTen's turns public ones into shared ones at the wrong place of the list."""
    first = next(t for t in tensors if not torch.is_tensor(t) and not isinstance(t, int | float))
    parts = [first.new(t) if torch.is_tensor(t) or isinstance(t, int | float) else t for t in tensors]
    fine = max(int(t.encoder.scale) for t in parts)
    shares = [t.share * (fine // int(t.encoder.scale)) for t in parts]
    if any(getattr(t, "ptype", None) is not getattr(first, "ptype", None) for t in parts):
        raise LocalProtocolError("shared values cannot be joined with shared bits")
    result = first.clone()
    result.share = getattr(torch, op)(shares, *args, **kwargs)
    result.encoder = next(t.encoder for t in parts if int(t.encoder.scale) == fine)
    return result
