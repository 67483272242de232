"""Checks of arguments, so that a mistake is named where it is made and not ten calls deeper."""

import numpy as np

from ..device import array_module


def floating(**arrays):
    """Return the array module of `arrays` (name=array; None is passed over).

    Raises TypeError when one is no array, is not float32 or float64, differs in dtype from the first, or lives on
    another device.
    """
    given = {name: array for name, array in arrays.items() if array is not None}
    for name, array in given.items():
        try:
            array_module(array)
        except TypeError as error:
            raise TypeError(f"{name}: {error}") from None
    try:
        xp = array_module(*given.values())
    except TypeError as error:
        raise TypeError(f"{', '.join(given)}: {error}") from None
    first = next(iter(given))
    for name, array in given.items():
        if array.dtype not in (np.float32, np.float64):
            raise TypeError(
                f"{name} has dtype {array.dtype}; it should be float32 or float64: use {name}.astype('float32')"
            )
        if array.dtype != given[first].dtype:
            raise TypeError(
                f"{name} has dtype {array.dtype} but {first} has {given[first].dtype}; they should be the same"
            )
    return xp


def shape(name, array, *wanted):
    """Raise ValueError unless `array.shape` is `wanted`; a string in `wanted` names an axis of any size >= 1."""
    fits = len(array.shape) == len(wanted) and all(
        size == want or (isinstance(want, str) and size >= 1)
        for size, want in zip(array.shape, wanted, strict=True)
    )
    if not fits:
        raise ValueError(
            f"{name} has shape {tuple(array.shape)}; it should be ({', '.join(map(str, wanted))})"
        )


def whole(name, value, least):
    """Raise ValueError unless `value` is a whole number of at least `least`; return it as an int."""
    if isinstance(value, bool) or not hasattr(value, "__index__") or value.__index__() < least:
        raise ValueError(f"{name} is {value!r}; it should be a whole number of at least {least}")
    return value.__index__()
