"""The oblivious function against cheats: the wide code, both forms of its kernels, and every wrong message caught."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import reduce

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from mpc.errors import LocalProtocolError, PeerLost, RemoteProtocolError
from mpc.matching import (
    consistency,
    field128,
    hashes,
    kernels_numpy,
    malicious,
    okvs,
    oprf,
    vole,
    wide_numpy,
    wide_vole,
)
from mpc.matching import wide_code as code
from mpc.matching.kernels import kernels, wide
from mpc.matching.oprf import Receiver, Sender
from mpc.matching.parameters import SQUARE, TILE, WIDTH
from mpc.matching.wide_vole import Columns, Masker, Unmasker, masked_columns
from mpc.rng import Prg, fresh_prg
from tests.harness import Run, run_parties, try_parties
from tests.mpc.test_matching import QuickTransfers

BOTH = pytest.mark.parametrize("form", [wide, wide_numpy], ids=["chosen", "numpy"])
RNG = np.random.default_rng
SESSION = bytes(32)


def _words(seed: int, *shape: int) -> np.ndarray:
    return RNG(seed).integers(0, 2**64, shape, dtype=np.uint64)


def _points(seed: int, n: int) -> np.ndarray:
    words = _words(seed, n, 2)
    return words[kernels.order(words)]


# --- the code

# Another construction of GF(64): powers of a root of x^6 + x + 1.
EXP = reduce(lambda out, _: [*out, (out[-1] << 1) ^ (0b1000011 if out[-1] & 32 else 0)], range(62), [1])
LOG = {value: i for i, value in enumerate(EXP)}


def _times(a: int, b: int) -> int:
    return EXP[(LOG[a] + LOG[b]) % 63] if a and b else 0


def _rank(rows: np.ndarray) -> int:
    rows, rank = rows.copy(), 0
    for column in range(rows.shape[1]):
        below = np.flatnonzero(rows[rank:, column])
        if rank == len(rows) or not len(below):
            continue
        rows[[rank, rank + below[0]]] = rows[[rank + below[0], rank]]
        rows[rank] = code.PRODUCTS[EXP[-LOG[rows[rank, column]] % 63], rows[rank]]
        for i in range(rank + 1, len(rows)):
            rows[i] ^= code.PRODUCTS[rows[i, column], rows[rank]]
        rank += 1
    return rank


def test_the_field() -> None:
    assert all(code.times(a, b) == code.PRODUCTS[a, b] == _times(a, b) for a in range(64) for b in range(64))
    assert sorted(EXP) == list(range(1, 64))


def test_two_codewords_differ_in_at_least_22_places() -> None:
    """Codewords are the values of polynomials of degree below 22 at 43 different elements.

    The powers 1, x, ... x^21 at the places have rank 22, and adding the generator's rows does not change it, so both span
    the same words.  On any 22 places the powers are a Vandermonde matrix of different elements, whose determinant, the
    product of their differences, is not zero.  So a word that is zero on 22 places is zero: others have at most 21 zeros.
    """
    places = list(range(code.LENGTH))
    powers = np.array([[reduce(_times, [x] * i, 1) for x in places] for i in range(22)], dtype=np.int64)
    generator = code.generator()
    assert len(set(places)) == code.LENGTH == 43
    assert _rank(powers) == _rank(generator) == _rank(np.concatenate([powers, generator])) == code.DIMENSION == 22
    assert code.LENGTH - (code.DIMENSION - 1) == code.DISTANCE == 22
    assert code.DISTANCE * code.SYMBOL_BITS == 132
    assert code.SYMBOL_BITS * code.DIMENSION >= 64 * code.MESSAGE_WORDS == 128


def test_random_minors_are_not_zero_and_a_word_of_22_symbols_exists() -> None:
    generator, rng = code.generator(), RNG(1)
    for _ in range(25):
        assert _rank(generator[:, np.sort(rng.permutation(code.LENGTH)[:22])]) == 22
    # the message that is 1 at one place and 0 at 21 others has the least weight there is
    assert (generator != 0).sum(1).tolist() == [22] * 22


def test_a_message_can_be_read_off_its_codeword() -> None:
    assert np.array_equal(code.generator()[:, list(code.PLACES)], np.eye(22, dtype=np.int64))


def _symbols(messages: np.ndarray) -> np.ndarray:
    """(n, LENGTH): codewords of messages (n, 2), from the generator."""
    bits = np.unpackbits(messages.view(np.uint8), axis=1, bitorder="little")
    parts = np.pad(bits, ((0, 0), (0, 4))).reshape(len(messages), 22, 6).astype(np.int64)
    symbols, total = (parts << np.arange(6)).sum(2), np.zeros((len(messages), code.LENGTH), dtype=np.int64)
    for k, row in enumerate(code.generator()):
        total ^= code.PRODUCTS[symbols[:, k][:, None], row]
    return total


@BOTH
def test_tables_make_codewords(form) -> None:
    messages, factors = _words(2, 40, 2), RNG(3).integers(0, 64, code.LENGTH)
    for given, wanted in ((None, _symbols(messages)), (factors, code.PRODUCTS[factors, _symbols(messages)])):
        out = np.zeros((40, code.WORDS + 1), dtype=np.uint64)
        form.add_code(out, messages, *code.tables(given))
        bits = np.unpackbits(out.view(np.uint8), axis=1, bitorder="little")
        assert np.array_equal((bits[:, :258].reshape(40, 43, 6) << np.arange(6)).sum(2), wanted)
        assert not bits[:, 258:].any()


# --- masks


def _leaves(seed: int) -> np.ndarray:
    return RNG(seed).integers(0, 256, (code.LENGTH, 64, 16), dtype=np.uint8)


def _trees(keys: np.ndarray) -> list[list[bytes]]:
    return [[leaf.tobytes() for leaf in tree] for tree in keys]


def _punctured(keys: np.ndarray, delta: np.ndarray) -> np.ndarray:
    """The leaves by distance from delta, with zeros in place of the first."""
    out = keys[np.arange(code.LENGTH)[:, None], np.arange(64) ^ delta[:, None]].copy()
    out[:, 0] = 0
    return out


def _ends(keys: np.ndarray, delta: np.ndarray) -> tuple[Masker, Unmasker]:
    return Masker(_trees(keys)), Unmasker(delta.tolist(), _trees(_punctured(keys, delta)))


def _plane_symbols(planes: np.ndarray) -> np.ndarray:
    """Symbols of 6 planes (6, 8 words) of bits, (512,)."""
    bits = np.unpackbits(np.ascontiguousarray(planes).view(np.uint8), axis=1, bitorder="little")
    return (bits.astype(np.int64) << np.arange(6)[:, None]).sum(0)


@BOTH
def test_masks_are_streams_and_codewords(form) -> None:
    """d and v from AES and the field's products, symbol by symbol."""
    keys, solved, counter = _leaves(30), _words(32, SQUARE, 2), 12
    d, v, spare = form.mask(form.prepared(keys.reshape(-1, 16)), counter, solved, code.tables()[0])
    blocks = b"".join((counter + i).to_bytes(16, "little") for i in range(24))
    bits = np.unpackbits(v.view(np.uint8), axis=1, bitorder="little").T
    bits = np.concatenate([bits, np.unpackbits(spare.view(np.uint8), axis=1, bitorder="little")])
    for tree in (0, 20, 21, 42):
        u, products = np.zeros(SQUARE, dtype=np.int64), np.zeros(SQUARE, dtype=np.int64)
        for leaf in range(64):
            cipher = Cipher(algorithms.AES(keys[tree, leaf].tobytes()), modes.ECB())  # noqa: S305
            stream = _plane_symbols(np.frombuffer(cipher.encryptor().update(blocks), dtype=np.uint64).reshape(6, 8))
            u ^= stream
            products ^= code.PRODUCTS[leaf, stream]
        assert np.array_equal(_plane_symbols(d[0, tree]), u ^ _symbols(solved)[:, tree])
        assert np.array_equal(
            (bits[6 * tree : 6 * tree + 6].astype(np.int64) << np.arange(6)[:, None]).sum(0), products
        )


