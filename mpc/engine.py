"""CrypTen 0.4.1, contained: its tensors on our sessions, our dealer, our randomness and exact fixed point.

This is the only module that imports CrypTen.  Importing it puts our parts in place of CrypTen's, once per process: the
communicator, the provider, every source of randomness, the encoder, products, truncation and division.  What cannot be
made right is replaced by a refusal.  Each replaced function is pinned by a hash of its source, so another CrypTen cannot
silently undo this.

    with bind(session):
        x = share_from(0, mine, shape, FRAC_BITS)      # a SharedTensor: + - * @ with shared and public operands
        y = mpc_tensor(x).relu()                       # CrypTen's front end: comparisons, autograd, crypten.nn
        result = reveal(x * x)

A fixed-point value with f fractional bits is an integer of Z_2^64 over 2^f.  Before a product of two of them is brought back
to f bits it has 2f, and must stay under 2^62: |x y| < 2^(62 - 2f).  Inputs and opened results are checked, and functions
check their arguments; a product does not, so `check_range` looks at what stays shared.

Adversary: the parties and the dealer are semi-honest, and the dealer does not collude with a party.
"""

from __future__ import annotations

import copy
import importlib
import inspect
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from omegaconf import OmegaConf

from mpc import compare, functions
from mpc._crypten import maths, nn, onnx, seams
from mpc._crypten.ops import Run
from mpc._crypten.pins import PINS, VERSION, check_pins, locate
from mpc._crypten.refused import REFUSED, REFUSED_SETTINGS, REQUIRED_SETTINGS, refusal
from mpc._crypten.replaced import GRADIENTS, REPLACED
from mpc.correlations import Correlation
from mpc.errors import LocalProtocolError
from mpc.ring import decode
from mpc.session import Session

FRAC_BITS = 20
"""CrypTen's default precision here.  20 bits resolve 1e-6, and leave products 22 bits, +-4 million, before truncation.
CrypTen's 16 resolve 1.5e-5; it had to be that few because its truncation fails more often the larger a value is.
"""
Words = npt.NDArray[Any]


@contextmanager
def _moved_module(old: str, new: str) -> Iterator[None]:
    """While it imports, CrypTen finds a module of PyTorch where it used to be."""
    sys.modules[old] = importlib.import_module(new)
    try:
        yield
    finally:
        del sys.modules[old]


_ONNX = "torch.onnx._internal"
with _moved_module(f"{_ONNX}.registration", f"{_ONNX}.torchscript_exporter.registration"), warnings.catch_warnings():
    warnings.simplefilter("ignore", SyntaxWarning)  # CrypTen's docstrings have invalid escapes
    import crypten
    import crypten.mpc.primitives.converters
    import crypten.nn.privacy
    from crypten.mpc.mpc import MPCTensor
    from crypten.mpc.primitives import ArithmeticSharedTensor as SharedTensor
    from crypten.mpc.primitives import BinarySharedTensor

__all__ = [
    "FRAC_BITS",
    "MPCTensor",
    "SharedTensor",
    "bind",
    "check_pins",
    "check_range",
    "crypten",
    "from_words",
    "mpc_tensor",
    "reveal",
    "reveal_to",
    "share_from",
    "to_words",
]


def bind(session: Session) -> AbstractContextManager[None]:
    """Make CrypTen in this thread play our party of `session`, until the context ends.

    Reveals: nothing.
    Cost: 1 round; 32 bytes to the next party, and 32 more from party 0 to everybody.
    Security: semi-honest parties.
    Source: Cramer, Damgard, Ishai, TCC 2005 (pseudorandom sharing of zero).
    Raises: LocalProtocolError if this thread already plays a party, or there is only one.
    """
    return seams.playing(session)


def from_words(words: Words, frac_bits: int) -> SharedTensor:
    """Our share as a tensor; shares memory with `words` if they are contiguous and writable."""
    return SharedTensor.from_shares(seams.to_tensor(words), precision=frac_bits)


def to_words(t: SharedTensor) -> Words:
    """The ring words of our share; shares memory with the tensor if that is contiguous."""
    return seams.to_words(t.share)


def mpc_tensor(t: SharedTensor) -> MPCTensor:
    """The same shares behind CrypTen's front end: comparisons, non-linear functions, autograd and crypten.nn."""
    return _front(t.shallow_copy())


