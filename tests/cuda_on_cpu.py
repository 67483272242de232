"""CUDA kernels on the CPU: `RawModule` with CuPy's signature, for the stand-in for CuPy of strict_cupy.py.

The product's own launch code runs; a C++ compiler with cuda_shim.h takes the place of NVIDIA's, and every
launch runs in both orders of threads and blocks, which must give the same bits. While a kernel runs, each
array lies next to a forbidden page: after its end, or before its start in the reverse order. So an access
outside an array raises RuntimeError, like all else that the shim reports.
"""

import ctypes
import functools
import mmap
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import strict_cupy

COMPILER = next(filter(None, map(shutil.which, ("g++", "clang++"))), None)
MISSING = None if COMPILER and sys.platform == "linux" else "no C++ compiler on Linux"
FOLDER = tempfile.TemporaryDirectory(prefix="tinynst_kernels")  # for the session
KERNEL = re.compile(r'extern "C" __global__ (?:__launch_bounds__\([\w, ]+\) )?void (\w+)\(')


@functools.cache
def _build(code, options):
    """The shared library of a source, and its kernels' names."""
    names = KERNEL.findall(code)
    assert len(names) == code.count("__global__"), 'kernels begin with: extern "C" __global__ void'
    calls = "".join(
        f'extern "C" bool launch_{name}(void** args, const cpu::Launch* l)'
        f"{{ return cpu::call(&{name}, args, *l); }}\n"
        for name in names
    )
    # In a namespace without a name, shared variables of templates lie in one section with the others
    text = f'#include "cuda_shim.h"\nnamespace {{\n#line 1 "kernel.cu"\n{code}\n}}\n{calls}'
    path = Path(tempfile.mkdtemp(dir=FOLDER.name)) / "kernels.cpp"
    path.write_text(f'{text}extern "C" const char* cpu_error() {{ return cpu::error; }}\n')
    flags = "-O2 -w -U_FORTIFY_SOURCE -fno-strict-aliasing -fPIC -shared".split()
    command = [COMPILER, *options, *flags, f"-I{Path(__file__).parent}", path, "-o", path.with_suffix(".so")]
    subprocess.run(command, check=True, timeout=120)
    library = ctypes.CDLL(path.with_suffix(".so"))
    library.cpu_error.restype = ctypes.c_char_p
    return library, names


class RawModule:
    """cupy.RawModule, compiled when a kernel is first asked for."""

    def __init__(self, *, code, options=()):
        self.code, self.options = code, options

    def get_function(self, name):
        library, names = _build(self.code, self.options)
        assert name in names, f"no kernel {name}; there are {', '.join(names)}"
        return functools.partial(_launch, library, name)


def _launch(library, name, grid, block, args):
    """cupy.RawKernel's call, in both orders. Arrays are the stand-in's, numbers NumPy's of the exact type."""
    strict_cupy.cupy.launches += 1
    arrays = {id(a): a._array for a in args if isinstance(a, strict_cupy.ndarray)}
    results = []
    for reverse in (False, True):
        copies = {key: _Guarded(array, at_end=not reverse) for key, array in arrays.items()}
        _run(library, name, grid, block, args, copies, reverse)
        results.append({key: copy.take() for key, copy in copies.items()})
    for key, array in arrays.items():
        first, second = (result[key] for result in results)
        if first.tobytes() != second.tobytes():
            raise RuntimeError(f"{name}: the result depends on the order of threads: is a barrier missing?")
        if first.tobytes() != array.tobytes():
            array[...] = first


class _Launch(ctypes.Structure):
    _fields_ = [("grid", ctypes.c_uint * 3), ("block", ctypes.c_uint * 3), ("reverse", ctypes.c_int)]
    _fields_ += [("count", ctypes.c_int), ("sizes", ctypes.POINTER(ctypes.c_size_t))]


def _run(library, name, grid, block, args, copies, reverse):
    values, items = [], []
    for a in args:
        is_array = id(a) in copies
        value = copies[id(a)].address if is_array else a
        values.append(np.uintp(value or 0) if is_array or a is None else np.asarray(a))
        items.append(copies[id(a)].array.itemsize if is_array else 0)
    values = [np.asarray(value) for value in values]
    sizes = (ctypes.c_size_t * (2 * len(args)))(*[value.nbytes for value in values], *items)
    pointers = (ctypes.c_void_p * len(args))(*[value.ctypes.data for value in values])
    function = getattr(library, f"launch_{name}")
    function.restype = ctypes.c_bool
    launch = _Launch((*grid, 1, 1)[:3], (*block, 1, 1)[:3], reverse, len(args), sizes)
    if not function(pointers, ctypes.byref(launch)):
        raise RuntimeError(f"{name}: {library.cpu_error().decode()}")


_libc = ctypes.CDLL(None)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
_libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
_libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]


class _Guarded:
    """A copy of an array between forbidden pages, next to the one after its end or before its start."""

    def __init__(self, array, at_end):
        assert array.flags.c_contiguous, "a kernel needs contiguous arrays"
        page = mmap.PAGESIZE
        inside = -(-max(array.nbytes, 1) // page) * page
        self.array, self.size = array, inside + 2 * page
        protection, flags = mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
        self.memory = _libc.mmap(None, self.size, protection, flags, -1, 0)
        _libc.mprotect(self.memory, page, 0)
        _libc.mprotect(self.memory + page + inside, page, 0)
        # At a multiple of 16 bytes, because kernels load four floats at once
        self.address = self.memory + page + ((inside - array.nbytes) // 16 * 16 if at_end else 0)
        ctypes.memset(self.memory + page, 0xFF, inside)
        ctypes.memmove(self.address, array.ctypes.data, array.nbytes)

    def take(self):
        """What the kernel left in the copy, which is gone then."""
        result = np.empty_like(self.array)
        ctypes.memmove(result.ctypes.data, self.address, result.nbytes)
        _libc.munmap(self.memory, self.size)
        return result
