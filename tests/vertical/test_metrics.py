"""Figures of shared scores against scikit-learn and NumPy on the same fixed-point scores, to the printed digit."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import (
    brier_score_loss,
    confusion_matrix,
    log_loss,
    mean_absolute_error,
    mean_tweedie_deviance,
    r2_score,
    recall_score,
    roc_auc_score,
    roc_curve,
)

from mpc.dealer import run_dealer
from mpc.engine import bind
from mpc.errors import LocalProtocolError, OutOfRange, RemoteProtocolError
from mpc.session import Session
from mpc.supply import supply
from tests.harness import run_parties
from tests.mpc.transfers import cheap_set_up
from tests.vertical.helpers import run_owners
from vertical.figures import MINIMUM_PER_BIN, places
from vertical.metrics import FIGURES, Group, Settings, evaluate
from vertical.scores import Scores


def evaluated(parts: list[Any], y: Any, settings: Settings, *, bound=32.0, active=0, groups=(), **options):
    """What every owner gets; the owners must get the same.  groups: (name, owner, values)."""

    def owner(i):
        def body(session):
            own = [Group(name, at, values if at == i else None) for name, at, values in groups]
            scores = Scores.of_part(parts[i], bound, len(parts))
            return evaluate(session, scores, y if i == active else None, active, settings, own)

        return body

    run = run_owners([owner(i) for i in range(len(parts))], **options)
    results = [run[name] for name in ("lender", "platform", "shop")[: len(parts)]]
    assert all(result == results[0] for result in results)
    return json.loads(json.dumps(results[0]))


def sample(n: int, seed: int, scale: float = 1.0, step: float = 0.0):
    """Two parts of a log-odds, their sum and labels; step: round the parts to multiples, for equal scores."""
    rng = np.random.default_rng(seed)
    step = step or 2.0**-24  # what a score is rounded to anyhow
    parts = [np.round(scale * rng.normal(size=n) / step) * step for _ in range(2)]
    z = parts[0] + parts[1]
    y = (rng.random(n) < 1 / (1 + np.exp(-z + 0.7))).astype(float)
    return parts, z, y


@pytest.mark.parametrize(
    ("n", "scale", "step", "active"), [(700, 1.5, 0.0, 0), (333, 0.5, 0.25, 1), (230, 1e-4, 0.0, 0)]
)
def test_all_figures_are_equal_to_the_printed_digit(n, scale, step, active):
    parts, z, y = sample(n, n, scale, step)
    got = evaluated(parts, y, Settings(thresholds=("0.5", "0.2", "0.8")), active=active)
    p, P = 1 / (1 + np.exp(-z)), int(y.sum())
    fpr, tpr, _ = roc_curve(y, z, drop_intermediate=False)
    assert (got["rows"], got["positives"]) == (n, P)
    assert got["auc"] == f"{roc_auc_score(y, z):.4f}"
    assert got["ks"] == f"{np.abs(tpr - fpr).max():.4f}"
    order = np.argsort(-z, kind="stable")
    for b, (gain, row) in enumerate(zip(got["gains"], got["calibration"])):
        rows = order[b * n // 10 : (b + 1) * n // 10]
        assert gain["outcome"] == y[rows].sum()
        assert gain["lift"] == f"{y[rows].mean() / y.mean():.4f}"
        assert gain["gain"] == f"{y[order[: (b + 1) * n // 10]].sum() / P:.4f}"
        assert (row["predicted"], row["observed"]) == (f"{p[rows].mean():.4f}", f"{y[rows].mean():.4f}")
    for threshold, entry in zip((0.5, 0.2, 0.8), got["confusion"]):
        tn, fp, fn, tp = confusion_matrix(y, p >= threshold, labels=[0, 1]).ravel()
        assert [entry[f"{kind}_{sign}"] for kind in ("true", "false") for sign in ("positives", "negatives")] == [
            tp,
            tn,
            fp,
            fn,
        ]
    loss = got["loss"]
    assert loss["log_loss"] == f"{log_loss(y, p):.4f}"
    assert loss["brier"] == f"{brier_score_loss(y, p):.4f}"
    assert loss["mean_prediction"] == f"{p.mean():.4f}"
    assert loss["discrimination"] == f"{p[y == 1].mean() - p[y == 0].mean():.4f}"
    base = log_loss(y, np.full(n, y.mean()))
    assert loss["r2"] == f"{1 - log_loss(y, p) / base:.4f}"


def test_the_curve_is_that_of_the_rows_in_order():
    parts, z, y = sample(400, 9)
    got = evaluated(parts, y, Settings(wanted=("curves",), points=8))
    assert set(got) == {"family", "rows", "positives", "curve", "groups"}
    order = np.argsort(-z, kind="stable")
    for i, point in enumerate(got["curve"]):
        first = y[order[: i * 400 // 8]]
        assert point["true_positive_rate"] == f"{first.sum() / y.sum():.4f}"
        assert point["false_positive_rate"] == f"{(1 - first).sum() / (1 - y).sum():.4f}"


def test_a_small_set_gets_fewer_bins():
    parts, _, y = sample(90, 2)
    got = evaluated(parts, y, Settings(wanted=("gains", "curves")))
    assert [row["rows"] for row in got["gains"]] == [22, 23, 22, 23]
    assert len(got["curve"]) == 5


@given(st.integers(2, 3000), st.integers(1, 100), st.integers(1, 100))
def test_no_two_ends_of_bins_or_points_enclose_few_rows(n, bins, points):
    ends, marks = places(n, Settings(bins=bins, points=points))
    assert set(ends) <= set(marks)
    assert len(marks) == 2 or min(np.diff(marks)) >= MINIMUM_PER_BIN
    assert len(ends) <= bins + 1


def test_scores_beyond_the_series_keep_their_loss():
    """Above 16 the log-loss of a wrong score is the score itself."""
    parts, z, y = sample(300, 4, scale=12)
    got = evaluated(parts, y, Settings(wanted=("loss",)), bound=64.0)
    z = sum(np.clip(part, -32, 32) for part in parts)
    assert got["loss"]["log_loss"] == f"{(np.logaddexp(0, z) - y * z).mean():.4f}"
    assert float(got["loss"]["brier"]) == pytest.approx(((1 / (1 + np.exp(-z)) - y) ** 2).mean(), abs=1e-4)


def test_three_owners():
    parts, z, y = sample(240, 5)
    got = evaluated([parts[0], parts[1] / 2, parts[1] / 2], y, Settings(), active=2)
    assert got["auc"] == f"{roc_auc_score(y, z):.4f}"
    assert got["loss"]["log_loss"] == f"{log_loss(y, 1 / (1 + np.exp(-z))):.4f}"


@pytest.mark.parametrize("at", [0, 1])
def test_figures_by_group_with_the_label_at_either_owner(at):
    parts, z, y = sample(600, 6)
    names = np.array(["b", "a", None], dtype=object)[np.random.default_rng(1).choice(3, 600, p=[0.5, 0.3, 0.2])]
    got = evaluated(parts, y, Settings(wanted=("auc", "loss"), thresholds=("0.3",)), groups=[("kind", at, names)])
    (entry,) = got["groups"]
    assert [row["group"] for row in entry["table"]] == ["b", "a", "(missing)"]
    p, rates, hits = 1 / (1 + np.exp(-z)), [], []
    for row, name in zip(entry["table"], ("b", "a", None)):
        own = np.array([value == name for value in names])
        chosen = p[own] >= 0.3
        rates.append(chosen.mean())
        hits.append((chosen & (y[own] == 1)).sum() / y[own].sum())
        assert (row["rows"], row["positives"]) == (own.sum(), y[own].sum())
        assert row["selection_rate"] == f"{rates[-1]:.4f}"
        assert row["true_positive_rate"] == f"{hits[-1]:.4f}"
        assert row["mean_prediction"] == f"{p[own].mean():.4f}"
        assert row["auc"] == f"{roc_auc_score(y[own], z[own]):.4f}"
    assert entry["demographic_parity_difference"] == f"{max(rates) - min(rates):.4f}"
    assert entry["equal_opportunity_difference"] == f"{max(hits) - min(hits):.4f}"


@pytest.mark.parametrize(
    ("family", "power", "bound"),
    [("linear", 0, 8.0), ("poisson", 1, 4.0), ("poisson", 1, 20.0), ("gamma", 2, 12.0), ("tweedie", 1.5, 6.0)],
)
def test_models_of_a_mean(family, power, bound):
    rng = np.random.default_rng(8)
    parts = [0.4 * rng.normal(size=500) for _ in range(2)]
    eta = parts[0] + parts[1]
    mu = eta if family == "linear" else np.exp(eta)
    drawn = {
        "linear": eta + rng.normal(size=500),
        "poisson": rng.poisson(np.exp(eta)).astype(float),
        "gamma": rng.gamma(2, np.exp(eta) / 2) + 1e-3,
        "tweedie": np.where(rng.random(500) < 0.3, 0, rng.gamma(2, np.exp(eta) / 2)),
    }
    y = drawn[family]
    got = evaluated(parts, y, Settings(family=family, power=1.5), bound=bound)
    loss = {key: float(value) for key, value in got["loss"].items()}
    near = {"abs": 1e-3, "rel": 1e-3}
    if family != "linear":
        model, constant = (mean_tweedie_deviance(y, m, power=power) for m in (mu, np.full(500, y.mean())))
        assert loss["mean_deviance"] == pytest.approx(model, **near)
        assert loss["mean_deviance_of_constant"] == pytest.approx(constant, **near)
        assert loss["d2"] == pytest.approx(1 - model / constant, **near)
    assert loss["r2"] == pytest.approx(r2_score(y, mu), **near)
    assert loss["mean_absolute_residual"] == pytest.approx(mean_absolute_error(y, mu), **near)
    assert loss["root_mean_square_residual"] == pytest.approx(math.sqrt(((y - mu) ** 2).mean()), **near)
    order = np.argsort(-eta, kind="stable")
    for b, row in enumerate(got["calibration"]):
        rows = order[b * 50 : (b + 1) * 50]
        assert float(row["predicted"]) == pytest.approx(mu[rows].mean(), **near)
        assert float(row["observed"]) == pytest.approx(y[rows].mean(), **near)


@pytest.mark.parametrize(("size", "frac_bits"), [(1e6, 4), (3e-2, 30), (50.0, 24)])
def test_linear_models_in_any_units(size, frac_bits):
    """Trees of large labels have scores with few fractional bits."""
    rng = np.random.default_rng(3)
    parts = [np.round(size * rng.normal(size=200) * 2**frac_bits) for _ in range(2)]
    mu = (parts[0] + parts[1]) / 2**frac_bits
    y = mu + size * rng.normal(size=200)

    def owner(i):
        scores = Scores(parts[i].astype(np.int64).view(np.uint64), frac_bits, 16 * size)
        settings = Settings(family="linear", bins=5)
        return lambda session: evaluate(session, scores, y if i == 0 else None, 0, settings)

    got = run_owners([owner(0), owner(1)])["platform"]
    assert float(got["loss"]["r2"]) == pytest.approx(r2_score(y, mu), abs=2e-4)
    near = {"rel": 1e-4, "abs": 1e-4}
    assert float(got["loss"]["mean_absolute_residual"]) == pytest.approx(mean_absolute_error(y, mu), **near)
    assert float(got["loss"]["mean_prediction"]) == pytest.approx(mu.mean(), **near)
    first = np.argsort(-mu, kind="stable")[:40]
    assert float(got["calibration"][0]["predicted"]) == pytest.approx(mu[first].mean(), **near)
    assert float(got["calibration"][0]["observed"]) == pytest.approx(y[first].mean(), **near)


def test_scores_of_a_classifier_have_one_scale():
    scores = Scores(np.zeros(60, dtype=np.uint64), 20, 8.0)
    with pytest.raises(LocalProtocolError, match="24 fractional bits"):
        run_owners([lambda s: evaluate(s, scores, None, 1, Settings())] * 2)


@pytest.mark.parametrize(("offset", "size"), [(1e8, 5.0), (0.0, 1e-7)])
def test_outcomes_whose_residuals_would_be_lost_in_rounding_are_refused(offset, size):
    y = offset + size * np.random.default_rng(0).normal(size=500)
    bound = 2.0 ** np.ceil(np.log2(np.abs(y).max()) + 1)
    with pytest.raises(LocalProtocolError, match="label of lender varies too little"):
        evaluated([0.9 * y, 0 * y], y, Settings(family="linear", wanted=("loss",)), bound=bound)


def test_a_linear_prediction_far_from_every_outcome_is_noticed():
    with pytest.raises(OutOfRange, match="a predicted mean"):
        evaluated([np.full(60, 50.0), np.zeros(60)], np.ones(60), Settings(family="linear"), bound=200.0)


def test_a_mean_out_of_range_is_noticed():
    parts = [np.full(60, 5.0), np.full(60, 4.0)]
    with pytest.raises(OutOfRange, match="a predicted mean"):
        evaluated(parts, np.ones(60), Settings(family="poisson"), bound=20.0)


@pytest.mark.parametrize(
    ("family", "y"), [("gamma", 0.0), ("poisson", -1.0), ("linear", np.inf), ("linear", 2.0**41), ("poisson", 2.0**20)]
)
def test_outcomes_outside_the_family_are_refused(family, y):
    values = np.ones(60)
    values[3] = y
    with pytest.raises(LocalProtocolError, match=r"outside the .* family|must be numbers below"):
        evaluated([np.zeros(60)] * 2, values, Settings(family=family), bound=4.0)


def test_several_classes():
    rng = np.random.default_rng(12)
    parts = [rng.integers(-3, 4, (300, 4)) / 2 for _ in range(2)]
    total = parts[0] + parts[1]
    y = np.argmax(total + rng.gumbel(size=total.shape), axis=1).astype(float)
    got = evaluated(parts, y, Settings(family="multinomial"))
    guess = total.argmax(axis=1)
    assert got["accuracy"] == f"{(guess == y).mean():.4f}"
    assert [row["recall"] for row in got["classes"]] == [f"{r:.4f}" for r in recall_score(y, guess, average=None)]
    p = np.exp(total - total.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    assert float(got["macro_auc"]) == pytest.approx(roc_auc_score(y, p, multi_class="ovr"), abs=1e-3)
    assert float(got["log_loss"]) == pytest.approx(log_loss(y, p), abs=2e-4)
    for row in got["classes"]:
        assert float(row["auc"]) == pytest.approx(roc_auc_score(y == row["class"], p[:, row["class"]]), abs=2e-3)
    assert got["balanced_accuracy"] == f"{recall_score(y, guess, average='macro'):.4f}"


def test_too_few_rows_of_amounts_are_refused():
    with pytest.raises(LocalProtocolError, match="fewer than 20 held-out rows"):
        evaluated([np.zeros(19)] * 2, np.ones(19), Settings(family="linear"))


def test_several_classes_with_scores_far_apart():
    """Beyond the exponential's domain the loss is the difference of scores."""
    y = np.arange(60) % 3.0
    part = np.where(y[:, None] == np.arange(3), 15.0, -15.0) * np.where(np.arange(60) < 10, -1, 1)[:, None]
    got = evaluated([part, part], y, Settings(family="multinomial", wanted=("loss", "accuracy")), bound=32.0)
    z = 2 * part
    expected = (np.log(np.exp(z - 60).sum(axis=1)) + 60 - z[np.arange(60), y.astype(int)]).mean()
    assert float(got["log_loss"]) == pytest.approx(expected, abs=1e-3)
    assert got["accuracy"] == f"{5 / 6:.4f}"
    assert "macro_auc" not in got


