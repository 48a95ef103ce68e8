"""Every kind of model as a job between real processes on real data, and what its owners keep of it afterwards."""

import asyncio
import json
import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console
from sklearn.metrics import roc_auc_score

import silos.sdk as accord
from benchmarks.datasets import load
from silos import catalogue
from silos.demo.run import export, run_job, world
from silos.errors import ConfigError, JobFailed
from silos.models import ModelStore
from silos.results import read_result

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

ROWS = 6000
OWNERS = ("lender", "platform")
RULE = """
[[allow]]
name = "train-{name}"
dataset = "{name}"
partners = ["lender", "platform"]
dealers = ["dealer"]
kinds = ["vertical.glm", "vertical.trees", "vertical.network", "vertical.score", "vertical.statistics"]
purposes = ["test"]
join = ["email"]
label = ["y"]
train = ["*"]
groups = ["gender"]
questions = 100
predict = ["*"]
outputs = ["decision", "rounded"]
release = ["coefficients", "inference", "model", "auc", "metrics", "counts", "predictions",
  "label_correlations", "vif", "woe", "information_values", "selection"]
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    with world(tmp_path_factory.mktemp("world"), Console(quiet=True)) as made:
        data = load("adult").take(np.random.default_rng(3).permutation(48_842)[:ROWS])
        for place, silo in enumerate(OWNERS):
            columns = dict(data.columns[place])
            if place == data.active:
                columns["y"] = data.y
            order = np.random.default_rng(place).permutation(ROWS)
            table = {"email": [f"person{i}@example.com" for i in order]}
            table |= {name: pa.array(values[order], from_pandas=True) for name, values in columns.items()}
            path = made.home(silo).root / "adult.parquet"
            pq.write_table(pa.table(table), path)
            catalogue.add(made.home(silo).catalogue, "adult", path, "email")
            with made.home(silo).policy.open("a") as policy:
                policy.write(RULE.format(name="adult"))
        made.data = data
        yield made


def train(made, tmp_path, kind, release, **sections):
    """Run a job to its end; returns the spec and each owner's result."""
    parties = []
    for place, silo in enumerate(OWNERS):
        features = [{"column": f.column, "as": f.kind} for f in made.data.features[place]]
        label = {"label": "y"} if place == made.data.active else {}
        parties.append({"silo": silo, "dataset": "adult", "key": "email", "features": features, **label})
    parties[1]["groups"] = ["gender"]
    body = {"kind": kind, "purpose": "test", "dealer": "dealer", "parties": parties, "release": release, **sections}
    path = tmp_path / "job.json"
    path.write_text(json.dumps(body))
    spec, view = asyncio.run(run_job(made, path))
    assert view["state"] == "done", view["reason"]
    return spec, [read_result(made.home(silo).result(spec.job))["result"] for silo in OWNERS]


def check(made, tmp_path, spec, results, least):
    """What every kind has in common: the same figures at both, a good AUC, parts that are kept, a bundle that verifies."""
    assert results[0]["metrics"] == results[1]["metrics"]
    assert float(results[0]["auc"]) == float(results[1]["auc"]) > least
    assert export(made, spec, tmp_path / "bundle.zip").ok
    parts = [ModelStore(made.home(silo).root).load(spec.job) for silo in OWNERS]
    assert [part.silo for part in parts] == list(OWNERS)
    assert parts[0].schema_hash != parts[1].schema_hash
    assert all("model_digest" in result and "part" not in result for result in results)
    raw = (made.home("lender").root / "models" / f"{spec.job}.part").read_bytes()
    assert b"capital-gain" not in raw


def test_a_regression_with_inference(made, tmp_path):
    release = ["coefficients", "inference", "model", "auc", "metrics", "counts"]
    spec, results = train(made, tmp_path, "vertical.glm", release)
    check(made, tmp_path, spec, results, 0.87)
    hours = next(i for i in results[0]["model"]["inputs"] if i["input"] == "hours-per-week")
    assert float(hours["p"]) < 1e-6
    assert float(hours["low"]) < float(hours["coefficient"]) < float(hours["high"])
    assert results[0]["model"]["intercept_inference"]["note"] == ""
    assert results[1]["model"]["intercept_inference"] is None
    predicted(made, spec, results)


