"""The store: one transaction per change, chains, idempotence, corruption, and a process that is killed while it writes."""

from __future__ import annotations

import base64
import datetime as dt
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from coordinator import home as homes
from coordinator import merkle
from coordinator.enrol import revocation
from coordinator.envelope import fingerprint, seal
from coordinator.errors import Conflict, Corrupt, Forbidden, Malformed, Unavailable, Unknown
from coordinator.home import Home, HomeError
from coordinator.jobs import Said, State, apply
from coordinator.log import Entry
from coordinator.note import open_checkpoint, verifier_key
from coordinator.server import create_token, init_home, list_silos, revoke
from coordinator.store import Store
from tests.coordinator.world import ORIGIN, START, TestSilo, consent_body, disclosure_of, make_spec


@pytest.fixture
def home(tmp_path: Path, database: str) -> Home:
    init_home(tmp_path / "c", ["localhost"], ORIGIN, database)
    return homes.load(tmp_path / "c")


def put_on_roster(store: Store, *silos: TestSilo) -> None:
    for silo in silos:
        store._db.execute(
            "INSERT INTO silo(name, identity_key, spki, enrolled_at) VALUES(?, ?, '', 0)",
            (silo.name, silo.identity.public_key().public_bytes_raw()),
        )


SILOS = {name: TestSilo(name) for name in ("lender", "platform", "dealer", "stranger")}


@pytest.fixture
def store(home: Home) -> Iterator[Store]:
    for silo in SILOS.values():
        silo.chains.clear()
    with closing(home.open_store()) as opened:
        put_on_roster(opened, *SILOS.values())
        yield opened


def first_entries(spec: dict) -> list[Entry]:
    lender = SILOS["lender"]
    return [
        Entry.parse(lender.say("proposed", spec, {"spec": spec})),
        Entry.parse(lender.say("disclosed", spec, {"disclosure": disclosure_of(spec)})),
    ]


def consent(name: str, spec: dict, **changes: object) -> Entry:
    return Entry.parse(SILOS[name].say("consented", spec, consent_body(SILOS[name], spec), **changes))


def unchanged(store: Store) -> tuple:
    tables = ("entry", "node", "head", "job", "member", "token", "silo", "named_key", "cosignature", "ahead")
    return tuple(sorted(store._db.execute(f"SELECT * FROM {table}").fetchall()) for table in tables)  # noqa: S608


def test_submit_and_append(store: Store) -> None:
    spec = make_spec()
    assert [done.index for done in store.submit(first_entries(spec), START)] == [0, 1]
    done = store.append(consent("platform", spec), START)
    assert (done.index, done.job.state, done.fresh) == (2, State.DISCLOSED, True)
    assert [job.id for job in store.jobs_of("dealer")] == [spec["job"]]
    assert store.jobs_of("stranger") == []


def test_the_snapshot_is_the_fold_of_the_log(store: Store) -> None:
    spec = make_spec()
    store.submit(first_entries(spec), START)
    for name in ("dealer", "lender", "platform"):
        store.append(consent(name, spec), START)
    job = None
    for _, envelope in store.job_entries(spec["job"]):
        said = Entry.parse(envelope).sealed.statement
        key = SILOS[said.silo].identity.public_key().public_bytes_raw()
        job = apply(job, Said(said, fingerprint(key), START))
    assert store.job(spec["job"]) == job
    assert job is not None
    assert job.state == State.READY


def test_the_very_same_entry_again_gets_its_old_index(store: Store) -> None:
    spec = make_spec()
    entries = first_entries(spec)
    store.submit(entries, START)
    entry = consent("platform", spec)
    first = store.append(entry, START)
    before = unchanged(store)
    again = store.append(entry, START + dt.timedelta(days=3))  # even when it would come too late
    assert (again.index, again.fresh) == (first.index, False)
    assert [(done.index, done.fresh) for done in store.submit(entries, START)] == [(0, False), (1, False)]
    assert unchanged(store) == before


