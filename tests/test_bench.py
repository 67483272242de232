"""The speed command: what it counts, that both sides do the same work, what it writes. No assertion on a
speed."""

import importlib.util
import json
import math
import os
import signal

import numpy as np
import pytest
from PIL import Image
from threadpoolctl import threadpool_info

from tinynst import cli
from tinynst.errors import DeviceError, UserError
from tinynst.ops.fast.parallel import threads
from tinynst.optim import Adam
from tinynst.tools import bench, bench_sides
from tinynst.tools.bench import Worker, difference, measure

TINY = {"size": 32, "batch": 1, "width": 2, "device": "cpu"}
CONV = {"size": 8, "batch": 2, "inputs": 16, "outputs": 20, "device": "cpu"}
BACKWARD, STYLIZE = {"what": "conv backward", **CONV}, {"what": "stylize", **TINY}


def command(capsys, *arguments):
    """Exit status, lines of standard output and standard error of the command."""
    with pytest.raises(SystemExit) as caught:
        cli.run(bench.main, "bench", [str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    return caught.value.code, out.splitlines(), err


def measured(**settings):
    return bench.bench(bench.BenchSettings(**{"rounds": 1} | settings))


def positive(numbers):
    return all(math.isfinite(number) and number > 0 for number in numbers)


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(bench, "PAUSE", 0)


def counted(what):
    """{name: part} of one forward pass or step of the net at 256x256, and its FLOPs."""
    side = bench_sides.Ours()
    _, flops = side.start(
        {"what": what, "size": 256, "batch": 1, "width": 32, "device": "cpu", "layers": True}
    )
    side.time()
    for holder, method, function in side.watched:  # a worker's process ends, this one goes on
        setattr(holder, method, function)
    assert flops == sum(sum(part["flops"]) for part in side.parts.values())
    return side.parts, flops


def test_flops_of_the_net_and_of_a_step():
    """Two for each multiply-add, by hand from the sizes in Table 1. In a step: the net forward and two
    gradients, but no input gradient at the first layer; VGG twice forward (the photo up to relu3_3) and one
    gradient."""
    by_hand = {
        "conv1": 1_755_758_592,  # 336*336 pixels * 9*9*3 * 32 * 2
        "conv2": 1_040_449_536,  # 168*168 * 3*3*32 * 64 * 2
        "conv3": 1_040_449_536,  # 84*84 * 3*3*64 * 128 * 2
        "up1": 603_979_776,  # 64*64 input pixels * 3*3*128 * 64 * 2
        "up2": 603_979_776,  # 128*128 * 3*3*64 * 32 * 2
        "out": 1_019_215_872,  # 256*256 * 9*9*32 * 3 * 2
    }
    for k, side in enumerate((82, 80, 78, 76, 74, 72, 70, 68, 66, 64)):  # unpadded: each removes 2 pixels
        by_hand[f"residual{k // 2 + 1}.conv{k % 2 + 1}"] = side * side * 294_912  # 3*3*128 * 128 * 2
    parts, net = counted("stylize")
    assert {name: part["flops"][0] for name, part in parts.items() if part["kernel"]} == by_hand
    assert (parts["conv1"]["kernel"], parts["conv1"]["output"]) == ("9x9 3 -> 32", (336, 336))
    assert (parts["up1"]["kernel"], parts["up1"]["output"]) == ("3x3 128 -> 64", (128, 128))
    parts, step = counted("train")
    last = parts["vgg conv4_3"]
    assert (last["kernel"], last["output"], last["flops"]) == (
        "3x3 512 -> 512",
        (32, 32),
        2 * [4_831_838_208],
    )
    assert step == 3 * net - 1_755_758_592 + 2 * 36_465_278_976 + 24_385_683_456
    assert bench_sides.Ours().start(BACKWARD)[1] == 1_474_560


def test_a_training_step_without_kernels_is_about_two_thousand_launches(strict):
    """As many for a small step as for a large one, except at sides that are no multiple of 4, whose last
    tiles take one more copy. Each costs the GPU a few microseconds, whatever its size."""
    counts = []
    for batch, size in ((1, 32), (2, 48)):
        task = bench_sides.Task(2, strict)
        adam = Adam(task.net.parameters(), 1e-3)
        photos = np.random.default_rng(0).uniform(0, 255, (batch, size, size, 3)).astype(np.float32)
        strict.reset_counters()
        task.step((0, photos))
        adam.step(task.net.gradients())
        counts.append(strict.launches)
    assert max(counts) <= 2100
    assert max(counts) - min(counts) <= 20


def test_a_worker():
    shapes = {
        "train": [()] * 8,  # four losses of two steps
        "stylize": [(1, 32, 32, 3)],
        "conv forward": [(2, 8, 8, 20)],
        "conv backward": [(2, 8, 8, 16), (3, 3, 16, 20)],
    }
    with Worker("ours") as worker:
        for what, expected in shapes.items():
            results, flops = worker.ask("start", {"what": what, **(CONV if "conv" in what else TINY)})
            assert [result.shape for result in results] == expected and flops > 0
            assert all(np.isfinite(result).all() and np.any(result) for result in results)
            assert what != "train" or results[7] != results[3]  # Adam moved the weights
            seconds, parts = worker.ask("time")
            assert seconds > 0 and parts is None
        blas = [part for part in worker.call(threadpool_info) if part["user_api"] == "blas"]
        assert blas and all(part["num_threads"] == threads() for part in blas)
        assert 2**24 < worker.ask("peak_memory") < 2**33
        if importlib.util.find_spec("cupy") is None:
            with pytest.raises(DeviceError, match="--device cuda needs CuPy"):
                worker.ask("start", STYLIZE | {"device": "cuda"})
        with pytest.raises(UserError, match="ours: the process ended, probably out of memory"):
            worker.call(os.kill, worker.process, signal.SIGKILL)


class Scripted:
    """A worker with given answers."""

    def __init__(self, result, *seconds):
        self.result, self.seconds = result, iter(seconds)

    def ask(self, method, *_):
        answers = {"start": ([np.array(self.result)], 1_474_560), "peak_memory": 1e9}
        return answers[method] if method in answers else (next(self.seconds), None)


def test_the_ratio_is_of_the_faster_peer(quick):
    slow, fast = Scripted([100.0, 50.5], 30.0, 30.0, 30.0), Scripted([100.0, 50.2], 4.0, 4.0, 6.0)
    workers = {"ours": Scripted([100.0, 50.0], 1.0, 2.0, 4.0), "torch": slow, "torch channels-last": fast}
    row = measure(workers, BACKWARD, 3)
    assert (row["peer"], row["ratio"]) == ("torch channels-last", [2.0, 1.5, 4.0])
    assert row["difference"] == {"torch": pytest.approx(0.005), "torch channels-last": pytest.approx(0.002)}
    assert row["gflops"]["ours"] == pytest.approx(1_474_560 / 2 / 1e9)


def test_a_side_with_other_results_is_no_peer(quick, capsys):
    other = Scripted([8.8], 2.0)
    workers = {"ours": Scripted([9.0], 1.0), "torch": Scripted([9.0], 3.0), "torch channels-last": other}
    row = measure(workers, STYLIZE, 1)
    assert (row["peer"], row["ratio"]) == ("torch", [3.0, 3.0, 3.0])
    bench._show(row)
    expected = "torch channels-last computes something else (it differs by 2.3e-02, more than 0.01)"
    assert expected in capsys.readouterr().out


@pytest.mark.parametrize("wrong", [102.0, float("nan")])
def test_no_ratio_where_the_results_differ(quick, monkeypatch, capsys, wrong):
    row = measure({"ours": Scripted([100.0], 1.0), "onnxruntime": Scripted([wrong], 3.0)}, STYLIZE, 1)
    assert row["ratio"] is None
    monkeypatch.setattr(bench, "Worker", bench.contextlib.nullcontext)
    monkeypatch.setattr(bench, "measure", lambda *_: row)
    monkeypatch.setattr(bench.BenchSettings, "check", lambda self: None)
    monkeypatch.setitem(bench.PEERS, "onnxruntime", ())
    status, out, _ = command(capsys, "--peer", "onnxruntime")
    assert status == 1
    assert (
        "no ratio" in out[-2] and "onnxruntime computes something else" in out[-1] and "3.00" not in out[-2]
    )


def test_difference_is_relative_to_each_array():
    assert difference([np.array([1.0, 3.0])], [np.array([1.0, 4.0])]) == 0.25
    assert difference([np.array([1e9]), np.array([2e-6])], [np.array([1e9]), np.array([1e-6])]) == 1.0
    assert math.isnan(difference([np.ones(1), np.array([np.nan])], [np.ones(1), np.ones(1)]))


@pytest.mark.parametrize("peer", bench.PEERS)
def test_a_peer_computes_the_same(peer):
    for name in bench.PEERS[peer]:
        pytest.importorskip(name)
    rows = measured(peer=peer, sizes=50, batches=2, width=3)
    assert [row["what"] for row in rows] == (["train"] if peer == "torch" else []) + ["stylize"]
    for row in rows:
        assert max(row["difference"].values()) < 1e-3
        assert positive([*row["ratio"], *row["memory"].values(), *row["gflops"].values()])
    if peer == "torch":
        with Worker("ours") as ours, Worker("torch") as torch:
            for what in ("conv forward", "conv backward"):
                row = measure({"ours": ours, "torch": torch}, BACKWARD | {"what": what}, 1)
                assert row["difference"]["torch"] < 1e-3


def test_a_sweep_prints_a_table_and_draws_a_plot(quick, capsys, tmp_path):
    plot = tmp_path / "new/sweep.png"
    rows = measured(sweep=True, sizes=[32, 48], batches=[1, 2], width=2, rounds=2, plot=plot)
    cases = [(32, 1), (48, 1), (32, 2), (48, 2)]
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert f"numpy {np.__version__}" in " ".join(lines[0])
    lines = [line for line in lines if line and line[0] == "stylize"]
    assert [(int(line[1]), int(line[2])) for line in lines] == cases
    assert positive(float(word) for line in lines for word in line[1:])
    with Image.open(plot) as image:
        assert image.format == "PNG" and image.width > 1000
        assert len(image.convert("RGB").getcolors(10**6)) > 50  # lines in several colours
    assert list(tmp_path.rglob("*.*")) == [plot]
    assert [(row["size"], row["batch"]) for row in rows] == cases
    assert all(len(row["times"]["ours"]) == 2 and positive(row["times"]["ours"]) for row in rows)


def test_layers(quick, capsys, tmp_path):
    [row] = measured(layers=True, sizes=32, batches=2, width=2, json=tmp_path / "a.json")
    written = json.loads((tmp_path / "a.json").read_text())
    assert written["rows"][0]["times"] == row["times"] and f"numpy {np.__version__}" in written["software"]
    layers = row["layers"]
    assert sum(name.startswith("vgg conv") for name in layers) == 10
    assert {"pad", "residual3.norm2", "up2", "tanh", "vgg pool1", "style losses", "Adam"} <= layers.keys()
    for name, layer in layers.items():
        assert positive(layer["seconds"][: 2 if layer["kernel"] else 1]), name
    assert sum(sum(layer["seconds"]) for layer in layers.values()) < row["times"]["ours"][0]
    assert sum(sum(layer["flops"]) for layer in layers.values()) == row["flops"]
    assert layers.keys() | {"all else"} <= {
        line[:20].rstrip() for line in capsys.readouterr().out.splitlines()
    }


def test_convs(quick):
    rows = measured(convs=True, sizes=16)
    assert [row["size"] for row in rows] == 2 * [16, 16, 8, 8, 4, 4, 2, 2, 1]
    assert [row["what"] for row in rows] == 9 * ["conv forward"] + 9 * ["conv backward"]
    assert all(positive(row["times"]["ours"]) and positive(row["gflops"].values()) for row in rows)


@pytest.mark.parametrize("peer", bench.PEERS)
def test_a_missing_peer(capsys, monkeypatch, peer):
    missing = bench.PEERS[peer][-1]
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == missing else "found")
    expected = f"--peer {peer} needs {missing}, which is not installed: pip install 'tinynst[bench]'"
    assert command(capsys, "--peer", peer) == (2, [], f"tinynst bench: {expected}\n")
