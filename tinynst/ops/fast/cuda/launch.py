"""Launches a kernel of a .cu file in this folder."""

import functools
import re
from pathlib import Path

import numpy as np

from .... import device

FOLDER = Path(__file__).parent
TYPES = {"float32": "float", "float64": "double"}


@functools.cache
def source(file):
    """The text of `file`, with the text of the files that it includes."""
    text = (FOLDER / file).read_text(encoding="utf-8")
    return re.sub(r'#include "(.+)"\n', lambda found: source(found[1]), text)


def launch(file, kernel, grid, args, block=(256,), **macros):
    """Launch `kernel` of `file`: `grid` blocks of `block` threads, both tuples of one to three numbers.

    args: the kernel's arguments: an array of float32 or float64, which is then REAL in CUDA; other arrays,
          all contiguous; None for a null pointer; int and bool for `int`, float for REAL
    macros: names that the CUDA source uses, as COLUMNS=64
    """
    xp, dtype = device.array_module(args[0]), args[0].dtype
    values = []
    for value in args:
        if isinstance(value, int):  # bool as well
            value = np.int32(value)
        elif isinstance(value, float):
            value = dtype.type(value)
        elif value is not None and not value.flags.c_contiguous:
            raise ValueError(f"{kernel}: an array of shape {value.shape} is not contiguous")
        values.append(value)
    compiled = device.kernel(xp, source(file), options(dtype.name, tuple(macros.items())), kernel)
    compiled(grid, block, tuple(values))


@functools.cache
def options(dtype, macros):
    """The compiler's options for arrays of `dtype` and macros ((name, value), ...)."""
    return "--std=c++17", f"-DREAL={TYPES[dtype]}", *(f"-D{name}={value}" for name, value in macros)
