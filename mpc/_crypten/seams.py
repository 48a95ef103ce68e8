"""What CrypTen is given instead of its own network, provider and randomness: one thread's session.

Everything CrypTen keeps in globals lives here per context, so that several parties can be threads of one process.  This
module does not import CrypTen; `mpc.engine` does, and puts these parts in place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt
import torch
from pydantic import ValidationError

from mpc.correlations import Correlation
from mpc.errors import LocalProtocolError, RemoteProtocolError
from mpc.rng import KEY_BYTES, Prg, derive_key, fresh_key, fresh_prg
from mpc.session import Session
from mpc.triples import OPS, BinaryTriple, BitPair, Triple
from mpc.wire import Kind, recv_json, recv_words, send_json, send_words

Words = npt.NDArray[Any]
CPU = torch.device("cpu")
SUM, BXOR = torch.distributed.ReduceOp.SUM, torch.distributed.ReduceOp.BXOR
NEXT_KEY_TAG, COMMON_KEY_TAG = "crypten/next-key", "crypten/common-key"
MAX_DIMS, MAX_DIM = 16, 1 << 31


def to_words(tensor: torch.Tensor) -> Words:
    """The ring words of an int64 tensor, without copying where it is contiguous."""
    if tensor.dtype != torch.int64 or tensor.device != CPU:
        raise LocalProtocolError(f"shares are int64 tensors in main memory, not {tensor.dtype} on {tensor.device}")
    words: Words = tensor.detach().contiguous().numpy().view(np.uint64)
    return words


def to_tensor(words: Words) -> torch.Tensor:
    """The int64 tensor of ring words, without copying where the array is writable and contiguous."""
    if words.dtype != np.uint64:
        raise LocalProtocolError(f"ring words are uint64, got {words.dtype}")
    return torch.from_numpy(np.require(words, requirements=["W", "C"]).view(np.int64)).reshape(words.shape)


class PerContext:
    """A data descriptor that gives every context (thread) its own value of what CrypTen keeps in one global.

    check: called with every new value; raises if CrypTen may not have it.
    """

    def __init__(self, name: str, default: Any, check: Callable[[Any], None] = lambda _: None) -> None:
        self._value: ContextVar[Any] = ContextVar(name, default=default)
        self._check = check

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        return self._value.get()

    def __set__(self, instance: Any, value: Any) -> None:
        self._check(value)
        self._value.set(value)


@dataclass(frozen=True)
class Party:
    """This thread's part in a session: the session and the streams CrypTen draws from.

    streams: "prev" and "next", each known to exactly one neighbour; "local", known to nobody else; "global", known to all.
    """

    session: Session
    streams: dict[str, Prg]
    communicator: SessionCommunicator


_PARTY: ContextVar[Party | None] = ContextVar("crypten-party", default=None)


def current() -> Party:
    """The party this thread plays.  Raises: LocalProtocolError outside of `mpc.engine.bind`."""
    party = _PARTY.get()
    if party is None:
        raise LocalProtocolError(
            "no session is bound to this thread: CrypTen works inside 'with mpc.engine.bind(session)'"
        )
    return party


@contextmanager
def playing(session: Session) -> Iterator[None]:
    """Bind a session to this thread; see `mpc.engine.bind`."""
    if _PARTY.get() is not None:
        raise LocalProtocolError("this thread already plays a party of another session")
    if len(session.parties) < 2:
        raise LocalProtocolError("secret sharing takes at least two parties")
    token = _PARTY.set(Party(session, agree_streams(session), SessionCommunicator(session)))
    try:
        yield
    finally:
        _PARTY.reset(token)


def agree_streams(session: Session) -> dict[str, Prg]:
    """Fresh keys for the streams of one binding: each party sends its successor one, and party 0 sends all one.

    Reveals: nothing.
    Cost: 1 round; 32 bytes to the next party, and 32 more from party 0 to everybody.
    Security: semi-honest parties; to any n - 1 of them the last one's share of zero is what theirs say it must be, no more.
    Source: Cramer, Damgard, Ishai, TCC 2005 (pseudorandom zero sharing, the additive case).
    """
    channel, parties, me = session.channel, session.parties, session.me
    ours = fresh_key()
    channel.send(parties[(me + 1) % len(parties)], NEXT_KEY_TAG, Kind.BYTES, ours)
    if me == 0:
        common = fresh_key()
        for peer in session.peers:
            channel.send(peer, COMMON_KEY_TAG, Kind.BYTES, common)
    theirs = bytes(channel.recv(parties[me - 1], NEXT_KEY_TAG, Kind.BYTES, exact=KEY_BYTES))
    if me != 0:
        common = bytes(channel.recv(parties[0], COMMON_KEY_TAG, Kind.BYTES, exact=KEY_BYTES))
    return {
        "next": Prg(derive_key(ours, "zero-sharing")),
        "prev": Prg(derive_key(theirs, "zero-sharing")),
        "local": fresh_prg(),
        "global": Prg(derive_key(common, "common")),
    }


class Generators:
    """Stands in for `crypten.generators`: looks up the bound party's streams, holds nothing itself."""

    def __getitem__(self, name: str) -> dict[torch.device, Prg]:
        return {CPU: current().streams[name]}


