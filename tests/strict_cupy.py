"""A strict stand-in for CuPy that runs on the CPU: code that only works on NumPy fails here, as on a GPU.

The fixture `strict` in conftest.py puts `strict_cupy.cupy` in the place of `cupy`. Its `ndarray` wraps a
NumPy array and never passes for one; NumPy does the arithmetic. Only the names and keywords below exist.
Before you add one to a list, check in CuPy's reference that CuPy has it, with the same parameters.

Two counters show what a GPU would have to do; `cupy.reset_counters()` sets both to zero:

    launches          calls that compute, copy or fill, one each (real CuPy may need several kernels for one)
    synchronisations  points where Python waits for the GPU: get, item, float(x), bool(x), x[mask], ...
"""

import importlib.machinery
import types
from types import SimpleNamespace

import numpy as np

# Elementwise functions: operands are arrays or scalars.
ELEMENTWISE = """
    abs absolute add bitwise_and bitwise_or bitwise_xor ceil clip cos divide equal exp fabs floor
    floor_divide fmax fmin greater greater_equal invert isfinite isinf isnan less less_equal log log1p log2
    logical_and logical_not logical_or maximum minimum mod multiply negative not_equal power reciprocal
    remainder rint sign sin sqrt square subtract tanh true_divide trunc where
"""
# Functions of one array, of two, of a list of arrays. Other arguments (axes, shapes) are Python numbers.
OF_ONE_ARRAY = """
    all any argmax argmin argsort broadcast_to copy count_nonzero cumsum diff empty_like expand_dims flip
    full_like max mean min moveaxis ones_like pad prod ravel repeat reshape roll sort squeeze std sum
    swapaxes take tile trace transpose var zeros_like
"""
OF_TWO_ARRAYS = "allclose array_equal copyto dot inner isclose matmul outer tensordot vdot"
OF_A_LIST = "concatenate hstack stack vstack"
WITHOUT_ARRAYS = "arange empty eye full linspace ones zeros"
ON_THE_HOST = "may_share_memory shares_memory"  # questions about two arrays that need no GPU
METHODS = """
    all any argmax argmin argsort astype clip copy cumsum dot fill flatten max mean min prod ravel repeat
    reshape round squeeze std sum swapaxes take trace transpose var view
"""
FACTS = "dtype itemsize nbytes ndim shape size strides"  # attributes of an array that need no GPU
SAME_AS_NUMPY = """
    bool_ dtype e finfo float16 float32 float64 floating iinfo inf int8 int16 int32 int64 integer intp nan
    newaxis pi uint8 uint16 uint32 uint64
"""
# Keywords. NumPy has more, which CuPy does not: where=, initial=, correction=, device=, like=, subok=.
ELEMENTWISE_KEYWORDS = set("out dtype".split())
KEYWORDS = set("axis axes copy ddof dtype keepdims out".split())
MORE_KEYWORDS = {
    "pad": {"mode", "constant_values"},
    "allclose": {"rtol", "atol"},
    "isclose": {"rtol", "atol"},
}
NO_KEYWORDS = {"where", "einsum", "may_share_memory", "shares_memory"}
PAD_MODES = set("constant edge empty linear_ramp maximum mean minimum reflect symmetric wrap".split())

WRITES = {"copyto", "fill"}  # into the first argument
ALLOCATES = {"empty", "empty_like"}  # and computes nothing
SCALARS = (bool, int, float, complex, np.bool_, np.number)
DTYPES = "?bBhHiIlLqQefdFD"  # what a GPU computes with: no long double, no objects


def _unsupported(value):
    return TypeError(f"Unsupported type {type(value)}")


def _unknown(name):
    return AttributeError(
        f"the stand-in for CuPy does not know {name}: check that CuPy has it, with the same parameters, "
        "then add it to a list in tests/strict_cupy.py"
    )


# --- calls ---


def _holds_array(value):
    if isinstance(value, (list, tuple)):
        return any(map(_holds_array, value))
    return isinstance(value, (ndarray, np.ndarray))


def _unwrap(value):
    if isinstance(value, list):
        return [_unwrap(item) for item in value]
    return value._array if isinstance(value, ndarray) else value


