"""How fast is it? Times, memory and GFLOP/s of a training step and of stylising, alone or against a framework (a peer).

Each side lives in a process of its own, is warmed up, and then they take turns (A B A B ...), so that whatever else the
machine does falls on both alike. A ratio is only reported where both computed the same numbers.

The GFLOPs are those of direct convolution, two for each multiply-add, whatever way a layer is computed. Winograd's way does
with a quarter of the products, so it can pass the machine's peak.
"""

import contextlib
import importlib.util
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter
from threadpoolctl import threadpool_info

from . import __version__, device, images, losses, ops
from .cli import Parser, UserError, given, run
from .device import DeviceError
from .files import written_whole
from .layers import Conv, ConvTranspose, ReflectPad, Sequential
from .networks import VGG16, style_net, vgg
from .networks.transform import PAD
from .networks.vgg import LAYERS, MEAN_RGB, STYLE_LAYERS
from .optim import Adam
from .parallel import threads
from .samples import PHOTOS, STYLES
from .train import StyleTask

# tinynst.train's defaults: content and style layers with their weights, total variation, longer side of the painting
CONTENT, STYLE, TV, STYLE_SIZE, LR = {"relu3_3": 1.0}, dict.fromkeys(STYLE_LAYERS, 5.0), 1e-6, 256, 1e-3
VGG_CHANNELS = (64, 128, 256, 512, 512)
VGG_CONVS = ((3, 64, 1), (64, 64, 1), (64, 128, 2), (128, 128, 2), (128, 256, 4), (256, 256, 4), (256, 512, 8), (512, 512, 8))
VGG_CONVS += ((512, 512, 16),)  # channels in and out, and by how much the image has been shrunk
PEERS = {"torch": ("torch",), "onnxruntime": ("onnx", "onnxruntime")}  # what each needs installed
SIDES = {None: ["ours"], "torch": ["ours", "torch", "torch channels-last"], "onnxruntime": ["ours", "onnxruntime"]}
PAUSE = 0.2  # seconds for the side that has just worked to put its threads to sleep
AT_LEAST = 0.1  # seconds of calls a round, so that a short call is not timed alone
SAME = 1e-2  # the relative difference up to which two sides count as computing the same


# --- counting ---------------------------------------------------------------------------------------------------------


def leaves(layers, prefix=""):
    """{name: layer} of a Sequential without the Sequentials inside it, in the order of the forward pass."""
    found = {}
    for name, layer in layers.layers.items():
        inner = isinstance(layer, Sequential)
        found.update(leaves(layer, f"{prefix}{name}.") if inner else {f"{prefix}{name}": layer})
    return found


