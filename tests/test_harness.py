"""The harness is trusted by every pair test, so it is tested itself."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest

from mpc.errors import LocalProtocolError, PeerLost, RemoteProtocolError
from mpc.wire import Kind
from tests.harness import run_parties, try_parties


def _send(to, tag="t", body=b"x", kind=Kind.BYTES):
    return lambda channel: channel.send(to, tag, kind, body)


def _recv(frm, tag="t", kind=Kind.BYTES, **size):
    return lambda channel: bytes(channel.recv(frm, tag, kind, **(size or {"limit": 10})))


def test_results_transcript_and_sizes() -> None:
    def a(channel):
        channel.send("b", "ask", Kind.BYTES, b"two")
        return bytes(channel.recv("b", "reply", Kind.WORDS16, exact=4))

    def b(channel):
        got = bytes(channel.recv("a", "ask", Kind.BYTES, limit=3))
        channel.send("a", "reply", Kind.WORDS16, b"four")
        return got

    run = run_parties({"a": a, "b": b})
    assert dict(run) == {"a": b"four", "b": b"two"} == run.results
    assert run.shape() == [("a", "b", "ask", Kind.BYTES, 3), ("b", "a", "reply", Kind.WORDS16, 4)]
    assert [m.body for m in run.transcript] == [b"two", b"four"]
    assert (run.bytes_sent("a"), run.bytes_sent("b", "a"), run.bytes_sent("b", "b")) == (3, 4, 0)


def test_body_is_copied_at_send() -> None:
    def a(channel):
        body = bytearray(b"before")
        channel.send("b", "t", Kind.BYTES, body)
        body[:] = b"after!"

    assert run_parties({"a": a, "b": _recv("a")})["b"] == b"before"


def test_three_parties_interleave_the_same_way_each_time() -> None:
    def once() -> list[tuple[str, int]]:
        trace: list[tuple[str, int]] = []
        names = ["p", "q", "r"]

        def party(me):
            def fn(channel):
                for i in range(5):
                    for other in names:
                        if other != me:
                            channel.send(other, f"m{i}", Kind.BYTES, b"")
                    trace.append((me, i))
                    for other in names:
                        if other != me:
                            channel.recv(other, f"m{i}", Kind.BYTES, exact=0)

            return fn

        run_parties({name: party(name) for name in names})
        return trace

    first = once()
    assert len(first) == 15
    assert all(once() == first for _ in range(5))


def test_one_thread_per_party_and_one_running_at_a_time() -> None:
    local, running, seen = threading.local(), [], set()

    def party(me, peer):
        def fn(channel):
            local.name = me
            for i in range(20):
                running.append(me)
                assert running == [me]
                running.remove(me)
                channel.send(peer, f"{i}", Kind.BYTES, b"")
                channel.recv(peer, f"{i}", Kind.BYTES, exact=0)
                assert local.name == me
            seen.add(threading.get_ident())

        return fn

    run_parties({"a": party("a", "b"), "b": party("b", "a")})
    assert len(seen) == 2
    assert threading.get_ident() not in seen


def test_deadlock_names_who_waits_for_what() -> None:
    with pytest.raises(AssertionError, match=r"^deadlock: a waits for b 'x'; b waits for a 'y'$"):
        run_parties({"a": _recv("b", "x"), "b": _recv("a", "y")})
    with pytest.raises(AssertionError, match=r"deadlock: b waits for a 't' \(a has ended\)"):
        run_parties({"a": lambda _: None, "b": _recv("a")})


def test_deadlock_unwinds_parties_that_catch_exceptions() -> None:
    cleaned = []

    def stubborn(channel):
        try:
            channel.recv("b", "t", Kind.BYTES, limit=1)
        except Exception:
            return "swallowed"
        finally:
            cleaned.append("a")

    with pytest.raises(AssertionError, match="deadlock"):
        run_parties({"a": stubborn, "b": _recv("a")})
    assert cleaned == ["a"]


def test_messages_nobody_read_are_an_error() -> None:
    with pytest.raises(AssertionError, match="messages nobody read: a to b 't'"):
        run_parties({"a": _send("b"), "b": lambda _: None})


def test_first_exception_wins_and_the_others_lose_their_peer() -> None:
    def c(channel):
        raise ZeroDivisionError("the cause")

    with pytest.raises(ZeroDivisionError, match="the cause") as caught:
        run_parties({"a": _recv("b"), "b": _recv("c"), "c": c})
    others = caught.value.others
    assert {name: type(e) for name, e in others.items()} == {"a": PeerLost, "b": PeerLost}
    assert (others["a"].party, others["b"].party) == ("b", "c")
    assert caught.value.__notes__ == ["raised by party 'c'"]


def test_what_a_failed_party_had_sent_still_arrives() -> None:
    def a(channel):
        channel.send("b", "t", Kind.BYTES, b"last words")
        raise ValueError("then it died")

    run = try_parties({"a": a, "b": _recv("a")})
    assert run["b"] == b"last words"
    assert list(run.errors) == ["a"]


def test_parties_that_wait_for_each_other_after_a_failure_lose_the_failed_one() -> None:
    def c(channel):
        raise ValueError

    run = try_parties({"a": _recv("b"), "b": _recv("a"), "c": c})
    assert [type(e) for e in run.errors.values()] == [ValueError, PeerLost, PeerLost]
    assert run.errors["a"].party == "c"


@pytest.mark.parametrize(
    ("sender", "receiver", "why"),
    [
        (_send("b", tag="u"), _recv("a"), "expected 't', got 'u'"),
        (_send("b", kind=Kind.JSON), _recv("a"), "expected BYTES, got JSON"),
        (_send("b", body=b"1234"), _recv("a", exact=3), "expected 3 bytes, got 4"),
        (_send("b", body=b"12"), _recv("a", exact=3), "expected 3 bytes, got 2"),
        (_send("b", body=b"1234"), _recv("a", limit=3), "expected at most 3 bytes, got 4"),
    ],
)
def test_link_checks_name_the_sender(sender, receiver, why) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        run_parties({"a": sender, "b": receiver})
    assert (caught.value.party, caught.value.tag, caught.value.why) == ("a", "t", why)


@pytest.mark.parametrize(
    "wrong",
    [
        _send("nobody"),
        _send("a"),
        _recv("nobody"),
        _send("b", tag=""),
        _send("b", tag="x" * 65),
        _send("b", tag="é"),
        lambda channel: channel.recv("b", "t", Kind.BYTES),
        lambda channel: channel.recv("b", "t", Kind.BYTES, exact=1, limit=1),
    ],
)
def test_our_own_mistakes(wrong) -> None:
    with pytest.raises(LocalProtocolError):
        run_parties({"a": wrong, "b": lambda _: None})


def test_tamper_changes_repeats_and_drops() -> None:
    def a(channel):
        for tag in ("one", "two"):
            channel.send("b", tag, Kind.BYTES, tag.encode())

    def b(channel):
        return [bytes(channel.recv("a", tag, Kind.BYTES, limit=9)) for tag in ("one", "two")]

    pair = {"a": a, "b": b}
    corrupt = run_parties(pair, tamper=lambda m: replace(m, body=b"!"))
    assert corrupt["b"] == [b"!", b"!"]
    assert [m.body for m in corrupt.transcript] == [b"one", b"two"]
    with pytest.raises(RemoteProtocolError, match="expected 'two', got 'one'"):
        run_parties(pair, tamper=lambda m: [m, m])
    with pytest.raises(RemoteProtocolError, match="expected 'one', got 'two'"):
        run_parties(pair, tamper=lambda m: None if m.tag == "one" else m)
    with pytest.raises(PeerLost, match="lost a at step 'two': no message in time"):
        run_parties(pair, tamper=lambda m: None if m.tag == "two" else m)


def test_nobody_at_all() -> None:
    assert dict(run_parties({})) == {}