def _wrap(result, arrays=()):
    """Wrap NumPy's result; one of the call's own `arrays` (as `out`) stays the same object."""
    for array in arrays:
        if array._array is result:
            return array
    result = np.asarray(result)  # a scalar becomes a 0-d array: CuPy leaves every result on the GPU
    if result.dtype.char not in DTYPES:
        raise ValueError(f"Unsupported dtype {result.dtype}")
    return ndarray._of(result)


def _check_written(array):
    """Raise ValueError if two elements of `array` share memory, as after as_strided or broadcast_to."""
    axes = sorted((abs(s), n) for s, n in zip(array.strides, array.shape, strict=True) if n > 1)
    extent, nested = array.itemsize, True  # nested: each axis steps over all that the smaller strides cover
    for stride, length in axes:
        nested, extent = nested and stride >= extent, extent + stride * (length - 1)
    if nested or array.size < 2:
        return
    places = np.zeros((), np.int64)
    for stride, length in axes:
        places = np.add.outer(places, np.arange(length) * stride)
    if np.diff(np.sort(places, axis=None)).min() < array.itemsize:
        raise ValueError("writing where elements overlap in memory is undefined on a GPU: write into a copy")


def _check_arguments(name, data, options, keywords, scalars):
    allowed = (ELEMENTWISE_KEYWORDS if scalars else KEYWORDS) | MORE_KEYWORDS.get(name, set())
    if unknown := keywords.keys() - (set() if name in NO_KEYWORDS else allowed):
        raise TypeError(
            f"{name}(): CuPy, or the list in strict_cupy.py, does not have the keywords {sorted(unknown)}"
        )
    if name == "pad" and keywords.get("mode", "constant") not in PAD_MODES:
        raise ValueError(f"pad(): CuPy does not support the mode {keywords['mode']!r}")
    for i, value in enumerate(data):
        scalar = scalars and (isinstance(value, SCALARS) or (value is None and name == "clip"))
        if not isinstance(value, ndarray) and (not scalar or (name == "where" and i == 0)):
            raise _unsupported(value)
    if keywords.get("out") is not None and not isinstance(keywords["out"], ndarray):
        raise _unsupported(keywords["out"])
    if any(map(_holds_array, [*options, *(value for key, value in keywords.items() if key != "out")])):
        raise TypeError(
            f"{name}(): axes, shapes and other options are Python numbers, not arrays; out= goes by name"
        )


def _call(name, function, args, keywords, data, scalars=False):
    """Return `function(*args, **keywords)`, where the arguments in the slice `data` are on the GPU."""
    chosen = set(range(len(args))[data])
    operands = [args[i] for i in sorted(chosen)]
    if name in OF_A_LIST.split():
        operands, args = list(operands[0]), (list(args[0]), *args[1:])
    options = [value for i, value in enumerate(args) if i not in chosen]
    _check_arguments(name, operands, options, keywords, scalars)
    out = keywords.get("out")
    written = operands[0] if name in WRITES else out
    if written is not None:
        _check_written(written._array)
    with np.errstate(all="ignore"):  # a GPU divides by zero without a warning
        result = function(*map(_unwrap, args), **{key: _unwrap(value) for key, value in keywords.items()})
    if name in ON_THE_HOST.split():
        return result
    arrays = [value for value in [*operands, out] if isinstance(value, ndarray)]
    fresh = np.size(result) and not any(np.may_share_memory(result, a._array) for a in arrays)
    cupy.launches += bool(written is not None or (fresh and name not in ALLOCATES))
    return None if result is None else _wrap(result, arrays)


def _function(name, function, data, scalars=False):
    operands = getattr(function, "nin", 3)  # clip and where have three and are no ufuncs in NumPy

    def call(*args, **keywords):
        if scalars and len(args) != operands:
            raise TypeError(f"{name}() takes {operands} operands, not {len(args)}; out= goes by name")
        return _call(name, function, args, keywords, data, scalars)

    call.__name__ = name
    return call


# --- the array ---


