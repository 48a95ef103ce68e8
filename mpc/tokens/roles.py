"""Both roles of `mpc.tokens`, from the first message to the last, and how a set's tokens are made.

In the letters of RFC 9497: the client has C_i = b_i H(x_i), the server answers D_i = k C_i, and F is a hash of the input
and of D_i / b_i = k H(x_i).
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mpc.channel import Channel
from mpc.errors import LocalProtocolError, Refused, RemoteProtocolError
from mpc.psi import MAX_ITEMS, Alignment, Progress
from mpc.rng import fresh_prg
from mpc.tokens import rfc9497, ristretto
from mpc.tokens.rfc9497 import PROOF_BYTES
from mpc.tokens.ristretto import ELEMENT_BYTES
from mpc.tokens.sets import (
    DIGEST_BYTES,
    TOKEN_BYTES,
    Agreement,
    Rows,
    Secrets,
    ServerKey,
    ServerTokens,
    Tokens,
    TokenSet,
    assemble,
    cut,
    parse,
)
from mpc.wire import Kind

CHUNK_ITEMS, CHUNK_TOKENS = 1024, 8192
"""Elements and tokens in a message: work and transfer overlap, and no side is silent for long."""
NO_SET = bytes(DIGEST_BYTES)

_HELLO, _KEY, _SET, _BLINDED = "tokens/hello", "tokens/key", "tokens/set", "tokens/blinded"
_EVALUATED, _VOTE, _ROWS = "tokens/evaluated", "tokens/vote", "tokens/rows"
_STOP, _OK = 0, 1
_NONCE_BYTES, _SHOWN_BYTES = 32, 16
_HELLO_BYTES, _KEY_BYTES = 8 + 1 + _NONCE_BYTES + DIGEST_BYTES, 1 + ELEMENT_BYTES + 8
_FREE = 0xFFFFFFFF

Places = npt.NDArray[Any]


def check_items(items: Sequence[bytes], most: int) -> None:
    """Refuse more items than `most`, and repeated ones."""
    if len(items) > most:
        raise LocalProtocolError(f"at most {most} identifiers can be matched this way, got {len(items)}")
    repeated = len(items) - len(set(items))
    if repeated:
        raise LocalProtocolError(f"identifiers to be matched are distinct, got {repeated} repeated ones")


@dataclass
class Run:
    """One run: whom we talk to, what was announced, and how far we are."""

    channel: Channel
    peer: str
    session_id: bytes
    client: bool
    minimum: int
    n_own: int
    progress: Progress | None
    digest: bytes = NO_SET
    n_peer: int = 0
    peer_digest: bytes = NO_SET
    hellos: bytes = b""
    done: int = 0
    total: int = 0

    def check(self, items: Sequence[bytes], most: int) -> None:
        """Refuse unusable arguments before anything is sent."""
        check_items(items, most)
        if not 1 <= len(self.session_id) <= 255:
            raise LocalProtocolError(f"a session id has 1 to 255 bytes, got {len(self.session_id)}")
        if self.minimum < 0:
            raise LocalProtocolError(f"the minimum number of matches is not negative, got {self.minimum}")

    @property
    def n_asked(self) -> int:
        """Elements that the client sends: one for each of its identifiers, and one for the sentinel."""
        return (self.n_own if self.client else self.n_peer) + 1

    @property
    def n_tokens(self) -> int:
        return (self.n_peer if self.client else self.n_own) + 1

    @property
    def n_listed(self) -> int:
        """Length of the list of matches, which must not depend on their number."""
        return min(self.n_asked, self.n_tokens)

    @property
    def held(self) -> bool:
        """Whether the client has the server's tokens."""
        return self.digest == self.peer_digest != NO_SET

    def announce(self, key: bytes = b"") -> None:
        """Exchange sizes, roles, nonces and what is held; the server sends its public key at once."""
        nonce = fresh_prg().words(_NONCE_BYTES, np.uint8).tobytes()
        hello = self.n_own.to_bytes(8, "little") + bytes([self.client]) + nonce + self.digest
        self.send(_HELLO, hello)
        if key:
            self.send(_KEY, key)
        answer = self.recv(_HELLO, _HELLO_BYTES)
        self.n_peer, role = int.from_bytes(answer[:8], "little"), answer[8]
        if self.n_peer > MAX_ITEMS:
            raise self.wrong(_HELLO, f"expected at most {MAX_ITEMS} identifiers, got {self.n_peer}")
        if role != (not self.client):
            raise self.wrong(_HELLO, f"expected leader={int(not self.client)}, got {role}")
        self.peer_digest = answer[-DIGEST_BYTES:]
        self.hellos = hello + answer if self.client else answer + hello

    def proof(self, token_set: TokenSet, secrets: Secrets) -> bytes:
        """A hash that only who has the values behind the matched tokens can compute, in this run."""
        known = bytes([len(self.session_id)]) + self.session_id + self.hellos + token_set.digest
        return hashlib.sha256(b"accord-tokens-v1-proof" + known + secrets.tobytes()).digest()[:_SHOWN_BYTES]

    def report(self, n: int) -> None:
        """So many more identifiers are done."""
        self.done += n
        if self.progress is not None and n:
            self.progress(self.done, self.total)

    def send(self, tag: str, body: bytes) -> None:
        self.channel.send(self.peer, tag, Kind.BYTES, body)

    def recv(self, tag: str, exact: int) -> bytes:
        return bytes(self.channel.recv(self.peer, tag, Kind.BYTES, exact=exact))

    def wrong(self, tag: str, why: str) -> RemoteProtocolError:
        return RemoteProtocolError(self.peer, tag, why)

    def too_few(self) -> Refused:
        return Refused(f"fewer matches with {self.peer} than our own minimum of {self.minimum}")

    def expect_yes(self, vote: bytes) -> None:
        if vote[0] not in (_OK, _STOP):
            raise self.wrong(_VOTE, "neither yes nor no")
        if vote[0] == _STOP:
            raise Refused(f"fewer matches than the minimum set by {self.peer}")


