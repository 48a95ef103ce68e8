"""What owners agree on before they fit a model, its Gram matrices, and numbers as a model's document holds them."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mpc.correlations import Ticket
from mpc.dealer import Correlations
from mpc.errors import LocalProtocolError, RemoteProtocolError
from mpc.gram import MatrixGram, gram
from mpc.matrix import MatrixMask, MatrixProduct, OwnerMatrix, multiply
from mpc.ring import encode, transpose_matmul
from mpc.session import Session
from mpc.wire import recv_json, send_json

Floats = npt.NDArray[np.float64]
Words = npt.NDArray[Any]
MAX_INPUTS = 100_000


@dataclass(frozen=True)
class Group:
    """What every owner knows before the first secret is shared.

    dims: columns of each owner's masked block.  sizes: coefficients of each.  active: who has the label.  facts: what the
    active owner stated.
    """

    dims: list[int]
    sizes: list[int]
    active: int
    facts: dict[str, int]


def agree(
    session: Session,
    tag: str,
    shape: tuple[int, ...],
    facts: Mapping[str, int] | None,
    limits: Mapping[str, tuple[int, int]],
    size: int | None = None,
) -> Group:
    """Exchange the shapes of the blocks, and what the owner of the label says of it.

    shape: (n, d) of our block.  facts: whole numbers about the label, at its owner; None elsewhere.  limits: which facts
    there must be, and the smallest and largest value of each.  size: how many coefficients we have, if not d.

    Reveals: to every owner, the shape of each block and its coefficients, who has the label, and the facts.
    Cost: 1 round; less than 1 KiB to every other party.
    Security: semi-honest owners.
    Source: none; nothing is computed.
    Raises: RemoteProtocolError if the rows differ, a block is empty, not exactly one owner has a label or a fact is not
        within its limits.
    """
    mine: dict[str, Any] = {"rows": shape[0], "inputs": shape[1], "size": shape[1] if size is None else size}
    mine["facts"] = None if facts is None else dict(facts)
    for peer in session.peers:
        send_json(session.channel, peer, tag, mine)
    stated = []
    for i, name in enumerate(session.parties):
        value = mine if i == session.me else recv_json(session.channel, name, tag)
        good = isinstance(value, dict) and value.keys() == mine.keys()
        good = good and all(type(value[key]) is int and 0 < value[key] < MAX_INPUTS for key in ("inputs", "size"))
        if not good or value["rows"] != shape[0]:
            raise RemoteProtocolError(name, tag, "states other rows than ours or no inputs")
        if value["facts"] is not None and not _within(value["facts"], limits):
            raise RemoteProtocolError(name, tag, "states something impossible about the label")
        stated.append(value)
    labelled = [i for i, value in enumerate(stated) if value["facts"] is not None]
    if len(labelled) != 1:
        raise RemoteProtocolError(session.peers[0], tag, "exactly one owner must have the label")
    dims, sizes = ([value[key] for value in stated] for key in ("inputs", "size"))
    return Group(dims, sizes, labelled[0], stated[labelled[0]]["facts"])


def plan_gram_of(session: Session, masks: Sequence[MatrixMask]) -> list[MatrixGram] | list[MatrixProduct]:
    """What `gram_of` these matrices will ask for, before they are masked.

    A dealer makes what `mpc.gram` needs.  Other sources of correlations do not: with them one owner's matrix is a set of
    vectors that the other's is multiplied with.  Everything else as `gram_of`.
    """
    pairs = [(a, b) for i, a in enumerate(masks) for b in masks[i + 1 :] if a.owner != b.owner]
    if isinstance(session.correlations, Correlations):
        return [
            MatrixGram(left=a.matrix, right=b.matrix, n_rows=a.n_rows, n_left=a.n_cols, n_right=b.n_cols, bits=a.bits)
            for a, b in pairs
        ]
    return [a.product(transpose=True).model_copy(update={"vectors": b.n_cols, "holder": b.owner}) for a, b in pairs]


def gram_of(session: Session, tickets: Sequence[Ticket], matrices: Sequence[OwnerMatrix]) -> Words:
    """Shares of X^T X, where X is all matrices side by side; (D, D) words.

    tickets: for `plan_gram_of`.  matrices: masked with `keep_mask`.

    Reveals: nothing.
    Cost: with a dealer as `mpc.gram.gram`; else 1 round and, for each two matrices of different owners, 8 n d bytes from the
        owner of the second, of d columns.
    Security: semi-honest parties; the dealer does not collude.
    Source: as `mpc.gram.gram`.
    Raises: LocalProtocolError if the tickets are not for these matrices.
    """
    if isinstance(session.correlations, Correlations):
        return gram(session, tickets, matrices)
    pairs = [(a, b) for i, a in enumerate(matrices) for b in matrices[i + 1 :] if a.owner != b.owner]
    factors = [(a, t, _vectors(session.me, b)) for (a, b), t in zip(pairs, tickets, strict=True)]
    across = iter(multiply(session, factors))
    widths = [m.content.shape[1] for m in matrices]
    cuts = np.cumsum([0, *widths])
    out = np.zeros((int(cuts[-1]),) * 2, dtype=np.uint64)
    for i, a in enumerate(matrices):
        for j in range(i, len(matrices)):
            b = matrices[j]
            part = next(across) if a.owner != b.owner else _own_product(session.me, a, b)
            part = part.reshape(widths[i], widths[j])
            out[cuts[i] : cuts[i + 1], cuts[j] : cuts[j + 1]] = part
            out[cuts[j] : cuts[j + 1], cuts[i] : cuts[i + 1]] = part.T
    return out


def _vectors(me: int, matrix: OwnerMatrix) -> Words | None:
    """The columns of a matrix of ours as words, a single one flat; None for another's."""
    if matrix.owner != me:
        return None
    words: Words = np.asarray(matrix.content).astype(np.int64).view(np.uint64)
    return words[:, 0] if words.shape[1] == 1 else words


