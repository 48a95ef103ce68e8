"""Cosignatures, and what the coordinator keeps of its witnesses: quorums, changed keys, and a database that is too old."""

from __future__ import annotations

import base64
import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from coordinator import home as homes
from coordinator.cosign import CosignError, WitnessKey, cosign, cosignatures, verify_cosignature, with_lines
from coordinator.enrol import revocation, rotation_message
from coordinator.envelope import Statement, seal
from coordinator.errors import Conflict, Forbidden, Malformed, RolledBack, Unknown
from coordinator.home import Home
from coordinator.log import Entry
from coordinator.note import Checkpoint, NoteError, open_checkpoint, sign_checkpoint, verifier_key
from coordinator.server import init_home
from coordinator.statements import format_time
from coordinator.store import Store
from tests.coordinator.crashes import DEALER, LENDER, PLATFORM, Round, put_on_roster
from tests.coordinator.world import ORIGIN, START, Job, TestSilo, call, disclosure_of, make_spec

# The example of the specification (C2SP tlog-cosignature v1.0.0).
EXAMPLE_LINES = (
    "Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=",
    "jWbPPwAAAABkGFDLEZMHwSRaJNiIDoe9DYn/zXcrtPHeolMI5OWXEhZCB9dlrDJsX3b2oyin1nPZqhf5nNo0xUe+mbIUBkBIfZ+qnA==",
)
EXAMPLE = f"""example.com/behind-the-sofa
20852163
CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=

\u2014 example.com/behind-the-sofa {EXAMPLE_LINES[0]}
\u2014 witness.example.com/w1 {EXAMPLE_LINES[1]}
"""
LOG = Ed25519PrivateKey.from_private_bytes(bytes(32))
WITNESS = Ed25519PrivateKey.from_private_bytes(bytes([1]) * 32)
NOTE = sign_checkpoint(Checkpoint(ORIGIN, 3, bytes(32)), LOG)
KEY = WitnessKey("w1", WITNESS.public_key().public_bytes_raw())


def test_the_example_of_the_specification_is_read() -> None:
    (found,) = cosignatures(EXAMPLE)
    assert (found.name, found.key_id.hex(), found.time) == ("witness.example.com/w1", "8d66cf3f", 1679315147)
    assert found.line == EXAMPLE.split("\n")[5]


def test_the_signed_message_is_that_of_the_specification() -> None:
    line = cosign(NOTE, "w1", WITNESS, 1679315147)
    raw = base64.b64decode(line.split(" ")[2])
    text = f"cosignature/v1\ntime 1679315147\n{ORIGIN}\n3\n{base64.b64encode(bytes(32)).decode()}\n"
    WITNESS.public_key().verify(raw[12:], text.encode())
    assert raw[:4] == KEY.key_id != verifier_key("w1", WITNESS).key_id
    assert WitnessKey.parse(KEY.text()) == KEY


@given(st.integers(0, 2**63 - 1))
def test_what_a_witness_signs_verifies(time: int) -> None:
    note = with_lines(NOTE, [cosign(NOTE, "w1", WITNESS, time)])
    assert verify_cosignature(note, KEY).time == time
    assert open_checkpoint(note, verifier_key(ORIGIN, LOG)).size == 3
    assert with_lines(note, [cosign(NOTE, "w1", WITNESS, time)]) == note


