"""The sides that `bench` measures, each in its own process: ours, and the same network in PyTorch and
onnxruntime."""

import io
import json
import os
import signal
import statistics
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from threadpoolctl import threadpool_info

from .. import __version__, device, losses, ops
from ..data import images
from ..errors import DeviceError, UserError
from ..layers import Sequential
from ..networks import VGG16, style_net
from ..networks.transform import PAD
from ..networks.vgg import LAYERS, MEAN_RGB, STYLE_LAYERS
from ..optim import Adam
from ..samples import PHOTOS, STYLES
from ..training.style import StyleTask

# tinynst.train's defaults: content and style layers with their weights, total variation, longer side of the
# painting
CONTENT, STYLE, TV, STYLE_SIZE, LR = {"relu3_3": 1.0}, dict.fromkeys(STYLE_LAYERS, 5.0), 1e-6, 256, 1e-3
AT_LEAST = 0.5  # seconds of calls a round, so that a short call is not timed alone


def leaves(layers, prefix=""):
    """{name: layer} of a Sequential with nested Sequentials flattened, in forward order."""
    found = {}
    for name, layer in layers.layers.items():
        inner = isinstance(layer, Sequential)
        found.update(leaves(layer, f"{prefix}{name}.") if inner else {f"{prefix}{name}": layer})
    return found


class Work(NamedTuple):
    """A job that is ready to run on one side."""

    run: Any  # () -> results, in our layout: arrays or tensors
    fetch: Any  # one result -> NumPy
    wait: Any  # () -> None, when the device has done all
    versions: dict
    memory: Any = None  # () -> peak bytes of a GPU
    layers: Any = None  # {name: [seconds forward, seconds backward]} of the last run, with --layers


def _photos(job):
    """(batch, size, size, 3) float32 of photos that ship."""
    paths, size = images.find([PHOTOS]), job["size"]
    return np.stack([images.load(paths[k % len(paths)], size)[:size, :size] for k in range(job["batch"])])


def _painting():
    return images.load(STYLES / "starry_night.jpg", STYLE_SIZE, side="long")[None]


def _conv_inputs(job):
    """x (N, S, S, C), w (3, 3, C, O) and dy (N, S, S, O), float32."""
    rng = np.random.default_rng(0)
    n, s, c, o = (job[key] for key in ("batch", "size", "inputs", "outputs"))
    w = rng.standard_normal((3, 3, c, o), np.float32) / np.float32(3 * c**0.5)
    return rng.standard_normal((n, s, s, c), np.float32), w, rng.standard_normal((n, s, s, o), np.float32)


class _Task(StyleTask):
    """What tinynst.train calls at every iteration, without its folder of photos."""

    def __init__(self, width, xp):
        self.xp, self.net, self.vgg = xp, style_net(width=width, xp=xp), VGG16.load(xp=xp)
        self.objectives = {0: losses.StyleObjective(self.vgg, xp.asarray(_painting()), CONTENT, STYLE, TV)}


def _ours(job):
    xp = device.select(job["device"])
    blas = [part for part in threadpool_info() if part["user_api"] == "blas"]
    keys = ("internal_api", "version", "architecture", "threading_layer", "num_threads")
    versions = {
        "tinynst": __version__,
        "numpy": np.__version__,
        "blas": [{k: part.get(k) for k in keys} for part in blas],
    }
    memory = layers = None
    if xp is not np:
        versions |= {"cupy": xp.__version__, "gpu": xp.cuda.runtime.getDeviceProperties(0)["name"].decode()}
        memory = xp.get_default_memory_pool().total_bytes
    if job["what"] == "train":
        task, photos = _Task(job["width"], xp), _photos(job)
        adam = Adam(task.net.parameters(), LR)
        layers = _timed_layers(task, adam, xp) if job.get("layers") else None

        def step():
            terms = task.step((0, photos))
            adam.step(task.net.gradients())
            return list(terms.values())
    elif job["what"] == "stylize":
        net, photos = style_net(width=job["width"], xp=xp), xp.asarray(_photos(job))

        def step():
            return [net.forward(photos)]
    else:
        x, w, dy = map(xp.asarray, _conv_inputs(job))
        memo = {}  # as in VGG, whose kernels never change
        _, cache = ops.conv2d(x, w, pad=1)

        def step():
            if job["what"] == "conv forward":
                return [ops.conv2d(x, w, pad=1, memo=memo)[0]]
            return list(ops.conv2d_backward(dy, cache)[:2])

    return Work(step, device.to_numpy, lambda: device.synchronize(xp), versions, memory, layers)


