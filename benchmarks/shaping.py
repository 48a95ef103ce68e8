"""A slow network between two sockets, without privileges: a proxy that delays and paces bytes, each direction by itself.

    with Shaper(NETWORKS["10ms-100mbit"], [(near, far)]):
        ...  # what `near` sends comes out of `far` 5 ms later at no more than 100 Mbit/s, and the other way round

`near` and `far` are stream sockets whose other ends are held by the two programs that talk.  Each direction is a `Line`:
a token bucket, which says when a byte has left, and a delay line behind it, which says when it arrives.  A line holds a
bounded number of bytes; when it is full the shaper stops reading, and the sender is held up by its own socket.

What the figures mean: the delay in a network's name is a round trip, half of it each way; the rate is that of each
direction of each link by itself (three processes have three links, which do not share it), counted in bytes of the
stream, so without the headers of TCP and IP.  Neither loss nor the slow start of TCP is imitated: a real network of this
delay and rate is at best as fast.  A shaper that gets the processor late delivers late, never early.
"""

from __future__ import annotations

import math
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

# What a line lets pass at once after a rest: about one packet of Ethernet.
BURST_BYTES = 1500
# Bytes waiting to leave, beyond those in flight: so many that a shaper that is a few ms late finds work, and no more.
QUEUE_BYTES = 1 << 17
# One read: what the line carries in this time, so that pacing is smooth, or this many bytes where there is no pace.
READ_S = 1e-3
READ_BYTES = 1 << 18
UNPACED_BYTES = 1 << 20
# Pieces on a line: a sender of single bytes may not fill memory with what Python needs to hold each of them.
PIECES = 1 << 12


@dataclass(frozen=True)
class Network:
    """round_trip_s: both ways together.  bytes_per_s: of one direction of one link; None is no limit."""

    round_trip_s: float
    bytes_per_s: float | None

    def __post_init__(self) -> None:
        if not 0 <= self.round_trip_s < math.inf:
            raise ValueError(f"a round trip takes 0 s or longer, not {self.round_trip_s}")
        if self.bytes_per_s is not None and not 0 < self.bytes_per_s < math.inf:
            raise ValueError(f"a rate is above 0 bytes per second, not {self.bytes_per_s}")


NETWORKS = {
    "lan": Network(0.0, None),
    "10ms-100mbit": Network(10e-3, 100e6 / 8),
    "50ms-20mbit": Network(50e-3, 20e6 / 8),
}


class Line:
    """One direction, without sockets or a clock: bytes go in at one time and are due at a later one, in order.

    limit_bytes: what it holds at most, queued and in flight.  held_bytes: what it holds now.
    """

    def __init__(self, network: Network) -> None:
        self._delay_s = network.round_trip_s / 2
        self._rate = rate = network.bytes_per_s
        self._read_bytes = READ_BYTES if rate is None else max(BURST_BYTES, int(rate * READ_S))
        self.limit_bytes = UNPACED_BYTES if rate is None else QUEUE_BYTES + 2 * math.ceil(rate * self._delay_s)
        self.held_bytes = 0
        self._free = -math.inf
        self._queue: deque[tuple[float, memoryview]] = deque()

    def room(self) -> int:
        """How many bytes `put` takes now."""
        return 0 if len(self._queue) >= PIECES else min(self._read_bytes, self.limit_bytes - self.held_bytes)

    def put(self, data: bytes, now: float) -> None:
        """Take `data`, which came at time `now`; no bytes mean the end of the stream, which arrives after the last."""
        if len(data) > self.room():
            raise ValueError(f"{len(data)} bytes put where {self.room()} are allowed")
        if self._rate is not None:
            # The bucket as a time: when the last byte has left, at the earliest one burst ago.
            self._free = max(self._free, now - BURST_BYTES / self._rate) + len(data) / self._rate
        self._queue.append((max(self._free, now) + self._delay_s, memoryview(data)))
        self.held_bytes += len(data)

    def due_at(self) -> float:
        """When the next bytes, or the end, arrive; infinity if there are none."""
        return self._queue[0][0] if self._queue else math.inf

    def due(self, now: float) -> memoryview | None:
        """The bytes that have arrived and were not taken, empty for the end; None if nothing has."""
        return self._queue[0][1] if self._queue and self.due_at() <= now else None

    def take(self, count: int) -> None:
        """Drop the first `count` bytes of what is due, or the end."""
        due_at, data = self._queue.popleft()
        if count < len(data):
            self._queue.appendleft((due_at, data[count:]))
        self.held_bytes -= count

    def clear(self) -> None:
        """Drop everything."""
        self._queue.clear()
        self.held_bytes = 0


