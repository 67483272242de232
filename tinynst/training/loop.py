"""The loop of every run: step after step, with progress, losses, a plot, checkpoints and Ctrl-C."""

import contextlib
import csv
import itertools
import signal
import sys
import threading
import warnings
from pathlib import Path

import numpy as np
from tqdm import TqdmWarning
from tqdm.notebook import tqdm_notebook

from ..data import checkpoint, images
from ..data.files import only_run, written_whole
from ..data.photos import warn
from ..device import floats
from ..errors import UserError

with warnings.catch_warnings():  # in a notebook without ipywidgets the bar is text, which needs no warning
    warnings.simplefilter("ignore", TqdmWarning)
    from tqdm.auto import tqdm

UNFIT = (KeyError, IndexError, ValueError, TypeError, AttributeError, csv.Error)  # of a damaged checkpoint


class Loop:
    """Iterations up to number `iterations`. The folder `out` gets losses.csv, its plot losses.png,
    samples/000500.png (the current picture) and checkpoint.h5 (all that --resume needs). `losses` is a list
    of dicts: [{"iteration": 1, "content": ..., "total": ...}, ...].

    A subclass has `title`; iterate(batch), which returns {term: number, ..., "total": number}; check(terms,
    iteration), which raises UserError for losses to stop at; sample(), the current picture (H, W, 3); for the
    checkpoint arrays(), {group: {name: array}}, state(), a dict for JSON, and restore(arrays, state);
    write_results() for other files; and results(), {name: path}, to be printed.
    """

    def __init__(self, settings):
        self.settings, self.out = settings, Path(settings.out)
        self.iteration, self.iterations, self.every = 0, settings.iterations, settings.every
        self.losses, self._stop, self.lost = [], False, False
        self.read_every, self._unread = (
            1,
            [],
        )  # losses are read together, because a GPU has to finish its work

    @property
    def finished(self):
        return self.iteration >= self.iterations

    @property
    def status(self):
        """The exit status of the command: 1 if the folder was removed on the way."""
        return (1 if self.lost else 0) if self.finished else 130

    def batches(self):
        """A context manager that iterates over the batches from `iteration` on."""
        return contextlib.nullcontext(itertools.repeat(None))

    def run(self):
        """Run to the end, or until Ctrl-C or SIGTERM: then the current iteration is completed and saved."""
        self.out.mkdir(parents=True, exist_ok=True)
        in_main = threading.current_thread() is threading.main_thread()  # other threads cannot set handlers
        signals = (signal.SIGINT, signal.SIGTERM) if in_main else ()
        handlers = {each: signal.signal(each, self._ask_to_stop) for each in signals}
        try:
            with only_run(self.out), self.batches() as batches, np.errstate(all="ignore"):
                self._run(batches)
                self.save()
                if not self._log([]):
                    self.save()
        except BlockingIOError:
            raise UserError(f"another run uses {self.out}: wait for it, or choose another --out") from None
        finally:
            for each, handler in handlers.items():
                signal.signal(each, handler)

    def _run(self, batches):
        self._write_losses()
        with _progress(self.iteration, self.iterations) as progress:
            while not self.finished and not self._stop:
                terms = self.iterate(next(batches))
                self.iteration += 1
                self._unread.append((self.iteration, terms))
                due = self.iteration % self.every == 0
                if due or len(self._unread) >= self.read_every:
                    self._read_losses(progress)
                if due and not self.finished:
                    self.save()
            self._read_losses(progress)

    def _read_losses(self, progress):
        """Move the losses of the iterations since the last call to `losses` and to losses.csv."""
        unread, self._unread = self._unread, []
        values = floats({(k, name): number for k, terms in unread for name, number in terms.items()})
        for iteration, terms in unread:
            terms = {name: values[iteration, name] for name in terms}
            self.check(terms, iteration)
            self.losses.append({"iteration": iteration, **terms})
            self._log(self.losses[-1:])
            text = ", ".join(f"{name} {value:.4g}" for name, value in terms.items())
            progress.set_postfix_str(text, refresh=False)
            progress.update()

    def check(self, terms, iteration):
        pass

    def _write_losses(self):
        with written_whole(self.out / "losses.csv") as temporary:
            _append(temporary, self.losses)

    def _log(self, rows):
        """Append to losses.csv. If somebody has removed the folder, write all losses again, return False."""
        kept = (self.out / "losses.csv").exists()
        if kept:
            _append(self.out / "losses.csv", rows)
        else:
            self.lost = True
            warn(f"{self.out} was removed during the run: what had been saved there is gone")
            self._write_losses()
        return kept

    def _ask_to_stop(self, signum, frame):
        if self._stop:
            raise KeyboardInterrupt  # the second time: stop at once, without saving
        self._stop = True
        print("stopping after this step; Ctrl-C again stops at once", file=sys.stderr)

    def save(self):
        """Write the checkpoint, then the other files, each whole or not at all."""
        groups = self.arrays()
        try:
            picture = images.to_uint8(self.sample())
        except ValueError as error:  # finite weights can still overflow
            raise self.diverged(error) from None
        state = {"iteration": self.iteration, "settings": self.settings.to_dict(), **self.state()}
        checkpoint.save(self.out / "checkpoint.h5", groups, state)
        images.save(self.out / "samples" / f"{self.iteration:06}.png", picture)
        self.write_results()
        if self.losses:
            _plot(self.out / "losses.png", self.losses, self.title)

    def resume(self, arrays, state):
        """Continue from what `checkpoint.load` returned."""
        try:
            self.restore(arrays, state)
            self.iteration = state["iteration"]
            self.losses = _read(self.out / "losses.csv", self.iteration)
        except UNFIT as error:
            raise UserError(f"the checkpoint in {self.out} does not fit these settings: {error}") from error

    def diverged(self, what, iteration=None):
        """The UserError for numbers that are not finite, in this iteration unless another is given."""
        kept = self.out / "checkpoint.h5"
        left = f"{kept} holds the last good state" if kept.exists() else "nothing was saved"
        advice = f"Start again with lower loss weights or a lower rate (--lr {self.settings.lr / 4:g})"
        return UserError(f"stopped at iteration {iteration or self.iteration + 1}: {what}; {left}. {advice}")