def test_both_forms_of_the_kernels_agree() -> None:
    keys, delta, solved = _leaves(40), RNG(41).integers(0, 64, code.LENGTH), _words(42, 5 * SQUARE, 2)
    table, punctured = code.tables()[0], _punctured(keys, delta).reshape(-1, 16)
    forms = (wide, wide_numpy)
    both = [form.mask(form.prepared(keys.reshape(-1, 16)), 8, solved, table) for form in forms]
    assert all(np.array_equal(x, y) for x, y in zip(*both))
    other = [form.unmask(form.prepared(punctured), 8, both[0][0], delta) for form in forms]
    assert all(np.array_equal(x, y) for x, y in zip(*other))
    _, v, spare = both[0]
    start = np.sort(RNG(43).integers(0, len(v) - WIDTH + 1, 300))
    start[-1], band, values = len(v) - WIDTH, _words(44, 300, 5), [np.zeros((300, 5), dtype=np.uint64) for _ in forms]
    band[:, 3] &= np.uint64((1 << WIDTH - 192) - 1)
    for form, out in zip(forms, values):
        form.parities(spare, start, band, out)
    assert np.array_equal(*values)
    assert set(values[0][:, 4].tolist()) == {0, 1, 2, 3}
    factors = _words(45, len(v) // TILE, 2)
    assert np.array_equal(*(form.hashed(v, spare, factors) for form in forms))


def test_sums_of_columns_have_all_258_bits() -> None:
    words, spare = _words(50, SQUARE, 4), _words(51, 2, SQUARE // 64)
    bits = [np.unpackbits(x.view(np.uint8), axis=1, bitorder="little") for x in (words, spare)]
    whole = np.concatenate([bits[0], bits[1].T], axis=1)
    start, band = np.array([0, 7, 64, SQUARE - WIDTH]), _words(52, 4, 5)
    band[:, 3] &= np.uint64((1 << WIDTH - 192) - 1)
    found = Columns(words, spare).decode(oprf.Rows(start, band, band[:, 4]))
    for i, at in enumerate(start.tolist()):
        chosen = np.unpackbits(band[i, :4].view(np.uint8), bitorder="little")[:WIDTH]
        expected = np.bitwise_xor.reduce(whole[at : at + WIDTH][chosen.astype(bool)], axis=0)
        got = np.unpackbits(found[i].view(np.uint8), bitorder="little")
        assert np.array_equal(got[:258], expected)
        assert not got[258:].any()


def test_the_sender_has_the_receivers_masks_plus_delta_times_the_codewords() -> None:
    masker, unmasker = _ends(_leaves(60), RNG(61).integers(0, 64, code.LENGTH))
    solved = _words(62, 6 * SQUARE, 2)
    for part in (solved[:SQUARE], solved[SQUARE:]):
        d, v, spare = masker.mask(part)
        w, other = unmasker.unmask(d)
        bits = [np.unpackbits(x.view(np.uint8), axis=1, bitorder="little").astype(np.uint64) for x in (spare, other)]
        expected = np.concatenate([v, (bits[0][0] | bits[0][1] << np.uint64(1))[:, None]], axis=1)
        unmasker.add_code(expected, part)
        assert np.array_equal(expected[:, :4], w)
        assert np.array_equal(expected[:, 4], bits[1][0] | bits[1][1] << np.uint64(1))


# --- the hash


def _product(a: int, b: int) -> int:
    total = reduce(lambda x, i: x ^ (a << i) * (b >> i & 1), range(128), 0)
    for i in range(254, 127, -1):
        total ^= (total >> i & 1) * ((1 << 128 | 0b10000111) << i - 128)
    return total


def _numbers(words: np.ndarray) -> list[int]:
    return [int(low) | int(high) << 64 for low, high in words.tolist()]


def test_the_field_with_2_to_the_128_elements() -> None:
    a, b = _words(70, 20, 2), _words(71, 2)
    number = _numbers(b[None])[0]
    assert _numbers(field128.times(a, b)) == [_product(x, number) for x in _numbers(a)]
    for n in (1, 2, 3, 8, 21):
        expected = [reduce(_product, [number] * (n - 1 - i), 1) for i in range(n)]
        assert _numbers(field128.powers(b, n)) == expected
    # Fermat: the polynomial is irreducible only if x^(2^128) = x, and no smaller power of two does that.
    x = element = np.array([[2, 0]], dtype=np.uint64)
    orders = []
    for i in range(1, 129):
        element = field128.times(element, element[0])
        orders += [i] * np.array_equal(element, x)
    assert orders == [128]


@BOTH
def test_the_hash_is_each_planes_polynomial_at_the_challenge(form) -> None:
    columns, spare, alpha = _words(72, 2 * SQUARE, 2), _words(73, 1, 2 * SQUARE // 64), _words(74, 2)
    tiles = 2 * SQUARE // TILE
    found = _numbers(form.hashed(columns, spare, field128.powers(alpha, tiles)))
    number, bits = _numbers(alpha[None])[0], np.unpackbits(columns.view(np.uint8), axis=1, bitorder="little").T
    planes = [_numbers(np.packbits(row, bitorder="little").view(np.uint64).reshape(-1, 2)) for row in bits]
    planes.append(_numbers(spare.reshape(-1, 2)))
    for plane in (0, 1, 64, 127, 128):
        assert found[plane] == reduce(lambda total, x: _product(total, number) ^ x, planes[plane], 0)


def test_random_columns_at_the_end_hide_all_others() -> None:
    """Whatever the columns are, each hash is that of the last tile plus something that does not depend on it."""
    solved, other, alpha = _words(75, SQUARE, 2), _words(76, SQUARE, 2), _words(77, 2)
    other[: SQUARE - TILE] = solved[: SQUARE - TILE]
    none = np.empty((0, SQUARE // 64), dtype=np.uint64)
    factors = field128.powers(alpha, SQUARE // TILE)
    change = wide.hashed(solved, none, factors) ^ wide.hashed(other, none, factors)
    assert np.array_equal(change, consistency._turned((solved ^ other)[-TILE:]))
    assert all(masked_columns(okvs.columns(n)) - okvs.columns(n) >= TILE for n in range(0, 3000, 7))


# --- cheats, on the ends themselves


def _caught(ends: tuple[Masker, Unmasker], change: Callable, answer: Callable = lambda reply, *_: reply) -> bool:
    """Whether a receiver is caught that sends change(d) and answer(reply, challenge, columns)."""
    masker, unmasker = ends
    solved, challenge = _words(80, 3 * SQUARE, 2), _words(81, 2).tobytes()
    d, v, spare = masker.mask(solved)
    held = Columns(*unmasker.unmask(change(d.copy())))
    reply = answer(consistency.answer(challenge, Columns(v, spare), solved), challenge, d)
    return not consistency.passes(challenge, held, unmasker, reply)


def _at(square: int, place: int, planes: np.ndarray | int, bit: int = 77) -> Callable:
    """Change some planes of one symbol of one column."""

    def change(d: np.ndarray) -> np.ndarray:
        for p in range(6):
            d[square, place, p, bit // 64] ^= np.uint64((planes >> p & 1) << bit % 64)
        return d

    return change


def test_an_honest_receiver_passes() -> None:
    assert not _caught(_ends(_leaves(82), RNG(83).integers(0, 64, code.LENGTH)), lambda d: d)
    assert not _caught(_ends(_leaves(82), np.zeros(code.LENGTH, dtype=np.int64)), lambda d: d)


@pytest.mark.parametrize("guess", [0, 37])
def test_one_wrong_symbol_passes_for_exactly_one_of_64_values_of_delta(guess: int) -> None:
    """The receiver that changes one symbol by e must answer R(v) + Delta R(e), so it has to guess that symbol of Delta.

    The honest answer is the guess 0.  All 64 values of Delta there are tried: 63 of them catch the cheat.
    """
    place, error = 5, 0b101101
    keys, delta = _leaves(84), RNG(85).integers(0, 64, code.LENGTH)

    def answer(reply: bytes, challenge: bytes, d: np.ndarray) -> bytes:
        # The error as columns of v: guess times the changed symbol, hashed as the masks are.
        wrong = np.zeros((3 * SQUARE, code.LENGTH), dtype=np.int64)
        wrong[SQUARE + 77, place] = code.PRODUCTS[guess, error]
        words, _ = code.packed(wrong)
        none = np.zeros((code.SPARE, 3 * SQUARE // 64), dtype=np.uint64)
        factors = consistency._factors(challenge, 3 * SQUARE)
        out = np.frombuffer(reply, dtype=np.uint64).reshape(-1, 2).copy()
        out[: consistency.PLANES] ^= wide.hashed(words, none, factors)
        return out.tobytes()

    missed = []
    for value in range(64):
        delta[place] = value
        if not _caught(_ends(keys, delta), _at(1, place, error), answer):
            missed.append(value)
    assert missed == [guess]


@pytest.mark.parametrize("square", [0, 2], ids=["among the store's columns", "among the random columns at the end"])
def test_wrong_symbols_in_several_places_of_a_column(square: int) -> None:
    """k wrong symbols pass only if Delta is 0, or what was guessed, in all k places."""
    delta = RNG(86).integers(1, 64, code.LENGTH)
    delta[7] = 0

    def change(places):
        return lambda d: reduce(lambda out, place: _at(square, place, 0b1)(out), places, d)

    assert not _caught(_ends(_leaves(87), delta), change([7]))  # the one in 64
    for places in ([6], [7, 8], range(22), range(43)):
        assert _caught(_ends(_leaves(87), delta), change(places))


@pytest.mark.parametrize("columns", [2, 100, 3 * SQUARE])
def test_many_wrong_columns(columns: int) -> None:
    def change(d: np.ndarray) -> np.ndarray:
        for i in range(columns):
            _at(i // SQUARE, i % code.LENGTH, 0b1, i % SQUARE)(d)
        return d

    assert _caught(_ends(_leaves(88), RNG(89).integers(1, 64, code.LENGTH)), change)


def test_another_codeword_is_no_cheat_and_needs_the_answer_that_fits() -> None:
    """Masking C(P') in place of C(P) is an honest receiver with P', which has to answer with the hash of P'."""
    ends = _ends(_leaves(90), RNG(91).integers(1, 64, code.LENGTH))
    other = np.zeros((3 * SQUARE, 2), dtype=np.uint64)
    other[100] = _words(92, 2)
    words, _ = code.packed(_symbols(other))
    planes = np.zeros((258, 3 * SQUARE // 64), dtype=np.uint64)
    planes[:256] = wide_numpy._words(wide_numpy._bits(words).T)
    added = planes.reshape(43, 6, 3, 8).transpose(2, 0, 1, 3)

    def answer(reply: bytes, challenge: bytes, _: np.ndarray) -> bytes:
        out = np.frombuffer(reply, dtype=np.uint64).reshape(-1, 2).copy()
        none = np.empty((0, 3 * SQUARE // 64), dtype=np.uint64)
        out[consistency.PLANES :] ^= wide.hashed(other, none, consistency._factors(challenge, 3 * SQUARE))
        return out.tobytes()

    assert _caught(ends, lambda d: d ^ added)
    assert not _caught(_ends(_leaves(90), RNG(91).integers(1, 64, code.LENGTH)), lambda d: d ^ added, answer)


@pytest.mark.parametrize("at", [0, 16 * 255, 16 * 257 + 15, 16 * 258, consistency.ANSWER_BYTES - 1])
def test_wrong_answers(at: int) -> None:
    def flipped(reply: bytes, *_: object) -> bytes:
        return reply[:at] + bytes([reply[at] ^ 1]) + reply[at + 1 :]

    assert _caught(_ends(_leaves(93), RNG(94).integers(1, 64, code.LENGTH)), lambda d: d, flipped)


# --- trees


@pytest.fixture
def _quick() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vole, "BaseTransfers", QuickTransfers)
        yield


def _set_up() -> tuple[vole.Choice, Masker, bytes]:
    noise = fresh_prg()
    scalar = X25519PrivateKey.from_private_bytes(bytes(range(32)))
    choice = vole.Choice(SESSION, scalar.public_key().public_bytes_raw(), noise, wide_vole.SHAPE)
    masker, message = wide_vole.grow(SESSION, scalar, choice.points, noise)
    assert len(choice.points) == wide_vole.SHAPE.points_bytes == 16_512
    assert len(message) == wide_vole.TREES_BYTES == 9664
    return choice, masker, message


def test_trees_from_real_transfers() -> None:
    choice, masker, message = _set_up()
    unmasker = wide_vole.unmasker(choice, SESSION, message)
    solved, challenge = _words(100, 2 * SQUARE, 2), bytes(range(16))
    d, v, spare = masker.mask(solved)
    held = Columns(*unmasker.unmask(d))
    assert consistency.passes(challenge, held, unmasker, consistency.answer(challenge, Columns(v, spare), solved))


@pytest.mark.usefixtures("_quick")
def test_a_wrong_sum_is_caught_where_the_sender_uses_it() -> None:
    """Of a level's two sums the sender uses the one away from its leaf.  The other one, changed, changes nothing.

    So one wrong sum passes for half of the leaves, and the receiver then knows one bit of Delta: what a right guess of
    that bit would have told it.  Two wrong sums of a level never pass.
    """
    choice, _, message = _set_up()
    size, seen = wide_vole.SHAPE.tree_bytes, set()
    leaves = [leaf for tree in choice.leaves(message) for leaf in tree]
    for tree in range(0, 43, 6):
        for level in (0, 3, 5):
            bit = choice.delta[tree] >> 5 - level & 1
            for side in (0, 1):
                at = size * tree + 16 * (2 * level + side) + 3
                wrong = message[:at] + bytes([message[at] ^ 64]) + message[at + 1 :]
                used = side != bit
                seen.add((used, level))
                if used:
                    with pytest.raises(ValueError, match="the sums of a tree contradict its leaves"):
                        wide_vole.unmasker(choice, SESSION, wrong)
                else:
                    wide_vole.unmasker(choice, SESSION, wrong)
                    assert [leaf for part in choice.leaves(wrong) for leaf in part] == leaves
    assert len(seen) == 6


@pytest.mark.usefixtures("_quick")
def test_wrong_check_values_are_always_caught() -> None:
    choice, _, message = _set_up()
    start = wide_vole.SHAPE.sums_bytes
    for at in (start, start + 31, start + 32 * 42, len(message) - 32, len(message) - 1):
        wrong = message[:at] + bytes([message[at] ^ 1]) + message[at + 1 :]
        with pytest.raises(ValueError, match="contradict"):
            wide_vole.unmasker(choice, SESSION, wrong)
    with pytest.raises(ValueError, match="contradict"):
        wide_vole.unmasker(choice, bytes(31) + b"x", message)


# --- whole runs


def _pair(x: np.ndarray, y: np.ndarray, batches: int = 1) -> dict[str, Callable]:
    def receive(channel):
        function = Receiver(channel, "platform", SESSION, security="malicious")
        return [function.evaluate(x) for _ in range(batches)]

    def send(channel):
        function = Sender(channel, "lender", SESSION, security="malicious")
        return [function.serve(len(x)).evaluate(y) for _ in range(batches)]

    return {"lender": receive, "platform": send}


X, Y = _points(110, 300), np.concatenate([_points(110, 300)[100:150], _points(111, 60)])
Y = Y[kernels.order(Y)]


@pytest.mark.usefixtures("_quick")
@pytest.mark.parametrize("n", [0, 1, 300, 4000])
def test_cost_and_shape_depend_on_the_number_of_points_only(n: int) -> None:
    runs = [run_parties(_pair(_points(seed, n), Y, 2)) for seed in (112, 113)]
    assert runs[0].shape() == runs[1].shape()
    c = -(-(-(-11 * n // 10) + 224) // 128) * 128
    m = -(-(c + 128) // 512) * 512
    assert runs[0].bytes_sent("lender") == 32 + 9664 + 2 * (6209 + int(32.25 * m))
    assert runs[0].bytes_sent("platform") == 16_512 + 2 * 16


@pytest.mark.usefixtures("_quick")
def test_in_parts_and_in_small_messages_the_function_is_the_same(monkeypatch) -> None:
    monkeypatch.setattr(oprf, "AT_ONCE", 64)
    monkeypatch.setattr(oprf, "CHUNK_TILES", 1)
    run = run_parties(_pair(X, Y))
    assert sum(m.tag == "matching/masked" for m in run.transcript) == 2
    (got,), (made,) = run["lender"], run["platform"]
    assert len(np.intersect1d(got[:, 0], made[:, 0])) == 50


@pytest.mark.usefixtures("_quick")
def test_what_the_sender_sees_is_uniform_whatever_the_points_are() -> None:
    """The masked columns and the hashes, by the number of ones in each of their bits' places."""
    for x in (X[:0], X):
        runs = [run_parties(_pair(x, Y)) for _ in range(4)]
        for tag in ("matching/masked", "matching/answer"):
            bodies = [b"".join(m.body for m in run.transcript if m.tag == tag) for run in runs]
            bits = np.unpackbits(np.frombuffer(b"".join(bodies), dtype=np.uint8))
            assert abs(bits.mean() - 0.5) < 6 * 0.5 / np.sqrt(len(bits))
            words = np.frombuffer(b"".join(bodies), dtype=np.uint64)
            assert len(np.unique(words)) == len(words)


@pytest.mark.usefixtures("_quick")
def test_no_block_of_a_stream_is_used_twice(monkeypatch) -> None:
    spent: dict[bytes, list[range]] = {}
    for name, real, each in (("mask", wide.mask, SQUARE), ("unmask", wide.unmask, 1)):

        def recorded(keys, counter, columns, other, real=real, each=each):
            spent.setdefault(keys.tobytes(), []).append(range(counter, counter + 24 * len(columns) // each))
            return real(keys, counter, columns, other)

        monkeypatch.setattr(wide, name, recorded)
    monkeypatch.setattr(oprf, "CHUNK_TILES", 4)
    for _ in range(2):
        run_parties(_pair(X, Y, 2))
    assert len(spent) == 4  # two sides, two runs
    for ranges in spent.values():
        assert [r.start for r in ranges] == [0, *(r.stop for r in ranges[:-1])]
        assert ranges[-1].stop == 24 * 2 * masked_columns(okvs.columns(300)) // SQUARE


@pytest.mark.usefixtures("_quick")
def test_without_compiled_kernels_the_same_is_sent(monkeypatch) -> None:
    def played():
        keys = iter(bytes([i]) * 32 for i in range(100))
        for module in (oprf, malicious):
            monkeypatch.setattr(module, "fresh_prg", lambda: Prg(next(keys)))
        run = run_parties(_pair(X, Y))
        return run.transcript, run["lender"][0].tolist(), run["platform"][0].tolist()

    compiled = played()
    for module in (hashes, okvs, vole):
        monkeypatch.setattr(module, "kernels", kernels_numpy)
    for module in (wide_vole, consistency):
        monkeypatch.setattr(module, "wide", wide_numpy)
    assert played() == compiled


def _blamed(run: Run) -> tuple[str, str]:
    """Of the sender, which must not have a result."""
    assert "platform" not in run.results
    error = run.errors["platform"]
    assert isinstance(error, RemoteProtocolError)
    return error.party, error.tag


def _changed(tag: str, change: Callable[[bytes], bytes], number: int = 0) -> Callable:
    """Tamper with one message of a tag."""
    seen = []

    def tamper(m):
        if m.tag != f"matching/{tag}":
            return m
        seen.append(m)
        return replace(m, body=change(m.body)) if len(seen) == number + 1 else m

    return tamper


def _all_places(body: bytes, column: int) -> bytes:
    """One column's lowest bit in each of the 43 places; passes with a probability of 2^-258."""
    d = np.frombuffer(body, dtype=np.uint64).reshape(-1, 43, 6, 8).copy()
    d[column // 512, :, 0, column % 512 // 64] ^= np.uint64(1 << column % 64)
    return d.tobytes()


@pytest.mark.usefixtures("_quick")
@pytest.mark.parametrize("column", [0, 500, 1023], ids=["first", "of the store", "of the random ones"])
def test_columns_that_are_no_codewords_end_the_run(column: int) -> None:
    """The store has 640 columns; with those at the end they are 1,024."""
    run = try_parties(_pair(X, Y), tamper=_changed("masked", lambda body: _all_places(body, column)))
    assert _blamed(run) == ("lender", "matching/answer")
    assert "codewords" in str(run.errors["platform"])


@pytest.mark.usefixtures("_quick")
@pytest.mark.parametrize("tag", ["answer", "challenge"])
def test_answers_to_something_else_end_the_run(tag: str) -> None:
    flipped = _changed(tag, lambda body: bytes([body[0] ^ 1]) + body[1:])
    assert _blamed(try_parties(_pair(X, Y), tamper=flipped)) == ("lender", "matching/answer")


@pytest.mark.usefixtures("_quick")
@pytest.mark.parametrize("tag", ["masked", "answer"])
def test_replays_from_the_batch_before_end_the_run(tag: str) -> None:
    bodies: list[bytes] = []

    def kept(body: bytes) -> bytes:
        bodies.append(body)
        return bodies[0]

    both = [_changed(tag, kept, 0), _changed(tag, kept, 1)]
    run = try_parties(_pair(X, Y, 2), tamper=lambda m: both[1](both[0](m)))
    assert _blamed(run) == ("lender", "matching/answer")
    assert sum(m.tag == "matching/attempt" for m in run.transcript) == 2


@pytest.mark.usefixtures("_quick")
def test_wrong_sums_of_both_sides_end_the_run() -> None:
    run = try_parties(_pair(X, Y), tamper=_changed("trees", lambda body: bytes(b ^ 1 for b in body[:32]) + body[32:]))
    assert _blamed(run) == ("lender", "matching/trees")


@pytest.mark.usefixtures("_quick")
@pytest.mark.parametrize("how", ["short", "long", "lost"])
@pytest.mark.parametrize("tag", ["public", "points", "trees", "attempt", "masked", "challenge", "answer"])
def test_malformed_messages_name_who_sent_them(tag: str, how: str) -> None:
    def change(m):
        if m.tag != f"matching/{tag}":
            return m
        return None if how == "lost" else replace(m, body=m.body[:-1] if how == "short" else m.body + b"x")

    run = try_parties(_pair(X, Y), tamper=change)
    sender = "platform" if tag in ("points", "challenge") else "lender"
    error = run.errors["lender" if sender == "platform" else "platform"]
    assert isinstance(error, (PeerLost, RemoteProtocolError) if how == "lost" else RemoteProtocolError)
    assert error.party == sender


@pytest.mark.usefixtures("_quick")
def test_after_a_cheat_the_sender_serves_nobody() -> None:
    def send(channel):
        function = Sender(channel, "lender", SESSION, security="malicious")
        with pytest.raises(RemoteProtocolError):
            function.serve(len(X))
        function.serve(len(X))

    run = try_parties(
        {**_pair(X, Y, 2), "platform": send}, tamper=_changed("masked", lambda body: _all_places(body, 9))
    )
    assert isinstance(run.errors["platform"], LocalProtocolError)
    assert "refused before" in str(run.errors["platform"])


@pytest.mark.usefixtures("_quick")
def test_the_receivers_nonce_is_part_of_the_functions_key() -> None:
    run = run_parties(_pair(X, Y), tamper=_changed("attempt", lambda body: body[:-1] + bytes([body[-1] ^ 1])))
    assert not np.intersect1d(run["lender"][0], run["platform"][0]).size
    nonces = [m.body[1:] for _ in range(2) for m in run_parties(_pair(X, Y)).transcript if m.tag == "matching/attempt"]
    assert len(set(nonces)) == 2
    assert all(len(nonce) == 32 for nonce in nonces)


@pytest.mark.usefixtures("_quick")
def test_challenges_are_fresh_and_come_after_all_that_they_are_about(monkeypatch) -> None:
    monkeypatch.setattr(oprf, "CHUNK_TILES", 4)
    seen = []
    for _ in range(2):
        run = run_parties(_pair(X, Y, 2))
        batch = ["attempt", "masked", "masked", "challenge", "answer"]
        assert [m.tag for m in run.transcript[3:]] == [f"matching/{tag}" for tag in batch * 2]
        seen += [m.body for m in run.transcript if m.tag == "matching/challenge"]
    assert len(set(seen)) == 4
    for i in range(16):
        assert len({body[i] for body in seen}) > 1  # the same byte four times: 2^-24


@pytest.mark.usefixtures("_quick")
@pytest.mark.parametrize("careful", ["lender", "platform"])
def test_both_ends_must_have_the_same_variant(careful: str) -> None:
    level = {name: "malicious" if name == careful else "semi-honest" for name in ("lender", "platform")}
    run = try_parties(
        {
            "lender": lambda c: Receiver(c, "platform", SESSION, security=level["lender"]).evaluate(X),
            "platform": lambda c: Sender(c, "lender", SESSION, security=level["platform"]).serve(len(X)),
        }
    )
    assert isinstance(run.errors["lender"], RemoteProtocolError)
    assert run.errors["lender"].tag == "matching/points"
    assert not run.results


@pytest.mark.parametrize("end", [Receiver, Sender])
def test_other_variants_are_our_own_mistake(end) -> None:
    run = try_parties({"lender": lambda c: end(c, "platform", SESSION, security="covert"), "platform": lambda _: None})
    assert str(run.errors["lender"]) == "security is semi-honest or malicious, got 'covert'"
    assert isinstance(run.errors["lender"], LocalProtocolError)
    assert run.transcript == []
