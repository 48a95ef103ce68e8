"""The parts of fast set intersection: the code's distance, hashes, the key-value store, masks, and both forms of kernels."""

from __future__ import annotations

from functools import reduce

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from mpc.matching import code, hashes, kernels_numpy, okvs, vole
from mpc.matching.kernels import kernels, warm_up
from mpc.matching.parameters import TILE, WIDTH
from mpc.matching.protocol import bucket_bits, intersect
from mpc.rng import fresh_prg
from tests.harness import run_parties, try_parties

BOTH = pytest.mark.parametrize("form", [kernels, kernels_numpy], ids=["chosen", "numpy"])
RNG = np.random.default_rng


def _words(seed: int, *shape: int) -> np.ndarray:
    return RNG(seed).integers(0, 2**64, shape, dtype=np.uint64)


# --- the code

# Another construction of GF(16): powers of a root of x^4 + x + 1.
EXP = reduce(lambda out, _: [*out, (out[-1] << 1) ^ (0b10011 if out[-1] & 8 else 0)], range(14), [1])
LOG = {value: i for i, value in enumerate(EXP)}


def _times(a: int, b: int) -> int:
    return EXP[(LOG[a] + LOG[b]) % 15] if a and b else 0


def _power(a: int, n: int) -> int:
    return reduce(_times, [a] * n, 1)


def _reduced(rows: np.ndarray) -> tuple[np.ndarray, list[int]]:
    """Reduced row echelon form over GF(16), and the pivots."""
    rows, pivots = rows.copy(), []
    for column in range(rows.shape[1]):
        at = len(pivots)
        below = np.flatnonzero(rows[at:, column])
        if at == len(rows) or not len(below):
            continue
        rows[[at, at + below[0]]] = rows[[at + below[0], at]]
        rows[at] = code.PRODUCTS[EXP[-LOG[rows[at, column]] % 15], rows[at]]
        for i in range(len(rows)):
            if i != at:
                rows[i] ^= code.PRODUCTS[rows[i, column], rows[at]]
        pivots.append(column)
    return rows[: len(pivots)], pivots


def _evaluations(functions, places) -> np.ndarray:
    return np.array([[_times(_power(x, i), _power(y, j)) for x, y in places] for i, j in functions], dtype=np.int64)


def test_the_field() -> None:
    assert all(code.times(a, b) == code.PRODUCTS[a, b] == _times(a, b) for a in range(16) for b in range(16))
    assert sorted(EXP) == list(range(1, 16))


def test_the_generator_is_the_values_of_the_functions_with_small_poles() -> None:
    places = code.points()
    assert len(set(places)) == len(places) == 64
    assert all(_power(y, 4) ^ y == _power(x, 5) for x, y in places)
    orders = [4 * i + 5 * j for i, j in code.monomials()]
    assert len(set(orders)) == len(orders) == code.DIMENSION == 16
    # every order up to 21 that there is: the semigroup of 4 and 5 has the genus' 6 gaps, 1, 2, 3, 6, 7 and 11
    assert sorted(orders) == [0, 4, 5, 8, 9, 10, *range(12, 22)]
    assert np.array_equal(code.generator(), _evaluations(code.monomials(), places[: code.LENGTH]))
    assert len(_reduced(code.generator())[1]) == 16


def test_two_codewords_differ_in_at_least_32_places() -> None:
    """The order bound of Andersen and Geil, from ranks over GF(16) and sums of pole orders.

    Let f have pole order s.  Its products with functions of pole orders t have pole orders s + t.  Where s + t is one of
    the orders at which the rank of all values at the 64 points grows, the values of these products are independent; all
    vanish wherever f does.  So f has at least as many values that are not zero.
    """
    functions = sorted(((i, j) for i in range(16) for j in range(4)), key=lambda f: 4 * f[0] + 5 * f[1])
    values = _evaluations(functions, code.points())
    # x^16 = x at every point, so functions with higher powers of x add nothing to these, which have full rank
    assert len(_reduced(values)[1]) == 64
    orders = {4 * i + 5 * j for i, j in functions}
    assert len(orders) == 64
    least = min(sum(s + t in orders for t in orders) for s in (4 * i + 5 * j for i, j in code.monomials()))
    assert least == 64 - code.POLE_ORDER == 43
    assert least - (64 - code.LENGTH) == code.DISTANCE == 32
    assert code.DISTANCE * code.SYMBOL_BITS == 128


