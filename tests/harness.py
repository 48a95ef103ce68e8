"""Run every party of a protocol in one process, deterministically, and see every message.

Each party is a function of its channel.  It gets a thread of its own for its whole life, so thread-local state works,
but only the holder of the baton runs.  A party gives the baton away when it waits for a message that is not there, or
ends; the next one in the order of `parties` that can go on gets it.  Two runs of the same functions therefore
interleave in the same way.

The checks are those of a real link: wrong tag, wrong kind or wrong size is a RemoteProtocolError naming the sender.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from mpc.channel import Channel
from mpc.errors import LocalProtocolError, PeerLost, RemoteProtocolError
from mpc.wire import Kind


@dataclass(frozen=True)
class Message:
    """One message as its sender sent it; `dataclasses.replace` makes a tampered copy."""

    sender: str
    receiver: str
    tag: str
    kind: Kind
    body: bytes

    @property
    def size(self) -> int:
        """Length of the body in bytes."""
        return len(self.body)


Party = Callable[[Channel], Any]
Tamper = Callable[[Message], Message | list[Message] | None]


class Run(Mapping[str, Any]):
    """What happened: maps each party that ended well to its result; `transcript` is in the order of sending.

    errors: what each other party raised, in the order of raising; the first is the cause, the rest are consequences.
    """

    def __init__(self) -> None:
        self.results: dict[str, Any] = {}
        self.errors: dict[str, BaseException] = {}
        self.transcript: list[Message] = []

    def __getitem__(self, name: str) -> Any:
        return self.results[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.results)

    def __len__(self) -> int:
        return len(self.results)

    def bytes_sent(self, sender: str, receiver: str | None = None) -> int:
        """Bytes of the bodies `sender` sent, to everybody or to one receiver."""
        return sum(m.size for m in self.transcript if m.sender == sender and receiver in (None, m.receiver))

    def shape(self) -> list[tuple[str, str, str, Kind, int]]:
        """The transcript without its contents: (sender, receiver, tag, kind, size) of each message."""
        return [(m.sender, m.receiver, m.tag, m.kind, m.size) for m in self.transcript]


def run_parties(parties: Mapping[str, Party], *, tamper: Tamper | None = None) -> Run:
    """Run all parties to their end and return their results and the transcript.

    tamper: sees each message on its way and returns what arrives instead: a message, None (lost), or several.

    Raises: the first exception a party raised; its attribute `others` maps the other parties to what they raised.
    AssertionError "deadlock: ..." when every unfinished party waits, and when messages nobody read are left over.
    Where `tamper` swallowed a message, waiting for ever ends in PeerLost instead, as a bounded wait would.
    """
    run = try_parties(parties, tamper=tamper)
    for name, first in run.errors.items():
        first.add_note(f"raised by party '{name}'")
        first.others = {n: e for n, e in run.errors.items() if n != name}  # type: ignore[attr-defined]
        raise first
    return run


def try_parties(parties: Mapping[str, Party], *, tamper: Tamper | None = None) -> Run:
    """Like `run_parties`, but what parties raise is left in `Run.errors`, for tests that look at the transcript too."""
    stage = _Stage(list(parties), tamper)
    threads = [
        threading.Thread(target=stage.play, args=(name, fn), name=f"party-{name}", daemon=True)
        for name, fn in parties.items()
    ]
    for thread in threads:
        thread.start()
    if threads:
        stage.start()
    for thread in threads:
        thread.join()
    stage.check_end()
    return stage.run


class _Abandoned(BaseException):
    """Unwinds a party that can never go on; nobody outside sees it."""


class _Stage:
    """The parties, the messages between them and the baton.  Only the holder of the baton touches the state."""

    def __init__(self, names: list[str], tamper: Tamper | None) -> None:
        self.names, self.tamper, self.run = names, tamper, Run()
        self.queues = {(a, b): deque[Message]() for a in names for b in names if a != b}
        self.baton = {name: threading.Semaphore(0) for name in names}
        self.waiting: dict[str, tuple[str, str]] = {}
        self.verdict: dict[str, BaseException] = {}
        self.ready = set(names)
        self.ended: set[str] = set()
        self.swallowed = False
        self.deadlock = ""

    def start(self) -> None:
        self._hand_over(self.names[-1])

    def play(self, name: str, fn: Party) -> None:
        """One party's life, in its own thread."""
        self.baton[name].acquire()
        self.ready.discard(name)
        try:
            self.run.results[name] = fn(_MemoryChannel(self, name))
        except _Abandoned:
            pass
        except BaseException as exc:
            self.run.errors[name] = exc
        self.ended.add(name)
        self._hand_over(name)

    def send(self, message: Message) -> None:
        self.run.transcript.append(message)
        arrived = message if self.tamper is None else self.tamper(message)
        if arrived is None:
            self.swallowed = True
            return
        for one in arrived if isinstance(arrived, list) else [arrived]:
            self.queues[one.sender, one.receiver].append(one)

    def next_message(self, me: str, frm: str, tag: str) -> Message:
        queue = self.queues[frm, me]
        if not queue:
            self.waiting[me] = (frm, tag)
            self._hand_over(me)
            self.baton[me].acquire()
            del self.waiting[me]
            if me in self.verdict:
                raise self.verdict.pop(me)
        return queue.popleft()

    def check_end(self) -> None:
        if self.deadlock and not self.run.errors:
            raise AssertionError(self.deadlock)
        left = [f"{a} to {b} '{m.tag}'" for (a, b), queue in self.queues.items() for m in queue]
        if left and not self.run.errors and self.tamper is None:
            raise AssertionError(f"messages nobody read: {'; '.join(left)}")

    def _hand_over(self, me: str) -> None:
        at = self.names.index(me) + 1
        order = self.names[at:] + self.names[:at]
        chosen = next((name for name in order if self._can_go_on(name)), None)
        if chosen is None:
            chosen = next((name for name in order if name in self.waiting), None)
            if chosen is None:
                return
            self.verdict[chosen] = self._stalemate(chosen)
        self.baton[chosen].release()

    def _can_go_on(self, name: str) -> bool:
        if name in self.ready:
            return True
        if name not in self.waiting:
            return False
        frm, tag = self.waiting[name]
        if self.queues[frm, name]:
            return True
        if frm in self.run.errors:
            self.verdict[name] = PeerLost(frm, tag)
            return True
        return False

    def _stalemate(self, name: str) -> BaseException:
        """Every unfinished party waits: what `name`, one of them, is told."""
        frm, tag = self.waiting[name]
        if self.run.errors:
            gone = frm if frm in self.ended else next(iter(self.run.errors))
            return PeerLost(gone, tag)
        if self.swallowed:
            return PeerLost(frm, tag, "no message in time")
        if not self.deadlock:
            waits = [
                f"{w} waits for {f} '{t}'" + (f" ({f} has ended)" if f in self.ended else "")
                for w, (f, t) in sorted(self.waiting.items())
            ]
            self.deadlock = f"deadlock: {'; '.join(waits)}"
        return _Abandoned()