class ndarray:
    """The stand-in for cupy.ndarray. It has no __index__, and only `get` leads to NumPy."""

    __hash__ = None
    __array_ufunc__ = None  # NumPy's ufuncs raise TypeError, np.float32(2) * x comes to __rmul__

    @classmethod
    def _of(cls, array):
        self = cls.__new__(cls)
        self._array = array
        return self

    def __array__(self, dtype=None, copy=None):
        raise TypeError(
            "Implicit conversion to a NumPy array is not allowed. Please use `.get()` to construct a NumPy "
            "array explicitly."
        )

    def __array_function__(self, function, kinds, args, kwargs):
        raise TypeError(
            f"np.{function.__name__} on a CuPy array: call the function of the array's own module"
        )

    def __getattr__(self, name):
        raise _unknown(f"ndarray.{name}")

    T = property(lambda self: ndarray._of(self._array.T))
    flags = property(lambda self: self._array.flags)

    def __len__(self):
        return len(self._array)

    def __iter__(self):
        return (self[i] for i in range(len(self)))

    def __deepcopy__(self, memo):
        return self.copy()

    # To the host: each of these waits for the GPU.

    def get(self):
        cupy.synchronisations += 1
        return self._array.copy()

    def __getitem__(self, index):
        index, arrays = _index(index)
        cupy.synchronisations += sum(array.dtype == bool for array in arrays)  # how many are True?
        result = self._array[index]
        if arrays:
            result = np.array(result)  # NumPy gives a view for a 0-d index array, CuPy never
            cupy.launches += 1
        return ndarray._of(result)

    def __setitem__(self, index, value):
        index, arrays = _index(index)
        target = self._array if arrays else self._array[index]
        _check_written(target)
        if isinstance(value, np.ndarray):
            raise ValueError("non-scalar numpy.ndarray cannot be used for fill")
        if not isinstance(value, (ndarray, *SCALARS)):
            raise _unsupported(value)
        value = _unwrap(value)
        if isinstance(value, np.ndarray):
            if not arrays and _same(
                target, value
            ):  # the assignment after x[1:] += y: it has been done in place
                return
            if arrays and value.size > 1:
                _check_repeated(self._array.shape, index)
        self._array[index] = value
        cupy.launches += 1


def _index(index):
    """Return an index for NumPy and its index arrays; CuPy moves lists and NumPy arrays to the GPU here."""
    items = index if isinstance(index, tuple) else (index,)
    items = [np.array(i, None if i else np.intp) if isinstance(i, list) else _unwrap(i) for i in items]
    arrays = [item for item in items if isinstance(item, np.ndarray)]
    # `...` at the end: a single element stays a 0-d view
    return tuple(items if any(item is Ellipsis for item in items) else [*items, Ellipsis]), arrays


def _same(x, y):
    return (x.ctypes.data, x.shape, x.strides) == (y.ctypes.data, y.shape, y.strides)


def _check_repeated(shape, index):
    places = np.arange(int(np.prod(shape))).reshape(shape)[index]
    if np.unique(places).size < places.size:
        raise ValueError("x[index] = values with one place indexed twice: a GPU may keep either value")


BINARY = {
    "add": "add", "sub": "subtract", "mul": "multiply", "truediv": "true_divide", "floordiv": "floor_divide",
    "mod": "remainder", "pow": "power", "and": "bitwise_and", "or": "bitwise_or", "xor": "bitwise_xor",
    "matmul": "matmul",
}  # fmt: skip
COMPARE = {
    "eq": "equal",
    "ne": "not_equal",
    "lt": "less",
    "le": "less_equal",
    "gt": "greater",
    "ge": "greater_equal",
}
TO_HOST = {
    "__bool__": bool, "__int__": int, "__float__": float, "__repr__": repr, "__str__": str,
    "item": np.ndarray.item, "tolist": np.ndarray.tolist,
}  # fmt: skip
UNARY = {"neg": "negative", "abs": "absolute", "invert": "invert"}


