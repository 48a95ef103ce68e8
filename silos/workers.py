"""Start the worker process of one job, follow it, and make sure it is gone afterwards.

The worker gets one line of JSON and connected sockets; it gets no identity key and no way to the coordinator.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import socket
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from silos.errors import JobFailed

MAX_LINE_BYTES = 1 << 28
COMMAND = (sys.executable, "-P", "-m", "silos.worker")  # -P: the current directory is no place to import from
# A worker's environment is what a Python process with compiled kernels needs, and nothing a service manager put there.
ENVIRONMENT = re.compile(
    r"^(PATH|HOME|LANG|LC_\w+|TZ|TMPDIR|PYTHON\w+|VIRTUAL_ENV|LD_LIBRARY_PATH|(NUMBA|OMP|MKL|OPENBLAS)_\w+)$"
)
# glibc gives a large array back to the system when it is dropped, and asks for it again, page by page, for the next one.
# Protocols make and drop arrays of the same sizes all the time: keeping them saves a quarter of the processor's time.
MEMORY = {
    "MALLOC_MMAP_THRESHOLD_": str(1 << 32),
    "MALLOC_TRIM_THRESHOLD_": str(1 << 33),
    "MALLOC_TOP_PAD_": str(1 << 26),
}

LEAST_SILENT_S = 15.0
"""A worker says that it is there more often than this, whatever it is doing."""

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Outcome:
    """What a worker that succeeded said last.  result: None for the dealer."""

    result: Any
    items: list[str]
    cost: dict[str, Any]


def _outcome(message: Mapping[str, Any]) -> Outcome:
    failed = message.get("failed")
    if isinstance(failed, dict):
        raise JobFailed(
            str(failed.get("step", "work")),
            str(failed.get("reason", "no reason given")),
            str(failed.get("party", "")),
            silent=failed.get("silent") is True,
            lost=failed.get("lost") is True,
        )
    if not {"result", "items", "cost"} <= message.keys():
        raise JobFailed("work", "the worker said something that is not part of its contract")
    return Outcome(message["result"], list(message["items"]), dict(message["cost"]))


async def _follow(process: asyncio.subprocess.Process, progress: Progress, silent_s: float | None) -> Outcome:
    """Read the worker's lines until its last one.  Raises: JobFailed."""
    if process.stdout is None:
        raise ValueError("the worker's standard output is not a pipe")
    while True:
        try:
            async with asyncio.timeout(silent_s):
                line = await process.stdout.readline()
            message = json.loads(line) if line else None
        except TimeoutError as exc:
            raise JobFailed("work", f"the worker has said nothing for {silent_s:g} s", lost=True) from exc
        except ValueError as exc:  # not JSON, or a line beyond MAX_LINE_BYTES
            raise JobFailed("work", "the worker said something that is not part of its contract") from exc
        if message is None:
            code = await process.wait()
            how = f"was killed by signal {-code}" if code < 0 else f"ended with status {code} and no result"
            raise JobFailed("work", f"the worker {how}", lost=code < 0)
        if not isinstance(message, dict):
            raise JobFailed("work", "the worker said something that is not part of its contract")
        if message.keys() == {"alive"}:
            continue
        report = message.get("progress")
        if not isinstance(report, dict):
            return _outcome(message)
        progress(str(report.get("stage", "")), int(report.get("done", 0)), int(report.get("total", 0)))


async def run_worker(
    order: Mapping[str, Any],
    sockets: Mapping[str, socket.socket],
    log: Path,
    progress: Progress,
    command: tuple[str, ...] = COMMAND,
    *,
    silent_s: float | None = None,
) -> Outcome:
    """Run one worker to its end; however this returns, the process is gone and our copies of the sockets are closed.

    order: the line for the worker, without "fds".  sockets: one connected stream per peer, taken over.  log: where its
    standard error goes.  silent_s: how long it may say nothing; None for as long as it likes.
    Raises: JobFailed with the worker's own sentence, or with how it died.
    """
    fds = {peer: sock.fileno() for peer, sock in sockets.items()}
    with contextlib.ExitStack() as stack:
        for sock in sockets.values():
            stack.enter_context(sock)
        errors = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        stack.callback(os.close, errors)
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=errors,
            pass_fds=tuple(fds.values()),
            env=MEMORY | {name: value for name, value in os.environ.items() if ENVIRONMENT.match(name)},
            limit=MAX_LINE_BYTES,
        )
    try:
        if process.stdin is not None:
            with contextlib.suppress(ConnectionError):  # it died at once; reading its output says how
                process.stdin.write(json.dumps({**order, "fds": fds}).encode() + b"\n")
                await process.stdin.drain()  # it stays open: its end tells the worker that this process is gone
        outcome = await _follow(process, progress, silent_s)
        await process.wait()
        return outcome
    finally:
        if process.stdin is not None:
            process.stdin.close()
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
