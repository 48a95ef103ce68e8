"""The engine benchmark without a peer: no environment is made, and every operation of ours is done in small."""

import argparse
import json
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest

from benchmarks import engine, operations, parties, peers, table, workload
from benchmarks.workload import OPERATIONS, answer, dash, inputs, record, turns
from tests.harness import run_parties

FIGURES = ("seconds", "cpu_seconds", "mb", "rounds", "error")


def line(operation, seconds, **more):
    return dash(operation, "") | {"seconds": seconds, "cpu_seconds": 2 * seconds} | more


# --- what is computed


@pytest.mark.parametrize("name", [name for name in OPERATIONS if name != "masks"])
def test_inputs_are_the_same_each_time_and_fit_float32(name):
    for first, second in zip(inputs(name), inputs(name)):
        assert (first == second).all()
        assert (first.astype(np.float32) == first).all()


def test_a_record_has_medians_over_the_turns_of_the_slowest_party_and_of_all_cpu_seconds():
    spent = [[(9.0, 1.0), (2.0, 1.0)], [(1.0, 2.0), (3.0, 2.0)], [(4.0, 4.0), (5.0, 4.0)]]
    out = record("one", spent, answer("one", inputs("one")) + 0.25, mb=1.5)
    assert out == line("one", 5.0) | {"cpu_seconds": 4.0, "mb": 1.5, "error": 0.25}


def test_a_record_says_how_many_results_are_wrong():
    result = answer("groupby_sum", inputs("groupby_sum"))
    result[3] += 1
    out = record("groupby_sum", [[(1.0, 1.0)]], result, note="as it is")
    assert out["error"] == 1.0
    assert out["note"] == "as it is; 1 of 100 results are off by more than 0.5"


def test_single_elements_are_measured_more_often():
    assert turns("multiply", 3) == 3
    assert turns("one", 3) > 30


# --- the command line


def arguments(*words):
    parser = argparse.ArgumentParser()
    peers.add_arguments(parser)
    return parser.parse_args(words)


def test_everything_is_measured_unless_asked_otherwise():
    a = arguments()
    assert peers.chosen(a.peers) == ("crypten", "spu")
    assert a.operations == list(OPERATIONS)
    assert a.repeat >= 3


@pytest.mark.parametrize(("word", "names"), [("none", ()), ("crypten", ("crypten",)), ("spu", ("spu",))])
def test_peers_can_be_chosen(word, names):
    assert peers.chosen(arguments("--peers", word).peers) == names


@pytest.mark.parametrize("words", [("--peers", "other"), ("--operations", "other"), ("--repeat", "many")])
def test_anything_else_is_refused(words, capsys):
    with pytest.raises(SystemExit):
        arguments(*words)
    assert words[1] in capsys.readouterr().err


# --- environments


