"""The engine benchmark without a peer: no environment is made, and every operation of ours is done in small."""

import argparse
import json
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest

from benchmarks import (
    engine,
    matching,
    operations,
    parties,
    peer_rr22,
    peer_spu_logistic,
    peers,
    table,
    vertical_logistic,
    workload,
)
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


# --- matching beside RR22


def test_half_of_the_smaller_set_is_common():
    for sizes in ((40, 40), (40, 10), (10, 40), (7, 1)):
        first, second = (set(matching.addresses(matching.first_of(i, sizes), sizes[i])) for i in (0, 1))
        assert (len(first), len(second), len(first & second)) == (*sizes, min(sizes) // 2)


@pytest.fixture
def bench(tmp_path):
    """A size, its files, and no processes."""
    return matching.Bench(tmp_path, (60, 40), False, Path(sys.executable), 60)


def matched_at_both_sides(match, bench, items):
    orders = {name: bench.order | {"me": name} for name in parties.OWNERS}
    return run_parties({name: lambda c, name=name: match(items[name], orders[name], c) for name in parties.OWNERS})


def test_ours_goes_from_strings_to_rows(bench):
    items = {
        name: [
            matching.TAG + who.encode() for who in matching.addresses(matching.first_of(i, bench.sizes), bench.sizes[i])
        ]
        for i, name in enumerate(parties.OWNERS)
    }
    out = matched_at_both_sides(matching.from_memory, bench, items)
    found = [[items[name][row] for row in out[name][0]] for name in parties.OWNERS]
    assert found[0] == found[1]
    assert sorted(who.removeprefix(matching.TAG).decode() for who in found[0]) == bench.common


def test_ours_goes_from_file_to_file(bench):
    matching.import_readers()
    out = matched_at_both_sides(matching.from_file, bench, {name: [] for name in parties.OWNERS})
    assert all(lap >= 0 for _, laps in out.values() for lap in laps.values())
    written = [bench.folder / f"{name}-matched.csv" for name in parties.OWNERS]
    bench.check(written)
    assert not written[0].exists()  # the next turn cannot find it


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda lines: lines[:1] + lines[:0:-1], "another order"),
        (lambda lines: lines[:-1], "different rows"),
        (lambda lines: lines[1:], "different rows"),
    ],
)
def test_other_rows_at_one_side_are_found(bench, spoil, why):
    lines = [matching.COLUMN, *bench.common]
    paths = [bench.folder / "x", bench.folder / "y"]
    for path, rows in zip(paths, (lines, spoil(lines))):
        path.write_text("\n".join(rows))
    with pytest.raises(AssertionError, match=why):
        bench.check(paths)


@pytest.mark.parametrize(("rows", "why"), [(["email", "eve@example.com"], "wrong matches"), (["x"], "no heading")])
def test_wrong_rows_at_both_sides_are_found(bench, rows, why):
    paths = [bench.folder / "x", bench.folder / "y"]
    for path in paths:
        path.write_text("\n".join(rows))
    with pytest.raises(AssertionError, match=why):
        bench.check(paths)


LOG = """[2026-01-31 23:59:5{0}.250] [info] [rr22_psi.cc:82] mask size: 10
[2026-02-01 00:00:0{0}.500] [info] [rr22_psi.cc:118] get intersection end
[2026-02-01 00:00:09.000] [info] [rr22_psi.cc:120] get intersection post f
"""


def test_rr22s_protocol_lasts_from_the_first_party_to_the_last():
    assert peer_rr22.protocol_seconds([LOG.format(8), LOG.format(9)]) == 11.25
    assert peer_rr22.protocol_seconds(["nothing", LOG.format(8)[:60]]) is None


def rr22_turn(bench, monkeypatch, body, timeout_s=60):
    """A turn whose parties run `body` after reading their order."""
    (bench.folder / "benchmarks").mkdir()
    (bench.folder / "benchmarks" / "__init__.py").touch()
    script = f"import json, sys, time\norder = json.loads(sys.stdin.readline())\n{body}"
    (bench.folder / "benchmarks" / "peer_rr22.py").write_text(script)
    monkeypatch.setattr(peer_rr22, "ROOT", bench.folder)
    bench.timeout_s = timeout_s
    return bench.rr22(True)


REPORT = "dict(seconds=1.5, cpu_seconds=1.0, loopback=[5, 9], peak_mib=300)"


