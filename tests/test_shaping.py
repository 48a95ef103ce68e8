"""The benchmarks' slow network: every byte in order, never early, never more held than it says.

What a line does is tested without a clock.  Over sockets, times are lower bounds only: a busy machine is late, not wrong.
"""

import contextlib
import math
import socket
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.shaping import BURST_BYTES, NETWORKS, PIECES, Line, Network, Shaper

SLOW = Network(round_trip_s=40e-3, bytes_per_s=1e6)
BOUND_S = 60


# --- a line


def drained(line: Line, now: float) -> bytes:
    out = bytearray()
    while data := line.due(now):
        out += data
        line.take(len(data))
    return bytes(out)


def test_the_named_networks_are_those_of_their_names():
    assert {
        "lan": Network(0, None),
        "10ms-100mbit": Network(0.010, 12_500_000),
        "50ms-20mbit": Network(0.050, 2_500_000),
    } == NETWORKS


@pytest.mark.parametrize(("round_trip_s", "rate"), [(-1, 1), (math.inf, 1), (math.nan, 1), (0, 0), (0, math.inf)])
def test_a_network_that_cannot_be_is_refused(round_trip_s, rate):
    with pytest.raises(ValueError, match="not"):
        Network(round_trip_s, rate)


def test_without_delay_and_pace_bytes_are_due_at_once():
    line = Line(NETWORKS["lan"])
    line.put(b"one", 5.0)
    line.put(b"two", 5.0)
    assert drained(line, 5.0) == b"onetwo"


def test_a_small_message_arrives_after_half_a_round_trip():
    line = Line(SLOW)
    line.put(b"x", 1.0)
    assert line.due_at() == pytest.approx(1.02)
    assert line.due(line.due_at() - 1e-9) is None
    assert drained(line, line.due_at()) == b"x"


def test_large_data_takes_its_time_on_the_line_and_a_rest_earns_one_burst_only():
    line = Line(Network(0, 1e6))
    for now in (0.0, 1000.0):
        sent = 0
        while sent + BURST_BYTES <= line.limit_bytes:
            line.put(bytes(BURST_BYTES), now)
            sent += BURST_BYTES
            last = now + (sent - BURST_BYTES) / 1e6
        assert len(drained(line, last - 1e-6)) == sent - BURST_BYTES
        assert len(drained(line, last + 1e-6)) == BURST_BYTES


def test_delay_and_pace_do_not_add_up_while_bytes_are_in_flight():
    """A long line carries many pieces at once: a second one arrives its own time after the first, not a delay later."""
    line = Line(SLOW)
    arrivals = []
    for _ in range(20):
        line.put(bytes(BURST_BYTES), 0.0)
    while line.held_bytes:
        arrivals.append(line.due_at())
        line.take(BURST_BYTES)
    assert arrivals == pytest.approx([0.02 + i * BURST_BYTES / 1e6 for i in range(20)])


def test_the_end_arrives_after_the_last_byte_and_is_empty():
    line = Line(SLOW)
    line.put(b"last", 0.0)
    line.put(b"", 0.001)
    assert line.due(0.02) == b"last"
    line.take(4)
    assert line.due(0.0205) is None
    assert line.due(0.021) == b""
    line.take(0)
    assert line.due_at() == math.inf


@pytest.mark.parametrize("network", [*NETWORKS.values(), SLOW])
def test_a_line_takes_no_more_than_its_limit(network):
    line = Line(network)
    while room := line.room():
        line.put(bytes(room), 0.0)
    assert line.held_bytes == line.limit_bytes
    with pytest.raises(ValueError, match="1 bytes put where 0"):
        line.put(b"x", 0.0)
    drained(line, math.inf)
    assert line.held_bytes == 0
    assert line.room() > 0


@pytest.mark.parametrize("name", NETWORKS)
def test_the_limit_does_not_slow_the_line(name):
    """More must fit than is in flight, or the limit instead of the rate would be measured."""
    network = NETWORKS[name]
    in_flight = 0 if network.bytes_per_s is None else network.bytes_per_s * network.round_trip_s / 2
    assert Line(network).limit_bytes > 2 * in_flight


def test_single_bytes_do_not_fill_memory_either():
    line = Line(NETWORKS["lan"])
    for _ in range(PIECES):
        line.put(b"x", 0.0)
    assert line.room() == 0
    line.take(1)
    assert line.room() > 0


@given(st.lists(st.tuples(st.binary(min_size=1, max_size=400), st.floats(0, 0.05), st.integers(1, 500)), max_size=40))
def test_any_pieces_come_out_in_order_never_early_and_never_too_fast(steps):
    network, now = Network(0.03, 50_000), 0.0
    line, put, got = Line(network), bytearray(), bytearray()
    for data, pause, count in steps:
        now += pause
        line.put(data, now)
        put += data
        if ready := line.due(now):
            line.take(min(count, len(ready)))
            got += ready[:count]
        assert line.held_bytes == len(put) - len(got)
        assert len(got) <= BURST_BYTES + 50_000 * max(0.0, now - 0.015) + 1e-6
    assert bytes(got) + drained(line, math.inf) == bytes(put)


# --- sockets


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        near = socket.create_connection(server.getsockname())
        far, _ = server.accept()
    return near, far


class Ends:
    """Two programs' ends of a shaped connection: `left` and `right`."""

    def __init__(self, network, pair=socket.socketpair):
        (self.left, near), (self.right, far) = pair(), pair()
        self.shaper = Shaper(network, [(near, far)])

    def __enter__(self):
        for sock in (self.left, self.right):
            sock.settimeout(BOUND_S)
        self.shaper.__enter__()
        return self

    def __exit__(self, *exc):
        self.shaper.__exit__(*exc)
        self.left.close()
        self.right.close()


