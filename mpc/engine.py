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
to f bits it has 2f, and must stay under 2^62: |x y| < 2^(62 - 2f).  Nobody can see a shared value leave that range.

Adversary: the parties and the dealer are semi-honest, and the dealer does not collude with a party.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt
import torch
from omegaconf import OmegaConf

from mpc import _crypten_maths as maths
from mpc import _crypten_seams as seams
from mpc import compare
from mpc._crypten_pins import PINS
from mpc.correlations import Correlation
from mpc.errors import LocalProtocolError
from mpc.ring import decode
from mpc.session import Session

VERSION = "0.4.1"
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
    return MPCTensor.from_shares(t.share, precision=int(t.encoder.scale).bit_length() - 1)


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


def reveal(t: SharedTensor | MPCTensor) -> npt.NDArray[np.float64]:
    """Open a tensor to all parties.

    Reveals: to every party, the values.
    Cost: 1 round; 8 bytes per element to every other party.
    Security: semi-honest parties.
    Source: additive secret sharing.
    """
    return _decoded(t, t.reveal())


def reveal_to(t: SharedTensor | MPCTensor, party: int) -> npt.NDArray[np.float64] | None:
    """Open a tensor to one party; the others get None.

    Reveals: to that party, the values.
    Cost: 1 round; 8 bytes per element from every other party to it.
    Security: semi-honest parties.
    Source: additive secret sharing.
    """
    opened = t.reveal(dst=party)
    return None if opened is None else _decoded(t, opened)


def _decoded(t: Any, opened: torch.Tensor) -> npt.NDArray[np.float64]:
    return np.asarray(decode(seams.to_words(opened), int(t.encoder.scale).bit_length() - 1))


# What follows replaces functions of CrypTen that need its own classes.


def _a2b(tensor: Any) -> Any:
    """Shares by exclusive or of the same words: one addition circuit over everybody's share.

    Unlike CrypTen's, it has one path: catching an error here would leave the parties at different steps.
    """
    parties = range(seams.current().communicator.get_world_size())
    binary = BinarySharedTensor.stack([BinarySharedTensor(tensor.share, src=i) for i in parties]).sum(dim=0)
    binary.encoder = tensor.encoder
    return binary


def _compared(self: Any, run: Callable[..., Words], plan: Callable[[int], Sequence[Correlation]]) -> Any:
    """One of `mpc.compare`'s protocols on a front-end tensor: shared integers 0 or 1, whatever its scale."""
    session, words = seams.current().session, seams.to_words(self._tensor.share)
    bits = run(session, session.correlations.plan(plan(words.size)), words)
    result = MPCTensor([])
    result._tensor = from_words(bits, 0)
    return result


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


_OURS: dict[str, Any] = {
    "crypten.communicator:get": seams.SessionCommunicator.get,
    "crypten.communicator:is_initialized": seams.SessionCommunicator.is_initialized,
    "crypten.communicator:DistributedCommunicator": seams.SessionCommunicator,
    "crypten.communicator:InProcessCommunicator": seams.SessionCommunicator,
    "crypten.common.rng:generate_random_ring_element": seams.ring_elements,
    "crypten.common.rng:generate_kbit_random_tensor": seams.random_bits,
    "crypten.common.functions.logic:eq": _eq,  # these two are the operators == and !=
    "crypten.common.functions.logic:ne": _ne,
    "crypten.common.functions.power:pow": maths.power,
    "crypten.encoder:FixedPointEncoder.encode": maths.encode,
    "crypten.encoder:FixedPointEncoder.decode": maths.decode,
    "crypten.gradients:AutogradDropout.forward": maths.dropout_forward,
    "crypten.gradients:AutogradFeatureDropout.forward": maths.feature_dropout_forward,
    "crypten.mpc.primitives.arithmetic:ArithmeticSharedTensor.__init__": maths.init_shared,
    "crypten.mpc.primitives.arithmetic:ArithmeticSharedTensor.__repr__": maths.hidden,
    "crypten.mpc.primitives.arithmetic:ArithmeticSharedTensor._arithmetic_function": maths.arithmetic,
    "crypten.mpc.primitives.arithmetic:ArithmeticSharedTensor.div_": maths.div_,
    "crypten.mpc.primitives.arithmetic:ArithmeticSharedTensor.square_": maths.square_,
    "crypten.mpc.primitives.beaver:__beaver_protocol": maths.beaver_protocol,
    "crypten.mpc.primitives.beaver:square": maths.beaver_square,
    "crypten.mpc.primitives.binary:BinarySharedTensor.__repr__": maths.hidden,
    "crypten.mpc.primitives.converters:_A2B": _a2b,
    "crypten.mpc.mpc:MPCTensor.__repr__": maths.hidden,
    "crypten.mpc.mpc:MPCTensor._ltz": _ltz,
    "crypten.mpc.mpc:MPCTensor._eqz_2PC": _eqz,
    "crypten.mpc.mpc:MPCTensor.eq": _eq,
    "crypten.mpc.mpc:MPCTensor.ne": _ne,
}

