"""Shared by all commands: user errors reported on one line, exit statuses."""

import argparse
import importlib
import os
import sys

from . import __version__
from .errors import DeviceError, UserError

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


class Parser(argparse.ArgumentParser):
    """argparse that reports a wrong option on one line."""

    def error(self, message):
        print(f"{self.prog}: {message} (see {self.prog} --help)", file=sys.stderr)
        raise SystemExit(2)


def _check_threads():
    from .ops.fast.parallel import threads  # here, so that `tinynst --help` does not load NumPy

    try:
        threads()
    except ValueError as error:
        raise UserError(error) from None


def run(command, name, arguments=None):
    """Call `command(arguments)` and exit with its status (None is 0).

    A user error exits with 2 and an interruption with 130, both with one line on standard error. Any other
    exception is a bug and keeps its traceback. `arguments` are strings; None takes those of the command line.
    """
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # file names may not fit the terminal's encoding
    try:
        _check_threads()
        sys.exit(command(arguments) or 0)
    except BrokenPipeError:  # the reader closed the pipe, as in `tinynst ... | head`: not an error
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except (UserError, DeviceError, OSError) as error:
        status, message = 2, " ".join(str(error).split())
    except MemoryError as error:
        status, message = 2, f"not enough memory ({error}): try smaller sizes, batches or widths"
    except KeyboardInterrupt:
        status, message = 130, "interrupted"
    print(f"tinynst {name}: {message}", file=sys.stderr)
    sys.exit(status)


def main():
    """The console command: `tinynst NAME ...` does the same as `python -m tinynst.NAME ...`."""
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name in ("-h", "--help"):
        print("usage: tinynst COMMAND [options]   (tinynst COMMAND --help shows the options)\n")
        for command, meaning in COMMANDS.items():
            print(f"  {command:14} {meaning}")
    elif name == "--version":
        print(f"tinynst {__version__}")
    elif name in COMMANDS:
        run(importlib.import_module(f"tinynst.{name}").main, name, sys.argv[2:])
    else:
        print(f"tinynst: there is no command {name!r}; choose from {', '.join(COMMANDS)}", file=sys.stderr)
        sys.exit(2)
