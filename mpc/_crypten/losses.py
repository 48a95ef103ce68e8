"""Softmax and the losses of CrypTen, in forms that stay in range: no logarithm of what may be zero, no large exponential.

The functions stand in for CrypTen's own of the same purpose and take its tensors as they are; this module does not import
CrypTen.
"""

from __future__ import annotations

import math
from typing import Any

import torch

from mpc._crypten.functions import fading_exp, log_of_sum, reciprocal_of_sum
from mpc._crypten.nn import Tensor

LEAST_PROBABILITY = 2.0**-10
"""BCELoss takes predictions nearer than this to 0 or 1 for this near, so that 1 / p stays exact to three digits."""


def _exponentials(x: Tensor, dim: int) -> tuple[Tensor, Tensor, Tensor]:
    """x minus its largest along `dim`, exp of that, and the sum of those, which is at least 1."""
    shifted = x - x.max(dim, keepdim=True)[0]
    powers = fading_exp(shifted)
    return shifted, powers, powers.sum(dim, keepdim=True)


def softmax(self: Tensor, dim: int, **_options: Any) -> Tensor:
    """exp(x) over the sum of them along a dimension."""
    if self.dim() == 0 or self.size(dim) == 1:
        return self.new(torch.ones(self.size()))
    _, powers, total = _exponentials(self, dim)
    return powers * reciprocal_of_sum(total, self.size(dim))


def log_softmax(self: Tensor, dim: int, **_options: Any) -> Tensor:
    """x minus the logarithm of the sum of exp(x) along a dimension."""
    if self.dim() == 0 or self.size(dim) == 1:
        return self.new(torch.zeros(self.size()))
    shifted, _, total = _exponentials(self, dim)
    return shifted - log_of_sum(total, self.size(dim))


def log_softmax_backward(ctx: Any, grad: Tensor) -> Tensor:
    """The gradient of the logarithm of softmax: grad - softmax(x) sum(grad)."""
    logs, dim = ctx.saved_tensors
    if grad.dim() == 0 or grad.size(dim) == 1:
        return grad.new(torch.zeros(grad.size()))
    return grad - fading_exp(logs) * grad.sum(dim, keepdim=True)


def cross_entropy_forward(ctx: Any, pred: Tensor, target: Tensor, skip_forward: bool = False) -> Tensor:
    """Cross entropy of scores and one-hot targets, averaged over the batch.

    CrypTen takes the logarithm of the softmax, which is zero for what is unlikely; here it is the difference of logarithms.
    """
    dim = 1 if pred.dim() > 1 else 0
    shifted, powers, total = _exponentials(pred, dim)
    ctx.save_multiple_for_backward([powers * reciprocal_of_sum(total, pred.size(dim)), target])
    ctx.mark_non_differentiable(target)
    if skip_forward:
        return pred.new(0)
    return ((log_of_sum(total, pred.size(dim)) - shifted) * target).sum().div(target.size(0))


def bce_forward(ctx: Any, pred: Tensor, target: Tensor, skip_forward: bool = False) -> Tensor:
    """Binary cross entropy of probabilities, which are first moved into [2^-10, 1 - 2^-10]."""
    inside = pred.hardtanh(LEAST_PROBABILITY, 1 - LEAST_PROBABILITY)
    ctx.mark_non_differentiable(target)
    ctx.save_multiple_for_backward([inside, target])
    if skip_forward:
        return pred.new(0)
    yes, no = type(pred).stack([inside, 1.0 - inside]).log().unbind(dim=0)
    return -(target * (yes - no) + no).mean()


def bce_logits_forward(ctx: Any, logit: Tensor, target: Tensor, skip_forward: bool = False) -> Tensor:
    """Binary cross entropy of logits: max(x, 0) - x t - log sigmoid(|x|), whose logarithm is of 1/2 or more."""
    chance = logit.sigmoid()
    ctx.mark_non_differentiable(target)
    ctx.save_multiple_for_backward([target, chance])
    if skip_forward:
        return chance.new(0)
    negative = logit._ltz()
    likely = chance + (1 - 2 * chance) * negative
    return (logit * (1 - negative - target) - likely.log()).mean()


def erf_backward(ctx: Any, grad: Tensor) -> Tensor:
    """The gradient of the error function: 2 exp(-x^2) / sqrt(pi)."""
    (x,) = ctx.saved_tensors
    near = x.hardtanh(-4, 4)  # exp(-16) is less than the last bit
    return fading_exp(-near.square()).mul(2 / math.sqrt(math.pi)).mul(grad)
