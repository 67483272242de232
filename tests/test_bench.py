"""The speed command: what it counts, that both sides do the same work, what it writes. No assertion on a
speed."""

import importlib.util
import json
import math
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from tinynst import cli
from tinynst.data import styles
from tinynst.errors import UserError
from tinynst.networks import style_net
from tinynst.ops.fast import parallel
from tinynst.optim import Adam
from tinynst.tools import bench, bench_sides
from tinynst.tools.bench import (
    Worker,
    difference,
    job_flops,
    leaves,
    measure,
    step_flops,
    style_net_flops,
    vgg_flops,
)
from tinynst.training import style as train

TINY = {"size": 32, "batch": 1, "width": 2, "device": "cpu"}
CONV = {"size": 8, "batch": 2, "inputs": 16, "outputs": 20, "device": "cpu"}


def command(capsys, *arguments):
    """Exit status, lines of standard output and standard error of the command."""
    with pytest.raises(SystemExit) as caught:
        cli.run(bench.main, "bench", list(arguments))
    out, err = capsys.readouterr()
    return caught.value.code, out.splitlines(), err


def positive(numbers):
    return all(math.isfinite(number) and number > 0 for number in numbers)


# --- counting -----------------------------------------------------------------------------------------------


def test_flops_of_the_style_net_at_256():
    """Two for each multiply-add, worked out by hand from the sizes in Table 1."""
    by_hand = {
        "conv1": 1_755_758_592,  # 336*336 pixels * 9*9*3 * 32 * 2
        "conv2": 1_040_449_536,  # 168*168 * 3*3*32 * 64 * 2
        "conv3": 1_040_449_536,  # 84*84 * 3*3*64 * 128 * 2
        "up1": 603_979_776,  # 64*64 pixels that come in * 3*3*128 * 64 * 2
        "up2": 603_979_776,  # 128*128 * 3*3*64 * 32 * 2
        "out": 1_019_215_872,  # 256*256 * 9*9*32 * 3 * 2
    }
    for k, side in enumerate((82, 80, 78, 76, 74, 72, 70, 68, 66, 64)):  # unpadded: each takes 2 pixels off
        by_hand[f"residual{k // 2 + 1}.conv{k % 2 + 1}"] = side * side * 294_912  # 3*3*128 * 128 * 2
    counts = style_net_flops(style_net(), 256, 256)
    assert {name: flops for name, (_, _, flops) in counts.items()} == by_hand
    assert counts["conv1"][:2] == ("9x9 3 -> 32", (336, 336))
    assert counts["up1"][:2] == ("3x3 128 -> 64", (128, 128))


def test_flops_of_vgg_at_256():
    counts = vgg_flops(256, 256, "relu4_3")
    assert len(counts) == 10
    assert counts["vgg conv1_1"] == ("3x3 3 -> 64", (256, 256), 226_492_416)
    assert counts["vgg conv4_3"] == ("3x3 512 -> 512", (32, 32), 4_831_838_208)
    assert sum(flops for _, _, flops in counts.values()) == 36_465_278_976
    assert sum(flops for _, _, flops in vgg_flops(256, 256, "relu3_3").values()) == 24_385_683_456


def test_flops_of_a_step():
    """The net forward and two gradients, but no input gradient at the first layer; VGG twice forward (the
    photo up to relu3_3) and one gradient."""
    net = sum(flops for _, _, flops in style_net_flops(style_net(), 256, 256).values())
    step = 3 * net - 1_755_758_592 + 2 * 36_465_278_976 + 24_385_683_456
    assert sum(forward + backward for _, _, forward, backward in step_flops(32, 256).values()) == step
    assert job_flops({"what": "train", "batch": 4, "size": 256, "width": 32}) == 4 * step
    assert job_flops({"what": "stylize", "batch": 2, "size": 256, "width": 32}) == 2 * net
    assert (
        job_flops({"what": "conv backward", **CONV})
        == 2 * job_flops({"what": "conv forward", **CONV})
        == 1_474_560
    )


def test_the_counted_sizes_are_those_of_the_net():
    net, seen = style_net(width=2), {}
    for name, layer in leaves(net.layers).items():

        def forward(x, training, name=name, own=layer.forward):
            y = own(x, training)
            seen[name] = y.shape[1:3]
            return y

        layer.forward = forward
    net.forward(np.zeros((1, 37, 50, 3), np.float32))
    counts = style_net_flops(net, 37, 50)
    assert len(counts) == 16
    assert {name: output for name, (_, output, _) in counts.items()} == {name: seen[name] for name in counts}