def style_net_flops(net, height, width):
    """{layer: (kernel "9x9 3 -> 32", output (H, W), FLOPs of its forward pass)} of every convolution of a style net made with
    upsample="transpose", for one image of height x width pixels."""
    counts = {}
    for name, layer in leaves(net.layers).items():
        if isinstance(layer, ReflectPad):
            height, width = height + 2 * PAD, width + 2 * PAD
        elif isinstance(layer, Conv):
            kh, kw, c, o = layer.parameters()["w"].shape
            height, width = ((side + 2 * layer.pad - kh) // layer.stride + 1 for side in (height, width))
            counts[name] = f"{kh}x{kw} {c} -> {o}", (height, width), 2 * height * width * kh * kw * c * o
        elif isinstance(layer, ConvTranspose):  # each pixel that comes in meets the whole kernel
            kh, kw, o, c = layer.parameters()["w"].shape
            counts[name] = f"{kh}x{kw} {c} -> {o}", (2 * height, 2 * width), 2 * height * width * kh * kw * c * o
            height, width = 2 * height, 2 * width
    return counts


def vgg_flops(height, width, last):
    """The same for VGG-16 up to the layer `last` ("relu4_3"); names are "vgg conv1_1" and so on."""
    counts, c = {}, 3
    for name in LAYERS[: LAYERS.index(last) + 1]:
        block, k = map(int, name[4:].split("_"))
        if k == 1 and block > 1:
            height, width = height // 2, width // 2
        o = VGG_CHANNELS[block - 1]
        counts[f"vgg conv{block}_{k}"] = f"3x3 {c} -> {o}", (height, width), 2 * height * width * 9 * c * o
        c = o
    return counts


def step_flops(width, size):
    """{layer: [kernel, output (H, W), forward FLOPs, backward FLOPs]} of the convolutions of a training step, one photo.

    Backward, the net's layers need two gradients (the first only its kernel's), VGG's only the one by their input; VGG looks
    at the photo, too, up to where contents are compared."""
    net = style_net_flops(style_net(width=width), size, size)
    rows = {name: [kernel, out, flops, 2 * flops] for name, (kernel, out, flops) in net.items()}
    rows["conv1"][3] //= 2
    seen = vgg_flops(size, size, max(CONTENT))
    for name, (kernel, out, flops) in vgg_flops(size, size, max(STYLE)).items():
        rows[name] = [kernel, out, flops * (2 if name in seen else 1), flops]
    return rows


def job_flops(job):
    """FLOPs of one call of a job (see `work`)."""
    what, batch, size = job["what"], job["batch"], job["size"]
    if what == "train":
        return batch * sum(forward + backward for _, _, forward, backward in step_flops(job["width"], size).values())
    if what == "stylize":
        return batch * sum(flops for _, _, flops in style_net_flops(style_net(width=job["width"]), size, size).values())
    return batch * 2 * size * size * 9 * job["inputs"] * job["outputs"] * (2 if what == "conv backward" else 1)


# --- the sides --------------------------------------------------------------------------------------------------------


class Work(NamedTuple):
    """A job that is ready to run on one side."""

    run: Any  # () -> results, in our layout: arrays or tensors
    fetch: Any  # one result -> NumPy
    wait: Any  # () -> None, when the device has done all
    versions: dict
    memory: Any = None  # () -> peak bytes of a GPU
    layers: Any = None  # {name: [seconds forward, seconds backward]} of the last run, where they are asked for


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
        self.xp, self.net = xp, style_net(width=width, xp=xp)
        self.objective = losses.StyleObjective(VGG16.load(xp=xp), xp.asarray(_painting()), CONTENT, STYLE, TV)


def _ours(job):
    xp = device.select(job["device"])
    blas = [part for part in threadpool_info() if part["user_api"] == "blas"]
    keys = ("internal_api", "version", "architecture", "threading_layer", "num_threads")
    versions = {"tinynst": __version__, "numpy": np.__version__, "blas": [{k: part.get(k) for k in keys} for part in blas]}
    memory = layers = None
    if xp is not np:
        versions |= {"cupy": xp.__version__, "gpu": xp.cuda.runtime.getDeviceProperties(0)["name"].decode()}
        memory = xp.get_default_memory_pool().total_bytes
    if job["what"] == "train":
        task, photos = _Task(job["width"], xp), _photos(job)
        adam = Adam(task.net.parameters(), LR)
        layers = _timed_layers(task, adam, xp) if job.get("layers") else None

        def step():
            terms = task.step(photos)
            adam.step(task.net.gradients())
            return list(terms.values())
    elif job["what"] == "stylize":
        net, photos = style_net(width=job["width"], xp=xp), xp.asarray(_photos(job))

        def step():
            return [net.forward(photos)]
    else:
        x, w, dy = map(xp.asarray, _conv_inputs(job))
        memo = {}  # as VGG does it, whose kernels never change
        _, cache = ops.conv2d(x, w, pad=1)

        def step():
            forward = job["what"] == "conv forward"
            return [ops.conv2d(x, w, pad=1, memo=memo)[0]] if forward else list(ops.conv2d_backward(dy, cache)[:2])

    return Work(step, device.to_numpy, lambda: device.synchronize(xp), versions, memory, layers)


def _timed_layers(task, adam, xp):
    """Put a clock around every layer of a training step, in this process; returns the seconds, which each step adds to."""
    seconds = {}

    def timed(function, name, way=0):
        def call(*arguments, **options):
            device.synchronize(xp)
            begin = time.perf_counter()
            result = function(*arguments, **options)
            device.synchronize(xp)
            label = name if isinstance(name, str) else name(*arguments)
            seconds.setdefault(label, [0.0, 0.0])[way] += time.perf_counter() - begin
            return result

        return call

    for name, layer in leaves(task.net.layers).items():
        layer.forward, layer.backward = timed(layer.forward, name), timed(layer.backward, name, 1)
    conv_of = {id(w): f"vgg {name}" for name, (w, _) in task.objective.vgg.weights.items()}  # VGG calls operations, not layers
    vgg.ops = SimpleNamespace(
        conv2d=timed(ops.conv2d, lambda x, w, *_: conv_of[id(w)]),
        conv2d_backward=timed(ops.conv2d_backward, lambda dy, cache: conv_of[id(cache[1])], 1),
        max_pool2d=timed(ops.max_pool2d, "vgg pools"),
        max_pool2d_backward=timed(ops.max_pool2d_backward, "vgg pools", 1),
    )
    losses.feature_loss = timed(losses.feature_loss, "content loss")
    losses.style_loss = timed(losses.style_loss, "style losses")
    losses.tv_loss = timed(losses.tv_loss, "total variation")
    adam.step = timed(adam.step, "Adam")
    return seconds


def _torch(job):
    """The same mathematics as a PyTorch user writes it, with our weights: kernels and images turned to PyTorch's layout."""
    import torch

    F = torch.nn.functional
    torch.set_num_threads(job["threads"])
    torch.backends.cudnn.benchmark = True  # what the manual advises where sizes stay the same
    cuda = job["device"] == "cuda"
    if cuda and not torch.cuda.is_available():
        raise UserError("--peer torch --device cuda: this PyTorch finds no GPU; install one built for CUDA (pytorch.org)")
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
    p = {name: weight(array).requires_grad_() for name, array in style_net(width=job["width"]).parameters().items()}
    fixed = {name: (weight(w), weight(b)) for name, (w, b) in VGG16.load().weights.items()}
    photos, adam = image(_photos(job)), torch.optim.Adam(p.values(), LR)
    with torch.no_grad():
        grams = {name: _torch_gram(f) for name, f in _torch_vgg(F, fixed, image(_painting()) - mean, max(STYLE)).items()}

    def step():
        with torch.no_grad():
            targets = _torch_vgg(F, fixed, photos - mean, max(CONTENT))
        y = _torch_net(F, p, photos, mean)
        f = _torch_vgg(F, fixed, y - mean, max(STYLE))
        content = sum(weight * F.mse_loss(f[name], targets[name]) for name, weight in CONTENT.items())
        style = sum(
            weight * F.mse_loss(_torch_gram(f[name]), grams[name].expand(len(y), -1, -1)) for name, weight in STYLE.items()
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
        x = norm(F.conv2d(y, p[f"residual{k}.conv2.w"]), f"residual{k}.norm2", relu=False) + x[:, :, 2:-2, 2:-2]
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
    import onnx
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = job["threads"], 1
    model = _onnx_model(onnx, style_net(width=job["width"]).parameters(), job["size"]).SerializeToString()
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    photos = np.ascontiguousarray(_photos(job).transpose(0, 3, 1, 2))

    def step():
        return [session.run(None, {"photos": photos})[0].transpose(0, 2, 3, 1)]

    return Work(step, np.asarray, lambda: None, {"onnxruntime": onnxruntime.__version__, "onnx": onnx.__version__})


def _onnx_model(onnx, parameters, size):
    """The style net as an ONNX graph, photos (N, 3, size, size) to pictures of the same shape, RGB in 0..255."""
    nodes, constants = [], {}
    for name, array in parameters.items():
        constants[name] = array.transpose(3, 2, 0, 1) if array.ndim == 4 else array
    constants["mean"] = np.array(MEAN_RGB, np.float32).reshape(1, 3, 1, 1)
    constants["scale"] = np.float32(150)
    constants["border"] = np.array([0, 0, PAD, PAD] * 2)
    constants |= {"hw": np.array([2, 3]), "two": np.array([2, 2]), "minus_two": np.array([-2, -2])}
    constants |= {"zero": np.array([0, 0]), "size": np.array([size, size])}

    def add(kind, *inputs, **attributes):
        nodes.append(onnx.helper.make_node(kind, inputs, [f"x{len(nodes)}"], **attributes))
        return nodes[-1].output[0]

    def norm(x, name, relu=True):
        x = add("InstanceNormalization", x, f"{name}.gamma", f"{name}.beta", epsilon=1e-5)
        return add("Relu", x) if relu else x

    x = add("Pad", add("Sub", "photos", "mean"), "border", mode="reflect")
    x = norm(add("Conv", x, "conv1.w", pads=[4] * 4), "conv1_norm")
    for name in ("conv2", "conv3"):
        x = norm(add("Conv", x, f"{name}.w", strides=[2, 2], pads=[1] * 4), f"{name}_norm")
    for k in range(1, 6):
        y = norm(add("Conv", x, f"residual{k}.conv1.w"), f"residual{k}.norm1")
        y = norm(add("Conv", y, f"residual{k}.conv2.w"), f"residual{k}.norm2", relu=False)
        x = add("Add", y, add("Slice", x, "two", "minus_two", "hw"))
    for name in ("up1", "up2"):
        double = {"strides": [2, 2], "pads": [1] * 4, "output_padding": [1, 1]}
        x = norm(add("ConvTranspose", x, f"{name}.w", **double), f"{name}_norm")
    x = add("Tanh", add("Conv", x, "out.w", "out.b", pads=[4] * 4))
    x = add("Slice", add("Add", add("Mul", x, "scale"), "mean"), "zero", "size", "hw")

    tensors = [onnx.numpy_helper.from_array(np.ascontiguousarray(array), name) for name, array in constants.items()]
    ends = [onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, [None, 3, size, size]) for n in ("photos", x)]
    graph = onnx.helper.make_graph(nodes, "style_net", ends[:1], ends[1:], tensors)
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)


