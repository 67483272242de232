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
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter

from .. import __version__, device
from ..cli import Parser, given
from ..data.files import written_whole
from ..errors import UserError
from ..layers import Conv, ConvTranspose, ReflectPad
from ..networks import style_net
from ..networks.transform import PAD
from ..networks.vgg import LAYERS
from ..ops.fast.parallel import threads
from .bench_sides import CONTENT, STYLE, leaves

VGG_CHANNELS = (64, 128, 256, 512, 512)
VGG_CONVS = (
    (3, 64, 1),
    (64, 64, 1),
    (64, 128, 2),
    (128, 128, 2),
    (128, 256, 4),
    (256, 256, 4),
    (256, 512, 8),
    (512, 512, 8),
)
VGG_CONVS += ((512, 512, 16),)  # channels in and out, and by how much the image has been shrunk
PEERS = {"torch": ("torch",), "onnxruntime": ("onnx", "onnxruntime")}  # what each needs installed
SIDES = {
    None: ["ours"],
    "torch": ["ours", "torch", "torch channels-last"],
    "onnxruntime": ["ours", "onnxruntime"],
}
PAUSE = 0.2  # seconds for the side that has just worked to put its threads to sleep
SAME = 1e-2  # the relative difference up to which two sides count as computing the same


# --- counting ---------------------------------------------------------------------------------------------------------


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
            counts[name] = (
                f"{kh}x{kw} {c} -> {o}",
                (2 * height, 2 * width),
                2 * height * width * kh * kw * c * o,
            )
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
        return batch * sum(
            forward + backward for _, _, forward, backward in step_flops(job["width"], size).values()
        )
    if what == "stylize":
        return batch * sum(
            flops for _, _, flops in style_net_flops(style_net(width=job["width"]), size, size).values()
        )
    return (
        batch * 2 * size * size * 9 * job["inputs"] * job["outputs"] * (2 if what == "conv backward" else 1)
    )


# --- one process a side -----------------------------------------------------------------------------------------------


class Worker:
    """A process for one side; `ask` sends an order and waits for the answer (see `work`). A context manager."""

    def __init__(self, side):
        self.side, count = side, str(threads())
        env = os.environ | dict.fromkeys(
            ("TINYNST_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), count
        )
        command = [sys.executable, "-c", "from tinynst.tools.bench_sides import work; work()"]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env
        )

    def ask(self, **order):
        """Raises UserError for what went wrong there, and where the process ended."""
        try:
            print(json.dumps(order), file=self.process.stdin, flush=True)
            answer = json.loads(self.process.stdout.readline() or "{}")
        except BrokenPipeError:
            answer = {}
        if not answer:
            status = self.process.wait()
            why = (
                "probably for want of memory: try smaller --sizes or --batches"
                if status == -9
                else "see above"
            )
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
            versions |= worker.ask(job={**job, "side": side, "threads": threads()}, result=str(path))[
                "versions"
            ]
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
    return float(
        np.max([abs(a - b).max() / max(abs(b).max(), 1e-30) for a, b in zip(ours, theirs, strict=True)])
    )


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
    return {
        **job,
        "versions": versions,
        "seconds": statistics.median(each["last"] for each in rounds),
        "layers": layers,
    }


# --- showing ----------------------------------------------------------------------------------------------------------

NOTE = "GFLOP/s: multiply-adds of direct convolution, times 2. Winograd needs a quarter, so it can pass the machine's peak."


def _show_head(sides, memory):
    names = ["ours", *(["peer"] if len(sides) > 1 else [])]
    head = f"{'':22} {'size':>5} {'batch':>5}"
    for name in names:
        head += f"  {name + ' ms':>9} {'GFLOP/s':>8}" + " {:>6}".format("GB") * memory
    print(
        NOTE + "\n\n" + head + ("  peer's time / ours (over the rounds)" if len(sides) > 1 else ""),
        flush=True,
    )


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
                line += f"\n{'':8}{side} computes something else (it differs by {differs:.1e}, more than {SAME:g}): no ratio to it"
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
            line += (
                f"  {1e3 * seconds:{width}.2f}" if seconds else f"  {'':{width}}"
            )  # a loss has its gradient with it
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
                axes.plot(
                    x, y, style, color=f"C{k}", marker="o", markersize=3, label=f"{name}, {each} {value}"
                )
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
        report = {
            "tinynst": __version__,
            "machine": here,
            "versions": versions,
            "options": vars(options),
            "rows": figures,
        }
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
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "threads": threads(),
        "system": system,
        "python": platform.python_version(),
    }


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
    which.add_argument(
        "--convs", action="store_true", help="VGG's 3x3 convolutions one by one, forward and backward"
    )
    which.add_argument("--sweep", action="store_true", help="every size with every batch; --plot draws it")
    add = parser.add_argument
    add("--work", choices=("train", "stylize"), help="only this (default: both; --sweep: stylize)")
    add(
        "--peer",
        choices=tuple(PEERS),
        help="measure it in turn with ours (onnxruntime: only stylising, on the CPU)",
    )
    add(
        "--sizes",
        type=int,
        nargs="+",
        metavar="S",
        help="sides of the images, in pixels (default: 256; stylising 512; --sweep 128 256 512 1024)",
    )
    add(
        "--batches",
        type=int,
        nargs="+",
        metavar="N",
        help="images at once (default: training 4, all else 1; --sweep 1 2 4 8)",
    )
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
            raise UserError(
                f"--{name} means nothing " + (f"with --{mode}" if mode != "times" else "without --sweep")
            )
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
    if options.peer == "onnxruntime" and (
        mode == "convs" or options.work == "train" or options.device == "cuda"
    ):
        raise UserError("--peer onnxruntime is for stylising on the CPU; use --peer torch")
    if mode != "convs" and min(options.sizes or [PAD + 1]) <= PAD:
        raise UserError(
            f"--sizes: a peer's reflection padding of {PAD} needs images of at least {PAD + 1} pixels"
        )
    for name in PEERS[options.peer]:
        if importlib.util.find_spec(name) is None:
            raise UserError(
                f"--peer {options.peer} needs {name}, which is not installed: pip install 'tinynst[bench]'"
            )


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
        works, usual = (
            [options.work or "stylize"],
            dict.fromkeys(usual, ([128, 256, 512, 1024], [1, 2, 4, 8])),
        )
    for what in ["train"] if mode == "layers" else works:
        sizes, batches = usual[what]
        for batch in options.batches or batches:
            for size in options.sizes or sizes:
                yield {
                    "what": what,
                    "size": size,
                    "batch": batch,
                    "width": options.width,
                    "device": options.device,
                }


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