def test_the_step_is_the_trainers():
    defaults = train.StyleSettings().to_dict()
    for kind, weights in (("content", bench_sides.CONTENT), ("style", bench_sides.STYLE)):
        assert styles.layer_weights(defaults[f"{kind}_layers"], defaults[f"{kind}_weights"], kind) == weights
    assert (defaults["tv_weight"], defaults["style_size"], defaults["lr"]) == (
        bench_sides.TV,
        bench_sides.STYLE_SIZE,
        bench_sides.LR,
    )
    assert (defaults["norm"], defaults["upsample"], defaults["width"]) == ("instance", "transpose", 32)
    assert bench_sides._Task.step is train.StyleTask.step


def test_a_training_step_on_a_gpu_is_some_two_thousand_launches(strict):
    """As many for a small step as for a large one, but for sides that are no multiple of 4, whose last tiles
    take a copy more. Each costs the GPU some microseconds, whatever is in it."""
    counts = []
    for batch, size in ((1, 32), (2, 48)):
        task = bench_sides._Task(2, strict)
        adam = Adam(task.net.parameters(), 1e-3)
        photos = np.random.default_rng(0).uniform(0, 255, (batch, size, size, 3)).astype(np.float32)
        strict.reset_counters()
        task.step((0, photos))
        adam.step(task.net.gradients())
        counts.append(strict.launches)
    assert max(counts) <= 2100
    assert max(counts) - min(counts) <= 20


# --- one process a side -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "job",
    [
        {"what": "train", **TINY},
        {"what": "stylize", **TINY},
        {"what": "conv forward", **CONV},
        {"what": "conv backward", **CONV},
    ],
    ids=lambda job: job["what"],
)
def test_a_worker(tmp_path, job):
    with Worker("ours") as worker:
        answer = worker.ask(
            job={**job, "side": "ours", "threads": parallel.threads()}, result=str(tmp_path / "r.npz")
        )
        times = [worker.ask(go=True)["seconds"] for _ in range(2)]
        peak = worker.ask(end=True)["peak"]
    assert worker.process.returncode == 0
    assert positive(times)
    assert 2**24 < peak < 2**33
    assert answer["versions"]["numpy"] == np.__version__
    assert all(part["num_threads"] == parallel.threads() for part in answer["versions"]["blas"])
    with np.load(tmp_path / "r.npz") as file:
        results = list(file.values())
    shapes = {
        "train": [()] * 8,  # four losses of two steps
        "stylize": [(1, 32, 32, 3)],
        "conv forward": [(2, 8, 8, 20)],
        "conv backward": [(2, 8, 8, 16), (3, 3, 16, 20)],
    }
    assert [result.shape for result in results] == shapes[job["what"]]
    assert all(np.isfinite(result).all() and np.any(result) for result in results)
    if job["what"] == "train":
        assert results[7] != results[3]  # Adam moved the weights


def test_a_worker_that_dies(tmp_path):
    with Worker("ours") as worker:
        worker.process.kill()
        with pytest.raises(UserError, match="ours ended with status -9, probably out of memory"):
            worker.ask(go=True)


def test_a_workers_mistake_is_told(tmp_path, capsys):
    job = {"what": "stylize", **TINY, "device": "cuda", "side": "ours", "threads": 1}
    if importlib.util.find_spec("cupy") is not None:
        pytest.skip("CuPy is installed")
    with Worker("ours") as worker, pytest.raises(UserError, match="ours: --device cuda needs CuPy"):
        worker.ask(job=job, result=str(tmp_path / "r.npz"))


class Scripted:
    """A worker that answers what it was told to."""

    def __init__(self, result, seconds):
        self.result, self.seconds = result, iter(seconds)

    def ask(self, job=None, result=None, go=None):
        if job:
            np.savez(result, np.array(self.result))
        return {"versions": {}, "seconds": None if job else next(self.seconds)}


def test_the_ratio_is_of_the_peers_faster_way(monkeypatch):
    monkeypatch.setattr(bench, "PAUSE", 0)
    ours = Scripted([100.0, 50.0], [1.0, 2.0, 4.0])
    slow, fast = Scripted([100.0, 50.5], [30.0] * 3), Scripted([100.0, 50.2], [4.0, 4.0, 6.0])
    row = measure(
        {"ours": ours, "torch": slow, "torch channels-last": fast}, {"what": "conv forward", **CONV}, 3
    )
    assert row["peer"] == "torch channels-last"
    assert row["ratio"] == [2.0, 1.5, 4.0]
    assert row["difference"] == {
        "torch": pytest.approx(0.5 / 100),
        "torch channels-last": pytest.approx(0.2 / 100),
    }
    assert row["gflops"]["ours"] == pytest.approx(737_280 / 2 / 1e9)


