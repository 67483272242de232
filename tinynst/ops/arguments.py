"""Checks of arguments: a mistake is reported where it is made, with the argument's name."""

import numpy as np

from ..device import array_module


def floating(**arrays):
    """Return the array module of `arrays` (name=array; None is skipped).

    Raises TypeError for anything else than float32 or float64 arrays of one dtype on one device.
    """
    given = {name: array for name, array in arrays.items() if array is not None}
    for names in (*([name] for name in given), list(given)):
        try:
            xp = array_module(*(given[name] for name in names))
        except TypeError as error:
            raise TypeError(f"{', '.join(names)}: {error}") from None
    first = next(iter(given))
    for name, array in given.items():
        has, wanted = array.dtype, given[first].dtype
        if has not in (np.float32, np.float64):
            use = f"use {name}.astype('float32')"
            raise TypeError(f"{name} has dtype {has}; it should be float32 or float64: {use}")
        if has != wanted:
            raise TypeError(f"{name} has dtype {has} but {first} has {wanted}; they should be the same")
    return xp


def shape(name, array, *wanted):
    """Raise ValueError unless `array.shape` is `wanted`, where a string stands for any size of at least 1."""
    fits = len(array.shape) == len(wanted) and all(
        size == want or (isinstance(want, str) and size >= 1)
        for size, want in zip(array.shape, wanted, strict=True)
    )
    if not fits:
        wanted = ", ".join(map(str, wanted))
        raise ValueError(f"{name} has shape {tuple(array.shape)}; it should be ({wanted})")


def whole(name, value, least):
    """Return `value` as an int; raise ValueError unless it is a whole number of at least `least`."""
    if isinstance(value, bool) or not hasattr(value, "__index__") or value.__index__() < least:
        raise ValueError(f"{name} is {value!r}; it should be a whole number of at least {least}")
    return value.__index__()