def test_the_peer_gets_our_crypten_and_pytorch():
    pyproject = Path(peers.ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert set(peers.CRYPTEN) <= set(tomllib.loads(pyproject)["project"]["dependencies"])


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Commands that would have been run; the environments stand in a fresh folder."""
    commands = []

    def install(command):
        commands.append(command)
        if command[1:3] == ["-m", "venv"]:
            Path(command[3]).mkdir(parents=True)

    monkeypatch.setattr(peers, "BENCH", tmp_path / "bench")
    monkeypatch.setattr(peers, "_install", install)
    return commands


def test_an_environment_is_made_once(installed, tmp_path):
    python = peers.environment("p", ("x==1", "y==2"))
    assert python == tmp_path / "bench" / "p" / "bin" / "python"
    assert installed[0] == [sys.executable, "-m", "venv", str(tmp_path / "bench" / "p")]
    assert installed[1][0] == str(python)
    assert installed[1][-2:] == ["x==1", "y==2"]
    assert peers.environment("p", ("x==1", "y==2")) == python
    assert len(installed) == 2


def test_an_environment_for_other_requirements_is_made_anew(installed, tmp_path):
    peers.environment("p", ("x==1",))
    (tmp_path / "bench" / "p" / "old").touch()
    peers.environment("p", ("x==2",))
    assert len(installed) == 4
    assert not (tmp_path / "bench" / "p" / "old").exists()


def test_spu_needs_a_python_that_it_has_wheels_for(installed, monkeypatch):
    monkeypatch.setattr(sys, "version_info", (3, 14, 0))
    monkeypatch.setattr(peers.shutil, "which", lambda name: "/somewhere/python3.10" if name == "python3.10" else None)
    peers.spu_environment()
    assert installed[0][0] == "/somewhere/python3.10"
    monkeypatch.setattr(peers.shutil, "which", lambda _: None)
    with pytest.raises(peers.Unavailable, match=r"python3\.11 or python3\.10"):
        peers.spu_environment()


# --- peers that cannot be measured


def test_a_peer_that_cannot_be_installed_becomes_dashes_with_the_reason(tmp_path, monkeypatch):
    def fails(command, **how):
        assert how["timeout"] > 0
        return subprocess.CompletedProcess(command, 1, "", "looking\nERROR: no such version\n\n")

    monkeypatch.setattr(peers, "BENCH", tmp_path)
    monkeypatch.setattr(peers.subprocess, "run", fails)
    out = peers.measure(["crypten"], ["compare", "sort"], 3, 1)
    assert out == {
        "crypten": [dash(name, "cannot be installed: ERROR: no such version") for name in ("compare", "sort")]
    }
    text = table.render([], out, {})
    assert "[1] cannot be installed: ERROR: no such version" in text
    assert text.count("crypten [1]") == 2


@pytest.mark.parametrize(
    ("problem", "reason"),
    [(subprocess.TimeoutExpired("pip", 1), "longer than"), (FileNotFoundError(2, "No such file"), "No such file")],
)
def test_installing_may_fail_in_other_ways(problem, reason, tmp_path, monkeypatch):
    def fails(command, **how):
        raise problem

    monkeypatch.setattr(peers, "BENCH", tmp_path)
    monkeypatch.setattr(peers.subprocess, "run", fails)
    (only,) = peers.measure(["crypten"], ["compare"], 3, 1)["crypten"]
    assert reason in only["note"]
    assert [only[key] for key in FIGURES] == [None] * len(FIGURES)


def peer(tmp_path, monkeypatch, body, timeout_s=60):
    """A peer of this Python, whose parties run `body` after reading their order."""
    (tmp_path / "fake.py").write_text(f"import json, os, sys, time\norder = json.loads(sys.stdin.readline())\n{body}")
    monkeypatch.setattr(peers, "ROOT", tmp_path)
    run = peers.Run({"protocol": "P"}, ("compare", "sort"))
    monkeypatch.setitem(peers.PEERS, "crypten", peers.Peer(lambda: Path(sys.executable), "fake", (run,)))
    return peers.measure(["crypten"], ["compare", "sort", "divide"], 3, timeout_s)["crypten"]


PRINT = "if order['party'] == 0: print('hello'); print(json.dumps(dict({}, operation='compare')), flush=True)\n"


def test_the_parties_get_their_order_and_their_lines_come_back(tmp_path, monkeypatch, capsys):
    told = (
        "dict(seconds=1.0, note=f\"{order['protocol']} {order['operations']} {order['repeat']} {len(order['ports'])}\")"
    )
    out = peer(tmp_path, monkeypatch, PRINT.format(told))
    assert out[0] == {"operation": "compare", "seconds": 1.0, "note": "P ['compare', 'sort'] 3 2"}
    assert out[1:] == [dash("sort", "not offered"), dash("divide", "not offered")]
    assert "crypten: compare 1.0000 s" in capsys.readouterr().err


def test_a_party_that_fails_ends_the_other_and_leaves_the_lines_before_it(tmp_path, monkeypatch):
    fails = "if order['party'] == 1: sys.exit('no memory left')\ntime.sleep(50)"
    out = peer(tmp_path, monkeypatch, PRINT.format("dict(seconds=1.0)") + fails)
    assert out[0]["seconds"] == 1.0
    assert out[1] == dash("sort", "party 1 failed: no memory left")


def test_a_peer_that_is_late_is_ended(tmp_path, monkeypatch):
    out = peer(tmp_path, monkeypatch, "time.sleep(50)", timeout_s=1)
    assert out[1] == dash("sort", "a party was ended: out of memory, or longer than 1 s")


# --- the table

OURS = [
    line("compare", 0.25, mb_between_owners=10.0, mb_from_dealer=2.5, rounds=4, error=0.0),
    line("extra", 1.0, what="ours only"),
]
PEERS = {
    "crypten": [line("compare", 2.5, mb=432.0, rounds=8, error=0.0), dash("sort", "CrypTen has no sort")],
    "spu": [
        line("compare", 0.2, cpu_seconds=0.25, note="a bit"),
        line("sort", 20.0, error=3.8e-6),
        line("one", 0.005, mb=3.2e-5),
    ],
}


def test_the_table_is_aligned_text_with_ratios_targets_and_notes():
    assert table.render(OURS, PEERS, {"compare": 0.7}).splitlines() == [
        "               seconds    CPU s        MB  rounds    error  ours/peer  of CPU s  target",
        "x < 0, 1,000,000 values",
        "  accord        0.2500   0.5000     12.50       4  0.0e+00                       0.7 s: met",
        "  crypten       2.5000   5.0000    432.00       8  0.0e+00      0.100     0.100",
        "  spu [1]       0.2000   0.2500         -       -        -      1.250     2.000",
        "sort, 100,000 values",
        "  accord             -        -         -       -        -",
        "  crypten [2]        -        -         -       -        -          -         -",
        "  spu          20.0000  40.0000         -       -  3.8e-06          -         -",
        "x * y, one value",
        "  accord             -        -         -       -        -",
        "  spu           0.0050   0.0100  0.000032       -        -          -         -",
        "ours only",
        "  accord        1.0000   2.0000         -       -        -",
        "[1] a bit",
        "[2] CrypTen has no sort",
    ]


def test_a_missed_target_is_said():
    assert "0.2 s: missed" in table.render(OURS, {}, {"compare": 0.2})


def test_the_table_of_peers_alone_has_no_lines_of_ours():
    assert table.OURS not in table.render([], PEERS, {})


# --- our operations


class Counted:
    """A channel of the harness that has a link's counters."""

    def __init__(self, channel):
        self.channel, self.bytes_sent, self.rounds = channel, dict.fromkeys(parties.NAMES, 0), 0

    def __getattr__(self, name):
        return getattr(self.channel, name)


def reports(name, randomness="dealer"):
    """What everybody reports of two turns, played in this process."""
    randomness = engine.OPERATIONS[name].randomness or randomness
    order = {"operation": name, "n": 20, "repeat": 1, "randomness": randomness}
    names = parties.OWNERS if randomness == "ot" else parties.NAMES
    run = {n: engine.deal if n == engine.DEALER else engine.own for n in names}
    return run_parties({n: lambda c, n=n: run[n](Counted(c), order | {"me": n}) for n in names})


@pytest.mark.parametrize("name", engine.OPERATIONS)
def test_every_operation_gives_the_plain_answer(name):
    for owner in parties.OWNERS:
        assert len(reports(name)[owner]["turns"]) == 1


@pytest.mark.parametrize("randomness", ["verified-dealer", "ot"])
def test_an_operation_takes_its_randomness_from_elsewhere(randomness):
    assert len(reports("owner_pass", randomness)["a"]["turns"]) == 1


@pytest.mark.parametrize(
    ("name", "randomness", "why"),
    [("shuffle", "ot", "not offered without a dealer"), ("gram", "verified-dealer", "cannot be verified")],
)
def test_a_source_that_lacks_an_operation_says_so(name, randomness, why):
    out = reports(name, randomness)
    assert why in out["a"]["refused"]
    assert out["a"] == out["b"]


def test_what_a_source_lacks_is_a_dash_with_its_reason(monkeypatch):
    monkeypatch.setattr(engine, "run_processes", lambda *_: {n: {"refused": "no"} for n in parties.OWNERS})
    out = engine.measure("gram", 1, 1.0, "ot", None)
    assert out == dash("gram", "no") | {"what": engine.OPERATIONS["gram"].what}
    assert "[1] no" in table.render([out], {}, {})


def test_a_result_over_its_bound_is_an_error(monkeypatch):
    wrong = operations.also_peers("one", operations.one, bound=0.0, plain=lambda x, y: x * y + 1)
    monkeypatch.setitem(engine.OPERATIONS, "one", wrong)
    with pytest.raises(AssertionError, match="error"):
        reports("one")


TURNS = {"a": [[0.2, 1.0, 10e6, 4]], "b": [[0.25, 2.0, 6e6, 4]]}


def measured():
    """Reports as processes would give them."""
    return {n: {"turns": TURNS[n], "error": 0.0} for n in TURNS} | {"dealer": {"cpu_seconds": 1.0, "bytes_sent": 4e6}}


def test_a_measurement_is_of_the_slower_owner_and_of_everybodys_work(monkeypatch):
    monkeypatch.setattr(engine, "run_processes", lambda *_: measured())
    out = engine.measure("compare", 1, 0.001, "verified-dealer", None)
    assert (out["seconds"], out["cpu_seconds"], out["rounds"]) == (0.25, 4.0, 4)
    assert (out["mb_between_owners"], out["mb_from_dealer"]) == (16.0, 4.0)
    assert out["note"] == "randomness: verified-dealer; size 1,000"


def test_the_table_is_measured_unless_asked_otherwise():
    assert engine.arguments_of([]).operations == list(operations.OPERATIONS)
    assert set(workload.OPERATIONS) < set(operations.OPERATIONS)


def test_another_size_is_for_ours_alone(capsys):
    assert engine.arguments_of(["--scale", "0.1", "--peers", "none"]).scale == 0.1
    with pytest.raises(SystemExit):
        engine.arguments_of(["--scale", "0.1"])
    assert "--peers none" in capsys.readouterr().err


def test_every_operation_is_listed(capsys):
    engine.main(["--list"])
    lines = capsys.readouterr().out.splitlines()
    assert [text.split()[0] for text in lines] == list(engine.OPERATIONS)
    assert lines[0].endswith("  x < 0, 1,000,000 values, 0.7 s at most")


@pytest.mark.parametrize("word", [*engine.OPERATIONS, "--list", "--scale", "--randomness", "--network", "--saved"])
def test_the_page_has_every_operation_and_option(word):
    assert f"`{word}" in (peers.ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")


def test_the_program_reads_peers_from_a_file_and_prints_json(tmp_path, monkeypatch, capsys):
    theirs = tmp_path / "peers"
    theirs.write_text(
        "".join(json.dumps({"peer": who} | each) + "\n" for who, lines in PEERS.items() for each in lines)
    )
    monkeypatch.setattr(engine, "run_processes", lambda *_: measured())
    engine.main(["--operations", "compare", "--repeat", "1", "--saved", str(theirs), "--json"])
    (only,) = map(json.loads, capsys.readouterr().out.splitlines())
    assert only["operation"] == "compare"
    assert only["ratios"] == {"crypten": 0.1, "spu": 1.25}
    assert only["cpu_ratios"] == {"crypten": 0.8, "spu": 16.0}
    assert (only["accord"]["seconds"], only["target_seconds"]) == (0.25, 0.7)
