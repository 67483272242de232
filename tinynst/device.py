"""The only file that imports CuPy: device "cpu" means NumPy, "cuda" means CuPy.

All other code gets the module from `array_module(x)` and calls its functions, so each formula is written once
and runs on both devices.
"""

import functools
import re
import sys

import numpy as np

from .errors import DeviceError

HELP = "where to compute: cpu, or cuda for an NVIDIA GPU through CuPy; cuda:1 is the second GPU"


def select(name):
    """Return the array module of a device: numpy for "cpu", cupy for "cuda" or "cuda:1", which becomes
    the GPU that this thread uses.

    Raises DeviceError for any other name, and where CuPy, the GPU or CUDA's libraries are missing.
    """
    if name == "cpu":
        return np
    if not re.fullmatch(r"cuda(:\d+)?", str(name)):
        raise DeviceError(f"--device is {name!r}; it should be cpu, cuda, or cuda:1 for the second GPU")
    try:
        import cupy
    except ImportError:
        raise DeviceError(
            "--device cuda needs CuPy, which is not installed: pip install 'tinynst[cuda12]' (cuda13 for a "
            "driver with CUDA 13), or use --device cpu"
        ) from None
    try:
        count = cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError as error:
        raise DeviceError(
            f"--device cuda needs an NVIDIA GPU, but CuPy finds none ({error}): install NVIDIA's driver "
            "(Debian, Ubuntu: apt install nvidia-driver; nvidia-smi then lists the GPU) or use --device cpu"
        ) from None
    index = int(name[5:] or 0)
    if index >= count:
        raise DeviceError(f"--device is {name}, but the last GPU here is cuda:{count - 1}")
    cupy.cuda.Device(index).use()
    _try(cupy)
    return cupy


def _try(cupy):
    """Raise DeviceError unless a matrix product and a kernel work: CuPy loads CUDA's libraries when they are
    first used, and without them its errors say little."""
    try:
        x = cupy.ones((2, 2), np.float32)
        x = x @ x
        if on_gpu(x):
            code = 'extern "C" __global__ void twice(float* x) { x[threadIdx.x] *= 2; }'
            kernel(cupy, code, (), "twice")((1,), (4,), (x,))
        float(x.sum())
    except Exception as error:  # CuPy has no common base class for what can be wrong here
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        version = 13 if cupy.cuda.runtime.runtimeGetVersion() >= 13000 else 12
        raise DeviceError(
            f"--device cuda finds a GPU and CuPy, but CUDA's libraries do not work ({reason}): "
            f"pip install 'tinynst[cuda{version}]' brings them, or use --device cpu"
        ) from error


def array_module(*arrays):
    """Return the module (numpy or cupy) of all `arrays`; None among them is ignored.

    Raises TypeError if there is no array, for anything that is not an array, and for arrays on two devices.
    """
    cupy = sys.modules.get("cupy")  # there are no CuPy arrays unless CuPy has been imported
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
                f"expected a NumPy or CuPy array, got {type(array).__name__}: convert it with np.asarray(...)"
            )
        if found is not None and module is not found:
            raise TypeError(
                "NumPy and CuPy arrays met in one operation: move all to the GPU with device.asarray(x, "
                "cupy) or all to the CPU with device.to_numpy(x)"
            )
        found = module
    if found is None:
        raise TypeError("expected at least one array, got none")
    return found


def on_gpu(array):
    """Can hand-written kernels run on `array`: is it CuPy's, and does this CuPy compile CUDA?"""
    cupy = sys.modules.get("cupy")
    return cupy is not None and isinstance(array, cupy.ndarray) and hasattr(cupy, "RawModule")


@functools.cache
def kernel(xp, code, options, name):
    """The kernel `name` of CUDA source text: call it with (grid, block, arguments). CuPy compiles it at the
    first call, once per GPU, and keeps the result on disk."""
    return xp.RawModule(code=code, options=options).get_function(name)


def asarray(array, xp):
    """Return `array` (of either device, or a nested list) as an array of `xp`, copied only if necessary."""
    return to_numpy(array) if xp is np else xp.asarray(array)


def to_numpy(array):
    """Return `array` as a NumPy array, copied from the GPU if it is there."""
    return array.get() if hasattr(array, "get") else np.asarray(array)


def floats(numbers):
    """{name: float} of {name: number}. Those on a GPU, 0-d arrays, come in one transfer, which waits for the
    GPU once."""
    there = {name: number for name, number in numbers.items() if hasattr(number, "get")}
    if there:
        host = array_module(*there.values()).stack(list(there.values())).get().tolist()
        numbers = numbers | dict(zip(there, host, strict=True))
    return {name: float(number) for name, number in numbers.items()}


def synchronize(xp):
    """Wait until the device has finished its work (a GPU computes while Python continues)."""
    if xp is not np:
        xp.cuda.get_current_stream().synchronize()


def copy_arrays(source, target):
    """Copy a dict of NumPy arrays into a dict of arrays on any device: all of them, or none if it raises.

    Raises ValueError unless both have the same names and shapes.
    """
    if source.keys() != target.keys():
        raise ValueError(f"{min(source.keys() ^ target.keys())!r} is only in one of the two")
    for name, array in target.items():
        if array.shape != source[name].shape:
            raise ValueError(f"{name} has shape {source[name].shape} there, {array.shape} here")
    for name, array in target.items():
        array[...] = array_module(array).asarray(source[name].astype(array.dtype, copy=False))
