"""Shared by all commands: user errors reported on one line, exit statuses."""

import argparse
import contextlib
import importlib
import os
import sys

from . import __version__
from .errors import DeviceError, UserError, printable

COMMANDS = {
    "train": "train a style network",
    "stylize": "apply a style to photos",
    "gallery": "a picture of photos by styles, with blends between two styles",
    "optimize": "optimize an image directly: style transfer, inversion, texture",
    "train_superres": "train a super-resolution network",
    "superres": "enlarge photos",
    "evaluate": "measure quality as the paper does",
    "figures": "make the paper's figures 3, 4 and 5",
    "dataset": "pack a folder of photos into one HDF5 file",
    "weights": "list, show, convert and blend weights",
    "gradcheck": "check gradients against finite differences",
    "exercises": "copy the exercises that gradcheck grades",
    "bench": "measure speed and memory, also in comparison with a framework",
}


def _whole_number(text):
    if abs(int(text)) >= 2**31:
        raise argparse.ArgumentTypeError(f"{text} is too large: the largest number is {2**31 - 1}")
    return int(text)


class Parser(argparse.ArgumentParser):
    """argparse that reports a wrong option on one line."""

    def __init__(self, **options):
        super().__init__(**options)
        self.register("type", int, _whole_number)  # for every option with type=int

    def error(self, message):
        print(f"{self.prog}: {printable(message)} (see {self.prog} --help)", file=sys.stderr)
        raise SystemExit(2)


def _check_environment():
    from .ops.fast.parallel import threads  # here, so that `tinynst --help` does not load NumPy

    pixels = os.environ.get("TINYNST_MAX_PIXELS") or "1"
    if not pixels.isdecimal():
        raise UserError(f"TINYNST_MAX_PIXELS should be a whole number, not {pixels!r}")
    try:
        threads()
    except ValueError as error:
        raise UserError(error) from None


class _Stream:
    """Standard output or error that loses what nobody reads (`tinynst ... | head`, or it was closed), so that
    the work goes on. `failure`: the error that ended it. Control characters in `text` are escaped: a file's
    name cannot steer the terminal."""

    def __init__(self, stream, keep="\n"):
        self.stream, self.keep, self.failure = stream or open(os.devnull, "w"), keep, None
        self.stream.reconfigure(errors="backslashreplace")  # file names may not fit the terminal's encoding

    def __getattr__(self, name):
        return getattr(self.stream, name)

    def write(self, text):
        self._try(self.stream.write, "".join(c if c in self.keep else printable(c) for c in text))

    def flush(self):
        self._try(self.stream.flush)

    def _try(self, call, *text):
        try:
            call(*text)
        except OSError as error:
            self.failure = error
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.stream.fileno())


def run(command, name, arguments=None):
    """Call `command(arguments)` and exit with its status (None is 0).

    A user error exits with 2 and an interruption with 130, both with one line on standard error. Any other
    exception is a bug and keeps its traceback. `arguments` are strings; None takes those of the command line.
    """
    out, err = _Stream(sys.stdout), _Stream(sys.stderr, "\n\r\x1b")  # progress bars move the cursor
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status, message = _status(command, arguments)
        finally:
            out.flush()
        if out.failure and not isinstance(out.failure, BrokenPipeError):
            status, message = 2, f"standard output: {out.failure.strerror}"
        if message:
            print(f"tinynst {name}: {printable(message)}", file=err)
        err.flush()
    sys.exit(status)


def _status(command, arguments):
    """The exit status of a command and the message for its error, if there is one."""
    try:
        _check_environment()
        return command(arguments) or 0, None
    except (UserError, DeviceError, OSError) as error:
        return 2, str(error)
    except (MemoryError, OverflowError) as error:
        return 2, f"not enough memory ({error}): try smaller sizes, batches or widths"
    except KeyboardInterrupt:
        return 130, "interrupted"


def main():
    """The console command: `tinynst NAME ...` does the same as `python -m tinynst.NAME ...`."""
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name in ("-h", "--help", "--version"):
        usage = ["usage: tinynst COMMAND [options]   (tinynst COMMAND --help shows the options)\n"]
        usage += [f"  {command:14} {meaning}" for command, meaning in COMMANDS.items()]
        usage += ["\nenvironment: TINYNST_THREADS, how many cores to use (default: all)"]
        usage += ["             TINYNST_MAX_PIXELS, of an image that is read (default: 100 million)"]
        out = _Stream(sys.stdout)
        print(f"tinynst {__version__}" if name == "--version" else "\n".join(usage), file=out)
        out.flush()
    elif name in COMMANDS:
        run(importlib.import_module(f"tinynst.{name}").main, name, sys.argv[2:])
    else:
        print(f"tinynst: there is no command {name!r}; choose from {', '.join(COMMANDS)}", file=sys.stderr)
        sys.exit(2)
