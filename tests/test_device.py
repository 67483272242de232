"""Which module computes, where arrays live, and what is said when there is no GPU."""

import sys

import numpy as np
import pytest
from cases import refuses

from tinynst import device
from tinynst.errors import DeviceError


def one_line(error, call):
    with pytest.raises(error) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_cpu_is_numpy_and_needs_no_cupy(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    assert device.select("cpu") is np


def test_cuda_is_cupy(strict):
    assert device.select("cuda") is strict


def test_cuda_without_cupy(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)  # import cupy raises ImportError
    message = one_line(DeviceError, lambda: device.select("cuda"))
    assert "CuPy" in message
    assert "pip install 'tinynst[cuda12]'" in message
    assert "--device cpu" in message


def test_cuda_without_a_gpu(strict, monkeypatch):
    def none():
        raise strict.cuda.runtime.CUDARuntimeError("cudaErrorNoDevice: no CUDA-capable device is detected")

    monkeypatch.setattr(strict.cuda.runtime, "getDeviceCount", none)
    message = one_line(DeviceError, lambda: device.select("cuda"))
    assert "GPU" in message
    assert "cudaErrorNoDevice" in message
    assert "driver" in message
    assert "--device cpu" in message


@pytest.mark.parametrize("name", ["gpu", "CPU", "", None])
def test_other_names(name):
    message = one_line(ValueError, lambda: device.select(name))
    assert repr(name) in message
    assert "'cpu' or 'cuda'" in message


def test_module_of_arrays(xp):
    x = xp.zeros(3)
    assert device.array_module(x) is xp
    assert device.array_module(None, x, None, x[:1]) is xp


def test_no_module_for_what_is_no_array(strict):
    for wrong in ([1, 2], 3.0, "x", np.float64(1)):
        refuses(TypeError, type(wrong).__name__, lambda wrong=wrong: device.array_module(np.zeros(1), wrong))
    refuses(TypeError, "array", device.array_module)
    refuses(TypeError, "array", lambda: device.array_module(None, None))


def test_two_devices_and_what_to_do(strict):
    for arrays in ((np.zeros(2), strict.zeros(2)), (strict.zeros(2), None, np.zeros(2))):
        message = one_line(TypeError, lambda arrays=arrays: device.array_module(*arrays))
        assert "NumPy and CuPy" in message
        assert "device.asarray" in message
        assert "device.to_numpy" in message


def test_there_and_back(xp):
    x = np.arange(6.0).reshape(2, 3)
    there = device.asarray(x, xp)
    assert isinstance(there, xp.ndarray)
    assert there.dtype == x.dtype
    back = device.to_numpy(there)
    assert isinstance(back, np.ndarray)
    assert np.array_equal(back, x)
    assert np.array_equal(device.to_numpy(device.asarray([[1, 2], [3, 4]], xp)), [[1, 2], [3, 4]])
    assert np.array_equal(device.asarray(there, np), x)


def test_nothing_is_copied_that_need_not_move(strict):
    x = np.zeros((2, 3))
    assert device.asarray(x, np) is x
    assert device.to_numpy(x) is x
    on_gpu = strict.zeros((2, 3))
    assert strict.shares_memory(device.asarray(on_gpu, strict), on_gpu)


def test_synchronize_waits_for_a_gpu_and_not_for_numpy(strict):
    device.synchronize(np)
    assert strict.synchronisations == 0
    device.synchronize(strict)
    assert strict.synchronisations == 1