def _timed_layers(task, adam, xp):
    """Put a clock around every layer of a training step, in this process; returns the seconds, which each
    step adds to."""
    seconds = {}

    def timed(function, name, way=0):
        def call(*arguments, **options):
            device.synchronize(xp)
            begin = time.perf_counter()
            result = function(*arguments, **options)
            device.synchronize(xp)
            seconds.setdefault(name, [0.0, 0.0])[way] += time.perf_counter() - begin
            return result

        return call

    layers = leaves(task.net.layers)
    layers |= leaves(task.vgg.layers, "vgg ")
    for name, layer in layers.items():
        layer.forward, layer.backward = timed(layer.forward, name), timed(layer.backward, name, 1)
    losses.feature_loss = timed(losses.feature_loss, "content loss")
    losses.style_loss = timed(losses.style_loss, "style losses")
    losses.tv_loss = timed(losses.tv_loss, "total variation")
    adam.step = timed(adam.step, "Adam")
    return seconds


def _torch(job):
    """The same network as a PyTorch user writes it, with our weights, in PyTorch's layout."""
    import torch

    F = torch.nn.functional
    torch.set_num_threads(job["threads"])
    torch.backends.cudnn.benchmark = True  # recommended by the manual for fixed sizes
    cuda = job["device"] == "cuda"
    if cuda and not torch.cuda.is_available():
        raise UserError(
            "--peer torch --device cuda: this PyTorch finds no GPU; install one built for CUDA (pytorch.org)"
        )
    order = torch.channels_last if job["side"] == "torch channels-last" else torch.contiguous_format

    def tensor(array, *axes):
        moved = torch.from_numpy(np.ascontiguousarray(array))
        moved = moved.permute(axes).contiguous(memory_format=order) if axes else moved
        return moved.to(job["device"])

    def image(array):
        return tensor(array, 0, 3, 1, 2)

    def weight(array):
        return tensor(array, 3, 2, 0, 1) if array.ndim == 4 else tensor(array)

    mean = torch.tensor(MEAN_RGB, device=job["device"]).view(1, 3, 1, 1)
    if job["what"] == "train":
        step = _torch_step(torch, job, image, weight, mean)
    elif job["what"] == "stylize":
        p = {name: weight(array) for name, array in style_net(width=job["width"]).parameters().items()}
        photos = image(_photos(job))

        @torch.inference_mode()
        def step():
            return [_torch_net(F, p, photos, mean).permute(0, 2, 3, 1)]
    else:
        x, w, dy = _conv_inputs(job)
        x, w, dy = image(x), weight(w), image(dy)
        if job["what"] == "conv forward":

            @torch.inference_mode()
            def step():
                return [F.conv2d(x, w, padding=1).permute(0, 2, 3, 1)]
        else:
            y = F.conv2d(x.requires_grad_(), w.requires_grad_(), padding=1)

            def step():
                dx, dw = torch.autograd.grad(y, (x, w), dy, retain_graph=True)
                return [dx.permute(0, 2, 3, 1), dw.permute(2, 3, 1, 0)]

    return Work(
        step,
        lambda result: torch.as_tensor(result).cpu().numpy(),
        torch.cuda.synchronize if cuda else lambda: None,
        {"torch": torch.__version__},
        torch.cuda.max_memory_reserved if cuda else None,
    )


def _torch_step(torch, job, image, weight, mean):
    F = torch.nn.functional
    p = {
        name: weight(array).requires_grad_()
        for name, array in style_net(width=job["width"]).parameters().items()
    }
    fixed = {name: (weight(w), weight(b)) for name, (w, b) in VGG16.load().weights.items()}
    photos, adam = image(_photos(job)), torch.optim.Adam(p.values(), LR)
    with torch.no_grad():
        grams = {
            name: _torch_gram(f)
            for name, f in _torch_vgg(F, fixed, image(_painting()) - mean, max(STYLE)).items()
        }

    def step():
        with torch.no_grad():
            targets = _torch_vgg(F, fixed, photos - mean, max(CONTENT))
        y = _torch_net(F, p, photos, mean)
        f = _torch_vgg(F, fixed, y - mean, max(STYLE))
        content = sum(weight * F.mse_loss(f[name], targets[name]) for name, weight in CONTENT.items())
        style = sum(
            weight * F.mse_loss(_torch_gram(f[name]), grams[name].expand(len(y), -1, -1))
            for name, weight in STYLE.items()
        )
        down, across = y[:, :, 1:] - y[:, :, :-1], y[:, :, :, 1:] - y[:, :, :, :-1]
        tv = TV * 0.5 * ((down**2).sum() + (across**2).sum()) / len(y)
        total = content + style + tv
        adam.zero_grad()
        total.backward()
        adam.step()
        return [term.item() for term in (content, style, tv, total)]

    return step


