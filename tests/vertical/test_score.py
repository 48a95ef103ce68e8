"""Predictions on shares against the same ones in the clear, who is told, and what travels."""

import numpy as np
import pytest

from mpc.errors import LocalProtocolError, Refused, RemoteProtocolError
from tests.vertical.helpers import NAMES, run_owners
from vertical import score
from vertical.score import TAGS, Output, mean_of, predict, refuse_solvable
from vertical.scores import FRAC_BITS, Scores

BOUND = 1 << 20


def parts_of(z, owners, seed=0):
    """Parts that add up to z, on the grid of words so that nothing is lost by rounding."""
    rng = np.random.default_rng(seed)
    parts = [np.rint(rng.normal(0, 3, z.shape) * 2.0**FRAC_BITS) / 2.0**FRAC_BITS for _ in range(owners - 1)]
    return [*parts, z - sum(parts)]


def predicted(z, output, owners=2, columns=9, **options):
    z = np.rint(z * 2.0**FRAC_BITS) / 2.0**FRAC_BITS
    parts = parts_of(z, owners)

    def owner(i):
        return lambda s: predict(s, Scores.of_part(parts[i], BOUND, owners), output, columns)

    return z, run_owners([owner(i) for i in range(owners)], **options)


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


@pytest.mark.parametrize(("owners", "recipients"), [(2, (0,)), (2, (0, 1)), (3, (2,)), (3, (0, 2))])
def test_only_the_recipients_are_told_the_decision(owners, recipients):
    z = np.concatenate([np.random.default_rng(1).normal(-1, 2, 300), [np.log(0.25), 100.0, -100.0]])
    z, run = predicted(z, Output("decision", recipients, cuts=(0.2,)), owners)
    for i in range(owners):
        told = run.results[NAMES[i]]
        if i not in recipients:
            assert told is None
        else:
            assert (told == (z >= np.log(0.25))).all()


def test_a_value_on_the_cut_point_has_reached_it_and_one_step_below_has_not():
    step = 2.0**-FRAC_BITS
    _, run = predicted(np.array([0.0, -step, step, 0.0]), Output("decision", (0,), cuts=(0.5,)))
    assert run.results["lender"].tolist() == [1, 0, 1, 1]


@pytest.mark.parametrize("n_cuts", [1, 9, 16, 17, 40])
def test_bands_count_the_cut_points_that_are_reached(n_cuts):
    rng = np.random.default_rng(n_cuts)
    cuts = tuple(np.sort(rng.normal(0, 2, n_cuts)).tolist())
    z, run = predicted(rng.normal(0, 3, 200), Output("decile", (1,), link="identity", cuts=cuts))
    assert (run.results["platform"] == np.searchsorted(cuts, z, side="right")).all()


def test_pieces_of_rows_are_put_together_again(monkeypatch):
    monkeypatch.setattr(score, "ROWS_AT_ONCE", 64)
    z, run = predicted(np.linspace(-9, 9, 150), Output.rounded((0,)))
    assert (run.results["lender"] == np.round(np.floor(sigmoid(z) * 100 + 0.5) / 100, 12)).all()


def test_a_rounded_probability_is_the_probability_to_two_digits():
    z = np.concatenate([np.linspace(-12, 12, 700), [-50.0, 50.0]])
    z, run = predicted(z, Output.rounded((0, 1)))
    expected = np.floor(sigmoid(z) * 100 + 0.5) / 100
    assert np.abs(run.results["lender"] - expected).max() < 1e-9
    assert (run.results["lender"] == run.results["platform"]).all()
    assert run.results["lender"].min() == 0
    assert run.results["lender"].max() == 1


def test_a_rounded_mean_of_another_link_stays_between_its_ends():
    output = Output.rounded((0,), "log", (0.0, 5.0), 0.25)
    z, run = predicted(np.linspace(-8, 4, 300), output)
    expected = np.clip(np.floor(np.exp(z) / 0.25 + 0.5) * 0.25, 0, 5)
    assert np.abs(run.results["lender"] - expected).max() < 1e-9


@pytest.mark.parametrize(("name", "inverse"), [("logit", sigmoid), ("log", np.exp), ("identity", lambda z: z)])
def test_a_probability_is_that_of_the_score(name, inverse):
    z, run = predicted(np.linspace(-9, 9, 50), Output("probability", (1,), link=name), owners=3)
    assert np.abs(run.results["platform"] - inverse(z)).max() < 1e-9 * np.abs(inverse(z)).max()
    assert run.results["lender"] is None


def test_several_classes():
    z = np.random.default_rng(3).normal(0, 2, (80, 5))
    z, run = predicted(z, Output("decision", (0,), link="softmax"))
    assert (run.results["lender"] == z.argmax(axis=1)).all()
    z, run = predicted(z, Output("probability", (0,), link="softmax"))
    powers = np.exp(z)
    assert np.abs(run.results["lender"] - powers / powers.sum(1, keepdims=True)).max() < 1e-9


def test_probabilities_that_could_be_solved_for_columns_are_refused():
    refuse_solvable([3, 10], [0], 5)
    refuse_solvable([3, 4], [1], 3)
    with pytest.raises(Refused, match="an owner has 4 columns in the model and a row's probabilities are 4 equations"):
        refuse_solvable([3, 4], [0], 5)
    with pytest.raises(Refused):
        refuse_solvable([20, 1], [0, 1], 2)
    z = np.zeros((20, 5))
    with pytest.raises(Refused, match="solve them for its values"):
        predicted(z, Output("probability", (0,), link="softmax"), columns=4)
    assert len(predicted(z, Output("decision", (0,), link="softmax"), columns=4)[1].results["lender"]) == 20
    with pytest.raises(Refused, match="solve them"):
        predicted(z[:, 0], Output.rounded((0,)), columns=1)
    assert len(predicted(z[:, 0], Output.rounded((0,)), columns=2)[1].results["lender"]) == 20


