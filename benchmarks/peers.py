"""Measure the peers, each in an environment of its own: stock CrypTen 0.4.1 and SecretFlow SPU 0.9.5.

    python -m benchmarks.peers [--peers none|crypten|spu|all] [--operations NAME ...] [--repeat 3] [--timeout 900]

The first run makes `.bench/crypten` and `.bench/spu` with pip, which takes minutes; later runs use them again.  Every peer's
parties are two processes on this machine.  One line of JSON is printed per operation; progress goes to standard error.  What
cannot be installed or does not finish becomes a line without figures that says why.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from benchmarks.workload import OPERATIONS, Record, dash

ROOT = Path(__file__).parent.parent
BENCH = ROOT / ".bench"
CRYPTEN = ("crypten==0.4.1", "sklearn==0.0", "torch>=2.13,<2.14")
SPU = ("spu==0.9.5", "numpy==1.26.4")
SPU_PYTHONS = ("python3.11", "python3.10")
INSTALL_TIMEOUT_S = 1800
PARTIES = 2


class Unavailable(Exception):
    """A peer cannot be measured here."""


def say(what: str) -> None:
    """Progress, on standard error."""
    print(what, file=sys.stderr, flush=True)


def environment(name: str, requirements: Sequence[str], python: str = sys.executable) -> Path:
    """The Python of a peer's environment `.bench/<name>`, which is made unless it is there and holds these requirements.

    Raises: Unavailable if it cannot be made.
    """
    folder = BENCH / name
    ready, wanted = folder / "ready", "\n".join((python, *requirements))
    if ready.is_file() and ready.read_text(encoding="utf-8") == wanted:
        return folder / "bin" / "python"
    say(f"{name}: installing {' '.join(requirements)} into {folder}")
    shutil.rmtree(folder, ignore_errors=True)
    _install([python, "-m", "venv", str(folder)])
    _install([str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--no-input", *requirements])
    ready.write_text(wanted, encoding="utf-8")
    return folder / "bin" / "python"


def _install(command: list[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired as late:
        raise Unavailable(f"installing took longer than {INSTALL_TIMEOUT_S} s") from late
    except OSError as missing:
        raise Unavailable(f"cannot run {command[0]}: {missing.strerror}") from missing
    if done.returncode != 0:
        raise Unavailable(f"cannot be installed: {last_line(done.stderr)}")


def last_line(text: str) -> str:
    """What a failed program said last, cut to a line of a table's notes."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:200] if lines else "it said nothing"


def crypten_environment() -> Path:
    """The Python of stock CrypTen, with the PyTorch that we use."""
    return environment("crypten", CRYPTEN)


def spu_environment() -> Path:
    """The Python of SPU, whose wheels are for some versions of Python only."""
    if sys.version_info[:2] in {(3, 10), (3, 11)}:
        return environment("spu", SPU)
    for name in SPU_PYTHONS:
        if found := shutil.which(name):
            return environment("spu", SPU, found)
    raise Unavailable(f"SPU needs {' or '.join(SPU_PYTHONS)}")


@dataclass(frozen=True)
class Run:
    """One start of a peer's two parties: what to tell them, and which operations they are for."""

    order: dict[str, Any]
    operations: tuple[str, ...]


@dataclass(frozen=True)
class Peer:
    """How to get a peer, and how to run it."""

    environment: Callable[[], Path]
    module: str
    runs: tuple[Run, ...]


_DEALERLESS = ("multiply_dealerless",)
_WITH_DEALER = tuple(name for name in OPERATIONS if name not in _DEALERLESS)
PEERS = {
    "crypten": Peer(crypten_environment, "benchmarks.peer_crypten", (Run({}, tuple(OPERATIONS)),)),
    "spu": Peer(
        spu_environment,
        "benchmarks.peer_spu",
        (Run({"protocol": "SEMI2K"}, _WITH_DEALER), Run({"protocol": "CHEETAH"}, _DEALERLESS)),
    ),
}


def free_ports(count: int) -> list[int]:
    """Ports of loopback that nobody listens on just now."""
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [server.getsockname()[1] for server in servers]


