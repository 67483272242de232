import contextlib
import itertools
import math
import os
import signal
import subprocess
import sys

import numpy as np
import pytest

from tinynst.data import checkpoint, images
from tinynst.data.files import only_run
from tinynst.errors import UserError
from tinynst.training.loop import Trainer, learning_rate
from tinynst.training.run import TrainingSettings


class Line:
    """The smallest net: y = a * x + b."""

    def __init__(self):
        self.p = {"a": np.zeros(1, np.float32), "b": np.zeros(1, np.float32)}
        self.g, self.kept = {}, {"calls": np.zeros(1, np.float32)}

    def parameters(self):
        return self.p

    learnt = parameters

    def gradients(self):
        return self.g

    def buffers(self):
        return self.kept


class LineTask:
    """Learn y = 3x - 1; batch k depends on k alone."""

    def __init__(self, spoil_at=None, stop_at=None):
        self.net, self.rates, self.seen, self.spoil_at, self.stop_at = Line(), {}, [], spoil_at, stop_at

    @contextlib.contextmanager
    def batches(self, start):
        yield (
            (k, np.random.default_rng(k).uniform(-1, 1, 8).astype(np.float32)) for k in itertools.count(start)
        )

    def step(self, batch):
        k, x = batch
        self.seen.append(k)
        self.net.kept["calls"] += 1
        error = self.net.p["a"] * x + self.net.p["b"] - (3 * x - 1)
        self.net.g = {"a": 2 * (error * x).mean(keepdims=True), "b": 2 * error.mean(keepdims=True)}
        if k == self.stop_at:
            os.kill(os.getpid(), signal.SIGINT)
        value = math.nan if k == self.spoil_at else float((error**2).mean())
        return {"square": value, "total": value}

    def state(self):
        return {}

    def sheet(self):
        return np.full((4, 4, 3), 7, np.uint8)

    def save_weights(self, path, iteration, losses):
        checkpoint.save(path, {"net": self.net.p}, {"iteration": iteration, "losses": losses})


def train(task, out, iterations, every=10, resume=False):
    trainer = Trainer(task, TrainingSettings(out=out, iterations=iterations, every=every, lr=0.05))
    if resume:
        trainer.resume(*checkpoint.load(out / "checkpoint.h5"))
    trainer.run()
    return trainer, trainer.finished


def test_a_run_learns_and_writes_everything(tmp_path):
    task = LineTask()
    trainer, finished = train(task, tmp_path, 300, every=100)
    assert finished and trainer.iteration == 300 and task.seen == list(range(300))
    assert abs(task.net.p["a"] - 3) < 0.1 and abs(task.net.p["b"] + 1) < 0.1
    rows = (tmp_path / "losses.csv").read_text().splitlines()
    assert rows[0] == "iteration,square,total" and len(rows) == 301 and rows[-1].startswith("300,")
    assert float(rows[1].split(",")[2]) > 50 * float(rows[-1].split(",")[2])
    assert images.load(tmp_path / "losses.png").shape[2] == 3
    assert sorted(p.name for p in (tmp_path / "samples").iterdir()) == [
        "000100.png",
        "000200.png",
        "000300.png",
    ]
    arrays, state = checkpoint.load(tmp_path / "checkpoint.h5")
    assert state["iteration"] == 300 and state["settings"]["lr"] == 0.05
    assert np.array_equal(arrays["net"]["a"], task.net.p["a"]) and set(arrays) == {"net", "m", "v"}
    _, about = checkpoint.load(tmp_path / "weights.h5")
    last = [float(row.split(",")[2]) for row in rows[-100:]]
    assert math.isclose(about["losses"]["total"], sum(last) / 100, rel_tol=1e-12)


def test_interrupted_and_resumed_is_bit_for_bit_the_same(tmp_path):
    whole, _ = train(LineTask(), tmp_path / "whole", 50)
    first, finished = train(LineTask(stop_at=22), tmp_path / "parts", 50)  # Ctrl-C in the step of batch 22
    assert not finished and first.iteration == 23
    task = LineTask()
    second, finished = train(task, tmp_path / "parts", 50, resume=True)
    assert finished and task.seen == list(range(23, 50))
    for kind in ("parameters", "buffers"):
        for name, array in getattr(whole.task.net, kind)().items():
            assert np.array_equal(array, getattr(task.net, kind)()[name]), name
    for name in whole.adam.m:
        assert np.array_equal(whole.adam.v[name], second.adam.v[name])
    assert (tmp_path / "whole/losses.csv").read_bytes() == (tmp_path / "parts/losses.csv").read_bytes()


