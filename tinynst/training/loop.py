"""The loop that all training shares: batch, step, optimiser, log, checkpoint.

A task says what is learned from what; the loop knows nothing about images. A task has

    net                     parameters(), learnt(), gradients(), buffers(): dicts of arrays rates
    {parameter: factor on its learning rate}, for those where it is not 1 batches(start)          a context
    manager that iterates over batches from number `start` on; batch k depends on k alone step(batch)
    forward and backward; returns {term: float, ..., "total": float}; gradients are left in `net` state()
    what a checkpoint needs beside the net and the settings; {"inputs": ...} must match on resume sheet()
    an image (H, W, 3) of what the net can do so far save_weights(path, iteration, losses)       the net for
    use
"""

import contextlib
import csv
import itertools
import math
import signal
import sys
import threading
import time
import warnings
from pathlib import Path

import numpy as np
from tqdm import TqdmWarning

with warnings.catch_warnings():  # without ipywidgets a notebook gets a bar of characters, without a warning
    warnings.simplefilter("ignore", TqdmWarning)
    from tqdm.auto import tqdm
from tqdm.notebook import tqdm_notebook

from ..data import checkpoint, images
from ..data.files import only_run, written_whole
from ..device import copy_arrays, to_numpy
from ..errors import UserError
from ..optim import Adam


def learning_rate(iteration, iterations, lr, rise=0, fall=0.0):
    """The rate at `iteration` (from 0): it rises linearly to `lr` over the first `rise` iterations and falls
    linearly to zero over the last fraction `fall` of the run."""
    lr *= min(1.0, (iteration + 1) / rise) if rise else 1.0
    left = (iterations - iteration) / iterations
    return lr * min(1.0, left / fall) if fall else lr


class Loop:
    """Steps up to number `iterations` in the folder `out`: progress, every term of every step in losses.csv
    and in the plot losses.png, `save()` each `every` steps and at the end. A subclass has `step(batch)`,
    which returns {term: float}, and `save()`. `losses` is a list of dicts: [{"iteration": 1, "content": ...,
    "total": ...}, ...]."""

    title = "Losses"

    def __init__(self, out, iterations, every):
        self.out, self.iterations, self.every = Path(out), iterations, every
        self.iteration, self.losses, self._stop = 0, [], False

    @property
    def finished(self):
        return self.iteration >= self.iterations

    def batches(self):
        """A context manager that iterates over what each step is given."""
        return contextlib.nullcontext(itertools.repeat(None))

    def continue_from(self, iteration):
        """Continue after this iteration, with the losses up to it."""
        self.iteration, self.losses = iteration, _read_losses(self.out / "losses.csv", iteration)

    def run(self):
        """Run to the end, or until Ctrl-C or SIGTERM, which stop the run after the current step and save
        it."""
        self.out.mkdir(parents=True, exist_ok=True)
        in_main = threading.current_thread() is threading.main_thread()  # only there handlers can be set
        signals = (signal.SIGINT, signal.SIGTERM) if in_main else ()
        handlers = {each: signal.signal(each, self._ask_to_stop) for each in signals}
        try:
            with only_run(self.out), self.batches() as batches:
                self._run(batches)
                self.save()
        except BlockingIOError:
            raise UserError(f"another run uses {self.out}: wait for it, or choose another --out") from None
        finally:
            for each, handler in handlers.items():
                signal.signal(each, handler)

    def _run(self, batches):
        path = self.out / "losses.csv"
        with written_whole(path) as temporary, open(temporary, "w", newline="") as log:
            for row in self.losses:  # none from after the checkpoint that the run continues from
                self._log(log, row)
        with (
            open(path, "a", newline="") as log,
            _Progress(self.iteration, self.iterations) as progress,
            np.errstate(all="ignore"),  # a loss that diverges is reported by `step`
        ):
            while not self.finished and not self._stop:
                terms = self.step(next(batches))
                self.iteration += 1
                self.losses.append({"iteration": self.iteration, **terms})
                self._log(log, self.losses[-1])
                progress.show(self.iteration, terms)
                if self.iteration % self.every == 0 and not self.finished:
                    self.save()

    def _log(self, file, row):
        if row is self.losses[0]:
            csv.writer(file).writerow(row)
        csv.writer(file).writerow(row.values())
        file.flush()

    def _ask_to_stop(self, signum, frame):
        if self._stop:
            raise KeyboardInterrupt  # asked twice: stop at once, without saving
        self._stop = True
        print("stopping after this step; Ctrl-C again stops at once", file=sys.stderr)

    def plot(self):
        """Draw losses.png."""
        if self.losses:
            _plot(self.out / "losses.png", self.losses, self.title)


