"""Sorted tags on the wire: the upper bits of all together in about two bits each, and further bits of every one.

A table of m tags, with 2^b about m.  With u the upper b bits of the tag in place i, bit u + i of the first message is set; u
never falls, so these bits are all different and in order.  The second message has the next 64 bits of every tag.  Whole
tags, of 128 bits, need a third message with what is left; others end after 64 + b bits.

Source: Elias, J. ACM 1974; Fano, 1971 (the code for ascending numbers).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from mpc.channel import Channel
from mpc.errors import RemoteProtocolError
from mpc.wire import recv_words, send_words

Words = npt.NDArray[Any]
WORD_BITS = 64
_UPPER, _TAGS, _ENDS = "matching/upper", "matching/tags", "matching/ends"


def bucket_bits(n_tags: int) -> int:
    """Upper bits of a tag that are sent together: as many as make 2^b at least the number of tags."""
    return (n_tags - 1).bit_length()


def upper_bytes(n_tags: int) -> int:
    """Bytes of the first message."""
    return -(-(n_tags + (1 << bucket_bits(n_tags)) - 1) // 8)


def end_bytes(n_tags: int) -> int:
    """Bytes of a whole tag that are left for the third message."""
    return -(-(WORD_BITS - bucket_bits(n_tags)) // 8)


def cut(tags: Words, n_tags: int) -> None:
    """Clear what a table of n_tags does not have of tags (..., 2 or more) that are not sent whole."""
    tags[:, 1] &= np.uint64((1 << WORD_BITS) - (1 << WORD_BITS - bucket_bits(n_tags)))


def _joined(first: Words, second: Words, bits: int) -> Words:
    """The 64 bits that follow the upper `bits` bits of two words."""
    if bits == 0:
        return first
    joined: Words = first << np.uint64(bits) | second >> np.uint64(WORD_BITS - bits)
    return joined


def send_table(channel: Channel, peer: str, ordered: Words, whole: bool) -> None:
    """Send tags in ascending order, (m, 2 or more), whole or `cut`.

    Reveals: the tags, and nothing about the order in which they were made.
    Cost: 8 m + ceil((m + 2^b - 1) / 8) bytes with b = ceil(log2 m); for whole tags m ceil((64 - b) / 8) more.
    Security: that of the tags.
    Source: Elias, J. ACM 1974.
    """
    n_tags, bits = len(ordered), bucket_bits(len(ordered))
    upper, places = np.zeros(8 * upper_bytes(n_tags), dtype=np.uint8), np.arange(n_tags)
    if bits:
        places += (ordered[:, 0] >> np.uint64(WORD_BITS - bits)).astype(np.int64)
    upper[places] = 1
    send_words(channel, peer, _UPPER, np.packbits(upper, bitorder="little"))
    send_words(channel, peer, _TAGS, _joined(ordered[:, 0], ordered[:, 1], bits))
    if whole:
        ends = (ordered[:, 1] << np.uint64(bits)).astype(">u8").view(np.uint8).reshape(n_tags, 8)
        send_words(channel, peer, _ENDS, ends[:, : end_bytes(n_tags)])


def recv_table(channel: Channel, peer: str, n_tags: int, whole: bool) -> Words:
    """(n_tags, 2): the peer's tags, in ascending order.  Cost and security as `send_table`.

    Raises: RemoteProtocolError if they are not that many, not in order, or not all different.
    """
    bits = bucket_bits(n_tags)
    raw = recv_words(channel, peer, _UPPER, (upper_bytes(n_tags),), np.uint8)
    places = np.flatnonzero(np.unpackbits(raw, bitorder="little").view(np.bool_))
    if len(places) != n_tags or places[-1] > n_tags + (1 << bits) - 2:
        raise RemoteProtocolError(peer, _UPPER, "the tags are not as many as the identifiers")
    upper = (places - np.arange(n_tags)).astype(np.uint64)
    rest = recv_words(channel, peer, _TAGS, (n_tags,), np.uint64)
    if np.any((upper[1:] == upper[:-1]) & (rest[1:] <= rest[:-1])):
        raise RemoteProtocolError(peer, _TAGS, "tags out of order, or one twice")
    ends = np.zeros((n_tags, 8), dtype=np.uint8)
    if whole:
        ends[:, : end_bytes(n_tags)] = recv_words(channel, peer, _ENDS, (n_tags, end_bytes(n_tags)), np.uint8)
    last = ends.view(">u8")[:, 0].astype(np.uint64)
    if bits == 0:
        return np.stack([rest, last], axis=1)
    up = np.uint64(WORD_BITS - bits)
    return np.stack([upper << up | rest >> np.uint64(bits), rest << up | last >> np.uint64(bits)], axis=1)