def test_a_way_with_other_results_is_no_peer(monkeypatch, capsys):
    monkeypatch.setattr(bench, "PAUSE", 0)
    workers = {
        "ours": Scripted([9.0], [1.0]),
        "torch": Scripted([9.0], [3.0]),
        "torch channels-last": Scripted([8.8], [2.0]),
    }
    row = measure(workers, {"what": "stylize", **TINY}, 1)
    assert (row["peer"], row["ratio"]) == ("torch", [3.0, 3.0, 3.0])
    bench._show(row)
    assert (
        "torch channels-last computes something else (it differs by 2.3e-02, more than 0.01)"
        in capsys.readouterr().out
    )


@pytest.mark.parametrize("wrong", [102.0, float("nan")])
def test_no_ratio_where_the_results_differ(monkeypatch, capsys, wrong):
    monkeypatch.setattr(bench, "PAUSE", 0)
    workers = {"ours": Scripted([100.0], [1.0]), "onnxruntime": Scripted([wrong], [3.0])}
    row = measure(workers, {"what": "stylize", **TINY}, 1)
    assert row["ratio"] is None
    bench._show(row)
    out = capsys.readouterr().out
    assert "no ratio" in out and "onnxruntime computes something else" in out and "3.00" not in out
    monkeypatch.setattr(bench, "measure_alone", lambda *_: row)
    monkeypatch.setattr(bench.BenchSettings, "check", lambda self: None)
    assert command(capsys, "--work", "stylize", "--peer", "onnxruntime")[0] == 1


def test_difference_is_relative_to_each_array():
    assert difference([np.array([1.0, 3.0])], [np.array([1.0, 4.0])]) == 0.25
    assert difference(
        [np.array([1e9]), np.array([2e-6])], [np.array([1e9]), np.array([1e-6])]
    ) == pytest.approx(1.0)
    assert math.isnan(difference([np.ones(1), np.array([np.nan])], [np.ones(1), np.ones(1)]))


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="no PyTorch")
def test_torch_computes_the_same(capsys, tmp_path):
    arguments = [
        "--sizes",
        "50",
        "--batches",
        "2",
        "--width",
        "3",
        "--rounds",
        "1",
        "--json",
        str(tmp_path / "a.json"),
    ]
    status, _, _ = command(capsys, "--peer", "torch", *arguments)
    assert status == 0
    report = json.loads((tmp_path / "a.json").read_text())
    assert "torch" in report["versions"]
    assert [row["what"] for row in report["rows"]] == ["train", "stylize"]
    for row in report["rows"]:
        assert max(row["difference"].values()) < 1e-3
        assert positive(
            [*row["ratio"], *row["memory"].values(), *(t for times in row["times"].values() for t in times)]
        )
    with bench.started(["ours", "torch"]) as workers:
        for what in ("conv forward", "conv backward"):
            assert measure(workers, {"what": what, **CONV}, 1)["difference"]["torch"] < 1e-3


@pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("torch", "onnx", "onnxruntime")),
    reason="no torch, onnx or onnxruntime",
)
def test_onnxruntime_computes_the_same(capsys, tmp_path):
    arguments = [
        "--sizes",
        "50",
        "--batches",
        "2",
        "--width",
        "3",
        "--rounds",
        "1",
        "--json",
        str(tmp_path / "a.json"),
    ]
    status, _, _ = command(capsys, "--peer", "onnxruntime", *arguments)
    assert status == 0
    report = json.loads((tmp_path / "a.json").read_text())
    assert {"onnx", "onnxruntime"} <= report["versions"].keys()
    [row] = report["rows"]
    assert (row["what"], row["peer"]) == ("stylize", "onnxruntime")
    assert row["difference"]["onnxruntime"] < 1e-3 and positive(row["ratio"])


# --- the command --------------------------------------------------------------------------------------------


