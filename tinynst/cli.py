"""What every command shares: options with their defaults shown, one clear line for a mistake, exit status 2."""

import argparse
import importlib
import os
import sys

from .errors import DeviceError, UserError
from .ops.fast.parallel import threads

COMMANDS = {
    "train": "train a style net",
    "stylize": "apply a style to photos",
    "gallery": "photos by styles, and strips between two styles, as one picture",
    "optimize": "optimise a picture itself: style transfer, inversion, texture",
    "train_superres": "train a super-resolution net",
    "superres": "enlarge photos",
    "evaluate": "measure quality as the paper does",
    "figures": "remake the paper's figures 3, 4 and 5",
    "dataset": "pack a folder of photos into one HDF5 file",
    "weights": "list, show, convert and blend weights",
    "gradcheck": "check gradients against finite differences",
    "exercises": "make the exercises that gradcheck grades",
    "bench": "measure speed and memory, alone or beside a framework",
}


class _Help(argparse.HelpFormatter):
    """Every default is shown, where there is one."""

    def _get_help_string(self, action):
        default = action.default
        if default is None or default is False or default is argparse.SUPPRESS or action.required:
            return action.help
        shown = " ".join(map(str, default)) if isinstance(default, (list, tuple)) else default
        return f"{action.help} (default: {shown})"


class Parser(argparse.ArgumentParser):
    """argparse with defaults in --help and one line, not a page, for a wrong option."""

    def __init__(self, **options):
        super().__init__(formatter_class=_Help, **options)

    def error(self, message):
        print(f"{self.prog}: {message} (see {self.prog} --help)", file=sys.stderr)
        raise SystemExit(2)


def given(parser, arguments=None):
    """{option: value} of those that were named on the command line, without the defaults."""
    defaults = {action: action.default for action in parser._actions}
    try:
        for action in defaults:
            action.default = argparse.SUPPRESS
        return vars(parser.parse_args(arguments))
    finally:
        for action, default in defaults.items():
            action.default = default


def run(command, name, arguments=None):
    """Call `command(arguments)` and exit: 0, its own status, or 2 with one line on standard error.

    `command` takes a list of strings (None: those of the command line). Anything that is not the user's mistake
    keeps its traceback: it is ours.
    """
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(
            errors="backslashreplace"
        )  # a file's name may hold what the terminal's encoding does not know
    try:
        threads()
    except ValueError as error:
        print(f"tinynst {name}: {error}", file=sys.stderr)
        sys.exit(2)
    try:
        status = command(arguments)
    except BrokenPipeError:  # `... | head`: the reader has had enough, and nothing is wrong
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 0
    except (UserError, DeviceError, OSError) as error:
        print(f"tinynst {name}: {' '.join(str(error).split())}", file=sys.stderr)
        status = 2
    except MemoryError as error:
        print(
            f"tinynst {name}: not enough memory ({error}): try smaller sizes, batches or widths",
            file=sys.stderr,
        )
        status = 2
    except KeyboardInterrupt:
        print(f"tinynst {name}: interrupted", file=sys.stderr)
        status = 130
    sys.exit(status or 0)


def main():
    """The console command: `tinynst NAME ...` is `python -m tinynst.NAME ...`."""
    if len(sys.argv) < 2 or sys.argv[1] in ("-h", "--help"):
        print("usage: tinynst COMMAND [options]   (tinynst COMMAND --help shows them)\n")
        for name, meaning in COMMANDS.items():
            print(f"  {name:14} {meaning}")
        sys.exit(0)
    name = sys.argv[1]
    if name not in COMMANDS:
        print(f"tinynst: there is no command {name!r}; choose from {', '.join(COMMANDS)}", file=sys.stderr)
        sys.exit(2)
    run(importlib.import_module(f"tinynst.{name}").main, name, sys.argv[2:])
