"""A strict stand-in for CuPy that runs on the CPU: what fails on a GPU for being written for NumPy fails here too.

`strict_cupy.cupy` goes into `sys.modules["cupy"]` (the fixture `strict` in conftest.py does it). Its `ndarray` wraps a
NumPy array and never passes for one. Names and parameters are those of a real CuPy, from cupy_names.json; NumPy does
the arithmetic. Where CuPy is lenient and code for both devices should not rely on it, the stand-in fails.

Two counters on the module tell what a GPU would be asked to do:

    launches          calls that compute, copy or fill, one each (CuPy may need several kernels for one, as for var)
    synchronisations  points where Python waits for the GPU: get, item, float(x), bool(x), x[mask], nonzero, ...

`cupy.reset_counters()` sets both to zero. Sources: CuPy 14's signatures and docstrings, and its _kernel.pyx (ufuncs),
core.pyx (operators, conversions), _routines_indexing.pyx.
"""

import importlib.machinery
import inspect
import json
import types
from pathlib import Path

import numpy as np

RECORD = json.loads(Path(__file__).with_name("cupy_names.json").read_text())

SCALARS = (bool, int, float, complex, np.bool_, np.number)
DTYPES = "?bBhHiIlLqQefdFD"  # what a GPU computes with; no long double, no object

# Answers about arrays that need no GPU: returned as they are.
HOST = set(
    "array2string array_repr array_str base_repr binary_repr broadcast_shapes can_cast common_type finfo "
    "format_float_positional format_float_scientific get_printoptions iinfo iscomplexobj isdtype isfortran isrealobj "
    "isscalar issubdtype iterable may_share_memory min_scalar_type mintypecode ndim printoptions promote_types "
    "result_type set_printoptions shape shares_memory size typename".split()
)
# The size of the result, or an error, depends on values: Python must wait for them.
SYNCHRONISING = set(
    "argwhere array2string array_repr array_str average bincount choose compress extract flatnonzero intersect1d "
    "nonzero save savetxt savez setdiff1d setxor1d trim_zeros union1d unique unique_all unique_counts unique_inverse "
    "unique_values dump dumps tobytes tofile tolist".split()
)
# Functions write into their first argument, methods into their array.
WRITING_FUNCTIONS = set("copyto fill_diagonal place put put_along_axis putmask shuffle".split())
WRITING_METHODS = set("fill partition put sort".split())
ALLOCATES = {"empty", "empty_like"}
# Data must be an array in CuPy; NumPy takes lists as well.
DATA = set("a arr array b condition m v x y".split())
TAKES_SCALARS = {"where", "ndim", "shape", "isscalar", "iscomplexobj", "isrealobj", "min_scalar_type", "size"}
# Python needs these at once, and cupy.ndarray has no __index__.
ON_HOST = set(
    "N M axis axes shape newshape dtype order keepdims ddof num pad_width dims decimals mode repeats".split()
)
PAD_MODES = set("constant edge empty linear_ramp maximum mean minimum reflect symmetric wrap".split())
EINSUM_KEYWORDS = {"dtype", "optimize"}  # no out=: CuPy refuses it
# These hand arrays to a function of the caller's, or read files: NumPy's arrays would get out.
LEAKS = set("apply_along_axis apply_over_axes fromfunction load piecewise".split())
# CuPy's positional parameters stand in another order than NumPy's: the third onwards goes by name.
ORDER_DIFFERS = set("argmax argmin nanargmax nanargmin corrcoef histogram2d histogramdd unpackbits".split())


# --- what is allowed in and what comes out ---


def _unsupported(value):
    return TypeError(f"Unsupported type {type(value)}")


def _unwrap(value, known):
    """Return `value` as NumPy wants it; `known` collects {id of a NumPy array: the stand-in that wraps it}."""
    if isinstance(value, ndarray):
        known[id(value._array)] = value
        return value._array
    if isinstance(value, np.ndarray):
        raise _unsupported(value)
    if isinstance(value, (list, tuple)):
        return type(value)(_unwrap(item, known) for item in value)
    return value


