"""Data and owners for the tests of trees."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tests.vertical import trees_reference
from tests.vertical.helpers import NAMES, run_owners
from vertical.binning import Binned
from vertical.trees import objective
from vertical.trees.predict import scores
from vertical.trees.settings import Block, Layout, Settings
from vertical.trees.train import train

BINS = 8


def table(n, dims, seed, gaps=True):
    """Per owner a table of bins, the second column of each with missing values."""
    rng = np.random.default_rng(seed)
    out = []
    for d in dims:
        codes = rng.integers(1, BINS, size=(n, d)).astype(np.uint8)
        if gaps and d > 1:
            codes[rng.random(n) < 0.2, 1] = 0
        names = tuple(f"c{i}" for i in range(d))
        out.append(Binned(codes, BINS, names, tuple(gaps and i == 1 for i in range(d))))
    return out


def labels(blocks, kind="logistic", seed=9):
    """Labels that depend on one column of each owner, on a pair of columns and on what is missing."""
    rng = np.random.default_rng(seed)
    first, last = blocks[0].codes.astype(float), blocks[-1].codes.astype(float)
    z = sum(0.4 * (b.codes[:, 0].astype(float) - 4) * (1 if i % 2 else -1) for i, b in enumerate(blocks) if b.names)
    z = z + 0.8 * (first[:, 1] == 0) + 0.3 * (first[:, 2] - 4) * (last[:, 2] > 4)
    if kind == "logistic":
        return (rng.random(len(z)) < 1 / (1 + np.exp(-z))).astype(float)
    return 3 * z + rng.normal(size=len(z)) if kind == "squared" else rng.poisson(np.exp(z / 2)).astype(float)


def layout_of(blocks, y, settings, active=0):
    """What the owners agree on."""
    directions = dict(settings.monotone)
    known = tuple(
        Block(len(b.names), b.n_bins, b.missing, tuple(directions.get(n, 0) for n in b.names)) for b in blocks
    )
    return Layout(len(y), known, active, *objective.label_scale(settings, y))


def fit_all(blocks, y, settings: Settings, active=0, checkpoints=None, **options):
    """Train at all owners; results are their parts of the model."""

    def owner(i):
        kept = None if checkpoints is None else checkpoints[i]
        own = replace(settings, monotone=tuple(pair for pair in settings.monotone if pair[0] in blocks[i].names))
        return lambda s: train(s, blocks[i], y if i == active else None, own, checkpoints=kept)

    return run_owners([owner(i) for i in range(len(blocks))], **options)


def score_all(run, blocks):
    """Scores of rows, opened, from the parts of a model."""
    parts = [run.results[name] for name in NAMES[: len(blocks)]]
    scored = run_owners([lambda s, i=i: scores(s, parts[i], blocks[i]) for i in range(len(blocks))])
    found = [scored.results[name] for name in NAMES[: len(blocks)]]
    total = np.add.reduce([f.words for f in found]).view(np.int64) * 2.0 ** -found[0].frac_bits
    return total, found[0].bound


def plain(blocks, y, settings, active=0):
    """The reference's score function on the link's scale, and the owners of its splits."""
    layout = layout_of(blocks, y, settings, active)
    predict, splits = trees_reference.boost(blocks, layout, y, settings)
    factor = 2.0**layout.exponent if settings.objective == "squared" else 1.0
    shift = layout.exponent * np.log(2) if settings.objective == "poisson" else 0.0
    owners = [[-1 if split is None else split[0] for split in tree] for tree in splits]
    return (lambda rows: predict(rows) * factor + shift), np.array(owners)