@pytest.mark.parametrize("y", [np.full(60, 3.0), np.r_[np.zeros(51), np.ones(9)]])
def test_labels_that_are_no_classes_are_refused(y):
    with pytest.raises(LocalProtocolError, match=r"must be a class|fewer than 10"):
        evaluated([np.zeros((60, 2))] * 2, y, Settings(family="multinomial"))


@pytest.mark.parametrize(
    ("y", "why"),
    [
        (np.zeros(60), "fewer than 10"),
        (np.r_[np.ones(51), np.zeros(9)], "fewer than 10"),
        (np.full(60, 0.5), "must be 0 or 1"),
        (np.ones(59), "must be 0 or 1 in each of the 60"),
    ],
)
def test_labels_that_do_not_do_are_refused(y, why):
    with pytest.raises(LocalProtocolError, match=why):
        evaluated([np.zeros(60)] * 2, y, Settings())


@pytest.mark.parametrize(
    "settings",
    [
        {"family": "probit"},
        {"family": "tweedie", "power": 2.0},
        {"wanted": ("accuracy",)},
        {"family": "multinomial", "wanted": ("ks",)},
        {"family": "poisson", "wanted": ("auc",)},
        {"bins": 0},
        {"points": 101},
        {"thresholds": ()},
        {"thresholds": ("0.1",) * 21},
        {"thresholds": ("1",)},
        {"thresholds": ("half",)},
        {"thresholds": ("0.5", "0.2", "0.509")},
        {"minimum": 9},
        {"dealer": False, "wanted": ("ks",)},
    ],
)
def test_settings_are_checked(settings):
    with pytest.raises(LocalProtocolError):
        Settings(**settings)


