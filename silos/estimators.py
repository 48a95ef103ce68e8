"""Models over several silos' columns, with the manners of scikit-learn.

    import silos.sdk as accord

    with accord.open("/var/lib/accord/lender") as silo:
        joined = silo.join("platform:payments", "loans", ["email"], purpose="credit risk", label="default",
                           features={"lender": ["income"], "platform": ["BILL_AMT1", "PAY_3:category"]}, dealer="dealer")
        model = accord.VerticalLogisticRegression().fit(joined)
        print(model.summary())
        model.coefficients_, model.auc_, model.metrics_

Every model is one job: `fit` submits it, waits, and reads what it released to this silo.  `fit` also takes a job that was
submitted already.  What a model is asked to release is in its disclosure and in the partners' policies, like in every job.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from sklearn.base import BaseEstimator

from silos.asking import Key, parse_partners
from silos.errors import ConfigError, SpecError
from silos.summary import summary

if TYPE_CHECKING:
    from silos.released import Result
    from silos.sdk import Job, Silo

__all__ = [
    "Joined",
    "VerticalGammaRegression",
    "VerticalGradientBoosting",
    "VerticalLinearRegression",
    "VerticalLogisticRegression",
    "VerticalMultinomialRegression",
    "VerticalNetwork",
    "VerticalPoissonRegression",
    "VerticalTweedieRegression",
]

Features = Mapping[str, Sequence[str | Mapping[str, Any]]]
_FORMS = ("number", "category", "text")


@dataclass(frozen=True)
class Joined:
    """Rows that match across silos and the columns that each silo brings: everything a model's job says but the model.

    request: as in docs/job.md, without `kind`, `train` and `release`.
    """

    silo: Silo = field(repr=False)
    request: Mapping[str, Any]


def join_request(
    me: str,
    with_: str | Sequence[str] | Mapping[str, str],
    data: str,
    keys: Sequence[Key | str],
    options: Mapping[str, Any],
) -> dict[str, Any]:
    """A request without a model.  options: as `silos.sdk.Silo.join` names them.  Raises: SpecError."""
    given = dict(options)
    partners = (
        dict(with_) if isinstance(with_, Mapping) else parse_partners([with_] if isinstance(with_, str) else with_)
    )
    datasets = {me: data, **partners}
    read = [Key.of(key) for key in keys]
    features, partner_keys = given.pop("features", {}), given.pop("partner_keys", {})
    own = {name: given.pop(name, None) for name in ("label", "offset", "weight")}
    at, groups = given.pop("label_at", None) or me, given.pop("groups", {})
    for what, named in (("features", features), ("partner_keys", partner_keys), ("groups", groups), ("label_at", [at])):
        _known(what, named, datasets)
    align = {**given.pop("align", {}), "keys": [{"rule": key.rule, "region": key.region} for key in read]}
    parties = [
        {
            "silo": silo,
            "dataset": dataset,
            "keys": [list(columns) for columns in partner_keys.get(silo, [key.columns for key in read])],
            "features": [_feature(one) for one in features.get(silo, ())],
            "groups": list(groups.get(silo, ())),
            **({name: column for name, column in own.items() if column is not None} if silo == at else {}),
        }
        for silo, dataset in datasets.items()
    ]
    return {**given, "parties": parties, "align": align}


def _known(what: str, named: Iterable[str], datasets: Mapping[str, str]) -> None:
    """Whatever is said by silo must be of one that takes part.  Raises: SpecError."""
    unknown = sorted(set(named) - set(datasets))
    if unknown:
        raise SpecError(f"'{what}' names {unknown[0]}, which is not among {', '.join(datasets)}")


def prediction_request(
    me: str,
    model: str,
    trained: Mapping[str, Any],
    with_: str | Sequence[str] | Mapping[str, str],
    data: str,
    options: Mapping[str, Any],
) -> dict[str, Any]:
    """A request for predictions.  trained: the spec of the job that made the model.  Raises: SpecError."""
    given = dict(options)
    partners = (
        dict(with_) if isinstance(with_, Mapping) else parse_partners([with_] if isinstance(with_, str) else with_)
    )
    datasets = {**partners, me: data}
    missing = [party["silo"] for party in trained["parties"] if party["silo"] not in datasets]
    if missing:
        raise SpecError(f"the model is of {missing[0]} too: say which data set it predicts for")
    read = [Key.of(key) for key in given.pop("keys", ())]
    align = {**trained["align"], **given.pop("align", {})}
    if read:
        align["keys"] = [{"rule": key.rule, "region": key.region} for key in read]
    offsets = given.pop("offset", {})
    _known("offset", offsets, datasets)
    parties = [
        {
            "silo": party["silo"],
            "dataset": datasets[party["silo"]],
            "keys": [list(key.columns) for key in read] or party["keys"],
            "features": [{**feature, "monotone": 0} for feature in party["features"]],
            "offset": offsets.get(party["silo"], party.get("offset")),
        }
        for party in trained["parties"]
    ]
    given.setdefault("recipients", [me])
    if given.get("randomness") is None and "dealer" not in given:
        given |= {"randomness": trained["randomness"], "dealer": trained["dealer"]}
    return {**given, "kind": "vertical.score", "model": model, "parties": parties, "align": align}


def _feature(feature: str | Mapping[str, Any]) -> dict[str, Any]:
    """A column, perhaps with ":category" or ":text" behind it."""
    if not isinstance(feature, str):
        return dict(feature)
    column, colon, form = feature.rpartition(":")
    return {"column": column, "as": form} if colon and form in _FORMS else {"column": feature}


class _Estimator(BaseEstimator):  # type: ignore[misc]  # scikit-learn is untyped
    """What all models have: settings are the constructor's arguments, what was found ends in an underscore."""

    kind: ClassVar[str]
    _release: ClassVar[tuple[str, ...]] = ("model", "metrics", "counts")

    job_: Job
    result_: Result

    def fit(self, data: Joined | Job, *, progress: bool = False) -> Self:
        """Train: submit the job for these rows, or take one that was submitted, and wait until it is over.

        progress: show bars.
        Raises: SpecError, CatalogueError, DisclosureError, JobFailed with the reason; ConfigError if the job released
        nothing to this silo.
        """
        job = data.silo.submit(self.request(data)) if isinstance(data, Joined) else data
        self.job_ = job.wait(progress=progress)
        self.result_ = job.result()
        return self

    def request(self, data: Joined) -> dict[str, Any]:
        """The job request, for a look at it before it is submitted, or for `accord job submit`."""
        return {"release": self._items(), **data.request, "kind": self.kind, "train": self._train()}

    def _items(self) -> list[str]:
        return list(self._release)

    def _train(self) -> dict[str, Any]:
        given = {name: value for name, value in self.get_params().items() if value is not None}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in given.items()}

    def _fitted(self) -> dict[str, Any]:
        if not hasattr(self, "result_"):
            raise ConfigError(f"this {type(self).__name__} is not fitted: call fit first")
        return self.result_.values

    @property
    def metrics_(self) -> dict[str, Any]:
        """The evaluation on held-out rows, numbers as text; empty if it was not released."""
        return dict(self._fitted().get("metrics", {}))

    @property
    def auc_(self) -> float:
        """The area under the ROC curve on held-out rows.  Raises: ConfigError if it was not released."""
        values = self._fitted()
        found = values.get("auc") or values.get("metrics", {}).get("auc")
        if found is None:
            raise ConfigError("the job released no AUC")
        return float(found)

    def summary(self) -> str:
        """A table for people: rows, how good the model is, and this silo's coefficients."""
        self._fitted()
        return summary(type(self).__name__, self.result_.document)

    def report(self, path: str | Path) -> None:
        """Write one HTML file with the model, its figures and curves.  Raises: ConfigError."""
        from silos.report import report

        self._fitted()
        Path(path).write_text(report(self.result_.document, disclosure=self.job_.disclosure), encoding="utf-8")


