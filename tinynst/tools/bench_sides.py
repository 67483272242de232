"""A job on one side of the bench, in a worker process. Ours is here, the peers are in bench_torch.py.

A job is a dict: `what` ("train", "stylize", "conv forward" or "conv backward"), `size` in pixels, `batch`,
`device`, and the net's `width` or a convolution's `inputs` and `outputs`. With `layers`, each layer is timed.
"""

import re
import signal
import statistics
import time
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_info, threadpool_limits

from .. import __version__, device, losses, ops
from ..data import images
from ..data.styles import layer_weights
from ..errors import DeviceError, UserError
from ..layers import Sequential
from ..networks import VGG16, style_net
from ..ops.fast.parallel import threads
from ..optim import Adam
from ..samples import PHOTOS, STYLES
from ..training.style import StyleSettings, StyleTask

DEFAULTS = StyleSettings()
CONTENT = layer_weights(DEFAULTS.content_layers, DEFAULTS.content_weights, "content")
STYLE = layer_weights(DEFAULTS.style_layers, DEFAULTS.style_weights, "style")
AT_LEAST = 0.5  # seconds of calls in each round, so that a short call is not timed alone


def leaves(layers, prefix=""):
    """{name: layer} of a Sequential with nested Sequentials flattened, in forward order."""
    found = {}
    for name, layer in layers.layers.items():
        inner = isinstance(layer, Sequential)
        found |= leaves(layer, f"{prefix}{name}.") if inner else {f"{prefix}{name}": layer}
    return found


def photos(job):
    """(batch, size, size, 3) float32 of the photos that ship."""
    paths, size = images.find([PHOTOS]), job["size"]
    return np.stack([images.load(paths[k % len(paths)], size)[:size, :size] for k in range(job["batch"])])


def painting():
    """(1, H, W, 3) float32."""
    return images.load(STYLES / "starry_night.jpg", DEFAULTS.style_size, side="long")[None]


def conv_inputs(job):
    """x (N, S, S, C), w (3, 3, C, O) and dy (N, S, S, O), float32."""
    rng, (n, s, c, o) = np.random.default_rng(0), (job[key] for key in ("batch", "size", "inputs", "outputs"))
    x, w, dy = (
        rng.standard_normal(shape, np.float32) for shape in ((n, s, s, c), (3, 3, c, o), (n, s, s, o))
    )
    return x, w / np.float32(3 * c**0.5), dy


class Side:
    """The base of all sides. A subclass has `prepare(job)`, which makes everything that is not timed, sets
    `versions` and returns `once`: () -> results in our layout, the job done once."""

    layers = None  # {name: [seconds forward, seconds backward]} of the last call, for a job with `layers`

    def start(self, job):
        """Prepare the job and run it twice. Returns the versions and the results as arrays: of both calls for
        training, because the second depends on the gradients."""
        self.once = None  # frees the memory of the previous job
        self.once = self.prepare(job)
        first, second = ([self.to_numpy(result) for result in self.once()] for _ in range(2))
        return self.versions, first + second if job["what"] == "train" else second

    def time(self):
        """Seconds of one call, the median of some, and `layers`, for which there is only one call."""
        times = []
        while not times or (sum(times) < AT_LEAST and self.layers is None):
            if self.layers:
                self.layers.clear()
            self.wait()
            begin = time.perf_counter()
            self.once()
            self.wait()
            times.append(time.perf_counter() - begin)
        return statistics.median(times), self.layers

    def wait(self):
        """Wait until a GPU has finished."""

    def to_numpy(self, result):
        return device.to_numpy(result)

    def peak_memory(self):
        """The most memory that this process has had, in bytes."""
        status = Path("/proc/self/status")
        if status.exists():  # Linux: there ru_maxrss starts at the parent's
            return 1024 * int(re.search(r"VmHWM:\s*(\d+)", status.read_text())[1])
        import resource  # not on Windows

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS


class Task(StyleTask):
    """The training task with the default losses, but without its folder of photos."""

    def __init__(self, width, xp):
        self.xp, self.net, self.vgg = xp, style_net(width=width, xp=xp), VGG16.load(xp=xp)
        target = xp.asarray(painting())
        self.objectives = {0: losses.StyleObjective(self.vgg, target, CONTENT, STYLE, DEFAULTS.tv_weight)}


class Ours(Side):
    def prepare(self, job):
        xp = self.xp = device.select(job["device"])
        blas = [part for part in threadpool_info() if part["user_api"] == "blas"]
        self.versions = {"tinynst": __version__, "numpy": np.__version__, "blas": blas}
        if xp is not np:
            gpu = xp.cuda.runtime.getDeviceProperties(xp.cuda.runtime.getDevice())["name"].decode()
            self.versions |= {"cupy": xp.__version__, "gpu": gpu}
        if job["what"] == "train":
            return self.training(job)
        if job["what"] == "stylize":
            net, x = style_net(width=job["width"], xp=xp), xp.asarray(photos(job))
            return lambda: [net.forward(x)]
        x, w, dy = map(xp.asarray, conv_inputs(job))
        if job["what"] == "conv forward":
            memo = {}  # as in VGG, whose kernels are constant
            return lambda: [ops.conv2d(x, w, pad=1, memo=memo)[0]]
        _, cache = ops.conv2d(x, w, pad=1)
        return lambda: list(ops.conv2d_backward(dy, cache)[:2])

    def training(self, job):
        task, batch = Task(job["width"], self.xp), (0, photos(job))
        adam = Adam(task.net.parameters(), DEFAULTS.lr)
        if job.get("layers"):
            self.time_layers(task, adam)

        def once():
            terms = task.step(batch)
            adam.step(task.net.gradients())
            return list(terms.values())

        return once

    def time_layers(self, task, adam):
        """Make every part of a training step in this process add its seconds to `layers`."""
        self.layers = {}

        def timed(holder, method, name, way=0):
            function = getattr(holder, method)

            def call(*arguments, **options):
                self.wait()
                begin = time.perf_counter()
                result = function(*arguments, **options)
                self.wait()
                self.layers.setdefault(name, [0.0, 0.0])[way] += time.perf_counter() - begin
                return result

            setattr(holder, method, call)

        for name, layer in (leaves(task.net.layers) | leaves(task.vgg.layers, "vgg ")).items():
            timed(layer, "forward", name)
            timed(layer, "backward", name, way=1)
        for loss, name in (("feature", "content loss"), ("style", "style losses"), ("tv", "total variation")):
            timed(losses, f"{loss}_loss", name)
        timed(adam, "step", "Adam")

    def wait(self):
        device.synchronize(self.xp)

    def peak_memory(self):
        cpu = self.xp is np
        return super().peak_memory() if cpu else self.xp.get_default_memory_pool().total_bytes()


def work(pipe, name):
    """The loop of a worker process: receive (method, arguments) and send the result of that method of the
    side, or a UserError."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the parent, which ends this process
    threadpool_limits(threads(), "blas")
    side = Ours()
    if name != "ours":
        from . import bench_torch as peers  # here, because only the peers need PyTorch

        channels_last = peers.Torch(peers.torch.channels_last)
        known = {
            "torch": peers.Torch(),
            "torch channels-last": channels_last,
            "onnxruntime": peers.OnnxRuntime(),
        }
        side = known[name]
    while True:
        method, arguments = pipe.recv()
        try:
            pipe.send(getattr(side, method)(*arguments))
        except MemoryError as error:
            pipe.send(UserError(f"not enough memory ({error}): try smaller --sizes or --batches"))
        except (UserError, DeviceError) as error:
            pipe.send(UserError(str(error)))
