"""The variant of `mpc.matching.oprf` for parties that may not follow the protocol.

What the receiver masks is checked before the sender uses any of it: `mpc.matching.wide_vole` for the trees,
`mpc.matching.consistency` for the columns.  docs/protocols/oprf.md has the argument.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from mpc.errors import LocalProtocolError, RemoteProtocolError
from mpc.matching import consistency, wide_vole
from mpc.matching import wide_code as code
from mpc.matching.consistency import ANSWER_BYTES, CHALLENGE_BYTES
from mpc.matching.parameters import SQUARE, TILE
from mpc.matching.variant import MASKED, Asking, Held, Link, Serving, Variant
from mpc.matching.vole import Choice
from mpc.matching.wide_vole import SHAPE, TREES_BYTES, Columns, Masker, Unmasker, masked_columns
from mpc.rng import Prg, fresh_prg
from mpc.wire import Kind, recv_words, send_words

Words = npt.NDArray[Any]
NONCE_BYTES = 32
_CHALLENGE, _ANSWER = "matching/challenge", "matching/answer"


def _step(link: Link) -> int:
    """Columns in a message."""
    return -(-link.chunk_tiles * TILE // SQUARE) * SQUARE


class _Asking:
    def __init__(self, link: Link, masker: Masker) -> None:
        self._link, self._masker = link, masker

    def mask(self, solved: Words) -> Held:
        """Send the masked columns, and show that they are codewords; only then is the sender's challenge known."""
        channel, peer, held = self._link.channel, self._link.peer, Columns.of(len(solved))
        step = _step(self._link)
        for at in range(0, len(solved), step):
            d, v, spare = self._masker.mask(solved[at : at + step])
            held.put(at, v, spare)
            send_words(channel, peer, MASKED, d)
            self._link.report(len(v))
        challenge = bytes(channel.recv(peer, _CHALLENGE, Kind.BYTES, exact=CHALLENGE_BYTES))
        channel.send(peer, _ANSWER, Kind.BYTES, consistency.answer(challenge, held, solved))
        return held


class _Serving:
    def __init__(self, link: Link, unmasker: Unmasker) -> None:
        self._link, self._unmasker, self._trusted = link, unmasker, True

    def unmask(self, n_columns: int) -> Held:
        """Receive the masked columns, and return only if they are codewords."""
        if not self._trusted:
            raise LocalProtocolError("a batch of this function was refused before, and its keys are not used again")
        self._trusted = False
        channel, peer, n_masked = self._link.channel, self._link.peer, masked_columns(n_columns)
        held = Columns.of(n_masked)
        step = _step(self._link)
        for at in range(0, n_masked, step):
            squares = min(step, n_masked - at) // SQUARE
            d = recv_words(channel, peer, MASKED, (squares, code.LENGTH, code.SYMBOL_BITS, 8), np.uint64)
            held.put(at, *self._unmasker.unmask(d))
            self._link.report(SQUARE * squares)
        challenge = fresh_prg().words(CHALLENGE_BYTES, np.uint8).tobytes()
        channel.send(peer, _CHALLENGE, Kind.BYTES, challenge)
        reply = bytes(channel.recv(peer, _ANSWER, Kind.BYTES, exact=ANSWER_BYTES))
        if not consistency.passes(challenge, held, self._unmasker, reply):
            raise RemoteProtocolError(peer, _ANSWER, "what it masked is not made of codewords")
        self._trusted = True
        return held

    def add_code(self, values: Words, messages: Words) -> None:
        self._unmasker.add_code(values, messages)


def _asking(link: Link, session: bytes, scalar: X25519PrivateKey, points: bytes, noise: Prg) -> tuple[Asking, bytes]:
    masker, message = wide_vole.grow(session, scalar, points, noise)
    return _Asking(link, masker), message


def _serving(link: Link, session: bytes, choice: Choice, message: bytes) -> Serving:
    return _Serving(link, wide_vole.unmasker(choice, session, message))


MALICIOUS = Variant(SHAPE, TREES_BYTES, code.MESSAGE_WORDS, NONCE_BYTES, masked_columns, _asking, _serving)
