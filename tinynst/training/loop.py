"""The loop that every task shares: batch, step, optimiser, log, checkpoint.

A task says what is learnt from what; the trainer knows nothing about pictures. A task has

    net                     parameters(), learnt(), gradients(), buffers(): dicts of arrays
    rates                   {parameter: share of the learning rate that it gets}, where that is not all of it
    batches(start)          a context manager that iterates over batches from number `start` on; batch k depends on k alone
    step(batch)             forward and backward; returns {term: float, ..., "total": float}, the gradients are left in `net`
    sheet()                 a picture (H, W, 3) of what the net can do so far
    save_weights(path, iteration, losses)       the net as people will use it
"""

import contextlib
import csv
import itertools
import math
import signal
import sys
import time
from pathlib import Path

import numpy as np
from tqdm import tqdm

from ..data import checkpoint, images
from ..data.files import only_run, written_whole
from ..device import copy_arrays, to_numpy
from ..errors import UserError
from ..optim import Adam


def learning_rate(iteration, iterations, lr, rise=0, decay_every=0, decay_factor=0.5, fall=0.0):
    """The rate at `iteration` (from 0): lr, reached evenly over the first `rise` iterations, times `decay_factor` after
    each `decay_every` iterations (0: never), falling evenly to zero over the last share `fall` of the run (0: not at all)."""
    lr *= min(1.0, (iteration + 1) / rise) if rise else 1.0
    lr *= decay_factor ** (iteration // decay_every) if decay_every else 1.0
    left = (iterations - iteration) / iterations
    return lr * min(1.0, left / fall) if fall else lr


class Loop:
    """Steps to `iterations` in the folder `out`: every term at every iteration in losses.csv and on the plot losses.png,
    progress, a stop when asked for, saved each `every` steps and at the end. What a step is, and what is saved, a subclass
    says: `step(batch)` returns {term: float}, `save()`, and `batches()` where there are any."""

    title = "Losses"

    def __init__(self, out, iterations, every):
        self.out, self.iterations, self.every = Path(out), iterations, every
        self.iteration, self.history = 0, []
        self._stop = False

    def batches(self):
        """A context manager that iterates over what each step is given."""
        return contextlib.nullcontext(itertools.repeat(None))

    def go_on_from(self, iteration):
        """Take up the count, and the losses so far, where a checkpoint says the run was."""
        self.iteration = iteration
        self.history = _read_losses(self.out / "losses.csv", iteration)

    def run(self):
        """Run until `iterations`, or until Ctrl-C or SIGTERM, which end the run after the step in hand, saved. Returns whether
        it ran to its end."""
        self.out.mkdir(parents=True, exist_ok=True)
        old = {s: signal.signal(s, self._ask_to_stop) for s in (signal.SIGINT, signal.SIGTERM)}
        try:
            with only_run(self.out), self.batches() as batches:
                _write_losses(self.out / "losses.csv", self.history)
                self._steps(batches)
                self.save()
        except BlockingIOError:
            raise UserError(
                f"another run is at work in {self.out}: wait for it, or choose another --out"
            ) from None
        finally:
            for s, handler in old.items():
                signal.signal(s, handler)
        return self.iteration >= self.iterations

    def _steps(self, batches):
        with (
            open(self.out / "losses.csv", "a", newline="") as log,
            _Progress(self.iteration, self.iterations) as progress,
            np.errstate(all="ignore"),  # a diverging loss is told in one line
        ):
            while self.iteration < self.iterations and not self._stop:
                terms = self.step(next(batches))
                self.iteration += 1
                self._log(csv.writer(log), log, terms)
                progress.show(self.iteration, terms)
                if self.iteration % self.every == 0 and self.iteration < self.iterations:
                    self.save()

    def _log(self, writer, file, terms):
        if not self.history:
            writer.writerow(["iteration", *terms])
        self.history.append((self.iteration, terms))
        writer.writerow([self.iteration, *map(repr, terms.values())])
        file.flush()

    def plot(self):
        """losses.png of what was logged so far."""
        if self.history:
            _plot(self.out / "losses.png", self.history, self.title)

    def _ask_to_stop(self, signum, frame):
        if self._stop:
            raise KeyboardInterrupt  # asked twice: at once, back to the last checkpoint
        self._stop = True
        print("stopping after this step; once more stops at once", file=sys.stderr)


class Trainer(Loop):
    """Runs a task to `iterations`, with everything it writes in the folder `out`:

        losses.csv, losses.png      every term at every iteration; the plot
        samples/000500.png          the task's sheet so far
        weights.h5                  the net so far, for use
        checkpoint.h5               all that --resume needs: weights, Adam's moments, iteration, settings

    `schedule`: the arguments of `learning_rate` from lr on. `settings` (JSON-able) is kept in the checkpoint. Batches are
    numbered, so the iteration is all the random state there is. A loss that is not finite raises UserError and leaves the last
    checkpoint as it is.
    """

    title = "Training losses"

    def __init__(self, task, out, iterations, schedule, every, settings):
        super().__init__(out, iterations, every)
        self.task, self.schedule, self.settings = task, schedule, settings
        self.adam = Adam(task.net.learnt(), schedule["lr"])
        self.adam.rates = task.rates

    def batches(self):
        return self.task.batches(self.iteration)

    def step(self, batch):
        terms = self.task.step(batch)
        if not all(map(math.isfinite, terms.values())):
            raise UserError(self._not_finite(", ".join(f"{name} {value:g}" for name, value in terms.items())))
        self.adam.lr = learning_rate(self.iteration, self.iterations, **self.schedule)
        self.adam.step(self.task.net.gradients())
        return terms

    def resume(self, arrays, state):
        """Take up where `checkpoint.load` says the run was."""
        try:
            copy_arrays(arrays["net"], {**self.task.net.parameters(), **self.task.net.buffers()})
            self.adam.load(arrays, state["iteration"])
        except (KeyError, ValueError) as error:
            raise UserError(f"the checkpoint in {self.out} does not fit this net: {error}") from None
        self.go_on_from(state["iteration"])

    def save(self):
        """Checkpoint, weights, plot and sheet, each whole or not at all; the checkpoint first."""
        groups = {"net": {**self.task.net.parameters(), **self.task.net.buffers()}, **self.adam.state()[0]}
        groups = {
            group: {name: to_numpy(array) for name, array in named.items()} for group, named in groups.items()
        }
        for group, named in groups.items():
            for name, array in named.items():
                if not np.isfinite(array).all():
                    what = "the net" if group == "net" else f"Adam's {group}"
                    raise UserError(self._not_finite(f"{name} of {what} holds a number that is not finite"))
        try:
            sheet = self.task.sheet()
        except ValueError as error:  # finite weights can still overflow
            raise UserError(self._not_finite(str(error))) from None
        state = {"iteration": self.iteration, "settings": self.settings}
        checkpoint.save(self.out / "checkpoint.h5", groups, state)
        self.task.save_weights(self.out / "weights.h5", self.iteration, _means(self.history[-100:]))
        images.save(self.out / "samples" / f"{self.iteration:06}.png", sheet)
        self.plot()

    def _not_finite(self, what):
        kept = self.out / "checkpoint.h5"
        left = f"{kept} holds the last good state" if kept.exists() else "nothing was saved yet"
        return (
            f"stopped at iteration {self.iteration + 1}: {what}; {left}. Start again in another --out with a lower learning "
            f"rate (--lr {self.schedule['lr'] / 4:g}) or lower loss weights"
        )


class _Progress:
    """A bar on a terminal; elsewhere a plain line every ten seconds."""

    def __init__(self, start, total):
        self.start, self.total, self.begin, self.last = start, total, time.monotonic(), -math.inf
        self.bar = tqdm(total=total, initial=start, unit="it", disable=None)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.bar.close()

    def show(self, iteration, terms):
        words = "  ".join(f"{name} {value:.4g}" for name, value in terms.items())
        if not self.bar.disable:
            self.bar.set_postfix_str(words, refresh=False)
            self.bar.update()
            return
        now = time.monotonic()
        if now - self.last >= 10 or iteration == self.total:
            self.last = now
            rate = (iteration - self.start) / max(now - self.begin, 1e-9)
            left = tqdm.format_interval((self.total - iteration) / rate)
            print(
                f"iteration {iteration}/{self.total}  {words}  {rate:.2f} it/s  {left} left",
                file=sys.stderr,
                flush=True,
            )


def _means(history):
    """{term: mean over these iterations}"""
    return (
        {name: sum(terms[name] for _, terms in history) / len(history) for name in history[0][1]}
        if history
        else {}
    )


def _write_losses(path, history):
    """losses.csv from its start: after a resume it holds no rows that came after the checkpoint."""
    with written_whole(path) as temporary, open(temporary, "w", newline="") as file:
        writer = csv.writer(file)
        if history:
            writer.writerow(["iteration", *history[0][1]])
        for iteration, terms in history:
            writer.writerow([iteration, *map(repr, terms.values())])


def _read_losses(path, last):
    """The rows of losses.csv up to iteration `last`; a row that a kill cut short comes after it and is dropped."""
    if not path.exists():
        return []
    with open(path, newline="") as file:
        names, *rows = [*csv.reader(file)] or [[]]
    whole = [row for row in rows if len(row) == len(names) and row[0].isdigit() and int(row[0]) <= last]
    return [(int(row[0]), dict(zip(names[1:], map(float, row[1:]), strict=True))) for row in whole]


def _plot(path, history, title):
    """Each term over the iterations, on a logarithmic scale: every value faintly, its running mean on top."""
    from matplotlib.figure import Figure  # half a second to import, and not before there is something to draw

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.add_subplot(yscale="log", xlabel="iteration", ylabel="weighted loss", title=title)
    iterations = [iteration for iteration, _ in history]
    window = max(1, len(history) // 50)
    for name in history[0][1]:
        values = [terms[name] for _, terms in history]
        if max(values) <= 0:
            continue  # a term that is switched off
        sums = [0.0]
        for value in values:
            sums.append(sums[-1] + value)
        first = [max(0, k - window + 1) for k in range(len(values))]
        mean = [(sums[k + 1] - sums[i]) / (k + 1 - i) for k, i in enumerate(first)]
        (line,) = axes.plot(iterations, mean, label=name, linewidth=1.5)
        axes.plot(iterations, values, color=line.get_color(), alpha=0.25, linewidth=0.7)
    axes.grid(alpha=0.3, which="both")
    axes.legend()
    with written_whole(path) as temporary:
        figure.savefig(temporary, dpi=120)