def test_a_sweep_writes_a_table_a_plot_and_the_figures(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(bench, "PAUSE", 0)
    arguments = ["--sizes", "32", "48", "--batches", "1", "2", "--width", "2", "--rounds", "2"]
    files = ["--plot", str(tmp_path / "new/sweep.png"), "--json", str(tmp_path / "sweep.json")]
    status, out, err = command(capsys, "--sweep", *arguments, *files)
    assert (status, err) == (0, "")
    cases = [(32, 1), (48, 1), (32, 2), (48, 2)]
    lines = [line.split() for line in out if line.startswith("stylize")]
    assert [(int(line[1]), int(line[2])) for line in lines] == cases
    assert positive(float(word) for line in lines for word in line[1:])
    with Image.open(tmp_path / "new/sweep.png") as image:
        assert image.format == "PNG" and image.width > 1000
        assert len(image.convert("RGB").getcolors(10**6)) > 50  # lines in several colours
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new", "sweep.json"]
    report = json.loads((tmp_path / "sweep.json").read_text())
    assert [(row["size"], row["batch"]) for row in report["rows"]] == cases
    assert all(len(row["times"]["ours"]) == 2 and positive(row["times"]["ours"]) for row in report["rows"])
    assert report["versions"]["numpy"] == np.__version__
    assert all(part["version"] and part["internal_api"] for part in report["versions"]["blas"])
    assert report["machine"]["cpu"] and report["machine"]["threads"] == parallel.threads()
    assert report["options"]["rounds"] == 2


def test_layers(capsys, tmp_path):
    arguments = [
        "--sizes",
        "32",
        "--batches",
        "2",
        "--width",
        "2",
        "--rounds",
        "1",
        "--json",
        str(tmp_path / "layers.json"),
    ]
    status, out, err = command(capsys, "--layers", *arguments)
    assert (status, err) == (0, "")
    [row] = json.loads((tmp_path / "layers.json").read_text())["rows"]
    layers = {layer["name"]: layer for layer in row["layers"]}
    assert sum(name.startswith("vgg conv") for name in layers) == 10
    assert {
        "pad",
        "residual3.norm2",
        "up2",
        "tanh",
        "vgg pool1",
        "content loss",
        "style losses",
        "Adam",
    } <= layers.keys()
    assert layers["vgg conv1_2"]["kernel"] == "3x3 64 -> 64" and layers["vgg conv1_2"]["output"] == [32, 32]
    for name, layer in layers.items():
        assert positive(layer["seconds"][: 2 if layer["kernel"] else 1]), name
    assert sum(sum(layer["seconds"]) for layer in layers.values()) < row["seconds"]
    assert sum(sum(layer["flops"]) for layer in layers.values()) == job_flops(
        {"what": "train", **TINY, "batch": 2}
    )
    shown = {line[:18].rstrip() for line in out}
    assert layers.keys() | {"all else"} <= shown
    assert any("Winograd" in line for line in out)


def test_convs(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(bench, "PAUSE", 0)
    status, _, err = command(
        capsys, "--convs", "--sizes", "16", "--rounds", "1", "--json", str(tmp_path / "convs.json")
    )
    assert (status, err) == (0, "")
    rows = json.loads((tmp_path / "convs.json").read_text())["rows"]
    assert len(rows) == 18
    assert [row["size"] for row in rows[::2]] == [16, 16, 8, 8, 4, 4, 2, 2, 1]
    assert {(row["inputs"], row["outputs"]) for row in rows} == {(a, b) for a, b, _ in bench.VGG_CONVS}
    assert all(positive(row["times"]["ours"]) and positive(row["gflops"].values()) for row in rows)


@pytest.mark.parametrize(
    ("peer", "module"), [("torch", "torch"), ("onnxruntime", "onnx"), ("onnxruntime", "onnxruntime")]
)
def test_a_missing_peer(capsys, monkeypatch, peer, module):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == module else "found")
    status, out, err = command(capsys, "--peer", peer)
    assert (status, out) == (2, [])
    expected = f"--peer {peer} needs {module}, which is not installed: pip install 'tinynst[bench]'"
    assert err == f"tinynst bench: {expected}\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--rounds", "0"], "--rounds is 0; it should be at least 1"),
        (["--sizes", "64", "8"], "--sizes is 8; it should be at least 16"),
        (["--batches", "0"], "--batches is 0"),
        (["--width", "-1"], "--width is -1"),
        (["--plot", "a.png"], "--plot means nothing without --sweep"),
        (["--sweep", "--plot", "a.jpg"], "ends in .png"),
        (["--layers", "--peer", "torch"], "--peer means nothing with --layers"),
        (["--convs", "--width", "32"], "--width means nothing with --convs"),
        (["--peer", "onnxruntime", "--work", "train"], "use --peer torch"),
        (["--peer", "onnxruntime", "--convs"], "use --peer torch"),
        (["--peer", "torch", "--sizes", "40"], "at least 41 pixels"),
        (["--convs", "--sweep"], "not allowed with"),
    ],
)
def test_mistakes_are_one_line(capsys, arguments, words):
    status, out, err = command(capsys, *arguments)
    assert (status, out) == (2, [])
    assert words in err and err.count("\n") == 1


def test_as_a_program(tmp_path):
    program = [sys.executable, "-m", "tinynst.bench"]
    tiny = ["--work", "stylize", "--sizes", "32", "--width", "2", "--rounds", "1"]
    done = subprocess.run([*program, *tiny], capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1].split()[:3] == ["stylize", "32", "1"]
    assert list(tmp_path.iterdir()) == []