def ring_elements(
    size: Sequence[int], ring_size: int = 1 << 64, generator: Prg | None = None, **_device: Any
) -> torch.Tensor:
    """Uniform elements of Z_2^64 from a stream, by default the one nobody else knows."""
    if ring_size != 1 << 64:
        raise LocalProtocolError("only the ring of 64-bit words is offered")
    prg = current().streams["local"] if generator is None else generator
    return to_tensor(prg.words(tuple(size)))


def random_bits(
    size: Sequence[int], bitlength: int | None = None, generator: Prg | None = None, **_device: Any
) -> torch.Tensor:
    """Uniform non-negative integers of `bitlength` bits; all 64 by default."""
    words = ring_elements(size, generator=generator)
    return words if bitlength in (None, 64) else words & ((1 << int(bitlength or 0)) - 1)


def public_keep_mask(size: Sequence[int], p: float) -> torch.Tensor:
    """Ones and zeros that all parties know and agree on; a one with probability 1 - p, to 53 bits."""
    drawn = current().streams["global"].words(tuple(size)) >> np.uint64(11)
    return torch.from_numpy(drawn.astype(np.float64) * 2.0**-53 >= p).double()


class SessionCommunicator:
    """CrypTen's view of the parties: collective operations over one session's channel, one message per peer and round.

    Objects are never pickled: the only ones that travel are sizes and small integers.
    """

    def __init__(self, session: Session) -> None:
        self._session = session

    @classmethod
    def is_initialized(cls) -> bool:
        """Whether this thread plays a party."""
        return _PARTY.get() is not None

    @classmethod
    def get(cls) -> SessionCommunicator:
        """The communicator of this thread's party."""
        return current().communicator

    def get_rank(self) -> int:
        """Our index among the parties."""
        return self._session.me

    def get_world_size(self) -> int:
        """Number of parties."""
        return len(self._session.parties)

    def get_name(self) -> str:
        """Our name."""
        return self._session.parties[self._session.me]

    def all_reduce(self, input: Any, op: Any = SUM, batched: bool = False, tag: str = "crypten/open") -> Any:  # noqa: A002
        """Open one tensor, or with `batched` a list of them, in one round; everybody gets new tensors."""
        flat, shapes = _flatten(input, batched)
        total = self._combine(op, flat, self._session.exchange(tag, flat))
        return _unflatten(total, shapes, batched)

    def reduce(
        self,
        input: Any,  # noqa: A002
        dst: int,
        op: Any = SUM,
        batched: bool = False,
        tag: str = "crypten/open-to",
    ) -> Any:
        """As `all_reduce`, but only party `dst` gets the result; the others get None."""
        flat, shapes = _flatten(input, batched)
        name = self._party(dst)
        if self._session.me != dst:
            self._combine(op, flat, [])
            send_words(self._session.channel, name, tag, flat)
            return None
        others = [self._recv(peer, tag, flat.shape) for peer in self._session.peers]
        return _unflatten(self._combine(op, flat, others), shapes, batched)

    def gather(self, tensor: torch.Tensor, dst: int) -> list[torch.Tensor | None]:
        """Party `dst` gets everybody's tensor, in party order; the others get [None]."""
        name = self._party(dst)
        if self._session.me != dst:
            send_words(self._session.channel, name, "crypten/gather", to_words(tensor))
            return [None]
        shape = tuple(tensor.shape)
        return [
            tensor.clone() if peer == name else to_tensor(self._recv(peer, "crypten/gather", shape))
            for peer in self._session.parties
        ]

    def all_gather(self, tensor: torch.Tensor) -> list[torch.Tensor]:
        """Everybody gets everybody's tensor, in party order."""
        gathered = [to_tensor(words) for words in self._session.exchange("crypten/gather", to_words(tensor))]
        gathered.insert(self._session.me, tensor.clone())
        return gathered

    def broadcast(self, input: Any, src: int, batched: bool = False) -> Any:  # noqa: A002
        """Overwrite the tensors of the other parties with those of party `src`."""
        flat, _ = _flatten(input, batched)
        name = self._party(src)
        if self._session.me == src:
            for peer in self._session.peers:
                send_words(self._session.channel, peer, "crypten/broadcast", flat)
            return input
        tensors = list(input) if batched else [input]
        received = to_tensor(self._recv(name, "crypten/broadcast", flat.shape))
        for tensor, part in zip(tensors, torch.split(received, [t.numel() for t in tensors]), strict=True):
            tensor.data.copy_(part.reshape(tensor.shape))
        return input

    def broadcast_obj(self, obj: Any, src: int) -> Any:
        """Tell everybody a size or a small integer of party `src`; any other object is refused."""
        name = self._party(src)
        if self._session.me != src:
            return _decode_size(recv_json(self._session.channel, name, "crypten/size"), name)
        value = list(obj) if isinstance(obj, torch.Size) else obj
        if not isinstance(obj, torch.Size) and (isinstance(obj, bool) or not isinstance(obj, int)):
            raise LocalProtocolError(f"only sizes and integers travel between parties, not {type(obj).__name__}")
        for peer in self._session.peers:
            send_json(self._session.channel, peer, "crypten/size", value)
        return obj

    def barrier(self) -> None:
        """Wait until every party is here."""
        self._session.exchange("crypten/barrier", np.zeros(0, dtype=np.uint64))

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("_"):
            raise AttributeError(name)
        raise LocalProtocolError(f"CrypTen's '{name}' between parties is not offered here")

    def _party(self, index: int) -> str:
        if isinstance(index, bool) or not isinstance(index, int) or not 0 <= index < len(self._session.parties):
            raise LocalProtocolError(f"there is no party {index}: they are 0 to {len(self._session.parties) - 1}")
        return self._session.parties[index]

    def _recv(self, peer: str, tag: str, shape: tuple[int, ...]) -> Words:
        return recv_words(self._session.channel, peer, tag, shape, np.uint64)

    @staticmethod
    def _combine(op: Any, ours: Words, theirs: Sequence[Words]) -> Words:
        if op not in (SUM, BXOR):
            raise LocalProtocolError(f"shares are combined by sum or exclusive or, not {op}")
        total = ours.copy()
        for words in theirs:
            (np.add if op == SUM else np.bitwise_xor)(total, words, out=total)
        return total