class _MemoryChannel:
    """One party's end of the links, with a real link's checks."""

    def __init__(self, stage: _Stage, me: str) -> None:
        self._stage, self._me = stage, me

    def send(self, to: str, tag: str, kind: Kind, body: bytes | bytearray | memoryview) -> None:
        self._check(to, tag)
        self._stage.send(Message(self._me, to, tag, Kind(kind), bytes(body)))

    def recv(self, frm: str, tag: str, kind: Kind, *, exact: int | None = None, limit: int | None = None) -> bytearray:
        self._check(frm, tag)
        if (exact is None) == (limit is None):
            raise LocalProtocolError(f"receiving '{tag}' needs either an exact size or a limit")
        message = self._stage.next_message(self._me, frm, tag)
        if message.tag != tag:
            raise RemoteProtocolError(frm, tag, f"expected '{tag}', got '{message.tag}'")
        if message.kind != kind:
            raise RemoteProtocolError(frm, tag, f"expected {kind.name}, got {message.kind.name}")
        if exact is not None and message.size != exact:
            raise RemoteProtocolError(frm, tag, f"expected {exact} bytes, got {message.size}")
        if limit is not None and message.size > limit:
            raise RemoteProtocolError(frm, tag, f"expected at most {limit} bytes, got {message.size}")
        return bytearray(message.body)

    def _check(self, peer: str, tag: str) -> None:
        if peer == self._me or peer not in self._stage.names:
            raise LocalProtocolError(f"{self._me} has no link to '{peer}'")
        if not (1 <= len(tag) <= 64 and tag.isascii()):
            raise LocalProtocolError("a tag has 1 to 64 ASCII characters")
