"""The store's failure rate against its rule, with bands so narrow that failures are seen."""

import pytest
from scipy import stats

from benchmarks.okvs_failures import Measured, at_least, interval, line, main, measure, rule

SURE = 1 - 1e-6
"""A sound store is called faulty once in more than a million runs of these tests."""


@pytest.mark.parametrize(("bits", "width", "runs"), [(14, 72, 250), (18, 64, 25)])
def test_the_store_fails_no_more_often_than_the_rule_allows(bits, width, runs):
    found = measure(1 << bits, width, runs, seed=7)
    assert found.runs == runs
    assert not found.exceeds(rule(width), SURE), found


def test_a_store_with_too_few_columns_is_noticed():
    found = measure(1 << 12, 72, 60, seed=7, columns_per_key=1.0)
    assert found.exceeds(rule(72), SURE), found


def test_whole_bands_do_not_fail():
    assert measure(1 << 12, 224, 20, seed=7).failures == 0


def test_the_same_seed_gives_the_same_failures_and_another_one_others():
    first, again, other = (measure(1 << 8, 16, 50, seed) for seed in (1, 1, 2))
    assert first == again
    assert 0 < first.failures < 50
    assert measure(1 << 8, 24, 50, 1).failures < first.failures
    assert other.runs == 50


@pytest.mark.parametrize("width", [0, 225])
def test_a_band_has_a_width_that_the_kernels_take(width):
    with pytest.raises(ValueError, match="1 to 224 bits"):
        measure(16, width, 1, 1)


def test_the_rule_is_the_authors():
    assert rule(224) < 2**-45
    assert rule(64) == pytest.approx(2**-2.0124)
    assert rule(8) == 1.0


@pytest.mark.parametrize(("failures", "runs"), [(0, 10), (1, 10), (10, 10), (3, 600), (300, 3000)])
@pytest.mark.parametrize("confidence", [0.95, SURE])
def test_intervals_are_clopper_and_pearsons(failures, runs, confidence):
    expected = stats.binomtest(failures, runs).proportion_ci(confidence, method="exact")
    assert interval(failures, runs, confidence) == pytest.approx(tuple(expected), abs=1e-7)


def test_tails_of_the_binomial_distribution():
    for p in (0.0, 1e-9, 0.3, 1.0):
        for k in (0, 1, 7, 20):
            assert at_least(k, 20, p) == pytest.approx(stats.binom.sf(k - 1, 20, p), abs=1e-12)


def test_a_line_says_what_is_above_the_rule():
    assert "above the rule" not in line(Measured(1 << 14, 64, 100, 20))
    assert line(Measured(1 << 14, 64, 100, 60)).split()[:5] == ["2^14", "64", "100", "60", "2^-0.7"]
    assert line(Measured(1 << 14, 64, 100, 60)).endswith("above the rule")


def test_the_program_fails_if_the_store_does(monkeypatch, capsys):
    monkeypatch.setattr("benchmarks.okvs_failures.QUICK", ((8, 5, (64,)),))
    main(["--quick"])
    assert len(capsys.readouterr().out.splitlines()) == 2
    monkeypatch.setattr("mpc.matching.okvs.solve", lambda *_: None)
    with pytest.raises(SystemExit, match="more often"):
        main(["--quick", "--json"])
    assert '"failures": 5' in capsys.readouterr().out
