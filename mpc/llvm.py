"""Vector code for compiled kernels: steps that numba has no words for, written as instructions for LLVM.

A step gets arrays as pointers and offsets in elements, and has no result.  Importing this raises ImportError on a processor
without AES instructions, so that everything built on it falls back to NumPy together.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba.extending
import numba.np.arrayobj
from llvmlite import binding, ir  # type: ignore[import-untyped]
from numba import types

intrinsic: Any = numba.extending.intrinsic
make_array: Any = numba.np.arrayobj.make_array

_FEATURES = binding.get_host_cpu_features()
if not _FEATURES.get("aes"):
    raise ImportError("this processor has no AES instructions for the compiled kernels")
LANES = 4 if _FEATURES.get("vaes") and _FEATURES.get("avx512f") else 1
"""AES blocks that one instruction works on."""

_I64 = ir.IntType(64)
V8 = ir.VectorType(_I64, 8)
"""Eight words."""


def _data(context: Any, builder: Any, kind: Any, value: Any) -> Any:
    return make_array(kind)(context, builder, value).data


def pointer(builder: Any, data: Any, offset: Any, kind: Any) -> Any:
    """To `kind` at an element of an array."""
    return builder.bitcast(builder.gep(data, [offset]), kind.as_pointer())


def load(builder: Any, data: Any, offset: Any, kind: Any = V8) -> Any:
    """What is there, wherever it is aligned."""
    return builder.load(pointer(builder, data, offset, kind), align=1)


def store(builder: Any, value: Any, data: Any, offset: Any) -> None:
    """Put a value there."""
    builder.store(value, pointer(builder, data, offset, value.type), align=1)


def plus(builder: Any, offset: Any, n: int) -> Any:
    """An offset and a constant."""
    return builder.add(offset, ir.Constant(_I64, n))


def vector_step(body: Callable[..., None]) -> Any:
    """An intrinsic without a result whose arguments are arrays, given to `body` as pointers, and 64-bit numbers."""

    def build(_: Any, *args: Any) -> Any:
        kinds = [a if isinstance(a, types.Array) else types.int64 for a in args]

        def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            ready = [
                _data(context, builder, kind, value) if isinstance(kind, types.Array) else value
                for kind, value in zip(signature.args, values, strict=True)
            ]
            body(builder, *ready)
            return context.get_dummy_value()

        return types.void(*kinds), codegen

    return build
