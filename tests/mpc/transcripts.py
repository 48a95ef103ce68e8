"""What a transcript must look like if it tells nothing: statistics of messages, and the list of all tags.

Every test is a chi-square whose probability of a false alarm is below FALSE_ALARM, by the chi-square distribution, which is
close enough with 8 or more expected in each cell: there are at most MOST_TESTS in a case, and few cases, so together they
stay below 10^-6.  Keys are fixed too, so what passes once passes always.
"""

from __future__ import annotations

import ast
import hashlib
import itertools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
from scipy.stats import chi2

from mpc.rng import Prg
from mpc.wire import Kind
from tests.harness import Message, Run

FALSE_ALARM = 1e-12
MOST_TESTS = 20_000
"""In one case."""
FEWEST = 512
"""Bytes below which nothing is said."""
ENOUGH = 20_000
"""Bytes of one tag in one direction that count as looked at."""
PER_CELL = 8
MASKS_COMPARED = 4
"""Messages of one tag, the first and the last, that are compared with each other and with those of other tags, so that a mask
that is used twice shows."""
WORD = {Kind.WORDS16: np.uint16, Kind.WORDS32: np.uint32, Kind.WORDS64: np.uint64}
SUM, XOR, WIDE = "sum", "exclusive or", "sum of 128-bit words"
OPENED = {
    "compare/bit": XOR,
    "compare/join": XOR,
    "compare/mask": SUM,
    "crypten/open": XOR,
    "fourier/angle": SUM,
    "fourier/turn": SUM,
    "gram/weights": SUM,
    "groups/key": SUM,
    "groups/values": SUM,
    "products/open": SUM,
    "products/square": SUM,
    "truncation/open": SUM,
    "verified/mask": WIDE,
}
"""What everybody opens, and how; what it makes is uniform, as each message is."""
MESSAGES_ALONE = {
    "compare/any": "opens whether any value is outside, on purpose",
    "compare/reveal": "opens outcomes, on purpose",
    "crypten/result-to": "opens a result to one party, on purpose",
    "dealer/correction": "is a share",
    "groups/mask": "is for one receiver, who adds a share of its own",
    "groups/order": "is one party's",
    "matrix/mask": "is one party's",
    "matrix/vector": "is for one receiver, who may add a share of its own",
    "ot/choice": "is one party's",
    "ot/message": "is one party's",
    "ot/points": "is one party's",
    "ot/trees": "is one party's",
    "shuffle/mask": "is for one receiver, who adds a share of its own",
    "verified/check": "opens zero, on purpose",
    "verified/matrix": "is one party's",
    "verified/rows": "is for one receiver, who opens what is used for nothing else",
}
"""Other tags, of which every message is uniform, and why nothing is said about what several make together."""
KEY_SOURCES = ("mpc.dealer", "mpc._crypten.seams", "mpc.verified.source")
STREAM_SOURCES = ("mpc._crypten.seams", "mpc.ot.source", "mpc.ot.extension")
N = 2560
"""Words that make ENOUGH bytes, in whole planes."""
ENDS = (-(2**63), 2**63 - 1)


@dataclass(frozen=True)
class Case:
    """Runs of one protocol on secrets 0, 1 and 2, of the same public sizes.

    not_opened: tags of OPENED that here open something else, and why.  low_bits: per tag, how many bits of a word are used,
    if not all.  orders: tags that carry uniform orders, and of how many.  same_keys: the masks are those of secret 0 for
    every secret, for protocols whose steps depend on them.
    """

    play: Callable[[int], Run]
    not_opened: Mapping[str, str] = field(default_factory=dict)
    low_bits: Mapping[str, int] = field(default_factory=dict)
    orders: Mapping[str, int] = field(default_factory=dict)
    same_keys: bool = False


