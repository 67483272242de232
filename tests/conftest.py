"""Fixtures for code that runs on NumPy and on CuPy, and a line that reports which tests were skipped.

`xp` runs a test on NumPy, on the strict stand-in for CuPy, on the stand-in with the CUDA kernels compiled for
the CPU, and on a real GPU where there is one. `strict` puts the stand-in where `import cupy` finds it,
`kernels` the one with kernels. Tests marked `gpu` are skipped where there is no GPU, tests marked `kernels`
where there is no C++ compiler.
"""

import importlib
import sys
import warnings

import cuda_on_cpu
import numpy
import pytest
import strict_cupy


def _find_gpu():
    """Return (the real CuPy, None), or (None, why there is none)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # CuPy warns where it finds no CUDA
        try:
            cupy = importlib.import_module("cupy")
        except ImportError:
            return None, "no CuPy"
        try:
            cupy.cuda.runtime.getDeviceCount()
        except cupy.cuda.runtime.CUDARuntimeError:
            return None, "no CUDA GPU"
    return cupy, None


# Before any test can put the stand-in in its place.
REAL_CUPY, NO_GPU = _find_gpu()


@pytest.fixture
def strict(monkeypatch):
    """The stand-in for CuPy, in place of `cupy` for this test, its counters at zero."""
    for name in [name for name in sys.modules if name == "cupy" or name.startswith("cupy.")]:
        monkeypatch.delitem(sys.modules, name)
    for name, module in strict_cupy.MODULES.items():
        monkeypatch.setitem(sys.modules, name, module)
    strict_cupy.cupy.reset_counters()
    return strict_cupy.cupy


@pytest.fixture
def kernels(strict, monkeypatch):
    """The stand-in for CuPy with the CUDA kernels on the CPU; new memory is full of NaN."""
    monkeypatch.setattr(strict, "RawModule", cuda_on_cpu.RawModule, raising=False)
    for name in ("empty", "empty_like"):
        monkeypatch.setattr(strict, name, _full_of_nan(getattr(strict, name)))
    return strict


def _full_of_nan(empty):
    def poisoned(*args, **options):
        result = empty(*args, **options)
        if result.dtype.kind == "f":
            result._array.fill(numpy.nan)
        return result

    return poisoned


DEVICES = (
    "numpy",
    "strict",
    pytest.param("kernels", marks=pytest.mark.kernels),
    pytest.param("cupy", marks=pytest.mark.gpu),
)


@pytest.fixture(params=DEVICES)
def xp(request):
    """The module with which a test makes its arrays: NumPy, the strict stand-in for CuPy without and with
    kernels, and real CuPy."""
    if request.param == "numpy":
        return numpy
    return REAL_CUPY if request.param == "cupy" else request.getfixturevalue(request.param)


@pytest.fixture(params=DEVICES[2:])
def cp(request):
    """The stand-in for CuPy with kernels, and real CuPy."""
    return REAL_CUPY if request.param == "cupy" else request.getfixturevalue("kernels")


# {mark: (why its tests are skipped, or None; where they run)}
SKIPPED = {
    "gpu": (NO_GPU, "run pytest -m gpu on a machine with one"),
    "kernels": (cuda_on_cpu.MISSING, "install g++ to run the CUDA kernels on the CPU"),
}


def pytest_collection_modifyitems(items):
    for item in items:
        for mark, (reason, _) in SKIPPED.items():
            if reason and (item.get_closest_marker(mark) or mark in item.fixturenames):
                item.add_marker(pytest.mark.skip(reason=reason))


def pytest_terminal_summary(terminalreporter):
    for mark, (reason, advice) in SKIPPED.items():
        reports = terminalreporter.stats.get("skipped", [])
        skipped = sum(report.longrepr[2] == f"Skipped: {reason}" for report in reports)
        if skipped:
            tests = "1 test" if skipped == 1 else f"{skipped} tests"
            terminalreporter.write_line(f"{mark}: {tests} skipped: {reason}; {advice}")