def _wrap(result, known=None):
    if isinstance(result, tuple) and hasattr(result, "_make"):  # named, as those of linalg
        return type(result)._make(_wrap(item, known) for item in result)
    if isinstance(result, (list, tuple)):
        return type(result)(_wrap(item, known) for item in result)
    if not isinstance(result, (np.ndarray, *SCALARS)):
        return result
    array = np.asarray(result)  # a scalar becomes a 0-d array: CuPy leaves every result on the GPU
    if known and id(array) in known:
        return known[id(array)]
    if array.dtype.char not in DTYPES:
        raise ValueError(f"Unsupported dtype {array.dtype}")
    return ndarray._of(array)


def _arrays(result):
    if isinstance(result, (list, tuple)):
        return [array for item in result for array in _arrays(item)]
    return [result] if isinstance(result, (np.ndarray, *SCALARS)) else []


def _overlaps_itself(array):
    """True if two elements of `array` share memory, as after as_strided or broadcast_to."""
    extent = array.itemsize  # bytes that the axes of smaller stride cover
    for stride, length in sorted(
        (abs(s), n) for s, n in zip(array.strides, array.shape, strict=True) if n > 1
    ):
        if stride < extent:
            break
        extent += stride * (length - 1)
    else:
        return False
    offsets = np.zeros((), np.int64)
    for length, stride in zip(array.shape, array.strides, strict=True):
        offsets = np.add.outer(offsets, np.arange(length) * stride)
    return array.size > 1 and bool(np.diff(np.sort(offsets, axis=None)).min() < array.itemsize)


def _check_written(array):
    if _overlaps_itself(array):
        raise ValueError(
            "writing into an array whose elements overlap in memory (as_strided, broadcast_to): on a GPU the result "
            "is undefined; write into a copy"
        )


def _call(function, args, kwargs, written=(), name=""):
    """Call NumPy's `function` on stand-in arrays; `written` are those it writes into. Counts one launch at most."""
    for array in written:
        if not isinstance(array, ndarray):
            raise _unsupported(array)
        _check_written(array._array)
    known = {}
    args = _unwrap(args, known)
    kwargs = {key: _unwrap(value, known) for key, value in kwargs.items()}
    inputs = [array._array for array in known.values()]
    with np.errstate(all="ignore"):  # a GPU divides by zero without a word
        result = function(*args, **kwargs)
    cupy.synchronisations += name in SYNCHRONISING
    if name in HOST:
        return result
    fresh = [
        array
        for array in _arrays(result)
        if np.size(array) and not any(np.may_share_memory(array, other) for other in inputs)
    ]
    cupy.launches += bool(written) or (bool(fresh) and name not in ALLOCATES)
    return _wrap(result, known)


# --- functions, by the recorded signatures ---


def _signature(text):
    """Turn a recorded "a axis= * out=" into an inspect.Signature; None stays None (CuPy does not tell)."""
    if text is None:
        return None
    kinds = inspect.Parameter
    parameters, kind = [], kinds.POSITIONAL_OR_KEYWORD
    for word in text.split():
        if word == "/":
            parameters = [parameter.replace(kind=kinds.POSITIONAL_ONLY) for parameter in parameters]
        elif word == "*":
            kind = kinds.KEYWORD_ONLY
        elif word.startswith("**"):
            parameters.append(kinds(word[2:], kinds.VAR_KEYWORD))
        elif word.startswith("*"):
            parameters.append(kinds(word[1:], kinds.VAR_POSITIONAL))
            kind = kinds.KEYWORD_ONLY
        else:
            default = None if word.endswith("=") else kinds.empty
            parameters.append(kinds(word.rstrip("="), kind, default=default))
    return inspect.Signature(parameters)


def _bind(signature, path, args, kwargs):
    """Return {parameter: value} of a call, or raise TypeError as CuPy would."""
    if signature is None:
        return {}
    try:
        given = dict(signature.bind(*args, **kwargs).arguments)
    except TypeError as error:
        raise TypeError(f"{path}(): {error}") from None
    for parameter in ON_HOST & given.keys():
        if _holds_array(given[parameter]):
            raise TypeError(
                f"{path}(): {parameter}: 'cupy.ndarray' object cannot be interpreted as an integer"
            )
    return given


def _holds_array(value):
    if isinstance(value, (list, tuple)):
        return any(_holds_array(item) for item in value)
    return isinstance(value, ndarray)


