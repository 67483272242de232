"""The stand-in for CuPy fails where CuPy fails, counts what a GPU would be asked, and gives NumPy's numbers.

Tests with `like_cupy` hold for the stand-in and, where there is a GPU, for CuPy itself: that is what keeps the stand-in
honest. Tests with `strict` are about its counters and about what it forbids beyond CuPy.
"""

import copy
import importlib
import json
import math
import operator
import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import conftest
import numpy as np
import pytest
import record_cupy_names
import strict_cupy

from tinynst import device

HOST = np.arange(12, dtype=np.float32).reshape(3, 4)


@pytest.fixture(params=["strict", pytest.param("cupy", marks=pytest.mark.gpu)])
def like_cupy(request):
    return request.getfixturevalue("strict") if request.param == "strict" else conftest.REAL_CUPY


# --- what fails ---


@pytest.mark.parametrize(
    "mix",
    [
        lambda cp, x: x + HOST,
        lambda cp, x: HOST + x,
        lambda cp, x: x == HOST,
        lambda cp, x: x @ HOST.T,
        lambda cp, x: x.__iadd__(HOST),
        lambda cp, x: HOST.copy().__iadd__(x),
        lambda cp, x: cp.maximum(x, HOST),
        lambda cp, x: cp.sqrt(HOST),
        lambda cp, x: cp.sqrt(x, out=HOST.copy()),
        lambda cp, x: cp.sqrt(x, HOST.copy()),
        lambda cp, x: cp.where(x > 2, x, HOST),
        lambda cp, x: cp.concatenate([x, HOST]),
        lambda cp, x: cp.matmul(HOST, x.T),
        lambda cp, x: operator.add(x, [1, 2, 3, 4]),
        lambda cp, x: cp.add(x, None),
    ],
)
def test_numpy_arrays_and_lists_do_not_mix_with_arrays_on_the_gpu(like_cupy, mix):
    x = like_cupy.asarray(HOST)
    with pytest.raises(TypeError):
        mix(like_cupy, x)
    np.testing.assert_array_equal(x.get(), HOST)


def test_the_message_of_mixing_names_the_type(like_cupy):
    with pytest.raises(TypeError, match=r"Unsupported type <class 'numpy\.ndarray'>"):
        like_cupy.asarray(HOST) * HOST


def test_a_numpy_array_cannot_be_assigned_into_a_slice(like_cupy):
    x = like_cupy.asarray(HOST)
    with pytest.raises(ValueError, match=r"non-scalar numpy\.ndarray cannot be used for fill"):
        x[1:] = HOST[1:]
    np.testing.assert_array_equal(x.get(), HOST)


@pytest.mark.parametrize(
    "call",
    [
        lambda cp: cp.sum(HOST),
        lambda cp: cp.pad(HOST, 1),
        lambda cp: cp.tensordot(HOST, cp.asarray(HOST), 2),
        lambda cp: cp.take(cp.asarray(HOST), np.array([0, 1])),
        lambda cp: cp.asarray(HOST).sum(out=np.zeros((), np.float32)),
        lambda cp: cp.sum([1.0, 2.0]),
        lambda cp: cp.asarray([cp.ones(3), np.ones(3)]),
    ],
)
def test_no_function_takes_numpy_arrays_or_lists_as_data(strict, call):
    with pytest.raises(TypeError):
        call(strict)


@pytest.mark.parametrize(
    "convert", [np.asarray, np.array, np.float32, lambda x: np.zeros((3, 4)).__setitem__(0, x)]
)
def test_numpy_does_not_get_at_the_data_by_itself(like_cupy, convert):
    with pytest.raises(
        TypeError, match=r"Implicit conversion to a NumPy array is not allowed\. Please use `\.get\(\)`"
    ):
        convert(like_cupy.ones(4))


@pytest.mark.parametrize(
    "call",
    [np.sqrt, np.sum, np.transpose, lambda x: np.concatenate([x, x]), lambda x: np.add(x, x), np.add.reduce],
)
def test_numpy_functions_fail_even_where_cupy_would_dispatch_them(strict, call):
    with pytest.raises(TypeError, match="on a CuPy array"):
        call(strict.ones((2, 2)))