BUILD = {"ours": _ours, "torch": _torch, "torch channels-last": _torch, "onnxruntime": _onnxruntime}


# --- one process a side -----------------------------------------------------------------------------------------------


def work():
    """What a worker's process does: orders come as lines of JSON on standard input, answers go out on standard output.

    {"job": {side, what, batch, size, ...}, "result": FILE}    make it ready, run it twice, write what came out: versions
    {"go": true}                                               the seconds of a call: the median of AT_LEAST seconds of calls
    {"end": true}                                              the peak of memory, in bytes
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, whose end is ours: nothing more to read
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # a library that prints must not answer for us
    current = None
    for line in sys.stdin:
        order = json.loads(line)
        try:
            if "job" in order:
                current = None  # the old job's memory first
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
    """Run twice and write the results: of both runs where a step changes the weights, so that the gradients show."""
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
    """The most memory this process has had, in bytes. Linux's own count goes first: the other one starts at the parent's."""
    status = Path("/proc/self/status")
    if status.exists():
        return next(int(line.split()[1]) * 1024 for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    import resource  # not on Windows

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS


class Worker:
    """A process for one side; `ask` sends an order and waits for the answer (see `work`). A context manager."""

    def __init__(self, side):
        self.side, count = side, str(threads())
        env = os.environ | dict.fromkeys(("TINYNST_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), count)
        command = [sys.executable, "-c", "from tinynst.bench import work; work()"]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env)

    def ask(self, **order):
        """Raises UserError for what went wrong there, and where the process ended."""
        try:
            print(json.dumps(order), file=self.process.stdin, flush=True)
            answer = json.loads(self.process.stdout.readline() or "{}")
        except BrokenPipeError:
            answer = {}
        if not answer:
            status = self.process.wait()
            why = "probably for want of memory: try smaller --sizes or --batches" if status == -9 else "see above"
            raise UserError(f"the process of {self.side} ended with status {status}, {why}")
        if "error" in answer:
            raise UserError(f"{self.side}: {answer['error']}")
        return answer

    def __enter__(self):
        return self

    def __exit__(self, *error):
        if error[0] is not None:
            self.process.kill()
        self.process.communicate()


# --- measuring --------------------------------------------------------------------------------------------------------


def measure(workers, job, rounds):
    """Time a job on every side in turn: {what, size, batch, ..., times {side: [seconds]}, gflops {side}, versions}.

    With peers also `difference` {side: the largest relative one between its results and ours}; `peer`, the fastest of those
    whose results are ours (PyTorch 2.13's are not for one channels-last image: its instance norm's gradient is wrong there);
    and `ratio`, [median, least, most] over the rounds of its time by ours, None where no peer's results are ours.
    """
    times, versions, differences = {side: [] for side in workers}, {}, {}
    with tempfile.TemporaryDirectory() as folder:
        for k, (side, worker) in enumerate(workers.items()):
            path = Path(folder, f"{k}.npz")
            versions |= worker.ask(job={**job, "side": side, "threads": threads()}, result=str(path))["versions"]
            with np.load(path) as file:
                results = list(file.values())
            path.unlink()
            if side == "ours":
                wanted = results
            else:
                differences[side] = difference(wanted, results)
    for _ in range(rounds):
        for side, worker in workers.items():
            time.sleep(PAUSE)
            times[side].append(worker.ask(go=True)["seconds"])
    row = {**job, "flops": job_flops(job), "times": times, "versions": versions}
    row["gflops"] = {side: row["flops"] / statistics.median(t) / 1e9 for side, t in times.items()}
    if differences:
        same = [side for side in differences if differences[side] <= SAME]
        peer = min(same or differences, key=lambda side: statistics.median(times[side]))
        ratios = [a / b for a, b in zip(times[peer], times["ours"], strict=True)]
        row |= {"peer": peer, "difference": differences}
        row["ratio"] = [statistics.median(ratios), min(ratios), max(ratios)] if same else None
    return row


def difference(ours, theirs):
    """The largest difference of two lists of arrays, each relative to the largest number in its array; NaN where one is."""
    return float(np.max([abs(a - b).max() / max(abs(b).max(), 1e-30) for a, b in zip(ours, theirs, strict=True)]))


@contextlib.contextmanager
def started(sides):
    """{side: Worker}, ended with the block."""
    with contextlib.ExitStack() as stack:
        yield {side: stack.enter_context(Worker(side)) for side in sides}


def measure_alone(sides, job, rounds):
    """`measure` in new processes, so that the peak of memory is this job's: adds memory {side: bytes}."""
    with started(sides) as workers:
        row = measure(workers, job, rounds)
        return row | {"memory": {side: worker.ask(end=True)["peak"] for side, worker in workers.items()}}