def test_refused_entries_change_nothing(store: Store) -> None:
    spec, other = make_spec(), make_spec()
    store.submit(first_entries(spec), START)
    store.append(consent("platform", spec), START)
    before = unchanged(store)

    platform = SILOS["platform"]
    seq, prev = platform.chains[spec["job"]]
    refuse = {"reason": "no", "rule": ""}
    forged = TestSilo("platform")
    probes = [
        (platform.say("refused", spec, refuse, seq=0, prev=""), Conflict, "something else"),
        (platform.say("refused", spec, refuse, seq=seq + 1, prev=prev), Conflict, "has seq 1"),
        (platform.say("refused", spec, refuse, seq=seq, prev="00" * 32), Conflict, "names its previous"),
        (forged.say("refused", spec, refuse, seq=seq, prev=prev), Forbidden, "not that of platform"),
        (TestSilo("nobody").say("refused", spec, refuse), Forbidden, "not enrolled"),
        (SILOS["stranger"].say("refused", spec, refuse), Forbidden, "participant"),
        (SILOS["lender"].say("proposed", other, {"spec": other}), Unknown, "no such job"),
        (TestSilo("coordinator").say("expired", spec, {"reason": "x"}), Forbidden, "not that of coordinator"),
    ]
    for envelope, error, why in probes:
        with pytest.raises(error, match=why):
            store.append(Entry.parse(envelope), START)
    assert unchanged(store) == before


def test_a_job_starts_with_both_entries_or_not_at_all(store: Store) -> None:
    before = unchanged(store)
    spec = make_spec()
    proposed, disclosed = first_entries(spec)
    bad = Entry.parse(
        SILOS["lender"].say("disclosed", spec, {"disclosure": {}}, seq=1, prev=proposed.sealed.payload_digest)
    )
    for entries, error in (
        ([disclosed, proposed], Malformed),
        ([proposed, proposed], Malformed),
        ([proposed], Malformed),
        ([proposed, bad], Malformed),
    ):
        with pytest.raises(error):
            store.submit(entries, START)
    assert unchanged(store) == before


def test_a_job_with_a_silo_that_is_not_enrolled(home: Home, store: Store) -> None:
    with pytest.raises(Malformed, match="'ghost', which is not enrolled"):
        store.submit(first_entries(make_spec(dealer="ghost")), START)
    revoke_silo(store, home, "dealer")
    with pytest.raises(Malformed, match="'dealer', which is not enrolled"):
        store.submit(first_entries(make_spec()), START)


def revoke_silo(store: Store, home: Home, name: str) -> int:
    silo = store.silo(name)
    assert silo is not None
    statement = revocation(name, silo.identity_key, "left", store.roster_chain_end("coordinator"), START)
    return store.revoke(Entry.parse(seal(statement, home.log_key)), name, START)


def test_a_job_id_is_used_once(store: Store) -> None:
    spec = make_spec()
    store.submit(first_entries(spec), START)
    thief = SILOS["platform"]
    other = {**spec, "purpose": "other"}
    entries = [
        thief.say("proposed", other, {"spec": other}),
        thief.say("disclosed", other, {"disclosure": disclosure_of(other)}),
    ]
    with pytest.raises(Conflict):
        store.submit([Entry.parse(e) for e in entries], START)


def test_log_proofs_verify_against_the_checkpoint(home: Home, store: Store) -> None:
    spec = make_spec()
    store.submit(first_entries(spec), START)
    key = verifier_key(ORIGIN, home.log_key)
    early = open_checkpoint(store.log.checkpoint(), key)
    for name in ("dealer", "lender", "platform"):
        store.append(consent(name, spec), START)
    late = open_checkpoint(store.log.checkpoint(), key)
    assert (early.size, late.size) == (2, 5)
    for index, entry in enumerate(store.log.read(0, 99, anybody)):
        assert entry.envelope is not None
        assert entry.leaf == merkle.leaf_hash(entry.envelope)
        merkle.verify_inclusion(entry.leaf, index, late.size, store.log.inclusion(index, late.size), late.root)
    merkle.verify_consistency(2, 5, store.log.consistency(2, 5), early.root, late.root)
    for probe in (
        lambda: store.log.inclusion(5, 5),
        lambda: store.log.inclusion(0, 6),
        lambda: store.log.consistency(0, 5),
        lambda: store.log.consistency(2, 6),
        lambda: store.log.read(5, 9, anybody),
        lambda: store.log.read(3, 3, anybody),
    ):
        with pytest.raises(Unknown):
            probe()


def anybody(_: str) -> bool:
    return True


