"""Hash strings to points of Curve25519, so that nobody knows a relation between the points of two strings.

The suite is curve25519_XMD:SHA-512_ELL2_RO_.  `hash_to_curve` follows the standard step by step and is the reference;
`hash_to_u_batch` computes what private set intersection needs, x-coordinates of many strings, with one modular
exponentiation per Elligator map and one modular inversion per batch.

Not constant-time: how long Python's integers take depends on their values.  That is acceptable because only the party
that owns the strings hashes them, in its own process, before anything is sent; it must not be used on secrets whose
owner is somebody else, nor where a peer can time single strings.

Source: RFC 9380 (sections 5.3.1, 5.2, 6.7.1, 6.8.1 and appendix G.2.1); Bernstein, Hamburg, Krasnova, Lange,
"Elligator", CCS 2013; Montgomery, 1987 (one inversion for a batch).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

P = 2**255 - 19
J = 486662  # the curve is y^2 = x^3 + J x^2 + x
POINT_BYTES = 32

Point = tuple[int, int]

_FIELD_BYTES = 48  # L of the suite: ceil((255 + 128) / 8)
_BLOCK_BYTES, _DIGEST_BYTES = 128, 64
_PADDED = hashlib.sha512(bytes(_BLOCK_BYTES))
_SQRT_MINUS_ONE = pow(2, (P - 1) // 4, P)
_TWO_POWER = pow(2, (P + 3) // 8, P)
_LOW_BITS = 2**255 - 1


def expand_message_xmd(message: bytes, dst: bytes, n_bytes: int) -> bytes:
    """Stretch a message to `n_bytes` uniform bytes with SHA-512, separated from other uses by `dst`.

    dst: 1 to 255 bytes.  n_bytes: at most 255 * 64.
    Raises: ValueError when either is out of range.
    """
    if not 1 <= len(dst) <= 255:
        raise ValueError(f"a domain separation tag has 1 to 255 bytes, got {len(dst)}")
    n_blocks = -(-n_bytes // _DIGEST_BYTES)
    if n_bytes < 1 or n_blocks > 255:
        raise ValueError(f"SHA-512 expands to 1 to {255 * _DIGEST_BYTES} bytes, asked for {n_bytes}")
    suffix = dst + bytes([len(dst)])
    first = _PADDED.copy()
    first.update(message + n_bytes.to_bytes(2, "big") + b"\0" + suffix)
    b0 = first.digest()
    block = hashlib.sha512(b0 + b"\x01" + suffix).digest()
    blocks, b0_int = [block], int.from_bytes(b0, "big")
    for i in range(2, n_blocks + 1):
        mixed = (b0_int ^ int.from_bytes(block, "big")).to_bytes(_DIGEST_BYTES, "big")
        block = hashlib.sha512(mixed + bytes([i]) + suffix).digest()
        blocks.append(block)
    return b"".join(blocks)[:n_bytes]


def hash_to_field(message: bytes, dst: bytes) -> tuple[int, int]:
    """Two field elements, each within 2^-128 of uniform."""
    uniform = expand_message_xmd(message, dst, 2 * _FIELD_BYTES)
    return int.from_bytes(uniform[:_FIELD_BYTES], "big") % P, int.from_bytes(uniform[_FIELD_BYTES:], "big") % P


def elligator2(u: int) -> tuple[int, int, int]:
    """Map a field element to a point: (xn, xd, y) with x = xn / xd, and xd never zero.

    x1 = -J / (1 + 2u^2) is on the curve, or x2 = -x1 - J = 2u^2 x1 is.  One exponentiation finds which, and its y.
    """
    t = 2 * u * u % P
    xd = t + 1  # not 0 mod P: -1/2 is not a square
    xd2 = xd * xd % P
    gxd = xd2 * xd % P
    gxn = -J * (xd2 - J * J * t) % P  # numerator of x1^3 + J x1^2 + x1 over gxd
    gxd2 = gxd * gxd % P
    power = gxn * gxd2 % P * gxd % P
    root = _root_power(power * gxd2 % P * gxd2 % P) * power % P
    # root^2 = gxn/gxd times a fourth root of unity: +-1 if x1 is on the curve, +-sqrt(-1) if x2 is.
    unity = root * root % P * gxd % P
    if unity == gxn or unity == P - gxn:
        y = root if unity == gxn else root * _SQRT_MINUS_ONE % P
        return -J, xd, y if y & 1 else -y % P
    y = root * u % P * _TWO_POWER % P
    if (y * y * gxd - gxn * t) % P:
        y = y * _SQRT_MINUS_ONE % P
    return -J * t % P, xd, -y % P if y & 1 else y


def add(a: Point | None, b: Point | None) -> Point | None:
    """Sum of two affine points; None is the neutral element."""
    if a is None or b is None:
        return b if a is None else a
    (x1, y1), (x2, y2) = a, b
    if x1 == x2:
        if (y1 + y2) % P == 0:
            return None
        slope = (3 * x1 * x1 + 2 * J * x1 + 1) * pow(2 * y1, -1, P) % P
    else:
        slope = (y2 - y1) * pow(x2 - x1, -1, P) % P
    x3 = (slope * slope - J - x1 - x2) % P
    return x3, (slope * (x1 - x3) - y1) % P


def hash_to_curve(message: bytes, dst: bytes) -> Point | None:
    """The standard's result: a point of the prime-order subgroup, in affine coordinates; None is the neutral element."""
    q0, q1 = (_affine(*elligator2(u)) for u in hash_to_field(message, dst))
    point = add(q0, q1)
    for _ in range(3):  # clear_cofactor: times 8
        point = add(point, point)
    return point


