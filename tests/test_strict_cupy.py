"""The stand-in for CuPy fails where CuPy fails and counts what a GPU would have to do.

Tests with `like_cupy` also run on real CuPy where there is a GPU, which keeps the stand-in honest.
"""

import operator
import os
import shutil
import subprocess
import sys
from pathlib import Path

import conftest
import numpy as np
import pytest
import strict_cupy

HOST = np.arange(12, dtype=np.float32).reshape(3, 4)


@pytest.fixture(params=["strict", pytest.param("cupy", marks=pytest.mark.gpu)])
def like_cupy(request):
    return request.getfixturevalue("strict") if request.param == "strict" else conftest.REAL_CUPY


@pytest.mark.parametrize(
    "call",
    [
        lambda cp, x: x + HOST,
        lambda cp, x: HOST + x,
        lambda cp, x: operator.iadd(x, HOST),
        lambda cp, x: cp.sqrt(x, out=HOST.copy()),
        lambda cp, x: cp.where(x > 2, x, HOST),
        lambda cp, x: cp.concatenate([x, HOST]),
        lambda cp, x: cp.sqrt(HOST),
        lambda cp, x: operator.add(x, [1, 2, 3, 4]),
        lambda cp, x: cp.add(x, None),
        lambda cp, x: np.asarray(x),
        lambda cp, x: range(9)[x[0, 0]],
        lambda cp, x: cp.zeros(x.sum()),
        lambda cp, x: cp.add(x, 1, where=x > 2),
        lambda cp, x: cp.sum(x, where=x > 2),
        lambda cp, x: x.max(initial=0),
        lambda cp, x: cp.einsum("ij->i", x, out=cp.zeros(3)),
        lambda cp, x: x.astype("f4", casting="safe"),
        lambda cp, x: operator.iadd(cp.ones(x.shape, cp.int32), x),
    ],
)
def test_what_cupy_refuses(like_cupy, call):
    x = like_cupy.asarray(HOST)
    with pytest.raises(TypeError):
        call(like_cupy, x)
    np.testing.assert_array_equal(x.get(), HOST)


@pytest.mark.parametrize("call", [np.sqrt, np.sum, np.add.reduce, lambda x: np.concatenate([x, x])])
def test_numpy_functions_fail(strict, call):
    with pytest.raises(TypeError):
        call(strict.ones((2, 2)))


def test_other_errors_of_cupy(like_cupy):
    x = like_cupy.asarray(HOST)
    with pytest.raises(ValueError, match=r"numpy\.ndarray cannot be used for fill"):
        x[1:] = HOST[1:]
    with pytest.raises(ValueError, match=r"[Uu]nsupported dtype"):
        like_cupy.asarray(np.array([None]))
    with pytest.raises(ValueError, match="median"):
        like_cupy.pad(x, 1, mode="median")


def test_a_name_that_is_not_listed_says_what_to_do(strict):
    for call in (lambda: strict.errstate, lambda: strict.ones(2).itemset, lambda: strict.cuda.graph):
        with pytest.raises(
            AttributeError, match=r"check that CuPy has it.*add it to a list in tests/strict_cupy\.py"
        ):
            call()


def test_every_listed_name_is_in_cupy():
    cupy = pytest.importorskip("cupy", reason="no CuPy to compare the lists with")
    of_module = [
        name for name, value in vars(strict_cupy.cupy).items() if not name.startswith("_") and callable(value)
    ]
    assert [name for name in of_module if not hasattr(cupy, name)] == ["reset_counters"]
    assert all(hasattr(cupy.ndarray, name) for name in (strict_cupy.METHODS + strict_cupy.FACTS).split())


def test_writing_where_elements_overlap_fails(strict):
    view = strict.lib.stride_tricks.as_strided(strict.zeros(5, strict.float32), (3, 3), (4, 4))
    for write in (
        lambda: operator.iadd(view, 1),
        lambda: view.fill(1),
        lambda: operator.setitem(view, slice(2), 1),
        lambda: strict.add(view, 1, out=view),
        lambda: operator.iadd(strict.broadcast_to(strict.zeros(3), (2, 3)), 1),
    ):
        with pytest.raises(ValueError, match="overlap in memory"):
            write()
    assert not view.get().any()
    view[0] += 1  # one window by itself does not overlap
    x = strict.zeros(3)
    with pytest.raises(ValueError, match="indexed twice"):
        x[strict.array([0, 0])] = strict.array([1.0, 2.0])


