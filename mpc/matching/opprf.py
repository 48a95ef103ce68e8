"""An oblivious pseudorandom function that the sender programs: at points of its choice it has values of its choice.

The sender masks the values with the function of `mpc.matching.oprf` and puts them into a key-value store, the hint, which it
sends.  The receiver reads the hint at its points and takes its own mask off.  At a point that the sender did not program it
gets a random value, and it cannot tell the two cases apart as long as programmed values look random to it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from mpc.channel import Channel
from mpc.errors import LocalProtocolError
from mpc.matching import okvs
from mpc.matching.hashes import bound_key, expand, tags
from mpc.matching.oprf import ATTEMPTS
from mpc.rng import fresh_prg
from mpc.wire import Kind, recv_words, send_words

Words = npt.NDArray[Any]

KEY_BYTES = 32
CHUNK_COLUMNS = 1 << 15
OUTPUT_WORDS = 8
"""Words that one hash gives at most."""
_KEY, _HINT = "matching/hint-key", "matching/hint"


def _masks(outputs: Words, key: bytes, k: int) -> Words:
    """(n, k) words that only who knows a point's output knows; other ones for every hint."""
    parts = [
        tags(
            outputs[:, :2],
            outputs[:, 2:],
            bound_key("hint-mask", key, at.to_bytes(8, "little")),
            min(k - at, OUTPUT_WORDS),
        )
        for at in range(0, k, OUTPUT_WORDS)
    ]
    return np.concatenate(parts, axis=1)


def send_hint(channel: Channel, peer: str, points: Words, outputs: Words, values: Words, tag: str = _HINT) -> None:
    """Program the receiver's function: at each of our points it gets that point's values.

    points: (m, 2), distinct and ascending.  outputs: (m, 4), the function's own values there.  values: (m, k) words, k > 0,
    random to the receiver where it does not know the point.  tag: of the hint, for a Reveal to name if values tell anything.

    Reveals: m; at points of its own, the receiver learns our values.
    Cost: one message that waits for nothing, of 32 + 8 k c bytes with c = 1.1 m + 224 columns rounded up to a multiple of 128.
    Security: that of the function; free columns are random, so the hint is as random as what it holds.
    Source: Kolesnikov et al., CCS 2017 (programmable functions); Bienstock et al., USENIX Security 2023 (the store).
    Raises: LocalProtocolError if the points cannot be encoded, which happens with a probability below 2^-40.
    """
    noise, n_columns = fresh_prg(), okvs.columns(len(points))
    for _ in range(ATTEMPTS):
        key = noise.words(KEY_BYTES, np.uint8).tobytes()
        rows = expand(points, bound_key("hint", key), n_columns)
        masked = values ^ _masks(outputs, key, values.shape[1])
        hint = okvs.solve(rows.start, rows.band, masked, noise.words((n_columns, values.shape[1])))
        if hint is not None:
            break
    else:
        raise LocalProtocolError(f"the identifiers could not be encoded in {ATTEMPTS} attempts")
    channel.send(peer, _KEY, Kind.BYTES, key)
    for at in range(0, n_columns, CHUNK_COLUMNS):
        send_words(channel, peer, tag, hint[at : at + CHUNK_COLUMNS])


def recv_hint(
    channel: Channel, peer: str, points: Words, outputs: Words, sizes: tuple[int, int], tag: str = _HINT
) -> Words:
    """(n, k): what the sender programmed at those of our points that it programmed, random words elsewhere.

    points: (n, 2), ascending.  outputs: (n, 4), the function's values there.  sizes: m, how many points the sender programs,
    and k.  tag, cost and security as `send_hint`.  Raises: RemoteProtocolError for what is malformed.
    """
    n_columns, k = okvs.columns(sizes[0]), sizes[1]
    key = bytes(channel.recv(peer, _KEY, Kind.BYTES, exact=KEY_BYTES))
    hint = np.empty((n_columns, k), dtype=np.uint64)
    for at in range(0, n_columns, CHUNK_COLUMNS):
        part = min(CHUNK_COLUMNS, n_columns - at)
        hint[at : at + part] = recv_words(channel, peer, tag, (part, k), np.uint64)
    rows = expand(points, bound_key("hint", key), n_columns)
    result: Words = okvs.decode(hint, rows.start, rows.band) ^ _masks(outputs, key, k)
    return result
