"""What the examples run in: two organisations and a dealer, as real processes on this machine, with a real data set.

    place = world.start(world.sample("heart", 303), purpose="diagnosis")
    silo = accord.open(place.home("clinic"))
    ...
    silo.close()
    place.stop()

A data set of benchmarks/datasets.py is cut by columns the way two organisations would hold it.  Its rows have no names, so
each gets an invented e-mail address.  Each organisation has rows that the other has not, in an order of its own, and a policy
that allows what the examples do.  In real use all of this is there already: docs/operations.md says how it gets there.
"""

from __future__ import annotations

import asyncio
import atexit
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # the data sets are beside this folder, not installed

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from benchmarks.datasets import Dataset, load
from coordinator import server
from silos import catalogue, config, enrol, policy
from silos.demo.run import World
from silos.errors import SiloError

DEALER, KEY, LABEL = "dealer", "email", "y"
ALONE = 20
"""One row in so many is missing at one of the two; it takes turns which."""
START_S = 120.0
RULE = """
[[allow]]
name = "{dataset}"
dataset = "{dataset}"
partners = ["{partner}"]
dealers = ["dealer"]
kinds = ["vertical.glm", "vertical.trees", "vertical.network", "vertical.score"]
purposes = ["{purpose}"]
join = ["email"]
label = {label}
train = ["*"]
predict = ["*"]
outputs = ["decision", "decile", "rounded"]
release = ["coefficients", "inference", "model", "auc", "metrics", "counts", "predictions"]
"""


def sample(name: str, rows: int) -> Dataset:
    """Some rows of a data set, the same ones every time."""
    data = load(name)
    return data.take(np.random.default_rng(1).permutation(len(data.y))[:rows])


def email(row: int) -> str:
    """The invented address of a row's person."""
    return f"person{row}@example.com"


@dataclass
class Parties:
    """Organisations that are ready for jobs.  names: as the data set has them.  active: the one with the label."""

    made: World = field(repr=False)
    names: tuple[str, ...]
    active: str
    purpose: str

    def home(self, name: str) -> Path:
        """The home directory of an organisation."""
        return self.made.home(name).root

    def register(self, name: str, dataset: str, columns: Mapping[str, Any]) -> None:
        """Give an organisation a data set, with a rule in its policy.  columns: with the e-mail addresses."""
        home = self.made.home(name)
        path = home.root / f"{dataset}.parquet"
        pq.write_table(pa.table({key: pa.array(values, from_pandas=True) for key, values in columns.items()}), path)
        catalogue.add(home.catalogue, dataset, path, KEY)
        (partner,) = (other for other in self.names if other != name)
        label = json.dumps([LABEL] if LABEL in columns else [])
        with home.policy.open("a", encoding="utf-8") as text:
            text.write(RULE.format(dataset=dataset, partner=partner, purpose=self.purpose, label=label))

    def stop(self) -> None:
        """End all processes and delete everything."""
        self.made.stop()
        shutil.rmtree(self.made.root, ignore_errors=True)


