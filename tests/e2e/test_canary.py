"""Every byte the coordinator stored, relayed or logged, searched for what it must never hold.

The data is full of marker values.  All links are forced through the coordinator's relay, which here keeps a copy of every
frame, and every worker keeps a copy of every message it sends, before encryption: identifiers' points, masked matrices,
shares, openings, corrections.  None of it may be found.
"""

import asyncio
import contextlib
import json
import logging
import struct
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from coordinator import relay as relays
from coordinator import server
from coordinator.envelope import parse
from mpc.wire import MAGIC
from silos import attempts, catalogue, config, diary, enrol, policy, workers
from silos.client import connect
from silos.commands.watch import watch_job
from silos.config import Home
from silos.disclosure import disclosure
from silos.node import Node
from silos.request import load_request
from silos.results import read_result
from silos.spec import spec_digest
from tests.e2e.test_failures import BOUND_S, RULE, labels

pytestmark = pytest.mark.e2e

SILOS = ("lender", "platform", "dealer")
N = 600
MARKER = 7_183_947.25
"""Column values are this plus a small number; as text or as bytes it cannot turn up by chance."""

# The worker as it is, with a copy of each message's tag and body written to a file before it is encrypted.
SPYING_WORKER = """
import os, sys
from silos import links, worker
plain = links.LinkChannel.send
def send(self, to, tag, kind, body):
    with open(sys.argv[1] + f"/{os.getpid()}", "ab") as out:
        data = bytes(body)
        out.write(tag.encode().ljust(64, b"\\0") + len(data).to_bytes(8, "big") + data)
    plain(self, to, tag, kind, body)
links.LinkChannel.send = send
sys.exit(worker.main())
"""


@pytest.fixture
def relayed(monkeypatch):
    copies = bytearray()
    forward = relays._socket

    def socket_with_copy(mate):
        target = forward(mate)

        class Tee:
            async def send_bytes(self, data):
                copies.extend(data)
                await target.send_bytes(data)

        return Tee()

    monkeypatch.setattr(relays, "_socket", socket_with_copy)
    return copies


@pytest.fixture
def spied(monkeypatch, tmp_path):
    directory = tmp_path / "spy"
    directory.mkdir()

    async def spying(*arguments, **options):
        return await workers.run_worker(
            *arguments, **options, command=(sys.executable, "-c", SPYING_WORKER, str(directory))
        )

    monkeypatch.setattr(attempts, "run_worker", spying)
    return directory


def emails(first, last):
    return [f"Canary.{i:05d}@marker-domain.example" for i in range(first, last)]


def data(home, name, people, label):
    rng = np.random.default_rng(len(people))
    columns = {
        "email": people,
        "amount": MARKER + np.round(rng.normal(size=len(people)), 2),
        "town": [("Canaryville", "Markerstadt")[i % 2] for i in range(len(people))],
    }
    if label:
        columns["label"] = labels(len(people))
    path = home.root / f"{name}.parquet"
    pq.write_table(pa.table(columns), path)
    catalogue.add(home.catalogue, name, path, "email")
    with home.policy.open("a") as text:
        text.write(RULE.format(name=name))


def request(tmp_path):
    features = [{"column": "amount", "as": "number"}, {"column": "town", "as": "category"}]
    path = tmp_path / "request.json"
    parties = [
        {"silo": "lender", "dataset": "left", "key": "email", "label": "label", "features": features},
        {"silo": "platform", "dataset": "right", "key": "email", "features": features},
    ]
    path.write_text(
        json.dumps(
            {"purpose": "test", "dealer": "dealer", "parties": parties, "links": "relay", "train": {"passes": 6}}
        )
    )
    return path


async def run(tmp_path):
    """One job with everything relayed; the nodes and the coordinator in this process, the workers in theirs."""
    place = tmp_path / "coordinator"
    server.init_home(place, ["127.0.0.1"], "spied.test/log")
    homes = {silo: Home(tmp_path / silo) for silo in SILOS}
    async with server.running(place, "127.0.0.1", 0) as running:
        url = f"https://127.0.0.1:{running.port}"
        for silo, home in homes.items():
            config.init_home(home.root, silo)
            await enrol.join(home, url, server.create_token(place, silo))
        for silo, home in homes.items():
            for partner in SILOS:
                if partner != silo:
                    policy.pin(home.policy, partner, homes[partner].load_identity().fingerprint)
        data(homes["lender"], "left", emails(0, N), label=True)
        data(homes["platform"], "right", emails(100, N + 50), label=False)
        with homes["dealer"].policy.open("a") as text:
            text.write('\n[dealer]\nfor = ["lender", "platform"]\n')
        stop = asyncio.Event()
        nodes = [asyncio.create_task(Node(home).run(stop)) for home in homes.values()]
        home, spec = homes["lender"], load_request(request(tmp_path))
        async with connect(home) as client:
            record = diary.Diary(home.job(spec.job), "lender", spec.job, spec_digest(spec), home.load_identity())
            await diary.submit(client, record, spec.document(), disclosure(spec))
            view = await watch_job(client, spec.job, Console(quiet=True))
            entries = await client.log_entries(0, 1000)
        stop.set()
        await asyncio.gather(*nodes)
    assert view["state"] == "done", view["reason"]
    return homes, spec, entries