def hash_to_u_batch(messages: Sequence[bytes], dst: bytes) -> list[bytes]:
    """Little-endian x-coordinates ("u" in RFC 7748) of the messages' points before the cofactor is cleared.

    The missing factor 8 is in every X25519 scalar: clamping makes it a multiple of 8, so X25519(k, u) is a multiple
    of the standard's point and lies in the prime-order subgroup.  Do not use these values with anything else.
    The neutral element (probability below 2^-250 a message) becomes 0, which X25519 refuses.
    """
    fractions = [_sum_of_maps(*hash_to_field(message, dst)) for message in messages]
    inverses = _invert_all([denominator for _, denominator in fractions])
    return [
        (numerator * inverse % P).to_bytes(POINT_BYTES, "little")
        for (numerator, _), inverse in zip(fractions, inverses, strict=True)
    ]


def _root_power(z: int) -> int:
    """z^((P - 5) / 8) = z^(2^252 - 3), a quarter faster than `pow`, which divides at every step.

    The names are the exponents: e_k is z^(2^k - 1).
    """
    z2 = z * z % P
    z9 = _square_pairs(z2, 1) * z % P
    z11 = z9 * z2 % P
    e5 = z11 * z11 * z9 % P
    e10 = _square_pairs(e5 * e5 % P, 2) * e5 % P
    e20 = _square_pairs(e10, 5) * e10 % P
    e40 = _square_pairs(e20, 10) * e20 % P
    e50 = _square_pairs(e40, 5) * e10 % P
    e100 = _square_pairs(e50, 25) * e50 % P
    e200 = _square_pairs(e100, 50) * e100 % P
    e250 = _square_pairs(e200, 25) * e50 % P
    return _square_pairs(e250, 1) * z % P


def _square_pairs(x: int, n_pairs: int, low: int = _LOW_BITS) -> int:
    """x^(2^(2 n_pairs)), not fully reduced.

    2^255 = 19 mod P, so the high part is folded onto the low part instead of dividing.  From x < 2^256: one fold of
    the square leaves less than 2^262, two of its square less than 2^256 again.
    """
    for _ in range(n_pairs):
        x *= x
        x = (x & low) + 19 * (x >> 255)
        x *= x
        x = (x & low) + 19 * (x >> 255)
        x = (x & low) + 19 * (x >> 255)
    return x


def _sum_of_maps(u0: int, u1: int) -> tuple[int, int]:
    """x-coordinate of elligator2(u0) + elligator2(u1) as (numerator, non-zero denominator).

    With x_i = n_i/d_i, D = d0 d1, N = n1 d0 - n0 d1, S = n0 d1 + n1 d0 the chord's slope is (y1 - y0) D/N, and
    x = slope^2 - J - S/D = ((y1 - y0)^2 D^3 - (J D + S) N^2) / (N^2 D).
    """
    n0, d0, y0 = elligator2(u0)
    n1, d1, y1 = elligator2(u1)
    D = d0 * d1 % P
    left, right = n0 * d1, n1 * d0
    N = (right - left) % P
    if N == 0:  # the same x twice: a tangent, or the neutral element
        total = add(_affine(n0, d0, y0), _affine(n1, d1, y1))
        return (0, 1) if total is None else (total[0], 1)
    N2 = N * N % P
    rise = y1 - y0
    return (rise * rise % P * D % P * (D * D % P) - (J * D + left + right) % P * N2) % P, N2 * D % P


def _affine(xn: int, xd: int, y: int) -> Point:
    return xn * pow(xd, -1, P) % P, y


def _invert_all(values: Sequence[int]) -> list[int]:
    """Inverses of non-zero field elements for one inversion and three products each."""
    prefix, running = [], 1
    for value in values:
        prefix.append(running)
        running = running * value % P
    inverse = pow(running, -1, P)
    out = [0] * len(values)
    for i in range(len(values) - 1, -1, -1):
        out[i] = inverse * prefix[i] % P
        inverse = inverse * values[i] % P
    return out
