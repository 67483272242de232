"""Fixtures for code that runs on NumPy and on CuPy, and one line that reports which GPU tests were skipped.

`xp` runs a test on NumPy, on the strict stand-in for CuPy, and on a real GPU where there is one. `strict`
puts the stand-in where `import cupy` finds it. Tests marked `gpu` are skipped where there is no GPU.
"""

import importlib
import sys
import warnings

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


@pytest.fixture(params=["numpy", "strict", pytest.param("cupy", marks=pytest.mark.gpu)])
def xp(request):
    """NumPy, the strict stand-in for CuPy, and real CuPy: the module with which a test makes its arrays."""
    if request.param == "numpy":
        return numpy
    if request.param == "strict":
        return request.getfixturevalue("strict")
    return REAL_CUPY


def pytest_collection_modifyitems(items):
    if NO_GPU is not None:
        for item in items:
            if item.get_closest_marker("gpu") is not None:
                item.add_marker(pytest.mark.skip(reason=NO_GPU))


def pytest_terminal_summary(terminalreporter):
    skipped = sum("gpu" in report.keywords for report in terminalreporter.stats.get("skipped", []))
    if skipped and NO_GPU is not None:
        tests = "1 test" if skipped == 1 else f"{skipped} tests"
        terminalreporter.write_line(
            f"gpu: {tests} skipped: {NO_GPU}; run pytest -m gpu on a machine with one"
        )
