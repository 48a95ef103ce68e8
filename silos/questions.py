"""Where the recipient of an online scoring job is asked for single rows: a socket in the job's folder, and who connects to it.

One line of JSON is one question, `{"key": ["ann@example.org"]}` with the values of the columns of the job's first key, or
`{"end": true}`, which ends the job for everybody.  One line answers it: `{"value": 0.07}` or `{"error": "a sentence"}`.
Whoever may connect is whoever may read the silo's files: the folder is the silo's user's, and so is the socket.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol, Self

from mpc.errors import Refused
from silos.errors import ConfigError
from vertical.identifiers import RULES
from vertical.linkage import key_tag

MAX_LINE_BYTES = 4096
MAX_CLIENTS = 16
NAME = "score.sock"

Place = Callable[[Sequence[str]], int | None]
"""From the values of a key's columns to the place among the aligned rows, None if there is none."""


class Asked(Protocol):
    """The recipient's end of a run, as `vertical.online.Online` has it."""

    def ask(self, row: int) -> float:
        """The answer about one aligned row."""
        ...

    def wait(self) -> None:
        """There is no question for now."""
        ...

    def end(self) -> None:
        """There are no more questions."""
        ...


def places(keys: Sequence[tuple[str, str | None]], items: Sequence[bytes]) -> Place:
    """Where a row is found by the job's first key.

    keys: rule and region of each, as in `vertical.align.Terms`.  items: what the aligned rows matched by, as in
    `vertical.align.Aligned`; a row that matched by a later key is not found.
    """
    rule, region = keys[0]
    index = {item: i for i, item in enumerate(items)}

    def place(values: Sequence[str]) -> int | None:
        if len(values) != len(RULES[rule].roles):
            return None
        found = RULES[rule].item(values, region)
        return index.get(key_tag(0) + found) if isinstance(found, bytes) else None

    return place


def serve(folder: Path, online: Asked, place: Place, *, silent_s: float, until: float) -> None:
    """Answer whoever connects, until somebody ends it, the questions are used up or `until`, a time of time.monotonic.

    folder: for the socket; it must be readable by the silo's user only.  silent_s: how long the link to the other owners may
    be quiet.

    Raises: OSError if there can be no socket; what `online` raises when a link or a peer fails.
    """
    with _listening(folder / NAME) as listener:
        _Desk(listener, online, place).run(silent_s, until)
        online.end()


@contextlib.contextmanager
def _short(path: Path) -> Iterator[str]:
    """The path of a socket by way of its open directory: the system takes no name of more than 107 bytes."""
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


@contextlib.contextmanager
def _listening(path: Path) -> Iterator[socket.socket]:
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener, _short(path) as name:
        try:
            listener.bind(name)
            path.chmod(0o600)
            listener.listen(MAX_CLIENTS)
            yield listener
        finally:
            path.unlink(missing_ok=True)


class _Desk:
    """Clients and what they have said of their next line; one question at a time."""

    def __init__(self, listener: socket.socket, online: Asked, place: Place) -> None:
        self._listener, self._online, self._place = listener, online, place
        self._said: dict[socket.socket, bytes] = {}
        self._over = False

    def run(self, silent_s: float, until: float) -> None:
        said = time.monotonic()
        try:
            while not self._over and (now := time.monotonic()) < until:
                wait_s = max(0.0, min(until, said + silent_s) - now)
                ready = select.select([self._listener, *self._said], [], [], wait_s)[0]
                if not ready and time.monotonic() - said >= silent_s:
                    self._online.wait()
                    said = time.monotonic()
                for one in ready:
                    if one is self._listener:
                        self._welcome()
                    elif self._hear(one):
                        said = time.monotonic()
        finally:
            for client in self._said:
                client.close()

    def _welcome(self) -> None:
        client, _ = self._listener.accept()
        if len(self._said) >= MAX_CLIENTS:
            client.close()
            return
        client.settimeout(1.0)
        self._said[client] = b""

    def _hear(self, client: socket.socket) -> bool:
        """Read what a client says, and answer its whole lines; whether the other owners were talked to."""
        try:
            more = client.recv(MAX_LINE_BYTES)
        except OSError:
            more = b""
        *lines, rest = (self._said[client] + more).split(b"\n")
        asked = False
        for line in lines:
            answer, talked = self._answer(line)
            asked |= talked
            with contextlib.suppress(OSError):  # it is gone, which its next reading shows
                client.sendall(json.dumps(answer).encode() + b"\n")
        self._said[client] = rest
        if not more or len(rest) > MAX_LINE_BYTES:
            del self._said[client]
            client.close()
        return asked

    def _answer(self, line: bytes) -> tuple[dict[str, Any], bool]:
        try:
            question = json.loads(line)
        except (ValueError, RecursionError):
            question = None
        if question == {"end": True}:
            self._over = True
            return {"value": None}, False
        key = question.get("key") if isinstance(question, dict) and set(question) == {"key"} else None
        if not isinstance(key, list) or not key or not all(isinstance(value, str) for value in key):
            return {"error": "a question is a line of JSON with the values of a key"}, False
        row = self._place(key)
        if row is None:
            return {"error": "no matched row has this key"}, False
        try:
            return {"value": self._online.ask(row)}, True
        except Refused as exc:
            self._over = True
            return {"error": str(exc)}, False


class Scorer:
    """Asks a running online scoring job of this silo; a context manager.

    with Scorer(home.job(job)) as scorer:
        scorer.score("ann@example.org")
    """

    def __init__(self, folder: Path, timeout_s: float = 30.0) -> None:
        """folder: the job's.  Raises: ConfigError if the job answers no questions there."""
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(timeout_s)
        try:
            with _short(folder / NAME) as name:
                self._socket.connect(name)
        except OSError as exc:
            self._socket.close()
            raise ConfigError(f"no online scoring runs in {folder}: {exc.strerror or exc}") from exc
        self._said = b""

    def score(self, *key: str) -> float:
        """What the job's output says about the row with this key: a decision, a band, or a mean.

        Raises: ConfigError with the job's sentence, or if it has ended.
        """
        return float(self._call({"key": list(key)}))

    def end(self) -> None:
        """End the job for all its participants.  Raises: ConfigError if it has ended already."""
        self._call({"end": True})

    def _call(self, question: dict[str, Any]) -> Any:
        try:
            self._socket.sendall(json.dumps(question).encode() + b"\n")
            while b"\n" not in self._said:
                more = self._socket.recv(MAX_LINE_BYTES)
                if not more:
                    raise ConfigError("the online scoring job has ended")
                self._said += more
        except OSError as exc:
            raise ConfigError(f"the online scoring job does not answer: {exc.strerror or exc}") from exc
        line, _, self._said = self._said.partition(b"\n")
        answer = json.loads(line)
        if "error" in answer:
            raise ConfigError(answer["error"])
        return answer["value"]

    def close(self) -> None:
        """Close the connection; the job goes on."""
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
