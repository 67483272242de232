"""What the shim finds in wrong kernels, and how a launch passes its arguments."""

import cuda_on_cpu
import numpy as np
import pytest

from tinynst.ops.fast.cuda.launch import launch

pytestmark = pytest.mark.kernels


def run(kernels, body, *args, threads=64, blocks=1, parameters="float* x, int n"):
    code = f'extern "C" __global__ void k({parameters}) {{ int i = threadIdx.x; {body} }}'
    cuda_on_cpu.RawModule(code=code).get_function("k")((blocks,), (threads,), args)


def numbers(kernels, size=64):
    return kernels.asarray(np.arange(size, dtype=np.float32))


def test_threads_blocks_and_barriers(kernels):
    x = kernels.zeros(128, np.float32)
    body = "__shared__ int s[64]; s[i] = i; __syncthreads(); x[64 * blockIdx.x + i] = s[63 - i] + n;"
    run(kernels, body, x, np.int32(1), blocks=2)
    assert x.get().tolist() == 2 * list(range(64, 0, -1))
    assert kernels.launches == 2  # zeros and the kernel


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("__shared__ float s[64]; s[i] = i; x[i] = s[63 - i];", "order of threads"),  # no barrier
        ("x[0] = i;", "order of threads"),  # two threads write one number
        ("if (i < 30) __syncthreads();", "30 of 64 threads wait"),
        ("x[i + 1] = 0;", "outside the arrays"),
        ("x[i - 1] = 0;", "outside the arrays"),
        ("x[i] = x[i + n];", "outside the arrays"),
        ("__shared__ float s[20000]; x[i] = s[i];", "too much shared memory"),
    ],
)
def test_what_it_finds(kernels, body, message):
    x = numbers(kernels)
    with pytest.raises(RuntimeError, match=message):
        run(kernels, body, x, np.int32(1))
    run(kernels, "x[i] += n;", x, np.int32(1))  # the next launch works, and nothing was written before it
    assert x.get().tolist() == list(range(1, 65))


@pytest.mark.parametrize("number", [3, np.int64(3), np.float64(3), None])
def test_an_argument_of_the_wrong_type(kernels, number):
    with pytest.raises(RuntimeError, match="argument 1"):
        run(kernels, "x[0] = n;", numbers(kernels), number)
    with pytest.raises(RuntimeError, match="argument 0"):
        run(kernels, "x[0] = n;", kernels.zeros(4), np.int32(3))


def test_shared_memory_starts_as_nan(kernels):
    x = numbers(kernels, 32)
    for _ in range(2):
        run(kernels, "__shared__ float s[32]; if (i) s[i] = 1; x[i] = s[i];", x, np.int32(0), threads=32)
        assert np.isnan(x.get()[0]) and (x.get()[1:] == 1).all()


def test_shuffles(kernels):
    x = numbers(kernels)
    body = "float v = x[i]; for (int s = 16; s; s /= 2) v += __shfl_down_sync(~0u, v, s);"
    run(kernels, f"{body} if (i % 32 == 0) x[i] = v;", x, np.int32(0))
    assert x.get()[[0, 32]].tolist() == [sum(range(32)), sum(range(32, 64))]


def test_arguments_of_a_launch(kernels, monkeypatch, tmp_path):
    """int, float in the array's dtype, bool, None, and a macro; included files; contiguous arrays only."""
    from tinynst.ops.fast.cuda import launch as module

    monkeypatch.setattr(module, "FOLDER", tmp_path)
    (tmp_path / "half.cuh").write_text("#define HALF(v) ((v) / 2)\n")
    (tmp_path / "scale.cu").write_text(
        '#include "half.cuh"\n'
        'extern "C" __global__ void scale(REAL* x, const REAL* y, REAL f, int add, int n) {\n'
        "  if (threadIdx.x < n) x[threadIdx.x] = HALF(x[threadIdx.x] * f * TIMES) + add + (y ? 100 : 0);\n}\n"
    )
    for dtype in (np.float32, np.float64):
        x = kernels.asarray(np.arange(6, dtype=dtype))
        launch("scale.cu", "scale", (1,), (x, None, 0.5, True, 5), block=(32,), TIMES=8)
        assert x.get().tolist() == [1, 3, 5, 7, 9, 5]
    with pytest.raises(ValueError, match="contiguous"):
        launch("scale.cu", "scale", (1,), (x[::2], None, 0.5, True, 3), block=(32,), TIMES=8)