def _written(given, first):
    """Return the arrays that a call writes into: `out`, and its first argument if `first`."""
    out = given.get("out")
    arrays = [*(out if isinstance(out, tuple) else (out,)), next(iter(given.values())) if first else None]
    return [array for array in arrays if array is not None]


def _check_arguments(name, path, given):
    if name == "pad" and given.get("mode", "constant") not in PAD_MODES:
        raise ValueError(f"mode {given['mode']!r} is not supported")
    if name == "einsum" and (unknown := given.get("kwargs", {}).keys() - EINSUM_KEYWORDS):
        raise TypeError(f"Did not understand the following kwargs: {sorted(unknown)}")
    if name == "arange" and _holds_array(list(given.values())):
        raise TypeError(f"{path}(): 'cupy.ndarray' object cannot be interpreted as an integer")
    if name == "matmul":
        for value in given["args"]:
            if not isinstance(value, ndarray):
                raise _unsupported(value)
    if name in TAKES_SCALARS:
        return
    for parameter in DATA & given.keys():
        value = given[parameter]
        first = parameter == next(iter(given))
        if isinstance(value, (list, tuple)) or (first and not isinstance(value, ndarray)):
            raise TypeError(f"{path}(): {parameter}: Unsupported type {type(value)}")


def _function(path, name, numpy_function, text):
    signature = _signature(text)

    def function(*args, **kwargs):
        given = _bind(signature, path, args, kwargs)
        _check_arguments(name, path, given)
        if name in ORDER_DIFFERS:
            kwargs |= dict(zip(list(signature.parameters)[2:], args[2:], strict=False))
            args = args[:2]
        cupy.synchronisations += name == "where" and len(given) == 1  # where(condition) is nonzero
        return _call(numpy_function, args, kwargs, _written(given, name in WRITING_FUNCTIONS), name)

    function.__name__ = name
    return function


class ufunc:
    """An elementwise function of CuPy: takes stand-in arrays and scalars, nothing else."""

    def __init__(self, name, nin, nout):
        self.name, self.nin, self.nout, self.nargs = f"cupy_{name}", nin, nout, nin + nout
        self.__name__ = name
        self._function = getattr(np, name)

    def __repr__(self):
        return f"<ufunc {self.name!r}>"

    def __call__(self, *args, **kwargs):
        if unknown := {key: kwargs[key] for key in kwargs.keys() - set(RECORD["ufunc_keywords"])}:
            raise TypeError(f"Wrong arguments {unknown}")
        if not self.nin <= len(args) <= self.nargs:
            raise TypeError(f"Wrong number of arguments for {self.name!r}: {len(args)}")
        operands, out = args[: self.nin], args[self.nin :]
        if kwargs.get("out") is not None:
            if out:
                raise ValueError("Cannot specify 'out' as both a positional and keyword argument")
            out = kwargs["out"] if isinstance(kwargs["out"], tuple) else (kwargs["out"],)
        for operand in operands:
            if not isinstance(operand, (ndarray, *SCALARS)):
                raise _unsupported(operand)
        return _call(self._function, args, kwargs, [array for array in out if array is not None])

    def outer(self, A, B, **kwargs):
        A, B = cupy.array(A), cupy.array(B)
        return self(A.reshape(A.shape + (1,) * B.ndim), B, **kwargs)

    def at(self, a, indices, b=None):
        if self.__name__ not in (
            "add",
            "subtract",
            "maximum",
            "minimum",
            "bitwise_and",
            "bitwise_or",
            "bitwise_xor",
        ):
            raise NotImplementedError(f"`{self.name}.at` is not supported yet")
        _call(self._function.at, (a, indices, b), {}, [a])

    def reduce(self, array, axis=0, dtype=None, out=None, keepdims=False):
        return self._through(array, "sum", "prod", "reduce")(axis, dtype, out, keepdims)

    def accumulate(self, array, axis=0, dtype=None, out=None):
        return self._through(array, "cumsum", "cumprod", "accumulate")(axis, dtype, out)

    def _through(self, array, added, multiplied, method):
        if self.__name__ not in ("add", "multiply"):
            raise NotImplementedError(f"`{self.name}.{method}` is not supported yet")
        return getattr(array, added if self.__name__ == "add" else multiplied)


# --- the array ---


class _Flags(types.SimpleNamespace):
    def __getitem__(self, name):
        return getattr(self, name.lower())