# --- the client


def ask(run: Run, items: Sequence[bytes], known: Agreement | TokenSet) -> tuple[Alignment, TokenSet]:
    """The client's part: `mpc.tokens.query`."""
    run.total = 2 * (run.n_own + 1)
    run.announce()
    agreement = known if isinstance(known, Agreement) else known.agreement
    asking = _Asking(run, agreement, _receive_key(run, agreement), agreement.inputs([*items, None]))
    asking.send()  # so that the server has work while it sends
    token_set = known if run.held and isinstance(known, TokenSet) else _receive_set(run, agreement, asking.public)
    if token_set.public != asking.public or len(token_set) != run.n_tokens:
        raise run.wrong(_KEY, "another key or size than the token set has")
    tokens, secrets = cut(asking.outputs())
    found = np.minimum(np.searchsorted(token_set.tokens, tokens), len(token_set) - 1)
    rows = np.flatnonzero(token_set.tokens[found] == tokens)
    rows = rows[np.argsort(found[rows])]
    aligned = _tell(run, token_set, rows, found[rows], secrets[rows])
    return Alignment(aligned, run.n_own, run.n_peer), token_set


def _receive_key(run: Run, agreement: Agreement) -> bytes:
    body = run.recv(_KEY, _KEY_BYTES)
    mode, public, limit = body[0], body[1 : 1 + ELEMENT_BYTES], int.from_bytes(body[1 + ELEMENT_BYTES :], "little")
    if mode != agreement.mode:
        raise run.wrong(_KEY, f"expected a key for mode {int(agreement.mode)}, got {mode}")
    try:
        ristretto.decode(public)
    except ValueError as exc:
        raise run.wrong(_KEY, f"a key that cannot be used: {exc}") from exc
    if run.n_own > limit:
        raise Refused(f"{run.peer} answers at most {limit} identifiers in a run, we have {run.n_own}")
    return public


