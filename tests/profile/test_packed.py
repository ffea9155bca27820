"""Arrays in files: what was packed comes back, and what does not fit is refused by name."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from poisonwatch.profile.packed import pack, unpack


@given(st.lists(st.integers(0, 255), min_size=6, max_size=6), st.sampled_from(["f4", "f8", "u8", "i4", "u2"]))
def test_arrays_come_back(values: list[int], kind: str) -> None:
    """Any kind of number keeps its values, its shape and its kind; an open dimension is found from the size."""
    array = np.array(values, kind).reshape(3, 2)
    for shape in ((3, 2), (-1, 2), (3, -1)):
        again = unpack(pack(array, kind), kind, shape, "test")
        assert again.dtype == array.dtype
        assert again.tolist() == array.tolist()


def test_the_bytes_are_little_endian() -> None:
    """The file is the same on every machine, also where the array is not contiguous."""
    assert pack(np.array([[1, 2], [3, 4]])[:, 1], "u2") == b"\x02\x00\x04\x00"


@pytest.mark.parametrize(
    ("data", "kind", "shape"),
    [
        (b"\0" * 7, "f4", (-1,)),
        (b"\0" * 8, "f4", (3,)),
        (b"\0" * 8, "f4", (-1, 3)),
        (b"\0" * 8, "f4", (-1, 0)),
        (np.array([np.nan], "<f4").tobytes(), "f4", (1,)),
        (np.array([np.inf], "<f8").tobytes(), "f8", (-1,)),
    ],
)
def test_what_does_not_fit_is_refused_by_name(data: bytes, kind: str, shape: tuple[int, ...]) -> None:
    """A wrong size and a number that is not finite are errors that name the array."""
    with pytest.raises(ValueError, match="the thing"):
        unpack(data, kind, shape, "the thing")