def share_from(owner: int, values: npt.ArrayLike | None, shape: Sequence[int], frac_bits: int) -> SharedTensor:
    """Share numbers that only party `owner` has; the others pass None.

    values: real numbers of the given shape, rounded to 2^-frac_bits.

    Reveals: nothing.
    Cost: nothing is sent: the shares are a pseudorandom sharing of zero plus the owner's values.
    Security: semi-honest parties.
    Source: Cramer, Damgard, Ishai, TCC 2005.
    Raises: LocalProtocolError if the values have another shape, are not finite or do not fit, or there is no such party.
    """
    mine = seams.current().session.me == owner
    if mine != (values is not None):
        raise LocalProtocolError(f"party {owner} and nobody else passes the values")
    given = None if values is None else np.asarray(values, dtype=np.float64)
    if given is not None and given.shape != tuple(shape):
        raise LocalProtocolError(f"the values have shape {given.shape}, agreed was {tuple(shape)}")
    tensor = None if given is None else torch.from_numpy(given.copy())
    return SharedTensor(tensor, size=torch.Size(shape), precision=frac_bits, src=owner)


def reveal(
    t: SharedTensor | MPCTensor, name: str = "tensor", limit: float | None = None, tag: str = "crypten/result"
) -> npt.NDArray[np.float64]:
    """Open a tensor to all parties, once the randomness behind it has been found right.

    name: what to call it in an error.  limit: the largest size a value may have, in real units; by default all that the
    tensor's scale has room for, below 2^(62 - frac_bits).  tag: what the opening is called, for a Reveal to name.

    Reveals: to every party, the values.
    Cost: 1 round; 8 bytes per element to every other party; and what `Source.settle` has left to do.
    Security: semi-honest parties.
    Source: additive secret sharing.
    Raises: OutOfRange, at every party, if a value is beyond the limit; as `Source.settle`.
    """
    seams.current().session.correlations.settle()
    return _decoded(t, seams.current().communicator.all_reduce(*_share_of(t), tag=tag), name, limit)


def reveal_to(
    t: SharedTensor | MPCTensor,
    party: int,
    name: str = "tensor",
    limit: float | None = None,
    tag: str = "crypten/result-to",
) -> npt.NDArray[np.float64] | None:
    """Open a tensor to one party, once the randomness behind it has been found right; the others get None.

    name, limit, tag: as for `reveal`.

    Reveals: to that party, the values.
    Cost: 1 round; 8 bytes per element from every other party to it; and what `Source.settle` has left to do.
    Security: semi-honest parties.
    Source: additive secret sharing.
    Raises: OutOfRange, at that party, if a value is beyond the limit; as `Source.settle`.
    """
    seams.current().session.correlations.settle()
    share, op = _share_of(t)
    opened = seams.current().communicator.reduce(share, party, op, tag=tag)
    return None if opened is None else _decoded(t, opened, name, limit)


def _share_of(t: SharedTensor | MPCTensor) -> tuple[torch.Tensor, Any]:
    """Our share, and how shares are combined."""
    held = t._tensor if isinstance(t, MPCTensor) else t
    return held.share, seams.BXOR if isinstance(held, BinarySharedTensor) else seams.SUM


def check_range(t: SharedTensor | MPCTensor, name: str, limit: float) -> None:
    """Make sure that every value of a tensor that stays shared is within +-limit, in real units, or raise at every party.

    Reveals: to every party, whether any value is outside; not which, how many or how far.
    Cost: 5 rounds; as `mpc.functions.guard`, 16.75 bytes per element to every other party.
    Security: semi-honest parties; the dealer does not collude.  A value outside is missed with probability 2^-64.
    Source: as `mpc.functions.guard`.
    Raises: OutOfRange naming the tensor; LocalProtocolError if the limit is not below 2^(62 - frac_bits).
    """
    session, words, frac_bits = seams.current().session, seams.to_words(t.share), nn.bits_of(t)
    maths.largest_word(frac_bits, limit)
    tickets = session.correlations.plan(functions.plan_guard(words.size))
    use = functions.Range(frac_bits=frac_bits, what=name, operation="a checkpoint")
    functions.guard(session, tickets, words, (-limit, limit), use)