def _receive_set(run: Run, agreement: Agreement, public: bytes) -> TokenSet:
    parts = [
        run.recv(_SET, TOKEN_BYTES * min(CHUNK_TOKENS, run.n_tokens - start))
        for start in range(0, run.n_tokens, CHUNK_TOKENS)
    ]
    try:
        token_set = TokenSet(agreement, public, np.sort(parse(b"".join(parts))))
    except ValueError as exc:
        raise run.wrong(_SET, "the same token twice") from exc
    if run.peer_digest not in (NO_SET, token_set.digest):
        raise run.wrong(_SET, "not the token set that it announced, for what was agreed on")
    return token_set


class _Asking:
    """The client's elements on their way: one message is always ahead, so that the server need not wait."""

    def __init__(self, run: Run, agreement: Agreement, public: bytes, inputs: list[bytes]) -> None:
        self.public = public
        self._run, self._agreement, self._inputs = run, agreement, inputs
        self._prg, self._sent = fresh_prg(), 0
        self._waiting: list[tuple[list[bytes], list[bytes], list[bytes]]] = []

    def send(self) -> None:
        """Blind and send the next inputs, if there are any."""
        inputs = self._inputs[self._sent : self._sent + CHUNK_ITEMS]
        if not inputs:
            return
        mode = self._agreement.mode
        scalars = [ristretto.random_scalar(self._prg) for _ in inputs]
        pairs = list(zip(inputs, scalars, strict=True))
        blinded = ristretto.on_all(lambda pair: rfc9497.blind(*pair, mode), pairs)
        self._run.send(_BLINDED, b"".join(blinded))
        self._sent += len(inputs)
        self._waiting.append((inputs, scalars, blinded))
        self._run.report(len(inputs))

    def outputs(self) -> bytes:
        """The function's values of all inputs, one behind the other."""
        parts = []
        while self._waiting:
            self.send()
            parts += self._receive(*self._waiting.pop(0))
        return b"".join(parts)

    def _receive(self, inputs: list[bytes], scalars: list[bytes], blinded: list[bytes]) -> list[bytes]:
        size = len(inputs) * ELEMENT_BYTES
        body = self._run.recv(_EVALUATED, size + PROOF_BYTES * self._agreement.verifiable)
        evaluated = elements(self._run, _EVALUATED, body[:size])
        if self._agreement.verifiable:
            try:
                rfc9497.verify(self.public, blinded, evaluated, body[size:])
            except ValueError as exc:
                raise self._run.wrong(_EVALUATED, "answers that are not proved to be of its key") from exc
        triples = list(zip(inputs, scalars, evaluated, strict=True))
        result = ristretto.on_all(lambda triple: rfc9497.finalize(*triple), triples)
        self._run.report(len(inputs))
        return result


def elements(run: Run, tag: str, body: bytes) -> list[bytes]:
    """The elements of a message, decoded."""
    try:
        return [ristretto.decode(raw) for raw in rfc9497.split(body)]
    except ValueError as exc:
        raise run.wrong(tag, f"an element that cannot be used: {exc}") from exc


def _tell(run: Run, token_set: TokenSet, rows: Rows, places: Places, secrets: Secrets) -> Rows:
    """Vote, and if both sides go on tell the server which tokens matched; returns our rows without the sentinel."""
    real = rows < run.n_own
    matches = int(np.count_nonzero(real))
    if len(rows) != matches + 1:
        raise run.wrong(_EVALUATED, "no token of the identifier that both sides have")
    enough = matches >= run.minimum
    run.send(_VOTE, bytes([_OK if enough else _STOP]) + (matches if enough else 0).to_bytes(8, "little"))
    if not enough:
        raise run.too_few()
    run.expect_yes(run.recv(_VOTE, 1))
    listed = np.full(run.n_listed, _FREE, dtype="<u4")
    listed[: len(places)] = places
    run.send(_ROWS, listed.tobytes() + run.proof(token_set, secrets))
    return rows[real]


# --- the server


