"""The one file that knows CuPy exists: "cpu" is NumPy, "cuda" is CuPy.

Everything else asks `array_module(x)` where an array lives and calls that module, so each line of mathematics is
written once and runs on both.
"""

import sys

import numpy as np

from .errors import DeviceError


def select(name):
    """Return the array module of `name`: numpy for "cpu", cupy for "cuda".

    Raises DeviceError when CuPy is not installed or no GPU answers, ValueError for any other name.
    """
    if name == "cpu":
        return np
    if name != "cuda":
        raise ValueError(f"device must be 'cpu' or 'cuda', not {name!r}")
    try:
        import cupy
    except ImportError:
        raise DeviceError(
            "--device cuda needs CuPy, which is not installed: pip install 'tinynst[cuda12]' (or cuda13, "
            "as your driver's CUDA), or use --device cpu"
        ) from None
    try:
        cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError as error:
        raise DeviceError(
            f"--device cuda needs an NVIDIA GPU: CuPy is installed but finds none ({error}); install NVIDIA's driver "
            "(Debian, Ubuntu: apt install nvidia-driver; then nvidia-smi shows the GPU), or use --device cpu"
        ) from None
    return cupy


def array_module(*arrays):
    """Return numpy or cupy, whichever holds all `arrays` (None is passed over).

    Raises TypeError for anything that is not an array, and for arrays on two devices.
    """
    cupy = sys.modules.get("cupy")  # a CuPy array can only exist where somebody has imported CuPy
    found = None
    for array in arrays:
        if array is None:
            continue
        if isinstance(array, np.ndarray):
            module = np
        elif cupy is not None and isinstance(array, cupy.ndarray):
            module = cupy
        else:
            raise TypeError(
                f"expected a NumPy or CuPy array, got {type(array).__name__}: make it one with np.asarray(...)"
            )
        if found is not None and module is not found:
            raise TypeError(
                "NumPy and CuPy arrays met in one operation: move all to the GPU with device.asarray(x, cupy) "
                "or all to the CPU with device.to_numpy(x)"
            )
        found = module
    if found is None:
        raise TypeError("expected at least one array, got none")
    return found


def asarray(array, xp):
    """`array` (from either device, or a nested list) as an array of the module `xp`, copied only if it must move."""
    return to_numpy(array) if xp is np else xp.asarray(array)


def to_numpy(array):
    """`array` as a NumPy array, fetched from the GPU where it is there."""
    return array.get() if hasattr(array, "get") else np.asarray(array)


def synchronize(xp):
    """Wait until all that was asked of the device is done (a GPU works on while Python goes ahead)."""
    if xp is not np:
        xp.cuda.get_current_stream().synchronize()


def copy_arrays(source, target):
    """Copy the dict of NumPy arrays `source` over that of arrays `target`, on any device: all of them or none.

    Raises ValueError unless names and shapes are the same.
    """
    if source.keys() != target.keys():
        raise ValueError(f"{sorted(source.keys() ^ target.keys())[0]!r} is only in one of the two")
    for name, array in target.items():
        if array.shape != source[name].shape:
            raise ValueError(f"{name} has shape {source[name].shape} there, {array.shape} here")
    for name, array in target.items():
        array[...] = array_module(array).asarray(source[name].astype(array.dtype, copy=False))