def measure_layers(job, rounds):
    """{..., "seconds": a whole step, "layers": [{name, kernel, output, and seconds and flops, each [forward, backward]}]}:
    medians over the rounds of a training step of ours with a clock around each layer. What has no kernel has no flops."""
    with started(["ours"]) as workers, tempfile.TemporaryDirectory() as folder:
        order = {**job, "side": "ours", "threads": threads(), "layers": True}
        versions = workers["ours"].ask(job=order, result=str(Path(folder, "ours.npz")))["versions"]
        rounds = [workers["ours"].ask(go=True) for _ in range(rounds)]
    convs, layers = step_flops(job["width"], job["size"]), []
    for name in rounds[0]["layers"]:
        kernel, output, *flops = convs.get(name, ("", (), 0, 0))
        seconds = [statistics.median(each["layers"][name][way] for each in rounds) for way in (0, 1)]
        flops = [job["batch"] * f for f in flops]
        layers.append({"name": name, "kernel": kernel, "output": output, "seconds": seconds, "flops": flops})
    return {**job, "versions": versions, "seconds": statistics.median(each["last"] for each in rounds), "layers": layers}


# --- showing ----------------------------------------------------------------------------------------------------------

NOTE = "GFLOP/s: multiply-adds of direct convolution, times 2. Winograd needs a quarter, so it can pass the machine's peak."