def test_rows_after_the_checkpoint_are_dropped_and_done_again(tmp_path):
    train(LineTask(), tmp_path / "whole", 40)
    train(LineTask(), tmp_path / "parts", 20)
    with open(tmp_path / "parts/losses.csv", "a") as log:
        log.write("21,9,9\n22,9,9\n23,")  # a kill in the middle of a row
    train(LineTask(), tmp_path / "parts", 40, resume=True)
    assert (tmp_path / "whole/losses.csv").read_bytes() == (tmp_path / "parts/losses.csv").read_bytes()


def test_a_loss_that_is_not_finite_stops_the_run_and_leaves_the_last_checkpoint(tmp_path):
    with pytest.raises(UserError) as error:
        train(LineTask(spoil_at=33), tmp_path, 50)
    message = str(error.value)
    assert (
        "iteration 34" in message
        and "square nan" in message
        and "--lr 0.0125" in message
        and "\n" not in message
    )
    assert str(tmp_path / "checkpoint.h5") in message
    assert checkpoint.load(tmp_path / "checkpoint.h5")[1]["iteration"] == 30


def test_weights_that_are_not_finite_are_never_saved(tmp_path):
    task = LineTask()
    trainer, _ = train(task, tmp_path, 10)
    task.net.p["b"][0] = np.inf
    with pytest.raises(UserError, match="b of the net holds a number that is not finite"):
        trainer.save()
    assert np.isfinite(checkpoint.load(tmp_path / "checkpoint.h5")[0]["net"]["b"])


def test_the_signal_handlers_are_given_back(tmp_path):
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    train(LineTask(stop_at=3), tmp_path, 5)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_learning_rate_schedules():
    rates = [learning_rate(k, 10, 1.0) for k in range(10)]
    assert rates == [1.0] * 10
    assert [learning_rate(k, 10, 1.0, rise=4) for k in (0, 1, 3, 4)] == [0.25, 0.5, 1, 1]
    fall = [learning_rate(k, 10, 1.0, fall=0.5) for k in range(10)]
    assert fall[:6] == [1] * 6 and np.allclose(fall[5:], [1, 0.8, 0.6, 0.4, 0.2])


def test_two_runs_in_one_folder_are_refused(tmp_path):
    task = LineTask()
    with only_run(tmp_path), pytest.raises(UserError, match="another run uses"):
        train(task, tmp_path, 5)
    assert task.seen == [] and not (tmp_path / "checkpoint.h5").exists()
    train(task, tmp_path, 5)
    assert checkpoint.load(tmp_path / "checkpoint.h5")[1]["iteration"] == 5


def test_what_a_killed_run_left_half_written_is_swept_away(tmp_path):
    left = tmp_path / ".checkpoint.12345.part.h5"
    left.write_text("half")
    train(LineTask(), tmp_path, 2)
    assert not left.exists()


def test_a_checkpoint_of_another_net_is_refused(tmp_path):
    train(LineTask(), tmp_path, 2)
    arrays, state = checkpoint.load(tmp_path / "checkpoint.h5")
    arrays["m"]["a"] = np.zeros((1, 2), np.float32)
    with pytest.raises(UserError, match="does not fit this net: a has shape"):
        Trainer(LineTask(), TrainingSettings(out=tmp_path)).resume(arrays, state)


@pytest.mark.skipif(sys.platform == "win32", reason="needs RLIMIT_FSIZE")
def test_a_full_disk_is_an_error_and_leaves_the_old_checkpoint(tmp_path):
    path = tmp_path / "checkpoint.h5"
    checkpoint.save(path, {"net": {"a": np.ones(3)}}, {"iteration": 1})
    code = (
        "import resource, sys, numpy as np; from tinynst.data import checkpoint\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (30000, 30000))\n"
        "try: checkpoint.save(sys.argv[1], {'net': {'a': np.ones(100000)}}, {'iteration': 2})\n"
        "except OSError as error: sys.exit('refused: ' + str(error))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.startswith("refused:"), (done.returncode, done.stderr)
    assert checkpoint.load(path)[1] == {"iteration": 1} and [p.name for p in tmp_path.iterdir()] == [
        "checkpoint.h5"
    ]