class ndarray:
    """cupy.ndarray's stand-in. `ndarray(shape, dtype=float)` is not initialised; make arrays with cupy.asarray."""

    __hash__ = None
    __array_priority__ = 100

    def __init__(self, shape, dtype=float, memptr=None, strides=None, order="C"):
        if memptr is not None or strides is not None:
            raise NotImplementedError("the stand-in for CuPy has no memory pointers")
        self._array = np.empty(shape, dtype, order)

    @classmethod
    def _of(cls, array):
        self = cls.__new__(cls)
        self._array = array
        return self

    # NumPy must not get at the data by itself.

    def __array__(self, dtype=None, copy=None):
        raise TypeError(
            "Implicit conversion to a NumPy array is not allowed. Please use `.get()` to construct a NumPy array explicitly."
        )

    def __array_ufunc__(self, function, method, *inputs, **kwargs):
        for value in (*inputs, *kwargs.get("out", ())):
            if isinstance(value, np.ndarray):
                raise _unsupported(value)
        # `np.float32(2) * x` comes this way as well, and is fine.
        if method == "__call__" and isinstance(inputs[0], np.generic) and len(inputs) == 2 and not kwargs:
            return getattr(cupy, function.__name__)(*inputs)
        raise TypeError(
            f"np.{function.__name__} on a CuPy array: call the function of the array's own module"
        )

    def __array_function__(self, function, kinds, args, kwargs):
        raise TypeError(
            f"np.{function.__name__} on a CuPy array: call the function of the array's own module"
        )

    # What is known without asking the GPU.

    dtype = property(lambda self: self._array.dtype)
    itemsize = property(lambda self: self._array.itemsize)
    nbytes = property(lambda self: self._array.nbytes)
    ndim = property(lambda self: self._array.ndim)
    size = property(lambda self: self._array.size)
    strides = property(lambda self: self._array.strides)
    device = property(lambda self: cupy.cuda.Device(0))
    data = property(lambda self: types.SimpleNamespace(ptr=self._array.ctypes.data))
    T = property(lambda self: ndarray._of(self._array.T))
    mT = property(lambda self: ndarray._of(self._array.mT))
    real = property(lambda self: _call(np.real, (self,), {}))
    imag = property(lambda self: _call(np.imag, (self,), {}))

    @property
    def shape(self):
        return self._array.shape

    @shape.setter
    def shape(self, shape):
        self._array = self._array.reshape(shape, copy=False)

    @property
    def flags(self):
        flags = self._array.flags
        names = ("c_contiguous", "f_contiguous", "owndata", "fnc", "forc")
        return _Flags(**{name: getattr(flags, name) for name in names})

    def __len__(self):
        return len(self._array)

    def __iter__(self):
        if not self.ndim:
            raise TypeError("iteration over a 0-d array")
        return (self[i] for i in range(len(self)))

    # To the host: each of these waits for the GPU.

    def get(self, stream=None, order="C", out=None, blocking=True):
        cupy.synchronisations += 1
        if out is None:
            return np.array(self._array, order=order)
        if not isinstance(out, np.ndarray):
            raise TypeError("Only numpy.ndarray can be obtained from cupy.ndarray")
        if (out.dtype, out.shape) != (self.dtype, self.shape):
            raise TypeError(
                f"{out.dtype} {out.shape} array cannot be obtained from {self.dtype} {self.shape} array"
            )
        out[...] = self._array
        return out

    def item(self):
        return self.get().item()

    def tolist(self):
        return self.get().tolist()

    def __bool__(self):
        return bool(self.get())

    def __int__(self):
        return int(self.get())

    def __float__(self):
        return float(self.get())

    def __complex__(self):
        return complex(self.get())

    def __repr__(self):
        return repr(self.get())

    def __str__(self):
        return str(self.get())

    def __format__(self, text):
        return format(self.get(), text)

    def __reduce__(self):
        return cupy.array, (self.get(),)

    # Indexing.

    def __getitem__(self, index):
        index, arrays = _index(index)
        for array in arrays:
            cupy.synchronisations += array.dtype == bool  # how many are True?
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
        if isinstance(value, ndarray):
            value = value._array
            if not arrays and _same(target, value):  # the end of x[1:] += y: all is done
                return
            if value.size > 1 and arrays:
                _check_repeated(self._array.shape, index)
        with np.errstate(all="ignore"):
            self._array[index] = value
        cupy.launches += 1

    # Shapes and copies whose parameters differ from NumPy's.

    def astype(self, dtype, order="K", casting=None, subok=None, copy=True):
        if casting is not None or subok is not None:
            raise TypeError("astype(): casting and subok are not supported by CuPy")
        return _call(np.ndarray.astype, (self, dtype), {"order": order, "copy": copy})

    def view(self, dtype=None, type=None):
        return ndarray._of(self._array.view(self.dtype if dtype is None else dtype))

    def set(self, arr, stream=None):
        if not isinstance(arr, np.ndarray):
            raise TypeError("Only numpy.ndarray can be set to cupy.ndarray")
        if (arr.dtype, arr.shape) != (self.dtype, self.shape):
            raise ValueError(
                f"{arr.dtype} {arr.shape} array cannot be set to {self.dtype} {self.shape} array"
            )
        _check_written(self._array)
        self._array[...] = arr
        cupy.launches += 1

    def scatter_add(self, slices, value):
        _call(np.add.at, (self, slices, value), {}, [self])

    def scatter_max(self, slices, value):
        _call(np.maximum.at, (self, slices, value), {}, [self])

    def scatter_min(self, slices, value):
        _call(np.minimum.at, (self, slices, value), {}, [self])

    def __copy__(self):
        return self.copy()

    def __deepcopy__(self, memo):
        return self.copy()

    def __pos__(self):
        return self

    def __getattr__(self, name):
        record = RECORD["classes"]["cupy.ndarray"]
        if name in record["attributes"] or name in record["methods"]:
            raise NotImplementedError(
                f"the stand-in for CuPy does not do ndarray.{name}: add it to strict_cupy.py"
            )
        raise AttributeError(f"'cupy.ndarray' object has no attribute {name!r}")