def test_equality_solving_finds_a_row_that_the_rule_forbids_and_not_one_that_it_allows():
    """The attack that the refusal is for: five unknown columns, ten classes, a model that is known."""
    rng = np.random.default_rng(8)

    def recovered(unknown, rounded):
        W, x = rng.normal(0, 1, (10, 12)), rng.normal(size=(300, 12))
        p = mean_of("softmax", x @ W.T)
        if rounded:
            p = np.clip(np.round(p, 2), 1e-3, None)
        equations = np.diff(np.log(p), axis=1) - x[:, unknown:] @ np.diff(W[:, unknown:], axis=0).T
        found = np.linalg.lstsq(np.diff(W[:, :unknown], axis=0), equations.T, rcond=None)[0].T
        return 1 - ((found - x[:, :unknown]) ** 2).sum() / (x[:, :unknown] ** 2).sum()

    assert recovered(5, rounded=False) > 0.999
    assert recovered(9, rounded=False) > 0.999
    assert recovered(12, rounded=False) < 0.9
    assert recovered(9, rounded=True) < 0


def test_what_travels_is_uniform_but_for_what_is_opened():
    """With one recipient of three, each message is a share: the low bytes are uniform although every decision is 1."""
    _, run = predicted(np.full(4000, 3.0), Output("decision", (0,), cuts=(0.5,)), owners=3)
    opened = [np.frombuffer(m.body, dtype=np.uint8) for m in run.transcript if m.tag in TAGS.values()]
    assert [len(body) for body in opened] == [4000, 4000]
    for body in opened:
        counts = np.bincount(body, minlength=256)
        assert ((counts - 4000 / 256) ** 2 / (4000 / 256)).sum() < 255 + 6 * np.sqrt(2 * 255)


def test_a_probability_does_not_show_which_owner_adds_what():
    """Two of three owners add nothing to any score, and what they send to the third is uniform all the same."""
    output, parts = Output("probability", (0,)), (np.full(4000, 3.0), np.zeros(4000), np.zeros(4000))
    run = run_owners([lambda s, i=i: predict(s, Scores.of_part(parts[i], BOUND, 3), output, 9) for i in range(3)])
    assert np.abs(run.results["lender"] - sigmoid(3.0)).max() < 1e-12
    opened = [np.frombuffer(m.body, dtype=np.uint64) for m in run.transcript if m.tag in TAGS.values()]
    assert len(opened) == 2
    for words in opened:
        counts = np.bincount((words >> np.uint64(58)).astype(np.int64), minlength=64)
        assert ((counts - 4000 / 64) ** 2 / (4000 / 64)).sum() < 63 + 6 * np.sqrt(2 * 63)


@pytest.mark.parametrize(
    "output", [Output("decision", (0,), cuts=(0.3,)), Output.rounded((0,)), Output("probability", (0,))]
)
def test_the_transcript_is_one_of_public_sizes_and_costs_what_is_stated(output):
    n, shapes = 640, []
    for seed in (1, 2):
        shapes.append(predicted(np.random.default_rng(seed).normal(0, 4, n), output)[1])
    assert shapes[0].shape() == shapes[1].shape()
    k, m = len(output.cuts), n // 64
    sent = sum(
        x.size
        for x in shapes[0].transcript
        if (x.sender, x.receiver) == ("platform", "lender") and x.tag.startswith("compare/")
    )
    opened = [x.size for x in shapes[0].transcript if x.tag in TAGS.values()]
    if k == 1:
        assert (sent, opened) == (8 * n + 280 * m, [n])
    elif k:
        assert (sent, opened) == (8 * n + 280 * 10 * m + 8 * 9 * n + 280 * 9 * m, [n])
    else:
        assert (sent, opened) == (0, [8 * n])


def test_wrong_questions_are_refused():
    with pytest.raises(LocalProtocolError, match="ascending order"):
        Output("decile", (0,), cuts=(0.5, 0.2))
    with pytest.raises(LocalProtocolError, match="at least one recipient"):
        Output("decision", (), cuts=(0.5,))
    with pytest.raises(LocalProtocolError, match="'decision' does not go with 0 cut points"):
        Output("decision", (0,))
    with pytest.raises(LocalProtocolError, match="no 'decile'"):
        Output("decile", (0,), link="softmax", cuts=(1.0,))
    with pytest.raises(LocalProtocolError, match="1 to 1000 steps"):
        Output.rounded((0,), step=1e-5)
    with pytest.raises(LocalProtocolError, match="none of the owners"):
        predicted(np.zeros(5), Output("decision", (7,), cuts=(0.5,)))
    with pytest.raises(LocalProtocolError, match="do not have the link"):
        predicted(np.zeros((5, 3)), Output("decision", (0,), cuts=(0.5,)))


def test_owners_with_other_rows_are_refused():
    def owner(n):
        return lambda s: predict(s, Scores.of_part(np.zeros(n), BOUND, 2), Output("decision", (0,), cuts=(0.5,)), 3)

    with pytest.raises(RemoteProtocolError, match="other rows than ours"):
        run_owners([owner(10), owner(11)])


def test_scores_that_are_too_large_to_compare_are_refused():
    def owner(s):
        return predict(s, Scores(np.zeros(3, dtype=np.uint64), 24, 2.0**40), Output("decision", (0,), cuts=(0.5,)), 3)

    with pytest.raises(LocalProtocolError, match="too large"):
        run_owners([owner, owner])