def test_groups_are_for_classifiers():
    with pytest.raises(LocalProtocolError, match="of binary classifiers"):
        evaluated([np.zeros(60)] * 2, np.ones(60), Settings(family="linear"), groups=[("g", 0, np.zeros(60))])


def test_owners_who_were_asked_for_other_figures_stop():
    parts, _, y = sample(60, 1)

    def owner(i):
        wanted = ("auc",) if i == 0 else ("ks",)
        return lambda s: evaluate(
            s, Scores.of_part(parts[i], 32.0, 2), y if i == 0 else None, 0, Settings(wanted=wanted)
        )

    with pytest.raises(RemoteProtocolError, match="was asked for other figures"):
        run_owners([owner(0), owner(1)])


@pytest.mark.parametrize("own", [None, 3, 58, -1, True, "30"])
def test_an_impossible_number_of_positives_is_noticed(own):
    parts, _, y = sample(60, 1)

    def tamper(message):
        if message.tag != "metrics/request" or message.sender != "lender":
            return message
        return dataclasses.replace(message, body=json.dumps(json.loads(message.body) | {"own": own}).encode())

    with pytest.raises(RemoteProtocolError, match="metrics/request"):
        evaluated(parts, y, Settings(), tamper=tamper)


def test_only_the_last_messages_of_a_run_hold_results():
    """Everything else that is opened under a tag of this package is the request; sizes do not depend on labels."""
    parts, _, y = sample(120, 3)
    seen = []

    def watch(message):
        if message.tag.startswith("metrics/"):
            seen.append((message.sender, message.tag, message.size))
        return message

    evaluated(parts, y, Settings(wanted=("confusion", "loss")), tamper=watch)
    first = list(seen)
    seen.clear()
    evaluated(parts, np.sort(y), Settings(wanted=("confusion", "loss")), tamper=watch)
    assert first[2:] == seen[2:]
    assert [tag for _, tag, _ in first[:2]] == ["metrics/request"] * 2
    for name in ("lender", "platform"):
        sizes = [(tag, size) for sender, tag, size in first[2:] if sender == name]
        assert sizes == [("metrics/confusion", 16), ("metrics/loss", 8), ("metrics/loss", 8), ("metrics/loss", 16)]