class _Direction:
    """A line from a socket to a socket; none of them blocks."""

    def __init__(self, source: socket.socket, sink: socket.socket, network: Network) -> None:
        self.source, self.sink, self.line = source, sink, Line(network)
        self.ended = False  # nothing more comes from the source
        self.over = False  # nothing more goes to the sink
        self.blocked = False  # the sink took less than was due

    def read(self) -> None:
        """Take what the source has, as much as there is room for; a broken source has ended."""
        try:
            data = self.source.recv(self.line.room())
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self.ended = not data
        self.line.put(data, time.monotonic())

    def write(self) -> None:
        """Give the sink what is due.  A sink that is gone takes nothing, and what was meant for it is dropped."""
        self.blocked = False
        while (data := self.line.due(time.monotonic())) is not None:
            try:
                if not data:
                    self.over = True
                    self.sink.shutdown(socket.SHUT_WR)
                self.line.take(self.sink.send(data) if data else 0)
            except BlockingIOError:
                self.blocked = True
                return
            except OSError:
                self.ended = self.over = True
                self.line.clear()

    def reads(self) -> bool:
        """Whether it wants to hear of bytes at the source."""
        return not self.ended and self.line.room() > 0

    def wakes_at(self) -> float:
        """When it has something to write, unless it waits for the sink."""
        return math.inf if self.blocked else self.line.due_at()


class Shaper:
    """A thread that carries bytes between the two sockets of each pair, both ways, as `network` does.

    It takes the sockets over: both of a pair are closed when both directions are over, and all of them on leaving the
    `with`, delivered or not.  peak_bytes: the most that any direction held.  cpu_seconds: what the thread used, known
    after the `with`.
    """

    def __init__(self, network: Network, pairs: Iterable[tuple[socket.socket, socket.socket]]) -> None:
        self._pairs = [(_Direction(left, right, network), _Direction(right, left, network)) for left, right in pairs]
        self.peak_bytes = 0
        self.cpu_seconds = 0.0
        for pair in self._pairs:
            for direction in pair:
                direction.source.setblocking(False)
                if direction.source.family != socket.AF_UNIX:
                    direction.source.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._bell, self._rope = socket.socketpair()
        self._thread = threading.Thread(target=self._run, name="shaper")

    def __enter__(self) -> Shaper:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._rope.close()
        self._thread.join()

    def _run(self) -> None:
        began = time.thread_time()
        try:
            while self._step():
                pass
        finally:
            for pair in self._pairs:
                _close(pair)
            self._bell.close()
            self.cpu_seconds = time.thread_time() - began

    def _step(self) -> bool:
        """Wait for something to do and do it; False when told to stop."""
        directions = [direction for pair in self._pairs for direction in pair if not direction.over]
        reading = {d.source: d for d in directions if d.reads()}
        writing = {d.sink: d for d in directions if d.blocked}
        wakes_at = min((d.wakes_at() for d in directions), default=math.inf)
        wait_s = None if wakes_at == math.inf else max(0.0, wakes_at - time.monotonic())
        # Not poll or epoll: they wait in whole milliseconds, as long as some of the delays.
        readable, writable, _ = select.select([self._bell, *reading], list(writing), [], wait_s)
        if self._bell in readable:
            return False
        for sock in readable:
            reading[sock].read()
        self.peak_bytes = max([self.peak_bytes, *(d.line.held_bytes for d in directions)])
        for direction in directions:
            if not direction.blocked or direction.sink in writable:
                direction.write()
        for pair in [pair for pair in self._pairs if all(direction.over for direction in pair)]:
            _close(pair)
            self._pairs.remove(pair)
        return True


def _close(pair: tuple[_Direction, _Direction]) -> None:
    for direction in pair:
        direction.source.close()