def _show_head(sides, memory):
    names = ["ours", *(["peer"] if len(sides) > 1 else [])]
    head = f"{'':22} {'size':>5} {'batch':>5}"
    for name in names:
        head += f"  {name + ' ms':>9} {'GFLOP/s':>8}" + " {:>6}".format("GB") * memory
    print(NOTE + "\n\n" + head + ("  peer's time / ours (over the rounds)" if len(sides) > 1 else ""), flush=True)


def _show(row):
    line = f"{_name(row):22} {row['size']:5} {row['batch']:5}"
    for side in ["ours", *([row["peer"]] if "peer" in row else [])]:
        line += f"  {1e3 * statistics.median(row['times'][side]):9.1f} {row['gflops'][side]:8.1f}"
        line += f" {row['memory'][side] / 1e9:6.2f}" if "memory" in row else ""
    if "peer" in row:
        line += "  {:5.2f} ({:.2f}..{:.2f})".format(*row["ratio"]) if row["ratio"] else "  no ratio"
        line += f"  {row['peer']}, differs by {row['difference'][row['peer']]:.1e}"
        for side, differs in row["difference"].items():
            if not differs <= SAME:
                line += (
                    f"\n{'':8}{side} computes something else (it differs by {differs:.1e}, more than {SAME:g}): no ratio to it"
                )
    print(line, flush=True)


def _name(row):
    return f"{row['inputs']} -> {row['outputs']} {row['what'][5:]}" if "inputs" in row else row["what"]