def test_what_is_not_the_witness_s_cosignature_is_refused() -> None:
    other = Ed25519PrivateKey.from_private_bytes(bytes([2]) * 32)
    with pytest.raises(CosignError, match=r"^the checkpoint is not cosigned by w1$"):
        verify_cosignature(with_lines(NOTE, [cosign(NOTE, "w2", WITNESS, 1)]), KEY)
    with pytest.raises(CosignError, match=r"^the checkpoint is not cosigned by w1$"):
        verify_cosignature(with_lines(NOTE, [cosign(NOTE, "w1", other, 1)]), KEY)
    raw = bytearray(base64.b64decode(cosign(NOTE, "w1", WITNESS, 1).split(" ")[2]))
    for position in (4, 11, 12, 75):  # the time, the signature
        edited = bytearray(raw)
        edited[position] ^= 1
        line = f"\u2014 w1 {base64.b64encode(edited).decode()}"
        with pytest.raises(CosignError, match=r"^the cosignature of w1 does not verify$"):
            verify_cosignature(with_lines(NOTE, [line]), KEY)
    raw[4] |= 0x80
    with pytest.raises(CosignError, match=r"^the cosignature of w1 has a time that cannot be$"):
        verify_cosignature(with_lines(NOTE, [f"\u2014 w1 {base64.b64encode(raw).decode()}"]), KEY)
    grown = sign_checkpoint(Checkpoint(ORIGIN, 4, bytes(32)), LOG)
    with pytest.raises(CosignError, match=r"^the cosignature of w1 does not verify$"):
        verify_cosignature(with_lines(grown, [cosign(NOTE, "w1", WITNESS, 1)]), KEY)
    for time in (-1, 2**63):
        with pytest.raises(CosignError, match=r"^the time of a cosignature is a count of seconds below 2"):
            cosign(NOTE, "w1", WITNESS, time)
    for text in (
        "",
        "w1",
        KEY.text()[:-4] + "AAAA",
        verifier_key("w1", WITNESS).text(),
        "w1+00000000" + KEY.text()[11:],
    ):
        with pytest.raises(NoteError):
            WitnessKey.parse(text)


# --- at the coordinator


@pytest.fixture
def home(tmp_path: Path, database: str) -> Home:
    init_home(tmp_path / "c", ["localhost"], ORIGIN, database)
    return homes.load(tmp_path / "c")


@pytest.fixture
def store(home: Home) -> Iterator[Store]:
    with closing(home.open_store()) as opened:
        put_on_roster(opened)
        grow(opened)
        yield opened


def grow(store: Store) -> None:
    """Two entries more."""
    spec = make_spec()
    said = [
        LENDER.say("proposed", spec, {"spec": spec}),
        LENDER.say("disclosed", spec, {"disclosure": disclosure_of(spec)}),
    ]
    store.submit([Entry.parse(envelope) for envelope in said], START)


def line_of(silo: TestSilo, note: str, time: int = 1) -> str:
    return with_lines(note, [cosign(note, silo.name, silo.identity, time)])


def names(note: str) -> list[str]:
    return [made.name for made in cosignatures(note)]


def test_a_checkpoint_gathers_lines_and_a_quorum_is_asked_for(store: Store) -> None:
    for least in (None, 1, 2):
        with pytest.raises(Unknown, match=rf"^no checkpoint is cosigned by {least or 2} witnesses yet$"):
            store.cosigned_note(least)
    first = store.checkpoint_note()
    assert names(first) == []
    assert store.add_cosignature("lender", line_of(LENDER, first)) == 2
    assert names(store.checkpoint_note()) == ["lender"]
    assert store.add_cosignature("platform", line_of(PLATFORM, first)) == 2
    grow(store)
    second = store.checkpoint_note()
    assert names(second) == []
    assert store.add_cosignature("dealer", line_of(DEALER, second)) == 4
    assert names(store.cosigned_note(1)) == ["dealer"]
    assert names(store.cosigned_note()) == ["lender", "platform"], "two of three are more than half"
    assert store.cosigned_note(2).startswith(f"{ORIGIN}\n2\n")
    assert verify_cosignature(
        store.cosigned_note(2), WitnessKey("lender", LENDER.identity.public_key().public_bytes_raw())
    )
    store.add_cosignature("lender", line_of(LENDER, second))
    assert store.cosigned_note(2).startswith(f"{ORIGIN}\n4\n")


def test_a_witness_repeats_itself_and_does_not_go_back(store: Store) -> None:
    first = store.checkpoint_note()
    grow(store)
    second = store.checkpoint_note()
    store.add_cosignature("lender", line_of(LENDER, second, 5))
    store.add_cosignature("lender", line_of(LENDER, second, 6))
    assert [made.time for made in cosignatures(store.checkpoint_note())] == [6]
    with pytest.raises(Conflict, match=r"^lender has cosigned 4 entries already, this checkpoint has 2$"):
        store.add_cosignature("lender", line_of(LENDER, first))