def test_searches_find_no_lighter_codeword() -> None:
    """Random messages; and from random sets of 16 places that decide a codeword, those that vanish on 15 or 14 of them."""
    rng, generator = RNG(1), code.generator()
    messages = rng.integers(0, 16, (20_000, 16))
    words = np.zeros((20_000, code.LENGTH), dtype=np.int64)
    for k in range(16):
        words ^= code.PRODUCTS[messages[:, k][:, None], generator[k]]
    found = [(words != 0).sum(1)[messages.any(1)].min()]
    for _ in range(12):
        rows, _ = _reduced(generator[:, rng.permutation(code.LENGTH)])
        found.append((rows != 0).sum(1).min())
        pairs = rows[:, None, None, :] ^ code.PRODUCTS[np.arange(1, 16)][:, rows].transpose(1, 0, 2)[None]
        weights = (pairs != 0).sum(-1)
        found.append(weights[~np.eye(16, dtype=bool)].min())
    # products of five lines x = a have 20 zeros
    lines = code.points()[: code.LENGTH]
    for shift in range(16):
        word = [reduce(_times, [x ^ a ^ shift for a in range(5)]) for x, _ in lines]
        found.append(sum(value != 0 for value in word))
    assert min(found) >= code.DISTANCE
    assert min(found) <= 36  # the searches do come near


def test_tables_make_codewords() -> None:
    messages, factors = _words(2, 20), RNG(3).integers(0, 16, code.LENGTH)
    expected = np.zeros((20, code.LENGTH), dtype=np.int64)
    for k in range(16):
        symbol = (messages >> np.uint64(4 * k) & np.uint64(15)).astype(np.int64)
        expected ^= code.PRODUCTS[symbol[:, None], code.generator()[k]]
    for given, wanted in ((None, expected), (factors, code.PRODUCTS[factors, expected])):
        out = np.zeros((20, code.WORDS), dtype=np.uint64)
        kernels_numpy.add_code(out, messages, code.tables(given))
        nibbles = out[:, :, None] >> np.arange(0, 64, 4, dtype=np.uint64) & np.uint64(15)
        assert np.array_equal(nibbles.reshape(20, 64)[:, : code.LENGTH], wanted)
        assert not nibbles.reshape(20, 64)[:, code.LENGTH :].any()


# --- hashes


@BOTH
@pytest.mark.parametrize(
    ("size", "digest"),
    [
        (0, "92b2b75604ed3c761f9d6f62392c8a92"),
        (1, "6d7878dfff2f485635d39013278ae14f"),
        (1023, "c951ecdf03288d0fcc96ee3413563d8a"),
        (1024, "75c46f6f3d9eb4f55ecaaee480db732e"),
    ],
)
def test_blake3_test_vectors(form, size: int, digest: str) -> None:
    """test_vectors/test_vectors.json of BLAKE3-team/BLAKE3, keyed_hash, first 16 bytes."""
    key = np.frombuffer(b"whats the Elvish word for friend", dtype=np.uint32)
    data = np.frombuffer(bytes(i % 251 for i in range(size)) + bytes(64), dtype=np.uint8)
    assert form.hash_items(key, data, np.array([0, size])).tobytes().hex() == digest