def secret(which: int, shape: Any, low: int, high: int, seed: int = 0) -> np.ndarray:
    """Integers from low to high: all the one nearest to zero; only the two ends; a slope, then noise."""
    n = int(np.prod(shape))
    if which == 0:
        return np.full(shape, min(max(low, 0), high))
    if which == 1:
        return np.where(np.arange(n) % 2, low, high).reshape(shape)
    out = np.random.default_rng(100 + seed).integers(low, high, n, endpoint=True)
    out[: n // 2] = np.linspace(low, low / 2 + high / 2, n // 2).astype(np.int64)
    return out.reshape(shape)


def shared(values: np.ndarray, parties: int = 2, holder: int = 0) -> list[np.ndarray]:
    """Shares that hide nothing: one party's is the secret, the others' are zero.  A mask that is missing shows at everybody.

    Sharing at random would do what the masks are there for, and what is sent to a single party would not show that it, with
    a share of its own, learns the rest.
    """
    words = values.astype(np.int64).view(np.uint64)
    return [words.copy() if i == holder % parties else np.zeros_like(words) for i in range(parties)]


def fix_keys(patch: pytest.MonkeyPatch, label: str) -> None:
    """Every key and stream that a session draws is a function of the label and of how many were drawn before."""
    count = itertools.count()

    def key() -> bytes:
        return hashlib.sha256(f"{label}/{next(count)}".encode()).digest()

    for module in KEY_SOURCES:
        patch.setattr(f"{module}.fresh_key", key)
    for module in STREAM_SOURCES:
        patch.setattr(f"{module}.fresh_prg", lambda: Prg(key()))


# --- statistics ---


@lru_cache(maxsize=64)
def _limit(freedom: int) -> float:
    return float(chi2.isf(FALSE_ALARM, freedom))


class Checks:
    """Chi-square tests made so far; the first that fails raises."""

    def __init__(self) -> None:
        self.made = 0

    def _judge(self, what: str, statistic: float, freedom: int) -> None:
        self.made += 1
        assert self.made <= MOST_TESTS
        limit = _limit(freedom)
        assert statistic < limit, f"{what}: chi-square {statistic:.0f}, expected about {freedom}, at most {limit:.0f}"

    def uniform(self, what: str, values: np.ndarray) -> None:
        """Bytes are uniform; if there are few, their halves are."""
        for part, cells, name in _cells(values):
            counts = np.bincount(part, minlength=cells)
            expected = part.size / cells
            self._judge(f"{what}{name}", float(((counts - expected) ** 2).sum() / expected), cells - 1)

    def alike(self, what: str, values: np.ndarray, others: np.ndarray) -> None:
        """Two samples of bytes, of one size, have one distribution."""
        for (part, cells, name), (other, _, _) in zip(_cells(values), _cells(others), strict=True):
            a, b = (np.bincount(v, minlength=cells) for v in (part, other))
            both = (a + b).clip(1)
            self._judge(f"{what}{name}, two secrets", float(((a - b) ** 2 / both).sum()), cells - 1)


def _cells(values: np.ndarray) -> Iterable[tuple[np.ndarray, int, str]]:
    if values.size >= 256 * PER_CELL:
        return [(values, 256, "")]
    if values.size >= 16 * PER_CELL:
        return [(values >> 4, 16, ", high halves"), (values & 15, 16, ", low halves")]
    return []


def pieces(words: np.ndarray) -> list[tuple[str, np.ndarray]]:
    """Bytes of words: all of them, and those of each place in a word."""
    places = words.view(np.uint8).reshape(-1, words.itemsize)
    each = [(f" byte {i}", np.ascontiguousarray(places[:, i])) for i in range(words.itemsize)]
    return [("", places.reshape(-1)), *(each if words.itemsize > 1 else [])]


# --- what was sent, and what it opens ---

Streams = dict[tuple[str, str], list[np.ndarray]]
"""By tag and direction, the words of each message; the direction of what was opened is "opened"."""


def words_of(message: Message) -> np.ndarray:
    """The words of a body; of plain bytes, 64-bit words if they are whole ones."""
    width = WORD.get(message.kind, np.uint8 if message.size % 8 else np.uint64)
    return np.frombuffer(message.body, width)


def streams(run: Run, case: Case, exempt: Iterable[str]) -> Streams:
    """Everything that was sent but under exempt tags, and what it opened."""
    out: Streams = {}
    for message in run.transcript:
        if message.tag not in exempt and message.size:
            out.setdefault((message.tag, f"{message.sender} to {message.receiver}"), []).append(words_of(message))
    for tag in sorted({tag for tag, _ in out if tag in OPENED and tag not in case.not_opened}):
        sides: dict[str, list[np.ndarray]] = {}
        for (of, way), sent in out.items():
            if of == tag:
                sides.setdefault(way.split(" to ")[0], sent)  # everybody is sent the same
        assert len(sides) > 1, f"nobody opened '{tag}'"
        out[tag, "opened"] = [_together(parts, OPENED[tag]) for parts in zip(*sides.values(), strict=True)]
    for (tag, way), sent in list(out.items()):
        if tag in case.low_bits:
            out[tag, way] = [_low(words, case.low_bits[tag], whole=way == "opened") for words in sent]
        narrow = min((words.dtype for words in out[tag, way]), key=lambda dtype: dtype.itemsize)
        out[tag, way] = [words.view(narrow) for words in out[tag, way]]
    return out


def _together(parts: tuple[np.ndarray, ...], how: str) -> np.ndarray:
    if how == XOR:
        return np.bitwise_xor.reduce(parts)
    total = np.add.reduce(parts, dtype=parts[0].dtype)
    if how == WIDE:
        assert len(parts) == 2
        total[1::2] += total[::2] < parts[0][::2]
    return total


def _low(words: np.ndarray, bits: int, *, whole: bool) -> np.ndarray:
    """The 1 or 4 bits of words that are used, packed to bytes; the others of a message are zero."""
    assert whole or not (words >> words.dtype.type(bits)).any()
    used = (words & words.dtype.type((1 << bits) - 1)).astype(np.uint8)
    if bits == 1:
        return np.packbits(used)[: used.size // 8]
    assert bits == 4
    return used[: used.size - 1 : 2] << 4 | used[1::2]


def order_bytes(orders: list[np.ndarray], n: int) -> list[tuple[str, np.ndarray]]:
    """Bytes that are uniform if orders of n = 256 rows are: halves of place and row, and how neighbours differ.

    Neighbours never differ by 0; as many zeros are put in as would be there if they did.
    """
    assert n == 256
    rows, place = np.stack(orders).astype(np.uint8), np.arange(n, dtype=np.uint8)
    steps = (rows[:, 1::2] - rows[:, ::2]).reshape(-1)
    return [
        (" high halves of place and row", ((place & 0xF0) | rows >> 4).reshape(-1)),
        (" low halves of place and row", ((place << 4) | rows & 15).reshape(-1)),
        (" neighbours", np.concatenate([steps, np.zeros(steps.size // 255, dtype=np.uint8)])),
    ]


def samples(case: Case, tag: str, sent: list[np.ndarray]) -> list[tuple[str, np.ndarray]]:
    """What of these messages must be uniform, as bytes."""
    if tag in case.orders:
        return order_bytes(sent, case.orders[tag])
    out = pieces(np.concatenate(sent))
    inside = [words for words in sent if words.size > 1]
    if inside:
        out.append((" difference of neighbours", np.concatenate([w[1:] - w[:-1] for w in inside]).view(np.uint8)))
        out.append((" exclusive or of neighbours", np.concatenate([w[1:] ^ w[:-1] for w in inside]).view(np.uint8)))
    return out


def check_uniform(checks: Checks, case: Case, seen: Streams) -> None:
    """Every message and everything opened is uniform, and no two messages have the same mask."""
    for (tag, way), sent in seen.items():
        if sum(words.nbytes for words in sent) >= FEWEST:
            for name, values in samples(case, tag, sent):
                checks.uniform(f"'{tag}' {way}{name}", values)
    for way in sorted({way for _, way in seen}):
        long = [
            (tag, words)
            for (tag, at), sent in seen.items()
            if at == way and tag not in case.orders
            for words in sent[: MASKS_COMPARED - 1] + sent[MASKS_COMPARED - 1 :][-1:]
            if words.nbytes >= 256 * PER_CELL
        ]
        for (tag, one), (other_tag, other) in itertools.combinations(long, 2):
            n = min(one.size, other.size)
            if one.dtype == other.dtype:
                what = f"'{tag}' and '{other_tag}' {way}"
                checks.uniform(f"{what}, difference", (one[:n] - other[:n]).view(np.uint8))
                checks.uniform(f"{what}, exclusive or", (one[:n] ^ other[:n]).view(np.uint8))


def check_alike(checks: Checks, case: Case, seen: Streams, other: Streams) -> None:
    """Both transcripts have one distribution."""
    assert seen.keys() == other.keys()
    for key, sent in seen.items():
        both = zip(samples(case, key[0], sent), samples(case, key[0], other[key]), strict=True)
        for (name, values), (_, others) in both:
            checks.alike(f"'{key[0]}' {key[1]}{name}", values, others)


def enough(seen: Streams) -> set[str]:
    """Tags of which one direction at least carries ENOUGH bytes."""
    return {tag for (tag, _), sent in seen.items() if sum(words.nbytes for words in sent) >= ENOUGH}


# --- the list of tags ---

TAG_AT = {"send_words": 2, "recv_words": 2, "send_json": 2, "recv_json": 2, "send": 1, "recv": 1}
TAG_AT |= {"exchange": 0, "open_words": 0, "open_many": 0, "open_bits": 1, "collect": 1, "_recv": 1}
"""Where calls that send or receive say the tag."""
BEHIND_TAG = {"send": 2, "recv": 1, "exchange": 1}
"""Arguments that follow it, where others have functions of the same name with fewer: generators and keys."""


def tags(source: str, name: str = "source") -> set[str]:
    """Every tag that a module names; a tag that is not written out in it, or passed to it as `tag`, is an error."""
    tree, found = ast.parse(source), set[str]()
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and _is_tag(node.value):
            found.add(node.value)
    constants = {c.asname or c.name for n in tree.body if isinstance(n, ast.ImportFrom) for c in n.names}
    constants |= {t.id for n in tree.body if isinstance(n, ast.Assign) for a in n.targets for t in _names(a)}
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        called = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
        at = TAG_AT.get(called)
        if at is None or len(call.args) + len(call.keywords) <= at + BEHIND_TAG.get(called, 0):
            continue
        named = [keyword.value for keyword in call.keywords if keyword.arg == "tag"]
        tag: Any = call.args[at] if len(call.args) > at else next(iter(named), None)
        good = isinstance(tag, ast.Constant) and isinstance(tag.value, str) and _is_tag(tag.value)
        good = good or (isinstance(tag, ast.Name) and (tag.id == "tag" or (tag.id in constants and tag.id.isupper())))
        assert good, f"{name}, line {call.lineno}: the tag of '{called}' is not written out"
    return found


def _names(target: ast.AST) -> list[ast.Name]:
    return [node for node in ast.walk(target) if isinstance(node, ast.Name)]


def _is_tag(text: str) -> bool:
    first, slash, rest = text.partition("/")
    return bool(slash) and first.isalpha() and rest.replace("-", "").isalpha() and text.islower()


def forgotten(known: set[str], looked_at: set[str], exempt: Iterable[str]) -> set[str]:
    """Tags that nobody looks at."""
    return known - looked_at - set(exempt)