@pytest.mark.parametrize(
    ("call", "launches"),
    [
        (lambda cp, x: cp.asarray(HOST), 1),
        (lambda cp, x: cp.zeros(3), 1),
        (lambda cp, x: np.float32(2) * x + 1, 2),
        (lambda cp, x: x.__iadd__(1), 1),
        (lambda cp, x: operator.setitem(x, slice(1), operator.iadd(x[:1], 1)), 1),  # x[:1] += 1
        (lambda cp, x: cp.multiply(x, 2, out=x), 1),
        (lambda cp, x: x.sum(axis=0), 1),
        (lambda cp, x: x.astype(np.float64), 1),
        (lambda cp, x: x.T.reshape(-1), 1),
        (lambda cp, x: cp.ascontiguousarray(x.T), 1),
        (lambda cp, x: x[cp.asarray([0, 2])], 2),
        (lambda cp, x: x.__setitem__(slice(1), 0), 1),
        (lambda cp, x: x.fill(1), 1),
        (
            lambda cp, x: (
                x.astype(x.dtype, copy=False),
                cp.asarray(x),
                cp.empty_like(x),
                x.reshape(4, 3),
                x[1:, ::2],
            ),
            0,
        ),
        (
            lambda cp, x: (x[1, 1], cp.moveaxis(x.T, 0, 1), cp.broadcast_to(x, (2, 3, 4)), x.ravel(), x.size),
            0,
        ),
    ],
)
def test_launches_are_counted(strict, call, launches):
    x = strict.asarray(HOST)
    strict.reset_counters()
    call(strict, x)
    assert (strict.launches, strict.synchronisations) == (launches, 0)


def test_synchronisations_are_counted(strict):
    x = strict.asarray(HOST)
    y = x.sum()
    waits = [x.get, x.tolist, y.item, lambda: float(y), lambda: bool(y), lambda: int(y), lambda: str(y)]
    waits += [lambda: x[x > 3], lambda: strict.asnumpy(x), strict.cuda.get_current_stream().synchronize]
    for number, wait in enumerate(waits, 1):
        wait()
        assert strict.synchronisations == number


@pytest.mark.parametrize(
    "call",
    [
        lambda xp, x: -((2 - x) ** 2) / (abs(x) + 1) // 3 % 2,
        lambda xp, x: (x > 3) & ~(x == 5) | (x <= 1),
        lambda xp, x: xp.isfinite((x + 1) / (x * 0)),
        lambda xp, x: xp.where(xp.clip(x, 2, 7) > 4, x, 0),
        lambda xp, x: xp.einsum("ij,kj->ik", x, x) + xp.tensordot(x, x, axes=((1,), (1,))),
        lambda xp, x: xp.pad(x, ((1, 2), (3, 0)), mode="reflect"),
        lambda xp, x: xp.stack([x, xp.concatenate([x[:1], x[1:]])], axis=-1),
        lambda xp, x: x.mean(axis=(0, 1), keepdims=True) + xp.var(x, axis=1, keepdims=True),
        lambda xp, x: x.sum(axis=1, dtype=xp.float64) * np.float32(2),
        lambda xp, x: x[1][x[1].argmax()] + x[[2, 0], 1:],
        lambda xp, x: x * np.float64(2),
        lambda xp, x: x.max(),
    ],
)
def test_numbers_and_dtypes_are_those_of_numpy(like_cupy, call):
    with np.errstate(all="ignore"):
        expected = np.asarray(call(np, HOST.copy()))
    result = call(like_cupy, like_cupy.asarray(HOST))
    assert type(result) is like_cupy.ndarray  # a single number as well: it stays on the GPU
    assert (result.shape, result.dtype) == (expected.shape, expected.dtype)
    np.testing.assert_allclose(result.get(), expected, rtol=1e-5, atol=1e-6)


def test_import_finds_the_stand_in_during_its_test_only(strict, monkeypatch):
    import cupy.cuda.runtime
    from cupy.lib.stride_tricks import as_strided

    assert cupy is strict
    assert as_strided is strict.lib.stride_tricks.as_strided
    monkeypatch.undo()
    assert sys.modules.get("cupy") is not strict


def test_skipped_gpu_tests_are_reported_in_one_line(tmp_path):
    for name in ("conftest.py", "strict_cupy.py", "cuda_on_cpu.py"):
        shutil.copy(Path(__file__).with_name(name), tmp_path)
    (tmp_path / "pytest.ini").write_text(
        "[pytest]\nmarkers =\n    gpu: needs a GPU\n    kernels: CUDA on the CPU\nfilterwarnings = error\n"
    )
    (tmp_path / "test_here.py").write_text("def test_all(xp):\n    assert xp.ones(2).sum() == 2\n")
    (tmp_path / "cupy.py").write_text(  # a CuPy on a machine without a GPU, whatever is installed here
        "import warnings\nfrom types import SimpleNamespace\nwarnings.warn('no CUDA')\n"
        "class Missing(RuntimeError): pass\n"
        "def count(): raise Missing\n"
        "cuda = SimpleNamespace(runtime=SimpleNamespace(getDeviceCount=count, CUDARuntimeError=Missing))\n"
    )
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    environment = os.environ | {"PYTHONPATH": str(tmp_path), "PATH": str(tmp_path)}  # no compiler there
    result = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120
    )
    assert "2 passed, 2 skipped" in result.stdout, result.stdout + result.stderr
    lines = result.stdout.splitlines()
    assert lines.count("gpu: 1 test skipped: no CUDA GPU; run pytest -m gpu on a machine with one") == 1
    assert sum(line.startswith("kernels: 1 test skipped: no C++ compiler") for line in lines) == 1