def predicted(made, spec, results):
    """New rows are scored with the kept parts: rounded probabilities in a table, and one at a time while the job runs."""
    with accord.open(made.home("lender").root) as silo:
        shape = {"output": "rounded", "low": 0, "high": 1, "step": 0.01}
        job = silo.predict(spec.job, "platform:adult", "adult", purpose="test", **shape)
        frame = job.wait(timeout_s=120).result().to_pandas().set_index("email")["_prediction"]
        y = dict(zip([f"person{i}@example.com" for i in range(ROWS)], made.data.y, strict=True))
        assert len(frame) == ROWS
        assert frame.between(0, 1).all()
        assert roc_auc_score([y[email] for email in frame.index], frame) > 0.87
        assert not made.home("platform").table(job.id).exists()

        asked = silo.predict(spec.job, "platform:adult", "adult", purpose="test", questions=50, **shape)
        with until(lambda: silo.scorer(asked.id)) as scorer:
            for email in frame.index[:20]:
                assert scorer.score(email) == pytest.approx(frame[email])
            with pytest.raises(ConfigError, match="no matched row has this key"):
                scorer.score("nobody@example.com")
            scorer.end()
        asked.wait(timeout_s=60)

        refused = silo.predict(spec.job, "platform:adult", "adult", purpose="test", output="decile", cuts=[0.5],
                               recipients=["lender", "platform"])  # fmt: skip
        with pytest.raises(JobFailed, match="a 'decile' of each row may not be told"):
            refused.wait(timeout_s=60)


def until(made, within_s=90):
    """What `made` returns once it can."""
    deadline = time.monotonic() + within_s
    while True:
        try:
            return made()
        except ConfigError:
            assert time.monotonic() < deadline
            time.sleep(0.1)


def test_trees(made, tmp_path):
    spec, results = train(
        made, tmp_path, "vertical.trees", ["model", "auc", "metrics", "counts"], train={"trees": 5, "depth": 3}
    )
    check(made, tmp_path, spec, results, 0.86)
    splits = [sum(i["splits"] for i in result["model"]["inputs"]) for result in results]
    assert min(splits) > 0


def test_a_network(made, tmp_path):
    spec, results = train(
        made, tmp_path, "vertical.network", ["model", "auc", "metrics", "counts"], train={"hidden": [16], "epochs": 3}
    )
    check(made, tmp_path, spec, results, 0.86)


def test_statistics_before_a_model(made, tmp_path):
    parties = []
    for place, silo in enumerate(OWNERS):
        features = [{"column": f.column, "as": f.kind} for f in made.data.features[place]]
        label = {"label": "y"} if place == made.data.active else {}
        parties.append({"silo": silo, "dataset": "adult", "key": "email", "features": features, **label})
    release = ["label_correlations", "vif", "woe", "information_values", "selection", "counts"]
    body = {
        "kind": "vertical.statistics",
        "purpose": "test",
        "dealer": "dealer",
        "parties": parties,
        "release": release,
    }
    path = tmp_path / "job.json"
    path.write_text(json.dumps(body))
    spec, view = asyncio.run(run_job(made, path))
    assert view["state"] == "done", view["reason"]
    lender, platform = (read_result(made.home(silo).result(spec.job))["result"] for silo in OWNERS)
    at = platform["inputs"].index("age")
    assert float(platform["label_correlations"][at]) == pytest.approx(
        np.corrcoef(made.data.columns[1]["age"], made.data.y)[0, 1], abs=2e-4
    )
    assert min(float(v) for v in platform["vif"] if v not in (None, "infinite")) >= 1
    assert lender["information_values"] == platform["information_values"]
    assert lender["selection"]
    assert "correlations" not in lender