class Making:
    """Tokens of a set that are being made, in an order that says nothing about rows."""

    def __init__(self, items: Sequence[bytes], key: ServerKey) -> None:
        self.key, self.items = key, items
        # Two equal numbers of 128 bits do not occur.
        self._order: Rows = np.lexsort(fresh_prg().words((2, len(items) + 1))).astype(np.int64)
        self._made: list[tuple[Tokens, Secrets]] = []

    def chunks(self) -> Iterator[Tokens]:
        """The tokens, as they are made."""
        secret, agreement, n = self.key.pair.secret, self.key.agreement, len(self.items)
        for start in range(0, n + 1, CHUNK_TOKENS):
            rows = self._order[start : start + CHUNK_TOKENS].tolist()
            inputs = agreement.inputs([self.items[row] if row < n else None for row in rows])
            outputs = ristretto.on_all(lambda message: rfc9497.evaluate(secret, message, agreement.mode), inputs)
            self._made.append(cut(b"".join(outputs)))
            yield self._made[-1][0]

    def finished(self) -> ServerTokens:
        """All of them in order."""
        tokens, secrets = (np.concatenate(parts) for parts in zip(*self._made, strict=True))
        return assemble(self.key, tokens, secrets, self._order)


def answer(run: Run, source: ServerTokens | Making, limit: int) -> Alignment:
    """The server's part: `mpc.tokens.serve`."""
    pair, agreement = source.key.pair, source.key.agreement
    run.announce(bytes([agreement.mode]) + pair.public + limit.to_bytes(8, "little"))
    if run.n_peer > limit:
        raise Refused(f"{run.peer} asks for {run.n_peer} identifiers, at most {limit} are answered in a run")
    run.total = run.n_asked
    tokens = _send_made(run, source) if isinstance(source, Making) else _send_kept(run, source)
    prg = fresh_prg()
    for start in range(0, run.n_asked, CHUNK_ITEMS):
        n = min(CHUNK_ITEMS, run.n_asked - start)
        blinded = elements(run, _BLINDED, run.recv(_BLINDED, n * ELEMENT_BYTES))
        evaluated = rfc9497.blind_evaluate(pair.secret, blinded)
        proof = rfc9497.prove(pair, blinded, evaluated, prg) if agreement.verifiable else b""
        run.send(_EVALUATED, b"".join(evaluated) + proof)
        run.report(n)
    return Alignment(_hear(run, tokens, _answer_vote(run)), run.n_own, run.n_peer)


def _send_made(run: Run, making: Making) -> ServerTokens:
    run.total += run.n_tokens
    for tokens in making.chunks():
        run.send(_SET, tokens.tobytes())
        run.report(len(tokens))
    return making.finished()


def _send_kept(run: Run, kept: ServerTokens) -> ServerTokens:
    if not run.held:
        for start in range(0, run.n_tokens, CHUNK_TOKENS):
            run.send(_SET, kept.token_set.tokens[start : start + CHUNK_TOKENS].tobytes())
    return kept


def _answer_vote(run: Run) -> int:
    """Hear how many matches there are, and say whether that is enough."""
    vote = run.recv(_VOTE, 9)
    run.expect_yes(vote)
    matches = int.from_bytes(vote[1:], "little")
    if matches > min(run.n_own, run.n_peer):
        raise run.wrong(_VOTE, "more matches than identifiers")
    enough = matches >= run.minimum
    run.send(_VOTE, bytes([_OK if enough else _STOP]))
    if not enough:
        raise run.too_few()
    return matches


def _hear(run: Run, tokens: ServerTokens, matches: int) -> Rows:
    """Our matched rows, once the client has shown that it evaluated them."""
    body = run.recv(_ROWS, 4 * run.n_listed + _SHOWN_BYTES)
    listed = np.frombuffer(body, dtype="<u4", count=run.n_listed).astype(np.int64)
    places, rest = listed[: matches + 1], listed[matches + 1 :]
    if np.any(rest != _FREE) or np.any(places[1:] <= places[:-1]) or places[-1] >= run.n_tokens:
        raise run.wrong(_ROWS, "not as many tokens as it counted, each once and in their order")
    if not hmac.compare_digest(run.proof(tokens.token_set, tokens.secrets[places]), body[-_SHOWN_BYTES:]):
        raise run.wrong(_ROWS, "matches that it cannot have found")
    rows = tokens.rows[places]
    real = rows < run.n_own
    if int(np.count_nonzero(real)) != matches:
        raise run.wrong(_ROWS, "other matches than it counted")
    return rows[real]
