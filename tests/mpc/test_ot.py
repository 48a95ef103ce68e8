"""Base transfers give one key of two, the extension keeps its correlation, and no stream is used twice."""

from __future__ import annotations

import itertools
import re
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from mpc.curve25519 import P, add, hash_to_curve
from mpc.errors import RemoteProtocolError
from mpc.ot import extension as ot
from mpc.ot import kernels_numpy as ot_numpy
from mpc.ot.aes import schedules
from mpc.ot.extension import BaseTransfers, decode_point, encode_point, grow_tree, puncture_tree, set_up
from mpc.ot.products import CHUNK_WORDS, HALVES, WHOLE, Transfers, warm_up, weights
from tests.harness import run_parties
from tests.mpc.test_compare import uniform_bytes
from tests.mpc.transfers import NAMES, cheap_set_up, made_ends

RNG = np.random.default_rng(20)


def random(*shape: int) -> np.ndarray:
    return RNG.integers(0, 2**64, shape, dtype=np.uint64)


def compiled():
    return pytest.importorskip("mpc.ot.kernels_numba")


# --- base transfers ---


def test_points_have_one_encoding_each():
    for i in range(20):
        point = hash_to_curve(b"%d" % i, b"test")
        assert decode_point(encode_point(point)) == point
    x, y = point
    assert decode_point(encode_point((x, P - y))) == (x, P - y)
    not_a_point = next(n for n in itertools.count(2) if ot._root(n) is None)
    zero_with_sign = 1 << 255
    for number in (not_a_point, P + x if P + x < 1 << 255 else P, P + 9, zero_with_sign):
        with pytest.raises(ValueError, match="not a point"):
            decode_point(number.to_bytes(32, "little"))


@pytest.mark.parametrize("bit", [0, 1])
def test_the_receiver_gets_the_key_of_its_bit_and_keys_are_bound_to_everything(bit):
    base, scalar = BaseTransfers(b"s" * 32, 0), X25519PrivateKey.generate()
    public = scalar.public_key().public_bytes_raw()
    secret, points = base.choose(7, bit, b"\x01" + RNG.bytes(64))
    mine = base.key(7, bit, public, points, secret.exchange(scalar.public_key()))
    keys = base.keys(7, scalar, public, points)
    assert mine == keys[bit]
    assert mine != keys[1 - bit]
    assert base.key(7, 1 - bit, public, points, secret.exchange(scalar.public_key())) != keys[1 - bit]
    for other, i in ((base, 8), (BaseTransfers(b"t" * 32, 0), 7), (BaseTransfers(b"s" * 32, 1), 7)):
        assert not set(other.keys(i, scalar, public, points)) & set(keys)


def test_the_points_do_not_tell_the_bit():
    base = BaseTransfers(b"s" * 32, 0)
    signs = {}
    for bit in (0, 1):
        noise = [RNG.bytes(65) for _ in range(60)]
        pairs = [base.choose(i, bit, n)[1] for i, n in enumerate(noise)]
        sums = [
            [
                add(decode_point(p[32 * b : 32 * b + 32]), base.offset(i, b, p[32 - 32 * b : 64 - 32 * b]))
                for b in (0, 1)
            ]
            for i, p in enumerate(pairs)
        ]
        signs[bit] = [sum(points[b][1] & 1 for points in sums) for b in (0, 1)]
        assert len(set(pairs)) == 60
    # With the sign of the sum that the receiver knows left as it comes, one of these would be 0 or 60.
    assert all(10 < count < 50 for counts in signs.values() for count in counts)


def test_points_of_low_order_are_refused():
    base, scalar = BaseTransfers(b"s" * 32, 0), X25519PrivateKey.generate()
    good = encode_point(hash_to_curve(b"good", b"test"))
    x, y = base.offset(0, 0, good)
    minus_offset = encode_point((x, P - y))
    order_two = bytes(32)
    with_order_two = encode_point(add((x, P - y), (0, 0)))
    for bad in (order_two, minus_offset, with_order_two, (1).to_bytes(32, "little")):
        with pytest.raises(ValueError):
            base.keys(0, scalar, b"", bad + good)


def test_a_punctured_tree_lacks_one_leaf():
    for hole in range(16):
        pairs = [[RNG.bytes(16), RNG.bytes(16)] for _ in range(4)]
        leaves, sums = grow_tree(RNG.bytes(16), pairs)
        away = [pair[1 - (hole >> 3 - level & 1)] for level, pair in enumerate(pairs)]
        seen = puncture_tree(hole, away, sums)
        assert len(set(leaves)) == 16
        assert seen[0] == bytes(16)
        assert [seen[y] for y in range(1, 16)] == [leaves[y ^ hole] for y in range(1, 16)]


