"""Matching by tokens that both owners keep from job to job.

The second owner, the server, keeps a key, the tokens of its identifiers and which row each is of; the first one, the client,
keeps the tokens.  While the server's identifiers are the same, a further job of the same kind makes and sends no tokens: it
costs what the client's identifiers cost.  If they changed, the server makes new tokens under the same key.

What goes together.  Both owners compute one purpose from the job: the owners in their order, the server's data set with
its key columns, how identifiers are normalised, and the calendar year.  It is hashed into every token.  Whatever is found
on disk for another purpose, another key or other identifiers is not used, and neither is a damaged file: then it is made
anew, as in the first job.

Account.  What the server answers cannot be taken back, so it writes down before a run that all queries that it allows were
asked, and after a run that ended well how many really were.  A run that ends before the client has sent more than its
greeting is taken off again, because nothing was answered in it; one that ends badly later counts in full.  The count stands
in one file with the key: whoever loses one of them loses the other, and a new key starts from zero.
"""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from coordinator.envelope import digest
from mpc.channel import Channel
from mpc.errors import ProtocolError, Refused
from mpc.psi import Progress
from mpc.tokens.protocol import MAX_QUERIES, query, serve
from mpc.tokens.roles import Making
from mpc.tokens.sets import Agreement, ServerKey, ServerTokens, TokenSet
from mpc.wire import Kind
from silos.checkpoint_files import SpillError, disk_errors, private_directory, replacing
from silos.spec import Spec
from vertical.align import Rows, Terms

LIFETIME_QUERIES = 1 << 26
"""What one key answers, in all jobs together: for more, tokens of 11 bytes are too short."""

_KEY, _SET, _ROWS = "key", "set", "rows"
_DIGEST_BYTES, _COUNT_BYTES = 32, 8

T = TypeVar("T")
log = logging.getLogger("accord.tokens")


@dataclass(frozen=True, eq=False)
class Account:
    """A key, and how many queries it has answered, those that cannot be ruled out included."""

    key: ServerKey
    spent: int