def test_every_family_says_what_can_be_wanted():
    assert all(Settings(family=family, wanted=figures) for family, figures in FIGURES.items())


@pytest.mark.parametrize("mode", ["verified-dealer", "ot"])
def test_any_source_of_randomness_will_do(mode, monkeypatch):
    """Figures are the same whoever makes the correlated randomness; without a dealer some are left out."""
    monkeypatch.setattr("mpc.ot.products.set_up", cheap_set_up)
    parts, z, y = sample(60, 8)
    names = ("lender", "platform")

    def owner(i):
        def run(channel):
            source = supply(mode, channel, names, None if mode == "ot" else "dealer", i)
            session = Session(channel, names, i, source)
            scores, label = Scores.of_part(parts[i], 16.0, 2), y if i == 0 else None
            group = Group("half", 1, np.arange(60) % 2 if i == 1 else None)
            with bind(session):
                result = evaluate(session, scores, label, 0, Settings(dealer=mode != "ot"), [group])
            source.settle()
            source.close()
            return result

        return run

    parties = {name: owner(i) for i, name in enumerate(names)}
    dealer = {} if mode == "ot" else {"dealer": lambda channel: run_dealer(channel, names)}
    run = run_parties({**parties, **dealer})
    assert run["lender"] == run["platform"]
    left_out = {"ks", "gains", "curve", "calibration"} if mode == "ot" else set()
    every = {"family", "rows", "positives", "auc", "ks", "gains", "curve", "calibration", "confusion", "loss", "groups"}
    assert set(run["lender"]) == every - left_out
    assert float(run["lender"]["auc"]) == pytest.approx(roc_auc_score(y, z), abs=2e-3 if mode == "ot" else 1e-4)
    assert run["lender"]["loss"]["log_loss"] == f"{log_loss(y, 1 / (1 + np.exp(-z))):.4f}"


