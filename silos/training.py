"""An owner's part of a job that trains: from the spec and its rows to what is released to it."""

from __future__ import annotations

from typing import Any

from mpc.errors import LocalProtocolError
from silos import kept_training
from silos.disclosure import disclosure
from silos.inputs import read_columns
from silos.models import PART, Learns, ModelPart
from silos.spec import Glm, Network, Training, Trees, spec_digest
from silos.spec_parts import Trainer
from silos.tasks import Done, Task
from vertical import network, regression
from vertical.encoding import Feature
from vertical.job import Data, Label, Plan, Trained, run
from vertical.learners import Encoding, GlmLearner, Learner, NetworkLearner, TreesLearner
from vertical.trees import settings as trees


def train(task: Task) -> Done:
    """Read, match, train, evaluate.  Raises: as `silos.tasks.perform`."""
    spec = task.spec
    if not isinstance(spec, Training):
        raise LocalProtocolError("not a job that trains")
    own = next(p for p in spec.parties if p.silo == task.me)
    plan = Plan(
        terms=task.terms,
        randomness=spec.randomness or "",
        dealer=spec.dealer,
        active=spec.owners.index(spec.active),
        label=None if own.label is None else Label(own.label, own.offset, own.weight),
        features=tuple(Feature(f.column, f.as_) for f in own.features),
        encoding=_encoding(spec),
        learner=learner(spec, own),
        holdout_percent=spec.evaluate.holdout_percent,
        salt=bytes.fromhex(spec.evaluate.salt),
        release=spec.release,
        groups=spec.groups,
        thresholds=spec.evaluate.thresholds,
        bins=spec.evaluate.bins,
    )
    task.progress("read", 0, 1)
    identifiers, batches = task.identifiers()
    categories = tuple(dict.fromkeys((*own.category_columns, *own.groups)))
    columns = read_columns(task.data, own.number_columns, categories, task.me)
    task.check_unchanged()
    channel, keep = task.connect(), kept_training.keep(task)
    earlier = kept_training.earlier(task, keep, channel)
    if earlier is not None:
        return Done(channel, earlier.result, spec.release, earlier.used)

    def document(trained: Trained) -> dict[str, Any]:
        if "model" not in spec.release:
            return trained.result
        return {**trained.result, PART: _part(task, spec, own, plan.learner, trained).document()}

    done = run(plan, Data(identifiers, batches, columns), channel, task.session, task.progress, keep, document)
    return Done(channel, done.result, spec.release, done.used)


def _part(task: Task, spec: Training, own: Trainer, made: Learner, done: Trained) -> ModelPart:
    """What this owner keeps of the model."""
    encoder, fitted = done.part.documents()
    lines = disclosure(spec)["lines"]
    return ModelPart(
        v=1,
        model=spec.job,
        kind=spec.kind,
        family=made.family,
        created=spec.created,
        purpose=spec.purpose,
        silo=task.me,
        owners=spec.owners,
        active=spec.active,
        dataset=task.party.dataset,
        spec_digest=spec_digest(spec),
        schema_hash=done.part.schema_hash(),
        exposed=own.offset is not None,
        features=tuple(f for f in own.features if f.column in done.part.columns),
        encoder=encoder,
        fitted=fitted,
        rows={"training": done.training} if "counts" in spec.release else {},
        metrics={name: done.result[name] for name in ("auc", "contribution", "metrics") if name in done.result},
        reference=done.reference.document(),
        disclosure=tuple(Learns(silo=line["silo"], learns=line["learns"]) for line in lines),
    )


def _encoding(spec: Training) -> Encoding:
    bins = spec.train.bins if isinstance(spec, Trees) else Encoding.bins
    return Encoding(spec.encoding.winsorise_sd, spec.encoding.rare_category, bins)


def learner(spec: Training, own: Trainer) -> Learner:
    """The model that a spec asks for.  Raises: LocalProtocolError if a setting is none that the model takes."""
    if isinstance(spec, Glm):
        return GlmLearner(_regression(spec))
    if isinstance(spec, Trees):
        return TreesLearner(_trees(spec, own))
    if isinstance(spec, Network):
        chosen = spec.train
        return NetworkLearner(
            network.Settings(
                task=chosen.task,
                hidden=chosen.hidden,
                activation=chosen.activation,
                epochs=chosen.epochs,
                batch=chosen.batch,
                learning_rate=float(chosen.learning_rate),
                momentum=float(chosen.momentum),
                weight_decay=float(chosen.weight_decay),
                weight_limit=float(chosen.weight_limit),
                classes=chosen.classes,
                seed=_seed(spec),
            )
        )
    raise LocalProtocolError(f"there is no training of kind '{spec.kind}'")


def _regression(spec: Glm) -> regression.Settings:
    given, active = spec.train, next(p for p in spec.parties if p.label is not None)
    return regression.Settings(
        family=given.family,
        ridge=float(given.ridge),
        lasso=float(given.lasso),
        passes=given.passes,
        inference="inference" in spec.release,
        power=float(given.power or regression.Settings.power),
        weighted=active.weight is not None,
        exposed=active.offset is not None,
        period=given.period,
        harmonics=given.harmonics,
    )


def _trees(spec: Trees, own: Trainer) -> trees.Settings:
    given = spec.train
    return trees.Settings(
        objective=given.objective,
        trees=given.trees,
        depth=given.depth,
        learning_rate=float(given.learning_rate),
        reg_lambda=float(given.reg_lambda),
        gamma=float(given.gamma),
        min_child_weight=float(given.min_child_weight),
        max_leaf=None if given.max_leaf is None else float(given.max_leaf),
        subsample=given.subsample / 100,
        colsample=given.colsample / 100,
        monotone=tuple((f.column, f.monotone) for f in own.features if f.monotone),
        validation=given.validation / 100,
        patience=given.patience,
        seed=_seed(spec),
        routing=given.routing,
    )


def _seed(spec: Training) -> int:
    """Of public choices: rows and columns of a tree, first weights of a network; 48 bits, which every JSON reader keeps."""
    return int(spec.evaluate.salt[:12], 16)
