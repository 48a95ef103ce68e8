"""SecretFlow's RR22 of spu 0.9.5 on two CSV files: how its two parties are started here, and one of them in SPU's environment.

RR22 is the fastest set intersection of that release.  It runs as its users run it: `spu.psi.psi_execute` reads the CSV
file, finds the matches, sorts, and writes the matched rows as CSV in the same order at both parties.  Links are its own
(brpc, plain TCP on loopback).  Everything has its default, but both parties get the result, as with ours.  It can be told
that keys occur once each, which saves it the search for repeated ones.

A party reads its order as a line of JSON and prints one; its log is on standard output too.  What its protocol takes is read
there: from the first party that has its items in memory ("mask size") until the last one has its matches ("get intersection
end").

Source: Raghuraman, Rindal, "Blazing fast PSI from improved OKVS and subfield VOLE", CCS 2022.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from benchmarks.peers import PARTIES, ROOT, Unavailable, free_ports, last_line

Record = dict[str, Any]
NAME = "rr22"
UNIQUE, DEFAULT = "rr22_unique", "rr22_default"
"""Its two lines: told that keys are unique, and not."""
IN_MEMORY = re.compile(r"^\[(\S+ \S+)\] .*\] mask size: ", re.MULTILINE)
MATCHED = re.compile(r"^\[(\S+ \S+)\] .*\] get intersection end$", re.MULTILINE)
TRACE = re.compile(r"Trace has been written to (/tmp/psi_\w[\w-]*\.trace)")
POLL_S = 0.05


def loopback_bytes() -> int:
    """What the machine has sent over loopback so far, headers included."""
    for line in Path("/proc/net/dev").read_text(encoding="utf-8").splitlines():
        name, _, counts = line.partition(":")
        if name.strip() == "lo":
            return int(counts.split()[8])
    return 0


def cpu_seconds() -> float:
    """User and system time of this process, and of the programs it has waited for."""
    spent = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in spent)


def peak_mib() -> int:
    """The most memory that this process had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


# --- on our side


def turn(python: Path, folder: Path, inputs: Sequence[Path], timeout_s: float, *, unique: bool) -> list[Record]:
    """Run both parties once, on `inputs`; what each reports, and their matched rows in `outputs(folder)`.

    unique: tell them that keys are.
    Raises: Unavailable if a party fails, or they take longer than timeout_s.
    """
    ports, written = free_ports(PARTIES), outputs(folder)
    logs = [folder / f"{NAME}-{party}.log" for party in range(PARTIES)]
    with contextlib.ExitStack() as stack:
        processes = []
        for party, log in enumerate(logs):
            out = stack.enter_context(log.open("w", encoding="utf-8"))
            files = {"input": str(inputs[party]), "output": str(written[party])}
            order = {"party": party, "ports": ports, "unique": unique} | files
            process = stack.enter_context(
                subprocess.Popen(
                    [str(python), "-m", "benchmarks.peer_rr22"],
                    cwd=ROOT,
                    env=os.environ | {"TMPDIR": str(folder), "OMP_NUM_THREADS": "1"},
                    stdin=subprocess.PIPE,
                    stdout=out,
                    stderr=subprocess.STDOUT,
                    text=True,
                )
            )
            stack.callback(process.kill)  # before the wait at the end of the line above
            processes.append(process)
            assert process.stdin is not None
            with contextlib.suppress(BrokenPipeError), process.stdin as stdin:
                stdin.write(json.dumps(order) + "\n")
        _wait(processes, logs, timeout_s)
    texts = [log.read_text(encoding="utf-8", errors="replace") for log in logs]
    for trace in {path for text in texts for path in TRACE.findall(text)}:
        Path(trace).unlink(missing_ok=True)  # it has no setting for where these go
    found = [json.loads(line) for text in texts for line in text.splitlines() if line.startswith('{"seconds"')]
    if len(found) != PARTIES:
        raise Unavailable("a party reported nothing")
    return [record | {"protocol_seconds": protocol_seconds(texts)} for record in found]


def outputs(folder: Path) -> list[Path]:
    """Where a turn writes the parties' matched rows."""
    return [folder / f"{NAME}-{party}.csv" for party in range(PARTIES)]


def _wait(processes: Sequence[subprocess.Popen[str]], logs: Sequence[Path], timeout_s: float) -> None:
    """Wait for all; if one fails nobody waits for the other."""
    deadline = time.monotonic() + timeout_s
    while None in (ended := [process.poll() for process in processes]) and not any(ended):
        if time.monotonic() > deadline:
            raise Unavailable(f"took longer than {timeout_s:.0f} s")
        time.sleep(POLL_S)
    for party, code in enumerate(ended):
        if code:
            raise Unavailable(f"party {party} failed: {last_line(logs[party].read_text(errors='replace'))}")


def protocol_seconds(logs: Sequence[str]) -> float | None:
    """Seconds from items in memory to matches in memory, by the logs' own time stamps; None if they do not say."""
    begun = [datetime.fromisoformat(stamp) for log in logs for stamp in IN_MEMORY.findall(log)]
    ended = [datetime.fromisoformat(stamp) for log in logs for stamp in MATCHED.findall(log)]
    return (max(ended) - min(begun)).total_seconds() if begun and ended else None


# --- in SPU's environment


def party(order: dict[str, Any]) -> Record:
    """One party's part."""
    from spu import libspu, psi

    description = libspu.link.Desc()
    for index, port in enumerate(order["ports"]):
        description.add_party(str(index), f"127.0.0.1:{port}")
    protocol = psi.PsiProtocolConfig(protocol=psi.PsiProtocol.PROTOCOL_RR22, receiver_rank=0, broadcast_result=True)
    source = psi.InputParams(path=order["input"], selected_keys=["email"], keys_unique=order["unique"])
    config = psi.PsiExecuteConfig(protocol, source, psi.OutputParams(path=order["output"]))
    link = libspu.link.create_brpc(description, order["party"])
    link.barrier()
    sent, cpu, start = loopback_bytes(), cpu_seconds(), time.perf_counter()
    report = psi.psi_execute(config, link)
    seconds, spent = time.perf_counter() - start, cpu_seconds() - cpu
    link.barrier()
    after = loopback_bytes()
    link.stop_link()
    return {
        "seconds": seconds,
        "cpu_seconds": spent,
        "loopback": [sent, after],
        "peak_mib": peak_mib(),
        "matches": report.intersection_count,
    }


if __name__ == "__main__":
    result = party(json.loads(sys.stdin.readline()))
    print("\n" + json.dumps(result), flush=True)