def test_what_a_silo_reads_of_the_log(store: Store) -> None:
    mine, other = make_spec(), make_spec(["platform", "dealer"], "lender")
    store.submit(first_entries(mine), START)
    store.append(consent("platform", mine), START)
    store.submit(first_entries(other), START)
    for silo in ("lender", "platform", "dealer"):
        assert None not in [entry.envelope for entry in store.read_log(silo, 0, 99)]
    assert [(e.leaf, None) for e in store.log.read(0, 5, anybody)] == [
        (e.leaf, e.envelope) for e in store.read_log("stranger", 0, 99)
    ]


def test_a_long_read_is_cut(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = make_spec()
    store.submit(first_entries(spec), START)
    store.append(consent("platform", spec), START)
    monkeypatch.setattr("coordinator.log.MAX_ENTRIES_PER_READ", 2)
    assert len(store.log.read(0, 3, anybody)) == 2
    monkeypatch.setattr("coordinator.log.MAX_BYTES_PER_READ", 10)
    assert len(store.log.read(0, 3, anybody)) == 1
    assert len(store.log.read(0, 3, lambda _: False)) == 2, "a page does not tell how large the withheld entries are"


def test_a_head_that_moved_under_a_writer_is_not_overwritten(store: Store) -> None:
    """Compare-and-swap: here another writer moves the head between our reading and our writing of it."""
    store.submit(first_entries(make_spec()), START)
    before = unchanged(store)
    sign = store.log._sign

    def move_then_sign(size: int, root: bytes) -> str:
        store._db.execute("UPDATE head SET size = size + 1")
        return sign(size, root)

    store.log._sign = move_then_sign
    with pytest.raises(Corrupt, match="another writer"):
        store.submit(first_entries(make_spec()), START)
    assert unchanged(store) == before


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        ("DELETE FROM entry WHERE idx = 1", "counts 2 entries"),
        (
            "UPDATE node SET hash = (SELECT hash FROM node WHERE level = 0 AND idx = 0) WHERE level = 1",
            "match its tree",
        ),
        ("DELETE FROM node WHERE level = 1", "lacks node"),
        ("DELETE FROM head", "no head"),
        ("UPDATE head SET note = replace(note, '\n2\n', '\n3\n')", "not signed"),
        ("UPDATE schema_version SET version = 7", "schema version 7"),
        ("DELETE FROM schema_version", "schema version none"),
    ],
)
def test_a_damaged_database_is_not_served(home: Home, store: Store, damage: str, why: str) -> None:
    store.submit(first_entries(make_spec()), START)
    store._db.execute(damage)
    with pytest.raises(Corrupt, match=why):
        home.open_store()


def test_a_database_of_another_log_key_is_not_served(home: Home, tmp_path: Path) -> None:
    init_home(tmp_path / "other", ["localhost"], ORIGIN)
    other = homes.load(tmp_path / "other")
    if home.database:
        other = replace(other, database=home.database)
    else:
        (home.path / homes.DATABASE).replace(other.path / homes.DATABASE)
    with pytest.raises(Corrupt, match=r"not signed by log\.key"):
        other.open_store()


def test_an_absent_database_is_not_made_by_accident(home: Home) -> None:
    if home.database:
        home = replace(home, database=home.database.replace("test_", "absent_"))
    else:
        (home.path / homes.DATABASE).unlink()
    with pytest.raises(Unavailable, match="the database cannot be used now: "):
        home.open_store()


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_a_full_disk_rolls_back_and_writing_goes_on_later(store: Store) -> None:
    spec = make_spec()
    store.submit(first_entries(spec), START)
    before = unchanged(store)
    (pages,) = store._db.execute("PRAGMA page_count").fetchone()
    store._db.execute(f"PRAGMA max_page_count = {pages}")
    big = make_spec(purpose="x" * 20_000)
    entries = first_entries(big)
    with pytest.raises(Unavailable, match="the database cannot be used now: database or disk is full"):
        store.submit(entries, START)
    assert unchanged(store) == before
    store._db.execute("PRAGMA max_page_count = 100000")
    assert store.submit(entries, START)[-1].index == 3