@pytest.fixture(scope="module")
def real():
    """Both directions set up for real."""

    def party(me):
        return lambda channel: set_up(channel, NAMES[1 - me], me)

    return run_parties({"a": party(0), "b": party(1)})


def correlation_holds(receiver, sender, choice):
    d, blocks = receiver.extend(choice)
    other = sender.extend(d)
    np.testing.assert_array_equal(blocks.key, other.key)
    bits = choice.reshape(-1, 1, 8) >> np.arange(64, dtype=np.uint64)[None, :, None] & np.uint64(1)
    for half in (0, 1):
        np.testing.assert_array_equal(blocks.x[:, half] ^ bits * sender.delta[half], other.x[:, half])


def test_a_real_set_up_serves_both_directions_and_costs_what_it_says(real):
    (receiver_a, sender_a), (receiver_b, sender_b) = real["a"], real["b"]
    correlation_holds(receiver_a, sender_b, random(16))
    correlation_holds(receiver_b, sender_a, random(8))
    assert not set(sender_a.delta.tolist()) & set(sender_b.delta.tolist())
    cost = [int(n) for n in re.findall(r"\d{2,}", re.search(r"Cost: 3 rounds; (.*?) bytes", set_up.__doc__)[1])]
    for sender in NAMES:
        assert [m.size for m in real.transcript if m.sender == sender] == cost


def tampered(tag, change):
    def party(me):
        return lambda channel: set_up(channel, NAMES[1 - me], me)

    def tamper(message):
        ours = message.sender == "b" and message.tag == tag
        return replace(message, body=change(message.body)) if ours else message

    with pytest.raises(RemoteProtocolError) as caught:
        run_parties({"a": party(0), "b": party(1)}, tamper=tamper)
    assert caught.value.party == "b"
    return caught.value


@pytest.mark.parametrize("tag", ["ot/hello", "ot/points", "ot/trees"])
def test_a_short_message_of_the_set_up_is_the_senders_error(tag):
    assert "expected" in tampered(tag, lambda body: body[:-1]).why


def test_bad_points_are_the_senders_error():
    low = tampered("ot/hello", lambda body: body[:32] + bytes(32))
    assert (low.tag, "malformed" in low.why) == ("ot/points", True)
    assert "not a point" in tampered("ot/points", lambda body: body[:-32] + b"\xff" * 32).why
    assert "malformed" in tampered("ot/points", lambda body: bytes(32) + body[32:]).why


# --- kernels ---


def test_the_key_schedule_is_the_standards():
    """FIPS 197, appendix A.1."""
    key = np.frombuffer(bytes.fromhex("2b7e151628aed2a6abf7158809cf4f3c"), dtype=np.uint8)
    rounds = schedules(np.stack([key, key]))
    assert rounds.shape == (2, 22)
    assert rounds[1].tobytes()[-16:].hex() == "d014f9a8c9ee2589e13f0cc8b6630ca6"
    assert rounds[0].tobytes()[:16] == key.tobytes()


def test_the_hash_is_aes_plus_its_input():
    x = random(1, 2, 64, 8)
    key = np.frombuffer(bytes.fromhex("2b7e151628aed2a6abf7158809cf4f3c"), dtype=np.uint8)
    x[0, :, 0, 0] = np.frombuffer(
        bytes.fromhex("6bc1bee22e409f96e93d7e117393172a"), dtype=np.uint64
    )  # SP 800-38A, F.1.1
    expected = np.frombuffer(bytes.fromhex("3ad77bb40d7a3660a89ecaf32466ef97"), dtype=np.uint64)[0] ^ x[0, 0, 0, 0]
    for module in (ot_numpy, compiled()):
        out = np.zeros((1, 1, 1, 8), dtype=np.uint64)
        once = weights([0]).rows
        module.ring_receive(x, module.prepared(key[None]), np.zeros(8, np.uint64), once, np.zeros(64, np.uint8), out)
        assert out[0, 0, 0, 0] == expected


