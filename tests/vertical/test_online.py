"""Questions about single rows: the answers are those of many rows at once, and nothing more is answered than was agreed."""

import numpy as np
import pytest

from mpc.dealer import run_dealer
from mpc.engine import bind
from mpc.errors import LocalProtocolError, Refused, RemoteProtocolError
from mpc.session import Session
from mpc.supply import supply
from tests.harness import run_parties
from tests.vertical.helpers import NAMES, run_owners
from tests.vertical.test_score import BOUND, parts_of, sigmoid
from vertical import online
from vertical.online import Online
from vertical.score import Output, predict
from vertical.scores import FRAC_BITS, Scores

Z = np.rint(np.random.default_rng(5).normal(0, 2, 60) * 2.0**FRAC_BITS) / 2.0**FRAC_BITS


def answered(output, rows, owners=2, most=1000, columns=5, **options):
    parts = parts_of(Z, owners)
    (recipient,) = output.recipients

    def owner(i):
        def body(session):
            run = Online(session, Scores.of_part(parts[i], BOUND, owners), output, columns, most)
            if i != recipient:
                return run.answer()
            told = []
            for row in rows:
                run.wait()
                told.append(run.ask(row))
            run.end()
            return told

        return body

    return run_owners([owner(i) for i in range(owners)], **options)


@pytest.mark.parametrize(("owners", "recipient"), [(2, 0), (2, 1), (3, 1)])
def test_a_probability_is_one_word_from_every_other_owner(owners, recipient):
    rows = [3, 59, 0, 3]
    run = answered(Output("probability", (recipient,)), rows, owners)
    assert np.abs(np.array(run.results[NAMES[recipient]]) - sigmoid(Z[rows])).max() < 1e-12
    others = [name for i, name in enumerate(NAMES[:owners]) if i != recipient]
    assert [run.results[name] for name in others] == [4] * (owners - 1)
    opened = [m for m in run.transcript if m.tag == "score/probability"]
    assert [(m.receiver, m.size) for m in opened] == [(NAMES[recipient], 8)] * 4 * (owners - 1)


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        (Output("decision", (0,), cuts=(0.4,)), lambda p: (p >= 0.4).astype(float)),
        (Output("decile", (0,), cuts=(0.1, 0.5, 0.9)), lambda p: np.searchsorted([0.1, 0.5, 0.9], p, side="right")),
        (Output.rounded((0,)), lambda p: np.floor(p * 100 + 0.5) / 100),
    ],
)
def test_less_than_a_probability_is_told(output, expected, monkeypatch):
    monkeypatch.setattr(online, "AHEAD", 4)
    rows = list(range(8))
    run = answered(output, rows)
    assert np.abs(np.array(run.results["lender"]) - expected(sigmoid(Z[rows]))).max() < 1e-9


def test_no_more_questions_are_answered_than_agreed():
    with pytest.raises(Refused, match="answers 2 questions"):
        answered(Output("probability", (0,)), [1, 2, 3], most=2)
    with pytest.raises(LocalProtocolError, match="no row 60"):
        answered(Output("probability", (0,)), [60])


def test_answers_do_not_show_which_owner_adds_what():
    output = Output("probability", (0,))

    def owner(i):
        def body(session):
            run = Online(session, Scores.of_part(np.full(60, 3.0 * (i == 0)), BOUND, 3), output, 5, 60)
            if i:
                return run.answer()
            told = [run.ask(row) for row in range(60)]
            run.end()
            return told

        return body

    run = run_owners([owner(i) for i in range(3)])
    assert np.abs(np.array(run.results["lender"]) - sigmoid(3.0)).max() < 1e-12
    answers = [int.from_bytes(m.body, "little") for m in run.transcript if m.tag == "score/probability"]
    assert len(set(answers)) == 120
    assert np.mean([answer >> 63 for answer in answers]) == pytest.approx(0.5, abs=0.25)


def test_questions_have_one_recipient():
    def owner(session):
        return Online(session, Scores.of_part(Z, BOUND, 2), Output("probability", (0, 1)), 5, 10)

    with pytest.raises(LocalProtocolError, match="for one recipient"):
        run_owners([owner, owner])


@pytest.mark.parametrize(
    ("number", "most", "why"), [(60, 10, "a row that there is not"), (1, 0, "more often than agreed")]
)
def test_a_recipient_that_asks_for_what_was_not_agreed_is_named(number, most, why):
    def tamper(message):
        if message.tag != "online/ask":
            return message
        from dataclasses import replace

        return replace(message, body=int(number).to_bytes(8, "little"))

    output, parts = Output("probability", (0,)), parts_of(Z, 2)

    def asks(session):
        run = Online(session, Scores.of_part(parts[0], BOUND, 2), output, 5, 10)
        return run.ask(2)

    def answers(session):
        return Online(session, Scores.of_part(parts[1], BOUND, 2), output, 5, most).answer()

    with pytest.raises(RemoteProtocolError, match=why):
        run_owners([asks, answers], tamper=tamper)


def test_probabilities_of_one_column_are_refused_here_too():
    with pytest.raises(Refused, match="solve"):
        answered(Output("probability", (0,)), [1], columns=1)


@pytest.mark.parametrize("randomness", ["verified-dealer", "ot"])
def test_every_source_of_randomness_answers(randomness):
    """The dealer's work is checked, or there is no dealer; in batches and one by one, and what is not needed is left behind."""
    z, names = Z[:20], NAMES[:2]
    parts, dealer = parts_of(z, 2), None if randomness == "ot" else "dealer"
    output = Output("decile", (0,), cuts=(0.2, 0.5))

    def owner(i):
        def body(channel):
            session = Session(channel, names, i, supply(randomness, channel, names, dealer, i))
            with bind(session):
                scores = Scores.of_part(parts[i], BOUND, 2)
                told = predict(session, scores, output, 5)
                run = Online(session, scores, output, 5, 10)
                if i == 0:
                    told = told, [run.ask(row) for row in (2, 7)]
                    run.end()
                else:
                    run.answer()
            session.correlations.settle()
            session.correlations.close()
            return told

        return body

    parties = {name: owner(i) for i, name in enumerate(names)}
    if dealer:
        parties["dealer"] = lambda channel: run_dealer(channel, names)
    expected = np.searchsorted([0.2, 0.5], sigmoid(z), side="right")
    found, asked = run_parties(parties).results["lender"]
    assert (found == expected).all()
    assert asked == expected[[2, 7]].tolist()
