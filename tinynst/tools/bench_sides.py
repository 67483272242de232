"""A job on one side of the bench, in a worker process. Ours is here, the peers are in bench_torch.py.

A job is a dict: `what` ("train", "stylize", "conv forward" or "conv backward"), `size` in pixels, `batch`,
`device`, and the net's `width` or a convolution's `inputs` and `outputs`. With `layers`, each layer is timed.
"""

import math
import multiprocessing
import os
import re
import signal
import statistics
import threading
import time
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from .. import device, losses, ops
from ..data import images
from ..data.styles import layer_weights
from ..layers import Layer
from ..networks import VGG16, style_net
from ..ops.fast.parallel import threads
from ..optim import Adam
from ..samples import PHOTOS, STYLES
from ..training.style import StyleSettings, StyleTask

DEFAULTS = StyleSettings()
CONTENT = layer_weights(DEFAULTS.content_layers, DEFAULTS.content_weights, "content")
STYLE = layer_weights(DEFAULTS.style_layers, DEFAULTS.style_weights, "style")
AT_LEAST = 0.5  # seconds of calls in each round, so that a short call is not timed alone


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
    shapes = (n, s, s, c), (3, 3, c, o), (n, s, s, o)
    x, w, dy = (rng.standard_normal(shape, np.float32) for shape in shapes)
    return x, w / np.float32(3 * c**0.5), dy


class Side:
    """The base of all sides. A subclass has `prepare(job)`, which makes everything that is not timed and
    returns `once`: () -> results in our layout, the job done once."""

    flops = 0  # of one call, as far as the side counts them

    def start(self, job):
        """Prepare the job and run it twice. Returns (results, FLOPs of one call): the arrays of both calls
        for training, because the second depends on the gradients."""
        self.once = self.parts = None  # frees the memory of the previous job
        self.once = self.prepare(job)
        first, second = ([self.to_numpy(result) for result in self.once()] for _ in range(2))
        return (first + second if job["what"] == "train" else second), self.flops

    def time(self):
        """Seconds of one call, the median of some; with `layers`, of one call, and its `parts`."""
        times = []
        while not times or (sum(times) < AT_LEAST and self.parts is None):
            if self.parts:
                self.parts.clear()
            self.wait()
            begin = time.perf_counter()
            self.once()
            self.wait()
            times.append(time.perf_counter() - begin)
        return statistics.median(times), self.parts

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
    """`parts` is {name: {"kernel": "9x9 3 -> 32", "output": (H, W), "seconds" and "flops": [forward,
    backward]}}, filled by the parts of a job that are watched."""

    def start(self, job):
        self.watched = []  # (object, name of its method, the method)
        results, _ = super().start(job)
        if self.parts is not None:
            self.flops = sum(sum(part["flops"]) for part in self.parts.values()) // 2  # of two calls
        if not job.get("layers"):
            for holder, method, function in self.watched:
                setattr(holder, method, function)
            self.parts = None
        return results, self.flops

    def prepare(self, job):
        xp = self.xp = device.select(job["device"])
        if job["what"] == "train":
            return self.training(job)
        if job["what"] == "stylize":
            net, x = style_net(width=job["width"], xp=xp), xp.asarray(photos(job))
            self.watch_layers(net.layers)
            return lambda: [net.forward(x)]
        x, w, dy = map(xp.asarray, conv_inputs(job))
        self.flops = 2 * dy.size * 9 * job["inputs"] * (2 if job["what"] == "conv backward" else 1)
        if job["what"] == "conv forward":
            memo = {}  # as in VGG, whose kernels are constant
            return lambda: [ops.conv2d(x, w, pad=1, memo=memo)[0]]
        _, cache = ops.conv2d(x, w, pad=1)
        return lambda: list(ops.conv2d_backward(dy, cache)[:2])

    def training(self, job):
        task, batch = Task(job["width"], self.xp), (0, photos(job))
        adam = Adam(task.net.parameters(), DEFAULTS.lr)
        self.watch_layers(task.net.layers)
        self.watch_layers(task.vgg.layers, "vgg ")
        if job.get("layers"):
            for loss, name in (
                ("feature", "content loss"),
                ("style", "style losses"),
                ("tv", "total variation"),
            ):
                self.watch(losses, f"{loss}_loss", name)
            self.watch(adam, "step", "Adam")

        def once():
            terms = task.step(batch)
            adam.step(task.net.gradients())
            return list(terms.values())

        return once

    def watch_layers(self, layers, prefix=""):
        for name, layer in layers.leaves().items():
            self.watch(layer, "forward", prefix + name)
            self.watch(layer, "backward", prefix + name, way=1)

    def watch(self, holder, method, name, way=0):
        """Let a function of `holder` record its time, and a convolution its FLOPs: two for a multiply-add of
        the direct convolution, whichever algorithm runs."""
        function, self.parts = getattr(holder, method), self.parts or {}
        self.watched.append((holder, method, function))

        def call(*arguments, **options):
            self.wait()
            begin = time.perf_counter()
            result = function(*arguments, **options)
            self.wait()
            part = {"kernel": "", "output": (), "seconds": [0.0, 0.0], "flops": [0, 0], "each": 0}
            part = self.parts.setdefault(name, part)
            part["seconds"][way] += time.perf_counter() - begin
            w = holder.parameters().get("w") if isinstance(holder, Layer) else None
            if w is not None and way == 0:
                x, y = arguments[0].shape, result.shape
                part["kernel"], part["output"] = f"{w.shape[0]}x{w.shape[1]} {x[3]} -> {y[3]}", y[1:3]
                # each pixel of y, or if transposed of x, takes part in one product with the whole kernel
                part["each"] = 2 * w.size * min(math.prod(x[:3]), math.prod(y[:3]))
            times = (result is not None) + bool(way and w is not None and holder.gradients())
            part["flops"][way] += times * part["each"]
            return result

        setattr(holder, method, call)

    def wait(self):
        device.synchronize(self.xp)

    def peak_memory(self):
        cpu = self.xp is np
        return super().peak_memory() if cpu else self.xp.get_default_memory_pool().total_bytes()


def _end_with_parent():
    multiprocessing.parent_process().join()
    os._exit(1)  # the bench was killed


def begin(name):
    """Make the side of this name in a worker process."""
    global _side
    threading.Thread(target=_end_with_parent, daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the bench, which ends this process
    threadpool_limits(threads(), "blas")
    if name == "ours":
        _side = Ours()
    else:
        from . import bench_torch  # here, because only the peers need PyTorch

        _side = bench_torch.side(name)


def ask(method, *arguments):
    """Call a method of the worker's side."""
    return getattr(_side, method)(*arguments)
