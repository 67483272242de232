"""The CUDA kernels on the CPU, with sizes that take each way through them, and compiled for each kind of GPU.

tests/test_ops.py runs every operation through the kernels on small arrays.
"""

import numpy as np
import nvrtc
import pytest
from cases import assert_close, on, plain
from test_ops import conv, transpose

from tinynst.device import asarray
from tinynst.ops.fast.cuda import conv as gpu
from tinynst.ops.fast.cuda import launch

# Tiles cut off at the bottom and at the right, channels in fours and not, several parts of pixels
LARGE = [
    conv((3, 3), pad=1, image=(2, 13, 15, 64), outputs=132, bias=True, relu=True),
    conv((3, 3), pad=1, image=(1, 19, 17, 66), outputs=50),
    conv((3, 3), stride=2, pad=1, image=(3, 33, 31, 32), outputs=64),
    conv((9, 9), pad=4, image=(1, 25, 27, 3), outputs=32),
    conv((9, 9), pad=4, image=(1, 25, 27, 32), outputs=3, bias=True),
    conv((1, 1), image=(2, 30, 31, 40), outputs=12, bias=True),
    transpose((3, 3), 2, 1, 1, image=(2, 11, 13, 128), outputs=64, bias=True),
    transpose((2, 2), 3, 0, 1, image=(1, 19, 17, 10), outputs=9, bias=True),
]


def run(kernels, case, dtype, tolerance):
    """Compare y and the gradients by kernels with those of the plain version in float64."""
    arrays = case.draw()
    y, gradients = case.run(arrays, case.dy, plain)
    got, found = case.run(on(kernels, arrays, dtype), asarray(case.dy.astype(dtype), kernels))
    assert_close(got, y, tolerance)
    for name, gradient in gradients.items():
        assert_close(found[name], gradient, tolerance)


@pytest.mark.kernels
@pytest.mark.parametrize("enough", [1, 128])  # so many blocks are enough for large tiles
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 1e-5), (np.float64, 1e-10)])
@pytest.mark.parametrize("case", LARGE, ids=str)
def test_large_convolutions(kernels, monkeypatch, case, dtype, tolerance, enough):
    monkeypatch.setattr(gpu, "ENOUGH_BLOCKS", enough)
    run(kernels, case, dtype, tolerance)


@pytest.mark.kernels
def test_a_convolution_is_one_launch(kernels):
    case = LARGE[2]
    arrays, dy = on(kernels, case.draw(), np.float32), asarray(case.dy.astype(np.float32), kernels)
    kernels.reset_counters()
    y, cache = case.forward(arrays)
    assert (kernels.launches, y.shape) == (1, (3, 17, 16, 64))
    case.backward(dy, cache)
    assert (kernels.launches, kernels.synchronisations) == (4, 0)  # dx; dw in parts, and their sum


FILES = {path.name: path.read_text() for path in sorted(launch.FOLDER.glob("*.cu"))}
BARRIERS = [(file, k) for file, text in FILES.items() for k in range(text.count("__syncthreads();"))]
# {file: a case that runs its kernels}
COVERS = {"conv.cu": LARGE[2], "conv_weights.cu": LARGE[2]}


@pytest.mark.kernels
@pytest.mark.parametrize(("file", "which"), BARRIERS)
def test_each_barrier_is_missed(kernels, monkeypatch, file, which):
    """Without one of its __syncthreads() a kernel's result is wrong, and a test sees it."""
    source = launch.source

    def without(name):
        pieces = source(name).split("__syncthreads();")
        if name == file:
            pieces[which : which + 2] = ["".join(pieces[which : which + 2])]
        return "__syncthreads();".join(pieces)

    monkeypatch.setattr(launch, "source", without)
    with pytest.raises((RuntimeError, AssertionError), match=r"order of threads|differs by|isfinite"):
        run(kernels, COVERS[file], np.float32, 1e-5)


# --- NVIDIA's compiler ---

TILES = [
    gpu._macros(*tile) for tile in ((128, 8, 8), (64, 8, 8), (64, 4, 4), (32, 4, 4), (16, 4, 4), (4, 1, 4))
]
MACROS = {  # {file: the macros that it is compiled with}
    "conv.cu": [{"TRANSPOSED": k, **tile} for tile in TILES for k in (0, 1)],
    "conv_weights.cu": TILES,
}


@pytest.mark.skipif(nvrtc.library() is None, reason="no NVRTC: pip install nvidia-cuda-nvrtc-cu12")
@pytest.mark.parametrize("architecture", nvrtc.MULTIPROCESSORS)
@pytest.mark.parametrize("file", FILES)
def test_nvidias_compiler(file, architecture):
    """Each file compiles for each kind of GPU, with every tile for one of them. Registers hardly spill to
    memory, and two blocks of 256 threads fit on a multiprocessor."""
    registers, _, shared = nvrtc.MULTIPROCESSORS[architecture]
    for dtype in launch.TYPES:
        macros = MACROS.get(file, [{}])
        for each in macros if architecture == 90 else macros[:2]:
            if dtype == "float64" and each.get("PER_ROWS") == 8:
                continue
            options = launch.options(dtype, tuple(each.items()))
            compiled, log = nvrtc.compile(nvrtc.library(), launch.source(file), options, architecture)
            assert compiled, log
            for kernel, (used, spilled, memory) in nvrtc.usage(log).items():
                what = f"{kernel} {dtype} {each}: {used} registers, {spilled} bytes spilled, {memory} shared"
                assert 2 * 256 * used <= registers and spilled <= 64 and 2 * memory <= 1024 * shared, what