def _decoded(t: Any, opened: torch.Tensor, name: str, limit: float | None) -> npt.NDArray[np.float64]:
    words, frac_bits = seams.to_words(opened), nn.bits_of(t)
    maths.check_opened(words, frac_bits, name, "revealing", limit)
    return np.asarray(decode(words, frac_bits))


# What follows replaces functions of CrypTen that need its own classes.


def _a2b(tensor: Any) -> Any:
    """Shares by exclusive or of the same words: one addition circuit over everybody's share.

    Unlike CrypTen's, it has one path: catching an error here would leave the parties at different steps.
    """
    parties = range(seams.current().communicator.get_world_size())
    binary = BinarySharedTensor.stack([BinarySharedTensor(tensor.share, src=i) for i in parties]).sum(dim=0)
    binary.encoder = tensor.encoder
    return binary


# CrypTen's constructors share an empty tensor, and every look at an attribute asks its configuration whether to validate:
# two thirds of the time of a small operation.


def _front(t: Any, ptype: Any = crypten.mpc.arithmetic) -> Any:
    """The front end of shares, made without sharing anything."""
    result = object.__new__(MPCTensor)
    crypten.CrypTensor.__init__(result)
    result._tensor, result.ptype = t, ptype
    return result


def _from_shares(share: torch.Tensor, precision: int | None = None, ptype: Any = crypten.mpc.arithmetic) -> Any:
    """A front-end tensor from everybody's share."""
    return _front(ptype.to_tensor().from_shares(share, precision=precision), ptype)


def _clone(self: Any) -> Any:
    """A deep copy."""
    return _front(self._tensor.clone(), self.ptype)


def _shallow_copy(self: Any) -> Any:
    """A copy that has its own gradient and the same shares."""
    return _front(self._tensor, self.ptype)


def _compared(self: Any, run: Callable[..., Words], plan: Callable[[int], Sequence[Correlation]]) -> Any:
    """One of `mpc.compare`'s protocols on a front-end tensor: shared integers 0 or 1, whatever its scale."""
    session, words = seams.current().session, seams.to_words(self._tensor.share)
    bits = run(session, session.correlations.plan(plan(words.size)), words)
    return _front(from_words(bits, 0))


def _ltz(self: Any) -> Any:
    """1 where the value is negative, else 0, at scale 1; see mpc.compare."""
    return _compared(self, compare.less_than_zero, compare.plan_less_than_zero)


def _eqz(self: Any) -> Any:
    """1 where the value is zero, else 0, at scale 1; see mpc.compare."""
    return _compared(self, compare.is_zero, compare.plan_is_zero)


def _eq(self: Any, y: Any) -> Any:
    """1 where equal, else 0."""
    return _eqz(self - y)


def _ne(self: Any, y: Any) -> Any:
    """0 where equal, else 1; CrypTen's, for three parties and more, says 2 at one difference, -2^63."""
    return 1 - _eqz(self - y)


class _Step(crypten.nn.Module):  # type: ignore[misc]  # CrypTen is untyped
    """One operation of a model that was read from ONNX."""

    SUPPORTS_PLAINTEXT_INPUTS = True

    def __init__(self, run: Run) -> None:
        super().__init__()
        self._run = run

    def forward(self, values: Any) -> Any:
        """The operation on its inputs; a graph passes a list unless there is one."""
        return self._run(values if isinstance(values, list) else [values], self.training)


def _graph(plan: onnx.Plan) -> Any:
    """CrypTen's graph of modules for a plan."""
    graph = crypten.nn.Graph(list(plan.inputs), plan.output)
    for name, weight in plan.weights.items():
        graph.add_module(name, crypten.nn.Parameter(weight, trainable=name not in plan.statistics), [])
    for node in plan.nodes:
        graph.add_module(node.output, _Step(node.run), list(node.inputs))
    return graph


def _from_onnx(model: Any) -> Any:
    """A CrypTen model from a serialised ONNX graph, as bytes or a file that is open for reading them."""
    return _graph(onnx.read(model if isinstance(model, bytes) else model.read()))