def test_rows_are_the_same_hash_as_items() -> None:
    key, words = _words(4, 4).view(np.uint32), _words(5, 21, 6)
    data = np.concatenate([words.reshape(-1).view(np.uint8), np.zeros(64, dtype=np.uint8)])
    expected = kernels.hash_items(key, data, np.arange(22) * 48)
    assert np.array_equal(kernels.hash_rows(key, words[:, :4].copy(), words[:, 4:].copy(), 2), expected)


def test_identifiers_are_bound_to_the_session() -> None:
    items = [b"a", b"b" * 2000]
    seen = [hashes.identify(items, session).words for session in (b"s", b"t", b"u")]
    assert len({word for words in seen for word in words.reshape(-1).tolist()}) == 18
    assert len({hashes.bound_key("x", *parts) for parts in ((b"ab",), (b"a", b"b"), (b"", b"ab"))}) == 3


@BOTH
def test_order_is_by_both_words(form) -> None:
    words = np.array([[5, 9], [5, 1], [2**64 - 1, 0], [2, 3], [5, 4]], dtype=np.uint64)
    assert form.order(words).tolist() == [3, 1, 4, 0, 2]
    assert form.order(words[:0]).tolist() == []
    many = _words(8, 3000, 4)
    assert form.order(many).tolist() == sorted(range(3000), key=lambda i: many[i].tolist())


def test_starts_follow_the_identifiers_and_reach_the_first_and_last_place() -> None:
    words = np.sort(np.concatenate([_words(6, 500, 2), np.array([[0, 0], [2**64 - 1, 0]], dtype=np.uint64)]), axis=0)
    rows = hashes.expand(words, bytes(32), 1024)
    assert np.all(np.diff(rows.start) >= 0)
    assert (rows.start[0], rows.start[-1]) == (0, 1024 - WIDTH)
    exact = [int(word) * (1024 - WIDTH + 1) >> 64 for word in words[:, 0]]
    assert rows.start.tolist() == exact
    assert not np.any(rows.band[:, 3] >> np.uint64(WIDTH - 192))


@pytest.mark.parametrize("n", [0, 1, 2, 100, 2**20, 2**22])
def test_tags_are_long_enough(n: int) -> None:
    """40 bits beyond the logarithm of the number of pairs, for whatever the other side has."""
    assert 64 + bucket_bits(n + 1) >= 40 + np.log2(2**22) + np.log2(n + 1)


# --- the key-value store


def _rows(seed: int, n: int, n_columns: int, width: int = WIDTH) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    start = np.sort(RNG(seed).integers(0, n_columns - width + 1, n))
    band, values = _words(seed + 1, n, 4), _words(seed + 2, n)
    for q in range(4):
        kept = min(max(width - 64 * q, 0), 64)
        band[:, q] &= np.uint64((1 << kept) - 1)
    return start, band, values


@pytest.mark.parametrize("k", [1, 3, 4, 6])
@pytest.mark.parametrize("n", [0, 1, 2, 300, 5000])
def test_every_key_has_its_values_and_free_columns_stay(n: int, k: int) -> None:
    m = okvs.columns(n)
    start, band, _ = _rows(10, n, m)
    values, free = _words(11, n, k), _words(12, m, k)
    solved = okvs.solve(start, band, values, free.copy())
    assert solved is not None
    assert np.array_equal(okvs.decode(solved, start, band), values)
    assert np.count_nonzero(np.all(solved == free, axis=1)) == m - n


def test_number_of_columns() -> None:
    for n in (0, 1, 1000, 2**20):
        assert okvs.columns(n) % TILE == 0
        assert 0 <= okvs.columns(n) - WIDTH - 1.1 * n < TILE + 1


@BOTH
def test_dependent_rows_are_noticed(form) -> None:
    start, band, values = _rows(20, 50, okvs.columns(50))
    band[31], start[31] = band[30], start[30]
    solved = np.zeros((okvs.columns(50), 1), dtype=np.uint64)
    assert not form.solve(start, band, values[:, None], solved)
    assert not solved.any()


