"""Ring kernels: exact against Python's integers, for any shape and layout, the same with and without numba."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mpc import ring, ring_numba, ring_numpy
from mpc.ring import histogram, matmul, times, transpose_matmul, transpose_times
from mpc.triples import product

WORDS = {64: np.uint64, 32: np.uint32}
INTEGERS = (np.int16, np.int32, np.int64)
LAYOUTS = ("C", "F", "strided", "reversed", "read-only", "unaligned")
EXTREMES = (0, 1, -1, 2**15, -(2**15), 2**31, -(2**31), 2**63 - 1, -(2**63))


def drawn(shape: tuple[int, ...], dtype: type, seed: int, extreme: bool) -> np.ndarray:
    rng = np.random.default_rng(seed)
    if extreme:
        return rng.choice(np.array(EXTREMES, dtype=np.int64), shape).astype(dtype)
    info = np.iinfo(dtype)
    return rng.integers(info.min, info.max, shape, dtype=dtype, endpoint=True)


def laid_out(x: np.ndarray, layout: str) -> np.ndarray:
    """The same values in another layout of memory."""
    if layout == "F":
        return np.asfortranarray(x)
    if layout == "strided":
        wide = np.zeros([2 * n for n in x.shape], dtype=x.dtype)
        wide[tuple(slice(None, None, 2) for _ in x.shape)] = x
        return wide[tuple(slice(None, None, 2) for _ in x.shape)]
    if layout == "reversed":
        return x[::-1].copy()[::-1]
    if layout == "unaligned":
        raw = np.frombuffer(b"\0" + x.tobytes(), dtype=np.uint8)
        return raw[1:].view(x.dtype).reshape(x.shape) if x.size else x
    out = x.copy()
    out.flags.writeable = layout != "read-only"
    return out


def exact(a: np.ndarray, b: np.ndarray, bits: int) -> np.ndarray:
    """The product in Python's integers, reduced at the end."""
    if 0 in (*a.shape, *b.shape):
        return np.zeros((a.shape[0], *b.shape[1:]), dtype=WORDS[bits])
    return (a.astype(object).dot(b.astype(object)) % (1 << bits)).astype(WORDS[bits])


def check_products(A: np.ndarray, B: np.ndarray, bits: int) -> None:
    """Every entrance to a product of these two."""
    expected = exact(A, B, bits)
    for got in (matmul(A, B), transpose_matmul(A.T, B)):
        assert got.dtype == WORDS[bits]
        assert got.flags.c_contiguous
        np.testing.assert_array_equal(got, expected)
    if B.shape[1]:
        np.testing.assert_array_equal(times(A, B[:, 0]), expected[:, 0])
        np.testing.assert_array_equal(transpose_times(A.T, B[:, 0]), expected[:, 0])


@pytest.fixture(params=[ring_numba, ring_numpy], ids=["numba", "numpy"])
def kernels(request, monkeypatch):
    """Each set of kernels behind `mpc.ring` in turn."""
    monkeypatch.setattr(ring, "kernels", request.param)


sizes = st.integers(0, 40)


@pytest.mark.parametrize("module", [ring_numba, ring_numpy], ids=["numba", "numpy"])
@settings(max_examples=80, deadline=None)
@given(
    shape=st.tuples(sizes, sizes, sizes),
    bits=st.sampled_from((64, 32)),
    integers=st.sampled_from((None, *INTEGERS)),
    layouts=st.tuples(st.sampled_from(LAYOUTS), st.sampled_from(LAYOUTS)),
    seed=st.integers(0, 2**16),
    extreme=st.booleans(),
)
@example(shape=(0, 0, 0), bits=64, integers=None, layouts=("C", "C"), seed=0, extreme=False)
@example(shape=(3, 0, 2), bits=32, integers=np.int16, layouts=("F", "C"), seed=0, extreme=False)
@example(shape=(1, 9, 5), bits=64, integers=np.int16, layouts=("C", "F"), seed=0, extreme=True)
@example(shape=(9, 1, 1), bits=64, integers=None, layouts=("strided", "C"), seed=0, extreme=True)
def test_products_of_any_shape_are_exact(module, shape, bits, integers, layouts, seed, extreme):
    n, d, k = shape
    A = laid_out(drawn((n, d), integers or WORDS[bits], seed, extreme), layouts[0])
    B = laid_out(drawn((d, k), WORDS[bits], seed + 1, extreme), layouts[1])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ring, "kernels", module)
        check_products(A, B, bits)
        if integers:  # the integers may stand on the right as well
            np.testing.assert_array_equal(matmul(B.T, A.T), exact(B.T, A.T, bits))


# One shape per way through the dispatch, around the edges of tiles and strips; too large for Python's integers to be quick.
SHAPES = [
    (17, 65, 63), (64, 256, 64), (65, 257, 130), (33, 300, 17), (300, 7, 18), (5, 259, 700), (700, 67, 5), (40, 513, 40),
    (16, 128, 64), (17, 4, 17), (2, 1000, 2), (7, 1030, 1), (1027, 6, 1),
]  # fmt: skip


