"""The child process of the crash test: submits jobs as fast as it can and reports each one after it was accepted."""

from __future__ import annotations

from pathlib import Path

from coordinator import home as homes
from coordinator import merkle
from coordinator.log import Entry
from tests.coordinator.world import START, TestSilo, disclosure_of, make_spec


def write_forever(path: str) -> None:
    """Print "<index> <leaf hash>" per accepted entry, until killed."""
    store = homes.load(Path(path)).open_store()
    silos = [TestSilo(name) for name in ("lender", "platform", "dealer")]
    for silo in silos:
        store._db.execute(
            "INSERT INTO silo(name, identity_key, spki, enrolled_at) VALUES(?, ?, '', 0)"
            " ON CONFLICT(name) DO UPDATE SET identity_key = excluded.identity_key",
            (silo.name, silo.identity.public_key().public_bytes_raw()),
        )
    while True:
        spec = make_spec()
        envelopes = [
            silos[0].say("proposed", spec, {"spec": spec}),
            silos[0].say("disclosed", spec, {"disclosure": disclosure_of(spec)}),
        ]
        for done, envelope in zip(store.submit([Entry.parse(e) for e in envelopes], START), envelopes, strict=True):
            print(done.index, merkle.leaf_hash(envelope).hex(), flush=True)