def test_only_the_newest_lines_of_a_witness_are_kept(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coordinator.witnesses.KEPT_PER_WITNESS", 3)
    for _ in range(6):
        store.add_cosignature("lender", line_of(LENDER, store.log.checkpoint()))
        grow(store)
    sizes = store._db.execute("SELECT size FROM cosignature ORDER BY size").fetchall()
    assert [row[0] for row in sizes] == [6, 8, 10, 12]


def test_what_is_no_cosigned_checkpoint_of_this_log_is_refused(store: Store) -> None:
    note = store.checkpoint_note()
    stranger = TestSilo("lender")
    for silo, text, error in (
        ("lender", note, Malformed),
        ("lender", line_of(stranger, note), Malformed),
        ("lender", line_of(PLATFORM, note), Malformed),
        ("lender", line_of(LENDER, NOTE), Malformed),
        ("lender", "", Malformed),
        ("nobody", line_of(LENDER, note), Forbidden),
    ):
        with pytest.raises(error):
            store.add_cosignature(silo, text)
    grow(store)  # it may still be written to


def test_a_line_counts_while_its_key_does(home: Home, store: Store) -> None:
    this = Round(1, home)
    for write in (this.add_token, this.enrol):
        write(store)
    note = store.checkpoint_note()
    store.add_cosignature(this.silo.name, line_of(this.silo, note))
    store.add_cosignature("lender", line_of(LENDER, note))
    assert names(store.cosigned_note(2)) == ["lender", "silo-1"]
    this.rotate(store)
    with pytest.raises(Unknown):
        store.cosigned_note(2)
    with pytest.raises(Malformed, match=r"^the checkpoint is not cosigned by silo-1$"):
        store.add_cosignature(this.silo.name, line_of(this.silo, store.checkpoint_note()))
    this.silo.identity = this.new_key
    note = store.checkpoint_note()
    store.add_cosignature(this.silo.name, line_of(this.silo, note))
    assert names(store.checkpoint_note()) == ["silo-1"]
    this.revoke(store)
    with pytest.raises(Forbidden, match=r"^'silo-1' is not enrolled$"):
        store.add_cosignature(this.silo.name, line_of(this.silo, store.checkpoint_note()))
    assert names(store.cosigned_note(1)) == ["lender"]


def test_a_key_is_used_once_and_by_one_silo(home: Home, store: Store) -> None:
    this, other = Round(1, home), Round(2, home)
    for one in (this, other):
        one.add_token(store)
        one.enrol(store)
    this.rotate(store)
    taken = this.new_key.public_key().public_bytes_raw()
    with pytest.raises(Conflict, match=r"^the identity key was used before$"):
        store.rotate(other.rotation, taken, START)
    gone = this.silo.identity.public_key().public_bytes_raw()
    with pytest.raises(Conflict, match=r"^the identity key was used before$"):
        store.rotate(other.rotation, gone, START)
    other.rotate(store)
    assert other.rotate(store)[0][0] < store.log.size(), "the same statement again gets its old index"
    statement = revocation("silo-2", b"", "x", (0, "00" * 32), START)
    with pytest.raises(Conflict, match=r"^the next entry of coordinator about no job has seq 0"):
        store.revoke(Entry.parse(seal(statement, home.log_key)), "silo-2", START)
    statement = revocation("nobody", b"", "x", store.roster_chain_end("coordinator"), START)
    with pytest.raises(Unknown, match=r"^no silo 'nobody' is enrolled$"):
        store.revoke(Entry.parse(seal(statement, home.log_key)), "nobody", START)
    with pytest.raises(Forbidden, match="not that of coordinator"):
        store.revoke(Entry.parse(seal(statement, LOG)), "nobody", START)


def test_a_rotation_that_another_one_has_overtaken_is_not_logged(home: Home, store: Store) -> None:
    """It is signed by the key of now and rightly chained, but its new key agreed to follow the one before."""
    this, last = Round(1, home), Ed25519PrivateKey.generate()
    this.add_token(store)
    this.enrol(store)
    this.rotate(store)
    agreed = last.sign(rotation_message("silo-1", this.silo.identity.public_key().public_bytes_raw()))
    raw = last.public_key().public_bytes_raw()
    body = {"identity_key": base64.b64encode(raw).decode(), "proof": base64.b64encode(agreed).decode()}
    place = store.roster_chain_end("silo-1")
    statement = Statement("rotated", "", "", "silo-1", *place, format_time(START), body)
    size = store.log.size()
    with pytest.raises(Malformed, match="the proof is not the new key's signature"):
        store.rotate(Entry.parse(seal(statement, this.new_key)), raw, START)
    assert store.log.size() == size


# --- a database that is older than what was shown


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_a_restored_backup_takes_no_entries_once_a_witness_has_come(home: Home, store: Store, tmp_path: Path) -> None:
    store._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    backup = tmp_path / "backup.db"
    shutil.copy(home.path / homes.DATABASE, backup)
    grow(store)
    kept = line_of(LENDER, store.checkpoint_note())
    store.close()
    newer = (home.path / homes.DATABASE).read_bytes()
    shutil.copy(backup, home.path / homes.DATABASE)
    with closing(home.open_store()) as old:
        with pytest.raises(
            RolledBack, match=r"^lender has seen this log with 4 entries that its database does not have$"
        ):
            old.add_cosignature("lender", kept)
        assert old.log.size() == 2
    with closing(home.open_store()) as old:  # it remembers, also across a restart
        with pytest.raises(
            RolledBack, match=r"^this log was seen with 4 entries that its database does not have; it takes"
        ):
            grow(old)
        assert old.add_cosignature("dealer", line_of(DEALER, old.checkpoint_note())) == 2, "what it has may be cosigned"
    (home.path / homes.DATABASE).write_bytes(newer)
    with closing(home.open_store()) as whole:
        assert whole.add_cosignature("lender", kept) == 4
        grow(whole)


def test_a_checkpoint_of_another_history_by_our_own_key_stops_the_log(home: Home, store: Store) -> None:
    forked = home.sign_head(2, bytes(32))
    with pytest.raises(RolledBack):
        store.add_cosignature("lender", line_of(LENDER, forked))
    with pytest.raises(RolledBack):
        grow(store)


def test_a_database_that_shrinks_under_a_running_coordinator_is_not_written_to(home: Home, store: Store) -> None:
    """As when a server of the database is replaced by a copy that lags behind."""
    grow(store)
    assert store.log.size() == 4
    with closing(home.open_store()) as other:
        for table in ("node", "entry"):
            other._db.execute(f"DELETE FROM {table}")  # noqa: S608
        other._db.execute("UPDATE head SET size = 0")
    with pytest.raises(RolledBack, match=r"^the database has 0 entries, and this coordinator has shown 4$"):
        grow(store)


async def test_the_newest_checkpoint_and_the_quorum_over_http(job: Job) -> None:
    await job.submit()
    http, store = job.http["lender"], job.world.server.coordinator.store
    status, note = await call(http, "GET", "/v1/log/checkpoint")
    assert (status, names(note)) == (200, [])
    assert (await call(http, "GET", "/v1/log/cosigned"))[0] == 404
    await store.write(Store.add_cosignature, "lender", line_of(job.silos["lender"], note))
    assert names((await call(http, "GET", "/v1/log/checkpoint"))[1]) == ["lender"]
    assert (await call(http, "GET", "/v1/log/cosigned"))[0] == 404
    status, cosigned = await call(http, "GET", "/v1/log/cosigned?least=1")
    assert (status, names(cosigned)) == (200, ["lender"])
    assert (await call(http, "GET", "/v1/log/cosigned?least=x"))[0] == 400