class _Lines:
    """A file for tqdm that makes each update a line of its own on standard error."""

    def write(self, text):
        if text.strip():
            print(text.strip(), file=sys.stderr, flush=True)

    def flush(self):
        pass


def _progress(iteration, iterations):
    """A bar in a terminal or a notebook; elsewhere a line every ten seconds."""
    plain = {}
    if not sys.stderr.isatty() and not issubclass(tqdm, tqdm_notebook):
        line = "iteration {n_fmt}/{total_fmt}{postfix}, {rate_fmt}, {remaining} left"
        plain = {"file": _Lines(), "mininterval": 10, "bar_format": line}
    return tqdm(total=iterations, initial=iteration, unit="it", **plain)


def _append(path, rows):
    with open(path, "a", newline="") as file:
        if rows and not file.tell():  # an empty file
            csv.writer(file).writerow(rows[0].keys())
        csv.writer(file).writerows(row.values() for row in rows)


def _read(path, iteration):
    """The rows of losses.csv up to `iteration`; a killed run can leave later ones, the last cut short."""
    if not path.is_file():
        return []
    with open(path, newline="") as file:
        rows = [row for row in itertools.islice(csv.DictReader(file), iteration) if None not in row.values()]
    return [{"iteration": int(row.pop("iteration")), **{k: float(row[k]) for k in row}} for row in rows]


def _plot(path, losses, title):
    """Draw each term: every value faintly, and a running mean over a fiftieth of the run."""
    from matplotlib.figure import Figure  # takes half a second to import

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.add_subplot(yscale="log", xlabel="iteration", ylabel="weighted loss", title=title)
    window = max(1, len(losses) // 50)
    iterations, *terms = ([row[name] for row in losses] for name in losses[0])
    for name, values in zip(list(losses[0])[1:], terms, strict=True):
        if max(values) > 0:  # otherwise the term is switched off
            means = np.convolve(values, np.full(window, 1 / window), "valid")
            (line,) = axes.plot(iterations[window - 1 :], means, label=name)
            axes.plot(iterations, values, color=line.get_color(), alpha=0.25, linewidth=0.7)
    axes.grid(alpha=0.3, which="both")
    axes.legend()
    with written_whole(path) as temporary:
        figure.savefig(temporary, dpi=120)
