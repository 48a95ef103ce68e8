"""The log as C2SP tiles: which there are, what they are called, and that a root made of them alone is the checkpoint's."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from coordinator import home as homes
from coordinator import merkle
from coordinator.errors import Malformed, Unknown
from coordinator.log import Entry
from coordinator.note import open_checkpoint, verifier_key
from coordinator.server import export_tiles, init_home
from coordinator.store import Store
from coordinator.tiles import Tile, bundle, tiles_of
from silos.commands.coordinator import app
from tests.coordinator.crashes import LENDER, put_on_roster
from tests.coordinator.world import ORIGIN, START, Job, call, disclosure_of, make_spec


def test_the_tiles_of_70000_entries_are_those_of_the_specification() -> None:
    tiles = list(tiles_of(70_000))
    assert [tile.width for tile in tiles if tile.level == 0] == [256] * 273 + [112]
    assert [tile.width for tile in tiles if tile.level == 1] == [256, 17]
    assert [tile.width for tile in tiles if tile.level == 2] == [1]
    assert {tile.level for tile in tiles} == {0, 1, 2}
    assert list(tiles_of(256)) == [Tile(0, 0, 256), Tile(1, 0, 1)]
    assert list(tiles_of(0)) == []


@pytest.mark.parametrize(
    ("tile", "place"),
    [
        (Tile(0, 1234067, 256), "x001/x234/067"),
        (Tile(0, 0, 256), "000"),
        (Tile(3, 7, 1), "007.p/1"),
        (Tile(1, 1000, 255), "x001/000.p/255"),
        (Tile(0, 999999999999999, 256), "x999/x999/x999/x999/999"),
    ],
)
def test_a_tile_s_place_in_the_specification_s_words(tile: Tile, place: str) -> None:
    assert tile.place == place
    assert Tile.parse(str(tile.level), place) == tile


@given(st.integers(0, 7), st.integers(0, 10**15 - 1), st.integers(1, 256))
def test_places_are_read_as_they_are_written(level: int, index: int, width: int) -> None:
    tile = Tile(level, index, width)
    assert Tile.parse(str(level), tile.place) == tile


@pytest.mark.parametrize(
    ("level", "place"),
    [
        ("0", ""), ("0", "0"), ("0", "x000/001"), ("0", "001.p/0"), ("0", "001.p/256"), ("0", "001.p/01"),
        ("0", "001.p/"), ("0", "1234"), ("0", "001/002"), ("0", "../001"), ("0", "x001/x234/067 "), ("00", "001"),
        ("8", "001"), ("-1", "001"), ("", "001"), ("0", "\u0661\u0661\u0661"), ("0", "x999/x999/x999/x999/x999/999"),
    ],
)  # fmt: skip
def test_another_spelling_is_no_tile(level: str, place: str) -> None:
    with pytest.raises(Malformed, match=r"^a tile's "):
        Tile.parse(level, place)


def root_of(size: int, read: Callable[[Tile], bytes]) -> bytes:
    """The root of a tree, from its tiles alone, after checking that each tile above is made of those below."""
    tiles = {(tile.level, tile.index): read(tile) for tile in tiles_of(size)}
    hashes = {
        (8 * level, 256 * index + at // 32): content[at : at + 32]
        for (level, index), content in tiles.items()
        for at in range(0, len(content), 32)
    }

    def stored(level: int, index: int) -> bytes:
        if level % 8:
            return merkle.node_hash(stored(level - 1, 2 * index), stored(level - 1, 2 * index + 1))
        if level:
            below = merkle.node_hash(stored(level - 1, 2 * index), stored(level - 1, 2 * index + 1))
            assert below == hashes[level, index]
        return hashes[level, index]

    return merkle.root(size, stored)


def fill(store: Store, jobs: int) -> None:
    put_on_roster(store)
    for _ in range(jobs):
        spec = make_spec()
        said = [
            LENDER.say("proposed", spec, {"spec": spec}),
            LENDER.say("disclosed", spec, {"disclosure": disclosure_of(spec)}),
        ]
        store.together([lambda said=said: store.submit([Entry.parse(envelope) for envelope in said], START)])


def test_the_static_export_holds_the_whole_log(tmp_path: Path, database: str) -> None:
    init_home(tmp_path / "c", ["localhost"], ORIGIN, database)
    home, folder = homes.load(tmp_path / "c"), tmp_path / "static"
    with closing(home.open_store()) as store:
        fill(store, 5)
        assert export_tiles(home.path, folder, entries=False) == (2, 10)
        store._db.execute("DELETE FROM silo")
        fill(store, 130)
        assert export_tiles(home.path, folder, entries=True) == (6, 270)
        seen = open_checkpoint((folder / "checkpoint").read_text(), verifier_key(ORIGIN, home.log_key))
        assert (seen.size, seen.root) == (270, store.log.root(270))
        with pytest.raises(Unknown, match="the log has 270 entries and not yet this tile"):
            store.tile(Tile(0, 1, 15))
        entries = store.log.envelopes(0, 270)
    assert root_of(270, lambda tile: (folder / "tile" / str(tile.level) / tile.place).read_bytes()) == seen.root
    bundles = (folder / "tile" / "entries" / "000").read_bytes() + (folder / "tile/entries/001.p/14").read_bytes()
    assert bundles == bundle(entries)
    read = []
    while bundles:
        size = int.from_bytes(bundles[:2], "big")
        read.append(bundles[2 : 2 + size])
        bundles = bundles[2 + size :]
    leaves = (folder / "tile" / "0" / "000").read_bytes() + (folder / "tile/0/001.p/14").read_bytes()
    assert b"".join(merkle.leaf_hash(entry) for entry in read) == leaves
    assert export_tiles(home.path, folder, entries=True) == (1, 270), "only the checkpoint is written again"
    assert not list(folder.rglob(".*"))


def test_the_operator_s_command(tmp_path: Path, database: str) -> None:
    home, folder = str(tmp_path / "c"), tmp_path / "static"
    made = CliRunner().invoke(app, ["init", "--home", home, "--host", "localhost", "--database", database])
    assert made.exit_code == 0, made.output
    done = CliRunner().invoke(app, ["tiles", "--home", home, "--output", str(folder), "--entries"])
    assert done.output == f"{folder} has the log's 0 entries; 1 files are new\n"
    assert [path.name for path in folder.rglob("*")] == ["checkpoint"]


async def test_a_silo_reads_tiles_over_http(job: Job) -> None:
    await job.submit()
    http = job.http["dealer"]
    status, note = await call(http, "GET", "/v1/log/checkpoint")
    assert status == 200
    seen = open_checkpoint(note, verifier_key(ORIGIN, homes.load(job.world.home).log_key))
    async with http.get("/v1/log/tile/0/000.p/5") as reply:
        assert (reply.status, reply.content_type) == (200, "application/octet-stream")
        assert "immutable" in reply.headers["Cache-Control"]
        content = await reply.read()
    assert root_of(seen.size, lambda _: content) == seen.root
    for path, expected in (("0/000", 404), ("0/000.p/6", 404), ("0/0", 400), ("9/000", 400), ("entries/000.p/5", 400)):
        assert (await call(http, "GET", f"/v1/log/tile/{path}"))[0] == expected
    assert (await call(job.world.session(), "GET", "/v1/log/tile/0/000.p/5"))[0] == 401