def messages(directory):
    """(tag, body) of every message that any worker sent."""
    for path in directory.iterdir():
        raw = path.read_bytes()
        at = 0
        while at < len(raw):
            size = int.from_bytes(raw[at + 64 : at + 72], "big")
            yield raw[at : at + 64].rstrip(b"\0").decode(), raw[at + 72 : at + 72 + size]
            at += 72 + size


def windows(body):
    """A few 16-byte pieces of a message; a piece of random bytes is found by chance with probability 2^-100."""
    return {bytes(body[at : at + 16]) for at in (0, len(body) // 3, len(body) // 2, len(body) - 16) if at >= 0}


def test_the_coordinator_never_holds_data(tmp_path, relayed, spied, caplog):
    caplog.set_level(logging.DEBUG)
    homes, spec, entries = asyncio.run(run(tmp_path))
    stored = b"".join(p.read_bytes() for p in sorted((tmp_path / "coordinator").rglob("*")) if p.is_file())
    logged = caplog.text.encode()
    statements = b"".join(parse(entry.envelope).payload for entry in entries)
    assert b'"disclosure_digest"' in statements
    everything = bytes(relayed) + stored + statements + logged

    sent = list(messages(spied))
    tags = {tag for tag, _ in sent}
    assert {"matrix/mask", "matrix/vector", "fourier/angle", "dealer/correction", "dealer/key"} <= tags
    assert any(tag.startswith("matching/") for tag in tags)
    total = sum(len(body) for _, body in sent)
    assert len(relayed) > total, "all of it went through the relay"

    markers = {*(e.encode() for e in emails(0, N + 50)), *(e.lower().encode() for e in emails(0, N + 50))}
    markers |= {b"marker-domain", b"canary.", b"Canaryville", b"Markerstadt", MAGIC}
    for name in ("left", "right"):
        side = homes["lender" if name == "left" else "platform"]
        column = pq.read_table(side.root / f"{name}.parquet", columns=["amount"]).column(0)
        for value in column.to_pylist():
            markers |= {struct.pack("<d", value), struct.pack(">d", value), f"{value:.2f}".encode()}
    shares = {w for tag, body in sent if len(body) >= 32 for w in windows(body)}
    assert len(shares) > 300
    for silo in ("lender", "platform"):
        result = read_result(homes[silo].result(spec.job))
        markers |= {item["coefficient"].encode() for item in result["result"]["model"]["inputs"]}
    found = [m for m in markers | shares if m in everything]
    assert not found

    # The same search finds the markers where they are: in the silos' own files and in the workers' messages.
    own = b"".join(p.read_bytes() for p in (tmp_path / "lender").rglob("*.parquet"))
    assert b"marker-domain" in own
    assert all(any(w in body for _, body in sent) for w in list(shares)[:20])


def test_the_coordinator_command_starts_without_the_engine(tmp_path):
    """`accord coordinator serve` where torch, numpy and mpc cannot be imported: it serves, and loads none of them."""
    server.init_home(tmp_path / "c", ["127.0.0.1"], "spied.test/log")
    program = (
        "import sys\n"
        "class Blocker:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] in {'torch', 'numpy', 'mpc', 'crypten', 'vertical', 'duckdb', 'pyarrow'}:\n"
        "            raise ImportError(name + ' is not for the coordinator')\n"
        "sys.meta_path.insert(0, Blocker())\n"
        "from silos.cli import main\n"
        "sys.exit(main(['coordinator', 'serve', '--home', sys.argv[1], '--port', '0']))\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path / "c")], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        line = process.stdout.readline()
        assert "listening on" in line, process.stderr.read()

        async def ask():
            home = Home(tmp_path / "silo")
            config.init_home(home.root, "lender")
            url = f"https://127.0.0.1:{line.strip().rpartition(':')[2]}"
            await enrol.join(home, url, server.create_token(tmp_path / "c", "lender"))
            async with connect(home) as client:
                return await client.roster()

        assert [silo["silo"] for silo in asyncio.run(ask())] == ["lender"]
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(BOUND_S)
        process.kill()
        process.communicate()
    assert process.returncode == 0