@pytest.mark.parametrize("bits", [64, 32])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("layout", ["C", "F"])
@pytest.mark.parametrize("extreme", [False, True])
def test_numba_and_numpy_agree_bit_for_bit(bits, shape, layout, extreme, monkeypatch):
    n, d, k = shape
    for dtype in (WORDS[bits], np.int16):
        A, B = (laid_out(drawn(s, t, 5, extreme), layout) for s, t in (((n, d), dtype), ((d, k), WORDS[bits])))
        results = []
        for module in (ring_numba, ring_numpy):
            monkeypatch.setattr(ring, "kernels", module)
            results.append((matmul(A, B), transpose_matmul(A, laid_out(B[:, :1].repeat(n, axis=1).T, layout))))
        for ours, theirs in zip(*results, strict=True):
            np.testing.assert_array_equal(ours, theirs)
        wide = WORDS[bits](0) + A.astype(WORDS[bits])
        np.testing.assert_array_equal(results[0][0], np.matmul(wide, B))  # numpy's product of words wraps


def test_long_inner_dimensions_stay_exact(kernels):
    """All factors at their largest: where a sum of limbs in float64 would lose its last bits first."""
    n = 2 * ring_numpy.BLOCK // 34 + 5
    for bits, value in ((64, 2**64 - 1), (32, 2**32 - 1)):
        A, B = np.full((33, n), value, dtype=WORDS[bits]), np.full((n, 34), value, dtype=WORDS[bits])
        assert (matmul(A, B) == WORDS[bits](n * value * value % (1 << bits))).all()
    smallest = np.full((33, n), -(2**15), dtype=np.int16)
    words = np.full((n, 34), 2**64 - 1, dtype=np.uint64)
    assert (matmul(smallest, words) == np.uint64(n * 2**15)).all()


def test_integers_alone_live_in_the_larger_ring(kernels):
    X = drawn((50, 20), np.int16, 3, extreme=True)
    np.testing.assert_array_equal(transpose_matmul(X, X), exact(X.T, X, 64))
    np.testing.assert_array_equal(times(X, X[0]), exact(X, X[0], 64))


def test_what_fits_no_ring_or_shape_is_refused(kernels):
    words, small, floats = np.ones((2, 2), np.uint64), np.ones((2, 2), np.uint32), np.ones((2, 2))
    with pytest.raises(ValueError, match="no ring holds operands of types uint64, uint32"):
        matmul(words, small)
    with pytest.raises(ValueError, match="no ring holds operands of types float64, uint64"):
        times(floats, words[0])
    for shapes in (((2, 3), (2, 3)), ((2,), (2, 2)), ((2, 3), (3,))):
        with pytest.raises(ValueError, match="do not multiply"):
            matmul(*(np.ones(s, np.uint64) for s in shapes))
    with pytest.raises(ValueError, match="do not multiply"):
        times(words, np.ones(3, np.uint64))
    with pytest.raises(ValueError, match="do not multiply"):
        transpose_times(words, np.ones(3, np.uint64))


@pytest.mark.parametrize("module", [ring_numba, ring_numpy], ids=["numba", "numpy"])
@settings(max_examples=60, deadline=None)
@given(
    shape=st.tuples(sizes, st.integers(0, 6), st.integers(0, 5)),
    n_bins=st.integers(1, 300),
    dtypes=st.tuples(st.sampled_from((np.uint8, np.uint16)), st.sampled_from((np.uint64, np.uint32, *INTEGERS))),
    layouts=st.tuples(st.sampled_from(LAYOUTS), st.sampled_from(LAYOUTS)),
    seed=st.integers(0, 2**16),
    extreme=st.booleans(),
)
def test_histograms_are_exact(module, shape, n_bins, dtypes, layouts, seed, extreme):
    n, d, k = shape
    rng = np.random.default_rng(seed)
    bins = rng.integers(0, min(n_bins, np.iinfo(dtypes[0]).max + 1), (n, d)).astype(dtypes[0])
    values = drawn((n, k), dtypes[1], seed, extreme)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ring, "kernels", module)
        got = histogram(laid_out(bins, layouts[0]), laid_out(values, layouts[1]), n_bins)
    word = np.uint32 if dtypes[1] is np.uint32 else np.uint64
    assert (got.shape, got.dtype) == ((d, n_bins, k), word)
    expected = np.zeros((d, n_bins, k), dtype=object)
    for i in range(n):
        for f in range(d):
            expected[f, bins[i, f]] += values[i].astype(object)
    np.testing.assert_array_equal(got, (expected % (1 << 8 * word().itemsize)).astype(word))


def test_a_histogram_larger_than_the_cache_is_filled_in_slabs(kernels):
    rng = np.random.default_rng(2)
    bins, values = rng.integers(0, 9000, (500, 7)).astype(np.uint16), drawn((500, 2), np.uint64, 1, extreme=False)
    got = histogram(bins, values, 9000)
    assert bins.shape[1] * 9000 * 2 > 3 * ring_numba.SLAB
    for f in range(7):
        one_hot = (bins[:, f, None] == np.arange(9000)).astype(np.uint64)
        np.testing.assert_array_equal(got[f], one_hot.T @ values)


