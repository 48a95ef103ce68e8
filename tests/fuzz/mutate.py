"""Change an input a little: its bytes, or the tree of a JSON document, so that what follows the first check is reached."""

from __future__ import annotations

import json
import random  # noqa: TID251  a fuzz run must be repeatable from its seed
from typing import Any

from tests.fuzz.target import Form

NUMBERS = (0, 1, -1, 2, 255, 256, 65_535, 1 << 31, (1 << 53) - 1, 1 << 53, 1 << 63, 1 << 64, -(1 << 63), 10**30)
VALUES: tuple[Any, ...] = (
    None, True, False, *NUMBERS, 0.5, 1e308, float("nan"), float("inf"),
    "", "0", "-1", "1e9", "\0", "a" * 300, "\ud800", "\u202e", "../x", "null", "é", "2026-01-01T00:00:00Z",
    [], {}, [[]], [{}], {"": ""}, [None] * 50, "A" * 43 + "=", "0" * 64, "AAAA",
)  # fmt: skip
TOKENS = (
    b"\0", b"\xff", b"\n", b"\n\n", b'"', b"'", b"\\", b"[", b"]", b"{", b"}", b"=", b",", b":", b"+", b"-", b".", b" ",
    b"[" * 200, b'{"a":' * 100, b"[[a]]\n", b"a.b.c = 1\n", b"nan", b"inf", b"1e999", b"0x", b"1979-05-27", b"9" * 5000,
    b"\xf0\x9f\x98\x80", b"\xed\xa0\x80", b"\xe2\x80\x94 ", b"\0" * 8, b"\xff" * 4, b"\x7f" + b"\xff" * 7,
)  # fmt: skip


def mutated(data: bytes, other: bytes, form: Form, limit_bytes: int, chance: random.Random) -> bytes:
    """`data` with a few changes; `other`: another input, to take pieces from."""
    for _ in range(1 + chance.randrange(3)):
        tree = form in ("json", "canonical") and chance.random() < 0.8
        data = (_tree(data, other, form, chance) if tree else None) or _bytes(data, other, chance)
    return data[:limit_bytes]


def _bytes(data: bytes, other: bytes, chance: random.Random) -> bytes:
    at = chance.randrange(len(data) + 1)
    until = min(len(data), at + chance.choice((1, 1, 2, 4, 8, 32, len(data))))
    how = chance.randrange(7)
    if how == 0:
        return data[:at] + data[until:]
    if how == 1:
        return data[:at] + chance.choice(TOKENS) + data[at:]
    if how == 2:
        return data[:at] + chance.randbytes(until - at) + data[until:]
    if how == 3 and data:
        one = chance.randrange(len(data))
        return data[:one] + bytes([data[one] ^ 1 << chance.randrange(8)]) + data[one + 1 :]
    if how == 4 and other:
        start = chance.randrange(len(other))
        return data[:at] + other[start : start + chance.choice((4, 32, 256))] + data[until:]
    if how == 5:
        return data[:at] + data[at:until] * chance.choice((2, 3, 20)) + data[until:]
    return data[:at]


def _tree(data: bytes, other: bytes, form: Form, chance: random.Random) -> bytes | None:
    """A change of one node; None if `data` is no JSON object or list."""
    try:
        document = json.loads(data)
        nodes = _places(document)
        donors = [node[key] for node, key in _places(json.loads(other))] if chance.random() < 0.3 else []
    except (ValueError, RecursionError):
        return None
    if not nodes:
        return None
    node, key = chance.choice(nodes)
    how = chance.randrange(8)
    if how == 0:
        del node[key]
    elif how == 1 and isinstance(node, dict):
        node[chance.choice(["", "x", "v", "é", str(key).upper()])] = node.pop(key)
    elif how == 2 and isinstance(node, list):
        node.extend([node[key]] * chance.choice((1, 2, 30)))
    elif how == 3:
        again, there = chance.choice(nodes)
        if (isinstance(again, dict) and there in again) or (isinstance(again, list) and there < len(again)):
            node[key] = json.loads(json.dumps(again[there]))
    elif how == 4 and isinstance(node[key], str):
        node[key] = text_of(_bytes(node[key].encode(errors="replace"), b"", chance))
    elif how == 5 and donors:
        node[key] = chance.choice(donors)
    else:
        node[key] = chance.choice(VALUES)
    try:
        if form == "canonical":
            return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
        return json.dumps(document).encode()
    except (ValueError, RecursionError):
        return None


def text_of(raw: bytes) -> str:
    """Bytes as text, one character each where they are no UTF-8."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw.decode("latin-1")


def _places(document: Any, most: int = 2000) -> list[tuple[Any, Any]]:
    """(container, key) of the nodes below the root, at most so many."""
    found: list[tuple[Any, Any]] = []
    todo = [document]
    while todo and len(found) < most:
        node = todo.pop()
        keys = list(node) if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ()
        for key in keys:
            found.append((node, key))
            todo.append(node[key])
    return found
