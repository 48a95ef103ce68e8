"""Compiled kernels with a cache on disk that parallel processes can share.

numba's own cache keeps an index of numbered files.  Two processes that compile at the same moment can give one number to two
signatures, and after an upgrade the new index can for a moment point at the old file; either way a kernel runs code that was
compiled for something else, and nothing notices.  Three parties that start together on a fresh installation are exactly
that case.  Nor does it notice a change in another module whose functions were compiled into a kernel.

Here a file's name is a hash of all that its content depends on: the text of the function's module and of those of ours that it
uses, the function's bytecode, the signature, the processor and numba's version.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import logging
import sys
from collections.abc import Callable
from functools import cache
from typing import Any

from numba import njit
from numba.core.caching import FunctionCache, IndexDataCacheFile

__all__ = ["compiled"]

log = logging.getLogger("accord.compile")
"""Says, at level INFO, what is being compiled because this machine has not got it yet: people wait for that."""


class _KeyedFiles(IndexDataCacheFile):
    """One file per key, and no index."""

    def save(self, key: Any, data: Any) -> None:
        """Write, in one atomic step, what was compiled for `key`."""
        self._save_data(self._name(key), data)  # type: ignore[no-untyped-call]

    def load(self, key: Any) -> Any:
        """What was compiled for `key`, or None."""
        try:
            return self._load_data(self._name(key))  # type: ignore[no-untyped-call]
        except OSError:
            log.info("compiling %s for this machine, once", self._index_name.split("-")[0])
            return None

    def flush(self) -> None:
        """Nothing: another source has other names."""

    def _name(self, key: Any) -> str:
        what = repr((self._version, self._source_stamp, key)).encode()
        return f"{self._index_name.removesuffix('.nbi')}.{hashlib.sha256(what).hexdigest()[:32]}.nbc"


class _KeyedCache(FunctionCache):
    """numba's cache of one function, with keyed files."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function)  # type: ignore[no-untyped-call]
        self._cache_file = _KeyedFiles(  # type: ignore[no-untyped-call]
            cache_path=self._cache_path,
            filename_base=self._impl.filename_base,
            source_stamp=_source_digest(function),
        )


def _source_digest(function: Callable[..., Any]) -> str:
    """Hash of the text of a function's module and of all of ours that it imports, directly or not.

    Their constants and functions become part of the kernel's code.
    """
    waiting, names = [function.__module__], set[str]()
    while waiting:
        name = waiting.pop()
        if name not in names:
            names.add(name)
            waiting += [other for other in _imported(name) if other in sys.modules]
    digest = hashlib.sha256()
    for name in sorted(names):
        digest.update(_text(name))
    return digest.hexdigest()


@cache
def _imported(name: str) -> frozenset[str]:
    """Names that may be modules of ours, from the import statements of one."""
    found = set()
    for node in ast.walk(ast.parse(_text(name))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return frozenset(other for other in found if other.startswith("mpc."))


@cache
def _text(name: str) -> bytes:
    try:
        return inspect.getsource(sys.modules[name]).encode()
    except (KeyError, OSError, TypeError):  # not from a file that can be read: then its kernels are not kept either
        raise RuntimeError(f"the source of {name} cannot be read") from None


def compiled(function: Callable[..., Any]) -> Any:
    """Decorator: compile for the argument types it is called with, release Python's lock, keep the code on disk.

    Where neither the code's folder nor the user's cache can be written, it is compiled in every process.
    """
    dispatcher: Any = njit(nogil=True)(function)
    try:
        dispatcher._cache = _KeyedCache(function)
    except RuntimeError:
        return dispatcher
    return dispatcher
