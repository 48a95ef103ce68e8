"""The log as C2SP tiles: files that never change, of which any client can make every proof itself.

A tile holds up to 256 hashes of one level of the tree; level l has the hashes of subtrees of 256**l entries.  Every silo
may read tiles: a leaf's hash covers a signature, so a guess at the entry cannot be tried out.  Entry bundles hold the
entries themselves, which most silos may not see; only the operator exports them.

Source: C2SP tlog-tiles v1.0.0.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol

from coordinator.errors import Malformed

ENTRIES = "entries"
CONTENT_TYPE = "application/octet-stream"
MAX_LEVEL = 7  # 256**7 entries are more than any index here can count
_PLACE = re.compile(r"((?:x[0-9]{3}/){0,4}[0-9]{3})(?:\.p/([1-9][0-9]{0,2}))?")


@dataclass(frozen=True)
class Tile:
    """`width` hashes of `level` from number index * 256 on.  A tile of fewer than 256 is partial: at the right edge."""

    FULL: ClassVar[int] = 256

    level: int
    index: int
    width: int

    @property
    def end(self) -> int:
        """How many entries a log has at least if it has this tile."""
        return (self.index * self.FULL + self.width) << (8 * self.level)

    @property
    def place(self) -> str:
        """What follows the level in its path, like `x001/x234/067` or `000.p/17`."""
        digits = str(self.index)
        digits = digits.zfill(-(-len(digits) // 3) * 3)
        parts = [digits[i : i + 3] for i in range(0, len(digits), 3)]
        name = "/".join([*(f"x{part}" for part in parts[:-1]), parts[-1]])
        return name if self.width == self.FULL else f"{name}.p/{self.width}"

    @classmethod
    def parse(cls, level: str, place: str) -> Tile:
        """Read the two parts of a tile's path, in their one spelling.  Raises: Malformed."""
        found = _PLACE.fullmatch(place)
        if found is None or not re.fullmatch(rf"[0-{MAX_LEVEL}]", level):
            raise Malformed(
                "a tile's address is '<level>/<number>' or '<level>/<number>.p/<width>', as tlog-tiles says"
            )
        index = int(re.sub(r"[x/]", "", found[1]))
        tile = cls(int(level), index, int(found[2] or cls.FULL))
        if tile.place != place:
            raise Malformed("a tile's number or width is not written as tlog-tiles says")
        return tile


def tiles_of(size: int) -> Iterator[Tile]:
    """All tiles of a tree of `size` entries, the partial ones at its right edge last in each level."""
    level = 0
    while count := size >> (8 * level):
        full, rest = divmod(count, Tile.FULL)
        yield from (Tile(level, index, Tile.FULL) for index in range(full))
        if rest:
            yield Tile(level, full, rest)
        level += 1


def bundle(envelopes: Sequence[bytes]) -> bytes:
    """Entries as an entry bundle: each behind its length in two bytes."""
    return b"".join(len(envelope).to_bytes(2, "big") + envelope for envelope in envelopes)


class Source(Protocol):
    """What an export reads of a log (coordinator.log.Log)."""

    def tile(self, tile: Tile) -> bytes:
        """The hashes of a tile."""

    def envelopes(self, start: int, end: int) -> list[bytes]:
        """Entries as logged."""


def export(log: Source, size: int, note: str, folder: Path, *, entries: bool) -> int:
    """Write the tree of `size` entries and its signed checkpoint `note` as files to serve; returns how many are new.

    A second export into the folder adds what has grown.  entries: also the entries themselves, of all jobs.
    Raises: OSError.
    """
    written = 0
    for tile in tiles_of(size):
        written += _write_once(folder / "tile" / str(tile.level) / tile.place, log.tile(tile))
        if entries and tile.level == 0:
            first = tile.index * Tile.FULL
            content = bundle(log.envelopes(first, first + tile.width))
            written += _write_once(folder / "tile" / ENTRIES / tile.place, content)
    # Last: whoever reads the folder meanwhile never finds a checkpoint whose tiles are not there yet.
    _replace(folder / "checkpoint", note.encode())
    return written + 1


def _write_once(path: Path, content: bytes) -> bool:
    """A tile never changes, so one that is there is left alone."""
    if path.exists():
        return False
    _replace(path, content)
    return True


def _replace(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.write_bytes(content)
    draft.replace(path)