def _failures(n: int, width: int, trials: int) -> int:
    m = -(-int(1.1 * n + width) // 4) * 4
    failed, free = 0, np.empty((m, 1), dtype=np.uint64)
    for t in range(trials):
        start, band, values = _rows(1000 * width + 7 * t, n, m, width)
        failed += okvs.solve(start, band, values[:, None], free) is None
    return failed


def test_failures_are_as_rare_as_the_rule_says() -> None:
    """The rule is 2^-(0.2691 w - 15.21); at the real width, 224, that is 2^-45, which nobody can watch.

    Narrow bands do fail: no more often than the rule says, and with every 8 bits less often by the factor of its slope.
    """
    assert _failures(1 << 16, 64, 40) <= 40 * 2 ** -(0.2691 * 64 - 15.21)
    failures = {width: _failures(1 << 12, width, 300) for width in (32, 40, 48, 56, 64)}
    assert failures[32] > 30
    for width in (32, 40, 48, 56):
        # three standard deviations of a Poisson number more than the slope allows
        bound = failures[width] * 2 ** (-0.2691 * 8)
        assert failures[width + 8] <= bound + 3 * np.sqrt(bound) + 1
    assert _failures(1 << 12, WIDTH, 50) == 0


# --- masks


def _leaves(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All leaves, Delta, and the leaves by distance from it with zeros in place of the first."""
    keys = RNG(seed).integers(0, 256, (code.LENGTH, 16, 16), dtype=np.uint8)
    delta = RNG(seed + 1).integers(0, 16, code.LENGTH)
    punctured = keys[np.arange(code.LENGTH)[:, None], np.arange(16) ^ delta[:, None]].copy()
    punctured[:, 0] = 0
    return keys.reshape(-1, 16), delta, punctured.reshape(-1, 16)


@BOTH
def test_masks_are_streams_and_codewords(form) -> None:
    """d and v from AES and the field's products, symbol by symbol."""
    keys, _, _ = _leaves(30)
    solved, counter = _words(32, TILE), 12
    d, v = form.mask(form.prepared(keys), counter, solved, code.tables())
    blocks = b"".join((counter + i).to_bytes(16, "little") for i in range(4))
    codewords = np.zeros((TILE, code.WORDS), dtype=np.uint64)
    kernels_numpy.add_code(codewords, solved, code.tables())
    for tree in (0, 1, 15, 16, 52):
        u, products = np.zeros(TILE, dtype=np.int64), np.zeros(TILE, dtype=np.int64)
        for leaf in range(16):
            cipher = Cipher(algorithms.AES(keys[16 * tree + leaf].tobytes()), modes.ECB())  # noqa: S305
            raw = cipher.encryptor().update(blocks)
            symbols = np.array([[b & 15, b >> 4] for b in raw]).reshape(-1)
            u ^= symbols
            products ^= code.PRODUCTS[leaf, symbols]
        at = np.uint64(4 * (tree % 16))
        sent = np.array([[b & 15, b >> 4] for b in d[0, tree].tobytes()]).reshape(-1)
        assert np.array_equal(sent, u ^ (codewords[:, tree // 16] >> at & np.uint64(15)).astype(np.int64))
        assert np.array_equal((v[:, tree // 16] >> at & np.uint64(15)).astype(np.int64), products)
    assert not np.any(v[:, 3] >> np.uint64(20))


def test_the_sender_has_the_receivers_masks_plus_delta_times_the_codewords() -> None:
    keys, delta, punctured = _leaves(40)
    solved = _words(42, 11 * TILE)
    d, v = kernels.mask(kernels.prepared(keys), 4, solved, code.tables())
    w = kernels.unmask(kernels.prepared(punctured), 4, d, delta)
    kernels.add_code(v, solved, code.tables(delta))
    assert np.array_equal(v, w)


def test_trees_from_real_transfers() -> None:
    session, noise = bytes(32), fresh_prg()
    scalar = X25519PrivateKey.from_private_bytes(bytes(range(32)))
    choice = vole.Choice(session, scalar.public_key().public_bytes_raw(), noise)
    masker, sums = vole.grow(session, scalar, choice.points, noise)
    unmasker = choice.unmasker(sums)
    solved = _words(50, 3 * TILE)
    for part in (solved[:TILE], solved[TILE:]):
        d, v = masker.mask(part)
        unmasker.add_code(v, part)
        assert np.array_equal(v, unmasker.unmask(d))
    with pytest.raises(ValueError):
        vole.grow(session, scalar, bytes(len(choice.points)), noise)
    with pytest.raises(ValueError):
        vole.Choice(session, bytes(32), noise)


@pytest.mark.parametrize(("tag", "party"), [("points", "lender"), ("public", "platform")])
def test_keys_and_points_of_low_order_are_the_senders_fault(tag: str, party: str) -> None:
    from dataclasses import replace

    pair = {
        "lender": lambda c: intersect([b"x"], "platform", b"s", c, 0, True),
        "platform": lambda c: intersect([b"x"], "lender", b"s", c, 0, False),
    }
    run = try_parties(pair, tamper=lambda m: replace(m, body=bytes(m.size)) if m.tag == f"matching/{tag}" else m)
    assert run.errors[party].tag == f"matching/{tag}"


def test_a_run_with_real_transfers() -> None:
    a, b = [b"%d" % i for i in range(300)], [b"%d" % i for i in range(200, 700)]
    run = run_parties(
        {
            "lender": lambda c: intersect(a, "platform", b"session", c, 100, True),
            "platform": lambda c: intersect(b, "lender", b"session", c, 100, False),
        }
    )
    assert sorted(run["lender"].rows.tolist()) == list(range(200, 300))
    assert [a[i] for i in run["lender"].rows] == [b[i] for i in run["platform"].rows]


# --- both forms


def test_both_forms_of_the_kernels_agree() -> None:
    compiled, plain = kernels, kernels_numpy
    key = _words(60, 4).view(np.uint32)
    sizes = [0, 1, 3, 4, 63, 64, 65, 127, 128, 129, 500, 1024, 7]
    data, offsets = RNG(61).integers(0, 256, sum(sizes) + 64, dtype=np.uint8), np.cumsum([0, *sizes])
    assert np.array_equal(compiled.hash_items(key, data, offsets), plain.hash_items(key, data, offsets))
    pair = (_words(62, 37, 4), _words(63, 37, 2))
    assert np.array_equal(compiled.hash_rows(key, *pair, 5), plain.hash_rows(key, *pair, 5))
    n = 700
    m = okvs.columns(n)
    rows = _rows(64, n, m)
    values, found = _words(65, n, 2), [_words(66, m, 2), _words(66, m, 2)]
    assert all(form.solve(*rows[:2], values, here) for form, here in zip((compiled, plain), found))
    assert np.array_equal(*found)
    solved, columns = found[0][:, 0].copy(), _words(67, m, 4)
    assert np.array_equal(compiled.decode(columns, *rows[:2]), plain.decode(columns, *rows[:2]))
    keys, delta, punctured = _leaves(68)
    both = [form.mask(form.prepared(keys), 8, solved, code.tables()) for form in (compiled, plain)]
    assert all(np.array_equal(x, y) for x, y in zip(*both))
    w = [form.unmask(form.prepared(punctured), 8, both[0][0], delta) for form in (compiled, plain)]
    assert np.array_equal(*w)
    a, b = (np.unique(RNG(i).integers(0, 3, (9, 2), dtype=np.uint64), axis=0) for i in (69, 70))
    assert np.array_equal(compiled.merge(a, b), plain.merge(a, b))


def test_warm_up_runs_every_kernel() -> None:
    warm_up()
