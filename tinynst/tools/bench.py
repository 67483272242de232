"""Times, memory and GFLOP/s of a training step and of stylising, alone or next to a framework (a peer).

Each side runs in its own process and is warmed up. Then they take turns (A B A B ...), so other load on the
machine affects both equally. A ratio is reported only if both sides computed the same numbers.
"""

import contextlib
import dataclasses
import importlib
import itertools
import json
import multiprocessing
import os
import platform
import re
import signal
import time
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from statistics import median

import numpy as np

from .. import device
from ..data.files import check_file, written_whole
from ..errors import UserError
from ..networks.transform import PAD
from ..ops.fast.parallel import threads
from ..settings import Settings, option
from . import bench_sides
from .report import write_text

# VGG's convolutions: channels in, channels out, image size divided by
VGG_CONVS = [(3, 64, 1), (64, 64, 1), (64, 128, 2), (128, 128, 2)]
VGG_CONVS += [(128, 256, 4), (256, 256, 4), (256, 512, 8), (512, 512, 8), (512, 512, 16)]
USUAL = {"train": ([256], [4]), "stylize": ([512], [1]), "conv": ([256], [1])}  # sizes, batches
USUAL["sweep"] = [128, 256, 512, 1024], [1, 2, 4, 8]
PEERS = {"torch": ("torch",), "onnxruntime": ("torch", "onnx", "onnxruntime")}  # packages that each needs
SIDES = {None: [], "torch": ["torch", "torch channels-last"], "onnxruntime": ["onnxruntime"]}
PAUSE = 0.2  # seconds for the threads of the previous side to go to sleep
SAME = 1e-2  # largest relative difference at which two sides count as computing the same
NOTE = "GFLOP/s count direct convolution, 2 per multiply-add: Winograd, with fewer, can exceed the peak."


@dataclasses.dataclass(init=False)
class BenchSettings(Settings):
    layers: bool = option(False, "our training step, layer by layer")
    convs: bool = option(False, "VGG's 3x3 convolutions one by one, forward and backward")
    sweep: bool = option(False, "every size with every batch; --plot draws it")
    work: str | None = option(None, "only this (--sweep: stylize)", choices=("train", "stylize"))
    peer: str | None = option(None, "measure it in turn with ours", choices=tuple(PEERS))
    sizes: list[int] | None = option(None, "pixels a side (default: 256; stylize 512)", least=16)
    batches: list[int] | None = option(None, "images at once (default: train 4, else 1)", least=1)
    width: int = option(32, "filters of the net's first layer", least=1)
    rounds: int = option(5, "how often the sides take turns", least=1)
    device: str = option("cpu", device.HELP)
    plot: str | None = option(None, "with --sweep: draw time against size and batch", metavar="FILE.png")
    json: str | None = option(None, "write all results, and the versions of the software", metavar="FILE")

    def check(self):
        """Raise UserError for options that cannot work, before any time is spent."""
        excluded = {"layers": ("convs", "sweep", "peer", "work"), "convs": ("sweep", "width", "work")}
        for mode, names in excluded.items():
            for name in self.given.intersection(names):
                if getattr(self, mode):
                    raise UserError(f"--{name} is not allowed with --{mode}")
        if self.plot and not self.sweep:
            raise UserError("--plot means nothing without --sweep")
        for path, endings in ((self.plot, (".png",)), (self.json, (".json",))):
            if path:
                check_file(path, endings)
        device.select(self.device)
        if self.peer == "onnxruntime" and (self.convs or self.work == "train" or self.device != "cpu"):
            raise UserError("--peer onnxruntime is for stylising on the CPU; use --peer torch")
        if self.peer and not self.convs and min(self.sizes or [PAD + 1]) <= PAD:
            raise UserError(f"--sizes: reflection padding by {PAD} needs images of at least {PAD + 1} pixels")
        for name in PEERS.get(self.peer, ()):
            if importlib.util.find_spec(name) is None:
                install = "pip install 'tinynst[bench]'"
                raise UserError(f"--peer {self.peer} needs {name}, which is not installed: {install}")

    def jobs(self):
        """Yield what to measure, as bench_sides.py describes it."""
        works = ["stylize"] if self.sweep or self.peer == "onnxruntime" else ["train", "stylize"]
        works = [self.work] if self.work else works
        if self.layers:
            works = ["train"]
        elif self.convs:
            works = ["conv forward", "conv backward"]
        for what in works:
            sizes, batches = USUAL["sweep" if self.sweep else what.split()[0]]
            for batch, size in itertools.product(self.batches or batches, self.sizes or sizes):
                job = {"what": what, "batch": batch, "device": self.device}
                if self.convs:
                    for inputs, outputs, divisor in VGG_CONVS:
                        yield job | {"size": size // divisor, "inputs": inputs, "outputs": outputs}
                else:
                    yield job | {"size": size, "width": self.width, "layers": self.layers}


class Worker(ProcessPoolExecutor):
    """A process for one side, which ends with the `with` block."""

    def __init__(self, side):
        super().__init__(1, multiprocessing.get_context("spawn"), bench_sides.begin, (side,))
        self.side, self.process = side, self.call(os.getpid)

    def ask(self, method, *arguments):
        """Call a method of the side (bench_sides.Side) there. Raises UserError if the process ended."""
        return self.call(bench_sides.ask, method, *arguments)

    def call(self, function, *arguments):
        try:
            return self.submit(function, *arguments).result()
        except BrokenProcessPool:
            advice = "probably out of memory: try smaller --sizes or --batches"
            raise UserError(f"{self.side}: the process ended, {advice}") from None

    def __exit__(self, *error):
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.process, signal.SIGTERM)  # after Ctrl-C it may be at work for a while
        return super().__exit__(*error)


