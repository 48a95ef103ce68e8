"""The same networks in the clear, by PyTorch's autograd in double precision, for the tests of `vertical.network`."""

from __future__ import annotations

import numpy as np
import torch

from mpc.ring import decode
from vertical.network import Settings, batches, first_weights, order
from vertical.network_scales import WEIGHT_BITS

FUNCTIONS = {"tanh": torch.tanh, "sigmoid": torch.sigmoid, "silu": torch.nn.functional.silu}


def in_the_clear(parts: list[np.ndarray], y: np.ndarray, settings: Settings) -> tuple[np.ndarray, np.ndarray]:
    """Weights, flat in our order, and outputs of the training rows: same first weights, batches, optimiser and epochs."""
    shape = settings.shape([part.shape[1] for part in parts])
    start = [decode(w, WEIGHT_BITS) for w in shape.split(first_weights(settings, shape))]
    linear = [torch.tensor(part.copy(), requires_grad=True) for w in start for part in (w[:-1], w[-1])]
    X = torch.tensor(np.clip(np.hstack(parts), -8, 8))
    t = torch.tensor((y - y.mean()) / y.std() if settings.task == "regression" else y)

    def forward(x: torch.Tensor) -> torch.Tensor:
        for i in range(0, len(linear), 2):
            x = (x if i == 0 else FUNCTIONS[settings.activation](x)) @ linear[i] + linear[i + 1]
        return x

    def loss(z: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        if settings.task == "multiclass":
            return torch.nn.functional.cross_entropy(z, target.long())
        if settings.task == "regression":
            return ((z[:, 0] - target) ** 2).mean() / 2
        return torch.nn.functional.binary_cross_entropy_with_logits(z[:, 0], target)

    rates = {"lr": settings.learning_rate, "momentum": settings.momentum, "weight_decay": settings.weight_decay}
    optimiser, rows = torch.optim.SGD(linear, **rates), batches(settings, len(y))
    for epoch in range(settings.epochs):
        for b in order(settings, epoch, len(rows)):
            optimiser.zero_grad()
            loss(forward(X[rows[b]]), t[rows[b]]).backward()
            optimiser.step()
    found = [part.detach().numpy() for part in linear]
    weights = np.concatenate([np.vstack(pair).reshape(-1) for pair in zip(found[::2], found[1::2], strict=True)])
    return weights, forward(X).detach().numpy()
