"""The CUDA kernels on the CPU, with sizes that take each way through them, and compiled for each kind of GPU.

tests/test_ops.py runs every operation through the kernels on small arrays.
"""

import weakref
from types import SimpleNamespace

import numpy as np
import nvrtc
import pytest
import strict_cupy
from cases import assert_close, on, plain
from test_ops import conv, transpose

from tinynst import device
from tinynst.device import asarray
from tinynst.losses import StyleObjective
from tinynst.networks import VGG16, style_net
from tinynst.networks.vgg import STYLE_LAYERS
from tinynst.ops.fast.cuda import conv as gpu
from tinynst.ops.fast.cuda import gram, launch
from tinynst.optim import Adam

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


def run(cp, case, dtype, tolerance):
    """Compare y and the gradients by kernels with those of the plain version in float64."""
    arrays = case.draw()
    y, gradients = case.run(arrays, case.dy, plain)
    got, found = case.run(on(cp, arrays, dtype), asarray(case.dy.astype(dtype), cp))
    assert_close(got, y, tolerance)
    for name, gradient in gradients.items():
        assert_close(found[name], gradient, tolerance)


@pytest.mark.parametrize("enough", [1, 128])  # so many blocks are enough for large tiles
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 1e-5), (np.float64, 1e-10)])
@pytest.mark.parametrize("case", LARGE, ids=str)
def test_large_convolutions(cp, monkeypatch, case, dtype, tolerance, enough):
    monkeypatch.setattr(gpu, "ENOUGH_BLOCKS", enough)
    run(cp, case, dtype, tolerance)


@pytest.mark.kernels
@pytest.mark.parametrize("file", ["conv.cu", "conv_weights.cu"])
def test_a_missing_barrier_is_found(kernels, monkeypatch, file):
    case, source = LARGE[2], launch.source
    assert source(file).count("__syncthreads();") == 1
    broken = source(file).replace("__syncthreads();", "")
    monkeypatch.setattr(launch, "source", lambda name: broken if name == file else source(name))
    with pytest.raises(RuntimeError, match="order of threads"):
        run(kernels, case, np.float32, 1e-5)


# --- launches and memory ---


class Counter:
    """In place of cupy.RawModule: kernels are counted and not run."""

    def __init__(self, *, code, options=()):
        pass

    def get_function(self, name):
        def call(grid, block, args):
            strict_cupy.cupy.launches += 1

        return call


@pytest.fixture
def counted(strict, monkeypatch):
    """The stand-in for CuPy with kernels that do nothing; `memory` has its arrays' bytes, now and at most."""
    wrap, memory = strict_cupy.ndarray._of, SimpleNamespace(now=0, most=0)

    def tracked(array):
        if array.base is None:
            change(array.nbytes)
            weakref.finalize(array, change, -array.nbytes).atexit = False
        return wrap(array)

    def change(count):
        memory.now += count
        memory.most = max(memory.most, memory.now)

    for name, value in {"RawModule": Counter, "memory": memory}.items():
        monkeypatch.setattr(strict, name, value, raising=False)
    monkeypatch.setattr(strict_cupy.ndarray, "_of", tracked)
    device.kernel.cache_clear()
    yield strict
    device.kernel.cache_clear()


def test_a_convolution_is_one_launch(counted):
    case = LARGE[2]
    arrays, dy = on(counted, case.draw(), np.float32), asarray(case.dy.astype(np.float32), counted)
    counted.reset_counters()
    _, cache = case.forward(arrays)
    assert counted.launches == 1
    case.backward(dy, cache)
    assert (counted.launches, counted.synchronisations) == (4, 0)  # dx; dw in parts, and their sum


def test_a_training_step_at_the_papers_size(counted):
    """Four photos of 256x256, the paper's layers; it never waits for the GPU."""
    layers = dict.fromkeys(STYLE_LAYERS, 5.0)
    net, painting, photos = style_net(xp=counted), *map(counted.empty, [(1, 200, 256, 3), (4, 256, 256, 3)])
    painting, photos = (array.astype(np.float32) for array in (painting, photos))
    objective = StyleObjective(VGG16.load(None, counted), painting, {"relu3_3": 1.0}, layers, 1e-6)
    adam = Adam(net.parameters())
    counted.reset_counters()
    counted.memory.most = 0
    y = net.forward(photos, training=True)
    _, dy = objective(y, objective.targets(photos), read=False)
    net.backward(dy, need=("w",))
    adam.step(net.gradients())
    assert counted.launches <= 300 and counted.synchronisations == 0
    assert counted.memory.most < 1.2e9


def test_stylizing_a_large_photo(counted):
    net, photo = style_net(xp=counted), counted.zeros((1, 2048, 2048, 3), np.float32)
    counted.reset_counters()
    counted.memory.most = 0
    net.forward(photo)
    assert counted.launches <= 60 and counted.synchronisations == 0
    assert counted.memory.most < 1.4e9


# --- NVIDIA's compiler ---

TILES = [
    gpu._macros(*tile) for tile in ((128, 8, 8), (64, 8, 8), (64, 4, 4), (32, 4, 4), (16, 4, 4), (4, 1, 4))
]
MACROS = {  # {file: the macros that it is compiled with}
    "conv.cu": [{"TRANSPOSED": k, **tile} for tile in TILES for k in (0, 1)],
    "conv_weights.cu": TILES,
    "gram.cu": [gram.TILE],
}


@pytest.mark.skipif(nvrtc.library() is None, reason="no NVRTC: pip install nvidia-cuda-nvrtc-cu12")
@pytest.mark.parametrize("architecture", nvrtc.MULTIPROCESSORS)
@pytest.mark.parametrize("file", sorted(path.name for path in launch.FOLDER.glob("*.cu")))
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
