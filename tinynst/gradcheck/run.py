"""Runs what a learner wrote, within bounds: whatever it does (raise, exit, run for ever), we hear of it."""

import contextlib
import faulthandler
import importlib.util
import io
import linecache
import signal
import sys
import threading
import time
import traceback
from pathlib import Path

from ..errors import UserError

LIMIT = 10  # seconds that one call may take on these small images
PATIENCE = 8  # seconds without a word


class TimeUp(BaseException):
    """A call has run too long. Not an Exception: `except Exception` in a loop lets it through."""


class Runner:
    """Calls a learner's functions, which stand in the file `path`.

    title   what is being checked;   error   what their code raised: anything else is a mistake of ours
    may_exit   end the process when a call cannot be stopped: a loop inside a C function sees no signal
    """

    def __init__(self, path, may_exit=False):
        self.path, self.title, self.may_exit, self.error = Path(path), Path(path).name, may_exit, None
        self.started, self.spoken, self.armed = time.monotonic(), time.monotonic(), 0.0

    def __call__(self, what, function, *arguments, **options):
        now = time.monotonic()
        if now - self.spoken > PATIENCE:
            self.spoken, text = now, f"still checking, {now - self.started:.0f} s so far"
            print(f"{self.title}: {text}", file=sys.stderr, flush=True)
        if self.may_exit and now - self.armed > 1:
            self.armed = now
            faulthandler.dump_traceback_later(LIMIT + 5, exit=True, file=sys.__stderr__)
        x = next((a for a in (*arguments, *options.values()) if getattr(a, "ndim", 0) == 4), None)
        size = "" if x is None else f" on a {x.shape[1]}x{x.shape[2]} image"
        self.doing = f"{what} has run for {LIMIT} s{size}"
        alarm = hasattr(signal, "setitimer") and threading.current_thread() is threading.main_thread()
        if alarm:
            before = signal.signal(signal.SIGALRM, self._time_up)
            signal.setitimer(signal.ITIMER_REAL, LIMIT, 0.05)  # again and again: a loop may catch everything
        try:
            return function(*arguments, **options)
        except (Exception, SystemExit, TimeUp) as error:
            self.error = error
            raise
        finally:
            if alarm:
                signal.setitimer(signal.ITIMER_REAL, 0)
                signal.signal(signal.SIGALRM, before)

    def _time_up(self, number, frame):
        while frame and not self._is_theirs(frame.f_code):
            frame = frame.f_back
        raise TimeUp(self.doing + (f", at line {frame.f_lineno}" if frame else ""))

    def _is_theirs(self, code):
        return code.co_filename == str(self.path) or Path(code.co_filename).resolve() == self.path.resolve()

    def told(self):
        """What their code raised: a line of text, and the function and the line of code where it was."""
        error, function, line, number = self.error, "", "", 0
        text = str(error) if isinstance(error, TimeUp) else f"{type(error).__name__}: {error}"
        for frame, number_here in traceback.walk_tb(error.__traceback__):
            if self._is_theirs(frame.f_code):
                function, number = frame.f_code.co_qualname, number_here
                line = linecache.getline(frame.f_code.co_filename, number).strip()
        if isinstance(error, SyntaxError):
            text, number = f"SyntaxError: {error.msg}: {(error.text or '').strip()}", error.lineno
        return (
            text + (f" (line {number})" if number and not isinstance(error, TimeUp) else ""),
            function,
            line,
        )


def load(path, names):
    """{name: (forward, backward)} of a file, in the order of `names`. Raises UserError when it has none."""
    path, run = Path(path), Runner(path)
    if not path.is_file():
        raise UserError(f"{path}: there is no such file")
    spec = importlib.util.spec_from_file_location("learners_file", path)
    if spec is None:
        raise UserError(f"{path} is no Python file: its name should end in .py")
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(path.resolve().parent))  # as `python FILE.py` would: it may import its neighbours
    linecache.checkcache(str(path))
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            run(f"{path.name}, on import,", spec.loader.exec_module, module)
    except (Exception, SystemExit, TimeUp):
        raise UserError(f"{path} does not import: {run.told()[0]}") from None
    finally:
        sys.path.pop(0)
    own = [n for n, v in vars(module).items() if callable(v) and getattr(v, "__module__", "") == spec.name]
    bases = [n.removesuffix("_backward") for n in own]
    found = [n for n in names if n in bases]  # then what looks like an operation and is none
    found += [b for n, b in zip(own, bases, strict=True) if b not in names and b != n and n[0] != "_"]
    if not found:
        raise UserError(f"{path} has nothing to check: define pairs such as conv2d and conv2d_backward")
    return {n: (getattr(module, n, None), getattr(module, f"{n}_backward", None)) for n in found}
