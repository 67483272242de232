"""The loop of training, with the smallest net."""

import contextlib
import itertools
import math
import os
import shutil
import signal

import numpy as np
import pytest
from runs import losses, same_run

from tinynst.data import checkpoint, images
from tinynst.data.files import only_run
from tinynst.errors import UserError
from tinynst.training import loop
from tinynst.training import task as training
from tinynst.training.task import TrainingSettings, TrainingTask, learning_rate


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

    def about(self):
        return {"kind": "line"}


class LineTask(TrainingTask):
    """Learn y = 3x - 1; batch k depends on k alone."""

    title, use = "line", "use {}"

    def __init__(self, out, iterations, every=10, spoil_at=None, stop_at=None):
        super().__init__(
            TrainingSettings(out=out, iterations=iterations, every=every, lr=0.05, content="-"), np
        )
        self.seen, self.spoil_at, self.stop_at = [], spoil_at, stop_at
        self.learn(Line())

    def batches(self):
        return contextlib.nullcontext(
            np.random.default_rng(k).uniform(-1, 1, 8).astype(np.float32)
            for k in itertools.count(self.iteration)
        )

    def choose(self, k):
        return k

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

    def sample(self):
        return np.full((4, 4, 3), 7, np.uint8)

    def about(self):
        return {}, None


class NoPhotos(tuple):
    skipped = 0


@pytest.fixture(autouse=True)
def no_photos(monkeypatch):
    monkeypatch.setattr(training.photos, "open_dataset", lambda path, side: NoPhotos())


@pytest.fixture
def no_plot(monkeypatch):
    """Plots take most of the time of these tests."""
    monkeypatch.setattr(loop, "_plot", lambda path, losses, title: None)


def train(out, iterations, resume=False, **options):
    task = LineTask(out, iterations, **options)
    if resume:
        task.resume(*checkpoint.load(out / "checkpoint.h5"))
    task.run()
    return task


def test_a_run_learns_and_writes_everything(tmp_path):
    task = train(tmp_path, 300, every=150)
    assert task.finished and task.iteration == 300 and task.seen == list(range(300))
    assert abs(task.net.p["a"] - 3) < 0.1 and abs(task.net.p["b"] + 1) < 0.1
    rows = losses(tmp_path)
    assert rows == task.losses and list(rows[0]) == ["iteration", "square", "total"]
    assert [row["iteration"] for row in rows] == list(range(1, 301))
    assert rows[0]["total"] > 50 * rows[-1]["total"]
    assert images.load(tmp_path / "losses.png").shape[2] == 3
    samples = sorted(path.name for path in (tmp_path / "samples").iterdir())
    assert samples == ["000150.png", "000300.png"]
    arrays, state = checkpoint.load(tmp_path / "checkpoint.h5")
    assert state["iteration"] == 300 and state["settings"]["lr"] == 0.05
    assert np.array_equal(arrays["net"]["a"], task.net.p["a"]) and set(arrays) == {"net", "m", "v"}
    about = training.weights.read_about(tmp_path / "weights.h5")
    mean = sum(row["total"] for row in rows[-100:]) / 100
    assert math.isclose(about["losses"]["total"], mean, rel_tol=1e-12)


def test_interrupted_and_resumed_is_bit_for_bit_the_same(tmp_path, no_plot):
    """Ctrl-C in the step of batch 22; then rows after the checkpoint, the last cut short by a kill."""
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    train(tmp_path / "whole", 50)
    first = train(tmp_path / "parts", 50, stop_at=22)
    assert not first.finished and first.iteration == 23
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
    with open(tmp_path / "parts/losses.csv", "a") as log:
        log.write("24,9,9\n25,9,9\n2")
    second = train(tmp_path / "parts", 50, resume=True)
    assert second.finished and second.seen == list(range(23, 50))
    assert same_run(tmp_path / "whole", tmp_path / "parts")