def _from_pytorch(model: torch.nn.Module, dummy_input: Any) -> Any:
    """A CrypTen model from a PyTorch one; an input of the right shape says how data flows through it."""
    graph = _graph(onnx.export(model, dummy_input))
    graph.pytorch_model = copy.deepcopy(model)
    return graph.train(mode=model.training)


def _to_pytorch(self: Any) -> torch.nn.Module:
    """The PyTorch model this graph was made from, with the graph's weights."""
    return onnx.write_back(self, self.pytorch_model)


_OURS: dict[str, Any] = {
    **REPLACED,
    "crypten.common.functions.logic:eq": _eq,  # these two are the operators == and !=
    "crypten.common.functions.logic:ne": _ne,
    "crypten.cryptensor:CrypTensor.__getattribute__": inspect.unwrap(crypten.CrypTensor.__getattribute__),
    "crypten.nn.module:Graph.to_pytorch": _to_pytorch,
    "crypten.nn.onnx_converter:from_onnx": _from_onnx,
    "crypten.nn.onnx_converter:from_pytorch": _from_pytorch,
    "crypten.mpc.primitives.converters:_A2B": _a2b,
    "crypten.mpc.mpc:MPCTensor._ltz": _ltz,
    "crypten.mpc.mpc:MPCTensor._eqz_2PC": _eqz,
    "crypten.mpc.mpc:MPCTensor.clone": _clone,
    "crypten.mpc.mpc:MPCTensor.eq": _eq,
    "crypten.mpc.mpc:MPCTensor.from_shares": _from_shares,
    "crypten.mpc.mpc:MPCTensor.ne": _ne,
    "crypten.mpc.mpc:MPCTensor.shallow_copy": _shallow_copy,
}


def _check_settings(config: Any) -> None:
    """Refuse settings of CrypTen that reveal or miscompute, and freeze the rest."""
    for key, what in REFUSED_SETTINGS.items():
        if OmegaConf.select(config, key):
            raise LocalProtocolError(f"{what} is not offered")
    for key, (value, otherwise) in REQUIRED_SETTINGS.items():
        if OmegaConf.select(config, key) != value:
            raise LocalProtocolError(f"{otherwise} is not offered")
    OmegaConf.set_readonly(config, True)


def _replace(path: str, new: Any) -> None:
    """Put `new` in place of a function wherever CrypTen refers to it: by name, by import, or as a method."""
    owner, name = locate(path)
    old = inspect.getattr_static(owner, name)
    wrapped = staticmethod(new) if isinstance(old, staticmethod) else new
    modules = [m for key, m in list(sys.modules.items()) if key == "crypten" or key.startswith("crypten.")]
    classes = {
        c for m in modules for c in vars(m).values() if isinstance(c, type) and c.__module__.startswith("crypten")
    }
    for place in (*modules, *classes):
        for key, value in list(vars(place).items()):
            if value is old:
                setattr(place, key, wrapped)


def _install() -> None:
    if crypten.__version__ != VERSION:
        raise ImportError(f"this engine is made for CrypTen {VERSION}, found {crypten.__version__}")
    check_pins(PINS)
    for path, new in (_OURS | {p: refusal(s) for p, s in REFUSED.items()}).items():
        _replace(path, new)
    for name, (forward, backward) in GRADIENTS.items():
        function = {"forward": staticmethod(forward), "backward": staticmethod(backward)}
        crypten.gradients.register_function(name)(type(name, (crypten.gradients.AutogradFunction,), function))
    crypten.generators = seams.Generators()
    provider = seams.DealerProvider(
        lambda share: SharedTensor.from_shares(share, precision=0), lambda share: BinarySharedTensor.from_shares(share)
    )
    vars(crypten.mpc)["__SUPPORTED_PROVIDERS"] = {seams.DealerProvider.NAME: provider}
    ours = {"mpc": {"provider": seams.DealerProvider.NAME}, "encoder": {"precision_bits": FRAC_BITS}}
    config = OmegaConf.merge(crypten.config.cfg.config, ours)
    _check_settings(config)
    # What CrypTen keeps in a global and switches for the length of a call is kept per thread.
    type(crypten.config.cfg).config = seams.PerContext("crypten-config", config, _check_settings)
    type(crypten.CrypTensor).AUTOGRAD_ENABLED = seams.PerContext("crypten-autograd", True)


_install()