def measure(workers, job, rounds):
    """Time a job on every side in turn. Returns the job with times {side: [seconds]}, flops, gflops {side}
    and peak memory {side: bytes}; with `layers` also what Ours.time returns of each, medians of the rounds.

    With peers also `difference` {side: largest relative difference of its results from ours}; `peer`, the
    fastest of those that computed the same (PyTorch 2.13 does not for one channels-last image: its instance
    norm's gradient is wrong there); and `ratio`, [median, min, max] over the rounds of its time / ours, or
    None without such a peer.
    """
    times, layers = {side: [] for side in workers}, []
    started = {side: worker.ask("start", job) for side, worker in workers.items()}
    results, flops = {side: found for side, (found, _) in started.items()}, started["ours"][1]
    for _ in range(rounds):
        for side, worker in workers.items():
            time.sleep(PAUSE)
            seconds, of_layers = worker.ask("time")
            times[side].append(seconds)
            layers.append(of_layers)
    row = {**job, "flops": flops, "times": times}
    row["gflops"] = {side: flops / median(t) / 1e9 for side, t in times.items()}
    if "width" in job:  # convolutions share their processes, so the peak may be of an earlier one
        row["memory"] = {side: worker.ask("peak_memory") for side, worker in workers.items()}
    if job.get("layers"):
        row["layers"] = layers[0]
        for name, layer in row["layers"].items():
            layer["seconds"] = [median(each[name]["seconds"][way] for each in layers) for way in (0, 1)]
    ours = results.pop("ours")
    if results:
        row["difference"] = {side: difference(ours, result) for side, result in results.items()}
        same = [side for side, value in row["difference"].items() if value <= SAME]
        row["peer"] = peer = min(same or results, key=lambda side: median(times[side]))
        ratios = [their / our for their, our in zip(times[peer], times["ours"], strict=True)]
        row["ratio"] = [median(ratios), min(ratios), max(ratios)] if same else None
    return row


def difference(ours, theirs):
    """The largest difference of two lists of arrays, each relative to the largest number in its array; NaN
    for a NaN."""
    pairs = zip(ours, theirs, strict=True)
    return float(np.max([abs(our - their).max() / max(abs(their).max(), 1e-30) for our, their in pairs]))


def _print(*cells):
    """A line of a table: the first cell to the left, the others to the right."""
    print(f"{cells[0]:20}", *(f"{cell:>11}" for cell in cells[1:]), flush=True)


def _shown(row):
    """The sides of a row that are shown."""
    return ["ours", row["peer"]] if "peer" in row else ["ours"]


def _milliseconds(row, side):
    return 1e3 * median(row["times"][side])


def _show(row):
    name = f"{row['inputs']} -> {row['outputs']} {row['what'][5:]}" if "inputs" in row else row["what"]
    cells = [name, row["size"], row["batch"]]
    for side in _shown(row):
        memory = f"{row['memory'][side] / 1e9:.2f}" if "memory" in row else "-"
        cells += [f"{_milliseconds(row, side):.1f}", f"{row['gflops'][side]:.1f}", memory]
    if "peer" in row:
        ratio = " {:.2f} ({:.2f}..{:.2f})".format(*row["ratio"]) if row["ratio"] else " no ratio"
        cells.append(f"{ratio}  {row['peer']}, differs by {row['difference'][row['peer']]:.1e}")
    _print(*cells)
    for side, differs in row.get("difference", {}).items():
        if not differs <= SAME:
            why = f"it differs by {differs:.1e}, more than {SAME:g}"
            print(f"{'':8}{side} computes something else ({why}): no ratio to it", flush=True)


