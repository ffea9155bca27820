"""Arrays in a file that people read: little-endian bytes (base64 in JSON), checked when they come back. Pure."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def pack(values: NDArray[Any], kind: str) -> bytes:
    """The elements in C order as `kind`, a NumPy type code without byte order such as `f4` or `u8`."""
    return np.ascontiguousarray(values).astype(f"<{kind}").tobytes()


def unpack(data: bytes, kind: str, shape: tuple[int, ...], what: str) -> NDArray[Any]:
    """What `pack` wrote, in the machine's own byte order. `shape` may have one -1; `what` names it in the error.

    Raises:
        ValueError: when the size does not fit the shape, or a number is not finite.
    """
    stored = np.dtype(f"<{kind}")
    row = abs(prod(shape)) * stored.itemsize
    if (-1 in shape and (not row or len(data) % row)) or (-1 not in shape and len(data) != row):
        msg = f"{what}: {len(data)} bytes do not make an array of shape {shape}"
        raise ValueError(msg)
    values = np.frombuffer(data, stored).reshape(shape).astype(stored.newbyteorder("="))
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        msg = f"{what}: not every number is finite"
        raise ValueError(msg)
    return values