def _numbers(value: str | Sequence[str]) -> float | list[float]:
    return float(value) if isinstance(value, str) else [float(one) for one in value]


class _Glm(_Estimator):
    kind = "vertical.glm"
    family: ClassVar[str]

    def _items(self) -> list[str]:
        asked, given = ["coefficients", *self._release], self.get_params()
        # A lasso has no standard errors.
        return ["inference", *asked] if given.get("inference") and not given.get("lasso") else asked

    def _train(self) -> dict[str, Any]:
        settings = super()._train()
        settings.pop("inference", None)
        return {"family": self.family, **settings}

    @property
    def coefficients_(self) -> dict[str, Any]:
        """Of this silo's standardised inputs, by name; with the intercept at the owner of the label.

        Numbers; for several classes, lists of them.  Raises: ConfigError if they were not released.
        """
        model = self._fitted().get("model", {})
        if any("coefficient" not in item for item in model.get("inputs", [{}])):
            raise ConfigError("the job released no coefficients")
        found = {item["input"]: _numbers(item["coefficient"]) for item in model["inputs"]}
        return found if model["intercept"] is None else {"intercept": _numbers(model["intercept"]), **found}


class VerticalLogisticRegression(_Glm):
    """Logistic regression.  ridge: penalty, scikit-learn's 1/C.  inference: standard errors, tests and intervals."""

    family = "logistic"

    def __init__(
        self, ridge: float = 0.0, lasso: float = 0.0, passes: int | None = None, inference: bool = True
    ) -> None:
        self.ridge, self.lasso, self.passes, self.inference = ridge, lasso, passes, inference


