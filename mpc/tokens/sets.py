"""What the two owners keep between runs of `mpc.tokens`: a key, its tokens, and which row each token belongs to.

A token is the first 11 bytes of F(key, identifier), where F is the function of `mpc.tokens.rfc9497`.  What the owner of the
key has besides, 16 further bytes of each value, is never sent: a side that reports matches shows with a hash of them
that it evaluated the identifiers.

Every set has a sentinel, whose input follows from what the owners agreed on.  Who asks for it and does not find its
token knows that key, agreement or tokens are not what they should be.

All of it can be written as bytes.  The encodings are strict: one for each value, a hash at the end, and everything else
is refused.  Keeping the bytes, and keeping those of a key secret, is the caller's business.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from mpc.errors import LocalProtocolError
from mpc.psi import MAX_ITEMS
from mpc.rng import fresh_key
from mpc.tokens import ristretto
from mpc.tokens.rfc9497 import OUTPUT_BYTES, KeyPair, Mode, derive_key_pair, key_pair
from mpc.tokens.ristretto import ELEMENT_BYTES, SCALAR_BYTES

TOKEN_BYTES = 11
"""88 bits: 40, and 22 for the largest set, and 26 for all identifiers that are asked for in the life of a key."""
SECRET_BYTES = 16
DIGEST_BYTES = 32

_DOMAIN = b"accord-tokens-v1"
_KEY, _SET, _ROWS = b"accord-token-key-1", b"accord-token-set-1", b"accord-token-rows-1"
_SENTINEL, _ITEM = b"\0", b"\1"
_SECRET_AT = OUTPUT_BYTES - SECRET_BYTES

Tokens = npt.NDArray[np.bytes_]  # (n,) of TOKEN_BYTES each; numpy compares them byte by byte
Rows = npt.NDArray[np.int64]
Secrets = npt.NDArray[np.uint8]  # (n, SECRET_BYTES)


@dataclass(frozen=True)
class Agreement:
    """What both owners fix before the first run, and what a key is for.

    purpose: 1 to 255 bytes that name both owners, the data set and its period, so that no key serves two of them.
    verifiable: whether answers are proved to come from the one key.
    """

    purpose: bytes
    verifiable: bool = True

    def __post_init__(self) -> None:
        if not 1 <= len(self.purpose) <= 255:
            raise LocalProtocolError(f"the purpose of a key has 1 to 255 bytes, got {len(self.purpose)}")

    @property
    def mode(self) -> Mode:
        """The function's mode."""
        return Mode.VOPRF if self.verifiable else Mode.OPRF

    def inputs(self, items: Sequence[bytes | None]) -> list[bytes]:
        """The function's inputs, bound to the purpose; None stands for the sentinel."""
        prefix = hashlib.sha512(_DOMAIN + bytes([len(self.purpose)]) + self.purpose)
        result = []
        for item in items:
            hasher = prefix.copy()
            hasher.update(_SENTINEL if item is None else _ITEM + item)
            result.append(hasher.digest())
        return result

    def encode(self) -> bytes:
        """Mode, length and purpose."""
        return bytes([self.mode, len(self.purpose)]) + self.purpose


@dataclass(frozen=True, eq=False)
class ServerKey:
    """A long-lived key of the owner of the larger set; one for each agreement, and so for each partner and data set."""

    agreement: Agreement
    pair: KeyPair

    @classmethod
    def generate(cls, agreement: Agreement) -> ServerKey:
        """A key from the operating system's randomness."""
        return cls(agreement, derive_key_pair(fresh_key(), agreement.purpose, agreement.mode))

    def to_bytes(self) -> bytes:
        """For secret storage."""
        return _sealed(_KEY, self.agreement.encode() + self.pair.secret)

    @classmethod
    def from_bytes(cls, raw: bytes) -> ServerKey:
        """Read what `to_bytes` wrote.

        Raises: ValueError for anything else.
        """
        reader = _Reader(_KEY, raw, "a stored key")
        key = cls(reader.agreement(), key_pair(reader.take(SCALAR_BYTES)))
        reader.end()
        return key


