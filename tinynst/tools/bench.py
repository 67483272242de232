"""How fast is it? Times, memory and GFLOP/s of a training step and of stylising, alone or next to a framework
(a peer).

Each side runs in its own process and is warmed up. Then they take turns (A B A B ...), so other load on the
machine hits both equally. A ratio is reported only if both sides computed the same numbers.

GFLOPs count two operations per multiply-add of a direct convolution, whichever algorithm runs. Winograd's
needs a quarter of the products, so it can exceed the machine's peak.
"""

import contextlib
import dataclasses
import importlib.util
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from .. import __version__, device
from ..cli import Parser
from ..data.files import written_whole
from ..errors import UserError
from ..layers import Conv, ConvTranspose, ReflectPad
from ..networks import style_net
from ..networks.transform import PAD
from ..networks.vgg import LAYERS
from ..ops.fast.parallel import threads
from ..settings import Settings, option
from .bench_sides import CONTENT, STYLE, leaves

VGG_CHANNELS = (64, 128, 256, 512, 512)  # of each block
VGG_CONVS = (
    (3, 64, 1),
    (64, 64, 1),
    (64, 128, 2),
    (128, 128, 2),
    (128, 256, 4),
    (256, 256, 4),
    (256, 512, 8),
)
VGG_CONVS += ((512, 512, 8), (512, 512, 16))  # channels in, channels out, image size divided by
PEERS = {"torch": ("torch",), "onnxruntime": ("torch", "onnx", "onnxruntime")}  # packages that each needs
SIDES = {
    None: ["ours"],
    "torch": ["ours", "torch", "torch channels-last"],
    "onnxruntime": ["ours", "onnxruntime"],
}
PAUSE = 0.2  # seconds for the threads of the previous side to go to sleep
SAME = 1e-2  # largest relative difference at which two sides count as computing the same
NOTE = (
    "GFLOP/s: multiply-adds of direct convolution, times 2. Winograd needs a quarter: it can exceed the peak."
)
UNUSED = {
    "times": ("plot",),
    "layers": ("plot", "peer", "work"),
    "convs": ("plot", "width", "work"),
    "sweep": (),
}


