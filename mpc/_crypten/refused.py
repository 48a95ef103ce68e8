"""What of CrypTen 0.4.1 cannot be made right, and why; `mpc.engine` puts a refusal in place of each."""

from typing import Any, NoReturn

from mpc._crypten.seams import DealerProvider
from mpc.errors import LocalProtocolError

_SESSION = "a session is bound with mpc.engine.bind; CrypTen's own set-up"
_PICKLE = "nothing is pickled or unpickled here; CrypTen's loading and saving"
_TRUNCATION = "CrypTen's probabilistic truncation is off by 2^32 once in a while, so it"
_REPLICATED = "CrypTen's replicated protocol does not re-randomise its products, so it"
_PROVIDER = "correlations come from the session's dealer; a CrypTen provider in which one party knows them all"
_CACHE = "a correlation is used once and never cached; CrypTen's tracing"
REFUSED: dict[str, str] = {
    **{f"crypten:{name}": _SESSION for name in ("init", "init_thread", "uninit", "_setup_prng", "_sync_seeds")},
    "crypten:manual_seed": "all randomness is AES in counter mode under fresh keys; CrypTen's seeding",
    **{f"crypten:{name}": _PICKLE for name in ("load", "load_from_party", "save", "save_from_party")},
    **{f"crypten:{name}": _CACHE for name in ("trace", "trace_once", "fill_cache")},
    **{f"crypten.communicator:{name}": _SESSION for name in ("_init", "uninit")},
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

REFUSED_SETTINGS = {
    "communicator.verbose": "CrypTen's communication log",
    "debug.debug_mode": "CrypTen's debug mode, which prints secrets,",
    "debug.validation_mode": "CrypTen's validation mode, which reveals every intermediate value,",
    "mpc.active_security": "CrypTen's active security, which checks nothing that a cheater could not forge,",
}
REQUIRED_SETTINGS = {
    "mpc.provider": (DealerProvider.NAME, _PROVIDER),
    "mpc.protocol": ("beaver", _REPLICATED),
    "functions.sigmoid_tanh_method": ("reciprocal", "CrypTen's Chebyshev sigmoid, which has the wrong sign from 8 on,"),
}


def refusal(sentence: str) -> Any:
    """A function that raises LocalProtocolError, whatever it is given: the sentence, and that it is not offered."""

    def refuse(*_args: Any, **_kwargs: Any) -> NoReturn:
        raise LocalProtocolError(f"{sentence} is not offered")

    return refuse