def _show_layers(row):
    whole, layers = _milliseconds(row, "ours"), row["layers"]
    print(f"A training step: size {row['size']}, batch {row['batch']}, {whole:.1f} ms\n")
    _print("", "output", "forward ms", "GFLOP/s", "backward ms", "GFLOP/s", " kernel")
    for name, layer in layers.items():
        cells = [name, "x".join(map(str, layer["output"]))]
        for seconds, flops in zip(layer["seconds"], layer["flops"], strict=True):
            cells.append(f"{1e3 * seconds:.2f}" if seconds else "")
            cells.append(f"{flops / seconds / 1e9:.1f}" if flops else "")
        _print(*cells, f" {layer['kernel']}")
    _print("all else", "", f"{whole - 1e3 * sum(sum(layer['seconds']) for layer in layers.values()):.2f}")


def _plot(path, rows):
    """Milliseconds against size, a line for each batch, and against batch, a line for each size; peers are
    dashed."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.5), layout="constrained")
    for axes, along, each in zip(figure.subplots(1, 2), ("size", "batch"), ("batch", "size"), strict=True):
        for k, value in enumerate(sorted({row[each] for row in rows})):
            line = [row for row in rows if row[each] == value]
            for j, side in enumerate(_shown(line[0])):
                x, y = [row[along] for row in line], [_milliseconds(row, _shown(row)[j]) for row in line]
                axes.loglog(x, y, f"C{k}o{('-', '--')[j]}", label=f"{side.split()[0]}, {each} {value}")
        ticks = sorted({row[along] for row in rows})
        axes.set_xticks(ticks, map(str, ticks))
        axes.set_xticks([], minor=True)
        axes.set(xlabel={"size": "pixels a side", "batch": "images"}[along], ylabel="milliseconds")
        axes.legend(fontsize="x-small")
    figure.suptitle(f"{rows[0]['what']}, width {rows[0]['width']}, {rows[0]['device']}")
    with written_whole(path) as temporary:
        figure.savefig(temporary, dpi=120, format="png")


def bench(s):
    """Measure what the BenchSettings say, print it, and return the rows, as `measure` returns them."""
    s.check()
    rows, jobs, info = [], list(s.jobs()), Path("/proc/cpuinfo")
    model = re.search(r"model name\s*: (.*)", info.read_text() if info.exists() else "")
    cpu = model[1] if model else platform.processor() or platform.machine()
    software = [
        f"{name} {importlib.import_module(name).__version__}" for name in ("numpy", *PEERS.get(s.peer, ()))
    ]
    print(f"{cpu}, {threads()} of {os.cpu_count()} cores; {s.device}; {', '.join(software)}")
    print(f"Median of {s.rounds} round{'s' * (s.rounds > 1)}. {NOTE}\n")
    if not s.layers:
        peer = ["peer ms", "GFLOP/s", "GB", " peer's time / ours (over the rounds)"] if s.peer else []
        _print("", "size", "batch", "ours ms", "GFLOP/s", "GB", *peer)
    # New processes for each job, so that the peak memory is its own; convolutions are too short for that
    for group in [jobs] if s.convs else [[job] for job in jobs]:
        with contextlib.ExitStack() as stack:
            workers = {side: stack.enter_context(Worker(side)) for side in ["ours", *SIDES[s.peer]]}
            for job in group:
                rows.append(measure(workers, job, s.rounds))
                (_show_layers if s.layers else _show)(rows[-1])
                if s.plot:  # of the results so far: a sweep takes long, and may be stopped
                    _plot(s.plot, rows)
                if s.json:
                    report = {"machine": cpu, "software": software, "rows": rows}
                    write_text(s.json, json.dumps(report, indent=1))
    return rows


def main(arguments=None):
    """The command `tinynst bench`. Returns the exit status: 1 if our results and the peer's differ."""
    what = "Measure speed and memory of training and stylising; or --layers, --convs, --sweep."
    note = "Use an idle machine. TINYNST_THREADS sets the number of threads of both sides."
    rows = bench(BenchSettings.parse(arguments, "bench", what, note))
    return 1 if any("peer" in row and not row["ratio"] for row in rows) else 0
