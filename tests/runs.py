"""What the tests of training and optimisation share: reading a run's folder, and killing a run."""

import csv
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from tinynst.data import checkpoint
from tinynst.training import loop


@pytest.fixture(scope="module", autouse=True)
def without_plots():
    """Without plots, which take most of the time of these tests."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(loop, "_plot", lambda path, losses, title: None)
        yield


def net_of(out):
    return checkpoint.load(out / "checkpoint.h5")[0]["net"]


def same(a, b):
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


def same_run(out, other):
    """Whether two runs ended with the same numbers, bit for bit, in the checkpoint and the losses."""
    (a, state), (b, other_state) = (checkpoint.load(each / "checkpoint.h5") for each in (out, other))
    assert a.keys() == b.keys() and all(same(a[group], b[group]) for group in a)
    assert [state[name] for name in state if name != "settings"] == [
        other_state[name] for name in state if name != "settings"
    ]
    return (out / "losses.csv").read_bytes() == (other / "losses.csv").read_bytes()


def losses(out):
    with open(out / "losses.csv", newline="") as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]


def iterations(out):
    try:
        return max(0, (out / "losses.csv").read_text().count("\n") - 1)
    except FileNotFoundError:
        return 0


def kill_and_resume(command, options, out, moments):
    """Run the command, kill it (SIGKILL, nothing can be tidied up) at each of these iterations, and let the
    last run end."""
    command = [sys.executable, "-m", *command, "--out", str(out)]
    for moment in moments:
        arguments = ["--resume"] if (out / "checkpoint.h5").exists() else options
        with subprocess.Popen(
            [*command, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        ) as run:
            while run.poll() is None and iterations(out) < moment:
                time.sleep(0.002)
            run.send_signal(signal.SIGKILL)
            errors = run.stderr.read().decode()
        assert "Error" not in errors, errors
        assert run.returncode == -signal.SIGKILL  # before its end
    subprocess.run([*command, "--resume"], check=True, capture_output=True)
