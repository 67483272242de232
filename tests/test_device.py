"""Which module computes, where arrays live, and the messages when there is no GPU."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest

from tinynst import device
from tinynst.errors import DeviceError


def message(error, call):
    with pytest.raises(error) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_cpu_is_numpy_and_cuda_is_cupy(strict):
    assert device.select("cpu") is np
    assert device.select("cuda") is strict
    assert device.select("cuda:0") is strict
    for name in ("gpu", "CPU", "", None, "cuda:", "cuda:-1", "cuda1"):
        assert f"{name!r}; it should be cpu" in message(DeviceError, lambda name=name: device.select(name))
    assert "the last GPU here is cuda:0" in message(DeviceError, lambda: device.select("cuda:1"))


def test_the_gpu_that_is_chosen(strict, monkeypatch):
    used = []
    monkeypatch.setattr(strict.cuda.runtime, "getDeviceCount", lambda: 2)
    monkeypatch.setattr(strict.cuda, "Device", lambda index: SimpleNamespace(use=lambda: used.append(index)))
    for name in ("cuda", "cuda:1"):
        assert device.select(name) is strict
    assert used == [0, 1]


@pytest.mark.kernels
def test_a_kernel_is_tried(kernels):
    kernels.reset_counters()
    assert device.select("cuda") is kernels
    assert kernels.launches == 4  # ones, the product, the kernel, the sum


@pytest.mark.parametrize("version", [12090, 13000])
def test_cuda_without_its_libraries(strict, monkeypatch, version):
    def missing(*args, **options):
        raise ImportError("libcublas.so.12: cannot open shared object file\nmore lines")

    monkeypatch.setattr(strict.cuda.runtime, "runtimeGetVersion", lambda: version)
    monkeypatch.setattr(strict, "matmul", missing)
    text = message(DeviceError, lambda: device.select("cuda"))
    assert (
        f"(libcublas.so.12: cannot open shared object file): pip install 'tinynst[cuda{version // 1000}]'"
        in text
    )


def test_cuda_without_cupy_or_without_a_gpu(strict, monkeypatch):
    def no_gpu():
        raise strict.cuda.runtime.CUDARuntimeError("cudaErrorNoDevice")

    monkeypatch.setattr(strict.cuda.runtime, "getDeviceCount", no_gpu)
    text = message(DeviceError, lambda: device.select("cuda"))
    assert all(part in text for part in ("cudaErrorNoDevice", "driver", "--device cpu"))
    monkeypatch.setitem(sys.modules, "cupy", None)  # import cupy raises ImportError
    text = message(DeviceError, lambda: device.select("cuda"))
    assert all(part in text for part in ("CuPy", "pip install 'tinynst[cuda12]'", "--device cpu"))
    assert device.select("cpu") is np


def test_the_module_of_arrays(xp):
    x = xp.zeros(3)
    assert device.array_module(None, x, None, x[:1]) is xp
    for wrong in ([1, 2], 3.0, "x", np.float64(1)):
        assert type(wrong).__name__ in message(TypeError, lambda wrong=wrong: device.array_module(x, wrong))
    assert "got none" in message(TypeError, lambda: device.array_module(None, None))


def test_arrays_on_two_devices(strict):
    for arrays in ((np.zeros(2), strict.zeros(2)), (strict.zeros(2), None, np.zeros(2))):
        text = message(TypeError, lambda arrays=arrays: device.array_module(*arrays))
        assert all(part in text for part in ("NumPy and CuPy", "device.asarray", "device.to_numpy"))


def test_to_a_device_and_back(xp):
    x = np.arange(6.0).reshape(2, 3)
    moved = device.asarray(x, xp)
    assert isinstance(moved, xp.ndarray)
    assert xp.may_share_memory(device.asarray(moved, xp), moved)  # nothing to copy
    for back in (
        device.to_numpy(moved),
        device.asarray(moved, np),
        device.to_numpy(device.asarray(x.tolist(), xp)),
    ):
        assert isinstance(back, np.ndarray)
        np.testing.assert_array_equal(back, x)


def test_synchronize(strict):
    device.synchronize(np)
    assert strict.synchronisations == 0
    device.synchronize(strict)
    assert strict.synchronisations == 1


def test_copy_arrays_copies_all_or_none(xp):
    target = {"w": xp.zeros(2), "b": xp.zeros(1)}
    assert "'b'" in message(ValueError, lambda: device.copy_arrays({"w": np.ones(2)}, target))
    assert "(3,)" in message(
        ValueError, lambda: device.copy_arrays({"w": np.ones(2), "b": np.ones(3)}, target)
    )
    assert not device.to_numpy(target["w"]).any()
    device.copy_arrays({"w": np.ones(2), "b": np.ones(1)}, target)
    assert device.to_numpy(target["w"]).all()