def _index(index):
    """Return an index for NumPy and the index arrays in it; CuPy moves lists and NumPy arrays to the GPU here."""
    items = index if isinstance(index, tuple) else (index,)
    result, arrays = [], []
    for item in items:
        if isinstance(item, ndarray):
            item = item._array
        elif isinstance(item, list):
            item = np.array(item, dtype=None if item else np.intp)
        if isinstance(item, np.ndarray):
            arrays.append(item)
        result.append(item)
    if not any(item is Ellipsis for item in items):
        result.append(Ellipsis)  # a single element stays a 0-d view
    return tuple(result), arrays


def _same(a, b):
    return (a.ctypes.data, a.shape, a.strides) == (b.ctypes.data, b.shape, b.strides)


def _check_repeated(shape, index):
    places = np.arange(int(np.prod(shape))).reshape(shape)[index]
    if np.unique(places).size < places.size:
        raise ValueError(
            "x[index] = values with one place indexed twice: on a GPU it is undefined which value stays; "
            "use cupy.add.at to add up"
        )


def _method(name, text):
    path = f"ndarray.{name}"
    signature = _signature(text)
    has_own = hasattr(np.ndarray, name)

    def method(self, *args, **kwargs):
        given = {"self": self, **_bind(signature, path, args, kwargs)}
        numpy_function = getattr(np.ndarray if has_own else np, name)
        for parameter in DATA & given.keys():
            if not isinstance(given[parameter], ndarray):
                raise TypeError(f"{path}(): {parameter}: Unsupported type {type(given[parameter])}")
        return _call(numpy_function, (self, *args), kwargs, _written(given, name in WRITING_METHODS), name)

    method.__name__ = name
    return method