def test_init_home_makes_private_files_and_never_overwrites(tmp_path: Path) -> None:
    home = tmp_path / "deep" / "c"
    init_home(home, ["coordinator.example", "10.0.0.1"], ORIGIN)
    modes = {path.name: path.stat().st_mode & 0o777 for path in home.iterdir()}
    assert modes == {
        "ca.key": 0o600, "ca.pem": 0o644, "server.key": 0o600, "server.pem": 0o644, "log.key": 0o600,
        "coordinator.json": 0o600, "coordinator.db": 0o600,
    }  # fmt: skip
    assert home.stat().st_mode & 0o777 == 0o700
    with pytest.raises(HomeError, match="not empty"):
        init_home(home, ["localhost"], ORIGIN)
    with pytest.raises(HomeError, match="spaces"):
        init_home(tmp_path / "bad", ["localhost"], "two words")
    with pytest.raises(HomeError, match="host"):
        init_home(tmp_path / "bad", [], ORIGIN)
    assert [p.name for p in tmp_path.iterdir()] == ["deep"], "nothing half-made is left behind"
    with pytest.raises(HomeError, match=r"coordinator\.json is missing"):
        list_silos(tmp_path)


def test_the_operators_commands(home: Home) -> None:
    with pytest.raises(Malformed, match="name"):
        create_token(home.path, "Bad Name")
    with pytest.raises(Malformed, match="name"):
        create_token(home.path, "coordinator")
    text = create_token(home.path, "lender", 60, False)
    assert text.startswith(f"SJ1.{home.authority.pin}.")
    secret = text.rsplit(".", 1)[1].encode()
    assert secret not in b"".join(p.read_bytes() for p in home.path.iterdir())
    assert list_silos(home.path) == []
    with pytest.raises(Unknown):
        revoke(home.path, "lender")


def test_the_server_certificate_is_renewed_at_half_its_life(home: Home) -> None:
    from coordinator import ca

    before = (home.path / "server.pem").read_bytes()
    now = dt.datetime.now(dt.UTC)
    assert not home.refresh_server_certificate(now + ca.SERVER_LIFE / 2 - dt.timedelta(hours=1))
    assert (home.path / "server.pem").read_bytes() == before
    assert home.refresh_server_certificate(now + ca.SERVER_LIFE / 2)
    assert (home.path / "server.pem").read_bytes() != before


WRITER = """
import sys
from tests.coordinator.crash_writer import write_forever
write_forever(sys.argv[1])
"""


def test_no_acknowledged_entry_is_lost_when_the_writer_is_killed(home: Home) -> None:
    """SIGKILL at arbitrary instants; what had been answered is in the log, at its index, under a consistent head."""
    key = verifier_key(ORIGIN, home.log_key)
    acknowledged: dict[int, str] = {}
    last = open_checkpoint(_with(home, lambda store: store.log.checkpoint()), key)
    for delay_s in (0.0, 0.011, 0.029, 0.05, 0.083):
        writer = subprocess.Popen([sys.executable, "-c", WRITER, str(home.path)], stdout=subprocess.PIPE, text=True)
        assert writer.stdout is not None
        lines = [writer.stdout.readline()]  # it writes
        time.sleep(delay_s)  # any instant will do; the writer commits every millisecond or so
        os.kill(writer.pid, signal.SIGKILL)
        lines += writer.stdout.read().split("\n")
        writer.wait()
        writer.stdout.close()
        for line in lines:
            if len(parts := line.split()) == 2 and len(parts[1]) == 64:
                acknowledged[int(parts[0])] = parts[1]
        with closing(home.open_store()) as store:  # checks head, entries and tree
            now = open_checkpoint(store.log.checkpoint(), key)
            assert now.size > max(acknowledged)
            if last.size:
                merkle.verify_consistency(
                    last.size, now.size, store.log.consistency(last.size, now.size), last.root, now.root
                )
            last = now
    assert len(acknowledged) >= 5
    with closing(home.open_store()) as store:
        if not home.database:
            assert store._db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        for index, leaf in acknowledged.items():
            assert store.log.stored(0, index).hex() == leaf
        for (job_id,) in store._db.execute("SELECT id FROM job").fetchall():
            job = store.job(job_id)
            assert job is not None
            assert len(store.job_entries(job_id)) == 2, "a job is never half submitted"


def _with(home: Home, read: Callable[[Store], str]) -> str:
    with closing(home.open_store()) as store:
        return read(store)


def test_base64_of_the_largest_entry_fits_its_route() -> None:
    from coordinator.envelope import MAX_ENVELOPE_BYTES
    from coordinator.routes import KIB, ROUTES

    size = len(base64.b64encode(bytes(MAX_ENVELOPE_BYTES)))
    limits = {route.path: route.limit_kib * KIB for route in ROUTES if route.method == "POST"}
    assert limits["/v1/jobs/{job}/entries"] > size + 100
    assert limits["/v1/jobs"] > 2 * size + 100
    assert all(limits.values())
