"""Several functions of one opened angle: each as close as its fit says, and fits that do not go together are refused."""

from dataclasses import replace

import numpy as np
import pytest

from mpc.dealer import Correlations, run_dealer
from mpc.errors import LocalProtocolError
from mpc.fourier import plan_series, series_together
from mpc.functions import Fit
from mpc.ring import decode, encode
from mpc.session import Session
from tests.harness import run_parties

SINE = Fit(-8, 8, 32.0, 2, (0, 0), (1 << 40, 0), 1 << 39, 0, 16, 16, 1e-3)
COSINE = Fit(-8, 8, 32.0, 2, (0, 1 << 40), (0, 0), 0, 0, 16, 16, 1e-3)
NAMES = ("a", "b", "c")


def evaluate(x, fits, asked, names=NAMES):
    words = encode(x, 20)
    masks = [np.random.default_rng(i).integers(0, 2**63, len(x), dtype=np.uint64) for i in range(len(names) - 1)]
    shares = [*masks, words - np.add.reduce(masks)]

    def party(me):
        def body(channel):
            session = Session(channel, names, me, Correlations(channel, "dealer", me, len(names)))
            ticket = session.correlations.plan([plan_series(len(x), asked)])[0]
            found = series_together(session, ticket, shares[me], 20, fits)
            session.correlations.close()
            return found

        return body

    parties = {name: party(i) for i, name in enumerate(names)}
    return run_parties({**parties, "dealer": lambda channel: run_dealer(channel, names)})


@pytest.mark.parametrize("names", [NAMES[:2], NAMES])
def test_each_function_is_as_close_as_its_fit(names):
    x = np.linspace(-8, 8, 101)
    run = evaluate(x, [SINE, COSINE], SINE, names)
    for i, fit in enumerate((SINE, COSINE)):
        found = decode(np.add.reduce([run.results[name][i] for name in names]), fit.bits)
        assert np.abs(found - fit(x)).max() < 2e-4
    opened = [m for m in run.transcript if m.tag == "fourier/turn"]
    assert [m.size for m in opened] == [4 * 101] * len(names) * (len(names) - 1)


@pytest.mark.parametrize(
    "other", [replace(COSINE, period=16.0), replace(COSINE, step=1), replace(COSINE, basis_bits=15)]
)
def test_fits_of_another_angle_or_basis_are_refused(other):
    with pytest.raises(LocalProtocolError, match="not for these series"):
        evaluate(np.zeros(3), [SINE, other], SINE)


def test_a_ticket_for_another_number_of_values_is_refused():
    def body(channel):
        session = Session(channel, ("a", "b"), 0, Correlations(channel, "dealer", 0, 2))
        ticket = session.correlations.plan([plan_series(4, SINE)])[0]
        with pytest.raises(LocalProtocolError, match="not for these series of 3 words"):
            series_together(session, ticket, np.zeros(3, dtype=np.uint64), 20, [SINE])
        return True

    dealer = {
        "dealer": lambda channel: (
            [channel.send("a", "dealer/key", 1, bytes(32))] and channel.recv("a", "dealer/request", 5, limit=1 << 20)
        )
    }
    assert run_parties({"a": body, "b": lambda _channel: None, **dealer})["a"]