def _operators():
    """Give `ndarray` its operators: all are ufuncs."""
    binary = {
        "add": "add",
        "sub": "subtract",
        "mul": "multiply",
        "truediv": "true_divide",
        "mod": "remainder",
    }
    binary |= {"floordiv": "floor_divide", "pow": "power", "lshift": "left_shift", "rshift": "right_shift"}
    binary |= {"and": "bitwise_and", "or": "bitwise_or", "xor": "bitwise_xor"}
    compare = {"eq": "equal", "ne": "not_equal", "lt": "less", "le": "less_equal", "gt": "greater"}
    compare |= {"ge": "greater_equal"}
    unary = {"neg": "negative", "abs": "absolute", "invert": "invert"}

    def set_operator(prefix, operator, function):
        function.__name__ = f"__{prefix}{operator}__"
        setattr(ndarray, function.__name__, function)

    for operator, name in {**binary, **compare, "matmul": "matmul", "divmod": "divmod"}.items():
        set_operator("", operator, lambda self, other, name=name: getattr(cupy, name)(self, other))
    for operator, name in {**binary, "matmul": "matmul", "divmod": "divmod"}.items():
        set_operator("r", operator, lambda self, other, name=name: getattr(cupy, name)(other, self))
    for operator, name in binary.items():
        set_operator("i", operator, lambda self, other, name=name: getattr(cupy, name)(self, other, out=self))
    for operator, name in unary.items():
        set_operator("", operator, lambda self, name=name: getattr(cupy, name)(self))


_operators()
for _name, _text in RECORD["classes"]["cupy.ndarray"]["methods"].items():
    if not hasattr(ndarray, _name) and (hasattr(np.ndarray, _name) or hasattr(np, _name)):
        setattr(ndarray, _name, _method(_name, _text))


# --- what CuPy has and NumPy has not, or has otherwise ---


def array(obj, dtype=None, copy=True, order="K", subok=False, ndmin=0, *, blocking=False):
    """To the GPU: a NumPy array, a list, or a scalar. A copy of the host's data, always."""
    if isinstance(obj, ndarray):
        return _call(np.array, (obj,), {"dtype": dtype, "copy": copy or None, "order": order, "ndmin": ndmin})
    if not isinstance(obj, np.ndarray) and _holds_array(obj):
        return _call(np.array, (obj,), {"dtype": dtype, "order": order, "ndmin": ndmin})
    cupy.launches += 1
    return _wrap(np.array(obj, dtype=dtype, order=order, ndmin=ndmin))


def asarray(a, dtype=None, order=None, *, blocking=False):
    return array(a, dtype, copy=False, order=order or "K")


def ascontiguousarray(a, dtype=None):
    return array(a, dtype, copy=False, order="C", ndmin=1)


def asfortranarray(a, dtype=None):
    return array(a, dtype, copy=False, order="F", ndmin=1)


def asnumpy(a, stream=None, order="C", out=None, *, blocking=True):
    return a.get(order=order, out=out) if isinstance(a, ndarray) else np.asarray(a, order=order)


def get_array_module(*args):
    return cupy if any(isinstance(value, ndarray) for value in args) else np


def is_available():
    return True


def diagonal(a, offset=0, axis1=0, axis2=1):
    return a.diagonal(offset, axis1, axis2)


def _diagonal(self, offset=0, axis1=0, axis2=1):
    view = np.diagonal(self._array, offset, axis1, axis2)
    view.flags.writeable = True  # CuPy's diagonal may be written to, NumPy's may not
    return ndarray._of(view)


ndarray.diagonal = _diagonal


def reset_counters():
    cupy.launches = cupy.synchronisations = 0


# --- modules ---


def _is_plain(value):
    """True for what CuPy takes from NumPy as it is: numbers such as pi, scalar types such as float32."""
    return isinstance(value, float) or (isinstance(value, type) and issubclass(value, np.generic))


class _Module(types.ModuleType):
    """A module with the recorded names and no other: what NumPy has under the same name does the work."""

    def __init__(self, path, numpy_module, **own):
        super().__init__(path)
        self.__spec__ = importlib.machinery.ModuleSpec(path, None)
        self._numpy = numpy_module
        self.__dict__.update(own)

    def __getattr__(self, name):
        path = f"{self.__name__}.{name}"
        record = RECORD["modules"][self.__name__]
        if not any(name in names for names in record.values()):
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        known = getattr(self._numpy, name, None)
        if name in record["ufuncs"] and isinstance(known, np.ufunc):
            value = ufunc(name, *record["ufuncs"][name])
        elif name in record["ufuncs"] and known:  # fix, i0, sinc: plain functions in NumPy
            value = _function(path, name, known, "x out=")
        elif name in record["functions"] and known and name not in LEAKS:
            value = _function(path, name, known, record["functions"][name])
        elif name in ("dtype", "finfo", "iinfo", "LinAlgError", "newaxis", "s_", "index_exp") or _is_plain(
            known
        ):
            value = known
        else:
            raise NotImplementedError(f"the stand-in for CuPy does not do {path}: add it to strict_cupy.py")
        setattr(self, name, value)
        return value


