"""Private set intersection of a small set with a large one that is asked often: an oblivious function and kept tokens.

The owner of the larger set, the server, has a key k and gives away tokens of its identifiers y: cut values of F(k, y).
The other one, the client, sends its identifiers x blinded, gets them back times k, and has F(k, x).  Equal tokens are equal
identifiers.  The tokens can be used again: who holds them only sends and receives something for its own identifiers,
so a second run takes the time of the small set.

`intersect` has a fresh key and forgets everything.  `query` and `serve` use what `mpc.tokens.sets` keeps.
"""

from __future__ import annotations

from collections.abc import Sequence

from mpc.channel import Channel
from mpc.errors import LocalProtocolError
from mpc.psi import MAX_ITEMS, Alignment, Progress
from mpc.tokens.reveals import REVEALS
from mpc.tokens.roles import NO_SET, Making, Run, answer, ask, check_items
from mpc.tokens.sets import Agreement, ServerKey, ServerTokens, TokenSet

__all__ = ["MAX_QUERIES", "REVEALS", "intersect", "prepare", "query", "serve"]

MAX_QUERIES = 1 << 16
"""Identifiers that a server lets one run ask for, unless its owner says otherwise."""


def intersect(
    items: Sequence[bytes],
    peer: str,
    session_id: bytes,
    channel: Channel,
    minimum: int,
    leader: bool,
    progress: Progress | None = None,
) -> Alignment:
    """Find which of our `items` the peer also holds; the peer learns the same about its own.

    items: n distinct identifiers, already normalised, in any order.  session_id: 1 to 255 bytes that both sides share
    and no other run has.  minimum: the fewest matches we accept.  leader: true at exactly one of the two sides, which
    becomes the client; it should have the smaller set, of at most MAX_QUERIES.  progress: called with (done, total).

    Reveals: to both, the two set sizes; to the client, the matches before the minimum is checked; to the server, their
    number if the client's minimum allows, and which of its own items they are if its own does too.
    Cost: 4 rounds, of 6 messages that wait for each other.  With n identifiers at the client and m at the server: the client
    sends 98 + 32 (n + 1) + 4 (min(n, m) + 1) bytes, the server 115 + 11 (m + 1) + 32 (n + 1) + 64 ceil((n + 1) / 1024).
    Products: 4 (n + 1) at the client, 2 (n + 1) + m + 1 at the server, and 4 and 3 for each proof.  No triples.
    Security: semi-honest; one-more gap Diffie-Hellman in ristretto255, SHA-512 and SHA-256 as random oracles; that all
    answers are of one key is proved, also by a server that lies.  Sides can lie about their sets.
    Source: Jarecki, Liu, TCC 2009; Kiss et al., PETS 2017 (kept tokens); RFC 9497 (function and proof).
    Raises: LocalProtocolError for unusable arguments; RemoteProtocolError if the peer announces too many identifiers or
    our own role, sends anything malformed, an answer that is not proved, a token twice, tokens without the sentinel, or
    matches it cannot have found; Refused, at both sides, if either finds fewer matches than its minimum, and at the
    server if it is asked for more than MAX_QUERIES.
    """
    most = MAX_QUERIES if leader else MAX_ITEMS
    run = Run(channel, peer, session_id, leader, minimum, len(items), progress)
    run.check(items, most)
    agreement = Agreement(session_id)
    if leader:
        return ask(run, items, agreement)[0]
    return answer(run, Making(items, ServerKey.generate(agreement)), MAX_QUERIES)


def prepare(items: Sequence[bytes], key: ServerKey, progress: Progress | None = None) -> ServerTokens:
    """Make the tokens of a set, for many runs.  items: m distinct identifiers, already normalised; m + 1 products.

    Raises: LocalProtocolError for repeated or too many identifiers.
    """
    check_items(items, MAX_ITEMS)
    making, done = Making(items, key), 0
    for tokens in making.chunks():
        done += len(tokens)
        if progress is not None:
            progress(done, len(items) + 1)
    return making.finished()


def query(
    items: Sequence[bytes],
    known: Agreement | TokenSet,
    peer: str,
    session_id: bytes,
    channel: Channel,
    minimum: int,
    progress: Progress | None = None,
) -> tuple[Alignment, TokenSet]:
    """Ask `peer`, which runs `serve`, which of our `items` it holds.  Returns the matches, and its tokens to be kept.

    known: the token set that a run before returned, or what was agreed on before the first one.  If the server has made
    another set since, it is sent and returned.  The other arguments are those of `intersect` at the leader.

    Reveals: what `intersect` does; besides, to us, how the server's set changed since the set that we hold, in tokens
    that we cannot read unless we ask for them; to the server, whether we hold its present set.
    Cost: 4 rounds, of 6 messages that wait for each other.  Bytes are those of `intersect`, without 11 (m + 1) if our token
    set is the present one.  Products: 4 (n + 1) here and 2 (n + 1) at the server, half if no proofs were agreed on.
    Security: as for `intersect`.  All runs with a key together must not ask for more than 2^26 identifiers, for false
    matches to stay below 2^-40; each asked element also weakens the key a little, see docs/protocols/tokens.md.
    Source: as for `intersect`.
    Raises: what `intersect` does; Refused if we have more items than the server lets one run ask for.
    """
    digest = NO_SET if isinstance(known, Agreement) else known.digest
    run = Run(channel, peer, session_id, True, minimum, len(items), progress, digest)
    run.check(items, MAX_ITEMS)
    return ask(run, items, known)


def serve(
    tokens: ServerTokens | Making,
    peer: str,
    session_id: bytes,
    channel: Channel,
    minimum: int,
    limit: int = MAX_QUERIES,
    progress: Progress | None = None,
) -> Alignment:
    """Answer one `query` of `peer`, and learn which of the prepared items matched.

    tokens: from `prepare`; or a `Making` of the set, which sends tokens as it makes them, so that the peer is not left
    waiting, and afterwards has all to be kept in `finished()`.  limit: the most identifiers that this run may ask for.
    What all runs of a key ask for is the caller's to count: `limit` before the run, because a peer that votes no or falls
    silent has its answers too, and the result's `n_peer` in its place after a run that ended well.

    Reveals: as `query` does.
    Cost: as for `query`.
    Security: as for `query`; a client that lies can ask for `limit` guesses.
    Source: as for `intersect`.
    Raises: what `intersect` does; Refused if the peer has more identifiers than `limit`.
    """
    items, n_own, digest = (
        (tokens.items, len(tokens.items), NO_SET)
        if isinstance(tokens, Making)
        else ((), len(tokens.token_set) - 1, tokens.token_set.digest)
    )
    run = Run(channel, peer, session_id, False, minimum, n_own, progress, digest)
    if not 0 <= limit <= MAX_ITEMS:
        raise LocalProtocolError(f"a limit is 0 to {MAX_ITEMS} identifiers, got {limit}")
    run.check(items, MAX_ITEMS)
    return answer(run, tokens, limit)