def test_a_turn_of_rr22_gives_both_reports_and_checked_files(bench, monkeypatch):
    common = "\n".join(['"email"', *bench.common])
    body = f"open(order['output'], 'w').write({common!r})\nassert open(order['input']).read().startswith('email')\n"
    body += f"print({LOG.format(8)!r})\nprint('running', end='')\nprint('\\n' + json.dumps({REPORT}))"
    reports = rr22_turn(bench, monkeypatch, body)
    assert [report["protocol_seconds"] for report in reports] == [10.25, 10.25]
    assert [report["peak_mib"] for report in reports] == [300, 300]


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("if order['party']: sys.exit('no memory left')\ntime.sleep(50)", "party 1 failed: no memory left"),
        ("time.sleep(50)", "longer than 1 s"),
        ("print('done')", "reported nothing"),
    ],
)
def test_a_turn_of_rr22_that_fails_says_why(body, why, bench, monkeypatch):
    with pytest.raises(peers.Unavailable, match=why):
        rr22_turn(bench, monkeypatch, body, 1 if "longer" in why else 60)


def turn_of(seconds, **more):
    """Both sides' reports."""
    one = {"seconds": seconds, "cpu_seconds": seconds / 2, "loopback": [1000, 5000], "peak_mib": 100} | more
    return [one, one | {"seconds": seconds / 4, "peak_mib": 90, "loopback": [900, 4900]}]


OUR_TURNS = {"frame_bytes": 1850, "rounds": 4, "laps": {"reading": 0.5, "matching": 1.0}}


def test_a_line_has_medians_of_the_slower_side_and_the_least_traffic():
    noisy = turn_of(9.0, **OUR_TURNS, loopback=[0, 10**9])
    out = matching.summary([turn_of(2.0, **OUR_TURNS), noisy, turn_of(3.0, **OUR_TURNS)])
    assert out == {
        "seconds": 3.0,
        "cpu_seconds": [1.5, 1.5],
        "loopback_bytes": 4100,
        "peak_mib": [100, 90],
        "frame_bytes": 3700,
        "rounds": 4,
        "laps": OUR_TURNS["laps"],
    }
    assert matching.summary([turn_of(4.0, protocol_seconds=1.0)])["protocol_seconds"] == 1.0


@pytest.fixture
def played(monkeypatch):
    """Turns whose reports are given."""
    monkeypatch.setattr(matching.Bench, "memory", lambda _: turn_of(0.5, **OUR_TURNS))
    monkeypatch.setattr(matching.Bench, "files", lambda _: turn_of(1.0, **OUR_TURNS))
    monkeypatch.setattr(
        matching.Bench, "rr22", lambda _, unique: turn_of(8.0 if unique else 10.0, protocol_seconds=2.0)
    )
    monkeypatch.setattr(matching, "spu_environment", lambda: Path(sys.executable))


def test_ours_stands_beside_rr22(played, capsys):
    matching.main(["--items", "100", "--peer-items", "40", "--repeat", "2", "--peers", "spu"])
    out = capsys.readouterr().out.splitlines()
    assert out[0].startswith("100 x 40 addresses, 20 of them common; medians of 2; load ")
    assert [" ".join(text.split()) for text in out[2:10]] == [
        "strings in, row numbers out",
        "accord 0.50 0.25 + 0.25 0.00 41.0 100 + 90",
        "rr22, its protocol alone [1] 2.00 4.00",
        "file in, file out",
        "accord 1.00 0.50 + 0.50 0.00 41.0 100 + 90",
        "rr22, told that keys are unique 8.00 4.00 + 4.00 0.00 41.0 100 + 90 8.00 8.00",
        "rr22 10.00 5.00 + 5.00 0.00 41.0 100 + 90 10.00 10.00",
        "of accord's file to file: reading 0.50 s, matching 1.00 s",
    ]
    assert "rr22 from file to file over accord in memory: 16.00, 20.00" in out


def test_rr22_that_cannot_be_measured_leaves_ours_and_the_reason(played, monkeypatch, capsys):
    def unavailable(*_):
        raise peers.Unavailable("no such thing here")

    for where in ("spu_environment", "rr22"):
        with monkeypatch.context() as patch:
            patch.setattr(matching if where == "spu_environment" else matching.Bench, where, unavailable)
            matching.main(["--items", "10", "--repeat", "2", "--peers", "spu"])
        out = capsys.readouterr().out
        assert "rr22: no such thing here" in out
        assert "accord" in out