@pytest.mark.parametrize("tiles", [0, 1, 11])
def test_both_kinds_of_kernels_agree(tiles):
    fast, slow = compiled(), ot_numpy
    leaves, key = (RNG.integers(0, 256, (n, 16), dtype=np.uint8) for n in (512, tiles))
    choice, hole = random(8 * tiles), RNG.integers(0, 16, 32)
    (d, t), (d1, t1) = (m.extend_receiver(m.prepared(leaves), 2**40 - 3, choice) for m in (fast, slow))
    np.testing.assert_array_equal(d, d1)
    np.testing.assert_array_equal(t, t1)
    q, q1 = (m.extend_sender(m.prepared(leaves), 5, d, hole) for m in (fast, slow))
    np.testing.assert_array_equal(q, q1)
    delta = random(2)
    odd = weights([5, None, 63])
    for kind, choices, bitwise in ((WHOLE, 1, True), (WHOLE, 64, False), (HALVES, 2, False), (odd, 1, False)):
        for width in (1, 2, 5):
            a, out = random(tiles, choices, width, 8), []
            for m in (fast, slow):
                share, other = (np.zeros((tiles, kind.n_out, width, 8), dtype=np.uint64) for _ in range(2))
                prepared = m.prepared(key)
                sent = m.ring_send(q, delta, prepared, a, kind.rows, share, bitwise=bitwise, tweak=3)
                m.ring_receive(q, prepared, choice, kind.rows, sent, other, tweak=3)
                out.append((sent, share, other << np.uint64(32) if kind is HALVES else other))
            for x, y in zip(*out):
                np.testing.assert_array_equal(x, y)
    kind, a, out = weights([0] * 50), random(tiles, 64, 4, 8), []
    a[:, :, 1::2] &= np.uint64(255)
    for m in (fast, slow):
        share, other = (np.zeros((tiles, 1, 4, 8), dtype=np.uint64) for _ in range(2))
        prepared = m.prepared(key)
        sent = m.ring_send(q, delta, prepared, a, kind.rows, share, guarded=True)
        m.ring_receive(q, prepared, choice, kind.rows, sent, other, guarded=True)
        assert len(sent) == tiles * 8 * m.message_bytes(kind.rows, 4, guarded=True) == tiles * 8 * 50 * 18
        out.append((sent, share, other))
    for x, y in zip(*out):
        np.testing.assert_array_equal(x, y)
    for planes in (1, 7, 64):
        table = random(tiles, planes, 8)
        (s, c), (s1, c1) = (m.bits_send(q, delta, m.prepared(key), table) for m in (fast, slow))
        np.testing.assert_array_equal(s, s1)
        np.testing.assert_array_equal(c, c1)
        r, r1 = (m.bits_receive(q, m.prepared(key), choice, c) for m in (fast, slow))
        np.testing.assert_array_equal(r, r1)


def test_the_correlation_holds_over_many_batches():
    (receiver, _), (_, sender) = made_ends()
    for tiles in (1, 9, 3):
        correlation_holds(receiver, sender, random(8 * tiles))