def _show_layers(row):
    print(f"A training step: size {row['size']}, batch {row['batch']}, {1e3 * row['seconds']:.1f} ms")
    head = f"{'forward ms':>10} {'GFLOP/s':>8}  {'backward ms':>11} {'GFLOP/s':>8}"
    print(f"{NOTE}\n\n{'':18} {'kernel':>16} {'output':>10}  {head}")
    for layer in row["layers"]:
        line = f"{layer['name']:18} {layer['kernel']:>16} {'x'.join(map(str, layer['output'])):>10}"
        for width, seconds, flops in zip((10, 11), layer["seconds"], layer["flops"], strict=True):
            line += f"  {1e3 * seconds:{width}.2f}" if seconds else f"  {'':{width}}"  # a loss has its gradient with it
            line += f" {flops / seconds / 1e9:8.1f}" if flops and seconds else f" {'':8}"
        print(line.rstrip())
    rest = row["seconds"] - sum(sum(layer["seconds"]) for layer in row["layers"])
    print(f"{'all else':18} {'':16} {'':10}  {1e3 * rest:10.2f}")


def _plot(path, rows):
    """Milliseconds against image size, a line for each batch, and against batch, a line for each size; peers are dashed."""
    figure = Figure(figsize=(11, 4.5), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    for axes, along, each in ((left, "size", "batch"), (right, "batch", "size")):
        for k, value in enumerate(sorted({row[each] for row in rows})):
            line = [row for row in rows if row[each] == value]
            sides = [("ours", [statistics.median(row["times"]["ours"]) for row in line], "-")]
            if "peer" in line[0]:
                label = line[0]["peer"].split()[0]
                sides.append((label, [statistics.median(row["times"][row["peer"]]) for row in line], "--"))
            for name, seconds, style in sides:
                x, y = [row[along] for row in line], [1e3 * s for s in seconds]
                axes.plot(x, y, style, color=f"C{k}", marker="o", markersize=3, label=f"{name}, {each} {value}")
        ticks = sorted({row[along] for row in rows})
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        for format_ticks in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
            format_ticks(LogFormatter(minor_thresholds=(2, 0.5)))  # 200, not 2 x 10^2
        axes.set_xticks(ticks, map(str, ticks))
        axes.set_xlabel("image size (pixels a side)" if along == "size" else "batch (images)")
        axes.grid(alpha=0.3)
        axes.legend(fontsize="x-small")
    left.set_ylabel("milliseconds")
    what = "Training step" if rows[0]["what"] == "train" else "Stylising"
    figure.suptitle(f"{what}, width {rows[0]['width']}, {rows[0]['device']}")
    with written_whole(path) as temporary:
        figure.savefig(temporary, dpi=120, format="png")


def _save(options, here, rows):
    """Write what there is so far: a sweep takes long, and may be stopped."""
    if options.json:
        versions = {name: value for row in rows for name, value in row["versions"].items()}
        figures = [{key: value for key, value in row.items() if key != "versions"} for row in rows]
        report = {"tinynst": __version__, "machine": here, "versions": versions, "options": vars(options), "rows": figures}
        with written_whole(options.json) as temporary:
            temporary.write_text(json.dumps(report, indent=1))
    if options.plot:
        _plot(options.plot, rows)


def machine():
    """{cpu: its model, cores, threads: those used, system, python}"""
    cpu = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), cpu)
    system = f"{platform.system()} {platform.release()}"
    return {"cpu": cpu, "cores": os.cpu_count(), "threads": threads(), "system": system, "python": platform.python_version()}


# --- the command ------------------------------------------------------------------------------------------------------

UNUSED = {  # what has no meaning beside another option, so that nothing is passed over in silence
    "times": ("plot",),
    "layers": ("plot", "peer", "work"),
    "convs": ("plot", "width", "work"),
    "sweep": (),
}