def test_the_program_prints_a_document_for_each_size(played, monkeypatch, capsys):
    monkeypatch.setitem(matching.SIZES, "1e5", 10)
    monkeypatch.setitem(matching.SIZES, "2^20", 20)
    matching.main(["--sizes", "1e5", "2^20", "--repeat", "1", "--peers", "spu", "--json"])
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert (first["items"], second["items"]) == ([10, 10], [20, 20])
    of_unique = {"files": 8.0, "files_cpu": 8.0, "files_to_memory": 16.0, "memory": 4.0}
    assert first["ratios"]["rr22_unique"] == of_unique
    assert first["ratios"]["rr22_default"] == of_unique | {"files": 10.0, "files_cpu": 10.0, "files_to_memory": 20.0}
    matching.main(["--sizes", "1e5", "--repeat", "1", "--json"])
    alone = json.loads(capsys.readouterr().out)
    assert alone["ratios"] == {}
    assert "rr22_default" not in alone


def test_matching_has_one_size_unless_asked_otherwise(capsys):
    assert matching.arguments_of([]).sizes == ["2^20"]
    assert matching.arguments_of([]).peers == "none"
    with pytest.raises(SystemExit):
        matching.arguments_of(["--peer-items", "3"])
    assert "--items" in capsys.readouterr().err


@pytest.mark.parametrize("word", ["--sizes", "--items", "--peer-items", "--peers none", "--fallback", "--quick"])
def test_the_page_has_every_option_of_matching(word):
    assert f"`{word}" in (peers.ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")


# --- a logistic regression beside SPU


def test_spus_epochs_reach_scikit_learns_auc():
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score

    X, y = vertical_logistic.data(20_000, 4)
    target = roc_auc_score(y, LogisticRegression().fit(X, y).decision_function(X))
    w, b, aucs = np.zeros(4), 0.0, []
    for _ in range(6):
        w, b = peer_spu_logistic.epoch(X, y, w, b)
        aucs.append(peer_spu_logistic.auc(X @ w, y))
    assert aucs[-1] == pytest.approx(roc_auc_score(y, X @ w))
    assert aucs[-1] == pytest.approx(target, abs=1e-3)
    assert aucs[0] < aucs[-1]


def test_spu_takes_fewer_rows_than_a_batch():
    X, y = vertical_logistic.data(100, 2)
    w, b = peer_spu_logistic.epoch(X, y, np.zeros(2), 0.0)
    assert w == pytest.approx(0.1 * X.T @ (y - 0.5) / 100)
    assert b == pytest.approx(0.1 * (y - 0.5).mean())


SPENT = [[(2.0, 1.0), (4.0, 2.0)], [(3.0, 1.0), (1.0, 1.0)], [(5.0, 2.0), (5.0, 2.0)]]


def test_spus_record_has_the_slower_party_and_counts_epochs_until_close():
    out = peer_spu_logistic.summary(SPENT, [0.7, 0.8, 0.81], 0.8005, 1e-3)
    assert (out["seconds"], out["cpu_seconds"], out["made"]) == (4.0, 3.0, 3)
    assert (out["epochs"], out["seconds_to_close"], out["cpu_seconds_to_close"]) == (2, 7.0, 5.0)
    assert out["auc"] == 0.8
    never = peer_spu_logistic.summary(SPENT, [0.7, 0.75, 0.76], 0.8, 1e-3)
    assert (never["epochs"], never["seconds_to_close"], never["auc"]) == (None, None, 0.76)


def spu_trains(tmp_path, monkeypatch, body, timeout_s=60):
    """Parties that run `body` after reading their order."""
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks" / "__init__.py").touch()
    script = f"import json, sys, time\norder = json.loads(sys.stdin.readline())\n{body}"
    (tmp_path / "benchmarks" / "peer_spu_logistic.py").write_text(script)
    monkeypatch.setattr(peer_spu_logistic, "ROOT", tmp_path)
    X, y = vertical_logistic.data(10, 2)
    return peer_spu_logistic.train(Path(sys.executable), X, y, {"target": 0.5}, timeout_s)


def test_spus_parties_get_rows_and_order_and_party_0_reports(tmp_path, monkeypatch):
    body = """import numpy as np
X = np.load(order["folder"] + "/X.npy")
told = [order["protocol"], order["target"], len(order["ports"]), *X.shape, str(X.dtype)]
if order["party"] == 0: print("hello"); print(json.dumps({"protocol": told}))
"""
    assert spu_trains(tmp_path, monkeypatch, body) == {"protocol": ["SEMI2K", 0.5, 2, 10, 2, "float32"]}


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("if order['party']: sys.exit('no memory left')\ntime.sleep(50)", "party 1 failed: no memory left"),
        ("time.sleep(50)", "longer than 1 s"),
        ("print('done')", "reported nothing"),
    ],
)
def test_a_training_of_spu_that_fails_says_why(body, why, tmp_path, monkeypatch):
    with pytest.raises(peers.Unavailable, match=why):
        spu_trains(tmp_path, monkeypatch, body, 1 if "longer" in why else 60)


