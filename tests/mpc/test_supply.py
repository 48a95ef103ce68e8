"""Where correlations come from: each mode's source, and what does not fit together."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from mpc.correlations import Usage
from mpc.dealer import run_dealer
from mpc.errors import LocalProtocolError
from mpc.session import Session
from mpc.supply import MODES, supply
from mpc.triples import Triple
from tests.harness import run_parties

NAMES = ("a", "b")


def multiply(mode, dealer):
    """Both parties take a triple from the mode's source; returns what each holds and its source."""

    def party(me):
        def body(channel):
            source = supply(mode, channel, NAMES, dealer, me)
            session = Session(channel, NAMES, me, source)
            drawn, shares = session.correlations.draw(Triple(op="mul", shape0=(50,), shape1=(50,)))
            source.settle()
            source.close()
            return drawn, shares, source

        return body

    parties = {name: party(i) for i, name in enumerate(NAMES)}
    return run_parties(parties if dealer is None else {**parties, dealer: lambda channel: run_dealer(channel, NAMES)})


@pytest.mark.parametrize(
    ("mode", "dealer", "source"),
    [
        ("dealer", "dealer", "Correlations"),
        ("verified-dealer", "dealer", "Verified"),
        ("ot", None, "ObliviousTransfers"),
    ],
)
def test_every_mode_supplies_the_same_correlations(mode, dealer, source):
    run = multiply(mode, dealer)
    (a0, b0), (c0,), first = run["a"]
    (a1, b1), (c1,), second = run["b"]
    assert np.array_equal((a0 + a1) * (b0 + b1), c0 + c1)
    assert type(first).__name__ == type(second).__name__ == source
    assert first.used == second.used == {"triple": Usage(1, 150)}


@pytest.mark.parametrize(
    ("mode", "parties", "dealer", "sentence"),
    [
        ("dice", NAMES, "dealer", "one of dealer, verified-dealer, ot, got 'dice'"),
        ("dealer", NAMES, None, "randomness 'dealer' needs a dealer that is none of the parties, got none"),
        ("verified-dealer", NAMES, "b", "needs a dealer that is none of the parties, got b"),
        ("ot", NAMES, "dealer", "randomness 'ot' has no dealer, got 'dealer'"),
        ("ot", ("a", "b", "c"), None, "randomness 'ot' is for exactly two parties, got 3"),
    ],
)
def test_what_does_not_fit_is_refused_before_a_word_is_sent(mode, parties, dealer, sentence):
    with pytest.raises(LocalProtocolError, match=sentence):
        supply(mode, None, parties, dealer, 0)


def test_choosing_loads_no_source():
    program = (
        "import sys, mpc.supply\n"
        "assert not {'numpy', 'mpc.dealer', 'mpc.verified.source', 'mpc.ot.source'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_the_modes_are_those_of_the_spec():
    assert MODES == ("dealer", "verified-dealer", "ot")
