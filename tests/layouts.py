"""The memory layouts in which an operation may receive an array: every test of an operation runs over them."""

import numpy as np

LAYOUTS = ("C", "Fortran", "strided", "negative", "read-only", "misaligned")


def laid_out(values, layout: str, dtype=None) -> np.ndarray:
    """The same values (of `dtype`, if given) in another memory layout."""
    values = np.array(values, dtype=dtype, order="C")
    if layout == "C":
        return values
    if layout == "Fortran":
        return np.asfortranarray(values)
    if layout == "strided":  # every second element along each axis of a larger array
        larger = (
            np.full(tuple(2 * n for n in values.shape), np.nan, values.dtype)
            if values.dtype.kind == "f"
            else np.zeros(tuple(2 * n for n in values.shape), values.dtype)
        )
        view = larger[tuple(slice(None, None, 2) for _ in values.shape)]
        view[...] = values
        return view
    if layout == "negative":
        backwards = tuple(slice(None, None, -1) for _ in values.shape)
        return np.ascontiguousarray(values[backwards])[backwards]
    if layout == "read-only":
        values.flags.writeable = False
        return values
    if layout == "misaligned":
        memory = np.zeros(values.nbytes + 1, np.uint8)
        view = np.ndarray(values.shape, values.dtype, memory.data, offset=1)
        view[...] = values
        return view
    raise ValueError(layout)