@pytest.mark.parametrize("family", ["linear", "multinomial"])
def test_other_families_without_a_dealer(family):
    parts = [np.random.default_rng(1).normal(size=(60, 3)) for _ in range(2)]
    y = np.arange(60) % 3.0
    if family == "linear":
        parts = [part[:, 0] for part in parts]
    got = evaluated(parts, y, Settings(family=family, dealer=False))
    assert not {"gains", "calibration", "macro_auc"} & set(got)


def test_with_three_owners_a_share_of_a_sum_is_not_an_owners_own_sum():
    """The sum of the predictions of a linear model is one of parts that each owner knows."""
    parts = [np.full(60, value) for value in (1.0, 2.0, 3.0)]
    seen = {}

    def watch(message):
        if message.tag == "metrics/loss":
            seen.setdefault(message.sender, []).append(np.frombuffer(message.body, dtype=np.int64))
        return message

    settings = Settings(family="linear", wanted=("loss",))
    got = evaluated(parts, np.arange(60.0) / 10, settings, bound=24.0, tamper=watch)
    assert got["loss"]["mean_prediction"] == "6.0000"
    own = {int(60 * value * 2**24) for value in (1.0, 2.0, 3.0)}
    sent = [np.concatenate(words) for words in seen.values()]
    assert not own & {int(word) for words in sent for word in words}
    assert all((np.abs(words) > 1 << 45).sum() >= len(words) - 1 for words in sent)