def records(peer: str, python: Path, run: Run, repeat: int, timeout_s: float) -> Iterator[Record]:
    """Run a peer's two parties, and pass on what party 0 prints.

    Raises: Unavailable if a party fails, or they take longer than timeout_s.
    """
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        order = run.order | {"operations": run.operations, "repeat": repeat, "folder": folder, "ports": free_ports(2)}
        errors = [Path(folder) / f"stderr-{party}" for party in range(PARTIES)]
        processes: list[subprocess.Popen[str]] = []
        # Threads of linear algebra are the peers' to use or not; each party has one, as ours has.
        quiet = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        for party, path in enumerate(errors):
            stderr = stack.enter_context(path.open("w", encoding="utf-8"))
            stdout = subprocess.PIPE if party == 0 else stderr
            pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": stdout, "stderr": stderr}
            command = [str(python), "-m", PEERS[peer].module]
            process = stack.enter_context(subprocess.Popen(command, cwd=ROOT, env=quiet, text=True, **pipes))
            stack.callback(process.kill)  # before the wait at the end of the line above
            processes.append(process)
            assert process.stdin is not None
            # A party that is gone already says why below.
            with contextlib.suppress(BrokenPipeError), process.stdin as stdin:
                stdin.write(json.dumps(order | {"party": party}) + "\n")
        watch = threading.Thread(target=_end_together, args=(processes, time.monotonic() + timeout_s), daemon=True)
        watch.start()
        assert processes[0].stdout is not None
        yield from _lines(processes[0].stdout)
        watch.join()
        for party, process in enumerate(processes):
            # The watch ends the other party too, by a signal: the one that ended by itself knows why.
            if process.returncode > 0:
                raise Unavailable(f"party {party} failed: {last_line(errors[party].read_text(errors='replace'))}")
        if any(process.returncode for process in processes):
            raise Unavailable(f"a party was ended: out of memory, or longer than {timeout_s:.0f} s")


def _end_together(processes: list[subprocess.Popen[str]], deadline: float) -> None:
    """Wait for all processes; end them all when one fails or time is over."""
    while None in (ended := [process.poll() for process in processes]):
        if any(ended) or time.monotonic() > deadline:
            for process in processes:
                process.kill()
        time.sleep(0.1)


def _lines(stdout: IO[str]) -> Iterator[Record]:
    """The lines of JSON; libraries may print other things."""
    for line in stdout:
        if line.startswith("{"):
            yield json.loads(line)


def measure(names: Sequence[str], operations: Sequence[str], repeat: int, timeout_s: float) -> dict[str, list[Record]]:
    """Every peer's records, one per operation, in the order of OPERATIONS; without figures where there are none.

    timeout_s: for each start of a peer's parties, of which SPU has two.
    """
    if names and (load := os.getloadavg()[0]) > 1:
        say(f"the machine is busy (load {load:.1f}): compare CPU seconds, not seconds")
    return {name: _measure(name, operations, repeat, timeout_s) for name in names}


def _measure(name: str, operations: Sequence[str], repeat: int, timeout_s: float) -> list[Record]:
    peer, found = PEERS[name], dict[str, Record]()
    why = dict.fromkeys(operations, "not offered")
    try:
        python = peer.environment()
    except Unavailable as reason:
        say(f"{name}: {reason}")
        return [dash(operation, str(reason)) for operation in operations]
    for run in peer.runs:
        wanted = tuple(operation for operation in operations if operation in run.operations)
        if not wanted:
            continue
        say(f"{name}: {' '.join((*run.order.values(), *wanted))}")
        try:
            for line in records(name, python, Run(run.order, wanted), repeat, timeout_s):
                found[line["operation"]] = line
                say(f"{name}: {line['operation']} " + (f"{line['seconds']:.4f} s" if line["seconds"] else line["note"]))
        except Unavailable as reason:
            say(f"{name}: {reason}")
            why |= dict.fromkeys(wanted, str(reason))
    return [found.get(operation) or dash(operation, why[operation]) for operation in operations]


def add_arguments(parser: argparse.ArgumentParser, operations: Sequence[str] = tuple(OPERATIONS)) -> None:
    """The options of every program that measures peers."""
    parser.add_argument("--peers", choices=("none", *PEERS, "all"), default="all")
    parser.add_argument("--operations", choices=operations, nargs="+", default=list(operations), metavar="NAME")
    parser.add_argument("--repeat", type=int, default=3, help="measured turns after the first (default: 3)")
    parser.add_argument("--timeout", type=float, default=900, help="seconds for each start of a peer (default: 900)")


def chosen(peers: str) -> tuple[str, ...]:
    """The names that a value of --peers stands for."""
    return {"none": (), "all": tuple(PEERS)}.get(peers, (peers,))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    add_arguments(parser)
    a = parser.parse_args()
    for name, lines in measure(chosen(a.peers), a.operations, a.repeat, a.timeout).items():
        for line in lines:
            print(json.dumps({"peer": name} | line))


if __name__ == "__main__":
    main()