def _own_product(me: int, left: OwnerMatrix, right: OwnerMatrix) -> Words:
    """Our share of the product of two matrices of one owner."""
    if left.owner != me:
        return np.zeros((left.content.shape[1], right.content.shape[1]), dtype=np.uint64)
    return transpose_matmul(np.asarray(left.content), np.asarray(right.content))


def own_block(me: int, dims: Sequence[int], block: Floats, frac_bits: int) -> Words:
    """Our share of a block-diagonal matrix, of which every owner knows its block."""
    out = np.zeros((sum(dims), sum(dims)), dtype=np.uint64)
    start = sum(dims[:me])
    out[start : start + dims[me], start : start + dims[me]] = encode(block, frac_bits)
    return out


def gram_scale(n: int, owners: int) -> int:
    """A Gram matrix of whitened blocks and the intercept's column has eigenvalues below 2^this: each part is at most n."""
    return math.ceil(math.log2(1.02 * n * (owners + 1)))


def agreed_scale(session: Session, mine: int | None, limits: tuple[int, int]) -> int:
    """The exponent of the power of two in which the owner of the label counts it.

    mine: at that owner; None elsewhere.

    Reveals: to every owner, the exponent.
    Cost: 1 round; less than 100 bytes to every other party.
    Security: semi-honest owners.
    Source: none; nothing is computed.
    Raises: RemoteProtocolError if not exactly one owner states one within the limits.
    """
    tag = "family/scale"
    for peer in session.peers:
        send_json(session.channel, peer, tag, {"scale": mine})
    stated = [] if mine is None else [mine]
    for peer in session.peers:
        value = recv_json(session.channel, peer, tag)
        good = isinstance(value, dict) and value.keys() == {"scale"}
        if not good or not (value["scale"] is None or type(value["scale"]) is int):
            raise RemoteProtocolError(peer, tag, "states no scale of the label")
        stated += [] if value["scale"] is None else [value["scale"]]
    if len(stated) != 1 or not limits[0] <= stated[0] <= limits[1]:
        why = f"exactly one owner must have the label and state its scale, 2^{limits[0]} to 2^{limits[1]}"
        raise RemoteProtocolError(session.peers[0], tag, why)
    return stated[0]


def _within(facts: Any, limits: Mapping[str, tuple[int, int]]) -> bool:
    if not isinstance(facts, dict) or facts.keys() != limits.keys():
        return False
    return all(type(facts[key]) is int and low <= facts[key] <= high for key, (low, high) in limits.items())


def floats_text(values: Floats) -> dict[str, Any]:
    """Numbers as JSON can hold them: shape, and little-endian float64 as base64."""
    data = np.ascontiguousarray(values, dtype="<f8")
    return {"shape": list(data.shape), "dtype": "<f8", "data": base64.b64encode(data.tobytes()).decode()}


def floats_from(stored: Any) -> Floats:
    """The inverse of `floats_text`.  Raises: LocalProtocolError if it is not what that wrote, or holds no finite numbers."""
    if not isinstance(stored, dict) or stored.keys() != {"shape", "dtype", "data"} or stored["dtype"] != "<f8":
        raise LocalProtocolError("a stored array has a shape, a type and its data")
    shape = stored["shape"]
    if not isinstance(shape, list) or not all(type(k) is int and 0 <= k < 1 << 32 for k in shape):
        raise LocalProtocolError("a stored array has a shape of whole numbers")
    try:
        body = base64.b64decode(stored["data"], validate=True)
    except (TypeError, ValueError) as exc:
        raise LocalProtocolError("a stored array is not base64") from exc
    if len(body) != 8 * int(np.prod(shape)):
        raise LocalProtocolError("a stored array is not as long as its shape says")
    out: Floats = np.frombuffer(body, dtype="<f8").astype(np.float64).reshape(shape)
    if not np.isfinite(out).all():
        raise LocalProtocolError("a stored array holds something that is not a finite number")
    return out