def test_what_an_owner_receives_is_uniform():
    """All words before the results, by their upper bytes; a share sent as it is would have far too many zeros."""
    parts, _, y = sample(1500, 10)
    received: dict[str, list[bytes]] = {}

    def watch(message):
        if (
            message.receiver == "platform"
            and message.kind.name in ("WORDS32", "WORDS64")
            and message.sender == "lender"
        ):
            size = 4 if message.kind.name == "WORDS32" else 8
            received.setdefault(message.tag, []).append(message.body[size - 1 :: size])
        return message

    group = np.random.default_rng(2).integers(0, 3, 1500)
    evaluated(parts, y, Settings(), groups=[("g", 0, group)], tamper=watch)
    results = {tag for tag in received if tag.startswith("metrics/")} | {"sorting/order", "segments/few"}
    received = {tag: bodies for tag, bodies in received.items() if tag not in results}
    assert {"products/open", "shuffle/mask", "compare/mask", "truncation/open", "fourier/turn"} <= set(received)
    for tag, bodies in received.items():
        counts = np.bincount(np.frombuffer(b"".join(bodies), dtype=np.uint8) >> 4, minlength=16)
        expected = counts.sum() / 16
        if expected >= 50:
            assert ((counts - expected) ** 2 / expected).sum() < 60, tag  # chi squared, 15 degrees: 2e-7