@pytest.fixture
def trained(monkeypatch):
    """Trainings whose reports are given: ours in 2 s, SPU's epochs as in SPENT."""
    zero = dict.fromkeys(parties.NAMES, 0)
    traffic = dict.fromkeys(("mb_sent", "mb_sent_once", "mb_sent_per_pass", "peak_mib"), zero)
    ours = {"seconds": 2.0, "cpu_seconds": 3.0, "sklearn_seconds": 0.5, "ratio": 4.0, "auc": 0.8, "sklearn_auc": 0.8005}
    size = {"rows": 100, "columns": 2, "passes": 4, "rounds": 9, "network": None}
    theirs = peer_spu_logistic.summary(SPENT, [0.7, 0.8, 0.81], 0.8005, 1e-3) | {"mb": 300.0}
    monkeypatch.setattr(vertical_logistic, "measure", lambda *_: ours | size | traffic)
    monkeypatch.setattr(peer_spu_logistic, "spu_environment", lambda: Path(sys.executable))
    monkeypatch.setattr(peer_spu_logistic, "train", lambda *_: theirs)
    return theirs


def logistic(monkeypatch, capsys, *words):
    """What the program prints."""
    monkeypatch.setattr(sys, "argv", ["vertical_logistic", "--rows", "100", "--columns", "2", *words])
    vertical_logistic.main()
    return capsys.readouterr().out


def test_our_training_stands_beside_spus(trained, monkeypatch, capsys):
    out = logistic(monkeypatch, capsys, "--peers", "spu").splitlines()
    assert out[-3:] == [
        "spu, an epoch: 4.00 s (3.00 CPU s), 300.0 MB sent under SEMI2K",
        "AUC 0.80000, close after 2 epochs: 7.00 s (5.00 CPU s)",
        "our whole training over one epoch: 0.50 (CPU s 1.00), over those epochs: 0.29 (CPU s 0.60)",
    ]
    document = json.loads(logistic(monkeypatch, capsys, "--peers", "spu", "--json"))
    assert document["spu"]["ratios"] == {"epoch": 0.5, "epoch_cpu": 1.0, "close": 2 / 7, "close_cpu": 0.6}


def test_spu_that_never_comes_close_has_the_ratio_of_an_epoch(trained, monkeypatch, capsys):
    trained |= {"epochs": None, "seconds_to_close": None, "cpu_seconds_to_close": None, "auc": 0.76}
    out = logistic(monkeypatch, capsys, "--peers", "spu").splitlines()
    assert out[-2:] == [
        "AUC 0.76000, not close after 3 epochs",
        "our whole training over one epoch: 0.50 (CPU s 1.00)",
    ]


def test_spu_that_cannot_be_had_is_a_line_under_ours(trained, monkeypatch, capsys):
    def unavailable(*_):
        raise peers.Unavailable("no such thing [here]")

    for where in ("spu_environment", "train"):
        with monkeypatch.context() as patch:
            patch.setattr(peer_spu_logistic, where, unavailable)
            out = logistic(patch, capsys, "--peers", "spu")
        assert out.splitlines()[-1] == "spu: no such thing [here]"
        assert "2.00 s for all three" in out


def test_our_training_is_alone_unless_asked_otherwise(trained, monkeypatch, capsys):
    assert "spu" not in logistic(monkeypatch, capsys)
    assert "spu" not in json.loads(logistic(monkeypatch, capsys, "--json"))
    with pytest.raises(SystemExit):
        logistic(monkeypatch, capsys, "--peers", "spu", "--network", "lan")
    assert "--peers none" in capsys.readouterr().err