@dataclasses.dataclass(init=False)
class BenchSettings(Settings):
    layers: bool = option(False, "our training step, layer by layer")
    convs: bool = option(False, "VGG's 3x3 convolutions one by one, forward and backward")
    sweep: bool = option(False, "every size with every batch; --plot draws it")
    work: str | None = option(
        None, "only this (default: both; --sweep: stylize)", choices=("train", "stylize")
    )
    peer: str | None = option(
        None, "measure it in turn with ours (onnxruntime: only stylising, on the CPU)", choices=tuple(PEERS)
    )
    sizes: list[int] | None = option(
        None,
        "sides of the images, in pixels (default: 256; stylising 512; --sweep 128 256 512 1024)",
        least=16,
        metavar="S",
    )
    batches: list[int] | None = option(
        None, "images at once (default: training 4, else 1; --sweep 1 2 4 8)", least=1, metavar="N"
    )
    width: int = option(32, "filters of the net's first layer", least=1)
    rounds: int = option(5, "how often the sides take turns", least=1)
    device: str = option("cpu", "where to compute", choices=("cpu", "cuda"))
    json: str | None = option(None, "write all results, and the versions of the software", metavar="FILE")
    plot: str | None = option(None, "with --sweep: draw time against size and batch", metavar="FILE.png")

    @property
    def mode(self):
        return next((name for name in ("layers", "convs", "sweep") if getattr(self, name)), "times")

    def check(self):
        """Raise UserError for options that cannot work, before any time is spent."""
        if self.layers + self.convs + self.sweep > 1:
            raise UserError("--layers, --convs and --sweep: each is not allowed with another")
        for name in UNUSED[self.mode]:
            if name in self.given:
                where = f"with --{self.mode}" if self.mode != "times" else "without --sweep"
                raise UserError(f"--{name} means nothing {where}")
        if self.plot and Path(self.plot).suffix.lower() != ".png":
            raise UserError(f"--plot {self.plot}: the plot is a PNG; give it a name that ends in .png")
        device.select(self.device)
        if self.peer == "onnxruntime" and (self.convs or self.work == "train" or self.device == "cuda"):
            raise UserError("--peer onnxruntime is for stylising on the CPU; use --peer torch")
        if self.peer and not self.convs and min(self.sizes or [PAD + 1]) <= PAD:
            raise UserError(f"--sizes: reflection padding by {PAD} needs images of at least {PAD + 1} pixels")
        for name in PEERS.get(self.peer, ()):
            if importlib.util.find_spec(name) is None:
                raise UserError(
                    f"--peer {self.peer} needs {name}, which is not installed: pip install 'tinynst[bench]'"
                )

    def jobs(self):
        """Yield what to measure: {what, size, batch, device, and width or inputs and outputs}."""
        if self.convs:
            for batch in self.batches or [1]:
                for size in self.sizes or [256]:
                    for c, o, shrunk in VGG_CONVS:
                        for what in ("conv forward", "conv backward"):
                            job = {"what": what, "size": size // shrunk, "batch": batch}
                            yield job | {"inputs": c, "outputs": o, "device": self.device}
            return
        usual = {"train": ([256], [4]), "stylize": ([512], [1])}
        if self.layers:
            works = ["train"]
        elif self.sweep:
            works, usual = (
                [self.work or "stylize"],
                dict.fromkeys(usual, ([128, 256, 512, 1024], [1, 2, 4, 8])),
            )
        else:
            both = ["stylize"] if self.peer == "onnxruntime" else list(usual)
            works = [self.work] if self.work else both
        for what in works:
            for batch in self.batches or usual[what][1]:
                for size in self.sizes or usual[what][0]:
                    job = {"what": what, "size": size, "batch": batch}
                    yield job | {"width": self.width, "device": self.device}


# --- counting -----------------------------------------------------------------------------------------------


def style_net_flops(net, height, width):
    """{layer: (kernel "9x9 3 -> 32", output (H, W), FLOPs of its forward pass)} of each convolution of a
    style net with upsample="transpose", for one image of height x width pixels."""
    counts = {}
    for name, layer in leaves(net.layers).items():
        if isinstance(layer, ReflectPad):
            height, width = height + 2 * PAD, width + 2 * PAD
        elif isinstance(layer, Conv):
            kh, kw, c, o = layer.parameters()["w"].shape
            height, width = ((side + 2 * layer.pad - kh) // layer.stride + 1 for side in (height, width))
            counts[name] = f"{kh}x{kw} {c} -> {o}", (height, width), 2 * height * width * kh * kw * c * o
        elif isinstance(layer, ConvTranspose):  # each input pixel is multiplied by the whole kernel
            kh, kw, o, c = layer.parameters()["w"].shape
            flops, height, width = 2 * height * width * kh * kw * c * o, 2 * height, 2 * width
            counts[name] = f"{kh}x{kw} {c} -> {o}", (height, width), flops
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
    """{layer: [kernel, output (H, W), forward FLOPs, backward FLOPs]} of a training step with one photo.

    The net's layers compute two gradients (the first layer only that of its kernel), VGG's only the one with
    respect to the input. VGG also sees the photo, up to the content layer."""
    net = style_net_flops(style_net(width=width), size, size)
    rows = {name: [kernel, out, flops, 2 * flops] for name, (kernel, out, flops) in net.items()}
    rows["conv1"][3] //= 2
    seen = vgg_flops(size, size, max(CONTENT))
    for name, (kernel, out, flops) in vgg_flops(size, size, max(STYLE)).items():
        rows[name] = [kernel, out, flops * (2 if name in seen else 1), flops]
    return rows


def job_flops(job):
    """FLOPs of one call of a job."""
    what, batch, size = job["what"], job["batch"], job["size"]
    if what == "train":
        return batch * sum(row[2] + row[3] for row in step_flops(job["width"], size).values())
    if what == "stylize":
        return batch * sum(
            row[2] for row in style_net_flops(style_net(width=job["width"]), size, size).values()
        )
    return batch * 2 * size * size * 9 * job["inputs"] * job["outputs"] * (1 + (what == "conv backward"))


# --- measuring ----------------------------------------------------------------------------------------------


class Worker:
    """A process for one side, as a context manager; `ask` sends an order and waits for the answer
    (bench_sides.work)."""

    def __init__(self, side):
        variables = ("TINYNST_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")
        env = os.environ | dict.fromkeys(variables, str(threads()))
        command = [sys.executable, "-c", "from tinynst.tools.bench_sides import work; work()"]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self.side, self.process = side, subprocess.Popen(command, env=env, **pipes)

    def ask(self, **order):
        """Raises UserError for an error in the process, or if the process ended."""
        try:
            print(json.dumps(order), file=self.process.stdin, flush=True)
            answer = json.loads(self.process.stdout.readline() or "{}")
        except BrokenPipeError:
            answer = {}
        if not answer:
            status = self.process.wait()
            memory = "probably out of memory: try smaller --sizes or --batches"
            why = memory if status == -9 else "see above"
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


@contextlib.contextmanager
def started(sides):
    """{side: Worker}; the processes end with the block."""
    with contextlib.ExitStack() as stack:
        yield {side: stack.enter_context(Worker(side)) for side in sides}


def measure(workers, job, rounds):
    """Time a job on every side in turn: the job with times {side: [seconds]}, flops, gflops {side} and
    versions.

    With peers also `difference` {side: largest relative difference of its results from ours}; `peer`, the
    fastest of those that computed the same (PyTorch 2.13 does not for one channels-last image: its instance
    norm's gradient is wrong there); and `ratio`, [median, min, max] over the rounds of its time / ours, or
    None without such a peer.
    """
    times, versions, results = {side: [] for side in workers}, {}, {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "results.npz")
        for side, worker in workers.items():
            order = {**job, "side": side, "threads": threads()}
            versions |= worker.ask(job=order, result=str(path))["versions"]
            with np.load(path) as file:
                results[side] = list(file.values())
    for _ in range(rounds):
        for side, worker in workers.items():
            time.sleep(PAUSE)
            times[side].append(worker.ask(go=True)["seconds"])
    row = {**job, "flops": job_flops(job), "times": times, "versions": versions}
    row["gflops"] = {side: row["flops"] / statistics.median(t) / 1e9 for side, t in times.items()}
    ours = results.pop("ours")
    if results:
        differences = {side: difference(ours, result) for side, result in results.items()}
        same = [side for side, value in differences.items() if value <= SAME]
        peer = min(same or differences, key=lambda side: statistics.median(times[side]))
        ratios = [their / our for their, our in zip(times[peer], times["ours"], strict=True)]
        row |= {"peer": peer, "difference": differences}
        row["ratio"] = [statistics.median(ratios), min(ratios), max(ratios)] if same else None
    return row


def difference(ours, theirs):
    """The largest difference of two lists of arrays, each relative to the largest number in its array; NaN
    for a NaN."""
    pairs = zip(ours, theirs, strict=True)
    return float(np.max([abs(our - their).max() / max(abs(their).max(), 1e-30) for our, their in pairs]))


def measure_alone(sides, job, rounds):
    """`measure` in new processes, so that the peak memory is this job's: adds memory {side: bytes}."""
    with started(sides) as workers:
        row = measure(workers, job, rounds)
        return row | {"memory": {side: worker.ask(end=True)["peak"] for side, worker in workers.items()}}


def measure_layers(job, rounds):
    """The job with `seconds` of our whole step and `layers`, [{name, kernel, output, seconds and flops, each
    [forward, backward]}]: medians over the rounds, with a clock around each layer. Layers without a kernel
    have 0 flops."""
    with started(["ours"]) as workers, tempfile.TemporaryDirectory() as folder:
        order = {**job, "side": "ours", "threads": threads(), "layers": True}
        versions = workers["ours"].ask(job=order, result=str(Path(folder, "ours.npz")))["versions"]
        answers = [workers["ours"].ask(go=True) for _ in range(rounds)]
    convs, layers = step_flops(job["width"], job["size"]), []
    for name in answers[0]["layers"]:
        kernel, output, *flops = convs.get(name, ("", (), 0, 0))
        seconds = [statistics.median(each["layers"][name][way] for each in answers) for way in (0, 1)]
        flops = [job["batch"] * f for f in flops]
        layers.append({"name": name, "kernel": kernel, "output": output, "seconds": seconds, "flops": flops})
    whole = statistics.median(each["last"] for each in answers)
    return {**job, "versions": versions, "seconds": whole, "layers": layers}


# --- showing ------------------------------------------------------------------------------------------------


def _show_head(several, memory):
    head = f"{'':22} {'size':>5} {'batch':>5}"
    for name in ["ours", "peer"][: 1 + several]:
        head += f"  {name + ' ms':>9} {'GFLOP/s':>8}" + f" {'GB':>6}" * memory
    print(f"{NOTE}\n\n{head}" + "  peer's time / ours (over the rounds)" * several, flush=True)


def _show(row):
    name = f"{row['inputs']} -> {row['outputs']} {row['what'][5:]}" if "inputs" in row else row["what"]
    line = f"{name:22} {row['size']:5} {row['batch']:5}"
    for side in ["ours", *([row["peer"]] if "peer" in row else [])]:
        line += f"  {1e3 * statistics.median(row['times'][side]):9.1f} {row['gflops'][side]:8.1f}"
        line += f" {row['memory'][side] / 1e9:6.2f}" if "memory" in row else ""
    if "peer" in row:
        line += "  {:5.2f} ({:.2f}..{:.2f})".format(*row["ratio"]) if row["ratio"] else "  no ratio"
        line += f"  {row['peer']}, differs by {row['difference'][row['peer']]:.1e}"
        for side, differs in row["difference"].items():
            if not differs <= SAME:
                line += f"\n{'':8}{side} computes something else"
                line += f" (it differs by {differs:.1e}, more than {SAME:g}): no ratio to it"
    print(line, flush=True)


def _show_layers(row):
    print(f"A training step: size {row['size']}, batch {row['batch']}, {1e3 * row['seconds']:.1f} ms")
    head = f"{'forward ms':>10} {'GFLOP/s':>8}  {'backward ms':>11} {'GFLOP/s':>8}"
    print(f"{NOTE}\n\n{'':18} {'kernel':>16} {'output':>10}  {head}")
    for layer in row["layers"]:
        line = f"{layer['name']:18} {layer['kernel']:>16} {'x'.join(map(str, layer['output'])):>10}"
        for width, seconds, flops in zip((10, 11), layer["seconds"], layer["flops"], strict=True):
            line += f"  {1e3 * seconds:{width}.2f}" if seconds else f"  {'':{width}}"
            line += f" {flops / seconds / 1e9:8.1f}" if flops and seconds else f" {'':8}"
        print(line.rstrip())
    rest = row["seconds"] - sum(sum(layer["seconds"]) for layer in row["layers"])
    print(f"{'all else':18} {'':16} {'':10}  {1e3 * rest:10.2f}")


def _plot(path, rows):
    """Milliseconds against size, a line for each batch, and against batch, a line for each size; peers are
    dashed."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.5), layout="constrained")
    for axes, (along, each) in zip(
        figure.subplots(1, 2), (("size", "batch"), ("batch", "size")), strict=True
    ):
        for k, value in enumerate(sorted({row[each] for row in rows})):
            line = [row for row in rows if row[each] == value]
            for style, side in (("-", "ours"), ("--", line[0].get("peer"))):
                if side:
                    found = [row["times"][row["peer"] if style == "--" else side] for row in line]
                    y, label = (
                        [1e3 * statistics.median(t) for t in found],
                        f"{side.split()[0]}, {each} {value}",
                    )
                    axes.loglog([row[along] for row in line], y, f"C{k}o{style}", markersize=3, label=label)
        ticks = sorted({row[along] for row in rows})
        axes.set_xticks(ticks, map(str, ticks))
        axes.set_xticks([], minor=True)
        axes.set(xlabel="image size (pixels a side)" if along == "size" else "batch (images)")
        axes.set_ylabel("milliseconds")
        axes.grid(alpha=0.3)
        axes.legend(fontsize="x-small")
    what = "Training step" if rows[0]["what"] == "train" else "Stylising"
    figure.suptitle(f"{what}, width {rows[0]['width']}, {rows[0]['device']}")
    with written_whole(path) as temporary:
        figure.savefig(temporary, dpi=120, format="png")


def _save(s, here, rows):
    """Write the results so far: a sweep takes long, and may be stopped."""
    if s.json:
        versions = {name: value for row in rows for name, value in row["versions"].items()}
        report = {"tinynst": __version__, "machine": here, "versions": versions, "options": s.to_dict()}
        report["rows"] = [{key: value for key, value in row.items() if key != "versions"} for row in rows]
        with written_whole(s.json) as temporary:
            temporary.write_text(json.dumps(report, indent=1))
    if s.plot:
        _plot(s.plot, rows)


def machine():
    """{cpu: its model, cores, threads: those used, system, python}"""
    cpu = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), cpu)
    system = f"{platform.system()} {platform.release()}"
    found = {"cpu": cpu, "cores": os.cpu_count(), "threads": threads(), "system": system}
    return found | {"python": platform.python_version()}


def main(arguments=None):
    """`python -m tinynst.bench`; `arguments` is a list of strings (None: the command line's). Returns the
    exit status: 1 if our results and the peer's differ."""
    parser = Parser(
        prog="tinynst bench",
        description="Measure speed and memory of training and stylising; or --layers, --convs, --sweep.",
        epilog="Use an idle machine. TINYNST_THREADS sets the number of threads of both sides.",
    )
    BenchSettings.add_options(parser)
    s = BenchSettings(**vars(parser.parse_args(arguments)))
    s.check()
    here, rows, sides = machine(), [], SIDES[s.peer]
    rounds = f"{s.rounds} round{'s' * (s.rounds > 1)}"
    print(f"{here['cpu']}, {here['threads']} of {here['cores']} cores; {s.device}; median of {rounds}")
    if not s.layers:
        _show_head(len(sides) > 1, memory=not s.convs)
    with started(sides if s.convs else []) as workers:
        for job in s.jobs():
            if s.layers:
                rows.append(measure_layers(job, s.rounds))
                _show_layers(rows[-1])
            else:
                one = measure(workers, job, s.rounds) if s.convs else measure_alone(sides, job, s.rounds)
                rows.append(one)
                _show(one)
            _save(s, here, rows)
    return 1 if any("peer" in row and not row["ratio"] for row in rows) else 0
