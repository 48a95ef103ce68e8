"""One tree after the other: what is kept between them, and the steps of one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mpc.correlations import Correlation
from mpc.errors import LocalProtocolError
from mpc.matrix import MatrixMask, OwnerMatrix, mask_matrices, plan_masks
from mpc.onehot import OneHot
from mpc.ring import encode
from mpc.session import Session
from vertical.binning import Binned
from vertical.checkpoints import expect
from vertical.trees import constraints, histogram, leaves, objective, paths, routing, splits
from vertical.trees.model import Fitted
from vertical.trees.settings import SCORE_BITS, START, Candidates, Layout, Scale, Settings, candidates, scale_for
from vertical.trees.splits import NO_SPLIT, Rule
from vertical.trees.stopping import Stopping
from vertical.trees.supply import Supply

Floats = npt.NDArray[np.float64]
Words = npt.NDArray[Any]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

ARRAYS = {"owners": np.int64, "feature": np.int64, "bins": np.int64, "left": np.bool_, "leaves": np.uint64}
"""What is kept of every tree, and of which type; only leaves are shares."""


@dataclass
class Grower:
    """A model in the making.  y: labels of `objective.in_units` at their owner.  score: our share of every row's
    score, for squared without the labels' mean, which is in base."""

    session: Session
    inputs: Binned
    layout: Layout
    settings: Settings
    scale: Scale
    y: Floats | None
    supply: Supply
    masks: list[MatrixMask]
    matrices: list[OwnerMatrix]
    score: Words
    base: Words
    model: dict[str, list[Words]]
    stopping: Stopping
    planned: int = 0
    stopped: bool = False

    @classmethod
    def start(
        cls,
        session: Session,
        inputs: Binned,
        y: Floats | None,
        layout: Layout,
        settings: Settings,
        restored: tuple[int, dict[str, Words]] | None,
    ) -> Grower:
        """Ask for the first correlations, then mask every owner's bins.

        Reveals, Cost, Security, Source: as `mpc.matrix.mask_matrices`.
        Raises: LocalProtocolError if a restored state is not of such a model, or rounding would lose the labels.
        """
        shapes = [(layout.n_rows, columns) for columns in histogram.masks_needed(layout)]
        base = np.zeros(1, dtype=np.uint64)
        if y is not None:
            base += encode(np.array([objective.start(settings, layout, y)]), SCORE_BITS)
        scale = scale_for(settings, layout)
        grower = cls(
            session,
            inputs,
            layout,
            settings,
            scale,
            None if y is None else objective.in_units(settings, layout, scale, y),
            Supply(session),
            plan_masks(shapes, 0, 32),
            [],
            np.repeat(base * np.uint64(settings.objective != "squared"), layout.n_rows),
            base,
            {name: [] for name in ARRAYS},
            Stopping.of(settings, layout.n_rows),
        )
        if restored is not None:
            grower.restore(*restored)
        tickets = session.correlations.plan(grower.masks)
        grower.plan()
        codes = OneHot(inputs.codes, inputs.n_bins)
        grower.matrices = mask_matrices(session, shapes, codes, 0, 32, tickets=tickets)
        return grower

    @property
    def grown(self) -> int:
        """Trees so far."""
        return len(self.model["leaves"])

    def plan(self) -> None:
        """Ask for the correlations of the next tree, and of the one after it unless training may stop before."""
        ahead = self.grown + (1 if self.settings.patience else 2)
        while self.planned < min(ahead, self.settings.trees):
            self.supply.plan(self._requests(self.planned))
            self.planned += 1

    def _requests(self, tree: int) -> list[Correlation]:
        settings, layout, scale = self.settings, self.layout, self.scale
        n, owners = layout.n_rows, len(layout.blocks)
        choices = candidates(layout, settings, tree)
        rule = Rule.of(scale, choices)
        out = objective.plan_gradients(settings, layout, scale, tree)
        for level in range(settings.depth):
            nodes = 1 << level
            out += histogram.plan_sums(self.masks, max(1, nodes // 2))
            out += [*splits.plan_choice(rule, nodes), *splits.plan_announcement(choices, nodes)]
            if layout.constrained or level == settings.depth - 1:
                out += leaves.plan_child_sums(nodes, len(choices))
            out += routing.plan_descent(settings, level, n, owners)
        count = 1 << settings.depth
        out += leaves.plan_weights(scale, 2 * count - 2 if layout.constrained else count)
        out += constraints.plan_bounded(settings.depth) if layout.constrained else []
        out += routing.plan_values(settings, n)
        return out + self.stopping.plan(settings, layout, tree + 1)

    def grow(self) -> None:
        """One more tree.

        Reveals, Cost, Security, Source: as `vertical.trees.train.train`, of one tree.
        """
        session, settings, supply, tree = self.session, self.settings, self.supply, self.grown
        self.plan()
        choices = candidates(self.layout, settings, tree)
        rule = Rule.of(self.scale, choices)
        wanted = objective.plan_gradients(settings, self.layout, self.scale, tree)
        tickets = supply.take(len(wanted))
        both = objective.gradients(session, tickets, self.score, self.y, settings, self.scale, tree)
        both = both * self._looked_at(tree).astype(np.uint64)
        hidden = settings.routing == "hidden"
        rows: routing.Routing = routing.Hidden(session, supply, both) if hidden else routing.Revealed(session, both)
        tables: list[Words] | None = None
        ended = np.zeros(1, dtype=np.bool_)
        made: list[tuple[Ints, Ints]] = []
        sums: list[Words] = []
        for level in range(settings.depth):
            last = level == settings.depth - 1
            left_tables = histogram.sums(session, supply, self.matrices, self.layout, rows.vectors())
            tables = histogram.level(tables, left_tables)
            chosen = splits.choose(session, supply, *histogram.to_the_left(tables, self.layout, choices), rule)
            owners, own = splits.announce(session, supply, chosen.index, choices, ended)
            if self.layout.constrained or last:
                sums.append(leaves.child_sums(session, supply, chosen, owners, own))
            rows.descend(owners, self._directions(choices, own), last=last)
            ended = np.repeat(owners == NO_SPLIT, 2)
            made.append((owners, own))
        weight = self._weights(sums, choices, made)
        self.score = self.score + rows.values(weight)
        self._note(choices, made, weight)
        self.stopped = self.stopping.stop(session, supply, self.score, self.y, settings)

    def _looked_at(self, tree: int) -> Bools:
        """The rows of this tree: sampled, and not held back."""
        n, part = self.layout.n_rows, self.settings.subsample
        if part == 1:
            return ~self.stopping.held
        drawn = self.settings.stream(f"rows/{tree}").words(n) < np.uint64(int(part * 2.0**53) << 11)
        return np.asarray(drawn & ~self.stopping.held)

    def _directions(self, choices: Candidates, own: Ints) -> Bools:
        """(nodes, n): where our own splits send rows left."""
        out = np.zeros((len(own), self.layout.n_rows), dtype=np.bool_)
        for node in np.flatnonzero(own != NO_SPLIT):
            c = own[node]
            out[node] = paths.goes_left(
                self.inputs.codes, int(choices.feature[c]), int(choices.bins[c]), bool(choices.left[c])
            )
        return out

    def _weights(self, sums: list[Words], choices: Candidates, made: list[tuple[Ints, Ints]]) -> Words:
        """Shares of the leaves' weights."""
        session, supply, settings = self.session, self.supply, self.settings
        found = leaves.weights(session, supply, np.concatenate(sums), settings, self.scale)
        if not self.layout.constrained:
            return found
        per_level = np.split(found, np.cumsum([len(s) for s in sums])[:-1])
        directions = []
        for _, own in made:
            asked = np.where(own == NO_SPLIT, 0, choices.monotone[own])
            directions.append(np.stack([asked == 1, asked == -1]).astype(np.uint64))
        return constraints.bounded(session, supply, per_level, directions, settings)

    def _note(self, choices: Candidates, made: list[tuple[Ints, Ints]], weight: Words) -> None:
        """Add a tree to the model."""
        owners, own = (np.concatenate([level[i] for level in made]) for i in range(2))
        mine = own != NO_SPLIT
        self.model["owners"].append(owners)
        self.model["feature"].append(np.where(mine, choices.feature[own], NO_SPLIT))
        self.model["bins"].append(np.where(mine, choices.bins[own], NO_SPLIT))
        self.model["left"].append(mine & choices.left[own])
        self.model["leaves"].append(weight)

    def state(self) -> dict[str, Words]:
        """Everything that is needed to go on."""
        kept = {name: np.stack(trees) for name, trees in self.model.items()}
        losses = np.concatenate([*self.stopping.losses, np.empty(0, dtype=np.uint64)])
        return kept | {"score": self.score, "base": self.base, "losses": losses, "stopped": np.array([self.stopped])}

    def restore(self, step: int, state: dict[str, Words]) -> None:
        """Go on from a state.  Raises: LocalProtocolError if it is not of such a model."""
        nodes = (1 << self.settings.depth) - 1
        for name, dtype in ARRAYS.items():
            width = nodes + 1 if name == "leaves" else nodes
            self.model[name] = list(expect(state, name, (step, width), dtype))
        self.score = expect(state, "score", (self.layout.n_rows,))
        self.base = expect(state, "base", (1,))
        self.stopping.losses = list(expect(state, "losses", (step if self.stopping.patience else 0,))[:, None])
        self.stopped = bool(expect(state, "stopped", (1,), np.bool_)[0])
        self.planned = step

    def fitted(self) -> Fitted:
        """The model so far, without the trees that bettered nothing."""
        kept = self.grown - (self.stopping.patience if self.stopped else 0)
        if not kept:
            raise LocalProtocolError("no tree was trained")
        layout, settings = self.layout, self.settings
        # Centred scores start at zero, which the bound has START for; the mean that is added may be larger.
        mean = 2.0**layout.offset - START["squared"] if settings.objective == "squared" else 0.0
        arrays = {name: np.stack(trees[:kept]) for name, trees in self.model.items()}
        return Fitted(
            me=self.session.me,
            parties=len(layout.blocks),
            objective=settings.objective,
            exponent=layout.exponent,
            depth=settings.depth,
            frac_bits=SCORE_BITS,
            bound=settings.bound(kept) + mean,
            n_bins=self.inputs.n_bins,
            names=self.inputs.names,
            base=self.base,
            **arrays,
        )