_SESSION = "a session is bound with mpc.engine.bind; CrypTen's own set-up"
_PICKLE = "nothing is pickled or unpickled here; CrypTen's loading and saving"
_TRUNCATION = "CrypTen's probabilistic truncation is off by 2^32 once in a while, so it"
_REPLICATED = "CrypTen's replicated protocol does not re-randomise its products, so it"
_PROVIDER = "correlations come from the session's dealer; a CrypTen provider in which one party knows them all"
_CACHE = "a correlation is used once and never cached; CrypTen's tracing"
_REFUSED: dict[str, str] = {
    **{f"crypten:{name}": _SESSION for name in ("init", "init_thread", "uninit", "_setup_prng", "_sync_seeds")},
    "crypten:manual_seed": "all randomness is AES in counter mode under fresh keys; CrypTen's seeding",
    **{f"crypten:{name}": _PICKLE for name in ("load", "load_from_party", "save", "save_from_party")},
    **{f"crypten:{name}": _CACHE for name in ("trace", "trace_once", "fill_cache")},
    **{f"crypten.communicator:{name}": _SESSION for name in ("_init", "uninit")},
    "crypten.common.functions.approximations:erf": "CrypTen's erf is off by millions at 3, so it",
    "crypten.common.functions.regular:var": "CrypTen's variance has its 'unbiased' the wrong way round, so it",
    "crypten.common.serial:_safe_legacy_load": _PICKLE,
    "crypten.common.serial:restricted_loads": _PICKLE,
    "crypten.debug.debug:validate_correctness": "validation reveals every intermediate value, so it",
    "crypten.mpc.context:run_multiprocess": _SESSION,
    "crypten.mpc.primitives.beaver:truncate": _TRUNCATION,
    "crypten.mpc.primitives.beaver:wraps": _TRUNCATION,
    "crypten.mpc.primitives.replicated:__replicated_secret_sharing_protocol": _REPLICATED,
    "crypten.mpc.primitives.replicated:square": _REPLICATED,
    "crypten.mpc.primitives.replicated:truncate": _REPLICATED,
    "crypten.mpc.provider.provider:TupleProvider.__init__": _PROVIDER,
    "crypten.mpc.provider.ttp_provider:TTPClient._init": _PROVIDER,
    "crypten.mpc.provider.ttp_provider:TTPServer.__init__": _PROVIDER,
    "crypten.nn.privacy.dp_split:DPSplitModel.__init__": "CrypTen's noise is predictable; its differential privacy",
}

_REFUSED_SETTINGS = {
    "communicator.verbose": "CrypTen's communication log",
    "debug.debug_mode": "CrypTen's debug mode, which prints secrets,",
    "debug.validation_mode": "CrypTen's validation mode, which reveals every intermediate value,",
    "mpc.active_security": "CrypTen's active security, which checks nothing that a cheater could not forge,",
}
_REQUIRED_SETTINGS = {
    "mpc.provider": (seams.DealerProvider.NAME, _PROVIDER),
    "mpc.protocol": ("beaver", _REPLICATED),
    "functions.sigmoid_tanh_method": ("reciprocal", "CrypTen's Chebyshev sigmoid, which has the wrong sign from 8 on,"),
}


def _refusal(sentence: str) -> Any:
    def refuse(*_args: Any, **_kwargs: Any) -> NoReturn:
        raise LocalProtocolError(f"{sentence} is not offered")

    return refuse


def _check_settings(config: Any) -> None:
    """Refuse settings of CrypTen that reveal or miscompute, and freeze the rest."""
    for key, what in _REFUSED_SETTINGS.items():
        if OmegaConf.select(config, key):
            raise LocalProtocolError(f"{what} is not offered")
    for key, (value, otherwise) in _REQUIRED_SETTINGS.items():
        if OmegaConf.select(config, key) != value:
            raise LocalProtocolError(f"{otherwise} is not offered")
    OmegaConf.set_readonly(config, True)


def _locate(path: str) -> tuple[Any, str]:
    module, _, dotted = path.partition(":")
    *owners, name = dotted.split(".")
    owner: Any = importlib.import_module(module)
    for part in owners:
        owner = getattr(owner, part)
    return owner, name


def check_pins(pins: Mapping[str, str]) -> None:
    """Compare the source of functions ("module:Class.function") with SHA-256 hashes of it.

    Raises: ImportError naming the first that differs or is missing.
    """
    for path, pinned in pins.items():
        try:
            owner, name = _locate(path)
            source = inspect.getsource(inspect.unwrap(getattr(owner, name)))
        except (AttributeError, ImportError, OSError, TypeError) as exc:
            raise ImportError(f"CrypTen {VERSION} should have '{path}', and this one does not") from exc
        if hashlib.sha256(source.encode()).hexdigest() != pinned:
            raise ImportError(f"'{path}' is not the function of CrypTen {VERSION} that mpc.engine replaces")


def _replace(path: str, new: Any) -> None:
    """Put `new` in place of a function wherever CrypTen refers to it: by name, by import, or as a method."""
    owner, name = _locate(path)
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
    for path, new in (_OURS | {p: _refusal(s) for p, s in _REFUSED.items()}).items():
        _replace(path, new)
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