def _parser():
    parser = Parser(
        prog="tinynst bench",
        description="Measure speed and memory: of a training step and of stylising, or of what one of --layers, --convs, "
        "--sweep asks for.",
        epilog="On an idle machine, please. TINYNST_THREADS sets the number of threads of both sides.",
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--layers", action="store_true", help="a training step of ours, layer by layer")
    which.add_argument("--convs", action="store_true", help="VGG's 3x3 convolutions one by one, forward and backward")
    which.add_argument("--sweep", action="store_true", help="every size with every batch; --plot draws it")
    add = parser.add_argument
    add("--work", choices=("train", "stylize"), help="only this (default: both; --sweep: stylize)")
    add("--peer", choices=tuple(PEERS), help="measure it in turn with ours (onnxruntime: only stylising, on the CPU)")
    add(
        "--sizes",
        type=int,
        nargs="+",
        metavar="S",
        help="sides of the images, in pixels (default: 256; stylising 512; --sweep 128 256 512 1024)",
    )
    add("--batches", type=int, nargs="+", metavar="N", help="images at once (default: training 4, all else 1; --sweep 1 2 4 8)")
    add("--width", type=int, default=32, help="filters of the net's first layer")
    add("--rounds", type=int, default=5, help="how often the sides take turns")
    add("--device", choices=("cpu", "cuda"), default="cpu", help="where to compute")
    add("--json", metavar="FILE", help="write all figures, and the versions of what made them")
    add("--plot", metavar="FILE.png", help="with --sweep: draw time against size and batch")
    return parser


def _check(options, mode, named):
    """Refuse what cannot work before any time is spent."""
    for name in UNUSED[mode]:
        if name in named:
            raise UserError(f"--{name} means nothing " + (f"with --{mode}" if mode != "times" else "without --sweep"))
    for name, least in {"sizes": 16, "batches": 1, "width": 1, "rounds": 1}.items():
        values = getattr(options, name)
        for value in [] if values is None else np.atleast_1d(values):
            if value < least:
                raise UserError(f"--{name} is {value}; it should be at least {least}")
    if options.plot and Path(options.plot).suffix.lower() != ".png":
        raise UserError(f"--plot {options.plot}: the plot is a PNG; give it a name that ends in .png")
    device.select(options.device)
    if not options.peer:
        return
    if options.peer == "onnxruntime" and (mode == "convs" or options.work == "train" or options.device == "cuda"):
        raise UserError("--peer onnxruntime is for stylising on the CPU; use --peer torch")
    if mode != "convs" and min(options.sizes or [PAD + 1]) <= PAD:
        raise UserError(f"--sizes: a peer's reflection padding of {PAD} needs images of at least {PAD + 1} pixels")
    for name in PEERS[options.peer]:
        if importlib.util.find_spec(name) is None:
            raise UserError(f"--peer {options.peer} needs {name}, which is not installed: pip install 'tinynst[bench]'")


def _jobs(options, mode):
    """The jobs of a mode: {what, size, batch, width or inputs and outputs, device}."""
    if mode == "convs":
        for batch in options.batches or [1]:
            for size in options.sizes or [256]:
                for c, o, shrunk in VGG_CONVS:
                    for what in ("conv forward", "conv backward"):
                        shape = {"size": size // shrunk, "batch": batch, "inputs": c, "outputs": o}
                        yield {"what": what, **shape, "device": options.device}
        return
    usual = {"train": ([256], [4]), "stylize": ([512], [1])}
    works = [options.work] if options.work else ["stylize"] if options.peer == "onnxruntime" else list(usual)
    if mode == "sweep":
        works, usual = [options.work or "stylize"], dict.fromkeys(usual, ([128, 256, 512, 1024], [1, 2, 4, 8]))
    for what in ["train"] if mode == "layers" else works:
        sizes, batches = usual[what]
        for batch in options.batches or batches:
            for size in options.sizes or sizes:
                yield {"what": what, "size": size, "batch": batch, "width": options.width, "device": options.device}


def main(arguments=None):
    """`python -m tinynst.bench`; `arguments` is a list of strings (None: the command line's). Returns the exit status: 1
    where ours and the peer's results differ."""
    parser = _parser()
    options = parser.parse_args(arguments)
    mode = next((name for name in ("layers", "convs", "sweep") if getattr(options, name)), "times")
    _check(options, mode, given(parser, arguments))
    here, rows, sides = machine(), [], SIDES[options.peer]
    rounds = f"{options.rounds} round{'s' * (options.rounds > 1)}"
    print(f"{here['cpu']}, {here['threads']} of {here['cores']} cores; {options.device}; median of {rounds}")
    if mode != "layers":
        _show_head(sides, memory=mode != "convs")
    with started(sides if mode == "convs" else []) as workers:
        for job in _jobs(options, mode):
            if mode == "layers":
                row = measure_layers(job, options.rounds)
            elif mode == "convs":
                row = measure(workers, job, options.rounds)
            else:
                row = measure_alone(sides, job, options.rounds)
            rows.append(row)
            _show_layers(row) if mode == "layers" else _show(row)
            _save(options, here, rows)
    return 1 if any("peer" in row and not row["ratio"] for row in rows) else 0


if __name__ == "__main__":
    run(main, "bench")