class KeptTokens:
    """What an owner keeps for the jobs that are like `spec` in all that counts.

    root: the directory for all of them.
    """

    def __init__(self, root: Path, spec: Spec) -> None:
        server = spec.parties[1]
        about = {
            "owners": list(spec.owners),
            "dataset": server.dataset,
            "columns": [list(key) for key in server.keys],
            "keys": [key.model_dump() for key in spec.align.keys],
        }
        self.agreement = Agreement(
            b"accord-kept-tokens-v1 " + bytes.fromhex(digest({**about, "year": spec.created[:4]}))
        )
        self.folder = root / digest(about)[:32]
        self._dataset = server.dataset

    def intersect(
        self, terms: Terms, items: list[bytes], session_id: bytes, channel: Channel, progress: Progress | None
    ) -> Rows:
        """Places of our items that the other owner has too; a `vertical.align.Intersect`.

        Reveals: as `mpc.tokens.protocol.query`.
        Raises: what that and `serve` raise; Refused if the server's key is used up; SpillError if the disk fails.
        """
        with disk_errors(f"{self.folder} cannot be made"):
            private_directory(self.folder.parent)
            private_directory(self.folder)
        return (self._ask if terms.leads else self._answer)(terms, items, session_id, channel, progress)

    def _ask(
        self, terms: Terms, items: list[bytes], session_id: bytes, channel: Channel, progress: Progress | None
    ) -> Rows:
        with self._alone():
            known = self._token_set()
        found, token_set = query(
            items, known or self.agreement, terms.peer, session_id, channel, terms.minimum, progress
        )
        if token_set is not known:
            with self._at_leisure(), self._alone():
                self._write(_SET, token_set.to_bytes())
        return found.rows

    def _answer(
        self, terms: Terms, items: list[bytes], session_id: bytes, channel: Channel, progress: Progress | None
    ) -> Rows:
        content = _content(items)
        with self._alone():
            account = self.account() or Account(ServerKey.generate(self.agreement), 0)
            kept = self._server_tokens(account.key, content)
            limit = min(MAX_QUERIES, LIFETIME_QUERIES - account.spent - 1)  # the sentinel is a query, too
            if limit < 1:
                raise self._used_up(terms.peer)
            self._enter(Account(account.key, account.spent + limit + 1))
        making, heard = Making(items, account.key), _Heard(channel)
        try:
            found = serve(kept or making, terms.peer, session_id, heard, terms.minimum, limit, progress)
        except ProtocolError:
            if heard.messages < 2:  # the first one is a greeting; what is asked comes after it
                with self._at_leisure(), self._alone():
                    self._take_back(account.key, limit + 1)
            raise
        with self._at_leisure(), self._alone():
            if self._take_back(account.key, limit - found.n_peer) and kept is None:
                self._keep(making.finished(), content)
        return found.rows

    def _take_back(self, key: ServerKey, queries: int) -> bool:
        """Take queries that were not asked off the account; False if there is another key meanwhile."""
        latest = self.account()  # other jobs may have come and gone
        if latest is None or latest.key.pair.public != key.pair.public:
            return False
        self._enter(Account(latest.key, latest.spent - queries))
        return True

    def account(self) -> Account | None:
        """The server's key and what it has answered, if there is one for this purpose."""
        raw = self._read(_KEY)
        if raw is None:
            return None
        key = self._parsed(_KEY, ServerKey.from_bytes, raw[_COUNT_BYTES:])
        if key is None or key.agreement != self.agreement:
            return None
        return Account(key, int.from_bytes(raw[:_COUNT_BYTES], "little"))

    def _enter(self, account: Account) -> None:
        self._write(_KEY, account.spent.to_bytes(_COUNT_BYTES, "little") + account.key.to_bytes())

    def _used_up(self, peer: str) -> Refused:
        return Refused(
            f"the key to the kept tokens of data set '{self._dataset}' has answered {peer} as often as a key may; there is "
            f"a new one next year, or when the owner of the data set removes tokens/{self.folder.name} from its silo's home"
        )

    def _token_set(self) -> TokenSet | None:
        raw = self._read(_SET)
        found = None if raw is None else self._parsed(_SET, TokenSet.from_bytes, raw)
        return found if found is not None and found.agreement == self.agreement else None

    def _server_tokens(self, key: ServerKey, content: bytes) -> ServerTokens | None:
        token_set, raw = self._token_set(), self._read(_ROWS)
        if token_set is None or raw is None or token_set.public != key.pair.public:
            return None
        if not hmac.compare_digest(raw[:_DIGEST_BYTES], content):
            return None  # the identifiers changed, or their order
        return self._parsed(_ROWS, lambda rest: ServerTokens.from_bytes(rest, key, token_set), raw[_DIGEST_BYTES:])

    def _keep(self, tokens: ServerTokens, content: bytes) -> None:
        # Rows name the digest of their set: after a crash between the two, the new set and the old rows do not fit.
        self._write(_SET, tokens.token_set.to_bytes())
        self._write(_ROWS, content + tokens.to_bytes())

    # --- files

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """No other job of this silo reads or writes meanwhile; held for files only, never while anybody is waited for."""
        with disk_errors(f"{self.folder / 'lock'} cannot be used"):
            fd = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    @contextmanager
    def _at_leisure(self) -> Iterator[None]:
        """After the run nothing here can make its result wrong, so a disk that fails is only said."""
        try:
            yield
        except SpillError as exc:
            log.warning("tokens are not kept for the next job: %s", exc)

    def _write(self, name: str, body: bytes) -> None:
        with disk_errors(f"{self.folder / name} cannot be written"), replacing(self.folder / name) as file:
            file.write(_seal(name, body))
            file.write(body)

    def _read(self, name: str) -> bytes | None:
        """What was written, or None if there is nothing or it is damaged."""
        with disk_errors(f"{self.folder / name} cannot be read"):
            try:
                raw = (self.folder / name).read_bytes()
            except FileNotFoundError:
                return None
        body = raw[_DIGEST_BYTES:]
        if not hmac.compare_digest(raw[:_DIGEST_BYTES], _seal(name, body)):
            self._damaged(name)
            return None
        return body

    def _parsed(self, name: str, parse: Callable[[bytes], T], raw: bytes) -> T | None:
        try:
            return parse(raw)
        except ValueError:
            self._damaged(name)
            return None

    def _damaged(self, name: str) -> None:
        log.warning("%s is damaged, or does not fit the files beside it; it is made anew", self.folder / name)


class _Heard:
    """A channel that counts the messages that arrive."""

    def __init__(self, channel: Channel) -> None:
        self._channel, self.messages = channel, 0

    def send(self, to: str, tag: str, kind: Kind, body: bytes | bytearray | memoryview) -> None:
        self._channel.send(to, tag, kind, body)

    def recv(self, frm: str, tag: str, kind: Kind, *, exact: int | None = None, limit: int | None = None) -> bytearray:
        body = self._channel.recv(frm, tag, kind, exact=exact, limit=limit)
        self.messages += 1
        return body


def _content(items: Sequence[bytes]) -> bytes:
    """What tells these identifiers, in this order, from all others."""
    hasher = hashlib.sha256(b"accord-kept-items-v1" + len(items).to_bytes(8, "little"))
    for item in items:
        hasher.update(len(item).to_bytes(4, "little") + item)
    return hasher.digest()


def _seal(name: str, body: bytes) -> bytes:
    """Notices what a disk does to a file; it is no signature."""
    return hashlib.sha256(b"accord-kept-" + name.encode() + b"-v1\n" + body).digest()