class Trainer(Loop):
    """Trains a task as `settings` (a TrainingSettings) say, with everything it writes in the folder
    settings.out:

        losses.csv, losses.png      every term at every iteration; the plot
        samples/000500.png          the task's sheet so far
        weights.h5                  the net so far, for use
        checkpoint.h5               all that --resume needs: weights, Adam's moments, iteration, settings

    Batches are numbered, so the iteration is the whole random state. A loss that is not finite raises
    UserError and leaves the last checkpoint as it is.
    """

    title = "Training losses"

    def __init__(self, task, settings):
        super().__init__(settings.out, settings.iterations, settings.every)
        self.task, self.settings, self.net = task, settings, task.net
        self.adam = Adam(self.net.learnt(), settings.lr)
        self.adam.rates = task.rates

    def batches(self):
        return self.task.batches(self.iteration)

    def step(self, batch):
        s, terms = self.settings, self.task.step(batch)
        if not all(map(math.isfinite, terms.values())):
            raise self._diverged(", ".join(f"{name} {value:g}" for name, value in terms.items()))
        self.adam.lr = learning_rate(self.iteration, s.iterations, s.lr, s.lr_rise, s.lr_fall)
        self.adam.step(self.net.gradients())
        return terms

    def resume(self, arrays, state):
        """Continue from what `checkpoint.load` returned."""
        for name, now in self.task.state().get("inputs", {}).items():
            before = (state.get("inputs") or {}).get(name, now)  # very old checkpoints do not record it
            if before != now:
                where = ", ".join(self.settings.style) if name == "painting" else self.settings.content
                change = f"({name}: {str(before)[:8]}, now {str(now)[:8]})"
                raise UserError(f"{where} has changed since the run was started {change}")
        try:
            copy_arrays(arrays["net"], self._net_arrays())
            self.adam.load(arrays, state["iteration"])
        except (KeyError, ValueError) as error:
            raise UserError(f"the checkpoint in {self.out} does not fit this net: {error}") from None
        self.continue_from(state["iteration"])

    def save(self):
        """Write checkpoint, weights, plot and sheet, each whole or not at all; the checkpoint first."""
        groups = {"net": self._net_arrays(), **self.adam.state()[0]}
        groups = {
            group: {k: to_numpy(array) for k, array in named.items()} for group, named in groups.items()
        }
        for group, named in groups.items():
            for name, array in named.items():
                if not np.isfinite(array).all():
                    owner = "the net" if group == "net" else f"Adam's {group}"
                    raise self._diverged(f"{name} of {owner} holds a number that is not finite")
        try:
            sheet = self.task.sheet()
        except ValueError as error:  # finite weights can still overflow
            raise self._diverged(error) from None
        state = {"iteration": self.iteration, "settings": self.settings.to_dict(), **self.task.state()}
        checkpoint.save(self.out / "checkpoint.h5", groups, state)
        last = self.losses[-100:]
        means = {name: sum(row[name] for row in last) / len(last) for name in last[0]} if last else {}
        means.pop("iteration", None)
        self.task.save_weights(self.out / "weights.h5", self.iteration, means)
        images.save(self.out / "samples" / f"{self.iteration:06}.png", sheet)
        self.plot()

    def _net_arrays(self):
        return {**self.net.parameters(), **self.net.buffers()}

    def _diverged(self, what):
        kept = self.out / "checkpoint.h5"
        left = f"{kept} holds the last good state" if kept.exists() else "nothing was saved yet"
        advice = f"a lower learning rate (--lr {self.settings.lr / 4:g}) or lower loss weights"
        return UserError(
            f"stopped at iteration {self.iteration + 1}: {what}; {left}. "
            f"Start again in another --out with {advice}"
        )


class _Progress:
    """A bar in a terminal or a notebook; elsewhere a plain line every ten seconds."""

    def __init__(self, start, total):
        self.start, self.total, self.begin, self.last = start, total, time.monotonic(), -math.inf
        shown_if = False if issubclass(tqdm, tqdm_notebook) else None  # None: only where stderr is a terminal
        self.bar = tqdm(total=total, initial=start, unit="it", disable=shown_if)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.bar.close()

    def show(self, iteration, terms):
        text = "  ".join(f"{name} {value:.4g}" for name, value in terms.items())
        now = time.monotonic()
        if not self.bar.disable:
            self.bar.set_postfix_str(text, refresh=False)
            self.bar.update()
        elif now - self.last >= 10 or iteration == self.total:
            self.last, rate = now, (iteration - self.start) / max(now - self.begin, 1e-9)
            left = tqdm.format_interval((self.total - iteration) / rate)
            line = f"iteration {iteration}/{self.total}  {text}  {rate:.2f} it/s  {left} left"
            print(line, file=sys.stderr, flush=True)


def _read_losses(path, last):
    """The rows of losses.csv up to iteration `last`: a later one may be cut short."""
    rows = []
    if path.exists():
        with open(path, newline="") as file:
            for row in csv.DictReader(file):
                if None in row.values() or int(row["iteration"]) > last:
                    break
                rows.append(
                    {"iteration": int(row.pop("iteration")), **{name: float(row[name]) for name in row}}
                )
    return rows


def _plot(path, losses, title):
    """Draw each term over the iterations, on a logarithmic scale: every value faintly, its running mean on
    top."""
    from matplotlib.figure import Figure  # takes half a second to import

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.add_subplot(yscale="log", xlabel="iteration", ylabel="weighted loss", title=title)
    iterations = np.array([row["iteration"] for row in losses])
    end = np.arange(1, len(losses) + 1)
    begin = np.maximum(0, end - max(1, len(losses) // 50))
    for name in list(losses[0])[1:]:
        values = np.array([row[name] for row in losses])
        if values.max() > 0:  # otherwise the term is switched off
            sums = np.cumsum([0.0, *values])
            (line,) = axes.plot(
                iterations, (sums[end] - sums[begin]) / (end - begin), label=name, linewidth=1.5
            )
            axes.plot(iterations, values, color=line.get_color(), alpha=0.25, linewidth=0.7)
    axes.grid(alpha=0.3, which="both")
    axes.legend()
    with written_whole(path) as temporary:
        figure.savefig(temporary, dpi=120)