def test_no_part_of_a_stream_and_no_hash_is_used_twice(monkeypatch):
    used, hashes = {}, []
    for name in ("extend_receiver", "extend_sender"):
        inner = getattr(ot.kernels, name)

        def watched(keys, counter, words, *rest, name=name, inner=inner):
            tiles = len(words) // 8 if name == "extend_receiver" else len(words)
            used.setdefault((name, id(keys)), []).append((counter, counter + 4 * tiles))
            return inner(keys, counter, words, *rest)

        monkeypatch.setattr(ot.kernels, name, watched)
    (receiver, sender_a), (receiver_b, sender) = made_ends()
    for n in (8, 80, 16, 8):
        for chooser, owner in ((receiver, sender), (receiver_b, sender_a)):
            d, blocks = chooser.extend(random(n))
            owner.extend(d)
            hashes += [key.tobytes() for key in blocks.key.reshape(n // 8, -1)]
    assert len(used) == 4
    for ranges in used.values():
        assert ranges == [(0, 4), (4, 44), (44, 52), (52, 56)]
    assert len(set(hashes)) == len(hashes)


# --- products ---


def both(body, **options):
    def party(me):
        return lambda channel: body(Transfers(channel, NAMES[1 - me], me), me)

    return run_parties({name: party(me) for me, name in enumerate(NAMES)}, **options)


@pytest.fixture
def cheap(monkeypatch):
    monkeypatch.setattr("mpc.ot.products.set_up", cheap_set_up)


@pytest.fixture
def small_chunks(monkeypatch):
    for name, value in (("CHUNK_WORDS", 16), ("FEWEST_WORDS", 8), ("MESSAGE_WORDS", 32)):
        monkeypatch.setattr(f"mpc.ot.products.{name}", value)


@pytest.mark.parametrize(("n", "m"), [(0, 0), (0, 1), (1, 0), (1, 9), (40, 3), (100, 101)])
def test_products_of_any_two_lengths_in_many_chunks(n, m, cheap, small_chunks):
    x, y = (random(n), random(m)), (random(n), random(m))  # a chooses n words and b m

    def body(transfers, me):
        return transfers.elementwise(WHOLE, x[0] if me == 0 else y[1], x[1] if me == 0 else y[0])

    run = both(body)
    np.testing.assert_array_equal(run["a"][0] + run["b"][1], (x[0] * y[0])[None])
    np.testing.assert_array_equal(run["a"][1] + run["b"][0], (x[1] * y[1])[None])
    for chooser, count in (("a", n), ("b", m)):
        padded = -(-count // 8) * 8
        assert sum(s.size for s in run.transcript if (s.sender, s.tag) == (chooser, "ot/choice")) == 256 * padded
        assert sum(s.size for s in run.transcript if (s.sender, s.tag) == (chooser, "ot/message")) == WHOLE.size(1) * (
            -(-(m if chooser == "a" else n) // 8) * 8
        )


@pytest.mark.parametrize("width", [1, 2, 3, 70])
def test_vectors_are_multiplied_column_by_column(width, cheap, small_chunks):
    n = 21
    choice, values = random(n), random(width, n)
    out = np.zeros((width, n), dtype=np.uint64)

    def body(transfers, me):
        def sink(chosen, part, cols, share):
            out[cols, part] += share[0]

        mine = choice if me == 0 else choice[:0]
        kind = replace(WHOLE, width=width)
        transfers.products(kind, mine, n if me else 0, lambda part, cols: values[None, cols, part], sink)

    run = both(body)
    np.testing.assert_array_equal(out, choice * values)
    assert run.bytes_sent("a") == 256 * 24
    assert run.bytes_sent("b") == 288 * 24 * width


@pytest.mark.parametrize(("t", "m"), [(1, 0), (1, 1), (7, 33), (64, 40)])
def test_planes_of_bits(t, m, cheap, small_chunks):
    choice, table = [random(m), random(m)], [random(t, m), random(t, m)]
    run = both(lambda transfers, me: transfers.and_planes(choice[me], table[me]))
    np.testing.assert_array_equal(run["a"] ^ run["b"], (table[0] ^ table[1]) & (choice[0] ^ choice[1]))
    for sender in NAMES:
        assert run.bytes_sent(sender) == (256 + 8 * t) * -(-m // 8) * 8


@pytest.mark.parametrize("fill", [0, 2**64 - 1])
def test_every_message_is_uniform_whatever_is_multiplied(fill, cheap):
    words = np.full(600, fill, dtype=np.uint64)

    def body(transfers, me):
        return transfers.elementwise(WHOLE, words, words), transfers.and_planes(words, np.stack([words] * 3))

    run = both(body)
    for sender, tag in itertools.product(NAMES, ("ot/choice", "ot/message")):
        raw = b"".join(m.body for m in run.transcript if (m.sender, m.tag) == (sender, tag))
        uniform_bytes(np.frombuffer(raw, dtype=np.uint64))
    (chosen, sent), planes = run["a"]
    for words_ in (chosen[0], sent[0], planes.reshape(-1)):
        uniform_bytes(np.ascontiguousarray(words_))


@pytest.mark.parametrize("tag", ["ot/choice", "ot/message"])
@pytest.mark.parametrize("nth", [0, 1])
def test_a_short_message_is_the_senders_error(tag, nth, cheap):
    seen = itertools.count()

    def tamper(message):
        ours = message.sender == "b" and message.tag == tag
        return replace(message, body=message.body[:-8]) if ours and next(seen) == nth else message

    def body(transfers, me):
        words = random(5)
        transfers.elementwise(WHOLE, words, words)
        transfers.and_planes(words, words[None])

    with pytest.raises(RemoteProtocolError) as caught:
        both(body, tamper=tamper)
    assert (caught.value.party, caught.value.tag) == ("b", tag)


def test_corrections_run_one_chunk_ahead(cheap, monkeypatch):
    monkeypatch.setattr("mpc.ot.products.CHUNK_WORDS", 8)
    assert CHUNK_WORDS % 8 == 0
    run = both(lambda transfers, _: transfers.and_planes(random(24), random(1, 24)))
    tags = [m.tag[3:] for m in run.transcript if m.sender == "a"]
    assert tags == ["choice", "choice", "message", "choice", "message", "message"]


def test_without_compiled_kernels_the_others_serve(monkeypatch):
    def missing(name, *args, real=__import__, **kwargs):
        if name == "mpc.ot" and args[2] == ("kernels_numba",):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr("builtins.__import__", missing)
    assert ot._load() is ot_numpy
    assert isinstance(SimpleNamespace(kernels=ot._load()).kernels.TREES, int)


def test_the_kernels_are_compiled_once_and_before_a_session(cheap):
    compiled()
    from mpc.ot import vectors as _ot_compiled

    warm_up()
    words = np.broadcast_to(np.uint64(7), (16,))
    both(lambda transfers, _: (transfers.elementwise(WHOLE, words, words), transfers.and_planes(words, words[None])))
    for name in ("extend", "ring_send", "ring_receive", "bits_send", "bits_receive"):
        assert len(getattr(_ot_compiled, name).signatures) == 1, name
