"""Two owners and a dealer as three processes over real TLS, for every benchmark that measures a protocol between them."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import socket
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from benchmarks.shaping import NETWORKS, Shaper

if TYPE_CHECKING:
    from silos.links import LinkChannel

OWNERS = ("a", "b")
NAMES = (*OWNERS, "dealer")
TIMEOUT_S = 300

Order = dict[str, Any]
Ends = dict[str, dict[str, socket.socket]]


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    """Two ends of a TCP connection on loopback."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        near = socket.create_connection(server.getsockname())
        far, _ = server.accept()
    return near, far


def connect(order: Order) -> LinkChannel:
    """In a party's process: TLS over the inherited sockets that its order names."""
    from silos.links import LinkChannel, LinkCredentials, open_links

    me, names = order["me"], tuple(order["certificates"])
    certificates = {name: base64.b64decode(der) for name, der in order["certificates"].items()}
    credentials = LinkCredentials(order["key"].encode(), certificates[me])
    sockets = {peer: socket.socket(fileno=fd) for peer, fd in order["fds"].items()}
    links = open_links(me, names, sockets, credentials, certificates, TIMEOUT_S)
    return LinkChannel(me, names, bytes(16), links, TIMEOUT_S, uncounted={"dealer"})


def run_processes(module: str, order: Order, network: str | None, names: tuple[str, ...] = NAMES) -> dict[str, Order]:
    """One run of a process for each name, over `network` or straight over loopback; returns what each reports.

    module: is run with `--party`, reads its order as a line of JSON and prints its report as JSON.  Over a network there is
    also a report under "network": what the proxy cost.
    """
    ends: Ends = {name: {} for name in names}
    pairs = []
    for i, p in enumerate(names):
        for q in names[i + 1 :]:
            if network is None:
                ends[p][q], ends[q][p] = tcp_pair()
            else:
                (ends[p][q], near), (ends[q][p], far) = tcp_pair(), tcp_pair()
                pairs.append((near, far))
    with contextlib.nullcontext() if network is None else Shaper(NETWORKS[network], pairs) as shaper:
        out = _ask(module, order, ends)
    if shaper is not None:
        out["network"] = {"cpu_seconds": shaper.cpu_seconds, "peak_bytes": shaper.peak_bytes}
    return out


def _ask(module: str, order: Order, ends: Ends) -> dict[str, Order]:
    """Start one process per party with its ends of the links, and wait for all reports."""
    from silos.links import make_link_credentials
    from silos.workers import MEMORY

    now = datetime.now(UTC)
    credentials = {name: make_link_credentials(name, "0" * 32, now + timedelta(hours=1), now) for name in ends}
    certificates = {name: base64.b64encode(c.certificate_der).decode() for name, c in credentials.items()}
    processes = {}
    for name in ends:
        fds = {peer: sock.fileno() for peer, sock in ends[name].items()}
        own = {"me": name, "fds": fds, "key": credentials[name].key_pem.decode(), "certificates": certificates}
        command = [sys.executable, "-m", module, "--party"]
        processes[name] = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            pass_fds=tuple(fds.values()),
            env=os.environ | MEMORY,
        )
        stdin = processes[name].stdin
        assert stdin is not None
        stdin.write(json.dumps(order | own) + "\n")
        stdin.close()
    for sockets in ends.values():
        for sock in sockets.values():
            sock.close()
    out = {}
    for name, process in processes.items():
        assert process.stdout is not None
        text = process.stdout.read()
        if process.wait() != 0:
            raise SystemExit(f"the process of {name} failed")
        out[name] = json.loads(text)
    return out