class _Random:
    """A generator with CuPy's methods. The numbers are NumPy's: on a GPU the same seed gives others."""

    def __init__(self, path, generator):
        self._path, self._generator = path, generator

    def __getattr__(self, name):
        methods = RECORD["classes"][self._path]["methods"]
        if name not in methods:
            raise AttributeError(f"{self._path.rpartition('.')[2]!r} object has no attribute {name!r}")
        signature, numpy_method = _signature(methods[name]), getattr(self._generator, name)

        def method(*args, **kwargs):
            given = _bind(signature, name, args, kwargs)
            dtype = kwargs.pop("dtype", None)  # CuPy takes it for each distribution, NumPy for a few
            if name == "seed":
                return numpy_method(*args, **kwargs)
            result = _call(numpy_method, args, kwargs, _written(given, name in WRITING_FUNCTIONS), name)
            return result if dtype is None else ndarray._of(result._array.astype(dtype))

        return method


def _random_state(seed=None):
    return _Random("cupy.random.RandomState", np.random.RandomState(seed))


def _default_rng(seed=None):
    return _Random("cupy.random.Generator", np.random.default_rng(seed))


class _RandomModule(_Module):
    """cupy.random: default_rng, RandomState, and the functions of one global RandomState."""

    _state = _random_state()
    _aliases = types.MappingProxyType(dict.fromkeys(("random", "ranf", "sample"), "random_sample"))

    def __getattr__(self, name):
        functions = RECORD["modules"]["cupy.random"]["functions"]
        method = self._aliases.get(name, name)
        if name in functions and method in RECORD["classes"]["cupy.random.RandomState"]["methods"]:
            return getattr(self._state, method)
        return super().__getattr__(name)


class CUDARuntimeError(RuntimeError):
    """Raised by CuPy where the driver or the GPU is missing; the tests raise it themselves."""


class OutOfMemoryError(MemoryError):
    """Raised by CuPy where the GPU's memory is full; the tests raise it themselves."""


class Device:
    """The one GPU."""

    def __init__(self, device=0):
        self.id = int(device)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def use(self):
        return self

    def synchronize(self):
        cupy.synchronisations += 1


class Stream:
    """The one stream: all is done before a call returns, but waiting for it is counted."""

    def synchronize(self):
        cupy.synchronisations += 1


def _plain_module(path, **names):
    module = types.ModuleType(path)
    module.__spec__ = importlib.machinery.ModuleSpec(path, None)
    module.__dict__.update(names)
    return module


_runtime = _plain_module("cupy.cuda.runtime", getDeviceCount=lambda: 1, CUDARuntimeError=CUDARuntimeError)
_memory = _plain_module("cupy.cuda.memory", OutOfMemoryError=OutOfMemoryError)
_cuda = _plain_module(
    "cupy.cuda",
    runtime=_runtime,
    memory=_memory,
    Device=Device,
    Stream=Stream,
    get_current_stream=Stream,
    is_available=is_available,
)
_linalg = _Module("cupy.linalg", np.linalg)
_random = _RandomModule("cupy.random", np.random, RandomState=_random_state, default_rng=_default_rng)
_stride_tricks = _Module("cupy.lib.stride_tricks", np.lib.stride_tricks)
_lib = _plain_module("cupy.lib", stride_tricks=_stride_tricks)

cupy = _Module(
    "cupy",
    np,
    __version__=RECORD["version"],
    ndarray=ndarray,
    ufunc=ufunc,
    array=array,
    asarray=asarray,
    asanyarray=asarray,
    ascontiguousarray=ascontiguousarray,
    asfortranarray=asfortranarray,
    asnumpy=asnumpy,
    diagonal=diagonal,
    get_array_module=get_array_module,
    is_available=is_available,
    cuda=_cuda,
    lib=_lib,
    linalg=_linalg,
    random=_random,
    launches=0,
    synchronisations=0,
    reset_counters=reset_counters,
)

# What `sys.modules` must hold for `import cupy.something` to find the stand-in.
MODULES = {
    module.__name__: module
    for module in (cupy, _cuda, _runtime, _memory, _linalg, _random, _lib, _stride_tricks)
}
