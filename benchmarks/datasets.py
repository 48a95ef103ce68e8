"""The real data sets of benchmarks and tests, each cut by columns the way organisations would hold them.

What they are and under which licences they come: benchmarks/data/README.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt

from vertical.encoding import Feature

FOLDER = Path(__file__).parent / "data"


@dataclass(frozen=True)
class Cut:
    """How one file is cut.  columns: by owner; one that ends in "*" is a category.  label: at the owner `active`."""

    file: str
    active: str
    label: str
    family: str
    columns: dict[str, Sequence[str]]


CUTS = {
    "adult": Cut(
        "adult",
        "bank",
        "y",
        "logistic",
        {
            "bank": ("capital-gain", "capital-loss", "workclass*", "occupation*", "hours-per-week"),
            "platform": (
                "age",
                "educational-num",
                "marital-status*",
                "relationship*",
                "race*",
                "gender*",
                "native-country*",
            ),
        },
    ),
    "credit_default_taiwan": Cut(
        "credit_default_taiwan",
        "bank",
        "y",
        "logistic",
        {
            "bank": ("LIMIT_BAL", "SEX*", "AGE", "EDUCATION*", "MARRIAGE*", "PAY_0", "PAY_2"),
            "processor": (
                *(f"PAY_{i}" for i in range(3, 7)),
                *(f"BILL_AMT{i}" for i in range(1, 7)),
                *(f"PAY_AMT{i}" for i in range(1, 7)),
            ),
        },
    ),
    "hillstrom": Cut(
        "hillstrom",
        "brand",
        "visit",
        "logistic",
        {
            "brand": ("segment*",),
            "retailer": ("recency", "history", "mens", "womens", "zip_code*", "newbie", "channel*"),
        },
    ),
    "bike_sharing": Cut(
        "bike_sharing_dedup",
        "operator",
        "y",
        "poisson",
        {
            "operator": ("season*", "holiday", "workingday"),
            "weather": ("weather*", "temp", "atemp", "humidity", "windspeed"),
        },
    ),
    "randhie": Cut(
        "randhie",
        "clinic",
        "y",
        "poisson",
        {
            "clinic": ("physlm", "disea", "hlthg", "hlthf", "hlthp"),
            "insurer": ("lncoins", "idp", "lpi", "fmde"),
        },
    ),
    "heart": Cut(
        "heart_cleveland",
        "clinic",
        "y",
        "logistic",
        {
            "clinic": ("age", "sex", "cp*", "trestbps", "chol", "fbs", "exang"),
            "imaging": ("restecg*", "thalach", "oldpeak", "slope*", "ca", "thal*"),
        },
    ),
    "fraud": Cut(
        "fraud_evalml",
        "issuer",
        "y",
        "logistic",
        {
            "issuer": ("amount", "currency*", "country*", "months_to_expiry"),
            "merchant": ("customer_present", "provider*", "lat", "lng", "hour", "dow*"),
        },
    ),
    "obp_clicks": Cut(
        "obp_zozo_clicks",
        "platform",
        "y",
        "logistic",
        {
            "platform": ("position*", "hour", "campaign*", "policy*", "affinity_this_item", "affinity_sum"),
            "brand": ("item_feature_0", "item_feature_1*", "item_feature_2*", "item_feature_3*"),
        },
    ),
    "reviews": Cut(
        "womens_ecommerce_reviews",
        "brand",
        "Recommended IND",
        "logistic",
        {
            "brand": ("Age", "Positive Feedback Count", "Division Name*", "Department Name*"),
            "shop": ("Review Text*",),
        },
    ),
}


@dataclass(frozen=True)
class Dataset:
    """A data set as its owners hold it, rows in the same order at both.

    columns: by owner, name -> (n,) float64 with NaN for missing, or text with None.  y: (n,), at the owner number `active`.
    """

    name: str
    family: str
    owners: tuple[str, ...]
    columns: tuple[dict[str, npt.NDArray[Any]], ...] = field(repr=False)
    features: tuple[list[Feature], ...] = field(repr=False)
    y: npt.NDArray[np.float64] = field(repr=False)
    active: int

    def take(self, rows: npt.NDArray[Any]) -> Dataset:
        """The same data set with these rows only (a mask or indices)."""
        columns = tuple({name: values[rows] for name, values in owned.items()} for owned in self.columns)
        return Dataset(self.name, self.family, self.owners, columns, self.features, self.y[rows], self.active)


def load(name: str) -> Dataset:
    """One of `CUTS`.  Rows whose label is missing are left out."""
    cut = CUTS[name]
    path = FOLDER / f"{cut.file}.parquet"
    relation = duckdb.read_parquet(str(path)).filter(f'"{cut.label}" is not null')
    wanted = [*(c.rstrip("*") for owned in cut.columns.values() for c in owned), cut.label]
    table = relation.project(", ".join(f'"{c}"' for c in wanted)).to_arrow_table()
    columns, features = [], []
    for owned in cut.columns.values():
        columns.append({c.rstrip("*"): _column(table.column(c.rstrip("*")), text=c.endswith("*")) for c in owned})
        features.append([Feature(c.rstrip("*"), "category" if c.endswith("*") else "number") for c in owned])
    y = np.asarray(_column(table.column(cut.label), text=False), dtype=np.float64)
    owners = tuple(cut.columns)
    return Dataset(name, cut.family, owners, tuple(columns), tuple(features), y, owners.index(cut.active))


def _column(values: Any, *, text: bool) -> npt.NDArray[Any]:
    if not text:
        out: npt.NDArray[Any] = np.array(
            [np.nan if v is None else float(v) for v in values.to_pylist()], dtype=np.float64
        )
        return out
    return np.array([None if v is None else str(v) for v in values.to_pylist()], dtype=object)