@dataclass(frozen=True, eq=False)
class TokenSet:
    """What the asking owner holds: all tokens of the other one's set, ascending, and the public key they are of."""

    agreement: Agreement
    public: bytes
    tokens: Tokens = field(repr=False)

    def __post_init__(self) -> None:
        if not 1 <= len(self.tokens) <= MAX_ITEMS + 1:
            raise ValueError(f"a token set has 1 to {MAX_ITEMS + 1} tokens, got {len(self.tokens)}")
        if np.any(self.tokens[1:] <= self.tokens[:-1]):
            raise ValueError("tokens out of order, or one twice")

    def __len__(self) -> int:
        return len(self.tokens)

    @cached_property
    def digest(self) -> bytes:
        """32 bytes that tell this set from every other one."""
        return hashlib.sha256(self.to_bytes()).digest()

    def to_bytes(self) -> bytes:
        """For storage; not secret from the two owners, and nobody else's business."""
        size = len(self.tokens).to_bytes(8, "little")
        return _sealed(_SET, self.agreement.encode() + self.public + size + self.tokens.tobytes())

    @classmethod
    def from_bytes(cls, raw: bytes) -> TokenSet:
        """Read what `to_bytes` wrote.

        Raises: ValueError for anything else.
        """
        reader = _Reader(_SET, raw, "a stored token set")
        agreement, public = reader.agreement(), ristretto.decode(reader.take(ELEMENT_BYTES))
        tokens = parse(reader.take(reader.number() * TOKEN_BYTES))
        reader.end()
        return cls(agreement, public, tokens)


@dataclass(frozen=True, eq=False)
class ServerTokens:
    """What the owner of the key keeps beside the token set, in its order.

    rows: the item that each token belongs to, n for the sentinel.  secrets: the bytes of each value that are not sent.
    """

    key: ServerKey = field(repr=False)
    token_set: TokenSet
    rows: Rows = field(repr=False)
    secrets: Secrets = field(repr=False)

    def to_bytes(self) -> bytes:
        """For secret storage, without the key."""
        rows = self.rows.astype("<u4").tobytes()
        return _sealed(_ROWS, self.token_set.digest + rows + self.secrets.tobytes())

    @classmethod
    def from_bytes(cls, raw: bytes, key: ServerKey, token_set: TokenSet) -> ServerTokens:
        """Read what `to_bytes` wrote, for the same key and token set.

        Raises: ValueError for anything else.
        """
        reader, n = _Reader(_ROWS, raw, "a stored list of rows"), len(token_set)
        if reader.take(DIGEST_BYTES) != token_set.digest or key.pair.public != token_set.public:
            raise ValueError("a stored list of rows is of another token set or key")
        rows = np.frombuffer(reader.take(4 * n), dtype="<u4").astype(np.int64)
        secrets = np.frombuffer(reader.take(n * SECRET_BYTES), dtype=np.uint8).reshape(n, SECRET_BYTES)
        reader.end()
        if not np.array_equal(np.sort(rows), np.arange(n)):
            raise ValueError("a stored list of rows does not name every row once")
        return cls(key, token_set, rows, secrets)


def assemble(key: ServerKey, tokens: Tokens, secrets: Secrets, rows: Rows) -> ServerTokens:
    """Put tokens into their order.  rows: which item each one is of."""
    order = np.argsort(tokens, kind="stable")
    ordered = tokens[order]
    if np.any(ordered[1:] == ordered[:-1]):  # below 2^-44 for the largest set
        raise LocalProtocolError("two identifiers have the same token; make the tokens with another key")
    return ServerTokens(key, TokenSet(key.agreement, key.pair.public, ordered), rows[order], secrets[order])


def cut(outputs: bytes) -> tuple[Tokens, Secrets]:
    """Tokens and secrets of values of the function, which stand one behind the other."""
    table = np.frombuffer(outputs, dtype=np.uint8).reshape(-1, OUTPUT_BYTES)
    return parse(table[:, :TOKEN_BYTES].tobytes()), table[:, _SECRET_AT:].copy()


def parse(raw: bytes) -> Tokens:
    """Tokens, one behind the other."""
    tokens: npt.NDArray[Any] = np.frombuffer(raw, dtype=f"S{TOKEN_BYTES}")
    return tokens


def _sealed(magic: bytes, body: bytes) -> bytes:
    return magic + body + _seal(magic, body)


def _seal(magic: bytes, body: bytes) -> bytes:
    return hashlib.sha256(b"accord-tokens-v1-seal" + magic + body).digest()


class _Reader:
    """Takes an encoding apart from front to back, after its hash was found to be right."""

    def __init__(self, magic: bytes, raw: bytes, what: str) -> None:
        body = raw[len(magic) : -DIGEST_BYTES]
        if raw[: len(magic)] != magic or not hmac.compare_digest(_seal(magic, body), raw[-DIGEST_BYTES:]):
            raise ValueError(f"{what} is damaged, or is something else")
        self._left, self._what = body, what

    def take(self, n: int) -> bytes:
        if n > len(self._left):
            raise ValueError(f"{self._what} is too short")
        result, self._left = self._left[:n], self._left[n:]
        return result

    def number(self) -> int:
        return int.from_bytes(self.take(8), "little")

    def agreement(self) -> Agreement:
        mode, length = self.take(2)
        if mode not in (Mode.OPRF, Mode.VOPRF) or not length:
            raise ValueError(f"{self._what} is for no purpose that is known here")
        return Agreement(self.take(length), mode == Mode.VOPRF)

    def end(self) -> None:
        if self._left:
            raise ValueError(f"{self._what} is too long")