def test_a_bin_out_of_range_is_refused(kernels):
    bins, values = np.array([[3]], dtype=np.uint8), np.ones((1, 1), dtype=np.uint64)
    with pytest.raises(ValueError, match="a bin is not below 3"):
        histogram(bins, values, 3)
    with pytest.raises(ValueError, match="make no histogram"):
        histogram(bins.astype(np.int64), values, 4)
    with pytest.raises(ValueError, match="make no histogram"):
        histogram(bins, np.ones((2, 1), dtype=np.uint64), 4)
    with pytest.raises(ValueError, match="no ring holds"):
        histogram(bins, np.ones((1, 1)), 4)
    assert histogram(bins[:0], values[:0], 0).shape == (1, 0, 1)


@pytest.mark.parametrize("scale", [2.0**14, 2.0**12])
def test_fourier_kernels_agree_bit_for_bit(scale):
    rng = np.random.default_rng(9)
    angles = rng.integers(0, 2**16, 3001, dtype=np.uint16)
    harmonics = np.array([1, 3, 200, 2**15 - 1], dtype=np.int64)
    table = np.sin(np.arange(1 << 16) * (2 * np.pi / (1 << 16))).astype(np.float32)
    shares = drawn((8, 3001), np.int64, 4, extreme=False)
    coefs = rng.normal(0, 2.0**12, 4)
    results = [
        (
            module.basis(angles, harmonics, table, scale),
            module.series(angles, harmonics, coefs, table, shares),
            module.moments(angles, harmonics, scale, table, shares),
        )
        for module in (ring_numba, ring_numpy)
    ]
    for ours, theirs in zip(*results, strict=True):
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours, theirs)


def test_both_modules_offer_the_same_kernels():
    public = [
        {n for n, f in vars(m).items() if callable(f) and f.__module__ == m.__name__} for m in (ring_numba, ring_numpy)
    ]
    offered = [{n for n in names if not n.startswith("_")} for names in public]
    assert offered[0] == offered[1] >= {"times", "matmul", "histogram", "series"}


@pytest.mark.parametrize(
    "shapes", [((3,), (3,)), ((3,), (3, 4)), ((2, 3), (3,)), ((0, 3), (3,)), ((2, 0), (0, 3)), ((0,), (0,))]
)
def test_vectors_multiply_as_in_numpy(shapes):
    x, y = (drawn(s, np.uint64, i, extreme=False) for i, s in enumerate(shapes))
    got, expected = product("matmul", x, y), np.asarray(np.matmul(x, y))
    assert got.shape == expected.shape
    np.testing.assert_array_equal(got, expected)


WITHOUT_NUMBA = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "numba":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Blocked())
import numpy as np
from mpc import fourier, kinds, ring
from mpc.dealer import Correlations, run_dealer
from mpc.session import Session
from tests.harness import run_parties

kinds.warm_up()
assert ring.kernels.__name__ == "mpc.ring_numpy" and "numba" not in sys.modules
rng = np.random.default_rng(6)
A, B = rng.integers(0, 2**64, (70, 90), dtype=np.uint64), rng.integers(0, 2**64, (90, 40), dtype=np.uint64)
assert (ring.matmul(A, B) == A @ B).all() and (ring.transpose_matmul(B, A.T) == B.T @ A.T).all()
assert (ring.times(A, B[:, 0]) == A @ B[:, 0]).all() and (ring.transpose_times(A, A[:, 0]) == A.T @ A[:, 0]).all()
assert ring.histogram(np.ones((3, 1), np.uint8), A[:3, :2], 2)[0, 1, 0] == A[:3, 0].sum()
harmonics, coefs, _ = fourier.fit_sigmoid(64, 8)
z = np.linspace(-8, 8, 200)
shares = [A.ravel()[:200], ring.encode(z, 34) - A.ravel()[:200]]

def party(i):
    def body(channel):
        session = Session(channel, ("a", "b"), i, Correlations(channel, "dealer", i, 2))
        tickets = session.correlations.plan([fourier.FourierTuple(n=200, harmonics=harmonics)] * 2)
        out = fourier.odd_series(session, tickets[0], shares[i], 40, coefs)
        sums = fourier.moments(session, tickets[1], shares[i], 40)
        session.correlations.close()
        return out, sums
    return body

parties = {"a": party(0), "b": party(1), "dealer": lambda channel: run_dealer(channel, ("a", "b"))}
results = run_parties(parties).results
(a, sums_a), (b, sums_b) = results["a"], results["b"]
got = ring.decode(a + b, fourier.SERIES_BITS)
assert np.abs(got - (1 / (1 + np.exp(-z)) - 0.5)).max() < 0.01
angle = 2 * np.pi / 64 * np.outer(harmonics, z)
expected = [np.cos(angle).sum(1), np.sin(angle).sum(1)]
assert np.allclose(ring.decode(sums_a + sums_b, fourier.SERIES_BITS), expected, atol=1)
print("whole")
"""


def test_everything_works_where_numba_is_missing():
    root = Path(__file__).parent.parent.parent
    done = subprocess.run([sys.executable, "-c", WITHOUT_NUMBA], cwd=root, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "whole\n"), done.stderr