@pytest.mark.parametrize(
    "name", ["float128", "longdouble", "object_", "errstate", "block", "insert", "nanpercentile"]
)
def test_names_that_cupy_has_not(like_cupy, name):
    assert not hasattr(like_cupy, name)


def test_methods_that_cupy_has_not(like_cupy):
    x = like_cupy.ones(3)
    assert not any(hasattr(x, name) for name in ("itemset", "tostring", "setflags", "setfield", "__index__"))
    assert not hasattr(like_cupy.linalg, "vector_norm")
    assert not hasattr(like_cupy.random.default_rng(0), "normal")
    assert hasattr(np.random.default_rng(0), "normal")


def test_what_cupy_has_and_the_stand_in_has_not_says_so(strict):
    with pytest.raises(NotImplementedError, match=r"cupy\.ElementwiseKernel.*add it to strict_cupy\.py"):
        strict.ElementwiseKernel("T x", "T y", "y = x", "copy")
    with pytest.raises(NotImplementedError, match=r"ndarray\.cstruct"):
        _ = strict.ones(2).cstruct


@pytest.mark.parametrize(
    "call",
    [
        lambda cp, x: cp.add(x, 1, where=x > 2),
        lambda cp, x: cp.sqrt(x, order="C"),
        lambda cp, x: cp.sum(x, where=x > 2),
        lambda cp, x: x.max(initial=0),
        lambda cp, x: x.sum(where=True),
        lambda cp, x: cp.var(x, correction=1),
        lambda cp, x: cp.zeros(3, device="cpu"),
        lambda cp, x: cp.einsum("ij->i", x, out=cp.zeros(3)),
        lambda cp, x: x.sum(0, None, None, False, 1),
        lambda cp, x: cp.zeros(),
        lambda cp, x: x.astype("f4", casting="safe"),
        lambda cp, x: cp.zeros(x.sum()),
        lambda cp, x: x.reshape(x.size // x[0, 2], -1),
        lambda cp, x: x[: x[0, 2]],
    ],
)
def test_arguments_that_cupy_does_not_take(like_cupy, call):
    with pytest.raises(TypeError):
        call(like_cupy, like_cupy.asarray(HOST))


def test_limits_of_numpy_functions_in_cupy(like_cupy):
    x = like_cupy.asarray(HOST)
    with pytest.raises(ValueError, match="median"):
        like_cupy.pad(x, 1, mode="median")
    with pytest.raises(NotImplementedError, match="reduce"):
        like_cupy.maximum.reduce(x)
    with pytest.raises(ValueError, match=r"[Uu]nsupported dtype"):
        like_cupy.asarray(np.array([None]))
    with pytest.raises(ValueError, match="ambiguous"):
        bool(x)


# --- overlapping memory ---


def overlapping(cp):
    """Windows of 3 over 5 numbers."""
    return cp.lib.stride_tricks.as_strided(cp.zeros(5, cp.float32), (3, 3), (4, 4))


@pytest.mark.parametrize(
    "write",
    [
        lambda cp, v: v.__iadd__(1),
        lambda cp, v: v.__setitem__(Ellipsis, 1),
        lambda cp, v: v.__setitem__((slice(2), slice(2)), 1),
        lambda cp, v: cp.add(v, 1, out=v),
        lambda cp, v: cp.matmul(cp.ones((3, 3), "f4"), cp.ones((3, 3), "f4"), out=v),
        lambda cp, v: cp.sum(cp.ones((3, 3, 3), "f4"), axis=0, out=v),
        lambda cp, v: v.fill(1),
        lambda cp, v: cp.copyto(v, cp.ones((3, 3), "f4")),
        lambda cp, v: cp.add.at(v, (cp.array([0]), cp.array([0])), 1),
    ],
)
def test_writing_where_elements_overlap_fails(strict, write):
    view = overlapping(strict)
    with pytest.raises(ValueError, match="overlap in memory"):
        write(strict, view)
    assert not view.get().any()


def test_writing_into_a_broadcast_fails(strict):
    view = strict.broadcast_to(strict.zeros(3), (2, 3))
    with pytest.raises(ValueError, match="overlap in memory"):
        view += 1


@pytest.mark.parametrize(
    "region",
    [
        lambda v: v[0],  # one window by itself does not overlap
        lambda v: v[:, 1],
        lambda v: v[1, 2],
    ],
)
def test_parts_that_do_not_overlap_can_be_written(strict, region):
    part = region(overlapping(strict))
    part += 1
    np.testing.assert_array_equal(part.get(), np.ones(part.shape))


def test_strided_views_without_overlap_can_be_written(like_cupy):
    x = like_cupy.zeros((4, 6))
    x[::2, ::-3] += 1
    x.T[1:3, 1] = 2
    tiles = like_cupy.lib.stride_tricks.as_strided(x, (2, 2, 2, 3), (96, 24, 48, 8))  # two axes interleaved
    tiles += 1
    expected = np.zeros((4, 6))
    expected[::2, ::-3] += 1
    expected.T[1:3, 1] = 2
    np.testing.assert_array_equal(x.get(), expected + 1)


def test_one_place_written_twice_fails(strict):
    x = strict.zeros(3)
    with pytest.raises(ValueError, match="indexed twice"):
        x[strict.array([0, 0])] = strict.array([1.0, 2.0])
    with pytest.raises(ValueError, match="indexed twice"):
        x[strict.array([0, 0])] += 1
    x[strict.array([0, 0])] = 3
    x[strict.array([1, 2])] = strict.array([4.0, 5.0])
    assert x.tolist() == [3, 4, 5]


# --- what stays on the GPU ---


@pytest.mark.parametrize(
    "reduce",
    [
        lambda cp, x: x.sum(),
        lambda cp, x: x.mean(),
        lambda cp, x: x.max(),
        lambda cp, x: x.argmax(),
        lambda cp, x: (x > 3).any(),
        lambda cp, x: cp.sum(x),
        lambda cp, x: cp.var(x),
        lambda cp, x: cp.vdot(x, x),
        lambda cp, x: cp.einsum("ij,ij->", x, x),
        lambda cp, x: cp.linalg.norm(x),
        lambda cp, x: cp.allclose(x, x),
        lambda cp, x: cp.array_equal(x, x),
        lambda cp, x: cp.count_nonzero(x),
        lambda cp, x: x[1, 2],
        lambda cp, x: x[1, 2] * 2,
        lambda cp, x: next(iter(x[0])),
        lambda cp, x: cp.sqrt(cp.float32(2)),
    ],
)
def test_a_single_number_stays_an_array(like_cupy, reduce):
    result = reduce(like_cupy, like_cupy.asarray(HOST))
    assert type(result) is like_cupy.ndarray
    assert result.shape == ()
    expected = reduce(np, HOST)
    assert result.dtype == np.asarray(expected).dtype
    np.testing.assert_allclose(result.get(), expected, rtol=1e-6)


def test_synchronisations_are_counted(strict):
    x = strict.asarray(HOST)
    assert strict.synchronisations == 0
    waits = [
        lambda: float(x[0, 0]),
        lambda: int(x[0, 1]),
        lambda: bool(x[0, 2]),
        lambda: x[0, 3].item(),
        lambda: x.get(),
        lambda: x.tolist(),
        lambda: strict.asnumpy(x),
        lambda: math.sqrt(x[1, 1]),
        lambda: str(x),
        lambda: f"{x[0, 0]:.1f}",
        lambda: x[strict.asarray(HOST > 3)],
        lambda: strict.nonzero(x),
        lambda: x.nonzero(),
        lambda: strict.where(x),
        lambda: strict.unique(x),
        lambda: strict.cuda.get_current_stream().synchronize(),
        lambda: strict.cuda.Device(0).synchronize(),
        lambda: device.synchronize(strict),
    ]
    for number, wait in enumerate(waits, 1):
        wait()
        assert strict.synchronisations == number
    _ = x.sum() + x.max(), x.shape, x.size, strict.size(x), strict.where(x > 1, x, 0), x[1:], len(x), list(x)
    assert strict.synchronisations == len(waits)


LAUNCHES = {
    "asarray": (lambda cp, x: cp.asarray(HOST), 1),
    "zeros": (lambda cp, x: cp.zeros(3), 1),
    "full_like": (lambda cp, x: cp.full_like(x, 2), 1),
    "add": (lambda cp, x: x + 1, 1),
    "scalar first": (lambda cp, x: np.float32(2) * x, 1),
    "in place": (lambda cp, x: x.__iadd__(1), 1),
    "two": (lambda cp, x: x * 2 + 1, 2),
    "into": (lambda cp, x: cp.multiply(x, 2, out=x), 1),
    "sum": (lambda cp, x: x.sum(axis=0), 1),
    "matmul": (lambda cp, x: x @ x.T, 1),
    "copy": (lambda cp, x: x.copy(), 1),
    "cast": (lambda cp, x: x.astype(np.float64), 1),
    "reshape with a copy": (lambda cp, x: x.T.reshape(-1), 1),
    "contiguous from transposed": (lambda cp, x: cp.ascontiguousarray(x.T), 1),
    "gather": (lambda cp, x: x[cp.asarray([0, 2])], 2),
    "assign": (lambda cp, x: x.__setitem__(slice(1), 0), 1),
    "fill": (lambda cp, x: x.fill(1), 1),
    "random": (lambda cp, x: cp.random.default_rng(0).standard_normal(3), 1),
    "no cast": (lambda cp, x: x.astype(np.float32, copy=False), 0),
    "asarray again": (lambda cp, x: cp.asarray(x), 0),
    "empty": (lambda cp, x: cp.empty_like(x), 0),
    "reshape": (lambda cp, x: x.reshape(4, 3), 0),
    "ravel": (lambda cp, x: x.ravel(), 0),
    "slice": (lambda cp, x: x[1:, ::2], 0),
    "element": (lambda cp, x: x[1, 1], 0),
    "transpose": (lambda cp, x: cp.moveaxis(x.T.swapaxes(0, 1), 0, 1), 0),
    "new axes": (lambda cp, x: cp.squeeze(cp.expand_dims(x, 0)[None]), 0),
    "broadcast": (lambda cp, x: cp.broadcast_to(x, (2, 3, 4)), 0),
    "flip": (lambda cp, x: cp.flip(x, axis=0), 0),
    "strides": (lambda cp, x: cp.lib.stride_tricks.as_strided(x, (2, 2), (4, 4)), 0),
    "windows": (lambda cp, x: cp.lib.stride_tricks.sliding_window_view(x, (2, 2)), 0),
    "facts": (lambda cp, x: (x.dtype, x.nbytes, cp.ndim(x), cp.result_type(x, np.float64)), 0),
}


@pytest.mark.parametrize(("call", "launches"), LAUNCHES.values(), ids=LAUNCHES)
def test_launches_are_counted(strict, call, launches):
    x = strict.asarray(HOST)
    strict.reset_counters()
    call(strict, x)
    assert strict.launches == launches


def test_in_place_on_a_slice_is_one_launch(strict):
    x = strict.zeros(4)
    strict.reset_counters()
    x[1:] += 1  # the assignment that Python adds finds its work done
    assert (strict.launches, x.tolist()) == (1, [0, 1, 1, 1])


# --- the numbers ---

SAME_AS_NUMPY = {
    "arithmetic": lambda xp, x: -((2 - x) ** 2) / (abs(x) + 1) // 3 % 2,
    "comparison": lambda xp, x: (x > 3) & ~(x == 5) | (x <= 1),
    "division by zero": lambda xp, x: xp.isfinite((x + 1) / (x * 0)),
    "functions": lambda xp, x: xp.tanh(xp.sqrt(x)) + xp.exp(-x),
    "clip": lambda xp, x: xp.clip(x, 2, 7).clip(3, None),
    "minimum": lambda xp, x: xp.minimum(xp.maximum(x, 3), 8.5),
    "where": lambda xp, x: xp.where(x > 4, x, 0),
    "einsum": lambda xp, x: xp.einsum("ij,kj->ik", x, x),
    "tensordot": lambda xp, x: xp.tensordot(x, x, axes=((0,), (0,))),
    "matmul": lambda xp, x: xp.matmul(x[None], x.T[None], out=xp.empty((1, 3, 3), xp.float32)),
    "pad": lambda xp, x: xp.pad(x, ((1, 2), (3, 0)), mode="reflect"),
    "concatenate": lambda xp, x: xp.concatenate([x, x + 1], axis=1),
    "stack": lambda xp, x: xp.stack((x, x), axis=-1),
    "take": lambda xp, x: xp.take(x, xp.asarray([2, 0]), axis=0),
    "gather": lambda xp, x: x[xp.asarray([2, 0]), 1:],
    "mask": lambda xp, x: x[x > 5],
    "index by an argmax": lambda xp, x: x[1][x[1].argmax()],
    "repeat": lambda xp, x: xp.repeat(x, 2, axis=0),
    "moments": lambda xp, x: x.mean(axis=(0, 1), keepdims=True) + xp.var(x, axis=1, keepdims=True),
    "sum": lambda xp, x: x.sum(axis=1, dtype=xp.float64),
    "accumulate": lambda xp, x: xp.add.accumulate(x, axis=1) + xp.add.outer(xp.arange(3.0), xp.ones(4)),
    "windows": lambda xp, x: xp.lib.stride_tricks.sliding_window_view(x, (2, 2)).sum(axis=(2, 3)),
    "solve": lambda xp, x: xp.linalg.solve(x[:3, :3] + 5 * xp.eye(3, dtype=xp.float32), x[:, :1]),
    "ranges": lambda xp, x: xp.arange(3) + xp.linspace(0, 1, 3),
    "diagonal": lambda xp, x: xp.diagonal(x),
}


@pytest.mark.parametrize("call", SAME_AS_NUMPY.values(), ids=SAME_AS_NUMPY)
def test_numbers_and_dtypes_are_those_of_numpy(like_cupy, call):
    with np.errstate(all="ignore"):
        expected = call(np, HOST.copy())
    result = call(like_cupy, like_cupy.asarray(HOST))
    assert type(result) is like_cupy.ndarray
    assert (result.shape, result.dtype) == (expected.shape, expected.dtype)
    np.testing.assert_allclose(result.get(), expected, rtol=1e-5, atol=1e-6)


def test_scalars_promote_as_in_numpy_2(like_cupy):
    x = like_cupy.ones(2, like_cupy.float32)
    assert (x * 2.5).dtype == np.float32
    assert (np.float32(2) * x).dtype == np.float32
    assert (x * np.float64(2)).dtype == np.float64
    assert (np.float64(2) * x).dtype == np.float64
    assert (x * like_cupy.asarray(2.0)).dtype == np.float64


def test_in_place_keeps_the_dtype_or_fails(like_cupy):
    x = like_cupy.ones(2, like_cupy.float32)
    same = x
    x += like_cupy.full(2, 0.5)
    assert x is same
    assert (x.dtype, x.tolist()) == (np.float32, [1.5, 1.5])
    counts = like_cupy.ones(2, like_cupy.int32)
    with pytest.raises(TypeError):
        counts += x


def test_views_share_memory_and_copies_do_not(like_cupy):
    x = like_cupy.asarray(HOST)
    x.T.reshape(4, 3)[0] = 50
    x[1, 1][...] = 60
    like_cupy.diagonal(x)[2:] = 70
    x[like_cupy.asarray([0]), 3][...] = 80
    copy.deepcopy(x)[...] = 90
    expected = HOST.copy()
    expected[:, 0], expected[1, 1], expected[2, 2] = 50, 60, 70
    np.testing.assert_array_equal(x.get(), expected)


def test_data_is_copied_on_the_way_to_the_gpu_and_back(like_cupy):
    host = HOST.copy()
    x = like_cupy.asarray(host)
    host[:] = 0
    back = x.get()
    np.testing.assert_array_equal(back, HOST)
    back[:] = 1
    np.testing.assert_array_equal(like_cupy.asnumpy(x), HOST)
    assert like_cupy.asarray(x) is x
    assert like_cupy.array(x) is not x


def test_numpy_and_list_indices_work_as_cupy_moves_them(like_cupy):
    x = like_cupy.asarray(HOST)
    np.testing.assert_array_equal(x[np.array([2, 0])].get(), HOST[[2, 0]])
    np.testing.assert_array_equal(x[:, [1, 3]].get(), HOST[:, [1, 3]])
    x[like_cupy.asarray(HOST > 3)] = 0
    np.testing.assert_array_equal(x.get(), np.where(HOST > 3, 0, HOST))


def test_random_numbers(like_cupy):
    for numbers in (
        like_cupy.random.default_rng(1).standard_normal((50, 40), dtype=np.float32),
        like_cupy.random.RandomState(1).normal(0, 1, (50, 40), dtype=np.float32),
        like_cupy.random.randn(50, 40, dtype=np.float32),
    ):
        assert (type(numbers), numbers.shape, numbers.dtype) == (like_cupy.ndarray, (50, 40), np.float32)
        assert abs(float(numbers.mean())) < 0.2
        assert abs(float(numbers.std()) - 1) < 0.2


# --- in place of CuPy ---


def test_import_finds_the_stand_in(strict):
    import cupy
    import cupy.cuda.runtime
    import cupy.random
    from cupy.lib.stride_tricks import as_strided

    assert cupy is strict
    assert cupy.cuda.runtime.getDeviceCount() == 1
    assert issubclass(cupy.cuda.runtime.CUDARuntimeError, RuntimeError)
    assert as_strided is strict.lib.stride_tricks.as_strided
    assert importlib.util.find_spec("cupy").name == "cupy"


def test_the_project_takes_it_for_cupy(strict):
    assert device.select("cuda") is strict
    x = device.asarray(HOST, strict)
    assert device.array_module(x, None) is strict
    assert strict.get_array_module(x, 2) is strict
    assert strict.get_array_module(HOST) is np
    np.testing.assert_array_equal(device.to_numpy(x), HOST)
    with pytest.raises(TypeError, match="NumPy and CuPy arrays met"):
        device.array_module(x, HOST)


def test_the_stand_in_is_gone_after_its_test():
    assert sys.modules.get("cupy") is not strict_cupy.cupy
    assert not any(sys.modules.get(name) is module for name, module in strict_cupy.MODULES.items())


def test_xp_is_each_module_in_turn(xp):
    x = xp.ones((2, 3), xp.float32)
    assert device.array_module(x) is xp
    assert float((x * 2).sum()) == 12


def test_skipped_gpu_tests_are_told_in_one_line(tmp_path):
    here = Path(__file__).parent
    for name in ("conftest.py", "strict_cupy.py", "cupy_names.json"):
        shutil.copy(here / name, tmp_path)
    (tmp_path / "pytest.ini").write_text(
        "[pytest]\nmarkers =\n    gpu: needs a GPU\nfilterwarnings = error\n"
    )
    (tmp_path / "test_here.py").write_text(
        "import pytest\n\ndef test_both(xp):\n    assert xp.ones(2).sum() == 2\n\n"
        "@pytest.mark.gpu\ndef test_gpu():\n    assert False\n\n"
        "@pytest.mark.skip\ndef test_other():\n    pass\n"
    )
    (tmp_path / "cupy").mkdir()  # a CuPy on a machine without a GPU, whatever is installed here
    (tmp_path / "cupy" / "__init__.py").write_text(
        "import warnings\nfrom types import SimpleNamespace\nwarnings.warn('no CUDA')\n"
        "class Missing(RuntimeError): pass\n"
        "def count(): raise Missing\n"
        "cuda = SimpleNamespace(runtime=SimpleNamespace(getDeviceCount=count, CUDARuntimeError=Missing))\n"
    )
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    line = "gpu: 2 tests skipped: no CUDA GPU; run pytest -m gpu on a machine with one"
    assert result.stdout.splitlines().count(line) == 1
    assert "2 passed, 3 skipped" in result.stdout


# --- the record of CuPy's names ---


def test_parameters_are_read_from_signatures_and_docstrings():
    def function(a, /, b, *, c=1, **rest):
        pass

    def cython(*args):
        """ndarray.sort(self, int axis=-1, kind=None) -> ndarray

        Sorts.
        """

    cython.__signature__ = "none"  # inspect refuses it, as it does for Cython's functions
    assert record_cupy_names.parameters(function) == "a / b * c= **rest"
    assert record_cupy_names.parameters(cython, method=True) == "axis= kind="
    assert str(strict_cupy._signature("a / b * c= **rest")) == "(a, /, b, *, c=None, **rest)"


def test_the_record_is_that_of_the_installed_cupy():
    recorded = json.loads(record_cupy_names.NAMES.read_text())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cupy = pytest.importorskip("cupy", reason="no CuPy to compare cupy_names.json with")
        if cupy.__version__ != recorded["version"]:
            pytest.skip(f"cupy_names.json is of CuPy {recorded['version']}, here is {cupy.__version__}")
        assert record_cupy_names.record(cupy) == recorded