@pytest.mark.parametrize("when", [13, 30])
def test_the_folder_is_removed_during_the_run(tmp_path, no_plot, monkeypatch, when):
    """In a step, or while the end is saved: all losses and the net are saved again, and the status is 1."""
    train(tmp_path / "whole", 30)
    task, save = LineTask(tmp_path / "run", 30), images.save

    def saved(path, picture):
        save(path, picture)
        if task.iteration == when and not task.lost:
            shutil.rmtree(tmp_path / "run")

    def chosen(k):
        if k == when:
            shutil.rmtree(tmp_path / "run")
        return k

    monkeypatch.setattr(images, "save", saved)
    task.choose = chosen
    task.run()
    assert task.lost and task.status == 1 and same_run(tmp_path / "whole", tmp_path / "run")


def test_a_loss_that_is_not_finite_stops_the_run_and_leaves_the_last_checkpoint(tmp_path, no_plot):
    with pytest.raises(UserError) as error:
        train(tmp_path, 50, spoil_at=33)
    message = str(error.value)
    assert "iteration 34: square nan" in message and "--lr 0.0125" in message and "\n" not in message
    assert str(tmp_path / "checkpoint.h5") in message
    assert checkpoint.load(tmp_path / "checkpoint.h5")[1]["iteration"] == 30


def test_losses_that_are_read_together_are_the_same(tmp_path, no_plot, monkeypatch):
    """As on a GPU: interrupted, finished and diverged runs leave the rows that they leave on the CPU."""
    for number in (training.READ_EVERY, 1):
        fixed = property(lambda self, number=number: number, lambda *_: None)
        monkeypatch.setattr(LineTask, "read_every", fixed, raising=False)
        out = tmp_path / str(number)
        assert train(out / "stopped", 50, every=8, stop_at=22).iteration == 23
        train(out / "whole", 29, every=8)
        with pytest.raises(UserError, match="iteration 14: square nan"):
            train(out / "diverged", 50, every=8, spoil_at=13)
    for name, rows in (("stopped", 23), ("whole", 29), ("diverged", 13)):
        together, alone = (losses(tmp_path / str(number) / name) for number in (training.READ_EVERY, 1))
        assert together == alone and len(alone) == rows


def test_weights_that_are_not_finite_are_never_saved(tmp_path, no_plot):
    task = train(tmp_path, 10)
    task.net.p["b"][0] = np.inf
    with pytest.raises(UserError, match=r"net\.b holds a number that is not finite"):
        task.save()
    assert np.isfinite(checkpoint.load(tmp_path / "checkpoint.h5")[0]["net"]["b"])


def test_learning_rate_schedules():
    assert [learning_rate(k, 10, 1.0) for k in range(10)] == [1.0] * 10
    assert [learning_rate(k, 10, 1.0, rise=4) for k in (0, 1, 3, 4)] == [0.25, 0.5, 1, 1]
    fall = [learning_rate(k, 10, 1.0, fall=0.5) for k in range(10)]
    assert fall[:6] == [1] * 6 and np.allclose(fall[5:], [1, 0.8, 0.6, 0.4, 0.2])


def test_two_runs_in_one_folder_are_refused(tmp_path, no_plot):
    with only_run(tmp_path), pytest.raises(UserError, match="another run uses"):
        train(tmp_path, 5)
    assert not (tmp_path / "checkpoint.h5").exists()
    left = tmp_path / ".checkpoint.12345.part.h5"  # of a run that was killed
    left.write_text("half")
    assert train(tmp_path, 5).finished and not left.exists()


def test_a_checkpoint_of_another_net_is_refused(tmp_path, no_plot):
    train(tmp_path, 2)
    arrays, state = checkpoint.load(tmp_path / "checkpoint.h5")
    arrays["m"]["a"] = np.zeros((1, 2), np.float32)
    with pytest.raises(UserError, match="does not fit these settings: a has shape"):
        LineTask(tmp_path, 2).resume(arrays, state)
