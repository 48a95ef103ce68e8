"""Frames between two parties of one session: one encoding per value, everything else refused.

A frame is a fixed header, a tag and a body.  The link below is TLS, so integrity is not the point of these checks:
they turn a desynchronised or hostile peer into one clear error instead of a wrong number.

    offset  size  field
    0       4     magic "ACF1"
    4       1     kind (closed set, `Kind`)
    5       1     length of the tag, 1..64
    6       2     sender: index in the session's list of participants
    8       16    session id
    24      8     sequence number, counted per direction from 0
    32      8     length of the body in bytes
    40      ...   tag (ASCII), body
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
import numpy.typing as npt

from mpc.channel import Channel
from mpc.errors import LocalProtocolError, RemoteProtocolError

MAGIC = b"ACF1"
HEADER = struct.Struct("!4sBBH16sQQ")
MAX_BODY_BYTES = 1 << 34
MAX_JSON_BYTES = 1 << 20


class Kind(IntEnum):
    """The closed set of body types."""

    BYTES = 1
    WORDS16 = 2
    WORDS32 = 3
    WORDS64 = 4
    JSON = 5


_DTYPES: dict[np.dtype[Any], Kind] = {
    np.dtype("uint8"): Kind.BYTES,
    np.dtype("uint16"): Kind.WORDS16,
    np.dtype("uint32"): Kind.WORDS32,
    np.dtype("uint64"): Kind.WORDS64,
}


@dataclass(frozen=True)
class Header:
    """A parsed and structurally valid frame header."""

    kind: Kind
    sender: int
    session: bytes
    seq: int
    tag_len: int
    body_len: int


def pack_header(kind: Kind, sender: int, session: bytes, seq: int, tag: str, body_len: int) -> bytes:
    """Header and tag of one frame, ready to be followed by `body_len` bytes."""
    raw = tag.encode("ascii")
    if not 1 <= len(raw) <= 64:
        raise LocalProtocolError(f"a tag has 1 to 64 characters, got {len(raw)}")
    return HEADER.pack(MAGIC, kind, len(raw), sender, session, seq, body_len) + raw


def parse_header(raw: bytes, peer: str) -> Header:
    """Check a header's structure; the caller checks session, sender, sequence, tag and size.

    Raises: RemoteProtocolError naming `peer` when the bytes are not a header of this version.
    """
    magic, kind, tag_len, sender, session, seq, body_len = HEADER.unpack(raw)
    if magic != MAGIC:
        raise RemoteProtocolError(peer, "frame", "malformed frame: wrong magic")
    if kind not in Kind._value2member_map_:
        raise RemoteProtocolError(peer, "frame", f"malformed frame: unknown kind {kind}")
    if not 1 <= tag_len <= 64:
        raise RemoteProtocolError(peer, "frame", f"malformed frame: tag of {tag_len} characters")
    return Header(Kind(kind), sender, session, seq, tag_len, body_len)


def send_words(channel: Channel, to: str, tag: str, words: npt.NDArray[Any]) -> None:
    """Send an array of unsigned 8, 16, 32 or 64-bit words, row-major, little-endian; the shape is not sent."""
    kind = _DTYPES.get(words.dtype)
    if kind is None:
        raise LocalProtocolError(f"only unsigned words travel, got {words.dtype} for '{tag}'")
    flat = np.ascontiguousarray(words).reshape(-1)
    channel.send(to, tag, kind, flat.view(np.uint8).data if flat.size else b"")


def recv_words(channel: Channel, frm: str, tag: str, shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """Receive an array whose shape and type we already know; any other size is the peer's error."""
    dt = np.dtype(dtype)
    size = int(np.prod(shape, dtype=np.int64)) * dt.itemsize
    body = channel.recv(frm, tag, _DTYPES[dt], exact=size)
    return np.frombuffer(body, dtype=dt).reshape(shape)


def send_json(channel: Channel, to: str, tag: str, value: Any) -> None:
    """Send a small control value (dicts, lists, strings, integers, booleans)."""
    channel.send(to, tag, Kind.JSON, json.dumps(value, separators=(",", ":"), allow_nan=False).encode())


def recv_json(channel: Channel, frm: str, tag: str, limit: int = MAX_JSON_BYTES) -> Any:
    """Receive a control value of at most `limit` bytes."""
    body = channel.recv(frm, tag, Kind.JSON, limit=limit)
    try:
        return json.loads(bytes(body))
    except (ValueError, RecursionError) as exc:
        raise RemoteProtocolError(frm, tag, "body is not JSON") from exc
