"""The same trees in plain NumPy: binned columns in one place, real numbers, complete trees level by level."""

from __future__ import annotations

import numpy as np

from vertical.trees import objective
from vertical.trees.settings import Layout, Settings, candidates, scale_for


def gradients(settings, score, y):
    if settings.objective == "logistic":
        p = 1 / (1 + np.exp(-score))
        return p - y, p * (1 - p)
    if settings.objective == "squared":
        return score - y, np.ones_like(y)
    mean = np.exp(score)
    return mean - y, mean


def boost(blocks, layout: Layout, y, settings: Settings):
    """blocks: per owner `Binned`.  Returns a function from blocks to scores in the objective's units, and the splits."""
    scale = scale_for(settings, layout)
    y = y * 2.0**-layout.exponent
    start = objective.start(settings, layout, y * 2.0**layout.exponent)
    score, trees = np.full(len(y), start), []
    for t in range(settings.trees):
        g, h = gradients(settings, score, y)
        kept = np.ones(len(y), dtype=bool)
        if settings.subsample < 1:
            kept = settings.stream(f"rows/{t}").words(len(y)) < np.uint64(int(settings.subsample * 2.0**53) << 11)
        tree = grow(blocks, layout, settings, scale, (g * kept, h * kept), t)
        score = score + values(tree, blocks, settings.depth)
        trees.append(tree)
    return (lambda rows: start + sum(values(tree, rows, settings.depth) for tree in trees)), [s for s, _ in trees]


def grow(blocks, layout, settings, scale, both, t):
    (g, h), choices, lam = both, candidates(layout, settings, t), scale.reg_lambda
    node, splits, ended = np.zeros(len(g), dtype=int), [], {0: False}
    limits = [(-np.inf, np.inf)]
    for level in range(settings.depth):
        left, below = np.ones(len(g), dtype=bool), {}
        for j in range(1 << level):
            rows = node == j
            best = None if ended[j] else best_split(blocks, choices, settings, scale, (g * rows, h * rows))
            splits.append(best)
            below[2 * j] = below[2 * j + 1] = best is None
            if best is not None:
                left[rows] = goes_left(blocks, best)[rows]
        node, ended = 2 * node + ~left, below
        G, H = (np.bincount(node, v, 2 << level) for v in both)
        weights = -settings.learning_rate * np.clip(G / (H + lam), -settings.leaf, settings.leaf)
        limits = children_limits(limits, weights, splits[-(1 << level) :], layout)
    return splits, np.array([np.clip(w, *limit) for w, limit in zip(weights, limits)])


def children_limits(limits, weights, splits, layout):
    out = []
    for j, ((low, high), split) in enumerate(zip(limits, splits)):
        middle = np.clip((weights[2 * j] + weights[2 * j + 1]) / 2, low, high)
        direction = 0 if split is None else layout.blocks[split[0]].monotone[split[1]]
        upper, lower = (low, middle), (middle, high)
        out += [upper, lower] if direction == 1 else [lower, upper] if direction == -1 else [(low, high)] * 2
    return out


def best_split(blocks, choices, settings, scale, both):
    lam, (G, H) = scale.reg_lambda, (v.sum() for v in both)
    tables = [
        np.stack([[np.bincount(column, v, block.n_bins) for column in block.codes.T] for v in both])
        for block in blocks
        if block.codes.size
    ]
    best, found = scale.gamma, None
    for o, f, b, missing_left, direction in zip(
        choices.owner, choices.feature, choices.bins, choices.left, choices.monotone
    ):
        low = 0 if missing_left else 1
        GL, HL = tables[o][:, f, low : b + 1].sum(axis=1)
        if scale.least > HL or scale.least > H - HL:
            continue
        a, b_ = HL + lam, H - HL + lam
        u = GL - G * a / (a + b_)
        gain = u * u * (a + b_) / (a * b_)
        if gain > best and direction * u >= 0:
            best, found = gain, (o, f, b, missing_left)
    return found


def goes_left(blocks, split):
    o, f, b, missing_left = split
    code = blocks[o].codes[:, f]
    return np.where(code == 0, missing_left, code <= b)


def values(tree, blocks, depth):
    splits, weights = tree
    node = np.zeros(len(blocks[0].codes), dtype=int)
    for level in range(depth):
        left = np.ones(len(node), dtype=bool)
        for j in range(1 << level):
            split = splits[(1 << level) - 1 + j]
            if split is not None:
                left[node == j] = goes_left(blocks, split)[node == j]
        node = 2 * node + ~left
    return weights[node]