class VerticalLinearRegression(_Glm):
    """Least squares, with a penalty if `ridge` or `lasso` is above 0."""

    family = "linear"

    def __init__(self, ridge: float = 0.0, lasso: float = 0.0, inference: bool = True) -> None:
        self.ridge, self.lasso, self.inference = ridge, lasso, inference


class VerticalPoissonRegression(_Glm):
    """Counts with a logarithmic link; `offset` of the joined rows is the logarithm of the exposure."""

    family = "poisson"

    def __init__(
        self, ridge: float = 0.0, lasso: float = 0.0, passes: int | None = None, inference: bool = True
    ) -> None:
        self.ridge, self.lasso, self.passes, self.inference = ridge, lasso, passes, inference


class VerticalGammaRegression(_Glm):
    """Positive amounts whose standard deviation grows with their mean, with a logarithmic link."""

    family = "gamma"

    def __init__(self, ridge: float = 0.0, passes: int | None = None, inference: bool = True) -> None:
        self.ridge, self.passes, self.inference = ridge, passes, inference


class VerticalTweedieRegression(_Glm):
    """Amounts that are often zero: variance mean^power, 1 < power < 2, with a logarithmic link."""

    family = "tweedie"

    def __init__(
        self, power: float = 1.5, ridge: float = 0.0, passes: int | None = None, inference: bool = True
    ) -> None:
        self.power, self.ridge, self.passes, self.inference = power, ridge, passes, inference


class VerticalMultinomialRegression(_Glm):
    """Several classes, numbered from 0, by softmax."""

    family = "multinomial"

    def __init__(self, ridge: float = 1.0, passes: int | None = None) -> None:
        self.ridge, self.passes = ridge, passes


class VerticalGradientBoosting(_Estimator):
    """Gradient-boosted trees; arguments as in docs/job.md, subsample and colsample in percent."""

    kind = "vertical.trees"

    def __init__(
        self,
        objective: str = "logistic",
        trees: int = 20,
        depth: int = 5,
        bins: int = 32,
        learning_rate: float = 0.3,
        reg_lambda: float = 1.0,
        gamma: float = 0.0,
        min_child_weight: float = 1.0,
        max_leaf: float | None = None,
        subsample: int = 100,
        colsample: int = 100,
        validation: int = 0,
        patience: int = 0,
        routing: str = "hidden",
    ) -> None:
        self.objective, self.trees, self.depth, self.bins = objective, trees, depth, bins
        self.learning_rate, self.reg_lambda, self.gamma = learning_rate, reg_lambda, gamma
        self.min_child_weight, self.max_leaf, self.routing = min_child_weight, max_leaf, routing
        self.subsample, self.colsample, self.validation, self.patience = subsample, colsample, validation, patience

    @property
    def splits_(self) -> dict[str, int]:
        """How often each of this silo's columns is split on.  Raises: ConfigError if that was not released."""
        if "model" not in self._fitted():
            raise ConfigError("the job released no splits")
        return {item["column"]: int(item["splits"]) for item in self._fitted()["model"]["inputs"]}


class VerticalNetwork(_Estimator):
    """A neural network whose weights nobody sees; arguments as in docs/job.md."""

    kind = "vertical.network"

    def __init__(
        self,
        task: str = "binary",
        hidden: Sequence[int] = (64, 32),
        activation: str = "tanh",
        epochs: int = 10,
        batch: int = 512,
        learning_rate: float = 0.05,
        momentum: float = 0.9,
        weight_decay: float = 1e-4,
        weight_limit: float = 4.0,
        classes: int = 2,
    ) -> None:
        self.task, self.hidden, self.activation, self.epochs, self.batch = task, hidden, activation, epochs, batch
        self.learning_rate, self.momentum, self.weight_decay = learning_rate, momentum, weight_decay
        self.weight_limit, self.classes = weight_limit, classes