def _flatten(tensors: Any, batched: bool) -> tuple[Words, list[tuple[int, ...]]]:
    parts = [to_words(t) for t in (tensors if batched else [tensors])]
    return np.concatenate([p.reshape(-1) for p in parts]), [p.shape for p in parts]


def _unflatten(flat: Words, shapes: list[tuple[int, ...]], batched: bool) -> Any:
    cuts = np.cumsum([int(np.prod(s)) for s in shapes])[:-1]
    parts = [to_tensor(p.reshape(s)) for p, s in zip(np.split(flat, cuts), shapes, strict=True)]
    return parts if batched else parts[0]


def _decode_size(value: Any, sender: str) -> Any:
    numbers = value if isinstance(value, list) else [value]
    if len(numbers) > MAX_DIMS or any(type(n) is not int or not -1 <= n < MAX_DIM for n in numbers):
        raise RemoteProtocolError(sender, "crypten/size", "not a tensor's size")
    return torch.Size(value) if isinstance(value, list) else value


class DealerProvider:
    """CrypTen's source of correlations for its binary circuits: the session's dealer.

    tensors: makes an arithmetically shared tensor of scale 1 from a share; bits: the same for a binary one.  Products draw
    their triples themselves, in `mpc._crypten.maths`.
    """

    NAME = "DEALER"

    def __init__(self, tensors: Callable[[torch.Tensor], Any], bits: Callable[[torch.Tensor], Any]) -> None:
        self._tensors, self._bits = tensors, bits

    def generate_binary_triple(self, size0: Sequence[int], size1: Sequence[int], **_device: Any) -> tuple[Any, ...]:
        """Shares by exclusive or of a, b and a AND b."""
        (a, b), (c,) = draw(BinaryTriple(shape0=tuple(size0), shape1=tuple(size1)))
        return tuple(self._bits(to_tensor(w)) for w in (a, b, c))

    def B2A_rng(self, size: Sequence[int], **_device: Any) -> tuple[Any, Any]:  # noqa: N802 - CrypTen's name
        """A random bit, shared additively and by exclusive or."""
        (r,), (value,) = draw(BitPair(shape=tuple(size)))
        return self._tensors(to_tensor(value)), self._bits(to_tensor((r & np.uint8(1)).astype(np.uint64)))


def draw(request: Correlation) -> tuple[list[Words], list[Words]]:
    """One correlation of this thread's session: our draws and our shares of what is derived."""
    return current().session.correlations.draw(request)


def plan_triple(op: str, size0: Sequence[int], size1: Sequence[int], **conv: Any) -> Triple:
    """The triple for a private product.  Raises: LocalProtocolError if there is none of this kind or shape."""
    if op not in OPS:
        raise LocalProtocolError(f"a private '{op}' is not offered")
    steps = {}
    if op.startswith("conv"):
        for name, default in (("stride", 1), ("padding", 0), ("dilation", 1)):
            value = conv.pop(name, default)
            steps[name] = (value,) * int(op[-2]) if isinstance(value, int) else tuple(value)
    try:
        return _triple(op, tuple(size0), tuple(size1), **steps, **conv)
    except ValidationError as exc:
        raise LocalProtocolError(f"a private '{op}' of these operands: {exc.errors()[0]['msg']}") from exc


@lru_cache(maxsize=1024)
def _triple(op: str, size0: tuple[int, ...], size1: tuple[int, ...], **conv: Any) -> Triple:
    """Checking a request's shapes takes longer than a small product."""
    return Triple.model_validate({"op": op, "shape0": size0, "shape1": size1, **conv})