def start(data: Dataset, purpose: str, dataset: str = "customers") -> Parties:
    """Start everybody; each owner of `data` has its columns as a data set, and the owner of the label has that as `y`."""
    place = begin(data.owners, data.owners[data.active], purpose)
    for number, (name, columns) in enumerate(zip(data.owners, data.columns, strict=True)):
        rows = np.random.default_rng(number).permutation(len(data.y))
        rows = rows[(rows % ALONE != 0) | (rows // ALONE % 2 == number)]
        own = {KEY: [email(i) for i in rows], **{key: values[rows] for key, values in columns.items()}}
        place.register(name, dataset, own | ({LABEL: data.y[rows]} if number == data.active else {}))
    return place


def begin(names: Sequence[str], active: str, purpose: str) -> Parties:
    """Start everybody, without any data.  The processes end with this one, if not before by `stop`."""
    everybody = (*names, DEALER)
    root = Path(tempfile.mkdtemp(prefix="accord-example-"))
    made = World(root, Console(quiet=True), everybody)
    place = Parties(made, tuple(names), active, purpose)
    atexit.register(place.stop)
    server.init_home(root / "coordinator", ["127.0.0.1"], "example.accord/log")
    process = made.start("coordinator", "coordinator", "serve", "--home", str(root / "coordinator"), "--port", "0")
    line = process.stdout.readline() if process.stdout is not None else ""
    if "listening on" not in line:
        raise SiloError("the coordinator did not start")
    url = f"https://127.0.0.1:{line.strip().rpartition(':')[2]}"
    for silo in everybody:
        home = made.home(silo)
        config.init_home(home.root, silo)
        home.config.write_text(f'version = 1\nname = "{silo}"\nlisten = "127.0.0.1:0"\n', encoding="utf-8")
        asyncio.run(enrol.join(home, url, server.create_token(root / "coordinator", silo, 600, False)))
    for silo in everybody:
        home = made.home(silo)
        for partner in (other for other in everybody if other != silo):
            policy.pin(home.policy, partner, made.home(partner).load_identity().fingerprint)
        if silo == DEALER:
            with home.policy.open("a", encoding="utf-8") as text:
                text.write(f"\n[dealer]\nfor = {json.dumps(list(names))}\n")
        made.start(silo, "silo", "serve", "--home", str(home.root))
    _wait(made)
    return place


def _wait(made: World) -> None:
    """Until all nodes are connected; a job would wait for one that is not there."""
    deadline = time.monotonic() + START_S
    for silo in made.silos:
        log = made.root / f"{silo}.log"
        while "is connected to" not in log.read_text(encoding="utf-8"):
            if made.processes[silo].poll() is not None or time.monotonic() > deadline:
                raise SiloError(f"the node of {silo} did not start")
            time.sleep(0.1)


def features(data: Dataset, **forms: str) -> dict[str, list[str]]:
    """All columns as features, as `join` takes them.  forms: by column, how it is read if not as the data set says."""
    out = {}
    for name, own in zip(data.owners, data.features, strict=True):
        asked = [(f.column, forms.get(f.column.replace(" ", "_"), f.kind)) for f in own]
        out[name] = [column if form == "number" else f"{column}:{form}" for column, form in asked]
    return out


def alone(data: Dataset, name: str) -> float:
    """The AUC of a logistic regression on one owner's columns and the label in the clear, by cross-validation.

    What that owner has without the others if the label is its own; else nobody could compute it but an example.
    """
    number = data.owners.index(name)
    numbers, levels = [], []
    for feature in data.features[number]:
        values = data.columns[number][feature.column]
        if feature.kind == "number":
            numbers.append(np.nan_to_num(values, nan=np.nanmean(values)))
        else:
            levels.append(np.where(values == None, "missing", values).astype(str))  # noqa: E711 - elementwise
    inputs = np.empty((len(data.y), len(numbers) + len(levels)), dtype=object)
    for place, column in enumerate([*numbers, *levels]):
        inputs[:, place] = column
    first = len(numbers)
    encoder = ColumnTransformer(
        [
            ("numbers", StandardScaler(), slice(0, first)),
            ("levels", OneHotEncoder(min_frequency=20, handle_unknown="infrequent_if_exist"), slice(first, None)),
        ]
    )
    folds = StratifiedKFold(5, shuffle=True, random_state=1)
    model = make_pipeline(encoder, LogisticRegression(max_iter=1000))
    return float(cross_val_score(model, inputs, data.y, scoring="roc_auc", cv=folds).mean())


def margin(auc: float, positives: int, negatives: int) -> float:
    """Half of a 95 % interval of an AUC, at most: its variance is at most AUC (1 - AUC) over the smaller class."""
    return 1.96 * float(np.sqrt(auc * (1 - auc) / min(positives, negatives)))