def all_of(sock: socket.socket) -> bytes:
    out = bytearray()
    while data := sock.recv(1 << 16):
        out += data
    return bytes(out)


def exactly(sock: socket.socket, count: int) -> bytes:
    out = bytearray()
    while len(out) < count:
        data = sock.recv(count - len(out))
        assert data, "the stream ended"
        out += data
    return bytes(out)


def sent_until_held_up(sock: socket.socket) -> int:
    """Send zeros until the socket takes no more for as long as it is willing to wait, or far too many have gone."""
    sent = 0
    with contextlib.suppress(TimeoutError):
        while sent < 64 << 20:
            sent += sock.send(bytes(1 << 16))
    return sent


def pattern(count: int, seed: int) -> bytes:
    """Bytes in which a piece that is lost, doubled or moved shows."""
    return b"".join((i * 2654435761 + seed & 0xFFFFFFFF).to_bytes(4, "big") for i in range(count // 4))


@pytest.mark.parametrize("pair", [socket.socketpair, tcp_pair])
@pytest.mark.parametrize("network", [NETWORKS["lan"], Network(2e-3, 50e6)])
def test_bytes_come_out_as_they_went_in_both_ways_at_once(network, pair):
    there, back = pattern(1 << 20, 1), pattern(1 << 20, 2)
    got = {}

    def talk(name, sock, message):
        reader = threading.Thread(target=lambda: got.update({name: all_of(sock)}))
        reader.start()
        sock.sendall(message)
        sock.shutdown(socket.SHUT_WR)
        reader.join()

    with Ends(network, pair) as ends:
        other = threading.Thread(target=talk, args=("right", ends.right, back))
        other.start()
        talk("left", ends.left, there)
        other.join()
    assert got == {"left": back, "right": there}
    assert ends.shaper.peak_bytes <= Line(network).limit_bytes


def test_pairs_do_not_mix():
    pairs = [(socket.socketpair(), socket.socketpair()) for _ in range(3)]
    with Shaper(SLOW, [(left[1], right[1]) for left, right in pairs]):
        for i, (left, _) in enumerate(pairs):
            left[0].sendall(b"%d" % i)
        for i, (left, right) in enumerate(pairs):
            right[0].settimeout(BOUND_S)
            assert right[0].recv(10) == b"%d" % i
            left[0].close()
            right[0].close()


@pytest.mark.parametrize("name", NETWORKS)
def test_a_round_trip_takes_the_delay_of_both_ways(name):
    with Ends(NETWORKS[name], tcp_pair) as ends:
        for _ in range(3):
            start = time.monotonic()
            ends.left.sendall(b"ping")
            assert exactly(ends.right, 4) == b"ping"
            middle = time.monotonic()
            assert middle - start >= NETWORKS[name].round_trip_s / 2
            ends.right.sendall(b"pong")
            assert exactly(ends.left, 4) == b"pong"
            assert time.monotonic() - middle >= NETWORKS[name].round_trip_s / 2


@pytest.mark.parametrize("network", [Network(0, 2e6), Network(20e-3, 2e6)])
def test_a_large_message_takes_its_time_at_the_rate_after_the_delay(network):
    message = pattern(400_000, 3)
    with Ends(network) as ends:
        start = time.monotonic()
        writer = threading.Thread(target=ends.left.sendall, args=(message,))
        writer.start()
        assert exactly(ends.right, len(message)) == message
        took = time.monotonic() - start
        writer.join()
    assert took >= (len(message) - BURST_BYTES) / 2e6 + network.round_trip_s / 2


@pytest.mark.parametrize("network", [NETWORKS["lan"], Network(2e-3, 500e6)])
def test_a_sender_is_held_up_when_nobody_reads(network):
    """What is sent fits into the line and the sockets' own buffers, then no more; nothing of it is lost."""
    with Ends(network) as ends:
        buffers = 4 * ends.left.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
        ends.left.settimeout(0.3)
        sent = sent_until_held_up(ends.left)
        assert 0 < sent <= Line(network).limit_bytes + buffers
        assert exactly(ends.right, sent) == bytes(sent)
        assert 0 < ends.shaper.peak_bytes <= Line(network).limit_bytes


@pytest.mark.parametrize(("pair", "count"), [(socket.socketpair, 20_000), (tcp_pair, 1_000)])
def test_what_was_sent_before_closing_arrives_though_the_other_way_broke(pair, count):
    """A party that is done closes while its peer still says goodbye: that must not cost the peer the last bytes.

    The last of 20,000 bytes are on the line when the goodbye finds nobody; TCP may lose what nobody has read by then.
    """
    last_words = pattern(count, 4)
    with Ends(SLOW, pair) as ends:
        ends.left.sendall(last_words)
        ends.left.close()
        ends.right.sendall(b"goodbye")
        assert all_of(ends.right) == last_words


@pytest.mark.parametrize("pair", [socket.socketpair, tcp_pair])
def test_both_sides_see_the_end(pair):
    with Ends(SLOW, pair) as ends:
        ends.left.shutdown(socket.SHUT_WR)
        assert ends.right.recv(1) == b""
        ends.right.sendall(b"and back")
        ends.right.close()
        assert all_of(ends.left) == b"and back"


def test_a_sender_to_a_peer_that_is_gone_notices():
    with Ends(NETWORKS["lan"], tcp_pair) as ends:
        ends.right.close()
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            ends.left.sendall(bytes(64 << 20))


def test_leaving_ends_the_connections_and_the_thread():
    with Ends(Network(1e3, 1e6)) as ends:
        ends.left.sendall(b"minutes from arriving")
    assert not ends.shaper._thread.is_alive()
    assert ends.shaper.cpu_seconds > 0