def _add_attributes():
    for name in FACTS.split():
        setattr(ndarray, name, property(lambda self, name=name: getattr(self._array, name)))
    for name in METHODS.split():
        call = _function(name, getattr(np.ndarray, name), slice(2 if name == "dot" else 1))
        setattr(ndarray, name, call)
    for operator, name in (BINARY | COMPARE).items():
        setattr(ndarray, f"__{operator}__", lambda self, other, name=name: getattr(cupy, name)(self, other))
    for operator, name in BINARY.items():
        setattr(ndarray, f"__r{operator}__", lambda self, other, name=name: getattr(cupy, name)(other, self))
        setattr(
            ndarray,
            f"__i{operator}__",
            lambda self, other, name=name: getattr(cupy, name)(self, other, out=self),
        )
    for name, convert in TO_HOST.items():
        setattr(ndarray, name, lambda self, convert=convert: convert(self.get()))
    for operator, name in UNARY.items():
        setattr(ndarray, f"__{operator}__", lambda self, name=name: getattr(cupy, name)(self))


# --- the module ---


def array(obj, dtype=None, copy=True, order="K"):
    """Copy a NumPy array, a list or a scalar to the GPU; one on the GPU is copied if `copy` or if it must."""
    if isinstance(obj, ndarray):
        result = np.array(obj._array, dtype, copy=copy or None, order=order)
        cupy.launches += not np.may_share_memory(result, obj._array) and result.size > 0
        return _wrap(result, [obj])
    result = np.array(obj, dtype, order=order)
    cupy.launches += 1
    return _wrap(result)


def asarray(a, dtype=None, order="K"):
    return array(a, dtype, False, order)


def ascontiguousarray(a, dtype=None):
    return array(a, dtype, False, "C")


def asnumpy(a):
    return a.get() if isinstance(a, ndarray) else np.asarray(a)


def as_strided(x, shape=None, strides=None):
    return ndarray._of(np.lib.stride_tricks.as_strided(x._array, shape, strides))


def _synchronize():
    cupy.synchronisations += 1


def reset_counters():
    cupy.launches = cupy.synchronisations = 0


class CUDARuntimeError(RuntimeError):
    """Raised by CuPy where the driver or the GPU is missing; the tests raise it themselves."""


def _module(path, **names):
    def missing(name):
        raise _unknown(f"{path}.{name}")

    module = types.ModuleType(path)
    module.__spec__ = importlib.machinery.ModuleSpec(path, None)
    module.__dict__.update(names, __getattr__=missing)
    return module


def _functions():
    names = {name: getattr(np, name) for name in SAME_AS_NUMPY.split()}
    for listed, data in (
        (OF_ONE_ARRAY, slice(1)),
        (OF_TWO_ARRAYS, slice(2)),
        (OF_A_LIST, slice(1)),
        (WITHOUT_ARRAYS, slice(0)),
        (ON_THE_HOST, slice(2)),
        ("einsum", slice(1, None)),
    ):
        names |= {name: _function(name, getattr(np, name), data) for name in listed.split()}
    return names | {name: _function(name, getattr(np, name), slice(3), True) for name in ELEMENTWISE.split()}


_runtime = _module(
    "cupy.cuda.runtime",
    CUDARuntimeError=CUDARuntimeError,
    getDeviceCount=lambda: 1,
    getDevice=lambda: 0,
    runtimeGetVersion=lambda: 12090,
    getDeviceProperties=lambda device: {"name": b"stand-in"},
)
_stream = SimpleNamespace(synchronize=_synchronize)
_device = SimpleNamespace(use=lambda: None)
_cuda = _module(
    "cupy.cuda", runtime=_runtime, Device=lambda index: _device, get_current_stream=lambda: _stream
)
_stride_tricks = _module("cupy.lib.stride_tricks", as_strided=as_strided)
_lib = _module("cupy.lib", stride_tricks=_stride_tricks)
_own = (ndarray, array, asarray, ascontiguousarray, asnumpy, reset_counters)
cupy = _module("cupy", **_functions(), **{own.__name__: own for own in _own}, cuda=_cuda, lib=_lib)
cupy.__version__ = "stand-in"
cupy.get_default_memory_pool = lambda: SimpleNamespace(total_bytes=lambda: 0)
cupy.reset_counters()
_add_attributes()

# What `sys.modules` must hold for `import cupy.something` to find the stand-in.
MODULES = {module.__name__: module for module in (cupy, _cuda, _runtime, _lib, _stride_tricks)}