def _torch_net(F, p, photos, mean):
    def norm(x, name, relu=True):
        x = F.instance_norm(x, weight=p[f"{name}.gamma"], bias=p[f"{name}.beta"])
        return F.relu(x, inplace=True) if relu else x

    x = F.pad(photos - mean, (PAD,) * 4, mode="reflect")
    x = norm(F.conv2d(x, p["conv1.w"], padding=4), "conv1_norm")
    for name in ("conv2", "conv3"):
        x = norm(F.conv2d(x, p[f"{name}.w"], stride=2, padding=1), f"{name}_norm")
    for k in range(1, 6):
        y = norm(F.conv2d(x, p[f"residual{k}.conv1.w"]), f"residual{k}.norm1")
        x = (
            norm(F.conv2d(y, p[f"residual{k}.conv2.w"]), f"residual{k}.norm2", relu=False)
            + x[:, :, 2:-2, 2:-2]
        )
    for name in ("up1", "up2"):
        x = norm(F.conv_transpose2d(x, p[f"{name}.w"], stride=2, padding=1, output_padding=1), f"{name}_norm")
    x = F.conv2d(x, p["out.w"], p["out.b"], padding=4)
    return (150 * x.tanh() + mean)[:, :, : photos.shape[2], : photos.shape[3]]


def _torch_vgg(F, fixed, x, last):
    features = {}
    for name in LAYERS[: LAYERS.index(last) + 1]:
        if name.endswith("_1") and name != "relu1_1":
            x = F.max_pool2d(x, 2)
        features[name] = x = F.relu(F.conv2d(x, *fixed[f"conv{name[4:]}"], padding=1), inplace=True)
    return {name: features[name] for name in {*CONTENT, *STYLE} & features.keys()}


def _torch_gram(f):
    n, c, h, w = f.shape
    f = f.reshape(n, c, h * w)
    return f @ f.transpose(1, 2) / (c * h * w)


def _onnxruntime(job):
    """The style net in onnxruntime, exported from the PyTorch net."""
    import onnx
    import onnxruntime
    import torch

    class Net(torch.nn.Module):
        def forward(self, photos):
            return _torch_net(torch.nn.functional, weights, photos, mean)

    weights = {
        name: torch.from_numpy(
            np.ascontiguousarray(array.transpose(3, 2, 0, 1) if array.ndim == 4 else array)
        )
        for name, array in style_net(width=job["width"]).parameters().items()
    }
    mean = torch.tensor(MEAN_RGB).view(1, 3, 1, 1)
    photos, model = np.ascontiguousarray(_photos(job).transpose(0, 3, 1, 2)), io.BytesIO()
    names = {"input_names": ["photos"], "output_names": ["pictures"]}
    torch.onnx.export(Net(), (torch.from_numpy(photos),), model, opset_version=17, dynamo=False, **names)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = job["threads"], 1
    session = onnxruntime.InferenceSession(model.getvalue(), options, providers=["CPUExecutionProvider"])
    versions = {"onnxruntime": onnxruntime.__version__, "onnx": onnx.__version__, "torch": torch.__version__}

    def step():
        return [session.run(None, {"photos": photos})[0].transpose(0, 2, 3, 1)]

    return Work(step, np.asarray, lambda: None, versions)


BUILD = {"ours": _ours, "torch": _torch, "torch channels-last": _torch, "onnxruntime": _onnxruntime}


def work():
    """The loop of a worker's process: orders are lines of JSON on stdin, answers go to stdout.

    {"job": {side, what, batch, size, ...}, "result": FILE}: build it, run it twice, write results -> versions
    {"go": true} -> seconds of one call, the median over AT_LEAST seconds of calls
    {"end": true} -> the peak memory, in bytes
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the parent, which ends this
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints must not be read as an answer
    current = None
    for line in sys.stdin:
        order = json.loads(line)
        try:
            if "job" in order:
                current = None  # free the old job's memory first
                current = BUILD[order["job"]["side"]](order["job"])
                _warm_up(current, order["job"], order["result"])
                answer = {"versions": current.versions}
            elif "go" in order:
                answer = _time(current)
            else:
                answer = {"peak": current.memory() if current.memory else _peak_memory()}
        except MemoryError as error:
            answer = {"error": f"not enough memory ({error}): try smaller --sizes or --batches"}
        except (UserError, DeviceError, ImportError) as error:
            answer = {"error": str(error)}
        print(json.dumps(answer), file=answers, flush=True)


def _warm_up(current, job, path):
    """Run twice and write the results: of both runs for training, where the second shows the effect of the
    gradients."""
    first, second = ([current.fetch(result) for result in current.run()] for _ in range(2))
    np.savez(path, *(first + second if job["what"] == "train" else second))


def _time(current):
    times = []
    while sum(times) < AT_LEAST:
        if current.layers is not None:
            current.layers.clear()
        current.wait()
        begin = time.perf_counter()
        current.run()
        current.wait()
        times.append(time.perf_counter() - begin)
    return {"seconds": statistics.median(times), "last": times[-1], "layers": current.layers}


def _peak_memory():
    """The most memory this process has had, in bytes. Linux's VmHWM first: ru_maxrss starts at the
    parent's."""
    status = Path("/proc/self/status")
    if status.exists():
        lines = status.read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
    import resource  # not on Windows

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS
